/*
 * Run recording: an export (run_export.h) read back, with what a replay asks of it.
 *
 * Deltas stand apart from the other events ("solid" ones): how an answer was cut is not the run's doing.
 * Immutable after reading; everything lies on its arena.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_RECORDING_H
#define NEXUS_ORCHESTRATOR_RUN_RECORDING_H

#include "orchestrator/journal/event.h"
#include "orchestrator/replay/run_environment.h"
#include "store/store.h"

struct recorded_rows {
    struct record *items;
    size_t count;
};
struct run_recording {
    struct arena *arena;
    const struct json *document;
    uuid tenant_id, run_id, session_id;
    struct record run, session;
    struct recorded_rows messages, tool_calls, approvals, votes, files;
    const struct json *children;
    struct event *events; /* all */
    size_t event_count;
    struct event *solid; /* without deltas */
    size_t solid_count;
    bool *is_crash; /* of each solid run.resumed: the node had stopped */
    size_t begun;   /* solid events that stood before the run's first own: made by who began it */
    size_t deltas_begun;
};

/* INVALID for what is no export; CORRUPT when its events do not fold.  The document may be a test case: then its recording. */
must_check bool run_recording_read(struct arena *arena, str text, struct run_recording *out,
                                   struct error *e);

/* The next solid event of a type at or after `from`; solid_count when there is none. */
size_t recording_find(const struct run_recording *r, size_t from, enum event_type type);
/* The same before the next crash. */
size_t recording_find_alive(const struct run_recording *r, size_t from, enum event_type type,
                            const char *member, str value);
bool recording_is(const struct event *event, const char *member, str value);
const struct record *recording_row(const struct recorded_rows *rows, int column, uuid id);
/* The environment that counts at solid event `at`: that of the next model call that says one, else of the last before. */
must_check bool recording_environment(const struct run_recording *r, size_t at,
                                      struct run_environment *out, struct error *e);

#endif
