/* The memory over the orchestrator's testkit, an index in memory and an embedder that knows three words. */
#include "orchestrator/memory/host_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "llm/guard.h"
#include "orchestrator/memory/memory_internal.h"
#include "orchestrator/orchestrator_testkit.h"
#include "orchestrator/usage/usage_log.h"

enum { DIMENSION = 4 };

static struct vector_index *vectors;
static struct memory *memory;
static int embedded;        /* texts that reached the embedder */
static size_t wide;         /* its vectors have so many numbers; 0: DIMENSION */
static char last_text[200]; /* the newest of them */

/* ---- the embedder ---- */

static const float *vector_of(struct arena *arena, str text)
{
    static const char *const words[] = {"colour", "city", "tower"};
    float *vector = ARENA_ARRAY(arena, float, DIMENSION + wide);
    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        vector[i] = str_find(text, str_from_cstr(words[i])) != STR_NOT_FOUND ? 1 : 0;
    vector[3] = 0.25f;
    return vector;
}

static bool fake_embed(struct provider *provider, struct context *ctx,
                       const struct provider_call *how, const struct embed_request *request,
                       struct embed_reply *reply, struct error *e)
{
    (void) provider, (void) how, (void) e;
    const float **rows =
        (const float **) arena_alloc_array(ctx->arena, request->text_count, sizeof *rows);
    *reply = (struct embed_reply){.vectors = rows,
                                  .dimension = wide > 0 ? wide : DIMENSION,
                                  .model = request->model,
                                  .usage = {.is_reported = true}};
    for (size_t i = 0; i < request->text_count; i++) {
        rows[i] = vector_of(ctx->arena, request->texts[i]);
        reply->usage.input_tokens += (int64_t) request->texts[i].len;
        snprintf(last_text, sizeof last_text, STR_FMT, STR_ARG(request->texts[i]));
        embedded++;
    }
    return true;
}

static void nothing_to_destroy(struct provider *provider)
{
    (void) provider;
}

static const struct provider_ops fake_ops = {
    .name = "fake", .embed = fake_embed, .destroy = nothing_to_destroy};
static struct provider fake = {.ops = &fake_ops, .name = S_INIT("fake")};

/* ---- the stage ---- */

static void configure(struct testkit *kit, const struct guard_rules *guard)
{
    struct error e = {0};
    struct model_target target = {.provider = &fake,
                                  .model = S("words"),
                                  .weight = 1,
                                  .price = {.is_known = true, .input_picousd_per_token = 1000000}};
    struct model model = {.name = S("vectors"),
                          .is_embedder = true,
                          .targets = &target,
                          .target_count = 1,
                          .max_output_tokens = 100};
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = kit->defaults;
    settings->catalog = catalog_create();
    settings->agents = agent_set_create();
    ensure(catalog_add(settings->catalog, &model, &e));
    settings->memory_guard = guard;
    orchestrator_reconfigure(kit->o, settings);
}

static void open_memory(struct testkit *kit, const char *model)
{
    struct error e = {0};
    struct memory_options options = {.orchestrator = kit->o,
                                     .index = vectors,
                                     .embedding_model = str_from_cstr(model),
                                     .session_points_max = 3,
                                     .user_points_max = 4};
    memory_destroy(memory);
    assert_true(memory_create(&options, &memory, &e));
}

static void begin(struct testkit *kit)
{
    vectors = memory_vector_create(DIMENSION);
    embedded = 0;
    wide = 0;
    configure(kit, NULL);
    open_memory(kit, "vectors");
}

static void end(void)
{
    memory_destroy(memory);
    memory = NULL;
    vector_destroy(vectors);
}

static struct principal ada_of(const struct testkit *kit)
{
    return testkit_principal(kit, "ada", ROLE_LEVEL_USER);
}

