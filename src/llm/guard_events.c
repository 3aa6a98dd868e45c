/*
 * streamed events of a dialect through the filter
 *
 * A text whose rest is held keeps the last event it came in, printed with an empty text and the place where the text goes: so the rest
 * can be sent as one more event of the same kind.
 */
#include "llm/guard_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <stdlib.h>

struct text_entry {
    uint32_t id;
    bool is_open;
    int64_t index; /* of choice, block or item; see index_of */
    struct guard_channel channel;
    char *event; /* with an empty text */
    size_t event_len, text_at;
};
struct guard_events {
    struct guard_watch watch;
    struct text_entry *entries;
    size_t count, capacity;
};

struct guard_events *guard_events_create(const struct guard_rules *rules,
                                         const struct guard_sink *sink)
{
    ensure(guard_is_on(rules, GUARD_REPLY));
    struct guard_events *events = calloc(1, sizeof *events);
    ensure(events);
    guard_watch_init(&events->watch, rules, GUARD_REPLY, sink);
    return events;
}

void guard_events_destroy(struct guard_events *events)
{
    if (!events)
        return;
    for (size_t i = 0; i < events->count; i++) {
        guard_channel_deinit(&events->entries[i].channel);
        free(events->entries[i].event);
    }
    free(events->entries);
    free(events);
}

/* ---- which texts an event ends ---- */

enum { INDEX_ALL = -1 };

/* Choices, blocks and items are numbered; an event without a number is about all of them. */
static int64_t index_of(const struct json *event)
{
    const struct json *choice = json_at(json_get(event, S("choices")), 0);
    return json_i64_or(choice, S("index"),
                       json_i64_or(event, S("index"),
                                   json_i64_or(event, S("output_index"), choice ? 0 : INDEX_ALL)));
}

/* Anything else, a ping in the middle of a word above all, ends nothing. */
static bool ends_texts(const struct json *event)
{
    static const str whole[] = {S_INIT("content_block_stop"), S_INIT("message_delta"),
                                S_INIT("message_stop"), S_INIT("error")};
    static const str tails[] = {S_INIT(".done"), S_INIT(".completed"), S_INIT(".incomplete"),
                                S_INIT(".failed")};
    str type = json_str_or(event, S("type"), STR_NONE);
    for (size_t i = 0; i < ARRAY_COUNT(whole); i++)
        if (str_equal(type, whole[i]) || str_ends_with(type, tails[i]))
            return true;
    const struct json *choice;
    struct json_iter it = json_iter(json_get(event, S("choices")));
    while (json_next(&it, NULL, &choice))
        if (json_type(json_get(choice, S("finish_reason"))) == JSON_STRING)
            return true;
    return false;
}

/* ---- entries ---- */

static struct text_entry *entry_of(struct guard_events *events, const struct dialect_text *text,
                                   struct error *e)
{
    for (size_t i = 0; i < events->count; i++)
        if (events->entries[i].id == text->channel)
            return &events->entries[i];
    if (events->count == GUARD_CHANNELS_MAX) {
        error_set(e, REASON_TOO_LARGE, "the model's answer has more than %u texts",
                  GUARD_CHANNELS_MAX);
        return NULL;
    }
    if (events->count == events->capacity) {
        events->capacity = events->capacity ? 2 * events->capacity : 2;
        events->entries = realloc(events->entries, events->capacity * sizeof *events->entries);
        ensure(events->entries);
    }
    struct text_entry *entry = &events->entries[events->count++];
    *entry = (struct text_entry){.id = text->channel};
    guard_channel_init(&entry->channel, events->watch.rules->sets[GUARD_REPLY], text->is_json);
    return entry;
}

