#include "query.h"

#include <stdlib.h>
#include <string.h>

#include "rows.h"
#include "stage.h"

/* The stages of a query, first to last. */
struct plan {
    struct query *query;
    struct stage *stages[STEPS_MAX + 2]; /* a step may make two; then the sink */
    size_t count;
    const struct schema *schema; /* what the next stage gets */
};

static const char *const step_names[] = {"filter", "derive", "group_by", "aggregate", "sort",
                                         "limit",  "select", "distinct", "describe",  NULL};

static bool add_stage(struct plan *plan, struct stage *stage, struct tool_error *e)
{
    if (stage == NULL)
        return false;
    if (plan->count == STEPS_MAX + 1)
        return tool_fail(e, "limit", "a query has at most %d steps", STEPS_MAX);
    if (plan->count > 0)
        plan->stages[plan->count - 1]->next = stage;
    plan->stages[plan->count++] = stage;
    plan->schema = &stage->schema;
    return true;
}

/* A limit is a number, or {count, offset}. */
static bool read_limit(yyjson_val *from, int64_t *rows, int64_t *skip, struct tool_error *e)
{
    if (yyjson_is_obj(from))
        return tool_integer_or(from, "count", ROWS_RETURNED_MAX, 0, INT64_MAX, rows, e) &&
               tool_integer_or(from, "offset", 0, 0, INT64_MAX / 2, skip, e);
    *skip = 0;
    if (!yyjson_is_int(from) || (yyjson_is_sint(from) && yyjson_get_sint(from) < 0) ||
        yyjson_get_uint(from) > INT64_MAX / 2)
        return tool_fail(e, "invalid_input", "limit must be a number of rows");
    *rows = yyjson_get_sint(from);
    return true;
}

/* How many rows a sort must keep, when the step after it is a limit: 0 is all of them. */
static uint64_t rows_wanted(yyjson_val *next_step)
{
    int64_t rows, skip;
    struct tool_error ignored;
    yyjson_val *limit = yyjson_obj_get(next_step, "limit");
    if (limit == NULL || yyjson_obj_size(next_step) != 1 ||
        !read_limit(limit, &rows, &skip, &ignored))
        return 0;
    return rows <= TOP_ROWS_MAX && skip <= TOP_ROWS_MAX - rows ? (uint64_t) (rows + skip) : 0;
}

static bool add_distinct(struct plan *plan, yyjson_val *value, struct tool_error *e)
{
    if (yyjson_is_arr(value) || yyjson_is_str(value)) {
        if (!add_stage(plan, select_create(plan->query, plan->schema, value, e), e))
            return false;
    } else if (!yyjson_is_true(value))
        return tool_fail(e, "invalid_input", "distinct is true or a list of column names");
    return add_stage(plan, distinct_create(plan->query, plan->schema), e);
}

static bool add_group(struct plan *plan, yyjson_val *step, struct tool_error *e)
{
    yyjson_val *keys = yyjson_obj_get(step, "group_by"),
               *aggregate = yyjson_obj_get(step, "aggregate");
    if (aggregate == NULL)
        return tool_fail(e, "invalid_input",
                         "a step with group_by needs aggregate beside it: {\"group_by\": [\"a\"], "
                         "\"aggregate\": [{\"op\": \"mean\", \"column\": \"b\"}]}");
    if (yyjson_is_arr(keys) && yyjson_arr_size(keys) == 0)
        keys = NULL;
    return add_stage(plan, group_create(plan->query, plan->schema, keys, aggregate, e), e);
}

static bool fail_step(size_t index, yyjson_val *step, struct tool_error *e)
{
    char known[200];
    tool_list(step_names, known, sizeof known);
    yyjson_obj_iter keys;
    yyjson_obj_iter_init(step, &keys);
    const char *name = yyjson_get_str(yyjson_obj_iter_next(&keys));
    return tool_fail(
        e, "invalid_input",
        "step %zu (%s) must be an object with exactly one of %s (group_by and aggregate go "
        "together)",
        index + 1, name == NULL ? "empty" : name, known);
}

static bool add_step(struct plan *plan, yyjson_val *step, yyjson_val *next_step, size_t index,
                     struct tool_error *e)
{
    yyjson_val *value;
    const struct schema *schema = plan->schema;
    struct query *query = plan->query;
    bool is_group =
        yyjson_obj_get(step, "group_by") != NULL || yyjson_obj_get(step, "aggregate") != NULL;
    size_t allowed = yyjson_obj_get(step, "group_by") != NULL ? 2 : 1;
    if (!yyjson_is_obj(step) || yyjson_obj_size(step) == 0 || yyjson_obj_size(step) > allowed)
        return fail_step(index, step, e);
    if (is_group)
        return add_group(plan, step, e);
    if ((value = yyjson_obj_get(step, "filter")) != NULL)
        return add_stage(plan, filter_create(query, schema, value, e), e);
    if ((value = yyjson_obj_get(step, "derive")) != NULL)
        return add_stage(plan, derive_create(query, schema, value, e), e);
    if ((value = yyjson_obj_get(step, "sort")) != NULL)
        return add_stage(plan, sort_create(query, schema, value, rows_wanted(next_step), e), e);
    if ((value = yyjson_obj_get(step, "select")) != NULL)
        return add_stage(plan, select_create(query, schema, value, e), e);
    if ((value = yyjson_obj_get(step, "distinct")) != NULL)
        return add_distinct(plan, value, e);
    if (yyjson_obj_get(step, "describe") != NULL)
        return add_stage(plan, describe_create(query, schema), e);
    if ((value = yyjson_obj_get(step, "limit")) != NULL) {
        int64_t rows, skip;
        return read_limit(value, &rows, &skip, e) &&
               add_stage(plan, limit_create(query, schema, (uint64_t) rows, (uint64_t) skip), e);
    }
    return fail_step(index, step, e);
}

