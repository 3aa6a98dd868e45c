/* Notebooks without a sandbox: whose they are, how many there may be, when they end. */
#include "agent/sandbox/notebooks.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

enum { THREADS = 4, TURNS = 5000 };

static atomic_int live_count; /* things that notebooks keep */

static void *make(void)
{
    atomic_fetch_add(&live_count, 1);
    int *thing = calloc(1, sizeof *thing);
    ensure(thing != NULL);
    return thing;
}

static void drop(void *kept)
{
    atomic_fetch_sub(&live_count, 1);
    free(kept);
}

static digest digest_of(const char *tenant, const char *session, const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "%s/%s/%s", tenant, session, name);
    return digest_sha256(str_from_cstr(text));
}

static struct tool_notebook wish(const char *tenant, const char *session, const char *name)
{
    return (struct tool_notebook){.tenant = digest_of(tenant, "", ""),
                                  .session = digest_of(tenant, session, ""),
                                  .self = digest_of(tenant, session, name),
                                  .memory_bytes = 1,
                                  .idle_ns = INT64_MAX,
                                  .per_session_max = 2};
}

static struct notebook *take(struct notebooks *notebooks, struct tool_notebook of)
{
    struct error e;
    bool is_busy;
    struct notebook *notebook = NULL;
    assert_true(notebook_take(notebooks, &of, &notebook, &is_busy, &e));
    assert_false(is_busy);
    return notebook;
}

/* A call that leaves something behind; true when there was something before. */
static bool use(struct notebooks *notebooks, struct tool_notebook of)
{
    struct notebook *notebook = take(notebooks, of);
    bool was_there = notebook->kept != NULL;
    if (!was_there)
        notebook->kept = make();
    notebook_put_back(notebooks, notebook);
    return was_there;
}

static void test_it_is_kept_for_the_same_wish_and_no_other(void **state)
{
    (void) state;
    struct notebooks *notebooks = notebooks_create(clock_system(), drop);
    assert_false(use(notebooks, wish("t", "s", "a")));
    assert_true(use(notebooks, wish("t", "s", "a")));
    assert_false(use(notebooks, wish("t", "s", "b")));
    assert_false(use(notebooks, wish("t", "r", "a")));
    assert_false(use(notebooks, wish("u", "s", "a")));
    assert_int_equal(notebooks_count(notebooks), 4);
    notebooks_destroy(notebooks);
    assert_int_equal(atomic_load(&live_count), 0);
}

static void test_one_call_at_a_time_has_it(void **state)
{
    (void) state;
    struct error e;
    bool is_busy = false;
    struct notebook *second = NULL;
    struct tool_notebook of = wish("t", "s", "a");
    struct notebooks *notebooks = notebooks_create(clock_system(), drop);
    struct notebook *first = take(notebooks, of);
    assert_true(notebook_take(notebooks, &of, &second, &is_busy, &e));
    assert_true(is_busy);
    assert_null(second);
    notebook_put_back(notebooks, first);
    notebooks_destroy(notebooks);
}

static void test_a_call_that_leaves_nothing_ends_it(void **state)
{
    (void) state;
    struct notebooks *notebooks = notebooks_create(clock_system(), drop);
    use(notebooks, wish("t", "s", "a"));
    struct notebook *notebook = take(notebooks, wish("t", "s", "a"));
    drop(GIVE(notebook->kept));
    notebook_put_back(notebooks, notebook);
    assert_int_equal(notebooks_count(notebooks), 0);
    assert_false(use(notebooks, wish("t", "s", "a")));
    notebooks_destroy(notebooks);
    assert_int_equal(atomic_load(&live_count), 0);
}

static void test_the_idle_one_used_longest_ago_makes_room_in_its_session(void **state)
{
    (void) state;
    struct notebooks *notebooks = notebooks_create(clock_system(), drop);
    use(notebooks, wish("t", "other", "z"));
    use(notebooks, wish("t", "s", "a"));
    use(notebooks, wish("t", "s", "b"));
    use(notebooks, wish("t", "s", "a"));
    use(notebooks, wish("t", "s", "c")); /* b goes */
    assert_true(use(notebooks, wish("t", "s", "a")));
    assert_true(use(notebooks, wish("t", "other", "z")));
    assert_false(use(notebooks, wish("t", "s", "b")));
    notebooks_destroy(notebooks);
    assert_int_equal(atomic_load(&live_count), 0);
}

