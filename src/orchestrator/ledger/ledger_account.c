/*
 * Accounts: their rows, their periods, and which of them are in memory.
 *
 * An account with periods keeps two sums: BUDGETS.spent_* of all time, and one row of BUDGET_PERIODS for each period.  Both are only ever
 * added to, in the transaction of the entry, so a boundary needs no write: the next period begins as a row that is not there yet.  What
 * belongs to which period is decided by the entry's own time, which never goes back.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger_internal.h"
#include <stdlib.h>

enum { ACCOUNT_IDLE_SWEEP = 8, ACCOUNT_IDLE_PAGE = 500 };

bool account_is_limited(const struct account *account)
{
    return !cost_equal(account->budget.limit, COST_LIMITLESS);
}

/* ---- rows ---- */

const int budgets_limit_columns[] = {BUDGETS_LIMIT_TOKENS, BUDGETS_LIMIT_TIME_MS,
                                     BUDGETS_LIMIT_NANOUSD, BUDGETS_LIMIT_TOOL_CALLS};
const int budgets_spent_columns[] = {BUDGETS_SPENT_TOKENS, BUDGETS_SPENT_TIME_MS,
                                     BUDGETS_SPENT_NANOUSD, BUDGETS_SPENT_TOOL_CALLS};
const int budgets_leased_columns[] = {BUDGETS_LEASED_TOKENS, BUDGETS_LEASED_TIME_MS,
                                      BUDGETS_LEASED_NANOUSD, BUDGETS_LEASED_TOOL_CALLS};
static const int period_columns[] = {BUDGET_PERIODS_SPENT_TOKENS, BUDGET_PERIODS_SPENT_TIME_MS,
                                     BUDGET_PERIODS_SPENT_NANOUSD, BUDGET_PERIODS_SPENT_TOOL_CALLS};

void account_set_key(struct record *row, enum account_level level, str subject)
{
    record_set_text(row, BUDGETS_LEVEL, str_from_cstr(account_level_name(level)));
    record_set_text(row, BUDGETS_SUBJECT, subject);
}

static void set_period_key(struct record *row, enum account_level level, str subject, str period)
{
    record_set_text(row, BUDGET_PERIODS_LEVEL, str_from_cstr(account_level_name(level)));
    record_set_text(row, BUDGET_PERIODS_SUBJECT, subject);
    record_set_text(row, BUDGET_PERIODS_PERIOD, period);
}

void account_set_cost(struct record *row, const int columns[COST_FIELD_COUNT], cost amount)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t value = *cost_field(&amount, i);
        if (value == COST_UNLIMITED)
            record_set_null(row, columns[i]);
        else
            record_set_integer(row, columns[i], value);
    }
}

cost account_get_cost(const struct record *row, const int columns[COST_FIELD_COUNT])
{
    cost amount;
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        *cost_field(&amount, i) =
            record_has(row, columns[i]) ? record_integer(row, columns[i]) : COST_UNLIMITED;
    return amount;
}

void ledger_add_account_row(struct ledger *ledger, struct batch *batch, enum account_level level,
                            str subject, cost limit)
{
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_BUDGETS);
    account_set_key(row, level, subject);
    account_set_cost(row, budgets_limit_columns, limit);
    account_set_cost(row, budgets_spent_columns, (cost){0});
    account_set_cost(row, budgets_leased_columns, (cost){0});
    record_set_integer(row, BUDGETS_UPDATED_AT, clock_unix_us(ledger->clock));
}

/* To what the row adds already. */
static void add_cost(struct record *row, const int columns[COST_FIELD_COUNT], cost amount)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t before = record_has(row, columns[i]) ? record_integer(row, columns[i]) : 0;
        int64_t sum;
        if (__builtin_add_overflow(before, *cost_field(&amount, i), &sum))
            sum = INT64_MAX; /* the store refuses it, as it would both */
        if (*cost_field(&amount, i) != 0)
            record_set_integer(row, columns[i], sum);
    }
}