static enum error_reason store_entry(struct context *ctx, const struct principal *who,
                                     const struct memory_entry *entry, struct memory_item *out)
{
    struct error e = {0};
    return memory_store(memory, ctx, who, entry, out, &e) ? REASON_NONE : e.reason;
}

static enum error_reason store(struct context *ctx, const struct principal *who, uuid session_id,
                               const char *content, struct memory_item *out)
{
    struct memory_entry entry = {.session_id = session_id,
                                 .content = str_from_cstr(content),
                                 .label = memory_label_of_caller(STR_NONE)};
    return store_entry(ctx, who, &entry, out);
}

static enum error_reason search(struct context *ctx, const struct principal *who, uuid session_id,
                                const char *text, struct memory_answer *out)
{
    struct memory_query query = {.text = str_from_cstr(text), .session_id = session_id};
    struct error e = {0};
    *out = (struct memory_answer){0};
    return memory_search(memory, ctx, who, &query, out, &e) ? REASON_NONE : e.reason;
}

static size_t audited(struct testkit *kit, struct context *ctx, const char *action,
                      const char *never)
{
    struct query query = query_of(TABLE_AUDIT_LOGS);
    struct records rows;
    struct error e;
    query_where_text(&query, AUDIT_LOGS_ACTION, str_from_cstr(action));
    assert_true(usage_log_sync(orchestrator_usage(kit->o), ctx, &e));
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    for (size_t i = 0; i < rows.count; i++)
        assert_int_equal(
            str_find(record_text(&rows.items[i], AUDIT_LOGS_DETAILS), str_from_cstr(never)),
            STR_NOT_FOUND);
    return rows.count;
}

/* ---- whose ---- */

