/*
 * Client: a command's way to a server: one loop with one HTTP client inside the command's process, one coroutine that does the work.
 *
 * A problem+json answer becomes the struct error it was made from, so exit codes are the same here as there.
 * Thread: client_main on the main thread; everything else on the client's coroutine.
 */
#ifndef NEXUS_CLI_CLIENT_H
#define NEXUS_CLI_CLIENT_H

#include "cli/command.h"
#include "cli/on_loop.h"
#include "net/http_client.h"

struct client {
    struct cli *cli;
    const struct arguments *arguments;
    bool is_json;
    str base_url; /* without a slash at its end */
    struct http_url base;
    struct secret *key; /* NULL: none */
    struct loop *loop;
    struct http_client *http;
    int exit_code; /* for what is no error: EXIT_WAITING */
};

#define CLIENT_SERVER_DEFAULT S("http://127.0.0.1:8080")

typedef bool client_fn(struct client *client, struct context *ctx, struct error *e);

/* The options of every command that talks to a server. */
extern const struct option client_options[];
extern const size_t client_option_count;

/* Finds server and key, runs fn, reports its error; the process's exit code. */
int client_main(struct cli *cli, const char *command, const struct arguments *arguments,
                client_fn *fn);

/* The same in parts, for commands that do more than that (nexus run). */
must_check bool client_open(struct client *client, struct cli *cli,
                            const struct arguments *arguments, str server, str key,
                            struct error *e);
void client_close(struct client *client);
/* --server or NEXUS_SERVER; empty when neither is there. */
str client_server_named(const struct arguments *arguments);
/* --key or NEXUS_API_KEY; empty when neither is there. */
str client_key_given(const struct arguments *arguments);
/* --key, NEXUS_API_KEY, or DIR/admin.key of --data; empty when there is none. */
must_check bool client_find_key(struct arena *arena, const struct arguments *arguments, str *out,
                                struct error *e);
must_check bool client_read_key_file(struct arena *arena, str path, str *out, struct error *e);

/* "/api/v1/sessions/{}" with an id, percent-encoded, for each {}: the one way by which an id gets into a path. */
str client_path(struct context *ctx, const char *pattern, const str *ids);

struct client_request {
    enum http_method method;
    str path;         /* "/api/v1/sessions" */
    str content_type; /* of the body; empty: JSON */
    str body;
    str accept;        /* empty: JSON */
    str last_event_id; /* empty: none */
};
/* Gives the exchange of an answer below 400; its body is then to be read. */
may_suspend bool client_send(struct client *client, struct context *ctx,
                             const struct client_request *request, struct http_exchange **out,
                             struct error *e);
/* The whole answer, parsed; *out is NULL when it is empty. */
may_suspend bool client_call(struct client *client, struct context *ctx, enum http_method method,
                             str path, str body, const struct json **out, struct error *e);

#endif
