/*
 * A job is one caller's input and lives on its stack; its pieces are on the heap, each in the queue of its group or in a call.  A caller
 * that leaves unlinks its queued pieces and disowns those in flight.  A call is one coroutine with a context of its own.
 */
#include "llm/embed_batch.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/embed_format.h"
#include "runtime/loop.h"

#include <stdlib.h>

enum { SETTLE_MS = 1 };

struct job {
    const struct embed_call *call;
    struct context *ctx;
    struct arena *arena;
    struct waiter waiter;
    struct list pieces; /* of piece.of_job */
    size_t pieces_left;
    const float **vectors;
    size_t dimension;
    str model;
    struct usage usage;
    bool was_sent, had_head, has_failed;
    struct error failure;
};

struct piece {
    struct list link;   /* of the group's queue or of a call */
    struct list of_job; /* unlinked once disowned */
    struct job *job;    /* NULL: the caller has left */
    struct call *in;    /* NULL: queued */
    size_t from, count;
    int64_t tokens_bound;
    int64_t queued_ns;
};

struct batch_group {
    struct list link; /* of its lane */
    struct lane *lane;
    struct provider *provider;
    char *model;
    size_t model_len;
    int64_t dimensions;
    int key; /* of the provider; its limits and failures are its callers' alone */
    uuid tenant_id;
    bool are_tokens, has_extra;
    struct list queue;
    size_t queued_count, in_flight, caller_count;
    int64_t queued_tokens;
    struct timer timer; /* the oldest piece has waited long enough */
    struct scheduler *scheduler;
};

/* One upstream call. */
struct call {
    struct batch_group *group;
    struct list pieces; /* empty: takes from the queue when it starts */
    size_t piece_count, live_count, text_count;
    int64_t tokens_bound;
    struct context *ctx; /* while it runs */
    int key;
};

struct lane {
    struct embed_batch *batch;
    struct list groups;
    size_t group_count, queued_texts;
};

enum outcome { OUTCOME_OK, OUTCOME_SPLIT, OUTCOME_FAILED, OUTCOME_ABANDONED, OUTCOMES };
static const char *const outcome_names[OUTCOMES] = {"ok", "split", "failed", "abandoned"};

struct embed_batch {
    struct lane lanes[LOOP_COUNT_MAX + 1]; /* the last: schedulers without a loop */
    struct metric_series *outcomes[OUTCOMES], *texts;
};

static void kick(struct batch_group *group);

/* ---- groups ---- */

static struct lane *lane_here(struct embed_batch *batch)
{
    struct loop *loop = loop_current();
    return &batch->lanes[loop ? loop_index(loop) : LOOP_COUNT_MAX];
}

static int key_of(const struct embed_call *call)
{
    return call->how ? call->how->key : PROVIDER_KEY_ANY;
}

static bool fits_group(const struct batch_group *group, const struct embed_call *call)
{
    return group->provider == call->provider && group->key == key_of(call) &&
           group->dimensions == call->request.dimensions &&
           group->are_tokens == call->request.are_tokens &&
           group->has_extra == (call->request.extra != NULL) &&
           uuid_equal(group->tenant_id, call->tenant_id) &&
           str_equal(str_of(group->model, group->model_len), call->request.model);
}

static void fire(struct timer *timer)
{
    kick(CONTAINER_OF(timer, struct batch_group, timer));
}

static struct batch_group *open_group(struct lane *lane, struct scheduler *scheduler,
                                      const struct embed_call *call, struct error *e)
{
    str model = call->request.model;
    LIST_EACH(node, &lane->groups)
    {
        struct batch_group *group = LIST_ITEM(node, struct batch_group, link);
        if (fits_group(group, call))
            return group;
    }
    if (lane->group_count >= EMBED_BATCH_GROUPS_MAX) {
        error_set(e, REASON_OVERLOADED_HERE, "%u kinds of embedding calls are in work already",
                  EMBED_BATCH_GROUPS_MAX);
        return NULL;
    }
    struct batch_group *group = calloc(1, sizeof *group);
    ensure(group != NULL);
    *group = (struct batch_group){.lane = lane,
                                  .provider = call->provider,
                                  .model = malloc(model.len + 1),
                                  .model_len = model.len,
                                  .dimensions = call->request.dimensions,
                                  .key = key_of(call),
                                  .tenant_id = call->tenant_id,
                                  .are_tokens = call->request.are_tokens,
                                  .has_extra = call->request.extra != NULL,
                                  .timer = {.fire = fire},
                                  .scheduler = scheduler};
    ensure(group->model != NULL);
    if (model.len > 0)
        memcpy(group->model, model.ptr, model.len);
    list_init(&group->queue);
    list_push_back(&lane->groups, &group->link);
    lane->group_count++;
    return group;
}

