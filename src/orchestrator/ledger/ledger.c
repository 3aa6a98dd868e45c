#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger_internal.h"
#include <stdlib.h>

static const char *const level_names[ACCOUNT_LEVEL_COUNT] = {
    [ACCOUNT_RUN] = "run",   [ACCOUNT_SESSION] = "session", [ACCOUNT_KEY] = "key",
    [ACCOUNT_USER] = "user", [ACCOUNT_TENANT] = "tenant",
};

const char *account_level_name(enum account_level level)
{
    return level_names[level];
}

bool account_level_parse(str text, enum account_level *out)
{
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++) {
        if (!str_equal(text, str_from_cstr(level_names[i])))
            continue;
        *out = (enum account_level) i;
        return true;
    }
    return false;
}

void cost_write_json(struct json_writer *w, cost amount)
{
    json_object_begin(w);
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        str name = str_from_cstr(cost_field_name(i));
        int64_t value = *cost_field(&amount, i);
        if (value == COST_UNLIMITED) {
            json_key(w, name);
            json_write_null(w);
        } else if (cost_field(&amount, i) == &amount.cost_nanousd) {
            json_put_i64_str(w, name, value);
        } else {
            json_put_i64(w, name, value);
        }
    }
    json_object_end(w);
}

/* ---- life ---- */

struct ledger *ledger_create(struct store *store, struct clock *clock, struct random *random)
{
    struct ledger *ledger = calloc(1, sizeof *ledger);
    ensure(ledger != NULL);
    *ledger =
        (struct ledger){.store = store, .clock = clock, .random = random, .accounts = map_create()};
    ledger->take_number = ledger->generation = 1;
    list_init(&ledger->free_leases);
    list_init(&ledger->idle);
    list_init(&ledger->upper);
    pthread_mutex_init(&ledger->lock, NULL);
    return ledger;
}

void ledger_configure(struct ledger *ledger, const struct ledger_options *options)
{
    ledger->options = *options;
}

bool ledger_is_shared(const struct ledger *ledger)
{
    return ledger->options.is_shared;
}

void ledger_set_thresholds(struct ledger *ledger, const int *thresholds, int count)
{
    pthread_mutex_lock(&ledger->lock);
    ledger->options.threshold_count = count < BUDGET_ALERTS_MAX ? count : BUDGET_ALERTS_MAX;
    for (int i = 0; i < ledger->options.threshold_count; i++)
        ledger->options.thresholds[i] = thresholds[i];
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_destroy(struct ledger *ledger)
{
    if (!ledger)
        return;
    ledger_taken_destroy(ledger, ledger_take(ledger, true));
    size_t position = 0;
    void *value;
    while (map_next(ledger->accounts, &position, NULL, &value))
        account_destroy(value);
    map_destroy(ledger->accounts);
    pthread_mutex_destroy(&ledger->lock);
    free(ledger);
}

/* ---- paths ---- */

/* Without an id the level is absent. */
static bool open_id_account(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                            enum account_level level, uuid id, cost limit, struct account **out,
                            struct error *e)
{
    char text[UUID_TEXT_BYTES + 1];
    if (uuid_is_none(id) && level != ACCOUNT_TENANT)
        return true;
    uuid_format(id, text);
    return account_open(ledger, ctx, tenant_id, level, str_of(text, UUID_TEXT_BYTES), limit, out,
                        e);
}

static bool open_run(struct ledger *ledger, struct context *ctx, uuid tenant_id, uuid run_id,
                     cost limit, struct account **out, struct error *e)
{
    return cost_equal(limit, COST_LIMITLESS) ||
           open_id_account(ledger, ctx, tenant_id, ACCOUNT_RUN, run_id, limit, out, e);
}

struct ledger_extra *path_extra(struct ledger_path *path)
{
    if (path->extra)
        return path->extra;
    path->extra = calloc(1, sizeof *path->extra);
    ensure(path->extra != NULL);
    path->extra->per_minute = COST_LIMITLESS;
    return path->extra;
}

static bool open_above(struct ledger *ledger, struct context *ctx,
                       const struct ledger_limits *limits, struct ledger_path *path,
                       struct error *e)
{
    if (limits->ancestor_count > RUN_CHILD_DEPTH_MAX)
        return error_set(e, REASON_LIMIT, "a run with more than %d runs above it",
                         RUN_CHILD_DEPTH_MAX);
    for (int i = 0; i < limits->ancestor_count; i++) {
        const struct ledger_ancestor *ancestor = &limits->ancestors[i];
        struct ledger_extra *extra = path->extra;
        extra->above_ids[extra->above_count++] = ancestor->run_id;
        if (!open_run(ledger, ctx, path->tenant_id, ancestor->run_id, ancestor->limit,
                      &extra->above[i], e))
            return false;
    }
    return true;
}

/* Plain calls have none of this. */
static bool open_extra(struct ledger *ledger, struct context *ctx,
                       const struct ledger_limits *limits, struct ledger_path *path,
                       struct error *e)
{
    if (limits->ancestor_count == 0)
        return true;
    path_extra(path);
    return open_above(ledger, ctx, limits, path, e);
}

/* With the lock held: nothing is held back any more. */
static void let_back(struct ledger_path *path)
{
    if (!path->extra)
        return;
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        budget_release(&account->budget, path->extra->held_back);
        account->held_back = cost_subtract(account->held_back, path->extra->held_back);
    }
    path->extra->held_back = (cost){0};
}

