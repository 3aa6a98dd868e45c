/*
 * One pass: while the grammar is read, instructions are written (postfix order is the order of evaluation).  Precedence, lowest
 * first:  ?:   ||   &&   == != < <= > >= in   + -   * / %   ! -   . [] ()
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "workflow/expression_internal.h"

enum { LOCALS_MAX = EXPRESSION_DEPTH_MAX, VARIABLES_MAX = 16, CODE_MAX = EXPRESSION_BYTES_MAX };

struct parser {
    struct lexer lexer;
    struct token token; /* the one looked at */
    struct arena *arena;
    struct instruction *code;
    struct value *constants;
    str *steps;
    uint32_t code_count, code_capacity, constant_count, constant_capacity;
    uint32_t step_count, step_capacity;
    str variables[VARIABLES_MAX];
    uint32_t variable_count;
    str locals[LOCALS_MAX]; /* of the macros around; the newest last */
    uint32_t local_count, local_max;
    uint32_t stack, stack_max; /* values on the stack at this point */
    uint32_t depth, each, each_max;
    uint32_t member_end; /* code_count right after a member was read: has() asks */
    struct error *e;
};

static bool parse_expression(struct parser *p);

/* ---- emitting ---- */

static void *grow(struct parser *p, void *items, uint32_t count, uint32_t *capacity, size_t bytes)
{
    if (count < *capacity)
        return items;
    uint32_t wanted = *capacity ? *capacity * 2 : 8;
    items = arena_grow(p->arena, items, *capacity * bytes, wanted * bytes);
    *capacity = wanted;
    return items;
}

/* `stack_change`: what it adds to the stack.  Gives the instruction's index. */
static uint32_t emit(struct parser *p, enum op op, uint32_t operand, int stack_change, uint32_t at)
{
    p->code = grow(p, p->code, p->code_count, &p->code_capacity, sizeof *p->code);
    p->code[p->code_count] = (struct instruction){.op = (uint8_t) op, .operand = operand, .at = at};
    p->stack += (uint32_t) stack_change;
    if (p->stack > p->stack_max)
        p->stack_max = p->stack;
    return p->code_count++;
}

static void emit_counted(struct parser *p, enum op op, uint32_t operand, uint32_t count,
                         int stack_change, uint32_t at)
{
    uint32_t index = emit(p, op, operand, stack_change, at);
    p->code[index].count = (uint16_t) count;
}

static uint32_t constant(struct parser *p, struct value value)
{
    p->constants =
        grow(p, p->constants, p->constant_count, &p->constant_capacity, sizeof *p->constants);
    p->constants[p->constant_count] = value;
    return p->constant_count++;
}

static void jump_here(struct parser *p, uint32_t instruction)
{
    p->code[instruction].operand = p->code_count;
}

/* ---- tokens ---- */

static bool advance(struct parser *p)
{
    return lexer_next(&p->lexer, &p->token, p->e);
}

static bool at_symbol(const struct parser *p, const char *text)
{
    return p->token.kind == TOKEN_SYMBOL && str_equal(p->token.text, str_from_cstr(text));
}

static bool fail_here(struct parser *p, const char *what)
{
    return expression_fail(p->e, REASON_INVALID, p->token.at, "%s", what);
}

static bool expect(struct parser *p, const char *symbol, const char *what)
{
    return at_symbol(p, symbol) ? advance(p) : fail_here(p, what);
}

static bool deeper(struct parser *p)
{
    if (++p->depth <= EXPRESSION_DEPTH_MAX)
        return true;
    return expression_fail(p->e, REASON_INVALID, p->token.at,
                           "nested deeper than %u levels; split it over several steps",
                           EXPRESSION_DEPTH_MAX);
}

/* ---- names ---- */

static void note_step(struct parser *p, str id)
{
    for (uint32_t i = 0; i < p->step_count; i++) {
        if (str_equal(p->steps[i], id))
            return;
    }
    p->steps = grow(p, p->steps, p->step_count, &p->step_capacity, sizeof *p->steps);
    p->steps[p->step_count++] = id;
}

