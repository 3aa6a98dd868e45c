#include "base/log.h"

#include "base/arena.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/timefmt.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {
    [LOG_LEVEL_DEBUG] = "debug",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_WARN] = "warn",
    [LOG_LEVEL_ERROR] = "error",
};

/* One write per line, so that lines of several threads (or processes) do not mix. */
static void write_to_stderr(void *context, enum log_level level, str line)
{
    (void) context;
    (void) level;
    while (line.len > 0) {
        ssize_t written = write(STDERR_FILENO, line.ptr, line.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return; /* nobody to tell */
        line = str_from(line, (size_t) written);
    }
}

static int64_t system_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static struct {
    log_sink *sink;
    void *context;
    int64_t (*now_us)(void);
    _Atomic int level;
} root = {.sink = write_to_stderr, .now_us = system_now_us, .level = LOG_LEVEL_INFO};

void log_set_sink(log_sink *sink, void *context)
{
    root.sink = sink ? sink : write_to_stderr;
    root.context = context;
}

void log_set_level(enum log_level level)
{
    root.level = (int) level;
}

void log_set_clock(int64_t (*now_us)(void))
{
    root.now_us = now_us ? now_us : system_now_us;
}

bool log_level_parse(str text, enum log_level *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(level_names); i++) {
        if (str_equal(text, str_from_cstr(level_names[i]))) {
            *out = (enum log_level) i;
            return true;
        }
    }
    return false;
}

bool log_is_on(enum log_level level)
{
    return (int) level >= root.level;
}

/*
 * A line under construction.  Its strbuf ends early enough for "nexus.truncated" and the closing
 * brace; a member that does not fit is taken back, its text is cut and it is tried again, and at
 * last it is left out.
 */
struct line {
    struct strbuf text;
    struct json_writer json;
    bool is_cut;
};

#define LINE_END_CUT ",\"nexus.truncated\":true}\n"
enum { LINE_BODY_BYTES = LOG_LINE_BYTES_MAX - (sizeof(LINE_END_CUT) - 1) };

static void put_value(struct json_writer *json, const struct log_field *field)
{
    str name = str_from_cstr(field->name);
    switch (field->kind) {
    case LOG_FIELD_STR: json_put_str(json, name, field->text); break;
    case LOG_FIELD_I64: json_put_i64(json, name, field->number); break;
    case LOG_FIELD_BOOL: json_put_bool(json, name, field->number != 0); break;
    }
}

static void put(struct line *line, struct log_field field)
{
    struct json_writer before = line->json;
    size_t len_before = line->text.len;
    for (;;) {
        put_value(&line->json, &field);
        if (!strbuf_is_over(&line->text))
            return;
        line->is_cut = true;
        line->json = before;
        strbuf_truncate(&line->text, len_before);
        if (field.kind != LOG_FIELD_STR || field.text.len == 0)
            return;
        field.text = str_cut_utf8(field.text, field.text.len / 2);
    }
}

static void put_head(struct line *line, enum log_level level, const char *logger, str message)
{
    char now[TIME_TEXT_BYTES + 1];
    time_format(root.now_us(), now);
    put(line, LOG_STR("@timestamp", str_of(now, TIME_TEXT_BYTES)));
    put(line, LOG_STR("log.level", str_from_cstr(level_names[level])));
    put(line, LOG_STR("log.logger", str_from_cstr(logger)));
    put(line, LOG_STR("ecs.version", S("8.17")));
    put(line, LOG_STR("service.name", S("nexus")));
    put(line, LOG_STR("message", message));
}

static void put_error(struct line *line, const struct error *e)
{
    put(line, LOG_STR("error.type", str_from_cstr(error_problem(e->reason))));
    put(line, LOG_STR("error.code", str_from_cstr(error_code_name(e->code))));
    put(line, LOG_STR("error.message", str_from_cstr(e->message)));
}

static void write_line(enum log_level level, const char *logger, str message, const struct error *e,
                       const struct log_field *fields, size_t count)
{
    OWNED(arena) arena = arena_create(0);
    struct line line = {.is_cut = false};
    strbuf_init(&line.text, arena, LINE_BODY_BYTES);
    json_writer_init(&line.json, &line.text);
    json_object_begin(&line.json);
    put_head(&line, level, logger, message);
    if (e)
        put_error(&line, e);
    for (size_t i = 0; i < count; i++)
        put(&line, fields[i]);
    line.text.max = LOG_LINE_BYTES_MAX;
    strbuf_add(&line.text, line.is_cut ? S(LINE_END_CUT) : S("}\n"));
    root.sink(root.context, level, strbuf_str(&line.text));
}

void log_write(enum log_level level, const char *logger, str message,
               const struct log_field *fields, size_t count)
{
    if (log_is_on(level))
        write_line(level, logger, message, NULL, fields, count);
}

void log_error(const char *logger, str message, const struct error *e,
               const struct log_field *fields, size_t count)
{
    write_line(LOG_LEVEL_ERROR, logger, message, e, fields, count);
}
