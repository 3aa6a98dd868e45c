/*
 * Intrusive doubly linked list with a sentinel head.  A node is in at most one list.
 */
#ifndef NEXUS_BASE_LIST_H
#define NEXUS_BASE_LIST_H

#include "base/attributes.h"

struct list {
    struct list *next, *previous;
};

static inline void list_init(struct list *head)
{
    head->next = head->previous = head;
}
static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}
static inline bool list_is_linked(const struct list *node)
{
    return node->next != NULL && node->next != node;
}
static inline void list_insert_between_(struct list *node, struct list *before, struct list *after)
{
    node->previous = before;
    node->next = after;
    before->next = node;
    after->previous = node;
}
static inline void list_push_back(struct list *head, struct list *node)
{
    list_insert_between_(node, head->previous, head);
}
static inline void list_push_front(struct list *head, struct list *node)
{
    list_insert_between_(node, head, head->next);
}
/* Unlinks and makes the node a list of its own; harmless on an unlinked (self-linked or zeroed) node. */
static inline void list_remove(struct list *node)
{
    if (node->next == NULL)
        return;
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = node;
}
static inline struct list *list_first(struct list *head) /* NULL when empty */
{
    return list_is_empty(head) ? NULL : head->next;
}
static inline struct list *list_pop_front(struct list *head) /* NULL when empty */
{
    struct list *node = list_first(head);
    if (node)
        list_remove(node);
    return node;
}
#define LIST_ITEM(node, type, member) CONTAINER_OF(node, type, member)
/* The current node may be removed inside the loop. */
#define LIST_EACH(node, head)                                                                      \
    for (struct list *node = (head)->next, *node##_next = node->next; node != (head);              \
         node = node##_next, node##_next = node->next)

#endif