static void close_if_idle(struct batch_group *group)
{
    if (group->in_flight > 0 || group->caller_count > 0)
        return;
    ensure(list_is_empty(&group->queue));
    timer_disarm(group->scheduler, &group->timer);
    list_remove(&group->link);
    group->lane->group_count--;
    free(group->model);
    free(group);
}

/* ---- pieces ---- */

static void enqueue(struct batch_group *group, struct piece *piece)
{
    list_push_back(&group->queue, &piece->link);
    group->queued_count += piece->count;
    group->queued_tokens += piece->tokens_bound;
    group->lane->queued_texts += piece->count;
}

static void dequeue(struct batch_group *group, struct piece *piece)
{
    list_remove(&piece->link);
    group->queued_count -= piece->count;
    group->queued_tokens -= piece->tokens_bound;
    group->lane->queued_texts -= piece->count;
}

static void put_in_call(struct call *call, struct piece *piece)
{
    list_push_back(&call->pieces, &piece->link);
    piece->in = call;
    call->piece_count++;
    call->live_count += piece->job != NULL;
    call->text_count += piece->count;
    call->tokens_bound += piece->tokens_bound;
}

/* The job knows this piece no more. */
static void finish_piece(struct piece *piece)
{
    struct job *job = piece->job;
    list_remove(&piece->link);
    list_remove(&piece->of_job);
    free(piece);
    if (!job)
        return;
    job->pieces_left--;
    if (job->pieces_left == 0 || job->has_failed)
        waiter_wake(&job->waiter);
}

static void fail_piece(struct piece *piece, const struct error *failure)
{
    struct job *job = piece->job;
    if (job && !job->has_failed) {
        job->has_failed = true;
        job->failure = *failure;
    }
    finish_piece(piece);
}

/* ---- one upstream call ---- */

static void count(const struct batch_group *group, enum outcome outcome, size_t texts)
{
    struct embed_batch *batch = group->lane->batch;
    if (batch->texts) {
        metric_add(batch->outcomes[outcome], 1);
        metric_add(batch->texts, (int64_t) texts);
    }
}

static void take_from_queue(struct call *call)
{
    struct batch_group *group = call->group;
    LIST_EACH(node, &group->queue)
    {
        struct piece *piece = LIST_ITEM(node, struct piece, link);
        bool fits = call->text_count + piece->count <= EMBED_INPUTS_MAX &&
                    call->tokens_bound + piece->tokens_bound <= EMBED_BATCH_TOKENS_MAX;
        if (!fits && call->piece_count > 0)
            break;
        dequeue(group, piece);
        put_in_call(call, piece);
    }
}

/* Every caller learns what the answer's head says of the key. */
static void told_head(void *owner, int status, const struct http_headers *headers)
{
    struct call *call = owner;
    LIST_EACH(node, &call->pieces)
    {
        struct job *job = LIST_ITEM(node, struct piece, link)->job;
        const struct provider_call *how = job ? job->call->how : NULL;
        if (job)
            job->had_head = true;
        if (how && how->on_head)
            how->on_head(how->owner, status, headers);
    }
}

/* What goes out: copies, for a caller may leave while they are being sent. */
static void gather(struct call *call, struct arena *arena, struct embed_request *request,
                   struct provider_call *how, int64_t *deadline_ns)
{
    const struct batch_group *group = call->group;
    str *texts = ARENA_ARRAY(arena, str, call->text_count);
    size_t at = 0;
    bool is_first = true;
    *request = (struct embed_request){
        .model = str_copy(arena, str_of(group->model, group->model_len)),
        .texts = texts,
        .text_count = call->text_count,
        .dimensions = group->dimensions,
        .are_tokens = group->are_tokens,
    };
    *how = (struct provider_call){.key = PROVIDER_KEY_ANY};
    *deadline_ns = 0;
    LIST_EACH(node, &call->pieces)
    {
        struct piece *piece = LIST_ITEM(node, struct piece, link);
        struct job *job = piece->job; /* not NULL: nothing was waited for since it was put in */
        const struct embed_request *from = &job->call->request;
        for (size_t i = 0; i < piece->count; i++)
            texts[at++] = str_copy(arena, from->texts[piece->from + i]);
        if (is_first && job->call->how)
            *how = *job->call->how;
        if (is_first) {
            request->user = str_copy(arena, from->user);
            request->extra = from->extra; /* a call by itself; read before anything is waited for */
        }
        if (!str_equal(request->user, from->user))
            request->user = STR_NONE;
        if (job->ctx->deadline_ns > *deadline_ns)
            *deadline_ns = job->ctx->deadline_ns;
        job->was_sent = true;
        is_first = false;
    }
    how->headers = NULL;
    how->on_head = told_head;
    how->owner = call;
    call->key = how->key;
}

