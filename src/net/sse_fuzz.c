/* Server-sent events: the same events however the stream is cut. */
#include "net/sse.h"

#include "base/ensure.h"

#include <stdlib.h>

static uint64_t add(uint64_t hash, str text)
{
    for (size_t i = 0; i < text.len; i++)
        hash = hash * 31 + (unsigned char) text.ptr[i];
    return hash * 31 + 256;
}

static bool read_events(str stream, size_t step, uint64_t *hash)
{
    struct error e;
    struct sse_event event;
    OWNED(sse_parser) parser = sse_parser_create(1000);
    *hash = 0;
    while (stream.len > 0) {
        size_t len = step < stream.len ? step : stream.len;
        char *copy = malloc(len);
        memcpy(copy, stream.ptr, len);
        bool is_fine = sse_parser_feed(parser, str_of(copy, len), &e);
        free(copy);
        if (!is_fine)
            return false;
        while (sse_parser_next(parser, &event)) {
            ensure(event.data.len <= 1000);
            *hash = add(add(add(*hash, event.id), event.event), event.data);
        }
        stream = str_from(stream, len);
    }
    *hash = *hash * 2 + sse_parser_has_partial(parser);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t whole, cut;
    if (size < 2)
        return 0;
    str stream = str_of((const char *) data + 1, size - 1);
    bool is_whole_fine = read_events(stream, stream.len, &whole);
    bool is_cut_fine = read_events(stream, (size_t) data[0] % 13 + 1, &cut);
    ensure(is_whole_fine == is_cut_fine && (!is_whole_fine || whole == cut));
    return 0;
}
