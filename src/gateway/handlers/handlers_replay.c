/* What a recorded run is good for: replay, fork, comparison, export. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/replay/run_diff.h"
#include "orchestrator/replay/run_export.h"
#include "orchestrator/replay/run_fork.h"
#include "orchestrator/replay/run_replay.h"
#include "runtime/loop.h"

static bool export_run(struct api_call *call, uuid run_id, str *out, struct error *e)
{
    return run_export(call->gateway->orchestrator, call->ctx, &call->principal, run_id, out, e);
}

bool route_run_export(struct api_call *call, struct error *e)
{
    uuid id;
    str text;
    if (!param_uuid(call, 0, "run", &id, e) || !export_run(call, id, &text, e))
        return false;
    reply_json(call, 200, text);
    return true;
}

/* On a thread of the blocking pool: a replay runs a scheduler of its own. */
struct work {
    struct arena *arena;
    str a, b, out;
    bool is_same, is_ok;
    struct error failure;
};

static void replay(void *argument)
{
    struct work *work = argument;
    work->is_ok = run_replay_json(work->arena, work->a, &work->out, &work->is_same, &work->failure);
}

static void compare(void *argument)
{
    struct work *work = argument;
    work->is_ok =
        run_diff_json(work->arena, work->a, work->b, &work->out, &work->is_same, &work->failure);
}

static bool work_apart(struct api_call *call, void (*fn)(void *argument), str a, str b,
                       struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct work *work = ARENA_NEW(call->ctx->arena, struct work);
    work->arena = arena;
    work->a = a;
    work->b = b;
    if (!blocking_call(call->ctx, fn, work, e))
        return false;
    if (!work->is_ok)
        return error_copy(e, &work->failure);
    reply_json(call, 200, str_copy(call->ctx->arena, work->out));
    return true;
}

bool route_run_replay(struct api_call *call, struct error *e)
{
    uuid id;
    str text;
    return param_uuid(call, 0, "run", &id, e) && export_run(call, id, &text, e) &&
           work_apart(call, replay, text, STR_NONE, e);
}

/* Nothing is changed by it: for who may only look. */
bool route_run_replay_look(struct api_call *call, struct error *e)
{
    return route_run_replay(call, e);
}

bool route_run_diff(struct api_call *call, struct error *e)
{
    uuid a, b;
    str left, right, other = query_text(call, S("with"));
    if (!uuid_parse(other, &b))
        return error_set(e, REASON_INVALID, "?with= must be the id of the other run");
    return param_uuid(call, 0, "run", &a, e) && export_run(call, a, &left, e) &&
           export_run(call, b, &right, e) && work_apart(call, compare, left, right, e);
}

bool route_run_fork(struct api_call *call, struct error *e)
{
    struct fork_request request = {0};
    struct forked_run made;
    struct reply_writer writer;
    if (!param_uuid(call, 0, "run", &request.run_id, e) ||
        !json_read_i64(call->json, S("at"), 1, INT64_MAX, &request.at, e) ||
        !json_read_str(call->json, S("message"), &request.message, e) ||
        !json_read_str(call->json, S("model"), &request.model, e))
        return false;
    if (request.at == 0)
        return error_set(e, REASON_SCHEMA, "\"at\" must be the number of an event of the run");
    if (!run_fork(call->gateway->orchestrator, call->ctx, &call->principal, &request, &made, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    put_id(w, S("run_id"), made.run_id);
    put_id(w, S("session_id"), made.session_id);
    put_id(w, S("forked_from"), request.run_id);
    json_put_i64(w, S("forked_at"), request.at);
    json_object_end(w);
    return reply_writer_send(&writer, call, 202, e);
}
