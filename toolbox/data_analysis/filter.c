/*
 * Filter: keeps the rows for which every condition holds.
 *
 * Numbers compare as numbers (a column of numbers given as text included), dates as dates when the value
 * is one, text byte by byte.  A null matches is_null only, whatever the operation.
 */
#include "stage.h"

#include <stdlib.h>
#include <string.h>

enum operation {
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_CONTAINS,
    OP_IN,
    OP_NOT_IN,
    OP_IS_NULL,
    OP_NOT_NULL
};

static const struct {
    const char *name;
    enum operation operation;
} operations[] = {
    {"eq", OP_EQ},
    {"=", OP_EQ},
    {"==", OP_EQ},
    {"ne", OP_NE},
    {"!=", OP_NE},
    {"lt", OP_LT},
    {"<", OP_LT},
    {"le", OP_LE},
    {"<=", OP_LE},
    {"gt", OP_GT},
    {">", OP_GT},
    {"ge", OP_GE},
    {">=", OP_GE},
    {"in", OP_IN},
    {"not_in", OP_NOT_IN},
    {"contains", OP_CONTAINS},
    {"is_null", OP_IS_NULL},
    {"not_null", OP_NOT_NULL},
};

/* What a cell is compared with, read once in every way it may be needed. */
struct operand {
    struct cell value, number;
    bool has_number, has_date;
    int64_t date_us;
};

struct condition {
    size_t column;
    enum operation operation;
    struct operand *operands; /* one, or the list of `in` */
    size_t operand_count;
};

struct filter {
    struct stage base;
    struct condition *conditions;
    size_t condition_count;
};

static bool read_date(const struct cell *cell, int64_t *date_us)
{
    struct civil date;
    if (cell->type != CELL_TEXT || cell->len < 8 ||
        !civil_parse(cell->ptr, cell->len, CIVIL_YEAR_FIRST, &date))
        return false;
    *date_us = civil_to_unix_us(&date);
    return true;
}

/* Compares as the operand's nature asks.  False: the two cannot be compared. */
static bool compare(const struct cell *cell, const struct operand *operand, int *order)
{
    struct cell number;
    int64_t date_us;
    const struct cell *value = &operand->value;
    if (value->type != CELL_TEXT || cell_is_number(cell)) {
        if (value->type == CELL_BOOL && cell->type == CELL_BOOL)
            *order = cell_compare(cell, value);
        else if (value->type == CELL_BOOL && cell->type == CELL_TEXT) {
            struct text text = cell_text(cell);
            bool is_true = text.len == 4 && strncasecmp(text.ptr, "true", 4) == 0;
            if (!is_true && !(text.len == 5 && strncasecmp(text.ptr, "false", 5) == 0))
                return false;
            *order = is_true - value->boolean;
        } else {
            if (!operand->has_number || !cell_to_number(cell, &number))
                return false;
            *order = cell_compare(&number, &operand->number);
        }
        return true;
    }
    if (cell->type != CELL_TEXT)
        return false;
    if (operand->has_date && read_date(cell, &date_us))
        *order = (date_us > operand->date_us) - (date_us < operand->date_us);
    else
        *order = cell_compare(cell, value);
    return true;
}

static bool contains(const struct cell *cell, const struct cell *part)
{
    if (cell->type != CELL_TEXT || part->len > cell->len)
        return false;
    return part->len == 0 || memmem(cell->ptr, cell->len, part->ptr, part->len) != NULL;
}

static bool is_any_of(const struct cell *cell, const struct condition *condition)
{
    int order;
    for (size_t i = 0; i < condition->operand_count; i++)
        if (compare(cell, &condition->operands[i], &order) && order == 0)
            return true;
    return false;
}

static bool holds(const struct condition *condition, const struct cell *cell)
{
    int order = 0;
    const struct operand *operand = condition->operands;
    if (condition->operation == OP_IS_NULL || cell->type == CELL_NULL)
        return condition->operation == OP_IS_NULL && cell->type == CELL_NULL;
    switch (condition->operation) {
    case OP_NOT_NULL: return true;
    case OP_CONTAINS: return contains(cell, &operand->value);
    case OP_IN: return is_any_of(cell, condition);
    case OP_NOT_IN: return !is_any_of(cell, condition);
    case OP_EQ: return compare(cell, operand, &order) && order == 0;
    case OP_NE: return !compare(cell, operand, &order) || order != 0;
    case OP_LT: return compare(cell, operand, &order) && order < 0;
    case OP_LE: return compare(cell, operand, &order) && order <= 0;
    case OP_GT: return compare(cell, operand, &order) && order > 0;
    case OP_GE: return compare(cell, operand, &order) && order >= 0;
    case OP_IS_NULL:
    default: return false;
    }
}

static enum flow filter_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    const struct filter *filter = (const struct filter *) stage;
    for (size_t i = 0; i < filter->condition_count; i++)
        if (!holds(&filter->conditions[i], row_cell(row, filter->conditions[i].column)))
            return FLOW_MORE;
    return stage_emit(stage, row, e);
}

