#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/ledger_internal.h"
#include <stdlib.h>

enum { ACCOUNT_IDLE_SWEEP = 8 };

static const char *const level_names[ACCOUNT_LEVEL_COUNT] = {
    [ACCOUNT_RUN] = "run",   [ACCOUNT_SESSION] = "session", [ACCOUNT_KEY] = "key",
    [ACCOUNT_USER] = "user", [ACCOUNT_TENANT] = "tenant",
};

const char *account_level_name(enum account_level level)
{
    return level_names[level];
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
    ledger->take_number = 1;
    list_init(&ledger->free_leases);
    list_init(&ledger->idle);
    pthread_mutex_init(&ledger->lock, NULL);
    return ledger;
}

static void account_destroy(struct account *account)
{
    free((char *) (uintptr_t) account->subject.ptr);
    free((char *) (uintptr_t) account->key.ptr);
    free(account);
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

/* ---- accounts ---- */

bool account_is_limited(const struct account *account)
{
    return !cost_equal(account->budget.limit, COST_LIMITLESS);
}

enum { ACCOUNT_KEY_BYTES = 320 };

static str account_key(char out[ACCOUNT_KEY_BYTES], uuid tenant_id, enum account_level level,
                       str subject)
{
    memcpy(out, tenant_id.bytes, sizeof tenant_id.bytes);
    out[16] = (char) ('0' + level);
    size_t length = subject.len < ACCOUNT_KEY_BYTES - 17 ? subject.len : ACCOUNT_KEY_BYTES - 17;
    memcpy(out + 17, subject.ptr, length);
    return str_of(out, 17 + length);
}

static str own_text(str text)
{
    char *copy = malloc(text.len + 1);
    ensure(copy != NULL);
    memcpy(copy, text.ptr ? text.ptr : "", text.len);
    copy[text.len] = 0;
    return str_of(copy, text.len);
}

static void set_budget_key(struct record *row, enum account_level level, str subject)
{
    record_set_text(row, BUDGETS_LEVEL, str_from_cstr(level_names[level]));
    record_set_text(row, BUDGETS_SUBJECT, subject);
}

static const int limit_columns[] = {BUDGETS_LIMIT_TOKENS, BUDGETS_LIMIT_TIME_MS,
                                    BUDGETS_LIMIT_NANOUSD, BUDGETS_LIMIT_TOOL_CALLS};
static const int spent_columns[] = {BUDGETS_SPENT_TOKENS, BUDGETS_SPENT_TIME_MS,
                                    BUDGETS_SPENT_NANOUSD, BUDGETS_SPENT_TOOL_CALLS};
static const int leased_columns[] = {BUDGETS_LEASED_TOKENS, BUDGETS_LEASED_TIME_MS,
                                     BUDGETS_LEASED_NANOUSD, BUDGETS_LEASED_TOOL_CALLS};

static void set_cost(struct record *row, const int columns[COST_FIELD_COUNT], cost amount)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t value = *cost_field(&amount, i);
        if (value == COST_UNLIMITED)
            record_set_null(row, columns[i]);
        else
            record_set_integer(row, columns[i], value);
    }
}

static cost get_cost(const struct record *row, const int columns[COST_FIELD_COUNT])
{
    cost amount;
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        *cost_field(&amount, i) =
            record_has(row, columns[i]) ? record_integer(row, columns[i]) : COST_UNLIMITED;
    return amount;
}

static void fill_account_row(struct ledger *ledger, struct record *row, enum account_level level,
                             str subject, cost limit)
{
    set_budget_key(row, level, subject);
    set_cost(row, limit_columns, limit);
    set_cost(row, spent_columns, (cost){0});
    set_cost(row, leased_columns, (cost){0});
    record_set_integer(row, BUDGETS_UPDATED_AT, clock_unix_us(ledger->clock));
}

void ledger_add_account_row(struct ledger *ledger, struct batch *batch, enum account_level level,
                            str subject, cost limit)
{
    fill_account_row(ledger, batch_add(batch, WRITE_INSERT_NEW, TABLE_BUDGETS), level, subject,
                     limit);
}

