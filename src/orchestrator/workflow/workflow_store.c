#include "orchestrator/workflow/workflow_store.h"
#include "agent/tool/schema.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"
#include "orchestrator/orchestrator_internal.h"
#include "runtime/loop.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct workflow_entry {
    _Atomic int references;
    struct definition *definition;
    const char *origin; /* of a folder: "configured", "shipped"; NULL: of the table */
    uint64_t used;      /* by the cache: when it was asked for last */
};

const struct definition *workflow_entry_definition(const struct workflow_entry *entry)
{
    return entry->definition;
}

static struct workflow_entry *entry_create(struct definition *give_definition, const char *origin)
{
    struct workflow_entry *entry = calloc(1, sizeof *entry);
    ensure(entry != NULL);
    entry->definition = give_definition;
    entry->origin = origin;
    entry->references = 1;
    return entry;
}

static struct workflow_entry *entry_hold(struct workflow_entry *entry)
{
    atomic_fetch_add(&entry->references, 1);
    return entry;
}

void workflow_entry_release(struct workflow_entry *entry)
{
    if (!entry || atomic_fetch_sub(&entry->references, 1) != 1)
        return;
    definition_destroy(entry->definition);
    free(entry);
}

/* ---- folders ---- */

struct workflow_set {
    struct workflow_entry *items[WORKFLOW_SET_MAX];
    size_t count;
    const char *origin; /* of the folder that is being read */
};

struct workflow_set *workflow_set_create(void)
{
    struct workflow_set *set = calloc(1, sizeof *set);
    ensure(set != NULL);
    return set;
}

void workflow_set_destroy(struct workflow_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->count; i++)
        workflow_entry_release(set->items[i]);
    free(set);
}

size_t workflow_set_count(const struct workflow_set *set)
{
    return set ? set->count : 0;
}

static bool read_file(struct arena *arena, str path, str *out, struct error *e)
{
    struct stat about;
    char *name = str_to_cstr(arena, path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0) {
        if (fd >= 0)
            close(fd);
        return error_set(e, REASON_CONFIG, STR_FMT " cannot be read", STR_ARG(path));
    }
    size_t size = (size_t) about.st_size, done = 0;
    if (size > WORKFLOW_BYTES_MAX) {
        close(fd);
        return error_set(e, REASON_TOO_LARGE, STR_FMT " is over %u bytes", STR_ARG(path),
                         WORKFLOW_BYTES_MAX);
    }
    char *bytes = arena_alloc_raw(arena, size + 1);
    while (done < size) {
        ssize_t got = read(fd, bytes + done, size - done);
        if (got <= 0)
            break;
        done += (size_t) got;
    }
    close(fd);
    *out = str_of(bytes, done);
    return true;
}

static bool set_add(struct workflow_set *set, struct definition *give_definition, struct error *e)
{
    struct workflow_entry *entry = entry_create(give_definition, set->origin);
    for (size_t i = 0; i < set->count; i++) {
        const struct definition *other = set->items[i]->definition;
        if (!str_equal(other->name, give_definition->name) ||
            !str_equal(other->version, give_definition->version))
            continue;
        workflow_entry_release(set->items[i]);
        set->items[i] = entry;
        return true;
    }
    if (set->count == WORKFLOW_SET_MAX) {
        workflow_entry_release(entry);
        return error_set(e, REASON_CONFIG, "more than %u workflows in folders", WORKFLOW_SET_MAX);
    }
    set->items[set->count++] = entry;
    return true;
}

/* What it computes depends on its digest alone: not on the order in which its members were written. */
static bool parse(struct arena *arena, str file, str text, struct definition **out,
                  struct definition_problems *problems, struct error *e)
{
    struct definition *written;
    struct definition_problems none = {0};
    if (!definition_parse(arena, file, text, &written, problems, e))
        return false;
    if (str_equal(written->canonical, text)) {
        *out = written;
        return true;
    }
    bool ok = definition_parse(arena, file, written->canonical, out, &none, e);
    definition_destroy(written);
    return ok;
}

static bool add_file(struct workflow_set *set, str folder, str name, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct definition_problems problems = {0};
    struct definition *definition;
    str text, path = str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(name));
    return read_file(arena, path, &text, e) &&
           parse(arena, path, text, &definition, &problems, e) && set_add(set, definition, e);
}

static bool is_definition_file(str name)
{
    return name.len > 0 && name.ptr[0] != '.' &&
           (str_ends_with(name, S(".yaml")) || str_ends_with(name, S(".yml")) ||
            str_ends_with(name, S(".json")));
}

