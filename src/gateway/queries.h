/*
 * Queries: what each native route takes behind the "?", as one table (queries.def).
 *
 * The check before the handler, the OpenAPI document and the tests read the same table, so what is documented is what is taken.  Routes
 * of other dialects take what their clients send.  Pure, no I/O.
 */
#ifndef NEXUS_GATEWAY_QUERIES_H
#define NEXUS_GATEWAY_QUERIES_H

#include "base/error.h"
#include "gateway/routes.h"

enum query_kind { QUERY_TEXT, QUERY_ID, QUERY_TIME, QUERY_NUMBER, QUERY_CHOICE, QUERY_ANY };
struct route_query {
    str name;
    enum query_kind kind;
    str values;  /* of a CHOICE: "a|b" */
    str summary; /* empty for limit and cursor */
};

/* The n-th of a route; false past the last.  One of kind ANY has no name. */
bool queries_at(const struct api_route *route, size_t n, struct route_query *out);
/* INVALID, naming an unknown parameter, the nearest and all that the route takes; or the choices of one that is none of them. */
must_check bool queries_check(struct arena *arena, const struct api_route *route, str query,
                              struct error *e);

#endif
