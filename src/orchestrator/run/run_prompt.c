#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/openai_format.h"
#include "orchestrator/replay/run_fork.h"
#include "orchestrator/run/run_context.h"
#include "orchestrator/run_answer_internal.h"
#include "orchestrator/run_internal.h"

/* ---- what is written ---- */

void run_message_row(struct record *row, struct run *run, uuid id, enum role role, str content,
                     int64_t tokens, str parts)
{
    record_set_uuid(row, MESSAGES_ID, id);
    record_set_uuid(row, MESSAGES_SESSION_ID, run->session_id);
    record_set_uuid(row, MESSAGES_RUN_ID, run->run_id);
    record_set_text(row, MESSAGES_ROLE, str_from_cstr(role_name(role)));
    record_set_text(row, MESSAGES_CONTENT, content);
    record_set_integer(row, MESSAGES_TOKENS, tokens);
    record_set_integer(row, MESSAGES_CREATED_AT, clock_unix_us(run->o->parts.clock));
    if (!str_is_empty(parts))
        record_set_text(row, MESSAGES_PARTS, parts);
}

/* ---- growing the conversation ---- */

void run_prompt_add(struct run *run, struct prompt_message message)
{
    if (run->message_count == run->message_capacity) {
        size_t capacity = run->message_capacity ? run->message_capacity * 2 : 16;
        run->items =
            arena_grow(run->arena, run->message_capacity ? run->items : NULL,
                       run->message_capacity * sizeof *run->items, capacity * sizeof *run->items);
        run->rows =
            arena_grow(run->arena, run->message_capacity ? run->rows : NULL,
                       run->message_capacity * sizeof *run->rows, capacity * sizeof *run->rows);
        run->messages =
            arena_grow(run->arena, run->messages, run->message_capacity * sizeof message,
                       capacity * sizeof message);
        run->message_capacity = capacity;
    }
    run->rows[run->message_count] = UUID_NONE;
    run->messages[run->message_count++] = message;
    run_label_added(run);
}

void run_prompt_rows(struct run *run, size_t first, uuid row)
{
    for (size_t i = first; i < run->message_count; i++)
        run->rows[i] = row;
    if (uuid_compare(row, run->newest_message_id) > 0)
        run->newest_message_id = row;
}

static struct prompt_message one_part(struct arena *arena, enum role role, struct part part)
{
    struct part *parts = ARENA_NEW(arena, struct part);
    *parts = part;
    return (struct prompt_message){.role = role, .parts = parts, .part_count = 1};
}

struct prompt_message run_prompt_tool_result(struct arena *arena, str call_id, str name,
                                             str content, bool is_error)
{
    str text = content.len > TOOL_RESULT_BYTES_MAX
                   ? context_shorten(arena, content, TOOL_RESULT_BYTES_MAX,
                                     S("; the whole result is kept: ask for less of it"))
                   : str_copy(arena, content);
    return one_part(arena, ROLE_TOOL,
                    (struct part){
                        .kind = PART_TOOL_RESULT,
                        .text = text,
                        .call_id = str_copy(arena, call_id),
                        .name = str_copy(arena, name),
                        .is_error = is_error,
                    });
}

str run_prompt_error_content(struct arena *arena, const struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, ERROR_MESSAGE_BYTES * 8);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, S("error"));
    json_object_begin(&w);
    json_put_str(&w, S("type"), str_from_cstr(error_problem(e->reason)));
    json_put_str(&w, S("message"), str_from_cstr(e->message));
    json_object_end(&w);
    json_object_end(&w);
    return strbuf_str(&text);
}

/* ---- rows -> messages ---- */

/* {"content": [OpenAI content parts]} of a user's row. */
static never_inline bool read_user_parts(struct run *run, str role, const struct json *parts,
                                         struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, run->turn, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    json_object_begin(&w);
    json_put_str(&w, S("role"), role);
    json_put_value(&w, S("content"), parts);
    json_object_end(&w);
    json_array_end(&w);
    const struct json *messages;
    struct prompt_message *read;
    size_t count;
    if (!json_parse(run->arena, strbuf_str(&text), (struct json_limits){0}, &messages, e) ||
        !openai_read_messages(run->arena, messages, &read, &count, e))
        return false;
    for (size_t i = 0; i < count; i++)
        run_prompt_add(run, read[i]);
    return true;
}