/* floor(sum * part / whole) without overflow. */
static int64_t share(int64_t sum, int64_t part, int64_t whole)
{
    __extension__ typedef __int128 wide;
    return whole > 0 ? (int64_t) ((wide) sum * part / whole) : 0;
}

static void hand_out(struct call *call, const struct embed_reply *reply)
{
    size_t at = 0;
    int64_t weight = 0, given = 0;
    LIST_EACH(node, &call->pieces)
    {
        struct piece *piece = LIST_ITEM(node, struct piece, link);
        struct job *job = piece->job;
        weight += piece->tokens_bound;
        int64_t until = share(reply->usage.input_tokens, weight, call->tokens_bound);
        if (job) {
            for (size_t i = 0; i < piece->count; i++) {
                float *copy = arena_alloc_raw(job->arena, reply->dimension * sizeof *copy);
                memcpy(copy, reply->vectors[at + i], reply->dimension * sizeof *copy);
                job->vectors[piece->from + i] = copy;
            }
            job->usage.input_tokens += until - given;
            job->usage.is_reported = job->usage.is_reported && reply->usage.is_reported;
            if (str_is_empty(job->model))
                job->model = str_copy(job->arena, reply->model);
            if (job->dimension != 0 && job->dimension != reply->dimension && !job->has_failed) {
                job->has_failed = true;
                error_set(&job->failure, REASON_PROVIDER_PROTOCOL,
                          "provider " STR_FMT ": vectors of different lengths for one model",
                          STR_ARG(call->group->provider->name));
            }
            job->dimension = reply->dimension;
        }
        at += piece->count;
        given = until;
        finish_piece(piece);
    }
}

static void run_call(void *argument);

/* False: there are too many coroutines; its callers know. */
static bool start_call(struct batch_group *group, struct call *call)
{
    struct error e = {0};
    group->in_flight++;
    if (coroutine_start(group->scheduler, "embed batch", run_call, call, &e))
        return true;
    group->in_flight--;
    if (call->piece_count == 0)
        take_from_queue(call);
    LIST_EACH(node, &call->pieces)
    fail_piece(LIST_ITEM(node, struct piece, link), &e);
    free(call);
    return false;
}

static struct call *new_call(struct batch_group *group)
{
    struct call *call = calloc(1, sizeof *call);
    ensure(call != NULL);
    call->group = group;
    list_init(&call->pieces);
    return call;
}

static void drop_disowned(struct call *call)
{
    LIST_EACH(node, &call->pieces)
    {
        struct piece *piece = LIST_ITEM(node, struct piece, link);
        if (piece->job)
            continue;
        call->piece_count--;
        call->text_count -= piece->count;
        call->tokens_bound -= piece->tokens_bound;
        finish_piece(piece);
    }
}

/* Each half asks again by itself; one that is left alone, alone. */
static void halve(struct call *call)
{
    struct call *halves[2] = {NULL, NULL};
    size_t at = 0, middle = call->piece_count / 2;
    LIST_EACH(node, &call->pieces)
    {
        struct piece *piece = LIST_ITEM(node, struct piece, link);
        struct call **half = &halves[at++ >= middle];
        if (!*half)
            *half = new_call(call->group);
        list_remove(&piece->link);
        put_in_call(*half, piece);
    }
    for (size_t i = 0; i < ARRAY_COUNT(halves); i++)
        if (halves[i])
            (void) start_call(call->group, halves[i]);
}

