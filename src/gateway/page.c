/* The page at "/": where to go on.  Everything is in it: no script, no other host. */
#include "gateway/gateway_internal.h"

/* The Host was checked before; only what can stand in a URL is shown. */
static str own_url(const struct http_request *request)
{
    for (size_t i = 0; i < request->host.len; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]",
                    request->host.ptr[i]))
            return S("http://localhost:8080");
    return str_printf(request->ctx->arena, "http://" STR_FMT, STR_ARG(request->host));
}

str page_html(const struct http_request *request)
{
    str url = own_url(request);
    return str_printf(
        request->ctx->arena,
        "<!doctype html>\n"
        "<html lang=\"en\">\n"
        "<head>\n"
        "<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<title>Nexus Agent Platform</title>\n"
        "<style>\n"
        ":root { color-scheme: light dark; }\n"
        "body { font: 1rem/1.6 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; "
        "padding: 0 1rem; }\n"
        "pre { overflow-x: auto; padding: .8rem 1rem; border: 1px solid color-mix(in srgb, "
        "currentColor 25%%, transparent); }\n"
        "code, pre { font-family: ui-monospace, monospace; font-size: .9rem; }\n"
        "</style>\n"
        "</head>\n"
        "<body>\n"
        "<main>\n"
        "<h1>Nexus Agent Platform</h1>\n"
        "<p>This server runs AI agents under policy and budget, and forwards model calls. It is "
        "up.</p>\n"
        "<h2>Your key</h2>\n"
        "<p>The first start wrote an administrator's key to <code>admin.key</code> in the data "
        "folder. Use it to make others:</p>\n"
        "<pre>export NEXUS_API_KEY=$(cat data/admin.key)\n"
        "export NEXUS_SERVER=" STR_FMT "\n"
        "nexus key create laptop --role user</pre>\n"
        "<h2>First steps</h2>\n"
        "<pre>nexus run \"What can you do?\"\n\n"
        "curl " STR_FMT "/v1/chat/completions \\\n"
        "  -H \"Authorization: Bearer $NEXUS_API_KEY\" -H \"Content-Type: application/json\" \\\n"
        "  -d '{\"model\": \"agent:assistant\", \"messages\": [{\"role\": \"user\", \"content\": "
        "\"Hello\"}]}'</pre>\n"
        "<h2>Reference</h2>\n"
        "<ul>\n"
        "<li><a href=\"/api/openapi.json\">/api/openapi.json</a>: the API, OpenAPI 3.1</li>\n"
        "<li><code>/v1/chat/completions</code>, <code>/v1/models</code>: for OpenAI SDKs; base URL "
        "is this server plus <code>/v1</code></li>\n"
        "<li><a href=\"/healthz\">/healthz</a>, <a href=\"/readyz\">/readyz</a>, "
        "<code>/metrics</code></li>\n"
        "</ul>\n"
        "</main>\n"
        "</body>\n"
        "</html>\n",
        STR_ARG(url), STR_ARG(url));
}
