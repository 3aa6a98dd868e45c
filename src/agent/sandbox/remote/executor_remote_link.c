#include "agent/sandbox/remote/executor_remote_internal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"

#include <stdlib.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000 };

/* ---- flights ---- */

static struct list *bucket(struct link *link, uint64_t id)
{
    return &link->flights[id % FLIGHT_BUCKETS];
}

void link_add_flight(struct link *link, struct remote_flight *flight)
{
    flight->id = ++link->next_id;
    condition_init(&flight->changed);
    list_push_back(bucket(link, flight->id), &flight->link);
    link->flight_count++;
}

void link_remove_flight(struct link *link, struct remote_flight *flight)
{
    list_remove(&flight->link);
    link->flight_count--;
    free(flight->host_call);
    free(flight->result);
}

static struct remote_flight *find_flight(struct link *link, uint64_t id)
{
    LIST_EACH(node, bucket(link, id))
    {
        struct remote_flight *flight = LIST_ITEM(node, struct remote_flight, link);
        if (flight->id == id)
            return flight;
    }
    return NULL;
}

static void wake(struct remote_flight *flight, bool has_ended)
{
    if (has_ended && flight->host_ctx)
        context_cancel(flight->host_ctx); /* nobody waits for its answer any more */
    condition_broadcast(&flight->changed);
}

/* ---- the end of a process ---- */

static void forget_tools(struct link *link)
{
    LIST_EACH(node, &link->tools)
    {
        struct link_tool *tool = LIST_ITEM(node, struct link_tool, link);
        list_remove(&tool->link);
        free(tool);
    }
    map_destroy(link->tool_index);
    link->tool_index = map_create();
}

static void link_down(struct link *link)
{
    if (!link->channel)
        return;
    packet_channel_close(GIVE(link->channel));
    forget_tools(link);
    for (size_t i = 0; i < FLIGHT_BUCKETS; i++)
        LIST_EACH(node, &link->flights[i])
        {
            struct remote_flight *flight = LIST_ITEM(node, struct remote_flight, link);
            flight->is_lost = true;
            wake(flight, true);
        }
}

void link_breach(struct link *link, const char *what)
{
    struct error e;
    error_set(&e, REASON_INTERNAL, "the sandbox process is killed: %s", what);
    LOG_ERROR("agent.process", S("the sandbox process broke a rule"), &e,
              LOG_I64("nexus.generation", link->generation));
    supervisor_kill(link->remote, link->generation);
    link_down(link);
}

/* ---- what comes ---- */

static char *keep(str body)
{
    char *copy = malloc(body.len + 1);
    ensure(copy != NULL);
    memcpy(copy, body.ptr, body.len);
    return copy;
}

static const char *take_host_call(struct remote_flight *flight, const struct packet *packet)
{
    if (flight->host_call || flight->runs_host_call || flight->result)
        return "a host call beside another, or after the result";
    if (++flight->host_call_count > SANDBOX_HOST_CALLS_MAX)
        return "too many host calls";
    flight->host_call = keep(packet->body);
    flight->host_call_bytes = packet->body.len;
    wake(flight, false);
    return NULL;
}

static const char *take_result(struct remote_flight *flight, const struct packet *packet)
{
    if (flight->result)
        return "two results of one call";
    flight->result = keep(packet->body);
    flight->result_bytes = packet->body.len;
    wake(flight, true);
    return NULL;
}

static void on_packet(void *owner, struct packet *packet)
{
    struct link *link = owner;
    struct remote_flight *flight = find_flight(link, packet->id);
    const char *breach = NULL;
    if (packet->descriptor >= 0) {
        close(packet->descriptor);
        breach = "it sent a descriptor";
    } else if (!flight) {
        breach = "it speaks of a call that does not live";
    } else if (packet->type == REMOTE_HOST_CALL) {
        breach = take_host_call(flight, packet);
    } else if (packet->type == REMOTE_RESULT) {
        breach = take_result(flight, packet);
    } else {
        breach = "a message that does not belong here";
    }
    if (breach)
        link_breach(link, breach);
}