bool ledger_open_path(struct ledger *ledger, struct context *ctx, uuid tenant_id, str user_id,
                      uuid session_id, uuid run_id, struct ledger_limits limits,
                      struct ledger_path *out, struct error *e)
{
    *out = (struct ledger_path){.tenant_id = tenant_id,
                                .session_id = session_id,
                                .run_id = run_id,
                                .key_id = limits.key_id};
    struct account **accounts = out->accounts;
    bool ok = open_id_account(ledger, ctx, tenant_id, ACCOUNT_TENANT, tenant_id, COST_LIMITLESS,
                              &accounts[ACCOUNT_TENANT], e) &&
              account_open(ledger, ctx, tenant_id, ACCOUNT_USER, user_id, COST_LIMITLESS,
                           &accounts[ACCOUNT_USER], e) &&
              open_id_account(ledger, ctx, tenant_id, ACCOUNT_KEY, limits.key_id, COST_LIMITLESS,
                              &accounts[ACCOUNT_KEY], e) &&
              open_id_account(ledger, ctx, tenant_id, ACCOUNT_SESSION, session_id, limits.session,
                              &accounts[ACCOUNT_SESSION], e) &&
              open_run(ledger, ctx, tenant_id, run_id, limits.run, &accounts[ACCOUNT_RUN], e) &&
              open_extra(ledger, ctx, &limits, out, e);
    if (ok)
        out->user_id = out->accounts[ACCOUNT_USER]->subject;
    else
        ledger_close_path(ledger, out);
    return ok;
}

void ledger_close_path(struct ledger *ledger, struct ledger_path *path)
{
    int64_t now_ns = clock_monotonic_ns(ledger->clock);
    pthread_mutex_lock(&ledger->lock);
    let_back(path);
    for (int i = 0; i < path_length(path); i++)
        if (path_account(path, i))
            account_let_go(ledger, path_account(path, i), now_ns);
    pthread_mutex_unlock(&ledger->lock);
    memset(path->accounts, 0, sizeof path->accounts);
    free(path->extra);
    path->extra = NULL;
}

/* ---- reserving and settling: runs ---- */

static bool refuse(const struct account *account, int field, cost worst_case, struct error *e)
{
    cost left = budget_remaining(&account->budget);
    const char *period = period_text(account->period.period);
    return error_set(e, REASON_BUDGET,
                     "the %s budget%s%s does not cover it: %s needed %lld, left %lld",
                     account_level_name(account->level), *period ? " of this " : "", period,
                     cost_field_name(field), (long long) *cost_field(&worst_case, field),
                     (long long) *cost_field(&left, field));
}

