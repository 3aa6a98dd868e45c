/* Regular expressions: source to tree.  The depth of recursion is that of the groups. */
#include "base/arena.h"
#include "base/limits.h"
#include "workflow/regex_internal.h"

enum { CHARACTER_MAX = 0x10ffff };

struct flags {
    bool ignores_case, dot_takes_all, by_line;
};
struct parser {
    struct arena *arena;
    str source;
    size_t at;
    struct flags flags;
    uint32_t depth;
    struct error *e;
};

static bool parse_choice(struct parser *p, struct regex_node **out);

static bool fail(struct parser *p, const char *what)
{
    return error_set(p->e, REASON_EXPRESSION, "the pattern, at its character %zu: %s", p->at + 1,
                     what);
}

static bool at_end(const struct parser *p)
{
    return p->at >= p->source.len;
}

static char here(const struct parser *p)
{
    return at_end(p) ? '\0' : p->source.ptr[p->at];
}

static bool take(struct parser *p, const char *text)
{
    str wanted = str_from_cstr(text);
    if (!str_starts_with(str_from(p->source, p->at), wanted))
        return false;
    p->at += wanted.len;
    return true;
}

/* ---- nodes ---- */

static struct regex_node *node_of(struct parser *p, enum regex_kind kind)
{
    struct regex_node *node = ARENA_NEW(p->arena, struct regex_node);
    *node = (struct regex_node){.kind = kind, .ignores_case = p->flags.ignores_case};
    return node;
}

static void add_child(struct regex_node *to, struct regex_node *child)
{
    if (to->last)
        to->last->next = child;
    else
        to->child = child;
    to->last = child;
}

static struct regex_node *place_of(struct parser *p, enum regex_place place)
{
    struct regex_node *node = node_of(p, REGEX_PLACE);
    node->place = place;
    return node;
}

/* A set has room for twice as many ranges as it has: it grows by powers of two. */
static void add_range(struct parser *p, struct regex_node *set, uint32_t first, uint32_t last)
{
    uint32_t count = set->range_count;
    if ((count & (count - 1)) == 0) {
        size_t bytes = sizeof *set->ranges;
        set->ranges =
            arena_grow(p->arena, set->ranges, count * bytes, (count ? count * 2 : 1) * bytes);
    }
    set->ranges[set->range_count++] = (struct regex_range){first, last};
}

static struct regex_node *character_node(struct parser *p, uint32_t c)
{
    struct regex_node *node = node_of(p, REGEX_SET);
    add_range(p, node, c, c);
    return node;
}

/* ---- classes ---- */

struct class
{
    const char *name;
    struct regex_range ranges[4];
    uint32_t count;
};
static const struct class perl_classes[] = {
    {"d", {{'0', '9'}}, 1},
    {"w", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, 4},
    {"s", {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}}, 3},
};
static const struct class named_classes[] = {
    {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}, 3},
    {"alpha", {{'A', 'Z'}, {'a', 'z'}}, 2},
    {"ascii", {{0, 0x7f}}, 1},
    {"blank", {{'\t', '\t'}, {' ', ' '}}, 2},
    {"cntrl", {{0, 0x1f}, {0x7f, 0x7f}}, 2},
    {"digit", {{'0', '9'}}, 1},
    {"graph", {{'!', '~'}}, 1},
    {"lower", {{'a', 'z'}}, 1},
    {"print", {{' ', '~'}}, 1},
    {"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}, 4},
    {"space", {{'\t', '\r'}, {' ', ' '}}, 2},
    {"upper", {{'A', 'Z'}}, 1},
    {"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, 4},
    {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, 3},
};

/* All but these, which are in order. */
static void add_class(struct parser *p, struct regex_node *set, const struct class *class,
                      bool is_negated)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < class->count; i++) {
        const struct regex_range *range = &class->ranges[i];
        if (!is_negated)
            add_range(p, set, range->first, range->last);
        else if (range->first > next)
            add_range(p, set, next, range->first - 1);
        next = range->last + 1;
    }
    if (is_negated)
        add_range(p, set, next, CHARACTER_MAX);
}

