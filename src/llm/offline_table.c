/* an analysis as a call of data_analysis, and its result as sentences */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/offline_internal.h"

static const char *const operation_names[] = {
    [OPERATION_COUNT] = "count",   [OPERATION_SUM] = "sum",
    [OPERATION_MEAN] = "mean",     [OPERATION_MEDIAN] = "median",
    [OPERATION_STDDEV] = "stddev", [OPERATION_MIN] = "min",
    [OPERATION_MAX] = "max",       [OPERATION_COUNT_DISTINCT] = "count_distinct",
};

static const char *const operation_phrases[] = {
    [OPERATION_COUNT] = "number of rows",
    [OPERATION_SUM] = "total",
    [OPERATION_MEAN] = "average",
    [OPERATION_MEDIAN] = "median",
    [OPERATION_STDDEV] = "standard deviation",
    [OPERATION_MIN] = "lowest",
    [OPERATION_MAX] = "highest",
    [OPERATION_COUNT_DISTINCT] = "number of different values of",
};

/* ---- reading results ---- */

bool offline_read_result(struct arena *arena, const struct part *part, struct analysis_result *out)
{
    const struct json *tree;
    struct error ignored = {0};
    if (part->is_error ||
        !json_parse(arena, part->text, (struct json_limits){.allow_duplicates = true}, &tree,
                    &ignored))
        return false;
    if (!json_get(tree, S("columns")))
        tree = json_get(tree, S("output"));
    out->columns = json_get(tree, S("columns"));
    out->rows = json_get(tree, S("rows"));
    out->row_count = json_i64_or(tree, S("row_count"), (int64_t) json_count(out->rows));
    return json_type(out->columns) == JSON_ARRAY && json_type(out->rows) == JSON_ARRAY;
}

static size_t find_index(const struct json *columns, str name)
{
    const struct json *item;
    str text;
    size_t index = 0;
    struct json_iter it = json_iter(columns);
    while (json_next(&it, NULL, &item)) {
        if (json_to_str(item, &text) && str_equal(text, name))
            return index;
        index++;
    }
    return SIZE_MAX;
}

static const struct json *cell(const struct analysis_result *result, const struct json *row,
                               const char *name)
{
    size_t index = find_index(result->columns, str_from_cstr(name));
    return index == SIZE_MAX ? NULL : json_at(row, index);
}

/* A value as the tool wrote it, so that figures can be found again. */
static str value_text(struct arena *arena, const struct json *value)
{
    str text;
    if (json_to_str(value, &text))
        return text;
    return json_type(value) == JSON_NULL ? S("(missing)") : json_print(arena, value);
}

/* Type "number" or "integer" counts; a whole number with few values (cylinders, class) may group as
 * well. */
bool offline_read_table(struct arena *arena, str file, const struct part *describe,
                        struct table *out)
{
    struct analysis_result result;
    const struct json *row;
    if (!offline_read_result(arena, describe, &result))
        return false;
    *out = (struct table){.file = file};
    out->columns = ARENA_ARRAY(arena, struct column, OFFLINE_COLUMNS_MAX);
    struct json_iter it = json_iter(result.rows);
    while (json_next(&it, NULL, &row) && out->count < OFFLINE_COLUMNS_MAX) {
        struct column column = {.distinct = -1};
        str type;
        if (!json_to_str(cell(&result, row, "column"), &column.name) ||
            !json_to_str(cell(&result, row, "type"), &type))
            continue;
        json_to_i64(cell(&result, row, "count"), &column.count);
        json_to_i64(cell(&result, row, "distinct"), &column.distinct);
        column.is_number = str_equal(type, S("number")) || str_equal(type, S("integer"));
        column.is_date = str_equal(type, S("date"));
        column.is_category = str_equal(type, S("text")) || str_equal(type, S("boolean")) ||
                             str_equal(type, S("mixed"));
        column.min = value_text(arena, cell(&result, row, "min"));
        column.max = value_text(arena, cell(&result, row, "max"));
        column.words = offline_words(arena, column.name);
        out->columns[out->count++] = column;
    }
    return out->count > 0;
}

/* ---- values as filters ---- */

static bool value_is_named(struct words *value, struct words *question, bool take)
{
    for (size_t v = 0; v < value->count; v++) {
        bool is_found = false;
        for (size_t i = 0; i < question->count && !is_found; i++) {
            struct word *word = &question->items[i];
            if (word->is_used && !take)
                continue;
            is_found = offline_word_match(&value->items[v], word) >= (word->text.len < 4 ? 3 : 2);
            if (is_found && take)
                word->is_used = true;
        }
        if (!is_found)
            return false;
    }
    return value->count > 0;
}

