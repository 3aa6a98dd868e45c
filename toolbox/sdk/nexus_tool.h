/*
 * Nexus tool SDK: what a tool written in C needs to run inside the sandbox.
 *
 * A tool is one function, tool_run().  The host starts a fresh instance of the module for each call,
 * hands it one JSON object and takes one JSON value back; then the instance is thrown away.  So a tool
 * has no state between calls, and may allocate without freeing.
 *
 *     host: nexus_alloc(n) --> copy JSON in --> nexus_run(ptr, len) --> tool_run() --> JSON out
 *
 * ABI `nexus-export` (the manifest says `abi: nexus-export`): a WASI reactor that exports `memory`,
 * `_initialize`, `nexus_alloc` and `nexus_run`; nexus_tool.c supplies the last two.  It may import from
 * module `nexus` the functions behind the wrappers below, and from WASI preview 1 what libc drags in
 * (clock, random, fd_write for stderr); nothing is preopened.  The linker keeps only what is used, and
 * the host grants only what the manifest asks for.
 *
 * A minimal tool:
 *
 *     bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
 *     {
 *         struct text name;
 *         if (!tool_text(input, "name", &name, e))
 *             return false;
 *         yyjson_mut_val *root = yyjson_mut_obj(output);
 *         yyjson_mut_obj_add_strn(output, root, "greeting", name.ptr, name.len);
 *         yyjson_mut_doc_set_root(output, root);
 *         return true;
 *     }
 *
 * Build: clang --target=wasm32-wasi -mexec-model=reactor -O2 tool.c sdk/nexus_tool.c sdk/tool_value.c yyjson.c
 *
 * Errors: return tool_fail(e, code, "what is wrong, where, and how to mend it").  The answer is then
 * {"error": {"code", "message"}}, which the host shows to the model as a failed call, so write for a
 * reader who will try again.  Codes in use: "invalid_input" (the caller can mend it), "limit" (a bound
 * was reached, named in the message), "not_found", "denied", "io", "unavailable".
 *
 * Threads: none.  Limits: fuel, time, memory and output size, from the manifest; the host enforces them.
 */
#ifndef NEXUS_TOOL_H
#define NEXUS_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "yyjson.h"

/* Bytes borrowed from somewhere else; not terminated. */
struct text {
    const char *ptr;
    size_t len;
};

#define TEXT(literal) ((struct text){(literal), sizeof(literal) - 1})
#define TEXT_FMT "%.*s"
#define TEXT_ARG(t) (int) ((t).len), (t).ptr

struct tool_error {
    char code[24];
    char message[600];
};

/* The tool itself.  On success sets the root of `output`; strings there must outlive the call, which
 * everything in `input` and everything allocated does. */
bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e);

/* Fills `e` and returns false.  A message that is too long is cut at a character. */
bool tool_fail(struct tool_error *e, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- reading the input -------------------------------------------------------------------------- */

bool text_equal(struct text a, struct text b);

/* A required string; "invalid_input" when it is absent or something else. */
bool tool_text(yyjson_val *object, const char *name, struct text *out, struct tool_error *e);

/* An optional string: `fallback` when absent or null. */
bool tool_text_or(yyjson_val *object, const char *name, struct text fallback, struct text *out,
                  struct tool_error *e);

/* An optional whole number within [min, max]. */
bool tool_integer_or(yyjson_val *object, const char *name, int64_t fallback, int64_t min,
                     int64_t max, int64_t *out, struct tool_error *e);

/* An optional true or false. */
bool tool_flag_or(yyjson_val *object, const char *name, bool fallback, bool *out,
                  struct tool_error *e);

/* The index of `word` in a NULL-terminated list, or -1. */
int tool_choice(struct text word, const char *const *words);

/* Writes "a, b, c" from a NULL-terminated list, for messages. */
void tool_list(const char *const *words, char *out, size_t out_bytes);

/* ---- memory ------------------------------------------------------------------------------------- */

/* As malloc and realloc, but never NULL: running out of the sandbox's memory ends the call with a trap,
 * which the host reports as the memory limit.  Bound what comes from outside before asking. */
void *tool_alloc(size_t bytes) __attribute__((malloc, returns_nonnull));
void *tool_realloc(void *ptr, size_t bytes) __attribute__((returns_nonnull));
void tool_free(void *ptr); /* NULL is fine */

/* ---- the host (only inside the sandbox; each needs its grant in the manifest) ------------------- */

/* Calls host function `name` (manifest: host_calls).  On success *ok is the member "ok" of the answer. */
bool tool_host_call(const char *name, yyjson_mut_doc *request, yyjson_val **ok,
                    struct tool_error *e);

/* Files of the session, by name.  Reading past the end gives zero bytes. */
bool tool_file_size(struct text name, uint64_t *out, struct tool_error *e);
bool tool_file_read(struct text name, uint64_t offset, void *to, size_t size, size_t *got,
                    struct tool_error *e);
bool tool_file_write(struct text name, uint64_t offset, const void *from, size_t size,
                     struct tool_error *e);

/* A line for the operator's log of this call; never shown to the model. */
void tool_log(struct text line);

#endif