/* \d \D \w \W \s \S: the letter is here. */
static bool take_perl_class(struct parser *p, struct regex_node *set)
{
    char letter = here(p), lower = (char) (letter | 0x20);
    for (size_t i = 0; i < ARRAY_COUNT(perl_classes); i++) {
        if (perl_classes[i].name[0] != lower)
            continue;
        add_class(p, set, &perl_classes[i], letter != lower);
        p->at++;
        return true;
    }
    return false;
}

/* [:name:] and [:^name:], inside of a set. */
static bool parse_named_class(struct parser *p, struct regex_node *set)
{
    str rest = str_from(p->source, p->at + 2);
    size_t end = str_find(rest, S(":]"));
    str name = end == STR_NOT_FOUND ? STR_NONE : str_slice(rest, 0, end);
    bool is_negated = str_starts_with(name, S("^"));
    if (is_negated)
        name = str_from(name, 1);
    for (size_t i = 0; i < ARRAY_COUNT(named_classes); i++) {
        if (!str_equal(name, str_from_cstr(named_classes[i].name)))
            continue;
        add_class(p, set, &named_classes[i], is_negated);
        p->at += 2 + end + 2;
        return true;
    }
    return fail(p, "a set has [:alnum:] [:alpha:] [:ascii:] [:blank:] [:cntrl:] [:digit:] "
                   "[:graph:] [:lower:] [:print:] [:punct:] [:space:] [:upper:] [:word:] "
                   "[:xdigit:]");
}

/* ---- escapes ---- */

static int hex_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* xHH, x{H...}: the x is behind. */
static bool parse_hex(struct parser *p, uint32_t *out)
{
    bool is_braced = take(p, "{");
    uint32_t value = 0;
    int digits = 0;
    for (; (is_braced || digits < 2) && hex_of(here(p)) >= 0 && value <= CHARACTER_MAX; digits++)
        value = value * 16 + (uint32_t) hex_of(p->source.ptr[p->at++]);
    if ((is_braced ? digits == 0 || !take(p, "}") : digits != 2) || value > CHARACTER_MAX)
        return fail(p, "\\x takes two hexadecimal digits, or {...} with up to 10FFFF");
    *out = value;
    return true;
}

static bool is_punctuation(char c)
{
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~') || c == ' ';
}

/* A character that is written with a backslash, which is behind. */
static bool parse_escaped(struct parser *p, uint32_t *out)
{
    static const char letters[] = "tnrfva", values[] = "\t\n\r\f\v\a";
    char c = here(p);
    if (at_end(p))
        return fail(p, "a backslash at the end");
    if (c >= '1' && c <= '9')
        return fail(p, "back references are not supported: no search with them is linear");
    for (size_t i = 0; i + 1 < sizeof letters; i++) {
        if (c != letters[i])
            continue;
        *out = (uint32_t) values[i];
        p->at++;
        return true;
    }
    if (take(p, "x"))
        return parse_hex(p, out);
    if (c == 'p' || c == 'P')
        return fail(p, "\\p{...} is not supported; write a set with ranges");
    if (!is_punctuation(c))
        return fail(p, "there is no escape of this letter");
    *out = (uint32_t) c;
    p->at++;
    return true;
}

/* ---- sets ---- */

/* One character of a set, or a class: then *is_class. */
static bool parse_set_item(struct parser *p, struct regex_node *set, uint32_t *out, bool *is_class)
{
    *is_class = false;
    if (str_starts_with(str_from(p->source, p->at), S("[:"))) {
        *is_class = true;
        return parse_named_class(p, set);
    }
    if (!take(p, "\\")) {
        *out = regex_character(p->source, &p->at);
        return true;
    }
    *is_class = take_perl_class(p, set);
    return *is_class || parse_escaped(p, out);
}

