#include "orchestrator/journal/journal_tail.h"
#include "base/arena.h"
#include "base/limits.h"
#include "runtime/simulated.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WRITER = 1, NEXT_WRITER };

struct fixture {
    struct arena *arena;
    struct journal_tail *tail;
    struct event events[JOURNAL_TAIL_EVENTS];
    str data[JOURNAL_TAIL_EVENTS];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->arena = arena_create(0);
    f->tail = journal_tail_create();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    journal_tail_destroy(f->tail);
    arena_destroy(f->arena);
    free(f);
    return 0;
}

static void offer_of(struct fixture *f, int64_t writer, int64_t seq, str data)
{
    journal_tail_offer(f->tail, writer,
                       &(struct event){.seq = seq, .type = EVENT_MODEL_DELTA, .at_us = seq * 10},
                       data);
}

static void offer(struct fixture *f, int64_t seq, str data)
{
    offer_of(f, WRITER, seq, data);
}

static size_t read_after(struct fixture *f, int64_t after)
{
    return journal_tail_read(f->tail, after, ARRAY_COUNT(f->events), f->arena, f->events, f->data);
}

static void test_only_committed_events_are_read(void **state)
{
    struct fixture *f = *state;
    offer(f, 4, S("{\"n\":4}"));
    offer(f, 5, S("{\"n\":5}"));
    assert_int_equal(read_after(f, 3), 0);
    journal_tail_commit(f->tail, WRITER, 4);
    assert_int_equal(read_after(f, 3), 1);
    assert_true(str_equal(f->data[0], S("{\"n\":4}")));
    assert_int_equal(f->events[0].at_us, 40);
    journal_tail_commit(f->tail, WRITER, 5);
    assert_int_equal(read_after(f, 3), 2);
    assert_int_equal(read_after(f, 4), 1);
    assert_int_equal(f->events[0].seq, 5);
    assert_int_equal(read_after(f, 5), 0);
}

static void test_what_it_never_held_is_the_stores(void **state)
{
    struct fixture *f = *state;
    offer(f, 4, S("4"));
    journal_tail_commit(f->tail, WRITER, 4);
    assert_int_equal(read_after(f, 0), 0);
    assert_int_equal(read_after(f, 2), 0);
    assert_int_equal(read_after(f, 3), 1);
}

static void test_a_number_that_is_offered_again_takes_the_place_of_all_from_it_on(void **state)
{
    struct fixture *f = *state;
    for (int64_t seq = 1; seq <= 4; seq++)
        offer(f, seq, S("lost"));
    journal_tail_commit(f->tail, WRITER, 2);
    offer(f, 3, S("new"));
    assert_int_equal(read_after(f, 0), 2);
    journal_tail_commit(f->tail, WRITER, 3);
    assert_int_equal(read_after(f, 0), 3);
    assert_true(str_equal(f->data[2], S("new")));
}

/* 3 and 4 were another's: this writer's next one is 5, of which 4 is not what is held. */
static void test_what_a_writer_left_uncommitted_is_forgotten_as_the_next_one_begins(void **state)
{
    struct fixture *f = *state;
    for (int64_t seq = 1; seq <= 4; seq++)
        offer(f, seq, S("held"));
    journal_tail_commit(f->tail, WRITER, 2);
    journal_tail_begin(f->tail);
    assert_int_equal(read_after(f, 0), 2);
    offer(f, 5, S("5"));
    journal_tail_commit(f->tail, WRITER, 5);
    assert_int_equal(read_after(f, 2), 0);
    assert_int_equal(read_after(f, 4), 1);
    assert_true(str_equal(f->data[0], S("5")));
}

/* The earlier writer's batch was on its way as the next one began: 3 is its, whatever the next one offered under this number. */
static void test_a_late_commit_of_an_earlier_writer_does_not_show_what_the_next_one_offered(
    void **state)
{
    struct fixture *f = *state;
    for (int64_t seq = 1; seq <= 2; seq++)
        offer(f, seq, S("durable"));
    journal_tail_commit(f->tail, WRITER, 2);
    offer(f, 3, S("late"));
    journal_tail_begin(f->tail);
    for (int64_t seq = 3; seq <= 5; seq++)
        offer_of(f, NEXT_WRITER, seq, S("never stored"));
    journal_tail_commit(f->tail, WRITER, 3);
    assert_int_equal(read_after(f, 0), 2);
    assert_int_equal(read_after(f, 2), 0);
    journal_tail_commit(f->tail, NEXT_WRITER, 5);
    assert_int_equal(read_after(f, 2), 0);
}

