#include "agent/tool/registry_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include <pthread.h>
#include <stdlib.h>

enum { SNAPSHOT_BYTES_MAX = 512 << 20 };

struct registry {
    struct arena *arena;
    str tool_dir;
    pthread_mutex_t reading; /* one reload at a time */
    pthread_mutex_t
        changing; /* guards what a snapshot is made of; never held while files are read */
    struct configuration *configuration;
    struct state_set *states;
    struct registry_part *folder;
    struct registry_part **parts; /* packages and sources; malloc */
    size_t part_count, part_capacity;
    pthread_mutex_t mutex; /* guards the pointer below; held for a few instructions */
    struct registry_snapshot *current;
};

/* ---- a snapshot of what there is ---- */

static void add_error(struct registry_snapshot *snapshot, str text)
{
    if (snapshot->error_count < REGISTRY_ERRORS_MAX)
        snapshot->errors[snapshot->error_count++] = str_copy(snapshot->arena, text);
}

static void snapshot_destroy(struct registry_snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->part_count; i++)
        part_release(snapshot->parts[i]);
    configuration_release(snapshot->configuration);
    state_set_release(snapshot->states);
    arena_destroy(snapshot->arena);
    free(snapshot);
}

static void deprecate(const struct state_set *states, struct tool *tool)
{
    const struct registry_state *state = state_set_find(states, tool->tenant_id, tool->name);
    for (size_t i = 0; state && i < state->deprecation_count; i++)
        if (str_equal(state->deprecations[i].version, tool->version)) {
            tool->is_deprecated = true;
            tool->deprecation = state->deprecations[i].text;
        }
}

/* What nobody whom the operator trusts has signed is not believed about itself (labels.h). */
static void distrust(struct tool *tool)
{
    tool->is_output_trusted = false;
    tool->is_output_public = false;
    tool->is_sink = tool->is_sink || tool_has_effect(tool) || tool->permissions.network.is_set ||
                    tool_may_call(tool, S("http_request"));
}

/* A tool as it counts under this configuration. */
static void add_entry(struct registry_snapshot *snapshot, const struct registry_part *part,
                      const struct part_tool *from)
{
    const struct configuration *configuration = snapshot->configuration;
    str signer = from->is_signed ? configuration_signer(configuration, from->public_key) : STR_NONE;
    if (part->kind == PART_OF_PACKAGE && configuration->needs_signature && str_is_empty(signer)) {
        add_error(snapshot, str_printf(snapshot->arena,
                                       "tool " STR_FMT " " STR_FMT
                                       " is not signed by a trusted key (tools.require_signature)",
                                       STR_ARG(from->tool.name), STR_ARG(from->tool.version)));
        return;
    }
    struct entry *entry = &snapshot->entries[snapshot->count++];
    *entry = (struct entry){.tool = from->tool,
                            .from = from,
                            .configured = configuration_find(configuration, from->tool.name)};
    entry->tool.signer = signer;
    if (entry->configured) {
        entry->tool.notebooks = entry->configured->notebooks;
        entry->tool.approval = entry->configured->approval;
    }
    struct permission_levels levels = {{&from->tool.permissions}};
    if (entry->configured && entry->configured->has_permissions)
        levels.at[PERMISSION_CONFIGURATION] = &entry->configured->permissions;
    entry->tool.permissions = permissions_effective(snapshot->arena, &levels, NULL);
    if (part->kind == PART_OF_PACKAGE && str_is_empty(signer))
        distrust(&entry->tool);
    deprecate(snapshot->states, &entry->tool);
}

static int by_name_newest_first(const void *a, const void *b)
{
    const struct tool *x = &((const struct entry *) a)->tool,
                      *y = &((const struct entry *) b)->tool;
    int order = str_compare(x->name, y->name);
    if (order == 0)
        order = semver_compare(y->version, x->version);
    if (order == 0)
        order = uuid_compare(x->tenant_id, y->tenant_id);
    return order != 0 ? order : (int) x->source - (int) y->source;
}

