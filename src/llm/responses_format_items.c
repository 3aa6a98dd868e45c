/* input items -> messages */
#include "base/arena.h"
#include "llm/responses_format_internal.h"

/* Where we are, for messages: "input[2].content[0]". */
struct place {
    size_t item;
    const char *member; /* of the item, or NULL */
    size_t part;
};

static bool fail(const struct place *place, enum error_reason reason, struct error *e,
                 const char *what)
{
    if (!place->member)
        return error_set(e, reason, "input[%zu]%s", place->item, what);
    return error_set(e, reason, "input[%zu].%s[%zu]%s", place->item, place->member, place->part,
                     what);
}

/* ---- messages in work ---- */

struct messages {
    struct arena *arena;
    struct prompt_message *items;
    size_t count;
    size_t part_room; /* of the last message */
    /* Images of tools' results: behind the results they are a message of the user's. */
    struct part *images;
    size_t image_count, image_room;
};

static struct prompt_message *add_message(struct messages *m, enum role role, size_t part_room)
{
    struct prompt_message *message = &m->items[m->count++];
    message->role = role;
    message->parts = ARENA_ARRAY(m->arena, struct part, part_room);
    m->part_room = part_room;
    return message;
}

static bool has_kind(const struct prompt_message *message, enum part_kind kind)
{
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind == kind)
            return true;
    return false;
}

/* What an answer was made of stands in items of its own; here it is one message again.  Two texts in a row were two answers. */
static struct prompt_message *assistant(struct messages *m, size_t more, bool is_message)
{
    struct prompt_message *last = m->count > 0 ? &m->items[m->count - 1] : NULL;
    bool joins = last && last->role == ROLE_ASSISTANT;
    if (joins && is_message && has_kind(last, PART_TEXT) && !has_kind(last, PART_TOOL_CALL))
        joins = false;
    if (!joins)
        return add_message(m, ROLE_ASSISTANT, more + 4);
    if (last->part_count + more > m->part_room) {
        size_t room = 2 * (last->part_count + more);
        struct part *parts = ARENA_ARRAY(m->arena, struct part, room);
        memcpy(parts, last->parts, last->part_count * sizeof *parts);
        last->parts = parts;
        m->part_room = room;
    }
    return last;
}

/* ---- content ---- */

static bool read_image(struct arena *arena, const struct json *item, const struct place *place,
                       struct part *out, struct error *e)
{
    const struct json *detail = json_get(item, S("detail"));
    *out = (struct part){.kind = PART_IMAGE};
    if (!json_to_str(json_get(item, S("image_url")), &out->text))
        return responses_is_given(item, S("file_id"))
                   ? fail(place, REASON_UNSUPPORTED, e,
                          ".file_id: uploaded files exist only for targets that speak the "
                          "Responses API; send image_url")
                   : fail(place, REASON_SCHEMA, e, ".image_url must be a string");
    if (json_type(detail) == JSON_STRING)
        out->opaque = json_print(arena, detail);
    return true;
}

static bool read_content_part(struct arena *arena, const struct json *item,
                              const struct place *place, struct part *out, struct error *e)
{
    str type = json_str_or(item, S("type"), STR_NONE);
    *out = (struct part){.kind = PART_TEXT};
    if (str_equal(type, S("input_text")) || str_equal(type, S("output_text")) ||
        str_equal(type, S("text")))
        return json_to_str(json_get(item, S("text")), &out->text) ||
               fail(place, REASON_SCHEMA, e, ".text must be a string");
    if (str_equal(type, S("refusal"))) {
        out->opaque = OPENAI_MEMBER_REFUSAL;
        return json_to_str(json_get(item, S("refusal")), &out->text) ||
               fail(place, REASON_SCHEMA, e, ".refusal must be a string");
    }
    if (str_equal(type, S("input_image")))
        return read_image(arena, item, place, out, e);
    if (str_equal(type, S("input_file")))
        return openai_make_file(arena, json_str_or(item, S("file_data"), STR_NONE),
                                json_str_or(item, S("filename"), STR_NONE), out) ||
               fail(place, REASON_UNSUPPORTED, e,
                    ": a file by id or address, and any but a PDF as a data: URL in file_data, "
                    "is understood only by targets that speak the Responses API");
    return fail(place, REASON_SCHEMA, e,
                ".type must be input_text, input_image, output_text or refusal");
}

static size_t content_count(const struct json *content)
{
    return json_type(content) == JSON_ARRAY ? json_count(content) : 1;
}

static bool read_content(struct arena *arena, const struct json *content, struct place *place,
                         struct prompt_message *out, struct error *e)
{
    str text;
    const struct json *item;
    if (json_to_str(content, &text)) {
        out->parts[out->part_count++] = (struct part){.kind = PART_TEXT, .text = text};
        return true;
    }
    if (json_type(content) != JSON_ARRAY)
        return fail(place, REASON_SCHEMA, e, ".content must be a string or a list of parts");
    place->member = "content";
    struct json_iter it = json_iter(content);
    while (json_next(&it, NULL, &item)) {
        if (!read_content_part(arena, item, place, &out->parts[out->part_count], e))
            return false;
        out->part_count++;
        place->part++;
    }
    *place = (struct place){.item = place->item};
    return true;
}

