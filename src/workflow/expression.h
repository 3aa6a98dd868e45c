/*
 * Expressions: what a workflow's definition computes, in a documented subset of the Common Expression Language (CEL, cel.dev).
 *
 *      input.items.filter(i, i.price > 10).size() <= 3 ? "few" : "many"        an expression
 *      "order ${steps.book.output.id} of ${input.name}"                        a template: texts with expressions in them
 *      {"url": "${input.base}/flights", "limit": "${input.max}"}               a tree of templates; "${...}" alone keeps its type
 *
 * Values are JSON's: null, booleans, 64-bit integers, doubles, strings, lists, maps.  No implicit conversions; integers that overflow,
 * a missing member (guard with has(a.b)), a wrong type: an error that names the column.  `&&` and `||` do not look at what cannot matter.
 * Differences from CEL: steps are named (steps.ID), not computed; a result that is no finite number is an error (JSON has none); no
 * unsigned integers and bytes; times and durations go to the microsecond, are texts in JSON (so in lists and maps too), and know zones by
 * their offset only; `&&` and `||` go from left to right, an error on their left stays one.
 * More than CEL: to_json(x), from_json(text), range(n), list.flatten(); the functions are listed in docs/workflows.md.
 * No I/O, no clock, no randomness: the same scope gives the same value, so a resumed run computes what it computed before.
 * Bounds (base/limits.h): EXPRESSION_BYTES_MAX of source, EXPRESSION_DEPTH_MAX of nesting, EXPRESSION_STEPS_MAX of one evaluation (LIMIT;
 * 64 bytes that are built count as a step, so an evaluation takes at most 64 MB), EXPRESSION_VALUE_BYTES_MAX of a value,
 * EXPRESSION_VALUE_DEPTH_MAX of its nesting.
 * Errors: REASON_INVALID of parsing; REASON_EXPRESSION and REASON_LIMIT of evaluating.  Both begin with "column N: ".
 * Thread: a compiled expression is immutable; evaluate from anywhere.
 */
#ifndef NEXUS_WORKFLOW_EXPRESSION_H
#define NEXUS_WORKFLOW_EXPRESSION_H

#include "base/error.h"
#include "base/json.h"

/* A column of a text of several lines is counted from the expression's begin, from 1. */
struct expression;
must_check bool expression_parse(struct arena *arena, str text, struct expression **out,
                                 struct error *e);
str expression_text(const struct expression *expression); /* as it was written */
/* Names at the top of what it reads ("input", "steps"), and for `steps.NAME` the names: so that a definition is checked before it runs. */
void expression_each_step(const struct expression *expression,
                          void (*visit)(void *owner, str step_id), void *owner);
bool expression_reads(const struct expression *expression, str variable);
void expression_each_variable(const struct expression *expression,
                              void (*visit)(void *owner, str name), void *owner);

/* Variables by name; NULL: there is none of this name.  What it gives must live as long as the result. */
struct expression_scope {
    const struct json *(*find)(void *owner, str name);
    void *owner;
    /* May be NULL: then find("steps") is asked.  Else `steps.ID` as a whole ({output, status, error}); NULL: no such step has ended here. */
    const struct json *(*find_step)(void *owner, str step_id);
};
/* The result is on the arena, or a part of what the scope gave. */
must_check bool expression_evaluate(const struct expression *expression,
                                    const struct expression_scope *scope, struct arena *arena,
                                    const struct json **out, struct error *e);
/* For conditions: anything but a boolean is an error. */
must_check bool expression_test(const struct expression *expression,
                                const struct expression_scope *scope, struct arena *arena,
                                bool *out, struct error *e);

/* "90s", "1h30m", "1.5h", "-7d": what duration() takes, in microseconds. */
must_check bool expression_duration(str text, int64_t *us);

/* A tree whose strings may hold ${...}; "$${" is a literal "${". */
struct template;
must_check bool template_parse(struct arena *arena, const struct json *tree, struct template **out,
                               struct error *e);
void template_each_step(const struct template *tree, void (*visit)(void *owner, str step_id),
                        void *owner);
void template_each_variable(const struct template *tree, void (*visit)(void *owner, str name),
                            void *owner);
must_check bool template_fill(const struct template *tree, const struct expression_scope *scope,
                              struct arena *arena, const struct json **out, struct error *e);

#endif
