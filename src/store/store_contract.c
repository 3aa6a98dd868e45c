#include "store/store_contract.h"

#include "base/arena.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/strbuf.h"
#include "runtime/loop.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
/* after the above: cmocka wants them first */
#include <cmocka.h>

static uuid tenant_a, tenant_b;
static struct store_fixture *current; /* of the running suite */
static struct store *store;

#define OK(call) check_ok((call), &e, #call, __LINE__)
#define REFUSED(call, wanted) check_refused((call), &e, REASON_##wanted, #call, __LINE__)

static void check_ok(bool is_ok, const struct error *e, const char *call, int line)
{
    if (!is_ok)
        fail_msg("line %d: %s: %s", line, call, e->message);
}

static void check_refused(bool is_ok, const struct error *e, enum error_reason wanted,
                          const char *call, int line)
{
    if (is_ok)
        fail_msg("line %d: %s worked", line, call);
    if (e->reason != wanted)
        fail_msg("line %d: %s: %s (%s)", line, call, e->message, error_problem(e->reason));
}

static void *append_message(struct batch *batch, uuid session_id, uuid id, str content)
{
    struct record *message = batch_add(batch, WRITE_INSERT, TABLE_MESSAGES);
    record_set_uuid(message, MESSAGES_ID, id);
    record_set_uuid(message, MESSAGES_SESSION_ID, session_id);
    record_set_text(message, MESSAGES_ROLE, S("user"));
    record_set_text(message, MESSAGES_CONTENT, content);
    return message;
}

static void append_event(struct batch *batch, enum write_op op, uuid run_id, int64_t seq, str data)
{
    struct record *event = batch_add(batch, op, TABLE_RUN_EVENTS);
    record_set_uuid(event, RUN_EVENTS_RUN_ID, run_id);
    record_set_integer(event, RUN_EVENTS_SEQ, seq);
    record_set_text(event, RUN_EVENTS_TYPE, S("run.started"));
    record_set_integer(event, RUN_EVENTS_VERSION, 1);
    record_set_integer(event, RUN_EVENTS_AT, 1234567 + seq);
    record_set_text(event, RUN_EVENTS_DATA, data);
}

static struct record *append_account(struct batch *batch, enum write_op op, str subject,
                                     int64_t tokens)
{
    static const int zeros[] = {BUDGETS_SPENT_TIME_MS,    BUDGETS_SPENT_NANOUSD,
                                BUDGETS_SPENT_TOOL_CALLS, BUDGETS_LEASED_TOKENS,
                                BUDGETS_LEASED_TIME_MS,   BUDGETS_LEASED_NANOUSD,
                                BUDGETS_LEASED_TOOL_CALLS};
    struct record *account = batch_add(batch, op, TABLE_BUDGETS);
    record_set_text(account, BUDGETS_LEVEL, S("user"));
    record_set_text(account, BUDGETS_SUBJECT, subject);
    record_set_integer(account, BUDGETS_SPENT_TOKENS, tokens);
    for (size_t i = 0; op != WRITE_ADD && i < ARRAY_COUNT(zeros); i++)
        record_set_integer(account, zeros[i], 0);
    record_set_integer(account, BUDGETS_UPDATED_AT, 5);
    return account;
}

static struct record key_of(enum table table, uuid id)
{
    struct record key = record_of(table);
    record_set_uuid(&key, 0, id);
    return key;
}

static uuid add_session(struct context *ctx, uuid tenant)
{
    struct error e;
    struct batch batch;
    batch_init(&batch, ctx->arena, tenant);
    uuid id = test_session(&batch);
    OK(store_commit(store, ctx, &batch, &e));
    return id;
}

/* ---- rows ---- */

