#include "law_share.h"
#include "base/arena.h"

enum { FIELDS = 4 };

static const int share_columns[FIELDS] = {BUDGET_LEASES_TOKENS, BUDGET_LEASES_TIME_MS,
                                          BUDGET_LEASES_NANOUSD, BUDGET_LEASES_TOOL_CALLS};
static const int leased_columns[FIELDS] = {BUDGETS_LEASED_TOKENS, BUDGETS_LEASED_TIME_MS,
                                           BUDGETS_LEASED_NANOUSD, BUDGETS_LEASED_TOOL_CALLS};

void law_share_batch(struct world *world, const struct node *node, const struct batch *batch)
{
    struct context ctx = {.arena = world->arena, .deadline_ns = DEADLINE_NONE};
    for (size_t i = 0; i < batch->count && !world->database; i++) {
        const struct record *row = &batch->writes[i].record;
        struct record now;
        struct error e = {0};
        if (row->table != TABLE_BUDGET_LEASES)
            continue;
        arena_mark mark = arena_save(world->arena);
        if (world->store->ops->get(world->store, &ctx, batch->tenant_id, row, &now, &e))
            for (int field = 0; field < FIELDS; field++)
                if (record_integer(&now, share_columns[field]) < 0)
                    world_violation(world,
                                    "%s wrote a share of " STR_FMT " in a " STR_FMT
                                    " account that is below zero: %s %lld",
                                    node->name, STR_ARG(record_text(&now, BUDGET_LEASES_NODE)),
                                    STR_ARG(record_text(&now, BUDGET_LEASES_LEVEL)),
                                    cost_field_name(field),
                                    (long long) record_integer(&now, share_columns[field]));
        arena_rewind(world->arena, mark);
    }
}

/* ---- at rest ---- */

static bool read_all(struct world *world, struct context *ctx, struct query *query,
                     struct records *out)
{
    struct error e = {0};
    if (store_list(world->store, ctx, world->tenant_id, query, out, &e))
        return true;
    world_violation(world, "the store cannot list shares: %s", e.message);
    return false;
}

static void check_account(struct world *world, struct context *ctx, const struct record *account)
{
    struct query query = query_of(TABLE_BUDGET_LEASES);
    int64_t sums[FIELDS] = {0};
    str level = record_text(account, BUDGETS_LEVEL),
        subject = record_text(account, BUDGETS_SUBJECT);
    query_where_text(&query, BUDGET_LEASES_LEVEL, level);
    query_where_text(&query, BUDGET_LEASES_SUBJECT, subject);
    for (;;) {
        struct records page;
        if (!read_all(world, ctx, &query, &page))
            return;
        for (size_t i = 0; i < page.count; i++)
            for (int field = 0; field < FIELDS; field++)
                sums[field] += record_integer(&page.items[i], share_columns[field]);
        if (str_is_empty(page.next_cursor))
            break;
        query.cursor = page.next_cursor;
    }
    for (int field = 0; field < FIELDS; field++)
        if (sums[field] != record_integer(account, leased_columns[field]))
            world_violation(
                world,
                STR_FMT " account " STR_FMT ": at rest its nodes have %lld %s, and %lld are leased",
                STR_ARG(level), STR_ARG(subject), (long long) sums[field], cost_field_name(field),
                (long long) record_integer(account, leased_columns[field]));
}

void law_share_rest(struct world *world, struct context *ctx)
{
    struct query query = query_of(TABLE_BUDGETS);
    while (world_is_shared(world)) {
        struct records page;
        if (!read_all(world, ctx, &query, &page))
            return;
        for (size_t i = 0; i < page.count; i++)
            check_account(world, ctx, &page.items[i]);
        if (str_is_empty(page.next_cursor))
            return;
        query.cursor = page.next_cursor;
    }
}
