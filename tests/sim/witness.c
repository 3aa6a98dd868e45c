#include "witness.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/strbuf.h"
#include "law_share.h"
#include "laws.h"
#include "store/check.h"

struct seen_session {
    int64_t epoch;
    str owner; /* of that epoch; empty: not seen yet */
};
struct seen_journal {
    int64_t seq;
};

static str key_of_id(const uuid *id)
{
    return str_of((const char *) id->bytes, sizeof id->bytes);
}

void witness_init(struct world *world)
{
    world->sessions = map_create();
    world->journals = map_create();
}

void witness_deinit(struct world *world)
{
    map_destroy(world->sessions);
    map_destroy(world->journals);
    map_destroy(world->promised);
}

void witness_forget(struct world *world)
{
    map_destroy(world->sessions);
    map_destroy(world->journals);
    witness_init(world);
}

/* ---- one writer ---- */

static struct seen_session *session_of(struct world *world, uuid id)
{
    struct seen_session *seen = map_find(world->sessions, key_of_id(&id));
    if (!seen) {
        seen = ARENA_NEW(world->arena, struct seen_session);
        map_put(world->sessions, key_of_id(&id), seen);
    }
    return seen;
}

void witness_claim(struct world *world, const struct node *node, uuid session_id, int64_t epoch)
{
    struct seen_session *seen = session_of(world, session_id);
    bool is_own = epoch == seen->epoch && str_equal(seen->owner, str_from_cstr(node->name));
    if (epoch <= seen->epoch && seen->owner.len > 0 && !is_own)
        world_violation(world, "%s claimed epoch %lld of a session that is at %lld", node->name,
                        (long long) epoch, (long long) seen->epoch);
    seen->epoch = epoch;
    seen->owner = str_copy(world->arena, str_from_cstr(node->name));
    world_note(world, (uint64_t) epoch << 8 | (uint64_t) node->index);
}

static void check_fence(struct world *world, const struct node *node, const struct fence *fence)
{
    struct seen_session *seen = session_of(world, fence->session_id);
    if (seen->owner.len == 0) {
        seen->epoch = fence->epoch;
        seen->owner = str_copy(world->arena, fence->node);
        return;
    }
    if (fence->epoch < seen->epoch)
        world_violation(world, "two writers: %s wrote under epoch %lld, " STR_FMT " has epoch %lld",
                        node->name, (long long) fence->epoch, STR_ARG(seen->owner),
                        (long long) seen->epoch);
    else if (!str_equal(seen->owner, fence->node) || fence->epoch > seen->epoch)
        world_violation(world, "two writers: " STR_FMT " wrote under the epoch %lld of " STR_FMT,
                        STR_ARG(fence->node), (long long) fence->epoch, STR_ARG(seen->owner));
}

/* ---- no gap ---- */

static void check_event(struct world *world, const struct record *row)
{
    uuid run_id = record_uuid(row, RUN_EVENTS_RUN_ID);
    int64_t seq = record_integer(row, RUN_EVENTS_SEQ);
    struct seen_journal *seen = map_find(world->journals, key_of_id(&run_id));
    if (!seen) {
        seen = ARENA_NEW(world->arena, struct seen_journal);
        seen->seq = world->database ? seq - 1 : 0;
        map_put(world->journals, key_of_id(&run_id), seen);
    }
    if (seq != seen->seq + 1)
        world_violation(world, "a journal has a gap: event %lld comes after %lld", (long long) seq,
                        (long long) seen->seq);
    seen->seq = seq;
    world_tell(world, "run %02x%02x event %lld " STR_FMT " " STR_FMT, run_id.bytes[14],
               run_id.bytes[15], (long long) seq, STR_ARG(record_text(row, RUN_EVENTS_TYPE)),
               STR_ARG(str_cut_utf8(record_text(row, RUN_EVENTS_DATA), 160)));
}

/* Its journal begins with another run's. */
static void check_fork(struct world *world, const struct write *write)
{
    const struct record *row = &write->record;
    if (row->table != TABLE_AGENT_RUNS || !write_is_insert(write->op) ||
        !record_has(row, AGENT_RUNS_FORKED_AT))
        return;
    uuid run_id = record_uuid(row, AGENT_RUNS_ID);
    struct seen_journal *seen = ARENA_NEW(world->arena, struct seen_journal);
    seen->seq = record_integer(row, AGENT_RUNS_FORKED_AT);
    map_put(world->journals, key_of_id(&run_id), seen);
}

/* ---- no account over its limit ---- */

