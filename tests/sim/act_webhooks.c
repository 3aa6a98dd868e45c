/*
 * Webhooks: endpoints of two tenants in the simulated network, which refuse, answer late, fail, want no more, or take a delivery without
 * anybody hearing of it.  Somebody keeps them: makes them, asks for dead deliveries again, lets a paused one go on.
 */
#include "acts.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/secret.h"
#include "laws.h"
#include "orchestrator/webhook/webhook.h"

static const struct {
    const char *name, *url, *events, *secret;
    bool is_others; /* of the other tenant */
} hooks[HOOKS] = {
    {"all", "https://all.sim/", NULL, "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", false},
    {"ends", "https://ends.sim/", "[\"run.completed\",\"run.failed\"]",
     "whsec_YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=", false},
    {"all", "https://other.sim/", NULL, "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=", true},
};

uuid hook_tenant(const struct world *world, int index)
{
    return hooks[index].is_others ? uuid_derive(world->tenant_id, S("another tenant"))
                                  : world->tenant_id;
}

const char *hook_name(int index)
{
    return hooks[index].name;
}

/* ---- the network ---- */

static bool check_url(void *owner, str url, struct error *e)
{
    (void) owner;
    (void) url;
    (void) e;
    return true;
}

static int find_hook(str url)
{
    for (int i = 0; i < HOOKS; i++)
        if (str_equal(url, str_from_cstr(hooks[i].url)))
            return i;
    return -1;
}

static bool is_signed(struct node *node, struct arena *arena, int index,
                      const struct webhook_signed *request)
{
    struct error e = {0};
    str key;
    int64_t now_s = clock_unix_us(&node->clock.base) / 1000000;
    bool ok =
        webhook_secret_key(arena, WEBHOOK_STANDARD, str_from_cstr(hooks[index].secret), &key, &e);
    ensure(ok);
    return webhook_verify(arena, WEBHOOK_STANDARD, key, request, now_s);
}

static str header(const struct webhook_send *request, str name)
{
    for (size_t i = 0; i < request->header_count; i++)
        if (str_equal(request->headers[i].name, name))
            return request->headers[i].value;
    return STR_NONE;
}

/* What the receiver says; nobody is gone for ever while nobody looks after it. */
static struct webhook_answer draw_answer(struct world *world, int index)
{
    int64_t fate = world_between(world, 0, 99);
    bool is_kept = world->stage->is_hook_kept;
    if (fate < 12)
        return (struct webhook_answer){.status = 500};
    if (fate < 16)
        return (struct webhook_answer){.status = 429, .retry_after_ms = HOOK_RETRY_AFTER_MS};
    if (fate < 18 && index == 1 && is_kept)
        return (struct webhook_answer){.status = 410};
    return (struct webhook_answer){.status = fate % 2 ? 200 : 204};
}

static bool send(void *owner, struct context *ctx, const struct webhook_send *request,
                 struct webhook_answer *out, struct error *e)
{
    struct node *node = owner;
    struct world *world = node->world;
    struct webhook_signed said = {.id = header(request, S("webhook-id")),
                                  .timestamp = header(request, S("webhook-timestamp")),
                                  .signature = header(request, S("webhook-signature")),
                                  .body = request->body};
    int index = find_hook(request->url);
    ensure(index >= 0);
    if (!is_signed(node, ctx->arena, index, &said))
        world_violation(world, "a delivery to %s is not signed with its secret", hooks[index].url);
    if (world_chance(world, 100))
        return error_set(e, REASON_UNAVAILABLE, "simulated: connection refused");
    if (!context_sleep_ms(ctx, world_between(world, 0, world_chance(world, 100) ? 8000 : 300), e))
        return false;
    struct webhook_answer answer = draw_answer(world, index);
    law_webhook_heard(world, ctx, index, &said, answer.status);
    if (world_chance(world, 80)) {
        cover(world, COVER_HOOK_ANSWER_LOST);
        return error_set(e, REASON_UNAVAILABLE, "simulated: connection reset");
    }
    if (!context_sleep_ms(ctx, world_between(world, 0, 100), e))
        return false;
    *out = answer;
    return true;
}

static const int64_t waits_ms[HOOK_RETRIES] = {1000, 4000, 15000};

int64_t hook_wait_ms(int attempt)
{
    return waits_ms[attempt - 1];
}

const struct webhook_options *hook_options(struct node *node)
{
    static struct secret *seal_key;
    struct webhook_options *options = ARENA_NEW(node->world->arena, struct webhook_options);
    if (!node->world->stage->rules.acts[ACT_WEBHOOKS])
        return NULL;
    if (!seal_key)
        seal_key = secret_create(S("0123456789abcdef0123456789abcdef"));
    *options = (struct webhook_options){.seal_key = seal_key,
                                        .check_url = check_url,
                                        .send = send,
                                        .owner = node,
                                        .retry_count = HOOK_RETRIES,
                                        .timeout_ms = 5000};
    memcpy(options->retry_ms, waits_ms, sizeof waits_ms);
    return options;
}

