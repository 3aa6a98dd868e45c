/* A session's life: changed, paused, resumed, expired. */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"

struct change {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    struct record session;
    struct batch batch;
};

static bool change_begin(struct change *c, uuid session_id, struct error *e)
{
    if (c->principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not change sessions");
    if (!session_get(c->o, c->ctx, c->principal, session_id, &c->session, e))
        return false;
    batch_init(&c->batch, c->ctx->arena, c->principal->tenant_id);
    return true;
}

static struct record *change_row(struct change *c)
{
    struct record *row = batch_add(&c->batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, record_uuid(&c->session, SESSIONS_ID));
    record_set_integer(row, SESSIONS_UPDATED_AT, clock_unix_us(c->o->parts.clock));
    return row;
}

static void change_audit(struct change *c, str action)
{
    audit_add(&c->batch, c->o->parts.clock, c->o->parts.random, c->principal,
              &(struct audit_entry){
                  .action = action,
                  .resource_type = S("session"),
                  .resource_id = uuid_str(c->ctx->arena, record_uuid(&c->session, SESSIONS_ID)),
              });
}

static bool change_end(struct change *c, struct record *out, struct error *e)
{
    return store_commit(c->o->parts.store, c->ctx, &c->batch, e) &&
           session_get(c->o, c->ctx, c->principal, record_uuid(&c->session, SESSIONS_ID), out, e);
}

/* ---- its rules ---- */

static bool check_change(struct context *ctx, const struct session_change *change, struct error *e)
{
    enum double_text policy;
    const struct json *tree;
    if (!str_is_empty(change->double_text) && !double_text_parse(change->double_text, &policy))
        return error_set(e, REASON_SCHEMA,
                         "double_text must be reject, enqueue, interrupt or steer");
    if (str_is_empty(change->metadata))
        return true;
    return json_parse(ctx->arena, change->metadata, (struct json_limits){0}, &tree, e) &&
           (json_type(tree) == JSON_OBJECT ||
            error_set(e, REASON_SCHEMA, "metadata must be an object"));
}

bool session_update(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    uuid session_id, const struct session_change *change, struct record *out,
                    struct error *e)
{
    struct change *c = ARENA_NEW(ctx->arena, struct change);
    *c = (struct change){.o = o, .ctx = ctx, .principal = principal};
    if (!check_change(ctx, change, e) || !change_begin(c, session_id, e))
        return false;
    struct record *row = change_row(c);
    if (!str_is_empty(change->double_text))
        record_set_text(row, SESSIONS_DOUBLE_TEXT, change->double_text);
    if (!str_is_empty(change->metadata))
        record_set_text(row, SESSIONS_METADATA, change->metadata);
    change_audit(c, S("session.update"));
    return change_end(c, out, e);
}

/* ---- paused ---- */

static bool is_status(const struct record *session, str status)
{
    return str_equal(record_text(session, SESSIONS_STATUS), status);
}

static bool move(struct change *c, str from, str to, struct error *e)
{
    if (!is_status(&c->session, from))
        return error_set(e, REASON_CONFLICT, "the session is " STR_FMT ", not " STR_FMT,
                         STR_ARG(record_text(&c->session, SESSIONS_STATUS)), STR_ARG(from));
    record_set_text(change_row(c), SESSIONS_STATUS, to);
    batch_where_text(&c->batch, SESSIONS_STATUS, from);
    return true;
}

bool session_pause(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   uuid session_id, struct record *out, struct error *e)
{
    struct change *c = ARENA_NEW(ctx->arena, struct change);
    *c = (struct change){.o = o, .ctx = ctx, .principal = principal};
    if (!change_begin(c, session_id, e) || !session_check_open(o, ctx, &c->session, e) ||
        !move(c, S("active"), S("paused"), e))
        return false;
    change_audit(c, S("session.pause"));
    if (!change_end(c, out, e))
        return false;
    if (record_has(out, SESSIONS_LIVE_RUN_ID))
        run_tell_inbox(o, principal->tenant_id, session_id, record_uuid(out, SESSIONS_LIVE_RUN_ID));
    return true;
}

bool session_resume(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    uuid session_id, struct record *out, struct error *e)
{
    struct change *c = ARENA_NEW(ctx->arena, struct change);
    *c = (struct change){.o = o, .ctx = ctx, .principal = principal};
    if (!change_begin(c, session_id, e) || !move(c, S("paused"), S("active"), e))
        return false;
    change_audit(c, S("session.resume"));
    c->batch.fault = "session_resume";
    bool is_resumed = change_end(c, out, e);
    if (!is_resumed && e->reason == REASON_CONFLICT)
        return false;
    /* When nobody knows whether it was stored the run looks itself: nothing else would wake it. */
    uuid live = record_uuid(is_resumed ? out : &c->session, SESSIONS_LIVE_RUN_ID);
    if (uuid_is_none(live))
        return is_resumed;
    run_tell_inbox(o, principal->tenant_id, session_id, live);
    run_wake(o, ctx, principal->tenant_id, session_id, live);
    return is_resumed;
}

/* ---- over ---- */

/* A run of it is parked: it ends first; the next look finds the session without one.  One that works or waits for a person keeps it. */
static void end_parked_run(struct orchestrator *o, uuid tenant_id, const struct record *session)
{
    if (is_status(session, S("paused")))
        run_spawn_cancelled(o, tenant_id, record_uuid(session, SESSIONS_ID),
                            record_uuid(session, SESSIONS_LIVE_RUN_ID), S("the session expired"));
}

static bool expire(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                   const struct record *session, struct error *e)
{
    struct batch batch;
    struct error changed = {0};
    struct principal who = {
        .tenant_id = tenant_id,
        .user_id = record_text(session, SESSIONS_USER_ID),
        .caller_id = S("nexus"),
    };
    bool is_open = is_status(session, S("active")) || is_status(session, S("paused"));
    batch_init(&batch, ctx->arena, tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, record_uuid(session, SESSIONS_ID));
    record_set_null(row, SESSIONS_EXPIRES_AT); /* it is not looked for any more */
    if (is_open)
        record_set_text(row, SESSIONS_STATUS, S("expired"));
    batch_where_null(&batch, SESSIONS_LIVE_RUN_ID);
    if (is_open)
        audit_add(&batch, o->parts.clock, o->parts.random, &who,
                  &(struct audit_entry){
                      .action = S("session.expire"),
                      .resource_type = S("session"),
                      .resource_id = uuid_str(ctx->arena, record_uuid(session, SESSIONS_ID)),
                  });
    if (store_commit(o->parts.store, ctx, &batch, &changed))
        return true;
    return changed.reason == REASON_CONFLICT || error_copy(e, &changed); /* a run has just begun */
}

bool sessions_expire(struct orchestrator *o, struct context *ctx, size_t *expired, struct error *e)
{
    struct query query = query_of(TABLE_SESSIONS);
    query_where_integer(&query, SESSIONS_EXPIRES_AT, FILTER_LESS, clock_unix_us(o->parts.clock));
    *expired = 0;
    for (size_t looked = 0; looked < SESSION_EXPIRE_MAX;) {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(o->parts.store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count; i++, looked++) {
            const struct record *session = &page.items[i];
            if (record_has(session, SESSIONS_LIVE_RUN_ID)) {
                end_parked_run(o, tenants[i], session);
                continue;
            }
            if (!expire(o, ctx, tenants[i], session, e))
                return false;
            ++*expired;
        }
        if (str_is_empty(page.next_cursor))
            return true;
        query.cursor = page.next_cursor;
    }
    return true;
}
