/* API keys, usage, budgets. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/map.h"
#include "base/timefmt.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"

/* ---- keys ---- */

static void write_key_members(struct json_writer *w, const struct record *row)
{
    put_id(w, S("id"), record_uuid(row, API_KEYS_ID));
    json_put_str(w, S("name"), record_text(row, API_KEYS_NAME));
    json_put_str(w, S("prefix"), record_text(row, API_KEYS_PREFIX));
    json_put_str(w, S("user_id"), record_text(row, API_KEYS_USER_ID));
    json_put_str(w, S("created_by"), record_text(row, API_KEYS_CREATED_BY));
    json_put_str(w, S("role"), record_text(row, API_KEYS_ROLE));
    json_put_raw(w, S("scopes"), record_text(row, API_KEYS_SCOPES));
    put_time(w, S("created_at"), record_integer(row, API_KEYS_CREATED_AT));
    put_time(w, S("expires_at"), record_integer(row, API_KEYS_EXPIRES_AT));
    put_time(w, S("revoked_at"), record_integer(row, API_KEYS_REVOKED_AT));
}

static bool write_key(struct api_call *call, struct json_writer *w, const struct record *row,
                      struct error *e)
{
    (void) call, (void) e;
    json_object_begin(w);
    write_key_members(w, row);
    json_object_end(w);
    return true;
}