/* steps.ID or steps["ID"]: named, so that a definition can be checked before it runs. */
static bool parse_step(struct parser *p, uint32_t at)
{
    bool is_index = at_symbol(p, "[");
    enum token_kind wanted = is_index ? TOKEN_STRING : TOKEN_NAME;
    if (!is_index && !at_symbol(p, "."))
        return fail_here(p, "name the step: steps.ID");
    if (!advance(p))
        return false;
    if (p->token.kind != wanted)
        return fail_here(p, "name the step: steps.ID or steps[\"ID\"]; it cannot be computed");
    str id = str_copy(p->arena, p->token.text);
    note_step(p, id);
    emit(p, OP_STEP, constant(p, value_of_text(id)), 1, at);
    p->member_end = p->code_count;
    if (!advance(p))
        return false;
    return !is_index || expect(p, "]", "expected ]");
}

static bool is_local(const struct parser *p, str name, uint32_t *slot)
{
    for (uint32_t i = p->local_count; i > 0; i--) {
        if (str_equal(p->locals[i - 1], name)) {
            *slot = i - 1;
            return true;
        }
    }
    return false;
}

/* type(x) gives such a name as a string, so type(x) == int reads as in CEL. */
static bool is_type_name(str name)
{
    static const enum value_kind kinds[] = {VALUE_NULL,   VALUE_BOOL,      VALUE_INTEGER,
                                            VALUE_DOUBLE, VALUE_STRING,    VALUE_LIST,
                                            VALUE_MAP,    VALUE_TIMESTAMP, VALUE_DURATION};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        if (str_equal(name, str_from_cstr(value_kind_name(kinds[i]))))
            return true;
    }
    return false;
}

/* Slots of macros are numbered from VARIABLES_MAX while the variables of the scope are not all known yet. */
static bool parse_variable(struct parser *p, str name, uint32_t at)
{
    uint32_t slot = 0;
    if (is_local(p, name, &slot)) {
        emit(p, OP_SLOT, VARIABLES_MAX + slot, 1, at);
        return true;
    }
    if (str_equal(name, S("steps")))
        return parse_step(p, at);
    if (is_type_name(name)) {
        emit(p, OP_CONSTANT, constant(p, value_of_text(str_copy(p->arena, name))), 1, at);
        return true;
    }
    while (slot < p->variable_count && !str_equal(p->variables[slot], name))
        slot++;
    if (slot == VARIABLES_MAX)
        return expression_fail(p->e, REASON_INVALID, at, "more than %d variables", VARIABLES_MAX);
    if (slot == p->variable_count)
        p->variables[p->variable_count++] = str_copy(p->arena, name);
    emit(p, OP_SLOT, slot, 1, at);
    return true;
}

/* ---- calls ---- */

/* From after "(" to after ")". */
static bool parse_arguments(struct parser *p, uint32_t *count)
{
    while (!at_symbol(p, ")")) {
        if (!parse_expression(p))
            return false;
        if (++*count > UINT16_MAX)
            return fail_here(p, "too many arguments");
        if (!at_symbol(p, ","))
            break;
        if (!advance(p))
            return false;
    }
    return expect(p, ")", "expected , or )");
}

/* A last argument that stands there as a text. */
static bool check_written(struct parser *p, const struct function *function)
{
    const struct instruction *last = p->code + p->code_count - 1;
    struct error why = {0};
    if (!function->check || last->op != OP_CONSTANT ||
        p->constants[last->operand].kind != VALUE_STRING ||
        function->check(p->constants[last->operand].text, p->arena, &why))
        return true;
    return expression_fail(p->e, REASON_INVALID, last->at, "%s(): %s", function->name, why.message);
}

