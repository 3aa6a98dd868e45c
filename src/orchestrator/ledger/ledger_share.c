/*
 * Shares: several nodes spend from the accounts of one store.
 *
 * A node takes a share of an account's room before it uses it, durably, and reserves within its share in memory, as if the share were the
 * limit.  What it settles turns share into spending, in one transaction; what it does not need it gives back.
 *
 *      BUDGETS.leased_* = sum of BUDGET_LEASES over all nodes        spent + leased <= limit, at every instant
 *      budget.limit - budget.spent (of a node's memory) = its BUDGET_LEASES row
 *
 * A grant is conditional on BUDGETS.REVISION, which every grant and every change of a limit raises, so two nodes never take the same room.
 * Settling and giving back need no condition: they make no room smaller.
 * A node that dies keeps its share, and nobody else may use it.  Its runs take their part along when another node goes on with them
 * (ledger_adopt: their session is fenced, so the dead one cannot settle them any more).  What is left once no session is its any more is
 * booked as forfeited, since plain calls may have used it, and the row goes (ledger_share_bury); so one that was only thought dead can
 * settle nothing against it either: its batches do not find the row.
 * One node over a store of its own does none of this.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger_internal.h"
#include <stdlib.h>

enum { SHARE_AHEAD = 3, SHARE_ROOM_PART = 8, SHARE_RETURN_MAX = 256 };

static const int lease_columns[] = {BUDGET_LEASES_TOKENS, BUDGET_LEASES_TIME_MS,
                                    BUDGET_LEASES_NANOUSD, BUDGET_LEASES_TOOL_CALLS};

/* What of an amount is of limited fields: only these have shares. */
static cost of_limited(cost amount, cost limit)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&limit, i) == COST_UNLIMITED)
            *cost_field(&amount, i) = 0;
    return amount;
}

static cost negative(cost amount)
{
    return cost_subtract((cost){0}, amount);
}

/* ---- rows ---- */

static void set_lease_key(struct record *row, str node, enum account_level level, str subject)
{
    record_set_text(row, BUDGET_LEASES_NODE, node);
    record_set_text(row, BUDGET_LEASES_LEVEL, str_from_cstr(account_level_name(level)));
    record_set_text(row, BUDGET_LEASES_SUBJECT, subject);
}

static void add_fields(struct record *row, const int columns[COST_FIELD_COUNT], cost amount)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&amount, i) != 0)
            record_set_integer(row, columns[i], *cost_field(&amount, i));
}

static void make_lease(struct ledger *ledger, struct batch *batch, enum account_level level,
                       str subject)
{
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_BUDGET_LEASES);
    set_lease_key(row, ledger->options.node, level, subject);
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        record_set_integer(row, lease_columns[i], 0);
    record_set_integer(row, BUDGET_LEASES_UPDATED_AT, clock_unix_us(ledger->clock));
}

/* The row must be there. */
static void change_lease(struct ledger *ledger, struct batch *batch, str node,
                         enum account_level level, str subject, cost by)
{
    struct record *row = batch_add(batch, WRITE_ADD, TABLE_BUDGET_LEASES);
    set_lease_key(row, node, level, subject);
    add_fields(row, lease_columns, by);
    record_set_integer(row, BUDGET_LEASES_UPDATED_AT, clock_unix_us(ledger->clock));
}

static void change_leased(struct batch *batch, enum account_level level, str subject, cost by)
{
    struct record *row = batch_add(batch, WRITE_ADD, TABLE_BUDGETS);
    account_set_key(row, level, subject);
    add_fields(row, budgets_leased_columns, by);
}

void ledger_share_add_row(struct ledger *ledger, struct batch *batch, const struct account *account,
                          cost ended)
{
    cost share = of_limited(ended, account->limit);
    str subject = str_copy(batch->arena, account->subject);
    if (cost_is_zero(share))
        return;
    change_leased(batch, account->level, subject, negative(share));
    change_lease(ledger, batch, ledger->options.node, account->level, subject, negative(share));
}

