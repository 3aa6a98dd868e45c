/* The keeper of one server: connects, lists, listens, and begins again when it is lost. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include <stdlib.h>

enum { NS_PER_MS = 1000000, LEAVE_MS = 1000, SESSION_ARENA_BYTES = 256 << 20 };

void mcp_upstream_wake(struct mcp_upstream *server)
{
    condition_broadcast(&server->changed);
}

bool mcp_upstream_session(struct mcp_upstream *server, struct mcp_link **out, struct error *e)
{
    *out = server->session;
    if (server->state == MCP_UPSTREAM_READY && server->session)
        return true;
    if (server->state == MCP_UPSTREAM_CONNECTING ||
        str_is_empty(str_from_cstr(server->why.message)))
        return error_set(e, REASON_UNAVAILABLE, "MCP server " STR_FMT " is not connected yet",
                         STR_ARG(server->config.name));
    struct error why = server->why;
    int64_t left_ms =
        (server->retry_at_ns - clock_monotonic_ns(server->client->options.clock)) / NS_PER_MS;
    error_set(e, REASON_UNAVAILABLE, "MCP server " STR_FMT " is not there: %s",
              STR_ARG(server->config.name), why.message);
    if (e)
        e->retry_after_ms = left_ms > 0 ? left_ms : 0;
    return false;
}

/* ---- what a server says by itself ---- */

static str answer_of(struct arena *arena, const struct mcp_message *message)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 4096);
    json_writer_init(&w, &text);
    if (str_equal(message->method, S("ping"))) {
        mcp_begin_result(&w, message->id);
        json_object_begin(&w);
        json_object_end(&w);
        mcp_end(&w);
    } else {
        mcp_write_error(
            &w, message->id, MCP_METHOD_NOT_FOUND,
            str_printf(arena, "this client does not support " STR_FMT, STR_ARG(message->method)));
    }
    return strbuf_str(&text);
}

str mcp_upstream_heard(struct mcp_upstream *server, struct arena *arena,
                       const struct mcp_message *message)
{
    if (message->kind == MCP_REQUEST)
        return answer_of(arena, message);
    if (message->kind == MCP_NOTIFICATION &&
        str_equal(message->method, S("notifications/tools/list_changed"))) {
        server->is_list_stale = true;
        mcp_upstream_wake(server);
    }
    return STR_NONE; /* progress, logs and the rest: heard, and nothing to do */
}

/* ---- children of a session ---- */

struct listening {
    struct mcp_link *session;
    struct error why; /* when it ended in a failure: the connection is lost */
    bool is_lost;
};

static void listen_on_transport(struct context *ctx, void *argument)
{
    struct listening *listening = argument;
    struct mcp_transport *transport = listening->session->transport;
    listening->is_lost = !transport->ops->listen(transport, ctx, &listening->why);
    mcp_upstream_wake(listening->session->server);
}

/* Stateless servers tell of changes on a request that stays open. */
static void subscribe(struct context *ctx, void *argument)
{
    struct listening *listening = argument;
    struct mcp_link *session = listening->session;
    static const struct mcp_member members[] = {
        {S_INIT("notifications"), S_INIT("{\"toolsListChanged\":true}")}};
    static const struct mcp_question question = {
        .method = S_INIT("subscriptions/listen"), .members = members, .member_count = 1};
    for (int64_t wait_ms = MCP_BACKOFF_MS;; wait_ms *= 2) {
        struct error e;
        struct mcp_message answer;
        arena_mark mark = arena_save(ctx->arena);
        bool is_answered = mcp_link_ask(session, ctx, &question, &answer, &e);
        bool is_refused = is_answered && answer.kind == MCP_ERROR;
        arena_rewind(ctx->arena, mark);
        /* A server that does not know it is asked again when its list expires, and that is all. */
        if (is_refused || context_is_cancelled(ctx))
            break;
        if (wait_ms > MCP_BACKOFF_MS_MAX)
            wait_ms = MCP_BACKOFF_MS_MAX;
        if (!context_sleep_ms(ctx, wait_ms, &e))
            break;
    }
}

/* ---- a session's life ---- */

