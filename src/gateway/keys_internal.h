/*
 * What keys.c and keys_bootstrap.c share, and the form of scopes.
 */
#ifndef NEXUS_GATEWAY_KEYS_INTERNAL_H
#define NEXUS_GATEWAY_KEYS_INTERNAL_H

#include "base/digest.h"
#include "gateway/keys/keys.h"
#include "orchestrator/policy/key_limits.h"

bool scope_parse(str name, unsigned *bit); /* "platform", "act_as", "approve" */
void scopes_write_json(struct json_writer *w, unsigned scopes);

/* Blocking.  A new file of mode 0600, durable; CONFLICT when it is there. */
must_check bool keys_write_secret_file(const char *path, str text, struct error *e);
/* Blocking.  NOT_FOUND when there is none, CONFIG when others may read it. */
must_check bool keys_read_secret_file(const char *path, char *out, size_t max, size_t *len,
                                      struct error *e);

struct store *keys_store(struct keys *keys);
struct clock *keys_clock(struct keys *keys);
struct random *keys_random(struct keys *keys);
digest keys_hash(const struct keys *keys, str key);
void keys_forget(struct keys *keys, uuid id); /* out of the cache */
/* The row of a key that the principal may see and change; NOT_FOUND else. */
may_suspend bool keys_find_own(struct keys *keys, struct context *ctx,
                               const struct principal *principal, uuid id, struct record **row,
                               struct error *e);
must_check bool keys_check_name(str name, struct error *e);
enum { KEY_PREFIX_BYTES = 10 };
str keys_make(struct keys *keys, struct arena *arena);
/* keys_change.c: MINTERS of a key that the principal makes, or gives a new text; empty: none. */
may_suspend bool keys_minters(struct keys *keys, struct context *ctx,
                              const struct principal *principal, const struct record *key, str *out,
                              struct error *e);
may_suspend bool keys_is_stored(struct keys *keys, struct context *ctx, str key);
/* Tenant and first key in one batch; CONFLICT: the store has its tenant already. */
may_suspend bool keys_commit_first(struct keys *keys, struct context *ctx, str key,
                                   struct error *e);

#endif
