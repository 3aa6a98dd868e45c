/*
 * A session from a document (session_export.c).
 *
 * The document comes from outside: nothing in it is believed.  Its ids only tie its own parts together; every row gets a new one.  Its
 * messages keep the labels they say they have and are untrusted besides, whoever they claim to be from.  Answers keep their tool calls,
 * and the results stand beside them as text: no row of this or another tenant is referred to.  Journals are not made: a journal is the
 * record of what happened here.  Files and summaries are left out.
 */
#include "agent/tool/labels.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "llm/prompt.h"
#include "orchestrator/session/session_copy.h"
#include "orchestrator/session/session_export.h"

struct import {
    struct copy copy;
    const struct json *runs;
};

/* ---- labels ---- */

static str metadata_of(struct import *m, const struct json *message)
{
    const struct json *label = json_get(json_get(message, S("metadata")), S("label"));
    struct label claimed = label ? label_read_json(label) : (struct label){0};
    struct strbuf text;
    struct json_writer w;
    claimed = label_join(claimed, (struct label){.origins = LABEL_FILE, .is_untrusted = true});
    if (!label)
        claimed.is_private = true; /* of what nothing is known */
    strbuf_init(&text, m->copy.ctx->arena, 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, S("label"));
    label_write_json(&w, claimed);
    json_put_bool(&w, S("is_imported"), true);
    json_object_end(&w);
    return strbuf_str(&text);
}

/* ---- messages ---- */

static int64_t time_of(const struct json *message, int64_t otherwise_us)
{
    int64_t at_us;
    return time_parse(json_str_or(message, S("created_at"), STR_NONE), &at_us) ? at_us
                                                                               : otherwise_us;
}

struct imported {
    str role, content, parts, metadata;
    int64_t created_us;
};
static void add_message(struct import *m, const struct imported *message)
{
    uuid id;
    struct record *row = copy_message(&m->copy, &id);
    record_set_text(row, MESSAGES_ROLE, message->role);
    record_set_text(row, MESSAGES_CONTENT, message->content);
    record_set_integer(row, MESSAGES_TOKENS, (int64_t) (message->content.len + 3) / 4);
    record_set_integer(row, MESSAGES_CREATED_AT, message->created_us);
    record_set_text(row, MESSAGES_METADATA, message->metadata);
    if (!str_is_empty(message->parts))
        record_set_text(row, MESSAGES_PARTS, message->parts);
}

/* The call of that id among the document's runs; NULL: there is none. */
static const struct json *find_call(const struct import *m, str id)
{
    struct json_iter runs = json_iter(m->runs);
    const struct json *run, *call;
    while (json_next(&runs, NULL, &run)) {
        struct json_iter calls = json_iter(json_get(run, S("tool_calls")));
        while (json_next(&calls, NULL, &call))
            if (str_equal(json_str_or(call, S("id"), STR_NONE), id))
                return call;
    }
    return NULL;
}

static str text_of_result(struct arena *arena, const struct json *call)
{
    const struct json *output = json_get(call, S("output"));
    str text;
    if (output && json_type(output) != JSON_NULL)
        return json_to_str(output, &text) ? text : json_print(arena, output);
    return str_printf(arena, "{\"error\":{\"message\":\"%s\"}}",
                      call ? "the call gave no output" : "the result was not in the document");
}

static void write_call(struct json_writer *w, const struct json *call)
{
    json_object_begin(w);
    json_put_str(w, S("call_id"), json_str_or(call, S("call_id"), STR_NONE));
    json_put_str(w, S("name"), json_str_or(call, S("name"), STR_NONE));
    json_put_str(w, S("arguments"), json_str_or(call, S("arguments"), S("{}")));
    json_object_end(w);
}