bool run_prompt_add_user(struct run *run, str content, str parts, struct error *e)
{
    const struct json *extra = NULL;
    if (!str_is_empty(parts) && !json_parse(run->turn, parts, (struct json_limits){0}, &extra, e))
        return false;
    if (json_get(extra, S("content")))
        return read_user_parts(run, S("user"), json_get(extra, S("content")), e);
    run_prompt_add(
        run, one_part(run->arena, ROLE_USER,
                      (struct part){.kind = PART_TEXT, .text = str_copy(run->arena, content)}));
    return true;
}

/* The result of one call as its row tells it; calls without an end are told as such, so that pairs stay whole. */
static never_inline void add_text_of_row(struct run *run, str call_id, str name,
                                         const struct record *row)
{
    str status = row ? record_text(row, TOOL_CALLS_STATUS) : S("unknown");
    str content;
    bool is_error;
    if (row && record_has(row, TOOL_CALLS_OUTPUT) &&
        str_equal(record_text(row, TOOL_CALLS_TOOL_VERSION), CLIENT_TOOL_VERSION) &&
        client_result_read(run->turn, record_text(row, TOOL_CALLS_OUTPUT), &content, &is_error,
                           NULL)) {
        run_guard_content(run, &content, &is_error);
        run_prompt_add(run, run_prompt_tool_result(run->arena, call_id, name, content, is_error));
        return;
    }
    if (str_equal(status, S("succeeded"))) {
        run_prompt_add(run, run_prompt_tool_result(run->arena, call_id, name,
                                                   record_text(row, TOOL_CALLS_OUTPUT), false));
        return;
    }
    struct error failure = {0};
    str message = row ? record_text(row, TOOL_CALLS_ERROR_MESSAGE) : STR_NONE;
    error_set(&failure, REASON_TOOL_FAILED, STR_FMT ": " STR_FMT, STR_ARG(status),
              STR_ARG(str_is_empty(message) ? S("no result") : message));
    run_prompt_add(run,
                   run_prompt_tool_result(run->arena, call_id, name,
                                          run_prompt_error_content(run->arena, &failure), true));
}

static void add_result_of_row(struct run *run, str call_id, str name, const struct record *row)
{
    add_text_of_row(run, call_id, name, row);
    if (!row)
        return;
    run_label_last(run, uuid_str(run->turn, record_uuid(row, TOOL_CALLS_ID)),
                   run_label_source(run->turn, name, record_text(row, TOOL_CALLS_INPUT)),
                   label_read_text(run->turn, record_text(row, TOOL_CALLS_LABEL), LABEL_TOOL));
}

static never_inline bool add_results(struct run *run, const struct json *calls, bool is_last_answer,
                                     struct error *e)
{
    struct json_iter it = json_iter(calls);
    const struct json *item;
    while (json_next(&it, NULL, &item)) {
        uuid id;
        if (!uuid_parse(json_str_or(item, S("tool_call_id"), STR_NONE), &id))
            return error_set(e, REASON_CORRUPT, "a message's tool call has no id");
        struct call *call = is_last_answer ? run_state_call(&run->state, id) : NULL;
        if (call && call->state != CALL_DONE)
            continue; /* comes when it is done */
        struct record key = record_of(TABLE_TOOL_CALLS), row;
        struct error missing = {0};
        record_set_uuid(&key, TOOL_CALLS_ID, id);
        bool has_row =
            store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, &row, &missing);
        if (!has_row && missing.code != ERROR_NOT_FOUND)
            return error_copy(e, &missing);
        add_result_of_row(run, json_str_or(item, S("call_id"), STR_NONE),
                          json_str_or(item, S("name"), STR_NONE), has_row ? &row : NULL);
    }
    return true;
}

