#include "gateway/routes.h"
#include "base/arena.h"
#include "base/strbuf.h"

static const struct api_route routes[] = {
#define ROUTE(method_, path_, handler_, role_, scopes_, dialect_, body_, flags_, status_,          \
              request_, response_, summary_)                                                       \
    {                                                                                              \
        .method = HTTP_##method_,                                                                  \
        .path = S_INIT(path_),                                                                     \
        .handler = handler_,                                                                       \
        .role = ROLE_LEVEL_##role_,                                                                \
        .scopes = scopes_,                                                                         \
        .dialect = ROUTE_##dialect_,                                                               \
        .body = BODY_##body_,                                                                      \
        .flags = flags_,                                                                           \
        .status = status_,                                                                         \
        .request_schema = S_INIT(request_),                                                        \
        .response_schema = S_INIT(response_),                                                      \
        .summary = S_INIT(summary_),                                                               \
    },
#include "gateway/routes.def"
#undef ROUTE
};

size_t routes_count(void)
{
    return ARRAY_COUNT(routes);
}

const struct api_route *routes_at(size_t index)
{
    return &routes[index];
}

/* Segment by segment; {x} takes one that is not empty. */
static bool fits(str pattern, str path, str params[ROUTE_PARAMS_MAX])
{
    size_t count = 0;
    for (;;) {
        str want, have;
        bool has_more = str_cut(pattern, '/', &want, &pattern);
        bool path_has_more = str_cut(path, '/', &have, &path);
        bool is_param = str_starts_with(want, S("{"));
        if (is_param && str_is_empty(have))
            return false;
        if (is_param && params)
            params[count++] = have;
        if (!is_param && !str_equal(want, have))
            return false;
        if (has_more != path_has_more)
            return false;
        if (!has_more)
            return true;
    }
}

/* Most paths have no parameter: then one comparison finds the row. */
static const struct api_route *find_literal(enum http_method method, str path)
{
    for (size_t i = 0; i < ARRAY_COUNT(routes); i++)
        if (routes[i].method == method && str_equal(routes[i].path, path))
            return &routes[i];
    return NULL;
}

const struct api_route *routes_find(enum http_method method, str path, str params[ROUTE_PARAMS_MAX],
                                    bool *is_path_known)
{
    enum http_method wanted = method == HTTP_HEAD ? HTTP_GET : method;
    const struct api_route *literal =
        str_find_char(path, '{') == STR_NOT_FOUND ? find_literal(wanted, path) : NULL;
    *is_path_known = literal != NULL;
    if (literal)
        return literal;
    for (size_t i = 0; i < ARRAY_COUNT(routes); i++) {
        if (routes[i].method != wanted && *is_path_known)
            continue;
        if (!fits(routes[i].path, path, routes[i].method == wanted ? params : NULL))
            continue;
        *is_path_known = true;
        if (routes[i].method == wanted)
            return &routes[i];
    }
    return NULL;
}

str routes_allowed(struct arena *arena, str path)
{
    struct strbuf text;
    strbuf_init(&text, arena, 256);
    for (size_t i = 0; i < ARRAY_COUNT(routes); i++) {
        if (!fits(routes[i].path, path, NULL))
            continue;
        if (text.len > 0)
            strbuf_add(&text, S(", "));
        strbuf_add(&text, str_from_cstr(http_method_name(routes[i].method)));
        if (routes[i].method == HTTP_GET)
            strbuf_add(&text, S(", HEAD"));
    }
    return strbuf_str(&text);
}
