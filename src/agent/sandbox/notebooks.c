#include "agent/sandbox/notebooks.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "base/list.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum { NS_PER_S = 1000000000, NS_PER_MS = 1000000 };

struct notebooks {
    struct clock *clock;
    void (*drop)(void *kept);
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct list items, leaving; /* `leaving`: out of the table, to be freed by the keeper */
    size_t count;
    pthread_t keeper;
    bool has_keeper, is_stopping;
};

/* ---- under the mutex ---- */

static void leave(struct notebooks *notebooks, struct notebook *notebook)
{
    list_remove(&notebook->link);
    notebooks->count--;
    list_push_back(&notebooks->leaving, &notebook->link);
    pthread_cond_signal(&notebooks->changed);
}

static void expire(struct notebooks *notebooks, int64_t now_ns)
{
    LIST_EACH(node, &notebooks->items)
    {
        struct notebook *notebook = LIST_ITEM(node, struct notebook, link);
        if (!notebook->is_taken && now_ns - notebook->idle_since_ns >= notebook->of.idle_ns)
            leave(notebooks, notebook);
    }
}

static struct notebook *find(struct notebooks *notebooks, digest self)
{
    LIST_EACH(node, &notebooks->items)
    {
        struct notebook *notebook = LIST_ITEM(node, struct notebook, link);
        if (digest_equal(notebook->of.self, self))
            return notebook;
    }
    return NULL;
}

enum scope { SCOPE_SESSION, SCOPE_TENANT, SCOPE_ALL };

static bool is_in(const struct notebook *notebook, const struct tool_notebook *wanted,
                  enum scope scope)
{
    switch (scope) {
    case SCOPE_SESSION: return digest_equal(notebook->of.session, wanted->session);
    case SCOPE_TENANT: return digest_equal(notebook->of.tenant, wanted->tenant);
    case SCOPE_ALL: return true;
    }
    unreachable_state();
}

static bool make_room(struct notebooks *notebooks, const struct tool_notebook *wanted,
                      enum scope scope, size_t max)
{
    size_t count = 0;
    struct notebook *oldest = NULL;
    LIST_EACH(node, &notebooks->items)
    {
        struct notebook *notebook = LIST_ITEM(node, struct notebook, link);
        if (!is_in(notebook, wanted, scope))
            continue;
        count++;
        if (!oldest && !notebook->is_taken)
            oldest = notebook;
    }
    if (count < max)
        return true;
    if (oldest)
        leave(notebooks, oldest);
    return oldest != NULL;
}

static bool has_room(struct notebooks *notebooks, const struct tool_notebook *wanted,
                     struct error *e)
{
    static const char *const whose[] = {"this session", "this tenant", "this node"};
    const size_t max[] = {wanted->per_session_max, SANDBOX_NOTEBOOKS_PER_TENANT_MAX,
                          SANDBOX_NOTEBOOKS_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(max); i++)
        if (!make_room(notebooks, wanted, (enum scope) i, max[i]))
            return error_set(e, REASON_LIMIT,
                             "all %zu notebooks of %s are in use; try again later or use one that "
                             "is there",
                             max[i], whose[i]);
    return true;
}

/* ---- the keeper: frees what has left, and looks for what is idle ---- */

static void free_leaving(struct notebooks *notebooks)
{
    struct list *node;
    while ((node = list_pop_front(&notebooks->leaving)) != NULL) {
        struct notebook *notebook = LIST_ITEM(node, struct notebook, link);
        pthread_mutex_unlock(&notebooks->mutex);
        if (notebook->kept)
            notebooks->drop(notebook->kept);
        free(notebook);
        pthread_mutex_lock(&notebooks->mutex);
    }
}

static void *keep(void *argument)
{
    struct notebooks *notebooks = argument;
    pthread_mutex_lock(&notebooks->mutex);
    while (!notebooks->is_stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += SANDBOX_NOTEBOOK_LOOK_MS / 1000;
        expire(notebooks, clock_monotonic_ns(notebooks->clock));
        free_leaving(notebooks);
        if (notebooks->is_stopping)
            break;
        if (notebooks->count > 0)
            (void) pthread_cond_timedwait(&notebooks->changed, &notebooks->mutex, &until);
        else
            pthread_cond_wait(&notebooks->changed, &notebooks->mutex);
    }
    pthread_mutex_unlock(&notebooks->mutex);
    return NULL;
}

/* ---- public ---- */

struct notebooks *notebooks_create(struct clock *clock, void (*drop)(void *kept))
{
    struct notebooks *notebooks = calloc(1, sizeof *notebooks);
    ensure(notebooks != NULL);
    notebooks->clock = clock;
    notebooks->drop = drop;
    list_init(&notebooks->items);
    list_init(&notebooks->leaving);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&notebooks->mutex, NULL);
    pthread_cond_init(&notebooks->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return notebooks;
}

void notebooks_destroy(struct notebooks *notebooks)
{
    if (!notebooks)
        return;
    pthread_mutex_lock(&notebooks->mutex);
    notebooks->is_stopping = true;
    LIST_EACH(node, &notebooks->items)
    {
        struct notebook *notebook = LIST_ITEM(node, struct notebook, link);
        ensure(!notebook->is_taken);
        leave(notebooks, notebook);
    }
    pthread_cond_broadcast(&notebooks->changed);
    pthread_mutex_unlock(&notebooks->mutex);
    if (notebooks->has_keeper)
        pthread_join(notebooks->keeper, NULL);
    pthread_mutex_lock(&notebooks->mutex);
    free_leaving(notebooks);
    pthread_mutex_unlock(&notebooks->mutex);
    pthread_cond_destroy(&notebooks->changed);
    pthread_mutex_destroy(&notebooks->mutex);
    free(notebooks);
}

