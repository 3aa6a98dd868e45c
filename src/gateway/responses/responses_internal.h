/*
 * Stored answers: what the files responses*.c share.
 */
#ifndef NEXUS_GATEWAY_RESPONSES_INTERNAL_H
#define NEXUS_GATEWAY_RESPONSES_INTERNAL_H

#include "gateway/gateway_internal.h"
#include "gateway/responses/responses.h"

/* One answer as it was stored; on the arena it was read with. */
struct responses_link {
    str id, previous_id, provider;
    uuid session_id;
    str response_text;
    const struct json *input; /* a string or items */
    const struct json *response;
};
/* Newest first. */
struct responses_chain {
    struct responses_link *links;
    size_t count, bytes;
    bool is_cut; /* an older one is gone */
};

/* Whose answers; strings as long as they are used. */
struct responses_owner {
    struct gateway *gateway;
    uuid tenant_id;
    str user_id;
};

/* NOT_FOUND for what is unknown, another user's or expired. */
may_suspend bool responses_load(const struct responses_owner *owner, struct context *ctx, str id,
                                struct responses_link *out, struct error *e);
/* The answer and what it builds on.  LIMIT past RESPONSES_CHAIN_MAX and RESPONSES_CHAIN_BYTES_MAX. */
may_suspend bool responses_load_chain(const struct responses_owner *owner, struct context *ctx,
                                      str id, struct responses_chain *out, struct error *e);

/* The chain's items in order, oldest first, then `input`: an array.  Sealed reasoning is understood only by who sealed it, and by us. */
void responses_write_history(struct json_writer *w, const struct responses_chain *chain,
                             const struct json *input, bool with_reasoning);
/* The same as the list of input items of chain->links[0]: every item with the members that a listed item has. */
struct responses_items {
    str *ids, *texts;
    size_t count;
};
must_check bool responses_list_items(struct arena *arena, const struct responses_chain *chain,
                                     struct responses_items *out, struct error *e);

#endif