static bool parse_call(struct parser *p, str name, uint32_t count, bool is_method, uint32_t at)
{
    const struct function *found = NULL;
    if (!parse_arguments(p, &count))
        return false;
    for (size_t i = 0; i < expression_function_count && !found; i++) {
        const struct function *function = expression_functions + i;
        if (str_equal(str_from_cstr(function->name), name))
            found = function;
    }
    if (!found)
        return expression_fail(p->e, REASON_INVALID, at, "there is no function " STR_FMT "()",
                               STR_ARG(str_cut_utf8(name, 60)));
    if (is_method ? !found->is_method : !found->is_global)
        return expression_fail(p->e, REASON_INVALID, at, "write %s instead",
                               is_method ? "f(x), not x.f()" : "x.f(), not f(x)");
    if (count < found->arguments_min || count > found->arguments_max)
        return expression_fail(p->e, REASON_INVALID, at,
                               "%s takes %d to %d arguments%s, %u are given", found->name,
                               found->arguments_min - is_method, found->arguments_max - is_method,
                               is_method ? " in its parentheses" : "", count - is_method);
    if (!check_written(p, found))
        return false;
    emit_counted(p, OP_CALL, (uint32_t) (found - expression_functions), count, 1 - (int) count, at);
    return true;
}

/* has(x.y): the member is asked for, not read. */
static bool parse_postfix(struct parser *p);

static bool parse_has(struct parser *p, uint32_t at)
{
    if (!deeper(p) || !parse_postfix(p))
        return false;
    p->depth--;
    struct instruction *last = p->code + p->code_count - 1;
    if (!at_symbol(p, ")") || p->member_end != p->code_count)
        return expression_fail(p->e, REASON_INVALID, at,
                               "has() takes one member of something, as in has(input.name)");
    last->op = last->op == OP_SELECT ? OP_HAS : OP_HAS_STEP;
    return advance(p);
}

/* ---- macros ---- */

static bool macro_of(str name, enum each *out)
{
    static const str names[] = {
        [EACH_ALL] = S_INIT("all"),        [EACH_EXISTS] = S_INIT("exists"),
        [EACH_ONE] = S_INIT("exists_one"), [EACH_MAP] = S_INIT("map"),
        [EACH_FILTER] = S_INIT("filter"),
    };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (str_equal(names[i], name)) {
            *out = (enum each) i;
            return true;
        }
    }
    return false;
}

static bool parse_macro_variable(struct parser *p)
{
    if (p->token.kind != TOKEN_NAME)
        return fail_here(p, "a macro begins with the name for its items, as in list.all(x, x > 0)");
    if (p->local_count == LOCALS_MAX)
        return fail_here(p, "too many macros inside each other");
    p->locals[p->local_count++] = str_copy(p->arena, p->token.text);
    if (p->local_count > p->local_max)
        p->local_max = p->local_count;
    return advance(p) && expect(p, ",", "expected , and what to compute of each item");
}

/* LIST.macro(x, body), and LIST.map(x, condition, body).  The list is on the stack already. */
static bool parse_macro(struct parser *p, enum each each, uint32_t at)
{
    if (!deeper(p) || !parse_macro_variable(p))
        return false;
    emit_counted(p, OP_EACH_BEGIN, each, VARIABLES_MAX + p->local_count - 1, -1, at);
    if (++p->each > p->each_max)
        p->each_max = p->each;
    uint32_t next = emit(p, OP_EACH_NEXT, 0, 0, at);
    if (!parse_expression(p))
        return false;
    if (each == EACH_MAP && at_symbol(p, ",")) {
        emit(p, OP_JUMP_UNLESS, next, -1, p->token.at);
        if (!advance(p) || !parse_expression(p))
            return false;
    }
    uint32_t take = emit(p, OP_EACH_TAKE, 0, -1, at);
    emit(p, OP_JUMP, next, 0, at);
    jump_here(p, next);
    jump_here(p, take);
    emit(p, OP_EACH_END, 0, 1, at);
    p->local_count--;
    p->each--;
    p->depth--;
    return expect(p, ")", "expected )");
}

