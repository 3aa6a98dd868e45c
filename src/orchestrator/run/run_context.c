#include "orchestrator/run/run_context.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/strbuf.h"

/* ---- sizes ---- */

int64_t context_tokens(const struct prompt_message *messages, size_t count)
{
    struct prompt empty = {0}, prompt = {0};
    prompt.messages = (struct prompt_message *) (uintptr_t) messages;
    prompt.message_count = count;
    return prompt_input_tokens_bound(&prompt) - prompt_input_tokens_bound(&empty);
}

int64_t context_message_tokens(const struct prompt_message *message)
{
    return context_tokens(message, 1);
}

/* ---- where to cut ---- */

static bool is_pinned(const struct conversation *c, size_t place)
{
    return place == c->task || place == c->question;
}

bool context_stays(const struct conversation *c, size_t cut, size_t place)
{
    return place < c->first || place >= cut || is_pinned(c, place);
}

static int64_t fixed_tokens(const struct conversation *c)
{
    int64_t tokens = context_tokens(c->messages, c->first);
    for (size_t i = c->first; i < c->count; i++)
        if (is_pinned(c, i))
            tokens += context_message_tokens(&c->messages[i]);
    return tokens;
}

size_t context_cut(const struct conversation *c, const struct context_limits *limits,
                   const struct context_limits *kept)
{
    if (c->count - c->first <= limits->messages_max &&
        context_tokens(c->messages, c->count) <= limits->tokens_max)
        return c->first;
    int64_t tokens = fixed_tokens(c);
    size_t cut = c->count, messages = 0;
    for (size_t i = c->count; i > c->first; i--) {
        const struct prompt_message *message = &c->messages[i - 1];
        bool is_boundary = message->role != ROLE_TOOL;
        if (!is_pinned(c, i - 1))
            tokens += context_message_tokens(message);
        messages++;
        bool fits = tokens <= kept->tokens_max && messages <= kept->messages_max;
        if (!fits && cut < c->count)
            break;
        if (is_boundary) /* the last answer and its results stay, whatever their size */
            cut = i - 1;
    }
    for (size_t i = c->first; i < cut; i++)
        if (!is_pinned(c, i))
            return cut;
    return c->first; /* nothing but what stays lies before it */
}

/* ---- texts ---- */

/* The last at most `bytes` of a text, from the beginning of a character. */
static str tail_utf8(str text, size_t bytes)
{
    str tail = text.len > bytes ? str_from(text, text.len - bytes) : text;
    while (tail.len > 0 && tail.len < text.len && ((uint8_t) tail.ptr[0] & 0xc0) == 0x80)
        tail = str_from(tail, 1);
    return tail;
}

str context_shorten(struct arena *arena, str text, size_t bytes_max, str note)
{
    if (text.len <= bytes_max)
        return text;
    size_t reserve = 64 + note.len;
    size_t room = bytes_max > reserve ? bytes_max - reserve : 0;
    str head = str_cut_utf8(text, room - room / 3), tail = tail_utf8(text, room / 3);
    str cut =
        str_printf(arena, STR_FMT "\n[%zu bytes left out here" STR_FMT "]\n" STR_FMT, STR_ARG(head),
                   text.len - head.len - tail.len, STR_ARG(note), STR_ARG(tail));
    return cut.len <= bytes_max ? cut : str_cut_utf8(text, bytes_max);
}

static void add_part(struct strbuf *out, const struct part *part)
{
    switch (part->kind) {
    case PART_TEXT:
    case PART_TOOL_RESULT: strbuf_add(out, part->text); return;
    case PART_TOOL_CALL:
        strbuf_printf(out, "\n(calls " STR_FMT " with " STR_FMT ")", STR_ARG(part->name),
                      STR_ARG(part->arguments));
        return;
    case PART_IMAGE: strbuf_add(out, S("(a picture)")); return;
    case PART_REASONING: return; /* a model's thoughts are its own, and mostly sealed */
    }
}

static str text_of(struct arena *arena, const struct prompt_message *message)
{
    struct strbuf text;
    strbuf_init(&text, arena, 2 * MESSAGE_BYTES_MAX);
    for (size_t i = 0; i < message->part_count; i++)
        add_part(&text, &message->parts[i]);
    return str_trim(strbuf_str(&text));
}

static str speaker_of(struct arena *arena, const struct prompt_message *message)
{
    if (message->role != ROLE_TOOL || message->part_count == 0)
        return str_from_cstr(role_name(message->role));
    return str_printf(arena, "%s of " STR_FMT, message->parts[0].is_error ? "failure" : "result",
                      STR_ARG(message->parts[0].name));
}

static size_t count_gone(const struct conversation *c, size_t cut)
{
    size_t count = 0;
    for (size_t i = c->first; i < cut; i++)
        count += !context_stays(c, cut, i);
    return count;
}

