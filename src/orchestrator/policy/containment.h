/*
 * Containment: rules over labels at the sinks.  What a model was talked into does not count; only what it has seen, what it asks for,
 * and whose words that is.
 *
 *      context (items with labels) --.
 *      tool, its arguments -----------+--> containment_decide --> allow | needs_approval | deny, rule, one sentence, because [items]
 *      rules of the operator --------'
 *
 * While nothing untrusted is in the context, every call is the person's own wish and passes.  After that:
 *   system_tool        a tool of category "system": a person decides.  (Files of the caller's own workspace: reading, writing passes;
 *                      workspace_delete: deleting what the person did not name does not.)
 *   private_out        something private is in the context and the request is not word for word the person's: a person decides.
 *                      Only a GET or HEAD of a URL that stands whole in trusted text passes: it carries nothing else.  Hosts of the
 *                      tenant's own (`inside`) are not "out".
 *   unnamed_host       nothing private is there but the person's own words: a request to a host that no trusted text names, unless it
 *                      is a GET of a link that stands in a text of the context (links_max of them).
 *   unnamed_change     POST, PUT, DELETE ...: the whole URL must stand in trusted text.
 *   unnamed_words      any other sink: each text among the arguments must stand in trusted text.
 * Trusted text: messages of the user, the agent's instructions, outputs of tools that are nobody's free text.  A word of it is a whole
 * one: a URL ends where the text's URL ends.  What cannot be told apart is the label of the whole context.
 *
 * Rules of the operator go first, in order; a rule that allows is a named declassifier.  A person's approval lowers exactly one call.
 *
 * Pure: no I/O, no clock.  Thread: any.  Suspends: never.
 * What it does not stop: see docs/containment.md, "Limits".
 */
#ifndef NEXUS_ORCHESTRATOR_CONTAINMENT_H
#define NEXUS_ORCHESTRATOR_CONTAINMENT_H

#include "agent/tool/labels.h"
#include "agent/tool/tool.h"

enum containment_verdict {
    CONTAINMENT_ALLOW,
    CONTAINMENT_NEEDS_APPROVAL,
    CONTAINMENT_DENY,
};
const char *containment_verdict_name(enum containment_verdict verdict); /* "needs_approval" */

enum containment_mode { CONTAINMENT_ENFORCE, CONTAINMENT_OBSERVE, CONTAINMENT_OFF };
enum containment_payloads { PAYLOADS_MASK, PAYLOADS_FLAG, PAYLOADS_BLOCK };
enum containment_when { CONTAINMENT_WHEN_UNTRUSTED, CONTAINMENT_WHEN_PRIVATE, CONTAINMENT_ALWAYS };

/* Empty text: any.  `host` as in permissions: "erp.example", "*.example". */
struct containment_rule {
    str name, tool, category, host, agent;
    enum containment_when when;
    enum containment_verdict verdict;
};
/* Of one configuration; immutable. */
struct containment {
    enum containment_mode mode;
    const struct containment_rule *rules;
    size_t rule_count;
    const str *inside; /* hosts that belong to the tenant */
    size_t inside_count;
    int64_t
        links_max; /* 0: CONTAINMENT_LINKS.  GETs of links that no trusted text holds, in one context */
    int64_t
        approvals_max; /* 0: CONTAINMENT_APPROVALS.  Persons asked in one run; then such calls are denied */
    enum containment_payloads
        payloads;     /* what becomes of payloads in tool outputs (agent/tool/payload.h) */
    bool keeps_links; /* answers are not touched (run_answer_links.h) */
};
/* enforce, no rules, nothing inside */
struct containment containment_defaults(void);
/* A copy on the arena. */
struct containment containment_copy(struct arena *arena, const struct containment *from);

/* One thing that the model has seen. */
struct context_item {
    str id;     /* "instructions", a message's or tool call's id */
    str source; /* a URL, a tool, a file: where it came from, for people */
    struct label label;
    bool
        is_made; /* the model wrote it, or a tool made it of what the model gave: nobody named anything in it */
    const str *texts;
    size_t text_count;
};
struct context_view {
    const struct context_item *items;
    size_t count;
};
struct label context_label(const struct context_view *view);

struct containment_input {
    const struct tool *tool;
    str agent;
    str arguments; /* JSON text */
    struct context_view view;
    str approver;         /* not empty: a verified approval of exactly this call */
    bool may_ask;         /* somebody can be waited for */
    int64_t asked_before; /* approvals asked for in this run */
};
struct containment_decision {
    enum containment_verdict verdict;
    str rule;   /* "system_tool"; an operator's rule by its name */
    str reason; /* one sentence */
    struct label context, arguments;
    const struct context_item **because; /* those that made the context what it is, oldest first */
    size_t because_count;
};
/* Texts are on the arena, or the input's own. */
void containment_decide(const struct containment *rules, struct arena *arena,
                        const struct containment_input *input, struct containment_decision *out);

/* May an answer hold this address as a live link or picture? */
bool containment_may_link(const struct containment *rules, const struct context_view *view,
                          str url);

/* The host a request goes to belongs to the tenant: what it says is private. */
bool containment_is_inside(const struct containment *rules, str url);
/* Does the text hold the URL, whole?  The host (and port, unless it is the usual one), as a name of its own? */
bool text_holds_url(str text, str url);
bool text_holds_host(str text, str url);

#endif
