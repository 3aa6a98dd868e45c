/* one text through its filter; JSON's strings one by one */
#include "llm/guard_internal.h"

#include "base/arena.h"

void guard_watch_init(struct guard_watch *watch, const struct guard_rules *rules,
                      enum guard_direction direction, const struct guard_sink *sink)
{
    *watch = (struct guard_watch){.rules = rules, .direction = direction};
    if (sink)
        watch->sink = *sink;
}

bool guard_watch_error(const struct guard_watch *watch, struct error *e)
{
    return error_set(e, REASON_CONTENT_BLOCKED,
                     "the content filter blocks this %s: rule " STR_FMT " (" STR_FMT ")",
                     watch->direction == GUARD_REQUEST ? "request" : "answer",
                     STR_ARG(watch->blocked.rule), STR_ARG(watch->blocked.group));
}

static void on_found(void *owner, const struct filter_finding *finding)
{
    struct guard_watch *watch = owner;
    if (finding->action == FILTER_BLOCK)
        watch->blocked = *finding;
    if (watch->rules->metrics)
        metrics_add(watch->rules->metrics, METRIC_FILTER_FINDINGS, 1,
                    (str[]){finding->group, finding->rule,
                            str_from_cstr(filter_action_name(finding->action))},
                    3);
    if (watch->sink.found)
        watch->sink.found(watch->sink.owner, watch->direction, finding);
}

void guard_channel_init(struct guard_channel *channel, const struct filter_set *set, bool is_json)
{
    *channel = (struct guard_channel){.stream = filter_stream_create(set), .is_json = is_json};
}

void guard_channel_deinit(struct guard_channel *channel)
{
    filter_stream_destroy(channel->stream);
    channel->stream = NULL;
}

bool guard_channel_holds(const struct guard_channel *channel)
{
    return filter_stream_held(channel->stream) > 0 || channel->state == CHANNEL_BARE;
}

/* ---- JSON ---- */

/* What goes between the quotes; UTF-8 as it is. */
static void escape(struct strbuf *out, str text)
{
    static const char letters[] = "btn.fr"; /* of 0x08 to 0x0d */
    size_t from = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char) text.ptr[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        strbuf_add(out, str_slice(text, from, i));
        from = i + 1;
        if (c >= 0x20)
            strbuf_printf(out, "\\%c", c);
        else if (c >= 0x08 && c <= 0x0d && c != 0x0b)
            strbuf_printf(out, "\\%c", letters[c - 0x08]);
        else
            strbuf_printf(out, "\\u%04x", c);
    }
    strbuf_add(out, str_from(text, from));
}

struct json_text {
    struct guard_channel *channel;
    struct guard_watch *watch;
    struct strbuf *out, clean; /* clean: from the filter, before it is escaped again */
    struct filter_sink sink;
};

static bool feed_clean(struct json_text *j, str decoded)
{
    strbuf_truncate(&j->clean, 0);
    bool is_open = filter_stream_feed(j->channel->stream, decoded, &j->sink);
    escape(j->out, strbuf_str(&j->clean));
    return is_open;
}

static bool end_string(struct json_text *j)
{
    strbuf_truncate(&j->clean, 0);
    bool is_open = filter_stream_end(j->channel->stream, &j->sink);
    escape(j->out, strbuf_str(&j->clean));
    return is_open;
}

static bool feed_code_point(struct json_text *j, unsigned code)
{
    char text[4];
    size_t len = 0;
    if (code < 0x80) {
        text[len++] = (char) code;
    } else if (code < 0x800) {
        text[len++] = (char) (0xc0 | code >> 6);
        text[len++] = (char) (0x80 | (code & 0x3f));
    } else {
        if (code >= 0x10000)
            text[len++] = (char) (0xf0 | code >> 18);
        text[len++] = (char) (code >= 0x10000 ? 0x80 | (code >> 12 & 0x3f) : 0xe0 | code >> 12);
        text[len++] = (char) (0x80 | (code >> 6 & 0x3f));
        text[len++] = (char) (0x80 | (code & 0x3f));
    }
    return feed_clean(j, str_of(text, len));
}

enum { REPLACEMENT_CHARACTER = 0xfffd };

/* A half of a pair that found no other half. */
static bool drop_surrogate(struct json_text *j)
{
    bool has_one = j->channel->high_surrogate != 0;
    j->channel->high_surrogate = 0;
    return !has_one || feed_code_point(j, REPLACEMENT_CHARACTER);
}

