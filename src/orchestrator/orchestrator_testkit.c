#include "orchestrator/orchestrator_testkit.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/executor_testkit_internal.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/webhook/webhook.h"
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- policy ---- */

struct fake_policy {
    struct policy base;
    struct testkit *kit;
};

static bool is_denied(const struct testkit *kit, str what)
{
    for (size_t i = 0; i < ARRAY_COUNT(kit->denied); i++)
        if (!str_is_empty(what) && str_equal(kit->denied[i], what))
            return true;
    return false;
}

static void decide(struct policy *base, struct context *ctx, const struct policy_input *input,
                   struct policy_decision *out)
{
    struct testkit *kit = ((struct fake_policy *) base)->kit;
    (void) ctx;
    kit->decisions++;
    kit->policy_role = str_copy(kit->arena, input->role);
    kit->policy_user = str_copy(kit->arena, input->user_id);
    out->rule = S("fake");
    out->reason = S("the test says so");
    out->version = S("1");
    if (is_denied(kit, input->action) || is_denied(kit, input->tool_name))
        return;
    bool is_guarded = str_equal(input->tool_category, S("system"));
    bool is_approved =
        !str_is_empty(input->approver) && !str_equal(input->approver, input->user_id);
    out->verdict = is_guarded && !is_approved ? POLICY_NEEDS_APPROVAL : POLICY_ALLOW;
}

static bool approval_demands(struct policy *base, struct context *ctx,
                             const struct policy_input *input, str *out, struct error *e)
{
    (void) ctx;
    (void) input;
    (void) e;
    *out = ((struct fake_policy *) base)->kit->approval_rules;
    return true;
}

static bool reload(struct policy *policy, struct error *e)
{
    (void) policy;
    (void) e;
    return true;
}

static void destroy_policy(struct policy *policy)
{
    free(policy);
}

static const struct policy_ops policy_ops = {"fake", decide, approval_demands, reload,
                                             destroy_policy};

/* ---- provider ---- */

struct fake_provider {
    struct provider base;
    struct testkit *kit;
};

struct fake_stream {
    struct reply_stream base;
    struct fake_reply reply;
    int position;
};

static bool next(struct reply_stream *base, struct context *ctx, struct delta *out, struct error *e)
{
    struct fake_stream *stream = (struct fake_stream *) base;
    const struct fake_reply *reply = &stream->reply;
    if (!context_sleep_ms(ctx, reply->pause_ms, e))
        return false;
    int at = stream->position++;
    if (at == 1 && reply->cut != REASON_NONE)
        return error_set(e, reply->cut, "the fake stream is cut");
    if (at < reply->delta_count) {
        *out = reply->deltas[at];
        return true;
    }
    at -= reply->delta_count;
    bool is_silent = reply->call_count + reply->delta_count > 0;
    const char *text = reply->text ? reply->text : is_silent ? NULL : "done";
    if (text && at == 0) {
        *out = (struct delta){.kind = DELTA_TEXT, .text = str_from_cstr(text)};
        return true;
    }
    at -= text != NULL;
    if (at < reply->call_count * 2) {
        const struct fake_call *call = &reply->calls[at / 2];
        *out = (struct delta){.kind = at % 2 ? DELTA_TOOL_ARGUMENTS : DELTA_TOOL_CALL,
                              .index = at / 2};
        if (at % 2) {
            out->text = str_from_cstr(call->arguments);
        } else {
            out->call_id = S("call");
            out->name = str_from_cstr(call->name);
        }
        return true;
    }
    *out = (struct delta){.kind = DELTA_END,
                          .finish = reply->call_count ? FINISH_TOOL_CALLS : FINISH_STOP};
    out->usage = reply->usage;
    return true;
}

static void close_stream(struct reply_stream *base)
{
    free(base);
}

static const struct reply_stream_ops stream_ops = {next, close_stream};

static void note_prompt(struct testkit *kit, const struct prompt *prompt)
{
    kit->prompt_messages = prompt->message_count;
    kit->prompt_tools = prompt->tool_count;
    kit->prompt_max_output_tokens = prompt->max_output_tokens;
    const struct prompt_message *last = &prompt->messages[prompt->message_count - 1];
    kit->prompt_last = str_copy(kit->arena, prompt_message_text(kit->arena, last));
    kit->prompt_last_result = STR_NONE;
    for (size_t i = 0; i < last->part_count; i++)
        if (last->parts[i].kind == PART_TOOL_RESULT)
            kit->prompt_last_result = str_copy(kit->arena, last->parts[i].text);
}

