#include "base/arena.h"
#include "base/limits.h"
#include "store/store_contract.h"
#include <setjmp.h>
#include <stdarg.h>
/* after the above: cmocka wants them first */
#include <cmocka.h>

static struct store_fixture *current;
static uuid tenant_a, tenant_b;

#define OK(call) assert_true(call)
#define REFUSED(call, wanted)                                                                      \
    do {                                                                                           \
        assert_false(call);                                                                        \
        assert_string_equal(error_problem(e.reason), error_problem(REASON_##wanted));              \
    } while (0)

static void values_come_back_until_they_expire(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct kv *kv = current->kv;
    str value;
    REFUSED(kv_get(kv, ctx, tenant_a, S("k"), &value, &e), NOT_FOUND);
    OK(kv_put(kv, ctx, tenant_a, S("k"), S("a\0b"), 0, false, &e));
    OK(kv_get(kv, ctx, tenant_a, S("k"), &value, &e));
    assert_true(str_equal(value, S("a\0b")));
    REFUSED(kv_get(kv, ctx, tenant_b, S("k"), &value, &e), NOT_FOUND);
    OK(kv_put(kv, ctx, tenant_a, S("k"), S(""), 0, false, &e));
    OK(kv_get(kv, ctx, tenant_a, S("k"), &value, &e));
    assert_int_equal(value.len, 0);
    OK(kv_remove(kv, ctx, tenant_a, S("k"), &e));
    OK(kv_remove(kv, ctx, tenant_a, S("k"), &e));
    REFUSED(kv_get(kv, ctx, tenant_a, S("k"), &value, &e), NOT_FOUND);
    OK(kv_put(kv, ctx, tenant_a, S("short"), S("v"), 40, false, &e));
    OK(context_sleep_ms(ctx, 60, &e));
    REFUSED(kv_get(kv, ctx, tenant_a, S("short"), &value, &e), NOT_FOUND);
}

static void a_lock_is_held_by_one_until_it_expires(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct kv *kv = current->kv;
    OK(kv_put(kv, ctx, tenant_a, S("lock"), S("n1"), 150, true, &e));
    REFUSED(kv_put(kv, ctx, tenant_a, S("lock"), S("n2"), 150, true, &e), CONFLICT);
    OK(kv_put(kv, ctx, tenant_b, S("lock"), S("n2"), 150, true, &e));
    OK(context_sleep_ms(ctx, 200, &e));
    OK(kv_put(kv, ctx, tenant_a, S("lock"), S("n2"), 150, true, &e));
}

static void add_one(struct context *ctx, void *argument)
{
    struct error e;
    int64_t value;
    for (int i = 0; i < 10; i++)
        OK(kv_add(current->kv, ctx, tenant_a, S("shared"), 1, 0, &value, &e));
    ++*(int *) argument;
}

static void counters_count(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct kv *kv = current->kv;
    int64_t value;
    OK(kv_add(kv, ctx, tenant_a, S("c"), 5, 60, &value, &e));
    assert_int_equal(value, 5);
    OK(kv_add(kv, ctx, tenant_a, S("c"), -7, 60000, &value, &e)); /* keeps its first end of life */
    assert_int_equal(value, -2);
    str text;
    OK(kv_get(kv, ctx, tenant_a, S("c"), &text, &e));
    assert_true(str_equal(text, S("-2")));
    OK(context_sleep_ms(ctx, 90, &e));
    OK(kv_add(kv, ctx, tenant_a, S("c"), 1, 0, &value, &e));
    assert_int_equal(value, 1);
    OK(kv_add(kv, ctx, tenant_a, S("c"), INT64_MAX - 1, 0, &value, &e));
    REFUSED(kv_add(kv, ctx, tenant_a, S("c"), 1, 0, &value, &e), LIMIT);
    OK(kv_put(kv, ctx, tenant_a, S("text"), S("12x"), 0, false, &e));
    REFUSED(kv_add(kv, ctx, tenant_a, S("text"), 1, 0, &value, &e), CONFLICT);
    struct group group;
    int finished = 0;
    group_init(&group, ctx);
    for (int i = 0; i < 32; i++)
        OK(group_start(&group, "adder", add_one, &finished, &e));
    group_wait(&group);
    assert_int_equal(finished, 32);
    OK(kv_add(kv, ctx, tenant_a, S("shared"), 0, 0, &value, &e));
    assert_int_equal(value, 320);
}

static void sizes_are_bounded(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    char *bytes = arena_alloc(ctx->arena, KV_VALUE_BYTES_MAX + 1);
    OK(kv_put(current->kv, ctx, tenant_a, str_of(bytes, KV_KEY_BYTES_MAX),
              str_of(bytes, KV_VALUE_BYTES_MAX), 0, false, &e));
    REFUSED(kv_put(current->kv, ctx, tenant_a, str_of(bytes, KV_KEY_BYTES_MAX + 1), S(""), 0, false,
                   &e),
            INVALID);
    REFUSED(kv_put(current->kv, ctx, tenant_a, S(""), S(""), 0, false, &e), INVALID);
    REFUSED(kv_put(current->kv, ctx, tenant_a, S("k"), str_of(bytes, KV_VALUE_BYTES_MAX + 1), 0,
                   false, &e),
            TOO_LARGE);
    REFUSED(kv_put(current->kv, ctx, tenant_a, S("k"), S(""), KV_TTL_MS_MAX + 1, false, &e),
            INVALID);
}

static int open_fixture(void **state)
{
    (void) state;
    current->open(current);
    tenant_a = test_id();
    tenant_b = test_id();
    return 0;
}

static int close_fixture(void **state)
{
    (void) state;
    current->close(current);
    return 0;
}

#define IN_COROUTINE(body)                                                                         \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void) state;                                                                              \
        store_testkit_run(body, NULL);                                                             \
    }
IN_COROUTINE(values_come_back_until_they_expire)
IN_COROUTINE(a_lock_is_held_by_one_until_it_expires)
IN_COROUTINE(counters_count)
IN_COROUTINE(sizes_are_bounded)

int kv_contract_run(struct store_fixture *fixture)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_come_back_until_they_expire),
        cmocka_unit_test(test_a_lock_is_held_by_one_until_it_expires),
        cmocka_unit_test(test_counters_count),
        cmocka_unit_test(test_sizes_are_bounded),
    };
    current = fixture;
    return cmocka_run_group_tests_name(fixture->name, tests, open_fixture, close_fixture);
}
