/* What people decided about tools: an immutable set, copied when one changes. */
#include "agent/tool/registry_internal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include <stdlib.h>

enum { STATES_BYTES_MAX = 256 << 20 };

struct state_set *state_set_create(void)
{
    struct state_set *set = calloc(1, sizeof *set);
    ensure(set != NULL);
    set->arena = arena_create(STATES_BYTES_MAX);
    atomic_init(&set->references, 1);
    return set;
}

void state_set_release(struct state_set *set)
{
    if (!set || atomic_fetch_sub(&set->references, 1) != 1)
        return;
    arena_destroy(set->arena);
    free(set);
}

static int compare_key(const struct registry_state *state, uuid tenant_id, str name)
{
    int order = uuid_compare(state->tenant_id, tenant_id);
    return order != 0 ? order : str_compare(state->name, name);
}

static int by_key(const void *a, const void *b)
{
    const struct registry_state *x = a, *y = b;
    return compare_key(x, y->tenant_id, y->name);
}

static void copy_state(struct arena *arena, struct registry_state *to,
                       const struct registry_state *from)
{
    *to = *from;
    to->name = str_copy(arena, from->name);
    to->current = str_copy(arena, from->current);
    to->canary_version = str_copy(arena, from->canary_version);
    uuid *tenants = ARENA_ARRAY(arena, uuid, from->visible_count + 1);
    for (size_t i = 0; i < from->visible_count; i++)
        tenants[i] = from->visible_to[i];
    to->visible_to = tenants;
    struct registry_deprecation *deprecations =
        ARENA_ARRAY(arena, struct registry_deprecation, from->deprecation_count + 1);
    for (size_t i = 0; i < from->deprecation_count; i++)
        deprecations[i] =
            (struct registry_deprecation){str_copy(arena, from->deprecations[i].version),
                                          str_copy(arena, from->deprecations[i].text)};
    to->deprecations = deprecations;
    if (!from->permissions)
        return;
    struct permissions *permissions = ARENA_NEW(arena, struct permissions);
    permissions_copy(arena, permissions, from->permissions);
    to->permissions = permissions;
}

static bool is_replaced(const struct registry_state *old, const struct registry_state *states,
                        size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (compare_key(old, states[i].tenant_id, states[i].name) == 0)
            return true;
    return false;
}

bool state_set_with(const struct state_set *old, const struct registry_state *states, size_t count,
                    bool is_all, struct state_set **out, struct error *e)
{
    size_t kept = is_all ? 0 : old->count;
    if (kept + count > REGISTRY_STATES_MAX)
        return error_set(e, REASON_LIMIT, "decisions about more than %u tools",
                         REGISTRY_STATES_MAX);
    struct state_set *set = state_set_create();
    set->items = ARENA_ARRAY(set->arena, struct registry_state, kept + count + 1);
    for (size_t i = 0; i < kept; i++)
        if (!is_replaced(&old->items[i], states, count))
            copy_state(set->arena, &set->items[set->count++], &old->items[i]);
    for (size_t i = 0; i < count; i++)
        copy_state(set->arena, &set->items[set->count++], &states[i]);
    qsort(set->items, set->count, sizeof *set->items, by_key);
    *out = set;
    return true;
}

const struct registry_state *state_set_find(const struct state_set *set, uuid tenant_id, str name)
{
    size_t from = 0, to = set->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = compare_key(&set->items[middle], tenant_id, name);
        if (order == 0)
            return &set->items[middle];
        if (order < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}
