/*
 * API keys: create, list, revoke, and who a key is.
 *
 * A key is "nxk_" + 43 base64url characters of 32 random bytes.  Stored is only HMAC-SHA-256 of it under the store's pepper (a file
 * `keys.pepper`, 0600, outside the database), so a copied database opens nothing.  Lookups go through a bounded cache; revoking takes
 * effect at once on this node and within KEY_CACHE_MS elsewhere.
 *
 * A virtual key has limits of its own (principal.h) and perhaps an account in the ledger.  It makes and changes no keys, so nobody gets
 * rid of a limit by making another key.
 */
#ifndef NEXUS_GATEWAY_KEYS_H
#define NEXUS_GATEWAY_KEYS_H

#include "base/digest.h"
#include "orchestrator/policy/principal.h"
#include "store/store.h"

struct keys;

struct keys_options {
    struct store *store;
    struct clock *clock;
    struct random *random;
    str pepper_path; /* read, or made when the store is new */
    bool may_create_pepper;
};
must_check bool keys_create(const struct keys_options *options, struct keys **out, struct error *e);
void keys_destroy(struct keys *keys);

/* Who is it?  REASON_UNAUTHENTICATED for unknown, expired and revoked keys alike.  Strings on ctx's arena. */
may_suspend bool keys_authenticate(struct keys *keys, struct context *ctx, str key,
                                   struct principal *out, struct error *e);
/* The same in two steps, for who asks again: what stands for a presented key, without being one. */
digest keys_digest(const struct keys *keys, str key);
may_suspend bool keys_authenticate_digest(struct keys *keys, struct context *ctx, digest hash,
                                          struct principal *out, struct error *e);

struct key_request {
    str name, user_id, role; /* user_id empty: the creator */
    unsigned scopes;
    int64_t expires_us; /* 0: never */
    struct key_limits limits;
    /* Optional: further rows of the same commit (the key's account in the ledger). */
    void (*add_rows)(void *owner, struct batch *batch, uuid key_id);
    void *add_owner;
};
/* The key itself is given once.  A creator gives no role or scope above their own. */
may_suspend bool keys_issue(struct keys *keys, struct context *ctx, const struct principal *creator,
                            const struct key_request *request, str *key, struct record *out,
                            struct error *e);
may_suspend bool keys_list(struct keys *keys, struct context *ctx,
                           const struct principal *principal, str cursor, size_t limit,
                           struct records *out, struct error *e);
may_suspend bool keys_revoke(struct keys *keys, struct context *ctx,
                             const struct principal *principal, uuid id, struct error *e);

may_suspend bool keys_get(struct keys *keys, struct context *ctx, const struct principal *principal,
                          uuid id, struct record *out, struct error *e);
/* DENIED for a key that has limits of its own. */
must_check bool keys_check_unlimited(const struct principal *principal, struct error *e);
/* What may change of a key: its name, end and limits, from the body of a request; what it does not name stays. */
may_suspend bool keys_update(struct keys *keys, struct context *ctx,
                             const struct principal *principal, uuid id, const struct json *changes,
                             bool gives_budget, struct record *out, struct error *e);
/* A new text for the same key; the old one stays good for overlap_s (at most KEY_ROTATION_OVERLAP_S_MAX). */
may_suspend bool keys_rotate(struct keys *keys, struct context *ctx,
                             const struct principal *principal, uuid id, int64_t overlap_s,
                             str *key, struct record *out, struct error *e);

/* The tenant of an installation with one tenant: always the same id, so that its row can serve as the lock of the first start. */
uuid keys_default_tenant(void);

/* First start: tenant `default`, the user `admin` and its key into `path` (0600, key and newline).  Once per store: never again because
   the file vanished. */
may_suspend bool keys_bootstrap(struct keys *keys, struct context *ctx, str path, bool *created,
                                struct error *e);

#endif
