#include "gateway/bodies.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "gateway/keys_internal.h"
#include "llm/openai_format.h"
#include "orchestrator/approval/approval.h"
#include "orchestrator/policy/key_limits.h"

/* ---- members that are not known ---- */

enum { MEMBER_COMPARED_MAX = 40 };

/* How many letters must be put in, left out or exchanged to make one of the other. */
static int distance(str a, str b)
{
    int row[MEMBER_COMPARED_MAX + 1];
    for (size_t j = 0; j <= b.len; j++)
        row[j] = (int) j;
    for (size_t i = 1; i <= a.len; i++) {
        int diagonal = row[0];
        row[0] = (int) i;
        for (size_t j = 1; j <= b.len; j++) {
            int exchanged = diagonal + (a.ptr[i - 1] != b.ptr[j - 1]);
            int best = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = exchanged < best ? exchanged : best;
        }
    }
    return row[b.len];
}

/* The one that was meant, if one is near: a third of its letters may be wrong. */
static str nearest(str name, str known)
{
    str word, found = STR_NONE;
    int least = MEMBER_COMPARED_MAX;
    while (name.len <= MEMBER_COMPARED_MAX && str_next(&known, ' ', &word)) {
        int letters = word.len <= MEMBER_COMPARED_MAX ? distance(name, word) : least;
        if (letters < least && letters <= (int) (word.len + 2) / 3) {
            least = letters;
            found = word;
        }
    }
    return found;
}

bool body_refuse_member(str name, str known, struct error *e)
{
    str shown = str_cut_utf8(name, MEMBER_COMPARED_MAX), meant = nearest(name, known);
    if (str_is_empty(meant))
        return error_set(e, REASON_SCHEMA, "unknown member \"" STR_FMT "\"; known are: " STR_FMT,
                         STR_ARG(shown), STR_ARG(known));
    return error_set(e, REASON_SCHEMA,
                     "unknown member \"" STR_FMT "\": is \"" STR_FMT
                     "\" meant? Known are: " STR_FMT,
                     STR_ARG(shown), STR_ARG(meant), STR_ARG(known));
}

/* ---- sessions ---- */

static bool read_object(struct arena *arena, const struct json *json, str member, str *out,
                        struct error *e)
{
    const struct json *value = json_get(json, member);
    if (!value || json_type(value) == JSON_NULL)
        return true;
    if (json_type(value) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, STR_FMT " must be an object", STR_ARG(member));
    *out = json_print(arena, value);
    return true;
}

/* A decimal, as text or as a number in the caller's own digits: never by way of a rounded double. */
static bool read_usd(struct arena *arena, const struct json *budget, int64_t *out, struct error *e)
{
    const struct json *value = json_get(budget, S("cost_usd"));
    str text;
    if (!value || json_type(value) == JSON_NULL)
        return true;
    if (!json_to_str(value, &text))
        text = json_print(arena, value);
    return money_parse_usd(text, out) ||
           error_set(
               e, REASON_SCHEMA,
               "budget.cost_usd must be a decimal such as \"2.50\" with at most 9 fraction digits");
}

bool body_read_budget(struct arena *arena, const struct json *json, cost *out, struct error *e)
{
    const struct json *budget = json_get(json, S("budget"));
    int64_t seconds = -1;
    if (!budget || json_type(budget) == JSON_NULL)
        return true;
    if (json_type(budget) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "budget must be an object");
    if (!json_read_i64(budget, S("tokens"), 0, INT64_MAX - 1, &out->tokens, e) ||
        !json_read_i64(budget, S("time_seconds"), 0, INT64_MAX / 1000 - 1, &seconds, e) ||
        !json_read_i64(budget, S("tool_calls"), 0, INT64_MAX - 1, &out->tool_calls, e))
        return error_wrap(e, "budget");
    if (seconds >= 0)
        out->time_ms = seconds * 1000;
    return read_usd(arena, budget, &out->cost_nanousd, e);
}

bool body_read_session(struct arena *arena, const struct json *json, struct session_request *out,
                       struct error *e)
{
    *out = (struct session_request){.budget = COST_LIMITLESS};
    return json_read_str(json, S("user_id"), &out->user_id, e) &&
           json_read_str(json, S("agent"), &out->agent, e) &&
           body_read_budget(arena, json, &out->budget, e) &&
           read_object(arena, json, S("policy_context"), &out->policy_context, e) &&
           read_object(arena, json, S("metadata"), &out->metadata, e) &&
           json_read_str(json, S("double_text"), &out->double_text, e) &&
           json_read_str(json, S("priority"), &out->priority, e);
}