static bool stream(struct provider *base, struct context *ctx, const struct provider_call *how,
                   const struct prompt *prompt, struct reply_stream **out, struct error *e)
{
    (void) how;
    struct fake_provider *provider = (struct fake_provider *) base;
    struct testkit *kit = provider->kit;
    struct fake_reply reply = {
        .usage = {.input_tokens = 10, .output_tokens = 5, .is_reported = true}};
    kit->model_calls++;
    kit->fallback_calls += provider == kit->fallback;
    note_prompt(kit, prompt);
    if (kit->on_prompt)
        kit->on_prompt(kit, prompt);
    if (kit->reply_next < kit->reply_count)
        reply = kit->replies[kit->reply_next++];
    if (!context_sleep_ms(ctx, reply.delay_ms, e))
        return false;
    if (reply.refusal != REASON_NONE) {
        error_set(e, reply.refusal, "the fake provider refuses");
        e->retry_after_ms = reply.retry_after_ms;
        return false;
    }
    struct fake_stream *made = calloc(1, sizeof *made);
    ensure(made != NULL);
    *made = (struct fake_stream){.base = {.ops = &stream_ops}, .reply = reply};
    *out = &made->base;
    return true;
}

/* The stream's pieces, each as the part it is. */
static bool complete(struct provider *base, struct context *ctx, const struct provider_call *how,
                     const struct prompt *prompt, struct reply *out, struct error *e)
{
    struct delta delta;
    struct part *calls[FAKE_CALLS_MAX] = {0};
    OWNED(reply_stream) pieces = NULL;
    struct reply reply = {.id = S("fake-1"), .model = prompt->model};
    if (!stream(base, ctx, how, prompt, &pieces, e))
        return false;
    reply.parts = ARENA_ARRAY(ctx->arena, struct part, FAKE_CALLS_MAX + 1);
    do {
        if (!reply_stream_next(pieces, ctx, &delta, e))
            return false;
        struct part *part = &reply.parts[reply.part_count];
        if (delta.kind == DELTA_TOOL_ARGUMENTS) {
            calls[delta.index]->arguments = delta.text;
        } else if (delta.kind == DELTA_TOOL_CALL) {
            *part = (struct part){.kind = PART_TOOL_CALL, .name = delta.name};
            part->call_id = str_printf(ctx->arena, "call%d", delta.index);
            calls[delta.index] = part;
            reply.part_count++;
        } else if (delta.kind == DELTA_TEXT) {
            *part = (struct part){.kind = PART_TEXT, .text = delta.text};
            reply.part_count++;
        }
    } while (delta.kind != DELTA_END);
    reply.finish = delta.finish;
    reply.usage = delta.usage;
    *out = reply;
    return true;
}

static bool forward(struct provider *base, struct context *ctx, const struct provider_call *how,
                    str path, str body, struct http_exchange **out, struct error *e)
{
    (void) how;
    (void) base;
    (void) ctx;
    (void) path;
    (void) body;
    (void) out;
    return error_set(e, REASON_PROVIDER_INVALID, "the fake provider forwards nothing");
}

static bool models(struct provider *base, struct context *ctx, str **names, size_t *count,
                   struct error *e)
{
    (void) base;
    (void) ctx;
    (void) e;
    *names = NULL;
    *count = 0;
    return true;
}

static void destroy_provider(struct provider *provider)
{
    free(provider);
}

static const struct provider_ops provider_ops = {
    .name = "fake",
    .is_stand_in = true,
    .complete = complete,
    .stream = stream,
    .forward = forward,
    .models = models,
    .destroy = destroy_provider,
};

static struct fake_provider *make_provider(struct testkit *kit, str name)
{
    struct fake_provider *provider = calloc(1, sizeof *provider);
    ensure(provider != NULL);
    *provider = (struct fake_provider){.base = {.ops = &provider_ops, .name = name}, .kit = kit};
    return provider;
}

/* ---- registry ---- */

static const struct {
    const char *name, *category, *flags;
} manifests[FAKE_TOOLS] = {
    {"lookup", "data_analysis", "pure: true\nidempotent: true\n"},
    {"notify", "http", "pure: false\nidempotent: true\n"},
    {"pay", "http", "pure: false\nidempotent: false\n"},
    {"wipe", "system", "pure: false\nidempotent: false\n"},
};

