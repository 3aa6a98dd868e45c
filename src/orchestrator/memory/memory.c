#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "orchestrator/memory/memory_internal.h"
#include "orchestrator/orchestrator_internal.h"

#include <stdlib.h>

/* ---- life ---- */

bool memory_create(const struct memory_options *options, struct memory **out, struct error *e)
{
    OWNED(memory) memory = calloc(1, sizeof *memory);
    ensure(memory != NULL);
    if (options->embedding_model.len > sizeof memory->model_text)
        return error_set(e, REASON_CONFIG, "memory.embedding_model has at most %u bytes",
                         MEMORY_MODEL_BYTES_MAX);
    memory->o = options->orchestrator;
    memory->index = options->index;
    memory->index->session_points_max =
        options->session_points_max ? options->session_points_max : MEMORY_SESSION_POINTS;
    memory->index->user_points_max =
        options->user_points_max ? options->user_points_max : MEMORY_USER_POINTS;
    if (!str_is_empty(options->embedding_model))
        memcpy(memory->model_text, options->embedding_model.ptr, options->embedding_model.len);
    memory->model = str_of(memory->model_text, options->embedding_model.len);
    memory->batch = embed_batch_create(memory->o->parts.metrics);
    if (str_is_empty(memory->model) &&
        !provider_offline_create(S("built-in"), &memory->built_in, e))
        return false;
    *out = GIVE(memory);
    return true;
}

void memory_destroy(struct memory *memory)
{
    if (!memory)
        return;
    embed_batch_destroy(memory->batch);
    provider_destroy(memory->built_in);
    free(memory);
}

void memory_settle(struct memory *memory, struct context *ctx)
{
    embed_batch_settle(memory->batch, ctx);
}

/* ---- audit ---- */

static void not_stored(const struct batch_notice *notice, const struct error *why)
{
    (void) notice;
    LOG_WARN("orchestrator.memory", S("an access to the memory is not in the audit log"),
             LOG_STR("error.message", str_from_cstr(why->message)));
}

/* Posted: nobody waits for it. */
static void audit(struct memory *memory, struct context *ctx, const struct principal *principal,
                  str user_id, const struct audit_entry *entry)
{
    const struct orchestrator_parts *parts = &memory->o->parts;
    struct principal who = *principal;
    struct batch batch;
    struct error e = {0};
    who.user_id = user_id;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    batch.notice = (struct batch_notice){.failed = not_stored};
    audit_add(&batch, parts->clock, parts->random, &who, entry);
    if (!store_submit(parts->store, &batch, &e))
        not_stored(&batch.notice, &e);
}

static str id_or_empty(struct context *ctx, uuid id)
{
    return uuid_is_none(id) ? STR_NONE : uuid_str(ctx->arena, id);
}

/* ---- storing ---- */

struct label memory_label_of_caller(str content_type)
{
    bool is_own = str_is_empty(content_type) || str_equal(content_type, S("message"));
    return is_own ? (struct label){.origins = LABEL_USER} : label_unknown(LABEL_USER | LABEL_TOOL);
}

static bool check_metadata(struct arena *arena, str metadata, struct error *e)
{
    const struct json *tree;
    if (str_is_empty(metadata))
        return true;
    if (metadata.len > MEMORY_OWN_METADATA_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "metadata has %zu bytes, at most %u are kept",
                         metadata.len, MEMORY_OWN_METADATA_BYTES_MAX);
    if (!json_parse(arena, metadata, (struct json_limits){0}, &tree, e))
        return error_wrap(e, "metadata");
    return json_type(tree) == JSON_OBJECT ||
           error_set(e, REASON_SCHEMA, "metadata must be an object");
}

static bool check_entry(struct context *ctx, const struct principal *principal,
                        const struct memory_entry *entry, struct error *e)
{
    str type = entry->content_type;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not store memories");
    if (str_is_empty(str_trim(entry->content)))
        return error_set(e, REASON_SCHEMA, "content is empty");
    if (entry->content.len > MEMORY_CONTENT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE,
                         "content has %zu bytes, a memory at most %u: store it in parts",
                         entry->content.len, MEMORY_CONTENT_BYTES_MAX);
    if (!str_is_empty(type) && !str_equal(type, S("message")) &&
        !str_equal(type, S("tool_result")) && !str_equal(type, S("summary")))
        return error_set(e, REASON_SCHEMA, "content_type is message, tool_result or summary");
    return check_metadata(ctx->arena, entry->metadata, e);
}

/* Only an open session of one's own takes memories: nobody puts words into another's. */
static bool check_session(struct memory *memory, struct context *ctx,
                          const struct principal *principal, uuid session_id, str *user_id,
                          struct error *e)
{
    *user_id = principal->user_id;
    if (uuid_is_none(session_id))
        return true;
    struct record *session = ARENA_NEW(ctx->arena, struct record);
    if (!session_get(memory->o, ctx, principal, session_id, session, e) ||
        !session_check_open(memory->o, ctx, session, e))
        return false;
    *user_id = record_text(session, SESSIONS_USER_ID);
    return str_equal(*user_id, principal->user_id) || (principal->scopes & SCOPE_ACT_AS) ||
           error_set(e, REASON_DENIED,
                     "storing in a session of another user needs the scope act_as");
}

