/*
 * A session's messages elsewhere: cloned into a session of their own, or read as a model would get them.
 *
 * A clone is made as a closed session, page by page, and opened by its last commit: what a crash leaves behind is closed and says so.
 */
#include "orchestrator/session/session_copy.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/replay/run_fork.h"

/* ---- a session in the making ---- */

static void set_from(struct record *row, const struct record *from, int column)
{
    if (record_has(from, column))
        record_set_text(row, column, record_text(from, column));
}

static bool add_session(struct copy *c, const struct copy_rules *rules, struct error *e)
{
    struct batch batch;
    int64_t now_us = clock_unix_us(c->o->parts.clock);
    batch_init(&batch, c->ctx->arena, c->principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_SESSIONS);
    c->session_id = uuid_new(c->o->parts.clock, c->o->parts.random);
    record_set_uuid(row, SESSIONS_ID, c->session_id);
    record_set_text(row, SESSIONS_USER_ID, rules->user_id);
    record_set_text(row, SESSIONS_REQUESTED_BY, c->principal->caller_id);
    record_set_text(row, SESSIONS_ROLE, rules->role);
    record_set_integer(row, SESSIONS_CREATED_AT, now_us);
    record_set_integer(row, SESSIONS_UPDATED_AT, now_us);
    record_set_text(row, SESSIONS_STATUS, S("closed"));
    record_set_text(row, SESSIONS_BUDGET, session_budget_text(c->ctx->arena, rules->budget));
    record_set_text(row, SESSIONS_AGENT, rules->agent);
    record_set_text(row, SESSIONS_METADATA, rules->metadata);
    if (rules->from) {
        set_from(row, rules->from, SESSIONS_POLICY_CONTEXT);
        set_from(row, rules->from, SESSIONS_DOUBLE_TEXT);
        set_from(row, rules->from, SESSIONS_PRIORITY);
    }
    record_set_text(row, SESSIONS_OWNER_NODE, c->o->parts.node);
    record_set_integer(row, SESSIONS_OWNER_EPOCH, 1);
    str id = uuid_str(c->ctx->arena, c->session_id);
    ledger_add_account_row(c->o->ledger, &batch, ACCOUNT_SESSION, id, rules->budget);
    struct principal who = *c->principal;
    who.user_id = rules->user_id;
    audit_add(&batch, c->o->parts.clock, c->o->parts.random, &who,
              &(struct audit_entry){
                  .action = rules->action, .resource_type = S("session"), .resource_id = id});
    return store_commit(c->o->parts.store, c->ctx, &batch, e);
}

bool copy_begin(struct copy *c, const struct copy_rules *rules, struct error *e)
{
    if (!add_session(c, rules, e))
        return false;
    batch_init(&c->batch, c->ctx->arena, c->principal->tenant_id);
    c->mark = arena_save(c->ctx->arena);
    return true;
}

bool copy_flush(struct copy *c, struct error *e)
{
    if (c->batch.count > 0 && !store_commit(c->o->parts.store, c->ctx, &c->batch, e))
        return false;
    arena_rewind(c->ctx->arena, c->mark);
    batch_init(&c->batch, c->ctx->arena, c->principal->tenant_id);
    return true;
}

struct record *copy_message(struct copy *c, uuid *id)
{
    struct record *row = batch_add(&c->batch, WRITE_INSERT, TABLE_MESSAGES);
    *id = uuid_new(c->o->parts.clock, c->o->parts.random);
    record_set_uuid(row, MESSAGES_ID, *id);
    record_set_uuid(row, MESSAGES_SESSION_ID, c->session_id);
    c->count++;
    return row;
}

bool copy_end(struct copy *c, struct record *out, struct error *e)
{
    const struct settings *settings = orchestrator_acquire(c->o);
    int64_t expiry_ms = settings->session_expiry_ms;
    orchestrator_release(settings);
    struct record *row = batch_add(&c->batch, WRITE_UPDATE, TABLE_SESSIONS);
    int64_t now_us = clock_unix_us(c->o->parts.clock);
    record_set_uuid(row, SESSIONS_ID, c->session_id);
    record_set_text(row, SESSIONS_STATUS, S("active"));
    record_set_integer(row, SESSIONS_UPDATED_AT, now_us);
    if (expiry_ms > 0)
        record_set_integer(row, SESSIONS_EXPIRES_AT, now_us + expiry_ms * 1000);
    if (!uuid_is_none(c->summary_id))
        record_set_uuid(row, SESSIONS_SUMMARY_ID, c->summary_id);
    return copy_flush(c, e) && session_get(c->o, c->ctx, c->principal, c->session_id, out, e);
}

