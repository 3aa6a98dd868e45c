/*
 * Errors: failure is `false` and a filled struct error; success is `true` and an untouched one.
 *
 * A struct error is a plain value on the caller's stack: no allocation, no thread-local, no hidden state.
 * The code (nine in all) says what the caller may do; the reason names the known case (errors.def maps it to a problem
 * type, an HTTP status and an exit code).  Only UNAVAILABLE and TIMEOUT may be retried.
 * Messages say what, where and how to mend it; they never hold secrets.
 */
#ifndef NEXUS_BASE_ERROR_H
#define NEXUS_BASE_ERROR_H

#include "base/str.h"

enum error_code {
    ERROR_OK = 0,
    ERROR_INVALID, /* mend the input */
    ERROR_DENIED,  /* ask for permission */
    ERROR_NOT_FOUND,
    ERROR_CONFLICT, /* look again, then decide */
    ERROR_LIMIT,    /* make it smaller, or raise the limit */
    ERROR_TIMEOUT,  /* may be retried */
    ERROR_CANCELLED,
    ERROR_UNAVAILABLE, /* may be retried */
    ERROR_INTERNAL,
};

enum error_reason {
#define ERROR_REASON(name, problem, code, http, exit, title) REASON_##name,
#include "base/errors.def"
#undef ERROR_REASON
    REASON_COUNT
};

enum { ERROR_MESSAGE_BYTES = 480 };

struct error {
    enum error_code code;
    enum error_reason reason;
    int64_t retry_after_ms;            /* 0 when nobody said */
    char message[ERROR_MESSAGE_BYTES]; /* terminated, UTF-8, cut at the end */
};

/*
 * Fills e from a reason (which carries the code) and returns false, so that one can `return error_set(...)`.
 * e may be NULL in these three, for callers who only ask whether it worked.
 */
cold_path bool error_set(struct error *e, enum error_reason reason, const char *format, ...)
    format_like(3, 4);
/* Puts context in front: "resume run X: <old message>".  Returns false. */
cold_path bool error_wrap(struct error *e, const char *format, ...) format_like(2, 3);
/* Copies; returns false. */
cold_path bool error_copy(struct error *e, const struct error *from);

const char *error_code_name(enum error_code code);   /* "INVALID" */
const char *error_problem(enum error_reason reason); /* "over_budget" */
const char *error_title(enum error_reason reason);
int error_http_status(enum error_reason reason);
int error_exit_code(enum error_reason reason);
enum error_code error_reason_code(enum error_reason reason);
bool error_reason_find(str problem, enum error_reason *out); /* by problem name */
bool error_may_retry(const struct error *e);

#endif
