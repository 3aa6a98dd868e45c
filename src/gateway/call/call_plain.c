/*
 * One governed call of a model: policy and limits, the cache, attempts in turn or side by side, settlement.
 *
 *   plain_call_begin --> cache? --> attempt --READY--> to the client, whole or streamed --> booked
 *                                      ^   \--FAILED--> booked, the next one
 *                                      '---- hedge: a second one beside a slow first; the first with content wins
 *
 * The client sees nothing of an attempt before it is READY: so what fails before is made good by another one, and when none is left
 * the status says why.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/call/call_internal.h"
#include "gateway/call/embeddings.h"
#include "llm/guard_large.h"

/* ---- what is told ---- */

void work_put_headers(struct plain_work *work, const struct call_attempt *a)
{
    struct api_call *call = work->m->call;
    const struct provider *provider = a->plain.attempt.target->provider;
    if (a->plain.is_lowered)
        reply_header(call, S("Nexus-Degraded"),
                     str_printf(call->ctx->arena, "output limited to %lld tokens by the budget",
                                (long long) a->plain.max_output_tokens));
    if (provider->ops->is_stand_in)
        reply_header(call, S("Nexus-Stand-In"), provider->name);
    if (work->fill)
        reply_header(call, S("Nexus-Cache"), S("miss"));
}

/* ---- the end ---- */

static void correct_rate(struct plain_work *work)
{
    const struct usage *usage = &work->plain.usage;
    middleware_correct_tokens(work->m->call->gateway, &work->plain.principal,
                              usage->input_tokens + usage->output_tokens - work->token_estimate);
}

static void end_call(struct plain_work *work, enum plain_cache cache, const struct error *failure)
{
    cache_fill_abandon(GIVE(work->fill));
    correct_rate(work);
    plain_call_end(work->m->call->gateway->orchestrator, &work->plain, cache, failure);
    work->is_ended = true;
}

void work_end(struct plain_work *work, struct call_attempt *a, const struct error *failure)
{
    bool is_kept = !failure && !a->plain.is_lowered;
    attempt_settle(a, failure);
    if (work->fill && is_kept)
        cache_fill_commit(GIVE(work->fill), 200,
                          work->m->request.is_stream ? S("text/event-stream")
                                                     : S("application/json"),
                          work->m->request.is_stream, &a->usage);
    end_call(work, PLAIN_CACHE_NONE, failure);
}

/* ---- a whole answer ---- */

static bool send_whole(struct call_attempt *a, struct error *e)
{
    struct plain_work *work = a->work;
    struct model_call *m = work->m;
    struct reply_writer writer;
    str body = a->body;
    if (!a->is_forwarded) {
        struct dialect_answer answer = call_answer(m);
        m->dialect->write_reply(reply_writer_init(&writer, m->call), &answer, &a->reply);
        body = strbuf_str(&writer.text);
        if (strbuf_is_over(&writer.text))
            return error_set(e, REASON_TOO_LARGE, "the answer is over %u bytes",
                             GATEWAY_REPLY_BYTES_MAX);
    } else if (m->responses) {
        responses_set_provider(m->responses, a->plain.attempt.target->provider->name);
    }
    work_put_headers(work, a);
    call_keep(m, body);
    reply_send(m->call, 200, S("application/json"), body);
    if (work->fill)
        cache_fill_add(work->fill, body);
    return true;
}

static bool deliver_whole(struct call_attempt *a, struct error *e)
{
    bool ok = send_whole(a, e);
    attempt_close(a);
    work_end(a->work, a, ok ? NULL : e);
    return ok;
}

static never_inline bool deliver(struct call_attempt *a, struct error *e)
{
    if (!a->work->m->request.is_stream)
        return deliver_whole(a, e);
    return a->is_forwarded ? call_stream_relay(a, e) : call_stream_deltas(a, e);
}

/* ---- attempts side by side ---- */

struct race {
    struct plain_work *work;
    struct group group;
    struct condition changed;
    struct call_attempt *runners[1 + CALL_HEDGES_MAX];
    size_t count;
};

static void run_attempt(struct context *ctx, void *argument)
{
    struct call_attempt *a = argument;
    attempt_open(a, ctx);
    condition_signal(a->changed);
}

static bool start_runner(struct race *race, struct call_attempt *a, struct error *e)
{
    a->changed = &race->changed;
    if (!group_start(&race->group, "call.attempt", run_attempt, a, e)) {
        error_copy(&a->failure, e);
        a->stage = ATTEMPT_FAILED;
        return false;
    }
    race->runners[race->count++] = a;
    return true;
}

