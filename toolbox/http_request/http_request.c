/*
 * http_request: checks the request and asks the host to send it.
 *
 * The host decides where it may go (allowed hosts, blocked addresses, sizes, time) on what it really
 * connects to; the checks here give a model a clear answer before anything is asked.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "nexus_tool.h"

enum { URL_BYTES_MAX = 8192, HEADERS_MAX = 64, HEADER_BYTES_MAX = 8192 };

static const char *const methods[] = {"GET",   "HEAD",   "POST",    "PUT",
                                      "PATCH", "DELETE", "OPTIONS", NULL};

/* A tool call may not speak as someone else, nor change how the connection works. */
static const char *const refused_headers[] = {"host",
                                              "cookie",
                                              "authorization",
                                              "proxy-authorization",
                                              "content-length",
                                              "transfer-encoding",
                                              "connection",
                                              "upgrade",
                                              "te",
                                              "trailer",
                                              "keep-alive",
                                              NULL};

static bool is_token(struct text t)
{
    static const char separators[] = "()<>@,;:\\\"/[]?={} \t";
    for (size_t i = 0; i < t.len; i++)
        if ((unsigned char) t.ptr[i] <= ' ' || (unsigned char) t.ptr[i] >= 0x7F ||
            strchr(separators, t.ptr[i]) != NULL)
            return false;
    return t.len > 0;
}

static bool has_control(struct text t)
{
    for (size_t i = 0; i < t.len; i++)
        if (((unsigned char) t.ptr[i] < ' ' && t.ptr[i] != '\t') || t.ptr[i] == 0x7F)
            return true;
    return false;
}

static bool is_refused(struct text name)
{
    for (int i = 0; refused_headers[i] != NULL; i++)
        if (strlen(refused_headers[i]) == name.len &&
            strncasecmp(refused_headers[i], name.ptr, name.len) == 0)
            return true;
    return false;
}

static bool check_url(struct text url, struct tool_error *e)
{
    bool is_http = url.len > 7 && strncasecmp(url.ptr, "http://", 7) == 0;
    bool is_https = url.len > 8 && strncasecmp(url.ptr, "https://", 8) == 0;
    if (!is_http && !is_https)
        return tool_fail(e, "invalid_input",
                         "\"url\" must begin with https:// or http:// and name a host");
    if (url.len > URL_BYTES_MAX)
        return tool_fail(e, "invalid_input", "\"url\" is longer than %d bytes", URL_BYTES_MAX);
    for (size_t i = 0; i < url.len; i++)
        if ((unsigned char) url.ptr[i] <= ' ' || url.ptr[i] == 0x7F)
            return tool_fail(
                e, "invalid_input",
                "\"url\" has a blank or control character at byte %zu; percent-encode it", i);
    size_t begin = is_https ? 8 : 7, end = begin + strcspn(url.ptr + begin, "/?#\\");
    if (memchr(url.ptr + begin, '@', end - begin) != NULL)
        return tool_fail(e, "invalid_input", "\"url\" must not carry a user name or password");
    return true;
}

static bool check_headers(yyjson_val *headers, struct tool_error *e)
{
    size_t i, max;
    yyjson_val *key, *value;
    if (headers == NULL || yyjson_is_null(headers))
        return true;
    if (!yyjson_is_obj(headers) || yyjson_obj_size(headers) > HEADERS_MAX)
        return tool_fail(e, "invalid_input", "\"headers\" must be an object of at most %d headers",
                         HEADERS_MAX);
    yyjson_obj_foreach(headers, i, max, key, value)
    {
        struct text name = {yyjson_get_str(key), yyjson_get_len(key)};
        struct text content = {yyjson_get_str(value), yyjson_get_len(value)};
        if (is_refused(name))
            return tool_fail(e, "invalid_input",
                             "header \"" TEXT_FMT
                             "\" cannot be set by a call; leave it out, credentials are "
                             "the operator's to configure",
                             TEXT_ARG(name));
        if (!is_token(name))
            return tool_fail(e, "invalid_input", "\"" TEXT_FMT "\" is not a header name",
                             TEXT_ARG(name));
        if (!yyjson_is_str(value) || has_control(content) || content.len > HEADER_BYTES_MAX)
            return tool_fail(e, "invalid_input",
                             "header \"" TEXT_FMT "\" must be one line of text of at most %d bytes",
                             TEXT_ARG(name), HEADER_BYTES_MAX);
    }
    return true;
}

