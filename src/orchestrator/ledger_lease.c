/*
 * Leases: what plain calls draw on where an account is limited, and what a crash makes of them.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/ledger_internal.h"

/* What one reservation takes from one account. */
struct draw {
    cost taken;     /* from the free lease */
    cost extension; /* new lease; zero: none */
};

struct drawing {
    struct draw draws[ACCOUNT_LEVEL_COUNT];
    bool needs_commit;
};

/* Room for the calls that overlap: while others are out, the lease grows by more than this call needs. */
static cost extension_of(const struct account *account, cost need, cost worst_case)
{
    if (account->plain_calls == 0 || cost_is_zero(need))
        return need;
    cost generous = need;
    for (int i = 0; i < LEDGER_LEASE_CALLS_AHEAD; i++)
        generous = cost_add(generous, worst_case);
    cost remaining = budget_remaining(&account->budget);
    cost quarter = {remaining.tokens / 4, remaining.time_ms / 4, remaining.cost_nanousd / 4,
                    remaining.tool_calls / 4};
    return cost_fits(generous, quarter) ? generous : need;
}

static bool plan_account(struct account *account, cost worst_case, struct draw *draw,
                         struct error *e)
{
    int field;
    if (account->plain_calls == 0)
        account->is_leasing = account_is_limited(account);
    draw->taken = account->is_leasing ? cost_min(account->lease_free, worst_case) : (cost){0};
    cost need = cost_subtract(worst_case, draw->taken);
    if (!budget_fits(&account->budget, need, &field)) {
        cost left = cost_add(budget_remaining(&account->budget), account->lease_free);
        return error_set(
            e, REASON_BUDGET, "the %s budget does not cover it: %s needed %lld, left %lld",
            account_level_name(account->level), cost_field_name(field),
            (long long) *cost_field(&worst_case, field), (long long) *cost_field(&left, field));
    }
    draw->extension = account->is_leasing ? extension_of(account, need, worst_case) : need;
    return true;
}

static void apply_draw(struct account *account, cost worst_case, const struct draw *draw)
{
    budget_reserve(&account->budget, draw->extension);
    account->plain_calls++;
    if (!account->is_leasing)
        return;
    account->lease_free = cost_subtract(account->lease_free, draw->taken);
    account->lease_drawn = cost_add(account->lease_drawn, worst_case);
}

static void undo_draw(struct account *account, cost worst_case, const struct draw *draw)
{
    budget_release(&account->budget, draw->extension);
    account->plain_calls--;
    if (!account->is_leasing)
        return;
    account->lease_free = cost_add(account->lease_free, draw->taken);
    account->lease_drawn = cost_subtract(account->lease_drawn, worst_case);
}