static void test_what_is_stored_is_found_by_its_owner_alone_nearest_first(struct testkit *kit,
                                                                          struct context *ctx)
{
    struct principal ada = ada_of(kit), bob = testkit_principal(kit, "bob", ROLE_LEVEL_USER);
    struct principal stranger = ada, boss = testkit_principal(kit, "root", ROLE_LEVEL_OPERATOR);
    struct memory_item item;
    struct memory_answer answer;
    begin(kit);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "her colour is teal", &item), REASON_NONE);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "her city is Lyon", &item), REASON_NONE);
    assert_int_equal(store(ctx, &bob, UUID_NONE, "his city is Rome", &item), REASON_NONE);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "which city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 2);
    assert_true(str_equal(answer.items[0].content, S("her city is Lyon")));
    assert_true(answer.items[0].score > answer.items[1].score);
    assert_true(str_equal(answer.items[0].content_type, S("message")));
    stranger.tenant_id = kit->other_tenant_id;
    assert_int_equal(search(ctx, &stranger, UUID_NONE, "which city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 0);
    struct memory_query of_bob = {.text = S("city"), .user_id = S("bob")};
    struct error e = {0};
    assert_false(memory_search(memory, ctx, &ada, &of_bob, &answer, &e));
    assert_int_equal(e.reason, REASON_DENIED);
    assert_true(memory_search(memory, ctx, &boss, &of_bob, &answer, &e));
    assert_int_equal(answer.count, 1);
    assert_int_equal(audited(kit, ctx, "memory.store", "teal"), 3);
    assert_int_equal(audited(kit, ctx, "memory.search", "which"), 2);
    end();
}

static void test_a_session_is_its_owners(struct testkit *kit, struct context *ctx)
{
    struct principal ada = ada_of(kit), bob = testkit_principal(kit, "bob", ROLE_LEVEL_USER);
    struct principal boss = testkit_principal(kit, "root", ROLE_LEVEL_OPERATOR);
    struct memory_item item;
    struct memory_answer answer;
    struct error e = {0};
    begin(kit);
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    assert_int_equal(store(ctx, &ada, session_id, "the city is Lyon", &item), REASON_NONE);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "the city is Rome", &item), REASON_NONE);
    assert_int_equal(search(ctx, &ada, session_id, "city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 1);
    assert_int_equal(search(ctx, &bob, session_id, "city", &answer), REASON_NOT_FOUND);
    assert_int_equal(store(ctx, &bob, session_id, "planted", &item), REASON_NOT_FOUND);
    assert_int_equal(store(ctx, &boss, session_id, "planted", &item), REASON_DENIED);
    assert_int_equal(search(ctx, &boss, session_id, "city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 1);
    assert_false(memory_forget_session(memory, ctx, &bob, session_id, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_true(session_close(kit->o, ctx, &ada, session_id, &e));
    assert_int_equal(store(ctx, &ada, session_id, "late", &item), REASON_SESSION_CLOSED);
    assert_int_equal(search(ctx, &ada, session_id, "city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 1); /* a closed session is still remembered */
    end();
}

static void test_what_is_forgotten_is_gone(struct testkit *kit, struct context *ctx)
{
    struct principal ada = ada_of(kit), bob = testkit_principal(kit, "bob", ROLE_LEVEL_USER);
    struct memory_item one, two;
    struct memory_answer answer;
    struct error e = {0};
    begin(kit);
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "the city is Rome", &one), REASON_NONE);
    assert_int_equal(store(ctx, &ada, session_id, "the city is Lyon", &two), REASON_NONE);
    assert_int_equal(store(ctx, &ada, session_id, "the city is Brno", &two), REASON_NONE);
    assert_false(memory_forget(memory, ctx, &bob, one.id, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_true(memory_forget(memory, ctx, &ada, one.id, &e));
    assert_false(memory_forget(memory, ctx, &ada, one.id, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 2);
    assert_true(memory_forget_session(memory, ctx, &ada, session_id, &e));
    assert_int_equal(search(ctx, &ada, UUID_NONE, "city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 0);
    assert_int_equal(audited(kit, ctx, "memory.forget", "city"), 2);
    end();
}

/* ---- labels ---- */

static void test_untrusted_stays_untrusted_and_all_of_it_is_private_memory(struct testkit *kit,
                                                                           struct context *ctx)
{
    struct principal ada = ada_of(kit);
    struct memory_item item;
    struct memory_answer answer;
    begin(kit);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "the city is Lyon", &item), REASON_NONE);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "city", &answer), REASON_NONE);
    assert_false(answer.label.is_untrusted);
    assert_true(answer.label.is_private);
    assert_int_equal(answer.label.origins, LABEL_USER | LABEL_MEMORY);
    struct memory_entry page = {.content = S("a page about the city"),
                                .metadata = S("{\"url\":\"http://x.example\"}"),
                                .content_type = S("tool_result"),
                                .label = {.origins = LABEL_WEB, .is_untrusted = true}};
    assert_int_equal(store_entry(ctx, &ada, &page, &item), REASON_NONE);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 2);
    assert_true(answer.label.is_untrusted);
    assert_int_equal(answer.label.origins, LABEL_USER | LABEL_WEB | LABEL_MEMORY);
    assert_true(memory_label_of_caller(S("tool_result")).is_untrusted);
    assert_true(memory_label_of_caller(S("summary")).is_untrusted);
    assert_false(memory_label_of_caller(S("message")).is_untrusted);
    end();
}

/* ---- bounds, filter, policy, budget ---- */

static void test_what_does_not_fit_is_refused_before_anything_is_spent(struct testkit *kit,
                                                                       struct context *ctx)
{
    struct principal ada = ada_of(kit), eve = testkit_principal(kit, "ada", ROLE_LEVEL_VIEWER);
    struct memory_item item;
    struct memory_answer answer;
    begin(kit);
    char *large = arena_alloc(ctx->arena, MEMORY_CONTENT_BYTES_MAX + 2);
    memset(large, 'x', MEMORY_CONTENT_BYTES_MAX + 1);
    assert_int_equal(store(ctx, &ada, UUID_NONE, large, &item), REASON_TOO_LARGE);
    assert_int_equal(store(ctx, &ada, UUID_NONE, " \n", &item), REASON_SCHEMA);
    assert_int_equal(store(ctx, &eve, UUID_NONE, "city", &item), REASON_DENIED);
    assert_int_equal(search(ctx, &eve, UUID_NONE, "city", &answer), REASON_DENIED);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "", &answer), REASON_SCHEMA);
    assert_int_equal(search(ctx, &ada, UUID_NONE, large, &answer), REASON_TOO_LARGE);
    struct memory_entry odd = {.content = S("city"), .content_type = S("diary")};
    assert_int_equal(store_entry(ctx, &ada, &odd, &item), REASON_SCHEMA);
    odd = (struct memory_entry){.content = S("city"), .metadata = S("[1]")};
    assert_int_equal(store_entry(ctx, &ada, &odd, &item), REASON_SCHEMA);
    odd.metadata = str_of(large, MEMORY_OWN_METADATA_BYTES_MAX + 1);
    assert_int_equal(store_entry(ctx, &ada, &odd, &item), REASON_TOO_LARGE);
    assert_int_equal(embedded, 0);
    large[MEMORY_CONTENT_BYTES_MAX] = 0;
    assert_int_equal(store(ctx, &ada, UUID_NONE, large, &item), REASON_NONE);
    end();
}

static void test_a_session_and_a_user_have_only_so_many(struct testkit *kit, struct context *ctx)
{
    struct principal ada = ada_of(kit);
    struct memory_item item;
    begin(kit);
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    for (int i = 0; i < 3; i++)
        assert_int_equal(store(ctx, &ada, session_id, "city", &item), REASON_NONE);
    assert_int_equal(store(ctx, &ada, session_id, "city", &item), REASON_QUOTA);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "city", &item), REASON_NONE);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "city", &item), REASON_QUOTA);
    end();
}