/* ---- clone ---- */

struct pair {
    uuid from, to;
};
struct clone {
    struct copy copy;
    const struct record *source;
    uuid at_message;
    bool is_at_end;
    struct arena *keep; /* of the ids: as long as the clone is made */
    struct pair *ids;
    size_t id_count, id_capacity;
};

static void remember(struct clone *c, uuid from, uuid to)
{
    if (c->id_count == c->id_capacity) {
        size_t capacity = c->id_capacity ? c->id_capacity * 2 : 256;
        c->ids =
            arena_grow(c->keep, c->ids, c->id_capacity * sizeof *c->ids, capacity * sizeof *c->ids);
        c->id_capacity = capacity;
    }
    c->ids[c->id_count++] = (struct pair){from, to};
}

/* They were copied in the order of their ids. */
static uuid new_id_of(const struct clone *c, uuid from)
{
    size_t low = 0, high = c->id_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = uuid_compare(c->ids[middle].from, from);
        if (order == 0)
            return c->ids[middle].to;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return UUID_NONE;
}

/* What a summary says of other messages, in their new ids. */
static str summary_metadata(struct clone *c, const struct json *metadata)
{
    static const char *const members[] = {"from", "to", "task"};
    struct arena *arena = c->copy.ctx->arena;
    const struct json *summary = json_get(metadata, S("summary"));
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 8192);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_value(&w, S("label"), json_get(metadata, S("label")));
    json_key(&w, S("summary"));
    json_object_begin(&w);
    for (size_t i = 0; i < ARRAY_COUNT(members); i++) {
        uuid old, new_id = UUID_NONE;
        if (uuid_parse(json_str_or(summary, str_from_cstr(members[i]), STR_NONE), &old))
            new_id = new_id_of(c, old);
        if (!uuid_is_none(new_id))
            json_put_str(&w, str_from_cstr(members[i]), uuid_str(arena, new_id));
    }
    json_put_bool(&w, S("is_fallback"), json_bool_or(summary, S("is_fallback"), false));
    json_object_end(&w);
    json_object_end(&w);
    return strbuf_str(&text);
}

static bool clone_message(struct clone *c, const struct record *from, struct error *e)
{
    const struct json *metadata = NULL;
    struct arena *arena = c->copy.ctx->arena;
    uuid id;
    if (record_has(from, MESSAGES_METADATA) &&
        !json_parse(arena, record_text(from, MESSAGES_METADATA), (struct json_limits){0}, &metadata,
                    e))
        return false;
    if (json_bool_or(metadata, S("is_withdrawn"), false))
        return true;
    struct record *row = copy_message(&c->copy, &id);
    record_set_text(row, MESSAGES_ROLE, record_text(from, MESSAGES_ROLE));
    record_set_text(row, MESSAGES_CONTENT, record_text(from, MESSAGES_CONTENT));
    record_set_integer(row, MESSAGES_TOKENS, record_integer(from, MESSAGES_TOKENS));
    record_set_integer(row, MESSAGES_CREATED_AT, record_integer(from, MESSAGES_CREATED_AT));
    set_from(row, from, MESSAGES_PARTS);
    set_from(row, from, MESSAGES_METADATA);
    if (json_get(metadata, S("summary"))) {
        record_set_text(row, MESSAGES_METADATA, summary_metadata(c, metadata));
        c->copy.summary_id = id; /* the newest that is copied is the one that counts */
    }
    remember(c, record_uuid(from, MESSAGES_ID), id);
    return true;
}