static void rows_come_back_as_they_went(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    uuid session = add_session(ctx, tenant_a);
    size_t large = 3u << 20;
    char *text = arena_alloc(ctx->arena, large + 2);
    memset(text, 'x', large);
    text[0] = text[large - 1] = '"';
    str contents[] = {S(""),
                      S("a\0b\0"),
                      S("gr\xc3\xbc\xc3\x9f \xf0\x9f\x8c\x8d \xe4\xb8\xad"),
                      S("' OR 1=1; --"),
                      S("\xff\xfe"),
                      str_of(text, large)};
    for (size_t i = 0; i < ARRAY_COUNT(contents); i++) {
        struct batch batch;
        batch_init(&batch, ctx->arena, tenant_a);
        uuid id = test_id();
        struct record *message = append_message(&batch, session, id, contents[i]);
        record_set_integer(message, MESSAGES_TOKENS, i % 2 ? INT64_MAX : INT64_MIN);
        record_set_text(message, MESSAGES_METADATA,
                        i == 5 ? contents[i] : S("{\"n\": 9223372036854775807}"));
        record_set_null(message, MESSAGES_PARTS);
        OK(store_commit(store, ctx, &batch, &e));
        struct record key = key_of(TABLE_MESSAGES, id), out;
        OK(store_get(store, ctx, tenant_a, &key, &out, &e));
        assert_true(str_equal(record_text(&out, MESSAGES_CONTENT), contents[i]));
        assert_true(record_integer(&out, MESSAGES_TOKENS) == (i % 2 ? INT64_MAX : INT64_MIN));
        assert_int_equal(record_text(&out, MESSAGES_METADATA).len, i == 5 ? large : 26);
        assert_true(uuid_equal(record_uuid(&out, MESSAGES_SESSION_ID), session));
        assert_true(out.has & 1u << MESSAGES_PARTS);
        assert_false(record_has(&out, MESSAGES_PARTS));
        assert_false(record_has(&out, MESSAGES_RUN_ID));
    }
}

static void defaults_of_the_spec_are_filled_in(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct record key = key_of(TABLE_SESSIONS, add_session(ctx, tenant_a)), out;
    OK(store_get(store, ctx, tenant_a, &key, &out, &e));
    assert_true(str_equal(record_text(&out, SESSIONS_STATUS), S("active")));
    assert_true(str_equal(record_text(&out, SESSIONS_BUDGET),
                          S("{\"tokens\":10000,\"time_seconds\":3600}")));
    int64_t age = context_now_us(ctx) - record_integer(&out, SESSIONS_CREATED_AT);
    assert_true(age >= 0 && age < 60000000);
    struct strbuf text;
    strbuf_init(&text, ctx->arena, 4096);
    struct json_writer w;
    json_writer_init(&w, &text);
    record_write_json(&w, &out);
    const struct json *parsed;
    OK(json_parse(ctx->arena, strbuf_str(&text), (struct json_limits){0}, &parsed, &e));
    assert_int_equal(json_i64_or(json_get(parsed, S("budget")), S("tokens"), 0), 10000);
    assert_int_equal(json_type(json_get(parsed, S("agent"))), JSON_NULL);
}

static void a_batch_is_all_or_nothing(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid session = add_session(ctx, tenant_a), id = test_id();
    batch_init(&batch, ctx->arena, tenant_a);
    uuid other = test_session(&batch);
    append_message(&batch, session, id, S("one"));
    append_message(&batch, session, id, S("the same key"));
    REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
    struct record key = key_of(TABLE_MESSAGES, id), out;
    REFUSED(store_get(store, ctx, tenant_a, &key, &out, &e), NOT_FOUND);
    key = key_of(TABLE_SESSIONS, other);
    REFUSED(store_get(store, ctx, tenant_a, &key, &out, &e), NOT_FOUND);
}

static void inserts_updates_and_upserts_mean_what_they_say(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    struct record out, key = record_of(TABLE_BUDGETS);
    str subject = uuid_str(ctx->arena, test_id());
    record_set_text(&key, BUDGETS_LEVEL, S("user"));
    record_set_text(&key, BUDGETS_SUBJECT, subject);
    batch_init(&batch, ctx->arena, tenant_a);
    append_account(&batch, WRITE_ADD, subject, 1);
    REFUSED(store_commit(store, ctx, &batch, &e), NOT_FOUND);
    batch_init(&batch, ctx->arena, tenant_a);
    append_account(&batch, WRITE_UPSERT, subject, 7);
    append_account(&batch, WRITE_INSERT_NEW, subject, 1000);
    append_account(&batch, WRITE_ADD, subject, 35);
    OK(store_commit(store, ctx, &batch, &e));
    OK(store_get(store, ctx, tenant_a, &key, &out, &e));
    assert_int_equal(record_integer(&out, BUDGETS_SPENT_TOKENS), 42);
    batch_init(&batch, ctx->arena, tenant_a);
    append_account(&batch, WRITE_UPSERT, subject, INT64_MAX);
    struct record *sum = append_account(&batch, WRITE_ADD, subject, -1);
    record_set_integer(sum, BUDGETS_LIMIT_TOKENS, -3); /* null counts as 0 */
    OK(store_commit(store, ctx, &batch, &e));
    OK(store_get(store, ctx, tenant_a, &key, &out, &e));
    assert_true(record_integer(&out, BUDGETS_SPENT_TOKENS) == INT64_MAX - 1);
    assert_int_equal(record_integer(&out, BUDGETS_LIMIT_TOKENS), -3);
    batch_init(&batch, ctx->arena, tenant_a);
    append_account(&batch, WRITE_ADD, subject, 2);
    REFUSED(store_commit(store, ctx, &batch, &e), LIMIT);
    batch_init(&batch, ctx->arena, tenant_a);
    append_account(&batch, WRITE_DELETE, subject, 0);
    append_account(&batch, WRITE_DELETE, subject, 0);
    OK(store_commit(store, ctx, &batch, &e));
    REFUSED(store_get(store, ctx, tenant_a, &key, &out, &e), NOT_FOUND);
}

