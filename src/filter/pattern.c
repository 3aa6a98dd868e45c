/* reading and printing patterns */
#include "filter/pattern_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <ctype.h>

enum { REPEAT_COUNTED_MAX = 8, WIDE_BYTES_MIN = 48 }; /* see pattern_print */

struct reader {
    struct arena *arena;
    str text;
    size_t at;
    unsigned depth;
    bool is_nocase;
    struct error *e;
};

static struct node *fail_at(struct reader *r, size_t at, const char *what)
{
    error_set(r->e, REASON_CONFIG, "at position %zu: %s", at + 1, what);
    return NULL;
}

static int peek(const struct reader *r)
{
    return r->at < r->text.len ? (unsigned char) r->text.ptr[r->at] : BYTE_NONE;
}

static bool take(struct reader *r, const char *literal)
{
    str rest = str_from(r->text, r->at);
    if (!str_starts_with(rest, str_from_cstr(literal)))
        return false;
    r->at += strlen(literal);
    return true;
}

/* ---- sets and nodes ---- */

static void add_range(struct byteset *set, unsigned from, unsigned to)
{
    for (unsigned byte = from; byte <= to; byte++)
        byteset_add(set, byte);
}

static void add_other_case(struct byteset *set)
{
    for (unsigned byte = 'a'; byte <= 'z'; byte++) {
        if (byteset_has(set, byte))
            byteset_add(set, byte - 'a' + 'A');
        if (byteset_has(set, byte - 'a' + 'A'))
            byteset_add(set, byte);
    }
}

static struct node *new_node(struct reader *r, enum node_kind kind)
{
    struct node *node = ARENA_NEW(r->arena, struct node);
    node->kind = kind;
    return node;
}

static struct node *bytes_node(struct reader *r, const struct byteset *set)
{
    struct node *node = new_node(r, NODE_BYTES);
    struct byteset *copy = ARENA_NEW(r->arena, struct byteset);
    *copy = *set;
    node->set = copy;
    return node;
}

static struct node *range_node(struct reader *r, unsigned from, unsigned to)
{
    struct byteset set = {{0}};
    add_range(&set, from, to);
    return bytes_node(r, &set);
}

static void append(struct node *list, struct node ***tail, struct node *node)
{
    if (!*tail)
        *tail = &list->child;
    **tail = node;
    *tail = &node->next;
}

/* A choice of one ASCII set and every multi-byte character of UTF-8. */
static struct node *character_node(struct reader *r, const struct byteset *ascii)
{
    static const unsigned leads[][3] = {{0xc2, 0xdf, 1}, {0xe0, 0xef, 2}, {0xf0, 0xf4, 3}};
    struct node *choice = new_node(r, NODE_CHOICE), **tail = NULL;
    append(choice, &tail, bytes_node(r, ascii));
    for (size_t i = 0; i < ARRAY_COUNT(leads); i++) {
        struct node *sequence = new_node(r, NODE_SEQUENCE), **inner = NULL;
        append(sequence, &inner, range_node(r, leads[i][0], leads[i][1]));
        for (unsigned more = 0; more < leads[i][2]; more++)
            append(sequence, &inner, range_node(r, 0x80, 0xbf));
        append(choice, &tail, sequence);
    }
    return choice;
}

/* ---- reading ---- */

static bool add_class_escape(struct byteset *set, int letter)
{
    struct byteset class = {{0}};
    switch (letter) {
    case 'd':
    case 'D': add_range(&class, '0', '9'); break;
    case 'w':
    case 'W':
        for (int byte = 0; byte < 128; byte++)
            if (pattern_is_word_byte(byte))
                byteset_add(&class, (unsigned) byte);
        break;
    case 's':
    case 'S':
        add_range(&class, '\t', '\r');
        byteset_add(&class, ' ');
        break;
    default: return false;
    }
    bool is_not = isupper(letter);
    for (unsigned byte = 0; byte < 128; byte++)
        if (byteset_has(&class, byte) != is_not)
            byteset_add(set, byte);
    return true;
}