/* After "[". */
static bool parse_set(struct parser *p, struct regex_node **out)
{
    struct regex_node *set = node_of(p, REGEX_SET);
    set->is_negated = take(p, "^");
    bool is_first = true;
    while (is_first || here(p) != ']') {
        uint32_t first = 0, last;
        bool is_class;
        if (at_end(p))
            return fail(p, "the set has no end; close it with ]");
        if (!parse_set_item(p, set, &first, &is_class))
            return false;
        is_first = false;
        if (is_class)
            continue;
        last = first;
        bool is_range =
            here(p) == '-' && p->at + 1 < p->source.len && p->source.ptr[p->at + 1] != ']';
        if (is_range) {
            p->at++;
            if (!parse_set_item(p, set, &last, &is_class))
                return false;
            if (is_class || last < first)
                return fail(p, "a range goes from a character to one that is not before it");
        }
        add_range(p, set, first, last);
    }
    p->at++;
    *out = set;
    return true;
}

/* ---- groups ---- */

static bool set_flag(struct parser *p, char letter, bool value)
{
    switch (letter) {
    case 'i': p->flags.ignores_case = value; return true;
    case 's': p->flags.dot_takes_all = value; return true;
    case 'm': p->flags.by_line = value; return true;
    case 'U': return true; /* lazy or not, there is a match or there is none */
    default: return fail(p, "the flags are i, m, s and U");
    }
}

/* (?flags) or (?flags: after "(?".  *is_group: a group follows. */
static bool parse_flags(struct parser *p, bool *is_group)
{
    bool value = true;
    for (;; p->at++) {
        if (at_end(p))
            return fail(p, "the group has no end; close it with )");
        if (here(p) == ')' || here(p) == ':')
            break;
        if (here(p) == '-' && value)
            value = false;
        else if (!set_flag(p, here(p), value))
            return false;
    }
    *is_group = here(p) == ':';
    p->at++;
    return true;
}

