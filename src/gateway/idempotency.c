/*
 * Idempotency-Key: the same key with the same request gets the same answer, once and for GATEWAY_IDEMPOTENCY_MS.
 *
 *   (no row) --begin--> status 0: in work --finish--> status and body: replayed
 *                                         --forget (refused before anything happened)--> (no row)
 * A row that stays at 0 means the outcome is not known (the process ended in between): 409, the caller must look first.
 */
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "base/log.h"
#include "gateway/gateway_internal.h"

static bool read_key(struct api_call *call, str *key, struct error *e)
{
    *key = http_request_header(call->request, S("Idempotency-Key"));
    if (key->len > GATEWAY_IDEMPOTENCY_KEY_BYTES_MAX || !str_is_utf8(*key))
        return error_set(e, REASON_INVALID, "Idempotency-Key must be text of at most %u bytes",
                         GATEWAY_IDEMPOTENCY_KEY_BYTES_MAX);
    return true;
}

static str request_digest(struct api_call *call)
{
    OWNED(digest_stream) stream = digest_stream_create();
    digest_stream_add(stream, str_from_cstr(http_method_name(call->request->method)));
    digest_stream_add(stream, S(" "));
    digest_stream_add(stream, call->request->path);
    digest_stream_add(stream, S("\n"));
    digest_stream_add(stream, call->body);
    return digest_hex(call->ctx->arena, digest_stream_finish(stream));
}

static void set_row_key(struct record *row, struct api_call *call)
{
    record_set_text(row, IDEMPOTENCY_PRINCIPAL, call->principal.caller_id);
    record_set_text(row, IDEMPOTENCY_IDEMPOTENCY_KEY, call->idempotency_key);
}

static bool answer_from(struct api_call *call, const struct record *row, struct error *e)
{
    int64_t status = record_integer(row, IDEMPOTENCY_STATUS);
    if (!str_equal(record_text(row, IDEMPOTENCY_REQUEST_DIGEST), call->idempotency_digest))
        return error_set(e, REASON_IDEMPOTENCY,
                         "this Idempotency-Key came with another request before");
    if (status == 0)
        return error_set(e, REASON_CONFLICT,
                         "the first request with this Idempotency-Key is in work or its outcome is "
                         "not known; look before you repeat it");
    reply_header(call, S("Idempotency-Replayed"), S("true"));
    call->is_idempotent = false;
    reply_send(call, (int) status, S("application/json"), record_text(row, IDEMPOTENCY_BODY));
    return true;
}

/* expired_us: when the row that is replaced was made, 0: there is none.  Of two that replace it at once one fails. */
static bool remember(struct api_call *call, int64_t expired_us, struct error *e)
{
    struct batch batch;
    batch_init(&batch, call->ctx->arena, call->principal.tenant_id);
    struct record *row =
        batch_add(&batch, expired_us ? WRITE_UPDATE : WRITE_INSERT, TABLE_IDEMPOTENCY);
    set_row_key(row, call);
    record_set_text(row, IDEMPOTENCY_REQUEST_DIGEST, call->idempotency_digest);
    record_set_integer(row, IDEMPOTENCY_STATUS, 0);
    record_set_text(row, IDEMPOTENCY_BODY, S(""));
    record_set_integer(row, IDEMPOTENCY_CREATED_AT, clock_unix_us(call->gateway->clock));
    if (expired_us)
        batch_where_integer(&batch, IDEMPOTENCY_CREATED_AT, expired_us);
    if (!store_commit(call->gateway->store, call->ctx, &batch, e)) {
        if (e->code == ERROR_CONFLICT)
            return error_set(e, REASON_CONFLICT,
                             "another request with this Idempotency-Key has just begun");
        return false;
    }
    call->is_idempotent = true;
    return true;
}

bool idempotency_begin(struct api_call *call, bool *is_answered, struct error *e)
{
    if (!read_key(call, &call->idempotency_key, e))
        return false;
    if (str_is_empty(call->idempotency_key))
        return true;
    call->idempotency_digest = request_digest(call);
    struct record *key = ARENA_NEW(call->ctx->arena, struct record),
                  *row = ARENA_NEW(call->ctx->arena, struct record);
    *key = record_of(TABLE_IDEMPOTENCY);
    set_row_key(key, call);
    struct error missing = {0};
    if (!store_get(call->gateway->store, call->ctx, call->principal.tenant_id, key, row,
                   &missing)) {
        if (missing.code != ERROR_NOT_FOUND)
            return error_copy(e, &missing);
        return remember(call, 0, e);
    }
    int64_t age_us =
        clock_unix_us(call->gateway->clock) - record_integer(row, IDEMPOTENCY_CREATED_AT);
    if (age_us > GATEWAY_IDEMPOTENCY_MS * 1000)
        return remember(call, record_integer(row, IDEMPOTENCY_CREATED_AT), e);
    *is_answered = answer_from(call, row, e);
    return *is_answered;
}

static void write_row(struct api_call *call, enum write_op op, int status, str body)
{
    struct context shield; /* a client that has gone must find the answer when it comes back */
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, call->ctx->arena, call->principal.tenant_id);
    struct record *row = batch_add(&batch, op, TABLE_IDEMPOTENCY);
    set_row_key(row, call);
    if (op == WRITE_UPDATE) {
        record_set_integer(row, IDEMPOTENCY_STATUS, status);
        record_set_text(row, IDEMPOTENCY_BODY, body);
    }
    call->is_idempotent = false;
    context_init(&shield, call->ctx->scheduler, call->ctx->arena, DEADLINE_NONE);
    if (!store_commit(call->gateway->store, &shield, &batch, &e))
        LOG_ERROR("gateway.idempotency", S("an answer could not be remembered"), &e);
    context_deinit(&shield);
}

void idempotency_finish(struct api_call *call, int status, str body)
{
    if (call->is_idempotent)
        write_row(call, WRITE_UPDATE, status, body);
}

void idempotency_forget(struct api_call *call)
{
    if (call->is_idempotent)
        write_row(call, WRITE_DELETE, 0, STR_NONE);
}