static bool refuse_rate(const struct ledger_path *path, cost left, cost worst_case, struct error *e)
{
    int field = worst_case.tokens > left.tokens ? 0 : 2;
    return error_set(e, REASON_BUDGET,
                     "the session spends faster than its limit of %lld %s a minute: needed %lld, "
                     "left of this minute %lld",
                     (long long) *cost_field(&path->extra->per_minute, field),
                     cost_field_name(field), (long long) *cost_field(&worst_case, field),
                     (long long) *cost_field(&left, field));
}

/* With the lock held. */
static bool path_fits(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                      struct error *e)
{
    int field;
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        account_refresh(ledger, account);
        if (!budget_fits(&account->budget, worst_case, &field))
            return refuse(account, field, worst_case, e);
    }
    cost left = rate_remaining(ledger, path);
    return cost_fits(worst_case, left) || refuse_rate(path, left, worst_case, e);
}

bool ledger_rate_fits(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                      struct error *e)
{
    pthread_mutex_lock(&ledger->lock);
    cost left = rate_remaining(ledger, path);
    pthread_mutex_unlock(&ledger->lock);
    return cost_fits(worst_case, left) || refuse_rate(path, left, worst_case, e);
}

static void path_reserve(const struct ledger_path *path, cost worst_case,
                         struct ledger_cover *cover)
{
    if (cover)
        ledger_share_cover(path, cover);
    for (int i = 0; i < path_length(path); i++)
        if (path_account(path, i))
            budget_reserve(&path_account(path, i)->budget, worst_case);
}

static bool try_reserve(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                        struct ledger_cover *cover, bool *has_free, struct error *e)
{
    pthread_mutex_lock(&ledger->lock);
    bool ok = path_fits(ledger, path, worst_case, e);
    if (ok)
        path_reserve(path, worst_case, cover);
    *has_free = !ok && ledger->hooks.settle && ledger_path_has_free(path);
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

bool ledger_reserve(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                    struct error *e)
{
    bool has_free;
    return try_reserve(ledger, path, worst_case, NULL, &has_free, e);
}

/* When it does not fit, free leases of the path are given back and it is tried again. */
static bool reserve_or_make_room(struct ledger *ledger, struct context *ctx,
                                 const struct ledger_path *path, cost worst_case,
                                 struct ledger_cover *cover, struct error *e)
{
    bool has_free;
    struct error refusal = {0};
    if (try_reserve(ledger, path, worst_case, cover, &has_free, &refusal))
        return true;
    if (!has_free)
        return error_copy(e, &refusal);
    ledger->hooks.settle(ledger->hooks.owner, ctx);
    return try_reserve(ledger, path, worst_case, cover, &has_free, e);
}

bool ledger_reserve_in(struct ledger *ledger, struct context *ctx, const struct ledger_path *path,
                       cost worst_case, struct ledger_cover *cover, struct error *e)
{
    struct error refusal = {0};
    *cover = (struct ledger_cover){0};
    struct ledger_cover *wanted = ledger->options.is_shared ? cover : NULL;
    if (reserve_or_make_room(ledger, ctx, path, worst_case, wanted, &refusal))
        return true;
    if (!ledger->options.is_shared || refusal.reason != REASON_BUDGET)
        return error_copy(e, &refusal);
    return ledger_share_grow(ledger, ctx, path, worst_case, e) &&
           reserve_or_make_room(ledger, ctx, path, worst_case, wanted, e);
}

void ledger_release(struct ledger *ledger, const struct ledger_path *path, cost worst_case)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < path_length(path); i++)
        if (path_account(path, i))
            budget_release(&path_account(path, i)->budget, worst_case);
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_hear_time(struct ledger *ledger, int64_t at_us)
{
    pthread_mutex_lock(&ledger->lock);
    if (at_us > ledger->last_us)
        ledger->last_us = at_us;
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_restore(struct ledger *ledger, const struct ledger_path *path, cost worst_case)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        account->budget.reserved = cost_add(account->budget.reserved, worst_case);
        if (ledger->options.is_shared) /* its room is in nobody's share */
            account->budget.limit = cost_add(account->budget.limit, worst_case);
    }
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_forget(struct ledger *ledger, const struct ledger_path *path, cost worst_case)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        budget_release(&account->budget, worst_case);
        if (ledger->options.is_shared)
            account->budget.limit = cost_subtract(account->budget.limit, worst_case);
    }
    pthread_mutex_unlock(&ledger->lock);
}