/* An answer of ours covers all that it was made from, also what is not in memory any more; of one that a caller brought nothing is
   known. */
static void label_answer(struct run *run, const struct record *row, bool is_from_client)
{
    const struct json *metadata = NULL;
    struct label label = run->items[run->message_count - 1].label;
    bool is_read = record_has(row, MESSAGES_METADATA) &&
                   json_parse(run->turn, record_text(row, MESSAGES_METADATA),
                              (struct json_limits){0}, &metadata, NULL) &&
                   json_get(metadata, S("label"));
    if (!is_read && (is_from_client || run->is_history_cut))
        label = label_unknown(LABEL_AGENT);
    else if (is_read)
        label = label_join(label, label_read_json(json_get(metadata, S("label"))));
    run_label_last(run, uuid_str(run->turn, record_uuid(row, MESSAGES_ID)), S("assistant"), label);
}

/* What stands in the place of a person's words and is not theirs says so. */
static void label_question(struct run *run, const struct record *row, size_t first)
{
    const struct json *metadata;
    struct error unreadable;
    if (!record_has(row, MESSAGES_METADATA) ||
        !json_parse(run->turn, record_text(row, MESSAGES_METADATA), (struct json_limits){0},
                    &metadata, &unreadable) ||
        !json_get(metadata, S("label")))
        return;
    for (size_t i = first; i < run->message_count; i++)
        run->items[i].label = label_read_json(json_get(metadata, S("label")));
}

static bool add_message_of_row(struct run *run, const struct record *row, struct error *e)
{
    enum role role;
    str content = record_text(row, MESSAGES_CONTENT);
    if (!role_parse(record_text(row, MESSAGES_ROLE), &role))
        return error_set(e, REASON_CORRUPT, "message with the unknown role \"" STR_FMT "\"",
                         STR_ARG(record_text(row, MESSAGES_ROLE)));
    const struct json *extra = NULL;
    if (record_has(row, MESSAGES_PARTS) && !json_parse(run->turn, record_text(row, MESSAGES_PARTS),
                                                       (struct json_limits){0}, &extra, e))
        return false;
    const struct json *parts = json_get(extra, S("content"));
    if (role == ROLE_ASSISTANT) {
        bool is_from_client = json_bool_or(extra, S("from_client"), false);
        run_prompt_add(run, run_answer_read(run->arena, content, extra));
        label_answer(run, row, is_from_client);
        bool is_last = uuid_equal(record_uuid(row, MESSAGES_ID), run->state.answer_id);
        return is_from_client || add_results(run, json_get(extra, S("tool_calls")), is_last, e);
    }
    if (role == ROLE_TOOL) {
        run_prompt_add(
            run, run_prompt_tool_result(run->arena, json_str_or(extra, S("call_id"), STR_NONE),
                                        json_str_or(extra, S("name"), STR_NONE), content, false));
        return true;
    }
    size_t first = run->message_count;
    if (!parts)
        run_prompt_add(
            run, one_part(run->arena, role,
                          (struct part){.kind = PART_TEXT, .text = str_copy(run->arena, content)}));
    else if (!read_user_parts(run, str_from_cstr(role_name(role)), parts, e))
        return false;
    label_question(run, row, first);
    return true;
}

bool run_prompt_leaves_out(struct run *run, const struct record *row)
{
    const struct json *metadata;
    return record_has(row, MESSAGES_METADATA) &&
           json_parse(run->turn, record_text(row, MESSAGES_METADATA), (struct json_limits){0},
                      &metadata, NULL) &&
           (json_get(metadata, S("summary")) || json_bool_or(metadata, S("is_withdrawn"), false));
}

bool run_prompt_add_row(struct run *run, const struct record *row, struct error *e)
{
    size_t first = run->message_count;
    bool ok = run_prompt_leaves_out(run, row) || add_message_of_row(run, row, e);
    run_prompt_rows(run, first, record_uuid(row, MESSAGES_ID));
    return ok;
}

