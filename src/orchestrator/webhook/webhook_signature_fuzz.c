/*
 * Any header fields and body, one a line: scheme's number, id, timestamp, signature, then the body.  Nothing that was not signed with the
 * key verifies, and what is signed anew with these fields does exactly when they are lawful.
 */
#include "orchestrator/webhook/webhook_signature.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    const int64_t now_s = 1700000000;
    str rest = str_of((const char *) data, size), line;
    enum webhook_scheme scheme = WEBHOOK_STANDARD;
    struct webhook_signed request = {0}, mine;
    if (str_cut(rest, '\n', &line, &rest) && line.len > 0)
        scheme = (enum webhook_scheme)((unsigned char) line.ptr[0] % WEBHOOK_SCHEME_COUNT);
    (void) str_cut(rest, '\n', &request.id, &rest);
    (void) str_cut(rest, '\n', &request.timestamp, &rest);
    (void) str_cut(rest, '\n', &request.signature, &request.body);
    ensure(!webhook_verify(arena, scheme, S("a key that nobody else has"), &request, now_s));
    webhook_sign_as(arena, scheme, S("a key that nobody else has"), S("id"), now_s, request.body,
                    &mine);
    ensure(webhook_verify(arena, scheme, S("a key that nobody else has"), &mine, now_s));
    mine.signature = request.signature;
    ensure(!webhook_verify(arena, scheme, S("a key that nobody else has"), &mine, now_s));
    ensure(webhook_delivery_key(arena, scheme, &request, request.id).len == 64);
    return 0;
}