/* The one answer that holds a key: no cache may keep it, and no Idempotency-Key stores it. */
bool route_key_create(struct api_call *call, struct error *e)
{
    struct key_request request = {0};
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    struct reply_writer writer;
    str key;
    if (!body_read_key(call->json, &request, e) ||
        !keys_issue(call->gateway->keys, call->ctx, &call->principal, &request, &key, row, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("key"), key);
    write_key_members(w, row);
    json_object_end(w);
    reply_header(call, S("Cache-Control"), S("no-store"));
    return reply_writer_send(&writer, call, 201, e);
}

bool route_key_list(struct api_call *call, struct error *e)
{
    str cursor;
    size_t limit;
    struct records rows;
    return query_page(call, &cursor, &limit, e) &&
           keys_list(call->gateway->keys, call->ctx, &call->principal, cursor, limit, &rows, e) &&
           reply_page(call, &rows, write_key, e);
}

bool route_key_revoke(struct api_call *call, struct error *e)
{
    uuid id;
    if (!param_uuid(call, 0, "key", &id, e) ||
        !keys_revoke(call->gateway->keys, call->ctx, &call->principal, id, e))
        return false;
    reply_empty(call, 204);
    return true;
}

/* ---- usage ---- */

enum group_by { BY_MODEL = 1, BY_USER = 2, BY_DAY = 4, BY_KIND = 8 };
enum { USAGE_GROUPS_MAX = 10000, DAY_TEXT_BYTES = 10 };

struct usage_group {
    str model, user, day, kind;
    cost sum;
    int64_t rows;
};
struct usage_report {
    struct arena *arena; /* of the groups: pages come and go on the call's */
    struct map *groups;
    unsigned by;
    cost total;
    int64_t rows;
};

static bool read_grouping(struct api_call *call, unsigned *by, struct error *e)
{
    static const struct {
        str name;
        unsigned bit;
    } names[] = {{S_INIT("model"), BY_MODEL},
                 {S_INIT("user"), BY_USER},
                 {S_INIT("day"), BY_DAY},
                 {S_INIT("kind"), BY_KIND}};
    str rest = query_text(call, S("by")), name;
    *by = str_is_empty(rest) ? BY_MODEL : 0;
    while (!str_is_empty(rest) && str_next(&rest, ',', &name)) {
        unsigned bit = 0;
        for (size_t i = 0; i < ARRAY_COUNT(names); i++)
            if (str_equal(name, names[i].name))
                bit = names[i].bit;
        if (bit == 0)
            return error_set(e, REASON_INVALID, "?by= may name model, user, day and kind");
        *by |= bit;
    }
    return true;
}

static bool read_time(struct api_call *call, str name, int64_t *out, struct error *e)
{
    str text = query_text(call, name);
    return str_is_empty(text) || time_parse(text, out) ||
           error_set(e, REASON_INVALID, "?" STR_FMT "= must be an RFC 3339 time", STR_ARG(name));
}

static bool make_query(struct api_call *call, struct query *query, struct error *e)
{
    int64_t from = 0, to = 0;
    str user = query_text(call, S("user_id"));
    const struct principal *principal = &call->principal;
    *query = query_of(TABLE_LEDGER);
    if (!read_time(call, S("from"), &from, e) || !read_time(call, S("to"), &to, e))
        return false;
    if (principal->level < ROLE_LEVEL_OPERATOR && !str_is_empty(user) &&
        !str_equal(user, principal->user_id))
        return error_set(e, REASON_DENIED, "the usage of others needs the role operator");
    if (principal->level < ROLE_LEVEL_OPERATOR)
        user = principal->user_id;
    if (!str_is_empty(user))
        query_where_text(query, LEDGER_USER_ID, user);
    if (from > 0)
        query_where_integer(query, LEDGER_AT, FILTER_GREATER, from - 1);
    if (to > 0)
        query_where_integer(query, LEDGER_AT, FILTER_LESS, to);
    return true;
}

static bool add_row(struct usage_report *report, const struct record *row, struct error *e)
{
    char when[TIME_TEXT_BYTES + 1];
    time_format(record_integer(row, LEDGER_AT), when);
    struct usage_group found = {
        .model = report->by & BY_MODEL ? record_text(row, LEDGER_MODEL) : STR_NONE,
        .user = report->by & BY_USER ? record_text(row, LEDGER_USER_ID) : STR_NONE,
        .day = report->by & BY_DAY ? str_of(when, DAY_TEXT_BYTES) : STR_NONE,
        .kind = report->by & BY_KIND ? record_text(row, LEDGER_KIND) : STR_NONE,
    };
    arena_mark mark = arena_save(report->arena);
    str key = str_printf(report->arena, STR_FMT "\n" STR_FMT "\n" STR_FMT "\n" STR_FMT,
                         STR_ARG(found.day), STR_ARG(found.user), STR_ARG(found.model),
                         STR_ARG(found.kind));
    struct usage_group *group = map_find(report->groups, key);
    arena_rewind(report->arena, mark);
    if (!group && map_count(report->groups) == USAGE_GROUPS_MAX)
        return error_set(e, REASON_LIMIT,
                         "more than %d groups: narrow ?from= and ?to=", USAGE_GROUPS_MAX);
    if (!group) {
        group = ARENA_NEW(report->arena, struct usage_group);
        *group = (struct usage_group){.model = str_copy(report->arena, found.model),
                                      .user = str_copy(report->arena, found.user),
                                      .day = str_copy(report->arena, found.day),
                                      .kind = str_copy(report->arena, found.kind)};
        key = str_printf(report->arena, STR_FMT "\n" STR_FMT "\n" STR_FMT "\n" STR_FMT,
                         STR_ARG(group->day), STR_ARG(group->user), STR_ARG(group->model),
                         STR_ARG(group->kind));
        map_put(report->groups, key, group);
    }
    cost amount = {record_integer(row, LEDGER_TOKENS), record_integer(row, LEDGER_TIME_MS),
                   record_integer(row, LEDGER_NANOUSD), record_integer(row, LEDGER_TOOL_CALLS)};
    group->sum = cost_add(group->sum, amount);
    group->rows++;
    report->total = cost_add(report->total, amount);
    report->rows++;
    return true;
}

static bool sum_rows(struct api_call *call, struct usage_report *report, struct query *query,
                     struct error *e)
{
    do {
        struct records page;
        arena_mark mark = arena_save(call->ctx->arena);
        bool ok =
            store_list(call->gateway->store, call->ctx, call->principal.tenant_id, query, &page, e);
        for (size_t i = 0; ok && i < page.count; i++)
            ok = add_row(report, &page.items[i], e);
        query->cursor = ok ? str_copy(report->arena, page.next_cursor) : STR_NONE;
        arena_rewind(call->ctx->arena, mark);
        if (!ok)
            return false;
        if (report->rows > GATEWAY_USAGE_ROWS_MAX)
            return error_set(e, REASON_LIMIT, "more than %u ledger entries: narrow ?from= and ?to=",
                             GATEWAY_USAGE_ROWS_MAX);
    } while (!str_is_empty(query->cursor));
    return true;
}

static void write_group(struct json_writer *w, const struct usage_group *group, unsigned by)
{
    json_object_begin(w);
    if (by & BY_DAY)
        json_put_str(w, S("day"), group->day);
    if (by & BY_USER)
        json_put_str(w, S("user_id"), group->user);
    if (by & BY_MODEL)
        json_put_str(w, S("model"), group->model);
    if (by & BY_KIND)
        json_put_str(w, S("kind"), group->kind);
    json_put_i64(w, S("entries"), group->rows);
    json_key(w, S("cost"));
    cost_write_json(w, group->sum);
    json_object_end(w);
}

static bool reply_usage(struct api_call *call, const struct usage_report *report, struct error *e)
{
    struct reply_writer writer;
    size_t position = 0;
    void *group;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_key(w, S("items"));
    json_array_begin(w);
    while (map_next(report->groups, &position, NULL, &group))
        write_group(w, group, report->by);
    json_array_end(w);
    json_put_i64(w, S("entries"), report->rows);
    json_key(w, S("total"));
    cost_write_json(w, report->total);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_usage(struct api_call *call, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    OWNED(map) groups = map_create();
    struct usage_report report = {.arena = arena, .groups = groups};
    struct query *query = ARENA_NEW(call->ctx->arena, struct query);
    return read_grouping(call, &report.by, e) && make_query(call, query, e) &&
           sum_rows(call, &report, query, e) && reply_usage(call, &report, e);
}

/* ---- budgets of users and of the tenant ---- */

static bool read_subject(struct api_call *call, enum account_level *level, str *subject,
                         struct error *e)
{
    str name, tenant = uuid_str(call->ctx->arena, call->principal.tenant_id);
    if (!param_text(call, 0, &name, e) || !param_text(call, 1, subject, e))
        return false;
    if (str_equal(name, S("user"))) {
        *level = ACCOUNT_USER;
        return true;
    }
    if (!str_equal(name, S("tenant")))
        return error_set(
            e, REASON_NOT_FOUND,
            "budgets are kept for user and tenant; a session's is at /api/v1/sessions/{id}/budget");
    *level = ACCOUNT_TENANT;
    if (!str_equal(*subject, S("self")) && !str_equal(*subject, tenant))
        return error_set(e, REASON_NOT_FOUND,
                         "there is no tenant \"" STR_FMT "\"; your own is \"self\"",
                         STR_ARG(*subject));
    *subject = tenant;
    return true;
}

static void put_cost(struct json_writer *w, str name, cost amount)
{
    json_key(w, name);
    cost_write_json(w, amount);
}

static bool reply_budget(struct api_call *call, enum account_level level, str subject,
                         struct error *e)
{
    struct ledger *ledger = orchestrator_ledger(call->gateway->orchestrator);
    struct ledger_limits limits = {COST_LIMITLESS, COST_LIMITLESS};
    struct ledger_path path;
    struct reply_writer writer;
    str user = level == ACCOUNT_USER ? subject : call->principal.user_id;
    if (!ledger_open_path(ledger, call->ctx, call->principal.tenant_id, user, UUID_NONE, UUID_NONE,
                          limits, &path, e))
        return false;
    struct ledger_view view = ledger_view(ledger, &path, level);
    ledger_close_path(ledger, &path);
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    put_cost(w, S("limit"), view.limit);
    put_cost(w, S("spent"), view.spent);
    put_cost(w, S("reserved"), view.reserved);
    put_cost(w, S("remaining"), view.remaining);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_budget_get(struct api_call *call, struct error *e)
{
    enum account_level level;
    str subject;
    return read_subject(call, &level, &subject, e) && reply_budget(call, level, subject, e);
}

static bool audit_limit(struct api_call *call, enum account_level level, str subject,
                        struct error *e)
{
    struct batch batch;
    struct gateway *gateway = call->gateway;
    batch_init(&batch, call->ctx->arena, call->principal.tenant_id);
    str kind = level == ACCOUNT_USER ? S("user") : S("tenant");
    audit_add(&batch, gateway->clock, gateway->random, &call->principal,
              &(struct audit_entry){.action = S("budget.set"),
                                    .resource_type = S("budget"),
                                    .resource_id = str_printf(call->ctx->arena, STR_FMT ":" STR_FMT,
                                                              STR_ARG(kind), STR_ARG(subject)),
                                    .details = json_print(call->ctx->arena, call->json)});
    return store_commit(gateway->store, call->ctx, &batch, e);
}

bool route_budget_put(struct api_call *call, struct error *e)
{
    enum account_level level;
    str subject;
    cost limit;
    return read_subject(call, &level, &subject, e) && body_read_limits(call->json, &limit, e) &&
           audit_limit(call, level, subject, e) &&
           ledger_set_limit(orchestrator_ledger(call->gateway->orchestrator), call->ctx,
                            call->principal.tenant_id, level, subject, limit, e) &&
           reply_budget(call, level, subject, e);
}