bool workflow_set_add_folder(struct workflow_set *set, str folder, const char *origin,
                             struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct dirent **names = NULL;
    bool ok = true;
    set->origin = origin;
    int count = scandir(str_to_cstr(arena, folder), &names, NULL, alphasort);
    if (count < 0)
        return error_set(e, REASON_CONFIG, "folder " STR_FMT " cannot be read: %s", STR_ARG(folder),
                         strerror(errno));
    for (int i = 0; i < count; i++) {
        str name = str_from_cstr(names[i]->d_name);
        if (ok && is_definition_file(name))
            ok = add_file(set, folder, name, e);
        free(names[i]);
    }
    free(names);
    return ok;
}

/* ---- the cache ---- */

struct workflow_cache {
    pthread_mutex_t lock;
    struct map *entries; /* by digest */
    uint64_t clock;
};

struct workflow_cache *workflow_cache_create(void)
{
    struct workflow_cache *cache = calloc(1, sizeof *cache);
    ensure(cache != NULL);
    pthread_mutex_init(&cache->lock, NULL);
    cache->entries = map_create();
    return cache;
}

void workflow_cache_destroy(struct workflow_cache *cache)
{
    size_t position = 0;
    void *entry;
    if (!cache)
        return;
    while (map_next(cache->entries, &position, NULL, &entry))
        workflow_entry_release(entry);
    map_destroy(cache->entries);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

static struct workflow_entry *cache_find(struct workflow_cache *cache, str wanted)
{
    pthread_mutex_lock(&cache->lock);
    struct workflow_entry *entry = map_find(cache->entries, wanted);
    if (entry) {
        entry->used = ++cache->clock;
        entry_hold(entry);
    }
    pthread_mutex_unlock(&cache->lock);
    return entry;
}

static void drop_oldest(struct workflow_cache *cache)
{
    size_t position = 0;
    void *value;
    struct workflow_entry *oldest = NULL;
    while (map_next(cache->entries, &position, NULL, &value)) {
        struct workflow_entry *entry = value;
        if (!oldest || entry->used < oldest->used)
            oldest = entry;
    }
    if (oldest)
        workflow_entry_release(map_remove(cache->entries, oldest->definition->digest));
}

/* Takes the definition; gives the entry that counts, held. */
static struct workflow_entry *cache_add(struct workflow_cache *cache,
                                        struct definition *give_definition)
{
    struct workflow_entry *made = entry_create(give_definition, NULL);
    pthread_mutex_lock(&cache->lock);
    struct workflow_entry *entry = map_find(cache->entries, give_definition->digest);
    if (!entry) {
        if (map_count(cache->entries) >= WORKFLOW_CACHE_MAX)
            drop_oldest(cache);
        entry = entry_hold(made);
        map_put(cache->entries, give_definition->digest, entry);
    }
    entry->used = ++cache->clock;
    entry_hold(entry);
    pthread_mutex_unlock(&cache->lock);
    workflow_entry_release(made);
    return entry;
}

/* ---- reading a definition ---- */

struct reading {
    struct arena *arena;
    str text;
    struct definition *definition;
    struct definition_problems problems;
    struct error failure;
    bool is_read;
};

static void read_definition(void *argument)
{
    struct reading *r = argument;
    r->is_read = parse(r->arena, S("workflow"), r->text, &r->definition, &r->problems, &r->failure);
}

static bool compile(struct orchestrator *o, struct context *ctx, str text,
                    struct definition_problems *problems, struct workflow_entry **out,
                    struct error *e)
{
    struct reading *r = ARENA_NEW(ctx->arena, struct reading);
    if (text.len > WORKFLOW_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the definition is over %u bytes",
                         WORKFLOW_BYTES_MAX);
    *r = (struct reading){.arena = ctx->arena, .text = text};
    if (!blocking_call(ctx, read_definition, r, e)) { /* patterns in a schema may take seconds */
        if (r->is_read)
            definition_destroy(r->definition);
        return false;
    }
    if (problems)
        *problems = r->problems;
    if (!r->is_read)
        return error_copy(e, &r->failure);
    *out = cache_add(o->workflows, r->definition);
    return true;
}

/* ---- who has which version ---- */

static bool list_rows(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name,
                      struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_WORKFLOWS);
    if (!str_is_empty(name))
        query_where_text(&query, WORKFLOWS_NAME, name);
    return store_list(o->parts.store, ctx, tenant_id, &query, out, e);
}