static void test_when_all_of_a_scope_are_in_use_the_next_is_refused(void **state)
{
    (void) state;
    struct error e;
    bool is_busy;
    struct notebook *taken[SANDBOX_NOTEBOOKS_PER_TENANT_MAX], *more = NULL;
    struct notebooks *notebooks = notebooks_create(clock_system(), drop);
    for (size_t i = 0; i < ARRAY_COUNT(taken); i++) {
        char session[2] = {(char) ('a' + i), 0};
        taken[i] = take(notebooks, wish("t", session, "n"));
        taken[i]->kept = make();
    }
    struct tool_notebook next = wish("t", "z", "n");
    assert_false(notebook_take(notebooks, &next, &more, &is_busy, &e));
    assert_int_equal(e.code, ERROR_LIMIT);
    assert_non_null(strstr(e.message, "this tenant"));
    assert_false(use(notebooks, wish("u", "z", "n"))); /* another tenant has room */
    notebook_put_back(notebooks, taken[3]);
    assert_false(use(notebooks, next)); /* in the place of the one given back */
    for (size_t i = 0; i < ARRAY_COUNT(taken); i++)
        if (i != 3)
            notebook_put_back(notebooks, taken[i]);
    notebooks_destroy(notebooks);
    assert_int_equal(atomic_load(&live_count), 0);
}

static void test_an_idle_one_is_freed_without_anybody_asking(void **state)
{
    (void) state;
    struct notebooks *notebooks = notebooks_create(clock_system(), drop);
    struct tool_notebook of = wish("t", "s", "a");
    of.idle_ns = 1;
    use(notebooks, of);
    for (int i = 0; i < 500 && atomic_load(&live_count) > 0; i++)
        usleep(10 * 1000);
    assert_int_equal(atomic_load(&live_count), 0);
    assert_int_equal(notebooks_count(notebooks), 0);
    notebooks_destroy(notebooks);
}

static void *compete(void *argument)
{
    struct notebooks *notebooks = argument;
    static atomic_int turn;
    for (int i = 0; i < TURNS; i++) {
        char session[2] = {(char) ('a' + atomic_fetch_add(&turn, 1) % 20), 0};
        struct tool_notebook of = wish(session[0] % 2 ? "t" : "u", session, "n");
        struct notebook *notebook = NULL;
        struct error e;
        bool is_busy;
        if (!notebook_take(notebooks, &of, &notebook, &is_busy, &e) || is_busy)
            continue;
        if (notebook->kept && i % 7 == 0)
            drop(GIVE(notebook->kept));
        else if (!notebook->kept)
            notebook->kept = make();
        notebook_put_back(notebooks, notebook);
    }
    return NULL;
}

static void test_many_threads_share_them(void **state)
{
    (void) state;
    pthread_t threads[THREADS];
    struct notebooks *notebooks = notebooks_create(clock_system(), drop);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, compete, notebooks), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(notebooks_count(notebooks) <= SANDBOX_NOTEBOOKS_MAX);
    notebooks_destroy(notebooks);
    assert_int_equal(atomic_load(&live_count), 0);
}

/* ---- which one a call wants ---- */

static bool wanted(struct tool_request *request, struct tool *tool, const char *input,
                   struct notebook_wish *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *parsed;
    struct tool_module module = {.abi = tool->abi, .digest = tool->module_digest};
    assert_true(json_parse(arena, str_from_cstr(input), (struct json_limits){0}, &parsed, e));
    request->tool = tool;
    return notebook_of_call(request, parsed, &module, out, e);
}