/* The one that is READY; else whether any is still on its way. */
static struct call_attempt *find_ready(const struct race *race, bool *is_any_open)
{
    *is_any_open = false;
    for (size_t i = 0; i < race->count; i++) {
        if (race->runners[i]->stage == ATTEMPT_READY)
            return race->runners[i];
        *is_any_open = *is_any_open || race->runners[i]->stage == ATTEMPT_OPENING;
    }
    return NULL;
}

static struct call_attempt *make_attempt(struct plain_work *work, struct arena *arena)
{
    struct call_attempt *a = ARENA_NEW(work->m->call->ctx->arena, struct call_attempt);
    a->work = work;
    a->arena = arena;
    a->estimated_output = -1;
    return a;
}

/* No second target, no budget for it: then the first goes on alone. */
static void start_hedge(struct race *race, struct arena *arena)
{
    struct plain_work *work = race->work;
    struct error refused = {0};
    struct call_attempt *a = make_attempt(work, arena);
    if (!plain_attempt_begin(work->m->call->gateway->orchestrator, &work->ctx, &work->plain, NULL,
                             &a->plain, &refused))
        return;
    if (!start_runner(race, a, &refused))
        attempt_settle(a, &refused);
}

/* Until one is READY, all have FAILED, or the call's time is over. */
static struct call_attempt *watch(struct race *race, int64_t hedge_at_ns, struct arena *arena)
{
    bool has_hedged = false, is_any_open;
    struct call_attempt *ready;
    while (!(ready = find_ready(race, &is_any_open)) && is_any_open) {
        struct error waited = {0};
        if (has_hedged) {
            if (!condition_wait(&race->changed, &race->work->ctx, &waited))
                break;
        } else if (!condition_wait_until(&race->changed, &race->work->ctx, hedge_at_ns, &waited)) {
            if (waited.code != ERROR_TIMEOUT || !context_check(&race->work->ctx, NULL))
                break;
            has_hedged = true;
            start_hedge(race, arena);
        }
    }
    return ready;
}

/* The winner, or NULL: *failure is then why the last one failed.  Losers are closed and booked. */
static never_inline struct call_attempt *run_race(struct call_attempt *first, int64_t hedge_ms,
                                                  struct arena *arenas[2], struct error *failure)
{
    struct race *race = ARENA_NEW(first->work->m->call->ctx->arena, struct race);
    struct call_attempt *winner = NULL;
    bool is_any_open;
    race->work = first->work;
    first->arena = arenas[0];
    condition_init(&race->changed);
    group_init(&race->group, &first->work->ctx);
    if (start_runner(race, first, failure))
        winner =
            watch(race, context_now_ns(&first->work->ctx) + hedge_ms * INT64_C(1000000), arenas[1]);
    else
        attempt_settle(first, failure);
    group_cancel(&race->group); /* the slower one's upstream closes now */
    group_wait(&race->group);
    if (!winner)
        winner = find_ready(race, &is_any_open);
    for (size_t i = 0; i < race->count; i++) {
        struct call_attempt *a = race->runners[i];
        if (a == winner)
            continue;
        if (a->stage == ATTEMPT_READY || winner)
            error_set(&a->failure, REASON_CANCELLED, "another attempt was faster");
        attempt_close(a);
        attempt_settle(a, &a->failure);
        if (!winner)
            *failure = a->failure;
    }
    return winner;
}

/* ---- attempts in turn ---- */

/* Gives the attempt that is READY, or NULL with *failure; then it is booked. */
static struct call_attempt *run_one(struct call_attempt *a, struct arena *arenas[2],
                                    struct error *failure)
{
    struct plain_work *work = a->work;
    int64_t hedge_ms = route_hedge_after_ms(&work->plain.route, &a->plain.attempt);
    if (hedge_ms > 0)
        return run_race(a, hedge_ms, arenas, failure);
    attempt_open(a, &work->ctx);
    if (a->stage == ATTEMPT_READY)
        return a;
    *failure = a->failure;
    attempt_settle(a, failure);
    return NULL;
}

/* The call's own deadline counts more than what it made of an attempt. */
static never_inline void check_total(struct plain_work *work, struct error *failure)
{
    struct error own = {0};
    if (context_check(&work->ctx, &own) || own.code != ERROR_TIMEOUT ||
        failure->reason == REASON_PROVIDER_TIMEOUT)
        return;
    error_set(failure, REASON_PROVIDER_TIMEOUT, "the model did not answer within %lld ms",
              (long long) work->total_ms);
}

