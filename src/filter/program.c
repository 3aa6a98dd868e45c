/* patterns to programs (Thompson's construction), and running them: all states at once, so linear in the text */
#include "filter/pattern_internal.h"

#include "base/arena.h"
#include "base/limits.h"

struct compiler {
    struct instruction *code;
    size_t count;
    bool is_over;
};

static size_t emit(struct compiler *c, enum instruction_kind kind)
{
    if (c->count >= FILTER_PROGRAM_MAX) {
        c->is_over = true;
        return FILTER_PROGRAM_MAX - 1;
    }
    c->code[c->count] = (struct instruction){.kind = (uint8_t) kind};
    return c->count++;
}

static void compile(struct compiler *c, const struct node *node);

/* SPLIT L1, L2; L1: one; JUMP end; L2: the others */
static void compile_choice(struct compiler *c, const struct node *child)
{
    if (!child->next) {
        compile(c, child);
        return;
    }
    /* Without recursion over the list: the jumps are chained through `to` until the end is known. */
    size_t jumps = SIZE_MAX;
    for (; child; child = child->next) {
        size_t split = child->next ? emit(c, STEP_SPLIT) : SIZE_MAX;
        if (split != SIZE_MAX)
            c->code[split].to = (uint16_t) c->count;
        compile(c, child);
        if (split != SIZE_MAX) {
            size_t jump = emit(c, STEP_JUMP);
            c->code[jump].to = jumps == SIZE_MAX ? UINT16_MAX : (uint16_t) jumps;
            jumps = jump;
            c->code[split].or_to = (uint16_t) c->count;
        }
        if (c->is_over)
            return;
    }
    while (jumps != SIZE_MAX) {
        size_t before = c->code[jumps].to == UINT16_MAX ? SIZE_MAX : c->code[jumps].to;
        c->code[jumps].to = (uint16_t) c->count;
        jumps = before;
    }
}

static void compile_repeat(struct compiler *c, const struct node *node)
{
    for (int i = 0; i < node->min && !c->is_over; i++)
        compile(c, node->child);
    if (node->max == REPEAT_FOREVER) {
        size_t split = emit(c, STEP_SPLIT);
        c->code[split].to = (uint16_t) c->count;
        compile(c, node->child);
        size_t jump = emit(c, STEP_JUMP);
        c->code[jump].to = (uint16_t) split;
        c->code[split].or_to = (uint16_t) c->count;
        return;
    }
    size_t splits = SIZE_MAX; /* chained through or_to */
    for (int i = node->min; i < node->max && !c->is_over; i++) {
        size_t split = emit(c, STEP_SPLIT);
        c->code[split].to = (uint16_t) c->count;
        c->code[split].or_to = splits == SIZE_MAX ? UINT16_MAX : (uint16_t) splits;
        splits = split;
        compile(c, node->child);
    }
    while (splits != SIZE_MAX && !c->is_over) {
        size_t before = c->code[splits].or_to == UINT16_MAX ? SIZE_MAX : c->code[splits].or_to;
        c->code[splits].or_to = (uint16_t) c->count;
        splits = before;
    }
}

static void compile(struct compiler *c, const struct node *node)
{
    size_t at;
    switch (node->kind) {
    case NODE_EMPTY: break;
    case NODE_BYTES:
        at = emit(c, STEP_BYTES);
        c->code[at].set = node->set;
        break;
    case NODE_ASSERT:
        at = emit(c, STEP_ASSERT);
        c->code[at].set = node->set;
        c->code[at].second = node->second;
        c->code[at].assert = (uint8_t) node->assert;
        break;
    case NODE_SEQUENCE:
        for (const struct node *child = node->child; child && !c->is_over; child = child->next)
            compile(c, child);
        break;
    case NODE_CHOICE:
        if (node->child)
            compile_choice(c, node->child);
        break;
    case NODE_REPEAT: compile_repeat(c, node); break;
    }
}