struct choice {
    str range;
    str version; /* the best so far */
    bool is_deprecated;
    const struct record *row;
    struct workflow_entry *entry;
};

static void offer(struct choice *best, str version, bool is_deprecated, const struct record *row,
                  struct workflow_entry *entry)
{
    bool is_ranged = !str_is_empty(best->range);
    if ((is_ranged && !semver_satisfies(version, best->range)) || (!is_ranged && is_deprecated))
        return;
    bool is_first = str_is_empty(best->version);
    int order = is_first ? 1 : semver_compare(version, best->version);
    if (!is_first && best->is_deprecated != is_deprecated)
        order = is_deprecated ? -1 : 1;
    if (order <= 0)
        return;
    *best = (struct choice){best->range, version, is_deprecated, row, entry};
}

static void offer_folders(struct choice *best, const struct workflow_set *set, str name)
{
    for (size_t i = 0; set && i < set->count; i++)
        if (str_equal(set->items[i]->definition->name, name))
            offer(best, set->items[i]->definition->version, false, NULL, set->items[i]);
}

const struct definition *workflow_set_find(const struct workflow_set *set, str name, str range)
{
    struct choice best = {.range = range};
    offer_folders(&best, set, name);
    return best.entry ? best.entry->definition : NULL;
}

bool workflow_resolve(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name,
                      str range, struct workflow_entry **out, struct error *e)
{
    struct records rows;
    struct choice best = {.range = range};
    if (!list_rows(o, ctx, tenant_id, name, &rows, e))
        return false;
    for (size_t i = 0; i < rows.count; i++)
        offer(&best, record_text(&rows.items[i], WORKFLOWS_VERSION),
              record_has(&rows.items[i], WORKFLOWS_DEPRECATED), &rows.items[i], NULL);
    const struct settings *settings = orchestrator_acquire(o);
    offer_folders(&best, settings->workflows, name);
    struct workflow_entry *entry = best.entry ? entry_hold(best.entry) : NULL;
    orchestrator_release(settings);
    if (!entry && best.row) {
        entry = cache_find(o->workflows, record_text(best.row, WORKFLOWS_DIGEST));
        if (!entry &&
            !compile(o, ctx, record_text(best.row, WORKFLOWS_DEFINITION), NULL, &entry, e))
            return error_wrap(e, "workflow " STR_FMT, STR_ARG(name));
    }
    if (!entry)
        return error_set(e, REASON_NOT_FOUND, "there is no workflow \"" STR_FMT "%s" STR_FMT "\"",
                         STR_ARG(name), str_is_empty(range) ? "" : "@", STR_ARG(range));
    *out = entry;
    return true;
}

static bool get_row(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name,
                    str version, struct record *row, struct error *e)
{
    struct record key = record_of(TABLE_WORKFLOWS);
    record_set_text(&key, WORKFLOWS_NAME, name);
    record_set_text(&key, WORKFLOWS_VERSION, version);
    return store_get(o->parts.store, ctx, tenant_id, &key, row, e);
}

bool workflow_pinned(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name,
                     str version, str pinned, struct workflow_entry **out, struct error *e)
{
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct workflow_entry *entry = cache_find(o->workflows, pinned);
    if (!entry) {
        if (!get_row(o, ctx, tenant_id, name, version, row, e) ||
            !compile(o, ctx, record_text(row, WORKFLOWS_DEFINITION), NULL, &entry, e))
            return error_wrap(e, "workflow " STR_FMT "@" STR_FMT, STR_ARG(name), STR_ARG(version));
    }
    const struct definition *definition = entry->definition;
    if (!str_equal(definition->digest, pinned) || !str_equal(definition->name, name) ||
        !str_equal(definition->version, version)) {
        workflow_entry_release(entry);
        return error_set(e, REASON_STALE_DIGEST,
                         "workflow " STR_FMT "@" STR_FMT " is not what the run began with",
                         STR_ARG(name), STR_ARG(version));
    }
    *out = entry;
    return true;
}

static void fill_row(struct orchestrator *o, struct arena *arena, struct record *row,
                     const struct definition *definition, str created_by)
{
    record_set_text(row, WORKFLOWS_NAME, str_copy(arena, definition->name));
    record_set_text(row, WORKFLOWS_VERSION, str_copy(arena, definition->version));
    record_set_text(row, WORKFLOWS_DIGEST, str_copy(arena, definition->digest));
    record_set_text(row, WORKFLOWS_DEFINITION, str_copy(arena, definition->canonical));
    record_set_text(row, WORKFLOWS_CREATED_BY, created_by);
    record_set_integer(row, WORKFLOWS_CREATED_AT, clock_unix_us(o->parts.clock));
}

