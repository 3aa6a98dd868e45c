#include "store/audit_chain.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/strbuf.h"
#include "store/check.h"
#include <assert.h>

/* Canonical order: sorted by name; TENANT_COLUMN stands for tenant_id. */
enum { TENANT_COLUMN = -1 };
static const int canonical_order[] = {
    AUDIT_LOGS_ACTION,     AUDIT_LOGS_CREATED_AT,  AUDIT_LOGS_DETAILS,       AUDIT_LOGS_ID,
    AUDIT_LOGS_IP_ADDRESS, AUDIT_LOGS_RESOURCE_ID, AUDIT_LOGS_RESOURCE_TYPE, AUDIT_LOGS_SEQ,
    TENANT_COLUMN,         AUDIT_LOGS_USER_AGENT,  AUDIT_LOGS_USER_ID,       AUDIT_LOGS_WRITER,
};
static_assert(ARRAY_COUNT(canonical_order) == AUDIT_LOGS_COLUMN_COUNT - 2 + 1,
              "all columns but the hashes, and tenant_id");

void audit_head_init(struct audit_head *head, uuid tenant_id)
{
    *head = (struct audit_head){.tenant_id = tenant_id};
    memset(head->hash, '0', sizeof head->hash);
}

static void text_write(struct json_writer *w, struct arena *arena, str text)
{
    if (str_is_utf8(text)) {
        json_write_str(w, text);
        return;
    }
    json_object_begin(w);
    json_put_str(w, S("hex"), str_hex(arena, text.ptr, text.len));
    json_object_end(w);
}

static void uuid_write(struct json_writer *w, uuid id)
{
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(id, text);
    json_write_str(w, str_of(text, UUID_TEXT_BYTES));
}

static void column_write(struct json_writer *w, struct arena *arena, uuid tenant_id,
                         const struct record *entry, int column)
{
    if (column == TENANT_COLUMN) {
        json_key(w, S("tenant_id"));
        uuid_write(w, tenant_id);
        return;
    }
    const struct column_def *def = &table_def(TABLE_AUDIT_LOGS)->columns[column];
    json_key(w, str_from_cstr(def->name));
    if (!record_has(entry, column))
        json_write_null(w);
    else if (column_is_integer(def->type))
        json_write_i64(w, entry->values[column].integer);
    else if (def->type == COLUMN_UUID)
        uuid_write(w, entry->values[column].id);
    else
        text_write(w, arena, entry->values[column].text);
}

/* Hex of the entry's hash, from prev_hash. */
static str entry_hash(uuid tenant_id, const struct record *entry, str prev_hash,
                      struct arena *arena)
{
    struct strbuf b;
    /* A byte becomes six at most (\u0000); names and numbers fit into the constant. */
    strbuf_init(&b, arena, 4096 + 6 * record_bytes(entry));
    strbuf_add(&b, prev_hash);
    struct json_writer w;
    json_writer_init(&w, &b);
    json_object_begin(&w);
    for (size_t i = 0; i < ARRAY_COUNT(canonical_order); i++)
        column_write(&w, arena, tenant_id, entry, canonical_order[i]);
    json_object_end(&w);
    ensure(!strbuf_is_over(&b));
    return digest_hex(arena, digest_sha256(strbuf_str(&b)));
}

void audit_chain_append(struct audit_head *head, str writer, struct record *entry,
                        struct arena *arena)
{
    record_set_text(entry, AUDIT_LOGS_WRITER, writer);
    record_set_integer(entry, AUDIT_LOGS_SEQ, head->seq + 1);
    str prev_hash = str_copy(arena, str_of(head->hash, sizeof head->hash));
    if (FAULT("plant.broken-chain") &&
        head->seq % 5 == 0) /* a bug put in on purpose: a link is missing */
        prev_hash = digest_hex(arena, digest_sha256(prev_hash));
    str hash = entry_hash(head->tenant_id, entry, prev_hash, arena);
    ensure(hash.len == AUDIT_HASH_BYTES);
    record_set_text(entry, AUDIT_LOGS_PREV_HASH, prev_hash);
    record_set_text(entry, AUDIT_LOGS_HASH, hash);
    head->seq++;
    memcpy(head->hash, hash.ptr, sizeof head->hash);
}

static str checkpoint_text(struct arena *arena, uuid tenant_id, str writer, int64_t seq, str hash)
{
    return str_printf(
        arena, "nexus audit checkpoint v1\n" STR_FMT "\n" STR_FMT "\n%lld\n" STR_FMT "\n",
        STR_ARG(uuid_str(arena, tenant_id)), STR_ARG(writer), (long long) seq, STR_ARG(hash));
}

