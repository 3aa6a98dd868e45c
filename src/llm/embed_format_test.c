/* Embeddings as text: numbers that read back, answers that are checked. */
#include "llm/embed_format.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "runtime/simulated.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void check_number(float value)
{
    char text[EMBED_NUMBER_BYTES + 1];
    size_t len = embed_print_number(value, text);
    assert_true(len < EMBED_NUMBER_BYTES);
    text[len] = 0;
    if (strtof(text, NULL) != value || (float) strtod(text, NULL) != value)
        fail_msg("%a was printed as %s", (double) value, text);
}

static void test_a_printed_number_reads_back_to_the_same_float(void **state)
{
    (void) state;
    static const float odd[] = {0,     1,      -1,      0.1f,       1e-6f,    9.9999994f, 1e8f,
                                1e-7f, 1e-45f, 3.4e38f, 0.9999999f, 16777216, 8388609,    0.5f};
    for (size_t i = 0; i < ARRAY_COUNT(odd); i++)
        check_number(odd[i]);
    struct random *random = random_seeded_create(11);
    for (int i = 0; i < 400000; i++) {
        float any = float_of((uint32_t) random_u64(random));
        float unit = (float) (int64_t) random_u64(random) / 9.3e18f;
        if (isfinite(any))
            check_number(any);
        check_number(unit);
        check_number(unit * unit * unit);
    }
    random_seeded_destroy(random);
}

static void expect_text(float value, const char *wanted)
{
    char text[EMBED_NUMBER_BYTES + 1];
    text[embed_print_number(value, text)] = 0;
    assert_string_equal(text, wanted);
}

static void test_a_printed_number_is_short(void **state)
{
    (void) state;
    expect_text(0, "0");
    expect_text(1, "1");
    expect_text(-12.5f, "-12.5");
    expect_text(0.1f, "0.1");
    expect_text(-0.006929283f, "-0.006929283");
    expect_text(100, "100");
    expect_text(2e-6f, "0.000002");
    expect_text(16777216, "16777216");
}

static void test_packed_floats_are_little_endian(void **state)
{
    (void) state;
    const float values[] = {1, -2.5f};
    char bytes[8];
    embed_pack(values, 2, bytes);
    assert_memory_equal(bytes, "\x00\x00\x80\x3f\x00\x00\x20\xc0", 8);
}

static bool read_for(struct arena *arena, const char *text, const struct embed_request *request,
                     struct embed_reply *reply, struct error *e)
{
    const struct json *body;
    *e = (struct error){0};
    assert_true(json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &body, e));
    return embed_read_reply(arena, body, request, reply, e);
}

static const str two_texts[] = {S_INIT("a"), S_INIT("b")};

static void test_vectors_come_back_in_the_order_of_the_inputs(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct embed_request request = {.texts = two_texts, .text_count = 2};
    struct embed_reply reply;
    struct error e;
    assert_true(read_for(arena,
                         "{\"model\":\"m-1\",\"data\":[{\"index\":1,\"embedding\":[3,4.5]},"
                         "{\"index\":0,\"embedding\":\"AACAPwAAIMA=\"}],"
                         "\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7}}",
                         &request, &reply, &e));
    assert_int_equal(reply.dimension, 2);
    assert_true(reply.vectors[0][0] == 1 && reply.vectors[0][1] == -2.5f);
    assert_true(reply.vectors[1][0] == 3 && reply.vectors[1][1] == 4.5f);
    assert_true(reply.usage.is_reported && reply.usage.input_tokens == 7);
    assert_true(str_equal(reply.model, S("m-1")));
    assert_true(read_for(arena, "{\"data\":[{\"embedding\":[1]},{\"embedding\":[2]}]}", &request,
                         &reply, &e));
    assert_true(reply.vectors[1][0] == 2);
    assert_false(reply.usage.is_reported);
}

static void test_an_answer_that_does_not_fit_is_refused(void **state)
{
    (void) state;
    static const char *const bad[] = {
        "{}",
        "{\"data\":[]}",
        "{\"data\":[{\"embedding\":[1]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[1]},{\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":2,\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":-1,\"embedding\":[1]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[1,2]}]}",
        "{\"data\":[{\"embedding\":[]},{\"embedding\":[]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[\"1\"]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[1e99]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":\"AACAfw==\"}]}", /* infinity */
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":\"AAAA\"}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":\"*\"}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":null}]}",
        "{\"data\":[{\"embedding\":[1]},7]}",
    };
    OWNED(arena) arena = arena_create(0);
    struct embed_request request = {.texts = two_texts, .text_count = 2};
    struct embed_reply reply;
    struct error e;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        if (read_for(arena, bad[i], &request, &reply, &e) || e.reason != REASON_PROVIDER_PROTOCOL)
            fail_msg("%s: %s", bad[i], e.message);
    }
    request.dimensions = 3;
    assert_false(read_for(arena, "{\"data\":[{\"embedding\":[1,2]},{\"embedding\":[1,2]}]}",
                          &request, &reply, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_PROTOCOL);
    assert_false(read_for(arena, "{\"error\":{\"message\":\"no\",\"code\":\"insufficient_quota\"}}",
                          &request, &reply, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_QUOTA);
}

static void test_a_request_says_what_was_asked(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct strbuf text;
    struct json_writer w;
    struct embed_request request = {.model = S("m"),
                                    .texts = (const str[]){S("a\"b"), S("c")},
                                    .text_count = 2,
                                    .dimensions = 8,
                                    .user = S("u")};
    strbuf_init(&text, arena, 1000);
    json_writer_init(&w, &text);
    embed_write_request(&w, &request);
    assert_true(str_equal(strbuf_str(&text),
                          S("{\"model\":\"m\",\"input\":[\"a\\\"b\",\"c\"],\"encoding_format\":"
                            "\"base64\",\"dimensions\":8,\"user\":\"u\"}")));
    request = (struct embed_request){
        .model = S("m"), .texts = (const str[]){S("[1,2]")}, .text_count = 1, .are_tokens = true};
    strbuf_init(&text, arena, 1000);
    json_writer_init(&w, &text);
    embed_write_request(&w, &request);
    assert_true(str_equal(strbuf_str(&text),
                          S("{\"model\":\"m\",\"input\":[[1,2]],\"encoding_format\":\"base64\"}")));
    assert_int_equal(embed_tokens_bound(S("[1,2]"), true), 2);
    assert_true(embed_tokens_bound(S("word"), false) >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_printed_number_reads_back_to_the_same_float),
        cmocka_unit_test(test_a_printed_number_is_short),
        cmocka_unit_test(test_packed_floats_are_little_endian),
        cmocka_unit_test(test_vectors_come_back_in_the_order_of_the_inputs),
        cmocka_unit_test(test_an_answer_that_does_not_fit_is_refused),
        cmocka_unit_test(test_a_request_says_what_was_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
