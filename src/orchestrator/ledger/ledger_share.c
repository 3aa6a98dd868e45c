/*
 * Shares: several nodes spend from the accounts of one store.
 *
 * A node takes a share of an account's room before it uses it, durably, and reserves within its share in memory, as if the share were the
 * limit.  A run's reservation leaves the share in the very commit that journals it: from then on it is the run's, whoever goes on with it.
 * What it settles turns into spending, and what it did not use comes into the share of the node that settles, in one commit.  Plain calls
 * stay in their node's share until they are settled.  What is not needed for a while is given back.
 *
 *      BUDGETS.leased_* = sum of BUDGET_LEASES over all nodes + what runs have reserved in their journals
 *      spent + leased <= limit, at every commit                        no share is below zero
 *      a node's share (BUDGET_LEASES) >= what it may still reserve (limit - spent - reserved of its memory) + what its plain calls have
 *
 * A grant is conditional on BUDGETS.REVISION, which every grant and every change of a limit raises, so two nodes never take the same room.
 * Everything else needs no condition, since it makes no room smaller, but that the node's own row is there.
 * A node that dies keeps its share, and nobody else may use it, until it is booked as forfeited (plain calls may have used it) and its row
 * goes (ledger_share_bury).  That is the fence: one that was only thought dead can neither reserve nor settle against it any more, its
 * batches do not find the row.  Of runs nothing is lost by it, and nothing has to be brought along: their journals say what they have.
 * When nobody knows whether a commit was applied, memory assumes the worse: it may count less than the row has, never more.
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

/* Only limited fields have shares. */
cost ledger_share_limited(cost amount, cost limit)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&limit, i) == COST_UNLIMITED)
            *cost_field(&amount, i) = 0;
    return amount;
}

/* ---- what of a reservation is counted as leased ---- */

str ledger_cover_text(struct arena *arena, const struct ledger_cover *cover)
{
    static const char digits[] = "0123456789abcdef";
    size_t count = ARRAY_COUNT(cover->fields);
    while (count > 0 && cover->fields[count - 1] == 0)
        count--;
    char *text = arena_alloc(arena, count + 1);
    for (size_t i = 0; i < count; i++)
        text[i] = digits[cover->fields[i] & 15];
    return str_of(text, count);
}

struct ledger_cover ledger_cover_parse(str text)
{
    struct ledger_cover cover = {0};
    for (size_t i = 0; i < text.len && i < ARRAY_COUNT(cover.fields); i++) {
        char digit = text.ptr[i];
        if (digit >= '0' && digit <= '9')
            cover.fields[i] = (uint8_t) (digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            cover.fields[i] = (uint8_t) (digit - 'a' + 10);
    }
    return cover;
}

void ledger_share_cover(const struct ledger_path *path, struct ledger_cover *cover)
{
    for (int i = 0; i < path_length(path); i++) {
        const struct account *account = path_account(path, i);
        cost limit = account ? account->budget.limit : COST_LIMITLESS;
        cover->fields[i] = 0;
        for (int field = 0; field < COST_FIELD_COUNT; field++)
            if (*cost_field(&limit, field) != COST_UNLIMITED)
                cover->fields[i] |= (uint8_t) (1u << field);
    }
}

cost ledger_share_uncovered(cost amount, uint8_t fields)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (fields & 1u << i)
            *cost_field(&amount, i) = 0;
    return amount;
}

cost ledger_share_ended(cost reserved, cost used, cost uncovered)
{
    return cost_min(used, cost_subtract(reserved, uncovered));
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
                          const struct share_change *change)
{
    str subject = str_copy(batch->arena, account->subject);
    if (!cost_is_zero(change->ended))
        change_leased(batch, account->level, subject, negative(change->ended));
    if (cost_is_zero(change->share))
        return;
    if (!account->has_share)
        make_lease(ledger, batch, account->level, subject);
    change_lease(ledger, batch, ledger->options.node, account->level, subject, change->share);
}