/* Conditional: nobody else has granted or set anything since the row was read. */
static void raise_revision(struct batch *batch, const struct account *account,
                           const struct record *seen)
{
    bool has_one = record_has(seen, BUDGETS_REVISION);
    int64_t revision = has_one ? record_integer(seen, BUDGETS_REVISION) : 0;
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_BUDGETS);
    account_set_key(row, account->level, str_copy(batch->arena, account->subject));
    record_set_integer(row, BUDGETS_REVISION, revision + 1);
    if (has_one)
        batch_where_integer(batch, BUDGETS_REVISION, revision);
    else
        batch_where_null(batch, BUDGETS_REVISION);
}

static bool read_account_row(struct ledger *ledger, struct context *ctx,
                             const struct account *account, struct record *row, struct error *e)
{
    struct record key = record_of(TABLE_BUDGETS);
    account_set_key(&key, account->level, account->subject);
    return store_get(ledger->store, ctx, account->tenant_id, &key, row, e);
}

/* ---- growing ---- */

/* With the lock held. */
static cost missing_of(struct ledger *ledger, struct account *account, cost worst_case)
{
    account_refresh(ledger, account);
    cost left = budget_remaining(&account->budget);
    return of_limited(cost_max(cost_subtract(worst_case, left), (cost){0}), account->limit);
}

static bool refuse(const struct account *account, cost missing, cost room, struct error *e)
{
    int field = 0;
    while (field + 1 < COST_FIELD_COUNT &&
           *cost_field(&missing, field) <= *cost_field(&room, field))
        field++;
    return error_set(
        e, REASON_BUDGET,
        "the %s budget does not cover it: %s needed %lld more, left for this node %lld",
        account_level_name(account->level), cost_field_name(field),
        (long long) *cost_field(&missing, field), (long long) *cost_field(&room, field));
}

/* More than is missing, so that not every call asks the store; within a small part of what is there, so that others find some. */
static cost grant_of(cost missing, cost worst_case, cost room)
{
    cost grant = missing;
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t need = *cost_field(&missing, i),
                spare = (*cost_field(&room, i) - need) / SHARE_ROOM_PART,
                ahead = *cost_field(&worst_case, i);
        ahead = ahead > INT64_MAX / SHARE_AHEAD ? spare : ahead * SHARE_AHEAD;
        if (need > 0)
            *cost_field(&grant, i) = need + (ahead < spare ? ahead : spare);
    }
    return grant;
}

/* What nobody has: limit less spent (of this period) less what all nodes have. */
static bool room_of(struct ledger *ledger, struct context *ctx, struct account *account,
                    const struct record *row, cost *room, struct error *e)
{
    cost spent;
    if (!account_read_spent(ledger, ctx, account, row, &spent, e))
        return false;
    cost limit = account_get_cost(row, budgets_limit_columns);
    *room = cost_max(
        cost_subtract(cost_subtract(limit, spent), account_get_cost(row, budgets_leased_columns)),
        (cost){0});
    pthread_mutex_lock(&ledger->lock);
    account->limit = limit;
    account->known_room = *room;
    account->known_spent = spent;
    pthread_mutex_unlock(&ledger->lock);
    return true;
}

