#include "orchestrator/admission.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/ensure.h"
#include "base/map.h"

enum { STARTED_MAX = 4096 };
static struct {
    int who[STARTED_MAX];
    size_t count;
} started;

static void note_start(void *argument)
{
    started.who[started.count++] = *(int *) argument;
    free(argument);
}

static uuid id_of(int kind, int number)
{
    uuid id = {0};
    id.bytes[0] = (uint8_t) kind;
    memcpy(id.bytes + 4, &number, sizeof number);
    return id;
}

static int run_number;

/* True: it is at work at once. */
static bool ask_as(struct admission *a, int tenant, str user, int who, bool is_urgent,
                   enum priority priority)
{
    int *argument = malloc(sizeof *argument);
    bool is_known;
    ensure(argument != NULL);
    *argument = who;
    bool is_granted = admission_ask(a,
                                    &(struct admission_request){.tenant_id = id_of(1, tenant),
                                                                .run_id = id_of(2, run_number++),
                                                                .priority = priority,
                                                                .user = str_hash(user, 1),
                                                                .is_urgent = is_urgent,
                                                                .start = note_start,
                                                                .argument = argument},
                                    &is_known);
    if (is_granted)
        free(argument);
    return is_granted;
}

static bool ask(struct admission *a, int tenant, str user, int who, bool is_urgent)
{
    return ask_as(a, tenant, user, who, is_urgent, PRIORITY_NORMAL);
}

static struct admission *open_with(size_t places, size_t queue_max)
{
    started.count = 0;
    return admission_create(&(struct admission_options){.places = places, .queue_max = queue_max});
}

static void test_places_are_bounded_and_what_waits_starts_when_one_leaves(void **state)
{
    (void) state;
    struct admission *a = open_with(2, 10);
    assert_true(ask(a, 1, S("ada"), 1, false));
    assert_true(ask(a, 1, S("ada"), 2, false));
    assert_false(ask(a, 1, S("ada"), 3, false));
    assert_true(ask(a, 1, S("ada"), 4, true)); /* a cancellation waits for nobody */
    admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
    assert_int_equal(started.count, 0);
    admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
    assert_int_equal(started.count, 1);
    assert_int_equal(started.who[0], 3);
    admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
    admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
    assert_int_equal(admission_look(a).active, 0);
    admission_destroy(a);
}

static void test_turns_go_around_tenants_and_within_one_around_its_users(void **state)
{
    static const int wanted[] = {20, 10, 21, 14, 11, 12, 13};
    (void) state;
    struct admission *a = open_with(1, 100);
    assert_true(ask(a, 1, S("ada"), 0, false));
    for (int i = 0; i < 4; i++)
        assert_false(ask(a, 1, S("ada"), 10 + i, false));
    assert_false(ask(a, 1, S("bob"), 14, false));
    assert_false(ask(a, 2, S("eve"), 20, false));
    assert_false(ask(a, 2, S("eve"), 21, false));
    /* tenant 1 waited first, so its turn is first: ada, then tenant 2, then bob of tenant 1 ... */
    admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
    assert_int_equal(started.who[0], 10);
    while (admission_look(a).active > 0) {
        int last = started.who[started.count - 1];
        admission_leave(a, id_of(1, last / 10), PRIORITY_NORMAL);
    }
    assert_int_equal(started.count, ARRAY_COUNT(wanted));
    assert_int_equal(started.who[1], 20);
    assert_int_equal(started.who[2], 14);
    assert_int_equal(started.who[3], 21);
    assert_int_equal(started.who[4], 11);
    admission_destroy(a);
}

static void test_ten_thousand_of_one_tenant_delay_anothers_by_one(void **state)
{
    (void) state;
    struct admission *a = open_with(8, 100000);
    for (int i = 0; i < 3000; i++)
        (void) ask(a, 1, S("ada"), 1, false);
    bool is_at_once = ask(a, 2, S("eve"), 2, false); /* the last place is kept for such as her */
    assert_true(is_at_once);
    assert_false(ask(a, 2, S("eve"), 2, false));
    for (int i = 0; i < 3; i++) /* one for the place that is kept, one for his turn, one for hers */
        admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
    bool has_hers = false;
    for (size_t i = 0; i < started.count; i++)
        has_hers = has_hers || started.who[i] == 2;
    assert_true(has_hers);
    admission_destroy(a);
}

static void test_long_runs_of_one_tenant_leave_an_eighth_to_others(void **state)
{
    (void) state;
    struct admission *a = open_with(16, 100);
    int granted = 0;
    for (int i = 0; i < 32; i++)
        granted += ask(a, 1, S("ada"), 1, false);
    assert_int_equal(granted, 14);
    assert_true(ask(a, 2, S("eve"), 2, false));
    assert_true(ask(a, 3, S("fay"), 3, false));
    assert_false(ask(a, 4, S("gil"), 4, false));
    assert_int_equal(admission_look(a).active, 16);
    admission_destroy(a);
}

static void test_new_runs_are_refused_when_too_many_wait(void **state)
{
    (void) state;
    struct error e = {0};
    struct admission *a = open_with(1, 8);
    (void) ask(a, 1, S("ada"), 1, false);
    for (int i = 0; i < 6; i++) {
        assert_true(admission_check(a, id_of(1, 1), PRIORITY_NORMAL, &e));
        (void) ask(a, 1, S("ada"), 1, false);
    }
    assert_false(
        admission_check(a, id_of(1, 1), PRIORITY_NORMAL, &e)); /* three quarters are its share */
    assert_int_equal(e.reason, REASON_OVERLOADED_HERE);
    assert_true(e.retry_after_ms > 0);
    for (int i = 0; i < 2; i++) {
        assert_true(admission_check(a, id_of(1, 2), PRIORITY_NORMAL, &e));
        (void) ask(a, 2, S("eve"), 2, false);
    }
    assert_false(admission_check(a, id_of(1, 3), PRIORITY_NORMAL, &e));
    assert_int_equal(admission_look(a).refused, 2);
    admission_destroy(a);
}