static void test_what_the_filter_blocks_is_never_stored_and_what_it_masks_is_stored_masked(
    struct testkit *kit, struct context *ctx)
{
    struct filter_rule rules[] = {{S("bad"), S("forbidden"), {0}, FILTER_BLOCK},
                                  {S("hide"), S("teal"), {0}, FILTER_MASK}};
    struct filter_options options = {.rules = rules, .rule_count = ARRAY_COUNT(rules)};
    struct principal ada = ada_of(kit);
    struct filter_set *set;
    struct memory_item item;
    struct memory_answer answer;
    struct error e;
    ensure(filter_set_create(&options, &set, &e));
    struct guard_rules guard = {.name = S("memory"), .sets = {set, set}};
    begin(kit);
    configure(kit, &guard);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "forbidden city", &item), REASON_CONTENT_BLOCKED);
    struct memory_entry entry = {.content = S("city"), .metadata = S("{\"note\":\"forbidden\"}")};
    assert_int_equal(store_entry(ctx, &ada, &entry, &item), REASON_CONTENT_BLOCKED);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "forbidden city", &answer),
                     REASON_CONTENT_BLOCKED);
    assert_int_equal(embedded, 0);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "her colour is teal", &item), REASON_NONE);
    assert_null(strstr(last_text, "teal"));
    assert_int_equal(search(ctx, &ada, UUID_NONE, "colour", &answer), REASON_NONE);
    assert_int_equal(answer.count, 1);
    assert_int_equal(str_find(answer.items[0].content, S("teal")), STR_NOT_FOUND);
    assert_int_equal(audited(kit, ctx, "content.blocked", "forbidden"), 3);
    configure(kit, NULL);
    filter_set_destroy(set);
    end();
}

static void test_the_policy_decides_on_reading(struct testkit *kit, struct context *ctx)
{
    struct principal ada = ada_of(kit);
    struct memory_answer answer;
    begin(kit);
    kit->denied[0] = S("memory.read");
    assert_int_equal(search(ctx, &ada, UUID_NONE, "city", &answer), REASON_POLICY_DENIED);
    assert_int_equal(embedded, 0);
    end();
}