void offline_plan_value(struct analysis *analysis, const struct column *column,
                        const struct analysis_result *values, struct words *words,
                        struct arena *arena)
{
    struct analysis_filter filter = {.column = column, .operation = "eq"};
    const struct json *row;
    str text;
    struct json_iter it = json_iter(values->rows);
    struct words named[ARRAY_COUNT(filter.values)];
    while (json_next(&it, NULL, &row) && filter.value_count < ARRAY_COUNT(filter.values)) {
        const struct json *value = json_at(row, 0);
        if (!json_to_str(value, &text) || text.len > 200)
            continue;
        struct words value_words = offline_words(arena, text);
        if (!value_is_named(&value_words, words, false))
            continue;
        named[filter.value_count] = value_words;
        filter.values[filter.value_count++] = json_print(arena, value);
    }
    if (filter.value_count == 0 || analysis->filter_count == ARRAY_COUNT(analysis->filters))
        return;
    for (size_t i = 0; i < filter.value_count; i++)
        value_is_named(&named[i], words, true);
    if (filter.value_count > 1)
        filter.operation = "in";
    analysis->filters[analysis->filter_count++] = filter;
}

/* ---- arguments ---- */

static void write_step_column(struct json_writer *w, const char *step, str column)
{
    json_object_begin(w);
    json_key(w, str_from_cstr(step));
    json_object_begin(w);
    json_put_str(w, S("column"), column);
}

static void end_step(struct json_writer *w)
{
    json_object_end(w);
    json_object_end(w);
}

static void write_derive(struct json_writer *w, const struct column *column, const char *operation)
{
    write_step_column(w, "derive", column->name);
    json_put_str(w, S("op"), str_from_cstr(operation));
    json_put_str(w, S("as"), str_from_cstr(operation));
    end_step(w);
}

static void write_filter(struct json_writer *w, const struct analysis_filter *filter)
{
    if (filter->is_year)
        write_derive(w, filter->column, "year");
    write_step_column(w, "filter", filter->is_year ? S("year") : filter->column->name);
    json_put_str(w, S("op"), str_from_cstr(filter->operation));
    json_key(w, S("value"));
    if (filter->value_count > 1)
        json_array_begin(w);
    for (size_t i = 0; i < filter->value_count; i++)
        json_write_raw(w, filter->values[i]);
    if (filter->value_count > 1)
        json_array_end(w);
    end_step(w);
}

static str group_name(const struct analysis *analysis)
{
    return analysis->period ? str_from_cstr(analysis->period) : analysis->group->name;
}

static void write_aggregate_item(struct json_writer *w, enum analysis_operation operation,
                                 const struct column *measure)
{
    json_object_begin(w);
    json_put_str(w, S("op"), str_from_cstr(operation_names[operation]));
    if (measure)
        json_put_str(w, S("column"), measure->name);
    json_object_end(w);
}

static void write_aggregate(struct json_writer *w, const struct analysis *analysis)
{
    json_object_begin(w);
    if (analysis->group) {
        json_key(w, S("group_by"));
        json_array_begin(w);
        json_write_str(w, group_name(analysis));
        json_array_end(w);
    }
    json_key(w, S("aggregate"));
    json_array_begin(w);
    if (analysis->operation != OPERATION_COUNT)
        write_aggregate_item(w, analysis->operation, analysis->measure);
    write_aggregate_item(w, OPERATION_COUNT, NULL);
    json_array_end(w);
    json_object_end(w);
}

static void write_sort(struct json_writer *w, str column, bool is_descending)
{
    json_object_begin(w);
    json_key(w, S("sort"));
    json_array_begin(w);
    json_object_begin(w);
    json_put_str(w, S("column"), column);
    json_put_str(w, S("order"), is_descending ? S("desc") : S("asc"));
    json_object_end(w);
    json_array_end(w);
    json_object_end(w);
}

static void write_limit(struct json_writer *w, int64_t rows)
{
    json_object_begin(w);
    json_put_i64(w, S("limit"), rows);
    json_object_end(w);
}

static void write_not_null(struct json_writer *w, const struct column *column)
{
    write_step_column(w, "filter", column->name);
    json_put_str(w, S("op"), S("not_null"));
    end_step(w);
}

