/* What an administrator decides about a tool: one row per tenant and name, counted by its revision. */
#include "orchestrator/tools/tool_admin_internal.h"

#include "base/arena.h"
#include "base/limits.h"

struct change {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    const struct tool_target *target;
    uuid tenant_id;
    const struct json *change; /* of the state, or NULL: */
    str permissions;           /* ... the permissions as YAML */
    struct record *row;
    int64_t revision; /* before; 0: there was none */
};

bool tool_state_row(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct tool_target *target, struct record *out, struct error *e)
{
    struct record *key = ARENA_NEW(ctx->arena, struct record);
    struct error missing = {0};
    uuid tenant_id = target->is_platform ? UUID_NONE : principal->tenant_id;
    *key = record_of(TABLE_TOOL_STATES);
    record_set_text(key, TOOL_STATES_NAME, target->name);
    if (store_get(o->parts.store, ctx, tenant_id, key, out, &missing))
        return true;
    *out = *key;
    return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
}

/* ---- members of a change ---- */

static bool is_null(const struct json *value)
{
    return json_type(value) == JSON_NULL;
}

/* May this administrator know of the tool?  What they hid from their own tenant, they do. */
static bool may_know(const struct change *c, const struct registry_snapshot *tools,
                     const struct tool *tool)
{
    const struct registry_state *state = registry_state(tools, UUID_NONE, tool->name);
    if (!registry_is_visible(tool, c->tenant_id))
        return false;
    if (uuid_is_none(c->tenant_id) || !uuid_is_none(tool->tenant_id) || !state)
        return true;
    bool is_shown = !state->is_limited;
    for (size_t i = 0; i < state->visible_count && !is_shown; i++)
        is_shown = uuid_equal(state->visible_to[i], c->tenant_id);
    return is_shown && !state->is_hidden;
}

/* A version that this administrator can name. */
static bool check_version(struct change *c, str version, bool is_own, struct error *e)
{
    const struct registry_snapshot *tools = registry_acquire(c->o->parts.registry);
    bool is_there = false;
    for (size_t i = 0; i < registry_count(tools) && !is_there; i++) {
        const struct tool *tool = registry_at(tools, i);
        is_there = str_equal(tool->name, c->target->name) && str_equal(tool->version, version) &&
                   (is_own ? uuid_equal(tool->tenant_id, c->tenant_id) : may_know(c, tools, tool));
    }
    registry_release(tools);
    return is_there ||
           error_set(e, REASON_NOT_FOUND, "there is no tool \"" STR_FMT "\" " STR_FMT "%s",
                     STR_ARG(c->target->name), STR_ARG(str_cut_utf8(version, 64)),
                     is_own ? " of your own; only its owner may deprecate a tool" : "");
}

static bool set_current(struct change *c, const struct json *value, struct error *e)
{
    str version;
    if (is_null(value)) {
        record_set_null(c->row, TOOL_STATES_PINNED_VERSION);
        return true;
    }
    if (!json_to_str(value, &version))
        return error_set(e, REASON_SCHEMA, "current must be a version or null");
    if (!check_version(c, version, false, e))
        return false;
    record_set_text(c->row, TOOL_STATES_PINNED_VERSION, version);
    return true;
}

static bool set_canary(struct change *c, const struct json *value, struct error *e)
{
    int64_t percent = -1;
    str version;
    if (is_null(value)) {
        record_set_null(c->row, TOOL_STATES_CANARY_VERSION);
        record_set_null(c->row, TOOL_STATES_CANARY_PERCENT);
        return true;
    }
    if (!json_to_str(json_get(value, S("version")), &version) ||
        !json_to_i64(json_get(value, S("percent")), &percent) || percent < 0 || percent > 100)
        return error_set(e, REASON_SCHEMA, "canary must be {version, percent: 0 to 100} or null");
    if (!check_version(c, version, false, e))
        return false;
    record_set_text(c->row, TOOL_STATES_CANARY_VERSION, version);
    record_set_integer(c->row, TOOL_STATES_CANARY_PERCENT, percent);
    return true;
}

static bool set_hidden(struct change *c, const struct json *value, struct error *e)
{
    bool is_hidden;
    if (!json_to_bool(value, &is_hidden))
        return error_set(e, REASON_SCHEMA, "hidden must be true or false");
    record_set_integer(c->row, TOOL_STATES_IS_HIDDEN, is_hidden);
    return true;
}

static bool set_visible_to(struct change *c, const struct json *value, struct error *e)
{
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (!uuid_is_none(c->tenant_id))
        return error_set(e, REASON_DENIED,
                         "visible_to is the platform's to say (scope=platform); for your own "
                         "tenant there is hidden");
    if (is_null(value)) {
        record_set_null(c->row, TOOL_STATES_VISIBLE_TO);
        return true;
    }
    if (json_type(value) != JSON_ARRAY || json_count(value) > REGISTRY_VISIBLE_TENANTS_MAX)
        return error_set(e, REASON_SCHEMA, "visible_to must be a list of at most %u tenant ids",
                         REGISTRY_VISIBLE_TENANTS_MAX);
    while (json_next(&it, NULL, &item)) {
        str id;
        uuid parsed;
        if (!json_to_str(item, &id) || !uuid_parse(id, &parsed) || uuid_is_none(parsed))
            return error_set(e, REASON_SCHEMA, "visible_to must be a list of tenant ids");
    }
    record_set_text(c->row, TOOL_STATES_VISIBLE_TO, json_print(c->ctx->arena, value));
    return true;
}

