/* whole texts: prompts, replies, documents */
#include "llm/guard_internal.h"

#include "base/arena.h"
#include "base/map.h"

#include <stdlib.h>

/* ---- texts ---- */

struct whole {
    struct arena *arena;
    struct guard_watch watch;
    struct guard_channel channel; /* used again for each text */
};

static void whole_init(struct whole *w, struct arena *arena, const struct guard_rules *rules,
                       enum guard_direction direction, const struct guard_sink *sink)
{
    w->arena = arena;
    guard_watch_init(&w->watch, rules, direction, sink);
    guard_channel_init(&w->channel, rules->sets[direction], false);
}

/* *text stays as it is when nothing is masked in it. */
static bool filter_whole(struct whole *w, str *text, bool is_json, struct error *e)
{
    struct strbuf out;
    if (text->len == 0)
        return true;
    arena_mark mark = arena_save(w->arena);
    strbuf_init(&out, w->arena, SIZE_MAX);
    (void) !strbuf_reserve(&out, text->len + 1);
    w->channel.is_json = is_json;
    if (!guard_channel_feed(&w->channel, &w->watch, *text, &out) ||
        !guard_channel_end(&w->channel, &w->watch, &out))
        return guard_watch_error(&w->watch, e);
    if (str_equal(strbuf_str(&out), *text))
        arena_rewind(w->arena, mark);
    else
        *text = strbuf_str(&out);
    return true;
}

static bool filter_part(struct whole *w, struct part *part, struct error *e)
{
    switch (part->kind) {
    case PART_TEXT:
    case PART_REASONING:
    case PART_TOOL_RESULT: return filter_whole(w, &part->text, false, e);
    case PART_TOOL_CALL: return filter_whole(w, &part->arguments, true, e);
    case PART_IMAGE: break; /* a URL or bytes */
    }
    return true;
}

static bool filter_one(struct arena *arena, const struct guard_rules *rules,
                       const struct guard_sink *sink, enum guard_direction direction, bool is_json,
                       str *text, struct error *e)
{
    struct whole w;
    if (!guard_is_on(rules, direction))
        return true;
    whole_init(&w, arena, rules, direction, sink);
    bool ok = filter_whole(&w, text, is_json, e);
    guard_channel_deinit(&w.channel);
    return ok;
}

bool guard_text(struct arena *arena, const struct guard_rules *rules, const struct guard_sink *sink,
                enum guard_direction direction, str text, str *out, struct error *e)
{
    *out = text;
    return filter_one(arena, rules, sink, direction, false, out, e);
}

bool guard_json_text(struct arena *arena, const struct guard_rules *rules,
                     const struct guard_sink *sink, enum guard_direction direction, str json,
                     str *out, struct error *e)
{
    *out = json;
    return filter_one(arena, rules, sink, direction, true, out, e);
}

bool guard_part(struct arena *arena, const struct guard_rules *rules, const struct guard_sink *sink,
                enum guard_direction direction, struct part *part, struct error *e)
{
    struct whole w;
    if (!guard_is_on(rules, direction))
        return true;
    whole_init(&w, arena, rules, direction, sink);
    bool ok = filter_part(&w, part, e);
    guard_channel_deinit(&w.channel);
    return ok;
}

bool guard_prompt(struct arena *arena, const struct guard_rules *rules,
                  const struct guard_sink *sink, struct prompt *prompt, struct error *e)
{
    struct whole w;
    bool ok = true;
    if (!guard_is_on(rules, GUARD_REQUEST))
        return true;
    whole_init(&w, arena, rules, GUARD_REQUEST, sink);
    for (size_t i = 0; ok && i < prompt->message_count; i++)
        for (size_t j = 0; ok && j < prompt->messages[i].part_count; j++)
            ok = filter_part(&w, &prompt->messages[i].parts[j], e);
    guard_channel_deinit(&w.channel);
    return ok;
}

bool guard_reply(struct arena *arena, const struct guard_rules *rules,
                 const struct guard_sink *sink, struct reply *reply, struct error *e)
{
    struct whole w;
    bool ok = true;
    if (!guard_is_on(rules, GUARD_REPLY))
        return true;
    whole_init(&w, arena, rules, GUARD_REPLY, sink);
    for (size_t i = 0; ok && i < reply->part_count; i++)
        ok = filter_part(&w, &reply->parts[i], e);
    guard_channel_deinit(&w.channel);
    return ok;
}

/* ---- documents ---- */

static int by_value(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) ((const struct guard_replacement *) a)->value;
    uintptr_t y = (uintptr_t) ((const struct guard_replacement *) b)->value;
    return x < y ? -1 : x > y;
}

/*
 * Members of an object without those whose key was there before.  Of two equal keys we look at the first one, and others may take the
 * last: so the last one must not go out.
 */
struct members {
    const struct json *object;
    struct json_iter it;
    struct map *seen; /* of large objects */
};
enum { FEW_MEMBERS = 16 };

