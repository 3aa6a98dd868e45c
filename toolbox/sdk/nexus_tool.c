/* The `nexus-export` ABI: exports for the host, imports from it.  Compiled for wasm only. */
#include "nexus_tool.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(name) __attribute__((import_module("nexus"), import_name(name)))

enum {
    FILE_NOT_FOUND = -1,
    FILE_DENIED = -2,
    FILE_IO = -3,
    FILE_CHUNK_BYTES = 1 << 20, /* one host copy at most, so that a huge read stays interruptible */
};

IMPORT("host_call")
int64_t nexus_host_call(const char *name, size_t name_len, const char *request, size_t request_len);
IMPORT("file_size") int64_t nexus_file_size(const char *name, size_t name_len);
IMPORT("file_read")
int32_t nexus_file_read(const char *name, size_t name_len, uint64_t offset, void *to, size_t size);
IMPORT("file_write")
int32_t nexus_file_write(const char *name, size_t name_len, uint64_t offset, const void *from,
                         size_t size);
IMPORT("log") void nexus_log(const char *ptr, size_t len);

void *nexus_alloc(size_t size);
uint64_t nexus_run(char *ptr, size_t len);

EXPORT("nexus_alloc") void *nexus_alloc(size_t size)
{
    return tool_alloc(size == 0 ? 1 : size);
}

/* Only what a JSON writer cannot fail on, for answers that must get out whatever happened. */
static uint64_t pack(const char *ptr, size_t len)
{
    return (uint64_t) (uintptr_t) ptr << 32 | len;
}

static uint64_t write_error(const struct tool_error *e)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_val *error = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_str(doc, error, "code", e->code);
    yyjson_mut_obj_add_str(doc, error, "message", e->message);
    yyjson_mut_obj_add_val(doc, root, "error", error);
    yyjson_mut_doc_set_root(doc, root);
    size_t len = 0;
    char *json = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, &len);
    if (json == NULL)
        __builtin_trap();
    return pack(json, len);
}

EXPORT("nexus_run") uint64_t nexus_run(char *ptr, size_t len)
{
    struct tool_error e = {0};
    yyjson_read_err parse_error;
    yyjson_doc *input = yyjson_read_opts(ptr, len, 0, NULL, &parse_error);
    if (input == NULL) {
        tool_fail(&e, "invalid_input", "the input is not JSON: %s at byte %zu", parse_error.msg,
                  parse_error.pos);
        return write_error(&e);
    }
    if (!yyjson_is_obj(yyjson_doc_get_root(input))) {
        tool_fail(&e, "invalid_input", "the input must be a JSON object");
        return write_error(&e);
    }
    yyjson_mut_doc *output = yyjson_mut_doc_new(NULL);
    if (output == NULL)
        __builtin_trap();
    if (!tool_run(yyjson_doc_get_root(input), output, &e))
        return write_error(&e);

    size_t json_len = 0;
    yyjson_write_err write_problem;
    char *json = yyjson_mut_write_opts(output, 0, NULL, &json_len, &write_problem);
    if (json == NULL) {
        tool_fail(&e, "internal", "the result cannot be written as JSON: %s", write_problem.msg);
        return write_error(&e);
    }
    return pack(json, json_len);
}

bool tool_host_call(const char *name, yyjson_mut_doc *request, yyjson_val **ok,
                    struct tool_error *e)
{
    size_t len = 0;
    char *json = yyjson_mut_write(request, 0, &len);
    if (json == NULL)
        return tool_fail(e, "invalid_input", "the request of host call %s is not valid JSON", name);
    uint64_t packed = (uint64_t) nexus_host_call(name, strlen(name), json, len);
    free(json);

    char *answer_ptr = (char *) (uintptr_t) (packed >> 32); /* NOLINT: the host wrote it */
    yyjson_doc *answer = yyjson_read(answer_ptr, (size_t) (packed & UINT32_MAX), 0);
    yyjson_val *root = yyjson_doc_get_root(answer);
    yyjson_val *result = yyjson_obj_get(root, "ok");
    if (result != NULL) {
        *ok = result;
        return true;
    }
    yyjson_val *error = yyjson_obj_get(root, "error");
    const char *code = yyjson_get_str(yyjson_obj_get(error, "code"));
    const char *message = yyjson_get_str(yyjson_obj_get(error, "message"));
    return tool_fail(e, code == NULL ? "internal" : code, "%s",
                     message == NULL ? "the host gave no answer" : message);
}

static bool fail_file(struct text name, int64_t status, struct tool_error *e)
{
    switch (status) {
    case FILE_NOT_FOUND:
        return tool_fail(e, "not_found", "no file \"" TEXT_FMT "\" in this session",
                         TEXT_ARG(name));
    case FILE_DENIED:
        return tool_fail(e, "denied", "this call may not touch the file \"" TEXT_FMT "\"",
                         TEXT_ARG(name));
    default:
        return tool_fail(e, "io", "the file \"" TEXT_FMT "\" could not be used (%d)",
                         TEXT_ARG(name), (int) status);
    }
}

bool tool_file_size(struct text name, uint64_t *out, struct tool_error *e)
{
    int64_t size = nexus_file_size(name.ptr, name.len);
    if (size < 0)
        return fail_file(name, size, e);
    *out = (uint64_t) size;
    return true;
}

bool tool_file_read(struct text name, uint64_t offset, void *to, size_t size, size_t *got,
                    struct tool_error *e)
{
    size_t filled = 0;
    while (filled < size) {
        size_t want = size - filled < FILE_CHUNK_BYTES ? size - filled : FILE_CHUNK_BYTES;
        int32_t n =
            nexus_file_read(name.ptr, name.len, offset + filled, (char *) to + filled, want);
        if (n < 0)
            return fail_file(name, n, e);
        if (n == 0)
            break;
        filled += (size_t) n;
    }
    *got = filled;
    return true;
}

bool tool_file_write(struct text name, uint64_t offset, const void *from, size_t size,
                     struct tool_error *e)
{
    size_t done = 0;
    while (done < size) {
        int32_t n = nexus_file_write(name.ptr, name.len, offset + done, (const char *) from + done,
                                     size - done);
        if (n <= 0)
            return fail_file(name, n == 0 ? FILE_IO : n, e);
        done += (size_t) n;
    }
    return true;
}

void tool_log(struct text line)
{
    nexus_log(line.ptr, line.len);
}
