/* The native archive from C: what the header promises, with the real library. */
#include <nexus_native.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <wasmtime.h>

#include <cmocka.h>

#define ALLOW "data.nexus.agent.policy.allow"

/* The shipped example, letter for letter: old syntax, and `in` without its import. */
static const char example_policy[] = "package nexus.agent.policy\n"
                                     "\n"
                                     "default allow = false\n"
                                     "\n"
                                     "allow {\n"
                                     "    input.user.role == \"user\"\n"
                                     "    input.tool.category in [\"http\", \"text_processing\", "
                                     "\"data_analysis\"]\n"
                                     "    input.session.budget.tokens > 1000\n"
                                     "}\n"
                                     "\n"
                                     "allow {\n"
                                     "    input.user.role == \"admin\"\n"
                                     "}\n"
                                     "\n"
                                     "allow {\n"
                                     "    input.tool.category == \"system\"\n"
                                     "    input.approval.status == \"approved\"\n"
                                     "    input.approval.approver != input.user.id\n"
                                     "}\n";

static struct native_text text(const char *terminated)
{
    return (struct native_text){.data = terminated, .bytes = strlen(terminated)};
}

static struct native_rego *compile(const char *policy)
{
    struct native_rego_module module = {.name = text("p.rego"), .text = text(policy)};
    struct native_rego *rego = NULL;
    char *error = NULL;
    enum native_status status = native_rego_create(&module, 1, text(""), &rego, &error);
    if (status != NATIVE_OK)
        fail_msg("%s", error);
    return rego;
}

static void assert_refused(const char *policy, const char *message)
{
    struct native_rego_module module = {.name = text("p.rego"), .text = text(policy)};
    struct native_rego *rego = NULL;
    char *error = NULL;
    assert_int_equal(native_rego_create(&module, 1, text(""), &rego, &error), NATIVE_INVALID);
    assert_null(rego);
    assert_string_equal(error, message);
    native_string_free(error);
}

static void assert_value(const struct native_rego *rego, const char *input, const char *expected)
{
    char *value = NULL;
    char *error = NULL;
    enum native_status status = native_rego_eval(rego, text(ALLOW), text(input), 0, &value, &error);
    if (status != NATIVE_OK)
        fail_msg("status %d: %s", status, error ? error : "no error");
    assert_string_equal(value, expected);
    native_string_free(value);
}

static void test_example_policy_decides_as_written(void **state)
{
    (void) state;
    struct native_rego *rego = compile(example_policy);
    assert_value(rego,
                 "{\"user\":{\"id\":\"a\",\"role\":\"user\"},\"tool\":{\"category\":\"http\"},"
                 "\"session\":{\"budget\":{\"tokens\":1001}}}",
                 "true");
    assert_value(rego,
                 "{\"user\":{\"id\":\"a\",\"role\":\"user\"},\"tool\":{\"category\":\"http\"},"
                 "\"session\":{\"budget\":{\"tokens\":1000}}}",
                 "false");
    assert_value(rego, "{\"user\":{\"role\":\"admin\"}}", "true");
    assert_value(rego,
                 "{\"user\":{\"id\":\"a\"},\"tool\":{\"category\":\"system\"},"
                 "\"approval\":{\"status\":\"approved\",\"approver\":\"a\"}}",
                 "false");
    assert_value(rego,
                 "{\"user\":{\"id\":\"a\"},\"tool\":{\"category\":\"system\"},"
                 "\"approval\":{\"status\":\"approved\",\"approver\":\"b\"}}",
                 "true");
    assert_value(rego, "{}", "false");
    native_rego_destroy(rego);
}

static void test_explain_names_the_deciding_definition(void **state)
{
    (void) state;
    struct native_rego *rego = compile(example_policy);
    char *rules = NULL;
    assert_int_equal(native_rego_explain(rego, text(ALLOW), text("{\"user\":{\"role\":\"admin\"}}"),
                                         0, &rules, NULL),
                     NATIVE_OK);
    assert_string_equal(rules, "[{\"is_default\":false,\"line\":11,\"module\":\"p.rego\"}]");
    native_string_free(rules);
    native_rego_destroy(rego);
}

static void test_inputs_lists_the_paths_a_policy_reads(void **state)
{
    (void) state;
    struct native_rego *rego = compile("package a\n\nallow { input.user.role == \"x\"; input.n > "
                                       "5; count(input.list) < input.m }\n");
    char *inputs = NULL;
    assert_int_equal(native_rego_inputs(rego, &inputs, NULL), NATIVE_OK);
    assert_string_equal(inputs,
                        "{\"comparisons\":["
                        "{\"number\":5,\"operator\":\">\",\"path\":[\"n\"]},"
                        "{\"operator\":\"==\",\"path\":[\"user\",\"role\"],\"text\":\"x\"}],"
                        "\"has_with\":false,\"is_volatile\":false,"
                        "\"paths\":[[\"list\"],[\"m\"],[\"n\"],[\"user\",\"role\"]],"
                        "\"values\":[[\"list\"],[\"m\"]]}");
    native_string_free(inputs);
    native_rego_destroy(rego);
}

