/*
 * Backtest: what the recorded traffic would have been with another policy, price list, router or content filter.
 *
 *      runs' journals (policy.decided, model.completed) --.
 *      usage records of plain calls -----------------------+--> the candidate --> counts, differences, examples
 *      messages ------------------------------------------'
 *
 * Nothing is changed and nothing is sent: the candidate only judges.  It reads page by page in bounded memory; what a record does not say
 * is counted as unanswered, never guessed.
 *   policy   each decision of a run again, with the input that it had: arguments from the call's row, what was left of the budget from the
 *            event (older journals do not say: then as if nothing were limited, counted as `without_budget`)
 *   prices   each model call by its recorded tokens, exactly, at the price of its day
 *   router   each model call of the named models to the targets given, by their weights at the lowest priority
 *   filter   each message of a person (as a request) and of a model (as a reply)
 * Thread: a coroutine; making the candidates is blocking (backtest_open).
 */
#ifndef NEXUS_ORCHESTRATOR_BACKTEST_H
#define NEXUS_ORCHESTRATOR_BACKTEST_H

#include "orchestrator/orchestrator.h"

struct backtest;
/* {"since_ms", "policy": {"modules": [{"name", "source"}], "data"?}, "prices": "text of a price list",
    "router": {"models": [{"name", "targets": [{"provider", "model", "weight"?, "priority"?}]}]},
    "filter": {"secrets", "pii", "injection": action, "rules": [{"name", "pattern", "group"?, "action"}]}}; at least one candidate.
   Blocking: compiles.  CONFIG says what is wrong with a candidate. */
must_check bool backtest_open(const struct json *request, int64_t now_us, struct backtest **out,
                              struct error *e);
void backtest_close(struct backtest *backtest); /* blocking; NULL is fine */
/* Reads the traffic of the principal's tenant.  The report is JSON text on ctx's arena. */
may_suspend bool backtest_run(struct backtest *backtest, struct orchestrator *o,
                              struct context *ctx, const struct principal *principal, str *out,
                              struct error *e);

#endif
