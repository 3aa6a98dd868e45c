#include "agent/sandbox_aot_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_NAME_BYTES = 160, FD_PATH_BYTES = 40 };

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

bool aot_init(struct aot *aot, str dir, struct error *e)
{
    aot->dir = malloc(dir.len + 1);
    ensure(aot->dir != NULL);
    memcpy(aot->dir, dir.ptr, dir.len);
    aot->dir[dir.len] = '\0';
    int fd = -1;
    bool is_ok = (mkdir(aot->dir, 0700) == 0 || errno == EEXIST) && (fd = dir_open(aot)) >= 0 &&
                 is_private(fd) && key_load(aot, fd);
    int failure = errno;
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

static void file_name(struct engine *engine, digest wasm_digest, char name[FILE_NAME_BYTES])
{
    char hex[2 * sizeof wasm_digest.bytes + 1];
    for (size_t i = 0; i < sizeof wasm_digest.bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", wasm_digest.bytes[i]);
    snprintf(name, FILE_NAME_BYTES, "%s-" STR_FMT ".cwasm", hex, STR_ARG(engine->version));
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

/* wasmtime maps the very file that was checked: through its descriptor, not by its name. */
static wasmtime_module_t *load_checked(const struct aot *aot, struct engine *engine,
                                       const char *name, int fd)
{
    if (!is_signed(aot, name, fd)) {
        refuse(name, S("its signature does not fit: it was changed, cut or made elsewhere"));
        return NULL;
    }
    char path[FD_PATH_BYTES];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    wasmtime_module_t *module = NULL;
    wasmtime_error_t *failure = wasmtime_module_deserialize_file(engine->wasm, path, &module);
    if (!failure)
        return module;
    struct error why;
    wasm_error_set(&why, REASON_CORRUPT, "load", failure);
    refuse(name, str_from_cstr(why.message));
    return NULL;
}

wasmtime_module_t *aot_load(const struct aot *aot, struct engine *engine, digest wasm_digest)
{
    char name[FILE_NAME_BYTES];
    file_name(engine, wasm_digest, name);
    int dir = dir_open(aot);
    if (dir < 0)
        return NULL;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    wasmtime_module_t *module = fd >= 0 ? load_checked(aot, engine, name, fd) : NULL;
    if (fd >= 0)
        close(fd);
    close(dir);
    return module;
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

void aot_save(const struct aot *aot, struct engine *engine, digest wasm_digest,
              const wasmtime_module_t *module)
{
    wasm_byte_vec_t code;
    wasmtime_error_t *failure = wasmtime_module_serialize(module, &code);
    if (failure) {
        struct error why;
        wasm_error_set(&why, REASON_INTERNAL, "serialize a module", failure);
        LOG_ERROR("agent.sandbox", S("a compiled module was not kept"), &why);
        return;
    }
    char name[FILE_NAME_BYTES];
    file_name(engine, wasm_digest, name);
    int dir = dir_open(aot);
    if (dir < 0 || !save(aot, dir, name, str_of(code.data, code.size)))
        LOG_WARN("agent.sandbox",
                 S("a compiled module was not kept; it will be compiled again after a restart"),
                 LOG_STR("file.name", str_from_cstr(name)),
                 LOG_STR("error.message", str_from_cstr(strerrordesc_np(errno))));
    if (dir >= 0)
        close(dir);
    wasm_byte_vec_delete(&code);
}
