/* The offline stand-in: the provider contract, and the questions it must get right. */
#include "base/arena.h"
#include "llm/offline_internal.h"
#include "llm/provider_contract.h"
#include "runtime/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct arena *arena;
static struct prompt_message messages[40];
static size_t message_count;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    message_count = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

/* ---- a conversation ---- */

static void add(enum role role, struct part part)
{
    struct part *kept = ARENA_NEW(arena, struct part);
    *kept = part;
    messages[message_count++] =
        (struct prompt_message){.role = role, .parts = kept, .part_count = 1};
}

static void begin(const char *question)
{
    message_count = 0;
    add(ROLE_SYSTEM,
        (struct part){
            .kind = PART_TEXT,
            .text = S("Be helpful.\n\nFiles in this session: notes.txt (5 bytes, text/plain), "
                      "weather.csv (123 bytes, text/csv)")});
    add(ROLE_USER, (struct part){.kind = PART_TEXT, .text = str_from_cstr(question)});
}

static struct offline_turn *next(void)
{
    static struct tool_spec tools[] = {{.name = S_INIT("data_analysis")},
                                       {.name = S_INIT("code_execution")},
                                       {.name = S_INIT("http_request")},
                                       {.name = S_INIT("time")},
                                       {.name = S_INIT("text_processing")}};
    struct prompt *prompt = ARENA_NEW(arena, struct prompt);
    *prompt = (struct prompt){.model = S("offline"),
                              .messages = messages,
                              .message_count = message_count,
                              .tools = tools,
                              .tool_count = 5,
                              .max_output_tokens = 1000};
    struct offline_turn *turn = ARENA_NEW(arena, struct offline_turn);
    turn->arena = arena;
    turn->prompt = prompt;
    strbuf_init(&turn->text, arena, 1u << 20);
    if (!offline_play_script(turn))
        offline_decide(turn);
    return turn;
}

static void give(const struct offline_turn *turn, size_t call, const char *result, bool is_error)
{
    add(ROLE_ASSISTANT, turn->calls[call]);
    add(ROLE_TOOL, (struct part){.kind = PART_TOOL_RESULT,
                                 .call_id = turn->calls[call].call_id,
                                 .name = turn->calls[call].name,
                                 .text = str_from_cstr(result),
                                 .is_error = is_error});
}

static const char description[] =
    "{\"columns\":[\"column\",\"type\",\"count\",\"nulls\",\"distinct\",\"min\",\"max\",\"mean\","
    "\"stddev\"],\"rows\":["
    "[\"date\",\"date\",100,0,100,\"2012-01-01\",\"2013-12-31\",null,null],"
    "[\"temp_max\",\"number\",100,0,60,-1.6,35.6,16.4,7.3],[\"temp_min\",\"number\",100,0,60,-7.1,"
    "18.3,8.2,5.0],"
    "[\"wind\",\"number\",100,0,40,0.4,9.5,3.2,1.4],[\"sales\",\"integer\",100,0,90,1,99,50,3],"
    "[\"weather\",\"text\",100,0,3,\"rain\",\"sun\",null,null]],\"row_count\":6}";
static const char values[] = "{\"columns\":[\"weather\",\"count\"],\"rows\":[[\"rain\",50],["
                             "\"sun\",40],[\"fog\",10]],\"row_count\":3}";

/* The last call made for a question, behind the description and the values when they are asked for.
 * */
static struct offline_turn *plan(const char *question)
{
    begin(question);
    struct offline_turn *turn = next();
    assert_int_equal(turn->call_count, 1);
    assert_true(str_equal(turn->calls[0].arguments,
                          S("{\"file\":\"weather.csv\",\"steps\":[{\"describe\":true}]}")));
    give(turn, 0, description, false);
    turn = next();
    if (turn->call_count == 1 &&
        str_find(turn->calls[0].arguments, S("{\"limit\":200}")) != STR_NOT_FOUND) {
        give(turn, 0, values, false);
        turn = next();
    }
    assert_int_equal(turn->call_count, 1);
    return turn;
}

static void assert_steps(const char *question, const char *steps)
{
    struct offline_turn *turn = plan(question);
    const struct json *tree;
    struct error e = {0};
    assert_true(json_parse(arena, turn->calls[0].arguments, (struct json_limits){0}, &tree, &e));
    assert_string_equal(str_to_cstr(arena, json_print(arena, json_get(tree, S("steps")))), steps);
}