static void test_a_late_word_of_what_the_next_writer_began_behind_forgets_nothing(void **state)
{
    struct fixture *f = *state;
    offer(f, 1, S("1"));
    journal_tail_begin(f->tail);
    offer_of(f, NEXT_WRITER, 2, S("2"));
    journal_tail_commit(f->tail, WRITER, 1);
    journal_tail_commit(f->tail, NEXT_WRITER, 2);
    assert_int_equal(read_after(f, 1), 1);
    assert_true(str_equal(f->data[0], S("2")));
}

static void test_a_gap_empties_it(void **state)
{
    struct fixture *f = *state;
    offer(f, 1, S("1"));
    offer(f, 2, S("2"));
    offer(f, 4, S("4"));
    journal_tail_commit(f->tail, WRITER, 4);
    assert_int_equal(read_after(f, 0), 0);
    assert_int_equal(read_after(f, 3), 1);
}

static void test_the_oldest_go_when_it_is_full(void **state)
{
    struct fixture *f = *state;
    int64_t last = 3 * JOURNAL_TAIL_EVENTS;
    for (int64_t seq = 1; seq <= last; seq++)
        offer(f, seq, S("x"));
    journal_tail_commit(f->tail, WRITER, last);
    assert_int_equal(read_after(f, last - JOURNAL_TAIL_EVENTS - 1), 0);
    assert_int_equal(read_after(f, last - JOURNAL_TAIL_EVENTS), JOURNAL_TAIL_EVENTS);
    assert_int_equal(f->events[JOURNAL_TAIL_EVENTS - 1].seq, last);
}

static void test_large_events_push_others_out_and_too_large_ones_are_left_out(void **state)
{
    struct fixture *f = *state;
    size_t bytes = JOURNAL_TAIL_BYTES / 2 + 1;
    char *text = calloc(1, JOURNAL_TAIL_BYTES + 1);
    offer(f, 1, str_of(text, bytes));
    offer(f, 2, str_of(text, bytes));
    journal_tail_commit(f->tail, WRITER, 2);
    assert_int_equal(read_after(f, 0), 0);
    assert_int_equal(read_after(f, 1), 1);
    offer(f, 3, str_of(text, JOURNAL_TAIL_BYTES + 1));
    offer(f, 4, S("4"));
    journal_tail_commit(f->tail, WRITER, 4);
    assert_int_equal(read_after(f, 2), 0);
    assert_int_equal(read_after(f, 3), 1);
    free(text);
}

/* Whatever is offered, lost and committed: what is read is the newest of each number, without a gap. */
static void test_it_agrees_with_a_list_over_random_histories(void **state)
{
    struct fixture *f = *state;
    struct random *random = random_seeded_create(7);
    enum { NUMBERS = 400 };
    int model[NUMBERS + 2] = {0};
    int64_t next = 1, committed = 0;
    for (int round = 0; round < 5000; round++) {
        uint64_t dice = random_below(random, 10);
        if (dice < 6 && next <= NUMBERS) {
            char text[16];
            model[next] = round;
            snprintf(text, sizeof text, "%d", round);
            offer(f, next++, str_from_cstr(text));
        } else if (dice < 7 && next > committed + 1) {
            next =
                committed + 1 + (int64_t) random_below(random, (uint64_t) (next - committed - 1));
        } else if (next - 1 > committed) {
            committed += 1 + (int64_t) random_below(random, (uint64_t) (next - 1 - committed));
            journal_tail_commit(f->tail, WRITER, committed);
        }
        int64_t after = (int64_t) random_below(random, (uint64_t) next);
        size_t count = read_after(f, after);
        assert_true(count == 0 || after + (int64_t) count <= committed);
        for (size_t i = 0; i < count; i++) {
            char text[16];
            snprintf(text, sizeof text, "%d", model[after + 1 + (int64_t) i]);
            assert_int_equal(f->events[i].seq, after + 1 + (int64_t) i);
            assert_true(str_equal(f->data[i], str_from_cstr(text)));
        }
        arena_reset(f->arena);
    }
    random_seeded_destroy(random);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_committed_events_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_it_never_held_is_the_stores, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_number_that_is_offered_again_takes_the_place_of_all_from_it_on, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_what_a_writer_left_uncommitted_is_forgotten_as_the_next_one_begins, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_late_commit_of_an_earlier_writer_does_not_show_what_the_next_one_offered, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_late_word_of_what_the_next_writer_began_behind_forgets_nothing, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(test_a_gap_empties_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_oldest_go_when_it_is_full, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_large_events_push_others_out_and_too_large_ones_are_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_agrees_with_a_list_over_random_histories, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests_name("journal_tail", tests, NULL, NULL);
}