/* ---- the wind-down reserve ---- */

/* A last call's part must not be what keeps others from working. */
static bool may_hold_back(const struct account *account, cost amount)
{
    cost most = account->budget.limit, after = cost_add(account->held_back, amount);
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&most, i) != COST_UNLIMITED)
            *cost_field(&most, i) /= LEDGER_HELD_BACK_PART;
    return cost_fits(after, most) && budget_fits(&account->budget, amount, NULL);
}

static bool path_may_hold_back(struct ledger *ledger, const struct ledger_path *path, cost amount)
{
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        account_refresh(ledger, account);
        if (!may_hold_back(account, amount))
            return false;
    }
    return true;
}

bool ledger_hold_back(struct ledger *ledger, struct ledger_path *path, cost amount)
{
    struct ledger_extra *extra = path_extra(path);
    pthread_mutex_lock(&ledger->lock);
    let_back(path);
    bool ok = path_may_hold_back(ledger, path, amount);
    for (int i = 0; ok && i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        budget_reserve(&account->budget, amount);
        account->held_back = cost_add(account->held_back, amount);
    }
    if (ok)
        extra->held_back = amount;
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

/* The rate does not hold for the last call: it is the last. */
bool ledger_reserve_last(struct ledger *ledger, struct ledger_path *path, cost worst_case,
                         struct ledger_cover *cover, struct error *e)
{
    int field;
    bool ok = true;
    cost held_back = path->extra ? path->extra->held_back : (cost){0};
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; ok && i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        account_refresh(ledger, account);
        struct budget without = account->budget;
        without.reserved = cost_subtract(without.reserved, held_back);
        if (!budget_fits(&without, worst_case, &field))
            ok = refuse(account, field, worst_case, e);
    }
    *cover = (struct ledger_cover){0};
    if (ok) {
        let_back(path);
        path_reserve(path, worst_case, ledger->options.is_shared ? cover : NULL);
    }
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

/* ---- entries ---- */

/* "id/id" of the runs above, outermost first. */
/* Under the lock what the rows say is decided; they are written after it. */
struct settling {
    struct account_period periods[ACCOUNT_LEVEL_COUNT + RUN_CHILD_DEPTH_MAX];
    bool has_periods;
    struct ledger_alerts alerts;
};

static void decide_settlement(struct ledger *ledger, const struct ledger_path *path,
                              struct settlement *settlement, struct settling *out)
{
    pthread_mutex_lock(&ledger->lock);
    settlement->at_us = ledger_now_us(ledger);
    out->alerts.count = 0;
    out->has_periods = false;
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        account_refresh(ledger, account);
        out->periods[i] = account->period;
        out->has_periods = out->has_periods || account->period.period != PERIOD_NONE;
        if (out->alerts.count < LEDGER_ALERTS_MAX &&
            account_alert(ledger, account, settlement->used, &out->alerts.items[out->alerts.count]))
            out->alerts.count++;
    }
    pthread_mutex_unlock(&ledger->lock);
}

/* What was used is leased no more; the rest comes into this node's share. */
static void settle_share(struct ledger *ledger, struct batch *batch, const struct account *account,
                         const struct settlement *settlement, uint8_t fields)
{
    cost uncovered = ledger_share_uncovered(settlement->reserved, fields),
         ended = ledger_share_ended(settlement->reserved, settlement->used, uncovered);
    cost covered = cost_subtract(settlement->reserved, uncovered);
    ledger_share_add_row(
        ledger, batch, account,
        &(struct share_change){.ended = ended, .share = cost_subtract(covered, ended)});
}

