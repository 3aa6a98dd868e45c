/*
 * Api: what most commands are: one call, shown as a table, as lines, or as JSON.
 * On the client's coroutine.
 */
#ifndef NEXUS_CLI_API_H
#define NEXUS_CLI_API_H

#include "cli/client.h"
#include "cli/output.h"

/* GET of a page ({"items": [...], "next_cursor"}); with --all every page.  `query`: "status=pending" or empty. */
may_suspend bool api_list(struct client *client, struct context *ctx, str path, str query,
                          const struct column *columns, size_t column_count, struct error *e);
/* The same of a list that the server gives whole. */
may_suspend bool api_list_whole(struct client *client, struct context *ctx, str path, str query,
                                const struct column *columns, size_t column_count, struct error *e);
/* "name=value", behind what is there already; nothing for an empty value. */
void api_query_add(struct strbuf *query, str name, str value);
/* Any call whose answer is one object. */
may_suspend bool api_show(struct client *client, struct context *ctx, enum http_method method,
                          str path, str body, struct error *e);
/* A call without an answer: says `done` ("closed") and the id, or {"id", "done": true}. */
may_suspend bool api_do(struct client *client, struct context *ctx, enum http_method method,
                        str path, str body, const char *done, str id, struct error *e);

/* "/api/v1/sessions/{}" with the n-th operand, percent-encoded, for each {}. */
str api_path(struct client *client, struct context *ctx, const char *pattern);

extern const struct option page_options[];
enum { PAGE_OPTION_COUNT = 2 };

#endif