void ledger_reserved_write(struct ledger *ledger, const struct ledger_path *path, cost reserved,
                           const struct ledger_cover *cover, struct batch *batch)
{
    for (int i = 0; ledger->options.is_shared && i < path_length(path); i++) {
        const struct account *account = path_account(path, i);
        cost covered = cost_subtract(reserved, ledger_share_uncovered(reserved, cover->fields[i]));
        if (account)
            ledger_share_add_row(ledger, batch, account,
                                 &(struct share_change){.share = negative(covered)});
    }
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
    return ledger_share_limited(cost_max(cost_subtract(worst_case, left), (cost){0}),
                                account->limit);
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
    cost free_room = ledger_share_limited(budget_remaining(&account->budget), account->limit);
    account->budget.limit = cost_subtract(account->budget.limit, free_room);
    return free_room;
}

static never_inline bool give_back(struct ledger *ledger, struct context *ctx,
                                   struct account *account, cost amount, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, account->tenant_id);
    batch.fault = "share_return";
    ledger_share_add_row(ledger, &batch, account,
                         &(struct share_change){.ended = amount, .share = negative(amount)});
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
        uint64_t seen = account_settings(ledger, held[i]);
        ok = read_account_row(ledger, ctx, held[i], &row, e) &&
             account_hear(ledger, ctx, held[i], &row, seen, e) &&
             ledger_alert_shared(ledger, ctx, held[i]->tenant_id, &row, e);
    }
    int64_t now_ns = clock_monotonic_ns(ledger->clock);
    pthread_mutex_lock(&ledger->lock);
    for (size_t i = 0; i < count; i++)
        account_let_go(ledger, held[i], now_ns);
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

/* ---- nodes that are no more ---- */

void ledger_share_begin(struct account *account)
{
    account->budget.spent = (cost){0};
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (*cost_field(&account->limit, i) != COST_UNLIMITED)
            *cost_field(&account->budget.limit, i) = 0;
}

/* Nobody has changed the share since it was read: each of its fields is as it was. */
static void share_is_as_seen(struct batch *batch, const struct record *row, str node,
                             enum account_level level, str subject)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        struct record *seen = batch_add(batch, WRITE_UPDATE, TABLE_BUDGET_LEASES);
        set_lease_key(seen, node, level, subject);
        record_set_integer(seen, lease_columns[i], record_integer(row, lease_columns[i]));
        batch_where_integer(batch, lease_columns[i], record_integer(row, lease_columns[i]));
    }
}

/* Of two who bury one does. */
static never_inline bool bury_row(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                  const struct record *row, struct error *e)
{
    struct batch batch;
    enum account_level level;
    struct record key = record_of(TABLE_BUDGETS), account;
    cost rest = account_get_cost(row, lease_columns);
    str node = record_text(row, BUDGET_LEASES_NODE),
        subject = record_text(row, BUDGET_LEASES_SUBJECT);
    if (!account_level_parse(record_text(row, BUDGET_LEASES_LEVEL), &level))
        return error_set(e, REASON_CORRUPT, "a share of an account of an unknown level");
    batch_init(&batch, ctx->arena, tenant_id);
    batch.fault = "share_bury";
    share_is_as_seen(&batch, row, node, level, subject);
    struct record *gone = batch_add(&batch, WRITE_DELETE, TABLE_BUDGET_LEASES);
    set_lease_key(gone, node, level, subject);
    account_set_key(&key, level, subject);
    if (!cost_is_zero(rest)) {
        change_leased(&batch, level, subject, negative(rest));
        if (!store_get(ledger->store, ctx, tenant_id, &key, &account, e) ||
            !ledger_add_forfeit(ledger, ctx, &batch, &account, rest, e))
            return false;
    }
    return store_commit(ledger->store, ctx, &batch, e);
}

bool ledger_share_is_gone(struct ledger *ledger, struct context *ctx,
                          const struct ledger_path *path)
{
    for (int i = 0; ledger->options.is_shared && i < path_length(path); i++) {
        const struct account *account = path_account(path, i);
        struct record key = record_of(TABLE_BUDGET_LEASES), row;
        struct error missing = {0};
        if (!account || !account->has_share)
            continue;
        set_lease_key(&key, ledger->options.node, account->level, account->subject);
        if (!store_get(ledger->store, ctx, account->tenant_id, &key, &row, &missing) &&
            missing.code == ERROR_NOT_FOUND)
            return true;
    }
    return false;
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
            if (!bury_row(ledger, ctx, tenants[i], &page.items[i], e)) /* again at the next turn */
                return error_wrap(e, "what node " STR_FMT " had of an account", STR_ARG(node));
        if (page.count == 0)
            return true;
    }
}
