#include "vfs.h"
#include "base/ensure.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

enum { SECTOR = 512, REGION_BYTES = 32768, REGIONS_MAX = 64, FULL_WRITES = 40, NAME_BYTES = 128 };

struct bytes {
    uint8_t *at;
    int64_t count, capacity;
};

/* One write or truncation since the last sync; a truncation has no data. */
struct change {
    int64_t offset, count;
    uint8_t *data;
    bool is_lost; /* a sync failed on it: it never becomes durable */
};

struct file {
    struct file *next;
    char name[NAME_BYTES];
    struct bytes now, durable;
    struct change *changes;
    size_t change_count, change_capacity;
    bool is_there, was_there; /* now; after a power cut */
    /* locks of all its handles */
    int shared_count;
    bool is_reserved, is_pending, is_exclusive;
    /* the WAL's shared memory: forgotten with the process */
    uint8_t *regions[REGIONS_MAX];
    int shm_shared[SQLITE_SHM_NLOCK];
    bool shm_exclusive[SQLITE_SHM_NLOCK];
};

struct vfs_disk {
    struct file *files;
    struct random *random;
    struct vfs_faults faults;
    struct vfs_counts counts;
    int full_writes; /* that still find it full */
};

struct handle {
    sqlite3_file base;
    struct vfs_disk *disk;
    struct file *file;
    int lock;
    uint16_t shm_shared, shm_exclusive;
};

static struct vfs_disk *used;

/* ---- bytes ---- */

static void bytes_resize(struct bytes *bytes, int64_t count)
{
    if (count > bytes->capacity) {
        int64_t capacity = bytes->capacity ? bytes->capacity : 4096;
        while (capacity < count)
            capacity *= 2;
        bytes->at = realloc(bytes->at, (size_t) capacity);
        ensure(bytes->at != NULL);
        bytes->capacity = capacity;
    }
    if (count > bytes->count)
        memset(bytes->at + bytes->count, 0, (size_t) (count - bytes->count));
    bytes->count = count;
}

static void bytes_put(struct bytes *bytes, int64_t offset, const uint8_t *data, int64_t count)
{
    if (offset + count > bytes->count)
        bytes_resize(bytes, offset + count);
    memcpy(bytes->at + offset, data, (size_t) count);
}

static void bytes_copy(struct bytes *to, const struct bytes *from)
{
    *to = (struct bytes){0};
    bytes_resize(to, from->count);
    if (from->count > 0)
        memcpy(to->at, from->at, (size_t) from->count);
}

/* ---- files ---- */

static struct file *find_file(struct vfs_disk *disk, const char *name)
{
    for (struct file *file = disk->files; file; file = file->next)
        if (strcmp(file->name, name) == 0)
            return file;
    return NULL;
}

static struct file *add_file(struct vfs_disk *disk, const char *name)
{
    struct file *file = calloc(1, sizeof *file);
    ensure(file != NULL && strlen(name) < sizeof file->name);
    memcpy(file->name, name, strlen(name) + 1);
    file->next = disk->files;
    disk->files = file;
    return file;
}

static void forget_changes(struct file *file)
{
    for (size_t i = 0; i < file->change_count; i++)
        free(file->changes[i].data);
    file->change_count = 0;
}

static struct change *add_change(struct file *file)
{
    if (file->change_count == file->change_capacity) {
        file->change_capacity = file->change_capacity ? 2 * file->change_capacity : 16;
        file->changes = realloc(file->changes, file->change_capacity * sizeof *file->changes);
        ensure(file->changes != NULL);
    }
    return &file->changes[file->change_count++];
}

static void make_durable(struct file *file)
{
    for (size_t i = 0; i < file->change_count; i++) {
        const struct change *change = &file->changes[i];
        if (!change->data)
            bytes_resize(&file->durable, change->offset);
        else if (!change->is_lost)
            bytes_put(&file->durable, change->offset, change->data, change->count);
        else if (change->offset + change->count > file->durable.count)
            bytes_resize(&file->durable, change->offset + change->count);
    }
    forget_changes(file);
    file->was_there = true;
}

/* ---- the disk ---- */

struct vfs_disk *vfs_disk_create(struct random *random)
{
    struct vfs_disk *disk = calloc(1, sizeof *disk);
    ensure(disk != NULL);
    disk->random = random;
    return disk;
}

void vfs_disk_destroy(struct vfs_disk *disk)
{
    if (!disk)
        return;
    for (struct file *next, *file = disk->files; file; file = next) {
        next = file->next;
        forget_changes(file);
        for (int i = 0; i < REGIONS_MAX; i++)
            free(file->regions[i]);
        free(file->changes);
        free(file->now.at);
        free(file->durable.at);
        free(file);
    }
    free(disk);
}

