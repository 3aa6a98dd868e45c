/*
 * The embedded Rego engine: modules from a folder, compiled into an immutable set that a reload swaps whole.
 *
 * Evaluation needs hundreds of KiB of stack: it runs on the loop's own stack (coroutine_on_thread_stack), capped in time.
 */
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "nexus_native.h"
#include "orchestrator/policy/policy_memo_internal.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    POLICY_FILES_MAX = 256,
    POLICY_FILE_BYTES_MAX = 1 << 20,
    POLICY_TIME_LIMIT_MS = 50,
    POLICY_ATTEMPTS = 3
};

static const struct native_text allow_rule = {"data.nexus.agent.policy.allow", 29};
static const struct native_text demands_rule = {"data.nexus.agent.policy.approval_requirements",
                                                45};

struct policy_set {
    struct native_rego *rego;
    struct policy_reads *reads; /* with it goes the memo; both NULL: nothing is remembered */
    struct policy_memo *memo;
    bool reads_approval;
    char version[17];
    _Atomic int references;
};

struct policy_rego {
    struct policy base;
    pthread_mutex_t lock; /* of the pointer, never held while evaluating */
    struct policy_set *set;
    char *dir;
    int64_t time_limit_ms;
    bool has_no_memo;
    _Atomic uint64_t hits, misses, unaskable;
};

/* ---- reading the folder ---- */

struct sources {
    struct arena *arena;
    struct native_rego_module modules[POLICY_FILES_MAX];
    size_t count;
    struct native_text data;
};

static struct native_text text_of(str s)
{
    return (struct native_text){s.ptr, s.len};
}

static bool read_file(struct arena *arena, const char *path, str *out, struct error *e)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return error_set(e, REASON_CONFIG, "%s: %s", path, strerror(errno));
    char *text = arena_alloc(arena, POLICY_FILE_BYTES_MAX + 1);
    size_t got = fread(text, 1, POLICY_FILE_BYTES_MAX + 1, file);
    bool failed = ferror(file) != 0;
    (void) fclose(file);
    if (failed)
        return error_set(e, REASON_CONFIG, "%s: cannot be read", path);
    if (got > POLICY_FILE_BYTES_MAX)
        return error_set(e, REASON_CONFIG, "%s: over %d bytes", path, POLICY_FILE_BYTES_MAX);
    *out = str_of(text, got);
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct native_rego_module *left = a, *right = b;
    return str_compare(str_of(left->name.data, left->name.bytes),
                       str_of(right->name.data, right->name.bytes));
}

static bool read_entry(struct sources *sources, const char *dir, str name, struct error *e)
{
    bool is_module = str_ends_with(name, S(".rego")) && !str_ends_with(name, S("_test.rego"));
    bool is_data = str_equal(name, S("data.json"));
    if (!is_module && !is_data)
        return true;
    char *path =
        str_to_cstr(sources->arena, str_printf(sources->arena, "%s/" STR_FMT, dir, STR_ARG(name)));
    str text = STR_NONE;
    if (!read_file(sources->arena, path, &text, e))
        return false;
    if (is_data) {
        sources->data = text_of(text);
        return true;
    }
    if (sources->count == POLICY_FILES_MAX)
        return error_set(e, REASON_CONFIG, "%s: more than %d policy files", dir, POLICY_FILES_MAX);
    sources->modules[sources->count++] =
        (struct native_rego_module){text_of(str_copy(sources->arena, name)), text_of(text)};
    return true;
}

static bool read_folder(struct sources *sources, const char *dir, struct error *e)
{
    DIR *folder = opendir(dir);
    if (!folder)
        return error_set(e, REASON_CONFIG,
                         "policy folder %s: %s; set policy.dir in the configuration", dir,
                         strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(folder));)
        ok = read_entry(sources, dir, str_from_cstr(entry->d_name), e);
    (void) closedir(folder);
    if (ok && sources->count == 0)
        return error_set(e, REASON_CONFIG, "policy folder %s holds no *.rego file", dir);
    qsort(sources->modules, sources->count, sizeof sources->modules[0], by_name);
    return ok;
}

/* ---- compiling ---- */

static void set_version(struct policy_set *set, const struct sources *sources)
{
    struct digest_stream *stream = digest_stream_create();
    for (size_t i = 0; i < sources->count; i++) {
        const struct native_rego_module *module = &sources->modules[i];
        digest_stream_add(stream, str_of(module->name.data, module->name.bytes));
        digest_stream_add(stream, S("\n"));
        digest_stream_add(stream, str_of(module->text.data, module->text.bytes));
    }
    digest_stream_add(stream, str_of(sources->data.data, sources->data.bytes));
    digest whole = digest_stream_finish(stream);
    digest_stream_destroy(stream);
    str hex = digest_hex(sources->arena, whole);
    memcpy(set->version, hex.ptr, sizeof set->version - 1);
}

