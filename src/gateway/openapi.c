/* The OpenAPI 3.1 document, made from routes.def and openapi_schemas.def. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"
#include <stdio.h>

enum { DOCUMENT_BYTES_MAX = 1 << 20 };

static const struct {
    str name, schema;
} schemas[] = {
#define SCHEMA(name, ...) {S_INIT(#name), S_INIT(#__VA_ARGS__)},
#define PAGE(name, item)                                                                           \
    {S_INIT(#name), S_INIT("{\"type\":\"object\",\"required\":[\"items\",\"next_cursor\"],"        \
                           "\"properties\":{\"items\":{\"type\":\"array\","                        \
                           "\"items\":{\"$ref\":\"#/components/schemas/" #item                     \
                           "\"}},\"next_cursor\":{\"type\":[\"string\",\"null\"]}}}")},
#include "gateway/openapi_schemas.def"
#undef SCHEMA
#undef PAGE
};

/* ---- what a body may say ---- */

struct schema_set {
    const struct json *items[ARRAY_COUNT(schemas)];
};

static size_t index_of(str name)
{
    size_t i = 0;
    while (i < ARRAY_COUNT(schemas) && !str_equal(schemas[i].name, name))
        i++;
    return i;
}

struct schema_set *schema_set_create(struct arena *arena)
{
    struct schema_set *set = ARENA_NEW(arena, struct schema_set);
    for (size_t i = 0; i < ARRAY_COUNT(schemas); i++) {
        bool is_read =
            json_parse(arena, schemas[i].schema, (struct json_limits){0}, &set->items[i], NULL);
        ensure(is_read); /* ours */
    }
    return set;
}

/* Compatible routes take what their dialect's clients send. */
static bool is_strict(const struct api_route *route)
{
    return route->dialect == ROUTE_NATIVE && (route->body == BODY_JSON || route->body == BODY_CHAT);
}

static const struct json *resolve(const struct schema_set *set, const struct json *schema)
{
    str reference = STR_NONE, name;
    if (!json_to_str(json_get(schema, S("$ref")), &reference) ||
        !str_strip_prefix(reference, S("#/components/schemas/"), &name))
        return schema;
    size_t index = index_of(name);
    ensure(index < ARRAY_COUNT(schemas));
    return set->items[index];
}

static str names_of(struct arena *arena, const struct json *properties)
{
    struct json_iter it = json_iter(properties);
    const struct json *value;
    struct strbuf names;
    str name;
    strbuf_init(&names, arena, GATEWAY_JSON_BODY_BYTES_MAX);
    while (json_next(&it, &name, &value)) {
        if (names.len > 0)
            strbuf_add_char(&names, ' ');
        strbuf_add(&names, name);
    }
    return strbuf_str(&names);
}

/* Members only: whether a value is one that its reader takes, its reader says.  As deep as the schema goes. */
static bool check_members(const struct schema_set *set, struct arena *arena,
                          const struct json *value, const struct json *schema, struct error *e)
{
    const struct json *item, *member;
    str name;
    schema = resolve(set, schema);
    bool is_array = json_type(value) == JSON_ARRAY;
    const struct json *inner = json_get(schema, is_array ? S("items") : S("properties"));
    if (!inner || (!is_array && json_type(value) != JSON_OBJECT))
        return true;
    struct json_iter it = json_iter(value);
    while (json_next(&it, &name, &item)) {
        member = is_array ? inner : json_get(inner, name);
        if (!member)
            return body_refuse_member(name, names_of(arena, inner), e);
        if (!check_members(set, arena, item, member, e))
            return is_array ? false : error_wrap(e, STR_FMT, STR_ARG(name));
    }
    return true;
}

bool schema_set_check(const struct schema_set *set, struct arena *arena,
                      const struct api_route *route, const struct json *body, struct error *e)
{
    size_t index = is_strict(route) ? index_of(route->request_schema) : ARRAY_COUNT(schemas);
    return index == ARRAY_COUNT(schemas) || check_members(set, arena, body, set->items[index], e);
}

/* What bodies are held against says so. */
static str published(struct arena *arena, size_t index)
{
    str name = schemas[index].name, schema = schemas[index].schema;
    for (size_t i = 0; i < routes_count(); i++)
        if (is_strict(routes_at(i)) && str_equal(routes_at(i)->request_schema, name))
            return str_printf(arena, "{\"additionalProperties\":false," STR_FMT,
                              STR_ARG(str_from(schema, 1)));
    return schema;
}

/* ---- the document ---- */

static void put_ref(struct json_writer *w, str schema)
{
    char text[128] = "#/components/schemas/";
    size_t prefix = strlen(text), len = schema.len < sizeof text - prefix ? schema.len : 0;
    memcpy(text + prefix, schema.ptr, len);
    json_key(w, S("schema"));
    json_object_begin(w);
    json_put_str(w, S("$ref"), str_of(text, prefix + len));
    json_object_end(w);
}

