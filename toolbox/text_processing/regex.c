#include "regex.h"

#include <stdlib.h>
#include <string.h>

#include "libregexp.h"
#include "utf8.h"

enum {
    TIMEOUT_CHECKS_MAX = 500, /* the engine asks every 10,000 steps */
    STACK_BYTES = 96 * 1024,
    PATTERN_BYTES_MAX = 16 * 1024,
};

struct regex {
    uint8_t *bytecode;
    uint8_t **captures;
    struct text subject;
    uint16_t *wide; /* the subject as UTF-16, or NULL when it is ASCII */
    int len, at;    /* in units of what the engine sees */
    int checks;
    struct {
        int unit;
        size_t byte;
    } cursor; /* a place known in both, from which to count on */
};

static uintptr_t stack_floor;

/* What libregexp asks of its user. */
bool lre_check_stack_overflow(void *opaque, size_t size)
{
    (void) opaque;
    return (uintptr_t) __builtin_frame_address(0) - size < stack_floor;
}

int lre_check_timeout(void *opaque)
{
    struct regex *regex = opaque;
    return ++regex->checks > TIMEOUT_CHECKS_MAX;
}

void *lre_realloc(void *opaque, void *ptr, size_t size)
{
    (void) opaque;
    if (size == 0) {
        tool_free(ptr);
        return NULL;
    }
    return tool_realloc(ptr, size);
}

static void set_stack_floor(void)
{
    uintptr_t here = (uintptr_t) __builtin_frame_address(0);
    stack_floor = here > STACK_BYTES ? here - STACK_BYTES : 1;
}

struct regex *regex_compile(struct text pattern, struct text flags, struct tool_error *e)
{
    char message[100] = "";
    int len, bits = 0;
    set_stack_floor();
    for (size_t i = 0; i < flags.len; i++) {
        int bit = flags.ptr[i] == 'i'                          ? LRE_FLAG_IGNORECASE
                  : flags.ptr[i] == 'm'                        ? LRE_FLAG_MULTILINE
                  : flags.ptr[i] == 's'                        ? LRE_FLAG_DOTALL
                  : flags.ptr[i] == 'g' || flags.ptr[i] == 'u' ? LRE_FLAG_GLOBAL
                                                               : 0;
        if (bit == 0) {
            tool_fail(e, "invalid_input", "\"flags\" may hold i, m and s, not \"%c\"",
                      flags.ptr[i]);
            return NULL;
        }
        bits |= bit & ~LRE_FLAG_GLOBAL; /* all matches are always found */
    }
    if (pattern.len == 0 || pattern.len > PATTERN_BYTES_MAX) {
        tool_fail(e, "invalid_input", "\"pattern\" must be 1 to %d bytes long", PATTERN_BYTES_MAX);
        return NULL;
    }
    struct regex *regex = tool_alloc(sizeof *regex);
    memset(regex, 0, sizeof *regex);
    char *source = tool_alloc(pattern.len + 1);
    memcpy(source, pattern.ptr, pattern.len);
    source[pattern.len] = '\0';
    /* Unicode mode reads whole characters; it is strict about escapes, so the lax mode comes second. */
    regex->bytecode = lre_compile(&len, message, sizeof message, source, pattern.len,
                                  bits | LRE_FLAG_UNICODE, regex);
    if (regex->bytecode == NULL)
        regex->bytecode =
            lre_compile(&len, message, sizeof message, source, pattern.len, bits, regex);
    if (regex->bytecode == NULL) {
        tool_fail(e, "invalid_input",
                  "\"pattern\" is not a regular expression (JavaScript syntax): %s", message);
        return NULL;
    }
    regex->captures =
        tool_alloc((size_t) lre_get_alloc_count(regex->bytecode) * sizeof *regex->captures);
    return regex;
}

static bool is_ascii(struct text t)
{
    for (size_t i = 0; i < t.len; i++)
        if ((unsigned char) t.ptr[i] >= 0x80)
            return false;
    return true;
}

void regex_begin(struct regex *regex, struct text subject)
{
    regex->subject = subject;
    regex->at = 0;
    regex->cursor.unit = 0;
    regex->cursor.byte = 0;
    regex->len = (int) subject.len;
    if (is_ascii(subject))
        return;
    regex->wide = tool_alloc(subject.len * sizeof *regex->wide); /* never more units than bytes */
    regex->len = 0;
    const char *end = subject.ptr + subject.len;
    for (const char *at = subject.ptr; at < end;) {
        uint32_t c;
        at += utf8_next(at, end, &c);
        if (c >= 0x10000) {
            regex->wide[regex->len++] = (uint16_t) (0xD7C0 + (c >> 10));
            c = 0xDC00 | (c & 0x3FF);
        }
        regex->wide[regex->len++] = (uint16_t) c;
    }
}

/* The byte at which a unit begins; inside a surrogate pair, that of the character. */
static size_t byte_of(struct regex *regex, int unit)
{
    if (regex->wide == NULL)
        return (size_t) unit;
    if (unit < regex->cursor.unit) {
        regex->cursor.unit = 0;
        regex->cursor.byte = 0;
    }
    const char *end = regex->subject.ptr + regex->subject.len;
    while (regex->cursor.unit < unit) {
        uint32_t c;
        size_t len = utf8_next(regex->subject.ptr + regex->cursor.byte, end, &c);
        int units = c >= 0x10000 ? 2 : 1;
        if (regex->cursor.unit + units > unit)
            break;
        regex->cursor.unit += units;
        regex->cursor.byte += len;
    }
    return regex->cursor.byte;
}

static struct text range(struct regex *regex, const uint8_t *begin, const uint8_t *end)
{
    const uint8_t *base =
        regex->wide == NULL ? (const uint8_t *) regex->subject.ptr : (const uint8_t *) regex->wide;
    int shift = regex->wide != NULL;
    if (begin == NULL || end == NULL)
        return (struct text){NULL, 0};
    size_t first = byte_of(regex, (int) ((begin - base) >> shift));
    size_t last = byte_of(regex, (int) ((end - base) >> shift));
    return (struct text){regex->subject.ptr + first, last - first};
}

bool regex_next(struct regex *regex, struct regex_match *out, bool *found, struct tool_error *e)
{
    *found = false;
    if (regex->at > regex->len)
        return true;
    const uint8_t *base =
        regex->wide == NULL ? (const uint8_t *) regex->subject.ptr : (const uint8_t *) regex->wide;
    int status = lre_exec(regex->captures, regex->bytecode, base, regex->at, regex->len,
                          regex->wide != NULL, regex);
    if (status < 0)
        return tool_fail(
            e, "limit",
            "\"pattern\" takes too many steps on this text; avoid nested repetition such as "
            "(a+)+");
    if (status == 0)
        return true;
    uint8_t **c = regex->captures;
    int shift = regex->wide != NULL, begin = (int) ((c[0] - base) >> shift),
        end = (int) ((c[1] - base) >> shift);
    out->whole = range(regex, c[0], c[1]);
    size_t count = (size_t) lre_get_capture_count(regex->bytecode) - 1;
    out->group_count = count < REGEX_GROUPS_MAX - 1 ? count : REGEX_GROUPS_MAX - 1;
    for (size_t i = 1; i <= out->group_count; i++)
        out->groups[i] = range(regex, c[2 * i], c[2 * i + 1]);
    regex->at = end > begin ? end : end + 1; /* step over an empty match */
    if (regex->at < regex->len && end == begin && regex->wide != NULL &&
        (regex->wide[regex->at] & 0xFC00) == 0xDC00)
        regex->at++;
    *found = true;
    return true;
}