/* Of two with the same name, version and owner the first counts: what ships before what was installed. */
static void drop_doubles(struct registry_snapshot *snapshot)
{
    size_t kept = 0;
    for (size_t i = 0; i < snapshot->count; i++) {
        const struct tool *tool = &snapshot->entries[i].tool,
                          *before = kept > 0 ? &snapshot->entries[kept - 1].tool : NULL;
        if (before && str_equal(before->name, tool->name) &&
            uuid_equal(before->tenant_id, tool->tenant_id) &&
            semver_compare(before->version, tool->version) == 0)
            add_error(snapshot,
                      str_printf(snapshot->arena,
                                 "tool " STR_FMT " " STR_FMT " is there twice; one was left out",
                                 STR_ARG(tool->name), STR_ARG(tool->version)));
        else
            snapshot->entries[kept++] = snapshot->entries[i];
    }
    snapshot->count = kept;
}

static void take_part(struct registry_snapshot *snapshot, struct registry_part *part)
{
    atomic_fetch_add(&part->references, 1);
    snapshot->parts[snapshot->part_count++] = part;
    for (size_t i = 0; i < part->error_count; i++)
        add_error(snapshot, part->errors[i]);
    for (size_t i = 0; i < part->count; i++)
        add_entry(snapshot, part, &part->tools[i]);
}

static size_t count_tools(const struct registry *registry)
{
    size_t count = registry->folder ? registry->folder->count : 0;
    for (size_t i = 0; i < registry->part_count; i++)
        count += registry->parts[i]->count;
    return count;
}

/* Under `changing`. */
static void publish(struct registry *registry)
{
    struct registry_snapshot *snapshot = calloc(1, sizeof *snapshot);
    ensure(snapshot != NULL);
    atomic_init(&snapshot->references, 1);
    snapshot->arena = arena_create(SNAPSHOT_BYTES_MAX);
    snapshot->configuration = registry->configuration;
    atomic_fetch_add(&registry->configuration->references, 1);
    snapshot->states = registry->states;
    atomic_fetch_add(&registry->states->references, 1);
    snapshot->entries = ARENA_ARRAY(snapshot->arena, struct entry, count_tools(registry) + 1);
    snapshot->parts =
        ARENA_ARRAY(snapshot->arena, struct registry_part *, registry->part_count + 1);
    snapshot->errors = ARENA_ARRAY(snapshot->arena, str, REGISTRY_ERRORS_MAX);
    if (registry->folder)
        take_part(snapshot, registry->folder);
    for (size_t i = 0; i < registry->part_count; i++)
        take_part(snapshot, registry->parts[i]);
    qsort(snapshot->entries, snapshot->count, sizeof *snapshot->entries, by_name_newest_first);
    drop_doubles(snapshot);

    pthread_mutex_lock(&registry->mutex);
    struct registry_snapshot *old = registry->current;
    registry->current = snapshot;
    pthread_mutex_unlock(&registry->mutex);
    if (old)
        registry_release(old);
}

/* ---- the list of parts; under `changing` ---- */

static void append_part(struct registry *registry, struct registry_part *give_part)
{
    if (registry->part_count == registry->part_capacity) {
        registry->part_capacity = registry->part_capacity ? 2 * registry->part_capacity : 16;
        registry->parts =
            realloc(registry->parts, registry->part_capacity * sizeof *registry->parts);
        ensure(registry->parts != NULL);
    }
    registry->parts[registry->part_count++] = give_part;
}

static void drop_part(struct registry *registry, size_t index)
{
    part_release(registry->parts[index]);
    registry->parts[index] = registry->parts[--registry->part_count];
}

static void drop_package(struct registry *registry, uuid tenant_id, str name, str version)
{
    for (size_t i = 0; i < registry->part_count; i++) {
        const struct registry_part *part = registry->parts[i];
        if (part->kind == PART_OF_PACKAGE && uuid_equal(part->tenant_id, tenant_id) &&
            str_equal(part->name, name) && str_equal(part->version, version)) {
            drop_part(registry, i);
            return;
        }
    }
}

static void drop_source(struct registry *registry, str source_name)
{
    for (size_t i = 0; i < registry->part_count; i++)
        if (registry->parts[i]->kind == PART_OF_SOURCE &&
            str_equal(registry->parts[i]->source_name, source_name)) {
            drop_part(registry, i);
            return;
        }
}

/* ---- life ---- */

bool registry_create(const struct registry_options *options, struct registry **out, struct error *e)
{
    struct registry *registry = calloc(1, sizeof *registry);
    ensure(registry != NULL);
    pthread_mutex_init(&registry->reading, NULL);
    pthread_mutex_init(&registry->changing, NULL);
    pthread_mutex_init(&registry->mutex, NULL);
    registry->arena = arena_create(0);
    registry->states = state_set_create();
    registry->tool_dir = str_copy(registry->arena, options->tool_dir);
    if (!registry_reconfigure(registry, options->tool_config, e)) {
        registry_destroy(registry);
        return false;
    }
    *out = registry;
    return true;
}

