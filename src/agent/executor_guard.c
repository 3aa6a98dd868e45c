#include "agent/executor_guard.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/timefmt.h"
#include "observe/metrics.h"
#include "runtime/breaker.h"
#include "runtime/bulkhead.h"
#include "runtime/clock.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum guard_kind { GUARD_TOOL, GUARD_SERVER };
static const str kind_names[] = {
    [GUARD_TOOL] = S_INIT("tool"), [GUARD_SERVER] = S_INIT("mcp_server")};

struct guard_entry {
    enum guard_kind kind;
    bool has_circuit;
    char *name;
    uuid tenant_id; /* whose tool it is; UUID_NONE: everybody's */
    struct breaker breaker;
    struct bulkhead bulkhead;
    _Atomic int shown_state; /* as the metric has it */
    struct metric_series *state_series, *in_use_series, *refused_series;
};

enum { GUARD_SLOTS = 2 * GUARD_ENTRIES_MAX };

struct executor_guard {
    struct executor base;
    struct executor_guard_options options;
    uint64_t seed;
    pthread_mutex_t lock; /* of adding */
    _Atomic(struct guard_entry *) slots[GUARD_SLOTS];
    size_t count;
    struct guard_entry *other; /* of those that have no slot */
};

/* ---- the table ---- */

static struct guard_entry *entry_create(struct executor_guard *guard, enum guard_kind kind,
                                        str name, uuid tenant_id)
{
    const struct executor_guard_options *options = &guard->options;
    struct guard_entry *entry = calloc(1, sizeof *entry);
    ensure(entry != NULL);
    entry->kind = kind;
    entry->has_circuit = true;
    entry->name = strndup(name.ptr ? name.ptr : "", name.len);
    ensure(entry->name != NULL);
    entry->tenant_id = tenant_id;
    breaker_init(&entry->breaker);
    bulkhead_init(&entry->bulkhead, kind == GUARD_TOOL ? options->places : options->server_places,
                  options->queue_max);
    if (options->metrics) {
        const str labels[] = {kind_names[kind], str_from_cstr(entry->name)};
        entry->state_series = metrics_series(options->metrics, METRIC_CIRCUIT_STATE, labels, 2);
        entry->in_use_series = metrics_series(options->metrics, METRIC_BULKHEAD_IN_USE, labels, 2);
        entry->refused_series =
            metrics_series(options->metrics, METRIC_BULKHEAD_REFUSED, labels, 2);
    }
    return entry;
}

static void entry_destroy(struct guard_entry *entry)
{
    if (!entry)
        return;
    bulkhead_deinit(&entry->bulkhead);
    breaker_deinit(&entry->breaker);
    free(entry->name);
    free(entry);
}

static bool is_entry_of(const struct guard_entry *entry, enum guard_kind kind, str name,
                        uuid tenant_id)
{
    return entry->kind == kind && str_equal(str_from_cstr(entry->name), name) &&
           uuid_equal(entry->tenant_id, tenant_id);
}

/* The slot of this name, or the free one where it would be; half of them are always free. */
static size_t find_slot(const struct executor_guard *guard, enum guard_kind kind, str name,
                        uuid tenant_id)
{
    size_t slot = (str_hash(name, guard->seed) + (uint64_t) kind) % GUARD_SLOTS;
    for (;;) {
        const struct guard_entry *entry =
            atomic_load_explicit(&guard->slots[slot], memory_order_acquire);
        if (!entry || is_entry_of(entry, kind, name, tenant_id))
            return slot;
        slot = (slot + 1) % GUARD_SLOTS;
    }
}

static struct guard_entry *find_or_add(struct executor_guard *guard, enum guard_kind kind, str name,
                                       uuid tenant_id)
{
    size_t slot = find_slot(guard, kind, name, tenant_id);
    struct guard_entry *entry = atomic_load_explicit(&guard->slots[slot], memory_order_acquire);
    if (entry)
        return entry;
    pthread_mutex_lock(&guard->lock);
    slot = find_slot(guard, kind, name, tenant_id);
    entry = atomic_load_explicit(&guard->slots[slot], memory_order_relaxed);
    if (!entry && guard->count == GUARD_ENTRIES_MAX) {
        entry = guard->other;
    } else if (!entry) {
        entry = entry_create(guard, kind, name, tenant_id);
        guard->count++;
        atomic_store_explicit(&guard->slots[slot], entry, memory_order_release);
    }
    pthread_mutex_unlock(&guard->lock);
    return entry;
}

