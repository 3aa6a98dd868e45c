#include "orchestrator/admission.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "observe/metrics.h"
#include <pthread.h>
#include <stdlib.h>

enum { BUCKETS = 4096 };

struct user_turn {
    struct list link;  /* of tenant_turn.users */
    struct list queue; /* of queued_run, the oldest first */
    uint64_t user;     /* hash of the name: two users of one hash share a turn */
};
/* A tenant that holds places or waits; gone when it does neither. */
struct tenant_turn {
    struct list link;  /* of its bucket */
    struct list turn;  /* of admission.turns, while it waits */
    struct list users; /* of user_turn, the next one first */
    uuid tenant_id;
    size_t active, queued;
};
struct queued_run {
    struct list link;   /* of user_turn.queue */
    struct list bucket; /* by run id */
    struct tenant_turn *tenant;
    struct user_turn *user;
    uuid run_id;
    void (*start)(void *argument);
    void *argument;
};
struct admission {
    struct admission_options options;
    uint64_t seed;
    pthread_mutex_t lock;
    struct list turns; /* of tenants that wait, the next one first */
    struct list tenants[BUCKETS], runs[BUCKETS];
    size_t active, queued, tenants_waiting;
    int64_t refused;
    struct metric_series *active_series, *queued_series, *refused_series;
};

/* ---- tables; the lock is held ---- */

static size_t bucket_of(const struct admission *a, uuid id)
{
    return str_hash(str_of((const char *) id.bytes, sizeof id.bytes), a->seed) % BUCKETS;
}

static struct tenant_turn *find_tenant(struct admission *a, uuid tenant_id)
{
    LIST_EACH(node, &a->tenants[bucket_of(a, tenant_id)])
    {
        struct tenant_turn *tenant = LIST_ITEM(node, struct tenant_turn, link);
        if (uuid_equal(tenant->tenant_id, tenant_id))
            return tenant;
    }
    return NULL;
}

static struct tenant_turn *find_or_add_tenant(struct admission *a, uuid tenant_id)
{
    struct tenant_turn *tenant = find_tenant(a, tenant_id);
    if (tenant)
        return tenant;
    tenant = calloc(1, sizeof *tenant);
    ensure(tenant != NULL);
    tenant->tenant_id = tenant_id;
    list_init(&tenant->users);
    list_push_back(&a->tenants[bucket_of(a, tenant_id)], &tenant->link);
    return tenant;
}

static void forget_tenant(struct tenant_turn *tenant)
{
    if (tenant->active > 0 || tenant->queued > 0)
        return;
    list_remove(&tenant->link);
    free(tenant);
}

static bool is_queued(struct admission *a, uuid run_id)
{
    LIST_EACH(node, &a->runs[bucket_of(a, run_id)])
    {
        if (uuid_equal(LIST_ITEM(node, struct queued_run, bucket)->run_id, run_id))
            return true;
    }
    return false;
}

static struct user_turn *find_or_add_user(struct tenant_turn *tenant, uint64_t user)
{
    LIST_EACH(node, &tenant->users)
    {
        struct user_turn *turn = LIST_ITEM(node, struct user_turn, link);
        if (turn->user == user)
            return turn;
    }
    struct user_turn *turn = calloc(1, sizeof *turn);
    ensure(turn != NULL);
    turn->user = user;
    list_init(&turn->queue);
    list_push_back(&tenant->users, &turn->link);
    return turn;
}

/* ---- turns ---- */

static void queue_run(struct admission *a, const struct admission_request *request)
{
    struct queued_run *run = calloc(1, sizeof *run);
    ensure(run != NULL);
    struct tenant_turn *tenant = find_or_add_tenant(a, request->tenant_id);
    *run = (struct queued_run){.tenant = tenant,
                               .user = find_or_add_user(tenant, request->user),
                               .run_id = request->run_id,
                               .start = request->start,
                               .argument = request->argument};
    list_push_back(&run->user->queue, &run->link);
    list_push_back(&a->runs[bucket_of(a, run->run_id)], &run->bucket);
    if (tenant->queued++ == 0) {
        list_push_back(&a->turns, &tenant->turn);
        a->tenants_waiting++;
    }
    a->queued++;
}

/* The last eighth is for those who hold less than an eighth. */
static bool may_take(const struct admission *a, size_t held)
{
    size_t kept = a->options.places / 8;
    return a->active + kept < a->options.places || (a->active < a->options.places && held < kept) ||
           (kept == 0 && a->active < a->options.places);
}

static void count_in(struct admission *a, struct tenant_turn *tenant)
{
    tenant->active++;
    a->active++;
}

/* The user whose turn it is goes to the end of its tenant's, the tenant to the end of all. */
static struct queued_run *take_of(struct admission *a, struct tenant_turn *tenant)
{
    struct user_turn *user = LIST_ITEM(list_first(&tenant->users), struct user_turn, link);
    struct queued_run *run = LIST_ITEM(list_first(&user->queue), struct queued_run, link);
    list_remove(&run->link);
    list_remove(&run->bucket);
    list_remove(&user->link);
    if (list_is_empty(&user->queue))
        free(user);
    else
        list_push_back(&tenant->users, &user->link);
    list_remove(&tenant->turn);
    a->queued--;
    if (--tenant->queued > 0)
        list_push_back(&a->turns, &tenant->turn);
    else
        a->tenants_waiting--;
    count_in(a, tenant);
    return run;
}

