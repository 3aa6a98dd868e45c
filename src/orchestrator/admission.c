#include "orchestrator/admission.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "observe/metrics.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096, LEAST_URGENT_EACH = 8 };

struct user_turn {
    struct list link;  /* of tenant_turn.users[priority] */
    struct list queue; /* of queued_run, the oldest first */
    uint64_t user;     /* hash of the name: two users of one hash share a turn */
};
/* A tenant that holds places or waits; gone when it does neither. */
struct tenant_turn {
    struct list link;                  /* of its bucket */
    struct list turn;                  /* of admission.turns, while it waits */
    struct list users[PRIORITY_COUNT]; /* of user_turn, the next one first */
    uuid tenant_id;
    size_t active, queued;
    uint32_t turns_taken;
};
struct queued_run {
    struct list link;   /* of user_turn.queue */
    struct list bucket; /* by run id */
    struct tenant_turn *tenant;
    struct user_turn *user;
    enum priority priority;
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
    size_t active, active_batch, queued, queued_of[PRIORITY_COUNT], tenants_waiting;
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
    for (int i = 0; i < PRIORITY_COUNT; i++)
        list_init(&tenant->users[i]);
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

static struct user_turn *find_or_add_user(struct tenant_turn *tenant, enum priority priority,
                                          uint64_t user)
{
    LIST_EACH(node, &tenant->users[priority])
    {
        struct user_turn *turn = LIST_ITEM(node, struct user_turn, link);
        if (turn->user == user)
            return turn;
    }
    struct user_turn *turn = calloc(1, sizeof *turn);
    ensure(turn != NULL);
    turn->user = user;
    list_init(&turn->queue);
    list_push_back(&tenant->users[priority], &turn->link);
    return turn;
}

/* ---- turns ---- */

static void queue_run(struct admission *a, const struct admission_request *request)
{
    struct queued_run *run = calloc(1, sizeof *run);
    ensure(run != NULL);
    struct tenant_turn *tenant = find_or_add_tenant(a, request->tenant_id);
    *run = (struct queued_run){.tenant = tenant,
                               .user = find_or_add_user(tenant, request->priority, request->user),
                               .priority = request->priority,
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
    a->queued_of[run->priority]++;
}

/* The last eighth is for those who hold less than an eighth, the last quarter for what is more urgent than batch. */
static bool may_take(const struct admission *a, size_t held, enum priority priority)
{
    if (priority == PRIORITY_BATCH && a->active_batch >= a->options.places - a->options.places / 4)
        return false;
    size_t kept = a->options.places / 8;
    return a->active + kept < a->options.places || (a->active < a->options.places && held < kept) ||
           (kept == 0 && a->active < a->options.places);
}

static void count_in(struct admission *a, struct tenant_turn *tenant, enum priority priority)
{
    tenant->active++;
    a->active++;
    a->active_batch += priority == PRIORITY_BATCH;
}

/* Whose turn it is of a tenant's runs that may go now: the most urgent's, at times the least urgent's; PRIORITY_COUNT: nobody's. */
static enum priority priority_of_turn(const struct admission *a, struct tenant_turn *tenant)
{
    bool is_least = tenant->turns_taken % LEAST_URGENT_EACH == LEAST_URGENT_EACH - 1;
    for (int i = 0; i < PRIORITY_COUNT; i++) {
        enum priority priority = (enum priority)(is_least ? i : PRIORITY_COUNT - 1 - i);
        if (!list_is_empty(&tenant->users[priority]) && may_take(a, tenant->active, priority))
            return priority;
    }
    return PRIORITY_COUNT;
}

/* The user whose turn it is goes to the end of its tenant's, the tenant to the end of all. */
static struct queued_run *take_of(struct admission *a, struct tenant_turn *tenant,
                                  enum priority priority)
{
    struct list *users = &tenant->users[priority];
    struct user_turn *user = LIST_ITEM(list_first(users), struct user_turn, link);
    struct queued_run *run = LIST_ITEM(list_first(&user->queue), struct queued_run, link);
    list_remove(&run->link);
    list_remove(&run->bucket);
    list_remove(&user->link);
    if (list_is_empty(&user->queue))
        free(user);
    else
        list_push_back(users, &user->link);
    list_remove(&tenant->turn);
    tenant->turns_taken++;
    a->queued--;
    a->queued_of[priority]--;
    if (--tenant->queued > 0)
        list_push_back(&a->turns, &tenant->turn);
    else
        a->tenants_waiting--;
    count_in(a, tenant, priority);
    return run;
}

static struct queued_run *take_next(struct admission *a)
{
    if (a->active >= a->options.places)
        return NULL;
    LIST_EACH(node, &a->turns)
    {
        struct tenant_turn *tenant = LIST_ITEM(node, struct tenant_turn, turn);
        enum priority priority = priority_of_turn(a, tenant);
        if (priority != PRIORITY_COUNT)
            return take_of(a, tenant, priority);
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

/* Does a run of the same tenant wait that would go first? */
static bool is_behind(struct tenant_turn *tenant, enum priority priority)
{
    for (int i = (int) priority; tenant && i < PRIORITY_COUNT; i++) {
        if (!list_is_empty(&tenant->users[i]))
            return true;
    }
    return false;
}

bool admission_ask(struct admission *a, const struct admission_request *request, bool *is_known)
{
    *is_known = false;
    pthread_mutex_lock(&a->lock);
    struct tenant_turn *tenant = find_tenant(a, request->tenant_id);
    /* Whoever waits may not take what is left, or would have; so nobody is passed by but one's own tenant's. */
    bool is_granted =
        request->is_urgent || (!is_behind(tenant, request->priority) &&
                               may_take(a, tenant ? tenant->active : 0, request->priority));
    if (is_granted)
        count_in(a, tenant ? tenant : find_or_add_tenant(a, request->tenant_id), request->priority);
    else if (is_queued(a, request->run_id))
        *is_known = true;
    else
        queue_run(a, request);
    show(a);
    pthread_mutex_unlock(&a->lock);
    return is_granted;
}

/* Two may go at once: a place that batch could not take may be free besides. */
void admission_leave(struct admission *a, uuid tenant_id, enum priority priority)
{
    struct list started;
    struct list *node;
    list_init(&started);
    pthread_mutex_lock(&a->lock);
    struct tenant_turn *tenant = find_tenant(a, tenant_id);
    ensure(tenant && tenant->active > 0 && a->active > 0);
    tenant->active--;
    a->active--;
    a->active_batch -= priority == PRIORITY_BATCH;
    for (struct queued_run *next; (next = take_next(a)) != NULL;)
        list_push_back(&started, &next->link);
    forget_tenant(tenant);
    show(a);
    pthread_mutex_unlock(&a->lock);
    while ((node = list_pop_front(&started))) {
        struct queued_run *next = LIST_ITEM(node, struct queued_run, link);
        next->start(next->argument);
        free(next);
    }
}

bool admission_check(struct admission *a, uuid tenant_id, enum priority priority, struct error *e)
{
    pthread_mutex_lock(&a->lock);
    const struct tenant_turn *tenant = find_tenant(a, tenant_id);
    size_t half = (a->options.queue_max + 1) / 2;
    bool is_full = a->queued >= a->options.queue_max ||
                   (priority == PRIORITY_BATCH && a->queued_of[PRIORITY_BATCH] >= half);
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
                                      .active_batch = a->active_batch,
                                      .refused = a->refused};
    memcpy(counts.queued_of, a->queued_of, sizeof counts.queued_of);
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

static void drop_users(struct list *users)
{
    struct list *node, *item;
    while ((node = list_pop_front(users))) {
        struct user_turn *user = LIST_ITEM(node, struct user_turn, link);
        while ((item = list_pop_front(&user->queue))) {
            struct queued_run *run = LIST_ITEM(item, struct queued_run, link);
            free(run->argument);
            free(run);
        }
        free(user);
    }
}

static void drop_tenant(struct tenant_turn *tenant)
{
    for (int i = 0; i < PRIORITY_COUNT; i++)
        drop_users(&tenant->users[i]);
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