struct vfs_disk *vfs_disk_copy(const struct vfs_disk *disk, struct random *random)
{
    struct vfs_disk *copy = vfs_disk_create(random);
    for (const struct file *file = disk->files; file; file = file->next) {
        if (!file->is_there)
            continue;
        struct file *to = add_file(copy, file->name);
        bytes_copy(&to->now, &file->now);
        bytes_copy(&to->durable, &file->now);
        to->is_there = to->was_there = true;
    }
    return copy;
}

static bool happens(struct vfs_disk *disk, unsigned per_mille)
{
    return random_below(disk->random, 1000) < per_mille;
}

/* Sector by sector: each that a change touches survives or not. */
static void survive(struct vfs_disk *disk, struct bytes *to, const struct change *change,
                    unsigned per_mille)
{
    if (!change->data) {
        if (happens(disk, per_mille))
            bytes_resize(to, change->offset);
        return;
    }
    int64_t done = 0;
    while (done < change->count) {
        int64_t at = change->offset + done, piece = SECTOR - at % SECTOR;
        if (piece > change->count - done)
            piece = change->count - done;
        if (!change->is_lost && happens(disk, per_mille))
            bytes_put(to, at, change->data + done, piece);
        else
            disk->counts.torn++;
        done += piece;
    }
}

struct vfs_disk *vfs_disk_survivor(struct vfs_disk *disk, bool is_power_cut)
{
    static const unsigned shares[] = {0, 100, 500, 900, 1000};
    struct vfs_disk *copy = vfs_disk_create(disk->random);
    unsigned share = shares[random_below(disk->random, ARRAY_COUNT(shares))];
    for (const struct file *file = disk->files; file; file = file->next) {
        bool is_there = file->is_there;
        if (is_power_cut && file->is_there != file->was_there)
            is_there = happens(disk, 500) ? file->is_there : file->was_there;
        if (!is_there)
            continue;
        struct file *to = add_file(copy, file->name);
        bytes_copy(&to->now, is_power_cut ? &file->durable : &file->now);
        for (size_t i = 0; is_power_cut && i < file->change_count; i++)
            survive(disk, &to->now, &file->changes[i], share);
        bytes_copy(&to->durable, &to->now);
        to->is_there = to->was_there = true;
    }
    copy->counts = disk->counts;
    return copy;
}

void vfs_disk_set_faults(struct vfs_disk *disk, struct vfs_faults faults)
{
    disk->faults = faults;
    disk->full_writes = 0;
}

struct vfs_counts vfs_disk_counts(const struct vfs_disk *disk)
{
    return disk->counts;
}

static bool fails(struct vfs_disk *disk, unsigned one_in)
{
    if (one_in == 0 || random_below(disk->random, one_in) != 0)
        return false;
    disk->counts.faults++;
    return true;
}

/* ---- SQLite's methods of a file ---- */

static int file_close(sqlite3_file *base)
{
    struct handle *handle = (struct handle *) base;
    (void) base->pMethods->xUnlock(base, SQLITE_LOCK_NONE);
    handle->file = NULL;
    return SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *out, int count, sqlite3_int64 offset)
{
    struct handle *handle = (struct handle *) base;
    const struct bytes *bytes = &handle->file->now;
    if (fails(handle->disk, handle->disk->faults.read))
        return SQLITE_IOERR_READ;
    int64_t there = bytes->count - offset;
    there = there < 0 ? 0 : there < count ? there : count;
    if (there > 0)
        memcpy(out, bytes->at + offset, (size_t) there);
    if (there == count)
        return SQLITE_OK;
    memset((uint8_t *) out + there, 0, (size_t) (count - there));
    return SQLITE_IOERR_SHORT_READ;
}

static void record_write(struct file *file, const uint8_t *data, int64_t count, int64_t offset)
{
    struct change *change = add_change(file);
    *change = (struct change){.offset = offset, .count = count, .data = malloc((size_t) count)};
    ensure(change->data != NULL);
    memcpy(change->data, data, (size_t) count);
    bytes_put(&file->now, offset, data, count);
}

