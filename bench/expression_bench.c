/*
 * What an expression of a workflow costs: compiled once, computed again and again, as an instance does.
 *
 *     bench_expression_bench
 */
#include "workflow/expression.h"
#include "base/arena.h"
#include "base/ensure.h"

#include <stdio.h>
#include <time.h>

enum { ROUNDS = 1000000, NS_PER_S = 1000000000 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

static const struct json *find(void *owner, str name)
{
    return json_get(owner, name);
}

static const struct json *parse(struct arena *arena, const char *text)
{
    const struct json *tree;
    struct error e = {0};
    ensure(json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &tree, &e));
    return tree;
}

static void report(const char *name, int64_t begin, int rounds)
{
    printf("%-64s %8.1f ns\n", name, (double) (now_ns() - begin) / rounds);
}

static void run_expression(const struct expression_scope *scope, const char *text, int rounds)
{
    OWNED(arena) compiled = arena_create(0);
    OWNED(arena) arena = arena_create(0);
    struct expression *expression;
    const struct json *value;
    struct error e = {0};
    ensure(expression_parse(compiled, str_from_cstr(text), &expression, &e));
    int64_t begin = now_ns();
    for (int i = 0; i < rounds; i++) {
        ensure(expression_evaluate(expression, scope, arena, &value, &e));
        arena_reset(arena);
    }
    report(text, begin, rounds);
}

static void run_parse(const char *text, int rounds)
{
    OWNED(arena) arena = arena_create(0);
    struct expression *expression;
    struct error e = {0};
    int64_t begin = now_ns();
    for (int i = 0; i < rounds; i++) {
        ensure(expression_parse(arena, str_from_cstr(text), &expression, &e));
        arena_reset(arena);
    }
    report("compile the first", begin, rounds);
}

static void run_template(const struct expression_scope *scope, const char *text, int rounds)
{
    OWNED(arena) compiled = arena_create(0);
    OWNED(arena) arena = arena_create(0);
    struct template *template;
    const struct json *value;
    struct error e = {0};
    ensure(template_parse(compiled, parse(compiled, text), &template, &e));
    int64_t begin = now_ns();
    for (int i = 0; i < rounds; i++) {
        ensure(template_fill(template, scope, arena, &value, &e));
        arena_reset(arena);
    }
    report(text, begin, rounds);
}

int main(void)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *tree = parse(
        arena, "{\"input\":{\"a\":{\"b\":7},\"name\":\"Ada\",\"base\":\"http://x\",\"items\":["
               "1,2,3,4,5,6,7,8,9,10]}}");
    struct expression_scope scope = {.find = find, .owner = (void *) (uintptr_t) tree};
    run_expression(&scope, "input.a.b > 3", ROUNDS);
    run_expression(&scope, "input.a.b > 3 && input.name == 'Ada' ? input.items : []", ROUNDS);
    run_expression(&scope, "input.items.filter(i, i > 3).map(i, i * 2)", ROUNDS / 10);
    run_expression(&scope, "input.name.matches('^[A-Z][a-z]+$')", ROUNDS / 100);
    run_expression(&scope, "range(1000).all(i, input.name.matches('^[A-Z][a-z]+$'))",
                   ROUNDS / 10000);
    run_template(&scope, "{\"url\":\"${input.base}/x\",\"n\":\"${input.a.b}\",\"c\":[1,2,3]}",
                 ROUNDS);
    run_parse("input.a.b > 3", ROUNDS / 10);
    return 0;
}
