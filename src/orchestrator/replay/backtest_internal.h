/*
 * The backtest's inside.
 *
 *   backtest.c             candidates, the walk over the traffic, the report
 *   backtest_policy.c      decisions of runs
 *   backtest_calls.c       prices and routes of model calls
 *   backtest_filter.c      messages
 */
#ifndef NEXUS_ORCHESTRATOR_BACKTEST_INTERNAL_H
#define NEXUS_ORCHESTRATOR_BACKTEST_INTERNAL_H

#include "base/limits.h"
#include "filter/filter.h"
#include "llm/prices.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/replay/backtest.h"

/* Lines of a table: what is counted under one key. */
struct tally {
    str key[4];
    int64_t count, old_nanousd, new_nanousd;
    double expected;
};
struct tallies {
    struct tally *items;
    size_t count;
    int64_t left_out; /* past BACKTEST_GROUPS_MAX */
};
struct example {
    str text; /* JSON object */
};
struct route_target {
    str provider, model;
    int64_t weight, priority;
};
struct route_model {
    str name;
    struct route_target *targets;
    size_t target_count;
};

struct backtest {
    struct arena *arena; /* of the candidates and of what is counted */
    int64_t since_us;
    struct policy *policy;
    struct prices *prices;
    struct filter_set *filter;
    struct route_model *routes;
    size_t route_count;

    /* while it runs */
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id;
    int64_t runs, calls, messages;
    struct {
        int64_t decisions, same, newly_denied, newly_allowed, newly_asked, unanswered,
            without_budget;
        struct tallies changes;
        struct example examples[BACKTEST_EXAMPLES_MAX];
        size_t example_count;
    } policy_result;
    struct {
        int64_t priced, unpriced, old_nanousd, new_nanousd;
        struct tallies days, models;
        struct tallies unknown;
    } price_result;
    struct {
        int64_t routed;
        struct tallies moves, targets;
    } route_result;
    struct {
        int64_t texts, blocked, masked, flagged;
        struct tallies rules;
        struct example examples[BACKTEST_EXAMPLES_MAX];
        size_t example_count;
    } filter_result;
};

/* The line of this key; NULL when there is no room for another one. */
struct tally *backtest_tally(struct backtest *b, struct tallies *list, str a, str b_, str c, str d);

/* One run whose events are read: what its decisions need. */
struct backtest_run {
    const struct record *row;
    struct record session;
    str role;
    const struct json *asked; /* the newest model.requested */
    int64_t asked_nanousd;
};
may_suspend bool backtest_policy_event(struct backtest *b, struct backtest_run *run,
                                       const struct event *event, struct error *e);
void backtest_policy_write(const struct backtest *b, struct json_writer *w);

struct backtest_call {
    str model, provider, target;
    struct usage usage;
    int64_t at_us, nanousd;
};
void backtest_call(struct backtest *b, const struct backtest_call *call);
void backtest_calls_write(const struct backtest *b, struct json_writer *w);
must_check bool backtest_routes_read(struct backtest *b, const struct json *router,
                                     struct error *e);

void backtest_message(struct backtest *b, const struct record *message);
void backtest_filter_write(const struct backtest *b, struct json_writer *w);
must_check bool backtest_filter_read(struct backtest *b, const struct json *filter,
                                     struct error *e);

#endif
