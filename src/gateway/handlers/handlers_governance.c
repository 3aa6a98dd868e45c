/* Policies and audit. */
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/policy/audit.h"
#include "runtime/loop.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

enum { POLICY_MODULES_MAX = 256, POLICY_MODULE_BYTES_MAX = 1 << 20 };

/* ---- the policy in force ---- */

struct module {
    str name, text;
};
/* Blocking work: reads the folder. */
struct listing {
    struct arena *arena;
    const char *dir;
    struct module *modules;
    size_t count;
};

static str read_module(struct arena *arena, const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return STR_NONE;
    char *text = arena_alloc_raw(arena, POLICY_MODULE_BYTES_MAX);
    size_t got = fread(text, 1, POLICY_MODULE_BYTES_MAX, file);
    (void) fclose(file);
    return str_of(arena_resize_raw(arena, text, POLICY_MODULE_BYTES_MAX, got), got);
}

static int by_name(const void *a, const void *b)
{
    return str_compare(((const struct module *) a)->name, ((const struct module *) b)->name);
}

static void list_modules(void *argument)
{
    struct listing *listing = argument;
    DIR *folder = opendir(listing->dir);
    if (!folder)
        return;
    for (struct dirent *entry; listing->count < POLICY_MODULES_MAX && (entry = readdir(folder));) {
        str name = str_from_cstr(entry->d_name);
        if (!str_ends_with(name, S(".rego")) || str_ends_with(name, S("_test.rego")))
            continue;
        str path = str_printf(listing->arena, "%s/" STR_FMT, listing->dir, STR_ARG(name));
        listing->modules[listing->count++] =
            (struct module){str_copy(listing->arena, name),
                            read_module(listing->arena, str_to_cstr(listing->arena, path))};
    }
    (void) closedir(folder);
    qsort(listing->modules, listing->count, sizeof *listing->modules, by_name);
}

static void write_modules(struct json_writer *w, const struct listing *listing, struct arena *arena,
                          bool with_source)
{
    json_key(w, S("modules"));
    json_array_begin(w);
    for (size_t i = 0; i < listing->count; i++) {
        json_object_begin(w);
        json_put_str(w, S("name"), listing->modules[i].name);
        json_put_str(w, S("sha256"), digest_hex(arena, digest_sha256(listing->modules[i].text)));
        if (with_source)
            json_put_str(w, S("source"), listing->modules[i].text);
        json_object_end(w);
    }
    json_array_end(w);
}

/* The version comes with every decision: the one way to it that all engines have. */
static str policy_version(struct api_call *call)
{
    struct policy_input *input = ARENA_NEW(call->ctx->arena, struct policy_input);
    struct policy_decision decision = {0};
    input->action = S("output");
    input->remaining = COST_LIMITLESS;
    policy_decide(call->gateway->policy, call->ctx, input, &decision);
    return decision.version;
}