bool body_read_session_change(struct arena *arena, const struct json *json,
                              struct session_change *out, struct error *e)
{
    *out = (struct session_change){0};
    return json_read_str(json, S("double_text"), &out->double_text, e) &&
           read_object(arena, json, S("metadata"), &out->metadata, e);
}

bool body_read_clone(const struct json *json, uuid *at_message, struct error *e)
{
    str text = STR_NONE;
    *at_message = UUID_NONE;
    return json_read_str(json, S("at_message"), &text, e) &&
           (str_is_empty(text) || uuid_parse(text, at_message) ||
            error_set(e, REASON_SCHEMA, "at_message must be a UUID"));
}

/* ---- messages ---- */

/* OpenAI's content parts: checked by the same reader as the compatible route, and kept as they came. */
static bool read_parts(struct arena *arena, const struct json *content, struct run_request *out,
                       struct error *e)
{
    const struct json *messages;
    struct prompt_message *read;
    size_t count;
    out->parts = json_print(arena, content);
    str text =
        str_printf(arena, "[{\"role\":\"user\",\"content\":" STR_FMT "}]", STR_ARG(out->parts));
    if (!json_parse(arena, text, (struct json_limits){0}, &messages, e) ||
        !openai_read_messages(arena, messages, &read, &count, e))
        return error_wrap(e, "content");
    if (read[0].part_count == 0)
        return error_set(e, REASON_SCHEMA, "content is empty");
    out->content = prompt_message_text(arena, &read[0]);
    return true;
}

static bool read_content(struct arena *arena, const struct json *json, struct run_request *out,
                         struct error *e)
{
    const struct json *content = json_get(json, S("content"));
    if (json_type(content) == JSON_ARRAY)
        return read_parts(arena, content, out, e);
    if (!json_to_str(content, &out->content))
        return error_set(e, REASON_SCHEMA, "content must be text or an array of content parts");
    return !str_is_empty(str_trim(out->content)) || error_set(e, REASON_SCHEMA, "content is empty");
}

bool body_read_message(struct arena *arena, const struct json *json, struct run_request *out,
                       bool *is_stream, struct error *e)
{
    str on_busy = STR_NONE;
    *is_stream = false;
    out->on_busy = DOUBLE_TEXT_UNSAID;
    return read_content(arena, json, out, e) && json_read_bool(json, S("stream"), is_stream, e) &&
           json_read_str(json, S("model"), &out->model, e) &&
           json_read_str(json, S("on_busy"), &on_busy, e) &&
           (str_is_empty(on_busy) || double_text_parse(on_busy, &out->on_busy) ||
            error_set(e, REASON_SCHEMA, "on_busy must be reject, enqueue, interrupt or steer"));
}

/* ---- approvals, tools ---- */

bool body_read_decision(const struct json *json, struct approval_decision *out, struct error *e)
{
    str decision;
    if (!json_need_str(json, S("decision"), &decision, e) ||
        !json_need_str(json, S("digest"), &out->digest, e) ||
        !json_read_str(json, S("reason"), &out->reason, e) ||
        !json_read_str(json, S("in_place_of"), &out->in_place_of, e))
        return false;
    out->is_approve = str_equal(decision, S("approve"));
    return out->is_approve || str_equal(decision, S("deny")) ||
           error_set(e, REASON_SCHEMA, "decision must be approve or deny");
}

bool body_read_delegation(const struct json *json, struct approval_delegation *out, struct error *e)
{
    str expires;
    return json_need_str(json, S("to"), &out->to_user, e) &&
           json_need_str(json, S("expires_at"), &expires, e) &&
           json_read_str(json, S("reason"), &out->reason, e) &&
           (time_parse(expires, &out->expires_us) ||
            error_set(e, REASON_SCHEMA, "expires_at must be an RFC 3339 time"));
}

static bool read_session_id(const struct json *json, uuid *out, struct error *e)
{
    const struct json *value = json_get(json, S("session_id"));
    str text = STR_NONE;
    if (!value || json_type(value) == JSON_NULL)
        return true;
    return (json_to_str(value, &text) && uuid_parse(text, out) && !uuid_is_none(*out)) ||
           error_set(e, REASON_SCHEMA, "session_id must be a UUID");
}

