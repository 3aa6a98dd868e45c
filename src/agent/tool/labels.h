/*
 * Labels: where a piece of context came from, and what may be done with it.
 *
 * Every message, tool result, file, memory and summary carries a label; what is derived from several carries their join.  A label only
 * grows: nothing but a person's approval or a named declassifier lowers it.  Rules at the sinks look at labels and never at what a
 * model says.
 *
 *      system --.                                        .--> tool call (sink rules: orchestrator/policy/containment.h)
 *      user ----+--> join = label of the model's answer -+--> memory, file, summary (stored with the label)
 *      web -----'                                        '--> sub-agent, cache
 *
 * Pure data.  Thread: any.  Source: spec section 10.5; Denning, A Lattice Model of Secure Information Flow (1976).
 */
#ifndef NEXUS_AGENT_LABELS_H
#define NEXUS_AGENT_LABELS_H

#include "base/json.h"

struct tool; /* tool.h */

enum label_origin { /* a set of bits */
                    LABEL_SYSTEM = 1 << 0,
                    LABEL_USER = 1 << 1,
                    LABEL_TOOL = 1 << 2,
                    LABEL_WEB = 1 << 3,
                    LABEL_MEMORY = 1 << 4,
                    LABEL_FILE = 1 << 5,
                    LABEL_AGENT = 1 << 6, /* another agent's answer */
};
struct label {
    uint32_t origins;
    bool is_untrusted; /* someone outside may have written part of it */
    bool is_private;   /* must not leave to whoever is not of the tenant */
};

struct label label_join(struct label a, struct label b);
bool label_covers(struct label a, struct label b); /* join(a, b) == a */
/* {"origins": ["user", "web"], "untrusted": true, "private": false} */
void label_write_json(struct json_writer *w, struct label label);
/* As written; what is absent or unknown is read as the higher label (untrusted, private). */
struct label label_read_json(const struct json *value);
/* The same of a text; empty or broken text is the highest label of `origins`. */
struct label label_read_text(struct arena *arena, str json, uint32_t origins);
/* Of what nothing is known: untrusted and private. */
struct label label_unknown(uint32_t origins);

/* ---- tools ---- */

/*
 * What a tool's output adds to the label of its arguments, of the files it read and of the tools it called.  A tool that is a function
 * of these alone (text_processing) adds nothing: its manifest says `labels: {output: public, trusted: true}`.
 */
struct label label_of_tool(const struct tool *tool);
/* What a manifest without `labels` means: output private unless the category is http, time or text_processing; untrusted; a sink when
   it has effects or may use the network. */
void label_tool_defaults(struct tool *tool);

#endif
