#include "orchestrator/replay/run_environment.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/journal/workflow_state.h"
#include <stdlib.h>

/* ---- the cache of a lane: most runs have the environment of the one before ---- */

struct cached {
    uint64_t settings_version, offered_hash;
    const struct registry_snapshot *tools; /* held */
    uuid tenant_id;
    str agent, model; /* in `names` */
    char names[256];
    char digest[2 * sizeof(digest)];
    bool is_stored;
    uint64_t used; /* for the choice of whom to forget */
};
struct run_environments {
    struct cached items[RUN_ENVIRONMENT_CACHE];
    uint64_t clock;
};

void run_environments_destroy(struct run_environments *cache)
{
    for (size_t i = 0; cache && i < RUN_ENVIRONMENT_CACHE; i++)
        if (cache->items[i].tools)
            registry_release(cache->items[i].tools);
    free(cache);
}

static struct run_environments *cache_of(struct run *run)
{
    struct lane_state *lane = &run->o->lanes[run->lane];
    if (!lane->environments) {
        lane->environments = calloc(1, sizeof *lane->environments);
        ensure(lane->environments != NULL);
    }
    return lane->environments;
}

static str model_name(const struct run *run)
{
    return run->model ? run->model->name : STR_NONE;
}

/* Of a workflow: its definition says which tools and agents count. */
static uint64_t hash_offer(const struct run *run)
{
    uint64_t hash = run->offered_count;
    if (run->state.workflow)
        hash = str_hash(run->state.workflow->digest, hash);
    for (size_t i = 0; i < run->offered_count; i++)
        hash = str_hash(run->offered[i].name, hash);
    return hash;
}

static struct cached *find(struct run *run, uint64_t offered_hash)
{
    struct run_environments *cache = cache_of(run);
    struct cached *oldest = &cache->items[0];
    for (size_t i = 0; i < RUN_ENVIRONMENT_CACHE; i++) {
        struct cached *item = &cache->items[i];
        if (item->tools == run->tools && item->settings_version == run->settings->version &&
            item->offered_hash == offered_hash && uuid_equal(item->tenant_id, run->tenant_id) &&
            str_equal(item->agent, run->agent->name) && str_equal(item->model, model_name(run))) {
            item->used = ++cache->clock;
            return item;
        }
        if (item->used < oldest->used)
            oldest = item;
    }
    if (oldest->tools)
        registry_release(oldest->tools);
    size_t agent_bytes = run->agent->name.len, model_bytes = model_name(run).len;
    *oldest = (struct cached){.used = ++cache->clock};
    if (agent_bytes + model_bytes > sizeof oldest->names)
        return oldest; /* never found again, and made anew each time */
    oldest->tools = registry_acquire(run->o->parts.registry);
    if (oldest->tools !=
        run->tools) { /* the registry has moved on: nobody will ask for these again */
        registry_release(oldest->tools);
        oldest->tools = NULL;
        return oldest;
    }
    memcpy(oldest->names, run->agent->name.ptr, agent_bytes);
    if (model_bytes > 0)
        memcpy(oldest->names + agent_bytes, run->model->name.ptr, model_bytes);
    oldest->agent = str_of(oldest->names, agent_bytes);
    oldest->model = str_of(oldest->names + agent_bytes, model_bytes);
    oldest->settings_version = run->settings->version;
    oldest->offered_hash = offered_hash;
    oldest->tenant_id = run->tenant_id;
    return oldest;
}

str run_environment_note(struct run *run)
{
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle) /* it was given, not made: a later program may write it another way */
        return oracle->environment(oracle->owner);
    struct cached *item = find(run, hash_offer(run));
    str text = STR_NONE;
    if (item->digest[0] == 0 || !item->is_stored) {
        text = run_environment_text(run);
        if (str_is_empty(text))
            return STR_NONE;
        str hex = digest_hex(run->turn, digest_sha256(text));
        memcpy(item->digest, hex.ptr, sizeof item->digest);
    }
    str hex = str_of(item->digest, sizeof item->digest);
    if (str_equal(hex, run->environment))
        return STR_NONE;
    hex = str_copy(run->turn, hex); /* the run's own only once it is durable */
    if (!item->is_stored) {
        struct record *row = journal_row(&run->journal, WRITE_INSERT_NEW, TABLE_RUN_ENVIRONMENTS);
        record_set_text(row, RUN_ENVIRONMENTS_DIGEST, hex);
        record_set_text(row, RUN_ENVIRONMENTS_CONTENT, text);
        record_set_integer(row, RUN_ENVIRONMENTS_CREATED_AT, clock_unix_us(run->o->parts.clock));
    }
    return hex;
}

void run_environment_stored(struct run *run)
{
    if (run->o->oracle)
        return;
    struct cached *item = find(run, hash_offer(run));
    str hex = str_of(item->digest, sizeof item->digest);
    if (item->digest[0] == 0 || str_equal(hex, run->environment))
        return;
    item->is_stored = true;
    run->environment = str_copy(run->keep, hex);
}