bool body_read_memory(struct arena *arena, const struct json *json, struct memory_entry *out,
                      struct error *e)
{
    const struct json *label = json_get(json, S("label"));
    *out = (struct memory_entry){0};
    if (!read_session_id(json, &out->session_id, e) ||
        !json_need_str(json, S("content"), &out->content, e) ||
        !json_read_str(json, S("content_type"), &out->content_type, e) ||
        !read_object(arena, json, S("metadata"), &out->metadata, e))
        return false;
    if (label && json_type(label) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "label must be an object");
    out->label = memory_label_of_caller(out->content_type);
    if (label)
        out->label = label_join(out->label, label_read_json(label));
    return true;
}

bool body_read_memory_query(const struct json *json, struct memory_query *out, struct error *e)
{
    int64_t limit = MEMORY_RESULTS_DEFAULT;
    *out = (struct memory_query){0};
    if (!read_session_id(json, &out->session_id, e) ||
        !json_need_str(json, S("query"), &out->text, e) ||
        !json_read_str(json, S("user_id"), &out->user_id, e) ||
        !json_read_i64(json, S("limit"), 1, MEMORY_RESULTS_MAX, &limit, e))
        return false;
    out->limit = (size_t) limit;
    return true;
}

bool body_read_invocation(struct arena *arena, const struct json *json, struct tool_invocation *out,
                          struct error *e)
{
    str session = STR_NONE;
    const struct json *input = json_get(json, S("input"));
    if (!json_read_str(json, S("version"), &out->version, e) ||
        !json_read_str(json, S("session_id"), &session, e))
        return false;
    if (!str_is_empty(session) && !uuid_parse(session, &out->session_id))
        return error_set(e, REASON_SCHEMA, "session_id must be a UUID");
    if (!input)
        return error_set(e, REASON_SCHEMA, "input is missing: what the tool gets");
    out->input = json_print(arena, input);
    return true;
}

/* ---- keys ---- */

static bool read_scopes(const struct json *json, unsigned *out, struct error *e)
{
    const struct json *scopes = json_get(json, S("scopes")), *item;
    if (!scopes || json_type(scopes) == JSON_NULL)
        return true;
    if (json_type(scopes) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "scopes must be an array");
    struct json_iter it = json_iter(scopes);
    while (json_next(&it, NULL, &item)) {
        str name;
        unsigned bit;
        if (!json_to_str(item, &name) || !scope_parse(name, &bit))
            return error_set(e, REASON_SCHEMA, "scopes may hold platform, act_as and approve");
        *out |= bit;
    }
    return true;
}

bool body_read_key(struct arena *arena, const struct json *json, struct key_request *out,
                   cost *budget, struct error *e)
{
    str expires = STR_NONE;
    if (!json_need_str(json, S("name"), &out->name, e) ||
        !json_read_str(json, S("user_id"), &out->user_id, e) ||
        !json_read_str(json, S("role"), &out->role, e) ||
        !json_read_str(json, S("expires_at"), &expires, e) || !read_scopes(json, &out->scopes, e))
        return false;
    if (!str_is_empty(expires) && !time_parse(expires, &out->expires_us))
        return error_set(e, REASON_SCHEMA, "expires_at must be an RFC 3339 time");
    return key_limits_read(arena, json, &out->limits, e) &&
           body_read_budget(arena, json, budget, e);
}

/* ---- policies ---- */

static bool read_remaining(const struct json *budget, cost *out, struct error *e)
{
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        if (!json_read_i64(budget, str_from_cstr(cost_field_name(i)), 0, INT64_MAX,
                           cost_field(out, i), e))
            return error_wrap(e, "budget");
    return true;
}

/* What the form has and a caller cannot choose: taken as it is shown, so that an input that was shown can be asked again. */
static bool check_fixed(const struct json *json, const struct policy_input *input, struct error *e)
{
    str tenant = input->tenant, status = S("approved");
    if (!json_read_str(json_get(json, S("user")), S("tenant"), &tenant, e) ||
        !json_read_str(json_get(json, S("approval")), S("status"), &status, e))
        return false;
    if (!str_equal(tenant, input->tenant))
        return error_set(e, REASON_SCHEMA, "user.tenant can only be the caller's: leave it out");
    return str_equal(status, S("approved")) ||
           error_set(e, REASON_SCHEMA,
                     "approval.status can only be \"approved\"; without an approval leave it out");
}

