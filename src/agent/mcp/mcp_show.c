/* What people see of MCP servers and decide about their tools. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/timefmt.h"

enum { SHOWN_BYTES_MAX = 64 << 20, NS_PER_MS = 1000000 };

static void put_optional(struct json_writer *w, str key, str value)
{
    json_key(w, key);
    if (str_is_empty(value))
        json_write_null(w);
    else
        json_write_str(w, value);
}

static void put_when(struct json_writer *w, struct arena *arena, str key, int64_t us)
{
    put_optional(w, key, us > 0 ? time_str(arena, us) : STR_NONE);
}

/* ---- servers ---- */

static size_t count_of(const struct mcp_entries *entries, enum mcp_tool_state state)
{
    size_t count = 0;
    for (size_t i = 0; entries && i < entries->count; i++)
        count += mcp_entry_state(entries, &entries->items[i]) == state;
    return count;
}

static void write_session(struct json_writer *w, const struct mcp_upstream *server)
{
    const struct mcp_link *session = server->session;
    bool is_there = session && session->transport->revision;
    put_optional(w, S("revision"), is_there ? session->transport->revision->name : STR_NONE);
    put_optional(w, S("server_name"), is_there ? session->peer_name : STR_NONE);
    put_optional(w, S("server_version"), is_there ? session->peer_version : STR_NONE);
}

static void write_server(struct json_writer *w, const struct mcp_upstream *server)
{
    static const char *const states[] = {[MCP_UPSTREAM_CONNECTING] = "connecting",
                                         [MCP_UPSTREAM_READY] = "ready",
                                         [MCP_UPSTREAM_LOST] = "unavailable"};
    const struct mcp_upstream_config *config = &server->config;
    const struct mcp_entries *entries = server->entries;
    bool is_lost = server->state == MCP_UPSTREAM_LOST ||
                   (server->state == MCP_UPSTREAM_READY && !server->session);
    json_put_str(w, S("name"), config->name);
    json_put_str(w, S("transport"), config->command.count > 0 ? S("stdio") : S("http"));
    put_optional(w, S("url"), config->url);
    put_optional(w, S("command"), config->command.count > 0 ? config->command.items[0] : STR_NONE);
    json_put_str(w, S("category"), str_is_empty(config->category) ? S("mcp") : config->category);
    json_put_str(w, S("approve"), config->is_first_use ? S("first_use") : S("manual"));
    json_put_bool(w, S("per_user"), config->oauth.is_per_user);
    json_put_str(w, S("state"), str_from_cstr(states[is_lost ? MCP_UPSTREAM_LOST : server->state]));
    put_optional(w, S("reason"), is_lost ? str_from_cstr(server->why.message) : STR_NONE);
    write_session(w, server);
    json_put_i64(
        w, S("offered"),
        (int64_t) (count_of(entries, MCP_TOOL_OFFERED) + count_of(entries, MCP_TOOL_UNKNOWN)));
    json_put_i64(w, S("quarantined"),
                 (int64_t) (count_of(entries, MCP_TOOL_NEW) + count_of(entries, MCP_TOOL_CHANGED)));
    json_put_i64(w, S("rejected"), (int64_t) server->rejected);
    put_optional(w, S("rejected_reason"),
                 server->rejected ? str_from_cstr(server->why_rejected.message) : STR_NONE);
}

may_suspend static bool list_there(struct mcp_client *client, struct context *ctx, void *argument,
                                   str *output, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    (void) argument, (void) e;
    strbuf_init(&text, ctx->arena, SHOWN_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, S("items"));
    json_array_begin(&w);
    LIST_EACH(node, &client->servers)
    {
        json_object_begin(&w);
        write_server(&w, LIST_ITEM(node, struct mcp_upstream, link));
        json_object_end(&w);
    }
    json_array_end(&w);
    json_put_raw(&w, S("next_cursor"), S("null"));
    json_object_end(&w);
    *output = strbuf_str(&text);
    return true;
}

may_suspend bool mcp_client_list(struct mcp_client *client, struct context *ctx, str *json,
                                 struct error *e)
{
    return mcp_hop(client, ctx, list_there, NULL, json, 1, e);
}

/* ---- tools ---- */

static void write_entry(struct json_writer *w, struct arena *arena,
                        const struct mcp_entries *entries, const struct mcp_entry *entry)
{
    json_put_str(w, S("tool"), entry->tool);
    json_put_str(w, S("name"), entry->nexus_name);
    json_put_str(w, S("state"),
                 str_from_cstr(mcp_tool_state_name(mcp_entry_state(entries, entry))));
    put_optional(w, S("approved_digest"), entry->approved_digest);
    put_optional(w, S("digest"), entry->current_digest);
    put_optional(w, S("approved_by"), entry->approved_by);
    put_when(w, arena, S("approved_at"), entry->approved_us);
    put_when(w, arena, S("first_seen_at"), entry->first_seen_us);
}

