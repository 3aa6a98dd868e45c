/*
 * Policy memo: what a policy set has decided before, so that the same question is not interpreted
 * again.
 *
 * A question is all of the input that can matter to the policies of a set, found by the engine's
 * own analysis of their text:
 *      user.role is handed around      -> its value
 *      session.budget.tokens > 1000    -> whether that holds, when nothing else is done with the
 *                                         path; so a budget may shrink without making new
 *                                         questions.  Likewise == and != between texts
 *      arguments.amount                -> that member alone; what is not plainly a text, a whole
 *                                         number, a truth or null counts as all of the arguments
 * and, of what is read, which optional parts are there at all.  The comparisons are made for the
 * caller's input and, where the approver takes part, for the hypothetical one too.
 *
 * Equal questions have equal answers, because a set is immutable; a policy that asks for time or
 * randomness, reads the input as a whole or evaluates for another input (`with`) gets no memo.
 * What could not be decided (a timeout, an error) is never kept.
 *
 * A fixed table of small buckets: a newer answer takes the place of the bucket's oldest one, never
 * more memory.  Belongs to one policy set and dies with it, so a reload forgets everything.
 * Thread: any; short locks.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_POLICY_MEMO_INTERNAL_H
#define NEXUS_ORCHESTRATOR_POLICY_MEMO_INTERNAL_H

#include "base/limits.h"
#include "orchestrator/policy/policy.h"

/* ---- what a policy set reads (policy_question.c) ---- */

struct policy_reads;

/* `inputs`: the answer of native_rego_inputs.  NULL when the policies may not be remembered. */
struct policy_reads *policy_reads_create(const struct json *inputs);
void policy_reads_destroy(struct policy_reads *reads); /* NULL is fine */

struct policy_question {
    uint64_t hash;
    size_t bytes;
    char text[POLICY_QUESTION_BYTES_MAX];
};
/* False: the input is too long to be remembered, or not as sound as the engine wants it.  The arena
 * is left as it was. */
bool policy_reads_ask(const struct policy_reads *reads, struct arena *arena,
                      const struct policy_input *input, struct policy_question *out);

/* ---- the table (policy_memo.c) ---- */

struct policy_memo;

struct policy_memo *policy_memo_create(void);
void policy_memo_destroy(struct policy_memo *memo); /* NULL is fine */

/* Sets verdict and, unless it is skipped, rule, on the arena.  An answer without a rule serves only
 * a question that skips it. */
bool policy_memo_find(struct policy_memo *memo, struct arena *arena,
                      const struct policy_question *question, bool skips_rule,
                      struct policy_decision *out);
void policy_memo_keep(struct policy_memo *memo, const struct policy_question *question,
                      bool has_rule, const struct policy_decision *decision);

#endif