static bool read_policy_session(struct arena *arena, const struct json *session,
                                struct policy_input *out, struct error *e)
{
    const struct json *context = json_get(session, S("policy_context"));
    str id = STR_NONE;
    out->remaining = COST_LIMITLESS;
    if (!json_read_str(session, S("id"), &id, e) ||
        !read_remaining(json_get(session, S("budget")), &out->remaining, e))
        return error_wrap(e, "session");
    if (!str_is_empty(id) && !uuid_parse(id, &out->session_id))
        return error_set(e, REASON_SCHEMA, "session.id must be a UUID");
    if (json_type(context) == JSON_OBJECT)
        out->policy_context = json_print(arena, context);
    return true;
}

bool body_read_policy_input(struct arena *arena, const struct json *json, struct policy_input *out,
                            struct error *e)
{
    const struct json *user = json_get(json, S("user")), *tool = json_get(json, S("tool"));
    const struct json *approval = json_get(json, S("approval")),
                      *arguments = json_get(json, S("arguments"));
    if (!json_need_str(json, S("action"), &out->action, e) ||
        !json_read_str(json, S("resource"), &out->resource, e) ||
        !json_read_str(user, S("id"), &out->user_id, e) ||
        !json_read_str(user, S("role"), &out->role, e) ||
        !json_read_str(tool, S("name"), &out->tool_name, e) ||
        !json_read_str(tool, S("version"), &out->tool_version, e) ||
        !json_read_str(tool, S("category"), &out->tool_category, e) ||
        !json_read_str(approval, S("approver"), &out->approver, e) || !check_fixed(json, out, e))
        return false;
    if (arguments && json_type(arguments) != JSON_NULL)
        out->arguments = json_print(arena, arguments);
    return read_policy_session(arena, json_get(json, S("session")), out, e);
}

/* ---- budgets ---- */

static bool read_money(struct arena *arena, const struct json *json, int64_t *out, struct error *e)
{
    const struct json *money = json_get(json, S("cost_nanousd"));
    str text;
    if (!money || json_type(money) == JSON_NULL)
        return read_usd(arena, json, out, e);
    return (json_to_str(money, &text) && str_to_i64(text, out) && *out >= 0) ||
           error_set(e, REASON_SCHEMA, "cost_nanousd must be a whole number as text");
}

static bool read_time_limit(const struct json *json, int64_t *out_ms, struct error *e)
{
    int64_t seconds = -1;
    if (!json_read_i64(json, S("time_ms"), 0, INT64_MAX - 1, out_ms, e) ||
        !json_read_i64(json, S("time_seconds"), 0, INT64_MAX / 1000 - 1, &seconds, e))
        return false;
    if (seconds >= 0)
        *out_ms = seconds * 1000;
    return true;
}

static bool read_alerts(const struct json *json, struct ledger_setting *out, struct error *e)
{
    const struct json *list = json_get(json, S("alerts")), *item;
    int64_t percent, newest = 0;
    if (!list || json_type(list) == JSON_NULL)
        return true;
    struct json_iter it = json_iter(list);
    bool ok = json_type(list) == JSON_ARRAY && json_count(list) > 0 &&
              json_count(list) <= BUDGET_ALERTS_MAX;
    while (ok && json_next(&it, NULL, &item)) {
        ok = json_to_i64(item, &percent) && percent > newest && percent <= 100;
        if (ok)
            out->thresholds[out->threshold_count++] = (int) (newest = percent) * 10;
    }
    return ok ||
           error_set(e, REASON_SCHEMA,
                     "alerts must be a list of 1 to %d rising numbers from 1 to 100 (per cent)",
                     BUDGET_ALERTS_MAX);
}

bool body_read_limits(struct arena *arena, const struct json *json, struct ledger_setting *out,
                      struct error *e)
{
    str period = STR_NONE;
    *out = (struct ledger_setting){.limit = COST_LIMITLESS};
    if (!json)
        return error_set(e, REASON_SCHEMA, "the body must hold the limits: {\"tokens\": ...}");
    if (!json_read_i64(json, S("tokens"), 0, INT64_MAX - 1, &out->limit.tokens, e) ||
        !read_time_limit(json, &out->limit.time_ms, e) ||
        !json_read_i64(json, S("tool_calls"), 0, INT64_MAX - 1, &out->limit.tool_calls, e) ||
        !json_read_str(json, S("period"), &period, e) ||
        !read_money(arena, json, &out->limit.cost_nanousd, e))
        return false;
    if (!period_parse(period, &out->period))
        return error_set(e, REASON_SCHEMA, "period must be day or month, or absent");
    return read_alerts(json, out, e);
}
