#include "orchestrator/journal/child_table.h"
#include "base/arena.h"
#include "base/map.h"

/* The place of this id, or the free one where it belongs; NULL: there are no places yet. */
static struct child_place *child_place(const struct run_state *state, uuid run_id)
{
    if (state->child_place_count == 0)
        return NULL;
    size_t mask = state->child_place_count - 1;
    size_t i =
        str_hash(str_of((const char *) run_id.bytes, sizeof run_id.bytes), map_seed()) & mask;
    while (!uuid_is_none(state->child_places[i].run_id) &&
           !uuid_equal(state->child_places[i].run_id, run_id))
        i = (i + 1) & mask;
    return &state->child_places[i];
}

struct child *run_state_child(const struct run_state *state, uuid run_id)
{
    const struct child_place *place = uuid_is_none(run_id) ? NULL : child_place(state, run_id);
    return place ? place->child : NULL;
}

size_t run_state_live_children(const struct run_state *state)
{
    return state->child_count;
}

bool child_table_knows(const struct run_state *state, uuid run_id)
{
    const struct child_place *place = child_place(state, run_id);
    return place && !uuid_is_none(place->run_id);
}

/* Room for one more; at most two thirds of the places are taken. */
static void grow_child_places(struct run_state *state)
{
    struct child_place *old = state->child_places;
    size_t count = state->child_place_count;
    if (3 * (state->children_begun + 1) <= 2 * count)
        return;
    state->child_place_count = count ? 2 * count : 16;
    state->child_places = ARENA_ARRAY(state->arena, struct child_place, state->child_place_count);
    memset(state->child_places, 0, state->child_place_count * sizeof *old);
    for (size_t i = 0; i < count; i++)
        if (!uuid_is_none(old[i].run_id))
            *child_place(state, old[i].run_id) = old[i];
}

void child_table_add(struct run_state *state, struct child child)
{
    struct child *added = state->child_free;
    if (added)
        state->child_free = added->next_free;
    else
        added = ARENA_NEW(state->arena, struct child);
    *added = child;
    if (state->child_count == state->child_capacity) {
        size_t capacity = state->child_capacity ? state->child_capacity * 2 : 8;
        state->children = arena_grow(state->arena, state->children,
                                     state->child_capacity * sizeof added, capacity * sizeof added);
        state->child_capacity = capacity;
    }
    state->children[state->child_count++] = added;
    grow_child_places(state);
    *child_place(state, child.run_id) = (struct child_place){child.run_id, added};
    state->children_begun++;
}

void child_table_remove(struct run_state *state, struct child *child)
{
    size_t i = 0;
    while (state->children[i] != child)
        i++;
    memmove(&state->children[i], &state->children[i + 1],
            (state->child_count - i - 1) * sizeof *state->children);
    state->child_count--;
    child_place(state, child->run_id)->child = NULL;
    child->next_free = state->child_free;
    state->child_free = child;
}
