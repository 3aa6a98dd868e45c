/* Counting and changing a text character by character. */
#include <string.h>
#include <wctype.h>

#include "buffer.h"
#include "utf8.h"

static bool is_blank(uint32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

/* A sentence ends at . ! ? or their full-width forms when a blank, a quote or the end follows. */
static bool ends_sentence(uint32_t c)
{
    return c == '.' || c == '!' || c == '?' || c == 0x3002 || c == 0xFF01 || c == 0xFF1F ||
           c == 0x2026;
}

static bool is_closing(uint32_t c)
{
    return c == '"' || c == '\'' || c == ')' || c == ']' || c == 0x201D || c == 0x2019 || c == 0xBB;
}

bool op_count(struct task *task, struct tool_error *e)
{
    uint64_t characters = 0, words = 0, sentences = 0, lines = 0;
    bool in_word = false, in_sentence = false, is_ended = false;
    const char *end = task->text.ptr + task->text.len;
    (void) e;
    for (const char *at = task->text.ptr; at < end;) {
        uint32_t c;
        at += utf8_next(at, end, &c);
        characters++;
        lines += c == '\n';
        if (is_blank(c)) {
            if (is_ended && in_sentence) {
                sentences++;
                in_sentence = false;
            }
            is_ended = in_word = false;
            continue;
        }
        words += !in_word;
        in_word = true;
        if (ends_sentence(c))
            is_ended = true;
        else if (!is_closing(c))
            is_ended = false;
        in_sentence = in_sentence || iswalnum((wint_t) c) || c >= 0x80;
    }
    lines += task->text.len > 0 && end[-1] != '\n';
    task_count(task, "characters", characters);
    task_count(task, "bytes", task->text.len);
    task_count(task, "words", words);
    task_count(task, "lines", lines);
    task_count(task, "sentences", sentences + in_sentence);
    return true;
}

enum letter_case { CASE_UPPER, CASE_LOWER, CASE_TITLE };

static bool change_case(struct task *task, enum letter_case wanted, struct tool_error *e)
{
    struct buffer out = {0};
    bool in_word = false;
    const char *end = task->text.ptr + task->text.len;
    for (const char *at = task->text.ptr; at < end;) {
        uint32_t c;
        char bytes[4];
        at += utf8_next(at, end, &c);
        bool is_upper = wanted == CASE_UPPER || (wanted == CASE_TITLE && !in_word);
        in_word = iswalnum((wint_t) c) || (in_word && (c == '\'' || c == 0x2019));
        if (c == 0xDF && is_upper) {
            buffer_add(&out, "SS", wanted == CASE_UPPER ? 2 : 1);
            continue;
        }
        c = (uint32_t) (is_upper ? towupper((wint_t) c) : towlower((wint_t) c));
        buffer_add(&out, bytes, utf8_put(bytes, c));
    }
    return task_set_text(task, &out, e);
}

bool op_upper(struct task *task, struct tool_error *e)
{
    return change_case(task, CASE_UPPER, e);
}

bool op_lower(struct task *task, struct tool_error *e)
{
    return change_case(task, CASE_LOWER, e);
}

bool op_title(struct task *task, struct tool_error *e)
{
    return change_case(task, CASE_TITLE, e);
}

bool op_trim(struct task *task, struct tool_error *e)
{
    static const char *const sides[] = {"both", "start", "end", NULL};
    struct text side;
    if (!tool_text_or(task->input, "side", TEXT("both"), &side, e))
        return false;
    int chosen = tool_choice(side, sides);
    if (chosen < 0)
        return tool_fail(e, "invalid_input", "\"side\" is both, start or end");
    const char *end = task->text.ptr + task->text.len, *first = NULL, *last = task->text.ptr;
    for (const char *at = task->text.ptr; at < end;) {
        uint32_t c;
        size_t len = utf8_next(at, end, &c);
        if (!is_blank(c)) {
            first = first == NULL ? at : first;
            last = at + len;
        }
        at += len;
    }
    if (first == NULL)
        first = last = end;
    if (chosen == 2)
        first = task->text.ptr;
    if (chosen == 1)
        last = end;
    struct buffer out = {0};
    buffer_add(&out, first, first < last ? (size_t) (last - first) : 0);
    return task_set_text(task, &out, e);
}

bool op_truncate(struct task *task, struct tool_error *e)
{
    int64_t length;
    struct text ellipsis;
    if (!tool_integer_or(task->input, "length", 100, 0, OUTPUT_BYTES_MAX, &length, e) ||
        !tool_text_or(task->input, "ellipsis", TEXT("\xE2\x80\xA6"), &ellipsis, e))
        return false;
    struct buffer out = {0};
    size_t total = utf8_count(task->text.ptr, task->text.len);
    size_t mark = utf8_count(ellipsis.ptr, ellipsis.len);
    if (total <= (size_t) length) {
        buffer_add_text(&out, task->text);
        return task_set_text(task, &out, e);
    }
    if (mark > (size_t) length)
        mark = ellipsis.len = 0;
    const char *at = task->text.ptr, *end = at + task->text.len;
    for (size_t i = 0; i < (size_t) length - mark; i++) {
        uint32_t c;
        at += utf8_next(at, end, &c);
    }
    buffer_add(&out, task->text.ptr, (size_t) (at - task->text.ptr));
    buffer_add_text(&out, ellipsis);
    return task_set_text(task, &out, e);
}

/* Letters with marks of Latin-1 and Latin Extended-A by their base letters; '-' where there is none. */
static const char *base_letter(uint32_t c)
{
    static const char latin1[] =
        "AAAAAA\1CEEEEIIIIDNOOOOO-OUUUUY-\2aaaaaa\3ceeeeiiiidnooooo-ouuuuy-y";
    static const char extended[] = "AaAaAaCcCcCcCcDdDdEeEeEeEeEeGgGgGgGgHhHhIiIiIiIiIi--JjKk-"
                                   "LlLlLlLlLlNnNnNn---OoOoOo\4\4RrRrRr"
                                   "SsSsSsSsTtTtTtUuUuUuUuUuUuWwYyYZzZzZz-";
    static char one[2];
    char letter = c >= 0xC0 && c <= 0xFF     ? latin1[c - 0xC0]
                  : c >= 0x100 && c <= 0x17F ? extended[c - 0x100]
                                             : '-';
    if (letter == 1 || letter == 3)
        return "ae";
    if (letter == 2)
        return "ss";
    if (letter == 4)
        return "oe";
    one[0] = letter;
    return letter == '-' ? "" : one;
}

bool op_slugify(struct task *task, struct tool_error *e)
{
    struct buffer out = {0};
    bool needs_dash = false;
    const char *end = task->text.ptr + task->text.len;
    for (const char *at = task->text.ptr; at < end;) {
        uint32_t c;
        char bytes[4];
        at += utf8_next(at, end, &c);
        const char *base = c >= 0xC0 && c <= 0x17F ? base_letter(c) : "";
        size_t len = strlen(base);
        memcpy(bytes, base, len);
        if (len == 0 && c < 0x80 && iswalnum((wint_t) c))
            len = utf8_put(bytes, c);
        else if (len == 0 && c > 0x17F && iswalnum((wint_t) c))
            len = utf8_put(bytes, (uint32_t) towlower((wint_t) c));
        if (len == 0) {
            needs_dash = needs_dash || (c != '\'' && c != 0x2019);
            continue;
        }
        if (needs_dash && out.len > 0)
            buffer_add(&out, "-", 1);
        needs_dash = false;
        for (size_t i = 0; i < len; i++)
            if (bytes[i] >= 'A' && bytes[i] <= 'Z')
                bytes[i] = (char) (bytes[i] + 32);
        buffer_add(&out, bytes, len);
    }
    return task_set_text(task, &out, e);
}