static void test_a_broken_policy_is_refused_with_its_place(void **state)
{
    (void) state;
    assert_refused("package a\n\nallow { input.x == }\n", "p.rego:3:20: expecting expression");
    assert_refused("package a\n\nallow if x > 1\n",
                   "p.rego:3:10: use of undefined variable `x` is unsafe");
    assert_refused("package a\n\nallow if missing(input.x)\n",
                   "p.rego:3:10: function `missing` is not defined");
    assert_refused("", "p.rego:1:1: expecting `package` Missing package declaration.");
}

static void test_an_endless_policy_ends_at_its_limit(void **state)
{
    (void) state;
    struct native_rego *rego = compile("package a\n"
                                       "x := count([1 | some i in numbers.range(1, 5000)\n"
                                       "some j in numbers.range(1, 5000); i == j])\n");
    char *value = NULL;
    char *error = NULL;
    assert_int_equal(native_rego_eval(rego, text("data.a.x"), text("{}"), 20000000, &value, &error),
                     NATIVE_TIMEOUT);
    assert_null(value);
    native_string_free(error);
    native_rego_destroy(rego);
}

static void test_wrong_calls_have_their_own_status(void **state)
{
    (void) state;
    struct native_rego *rego = compile("package a\nx := 1 if input.y\n");
    char *value = NULL;
    assert_int_equal(native_rego_eval(rego, text("data.a.x"), text("{}"), 0, &value, NULL),
                     NATIVE_UNDEFINED);
    assert_int_equal(native_rego_eval(rego, text("data.a.y"), text("{}"), 0, &value, NULL),
                     NATIVE_NOT_FOUND);
    assert_int_equal(native_rego_eval(rego, text("data.a.x"), text("{"), 0, &value, NULL),
                     NATIVE_INVALID);
    assert_int_equal(native_rego_eval(rego, text("data.a.x"), text("\"\xff\""), 0, &value, NULL),
                     NATIVE_INVALID);
    assert_null(value);
    native_rego_destroy(rego);
}

static void test_schema_reports_each_error_without_the_value(void **state)
{
    (void) state;
    struct native_schema *schema = NULL;
    assert_int_equal(native_schema_create(text("{\"properties\":{\"a\":{\"maximum\":5}},"
                                               "\"required\":[\"b\"]}"),
                                          &schema, NULL),
                     NATIVE_OK);
    char *errors = NULL;
    assert_int_equal(native_schema_validate(schema, text("{\"b\":1}"), 8, &errors, NULL),
                     NATIVE_OK);
    assert_null(errors);
    assert_int_equal(native_schema_validate(schema, text("{\"a\":424242}"), 8, &errors, NULL),
                     NATIVE_INVALID);
    assert_non_null(strstr(errors, "\"instance_path\":\"/a\""));
    assert_non_null(strstr(errors, "\"keyword\":\"required\""));
    assert_null(strstr(errors, "424242"));
    native_string_free(errors);
    errors = NULL;
    char *error = NULL;
    assert_int_equal(native_schema_validate(schema, text("{"), 8, &errors, &error), NATIVE_INVALID);
    assert_null(errors);
    native_string_free(error);
    native_schema_destroy(schema);
}

static void test_schema_fetches_nothing(void **state)
{
    (void) state;
    const char *schemas[] = {"{\"$ref\":\"http://127.0.0.1/x\"}",
                             "{\"$ref\":\"file:///etc/passwd\"}", "{\"type\":\"nonsense\"}",
                             "{\"pattern\":\"(\"}", "{"};
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++) {
        struct native_schema *schema = NULL;
        assert_int_equal(native_schema_create(text(schemas[i]), &schema, NULL), NATIVE_INVALID);
        assert_null(schema);
    }
}

static void test_a_pattern_matches_or_says_where_it_is_wrong(void **state)
{
    (void) state;
    const struct native_pattern_limits limits = {.depth = 32, .parts = 100, .bytes = 1 << 20};
    struct native_pattern *pattern = NULL;
    struct native_pattern_size size = {0};
    char *error = NULL;
    bool is_match = true;
    assert_int_equal(native_pattern_create(text("^\\w+-\\d{4}$"), &limits, &pattern, &size, &error),
                     NATIVE_OK);
    assert_int_equal(size.parts, 9);
    assert_int_equal(native_pattern_matches(pattern, text("an-12345"), &is_match, &error),
                     NATIVE_OK);
    assert_false(is_match);
    assert_int_equal(native_pattern_matches(pattern, text("an-1234"), &is_match, &error),
                     NATIVE_OK);
    assert_true(is_match);
    assert_int_equal(native_pattern_matches(pattern, text("\xff"), &is_match, NULL),
                     NATIVE_INVALID);
    native_pattern_destroy(pattern);
    pattern = NULL;
    assert_int_equal(native_pattern_create(text("a(b"), &limits, &pattern, &size, &error),
                     NATIVE_INVALID);
    assert_string_equal(error, "at its character 2: unclosed group; close it with )");
    assert_null(pattern);
    native_string_free(error);
    assert_int_equal(native_pattern_create(text("a{101}"), &limits, &pattern, &size, NULL),
                     NATIVE_INVALID);
    native_pattern_destroy(NULL);
}

