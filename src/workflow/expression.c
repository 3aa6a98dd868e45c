#include "workflow/expression.h"

#include "base/arena.h"
#include "workflow/expression_internal.h"

/* ---- values ---- */

const char *value_kind_name(enum value_kind kind)
{
    static const char *const names[] = {
        [VALUE_NONE] = "nothing",        [VALUE_NULL] = "null_type",    [VALUE_BOOL] = "bool",
        [VALUE_INTEGER] = "int",         [VALUE_DOUBLE] = "double",     [VALUE_STRING] = "string",
        [VALUE_LIST] = "list",           [VALUE_MAP] = "map",           [VALUE_WIDE] = "uint",
        [VALUE_TIMESTAMP] = "timestamp", [VALUE_DURATION] = "duration",
    };
    return names[kind];
}

struct value value_of_tree(const struct json *tree)
{
    struct value value = {.kind = VALUE_NULL, .tree = tree};
    switch (json_type(tree)) {
    case JSON_ABSENT:
    case JSON_NULL: break;
    case JSON_BOOL:
        value.kind = VALUE_BOOL;
        (void) json_to_bool(tree, &value.is_true);
        break;
    case JSON_INTEGER:
        value.kind = json_to_i64(tree, &value.integer) ? VALUE_INTEGER : VALUE_WIDE;
        break;
    case JSON_REAL:
        value.kind = VALUE_DOUBLE;
        (void) json_to_double(tree, &value.real);
        break;
    case JSON_STRING:
        value.kind = VALUE_STRING;
        (void) json_to_str(tree, &value.text);
        break;
    case JSON_ARRAY: value.kind = VALUE_LIST; break;
    case JSON_OBJECT: value.kind = VALUE_MAP; break;
    }
    return value;
}

void value_build(struct json_builder *b, const struct value *value)
{
    if (value->tree) {
        json_build_value(b, value->tree);
        return;
    }
    switch (value->kind) {
    case VALUE_BOOL: json_build_bool(b, value->is_true); break;
    case VALUE_INTEGER: json_build_i64(b, value->integer); break;
    case VALUE_DOUBLE: json_build_double(b, value->real); break;
    case VALUE_STRING: json_build_str(b, value->text); break;
    case VALUE_TIMESTAMP:
    case VALUE_DURATION: json_build_str(b, value_time_text(b->arena, value)); break;
    case VALUE_NONE:
    case VALUE_NULL:
    case VALUE_LIST:
    case VALUE_MAP:
    case VALUE_WIDE: json_build_null(b); break; /* those that are no null have a tree */
    }
}

/* ---- bounds ---- */

void work_release(struct work *work)
{
    regex_free(&work->regex);
}

bool work_take(struct work *work, size_t steps, size_t bytes, struct error *e)
{
    if (bytes > EXPRESSION_VALUE_BYTES_MAX)
        return error_set(e, REASON_LIMIT, "a value of more than %u bytes",
                         EXPRESSION_VALUE_BYTES_MAX);
    steps += bytes / BYTES_PER_STEP;
    if (steps >= work->steps_left) {
        work->steps_left = 0;
        return error_set(e, REASON_LIMIT, "more than %u steps of work", EXPRESSION_STEPS_MAX);
    }
    work->steps_left -= steps;
    if (bytes > arena_bytes_left(work->arena))
        return error_set(e, REASON_LIMIT, "no memory is left for a value of %zu bytes", bytes);
    return true;
}

bool work_finish(struct work *work, struct json_builder *b, const struct json **out,
                 struct error *e)
{
    if (b->is_over || b->depth_max > EXPRESSION_VALUE_DEPTH_MAX)
        return error_set(e, REASON_LIMIT, "a value of more than %u parts or %u levels",
                         EXPRESSION_VALUES_MAX, EXPRESSION_VALUE_DEPTH_MAX);
    if (!work_take(work, b->count / 4, 0, e))
        return false;
    *out = json_build_finish(b);
    return true;
}

bool work_take_value(struct work *work, const struct value *value, struct error *e)
{
    return work_take(work, 0, value->tree ? json_value_count(value->tree) * 16 : 16, e);
}

static const struct json *tree_of(struct work *work, const struct value *value)
{
    if (value->tree)
        return value->tree;
    struct json_builder b;
    json_builder_init(&b, work->arena, 1);
    value_build(&b, value);
    return json_build_finish(&b);
}

/* ---- public ---- */

bool expression_parse(struct arena *arena, str text, struct expression **out, struct error *e)
{
    size_t end;
    return expression_compile(arena, text, 0, false, out, &end, e);
}

str expression_text(const struct expression *expression)
{
    return expression->text;
}

void expression_each_step(const struct expression *expression,
                          void (*visit)(void *owner, str step_id), void *owner)
{
    for (uint32_t i = 0; i < expression->step_count; i++)
        visit(owner, expression->steps[i]);
}

void expression_each_variable(const struct expression *expression,
                              void (*visit)(void *owner, str name), void *owner)
{
    for (uint32_t i = 0; i < expression->variable_count; i++)
        visit(owner, expression->variables[i]);
    if (expression->step_count > 0)
        visit(owner, S("steps"));
}

bool expression_reads(const struct expression *expression, str variable)
{
    if (str_equal(variable, S("steps")))
        return expression->step_count > 0;
    for (uint32_t i = 0; i < expression->variable_count; i++) {
        if (str_equal(expression->variables[i], variable))
            return true;
    }
    return false;
}

bool expression_evaluate(const struct expression *expression, const struct expression_scope *scope,
                         struct arena *arena, const struct json **out, struct error *e)
{
    WORK(work, arena);
    struct value value;
    if (!expression_run(expression, scope, &work, &value, e))
        return false;
    *out = tree_of(&work, &value);
    return true;
}

bool expression_test(const struct expression *expression, const struct expression_scope *scope,
                     struct arena *arena, bool *out, struct error *e)
{
    WORK(work, arena);
    struct value value;
    if (!expression_run(expression, scope, &work, &value, e))
        return false;
    if (value.kind != VALUE_BOOL)
        return error_set(e, REASON_EXPRESSION, "a condition must be true or false, not %s",
                         value_kind_name(value.kind));
    *out = value.is_true;
    return true;
}
