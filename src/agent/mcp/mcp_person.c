/* Users at servers: whose token a call carries, renewed in time by one at a time, and a session for each. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include <stdlib.h>

enum { NS_PER_MS = 1000000, US_PER_MS = 1000, LEAVE_MS = 1000, RENEW_MS = 10000 };
#define SESSION_ARENA_BYTES ((size_t) 64 << 20)

/* ---- works ---- */

bool mcp_work_begin(struct mcp_work *work, struct context *ctx, struct mcp_upstream *server,
                    struct error *e)
{
    if (context_is_cancelled(&server->ctx))
        return error_set(e, REASON_UNAVAILABLE, "MCP server " STR_FMT " is being closed",
                         STR_ARG(server->config.name));
    *work = (struct mcp_work){.server = server};
    context_init_child(&work->ctx, ctx, DEADLINE_NONE);
    list_push_back(&server->works, &work->link);
    return true;
}

void mcp_work_end(struct mcp_work *work)
{
    list_remove(&work->link);
    context_deinit(&work->ctx);
    condition_broadcast(&work->server->changed);
}

/* ---- what people and the audit log are told ---- */

bool mcp_login_needed(const struct mcp_upstream *server, const struct mcp_caller *caller,
                      const char *why, struct error *e)
{
    str name = server->config.name;
    return error_set(e, REASON_LOGIN_NEEDED,
                     "user " STR_FMT " %s MCP server " STR_FMT ": nexus mcp login " STR_FMT
                     " (POST /api/v1/mcp/servers/" STR_FMT "/login)",
                     STR_ARG(str_cut_utf8(caller->user_id, 100)), why, STR_ARG(name), STR_ARG(name),
                     STR_ARG(name));
}

may_suspend bool mcp_note(struct mcp_upstream *server, struct context *ctx,
                          const struct mcp_caller *caller, str action, str issuer, str why,
                          struct error *e)
{
    const struct mcp_client_options *options = &server->client->options;
    struct mcp_login_note note = {.tenant_id = caller->tenant_id,
                                  .user_id = caller->user_id,
                                  .server = server->config.name,
                                  .action = action,
                                  .issuer = issuer,
                                  .why = why};
    return !options->note || options->note(options->note_owner, ctx, &note, e);
}

/* ---- a person's life ---- */

struct mcp_person *mcp_person_find(struct mcp_upstream *server, const struct mcp_caller *caller)
{
    LIST_EACH(node, &server->persons)
    {
        struct mcp_person *person = LIST_ITEM(node, struct mcp_person, link);
        if (uuid_equal(person->caller.tenant_id, caller->tenant_id) &&
            str_equal(person->caller.user_id, caller->user_id))
            return person;
    }
    return NULL;
}

static struct mcp_person *person_create(struct mcp_upstream *server,
                                        const struct mcp_caller *caller)
{
    struct mcp_person *person = calloc(1, sizeof *person);
    ensure(person != NULL);
    person->server = server;
    person->arena = arena_create(0);
    person->caller =
        (struct mcp_caller){caller->tenant_id, str_copy(person->arena, caller->user_id)};
    condition_init(&person->changed);
    list_push_front(&server->persons, &person->link);
    server->person_count++;
    return person;
}

static void person_destroy(struct mcp_person *person)
{
    ensure(person->users == 0 && !person->personal);
    mcp_grant_destroy(person->grant);
    arena_destroy(person->arena);
    free(person);
}

static void end_personal(struct mcp_personal *personal)
{
    struct context late;
    struct mcp_upstream *server = personal->link.server;
    struct mcp_transport *transport = personal->link.transport;
    context_init(&late, server->ctx.scheduler, personal->arena, DEADLINE_NONE);
    late.deadline_ns = context_deadline_in(&late, LEAVE_MS);
    /* While everything ends, all users' sessions together have no longer than one. */
    if (server->leave_until_ns > 0 && server->leave_until_ns < late.deadline_ns)
        late.deadline_ns = server->leave_until_ns;
    if (context_now_ns(&late) < late.deadline_ns)
        transport->ops->leave(transport, &late);
    context_deinit(&late);
    transport->ops->destroy(transport);
    arena_destroy(personal->arena);
}

