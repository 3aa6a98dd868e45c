/* Operators of expressions between two values. */
#include "base/arena.h"
#include "workflow/expression_internal.h"

#include <math.h>

static bool overflow(struct error *e)
{
    return error_set(e, REASON_EXPRESSION, "the result does not fit a 64-bit integer");
}

static bool integers(enum op op, int64_t a, int64_t b, struct value *out, struct error *e)
{
    int64_t result = 0;
    bool is_over = false;
    if ((op == OP_DIVIDE || op == OP_MODULO) && b == 0)
        return error_set(e, REASON_EXPRESSION, "a division by zero");
    switch ((int) op) {
    case OP_ADD: is_over = __builtin_add_overflow(a, b, &result); break;
    case OP_SUBTRACT: is_over = __builtin_sub_overflow(a, b, &result); break;
    case OP_MULTIPLY: is_over = __builtin_mul_overflow(a, b, &result); break;
    case OP_DIVIDE:
        is_over = a == INT64_MIN && b == -1;
        result = is_over ? 0 : a / b;
        break;
    default:
        is_over = a == INT64_MIN && b == -1;
        result = is_over ? 0 : a % b;
        break;
    }
    if (is_over)
        return overflow(e);
    *out = value_of_integer(result);
    return true;
}

static bool doubles(enum op op, double a, double b, struct value *out, struct error *e)
{
    double result = 0;
    switch ((int) op) {
    case OP_ADD: result = a + b; break;
    case OP_SUBTRACT: result = a - b; break;
    case OP_MULTIPLY: result = a * b; break;
    case OP_DIVIDE: result = a / b; break;
    default: return error_set(e, REASON_EXPRESSION, "%% is for ints");
    }
    if (!isfinite(result))
        return error_set(e, REASON_EXPRESSION, "the result is not a finite number");
    *out = (struct value){.kind = VALUE_DOUBLE, .real = result};
    return true;
}

static bool join_texts(struct work *work, str a, str b, struct value *out, struct error *e)
{
    if (!work_take(work, 0, a.len + b.len, e))
        return false;
    *out = value_of_text(str_join(work->arena, (str[]){a, b}, 2));
    return true;
}

static bool build_items(struct work *work, struct json_builder *b, const struct json *list,
                        struct error *e)
{
    struct value all = value_of_tree(list);
    struct json_iter it = json_iter(list);
    const struct json *item;
    if (!work_take_value(work, &all, e))
        return false;
    while (json_next(&it, NULL, &item))
        json_build_value(b, item);
    return true;
}

static bool join_lists(struct work *work, const struct value *a, const struct value *b,
                       struct value *out, struct error *e)
{
    struct json_builder list;
    const struct json *tree;
    json_builder_init(&list, work->arena, EXPRESSION_VALUES_MAX);
    json_build_array_begin(&list);
    if (!build_items(work, &list, a->tree, e) || !build_items(work, &list, b->tree, e))
        return false;
    json_build_array_end(&list);
    if (!work_finish(work, &list, &tree, e))
        return false;
    *out = value_of_tree(tree);
    return true;
}

static const char *symbol_of(enum op op)
{
    static const char *const symbols[] = {
        [OP_ADD] = "+",         [OP_SUBTRACT] = "-", [OP_MULTIPLY] = "*",
        [OP_DIVIDE] = "/",      [OP_MODULO] = "%",   [OP_LESS] = "<",
        [OP_LESS_EQUAL] = "<=", [OP_GREATER] = ">",  [OP_GREATER_EQUAL] = ">=",
    };
    return symbols[op];
}

static bool no_overload(enum op op, const struct value *a, const struct value *b, struct error *e)
{
    bool is_mixed = (a->kind == VALUE_INTEGER && b->kind == VALUE_DOUBLE) ||
                    (a->kind == VALUE_DOUBLE && b->kind == VALUE_INTEGER);
    return error_set(e, REASON_EXPRESSION, "%s between %s and %s%s", symbol_of(op),
                     value_kind_name(a->kind), value_kind_name(b->kind),
                     is_mixed ? "; convert one with double() or int()" : "");
}

