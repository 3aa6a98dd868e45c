#include "orchestrator/tools/tool_admin_internal.h"

#include "base/arena.h"
#include "base/limits.h"
#include "runtime/loop.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one change at a time ---- */

struct alone {
    struct orchestrator *o;
    struct context *caller;
    tool_change_fn *change;
    void *argument;
    bool is_ok;
    struct error error;
};

static void alone_on_lane(struct context *ctx, void *argument)
{
    struct alone *alone = argument;
    struct orchestrator *o = alone->o;
    struct context shield; /* what has begun goes on when its caller hangs up */
    context_init(&shield, ctx->scheduler, alone->caller->arena, DEADLINE_NONE);
    shield.tenant_id = ctx->tenant_id;
    while (o->tool_admin.is_busy) {
        struct error never;
        if (!condition_wait(&o->tool_admin.became_idle, &shield, &never))
            break; /* the shield has neither deadline nor cancel */
    }
    o->tool_admin.is_busy = true;
    alone->is_ok = alone->change(o, &shield, alone->argument, &alone->error);
    o->tool_admin.is_busy = false;
    condition_signal(&o->tool_admin.became_idle);
    context_deinit(&shield);
}

bool tool_admin_alone(struct orchestrator *o, struct context *ctx, tool_change_fn *change,
                      void *argument, struct error *e)
{
    struct alone *alone = ARENA_NEW(ctx->arena, struct alone);
    *alone = (struct alone){.o = o, .caller = ctx, .change = change, .argument = argument};
    lane_call(o, 0, ctx, alone_on_lane, alone);
    return alone->is_ok || error_copy(e, &alone->error);
}

bool tool_admin_tenant(const struct principal *principal, bool is_platform, uuid *out,
                       struct error *e)
{
    *out = is_platform ? UUID_NONE : principal->tenant_id;
    if (principal->level < ROLE_LEVEL_ADMIN)
        return error_set(e, REASON_DENIED, "only an admin may change tools");
    if (is_platform && !(principal->scopes & SCOPE_PLATFORM))
        return error_set(e, REASON_DENIED,
                         "tools of the platform may be changed only with the scope `platform`; "
                         "without it they are changed for your own tenant");
    return true;
}

str tool_admin_path(struct arena *arena, const struct orchestrator *o, str relative)
{
    return str_printf(arena, STR_FMT "/tools/" STR_FMT, STR_ARG(o->parts.data_dir),
                      STR_ARG(relative));
}

void tool_admin_audit(struct batch *batch, struct orchestrator *o,
                      const struct principal *principal, const char *action, str name, str version,
                      bool is_platform)
{
    struct strbuf details;
    struct json_writer w;
    strbuf_init(&details, batch->arena, 4096);
    json_writer_init(&w, &details);
    json_object_begin(&w);
    if (!str_is_empty(version))
        json_put_str(&w, S("version"), version);
    json_put_str(&w, S("scope"), is_platform ? S("platform") : S("tenant"));
    json_object_end(&w);
    audit_add(batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){.action = str_from_cstr(action),
                                    .resource_type = S("tool"),
                                    .resource_id = name,
                                    .details = strbuf_str(&details)});
}

/* The audit chain is of the caller's tenant: rows of the platform are written in a batch of their own. */
static bool commit(struct orchestrator *o, struct context *ctx, struct batch *batch,
                   const struct principal *principal, const char *action, str name, str version,
                   struct error *e)
{
    bool is_platform = uuid_is_none(batch->tenant_id);
    struct batch own;
    batch_init(&own, ctx->arena, principal->tenant_id);
    tool_admin_audit(is_platform ? &own : batch, o, principal, action, name, version, is_platform);
    return store_commit(o->parts.store, ctx, batch, e) &&
           (!is_platform || store_commit(o->parts.store, ctx, &own, e));
}

/* ---- folders ---- */

void tool_admin_remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL)
        (void) unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    (void) rmdir(path);
}

struct sweep {
    struct arena *arena;
    str root;
    const struct registry_package *packages;
    size_t count;
};

static bool is_known(const struct sweep *sweep, str path)
{
    for (size_t i = 0; i < sweep->count; i++)
        if (str_equal(sweep->packages[i].folder, path))
            return true;
    return false;
}

