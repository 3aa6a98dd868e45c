/*
 * What plain calls came to, gathered in memory until it is written in bulk.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger_internal.h"
#include <stdlib.h>

#define DAY_US (86400ll * 1000000)

/* Settlements of one path, kind, basis, model and generation.  The accounts are held while this lives, so pointers name them. */
struct gathered_entry {
    struct gathered_entry *next; /* in its bucket */
    struct ledger_path path;
    const char *kind, *basis; /* literals */
    str model;
    cost used;
    int64_t calls;
    uint64_t generation;
    int64_t at_us; /* of the first */
};

struct gathered_account {
    struct account *account;
    cost spent, ended;
    cost returned; /* part of `ended`: free leases, reserved until ledger_taken_stored */
    struct account_period period;
    int64_t at_us;
};

enum { GATHER_BUCKETS = 256 };

struct ledger_taken {
    struct arena *arena;
    struct gathered_entry *buckets[GATHER_BUCKETS];
    struct gathered_entry **entries; /* in the order they came */
    size_t entry_count, entry_capacity;
    struct gathered_account *accounts;
    size_t account_count, account_capacity;
};

void ledger_set_hooks(struct ledger *ledger, struct ledger_hooks hooks)
{
    ledger->hooks = hooks;
}

static struct ledger_taken *gathering(struct ledger *ledger)
{
    if (ledger->gathering)
        return ledger->gathering;
    struct ledger_taken *taken = calloc(1, sizeof *taken);
    ensure(taken != NULL);
    taken->arena = arena_create(0);
    ledger->gathering = taken;
    return taken;
}

/* ---- accounts ---- */

static struct gathered_account *account_of(struct ledger *ledger, struct account *account)
{
    struct ledger_taken *taken = gathering(ledger);
    if (account->gathered_take == ledger->take_number &&
        account->gathered_generation == ledger->generation)
        return &taken->accounts[account->gathered_index];
    if (taken->account_count == taken->account_capacity) {
        size_t capacity = taken->account_capacity ? 2 * taken->account_capacity : 16;
        taken->accounts = arena_grow(taken->arena, taken->accounts,
                                     taken->account_capacity * sizeof *taken->accounts,
                                     capacity * sizeof *taken->accounts);
        taken->account_capacity = capacity;
    }
    account_hold(account);
    account->gathered_take = ledger->take_number;
    account->gathered_generation = ledger->generation;
    account->gathered_index = taken->account_count;
    struct gathered_account *made = &taken->accounts[taken->account_count++];
    *made = (struct gathered_account){
        .account = account, .period = account->period, .at_us = ledger->last_us};
    return made;
}

/* ---- entries ---- */

static size_t bucket_of(const struct ledger_path *path, const struct settlement *settlement)
{
    uintptr_t mixed = (uintptr_t) path->accounts[ACCOUNT_USER] * 31u +
                      (uintptr_t) path->accounts[ACCOUNT_SESSION] * 17u +
                      (uintptr_t) path->accounts[ACCOUNT_KEY] * 7u + (uintptr_t) settlement->basis +
                      settlement->model.len;
    return (mixed ^ mixed >> 12 ^ mixed >> 24) % GATHER_BUCKETS;
}

static bool is_same(const struct gathered_entry *entry, uint64_t generation,
                    const struct ledger_path *path, const struct settlement *settlement)
{
    return entry->generation == generation &&
           memcmp(entry->path.accounts, path->accounts, sizeof path->accounts) == 0 &&
           entry->kind == settlement->kind && entry->basis == settlement->basis &&
           str_equal(entry->model, settlement->model);
}

