/* What was approved of the tools of MCP servers: rows of TABLE_MCP_TOOLS.  Servers are the operator's, so the tenant is none. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"

static str copy_text(struct arena *arena, const struct record *row, int column)
{
    return str_copy(arena, record_text(row, column));
}

static void read_row(struct arena *arena, const struct record *row, struct mcp_entry *out)
{
    *out = (struct mcp_entry){.tool = copy_text(arena, row, MCP_TOOLS_TOOL),
                              .nexus_name = copy_text(arena, row, MCP_TOOLS_NEXUS_NAME),
                              .approved = copy_text(arena, row, MCP_TOOLS_DEFINITION),
                              .approved_digest = copy_text(arena, row, MCP_TOOLS_DIGEST),
                              .approved_by = copy_text(arena, row, MCP_TOOLS_APPROVED_BY),
                              .first_seen_us = record_integer(row, MCP_TOOLS_FIRST_SEEN_AT),
                              .approved_us = record_integer(row, MCP_TOOLS_APPROVED_AT)};
}

may_suspend bool mcp_store_load(struct mcp_upstream *server, struct context *ctx,
                                struct mcp_entries **out, struct error *e)
{
    enum { ENTRIES_MAX = 2 * MCP_TOOLS_PER_SERVER_MAX };
    OWNED(mcp_entries) entries = mcp_entries_create(ENTRIES_MAX);
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_MCP_TOOLS);
    query_where_text(query, MCP_TOOLS_SERVER, server->config.name);
    do {
        struct records rows;
        if (!store_list(server->client->options.store, ctx, UUID_NONE, query, &rows, e))
            return error_wrap(e, "read the approved tools");
        for (size_t i = 0; i < rows.count && entries->count < ENTRIES_MAX; i++)
            read_row(entries->arena, &rows.items[i], &entries->items[entries->count++]);
        query->cursor = rows.next_cursor;
    } while (!str_is_empty(query->cursor) && entries->count < ENTRIES_MAX);
    *out = GIVE(entries);
    return true;
}

static void fill(struct record *row, str server, const struct mcp_entry *entry)
{
    record_set_text(row, MCP_TOOLS_SERVER, server);
    record_set_text(row, MCP_TOOLS_TOOL, entry->tool);
    record_set_text(row, MCP_TOOLS_NEXUS_NAME, entry->nexus_name);
    record_set_integer(row, MCP_TOOLS_FIRST_SEEN_AT, entry->first_seen_us);
    if (str_is_empty(entry->approved_digest)) {
        record_set_null(row, MCP_TOOLS_DIGEST);
        record_set_null(row, MCP_TOOLS_DEFINITION);
        record_set_null(row, MCP_TOOLS_APPROVED_BY);
        record_set_null(row, MCP_TOOLS_APPROVED_AT);
        return;
    }
    record_set_text(row, MCP_TOOLS_DIGEST, entry->approved_digest);
    record_set_text(row, MCP_TOOLS_DEFINITION, entry->approved);
    record_set_text(row, MCP_TOOLS_APPROVED_BY, entry->approved_by);
    record_set_integer(row, MCP_TOOLS_APPROVED_AT, entry->approved_us);
}

may_suspend bool mcp_store_save(struct mcp_upstream *server, struct context *ctx,
                                const struct mcp_entry *entries, size_t count, struct error *e)
{
    for (size_t done = 0; done < count;) {
        struct batch batch;
        batch_init(&batch, ctx->arena, UUID_NONE);
        for (size_t i = 0; i < STORE_BATCH_ROWS_MAX && done < count; i++)
            fill(batch_add(&batch, WRITE_UPSERT, TABLE_MCP_TOOLS), server->config.name,
                 &entries[done++]);
        if (!store_commit(server->client->options.store, ctx, &batch, e))
            return error_wrap(e, "store the tools of server " STR_FMT,
                              STR_ARG(server->config.name));
    }
    return true;
}

may_suspend bool mcp_store_forget(struct mcp_upstream *server, struct context *ctx, str tool,
                                  struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, UUID_NONE);
    struct record *row = batch_add(&batch, WRITE_DELETE, TABLE_MCP_TOOLS);
    record_set_text(row, MCP_TOOLS_SERVER, server->config.name);
    record_set_text(row, MCP_TOOLS_TOOL, tool);
    return store_commit(server->client->options.store, ctx, &batch, e);
}
