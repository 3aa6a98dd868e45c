#include "agent/sandbox/sandbox_aot_internal.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "nexus_native.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct module_cache {
    struct engine *engine;
    struct aot aot;
    pthread_mutex_t mutex;
    struct list tools; /* of prepared.link, most recently used first */
    size_t count;
};

/* ---- loading one; no lock held ---- */

/* The file's bytes, whole, private to us; the digest says that they are what the registry saw. */
static bool map_module(const struct tool *tool, const struct tool_module *module, str *out,
                       struct error *e)
{
    char *path = strndup(module->path.ptr, module->path.len);
    ensure(path != NULL);
    int fd = open(path, O_RDONLY | O_CLOEXEC), failure = errno;
    free(path);
    struct stat status;
    if (fd < 0)
        return error_set(e, REASON_NOT_FOUND, "the module of tool " STR_FMT ", " STR_FMT ": %s",
                         STR_ARG(tool->name), STR_ARG(module->path), strerrordesc_np(failure));
    void *map = MAP_FAILED;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 &&
        status.st_size <= (off_t) SANDBOX_MODULE_BYTES_MAX)
        map = mmap(NULL, (size_t) status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return error_set(
            e, REASON_TOO_LARGE,
            "the module of tool " STR_FMT ", " STR_FMT ": empty, not a file, or over %u MiB",
            STR_ARG(tool->name), STR_ARG(module->path), SANDBOX_MODULE_BYTES_MAX >> 20);
    *out = str_of(map, (size_t) status.st_size);
    return true;
}

static void unmap_module(str bytes)
{
    munmap((void *) (uintptr_t) bytes.ptr, bytes.len);
}

/* The module as it is mapped from the file that was just written shares pages with the page cache; the one in memory does not. */
static void keep_compiled(struct module_cache *cache, digest wasm_digest,
                          wasmtime_module_t **module)
{
    aot_save(&cache->aot, cache->engine, wasm_digest, *module);
    wasmtime_module_t *mapped = aot_load(&cache->aot, cache->engine, wasm_digest);
    if (!mapped)
        return;
    wasmtime_module_delete(*module);
    *module = mapped;
}

static bool compile_core(struct module_cache *cache, const struct tool_module *module, str wasm,
                         wasmtime_module_t **out, struct error *e)
{
    *out = aot_load(&cache->aot, cache->engine, module->digest);
    if (*out)
        return true;
    wasmtime_error_t *failure =
        wasmtime_module_new(cache->engine->wasm, (const uint8_t *) wasm.ptr, wasm.len, out);
    if (failure)
        return wasm_error_set(e, REASON_INVALID, "compile", failure);
    keep_compiled(cache, module->digest, out);
    return true;
}

static bool compile(struct module_cache *cache, const struct tool *tool,
                    const struct tool_module *module, struct prepared *prepared, struct error *e)
{
    str wasm;
    if (!map_module(tool, module, &wasm, e))
        return false;
    bool is_ok = digest_equal(digest_sha256(wasm), module->digest);
    if (!is_ok)
        error_set(e, REASON_CORRUPT,
                  "the module of tool " STR_FMT
                  " is not the one that was registered: reload the tools",
                  STR_ARG(tool->name));
    else if (module->abi == TOOL_ABI_COMPONENT)
        is_ok = component_load(&cache->aot, cache->engine, tool, module, wasm, prepared, e);
    else
        is_ok = compile_core(cache, module, wasm, &prepared->module, e);
    unmap_module(wasm);
    return is_ok;
}

static bool compile_schema(const struct tool *tool, const char *which, str text,
                           struct native_schema **out, struct error *e)
{
    char *why = NULL;
    if (native_schema_create((struct native_text){text.ptr, text.len}, out, &why) == NATIVE_OK)
        return true;
    error_set(e, REASON_INVALID, "%s of tool " STR_FMT ": %s", which, STR_ARG(tool->name),
              why ? why : "cannot be used");
    native_string_free(why);
    return false;
}

static bool has_export(const wasm_exporttype_vec_t *exports, const char *name,
                       wasm_externkind_t kind)
{
    for (size_t i = 0; i < exports->size; i++) {
        const wasm_name_t *found = wasm_exporttype_name(exports->data[i]);
        if (str_equal(str_of(found->data, found->size), str_from_cstr(name)))
            return wasm_externtype_kind(wasm_exporttype_type(exports->data[i])) == kind;
    }
    return false;
}

static bool check_exports(const struct tool *tool, enum tool_abi abi,
                          const wasmtime_module_t *module, struct error *e)
{
    static const char *const of_export[] = {"nexus_alloc", "nexus_run", NULL}, *const of_command[] =
                                                                                   {"_start", NULL};
    wasm_exporttype_vec_t exports;
    wasmtime_module_exports(module, &exports);
    const char *missing = has_export(&exports, "memory", WASM_EXTERN_MEMORY) ? NULL : "memory";
    const char *const *functions = abi == TOOL_ABI_NEXUS_EXPORT ? of_export : of_command;
    for (; *functions && !missing; functions++)
        if (!has_export(&exports, *functions, WASM_EXTERN_FUNC))
            missing = *functions;
    wasm_exporttype_vec_delete(&exports);
    if (!missing)
        return true;
    return error_set(e, REASON_INVALID,
                     "the module of tool " STR_FMT " does not export %s, which its ABI needs",
                     STR_ARG(tool->name), missing);
}

