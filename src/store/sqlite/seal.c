#include "base/log.h"
#include "base/map.h"
#include "store/sqlite/database_internal.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>

/* One file per chain: seq, hash and signature on a line each, then the writer's name. */
enum { SEAL_BYTES_MAX = 1024 };

static char *seal_path(struct arena *arena, const struct sqlite_database *database, uuid tenant_id,
                       const char *suffix)
{
    str name = digest_hex(arena, digest_sha256(str_from_cstr(database->node)));
    return str_to_cstr(arena, str_printf(arena, "%s/" STR_FMT "-%.16s%s", database->seal_folder,
                                         STR_ARG(uuid_str(arena, tenant_id)), name.ptr, suffix));
}

/* Not synced: after a power failure an older seal is as good, and an empty one counts as none. */
static bool seal_write(struct job_thread *writer, const struct audit_head *head)
{
    struct arena *arena = writer->connection.arena;
    char *temporary = seal_path(arena, writer->database, head->tenant_id, ".new");
    FILE *file = fopen(temporary, "we");
    if (!file)
        return false;
    str signature =
        base64_encode(arena, str_of((const char *) head->signature, sizeof head->signature));
    bool is_written = fprintf(file, "%lld\n%.*s\n" STR_FMT "\n%s", (long long) head->checkpoint_seq,
                              AUDIT_HASH_BYTES, head->checkpoint_hash, STR_ARG(signature),
                              writer->database->node) > 0;
    return (fclose(file) == 0) && is_written &&
           rename(temporary, seal_path(arena, writer->database, head->tenant_id, "")) == 0;
}

void seals_write(struct job_thread *writer)
{
    size_t position = 0;
    void *value;
    writer->has_unsealed = false;
    while (writer->audit_heads && map_next(writer->audit_heads, &position, NULL, &value)) {
        struct audit_head *head = value;
        if (head->checkpoint_seq <= head->sealed_seq)
            continue;
        /* The checkpoint in the store stands; the next one tries again. */
        if (seal_write(writer, head))
            head->sealed_seq = head->checkpoint_seq;
        else
            LOG_WARN("store", S("an audit checkpoint could not be sealed"),
                     LOG_STR("error.message", str_from_cstr(strerror(errno))));
    }
}

/* False when there is nothing in it. */
static bool seal_read(const char *path, struct arena *arena, struct record *out, bool *is_damaged)
{
    FILE *file = fopen(path, "re");
    char *bytes = arena_alloc(arena, SEAL_BYTES_MAX);
    size_t len = file ? fread(bytes, 1, SEAL_BYTES_MAX, file) : 0;
    if (file)
        fclose(file);
    str rest = str_of(bytes, len), seq_text, hash, signature;
    int64_t seq = 0;
    *is_damaged = !str_cut(rest, '\n', &seq_text, &rest) || !str_to_i64(seq_text, &seq) ||
                  !str_cut(rest, '\n', &hash, &rest) || !str_cut(rest, '\n', &signature, &rest);
    if (len == 0 || *is_damaged)
        return len > 0;
    *out = record_of(TABLE_AUDIT_CHECKPOINTS);
    record_set_integer(out, AUDIT_CHECKPOINTS_SEQ, seq);
    record_set_text(out, AUDIT_CHECKPOINTS_HASH, hash);
    record_set_text(out, AUDIT_CHECKPOINTS_SIGNATURE, signature);
    record_set_text(out, AUDIT_CHECKPOINTS_WRITER, rest);
    return true;
}

static bool seal_verify(struct job_thread *reader, struct audit_walk *walk, const char *name,
                        struct error *e)
{
    struct arena *arena = reader->connection.arena;
    char *path =
        str_to_cstr(arena, str_printf(arena, "%s/%s", reader->database->seal_folder, name));
    struct record *checkpoint = ARENA_NEW(arena, struct record);
    bool is_damaged;
    if (!seal_read(path, arena, checkpoint, &is_damaged))
        return true;
    if (is_damaged)
        return error_set(e, REASON_CORRUPT,
                         "the audit seal %s is damaged: restore it from a backup", path);
    str hash;
    if (!audit_hash_at(&reader->connection, walk->tenant_id, checkpoint, &hash, e))
        return false;
    audit_walk_checkpoint(walk, checkpoint, hash);
    return true;
}

bool seals_verify(struct job_thread *reader, struct audit_walk *walk, struct error *e)
{
    DIR *folder = opendir(reader->database->seal_folder);
    if (!folder)
        return error_set(e, REASON_STORE, "open %s: %s", reader->database->seal_folder,
                         strerror(errno));
    str tenant = uuid_str(reader->connection.arena, walk->tenant_id);
    bool is_ok = true;
    for (struct dirent *entry; is_ok && (entry = readdir(folder));) {
        str name = str_from_cstr(entry->d_name);
        if (str_starts_with(name, tenant) && !str_ends_with(name, S(".new")))
            is_ok = seal_verify(reader, walk, entry->d_name, e);
    }
    closedir(folder);
    return is_ok;
}
