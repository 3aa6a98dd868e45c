/* A request to a webhook: whose it is, whether it came before, and what it starts. */
#include "agent/tool/labels.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/policy/standing.h"
#include "orchestrator/webhook/webhook_internal.h"
#include "orchestrator/workflow/workflow_store.h"
#include <stdio.h>

struct receipt {
    struct orchestrator *o;
    struct webhooks *w;
    struct context *ctx;
    const struct webhook_post *post;
    struct webhook_outcome *out;
    uuid tenant_id;
    bool is_known; /* there is such a webhook; else all below is of the decoy */
    struct record row;
    enum webhook_scheme scheme;
    struct webhook_signed request;
    struct principal principal;
    const struct json *json; /* the body; NULL: it is none */
    str delivery;            /* digest */
    struct batch *batch;
};

/* ---- who ---- */

static str header(const struct receipt *r, const char *name)
{
    for (size_t i = 0; name && i < r->post->header_count; i++)
        if (str_equal_nocase(r->post->headers[i].name, str_from_cstr(name)))
            return r->post->headers[i].value;
    return STR_NONE;
}

/* Of a webhook that is not there: what the request looks like, so that as much is computed for it. */
static enum webhook_scheme guess_scheme(const struct receipt *r)
{
    for (int i = 0; i < WEBHOOK_SCHEME_COUNT; i++)
        if (!str_is_empty(header(r, webhook_header_signature((enum webhook_scheme) i))))
            return (enum webhook_scheme) i;
    return WEBHOOK_STANDARD;
}

/* False only when the store failed. */
static bool look_up(struct receipt *r, struct error *e)
{
    struct error missing = {0};
    struct record *key = ARENA_NEW(r->ctx->arena, struct record);
    *key = record_of(TABLE_WEBHOOKS);
    bool is_named = uuid_parse(r->post->tenant, &r->tenant_id) &&
                    webhook_check_name("a webhook", r->post->name, &missing);
    record_set_text(key, WEBHOOKS_NAME, is_named ? r->post->name : S("-"));
    missing = (struct error){0};
    bool is_there = store_get(r->o->parts.store, r->ctx, is_named ? r->tenant_id : UUID_NONE, key,
                              &r->row, &missing);
    if (!is_there && missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    r->is_known = is_named && is_there &&
                  webhook_scheme_parse(record_text(&r->row, WEBHOOKS_SCHEME), &r->scheme);
    if (!r->is_known)
        r->scheme = guess_scheme(r);
    return true;
}

/* One HMAC; of a secret that is not there, of the decoy's. */
static bool fits(struct receipt *r, bool is_there, str sealed, str place)
{
    struct arena *arena = r->ctx->arena;
    struct error ignored = {0};
    str secret = STR_NONE, key = STR_NONE;
    str decoy_place = webhook_place(arena, "decoy", UUID_NONE, STR_NONE);
    bool is_open = webhook_unseal(r->w, arena, is_there ? place : decoy_place,
                                  is_there ? sealed : r->w->decoy, &secret);
    if (is_there && !is_open)
        LOG_ERROR("orchestrator.webhook",
                  S("a webhook's secret cannot be opened: webhook.key is another one; rotate it"),
                  &(struct error){0}, LOG_STR("nexus.webhook", r->post->name));
    bool has_key = is_open && webhook_secret_key(arena, is_there ? r->scheme : WEBHOOK_STANDARD,
                                                 secret, &key, &ignored);
    bool is_signed = webhook_verify(arena, r->scheme, has_key ? key : S("none"), &r->request,
                                    clock_unix_us(r->o->parts.clock) / 1000000);
    seal_wipe(secret);
    seal_wipe(key);
    return is_there & has_key & is_signed;
}

static bool is_authentic(struct receipt *r)
{
    str place = webhook_place(r->ctx->arena, "webhook", r->tenant_id, r->post->name);
    int64_t now_us = clock_unix_us(r->o->parts.clock);
    bool has_previous = r->is_known && record_has(&r->row, WEBHOOKS_PREVIOUS_SECRET) &&
                        record_integer(&r->row, WEBHOOKS_PREVIOUS_UNTIL) > now_us;
    r->request = (struct webhook_signed){
        .id = header(r, webhook_header_id(r->scheme)),
        .timestamp = header(r, webhook_header_timestamp(r->scheme)),
        .signature = header(r, webhook_header_signature(r->scheme)),
        .body = r->post->body,
    };
    bool now =
        fits(r, r->is_known, r->is_known ? record_text(&r->row, WEBHOOKS_SECRET) : STR_NONE, place);
    bool before =
        fits(r, has_previous,
             has_previous ? record_text(&r->row, WEBHOOKS_PREVIOUS_SECRET) : STR_NONE, place);
    return now | before;
}

/* Counted here and told by the sweep: the answer must not take longer where there is somebody to tell. */
static void note_refusal(struct receipt *r)
{
    struct webhooks *w = r->w;
    struct webhook_refusals *place = NULL;
    if (!r->is_known)
        return;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < w->refused_count && !place; i++)
        if (uuid_equal(w->refusals[i].tenant_id, r->tenant_id) &&
            str_equal(str_from_cstr(w->refusals[i].name), r->post->name))
            place = &w->refusals[i];
    if (!place && w->refused_count < WEBHOOK_REFUSALS_MAX) {
        place = &w->refusals[w->refused_count++];
        *place = (struct webhook_refusals){.tenant_id = r->tenant_id};
        memcpy(place->name, r->post->name.ptr, r->post->name.len);
    }
    if (place) {
        place->count++;
        snprintf(place->ip_address, sizeof place->ip_address, STR_FMT,
                 STR_ARG(str_cut_utf8(r->post->ip_address, sizeof place->ip_address - 1)));
    }
    pthread_mutex_unlock(&w->lock);
}