/* No new call goes into it; ends with the last one that is in it. */
static void retire_personal(struct mcp_person *person)
{
    struct mcp_personal *personal = person->personal;
    person->personal = NULL;
    if (!personal)
        return;
    personal->is_stale = true;
    if (personal->users == 0)
        end_personal(personal);
}

/* Takes one out of the list that nobody holds and that may go; NULL: there is none. */
static struct mcp_person *take_idle(struct mcp_upstream *server, int64_t not_after_ns, bool is_all)
{
    for (struct list *node = server->persons.previous; node != &server->persons;
         node = node->previous) {
        struct mcp_person *person = LIST_ITEM(node, struct mcp_person, link);
        if (person->users > 0 ||
            (!is_all && (person->used_ns > not_after_ns || person == server->lister)))
            continue;
        list_remove(&person->link);
        server->person_count--;
        if (server->lister == person)
            server->lister = NULL;
        return person;
    }
    return NULL;
}

static void end_person(struct mcp_person *person)
{
    retire_personal(person);
    person_destroy(person);
}

may_suspend_void void mcp_persons_sweep(struct mcp_upstream *server, bool is_all)
{
    int64_t now_ns = clock_monotonic_ns(server->client->options.clock);
    struct mcp_person *person;
    if (is_all)
        server->leave_until_ns = now_ns + (int64_t) LEAVE_MS * NS_PER_MS;
    while ((person = take_idle(server, now_ns - MCP_PERSON_IDLE_MS * NS_PER_MS, is_all)))
        end_person(person);
    ensure(!is_all || list_is_empty(&server->persons));
}

/* Found or made, and held, whether logged in or not. */
may_suspend static bool get_person(struct mcp_upstream *server, const struct mcp_caller *caller,
                                   struct mcp_person **out, struct error *e)
{
    struct mcp_person *person = mcp_person_find(server, caller);
    while (!person && server->person_count >= MCP_PERSONS_MAX) {
        struct mcp_person *oldest = take_idle(server, INT64_MAX, false);
        if (!oldest)
            return error_set(e, REASON_OVERLOADED_HERE, "%u users are at this server already",
                             MCP_PERSONS_MAX);
        end_person(oldest);
        person = mcp_person_find(server, caller); /* others ran meanwhile */
    }
    if (!person)
        person = person_create(server, caller);
    person->users++;
    person->used_ns = clock_monotonic_ns(server->client->options.clock);
    list_remove(&person->link);
    list_push_front(&server->persons, &person->link);
    *out = person;
    return true;
}

void mcp_person_let_go(struct mcp_person *person)
{
    ensure(person->users > 0);
    person->users--;
    person->used_ns = clock_monotonic_ns(person->server->client->options.clock);
}

bool mcp_person_lock(struct mcp_person *person, struct context *ctx, struct error *e)
{
    while (person->is_busy)
        if (!condition_wait(&person->changed, ctx, e))
            return false;
    person->is_busy = true;
    return true;
}

void mcp_person_unlock(struct mcp_person *person)
{
    person->is_busy = false;
    condition_broadcast(&person->changed);
}

/* ---- tokens ---- */

static struct mcp_person *another_lister(struct mcp_upstream *server)
{
    LIST_EACH(node, &server->persons)
    {
        struct mcp_person *person = LIST_ITEM(node, struct mcp_person, link);
        if (person->grant)
            return person;
    }
    return NULL;
}

/* Definitions are read as somebody who is logged in. */
static void choose_lister(struct mcp_upstream *server)
{
    if (server->lister && server->lister->grant)
        return;
    server->lister = another_lister(server);
    server->is_hurried = server->lister != NULL;
    mcp_upstream_wake(server);
}

