#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/replay/run_replay_internal.h"

void replay_differs(struct replay *r, int64_t seq, str what, str recorded, str replayed)
{
    struct replay_report *report = r->report;
    size_t index = report->difference_count++;
    if (index >= RUN_REPLAY_DIFFERENCES_MAX)
        return;
    report->differences[index] = (struct replay_difference){
        .seq = seq,
        .what = str_copy(r->arena, what),
        .recorded = str_copy(r->arena, recorded),
        .replayed = str_copy(r->arena, replayed),
    };
}

/* What was taken out before it was recorded can be counted by nobody any more; whose share of a budget it was does not come back. */
static bool is_uncounted(str member)
{
    return str_equal(member, S("payloads")) || str_equal(member, S("links_defused")) ||
           str_equal(member, S("shares"));
}

/* Members that older builds did not write: where the record lacks one, it is not missed. */
static const struct {
    enum event_type type;
    const char *member;
} later_members[] = {
    {EVENT_POLICY_DECIDED, "parent_id"},
    {EVENT_MESSAGE_SUMMARISED, "remaining"},
    {EVENT_MODEL_REQUESTED, "room"},
};

static bool is_later(const struct event *wanted, str member)
{
    for (size_t i = 0; i < ARRAY_COUNT(later_members); i++)
        if (wanted->type == later_members[i].type &&
            str_equal(member, str_from_cstr(later_members[i].member)) &&
            !json_get(wanted->data, member))
            return true;
    return false;
}

