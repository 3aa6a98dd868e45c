#include "orchestrator/journal/event.h"

static const struct {
    const char *name;
    int version;
} event_types[EVENT_TYPE_COUNT] = {
#define EVENT(name, text, version) [EVENT_##name] = {text, version},
#include "orchestrator/journal/events.def"
#undef EVENT
};

const char *event_type_name(enum event_type type)
{
    return event_types[type].name;
}

int event_type_version(enum event_type type)
{
    return event_types[type].version;
}

bool event_type_parse(str text, enum event_type *out)
{
    for (int i = 0; i < EVENT_TYPE_COUNT; i++) {
        if (!str_equal(text, str_from_cstr(event_types[i].name)))
            continue;
        *out = (enum event_type) i;
        return true;
    }
    return false;
}

bool event_is_final(enum event_type type)
{
    return type == EVENT_RUN_COMPLETED || type == EVENT_RUN_FAILED || type == EVENT_RUN_CANCELLED;
}

static bool cost_field_read_json(const struct json *value, int64_t *out)
{
    if (json_type(value) == JSON_NULL) {
        *out = COST_UNLIMITED;
        return true;
    }
    str text;
    if (json_to_str(value, &text))
        return str_to_i64(text, out);
    return json_to_i64(value, out);
}

bool cost_read_json(const struct json *value, cost *out)
{
    if (json_type(value) != JSON_OBJECT)
        return false;
    cost read = {0};
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        const struct json *member = json_get(value, str_from_cstr(cost_field_name(i)));
        if (member && !cost_field_read_json(member, cost_field(&read, i)))
            return false;
    }
    *out = read;
    return true;
}
