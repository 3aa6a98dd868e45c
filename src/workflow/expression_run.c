/* The machine that runs a compiled expression. */
#include "base/arena.h"
#include "workflow/expression_internal.h"

/* ---- the machine ---- */

/* One macro at work. */
struct loop {
    struct json_iter it;
    enum each each;
    uint32_t slot;
    int64_t found; /* exists_one: how many */
    bool answer;   /* all, exists */
    struct json_builder list;
};

struct machine {
    const struct expression *expression;
    const struct expression_scope *scope;
    struct work *work;
    struct value *top; /* the newest value on the stack */
    struct value *slots;
    struct loop *loops;
    uint32_t loop_count;
    struct error *e;
};

static str constant_text(const struct machine *m, const struct instruction *instruction)
{
    return m->expression->constants[instruction->operand].text;
}

static bool wrong_type(struct machine *m, const char *wanted, const struct value *found)
{
    return error_set(m->e, REASON_EXPRESSION, "%s, not %s", wanted, value_kind_name(found->kind));
}

static bool no_variable(struct machine *m, str name)
{
    return error_set(m->e, REASON_EXPRESSION, "there is no \"" STR_FMT "\" here",
                     STR_ARG(str_cut_utf8(name, 60)));
}

static bool load_slot(struct machine *m, uint32_t index)
{
    struct value *slot = m->slots + index;
    if (slot->kind == VALUE_NONE) {
        str name = m->expression->variables[index];
        const struct json *tree = m->scope->find(m->scope->owner, name);
        if (!tree)
            return no_variable(m, name);
        *slot = value_of_tree(tree);
    }
    *++m->top = *slot;
    return true;
}

static const struct json *find_step(const struct machine *m, str id)
{
    const struct expression_scope *scope = m->scope;
    if (scope->find_step)
        return scope->find_step(scope->owner, id);
    return json_get(scope->find(scope->owner, S("steps")), id);
}

static bool load_step(struct machine *m, str id)
{
    const struct json *tree = find_step(m, id);
    if (!tree)
        return error_set(m->e, REASON_EXPRESSION, "no step \"" STR_FMT "\" has ended here",
                         STR_ARG(str_cut_utf8(id, 60)));
    *++m->top = value_of_tree(tree);
    return true;
}

static bool no_member(struct machine *m, str name)
{
    return error_set(m->e, REASON_EXPRESSION,
                     "there is no member \"" STR_FMT "\"; ask with has() first",
                     STR_ARG(str_cut_utf8(name, 60)));
}

/* Looking for a key looks at many. */
static bool find_member(struct machine *m, const struct value *map, str name,
                        const struct json **out)
{
    if (!work_take(m->work, json_count(map->tree) / 8, 0, m->e))
        return false;
    *out = json_get(map->tree, name);
    return true;
}

static bool run_select(struct machine *m, str name, bool is_question)
{
    const struct json *member = NULL;
    if (m->top->kind != VALUE_MAP) {
        return error_set(m->e, REASON_EXPRESSION, "\"" STR_FMT "\" is asked of %s, which is no map",
                         STR_ARG(str_cut_utf8(name, 60)), value_kind_name(m->top->kind));
    }
    if (!find_member(m, m->top, name, &member))
        return false;
    if (!member && !is_question)
        return no_member(m, name);
    *m->top = is_question ? value_of_bool(member != NULL) : value_of_tree(member);
    return true;
}

static bool run_index(struct machine *m)
{
    struct value index = *m->top--, *container = m->top;
    const struct json *item;
    if (container->kind == VALUE_MAP) {
        if (index.kind != VALUE_STRING)
            return wrong_type(m, "a key of a map is a string", &index);
        return run_select(m, index.text, false);
    }
    if (container->kind != VALUE_LIST)
        return wrong_type(m, "[] is for lists and maps", container);
    if (index.kind != VALUE_INTEGER)
        return wrong_type(m, "an index is an int", &index);
    size_t count = json_count(container->tree);
    if (index.integer < 0 || (uint64_t) index.integer >= count)
        return error_set(m->e, REASON_EXPRESSION, "index %lld of a list of %zu",
                         (long long) index.integer, count);
    if (!work_take(m->work, (size_t) index.integer / 8, 0, m->e))
        return false;
    item = json_at(container->tree, (size_t) index.integer);
    *container = value_of_tree(item);
    return true;
}