static int file_write(sqlite3_file *base, const void *data, int count, sqlite3_int64 offset)
{
    struct handle *handle = (struct handle *) base;
    struct vfs_disk *disk = handle->disk;
    disk->counts.writes++;
    if (disk->full_writes == 0 && fails(disk, disk->faults.full))
        disk->full_writes = FULL_WRITES;
    if (disk->full_writes > 0) {
        disk->full_writes--;
        return SQLITE_FULL;
    }
    bool is_failure = fails(disk, disk->faults.write);
    if (is_failure) /* a part of it may be there all the same */
        count = (int) random_below(disk->random, (uint64_t) count + 1);
    if (count > 0)
        record_write(handle->file, data, count, offset);
    return is_failure ? SQLITE_IOERR_WRITE : SQLITE_OK;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct file *file = ((struct handle *) base)->file;
    *add_change(file) = (struct change){.offset = size};
    bytes_resize(&file->now, size);
    return SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags)
{
    struct handle *handle = (struct handle *) base;
    struct file *file = handle->file;
    (void) flags;
    handle->disk->counts.syncs++;
    if (!fails(handle->disk, handle->disk->faults.sync)) {
        make_durable(file);
        return SQLITE_OK;
    }
    for (size_t i = 0; i < file->change_count; i++)
        if (file->changes[i].data && happens(handle->disk, 500))
            file->changes[i].is_lost = true;
    return SQLITE_IOERR_FSYNC;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *size)
{
    *size = ((struct handle *) base)->file->now.count;
    return SQLITE_OK;
}

/* ---- locks: all handles are of one process, and nobody waits ---- */

static int file_lock(sqlite3_file *base, int level)
{
    struct handle *handle = (struct handle *) base;
    struct file *file = handle->file;
    if (level <= handle->lock)
        return SQLITE_OK;
    if (level == SQLITE_LOCK_SHARED) {
        if (file->is_exclusive || file->is_pending)
            return SQLITE_BUSY;
        file->shared_count++;
    } else if (level == SQLITE_LOCK_RESERVED) {
        if (file->is_reserved)
            return SQLITE_BUSY;
        file->is_reserved = true;
    } else {
        if (file->is_reserved && handle->lock < SQLITE_LOCK_RESERVED)
            return SQLITE_BUSY;
        if (file->shared_count > 1)
            return SQLITE_BUSY;
        file->is_reserved = file->is_exclusive = true;
    }
    handle->lock = level;
    return SQLITE_OK;
}

static int file_unlock(sqlite3_file *base, int level)
{
    struct handle *handle = (struct handle *) base;
    struct file *file = handle->file;
    if (level >= handle->lock)
        return SQLITE_OK;
    if (handle->lock >= SQLITE_LOCK_RESERVED)
        file->is_reserved = file->is_pending = file->is_exclusive = false;
    if (level == SQLITE_LOCK_NONE)
        file->shared_count--;
    handle->lock = level;
    return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *base, int *out)
{
    *out = ((struct handle *) base)->file->is_reserved;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int operation, void *argument)
{
    (void) base;
    (void) operation;
    (void) argument;
    return SQLITE_NOTFOUND;
}

static int file_sector_size(sqlite3_file *base)
{
    (void) base;
    return 4096;
}

static int file_characteristics(sqlite3_file *base)
{
    (void) base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* what the system's VFS says by default */
}

/* ---- the WAL's shared memory ---- */

static int shm_map(sqlite3_file *base, int region, int bytes, int is_extending, void volatile **out)
{
    struct file *file = ((struct handle *) base)->file;
    ensure(bytes == REGION_BYTES);
    if (region >= REGIONS_MAX)
        return SQLITE_IOERR_SHMMAP;
    if (!file->regions[region] && is_extending) {
        file->regions[region] = calloc(1, REGION_BYTES);
        ensure(file->regions[region] != NULL);
    }
    *out = file->regions[region];
    return SQLITE_OK;
}

static int shm_unlock(struct handle *handle, int at, bool is_shared)
{
    struct file *file = handle->file;
    uint16_t bit = (uint16_t) (1u << at);
    if (is_shared && handle->shm_shared & bit) {
        handle->shm_shared &= (uint16_t) ~bit;
        file->shm_shared[at]--;
    } else if (!is_shared && handle->shm_exclusive & bit) {
        handle->shm_exclusive &= (uint16_t) ~bit;
        file->shm_exclusive[at] = false;
    }
    return SQLITE_OK;
}

static bool shm_is_free(const struct handle *handle, int at, bool is_shared)
{
    const struct file *file = handle->file;
    int others = file->shm_shared[at] - (handle->shm_shared >> at & 1);
    return !file->shm_exclusive[at] && (is_shared || others == 0);
}

