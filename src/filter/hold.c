/*
 * building the automaton of beginnings: positions (Glushkov), then subsets
 *
 * A position is one place of a pattern that takes a byte.  before[p] are the positions that may come right before p; 0 stands for
 * the pattern's start.  A state is the set of positions from which what was read so far (the text's end) can be read; at first that
 * is all of them, because a beginning may end anywhere.
 */
#include "filter/hold_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <stdlib.h>

struct bits {
    uint64_t *words;
};

struct builder {
    struct arena *arena; /* temporary */
    const struct byteset **sets;
    struct bits *before; /* by position */
    size_t count, word_count;
    /* states */
    struct bits *states;
    size_t state_count;
    uint32_t *slots; /* hash table of state + 1 */
    uint16_t *next;
    size_t next_capacity, class_count;
    struct bits *enters_by; /* by class: the positions whose set has it */
};

static struct bits bits_new(struct builder *b)
{
    return (struct bits){ARENA_ARRAY(b->arena, uint64_t, b->word_count)};
}

static void bits_add(struct bits bits, size_t i)
{
    bits.words[i >> 6] |= UINT64_C(1) << (i & 63);
}

static void bits_join(struct builder *b, struct bits into, struct bits from)
{
    for (size_t w = 0; w < b->word_count; w++)
        into.words[w] |= from.words[w];
}

static size_t count_positions(const struct node *node)
{
    size_t sum = node->kind == NODE_BYTES || node->second != NULL;
    for (const struct node *child = node->child; child; child = child->next)
        sum += count_positions(child);
    return sum;
}

struct shape {
    struct bits first, last;
    bool may_be_empty;
};

/* Every position of `to` may follow every one of `from`. */
static void link_all(struct builder *b, struct bits from, struct bits to)
{
    for (size_t w = 0; w < b->word_count; w++)
        for (uint64_t word = to.words[w]; word; word &= word - 1)
            bits_join(b, b->before[w * 64 + (size_t) __builtin_ctzll(word)], from);
}

static void add_position(struct builder *b, const struct byteset *set, struct shape *shape)
{
    b->sets[b->count] = set;
    bits_add(shape->first, b->count);
    bits_add(shape->last, b->count);
    b->count++;
}

static struct shape shape_of(struct builder *b, const struct node *node)
{
    struct shape shape = {bits_new(b), bits_new(b), true}, one;
    switch (node->kind) {
    case NODE_EMPTY: break;
    case NODE_ASSERT: /* while the second byte is not known, the first one waits with the match */
        if (node->second)
            add_position(b, node->set, &shape);
        break;
    case NODE_BYTES:
        add_position(b, node->set, &shape);
        shape.may_be_empty = false;
        break;
    case NODE_SEQUENCE:
        for (const struct node *child = node->child; child; child = child->next) {
            one = shape_of(b, child);
            link_all(b, shape.last, one.first);
            if (shape.may_be_empty)
                bits_join(b, shape.first, one.first);
            if (one.may_be_empty)
                bits_join(b, one.last, shape.last);
            shape.last = one.last;
            shape.may_be_empty = shape.may_be_empty && one.may_be_empty;
        }
        break;
    case NODE_CHOICE:
        shape.may_be_empty = node->child == NULL;
        for (const struct node *child = node->child; child; child = child->next) {
            one = shape_of(b, child);
            bits_join(b, shape.first, one.first);
            bits_join(b, shape.last, one.last);
            shape.may_be_empty = shape.may_be_empty || one.may_be_empty;
        }
        break;
    case NODE_REPEAT:
        shape = shape_of(b, node->child);
        if (node->max == REPEAT_FOREVER || node->max > 1)
            link_all(b, shape.last, shape.first);
        shape.may_be_empty = shape.may_be_empty || node->min == 0;
        break;
    }
    return shape;
}

/* Bytes that no set tells apart are one class. */
static void find_classes(struct builder *b, struct hold *out)
{
    out->class_count = 1;
    for (size_t p = 1; p < b->count; p++) {
        int16_t split[256]; /* by old class: the new one, for those in the set */
        bool is_inside[256] = {0}, is_outside[256] = {0};
        for (unsigned byte = 0; byte < 256; byte++) {
            split[byte] = -1;
            if (byteset_has(b->sets[p], byte))
                is_inside[out->class_of[byte]] = true;
            else
                is_outside[out->class_of[byte]] = true;
        }
        for (unsigned byte = 0; byte < 256; byte++) {
            unsigned old = out->class_of[byte];
            if (!byteset_has(b->sets[p], byte) || !is_inside[old] || !is_outside[old])
                continue;
            if (split[old] < 0)
                split[old] = (int16_t) out->class_count++;
            out->class_of[byte] = (uint8_t) split[old];
        }
    }
    b->class_count = out->class_count;
    b->enters_by = ARENA_ARRAY(b->arena, struct bits, b->class_count);
    for (size_t class = 0; class < b->class_count; class ++)
        b->enters_by[class] = bits_new(b);
    for (unsigned byte = 0; byte < 256; byte++)
        for (size_t p = 1; p < b->count; p++)
            if (byteset_has(b->sets[p], byte))
                bits_add(b->enters_by[out->class_of[byte]], p);
}