bool pattern_compile(struct arena *arena, const struct node *node, struct program *out,
                     struct error *e)
{
    struct compiler c = {.code = ARENA_ARRAY(arena, struct instruction, FILTER_PROGRAM_MAX)};
    compile(&c, node);
    emit(&c, STEP_MATCH);
    if (c.is_over)
        return error_set(e, REASON_CONFIG, "the pattern is too large: over %u steps",
                         FILTER_PROGRAM_MAX);
    out->code = arena_resize_raw(arena, c.code, FILTER_PROGRAM_MAX * sizeof *c.code,
                                 c.count * sizeof *c.code);
    out->count = (uint16_t) c.count;
    return true;
}

static bool is_ahead(const struct instruction *step, struct place here)
{
    return here.next >= 0 && byteset_has(step->set, (unsigned) here.next) &&
           (!step->second ||
            (here.second >= 0 && byteset_has(step->second, (unsigned) here.second)));
}

static bool holds(const struct instruction *step, struct place here)
{
    int before = here.before, next = here.next;
    switch ((enum assert_kind) step->assert) {
    case ASSERT_WORD_BOUNDARY: return pattern_is_word_byte(before) != pattern_is_word_byte(next);
    case ASSERT_NO_WORD_BOUNDARY: return pattern_is_word_byte(before) == pattern_is_word_byte(next);
    case ASSERT_LINE_START: return before == BYTE_NONE || before == '\n';
    case ASSERT_LINE_END: return next == BYTE_NONE || next == '\n' || next == '\r';
    case ASSERT_BEHIND: return before >= 0 && byteset_has(step->set, (unsigned) before);
    case ASSERT_NOT_BEHIND: return before < 0 || !byteset_has(step->set, (unsigned) before);
    case ASSERT_AHEAD: return is_ahead(step, here);
    case ASSERT_NOT_AHEAD: return !is_ahead(step, here);
    }
    return false;
}

/* All steps that can be reached from `from` without taking a byte; those that take one are kept. */
static void follow(struct pattern_run *run, const struct program *program, uint16_t from,
                   struct place here)
{
    size_t depth = 0;
    run->stack[depth++] = from;
    while (depth > 0) {
        uint16_t at = run->stack[--depth];
        if (run->seen[at] == run->turn)
            continue;
        run->seen[at] = run->turn;
        const struct instruction *step = &program->code[at];
        switch ((enum instruction_kind) step->kind) {
        case STEP_BYTES: run->later[run->later_count++] = at; break;
        case STEP_MATCH: run->is_accepting = true; break;
        case STEP_JUMP: run->stack[depth++] = step->to; break;
        case STEP_SPLIT:
            run->stack[depth++] = step->or_to;
            run->stack[depth++] = step->to;
            break;
        case STEP_ASSERT:
            if (holds(step, here))
                run->stack[depth++] = (uint16_t) (at + 1);
            break;
        }
    }
}

static void begin_turn(struct pattern_run *run)
{
    if (++run->turn == 0) {
        memset(run->seen, 0, FILTER_PROGRAM_MAX * sizeof *run->seen);
        run->turn = 1;
    }
    run->later_count = 0;
    run->is_accepting = false;
}

static void end_turn(struct pattern_run *run)
{
    uint16_t *now = run->now;
    run->now = run->later;
    run->later = now;
    run->count = run->later_count;
}

void pattern_run_start(struct pattern_run *run, const struct program *program, struct place here)
{
    begin_turn(run);
    follow(run, program, 0, here);
    end_turn(run);
}

bool pattern_run_step(struct pattern_run *run, const struct program *program, unsigned char byte,
                      struct place here)
{
    begin_turn(run);
    for (size_t i = 0; i < run->count; i++)
        if (byteset_has(program->code[run->now[i]].set, byte))
            follow(run, program, (uint16_t) (run->now[i] + 1), here);
    end_turn(run);
    return run->count > 0;
}
