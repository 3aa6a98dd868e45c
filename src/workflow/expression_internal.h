/*
 * Inside of expressions: text -> tokens (expression_lex.c) -> instructions (expression_parse.c) -> a value (expression_run.c, with
 * expression_operators.c and expression_functions.c); templates (template.c) hold expressions.
 *
 * An expression is compiled to instructions for a little stack machine, without a tree in between: evaluating does not recurse, its
 * depth of stack is known beforehand, and each instruction counts as a step.  Places of variables ("slots") are numbered by the
 * parser: those of the scope first come, then those of macros.
 */
#ifndef NEXUS_WORKFLOW_EXPRESSION_INTERNAL_H
#define NEXUS_WORKFLOW_EXPRESSION_INTERNAL_H

#include "base/limits.h"
#include "workflow/expression.h"
#include "workflow/regex.h"

/* ---- tokens ---- */

enum token_kind {
    TOKEN_END,
    TOKEN_NAME,
    TOKEN_INTEGER, /* text: digits or 0x..., without a sign */
    TOKEN_DOUBLE,
    TOKEN_STRING, /* text: unescaped */
    TOKEN_SYMBOL, /* text: "(", "<=", ... */
};
struct token {
    enum token_kind kind;
    str text;
    uint32_t at; /* offset of its first byte */
};
struct lexer {
    str text;
    size_t at;
    struct arena *arena;
};
must_check bool lexer_next(struct lexer *lexer, struct token *out, struct error *e);
/* "column N: ..."  False. */
bool expression_fail(struct error *e, enum error_reason reason, size_t at, const char *format, ...)
    format_like(4, 5);

/* ---- values ---- */

enum value_kind {
    VALUE_NONE, /* a slot that was not filled yet */
    VALUE_NULL,
    VALUE_BOOL,
    VALUE_INTEGER,
    VALUE_DOUBLE,
    VALUE_STRING,
    VALUE_TIMESTAMP, /* `integer`: microseconds since 1970 */
    VALUE_DURATION,  /* `integer`: microseconds */
    VALUE_LIST,      /* lists and maps always are trees */
    VALUE_MAP,
    VALUE_WIDE, /* an integer past 64 bits with sign: it is passed on, nothing else */
};
struct value {
    enum value_kind kind;
    const struct json *tree; /* NULL: computed, not yet put into a tree */
    union {
        bool is_true;
        int64_t integer;
        double real;
        str text;
    };
};
const char *value_kind_name(enum value_kind kind);
struct value value_of_tree(const struct json *tree);
static inline struct value value_of_bool(bool is_true)
{
    return (struct value){.kind = VALUE_BOOL, .is_true = is_true};
}
static inline struct value value_of_integer(int64_t integer)
{
    return (struct value){.kind = VALUE_INTEGER, .integer = integer};
}
static inline struct value value_of_text(str text)
{
    return (struct value){.kind = VALUE_STRING, .text = text};
}
/* Times and durations become texts, which go on b's arena. */
void value_build(struct json_builder *b, const struct value *value);

/* ---- one evaluation ---- */

/* What is left of the work and memory of an evaluation; a template's expressions share one. */
struct work {
    struct arena *arena;
    size_t steps_left;
    str regex_source; /* of the pattern that was compiled last: lists are asked one item after the other */
    struct regex regex;
};
/* WORK(w, arena): a whole evaluation's, which ends with the block. */
#define WORK(name, on_arena)                                                                       \
    __attribute__((cleanup(work_release))) struct work name = {.arena = (on_arena),                \
                                                               .steps_left = EXPRESSION_STEPS_MAX}
void work_release(struct work *work);
/* Counts work; `bytes` are about to be put on the arena.  False: LIMIT. */
enum { BYTES_PER_STEP = 64 };
must_check bool work_take(struct work *work, size_t steps, size_t bytes, struct error *e);
/* Before a value is put into a builder: what it copies is work, and memory. */
must_check bool work_take_value(struct work *work, const struct value *value, struct error *e);
/* What an expression may put into one list, map or filled template. */
#define EXPRESSION_VALUES_MAX (EXPRESSION_VALUE_BYTES_MAX / 16)
/* Closes a builder: LIMIT when it was over or too deep. */
must_check bool work_finish(struct work *work, struct json_builder *b, const struct json **out,
                            struct error *e);
must_check bool values_equal(struct work *work, const struct value *a, const struct value *b,
                             bool *out, struct error *e);
must_check bool expression_run(const struct expression *expression,
                               const struct expression_scope *scope, struct work *work,
                               struct value *out, struct error *e);

