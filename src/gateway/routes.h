/*
 * Routes: one table (routes.def) of every path, its method, who may call it and what goes in and out.
 *
 * The dispatcher, the role check, Allow of a 405, the OpenAPI document and the tests read the same table.  Pure, no I/O.
 */
#ifndef NEXUS_GATEWAY_ROUTES_H
#define NEXUS_GATEWAY_ROUTES_H

#include "net/http.h"
#include "orchestrator/policy/principal.h"

struct api_call;
/* Replies and returns true, or returns false with an error and nothing sent. */
typedef bool route_handler(struct api_call *call, struct error *e);

enum route_dialect { ROUTE_NATIVE, ROUTE_OPENAI, ROUTE_ANTHROPIC, ROUTE_MCP };
enum route_body { BODY_NONE, BODY_JSON, BODY_CHAT, BODY_RPC, BODY_RAW };
enum route_flag {
    ROUTE_PUBLIC = 1,     /* no authentication */
    ROUTE_CREATES = 2,    /* honours Idempotency-Key */
    ROUTE_PAGED = 4,      /* ?limit= and ?cursor= */
    ROUTE_EVENTS = 8,     /* may answer with an event stream */
    ROUTE_UNLIMITED = 16, /* not counted against the user's rate: health, page */
    ROUTE_WORK = 32, /* costs something to serve: refused by priority when the node is overloaded */
    ROUTE_MAY_WORK = 64, /* only some of its requests do: whoever serves those refuses */
};
enum { ROUTE_PARAMS_MAX = 2 };

struct api_route {
    enum http_method method;
    str path; /* "/api/v1/sessions/{id}" */
    route_handler *handler;
    enum role_level role; /* at least */
    unsigned scopes;      /* all of them */
    enum route_dialect dialect;
    enum route_body body;
    unsigned flags;
    int status;          /* of success */
    str request_schema;  /* component names of the OpenAPI document, or empty */
    str response_schema; /* "application/..." for another media type; empty: no body */
    str summary;
};

size_t routes_count(void);
const struct api_route *routes_at(size_t index);
/* NULL when nothing fits; then *is_path_known tells 405 from 404.  HEAD fits what GET does. */
const struct api_route *routes_find(enum http_method method, str path, str params[ROUTE_PARAMS_MAX],
                                    bool *is_path_known);
/* "GET, POST" for the path of a 405. */
str routes_allowed(struct arena *arena, str path);

#define ROUTE(method, path, handler, role, scopes, dialect, body, flags, status, request,          \
              response, summary)                                                                   \
    route_handler handler;
#include "gateway/routes.def"
#undef ROUTE

#endif
