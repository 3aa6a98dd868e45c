/* How the node holds up: circuits and places, the queue of runs, what is refused. */
#include "agent/executor_guard.h"
#include "base/arena.h"
#include "gateway/gateway_internal.h"
#include "llm/router.h"
#include "orchestrator/admission.h"
#include "orchestrator/overload.h"

static void put_runs(struct json_writer *w, struct admission *admission)
{
    struct admission_counts counts = admission_look(admission);
    json_key(w, S("runs"));
    json_object_begin(w);
    json_put_i64(w, S("active"), (int64_t) counts.active);
    json_put_i64(w, S("places"), (int64_t) counts.places);
    json_put_i64(w, S("queued"), (int64_t) counts.queued);
    json_put_i64(w, S("queue_max"), (int64_t) counts.queue_max);
    json_put_i64(w, S("tenants_waiting"), (int64_t) counts.tenants_waiting);
    json_put_i64(w, S("refused"), counts.refused);
    json_put_i64(w, S("active_batch"), (int64_t) counts.active_batch);
    json_key(w, S("queued_by_priority"));
    json_object_begin(w);
    for (int i = 0; i < PRIORITY_COUNT; i++)
        json_put_i64(w, str_from_cstr(priority_name((enum priority) i)),
                     (int64_t) counts.queued_of[i]);
    json_object_end(w);
    json_object_end(w);
}

static void put_overload(struct json_writer *w, struct overload *overload)
{
    struct overload_view view = overload_look(overload);
    json_key(w, S("overload"));
    json_object_begin(w);
    json_put_double(w, S("pressure"), (double) view.pressure_milli / 1000);
    json_put_i64(w, S("lag_ms"), view.lag_ms);
    json_put_i64(w, S("lag_limit_ms"), view.lag_limit_ms);
    json_put_i64(w, S("memory_bytes"), view.memory_bytes);
    json_put_i64(w, S("memory_limit_bytes"), view.memory_limit_bytes);
    json_put_i64(w, S("commit_ms"), view.commit_ms);
    json_put_i64(w, S("commit_limit_ms"), view.commit_limit_ms);
    json_put_i64(w, S("store_queued"), view.store_queued);
    json_put_i64(w, S("store_queue_max"), view.store_queue_max);
    json_key(w, S("refused"));
    json_object_begin(w);
    for (int i = 0; i < PRIORITY_COUNT; i++)
        json_put_i64(w, str_from_cstr(priority_name((enum priority) i)), view.refused[i]);
    json_object_end(w);
    json_object_end(w);
}

bool route_resilience(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    struct orchestrator *o = call->gateway->orchestrator;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_key(w, S("tools"));
    json_array_begin(w);
    if (call->gateway->options.guard)
        executor_guard_write_json(call->gateway->options.guard, call->principal.tenant_id, w);
    json_array_end(w);
    json_key(w, S("providers"));
    router_write_json(orchestrator_parts(o)->router, w);
    json_key(w, S("provider_places"));
    router_write_places_json(orchestrator_parts(o)->router, w);
    put_runs(w, orchestrator_admission(o));
    put_overload(w, orchestrator_overload(o));
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}