/* The row is there when it is added to: the first of a period makes it. */
static void add_period_rows(struct batch *batch, const struct account *account,
                            const struct account_change *change)
{
    char buffer[PERIOD_NAME_BYTES];
    int64_t start_us, end_us;
    str subject = str_copy(batch->arena, account->subject);
    str name = str_copy(batch->arena, period_name(change->period.period, change->period.since_us,
                                                  change->at_us, buffer));
    period_bounds(change->period.period, change->at_us, &start_us, &end_us);
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_BUDGET_PERIODS);
    set_period_key(row, account->level, subject, name);
    record_set_integer(row, BUDGET_PERIODS_STARTED_AT,
                       start_us > change->period.since_us ? start_us : change->period.since_us);
    account_set_cost(row, period_columns, (cost){0});
    row = batch_add(batch, WRITE_ADD, TABLE_BUDGET_PERIODS);
    set_period_key(row, account->level, subject, name);
    add_cost(row, period_columns, change->spent);
}

/* What the batch adds to this account already; NULL: nothing. */
static struct record *find_row(const struct batch *batch, const struct account *account)
{
    str level = str_from_cstr(account_level_name(account->level));
    for (size_t i = 0; i < batch->count && i < LEDGER_MERGE_ROWS_MAX; i++) {
        struct write *write = &batch->writes[i];
        if (write->op == WRITE_ADD && write->record.table == TABLE_BUDGETS &&
            str_equal(record_text(&write->record, BUDGETS_SUBJECT), account->subject) &&
            str_equal(record_text(&write->record, BUDGETS_LEVEL), level))
            return &write->record;
    }
    return NULL;
}

void account_add_row(struct ledger *ledger, struct batch *batch, const struct account *account,
                     const struct account_change *change)
{
    struct record *row = change->may_join ? find_row(batch, account) : NULL;
    if (!row) {
        row = batch_add(batch, WRITE_ADD, TABLE_BUDGETS);
        account_set_key(row, account->level, str_copy(batch->arena, account->subject));
    }
    add_cost(row, budgets_spent_columns, change->spent);
    add_cost(row, budgets_leased_columns, change->leased);
    if (change->period.period != PERIOD_NONE && !cost_is_zero(change->spent))
        add_period_rows(batch, account, change);
    (void) ledger;
}

/* ---- loading ---- */

static void read_thresholds(struct arena *arena, const struct record *row, struct account *out)
{
    const struct json *list, *item;
    struct error e = {0};
    if (!record_has(row, BUDGETS_ALERTS) ||
        !json_parse(arena, record_text(row, BUDGETS_ALERTS), (struct json_limits){0}, &list, &e))
        return;
    struct json_iter it = json_iter(list);
    while (out->threshold_count < BUDGET_ALERTS_MAX && json_next(&it, NULL, &item)) {
        int64_t threshold;
        if (json_to_i64(item, &threshold) && threshold > 0 && threshold <= 1000)
            out->thresholds[out->threshold_count++] = (int) threshold;
    }
}

/* Its entries tell what time it was: when the clock stepped back while no ledger was there, the newest period goes on. */
static never_inline bool hear_newest_period(struct ledger *ledger, struct context *ctx,
                                            const struct account *account, struct error *e)
{
    struct query query = query_of(TABLE_BUDGET_PERIODS);
    struct records rows;
    pthread_mutex_lock(&ledger->lock);
    int64_t now_us = ledger_now_us(ledger);
    pthread_mutex_unlock(&ledger->lock);
    query_where_text(&query, BUDGET_PERIODS_LEVEL,
                     str_from_cstr(account_level_name(account->level)));
    query_where_text(&query, BUDGET_PERIODS_SUBJECT, account->subject);
    query_where_integer(&query, BUDGET_PERIODS_STARTED_AT, FILTER_GREATER, now_us);
    query.order_column = BUDGET_PERIODS_STARTED_AT;
    query.is_descending = true;
    query.limit = 1;
    if (!store_list(ledger->store, ctx, account->tenant_id, &query, &rows, e))
        return false;
    if (rows.count == 0)
        return true;
    int64_t started_us = record_integer(&rows.items[0], BUDGET_PERIODS_STARTED_AT);
    pthread_mutex_lock(&ledger->lock);
    if (started_us > ledger->last_us)
        ledger->last_us = started_us;
    pthread_mutex_unlock(&ledger->lock);
    return true;
}