static struct record *update_status(struct batch *batch, uuid session, str status)
{
    struct record *update = batch_add(batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(update, SESSIONS_ID, session);
    record_set_text(update, SESSIONS_STATUS, status);
    return update;
}

static void an_update_may_hang_on_a_value(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid session = add_session(ctx, tenant_a), run = test_id();
    batch_init(&batch, ctx->arena, tenant_a);
    record_set_uuid(update_status(&batch, session, S("paused")), SESSIONS_LIVE_RUN_ID, run);
    batch_where_null(&batch, SESSIONS_LIVE_RUN_ID);
    OK(store_commit(store, ctx, &batch, &e));
    REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
    batch_init(&batch, ctx->arena, tenant_a);
    update_status(&batch, session, S("closed"));
    batch_where_text(&batch, SESSIONS_STATUS, S("active"));
    REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
    batch_init(&batch, ctx->arena, tenant_a);
    record_set_null(update_status(&batch, session, S("closed")), SESSIONS_LIVE_RUN_ID);
    batch_where_uuid(&batch, SESSIONS_LIVE_RUN_ID, run);
    OK(store_commit(store, ctx, &batch, &e));
    struct record key = key_of(TABLE_SESSIONS, session), out;
    OK(store_get(store, ctx, tenant_a, &key, &out, &e));
    assert_true(str_equal(record_text(&out, SESSIONS_STATUS), S("closed")));
    assert_false(record_has(&out, SESSIONS_LIVE_RUN_ID));
    batch_init(&batch, ctx->arena, tenant_a);
    update_status(&batch, test_id(), S("closed"));
    REFUSED(store_commit(store, ctx, &batch, &e), NOT_FOUND);
}

static void references_must_exist_and_stay(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid session = add_session(ctx, tenant_a);
    batch_init(&batch, ctx->arena, tenant_a);
    append_message(&batch, test_id(), test_id(), S("an orphan"));
    REFUSED(store_commit(store, ctx, &batch, &e), NOT_FOUND);
    batch_init(&batch, ctx->arena, tenant_b);
    append_message(&batch, session, test_id(), S("another tenant's session"));
    REFUSED(store_commit(store, ctx, &batch, &e), NOT_FOUND);
    batch_init(&batch, ctx->arena, tenant_a);
    append_message(&batch, session, test_id(), S("a child"));
    OK(store_commit(store, ctx, &batch, &e));
    batch_init(&batch, ctx->arena, tenant_a);
    record_set_uuid(batch_add(&batch, WRITE_DELETE, TABLE_SESSIONS), SESSIONS_ID, session);
    REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
}

static void unlawful_batches_are_refused_before_they_are_tried(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid session = add_session(ctx, tenant_a), run = test_id();
    batch_init(&batch, ctx->arena, tenant_a);
    record_set_uuid(batch_add(&batch, WRITE_INSERT, TABLE_MESSAGES), MESSAGES_ID, test_id());
    REFUSED(store_commit(store, ctx, &batch, &e), INVALID);
    batch_init(&batch, ctx->arena, tenant_a);
    record_set_null(append_message(&batch, session, test_id(), S("x")), MESSAGES_CONTENT);
    REFUSED(store_commit(store, ctx, &batch, &e), INVALID);
    batch_init(&batch, ctx->arena, tenant_a);
    record_set_text(append_message(&batch, session, test_id(), S("x")), MESSAGES_METADATA,
                    S("{no json"));
    REFUSED(store_commit(store, ctx, &batch, &e), JSON);
    batch_init(&batch, ctx->arena, tenant_a);
    append_event(&batch, WRITE_UPSERT, run, 1, S("{}"));
    REFUSED(store_commit(store, ctx, &batch, &e), INVALID);
    batch_init(&batch, ctx->arena, tenant_a);
    for (int i = 1; i <= STORE_BATCH_ROWS_MAX; i++)
        append_event(&batch, WRITE_INSERT, run, i, S("{}"));
    OK(store_commit(store, ctx, &batch, &e));
    append_event(&batch, WRITE_INSERT, run, STORE_BATCH_ROWS_MAX + 1, S("{}"));
    REFUSED(store_commit(store, ctx, &batch, &e), LIMIT);
    char *text = arena_alloc(ctx->arena, STORE_VALUE_BYTES_MAX + 1);
    memset(text, 'x', STORE_VALUE_BYTES_MAX + 1);
    batch_init(&batch, ctx->arena, tenant_a);
    append_message(&batch, session, test_id(), str_of(text, STORE_VALUE_BYTES_MAX));
    OK(store_commit(store, ctx, &batch, &e));
    append_message(&batch, session, test_id(), str_of(text, STORE_VALUE_BYTES_MAX + 1));
    REFUSED(store_commit(store, ctx, &batch, &e), TOO_LARGE);
}

/* ---- fencing ---- */

static void a_fence_lets_only_the_owner_write(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid session = add_session(ctx, tenant_a), run = test_id();
    int64_t first, second;
    REFUSED(store_claim(store, ctx, tenant_a, test_id(), S("n1"), &first, &e), NOT_FOUND);
    REFUSED(store_claim(store, ctx, tenant_b, session, S("n1"), &first, &e), NOT_FOUND);
    OK(store_claim(store, ctx, tenant_a, session, S("n1"), &first, &e));
    OK(store_claim(store, ctx, tenant_a, session, S("n1"), &second, &e)); /* the same */
    struct fence old = {session, S("n1"), first};
    batch_init(&batch, ctx->arena, tenant_a);
    batch.fence = &old;
    append_event(&batch, WRITE_INSERT, run, 1, S("{}"));
    OK(store_commit(store, ctx, &batch, &e));
    OK(store_claim(store, ctx, tenant_a, session, S("n2"), &second, &e));
    assert_int_equal(second, first + 1);
    struct fence stolen = {session, S("n1"), second}, valid = {session, S("n2"), second};
    batch_init(&batch, ctx->arena, tenant_a);
    batch.fence = &old;
    append_event(&batch, WRITE_INSERT, run, 2, S("{}"));
    REFUSED(store_commit(store, ctx, &batch, &e), FENCED);
    batch.fence = &stolen;
    REFUSED(store_commit(store, ctx, &batch, &e), FENCED);
    batch.fence = &valid;
    OK(store_commit(store, ctx, &batch, &e));
    batch_init(&batch, ctx->arena, tenant_a); /* nothing to write: a mere check */
    batch.fence = &old;
    REFUSED(store_commit(store, ctx, &batch, &e), FENCED);
}

/* ---- lists ---- */

static size_t walk_pages(struct context *ctx, uuid tenant, struct query query,
                         void (*between)(struct context *, int))
{
    struct error e;
    struct records page;
    size_t seen = 0;
    int64_t last = query.is_descending ? INT64_MAX : INT64_MIN;
    for (int number = 0;; number++) {
        OK(store_list(store, ctx, tenant, &query, &page, &e));
        for (size_t i = 0; i < page.count; i++, seen++) {
            int64_t seq = record_integer(&page.items[i], RUN_EVENTS_SEQ);
            assert_true(query.is_descending ? seq < last : seq > last);
            last = seq;
        }
        if (str_is_empty(page.next_cursor))
            return seen;
        assert_int_equal(page.count, query.limit);
        query.cursor = page.next_cursor;
        if (between)
            between(ctx, number);
    }
}

static uuid listed_run;

static void insert_between(struct context *ctx, int number)
{
    struct error e;
    struct batch batch;
    batch_init(&batch, ctx->arena, tenant_a);
    /* One before the cursor, which stays unseen; one behind all, which is met later. */
    append_event(&batch, WRITE_INSERT, listed_run, -1 - number, S("{}"));
    append_event(&batch, WRITE_INSERT, listed_run, 1000 + number, S("{}"));
    if (number < 3)
        OK(store_commit(store, ctx, &batch, &e));
}

static void cursors_neither_repeat_nor_skip(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    listed_run = test_id();
    batch_init(&batch, ctx->arena, tenant_a);
    for (int i = 0; i < 50; i++)
        append_event(&batch, WRITE_INSERT, listed_run, 2 * i, S("{}"));
    OK(store_commit(store, ctx, &batch, &e));
    struct query query = query_of(TABLE_RUN_EVENTS);
    query_where_uuid(&query, RUN_EVENTS_RUN_ID, listed_run);
    query.limit = 7;
    assert_int_equal(walk_pages(ctx, tenant_a, query, NULL), 50);
    query.order_column = RUN_EVENTS_AT;
    query.is_descending = true;
    assert_int_equal(walk_pages(ctx, tenant_a, query, NULL), 50);
    query.order_column = -1;
    assert_int_equal(walk_pages(ctx, tenant_a, query, NULL), 50);
    query.is_descending = false;
    assert_int_equal(walk_pages(ctx, tenant_a, query, insert_between), 53);
    query.limit = STORE_PAGE_MAX;
    query_where_integer(&query, RUN_EVENTS_SEQ, FILTER_GREATER, 10);
    query_where_integer(&query, RUN_EVENTS_SEQ, FILTER_LESS, 20);
    query_where_integer(&query, RUN_EVENTS_SEQ, FILTER_NOT_EQUAL, 14);
    assert_int_equal(walk_pages(ctx, tenant_a, query, NULL), 3);
    assert_int_equal(walk_pages(ctx, tenant_b, query, NULL), 0);
}

static void foreign_cursors_and_odd_queries_are_refused(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct records page;
    struct query query = query_of(TABLE_SESSIONS);
    add_session(ctx, tenant_a);
    add_session(ctx, tenant_a);
    query.limit = 1;
    OK(store_list(store, ctx, tenant_a, &query, &page, &e));
    assert_true(page.next_cursor.len > 0);
    struct query other = query_of(TABLE_SESSIONS);
    other.order_column = SESSIONS_CREATED_AT;
    other.cursor = page.next_cursor;
    REFUSED(store_list(store, ctx, tenant_a, &other, &page, &e), INVALID);
    str bad[] = {S("x"), S("////"), S("AQ"), str_slice(other.cursor, 0, other.cursor.len - 4)};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        query.cursor = bad[i];
        REFUSED(store_list(store, ctx, tenant_a, &query, &page, &e), INVALID);
    }
    query = query_of(TABLE_SESSIONS);
    query.limit = 0;
    REFUSED(store_list(store, ctx, tenant_a, &query, &page, &e), INVALID);
    query.limit = STORE_PAGE_MAX + 1;
    REFUSED(store_list(store, ctx, tenant_a, &query, &page, &e), INVALID);
    query.limit = 1;
    query.order_column = SESSIONS_AGENT;
    REFUSED(store_list(store, ctx, tenant_a, &query, &page, &e), INVALID);
}

