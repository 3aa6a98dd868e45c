#include "csv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

void tool_release_all(void);

/* Reads everything and joins it as field|field/field|field/ for comparison. */
static const char *read_all(const char *text, char separator, struct tool_error *e)
{
    static char out[4096];
    struct byte_source source = byte_source_text((struct text){text, strlen(text)});
    struct csv csv;
    bool has_record;
    size_t used = 0;
    assert_true(csv_init(&csv, &source, separator, e));
    while (csv_next(&csv, &has_record, e)) {
        if (!has_record) {
            out[used] = '\0';
            csv_deinit(&csv);
            return out;
        }
        for (size_t i = 0; i < csv.field_count; i++) {
            memcpy(out + used, csv.fields[i].ptr, csv.fields[i].len);
            used += csv.fields[i].len;
            out[used++] = i + 1 < csv.field_count ? '|' : '/';
        }
    }
    csv_deinit(&csv);
    return NULL;
}

static void expect(const char *text, const char *want)
{
    struct tool_error e = {0};
    const char *got = read_all(text, ',', &e);
    assert_non_null(got);
    assert_string_equal(got, want);
}

static void test_fields_and_records(void **state)
{
    (void) state;
    expect("a,b\n1,2\n", "a|b/1|2/");
    expect("a,b\r\n1,2", "a|b/1|2/");
    expect("a,,\n,\n", "a||/|/");
    expect("", "");
}

static void test_quotes(void **state)
{
    (void) state;
    expect("\"a,b\",\"c\"\"d\"\n", "a,b|c\"d/");
    expect("\"two\nlines\",x\r\n", "two\nlines|x/");
    expect("a\"b,\"c\"d\n", "a\"b|cd/");
    expect("\"\",\"x\"", "|x/");
}

static void test_byte_order_mark_and_empty_lines_are_skipped(void **state)
{
    (void) state;
    expect("\xEF\xBB\xBF"
           "a\n\n\r\nb\n",
           "a/b/");
}

static void test_an_unclosed_quote_names_the_line_of_its_record(void **state)
{
    (void) state;
    struct tool_error e = {0};
    assert_null(read_all("a\nb\n\"c\nd\n", ',', &e));
    assert_string_equal(e.code, "invalid_input");
    assert_non_null(strstr(e.message, "line 3"));
}

static void test_too_many_fields_is_a_limit(void **state)
{
    (void) state;
    char text[CSV_FIELDS_MAX + 1];
    struct tool_error e = {0};
    memset(text, ',', CSV_FIELDS_MAX);
    text[CSV_FIELDS_MAX - 1] = '\0';
    struct byte_source source = byte_source_text((struct text){text, CSV_FIELDS_MAX - 1});
    struct csv csv;
    bool has_record;
    assert_true(csv_init(&csv, &source, ',', &e));
    assert_true(csv_next(&csv, &has_record, &e));
    assert_int_equal(csv.field_count, CSV_FIELDS_MAX);
    csv_deinit(&csv);
    text[CSV_FIELDS_MAX - 1] = ',';
    source.name.len = CSV_FIELDS_MAX;
    assert_true(csv_init(&csv, &source, ',', &e));
    assert_false(csv_next(&csv, &has_record, &e));
    assert_string_equal(e.code, "limit");
    csv_deinit(&csv);
}

static void test_separator_is_found_outside_quotes(void **state)
{
    (void) state;
    assert_int_equal(csv_detect_separator("a;b;c\n1,2,3,4", 13), ';');
    assert_int_equal(csv_detect_separator("\"a,b,c\";d", 9), ';');
    assert_int_equal(csv_detect_separator("a\tb", 3), '\t');
    assert_int_equal(csv_detect_separator("word", 4), ',');
}

static int release(void **state)
{
    (void) state;
    tool_release_all();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_fields_and_records, release),
        cmocka_unit_test_teardown(test_quotes, release),
        cmocka_unit_test_teardown(test_byte_order_mark_and_empty_lines_are_skipped, release),
        cmocka_unit_test_teardown(test_an_unclosed_quote_names_the_line_of_its_record, release),
        cmocka_unit_test_teardown(test_too_many_fields_is_a_limit, release),
        cmocka_unit_test_teardown(test_separator_is_found_outside_quotes, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