static void write_file(const char *dir, const char *tool, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s", dir, tool, name);
    FILE *file = fopen(path, "we");
    ensure(file != NULL);
    ensure(fputs(text, file) >= 0 && fclose(file) == 0);
}

static void write_manifest(const char *dir, size_t i)
{
    char path[256], text[1024];
    snprintf(path, sizeof path, "%s/%s", dir, manifests[i].name);
    ensure(mkdir(path, 0700) == 0);
    snprintf(text, sizeof text,
             "name: %s\nversion: 1.0.0\ncategory: %s\nauthor: test\nabi: nexus-export\nmodule: "
             "tool.wasm\n%s"
             "limits: {fuel: 1000000, memory: 1MB, time: 10s, output: 64KB}\npermissions: "
             "{}\ndescription: fake\n"
             "input: {type: object}\noutput: {type: object}\n",
             manifests[i].name, manifests[i].category, manifests[i].flags);
    write_file(dir, manifests[i].name, "tool.wasm", "not run");
    write_file(dir, manifests[i].name, "manifest.yaml", text);
}

static void remove_manifest(const char *dir, size_t i)
{
    static const char *const names[] = {"/tool.wasm", "/manifest.yaml", ""};
    for (size_t n = 0; n < ARRAY_COUNT(names); n++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s%s", dir, manifests[i].name, names[n]);
        (void) remove(path);
    }
}

static struct registry *make_registry(void)
{
    char dir[] = "/tmp/nexus-test-XXXXXX";
    struct registry *registry = NULL;
    struct error e = {0};
    ensure(mkdtemp(dir) != NULL);
    for (size_t i = 0; i < FAKE_TOOLS; i++)
        write_manifest(dir, i);
    ensure(
        registry_create(&(struct registry_options){.tool_dir = str_from_cstr(dir)}, &registry, &e));
    for (size_t i = 0; i < FAKE_TOOLS; i++)
        remove_manifest(dir, i);
    rmdir(dir);
    return registry;
}

/* ---- one incarnation ---- */

struct posted {
    void (*fn)(void *argument);
    void *argument;
};

static void run_posted(void *argument)
{
    struct posted posted = *(struct posted *) argument;
    free(argument);
    posted.fn(posted.argument);
}

static void post(struct lane *lane, void (*fn)(void *argument), void *argument)
{
    struct testkit *kit = lane->owner;
    if (kit->loop) {
        loop_post(kit->loop, fn, argument);
        return;
    }
    struct posted *posted = malloc(sizeof *posted);
    struct error e;
    ensure(posted != NULL);
    *posted = (struct posted){fn, argument};
    ensure(coroutine_start(lane->scheduler, "post", run_posted, posted, &e));
}

static struct settings *make_settings(struct testkit *kit)
{
    struct settings *settings = calloc(1, sizeof *settings);
    struct error e;
    struct model_price price = {
        .is_known = true, .input_picousd_per_token = 1000, .output_picousd_per_token = 2000};
    struct model_target targets[] = {
        {.provider = &kit->provider->base, .model = S("fake"), .weight = 1, .price = price},
        {.provider = &kit->fallback->base, .model = S("fake"), .weight = 1, .price = price},
    };
    struct model model = {.name = S("fake"),
                          .targets = targets,
                          .target_count = 1,
                          .max_output_tokens = 300,
                          .retries_max = 3,
                          .guard = kit->guard};
    struct model pair = {.name = S("pair"),
                         .targets = targets,
                         .target_count = 2,
                         .max_output_tokens = 300,
                         .retries_max = 3};
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++)
        targets[i].context_tokens_max = kit->context_tokens_max;
    ensure(settings != NULL);
    *settings = kit->defaults;
    settings->catalog = catalog_create();
    settings->agents = agent_set_create();
    ensure(catalog_add(settings->catalog, &model, &e) && catalog_add(settings->catalog, &pair, &e));
    for (size_t i = 0; i < kit->agent_count; i++)
        ensure(agent_set_add(settings->agents, &kit->agents[i], &e));
    ensure(agent_set_check(settings->agents, &e));
    return settings;
}