/* Nobody knows whether the extension is in the store: it stays reserved and undrawn until the next start settles it as forfeited. */
static void strand_draw(struct account *account, cost worst_case, const struct draw *draw)
{
    account->plain_calls--;
    if (!account->is_leasing) {
        budget_release(&account->budget, draw->extension);
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
        if (path->accounts[i] && (!limited_only || path->accounts[i]->is_leasing))
            step(path->accounts[i], worst_case, &drawing->draws[i]);
    pthread_mutex_unlock(&ledger->lock);
}

static bool plan(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                 struct drawing *drawing, struct error *e)
{
    bool ok = true;
    *drawing = (struct drawing){0};
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; ok && i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            ok = plan_account(path->accounts[i], worst_case, &drawing->draws[i], e);
    for (int i = 0; ok && i < ACCOUNT_LEVEL_COUNT; i++) {
        struct account *account = path->accounts[i];
        if (!account)
            continue;
        apply_draw(account, worst_case, &drawing->draws[i]);
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
            account_add_row(ledger, &batch, account, (cost){0}, drawing->draws[i].extension);
    }
    return store_commit(ledger->store, ctx, &batch, e);
}

bool ledger_reserve_plain(struct ledger *ledger, struct context *ctx,
                          const struct ledger_path *path, cost worst_case, struct error *e)
{
    struct drawing drawing;
    if (!plan(ledger, path, worst_case, &drawing, e))
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

/* Gives how much of the durable lease ends with this settlement: what was used, and all that is free when nobody else is out. */
static cost settle_account(struct account *account, const struct settlement *settlement)
{
    struct budget *budget = &account->budget;
    account->plain_calls--;
    if (!account->is_leasing) {
        budget_settle(budget, settlement->reserved, settlement->used);
        return (cost){0};
    }
    cost covered = cost_min(settlement->used, settlement->reserved);
    cost beyond = cost_subtract(settlement->used, covered);
    account->lease_drawn = cost_subtract(account->lease_drawn, settlement->reserved);
    account->lease_free =
        cost_add(account->lease_free, cost_subtract(settlement->reserved, covered));
    cost ended = covered;
    if (account->plain_calls == 0) {
        ended = cost_add(ended, account->lease_free);
        account->lease_free = (cost){0};
    }
    budget->reserved = cost_subtract(budget->reserved, ended);
    budget->spent = cost_add(budget->spent, settlement->used);
    budget->overdraft = cost_add(budget->overdraft, beyond);
    return ended;
}

void ledger_settle_plain(struct ledger *ledger, const struct ledger_path *path,
                         const struct settlement *settlement)
{
    OWNED(arena) arena = arena_create(0);
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, arena, path->tenant_id);
    batch.fault = "";
    ledger_add_entry(ledger, &batch, path, settlement);
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++) {
        struct account *account = path->accounts[i];
        if (!account)
            continue;
        cost ended = settle_account(account, settlement);
        if (!cost_is_zero(settlement->used) || !cost_is_zero(ended))
            account_add_row(ledger, &batch, account, settlement->used,
                            cost_subtract((cost){0}, ended));
    }
    pthread_mutex_unlock(&ledger->lock);
    if (!store_submit(
            ledger->store, &batch,
            &e)) /* the lease in the store covers it: counted as forfeited at the next start */
        LOG_ERROR("orchestrator.ledger", S("a usage record was not stored"), &e);
}

/* ---- after a crash ---- */

static const int leased_columns[] = {BUDGETS_LEASED_TOKENS, BUDGETS_LEASED_TIME_MS,
                                     BUDGETS_LEASED_NANOUSD, BUDGETS_LEASED_TOOL_CALLS};
static const int spent_columns[] = {BUDGETS_SPENT_TOKENS, BUDGETS_SPENT_TIME_MS,
                                    BUDGETS_SPENT_NANOUSD, BUDGETS_SPENT_TOOL_CALLS};

static cost leased_of(const struct record *row)
{
    cost leased;
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        *cost_field(&leased, i) = record_integer(row, leased_columns[i]);
    return leased;
}

/* The entry of a forfeited lease belongs to one account alone: kind is its level. */
static void add_forfeit_entry(struct ledger *ledger, struct batch *batch, const struct record *row,
                              cost leased)
{
    str level = record_text(row, BUDGETS_LEVEL), subject = record_text(row, BUDGETS_SUBJECT);
    struct record *entry = batch_add(batch, WRITE_INSERT, TABLE_LEDGER);
    uuid session_id;
    record_set_uuid(entry, LEDGER_ID, uuid_new(ledger->clock, ledger->random));
    record_set_integer(entry, LEDGER_AT, clock_unix_us(ledger->clock));
    record_set_text(entry, LEDGER_USER_ID, str_equal(level, S("user")) ? subject : S(""));
    if (str_equal(level, S("session")) && uuid_parse(subject, &session_id))
        record_set_uuid(entry, LEDGER_SESSION_ID, session_id);
    record_set_text(entry, LEDGER_KIND, level);
    record_set_text(entry, LEDGER_BASIS, S("forfeited"));
    record_set_integer(entry, LEDGER_TOKENS, leased.tokens);
    record_set_integer(entry, LEDGER_TIME_MS, leased.time_ms);
    record_set_integer(entry, LEDGER_NANOUSD, leased.cost_nanousd);
    record_set_integer(entry, LEDGER_TOOL_CALLS, leased.tool_calls);
}

static bool forfeit(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                    const struct record *row, struct error *e)
{
    struct batch batch;
    cost leased = leased_of(row);
    batch_init(&batch, ctx->arena, tenant_id);
    struct record *add = batch_add(&batch, WRITE_ADD, TABLE_BUDGETS);
    record_set_text(add, BUDGETS_LEVEL, record_text(row, BUDGETS_LEVEL));
    record_set_text(add, BUDGETS_SUBJECT, record_text(row, BUDGETS_SUBJECT));
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        record_set_integer(add, leased_columns[i], -*cost_field(&leased, i));
        record_set_integer(add, spent_columns[i], *cost_field(&leased, i));
    }
    add_forfeit_entry(ledger, &batch, row, leased);
    return store_commit(ledger->store, ctx, &batch, e);
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
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (!forfeit_where(ledger, ctx, leased_columns[i], e))
            return error_wrap(e, "settle the leases of the last run");
    return true;
}