static void test_embedding_is_booked_and_refused_over_budget(struct testkit *kit,
                                                             struct context *ctx)
{
    struct principal ada = ada_of(kit);
    struct memory_item item;
    struct memory_answer answer;
    struct error e = {0};
    cost budget = COST_LIMITLESS;
    str view;
    budget.tokens = 60;
    begin(kit);
    uuid session_id = testkit_session(kit, ctx, &ada, budget);
    assert_int_equal(store(ctx, &ada, session_id, "the city is Lyon", &item), REASON_NONE);
    assert_int_equal(search(ctx, &ada, session_id, "city", &answer), REASON_NONE);
    assert_true(session_budget_json(kit->o, ctx, &ada, session_id, &view, &e));
    assert_int_not_equal(str_find(view, S("\"spent\":{\"tokens\":20,")), STR_NOT_FOUND);
    assert_int_equal(store(ctx, &ada, session_id,
                           "a text about a city that is longer than what is left of the budget",
                           &item),
                     REASON_BUDGET);
    assert_true(usage_log_sync(orchestrator_usage(kit->o), ctx, &e));
    testkit_check_ledger(kit, ctx, session_id);
    end();
}

/* ---- embedders ---- */

static void test_vectors_of_another_dimension_fail_at_the_start(struct testkit *kit,
                                                                struct context *ctx)
{
    struct principal ada = ada_of(kit);
    struct memory_item item;
    struct error e = {0};
    begin(kit);
    assert_true(memory_check(memory, ctx, &e));
    wide = DIMENSION + 1;
    assert_false(memory_check(memory, ctx, &e));
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_non_null(strstr(e.message, "gives vectors of 5 numbers, the memory holds vectors of 4"));
    assert_int_equal(store(ctx, &ada, UUID_NONE, "city", &item), REASON_CONFIG);
    open_memory(kit, "nobody");
    assert_false(memory_check(memory, ctx, &e));
    assert_int_equal(e.reason, REASON_CONFIG);
    end();
}

static void test_the_built_in_embedder_says_what_it_is_and_never_meets_another(struct testkit *kit,
                                                                               struct context *ctx)
{
    struct principal ada = ada_of(kit);
    struct memory_item item;
    struct memory_answer answer;
    struct strbuf text;
    struct json_writer w;
    struct error e = {0};
    begin(kit);
    assert_int_equal(store(ctx, &ada, UUID_NONE, "the city is Lyon", &item), REASON_NONE);
    open_memory(kit, "");
    assert_true(memory_check(memory, ctx, &e));
    assert_int_equal(store(ctx, &ada, UUID_NONE, "invoices go to Lyon", &item), REASON_NONE);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "where do invoices go?", &answer), REASON_NONE);
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.left_out, 1);
    assert_true(str_equal(answer.items[0].content, S("invoices go to Lyon")));
    assert_int_equal(embedded, 1); /* by the model: the first text only */
    strbuf_init(&text, ctx->arena, 65536);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    memory_answer_write_json(memory, &w, ctx->arena, &answer);
    json_object_end(&w);
    assert_int_not_equal(str_find(strbuf_str(&text), S("shared words and stems, not meaning")),
                         STR_NOT_FOUND);
    end();
}

/* ---- host calls ---- */

static str host(struct context *ctx, const struct host_call *call,
                const struct tool_request *request, const char *input, enum error_reason *reason)
{
    struct error e = {0};
    str output = STR_NONE;
    *reason = call->run(call->owner, ctx, request, str_from_cstr(input), &output, &e) ? REASON_NONE
                                                                                      : e.reason;
    return output;
}