static const struct json *parse_definition(struct arena *arena, str text)
{
    struct error ignored;
    const struct json *root = NULL;
    struct json_limits limits = {.depth_max = MCP_DEPTH_MAX};
    if (str_is_empty(text) || !json_parse(arena, text, limits, &root, &ignored))
        return NULL;
    return root;
}

/* Everything but the name: what stays the same when a tool is renamed. */
static bool is_same_but_name(struct arena *arena, str a, str b)
{
    struct error ignored;
    struct mcp_tool x, y;
    if (!mcp_tool_read(parse_definition(arena, a), &x, &ignored) ||
        !mcp_tool_read(parse_definition(arena, b), &y, &ignored))
        return false;
    x.name = y.name = STR_NONE;
    return digest_equal(mcp_tool_digest(arena, &x), mcp_tool_digest(arena, &y));
}

static str find_old_name(struct arena *arena, const struct mcp_entries *entries,
                         const struct mcp_entry *entry)
{
    for (size_t i = 0; i < entries->count; i++) {
        const struct mcp_entry *other = &entries->items[i];
        arena_mark mark = arena_save(arena);
        bool is_it = other != entry && mcp_entry_state(entries, other) == MCP_TOOL_GONE &&
                     is_same_but_name(arena, other->approved, entry->current);
        arena_rewind(arena, mark);
        if (is_it)
            return other->tool;
    }
    return STR_NONE;
}