void mcp_person_set(struct mcp_person *person, struct mcp_grant *give_grant)
{
    struct mcp_upstream *server = person->server;
    mcp_grant_destroy(person->grant);
    person->grant = give_grant;
    person->is_loaded = true;
    person->version++;
    /* The keeper's session goes with the login it stands on. */
    if (!give_grant && server->session && server->session->transport->person == person) {
        server->session->transport->is_session_lost = true;
        mcp_upstream_wake(server);
    }
    choose_lister(server);
}

may_suspend_void void mcp_person_end_session(struct mcp_person *person)
{
    retire_personal(person);
}

may_suspend bool mcp_person_get(struct mcp_upstream *server, const struct mcp_caller *caller,
                                struct mcp_person **out, struct error *e)
{
    return get_person(server, caller, out, e);
}

/* Locked. */
may_suspend bool mcp_person_load(struct mcp_person *person, struct context *ctx, struct error *e)
{
    struct mcp_grant *grant;
    if (person->is_loaded)
        return true;
    if (!mcp_grant_load(person->server, ctx, &person->caller, &grant, e))
        return false;
    mcp_person_set(person, grant);
    return true;
}

may_suspend bool mcp_person_hold(struct mcp_upstream *server, struct context *ctx,
                                 const struct mcp_caller *caller, struct mcp_person **out,
                                 struct error *e)
{
    struct mcp_person *person;
    if (str_is_empty(caller->user_id))
        return error_set(e, REASON_LOGIN_NEEDED,
                         "MCP server " STR_FMT " is used by users who have logged in, and this "
                         "call is nobody's",
                         STR_ARG(server->config.name));
    if (!get_person(server, caller, &person, e))
        return false;
    bool is_ok = mcp_person_lock(person, ctx, e);
    if (is_ok) {
        is_ok = mcp_person_load(person, ctx, e) &&
                (person->grant || mcp_login_needed(server, caller, "has not logged in to", e));
        mcp_person_unlock(person);
    }
    if (is_ok)
        *out = person;
    else
        mcp_person_let_go(person);
    return is_ok;
}

/* Does it end within MCP_TOKEN_EARLY_MS, or a fifth of its life? */
static bool ends_soon(const struct mcp_person *person)
{
    const struct mcp_grant *grant = person->grant;
    if (grant->expires_us == 0)
        return false;
    int64_t early_us = (grant->expires_us - grant->issued_us) / 5;
    if (early_us > (int64_t) MCP_TOKEN_EARLY_MS * US_PER_MS)
        early_us = (int64_t) MCP_TOKEN_EARLY_MS * US_PER_MS;
    return clock_unix_us(person->server->client->options.clock) >= grant->expires_us - early_us;
}

/* The login is over: nothing of it is kept. */
may_suspend static bool lose(struct mcp_person *person, struct context *ctx, const char *why,
                             struct error *e)
{
    struct error failure;
    struct mcp_upstream *server = person->server;
    LOG_WARN("nexus.mcp", S("a user's login at an MCP server has ended"),
             LOG_STR("nexus.mcp.server", server->config.name),
             LOG_STR("error.message", str_from_cstr(why)));
    if (!mcp_note(server, ctx, &person->caller, S("mcp.login.lost"), person->grant->issuer,
                  str_from_cstr(why), &failure) ||
        !mcp_grant_forget(server, ctx, &person->caller, &failure))
        return error_copy(e, &failure);
    mcp_person_set(person, NULL);
    retire_personal(person);
    return mcp_login_needed(server, &person->caller, "is logged in no more at", e);
}