/* Of the period that is now, or the newest that is known: after a step back of the clock no period is opened a second time. */
static bool load_period(struct ledger *ledger, struct context *ctx, struct account *out,
                        struct error *e)
{
    char name[PERIOD_NAME_BYTES];
    struct record key = record_of(TABLE_BUDGET_PERIODS), row;
    struct error missing = {0};
    if (!hear_newest_period(ledger, ctx, out, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    if (out->period.since_us > ledger->last_us)
        ledger->last_us = out->period.since_us;
    int64_t now_us = ledger_now_us(ledger);
    pthread_mutex_unlock(&ledger->lock);
    period_bounds(out->period.period, now_us, &out->period_start_us, &out->period_end_us);
    set_period_key(&key, out->level, out->subject,
                   period_name(out->period.period, out->period.since_us, now_us, name));
    if (out->period_start_us < out->period.since_us)
        out->period_start_us = out->period.since_us;
    out->budget.spent = (cost){0};
    out->alerted = 0;
    if (!store_get(ledger->store, ctx, out->tenant_id, &key, &row, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    out->budget.spent = account_get_cost(&row, period_columns);
    if (record_has(&row, BUDGET_PERIODS_ALERTED))
        out->alerted = (int) record_integer(&row, BUDGET_PERIODS_ALERTED);
    return true;
}

static bool read_row(struct ledger *ledger, struct context *ctx, const struct record *row,
                     struct account *out, struct error *e)
{
    out->total = out->budget.spent = account_get_cost(row, budgets_spent_columns);
    out->known_room = account_get_cost(row, budgets_leased_columns); /* leased, for now */
    if (out->level >= ACCOUNT_KEY)
        out->budget.limit = account_get_cost(row, budgets_limit_columns);
    if (record_has(row, BUDGETS_ALERTED))
        out->alerted = (int) record_integer(row, BUDGETS_ALERTED);
    read_thresholds(ctx->arena, row, out);
    if (!record_has(row, BUDGETS_PERIOD) ||
        !period_parse(record_text(row, BUDGETS_PERIOD), &out->period.period) ||
        out->period.period == PERIOD_NONE)
        return true;
    out->period.since_us =
        record_has(row, BUDGETS_PERIOD_START) ? record_integer(row, BUDGETS_PERIOD_START) : 0;
    return load_period(ledger, ctx, out, e);
}

bool account_read_spent(struct ledger *ledger, struct context *ctx, const struct account *account,
                        const struct record *row, cost *spent, struct error *e)
{
    struct account of = {.tenant_id = account->tenant_id,
                         .level = account->level,
                         .subject = account->subject,
                         .period_start_us = INT64_MIN,
                         .period_end_us = INT64_MAX};
    if (!read_row(ledger, ctx, row, &of, e))
        return false;
    *spent = of.budget.spent;
    return true;
}

bool account_peek(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                  const struct record *row, struct account *out, struct error *e)
{
    *out = (struct account){.tenant_id = tenant_id,
                            .subject = record_text(row, BUDGETS_SUBJECT),
                            .period_start_us = INT64_MIN,
                            .period_end_us = INT64_MAX};
    if (!account_level_parse(record_text(row, BUDGETS_LEVEL), &out->level))
        return error_set(e, REASON_CORRUPT, "an account of the unknown level \"" STR_FMT "\"",
                         STR_ARG(record_text(row, BUDGETS_LEVEL)));
    return read_row(ledger, ctx, row, out, e);
}

static never_inline bool make_row(struct ledger *ledger, struct context *ctx, struct account *out,
                                  struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, out->tenant_id);
    ledger_add_account_row(ledger, &batch, out->level, out->subject, out->budget.limit);
    out->known_room = out->budget.limit;
    return store_commit(ledger->store, ctx, &batch, e);
}

/* Reads the account's row, or makes it. */
static never_inline bool load_row(struct ledger *ledger, struct context *ctx, struct account *out,
                                  struct error *e)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error missing = {0};
    account_set_key(&key, out->level, out->subject);
    if (store_get(ledger->store, ctx, out->tenant_id, &key, &row, &missing)) {
        if (!read_row(ledger, ctx, &row, out, e))
            return false;
        out->known_spent = out->budget.spent;
        out->known_room = cost_max(
            cost_subtract(cost_subtract(out->budget.limit, out->budget.spent), out->known_room),
            (cost){0});
        return true;
    }
    if (missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    return make_row(ledger, ctx, out, e);
}

/* ---- periods ---- */

int64_t ledger_now_us(struct ledger *ledger)
{
    int64_t now_us = clock_unix_us(ledger->clock);
    if (now_us > ledger->last_us)
        ledger->last_us = now_us;
    return ledger->last_us;
}

/* What is reserved stays reserved: it is settled in the period in which it ends, and has its room there. */
void account_roll(struct ledger *ledger, struct account *account)
{
    int64_t now_us = ledger_now_us(ledger);
    if (now_us < account->period_end_us)
        return;
    period_bounds(account->period.period, now_us, &account->period_start_us,
                  &account->period_end_us);
    account->alerted = account->alerting = 0;
    if (ledger->options.is_shared) /* budget is this node's share, which goes on */
        return;
    account->budget.spent = account->budget.overdraft = (cost){0};
}

/* Where nodes share a store: what is spent beyond what was covered is no share of this node's, and what was covered and not used is. */
static void settle_in_share(struct account *account, const struct account_settlement *settlement)
{
    cost ended = ledger_share_ended(settlement->reserved, settlement->used, settlement->uncovered);
    cost by = cost_subtract(cost_subtract(settlement->used, ended), settlement->uncovered);
    account->budget.limit = cost_add(account->budget.limit, by);
    if (!cost_equal(ended, cost_subtract(settlement->reserved, settlement->uncovered)))
        account->has_share = true; /* the rest made its row */
}

void account_settle(struct ledger *ledger, struct account *account,
                    const struct account_settlement *settlement)
{
    struct budget *budget = &account->budget;
    account_refresh(ledger, account);
    account->total = cost_add(account->total, settlement->used);
    if (settlement->at_us < account->period_start_us && !ledger->options.is_shared) {
        budget_release(budget, settlement->reserved); /* it was booked in the period before */
        return;
    }
    budget_settle(budget, settlement->reserved, settlement->used);
    if (ledger->options.is_shared)
        settle_in_share(account, settlement);
}

/* ---- settings ---- */

void account_set_limit(struct ledger *ledger, struct account *account, cost limit)
{
    account->limit = limit;
    if (!ledger->options.is_shared) {
        account->budget.limit = limit;
        return;
    }
    for (int i = 0; i < COST_FIELD_COUNT; i++) { /* a share is only of what is limited */
        int64_t *share = cost_field(&account->budget.limit, i);
        if (*cost_field(&limit, i) == COST_UNLIMITED)
            *share = COST_UNLIMITED;
        else if (*share == COST_UNLIMITED) {
            *share =
                *cost_field(&account->budget.spent, i) + *cost_field(&account->budget.reserved, i);
            *cost_field(&account->uncovered, i) = *cost_field(&account->plain_reserved, i);
        }
    }
}

void account_set_period(struct ledger *ledger, struct account *account,
                        struct account_period period, cost spent)
{
    ledger->generation++; /* what is gathered so far belongs to no period of it */
    account->period = period;
    period_bounds(period.period, ledger_now_us(ledger), &account->period_start_us,
                  &account->period_end_us);
    if (period.period != PERIOD_NONE && account->period_start_us < period.since_us)
        account->period_start_us = period.since_us;
    if (ledger->options.is_shared)
        return;
    account->budget.spent = spent;
    account->budget.overdraft = (cost){0};
}

void account_set_thresholds(struct account *account, const int *thresholds, int count)
{
    account->threshold_count = count;
    for (int i = 0; i < count; i++)
        account->thresholds[i] = thresholds[i];
    account->alerted = account->alerting = 0; /* of another limit */
}

static bool has_period(const struct account *account, const struct account_period *period)
{
    return account->period.period == period->period && account->period.since_us == period->since_us;
}

uint64_t account_settings(struct ledger *ledger, const struct account *account)
{
    pthread_mutex_lock(&ledger->lock);
    uint64_t number = account->settings_number;
    pthread_mutex_unlock(&ledger->lock);
    return number;
}

never_inline bool account_hear(struct ledger *ledger, struct context *ctx, struct account *account,
                               const struct record *row, uint64_t seen, struct error *e)
{
    struct account *said = ARENA_NEW(ctx->arena, struct account);
    cost limit = account_get_cost(row, budgets_limit_columns);
    if (!account_peek(ledger, ctx, account->tenant_id, row, said, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    bool is_old = account->settings_in_flight > 0 || account->settings_number != seen;
    bool is_new =
        !is_old && (!cost_equal(limit, account->limit) || !has_period(account, &said->period));
    if (is_new)
        account->settings_number++;
    if (is_new && !has_period(account, &said->period))
        account_set_period(ledger, account, said->period, (cost){0});
    if (is_new && !cost_equal(limit, account->limit))
        account_set_limit(ledger, account, limit);
    if (is_new)
        account_set_thresholds(account, said->thresholds, said->threshold_count);
    pthread_mutex_unlock(&ledger->lock);
    return true;
}

/* ---- in memory ---- */

str account_key(char out[ACCOUNT_KEY_BYTES], uuid tenant_id, enum account_level level, str subject)
{
    memcpy(out, tenant_id.bytes, sizeof tenant_id.bytes);
    out[16] = (char) ('0' + level);
    size_t length = subject.len < ACCOUNT_KEY_BYTES - 17 ? subject.len : ACCOUNT_KEY_BYTES - 17;
    memcpy(out + 17, subject.ptr, length);
    return str_of(out, 17 + length);
}

str account_own_text(str text)
{
    char *copy = malloc(text.len + 1);
    ensure(copy != NULL);
    memcpy(copy, text.ptr ? text.ptr : "", text.len);
    copy[text.len] = 0;
    return str_of(copy, text.len);
}

void account_destroy(struct account *account)
{
    free((char *) (uintptr_t) account->subject.ptr);
    free((char *) (uintptr_t) account->key.ptr);
    free(account->rate);
    free(account);
}

void account_hold(struct account *account)
{
    if (account->references++ == 0)
        list_remove(&account->idle_link);
}

void account_let_go(struct ledger *ledger, struct account *account, int64_t now_ns)
{
    ensure(account->references > 0);
    if (--account->references > 0)
        return;
    account->idle_since_ns = now_ns;
    list_push_back(&ledger->idle, &account->idle_link);
}

static bool has_share(const struct account *account)
{
    cost left = budget_remaining(&account->budget);
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&left, i) > 0 && *cost_field(&left, i) != COST_UNLIMITED)
            return true;
    return false;
}

/* Something would be forgotten with it: a run that waits, a lease, a share that is still to be given back. */
static bool is_needed(const struct ledger *ledger, const struct account *account)
{
    return !cost_is_zero(account->budget.reserved) || list_is_linked(&account->free_link) ||
           (ledger->options.is_shared && has_share(account));
}

/* Accounts that nobody has held for a while go, a few with each new one, and all by the clock.  False: there are no more.  Their rows are up to date: what they spent was committed long
   ago. */
static bool sweep_idle(struct ledger *ledger, int max)
{
    int64_t now_ns = clock_monotonic_ns(ledger->clock),
            before_ns = now_ns - LEDGER_ACCOUNT_IDLE_MS * 1000000ll;
    for (int i = 0; i < max; i++) {
        struct list *first = list_first(&ledger->idle);
        if (!first)
            return false;
        struct account *account = LIST_ITEM(first, struct account, idle_link);
        if (account->idle_since_ns > before_ns)
            return false;
        list_remove(first);
        if (is_needed(ledger, account)) {
            account->idle_since_ns = now_ns;
            list_push_back(&ledger->idle, first);
            continue;
        }
        map_remove(ledger->accounts, account->key);
        list_remove(&account->upper_link);
        account_destroy(account);
    }
    return true;
}

bool ledger_sweep_idle(struct ledger *ledger)
{
    pthread_mutex_lock(&ledger->lock);
    bool is_more = sweep_idle(ledger, ACCOUNT_IDLE_PAGE);
    pthread_mutex_unlock(&ledger->lock);
    return is_more;
}

void ledger_forget_idle(struct ledger *ledger)
{
    pthread_mutex_lock(&ledger->lock);
    struct list *next;
    for (struct list *at = ledger->idle.next; at != &ledger->idle; at = next) {
        struct account *account = LIST_ITEM(at, struct account, idle_link);
        next = at->next;
        if (is_needed(ledger, account))
            continue;
        list_remove(at);
        list_remove(&account->upper_link);
        map_remove(ledger->accounts, account->key);
        account_destroy(account);
    }
    pthread_mutex_unlock(&ledger->lock);
}

static struct account *hold(struct ledger *ledger, str key)
{
    struct account *account = map_find(ledger->accounts, key);
    if (account)
        account_hold(account);
    return account;
}

static struct account *insert(struct ledger *ledger, const struct account *loaded, str key)
{
    struct account *account =
        hold(ledger, key); /* another coroutine may have loaded it meanwhile */
    if (account)
        return account;
    (void) sweep_idle(ledger, ACCOUNT_IDLE_SWEEP);
    account = calloc(1, sizeof *account);
    ensure(account != NULL);
    *account = *loaded;
    account->subject = account_own_text(loaded->subject);
    account->key = account_own_text(key);
    account->limit = loaded->budget.limit;
    account->references = 1;
    if (ledger->options.is_shared)
        ledger_share_begin(account);
    map_put(ledger->accounts, account->key, account);
    if (account->level >= ACCOUNT_KEY)
        list_push_back(&ledger->upper, &account->upper_link);
    return account;
}

static bool load(struct ledger *ledger, struct context *ctx, struct account *loaded, str key,
                 struct account **out, struct error *e)
{
    if (!load_row(ledger, ctx, loaded, e))
        return error_wrap(e, "account of %s " STR_FMT, account_level_name(loaded->level),
                          STR_ARG(loaded->subject));
    pthread_mutex_lock(&ledger->lock);
    *out = insert(ledger, loaded, key);
    pthread_mutex_unlock(&ledger->lock);
    return true;
}

static never_inline bool load_account(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                      enum account_level level, str subject, cost limit, str key,
                                      struct account **out, struct error *e)
{
    struct account loaded = {.tenant_id = tenant_id,
                             .level = level,
                             .subject = subject,
                             .budget = {.limit = limit},
                             .period_start_us = INT64_MIN,
                             .period_end_us = INT64_MAX};
    return load(ledger, ctx, &loaded, key, out, e);
}

/* Where nodes share a store another one may have set a limit where there was none: the row tells. */
static never_inline bool hear_of_limit(struct ledger *ledger, struct context *ctx,
                                       struct account *account, struct error *e)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error missing = {0};
    uint64_t seen = account_settings(ledger, account);
    account_set_key(&key, account->level, account->subject);
    if (!store_get(ledger->store, ctx, account->tenant_id, &key, &row, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    return account_hear(ledger, ctx, account, &row, seen, e);
}

bool account_open(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                  enum account_level level, str subject, cost limit, struct account **out,
                  struct error *e)
{
    char buffer[ACCOUNT_KEY_BYTES] not_cleared;
    str key = account_key(buffer, tenant_id, level, subject);
    pthread_mutex_lock(&ledger->lock);
    struct account *account = hold(ledger, key);
    pthread_mutex_unlock(&ledger->lock);
    if (!account)
        return load_account(ledger, ctx, tenant_id, level, subject, limit, key, out, e);
    bool may_be_old =
        ledger->options.is_shared && level >= ACCOUNT_KEY && !account_is_limited(account);
    if (may_be_old && !hear_of_limit(ledger, ctx, account, e)) {
        pthread_mutex_lock(&ledger->lock);
        account_let_go(ledger, account, clock_monotonic_ns(ledger->clock));
        pthread_mutex_unlock(&ledger->lock);
        return false;
    }
    *out = account;
    return true;
}