static void nulls_are_found_as_nulls(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid session = add_session(ctx, tenant_a);
    batch_init(&batch, ctx->arena, tenant_a);
    record_set_text(append_message(&batch, session, test_id(), S("1")), MESSAGES_PARTS, S("[]"));
    append_message(&batch, session, test_id(), S("2"));
    append_message(&batch, session, test_id(), S("3"));
    OK(store_commit(store, ctx, &batch, &e));
    struct records page;
    struct query query = query_of(TABLE_MESSAGES);
    query_where_uuid(&query, MESSAGES_SESSION_ID, session);
    struct query none = query, some = query;
    query_where_null(&none, MESSAGES_PARTS, true);
    query_where_null(&some, MESSAGES_PARTS, false);
    OK(store_list(store, ctx, tenant_a, &none, &page, &e));
    assert_int_equal(page.count, 2);
    OK(store_list(store, ctx, tenant_a, &some, &page, &e));
    assert_int_equal(page.count, 1);
    assert_true(str_equal(record_text(&page.items[0], MESSAGES_CONTENT), S("1")));
}

static void append_key(struct batch *batch, str hash)
{
    struct record *key = batch_add(batch, WRITE_INSERT, TABLE_API_KEYS);
    record_set_uuid(key, API_KEYS_ID, test_id());
    record_set_text(key, API_KEYS_NAME, S("k"));
    record_set_text(key, API_KEYS_PREFIX, S("nx-1"));
    record_set_text(key, API_KEYS_HASH, hash);
    record_set_text(key, API_KEYS_USER_ID, S("ada"));
    record_set_text(key, API_KEYS_CREATED_BY, S("ada"));
    record_set_text(key, API_KEYS_ROLE, S("admin"));
    record_set_text(key, API_KEYS_SCOPES, S("[]"));
    record_set_integer(key, API_KEYS_CREATED_AT, 1);
}

