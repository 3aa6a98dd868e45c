#include "llm/guard_tally.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <stdlib.h>

struct guard_tally_item {
    str rule, group;
    enum filter_action action;
    enum guard_direction direction;
    int64_t count;
};

void guard_tally_deinit(struct guard_tally *tally)
{
    free(tally->items);
    *tally = (struct guard_tally){0};
}

static bool is_same(const struct guard_tally_item *a, const struct guard_tally_item *b)
{
    return a->direction == b->direction && a->action == b->action && str_equal(a->rule, b->rule) &&
           str_equal(a->group, b->group);
}

static struct guard_tally_item *find(struct guard_tally *tally, const struct guard_tally_item *like)
{
    for (size_t i = 0; i < tally->item_count; i++)
        if (is_same(&tally->items[i], like))
            return &tally->items[i];
    return NULL;
}

static void add(struct guard_tally *tally, struct guard_tally_item item)
{
    struct guard_tally_item *found = find(tally, &item);
    if (!found && tally->item_count >= GUARD_TALLY_RULES_MAX) {
        item.rule = item.group = S("others");
        found = find(tally, &item);
    }
    if (found) {
        found->count += item.count;
        return;
    }
    /* room for "others" of either direction and action beside the named rules */
    ensure(tally->item_count < GUARD_TALLY_RULES_MAX + 4);
    if (!tally->items)
        tally->items = calloc(GUARD_TALLY_RULES_MAX + 4, sizeof *tally->items);
    ensure(tally->items != NULL);
    tally->items[tally->item_count++] = item;
}

static void on_found(void *owner, enum guard_direction direction,
                     const struct filter_finding *finding)
{
    if (finding->action != FILTER_MASK && finding->action != FILTER_BLOCK)
        return;
    add(owner, (struct guard_tally_item){.rule = finding->rule,
                                         .group = finding->group,
                                         .action = finding->action,
                                         .direction = direction,
                                         .count = 1});
}

struct guard_sink guard_tally_sink(struct guard_tally *tally)
{
    return (struct guard_sink){on_found, tally};
}

void guard_tally_move(struct guard_tally *tally, struct guard_tally *from)
{
    for (size_t i = 0; i < from->item_count; i++)
        add(tally, from->items[i]);
    guard_tally_deinit(from);
}

enum filter_action guard_tally_action(const struct guard_tally *tally,
                                      enum guard_direction direction)
{
    enum filter_action action = FILTER_OFF;
    for (size_t i = 0; i < tally->item_count; i++)
        if (tally->items[i].direction == direction && tally->items[i].action > action)
            action = tally->items[i].action;
    return action;
}

void guard_tally_write(const struct guard_tally *tally, enum guard_direction direction,
                       struct json_writer *w)
{
    json_key(w, S("rules"));
    json_array_begin(w);
    for (size_t i = 0; i < tally->item_count; i++) {
        const struct guard_tally_item *item = &tally->items[i];
        if (item->direction != direction)
            continue;
        json_object_begin(w);
        json_put_str(w, S("rule"), item->rule);
        json_put_str(w, S("group"), item->group);
        json_put_str(w, S("action"), str_from_cstr(filter_action_name(item->action)));
        json_put_i64(w, S("count"), item->count);
        json_object_end(w);
    }
    json_array_end(w);
}