/* ---- the circuit ---- */

static int64_t now_ns(const struct executor_guard *guard)
{
    return clock_monotonic_ns(guard->options.clock);
}

static void show_state(struct guard_entry *entry, enum breaker_state state)
{
    if (atomic_exchange_explicit(&entry->shown_state, (int) state, memory_order_relaxed) !=
            (int) state &&
        entry->state_series)
        metric_set(entry->state_series, (double) state);
}

static const char *kind_text(const struct guard_entry *entry)
{
    return entry->kind == GUARD_TOOL ? "tool" : "MCP server";
}

static never_inline bool refuse_open(struct executor_guard *guard, struct guard_entry *entry,
                                     int64_t now, struct error *e)
{
    struct breaker_story story;
    char since[TIME_TEXT_BYTES + 1];
    if (breaker_tell(&entry->breaker, &story)) {
        time_format(clock_unix_us(guard->options.clock) - (now - story.opened_ns) / 1000, since);
        error_set(
            e, REASON_UNAVAILABLE,
            "%s \"%s\" has failed again and again: its circuit is open since %.19sZ and nothing is "
            "sent to it; the last failure was \"%s\"",
            kind_text(entry), entry->name, since, story.why);
    } else {
        error_set(
            e, REASON_UNAVAILABLE,
            "%s \"%s\" has failed again and again: it gets only a part of the calls for a while",
            kind_text(entry), entry->name);
    }
    e->retry_after_ms = story.until_ns > now ? (story.until_ns - now) / 1000000 + 1 : 1000;
    if (entry->refused_series)
        metric_add(entry->refused_series, 1);
    return false;
}

static void probe_goes(struct guard_entry *entry)
{
    if (breaker_is_first_probe(&entry->breaker))
        LOG_INFO("agent.guard", S("circuit half-open: single calls try it"),
                 LOG_STR("nexus.circuit.kind", kind_names[entry->kind]),
                 LOG_STR("nexus.circuit.name", str_from_cstr(entry->name)));
}

/* *is_probe: this call says whether the other side is well again. */
static bool pass_circuit(struct executor_guard *guard, struct guard_entry *entry, bool *is_probe,
                         struct error *e)
{
    *is_probe = false;
    if (!entry->has_circuit)
        return true;
    int64_t now = now_ns(guard);
    enum breaker_state state = breaker_look(&entry->breaker, now);
    show_state(entry, state);
    switch (state) {
    case BREAKER_CLOSED: return true;
    case BREAKER_RAMPING:
        return (int64_t) (random_u64(guard->options.random) % 1000) <
                   breaker_share_per_mille(&entry->breaker, now) ||
               refuse_open(guard, entry, now, e);
    case BREAKER_HALF_OPEN:
        *is_probe = breaker_take_probe(&entry->breaker);
        if (*is_probe)
            probe_goes(entry);
        return *is_probe || refuse_open(guard, entry, now, e);
    case BREAKER_OPEN: break;
    }
    return refuse_open(guard, entry, now, e);
}

/* Does it say that what is behind this entry is broken?  A call that was cancelled or never sent says nothing either way. */
static bool is_broken(const struct guard_entry *entry, const struct tool *tool,
                      const struct error *e)
{
    bool is_unreachable = e->reason == REASON_UNAVAILABLE || e->reason == REASON_OUTCOME_UNKNOWN;
    bool is_slow = e->reason == REASON_TIMEOUT || e->reason == REASON_TIME_LIMIT;
    if (entry->kind == GUARD_SERVER)
        return is_unreachable;
    if (tool->abi == TOOL_ABI_MCP)
        return is_unreachable || is_slow;
    /* The sandbox's own process ending is nobody's tool's fault, and an upstream that a guest asked is not the tool. */
    return e->reason == REASON_INTERNAL || e->reason == REASON_CORRUPT;
}

static bool says_nothing(const struct error *e)
{
    return e->code == ERROR_CANCELLED || e->reason == REASON_OVERLOADED_HERE ||
           e->reason == REASON_DRAINING;
}