static const char *said(const struct offline_turn *turn)
{
    return str_to_cstr(arena, strbuf_str(&turn->text));
}

#define GROUP(column, op, measure)                                                                 \
    "{\"group_by\":[\"" column "\"],\"aggregate\":[{\"op\":\"" op "\",\"column\":\"" measure       \
    "\"},{\"op\":\"count\"}]}"
#define ONE(op, measure)                                                                           \
    "{\"aggregate\":[{\"op\":\"" op "\",\"column\":\"" measure "\"},{\"op\":\"count\"}]}"
#define COUNT "{\"aggregate\":[{\"op\":\"count\"}]}"
#define SORT(column, order) "{\"sort\":[{\"column\":\"" column "\",\"order\":\"" order "\"}]}"
#define FILTER(column, op, value)                                                                  \
    "{\"filter\":{\"column\":\"" column "\",\"op\":\"" op "\",\"value\":" value "}}"

static void test_questions_become_the_right_steps(void **state)
{
    (void) state;
    assert_steps(
        "Which weather type has the highest average wind?",
        "[" GROUP("weather", "mean", "wind") "," SORT("mean_wind", "desc") ",{\"limit\":50}]");
    assert_steps("What is the average maximum temperature per weather?",
                 "[" GROUP("weather", "mean", "temp_max") "," SORT("mean_temp_max",
                                                                   "desc") ",{\"limit\":50}]");
    assert_steps(
        "Which weather had the lowest total sales?",
        "[" GROUP("weather", "sum", "sales") "," SORT("sum_sales", "asc") ",{\"limit\":50}]");
    assert_steps("Which weather has the most sales?", "[" GROUP("weather", "sum", "sales") "," SORT(
                                                          "sum_sales", "desc") ",{\"limit\":50}]");
    assert_steps("What was the lowest minimum temperature?", "[" ONE("min", "temp_min") "]");
    assert_steps("median wind", "[" ONE("median", "wind") "]");
    assert_steps("How many rows are there?", "[" COUNT "]");
    assert_steps("How many different weather types are there?",
                 "[" ONE("count_distinct", "weather") "]");
    assert_steps("What is the most common weather?",
                 "[{\"group_by\":[\"weather\"],\"aggregate\":[{\"op\":\"count\"}]}," SORT(
                     "count", "desc") ",{\"limit\":50}]");
    assert_steps(
        "top 2 weather types by average wind",
        "[" GROUP("weather", "mean", "wind") "," SORT("mean_wind", "desc") ",{\"limit\":2}]");
}

static void test_filters_are_found_in_values_numbers_and_years(void **state)
{
    (void) state;
    assert_steps("What was the average wind on rainy days?",
                 "[" FILTER("weather", "eq", "\"rain\"") "," ONE("mean", "wind") "]");
    assert_steps("How many days had wind above 5.5?",
                 "[" FILTER("wind", "gt", "5.5") "," COUNT "]");
    assert_steps("How many foggy days were there in 2013?",
                 "[{\"derive\":{\"column\":\"date\",\"op\":\"year\",\"as\":\"year\"}}," FILTER(
                     "year", "eq", "2013") "," FILTER("weather", "eq", "\"fog\"") "," COUNT "]");
    assert_steps("total sales by month",
                 "[{\"derive\":{\"column\":\"date\",\"op\":\"month\",\"as\":\"month\"}}," GROUP(
                     "month", "sum", "sales") "," SORT("month", "asc") ",{\"limit\":50}]");
    assert_steps("Compare the average wind of rain and sun",
                 "[" FILTER("weather", "in", "[\"rain\",\"sun\"]") "," GROUP(
                     "weather", "mean", "wind") "," SORT("mean_wind", "desc") ",{\"limit\":50}]");
}

static void test_the_answer_copies_the_figures_and_names_the_call(void **state)
{
    (void) state;
    struct offline_turn *turn = plan("Which weather type has the highest average wind?");
    give(turn, 0,
         "{\"columns\":[\"weather\",\"mean_wind\",\"count\"],\"rows\":[[\"sun\",3.6698907956318254,"
         "40],[\"fog\",2.5,10]],"
         "\"row_count\":2}",
         false);
    str id = turn->calls[0].call_id;
    turn = next();
    assert_int_equal(turn->call_count, 0);
    assert_non_null(
        strstr(said(turn), "with the highest average wind is sun, with 3.6698907956318254."));
    assert_non_null(strstr(said(turn), "- fog: 2.5 (10 rows)"));
    assert_non_null(strstr(said(turn), str_to_cstr(arena, id)));
    assert_string_equal(said(next()), said(turn)); /* the same prompt, the same turn */
}