static bool take_unit(struct json_text *j)
{
    struct guard_channel *c = j->channel;
    unsigned unit = c->unit;
    c->state = CHANNEL_STRING;
    if (unit >= 0xdc00 && unit < 0xe000 && c->high_surrogate) {
        unsigned code =
            0x10000u + ((unsigned) (c->high_surrogate - 0xd800) << 10) + (unit - 0xdc00);
        c->high_surrogate = 0;
        return feed_code_point(j, code);
    }
    if (!drop_surrogate(j))
        return false;
    if (unit >= 0xd800 && unit < 0xdc00) {
        c->high_surrogate = (uint16_t) unit;
        return true;
    }
    return feed_code_point(j, unit >= 0xdc00 && unit < 0xe000 ? REPLACEMENT_CHARACTER : unit);
}

static bool take_escape(struct json_text *j, char c)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    struct guard_channel *channel = j->channel;
    channel->state = CHANNEL_STRING;
    if (c == 'u') {
        channel->state = CHANNEL_UNICODE;
        channel->unit = channel->digit_count = 0;
        return true;
    }
    if (!drop_surrogate(j))
        return false;
    const char *name = c ? strchr(names, c) : NULL;
    if (name)
        return feed_clean(j, str_of(&values[name - names], 1));
    char both[] = {'\\', c}; /* no escape of JSON: the backslash is one */
    return feed_clean(j, str_of(both, 2));
}

static bool take_digit(struct json_text *j, char c, bool *is_taken)
{
    struct guard_channel *channel = j->channel;
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    *is_taken = digit >= 0;
    if (digit < 0) { /* cut short: what is there counts for nothing */
        channel->state = CHANNEL_STRING;
        return feed_code_point(j, REPLACEMENT_CHARACTER);
    }
    channel->unit = (uint16_t) (channel->unit * 16 + digit);
    return ++channel->digit_count < 4 || take_unit(j);
}

/* Within a string: a run without escapes at once. */
static bool take_string(struct json_text *j, str *rest)
{
    size_t len = 0;
    while (len < rest->len && rest->ptr[len] != '"' && rest->ptr[len] != '\\')
        len++;
    if (len > 0) {
        str run = str_slice(*rest, 0, len);
        *rest = str_from(*rest, len);
        return drop_surrogate(j) && feed_clean(j, run);
    }
    char c = rest->ptr[0];
    *rest = str_from(*rest, 1);
    if (c == '\\') {
        j->channel->state = CHANNEL_ESCAPE;
        return true;
    }
    if (!drop_surrogate(j) || !end_string(j))
        return false;
    strbuf_add_char(j->out, '"');
    j->channel->state = CHANNEL_OUTSIDE;
    return true;
}

static bool is_scalar(str text)
{
    double number;
    return str_equal(text, S("true")) || str_equal(text, S("false")) ||
           str_equal(text, S("null")) || str_to_double(text, &number);
}

/* No JSON after all: what was kept and all that comes is filtered as it is. */
static bool become_raw(struct json_text *j)
{
    struct guard_channel *c = j->channel;
    str bare = str_of(c->bare, c->bare_count);
    c->state = CHANNEL_RAW;
    c->bare_count = 0;
    struct filter_sink sink = j->sink;
    sink.out = j->out;
    return filter_stream_feed(c->stream, bare, &sink);
}

static bool end_bare(struct json_text *j)
{
    struct guard_channel *c = j->channel;
    str bare = str_of(c->bare, c->bare_count);
    if (!is_scalar(bare))
        return become_raw(j);
    c->state = CHANNEL_OUTSIDE;
    c->bare_count = 0;
    strbuf_truncate(&j->clean, 0);
    if (!filter_stream_feed(c->stream, bare, &j->sink) || !filter_stream_end(c->stream, &j->sink))
        return false;
    bool is_same = str_equal(strbuf_str(&j->clean), bare);
    strbuf_add(j->out, is_same ? S("") : S("\""));
    escape(j->out, strbuf_str(&j->clean));
    strbuf_add(j->out, is_same ? S("") : S("\""));
    return true;
}

static bool is_delimiter(char byte)
{
    return byte && strchr("\"{}[],: \t\r\n", byte);
}