/* Only where there are notebooks; deaf to the process's signals. */
static bool start_keeper(struct notebooks *notebooks, struct error *e)
{
    sigset_t all, before;
    if (notebooks->has_keeper)
        return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    notebooks->has_keeper = pthread_create(&notebooks->keeper, NULL, keep, notebooks) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return notebooks->has_keeper ||
           error_set(e, REASON_UNAVAILABLE, "there is no thread that could keep notebooks");
}

static bool add(struct notebooks *notebooks, const struct tool_notebook *wanted,
                struct notebook **out, struct error *e)
{
    if (!has_room(notebooks, wanted, e) || !start_keeper(notebooks, e))
        return false;
    struct notebook *notebook = calloc(1, sizeof *notebook);
    ensure(notebook != NULL);
    *notebook = (struct notebook){.of = *wanted, .is_taken = true};
    list_push_back(&notebooks->items, &notebook->link);
    notebooks->count++;
    *out = notebook;
    return true;
}

bool notebook_take(struct notebooks *notebooks, const struct tool_notebook *wanted,
                   struct notebook **out, bool *is_busy, struct error *e)
{
    bool is_ok = true;
    pthread_mutex_lock(&notebooks->mutex);
    expire(notebooks, clock_monotonic_ns(notebooks->clock));
    struct notebook *found = find(notebooks, wanted->self);
    *is_busy = found && found->is_taken;
    if (!found)
        is_ok = add(notebooks, wanted, out, e);
    if (found && !found->is_taken) {
        found->is_taken = true;
        found->of = *wanted; /* the operator may have changed the bounds */
        *out = found;
    }
    pthread_mutex_unlock(&notebooks->mutex);
    return is_ok;
}

void notebook_put_back(struct notebooks *notebooks, struct notebook *notebook)
{
    pthread_mutex_lock(&notebooks->mutex);
    notebook->is_taken = false;
    notebook->idle_since_ns = clock_monotonic_ns(notebooks->clock);
    if (notebook->kept) {
        list_remove(&notebook->link);
        list_push_back(&notebooks->items, &notebook->link);
    } else {
        leave(notebooks, notebook);
    }
    pthread_mutex_unlock(&notebooks->mutex);
}

size_t notebooks_count(struct notebooks *notebooks)
{
    pthread_mutex_lock(&notebooks->mutex);
    size_t count = notebooks->count;
    pthread_mutex_unlock(&notebooks->mutex);
    return count;
}

/* ---- which one a call wants ---- */

static digest digest_of(str kind, const void *bytes, size_t count)
{
    OWNED(digest_stream) stream = digest_stream_create();
    digest_stream_add(stream, kind);
    digest_stream_add(stream, str_of(bytes, count));
    return digest_stream_finish(stream);
}

static void identify(const struct tool_request *request, const struct tool_module *module, str name,
                     struct tool_notebook *out)
{
    const struct tool *tool = request->tool;
    uuid session[2] = {request->tenant_id, request->session_id};
    digest user = digest_sha256(request->user_id), named = digest_sha256(name);
    out->tenant = digest_of(S("tenant"), &request->tenant_id, sizeof request->tenant_id);
    out->session = digest_of(S("session"), session, sizeof session);
    digest all[] = {out->session, user, named, tool->identity, module->digest};
    out->self = digest_of(S("notebook"), all, sizeof all);
}

bool notebook_of_call(const struct tool_request *request, const struct json *input,
                      const struct tool_module *module, struct notebook_wish *out, struct error *e)
{
    str name;
    const struct tool *tool = request->tool;
    const struct tool_notebooks *bounds = &tool->notebooks;
    *out = (struct notebook_wish){.is_there = request->notebook != NULL};
    if (request->notebook) {
        out->of = *request->notebook;
        return true;
    }
    if (!tool_names_notebook(tool, input, &name))
        return true;
    if (!bounds->is_enabled)
        return error_set(e, REASON_PERMISSION,
                         "tool " STR_FMT
                         " keeps no notebooks here: leave `notebook` out, or have an "
                         "operator set tools." STR_FMT ".notebooks",
                         STR_ARG(tool->name), STR_ARG(tool->name));
    if (module->abi != TOOL_ABI_COMPONENT)
        return error_set(e, REASON_UNSUPPORTED,
                         "tool " STR_FMT " keeps notebooks for Python only: leave `notebook` out",
                         STR_ARG(tool->name));
    if (uuid_is_none(request->session_id))
        return error_set(e, REASON_INVALID,
                         "a notebook belongs to a session: name one with the call (session_id)");
    if (name.len == 0 || name.len > SANDBOX_NOTEBOOK_NAME_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "the name of a notebook has 1 to %u bytes",
                         SANDBOX_NOTEBOOK_NAME_BYTES_MAX);
    out->is_there = true;
    out->of = (struct tool_notebook){.memory_bytes = bounds->memory_bytes,
                                     .idle_ns = bounds->idle_ms * NS_PER_MS,
                                     .per_session_max = bounds->per_session_max};
    identify(request, module, name, &out->of);
    return true;
}
