/*
 * Run view: a run's events as lines that a person reads along: question, policy decisions, budget, tool calls, answer, cost.
 *
 * What happens goes to stderr; the answer goes to stdout, as it comes when that is a terminal, else whole at the end.  With --json each
 * event is one line on stdout and nothing else is written there.
 */
#ifndef NEXUS_CLI_RUN_VIEW_H
#define NEXUS_CLI_RUN_VIEW_H

#include "cli/follow.h"

struct run_view {
    struct cli *cli;
    bool is_json;
    bool is_quiet;     /* the answer only */
    bool streams;      /* deltas go to the terminal as they come */
    bool is_line_open; /* of the streamed answer */
    int64_t attempt;   /* of the deltas shown */
    bool has_shown_deltas;
    bool has_children; /* it began other runs: their cost is not in its events */
    /* How it ended: */
    bool is_waiting;
    char approval_id[40];      /* the first of those it waits for */
    int wait_count;            /* those that run_view_wait told */
    enum error_reason failure; /* REASON_NONE: none */
    bool is_failed, is_cancelled, is_completed;
    bool is_cut_short; /* completed, but by its budget or the loop breaker */
};

void run_view_init(struct run_view *view, struct cli *cli, bool is_json, bool is_quiet);
/* Shows one event; false when the run is over or waits for an approval. */
bool run_view_event(struct run_view *view, struct context *ctx, const struct run_event *event);
/* A follow_wait_fn's work: shows an approval that is waited for, and is false. */
bool run_view_wait(struct run_view *view, struct context *ctx,
                   const struct awaited_approval *approval);
/* Of one that waits: for what, and how an approval is decided on that server, on stderr; `data`: it must be started first, with this
   folder; empty: it runs.  As JSON: nothing, its last line has the id. */
void run_view_tell_waiting(const struct run_view *view, str server, str data);
/* At the end of one that began others: what all of them cost, as the server knows it.  Suspends. */
void run_view_total(struct run_view *view, struct client *client, struct context *ctx, str run_id);
/* What the process returns for what was seen. */
int run_view_exit_code(const struct run_view *view);

#endif
