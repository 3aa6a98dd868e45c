#include "gateway/call/call_client_tools.h"

#include "base/arena.h"
#include "base/limits.h"

#define CALL_ID_PREFIX S("call_")
enum { ID_BYTES = 16, ID_HEX = 2 * ID_BYTES };

/* ---- ids ---- */

str client_call_id(struct arena *arena, uuid tool_call_id)
{
    str hex = str_hex(arena, tool_call_id.bytes, sizeof tool_call_id.bytes);
    return str_printf(arena, STR_FMT STR_FMT, STR_ARG(CALL_ID_PREFIX), STR_ARG(hex));
}

bool client_call_id_parse(str text, uuid *out)
{
    str hex;
    char dashed[UUID_TEXT_BYTES];
    size_t at = 0;
    if (!str_strip_prefix(text, CALL_ID_PREFIX, &hex) || hex.len != ID_HEX)
        return false;
    for (size_t i = 0; i < ID_HEX; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            dashed[at++] = '-';
        dashed[at++] = hex.ptr[i];
    }
    return uuid_parse(str_of(dashed, at), out);
}

/* ---- results ---- */

static bool read_result(const struct part *part, struct client_result *out, struct error *e)
{
    if (part->kind != PART_TOOL_RESULT)
        return error_set(e, REASON_INVALID, "an agent takes the results of tools as text");
    *out = (struct client_result){.content = part->text, .is_error = part->is_error};
    return client_call_id_parse(part->call_id, &out->tool_call_id) ||
           error_set(e, REASON_SCHEMA,
                     "\"" STR_FMT "\" is no id of a tool call of this agent: send results under "
                     "the ids that it gave",
                     STR_ARG(str_cut_utf8(part->call_id, 80)));
}

bool client_results_read(struct arena *arena, const struct prompt *prompt,
                         struct client_result **out, size_t *count, struct error *e)
{
    size_t first = prompt->message_count, total = 0;
    while (first > 0 && prompt->messages[first - 1].role == ROLE_TOOL)
        total += prompt->messages[--first].part_count;
    struct client_result *results = ARENA_ARRAY(arena, struct client_result, total + 1);
    *count = 0;
    for (size_t m = first; m < prompt->message_count; m++)
        for (size_t i = 0; i < prompt->messages[m].part_count; i++)
            if (!read_result(&prompt->messages[m].parts[i], &results[(*count)++], e))
                return false;
    *out = results;
    return true;
}

/* ---- calls ---- */

static bool read_call(struct api_call *call, uuid id, struct part *out, struct error *e)
{
    struct record *key = ARENA_NEW(call->ctx->arena, struct record),
                  *row = ARENA_NEW(call->ctx->arena, struct record);
    *key = record_of(TABLE_TOOL_CALLS);
    record_set_uuid(key, TOOL_CALLS_ID, id);
    if (!store_get(call->gateway->store, call->ctx, call->principal.tenant_id, key, row, e))
        return error_wrap(e, "a tool call of the run");
    *out = (struct part){.kind = PART_TOOL_CALL,
                         .call_id = client_call_id(call->ctx->arena, id),
                         .name = record_text(row, TOOL_CALLS_TOOL_NAME),
                         .arguments = record_text(row, TOOL_CALLS_INPUT)};
    return true;
}

bool client_calls_read(struct api_call *call, const struct json *waiting, struct part **out,
                       size_t *count, struct error *e)
{
    const struct json *calls = json_get(waiting, S("client_calls")), *item;
    struct part *parts = ARENA_ARRAY(call->ctx->arena, struct part, json_count(calls) + 1);
    struct json_iter it = json_iter(calls);
    *count = 0;
    while (json_next(&it, NULL, &item)) {
        str text;
        uuid id;
        if (!json_to_str(item, &text) || !uuid_parse(text, &id))
            return error_set(e, REASON_CORRUPT, "run.waiting names a call without an id");
        if (!read_call(call, id, &parts[(*count)++], e))
            return false;
    }
    *out = parts;
    return true;
}
