#include "cli/tool/upload.h"

#include "base/arena.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *extension, *content_type;
} content_types[] = {
    {".csv", "text/csv"},
    {".tsv", "text/tab-separated-values"},
    {".json", "application/json"},
    {".jsonl", "application/x-ndjson"},
    {".ndjson", "application/x-ndjson"},
    {".txt", "text/plain"},
    {".md", "text/markdown"},
    {".html", "text/html"},
    {".xml", "application/xml"},
    {".yaml", "application/yaml"},
    {".yml", "application/yaml"},
    {".pdf", "application/pdf"},
    {".png", "image/png"},
    {".jpg", "image/jpeg"},
    {".jpeg", "image/jpeg"},
};

str upload_content_type(str name)
{
    for (size_t i = 0; i < ARRAY_COUNT(content_types); i++) {
        str extension = str_from_cstr(content_types[i].extension);
        if (name.len > extension.len &&
            str_equal_nocase(str_from(name, name.len - extension.len), extension))
            return str_from_cstr(content_types[i].content_type);
    }
    return S("application/octet-stream");
}

static str last_part(str path)
{
    size_t from = path.len;
    while (from > 0 && path.ptr[from - 1] != '/')
        from--;
    return str_from(path, from);
}

/* The file's bytes; mapped, so that a large one is read as it is sent. */
static bool map_file(struct arena *arena, str path, str *out, struct error *e)
{
    struct stat status;
    int fd = open(str_to_cstr(arena, path), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(e, REASON_USAGE, "file " STR_FMT ": %s", STR_ARG(path),
                         strerrordesc_np(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(fd);
        return error_set(e, REASON_USAGE, "file " STR_FMT " is no plain file", STR_ARG(path));
    }
    void *bytes = status.st_size > 0
                      ? mmap(NULL, (size_t) status.st_size, PROT_READ, MAP_PRIVATE, fd, 0)
                      : NULL;
    int failure = errno;
    close(fd);
    if (bytes == MAP_FAILED)
        return error_set(e, REASON_UNAVAILABLE, "file " STR_FMT ": %s", STR_ARG(path),
                         strerrordesc_np(failure));
    *out = str_of(bytes, (size_t) status.st_size);
    return true;
}

bool upload_file(struct client *client, struct context *ctx, str session_id, str name, str path,
                 const struct json **out, struct error *e)
{
    str bytes, answer;
    if (str_is_empty(name))
        name = last_part(path);
    if (!map_file(ctx->arena, path, &bytes, e))
        return false;
    struct client_request request = {
        .method = HTTP_PUT,
        .path = client_path(ctx, "/api/v1/sessions/{}/files/{}", (str[]){session_id, name}),
        .content_type = upload_content_type(name),
        .body = bytes,
    };
    OWNED(http_exchange) exchange = NULL;
    bool is_ok = client_send(client, ctx, &request, &exchange, e) &&
                 http_exchange_read_all(exchange, ctx, 64u << 10, &answer, e) &&
                 json_parse(ctx->arena, answer, (struct json_limits){0}, out, e);
    if (bytes.len > 0)
        munmap((void *) (uintptr_t) bytes.ptr, bytes.len);
    return is_ok || error_wrap(e, "file " STR_FMT, STR_ARG(path));
}
