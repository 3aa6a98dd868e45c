/*
 * Resources: nexus://runs/{id} (state and answer, JSON) and nexus://sessions/{id}/files/{name} (its bytes), as their owner may see them.
 * Runs are listed, newest first; files are reached by their template.
 */
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "gateway/mcp/mcp_internal.h"

#define RUNS_URI S("nexus://runs/")
#define SESSIONS_URI S("nexus://sessions/")

enum { RESOURCE_URI_BYTES_MAX = 2048 };

static bool not_found(struct mcp_call *m, str uri, struct error *e)
{
    struct strbuf data;
    struct json_writer w;
    strbuf_init(&data, mcp_arena(m), 16u << 10);
    json_writer_init(&w, &data);
    json_object_begin(&w);
    json_put_str(&w, S("uri"), str_cut_utf8(uri, RESOURCE_URI_BYTES_MAX));
    json_object_end(&w);
    m->error_data = strbuf_str(&data);
    error_set(e, REASON_NOT_FOUND, "there is no resource " STR_FMT,
              STR_ARG(str_cut_utf8(uri, 200)));
    return mcp_fail(m, mcp_is_stateless(m) ? MCP_INVALID_PARAMS : MCP_RESOURCE_NOT_FOUND, e);
}

/* ---- lists ---- */

static void write_run_link(struct mcp_call *m, struct json_writer *w, const struct record *run)
{
    struct arena *arena = mcp_arena(m);
    str id = uuid_str(arena, record_uuid(run, AGENT_RUNS_ID));
    json_object_begin(w);
    json_put_str(w, S("uri"), str_printf(arena, STR_FMT STR_FMT, STR_ARG(RUNS_URI), STR_ARG(id)));
    json_put_str(w, S("name"), id);
    json_put_str(w, S("title"),
                 str_printf(arena, "Run of " STR_FMT ", " STR_FMT,
                            STR_ARG(record_text(run, AGENT_RUNS_AGENT)),
                            STR_ARG(record_text(run, AGENT_RUNS_STATUS))));
    json_put_str(w, S("mimeType"), S("application/json"));
    json_object_end(w);
}

bool mcp_resources_list(struct mcp_call *m, struct error *e)
{
    str cursor = STR_NONE;
    struct records rows;
    struct reply_writer writer;
    if (!json_read_str(m->in.message.params, S("cursor"), &cursor, e) ||
        !run_list(m->call->gateway->orchestrator, m->ctx, &m->call->principal,
                  &(struct run_filter){0}, cursor, GATEWAY_PAGE_DEFAULT, &rows, e))
        return false;
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_key(w, S("resources"));
    json_array_begin(w);
    for (size_t i = 0; i < rows.count; i++)
        write_run_link(m, w, &rows.items[i]);
    json_array_end(w);
    if (!str_is_empty(rows.next_cursor))
        json_put_str(w, S("nextCursor"), rows.next_cursor);
    mcp_put_cache(m, w, 0);
    return mcp_result_end(m, &writer, e);
}

bool mcp_resources_templates(struct mcp_call *m, struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = mcp_result_begin(m, &writer);
    json_put_raw(w, S("resourceTemplates"),
                 S("[{\"uriTemplate\":\"nexus://runs/{id}\",\"name\":\"run\",\"title\":\"A run\","
                   "\"description\":\"State, cost and answer of an agent's run\",\"mimeType\":"
                   "\"application/json\"},"
                   "{\"uriTemplate\":\"nexus://sessions/{id}/files/{name}\",\"name\":\"file\","
                   "\"title\":\"A file of a session\","
                   "\"description\":\"What was stored in a session, or written by its tools\"}]"));
    mcp_put_cache(m, w, MCP_SERVER_LIST_TTL_MS);
    return mcp_result_end(m, &writer, e);
}

/* ---- reading ---- */

static struct json_writer *begin_contents(struct mcp_call *m, struct reply_writer *writer, str uri,
                                          str mime_type)
{
    struct json_writer *w = mcp_result_begin(m, writer);
    json_key(w, S("contents"));
    json_array_begin(w);
    json_object_begin(w);
    json_put_str(w, S("uri"), uri);
    json_put_str(w, S("mimeType"), mime_type);
    return w;
}

static bool end_contents(struct mcp_call *m, struct reply_writer *writer, struct error *e)
{
    json_object_end(&writer->w);
    json_array_end(&writer->w);
    mcp_put_cache(m, &writer->w, 0);
    return mcp_result_end(m, writer, e);
}