static struct members members_of(const struct json *object)
{
    struct members members = {.object = object, .it = json_iter(object)};
    if (json_count(object) > FEW_MEMBERS)
        members.seen = map_create();
    return members;
}

/* *is_first false: the member is not to be used. */
static bool members_next(struct members *members, str *key, const struct json **item,
                         bool *is_first)
{
    static char mark;
    if (!json_next(&members->it, key, item)) {
        map_destroy(members->seen);
        return false;
    }
    *is_first = members->seen ? !map_put(members->seen, *key, &mark)
                              : json_get(members->object, *key) == *item;
    return true;
}

/* Does it hold what may not go out, even when no text was changed? */
static bool must_print(const struct json *tree, bool is_reply)
{
    str key;
    const struct json *item;
    bool is_first, is_found = false;
    if (json_type(tree) == JSON_ARRAY) {
        struct json_iter it = json_iter(tree);
        while (!is_found && json_next(&it, NULL, &item))
            is_found = must_print(item, is_reply);
        return is_found;
    }
    if (json_type(tree) != JSON_OBJECT)
        return false;
    struct members members = members_of(tree);
    while (members_next(&members, &key, &item, &is_first)) {
        bool is_logprobs =
            is_reply && str_equal(key, S("logprobs")) && json_type(item) != JSON_NULL;
        is_found = is_found || !is_first || is_logprobs || must_print(item, is_reply);
    }
    return is_found;
}

struct printer {
    struct json_writer *w;
    const struct guard_replacement *replacements;
    size_t count, depth;
    bool is_reply, is_too_deep;
};

enum { PRINT_DEPTH_MAX = 60 }; /* a writer's is 63, of which the caller may have used some */

static void print_node(struct printer *p, const struct json *node)
{
    str key;
    const struct json *item;
    enum json_type type = json_type(node);
    struct guard_replacement wanted = {node, {0}};
    const struct guard_replacement *found = NULL;
    if (type == JSON_STRING && p->count > 0)
        found = bsearch(&wanted, p->replacements, p->count, sizeof wanted, by_value);
    if (found) {
        json_write_str(p->w, found->text);
        return;
    }
    if (type != JSON_OBJECT && type != JSON_ARRAY) {
        json_write_value(p->w, node);
        return;
    }
    if (p->depth == PRINT_DEPTH_MAX) {
        p->is_too_deep = true;
        json_write_null(p->w);
        return;
    }
    p->depth++;
    if (type == JSON_ARRAY) {
        struct json_iter it = json_iter(node);
        json_array_begin(p->w);
        while (json_next(&it, NULL, &item))
            print_node(p, item);
        json_array_end(p->w);
        p->depth--;
        return;
    }
    bool is_first;
    struct members members = members_of(node);
    json_object_begin(p->w);
    while (members_next(&members, &key, &item, &is_first)) {
        if (!is_first)
            continue;
        json_key(p->w, key);
        if (p->is_reply && str_equal(key, S("logprobs")))
            json_write_null(p->w);
        else
            print_node(p, item);
    }
    json_object_end(p->w);
    p->depth--;
}

bool guard_print(struct json_writer *w, const struct json *tree,
                 struct guard_replacement *replacements, size_t count, bool is_reply,
                 struct error *e)
{
    struct printer p = {.w = w, .replacements = replacements, .count = count, .is_reply = is_reply};
    qsort(replacements, count, sizeof *replacements, by_value);
    print_node(&p, tree);
    if (p.is_too_deep)
        return error_set(e, REASON_TOO_LARGE, "the content filter takes JSON of at most %d levels",
                         PRINT_DEPTH_MAX);
    return true;
}

bool guard_json(struct arena *arena, const struct guard_rules *rules, const struct guard_sink *sink,
                enum guard_direction direction, const struct json *tree,
                const struct dialect_text *texts, size_t count, str *out, bool *changed,
                struct error *e)
{
    struct whole w;
    bool ok = true;
    size_t new_count = 0;
    *changed = false;
    if (!guard_is_on(rules, direction))
        return true;
    struct guard_replacement *replacements =
        ARENA_ARRAY(arena, struct guard_replacement, count + 1);
    whole_init(&w, arena, rules, direction, sink);
    for (size_t i = 0; ok && i < count; i++) {
        str text, old;
        if (!json_to_str(texts[i].value, &text))
            continue;
        old = text;
        ok = filter_whole(&w, &text, texts[i].is_json, e);
        if (text.ptr != old.ptr)
            replacements[new_count++] = (struct guard_replacement){texts[i].value, text};
    }
    guard_channel_deinit(&w.channel);
    bool is_reply = direction == GUARD_REPLY;
    if (!ok || (new_count == 0 && !must_print(tree, is_reply)))
        return ok;
    struct strbuf text;
    struct json_writer writer;
    strbuf_init(&text, arena, SIZE_MAX);
    json_writer_init(&writer, &text);
    if (!guard_print(&writer, tree, replacements, new_count, is_reply, e))
        return false;
    *out = strbuf_str(&text);
    *changed = true;
    return true;
}