static bool authenticate(struct receipt *r, struct error *e)
{
    if (!look_up(r, e))
        return false;
    if (!is_authentic(r)) {
        note_refusal(r);
        return error_set(e, REASON_UNAUTHENTICATED,
                         "there is no such webhook, or the request is not signed as it must be");
    }
    struct standing standing = {
        .tenant_id = r->tenant_id,
        .key_id = record_uuid(&r->row, WEBHOOKS_KEY_ID),
        .user_id = record_text(&r->row, WEBHOOKS_USER_ID),
        .role = record_text(&r->row, WEBHOOKS_ROLE),
        .caller_id = str_printf(r->ctx->arena, "webhook:" STR_FMT,
                                STR_ARG(record_text(&r->row, WEBHOOKS_NAME))),
    };
    if (!principal_standing(r->o->parts.store, r->o->parts.clock, r->ctx, &standing, &r->principal,
                            e))
        return error_wrap(e, "what this webhook starts");
    r->principal.ip_address = r->post->ip_address;
    r->principal.user_agent = r->post->user_agent;
    r->principal.request_id = r->post->request_id;
    r->ctx->tenant_id = r->tenant_id;
    return !r->post->admit || r->post->admit(r->post->owner, &r->principal, e);
}

/* ---- came before ---- */

/* False only when the store failed. */
static bool look_for_receipt(struct receipt *r, bool *is_there, struct error *e)
{
    struct error missing = {0};
    struct record *row = ARENA_NEW(r->ctx->arena, struct record);
    struct record *key = ARENA_NEW(r->ctx->arena, struct record);
    *key = record_of(TABLE_WEBHOOK_RECEIPTS);
    record_set_text(key, WEBHOOK_RECEIPTS_WEBHOOK, r->post->name);
    record_set_text(key, WEBHOOK_RECEIPTS_DELIVERY, r->delivery);
    *is_there = store_get(r->o->parts.store, r->ctx, r->tenant_id, key, row, &missing);
    if (!*is_there)
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    *r->out = (struct webhook_outcome){
        .run_id = record_uuid(row, WEBHOOK_RECEIPTS_RUN_ID),
        .signal_id = record_uuid(row, WEBHOOK_RECEIPTS_SIGNAL_ID),
        .is_repeat = true,
    };
    return true;
}