/* <owner>/<name>/<version> without a row, and what an upload left behind. */
static void sweep_below(struct sweep *sweep, str path, int depth)
{
    enum { VERSION_DEPTH = 3 };
    DIR *dir = opendir(str_to_cstr(sweep->arena, path));
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        str name = str_from_cstr(entry->d_name);
        if (str_equal(name, S(".")) || str_equal(name, S("..")))
            continue;
        str inner = str_printf(sweep->arena, STR_FMT "/" STR_FMT, STR_ARG(path), STR_ARG(name));
        bool is_leftover = depth == 1 && str_equal(name, S(".incoming"));
        if (is_leftover || depth < VERSION_DEPTH)
            sweep_below(sweep, inner, is_leftover ? VERSION_DEPTH : depth + 1);
        else if (!is_known(sweep, inner)) {
            (void) unlink(str_to_cstr(sweep->arena, inner));
            tool_admin_remove_folder(str_to_cstr(sweep->arena, inner));
        }
    }
    if (dir)
        closedir(dir);
}

/* ---- rows to the registry ---- */

struct registry_package tool_admin_package(struct arena *arena, const struct orchestrator *o,
                                           uuid tenant_id, const struct record *row)
{
    struct registry_package package = {
        .tenant_id = tenant_id,
        .name = record_text(row, TOOL_PACKAGES_NAME),
        .version = record_text(row, TOOL_PACKAGES_VERSION),
        .folder = tool_admin_path(arena, o, record_text(row, TOOL_PACKAGES_FOLDER)),
        .installed_by = record_text(row, TOOL_PACKAGES_INSTALLED_BY),
    };
    (void) digest_parse_hex(record_text(row, TOOL_PACKAGES_SEAL), &package.seal);
    return package;
}

static void read_deprecations(struct arena *arena, str text, struct registry_state *out)
{
    const struct json *json, *value;
    struct error ignored;
    str version;
    if (str_is_empty(text) || !json_parse(arena, text, (struct json_limits){0}, &json, &ignored))
        return;
    struct registry_deprecation *items =
        ARENA_ARRAY(arena, struct registry_deprecation, json_count(json) + 1);
    struct json_iter it = json_iter(json);
    while (json_next(&it, &version, &value)) {
        items[out->deprecation_count].version = version;
        (void) json_to_str(value, &items[out->deprecation_count++].text);
    }
    out->deprecations = items;
}

static void read_tenants(struct arena *arena, str text, struct registry_state *out)
{
    const struct json *json, *value;
    struct error ignored;
    if (str_is_empty(text) || !json_parse(arena, text, (struct json_limits){0}, &json, &ignored))
        return;
    uuid *items = ARENA_ARRAY(arena, uuid, json_count(json) + 1);
    struct json_iter it = json_iter(json);
    while (json_next(&it, NULL, &value)) {
        str id;
        if (json_to_str(value, &id) && uuid_parse(id, &items[out->visible_count]))
            out->visible_count++;
    }
    out->is_limited = true;
    out->visible_to = items;
}

static bool read_permissions(struct arena *arena, str file, str text,
                             const struct permissions **out, struct error *e)
{
    struct yaml_document document;
    struct permissions *permissions = ARENA_NEW(arena, struct permissions);
    if (!yaml_parse(arena, file, text, &document, e) ||
        !permissions_read_narrowing(arena, &document, document.root, permissions, e))
        return false;
    *out = permissions;
    return true;
}

bool tool_admin_state(struct arena *arena, uuid tenant_id, const struct record *row,
                      struct registry_state *out, struct error *e)
{
    *out = (struct registry_state){
        .tenant_id = tenant_id,
        .name = record_text(row, TOOL_STATES_NAME),
        .current = record_text(row, TOOL_STATES_PINNED_VERSION),
        .canary_version = record_text(row, TOOL_STATES_CANARY_VERSION),
        .canary_percent = (int) record_integer(row, TOOL_STATES_CANARY_PERCENT),
        .is_hidden = record_integer(row, TOOL_STATES_IS_HIDDEN) != 0,
    };
    read_deprecations(arena, record_text(row, TOOL_STATES_DEPRECATED), out);
    read_tenants(arena, record_text(row, TOOL_STATES_VISIBLE_TO), out);
    str permissions = record_text(row, TOOL_STATES_PERMISSIONS);
    return str_is_empty(permissions) ||
           read_permissions(arena, S("tool_states"), permissions, &out->permissions, e);
}

/* ---- at start ---- */

struct load {
    struct orchestrator *o;
    struct arena *arena;
    struct registry_package *packages;
    struct registry_state *states;
    size_t package_count, state_count;
};

