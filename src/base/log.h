/*
 * Log: one JSON line per entry in Elastic Common Schema names.
 *
 * The root of the program sets one sink (and a level); library code below the deciders never logs, it returns errors.
 * Values are escaped; secrets cannot be formatted (struct secret has no formatter).  A line is at most LOG_LINE_BYTES_MAX.
 *
 *   LOG_INFO("http.server", S("listening"), LOG_STR("server.address", address), LOG_I64("server.port", port));
 *
 * Thread: any; the sink is called with a complete line (newline included) and must be thread-safe.  Suspends: never.
 */
#ifndef NEXUS_BASE_LOG_H
#define NEXUS_BASE_LOG_H

#include "base/error.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

struct log_field {
    const char *name; /* ECS name with dots: "http.response.status_code" */
    enum { LOG_FIELD_STR, LOG_FIELD_I64, LOG_FIELD_BOOL } kind;
    str text;
    int64_t number;
};
#define LOG_STR(name_, value_)                                                                     \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_STR, .text = (value_)})
#define LOG_I64(name_, value_)                                                                     \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_I64, .number = (int64_t) (value_)})
#define LOG_BOOL(name_, value_)                                                                    \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_BOOL, .number = (value_)})

typedef void log_sink(void *context, enum log_level level, str line);
/* Set once at start, before threads; the default writes to stderr.  now_us gives Unix microseconds. */
void log_set_sink(log_sink *sink, void *context);
void log_set_level(enum log_level level);
void log_set_clock(int64_t (*now_us)(void));
bool log_level_parse(str text, enum log_level *out); /* debug, info, warn, error */
bool log_is_on(enum log_level level);

void log_write(enum log_level level, const char *logger, str message,
               const struct log_field *fields, size_t count);
/* error.type, error.code and error.message from e, and the fields. */
void log_error(const char *logger, str message, const struct error *e,
               const struct log_field *fields, size_t count);

#define LOG_FIELDS_(...) ((const struct log_field[]){(struct log_field){0}, ##__VA_ARGS__})
#define LOG_AT_(level, logger, message, ...)                                                       \
    (log_is_on(level) ? log_write(level, logger, message, LOG_FIELDS_(__VA_ARGS__) + 1,            \
                                  ARRAY_COUNT(LOG_FIELDS_(__VA_ARGS__)) - 1)                       \
                      : (void) 0)
#define LOG_DEBUG(logger, message, ...) LOG_AT_(LOG_LEVEL_DEBUG, logger, message, ##__VA_ARGS__)
#define LOG_INFO(logger, message, ...) LOG_AT_(LOG_LEVEL_INFO, logger, message, ##__VA_ARGS__)
#define LOG_WARN(logger, message, ...) LOG_AT_(LOG_LEVEL_WARN, logger, message, ##__VA_ARGS__)
#define LOG_ERROR(logger, message, e, ...)                                                         \
    log_error(logger, message, e, LOG_FIELDS_(__VA_ARGS__) + 1,                                    \
              ARRAY_COUNT(LOG_FIELDS_(__VA_ARGS__)) - 1)

#endif