/* What callers are told later.  That a server cannot be reached is our own text; any other may hold what somebody else said. */
static const char *why_of(const struct tool *tool, const struct error *failure)
{
    return tool->abi == TOOL_ABI_MCP && failure->code == ERROR_UNAVAILABLE
               ? failure->message
               : error_title(failure->reason);
}

static void entry_failed(struct executor_guard *guard, struct guard_entry *entry,
                         const struct tool *tool, bool is_probe, const struct error *failure)
{
    if (breaker_failed(&entry->breaker, now_ns(guard), is_probe, random_u64(guard->options.random),
                       why_of(tool, failure)))
        LOG_WARN("agent.guard", S("circuit opened: nothing is sent there for a while"),
                 LOG_STR("nexus.circuit.kind", kind_names[entry->kind]),
                 LOG_STR("nexus.circuit.name", str_from_cstr(entry->name)),
                 LOG_STR("error.message", str_from_cstr(failure->message)),
                 LOG_STR("error.type", str_from_cstr(error_problem(failure->reason))));
}

static void tell_circuit(struct executor_guard *guard, struct guard_entry *entry,
                         const struct tool *tool, bool is_probe, const struct error *failure)
{
    int64_t now = now_ns(guard);
    if (!entry->has_circuit)
        return;
    if (failure && says_nothing(failure)) {
        if (is_probe)
            breaker_release_probe(&entry->breaker);
        return;
    }
    if (failure && is_broken(entry, tool, failure))
        entry_failed(guard, entry, tool, is_probe, failure);
    else if (breaker_passed(&entry->breaker, now, is_probe))
        LOG_INFO("agent.guard", S("circuit closed: calls go again"),
                 LOG_STR("nexus.circuit.kind", kind_names[entry->kind]),
                 LOG_STR("nexus.circuit.name", str_from_cstr(entry->name)));
    show_state(entry, breaker_look(&entry->breaker, now));
}

/* ---- one call ---- */

static void show_use(struct guard_entry *entry)
{
    if (entry->in_use_series)
        metric_set(entry->in_use_series, (double) bulkhead_look(&entry->bulkhead).in_use);
}

may_suspend static bool take_place(struct executor_guard *guard, struct guard_entry *entry,
                                   struct context *ctx, const struct tool_request *request,
                                   struct error *e)
{
    if (request->is_nested)
        return true;
    struct bulkhead_entry place = {.name = str_from_cstr(entry->name),
                                   .owner = request->tenant_id,
                                   .wait_ms = guard->options.wait_ms};
    if (!bulkhead_enter(&entry->bulkhead, ctx, &place, e)) {
        if (entry->refused_series && e->reason == REASON_OVERLOADED_HERE)
            metric_add(entry->refused_series, 1);
        return false;
    }
    show_use(entry);
    return true;
}

static void give_place(struct guard_entry *entry, const struct tool_request *request)
{
    if (request->is_nested)
        return;
    bulkhead_leave(&entry->bulkhead);
    show_use(entry);
}

/* The place first: a circuit may open while one waits, and a probe that waited would keep others from asking. */
may_suspend static bool enter(struct executor_guard *guard, struct guard_entry *entry,
                              struct context *ctx, const struct tool_request *request,
                              bool *is_probe, struct error *e)
{
    if (!take_place(guard, entry, ctx, request, e))
        return false;
    if (pass_circuit(guard, entry, is_probe, e))
        return true;
    give_place(entry, request);
    return false;
}

static void leave(struct executor_guard *guard, struct guard_entry *entry,
                  const struct tool_request *request, bool is_probe, const struct error *failure)
{
    give_place(entry, request);
    tell_circuit(guard, entry, request->tool, is_probe, failure);
}

