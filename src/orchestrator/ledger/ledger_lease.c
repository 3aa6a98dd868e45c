/*
 * Leases: what plain calls draw on where an account is limited, and what a crash makes of them.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/ledger/ledger_internal.h"

/* What one reservation takes from one account. */
struct draw {
    cost taken;     /* from the free lease */
    cost extension; /* new lease; zero: none */
};

struct drawing {
    struct draw draws[ACCOUNT_LEVEL_COUNT];
    bool needs_commit;
};

/* How many more calls like this one the lease is to cover: more and more while it is used up within a second. */
static int calls_ahead(struct account *account, int64_t now_ns)
{
    int64_t second_ns = LEDGER_LEASE_IDLE_MS * 1000000ll;
    bool is_busy = account->plain_calls > 0 ||
                   (account->last_plain_ns > 0 && now_ns - account->last_plain_ns < second_ns);
    bool is_again = account->extended_ns > 0 && now_ns - account->extended_ns < second_ns;
    account->extended_ns = now_ns;
    if (!is_busy)
        return account->lease_ahead = 0;
    int ahead =
        is_again && account->lease_ahead > 0 ? 2 * account->lease_ahead : LEDGER_LEASE_CALLS_AHEAD;
    account->lease_ahead = ahead < LEDGER_LEASE_CALLS_MAX ? ahead : LEDGER_LEASE_CALLS_MAX;
    return account->lease_ahead;
}

/* Room for the calls that overlap or follow each other: the lease grows by more than this call needs, within a quarter of what is left. */
static cost extension_of(struct account *account, cost need, cost worst_case, int64_t now_ns)
{
    if (cost_is_zero(need))
        return need;
    cost remaining = budget_remaining(&account->budget);
    cost quarter = {remaining.tokens / 4, remaining.time_ms / 4, remaining.cost_nanousd / 4,
                    remaining.tool_calls / 4};
    for (int ahead = calls_ahead(account, now_ns); ahead > 0; ahead /= 2) {
        cost generous = need;
        for (int i = 0; i < ahead; i++)
            generous = cost_add(generous, worst_case);
        if (cost_fits(generous, quarter))
            return generous;
    }
    return need;
}

static bool plan_account(struct ledger *ledger, struct account *account, cost worst_case,
                         int64_t now_ns, struct draw *draw, struct error *e)
{
    int field;
    account_refresh(ledger, account);
    if (account->plain_calls == 0)
        account->is_leasing = !ledger->options.is_shared && account_is_limited(account);
    draw->taken = account->is_leasing ? cost_min(account->lease_free, worst_case) : (cost){0};
    cost need = cost_subtract(worst_case, draw->taken);
    if (!budget_fits(&account->budget, need, &field)) {
        cost left = cost_add(budget_remaining(&account->budget), account->lease_free);
        return error_set(
            e, REASON_BUDGET, "the %s budget does not cover it: %s needed %lld, left %lld",
            account_level_name(account->level), cost_field_name(field),
            (long long) *cost_field(&worst_case, field), (long long) *cost_field(&left, field));
    }
    draw->extension = account->is_leasing ? extension_of(account, need, worst_case, now_ns) : need;
    return true;
}

static void apply_draw(struct account *account, cost worst_case, const struct draw *draw)
{
    budget_reserve(&account->budget, draw->extension);
    account->plain_calls++;
    if (!account->is_leasing) {
        account->plain_reserved = cost_add(account->plain_reserved, draw->extension);
        return;
    }
    account->lease_free = cost_subtract(account->lease_free, draw->taken);
    account->lease_drawn = cost_add(account->lease_drawn, worst_case);
}

static void undo_draw(struct account *account, cost worst_case, const struct draw *draw)
{
    budget_release(&account->budget, draw->extension);
    account->plain_calls--;
    if (!account->is_leasing) {
        account->plain_reserved = cost_subtract(account->plain_reserved, draw->extension);
        return;
    }
    account->lease_free = cost_add(account->lease_free, draw->taken);
    account->lease_drawn = cost_subtract(account->lease_drawn, worst_case);
}

