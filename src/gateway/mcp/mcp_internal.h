/*
 * The MCP server's inside: what the mcp_*.c files of this folder share.
 *
 * struct mcp_call is one POST (or the GET that resumes one) on its way; it lives on the request's arena.  A method either replies and
 * returns true, or returns false with e, and mcp_server.c writes the JSON-RPC error: `error_code` when the method has set one, else what
 * the reason stands for.
 */
#ifndef NEXUS_GATEWAY_MCP_INTERNAL_H
#define NEXUS_GATEWAY_MCP_INTERNAL_H

#include "gateway/gateway_internal.h"
#include "gateway/mcp/mcp_calls.h"
#include "gateway/mcp/mcp_envelope.h"
#include "gateway/mcp/mcp_server.h"
#include "gateway/mcp/mcp_sessions.h"
#include "gateway/mcp/mcp_state.h"

struct mcp_server {
    struct gateway *gateway;
    struct mcp_server_options options;
    struct mcp_sessions *sessions;
    struct mcp_calls *calls;
    struct mcp_lists *lists;
};

struct mcp_call {
    struct mcp_server *server;
    struct api_call *call;
    struct context *ctx; /* of the work: the request's, cancelled by its client too */
    struct mcp_envelope in;
    const struct mcp_revision *revision;
    str session;                   /* empty in the stateless era */
    struct mcp_ticket *ticket;     /* NULL: cannot be cancelled by name */
    struct mcp_event_id resumes;   /* GET with Last-Event-ID of a run */
    bool wants_json, wants_events; /* what its client takes */
    int64_t error_code;
    int error_status; /* 0: what the reason stands for */
    str error_data;
};

static inline bool mcp_is_stateless(const struct mcp_call *m)
{
    return m->in.era == MCP_ERA_STATELESS;
}
static inline struct arena *mcp_arena(const struct mcp_call *m)
{
    return m->call->ctx->arena;
}

/* ---- mcp_server.c ---- */
/* {"jsonrpc", "id", "result": {resultType and _meta of the stateless era: the caller puts members and calls _end. */
struct json_writer *mcp_result_begin(struct mcp_call *m, struct reply_writer *writer);
struct json_writer *mcp_result_begin_as(struct mcp_call *m, struct reply_writer *writer,
                                        str result_type);
/* Ends the result and sends it: as the reply, or as the last event of the stream that has begun. */
bool mcp_result_end(struct mcp_call *m, struct reply_writer *writer, struct error *e);
/* The text alone, for who sends it in their own way. */
must_check bool mcp_result_text(struct reply_writer *writer, str *text, struct error *e);
/* ttlMs and cacheScope, where the revision has them. */
void mcp_put_cache(struct mcp_call *m, struct json_writer *w, int64_t ttl_ms);
/* https://host of this server as its clients reach it. */
str mcp_base_url(struct api_call *call);
/* With a JSON-RPC code of the method's own choice.  Returns false. */
bool mcp_fail(struct mcp_call *m, int64_t code, struct error *e);
struct mcp_server *mcp_server_of(struct api_call *call);

/* ---- mcp_stream.c ---- */
must_check bool mcp_stream_begin(struct mcp_call *m, struct error *e);
/* One event; id may be empty. */
may_suspend bool mcp_stream_send(struct mcp_call *m, str id, str json, struct error *e);
may_suspend bool mcp_stream_ping(struct mcp_call *m, struct error *e);
may_suspend bool mcp_listen(struct mcp_call *m, struct error *e); /* subscriptions/listen */
/* The session's own stream, from Last-Event-ID on (NULL: from now). */
may_suspend bool mcp_session_stream(struct mcp_call *m, const struct mcp_event_id *after,
                                    struct error *e);

/* ---- mcp_lists.c: what the list of tools was made from, and when that changed ---- */
struct mcp_lists;
struct mcp_lists *mcp_lists_create(struct gateway *gateway);
void mcp_lists_destroy(struct mcp_lists *lists);
/* Rises with every change of tools, agents or policy. */
may_suspend int64_t mcp_lists_generation(struct mcp_lists *lists, struct context *ctx);

/* ---- methods ---- */
typedef bool mcp_method(struct mcp_call *m, struct error *e);
mcp_method mcp_tools_list, mcp_tools_call; /* mcp_tools.c */
/* A result with isError, which a model can act on: the problem's name and what is wrong. */
bool mcp_reply_refused(struct mcp_call *m, const struct error *failure, struct error *e);
mcp_method mcp_resources_list, mcp_resources_templates, mcp_resources_read; /* mcp_resources.c */

/* ---- mcp_agents.c ---- */
#define MCP_AGENT_PREFIX S("agent_")
may_suspend bool mcp_agent_call(struct mcp_call *m, str agent, const struct json *arguments,
                                struct error *e);
/* Goes on telling a run whose stream was cut: m->resumes. */
mcp_method mcp_agent_resume;
void mcp_agent_write(struct json_writer *w, struct arena *arena, str name, str description);
/* The answer a run gave, empty when there is none yet. */
may_suspend bool mcp_run_answer(struct mcp_call *m, uuid run_id, str *answer, struct error *e);

#endif