static void fail_all(struct call *call, const struct error *failure)
{
    size_t text_count = call->text_count;
    bool was_shared = call->piece_count > 1;
    drop_disowned(call);
    bool is_input =
        failure->reason == REASON_PROVIDER_INVALID || failure->reason == REASON_TOO_LARGE;
    if (call->piece_count == 0) {
        count(call->group, OUTCOME_ABANDONED, text_count);
    } else if (is_input && was_shared) { /* whoever caused it may have left since */
        count(call->group, OUTCOME_SPLIT, text_count);
        halve(call);
    } else {
        count(call->group, OUTCOME_FAILED, text_count);
        LIST_EACH(node, &call->pieces)
        fail_piece(LIST_ITEM(node, struct piece, link), failure);
    }
}

static void send_call(struct call *call)
{
    struct batch_group *group = call->group;
    OWNED(arena) arena = arena_create(EMBED_ARENA_BYTES_MAX);
    struct context ctx;
    struct embed_request request;
    struct embed_reply reply;
    struct provider_call how;
    struct error e = {0};
    int64_t deadline_ns, now_ns = clock_monotonic_ns(scheduler_clock(group->scheduler)),
                         latest_ns = now_ns + EMBED_CALL_TIMEOUT_MS * INT64_C(1000000);
    gather(call, arena, &request, &how, &deadline_ns);
    context_init(&ctx, group->scheduler, arena, deadline_ns < latest_ns ? deadline_ns : latest_ns);
    ctx.tenant_id = group->tenant_id;
    call->ctx = &ctx;
    bool ok = provider_embed(group->provider, &ctx, &how, &request, &reply, &e);
    call->ctx = NULL;
    if (ok) {
        count(group, OUTCOME_OK, call->text_count);
        hand_out(call, &reply);
    } else {
        if (e.reason == REASON_TIMEOUT) /* of the call, not of a caller: each has its own */
            error_set(&e, REASON_PROVIDER_TIMEOUT, "provider " STR_FMT " did not answer in time",
                      STR_ARG(group->provider->name));
        fail_all(call, &e);
    }
    context_deinit(&ctx);
}

static void run_call(void *argument)
{
    struct call *call = argument;
    struct batch_group *group = call->group;
    if (call->piece_count == 0)
        take_from_queue(call);
    else
        drop_disowned(call); /* who left between two halves */
    if (call->piece_count > 0)
        send_call(call);
    free(call);
    group->in_flight--;
    kick(group);
    close_if_idle(group);
}

/* Starts what is due, and the clock for what is not. */
static void kick(struct batch_group *group)
{
    while (!list_is_empty(&group->queue) && group->in_flight < EMBED_BATCH_CALLS_MAX) {
        const struct piece *oldest = LIST_ITEM(list_first(&group->queue), struct piece, link);
        int64_t due_ns = oldest->queued_ns + EMBED_BATCH_WAIT_MS * INT64_C(1000000);
        bool is_full = group->queued_count >= EMBED_INPUTS_MAX ||
                       group->queued_tokens >= EMBED_BATCH_TOKENS_MAX;
        bool is_due = clock_monotonic_ns(scheduler_clock(group->scheduler)) >= due_ns;
        if (group->in_flight > 0 && !is_full && !is_due) {
            timer_arm(group->scheduler, &group->timer, due_ns);
            return;
        }
        struct call *call = new_call(group);
        bool takes_later = group->in_flight == 0;
        if (!takes_later)
            take_from_queue(call);
        if (start_call(group, call) && takes_later)
            return; /* until it runs, whoever comes goes with it */
    }
}

/* ---- a caller ---- */

static struct piece *new_piece(struct job *job, size_t from)
{
    struct piece *piece = calloc(1, sizeof *piece);
    ensure(piece != NULL);
    piece->job = job;
    piece->from = from;
    piece->queued_ns = context_now_ns(job->ctx);
    list_push_back(&job->pieces, &piece->of_job);
    job->pieces_left++;
    return piece;
}

/* As many texts a piece as one upstream call takes. */
static void cut(struct job *job)
{
    const struct embed_request *request = &job->call->request;
    struct piece *piece = NULL;
    for (size_t i = 0; i < request->text_count; i++) {
        int64_t tokens = embed_tokens_bound(request->texts[i], request->are_tokens);
        bool is_full = piece && (piece->count == EMBED_INPUTS_MAX ||
                                 piece->tokens_bound + tokens > EMBED_BATCH_TOKENS_MAX);
        if (!piece || is_full)
            piece = new_piece(job, i);
        piece->count++;
        piece->tokens_bound += tokens;
    }
}