/* ---- literals ---- */

static bool integer_of(str text, bool is_negative, int64_t *out)
{
    uint64_t value = 0, limit = (uint64_t) INT64_MAX + is_negative;
    bool is_hex = text.len > 2 && (text.ptr[1] | 0x20) == 'x';
    uint64_t base = is_hex ? 16 : 10;
    for (size_t i = is_hex ? 2 : 0; i < text.len; i++) {
        char c = text.ptr[i];
        uint64_t digit = (uint64_t) (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit, &value) || value > limit)
            return false;
    }
    *out = is_negative ? (int64_t) (0 - value) : (int64_t) value;
    return true;
}

static bool parse_number(struct parser *p, bool is_negative)
{
    struct value value = {.kind = VALUE_INTEGER};
    if (p->token.kind == TOKEN_INTEGER) {
        if (!integer_of(p->token.text, is_negative, &value.integer))
            return fail_here(p, "this integer does not fit 64 bits; write it with .0 as a double");
    } else {
        value.kind = VALUE_DOUBLE;
        if (!str_to_double(p->token.text, &value.real) || __builtin_isinf(value.real))
            return fail_here(p, "this number is too large");
        value.real = is_negative ? -value.real : value.real;
    }
    emit(p, OP_CONSTANT, constant(p, value), 1, p->token.at);
    return advance(p);
}

static bool parse_list(struct parser *p, uint32_t at)
{
    uint32_t count = 0;
    while (!at_symbol(p, "]")) {
        if (!parse_expression(p))
            return false;
        count++;
        if (!at_symbol(p, ","))
            break;
        if (!advance(p))
            return false;
    }
    emit(p, OP_LIST, count, 1 - (int) count, at);
    return expect(p, "]", "expected , or ]");
}

static bool parse_map(struct parser *p, uint32_t at)
{
    uint32_t count = 0;
    while (!at_symbol(p, "}")) {
        if (!parse_expression(p) || !expect(p, ":", "expected : after a map's key") ||
            !parse_expression(p))
            return false;
        count += 2;
        if (!at_symbol(p, ","))
            break;
        if (!advance(p))
            return false;
    }
    emit(p, OP_MAP, count, 1 - (int) count, at);
    return expect(p, "}", "expected , or }");
}

/* ---- the grammar ---- */

static bool parse_word(struct parser *p)
{
    str name = p->token.text;
    uint32_t at = p->token.at;
    struct value value = {.kind = VALUE_NULL};
    if (str_equal(name, S("in")))
        return fail_here(p, "a value is missing before in");
    if (!advance(p))
        return false;
    if (at_symbol(p, "(")) {
        if (!advance(p))
            return false;
        return str_equal(name, S("has")) ? parse_has(p, at) : parse_call(p, name, 0, false, at);
    }
    if (str_equal(name, S("true")) || str_equal(name, S("false")))
        value = value_of_bool(name.len == 4);
    else if (!str_equal(name, S("null")))
        return parse_variable(p, name, at);
    emit(p, OP_CONSTANT, constant(p, value), 1, at);
    return true;
}

static bool parse_primary(struct parser *p)
{
    uint32_t at = p->token.at;
    switch (p->token.kind) {
    case TOKEN_END: return fail_here(p, "a value is missing at the end");
    case TOKEN_NAME: return parse_word(p);
    case TOKEN_INTEGER:
    case TOKEN_DOUBLE: return parse_number(p, false);
    case TOKEN_STRING:
        emit(p, OP_CONSTANT, constant(p, value_of_text(p->token.text)), 1, at);
        return advance(p);
    case TOKEN_SYMBOL: break;
    }
    if (at_symbol(p, "(")) {
        if (!advance(p) || !parse_expression(p))
            return false;
        p->member_end = 0; /* what stands in parentheses may be a choice */
        return expect(p, ")", "expected )");
    }
    if (at_symbol(p, "["))
        return advance(p) && parse_list(p, at);
    if (at_symbol(p, "{"))
        return advance(p) && parse_map(p, at);
    return expression_fail(p->e, REASON_INVALID, at, "a value is missing before " STR_FMT,
                           STR_ARG(p->token.text));
}