static bool put_point(struct memory *memory, struct context *ctx, const struct principal *principal,
                      const struct memory_item *item, const float *vector, struct error *e)
{
    struct vector_point point = {
        .id = item->id,
        .session_id = item->session_id,
        .user_id = item->user_id,
        .timestamp_us = item->timestamp_us,
        .content_type = item->content_type,
        .metadata = memory_record_text(ctx->arena, memory, item),
        .vector = vector,
    };
    return vector_upsert(memory->index, ctx, principal->tenant_id, &point, 1,
                         memory->index->dimension, e);
}

bool memory_store(struct memory *memory, struct context *ctx, const struct principal *principal,
                  const struct memory_entry *entry, struct memory_item *out, struct error *e)
{
    const struct orchestrator_parts *parts = &memory->o->parts;
    struct memory_text text = {principal, entry->session_id, entry->content, entry->metadata};
    const float *vector;
    str user_id;
    if (!check_entry(ctx, principal, entry, e) ||
        !check_session(memory, ctx, principal, entry->session_id, &user_id, e) ||
        !memory_filter(memory, ctx, &text, e) || !memory_embed(memory, ctx, &text, &vector, e))
        return false;
    *out = (struct memory_item){
        .id = uuid_is_none(entry->id) ? uuid_new(parts->clock, parts->random) : entry->id,
        .session_id = entry->session_id,
        .user_id = user_id,
        .content = text.text,
        .content_type = str_is_empty(entry->content_type) ? S("message") : entry->content_type,
        .metadata = text.metadata,
        .label = entry->label,
        .timestamp_us = clock_unix_us(parts->clock),
    };
    if (!put_point(memory, ctx, principal, out, vector, e))
        return false;
    audit(memory, ctx, principal, user_id,
          &(struct audit_entry){
              .action = S("memory.store"),
              .resource_type = S("memory"),
              .resource_id = uuid_str(ctx->arena, out->id),
              .details = str_printf(ctx->arena,
                                    "{\"session_id\":\"" STR_FMT "\",\"content_type\":\"" STR_FMT
                                    "\",\"bytes\":%zu}",
                                    STR_ARG(id_or_empty(ctx, out->session_id)),
                                    STR_ARG(out->content_type), out->content.len),
          });
    return true;
}

/* ---- searching ---- */

/* Whose points, and which open session is charged. */
struct memory_scope {
    str user_id;
    uuid account_id;
};

static bool find_scope(struct memory *memory, struct context *ctx,
                       const struct principal *principal, const struct memory_query *query,
                       struct memory_scope *out, struct error *e)
{
    bool names_user = !str_is_empty(query->user_id);
    *out =
        (struct memory_scope){names_user ? query->user_id : principal->user_id, query->account_id};
    if (uuid_is_none(query->session_id))
        return principal_sees_user(principal, out->user_id) ||
               error_set(e, REASON_DENIED,
                         "searching the memory of another user needs the role "
                         "operator");
    struct record *session = ARENA_NEW(ctx->arena, struct record);
    if (!session_get(memory->o, ctx, principal, query->session_id, session, e))
        return false;
    str owner = record_text(session, SESSIONS_USER_ID);
    if (names_user && !str_equal(owner, query->user_id))
        return error_set(e, REASON_NOT_FOUND, "user_id has no session " STR_FMT,
                         STR_ARG(uuid_str(ctx->arena, query->session_id)));
    out->user_id = owner;
    bool is_own = str_equal(owner, principal->user_id);
    if (uuid_is_none(out->account_id) && is_own &&
        session_check_open(memory->o, ctx, session, &(struct error){0}))
        out->account_id = query->session_id;
    return true;
}

static bool decide(struct memory *memory, struct context *ctx, const struct principal *principal,
                   const struct memory_query *query, const struct memory_scope *scope,
                   struct error *e)
{
    struct orchestrator *o = memory->o;
    struct ledger_path path;
    struct policy_decision decision;
    str policy_context = STR_NONE;
    if (!session_open_path(o, ctx, principal, scope->account_id, &path, &policy_context, e))
        return false;
    struct policy_input input = {
        .action = S("memory.read"),
        .resource = uuid_is_none(query->session_id) ? S("user") : S("session"),
        .user_id = principal->user_id,
        .role = principal->role,
        .tenant = uuid_str(ctx->arena, principal->tenant_id),
        .session_id = scope->account_id,
        .remaining = ledger_remaining(o->ledger, &path),
        .policy_context = policy_context,
    };
    policy_decide(o->parts.policy, ctx, &input, &decision);
    ledger_close_path(o->ledger, &path);
    metrics_add(o->parts.metrics, METRIC_POLICY_DECISIONS, 1,
                (str[]){input.action, str_from_cstr(policy_verdict_name(decision.verdict))}, 2);
    return decision.verdict == POLICY_ALLOW ||
           error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow reading the memory: " STR_FMT,
                     STR_ARG(decision.reason));
}

