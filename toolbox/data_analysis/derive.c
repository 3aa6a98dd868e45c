/*
 * Derive: adds a column computed from others of the same row (or replaces one of the same name).
 *
 * Date parts (year, quarter, month, year_month, date, day, weekday, day_of_year, hour, minute) of a
 * column of dates; add, subtract, multiply, divide of a column and another column or a number; round,
 * abs, lower, upper, length.  What cannot be computed is null; a note says how often and where first.
 */
#include "stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum operation {
    YEAR,
    QUARTER,
    MONTH,
    YEAR_MONTH,
    DATE,
    DAY,
    WEEKDAY,
    DAY_OF_YEAR,
    HOUR,
    MINUTE,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    ROUND,
    ABS,
    LOWER,
    UPPER,
    LENGTH
};

static const char *const operation_names[] = {
    "year",        "quarter", "month",  "year_month", "date",     "day",      "weekday",
    "day_of_year", "hour",    "minute", "add",        "subtract", "multiply", "divide",
    "round",       "abs",     "lower",  "upper",      "length",   NULL};

enum { DERIVED_TEXT_MAX = 4096 };

struct derive {
    struct stage base;
    struct text name;
    enum operation operation;
    enum civil_order order;
    size_t column, other, target;
    bool has_other;
    struct cell value; /* the number, when there is no other column; digits for round */
    struct cell *cells;
    char text[DERIVED_TEXT_MAX];
    uint64_t failed_count, failed_line;
    char failed_text[64];
};

static void set_int(struct cell *out, int64_t value)
{
    *out = (struct cell){.type = CELL_INT, .integer = value};
}

static void set_text(struct derive *derive, struct cell *out, const char *ptr, size_t len)
{
    memmove(derive->text, ptr, len);
    *out = (struct cell){.type = CELL_TEXT, .len = (uint32_t) len, .ptr = derive->text};
}

/* The parts that are numbers; false for those that are text. */
static bool date_number(enum operation operation, const struct civil *date, int *out)
{
    if (operation == YEAR)
        *out = date->year;
    else if (operation == QUARTER)
        *out = (date->month + 2) / 3;
    else if (operation == MONTH)
        *out = date->month;
    else if (operation == DAY)
        *out = date->day;
    else if (operation == DAY_OF_YEAR)
        *out = civil_day_of_year(date);
    else if (operation == HOUR)
        *out = date->hour;
    else if (operation == MINUTE)
        *out = date->minute;
    else
        return false;
    return true;
}

static bool derive_date(struct derive *derive, const struct cell *cell, struct cell *out)
{
    struct civil date;
    int number;
    char text[16];
    if (cell->type != CELL_TEXT || !civil_parse(cell->ptr, cell->len, derive->order, &date))
        return false;
    if (date_number(derive->operation, &date, &number)) {
        set_int(out, number);
        return true;
    }
    unsigned year = (unsigned) date.year % 10000, month = (unsigned) date.month % 100;
    if (derive->operation == WEEKDAY)
        snprintf(text, sizeof text, "%s", civil_weekday_names[civil_weekday(&date)]);
    else if (derive->operation == YEAR_MONTH)
        snprintf(text, sizeof text, "%04u-%02u", year, month);
    else
        snprintf(text, sizeof text, "%04u-%02u-%02u", year, month, (unsigned) date.day % 100);
    set_text(derive, out, text, strlen(text));
    return true;
}

/* Whole numbers stay exact while they fit; else the result is a real. */
static bool calculate(enum operation operation, const struct cell *a, const struct cell *b,
                      struct cell *out)
{
    int64_t whole;
    if (a->type == CELL_INT && b->type == CELL_INT && operation != DIVIDE) {
        bool has_overflow =
            operation == ADD        ? __builtin_add_overflow(a->integer, b->integer, &whole)
            : operation == SUBTRACT ? __builtin_sub_overflow(a->integer, b->integer, &whole)
                                    : __builtin_mul_overflow(a->integer, b->integer, &whole);
        if (!has_overflow) {
            set_int(out, whole);
            return true;
        }
    }
    double x = cell_real(a), y = cell_real(b);
    double real = operation == ADD        ? x + y
                  : operation == SUBTRACT ? x - y
                  : operation == MULTIPLY ? x * y
                                          : x / y;
    *out = (struct cell){.type = CELL_REAL, .real = real};
    return isfinite(real);
}

static bool derive_number(struct derive *derive, const struct row *row, const struct cell *cell,
                          struct cell *out)
{
    struct cell a, b = derive->value;
    if (!cell_to_number(cell, &a))
        return false;
    if (derive->has_other && !cell_to_number(row_cell(row, derive->other), &b))
        return false;
    if (derive->operation == ABS) {
        *out = a;
        if (a.type == CELL_REAL)
            out->real = fabs(a.real);
        else if (a.integer == INT64_MIN)
            return false;
        else
            out->integer = a.integer < 0 ? -a.integer : a.integer;
        return true;
    }
    if (derive->operation == ROUND) {
        if (a.type == CELL_INT) {
            *out = a;
            return true;
        }
        double scale = pow(10, cell_real(&b));
        double rounded = round(a.real * scale) / scale;
        *out = (struct cell){.type = CELL_REAL, .real = rounded};
        return isfinite(rounded);
    }
    return calculate(derive->operation, &a, &b, out);
}