void workflow_pin(struct orchestrator *o, struct arena *arena, struct batch *batch,
                  const struct workflow_entry *entry)
{
    if (!entry->origin)
        return;
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_WORKFLOWS);
    fill_row(o, arena, row, entry->definition, S("system"));
}

bool workflow_check_input(struct context *ctx, const struct definition *definition, str input,
                          struct error *e)
{
    const struct json *tree;
    if (input.len > WORKFLOW_OUTPUT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the input of a workflow is over %u bytes",
                         WORKFLOW_OUTPUT_BYTES_MAX);
    if (!json_parse(ctx->arena, input,
                    (struct json_limits){.depth_max = EXPRESSION_VALUE_DEPTH_MAX}, &tree, e))
        return error_wrap(e, "input");
    return str_is_empty(definition->input_schema) ||
           schema_check(ctx, definition->input_schema, input, "the input", REASON_SCHEMA, e);
}

/* ---- for callers ---- */

static bool insert(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   const struct definition *definition, str source, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_WORKFLOWS);
    fill_row(o, ctx->arena, row, definition, principal->user_id);
    record_set_text(row, WORKFLOWS_SOURCE, source);
    audit_add(
        &batch, o->parts.clock, o->parts.random, principal,
        &(struct audit_entry){
            .action = S("workflow.put"),
            .resource_type = S("workflow"),
            .resource_id = str_printf(ctx->arena, STR_FMT "@" STR_FMT, STR_ARG(definition->name),
                                      STR_ARG(definition->version)),
            .details =
                str_printf(ctx->arena, "{\"digest\":\"" STR_FMT "\"}", STR_ARG(definition->digest)),
        });
    return store_commit(o->parts.store, ctx, &batch, e);
}

