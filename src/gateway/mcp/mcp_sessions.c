#include "gateway/mcp/mcp_sessions.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include <pthread.h>
#include <stdlib.h>

enum { SESSION_RETRY_MS = 5000 };

struct mcp_session {
    struct list link; /* of mcp_sessions.by_use: the longest idle first */
    char id[MCP_SESSION_ID_BYTES];
    digest owner; /* of tenant, user and key: what it is bound to */
    uuid key_id;
    const struct mcp_revision *revision;
    int64_t used_ns;
    size_t requests; /* in work */
    uint64_t stream; /* the newest */
};

struct mcp_sessions {
    pthread_mutex_t lock;
    size_t per_key;
    int64_t idle_ns;
    struct map *by_id;
    struct list by_use;
};

struct mcp_sessions *mcp_sessions_create(size_t per_key, int64_t idle_ms)
{
    struct mcp_sessions *sessions = calloc(1, sizeof *sessions);
    ensure(sessions != NULL);
    pthread_mutex_init(&sessions->lock, NULL);
    sessions->per_key = per_key > 0 ? per_key : MCP_SERVER_SESSIONS_PER_KEY;
    sessions->idle_ns = (idle_ms > 0 ? idle_ms : MCP_SERVER_SESSION_IDLE_MS) * INT64_C(1000000);
    sessions->by_id = map_create();
    list_init(&sessions->by_use);
    return sessions;
}

/* ---- under the lock ---- */

static str id_of(const struct mcp_session *session)
{
    return str_of(session->id, sizeof session->id);
}

static void drop(struct mcp_sessions *sessions, struct mcp_session *session)
{
    map_remove(sessions->by_id, id_of(session));
    list_remove(&session->link);
    free(session);
}

static void touch(struct mcp_sessions *sessions, struct mcp_session *session, int64_t now_ns)
{
    session->used_ns = now_ns;
    list_remove(&session->link);
    list_push_back(&sessions->by_use, &session->link);
}

/* The list is by use, so what is too old stands in front. */
static void drop_idle(struct mcp_sessions *sessions, int64_t now_ns)
{
    for (struct list *first; (first = list_first(&sessions->by_use)) != NULL;) {
        struct mcp_session *session = LIST_ITEM(first, struct mcp_session, link);
        if (now_ns - session->used_ns < sessions->idle_ns)
            return;
        if (session->requests > 0)
            touch(sessions, session, now_ns);
        else
            drop(sessions, session);
    }
}

/* The longest idle one, of one key or of all. */
static bool drop_one(struct mcp_sessions *sessions, const uuid *key_id)
{
    LIST_EACH(node, &sessions->by_use)
    {
        struct mcp_session *session = LIST_ITEM(node, struct mcp_session, link);
        if (session->requests > 0 || (key_id && !uuid_equal(session->key_id, *key_id)))
            continue;
        drop(sessions, session);
        return true;
    }
    return false;
}

static size_t count_of_key(struct mcp_sessions *sessions, uuid key_id)
{
    size_t count = 0;
    LIST_EACH(node, &sessions->by_use)
    count += uuid_equal(LIST_ITEM(node, struct mcp_session, link)->key_id, key_id);
    return count;
}

static bool make_room(struct mcp_sessions *sessions, uuid key_id)
{
    if (count_of_key(sessions, key_id) >= sessions->per_key && !drop_one(sessions, &key_id))
        return false;
    return map_count(sessions->by_id) < MCP_SERVER_SESSIONS_MAX || drop_one(sessions, NULL);
}

static digest owner_of(const struct principal *principal)
{
    struct digest_stream *stream = digest_stream_create();
    digest_stream_add(stream, str_of((const char *) principal->tenant_id.bytes,
                                     sizeof principal->tenant_id.bytes));
    digest_stream_add(
        stream, str_of((const char *) principal->key_id.bytes, sizeof principal->key_id.bytes));
    digest_stream_add(stream, principal->user_id);
    digest owner = digest_stream_finish(stream);
    digest_stream_destroy(stream);
    return owner;
}

/* ---- for all ---- */

void mcp_sessions_destroy(struct mcp_sessions *sessions)
{
    if (!sessions)
        return;
    for (struct list *first; (first = list_first(&sessions->by_use)) != NULL;)
        drop(sessions, LIST_ITEM(first, struct mcp_session, link));
    map_destroy(sessions->by_id);
    pthread_mutex_destroy(&sessions->lock);
    free(sessions);
}