static never_inline bool grow_once(struct ledger *ledger, struct context *ctx,
                                   struct account *account, cost worst_case, struct error *e)
{
    struct record row;
    struct batch batch;
    cost room;
    if (!read_account_row(ledger, ctx, account, &row, e) ||
        !room_of(ledger, ctx, account, &row, &room, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    cost missing = missing_of(ledger, account, worst_case);
    pthread_mutex_unlock(&ledger->lock);
    if (cost_is_zero(missing))
        return true;
    if (!cost_fits(missing, room))
        return refuse(account, missing, room, e);
    cost grant = grant_of(missing, worst_case, room);
    str subject = str_copy(ctx->arena, account->subject);
    batch_init(&batch, ctx->arena, account->tenant_id);
    batch.fault = "share";
    raise_revision(&batch, account, &row);
    change_leased(&batch, account->level, subject, grant);
    if (!account->has_share)
        make_lease(ledger, &batch, account->level, subject);
    change_lease(ledger, &batch, ledger->options.node, account->level, subject, grant);
    if (!store_commit(ledger->store, ctx, &batch, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    account->has_share = true;
    account->budget.limit = cost_add(account->budget.limit, grant);
    account->known_room = cost_subtract(room, grant);
    account->extended_ns = clock_monotonic_ns(ledger->clock);
    pthread_mutex_unlock(&ledger->lock);
    return true;
}

static bool grow_account(struct ledger *ledger, struct context *ctx, struct account *account,
                         cost worst_case, struct error *e)
{
    for (int tries = 0; tries < LEDGER_SHARE_TRIES_MAX; tries++) {
        struct error failure = {0};
        if (grow_once(ledger, ctx, account, worst_case, &failure))
            return true;
        if (failure.reason != REASON_CONFLICT)
            return error_copy(e, &failure);
        if (!context_sleep_ms(ctx, 1 + (int64_t) random_below(ledger->random, 4), e))
            return false;
    }
    return error_set(e, REASON_OVERLOADED_HERE,
                     "too many nodes ask for room of the %s budget at once",
                     account_level_name(account->level));
}

bool ledger_share_grow(struct ledger *ledger, struct context *ctx, const struct ledger_path *path,
                       cost worst_case, struct error *e)
{
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        if (!account)
            continue;
        pthread_mutex_lock(&ledger->lock);
        bool is_enough = cost_is_zero(missing_of(ledger, account, worst_case));
        pthread_mutex_unlock(&ledger->lock);
        if (!is_enough && !grow_account(ledger, ctx, account, worst_case, e))
            return false;
    }
    return true;
}

/* ---- giving back ---- */

/* With the lock held: what is free and has not been needed for a while leaves the share before the store hears of it. */
static cost take_idle(struct ledger *ledger, struct account *account, bool is_forced)
{
    int64_t before_ns = clock_monotonic_ns(ledger->clock) - LEDGER_LEASE_IDLE_MS * 1000000ll;
    if (!is_forced && account->extended_ns > before_ns)
        return (cost){0};
    cost free_room = of_limited(budget_remaining(&account->budget), account->limit);
    account->budget.limit = cost_subtract(account->budget.limit, free_room);
    return free_room;
}

static never_inline bool give_back(struct ledger *ledger, struct context *ctx,
                                   struct account *account, cost amount, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, account->tenant_id);
    batch.fault = "share_return";
    ledger_share_add_row(ledger, &batch, account, amount);
    if (store_commit(ledger->store, ctx, &batch, e))
        return true;
    if (e->reason != REASON_OUTCOME_UNKNOWN) { /* else it may be gone: it is not used again */
        pthread_mutex_lock(&ledger->lock);
        account->budget.limit = cost_add(account->budget.limit, amount);
        pthread_mutex_unlock(&ledger->lock);
    }
    return false;
}

bool ledger_share_return(struct ledger *ledger, struct context *ctx, bool is_forced,
                         struct error *e)
{
    struct { /* accounts are held while the store is asked */
        struct account *account;
        cost amount;
    } *idle = ARENA_ARRAY(ctx->arena, typeof(*idle), SHARE_RETURN_MAX);
    size_t count = 0, position = 0;
    void *value;
    bool ok = true;
    if (!ledger->options.is_shared)
        return true;
    pthread_mutex_lock(&ledger->lock);
    while (count < SHARE_RETURN_MAX && map_next(ledger->accounts, &position, NULL, &value)) {
        struct account *account = value;
        cost amount = take_idle(ledger, account, is_forced);
        if (cost_is_zero(amount))
            continue;
        account_hold(account);
        idle[count].account = account;
        idle[count++].amount = amount;
    }
    pthread_mutex_unlock(&ledger->lock);
    for (size_t i = 0; i < count; i++)
        ok = give_back(ledger, ctx, idle[i].account, idle[i].amount, e) && ok;
    int64_t now_ns = clock_monotonic_ns(ledger->clock);
    pthread_mutex_lock(&ledger->lock);
    for (size_t i = 0; i < count; i++)
        account_let_go(ledger, idle[i].account, now_ns);
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

/* ---- limits that others set ---- */

bool ledger_share_look(struct ledger *ledger, struct context *ctx, struct error *e)
{
    struct account **held = ARENA_ARRAY(ctx->arena, struct account *, SHARE_RETURN_MAX);
    size_t count = 0;
    bool ok = true;
    if (!ledger->options.is_shared)
        return true;
    pthread_mutex_lock(&ledger->lock);
    LIST_EACH(node, &ledger->upper)
    {
        if (count == SHARE_RETURN_MAX)
            break;
        held[count] = LIST_ITEM(node, struct account, upper_link);
        account_hold(held[count++]);
    }
    pthread_mutex_unlock(&ledger->lock);
    for (size_t i = 0; ok && i < count; i++) {
        struct record row;
        ok = read_account_row(ledger, ctx, held[i], &row, e);
        if (!ok)
            break;
        cost limit = account_get_cost(&row, budgets_limit_columns);
        pthread_mutex_lock(&ledger->lock);
        if (!cost_equal(limit, held[i]->limit))
            account_set_limit(ledger, held[i], limit);
        pthread_mutex_unlock(&ledger->lock);
    }
    int64_t now_ns = clock_monotonic_ns(ledger->clock);
    pthread_mutex_lock(&ledger->lock);
    for (size_t i = 0; i < count; i++)
        account_let_go(ledger, held[i], now_ns);
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

/* ---- going on with another node's runs ---- */

static never_inline bool has_share(struct ledger *ledger, struct context *ctx,
                                   const struct account *account, str node, cost amount, bool *has,
                                   struct error *e)
{
    struct record key = record_of(TABLE_BUDGET_LEASES), row;
    struct error missing = {0};
    set_lease_key(&key, node, account->level, account->subject);
    *has = false;
    if (!store_get(ledger->store, ctx, account->tenant_id, &key, &row, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    *has = cost_fits(amount, account_get_cost(&row, lease_columns));
    return true;
}

/* The other's share is gone (booked as forfeited, or brought along before): what is reserved here needs room of its own, as far as there
   is any. */
static never_inline bool bring_anew(struct ledger *ledger, struct context *ctx,
                                    struct account *account, const struct record *row,
                                    struct error *e)
{
    struct batch batch;
    cost room;
    if (!room_of(ledger, ctx, account, row, &room, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    cost used = cost_add(account->budget.spent, account->budget.reserved);
    cost lacking =
        of_limited(cost_max(cost_subtract(used, account->budget.limit), (cost){0}), account->limit);
    pthread_mutex_unlock(&ledger->lock);
    cost grant = cost_min(lacking, room);
    str subject = str_copy(ctx->arena, account->subject);
    batch_init(&batch, ctx->arena, account->tenant_id);
    batch.fault = "share_anew";
    raise_revision(&batch, account, row);
    change_leased(&batch, account->level, subject, grant);
    if (!account->has_share)
        make_lease(ledger, &batch, account->level, subject);
    change_lease(ledger, &batch, ledger->options.node, account->level, subject, grant);
    if (!store_commit(ledger->store, ctx, &batch, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    account->has_share = true;
    account->budget.limit = cost_add(account->budget.limit, grant);
    pthread_mutex_unlock(&ledger->lock);
    return true;
}

static never_inline bool adopt_once(struct ledger *ledger, struct context *ctx,
                                    struct account *account, cost amount, str from, struct error *e)
{
    struct record row;
    struct batch batch;
    bool has;
    str subject = str_copy(ctx->arena, account->subject);
    if (!read_account_row(ledger, ctx, account, &row, e) ||
        !has_share(ledger, ctx, account, from, amount, &has, e))
        return false;
    if (!has)
        return bring_anew(ledger, ctx, account, &row, e);
    batch_init(&batch, ctx->arena, account->tenant_id);
    batch.fault = "share_adopt";
    raise_revision(&batch, account, &row);
    change_lease(ledger, &batch, from, account->level, subject, negative(amount));
    if (!account->has_share)
        make_lease(ledger, &batch, account->level, subject);
    change_lease(ledger, &batch, ledger->options.node, account->level, subject, amount);
    if (!store_commit(ledger->store, ctx, &batch, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    account->has_share = true;
    account->budget.limit = cost_add(account->budget.limit, amount);
    pthread_mutex_unlock(&ledger->lock);
    return true;
}

bool ledger_adopt(struct ledger *ledger, struct context *ctx, const struct ledger_path *path,
                  cost amount, str from, struct error *e)
{
    if (!ledger->options.is_shared || str_is_empty(from) || str_equal(from, ledger->options.node))
        return true;
    for (int i = 0; i < path_length(path); i++) {
        struct account *account = path_account(path, i);
        cost share = account ? of_limited(amount, account->limit) : (cost){0};
        if (cost_is_zero(share))
            continue;
        for (int tries = 0;; tries++) {
            struct error failure = {0};
            if (adopt_once(ledger, ctx, account, share, from, &failure))
                break;
            if (failure.reason != REASON_CONFLICT || tries >= LEDGER_SHARE_TRIES_MAX)
                return error_copy(e, &failure);
        }
    }
    return true;
}

/* ---- nodes that are no more ---- */

void ledger_share_begin(struct account *account)
{
    account->budget.spent = (cost){0};
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&account->limit, i) != COST_UNLIMITED)
            *cost_field(&account->budget.limit, i) = 0;
}

static bool level_parse(str text, enum account_level *out)
{
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++) {
        if (!str_equal(text, str_from_cstr(account_level_name((enum account_level) i))))
            continue;
        *out = (enum account_level) i;
        return true;
    }
    return false;
}

/* Conditional on the row being as it was read: of two who bury one does. */
static bool bury_row(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                     const struct record *row, struct error *e)
{
    struct batch batch;
    enum account_level level;
    cost rest = account_get_cost(row, lease_columns);
    str node = record_text(row, BUDGET_LEASES_NODE),
        subject = record_text(row, BUDGET_LEASES_SUBJECT);
    if (!level_parse(record_text(row, BUDGET_LEASES_LEVEL), &level))
        return error_set(e, REASON_CORRUPT, "a share of an account of an unknown level");
    batch_init(&batch, ctx->arena, tenant_id);
    batch.fault = "share_bury";
    struct record *seen = batch_add(&batch, WRITE_UPDATE, TABLE_BUDGET_LEASES);
    set_lease_key(seen, node, level, subject);
    record_set_integer(seen, BUDGET_LEASES_UPDATED_AT, clock_unix_us(ledger->clock));
    batch_where_integer(&batch, BUDGET_LEASES_UPDATED_AT,
                        record_integer(row, BUDGET_LEASES_UPDATED_AT));
    struct record *gone = batch_add(&batch, WRITE_DELETE, TABLE_BUDGET_LEASES);
    set_lease_key(gone, node, level, subject);
    if (!cost_is_zero(rest)) {
        change_leased(&batch, level, subject, negative(rest));
        if (!ledger_add_forfeit(ledger, ctx, &batch, level, subject, cost_max(rest, (cost){0}), e))
            return false;
    }
    return store_commit(ledger->store, ctx, &batch, e);
}

bool ledger_share_bury(struct ledger *ledger, struct context *ctx, str node, struct error *e)
{
    struct query query = query_of(TABLE_BUDGET_LEASES);
    query_where_text(&query, BUDGET_LEASES_NODE, node);
    for (;;) {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(ledger->store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            if (!bury_row(ledger, ctx, tenants[i], &page.items[i], e))
                return error_wrap(e, "what node " STR_FMT " had of an account", STR_ARG(node));
        if (page.count == 0)
            return true;
    }
}
