/*
 * Lines of `type {json}` folded one after the other: whatever they say, the fold answers, a refused event changes nothing, and what
 * is accepted keeps the rules.
 */
#include "orchestrator/journal/run_state.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { EVENTS_MAX = 256 };

struct snapshot {
    struct run_state state;
    struct call calls[RUN_TOOL_CALLS_PARALLEL_MAX];
    struct open_reservation reservations[EVENTS_MAX];
};

static void take_snapshot(const struct run_state *state, struct snapshot *out)
{
    ensure(state->call_count <= RUN_TOOL_CALLS_PARALLEL_MAX &&
           state->reservation_count <= EVENTS_MAX);
    memcpy(&out->state, state, sizeof *state);
    if (state->call_count > 0)
        memcpy(out->calls, state->calls, state->call_count * sizeof *state->calls);
    if (state->reservation_count > 0)
        memcpy(out->reservations, state->reservations,
               state->reservation_count * sizeof *state->reservations);
}

static void check_unchanged(const struct snapshot *before, const struct run_state *state)
{
    ensure(memcmp(&before->state, state, sizeof *state) == 0);
    ensure(state->call_count == 0 ||
           memcmp(before->calls, state->calls, state->call_count * sizeof *state->calls) == 0);
    ensure(state->reservation_count == 0 ||
           memcmp(before->reservations, state->reservations,
                  state->reservation_count * sizeof *state->reservations) == 0);
}

static void check_rules(const struct run_state *before, const struct run_state *state)
{
    ensure(state->last_seq == before->last_seq + 1);
    ensure(!run_status_is_final(before->status));
    ensure(state->attempt >= before->attempt && state->step >= before->step &&
           state->epoch >= before->epoch);
    ensure(cost_fits(before->spent, state->spent) && cost_fits((cost){0}, state->spent));
    for (size_t i = 0; i < state->reservation_count; i++)
        ensure(cost_fits((cost){0}, state->reservations[i].amount));
    struct run_command command = run_state_next(state);
    if (!run_status_is_final(state->status)) {
        ensure(command.kind != RUN_DO_NOTHING);
        ensure((command.kind == RUN_DO_RECOVER_CALL) == (command.call != NULL));
        return;
    }
    ensure(command.kind == RUN_DO_NOTHING && state->reservation_count == 0 &&
           !state->model_in_flight);
}

static bool read_event(struct arena *arena, str line, int64_t seq, struct event *out)
{
    str name, text;
    struct error e;
    if (!str_cut(line, ' ', &name, &text) || !event_type_parse(name, &out->type))
        return false;
    out->seq = seq;
    return json_parse(arena, text, (struct json_limits){0}, &out->data, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct snapshot before;
    OWNED(arena) arena = arena_create(0);
    struct run_state state;
    str rest = str_of((const char *) data, size), line;
    run_state_init(&state, arena);
    for (int i = 0; i < EVENTS_MAX && str_next(&rest, '\n', &line); i++) {
        struct event event;
        struct error e = {0};
        if (!read_event(arena, line, state.last_seq + 1, &event))
            continue;
        take_snapshot(&state, &before);
        if (run_state_apply(&state, &event, &e)) {
            check_rules(&before.state, &state);
            continue;
        }
        ensure(e.reason == REASON_CORRUPT);
        check_unchanged(&before, &state);
    }
    return 0;
}