/* After a "." */
static bool parse_member(struct parser *p)
{
    enum each each;
    if (p->token.kind != TOKEN_NAME)
        return fail_here(p, "a name must follow the point; others are read with [\"...\"]");
    str name = p->token.text;
    uint32_t at = p->token.at;
    if (!advance(p))
        return false;
    if (!at_symbol(p, "(")) {
        emit(p, OP_SELECT, constant(p, value_of_text(str_copy(p->arena, name))), 0, at);
        p->member_end = p->code_count;
        return true;
    }
    if (!advance(p))
        return false;
    return macro_of(name, &each) ? parse_macro(p, each, at) : parse_call(p, name, 1, true, at);
}

static bool parse_postfix(struct parser *p)
{
    if (!parse_primary(p))
        return false;
    for (;;) {
        uint32_t at = p->token.at;
        if (at_symbol(p, ".")) {
            if (!advance(p) || !parse_member(p))
                return false;
        } else if (at_symbol(p, "[")) {
            if (!advance(p) || !parse_expression(p))
                return false;
            emit(p, OP_INDEX, 0, -1, at);
            if (!expect(p, "]", "expected ]"))
                return false;
        } else {
            return true;
        }
    }
}

static bool parse_unary(struct parser *p)
{
    bool is_not = at_symbol(p, "!");
    uint32_t at = p->token.at, count = 0;
    while (at_symbol(p, is_not ? "!" : "-")) {
        count++;
        if (!advance(p))
            return false;
    }
    if (!is_not && count > 0 && (p->token.kind == TOKEN_INTEGER || p->token.kind == TOKEN_DOUBLE) &&
        count == 1) {
        /* -9223372036854775808 is a number; only a member of it would bind closer, and it has none */
        return parse_number(p, true);
    }
    if (!parse_postfix(p))
        return false;
    if (count > 0)
        emit_counted(p, is_not ? OP_NOT : OP_NEGATE, 0, count, 0, at);
    return true;
}

struct operator
{
    const char *symbol;
    uint8_t level;
    enum op op;
};
enum { LEVEL_OR = 1, LEVEL_AND, LEVEL_RELATION, LEVEL_SUM, LEVEL_PRODUCT };
static const struct operator operators[] = {
    {"||", LEVEL_OR, OP_OR},           {"&&", LEVEL_AND, OP_AND},
    {"==", LEVEL_RELATION, OP_EQUAL},  {"!=", LEVEL_RELATION, OP_UNEQUAL},
    {"<", LEVEL_RELATION, OP_LESS},    {"<=", LEVEL_RELATION, OP_LESS_EQUAL},
    {">", LEVEL_RELATION, OP_GREATER}, {">=", LEVEL_RELATION, OP_GREATER_EQUAL},
    {"+", LEVEL_SUM, OP_ADD},          {"-", LEVEL_SUM, OP_SUBTRACT},
    {"*", LEVEL_PRODUCT, OP_MULTIPLY}, {"/", LEVEL_PRODUCT, OP_DIVIDE},
    {"%", LEVEL_PRODUCT, OP_MODULO},
};

static const struct operator* operator_here(const struct parser *p)
{
    static const struct operator in = {"in", LEVEL_RELATION, OP_IN};
    if (p->token.kind == TOKEN_NAME)
        return str_equal(p->token.text, S("in")) ? &in : NULL;
    for (size_t i = 0; i < ARRAY_COUNT(operators); i++) {
        if (at_symbol(p, operators[i].symbol))
            return operators + i;
    }
    return NULL;
}