static bool is_name_character(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

/* After "(?P<" or "(?<". */
static bool parse_group_name(struct parser *p)
{
    size_t from = p->at;
    while (is_name_character(here(p)))
        p->at++;
    if (p->at == from || !take(p, ">"))
        return fail(p, "a group's name has letters, digits and _, and ends with >");
    return true;
}

/* After "(".  *is_group false: only flags were set. */
static bool parse_group_begin(struct parser *p, bool *is_group)
{
    *is_group = true;
    if (!take(p, "?"))
        return true;
    if (take(p, "P<"))
        return parse_group_name(p);
    if (here(p) == '=' || here(p) == '!' || take(p, "<=") || take(p, "<!"))
        return fail(p, "lookaround is not supported: no search with it is linear");
    if (take(p, "<"))
        return parse_group_name(p);
    return parse_flags(p, is_group);
}

/* Flags that a group sets end with it. */
static bool parse_group(struct parser *p, struct regex_node **out)
{
    struct flags around = p->flags;
    bool is_group;
    if (!parse_group_begin(p, &is_group))
        return false;
    if (!is_group) {
        *out = node_of(p, REGEX_EMPTY);
        return true;
    }
    if (++p->depth > REGEX_DEPTH_MAX)
        return fail(p, "groups too deep inside each other");
    if (!parse_choice(p, out))
        return false;
    if (!take(p, ")"))
        return fail(p, "the group has no end; close it with )");
    p->depth--;
    p->flags = around;
    return true;
}

/* ---- one piece ---- */

/* After a backslash. */
static bool parse_escape(struct parser *p, struct regex_node **out)
{
    static const struct {
        const char *letter;
        enum regex_place place;
    } places[] = {
        {"A", PLACE_TEXT_BEGIN}, {"z", PLACE_TEXT_END}, {"b", PLACE_WORD}, {"B", PLACE_NOT_WORD}};
    for (size_t i = 0; i < ARRAY_COUNT(places); i++)
        if (take(p, places[i].letter)) {
            *out = place_of(p, places[i].place);
            return true;
        }
    struct regex_node *set = node_of(p, REGEX_SET);
    if (take_perl_class(p, set)) {
        *out = set;
        return true;
    }
    uint32_t c;
    if (!parse_escaped(p, &c))
        return false;
    *out = character_node(p, c);
    return true;
}

static struct regex_node *any_character(struct parser *p)
{
    struct regex_node *node = node_of(p, REGEX_SET);
    node->is_negated = true;
    if (!p->flags.dot_takes_all)
        add_range(p, node, '\n', '\n');
    return node;
}

static bool parse_piece(struct parser *p, struct regex_node **out)
{
    if (take(p, "("))
        return parse_group(p, out);
    if (take(p, "["))
        return parse_set(p, out);
    if (take(p, "\\"))
        return parse_escape(p, out);
    if (take(p, "^"))
        *out = place_of(p, p->flags.by_line ? PLACE_LINE_BEGIN : PLACE_TEXT_BEGIN);
    else if (take(p, "$"))
        *out = place_of(p, p->flags.by_line ? PLACE_LINE_END : PLACE_TEXT_END);
    else if (take(p, "."))
        *out = any_character(p);
    else if (here(p) == '*' || here(p) == '+' || here(p) == '?')
        return fail(p, "nothing stands before what repeats it");
    else
        *out = character_node(p, regex_character(p->source, &p->at));
    return true;
}

/* ---- repetitions ---- */

static bool take_count(struct parser *p, size_t *at, int *out)
{
    int value = 0;
    size_t from = *at;
    while (*at < p->source.len && p->source.ptr[*at] >= '0' && p->source.ptr[*at] <= '9') {
        int digit = p->source.ptr[(*at)++] - '0';
        value = value > REGEX_REPEAT_MAX ? value : value * 10 + digit;
    }
    *out = value;
    return *at > from;
}

/* {n} {n,} {n,m}; anything else that begins with a brace stands for itself. */
static bool take_braces(struct parser *p, int *min, int *max)
{
    size_t at = p->at + 1;
    if (here(p) != '{' || !take_count(p, &at, min))
        return false;
    *max = *min;
    if (at < p->source.len && p->source.ptr[at] == ',') {
        at++;
        if (!take_count(p, &at, max))
            *max = REGEX_ENDLESS;
    }
    if (at >= p->source.len || p->source.ptr[at] != '}')
        return false;
    p->at = at + 1;
    return true;
}

static bool take_repeat(struct parser *p, int *min, int *max)
{
    *min = 0;
    *max = REGEX_ENDLESS;
    if (take(p, "*"))
        return true;
    if (take(p, "+")) {
        *min = 1;
        return true;
    }
    if (take(p, "?")) {
        *max = 1;
        return true;
    }
    return take_braces(p, min, max);
}

static bool parse_repeated(struct parser *p, struct regex_node **out)
{
    int min, max;
    struct regex_node *piece;
    if (!parse_piece(p, &piece))
        return false;
    *out = piece;
    if (!take_repeat(p, &min, &max))
        return true;
    if (min > REGEX_REPEAT_MAX || max > REGEX_REPEAT_MAX || (max != REGEX_ENDLESS && max < min))
        return fail(p, "a repetition goes from a count to one that is not below it, at most 1000");
    (void) take(p, "?"); /* lazy */
    *out = node_of(p, REGEX_REPEAT);
    (*out)->min = min;
    (*out)->max = max;
    add_child(*out, piece);
    if (take_repeat(p, &min, &max))
        return fail(p, "a repetition of a repetition; put the inner one into (...)");
    return true;
}

static bool parse_list(struct parser *p, struct regex_node **out)
{
    struct regex_node *list = node_of(p, REGEX_LIST), *piece;
    while (!at_end(p) && here(p) != '|' && here(p) != ')') {
        if (!parse_repeated(p, &piece))
            return false;
        add_child(list, piece);
    }
    *out = list;
    return true;
}

static bool parse_choice(struct parser *p, struct regex_node **out)
{
    struct regex_node *choice = node_of(p, REGEX_CHOICE), *list;
    do {
        if (!parse_list(p, &list))
            return false;
        add_child(choice, list);
    } while (take(p, "|"));
    *out = choice;
    return true;
}

bool regex_parse(struct arena *arena, str source, struct regex_node **out, struct error *e)
{
    struct parser p = {.arena = arena, .source = source, .e = e};
    if (!parse_choice(&p, out))
        return false;
    return at_end(&p) || fail(&p, "a ) that closes nothing");
}
