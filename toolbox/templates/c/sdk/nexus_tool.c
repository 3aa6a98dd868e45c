/* The ABI nexus-export: exports for the host, imports from it. */
#include "nexus.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(name) __attribute__((import_module("nexus"), import_name(name)))

enum {
    FILE_NOT_FOUND = -1,
    FILE_DENIED = -2,
    FILE_CHUNK_BYTES = 1 << 20, /* one host copy at most, so that a huge read can be interrupted */
};

IMPORT("host_call")
int64_t nexus_host_call(const char *name, size_t name_len, const char *request, size_t request_len);
IMPORT("file_size") int64_t nexus_file_size(const char *name, size_t name_len);
IMPORT("file_read")
int32_t nexus_file_read(const char *name, size_t name_len, uint64_t offset, void *to, size_t size);
IMPORT("log") void nexus_log(const char *ptr, size_t len);

struct text nexus_out_bytes(const struct out *out); /* nexus_json.c */
void *nexus_alloc(size_t size);
uint64_t nexus_run(const char *ptr, size_t len);

EXPORT("nexus_alloc") void *nexus_alloc(size_t size)
{
    void *memory = malloc(size == 0 ? 1 : size);
    if (!memory)
        __builtin_trap();
    return memory;
}

bool tool_fail(struct tool_error *e, const char *code, const char *format, ...)
{
    va_list arguments;
    snprintf(e->code, sizeof e->code, "%s", code);
    va_start(arguments, format);
    vsnprintf(e->message, sizeof e->message, format, arguments);
    va_end(arguments);
    return false;
}

static struct out *run(struct text input)
{
    struct tool_error e = {0};
    struct out *output = out_create();
    const struct json *root = json_parse(input);
    if (json_kind_of(root) == JSON_OBJECT
            ? tool_run(root, output, &e)
            : tool_fail(&e, "invalid_input", "the input is no JSON object"))
        return output;
    output = out_create(); /* whatever was begun is dropped */
    out_object(output);
    out_name(output, "error");
    out_object(output);
    out_name(output, "code");
    out_text(output, text_of(e.code));
    out_name(output, "message");
    out_text(output, text_of(e.message));
    out_end(output);
    out_end(output);
    return output;
}

EXPORT("nexus_run") uint64_t nexus_run(const char *ptr, size_t len)
{
    struct text bytes = nexus_out_bytes(run((struct text){ptr, len}));
    return (uint64_t) (uintptr_t) bytes.ptr << 32 | bytes.len;
}

bool tool_host_call(const char *name, struct out *request, const struct json **answer,
                    struct tool_error *e)
{
    struct text code = text_of("internal"), message = text_of("the host gave no answer");
    struct text sent = nexus_out_bytes(request);
    uint64_t packed = (uint64_t) nexus_host_call(name, strlen(name), sent.ptr, sent.len);
    const char *ptr = (const char *) (uintptr_t) (packed >> 32); /* NOLINT: the host wrote it */
    const struct json *root = json_parse((struct text){ptr, (size_t) (packed & UINT32_MAX)});
    *answer = json_get(root, "ok");
    if (*answer)
        return true;
    json_text(json_get(json_get(root, "error"), "code"), &code);
    json_text(json_get(json_get(root, "error"), "message"), &message);
    tool_fail(e, "internal", "%.*s", (int) message.len, message.ptr);
    snprintf(e->code, sizeof e->code, "%.*s", (int) code.len, code.ptr);
    return false;
}

static bool fail_file(struct text name, int64_t status, struct tool_error *e)
{
    int len = (int) (name.len < 200 ? name.len : 200);
    if (status == FILE_NOT_FOUND)
        return tool_fail(e, "not_found", "no file \"%.*s\" in this session", len, name.ptr);
    if (status == FILE_DENIED)
        return tool_fail(e, "denied", "this tool may not touch the file \"%.*s\"", len, name.ptr);
    return tool_fail(e, "io", "the file \"%.*s\" could not be read", len, name.ptr);
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
        int32_t count =
            nexus_file_read(name.ptr, name.len, offset + filled, (char *) to + filled, want);
        if (count < 0)
            return fail_file(name, count, e);
        if (count == 0)
            break;
        filled += (size_t) count;
    }
    *got = filled;
    return true;
}

void tool_log(struct text line)
{
    nexus_log(line.ptr, line.len);
}