static struct queued_run *take_next(struct admission *a)
{
    if (a->active >= a->options.places)
        return NULL;
    LIST_EACH(node, &a->turns)
    {
        struct tenant_turn *tenant = LIST_ITEM(node, struct tenant_turn, turn);
        if (may_take(a, tenant->active))
            return take_of(a, tenant);
    }
    return NULL;
}

static void show(struct admission *a)
{
    if (!a->active_series)
        return;
    metric_set(a->active_series, (double) a->active);
    metric_set(a->queued_series, (double) a->queued);
}

/* ---- asking and leaving ---- */

bool admission_ask(struct admission *a, const struct admission_request *request, bool *is_known)
{
    *is_known = false;
    pthread_mutex_lock(&a->lock);
    struct tenant_turn *tenant = find_tenant(a, request->tenant_id);
    /* Whoever waits may not take what is left, or would have; so nobody is passed by but one's own tenant's. */
    bool is_first = !tenant || tenant->queued == 0;
    bool is_granted = request->is_urgent || (is_first && may_take(a, tenant ? tenant->active : 0));
    if (is_granted)
        count_in(a, tenant ? tenant : find_or_add_tenant(a, request->tenant_id));
    else if (is_queued(a, request->run_id))
        *is_known = true;
    else
        queue_run(a, request);
    show(a);
    pthread_mutex_unlock(&a->lock);
    return is_granted;
}

void admission_leave(struct admission *a, uuid tenant_id)
{
    struct queued_run *next;
    pthread_mutex_lock(&a->lock);
    struct tenant_turn *tenant = find_tenant(a, tenant_id);
    ensure(tenant && tenant->active > 0 && a->active > 0);
    tenant->active--;
    a->active--;
    next = take_next(a);
    forget_tenant(tenant);
    show(a);
    pthread_mutex_unlock(&a->lock);
    if (!next)
        return;
    next->start(next->argument);
    free(next);
}

bool admission_check(struct admission *a, uuid tenant_id, struct error *e)
{
    pthread_mutex_lock(&a->lock);
    const struct tenant_turn *tenant = find_tenant(a, tenant_id);
    bool is_full = a->queued >= a->options.queue_max;
    bool is_too_many = tenant && tenant->queued >= (3 * a->options.queue_max + 3) / 4;
    if (is_full || is_too_many) {
        a->refused++;
        if (a->refused_series)
            metric_add(a->refused_series, 1);
    }
    pthread_mutex_unlock(&a->lock);
    if (!is_full && !is_too_many)
        return true;
    error_set(e, REASON_OVERLOADED_HERE, "%s runs wait for their turn on this node already",
              is_full ? "too many" : "too many of this tenant's");
    e->retry_after_ms = ADMISSION_RETRY_MS;
    return false;
}

struct admission_counts admission_look(struct admission *a)
{
    pthread_mutex_lock(&a->lock);
    struct admission_counts counts = {.places = a->options.places,
                                      .active = a->active,
                                      .queued = a->queued,
                                      .queue_max = a->options.queue_max,
                                      .tenants_waiting = a->tenants_waiting,
                                      .refused = a->refused};
    pthread_mutex_unlock(&a->lock);
    return counts;
}

/* ---- life ---- */

struct admission *admission_create(const struct admission_options *options)
{
    struct admission *a = calloc(1, sizeof *a);
    ensure(a != NULL);
    a->options = *options;
    if (a->options.places == 0)
        a->options.places = ADMISSION_PLACES;
    if (a->options.queue_max == 0)
        a->options.queue_max = ADMISSION_QUEUE_MAX;
    a->seed = map_seed();
    pthread_mutex_init(&a->lock, NULL);
    list_init(&a->turns);
    for (size_t i = 0; i < BUCKETS; i++) {
        list_init(&a->tenants[i]);
        list_init(&a->runs[i]);
    }
    if (options->metrics) {
        a->active_series = metrics_series(options->metrics, METRIC_ADMISSION_ACTIVE, NULL, 0);
        a->queued_series = metrics_series(options->metrics, METRIC_ADMISSION_QUEUED, NULL, 0);
        a->refused_series = metrics_series(options->metrics, METRIC_ADMISSION_REFUSED, NULL, 0);
    }
    return a;
}

static void drop_tenant(struct tenant_turn *tenant)
{
    struct list *node, *item;
    while ((node = list_pop_front(&tenant->users))) {
        struct user_turn *user = LIST_ITEM(node, struct user_turn, link);
        while ((item = list_pop_front(&user->queue))) {
            struct queued_run *run = LIST_ITEM(item, struct queued_run, link);
            free(run->argument);
            free(run);
        }
        free(user);
    }
    free(tenant);
}

void admission_destroy(struct admission *a)
{
    struct list *node;
    if (!a)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        while ((node = list_pop_front(&a->tenants[i])))
            drop_tenant(LIST_ITEM(node, struct tenant_turn, link));
    pthread_mutex_destroy(&a->lock);
    free(a);
}