static void submit(struct batch_group *group, struct job *job)
{
    LIST_EACH(node, &job->pieces)
    {
        struct piece *piece = LIST_ITEM(node, struct piece, of_job);
        if (!group->are_tokens && !group->has_extra) {
            enqueue(group, piece);
            continue;
        }
        struct call *call = new_call(group);
        put_in_call(call, piece);
        (void) start_call(group, call);
    }
    kick(group);
}

/* Whatever is still on its way for this job goes on, or ends, without it. */
static void detach(struct batch_group *group, struct job *job)
{
    LIST_EACH(node, &job->pieces)
    {
        struct piece *piece = LIST_ITEM(node, struct piece, of_job);
        list_remove(&piece->of_job);
        piece->job = NULL;
        if (!piece->in) {
            dequeue(group, piece);
            free(piece);
            continue;
        }
        piece->in->live_count--;
        if (piece->in->live_count == 0 && piece->in->ctx)
            context_cancel(piece->in->ctx);
    }
}

static bool finish_job(struct job *job, bool was_woken, struct embed_outcome *out, struct error *e)
{
    bool ok = was_woken && !job->has_failed;
    out->was_sent = job->was_sent;
    out->had_head = job->had_head;
    out->reply = (struct embed_reply){.vectors = ok ? job->vectors : NULL,
                                      .dimension = job->dimension,
                                      .model = job->model,
                                      .usage = job->usage};
    if (!out->reply.usage.is_reported)
        out->reply.usage = (struct usage){0};
    if (was_woken && job->has_failed)
        return error_copy(e, &job->failure);
    return ok;
}

bool embed_batch_run(struct embed_batch *batch, struct context *ctx, const struct embed_call *call,
                     struct embed_outcome *out, struct error *e)
{
    struct lane *lane = lane_here(batch);
    struct job job = {.call = call, .ctx = ctx, .arena = call->arena ? call->arena : ctx->arena};
    ensure(call->request.text_count > 0);
    *out = (struct embed_outcome){0};
    if (!call->provider->ops->embed)
        return error_set(e, REASON_UNSUPPORTED, "provider " STR_FMT " has no embeddings",
                         STR_ARG(call->provider->name));
    if (lane->queued_texts + call->request.text_count > EMBED_BATCH_QUEUE_MAX)
        return error_set(e, REASON_OVERLOADED_HERE, "%zu texts wait to be embedded already",
                         lane->queued_texts);
    struct batch_group *group = open_group(lane, ctx->scheduler, call, e);
    if (!group)
        return false;
    job.vectors = (const float **) arena_alloc_array(job.arena, call->request.text_count,
                                                     sizeof(const float *));
    job.usage.is_reported = true;
    list_init(&job.pieces);
    waiter_init(&job.waiter, ctx);
    cut(&job);
    group->caller_count++;
    submit(group, &job);
    bool was_woken = waiter_wait(&job.waiter, e);
    if (job.pieces_left > 0)
        detach(group, &job);
    group->caller_count--;
    close_if_idle(group);
    return finish_job(&job, was_woken, out, e);
}

void embed_batch_settle(struct embed_batch *batch, struct context *ctx)
{
    struct error late = {0};
    while (!list_is_empty(&lane_here(batch)->groups) && context_sleep_ms(ctx, SETTLE_MS, &late))
        ;
}

/* ---- life ---- */

struct embed_batch *embed_batch_create(struct metrics *metrics)
{
    struct embed_batch *batch = calloc(1, sizeof *batch);
    ensure(batch != NULL);
    for (size_t i = 0; i < ARRAY_COUNT(batch->lanes); i++) {
        batch->lanes[i].batch = batch;
        list_init(&batch->lanes[i].groups);
    }
    for (size_t i = 0; metrics && i < OUTCOMES; i++) {
        str outcome = str_from_cstr(outcome_names[i]);
        batch->outcomes[i] = metrics_series(metrics, METRIC_EMBED_CALLS, &outcome, 1);
    }
    batch->texts = metrics ? metrics_series(metrics, METRIC_EMBED_TEXTS, NULL, 0) : NULL;
    return batch;
}

void embed_batch_destroy(struct embed_batch *batch)
{
    for (size_t i = 0; batch && i < ARRAY_COUNT(batch->lanes); i++)
        ensure(list_is_empty(&batch->lanes[i].groups));
    free(batch);
}
