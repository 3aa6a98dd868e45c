/* Usage: sums, single calls, feedback, A/B reports. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/usage/usage_report.h"
#include <math.h>

static bool read_time(struct api_call *call, str name, int64_t *out, struct error *e)
{
    str text = query_text(call, name);
    return str_is_empty(text) || time_parse(text, out) ||
           error_set(e, REASON_INVALID, "?" STR_FMT "= must be an RFC 3339 time", STR_ARG(name));
}

static bool read_span(struct api_call *call, int64_t *from_us, int64_t *to_us, struct error *e)
{
    return read_time(call, S("from"), from_us, e) && read_time(call, S("to"), to_us, e);
}

static bool read_id(struct api_call *call, str name, uuid *out, struct error *e)
{
    str text = query_text(call, name);
    return str_is_empty(text) || uuid_parse(text, out) ||
           error_set(e, REASON_INVALID, "?" STR_FMT "= must be an id", STR_ARG(name));
}

/* ---- sums ---- */

static bool read_grouping(struct api_call *call, unsigned *by, struct error *e)
{
    str rest = query_text(call, S("by")), name;
    *by = str_is_empty(rest) ? USAGE_BY_MODEL : 0;
    while (!str_is_empty(rest) && str_next(&rest, ',', &name)) {
        unsigned bit;
        if (!usage_by_parse(name, &bit))
            return error_set(e, REASON_INVALID,
                             "?by= may name day, user, key, model, provider, variant and kind");
        *by |= bit;
    }
    return true;
}

/* To a thousandth: what is finer is noise. */
static double rounded(double value)
{
    return round(value * 1000) / 1000;
}

static void put_mean_ms(struct json_writer *w, str name, int64_t sum_us, int64_t count)
{
    json_key(w, name);
    if (count > 0)
        json_write_double(w, rounded((double) sum_us / 1000 / (double) count));
    else
        json_write_null(w);
}

static void write_names(struct json_writer *w, const struct usage_group *group, unsigned by)
{
    const struct {
        unsigned bit;
        const char *member;
        str value;
    } names[] = {
        {USAGE_BY_DAY, "day", group->day},
        {USAGE_BY_USER, "user_id", group->user_id},
        {USAGE_BY_KEY, "key_id", group->key_id},
        {USAGE_BY_MODEL, "model", group->model},
        {USAGE_BY_PROVIDER, "provider", group->provider},
        {USAGE_BY_VARIANT, "variant", group->variant},
        {USAGE_BY_KIND, "kind", group->kind},
    };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (by & names[i].bit)
            json_put_str(w, str_from_cstr(names[i].member), names[i].value);
}

static void write_amounts(struct json_writer *w, const struct usage_group *group)
{
    json_put_i64(w, S("requests"), group->requests);
    json_put_i64(w, S("errors"), group->errors);
    json_put_i64(w, S("cache_hits"), group->cache_hits);
    json_put_i64(w, S("input_tokens"), group->input_tokens);
    json_put_i64(w, S("output_tokens"), group->output_tokens);
    json_put_i64(w, S("cached_tokens"), group->cached_tokens);
    json_put_i64(w, S("cache_write_tokens"), group->cache_write_tokens);
    json_put_i64(w, S("reasoning_tokens"), group->reasoning_tokens);
    put_mean_ms(w, S("duration_ms_mean"), group->duration_us, group->requests);
    put_mean_ms(w, S("first_token_ms_mean"), group->first_token_us, group->first_tokens);
}

static void put_number(struct json_writer *w, str name, double value)
{
    json_key(w, name);
    if (isnan(value))
        json_write_null(w);
    else
        json_write_double(w, rounded(value));
}

static void write_feedback(struct json_writer *w, const struct usage_group *group)
{
    struct usage_interval interval = usage_feedback_interval(group);
    json_key(w, S("feedback"));
    json_object_begin(w);
    json_put_i64(w, S("count"), group->feedback_count);
    put_number(w, S("mean"), interval.mean);
    put_number(w, S("low"), interval.low);
    put_number(w, S("high"), interval.high);
    json_object_end(w);
}

static void put_cost(struct json_writer *w, str name, cost amount)
{
    json_key(w, name);
    cost_write_json(w, amount);
}

