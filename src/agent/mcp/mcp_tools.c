/* Definitions of a server's tools: listed, compared with what was approved, offered or kept apart. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "base/map.h"
#include <stdlib.h>

enum {
    NAME_SUFFIX_HEX = 6,
    VERSION_DIGEST_HEX = 12,
    ENTRIES_ARENA_BYTES = 256 << 20,
};

/* What a call gives back, whatever the server's own schema of the structured part is (that one is checked apart). */
static const char output_schema[] =
    "{\"type\":\"object\",\"properties\":{"
    "\"text\":{\"type\":\"string\",\"description\":\"what the tool says\"},"
    "\"structured\":{\"description\":\"its result as data\"},"
    "\"blocks\":{\"type\":\"array\",\"items\":{\"type\":\"object\"},"
    "\"description\":\"images, audio and resources\"}}}";

const char *mcp_tool_state_name(enum mcp_tool_state state)
{
    static const char *const names[] = {[MCP_TOOL_OFFERED] = "offered",
                                        [MCP_TOOL_NEW] = "new",
                                        [MCP_TOOL_CHANGED] = "changed",
                                        [MCP_TOOL_GONE] = "gone",
                                        [MCP_TOOL_UNKNOWN] = "unknown"};
    return names[state];
}

void mcp_entries_destroy(struct mcp_entries *entries)
{
    if (!entries)
        return;
    arena_destroy(entries->arena);
    free(entries);
}

static int by_tool_order(const void *a, const void *b)
{
    return str_compare(((const struct mcp_entry *) a)->tool, ((const struct mcp_entry *) b)->tool);
}

static struct mcp_entry *find_by_tool(const struct mcp_entries *entries, str tool)
{
    struct mcp_entry wanted = {.tool = tool};
    return entries && entries->count > 0
               ? bsearch(&wanted, entries->items, entries->count, sizeof wanted, by_tool_order)
               : NULL;
}

struct mcp_entry *mcp_entries_find(const struct mcp_entries *entries, str name)
{
    struct mcp_entry *found = find_by_tool(entries, name);
    for (size_t i = 0; !found && entries && i < entries->count; i++)
        if (str_equal(entries->items[i].nexus_name, name))
            found = &entries->items[i];
    return found;
}

enum mcp_tool_state mcp_entry_state(const struct mcp_entries *entries,
                                    const struct mcp_entry *entry)
{
    if (str_is_empty(entry->approved_digest))
        return MCP_TOOL_NEW;
    if (!entries->is_listed)
        return MCP_TOOL_UNKNOWN;
    if (str_is_empty(entry->current_digest))
        return MCP_TOOL_GONE;
    return str_equal(entry->approved_digest, entry->current_digest) ? MCP_TOOL_OFFERED
                                                                    : MCP_TOOL_CHANGED;
}

/* ---- names ---- */

str mcp_nexus_name(struct arena *arena, str server, str tool, bool is_taken)
{
    char text[TOOL_NAME_BYTES_MAX];
    size_t room = sizeof text - server.len - 2;
    bool has_suffix = is_taken || tool.len > room;
    size_t kept =
        has_suffix && tool.len > room - NAME_SUFFIX_HEX - 1 ? room - NAME_SUFFIX_HEX - 1 : tool.len;
    for (size_t i = 0; i < kept; i++) {
        char c = tool.ptr[i];
        bool is_fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-';
        text[i] = is_fine ? c : '_';
    }
    str name = str_printf(arena, STR_FMT "__" STR_FMT, STR_ARG(server), (int) kept, text);
    if (!has_suffix)
        return name;
    str hex = digest_hex(arena, digest_sha256(tool));
    return str_printf(arena, STR_FMT "_" STR_FMT, STR_ARG(name), NAME_SUFFIX_HEX, hex.ptr);
}

/* ---- the list ---- */