static void tenants_do_not_see_each_other_but_a_hash_is_found(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid session = add_session(ctx, tenant_a);
    struct record key = key_of(TABLE_SESSIONS, session), out;
    REFUSED(store_get(store, ctx, tenant_b, &key, &out, &e), NOT_FOUND);
    batch_init(&batch, ctx->arena, tenant_b);
    update_status(&batch, session, S("closed"));
    REFUSED(store_commit(store, ctx, &batch, &e), NOT_FOUND);
    str hash = uuid_str(ctx->arena, test_id());
    batch_init(&batch, ctx->arena, tenant_b);
    append_key(&batch, hash);
    OK(store_commit(store, ctx, &batch, &e));
    batch_init(&batch, ctx->arena, tenant_a);
    append_key(&batch, hash);
    REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
    struct query query = query_of(TABLE_API_KEYS);
    query_where_text(&query, API_KEYS_HASH, hash);
    struct records page;
    uuid *tenants;
    OK(store_list(store, ctx, tenant_a, &query, &page, &e));
    assert_int_equal(page.count, 0);
    OK(store_list_any_tenant(store, ctx, &query, &page, &tenants, &e));
    assert_int_equal(page.count, 1);
    assert_true(uuid_equal(tenants[0], tenant_b));
    struct query all = query_of(TABLE_SESSIONS);
    all.limit = 1;
    size_t seen = 0;
    add_session(ctx, tenant_b);
    do {
        OK(store_list_any_tenant(store, ctx, &all, &page, &tenants, &e));
        seen += page.count;
        all.cursor = page.next_cursor;
    } while (!str_is_empty(all.cursor));
    assert_true(seen >= 2);
}