static void check_budget(struct world *world, const struct batch *batch, const struct record *row)
{
    static const int columns[][3] = {
        {BUDGETS_LIMIT_TOKENS, BUDGETS_SPENT_TOKENS, BUDGETS_LEASED_TOKENS},
        {BUDGETS_LIMIT_NANOUSD, BUDGETS_SPENT_NANOUSD, BUDGETS_LEASED_NANOUSD},
        {BUDGETS_LIMIT_TOOL_CALLS, BUDGETS_SPENT_TOOL_CALLS, BUDGETS_LEASED_TOOL_CALLS},
    };
    struct record now;
    struct error e = {0};
    struct context ctx = {.arena = world->arena, .deadline_ns = DEADLINE_NONE};
    arena_mark mark = arena_save(world->arena);
    if (world->store->ops->get(world->store, &ctx, batch->tenant_id, row, &now, &e) &&
        !record_has(&now, BUDGETS_PERIOD)) /* then its limit is of each period */
        for (size_t i = 0; i < ARRAY_COUNT(columns); i++) {
            if (!record_has(&now, columns[i][0]))
                continue;
            int64_t limit = record_integer(&now, columns[i][0]),
                    spent = record_integer(&now, columns[i][1]),
                    leased = record_integer(&now, columns[i][2]);
            if (i == 0)
                world_tell(world,
                           "%.*s account of " STR_FMT
                           ": spent %lld, leased %lld, limit %lld tokens",
                           STR_ARG(record_text(&now, BUDGETS_LEVEL)),
                           STR_ARG(record_text(&now, BUDGETS_SUBJECT)), (long long) spent,
                           (long long) leased, (long long) limit);
            if (spent < 0 || leased < 0)
                world_violation(world, "stored " STR_FMT " account: spent %lld, leased %lld",
                                STR_ARG(record_text(&now, BUDGETS_LEVEL)), (long long) spent,
                                (long long) leased);
            if (spent + leased > limit && !record_has(row, columns[i][0]))
                world_violation(world,
                                "stored " STR_FMT " account: spent %lld + leased %lld is above "
                                "the limit of %lld",
                                STR_ARG(record_text(&now, BUDGETS_LEVEL)), (long long) spent,
                                (long long) leased, (long long) limit);
        }
    arena_rewind(world->arena, mark);
}

/* ---- what the ledger writes: to be read with --verbose ---- */

static void tell_ledger(struct world *world, const struct node *node, const struct write *write)
{
    const struct record *row = &write->record;
    if (row->table == TABLE_LEDGER)
        world_tell(
            world,
            "%s: entry of " STR_FMT " at %lld: " STR_FMT " " STR_FMT ", %lld tokens, %lld calls",
            node->name, STR_ARG(record_text(row, LEDGER_USER_ID)),
            (long long) record_integer(row, LEDGER_AT), STR_ARG(record_text(row, LEDGER_KIND)),
            STR_ARG(record_text(row, LEDGER_BASIS)), (long long) record_integer(row, LEDGER_TOKENS),
            (long long) record_integer(row, LEDGER_TOOL_CALLS));
    else if (row->table == TABLE_BUDGET_PERIODS)
        world_tell(world,
                   "%s: period " STR_FMT " of " STR_FMT " " STR_FMT ": %lld tokens, %lld calls",
                   node->name, STR_ARG(record_text(row, BUDGET_PERIODS_PERIOD)),
                   STR_ARG(record_text(row, BUDGET_PERIODS_LEVEL)),
                   STR_ARG(record_text(row, BUDGET_PERIODS_SUBJECT)),
                   (long long) record_integer(row, BUDGET_PERIODS_SPENT_TOKENS),
                   (long long) record_integer(row, BUDGET_PERIODS_SPENT_TOOL_CALLS));
    else if (row->table == TABLE_BUDGETS && record_has(row, BUDGETS_PERIOD_START))
        world_tell(world, "%s: " STR_FMT " of " STR_FMT " " STR_FMT " counts from %lld", node->name,
                   STR_ARG(record_text(row, BUDGETS_PERIOD)),
                   STR_ARG(record_text(row, BUDGETS_LEVEL)),
                   STR_ARG(record_text(row, BUDGETS_SUBJECT)),
                   (long long) record_integer(row, BUDGETS_PERIOD_START));
}

/* ---- all of it ---- */

static uint64_t digest_of(const struct record *row)
{
    const struct table_def *def = table_def(row->table);
    uint64_t mixed = (uint64_t) row->table << 32 | row->has;
    for (int i = 0; i < def->column_count; i++) {
        if (!record_has(row, i))
            continue;
        str text = value_text(def->columns[i].type, &row->values[i]);
        uint64_t piece =
            column_is_integer(def->columns[i].type) ? (uint64_t) row->values[i].integer : text.len;
        mixed = (mixed ^ piece) * 0x9e3779b97f4a7c15u;
    }
    return mixed;
}