static void test_a_wish_is_told_by_tenant_session_user_tool_and_name(void **state)
{
    (void) state;
    struct error e;
    struct notebook_wish first, other;
    struct tool tool = {.name = S("code"),
                        .category = S("code"),
                        .abi = TOOL_ABI_COMPONENT,
                        .notebooks = {.is_enabled = true, .per_session_max = 1}};
    struct tool_request base = {.session_id = uuid_new(clock_system(), random_system()),
                                .user_id = S("ada")};
    const char *input = "{\"notebook\":\"n\"}";
    assert_true(wanted(&base, &tool, input, &first, &e) && first.is_there);
    struct tool_request same = base;
    assert_true(wanted(&same, &tool, input, &other, &e));
    assert_true(digest_equal(first.of.self, other.of.self));
    struct tool_request by_user = base, by_session = base, by_tenant = base;
    by_user.user_id = S("bob");
    by_session.session_id = uuid_new(clock_system(), random_system());
    by_tenant.tenant_id = by_session.session_id;
    struct tool_request *requests[] = {&by_user, &by_session, &by_tenant};
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        assert_true(wanted(requests[i], &tool, input, &other, &e));
        assert_false(digest_equal(first.of.self, other.of.self));
    }
    assert_true(wanted(&base, &tool, "{\"notebook\":\"m\"}", &other, &e));
    assert_false(digest_equal(first.of.self, other.of.self));
    tool.identity = digest_sha256(S("another version"));
    assert_true(wanted(&base, &tool, input, &other, &e));
    assert_false(digest_equal(first.of.self, other.of.self));
}

static void test_a_wish_that_cannot_be_is_refused_with_its_reason(void **state)
{
    (void) state;
    struct error e;
    struct notebook_wish wish;
    struct tool tool = {.name = S("code"), .category = S("code"), .abi = TOOL_ABI_COMPONENT};
    struct tool_request request = {.session_id = uuid_new(clock_system(), random_system())};
    const char *input = "{\"notebook\":\"n\"}";
    assert_true(wanted(&request, &tool, "{}", &wish, &e) && !wish.is_there);
    assert_false(wanted(&request, &tool, input, &wish, &e));
    assert_int_equal(e.reason, REASON_PERMISSION);
    tool.notebooks.is_enabled = true;
    request.session_id = UUID_NONE;
    assert_false(wanted(&request, &tool, input, &wish, &e));
    assert_int_equal(e.code, ERROR_INVALID);
    request.session_id = uuid_new(clock_system(), random_system());
    tool.abi = TOOL_ABI_NEXUS_EXPORT;
    assert_false(wanted(&request, &tool, input, &wish, &e));
    assert_int_equal(e.reason, REASON_UNSUPPORTED);
    tool.category = S("text_processing"); /* its `notebook` is a word like any other */
    assert_true(wanted(&request, &tool, input, &wish, &e) && !wish.is_there);
}

static void test_a_call_in_a_notebook_is_not_repeatable_and_its_output_private(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct tool tool = {.category = S("code"),
                        .is_idempotent = true,
                        .is_output_public = true,
                        .is_output_trusted = true};
    assert_ptr_equal(tool_of_call(arena, &tool, S("{\"notebook\":\"n\"}")), &tool);
    tool.notebooks.is_enabled = true;
    assert_ptr_equal(tool_of_call(arena, &tool, S("{\"code\":\"1\"}")), &tool);
    const struct tool *call = tool_of_call(arena, &tool, S("{\"notebook\":\"n\"}"));
    assert_false(call->is_idempotent || call->is_output_public || call->is_output_trusted);
    assert_true(tool_has_effect(call));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_kept_for_the_same_wish_and_no_other),
        cmocka_unit_test(test_one_call_at_a_time_has_it),
        cmocka_unit_test(test_a_call_that_leaves_nothing_ends_it),
        cmocka_unit_test(test_the_idle_one_used_longest_ago_makes_room_in_its_session),
        cmocka_unit_test(test_when_all_of_a_scope_are_in_use_the_next_is_refused),
        cmocka_unit_test(test_an_idle_one_is_freed_without_anybody_asking),
        cmocka_unit_test(test_many_threads_share_them),
        cmocka_unit_test(test_a_wish_is_told_by_tenant_session_user_tool_and_name),
        cmocka_unit_test(test_a_wish_that_cannot_be_is_refused_with_its_reason),
        cmocka_unit_test(test_a_call_in_a_notebook_is_not_repeatable_and_its_output_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