/* The versions that stay deprecated, and the new ones. */
static bool set_deprecated(struct change *c, const struct json *value, struct error *e)
{
    const struct json *old = NULL, *text;
    struct error ignored;
    struct strbuf out;
    struct json_writer w;
    str version, reason, before = record_text(c->row, TOOL_STATES_DEPRECATED);
    size_t count = 0;
    if (json_type(value) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "deprecated must be {version: text or null}");
    if (!str_is_empty(before) &&
        !json_parse(c->ctx->arena, before, (struct json_limits){0}, &old, &ignored))
        old = NULL;
    strbuf_init(&out, c->ctx->arena, 256u << 10);
    json_writer_init(&w, &out);
    json_object_begin(&w);
    struct json_iter it = json_iter(old);
    while (json_next(&it, &version, &text))
        if (!json_get(value, version)) {
            json_put_value(&w, version, text);
            count++;
        }
    it = json_iter(value);
    while (json_next(&it, &version, &text)) {
        if (is_null(text))
            continue;
        if (!json_to_str(text, &reason) || reason.len > TOOL_TEXT_BYTES_MAX)
            return error_set(e, REASON_SCHEMA,
                             "why a version is deprecated is a text of at most %u bytes",
                             TOOL_TEXT_BYTES_MAX);
        if (!check_version(c, version, true, e))
            return false;
        json_put_str(&w, version, reason);
        count++;
    }
    json_object_end(&w);
    if (count > REGISTRY_DEPRECATIONS_MAX)
        return error_set(e, REASON_LIMIT, "more than %u deprecated versions",
                         REGISTRY_DEPRECATIONS_MAX);
    record_set_text(c->row, TOOL_STATES_DEPRECATED, strbuf_str(&out));
    return true;
}

static const struct {
    str name;
    bool (*set)(struct change *c, const struct json *value, struct error *e);
} members[] = {
    {S_INIT("current"), set_current},       {S_INIT("canary"), set_canary},
    {S_INIT("hidden"), set_hidden},         {S_INIT("visible_to"), set_visible_to},
    {S_INIT("deprecated"), set_deprecated},
};

static bool apply_members(struct change *c, struct error *e)
{
    str key;
    const struct json *value;
    struct json_iter it = json_iter(c->change);
    while (json_next(&it, &key, &value)) {
        size_t i = 0;
        while (i < ARRAY_COUNT(members) && !str_equal(members[i].name, key))
            i++;
        if (i == ARRAY_COUNT(members))
            return error_set(e, REASON_SCHEMA,
                             "unknown member \"" STR_FMT
                             "\"; known: current, canary, hidden, visible_to, deprecated",
                             STR_ARG(str_cut_utf8(key, 60)));
        if (!members[i].set(c, value, e))
            return false;
    }
    return json_count(c->change) > 0 ||
           error_set(e, REASON_SCHEMA,
                     "nothing to change: current, canary, hidden, visible_to, deprecated");
}

static bool apply_permissions(struct change *c, struct error *e)
{
    struct arena *arena = c->ctx->arena;
    struct yaml_document document;
    struct permissions permissions;
    struct strbuf text;
    struct json_writer w;
    if (!uuid_is_none(c->tenant_id) || !c->target->is_platform) {
        if (!yaml_parse(arena, S("permissions"), c->permissions, &document, e) ||
            !permissions_read_narrowing(arena, &document, document.root, &permissions, e))
            return false;
        strbuf_init(&text, arena, 1u << 20);
        json_writer_init(&w, &text);
        permissions_write_json(&w, &permissions);
        if (str_equal(strbuf_str(&text), S("{}")))
            record_set_null(c->row, TOOL_STATES_PERMISSIONS);
        else
            record_set_text(c->row, TOOL_STATES_PERMISSIONS, strbuf_str(&text));
        return true;
    }
    return error_set(e, REASON_INVALID,
                     "the platform's permissions stand in the configuration (tools." STR_FMT
                     ".permissions)",
                     STR_ARG(str_cut_utf8(c->target->name, 64)));
}

/* ---- writing it ---- */

