#include "base/error.h"

#include "base/utf8_internal.h"

#include <stdarg.h>
#include <stdio.h>

struct reason {
    const char *problem;
    enum error_code code;
    int http_status;
    int exit_code;
    const char *title;
};

static const struct reason reasons[REASON_COUNT] = {
#define ERROR_REASON(name, problem, code, http, exit, title)                                       \
    [REASON_##name] = {problem, ERROR_##code, http, exit, title},
#include "base/errors.def"
#undef ERROR_REASON
};

/* A reason from outside the table (a damaged row) reads as an internal error. */
static const struct reason *reason_of(enum error_reason reason)
{
    unsigned index = (unsigned) reason;
    return &reasons[index < REASON_COUNT ? index : REASON_INTERNAL];
}

/* vsnprintf cuts at a byte; a message is text and ends at a whole character. */
static void cut_message(struct error *e)
{
    size_t len = strlen(e->message);
    if (len < ERROR_MESSAGE_BYTES - 1)
        return;
    for (size_t back = 1; back <= 3; back++) {
        const unsigned char *last = (const unsigned char *) e->message + len - back;
        if ((*last & 0xc0) == 0x80)
            continue; /* within a sequence: its first byte lies further ahead */
        if (utf8_sequence(last, back, NULL) == 0)
            e->message[len - back] = '\0';
        return;
    }
}

bool error_set(struct error *e, enum error_reason reason, const char *format, ...)
{
    va_list arguments;
    char message[ERROR_MESSAGE_BYTES]; /* an argument may be e's old message */
    if (!e)
        return false;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    e->code = reason_of(reason)->code;
    e->reason = reason;
    e->retry_after_ms = 0;
    memcpy(e->message, message, sizeof(message));
    cut_message(e);
    return false;
}

bool error_wrap(struct error *e, const char *format, ...)
{
    va_list arguments;
    char old[ERROR_MESSAGE_BYTES], context[ERROR_MESSAGE_BYTES];
    if (!e)
        return false;
    memcpy(old, e->message, sizeof(old));
    va_start(arguments, format);
    vsnprintf(context, sizeof(context), format, arguments);
    va_end(arguments);
    snprintf(e->message, sizeof(e->message), "%s: %s", context, old);
    cut_message(e);
    return false;
}

bool error_copy(struct error *e, const struct error *from)
{
    if (e && e != from)
        *e = *from;
    return false;
}

const char *error_code_name(enum error_code code)
{
    static const char *const names[] = {
        [ERROR_OK] = "OK",
        [ERROR_INVALID] = "INVALID",
        [ERROR_DENIED] = "DENIED",
        [ERROR_NOT_FOUND] = "NOT_FOUND",
        [ERROR_CONFLICT] = "CONFLICT",
        [ERROR_LIMIT] = "LIMIT",
        [ERROR_TIMEOUT] = "TIMEOUT",
        [ERROR_CANCELLED] = "CANCELLED",
        [ERROR_UNAVAILABLE] = "UNAVAILABLE",
        [ERROR_INTERNAL] = "INTERNAL",
    };
    unsigned index = (unsigned) code;
    return names[index < ARRAY_COUNT(names) ? index : ERROR_INTERNAL];
}

const char *error_problem(enum error_reason reason)
{
    return reason_of(reason)->problem;
}

const char *error_title(enum error_reason reason)
{
    return reason_of(reason)->title;
}

int error_http_status(enum error_reason reason)
{
    return reason_of(reason)->http_status;
}

int error_exit_code(enum error_reason reason)
{
    return reason_of(reason)->exit_code;
}

enum error_code error_reason_code(enum error_reason reason)
{
    return reason_of(reason)->code;
}

/* From 1: REASON_NONE shares its problem name with REASON_INTERNAL, which is the one meant. */
bool error_reason_find(str problem, enum error_reason *out)
{
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++) {
        if (str_equal(problem, str_from_cstr(reasons[i].problem))) {
            *out = (enum error_reason) i;
            return true;
        }
    }
    return false;
}

bool error_may_retry(const struct error *e)
{
    return e->code == ERROR_UNAVAILABLE || e->code == ERROR_TIMEOUT;
}
