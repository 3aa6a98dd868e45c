/*
 * Regular expressions: tree to program, and the search.
 *
 * A program is an automaton written down: CHARACTER goes on to the next instruction when the character fits, SPLIT goes on at two places,
 * PLACE goes on when the place between two characters is such a one.  The search holds the set of places ("threads") that some way
 * through the text so far leads to; a set, so no way is followed twice however many lead there (Thompson, 1968).
 */
#include "workflow/regex.h"
#include "base/arena.h"
#include "base/limits.h"
#include "workflow/regex_internal.h"

enum op { OP_CHARACTER, OP_SPLIT, OP_JUMP, OP_PLACE, OP_MATCH };
struct instruction {
    enum op op;
    uint32_t first, second;       /* OP_SPLIT: both; OP_JUMP: first */
    const struct regex_node *set; /* OP_CHARACTER */
    enum regex_place place;
};
struct regex {
    struct instruction *code;
    uint32_t count;
};

/* ---- tree to program ---- */

struct writer {
    struct arena *arena;
    struct instruction *code;
    uint32_t count, capacity;
    uint32_t
        visits_left; /* of nodes: repetitions of nothing write nothing, and take time all the same */
    struct error *e;
};

static bool write_node(struct writer *w, const struct regex_node *node);

static bool too_large(struct writer *w)
{
    return error_set(w->e, REASON_EXPRESSION,
                     "the pattern, its repetitions written out, has more than %u parts",
                     REGEX_CODE_MAX);
}

static bool emit(struct writer *w, struct instruction instruction, uint32_t *index)
{
    if (w->count == REGEX_CODE_MAX)
        return too_large(w);
    if (w->count == w->capacity) {
        uint32_t capacity = w->capacity ? w->capacity * 2 : 16;
        w->code = arena_grow(w->arena, w->code, w->capacity * sizeof *w->code,
                             capacity * sizeof *w->code);
        w->capacity = capacity;
    }
    *index = w->count;
    w->code[w->count++] = instruction;
    return true;
}

static bool write_choice(struct writer *w, const struct regex_node *node)
{
    uint32_t split, jump,
        last = REGEX_CODE_MAX; /* of the jumps to the end, each names the one before */
    const struct regex_node *child = node->child;
    for (; child->next; child = child->next) {
        if (!emit(w, (struct instruction){.op = OP_SPLIT}, &split))
            return false;
        w->code[split].first = w->count;
        if (!write_node(w, child) ||
            !emit(w, (struct instruction){.op = OP_JUMP, .first = last}, &jump))
            return false;
        last = jump;
        w->code[split].second = w->count;
    }
    if (!write_node(w, child))
        return false;
    while (last != REGEX_CODE_MAX) {
        uint32_t before = w->code[last].first;
        w->code[last].first = w->count;
        last = before;
    }
    return true;
}

/* again: split(child, end) child jump(again) end: */
static bool write_endless(struct writer *w, const struct regex_node *child)
{
    uint32_t split, jump;
    if (!emit(w, (struct instruction){.op = OP_SPLIT}, &split))
        return false;
    w->code[split].first = w->count;
    if (!write_node(w, child) ||
        !emit(w, (struct instruction){.op = OP_JUMP, .first = split}, &jump))
        return false;
    w->code[split].second = w->count;
    return true;
}

static bool write_repeat(struct writer *w, const struct regex_node *node)
{
    uint32_t split;
    for (int i = 0; i < node->min; i++)
        if (!write_node(w, node->child))
            return false;
    if (node->max == REGEX_ENDLESS)
        return write_endless(w, node->child);
    uint32_t last = REGEX_CODE_MAX; /* of the splits that may leave, each names the one before */
    for (int i = node->min; i < node->max; i++) {
        if (!emit(w, (struct instruction){.op = OP_SPLIT, .second = last}, &split))
            return false;
        last = split;
        w->code[split].first = w->count;
        if (!write_node(w, node->child))
            return false;
    }
    while (last != REGEX_CODE_MAX) {
        uint32_t before = w->code[last].second;
        w->code[last].second = w->count;
        last = before;
    }
    return true;
}

static bool write_node(struct writer *w, const struct regex_node *node)
{
    uint32_t index;
    if (w->visits_left-- == 0)
        return too_large(w);
    switch (node->kind) {
    case REGEX_EMPTY: return true;
    case REGEX_SET: return emit(w, (struct instruction){.op = OP_CHARACTER, .set = node}, &index);
    case REGEX_PLACE:
        return emit(w, (struct instruction){.op = OP_PLACE, .place = node->place}, &index);
    case REGEX_LIST:
        for (const struct regex_node *child = node->child; child; child = child->next)
            if (!write_node(w, child))
                return false;
        return true;
    case REGEX_CHOICE: return write_choice(w, node);
    case REGEX_REPEAT: return write_repeat(w, node);
    }
    return false;
}

bool regex_compile(struct arena *arena, str source, struct regex **out, struct error *e)
{
    struct regex_node *tree;
    struct writer w = {.arena = arena, .visits_left = 4 * REGEX_CODE_MAX, .e = e};
    uint32_t index;
    if (source.len > REGEX_BYTES_MAX)
        return error_set(e, REASON_EXPRESSION, "a pattern of more than %u bytes", REGEX_BYTES_MAX);
    if (!regex_parse(arena, source, &tree, e) || !write_node(&w, tree) ||
        !emit(&w, (struct instruction){.op = OP_MATCH}, &index))
        return false;
    *out = ARENA_NEW(arena, struct regex);
    **out = (struct regex){w.code, w.count};
    return true;
}

size_t regex_size(const struct regex *regex)
{
    return regex->count;
}