str context_transcript(struct arena *arena, const struct conversation *c, size_t cut,
                       size_t bytes_max)
{
    struct strbuf out;
    size_t gone = count_gone(c, cut), share = gone > 0 ? bytes_max / gone : bytes_max;
    strbuf_init(&out, arena, bytes_max + 64);
    for (size_t i = c->first; i < cut && out.len < bytes_max; i++) {
        if (context_stays(c, cut, i))
            continue;
        str speaker = speaker_of(arena, &c->messages[i]);
        size_t room = share > speaker.len + 8 ? share - speaker.len - 8 : 1;
        strbuf_printf(
            &out, STR_FMT ": " STR_FMT "\n\n", STR_ARG(speaker),
            STR_ARG(context_shorten(arena, text_of(arena, &c->messages[i]), room, STR_NONE)));
    }
    return str_cut_utf8(strbuf_str(&out), bytes_max);
}

/* ---- a summary without a model ---- */

enum { SENTENCE_BYTES_MAX = 160 };

/* The first heading or sentence. */
static str first_sentence(str text)
{
    str rest = str_cut_utf8(str_trim(text), SENTENCE_BYTES_MAX);
    for (size_t i = 0; i < rest.len; i++) {
        bool is_end = rest.ptr[i] == '.' || rest.ptr[i] == '!' || rest.ptr[i] == '?';
        if (rest.ptr[i] == '\n')
            return str_slice(rest, 0, i);
        if (is_end && (i + 1 == rest.len || rest.ptr[i + 1] == ' ' || rest.ptr[i + 1] == '\n'))
            return str_slice(rest, 0, i + 1);
    }
    return rest;
}

static str line_of_tool(struct arena *arena, const struct prompt_message *message)
{
    const struct part *part = &message->parts[0];
    return str_printf(arena, "- tool " STR_FMT " %s: " STR_FMT "\n", STR_ARG(part->name),
                      part->is_error ? "failed" : "succeeded", STR_ARG(first_sentence(part->text)));
}

static str line_of(struct arena *arena, const struct prompt_message *message)
{
    struct strbuf names;
    if (message->role == ROLE_TOOL && message->part_count > 0)
        return line_of_tool(arena, message);
    strbuf_init(&names, arena, 4096);
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind == PART_TOOL_CALL)
            strbuf_printf(&names, " (called " STR_FMT ")", STR_ARG(message->parts[i].name));
    return str_printf(arena, "- %s: " STR_FMT STR_FMT "\n", role_name(message->role),
                      STR_ARG(first_sentence(prompt_message_text(arena, message))),
                      STR_ARG(strbuf_str(&names)));
}

str context_fallback(struct arena *arena, const struct conversation *c, size_t cut,
                     size_t bytes_max)
{
    struct strbuf out;
    size_t count = 0, gone = count_gone(c, cut), bytes = 96;
    str *lines = ARENA_ARRAY(arena, str, gone + 1); /* newest first */
    for (size_t i = cut; i > c->first; i--) {
        if (context_stays(c, cut, i - 1))
            continue;
        str line = line_of(arena, &c->messages[i - 1]);
        if (bytes + line.len > bytes_max)
            break;
        bytes += line.len;
        lines[count++] = line;
    }
    strbuf_init(&out, arena, bytes_max + 128);
    strbuf_printf(&out, "%zu messages, what each was about", gone);
    if (count < gone)
        strbuf_printf(&out, " (of the %zu oldest nothing is said)", gone - count);
    strbuf_add(&out, S(":\n"));
    for (size_t i = count; i > 0; i--)
        strbuf_add(&out, lines[i - 1]);
    return str_cut_utf8(strbuf_str(&out), bytes_max);
}

/* ---- results that are too long ---- */

static struct part *longest_result(const struct conversation *c)
{
    struct part *longest = NULL;
    for (size_t i = c->first; i < c->count; i++)
        for (size_t k = 0; k < c->messages[i].part_count; k++) {
            struct part *part = &c->messages[i].parts[k];
            if (part->kind == PART_TOOL_RESULT && part->text.len > CONTEXT_RESULT_BYTES_MIN &&
                (!longest || part->text.len > longest->text.len))
                longest = part;
        }
    return longest;
}

bool context_shorten_results(struct arena *arena, const struct conversation *c, int64_t tokens_max,
                             str note)
{
    int64_t tokens = context_tokens(c->messages, c->count);
    while (tokens > tokens_max) {
        struct part *part = longest_result(c);
        if (!part)
            return false;
        size_t before = part->text.len, over = (size_t) (tokens - tokens_max);
        size_t wanted = over < before / 2 ? before - over : before / 2;
        if (wanted < CONTEXT_RESULT_BYTES_MIN)
            wanted = CONTEXT_RESULT_BYTES_MIN;
        part->text = context_shorten(arena, part->text, wanted, note);
        tokens -= (int64_t) (before - part->text.len);
    }
    return true;
}