void audit_chain_checkpoint(struct audit_head *head, str writer,
                            const uint8_t private_key[SIGNATURE_KEY_BYTES], uuid id, int64_t now_us,
                            struct arena *arena, struct record *out)
{
    str hash = str_copy(arena, str_of(head->hash, sizeof head->hash));
    signature_sign(private_key, checkpoint_text(arena, head->tenant_id, writer, head->seq, hash),
                   head->signature);
    *out = record_of(TABLE_AUDIT_CHECKPOINTS);
    record_set_uuid(out, AUDIT_CHECKPOINTS_ID, id);
    record_set_text(out, AUDIT_CHECKPOINTS_WRITER, writer);
    record_set_integer(out, AUDIT_CHECKPOINTS_SEQ, head->seq);
    record_set_text(out, AUDIT_CHECKPOINTS_HASH, hash);
    record_set_text(
        out, AUDIT_CHECKPOINTS_SIGNATURE,
        base64_encode(arena, str_of((const char *) head->signature, sizeof head->signature)));
    record_set_integer(out, AUDIT_CHECKPOINTS_CREATED_AT, now_us);
    head->checkpoint_seq = head->seq;
    memcpy(head->checkpoint_hash, head->hash, sizeof head->hash);
}

void audit_walk_init(struct audit_walk *walk, uuid tenant_id, const uint8_t *public_key,
                     struct arena *arena, struct arena *scratch)
{
    *walk = (struct audit_walk){.tenant_id = tenant_id,
                                .public_key = public_key,
                                .arena = arena,
                                .scratch = scratch,
                                .report = {.ok = true}};
}

static void walk_fail(struct audit_walk *walk, str what)
{
    walk->report.ok = false;
    walk->report.first_bad = str_copy(walk->arena, what);
}

static void chain_start(struct audit_walk *walk, str writer)
{
    walk->writer = str_copy(walk->arena, writer);
    walk->seq = 0;
    memset(walk->hash, '0', sizeof walk->hash);
}

void audit_walk_entry(struct audit_walk *walk, const struct record *entry)
{
    walk->report.entries++;
    if (!walk->report.ok)
        return;
    str writer = record_text(entry, AUDIT_LOGS_WRITER);
    if (!str_equal(writer, walk->writer) || walk->writer.ptr == NULL)
        chain_start(walk, writer);
    arena_mark mark = arena_save(walk->scratch);
    str expected = str_of(walk->hash, sizeof walk->hash);
    str hash = record_text(entry, AUDIT_LOGS_HASH);
    bool fits = record_integer(entry, AUDIT_LOGS_SEQ) == walk->seq + 1 &&
                str_equal(record_text(entry, AUDIT_LOGS_PREV_HASH), expected) &&
                str_equal(entry_hash(walk->tenant_id, entry, expected, walk->scratch), hash);
    if (fits) {
        walk->seq++;
        memcpy(walk->hash, hash.ptr, sizeof walk->hash);
    } else {
        walk_fail(walk, uuid_str(walk->scratch, record_uuid(entry, AUDIT_LOGS_ID)));
    }
    arena_rewind(walk->scratch, mark);
}

void audit_walk_checkpoint(struct audit_walk *walk, const struct record *checkpoint, str hash_at)
{
    if (!walk->report.ok)
        return;
    arena_mark mark = arena_save(walk->scratch);
    str writer = record_text(checkpoint, AUDIT_CHECKPOINTS_WRITER);
    int64_t seq = record_integer(checkpoint, AUDIT_CHECKPOINTS_SEQ);
    str hash = record_text(checkpoint, AUDIT_CHECKPOINTS_HASH);
    str text = checkpoint_text(walk->scratch, walk->tenant_id, writer, seq, hash);
    str signature;
    bool is_signed =
        base64_decode(walk->scratch, record_text(checkpoint, AUDIT_CHECKPOINTS_SIGNATURE),
                      &signature) &&
        signature.len == SIGNATURE_BYTES &&
        signature_verify(walk->public_key, text, (const uint8_t *) signature.ptr);
    if (!is_signed)
        walk_fail(walk, str_printf(walk->scratch,
                                   "checkpoint at entry %lld of " STR_FMT ": bad signature",
                                   (long long) seq, STR_ARG(writer)));
    else if (str_is_empty(hash_at))
        walk_fail(walk, str_printf(walk->scratch,
                                   "entry %lld of " STR_FMT " is missing, a checkpoint names it",
                                   (long long) seq, STR_ARG(writer)));
    else if (!str_equal(hash_at, hash))
        walk_fail(walk, str_printf(walk->scratch,
                                   "entry %lld of " STR_FMT " is not the one its checkpoint signed",
                                   (long long) seq, STR_ARG(writer)));
    arena_rewind(walk->scratch, mark);
}