static void write_group_order(struct json_writer *w, const struct analysis *analysis)
{
    bool is_time = analysis->period || analysis->group->is_date;
    str value = S("count"); /* as data_analysis names its aggregates: mean_wind */
    if (analysis->operation != OPERATION_COUNT)
        value = str_printf(w->out->arena, "%s_" STR_FMT, operation_names[analysis->operation],
                           STR_ARG(analysis->measure->name));
    if (analysis->direction == 0 && is_time)
        write_sort(w, group_name(analysis), false);
    else
        write_sort(w, value, analysis->direction >= 0);
    write_limit(w, analysis->limit > 0 ? analysis->limit : 50);
}

str offline_arguments(struct arena *arena, const struct analysis *analysis)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 64 << 10);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("file"), analysis->table->file);
    json_key(&w, S("steps"));
    json_array_begin(&w);
    for (size_t i = 0; i < analysis->filter_count; i++)
        write_filter(&w, &analysis->filters[i]);
    if (analysis->is_rows) {
        write_not_null(&w, analysis->measure);
        write_sort(&w, analysis->measure->name, analysis->direction > 0);
        write_limit(&w, analysis->limit > 0 ? analysis->limit : 1);
    } else {
        if (analysis->group && analysis->period)
            write_derive(&w, analysis->group, analysis->period);
        write_aggregate(&w, analysis);
        if (analysis->group)
            write_group_order(&w, analysis);
    }
    json_array_end(&w);
    json_object_end(&w);
    return strbuf_str(&text);
}

/* ---- sentences ---- */

static const char *comparison_phrase(const char *operation)
{
    static const char *const phrases[][2] = {{"eq", "is"},       {"in", "is one of"},
                                             {"gt", "is above"}, {"ge", "is at least"},
                                             {"lt", "is below"}, {"le", "is at most"}};
    for (size_t i = 0; i < ARRAY_COUNT(phrases); i++) {
        if (strcmp(phrases[i][0], operation) == 0)
            return phrases[i][1];
    }
    return operation;
}

static void tell_filters(struct offline_turn *turn, const struct analysis *analysis)
{
    for (size_t i = 0; i < analysis->filter_count; i++) {
        const struct analysis_filter *filter = &analysis->filters[i];
        offline_say(turn, "%s%s" STR_FMT " %s ", i == 0 ? " where " : " and ",
                    filter->is_year ? "the year of " : "", STR_ARG(filter->column->name),
                    comparison_phrase(filter->operation));
        for (size_t k = 0; k < filter->value_count; k++)
            offline_say(turn, "%s" STR_FMT, k ? ", " : "", STR_ARG(filter->values[k]));
    }
}

/* "average wind", "number of rows" */
static void tell_measure(struct offline_turn *turn, const struct analysis *analysis)
{
    offline_say(turn, "%s", operation_phrases[analysis->operation]);
    if (analysis->measure && analysis->operation != OPERATION_COUNT)
        offline_say(turn, " " STR_FMT, STR_ARG(analysis->measure->name));
}

/* A row of a result is: the group (when there is one), the figure, the count of rows; read by
 * place, for a column may
 * bear any name.  A count is both the figure and the last. */
static const struct json *figure(const struct analysis *analysis, const struct json *row)
{
    return json_at(row, analysis->group ? 1 : 0);
}

static const struct json *row_count_of(const struct json *row)
{
    return json_at(row, json_count(row) - 1);
}

static void tell_total(struct offline_turn *turn, const struct analysis *analysis,
                       const struct analysis_result *result)
{
    const struct json *row = json_at(result->rows, 0);
    offline_say(turn, "In " STR_FMT " the ", STR_ARG(analysis->table->file));
    tell_measure(turn, analysis);
    tell_filters(turn, analysis);
    offline_say(turn, " is " STR_FMT, STR_ARG(value_text(turn->arena, figure(analysis, row))));
    if (analysis->operation != OPERATION_COUNT)
        offline_say(turn, " (over " STR_FMT " rows)",
                    STR_ARG(value_text(turn->arena, row_count_of(row))));
    offline_say(turn, ".");
}

static void tell_winner(struct offline_turn *turn, const struct analysis *analysis,
                        const struct analysis_result *result)
{
    const struct json *first = json_at(result->rows, 0);
    str group = group_name(analysis);
    offline_say(turn, "The " STR_FMT " with the %s ", STR_ARG(group),
                analysis->direction > 0 ? "highest" : "lowest");
    if (analysis->operation != OPERATION_MAX && analysis->operation != OPERATION_MIN)
        tell_measure(turn, analysis);
    else
        offline_say(turn, STR_FMT, STR_ARG(analysis->measure->name));
    tell_filters(turn, analysis);
    offline_say(turn, " is " STR_FMT, STR_ARG(value_text(turn->arena, json_at(first, 0))));
    offline_say(turn, ", with " STR_FMT ".\n\n",
                STR_ARG(value_text(turn->arena, figure(analysis, first))));
}

