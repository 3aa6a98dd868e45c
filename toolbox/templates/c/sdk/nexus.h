/*
 * Nexus tool SDK for C: what a tool needs to run inside the sandbox.  Three files, no other library.
 *
 * A tool is one function, tool_run().  The host starts a fresh instance of the module for each call, hands it one JSON object and
 * takes one JSON value back; then the instance is thrown away.  So a tool has no state between calls, and allocates without freeing.
 *
 * Failing: return tool_fail(e, code, "what is wrong, where, and how to mend it"); the model reads it as a failed call.
 * Codes: "invalid_input" (the caller can mend it), "limit", "not_found", "denied", "io", "unavailable", "internal".
 *
 * Limits (fuel, time, memory, output) stand in the manifest and are the host's.  Threads: none.
 */
#ifndef NEXUS_H
#define NEXUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of something else; not terminated.  printf("%.*s", (int) t.len, t.ptr) */
struct text {
    const char *ptr;
    size_t len;
};
struct text text_of(const char *terminated);
bool text_equal(struct text a, struct text b);

/* ---- reading JSON: a tree; all functions take NULL and wrong types, and say so by their result ---- */

struct json;
enum json_kind {
    JSON_ABSENT,
    JSON_NULL,
    JSON_BOOL,
    JSON_NUMBER,
    JSON_TEXT,
    JSON_ARRAY,
    JSON_OBJECT
};
enum json_kind json_kind_of(const struct json *value); /* JSON_ABSENT for NULL */

const struct json *json_get(const struct json *object, const char *name); /* NULL: not there */
/* Members and items in order: for (item = json_first(v); item; item = json_next(item)) */
const struct json *json_first(const struct json *array_or_object);
const struct json *json_next(const struct json *item);
struct text json_name(const struct json *member); /* of an object's member; else empty */
size_t json_count(const struct json *array_or_object);

/* True, and *out set, when the value is of that kind. */
bool json_text(const struct json *value, struct text *out);
bool json_integer(const struct json *value, int64_t *out); /* a whole number that fits */
bool json_real(const struct json *value, double *out);     /* any number */
bool json_bool(const struct json *value, bool *out);

/* Parses a text of one's own (the body of an HTTP answer).  NULL: it is not JSON, or deeper than 64; its bytes must stay. */
const struct json *json_parse(struct text text);

/* ---- writing JSON: in order; commas and quotes are the writer's ---- */

struct out;
struct out *out_create(void); /* for the request of a host call */
void out_object(struct out *out);
void out_array(struct out *out);
void out_end(struct out *out); /* of the innermost object or array */
void out_name(struct out *out, const char *name);
void out_text(struct out *out, struct text value); /* bytes that are no UTF-8 become U+FFFD */
void out_integer(struct out *out, int64_t value);
void out_real(struct out *out, double value); /* NaN and infinities: null */
void out_bool(struct out *out, bool value);
void out_null(struct out *out);
void out_value(struct out *out, const struct json *value); /* a tree, copied; NULL: null */

/* ---- the tool ---- */

struct tool_error {
    char code[24];
    char message[600];
};

/* Yours.  Writes one JSON value to `output` and returns true, or returns tool_fail(...). */
bool tool_run(const struct json *input, struct out *output, struct tool_error *e);

bool tool_fail(struct tool_error *e, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- the host; every name that is used stands in the manifest's host_calls ---- */

/* *answer is what the host gave.  On false, e says why in the host's words. */
bool tool_host_call(const char *name, struct out *request, const struct json **answer,
                    struct tool_error *e);
/* Files of the session, by name (host_calls: [file_size, file_read]). */
bool tool_file_size(struct text name, uint64_t *out, struct tool_error *e);
/* Past the end *got is 0. */
bool tool_file_read(struct text name, uint64_t offset, void *to, size_t size, size_t *got,
                    struct tool_error *e);
/* A line for the operator's log of this call; the model never sees it (host_calls: none needed). */
void tool_log(struct text line);

#endif