/* Nobody knows whether the extension is in the store: it stays reserved and undrawn until the next start settles it as forfeited. */
static void strand_draw(struct account *account, cost worst_case, const struct draw *draw)
{
    account->plain_calls--;
    if (!account->is_leasing) {
        budget_release(&account->budget, draw->extension);
        account->plain_reserved = cost_subtract(account->plain_reserved, draw->extension);
        return;
    }
    account->lease_free = cost_add(account->lease_free, draw->taken);
    account->lease_drawn = cost_subtract(account->lease_drawn, worst_case);
}

/* The durable extension is there: what this call does not use of it is free for the next. */
static void confirm_draw(struct account *account, cost worst_case, const struct draw *draw)
{
    cost surplus = cost_subtract(cost_add(draw->taken, draw->extension), worst_case);
    account->lease_free = cost_add(account->lease_free, surplus);
}

typedef void account_step(struct account *account, cost worst_case, const struct draw *draw);

static void each_account(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                         const struct drawing *drawing, account_step *step, bool limited_only)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i] && (!limited_only || path->accounts[i]->is_leasing)) {
            step(path->accounts[i], worst_case, &drawing->draws[i]);
            ledger_note_free(ledger, path->accounts[i]);
        }
    pthread_mutex_unlock(&ledger->lock);
}

static bool plan(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                 struct drawing *drawing, struct error *e)
{
    bool ok = true;
    int64_t now_ns = clock_monotonic_ns(ledger->clock);
    *drawing = (struct drawing){0};
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; ok && i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            ok = plan_account(ledger, path->accounts[i], worst_case, now_ns, &drawing->draws[i], e);
    for (int i = 0; ok && i < ACCOUNT_LEVEL_COUNT; i++) {
        struct account *account = path->accounts[i];
        if (!account)
            continue;
        apply_draw(account, worst_case, &drawing->draws[i]);
        ledger_note_free(ledger, account);
        if (account->is_leasing && !cost_is_zero(drawing->draws[i].extension))
            drawing->needs_commit = true;
    }
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

static bool commit_extensions(struct ledger *ledger, struct context *ctx,
                              const struct ledger_path *path, const struct drawing *drawing,
                              struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, path->tenant_id);
    batch.fault = "lease";
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++) {
        const struct account *account = path->accounts[i];
        if (account && account->is_leasing && !cost_is_zero(drawing->draws[i].extension))
            account_add_row(ledger, &batch, account,
                            &(struct account_change){.leased = drawing->draws[i].extension});
    }
    return store_commit(ledger->store, ctx, &batch, e);
}

/* When it does not fit, free leases of the path are given back (those it cannot draw on are in its way) and it is tried again. */
static bool plan_or_make_room(struct ledger *ledger, struct context *ctx,
                              const struct ledger_path *path, cost worst_case,
                              struct drawing *drawing, struct error *e)
{
    struct error refusal = {0};
    if (plan(ledger, path, worst_case, drawing, &refusal))
        return true;
    pthread_mutex_lock(&ledger->lock);
    bool has_free = ledger->hooks.settle && ledger_path_has_free(path);
    pthread_mutex_unlock(&ledger->lock);
    if (!has_free)
        return error_copy(e, &refusal);
    ledger->hooks.settle(ledger->hooks.owner, ctx);
    return plan(ledger, path, worst_case, drawing, e);
}

/* Where nodes share a store, this one's share may have to grow first. */
static bool plan_or_grow(struct ledger *ledger, struct context *ctx, const struct ledger_path *path,
                         cost worst_case, struct drawing *drawing, struct error *e)
{
    struct error refusal = {0};
    if (plan_or_make_room(ledger, ctx, path, worst_case, drawing, &refusal))
        return true;
    if (!ledger->options.is_shared || refusal.reason != REASON_BUDGET)
        return error_copy(e, &refusal);
    return ledger_share_grow(ledger, ctx, path, worst_case, e) &&
           plan_or_make_room(ledger, ctx, path, worst_case, drawing, e);
}