/* The run's own object with `answer` behind its members. */
static str run_document(struct mcp_call *m, const struct record *run, str answer)
{
    struct strbuf text, tail;
    struct json_writer w;
    struct arena *arena = mcp_arena(m);
    strbuf_init(&text, arena, GATEWAY_REPLY_BYTES_MAX);
    json_writer_init(&w, &text);
    run_write_json(&w, run);
    strbuf_init(&tail, arena, GATEWAY_REPLY_BYTES_MAX);
    json_writer_init(&w, &tail);
    json_write_str(&w, answer);
    strbuf_truncate(&text, text.len - 1);
    strbuf_add(&text, S(",\"answer\":"));
    strbuf_add(&text, strbuf_str(&tail));
    strbuf_add_char(&text, '}');
    return strbuf_str(&text);
}

static bool read_run(struct mcp_call *m, str uri, str id_text, struct error *e)
{
    uuid id;
    str answer;
    struct reply_writer writer;
    struct record *run = ARENA_NEW(mcp_arena(m), struct record);
    struct error why = {0};
    if (!uuid_parse(id_text, &id))
        return not_found(m, uri, e);
    if (!run_get(m->call->gateway->orchestrator, m->ctx, &m->call->principal, id, run, &why))
        return why.code == ERROR_NOT_FOUND ? not_found(m, uri, e) : error_copy(e, &why);
    if (!mcp_run_answer(m, id, &answer, e))
        return false;
    struct json_writer *w = begin_contents(m, &writer, uri, S("application/json"));
    json_put_str(w, S("text"), run_document(m, run, answer));
    return end_contents(m, &writer, e);
}

static bool read_bytes(struct mcp_call *m, struct file_download *download, str *out,
                       struct error *e)
{
    struct strbuf bytes;
    strbuf_init(&bytes, mcp_arena(m), MCP_SERVER_RESOURCE_BYTES_MAX);
    for (;;) {
        str piece;
        if (!file_download_read(download, m->ctx, &piece, e))
            return false;
        if (str_is_empty(piece))
            break;
        strbuf_add(&bytes, piece);
        if (strbuf_is_over(&bytes))
            return error_set(e, REASON_TOO_LARGE,
                             "a resource is at most %u bytes; read the file over the API",
                             MCP_SERVER_RESOURCE_BYTES_MAX);
    }
    *out = strbuf_str(&bytes);
    return true;
}

/* Controls in what claims to be text make it bytes. */
static bool is_text(str bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        unsigned char c = (unsigned char) bytes.ptr[i];
        if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
            return false;
    }
    return str_is_utf8(bytes);
}

static bool send_file(struct mcp_call *m, str uri, const struct record *row,
                      struct file_download *download, struct error *e)
{
    str bytes;
    struct reply_writer writer;
    str type = record_text(row, SESSION_FILES_CONTENT_TYPE);
    if (!read_bytes(m, download, &bytes, e))
        return false;
    bool is_plain = is_text(bytes);
    if (str_is_empty(type) || !str_is_utf8(type))
        type = is_plain ? S("text/plain") : S("application/octet-stream");
    struct json_writer *w = begin_contents(m, &writer, uri, type);
    json_put_str(w, is_plain ? S("text") : S("blob"),
                 is_plain ? bytes : base64_encode(mcp_arena(m), bytes));
    return end_contents(m, &writer, e);
}

static bool read_file(struct mcp_call *m, str uri, str rest, struct error *e)
{
    str id_text, tail, encoded, name;
    uuid session_id;
    struct error why = {0};
    struct file_download *download;
    struct record *row = ARENA_NEW(mcp_arena(m), struct record);
    if (!str_cut(rest, '/', &id_text, &tail) || !uuid_parse(id_text, &session_id) ||
        !str_strip_prefix(tail, S("files/"), &encoded) || str_is_empty(encoded) ||
        !http_percent_decode(mcp_arena(m), encoded, &name) || !str_is_utf8(name))
        return not_found(m, uri, e);
    if (!file_download_begin(m->call->gateway->orchestrator, m->ctx, &m->call->principal,
                             session_id, name, &download, row, &why))
        return why.code == ERROR_NOT_FOUND || why.code == ERROR_INVALID ? not_found(m, uri, e)
                                                                        : error_copy(e, &why);
    bool ok = send_file(m, uri, row, download, e);
    file_download_end(download);
    return ok;
}

bool mcp_resources_read(struct mcp_call *m, struct error *e)
{
    str uri = STR_NONE, rest;
    if (!json_need_str(m->in.message.params, S("uri"), &uri, e))
        return mcp_fail(m, MCP_INVALID_PARAMS, e);
    if (uri.len > RESOURCE_URI_BYTES_MAX)
        return not_found(m, uri, e);
    if (str_strip_prefix(uri, RUNS_URI, &rest))
        return read_run(m, uri, rest, e);
    if (str_strip_prefix(uri, SESSIONS_URI, &rest))
        return read_file(m, uri, rest, e);
    return not_found(m, uri, e);
}