bool route_usage(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    struct usage_question question = {.user_id = query_text(call, S("user_id"))};
    struct usage_sums *sums = ARENA_NEW(call->ctx->arena, struct usage_sums);
    if (!read_grouping(call, &question.by, e) ||
        !read_span(call, &question.from_us, &question.to_us, e) ||
        !usage_sums(call->gateway->orchestrator, call->ctx, &call->principal, &question, sums, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_key(w, S("items"));
    json_array_begin(w);
    for (size_t i = 0; i < sums->count; i++) {
        const struct usage_group *group = &sums->groups[i];
        json_object_begin(w);
        write_names(w, group, question.by);
        json_put_i64(w, S("entries"), group->entries);
        put_cost(w, S("cost"), group->sum);
        write_amounts(w, group);
        write_feedback(w, group);
        json_object_end(w);
    }
    json_array_end(w);
    json_put_i64(w, S("entries"), sums->total.entries);
    put_cost(w, S("total"), sums->total.sum);
    write_amounts(w, &sums->total);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

/* ---- calls ---- */

static bool read_status(struct api_call *call, str *out, struct error *e)
{
    str text = query_text(call, S("status"));
    enum error_reason reason;
    *out = text;
    return str_is_empty(text) || str_equal(text, S("ok")) || str_equal(text, S("error")) ||
           error_reason_find(text, &reason) ||
           error_set(e, REASON_INVALID,
                     "?status= must be ok, error, or the name of a problem, as rate_limited or "
                     "provider_timeout");
}

bool route_usage_calls(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    struct usage_page page;
    str cursor;
    size_t limit;
    struct usage_filter *filter = ARENA_NEW(call->ctx->arena, struct usage_filter);
    filter->user_id = query_text(call, S("user_id"));
    filter->model = query_text(call, S("model"));
    filter->variant = query_text(call, S("variant"));
    if (!read_status(call, &filter->status, e) || !read_id(call, S("key_id"), &filter->key_id, e) ||
        !read_id(call, S("session_id"), &filter->session_id, e) ||
        !read_span(call, &filter->from_us, &filter->to_us, e) ||
        !query_page(call, &cursor, &limit, e) ||
        !usage_calls(call->gateway->orchestrator, call->ctx, &call->principal, filter, cursor,
                     limit, &page, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_key(w, S("items"));
    json_array_begin(w);
    for (size_t i = 0; i < page.count; i++)
        usage_write_json(w, &page.items[i]);
    json_array_end(w);
    json_key(w, S("next_cursor"));
    if (str_is_empty(page.next_cursor))
        json_write_null(w);
    else
        json_write_str(w, page.next_cursor);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

/* ---- feedback ---- */

bool route_feedback(struct api_call *call, struct error *e)
{
    struct usage_score score = {0};
    const struct json *comment = json_get(call->json, S("comment"));
    str id = json_str_or(call->json, S("call_id"), STR_NONE);
    double value;
    if (!uuid_parse(id, &score.call_id))
        return error_set(e, REASON_SCHEMA, "call_id must be the Nexus-Call-Id of an answer");
    if (!json_to_double(json_get(call->json, S("score")), &value) || !(value >= 0 && value <= 1))
        return error_set(e, REASON_SCHEMA, "score must be a number from 0 to 1");
    if (comment && json_type(comment) != JSON_NULL && !json_to_str(comment, &score.comment))
        return error_set(e, REASON_SCHEMA, "comment must be a text");
    score.thousandths = (int64_t) (value * 1000 + 0.5);
    if (!usage_feedback(call->gateway->orchestrator, call->ctx, &call->principal, &score, e))
        return false;
    reply_empty(call, 204);
    return true;
}

/* ---- A/B ---- */

static void write_latency(struct json_writer *w, str name,
                          const int64_t counts[USAGE_LATENCY_BUCKETS], int64_t sum_us,
                          int64_t count)
{
    json_key(w, name);
    json_object_begin(w);
    put_mean_ms(w, S("mean"), sum_us, count);
    put_number(w, S("p50"), count > 0 ? usage_latency_quantile(counts, 0.5) : NAN);
    put_number(w, S("p95"), count > 0 ? usage_latency_quantile(counts, 0.95) : NAN);
    json_object_end(w);
}

static void write_variant(struct json_writer *w, const struct usage_variant *variant)
{
    const struct usage_group *sums = &variant->sums;
    double requests = (double) sums->requests;
    json_object_begin(w);
    json_put_str(w, S("variant"), sums->variant);
    json_put_i64(w, S("requests"), sums->requests);
    json_put_i64(w, S("errors"), sums->errors);
    put_number(w, S("error_rate"), requests > 0 ? (double) sums->errors / requests : NAN);
    put_cost(w, S("cost"), sums->sum);
    put_number(w, S("cost_nanousd_per_request"),
               requests > 0 ? (double) sums->sum.cost_nanousd / requests : NAN);
    write_latency(w, S("duration_ms"), variant->duration, sums->duration_us, sums->requests);
    write_latency(w, S("first_token_ms"), variant->first_token, sums->first_token_us,
                  sums->first_tokens);
    write_feedback(w, sums);
    json_object_end(w);
}

bool route_experiment(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    struct usage_variant *variants;
    size_t count;
    int64_t from_us = 0, to_us = 0;
    str model;
    if (!param_text(call, 0, &model, e) || !read_span(call, &from_us, &to_us, e) ||
        !usage_experiment(call->gateway->orchestrator, call->ctx, &call->principal, model, from_us,
                          to_us, &variants, &count, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("model"), model);
    put_time(w, S("from"), from_us);
    put_time(w, S("to"), to_us);
    json_key(w, S("variants"));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++)
        write_variant(w, &variants[i]);
    json_array_end(w);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}
