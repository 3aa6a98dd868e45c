/* Which tool is meant, by whom, and what it may touch for them. */
#include "agent/tool/registry_internal.h"
#include "base/arena.h"

void snapshot_range(const struct registry_snapshot *snapshot, str name, size_t *first, size_t *end)
{
    size_t from = 0, to = snapshot->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (str_compare(snapshot->entries[middle].tool.name, name) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    *first = *end = from;
    while (*end < snapshot->count && str_equal(snapshot->entries[*end].tool.name, name))
        ++*end;
}

const struct tool *registry_find(const struct registry_snapshot *snapshot, str name, str range)
{
    size_t first, end;
    snapshot_range(snapshot, name, &first, &end);
    for (size_t i = first; i < end; i++) {
        const struct tool *tool = &snapshot->entries[i].tool;
        if (uuid_is_none(tool->tenant_id) && semver_satisfies(tool->version, range))
            return tool;
    }
    return NULL;
}

const struct entry *entry_of(const struct registry_snapshot *snapshot, const struct tool *tool)
{
    size_t first, end;
    snapshot_range(snapshot, tool->name, &first, &end);
    for (size_t i = first; i < end; i++) {
        const struct entry *entry = &snapshot->entries[i];
        if (str_equal(entry->tool.version, tool->version) &&
            uuid_equal(entry->tool.tenant_id, tool->tenant_id))
            return entry;
    }
    return NULL;
}

/* ---- who sees what ---- */

bool registry_is_visible(const struct tool *tool, uuid tenant_id)
{
    return uuid_is_none(tool->tenant_id) || uuid_equal(tool->tenant_id, tenant_id);
}

static bool is_shown_to(const struct registry_state *state, uuid tenant_id)
{
    if (!state)
        return true;
    for (size_t i = 0; i < state->visible_count && state->is_limited; i++)
        if (uuid_equal(state->visible_to[i], tenant_id))
            return !state->is_hidden;
    return !state->is_hidden && !state->is_limited;
}

bool registry_shows(const struct registry_snapshot *snapshot, const struct tool *tool,
                    uuid tenant_id)
{
    if (!registry_is_visible(tool, tenant_id))
        return false;
    const struct registry_state *own = state_set_find(snapshot->states, tenant_id, tool->name);
    if (own && own->is_hidden)
        return false;
    return !uuid_is_none(tool->tenant_id) ||
           is_shown_to(state_set_find(snapshot->states, UUID_NONE, tool->name), tenant_id);
}

/* ---- the channel ---- */

/* The entries of one name that one tenant may have: the platform's, or when it sees none, its own. */
struct choice {
    const struct registry_snapshot *snapshot;
    size_t first, end;
    uuid owner;
    const struct registry_question *question;
};

static const struct tool *at(const struct choice *c, size_t index)
{
    const struct tool *tool = &c->snapshot->entries[index].tool;
    return uuid_equal(tool->tenant_id, c->owner) ? tool : NULL;
}

static const struct tool *exactly(const struct choice *c, str version)
{
    for (size_t i = c->first; i < c->end && !str_is_empty(version); i++) {
        const struct tool *tool = at(c, i);
        if (tool && str_equal(tool->version, version))
            return tool;
    }
    return NULL;
}

/* The newest that fits; deprecated ones and the canary last. */
static const struct tool *newest(const struct choice *c, str range, str canary)
{
    const struct tool *second = NULL;
    for (size_t i = c->first; i < c->end; i++) {
        const struct tool *tool = at(c, i);
        if (!tool || !semver_satisfies(tool->version, range))
            continue;
        if (!tool->is_deprecated && !str_equal(tool->version, canary))
            return tool;
        if (!second || (second->is_deprecated && !tool->is_deprecated))
            second = tool;
    }
    return second;
}

static bool falls_into(const struct registry_question *question, int percent)
{
    OWNED(arena) arena = arena_create(0);
    str key = str_printf(arena, STR_FMT "|" STR_FMT, STR_ARG(uuid_str(arena, question->canary_key)),
                         STR_ARG(question->name));
    digest hash = digest_sha256(key); /* the same on every node and after every start */
    unsigned part = (unsigned) hash.bytes[0] << 16 | (unsigned) hash.bytes[1] << 8 | hash.bytes[2];
    return (int) (part % 100) < percent;
}

static const struct tool *by_channel(const struct choice *c)
{
    const struct registry_question *question = c->question;
    const struct registry_state *states[] = {
        uuid_is_none(question->tenant_id)
            ? NULL
            : state_set_find(c->snapshot->states, question->tenant_id, question->name),
        state_set_find(c->snapshot->states, UUID_NONE, question->name)};
    const struct configured_tool *configured = c->snapshot->entries[c->first].configured;
    str canary = STR_NONE, pinned = STR_NONE;
    int percent = 0;
    for (size_t i = 0; i < ARRAY_COUNT(states); i++) {
        if (states[i] && str_is_empty(canary)) {
            canary = states[i]->canary_version;
            percent = states[i]->canary_percent;
        }
        if (states[i] && str_is_empty(pinned))
            pinned = states[i]->current;
    }
    if (configured && str_is_empty(canary)) {
        canary = configured->canary_version;
        percent = configured->canary_percent;
    }
    const struct tool *tool = exactly(c, canary);
    if (tool && percent > 0 && falls_into(question, percent))
        return tool;
    tool = exactly(c, pinned);
    if (!tool && configured && !str_is_empty(configured->version))
        tool = newest(c, configured->version, canary);
    return tool ? tool : newest(c, STR_NONE, canary);
}

const struct tool *resolve_in(const struct registry_snapshot *snapshot, size_t first, size_t end,
                              const struct registry_question *question)
{
    struct choice c = {snapshot, first, end, UUID_NONE, question};
    bool has_any = false;
    for (size_t i = first; i < end && !has_any;
         i++) { /* the platform's stand before a tenant's only at one version */
        const struct tool *tool = &snapshot->entries[i].tool;
        has_any =
            uuid_is_none(tool->tenant_id) && registry_shows(snapshot, tool, question->tenant_id);
    }
    for (size_t i = first; i < end && !has_any; i++) {
        const struct tool *tool = &snapshot->entries[i].tool;
        has_any =
            !uuid_is_none(tool->tenant_id) && registry_shows(snapshot, tool, question->tenant_id);
        c.owner = has_any ? tool->tenant_id : c.owner;
    }
    if (!has_any)
        return NULL;
    return str_is_empty(str_trim(question->range)) ? by_channel(&c)
                                                   : newest(&c, question->range, STR_NONE);
}

const struct tool *registry_resolve(const struct registry_snapshot *snapshot,
                                    const struct registry_question *question)
{
    size_t first, end;
    snapshot_range(snapshot, question->name, &first, &end);
    return first == end ? NULL : resolve_in(snapshot, first, end, question);
}

bool registry_next_name(const struct registry_snapshot *snapshot, uuid tenant_id, size_t *index,
                        str *name)
{
    while (*index < snapshot->count) {
        size_t i = *index;
        str here = snapshot->entries[i].tool.name;
        bool is_shown = false;
        for (; i < snapshot->count && str_equal(snapshot->entries[i].tool.name, here); i++)
            is_shown = is_shown || registry_shows(snapshot, &snapshot->entries[i].tool, tenant_id);
        *index = i;
        *name = here;
        if (is_shown)
            return true;
    }
    return false;
}

/* ---- permissions ---- */

const struct registry_state *registry_state(const struct registry_snapshot *snapshot,
                                            uuid tenant_id, str name)
{
    return state_set_find(snapshot->states, tenant_id, name);
}

static const struct permissions *of_tenant(const struct registry_snapshot *snapshot,
                                           const struct tool *tool, uuid tenant_id)
{
    const struct registry_state *state =
        uuid_is_none(tenant_id) ? NULL : state_set_find(snapshot->states, tenant_id, tool->name);
    return state ? state->permissions : NULL;
}

struct permission_levels registry_levels(const struct registry_snapshot *snapshot,
                                         const struct tool *tool, uuid tenant_id,
                                         const struct permissions *agent)
{
    const struct entry *entry = entry_of(snapshot, tool);
    struct permission_levels levels = {{&tool->permissions, NULL, NULL, agent}};
    levels.at[PERMISSION_TENANT] = of_tenant(snapshot, tool, tenant_id);
    if (!entry)
        return levels;
    levels.at[PERMISSION_MANIFEST] = &entry->from->tool.permissions;
    if (entry->configured && entry->configured->has_permissions)
        levels.at[PERMISSION_CONFIGURATION] = &entry->configured->permissions;
    return levels;
}

const struct tool *registry_effective(const struct registry_snapshot *snapshot, struct arena *arena,
                                      const struct tool *tool, uuid tenant_id,
                                      const struct permissions *agent)
{
    const struct permissions *tenant = of_tenant(snapshot, tool, tenant_id);
    if (!tenant && !agent)
        return tool;
    struct tool *copy = ARENA_NEW(arena, struct tool);
    *copy = *tool;
    /* A tool that opens files by paths and was granted none must not gain some by being narrowed. */
    if (!copy->permissions.paths.is_set && tool_may_call(tool, S("file_system"))) {
        static str nothing;
        copy->permissions.paths.is_set = true;
        copy->permissions.paths.read = copy->permissions.paths.write =
            copy->permissions.paths.execute = (struct str_list){&nothing, 0};
    }
    if (tenant)
        copy->permissions = permissions_narrow(arena, &copy->permissions, tenant);
    if (agent)
        copy->permissions = permissions_narrow(arena, &copy->permissions, agent);
    return copy;
}
