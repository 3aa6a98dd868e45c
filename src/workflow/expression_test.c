#include "workflow/expression.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct arena *arena;
static const struct json *variables;

static int set_up(void **state)
{
    static const char scope[] =
        "{\"input\":{\"name\":\"Ada\",\"price\":10,\"rate\":1.5,\"none\":null,\"wide\":"
        "18446744073709551615,"
        "\"a\":{\"b\":{\"c\":7}},\"items\":[{\"price\":5,\"id\":\"x\"},{\"price\":20,\"id\":\"y\"},"
        "{\"price\":30,\"id\":\"z\"}],\"words\":[\"b\",\"a\"],\"text\":\"gr\\u00fc\\u00dfe\"},"
        "\"steps\":{\"book\":{\"output\":{\"id\":42},\"status\":\"completed\"}},"
        "\"item\":{\"n\":1},\"loop\":{\"index\":3}}";
    struct error e = {0};
    (void) state;
    arena = arena_create(512u << 20);
    return json_parse(arena, str_from_cstr(scope), (struct json_limits){0}, &variables, &e) ? 0
                                                                                            : -1;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *find(void *owner, str name)
{
    return json_get(owner, name);
}

static struct expression_scope scope_of(const struct json *tree)
{
    return (struct expression_scope){.find = find, .owner = (void *) (uintptr_t) tree};
}

static bool evaluate(const char *text, const struct json **out, struct error *e)
{
    struct expression *expression;
    struct expression_scope scope = scope_of(variables);
    return expression_parse(arena, str_from_cstr(text), &expression, e) &&
           expression_evaluate(expression, &scope, arena, out, e);
}

static void assert_gives(const char *text, const char *expected)
{
    const struct json *value = NULL;
    struct error e = {0};
    if (!evaluate(text, &value, &e))
        fail_msg("%s: %s", text, e.message);
    str printed = json_print(arena, value);
    if (!str_equal(printed, str_from_cstr(expected)))
        fail_msg("%s gives %.*s, not %s", text, STR_ARG(printed), expected);
}

static void assert_fails(const char *text, const char *part)
{
    const struct json *value = NULL;
    struct error e = {0};
    if (evaluate(text, &value, &e))
        fail_msg("%s gives %.*s", text, STR_ARG(json_print(arena, value)));
    if (!strstr(e.message, part))
        fail_msg("%s fails with: %s", text, e.message);
}

struct expected {
    const char *text, *value;
};
#define ASSERT_ALL(cases)                                                                          \
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)                                                \
    assert_gives((cases)[i].text, (cases)[i].value)
#define ASSERT_ALL_FAIL(cases)                                                                     \
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)                                                \
    assert_fails((cases)[i].text, (cases)[i].value)

static void test_literals_are_values(void **state)
{
    static const struct expected cases[] = {
        {"42", "42"},
        {"0x55555555", "1431655765"},
        {"-0x55555555", "-1431655765"},
        {"0xFf", "255"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"1.5", "1.5"},
        {".5", "0.5"},
        {"-2.3e+1", "-23.0"},
        {"1e3", "1000.0"},
        {"true", "true"},
        {"false", "false"},
        {"null", "null"},
        {"\"\"", "\"\""},
        {"''", "\"\""},
        {"'\"'", "\"\\\"\""},
        {"\"'\"", "\"'\""},
        {"'''x''x'''", "\"x''x\""},
        {"\"\"\"a\nb\"\"\"", "\"a\\nb\""},
        {"r\"\\n\\1\"", "\"\\\\n\\\\1\""},
        {"R'\\d'", "\"\\\\d\""},
        {"'\\n\\t\\\\\\'\\\"\\`\\?'", "\"\\n\\t\\\\'\\\"`?\""},
        {"'\\a\\b\\f\\r\\v'", "\"\\u0007\\b\\f\\r\\u000b\""},
        {"'\\x41\\X42\\103'", "\"ABC\""},
        {"'\\u00ff' == 'ÿ'", "true"},
        {"'\\U0001F431' == '\xf0\x9f\x90\xb1'", "true"},
        {"'\\303'  == 'Ã'", "true"},
        {"[]", "[]"},
        {"[1, 'two', [3.0], ]", "[1,\"two\",[3.0]]"},
        {"{}", "{}"},
        {"{'a': 1, 'b': {'c': [null]},}", "{\"a\":1,\"b\":{\"c\":[null]}}"},
        {"1 // a comment\n + 1", "2"},
    };
    (void) state;
    ASSERT_ALL(cases);
}

