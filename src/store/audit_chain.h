/*
 * Audit chain: what makes the audit log tamper-evident.  Shared by the back ends; no I/O.
 *
 * One chain per (tenant, writer), entries numbered from 1:
 *     hash(n) = sha256( prev_hash(n) || canonical JSON of the row and its tenant_id )
 *     prev_hash(1) = 64 zeros, prev_hash(n) = hash(n - 1), hashes in hex.
 * Canonical: without prev_hash and hash; members sorted by name; uuids, texts and JSON columns as
 * strings of the stored bytes (so the smallest change shows), numbers as integers, null as null,
 * text that is not UTF-8 as {"hex": "..."}.
 * A checkpoint signs (tenant, writer, seq, hash) by Ed25519 with a key kept outside the store;
 * whoever can write the store can recompute hashes, but cannot sign.
 *
 * Verifying is a walk: start, one step per entry in order of seq, one step per checkpoint, end.
 * The first thing that does not fit is kept; later steps do nothing.
 */
#ifndef NEXUS_STORE_AUDIT_CHAIN_H
#define NEXUS_STORE_AUDIT_CHAIN_H

#include "base/digest.h"
#include "store/store.h"

enum { AUDIT_HASH_BYTES = 64 };
struct audit_head {
    uuid tenant_id;
    int64_t seq; /* 0: the chain is empty */
    char hash[AUDIT_HASH_BYTES];
    int64_t checkpoint_seq; /* newest signed one ... */
    char checkpoint_hash[AUDIT_HASH_BYTES];
    uint8_t signature[SIGNATURE_BYTES];
    int64_t sealed_seq; /* newest one the back end also wrote down outside the store */
};
void audit_head_init(struct audit_head *head, uuid tenant_id);

/* Sets WRITER, SEQ, PREV_HASH and HASH of an entry and moves the head.  Texts are on the arena. */
void audit_chain_append(struct audit_head *head, str writer, struct record *entry,
                        struct arena *arena);
/* A checkpoint row for the head; moves checkpoint_seq. */
void audit_chain_checkpoint(struct audit_head *head, str writer,
                            const uint8_t private_key[SIGNATURE_KEY_BYTES], uuid id, int64_t now_us,
                            struct arena *arena, struct record *out);

struct audit_walk {
    uuid tenant_id;
    const uint8_t *public_key;
    struct arena *arena;   /* for the report */
    struct arena *scratch; /* rewound at each step */
    struct audit_report report;
    str writer; /* of the chain being walked */
    int64_t seq;
    char hash[AUDIT_HASH_BYTES];
};
void audit_walk_init(struct audit_walk *walk, uuid tenant_id, const uint8_t *public_key,
                     struct arena *arena, struct arena *scratch);
void audit_walk_entry(struct audit_walk *walk,
                      const struct record *entry); /* ordered by (writer, seq) */
/*
 * Each checkpoint of the tenant in any order, before or after the entries; `hash_at` is the stored
 * hash of the entry it names, STR_NONE when there is none (a cut).
 */
void audit_walk_checkpoint(struct audit_walk *walk, const struct record *checkpoint, str hash_at);

#endif