static int hex_digit(int c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* After the backslash: one byte.  -1 with an error. */
static int read_escaped_byte(struct reader *r)
{
    size_t at = r->at - 1;
    int c = peek(r);
    r->at++;
    switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'x': {
        int high = hex_digit(peek(r));
        r->at++;
        int low = hex_digit(peek(r));
        r->at++;
        if (high >= 0 && low >= 0)
            return high * 16 + low;
        fail_at(r, at, "\\x wants two hexadecimal digits");
        return -1;
    }
    default: break;
    }
    if (c > ' ' && c < 127 && !isalnum(c))
        return c;
    fail_at(r, at, c == BYTE_NONE ? "a backslash ends the pattern" : "unknown escape");
    return -1;
}

static bool read_class(struct reader *r, struct byteset *set, bool *is_not)
{
    size_t at = r->at - 1;
    *set = (struct byteset){{0}};
    *is_not = take(r, "^");
    for (bool is_first = true; is_first || peek(r) != ']'; is_first = false) {
        int from = peek(r), to;
        if (from == BYTE_NONE)
            return fail_at(r, at, "this class has no end"), false;
        if (from >= 128)
            return fail_at(r, r->at, "a class holds ASCII only; write (?:a|b) for others"), false;
        r->at++;
        if (from == '\\') {
            if (add_class_escape(set, peek(r))) {
                r->at++;
                continue;
            }
            if ((from = read_escaped_byte(r)) < 0)
                return false;
        }
        to = from;
        if (peek(r) == '-' && r->at + 1 < r->text.len && r->text.ptr[r->at + 1] != ']') {
            r->at++;
            to = peek(r);
            r->at++;
            if (to == '\\' && (to = read_escaped_byte(r)) < 0)
                return false;
            if (to < from)
                return fail_at(r, r->at - 1, "this range is upside down"), false;
        }
        add_range(set, (unsigned) from, (unsigned) to);
    }
    r->at++;
    if (r->is_nocase)
        add_other_case(set);
    return true;
}

static struct node *class_node(struct reader *r, struct byteset *set, bool is_not)
{
    if (!is_not)
        return bytes_node(r, set);
    struct byteset other = {{~set->bits[0], ~set->bits[1], 0, 0}};
    return character_node(r, &other);
}

static struct node *read_choice(struct reader *r);

/* One byte of a lookaround: a character, an escape, a class. */
static struct byteset *read_lookaround_byte(struct reader *r)
{
    struct byteset *set = ARENA_NEW(r->arena, struct byteset);
    bool is_not = false;
    size_t at = r->at;
    int c = peek(r);
    r->at++;
    if (c == '[') {
        if (!read_class(r, set, &is_not))
            return NULL;
    } else if (c == '\\' && add_class_escape(set, peek(r))) {
        r->at++;
    } else if (c == '\\') {
        if ((c = read_escaped_byte(r)) < 0)
            return NULL;
        byteset_add(set, (unsigned) c);
    } else if (c > 0 && c < 128 && !strchr("().*+?{}|^$", c)) {
        byteset_add(set, (unsigned) c);
    } else {
        fail_at(r, at, "lookaround takes one character or class, ahead also two");
        return NULL;
    }
    if (is_not)
        for (size_t i = 0; i < ARRAY_COUNT(set->bits); i++)
            set->bits[i] = ~set->bits[i];
    if (r->is_nocase)
        add_other_case(set);
    return set;
}

/* "(?=x)", "(?<![0-9])": one byte on either side, or two ahead. */
static struct node *read_lookaround(struct reader *r, enum assert_kind kind)
{
    struct node *node = new_node(r, NODE_ASSERT);
    node->assert = kind;
    node->set = read_lookaround_byte(r);
    if (!node->set)
        return NULL;
    if ((kind == ASSERT_AHEAD || kind == ASSERT_NOT_AHEAD) && peek(r) != ')') {
        node->second = read_lookaround_byte(r);
        if (!node->second)
            return NULL;
    }
    if (!take(r, ")"))
        return fail_at(r, r->at, "lookaround takes one character or class, ahead also two");
    return node;
}

