/* The request of POST /v1/embeddings.  Pure. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/call/embeddings.h"
#include "llm/embed_format.h"

/* A number of a vocabulary; no vocabulary comes near. */
#define TOKEN_MAX INT32_MAX

static bool fail_input(struct error *e)
{
    return error_set(e, REASON_SCHEMA,
                     "input must be a text, or an array of texts, of tokens, or of arrays of "
                     "tokens; nothing in it may be empty");
}

static bool is_tokens(const struct json *list)
{
    int64_t token;
    const struct json *item;
    if (json_type(list) != JSON_ARRAY || json_count(list) == 0)
        return false;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item))
        if (json_type(item) != JSON_INTEGER || !json_to_i64(item, &token) || token < 0 ||
            token > TOKEN_MAX)
            return false;
    return true;
}

static bool add_text(struct arena *arena, const struct json *item, bool are_tokens, str *out,
                     struct error *e)
{
    if (are_tokens) {
        if (!is_tokens(item))
            return fail_input(e);
        *out = json_print(arena, item);
        return true;
    }
    if (!json_to_str(item, out) || str_is_empty(*out))
        return fail_input(e);
    return true;
}

static bool read_input(struct arena *arena, const struct json *input, struct embed_request *out,
                       struct error *e)
{
    const struct json *first = json_at(input, 0), *item;
    bool is_single = json_type(input) == JSON_STRING || is_tokens(input);
    size_t count = is_single ? 1 : json_count(input), i = 0;
    if (!is_single && (json_type(input) != JSON_ARRAY || count == 0))
        return fail_input(e);
    if (count > EMBED_INPUTS_MAX)
        return error_set(e, REASON_TOO_LARGE, "input has %zu entries, at most %u are possible",
                         count, EMBED_INPUTS_MAX);
    str *texts = ARENA_ARRAY(arena, str, count);
    out->are_tokens = json_type(is_single ? input : first) == JSON_ARRAY;
    out->texts = texts;
    out->text_count = count;
    if (is_single)
        return add_text(arena, input, out->are_tokens, texts, e);
    struct json_iter it = json_iter(input);
    while (json_next(&it, NULL, &item))
        if (!add_text(arena, item, out->are_tokens, &texts[i++], e))
            return false;
    return true;
}

static bool read_format(const struct json *body, bool *is_base64, struct error *e)
{
    str format = S("float");
    if (!json_read_str(body, S("encoding_format"), &format, e))
        return false;
    *is_base64 = str_equal(format, S("base64"));
    return *is_base64 || str_equal(format, S("float")) ||
           error_set(e, REASON_SCHEMA, "encoding_format must be \"float\" or \"base64\"");
}

bool embeddings_read(struct arena *arena, const struct json *body, struct embeddings_request *out,
                     struct error *e)
{
    struct embed_request *embed = &out->embed;
    *out = (struct embeddings_request){0};
    if (json_type(body) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the body must be a JSON object");
    if (!json_need_str(body, S("model"), &embed->model, e) ||
        !json_read_str(body, S("user"), &embed->user, e) ||
        !json_read_i64(body, S("dimensions"), 1, EMBED_DIMENSION_MAX, &embed->dimensions, e) ||
        !read_format(body, &out->is_base64, e) ||
        !read_input(arena, json_get(body, S("input")), embed, e))
        return false;
    if (embed_has_extra(body))
        embed->extra = body;
    for (size_t i = 0; i < embed->text_count; i++)
        out->tokens_bound += embed_tokens_bound(embed->texts[i], embed->are_tokens);
    return true;
}
