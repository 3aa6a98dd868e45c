/* What authorization servers say: the first byte chooses the document.  Whatever is taken is safe to send and to ask. */
#include "mcp/oauth.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "net/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const str server_url = S_INIT("https://mcp.example/a/mcp");

static void look_at_server(struct arena *arena, str text)
{
    struct error e;
    struct oauth_server server;
    struct oauth_question question = {.client_id = S("c"), .state = S("s"), .verifier = S("v")};
    if (!oauth_server_read(arena, text, S("https://as.example"), &server, &e))
        return;
    ensure(oauth_url_check(server.authorization_endpoint, "it", &e));
    ensure(oauth_url_check(server.token_endpoint, "it", &e));
    ensure(http_header_is_safe(S("X"), oauth_authorization_url(arena, &server, &question)));
}

static void look_at_resource(struct arena *arena, str text)
{
    struct error e;
    str url;
    struct oauth_resource resource;
    if (!oauth_resource_read(arena, text, server_url, &resource, &e))
        return;
    ensure(resource.issuer_count > 0 && resource.issuer_count <= MCP_OAUTH_ISSUERS_MAX);
    for (size_t i = 0; i < resource.issuer_count; i++)
        for (int place = OAUTH_PLACE_INSERTED; place <= OAUTH_PLACE_APPENDED; place++)
            if (oauth_well_known(arena, resource.issuers[i], S("doc"), (enum oauth_place) place,
                                 &url, &e))
                ensure(str_find(url, S("/.well-known/doc")) != STR_NOT_FOUND);
}

static void look_at_answer(struct arena *arena, str text)
{
    struct error e;
    struct oauth_tokens tokens;
    struct oauth_client client;
    if (oauth_tokens_read(arena, text, &tokens, &e))
        ensure(http_header_is_safe(S("Authorization"), tokens.access_token) &&
               tokens.expires_in_s >= 0);
    if (oauth_registration_read(arena, text, &client, &e))
        ensure(http_header_is_safe(S("X"),
                                   oauth_basic(arena, client.client_id, client.client_secret)));
    ensure(oauth_refusal_code(arena, text).len <= 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > (64u << 10))
        return 0;
    OWNED(arena) arena = arena_create(64u << 20);
    str text = str_of((const char *) data + 1, size - 1);
    switch (data[0] % 4) {
    case 0: (void) oauth_challenge_read(arena, text); break;
    case 1: look_at_resource(arena, text); break;
    case 2: look_at_server(arena, text); break;
    default: look_at_answer(arena, text); break;
    }
    return 0;
}