static struct node *read_group(struct reader *r)
{
    size_t at = r->at - 1;
    if (take(r, "?="))
        return read_lookaround(r, ASSERT_AHEAD);
    if (take(r, "?!"))
        return read_lookaround(r, ASSERT_NOT_AHEAD);
    if (take(r, "?<="))
        return read_lookaround(r, ASSERT_BEHIND);
    if (take(r, "?<!"))
        return read_lookaround(r, ASSERT_NOT_BEHIND);
    if (!take(r, "?:") && peek(r) == '?')
        return fail_at(r, at, "groups are ( ) and (?: ); (?i) stands at the start only");
    if (++r->depth > FILTER_PATTERN_DEPTH_MAX)
        return fail_at(r, at, "groups are nested too deep");
    struct node *node = read_choice(r);
    r->depth--;
    if (node && !take(r, ")"))
        return fail_at(r, at, "this group has no end");
    return node;
}

static struct node *read_escape(struct reader *r)
{
    struct byteset set = {{0}};
    int c = peek(r);
    if (c == 'b' || c == 'B') {
        r->at++;
        struct node *node = new_node(r, NODE_ASSERT);
        node->assert = c == 'b' ? ASSERT_WORD_BOUNDARY : ASSERT_NO_WORD_BOUNDARY;
        return node;
    }
    if (c >= '1' && c <= '9')
        return fail_at(r, r->at - 1, "backreferences are not supported");
    if (c != BYTE_NONE && add_class_escape(&set, c)) {
        r->at++;
        return isupper(c) ? character_node(r, &set) : bytes_node(r, &set);
    }
    if ((c = read_escaped_byte(r)) < 0)
        return NULL;
    byteset_add(&set, (unsigned) c);
    if (r->is_nocase)
        add_other_case(&set);
    return bytes_node(r, &set);
}

static struct node *read_atom(struct reader *r)
{
    struct byteset set = {{0}};
    bool is_not;
    int c = peek(r);
    r->at++;
    switch (c) {
    case '(': return read_group(r);
    case '[': return read_class(r, &set, &is_not) ? class_node(r, &set, is_not) : NULL;
    case '\\': return read_escape(r);
    case '.': byteset_add(&set, '\n'); return class_node(r, &set, true);
    case '^':
    case '$': {
        struct node *node = new_node(r, NODE_ASSERT);
        node->assert = c == '^' ? ASSERT_LINE_START : ASSERT_LINE_END;
        return node;
    }
    case '*':
    case '+':
    case '?': return fail_at(r, r->at - 1, "nothing to repeat");
    default: break;
    }
    if (c < 0x80) {
        byteset_add(&set, (unsigned) c);
        if (r->is_nocase)
            add_other_case(&set);
        return bytes_node(r, &set);
    }
    /* A character beyond ASCII is one atom: "é+" repeats all of it. */
    struct node *sequence = new_node(r, NODE_SEQUENCE), **tail = NULL;
    append(sequence, &tail, range_node(r, (unsigned) c, (unsigned) c));
    for (c = peek(r); c >= 0x80 && c < 0xc0; c = peek(r)) {
        append(sequence, &tail, range_node(r, (unsigned) c, (unsigned) c));
        r->at++;
    }
    return sequence;
}

static bool read_number(struct reader *r, int *out)
{
    size_t from = r->at;
    int64_t value = 0;
    while (peek(r) >= '0' && peek(r) <= '9' && value <= FILTER_REPEAT_MAX)
        value = value * 10 + (r->text.ptr[r->at++] - '0');
    *out = (int) value;
    return r->at > from;
}

/* "{2}", "{2,}", "{2,5}".  A brace that is none of these stands for itself, as everywhere. */
static bool read_braces(struct reader *r, int *min, int *max)
{
    size_t at = r->at;
    bool is_fine = take(r, "{") && read_number(r, min);
    *max = *min;
    if (is_fine && take(r, ",") && !read_number(r, max))
        *max = REPEAT_FOREVER;
    if (is_fine && take(r, "}"))
        return true;
    r->at = at;
    return false;
}

static bool takes_bytes(const struct node *node)
{
    bool any = node->kind == NODE_BYTES;
    for (const struct node *child = node->child; child && !any; child = child->next)
        any = takes_bytes(child);
    return any;
}