/* {"content": {type: {schema}}}; a name with a slash is a media type by itself. */
static void put_content(struct json_writer *w, str schema, str type, bool also_events)
{
    bool is_media_type = str_find_char(schema, '/') != STR_NOT_FOUND;
    json_key(w, S("content"));
    json_object_begin(w);
    json_key(w, is_media_type ? schema : type);
    json_object_begin(w);
    if (!is_media_type)
        put_ref(w, schema);
    json_object_end(w);
    if (also_events)
        json_put_raw(w, S("text/event-stream"), S("{\"schema\":{\"type\":\"string\"}}"));
    json_object_end(w);
}

static void put_parameter(struct json_writer *w, str name, const char *in, bool is_required,
                          const char *schema)
{
    json_object_begin(w);
    json_put_str(w, S("name"), name);
    json_put_str(w, S("in"), str_from_cstr(in));
    json_put_bool(w, S("required"), is_required);
    json_put_raw(w, S("schema"), str_from_cstr(schema));
    json_object_end(w);
}

/* {"type": "string", "enum": [...]} and the like. */
static void put_query_schema(struct json_writer *w, const struct route_query *query)
{
    str rest = query->values, value;
    json_key(w, S("schema"));
    json_object_begin(w);
    json_put_str(w, S("type"), query->kind == QUERY_NUMBER ? S("integer") : S("string"));
    if (query->kind == QUERY_NUMBER)
        json_put_i64(w, S("minimum"), 0);
    if (query->kind == QUERY_ID || query->kind == QUERY_TIME)
        json_put_str(w, S("format"), query->kind == QUERY_ID ? S("uuid") : S("date-time"));
    if (query->kind == QUERY_CHOICE) {
        json_key(w, S("enum"));
        json_array_begin(w);
        while (str_next(&rest, '|', &value))
            json_write_str(w, value);
        json_array_end(w);
    }
    json_object_end(w);
}

/* Those of queries.def; limit and cursor of a page have schemas of their own. */
static void put_queries(struct json_writer *w, const struct api_route *route)
{
    struct route_query query;
    for (size_t i = 0; queries_at(route, i, &query); i++) {
        if (query.kind == QUERY_ANY || str_is_empty(query.summary))
            continue;
        json_object_begin(w);
        json_put_str(w, S("name"), query.name);
        json_put_str(w, S("in"), S("query"));
        json_put_bool(w, S("required"), false);
        json_put_str(w, S("description"), query.summary);
        put_query_schema(w, &query);
        json_object_end(w);
    }
}

static void put_path_parameters(struct json_writer *w, str path)
{
    str segment, name;
    while (str_next(&path, '/', &segment)) {
        if (!str_strip_prefix(segment, S("{"), &name))
            continue;
        name = str_slice(name, 0, name.len - 1);
        put_parameter(w, name, "path", true,
                      str_equal(name, S("id")) ? "{\"type\":\"string\",\"format\":\"uuid\"}"
                                               : "{\"type\":\"string\"}");
    }
}

static void put_parameters(struct json_writer *w, const struct api_route *route)
{
    json_key(w, S("parameters"));
    json_array_begin(w);
    put_path_parameters(w, route->path);
    if (route->flags & ROUTE_PAGED) {
        put_parameter(w, S("limit"), "query", false,
                      "{\"type\":\"integer\",\"minimum\":1,\"maximum\":200,\"default\":50}");
        put_parameter(w, S("cursor"), "query", false, "{\"type\":\"string\"}");
    }
    put_queries(w, route);
    if (route->flags & ROUTE_CREATES)
        put_parameter(w, S("Idempotency-Key"), "header", false,
                      "{\"type\":\"string\",\"maxLength\":255}");
    if (route->dialect == ROUTE_MCP) {
        put_parameter(w, S("MCP-Protocol-Version"), "header", false, "{\"type\":\"string\"}");
        put_parameter(w, S("Mcp-Session-Id"), "header", false, "{\"type\":\"string\"}");
        if (route->method == HTTP_GET)
            put_parameter(w, S("Last-Event-ID"), "header", false, "{\"type\":\"string\"}");
    }
    if (route->dialect != ROUTE_NATIVE && route->dialect != ROUTE_MCP && route->method == HTTP_POST)
        put_parameter(w, S("X-Nexus-Session"), "header", false,
                      "{\"type\":\"string\",\"format\":\"uuid\"}");
    if (route->method == HTTP_GET && route->flags & ROUTE_EVENTS && route->dialect != ROUTE_MCP)
        put_parameter(w, S("Last-Event-ID"), "header", false,
                      "{\"type\":\"integer\",\"minimum\":0}");
    json_array_end(w);
}

