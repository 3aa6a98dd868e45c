/* model servers that are there without configuration */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/catalog.h"

#include <stdlib.h>

struct place {
    const char *name;
    uint16_t port;
};

static const struct place local_places[] = {
    {"ollama", 11434},
    {"vllm", 8000},
    {"llama.cpp", 8080},
    {"lmstudio", 1234},
};

static struct http_client *client_of(void *owner)
{
    return owner;
}

/* Models that cannot chat are of no use to an agent. */
static bool is_chat_model(str name)
{
    static const str others[] = {S_INIT("embed"),   S_INIT("tts"),          S_INIT("whisper"),
                                 S_INIT("dall-e"),  S_INIT("image"),        S_INIT("moderation"),
                                 S_INIT("audio"),   S_INIT("realtime"),     S_INIT("babbage"),
                                 S_INIT("davinci"), S_INIT("sora"),         S_INIT("transcribe"),
                                 S_INIT("rerank"),  S_INIT("instruct-0914")};
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        if (str_find(name, others[i]) != STR_NOT_FOUND)
            return false;
    }
    return name.len > 0;
}

static void keep_chat_models(struct discovered_provider *found, str *names, size_t count)
{
    found->models = names;
    for (size_t i = 0; i < count; i++) {
        if (is_chat_model(names[i]))
            found->models[found->model_count++] = names[i];
    }
}

static void move_to_front(str *names, size_t count, str wanted)
{
    for (size_t i = 0; i < count; i++) {
        if (!str_equal(names[i], wanted))
            continue;
        memmove(names + 1, names, i * sizeof *names);
        names[0] = wanted;
        return;
    }
}

/* The first model becomes the default: OPENAI_MODEL when given, else a small one that is likely to
 * be there. */
static void order_openai_models(struct arena *arena, struct discovered_provider *found)
{
    static const str usual[] = {S_INIT("gpt-4o-mini"), S_INIT("gpt-4.1-mini"),
                                S_INIT("gpt-5-mini")};
    str wanted = str_from_cstr(getenv("OPENAI_MODEL"));
    for (size_t i = 0; i < ARRAY_COUNT(usual); i++)
        move_to_front(found->models, found->model_count, usual[i]);
    if (wanted.len == 0)
        return;
    move_to_front(found->models, found->model_count, wanted);
    if (found->model_count > 0 && str_equal(found->models[0], wanted))
        return;
    str *models = ARENA_ARRAY(arena, str, found->model_count + 1);
    models[0] = str_copy(arena, wanted);
    if (found->model_count > 0)
        memcpy(models + 1, found->models, found->model_count * sizeof *models);
    found->models = models;
    found->model_count++;
}

/* Asks for the models within a time of its own.  False with CANCELLED only; a place that does not
 * answer has none. */
static may_suspend bool ask_models(struct context *ctx, struct http_client *client,
                                   struct discovered_provider *found, str key, int64_t timeout_ms,
                                   struct error *e)
{
    struct provider_options options = {
        .name = found->name,
        .base_url = found->base_url,
        .api_keys = &key,
        .api_key_count = key.len > 0,
        .client_of_loop = client_of,
        .client_owner = client,
    };
    struct error failure = {0};
    OWNED(provider) provider = NULL;
    struct context brief;
    str *names = NULL;
    size_t count = 0;
    if (!provider_openai_create(&options, &provider, e))
        return false;
    context_init_child(&brief, ctx, context_deadline_in(ctx, timeout_ms));
    bool is_answered = provider_models(provider, &brief, &names, &count, &failure);
    context_deinit(&brief);
    if (is_answered)
        keep_chat_models(found, names, count);
    return context_check(ctx, e);
}

/* A key in the environment is meant to be used, so it is told even when the list of models cannot
 * be had just now. */
static may_suspend bool discover_openai(struct context *ctx, struct http_client *client,
                                        struct discovered_provider *found, size_t *count,
                                        struct error *e)
{
    str key = str_trim(str_from_cstr(getenv("OPENAI_API_KEY")));
    str base_url = str_trim(str_from_cstr(getenv("OPENAI_BASE_URL")));
    if (key.len == 0)
        return true;
    struct discovered_provider *openai = &found[*count];
    *openai = (struct discovered_provider){
        .name = S("openai"),
        .base_url =
            base_url.len > 0 ? str_copy(ctx->arena, base_url) : S("https://api.openai.com/v1"),
        .api_key_env = S("OPENAI_API_KEY"),
    };
    if (!ask_models(ctx, client, openai, key, DISCOVER_REMOTE_TIMEOUT_MS, e))
        return error_wrap(e, "OPENAI_API_KEY, OPENAI_BASE_URL");
    order_openai_models(ctx->arena, openai);
    (*count)++;
    return true;
}

bool discover_providers(struct context *ctx, struct http_client *client, uint16_t exclude_port,
                        struct discovered_provider **out, size_t *count, struct error *e)
{
    struct discovered_provider *found =
        ARENA_ARRAY(ctx->arena, struct discovered_provider, ARRAY_COUNT(local_places) + 1);
    size_t found_count = 0;
    if (!discover_openai(ctx, client, found, &found_count, e))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(local_places); i++) {
        const struct place *place = &local_places[i];
        struct discovered_provider local = {.name = str_from_cstr(place->name)};
        if (place->port == exclude_port)
            continue;
        local.base_url = str_printf(ctx->arena, "http://127.0.0.1:%u/v1", place->port);
        if (!ask_models(ctx, client, &local, STR_NONE, DISCOVER_LOCAL_TIMEOUT_MS, e))
            return false;
        if (local.model_count > 0)
            found[found_count++] = local;
    }
    *out = found;
    *count = found_count;
    return true;
}