static void set_release(struct policy_set *set)
{
    if (!set || atomic_fetch_sub(&set->references, 1) != 1)
        return;
    native_rego_destroy(set->rego);
    policy_reads_destroy(set->reads);
    policy_memo_destroy(set->memo);
    free(set);
}

/* A set is fit for use when `allow` is defined: an empty question must have an answer. */
static bool try_set(struct policy_set *set, const char *dir, struct error *e)
{
    char *value = NULL, *message = NULL;
    enum native_status status = native_rego_eval(
        set->rego, allow_rule, (struct native_text){"{}", 2}, 1000000000ull, &value, &message);
    native_string_free(value);
    bool ok = status == NATIVE_OK || status == NATIVE_UNDEFINED;
    if (status == NATIVE_NOT_FOUND)
        error_set(e, REASON_CONFIG,
                  "%s: no module of package nexus.agent.policy defines the rule allow", dir);
    else if (!ok)
        error_set(e, REASON_CONFIG, "%s: %s", dir,
                  message ? message : "the policy cannot be evaluated");
    native_string_free(message);
    return ok;
}

static bool is_approval(const struct json *path)
{
    str first;
    return !json_to_str(json_at(path, 0), &first) || str_equal(first, S("approval"));
}

/* What the policies read decides what is remembered, and whether it pays to ask what an approval would change. */
static void analyse(struct policy_set *set, struct arena *arena, bool has_memo)
{
    char *text = NULL, *message = NULL;
    const struct json *inputs, *path;
    struct error ignored;
    bool is_known =
        native_rego_inputs(set->rego, &text, &message) == NATIVE_OK &&
        json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &inputs, &ignored);
    native_string_free(text);
    native_string_free(message);
    set->reads_approval = !is_known;
    if (!is_known)
        return;
    struct json_iter it = json_iter(json_get(inputs, S("paths")));
    while (!set->reads_approval && json_next(&it, NULL, &path))
        set->reads_approval = is_approval(path);
    if (has_memo)
        set->reads = policy_reads_create(inputs);
    if (set->reads)
        set->memo = policy_memo_create();
}

static bool compile(const char *dir, bool has_memo, struct policy_set **out, struct error *e)
{
    OWNED(arena) arena = arena_create((size_t) 64 << 20);
    struct sources *sources = ARENA_NEW(arena, struct sources);
    sources->arena = arena;
    if (!read_folder(sources, dir, e))
        return false;
    struct policy_set *set = calloc(1, sizeof *set);
    ensure(set != NULL);
    set->references = 1;
    char *message = NULL;
    if (native_rego_create(sources->modules, sources->count, sources->data, &set->rego, &message) !=
        NATIVE_OK) {
        error_set(e, REASON_CONFIG, "%s/%s", dir,
                  message ? message : "the policy does not compile");
        native_string_free(message);
        free(set);
        return false;
    }
    set_version(set, sources);
    if (!try_set(set, dir, e)) {
        set_release(set);
        return false;
    }
    analyse(set, arena, has_memo);
    *out = set;
    return true;
}

/* ---- deciding ---- */

static struct policy_set *acquire(struct policy_rego *policy)
{
    pthread_mutex_lock(&policy->lock);
    struct policy_set *set = policy->set;
    atomic_fetch_add(&set->references, 1);
    pthread_mutex_unlock(&policy->lock);
    return set;
}

struct evaluation {
    const struct policy_set *set;
    str input;
    uint64_t limit_ns;
    struct arena *arena;
    bool is_allowed, is_rule_known;
    str rule, failure; /* on the arena */
};

static str take_text(struct arena *arena, char *text)
{
    str copy = str_copy(arena, str_from_cstr(text));
    native_string_free(text);
    return copy;
}