/* ---- characters ---- */

uint32_t regex_character(str text, size_t *at)
{
    enum { NO_CHARACTER = 0x110000 };
    const unsigned char *p = (const unsigned char *) text.ptr + *at;
    size_t left = text.len - *at;
    size_t need = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 0;
    uint32_t c = need == 1 ? p[0] : p[0] & (0x7fu >> need);
    if (need == 0 || need > left) {
        ++*at;
        return NO_CHARACTER + p[0];
    }
    for (size_t i = 1; i < need; i++)
        c = c << 6 | (p[i] & 0x3f);
    *at += need;
    return c;
}

static bool is_in(const struct regex_node *set, uint32_t c)
{
    for (uint32_t i = 0; i < set->range_count; i++)
        if (c >= set->ranges[i].first && c <= set->ranges[i].last)
            return true;
    return false;
}

static bool is_letter(uint32_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool fits(const struct regex_node *set, uint32_t c)
{
    bool is_found = is_in(set, c) || (set->ignores_case && is_letter(c) && is_in(set, c ^ 0x20));
    return is_found != set->is_negated;
}

static bool is_word(uint32_t c)
{
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_';
}

/* ---- the search ---- */

#define NOTHING UINT32_MAX /* before the first and after the last character */

struct threads {
    uint32_t *dense;  /* the places, in no order that matters */
    uint32_t *sparse; /* place -> index in `dense`; believed only when dense agrees */
    uint32_t count;
};
struct search {
    const struct regex *regex;
    struct threads now, next;
    uint32_t *stack;        /* places to look at */
    uint32_t before, after; /* the characters around */
    size_t *steps;
    bool is_found;
    struct error *e;
};

static struct threads threads_create(struct arena *arena, uint32_t count)
{
    return (struct threads){ARENA_ARRAY(arena, uint32_t, count),
                            ARENA_ARRAY(arena, uint32_t, count), 0};
}

static bool has(const struct threads *threads, uint32_t place)
{
    uint32_t index = threads->sparse[place];
    return index < threads->count && threads->dense[index] == place;
}

static bool is_place(const struct search *s, enum regex_place place)
{
    bool is_border =
        (s->before != NOTHING && is_word(s->before)) != (s->after != NOTHING && is_word(s->after));
    switch (place) {
    case PLACE_TEXT_BEGIN: return s->before == NOTHING;
    case PLACE_TEXT_END: return s->after == NOTHING;
    case PLACE_LINE_BEGIN: return s->before == NOTHING || s->before == '\n';
    case PLACE_LINE_END: return s->after == NOTHING || s->after == '\n';
    case PLACE_WORD: return is_border;
    case PLACE_NOT_WORD: return !is_border;
    }
    return false;
}

/* The thread at `place`, and where it comes to without a character.  A place comes in once, and what is pushed for it at most twice:
   the stack has room for two of each. */
static void follow(struct search *s, struct threads *threads, uint32_t place)
{
    uint32_t depth = 0;
    s->stack[depth++] = place;
    while (depth > 0) {
        place = s->stack[--depth];
        if (has(threads, place))
            continue;
        threads->sparse[place] = threads->count;
        threads->dense[threads->count++] = place;
        const struct instruction *instruction = &s->regex->code[place];
        switch (instruction->op) {
        case OP_SPLIT:
            s->stack[depth++] = instruction->second;
            s->stack[depth++] = instruction->first;
            break;
        case OP_JUMP: s->stack[depth++] = instruction->first; break;
        case OP_PLACE:
            if (is_place(s, instruction->place))
                s->stack[depth++] = place + 1;
            break;
        case OP_MATCH: s->is_found = true; break;
        case OP_CHARACTER: break;
        }
    }
}

static bool take_steps(struct search *s, size_t count)
{
    if (count >= *s->steps) {
        *s->steps = 0;
        return error_set(s->e, REASON_LIMIT, "more than %u steps of work", EXPRESSION_STEPS_MAX);
    }
    *s->steps -= count;
    return true;
}

/* All threads over `c`; around the place behind it stand c and `after`. */
static bool advance(struct search *s, uint32_t c, uint32_t after)
{
    struct threads swap = s->now;
    size_t work = 1 + s->now.count;
    s->before = c;
    s->after = after;
    s->next.count = 0;
    for (uint32_t i = 0; i < s->now.count; i++) {
        const struct instruction *instruction = &s->regex->code[s->now.dense[i]];
        if (instruction->op != OP_CHARACTER)
            continue;
        work += instruction->set->range_count / 4;
        if (fits(instruction->set, c))
            follow(s, &s->next, s->now.dense[i] + 1);
    }
    s->now = s->next;
    s->next = swap;
    return take_steps(s, work);
}

bool regex_matches(const struct regex *regex, str text, struct arena *scratch, size_t *steps,
                   bool *out, struct error *e)
{
    uint32_t count = regex->count;
    struct search s = {
        .regex = regex,
        .now = threads_create(scratch, count),
        .next = threads_create(scratch, count),
        .stack = ARENA_ARRAY(scratch, uint32_t, 2 * (size_t) count + 2),
        .before = NOTHING,
        .steps = steps,
        .e = e,
    };
    size_t at = 0;
    uint32_t c = at < text.len ? regex_character(text, &at) : NOTHING;
    s.after = c;
    follow(&s, &s.now, 0);
    while (!s.is_found && c != NOTHING) {
        uint32_t next = at < text.len ? regex_character(text, &at) : NOTHING;
        if (!advance(&s, c, next))
            return false;
        follow(&s, &s.now, 0); /* a match may begin anywhere */
        c = next;
    }
    *out = s.is_found;
    return true;
}