/* The text of the printed event is found by a mark that JSON text cannot hold by chance: a NUL is escaped, so the bytes are unique. */
static bool keep_event(struct text_entry *entry, struct arena *scratch, const struct json *event,
                       const struct dialect_text *texts, size_t count, size_t own, struct error *e)
{
    static const char mark[] = "\0guard\0";
    struct strbuf out;
    struct json_writer w;
    struct guard_replacement *replacements =
        ARENA_ARRAY(scratch, struct guard_replacement, count + 1);
    size_t replacement_count = 0;
    for (size_t i = 0; i < count; i++)
        if (!texts[i].is_whole)
            replacements[replacement_count++] = (struct guard_replacement){
                texts[i].value, i == own ? str_of(mark, sizeof mark - 1) : STR_NONE};
    strbuf_init(&out, scratch, SIZE_MAX);
    json_writer_init(&w, &out);
    if (!guard_print(&w, event, replacements, replacement_count, true, e))
        return false;
    str printed = strbuf_str(&out), escaped = S("\\u0000guard\\u0000");
    size_t at = str_find(printed, escaped);
    ensure(at != STR_NOT_FOUND);
    entry->event = realloc(entry->event, printed.len);
    ensure(entry->event);
    entry->event_len = printed.len - escaped.len;
    entry->text_at = at;
    memcpy(entry->event, printed.ptr, at);
    memcpy(entry->event + at, printed.ptr + at + escaped.len, entry->event_len - at);
    return true;
}

static bool end_entry(struct guard_events *events, struct text_entry *entry, struct arena *scratch,
                      guard_emit *emit, void *owner, struct error *e)
{
    struct strbuf rest, quoted, out;
    struct json_writer w;
    strbuf_init(&rest, scratch, SIZE_MAX);
    strbuf_init(&quoted, scratch, SIZE_MAX);
    strbuf_init(&out, scratch, SIZE_MAX);
    bool is_open = guard_channel_end(&entry->channel, &events->watch, &rest);
    entry->is_open = false;
    if (rest.len > 0 && entry->event) {
        json_writer_init(&w, &quoted);
        json_write_str(&w, strbuf_str(&rest));
        strbuf_add(&out, str_of(entry->event, entry->text_at));
        strbuf_add(&out, str_slice(strbuf_str(&quoted), 1, quoted.len - 1));
        strbuf_add(&out, str_of(entry->event + entry->text_at, entry->event_len - entry->text_at));
        emit(owner, strbuf_str(&out));
    }
    free(entry->event);
    entry->event = NULL;
    return is_open || guard_watch_error(&events->watch, e);
}

static bool end_entries(struct guard_events *events, int64_t index, struct arena *scratch,
                        guard_emit *emit, void *owner, struct error *e)
{
    for (size_t i = 0; i < events->count; i++) {
        struct text_entry *entry = &events->entries[i];
        if (entry->is_open && (index == INDEX_ALL || entry->index == index) &&
            !end_entry(events, entry, scratch, emit, owner, e))
            return false;
    }
    return true;
}

bool guard_events_end(struct guard_events *events, struct arena *scratch, guard_emit *emit,
                      void *owner, struct error *e)
{
    return end_entries(events, INDEX_ALL, scratch, emit, owner, e);
}

/* ---- one event ---- */

struct event_work {
    struct guard_events *events;
    struct arena *scratch;
    const struct json *event;
    const struct dialect_text *texts;
    size_t count;
    struct guard_replacement *replacements;
    size_t replacement_count;
    bool ends, had_text, has_text;
    struct error blocked; /* code OK: nothing */
};

static bool filter_whole_text(struct event_work *w, const struct dialect_text *text, str value,
                              struct strbuf *out)
{
    struct guard_channel channel;
    guard_channel_init(&channel, w->events->watch.rules->sets[GUARD_REPLY], text->is_json);
    bool is_open = guard_channel_feed(&channel, &w->events->watch, value, out) &&
                   guard_channel_end(&channel, &w->events->watch, out);
    guard_channel_deinit(&channel);
    return is_open;
}