static void boot(struct testkit *kit)
{
    struct error e = {0};
    if (kit->loop) {
        kit->scheduler = loop_scheduler(kit->loop);
    } else {
        kit->scheduler = scheduler_create(kit->clock, kit->random, (struct scheduler_hooks){0});
    }
    kit->lane = (struct lane){.scheduler = kit->scheduler, .post = post, .owner = kit};
    kit->metrics = metrics_create();
    kit->router = router_create(kit->clock, kit->random, kit->metrics);
    kit->provider = make_provider(kit, S("fake"));
    kit->fallback = make_provider(kit, S("fallback"));
    kit->executor = calloc(1, sizeof *kit->executor);
    kit->policy = calloc(1, sizeof *kit->policy);
    ensure(kit->executor != NULL && kit->policy != NULL);
    kit->executor->kit = kit;
    kit->executor->base.ops = &fake_executor_ops;
    *kit->policy = (struct fake_policy){.base = {.ops = &policy_ops}, .kit = kit};
    snprintf(kit->node, sizeof kit->node, "node-%d", kit->incarnation);
    struct orchestrator_parts parts = {
        .store = kit->store,
        .router = kit->router,
        .policy = &kit->policy->base,
        .registry = kit->registry,
        .executor = &kit->executor->base,
        .metrics = kit->metrics,
        .clock = kit->clock,
        .random = kit->random,
        .lanes = &kit->lane,
        .lane_count = 1,
        .node = str_from_cstr(kit->node),
        .data_dir = str_from_cstr(kit->data_dir),
        .webhooks = kit->webhooks,
        .is_shared = kit->is_shared,
        .settings = make_settings(kit),
    };
    ensure(orchestrator_create(&parts, &kit->o, &e));
}

static void drain_now(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct error e;
    struct context now;
    webhooks_settle(kit->o);
    context_init(&now, ctx->scheduler, ctx->arena, context_now_ns(ctx));
    (void) !orchestrator_drain(kit->o, &now, &e);
    context_deinit(&now);
    ensure(orchestrator_active_runs(kit->o) == 0);
}

static void bury(struct testkit *kit)
{
    orchestrator_destroy(kit->o);
    kit->o = NULL;
    if (!kit->loop)
        scheduler_destroy(kit->scheduler);
    router_destroy(kit->router);
    metrics_destroy(kit->metrics);
    provider_destroy(&kit->provider->base);
    provider_destroy(&kit->fallback->base);
    executor_destroy(&kit->executor->base);
    policy_destroy(&kit->policy->base);
}

static void recover(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct error e;
    size_t resumed;
    ensure(orchestrator_recover(kit->o, ctx, &resumed, &e));
}

void testkit_crash_only(struct testkit *kit)
{
    ensure(!kit->loop);
    struct store *survivor = memory_store_clone(kit->store);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    struct fake_tool counted[FAKE_TOOLS];
    memcpy(counted, kit->tools, sizeof counted);
    int model_calls = kit->model_calls;
    testkit_do(kit, drain_now, kit); /* writes to the old store only, which nobody looks at again */
    bury(kit);
    store_destroy(kit->store);
    memcpy(kit->tools, counted, sizeof counted);
    kit->model_calls = model_calls;
    kit->store = survivor;
    kit->incarnation++;
    boot(kit);
}

void testkit_crash(struct testkit *kit)
{
    testkit_crash_only(kit);
    testkit_begin(kit, recover, kit);
}

/* ---- running ---- */

struct body {
    struct testkit *kit;
    void (*fn)(struct context *ctx, void *argument);
    void *argument;
    bool is_last;
};

static void run_body(void *argument)
{
    struct body body = *(struct body *) argument;
    free(argument);
    OWNED(arena) arena = arena_create(256u << 20);
    struct context ctx;
    context_init(&ctx, body.kit->scheduler, arena, DEADLINE_NONE);
    body.fn(&ctx, body.argument);
    if (body.is_last) {
        drain_now(&ctx, body.kit);
        loop_stop(body.kit->loop);
    }
    context_deinit(&ctx);
}

void testkit_begin(struct testkit *kit, void (*fn)(struct context *ctx, void *argument),
                   void *argument)
{
    struct body *body = malloc(sizeof *body);
    struct error e;
    ensure(body != NULL);
    *body = (struct body){kit, fn, argument, kit->loop != NULL};
    ensure(coroutine_start(kit->scheduler, "test", run_body, body, &e));
}

void testkit_do(struct testkit *kit, void (*fn)(struct context *ctx, void *argument),
                void *argument)
{
    testkit_begin(kit, fn, argument);
    if (kit->loop)
        loop_run(kit->loop);
    else
        assert_true(simulated_run(kit->scheduler, kit->clock, 1000000));
}