void account_add_row(struct ledger *ledger, struct batch *batch, const struct account *account,
                     cost spent, cost leased)
{
    struct record *row = batch_add(batch, WRITE_ADD, TABLE_BUDGETS);
    set_budget_key(row, account->level, str_copy(batch->arena, account->subject));
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        if (*cost_field(&spent, i) != 0)
            record_set_integer(row, spent_columns[i], *cost_field(&spent, i));
        if (*cost_field(&leased, i) != 0)
            record_set_integer(row, leased_columns[i], *cost_field(&leased, i));
    }
    (void) ledger;
}

/* Reads the account's row, or makes it. */
static never_inline bool load_row(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                                  enum account_level level, str subject, cost limit,
                                  struct budget *out, struct error *e)
{
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error missing = {0};
    set_budget_key(&key, level, subject);
    *out = (struct budget){.limit = limit};
    if (store_get(ledger->store, ctx, tenant_id, &key, &row, &missing)) {
        out->spent = get_cost(&row, spent_columns);
        if (level >= ACCOUNT_KEY)
            out->limit = get_cost(&row, limit_columns);
        return true;
    }
    if (missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    struct batch batch;
    batch_init(&batch, ctx->arena, tenant_id);
    ledger_add_account_row(ledger, &batch, level, subject, limit);
    return store_commit(ledger->store, ctx, &batch, e);
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

/* Accounts that nobody has held for a while go, a few with each new one.  Their rows are up to date: what they spent was committed long
   ago. */
static void sweep_idle(struct ledger *ledger)
{
    int64_t now_ns = clock_monotonic_ns(ledger->clock),
            before_ns = now_ns - LEDGER_ACCOUNT_IDLE_MS * 1000000ll;
    for (int i = 0; i < ACCOUNT_IDLE_SWEEP; i++) {
        struct list *first = list_first(&ledger->idle);
        if (!first)
            return;
        struct account *account = LIST_ITEM(first, struct account, idle_link);
        if (account->idle_since_ns > before_ns)
            return;
        list_remove(first);
        if (!cost_is_zero(account->budget.reserved) || list_is_linked(&account->free_link)) {
            /* of a run that waits, or leased */
            account->idle_since_ns = now_ns;
            list_push_back(&ledger->idle, first);
            continue;
        }
        map_remove(ledger->accounts, account->key);
        account_destroy(account);
    }
}

static struct account *hold(struct ledger *ledger, str key)
{
    struct account *account = map_find(ledger->accounts, key);
    if (account)
        account_hold(account);
    return account;
}

static struct account *insert(struct ledger *ledger, uuid tenant_id, enum account_level level,
                              str subject, str key, const struct budget *budget)
{
    struct account *account =
        hold(ledger, key); /* another coroutine may have loaded it meanwhile */
    if (account)
        return account;
    sweep_idle(ledger);
    account = calloc(1, sizeof *account);
    ensure(account != NULL);
    *account = (struct account){
        .tenant_id = tenant_id,
        .level = level,
        .subject = own_text(subject),
        .key = own_text(key),
        .budget = *budget,
        .references = 1,
    };
    map_put(ledger->accounts, account->key, account);
    return account;
}

static bool open_account(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                         enum account_level level, str subject, cost limit, struct account **out,
                         struct error *e)
{
    char buffer[ACCOUNT_KEY_BYTES] not_cleared;
    str key = account_key(buffer, tenant_id, level, subject);
    pthread_mutex_lock(&ledger->lock);
    struct account *account = hold(ledger, key);
    pthread_mutex_unlock(&ledger->lock);
    if (!account) {
        struct budget budget;
        if (!load_row(ledger, ctx, tenant_id, level, subject, limit, &budget, e))
            return error_wrap(e, "account of %s " STR_FMT, level_names[level], STR_ARG(subject));
        pthread_mutex_lock(&ledger->lock);
        account = insert(ledger, tenant_id, level, subject, key, &budget);
        pthread_mutex_unlock(&ledger->lock);
    }
    *out = account;
    return true;
}

/* Without an id the level is absent. */
static bool open_id_account(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                            enum account_level level, uuid id, cost limit, struct ledger_path *path,
                            struct error *e)
{
    char text[UUID_TEXT_BYTES + 1];
    if (uuid_is_none(id) && level != ACCOUNT_TENANT)
        return true;
    uuid_format(id, text);
    return open_account(ledger, ctx, tenant_id, level, str_of(text, UUID_TEXT_BYTES), limit,
                        &path->accounts[level], e);
}

bool ledger_open_path(struct ledger *ledger, struct context *ctx, uuid tenant_id, str user_id,
                      uuid session_id, uuid run_id, struct ledger_limits limits,
                      struct ledger_path *out, struct error *e)
{
    *out = (struct ledger_path){.tenant_id = tenant_id,
                                .session_id = session_id,
                                .run_id = run_id,
                                .key_id = limits.key_id};
    bool ok = open_id_account(ledger, ctx, tenant_id, ACCOUNT_TENANT, tenant_id, COST_LIMITLESS,
                              out, e) &&
              open_account(ledger, ctx, tenant_id, ACCOUNT_USER, user_id, COST_LIMITLESS,
                           &out->accounts[ACCOUNT_USER], e) &&
              open_id_account(ledger, ctx, tenant_id, ACCOUNT_KEY, limits.key_id, COST_LIMITLESS,
                              out, e) &&
              open_id_account(ledger, ctx, tenant_id, ACCOUNT_SESSION, session_id, limits.session,
                              out, e) &&
              (cost_equal(limits.run, COST_LIMITLESS) ||
               open_id_account(ledger, ctx, tenant_id, ACCOUNT_RUN, run_id, limits.run, out, e));
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
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++) {
        struct account *account = path->accounts[i];
        if (!account)
            continue;
        account_let_go(ledger, account, now_ns);
        path->accounts[i] = NULL;
    }
    pthread_mutex_unlock(&ledger->lock);
}

/* ---- reserving and settling: runs ---- */

static bool refuse(const struct account *account, int field, cost worst_case, struct error *e)
{
    cost left = budget_remaining(&account->budget);
    return error_set(e, REASON_BUDGET, "the %s budget does not cover it: %s needed %lld, left %lld",
                     level_names[account->level], cost_field_name(field),
                     (long long) *cost_field(&worst_case, field),
                     (long long) *cost_field(&left, field));
}

static bool try_reserve(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                        bool *has_free, struct error *e)
{
    bool ok = true;
    int field;
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; ok && i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i] && !budget_fits(&path->accounts[i]->budget, worst_case, &field))
            ok = refuse(path->accounts[i], field, worst_case, e);
    for (int i = 0; ok && i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            budget_reserve(&path->accounts[i]->budget, worst_case);
    *has_free = !ok && ledger->hooks.flush && ledger_path_has_free(path);
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}

