/* Every message of the sandbox process' protocol, and the packet around it: the first byte says which. */
#include "agent/sandbox/remote/remote_protocol.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "net/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_back(str body)
{
    OWNED(arena) arena = arena_create(0);
    struct remote_result result, again;
    struct strbuf text;
    struct error e;
    if (!remote_read_result(body, &result, &e))
        return;
    strbuf_init(&text, arena, body.len + 64);
    remote_write_result(&text, &result);
    ensure(remote_read_result(strbuf_str(&text), &again, &e) && again.is_ok == result.is_ok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct error e;
    union {
        struct remote_hello hello;
        struct remote_ready ready;
        struct remote_piece piece;
        struct remote_file file;
        struct remote_host_call host_call;
        struct packet packet;
    } out;
    bool has_descriptor;
    if (size == 0)
        return 0;
    str body = str_of((const char *) data + 1, size - 1);
    switch (data[0] % 9) {
    case 0: (void) !remote_read_hello(arena, body, &out.hello, &e); break;
    case 1: (void) !remote_read_ready(body, &out.ready, &e); break;
    case 2: (void) !remote_read_tool(arena, body, ARENA_NEW(arena, struct tool), &e); break;
    case 3: (void) !remote_read_piece(body, &out.piece, &e); break;
    case 4: (void) !remote_read_file(body, &out.file, &e); break;
    case 5: (void) !remote_read_call(arena, body, ARENA_NEW(arena, struct remote_call), &e); break;
    case 6: (void) !remote_read_host_call(body, &out.host_call, &e); break;
    case 7: read_back(body); break;
    case 8:
        if (body.len >= PACKET_HEADER_BYTES)
            (void) !packet_header_read((const uint8_t *) body.ptr, &out.packet, &has_descriptor);
        break;
    }
    return 0;
}