/* Operators of this level and above; all of them join from left to right. */
static bool parse_binary(struct parser *p, uint8_t level)
{
    const struct operator* operator;
    if (!parse_unary(p))
        return false;
    while ((operator= operator_here(p)) != NULL && operator->level >= level) {
        uint32_t at = p->token.at;
        bool is_logic = operator->level <= LEVEL_AND;
        uint32_t jump = is_logic ? emit(p, operator->op, 0, -1, at) : 0;
        if (!advance(p) || !parse_binary(p, (uint8_t) (operator->level + 1)))
            return false;
        if (is_logic) {
            emit(p, OP_BOOLEAN, 0, 0, at);
            jump_here(p, jump);
        } else {
            emit(p, operator->op, 0, -1, at);
        }
    }
    return true;
}

static bool parse_expression(struct parser *p)
{
    if (!deeper(p) || !parse_binary(p, LEVEL_OR))
        return false;
    if (at_symbol(p, "?")) {
        uint32_t unless = emit(p, OP_JUMP_UNLESS, 0, -1, p->token.at);
        if (!advance(p) || !parse_expression(p))
            return false;
        uint32_t jump = emit(p, OP_JUMP, 0, -1, p->token.at); /* the other branch gives the value */
        jump_here(p, unless);
        if (!expect(p, ":", "expected : and the value for when it is false") ||
            !parse_expression(p))
            return false;
        jump_here(p, jump);
    }
    p->depth--;
    return true;
}

/* ---- the whole ---- */

/* Slots of macros come right after those of the scope. */
static void renumber_slots(struct parser *p)
{
    for (uint32_t i = 0; i < p->code_count; i++) {
        struct instruction *instruction = p->code + i;
        if (instruction->op == OP_SLOT && instruction->operand >= VARIABLES_MAX)
            instruction->operand -= VARIABLES_MAX - p->variable_count;
        if (instruction->op == OP_EACH_BEGIN)
            instruction->count =
                (uint16_t) (instruction->count - VARIABLES_MAX + p->variable_count);
    }
}

static struct expression *finish(struct parser *p)
{
    struct expression *expression = ARENA_NEW(p->arena, struct expression);
    str *variables = ARENA_ARRAY(p->arena, str, p->variable_count);
    renumber_slots(p);
    for (uint32_t i = 0; i < p->variable_count; i++)
        variables[i] = p->variables[i];
    *expression = (struct expression){
        .code = p->code,
        .constants = p->constants,
        .variables = variables,
        .code_count = p->code_count,
        .constant_count = p->constant_count,
        .variable_count = p->variable_count,
        .slot_count = p->variable_count + p->local_max,
        .stack_max = p->stack_max,
        .each_max = p->each_max,
        .steps = p->steps,
        .step_count = p->step_count,
    };
    ensure(p->stack == 1);
    return expression;
}

bool expression_compile(struct arena *arena, str text, size_t from, bool in_template,
                        struct expression **out, size_t *end, struct error *e)
{
    if (text.len > EXPRESSION_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "an expression of %zu bytes; at most %u are read",
                         text.len, EXPRESSION_BYTES_MAX);
    struct parser *p = ARENA_NEW(arena, struct parser);
    *p = (struct parser){
        .lexer = {.text = text, .at = from, .arena = arena}, .arena = arena, .e = e};
    if (!advance(p) || !parse_expression(p))
        return false;
    bool is_end = in_template ? at_symbol(p, "}") : p->token.kind == TOKEN_END;
    if (!is_end && p->token.kind == TOKEN_END)
        return fail_here(p, "the expression has no end; close it with }");
    if (!is_end)
        return fail_here(p, in_template ? "expected an operator or }" : "expected an operator");
    struct expression *expression = finish(p);
    expression->text = str_copy(arena, str_trim(str_slice(text, from, p->token.at)));
    *end = p->token.at;
    *out = expression;
    return true;
}