/* Anything in so long?  Else it is asked; silence then ends the session. */
may_suspend static bool check_alive(struct mcp_link *session, struct context *ctx, struct error *e)
{
    const struct json *ignored;
    bool is_stateless = session->transport->revision->era == MCP_ERA_STATELESS;
    struct mcp_question question = {.method = is_stateless ? S("server/discover") : S("ping")};
    if (mcp_link_need(session, ctx, &question, &ignored, e)) {
        session->server->heard_ns = context_now_ns(ctx);
        return true;
    }
    return error_wrap(e, "it was silent for %d s", MCP_PING_MS / 1000);
}

may_suspend static bool refresh(struct mcp_link *session, struct context *ctx,
                                int64_t *refresh_at_ns, struct error *e)
{
    struct mcp_upstream *server = session->server;
    int64_t ttl_ms = 0;
    server->is_list_stale = false;
    arena_mark mark = arena_save(ctx->arena);
    bool is_fresh = mcp_tools_refresh(session, ctx, &ttl_ms, e);
    arena_rewind(ctx->arena, mark);
    if (ttl_ms > 0 && ttl_ms < MCP_REFRESH_MS_MIN)
        ttl_ms = MCP_REFRESH_MS_MIN;
    if (ttl_ms <= 0 || ttl_ms > MCP_REFRESH_MS_MAX)
        ttl_ms = MCP_REFRESH_MS_MAX;
    *refresh_at_ns = context_now_ns(ctx) + ttl_ms * NS_PER_MS;
    return is_fresh;
}

static bool check_listening(const struct listening *listening, struct error *e)
{
    if (listening->session->transport->is_session_lost)
        return error_set(e, REASON_UNAVAILABLE, "the server has ended the session");
    return !listening->is_lost || error_copy(e, &listening->why);
}

may_suspend static bool serve(struct mcp_link *session, struct context *ctx,
                              struct listening *listening, struct error *e)
{
    struct mcp_upstream *server = session->server;
    int64_t refresh_at_ns, listed_ns;
    if (!refresh(session, ctx, &refresh_at_ns, e))
        return false;
    listed_ns = context_now_ns(ctx);
    server->session = session;
    server->state = MCP_UPSTREAM_READY;
    server->ready_ns = listed_ns;
    mcp_upstream_wake(server); /* users who wait for the definitions */
    LOG_INFO("nexus.mcp", S("connected to an MCP server"),
             LOG_STR("nexus.mcp.server", server->config.name),
             LOG_STR("nexus.mcp.revision", session->transport->revision->name),
             LOG_I64("nexus.mcp.tools", server->entries->count));
    for (;;) {
        struct error woken;
        mcp_persons_sweep(server, false);
        int64_t now_ns = context_now_ns(ctx);
        int64_t ping_at_ns = server->heard_ns + (int64_t) MCP_PING_MS * NS_PER_MS;
        int64_t list_at_ns = server->is_list_stale
                                 ? listed_ns + (int64_t) MCP_REFRESH_MS_MIN * NS_PER_MS
                                 : refresh_at_ns;
        if (!context_check(ctx, e) || !check_listening(listening, e))
            return false;
        if (now_ns >= list_at_ns) {
            if (!refresh(session, ctx, &refresh_at_ns, e))
                return false;
            listed_ns = context_now_ns(ctx);
        } else if (now_ns >= ping_at_ns) {
            if (!check_alive(session, ctx, e))
                return false;
        } else if (!condition_wait_until(&server->changed, ctx,
                                         list_at_ns < ping_at_ns ? list_at_ns : ping_at_ns,
                                         &woken) &&
                   woken.code == ERROR_CANCELLED) {
            return error_copy(e, &woken);
        }
    }
}

/* Calls in flight are told; waits until the last one has gone. */
static void end_calls(struct mcp_link *session)
{
    struct mcp_upstream *server = session->server;
    struct context patient;
    server->session = NULL;
    LIST_EACH(node, &session->calls)
    context_cancel(&LIST_ITEM(node, struct session_call, link)->ctx);
    context_init(&patient, server->ctx.scheduler, session->arena, DEADLINE_NONE);
    while (session->call_count > 0) {
        struct error never;
        if (!condition_wait(&server->changed, &patient, &never))
            unreachable_state(); /* nobody cancels it and it has no deadline */
    }
    context_deinit(&patient);
}