/* ---- verification ---- */

static cost entry_cost(const struct record *row)
{
    return (cost){
        .tokens = record_integer(row, LEDGER_TOKENS),
        .time_ms = record_integer(row, LEDGER_TIME_MS),
        .cost_nanousd = record_integer(row, LEDGER_NANOUSD),
        .tool_calls = record_integer(row, LEDGER_TOOL_CALLS),
    };
}

static void sum_into(struct arena *arena, struct map *sums, str level, str subject, cost amount)
{
    str key = str_printf(arena, STR_FMT "|" STR_FMT, STR_ARG(level), STR_ARG(subject));
    cost *sum = map_find(sums, key);
    if (!sum) {
        sum = ARENA_NEW(arena, cost);
        map_put(sums, key, sum);
    }
    *sum = cost_add(*sum, amount);
}

static void sum_entry(struct arena *arena, struct map *sums, uuid tenant_id,
                      const struct record *row)
{
    str kind = record_text(row, LEDGER_KIND);
    bool is_forfeit = str_equal(record_text(row, LEDGER_BASIS), S("forfeited"));
    cost amount = entry_cost(row);
    if (!is_forfeit || str_equal(kind, S("tenant")))
        sum_into(arena, sums, S("tenant"), uuid_str(arena, tenant_id), amount);
    if (!is_forfeit || str_equal(kind, S("user")))
        sum_into(arena, sums, S("user"), record_text(row, LEDGER_USER_ID), amount);
    if (record_has(row, LEDGER_SESSION_ID) && (!is_forfeit || str_equal(kind, S("session"))))
        sum_into(arena, sums, S("session"), uuid_str(arena, record_uuid(row, LEDGER_SESSION_ID)),
                 amount);
}

typedef bool row_visitor(void *owner, const struct record *row);

static bool each_row(struct ledger *ledger, struct context *ctx, uuid tenant_id, enum table table,
                     row_visitor *visit, void *owner, struct error *e)
{
    struct query query = query_of(table);
    for (;;) {
        struct records page;
        if (!store_list(ledger->store, ctx, tenant_id, &query, &page, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            if (!visit(owner, &page.items[i]))
                return true;
        if (str_is_empty(page.next_cursor))
            return true;
        query.cursor = page.next_cursor;
    }
}

struct verification {
    struct arena *arena;
    struct map *sums;
    uuid tenant_id;
    str first_bad;
};

static bool visit_entry(void *owner, const struct record *row)
{
    struct verification *v = owner;
    sum_entry(v->arena, v->sums, v->tenant_id, row);
    return true;
}

static bool visit_account(void *owner, const struct record *row)
{
    struct verification *v = owner;
    str key = str_printf(v->arena, STR_FMT "|" STR_FMT, STR_ARG(record_text(row, BUDGETS_LEVEL)),
                         STR_ARG(record_text(row, BUDGETS_SUBJECT)));
    cost *sum = map_find(v->sums, key);
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t entries = sum ? *cost_field(sum, i) : 0,
                spent = record_integer(row, spent_columns[i]);
        if (entries == spent)
            continue;
        v->first_bad =
            str_printf(v->arena, STR_FMT ": %s spent %lld, its entries add up to %lld",
                       STR_ARG(key), cost_field_name(i), (long long) spent, (long long) entries);
        return false;
    }
    return true;
}

bool ledger_verify(struct ledger *ledger, struct context *ctx, uuid tenant_id, str *first_bad,
                   struct error *e)
{
    OWNED(map) sums = map_create();
    struct verification v = {.arena = ctx->arena, .sums = sums, .tenant_id = tenant_id};
    if (!each_row(ledger, ctx, tenant_id, TABLE_LEDGER, visit_entry, &v, e) ||
        !each_row(ledger, ctx, tenant_id, TABLE_BUDGETS, visit_account, &v, e))
        return false;
    *first_bad = v.first_bad;
    return true;
}
