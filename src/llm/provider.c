#include "llm/provider.h"

#include "base/ensure.h"

bool reply_stream_next(struct reply_stream *stream, struct context *ctx, struct delta *out,
                       struct error *e)
{
    ensure(stream && ctx && out);
    return stream->ops->next(stream, ctx, out, e);
}

void reply_stream_close(struct reply_stream *stream)
{
    if (stream)
        stream->ops->close(stream);
}

static void check_prompt(const struct provider *provider, const struct context *ctx,
                         const struct prompt *prompt)
{
    ensure(provider && ctx && prompt);
    ensure(prompt->max_output_tokens > 0); /* else nothing bounds what the call may cost */
    ensure(prompt->message_count == 0 || prompt->messages);
    ensure(prompt->tool_count == 0 || prompt->tools);
}

bool provider_complete(struct provider *provider, struct context *ctx,
                       const struct provider_call *how, const struct prompt *prompt,
                       struct reply *reply, struct error *e)
{
    check_prompt(provider, ctx, prompt);
    return context_check(ctx, e) && provider->ops->complete(provider, ctx, how, prompt, reply, e);
}

bool provider_stream(struct provider *provider, struct context *ctx,
                     const struct provider_call *how, const struct prompt *prompt,
                     struct reply_stream **out, struct error *e)
{
    check_prompt(provider, ctx, prompt);
    return context_check(ctx, e) && provider->ops->stream(provider, ctx, how, prompt, out, e);
}

bool provider_forward(struct provider *provider, struct context *ctx,
                      const struct provider_call *how, str path, str body,
                      struct http_exchange **out, struct error *e)
{
    ensure(provider && ctx && str_starts_with(path, S("/")));
    return context_check(ctx, e) && provider->ops->forward(provider, ctx, how, path, body, out, e);
}

bool provider_embed(struct provider *provider, struct context *ctx, const struct provider_call *how,
                    const struct embed_request *request, struct embed_reply *reply, struct error *e)
{
    ensure(provider && ctx && request && request->text_count > 0 && request->texts);
    if (!provider->ops->embed)
        return error_set(e, REASON_UNSUPPORTED, "provider " STR_FMT " has no embeddings",
                         STR_ARG(provider->name));
    return context_check(ctx, e) && provider->ops->embed(provider, ctx, how, request, reply, e);
}

bool provider_models(struct provider *provider, struct context *ctx, str **names, size_t *count,
                     struct error *e)
{
    ensure(provider && ctx);
    return context_check(ctx, e) && provider->ops->models(provider, ctx, names, count, e);
}

void provider_destroy(struct provider *provider)
{
    if (provider)
        provider->ops->destroy(provider);
}