static int shm_lock(sqlite3_file *base, int first, int count, int flags)
{
    struct handle *handle = (struct handle *) base;
    struct file *file = handle->file;
    bool is_shared = flags & SQLITE_SHM_SHARED;
    if (flags & SQLITE_SHM_UNLOCK) {
        for (int at = first; at < first + count; at++)
            shm_unlock(handle, at, is_shared);
        return SQLITE_OK;
    }
    for (int at = first; at < first + count; at++)
        if (!shm_is_free(handle, at, is_shared))
            return SQLITE_BUSY;
    for (int at = first; at < first + count; at++) {
        uint16_t bit = (uint16_t) (1u << at);
        if (is_shared && !(handle->shm_shared & bit)) {
            handle->shm_shared |= bit;
            file->shm_shared[at]++;
        } else if (!is_shared) {
            handle->shm_exclusive |= bit;
            file->shm_exclusive[at] = true;
        }
    }
    return SQLITE_OK;
}

static void shm_barrier(sqlite3_file *base)
{
    (void) base;
}

static int shm_unmap(sqlite3_file *base, int is_removing)
{
    struct handle *handle = (struct handle *) base;
    (void) is_removing; /* it is removed with the disk */
    for (int at = 0; at < SQLITE_SHM_NLOCK; at++) {
        shm_unlock(handle, at, true);
        shm_unlock(handle, at, false);
    }
    return SQLITE_OK;
}

static const sqlite3_io_methods file_methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

/* ---- SQLite's methods of a file system ---- */

static int fs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags,
                   int *flags_out)
{
    struct handle *handle = (struct handle *) base;
    (void) vfs;
    *handle = (struct handle){.disk = used};
    struct file *file = find_file(used, name ? name : "temporary");
    if (!file)
        file = add_file(used, name ? name : "temporary");
    if (!file->is_there && !(flags & SQLITE_OPEN_CREATE))
        return SQLITE_CANTOPEN;
    if (!file->is_there) { /* a new one, whatever was there before */
        bytes_resize(&file->now, 0);
        *add_change(file) = (struct change){.offset = 0};
        file->is_there = true;
    }
    handle->file = file;
    handle->base.pMethods = &file_methods;
    if (flags_out)
        *flags_out = flags;
    return SQLITE_OK;
}

static int fs_delete(sqlite3_vfs *vfs, const char *name, int is_synced)
{
    struct file *file = find_file(used, name);
    (void) vfs;
    if (!file || !file->is_there)
        return SQLITE_IOERR_DELETE_NOENT;
    file->is_there = false;
    if (is_synced)
        file->was_there = false;
    return SQLITE_OK;
}

static int fs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    const struct file *file = find_file(used, name);
    (void) vfs;
    (void) flags;
    *out = file && file->is_there && (flags != SQLITE_ACCESS_EXISTS || file->now.count > 0);
    return SQLITE_OK;
}

static int fs_full_name(sqlite3_vfs *vfs, const char *name, int bytes, char *out)
{
    (void) vfs;
    return snprintf(out, (size_t) bytes, "%s", name) < bytes ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int fs_random(sqlite3_vfs *vfs, int count, char *out)
{
    (void) vfs;
    used->random->ops->fill(used->random, out, (size_t) count);
    return count;
}

static int fs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void) vfs;
    return microseconds;
}

static int fs_now(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    (void) vfs;
    *out = 212000000000000ll;
    return SQLITE_OK;
}

static int fs_last_error(sqlite3_vfs *vfs, int count, char *out)
{
    (void) vfs;
    (void) count;
    (void) out;
    return 0;
}

void vfs_use(struct vfs_disk *disk)
{
    static sqlite3_vfs vfs = {
        .iVersion = 2,
        .szOsFile = sizeof(struct handle),
        .mxPathname = NAME_BYTES,
        .zName = VFS_NAME,
        .xOpen = fs_open,
        .xDelete = fs_delete,
        .xAccess = fs_access,
        .xFullPathname = fs_full_name,
        .xRandomness = fs_random,
        .xSleep = fs_sleep,
        .xGetLastError = fs_last_error,
        .xCurrentTimeInt64 = fs_now,
    };
    used = disk;
    if (!sqlite3_vfs_find(VFS_NAME))
        ensure(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
    sqlite3_randomness(0, NULL); /* forget what it has gathered: one seed, one history */
}

static int keep_first(void *argument, int count, char **values, char **names)
{
    char *text = argument;
    (void) names;
    if (count > 0 && values[0] && strcmp(values[0], "ok") != 0 && !*text)
        snprintf(text, 256, "%s", values[0]);
    return 0;
}

const char *vfs_check(const char *path)
{
    static char problem[256];
    sqlite3 *db = NULL;
    *problem = '\0';
    int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, VFS_NAME);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, "PRAGMA integrity_check; PRAGMA foreign_key_check", keep_first,
                            problem, NULL);
    if (code != SQLITE_OK && !*problem)
        snprintf(problem, sizeof problem, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
    return *problem ? problem : NULL;
}
