#include "agent/sandbox/sandbox_aot_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILE_NAME_BYTES = AOT_NAME_BYTES, FD_PATH_BYTES = 40, SECONDS_PER_DAY = 24 * 60 * 60 };

static int dir_open(const struct aot *aot)
{
    return open(aot->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Others who can write here could put files in place of ours (the key included). */
static bool is_private(int dir)
{
    struct stat status;
    bool is_ok =
        fstat(dir, &status) == 0 && status.st_uid == geteuid() && (status.st_mode & 022) == 0;
    if (!is_ok)
        errno = EPERM;
    return is_ok;
}

static bool write_all(int fd, const void *bytes, size_t count)
{
    const char *from = bytes;
    while (count > 0) {
        ssize_t written = write(fd, from, count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        from += written;
        count -= (size_t) written;
    }
    return true;
}

/* ---- the key ---- */

static bool key_read(int dir, uint8_t key[AOT_KEY_BYTES])
{
    int fd = openat(dir, "cache.key", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct stat status;
    bool is_ok = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid() &&
                 (status.st_mode & 077) == 0 && status.st_size == AOT_KEY_BYTES &&
                 pread(fd, key, AOT_KEY_BYTES, 0) == AOT_KEY_BYTES;
    close(fd);
    return is_ok;
}

/* Of several starters one wins the rename and all read what is there. */
static bool key_make(int dir)
{
    uint8_t key[AOT_KEY_BYTES];
    char name[64];
    digest_random_bytes(key, sizeof key);
    snprintf(name, sizeof name, "cache.key.%ld.new", (long) getpid());
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool is_ok = write_all(fd, key, sizeof key) && fsync(fd) == 0;
    is_ok = close(fd) == 0 && is_ok;
    is_ok = is_ok && (linkat(dir, name, dir, "cache.key", 0) == 0 || errno == EEXIST);
    unlinkat(dir, name, 0);
    return is_ok;
}

static bool key_load(struct aot *aot, int dir)
{
    if (key_read(dir, aot->key))
        return true;
    if (faccessat(dir, "cache.key", F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        LOG_WARN(
            "agent.sandbox",
            S("the key of the module cache is damaged or readable by others; a new one is made and "
              "modules are compiled anew"));
        unlinkat(dir, "cache.key", 0);
    }
    return key_make(dir) && key_read(dir, aot->key);
}

/* ---- what nobody has loaded for long: other versions of tools and of the engine ---- */

static bool is_ours(const char *name)
{
    str text = str_from_cstr(name);
    return str_ends_with(text, S(".cwasm")) || str_ends_with(text, S(".new"));
}

/* The time of a file is that of its last use (mark_used). */
static void forget_unused(int dir)
{
    struct stat status;
    struct dirent *entry;
    time_t oldest = time(NULL) - (time_t) SANDBOX_CODE_UNUSED_DAYS * SECONDS_PER_DAY;
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    if (fd >= 0 && !listing)
        close(fd);
    for (size_t i = 0; listing && i < SANDBOX_CODE_FILES_MAX && (entry = readdir(listing)); i++)
        if (is_ours(entry->d_name) &&
            fstatat(dir, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(status.st_mode) && status.st_mtime < oldest)
            unlinkat(dir, entry->d_name, 0);
    if (listing)
        closedir(listing);
}

/* Once a day is enough; a failure only makes the file look older than it is. */
static void mark_used(int fd)
{
    struct stat status;
    if (fstat(fd, &status) == 0 && status.st_mtime < time(NULL) - SECONDS_PER_DAY)
        (void) futimens(fd, NULL);
}

bool aot_init(struct aot *aot, str dir, const struct sandbox_code *code, struct error *e)
{
    aot->code = code;
    if (code)
        return true;
    aot->dir = malloc(dir.len + 1);
    ensure(aot->dir != NULL);
    memcpy(aot->dir, dir.ptr, dir.len);
    aot->dir[dir.len] = '\0';
    int fd = -1;
    bool is_ok = (mkdir(aot->dir, 0700) == 0 || errno == EEXIST) && (fd = dir_open(aot)) >= 0 &&
                 is_private(fd) && key_load(aot, fd);
    int failure = errno;
    if (is_ok)
        forget_unused(fd);
    if (fd >= 0)
        close(fd);
    if (is_ok)
        return true;
    error_set(e, failure == ENOSPC ? REASON_DISK_FULL : REASON_UNAVAILABLE,
              "folder for compiled modules %s: %s%s", aot->dir, strerrordesc_np(failure),
              failure == EPERM ? "; it must be yours and writable by nobody else (chmod 700)" : "");
    aot_deinit(aot);
    return false;
}

void aot_deinit(struct aot *aot)
{
    free(aot->dir);
    *aot = (struct aot){0};
}

/* ---- files ---- */

void aot_file_name(digest wasm_digest, str engine_version, char name[AOT_NAME_BYTES])
{
    char hex[2 * sizeof wasm_digest.bytes + 1];
    for (size_t i = 0; i < sizeof wasm_digest.bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", wasm_digest.bytes[i]);
    snprintf(name, AOT_NAME_BYTES, "%s-" STR_FMT ".cwasm", hex, STR_ARG(engine_version));
}

static void file_name(struct engine *engine, digest wasm_digest, char name[FILE_NAME_BYTES])
{
    aot_file_name(wasm_digest, engine->version, name);
}

static digest sign(const struct aot *aot, const char *name, str content)
{
    char text[FILE_NAME_BYTES + sizeof(digest)];
    size_t name_bytes = strlen(name);
    digest hash = digest_sha256(content);
    memcpy(text, name, name_bytes);
    memcpy(text + name_bytes, hash.bytes, sizeof hash.bytes);
    return digest_hmac_sha256(str_of((const char *) aot->key, sizeof aot->key),
                              str_of(text, name_bytes + sizeof hash.bytes));
}

static bool is_signed(const struct aot *aot, const char *name, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_size <= (off_t) sizeof(digest))
        return false;
    size_t bytes = (size_t) status.st_size;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return false;
    str content = str_of(map, bytes - sizeof(digest));
    digest stored;
    memcpy(stored.bytes, content.ptr + content.len, sizeof stored.bytes);
    bool is_ok = digest_equal(stored, sign(aot, name, content));
    munmap(map, bytes);
    return is_ok;
}

static void refuse(const char *name, str why)
{
    LOG_WARN("agent.sandbox", S("a compiled module in the cache is refused and compiled anew"),
             LOG_STR("file.name", str_from_cstr(name)), LOG_STR("error.message", why));
}

int aot_open(const struct aot *aot, const char *name)
{
    int dir = dir_open(aot);
    if (dir < 0)
        return -1;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    close(dir);
    if (fd < 0)
        return -1;
    if (is_signed(aot, name, fd)) {
        mark_used(fd);
        return fd;
    }
    refuse(name, S("its signature does not fit: it was changed, cut or made elsewhere"));
    close(fd);
    return -1;
}

/* The descriptor is that of the very file that was checked. */
static int open_code(const struct aot *aot, digest wasm_digest, const char *name)
{
    return aot->code ? aot->code->open(aot->code->owner, wasm_digest) : aot_open(aot, name);
}

/* Gives what wasmtime maps the code from; -1 when there is none that counts. */
static int open_path(const struct aot *aot, struct engine *engine, digest wasm_digest,
                     char name[FILE_NAME_BYTES], char path[FD_PATH_BYTES])
{
    file_name(engine, wasm_digest, name);
    int fd = open_code(aot, wasm_digest, name);
    snprintf(path, FD_PATH_BYTES, "/proc/self/fd/%d", fd);
    return fd;
}

static void refuse_unloadable(const char *name, wasmtime_error_t *give_failure)
{
    struct error why;
    wasm_error_set(&why, REASON_CORRUPT, "load", give_failure);
    refuse(name, str_from_cstr(why.message));
}

wasmtime_module_t *aot_load(const struct aot *aot, struct engine *engine, digest wasm_digest)
{
    char name[FILE_NAME_BYTES], path[FD_PATH_BYTES];
    int fd = open_path(aot, engine, wasm_digest, name, path);
    if (fd < 0)
        return NULL;
    wasmtime_module_t *module = NULL;
    wasmtime_error_t *failure = wasmtime_module_deserialize_file(engine->wasm, path, &module);
    close(fd);
    if (failure)
        refuse_unloadable(name, failure);
    return failure ? NULL : module;
}

wasmtime_component_t *aot_load_component(const struct aot *aot, struct engine *engine,
                                         digest wasm_digest)
{
    char name[FILE_NAME_BYTES], path[FD_PATH_BYTES];
    int fd = open_path(aot, engine, wasm_digest, name, path);
    if (fd < 0)
        return NULL;
    wasmtime_component_t *component = NULL;
    wasmtime_error_t *failure = wasmtime_component_deserialize_file(engine->wasm, path, &component);
    close(fd);
    if (failure)
        refuse_unloadable(name, failure);
    return failure ? NULL : component;
}

static bool save(const struct aot *aot, int dir, const char *name, str content)
{
    if (FAULT("agent.aot_save")) {
        errno = ENOSPC;
        return false;
    }
    char draft[FILE_NAME_BYTES + 48];
    snprintf(draft, sizeof draft, "%s.%ld.%p.new", name, (long) getpid(),
             (const void *) content.ptr);
    int fd = openat(dir, draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    digest signature = sign(aot, name, content);
    bool is_ok = write_all(fd, content.ptr, content.len) &&
                 write_all(fd, signature.bytes, sizeof signature.bytes);
    is_ok = close(fd) == 0 && is_ok;
    is_ok = is_ok && renameat(dir, draft, dir, name) == 0;
    if (!is_ok) {
        int failure = errno;
        unlinkat(dir, draft, 0);
        errno = failure;
    }
    return is_ok;
}

bool aot_store(const struct aot *aot, const char *name, str content, struct error *e)
{
    int dir = dir_open(aot);
    bool is_ok = dir >= 0 && save(aot, dir, name, content);
    int failure = errno;
    if (dir >= 0)
        close(dir);
    return is_ok || error_set(e, failure == ENOSPC ? REASON_DISK_FULL : REASON_UNAVAILABLE, "%s",
                              strerrordesc_np(failure));
}

/* Takes the error, if there is one, or the code. */
static void keep(const struct aot *aot, struct engine *engine, digest wasm_digest,
                 wasmtime_error_t *give_failure, wasm_byte_vec_t *give_code)
{
    struct error why;
    if (give_failure) {
        wasm_error_set(&why, REASON_INTERNAL, "serialize a module", give_failure);
        LOG_ERROR("agent.sandbox", S("a compiled module was not kept"), &why);
        return;
    }
    char name[FILE_NAME_BYTES];
    str content = str_of(give_code->data, give_code->size);
    file_name(engine, wasm_digest, name);
    if (aot->code)
        aot->code->save(aot->code->owner, wasm_digest, content);
    else if (!aot_store(aot, name, content, &why))
        LOG_WARN("agent.sandbox",
                 S("a compiled module was not kept; it will be compiled again after a restart"),
                 LOG_STR("file.name", str_from_cstr(name)),
                 LOG_STR("error.message", str_from_cstr(why.message)));
    wasm_byte_vec_delete(give_code);
}

void aot_save(const struct aot *aot, struct engine *engine, digest wasm_digest,
              const wasmtime_module_t *module)
{
    wasm_byte_vec_t code;
    wasmtime_error_t *failure = wasmtime_module_serialize(module, &code);
    keep(aot, engine, wasm_digest, failure, &code);
}

void aot_save_component(const struct aot *aot, struct engine *engine, digest wasm_digest,
                        const wasmtime_component_t *component)
{
    wasm_byte_vec_t code;
    wasmtime_error_t *failure = wasmtime_component_serialize(component, &code);
    keep(aot, engine, wasm_digest, failure, &code);
}