/* {"module", "line", "is_default"} of the first definition that holds -> "base.rego:8 allow". */
static void find_rule_on_stack(void *argument)
{
    struct evaluation *v = argument;
    char *json = NULL, *message = NULL;
    if (native_rego_explain(v->set->rego, allow_rule, text_of(v->input), v->limit_ns, &json,
                            &message) != NATIVE_OK) {
        native_string_free(message);
        return;
    }
    const struct json *list;
    struct error ignored;
    str text = take_text(v->arena, json);
    if (!json_parse(v->arena, text, (struct json_limits){0}, &list, &ignored))
        return;
    const struct json *first = json_at(list, 0);
    v->is_rule_known = true;
    if (first)
        v->rule = str_printf(v->arena, STR_FMT ":%lld allow%s",
                             STR_ARG(json_str_or(first, S("module"), S("?"))),
                             (long long) json_i64_or(first, S("line"), 0),
                             json_bool_or(first, S("is_default"), false) ? " (default)" : "");
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

/* The engine's limit is by the clock on the wall: on a machine that is too busy to run this thread it strikes an evaluation that has
   hardly begun.  Such a one is tried again. */
static enum native_status evaluate_fairly(struct evaluation *v, struct native_text rule,
                                          char **value, char **message)
{
    for (int attempt = 1;; attempt++) {
        uint64_t began_ns = thread_cpu_ns();
        enum native_status status =
            native_rego_eval(v->set->rego, rule, text_of(v->input), v->limit_ns, value, message);
        if (status != NATIVE_TIMEOUT || attempt == POLICY_ATTEMPTS ||
            thread_cpu_ns() - began_ns > v->limit_ns / 2)
            return status;
        native_string_free(*message);
        *message = NULL;
    }
}

static void evaluate_on_stack(void *argument)
{
    struct evaluation *v = argument;
    char *value = NULL, *message = NULL;
    enum native_status status = evaluate_fairly(v, allow_rule, &value, &message);
    if (status == NATIVE_OK)
        v->is_allowed = strcmp(value, "true") == 0;
    else if (status != NATIVE_UNDEFINED)
        v->failure = take_text(v->arena, message);
    if (status == NATIVE_OK)
        native_string_free(value);
}

static bool evaluate(struct policy_rego *policy, struct context *ctx, const struct policy_set *set,
                     str input, struct evaluation *out)
{
    *out = (struct evaluation){
        .set = set,
        .input = input,
        .limit_ns = (uint64_t) policy->time_limit_ms * 1000000u,
        .arena = ctx->arena,
    };
    coroutine_on_thread_stack(evaluate_on_stack, out);
    return out->is_allowed;
}

/* False: the rule could not be found in time; the decision stands without. */
static bool name_rule(struct evaluation *v, const struct policy_input *input,
                      struct policy_decision *out)
{
    if (input->skips_rule)
        return true;
    coroutine_on_thread_stack(find_rule_on_stack, v);
    if (!str_is_empty(v->rule))
        out->rule = v->rule;
    return v->is_rule_known;
}

/* False: what came out is not to be remembered, because no decision could be had (then the reason is set) or not all of it. */
static bool judge(struct policy_rego *policy, struct context *ctx, const struct policy_set *set,
                  const struct policy_input *input, struct policy_decision *out)
{
    struct evaluation now, then;
    str document = policy_input_json(ctx->arena, input, false);
    if (str_is_empty(document)) {
        out->reason = S("the arguments are too large to decide about");
        return false;
    }
    bool is_allowed = evaluate(policy, ctx, set, document, &now);
    if (!str_is_empty(now.failure)) {
        out->reason = str_printf(ctx->arena, "no decision could be had: " STR_FMT,
                                 STR_ARG(str_slice(now.failure, 0, 300)));
        return false;
    }
    if (is_allowed)
        out->verdict = POLICY_ALLOW;
    if (is_allowed || !str_is_empty(input->approver) || !set->reads_approval)
        return name_rule(&now, input, out);
    if (evaluate(policy, ctx, set, policy_input_json(ctx->arena, input, true), &then)) {
        out->verdict = POLICY_NEEDS_APPROVAL;
        return name_rule(&then, input, out);
    }
    return name_rule(&now, input, out) && str_is_empty(then.failure);
}

static str reason_of(struct arena *arena, const struct policy_input *input,
                     const struct policy_decision *decision)
{
    switch (decision->verdict) {
    case POLICY_ALLOW:
        return input->skips_rule ? S("allowed")
                                 : str_join(arena, (str[]){S("allowed by "), decision->rule}, 2);
    case POLICY_NEEDS_APPROVAL:
        if (input->skips_rule)
            return S("it needs the approval of another person");
        return str_printf(arena, STR_FMT " allows it once another person has approved",
                          STR_ARG(decision->rule));
    case POLICY_DENY: break;
    }
    return str_printf(arena, "no rule allows " STR_FMT " for role " STR_FMT, STR_ARG(input->action),
                      STR_ARG(input->role));
}

/* From memory, else by the engine.  A question takes a good part of a small stack, so it is on the arena. */
static void answer(struct policy_rego *policy, struct context *ctx, const struct policy_set *set,
                   const struct policy_input *input, struct policy_decision *out)
{
    struct policy_question *question =
        set->memo ? arena_alloc_raw(ctx->arena, sizeof *question) : NULL;
    if (question && !policy_reads_ask(set->reads, ctx->arena, input, question))
        question = NULL;
    if (!question) {
        atomic_fetch_add_explicit(&policy->unaskable, 1, memory_order_relaxed);
        (void) judge(policy, ctx, set, input, out);
        return;
    }
    if (policy_memo_find(set->memo, ctx->arena, question, input->skips_rule, out)) {
        atomic_fetch_add_explicit(&policy->hits, 1, memory_order_relaxed);
        return;
    }
    atomic_fetch_add_explicit(&policy->misses, 1, memory_order_relaxed);
    if (judge(policy, ctx, set, input, out))
        policy_memo_keep(set->memo, question, !input->skips_rule, out);
}

static void decide(struct policy *base, struct context *ctx, const struct policy_input *input,
                   struct policy_decision *out)
{
    struct policy_rego *policy = (struct policy_rego *) base;
    struct policy_set *set = acquire(policy);
    out->version = str_copy(ctx->arena, str_from_cstr(set->version));
    out->rule = S("default");
    answer(policy, ctx, set, input, out);
    if (str_is_empty(out->reason))
        out->reason = reason_of(ctx->arena, input, out);
    set_release(set);
}

/* ---- what an approval needs ---- */

static void demand_on_stack(void *argument)
{
    struct evaluation *v = argument;
    char *value = NULL, *message = NULL;
    enum native_status status = evaluate_fairly(v, demands_rule, &value, &message);
    v->is_allowed = status == NATIVE_OK;
    v->is_rule_known = status != NATIVE_NOT_FOUND && status != NATIVE_UNDEFINED;
    if (v->is_allowed)
        v->rule = take_text(v->arena, value);
    else if (v->is_rule_known)
        v->failure = take_text(v->arena, message);
    else
        native_string_free(message);
}

static bool approval_demands(struct policy *base, struct context *ctx,
                             const struct policy_input *input, str *out, struct error *e)
{
    struct policy_rego *policy = (struct policy_rego *) base;
    struct policy_set *set = acquire(policy);
    struct evaluation v = {.set = set,
                           .input = policy_input_json(ctx->arena, input, false),
                           .limit_ns = (uint64_t) policy->time_limit_ms * 1000000u,
                           .arena = ctx->arena};
    bool fits = !str_is_empty(v.input);
    if (fits)
        coroutine_on_thread_stack(demand_on_stack, &v);
    set_release(set);
    if (!fits)
        return error_set(e, REASON_TOO_LARGE, "the arguments are too large to decide about");
    if (!v.is_allowed && v.is_rule_known)
        return error_set(e, REASON_POLICY_DENIED, "approval_requirements of the policy: " STR_FMT,
                         STR_ARG(str_cut_utf8(v.failure, 300)));
    *out = v.is_allowed ? v.rule : STR_NONE;
    return true;
}

static bool reload(struct policy *base, struct error *e)
{
    struct policy_rego *policy = (struct policy_rego *) base;
    struct policy_set *fresh = NULL;
    if (!compile(policy->dir, !policy->has_no_memo, &fresh, e))
        return false;
    pthread_mutex_lock(&policy->lock);
    struct policy_set *old = policy->set;
    policy->set = fresh;
    pthread_mutex_unlock(&policy->lock);
    set_release(old);
    return true;
}

static void destroy(struct policy *base)
{
    struct policy_rego *policy = (struct policy_rego *) base;
    set_release(policy->set);
    pthread_mutex_destroy(&policy->lock);
    free(policy->dir);
    free(policy);
}

static const struct policy_ops rego_ops = {
    .name = "rego",
    .decide = decide,
    .approval_demands = approval_demands,
    .reload = reload,
    .destroy = destroy,
};

bool policy_rego_create(const struct policy_rego_options *options, struct policy **out,
                        struct error *e)
{
    struct policy_rego *policy = calloc(1, sizeof *policy);
    ensure(policy != NULL);
    policy->base.ops = &rego_ops;
    policy->has_no_memo = options->has_no_memo;
    policy->time_limit_ms =
        options->time_limit_ms > 0 ? options->time_limit_ms : POLICY_TIME_LIMIT_MS;
    pthread_mutex_init(&policy->lock, NULL);
    policy->dir = malloc(options->dir.len + 1);
    ensure(policy->dir != NULL);
    memcpy(policy->dir, options->dir.ptr, options->dir.len);
    policy->dir[options->dir.len] = 0;
    if (!compile(policy->dir, !policy->has_no_memo, &policy->set, e)) {
        destroy(&policy->base);
        return false;
    }
    *out = &policy->base;
    return true;
}

str policy_rego_version(struct policy *base, struct arena *arena)
{
    struct policy_set *set = acquire((struct policy_rego *) base);
    str version = str_copy(arena, str_from_cstr(set->version));
    set_release(set);
    return version;
}

struct policy_memo_counts policy_rego_memo_counts(const struct policy *base)
{
    const struct policy_rego *policy = (const struct policy_rego *) base;
    return (struct policy_memo_counts){
        .hits = atomic_load_explicit(&policy->hits, memory_order_relaxed),
        .misses = atomic_load_explicit(&policy->misses, memory_order_relaxed),
        .unaskable = atomic_load_explicit(&policy->unaskable, memory_order_relaxed),
    };
}