void registry_destroy(struct registry *registry)
{
    if (!registry)
        return;
    if (registry->current)
        registry_release(registry->current);
    for (size_t i = 0; i < registry->part_count; i++)
        part_release(registry->parts[i]);
    free(registry->parts);
    part_release(registry->folder);
    state_set_release(registry->states);
    configuration_release(registry->configuration);
    pthread_mutex_destroy(&registry->mutex);
    pthread_mutex_destroy(&registry->changing);
    pthread_mutex_destroy(&registry->reading);
    arena_destroy(registry->arena);
    free(registry);
}

/* Reads the folder anew; `give_fresh` may be NULL: the configuration stays. */
static bool load(struct registry *registry, struct configuration *give_fresh, struct error *e)
{
    struct registry_part *folder;
    pthread_mutex_lock(&registry->reading);
    bool is_read = part_read_folder(registry->tool_dir, &folder, e);
    if (is_read) {
        pthread_mutex_lock(&registry->changing);
        struct registry_part *old = registry->folder;
        struct configuration *past = give_fresh ? registry->configuration : NULL;
        registry->folder = folder;
        if (give_fresh)
            registry->configuration = give_fresh;
        publish(registry);
        pthread_mutex_unlock(&registry->changing);
        part_release(old);
        configuration_release(past);
    }
    pthread_mutex_unlock(&registry->reading);
    if (!is_read)
        configuration_release(give_fresh);
    return is_read;
}

bool registry_reload(struct registry *registry, struct error *e)
{
    return load(registry, NULL, e);
}

bool registry_reconfigure(struct registry *registry, const struct yaml_document *tool_config,
                          struct error *e)
{
    struct configuration *fresh;
    return configuration_read(tool_config, &fresh, e) && load(registry, fresh, e);
}

const struct registry_snapshot *registry_acquire(struct registry *registry)
{
    pthread_mutex_lock(&registry->mutex);
    struct registry_snapshot *snapshot = registry->current;
    atomic_fetch_add(&snapshot->references, 1);
    pthread_mutex_unlock(&registry->mutex);
    return snapshot;
}

void registry_release(const struct registry_snapshot *snapshot)
{
    struct registry_snapshot *mine =
        (struct registry_snapshot *) (uintptr_t) snapshot; /* only the count changes */
    if (atomic_fetch_sub(&mine->references, 1) == 1)
        snapshot_destroy(mine);
}

size_t registry_count(const struct registry_snapshot *snapshot)
{
    return snapshot->count;
}

const struct tool *registry_at(const struct registry_snapshot *snapshot, size_t index)
{
    return index < snapshot->count ? &snapshot->entries[index].tool : NULL;
}

size_t registry_error_count(const struct registry_snapshot *snapshot)
{
    return snapshot->error_count;
}

str registry_error_at(const struct registry_snapshot *snapshot, size_t index)
{
    return index < snapshot->error_count ? snapshot->errors[index] : STR_NONE;
}

/* ---- packages ---- */

bool registry_check_signature(struct registry *registry, struct arena *arena, str signature,
                              digest seal, str *signer, struct error *e)
{
    struct package_signature read;
    bool is_signed = !str_is_empty(signature);
    if (is_signed && !package_verify(signature, seal, &read, e))
        return false;
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    const struct configuration *configuration = snapshot->configuration;
    bool needs_one = configuration->needs_signature;
    *signer = is_signed ? str_copy(arena, configuration_signer(configuration, read.public_key))
                        : STR_NONE;
    registry_release(snapshot);
    if (!needs_one || !str_is_empty(*signer))
        return true;
    if (!is_signed)
        return error_set(e, REASON_DENIED,
                         "the package is not signed, and tools.require_signature is on; sign it "
                         "with `nexus tool sign`");
    return error_set(
        e, REASON_DENIED,
        "the package is signed by a key that is not among tools.trusted_keys: " STR_FMT,
        STR_ARG(str_hex(arena, read.public_key, sizeof read.public_key)));
}