static never_inline bool run_attempts(struct plain_work *work, struct error *e)
{
    struct api_call *call = work->m->call;
    struct error last = {0};
    bool has_failed = false;
    for (;;) {
        struct call_attempt *a = make_attempt(work, call->ctx->arena);
        if (!plain_attempt_begin(call->gateway->orchestrator, &work->ctx, &work->plain,
                                 has_failed ? &last : NULL, &a->plain, e)) {
            check_total(work, e);
            return false;
        }
        arena_mark mark = arena_save(call->ctx->arena);
        bool may_hedge = work->plain.model->hedge_after_ms != 0;
        OWNED(arena) own =
            may_hedge ? arena_create(0) : NULL; /* what runs side by side shares none */
        OWNED(arena) other = may_hedge ? arena_create(0) : NULL;
        last = (struct error){0};
        struct call_attempt *ready = run_one(a, (struct arena *[]){own, other}, &last);
        if (likely(ready != NULL))
            return deliver(ready, e);
        check_total(work, &last);
        bool is_final = last.code == ERROR_CANCELLED || last.reason == REASON_CONTENT_BLOCKED;
        if (is_final || !context_check(&work->ctx, NULL))
            return error_copy(e, &last);
        arena_rewind(call->ctx->arena, mark);
        has_failed = true;
    }
}

/* ---- the cache ---- */

static bool may_use_cache(const struct plain_work *work)
{
    const struct api_call *call = work->m->call;
    if (!call->gateway->cache || work->plain.model->cache.mode == MODEL_CACHE_OFF ||
        work->m->responses)
        return false;
    str control = http_request_header(call->request, S("Cache-Control"));
    return str_find(control, S("no-cache")) == STR_NOT_FOUND &&
           str_find(control, S("no-store")) == STR_NOT_FOUND;
}

static bool send_hit(struct plain_work *work, const struct cache_answer *hit, struct error *e)
{
    struct api_call *call = work->m->call;
    struct arena *arena = call->ctx->arena;
    int64_t age_s = (clock_unix_us(call->gateway->clock) - hit->stored_us) / 1000000;
    str said = str_printf(arena, "hit; age=%lld", (long long) (age_s > 0 ? age_s : 0));
    if (hit->is_semantic)
        said = str_printf(arena, STR_FMT "; similarity=%.3f", STR_ARG(said), hit->similarity);
    reply_header(call, S("Nexus-Cache"), said);
    end_call(work, hit->is_semantic ? PLAIN_CACHE_SEMANTIC : PLAIN_CACHE_EXACT, NULL);
    if (!hit->is_stream) {
        reply_send(call, hit->status, hit->content_type, hit->body);
        return true;
    }
    if (!call_stream_begin(call, e) || !http_reply_write(call->request, hit->body, e))
        return false;
    http_reply_end(call->request);
    return true;
}

/* What goes on to the provider beside the body may change the answer as well. */
static const char *name_for_key(const struct plain_work *work)
{
    str name = str_from_cstr(work->m->dialect->name);
    for (size_t i = 0; i < work->travel.count; i++)
        name =
            str_printf(work->m->arena, STR_FMT "\n" STR_FMT ":" STR_FMT, STR_ARG(name),
                       STR_ARG(work->travel.items[i].name), STR_ARG(work->travel.items[i].value));
    return str_to_cstr(work->m->arena, name);
}

static bool has_beta(const struct plain_work *work)
{
    return http_headers_get(&work->travel, S("anthropic-beta")).len > 0 ||
           http_headers_get(&work->travel, S("OpenAI-Beta")).len > 0;
}

/* After LEAD: a neighbour's answer takes the fill. */
static bool find_similar(struct plain_work *work, const struct cache_key *key, str scope_user,
                         struct cache_answer *hit)
{
    const struct model_call *m = work->m;
    const struct model_cache *rule = &work->plain.model->cache;
    if (rule->mode != MODEL_CACHE_SEMANTIC || m->request.has_tools || has_beta(work))
        return false;
    struct embeddings_lookup lookup = {
        .call = m->call,
        .key = key,
        .rule = rule,
        .scope_user = scope_user,
        .dialect = m->dialect->id,
        .model = m->request.model,
        .settings_version = work->plain.settings->version,
        .request = m->json,
    };
    return embeddings_find_similar(&lookup, &work->ctx, &work->fill, hit);
}