static bool matches(str pattern, str name)
{
    size_t p = 0, n = 0, star = STR_NOT_FOUND, from = 0;
    while (n < name.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            from = n;
        } else if (p < pattern.len && pattern.ptr[p] == name.ptr[n]) {
            p++;
            n++;
        } else if (star != STR_NOT_FOUND) {
            p = star + 1;
            n = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

static bool is_in(const struct str_list *patterns, str name)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (matches(patterns->items[i], name))
            return true;
    return false;
}

struct listing {
    struct mcp_upstream *server;
    struct mcp_entries *fresh;
    struct mcp_link *session;
    struct map *by_tool, *by_name; /* of mcp_entry */
    size_t capacity, bytes;
    bool is_http;
};

static void reject(struct listing *listing, const struct error *why)
{
    struct mcp_upstream *server = listing->server;
    if (server->rejected++ == 0)
        server->why_rejected = *why;
}

static struct mcp_entry *add_entry(struct listing *listing, str tool)
{
    struct mcp_entries *fresh = listing->fresh;
    struct mcp_client_options *options = &listing->server->client->options;
    str server = listing->server->config.name;
    ensure(fresh->count < listing->capacity);
    struct mcp_entry entry = {.tool = str_copy(fresh->arena, tool),
                              .first_seen_us = clock_unix_us(options->clock)};
    entry.nexus_name = mcp_nexus_name(fresh->arena, server, tool, false);
    if (map_find(listing->by_name, entry.nexus_name))
        entry.nexus_name = mcp_nexus_name(fresh->arena, server, tool, true);
    struct mcp_entry *place = &fresh->items[fresh->count++];
    *place = entry;
    map_put(listing->by_tool, place->tool, place);
    map_put(listing->by_name, place->nexus_name, place);
    return place;
}

static bool check_definition(const struct listing *listing, struct arena *arena,
                             const struct mcp_tool *tool, str canonical, struct error *e)
{
    struct mcp_param *params;
    size_t count;
    if (canonical.len > TOOL_SCHEMA_BYTES_MAX)
        return error_set(e, REASON_LIMIT, "tool " STR_FMT ": its definition is over %u KiB",
                         STR_ARG(tool->name), TOOL_SCHEMA_BYTES_MAX >> 10);
    if (!listing->is_http || mcp_params_read(arena, tool->input_schema, &params, &count, e))
        return true;
    return error_wrap(e, "tool " STR_FMT, STR_ARG(tool->name));
}

/* One that is no good is left out and counted; the others stay. */
static never_inline bool take_definition(struct listing *listing, struct arena *arena,
                                         const struct json *value, struct error *e)
{
    struct error why;
    struct mcp_tool tool;
    if (!mcp_tool_read(value, &tool, &why)) {
        reject(listing, &why);
        return true;
    }
    const struct str_list *patterns = &listing->server->config.tools;
    if (patterns->count > 0 && !is_in(patterns, tool.name))
        return true;
    str canonical = mcp_tool_canonical(arena, &tool);
    if (!check_definition(listing, arena, &tool, canonical, &why)) {
        reject(listing, &why);
        return true;
    }
    struct mcp_entry *entry = map_find(listing->by_tool, tool.name);
    if (entry && !str_is_empty(entry->current)) {
        error_set(&why, REASON_INVALID, "tool " STR_FMT " is listed twice", STR_ARG(tool.name));
        reject(listing, &why);
        return true;
    }
    if (!entry && listing->fresh->count == listing->capacity)
        return error_set(e, REASON_LIMIT, "the server has more than %u tools",
                         MCP_TOOLS_PER_SERVER_MAX);
    if (!entry)
        entry = add_entry(listing, tool.name);
    entry->current = str_copy(listing->fresh->arena, canonical);
    entry->current_digest = digest_hex(listing->fresh->arena, digest_sha256(canonical));
    listing->bytes += canonical.len;
    if (listing->bytes > MCP_LIST_BYTES_MAX)
        return error_set(e, REASON_LIMIT, "the server's definitions are over %u MiB together",
                         MCP_LIST_BYTES_MAX >> 20);
    return true;
}

may_suspend static bool list_page(struct listing *listing, struct context *ctx, str *cursor,
                                  int64_t *ttl_ms, struct error *e)
{
    const struct json *result, *item;
    struct mcp_member members[1] = {{S("cursor"), STR_NONE}};
    struct mcp_question question = {.method = S("tools/list"), .members = members};
    if (!str_is_empty(*cursor)) {
        struct strbuf text;
        struct json_writer w;
        strbuf_init(&text, ctx->arena, 8 * MCP_CURSOR_BYTES_MAX);
        json_writer_init(&w, &text);
        json_write_str(&w, *cursor);
        members[0].json = strbuf_str(&text);
        question.member_count = 1;
    }
    if (!mcp_link_need(listing->session, ctx, &question, &result, e))
        return false;
    const struct json *tools = json_get(result, S("tools"));
    if (json_type(tools) != JSON_ARRAY)
        return error_set(e, REASON_UNAVAILABLE, "tools/list: the answer has no list of tools");
    struct json_iter it = json_iter(tools);
    while (json_next(&it, NULL, &item))
        if (!take_definition(listing, ctx->arena, item, e))
            return false;
    *cursor = json_str_or(result, S("nextCursor"), STR_NONE);
    *ttl_ms = json_i64_or(result, S("ttlMs"), 0);
    if (cursor->len > MCP_CURSOR_BYTES_MAX)
        return error_set(e, REASON_LIMIT, "tools/list: a cursor is over %u bytes",
                         MCP_CURSOR_BYTES_MAX);
    return true;
}

may_suspend static bool list_all(struct listing *listing, struct context *ctx, int64_t *ttl_ms,
                                 struct error *e)
{
    char *kept = arena_alloc_raw(ctx->arena, MCP_CURSOR_BYTES_MAX);
    str cursor = STR_NONE;
    for (unsigned page = 0; page < MCP_LIST_PAGES_MAX; page++) {
        arena_mark mark = arena_save(ctx->arena);
        str previous = cursor;
        if (!list_page(listing, ctx, &cursor, ttl_ms, e))
            return false;
        if (str_is_empty(cursor))
            return true;
        if (str_equal(previous, cursor))
            return error_set(e, REASON_UNAVAILABLE, "tools/list: a cursor repeats");
        memcpy(kept, cursor.ptr, cursor.len); /* the page it came with is forgotten */
        cursor = str_of(kept, cursor.len);
        arena_rewind(ctx->arena, mark);
    }
    return error_set(e, REASON_LIMIT, "tools/list: more than %u pages", MCP_LIST_PAGES_MAX);
}

/* ---- comparing ---- */

static void copy_entry(struct arena *arena, struct mcp_entry *to, const struct mcp_entry *from)
{
    *to = (struct mcp_entry){.tool = str_copy(arena, from->tool),
                             .nexus_name = str_copy(arena, from->nexus_name),
                             .approved = str_copy(arena, from->approved),
                             .approved_digest = str_copy(arena, from->approved_digest),
                             .approved_by = str_copy(arena, from->approved_by),
                             .first_seen_us = from->first_seen_us,
                             .approved_us = from->approved_us};
}

struct mcp_entries *mcp_entries_create(size_t capacity)
{
    struct mcp_entries *entries = calloc(1, sizeof *entries);
    ensure(entries != NULL);
    entries->arena = arena_create(ENTRIES_ARENA_BYTES);
    entries->items = ARENA_ARRAY(entries->arena, struct mcp_entry, capacity);
    return entries;
}

/* The first definition of a tool at a server whose first word is trusted.  One that was ever seen before is a person's to decide. */
static void trust_first(struct mcp_upstream *server, struct mcp_entry *entry)
{
    if (!server->config.is_first_use || find_by_tool(server->entries, entry->tool) ||
        str_is_empty(entry->current_digest))
        return;
    entry->approved = entry->current;
    entry->approved_digest = entry->current_digest;
    entry->approved_by = S("first_use");
    entry->approved_us = clock_unix_us(server->client->options.clock);
}

static never_inline void tell_of_quarantine(const struct mcp_upstream *server,
                                            const struct mcp_entries *old,
                                            const struct mcp_entries *fresh)
{
    size_t kept_apart = 0;
    str first = STR_NONE;
    for (size_t i = 0; i < fresh->count; i++) {
        const struct mcp_entry *entry = &fresh->items[i], *before;
        enum mcp_tool_state state = mcp_entry_state(fresh, entry);
        if (state != MCP_TOOL_NEW && state != MCP_TOOL_CHANGED)
            continue;
        before = find_by_tool(old, entry->tool);
        if (before && str_equal(before->current_digest, entry->current_digest))
            continue; /* told already */
        if (kept_apart++ == 0)
            first = entry->tool;
    }
    if (kept_apart > 0)
        LOG_WARN("nexus.mcp", S("definitions of tools wait for approval (nexus mcp show)"),
                 LOG_STR("nexus.mcp.server", server->config.name),
                 LOG_I64("nexus.mcp.tools", kept_apart), LOG_STR("nexus.mcp.first", first));
}

static never_inline void tell_of_rejected(const struct mcp_upstream *server)
{
    if (server->rejected > 0)
        LOG_WARN("nexus.mcp", S("definitions of tools were left out"),
                 LOG_STR("nexus.mcp.server", server->config.name),
                 LOG_I64("nexus.mcp.tools", server->rejected),
                 LOG_STR("error.message", str_from_cstr(server->why_rejected.message)));
}

may_suspend static bool store_new(struct mcp_upstream *server, struct context *ctx,
                                  const struct mcp_entries *fresh, struct error *e)
{
    const struct mcp_entries *old = server->entries;
    struct mcp_entry *news = ARENA_ARRAY(ctx->arena, struct mcp_entry, fresh->count + 1);
    size_t count = 0;
    for (size_t i = 0; i < fresh->count; i++) {
        const struct mcp_entry *before = find_by_tool(old, fresh->items[i].tool);
        if (!before || !str_equal(before->approved_digest, fresh->items[i].approved_digest))
            news[count++] = fresh->items[i];
    }
    return mcp_store_save(server, ctx, news, count, e);
}

may_suspend bool mcp_tools_refresh(struct mcp_link *session, struct context *ctx, int64_t *ttl_ms,
                                   struct error *e)
{
    struct mcp_upstream *server = session->server;
    const struct mcp_entries *old = server->entries;
    size_t capacity = MCP_TOOLS_PER_SERVER_MAX + old->count;
    OWNED(mcp_entries) fresh = mcp_entries_create(capacity);
    OWNED(map) by_tool = map_create();
    OWNED(map) by_name = map_create();
    struct listing listing = {.server = server,
                              .session = session,
                              .fresh = fresh,
                              .by_tool = by_tool,
                              .by_name = by_name,
                              .capacity = capacity,
                              .is_http = server->config.command.count == 0};
    for (size_t i = 0; i < old->count; i++) {
        copy_entry(fresh->arena, &fresh->items[i], &old->items[i]);
        map_put(by_tool, fresh->items[i].tool, &fresh->items[i]);
        map_put(by_name, fresh->items[i].nexus_name, &fresh->items[i]);
        fresh->count++;
    }
    server->rejected = 0;
    if (session->has_tools && !list_all(&listing, ctx, ttl_ms, e))
        return false;
    fresh->is_listed = true;
    for (size_t i = 0; i < fresh->count; i++)
        trust_first(server, &fresh->items[i]);
    qsort(fresh->items, fresh->count, sizeof *fresh->items, by_tool_order);
    if (!store_new(server, ctx, fresh, e))
        return false;
    tell_of_quarantine(server, old, fresh);
    tell_of_rejected(server);
    mcp_entries_destroy(server->entries);
    server->entries = GIVE(fresh);
    return mcp_tools_publish(server, e);
}

/* ---- offering ---- */

static struct str_list one_host(struct arena *arena, str url)
{
    struct error ignored;
    struct http_url parsed;
    struct str_list list = {.items = ARENA_NEW(arena, str)};
    if (!str_is_empty(url) && http_url_parse(url, &parsed, &ignored))
        list.items[list.count++] = parsed.host;
    return list;
}

static never_inline bool make_tool(const struct mcp_upstream *server, struct arena *arena,
                                   const struct mcp_entry *entry, struct tool *out, struct error *e)
{
    const struct json *root;
    struct mcp_tool definition;
    const struct mcp_upstream_config *config = &server->config;
    struct json_limits limits = {.depth_max = MCP_DEPTH_MAX};
    if (!json_parse(arena, entry->approved, limits, &root, e) ||
        !mcp_tool_read(root, &definition, e))
        return false;
    int64_t timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : MCP_CALL_MS;
    *out = (struct tool){
        .name = entry->nexus_name,
        .version =
            str_printf(arena, "1.0.0+" STR_FMT, VERSION_DIGEST_HEX, entry->approved_digest.ptr),
        .category = str_is_empty(config->category) ? S("mcp") : config->category,
        .description = str_cut_utf8(str_is_empty(definition.description) ? definition.title
                                                                         : definition.description,
                                    TOOL_DESCRIPTION_BYTES_MAX),
        .author = config->name,
        .abi = TOOL_ABI_MCP,
        .is_pure = is_in(&config->pure, entry->tool),
        .is_idempotent =
            is_in(&config->idempotent, entry->tool) || is_in(&config->pure, entry->tool),
        .limits = {.time_ms = timeout_ms, .output_bytes = MCP_OUTPUT_BYTES_MAX},
        .input_schema = json_canonical(arena, definition.input_schema),
        .output_schema = str_from_cstr(output_schema),
        .source = TOOL_FROM_MCP,
        .source_name = config->name,
        .is_sink = true, /* what it is given leaves the platform */
    };
    out->permissions.network.is_set = !str_is_empty(config->url);
    out->permissions.network.allowed_hosts = one_host(arena, config->url);
    out->permissions.network.timeout_ms = timeout_ms;
    bool is_hex = digest_parse_hex(entry->approved_digest, &out->module_digest);
    ensure(is_hex); /* ours */
    out->identity = tool_identity(out);
    return true;
}

bool mcp_tools_publish(struct mcp_upstream *server, struct error *e)
{
    const struct mcp_entries *entries = server->entries;
    OWNED(arena) arena = arena_create(ENTRIES_ARENA_BYTES);
    struct tool *tools = ARENA_ARRAY(arena, struct tool, entries->count + 1);
    size_t count = 0;
    for (size_t i = 0; i < entries->count; i++) {
        enum mcp_tool_state state = mcp_entry_state(entries, &entries->items[i]);
        struct error why;
        if (state != MCP_TOOL_OFFERED && state != MCP_TOOL_UNKNOWN)
            continue;
        if (make_tool(server, arena, &entries->items[i], &tools[count], &why))
            count++;
        else
            LOG_ERROR("nexus.mcp", S("an approved definition cannot be read"), &why,
                      LOG_STR("nexus.mcp.server", server->config.name),
                      LOG_STR("nexus.mcp.tool", entries->items[i].tool));
    }
    return registry_set_source(server->client->options.registry, server->config.name, tools, count,
                               e);
}
