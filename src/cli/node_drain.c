#include "cli/node_drain.h"
#include "base/ensure.h"
#include "net/http_server.h"
#include "orchestrator/orchestrator.h"

#include <stdatomic.h>

struct drain_part {
    const struct node_drain *drain;
    bool is_ok;
    struct error error;
};

static void drain_server(struct context *ctx, void *argument)
{
    struct drain_part *part = argument;
    part->is_ok = http_server_drain(part->drain->server, ctx, &part->error);
}

static void drain_runs(struct context *ctx, void *argument)
{
    struct drain_part *part = argument;
    part->is_ok = orchestrator_drain(part->drain->orchestrator, ctx, &part->error);
}

/* Both at once: streams end with their runs, and a client may still send what a run waits for. */
static bool drain_all(struct context *ctx, void *argument, struct error *e)
{
    const struct node_drain *drain = argument;
    struct drain_part server = {drain, true, {0}}, runs = {drain, true, {0}};
    struct group group;
    group_init(&group, ctx);
    bool is_started = group_start(&group, "drain_server", drain_server, &server, e);
    if (is_started && drain->orchestrator)
        is_started = group_start(&group, "drain_runs", drain_runs, &runs, e);
    group_wait(&group);
    if (!is_started)
        return false;
    return server.is_ok && runs.is_ok ? true
                                      : error_copy(e, server.is_ok ? &runs.error : &server.error);
}

void node_drain_begin(struct node_drain *drain, struct loop *loop, struct http_server *server,
                      struct orchestrator *orchestrator, int64_t timeout_ms)
{
    ensure(!drain->is_begun);
    drain->is_begun = true;
    drain->server = server;
    drain->orchestrator = orchestrator;
    on_loop_begin(&drain->job, loop, "drain", timeout_ms > 0 ? timeout_ms : 1, drain_all, drain);
}

bool node_drain_is_done(const struct node_drain *drain)
{
    return drain->is_begun && atomic_load(&drain->job.is_done);
}

bool node_drain_wait(struct node_drain *drain, struct error *e)
{
    return on_loop_wait(&drain->job, e);
}
