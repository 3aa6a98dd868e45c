/*
 * Workflow definition: a document (YAML or JSON) read, checked as a whole and compiled.  Pure, immutable.
 *
 *      name: book-trip            version: 1.2.0         description: ...
 *      input: {JSON Schema}       output: template       timeout: 1h       budget: {tokens, time_seconds, cost_usd, tool_calls}
 *      steps:                     one after the other; a list of steps is a sequence
 *        - id: flight             unique in its list; `steps.flight` in expressions that stand after it in this or an inner list
 *          tool: http_request     exactly one of tool, model, agent, approval, branch, map, parallel, loop, sleep, wait_signal, workflow
 *          version: ^1
 *          input: {url: "${input.base}/flights"}
 *          when: "${input.wants_flight}"          false: the step is skipped, its output null
 *          expect: "${output.status < 300}"       false: what came is a failure (tool_failed), tried again as `retry` says
 *          timeout: 30s
 *          retry: {attempts: 3, backoff: 1s, factor: 2, max_backoff: 1m, jitter: 0.2, except: [schema, policy_denied], only: []}
 *          idempotency_key: "${input.order}"      else the step's path in this run
 *          on_error: fail | continue              continue: steps.ID.error is {type, message} and its output null
 *          compensate: {tool: ..., input: ...}    a tool, agent or workflow step; runs in reverse order after a failure or cancel
 *        - id: think
 *          model: {model: fast, system: "...", prompt: "...", response_format: {...}, max_output_tokens: 500}
 *        - id: research
 *          agent: {name: researcher, prompt: "...", budget: {tokens: 20000}}        a child run; its answer is output.text
 *        - id: ok
 *          approval: {title: "...", show: tree, quorum: 2, approvers: {users: [], roles: []}, expires: 24h, remind: 4h}
 *        - id: which
 *          branch: [{when: "${...}", steps: [...]}, {steps: [...]}]                   the first that holds; without `when`: else
 *        - id: each
 *          map: {over: "${input.items}", as: item, parallel: 8, steps: [...], output: template, tolerate: 0}   output: list
 *        - id: both
 *          parallel: {a: [...], b: [...]}                                              output: {a: last step's output, b: ...}
 *        - id: again
 *          loop: {while: "${...}", max: 10, steps: [...], output: template}            `loop.index` from 0; `loop.last`: the output of the
 *                                                                                      round before, null in the first.  `while` sees both, and the
 *                                                                                      steps of the round before (ask with has())
 *        - id: pause
 *          sleep: 5m            or  sleep: "${...}" (seconds, or RFC 3339 text: until then)
 *        - id: go
 *          wait_signal: {name: go, timeout: 1d}                                        output: the signal's data
 *        - id: sub
 *          workflow: {name: other, version: "^1", input: tree, budget: {...}}          a child run
 *
 * Scope of expressions: input, steps.ID.{output,status,error}, item and index (map; `as` renames item), loop.{index,last}, run.{id,started_at},
 * error.{type,message} (in compensations).  A step inside a map sees the steps around it and those before it in its own list.
 * Errors name file, line and how to mend it; all of them are found, not the first only (definition_problems).
 * Conditions and other expressions may be written with or without ${}; templates need it.  Left out: retry {attempts: 1} (when written:
 * backoff 1s, factor 2, max_backoff 1m, jitter 0.2), map.parallel 8, quorum 1, on_error fail.  A branch ends with an arm without `when`.
 * Reading one recurses as deep as the document and takes up to 64 KiB of stack: through blocking_call, never on a coroutine's own.
 * Bounds: WORKFLOW_BYTES_MAX, WORKFLOW_STEPS_MAX in all, WORKFLOW_DEPTH_MAX of nesting, WORKFLOW_PARALLEL_MAX at once.
 * The published JSON Schema is docs/workflow.schema.json; a test holds both against each other.
 */
#ifndef NEXUS_WORKFLOW_DEFINITION_H
#define NEXUS_WORKFLOW_DEFINITION_H

#include "base/cost.h"
#include "workflow/expression.h"

#define STEP_KINDS(X)                                                                              \
    X(TOOL, "tool")                                                                                \
    X(MODEL, "model")                                                                              \
    X(AGENT, "agent")                                                                              \
    X(APPROVAL, "approval")                                                                        \
    X(BRANCH, "branch")                                                                            \
    X(MAP, "map")                                                                                  \
    X(PARALLEL, "parallel")                                                                        \
    X(LOOP, "loop")                                                                                \
    X(SLEEP, "sleep")                                                                              \
    X(WAIT_SIGNAL, "wait_signal")                                                                  \
    X(WORKFLOW, "workflow")
