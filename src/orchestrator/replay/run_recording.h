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

/* Where something of an id stands: sorted, so that a long recording is read in linear time. */
struct recorded_place {
    uuid id;
    size_t at;
};
struct recorded_index {
    struct recorded_place *items;
    size_t count;
};
/* Deltas of each attempt, in their order: places in a list of events, from 1. */
struct delta_index {
    size_t *first; /* of each attempt; 0: it has none */
    size_t *after; /* of each event that is a delta: the next of its attempt; 0: it was the last */
    size_t attempt_count;
};
void delta_index_init(struct delta_index *index, struct arena *arena, const struct event *events,
                      size_t count);
/* The one after `at` (0: the first); 0 at the end. */
size_t delta_index_next(const struct delta_index *index, int64_t attempt, size_t at);

struct recorded_rows {
    struct record *items;
    size_t count;
    struct recorded_index by_id; /* their first column */
};
struct run_recording {
    struct arena *arena;
    const struct json *document;
    uuid tenant_id, run_id, session_id;
    struct record run, session;
    struct recorded_rows messages, tool_calls, approvals, votes, files, workflows, signals;
    const struct json **children;
    size_t child_count;
    struct recorded_index by_child;
    struct event *events; /* all */
    size_t event_count;
    struct event *solid; /* without deltas */
    size_t solid_count;
    bool *
        is_crash; /* of each solid event: the run's memory was lost before it (run_recording.c says how that shows) */
    size_t *lives; /* how many of them stand up to each solid event, itself among them */
    struct recorded_index
        named; /* first solid event that tells of a message or tool call, from `begun` on */
    struct recorded_index ended; /* its tool.completed */
    struct recorded_index asked; /* calls that a model asked for, or a step: where */
    struct delta_index deltas;
    size_t begun; /* solid events that stood before the run's first own: made by who began it */
    size_t deltas_begun;
};

/* INVALID for what is no export; CORRUPT when its events do not fold.  The document may be a test case: then its recording. */
must_check bool run_recording_read(struct arena *arena, str text, struct run_recording *out,
                                   struct error *e);

/* From here on it is supposed that the run's memory was lost before solid event `at`, or that it was not. */
void recording_set_crash(struct run_recording *r, size_t at, bool is_crash);

/* The next solid event of a type at or after `from`; solid_count when there is none. */
size_t recording_find(const struct run_recording *r, size_t from, enum event_type type);
/* The same before the next crash. */
size_t recording_find_alive(const struct run_recording *r, size_t from, enum event_type type,
                            const char *member, str value);
/* The end of a tool call in the run's life of that number, from 0; solid_count when there is none. */
size_t recording_end_of(const struct run_recording *r, size_t life, uuid call_id);
/* First solid event of the run's own that tells of this message or tool call; solid_count: none does. */
size_t recording_named(const struct run_recording *r, uuid id);
bool recording_is_asked(const struct run_recording *r,
                        uuid call_id); /* by a model or a step, not by a guest */
const struct json *recording_child(const struct run_recording *r, uuid run_id); /* NULL: none */
/* May it say which environment counts from here on? */
bool recording_names_environment(enum event_type type);
bool recording_is(const struct event *event, const char *member, str value);
const struct record *recording_row(const struct recorded_rows *rows, uuid id); /* NULL: none */
/* The environment that counts at solid event `at`: the next one that is named, else the last before.  NULL: there is none. */
const struct json *recording_environment(const struct run_recording *r, size_t at, struct error *e);

#endif
