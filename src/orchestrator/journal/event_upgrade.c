#include "orchestrator/journal/event_upgrade.h"

bool event_upgrade_by(const struct event_upgrade *table, size_t count, struct arena *arena,
                      enum event_type type, int64_t version, int64_t newest,
                      const struct json *data, const struct json **out, struct error *e)
{
    if (version > newest)
        return error_set(e, REASON_CORRUPT,
                         "an event %s of version %lld was written by a newer program: this one "
                         "knows versions up to %lld",
                         event_type_name(type), (long long) version, (long long) newest);
    for (; version < newest; version++) {
        const struct event_upgrade *step = NULL;
        for (size_t i = 0; i < count && !step; i++)
            if (table[i].type == type && table[i].from == version)
                step = &table[i];
        if (!step)
            return error_set(e, REASON_CORRUPT, "an event %s of the unknown version %lld",
                             event_type_name(type), (long long) version);
        if (!step->upgrade(arena, data, &data, e))
            return error_wrap(e, "upgrade an event %s from version %lld", event_type_name(type),
                              (long long) version);
    }
    *out = data;
    return true;
}

/* Every type is at its first version: there is nothing to upgrade yet. */
bool event_upgrade(struct arena *arena, enum event_type type, int64_t version,
                   const struct json *data, const struct json **out, struct error *e)
{
    return event_upgrade_by(NULL, 0, arena, type, version, event_type_version(type), data, out, e);
}