void testkit_run_ms(struct testkit *kit, int64_t ms)
{
    int64_t until_ns = clock_monotonic_ns(kit->clock) + ms * 1000000;
    for (;;) {
        while (scheduler_run_ready(kit->scheduler, 1000))
            continue;
        int64_t next_ns = scheduler_run_timers(kit->scheduler);
        if (scheduler_ready_count(kit->scheduler) > 0)
            continue;
        if (next_ns > until_ns)
            break;
        clock_manual_advance_to_ns(kit->clock, next_ns);
    }
    clock_manual_advance_to_ns(kit->clock, until_ns);
}

/* ---- life ---- */

static struct testkit *make(struct loop *loop)
{
    struct testkit *kit = calloc(1, sizeof *kit);
    ensure(kit != NULL);
    kit->loop = loop;
    kit->random = loop ? random_system() : random_seeded_create(7);
    kit->clock = loop ? clock_system() : clock_manual_create(1700000000000000ll, 1000000000ll);
    kit->store =
        memory_store_create(kit->clock, kit->random, (struct memory_store_hooks){0}, S("test"));
    kit->registry = make_registry();
    kit->arena = arena_create(256u << 20);
    kit->tenant_id = uuid_new(kit->clock, kit->random);
    kit->other_tenant_id = uuid_new(kit->clock, kit->random);
    kit->defaults = (struct settings){
        .session_budget = {.tokens = 200000,
                           .time_ms = 3600000,
                           .cost_nanousd = COST_UNLIMITED,
                           .tool_calls = COST_UNLIMITED},
        .approval_expiry_ms = 600000,
        .call_timeout_ms = 60000,
        .session_files_bytes_max = 1000,
    };
    for (size_t i = 0; i < FAKE_TOOLS; i++)
        kit->tools[i] = (struct fake_tool){.name = manifests[i].name, .output = "{\"ok\":true}"};
    snprintf(kit->data_dir, sizeof kit->data_dir, loop ? "/tmp/nexus-data-XXXXXX" : "/nonexistent");
    ensure(!loop || mkdtemp(kit->data_dir) != NULL);
    boot(kit);
    return kit;
}

struct testkit *testkit_create(void)
{
    return make(NULL);
}

struct testkit *testkit_create_on_loop(void)
{
    struct error e;
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    ensure(loop != NULL);
    return make(loop);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void) status;
    (void) type;
    (void) where;
    return remove(path);
}

void testkit_destroy(struct testkit *kit)
{
    if (!kit->loop)
        testkit_do(kit, drain_now, kit);
    bury(kit);
    if (kit->loop) {
        loop_destroy(kit->loop);
        blocking_pool_stop();
        (void) nftw(kit->data_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    }
    store_destroy(kit->store);
    registry_destroy(kit->registry);
    arena_destroy(kit->arena);
    if (!kit->loop) {
        clock_manual_destroy(kit->clock);
        random_seeded_destroy(kit->random);
    }
    free(kit);
}

/* ---- a test program ---- */

enum { CASES_MAX = 64 };

struct case_run {
    const struct testkit_case *test;
    struct testkit *kit;
};

static void run_case_body(struct context *ctx, void *argument)
{
    struct case_run *run = argument;
    run->test->body(run->kit, ctx);
}

static void run_case(void **state)
{
    const struct testkit_case *test = *state;
    struct case_run run = {test, test->is_on_loop ? testkit_create_on_loop() : testkit_create()};
    if (test->script)
        test->script(run.kit);
    else
        testkit_do(run.kit, run_case_body, &run);
    testkit_destroy(run.kit);
}

int testkit_main(const struct testkit_case *cases, size_t count)
{
    static struct CMUnitTest tests[CASES_MAX];
    ensure(count <= CASES_MAX);
    cmocka_set_test_filter(getenv("NEXUS_TEST"));
    for (size_t i = 0; i < count; i++)
        tests[i] = (struct CMUnitTest){
            .name = cases[i].name,
            .test_func = run_case,
            .initial_state = (void *) (uintptr_t) &cases[i],
        };
    return _cmocka_run_group_tests("orchestrator", tests, count, NULL, NULL);
}

/* ---- for tests ---- */

void testkit_reply(struct testkit *kit, struct fake_reply reply)
{
    ensure(kit->reply_count < FAKE_REPLIES_MAX);
    kit->replies[kit->reply_count++] = reply;
}

struct fake_tool *testkit_tool(struct testkit *kit, const char *name)
{
    for (size_t i = 0; i < FAKE_TOOLS; i++)
        if (strcmp(kit->tools[i].name, name) == 0)
            return &kit->tools[i];
    unreachable_state();
}

struct principal testkit_principal(const struct testkit *kit, const char *user,
                                   enum role_level level)
{
    static const char *const roles[] = {"viewer", "user", "operator", "admin"};
    return (struct principal){
        .tenant_id = kit->tenant_id,
        .user_id = str_from_cstr(user),
        .caller_id = str_from_cstr(user),
        .role = str_from_cstr(roles[level]),
        .level = level,
    };
}

uuid testkit_session(struct testkit *kit, struct context *ctx, const struct principal *principal,
                     cost budget)
{
    struct record session;
    struct error e = {0};
    if (!session_create(kit->o, ctx, principal, &(struct session_request){.budget = budget},
                        &session, &e))
        fail_msg("%s", e.message);
    return record_uuid(&session, SESSIONS_ID);
}

uuid testkit_start(struct testkit *kit, struct context *ctx, const struct principal *principal,
                   uuid session_id, const char *content)
{
    uuid run_id = UUID_NONE;
    struct error e = {0};
    struct run_request request = {.session_id = session_id, .content = str_from_cstr(content)};
    if (!run_start(kit->o, ctx, principal, &request, &run_id, &e))
        fail_msg("%s", e.message);
    return run_id;
}

struct record testkit_run(struct testkit *kit, struct context *ctx, uuid run_id)
{
    struct record key = record_of(TABLE_AGENT_RUNS), row;
    struct error e = {0};
    record_set_uuid(&key, AGENT_RUNS_ID, run_id);
    if (!store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e))
        fail_msg("%s", e.message);
    return row;
}