never_inline void ledger_settle(struct ledger *ledger, const struct ledger_path *path,
                                struct settlement *settlement, struct batch *batch,
                                struct ledger_alerts *alerts)
{
    struct settling *settling = ARENA_NEW(batch->arena, struct settling);
    decide_settlement(ledger, path, settlement, settling);
    ledger_settle_entry(ledger, batch, path, settlement, !settling->has_periods);
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        if (ledger->options.is_shared)
            settle_share(ledger, batch, account, settlement, settlement->cover.fields[i]);
        if (cost_is_zero(settlement->used))
            continue;
        account_add_row(ledger, batch, account,
                        &(struct account_change){.spent = settlement->used,
                                                 .may_join = true,
                                                 .period = settling->periods[i],
                                                 .at_us = settlement->at_us});
    }
    for (int i = 0; i < settling->alerts.count; i++)
        ledger_write_alert(ledger, batch, &settling->alerts.items[i], settlement->at_us);
    if (alerts)
        *alerts = settling->alerts;
}

void ledger_settled(struct ledger *ledger, const struct ledger_path *path,
                    const struct settlement *settlement)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        account_settle(
            ledger, account,
            &(struct account_settlement){.reserved = settlement->reserved,
                                         .used = settlement->used,
                                         .uncovered = ledger_share_uncovered(
                                             settlement->reserved, settlement->cover.fields[i]),
                                         .at_us = settlement->at_us});
        if (account->alerting > account->alerted)
            account->alerted = account->alerting;
    }
    rate_charge(ledger, path, settlement->used);
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_not_settled(struct ledger *ledger, const struct ledger_path *path)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < path_length(path); i++)
        if (path_account(path, i))
            path_account(path, i)->alerting = path_account(path, i)->alerted;
    pthread_mutex_unlock(&ledger->lock);
}

/* ---- looking ---- */

static cost account_remaining(struct ledger *ledger, struct account *account)
{
    account_refresh(ledger, account);
    struct budget budget = account->budget;
    budget.reserved = cost_subtract(budget.reserved, account->lease_free);
    cost remaining = budget_remaining(&budget);
    return ledger->options.is_shared ? cost_add(remaining, account->known_room) : remaining;
}

/* A free lease is nobody's: it is given back as soon as the room is needed. */
static void fill_view(struct ledger *ledger, struct account *account, struct ledger_view *out)
{
    cost remaining = account_remaining(ledger, account);
    const struct budget *budget = &account->budget;
    *out = (struct ledger_view){
        .limit = budget->limit,
        .spent = budget->spent,
        .reserved = cost_subtract(budget->reserved, account->lease_free),
        .remaining = remaining,
        .period = account->period.period,
        .period_start_us = account->period_start_us,
        .period_end_us = account->period_end_us,
        .has_thresholds = account->threshold_count > 0,
        .alerted = account->alerted,
    };
    const int *thresholds = out->has_thresholds ? account->thresholds : ledger->options.thresholds;
    out->threshold_count =
        out->has_thresholds ? account->threshold_count : ledger->options.threshold_count;
    for (int i = 0; i < out->threshold_count; i++)
        out->thresholds[i] = thresholds[i];
}

struct ledger_view ledger_view(struct ledger *ledger, const struct ledger_path *path,
                               enum account_level level)
{
    struct ledger_view view = {.limit = COST_LIMITLESS, .remaining = COST_LIMITLESS};
    pthread_mutex_lock(&ledger->lock);
    if (path->accounts[level])
        fill_view(ledger, path->accounts[level], &view);
    pthread_mutex_unlock(&ledger->lock);
    return view;
}

static void fill_shared_view(const struct record *row, cost spent, struct ledger_view *out)
{
    cost limit = account_get_cost(row, budgets_limit_columns),
         leased = account_get_cost(row, budgets_leased_columns);
    out->limit = limit;
    out->spent = spent;
    out->reserved = leased;
    out->remaining = cost_max(cost_subtract(cost_subtract(limit, spent), leased), (cost){0});
}

