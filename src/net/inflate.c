#include "net/inflate.h"

#include "base/ensure.h"

#include <stdlib.h>
#include <zlib.h>

struct inflate {
    z_stream stream;
    bool is_gzip, has_begun, is_bare, is_at_end;
};

enum { WINDOW_ZLIB = 15, WINDOW_GZIP = 15 + 16, WINDOW_BARE = -15, PIECE_BYTES = 16384 };

struct inflate *inflate_create(str content_encoding)
{
    str coding = str_trim(content_encoding);
    bool is_gzip = str_equal_nocase(coding, S("gzip")) || str_equal_nocase(coding, S("x-gzip"));
    if (!is_gzip && !str_equal_nocase(coding, S("deflate")))
        return NULL;
    struct inflate *inflate = calloc(1, sizeof *inflate);
    ensure(inflate != NULL);
    inflate->is_gzip = is_gzip;
    ensure(inflateInit2(&inflate->stream, is_gzip ? WINDOW_GZIP : WINDOW_ZLIB) == Z_OK);
    return inflate;
}

void inflate_destroy(struct inflate *inflate)
{
    if (!inflate)
        return;
    (void) inflateEnd(&inflate->stream);
    free(inflate);
}

/* zlib's header is 0x?8 and, as a big-endian number with the next byte, a multiple of 31; bare deflate has none. */
static void choose_form(struct inflate *inflate, str piece)
{
    if (inflate->has_begun || piece.len == 0)
        return;
    inflate->has_begun = true;
    unsigned first = (unsigned char) piece.ptr[0],
             second = piece.len > 1 ? (unsigned char) piece.ptr[1] : 0;
    bool has_header = (first & 0x0f) == 8 && (piece.len == 1 || (first * 256 + second) % 31 == 0);
    if (!inflate->is_gzip && !has_header) {
        inflate->is_bare = true;
        ensure(inflateReset2(&inflate->stream, WINDOW_BARE) == Z_OK);
    }
}

/* One turn of zlib.  False at the end of the piece. */
static bool turn(struct inflate *body, struct strbuf *out, bool *is_full, bool *is_damaged)
{
    z_stream *stream = &body->stream;
    /* Behind a gzip member another one may follow; what else follows is left. */
    if (body->is_at_end) {
        if (!body->is_gzip || stream->avail_in == 0 || stream->next_in[0] != 0x1f)
            return false;
        ensure(inflateReset(stream) == Z_OK);
        body->is_at_end = false;
    }
    size_t room = out->max - out->len < PIECE_BYTES ? out->max - out->len : PIECE_BYTES;
    Bytef spare;
    char *to = room > 0 ? strbuf_reserve(out, room) : NULL;
    stream->next_out = to ? (Bytef *) to : &spare; /* is there one byte more? */
    stream->avail_out = to ? (uInt) room : 1;
    int result = inflate(stream, Z_NO_FLUSH);
    size_t made = (to ? room : 1) - stream->avail_out;
    if (to)
        strbuf_commit(out, made);
    else if (made > 0)
        *is_full = true;
    body->is_at_end = result == Z_STREAM_END;
    *is_damaged = result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR;
    return !*is_full && !*is_damaged && result != Z_BUF_ERROR;
}

bool inflate_piece(struct inflate *inflate, str piece, struct strbuf *out, bool *is_full,
                   struct error *e)
{
    bool is_damaged = false;
    choose_form(inflate, piece);
    inflate->stream.next_in = (Bytef *) (uintptr_t) piece.ptr;
    inflate->stream.avail_in = (uInt) piece.len;
    ensure(piece.len == inflate->stream.avail_in);
    while (turn(inflate, out, is_full, &is_damaged))
        ;
    return !is_damaged ||
           error_set(e, REASON_UNAVAILABLE, "the answer's compressed body is damaged");
}

bool inflate_is_complete(const struct inflate *inflate)
{
    return inflate->is_at_end || !inflate->has_begun;
}