/* Locked, in a context that nobody cancels: a rotated token that was not stored would be lost. */
may_suspend static bool renew(struct mcp_person *person, struct context *ctx, struct error *e)
{
    bool is_final;
    struct error why = {0};
    struct mcp_upstream *server = person->server;
    struct mcp_exchange exchange = {.from = person->grant};
    OWNED(mcp_grant) fresh = NULL;
    if (!person->grant->refresh)
        return lose(person, ctx, "the token has ended and cannot be renewed", e);
    if (!mcp_oauth_exchange(server, ctx, &exchange, &fresh, &is_final, &why)) {
        if (is_final)
            return lose(person, ctx, why.message, e);
        (void) !mcp_note(server, ctx, &person->caller, S("mcp.login.renew_failed"),
                         person->grant->issuer, str_from_cstr(why.message), e);
        error_copy(e, &why);
        return error_wrap(e, "renew the token of user " STR_FMT " for MCP server " STR_FMT,
                          STR_ARG(str_cut_utf8(person->caller.user_id, 100)),
                          STR_ARG(server->config.name));
    }
    /* The old one may be spent by now: the new one is used even when it could not be stored. */
    struct error unstored;
    if (!mcp_grant_save(server, ctx, &person->caller, fresh, &unstored))
        LOG_ERROR("nexus.mcp", S("a renewed login could not be stored; it ends with this process"),
                  &unstored, LOG_STR("nexus.mcp.server", server->config.name));
    mcp_person_set(person, GIVE(fresh));
    return true;
}

may_suspend bool mcp_person_fresh(struct mcp_person *person, struct context *ctx,
                                  int64_t refused_version, struct error *e)
{
    if (!mcp_person_lock(person, ctx, e))
        return false;
    bool is_ok = person->grant ||
                 mcp_login_needed(person->server, &person->caller, "has not logged in to", e);
    if (is_ok && (ends_soon(person) || person->version == refused_version)) {
        struct context patient;
        context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
        patient.deadline_ns = context_deadline_in(&patient, RENEW_MS);
        is_ok = renew(person, &patient, e);
        context_deinit(&patient);
    }
    mcp_person_unlock(person);
    return is_ok;
}

/* ---- sessions ---- */

may_suspend static bool open_personal(struct mcp_person *person, struct context *ctx,
                                      bool *is_refused, struct error *e)
{
    OWNED(arena) arena = arena_create(SESSION_ARENA_BYTES);
    struct mcp_personal *personal = ARENA_NEW(arena, struct mcp_personal);
    struct mcp_link *link = &personal->link;
    struct context limited;
    *personal = (struct mcp_personal){
        .arena = arena, .link = {.server = person->server, .arena = arena, .next_id = 1}};
    list_init(&link->calls);
    if (!mcp_http_open(person->server, &link->transport, e))
        return false;
    link->transport->person = person;
    context_init_child(&limited, ctx, context_deadline_in(ctx, MCP_CONTROL_MS));
    bool is_open = mcp_link_open(link, &limited, e);
    context_deinit(&limited);
    *is_refused = link->transport->is_refused;
    if (!is_open) {
        link->transport->ops->destroy(link->transport);
        return false;
    }
    (void) GIVE(arena); /* it is personal->arena */
    person->personal = personal;
    return true;
}

may_suspend bool mcp_person_session(struct mcp_person *person, struct context *ctx,
                                    struct mcp_personal **out, bool *is_refused, struct error *e)
{
    if (!mcp_person_lock(person, ctx, e))
        return false;
    bool is_ok = person->personal || open_personal(person, ctx, is_refused, e);
    if (is_ok) {
        *out = person->personal;
        (*out)->users++;
    }
    mcp_person_unlock(person);
    return is_ok || error_wrap(e, "MCP server " STR_FMT, STR_ARG(person->server->config.name));
}

may_suspend_void void mcp_person_leave(struct mcp_person *person, struct mcp_personal *personal)
{
    personal->users--;
    if (personal->link.transport->is_session_lost && person->personal == personal) {
        person->personal = NULL;
        personal->is_stale = true;
    }
    if (personal->is_stale && personal->users == 0)
        end_personal(personal);
}