bool ledger_view_in(struct ledger *ledger, struct context *ctx, const struct ledger_path *path,
                    enum account_level level, struct ledger_view *out, struct error *e)
{
    struct account *account = path->accounts[level];
    struct record key = record_of(TABLE_BUDGETS), row;
    cost spent;
    *out = ledger_view(ledger, path, level);
    if (!account || !ledger->options.is_shared)
        return true;
    account_set_key(&key, level, account->subject);
    if (!store_get(ledger->store, ctx, path->tenant_id, &key, &row, e) ||
        !account_read_spent(ledger, ctx, account, &row, &spent, e))
        return false;
    fill_shared_view(&row, spent, out);
    return true;
}

cost ledger_remaining(struct ledger *ledger, const struct ledger_path *path)
{
    pthread_mutex_lock(&ledger->lock);
    cost tightest = rate_remaining(ledger, path);
    for (int i = 0; i < path_length(path); i++)
        if (path_account(path, i))
            tightest = cost_min(tightest, account_remaining(ledger, path_account(path, i)));
    pthread_mutex_unlock(&ledger->lock);
    return tightest;
}

cost ledger_smallest_limit(struct ledger *ledger, const struct ledger_path *path)
{
    cost smallest = COST_LIMITLESS;
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < path_length(path); i++)
        if (path_account(path, i))
            smallest = cost_min(smallest, path_account(path, i)->limit);
    pthread_mutex_unlock(&ledger->lock);
    return smallest;
}

/* An account without a limit stays without one: saturated. */
cost ledger_remaining_last(struct ledger *ledger, const struct ledger_path *path)
{
    cost tightest = COST_LIMITLESS, held_back = path->extra ? path->extra->held_back : (cost){0};
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < path_length(path); i++)
        if (path_account(path, i))
            tightest = cost_min(
                tightest, cost_add(account_remaining(ledger, path_account(path, i)), held_back));
    pthread_mutex_unlock(&ledger->lock);
    return tightest;
}

/* ---- limits ---- */

static str thresholds_text(struct arena *arena, const struct ledger_setting *setting)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 256);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (int i = 0; i < setting->threshold_count; i++)
        json_write_i64(&w, setting->thresholds[i]);
    json_array_end(&w);
    return strbuf_str(&text);
}

/* With the lock held: a period that is new counts from a moment after every entry that has been made. */
static struct account_period new_period(struct ledger *ledger, enum period period)
{
    ledger->last_us = ledger_now_us(ledger) + 1;
    return (struct account_period){period, ledger->last_us};
}

static void fill_setting_row(struct ledger *ledger, struct record *row,
                             const struct account *account, const struct ledger_setting *setting,
                             struct account_period period, struct arena *arena)
{
    account_set_key(row, account->level, account->subject);
    account_set_cost(row, budgets_limit_columns, setting->limit);
    record_set_integer(row, BUDGETS_UPDATED_AT, clock_unix_us(ledger->clock));
    record_set_integer(row, BUDGETS_ALERTED, 0);
    if (ledger->options.is_shared) /* whoever grants room at this moment reads the row again */
        record_set_integer(row, BUDGETS_REVISION,
                           (int64_t) random_below(ledger->random, 1ull << 62));
    if (period.period == PERIOD_NONE) {
        record_set_null(row, BUDGETS_PERIOD);
        record_set_null(row, BUDGETS_PERIOD_START);
    } else {
        record_set_text(row, BUDGETS_PERIOD, str_from_cstr(period_text(period.period)));
        record_set_integer(row, BUDGETS_PERIOD_START, period.since_us);
    }
    if (setting->threshold_count > 0)
        record_set_text(row, BUDGETS_ALERTS, thresholds_text(arena, setting));
    else
        record_set_null(row, BUDGETS_ALERTS);
}