enum step_kind {
#define X(name, text) STEP_##name,
    STEP_KINDS(X)
#undef X
        STEP_KIND_COUNT
};
const char *step_kind_name(enum step_kind kind);

struct retry {
    int attempts; /* in all: 1 is no retry */
    int64_t backoff_ms, backoff_max_ms;
    double factor, jitter;    /* jitter: part of the wait that is random, 0..1 */
    const str *except, *only; /* problem names of errors.def; `only` empty: all but `except` */
    size_t except_count, only_count;
};

struct step;
struct step_list {
    const struct step *const *items;
    size_t count;
};
struct branch_arm {
    const struct expression *when; /* NULL: else */
    struct step_list steps;
};
struct parallel_arm {
    str name;
    struct step_list steps;
};

struct step {
    str id;
    enum step_kind kind;
    uint32_t line;
    const struct expression *when; /* NULL: always */
    const struct expression
        *expect;        /* of its `output`: false fails the attempt; NULL: anything will do */
    int64_t timeout_ms; /* of one attempt; 0: none of its own */
    struct retry retry;
    bool continues_on_error;
    const struct template *idempotency_key; /* NULL: its path in the run */
    const struct step *compensate;          /* NULL: none */
    const struct template
        *input; /* tool, workflow: input; model, agent: prompt; approval: show; NULL: none */
    union {
        struct {
            str name, range;
        } tool;
        struct {
            str model; /* empty: the default */
            const struct template *system;
            str response_format; /* JSON text or empty */
            int64_t max_output_tokens;
        } model;
        struct {
            str name;
            cost budget; /* COST_LIMITLESS: not said */
        } agent;
        struct {
            const struct template *title;
            int quorum;
            str approvers;                 /* JSON text or empty */
            int64_t expires_ms, remind_ms; /* 0: the configured; 0: never */
        } approval;
        struct {
            const struct branch_arm *arms;
            size_t count;
        } branch;
        struct {
            const struct expression *over;
            str as; /* "item" */
            int parallel;
            int64_t tolerate; /* items that may fail */
            struct step_list steps;
            const struct template *output; /* of one item; NULL: its last step's */
        } map;
        struct {
            const struct parallel_arm *arms;
            size_t count;
        } parallel;
        struct {
            const struct expression *while_; /* before each round; NULL: until max */
            int64_t max;
            struct step_list steps;
            const struct template *output; /* NULL: the last round's last step's */
        } loop;
        struct {
            int64_t ms;                     /* when there is no expression */
            const struct expression *until; /* seconds, or a time */
        } sleep;
        struct {
            str name;
            int64_t timeout_ms; /* 0: none */
        } signal;
        struct {
            str name, range;
            cost budget;
        } workflow;
    };
};

struct definition {
    struct arena *arena; /* owned: all below lives here */
    str name, version, description;
    str input_schema;              /* JSON text; empty: any */
    const struct template *output; /* NULL: the last step's output */
    int64_t timeout_ms;            /* 0: none */
    cost budget;
    struct step_list steps;
    size_t step_count; /* in all lists together; compensations are none of them */
    str canonical;     /* RFC 8785 JSON of the document */
    str digest;        /* sha256 hex of it */
};

struct definition_problem {
    uint32_t line, column; /* from 1; 0: not known */
    str path;              /* "steps[2].retry.attempts" */
    str message;           /* what, and how to mend it */
};
struct definition_problems {
    struct definition_problem *items; /* on the arena given */
    size_t count;
};
/* YAML or JSON.  `file` is only named in messages.  False: `problems` has at least one, and `e` says the first with file and line.
   Not on a loop's thread: an input schema may have patterns that take seconds to compile. */
must_check bool definition_parse(struct arena *arena, str file, str text, struct definition **out,
                                 struct definition_problems *problems, struct error *e);
void definition_destroy(struct definition *definition);
static inline void definition_release(struct definition *definition)
{
    definition_destroy(definition);
}
/* The step of that id in a list; NULL. */
const struct step *step_list_find(struct step_list list, str id);

/* A picture of it: Mermaid flowchart text, or a self-contained SVG; both with every step, and labels escaped. */
str definition_mermaid(struct arena *arena, const struct definition *definition);
str definition_svg(struct arena *arena, const struct definition *definition);

#endif