void witness_batch(struct world *world, const struct node *node, const struct batch *batch)
{
    if (batch->fence)
        check_fence(world, node, batch->fence);
    for (size_t i = 0; i < batch->count; i++)
        check_fork(world, &batch->writes[i]);
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        world_note(world, digest_of(row) + batch->writes[i].op);
        tell_ledger(world, node, &batch->writes[i]);
        if (row->table == TABLE_RUN_EVENTS && write_is_insert(batch->writes[i].op))
            check_event(world, row);
        if (row->table == TABLE_BUDGET_LEASES)
            world_tell(world,
                       "%s: share of " STR_FMT " in " STR_FMT " " STR_FMT
                       ": %s %lld tokens, %lld calls",
                       node->name, STR_ARG(record_text(row, BUDGET_LEASES_NODE)),
                       STR_ARG(record_text(row, BUDGET_LEASES_LEVEL)),
                       STR_ARG(record_text(row, BUDGET_LEASES_SUBJECT)),
                       batch->writes[i].op == WRITE_ADD      ? "add"
                       : batch->writes[i].op == WRITE_DELETE ? "delete"
                       : batch->writes[i].op == WRITE_UPDATE ? "update"
                                                             : "insert",
                       (long long) record_integer(row, BUDGET_LEASES_TOKENS),
                       (long long) record_integer(row, BUDGET_LEASES_TOOL_CALLS));
        if (row->table == TABLE_BUDGETS && !world->database)
            check_budget(world, batch, row);
    }
    law_share_batch(world, node, batch);
    laws_batch(world, node, batch);
}

/* ---- promises ---- */

static str promise_key(struct arena *arena, uuid tenant_id, const struct record *row)
{
    const struct table_def *def = table_def(row->table);
    struct strbuf key;
    strbuf_init(&key, arena, 4096);
    strbuf_printf(&key, "%d ", (int) row->table);
    strbuf_add(&key, key_of_id(&tenant_id));
    for (int i = 0; i < def->column_count; i++) {
        if (!(def->columns[i].flags & COLUMN_KEY))
            continue;
        if (column_is_integer(def->columns[i].type))
            strbuf_printf(&key, "|%lld", (long long) row->values[i].integer);
        else if (def->columns[i].type == COLUMN_UUID)
            strbuf_add(&key, key_of_id(&row->values[i].id));
        else
            strbuf_add(&key, row->values[i].text);
    }
    return strbuf_str(&key);
}

/* A batch that removes rows and is not acknowledged: after a crash all of them are there or none. */
struct removal {
    bool has_kept, has_removed;
    bool is_mixed; /* another one was asked to remove the same: nobody can tell them apart */
};

struct promise {
    uuid tenant_id;
    struct record row;       /* its key columns */
    struct removal *removal; /* asked for: the row may be gone before anybody is told */
    bool is_gone;            /* a crash has shown it */
};

void witness_ask(struct world *world, const struct batch *batch)
{
    struct removal *removal = NULL;
    for (size_t i = 0; world->promised && i < batch->count; i++) {
        if (batch->writes[i].op != WRITE_DELETE)
            continue;
        arena_mark mark = arena_save(world->arena);
        struct promise *promise = map_find(
            world->promised, promise_key(world->arena, batch->tenant_id, &batch->writes[i].record));
        arena_rewind(world->arena, mark);
        if (!promise)
            continue;
        if (!removal)
            removal = ARENA_NEW(world->arena, struct removal);
        if (promise->removal && promise->removal != removal)
            promise->removal->is_mixed = removal->is_mixed = true;
        promise->removal = removal;
    }
}

void witness_promise(struct world *world, const struct batch *batch)
{
    if (!world->promised)
        world->promised = map_create();
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        arena_mark mark = arena_save(world->arena);
        str key = promise_key(world->arena, batch->tenant_id, row);
        struct promise *promise = map_find(world->promised, key);
        if (batch->writes[i].op == WRITE_DELETE)
            (void) map_remove(world->promised, key);
        if (promise || !write_is_insert(batch->writes[i].op)) {
            if (promise && write_is_insert(batch->writes[i].op))
                promise->is_gone = false;
            arena_rewind(world->arena, mark);
            continue;
        }
        promise = ARENA_NEW(world->arena, struct promise);
        promise->tenant_id = batch->tenant_id;
        record_copy(world->arena, &promise->row, row);
        map_put(world->promised, key, promise);
    }
}

/* What survived is certain from now on. */
static bool check_promise(struct world *world, struct context *ctx, struct promise *promise)
{
    struct record found;
    struct error e = {0};
    const char *table = table_def(promise->row.table)->name;
    struct removal *removal = promise->removal;
    bool is_there =
        world->store->ops->get(world->store, ctx, promise->tenant_id, &promise->row, &found, &e);
    if (!is_there && (!removal || e.reason != REASON_NOT_FOUND)) {
        world_violation(world, "an acknowledged row of %s is gone after a crash: %s", table,
                        e.message);
        return false;
    }
    promise->is_gone = !is_there;
    promise->removal = NULL;
    if (!removal)
        return true;
    removal->has_kept = removal->has_kept || is_there;
    removal->has_removed = removal->has_removed || !is_there;
    if (removal->is_mixed || !removal->has_kept || !removal->has_removed)
        return true;
    world_violation(world, "a batch that removes rows of %s is half there after a crash", table);
    return false;
}

void witness_check_promises(struct world *world)
{
    OWNED(arena) arena = arena_create(0);
    struct context ctx = {.arena = arena, .deadline_ns = DEADLINE_NONE};
    size_t position = 0;
    void *value;
    while (world->promised && map_next(world->promised, &position, NULL, &value)) {
        struct promise *promise = value;
        if (!promise->is_gone && !check_promise(world, &ctx, promise))
            return;
        arena_reset(arena);
    }
}
