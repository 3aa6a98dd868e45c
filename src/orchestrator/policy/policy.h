/*
 * Policy engine: may this happen?  Asked before every run, model call and tool call.
 *
 *      input --> allow?  yes: ALLOW
 *                no, but yes with a hypothetical approval by another person: NEEDS_APPROVAL
 *                else: DENY.   No decision to be had (error, timeout, undefined): DENY.
 *
 * An approval may need more than one other person: `approval_requirements` of the same package, a set (or one) of approval rules
 * (agent/tool/approval_rule.h), evaluated with the same input when an approval is about to be asked for.  All of them hold.
 *
 * input.approval exists only when the caller passes a verified, unconsumed approval of exactly this digest (approver is never
 * null).  Package nexus.agent.policy, rule allow; input per spec section 3.
 * Implementations: rego (embedded); later a remote OPA.  An immutable snapshot is swapped on reload; a broken policy never replaces
 * a working one and the error names file, line and column.
 * Equal questions are answered from memory: see policy_memo_internal.h.
 * Thread: any coroutine of any loop.  Suspends: a remote one may.
 */
#ifndef NEXUS_ORCHESTRATOR_POLICY_H
#define NEXUS_ORCHESTRATOR_POLICY_H

#include "base/cost.h"
#include "base/json.h"
#include "runtime/context.h"

enum policy_verdict { POLICY_DENY, POLICY_ALLOW, POLICY_NEEDS_APPROVAL };
const char *policy_verdict_name(
    enum policy_verdict verdict); /* "deny", "allow", "needs_approval" */

struct policy_input {
    str action;                /* run.start, model.call, tool.call, memory.read, output */
    str resource;              /* agent, model, tool ... name */
    str user_id, role, tenant; /* tenant: id text */
    str tool_name, tool_version,
        tool_category; /* tool.call only: else empty and `tool` is absent */
    uuid session_id;   /* UUID_NONE: no session */
    cost
        remaining; /* tightest remainder over all levels, less reservations, before this call's own */
    str policy_context; /* JSON text of the session or empty: input.session.policy_context */
    str arguments;      /* JSON text or empty */
    str approver;       /* not empty: a verified approval of this digest by this person */
    bool skips_rule;    /* the caller shows no rule: finding its name costs as much as deciding */
};
struct policy_decision {
    enum policy_verdict verdict;
    str reason;     /* one sentence, on ctx's arena */
    str rule;       /* "example.rego:5 allow" : the rule that decided, or "default" */
    str version;    /* short digest of the policy set */
    cost remaining; /* what the question said was left; set by who asks for a run (run_decide) */
};

struct policy;
struct policy_ops {
    const char *name;
    /* Never fails: what goes wrong is a DENY with the reason. */
    may_suspend_void void (*decide)(struct policy *policy, struct context *ctx,
                                    const struct policy_input *input, struct policy_decision *out);
    /* JSON: a list of approval rules, or one; empty: nothing is demanded.  False: that cannot be told. */
    may_suspend bool (*approval_demands)(struct policy *policy, struct context *ctx,
                                         const struct policy_input *input, str *out,
                                         struct error *e);
    /* Blocking.  Reads the sources again; on failure the old one stays. */
    bool (*reload)(struct policy *policy, struct error *e);
    void (*destroy)(struct policy *policy);
};
struct policy {
    const struct policy_ops *ops;
};
void policy_decide(struct policy *policy, struct context *ctx, const struct policy_input *input,
                   struct policy_decision *out);
may_suspend bool policy_approval_demands(struct policy *policy, struct context *ctx,
                                         const struct policy_input *input, str *out,
                                         struct error *e);
/* For engines whose approvals need nothing but a person. */
bool policy_demands_nothing(struct policy *policy, struct context *ctx,
                            const struct policy_input *input, str *out, struct error *e);
bool policy_reload(struct policy *policy, struct error *e);
void policy_destroy(struct policy *policy);

/* Somebody who is certainly not the caller: no real user has a control character in the name. */
extern const str policy_hypothetical_approver;
/* The input document as JSON, for engines, explanations and tests.  hypothetical: as if another person had approved. */
str policy_input_json(struct arena *arena, const struct policy_input *input,
                      bool hypothetical_approval);

struct policy_rego_options {
    str dir;               /* every *.rego below it, and data.json */
    int64_t time_limit_ms; /* 0: 50 */
    bool has_no_memo;      /* every question is interpreted: for tests that compare */
};
/* Blocking.  REASON_CONFIG with file, line, column when a module is broken or allow is not defined. */
must_check bool policy_rego_create(const struct policy_rego_options *options, struct policy **out,
                                   struct error *e);
str policy_rego_version(struct policy *policy, struct arena *arena);

/* How its questions were answered, since the engine was created. */
struct policy_memo_counts {
    uint64_t hits, misses; /* from memory; interpreted and, when a decision was had, remembered */
    uint64_t unaskable;    /* interpreted, because the policy or the input cannot be remembered */
};
struct policy_memo_counts policy_rego_memo_counts(const struct policy *policy);

/* Allows everything, rule "policy off".  For benchmarks and first trials; whoever starts with it must be told so, loudly. */
struct policy *policy_off_create(void);

#endif