bool ledger_reserve_plain(struct ledger *ledger, struct context *ctx,
                          const struct ledger_path *path, cost worst_case, struct error *e)
{
    struct drawing drawing;
    if (!plan_or_grow(ledger, ctx, path, worst_case, &drawing, e))
        return false;
    if (drawing.needs_commit && !commit_extensions(ledger, ctx, path, &drawing, e)) {
        bool is_unknown = e->reason == REASON_OUTCOME_UNKNOWN;
        each_account(ledger, path, worst_case, &drawing, is_unknown ? strand_draw : undo_draw,
                     false);
        return false;
    }
    each_account(ledger, path, worst_case, &drawing, confirm_draw, true);
    return true;
}

/* Gives how much of the node's share ends with it, where nodes share a store. */
static cost settle_unleased(struct ledger *ledger, struct account *account,
                            const struct settlement *settlement)
{
    cost uncovered = cost_min(settlement->reserved, account->uncovered);
    account->uncovered = cost_subtract(account->uncovered, uncovered);
    account->plain_reserved = cost_subtract(account->plain_reserved, settlement->reserved);
    account_settle(ledger, account,
                   &(struct account_settlement){.reserved = settlement->reserved,
                                                .used = settlement->used,
                                                .uncovered = uncovered,
                                                .at_us = settlement->at_us});
    if (!ledger->options.is_shared)
        return (cost){0};
    return ledger_share_limited(
        ledger_share_ended(settlement->reserved, settlement->used, uncovered), account->limit);
}

/* Gives how much of the durable lease (of the node's share) ends with this settlement: what was used.  The rest is free for the next
   call. */
static cost settle_account(struct ledger *ledger, struct account *account,
                           const struct settlement *settlement, int64_t now_ns)
{
    struct budget *budget = &account->budget;
    cost covered = cost_min(settlement->used, settlement->reserved);
    account->plain_calls--;
    account->last_plain_ns = now_ns;
    if (!account->is_leasing)
        return settle_unleased(ledger, account, settlement);
    account_refresh(ledger, account);
    account->lease_drawn = cost_subtract(account->lease_drawn, settlement->reserved);
    account->lease_free =
        cost_add(account->lease_free, cost_subtract(settlement->reserved, covered));
    account->total = cost_add(account->total, settlement->used);
    budget->reserved = cost_subtract(budget->reserved, covered);
    budget->spent = cost_add(budget->spent, settlement->used);
    budget->overdraft = cost_add(budget->overdraft, cost_subtract(settlement->used, covered));
    ledger_note_free(ledger, account);
    return covered;
}

void ledger_settle_plain(struct ledger *ledger, const struct ledger_path *path,
                         const struct settlement *settlement)
{
    cost ended[ACCOUNT_LEVEL_COUNT] = {{0}};
    struct settlement settled = *settlement;
    int64_t now_ns = clock_monotonic_ns(ledger->clock);
    if (!cost_fits(settlement->used, settlement->reserved))
        settled.basis = "overdraft";
    pthread_mutex_lock(&ledger->lock);
    settled.at_us = ledger_now_us(ledger);
    bool is_first = !ledger->gathering && list_is_empty(&ledger->free_leases);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            ended[i] = settle_account(ledger, path->accounts[i], &settled, now_ns);
    if (!cost_is_zero(settlement->used))
        ledger_gather(ledger, path, &settled, ended);
    is_first = is_first && (ledger->gathering || !list_is_empty(&ledger->free_leases));
    pthread_mutex_unlock(&ledger->lock);
    if (is_first && ledger->hooks.wanted)
        ledger->hooks.wanted(ledger->hooks.owner);
}

void ledger_release_plain(struct ledger *ledger, const struct ledger_path *path, cost reserved)
{
    ledger_settle_plain(ledger, path, &(struct settlement){.reserved = reserved});
}

/* ---- after a crash ---- */

