#include "base/arena.h"
#include "base/timefmt.h"
#include "orchestrator/memory/memory_internal.h"

#define BUILT_IN_NOTE                                                                              \
    "no embedding model is configured: the built-in embedder finds shared words and stems, not "   \
    "meaning; set memory.embedding_model"

str memory_embedder(const struct memory *memory)
{
    return memory->built_in ? S("built-in") : memory->model;
}

/* ---- the stored form ---- */

static void write_members(struct json_writer *w, const struct memory_item *item)
{
    json_put_str(w, S("content"), item->content);
    if (!str_is_empty(item->metadata))
        json_put_raw(w, S("metadata"), item->metadata);
    json_key(w, S("label"));
    label_write_json(w, item->label);
}

str memory_record_text(struct arena *arena, const struct memory *memory,
                       const struct memory_item *item)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, VECTOR_METADATA_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_members(&w, item);
    json_put_str(&w, S("embedder"), memory_embedder(memory));
    json_object_end(&w);
    return strbuf_str(&text);
}

bool memory_record_read(struct arena *arena, const struct memory *memory,
                        const struct vector_point *point, struct memory_item *out)
{
    const struct json *tree;
    if (!json_parse(arena, point->metadata, (struct json_limits){0}, &tree, NULL) ||
        !str_equal(json_str_or(tree, S("embedder"), STR_NONE), memory_embedder(memory)))
        return false;
    const struct json *metadata = json_get(tree, S("metadata"));
    struct label label = label_read_json(json_get(tree, S("label")));
    *out = (struct memory_item){
        .id = point->id,
        .session_id = point->session_id,
        .user_id = point->user_id,
        .content = json_str_or(tree, S("content"), STR_NONE),
        .content_type = point->content_type,
        .metadata = metadata ? json_print(arena, metadata) : STR_NONE,
        .label = label_join(label, (struct label){.origins = LABEL_MEMORY, .is_private = true}),
        .timestamp_us = point->timestamp_us,
        .score = point->score,
    };
    return true;
}

/* ---- as callers see it ---- */

static void write_item(struct json_writer *w, struct arena *arena, const struct memory_item *item,
                       bool has_score)
{
    json_object_begin(w);
    json_put_str(w, S("id"), uuid_str(arena, item->id));
    json_key(w, S("session_id"));
    if (uuid_is_none(item->session_id))
        json_write_null(w);
    else
        json_write_str(w, uuid_str(arena, item->session_id));
    if (has_score)
        json_put_double(w, S("score"), item->score);
    write_members(w, item);
    json_put_str(w, S("content_type"), item->content_type);
    json_put_str(w, S("timestamp"), time_str(arena, item->timestamp_us));
    json_object_end(w);
}

void memory_item_write_json(struct json_writer *w, struct arena *arena,
                            const struct memory_item *item)
{
    write_item(w, arena, item, false);
}

void memory_answer_write_json(const struct memory *memory, struct json_writer *w,
                              struct arena *arena, const struct memory_answer *answer)
{
    json_key(w, S("results"));
    json_array_begin(w);
    for (size_t i = 0; i < answer->count; i++)
        write_item(w, arena, &answer->items[i], true);
    json_array_end(w);
    json_key(w, S("embedder"));
    json_object_begin(w);
    json_put_str(w, S("name"), memory_embedder(memory));
    json_put_str(w, S("kind"), memory->built_in ? S("built_in") : S("model"));
    if (memory->built_in)
        json_put_str(w, S("note"), S(BUILT_IN_NOTE));
    json_object_end(w);
    if (answer->left_out > 0)
        json_put_i64(w, S("left_out"), (int64_t) answer->left_out);
}
