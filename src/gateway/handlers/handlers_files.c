/* Files of a session: bodies stream both ways and never lie whole in memory. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"

static bool write_file(struct api_call *call, struct json_writer *w, const struct record *row,
                       struct error *e)
{
    (void) call, (void) e;
    json_object_begin(w);
    json_put_str(w, S("name"), record_text(row, SESSION_FILES_NAME));
    put_id(w, S("session_id"), record_uuid(row, SESSION_FILES_SESSION_ID));
    json_put_i64(w, S("bytes"), record_integer(row, SESSION_FILES_BYTES));
    bool is_uploaded = !str_is_empty(record_text(row, SESSION_FILES_DIGEST));
    if (is_uploaded) /* of what a tool wrote nothing is kept but the file */
        json_put_str(w, S("sha256"), record_text(row, SESSION_FILES_DIGEST));
    json_put_str(w, S("source"), is_uploaded ? S("upload") : S("workspace"));
    json_put_str(w, S("content_type"), record_text(row, SESSION_FILES_CONTENT_TYPE));
    put_time(w, S("created_at"), record_integer(row, SESSION_FILES_CREATED_AT));
    json_object_end(w);
    return true;
}

static bool read_names(struct api_call *call, uuid *session_id, str *name, struct error *e)
{
    return param_uuid(call, 0, "session", session_id, e) && param_text(call, 1, name, e);
}

bool route_file_list(struct api_call *call, struct error *e)
{
    uuid session_id;
    struct records rows;
    return param_uuid(call, 0, "session", &session_id, e) &&
           file_list(call->gateway->orchestrator, call->ctx, &call->principal, session_id, &rows,
                     e) &&
           reply_page(call, &rows, write_file, e);
}

static bool receive(struct api_call *call, struct file_upload *upload, struct error *e)
{
    for (;;) {
        str piece;
        if (!http_request_read(call->request, &piece, e))
            return false;
        if (str_is_empty(piece))
            return true;
        if (!file_upload_write(upload, call->ctx, piece, e))
            return false;
    }
}

bool route_file_put(struct api_call *call, struct error *e)
{
    uuid session_id;
    str name, type = http_request_header(call->request, S("Content-Type"));
    struct file_upload *upload;
    struct reply_writer writer;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    if (!read_names(call, &session_id, &name, e) ||
        !file_upload_begin(call->gateway->orchestrator, call->ctx, &call->principal, session_id,
                           name, str_cut_utf8(type, 255), call->request->content_length, &upload,
                           e))
        return false;
    if (!receive(call, upload, e)) {
        file_upload_abort(upload);
        return false;
    }
    return file_upload_finish(upload, call->ctx, row, e) &&
           write_file(call, reply_writer_init(&writer, call), row, e) &&
           reply_writer_send(&writer, call, 201, e);
}

static bool send_file(struct api_call *call, struct file_download *download, struct error *e)
{
    for (;;) {
        str piece;
        if (!file_download_read(download, call->ctx, &piece, e))
            return false;
        if (str_is_empty(piece))
            return true;
        if (!http_reply_write(call->request, piece, e))
            return false;
    }
}

/* A file is somebody's upload: a browser must neither guess its type nor run it. */
static void put_file_headers(struct api_call *call, const struct record *row)
{
    struct arena *arena = call->ctx->arena;
    str sha256 = record_text(row, SESSION_FILES_DIGEST);
    if (str_is_empty(sha256))
        reply_header(call, S("ETag"),
                     str_printf(arena, "W/\"%llx-%llx\"",
                                (long long) record_integer(row, SESSION_FILES_CREATED_AT),
                                (long long) record_integer(row, SESSION_FILES_BYTES)));
    else
        reply_header(call, S("ETag"), str_printf(arena, "\"" STR_FMT "\"", STR_ARG(sha256)));
    reply_header(
        call, S("Content-Disposition"),
        str_printf(arena, "attachment; filename*=UTF-8''" STR_FMT,
                   STR_ARG(http_percent_encode(arena, record_text(row, SESSION_FILES_NAME)))));
    reply_header(call, S("Content-Security-Policy"), S("sandbox"));
}

bool route_file_get(struct api_call *call, struct error *e)
{
    uuid session_id;
    str name;
    struct file_download *download;
    struct record *row = ARENA_NEW(call->ctx->arena, struct record);
    if (!read_names(call, &session_id, &name, e) ||
        !file_download_begin(call->gateway->orchestrator, call->ctx, &call->principal, session_id,
                             name, &download, row, e))
        return false;
    put_file_headers(call, row);
    str type = record_text(row, SESSION_FILES_CONTENT_TYPE);
    bool is_safe_type = !str_is_empty(type) && http_header_is_safe(S("Content-Type"), type);
    bool ok = reply_stream_begin(call, is_safe_type ? type : S("application/octet-stream"), e) &&
              send_file(call, download, e);
    file_download_end(download);
    if (ok)
        http_reply_end(call->request);
    return ok;
}

bool route_file_delete(struct api_call *call, struct error *e)
{
    uuid session_id;
    str name;
    if (!read_names(call, &session_id, &name, e) ||
        !file_remove(call->gateway->orchestrator, call->ctx, &call->principal, session_id, name, e))
        return false;
    reply_empty(call, 204);
    return true;
}
