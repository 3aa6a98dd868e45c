/*
 * Do the books add up?  Three readings, so that it can be asked at any moment: accounts, entries, accounts again.  An account only ever
 * grows, and an entry is written together with its account, so the sum of the entries lies between the two readings of the account; where
 * nothing moves they are one number.
 */
#include "base/arena.h"
#include "base/map.h"
#include "orchestrator/ledger/ledger_internal.h"

struct account_sum {
    str name; /* "level|subject" or "level|subject|period" */
    cost before, entries, after;
    struct account_period period; /* of an account: which rows of periods count */
    bool is_period, was_seen;
    bool is_shared; /* several nodes have spent from it */
    bool
        is_partial; /* of a period that began when it was asked for, which other nodes heard a little later */
};

struct verification {
    struct arena *arena; /* of the sums; pages come and go on ctx's */
    struct map *sums, *counters;
    uuid tenant_id;
    bool is_second; /* reading of the accounts */
    struct ledger_report report;
};

/* ---- reading ---- */

typedef void row_visitor(struct verification *v, const struct record *row);

static bool each_row(struct ledger *ledger, struct context *ctx, enum table table,
                     row_visitor *visit, struct verification *v, struct error *e)
{
    struct query query = query_of(table);
    for (;;) {
        struct records page;
        arena_mark mark = arena_save(ctx->arena);
        if (!store_list(ledger->store, ctx, v->tenant_id, &query, &page, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            visit(v, &page.items[i]);
        bool is_last = str_is_empty(page.next_cursor);
        query.cursor = str_copy(v->arena, page.next_cursor);
        arena_rewind(ctx->arena, mark);
        if (is_last)
            return true;
    }
}

static cost stored_cost(const struct record *row, const int columns[COST_FIELD_COUNT])
{
    cost amount;
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        *cost_field(&amount, i) = record_integer(row, columns[i]);
    return amount;
}

static struct account_sum *sum_of(struct verification *v, str name)
{
    struct account_sum *sum = map_find(v->sums, name);
    if (sum)
        return sum;
    sum = ARENA_NEW(v->arena, struct account_sum);
    sum->name = str_copy(v->arena, name);
    map_put(v->sums, sum->name, sum);
    return sum;
}

static void read_into(struct verification *v, struct account_sum *sum, cost spent)
{
    if (!v->is_second)
        sum->before = spent;
    sum->after = spent;
    sum->was_seen = true;
}

enum { NAME_BYTES_MAX = 400 };

static str name_of(char out[NAME_BYTES_MAX], str level, str subject, str period)
{
    size_t length = 0;
    str parts[] = {level, subject, period};
    for (size_t i = 0; i < (str_is_empty(period) ? 2u : 3u); i++) {
        if (i > 0)
            out[length++] = '|';
        size_t room = NAME_BYTES_MAX - 2 - length;
        size_t bytes = parts[i].len < room ? parts[i].len : room;
        memcpy(out + length, parts[i].ptr ? parts[i].ptr : "", bytes);
        length += bytes;
    }
    return str_of(out, length);
}

static void read_account(struct verification *v, const struct record *row)
{
    static const int spent[] = {BUDGETS_SPENT_TOKENS, BUDGETS_SPENT_TIME_MS, BUDGETS_SPENT_NANOUSD,
                                BUDGETS_SPENT_TOOL_CALLS};
    char name[NAME_BYTES_MAX];
    struct account_sum *sum = sum_of(v, name_of(name, record_text(row, BUDGETS_LEVEL),
                                                record_text(row, BUDGETS_SUBJECT), STR_NONE));
    read_into(v, sum, stored_cost(row, spent));
    sum->is_shared = sum->is_shared || record_has(row, BUDGETS_REVISION);
    if (v->is_second || !record_has(row, BUDGETS_PERIOD))
        return;
    period_parse(record_text(row, BUDGETS_PERIOD), &sum->period.period);
    sum->period.since_us = record_integer(row, BUDGETS_PERIOD_START);
}

static bool is_partial(const struct account_sum *account, int64_t started_us)
{
    return account->is_shared && started_us == account->period.since_us;
}

static void read_period(struct verification *v, const struct record *row)
{
    static const int spent[] = {BUDGET_PERIODS_SPENT_TOKENS, BUDGET_PERIODS_SPENT_TIME_MS,
                                BUDGET_PERIODS_SPENT_NANOUSD, BUDGET_PERIODS_SPENT_TOOL_CALLS};
    char name[NAME_BYTES_MAX];
    str level = record_text(row, BUDGET_PERIODS_LEVEL),
        subject = record_text(row, BUDGET_PERIODS_SUBJECT);
    const struct account_sum *account = map_find(v->sums, name_of(name, level, subject, STR_NONE));
    if (!account || account->period.period == PERIOD_NONE ||
        record_integer(row, BUDGET_PERIODS_STARTED_AT) < account->period.since_us)
        return; /* of periods that were given up: nothing is added to them any more */
    struct account_sum *period =
        sum_of(v, name_of(name, level, subject, record_text(row, BUDGET_PERIODS_PERIOD)));
    period->is_period = true;
    period->is_partial = is_partial(account, record_integer(row, BUDGET_PERIODS_STARTED_AT));
    read_into(v, period, stored_cost(row, spent));
}

/* ---- entries ---- */

str ledger_counter_name(struct arena *arena, const struct record *entry)
{
    str kind = record_text(entry, LEDGER_KIND), model = record_text(entry, LEDGER_MODEL);
    if (str_equal(record_text(entry, LEDGER_BASIS), S("forfeited")))
        return str_printf(arena, "forfeited:" STR_FMT, STR_ARG(kind));
    if (str_is_empty(model))
        return str_copy(arena, kind);
    return str_printf(arena, STR_FMT ":" STR_FMT, STR_ARG(kind), STR_ARG(model));
}

static void credit(struct verification *v, const struct record *entry, cost amount)
{
    arena_mark mark = arena_save(v->arena);
    str name = ledger_counter_name(v->arena, entry);
    struct ledger_counter *counter = map_find(v->counters, name);
    if (counter) {
        arena_rewind(v->arena, mark);
    } else {
        counter = ARENA_NEW(v->arena, struct ledger_counter);
        counter->name = name;
        map_put(v->counters, name, counter);
    }
    counter->amount = cost_add(counter->amount, amount);
}

static void debit_period(struct verification *v, const struct account_sum *account, int64_t at_us,
                         cost amount)
{
    char name[NAME_BYTES_MAX], period[PERIOD_NAME_BYTES];
    if (account->period.period == PERIOD_NONE || at_us < account->period.since_us)
        return;
    struct account_sum *sum = sum_of(
        v, name_of(name, account->name,
                   period_name(account->period.period, account->period.since_us, at_us, period),
                   STR_NONE));
    int64_t start_us, end_us;
    period_bounds(account->period.period, at_us, &start_us, &end_us);
    sum->is_period = true;
    sum->is_partial = account->is_shared && start_us <= account->period.since_us;
    sum->entries = cost_add(sum->entries, amount);
}

/* Every entry has a user and a tenant, so these must have accounts; of runs only those with a ceiling have one. */
static void debit(struct verification *v, const struct record *entry, enum account_level level,
                  str subject, cost amount)
{
    char name[NAME_BYTES_MAX];
    str level_name = str_from_cstr(account_level_name(level));
    str account = name_of(name, level_name, subject, STR_NONE);
    struct account_sum *sum =
        level >= ACCOUNT_USER ? sum_of(v, account) : map_find(v->sums, account);
    if (!sum)
        return;
    sum->entries = cost_add(sum->entries, amount);
    debit_period(v, sum, record_integer(entry, LEDGER_AT), amount);
}

static str id_text(char out[UUID_TEXT_BYTES + 1], uuid id)
{
    uuid_format(id, out);
    return str_of(out, UUID_TEXT_BYTES);
}

static void debit_runs(struct verification *v, const struct record *entry, cost amount)
{
    char id[UUID_TEXT_BYTES + 1];
    str above = record_has(entry, LEDGER_RUN_PATH) ? record_text(entry, LEDGER_RUN_PATH) : STR_NONE;
    if (record_has(entry, LEDGER_RUN_ID))
        debit(v, entry, ACCOUNT_RUN, id_text(id, record_uuid(entry, LEDGER_RUN_ID)), amount);
    while (!str_is_empty(above)) {
        str run, rest = STR_NONE;
        str_cut(above, '/', &run, &rest);
        debit(v, entry, ACCOUNT_RUN, run, amount);
        above = rest;
    }
}

static void read_entry(struct verification *v, const struct record *entry)
{
    static const int columns[] = {LEDGER_TOKENS, LEDGER_TIME_MS, LEDGER_NANOUSD, LEDGER_TOOL_CALLS};
    char id[UUID_TEXT_BYTES + 1];
    str kind = record_text(entry, LEDGER_KIND);
    cost amount = stored_cost(entry, columns);
    bool is_forfeit = str_equal(record_text(entry, LEDGER_BASIS), S("forfeited"));
    v->report.entries++;
    credit(v, entry, amount);
    for (int level = 0; level < ACCOUNT_LEVEL_COUNT; level++) {
        if (is_forfeit && !str_equal(kind, str_from_cstr(account_level_name(level))))
            continue;
        if (level == ACCOUNT_TENANT)
            v->report.credits = cost_add(v->report.credits, amount);
        if (level == ACCOUNT_RUN)
            debit_runs(v, entry, amount);
        else if (level == ACCOUNT_SESSION && record_has(entry, LEDGER_SESSION_ID))
            debit(v, entry, level, id_text(id, record_uuid(entry, LEDGER_SESSION_ID)), amount);
        else if (level == ACCOUNT_KEY && record_has(entry, LEDGER_KEY_ID))
            debit(v, entry, level, id_text(id, record_uuid(entry, LEDGER_KEY_ID)), amount);
        else if (level == ACCOUNT_USER)
            debit(v, entry, level, record_text(entry, LEDGER_USER_ID), amount);
        else if (level == ACCOUNT_TENANT)
            debit(v, entry, level, id_text(id, v->tenant_id), amount);
    }
}

/* ---- judging ---- */

static void judge_sum(struct verification *v, struct account_sum *sum)
{
    if (!sum->was_seen && !cost_is_zero(sum->entries) && !sum->is_partial) {
        v->report.first_bad =
            str_printf(v->arena, STR_FMT ": it has entries and no account", STR_ARG(sum->name));
        return;
    }
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t before = *cost_field(&sum->before, i), after = *cost_field(&sum->after, i),
                entries = *cost_field(&sum->entries, i);
        if (before <= entries && (entries <= after || sum->is_partial))
            continue;
        v->report.first_bad =
            str_printf(v->arena, STR_FMT ": %s spent %lld, its entries add up to %lld",
                       STR_ARG(sum->name), cost_field_name(i),
                       (long long) (entries > after ? after : before), (long long) entries);
        return;
    }
}

static void judge(struct verification *v)
{
    struct ledger_report *report = &v->report;
    char name[NAME_BYTES_MAX], id[UUID_TEXT_BYTES + 1];
    size_t position = 0;
    void *value;
    while (map_next(v->sums, &position, NULL, &value)) {
        struct account_sum *sum = value;
        *(sum->is_period ? &report->periods : &report->accounts) += 1;
        if (str_is_empty(report->first_bad))
            judge_sum(v, sum);
    }
    struct account_sum *tenant =
        map_find(v->sums, name_of(name, S("tenant"), id_text(id, v->tenant_id), STR_NONE));
    report->debits = tenant ? tenant->after : (cost){0};
}

static void list_counters(struct verification *v)
{
    size_t position = 0;
    void *value;
    v->report.counters = ARENA_ARRAY(v->arena, struct ledger_counter, map_count(v->counters));
    while (map_next(v->counters, &position, NULL, &value))
        v->report.counters[v->report.counter_count++] = *(struct ledger_counter *) value;
}

static void copy_report(struct arena *arena, const struct ledger_report *from,
                        struct ledger_report *to)
{
    *to = *from;
    to->first_bad = str_copy(arena, from->first_bad);
    to->counters = ARENA_ARRAY(arena, struct ledger_counter, from->counter_count);
    for (size_t i = 0; i < from->counter_count; i++)
        to->counters[i] = (struct ledger_counter){str_copy(arena, from->counters[i].name),
                                                  from->counters[i].amount};
}

bool ledger_check(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                  struct ledger_report *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    OWNED(map) sums = map_create();
    OWNED(map) counters = map_create();
    struct verification v = {
        .arena = arena, .sums = sums, .counters = counters, .tenant_id = tenant_id};
    if (!each_row(ledger, ctx, TABLE_BUDGETS, read_account, &v, e) ||
        !each_row(ledger, ctx, TABLE_BUDGET_PERIODS, read_period, &v, e) ||
        !each_row(ledger, ctx, TABLE_LEDGER, read_entry, &v, e))
        return false;
    v.is_second = true;
    if (!each_row(ledger, ctx, TABLE_BUDGETS, read_account, &v, e) ||
        !each_row(ledger, ctx, TABLE_BUDGET_PERIODS, read_period, &v, e))
        return false;
    judge(&v);
    list_counters(&v);
    copy_report(ctx->arena, &v.report, out);
    return true;
}

bool ledger_verify(struct ledger *ledger, struct context *ctx, uuid tenant_id, str *first_bad,
                   struct error *e)
{
    struct ledger_report report;
    if (!ledger_check(ledger, ctx, tenant_id, &report, e))
        return false;
    *first_bad = report.first_bad;
    return true;
}
