/*
 * Definitions of workflows: who has which versions, and the start of an instance.
 *
 *      table WORKFLOWS (a tenant's own)  --.
 *      folder `workflows` as shipped     --+--> resolve "name" or "name@range" --> entry (compiled, immutable, cached by digest)
 *      workflows.dir of the configuration -'
 *
 * A version never changes: putting another text under a version that is there is CONFLICT.  A tenant's own goes before those of the
 * configuration, and these before the shipped ones.  An instance pins what it started with: a definition that comes from a folder is
 * stored in the table with its first instance, so it stays what it was whatever becomes of the file.
 * A name belongs to whoever put it first: a workflow runs with the role of who starts it, so only operators add versions to another's.
 * Thread: any.
 */
#ifndef NEXUS_ORCHESTRATOR_WORKFLOW_STORE_H
#define NEXUS_ORCHESTRATOR_WORKFLOW_STORE_H

#include "agent/tool/labels.h"
#include "orchestrator/orchestrator.h"
#include "workflow/definition.h"

/* A compiled definition, held by a count. */
struct workflow_entry;
const struct definition *workflow_entry_definition(const struct workflow_entry *entry);
void workflow_entry_release(struct workflow_entry *entry); /* NULL is fine */

/* Definitions of folders: part of the settings.  Blocking. */
struct workflow_set;
struct workflow_set *workflow_set_create(void);
void workflow_set_destroy(struct workflow_set *set);
OWNED_DEFINE(workflow_set)
/* Every *.yaml, *.yml and *.json of the folder; what is broken is an error that names file and line, a folder that cannot
   be read one that names it.  `origin` is static text ("shipped", "configured").  A later folder's goes before an earlier one's of the same name and version. */
must_check bool workflow_set_add_folder(struct workflow_set *set, str folder, const char *origin,
                                        struct error *e);
size_t workflow_set_count(const struct workflow_set *set);
/* The newest of that name that fits the range (empty: any); NULL: none.  The set's own. */
const struct definition *workflow_set_find(const struct workflow_set *set, str name, str range);

struct workflow_cache; /* of an orchestrator */
struct workflow_cache *workflow_cache_create(void);
void workflow_cache_destroy(struct workflow_cache *cache);

/* "name", "name@range".  The newest that fits and is not deprecated; a range may name a deprecated one.  NOT_FOUND. */
may_suspend bool workflow_resolve(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                  str name, str range, struct workflow_entry **out,
                                  struct error *e);
/* Exactly what an instance pinned; CORRUPT when the digest does not fit. */
may_suspend bool workflow_pinned(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                 str name, str version, str pinned, struct workflow_entry **out,
                                 struct error *e);
/* Definitions from folders go into the table with their first instance. */
void workflow_pin(struct orchestrator *o, struct arena *arena, struct batch *batch,
                  const struct workflow_entry *entry);
/* SCHEMA: the input (JSON text) does not fit what the definition says. */
may_suspend bool workflow_check_input(struct context *ctx, const struct definition *definition,
                                      str input, struct error *e);

/* ---- for callers ---- */
/* Checked as a whole; *problems (may be NULL) has all that is wrong.  The same text again: fine.  *is_new: it was not there. */
may_suspend bool workflow_put(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal, str source,
                              struct definition_problems *problems, struct workflow_entry **out,
                              bool *is_new, struct error *e);
struct workflow_row {
    str name, version, digest, description, deprecated,
        origin; /* origin: tenant, configured, shipped */
    int64_t created_us;
};
/* Newest version first for each name; `name` empty: all names, newest version of each. */
may_suspend bool workflow_list(struct orchestrator *o, struct context *ctx,
                               const struct principal *principal, str name,
                               struct workflow_row **out, size_t *count, struct error *e);
may_suspend bool workflow_deprecate(struct orchestrator *o, struct context *ctx,
                                    const struct principal *principal, str name, str version,
                                    str why, struct error *e);

struct workflow_request {
    str name, range;
    str input;          /* JSON text; empty: {} */
    uuid session_id;    /* UUID_NONE: a new one */
    cost budget;        /* COST_LIMITLESS: the definition's and the session's */
    str user_id;        /* of a new session: empty: the caller */
    struct label label; /* of the input; all zero: its user's own words */
    uuid
        run_id; /* UUID_NONE: a new one; else the caller's choice, derived from what must start it once: CONFLICT the second time */
    void (*also)(void *owner, struct batch *batch); /* more writes for the commit; NULL: none */
    void *also_owner;
};
/* Durable when it returns, in one commit: session (when there was none), run, definition.  The input is checked against its schema, the
   policy is asked for run.start of "workflow:NAME". */
may_suspend bool workflow_start(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal,
                                const struct workflow_request *request, uuid *run_id,
                                uuid *session_id, struct error *e);
/* A signal for a run; CONFLICT when the run is final, LIMIT when too many wait. */
may_suspend bool workflow_signal(struct orchestrator *o, struct context *ctx,
                                 const struct principal *principal, uuid run_id, str name, str data,
                                 uuid *signal_id, struct error *e);
/* The same for what comes from outside: `label` of its data, and more writes for the commit. */
struct workflow_signalling {
    uuid run_id;
    str name, data;
    struct label label; /* all zero: a user's own words */
    void (*also)(void *owner, struct batch *batch, uuid signal_id); /* NULL: none */
    void *also_owner;
};
may_suspend bool workflow_signal_as(struct orchestrator *o, struct context *ctx,
                                    const struct principal *principal,
                                    const struct workflow_signalling *signal, uuid *signal_id,
                                    struct error *e);
/* The tree of an instance as JSON: {run_id, workflow, status, steps: [...]}, outputs joined. */
may_suspend bool workflow_write_steps(struct orchestrator *o, struct context *ctx,
                                      const struct principal *principal, uuid run_id,
                                      struct json_writer *w, struct error *e);

#endif
