/* What the files of webhook.h share. */
#ifndef NEXUS_ORCHESTRATOR_WEBHOOK_INTERNAL_H
#define NEXUS_ORCHESTRATOR_WEBHOOK_INTERNAL_H

#include "base/map.h"
#include "base/seal.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/webhook/webhook.h"
#include <stdatomic.h>

/* ---- webhooks.c: what a node remembers ---- */

/* An endpoint as this node knows it; the row is the truth. */
struct webhook_target {
    struct webhook_target *next; /* of the same tenant */
    uuid tenant_id;
    char name[WEBHOOK_NAME_BYTES_MAX + 1];
    uint32_t events; /* bit per enum webhook_event */
    bool is_paused;
    bool is_busy;     /* a round of deliveries is under way */
    bool is_counted;  /* `pending` is what the store says, give or take what is under way */
    bool is_seen;     /* by the load that is under way */
    int64_t look_ns;  /* when something may be due */
    int64_t round_ns; /* when the last round began */
    int64_t counted_ns, made_ns;
    int32_t pending;
    int64_t awaited_ns; /* until then a row that was written may still be on its way to the store */
    int64_t dropping_hour; /* the last one in which events were dropped */
};

/* Requests to one webhook that were refused since the last note in the audit log. */
struct webhook_refusals {
    uuid tenant_id; /* UUID_NONE: a free place */
    char name[WEBHOOK_NAME_BYTES_MAX + 1];
    char ip_address[64]; /* of the newest */
    int64_t count;
};

struct webhooks {
    struct webhook_options options;
    struct clock *clock;
    struct metrics *metrics;
    str decoy; /* a sealed secret that belongs to no webhook */
    struct arena *arena;

    pthread_mutex_t lock;  /* of the four below */
    struct map *by_tenant; /* first struct webhook_target of each, by the tenant's bytes */
    _Atomic size_t target_count;
    _Atomic bool is_in_doubt; /* the store may hold what is not remembered here: it is read again */
    struct webhook_refusals refusals[WEBHOOK_REFUSALS_MAX];
    size_t refused_count; /* of places taken */

    /* the sweep's own */
    bool is_loaded, is_open;            /* is_open: the group is there */
    int64_t load_ns, clean_ns, note_ns; /* loaded then; due then */
    size_t round_count;
    struct arena *group_arena;
    struct context group_ctx;
    struct group group;
};

/* UNAVAILABLE on a node that was made without. */
must_check bool webhooks_there(const struct orchestrator *o, struct error *e);

/* An endpoint was made or changed here. */
void webhook_target_set(struct webhooks *w, uuid tenant_id, const struct record *endpoint);
void webhook_target_forget(struct webhooks *w, uuid tenant_id, str name);
/* Something of it may be due now. */
void webhook_target_wake(struct webhooks *w, uuid tenant_id, str name);
/* So many of its deliveries are over (negative: wait again). */
void webhook_target_done(struct webhooks *w, uuid tenant_id, str name, int32_t count);

/* What is remembered may be wrong: the next turn of the sweep reads it again, and looks for what is due.  Any thread. */
void webhooks_doubt(struct webhooks *w);
/* store_commit of what is remembered here too: where nobody knows whether it was stored, there is doubt. */
must_check may_suspend bool webhook_commit(struct orchestrator *o, struct context *ctx,
                                           const struct batch *batch, struct error *e);
/* The sweep's: true once after a doubt. */
bool webhooks_take_doubt(struct webhooks *w);
void webhooks_wake_all(struct webhooks *w);

/* The lock is held; NULL when it is not known here. */
struct webhook_target *webhook_target_find(const struct webhooks *w, uuid tenant_id, str name);

/* ---- webhook_secret.c ---- */

/* Where a secret is good: it opens in no other row. */
str webhook_place(struct arena *arena, const char *kind, uuid tenant_id, str name);
str webhook_seal(const struct webhooks *w, struct arena *arena, str place, str secret);
must_check bool webhook_unseal(const struct webhooks *w, struct arena *arena, str place, str sealed,
                               str *secret);
/* The one given, checked, or a new one. */
must_check bool webhook_secret_choose(struct arena *arena, enum webhook_scheme scheme, str given,
                                      str *secret, struct error *e);
must_check bool webhook_overlap(const struct webhook_rotation *rotation, int64_t now_us,
                                int64_t *until_us, struct error *e);
must_check bool webhook_check_name(const char *what, str name, struct error *e);
void webhook_audit(struct orchestrator *o, struct batch *batch, const struct principal *principal,
                   const char *action, const char *type, str id, str details);

/* ---- webhook_endpoint.c ---- */

/* Bits of enum webhook_event. */
uint32_t webhook_events_read(struct arena *arena, str json);
/* The row of a delivery that begins anew. */
void webhook_delivery_row(struct record *row, uuid id, str endpoint, str event, str body,
                          int64_t now_us);
str webhook_body(struct arena *arena, const struct webhook_emission *emission);

/* ---- webhook_round.c ---- */

/* What is due at one endpoint, on a coroutine of the sweep's group. */
struct webhook_round {
    struct orchestrator *o;
    uuid tenant_id;
    char name[WEBHOOK_NAME_BYTES_MAX + 1];
    bool must_count; /* how many of its deliveries wait */
};
void webhook_round_run(struct context *ctx, void *give_round);

#endif