may_suspend static bool guard_execute(struct executor *executor, struct context *ctx,
                                      const struct tool_request *request, struct tool_result *out,
                                      struct error *e)
{
    struct executor_guard *guard = CONTAINER_OF(executor, struct executor_guard, base);
    const struct tool *tool = request->tool;
    struct error failure = {0};
    bool is_probe, is_server_probe = false;
    struct guard_entry *entry = find_or_add(guard, GUARD_TOOL, tool->name, tool->tenant_id);
    struct guard_entry *server =
        tool->abi == TOOL_ABI_MCP
            ? find_or_add(guard, GUARD_SERVER, tool->source_name, tool->tenant_id)
            : NULL;
    if (!enter(guard, entry, ctx, request, &is_probe, e))
        return false;
    bool is_in = !server || enter(guard, server, ctx, request, &is_server_probe, &failure);
    bool is_ok = is_in && executor_execute(guard->options.give_next, ctx, request, out, &failure);
    if (server && is_in)
        leave(guard, server, request, is_server_probe, is_ok ? NULL : &failure);
    static const struct error unasked = {.code = ERROR_CANCELLED, .reason = REASON_CANCELLED};
    leave(guard, entry, request, is_probe, is_ok ? NULL : is_in ? &failure : &unasked);
    return is_ok || error_copy(e, &failure);
}

static void guard_destroy(struct executor *executor)
{
    struct executor_guard *guard = CONTAINER_OF(executor, struct executor_guard, base);
    executor_destroy(guard->options.give_next);
    for (size_t i = 0; i < GUARD_SLOTS; i++)
        entry_destroy(atomic_load_explicit(&guard->slots[i], memory_order_relaxed));
    entry_destroy(guard->other);
    pthread_mutex_destroy(&guard->lock);
    free(guard);
}

static const struct executor_ops guard_ops = {"guard", guard_execute, guard_destroy};

struct executor_guard *executor_guard_create(const struct executor_guard_options *options)
{
    struct executor_guard *guard = calloc(1, sizeof *guard);
    ensure(guard != NULL);
    guard->base.ops = &guard_ops;
    guard->options = *options;
    if (guard->options.places <= 0)
        guard->options.places = GUARD_PLACES;
    if (guard->options.server_places <= 0)
        guard->options.server_places = GUARD_SERVER_PLACES;
    if (guard->options.queue_max <= 0)
        guard->options.queue_max = GUARD_QUEUE_MAX;
    if (guard->options.wait_ms <= 0)
        guard->options.wait_ms = GUARD_WAIT_MS;
    guard->seed = map_seed();
    pthread_mutex_init(&guard->lock, NULL);
    guard->other = entry_create(guard, GUARD_TOOL, S("other"), UUID_NONE);
    guard->other->has_circuit = false;
    return guard;
}

struct executor *executor_guard_executor(struct executor_guard *guard)
{
    return &guard->base;
}

/* ---- what is known ---- */

static void write_entry(struct executor_guard *guard, struct guard_entry *entry,
                        struct json_writer *w)
{
    int64_t now = now_ns(guard), passed, failed, until = breaker_opens_again_ns(&entry->breaker);
    struct bulkhead_counts counts = bulkhead_look(&entry->bulkhead);
    enum breaker_state state = breaker_look(&entry->breaker, now);
    breaker_counts(&entry->breaker, now, &passed, &failed);
    show_state(entry, state);
    json_object_begin(w);
    json_put_str(w, S("kind"), kind_names[entry->kind]);
    json_put_str(w, S("name"), str_from_cstr(entry->name));
    json_put_str(w, S("circuit"), str_from_cstr(breaker_state_name(state)));
    json_put_i64(w, S("retry_after_ms"),
                 state == BREAKER_OPEN && until > now ? (until - now) / 1000000 + 1 : 0);
    json_put_i64(w, S("passed"), passed);
    json_put_i64(w, S("failed"), failed);
    json_put_i64(w, S("in_use"), counts.in_use);
    json_put_i64(w, S("places"), counts.places);
    json_put_i64(w, S("queued"), counts.queued);
    json_put_i64(w, S("queue_max"), counts.queue_max);
    json_put_i64(w, S("refused"), counts.refused);
    json_object_end(w);
}

void executor_guard_write_json(struct executor_guard *guard, uuid tenant_id, struct json_writer *w)
{
    for (size_t i = 0; i < GUARD_SLOTS; i++) {
        struct guard_entry *entry = atomic_load_explicit(&guard->slots[i], memory_order_acquire);
        if (entry && (uuid_is_none(entry->tenant_id) || uuid_equal(entry->tenant_id, tenant_id)))
            write_entry(guard, entry, w);
    }
}