bool ledger_reserve(struct ledger *ledger, const struct ledger_path *path, cost worst_case,
                    struct error *e)
{
    bool has_free;
    struct error refusal = {0};
    if (try_reserve(ledger, path, worst_case, &has_free, &refusal))
        return true;
    if (has_free) {
        ledger->hooks.flush(ledger->hooks.owner);
        return try_reserve(ledger, path, worst_case, &has_free, e);
    }
    return error_copy(e, &refusal);
}

void ledger_release(struct ledger *ledger, const struct ledger_path *path, cost worst_case)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            budget_release(&path->accounts[i]->budget, worst_case);
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_restore(struct ledger *ledger, const struct ledger_path *path, cost worst_case)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            path->accounts[i]->budget.reserved =
                cost_add(path->accounts[i]->budget.reserved, worst_case);
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_add_entry(struct ledger *ledger, struct batch *batch, const struct ledger_path *path,
                      const struct settlement *settlement)
{
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_LEDGER);
    record_set_uuid(row, LEDGER_ID, uuid_new(ledger->clock, ledger->random));
    record_set_integer(row, LEDGER_AT, clock_unix_us(ledger->clock));
    record_set_text(row, LEDGER_USER_ID, path->user_id);
    if (!uuid_is_none(path->key_id))
        record_set_uuid(row, LEDGER_KEY_ID, path->key_id);
    if (!uuid_is_none(path->session_id))
        record_set_uuid(row, LEDGER_SESSION_ID, path->session_id);
    if (!uuid_is_none(path->run_id))
        record_set_uuid(row, LEDGER_RUN_ID, path->run_id);
    record_set_text(row, LEDGER_KIND, str_from_cstr(settlement->kind));
    bool is_beyond = !cost_fits(settlement->used, settlement->reserved);
    record_set_text(row, LEDGER_BASIS,
                    is_beyond ? S("overdraft") : str_from_cstr(settlement->basis));
    if (!str_is_empty(settlement->model))
        record_set_text(row, LEDGER_MODEL, settlement->model);
    record_set_integer(row, LEDGER_TOKENS, settlement->used.tokens);
    record_set_integer(row, LEDGER_TIME_MS, settlement->used.time_ms);
    record_set_integer(row, LEDGER_NANOUSD, settlement->used.cost_nanousd);
    record_set_integer(row, LEDGER_TOOL_CALLS, settlement->used.tool_calls);
    if (!str_is_empty(settlement->details))
        record_set_text(row, LEDGER_DETAILS, settlement->details);
}

