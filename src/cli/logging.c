#include "cli/logging.h"

#include "base/arena.h"
#include "base/limits.h"

#include <errno.h>
#include <unistd.h>

static bool text_has_colours;

static const char *level_colour(str level)
{
    if (str_equal(level, S("error")))
        return "\033[31m";
    if (str_equal(level, S("warn")))
        return "\033[33m";
    return "\033[2m";
}

static bool is_shown_first(str name)
{
    static const str names[] = {S_INIT("@timestamp"),  S_INIT("log.level"),
                                S_INIT("log.logger"),  S_INIT("message"),
                                S_INIT("ecs.version"), S_INIT("service.name")};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (str_equal(name, names[i]))
            return true;
    return false;
}

str logging_text(struct arena *arena, str json_line, bool has_colours)
{
    const struct json *entry, *value;
    struct error ignored;
    struct strbuf b;
    str name, text;
    if (!json_parse(arena, json_line, (struct json_limits){.allow_duplicates = true}, &entry,
                    &ignored))
        return json_line;
    str level = json_str_or(entry, S("log.level"), S("?"));
    strbuf_init(&b, arena, 2 * LOG_LINE_BYTES_MAX);
    strbuf_add(&b, str_slice(json_str_or(entry, S("@timestamp"), STR_NONE), 11, 23));
    strbuf_printf(&b, " %s%-5.*s%s " STR_FMT "  " STR_FMT, has_colours ? level_colour(level) : "",
                  STR_ARG(level), has_colours ? "\033[0m" : "",
                  STR_ARG(json_str_or(entry, S("log.logger"), S("nexus"))),
                  STR_ARG(json_str_or(entry, S("message"), STR_NONE)));
    struct json_iter it = json_iter(entry);
    while (json_next(&it, &name, &value)) {
        if (is_shown_first(name))
            continue;
        if (!json_to_str(value, &text))
            text = json_print(arena, value);
        strbuf_printf(&b, "  " STR_FMT "=" STR_FMT, STR_ARG(name), STR_ARG(text));
    }
    strbuf_add_char(&b, '\n');
    return strbuf_is_over(&b) ? json_line : strbuf_str(&b);
}

static void write_text(void *context, enum log_level level, str line)
{
    (void) context;
    (void) level;
    OWNED(arena) arena = arena_create(0);
    str rest = logging_text(arena, line, text_has_colours);
    while (rest.len > 0) {
        ssize_t written = write(STDERR_FILENO, rest.ptr, rest.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        rest = str_from(rest, (size_t) written);
    }
}

void logging_set(const struct config *config, bool is_terminal, bool has_colours)
{
    bool is_text = str_equal(config->log_format, S("text")) ||
                   (str_equal(config->log_format, S("auto")) && is_terminal);
    log_set_level(config->log_level);
    text_has_colours = is_terminal && has_colours;
    if (is_text)
        log_set_sink(write_text, NULL);
}

void logging_set_level(enum log_level level)
{
    log_set_level(level);
}