static void leave(struct mcp_link *session)
{
    struct context late;
    context_init(&late, session->server->ctx.scheduler, session->arena, DEADLINE_NONE);
    late.deadline_ns = context_deadline_in(&late, LEAVE_MS);
    session->transport->ops->leave(session->transport, &late);
    context_deinit(&late);
}

may_suspend static bool start_children(struct mcp_link *session, struct group *group,
                                       struct listening *listening, bool is_open, struct error *e)
{
    bool is_stdio = session->server->config.command.count > 0;
    if (is_stdio && !is_open)
        return group_start(group, "mcp_listen", listen_on_transport, listening, e);
    if (!is_open)
        return true;
    if (session->transport->revision->era == MCP_ERA_STATELESS)
        return !session->has_list_changed ||
               group_start(group, "mcp_subscribe", subscribe, listening, e);
    return is_stdio || group_start(group, "mcp_listen", listen_on_transport, listening, e);
}

may_suspend static bool connect_as(struct mcp_upstream *server, struct context *ctx,
                                   struct mcp_person *person, struct error *e)
{
    OWNED(arena) arena = arena_create(SESSION_ARENA_BYTES);
    struct mcp_link *session = ARENA_NEW(arena, struct mcp_link);
    struct listening *listening = ARENA_NEW(arena, struct listening);
    struct group *group = ARENA_NEW(arena, struct group);
    struct context own;
    *session = (struct mcp_link){.server = server, .arena = arena, .next_id = 1};
    *listening = (struct listening){.session = session};
    list_init(&session->calls);
    bool is_stdio = server->config.command.count > 0;
    if (!(is_stdio ? mcp_stdio_open(server, &session->transport, e)
                   : mcp_http_open(server, &session->transport, e)))
        return false;
    session->transport->person = person;
    context_init_child(&own, ctx, DEADLINE_NONE);
    own.arena = arena;
    group_init(group, &own);
    server->heard_ns = context_now_ns(ctx);
    struct context limited;
    context_init_child(&limited, &own, context_deadline_in(ctx, MCP_CONTROL_MS + MCP_PROBE_MS));
    bool is_open =
        start_children(session, group, listening, false, e) && mcp_link_open(session, &limited, e);
    context_deinit(&limited);
    bool is_ok = is_open && start_children(session, group, listening, true, e) &&
                 serve(session, &own, listening, e);
    end_calls(session);
    if (is_open)
        leave(session);
    group_cancel(group);
    group_wait(group);
    context_deinit(&own);
    if (session->transport->is_refused) {
        server->needs_login = true;
        server->refused_version = person ? person->version : 0;
        server->is_hurried = !person && server->lister;
    }
    session->transport->ops->destroy(session->transport);
    return is_ok;
}

/* With the operator's header fields; where the server wants a user, as one who is logged in. */
may_suspend static bool connect_and_serve(struct mcp_upstream *server, struct context *ctx,
                                          struct error *e)
{
    struct mcp_person *person = server->needs_login ? server->lister : NULL;
    if (server->needs_login && !person)
        return error_set(e, REASON_LOGIN_NEEDED,
                         "nobody has logged in to MCP server " STR_FMT
                         " since this node started: nexus mcp login " STR_FMT,
                         STR_ARG(server->config.name), STR_ARG(server->config.name));
    if (!person)
        return connect_as(server, ctx, NULL, e);
    int64_t refused_version = server->refused_version;
    server->refused_version = 0;
    person->users++;
    bool is_ok =
        mcp_person_fresh(person, ctx, refused_version, e) && connect_as(server, ctx, person, e);
    mcp_person_let_go(person);
    return is_ok;
}

/* ---- the keeper ---- */

static void set_lost(struct mcp_upstream *server, const struct error *why)
{
    bool is_news = server->state != MCP_UPSTREAM_LOST ||
                   strncmp(server->why.message, why->message, sizeof why->message) != 0;
    server->state = MCP_UPSTREAM_LOST;
    server->why = *why;
    mcp_upstream_wake(server);
    if (is_news)
        LOG_WARN("nexus.mcp", S("an MCP server is not there"),
                 LOG_STR("nexus.mcp.server", server->config.name),
                 LOG_STR("error.message", str_from_cstr(why->message)));
}

