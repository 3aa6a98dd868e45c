/*
 * Usage reports: what the usage log wrote, asked for.
 *
 * Sums of plain calls come from USAGE_DAILY, those of runs, tools and forfeited leases from the ledger.  Between moments that are no whole
 * days (UTC) plain calls are summed from the ledger too, to the chunk (USAGE_FLUSH_MS); then key, provider and variant are not known.
 * Every function first has what is pending written, so that a caller finds what has just ended.
 * Who is below operator sees their own calls only.  Rows and groups are bounded; results are on ctx's arena.
 * Thread: any coroutine.  Suspends: all of them.
 */
#ifndef NEXUS_ORCHESTRATOR_USAGE_REPORT_H
#define NEXUS_ORCHESTRATOR_USAGE_REPORT_H

#include "orchestrator/orchestrator.h"
#include "orchestrator/usage/usage.h"

/* ---- calls ---- */

struct usage_filter {
    str user_id, model, variant; /* empty: any */
    str status;              /* "ok", "error" (all that is not ok), a problem's name; empty: any */
    uuid key_id, session_id; /* UUID_NONE: any */
    int64_t from_us, to_us;  /* of their begin; 0: open */
};
struct usage_page {
    struct usage_record *items; /* newest first */
    size_t count;
    str next_cursor; /* empty: no more; a page may hold fewer than asked for and still have a next one */
};
may_suspend bool usage_calls(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, const struct usage_filter *filter,
                             str cursor, size_t limit, struct usage_page *out, struct error *e);
/* NOT_FOUND too when the principal may not see it. */
may_suspend bool usage_find(struct orchestrator *o, struct context *ctx,
                            const struct principal *principal, uuid call_id,
                            struct usage_record *out, struct error *e);

/* ---- feedback ---- */

/* A later score of the same person takes the place of the one before. */
struct usage_score {
    uuid call_id;
    int64_t thousandths; /* 0..1000 */
    str comment;         /* or empty */
};
may_suspend bool usage_feedback(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, const struct usage_score *score,
                                struct error *e);

/* ---- sums ---- */

enum usage_by {
    USAGE_BY_DAY = 1,
    USAGE_BY_USER = 2,
    USAGE_BY_KEY = 4,
    USAGE_BY_MODEL = 8,
    USAGE_BY_PROVIDER = 16,
    USAGE_BY_VARIANT = 32,
    USAGE_BY_KIND = 64,
};
must_check bool usage_by_parse(str name, unsigned *out);

struct usage_group {
    str day, user_id, key_id, model, provider, variant, kind; /* those that were asked for */
    cost sum;
    int64_t entries; /* calls, and ledger rows of runs */
    /* of plain calls only */
    int64_t requests, errors, cache_hits;
    int64_t input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens;
    int64_t duration_us, first_token_us, first_tokens;
    int64_t feedback_count, feedback_sum, feedback_squares; /* of thousandths */
};
struct usage_sums {
    struct usage_group *groups; /* in the order they were found */
    size_t count;
    struct usage_group total;
};
struct usage_question {
    unsigned by;
    str user_id;
    int64_t from_us, to_us; /* 0: open */
};
may_suspend bool usage_sums(struct orchestrator *o, struct context *ctx,
                            const struct principal *principal,
                            const struct usage_question *question, struct usage_sums *out,
                            struct error *e);

/* ---- A/B ---- */

struct usage_variant {
    struct usage_group sums; /* .variant is its name; empty: calls without one */
    int64_t duration[USAGE_LATENCY_BUCKETS], first_token[USAGE_LATENCY_BUCKETS];
};
/* Mean of the scores (0..1) and the 95 % interval of the mean (normal approximation); NAN where there are too few. */
struct usage_interval {
    double mean, low, high;
};
struct usage_interval usage_feedback_interval(const struct usage_group *group);
/* Whole days only; operator and above. */
may_suspend bool usage_experiment(struct orchestrator *o, struct context *ctx,
                                  const struct principal *principal, str model, int64_t from_us,
                                  int64_t to_us, struct usage_variant **out, size_t *count,
                                  struct error *e);

#endif