static bool plan_steps(struct plan *plan, yyjson_val *steps, struct tool_error *e)
{
    if (steps != NULL && !yyjson_is_null(steps) && !yyjson_is_arr(steps))
        return tool_fail(e, "invalid_input", "\"steps\" must be a list of steps");
    if (yyjson_arr_size(steps) > STEPS_MAX)
        return tool_fail(e, "limit", "a query has at most %d steps", STEPS_MAX);
    for (size_t i = 0; i < yyjson_arr_size(steps); i++)
        if (!add_step(plan, yyjson_arr_get(steps, i), yyjson_arr_get(steps, i + 1), i, e))
            return false;
    struct stage *sink = sink_create(plan->query, plan->schema);
    if (plan->count > 0)
        plan->stages[plan->count - 1]->next = sink;
    plan->stages[plan->count++] = sink;
    return true;
}

static bool run_rows(struct plan *plan, struct rows *rows, struct tool_error *e)
{
    enum flow flow = FLOW_MORE;
    while (flow == FLOW_MORE) {
        struct row *row;
        if (!rows_next(rows, &row, e))
            return false;
        if (row == NULL)
            break;
        flow = plan->stages[0]->push(plan->stages[0], row, e);
    }
    for (size_t i = 0; flow != FLOW_FAIL && i < plan->count; i++)
        if (plan->stages[i]->finish != NULL)
            flow = plan->stages[i]->finish(plan->stages[i], e);
    return flow != FLOW_FAIL;
}

static void write_notes(struct query *query)
{
    if (query->note_count == 0)
        return;
    yyjson_mut_val *notes = yyjson_mut_arr(query->output);
    for (size_t i = 0; i < query->note_count; i++)
        yyjson_mut_arr_add_str(query->output, notes, query->notes[i]);
    yyjson_mut_obj_add_val(query->output, yyjson_mut_doc_get_root(query->output), "notes", notes);
}

static bool read_options(yyjson_val *input, struct rows_options *options, struct tool_error *e)
{
    struct text format, separator;
    if (!tool_text_or(input, "format", TEXT(""), &format, e) ||
        !tool_text_or(input, "separator", TEXT(""), &separator, e) ||
        !tool_flag_or(input, "header", true, &options->has_header, e))
        return false;
    if (format.len > 0) {
        int found = tool_choice(format, data_format_names);
        if (found < 0)
            return tool_fail(e, "invalid_input",
                             "\"format\" is csv, tsv, json or jsonl, not \"" TEXT_FMT "\"",
                             TEXT_ARG(format));
        options->has_format = true;
        options->format = (enum data_format) found;
    }
    if (separator.len > 1 || (separator.len == 1 && strchr("\"\r\n", *separator.ptr) != NULL))
        return tool_fail(e, "invalid_input", "\"separator\" must be one character such as ; or |");
    options->separator = separator.len == 1 ? *separator.ptr : '\0';
    return true;
}

/* Exactly one of file and data.  Data is a list of objects or a text in one of the formats. */
static bool choose_source(yyjson_val *input, struct byte_source files, struct byte_source *source,
                          yyjson_val **rows, struct tool_error *e)
{
    yyjson_val *file = yyjson_obj_get(input, "file"), *data = yyjson_obj_get(input, "data");
    bool has_file = file != NULL && !yyjson_is_null(file);
    bool has_data = data != NULL && !yyjson_is_null(data);
    if (has_file == has_data)
        return tool_fail(e, "invalid_input",
                         "give either \"file\" (the name of a file of the session) or \"data\"");
    *rows = NULL;
    if (has_file) {
        *source = files;
        source->is_file = true;
        return tool_text(input, "file", &source->name, e);
    }
    if (yyjson_is_arr(data)) {
        *rows = data;
        return true;
    }
    if (!yyjson_is_str(data))
        return tool_fail(
            e, "invalid_input",
            "\"data\" must be a list of objects, or text in CSV, TSV, JSON or JSON lines");
    *source = byte_source_text((struct text){yyjson_get_str(data), yyjson_get_len(data)});
    return true;
}

bool query_run(yyjson_val *input, struct byte_source files, yyjson_mut_doc *output,
               struct tool_error *e)
{
    struct byte_source source = {0};
    struct rows_options options = {0};
    yyjson_val *data;
    if (!choose_source(input, files, &source, &data, e) || !read_options(input, &options, e))
        return false;

    struct rows rows;
    if (!rows_open(&rows, &source, data, options, e))
        return false;
    struct query query = {.output = output};
    pool_init(&query.pool, POOL_BYTES_MAX);
    struct plan plan = {.query = &query, .schema = &rows.schema};
    if (!plan_steps(&plan, yyjson_obj_get(input, "steps"), e) || !run_rows(&plan, &rows, e))
        return false;
    if (rows.ragged_count > 0)
        query_note(
            &query,
            "%llu records do not have %zu fields as the header does, first line %llu with %zu; "
            "missing fields are null, extra ones are left out",
            (unsigned long long) rows.ragged_count, rows.schema.count,
            (unsigned long long) rows.ragged_line, rows.ragged_fields);
    write_notes(&query);
    return true;
}