static void tell_groups(struct offline_turn *turn, const struct analysis *analysis,
                        const struct analysis_result *result)
{
    char *group = str_to_cstr(turn->arena, group_name(analysis));
    const struct json *row;
    size_t shown = 0, most = analysis->limit > OFFLINE_ROWS_SHOWN ? (size_t) analysis->limit
                                                                  : OFFLINE_ROWS_SHOWN;
    if (analysis->direction != 0)
        tell_winner(turn, analysis, result);
    offline_say(turn, "The ");
    tell_measure(turn, analysis);
    offline_say(turn, " for each %s", group);
    tell_filters(turn, analysis);
    offline_say(turn, ":\n");
    struct json_iter it = json_iter(result->rows);
    while (json_next(&it, NULL, &row) && shown < most) {
        offline_say(turn, "- " STR_FMT ": " STR_FMT,
                    STR_ARG(value_text(turn->arena, json_at(row, 0))),
                    STR_ARG(value_text(turn->arena, figure(analysis, row))));
        if (analysis->operation != OPERATION_COUNT)
            offline_say(turn, " (" STR_FMT " rows)",
                        STR_ARG(value_text(turn->arena, row_count_of(row))));
        offline_say(turn, "\n");
        shown++;
    }
    if (json_count(result->rows) > shown)
        offline_say(turn, "- and %zu more\n", json_count(result->rows) - shown);
}

static void tell_rows(struct offline_turn *turn, const struct analysis *analysis,
                      const struct analysis_result *result)
{
    const struct json *row, *value;
    offline_say(turn, "The rows of " STR_FMT " with the %s " STR_FMT,
                STR_ARG(analysis->table->file), analysis->direction > 0 ? "highest" : "lowest",
                STR_ARG(analysis->measure->name));
    tell_filters(turn, analysis);
    offline_say(turn, ":\n");
    struct json_iter rows = json_iter(result->rows);
    while (json_next(&rows, NULL, &row)) {
        struct json_iter values = json_iter(row);
        offline_say(turn, "-");
        for (size_t i = 0; json_next(&values, NULL, &value) && i < 20; i++)
            offline_say(turn, "%s " STR_FMT " " STR_FMT, i ? "," : "",
                        STR_ARG(value_text(turn->arena, json_at(result->columns, i))),
                        STR_ARG(value_text(turn->arena, value)));
        offline_say(turn, "\n");
    }
}

static void tell_overview(struct offline_turn *turn, const struct analysis *analysis)
{
    const struct table *table = analysis->table;
    offline_say(turn,
                "I found no column of " STR_FMT
                " named in the question, so here is an overview. Its columns: ",
                STR_ARG(table->file));
    for (size_t i = 0; i < table->count && i < 20; i++) {
        const struct column *column = &table->columns[i];
        offline_say(turn, "%s" STR_FMT " (" STR_FMT " to " STR_FMT ")", i ? ", " : "",
                    STR_ARG(column->name), STR_ARG(str_cut_utf8(column->min, 40)),
                    STR_ARG(str_cut_utf8(column->max, 40)));
    }
    offline_say(turn, ".\n\n");
}

void offline_tell_result(struct offline_turn *turn, const struct analysis *analysis,
                         const struct part *part)
{
    struct analysis_result result;
    if (part->is_error) {
        offline_say(turn,
                    "the call of data_analysis failed, so I have no figures. It said: " STR_FMT,
                    STR_ARG(str_cut_utf8(part->text, 400)));
        return;
    }
    if (!offline_read_result(turn->arena, part, &result)) {
        offline_say(turn, "the result of data_analysis is no table that I can read.");
        return;
    }
    if (json_count(result.rows) == 0) {
        offline_say(turn, "no row of " STR_FMT " fits the question",
                    STR_ARG(analysis->table->file));
        tell_filters(turn, analysis);
        offline_say(turn, ".");
    } else if (analysis->is_rows) {
        tell_rows(turn, analysis, &result);
    } else {
        if (analysis->is_overview)
            tell_overview(turn, analysis);
        if (analysis->group)
            tell_groups(turn, analysis, &result);
        else
            tell_total(turn, analysis, &result);
    }
    offline_say(turn,
                "\nEach figure is copied from the result of the tool call " STR_FMT
                " (data_analysis).",
                STR_ARG(part->call_id));
}
