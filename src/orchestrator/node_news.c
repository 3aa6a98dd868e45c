#include "orchestrator/node_news.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"
#include "orchestrator/journal/journal.h"
#include "orchestrator/orchestrator_internal.h"
#include <stdlib.h>

struct node_news {
    struct orchestrator *o;
    struct map *seen; /* uint64_t *: sum of what had come for a run when it was woken, by its id */
    struct arena *arena; /* of `after` */
    str after;           /* where the next turn goes on */
};

struct node_news *node_news_create(struct orchestrator *o)
{
    struct node_news *news = calloc(1, sizeof *news);
    ensure(news != NULL);
    news->o = o;
    news->seen = map_create();
    news->arena = arena_create(0);
    return news;
}

static void forget(struct node_news *news)
{
    size_t position = 0;
    void *sum;
    while (map_next(news->seen, &position, NULL, &sum))
        free(sum);
    map_destroy(news->seen);
    news->seen = map_create();
}

void node_news_destroy(struct node_news *news)
{
    forget(news);
    map_destroy(news->seen);
    arena_destroy(news->arena);
    free(news);
}

struct look {
    struct node_news *news;
    struct context *ctx;
    uuid tenant_id;
    const struct record *run;
    uuid run_id;
    uint64_t sum; /* of the signals and messages that are there; 0: none */
};

/* ---- what it certainly goes on with ---- */

static never_inline bool has_pending(struct look *l, bool *out, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    struct records pending;
    query_where_uuid(&query, APPROVALS_RUN_ID, l->run_id);
    query_where_text(&query, APPROVALS_STATUS, S("pending"));
    query.limit = 1;
    if (!store_list(l->news->o->parts.store, l->ctx, l->tenant_id, &query, &pending, e))
        return false;
    *out = pending.count > 0;
    return true;
}

/* Did it ask for approvals when it began to wait?  Where its last event does not say what it waits for: as if it did. */
static never_inline bool has_asked(struct look *l, bool *out, struct error *e)
{
    struct events last;
    int64_t seq = record_integer(l->run, AGENT_RUNS_LAST_SEQ);
    if (!journal_read(l->news->o->parts.store, l->ctx, l->tenant_id, l->run_id, seq - 1, 1, &last,
                      e))
        return false;
    *out = last.count == 0 || last.items[0].type != EVENT_RUN_WAITING ||
           json_count(json_get(last.items[0].data, S("approvals"))) > 0;
    return true;
}

/* ---- what it may go on with ---- */

/* The newest of them: ids are ordered by time. */
static never_inline bool add_newest(struct look *l, enum table table, int of_column, uuid of,
                                    int id_column, struct error *e)
{
    struct query query = query_of(table);
    struct records rows;
    query_where_uuid(&query, of_column, of);
    query.is_descending = true;
    query.limit = NODE_NEWS_NEWEST;
    if (!store_list(l->news->o->parts.store, l->ctx, l->tenant_id, &query, &rows, e))
        return false;
    for (size_t i = 0; i < rows.count; i++) {
        uuid id = record_uuid(&rows.items[i], id_column);
        l->sum = str_hash(str_of((const char *) &id, sizeof id), l->sum + 1) | 1;
    }
    return true;
}

static bool is_news(struct look *l)
{
    struct node_news *news = l->news;
    str key = str_of((const char *) &l->run_id, sizeof l->run_id);
    uint64_t *sum = map_find(news->seen, key);
    if (l->sum == 0 || (sum && *sum == l->sum))
        return false;
    if (!sum) {
        if (map_count(news->seen) == NODE_NEWS_RUNS_MAX)
            forget(news);
        sum = malloc(sizeof *sum);
        ensure(sum != NULL);
        map_put(news->seen, key, sum);
    }
    *sum = l->sum;
    return true;
}

/* ---- one run ---- */

static bool must_wake(struct look *l, bool *out, struct error *e)
{
    struct record *key = ARENA_NEW(l->ctx->arena, struct record);
    struct record *session = ARENA_NEW(l->ctx->arena, struct record);
    uuid session_id = record_uuid(l->run, AGENT_RUNS_SESSION_ID);
    bool is_pending, is_paused = record_has(l->run, AGENT_RUNS_WAKES_AT);
    *out = record_has(l->run, AGENT_RUNS_CANCEL_BY);
    if (*out)
        return true;
    *key = record_of(TABLE_SESSIONS);
    record_set_uuid(key, SESSIONS_ID, session_id);
    if (!store_get(l->news->o->parts.store, l->ctx, l->tenant_id, key, session, e))
        return false;
    if (is_paused) {
        *out = !session_is_paused(session);
        return true;
    }
    if (!has_pending(l, &is_pending, e) || (!is_pending && !has_asked(l, out, e)))
        return false;
    if (*out)
        return true;
    if (record_has(l->run, AGENT_RUNS_WORKFLOW) &&
        !add_newest(l, TABLE_RUN_SIGNALS, RUN_SIGNALS_RUN_ID, l->run_id, RUN_SIGNALS_ID, e))
        return false;
    if (record_integer(session, SESSIONS_INBOX_COUNT) > 0 &&
        !add_newest(l, TABLE_SESSION_INBOX, SESSION_INBOX_SESSION_ID, session_id, SESSION_INBOX_ID,
                    e))
        return false;
    *out = is_news(l);
    return true;
}

static bool is_woken_by_the_clock(const struct record *run)
{
    return record_has(run, AGENT_RUNS_WAITS_UNTIL) ||
           (record_has(run, AGENT_RUNS_WAKES_AT) &&
            record_integer(run, AGENT_RUNS_WAKES_AT) != RUN_WAKES_WITH_SESSION);
}

static bool look_at(struct node_news *news, struct context *ctx, uuid tenant_id,
                    const struct record *run, struct error *e)
{
    struct look *l = ARENA_NEW(ctx->arena, struct look);
    struct error failure = {0};
    bool is_due = false;
    *l = (struct look){.news = news,
                       .ctx = ctx,
                       .tenant_id = tenant_id,
                       .run = run,
                       .run_id = record_uuid(run, AGENT_RUNS_ID)};
    if (is_woken_by_the_clock(run))
        return true;
    if (!must_wake(l, &is_due, &failure))
        return failure.code == ERROR_NOT_FOUND /* it ended, and was removed */ ||
               error_copy(e, &failure);
    if (is_due)
        run_spawn_row(news->o, tenant_id, run);
    return true;
}

bool node_news_turn(struct node_news *news, struct context *ctx, struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records page;
    uuid *tenants;
    query_where_text(&query, AGENT_RUNS_STATUS, S("waiting"));
    query.limit = NODE_WAITING_RUNS;
    query.cursor = news->after;
    if (!store_list_any_tenant(news->o->parts.store, ctx, &query, &page, &tenants, e))
        return false;
    for (size_t i = 0; i < page.count; i++)
        if (!look_at(news, ctx, tenants[i], &page.items[i], e))
            return false;
    arena_reset(news->arena);
    news->after = str_copy(news->arena, page.next_cursor);
    return true;
}
