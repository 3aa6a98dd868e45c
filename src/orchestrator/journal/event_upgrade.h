/*
 * Event upgrades: journals of older versions stay readable.
 *
 *      row (type, v, data) --upgrade v -> v+1 -> ...--> data as this version means it
 *
 * A change of an event's meaning raises its version in events.def and adds one line to the table in event_upgrade.c: how data of the
 * version before becomes data of the next.  Rows are never rewritten.  A row of a newer version than this program's is refused.
 * Pure.
 */
#ifndef NEXUS_ORCHESTRATOR_EVENT_UPGRADE_H
#define NEXUS_ORCHESTRATOR_EVENT_UPGRADE_H

#include "orchestrator/journal/event.h"

struct event_upgrade {
    enum event_type type;
    int from; /* the version it reads; it gives from + 1 */
    must_check bool (*upgrade)(struct arena *arena, const struct json *data,
                               const struct json **out, struct error *e);
};

/* `data` of the version `version` as the newest one; REASON_CORRUPT for a newer or unknown version. */
must_check bool event_upgrade(struct arena *arena, enum event_type type, int64_t version,
                              const struct json *data, const struct json **out, struct error *e);
/* The same by another table and up to another version: for tests. */
must_check bool event_upgrade_by(const struct event_upgrade *table, size_t count,
                                 struct arena *arena, enum event_type type, int64_t version,
                                 int64_t newest, const struct json *data, const struct json **out,
                                 struct error *e);

#endif