/* *is_answered: by an answer that was made before. */
static never_inline bool look_up(struct plain_work *work, bool *is_answered, struct error *e)
{
    const struct model_call *m = work->m;
    const struct model_cache *rule = &work->plain.model->cache;
    struct cache_key key;
    if (!may_use_cache(work))
        return true;
    struct cache_answer *hit = ARENA_NEW(m->call->ctx->arena, struct cache_answer);
    str scope_user = rule->is_tenant_wide ? STR_NONE : m->call->principal.user_id;
    cache_key_make(m->arena, m->call->principal.tenant_id, scope_user, name_for_key(work),
                   m->request.model, work->plain.settings->version, m->json, &key);
    enum cache_outcome outcome =
        response_cache_begin(m->call->gateway->cache, &work->ctx, &key, rule, hit, &work->fill);
    *is_answered = outcome == CACHE_HIT ||
                   (outcome == CACHE_LEAD && find_similar(work, &key, scope_user, hit));
    return !*is_answered || send_hit(work, hit, e);
}

/* ---- the content filter ---- */

/* What callers, tools and earlier answers said, before anything goes out; a mask changes the request that is sent. */
static never_inline bool filter_request(struct plain_work *work, struct error *e)
{
    struct model_call *m = work->m;
    const struct guard_rules *rules = work->plain.model->guard;
    const struct json *tree = call_tree(m);
    str filtered;
    bool is_changed;
    if (!guard_is_on(rules, GUARD_REQUEST))
        return true;
    size_t count = m->dialect->texts(DOCUMENT_REQUEST, tree, NULL, 0);
    struct dialect_text *texts = ARENA_ARRAY(m->arena, struct dialect_text, count + 1);
    m->dialect->texts(DOCUMENT_REQUEST, tree, texts, count);
    struct guard_caller caller = {&work->ctx, m->arena, rules, work->plain.found, GUARD_REQUEST};
    if (!guard_large_json(&caller, tree, texts, count, &filtered, &is_changed, e))
        return false;
    if (!is_changed)
        return true;
    struct json_limits limits = {.bytes_max = 2 * GATEWAY_CHAT_BODY_BYTES_MAX};
    m->body = filtered;
    m->is_masked = true;
    return json_parse(m->arena, filtered, limits, &m->json, e);
}

/* ---- one call ---- */

static never_inline bool begin(struct plain_work *work, struct error *e)
{
    const struct dialect_request *request = &work->m->request;
    struct api_call *call = work->m->call;
    work->token_estimate =
        request->input_tokens_bound + request->max_output_tokens * request->choices;
    if (!middleware_take_tokens(call, work->token_estimate, e))
        return false;
    struct plain_request plain = {
        .model = request->model,
        .session_id = work->m->session_id,
        .input_tokens_bound = request->input_tokens_bound,
        .max_output_tokens = request->max_output_tokens,
        .choices = request->choices,
        .dialect = work->m->dialect->name,
        .kind = "chat",
        .is_stream = request->is_stream,
        .has_tools = request->has_tools,
        .prefer = work->m->responses ? responses_provider(work->m->responses) : STR_NONE,
    };
    if (plain_call_begin(call->gateway->orchestrator, call->ctx, &call->principal, &plain,
                         &work->plain, e)) {
        reply_call_id(call, work->plain.id);
        return true;
    }
    middleware_correct_tokens(call->gateway, &call->principal, -work->token_estimate);
    return false;
}

bool call_plain(struct model_call *m, struct error *e)
{
    struct error failure = {0};
    struct api_call *call = m->call;
    struct plain_work *work = ARENA_NEW(call->ctx->arena, struct plain_work);
    work->m = m;
    if (!begin(work, e))
        return false;
    work->total_ms = work->plain.model->deadlines.total_ms > 0
                         ? work->plain.model->deadlines.total_ms
                         : work->plain.settings->call_timeout_ms;
    call_travel(call, &work->travel);
    context_init_child(&work->ctx, call->ctx, context_deadline_in(call->ctx, work->total_ms));
    bool is_answered = false;
    bool ok = filter_request(work, &failure) && look_up(work, &is_answered, &failure) &&
              (is_answered || run_attempts(work, &failure));
    context_deinit(&work->ctx);
    if (!work->is_ended)
        end_call(work, PLAIN_CACHE_NONE, ok ? NULL : &failure);
    if (ok)
        return true;
    if (http_reply_has_begun(call->request))
        (void) !call_stream_fail(m, &failure);
    return error_copy(e, &failure);
}