static void write_receipt(struct receipt *r, struct batch *batch, uuid run_id, uuid signal_id)
{
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_WEBHOOK_RECEIPTS);
    record_set_text(row, WEBHOOK_RECEIPTS_WEBHOOK, r->post->name);
    record_set_text(row, WEBHOOK_RECEIPTS_DELIVERY, r->delivery);
    record_set_uuid(row, WEBHOOK_RECEIPTS_RUN_ID, run_id);
    if (!uuid_is_none(signal_id))
        record_set_uuid(row, WEBHOOK_RECEIPTS_SIGNAL_ID, signal_id);
    record_set_integer(row, WEBHOOK_RECEIPTS_RECEIVED_AT, clock_unix_us(r->o->parts.clock));
    webhook_audit(r->o, batch, &r->principal, "webhook.receive", "webhook", r->post->name,
                  str_printf(r->ctx->arena, "{\"run_id\":\"" STR_FMT "\"}",
                             STR_ARG(uuid_str(r->ctx->arena, run_id))));
}

/* ---- what it starts ---- */

/* The fields that say what it is; what signs it and what could hold a secret stays outside. */
static const char *const shown_headers[] = {
    "content-type",   "user-agent",        "webhook-id",       "webhook-timestamp",
    "x-github-event", "x-github-delivery", "x-github-hook-id", "x-request-id",
    "x-gitlab-event", "x-event-key",       "x-event-type",
};

static bool is_json_type(str type)
{
    str rest;
    (void) str_cut(type, ';', &type, &rest);
    type = str_trim(type);
    return str_equal_nocase(type, S("application/json")) || str_ends_with(type, S("+json"));
}

static bool read_body(struct receipt *r, struct error *e)
{
    struct json_limits limits = {.bytes_max = WEBHOOK_BODY_BYTES_MAX,
                                 .depth_max = WEBHOOK_BODY_DEPTH_MAX,
                                 .allow_duplicates = false};
    return !is_json_type(header(r, "content-type")) ||
           json_parse(r->ctx->arena, r->post->body, limits, &r->json, e) ||
           error_wrap(e, "the request's body");
}

static str write_input(struct receipt *r)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, r->ctx->arena, 4 * WEBHOOK_BODY_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, S("webhook"));
    json_object_begin(&w);
    json_put_str(&w, S("name"), r->post->name);
    json_put_str(&w, S("scheme"), str_from_cstr(webhook_scheme_name(r->scheme)));
    json_put_str(&w, S("delivery"), r->delivery);
    json_object_end(&w);
    json_key(&w, S("headers"));
    json_object_begin(&w);
    for (size_t i = 0; i < ARRAY_COUNT(shown_headers); i++) {
        str value = header(r, shown_headers[i]);
        if (!str_is_empty(value))
            json_put_str(&w, str_from_cstr(shown_headers[i]),
                         str_cut_utf8(value, WEBHOOK_SIGNATURE_BYTES_MAX));
    }
    json_object_end(&w);
    if (r->json)
        json_put_value(&w, S("body"), r->json);
    else if (str_is_utf8(r->post->body))
        json_put_str(&w, S("body"), r->post->body);
    else
        json_put_str(&w, S("body_base64"), base64_encode(r->ctx->arena, r->post->body));
    json_object_end(&w);
    return strbuf_is_over(&text) ? STR_NONE : strbuf_str(&text);
}

/* Whoever signs it may pass on what others wrote. */
static const struct label outside = {.origins = LABEL_WEB, .is_untrusted = true};

static void also_started(void *owner, struct batch *batch)
{
    struct receipt *r = owner;
    write_receipt(r, batch, r->out->run_id, UUID_NONE);
}

static bool start(struct receipt *r, str input, struct error *e)
{
    struct workflow_request request = {
        .input = input,
        .budget = COST_LIMITLESS,
        .label = outside,
        .run_id = uuid_new(r->o->parts.clock, r->o->parts.random),
        .also = also_started,
        .also_owner = r,
    };
    str workflow = record_text(&r->row, WEBHOOKS_WORKFLOW);
    r->out->run_id = request.run_id;
    (void) str_cut(workflow, '@', &request.name, &request.range);
    return workflow_start(r->o, r->ctx, &r->principal, &request, &r->out->run_id,
                          &r->out->session_id, e);
}