/* ---- many at once ---- */

enum { WRITERS = 64, ROUNDS = 8 };
struct crowd {
    str subject;
    int conflicts, finished;
};

static void crowd_member(struct context *ctx, void *argument)
{
    struct crowd *crowd = argument;
    struct error e;
    for (int round = 0; round < ROUNDS; round++) {
        struct batch batch;
        batch_init(&batch, ctx->arena, tenant_a);
        append_account(&batch, WRITE_ADD, crowd->subject, 1);
        OK(store_commit(store, ctx, &batch, &e));
        batch_init(&batch, ctx->arena, tenant_a); /* a bad neighbour in the same group commit */
        append_account(&batch, WRITE_ADD, crowd->subject, 1000000);
        append_account(&batch, WRITE_INSERT, crowd->subject, 0);
        REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
        crowd->conflicts++;
    }
    crowd->finished++;
}

static void many_coroutines_write_at_once(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct crowd crowd = {.subject = uuid_str(ctx->arena, test_id())};
    struct batch batch;
    batch_init(&batch, ctx->arena, tenant_a);
    append_account(&batch, WRITE_INSERT, crowd.subject, 0);
    OK(store_commit(store, ctx, &batch, &e));
    struct group group;
    group_init(&group, ctx);
    for (int i = 0; i < WRITERS; i++)
        OK(group_start(&group, "writer", crowd_member, &crowd, &e));
    group_wait(&group);
    assert_int_equal(crowd.finished, WRITERS);
    struct record key = record_of(TABLE_BUDGETS), out;
    record_set_text(&key, BUDGETS_LEVEL, S("user"));
    record_set_text(&key, BUDGETS_SUBJECT, crowd.subject);
    OK(store_get(store, ctx, tenant_a, &key, &out, &e));
    assert_int_equal(record_integer(&out, BUDGETS_SPENT_TOKENS), WRITERS * ROUNDS);
    assert_int_equal(store_load(store).queued, 0); /* all were served */
}

static void a_cancelled_caller_is_refused_before_anything_happens(struct context *ctx,
                                                                  void *argument)
{
    (void) argument;
    struct error e;
    struct context child;
    struct batch batch;
    context_init_child(&child, ctx, DEADLINE_NONE);
    context_cancel(&child);
    batch_init(&batch, ctx->arena, tenant_a);
    struct record key = key_of(TABLE_SESSIONS, test_session(&batch)), out;
    REFUSED(store_commit(store, &child, &batch, &e), CANCELLED);
    REFUSED(store_get(store, &child, tenant_a, &key, &out, &e), CANCELLED);
    context_deinit(&child);
    REFUSED(store_get(store, ctx, tenant_a, &key, &out, &e), NOT_FOUND);
}

static void submitted_batches_are_stored_and_bad_ones_harm_nobody(struct context *ctx,
                                                                  void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid run = test_id();
    for (int i = 0; i < 40; i++) {
        struct arena *arena = arena_create(0); /* gone before it is written */
        batch_init(&batch, arena, tenant_a);
        append_event(&batch, WRITE_INSERT, run, i / 2,
                     str_printf(arena, "{\"i\": %d}", i)); /* each second fails */
        OK(store_submit(store, &batch, &e));
        arena_destroy(arena);
    }
    add_session(ctx, tenant_a); /* queued behind them: when it is done, they are */
    struct query query = query_of(TABLE_RUN_EVENTS);
    query_where_uuid(&query, RUN_EVENTS_RUN_ID, run);
    struct records page;
    OK(store_list(store, ctx, tenant_a, &query, &page, &e));
    assert_int_equal(page.count, 20);
    assert_true(str_equal(record_text(&page.items[3], RUN_EVENTS_DATA), S("{\"i\": 6}")));
}