static bool link_core(struct module_cache *cache, const struct tool *tool,
                      struct prepared *prepared, struct error *e)
{
    if (!check_exports(tool, prepared->abi, prepared->module, e))
        return false;
    wasmtime_error_t *failure =
        wasmtime_linker_instantiate_pre(cache->engine->linker, prepared->module, &prepared->pre);
    if (!failure)
        return true;
    wasm_error_set(e, REASON_INVALID, "link", failure);
    return error_wrap(e, "tool " STR_FMT, STR_ARG(tool->name));
}

static bool load(struct module_cache *cache, const struct tool *tool,
                 const struct tool_module *module, struct prepared *prepared, struct error *e)
{
    if (!compile(cache, tool, module, prepared, e))
        return error_wrap(e, "tool " STR_FMT, STR_ARG(tool->name));
    if (module->abi != TOOL_ABI_COMPONENT && !link_core(cache, tool, prepared, e))
        return false;
    return compile_schema(tool, "the input schema", tool->input_schema, &prepared->input_schema,
                          e) &&
           compile_schema(tool, "the output schema", tool->output_schema, &prepared->output_schema,
                          e);
}

static void prepared_destroy(struct prepared *prepared)
{
    native_schema_destroy(prepared->input_schema);
    native_schema_destroy(prepared->output_schema);
    component_unload(prepared);
    if (prepared->pre)
        wasmtime_instance_pre_delete(prepared->pre);
    if (prepared->module)
        wasmtime_module_delete(prepared->module);
    free(prepared);
}

/* ---- the cache ---- */

bool module_cache_create(struct engine *engine, str dir, const struct sandbox_code *code,
                         struct module_cache **out, struct error *e)
{
    struct module_cache *cache = calloc(1, sizeof *cache);
    ensure(cache != NULL);
    if (!aot_init(&cache->aot, dir, code, e)) {
        free(cache);
        return false;
    }
    cache->engine = engine;
    pthread_mutex_init(&cache->mutex, NULL);
    list_init(&cache->tools);
    *out = cache;
    return true;
}

void module_cache_destroy(struct module_cache *cache)
{
    if (!cache)
        return;
    LIST_EACH(node, &cache->tools)
    {
        struct prepared *prepared = LIST_ITEM(node, struct prepared, link);
        ensure(prepared->is_ready && atomic_load(&prepared->references) == 0);
        prepared_destroy(prepared);
    }
    aot_deinit(&cache->aot);
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

static struct prepared *find(struct module_cache *cache, const struct tool *tool,
                             const struct tool_module *module)
{
    LIST_EACH(node, &cache->tools)
    {
        struct prepared *prepared = LIST_ITEM(node, struct prepared, link);
        if (!digest_equal(prepared->identity, tool->identity) ||
            !digest_equal(prepared->module_digest, module->digest) || prepared->abi != module->abi)
            continue;
        list_remove(&prepared->link);
        list_push_front(&cache->tools, &prepared->link);
        return prepared;
    }
    return NULL;
}

static struct prepared *take(struct prepared *prepared)
{
    if (!prepared || !prepared->is_ready)
        return NULL;
    atomic_fetch_add(&prepared->references, 1);
    return prepared;
}

/* The least recently used that nobody uses; calls in flight keep theirs. */
static void make_room(struct module_cache *cache)
{
    struct list *node = cache->tools.previous;
    while (cache->count >= SANDBOX_TOOLS_MAX && node != &cache->tools) {
        struct prepared *prepared = LIST_ITEM(node, struct prepared, link);
        node = node->previous;
        if (!prepared->is_ready || atomic_load(&prepared->references) > 0)
            continue;
        list_remove(&prepared->link);
        cache->count--;
        prepared_destroy(prepared);
    }
}

struct prepared *module_cache_find(struct module_cache *cache, const struct tool *tool,
                                   const struct tool_module *module)
{
    pthread_mutex_lock(&cache->mutex);
    struct prepared *prepared = take(find(cache, tool, module));
    pthread_mutex_unlock(&cache->mutex);
    return prepared;
}

bool module_cache_load(struct module_cache *cache, const struct tool *tool,
                       const struct tool_module *module, struct prepared **out, bool *is_busy,
                       struct error *e)
{
    *out = NULL;
    *is_busy = false;
    pthread_mutex_lock(&cache->mutex);
    struct prepared *prepared = find(cache, tool, module);
    if (prepared) {
        *out = take(prepared);
        *is_busy = *out == NULL;
        pthread_mutex_unlock(&cache->mutex);
        return true;
    }
    make_room(cache);
    prepared = calloc(1, sizeof *prepared);
    ensure(prepared != NULL);
    prepared->identity = tool->identity;
    prepared->module_digest = module->digest;
    prepared->abi = module->abi;
    list_push_front(&cache->tools, &prepared->link);
    cache->count++;
    pthread_mutex_unlock(&cache->mutex);

    bool is_ok = load(cache, tool, module, prepared, e);

    pthread_mutex_lock(&cache->mutex);
    prepared->is_ready = is_ok;
    if (is_ok) {
        *out = take(prepared);
    } else { /* the next caller tries anew: the file may have been mended */
        list_remove(&prepared->link);
        cache->count--;
    }
    pthread_mutex_unlock(&cache->mutex);
    if (!is_ok)
        prepared_destroy(prepared);
    return is_ok;
}

void prepared_release(struct prepared *prepared)
{
    if (prepared)
        atomic_fetch_sub(&prepared->references, 1);
}
