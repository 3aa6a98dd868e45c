#include "base/log.h"

#include "base/arena.h"
#include "base/json.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

static char last_line[LOG_LINE_BYTES_MAX + 1];
static size_t last_bytes;
static int line_count;
static enum log_level last_level;
static struct arena *arena;

static void keep_line(void *context, enum log_level level, str line)
{
    assert_ptr_equal(context, &line_count);
    assert_in_range(line.len, 1, LOG_LINE_BYTES_MAX);
    memcpy(last_line, line.ptr, line.len);
    last_line[line.len] = '\0';
    last_bytes = line.len;
    last_level = level;
    line_count++;
}

static int64_t fixed_now(void)
{
    return INT64_C(1795406706000007);
}

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(0);
    line_count = 0;
    log_set_sink(keep_line, &line_count);
    log_set_clock(fixed_now);
    log_set_level(LOG_LEVEL_INFO);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    log_set_sink(NULL, NULL);
    log_set_clock(NULL);
    arena_destroy(arena);
    return 0;
}

static const struct json *read_line(void)
{
    const struct json *value = NULL;
    struct error e = {0};
    assert_int_equal(last_line[last_bytes - 1], '\n');
    if (!json_parse(arena, str_of(last_line, last_bytes), (struct json_limits){0}, &value, &e))
        fail_msg("%s in %s", e.message, last_line);
    return value;
}

static void test_a_line_has_the_ecs_names(void **state)
{
    (void) state;
    LOG_INFO("http.server", S("listening"), LOG_STR("server.address", S("::1")),
             LOG_I64("server.port", 8080), LOG_BOOL("tls", false));
    assert_string_equal(
        last_line, "{\"@timestamp\":\"2026-11-23T04:05:06.000007Z\",\"log.level\":\"info\",\"log."
                   "logger\":\"http.server\","
                   "\"ecs.version\":\"8.17\",\"service.name\":\"nexus\",\"message\":\"listening\","
                   "\"server.address\":\"::1\",\"server.port\":8080,\"tls\":false}\n");
}

static void test_a_line_without_fields(void **state)
{
    (void) state;
    LOG_WARN("x", S("careful"));
    assert_int_equal(json_count(read_line()), 6);
    assert_int_equal(last_level, LOG_LEVEL_WARN);
}

static void test_levels_below_the_set_one_are_not_written(void **state)
{
    (void) state;
    LOG_DEBUG("x", S("no"));
    log_write(LOG_LEVEL_DEBUG, "x", S("no"), NULL, 0);
    assert_int_equal(line_count, 0);
    log_set_level(LOG_LEVEL_DEBUG);
    LOG_DEBUG("x", S("yes"), LOG_I64("n", 1));
    assert_int_equal(line_count, 1);
    log_set_level(LOG_LEVEL_ERROR);
    LOG_WARN("x", S("no"));
    assert_int_equal(line_count, 1);
    assert_false(log_is_on(LOG_LEVEL_WARN));
}

static void test_level_names_are_read(void **state)
{
    (void) state;
    enum log_level level = LOG_LEVEL_INFO;
    assert_true(log_level_parse(S("debug"), &level) && level == LOG_LEVEL_DEBUG);
    assert_true(log_level_parse(S("error"), &level) && level == LOG_LEVEL_ERROR);
    assert_false(log_level_parse(S("ERROR"), &level));
    assert_false(log_level_parse(S(""), &level));
}

static void test_an_error_is_logged_with_type_code_and_message(void **state)
{
    (void) state;
    struct error e = {0};
    error_set(&e, REASON_DISK_FULL, "cannot write \"x\"");
    LOG_ERROR("store", S("commit failed"), &e, LOG_STR("trace.id", S("abc")));
    const struct json *line = read_line();
    assert_true(str_equal(json_str_or(line, S("log.level"), STR_NONE), S("error")));
    assert_true(str_equal(json_str_or(line, S("error.type"), STR_NONE), S("disk_full")));
    assert_true(str_equal(json_str_or(line, S("error.code"), STR_NONE), S("UNAVAILABLE")));
    assert_true(
        str_equal(json_str_or(line, S("error.message"), STR_NONE), S("cannot write \"x\"")));
    assert_true(str_equal(json_str_or(line, S("trace.id"), STR_NONE), S("abc")));
}