static bool load_rows(struct load *load, struct context *ctx, enum table table, size_t max,
                      struct error *e)
{
    struct query query = query_of(table);
    size_t count = 0;
    do {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(load->o->parts.store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count && count < max; i++, count++) {
            if (table == TABLE_TOOL_PACKAGES)
                load->packages[load->package_count++] =
                    tool_admin_package(load->arena, load->o, tenants[i], &page.items[i]);
            else if (!tool_admin_state(load->arena, tenants[i], &page.items[i],
                                       &load->states[load->state_count++], e))
                return false;
        }
        query.cursor = page.next_cursor;
    } while (!str_is_empty(query.cursor) && count < max);
    return true;
}

static void add_on_pool(void *argument)
{
    struct load *load = argument;
    struct error ignored;
    struct sweep sweep = {load->arena, tool_admin_path(load->arena, load->o, STR_NONE),
                          load->packages, load->package_count};
    sweep.root = str_slice(sweep.root, 0, sweep.root.len - 1);
    sweep_below(&sweep, sweep.root, 1);
    if (load->package_count > 0 && !registry_add_packages(load->o->parts.registry, load->packages,
                                                          load->package_count, &ignored))
        return; /* listed among the registry's errors */
}

bool tools_load(struct orchestrator *o, struct context *ctx, struct error *e)
{
    enum { LOAD_BYTES_MAX = 256 << 20 };
    if (!o->parts.registry)
        return true; /* the simulation has none */
    OWNED(arena) arena = arena_create(LOAD_BYTES_MAX);
    struct context child;
    context_init_child(&child, ctx, DEADLINE_NONE);
    child.arena = arena;
    struct load load = {.o = o, .arena = arena};
    load.packages = ARENA_ARRAY(arena, struct registry_package, REGISTRY_TOOLS_MAX);
    load.states = ARENA_ARRAY(arena, struct registry_state, REGISTRY_STATES_MAX);
    bool ok = load_rows(&load, &child, TABLE_TOOL_PACKAGES, REGISTRY_TOOLS_MAX, e) &&
              load_rows(&load, &child, TABLE_TOOL_STATES, REGISTRY_STATES_MAX, e) &&
              blocking_call(&child, add_on_pool, &load, e) &&
              (load.state_count == 0 ||
               registry_set_states(o->parts.registry, load.states, load.state_count, true, e));
    context_deinit(&child);
    return ok || error_wrap(e, "installed tools");
}

/* ---- remove ---- */

struct removal {
    const struct principal *principal;
    const struct tool_target *target;
    uuid tenant_id;
};

static bool find_package(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                         const struct tool_target *target, struct record *out, struct error *e)
{
    struct record *key = ARENA_NEW(ctx->arena, struct record);
    *key = record_of(TABLE_TOOL_PACKAGES);
    record_set_text(key, TOOL_PACKAGES_NAME, target->name);
    record_set_text(key, TOOL_PACKAGES_VERSION, target->version);
    if (store_get(o->parts.store, ctx, tenant_id, key, out, e))
        return true;
    return e->code == ERROR_NOT_FOUND
               ? error_set(e, REASON_NOT_FOUND,
                           "no tool \"" STR_FMT "\" " STR_FMT
                           " was installed here (shipped tools are hidden, not removed)",
                           STR_ARG(str_cut_utf8(target->name, 64)),
                           STR_ARG(str_cut_utf8(target->version, 64)))
               : false;
}

/* Its files stay until the next start: calls in flight may not have opened them yet. */
static bool remove_alone(struct orchestrator *o, struct context *ctx, void *argument,
                         struct error *e)
{
    struct removal *removal = argument;
    const struct tool_target *target = removal->target;
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct batch batch;
    if (!find_package(o, ctx, removal->tenant_id, target, row, e))
        return false;
    if (!str_is_empty(target->if_match) &&
        !str_equal(target->if_match, record_text(row, TOOL_PACKAGES_SEAL)))
        return error_set(e, REASON_PRECONDITION, "that is not the package that is installed");
    batch_init(&batch, ctx->arena, removal->tenant_id);
    struct record *write = batch_add(&batch, WRITE_DELETE, TABLE_TOOL_PACKAGES);
    record_set_text(write, TOOL_PACKAGES_NAME, target->name);
    record_set_text(write, TOOL_PACKAGES_VERSION, target->version);
    if (!commit(o, ctx, &batch, removal->principal, "tool.remove", target->name, target->version,
                e))
        return false;
    registry_remove_package(o->parts.registry, removal->tenant_id, target->name, target->version);
    return true;
}

bool tool_remove(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                 const struct tool_target *target, struct error *e)
{
    struct removal *removal = ARENA_NEW(ctx->arena, struct removal);
    *removal = (struct removal){.principal = principal, .target = target};
    return tool_admin_tenant(principal, target->is_platform, &removal->tenant_id, e) &&
           tool_admin_alone(o, ctx, remove_alone, removal, e);
}