static _Atomic int64_t noticed; /* sum of the numbers of durable batches */

static void take_notice(const struct batch_notice *notice)
{
    if (notice->owner == &noticed && uuid_equal(notice->id, tenant_a))
        noticed += notice->number;
}

static void a_durable_batch_gives_notice_and_a_failed_one_does_not(struct context *ctx,
                                                                   void *argument)
{
    (void) argument;
    struct error e;
    noticed = 0;
    for (int i = 0; i < 4; i++) {
        struct batch batch;
        batch_init(&batch, ctx->arena, tenant_a);
        test_session(&batch);
        batch.notice = (struct batch_notice){
            .run = take_notice, .owner = &noticed, .id = tenant_a, .number = i < 2 ? 1 : 100};
        OK(i % 2 ? store_submit(store, &batch, &e) : store_commit(store, ctx, &batch, &e));
        batch.notice.number = 10000;
        if (i % 2)
            OK(store_submit(store, &batch, &e)); /* taken already: it fails, silently */
        else
            REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
    }
    add_session(ctx, tenant_a); /* behind the submitted ones */
    assert_int_equal(noticed, 202);
}

/* ---- audit ---- */

static void append_audit(struct batch *batch, str action)
{
    struct record *entry = batch_add(batch, WRITE_INSERT, TABLE_AUDIT_LOGS);
    record_set_uuid(entry, AUDIT_LOGS_ID, test_id());
    record_set_text(entry, AUDIT_LOGS_USER_ID, S("ada"));
    record_set_text(entry, AUDIT_LOGS_ACTION, action);
    record_set_text(entry, AUDIT_LOGS_RESOURCE_TYPE, S("session"));
    record_set_text(entry, AUDIT_LOGS_DETAILS, S("{\"k\": [1, 2.50, \"\\u00fc\"]}"));
    record_set_text(entry, AUDIT_LOGS_USER_AGENT, S("odd \xff agent"));
}

static void the_audit_chain_is_made_and_verified(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct batch batch;
    uuid tenant = test_id();
    for (int i = 0; i < 3; i++) {
        batch_init(&batch, ctx->arena, tenant);
        for (int j = 0; j < 100; j++)
            append_audit(&batch, S("session.open"));
        OK(store_commit(store, ctx, &batch, &e));
        test_session(&batch); /* a batch that fails leaves no hole: its entries' ids are taken */
        REFUSED(store_commit(store, ctx, &batch, &e), CONFLICT);
    }
    struct audit_report report;
    OK(store_audit_verify(store, ctx, tenant, &report, &e));
    assert_true(report.ok);
    assert_int_equal(report.entries, 300);
    struct query query = query_of(TABLE_AUDIT_CHECKPOINTS);
    struct records page;
    OK(store_list(store, ctx, tenant, &query, &page, &e));
    assert_true(page.count >= 1);
    query = query_of(TABLE_AUDIT_LOGS);
    query.order_column = AUDIT_LOGS_SEQ;
    query.limit = 2;
    OK(store_list(store, ctx, tenant, &query, &page, &e));
    assert_true(str_equal(record_text(&page.items[1], AUDIT_LOGS_PREV_HASH),
                          record_text(&page.items[0], AUDIT_LOGS_HASH)));
    batch_init(&batch, ctx->arena, tenant);
    struct record *change = batch_add(&batch, WRITE_UPDATE, TABLE_AUDIT_LOGS);
    record_set_uuid(change, AUDIT_LOGS_ID, record_uuid(&page.items[0], AUDIT_LOGS_ID));
    REFUSED(store_commit(store, ctx, &batch, &e), INVALID);
    OK(store_audit_verify(store, ctx, test_id(), &report, &e));
    assert_true(report.ok && report.entries == 0);
}

/* ---- faults and restart ---- */

static void a_failed_commit_is_reported_and_the_next_one_works(struct context *ctx, void *argument)
{
    (void) argument;
#ifdef NEXUS_FAULTS
    struct error e;
    struct batch batch;
    batch_init(&batch, ctx->arena, tenant_a);
    struct record key = key_of(TABLE_SESSIONS, test_session(&batch)), out;
    fault_arm(S("store.commit:1"));
    REFUSED(store_commit(store, ctx, &batch, &e), DISK_FULL);
    REFUSED(store_get(store, ctx, tenant_a, &key, &out, &e), NOT_FOUND);
    batch.fault = "journal.intent";
    fault_arm(S("journal.intent.before:1"));
    REFUSED(store_commit(store, ctx, &batch, &e), STORE);
    REFUSED(store_get(store, ctx, tenant_a, &key, &out, &e), NOT_FOUND);
    fault_arm(S("journal.intent.after:1"));
    REFUSED(store_commit(store, ctx, &batch, &e), STORE); /* a lost acknowledgement */
    OK(store_get(store, ctx, tenant_a, &key, &out, &e));
    fault_arm(S(""));
    add_session(ctx, tenant_a);
#else
    (void) ctx;
#endif
}

