/*
 * Any text as an expression and as a template: reading it ends with a value or a reason, computing it stays within its bounds, gives the
 * same twice, and what it gives is JSON that reads back.
 */
#include "workflow/expression.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct json *find(void *owner, str name)
{
    return json_get(owner, name);
}

static const struct json *make_scope(struct arena *arena)
{
    static const char text[] =
        "{\"input\":{\"a\":1,\"b\":2.5,\"c\":\"text\",\"d\":[1,2,{\"x\":null}],\"e\":{\"f\":true},"
        "\"g\":18446744073709551615},\"steps\":{\"s\":{\"output\":{\"text\":\"[1]\"}}},"
        "\"item\":\"i\",\"index\":0}";
    const struct json *tree;
    struct error e = {0};
    ensure(json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &tree, &e));
    return tree;
}

static void check_value(struct arena *arena, const struct json *value)
{
    const struct json *again;
    struct error e = {0};
    size_t steps = SIZE_MAX;
    str text = json_print(arena, value);
    ensure(json_depth(value) <= JSON_DEPTH_MAX);
    struct json_limits limits = {.bytes_max = SIZE_MAX};
    ensure(json_parse(arena, text, limits, &again, &e));
    ensure(json_equal(value, again, &steps));
}

static void try_expression(struct arena *arena, str text, const struct expression_scope *scope)
{
    struct expression *expression;
    struct error e = {0}, f = {0};
    const struct json *first = NULL, *second = NULL;
    if (!expression_parse(arena, text, &expression, &e)) {
        ensure(e.code == ERROR_INVALID || e.code == ERROR_LIMIT);
        return;
    }
    bool ok = expression_evaluate(expression, scope, arena, &first, &e);
    arena_mark mark = arena_save(arena);
    ensure(expression_evaluate(expression, scope, arena, &second, &f) == ok ||
           f.code == ERROR_LIMIT);
    ensure(ok || e.code == ERROR_INVALID || e.code == ERROR_LIMIT);
    if (ok && second)
        ensure(str_equal(json_print(arena, first), json_print(arena, second)));
    arena_rewind(arena, mark);
    if (ok)
        check_value(arena, first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(64u << 20);
    str text = str_of((const char *) data, size);
    const struct json *tree = make_scope(arena), *value;
    struct expression_scope scope = {.find = find, .owner = (void *) (uintptr_t) tree};
    struct template *template;
    struct json_builder b;
    struct error e = {0};
    if (!str_is_utf8(text)) /* definitions are UTF-8: their reader has checked it */
        return 0;
    try_expression(arena, text, &scope);
    json_builder_init(&b, arena, 4);
    json_build_array_begin(&b);
    json_build_str(&b, text);
    json_build_array_end(&b);
    if (template_parse(arena, json_build_finish(&b), &template, &e) &&
        template_fill(template, &scope, arena, &value, &e))
        check_value(arena, value);
    return 0;
}