static void new_id(char id[MCP_SESSION_ID_BYTES])
{
    enum { RANDOM_BYTES = 32 };
    char bytes[RANDOM_BYTES];
    OWNED(arena) arena = arena_create(0);
    digest_random_bytes(bytes, sizeof bytes);
    str text = base64url_encode(arena, str_of(bytes, sizeof bytes));
    ensure(text.len == MCP_SESSION_ID_BYTES);
    memcpy(id, text.ptr, text.len);
}

bool mcp_sessions_open(struct mcp_sessions *sessions, const struct principal *principal,
                       const struct mcp_revision *revision, int64_t now_ns,
                       char id[MCP_SESSION_ID_BYTES], struct error *e)
{
    struct mcp_session *session = calloc(1, sizeof *session);
    ensure(session != NULL);
    new_id(session->id);
    session->owner = owner_of(principal);
    session->key_id = principal->key_id;
    session->revision = revision;
    session->used_ns = now_ns;
    list_init(&session->link);
    memcpy(id, session->id, sizeof session->id);
    pthread_mutex_lock(&sessions->lock);
    drop_idle(sessions, now_ns);
    bool fits = make_room(sessions, principal->key_id);
    if (fits) {
        map_put(sessions->by_id, id_of(session), session);
        list_push_back(&sessions->by_use, &session->link);
    }
    pthread_mutex_unlock(&sessions->lock);
    if (fits)
        return true;
    free(session);
    error_set(e, REASON_RATE_LIMIT,
              "all %zu MCP sessions of the key are in use; end one (DELETE) or wait",
              sessions->per_key);
    e->retry_after_ms = SESSION_RETRY_MS;
    return false;
}

const struct mcp_revision *mcp_sessions_use(struct mcp_sessions *sessions, str id,
                                            const struct principal *principal, int64_t now_ns)
{
    const struct mcp_revision *revision = NULL;
    digest owner = owner_of(principal);
    pthread_mutex_lock(&sessions->lock);
    drop_idle(sessions, now_ns);
    struct mcp_session *session = map_find(sessions->by_id, id);
    if (session && digest_equal(session->owner, owner)) {
        touch(sessions, session, now_ns);
        revision = session->revision;
    }
    pthread_mutex_unlock(&sessions->lock);
    return revision;
}

bool mcp_sessions_close(struct mcp_sessions *sessions, str id, const struct principal *principal)
{
    digest owner = owner_of(principal);
    pthread_mutex_lock(&sessions->lock);
    struct mcp_session *session = map_find(sessions->by_id, id);
    bool is_theirs = session && digest_equal(session->owner, owner);
    if (is_theirs)
        drop(sessions, session);
    pthread_mutex_unlock(&sessions->lock);
    return is_theirs;
}

bool mcp_sessions_enter(struct mcp_sessions *sessions, str id)
{
    pthread_mutex_lock(&sessions->lock);
    struct mcp_session *session = map_find(sessions->by_id, id);
    if (session)
        session->requests++;
    pthread_mutex_unlock(&sessions->lock);
    return session != NULL;
}

void mcp_sessions_leave(struct mcp_sessions *sessions, str id, int64_t now_ns)
{
    pthread_mutex_lock(&sessions->lock);
    struct mcp_session *session = map_find(sessions->by_id, id);
    if (session && session->requests > 0) {
        session->requests--;
        touch(sessions, session, now_ns);
    }
    pthread_mutex_unlock(&sessions->lock);
}

uint64_t mcp_sessions_take_stream(struct mcp_sessions *sessions, str id)
{
    pthread_mutex_lock(&sessions->lock);
    struct mcp_session *session = map_find(sessions->by_id, id);
    uint64_t stream = session ? ++session->stream : 0;
    pthread_mutex_unlock(&sessions->lock);
    return stream;
}

bool mcp_sessions_has_stream(struct mcp_sessions *sessions, str id, uint64_t stream)
{
    pthread_mutex_lock(&sessions->lock);
    struct mcp_session *session = map_find(sessions->by_id, id);
    bool has = session && session->stream == stream;
    pthread_mutex_unlock(&sessions->lock);
    return has;
}

size_t mcp_sessions_count(struct mcp_sessions *sessions)
{
    pthread_mutex_lock(&sessions->lock);
    size_t count = map_count(sessions->by_id);
    pthread_mutex_unlock(&sessions->lock);
    return count;
}