static bool derive_text(struct derive *derive, const struct cell *cell, struct cell *out)
{
    if (cell->type != CELL_TEXT)
        return false;
    if (derive->operation == LENGTH) {
        size_t count = 0;
        for (size_t i = 0; i < cell->len; i++)
            count += ((unsigned char) cell->ptr[i] & 0xC0) != 0x80;
        set_int(out, (int64_t) count);
        return true;
    }
    if (cell->len > DERIVED_TEXT_MAX)
        return false;
    set_text(derive, out, cell->ptr, cell->len);
    char first = derive->operation == LOWER ? 'A' : 'a';
    for (size_t i = 0; i < cell->len; i++)
        if (derive->text[i] >= first && derive->text[i] <= first + 25)
            derive->text[i] ^= 0x20;
    return true;
}

static bool compute(struct derive *derive, const struct row *row, const struct cell *cell,
                    struct cell *out)
{
    if (derive->operation <= MINUTE)
        return derive_date(derive, cell, out);
    if (derive->operation <= ABS)
        return derive_number(derive, row, cell, out);
    return derive_text(derive, cell, out);
}

static enum flow derive_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    struct derive *derive = (struct derive *) stage;
    const struct cell *cell = row_cell(row, derive->column);
    struct cell result = {.type = CELL_NULL};
    bool has_input = cell->type != CELL_NULL &&
                     !(derive->has_other && row_cell(row, derive->other)->type == CELL_NULL);
    if (has_input && !compute(derive, row, cell, &result)) {
        result = (struct cell){.type = CELL_NULL};
        if (derive->failed_count++ == 0) {
            derive->failed_line = row->line;
            if (cell->type == CELL_TEXT)
                snprintf(derive->failed_text, sizeof derive->failed_text, " (\"%.*s\")",
                         (int) (cell->len < 40 ? cell->len : 40), cell->ptr);
        }
    }
    memcpy(derive->cells, row->cells, row->schema->count * sizeof *row->cells);
    derive->cells[derive->target] = result;
    struct row derived = {.schema = &stage->schema, .cells = derive->cells, .line = row->line};
    return stage_emit(stage, &derived, e);
}

static enum flow derive_finish(struct stage *stage, struct tool_error *e)
{
    (void) e;
    const struct derive *derive = (const struct derive *) stage;
    if (derive->failed_count > 0)
        query_note(stage->query,
                   "derive " TEXT_FMT
                   ": %llu rows gave null because %s could not be computed, first at "
                   "line %llu%s",
                   TEXT_ARG(derive->name), (unsigned long long) derive->failed_count,
                   operation_names[derive->operation], (unsigned long long) derive->failed_line,
                   derive->failed_text);
    return FLOW_MORE;
}

static bool read_operand(struct derive *derive, const struct schema *in, yyjson_val *step,
                         struct tool_error *e)
{
    struct text other = {"", 0};
    yyjson_val *value = yyjson_obj_get(step, "value");
    derive->has_other = yyjson_obj_get(step, "other") != NULL;
    if (derive->has_other)
        return tool_text(step, "other", &other, e) && schema_find(in, other, &derive->other, e);
    if (yyjson_is_int(value) && !(yyjson_is_uint(value) && yyjson_get_uint(value) > INT64_MAX))
        set_int(&derive->value, yyjson_get_sint(value));
    else if (yyjson_is_num(value))
        derive->value = (struct cell){.type = CELL_REAL, .real = yyjson_get_num(value)};
    else if (derive->operation == ROUND)
        set_int(&derive->value, 0);
    else
        return tool_fail(e, "invalid_input",
                         "derive %s needs \"other\" (a column) or \"value\" (a number)",
                         operation_names[derive->operation]);
    return true;
}

static bool read_step(struct derive *derive, const struct schema *in, yyjson_val *step,
                      struct tool_error *e)
{
    static const char *const orders[] = {"ymd", "mdy", "dmy", NULL};
    struct text column, operation, order;
    if (!yyjson_is_obj(step))
        return tool_fail(e, "invalid_input", "derive must be an object {as, op, column}");
    if (!tool_text(step, "as", &derive->name, e) || !tool_text(step, "op", &operation, e) ||
        !tool_text(step, "column", &column, e) || !schema_find(in, column, &derive->column, e) ||
        !tool_text_or(step, "date_order", TEXT("ymd"), &order, e))
        return false;
    int found = tool_choice(operation, operation_names);
    if (found < 0) {
        char known[300];
        tool_list(operation_names, known, sizeof known);
        return tool_fail(e, "invalid_input", "derive: unknown op \"" TEXT_FMT "\"; use one of %s",
                         TEXT_ARG(operation), known);
    }
    derive->operation = (enum operation) found;
    int order_found = tool_choice(order, orders);
    if (order_found < 0)
        return tool_fail(e, "invalid_input", "derive: \"date_order\" is ymd, mdy or dmy");
    derive->order = (enum civil_order) order_found;
    if (derive->operation >= ADD && derive->operation <= ROUND)
        return read_operand(derive, in, step, e);
    return true;
}

struct stage *derive_create(struct query *query, const struct schema *in, yyjson_val *step,
                            struct tool_error *e)
{
    struct derive *derive = stage_alloc(query, sizeof *derive);
    derive->base.push = derive_push;
    derive->base.finish = derive_finish;
    if (!read_step(derive, in, step, e))
        return NULL;
    derive->target = in->count;
    for (size_t i = 0; i < in->count; i++)
        if (text_equal(in->columns[i].name, derive->name))
            derive->target = i;
    struct schema *schema = &derive->base.schema;
    *schema = schema_create(in->count + (derive->target == in->count));
    memcpy(schema->columns, in->columns, in->count * sizeof *in->columns);
    schema->columns[derive->target] = (struct column){.name = derive->name};
    derive->cells = tool_alloc(schema->count * sizeof *derive->cells);
    return &derive->base;
}