/* ---- operators ---- */

static bool run_not(struct machine *m, uint16_t count)
{
    if (m->top->kind != VALUE_BOOL)
        return wrong_type(m, "! takes a bool", m->top);
    if (count % 2 == 1)
        *m->top = value_of_bool(!m->top->is_true);
    return true;
}

static bool run_negate(struct machine *m, uint16_t count)
{
    struct value *value = m->top;
    if (value->kind != VALUE_INTEGER && value->kind != VALUE_DOUBLE)
        return wrong_type(m, "- takes an int or a double", value);
    if (count % 2 == 0)
        return true;
    value->tree = NULL;
    if (value->kind == VALUE_DOUBLE)
        value->real = -value->real;
    else if (__builtin_sub_overflow((int64_t) 0, value->integer, &value->integer))
        return error_set(m->e, REASON_EXPRESSION, "the result does not fit a 64-bit integer");
    return true;
}

static bool run_arithmetic(struct machine *m, enum op op)
{
    struct value b = *m->top--, a = *m->top;
    return expression_arithmetic(m->work, op, &a, &b, m->top, m->e);
}

static bool run_compare(struct machine *m, enum op op)
{
    struct value b = *m->top--, a = *m->top;
    *m->top = value_of_bool(false);
    return expression_compare(m->work, op, &a, &b, &m->top->is_true, m->e);
}

static bool run_equal(struct machine *m, bool is_unequal)
{
    struct value b = *m->top--, a = *m->top;
    bool is_equal = false;
    if (!values_equal(m->work, &a, &b, &is_equal, m->e))
        return false;
    *m->top = value_of_bool(is_equal != is_unequal);
    return true;
}

static bool run_in(struct machine *m)
{
    struct value container = *m->top--, item = *m->top;
    struct json_iter it = json_iter(container.tree);
    const struct json *tree = NULL;
    bool is_found = false;
    if (container.kind == VALUE_MAP) {
        if (item.kind == VALUE_STRING && !find_member(m, &container, item.text, &tree))
            return false;
        *m->top = value_of_bool(tree != NULL);
        return true;
    }
    if (container.kind != VALUE_LIST)
        return wrong_type(m, "in looks into a list or map", &container);
    while (!is_found && json_next(&it, NULL, &tree)) {
        struct value one = value_of_tree(tree);
        if (!work_take(m->work, 1, 0, m->e) || !values_equal(m->work, &item, &one, &is_found, m->e))
            return false;
    }
    *m->top = value_of_bool(is_found);
    return true;
}

/* ---- literals, calls ---- */

static bool run_list(struct machine *m, uint32_t count)
{
    struct json_builder list;
    const struct json *tree;
    m->top -= count;
    json_builder_init(&list, m->work->arena, EXPRESSION_VALUES_MAX);
    json_build_array_begin(&list);
    for (uint32_t i = 1; i <= count; i++) {
        if (!work_take_value(m->work, m->top + i, m->e))
            return false;
        value_build(&list, m->top + i);
    }
    json_build_array_end(&list);
    if (!work_finish(m->work, &list, &tree, m->e))
        return false;
    *++m->top = value_of_tree(tree);
    return true;
}

static bool check_key(struct machine *m, const struct value *entries, uint32_t index)
{
    if (entries[index].kind != VALUE_STRING)
        return wrong_type(m, "a key of a map is a string", entries + index);
    if (!work_take(m->work, index / 2, 0, m->e))
        return false;
    for (uint32_t i = 0; i < index; i += 2) {
        if (str_equal(entries[i].text, entries[index].text))
            return error_set(m->e, REASON_EXPRESSION,
                             "the key \"" STR_FMT "\" stands twice in one map",
                             STR_ARG(str_cut_utf8(entries[i].text, 60)));
    }
    return true;
}

