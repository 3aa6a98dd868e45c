#include "net/inflate.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <zlib.h>
#include <cmocka.h>

static str pack(struct arena *arena, str text, int window)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t room = deflateBound(&stream, text.len) + 64;
    char *out = arena_alloc(arena, room);
    stream.next_in = (Bytef *) (uintptr_t) text.ptr;
    stream.avail_in = (uInt) text.len;
    stream.next_out = (Bytef *) out;
    stream.avail_out = (uInt) room;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t made = room - stream.avail_out;
    deflateEnd(&stream);
    return str_of(out, made);
}

static str unpack(struct arena *arena, str coding, str packed, size_t step, size_t max,
                  bool *is_full, bool *is_ok)
{
    OWNED(inflate) inflate = inflate_create(coding);
    struct strbuf out;
    struct error e;
    strbuf_init(&out, arena, max);
    *is_full = false;
    *is_ok = true;
    assert_non_null(inflate);
    for (size_t at = 0; at < packed.len && *is_ok && !*is_full; at += step)
        *is_ok = inflate_piece(inflate, str_slice(packed, at, at + step), &out, is_full, &e);
    if (*is_ok && !*is_full)
        *is_ok = inflate_is_complete(inflate);
    return strbuf_str(&out);
}

static str sample(struct arena *arena)
{
    struct strbuf text;
    strbuf_init(&text, arena, 1u << 20);
    for (int i = 0; i < 20000; i++)
        strbuf_printf(&text, "line %d\n", i * 7919 % 1000);
    return strbuf_str(&text);
}

static void test_every_form_comes_back_in_any_cut(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(64u << 20);
    static const struct {
        const char *coding;
        int window;
    } forms[] = {{"gzip", 31}, {"X-GZIP", 31}, {"deflate", 15}, {"deflate", -15}};
    str text = sample(arena);
    for (size_t f = 0; f < ARRAY_COUNT(forms); f++) {
        str packed = pack(arena, text, forms[f].window);
        for (size_t step = 2; step <= packed.len; step = step * 5 + 1) {
            bool is_full, is_ok;
            str out = unpack(arena, str_from_cstr(forms[f].coding), packed, step, 1u << 20,
                             &is_full, &is_ok);
            assert_true(is_ok && !is_full && str_equal(out, text));
        }
    }
}

static void test_members_of_gzip_follow_each_other(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    str two = str_join(arena, (str[]){pack(arena, S("one "), 31), pack(arena, S("two"), 31)}, 2);
    bool is_full, is_ok;
    assert_true(str_equal(unpack(arena, S("gzip"), two, 7, 100, &is_full, &is_ok), S("one two")));
    assert_true(is_ok && !is_full);
}

static void test_a_bomb_stops_at_the_bound_and_one_byte_less_is_whole(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(64u << 20);
    size_t size = 8u << 20;
    str packed = pack(arena, str_of(arena_alloc(arena, size), size), 31);
    bool is_full, is_ok;
    assert_true(packed.len < 20000);
    assert_int_equal(unpack(arena, S("gzip"), packed, 512, 1000, &is_full, &is_ok).len, 1000);
    assert_true(is_ok && is_full);
    assert_int_equal(unpack(arena, S("gzip"), packed, 512, size - 1, &is_full, &is_ok).len,
                     size - 1);
    assert_true(is_full);
    assert_int_equal(unpack(arena, S("gzip"), packed, 512, size, &is_full, &is_ok).len, size);
    assert_true(is_ok && !is_full);
}

static void test_damage_and_a_cut_are_told(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(4u << 20);
    bool is_full, is_ok;
    str packed = pack(arena, sample(arena), 31);
    unpack(arena, S("gzip"), str_slice(packed, 0, packed.len - 9), 100, 1u << 20, &is_full, &is_ok);
    assert_false(is_ok);
    unpack(arena, S("gzip"), S("no gzip at all"), 100, 100, &is_full, &is_ok);
    assert_false(is_ok);
    assert_null(inflate_create(S("br")));
    assert_null(inflate_create(STR_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form_comes_back_in_any_cut),
        cmocka_unit_test(test_members_of_gzip_follow_each_other),
        cmocka_unit_test(test_a_bomb_stops_at_the_bound_and_one_byte_less_is_whole),
        cmocka_unit_test(test_damage_and_a_cut_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
