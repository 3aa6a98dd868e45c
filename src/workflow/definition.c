#include "workflow/definition.h"

#include "base/arena.h"
#include "base/digest.h"
#include "workflow/definition_internal.h"

enum { DEFINITION_ARENA_BYTES = 64 << 20, PATH_BYTES_MAX = 1024 };

/* MAJOR.MINOR.PATCH, perhaps with -WORDS. */
static bool is_version(str text)
{
    str rest = text, piece, numbers;
    size_t count = 0;
    if (text.len > 64)
        return false;
    str_cut(text, '-', &numbers, &rest);
    for (size_t i = 0; i < rest.len; i++) {
        char c = rest.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '-'))
            return false;
    }
    if (text.len > numbers.len && rest.len == 0)
        return false;
    while (str_next(&numbers, '.', &piece)) {
        uint64_t number;
        bool has_zero = piece.len > 1 && piece.ptr[0] == '0';
        if (has_zero || piece.len > 9 || !str_to_u64(piece, &number))
            return false;
        count++;
    }
    return count == 3;
}

static void read_version(struct definition_reader *r, const struct json *root, str *out)
{
    need_text(r, root, "version", out);
    if (!out->ptr || is_version(*out))
        return;
    size_t mark = path_enter(r, S("version"));
    definition_problem(r, member_of(root, "version"),
                       "must have three numbers, as in 1.0.0; a version never changes once stored");
    path_leave(r, mark);
}

static void read_head(struct definition_reader *r, const struct json *root,
                      struct definition *definition)
{
    need_name(r, root, "name", &definition->name);
    read_version(r, root, &definition->version);
    read_text(r, root, "description", &definition->description);
    read_schema(r, root, "input", &definition->input_schema);
    read_duration(r, root, "timeout", 1, &definition->timeout_ms);
    read_budget(r, root, "budget", &definition->budget);
}

static void read_definition(struct definition_reader *r, struct definition *definition)
{
    const struct json *root = r->document.root;
    definition->budget = COST_LIMITLESS;
    if (!read_object(r, root,
                     MEMBERS("name", "version", "description", "input", "output", "timeout",
                             "budget", "steps")))
        return;
    read_head(r, root, definition);
    definition->steps = read_steps(r, root, "steps", (struct place){0},
                                   (struct inner){.output = &definition->output});
    if (json_type(member_of(root, "steps")) == JSON_ARRAY &&
        json_count(member_of(root, "steps")) == 0) {
        size_t mark = path_enter(r, S("steps"));
        definition_problem(r, member_of(root, "steps"), "is empty; a workflow has a step at least");
        path_leave(r, mark);
    }
    definition->step_count = r->step_count;
    definition->canonical = json_canonical(r->arena, root);
    digest sha256 = digest_sha256(definition->canonical);
    definition->digest = str_hex(r->arena, sha256.bytes, sizeof sha256.bytes);
}

/* By line; those of one line stay in the order in which they were found. */
static void sort_problems(struct definition_problems *problems)
{
    for (size_t i = 1; i < problems->count; i++) {
        struct definition_problem problem = problems->items[i];
        size_t at = i;
        for (; at > 0 && problems->items[at - 1].line > problem.line; at--)
            problems->items[at] = problems->items[at - 1];
        problems->items[at] = problem;
    }
}

/* "file:line: path: message" of the first. */
static bool fail_first(const struct definition_reader *r, str file, struct error *e)
{
    const struct definition_problem *first = r->problems->items;
    size_t more = r->problems->count - 1;
    error_set(e, REASON_CONFIG, STR_FMT ":%u: " STR_FMT "%s" STR_FMT, STR_ARG(file), first->line,
              STR_ARG(first->path), first->path.len ? ": " : "", STR_ARG(first->message));
    if (more > 0)
        error_wrap(e, "%zu problems, the first", more + 1);
    return false;
}

/* A text that is no YAML has one problem; its place stands in the message: "file:line:column: what". */
static bool fail_syntax(struct definition_reader *r, str file, const struct error *failure,
                        struct error *e)
{
    str message = str_from_cstr(failure->message), line, column, rest = message;
    uint64_t line_number = 0, column_number = 0;
    if (str_strip_prefix(message, file, &rest) && str_strip_prefix(rest, S(":"), &rest)) {
        str_cut(rest, ':', &line, &rest);
        if (str_to_u64(line, &line_number)) {
            str_cut(rest, ':', &column, &message);
            if (!str_to_u64(column, &column_number))
                message = rest;
        }
    }
    r->problems->items[r->problems->count++] = (struct definition_problem){
        .line = (uint32_t) line_number,
        .column = (uint32_t) column_number,
        .message = str_copy(r->problems_arena, str_trim(message)),
    };
    return error_copy(e, failure);
}

/* What begins as a JSON object is read as JSON when it is some; YAML would read most of it alike, but not every escape. */
static bool read_document(struct definition_reader *r, str file, str text, struct error *e)
{
    const struct json *root;
    struct error ignored;
    struct json_limits limits = {.bytes_max = WORKFLOW_BYTES_MAX};
    if (str_starts_with(str_trim(text), S("{")) &&
        json_parse(r->arena, text, limits, &root, &ignored))
        return yaml_of_json(r->arena, file, text, root, &r->document, e);
    return yaml_parse(r->arena, file, text, &r->document, e);
}

bool definition_parse(struct arena *arena, str file, str text, struct definition **out,
                      struct definition_problems *problems, struct error *e)
{
    struct error failure = {0};
    struct arena *own = arena_create(DEFINITION_ARENA_BYTES);
    struct definition *definition = ARENA_NEW(own, struct definition);
    struct definition_reader *r = ARENA_NEW(own, struct definition_reader);
    definition->arena = own;
    *problems = (struct definition_problems){
        .items = ARENA_ARRAY(arena, struct definition_problem, WORKFLOW_PROBLEMS_MAX)};
    *r = (struct definition_reader){.arena = own, .problems_arena = arena, .problems = problems};
    strbuf_init(&r->path, own, PATH_BYTES_MAX);
    bool ok;
    if (text.len > WORKFLOW_BYTES_MAX) {
        error_set(&failure, REASON_TOO_LARGE, STR_FMT ": %zu bytes; a definition has at most %u",
                  STR_ARG(file), text.len, WORKFLOW_BYTES_MAX);
        ok = fail_syntax(r, file, &failure, e);
    } else if (!read_document(r, file, text, &failure)) {
        ok = fail_syntax(r, file, &failure, e);
    } else {
        read_definition(r, definition);
        sort_problems(problems);
        ok = problems->count == 0 || fail_first(r, file, e);
    }
    if (!ok) {
        definition_destroy(definition);
        return false;
    }
    *out = definition;
    return true;
}

void definition_destroy(struct definition *definition)
{
    if (definition)
        arena_destroy(definition->arena);
}
