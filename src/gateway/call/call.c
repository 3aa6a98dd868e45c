/* Routes of the compatible dialects: reads a request, tells models from agents. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/call/call_internal.h"

#define AGENT_PREFIX S("agent:")
enum { CALL_BODY_SMALL_BYTES = 1 << 20, CALL_ARENA_BYTES = 160 << 20 };

/* ---- the request ---- */

static bool read_session(struct model_call *m, struct error *e)
{
    str text = http_request_header(m->call->request, S("X-Nexus-Session"));
    if (str_is_empty(text) || uuid_parse(text, &m->session_id))
        return true;
    return error_set(e, REASON_INVALID, "X-Nexus-Session must be a session's id");
}

static bool read_request(struct model_call *m, struct error *e)
{
    struct json_limits limits = {.bytes_max = GATEWAY_CHAT_BODY_BYTES_MAX};
    return json_parse(m->arena, m->call->body, limits, &m->json, e) &&
           m->dialect->read(m->arena, m->json, &m->request, e) && read_session(m, e);
}

static bool begin_responses(struct model_call *m, struct error *e)
{
    if (m->dialect->id != DIALECT_OPENAI_RESPONSES)
        return true;
    if (!responses_begin(m->call, m->json, &m->request, &m->responses, e))
        return false;
    if (uuid_is_none(m->session_id))
        m->session_id = responses_session(m->responses);
    return true;
}

static bool serve(struct model_call *m, struct error *e)
{
    if (m->request.is_stream && !middleware_take_stream(m->call, e))
        return false;
    return str_starts_with(m->request.model, AGENT_PREFIX) ? call_agent(m, e) : call_plain(m, e);
}

static bool run_call(struct api_call *call, const struct dialect *dialect, struct error *e)
{
    OWNED(arena) large =
        call->body.len > CALL_BODY_SMALL_BYTES ? arena_create(CALL_ARENA_BYTES) : NULL;
    struct model_call *m = ARENA_NEW(call->ctx->arena, struct model_call);
    m->call = call;
    m->dialect = dialect;
    m->body = call->body;
    m->arena = large ? large : call->ctx->arena;
    bool ok = read_request(m, e) && begin_responses(m, e) && serve(m, e);
    responses_end(m->responses);
    return ok;
}

bool route_chat(struct api_call *call, struct error *e)
{
    return run_call(call, &openai_chat_dialect, e);
}

bool route_responses(struct api_call *call, struct error *e)
{
    return run_call(call, &openai_responses_dialect, e);
}

bool route_messages(struct api_call *call, struct error *e)
{
    return run_call(call, &anthropic_messages_dialect, e);
}

void call_travel(const struct api_call *call, struct http_headers *out)
{
    static const str names[] = {S_INIT("anthropic-version"), S_INIT("anthropic-beta"),
                                S_INIT("OpenAI-Beta")};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        str value = http_request_header(call->request, names[i]);
        if (!str_is_empty(value) && value.len <= CALL_TRAVEL_BYTES_MAX &&
            http_header_is_safe(names[i], value))
            http_headers_add(out, call->ctx->arena, names[i], value);
    }
}

/* ---- answers ---- */

struct dialect_answer call_answer(const struct model_call *m)
{
    struct gateway *gateway = m->call->gateway;
    return (struct dialect_answer){
        .id = dialect_answer_id(m->dialect, m->call->ctx->arena,
                                uuid_new(gateway->clock, gateway->random)),
        .model = m->request.model,
        .created = clock_unix_us(gateway->clock) / 1000000,
        .wants_usage = m->request.wants_usage,
        .input_tokens_bound = m->request.input_tokens_bound,
        .request = m->json,
    };
}

const struct json *call_tree(const struct model_call *m)
{
    return m->responses && !m->is_masked ? responses_tree(m->responses) : m->json;
}

bool call_stream_begin(struct api_call *call, struct error *e)
{
    if (http_reply_has_begun(call->request))
        return true;
    reply_header(call, S("Cache-Control"), S("no-store"));
    reply_header(call, S("X-Accel-Buffering"), S("no"));
    return reply_stream_begin(call, S("text/event-stream"), e);
}

bool call_stream_fail(struct model_call *m, const struct error *failure)
{
    struct strbuf text;
    struct error ignored = {0};
    struct http_request *request = m->call->request;
    if (http_reply_is_done(request))
        return false;
    strbuf_init(&text, m->call->ctx->arena, 64u << 10);
    m->dialect->write_stream_error(failure, &text);
    if (failure->code != ERROR_CANCELLED && call_stream_begin(m->call, &ignored) &&
        http_reply_write(request, strbuf_str(&text), &ignored))
        (void) !http_reply_flush(request, &ignored);
    http_reply_abort(request);
    return false;
}

void call_keep(struct model_call *m, str answer)
{
    struct error failure = {0};
    if (!m->responses || !responses_is_kept(m->responses))
        return;
    if (!responses_keep(m->responses, m->call->ctx, answer, &failure) &&
        !http_reply_has_begun(m->call->request))
        reply_header(m->call, S("Nexus-Degraded"), S("the answer could not be stored"));
}
