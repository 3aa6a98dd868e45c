/* Header fields and body of a POST to /mcp, and the ids and states that clients bring back.  Form: four lines of header fields, then the body. */
#include "gateway/mcp/mcp_envelope.h"
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/mcp/mcp_state.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_id(struct arena *arena, str text)
{
    struct mcp_event_id id, again;
    if (!mcp_event_id_read(arena, text, &id))
        return;
    str written = mcp_event_id_write(arena, &id);
    if (str_is_empty(written))
        return;
    if (!mcp_event_id_read(arena, written, &again) || again.seq != id.seq ||
        !uuid_equal(again.run_id, id.run_id))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct mcp_head head = {0};
    struct mcp_envelope envelope;
    struct mcp_refusal refusal;
    struct error e = {0};
    str body = str_of((const char *) data, size);
    str *fields[] = {&head.version, &head.method, &head.name, &head.session};
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        (void) str_next(&body, '\n', fields[i]);
    check_id(arena, head.session);
    bool ok = mcp_envelope_read(arena, &head, body, &envelope, &refusal, &e);
    if (!ok && (e.code == ERROR_OK || refusal.status != 400 || refusal.code >= 0))
        abort();
    if (ok && envelope.era == MCP_ERA_STATELESS && envelope.message.kind == MCP_REQUEST &&
        (!envelope.revision || !str_equal(head.method, envelope.message.method)))
        abort();
    if (ok) {
        struct http_headers headers = {0};
        http_headers_add(&headers, arena, S("Mcp-Param-Region"), head.name);
        (void) !mcp_header_check_arguments(arena, &headers,
                                           json_get(envelope.message.params, S("schema")),
                                           json_get(envelope.message.params, S("arguments")), &e);
    }
    return 0;
}