/* False: *e is not about a block. */
static bool filter_event_text(struct event_work *w, size_t i, struct error *e)
{
    const struct dialect_text *text = &w->texts[i];
    struct strbuf out;
    str value;
    bool is_open;
    if (!json_to_str(text->value, &value))
        return true;
    strbuf_init(&out, w->scratch, SIZE_MAX);
    if (text->is_whole) {
        is_open = filter_whole_text(w, text, value, &out);
        w->has_text = true; /* it is a statement about the whole, even when it is empty */
    } else {
        struct text_entry *entry = entry_of(w->events, text, e);
        if (!entry)
            return false;
        entry->index = index_of(w->event);
        entry->is_open = true;
        is_open = guard_channel_feed(&entry->channel, &w->events->watch, value, &out);
        if (is_open && w->ends)
            is_open = guard_channel_end(&entry->channel, &w->events->watch, &out);
        entry->is_open = is_open && !w->ends;
        if (entry->is_open && guard_channel_holds(&entry->channel) &&
            !keep_event(entry, w->scratch, w->event, w->texts, w->count, i, e))
            return false;
    }
    w->had_text = w->had_text || value.len > 0;
    w->has_text = w->has_text || out.len > 0;
    if (!str_equal(strbuf_str(&out), value))
        w->replacements[w->replacement_count++] =
            (struct guard_replacement){text->value, strbuf_str(&out)};
    if (!is_open)
        guard_watch_error(&w->events->watch, &w->blocked);
    return true;
}

/* Says nothing but its text: a delta of a block or item; a chunk of one choice whose delta is that text alone. */
static bool is_only_text(const struct json *event)
{
    str key;
    const struct json *value;
    str type = json_str_or(event, S("type"), STR_NONE);
    if (str_ends_with(type, S("_delta")) || str_ends_with(type, S(".delta")))
        return true;
    const struct json *choices = json_get(event, S("choices"));
    const struct json *delta = json_get(json_at(choices, 0), S("delta"));
    struct json_iter it = json_iter(delta);
    return json_count(choices) == 1 && json_count(delta) == 1 && json_next(&it, &key, &value) &&
           json_type(value) == JSON_STRING && !str_equal(key, S("role")) &&
           json_type(json_get(event, S("usage"))) != JSON_OBJECT;
}

static bool emit_event(struct event_work *w, guard_emit *emit, void *owner, struct error *e)
{
    struct strbuf out;
    struct json_writer writer;
    bool is_blocked = w->blocked.code != ERROR_OK;
    if (!w->has_text && (is_blocked || (w->had_text && !w->ends && is_only_text(w->event))))
        return true;
    strbuf_init(&out, w->scratch, SIZE_MAX);
    json_writer_init(&writer, &out);
    if (!guard_print(&writer, w->event, w->replacements, w->replacement_count, true, e))
        return false;
    emit(owner, strbuf_str(&out));
    return true;
}

bool guard_event(struct guard_events *events, struct arena *scratch, const struct json *event,
                 const struct dialect_text *texts, size_t count, guard_emit *emit, void *owner,
                 struct error *e)
{
    struct event_work w = {.events = events,
                           .scratch = scratch,
                           .event = event,
                           .texts = texts,
                           .count = count,
                           .ends = ends_texts(event),
                           .replacements =
                               ARENA_ARRAY(scratch, struct guard_replacement, count + 1)};
    bool has_pieces = false;
    for (size_t i = 0; i < count; i++)
        has_pieces = has_pieces || !texts[i].is_whole;
    /* An event that ends texts and has none of its own pieces comes after their rest; one that has some takes it along. */
    if (w.ends && !has_pieces && !end_entries(events, index_of(event), scratch, emit, owner, e))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (w.blocked.code != ERROR_OK) /* nothing behind a block */
            w.replacements[w.replacement_count++] =
                (struct guard_replacement){texts[i].value, STR_NONE};
        else if (!filter_event_text(&w, i, e))
            return false;
    }
    if (w.ends && has_pieces && w.blocked.code == ERROR_OK &&
        !end_entries(events, index_of(event), scratch, emit, owner, e))
        return false;
    if (!emit_event(&w, emit, owner, e))
        return false;
    return w.blocked.code == ERROR_OK || error_copy(e, &w.blocked);
}