bool expression_arithmetic(struct work *work, enum op op, const struct value *a,
                           const struct value *b, struct value *out, struct error *e)
{
    if (a->kind == VALUE_INTEGER && b->kind == VALUE_INTEGER)
        return integers(op, a->integer, b->integer, out, e);
    if (a->kind == VALUE_DOUBLE && b->kind == VALUE_DOUBLE)
        return doubles(op, a->real, b->real, out, e);
    if (op == OP_ADD && a->kind == VALUE_STRING && b->kind == VALUE_STRING)
        return join_texts(work, a->text, b->text, out, e);
    if (op == OP_ADD && a->kind == VALUE_LIST && b->kind == VALUE_LIST)
        return join_lists(work, a, b, out, e);
    bool is_done, ok = expression_time_arithmetic(op, a, b, out, &is_done, e);
    return is_done ? ok : no_overload(op, a, b, e);
}

/* Exactly: -1, 0, 1 as the integer lies below, at or above the double. */
static int compare_mixed(int64_t integer, double real)
{
    if (real >= 0x1p63)
        return -1;
    if (real < -0x1p63)
        return 1;
    int64_t whole = (int64_t) real;
    if (integer != whole)
        return integer < whole ? -1 : 1;
    double fraction = real - (double) whole;
    return fraction > 0 ? -1 : fraction < 0;
}

static bool compare(const struct value *a, const struct value *b, int *out)
{
    bool is_time = a->kind == VALUE_TIMESTAMP || a->kind == VALUE_DURATION;
    if (a->kind == b->kind && (a->kind == VALUE_INTEGER || is_time))
        *out = (a->integer > b->integer) - (a->integer < b->integer);
    else if (a->kind == VALUE_DOUBLE && b->kind == VALUE_DOUBLE)
        *out = (a->real > b->real) - (a->real < b->real);
    else if (a->kind == VALUE_INTEGER && b->kind == VALUE_DOUBLE)
        *out = compare_mixed(a->integer, b->real);
    else if (a->kind == VALUE_DOUBLE && b->kind == VALUE_INTEGER)
        *out = -compare_mixed(b->integer, a->real);
    else if (a->kind == VALUE_STRING && b->kind == VALUE_STRING)
        *out = str_compare(a->text, b->text);
    else if (a->kind == VALUE_BOOL && b->kind == VALUE_BOOL)
        *out = a->is_true - b->is_true;
    else
        return false;
    return true;
}

bool expression_compare(struct work *work, enum op op, const struct value *a, const struct value *b,
                        bool *out, struct error *e)
{
    int order = 0;
    if (!compare(a, b, &order))
        return no_overload(op, a, b, e);
    if (a->kind == VALUE_STRING && !work_take(work, a->text.len / BYTES_PER_STEP, 0, e))
        return false;
    *out = op == OP_LESS         ? order < 0
           : op == OP_LESS_EQUAL ? order <= 0
           : op == OP_GREATER    ? order > 0
                                 : order >= 0;
    return true;
}

bool values_equal(struct work *work, const struct value *a, const struct value *b, bool *out,
                  struct error *e)
{
    int order;
    if (a->kind < VALUE_LIST && b->kind < VALUE_LIST) {
        *out = compare(a, b, &order) ? order == 0 : a->kind == b->kind;
        size_t bytes = a->kind == VALUE_STRING ? a->text.len : 0;
        return work_take(work, bytes / BYTES_PER_STEP, 0, e);
    }
    if (a->kind != b->kind && (a->kind < VALUE_LIST || b->kind < VALUE_LIST)) {
        *out =
            false; /* a WIDE integer equals no other kind: not even a double, which is less exact */
        return true;
    }
    *out = json_equal(a->tree, b->tree, &work->steps_left);
    return work_take(work, 0, 0, e);
}