static void test_guests_reach_the_memory_of_their_caller_only(struct testkit *kit,
                                                              struct context *ctx)
{
    struct principal ada = ada_of(kit);
    struct host_memory door = {0};
    struct host_call store_call = host_memory_store(&door), find = host_memory_search(&door);
    struct tool_heard heard = {0};
    struct memory_answer answer;
    enum error_reason reason;
    begin(kit);
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct tool_request request = {.tenant_id = kit->tenant_id,
                                   .session_id = session_id,
                                   .user_id = S("ada"),
                                   .role = S("user"),
                                   .effect_key = S("effect"),
                                   .label = {.origins = LABEL_WEB, .is_untrusted = true},
                                   .heard = &heard};
    host(ctx, &find, &request, "{\"query\":\"city\"}", &reason);
    assert_int_equal(reason, REASON_UNAVAILABLE);
    door.memory = memory;
    str first = host(ctx, &store_call, &request, "{\"content\":\"the city is Lyon\"}", &reason);
    assert_int_equal(reason, REASON_NONE);
    assert_true(str_equal(
        first, host(ctx, &store_call, &request, "{\"content\":\"the city is Lyon\"}", &reason)));
    host(ctx, &store_call, &request, "{\"content\":\"the city is Brno\"}", &reason);
    assert_int_equal(reason, REASON_NONE);
    assert_int_equal(search(ctx, &ada, UUID_NONE, "city", &answer), REASON_NONE);
    assert_int_equal(answer.count, 2); /* the repeat is the same one */
    str found = host(ctx, &find, &request, "{\"query\":\"city\",\"limit\":1}", &reason);
    assert_int_not_equal(str_find(found, S("\"untrusted\":true")), STR_NOT_FOUND);
    assert_true(heard.is_told && heard.label.is_untrusted && heard.label.is_private);
    request.user_id = S("bob");
    found = host(ctx, &find, &request, "{\"query\":\"city\",\"user_id\":\"ada\"}", &reason);
    assert_int_equal(reason, REASON_NOT_FOUND); /* not even the session that would be charged */
    request.session_id = UUID_NONE;
    found = host(ctx, &find, &request, "{\"query\":\"city\",\"user_id\":\"ada\"}", &reason);
    assert_int_not_equal(str_find(found, S("\"results\":[]")), STR_NOT_FOUND);
    host(ctx, &find, &request, "{\"query\":\"city\",\"scope\":\"session\"}", &reason);
    assert_int_equal(reason, REASON_SCHEMA);
    host(ctx, &find, &request, "{\"query\":\"city\",\"scope\":\"tenant\"}", &reason);
    assert_int_equal(reason, REASON_SCHEMA);
    request.role = S("viewer");
    host(ctx, &find, &request, "{\"query\":\"city\"}", &reason);
    assert_int_equal(reason, REASON_DENIED);
    end();
}

int main(void)
{
    const struct testkit_case cases[] = {
        TESTKIT_BODY(test_what_is_stored_is_found_by_its_owner_alone_nearest_first),
        TESTKIT_BODY(test_a_session_is_its_owners),
        TESTKIT_BODY(test_what_is_forgotten_is_gone),
        TESTKIT_BODY(test_untrusted_stays_untrusted_and_all_of_it_is_private_memory),
        TESTKIT_BODY(test_what_does_not_fit_is_refused_before_anything_is_spent),
        TESTKIT_BODY(test_a_session_and_a_user_have_only_so_many),
        TESTKIT_BODY(
            test_what_the_filter_blocks_is_never_stored_and_what_it_masks_is_stored_masked),
        TESTKIT_BODY(test_the_policy_decides_on_reading),
        TESTKIT_BODY(test_embedding_is_booked_and_refused_over_budget),
        TESTKIT_BODY(test_vectors_of_another_dimension_fail_at_the_start),
        TESTKIT_BODY(test_the_built_in_embedder_says_what_it_is_and_never_meets_another),
        TESTKIT_BODY(test_guests_reach_the_memory_of_their_caller_only),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