static void test_a_run_is_queued_once(void **state)
{
    (void) state;
    bool is_known;
    struct admission *a = open_with(1, 8);
    (void) ask(a, 1, S("ada"), 1, false);
    int *first = malloc(sizeof *first), *second = malloc(sizeof *second);
    ensure(first != NULL && second != NULL);
    struct admission_request request = {.tenant_id = id_of(1, 1),
                                        .run_id = id_of(2, -7),
                                        .priority = PRIORITY_NORMAL,
                                        .start = note_start,
                                        .argument = first};
    *first = *second = 7;
    assert_false(admission_ask(a, &request, &is_known));
    assert_false(is_known);
    request.argument = second;
    assert_false(admission_ask(a, &request, &is_known));
    assert_true(is_known);
    free(second);
    admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
    assert_int_equal(started.count, 1);
    admission_destroy(a);
}

static void test_the_more_urgent_go_first_and_the_least_urgent_is_not_forgotten(void **state)
{
    (void) state;
    struct admission *a = open_with(1, 100);
    assert_true(ask(a, 1, S("ada"), 0, false));
    for (int i = 0; i < 3; i++)
        assert_false(ask_as(a, 1, S("ada"), 1, false, PRIORITY_BATCH));
    for (int i = 0; i < 16; i++)
        assert_false(ask_as(a, 1, S("bob"), 3, false, PRIORITY_INTERACTIVE));
    assert_int_equal(admission_look(a).queued_of[PRIORITY_INTERACTIVE], 16);
    enum priority held = PRIORITY_NORMAL;
    while (admission_look(a).active > 0) {
        size_t before = started.count;
        admission_leave(a, id_of(1, 1), held);
        if (started.count > before)
            held = started.who[before] == 1 ? PRIORITY_BATCH : PRIORITY_INTERACTIVE;
    }
    assert_int_equal(started.count, 19);
    for (size_t i = 0; i < 16;
         i++) /* each eighth turn is a batch run's, and the rest theirs at the end */
        assert_int_equal(started.who[i], i % 8 == 7 ? 1 : 3);
    assert_int_equal(started.who[18], 1);
    admission_destroy(a);
}

static void test_batch_leaves_a_quarter_of_the_places_and_half_of_the_queue(void **state)
{
    (void) state;
    struct error e = {0};
    struct admission *a = open_with(8, 10);
    int granted = 0;
    for (int i = 0; i < 11; i++)
        granted += ask_as(a, 1, S("ada"), 1, false, PRIORITY_BATCH);
    assert_int_equal(granted, 6);
    assert_int_equal(admission_look(a).active_batch, 6);
    assert_true(ask_as(a, 1, S("ada"), 2, false, PRIORITY_INTERACTIVE)); /* past five that wait */
    assert_false(admission_check(a, id_of(1, 2), PRIORITY_BATCH, &e));
    assert_true(admission_check(a, id_of(1, 2), PRIORITY_NORMAL, &e));
    admission_leave(a, id_of(1, 1), PRIORITY_INTERACTIVE);
    assert_int_equal(started.count, 0); /* what is left is not for batch */
    admission_leave(a, id_of(1, 1), PRIORITY_BATCH);
    assert_int_equal(started.count, 1);
    admission_destroy(a);
}

/* How many turns of the node pass from the moment one run of tenant 2 asks until it is its turn, while tenant 1 has `flood` times as many. */
static size_t turns_until_begun(int flood)
{
    struct admission *a = open_with(4, 100000);
    for (int i = 0; i < 200 * flood; i++)
        (void) ask(a, 1, S("ada"), 1, false);
    size_t turns = 0, before = started.count;
    for (int i = 0; i < 4; i++) /* her runs come four at a time */
        if (ask(a, 2, S("eve"), 2, false))
            return 0;
    int waiting = 4;
    while (waiting > 0 && turns < 10000) {
        admission_leave(a, id_of(1, 1), PRIORITY_NORMAL);
        for (; before < started.count; before++) {
            waiting -= started.who[before] == 2;
        }
        turns++;
        if (started.count > STARTED_MAX / 2)
            break;
    }
    admission_destroy(a);
    return turns;
}

/* Alone means: behind work of her own size.  Whoever has fifty times as much delays her by no more than one turn for each of hers. */
static void test_a_flood_of_fifty_times_delays_another_tenant_by_its_turns_only(void **state)
{
    (void) state;
    size_t alone = turns_until_begun(1), flooded = turns_until_begun(50);
    assert_in_range(alone, 1, 12);
    assert_true(flooded <= 3 * alone);
    assert_int_equal(flooded, alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_are_bounded_and_what_waits_starts_when_one_leaves),
        cmocka_unit_test(test_turns_go_around_tenants_and_within_one_around_its_users),
        cmocka_unit_test(test_ten_thousand_of_one_tenant_delay_anothers_by_one),
        cmocka_unit_test(test_long_runs_of_one_tenant_leave_an_eighth_to_others),
        cmocka_unit_test(test_new_runs_are_refused_when_too_many_wait),
        cmocka_unit_test(test_a_run_is_queued_once),
        cmocka_unit_test(test_the_more_urgent_go_first_and_the_least_urgent_is_not_forgotten),
        cmocka_unit_test(test_batch_leaves_a_quarter_of_the_places_and_half_of_the_queue),
        cmocka_unit_test(test_a_flood_of_fifty_times_delays_another_tenant_by_its_turns_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