str testkit_status(struct testkit *kit, struct context *ctx, uuid run_id)
{
    struct record row = testkit_run(kit, ctx, run_id);
    return record_text(&row, AGENT_RUNS_STATUS);
}

static struct events read_all(struct testkit *kit, struct context *ctx, uuid run_id)
{
    struct events events;
    struct error e = {0};
    if (!journal_read(kit->store, ctx, kit->tenant_id, run_id, 0, STORE_PAGE_MAX, &events, &e))
        fail_msg("%s", e.message);
    return events;
}

str testkit_history(struct testkit *kit, struct context *ctx, uuid run_id)
{
    struct events events = read_all(kit, ctx, run_id);
    struct strbuf text;
    struct run_state state;
    struct error e = {0};
    strbuf_init(&text, ctx->arena, 64 << 10);
    run_state_init(&state, ctx->arena);
    for (size_t i = 0; i < events.count; i++) {
        assert_int_equal(events.items[i].seq, i + 1);
        if (!run_state_apply(&state, &events.items[i], &e))
            fail_msg("%s", e.message);
        if (events.items[i].type != EVENT_MODEL_DELTA)
            strbuf_printf(&text, "%s%s", text.len ? " " : "",
                          event_type_name(events.items[i].type));
    }
    strbuf_add_char(&text, 0);
    return str_slice(strbuf_str(&text), 0, text.len - 1);
}

const struct json *testkit_event(struct testkit *kit, struct context *ctx, uuid run_id,
                                 enum event_type type)
{
    struct events events = read_all(kit, ctx, run_id);
    for (size_t i = events.count; i > 0; i--)
        if (events.items[i - 1].type == type)
            return events.items[i - 1].data;
    fail_msg("the run has no event %s", event_type_name(type));
    return NULL;
}

void testkit_check_ledger(struct testkit *kit, struct context *ctx, uuid session_id)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct record key = record_of(TABLE_SESSIONS), session;
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    struct ledger_path path;
    struct error e = {0};
    str bad;
    record_set_uuid(&key, SESSIONS_ID, session_id);
    assert_true(usage_log_sync(kit->o->usage, ctx, &e));
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &key, &session, &e));
    assert_true(session_budget_read(record_text(&session, SESSIONS_BUDGET), &limits.session, &e));
    assert_true(ledger_open_path(ledger, ctx, kit->tenant_id,
                                 record_text(&session, SESSIONS_USER_ID), session_id, UUID_NONE,
                                 limits, &path, &e));
    for (int level = 0; level < ACCOUNT_LEVEL_COUNT; level++)
        assert_true(cost_is_zero(ledger_view(ledger, &path, (enum account_level) level).reserved));
    ledger_close_path(ledger, &path);
    assert_true(ledger_verify(ledger, ctx, kit->tenant_id, &bad, &e));
    assert_true(str_is_empty(bad));
}
