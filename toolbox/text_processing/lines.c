/* Operations on lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"

enum { DIFF_LINES_MAX = 3000, DIFF_CONTEXT = 3 };

static bool set_lines(struct task *task, const struct text *lines, size_t count,
                      struct tool_error *e)
{
    struct buffer out = {0};
    for (size_t i = 0; i < count; i++) {
        buffer_add_text(&out, lines[i]);
        buffer_add(&out, "\n", i + 1 < count);
    }
    return task_set_text(task, &out, e);
}

static int compare_text(struct text a, struct text b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_folded(struct text a, struct text b)
{
    for (size_t i = 0; i < a.len && i < b.len; i++) {
        int x = a.ptr[i], y = b.ptr[i];
        x = x >= 'A' && x <= 'Z' ? x + 32 : x;
        y = y >= 'A' && y <= 'Z' ? y + 32 : y;
        if (x != y)
            return x - y;
    }
    return (a.len > b.len) - (a.len < b.len);
}

/* A line that does not begin with a number sorts before all that do. */
static double line_number(struct text line)
{
    char copy[64];
    size_t len = line.len < sizeof copy - 1 ? line.len : sizeof copy - 1;
    memcpy(copy, line.ptr, len);
    copy[len] = '\0';
    char *end;
    double value = strtod(copy, &end);
    return end == copy || value != value ? -__builtin_inf() : value;
}

struct order {
    bool is_numeric, ignores_case, is_descending;
};

static int compare_lines(struct text a, struct text b, const struct order *order)
{
    int result = 0;
    if (order->is_numeric) {
        double x = line_number(a), y = line_number(b);
        result = (x > y) - (x < y);
    }
    if (result == 0)
        result = order->ignores_case ? compare_folded(a, b) : compare_text(a, b);
    return order->is_descending ? -result : result;
}

/* Merge sort, so that equal lines keep their order. */
static void sort_lines(struct text *lines, struct text *spare, size_t count,
                       const struct order *order)
{
    if (count < 2)
        return;
    size_t middle = count / 2, i = 0, j = middle;
    sort_lines(lines, spare, middle, order);
    sort_lines(lines + middle, spare, count - middle, order);
    for (size_t k = 0; k < count; k++)
        spare[k] = i < middle && (j == count || compare_lines(lines[i], lines[j], order) <= 0)
                       ? lines[i++]
                       : lines[j++];
    memcpy(lines, spare, count * sizeof *lines);
}

bool op_sort_lines(struct task *task, struct tool_error *e)
{
    struct text *lines, direction;
    size_t count;
    struct order order;
    if (!tool_text_or(task->input, "order", TEXT("asc"), &direction, e) ||
        !tool_flag_or(task->input, "numeric", false, &order.is_numeric, e) ||
        !tool_flag_or(task->input, "ignore_case", false, &order.ignores_case, e) ||
        !task_lines(task->text, &lines, &count, e))
        return false;
    order.is_descending = text_equal(direction, TEXT("desc"));
    if (!order.is_descending && !text_equal(direction, TEXT("asc")))
        return tool_fail(e, "invalid_input", "\"order\" is asc or desc");
    sort_lines(lines, tool_alloc(count * sizeof *lines), count, &order);
    task_count(task, "lines", count);
    return set_lines(task, lines, count, e);
}

static uint32_t hash_line(struct text line, bool ignores_case)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char) line.ptr[i];
        c = ignores_case && c >= 'A' && c <= 'Z' ? (unsigned char) (c + 32) : c;
        hash = (hash ^ c) * 16777619u;
    }
    return hash ^ hash >> 15;
}

bool op_dedupe_lines(struct task *task, struct tool_error *e)
{
    struct text *lines;
    size_t count, kept = 0, slots = 16;
    bool ignores_case;
    if (!tool_flag_or(task->input, "ignore_case", false, &ignores_case, e) ||
        !task_lines(task->text, &lines, &count, e))
        return false;
    while (slots < count * 2)
        slots *= 2;
    uint32_t *seen = tool_alloc(slots * sizeof *seen); /* index of a kept line + 1 */
    memset(seen, 0, slots * sizeof *seen);
    for (size_t n = 0; n < count; n++) {
        size_t i = hash_line(lines[n], ignores_case) & (slots - 1);
        for (; seen[i] != 0; i = (i + 1) & (slots - 1)) {
            struct text other = lines[seen[i] - 1];
            if ((ignores_case ? compare_folded(other, lines[n]) : compare_text(other, lines[n])) ==
                0)
                break;
        }
        if (seen[i] != 0)
            continue;
        lines[kept++] = lines[n];
        seen[i] = (uint32_t) kept;
    }
    task_count(task, "lines", kept);
    task_count(task, "removed", count - kept);
    return set_lines(task, lines, kept, e);
}

bool op_join(struct task *task, struct tool_error *e)
{
    struct text separator, *lines;
    size_t count;
    struct buffer out = {0};
    yyjson_val *items = yyjson_obj_get(task->input, "items");
    if (!tool_text_or(task->input, "separator", items == NULL ? TEXT(" ") : TEXT(""), &separator,
                      e))
        return false;
    if (items != NULL && !yyjson_is_arr(items))
        return tool_fail(e, "invalid_input", "\"items\" must be a list of strings");
    if (items == NULL && !task_lines(task->text, &lines, &count, e))
        return false;
    count = items == NULL ? count : yyjson_arr_size(items);
    for (size_t i = 0; i < count; i++) {
        yyjson_val *item = items == NULL ? NULL : yyjson_arr_get(items, i);
        if (item != NULL && !yyjson_is_str(item))
            return tool_fail(e, "invalid_input", "\"items\" must be a list of strings");
        if (i > 0)
            buffer_add_text(&out, separator);
        buffer_add_text(&out, item == NULL
                                  ? lines[i]
                                  : (struct text){yyjson_get_str(item), yyjson_get_len(item)});
    }
    return task_set_text(task, &out, e);
}

