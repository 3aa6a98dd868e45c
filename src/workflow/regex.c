#include "workflow/regex.h"
#include "base/limits.h"
#include "nexus_native.h"
#include "runtime/scheduler.h"

/* A step is 30 ns at most: as long as four parts take for a byte, or eight bytes of an automaton. */
enum { PARTS_PER_STEP = 4, PROGRAM_BYTES_PER_STEP = 8 };

struct call {
    struct regex *regex;
    struct native_text text;
    enum native_status status;
    bool is_match;
    char *why;
};

static void compile(void *argument)
{
    static const struct native_pattern_limits limits = {
        .depth = REGEX_DEPTH_MAX,
        .parts = REGEX_PARTS_MAX,
        .bytes = REGEX_PROGRAM_BYTES_MAX,
    };
    struct call *call = argument;
    struct native_pattern_size size = {0};
    call->status =
        native_pattern_create(call->text, &limits, &call->regex->program, &size, &call->why);
    call->regex->parts = size.parts;
    call->regex->bytes = size.bytes;
}

static void search(void *argument)
{
    struct call *call = argument;
    call->status =
        native_pattern_matches(call->regex->program, call->text, &call->is_match, &call->why);
}

static bool tell(struct call *call, const char *what, struct error *e)
{
    if (call->status == NATIVE_OK)
        return true;
    error_set(e, REASON_EXPRESSION, "%s%s", what, call->why ? call->why : "cannot be used");
    native_string_free(call->why);
    return false;
}

bool regex_compile(str source, struct regex *out, struct error *e)
{
    struct call call = {.regex = out, .text = {source.ptr, source.len}};
    *out = (struct regex){0};
    if (source.len > REGEX_BYTES_MAX)
        return error_set(e, REASON_EXPRESSION, "a pattern of more than %u bytes", REGEX_BYTES_MAX);
    coroutine_on_thread_stack(compile, &call);
    return tell(&call, "the pattern, ", e);
}

static void destroy(void *program)
{
    native_pattern_destroy(program);
}

void regex_free(struct regex *regex)
{
    if (regex->program)
        coroutine_on_thread_stack(destroy, regex->program);
    *regex = (struct regex){0};
}

size_t regex_compile_steps(const struct regex *regex)
{
    return regex->bytes / PROGRAM_BYTES_PER_STEP;
}

size_t regex_match_steps(const struct regex *regex, str text)
{
    return text.len + text.len * regex->parts / PARTS_PER_STEP;
}

bool regex_matches(const struct regex *regex, str text, bool *out, struct error *e)
{
    struct regex searched = *regex;
    struct call call = {.regex = &searched, .text = {text.ptr, text.len}};
    coroutine_on_thread_stack(search, &call);
    *out = call.is_match;
    return tell(&call, "", e);
}