/* One page; each is a commit. */
static bool clone_page(struct clone *c, const struct records *page, struct error *e)
{
    for (size_t i = 0; i < page->count && !c->is_at_end; i++) {
        if (c->copy.count >= SESSION_COPY_MESSAGES_MAX)
            return error_set(e, REASON_LIMIT, "a clone may have %u messages",
                             SESSION_COPY_MESSAGES_MAX);
        if (!clone_message(c, &page->items[i], e))
            return false;
        c->is_at_end = uuid_equal(record_uuid(&page->items[i], MESSAGES_ID), c->at_message);
    }
    return true;
}

static bool no_such_message(const struct clone *c, struct error *e)
{
    return error_set(e, REASON_NOT_FOUND, "the session has no message " STR_FMT,
                     STR_ARG(uuid_str(c->copy.ctx->arena, c->at_message)));
}

static bool clone_messages(struct clone *c, struct error *e)
{
    struct copy *copy = &c->copy;
    uuid after = UUID_NONE;
    for (;;) {
        struct query query = query_of(TABLE_MESSAGES);
        struct records page;
        query_where_uuid(&query, MESSAGES_SESSION_ID, record_uuid(c->source, SESSIONS_ID));
        query.filters[query.filter_count++] =
            (struct filter){.column = MESSAGES_ID, .op = FILTER_GREATER, .value = {.id = after}};
        query.limit = STORE_PAGE_MAX / 4;
        if (!store_list(copy->o->parts.store, copy->ctx, copy->principal->tenant_id, &query, &page,
                        e) ||
            !clone_page(c, &page, e))
            return false;
        bool is_last = page.count < query.limit || c->is_at_end;
        if (page.count > 0)
            after = record_uuid(&page.items[page.count - 1], MESSAGES_ID);
        if (is_last) /* it was there: without it, retention was here meanwhile */
            return c->is_at_end || uuid_is_none(c->at_message) || no_such_message(c, e);
        if (!copy_flush(copy, e))
            return false;
    }
}