static void test_a_second_question_does_not_describe_again(void **state)
{
    (void) state;
    struct offline_turn *turn = plan("median wind");
    give(turn, 0, "{\"columns\":[\"median_wind\",\"count\"],\"rows\":[[3.1,100]],\"row_count\":1}",
         false);
    turn = next();
    assert_non_null(strstr(said(turn), "the median wind is 3.1 (over 100 rows)"));
    add(ROLE_ASSISTANT, (struct part){.kind = PART_TEXT, .text = S("...")});
    add(ROLE_USER, (struct part){.kind = PART_TEXT, .text = S("and the total sales?")});
    turn = next();
    assert_int_equal(turn->call_count, 1);
    assert_true(str_find(turn->calls[0].arguments, S("\"sum\"")) != STR_NOT_FOUND);
}

static void test_a_failed_call_is_told_and_not_repeated(void **state)
{
    (void) state;
    begin("average wind");
    struct offline_turn *turn = next();
    give(turn, 0, "{\"error\":{\"type\":\"policy_denied\"}}", true);
    turn = next();
    assert_int_equal(turn->call_count, 0);
    assert_non_null(strstr(said(turn), "policy_denied"));
    turn = plan("median wind");
    give(turn, 0, "no JSON", false);
    turn = next();
    assert_int_equal(turn->call_count, 0);
    assert_non_null(strstr(said(turn), "no table"));
}

static void assert_call(const char *question, const char *tool, const char *arguments)
{
    begin(question);
    struct offline_turn *turn = next();
    assert_int_equal(turn->call_count, 1);
    assert_string_equal(str_to_cstr(arena, turn->calls[0].name), tool);
    assert_string_equal(str_to_cstr(arena, turn->calls[0].arguments), arguments);
}

static void test_other_questions_go_to_other_tools(void **state)
{
    (void) state;
    assert_call("What is 12*(3+4)?", "code_execution",
                "{\"language\":\"javascript\",\"code\":\"const result = 12*(3+4);\"}");
    assert_call("compute 2^10 please", "code_execution",
                "{\"language\":\"javascript\",\"code\":\"const result = 2**10;\"}");
    assert_call("Run this:\n```js\nlet result = \"x\";\n```", "code_execution",
                "{\"language\":\"javascript\",\"code\":\"let result = \\\"x\\\";\\n\"}");
    assert_call("Fetch https://example.com/a?b=1.", "http_request",
                "{\"method\":\"GET\",\"url\":\"https://example.com/a?b=1\"}");
    assert_call("What time is it?", "time", "{\"operation\":\"now\"}");
    assert_call("Count the words in \"to be or not\"", "text_processing",
                "{\"operation\":\"count\",\"text\":\"to be or not\"}");
    assert_call("extract the emails: a@b.c and d", "text_processing",
                "{\"operation\":\"extract\",\"text\":\"a@b.c and d\",\"kind\":\"emails\"}");
}

static void test_their_results_are_told_with_the_call(void **state)
{
    (void) state;
    begin("What is 12*(3+4)?");
    struct offline_turn *turn = next();
    give(turn, 0, "{\"result\":84,\"stdout\":\"\",\"stderr\":\"\",\"exit_code\":0}", false);
    turn = next();
    assert_int_equal(turn->call_count, 0);
    assert_non_null(strstr(said(turn), "the result is 84."));
    assert_non_null(strstr(said(turn), "call_offline_2_0"));
}

static void test_without_a_tool_it_says_honestly_what_it_is(void **state)
{
    (void) state;
    message_count = 0;
    add(ROLE_USER, (struct part){.kind = PART_TEXT, .text = S("Hello!")});
    struct offline_turn *turn = next();
    assert_int_equal(turn->call_count, 0);
    assert_non_null(strstr(said(turn), "no language model is connected"));
}