static bool commit_row(struct change *c, struct error *e)
{
    struct orchestrator *o = c->o;
    struct batch batch, own;
    bool is_platform = uuid_is_none(c->tenant_id);
    batch_init(&batch, c->ctx->arena, c->tenant_id);
    batch_init(&own, c->ctx->arena, c->principal->tenant_id);
    record_set_integer(c->row, TOOL_STATES_REVISION, c->revision + 1);
    record_set_text(c->row, TOOL_STATES_UPDATED_BY, c->principal->user_id);
    record_set_integer(c->row, TOOL_STATES_UPDATED_AT, clock_unix_us(o->parts.clock));
    *batch_add(&batch, c->revision > 0 ? WRITE_UPDATE : WRITE_INSERT, TABLE_TOOL_STATES) = *c->row;
    if (c->revision > 0)
        batch_where_integer(&batch, TOOL_STATES_REVISION, c->revision);
    tool_admin_audit(is_platform ? &own : &batch, o, c->principal,
                     c->change ? "tool.state" : "tool.permissions", c->target->name, STR_NONE,
                     is_platform);
    if (store_commit(o->parts.store, c->ctx, &batch, e))
        return !is_platform || store_commit(o->parts.store, c->ctx, &own, e);
    return e->code == ERROR_CONFLICT
               ? error_set(e, REASON_PRECONDITION, "somebody changed it meanwhile; look again")
               : false;
}

static bool change_alone(struct orchestrator *o, struct context *ctx, void *argument,
                         struct error *e)
{
    struct change *c = argument;
    struct registry_state *state = ARENA_NEW(ctx->arena, struct registry_state);
    c->ctx = ctx;
    if (!tool_state_row(o, ctx, c->principal, c->target, c->row, e))
        return false;
    c->revision = record_integer(c->row, TOOL_STATES_REVISION);
    str tag = str_i64(ctx->arena, c->revision);
    if (!str_is_empty(c->target->if_match) && !str_equal(c->target->if_match, tag))
        return error_set(e, REASON_PRECONDITION,
                         "somebody changed it meanwhile: it is at revision " STR_FMT, STR_ARG(tag));
    return (c->change ? apply_members : apply_permissions)(c, e) && commit_row(c, e) &&
           tool_admin_state(ctx->arena, c->tenant_id, c->row, state, e) &&
           registry_set_states(o->parts.registry, state, 1, false, e);
}

/* Is there such a tool, as far as this administrator knows? */
static bool check_name(struct change *c, struct error *e)
{
    const struct registry_snapshot *tools = registry_acquire(c->o->parts.registry);
    bool is_there = false;
    for (size_t i = 0; i < registry_count(tools) && !is_there; i++)
        is_there = str_equal(registry_at(tools, i)->name, c->target->name) &&
                   may_know(c, tools, registry_at(tools, i));
    registry_release(tools);
    return is_there || error_set(e, REASON_NOT_FOUND, "there is no tool \"" STR_FMT "\"",
                                 STR_ARG(str_cut_utf8(c->target->name, 64)));
}

static bool change(struct change *c, struct error *e)
{
    return tool_admin_tenant(c->principal, c->target->is_platform, &c->tenant_id, e) &&
           check_name(c, e) && tool_admin_alone(c->o, c->ctx, change_alone, c, e);
}

bool tool_change_state(struct orchestrator *o, struct context *ctx,
                       const struct principal *principal, const struct tool_target *target,
                       const struct json *wanted, struct record *state, struct error *e)
{
    struct change *c = ARENA_NEW(ctx->arena, struct change);
    *c = (struct change){.o = o,
                         .ctx = ctx,
                         .principal = principal,
                         .target = target,
                         .change = wanted,
                         .row = state};
    return change(c, e);
}

bool tool_set_permissions(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, const struct tool_target *target,
                          str text, struct record *state, struct error *e)
{
    struct change *c = ARENA_NEW(ctx->arena, struct change);
    *c = (struct change){.o = o,
                         .ctx = ctx,
                         .principal = principal,
                         .target = target,
                         .permissions = text,
                         .row = state};
    return change(c, e);
}

static void put_text(struct json_writer *w, str name, str text)
{
    json_key(w, name);
    if (str_is_empty(text))
        json_write_null(w);
    else
        json_write_str(w, text);
}

static void put_json(struct json_writer *w, str name, str text)
{
    json_key(w, name);
    if (str_is_empty(text))
        json_write_null(w);
    else
        json_write_raw(w, text);
}

void tool_state_write_json(struct json_writer *w, const struct record *state)
{
    json_object_begin(w);
    json_put_str(w, S("name"), record_text(state, TOOL_STATES_NAME));
    json_put_i64(w, S("revision"), record_integer(state, TOOL_STATES_REVISION));
    put_text(w, S("current"), record_text(state, TOOL_STATES_PINNED_VERSION));
    json_key(w, S("canary"));
    if (record_has(state, TOOL_STATES_CANARY_VERSION)) {
        json_object_begin(w);
        json_put_str(w, S("version"), record_text(state, TOOL_STATES_CANARY_VERSION));
        json_put_i64(w, S("percent"), record_integer(state, TOOL_STATES_CANARY_PERCENT));
        json_object_end(w);
    } else {
        json_write_null(w);
    }
    json_put_bool(w, S("hidden"), record_integer(state, TOOL_STATES_IS_HIDDEN) != 0);
    put_json(w, S("visible_to"), record_text(state, TOOL_STATES_VISIBLE_TO));
    put_json(w, S("deprecated"), record_text(state, TOOL_STATES_DEPRECATED));
    put_json(w, S("permissions"), record_text(state, TOOL_STATES_PERMISSIONS));
    put_text(w, S("updated_by"), record_text(state, TOOL_STATES_UPDATED_BY));
    json_object_end(w);
}
