/* Every body reader on any tree: an answer or a named error, and texts that are valid where the layers below rely on it. */
#include "gateway/bodies.h"
#include "orchestrator/approval/approval.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_json(struct arena *arena, str text)
{
    const struct json *json;
    struct error e = {0};
    ensure(str_is_empty(text) || json_parse(arena, text, (struct json_limits){0}, &json, &e));
}

static void check_refused(bool ok, const struct error *e)
{
    ensure(ok || (e->code == ERROR_INVALID && e->message[0] != 0));
}

static void read_all(struct arena *arena, const struct json *json)
{
    struct session_request session;
    struct run_request run = {0};
    struct tool_invocation invocation = {0};
    struct policy_input *input = ARENA_NEW(arena, struct policy_input);
    bool is_stream;
    struct error e = {0};
    bool ok = body_read_session(arena, json, &session, &e);
    check_refused(ok, &e);
    if (ok) {
        check_json(arena, session.policy_context);
        check_json(arena, session.metadata);
        ensure(session.budget.tokens >= 0 && session.budget.time_ms >= 0 &&
               session.budget.cost_nanousd >= 0);
    }
    ok = body_read_message(arena, json, &run, &is_stream, &e);
    check_refused(ok, &e);
    if (ok)
        check_json(arena, run.parts);
    ok = body_read_invocation(arena, json, &invocation, &e);
    check_refused(ok, &e);
    if (ok)
        check_json(arena, invocation.input);
    struct memory_entry memory;
    struct memory_query query;
    ok = body_read_memory(arena, json, &memory, &e);
    check_refused(ok, &e);
    if (ok) {
        check_json(arena, memory.metadata);
        ensure(label_covers(memory.label, memory_label_of_caller(memory.content_type)));
    }
    ok = body_read_memory_query(json, &query, &e);
    check_refused(ok, &e);
    ensure(!ok || query.limit > 0);
    ok = body_read_policy_input(arena, json, input, &e);
    check_refused(ok, &e);
    if (ok)
        check_json(arena, policy_input_json(arena, input, input->action.len % 2));
}

static void read_rest(struct arena *arena, const struct json *json)
{
    struct approval_decision decision = {0};
    struct approval_delegation delegation = {0};
    struct key_request key = {0};
    struct ledger_setting setting = {0};
    cost budget = COST_LIMITLESS;
    struct error e = {0};
    struct json_iter it = json_iter(json);
    const struct json *value;
    str name = STR_NONE;
    while (json_next(&it, &name, &value))
        check_refused(body_refuse_member(name, S("name tokens time_seconds metadata"), &e), &e);
    check_refused(body_read_decision(json, &decision, &e), &e);
    check_refused(body_read_delegation(json, &delegation, &e), &e);
    check_refused(body_read_key(arena, json, &key, &budget, &e), &e);
    bool ok = body_read_limits(arena, json, &setting, &e);
    check_refused(ok, &e);
    ensure(!ok || (setting.limit.tokens >= 0 && setting.limit.cost_nanousd >= 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *json;
    struct error e = {0};
    if (!json_parse(arena, str_of((const char *) data, size), (struct json_limits){.depth_max = 32},
                    &json, &e))
        return 0;
    read_all(arena, json);
    read_rest(arena, json);
    return 0;
}