static void test_arithmetic_is_of_one_type_and_overflow_is_an_error(void **state)
{
    static const struct expected cases[] = {
        {"40 + 2", "42"},
        {"42 - 7", "35"},
        {"6 * 7", "42"},
        {"7 / 2", "3"},
        {"-7 / 2", "-3"},
        {"43 % 5", "3"},
        {"-43 % 5", "-3"},
        {"43 % -5", "3"},
        {"1 + 2 * 3 - 4 / 2", "5"},
        {"(1 + 2) * 3", "9"},
        {"10 - 3 - 2", "5"},
        {"40.5 + 1.5", "42.0"},
        {"1.0 / 4.0", "0.25"},
        {"-(5)", "-5"},
        {"--5", "5"},
        {"-input.price", "-10"},
        {"'a' + 'b' + ''", "\"ab\""},
        {"[1] + [2, 3]", "[1,2,3]"},
        {"[] + []", "[]"},
        {"-9223372036854775807 - 1", "-9223372036854775808"},
        {"input.price * 2", "20"},
        {"double(input.price) * input.rate", "15.0"},
    };
    static const struct expected failures[] = {
        {"9223372036854775807 + 1", "does not fit"},
        {"-9223372036854775808 - 1", "does not fit"},
        {"5000000000 * 5000000000", "does not fit"},
        {"-(-9223372036854775808)", "does not fit"},
        {"-9223372036854775808 / -1", "does not fit"},
        {"-9223372036854775808 % -1", "does not fit"},
        {"1 / 0", "division by zero"},
        {"1 % 0", "division by zero"},
        {"1.0 / 0.0", "finite"},
        {"1e308 * 10.0", "finite"},
        {"1 + 1.0", "convert one with double()"},
        {"input.price * input.rate", "column 13: * between int and double"},
        {"'a' + 1", "+ between string and int"},
        {"null + 1", "null_type"},
        {"1.5 % 1.0", "ints"},
        {"input.wide + 1", "uint"},
        {"9223372036854775808", "does not fit 64 bits"},
        {"1e999", "too large"},
        {"1u", "leave the u out"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failures);
}

static void test_comparing_is_safe_of_type(void **state)
{
    static const struct expected cases[] = {
        {"1 < 2", "true"},
        {"2 < 1", "false"},
        {"1 <= 1", "true"},
        {"2 > 1.5", "true"},
        {"1 < 1.000000001", "true"},
        {"9223372036854775807 < 9223372036854775808.0", "true"},
        {"9007199254740993 > 9007199254740992.0", "true"},
        {"-1 >= -1.5", "true"},
        {"'a' < 'b'", "true"},
        {"'a' < 'aa'", "true"},
        {"'B' < 'a'", "true"},
        {"false < true", "true"},
        {"1 == 1.0", "true"},
        {"1 == 1.5", "false"},
        {"1 == '1'", "false"},
        {"1 != '1'", "true"},
        {"null == null", "true"},
        {"null == false", "false"},
        {"'' == null", "false"},
        {"[1, 2] == [1, 2]", "true"},
        {"[1, 2] == [2, 1]", "false"},
        {"[1] == [1.0]", "true"},
        {"{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "true"},
        {"{'a': 1} == {'a': 1, 'b': 2}", "false"},
        {"{'a': 1} == {'b': 1}", "false"},
        {"[] == {}", "false"},
        {"input.items[0] == {'id': 'x', 'price': 5}", "true"},
        {"input.wide == input.wide", "true"},
        {"input.wide == -1", "false"},
        {"1 in [3, 2, 1]", "true"},
        {"'1' in [1]", "false"},
        {"{'a': 1} in [{'a': 1}]", "true"},
        {"'a' in {'a': 0}", "true"},
        {"'b' in {'a': 0}", "false"},
        {"1 in {'1': 0}", "false"},
        {"!(2 in [])", "true"},
        {"1 + 1 in [2]", "true"},
    };
    static const struct expected failures[] = {
        {"1 < 'a'", "< between int and string"},
        {"null < 1", "< between null_type and int"},
        {"[1] < [2]", "between list and list"},
        {"'a' in 'abc'", "in looks into a list or map"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failures);
}

static void test_logic_stops_where_the_answer_is_known(void **state)
{
    static const struct expected cases[] = {
        {"true && true", "true"},
        {"true && false", "false"},
        {"false && 1 / 0 == 1", "false"},
        {"true || 1 / 0 == 1", "true"},
        {"false || true", "true"},
        {"false || false || true", "true"},
        {"true || false && false", "true"},
        {"!true", "false"},
        {"!!true", "true"},
        {"!false && true", "true"},
        {"true ? 1 : 2", "1"},
        {"false ? 1 : 2", "2"},
        {"true ? 1 : 1 / 0", "1"},
        {"false ? 1 / 0 : 2", "2"},
        {"false ? 1 : true ? 2 : 3", "2"},
        {"(true ? false : true) ? 1 : 2", "2"},
        {"input.items.filter(i, i.price > 10).size() <= 3 ? \"few\" : \"many\"", "\"few\""},
        {"has(input.nope) && input.nope.x > 1", "false"},
    };
    static const struct expected failures[] = {
        {"1 && true", "&& joins bools, not int"},
        {"true && 1", "join bools, not int"},
        {"false || 'x'", "join bools"},
        {"1 / 0 == 1 && false", "division"},
        {"!1", "! takes a bool"},
        {"-true", "- takes an int"},
        {"1 ? 2 : 3", "must be a bool"},
        {"null || true", "bools, not null_type"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failures);
}

static void test_members_are_read_and_asked_for(void **state)
{
    static const struct expected cases[] = {
        {"input.name", "\"Ada\""},
        {"input.a.b.c", "7"},
        {"input['a'][\"b\"].c", "7"},
        {"input.items[1].id", "\"y\""},
        {"input.items[input.items.size() - 1].id", "\"z\""},
        {"input.none", "null"},
        {"input.wide", "18446744073709551615"},
        {"has(input.name)", "true"},
        {"has(input.nope)", "false"},
        {"has(input.none)", "true"},
        {"has(input.a.b)", "true"},
        {"!has(input.a.x)", "true"},
        {"has({'a': 1}.a)", "true"},
        {"steps.book.output.id", "42"},
        {"steps['book'].status", "\"completed\""},
        {"has(steps.book)", "true"},
        {"has(steps.other)", "false"},
        {"has(steps.book.error)", "false"},
        {"item.n + loop.index", "4"},
        {"{'in': 1}.in", "1"},
    };
    static const struct expected failures[] = {
        {"input.nope", "column 7: there is no member \"nope\"; ask with has() first"},
        {"nothing", "column 1: there is no \"nothing\" here"},
        {"steps.other.output", "no step \"other\" has ended here"},
        {"input.name.x", "\"x\" is asked of string, which is no map"},
        {"input.none.x", "null_type, which is no map"},
        {"has(input.name.x)", "no map"},
        {"input.items[3]", "index 3 of a list of 3"},
        {"input.items[-1]", "index -1"},
        {"input.items['a']", "an index is an int"},
        {"input[0]", "a key of a map is a string"},
        {"input.name[0]", "[] is for lists and maps"},
        {"steps", "name the step"},
        {"steps[input.name]", "it cannot be computed"},
        {"has(input)", "has() takes one member"},
        {"has(1 + input.a)", "has() takes one member"},
        {"has((true ? input.a : input.b))", "has() takes one member"},
        {"has(input['a'])", "has() takes one member"},
        {"{'a': 1, 'a': 2}", "stands twice"},
        {"{1: 2}", "a key of a map is a string"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failures);
}

static void test_macros_go_over_lists_and_maps(void **state)
{
    static const struct expected cases[] = {
        {"[1, 2, 3].all(x, x > 0)", "true"},
        {"[1, 2, 3].all(x, x > 1)", "false"},
        {"[].all(x, x > 0)", "true"},
        {"[1, 2, 3].exists(x, x == 2)", "true"},
        {"[].exists(x, true)", "false"},
        {"[1, 2, 3].exists_one(x, x > 2)", "true"},
        {"[1, 2, 3].exists_one(x, x > 1)", "false"},
        {"[].exists_one(x, true)", "false"},
        {"[1, 2, 3].map(x, x * x)", "[1,4,9]"},
        {"[1, 2, 3].map(x, x > 1, x * 10)", "[20,30]"},
        {"[1, 2, 3].filter(x, x % 2 == 1)", "[1,3]"},
        {"[].map(x, x / 0)", "[]"},
        {"input.items.map(i, i.id)", "[\"x\",\"y\",\"z\"]"},
        {"input.items.filter(i, i.price > input.price)",
         "[{\"price\":20,\"id\":\"y\"},{\"price\":30,\"id\":\"z\"}]"},
        {"{'a': 1, 'b': 2}.map(k, k)", "[\"a\",\"b\"]"},
        {"{'a': 1}.all(k, k == 'a')", "true"},
        {"{'a': 1, 'b': 2}.exists(k, k == 'b')", "true"},
        {"[[1, 2], [3]].map(xs, xs.map(x, x + 1))", "[[2,3],[4]]"},
        {"[[1, 2], [3]].map(x, x.map(x, x + 1))", "[[2,3],[4]]"},
        {"[1, 2].map(x, [3, 4].map(y, x * y))", "[[3,4],[6,8]]"},
        {"[1, 2].map(x, [x].exists(y, y == 2))", "[false,true]"},
        {"[1].map(input, input + 1)", "[2]"},
        {"[1].map(steps, steps + 1)[0] + steps.book.output.id", "44"},
        {"[1, 0].exists(x, x == 1 || 1 / x == 5)", "true"},
        {"[3, 1].map(x, {'v': x})", "[{\"v\":3},{\"v\":1}]"},
    };
    static const struct expected failures[] = {
        {"1.map(x, x)", "column 3: a macro goes over a list"},
        {"'abc'.map(x, x)", "a macro goes over a list or map, not string"},
        {"[1].all(x, x)", "condition must be a bool, not int"},
        {"[1].filter(x, 'y')", "condition must be a bool"},
        {"[1].map(1, 2)", "begins with the name"},
        {"[1].map(x)", "expected ,"},
        {"[1].map(x, x) + x", "column 17: there is no \"x\" here"},
        {"[1].all(x, 1 / 0 == x)", "division"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failures);
}

static void test_functions_work_on_characters(void **state)
{
    static const struct expected cases[] = {
        {"size('four')", "4"},
        {"size('')", "0"},
        {"input.text.size()", "5"},
        {"'\\U0001F431'.size()", "1"},
        {"size([1, 2])", "2"},
        {"size({'a': 1})", "1"},
        {"int('-17')", "-17"},
        {"int(3.99)", "3"},
        {"int(-3.99)", "-3"},
        {"int(5)", "5"},
        {"double('2.5e3')", "2500.0"},
        {"double(4)", "4.0"},
        {"string(123)", "\"123\""},
        {"string(123.456)", "\"123.456\""},
        {"string(-0.0045)", "\"-0.0045\""},
        {"string(1.0)", "\"1\""},
        {"string(true)", "\"true\""},
        {"string('x')", "\"x\""},
        {"bool('true')", "true"},
        {"type(1) == int && type(1.0) == double && type('') == string", "true"},
        {"type(null) == null_type && type([]) == list && type({}) == map && type(true) == bool",
         "true"},
        {"'foobar'.contains('bar')", "true"},
        {"'foobar'.contains('')", "true"},
        {"'foobar'.startsWith('foo')", "true"},
        {"'foobar'.startsWith('bar')", "false"},
        {"'foobar'.endsWith('bar')", "true"},
        {"'hello'.indexOf('lo')", "3"},
        {"input.text.indexOf('e')", "4"},
        {"'a'.indexOf('b')", "-1"},
        {"'TacoCÆt'.lowerAscii()", "\"tacocÆt\""},
        {"'tacoCæt'.upperAscii()", "\"TACOCæT\""},
        {"' \\t x y \\n'.trim()", "\"x y\""},
        {"'tacocat'.substring(4)", "\"cat\""},
        {"'tacocat'.substring(0, 4)", "\"taco\""},
        {"input.text.substring(2, 4)", "\"üß\""},
        {"'hello hello'.replace('he', 'we')", "\"wello wello\""},
        {"'hello hello'.replace('he', 'we', 1)", "\"wello hello\""},
        {"'hello'.replace('he', 'we', 0)", "\"hello\""},
        {"'aaa'.replace('', 'x')", "\"aaa\""},
        {"'a,b,c'.split(',')", "[\"a\",\"b\",\"c\"]"},
        {"'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"},
        {"'a,b,c'.split(',', 0)", "[]"},
        {"'a,b'.split(',', -1)", "[\"a\",\"b\"]"},
        {"',a,'.split(',')", "[\"\",\"a\",\"\"]"},
        {"''.split(',')", "[\"\"]"},
        {"'aü'.split('')", "[\"a\",\"ü\"]"},
        {"['x', 'y'].join()", "\"xy\""},
        {"['x', 'y', 'z'].join('-')", "\"x-y-z\""},
        {"[].join('-')", "\"\""},
        {"input.words.join(' ')", "\"b a\""},
        {"range(3)", "[0,1,2]"},
        {"range(-1, 2)", "[-1,0,1]"},
        {"range(0)", "[]"},
        {"[[1, 2], [], [3]].flatten()", "[1,2,3]"},
        {"to_json({'a': [1, null]})", "\"{\\\"a\\\":[1,null]}\""},
        {"from_json('{\"a\": [1, 2.5]}').a[1]", "2.5"},
        {"from_json(to_json(input)) == input", "true"},
    };
    static const struct expected failures[] = {
        {"size(1)", "size(): takes a string, list or map, not int"},
        {"int('1.5')", "no integer"},
        {"int('x')", "no integer"},
        {"int(1e19)", "does not fit"},
        {"int(true)", "takes an int, a double, a string or a timestamp"},
        {"double('nope')", "no number"},
        {"string([1])", "to_json() takes all"},
        {"bool(1)", "bool()"},
        {"1.5.contains('a')", "contains(): takes strings, not double"},
        {"contains('a', 'b')", "write x.f(), not f(x)"},
        {"'a'.range()", "write f(x), not x.f()"},
        {"nope(1)", "there is no function nope()"},
        {"'a'.nope()", "there is no function nope()"},
        {"'a'.contains()", "takes 1 to 1 arguments in its parentheses, 0 are given"},
        {"size(1, 2)", "takes 1 to 1 arguments, 2 are given"},
        {"'abc'.substring(4)", "index 4 of a string of 3 characters"},
        {"'abc'.substring(-1)", "index -1"},
        {"'abc'.substring(2, 1)", "the end lies before the begin"},
        {"from_json('{')", "from_json(): line 1"},
        {"[1].join()", "a list of strings, not int"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failures);
}

static void test_texts_are_searched_by_patterns(void **state)
{
    static const struct expected cases[] = {
        {"'order-2026'.matches('^[a-z]+-[0-9]{4}$')", "true"},
        {"matches('an order', 'order$')", "true"},
        {"'grüße'.matches(r'^\\w+.\\S+$')", "true"},
        {"input.items.filter(i, i.id.matches('[xy]')).size()", "2"},
        {"['a', 'b', 'a1'].map(w, w.matches(w == 'b' ? 'b' : '^a$'))", "[true,true,false]"},
    };
    static const struct expected failing[] = {
        {"'a'.matches('(')",
         "column 13: matches(): the pattern, at its character 1: unclosed group; close it"},
        {"'a'.matches('(a)\\\\1')", "backreferences are not supported"},
        {"'a'.matches(input.name + '(')", "matches(): the pattern, at its character 4"},
        {"'a'.matches(1)", "takes strings, not int"},
        {"range(1000).map(i, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').all(t, "
         "!t.matches('(a?){30}a{60}'))",
         "more than 1000000 steps of work"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failing);
}

static void test_times_and_durations_are_computed_with(void **state)
{
    static const struct expected cases[] = {
        {"timestamp('2026-11-23T04:05:06Z')", "\"2026-11-23T04:05:06Z\""},
        {"timestamp('2026-11-23T04:05:06.250+02:00')", "\"2026-11-23T02:05:06.25Z\""},
        {"timestamp(1700000000)", "\"2023-11-14T22:13:20Z\""},
        {"int(timestamp('1969-12-31T23:59:59.5Z'))", "-1"},
        {"duration('1h30m')", "\"5400s\""},
        {"duration('-1.5s')", "\"-1.5s\""},
        {"duration('1d2h3m4s5ms6us7ns')", "\"93784.005006s\""},
        {"duration('0')", "\"0s\""},
        {"string(duration('250ms')) + string(timestamp(0))", "\"0.25s1970-01-01T00:00:00Z\""},
        {"timestamp('2026-02-28T23:00:00Z') + duration('2h')", "\"2026-03-01T01:00:00Z\""},
        {"duration('2h') + timestamp('2026-02-28T23:00:00Z')", "\"2026-03-01T01:00:00Z\""},
        {"timestamp('2026-03-01T00:00:00Z') - duration('1s')", "\"2026-02-28T23:59:59Z\""},
        {"timestamp('2026-03-01T00:00:00Z') - timestamp('2026-02-01T00:00:00Z')", "\"2419200s\""},
        {"duration('1h') - duration('90m')", "\"-1800s\""},
        {"duration('60s') == duration('1m')", "true"},
        {"timestamp('2026-01-01T00:00:00Z') == timestamp('2026-01-01T02:00:00+02:00')", "true"},
        {"timestamp(0) < timestamp(1) && duration('1s') >= duration('999ms')", "true"},
        {"timestamp(0) == 0", "false"},
        {"timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') > duration('23h')",
         "true"},
        {"type(timestamp(0)) == timestamp && type(duration('1s')) == duration", "true"},
        {"[timestamp(0), duration('1m')]", "[\"1970-01-01T00:00:00Z\",\"60s\"]"},
        {"{'at': timestamp(0)}.at", "\"1970-01-01T00:00:00Z\""},
        {"timestamp('2026-12-24T18:30:15.123456Z').getFullYear()", "2026"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getMonth()", "11"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getDate()", "24"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getDayOfMonth()", "23"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getDayOfWeek()", "4"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getDayOfYear()", "357"},
        {"timestamp('2028-12-31T00:00:00Z').getDayOfYear()", "365"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getHours()", "18"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getMinutes()", "30"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getSeconds()", "15"},
        {"timestamp('2026-12-24T18:30:15.123456Z').getMilliseconds()", "123"},
        {"timestamp('2026-12-31T23:30:00Z').getFullYear('+01:00')", "2027"},
        {"timestamp('2026-01-01T00:30:00Z').getDate('-00:45')", "31"},
        {"timestamp('1969-12-31T23:00:00Z').getDayOfWeek('UTC')", "3"},
        {"duration('90m').getHours()", "1"},
        {"duration('90m').getMinutes()", "90"},
        {"duration('90m').getSeconds()", "5400"},
        {"duration('1234ms').getMilliseconds()", "234"},
    };
    static const struct expected failing[] = {
        {"timestamp('yesterday')", "column 11: timestamp(): \"yesterday\" is no time such as"},
        {"timestamp(input.name)", "timestamp(): \"Ada\" is no time"},
        {"timestamp(9223372036854775807)", "not of the years 1 to 9999"},
        {"timestamp('9999-12-31T23:59:59Z') + duration('1s')", "not of the years 1 to 9999"},
        {"duration('5 minutes')", "is no duration such as 90s"},
        {"duration('')", "is no duration"},
        {"duration('1')", "is no duration"},
        {"duration('99999999999999999999h')", "is no duration"},
        {"duration('87660000h') + duration('1h')", "over 10,000 years"},
        {"timestamp(0) + timestamp(0)", "+ between timestamp and timestamp"},
        {"duration('1s') - timestamp(0)", "- between duration and timestamp"},
        {"duration('1s') * 2", "* between duration and int"},
        {"duration('1s') < 2", "< between duration and int"},
        {"timestamp(0).getHours('Europe/Berlin')", "a zone is UTC or an offset"},
        {"timestamp(0).getHours('+15:00')", "a zone is UTC or an offset"},
        {"duration('1s').getFullYear()", "takes a timestamp, not duration"},
        {"'x'.getHours()", "takes a timestamp, not string"},
    };
    (void) state;
    ASSERT_ALL(cases);
    ASSERT_ALL_FAIL(failing);
}

static void test_what_cannot_be_read_says_where(void **state)
{
    static const struct expected failures[] = {
        {"", "column 1: a value is missing at the end"},
        {"1 +", "column 4: a value is missing at the end"},
        {"1 2", "column 3: expected an operator"},
        {"(1", "column 3: expected )"},
        {"[1, 2", "column 6: expected , or ]"},
        {"{'a' 1}", "column 6: expected : after a map's key"},
        {"a.", "column 3: a name must follow the point"},
        {"a.1", "column 2"},
        {"a ? 1", "column 6: expected :"},
        {"'abc", "column 1: this string has no end"},
        {"'a\nb'", "this string has no end"},
        {"'\\q'", "no such escape"},
        {"'\\ud800'", "names no character"},
        {"'\\777'", "no such escape"},
        {"a = 1", "write == to compare"},
        {"a & b", "write && for and"},
        {"a | b", "write || for or"},
        {"${a}", "no ${...} inside"},
        {"a # b", "no meaning"},
        {"12ab", "a number ends where a letter stands"},
        {"0x", "needs digits"},
        {"b'x'", "no strings of bytes"},
        {"+1", "a value is missing before +"},
        {"in [1]", "a value is missing before in"},
        {"!-1 +", "a value is missing"},
    };
    (void) state;
    ASSERT_ALL_FAIL(failures);
}

static const char *repeated(const char *begin, const char *piece, size_t count, const char *end)
{
    struct strbuf text;
    strbuf_init(&text, arena, 1u << 20);
    strbuf_add(&text, str_from_cstr(begin));
    for (size_t i = 0; i < count; i++)
        strbuf_add(&text, str_from_cstr(piece));
    strbuf_add(&text, str_from_cstr(end));
    return str_to_cstr(arena, strbuf_str(&text));
}

static void test_nesting_and_length_are_bounded(void **state)
{
    (void) state;
    const char *closing = repeated("", ")", EXPRESSION_DEPTH_MAX - 1, "");
    assert_gives(repeated("", "(", EXPRESSION_DEPTH_MAX - 1, repeated("1", closing, 1, "")), "1");
    closing = repeated("", ")", EXPRESSION_DEPTH_MAX, "");
    assert_fails(repeated("", "(", EXPRESSION_DEPTH_MAX, repeated("1", closing, 1, "")),
                 "nested deeper");
    assert_fails(repeated("", "[", 10000, ""), "nested deeper");
    assert_gives(repeated("0", " + 1", 4000, ""), "4000"); /* a chain is not nested */
    assert_gives(repeated("", "!", 10000, "true"), "true");
    assert_gives(repeated("'", "x", EXPRESSION_BYTES_MAX - 11, "'.size()"), "16373");
    assert_fails(repeated("'", "x", EXPRESSION_BYTES_MAX, "'"), "at most");
}

static void test_work_and_memory_are_bounded(void **state)
{
    (void) state;
    struct error e = {0};
    const struct json *value;
    assert_false(evaluate("range(1000).map(x, range(1000).map(y, range(1000)))", &value, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    assert_false(
        evaluate("range(1000).all(a, range(1000).all(b, range(1000).all(c, true)))", &value, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    size_t before = arena_bytes(arena);
    assert_false(evaluate("range(30).map(x, 'ab').map(s, s + s).join().split('').map(c, "
                          "range(100000)).size() > 0",
                          &value, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    assert_true(arena_bytes(arena) - before < 160u << 20);
    assert_gives("range(10000).filter(x, x % 2 == 0).size()", "5000");
}

static void test_a_value_of_the_scope_is_passed_on_without_a_copy(void **state)
{
    const struct json *value;
    struct error e = {0};
    (void) state;
    assert_true(evaluate("input.items", &value, &e));
    assert_ptr_equal(value, json_path(variables, S("/input/items")));
    assert_true(evaluate("true ? input.a : null", &value, &e));
    assert_ptr_equal(value, json_path(variables, S("/input/a")));
}

static void note(void *owner, str name)
{
    strbuf_printf(owner, STR_FMT " ", STR_ARG(name));
}

static void test_what_an_expression_reads_is_known_before_it_runs(void **state)
{
    struct expression *expression;
    struct error e = {0};
    struct strbuf names;
    (void) state;
    strbuf_init(&names, arena, 4096);
    assert_true(
        expression_parse(arena,
                         S("steps.a.output + steps['b-c'].output + input.steps.d + steps.a.x + "
                           "[1].map(q, q)[0]"),
                         &expression, &e));
    expression_each_step(expression, note, &names);
    assert_string_equal(str_to_cstr(arena, strbuf_str(&names)), "a b-c ");
    strbuf_truncate(&names, 0);
    expression_each_variable(expression, note, &names);
    assert_string_equal(str_to_cstr(arena, strbuf_str(&names)), "input steps ");
    assert_true(expression_reads(expression, S("input")));
    assert_true(expression_reads(expression, S("steps")));
    assert_false(expression_reads(expression, S("q")));
}

static const struct json *find_step(void *owner, str id)
{
    (void) owner;
    return str_equal(id, S("one")) ? json_path(variables, S("/steps/book")) : NULL;
}

static void test_steps_may_be_looked_up_one_by_one(void **state)
{
    struct expression *expression;
    struct expression_scope scope = {.find = find, .find_step = find_step};
    const struct json *value;
    struct error e = {0};
    (void) state;
    assert_true(
        expression_parse(arena, S("has(steps.two) ? 0 : steps.one.output.id"), &expression, &e));
    assert_true(expression_evaluate(expression, &scope, arena, &value, &e));
    assert_string_equal(str_to_cstr(arena, json_print(arena, value)), "42");
}

static void test_a_condition_is_a_boolean(void **state)
{
    struct expression *expression;
    struct expression_scope scope = scope_of(variables);
    struct error e = {0};
    bool holds = false;
    (void) state;
    assert_true(expression_parse(arena, S("input.price > 3"), &expression, &e));
    assert_true(expression_test(expression, &scope, arena, &holds, &e) && holds);
    assert_true(expression_parse(arena, S("input.price"), &expression, &e));
    assert_false(expression_test(expression, &scope, arena, &holds, &e));
    assert_non_null(strstr(e.message, "must be true or false, not int"));
}

/* ---- any text ---- */

static const char *const words[] = {
    "input", ".",    "items", "(",   ")",      "[",      "]",   "{",      "}",     ",",    ":",
    "?",     "1",    "2.5",   "'s'", "+",      "-",      "*",   "/",      "%",     "<",    "==",
    "!=",    "&&",   "||",    "!",   " in ",   "x",      "map", "filter", "all",   "size", "steps",
    "book",  "true", "null",  "has", "exists", "string", "a",   "b",      "\"k\"", " ",
};

static void test_any_words_parse_or_say_why_and_give_the_same_value_twice(void **state)
{
    struct expression_scope scope = scope_of(variables);
    uint64_t random = 0x9e3779b97f4a7c15u;
    size_t parsed = 0;
    (void) state;
    for (size_t round = 0; round < 200000; round++) {
        char text[256];
        size_t len = 0, count = random % 12 + 1;
        for (size_t i = 0; i < count; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            const char *word = words[(random >> 33) % ARRAY_COUNT(words)];
            memcpy(text + len, word, strlen(word));
            len += strlen(word);
        }
        arena_mark mark = arena_save(arena);
        struct expression *expression;
        struct error e = {0}, again = {0};
        const struct json *first, *second;
        if (expression_parse(arena, str_of(text, len), &expression, &e)) {
            parsed++;
            bool ok = expression_evaluate(expression, &scope, arena, &first, &e);
            assert_int_equal(ok, expression_evaluate(expression, &scope, arena, &second, &again));
            if (ok)
                assert_true(str_equal(json_print(arena, first), json_print(arena, second)));
            else
                assert_string_equal(e.message, again.message);
        } else {
            assert_int_equal(strncmp(e.message, "column ", 7), 0);
        }
        arena_rewind(arena, mark);
    }
    assert_true(parsed > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals_are_values),
        cmocka_unit_test(test_arithmetic_is_of_one_type_and_overflow_is_an_error),
        cmocka_unit_test(test_comparing_is_safe_of_type),
        cmocka_unit_test(test_logic_stops_where_the_answer_is_known),
        cmocka_unit_test(test_members_are_read_and_asked_for),
        cmocka_unit_test(test_macros_go_over_lists_and_maps),
        cmocka_unit_test(test_functions_work_on_characters),
        cmocka_unit_test(test_texts_are_searched_by_patterns),
        cmocka_unit_test(test_times_and_durations_are_computed_with),
        cmocka_unit_test(test_what_cannot_be_read_says_where),
        cmocka_unit_test(test_nesting_and_length_are_bounded),
        cmocka_unit_test(test_work_and_memory_are_bounded),
        cmocka_unit_test(test_a_value_of_the_scope_is_passed_on_without_a_copy),
        cmocka_unit_test(test_what_an_expression_reads_is_known_before_it_runs),
        cmocka_unit_test(test_steps_may_be_looked_up_one_by_one),
        cmocka_unit_test(test_a_condition_is_a_boolean),
        cmocka_unit_test(test_any_words_parse_or_say_why_and_give_the_same_value_twice),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
