/* Property: the same bytes and the same verdict, however the stream is cut into pieces. */
#include "gateway/call/call_relay.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    enum call_relay_state state;
    enum error_reason reason;
    struct call_bytes out;
};

static void take(void *owner, str bytes)
{
    call_bytes_add(owner, bytes);
}

/* `pieces`: a seed for the cuts; 0: one piece. */
static struct seen relay_all(const struct dialect *dialect, str stream, uint64_t pieces)
{
    OWNED(arena) arena = arena_create(0);
    struct seen seen = {0};
    struct error e = {0};
    struct call_relay relay = {
        .dialect = dialect, .leaves_out_usage = true, .write = take, .owner = &seen.out};
    while (stream.len > 0) {
        size_t take_bytes = stream.len;
        if (pieces > 0) {
            pieces = pieces * 6364136223846793005u + 1442695040888963407u;
            take_bytes = 1 + (size_t) (pieces >> 33) % 23;
        }
        str piece = str_slice(stream, 0, take_bytes);
        /* A piece of its own, so that reads past its end are seen. */
        struct call_bytes copy = {0};
        call_bytes_add(&copy, piece);
        call_relay_feed(&relay, arena, call_bytes_str(&copy), &e);
        call_bytes_free(&copy);
        stream = str_from(stream, take_bytes);
    }
    seen.state = call_relay_close(&relay, arena, &e);
    seen.reason = e.reason;
    if (relay.held.len > 0 && seen.state == CALL_RELAY_ENDED)
        take(&seen.out, call_bytes_str(&relay.held));
    call_relay_deinit(&relay);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const struct dialect *dialect = dialect_of(data[0] % DIALECT_COUNT);
    str stream = str_of((const char *) data + 1, size - 1);
    struct seen whole = relay_all(dialect, stream, 0);
    for (uint64_t seed = 1; seed < 4; seed++) {
        struct seen cut = relay_all(dialect, stream, seed + size);
        ensure(cut.state == whole.state && cut.reason == whole.reason);
        ensure(str_equal(call_bytes_str(&cut.out), call_bytes_str(&whole.out)));
        call_bytes_free(&cut.out);
    }
    ensure(whole.state == CALL_RELAY_ENDED || whole.state == CALL_RELAY_FAILED);
    call_bytes_free(&whole.out);
    return 0;
}
