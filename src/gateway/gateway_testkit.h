/*
 * Testkit: a gateway in front of the orchestrator's testkit, over real sockets on one loop.
 *
 *      gateway_testkit_run(body);     body(ctx, kit) runs on a coroutine with the server up; a fresh store each time
 *      struct answer a = ask(ctx, kit, HTTP_POST, "/api/v1/sessions", kit->admin_key, "{}");
 */
#ifndef NEXUS_GATEWAY_GATEWAY_TESTKIT_H
#define NEXUS_GATEWAY_GATEWAY_TESTKIT_H

#include "gateway/gateway.h"
#include "net/http_client.h"
#include "orchestrator/orchestrator_testkit.h"

struct gateway_testkit {
    struct testkit *base;
    struct keys *keys;
    struct gateway *gateway;
    struct http_server *server;
    struct http_client *client;
    char dir[64];
    str admin_key, user_key, other_key, viewer_key; /* users admin, alice, bob, eve */
    void (*body)(struct context *ctx, struct gateway_testkit *kit);
    struct gateway_options options; /* what the test wants beside the parts */
    bool is_ready;
};

struct answer {
    int status;
    const struct http_headers *headers;
    str body;
    const struct json *json; /* NULL when it is none */
};

void gateway_testkit_run(void (*body)(struct context *ctx, struct gateway_testkit *kit));
void gateway_testkit_run_with(void (*body)(struct context *ctx, struct gateway_testkit *kit),
                              struct gateway_options options);

/* The whole answer; key empty: none.  Body empty: none. */
struct answer ask(struct context *ctx, struct gateway_testkit *kit, enum http_method method,
                  str path, str key, str body);
/* With further header fields: name, value, name, value ... */
struct answer ask_with(struct context *ctx, struct gateway_testkit *kit, enum http_method method,
                       str path, str key, str body, const struct http_header *headers,
                       size_t count);
/* Begins a request and gives the exchange for reading piece by piece. */
struct http_exchange *ask_stream(struct context *ctx, struct gateway_testkit *kit,
                                 enum http_method method, str path, str key, str body);
str answer_text(const struct answer *answer,
                str member); /* of the JSON body; fails the test when it is not text */
str answer_header(const struct answer *answer, str name);
/* What comes next from a stream until it holds `needle` or ends; joined to what came before. */
str read_until(struct context *ctx, struct http_exchange *exchange, str before, str needle);

#endif