/* ---- items ---- */

static bool read_message(struct messages *m, const struct json *item, struct place *place,
                         struct error *e)
{
    const struct json *content = json_get(item, S("content"));
    size_t count = content_count(content);
    enum role role;
    if (!role_parse(json_str_or(item, S("role"), STR_NONE), &role) || role == ROLE_TOOL)
        return fail(place, REASON_SCHEMA, e, ".role must be user, assistant, system or developer");
    if (count > PROMPT_PARTS_MAX)
        return fail(place, REASON_SCHEMA, e, " has too many parts");
    struct prompt_message *out =
        role == ROLE_ASSISTANT ? assistant(m, count, true) : add_message(m, role, count + 1);
    return read_content(m->arena, content, place, out, e);
}

static bool read_call(struct messages *m, const struct json *item, struct place *place,
                      struct error *e)
{
    struct part part = {.kind = PART_TOOL_CALL};
    if (!json_to_str(json_get(item, S("call_id")), &part.call_id) || part.call_id.len == 0)
        return fail(place, REASON_SCHEMA, e, ".call_id must be a string");
    if (!json_to_str(json_get(item, S("name")), &part.name) || part.name.len == 0)
        return fail(place, REASON_SCHEMA, e, ".name must be a string");
    if (!json_to_str(json_get(item, S("arguments")), &part.arguments))
        return fail(place, REASON_SCHEMA, e, ".arguments must be a string");
    struct prompt_message *out = assistant(m, 1, false);
    if (out->part_count >= PROMPT_PARTS_MAX)
        return fail(place, REASON_SCHEMA, e, ": too many items stand together");
    out->parts[out->part_count++] = part;
    return true;
}

static void make_room(struct messages *m, size_t more)
{
    if (m->image_count + more <= m->image_room)
        return;
    size_t room = 2 * (m->image_count + more);
    m->images = arena_grow(m->arena, m->images, m->image_room * sizeof *m->images,
                           room * sizeof *m->images);
    m->image_room = room;
}

/* When what follows is no result any more. */
static void end_results(struct messages *m)
{
    if (m->image_count == 0)
        return;
    struct prompt_message *user = add_message(m, ROLE_USER, m->image_count);
    memcpy(user->parts, m->images, m->image_count * sizeof *m->images);
    user->part_count = m->image_count;
    m->image_count = 0;
}

static bool read_output(struct messages *m, const struct json *item, struct place *place,
                        struct error *e)
{
    const struct json *output = json_get(item, S("output")), *content;
    struct prompt_message texts = {0};
    struct part result = {.kind = PART_TOOL_RESULT};
    if (!json_to_str(json_get(item, S("call_id")), &result.call_id) || result.call_id.len == 0)
        return fail(place, REASON_SCHEMA, e, ".call_id must be a string");
    if (!json_to_str(output, &result.text)) {
        if (json_type(output) != JSON_ARRAY || json_count(output) > PROMPT_PARTS_MAX)
            return fail(place, REASON_SCHEMA, e, ".output must be a string or a list of parts");
        texts.parts = ARENA_ARRAY(m->arena, struct part, json_count(output) + 1);
        make_room(m, json_count(output));
        place->member = "output";
        struct json_iter it = json_iter(output);
        while (json_next(&it, NULL, &content)) {
            struct part *part = &texts.parts[texts.part_count++];
            if (!read_content_part(m->arena, content, place, part, e))
                return false;
            if (part->kind == PART_IMAGE) {
                part->call_id = result.call_id;
                m->images[m->image_count++] = *part;
                texts.part_count--;
            }
            place->part++;
        }
        *place = (struct place){.item = place->item};
        result.text = prompt_message_text(m->arena, &texts);
    }
    result.name = prompt_call_name(m->items, m->count, result.call_id);
    result.is_error = str_equal(json_str_or(item, S("status"), STR_NONE), S("incomplete"));
    struct prompt_message *out = add_message(m, ROLE_TOOL, 1);
    out->parts[out->part_count++] = result;
    return true;
}

/* ---- reasoning ---- */

static void add_texts(struct strbuf *out, const struct json *list)
{
    const struct json *item;
    struct json_iter it = json_iter(json_type(list) == JSON_ARRAY ? list : NULL);
    while (json_next(&it, NULL, &item)) {
        if (out->len > 0)
            strbuf_add(out, S("\n\n"));
        strbuf_add(out, json_str_or(item, S("text"), STR_NONE));
    }
}