static bool reply_rules(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    struct arena *arena = call->ctx->arena;
    struct listing *listing = ARENA_NEW(arena, struct listing);
    *listing = (struct listing){.arena = arena,
                                .dir = str_to_cstr(arena, call->gateway->options.policy_dir)};
    listing->modules = ARENA_ARRAY(arena, struct module, POLICY_MODULES_MAX);
    if (!str_is_empty(call->gateway->options.policy_dir) &&
        !blocking_call(call->ctx, list_modules, listing, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("engine"), str_from_cstr(call->gateway->policy->ops->name));
    json_put_str(w, S("package"), S("nexus.agent.policy"));
    json_put_str(w, S("rule"), S("allow"));
    json_put_str(w, S("version"), policy_version(call));
    write_modules(w, listing, arena, call->principal.level >= ROLE_LEVEL_OPERATOR);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_policy_rules(struct api_call *call, struct error *e)
{
    return reply_rules(call, e);
}

/* ---- what would it say? ---- */

bool route_policy_decide(struct api_call *call, struct error *e)
{
    struct policy_input *input = ARENA_NEW(call->ctx->arena, struct policy_input);
    struct policy_decision decision = {0};
    struct reply_writer writer;
    /* The form of the policy's own input; who is not said is the caller. */
    input->user_id = call->principal.user_id;
    input->role = call->principal.role;
    input->tenant = uuid_str(call->ctx->arena, call->principal.tenant_id);
    if (!body_read_policy_input(call->ctx->arena, call->json, input, e))
        return false;
    policy_decide(call->gateway->policy, call->ctx, input, &decision);
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("verdict"), str_from_cstr(policy_verdict_name(decision.verdict)));
    json_put_str(w, S("reason"), decision.reason);
    json_put_str(w, S("rule"), decision.rule);
    json_put_str(w, S("version"), decision.version);
    json_put_raw(w, S("input"), policy_input_json(call->ctx->arena, input, false));
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

/* ---- reload ---- */

struct reload {
    struct policy *policy;
    bool ok;
    struct error e;
};

static void reload_policy(void *argument)
{
    struct reload *reload = argument;
    reload->ok = policy_reload(reload->policy, &reload->e);
}

static bool audit_reload(struct api_call *call, struct error *e)
{
    struct batch batch;
    struct gateway *gateway = call->gateway;
    batch_init(&batch, call->ctx->arena, call->principal.tenant_id);
    audit_add(&batch, gateway->clock, gateway->random, &call->principal,
              &(struct audit_entry){.action = S("policy.reload"),
                                    .resource_type = S("policy"),
                                    .resource_id = policy_version(call)});
    return store_commit(gateway->store, call->ctx, &batch, e);
}

bool route_policy_reload(struct api_call *call, struct error *e)
{
    struct reload *reload = ARENA_NEW(call->ctx->arena, struct reload);
    reload->policy = call->gateway->policy;
    if (!blocking_call(call->ctx, reload_policy, reload, e))
        return false;
    if (!reload->ok) {
        error_copy(e, &reload->e);
        return error_wrap(e, "the policy in force stays");
    }
    return audit_reload(call, e) && reply_rules(call, e);
}

/* ---- audit ---- */

static void put_optional(struct json_writer *w, str name, const struct record *row, int column)
{
    json_key(w, name);
    if (record_has(row, column))
        json_write_str(w, record_text(row, column));
    else
        json_write_null(w);
}

static bool write_audit(struct api_call *call, struct json_writer *w, const struct record *row,
                        struct error *e)
{
    (void) call, (void) e;
    json_object_begin(w);
    put_id(w, S("id"), record_uuid(row, AUDIT_LOGS_ID));
    json_put_str(w, S("user_id"), record_text(row, AUDIT_LOGS_USER_ID));
    json_put_str(w, S("action"), record_text(row, AUDIT_LOGS_ACTION));
    json_put_str(w, S("resource_type"), record_text(row, AUDIT_LOGS_RESOURCE_TYPE));
    put_optional(w, S("resource_id"), row, AUDIT_LOGS_RESOURCE_ID);
    json_key(w, S("details"));
    if (record_has(row, AUDIT_LOGS_DETAILS))
        json_write_raw(w, record_text(row, AUDIT_LOGS_DETAILS));
    else
        json_write_null(w);
    put_optional(w, S("ip_address"), row, AUDIT_LOGS_IP_ADDRESS);
    put_optional(w, S("user_agent"), row, AUDIT_LOGS_USER_AGENT);
    put_time(w, S("created_at"), record_integer(row, AUDIT_LOGS_CREATED_AT));
    json_put_str(w, S("writer"), record_text(row, AUDIT_LOGS_WRITER));
    json_put_i64(w, S("seq"), record_integer(row, AUDIT_LOGS_SEQ));
    json_put_str(w, S("prev_hash"), record_text(row, AUDIT_LOGS_PREV_HASH));
    json_put_str(w, S("hash"), record_text(row, AUDIT_LOGS_HASH));
    json_object_end(w);
    return true;
}

bool route_audit_list(struct api_call *call, struct error *e)
{
    static const struct {
        const char *name;
        int column;
    } filters[] = {{"action", AUDIT_LOGS_ACTION},
                   {"user_id", AUDIT_LOGS_USER_ID},
                   {"resource_id", AUDIT_LOGS_RESOURCE_ID}};
    struct query *query = ARENA_NEW(call->ctx->arena, struct query);
    struct records rows;
    *query = query_of(TABLE_AUDIT_LOGS);
    query->is_descending = true;
    for (size_t i = 0; i < ARRAY_COUNT(filters); i++) {
        str value = query_text(call, str_from_cstr(filters[i].name));
        if (!str_is_empty(value))
            query_where_text(query, filters[i].column, value);
    }
    return query_page(call, &query->cursor, &query->limit, e) &&
           store_list(call->gateway->store, call->ctx, call->principal.tenant_id, query, &rows,
                      e) &&
           reply_page(call, &rows, write_audit, e);
}

bool route_audit_verify(struct api_call *call, struct error *e)
{
    struct audit_report report = {0};
    struct reply_writer writer;
    if (!store_audit_verify(call->gateway->store, call->ctx, call->principal.tenant_id, &report, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_bool(w, S("ok"), report.ok);
    json_put_i64(w, S("entries"), report.entries);
    if (!report.ok)
        json_put_str(w, S("first_bad"), report.first_bad);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}