/* As it is compared with the recorded event `wanted`. */
static str print(struct arena *arena, const struct json *data, const struct event *wanted)
{
    struct strbuf text;
    struct json_writer w;
    struct json_iter it = json_iter(data);
    const struct json *item;
    str key;
    strbuf_init(&text, arena, 2 * SSE_EVENT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    while (json_next(&it, &key, &item))
        if (!is_uncounted(key) && !(wanted && is_later(wanted, key)))
            json_put_value(&w, key, item);
    json_object_end(&w);
    return strbuf_str(&text);
}

void replay_compare_event(struct replay *r, const struct event *event)
{
    const struct run_recording *record = r->record;
    str type = str_from_cstr(event_type_name(event->type));
    if (r->is_lost)
        return;
    r->report->compared++;
    if (r->open >= record->solid_count) {
        r->is_lost = true;
        replay_differs(r, event->seq, type, STR_NONE, print(r->arena, event->data, NULL));
        return;
    }
    const struct event *wanted = &record->solid[r->open];
    str recorded = print(r->arena, wanted->data, wanted),
        replayed = print(r->arena, event->data, wanted);
    if (wanted->type != event->type) {
        r->is_lost = true; /* nothing after it can be in its place */
        str name = str_from_cstr(event_type_name(wanted->type));
        replay_differs(r, wanted->seq, name,
                       str_printf(r->arena, STR_FMT " " STR_FMT, STR_ARG(name), STR_ARG(recorded)),
                       str_printf(r->arena, STR_FMT " " STR_FMT, STR_ARG(type), STR_ARG(replayed)));
        return;
    }
    if (!str_equal(recorded, replayed))
        replay_differs(r, wanted->seq, type, recorded, replayed);
}

/* ---- rows ---- */

static void compare_columns(struct replay *r, const char *what, const struct record *recorded,
                            const struct record *replayed, const int *columns, size_t count)
{
    const struct table_def *table = table_def(recorded->table);
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(recorded->values[0].id, id);
    for (size_t i = 0; i < count; i++) {
        str was = record_text(recorded, columns[i]),
            is = replayed ? record_text(replayed, columns[i]) : STR_NONE;
        const struct json *a, *b;
        struct error ignored = {0};
        bool is_json = table->columns[columns[i]].type == COLUMN_JSON && was.len > 0 && is.len > 0;
        if (is_json && json_parse(r->arena, was, (struct json_limits){0}, &a, &ignored) &&
            json_parse(r->arena, is, (struct json_limits){0}, &b, &ignored)) {
            was = json_print(r->arena, a);
            is = json_print(r->arena, b);
        }
        if (!str_equal(was, is))
            replay_differs(
                r, 0, str_printf(r->arena, "%s %s, %s", what, id, table->columns[columns[i]].name),
                was, is);
    }
}

static bool is_own(const struct replay *r, const struct record *row, int run_column, uuid id)
{
    if (!uuid_equal(record_uuid(row, run_column), r->record->run_id))
        return false;
    return recording_named(r->record, id) < r->next;
}

may_suspend_void static void compare_table(struct replay *r, struct context *ctx, const char *what,
                                           const struct recorded_rows *rows, int run_column,
                                           const int *columns, size_t count)
{
    for (size_t i = 0; i < rows->count; i++) {
        const struct record *recorded = &rows->items[i];
        struct record key = record_of(recorded->table), *row = ARENA_NEW(r->arena, struct record);
        struct error e = {0};
        uuid id = recorded->values[0].id;
        if (!is_own(r, recorded, run_column, id))
            continue;
        record_set_uuid(&key, 0, id);
        bool has_row = store_get(r->store, ctx, r->record->tenant_id, &key, row, &e);
        compare_columns(r, what, recorded, has_row ? row : NULL, columns, count);
    }
}

/* The text of an attempt's pieces, however they were cut. */
static str join(struct replay *r, const struct event *events, const struct delta_index *index,
                int64_t attempt)
{
    struct strbuf text;
    strbuf_init(&text, r->arena, MESSAGE_BYTES_MAX);
    for (size_t at = delta_index_next(index, attempt, 0); at > 0;
         at = delta_index_next(index, attempt, at))
        strbuf_add(&text, json_str_or(events[at - 1].data, S("text"), STR_NONE));
    return strbuf_str(&text);
}

may_suspend_void static void compare_deltas(struct replay *r, struct context *ctx)
{
    const struct run_recording *record = r->record;
    struct event *replayed = NULL;
    size_t count = 0, capacity = 0;
    int64_t after = 0;
    for (size_t read = STORE_PAGE_MAX; read == STORE_PAGE_MAX;) {
        struct events page;
        struct error e = {0};
        if (!journal_read(r->store, ctx, r->record->tenant_id, record->run_id, after,
                          STORE_PAGE_MAX, &page, &e))
            return;
        if (count + page.count > capacity) {
            size_t more = 2 * (count + page.count);
            replayed = arena_grow(r->arena, replayed, capacity * sizeof *replayed,
                                  more * sizeof *replayed);
            capacity = more;
        }
        for (size_t i = 0; i < page.count; i++)
            replayed[count++] = page.items[i];
        read = page.count;
        after = count > 0 ? replayed[count - 1].seq : 0;
    }
    struct delta_index index;
    delta_index_init(&index, r->arena, replayed, count);
    for (size_t attempt = 1; attempt < record->deltas.attempt_count; attempt++) {
        size_t first = record->deltas.first[attempt];
        if (first == 0)
            continue;
        str was = join(r, record->events, &record->deltas, (int64_t) attempt),
            is = join(r, replayed, &index, (int64_t) attempt);
        if (!str_equal(was, is))
            replay_differs(r, record->events[first - 1].seq, S("model.delta"), was, is);
    }
}

void replay_compare_rows(struct replay *r, struct context *ctx)
{
    static const int message_columns[] = {MESSAGES_ROLE, MESSAGES_CONTENT, MESSAGES_PARTS};
    static const int call_columns[] = {TOOL_CALLS_TOOL_NAME,     TOOL_CALLS_INPUT,
                                       TOOL_CALLS_OUTPUT,        TOOL_CALLS_STATUS,
                                       TOOL_CALLS_ERROR_MESSAGE, TOOL_CALLS_EFFECT_KEY};
    if (r->is_lost)
        return;
    compare_table(r, ctx, "message", &r->record->messages, MESSAGES_RUN_ID, message_columns,
                  ARRAY_COUNT(message_columns));
    compare_table(r, ctx, "tool call", &r->record->tool_calls, TOOL_CALLS_RUN_ID, call_columns,
                  ARRAY_COUNT(call_columns));
    compare_deltas(r, ctx);
}