/* No sane reader keeps all digits of such a number; as a string it can be filtered while it comes. */
static bool become_long(struct json_text *j)
{
    struct guard_channel *c = j->channel;
    str bare = str_of(c->bare, c->bare_count);
    if (c->bare[0] != '-' && (c->bare[0] < '0' || c->bare[0] > '9'))
        return become_raw(j);
    c->state = CHANNEL_LONG;
    c->bare_count = 0;
    strbuf_add_char(j->out, '"');
    return feed_clean(j, bare);
}

static bool take_long(struct json_text *j, str *rest)
{
    size_t len = 0;
    while (len < rest->len && !is_delimiter(rest->ptr[len]))
        len++;
    if (len > 0) {
        str run = str_slice(*rest, 0, len);
        *rest = str_from(*rest, len);
        return feed_clean(j, run);
    }
    j->channel->state = CHANNEL_OUTSIDE; /* the delimiter is looked at again */
    if (!end_string(j))
        return false;
    strbuf_add_char(j->out, '"');
    return true;
}

static bool take_outside(struct json_text *j, str *rest)
{
    struct guard_channel *c = j->channel;
    char byte = rest->ptr[0];
    if (is_delimiter(byte)) {
        if (c->state == CHANNEL_BARE) /* ends here; the byte is looked at again */
            return end_bare(j);
        strbuf_add_char(j->out, byte);
        c->state = byte == '"' ? CHANNEL_STRING : CHANNEL_OUTSIDE;
        *rest = str_from(*rest, 1);
        return true;
    }
    c->state = CHANNEL_BARE;
    if (c->bare_count == sizeof c->bare)
        return become_long(j);
    c->bare[c->bare_count++] = byte;
    *rest = str_from(*rest, 1);
    return true;
}

static bool feed_json(struct json_text *j, str rest)
{
    while (rest.len > 0) {
        bool is_open = true, is_taken = true;
        switch (j->channel->state) {
        case CHANNEL_OUTSIDE:
        case CHANNEL_BARE: is_open = take_outside(j, &rest); break;
        case CHANNEL_STRING: is_open = take_string(j, &rest); break;
        case CHANNEL_LONG: is_open = take_long(j, &rest); break;
        case CHANNEL_ESCAPE:
            is_open = take_escape(j, rest.ptr[0]);
            rest = str_from(rest, 1);
            break;
        case CHANNEL_UNICODE:
            is_open = take_digit(j, rest.ptr[0], &is_taken);
            rest = str_from(rest, is_taken);
            break;
        case CHANNEL_RAW: {
            struct filter_sink sink = j->sink;
            sink.out = j->out;
            return filter_stream_feed(j->channel->stream, rest, &sink);
        }
        }
        if (!is_open)
            return false;
    }
    return true;
}

static struct json_text json_text(struct guard_channel *channel, struct guard_watch *watch,
                                  struct strbuf *out)
{
    struct json_text j = {.channel = channel, .watch = watch, .out = out};
    strbuf_init(&j.clean, out->arena, SIZE_MAX);
    j.sink = (struct filter_sink){NULL, on_found, watch};
    return j;
}

bool guard_channel_feed(struct guard_channel *channel, struct guard_watch *watch, str piece,
                        struct strbuf *out)
{
    if (!channel->is_json) {
        struct filter_sink sink = {out, on_found, watch};
        return filter_stream_feed(channel->stream, piece, &sink);
    }
    struct json_text j = json_text(channel, watch, out);
    j.sink.out = &j.clean;
    return feed_json(&j, piece);
}

bool guard_channel_end(struct guard_channel *channel, struct guard_watch *watch, struct strbuf *out)
{
    bool is_open = true;
    struct json_text j = json_text(channel, watch, out);
    j.sink.out = &j.clean;
    if (channel->is_json && channel->state == CHANNEL_BARE)
        is_open = end_bare(&j);
    if (is_open && channel->is_json &&
        (channel->state == CHANNEL_STRING || channel->state == CHANNEL_ESCAPE ||
         channel->state == CHANNEL_UNICODE)) { /* cut within a string */
        is_open = drop_surrogate(&j) && end_string(&j);
    } else if (is_open && channel->is_json && channel->state == CHANNEL_LONG) {
        is_open = end_string(&j);
        strbuf_add(out, is_open ? S("\"") : S(""));
    } else if (is_open) {
        struct filter_sink sink = {out, on_found, watch};
        is_open = filter_stream_end(channel->stream, &sink);
    }
    channel->state = CHANNEL_OUTSIDE;
    channel->bare_count = 0;
    channel->high_surrogate = 0;
    return is_open;
}