static void test_values_cannot_forge_a_line(void **state)
{
    (void) state;
    LOG_INFO("x", S("a\n{\"log.level\":\"error\"}\xff"),
             LOG_STR("k", S("\",\"admin\":true,\"x\":\"\r\n")));
    assert_ptr_equal(strchr(last_line, '\n'), last_line + last_bytes - 1);
    assert_null(json_get(read_line(), S("admin")));
}

static str filled(const char *piece, size_t count)
{
    struct strbuf b;
    strbuf_init(&b, arena, 1u << 20);
    for (size_t i = 0; i < count; i++)
        strbuf_add(&b, str_from_cstr(piece));
    return strbuf_str(&b);
}

static void test_a_line_that_just_fits_is_whole_and_one_byte_more_cuts_it(void **state)
{
    (void) state;
    LOG_INFO("x", STR_NONE);
    size_t room =
        LOG_LINE_BYTES_MAX - sizeof(",\"nexus.truncated\":true}\n") + 1 - (last_bytes - 2);
    LOG_INFO("x", filled("m", room));
    assert_int_equal(json_str_or(read_line(), S("message"), STR_NONE).len, room);
    assert_false(json_bool_or(read_line(), S("nexus.truncated"), false));
    LOG_INFO("x", filled("m", room + 1));
    assert_in_range(json_str_or(read_line(), S("message"), STR_NONE).len, room / 2, room);
    assert_true(json_bool_or(read_line(), S("nexus.truncated"), false));
}

static void test_long_values_are_cut_in_valid_json(void **state)
{
    (void) state;
    const char *const pieces[] = {"x", "😀", "\x01", "\"", "\xff"};
    for (size_t i = 0; i < ARRAY_COUNT(pieces); i++) {
        LOG_INFO("x", filled(pieces[i], 20000), LOG_STR("a", filled(pieces[i], 9000)),
                 LOG_I64("b", 5), LOG_STR("c", S("end")));
        assert_true(json_bool_or(read_line(), S("nexus.truncated"), false));
        assert_true(json_str_or(read_line(), S("message"), STR_NONE).len > 500);
    }
}

static void test_many_fields_are_left_out_at_the_end(void **state)
{
    (void) state;
    struct log_field fields[1000];
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        fields[i] = LOG_I64("labels.number", (int64_t) i);
    log_write(LOG_LEVEL_INFO, "x", S("many"), fields, ARRAY_COUNT(fields));
    const struct json *line = NULL;
    struct error e = {0};
    assert_true(json_parse(arena, str_of(last_line, last_bytes),
                           (struct json_limits){.allow_duplicates = true}, &line, &e));
    assert_true(json_bool_or(line, S("nexus.truncated"), false));
}

static void test_the_default_sink_is_stderr(void **state)
{
    (void) state;
    int ends[2], saved = dup(STDERR_FILENO);
    char text[1000] = {0};
    log_set_sink(NULL, NULL);
    log_set_clock(NULL);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    LOG_INFO("x", S("hello"));
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    assert_non_null(strstr(text, "\"message\":\"hello\"}\n"));
    assert_non_null(strstr(text, "\"@timestamp\":\"2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_line_has_the_ecs_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_line_without_fields, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_levels_below_the_set_one_are_not_written, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_level_names_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_error_is_logged_with_type_code_and_message, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_values_cannot_forge_a_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_line_that_just_fits_is_whole_and_one_byte_more_cuts_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_values_are_cut_in_valid_json, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_fields_are_left_out_at_the_end, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_default_sink_is_stderr, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