static void put_responses(struct json_writer *w, const struct api_route *route)
{
    char status[8];
    snprintf(status, sizeof status, "%d", route->status);
    json_key(w, S("responses"));
    json_object_begin(w);
    json_key(w, str_from_cstr(status));
    json_object_begin(w);
    json_put_str(w, S("description"), route->summary);
    if (!str_is_empty(route->response_schema))
        put_content(w, route->response_schema, S("application/json"), route->flags & ROUTE_EVENTS);
    json_object_end(w);
    json_key(w, S("default"));
    json_object_begin(w);
    static const char *const errors[] = {
        [ROUTE_NATIVE] = "Problem",
        [ROUTE_OPENAI] = "OpenAIError",
        [ROUTE_ANTHROPIC] = "AnthropicError",
        [ROUTE_MCP] = "McpMessage",
    };
    json_put_str(w, S("description"), S("What went wrong"));
    put_content(w, str_from_cstr(errors[route->dialect]),
                route->dialect == ROUTE_NATIVE ? S("application/problem+json")
                                               : S("application/json"),
                false);
    json_object_end(w);
    json_object_end(w);
}

static void put_rights(struct json_writer *w, const struct api_route *route)
{
    static const char *const roles[] = {"viewer", "user", "operator", "admin"};
    if (route->flags & ROUTE_PUBLIC) {
        json_put_raw(w, S("security"), S("[]"));
        return;
    }
    json_put_str(w, S("x-nexus-role"), str_from_cstr(roles[route->role]));
    if (route->scopes & SCOPE_PLATFORM)
        json_put_str(w, S("x-nexus-scope"), S("platform"));
}

static void put_operation(struct json_writer *w, struct arena *arena, const struct api_route *route,
                          str id)
{
    json_key(w, str_lower(arena, str_from_cstr(http_method_name(route->method))));
    json_object_begin(w);
    json_put_str(w, S("operationId"), id);
    json_put_str(w, S("summary"), route->summary);
    put_rights(w, route);
    put_parameters(w, route);
    if (!str_is_empty(route->request_schema)) {
        json_key(w, S("requestBody"));
        json_object_begin(w);
        json_put_bool(w, S("required"), route->handler != route_session_create);
        put_content(w, route->request_schema, S("application/json"), false);
        json_object_end(w);
    }
    put_responses(w, route);
    json_object_end(w);
}

static const str operation_ids[] = {
#define ROUTE(method, path, handler, role, scopes, dialect, body, flags, status, request,          \
              response, summary)                                                                   \
    S_INIT(#handler),
#include "gateway/routes.def"
#undef ROUTE
};

/* All methods of a path under one key, at its first place in the table. */
static void put_path(struct json_writer *w, struct arena *arena, size_t first)
{
    str path = routes_at(first)->path, id = STR_NONE;
    for (size_t i = 0; i < first; i++)
        if (str_equal(routes_at(i)->path, path))
            return;
    json_key(w, path);
    json_object_begin(w);
    for (size_t i = first; i < routes_count(); i++)
        if (str_equal(routes_at(i)->path, path) &&
            str_strip_prefix(operation_ids[i], S("route_"), &id))
            put_operation(w, arena, routes_at(i), id);
    json_object_end(w);
}

str openapi_document(struct arena *arena)
{
    struct strbuf text;
    struct json_writer writer, *w = &writer;
    strbuf_init(&text, arena, DOCUMENT_BYTES_MAX);
    json_writer_init(w, &text);
    json_object_begin(w);
    json_put_str(w, S("openapi"), S("3.1.0"));
    json_put_raw(w, S("info"),
                 S("{\"title\":\"Nexus Agent "
                   "Platform\",\"version\":\"1\",\"license\":{\"name\":\"Apache-2.0\","
                   "\"identifier\":\"Apache-2.0\"},"
                   "\"description\":\"Sessions, runs, tools, approvals, budgets and policies of an "
                   "agent platform, and an "
                   "OpenAI-compatible API in front of models and agents. Bodies of /api/v1 "
                   "say only what their schema has: any other member is refused (422); so is any "
                   "query parameter that the route does not list (400).\"}"));
    json_put_raw(w, S("servers"), S("[{\"url\":\"/\"}]"));
    json_put_raw(w, S("security"), S("[{\"bearer\":[]},{\"header\":[]}]"));
    json_key(w, S("paths"));
    json_object_begin(w);
    for (size_t i = 0; i < routes_count(); i++)
        put_path(w, arena, i);
    json_object_end(w);
    json_key(w, S("components"));
    json_object_begin(w);
    json_put_raw(
        w, S("securitySchemes"),
        S("{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\",\"bearerFormat\":\"nxk_...\"},"
          "\"header\":{\"type\":\"apiKey\",\"in\":\"header\",\"name\":\"x-api-key\"}}"));
    json_key(w, S("schemas"));
    json_object_begin(w);
    for (size_t i = 0; i < ARRAY_COUNT(schemas); i++)
        json_put_raw(w, schemas[i].name, published(arena, i));
    json_object_end(w);
    json_object_end(w);
    json_object_end(w);
    return strbuf_str(&text);
}
