#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct item {
    int number;
    struct list node;
};

static int numbers_of(struct list *head)
{
    int digits = 0;
    LIST_EACH(node, head)
    digits = digits * 10 + LIST_ITEM(node, struct item, node)->number;
    return digits;
}

static void test_items_come_in_the_order_they_were_pushed(void **state)
{
    (void) state;
    struct list head;
    struct item items[3] = {{.number = 1}, {.number = 2}, {.number = 3}};
    list_init(&head);
    assert_true(list_is_empty(&head));
    assert_null(list_first(&head));
    assert_null(list_pop_front(&head));
    list_push_back(&head, &items[1].node);
    list_push_back(&head, &items[2].node);
    list_push_front(&head, &items[0].node);
    assert_int_equal(numbers_of(&head), 123);
    assert_ptr_equal(list_pop_front(&head), &items[0].node);
    assert_int_equal(numbers_of(&head), 23);
}

static void test_removal_is_harmless_on_what_is_in_no_list(void **state)
{
    (void) state;
    struct list head;
    struct item item = {.number = 1};
    list_init(&head);
    list_remove(&item.node); /* zeroed */
    assert_false(list_is_linked(&item.node));
    list_push_back(&head, &item.node);
    assert_true(list_is_linked(&item.node));
    list_remove(&item.node);
    list_remove(&item.node); /* linked to itself */
    assert_false(list_is_linked(&item.node));
    assert_true(list_is_empty(&head));
}

static void test_the_current_item_may_be_removed_while_walking(void **state)
{
    (void) state;
    struct list head;
    struct item items[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};
    list_init(&head);
    for (int i = 0; i < 4; i++)
        list_push_back(&head, &items[i].node);
    LIST_EACH(node, &head)
    {
        if (LIST_ITEM(node, struct item, node)->number % 2 == 0)
            list_remove(node);
    }
    assert_int_equal(numbers_of(&head), 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_come_in_the_order_they_were_pushed),
        cmocka_unit_test(test_removal_is_harmless_on_what_is_in_no_list),
        cmocka_unit_test(test_the_current_item_may_be_removed_while_walking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
