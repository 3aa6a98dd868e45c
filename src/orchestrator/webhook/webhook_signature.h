/*
 * Webhook signatures: who sent these bytes, and when.  Pure.
 *
 *      scheme     header fields                                              signed with HMAC-SHA256
 *      standard   webhook-id, webhook-timestamp, webhook-signature           id "." timestamp "." body
 *      github     X-Hub-Signature-256                                        body
 *      stripe     Stripe-Signature: t=...,v1=...                             timestamp "." body
 *
 * - Comparison takes the same time wherever the first wrong byte is; one HMAC is computed for every request, also for one whose
 *   fields are missing or malformed.
 * - A scheme with a time is good for WEBHOOK_WINDOW_S to both sides of it.  GitHub's has none: what was sent once can be sent again, so
 *   whoever uses it has to remember what came (webhook_delivery_key).
 * - Several signatures may stand in a header (a sender that changes its secret): one must fit, of at most WEBHOOK_SIGNATURES_MAX.
 *
 * Secrets as texts: standard "whsec_" + base64 of 24 to 64 bytes; the others any 16 to 256 visible characters, used as they are.
 * Thread: any.  Suspends: never.  Source: standardwebhooks.com (1.0.0), the two vendors' documentation, RFC 2104.
 */
#ifndef NEXUS_ORCHESTRATOR_WEBHOOK_SIGNATURE_H
#define NEXUS_ORCHESTRATOR_WEBHOOK_SIGNATURE_H

#include "base/error.h"

struct arena;

enum webhook_scheme { WEBHOOK_STANDARD, WEBHOOK_GITHUB, WEBHOOK_STRIPE, WEBHOOK_SCHEME_COUNT };
const char *webhook_scheme_name(enum webhook_scheme scheme);
bool webhook_scheme_parse(str text, enum webhook_scheme *out);

/* What a request says of itself; empty: it does not. */
struct webhook_signed {
    str id, timestamp; /* standard only; the others carry the time in `signature` or not at all */
    str signature;     /* the field's value */
    str body;
};
/* The names of the fields; NULL where the scheme has none. */
const char *webhook_header_id(enum webhook_scheme scheme);
const char *webhook_header_timestamp(enum webhook_scheme scheme);
const char *webhook_header_signature(enum webhook_scheme scheme);

/* The HMAC's key out of a secret; REASON_SCHEMA says what a secret of that scheme is. */
must_check bool webhook_secret_key(struct arena *arena, enum webhook_scheme scheme, str secret,
                                   str *key, struct error *e);
/* A new secret of that scheme. */
str webhook_secret_make(struct arena *arena, enum webhook_scheme scheme);

/* `now_s`: seconds since 1970. */
must_check bool webhook_verify(struct arena *arena, enum webhook_scheme scheme, str key,
                               const struct webhook_signed *request, int64_t now_s);
/* What is the same in every repetition of one delivery and cannot be changed without the key: hex.  Standard: its id.  Stripe: the
   event's "id" in the body, else the body.  GitHub: the body (its delivery id is not signed). */
str webhook_delivery_key(struct arena *arena, enum webhook_scheme scheme,
                         const struct webhook_signed *request, str event_id);
/* A webhook-signature (standard) value: "v1,..." for each key, separated by spaces. */
str webhook_sign(struct arena *arena, const struct webhook_signed *request, const str *keys,
                 size_t key_count);
/* The same for any scheme with one key, as a sender of it would: for trying a webhook.  `out` gets the three fields. */
void webhook_sign_as(struct arena *arena, enum webhook_scheme scheme, str key, str id,
                     int64_t now_s, str body, struct webhook_signed *out);

#endif
