/*
 * Plain call: one governed model call without a run (compatible routes).
 *
 *      plain_call_begin       model, session, policy, limits of the key; nothing is reserved yet
 *        plain_attempt_begin  the router's next target and key (waits out its back-off), and a reservation for exactly that target
 *        plain_attempt_end    books that attempt: by the provider's usage, by what was seen of an interrupted stream, by the reservation
 *                             when nothing is known, or nothing when it was refused before any work
 *        ... more attempts, in turn or (hedging) two at once ...
 *      plain_call_end         one usage record of the whole call
 *
 * Budgets are checked anew for every attempt, so a dearer fallback target cannot pass a cap.  Nothing here waits for the store, except a
 * lease where a limited account has none yet (ledger.h).  Settlements, usage records and audit entries reach the store in batches.
 * Thread: the caller's loop.  _begin functions suspend (bounded); _end functions never do, so that a relay without a coroutine may call
 * them.
 */
#ifndef NEXUS_ORCHESTRATOR_PLAIN_CALL_H
#define NEXUS_ORCHESTRATOR_PLAIN_CALL_H

#include "llm/guard_tally.h"
#include "llm/router.h"
#include "orchestrator/orchestrator.h"
#include <assert.h>

struct plain_request {
    str model;
    uuid session_id; /* UUID_NONE: no session */
    int64_t input_tokens_bound;
    int64_t max_output_tokens; /* 0: not said */
    int64_t choices;           /* n, at least 1 */
    const char *dialect;       /* name, for the usage record; a literal */
    const char *kind;          /* "chat", "embedding"; a literal */
    bool is_stream;
    bool has_tools;
    str prefer; /* a provider's name: see route_request */
};

struct plain_call {
    const struct settings *settings;
    const struct model *model;
    struct principal principal; /* strings of the request: they must live until plain_call_end */
    struct plain_request request;
    struct ledger_path path;
    struct route route;
    trace_context trace; /* of the request */
    uuid id;
    int64_t started_ns;
    int64_t first_token_ns; /* of the answer that was used; 0: not known */
    cost spent;             /* of ended attempts */
    struct usage usage;
    int attempt_count;
    str provider, target_model, variant; /* of the last attempt; borrowed from the settings */
    const char *basis;                   /* of the last settlement */
    struct guard_tally
        *found; /* by the content filter, in all its texts; NULL: the model has none */
};
/* For the guards of this call; they must be gone before it ends.  Findings are audited at its end. */
static inline struct guard_sink plain_call_sink(const struct plain_call *call)
{
    return call->found ? guard_tally_sink(call->found) : (struct guard_sink){0};
}

struct plain_attempt {
    struct plain_call *call;
    struct attempt attempt;
    cost reserved;
    int64_t max_output_tokens; /* what must be sent as the limit */
    bool is_lowered;           /* less than was asked for, because of a budget */
    bool
        must_limit; /* some account is limited: send max_output_tokens even if the caller said none */
};

struct plain_result {
    const struct usage *
        usage; /* NULL: not known; not reported, but with input_tokens: what was said at the begin */
    int64_t
        estimated_output; /* tokens seen of an answer without usage; -1: nothing is known, the reservation counts */
    bool was_refused;            /* the provider did no work: costs nothing */
    const struct error *failure; /* NULL: it went well */
};

may_suspend bool plain_call_begin(struct orchestrator *o, struct context *ctx,
                                  const struct principal *principal,
                                  const struct plain_request *request, struct plain_call *out,
                                  struct error *e);
/* last: why the attempt before failed; NULL at the first and for a hedge.  False: nothing is left or the budget refuses; *e says which. */
may_suspend bool plain_attempt_begin(struct orchestrator *o, struct context *ctx,
                                     struct plain_call *call, const struct error *last,
                                     struct plain_attempt *out, struct error *e);
void plain_attempt_end(struct orchestrator *o, struct plain_attempt *attempt,
                       const struct plain_result *result);
/* An answer from the cache: no attempt, no cost, but a usage record that says so. */
enum plain_cache { PLAIN_CACHE_NONE, PLAIN_CACHE_EXACT, PLAIN_CACHE_SEMANTIC };
void plain_call_end(struct orchestrator *o, struct plain_call *call, enum plain_cache cache,
                    const struct error *failure);

/*
 * What an open stream keeps of its call and its one open attempt: less than PLAIN_OPEN_BYTES_MAX and nothing that lives on a request's
 * arena, so that thousands may flow.
 *      plain_open(&call, &attempt, &open);    both are moved: their memory may go, and only plain_open_* may follow
 *      plain_open_first_token                 when the first token comes after the move (else attempt_first_token before it)
 *      plain_open_end                         plain_attempt_end and plain_call_end in one; open.usage and open.spent tell the sums
 * Later attempts are impossible then.  None of them suspends.
 */
enum { PLAIN_OPEN_BYTES_MAX = 600 };
struct plain_open {
    const struct settings *settings;
    const struct model *model;
    struct ledger_path path;
    trace_context trace;
    uuid id, key_id;
    int64_t started_ns, first_token_ns;
    cost spent, reserved;
    struct usage usage;
    struct attempt attempt;
    struct guard_tally *found;
    const char *dialect, *kind; /* literals */
    int64_t input_tokens_bound, choices, max_output_tokens;
    int attempt_count;
    bool is_stream;
};
static_assert(sizeof(struct plain_open) <= PLAIN_OPEN_BYTES_MAX, "kept by every open stream");
void plain_open(const struct plain_call *call, const struct plain_attempt *attempt,
                struct plain_open *out);
void plain_open_first_token(struct orchestrator *o, struct plain_open *open);
void plain_open_end(struct orchestrator *o, struct plain_open *open,
                    const struct plain_result *result);

#endif