static uuid kept_session;

static void leave_something(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    kept_session = add_session(ctx, tenant_a);
    int64_t epoch;
    OK(store_claim(store, ctx, tenant_a, kept_session, S("n1"), &epoch, &e));
}

static void find_it_again(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    struct record key = key_of(TABLE_SESSIONS, kept_session), out;
    OK(store_get(store, ctx, tenant_a, &key, &out, &e));
    int64_t epoch;
    OK(store_claim(store, ctx, tenant_a, kept_session, S("n2"), &epoch, &e));
    assert_int_equal(epoch, 2);
}

static void what_was_committed_is_there_after_a_restart(void **state)
{
    (void) state;
    store_testkit_run(leave_something, NULL);
    current->reopen(current);
    store = current->store;
    store_testkit_run(find_it_again, NULL);
}

static int open_fixture(void **state)
{
    (void) state;
    current->open(current);
    store = current->store;
    tenant_a = test_id();
    tenant_b = test_id();
    return 0;
}

static int close_fixture(void **state)
{
    (void) state;
    current->close(current);
    return 0;
}

#define IN_COROUTINE(body)                                                                         \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void) state;                                                                              \
        store_testkit_run(body, NULL);                                                             \
    }
IN_COROUTINE(rows_come_back_as_they_went)
IN_COROUTINE(defaults_of_the_spec_are_filled_in)
IN_COROUTINE(a_batch_is_all_or_nothing)
IN_COROUTINE(inserts_updates_and_upserts_mean_what_they_say)
IN_COROUTINE(an_update_may_hang_on_a_value)
IN_COROUTINE(references_must_exist_and_stay)
IN_COROUTINE(unlawful_batches_are_refused_before_they_are_tried)
IN_COROUTINE(a_fence_lets_only_the_owner_write)
IN_COROUTINE(cursors_neither_repeat_nor_skip)
IN_COROUTINE(foreign_cursors_and_odd_queries_are_refused)
IN_COROUTINE(nulls_are_found_as_nulls)
IN_COROUTINE(tenants_do_not_see_each_other_but_a_hash_is_found)
IN_COROUTINE(many_coroutines_write_at_once)
IN_COROUTINE(a_cancelled_caller_is_refused_before_anything_happens)
IN_COROUTINE(submitted_batches_are_stored_and_bad_ones_harm_nobody)
IN_COROUTINE(a_durable_batch_gives_notice_and_a_failed_one_does_not)
IN_COROUTINE(the_audit_chain_is_made_and_verified)
IN_COROUTINE(a_failed_commit_is_reported_and_the_next_one_works)

int store_contract_run(struct store_fixture *fixture)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_come_back_as_they_went),
        cmocka_unit_test(test_defaults_of_the_spec_are_filled_in),
        cmocka_unit_test(test_a_batch_is_all_or_nothing),
        cmocka_unit_test(test_inserts_updates_and_upserts_mean_what_they_say),
        cmocka_unit_test(test_an_update_may_hang_on_a_value),
        cmocka_unit_test(test_references_must_exist_and_stay),
        cmocka_unit_test(test_unlawful_batches_are_refused_before_they_are_tried),
        cmocka_unit_test(test_a_fence_lets_only_the_owner_write),
        cmocka_unit_test(test_cursors_neither_repeat_nor_skip),
        cmocka_unit_test(test_foreign_cursors_and_odd_queries_are_refused),
        cmocka_unit_test(test_nulls_are_found_as_nulls),
        cmocka_unit_test(test_tenants_do_not_see_each_other_but_a_hash_is_found),
        cmocka_unit_test(test_many_coroutines_write_at_once),
        cmocka_unit_test(test_a_cancelled_caller_is_refused_before_anything_happens),
        cmocka_unit_test(test_submitted_batches_are_stored_and_bad_ones_harm_nobody),
        cmocka_unit_test(test_a_durable_batch_gives_notice_and_a_failed_one_does_not),
        cmocka_unit_test(test_the_audit_chain_is_made_and_verified),
        cmocka_unit_test(test_a_failed_commit_is_reported_and_the_next_one_works),
        cmocka_unit_test(what_was_committed_is_there_after_a_restart),
    };
    current = fixture;
    return cmocka_run_group_tests_name(fixture->name, tests, open_fixture, close_fixture);
}