static void test_scripts_play_one_step_for_each_turn(void **state)
{
    (void) state;
    begin("x\n[[offline "
          "{\"script\":[{\"text\":\"a\",\"tool_calls\":[{\"name\":\"time\",\"arguments\":\"{bad\"}]"
          "},{\"sleep_ms\":5},"
          "{\"error\":\"overloaded\"}]}]]\ny");
    struct offline_turn *turn = next();
    assert_string_equal(said(turn), "a");
    assert_true(str_equal(turn->calls[0].arguments, S("{bad")));
    give(turn, 0, "ok", false);
    turn = next();
    assert_true(turn->has_error);
    assert_int_equal(turn->error.reason, REASON_PROVIDER_OVERLOADED);
    assert_int_equal(turn->sleep_ms, 5);
    add(ROLE_ASSISTANT, (struct part){.kind = PART_TEXT, .text = S("z")});
    assert_non_null(strstr(said(next()), "ended"));
}

static void test_words_are_stemmed(void **state)
{
    (void) state;
    static const char *const pairs[][2] = {
        {"rainy", "rain"},      {"sunny", "sun"},   {"countries", "country"},
        {"prices", "price"},    {"boxes", "box"},   {"classes", "class"},
        {"species", "species"}, {"foggy", "fog"},   {"temp", "temperature"},
        {"revenue", "sales"},   {"stopped", "stop"}};
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++) {
        struct words a = offline_words(arena, str_from_cstr(pairs[i][0])),
                     b = offline_words(arena, str_from_cstr(pairs[i][1]));
        if (offline_word_match(&a.items[0], &b.items[0]) < 2)
            fail_msg("%s and %s: " STR_FMT " " STR_FMT, pairs[i][0], pairs[i][1],
                     STR_ARG(a.items[0].stem), STR_ARG(b.items[0].stem));
    }
    struct words words = offline_words(arena, S("Miles_per_Gallon bodyMass 1,234.5 -7 it's"));
    assert_int_equal(words.count, 8);
    assert_true(words.items[5].number > 1234 && words.items[6].number < -6);
}

/* ---- the provider ---- */

static void run_provider(void *argument)
{
    struct loop *loop = argument;
    struct context ctx;
    struct provider *provider = NULL;
    struct error e = {0};
    context_init(&ctx, loop_scheduler(loop), arena, DEADLINE_NONE);
    assert_true(provider_offline_create(S("offline"), &provider, &e));
    provider_contract(provider, &ctx);
    /* The limit of the output holds for text and for calls. */
    struct part part = {.kind = PART_TEXT,
                        .text = S("[[offline {\"script\":[{\"tokens\":100}]}]]")};
    struct prompt_message message = {.role = ROLE_USER, .parts = &part, .part_count = 1};
    struct prompt prompt = {
        .model = S("m"), .messages = &message, .message_count = 1, .max_output_tokens = 100};
    struct reply reply;
    assert_true(provider_complete(provider, &ctx, NULL, &prompt, &reply, &e));
    assert_int_equal(reply.usage.output_tokens, 100);
    assert_int_equal(reply.finish, FINISH_STOP);
    prompt.max_output_tokens = 99;
    assert_true(provider_complete(provider, &ctx, NULL, &prompt, &reply, &e));
    assert_int_equal(reply.usage.output_tokens, 99);
    assert_int_equal(reply.finish, FINISH_LENGTH);
    assert_true(reply.usage.input_tokens <= prompt_input_tokens_bound(&prompt));
    struct http_exchange *exchange = NULL;
    assert_false(provider_forward(provider, &ctx, NULL, S("/x"), S(""), &exchange, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_INVALID);
    provider_destroy(provider);
    assert_false(provider_offline_create(STR_NONE, &provider, &e));
    context_deinit(&ctx);
    loop_stop(loop);
}

static void test_it_keeps_the_contract_of_providers(void **state)
{
    (void) state;
    struct error e = {0};
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    assert_non_null(loop);
    assert_true(coroutine_start(loop_scheduler(loop), "test", run_provider, loop, &e));
    loop_run(loop);
    loop_destroy(loop);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_questions_become_the_right_steps),
        TEST(test_filters_are_found_in_values_numbers_and_years),
        TEST(test_the_answer_copies_the_figures_and_names_the_call),
        TEST(test_a_second_question_does_not_describe_again),
        TEST(test_a_failed_call_is_told_and_not_repeated),
        TEST(test_other_questions_go_to_other_tools),
        TEST(test_their_results_are_told_with_the_call),
        TEST(test_without_a_tool_it_says_honestly_what_it_is),
        TEST(test_scripts_play_one_step_for_each_turn),
        TEST(test_words_are_stemmed),
        TEST(test_it_keeps_the_contract_of_providers),
    };
    return cmocka_run_group_tests_name("offline", tests, NULL, NULL);
}
