/*
 * Alerts: somebody is told when an account passes a part of its limit, once in each period and for each threshold.
 *
 * What is told stands in the row (BUDGETS.ALERTED, of an account with periods BUDGET_PERIODS.ALERTED), written with the entry that passed
 * it; so a crash tells it again or not at all, never twice.  `alerting` keeps two settlements at once from telling the same.
 *
 * In a store that nodes share no node knows what all have spent.  There each looks at the rows of the keys, users and tenants that it has in
 * memory (ledger_share_look, every second); of those that find the same, the one whose mark is stored tells it.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "observe/metrics.h"
#include "orchestrator/ledger/ledger_internal.h"
#include "orchestrator/policy/audit.h"

enum { WHOLE = 1000 };

/* How much of the limit is spent, in thousandths.  The field that is nearest to its limit decides. */
static int64_t spent_part(const struct account *account, cost more, int *field)
{
    cost limit = account->budget.limit, spent = cost_add(account->budget.spent, more);
    int64_t most = 0;
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t whole = *cost_field(&limit, i), used = *cost_field(&spent, i);
        if (whole == COST_UNLIMITED || whole <= 0 || used <= 0)
            continue;
        int64_t part = used >= whole ? WHOLE : (int64_t) ((__int128) used * WHOLE / whole);
        if (part <= most)
            continue;
        most = part;
        *field = i;
    }
    return most;
}

static int passed(const struct ledger *ledger, const struct account *account, int64_t part)
{
    bool has_own = account->threshold_count > 0;
    const int *thresholds = has_own ? account->thresholds : ledger->options.thresholds;
    int count = has_own ? account->threshold_count : ledger->options.threshold_count, highest = 0;
    for (int i = 0; i < count; i++)
        if (thresholds[i] <= part && thresholds[i] > highest)
            highest = thresholds[i];
    return highest;
}

bool account_alert(struct ledger *ledger, struct account *account, cost more,
                   struct ledger_alert *out)
{
    int field = 0,
        told = account->alerting > account->alerted ? account->alerting : account->alerted;
    if (ledger->options.is_shared || told >= WHOLE || !account_is_limited(account))
        return false;
    int threshold = passed(ledger, account, spent_part(account, more, &field));
    if (threshold <= told)
        return false;
    account->alerting = threshold;
    cost spent = cost_add(account->budget.spent, more);
    *out = (struct ledger_alert){.tenant_id = account->tenant_id,
                                 .level = account->level,
                                 .subject = account->subject,
                                 .resource = cost_field_name(field),
                                 .threshold = threshold,
                                 .limit = *cost_field(&account->budget.limit, field),
                                 .spent = *cost_field(&spent, field),
                                 .period = account->period};
    return true;
}

static void write_mark(struct batch *batch, const struct ledger_alert *alert, int64_t at_us)
{
    char name[PERIOD_NAME_BYTES];
    str level = str_from_cstr(account_level_name(alert->level)),
        subject = str_copy(batch->arena, alert->subject);
    struct record *row;
    if (alert->period.period == PERIOD_NONE) {
        row = batch_add(batch, WRITE_UPDATE, TABLE_BUDGETS);
        record_set_text(row, BUDGETS_LEVEL, level);
        record_set_text(row, BUDGETS_SUBJECT, subject);
        record_set_integer(row, BUDGETS_ALERTED, alert->threshold);
        return;
    }
    row = batch_add(batch, WRITE_UPDATE, TABLE_BUDGET_PERIODS);
    record_set_text(row, BUDGET_PERIODS_LEVEL, level);
    record_set_text(row, BUDGET_PERIODS_SUBJECT, subject);
    record_set_text(row, BUDGET_PERIODS_PERIOD,
                    str_copy(batch->arena, period_name(alert->period.period, alert->period.since_us,
                                                       at_us, name)));
    record_set_integer(row, BUDGET_PERIODS_ALERTED, alert->threshold);
}

static void count(struct ledger *ledger, const struct ledger_alert *alert)
{
    if (ledger->options.metrics)
        metrics_add(ledger->options.metrics, METRIC_BUDGET_ALERTS, 1,
                    (str[]){str_from_cstr(account_level_name(alert->level)),
                            str_from_cstr(alert->resource)},
                    2);
}

static void tell(struct ledger *ledger, struct batch *batch, const struct ledger_alert *alert)
{
    const char *level = account_level_name(alert->level);
    struct principal node = {
        .tenant_id = alert->tenant_id, .user_id = S("nexus"), .caller_id = S("nexus")};
    audit_add(
        batch, ledger->clock, ledger->random, &node,
        &(struct audit_entry){
            .action = S("budget.alert"),
            .resource_type = S("budget"),
            .resource_id = str_printf(batch->arena, "%s:" STR_FMT, level, STR_ARG(alert->subject)),
            .details = str_printf(batch->arena,
                                  "{\"resource\":\"%s\",\"threshold\":%d,\"limit\":\"%lld\","
                                  "\"spent\":\"%lld\"}",
                                  alert->resource, alert->threshold, (long long) alert->limit,
                                  (long long) alert->spent),
        });
    if (ledger->options.alerted)
        ledger->options.alerted(ledger->options.alerted_owner, alert, batch);
}

void ledger_write_alert(struct ledger *ledger, struct batch *batch,
                        const struct ledger_alert *alert, int64_t at_us)
{
    write_mark(batch, alert, at_us);
    tell(ledger, batch, alert);
    count(ledger, alert);
}

/* ---- a store that nodes share ---- */

/* Nobody has marked it since the row was read. */
static void where_as_seen(struct batch *batch, const struct account *seen, const struct record *row)
{
    bool is_period = seen->period.period != PERIOD_NONE;
    int column = is_period ? (int) BUDGET_PERIODS_ALERTED : (int) BUDGETS_ALERTED;
    bool is_marked = is_period ? seen->alerted > 0 : record_has(row, BUDGETS_ALERTED);
    if (is_marked)
        batch_where_integer(batch, column, seen->alerted);
    else
        batch_where_null(batch, column);
}

bool ledger_alert_shared(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                         const struct record *row, struct error *e)
{
    struct account *seen = ARENA_NEW(ctx->arena, struct account);
    struct batch batch;
    struct error lost = {0};
    int field = 0;
    if (!account_peek(ledger, ctx, tenant_id, row, seen, e))
        return false;
    int threshold = passed(ledger, seen, spent_part(seen, (cost){0}, &field));
    if (threshold <= seen->alerted)
        return true;
    struct ledger_alert alert = {.tenant_id = tenant_id,
                                 .level = seen->level,
                                 .subject = seen->subject,
                                 .resource = cost_field_name(field),
                                 .threshold = threshold,
                                 .limit = *cost_field(&seen->budget.limit, field),
                                 .spent = *cost_field(&seen->budget.spent, field),
                                 .period = seen->period};
    pthread_mutex_lock(&ledger->lock);
    int64_t at_us = ledger_now_us(ledger);
    pthread_mutex_unlock(&ledger->lock);
    batch_init(&batch, ctx->arena, tenant_id);
    batch.fault = "share_alert";
    write_mark(&batch, &alert, at_us);
    where_as_seen(&batch, seen, row);
    tell(ledger, &batch, &alert);
    if (store_commit(ledger->store, ctx, &batch, &lost))
        count(ledger, &alert);
    else if (lost.reason != REASON_CONFLICT) /* else another node has told it */
        return error_copy(e, &lost);
    return true;
}