static struct node *read_repeated(struct reader *r)
{
    struct node *node = peek(r) == '{' ? (r->at++, range_node(r, '{', '{')) : read_atom(r);
    while (node) {
        size_t at = r->at;
        int min = 0, max = REPEAT_FOREVER;
        if (take(r, "?"))
            max = 1;
        else if (take(r, "+"))
            min = 1;
        else if (!take(r, "*") && !read_braces(r, &min, &max))
            break;
        if (!take(r, "?") && peek(r) == '+') /* lazy is the same where the longest counts */
            return fail_at(r, r->at, "possessive quantifiers are not supported");
        if (!takes_bytes(
                node)) /* so each turn of a repetition adds to the program, which is bounded */
            return fail_at(r, at, "nothing to repeat");
        if (min > FILTER_REPEAT_MAX || max > FILTER_REPEAT_MAX || (max >= 0 && max < min))
            return fail_at(r, at, "this repetition is out of range");
        struct node *repeat = new_node(r, NODE_REPEAT);
        repeat->child = node;
        repeat->min = min;
        repeat->max = max;
        node = repeat;
        if (++r->depth > FILTER_PATTERN_DEPTH_MAX)
            return fail_at(r, at, "groups are nested too deep");
    }
    return node;
}

static struct node *read_sequence(struct reader *r)
{
    struct node *sequence = new_node(r, NODE_SEQUENCE), **tail = NULL;
    while (peek(r) != BYTE_NONE && peek(r) != '|' && peek(r) != ')') {
        unsigned depth = r->depth;
        struct node *node = read_repeated(r);
        if (!node)
            return NULL;
        r->depth = depth;
        append(sequence, &tail, node);
    }
    return sequence;
}

static struct node *read_choice(struct reader *r)
{
    struct node *choice = new_node(r, NODE_CHOICE), **tail = NULL;
    do {
        struct node *node = read_sequence(r);
        if (!node)
            return NULL;
        append(choice, &tail, node);
    } while (take(r, "|"));
    return choice;
}

bool pattern_parse(struct arena *arena, str text, const struct node **out, struct error *e)
{
    struct reader r = {.arena = arena, .text = text, .e = e};
    if (text.len > FILTER_PATTERN_BYTES_MAX)
        return error_set(e, REASON_CONFIG, "the pattern is longer than %u bytes",
                         FILTER_PATTERN_BYTES_MAX);
    r.is_nocase = take(&r, "(?i)");
    struct node *node = read_choice(&r);
    if (!node)
        return false;
    if (r.at < text.len)
        return fail_at(&r, r.at, "this ) closes nothing"), false;
    if (pattern_bytes_min(node) == 0)
        return error_set(e, REASON_CONFIG, "at position 1: it would match the empty text");
    *out = node;
    return true;
}

size_t pattern_bytes_min(const struct node *node)
{
    size_t sum = 0;
    switch (node->kind) {
    case NODE_BYTES: return 1;
    case NODE_SEQUENCE:
        for (const struct node *child = node->child; child; child = child->next)
            sum += pattern_bytes_min(child);
        return sum;
    case NODE_CHOICE:
        sum = SIZE_MAX;
        for (const struct node *child = node->child; child; child = child->next) {
            size_t min = pattern_bytes_min(child);
            sum = min < sum ? min : sum;
        }
        return sum == SIZE_MAX ? 0 : sum;
    case NODE_REPEAT: return (size_t) node->min * pattern_bytes_min(node->child);
    case NODE_EMPTY:
    case NODE_ASSERT: break;
    }
    return 0;
}

bool pattern_first_bytes(const struct node *node, struct byteset *out)
{
    bool is_open = true;
    switch (node->kind) {
    case NODE_BYTES:
        for (size_t i = 0; i < ARRAY_COUNT(out->bits); i++)
            out->bits[i] |= node->set->bits[i];
        return false;
    case NODE_SEQUENCE:
        for (const struct node *child = node->child; child && is_open; child = child->next)
            is_open = pattern_first_bytes(child, out);
        return is_open;
    case NODE_CHOICE:
        is_open = node->child == NULL;
        for (const struct node *child = node->child; child; child = child->next)
            is_open = pattern_first_bytes(child, out) || is_open;
        return is_open;
    case NODE_REPEAT: return pattern_first_bytes(node->child, out) || node->min == 0;
    case NODE_EMPTY:
    case NODE_ASSERT: break;
    }
    return true;
}