static void on_end(void *owner, const struct error *why)
{
    struct link *link = owner;
    if (why->reason == REASON_INVALID) {
        link_breach(link, why->message);
        return;
    }
    supervisor_kill(link->remote, link->generation); /* it may not have heard of it yet */
    link_down(link);
}

bool link_send(struct link *link, enum remote_type type, uint64_t id, str body, int fd,
               struct error *e)
{
    struct packet packet = {.type = (uint16_t) type, .id = id, .body = body, .descriptor = fd};
    if (!link->channel)
        return error_set(e, REASON_UNAVAILABLE, "the sandbox process has gone");
    if (packet_channel_send(link->channel, &packet, e))
        return true;
    if (e->reason != REASON_OVERLOADED_HERE)
        on_end(link, e);
    return false;
}

/* ---- a link's life ---- */

static void on_loop_stop(struct at_stop *at_stop)
{
    struct link *link = CONTAINER_OF(at_stop, struct link, at_stop);
    link_down(link);
    link->remote->links[loop_index(link->loop)] = NULL;
    map_destroy(link->tool_index);
    free(link);
}

struct link *link_of_loop(struct remote *remote, struct loop *loop)
{
    struct link **slot = &remote->links[loop_index(loop)];
    if (*slot)
        return *slot;
    struct link *link = calloc(1, sizeof *link);
    ensure(link != NULL);
    link->remote = remote;
    link->loop = loop;
    link->tool_index = map_create();
    list_init(&link->tools);
    for (size_t i = 0; i < FLIGHT_BUCKETS; i++)
        list_init(&link->flights[i]);
    link->at_stop.run = on_loop_stop;
    loop_at_stop(loop, &link->at_stop);
    *slot = link;
    return link;
}

static bool connect_link(struct link *link, struct error *e)
{
    int fd;
    if (!supervisor_connect(link->remote, &fd, &link->generation, link->code_version))
        return error_set(e, REASON_UNAVAILABLE, "the sandbox process is being started again");
    struct packet_channel_options options = {.body_bytes_max = REMOTE_BODY_BYTES_MAX,
                                             .pending_bytes_max = REMOTE_PENDING_BYTES_MAX,
                                             .owner = link,
                                             .on_packet = on_packet,
                                             .on_end = on_end};
    return packet_channel_open(fd, &options, &link->channel, e);
}

bool link_ready(struct link *link, struct context *ctx, struct error *e)
{
    int64_t until_ns = context_now_ns(ctx) + (int64_t) REMOTE_WAIT_MS * NS_PER_MS;
    while (!link->channel && !connect_link(link, e)) {
        struct error stop;
        e->retry_after_ms = REMOTE_BACKOFF_MS_MAX;
        if (context_now_ns(ctx) >= until_ns)
            return false;
        /* A deadline that passes here says nothing of the tool: the process was not there. */
        if (!context_sleep_ms(ctx, REMOTE_POLL_MS, &stop))
            return stop.code == ERROR_TIMEOUT ? false : error_copy(e, &stop);
    }
    return true;
}

/* ---- tools ---- */

static str identity_key(const digest *identity)
{
    return str_of((const char *) identity->bytes, sizeof identity->bytes);
}

static struct link_tool *find_tool(struct link *link, const struct tool *tool)
{
    struct link_tool *known = map_find(link->tool_index, identity_key(&tool->identity));
    if (known && link->tools.next != &known->link) {
        list_remove(&known->link);
        list_push_front(&link->tools, &known->link);
    }
    return known;
}