static struct gathered_entry *entry_of(struct ledger *ledger, const struct ledger_path *path,
                                       const struct settlement *settlement)
{
    struct ledger_taken *taken = ledger->gathering;
    struct gathered_entry **bucket = &taken->buckets[bucket_of(path, settlement)];
    for (struct gathered_entry *entry = *bucket; entry; entry = entry->next)
        if (is_same(entry, ledger->generation, path, settlement))
            return entry;
    if (taken->entry_count == taken->entry_capacity) {
        size_t capacity = taken->entry_capacity ? 2 * taken->entry_capacity : 16;
        taken->entries =
            arena_grow(taken->arena, taken->entries, taken->entry_capacity * sizeof(void *),
                       capacity * sizeof(void *));
        taken->entry_capacity = capacity;
    }
    struct gathered_entry *made = ARENA_NEW(taken->arena, struct gathered_entry);
    *made = (struct gathered_entry){.next = *bucket,
                                    .path = *path,
                                    .kind = settlement->kind,
                                    .basis = settlement->basis,
                                    .model = str_copy(taken->arena, settlement->model),
                                    .generation = ledger->generation,
                                    .at_us = settlement->at_us};
    *bucket = made;
    taken->entries[taken->entry_count++] = made;
    return made;
}

void ledger_gather(struct ledger *ledger, const struct ledger_path *path,
                   const struct settlement *settlement, const cost ended[ACCOUNT_LEVEL_COUNT])
{
    if (settlement->at_us / DAY_US != ledger->day) { /* no period is longer than it is whole days */
        ledger->day = settlement->at_us / DAY_US;
        ledger->generation++;
    }
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++) {
        if (!path->accounts[i])
            continue;
        struct gathered_account *account = account_of(ledger, path->accounts[i]);
        account->spent = cost_add(account->spent, settlement->used);
        account->ended = cost_add(account->ended, ended[i]);
    }
    struct gathered_entry *entry = entry_of(ledger, path, settlement);
    entry->used = cost_add(entry->used, settlement->used);
    entry->calls++;
}

/* ---- free leases ---- */

void ledger_note_free(struct ledger *ledger, struct account *account)
{
    bool is_free = !cost_is_zero(account->lease_free);
    if (is_free && !list_is_linked(&account->free_link))
        list_push_back(&ledger->free_leases, &account->free_link);
    else if (!is_free)
        list_remove(&account->free_link);
}

bool ledger_path_has_free(const struct ledger_path *path)
{
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (path->accounts[i] && (!cost_is_zero(path->accounts[i]->lease_free) ||
                                  !cost_is_zero(path->accounts[i]->lease_returning)))
            return true;
    return false;
}

bool ledger_has_free_leases(struct ledger *ledger)
{
    pthread_mutex_lock(&ledger->lock);
    bool has = !list_is_empty(&ledger->free_leases);
    pthread_mutex_unlock(&ledger->lock);
    return has;
}

static void give_back(struct ledger *ledger, struct account *account)
{
    struct gathered_account *gathered = account_of(ledger, account);
    gathered->ended = cost_add(gathered->ended, account->lease_free);
    gathered->returned = cost_add(gathered->returned, account->lease_free);
    account->lease_returning = cost_add(account->lease_returning, account->lease_free);
    account->lease_free = (cost){0};
    list_remove(&account->free_link);
}

static void give_back_idle(struct ledger *ledger, bool is_forced)
{
    int64_t before_ns = clock_monotonic_ns(ledger->clock) - LEDGER_LEASE_IDLE_MS * 1000000ll;
    for (struct list *node = ledger->free_leases.next, *next; node != &ledger->free_leases;
         node = next) {
        struct account *account = LIST_ITEM(node, struct account, free_link);
        next = node->next;
        if (is_forced || (account->plain_calls == 0 && account->last_plain_ns <= before_ns))
            give_back(ledger, account);
    }
}

/* ---- taking ---- */

struct ledger_taken *ledger_take(struct ledger *ledger, bool is_forced)
{
    pthread_mutex_lock(&ledger->lock);
    give_back_idle(ledger, is_forced);
    struct ledger_taken *taken = ledger->gathering;
    ledger->gathering = NULL;
    ledger->take_number++;
    pthread_mutex_unlock(&ledger->lock);
    return taken;
}