static void narrow(const struct session_span *span, struct query *query)
{
    if (!uuid_is_none(span->after))
        query->filters[query->filter_count++] = (struct filter){
            .column = MESSAGES_ID, .op = FILTER_GREATER, .value = {.id = span->after}};
    if (!uuid_is_none(span->before))
        query->filters[query->filter_count++] = (struct filter){
            .column = MESSAGES_ID, .op = FILTER_LESS, .value = {.id = span->before}};
}

/* A page at a time from the end. */
never_inline bool run_session_rows(struct run *run, const struct session_span *span,
                                   struct record *rows, size_t *count, struct error *e)
{
    struct query query = query_of(TABLE_MESSAGES);
    query_where_uuid(&query, MESSAGES_SESSION_ID, run->session_id);
    narrow(span, &query);
    query.is_descending = true; /* by id: UUIDv7, the order of creation */
    struct fork_walk walk = {.session_id = run->session_id};
    bool is_forked = record_has(&run->session, SESSIONS_FORKED_FROM);
    *count = 0;
    while (*count < span->max) {
        struct records page;
        query.limit = span->max - *count < STORE_PAGE_MAX ? span->max - *count : STORE_PAGE_MAX;
        if (!store_list(run->o->parts.store, &run->shield, run->tenant_id, &query, &page, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            rows[(*count)++] = page.items[i];
        query.cursor = page.next_cursor;
        if (!str_is_empty(page.next_cursor))
            continue;
        struct error failure = {0};
        if (!is_forked ||
            !fork_walk_next(run->o, &run->shield, run->tenant_id, &walk, &query, &failure))
            return failure.code == ERROR_OK || error_copy(e, &failure);
        narrow(span, &query);
    }
    return true;
}

static never_inline bool add_system(struct run *run, struct error *e)
{
    struct strbuf text;
    strbuf_init(&text, run->arena, 256 << 10);
    strbuf_add(&text, run->agent->instructions);
    struct records files;
    if (!session_file_rows(run->o, &run->shield, run->tenant_id, run->root_session_id, &files, e))
        return false;
    for (size_t i = 0; i < files.count; i++) {
        const struct record *file = &files.items[i];
        strbuf_printf(&text, STR_FMT STR_FMT " (%lld bytes, " STR_FMT ")",
                      STR_ARG(i == 0 ? S("\n\nFiles in this session: ") : S(", ")),
                      STR_ARG(record_text(file, SESSION_FILES_NAME)),
                      (long long) record_integer(file, SESSION_FILES_BYTES),
                      STR_ARG(record_has(file, SESSION_FILES_CONTENT_TYPE)
                                  ? record_text(file, SESSION_FILES_CONTENT_TYPE)
                                  : S("application/octet-stream")));
    }
    run->has_instructions = text.len > 0;
    run->file_list = str_from(strbuf_str(&text), run->agent->instructions.len);
    if (text.len > 0)
        run_prompt_add(run, one_part(run->arena, ROLE_SYSTEM,
                                     (struct part){.kind = PART_TEXT, .text = strbuf_str(&text)}));
    return true;
}

bool run_prompt_load(struct run *run, struct error *e)
{
    run->message_count = 0;
    struct record *rows = ARENA_ARRAY(run->turn, struct record, RUN_HISTORY_MESSAGES_MAX);
    size_t count;
    if (!add_system(run, e) || !run_summary_load(run, e))
        return false;
    struct session_span since = {.after = run->summary_to, .max = RUN_HISTORY_MESSAGES_MAX};
    if (!run_session_rows(run, &since, rows, &count, e))
        return false;
    run->is_history_cut = count == RUN_HISTORY_MESSAGES_MAX;
    /* A conversation that was cut must not begin with a tool's answer to a question that is no longer there. */
    while (count > 0 && count == RUN_HISTORY_MESSAGES_MAX &&
           str_equal(record_text(&rows[count - 1], MESSAGES_ROLE), S("tool")))
        count--;
    for (size_t i = count; i > 0; i--)
        if (!run_prompt_add_row(run, &rows[i - 1], e))
            return false;
    return true;
}