static bool check_message(struct clone *c, struct error *e)
{
    struct record key = record_of(TABLE_MESSAGES), *row = ARENA_NEW(c->keep, struct record);
    struct error missing = {0};
    if (uuid_is_none(c->at_message))
        return true;
    record_set_uuid(&key, MESSAGES_ID, c->at_message);
    bool is_there = store_get(c->copy.o->parts.store, c->copy.ctx, c->copy.principal->tenant_id,
                              &key, row, &missing);
    if (!is_there && missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    return (is_there && uuid_equal(record_uuid(row, MESSAGES_SESSION_ID),
                                   record_uuid(c->source, SESSIONS_ID))) ||
           no_such_message(c, e);
}

str copy_role(const struct principal *principal, str role)
{
    enum role_level level;
    return role_level_parse(role, &level) && level < principal->level ? role : principal->role;
}

bool session_clone(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   uuid session_id, uuid at_message, struct record *out, struct error *e)
{
    OWNED(arena) keep = arena_create(0);
    struct record *source = ARENA_NEW(ctx->arena, struct record);
    struct clone *c = ARENA_NEW(ctx->arena, struct clone);
    *c = (struct clone){
        .copy = {.o = o, .ctx = ctx, .principal = principal},
        .source = source,
        .at_message = at_message,
        .keep = keep,
    };
    struct copy_rules rules = {.from = source, .action = S("session.clone")};
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not clone sessions");
    if (!session_get(o, ctx, principal, session_id, source, e) || !check_message(c, e) ||
        !session_budget_read(record_text(source, SESSIONS_BUDGET), &rules.budget, e))
        return false;
    rules.user_id = record_text(source, SESSIONS_USER_ID);
    rules.agent = record_text(source, SESSIONS_AGENT);
    rules.role = copy_role(principal, record_text(source, SESSIONS_ROLE));
    rules.metadata = str_printf(ctx->arena, "{\"cloned_from\":\"" STR_FMT "\"}",
                                STR_ARG(uuid_str(ctx->arena, session_id)));
    return copy_begin(&c->copy, &rules, e) && clone_messages(c, e) && copy_end(&c->copy, out, e);
}

/* ---- what a model would be given ---- */

struct gathered {
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id;
    struct records *out;
    uuid summary_to;
};

static bool gather_row(struct gathered *g, uuid id, struct record *row, bool *is_there,
                       struct error *e)
{
    struct record key = record_of(TABLE_MESSAGES);
    struct error missing = {0};
    *is_there = false;
    if (uuid_is_none(id))
        return true;
    record_set_uuid(&key, MESSAGES_ID, id);
    *is_there = store_get(g->o->parts.store, g->ctx, g->tenant_id, &key, row, &missing);
    return *is_there || missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
}

static bool gather_summary(struct gathered *g, const struct record *session, struct error *e)
{
    const struct json *metadata;
    struct record *summary = ARENA_NEW(g->ctx->arena, struct record);
    bool is_there;
    uuid task = UUID_NONE;
    if (!gather_row(g, record_uuid(session, SESSIONS_SUMMARY_ID), summary, &is_there, e))
        return false;
    if (!is_there || !json_parse(g->ctx->arena, record_text(summary, MESSAGES_METADATA),
                                 (struct json_limits){0}, &metadata, NULL))
        return true;
    metadata = json_get(metadata, S("summary"));
    if (!uuid_parse(json_str_or(metadata, S("to"), STR_NONE), &g->summary_to))
        return true;
    uuid_parse(json_str_or(metadata, S("task"), STR_NONE), &task);
    if (!gather_row(g, task, &g->out->items[g->out->count], &is_there, e))
        return false;
    g->out->count += is_there;
    g->out->items[g->out->count++] = *summary;
    return true;
}

static bool is_for_models(struct gathered *g, const struct record *row)
{
    const struct json *metadata;
    return !record_has(row, MESSAGES_METADATA) ||
           !json_parse(g->ctx->arena, record_text(row, MESSAGES_METADATA), (struct json_limits){0},
                       &metadata, NULL) ||
           (!json_get(metadata, S("summary")) && !json_bool_or(metadata, S("is_withdrawn"), false));
}

static void after_summary(const struct gathered *g, struct query *query)
{
    query->filters[query->filter_count++] = (struct filter){
        .column = MESSAGES_ID, .op = FILTER_GREATER, .value = {.id = g->summary_to}};
}

/* A fork goes on with the messages of the session that it began in. */
static bool has_more(struct gathered *g, struct fork_walk *walk, struct query *query, str cursor,
                     struct error *failure)
{
    query->cursor = cursor;
    if (!str_is_empty(cursor))
        return true;
    if (!fork_walk_next(g->o, g->ctx, g->tenant_id, walk, query, failure))
        return false;
    after_summary(g, query);
    return true;
}

static bool gather_newest(struct gathered *g, uuid session_id, struct error *e)
{
    struct query query = query_of(TABLE_MESSAGES);
    struct record *rows = ARENA_ARRAY(g->ctx->arena, struct record, RUN_HISTORY_MESSAGES_MAX);
    struct fork_walk walk = {.session_id = session_id};
    struct error failure = {0};
    str cursor;
    size_t count = 0;
    query_where_uuid(&query, MESSAGES_SESSION_ID, session_id);
    after_summary(g, &query);
    query.is_descending = true;
    do {
        struct records page;
        if (!store_list(g->o->parts.store, g->ctx, g->tenant_id, &query, &page, e))
            return false;
        for (size_t i = 0; i < page.count && count < RUN_HISTORY_MESSAGES_MAX; i++)
            if (is_for_models(g, &page.items[i]))
                rows[count++] = page.items[i];
        cursor = page.next_cursor;
    } while (count < RUN_HISTORY_MESSAGES_MAX && has_more(g, &walk, &query, cursor, &failure));
    if (failure.code != ERROR_OK)
        return error_copy(e, &failure);
    while (count > 0)
        g->out->items[g->out->count++] = rows[--count];
    return true;
}

bool session_context(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                     uuid session_id, struct records *out, struct error *e)
{
    struct record *session = ARENA_NEW(ctx->arena, struct record);
    *out = (struct records){
        .items = ARENA_ARRAY(ctx->arena, struct record, RUN_HISTORY_MESSAGES_MAX + 2)};
    struct gathered g = {.o = o, .ctx = ctx, .tenant_id = principal->tenant_id, .out = out};
    return session_get(o, ctx, principal, session_id, session, e) &&
           gather_summary(&g, session, e) && gather_newest(&g, session_id, e);
}