static str parts_of_calls(struct import *m, const struct json *calls, str call_id, str name)
{
    struct strbuf text;
    struct json_writer w;
    struct json_iter it = json_iter(calls);
    const struct json *call;
    strbuf_init(&text, m->copy.ctx->arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_bool(&w, S("from_client"), true);
    json_key(&w, S("tool_calls"));
    json_array_begin(&w);
    while (json_next(&it, NULL, &call))
        write_call(&w, call);
    json_array_end(&w);
    json_put_str(&w, S("call_id"), call_id);
    json_put_str(&w, S("name"), name);
    json_object_end(&w);
    return strbuf_str(&text);
}

/* An answer and, beside it, what its calls gave. */
static void add_answer(struct import *m, const struct json *calls, struct imported *message)
{
    struct json_iter it = json_iter(calls);
    const struct json *call;
    message->parts = parts_of_calls(m, calls, STR_NONE, STR_NONE);
    add_message(m, message);
    while (json_next(&it, NULL, &call)) {
        str id = json_str_or(call, S("tool_call_id"), STR_NONE);
        const struct json *row = str_is_empty(id) ? NULL : find_call(m, id);
        struct imported result = {
            .role = S("tool"),
            .content = text_of_result(m->copy.ctx->arena, row),
            .metadata = message->metadata,
            .created_us = message->created_us,
            .parts = parts_of_calls(m, NULL, json_str_or(call, S("call_id"), STR_NONE),
                                    json_str_or(call, S("name"), STR_NONE)),
        };
        add_message(m, &result);
    }
}

static bool import_message(struct import *m, const struct json *json, struct error *e)
{
    struct imported message = {
        .role = json_str_or(json, S("role"), STR_NONE),
        .metadata = metadata_of(m, json),
        .created_us = time_of(json, clock_unix_us(m->copy.o->parts.clock)),
    };
    const struct json *metadata = json_get(json, S("metadata")),
                      *parts = json_get(json, S("parts"));
    enum role role;
    if (!role_parse(message.role, &role) ||
        !json_to_str(json_get(json, S("content")), &message.content))
        return error_set(e, REASON_SCHEMA, "messages[%zu] needs a role and a content that is text",
                         m->copy.count);
    if (message.content.len > MESSAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "messages[%zu] is over %u bytes", m->copy.count,
                         MESSAGE_BYTES_MAX);
    if (json_get(metadata, S("summary")) || json_bool_or(metadata, S("is_withdrawn"), false))
        return true;
    if (role == ROLE_SYSTEM) /* nobody outside gives instructions */
        message.role = S("user");
    if (json_count(json_get(parts, S("tool_calls"))) > RUN_TOOL_CALLS_PARALLEL_MAX)
        return error_set(e, REASON_SCHEMA, "messages[%zu] has over %d tool calls", m->copy.count,
                         RUN_TOOL_CALLS_PARALLEL_MAX);
    if (role == ROLE_ASSISTANT) {
        bool is_from_client = json_bool_or(parts, S("from_client"), false);
        const struct json *calls = json_get(parts, S("tool_calls"));
        if (!is_from_client) {
            add_answer(m, calls, &message);
            return true;
        }
        message.parts = parts_of_calls(m, calls, STR_NONE, STR_NONE); /* its results follow */
    } else if (role == ROLE_TOOL) {
        message.parts = parts_of_calls(m, NULL, json_str_or(parts, S("call_id"), STR_NONE),
                                       json_str_or(parts, S("name"), STR_NONE));
    }
    add_message(m, &message);
    return true;
}

static bool import_messages(struct import *m, const struct json *messages, struct error *e)
{
    struct json_iter it = json_iter(messages);
    const struct json *message;
    while (json_next(&it, NULL, &message)) {
        if (m->copy.count >= SESSION_COPY_MESSAGES_MAX)
            return error_set(e, REASON_LIMIT, "an import may have %u messages",
                             SESSION_COPY_MESSAGES_MAX);
        if (!import_message(m, message, e))
            return false;
        if (m->copy.batch.count >= STORE_PAGE_MAX / 4 && !copy_flush(&m->copy, e))
            return false;
    }
    return true;
}

static bool check_document(const struct json *document, struct error *e)
{
    str format = json_str_or(document, S("format"), STR_NONE);
    if (!str_equal(format, SESSION_EXPORT_FORMAT))
        return error_set(e, REASON_SCHEMA,
                         "format must be \"" STR_FMT "\": the document of GET "
                         "/api/v1/sessions/{id}/export",
                         STR_ARG(SESSION_EXPORT_FORMAT));
    if (json_type(json_get(document, S("messages"))) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "messages must be an array");
    return true;
}

bool session_import(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct json *document, struct record *out, struct error *e)
{
    struct import *m = ARENA_NEW(ctx->arena, struct import);
    const struct json *session = json_get(document, S("session"));
    str agent = json_str_or(session, S("agent"), S("assistant"));
    struct copy_rules rules = {
        .user_id = principal->user_id,
        .role = principal->role,
        .action = S("session.import"),
    };
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not import sessions");
    if (!check_document(document, e))
        return false;
    const struct settings *settings = orchestrator_acquire(o);
    rules.budget = settings->session_budget;
    rules.agent = agent_set_find(settings->agents, agent) ? agent : S("assistant");
    orchestrator_release(settings);
    str from = json_str_or(session, S("id"), STR_NONE);
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, ctx->arena, 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("imported_from"), str_cut_utf8(from, UUID_TEXT_BYTES));
    json_object_end(&w);
    rules.metadata = strbuf_str(&text);
    *m = (struct import){
        .copy = {.o = o, .ctx = ctx, .principal = principal},
        .runs = json_get(document, S("runs")),
    };
    return copy_begin(&m->copy, &rules, e) &&
           import_messages(m, json_get(document, S("messages")), e) && copy_end(&m->copy, out, e);
}