/*
 * A new period holds in memory before its row says so: what is settled meanwhile is booked in it.  If the row does not come, nothing reads
 * what was booked there.  A limit holds only once it is stored; where the store does not know whether it was, its row is read again.
 */
static never_inline bool was_stored(struct ledger *ledger, struct context *ctx,
                                    const struct account *account, const struct record *wanted)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error ignored = {0}; /* then it stays unknown, as the commit said */
    account_set_key(&key, account->level, account->subject);
    return store_get(ledger->store, ctx, account->tenant_id, &key, &row, &ignored) &&
           record_integer(&row, BUDGETS_UPDATED_AT) == record_integer(wanted, BUDGETS_UPDATED_AT) &&
           cost_equal(account_get_cost(&row, budgets_limit_columns),
                      account_get_cost(wanted, budgets_limit_columns)) &&
           record_has(&row, BUDGETS_PERIOD) == record_has(wanted, BUDGETS_PERIOD) &&
           (!record_has(&row, BUDGETS_PERIOD) || record_integer(&row, BUDGETS_PERIOD_START) ==
                                                     record_integer(wanted, BUDGETS_PERIOD_START));
}

static bool set_account(struct ledger *ledger, struct context *ctx, struct account *account,
                        const struct ledger_setting *setting, struct error *e)
{
    struct batch batch;
    bool is_new_period = setting->period != account->period.period;
    pthread_mutex_lock(&ledger->lock);
    account->settings_in_flight++;
    struct account_period before = account->period, period = before;
    cost spent = account->budget.spent, total = account->total;
    if (is_new_period) {
        period = new_period(ledger, setting->period);
        account_set_period(ledger, account, period,
                           period.period == PERIOD_NONE ? total : (cost){0});
    }
    pthread_mutex_unlock(&ledger->lock);
    batch_init(&batch, ctx->arena, account->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_BUDGETS);
    fill_setting_row(ledger, row, account, setting, period, ctx->arena);
    bool ok = store_commit(ledger->store, ctx, &batch, e) ||
              (e->reason == REASON_OUTCOME_UNKNOWN && was_stored(ledger, ctx, account, row));
    pthread_mutex_lock(&ledger->lock);
    account->settings_in_flight--;
    account->settings_number++;
    if (ok) {
        account_set_limit(ledger, account, setting->limit);
        account_set_thresholds(account, setting->thresholds, setting->threshold_count);
    } else if (is_new_period) {
        account_set_period(ledger, account, before,
                           cost_add(spent, cost_subtract(account->total, total)));
    }
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

bool ledger_set(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                enum account_level level, str subject, const struct ledger_setting *setting,
                struct error *e)
{
    struct account *account;
    if (level < ACCOUNT_KEY)
        return error_set(
            e, REASON_INVALID,
            "only the limits of a key, a user or a tenant can be set; a session's are fixed "
            "when it opens");
    if (!account_open(ledger, ctx, tenant_id, level, subject, COST_LIMITLESS, &account, e))
        return false;
    bool ok = set_account(ledger, ctx, account, setting, e);
    pthread_mutex_lock(&ledger->lock);
    account_let_go(ledger, account, clock_monotonic_ns(ledger->clock));
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

bool ledger_set_limit(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                      enum account_level level, str subject, cost limit, struct error *e)
{
    struct account *account;
    struct ledger_setting setting = {.limit = limit};
    if (level >= ACCOUNT_KEY) {
        if (!account_open(ledger, ctx, tenant_id, level, subject, COST_LIMITLESS, &account, e))
            return false;
        pthread_mutex_lock(&ledger->lock);
        setting.period = account->period.period;
        setting.threshold_count = account->threshold_count;
        memcpy(setting.thresholds, account->thresholds, sizeof setting.thresholds);
        account_let_go(ledger, account, clock_monotonic_ns(ledger->clock));
        pthread_mutex_unlock(&ledger->lock);
    }
    return ledger_set(ledger, ctx, tenant_id, level, subject, &setting, e);
}