static bool check_query(const struct principal *principal, const struct memory_query *query,
                        struct error *e)
{
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not search memories");
    if (str_is_empty(str_trim(query->text)))
        return error_set(e, REASON_SCHEMA, "query is empty");
    if (query->text.len > MEMORY_QUERY_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "query has %zu bytes, at most %u are looked for",
                         query->text.len, MEMORY_QUERY_BYTES_MAX);
    return query->limit <= MEMORY_RESULTS_MAX ||
           error_set(e, REASON_SCHEMA, "limit must be from 1 to %u", MEMORY_RESULTS_MAX);
}

static void read_points(struct memory *memory, struct context *ctx,
                        const struct vector_point *points, size_t count, struct memory_answer *out)
{
    *out = (struct memory_answer){.items = ARENA_ARRAY(ctx->arena, struct memory_item, count + 1)};
    for (size_t i = 0; i < count; i++) {
        struct memory_item *item = &out->items[out->count];
        if (!memory_record_read(ctx->arena, memory, &points[i], item)) {
            out->left_out++;
            continue;
        }
        out->label = label_join(out->label, item->label);
        out->count++;
    }
}

bool memory_search(struct memory *memory, struct context *ctx, const struct principal *principal,
                   const struct memory_query *query, struct memory_answer *out, struct error *e)
{
    struct memory_scope scope;
    struct vector_point *points;
    size_t count;
    const float *vector;
    if (!check_query(principal, query, e) ||
        !find_scope(memory, ctx, principal, query, &scope, e) ||
        !decide(memory, ctx, principal, query, &scope, e))
        return false;
    struct memory_text text = {principal, scope.account_id, query->text, STR_NONE};
    if (!memory_filter(memory, ctx, &text, e) || !memory_embed(memory, ctx, &text, &vector, e) ||
        !vector_search(memory->index, ctx, principal->tenant_id, query->session_id, scope.user_id,
                       vector, memory->index->dimension,
                       query->limit > 0 ? query->limit : MEMORY_RESULTS_DEFAULT, &points, &count,
                       e))
        return false;
    read_points(memory, ctx, points, count, out);
    audit(memory, ctx, principal, scope.user_id,
          &(struct audit_entry){
              .action = S("memory.search"),
              .resource_type = S("memory"),
              .resource_id = id_or_empty(ctx, query->session_id),
              .details = str_printf(ctx->arena, "{\"results\":%zu}", out->count),
          });
    return true;
}

/* ---- forgetting ---- */

static void audit_forget(struct memory *memory, struct context *ctx,
                         const struct principal *principal, str user_id, str type, uuid id)
{
    audit(memory, ctx, principal, user_id,
          &(struct audit_entry){.action = S("memory.forget"),
                                .resource_type = type,
                                .resource_id = uuid_str(ctx->arena, id)});
}

static bool check_forget(const struct principal *principal, struct error *e)
{
    return principal->level >= ROLE_LEVEL_USER ||
           error_set(e, REASON_DENIED, "a viewer may not forget memories");
}

bool memory_forget(struct memory *memory, struct context *ctx, const struct principal *principal,
                   uuid id, struct error *e)
{
    struct vector_point point;
    struct error failure = {0};
    if (!check_forget(principal, e))
        return false;
    bool ok = vector_find(memory->index, ctx, principal->tenant_id, id, &point, &failure);
    if (!ok && failure.code != ERROR_NOT_FOUND)
        return error_copy(e, &failure);
    if (!ok || !principal_sees_user(principal, point.user_id))
        return error_set(e, REASON_NOT_FOUND, "there is no memory " STR_FMT,
                         STR_ARG(uuid_str(ctx->arena, id)));
    if (!vector_forget(memory->index, ctx, principal->tenant_id, point.session_id, &id, 1, e))
        return false;
    audit_forget(memory, ctx, principal, point.user_id, S("memory"), id);
    return true;
}

bool memory_forget_session(struct memory *memory, struct context *ctx,
                           const struct principal *principal, uuid session_id, struct error *e)
{
    struct record *session = ARENA_NEW(ctx->arena, struct record);
    if (!check_forget(principal, e) ||
        !session_get(memory->o, ctx, principal, session_id, session, e) ||
        !vector_forget(memory->index, ctx, principal->tenant_id, session_id, NULL, 0, e))
        return false;
    audit_forget(memory, ctx, principal, record_text(session, SESSIONS_USER_ID), S("session"),
                 session_id);
    return true;
}
