#include "orchestrator/journal/event_upgrade.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"

static const struct json *parse(struct arena *arena, const char *text)
{
    const struct json *out;
    assert_true(json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &out, NULL));
    return out;
}

/* Version 0 said "note", version 1 says "message". */
static bool from_0(struct arena *arena, const struct json *data, const struct json **out,
                   struct error *e)
{
    struct json_builder b;
    str note;
    if (!json_need_str(data, S("note"), &note, e))
        return false;
    json_builder_init(&b, arena, 8);
    json_build_object_begin(&b);
    json_build_key(&b, S("message"));
    json_build_str(&b, note);
    json_build_object_end(&b);
    *out = json_build_finish(&b);
    return true;
}

/* Version 2 wants it as a list. */
static bool from_1(struct arena *arena, const struct json *data, const struct json **out,
                   struct error *e)
{
    struct json_builder b;
    (void) e;
    json_builder_init(&b, arena, 8);
    json_build_object_begin(&b);
    json_build_key(&b, S("messages"));
    json_build_array_begin(&b);
    json_build_value(&b, json_get(data, S("message")));
    json_build_array_end(&b);
    json_build_object_end(&b);
    *out = json_build_finish(&b);
    return true;
}

static const struct event_upgrade table[] = {
    {EVENT_BUDGET_REFUSED, 0, from_0},
    {EVENT_BUDGET_REFUSED, 1, from_1},
};

static void test_an_old_event_is_brought_up_to_date_step_by_step(void **state)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *out;
    struct error e = {0};
    (void) state;
    assert_true(event_upgrade_by(table, ARRAY_COUNT(table), arena, EVENT_BUDGET_REFUSED, 0, 2,
                                 parse(arena, "{\"note\":\"too dear\"}"), &out, &e));
    assert_true(str_equal(json_print(arena, out), S("{\"messages\":[\"too dear\"]}")));
}

static void test_an_event_of_today_stays_as_it_is(void **state)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *out, *data = parse(arena, "{\"message\":\"x\"}");
    struct error e = {0};
    (void) state;
    assert_true(event_upgrade(arena, EVENT_BUDGET_REFUSED, 1, data, &out, &e));
    assert_ptr_equal(out, data);
}

static void test_newer_unknown_and_broken_versions_are_refused(void **state)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *out, *data = parse(arena, "{}");
    struct error e = {0};
    (void) state;
    assert_false(event_upgrade(arena, EVENT_BUDGET_REFUSED, 9, data, &out, &e));
    assert_int_equal(e.reason, REASON_CORRUPT);
    assert_false(event_upgrade(arena, EVENT_BUDGET_REFUSED, 0, data, &out, &e));
    assert_int_equal(e.reason, REASON_CORRUPT);
    assert_false(event_upgrade_by(table, ARRAY_COUNT(table), arena, EVENT_BUDGET_REFUSED, 0, 2,
                                  data, &out, &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_old_event_is_brought_up_to_date_step_by_step),
        cmocka_unit_test(test_an_event_of_today_stays_as_it_is),
        cmocka_unit_test(test_newer_unknown_and_broken_versions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