static bool is_empty(struct builder *b, struct bits bits)
{
    uint64_t any = 0;
    for (size_t w = 0; w < b->word_count; w++)
        any |= bits.words[w];
    return any == 0;
}

/* The state with this set, a new one if need be.  The set is copied. */
static size_t state_of(struct builder *b, struct bits bits)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t w = 0; w < b->word_count; w++)
        hash = (hash ^ bits.words[w]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
    for (size_t slot = hash % (2 * FILTER_HOLD_STATES_MAX);;
         slot = (slot + 1) % (2 * FILTER_HOLD_STATES_MAX)) {
        size_t state = b->slots[slot];
        if (state == 0) {
            b->states[b->state_count] = bits_new(b);
            memcpy(b->states[b->state_count].words, bits.words, b->word_count * sizeof(uint64_t));
            b->slots[slot] = (uint32_t) b->state_count + 1;
            return b->state_count++;
        }
        if (memcmp(b->states[state - 1].words, bits.words, b->word_count * sizeof(uint64_t)) == 0)
            return state - 1;
    }
}

/* All states that can be reached; false when there are too many. */
static bool explore(struct builder *b)
{
    struct bits target = bits_new(b);
    state_of(b, target); /* HOLD_DEAD: the empty set */
    memset(target.words, 0xff, b->word_count * sizeof(uint64_t));
    state_of(b, target);
    for (size_t state = HOLD_FIRST; state < b->state_count; state++)
        for (size_t class = 0; class < b->class_count; class ++) {
            if (b->state_count >= FILTER_HOLD_STATES_MAX)
                return false;
            memset(target.words, 0, b->word_count * sizeof(uint64_t));
            for (size_t w = 0; w < b->word_count; w++)
                for (uint64_t word = b->states[state].words[w] & b->enters_by[class].words[w]; word;
                     word &= word - 1)
                    bits_join(b, target, b->before[w * 64 + (size_t) __builtin_ctzll(word)]);
            b->next[state * b->class_count + class] =
                is_empty(b, target) ? HOLD_DEAD : (uint16_t) state_of(b, target);
        }
    return true;
}

static void keep(struct builder *b, struct arena *arena, struct hold *out)
{
    size_t cells = b->state_count * b->class_count;
    out->state_count = b->state_count;
    out->next = ARENA_ARRAY(arena, uint16_t, cells);
    memcpy(out->next, b->next, cells * sizeof *out->next);
    out->is_beginning = ARENA_ARRAY(arena, uint8_t, b->state_count);
    for (size_t state = HOLD_FIRST + 1; state < b->state_count; state++)
        out->is_beginning[state] = (uint8_t) (b->states[state].words[0] & 1u);
}

bool hold_create(struct arena *arena, const struct node *const *patterns, size_t count,
                 struct hold *out)
{
    OWNED(arena) scratch = arena_create(SIZE_MAX);
    struct builder b = {.arena = scratch, .count = 1};
    size_t positions = 1;
    for (size_t i = 0; i < count; i++)
        positions += count_positions(patterns[i]);
    b.word_count = (positions + 63) / 64;
    b.sets = ARENA_ARRAY(scratch, const struct byteset *, positions);
    b.before = ARENA_ARRAY(scratch, struct bits, b.word_count * 64);
    for (size_t p = 0; p < b.word_count * 64; p++)
        b.before[p] = bits_new(&b);
    struct bits start = bits_new(&b);
    bits_add(start, 0);
    for (size_t i = 0; i < count; i++)
        link_all(&b, start, shape_of(&b, patterns[i]).first);
    *out = (struct hold){0};
    find_classes(&b, out);
    b.states = ARENA_ARRAY(scratch, struct bits, FILTER_HOLD_STATES_MAX);
    b.slots = ARENA_ARRAY(scratch, uint32_t, (size_t) 2 * FILTER_HOLD_STATES_MAX);
    b.next = ARENA_ARRAY(scratch, uint16_t, FILTER_HOLD_STATES_MAX * b.class_count);
    if (!explore(&b)) {
        *out = (struct hold){0};
        return false;
    }
    keep(&b, arena, out);
    return true;
}