/* The oldest that no call uses; with all in use the list grows by the calls there are. */
static void make_room(struct link *link)
{
    struct error gone;
    struct list *node = link->tools.previous;
    while (map_count(link->tool_index) >= REMOTE_TOOLS_MAX && node != &link->tools) {
        struct link_tool *tool = LIST_ITEM(node, struct link_tool, link);
        node = node->previous;
        if (tool->use_count > 0)
            continue;
        map_remove(link->tool_index, identity_key(&tool->identity));
        list_remove(&tool->link);
        (void) !link_send(link, REMOTE_DROP, tool->number, STR_NONE, -1, &gone);
        free(tool);
    }
}

static bool announce(struct link *link, const struct tool *tool, uint64_t number,
                     const struct remote_pieces *pieces, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf body;
    strbuf_init(&body, arena, REMOTE_BODY_BYTES_MAX);
    remote_write_tool(&body, tool);
    bool is_ok = link_send(link, REMOTE_TOOL, number, strbuf_str(&body), -1, e);
    for (size_t i = 0; is_ok && i < pieces->count; i++) {
        strbuf_truncate(&body, 0);
        remote_write_piece(&body, &(struct remote_piece){.index = (uint32_t) i});
        is_ok = link_send(link, REMOTE_MODULE, number, strbuf_str(&body), pieces->modules[i], e) &&
                (pieces->codes[i] < 0 ||
                 link_send(link, REMOTE_CODE, number, strbuf_str(&body), pieces->codes[i], e));
    }
    return is_ok;
}

struct opening {
    struct remote *remote;
    const struct tool *tool;
    char code_version[REMOTE_CODE_VERSION_BYTES_MAX + 1];
    struct remote_pieces pieces;
    bool is_busy, is_ok;
    struct error error;
};

static void open_now(void *argument)
{
    struct opening *opening = argument;
    opening->is_ok = remote_codes_open(opening->remote, opening->tool, opening->code_version,
                                       &opening->pieces, &opening->is_busy, &opening->error);
}

may_suspend static bool open_pieces(struct link *link, struct context *ctx, const struct tool *tool,
                                    struct opening *opening, struct error *e)
{
    *opening = (struct opening){.remote = link->remote, .tool = tool};
    memcpy(opening->code_version, link->code_version, sizeof opening->code_version);
    do {
        if (opening->is_busy && !context_sleep_ms(ctx, SANDBOX_LOAD_POLL_MS, e))
            return error_wrap(e,
                              "tool " STR_FMT
                              " waits for its compilation, once per version and machine; try again "
                              "in a minute",
                              STR_ARG(tool->name));
        if (!blocking_call(ctx, open_now, opening, e)) {
            remote_pieces_close(&opening->pieces);
            return false;
        }
        if (!opening->is_ok)
            return error_copy(e, &opening->error);
    } while (opening->is_busy);
    return true;
}

static struct link_tool *add_tool(struct link *link, const struct tool *tool,
                                  const struct remote_pieces *pieces, struct error *e)
{
    make_room(link);
    uint64_t number = ++link->next_tool;
    if (!announce(link, tool, number, pieces, e))
        return NULL;
    struct link_tool *known = calloc(1, sizeof *known);
    ensure(known != NULL);
    *known = (struct link_tool){.identity = tool->identity, .number = number};
    list_push_front(&link->tools, &known->link);
    map_put(link->tool_index, identity_key(&known->identity), known);
    return known;
}

struct link_tool *link_tool(struct link *link, struct context *ctx, const struct tool *tool,
                            bool *is_cold, bool *is_stale, struct error *e)
{
    struct link_tool *known = find_tool(link, tool);
    *is_stale = false;
    if (known)
        return known;
    uint64_t generation = link->generation;
    struct opening *opening = ARENA_NEW(ctx->arena, struct opening);
    *is_cold = true;
    if (!open_pieces(link, ctx, tool, opening, e))
        return NULL;
    *is_stale = !link->channel || link->generation != generation;
    known = *is_stale ? NULL : find_tool(link, tool); /* another call's was quicker */
    if (!known && !*is_stale)
        known = add_tool(link, tool, &opening->pieces, e);
    remote_pieces_close(&opening->pieces);
    return known;
}