/* ---- functions ---- */

/* Arguments: the receiver of a method is the first.  A failure's message gets its column from the caller. */
struct function {
    const char *name;
    uint8_t arguments_min, arguments_max;
    bool is_method, is_global; /* x.f(y), f(x, y) */
    bool (*call)(struct work *work, const struct value *arguments, size_t count, struct value *out,
                 struct error *e);
    /* Of a last argument that is written down: what is wrong with it is told before anything runs.  NULL: nothing can be. */
    bool (*check)(str argument, struct arena *arena, struct error *e);
};
extern const struct function expression_functions[];
extern const size_t expression_function_count;
/* The text of a value inside a template's text: strings as they are, all else as JSON. */
must_check bool value_text(struct work *work, const struct value *value, str *out, struct error *e);

/* ---- expression_time.c ---- */

typedef bool expression_call(struct work *work, const struct value *arguments, size_t count,
                             struct value *out, struct error *e);
expression_call call_timestamp, call_duration, call_get_full_year, call_get_month, call_get_date,
    call_get_day_of_month, call_get_day_of_week, call_get_day_of_year, call_get_hours,
    call_get_minutes, call_get_seconds, call_get_milliseconds;
bool expression_check_time(str text, struct arena *arena, struct error *e);
bool expression_check_duration(str text, struct arena *arena, struct error *e);
/* "2026-12-24T18:00:00Z", "5400s" */
str value_time_text(struct arena *arena, const struct value *value);

/* ---- compiled ---- */

enum op {
    OP_CONSTANT, /* operand: constant */
    OP_SLOT,     /* operand: slot */
    OP_STEP,     /* operand: constant, the step's id */
    OP_HAS_STEP, /* the same: is there such a step? */
    OP_SELECT,   /* operand: constant, the member's name */
    OP_HAS,      /* the same: is there such a member? */
    OP_INDEX,    /* container, index */
    OP_NOT,      /* count: how many */
    OP_NEGATE,   /* count: how many */
    OP_ADD,      /* two values, as all from here to OP_IN */
    OP_SUBTRACT,
    OP_MULTIPLY,
    OP_DIVIDE,
    OP_MODULO,
    OP_EQUAL,
    OP_UNEQUAL,
    OP_LESS,
    OP_LESS_EQUAL,
    OP_GREATER,
    OP_GREATER_EQUAL,
    OP_IN,
    OP_LIST,        /* operand: how many values */
    OP_MAP,         /* operand: how many keys and values */
    OP_CALL,        /* operand: function; count: arguments */
    OP_JUMP,        /* operand: instruction, as in the four after it */
    OP_AND,         /* jumps when the top is false; else drops it */
    OP_OR,          /* jumps when the top is true; else drops it */
    OP_BOOLEAN,     /* the top must be a boolean */
    OP_JUMP_UNLESS, /* drops the top; jumps when it was false */
    OP_EACH_BEGIN,  /* operand: enum each; count: slot.  Takes a list or map */
    OP_EACH_NEXT,   /* operand: where to jump at the end */
    OP_EACH_TAKE,   /* takes the body's value; operand: where to jump when the answer is known */
    OP_EACH_END,    /* gives the result */
};
enum each { EACH_ALL, EACH_EXISTS, EACH_ONE, EACH_MAP, EACH_FILTER };

struct instruction {
    uint8_t op;
    uint16_t count;
    uint32_t operand;
    uint32_t at; /* offset in the text, for messages */
};
struct expression {
    str text; /* as it was written, for pictures */
    const struct instruction *code;
    const struct value *constants;
    const str *variables; /* of the scope: the first slots */
    uint32_t code_count, constant_count, variable_count, slot_count, stack_max, each_max;
    const str *steps; /* ids that it reads */
    uint32_t step_count;
};

/* expression_time.c: *is_done false when there is no such operation between the two. */
must_check bool expression_time_arithmetic(enum op op, const struct value *a, const struct value *b,
                                           struct value *out, bool *is_done, struct error *e);
/* Both may give their result into one of the two. */
must_check bool expression_arithmetic(struct work *work, enum op op, const struct value *a,
                                      const struct value *b, struct value *out, struct error *e);
must_check bool expression_compare(struct work *work, enum op op, const struct value *a,
                                   const struct value *b, bool *out, struct error *e);

/* Compiles from `from` on; `end` gets where it ended: at the text's end, or (when the expression stands in a template) at the "}" that is not its own. */
must_check bool expression_compile(struct arena *arena, str text, size_t from, bool in_template,
                                   struct expression **out, size_t *end, struct error *e);

#endif