static bool read_method(yyjson_val *input, const char **method, struct tool_error *e)
{
    struct text name;
    if (!tool_text_or(input, "method", TEXT("GET"), &name, e))
        return false;
    for (int i = 0; methods[i] != NULL; i++)
        if (strlen(methods[i]) == name.len && strncasecmp(methods[i], name.ptr, name.len) == 0) {
            *method = methods[i];
            return true;
        }
    return tool_fail(e, "invalid_input",
                     "\"method\" is GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, not \"" TEXT_FMT
                     "\"",
                     TEXT_ARG(name));
}

/* The body is text; anything else is sent as JSON, and said to be unless a header says otherwise. */
static bool add_body(yyjson_val *input, yyjson_mut_doc *request, yyjson_mut_val *root,
                     yyjson_mut_val *headers, const char *method, struct tool_error *e)
{
    yyjson_val *body = yyjson_obj_get(input, "body");
    if (body == NULL || yyjson_is_null(body))
        return true;
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
        return tool_fail(e, "invalid_input", "%s has no body; use POST or leave \"body\" out",
                         method);
    bool is_base64;
    if (!tool_flag_or(input, "body_base64", false, &is_base64, e))
        return false;
    if (is_base64 && !yyjson_is_str(body))
        return tool_fail(e, "invalid_input", "\"body\" must be base64 text with \"body_base64\"");
    if (yyjson_is_str(body))
        return yyjson_mut_obj_add_val(request, root, "body", yyjson_val_mut_copy(request, body)) &&
               yyjson_mut_obj_add_bool(request, root, "body_base64", is_base64);
    size_t len = 0;
    char *json = yyjson_val_write(body, 0, &len);
    if (json == NULL)
        return tool_fail(e, "invalid_input", "\"body\" cannot be written as JSON");
    yyjson_mut_obj_add_strn(request, root, "body", json, len);
    yyjson_mut_obj_iter iter;
    yyjson_mut_obj_iter_init(headers, &iter);
    for (yyjson_mut_val *key; (key = yyjson_mut_obj_iter_next(&iter)) != NULL;)
        if (strcasecmp(yyjson_mut_get_str(key), "content-type") == 0)
            return true;
    return yyjson_mut_obj_add_str(request, headers, "Content-Type", "application/json");
}

/* Only what the contract names is passed on. */
static bool shape_answer(yyjson_val *answer, yyjson_mut_doc *output, struct tool_error *e)
{
    yyjson_val *status = yyjson_obj_get(answer, "status"),
               *headers = yyjson_obj_get(answer, "headers"), *body = yyjson_obj_get(answer, "body");
    if (!yyjson_is_int(status))
        return tool_fail(e, "internal", "the host's answer has no status");
    yyjson_mut_val *root = yyjson_mut_obj(output);
    yyjson_mut_obj_add_val(output, root, "status", yyjson_val_mut_copy(output, status));
    yyjson_mut_obj_add_val(output, root, "headers",
                           yyjson_is_obj(headers) ? yyjson_val_mut_copy(output, headers)
                                                  : yyjson_mut_obj(output));
    yyjson_mut_obj_add_val(output, root, "body",
                           yyjson_is_str(body) ? yyjson_val_mut_copy(output, body)
                                               : yyjson_mut_str(output, ""));
    yyjson_mut_obj_add_bool(output, root, "truncated",
                            yyjson_is_true(yyjson_obj_get(answer, "truncated")));
    if (yyjson_is_true(yyjson_obj_get(answer, "body_base64")))
        yyjson_mut_obj_add_bool(output, root, "body_base64", true);
    yyjson_val *url = yyjson_obj_get(answer, "url");
    if (yyjson_is_str(url))
        yyjson_mut_obj_add_val(output, root, "url", yyjson_val_mut_copy(output, url));
    yyjson_mut_doc_set_root(output, root);
    return true;
}

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    struct text url;
    const char *method;
    yyjson_val *headers = yyjson_obj_get(input, "headers"), *answer;
    if (!tool_text(input, "url", &url, e) || !check_url(url, e) ||
        !read_method(input, &method, e) || !check_headers(headers, e))
        return false;
    yyjson_mut_doc *request = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(request);
    yyjson_mut_val *sent =
        yyjson_is_obj(headers) ? yyjson_val_mut_copy(request, headers) : yyjson_mut_obj(request);
    yyjson_mut_doc_set_root(request, root);
    yyjson_mut_obj_add_str(request, root, "method", method);
    yyjson_mut_obj_add_strn(request, root, "url", url.ptr, url.len);
    yyjson_mut_obj_add_val(request, root, "headers", sent);
    return add_body(input, request, root, sent, method, e) &&
           tool_host_call("http_request", request, &answer, e) && shape_answer(answer, output, e);
}