static void also_signalled(void *owner, struct batch *batch, uuid signal_id)
{
    struct receipt *r = owner;
    write_receipt(r, batch, r->out->run_id, signal_id);
}

static bool send_signal(struct receipt *r, str input, struct error *e)
{
    str pointer = record_text(&r->row, WEBHOOKS_RUN_POINTER), id;
    struct workflow_signalling signal = {
        .name = record_text(&r->row, WEBHOOKS_SIGNAL_NAME),
        .data = input,
        .label = outside,
        .also = also_signalled,
        .also_owner = r,
    };
    if (!r->json || !json_to_str(json_path(r->json, pointer), &id) ||
        !uuid_parse(id, &signal.run_id))
        return error_set(e, REASON_SCHEMA, "the body has no run's id at " STR_FMT,
                         STR_ARG(pointer));
    r->out->run_id = signal.run_id;
    return workflow_signal_as(r->o, r->ctx, &r->principal, &signal, &r->out->signal_id, e);
}

static bool act(struct receipt *r, struct error *e)
{
    struct error failure = {0};
    bool is_repeat;
    str event_id = json_str_or(r->json, S("id"), STR_NONE);
    r->delivery = webhook_delivery_key(r->ctx->arena, r->scheme, &r->request, event_id);
    if (!look_for_receipt(r, &is_repeat, e))
        return false;
    if (is_repeat)
        return true;
    str input = write_input(r);
    if (str_is_empty(input))
        return error_set(e, REASON_TOO_LARGE, "the request's body is too large as JSON");
    bool ok = record_has(&r->row, WEBHOOKS_WORKFLOW) ? start(r, input, &failure)
                                                     : send_signal(r, input, &failure);
    if (ok)
        return true;
    /* The same delivery, at the same time, was first. */
    if (failure.code == ERROR_CONFLICT && look_for_receipt(r, &is_repeat, e) && is_repeat)
        return true;
    return error_copy(e, &failure);
}

/* It was signed, and yet it was not done: somebody will ask why. */
static void note_failure(struct receipt *r, const struct error *why)
{
    struct batch batch;
    struct error ignored = {0};
    struct strbuf details;
    struct json_writer w;
    strbuf_init(&details, r->ctx->arena, 2 * ERROR_MESSAGE_BYTES);
    json_writer_init(&w, &details);
    json_object_begin(&w);
    json_put_str(&w, S("error"), str_from_cstr(error_problem(why->reason)));
    json_put_str(&w, S("message"), str_from_cstr(why->message));
    json_object_end(&w);
    batch_init(&batch, r->ctx->arena, r->tenant_id);
    webhook_audit(r->o, &batch, &r->principal, "webhook.fail", "webhook", r->post->name,
                  strbuf_str(&details));
    if (!store_submit(r->o->parts.store, &batch, &ignored))
        LOG_WARN("orchestrator.webhook", S("a refused request is not in the audit log"),
                 LOG_STR("error.message", str_from_cstr(ignored.message)));
}

static void count(struct receipt *r, const char *outcome)
{
    str label = str_from_cstr(outcome);
    metrics_add(r->w->metrics, METRIC_WEBHOOK_REQUESTS, 1, &label, 1);
}

bool webhook_receive(struct orchestrator *o, struct context *ctx, const struct webhook_post *post,
                     struct webhook_outcome *out, struct error *e)
{
    if (!webhooks_there(o, e))
        return false;
    if (post->body.len > WEBHOOK_BODY_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "a webhook takes at most %u bytes",
                         WEBHOOK_BODY_BYTES_MAX);
    struct receipt *r = ARENA_NEW(ctx->arena, struct receipt);
    *r = (struct receipt){.o = o, .w = o->webhooks, .ctx = ctx, .post = post, .out = out};
    *out = (struct webhook_outcome){0};
    if (!authenticate(r, e)) {
        count(r, e->reason == REASON_UNAUTHENTICATED ? "unauthenticated" : "refused");
        return false;
    }
    if (!read_body(r, e) || !act(r, e)) {
        count(r, "refused");
        note_failure(r, e);
        return false;
    }
    count(r, out->is_repeat ? "repeated" : "accepted");
    return true;
}