/* Full jitter above a half: servers that fell together do not come back together. */
static int64_t backoff_ms(struct mcp_upstream *server)
{
    int64_t ceiling_ms = MCP_BACKOFF_MS;
    int64_t now_ns = clock_monotonic_ns(server->client->options.clock);
    /* One that dies as soon as it is there is not started twice a second for ever. */
    if (server->ready_ns > 0 && now_ns - server->ready_ns > (int64_t) MCP_PING_MS * NS_PER_MS)
        server->attempts = 0;
    server->ready_ns = 0;
    for (int64_t i = 0; i < server->attempts && ceiling_ms < MCP_BACKOFF_MS_MAX; i++)
        ceiling_ms *= 2;
    if (ceiling_ms > MCP_BACKOFF_MS_MAX)
        ceiling_ms = MCP_BACKOFF_MS_MAX;
    server->attempts++;
    return ceiling_ms / 2 +
           (int64_t) random_below(server->client->options.random, (uint64_t) ceiling_ms / 2 + 1);
}

/* What was approved before is known from the start, whether the server is there or not. */
may_suspend static bool load_entries(struct mcp_upstream *server, struct context *ctx,
                                     struct error *e)
{
    struct mcp_entries *entries;
    if (server->entries)
        return true;
    if (!mcp_store_load(server, ctx, &entries, e))
        return false;
    server->entries = entries;
    return mcp_tools_publish(server, e);
}

/* Until it is time, or somebody has logged in whom the server may let in.  False: the server is ended. */
may_suspend static bool await_retry(struct mcp_upstream *server, struct context *ctx)
{
    struct error e = {0};
    int64_t earliest_ns = context_now_ns(ctx) + MCP_BACKOFF_MS * NS_PER_MS / 5;
    while (!server->is_hurried && context_now_ns(ctx) < server->retry_at_ns)
        if (!condition_wait_until(&server->changed, ctx, server->retry_at_ns, &e) &&
            e.code == ERROR_CANCELLED)
            return false;
    if (server->is_hurried && server->retry_at_ns > earliest_ns)
        server->retry_at_ns = earliest_ns;
    server->is_hurried = false;
    return context_sleep_until(ctx, server->retry_at_ns, &e);
}

static void keep(void *argument)
{
    struct mcp_upstream *server = argument;
    struct context *ctx = &server->ctx;
    while (!context_is_cancelled(ctx)) {
        struct error why = {0};
        bool is_loaded = load_entries(server, ctx, &why);
        if (is_loaded)
            (void) !connect_and_serve(server, ctx, &why);
        arena_reset(ctx->arena);
        if (context_is_cancelled(ctx))
            break;
        set_lost(server, &why);
        server->retry_at_ns = context_now_ns(ctx) + backoff_ms(server) * NS_PER_MS;
        if (!await_retry(server, ctx))
            break;
    }
    server->is_ended = true;
    mcp_upstream_wake(server);
}

bool mcp_upstream_start(struct mcp_upstream *server, struct error *e)
{
    struct scheduler *scheduler = loop_scheduler(server->client->options.loop);
    context_init(&server->ctx, scheduler, arena_create(SESSION_ARENA_BYTES), DEADLINE_NONE);
    condition_init(&server->changed);
    if (coroutine_start(scheduler, "mcp_keeper", keep, server, e))
        return true;
    server->is_ended = true;
    return false;
}

may_suspend bool mcp_upstream_stop(struct mcp_upstream *server, struct context *ctx,
                                   struct error *e)
{
    context_cancel(&server->ctx);
    LIST_EACH(node, &server->works)
    context_cancel(&LIST_ITEM(node, struct mcp_work, link)->ctx);
    while (!server->is_ended || !list_is_empty(&server->works))
        if (!condition_wait(&server->changed, ctx, e))
            return false;
    mcp_logins_forget_server(server->client, server);
    mcp_persons_sweep(server, true);
    return true;
}

void mcp_upstream_destroy(struct mcp_upstream *server)
{
    ensure(server->is_ended);
    arena_destroy(server->ctx.arena);
    context_deinit(&server->ctx);
    mcp_entries_destroy(server->entries);
    for (size_t i = 0; i < server->config.environment_count; i++)
        secret_destroy(server->config.environment[i].value);
    for (size_t i = 0; i < server->config.header_count; i++)
        secret_destroy(server->config.headers[i].value);
    secret_destroy(server->config.oauth.client_secret);
    arena_destroy(server->arena);
    free(server);
}
