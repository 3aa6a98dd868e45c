/* What the two pictures of a definition share: the words that stand in it. */
#ifndef NEXUS_WORKFLOW_GRAPH_INTERNAL_H
#define NEXUS_WORKFLOW_GRAPH_INTERNAL_H

#include "workflow/definition.h"

/* "tool http_request", "map of input.items, 8 at once": what a step does, cut to a line. */
str graph_summary(struct arena *arena, const struct step *step);
/* Cut to so many characters, on one line, with "…" when something is left out. */
str graph_cut(struct arena *arena, str text, size_t characters_max);
str graph_arm_label(struct arena *arena,
                    const struct branch_arm *arm); /* its condition, or "else" */
bool graph_holds_steps(const struct step *step);

enum { GRAPH_TEXT_MAX = 44, GRAPH_BYTES_MAX = 8 << 20 };

#endif