void ledger_taken_tenants(const struct ledger_taken *taken, struct arena *arena, uuid **tenants,
                          size_t *count)
{
    *count = 0;
    *tenants = ARENA_ARRAY(arena, uuid, taken->account_count);
    for (size_t i = 0; i < taken->account_count; i++) {
        uuid tenant_id = taken->accounts[i].account->tenant_id;
        bool is_known = false;
        for (size_t t = *count; t > 0 && !is_known; t--) /* neighbours are mostly of one tenant */
            is_known = uuid_equal((*tenants)[t - 1], tenant_id);
        if (!is_known)
            (*tenants)[(*count)++] = tenant_id;
    }
}

static void write_entry(struct ledger *ledger, struct batch *batch,
                        const struct gathered_entry *entry)
{
    struct settlement sum = {
        .reserved = entry->used, /* an overdraft says so itself */
        .used = entry->used,
        .kind = entry->kind,
        .basis = entry->basis,
        .model = entry->model,
        .at_us = entry->at_us,
        .details = str_printf(batch->arena, "{\"calls\":%lld}", (long long) entry->calls),
    };
    ledger_add_entry(ledger, batch, &entry->path, &sum);
}

static void write_account(struct ledger *ledger, struct batch *batch,
                          const struct gathered_account *gathered)
{
    bool is_shared = ledger->options.is_shared;
    struct account_change change = {
        .spent = gathered->spent, .period = gathered->period, .at_us = gathered->at_us};
    struct ledger_alert alert;
    if (!is_shared)
        change.leased = cost_subtract((cost){0}, gathered->ended);
    if (!cost_is_zero(change.spent) || !cost_is_zero(change.leased))
        account_add_row(ledger, batch, gathered->account, &change);
    if (is_shared)
        ledger_share_add_row(
            ledger, batch, gathered->account,
            &(struct share_change){.ended = gathered->ended,
                                   .share = cost_subtract((cost){0}, gathered->ended)});
    pthread_mutex_lock(&ledger->lock);
    bool is_told =
        !cost_is_zero(change.spent) && account_alert(ledger, gathered->account, (cost){0}, &alert);
    if (is_told) /* the batch is tried until it is stored */
        gathered->account->alerted = gathered->account->alerting;
    bool is_now = is_told && gathered->at_us >= gathered->account->period_start_us;
    pthread_mutex_unlock(&ledger->lock);
    if (is_now)
        ledger_write_alert(ledger, batch, &alert, gathered->at_us);
}

void ledger_taken_write(struct ledger *ledger, const struct ledger_taken *taken,
                        struct batch *batch)
{
    for (size_t i = 0; i < taken->entry_count; i++)
        if (uuid_equal(taken->entries[i]->path.tenant_id, batch->tenant_id))
            write_entry(ledger, batch, taken->entries[i]);
    for (size_t i = 0; i < taken->account_count; i++)
        if (uuid_equal(taken->accounts[i].account->tenant_id, batch->tenant_id))
            write_account(ledger, batch, &taken->accounts[i]);
}

/* With the lock held. */
static void end_return(struct gathered_account *gathered, bool is_stored)
{
    struct account *account = gathered->account;
    account->lease_returning = cost_subtract(account->lease_returning, gathered->returned);
    if (is_stored)
        account->budget.reserved = cost_subtract(account->budget.reserved, gathered->returned);
    gathered->returned = (cost){0};
}

void ledger_taken_stored(struct ledger *ledger, struct ledger_taken *taken, uuid tenant_id)
{
    pthread_mutex_lock(&ledger->lock);
    for (size_t i = 0; i < taken->account_count; i++)
        if (uuid_equal(taken->accounts[i].account->tenant_id, tenant_id))
            end_return(&taken->accounts[i], true);
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_taken_destroy(struct ledger *ledger, struct ledger_taken *taken)
{
    if (!taken)
        return;
    int64_t now_ns = clock_monotonic_ns(ledger->clock);
    pthread_mutex_lock(&ledger->lock);
    for (size_t i = 0; i < taken->account_count; i++) {
        end_return(&taken->accounts[i], false);
        account_let_go(ledger, taken->accounts[i].account, now_ns);
    }
    pthread_mutex_unlock(&ledger->lock);
    arena_destroy(taken->arena);
    free(taken);
}