void ledger_settle(struct ledger *ledger, const struct ledger_path *path,
                   const struct settlement *settlement, struct batch *batch)
{
    ledger_add_entry(ledger, batch, path, settlement);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i] && !cost_is_zero(settlement->used))
            account_add_row(ledger, batch, path->accounts[i], settlement->used, (cost){0});
}

void ledger_settled(struct ledger *ledger, const struct ledger_path *path,
                    const struct settlement *settlement)
{
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            budget_settle(&path->accounts[i]->budget, settlement->reserved, settlement->used);
    pthread_mutex_unlock(&ledger->lock);
}

/* ---- looking ---- */

static cost account_remaining(const struct account *account)
{
    struct budget budget = account->budget;
    budget.reserved = cost_subtract(budget.reserved, account->lease_free);
    return budget_remaining(&budget);
}

struct ledger_view ledger_view(struct ledger *ledger, const struct ledger_path *path,
                               enum account_level level)
{
    struct ledger_view view = {.limit = COST_LIMITLESS, .remaining = COST_LIMITLESS};
    pthread_mutex_lock(&ledger->lock);
    if (path->accounts[level]) {
        const struct budget *budget = &path->accounts[level]->budget;
        /* A free lease is nobody's: it is given back as soon as the room is needed. */
        cost reserved = cost_subtract(budget->reserved, path->accounts[level]->lease_free);
        view = (struct ledger_view){budget->limit, budget->spent, reserved,
                                    account_remaining(path->accounts[level])};
    }
    pthread_mutex_unlock(&ledger->lock);
    return view;
}

cost ledger_remaining(struct ledger *ledger, const struct ledger_path *path)
{
    cost tightest = COST_LIMITLESS;
    pthread_mutex_lock(&ledger->lock);
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i])
            tightest = cost_min(tightest, account_remaining(path->accounts[i]));
    pthread_mutex_unlock(&ledger->lock);
    return tightest;
}

bool ledger_set_limit(struct ledger *ledger, struct context *ctx, uuid tenant_id,
                      enum account_level level, str subject, cost limit, struct error *e)
{
    struct account *account;
    struct batch batch;
    if (level < ACCOUNT_KEY)
        return error_set(
            e, REASON_INVALID,
            "only the limits of a key, a user or a tenant can be set; a session's are fixed "
            "when it opens");
    if (!open_account(ledger, ctx, tenant_id, level, subject, COST_LIMITLESS, &account, e))
        return false;
    batch_init(&batch, ctx->arena, tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_BUDGETS);
    set_budget_key(row, level, subject);
    set_cost(row, limit_columns, limit);
    record_set_integer(row, BUDGETS_UPDATED_AT, clock_unix_us(ledger->clock));
    bool ok = store_commit(ledger->store, ctx, &batch, e);
    pthread_mutex_lock(&ledger->lock);
    if (ok)
        account->budget.limit = limit;
    account_let_go(ledger, account, clock_monotonic_ns(ledger->clock));
    pthread_mutex_unlock(&ledger->lock);
    return ok;
}