/* The entry of a forfeited lease belongs to one account alone: kind is its level. */
static void add_forfeit_entry(struct ledger *ledger, struct batch *batch, enum account_level level,
                              str subject, cost leased, int64_t at_us)
{
    struct record *entry = batch_add(batch, WRITE_INSERT, TABLE_LEDGER);
    uuid id;
    record_set_uuid(entry, LEDGER_ID, uuid_new(ledger->clock, ledger->random));
    record_set_integer(entry, LEDGER_AT, at_us);
    record_set_text(entry, LEDGER_USER_ID, level == ACCOUNT_USER ? subject : S(""));
    if (level == ACCOUNT_RUN && uuid_parse(subject, &id))
        record_set_uuid(entry, LEDGER_RUN_ID, id);
    if (level == ACCOUNT_SESSION && uuid_parse(subject, &id))
        record_set_uuid(entry, LEDGER_SESSION_ID, id);
    if (level == ACCOUNT_KEY && uuid_parse(subject, &id))
        record_set_uuid(entry, LEDGER_KEY_ID, id);
    record_set_text(entry, LEDGER_KIND, str_from_cstr(account_level_name(level)));
    record_set_text(entry, LEDGER_BASIS, S("forfeited"));
    record_set_integer(entry, LEDGER_TOKENS, leased.tokens);
    record_set_integer(entry, LEDGER_TIME_MS, leased.time_ms);
    record_set_integer(entry, LEDGER_NANOUSD, leased.cost_nanousd);
    record_set_integer(entry, LEDGER_TOOL_CALLS, leased.tool_calls);
}

/* It is spent in the period that is now, whenever it was leased. */
bool ledger_add_forfeit(struct ledger *ledger, struct context *ctx, struct batch *batch,
                        const struct record *row, cost amount, struct error *e)
{
    struct account *account = ARENA_NEW(ctx->arena, struct account);
    if (!account_peek(ledger, ctx, batch->tenant_id, row, account, e))
        return false;
    pthread_mutex_lock(&ledger->lock);
    int64_t at_us = ledger_now_us(ledger);
    pthread_mutex_unlock(&ledger->lock);
    account_add_row(
        ledger, batch, account,
        &(struct account_change){.spent = amount, .period = account->period, .at_us = at_us});
    add_forfeit_entry(ledger, batch, account->level, account->subject, amount, at_us);
    return true;
}

static bool forfeit(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                    const struct record *row, struct error *e)
{
    struct batch batch;
    cost leased = account_get_cost(row, budgets_leased_columns);
    batch_init(&batch, ctx->arena, tenant_id);
    for (int i = 0; i < COST_FIELD_COUNT; i++) { /* an earlier try may still be applied: one is */
        struct record *seen = batch_add(&batch, WRITE_UPDATE, TABLE_BUDGETS);
        record_set_text(seen, BUDGETS_LEVEL, record_text(row, BUDGETS_LEVEL));
        record_set_text(seen, BUDGETS_SUBJECT, record_text(row, BUDGETS_SUBJECT));
        record_set_integer(seen, budgets_leased_columns[i], *cost_field(&leased, i));
        batch_where_integer(&batch, budgets_leased_columns[i], *cost_field(&leased, i));
    }
    struct record *add = batch_add(&batch, WRITE_ADD, TABLE_BUDGETS);
    record_set_text(add, BUDGETS_LEVEL, record_text(row, BUDGETS_LEVEL));
    record_set_text(add, BUDGETS_SUBJECT, record_text(row, BUDGETS_SUBJECT));
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        record_set_integer(add, budgets_leased_columns[i], -*cost_field(&leased, i));
    return ledger_add_forfeit(ledger, ctx, &batch, row, leased, e) &&
           store_commit(ledger->store, ctx, &batch, e);
}

static bool forfeit_where(struct ledger *ledger, struct context *ctx, int column, struct error *e)
{
    for (;;) { /* each page changes what the query finds, so begin again until there is none */
        struct query query = query_of(TABLE_BUDGETS);
        struct records page;
        uuid *tenants;
        query_where_integer(&query, column, FILTER_GREATER, 0);
        if (!store_list_any_tenant(ledger->store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            if (!forfeit(ledger, ctx, tenants[i], &page.items[i], e))
                return false;
        if (page.count == 0)
            return true;
    }
}

bool ledger_recover(struct ledger *ledger, struct context *ctx, struct error *e)
{
    if (ledger->options.is_shared)
        return true; /* a node has another name at each start: the others bury the last one's share */
    bool ok = true;
    for (int i = 0; i < COST_FIELD_COUNT && ok; i++)
        ok = forfeit_where(ledger, ctx, budgets_leased_columns[i], e);
    ledger_forget_idle(
        ledger); /* what a commit came to whose outcome is unknown stands in the rows only */
    return ok || error_wrap(e, "settle the leases of the last run");
}