static bool run_map(struct machine *m, uint32_t count)
{
    struct json_builder map;
    const struct json *tree;
    m->top -= count;
    const struct value *entries = m->top + 1;
    json_builder_init(&map, m->work->arena, EXPRESSION_VALUES_MAX);
    json_build_object_begin(&map);
    for (uint32_t i = 0; i < count; i += 2) {
        if (!check_key(m, entries, i) || !work_take_value(m->work, entries + i + 1, m->e))
            return false;
        json_build_key(&map, entries[i].text);
        value_build(&map, entries + i + 1);
    }
    json_build_object_end(&map);
    if (!work_finish(m->work, &map, &tree, m->e))
        return false;
    *++m->top = value_of_tree(tree);
    return true;
}

static bool run_call(struct machine *m, const struct instruction *instruction)
{
    const struct function *function = expression_functions + instruction->operand;
    m->top -= instruction->count;
    struct value result = {.kind = VALUE_NULL};
    if (!function->call(m->work, m->top + 1, instruction->count, &result, m->e))
        return error_wrap(m->e, "%s()", function->name);
    *++m->top = result;
    return true;
}

/* ---- macros ---- */

static bool each_begin(struct machine *m, const struct instruction *instruction)
{
    const struct value *range = m->top--;
    if (range->kind != VALUE_LIST && range->kind != VALUE_MAP)
        return wrong_type(m, "a macro goes over a list or map", range);
    struct loop *loop = m->loops + m->loop_count++;
    *loop = (struct loop){
        .it = json_iter(range->tree),
        .each = (enum each) instruction->operand,
        .slot = instruction->count,
        .answer = instruction->operand == EACH_ALL,
    };
    if (loop->each == EACH_MAP || loop->each == EACH_FILTER) {
        json_builder_init(&loop->list, m->work->arena, EXPRESSION_VALUES_MAX);
        json_build_array_begin(&loop->list);
    }
    return true;
}

static bool each_next(struct machine *m)
{
    struct loop *loop = m->loops + m->loop_count - 1;
    bool is_map = json_type(loop->it.container) == JSON_OBJECT;
    const struct json *item;
    str key;
    if (!json_next(&loop->it, &key, &item))
        return false;
    m->slots[loop->slot] = is_map ? value_of_text(key) : value_of_tree(item);
    return true;
}

/* *is_known: the rest of the items cannot change the answer. */
static bool each_take(struct machine *m, bool *is_known)
{
    struct loop *loop = m->loops + m->loop_count - 1;
    const struct value *body = m->top--, *item = m->slots + loop->slot;
    if (loop->each == EACH_MAP) {
        value_build(&loop->list, body);
        return work_take_value(m->work, body, m->e);
    }
    if (body->kind != VALUE_BOOL)
        return wrong_type(m, "this macro's condition must be a bool", body);
    switch (loop->each) {
    case EACH_ALL: *is_known = !(loop->answer = body->is_true); break;
    case EACH_EXISTS: *is_known = loop->answer = body->is_true; break;
    case EACH_ONE: *is_known = (loop->found += body->is_true) > 1; break;
    case EACH_FILTER:
        if (!body->is_true)
            break;
        value_build(&loop->list, item);
        return work_take_value(m->work, item, m->e);
    case EACH_MAP: break;
    }
    return true;
}

static bool each_end(struct machine *m)
{
    struct loop *loop = m->loops + --m->loop_count;
    const struct json *tree;
    m->slots[loop->slot] = (struct value){.kind = VALUE_NONE};
    if (loop->each == EACH_MAP || loop->each == EACH_FILTER) {
        json_build_array_end(&loop->list);
        if (!work_finish(m->work, &loop->list, &tree, m->e))
            return false;
        *++m->top = value_of_tree(tree);
        return true;
    }
    *++m->top = value_of_bool(loop->each == EACH_ONE ? loop->found == 1 : loop->answer);
    return true;
}

/* ---- running ---- */

/* What a jump looks at. */
static bool needs_bool(struct machine *m, const char *what)
{
    return m->top->kind == VALUE_BOOL || wrong_type(m, what, m->top);
}