/* ---- printing ---- */

static void print_set(const struct byteset *set, struct strbuf *out)
{
    strbuf_add_char(out, '[');
    for (unsigned byte = 0; byte < 256; byte++) {
        if (!byteset_has(set, byte))
            continue;
        unsigned last = byte;
        while (last < 255 && byteset_has(set, last + 1))
            last++;
        strbuf_printf(out, "\\x%02x-\\x%02x", byte, last);
        byte = last;
    }
    strbuf_add_char(out, ']');
}

static void print(const struct node *node, struct strbuf *out)
{
    switch (node->kind) {
    case NODE_EMPTY:
    case NODE_ASSERT: break;
    case NODE_BYTES: print_set(node->set, out); break;
    case NODE_SEQUENCE:
    case NODE_CHOICE:
        strbuf_add(out, S("(?:"));
        for (const struct node *child = node->child; child; child = child->next) {
            print(child, out);
            if (child->next && node->kind == NODE_CHOICE)
                strbuf_add_char(out, '|');
        }
        strbuf_add_char(out, ')');
        break;
    case NODE_REPEAT:
        strbuf_add(out, S("(?:"));
        print(node->child, out);
        if (node->max == REPEAT_FOREVER || node->max > REPEAT_COUNTED_MAX)
            strbuf_printf(out, "){%d,}", node->min);
        else
            strbuf_printf(out, "){%d,%d}", node->min, node->max);
        break;
    }
}

/* Through wrappers of one child, to the sequence that matters. */
static const struct node *unwrap(const struct node *node)
{
    while ((node->kind == NODE_CHOICE || node->kind == NODE_SEQUENCE) && node->child &&
           !node->child->next)
        node = node->child;
    return node;
}

static bool is_wide(const struct node *node)
{
    int count = 0;
    switch (node->kind) {
    case NODE_BYTES:
        for (size_t i = 0; i < ARRAY_COUNT(node->set->bits); i++)
            count += __builtin_popcountll(node->set->bits[i]);
        return count >= WIDE_BYTES_MIN;
    case NODE_EMPTY:
    case NODE_ASSERT: return true;
    case NODE_SEQUENCE:
    case NODE_CHOICE:
    case NODE_REPEAT: break;
    }
    for (const struct node *child = node->child; child; child = child->next)
        if (!is_wide(child))
            return false;
    return true;
}

/* The lookahead among those at the end of a sequence that forbids one byte; or NULL. */
static const struct node *forbidden_after(const struct node *sequence)
{
    const struct node *found = NULL;
    for (const struct node *child = sequence->child; child; child = child->next) {
        if (child->kind != NODE_ASSERT)
            found = NULL;
        else if (!found && child->assert == ASSERT_NOT_AHEAD && !child->second)
            found = child;
    }
    return found;
}

void pattern_print(const struct node *node, struct strbuf *out)
{
    const struct node *sequence = unwrap(node);
    if (sequence->kind != NODE_SEQUENCE) {
        print(node, out);
        return;
    }
    const struct node *from = sequence->child;
    while (from && is_wide(from))
        from = from->next;
    for (const struct node *child = from ? from : sequence->child; child; child = child->next)
        print(child, out);
    const struct node *after = forbidden_after(sequence);
    if (after) {
        struct byteset allowed;
        for (size_t i = 0; i < ARRAY_COUNT(allowed.bits); i++)
            allowed.bits[i] = ~after->set->bits[i];
        print_set(&allowed, out);
    }
}

struct byteset pattern_before(const struct node *node)
{
    struct byteset out = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    const struct node *sequence = unwrap(node);
    if (sequence->kind != NODE_SEQUENCE)
        return out;
    for (const struct node *child = sequence->child; child && child->kind == NODE_ASSERT;
         child = child->next)
        for (size_t i = 0; i < ARRAY_COUNT(out.bits); i++) {
            if (child->assert == ASSERT_BEHIND)
                out.bits[i] &= child->set->bits[i];
            else if (child->assert == ASSERT_NOT_BEHIND)
                out.bits[i] &= ~child->set->bits[i];
        }
    return out;
}