static void test_wasmtime_runs_a_module_under_fuel(void **state)
{
    (void) state;
    static const unsigned char add[] = {0,    0x61, 0x73, 0x6d, 1,    0,    0,    0,   1,  7, 1,
                                        0x60, 2,    0x7f, 0x7f, 1,    0x7f, 3,    2,   1,  0, 7,
                                        7,    1,    3,    'a',  'd',  'd',  0,    0,   10, 9, 1,
                                        7,    0,    0x20, 0,    0x20, 1,    0x6a, 0x0b};
    wasm_config_t *config = wasm_config_new();
    wasmtime_config_consume_fuel_set(config, true);
    wasmtime_config_epoch_interruption_set(config, true);
    wasm_engine_t *engine = wasm_engine_new_with_config(config);
    wasmtime_module_t *module = NULL;
    assert_null(wasmtime_module_new(engine, add, sizeof add, &module));
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    assert_null(wasmtime_context_set_fuel(context, 1000));
    wasmtime_context_set_epoch_deadline(context, 1);
    wasmtime_instance_t instance;
    wasm_trap_t *trap = NULL;
    assert_null(wasmtime_instance_new(context, module, NULL, 0, &instance, &trap));
    wasmtime_extern_t function;
    assert_true(wasmtime_instance_export_get(context, &instance, "add", 3, &function));
    wasmtime_val_t numbers[2] = {{.kind = WASMTIME_I32, .of.i32 = 40},
                                 {.kind = WASMTIME_I32, .of.i32 = 2}};
    wasmtime_val_t sum;
    assert_null(wasmtime_func_call(context, &function.of.func, numbers, 2, &sum, 1, &trap));
    assert_int_equal(sum.of.i32, 42);
    wasmtime_store_delete(store);
    wasmtime_module_delete(module);
    wasm_engine_delete(engine);
}

/* (module (memory (export "memory") 1) (func (export "init") i32.const 8 i32.const 42 i32.store)) */
static const char init_module[] = "\0asm\1\0\0\0\1\4\1\140\0\0\3\2\1\0\5\3\1\0\1\7\21\2\6memory"
                                  "\2\0\4init\0\0\12\13\1\11\0\101\10\101\52\66\2\0\13";

static void test_a_snapshot_begins_where_the_start_up_ended(void **state)
{
    (void) state;
    struct native_text wasm = {init_module, sizeof init_module - 1};
    uint8_t *out = NULL, *again = NULL;
    size_t bytes = 0, bytes_again = 0;
    char *error = NULL;
    assert_int_equal(native_snapshot(wasm, text("init"), &out, &bytes, &error), NATIVE_OK);
    assert_int_equal(native_snapshot(wasm, text("init"), &again, &bytes_again, &error), NATIVE_OK);
    assert_int_equal(bytes, bytes_again);
    assert_memory_equal(out, again, bytes);
    native_snapshot_free(again, bytes_again);

    wasm_engine_t *engine = wasm_engine_new();
    wasmtime_module_t *module = NULL;
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_instance_t instance;
    wasmtime_extern_t item;
    wasm_trap_t *trap = NULL;
    assert_null(wasmtime_module_new(engine, out, bytes, &module));
    assert_null(wasmtime_instance_new(context, module, NULL, 0, &instance, &trap));
    assert_false(wasmtime_instance_export_get(context, &instance, "init", 4, &item));
    assert_true(wasmtime_instance_export_get(context, &instance, "memory", 6, &item));
    assert_int_equal(wasmtime_memory_data(context, &item.of.memory)[8], 42);
    wasmtime_store_delete(store);
    wasmtime_module_delete(module);
    wasm_engine_delete(engine);
    native_snapshot_free(out, bytes);
}

static void test_a_snapshot_without_its_function_is_refused(void **state)
{
    (void) state;
    struct native_text wasm = {init_module, sizeof init_module - 1};
    uint8_t *out = NULL;
    size_t bytes = 0;
    char *error = NULL;
    assert_int_equal(native_snapshot(wasm, text("other"), &out, &bytes, &error), NATIVE_INVALID);
    assert_non_null(error);
    assert_null(out);
    native_string_free(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example_policy_decides_as_written),
        cmocka_unit_test(test_explain_names_the_deciding_definition),
        cmocka_unit_test(test_inputs_lists_the_paths_a_policy_reads),
        cmocka_unit_test(test_a_broken_policy_is_refused_with_its_place),
        cmocka_unit_test(test_an_endless_policy_ends_at_its_limit),
        cmocka_unit_test(test_wrong_calls_have_their_own_status),
        cmocka_unit_test(test_schema_reports_each_error_without_the_value),
        cmocka_unit_test(test_schema_fetches_nothing),
        cmocka_unit_test(test_a_pattern_matches_or_says_where_it_is_wrong),
        cmocka_unit_test(test_wasmtime_runs_a_module_under_fuel),
        cmocka_unit_test(test_a_snapshot_begins_where_the_start_up_ended),
        cmocka_unit_test(test_a_snapshot_without_its_function_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