/* What we sealed came back through a client's hands: adapters write it as it is, so it has to be one JSON value. */
static bool is_sound(struct arena *arena, str opaque)
{
    const struct json *tree;
    struct error ignored = {0};
    str item;
    arena_mark mark = arena_save(arena);
    bool ok = !responses_item_of_opaque(opaque, &item) &&
              json_parse(arena, opaque, (struct json_limits){0}, &tree, &ignored);
    arena_rewind(arena, mark);
    return ok;
}

struct part responses_read_reasoning(struct arena *arena, const struct json *item)
{
    struct strbuf text;
    str sealed = json_str_or(item, S("encrypted_content"), STR_NONE), ours;
    const struct json *content = json_get(item, S("content"));
    strbuf_init(&text, arena, PROVIDER_ANSWER_BYTES_MAX);
    add_texts(&text, json_count(content) > 0 ? content : json_get(item, S("summary")));
    struct part part = {.kind = PART_REASONING, .text = strbuf_str(&text)};
    if (str_strip_prefix(sealed, RESPONSES_OPAQUE_PREFIX, &ours))
        part.opaque = is_sound(arena, ours) ? ours : STR_NONE;
    else
        part.opaque = responses_item_opaque(arena, json_print(arena, item));
    return part;
}

static bool read_reasoning(struct messages *m, const struct json *item, struct place *place,
                           struct error *e)
{
    struct prompt_message *out = assistant(m, 1, false);
    if (out->part_count >= PROMPT_PARTS_MAX)
        return fail(place, REASON_SCHEMA, e, ": too many items stand together");
    out->parts[out->part_count++] = responses_read_reasoning(m->arena, item);
    return true;
}

/* ---- the list ---- */

static bool read_item(struct messages *m, const struct json *item, size_t index, struct error *e)
{
    struct place place = {.item = index};
    if (json_type(item) != JSON_OBJECT)
        return fail(&place, REASON_SCHEMA, e, " must be an object");
    bool is_message = responses_is_given(item, S("role"));
    bool is_reference = !is_message && !responses_is_given(item, S("type"));
    str type = json_str_or(item, S("type"), is_reference ? S("item_reference") : S("message"));
    if (!str_equal(type, S("function_call_output")))
        end_results(m);
    if (str_equal(type, S("message")))
        return read_message(m, item, &place, e);
    if (str_equal(type, S("function_call")))
        return read_call(m, item, &place, e);
    if (str_equal(type, S("function_call_output")))
        return read_output(m, item, &place, e);
    if (str_equal(type, S("reasoning")))
        return read_reasoning(m, item, &place, e);
    if (str_equal(type, S("item_reference")))
        return fail(&place, REASON_UNSUPPORTED, e,
                    ": item references exist only for targets that speak the Responses API; send "
                    "the item itself, or previous_response_id");
    if (str_equal(type, S("mcp_approval_response")))
        return fail(&place, REASON_UNSUPPORTED, e,
                    ": approvals are decided by another person under /api/v1/approvals");
    return error_set(e, REASON_UNSUPPORTED,
                     "input[%zu]: items of type \"" STR_FMT
                     "\" are understood only by targets that "
                     "speak the Responses API",
                     index, STR_ARG(str_cut_utf8(type, 60)));
}

bool responses_read_messages(struct arena *arena, const struct json *body, struct prompt *out,
                             struct error *e)
{
    const struct json *input = json_get(body, S("input")), *item;
    str text;
    size_t total = json_type(input) == JSON_ARRAY ? json_count(input) : 1, index = 0;
    if (total > PROMPT_MESSAGES_MAX)
        return error_set(e, REASON_SCHEMA, "input: %zu items are too many, at most %d are possible",
                         total, PROMPT_MESSAGES_MAX);
    struct messages m = {.arena = arena,
                         .items = ARENA_ARRAY(arena, struct prompt_message, 2 * total + 2)};
    if (responses_is_given(body, S("instructions"))) {
        if (!json_to_str(json_get(body, S("instructions")), &text))
            return error_set(e, REASON_SCHEMA, "instructions must be a string");
        struct prompt_message *system = add_message(&m, ROLE_SYSTEM, 1);
        system->parts[system->part_count++] = (struct part){.kind = PART_TEXT, .text = text};
    }
    if (json_to_str(input, &text)) {
        struct prompt_message *user = add_message(&m, ROLE_USER, 1);
        user->parts[user->part_count++] = (struct part){.kind = PART_TEXT, .text = text};
    } else if (json_type(input) != JSON_ARRAY) {
        return error_set(e, REASON_SCHEMA, "input must be a string or a list of items");
    }
    struct json_iter it = json_iter(json_type(input) == JSON_ARRAY ? input : NULL);
    while (json_next(&it, NULL, &item))
        if (!read_item(&m, item, index++, e))
            return false;
    end_results(&m);
    if (m.count == 0)
        return error_set(e, REASON_SCHEMA, "input must hold at least one item");
    out->messages = m.items;
    out->message_count = m.count;
    return true;
}