static bool read_operand(yyjson_val *value, struct operand *out, struct tool_error *e)
{
    struct cell *cell = &out->value;
    if (yyjson_is_str(value)) {
        *cell = (struct cell){.type = CELL_TEXT, .len = (uint32_t) yyjson_get_len(value)};
        cell->ptr = yyjson_get_str(value);
    } else if (yyjson_is_bool(value))
        *cell = (struct cell){.type = CELL_BOOL, .boolean = yyjson_get_bool(value)};
    else if (yyjson_is_real(value) || (yyjson_is_uint(value) && yyjson_get_uint(value) > INT64_MAX))
        *cell = (struct cell){.type = CELL_REAL, .real = yyjson_get_num(value)};
    else if (yyjson_is_num(value))
        *cell = (struct cell){.type = CELL_INT, .integer = yyjson_get_sint(value)};
    else
        return tool_fail(
            e, "invalid_input",
            "filter: \"value\" must be a string, number or boolean (a list for in); use "
            "is_null or not_null for missing values");
    out->has_number = cell_to_number(cell, &out->number);
    out->has_date = read_date(cell, &out->date_us);
    return true;
}

static bool read_operands(yyjson_val *value, struct condition *out, struct tool_error *e)
{
    bool is_list = out->operation == OP_IN || out->operation == OP_NOT_IN;
    if (is_list && (!yyjson_is_arr(value) || yyjson_arr_size(value) > IN_VALUES_MAX))
        return tool_fail(e, "invalid_input", "filter: in needs a list of at most %d values",
                         IN_VALUES_MAX);
    out->operand_count = is_list ? yyjson_arr_size(value) : 1;
    out->operands = tool_alloc(out->operand_count * sizeof *out->operands);
    for (size_t i = 0; i < out->operand_count; i++)
        if (!read_operand(is_list ? yyjson_arr_get(value, i) : value, &out->operands[i], e))
            return false;
    if (out->operation == OP_CONTAINS && out->operands->value.type != CELL_TEXT)
        return tool_fail(e, "invalid_input", "filter: contains needs a string as \"value\"");
    return true;
}

static bool read_operation(struct text name, enum operation *out, struct tool_error *e)
{
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (strlen(operations[i].name) == name.len &&
            memcmp(operations[i].name, name.ptr, name.len) == 0) {
            *out = operations[i].operation;
            return true;
        }
    return tool_fail(e, "invalid_input",
                     "filter: unknown op \"" TEXT_FMT
                     "\"; use eq, ne, lt, le, gt, ge, contains, in, "
                     "not_in, is_null or not_null",
                     TEXT_ARG(name));
}

static bool read_condition(const struct schema *in, yyjson_val *from, struct condition *out,
                           struct tool_error *e)
{
    struct text column, operation;
    if (!yyjson_is_obj(from))
        return tool_fail(e, "invalid_input",
                         "filter: a condition is an object {column, op, value}, not %s",
                         from == NULL ? "nothing" : yyjson_get_type_desc(from));
    if (!tool_text(from, "column", &column, e) || !schema_find(in, column, &out->column, e) ||
        !tool_text_or(from, "op", TEXT("eq"), &operation, e) ||
        !read_operation(operation, &out->operation, e))
        return false;
    yyjson_val *value = yyjson_obj_get(from, "value");
    if (yyjson_is_null(value) && out->operation == OP_EQ)
        out->operation = OP_IS_NULL;
    if (yyjson_is_null(value) && out->operation == OP_NE)
        out->operation = OP_NOT_NULL;
    if (out->operation == OP_IS_NULL || out->operation == OP_NOT_NULL)
        return true;
    if (value == NULL)
        return tool_fail(e, "invalid_input",
                         "filter: the condition on \"" TEXT_FMT "\" has no \"value\"",
                         TEXT_ARG(column));
    return read_operands(value, out, e);
}

struct stage *filter_create(struct query *query, const struct schema *in, yyjson_val *step,
                            struct tool_error *e)
{
    struct filter *filter = stage_alloc(query, sizeof *filter);
    filter->base.push = filter_push;
    filter->base.schema = *in;
    bool is_list = yyjson_is_arr(step);
    filter->condition_count = is_list ? yyjson_arr_size(step) : 1;
    if (filter->condition_count > CONDITIONS_MAX) {
        tool_fail(e, "limit", "filter: at most %d conditions", CONDITIONS_MAX);
        return NULL;
    }
    filter->conditions = tool_alloc(filter->condition_count * sizeof *filter->conditions);
    for (size_t i = 0; i < filter->condition_count; i++) {
        filter->conditions[i] = (struct condition){0};
        if (!read_condition(in, is_list ? yyjson_arr_get(step, i) : step, &filter->conditions[i],
                            e))
            return NULL;
    }
    return &filter->base;
}
