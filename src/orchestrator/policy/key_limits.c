#include "orchestrator/policy/key_limits.h"

#include "base/arena.h"
#include "base/limits.h"

static bool read_number(const struct json *json, str member, int64_t *out, struct error *e)
{
    const struct json *value = json_get(json, member);
    if (value && json_type(value) == JSON_NULL) {
        *out = 0;
        return true;
    }
    return json_read_i64(json, member, 1, INT32_MAX, out, e);
}

static bool is_model_name(str name)
{
    if (str_is_empty(name) || name.len > KEY_MODEL_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++)
        if ((unsigned char) name.ptr[i] < 0x20)
            return false;
    return true;
}

static bool read_models(struct arena *arena, const struct json *json, str *out, struct error *e)
{
    const struct json *models = json_get(json, S("models")), *item;
    struct strbuf text;
    size_t count = 0;
    if (!models)
        return true;
    if (json_type(models) != JSON_ARRAY && json_type(models) != JSON_NULL)
        return error_set(e, REASON_SCHEMA, "models must be an array of names");
    strbuf_init(&text, arena, KEY_MODELS_BYTES_MAX);
    struct json_iter it = json_iter(models);
    while (json_next(&it, NULL, &item)) {
        str name;
        if (!json_to_str(item, &name) || !is_model_name(name))
            return error_set(e, REASON_SCHEMA, "models[%zu] must be a name of 1 to %d bytes", count,
                             KEY_MODEL_NAME_BYTES_MAX);
        if (count++ > 0)
            strbuf_add_char(&text, '\n');
        strbuf_add(&text, name);
    }
    if (strbuf_is_over(&text))
        return error_set(e, REASON_SCHEMA, "models: the names are over %d bytes together",
                         KEY_MODELS_BYTES_MAX);
    *out = strbuf_str(&text);
    return true;
}

static bool read_priority(const struct json *json, int *out, struct error *e)
{
    const struct json *value = json_get(json, S("priority"));
    str name;
    enum priority priority;
    if (!value)
        return true;
    if (json_type(value) == JSON_NULL) {
        *out = 0;
        return true;
    }
    if (!json_to_str(value, &name) || !priority_parse(name, &priority))
        return error_set(e, REASON_SCHEMA, "priority must be batch, normal or interactive");
    *out = (int) priority + 1;
    return true;
}

bool key_limits_read(struct arena *arena, const struct json *json, struct key_limits *limits,
                     struct error *e)
{
    return read_number(json, S("requests_per_minute"), &limits->requests_per_minute, e) &&
           read_number(json, S("tokens_per_minute"), &limits->tokens_per_minute, e) &&
           read_number(json, S("streams"), &limits->streams, e) &&
           read_priority(json, &limits->priority_max, e) &&
           read_models(arena, json, &limits->models, e);
}

bool key_limits_parse(struct arena *arena, str text, struct key_limits *limits, bool *has_budget,
                      struct error *e)
{
    const struct json *json;
    *limits = (struct key_limits){0};
    *has_budget = false;
    if (str_is_empty(text))
        return true;
    return json_parse(arena, text, (struct json_limits){0}, &json, e) &&
           key_limits_read(arena, json, limits, e) &&
           json_read_bool(json, S("has_budget"), has_budget, e);
}

bool key_limits_are_any(const struct key_limits *limits)
{
    return limits->requests_per_minute > 0 || limits->tokens_per_minute > 0 ||
           limits->streams > 0 || limits->priority_max > 0 || !str_is_empty(limits->models);
}

static void put_number(struct json_writer *w, str name, int64_t value)
{
    json_key(w, name);
    if (value > 0)
        json_write_i64(w, value);
    else
        json_write_null(w);
}

void key_limits_write(struct json_writer *w, const struct key_limits *limits, bool has_budget)
{
    str rest = limits->models, name;
    json_key(w, S("models"));
    if (str_is_empty(rest)) {
        json_write_null(w);
    } else {
        json_array_begin(w);
        while (!str_is_empty(rest) && str_next(&rest, '\n', &name))
            json_write_str(w, name);
        json_array_end(w);
    }
    put_number(w, S("requests_per_minute"), limits->requests_per_minute);
    put_number(w, S("tokens_per_minute"), limits->tokens_per_minute);
    put_number(w, S("streams"), limits->streams);
    json_key(w, S("priority"));
    if (limits->priority_max > 0)
        json_write_str(w, str_from_cstr(priority_name((enum priority)(limits->priority_max - 1))));
    else
        json_write_null(w);
    json_put_bool(w, S("has_budget"), has_budget);
}

str key_limits_text(struct arena *arena, const struct key_limits *limits, bool has_budget)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 2 * KEY_MODELS_BYTES_MAX + 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    key_limits_write(&w, limits, has_budget);
    json_object_end(&w);
    return strbuf_str(&text);
}
