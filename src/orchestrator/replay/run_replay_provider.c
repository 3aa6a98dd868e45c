/* The provider of a replay gives the answers that were recorded, in the pieces and at the times that were. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/replay/run_replay_internal.h"
#include "orchestrator/run_answer_internal.h"
#include <stdlib.h>

/* ---- waiting ---- */

void replay_wait_for_ever(struct replay *r, struct context *ctx)
{
    struct error never = {0};
    r->blocked++;
    (void) !condition_wait(&r->never, ctx, &never);
    r->blocked--;
}

/* A recorded end that a cancel brought waits for the cancel. */
bool replay_is_cancel(const struct run_recording *record, size_t at)
{
    return at < record->solid_count && recording_is(&record->solid[at], "error", S("cancelled")) &&
           recording_find(record, at, EVENT_RUN_CANCELLING) < record->solid_count;
}

/* Which of the calls at work ends first is chance: each waits for its place in the record. */
void replay_wait_until_told(struct replay *r, struct context *ctx, size_t at)
{
    struct context own; /* a cancel or a deadline has its end in the record */
    struct error ignored = {0};
    if (!r->is_workflow && at == r->record->solid_count) {
        replay_wait_for_ever(r, ctx);
        return;
    }
    context_init(&own, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    r->listening++;
    while (!r->is_dead && at >= r->heard)
        (void) !condition_wait(&r->released, &own, &ignored);
    r->listening--;
    context_deinit(&own);
}

void replay_sleep_until(struct context *ctx, int64_t deadline_ns)
{
    struct error ignored = {0};
    (void) !context_sleep_until(ctx, deadline_ns, &ignored);
}

/* ---- provider ---- */

struct replay_stream {
    struct reply_stream base;
    struct replay *replay;
    struct arena *arena;
    struct delta *deltas;
    int64_t *due_ns;
    size_t count, position, end; /* end: its solid event */
    int64_t end_ns;
};

static bool next_delta(struct reply_stream *base, struct context *ctx, struct delta *out,
                       struct error *e)
{
    struct replay_stream *s = (struct replay_stream *) base;
    struct replay *r = s->replay;
    if (s->position < s->count) {
        replay_sleep_until(ctx, s->due_ns[s->position]);
        *out = s->deltas[s->position++];
        return true;
    }
    if (r->emitting > 0 && s->position == s->count) {
        r->emitting--;
        s->position++;
    }
    if (s->end == r->record->solid_count || replay_is_cancel(r->record, s->end)) {
        replay_sleep_until(ctx, s->end_ns);
        replay_wait_for_ever(r, ctx);
        if (s->end == r->record->solid_count)
            return error_set(e, REASON_CANCELLED, "the recording has no end of this call");
    } else {
        replay_sleep_until(ctx, s->end_ns);
    }
    const struct event *end = &r->record->solid[s->end];
    if (end->type == EVENT_MODEL_FAILED)
        return error_set(e, replay_reason_of(end->data), STR_FMT,
                         STR_ARG(json_str_or(end->data, S("message"), STR_NONE)));
    const struct json *usage = json_get(end->data, S("usage"));
    *out = (struct delta){.kind = DELTA_END};
    for (int i = FINISH_NONE; i <= FINISH_OTHER; i++)
        if (recording_is(end, "finish", str_from_cstr(finish_name((enum finish) i))))
            out->finish = (enum finish) i;
    out->usage = (struct usage){
        .input_tokens = json_i64_or(usage, S("input_tokens"), 0),
        .output_tokens = json_i64_or(usage, S("output_tokens"), 0),
        .cached_tokens = json_i64_or(usage, S("cached_tokens"), 0),
        .cache_write_tokens = json_i64_or(usage, S("cache_write_tokens"), 0),
        .reasoning_tokens = json_i64_or(usage, S("reasoning_tokens"), 0),
        .is_reported = json_bool_or(usage, S("is_reported"), false),
    };
    return true;
}

static void close_stream(struct reply_stream *base)
{
    struct replay_stream *s = (struct replay_stream *) base;
    if (s->position <= s->count && s->replay->emitting > 0)
        s->replay->emitting--;
    arena_destroy(s->arena);
    free(s);
}

static const struct reply_stream_ops stream_ops = {next_delta, close_stream};

static void add_delta(struct replay_stream *s, struct delta delta, int64_t due_ns)
{
    s->deltas[s->count] = delta;
    s->due_ns[s->count++] = due_ns;
}

/* When a piece came: as long before the end as in the recording. */
static int64_t piece_due_ns(const struct replay_stream *s, const struct event *piece)
{
    const struct run_recording *record = s->replay->record;
    int64_t now_ns = s->replay->mono_ns;
    if (s->end == record->solid_count)
        return now_ns;
    int64_t due_ns = s->end_ns - (record->solid[s->end].at_us - piece->at_us) * 1000;
    return due_ns > now_ns ? due_ns : now_ns;
}

static size_t count_pieces(const struct run_recording *record, int64_t attempt)
{
    size_t count = 0;
    for (size_t at = delta_index_next(&record->deltas, attempt, 0); at > 0;
         at = delta_index_next(&record->deltas, attempt, at))
        count++;
    return count;
}

/* The pieces of text as they were posted. */
static size_t add_pieces(struct replay_stream *s, int64_t attempt)
{
    const struct run_recording *record = s->replay->record;
    size_t bytes = 0, most = count_pieces(record, attempt) + 2;
    int64_t least_ns = 0;
    s->deltas = ARENA_ARRAY(s->arena, struct delta, most);
    s->due_ns = ARENA_ARRAY(s->arena, int64_t, most);
    for (size_t at = delta_index_next(&record->deltas, attempt, 0); at > 0;
         at = delta_index_next(&record->deltas, attempt, at)) {
        const struct event *event = &record->events[at - 1];
        str text = json_str_or(event->data, S("text"), STR_NONE);
        int64_t due_ns = piece_due_ns(s, event);
        if (due_ns < least_ns)
            due_ns = least_ns;
        if (due_ns > s->end_ns && s->end < record->solid_count)
            due_ns = s->end_ns; /* the last piece goes out with the end */
        add_delta(s, (struct delta){.kind = DELTA_TEXT, .text = text}, due_ns);
        least_ns = due_ns + RUN_DELTA_DELAY_MS * 1000000ll;
        bytes += text.len;
    }
    return bytes;
}

static void add_call_delta(struct replay_stream *s, const struct part *part, int index)
{
    add_delta(
        s,
        (struct delta){
            .kind = DELTA_TOOL_CALL, .index = index, .call_id = part->call_id, .name = part->name},
        s->end_ns);
    add_delta(s,
              (struct delta){.kind = DELTA_TOOL_ARGUMENTS, .index = index, .text = part->arguments},
              s->end_ns);
}

/* So many bytes of what is in no row. */
static str filler(struct replay_stream *s, str text, int64_t bytes)
{
    if (bytes <= (int64_t) text.len || bytes > RUN_EXPORT_BYTES_MAX)
        return text;
    char *padded = arena_alloc(s->arena, (size_t) bytes);
    memset(padded, ' ', (size_t) bytes);
    if (!str_is_empty(text))
        memcpy(padded, text.ptr, text.len);
    return str_of(padded, (size_t) bytes);
}

/* How much came, as far as it was counted: a provider's own word needs no bytes. */
static int64_t counted_bytes(const struct event *end)
{
    const struct json *usage = json_get(end->data, S("usage"));
    return json_bool_or(usage, S("is_reported"), false) ? 0
                                                        : json_i64_or(usage, S("output_tokens"), 0);
}

/* Of a summary its row has the words, without the spaces around them; of one that nobody could use there is none. */
static bool add_aside(struct replay_stream *s)
{
    const struct run_recording *record = s->replay->record;
    const struct event *end = &record->solid[s->end];
    str id = json_str_or(end->data, S("message_id"), STR_NONE), text = STR_NONE;
    size_t at = recording_find_alive(record, s->end, EVENT_MESSAGE_SUMMARISED, "message_id", id);
    const struct record *row =
        recording_row(&record->messages, replay_id_member(end->data, "message_id"));
    bool is_kept = row && at < record->solid_count &&
                   !json_bool_or(record->solid[at].data, S("is_fallback"), false);
    if (is_kept)
        text = record_text(row, MESSAGES_CONTENT);
    add_delta(s, (struct delta){.kind = DELTA_TEXT, .text = filler(s, text, counted_bytes(end))},
              s->end_ns);
    return true;
}

/* The calls of a last answer are thrown away as they come: of them nothing is left but what they count for. */
static void add_unheard_calls(struct replay_stream *s)
{
    const struct run *run = replay_live(s->replay);
    int64_t more = counted_bytes(&s->replay->record->solid[s->end]);
    if (!run || !run->is_last_call)
        return;
    for (size_t i = 0; i < s->count; i++)
        more -= (int64_t) s->deltas[i].text.len;
    if (more > 0)
        add_delta(s, (struct delta){.kind = DELTA_TOOL_ARGUMENTS, .text = filler(s, S(""), more)},
                  s->end_ns);
}

/* The answer's row: thoughts, calls and what a provider must get back; its text is in the pieces, when it was all there. */
static bool add_answer(struct replay_stream *s, size_t piece_bytes, struct error *e)
{
    const struct run_recording *record = s->replay->record;
    const struct event *end = &record->solid[s->end];
    const struct record *row =
        recording_row(&record->messages, replay_id_member(end->data, "message_id"));
    const struct json *parts = NULL;
    if (json_get(end->data, S("purpose")))
        return add_aside(s);
    if (!row)
        return error_set(e, REASON_CORRUPT, "the recording has no message of the answer");
    if (record_has(row, MESSAGES_PARTS) &&
        !json_parse(s->arena, record_text(row, MESSAGES_PARTS), (struct json_limits){0}, &parts, e))
        return false;
    str content = record_text(row, MESSAGES_CONTENT);
    struct prompt_message message = run_answer_read(s->arena, content, parts);
    size_t pieces = s->count;
    bool is_in_pieces = piece_bytes == content.len && json_count(json_get(parts, S("order"))) == 0;
    struct delta *text = ARENA_ARRAY(s->arena, struct delta, pieces + 1);
    int64_t *due_ns = ARENA_ARRAY(s->arena, int64_t, pieces + 1);
    memcpy(text, s->deltas, pieces * sizeof *text);
    memcpy(due_ns, s->due_ns, pieces * sizeof *due_ns);
    s->deltas = ARENA_ARRAY(s->arena, struct delta, pieces + 2 * message.part_count + 1);
    s->due_ns = ARENA_ARRAY(s->arena, int64_t, pieces + 2 * message.part_count + 1);
    s->count = 0;
    bool has_text = false;
    int calls = 0;
    for (size_t i = 0; i < message.part_count; i++) {
        const struct part *part = &message.parts[i];
        if (part->kind == PART_TOOL_CALL)
            add_call_delta(s, part, calls++);
        else if (part->kind == PART_REASONING)
            add_delta(
                s,
                (struct delta){.kind = DELTA_REASONING, .text = part->text, .opaque = part->opaque},
                0);
        else if (!is_in_pieces)
            add_delta(
                s, (struct delta){.kind = DELTA_TEXT, .text = part->text, .opaque = part->opaque},
                pieces > 0 ? due_ns[0] : s->end_ns);
        else if (!has_text) {
            has_text = true;
            for (size_t k = 0; k < pieces; k++)
                add_delta(s, text[k], due_ns[k]);
        }
    }
    add_unheard_calls(s);
    return true;
}

/* What a broken call had sent beside text is in no row; its size is, where it was paid for by it. */
static void add_unrecorded(struct replay_stream *s, const struct prompt *prompt, size_t bytes,
                           str reservation)
{
    const struct run_recording *record = s->replay->record;
    size_t at =
        recording_find_alive(record, s->end, EVENT_BUDGET_SETTLED, "reservation_id", reservation);
    cost used;
    if (at == record->solid_count || recording_is(&record->solid[at], "basis", S("reported")) ||
        !cost_read_json(json_get(record->solid[at].data, S("amount")), &used))
        return;
    int64_t more = used.tokens - prompt_input_tokens_bound(prompt) - (int64_t) bytes;
    if (more <= 0 || more > RUN_EXPORT_BYTES_MAX)
        return;
    char *filler = arena_alloc(s->arena, (size_t) more + 1);
    memset(filler, ' ', (size_t) more);
    add_delta(s, (struct delta){.kind = DELTA_REASONING, .text = str_of(filler, (size_t) more)},
              s->end_ns);
}

static int64_t attempt_ms(const struct run_recording *record, size_t end, str reservation)
{
    const struct event *event = &record->solid[end];
    cost used;
    if (event->type == EVENT_MODEL_COMPLETED)
        return json_i64_or(event->data, S("latency_ms"), 0);
    size_t at =
        recording_find_alive(record, end, EVENT_BUDGET_SETTLED, "reservation_id", reservation);
    return at < record->solid_count &&
                   cost_read_json(json_get(record->solid[at].data, S("amount")), &used)
               ? used.time_ms
               : 0;
}

static size_t find_end(const struct replay *r, int64_t attempt)
{
    const struct run_recording *record = r->record;
    for (size_t i = r->next; i < record->solid_count && record->lives[i] <= r->life; i++) {
        const struct event *event = &record->solid[i];
        if ((event->type == EVENT_MODEL_COMPLETED || event->type == EVENT_MODEL_FAILED) &&
            json_i64_or(event->data, S("attempt"), 0) == attempt)
            return i;
    }
    return record->solid_count;
}

static bool open_stream(struct replay_stream *s, const struct prompt *prompt, struct error *e)
{
    struct replay *r = s->replay;
    const struct run_recording *record = r->record;
    const struct json *asked = NULL;
    for (size_t i = r->next; i > 0 && !asked; i--)
        if (record->solid[i - 1].type == EVENT_MODEL_REQUESTED)
            asked = record->solid[i - 1].data;
    int64_t attempt = json_i64_or(asked, S("attempt"), 0);
    str reservation = json_str_or(asked, S("reservation_id"), STR_NONE);
    s->end = find_end(r, attempt);
    bool has_end = s->end < record->solid_count;
    s->end_ns = r->mono_ns + (has_end ? attempt_ms(record, s->end, reservation) : 0) * 1000000ll;
    size_t bytes = add_pieces(s, attempt);
    if (!has_end)
        return true;
    if (record->solid[s->end].type == EVENT_MODEL_COMPLETED)
        return add_answer(s, bytes, e);
    add_unrecorded(s, prompt, bytes, reservation);
    return true;
}

static bool stream(struct provider *base, struct context *ctx, const struct provider_call *how,
                   const struct prompt *prompt, struct reply_stream **out, struct error *e)
{
    struct replay *r = CONTAINER_OF(base, struct replay_provider, base)->replay;
    (void) how, (void) ctx;
    struct replay_stream *s = calloc(1, sizeof *s);
    ensure(s != NULL);
    *s =
        (struct replay_stream){.base = {.ops = &stream_ops}, .replay = r, .arena = arena_create(0)};
    r->report->model_calls++;
    r->emitting++;
    if (!open_stream(s, prompt, e)) {
        close_stream(&s->base);
        return false;
    }
    *out = &s->base;
    return true;
}

static bool complete(struct provider *base, struct context *ctx, const struct provider_call *how,
                     const struct prompt *prompt, struct reply *out, struct error *e)
{
    (void) base, (void) ctx, (void) how, (void) prompt, (void) out;
    return error_set(e, REASON_UNSUPPORTED, "runs stream their model calls");
}

static bool forward(struct provider *base, struct context *ctx, const struct provider_call *how,
                    str path, str body, struct http_exchange **out, struct error *e)
{
    (void) base, (void) ctx, (void) how, (void) path, (void) body, (void) out;
    return error_set(e, REASON_UNSUPPORTED, "a replay sends nothing");
}

static bool models(struct provider *base, struct context *ctx, str **names, size_t *count,
                   struct error *e)
{
    (void) base, (void) ctx, (void) names, (void) count;
    return error_set(e, REASON_UNSUPPORTED, "a replay asks nobody");
}

static void destroy_provider(struct provider *provider)
{
    (void) provider; /* part of the replay */
}

static const struct provider_ops real_ops = {
    .name = "replay",
    .complete = complete,
    .stream = stream,
    .forward = forward,
    .models = models,
    .destroy = destroy_provider,
};
static const struct provider_ops stand_in_ops = {
    .name = "replay",
    .is_stand_in = true,
    .complete = complete,
    .stream = stream,
    .forward = forward,
    .models = models,
    .destroy = destroy_provider,
};

struct provider *replay_provider(struct replay *r, str name, bool is_stand_in)
{
    for (size_t i = 0; i < r->provider_count; i++)
        if (str_equal(r->providers[i].base.name, name))
            return &r->providers[i].base;
    if (r->provider_count == REPLAY_PROVIDERS_MAX)
        return NULL;
    struct replay_provider *made = &r->providers[r->provider_count++];
    *made = (struct replay_provider){
        .base = {.ops = is_stand_in ? &stand_in_ops : &real_ops, .name = name}, .replay = r};
    return &made->base;
}
