#include "agent/tool/schema.h"

#include "base/arena.h"
#include "base/limits.h"
#include "nexus_native.h"
#include "runtime/loop.h"

struct check {
    str schema, value;
    enum native_status created, validated;
    char *errors, *why;
};

static void run_check(void *argument)
{
    struct check *check = argument;
    struct native_schema *schema = NULL;
    check->created = native_schema_create(
        (struct native_text){check->schema.ptr, check->schema.len}, &schema, &check->why);
    if (check->created == NATIVE_OK)
        check->validated =
            native_schema_validate(schema, (struct native_text){check->value.ptr, check->value.len},
                                   SCHEMA_ERRORS_MAX, &check->errors, &check->why);
    native_schema_destroy(schema);
}

static void describe(struct arena *arena, const char *errors_json, struct strbuf *text)
{
    struct error ignored;
    const struct json *errors = NULL, *item;
    if (!json_parse(arena, str_from_cstr(errors_json), (struct json_limits){0}, &errors, &ignored))
        return;
    struct json_iter it = json_iter(errors);
    while (json_next(&it, NULL, &item)) {
        str path = json_str_or(item, S("instance_path"), S(""));
        strbuf_printf(text, "%s" STR_FMT ": " STR_FMT, text->len ? "; " : "",
                      STR_ARG(str_is_empty(path) ? S("(the whole)") : path),
                      STR_ARG(json_str_or(item, S("message"), S("does not fit"))));
    }
}

static bool tell(const struct check *check, const char *what, enum error_reason reason,
                 struct error *e)
{
    struct strbuf text;
    if (check->created != NATIVE_OK)
        return error_set(e, REASON_UNSUPPORTED, "the schema of %s cannot be used: %s", what,
                         check->why ? check->why : "it is none");
    if (!check->errors)
        return error_set(e, reason, "%s: %s", what, check->why ? check->why : "cannot be checked");
    OWNED(arena) arena = arena_create(0);
    strbuf_init(&text, arena, ERROR_MESSAGE_BYTES);
    describe(arena, check->errors, &text);
    str all = str_cut_utf8(strbuf_str(&text), ERROR_MESSAGE_BYTES - 120);
    return error_set(e, reason, "%s does not fit its schema: " STR_FMT, what, STR_ARG(all));
}

bool schema_check_here(str schema, str value, const char *what, enum error_reason reason,
                       struct error *e)
{
    struct check check = {.schema = schema, .value = value, .created = NATIVE_INVALID};
    run_check(&check);
    bool is_fine = check.created == NATIVE_OK && check.validated == NATIVE_OK;
    if (!is_fine)
        tell(&check, what, reason, e);
    native_string_free(check.errors);
    native_string_free(check.why);
    return is_fine;
}

may_suspend bool schema_check(struct context *ctx, str schema, str value, const char *what,
                              enum error_reason reason, struct error *e)
{
    struct check check = {.schema = schema, .value = value, .created = NATIVE_INVALID};
    bool is_done = blocking_call(ctx, run_check, &check, e);
    bool is_fine = is_done && check.created == NATIVE_OK && check.validated == NATIVE_OK;
    if (is_done && !is_fine)
        tell(&check, what, reason, e);
    native_string_free(check.errors);
    native_string_free(check.why);
    return is_fine;
}
