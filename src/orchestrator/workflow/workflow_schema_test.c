/*
 * docs/workflow.schema.json and the reader of definitions say the same: what the reader takes, the schema takes; and what the schema
 * takes and the reader does not is something that no schema can say (expressions, ids, order).  Tried on the shipped definitions and on
 * every document that one change of a value makes of them.
 */
#include "agent/tool/schema.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/yaml.h"
#include "runtime/loop.h"
#include "workflow/definition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct world {
    struct loop *loop;
    struct context ctx;
    struct arena *arena, *scratch;
    str schema;
    size_t tried, taken;
    str failure; /* of the check; empty: none */
};

static str file(struct arena *arena, const char *path)
{
    char name[512];
    snprintf(name, sizeof name, "%s/%s", NEXUS_SOURCE_DIR, path);
    FILE *stream = fopen(name, "rb");
    ensure(stream != NULL);
    char *bytes = arena_alloc(arena, 1u << 16);
    size_t len = fread(bytes, 1, 1u << 16, stream);
    fclose(stream);
    return str_of(bytes, len);
}

/* What no schema can say. */
static bool is_beyond_schemas(const struct definition_problems *problems)
{
    static const char *const marks[] = {
        "reads steps.",        "no variable",        "column ",
        "known only",          "id of another step", "is never reached",
        "max_backoff is less", "must lie between",   "kind of error",
        "is no JSON Schema",
    };
    for (size_t i = 0; i < problems->count; i++) {
        bool is_marked = false;
        for (size_t k = 0; k < ARRAY_COUNT(marks); k++)
            is_marked |=
                str_find(problems->items[i].message, str_from_cstr(marks[k])) != STR_NOT_FOUND;
        if (!is_marked)
            return false;
    }
    return true;
}

static bool compare(struct world *world, str document)
{
    struct definition *definition = NULL;
    struct definition_problems problems;
    struct error read_error = {0}, schema_error = {0};
    bool is_read =
        definition_parse(world->scratch, S("d"), document, &definition, &problems, &read_error);
    bool fits = schema_check(&world->ctx, world->schema, document, "the definition", REASON_SCHEMA,
                             &schema_error);
    definition_destroy(definition);
    world->tried++;
    world->taken += is_read;
    if (is_read == fits || (!is_read && is_beyond_schemas(&problems)))
        return true;
    world->failure = str_printf(world->arena, "%s, but the schema: %s\n" STR_FMT,
                                is_read ? "read" : read_error.message,
                                fits ? "fits" : schema_error.message, STR_ARG(document));
    return false;
}

/* The document with one value (the n-th in the order of the text) put in another's place; NULL: left out of its object. */
struct change {
    struct json_builder b;
    size_t left;
    const struct json *instead;
};

static void copy_changed(struct change *change, const struct json *value)
{
    struct json_iter it = json_iter(value);
    const struct json *item;
    bool is_object = json_type(value) == JSON_OBJECT;
    str key;
    if (change->left-- == 0) {
        json_build_value(&change->b, change->instead);
        return;
    }
    if (json_type(value) != JSON_OBJECT && json_type(value) != JSON_ARRAY) {
        json_build_value(&change->b, value);
        return;
    }
    if (is_object)
        json_build_object_begin(&change->b);
    else
        json_build_array_begin(&change->b);
    while (json_next(&it, &key, &item)) {
        if (change->left == 0 && !change->instead && is_object) {
            change->left = SIZE_MAX; /* left out; so may be the count of the rest */
            continue;
        }
        if (is_object)
            json_build_key(&change->b, key);
        copy_changed(change, item);
    }
    if (is_object)
        json_build_object_end(&change->b);
    else
        json_build_array_end(&change->b);
}

static size_t count_values(const struct json *value)
{
    struct json_iter it = json_iter(value);
    const struct json *item;
    size_t count = 1;
    while (json_next(&it, NULL, &item))
        count += count_values(item);
    return count;
}

static bool compare_changes(struct world *world, const struct json *root)
{
    static const char *const texts[] = {"7",  "-1",   "\"x y\"",      "[]",
                                        "{}", "true", "{\"nope\":1}", NULL};
    size_t count = count_values(root);
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        for (size_t at = 1; at < count; at++) {
            struct change change = {.left = at};
            struct error e = {0};
            ensure(!texts[i] || json_parse(world->scratch, str_from_cstr(texts[i]),
                                           (struct json_limits){0}, &change.instead, &e));
            json_builder_init(&change.b, world->scratch, 100000);
            copy_changed(&change, root);
            str text = json_print(world->scratch, json_build_finish(&change.b));
            if (!compare(world, text))
                return false;
            arena_reset(world->scratch);
        }
    }
    return true;
}

static void check_all(void *argument)
{
    static const char *const names[] = {
        "tests/corpus/definition/all-kinds.yaml",
        "workflows/approval-gate.yaml",
        "workflows/book-trip.yaml",
        "workflows/map-reduce.yaml",
        "workflows/planner-executor.yaml",
        "workflows/reviewer.yaml",
    };
    struct world *world = argument;
    world->schema = file(world->arena, "docs/workflow.schema.json");
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct yaml_document document;
        struct error e = {0};
        ensure(yaml_parse(world->arena, S("d"), file(world->arena, names[i]), &document, &e));
        if (!compare(world, json_print(world->arena, document.root)) ||
            (i == 0 && !compare_changes(world, document.root)))
            break;
    }
    loop_stop(world->loop);
}

static void test_schema_and_reader_agree(void **state)
{
    struct world world = {.arena = arena_create(64u << 20), .scratch = arena_create(64u << 20)};
    struct error e = {0};
    (void) state;
    world.loop = loop_create(clock_system(), random_system(), &e);
    assert_non_null(world.loop);
    context_init(&world.ctx, loop_scheduler(world.loop), world.scratch, DEADLINE_NONE);
    assert_true(coroutine_start(loop_scheduler(world.loop), "test", check_all, &world, &e));
    loop_run(world.loop);
    if (!str_is_empty(world.failure))
        fail_msg("%.*s", STR_ARG(world.failure));
    assert_true(world.tried > 1000 && world.taken > 6);
    context_deinit(&world.ctx);
    loop_destroy(world.loop);
    blocking_pool_stop();
    arena_destroy(world.scratch);
    arena_destroy(world.arena);
}

static void test_schema_names_every_problem_that_a_retry_may(void **state)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *schema = NULL, *item;
    struct error e = {0};
    (void) state;
    assert_true(json_parse(arena, file(arena, "docs/workflow.schema.json"), (struct json_limits){0},
                           &schema, &e));
    const struct json *names = json_path(schema, S("/$defs/problems/items/enum"));
    for (int reason = 0; reason < REASON_COUNT; reason++) {
        struct json_iter it = json_iter(names);
        bool is_there = false;
        while (json_next(&it, NULL, &item)) {
            str name;
            is_there |= json_to_str(item, &name) &&
                        str_equal(name, str_from_cstr(error_problem((enum error_reason) reason)));
        }
        if (!is_there)
            fail_msg("docs/workflow.schema.json lacks %s in $defs/problems",
                     error_problem((enum error_reason) reason));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schema_names_every_problem_that_a_retry_may),
        cmocka_unit_test(test_schema_and_reader_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