/* ---- who keeps them ---- */

struct keeping {
    int index;
    bool is_done;
};

static struct principal bob_of(const struct errand *call, int index)
{
    struct principal bob = person_principal(call->world, "bob");
    bob.tenant_id = hook_tenant(call->world, index);
    return bob;
}

static void ask_create(struct errand *call, void *argument)
{
    struct keeping *keeping = argument;
    struct principal bob = bob_of(call, keeping->index);
    struct webhook_endpoint_request request = {
        .name = str_from_cstr(hooks[keeping->index].name),
        .url = str_from_cstr(hooks[keeping->index].url),
        .secret = str_from_cstr(hooks[keeping->index].secret),
    };
    struct record row;
    struct error e = {0};
    str secret;
    if (hooks[keeping->index].events &&
        !json_parse(call->ctx.arena, str_from_cstr(hooks[keeping->index].events),
                    (struct json_limits){0}, &request.events, &e))
        return;
    bool ok = webhook_endpoint_create(call->o, &call->ctx, &bob, &request, &row, &secret, &e);
    keeping->is_done = ok || e.code == ERROR_CONFLICT;
    if (ok && !world_is_shared(call->world)) /* else it hears of it by and by */
        call->node->knows_hook_us[keeping->index] = clock_unix_us(call->world->clock);
    if (!keeping->is_done && (e.code == ERROR_INVALID || e.code == ERROR_DENIED))
        world_violation(call->world, "an endpoint was refused: %s", e.message);
}

static void ask_test(struct errand *call, void *argument)
{
    const struct keeping *keeping = argument;
    struct principal bob = bob_of(call, keeping->index);
    struct error e = {0};
    uuid id;
    (void) !webhook_endpoint_test(call->o, &call->ctx, &bob,
                                  str_from_cstr(hooks[keeping->index].name), &id, &e);
}

static void ask_resume(struct errand *call, void *argument)
{
    struct keeping *keeping = argument;
    struct principal bob = bob_of(call, keeping->index);
    str name = str_from_cstr(hooks[keeping->index].name);
    struct record row;
    struct error e = {0};
    keeping->is_done = false;
    if (!webhook_endpoint_get(call->o, &call->ctx, &bob, name, &row, &e))
        return;
    keeping->is_done = record_integer(&row, WEBHOOK_ENDPOINTS_IS_PAUSED) == 0;
    if (keeping->is_done ||
        !webhook_endpoint_pause(call->o, &call->ctx, &bob, name, false, &row, &e))
        return;
    keeping->is_done = true;
    cover(call->world, COVER_HOOK_RESUMED);
}

static void ask_again(struct errand *call, void *argument)
{
    const struct keeping *keeping = argument;
    struct principal bob = bob_of(call, keeping->index);
    struct error e = {0};
    int64_t count = 0;
    bool is_more;
    if (webhook_redeliver(call->o, &call->ctx, &bob, str_from_cstr(hooks[keeping->index].name),
                          &count, &is_more, &e) &&
        count > 0)
        cover(call->world, COVER_HOOK_AGAIN);
}

static void keeper(struct person *person)
{
    struct world *world = person->world;
    struct keeping keeping = {0};
    for (; keeping.index < HOOKS && !world->violation[0]; keeping.index++)
        for (keeping.is_done = false; !keeping.is_done && !world->violation[0];) {
            (void) person_ask(person, ask_create, &keeping);
            person_doze(person, 1, 20);
        }
    while ((person_is_needed(person) || law_webhooks_wait(world)) && !world->violation[0]) {
        keeping.index = (int) world_between(world, 0, HOOKS - 1);
        bool is_needed = person_is_needed(person); /* later nothing new is asked for */
        if (is_needed && world_chance(world, 100))
            (void) person_ask(person, ask_test, &keeping);
        else if (is_needed && world_chance(world, 50))
            (void) person_ask(person, ask_again, &keeping);
        else
            (void) person_ask(person, ask_resume, &keeping);
        person_doze(person, 500, 6000);
        world->stage->is_hook_kept = is_needed;
    }
    world->stage->is_hook_kept = false;
    keeping.index = 1; /* the one that may be gone: what a late request asks for must get there */
    for (keeping.is_done = false; !keeping.is_done && !world->violation[0];) {
        person_doze(person, 10000, 10000); /* the last answers are stored */
        (void) person_ask(person, ask_resume, &keeping);
    }
}

void act_webhooks(struct world *world)
{
    world->stage->is_hook_kept = true;
    servant_start(world, "keeper", keeper, 0);
}