may_suspend static bool show_there(struct mcp_client *client, struct context *ctx, void *argument,
                                   str *output, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    struct mcp_upstream *server;
    const str *name = argument;
    if (!mcp_client_need(client, *name, &server, e))
        return false;
    strbuf_init(&text, ctx->arena, SHOWN_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_server(&w, server);
    json_key(&w, S("tools"));
    json_array_begin(&w);
    for (size_t i = 0; server->entries && i < server->entries->count; i++) {
        json_object_begin(&w);
        write_entry(&w, ctx->arena, server->entries, &server->entries->items[i]);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_object_end(&w);
    *output = strbuf_str(&text);
    return true;
}

may_suspend bool mcp_client_show(struct mcp_client *client, struct context *ctx, str server,
                                 str *json, struct error *e)
{
    return mcp_hop(client, ctx, show_there, &server, json, 1, e);
}

/* ---- one tool ---- */

may_suspend static bool find_there(struct mcp_client *client, str server_name, str tool,
                                   struct mcp_upstream **server, struct mcp_entry **entry,
                                   struct error *e)
{
    if (!mcp_client_need(client, server_name, server, e))
        return false;
    *entry = mcp_entries_find((*server)->entries, tool);
    if (*entry)
        return true;
    return error_set(e, REASON_NOT_FOUND,
                     "MCP server " STR_FMT " has no tool \"" STR_FMT
                     "\"; see nexus mcp show " STR_FMT,
                     STR_ARG(server_name), STR_ARG(str_cut_utf8(tool, MCP_TOOL_NAME_BYTES_MAX)),
                     STR_ARG(server_name));
}

static void write_changes(struct json_writer *w, struct arena *arena, const struct json *from,
                          const struct json *to)
{
    static const str members[] = {S_INIT("name"),         S_INIT("title"),
                                  S_INIT("description"),  S_INIT("inputSchema"),
                                  S_INIT("outputSchema"), S_INIT("annotations")};
    json_key(w, S("changes"));
    json_array_begin(w);
    for (size_t i = 0; from && to && i < ARRAY_COUNT(members); i++) {
        const struct json *before = json_get(from, members[i]), *after = json_get(to, members[i]);
        bool is_same = before && after
                           ? str_equal(json_print(arena, before), json_print(arena, after))
                           : before == after;
        if (is_same)
            continue;
        json_object_begin(w);
        json_put_str(w, S("member"), members[i]);
        json_put_value(w, S("from"), before);
        json_put_value(w, S("to"), after);
        json_object_end(w);
    }
    json_array_end(w);
}

struct pair {
    str server, tool;
};

may_suspend static bool diff_there(struct mcp_client *client, struct context *ctx, void *argument,
                                   str *output, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    struct mcp_upstream *server;
    struct mcp_entry *entry;
    const struct pair *pair = argument;
    if (!find_there(client, pair->server, pair->tool, &server, &entry, e))
        return false;
    const struct json *approved = parse_definition(ctx->arena, entry->approved);
    const struct json *current = parse_definition(ctx->arena, entry->current);
    bool is_new = mcp_entry_state(server->entries, entry) == MCP_TOOL_NEW;
    strbuf_init(&text, ctx->arena, SHOWN_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("server"), server->config.name);
    write_entry(&w, ctx->arena, server->entries, entry);
    json_put_value(&w, S("approved"), approved);
    json_put_value(&w, S("current"), current);
    write_changes(&w, ctx->arena, approved, current);
    put_optional(&w, S("renamed_from"),
                 is_new ? find_old_name(ctx->arena, server->entries, entry) : STR_NONE);
    json_object_end(&w);
    *output = strbuf_str(&text);
    return true;
}

may_suspend bool mcp_client_diff(struct mcp_client *client, struct context *ctx, str server,
                                 str tool, str *json, struct error *e)
{
    struct pair pair = {server, tool};
    return mcp_hop(client, ctx, diff_there, &pair, json, 1, e);
}

/* ---- decisions ---- */

/* Found anew after each wait: a refresh may have replaced the entries. */
static bool find_pending(struct mcp_client *client, const struct mcp_decision *decision,
                         struct mcp_upstream **server, struct mcp_entry **entry, struct error *e)
{
    if (!find_there(client, decision->server, decision->tool, server, entry, e))
        return false;
    if (str_is_empty((*entry)->current_digest))
        return error_set(e, REASON_CONFLICT,
                         "MCP server " STR_FMT " does not list tool " STR_FMT " at present",
                         STR_ARG(decision->server), STR_ARG((*entry)->tool));
    if (!str_equal((*entry)->current_digest, decision->digest))
        return error_set(e, REASON_STALE_DIGEST,
                         "the definition of tool " STR_FMT " is another one by now (digest " STR_FMT
                         "): look at it again",
                         STR_ARG((*entry)->tool), STR_ARG((*entry)->current_digest));
    return true;
}

may_suspend static bool approve_there(struct mcp_client *client, struct context *ctx,
                                      void *argument, str *output, struct error *e)
{
    struct mcp_upstream *server;
    struct mcp_entry *entry, approved;
    const struct mcp_decision *decision = argument;
    (void) output;
    if (!find_pending(client, decision, &server, &entry, e))
        return false;
    if (decision->before && !decision->before(decision->owner, ctx, e))
        return false;
    if (!find_pending(client, decision, &server, &entry, e))
        return false;
    approved = *entry;
    approved.tool = str_copy(ctx->arena, entry->tool); /* entries may be replaced meanwhile */
    approved.nexus_name = str_copy(ctx->arena, entry->nexus_name);
    approved.approved = str_copy(ctx->arena, entry->current);
    approved.approved_digest = str_copy(ctx->arena, entry->current_digest);
    approved.approved_by = decision->user_id;
    approved.approved_us = clock_unix_us(client->options.clock);
    if (!mcp_store_save(server, ctx, &approved, 1, e))
        return false;
    if (!find_there(client, decision->server, decision->tool, &server, &entry, e))
        return false;
    struct arena *arena = server->entries->arena;
    entry->approved = str_copy(arena, approved.approved);
    entry->approved_digest = str_copy(arena, approved.approved_digest);
    entry->approved_by = str_copy(arena, approved.approved_by);
    entry->approved_us = approved.approved_us;
    return mcp_tools_publish(server, e);
}

may_suspend bool mcp_client_approve(struct mcp_client *client, struct context *ctx,
                                    const struct mcp_decision *decision, struct error *e)
{
    struct mcp_decision mine = *decision;
    return mcp_hop(client, ctx, approve_there, &mine, NULL, 0, e);
}

static void drop_entry(struct mcp_entries *entries, struct mcp_entry *entry)
{
    size_t index = (size_t) (entry - entries->items);
    memmove(entry, entry + 1, (entries->count - index - 1) * sizeof *entry);
    entries->count--;
}

may_suspend static bool remove_there(struct mcp_client *client, struct context *ctx, void *argument,
                                     str *output, struct error *e)
{
    struct mcp_upstream *server;
    struct mcp_entry *entry, bare;
    const struct mcp_decision *decision = argument;
    (void) output;
    if (!find_there(client, decision->server, decision->tool, &server, &entry, e) ||
        (decision->before && !decision->before(decision->owner, ctx, e)) ||
        !find_there(client, decision->server, decision->tool, &server, &entry, e))
        return false;
    bool is_listed = !str_is_empty(entry->current_digest);
    str tool = str_copy(ctx->arena, entry->tool);
    bare = (struct mcp_entry){.tool = tool,
                              .nexus_name = str_copy(ctx->arena, entry->nexus_name),
                              .first_seen_us = entry->first_seen_us};
    if (!(is_listed ? mcp_store_save(server, ctx, &bare, 1, e)
                    : mcp_store_forget(server, ctx, tool, e)) ||
        !find_there(client, decision->server, tool, &server, &entry, e))
        return false;
    entry->approved = entry->approved_digest = entry->approved_by = STR_NONE;
    entry->approved_us = 0;
    if (!is_listed)
        drop_entry(server->entries, entry);
    return mcp_tools_publish(server, e);
}

may_suspend bool mcp_client_remove(struct mcp_client *client, struct context *ctx,
                                   const struct mcp_decision *decision, struct error *e)
{
    struct mcp_decision mine = *decision;
    return mcp_hop(client, ctx, remove_there, &mine, NULL, 0, e);
}