/* Instructions that may move `*at`, which stands on the next one. */
static bool run_flow(struct machine *m, const struct instruction *instruction, uint32_t *at)
{
    bool is_known = false;
    switch (instruction->op) {
    case OP_JUMP: *at = instruction->operand; return true;
    case OP_AND:
    case OP_OR:
        if (!needs_bool(m, instruction->op == OP_AND ? "&& joins bools" : "|| joins bools"))
            return false;
        if (m->top->is_true == (instruction->op == OP_OR))
            *at = instruction->operand;
        else
            m->top--;
        return true;
    case OP_JUMP_UNLESS:
        if (!needs_bool(m, "a condition must be a bool"))
            return false;
        if (!(m->top--)->is_true)
            *at = instruction->operand;
        return true;
    case OP_EACH_NEXT:
        if (!each_next(m))
            *at = instruction->operand;
        return true;
    default:
        if (!each_take(m, &is_known))
            return false;
        if (is_known)
            *at = instruction->operand;
        return true;
    }
}

static bool run_one(struct machine *m, const struct instruction *instruction, uint32_t *at)
{
    enum op op = (enum op) instruction->op;
    switch (op) {
    case OP_CONSTANT: *++m->top = m->expression->constants[instruction->operand]; return true;
    case OP_SLOT: return load_slot(m, instruction->operand);
    case OP_STEP: return load_step(m, constant_text(m, instruction));
    case OP_HAS_STEP:
        *++m->top = value_of_bool(find_step(m, constant_text(m, instruction)) != NULL);
        return true;
    case OP_SELECT: return run_select(m, constant_text(m, instruction), false);
    case OP_HAS: return run_select(m, constant_text(m, instruction), true);
    case OP_INDEX: return run_index(m);
    case OP_NOT: return run_not(m, instruction->count);
    case OP_NEGATE: return run_negate(m, instruction->count);
    case OP_ADD:
    case OP_SUBTRACT:
    case OP_MULTIPLY:
    case OP_DIVIDE:
    case OP_MODULO: return run_arithmetic(m, op);
    case OP_EQUAL:
    case OP_UNEQUAL: return run_equal(m, op == OP_UNEQUAL);
    case OP_LESS:
    case OP_LESS_EQUAL:
    case OP_GREATER:
    case OP_GREATER_EQUAL: return run_compare(m, op);
    case OP_IN: return run_in(m);
    case OP_LIST: return run_list(m, instruction->operand);
    case OP_MAP: return run_map(m, instruction->operand);
    case OP_CALL: return run_call(m, instruction);
    case OP_BOOLEAN: return needs_bool(m, "&& and || join bools");
    case OP_EACH_BEGIN: return each_begin(m, instruction);
    case OP_EACH_END: return each_end(m);
    case OP_JUMP:
    case OP_AND:
    case OP_OR:
    case OP_JUMP_UNLESS:
    case OP_EACH_NEXT:
    case OP_EACH_TAKE: return run_flow(m, instruction, at);
    }
    return false;
}

enum { SMALL_STACK = 8 }; /* most expressions need no more, and take it from the C stack */

static bool run_machine(struct machine *m)
{
    const struct expression *expression = m->expression;
    for (uint32_t at = 0; at < expression->code_count;) {
        const struct instruction *instruction = expression->code + at++;
        bool is_counted = m->work->steps_left > 1;
        if (is_counted) {
            m->work->steps_left--;
            if (run_one(m, instruction, &at))
                continue;
        } else {
            error_set(m->e, REASON_LIMIT, "more than %u steps of work", EXPRESSION_STEPS_MAX);
        }
        return error_wrap(m->e, "column %u", instruction->at + 1);
    }
    return true;
}

bool expression_run(const struct expression *expression, const struct expression_scope *scope,
                    struct work *work, struct value *out, struct error *e)
{
    struct value small[SMALL_STACK] not_cleared;
    size_t count = (size_t) expression->stack_max + expression->slot_count;
    struct value *values = small;
    if (count > SMALL_STACK) {
        if (!work_take(work, 0, count * sizeof *values, e))
            return false;
        values = ARENA_ARRAY(work->arena, struct value, count);
    }
    for (uint32_t i = 0; i < expression->slot_count; i++)
        values[i].kind = VALUE_NONE;
    struct machine machine = {
        .expression = expression,
        .scope = scope,
        .work = work,
        .slots = values,
        .top = values + expression->slot_count - 1,
        .loops = ARENA_ARRAY(work->arena, struct loop, expression->each_max),
        .e = e,
    };
    if (!run_machine(&machine))
        return false;
    *out = *machine.top;
    return true;
}