/* ---- diff --------------------------------------------------------------------------------------- */

struct side {
    struct text *lines;
    size_t count;
};

struct edit {
    char mark; /* ' ', '-' or '+' */
    struct text line;
};

/* The longest common subsequence by table, over the part that differs. */
static size_t find_edits(struct side a, struct side b, struct edit *edits)
{
    size_t width = b.count + 1, count = 0, i = 0, j = 0;
    uint16_t *lengths = tool_alloc((a.count + 1) * width * sizeof *lengths);
    memset(lengths, 0, (a.count + 1) * width * sizeof *lengths);
    for (size_t x = a.count; x-- > 0;)
        for (size_t y = b.count; y-- > 0;) {
            uint16_t down = lengths[(x + 1) * width + y], right = lengths[x * width + y + 1];
            lengths[x * width + y] = text_equal(a.lines[x], b.lines[y])
                                         ? (uint16_t) (lengths[(x + 1) * width + y + 1] + 1)
                                     : down > right ? down
                                                    : right;
        }
    while (i < a.count || j < b.count) {
        if (i < a.count && j < b.count && text_equal(a.lines[i], b.lines[j])) {
            edits[count++] = (struct edit){' ', a.lines[i++]};
            j++;
        } else if (j == b.count ||
                   (i < a.count && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]))
            edits[count++] = (struct edit){'-', a.lines[i++]};
        else
            edits[count++] = (struct edit){'+', b.lines[j++]};
    }
    tool_free(lengths);
    return count;
}

/* Index of the next change at or after `from`, or count. */
static size_t next_change(const struct edit *edits, size_t count, size_t from)
{
    while (from < count && edits[from].mark == ' ')
        from++;
    return from;
}

static void write_hunk(struct buffer *out, const struct edit *edits, size_t begin, size_t end,
                       size_t old_line, size_t new_line)
{
    char head[80];
    size_t old_count = 0, new_count = 0;
    for (size_t i = begin; i < end; i++) {
        old_count += edits[i].mark != '+';
        new_count += edits[i].mark != '-';
    }
    snprintf(head, sizeof head, "@@ -%zu,%zu +%zu,%zu @@\n", old_line + (old_count > 0), old_count,
             new_line + (new_count > 0), new_count);
    buffer_add(out, head, strlen(head));
    for (size_t i = begin; i < end; i++) {
        buffer_add(out, &edits[i].mark, 1);
        buffer_add_text(out, edits[i].line);
        buffer_add(out, "\n", 1);
    }
}

/* A unified diff: hunks of changes with some lines around them. */
static void write_diff(struct buffer *out, const struct edit *edits, size_t count)
{
    size_t at = 0, old_line = 0, new_line = 0;
    for (size_t change; (change = next_change(edits, count, at)) < count;) {
        size_t begin = change - at > DIFF_CONTEXT ? change - DIFF_CONTEXT : at;
        size_t last = change;
        for (size_t next; (next = next_change(edits, count, last + 1)) < count; last = next)
            if (next - last > 2 * DIFF_CONTEXT + 1)
                break;
        size_t end = last + 1 + DIFF_CONTEXT < count ? last + 1 + DIFF_CONTEXT : count;
        old_line += begin - at;
        new_line += begin - at;
        write_hunk(out, edits, begin, end, old_line, new_line);
        for (at = begin; at < end; at++) {
            old_line += edits[at].mark != '+';
            new_line += edits[at].mark != '-';
        }
    }
}

bool op_diff(struct task *task, struct tool_error *e)
{
    struct side a, b;
    struct text other;
    if (!tool_text(task->input, "other", &other, e) ||
        !task_lines(task->text, &a.lines, &a.count, e) || !task_lines(other, &b.lines, &b.count, e))
        return false;
    struct edit *edits = tool_alloc((a.count + b.count) * sizeof *edits);
    size_t count = 0, tail = 0, added = 0, removed = 0;
    while (count < a.count && count < b.count && text_equal(a.lines[count], b.lines[count])) {
        edits[count] = (struct edit){' ', a.lines[count]};
        count++;
    }
    while (tail < a.count - count && tail < b.count - count &&
           text_equal(a.lines[a.count - 1 - tail], b.lines[b.count - 1 - tail]))
        tail++;
    struct side x = {a.lines + count, a.count - count - tail};
    struct side y = {b.lines + count, b.count - count - tail};
    if (x.count > DIFF_LINES_MAX || y.count > DIFF_LINES_MAX)
        return tool_fail(e, "limit", "the part that differs is longer than %d lines; compare less",
                         DIFF_LINES_MAX);
    count += find_edits(x, y, edits + count);
    for (size_t i = 0; i < tail; i++)
        edits[count++] = (struct edit){' ', a.lines[a.count - tail + i]};
    for (size_t i = 0; i < count; i++) {
        added += edits[i].mark == '+';
        removed += edits[i].mark == '-';
    }
    struct buffer out = {0};
    write_diff(&out, edits, count);
    task_count(task, "added", added);
    task_count(task, "removed", removed);
    return task_set_text(task, &out, e);
}