bool registry_add_packages(struct registry *registry, const struct registry_package *packages,
                           size_t count, struct error *e)
{
    struct registry_part **read = calloc(count + 1, sizeof *read);
    ensure(read != NULL);
    for (size_t i = 0; i < count; i++)
        read[i] = part_read_package(&packages[i]);
    if (count == 1 && read[0]->error_count > 0) {
        error_set(e, REASON_INVALID, STR_FMT, STR_ARG(read[0]->errors[0]));
        part_release(read[0]);
        free(read);
        return false;
    }
    bool is_ok = true;
    pthread_mutex_lock(&registry->changing);
    for (size_t i = 0; i < count; i++)
        drop_package(registry, packages[i].tenant_id, packages[i].name, packages[i].version);
    size_t total = count_tools(registry);
    for (size_t i = 0; i < count; i++) {
        if (total + read[i]->count <= REGISTRY_TOOLS_MAX) {
            total += read[i]->count;
            append_part(registry, read[i]);
            continue;
        }
        part_release(read[i]);
        is_ok = error_set(e, REASON_LIMIT, "there are %u tools already: remove some",
                          REGISTRY_TOOLS_MAX);
    }
    publish(registry);
    pthread_mutex_unlock(&registry->changing);
    free(read);
    return is_ok;
}

void registry_remove_package(struct registry *registry, uuid tenant_id, str name, str version)
{
    pthread_mutex_lock(&registry->changing);
    drop_package(registry, tenant_id, name, version);
    publish(registry);
    pthread_mutex_unlock(&registry->changing);
}

/* ---- dynamic sources ---- */

static bool is_taken(const struct registry *registry, const struct tool *tool, str source_name)
{
    const struct registry_part *folder = registry->folder;
    for (size_t i = 0; i < folder->count; i++)
        if (str_equal(folder->tools[i].tool.name, tool->name))
            return true;
    for (size_t i = 0; i < registry->part_count; i++) {
        const struct registry_part *part = registry->parts[i];
        bool is_same = part->kind == PART_OF_SOURCE && str_equal(part->source_name, source_name);
        for (size_t j = 0; j < part->count && !is_same; j++)
            if (str_equal(part->tools[j].tool.name, tool->name) &&
                uuid_equal(part->tools[j].tool.tenant_id, tool->tenant_id))
                return true;
    }
    return false;
}

static struct registry_part *copy_source(str source_name, const struct tool *tools, size_t count)
{
    struct registry_part *part = part_create(PART_OF_SOURCE, count);
    part->source_name = str_copy(part->arena, source_name);
    for (size_t i = 0; i < count; i++) {
        struct part_tool *to = &part->tools[part->count++];
        tool_copy(part->arena, &to->tool, &tools[i]);
        to->document = search_document_of(part->arena, &to->tool);
    }
    return part;
}

bool registry_set_source(struct registry *registry, str source_name, const struct tool *tools,
                         size_t count, struct error *e)
{
    if (count > REGISTRY_TOOLS_MAX)
        return error_set(e, REASON_LIMIT, STR_FMT " has more than %u tools", STR_ARG(source_name),
                         REGISTRY_TOOLS_MAX);
    struct registry_part *part = count > 0 ? copy_source(source_name, tools, count) : NULL;
    bool is_ok = true;
    pthread_mutex_lock(&registry->changing);
    for (size_t i = 0; i < count && is_ok; i++)
        if (is_taken(registry, &tools[i], source_name))
            is_ok = error_set(e, REASON_CONFLICT,
                              "a tool " STR_FMT " is there already, from elsewhere than " STR_FMT,
                              STR_ARG(tools[i].name), STR_ARG(source_name));
    if (is_ok && count_tools(registry) + count > REGISTRY_TOOLS_MAX)
        is_ok = error_set(e, REASON_LIMIT, "with the tools of " STR_FMT " there are more than %u",
                          STR_ARG(source_name), REGISTRY_TOOLS_MAX);
    if (is_ok) {
        drop_source(registry, source_name);
        if (part)
            append_part(registry, part);
        publish(registry);
    }
    pthread_mutex_unlock(&registry->changing);
    if (!is_ok)
        part_release(part);
    return is_ok;
}

/* ---- states ---- */

bool registry_set_states(struct registry *registry, const struct registry_state *states,
                         size_t count, bool is_all, struct error *e)
{
    struct state_set *fresh;
    pthread_mutex_lock(&registry->changing);
    bool is_ok = state_set_with(registry->states, states, count, is_all, &fresh, e);
    if (is_ok) {
        struct state_set *old = registry->states;
        registry->states = fresh;
        publish(registry);
        state_set_release(old);
    }
    pthread_mutex_unlock(&registry->changing);
    return is_ok;
}
