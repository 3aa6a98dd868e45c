/*
 * Any document as a session's: it is refused, or becomes a session that can be read, exported, imported again as the same, and gone on
 * with: a message in it ends as a run does.  Everything in it counts as untrusted.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_testkit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUTS_OF_A_KIT = 100 }; /* its store holds what all of them made */

struct trial {
    struct testkit *kit;
    str text;
    uuid session_id, run_id;
    size_t message_count;
    bool is_imported;
    struct strbuf *exported;
};

static bool keep_piece(void *owner, str piece, struct error *e)
{
    (void) e;
    strbuf_add(owner, piece);
    return true;
}

static size_t check_messages(struct trial *trial, struct context *ctx, uuid session_id)
{
    struct query query = query_of(TABLE_MESSAGES);
    size_t count = 0;
    query_where_uuid(&query, MESSAGES_SESSION_ID, session_id);
    for (;;) {
        struct records page;
        struct error e = {0};
        ensure(store_list(trial->kit->store, ctx, trial->kit->tenant_id, &query, &page, &e));
        for (size_t i = 0; i < page.count; i++, count++) {
            const struct json *metadata;
            enum role role;
            ensure(role_parse(record_text(&page.items[i], MESSAGES_ROLE), &role) &&
                   role != ROLE_SYSTEM);
            ensure(json_parse(ctx->arena, record_text(&page.items[i], MESSAGES_METADATA),
                              (struct json_limits){0}, &metadata, &e));
            ensure(label_read_json(json_get(metadata, S("label"))).is_untrusted);
        }
        if (str_is_empty(page.next_cursor))
            return count;
        query.cursor = page.next_cursor;
    }
}

static bool import(struct trial *trial, struct context *ctx, str text, uuid *session_id)
{
    struct principal ada = testkit_principal(trial->kit, "ada", ROLE_LEVEL_USER);
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    const struct json *document;
    struct error e = {0};
    struct json_limits limits = {.bytes_max = 64u << 20};
    if (!json_parse(ctx->arena, text, limits, &document, &e))
        return false;
    if (!session_import(trial->kit->o, ctx, &ada, document, row, &e)) {
        ensure(e.reason == REASON_SCHEMA || e.reason == REASON_TOO_LARGE ||
               e.reason == REASON_LIMIT);
        return false;
    }
    *session_id = record_uuid(row, SESSIONS_ID);
    return true;
}

static void do_import(struct context *ctx, void *argument)
{
    struct trial *trial = argument;
    struct principal ada = testkit_principal(trial->kit, "ada", ROLE_LEVEL_USER);
    struct session_export to = {keep_piece, trial->exported};
    struct run_request request = {.content = S("and now?")};
    struct records given;
    struct error e = {0};
    uuid again;
    trial->is_imported = import(trial, ctx, trial->text, &trial->session_id);
    if (!trial->is_imported)
        return;
    trial->message_count = check_messages(trial, ctx, trial->session_id);
    ensure(session_context(trial->kit->o, ctx, &ada, trial->session_id, &given, &e));
    ensure(session_export(trial->kit->o, ctx, &ada, trial->session_id, &to, &e));
    ensure(!strbuf_is_over(trial->exported));
    ensure(import(trial, ctx, strbuf_str(trial->exported), &again));
    ensure(check_messages(trial, ctx, again) == trial->message_count);
    request.session_id = trial->session_id;
    ensure(run_start(trial->kit->o, ctx, &ada, &request, &trial->run_id, &e));
}

/* Everything has come to rest. */
static void check_run(struct context *ctx, void *argument)
{
    struct trial *trial = argument;
    struct record row = testkit_run(trial->kit, ctx, trial->run_id);
    ensure(str_equal(record_text(&row, AGENT_RUNS_STATUS), S("completed")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct testkit *kit;
    static int used;
    struct strbuf exported;
    OWNED(arena) arena = arena_create(0);
    if (!kit)
        kit = testkit_create();
    strbuf_init(&exported, arena, 256u << 20);
    struct trial trial = {
        .kit = kit, .text = str_of((const char *) data, size), .exported = &exported};
    testkit_do(kit, do_import, &trial);
    if (trial.is_imported)
        testkit_do(kit, check_run, &trial);
    if (++used == INPUTS_OF_A_KIT) {
        testkit_destroy(kit);
        kit = NULL;
        used = 0;
    }
    return 0;
}