/* A version is what it is: the table's, or a folder's. */
static bool check_same(struct orchestrator *o, struct context *ctx,
                       const struct principal *principal, const struct definition *definition,
                       bool *is_there, struct error *e)
{
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct error missing = {0};
    *is_there =
        get_row(o, ctx, principal->tenant_id, definition->name, definition->version, row, &missing);
    if (!*is_there && missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    if (!*is_there || str_equal(record_text(row, WORKFLOWS_DIGEST), definition->digest))
        return true;
    return error_set(e, REASON_CONFLICT,
                     "workflow " STR_FMT "@" STR_FMT " is there already and says something else; "
                     "give the new text a new version",
                     STR_ARG(definition->name), STR_ARG(definition->version));
}

/*
 * A workflow runs with the role of whoever starts it, so nobody but an operator may put words into another's: a name belongs to who put
 * it first, and those of the folders to the operator.
 */
static bool check_owner(struct orchestrator *o, struct context *ctx,
                        const struct principal *principal, str name, struct error *e)
{
    struct records rows;
    if (principal->level >= ROLE_LEVEL_OPERATOR)
        return true;
    if (!list_rows(o, ctx, principal->tenant_id, name, &rows, e))
        return false;
    const struct settings *settings = orchestrator_acquire(o);
    const struct workflow_set *set = settings->workflows;
    bool is_own = true;
    for (size_t i = 0; set && i < set->count; i++)
        is_own = is_own && !str_equal(set->items[i]->definition->name, name);
    orchestrator_release(settings);
    for (size_t i = 0; i < rows.count; i++)
        is_own = is_own &&
                 str_equal(record_text(&rows.items[i], WORKFLOWS_CREATED_BY), principal->user_id);
    return is_own || error_set(e, REASON_DENIED,
                               "workflow \"" STR_FMT "\" is somebody else's; only an operator may "
                               "add a version to it",
                               STR_ARG(name));
}

bool workflow_put(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  str source, struct definition_problems *problems, struct workflow_entry **out,
                  bool *is_new, struct error *e)
{
    struct workflow_entry *entry;
    bool is_there;
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not store workflows");
    if (!compile(o, ctx, source, problems, &entry, e))
        return false;
    struct error clash = {0};
    bool ok = check_owner(o, ctx, principal, entry->definition->name, e) &&
              check_same(o, ctx, principal, entry->definition, &is_there, e);
    if (ok && !is_there && !insert(o, ctx, principal, entry->definition, source, &clash)) {
        /* somebody else has just put one of this version */
        ok = clash.code == ERROR_CONFLICT
                 ? check_same(o, ctx, principal, entry->definition, &is_there, e)
                 : error_copy(e, &clash);
    }
    if (!ok) {
        workflow_entry_release(entry);
        return false;
    }
    *is_new = !is_there;
    *out = entry;
    return true;
}

static int by_name_and_version(const void *a, const void *b)
{
    const struct workflow_row *x = a, *y = b;
    int order = str_compare(x->name, y->name);
    return order != 0 ? order : semver_compare(y->version, x->version);
}

static size_t add_folders(struct orchestrator *o, struct arena *arena, str name,
                          struct workflow_row *rows, size_t count)
{
    const struct settings *settings = orchestrator_acquire(o);
    const struct workflow_set *set = settings->workflows;
    size_t stored = count;
    for (size_t i = 0; set && i < set->count; i++) {
        const struct definition *d = set->items[i]->definition;
        bool is_shown = str_is_empty(name) || str_equal(name, d->name);
        for (size_t k = 0; k < stored && is_shown; k++)
            is_shown = !str_equal(rows[k].name, d->name) || !str_equal(rows[k].version, d->version);
        if (!is_shown)
            continue;
        rows[count++] = (struct workflow_row){
            .name = str_copy(arena, d->name),
            .version = str_copy(arena, d->version),
            .digest = str_copy(arena, d->digest),
            .description = str_copy(arena, d->description),
            .origin = str_from_cstr(set->items[i]->origin),
        };
    }
    orchestrator_release(settings);
    return count;
}

static str description_of(struct arena *arena, str definition)
{
    const struct json *tree;
    struct error ignored;
    return json_parse(arena, definition, (struct json_limits){0}, &tree, &ignored)
               ? json_str_or(tree, S("description"), STR_NONE)
               : STR_NONE;
}

bool workflow_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   str name, struct workflow_row **out, size_t *count, struct error *e)
{
    struct records stored;
    if (!list_rows(o, ctx, principal->tenant_id, name, &stored, e))
        return false;
    struct workflow_row *rows =
        ARENA_ARRAY(ctx->arena, struct workflow_row, stored.count + WORKFLOW_SET_MAX);
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < stored.count; i++) {
        const struct record *row = &stored.items[i];
        rows[n++] = (struct workflow_row){
            .name = record_text(row, WORKFLOWS_NAME),
            .version = record_text(row, WORKFLOWS_VERSION),
            .digest = record_text(row, WORKFLOWS_DIGEST),
            .description = description_of(ctx->arena, record_text(row, WORKFLOWS_DEFINITION)),
            .deprecated = record_text(row, WORKFLOWS_DEPRECATED),
            .origin = S("tenant"),
            .created_us = record_integer(row, WORKFLOWS_CREATED_AT),
        };
    }
    n = add_folders(o, ctx->arena, name, rows, n);
    if (n > 1)
        qsort(rows, n, sizeof *rows, by_name_and_version);
    for (size_t i = 0; i < n; i++)
        if (!str_is_empty(name) || kept == 0 || !str_equal(rows[kept - 1].name, rows[i].name))
            rows[kept++] = rows[i];
    *out = rows;
    *count = kept;
    return true;
}

bool workflow_deprecate(struct orchestrator *o, struct context *ctx,
                        const struct principal *principal, str name, str version, str why,
                        struct error *e)
{
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct batch batch;
    if (principal->level < ROLE_LEVEL_OPERATOR)
        return error_set(e, REASON_DENIED, "deprecating a workflow needs the role operator");
    if (!get_row(o, ctx, principal->tenant_id, name, version, row, e))
        return error_wrap(e, "workflow " STR_FMT "@" STR_FMT, STR_ARG(name), STR_ARG(version));
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *update = batch_add(&batch, WRITE_UPDATE, TABLE_WORKFLOWS);
    record_set_text(update, WORKFLOWS_NAME, name);
    record_set_text(update, WORKFLOWS_VERSION, version);
    if (str_is_empty(why))
        record_set_null(update, WORKFLOWS_DEPRECATED);
    else
        record_set_text(update, WORKFLOWS_DEPRECATED, why);
    audit_add(&batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){.action = S("workflow.deprecate"),
                                    .resource_type = S("workflow"),
                                    .resource_id = str_printf(ctx->arena, STR_FMT "@" STR_FMT,
                                                              STR_ARG(name), STR_ARG(version))});
    return store_commit(o->parts.store, ctx, &batch, e);
}
