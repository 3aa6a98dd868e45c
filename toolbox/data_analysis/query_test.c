#include "query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void tool_release_all(void);

static const char table[] =
    "city,day,temp\nOslo,2024-01-05,-3\nRome,2024-01-06,11.5\nOslo,2024-02-01,1\n"
    "Rome,2024-02-02,\n";

static bool read_table(const struct byte_source *source, uint64_t offset, void *to, size_t size,
                       size_t *got, struct tool_error *e)
{
    if (!text_equal(source->name, TEXT("t.csv")))
        return tool_fail(e, "not_found", "no such file");
    struct byte_source text = byte_source_text((struct text){table, sizeof table - 1});
    return text.read(&text, offset, to, size, got, e);
}

/* Runs the query and returns its answer as JSON, or its error's message. */
static char *run(const char *input)
{
    struct tool_error e = {0};
    yyjson_doc *doc = yyjson_read(input, strlen(input), 0);
    assert_non_null(doc);
    yyjson_mut_doc *output = yyjson_mut_doc_new(NULL);
    bool ok =
        query_run(yyjson_doc_get_root(doc), (struct byte_source){.read = read_table}, output, &e);
    char *answer = ok ? yyjson_mut_write(output, 0, NULL) : strdup(e.message);
    yyjson_mut_doc_free(output);
    yyjson_doc_free(doc);
    tool_release_all();
    assert_non_null(answer);
    return answer;
}

static void expect(const char *input, const char *want)
{
    char *answer = run(input);
    assert_string_equal(answer, want);
    free(answer);
}

static void expect_error(const char *input, const char *part)
{
    char *answer = run(input);
    assert_non_null(strstr(answer, part));
    free(answer);
}

static void test_without_steps_the_rows_come_back(void **state)
{
    (void) state;
    expect("{\"data\":\"a;b\\n1;x\\n\"}",
           "{\"columns\":[\"a\",\"b\"],\"rows\":[[1,\"x\"]],\"row_count\":1}");
}

static void test_group_by_keeps_the_order_of_appearance(void **state)
{
    (void) state;
    expect(
        "{\"file\":\"t.csv\",\"steps\":[{\"group_by\":[\"city\"],\"aggregate\":[{\"op\":\"mean\","
        "\"column\":\"temp\"},{\"op\":\"count\"}]}]}",
        "{\"columns\":[\"city\",\"mean_temp\",\"count\"],\"rows\":[[\"Oslo\",-1.0,2],"
        "[\"Rome\",11.5,2]],\"row_count\":2}");
}

static void test_steps_follow_one_another(void **state)
{
    (void) state;
    expect(
        "{\"file\":\"t.csv\",\"steps\":[{\"filter\":{\"column\":\"temp\",\"op\":\"not_null\"}},"
        "{\"derive\":{\"as\":\"month\",\"op\":\"month\",\"column\":\"day\"}},"
        "{\"sort\":[{\"column\":\"temp\",\"order\":\"desc\"}]},{\"limit\":2},"
        "{\"select\":[\"city\",\"month\"]}]}",
        "{\"columns\":[\"city\",\"month\"],\"rows\":[[\"Rome\",1],[\"Oslo\",2]],\"row_count\":2}");
}

static void test_nulls_sort_last_in_both_directions(void **state)
{
    (void) state;
    expect("{\"file\":\"t.csv\",\"steps\":[{\"sort\":[{\"column\":\"temp\",\"order\":\"desc\"}]},"
           "{\"select\":[\"temp\"]}]}",
           "{\"columns\":[\"temp\"],\"rows\":[[11.5],[1],[-3],[null]],\"row_count\":4}");
}

static void test_json_rows_with_different_keys(void **state)
{
    (void) state;
    expect("{\"data\":[{\"a\":1},{\"b\":{\"x\":[1]},\"a\":true}]}",
           "{\"columns\":[\"a\",\"b\"],\"rows\":[[1,null],[true,\"{\\\"x\\\":[1]}\"]],\"row_"
           "count\":2}");
}

static void test_errors_name_the_step_or_column(void **state)
{
    (void) state;
    expect_error("{\"file\":\"x\"}", "no such file");
    expect_error("{\"file\":\"t.csv\",\"steps\":[{\"select\":[\"nope\"]}]}", "city, day, temp");
    expect_error("{\"file\":\"t.csv\",\"steps\":[{},1]}", "step 1");
    expect_error(
        "{\"file\":\"t.csv\",\"steps\":[{\"aggregate\":[{\"op\":\"sum\",\"column\":\"city\"}]}]}",
        "such as \"Oslo\" at line 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_steps_the_rows_come_back),
        cmocka_unit_test(test_group_by_keeps_the_order_of_appearance),
        cmocka_unit_test(test_steps_follow_one_another),
        cmocka_unit_test(test_nulls_sort_last_in_both_directions),
        cmocka_unit_test(test_json_rows_with_different_keys),
        cmocka_unit_test(test_errors_name_the_step_or_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
