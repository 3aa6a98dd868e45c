/*
 * The store of compiled code: <dir>/<sha256 of the wasm>-<engine version>.cwasm
 *
 * Such a file is native code that the process will run, so it counts only with our signature behind
 * it: HMAC-SHA256 under a key of this folder (cache.key, mode 0600, made once) over the file's name
 * and content.  A file that is cut, changed, renamed or made elsewhere is refused, said in the log
 * and compiled anew.  What nobody has loaded for SANDBOX_CODE_UNUSED_DAYS is removed at a start (several
 * processes of a user may share the folder: who wants it again compiles it).  Files appear by rename: whole or not at all. Blocking.  Thread: any, several
 * at once.
 *
 * In a process of its own (remote_server.h) the sandbox has neither folder nor key: `code` hands it
 * descriptors of files that the other side has checked, and takes what was compiled.
 */
#ifndef NEXUS_AGENT_SANDBOX_AOT_INTERNAL_H
#define NEXUS_AGENT_SANDBOX_AOT_INTERNAL_H

#include "agent/sandbox/sandbox_wasm_internal.h"

enum { AOT_KEY_BYTES = 32 };

struct aot {
    char *dir;
    uint8_t key[AOT_KEY_BYTES];
    const struct sandbox_code *code; /* in place of folder and key; NULL: there are these */
};

/* Either `dir` or `code`. */
must_check bool aot_init(struct aot *aot, str dir, const struct sandbox_code *code,
                         struct error *e);
void aot_deinit(struct aot *aot);
/* NULL when there is no usable file. */
wasmtime_module_t *aot_load(const struct aot *aot, struct engine *engine, digest wasm_digest);
/* A failure (full disk, ...) is only logged: the module in memory is good. */
void aot_save(const struct aot *aot, struct engine *engine, digest wasm_digest,
              const wasmtime_module_t *module);

/* The same for components. */
wasmtime_component_t *aot_load_component(const struct aot *aot, struct engine *engine,
                                         digest wasm_digest);
void aot_save_component(const struct aot *aot, struct engine *engine, digest wasm_digest,
                        const wasmtime_component_t *component);

/* ---- for who keeps code without running it ---- */

enum { AOT_NAME_BYTES = 160 };
void aot_file_name(digest wasm_digest, str engine_version, char name[AOT_NAME_BYTES]);
/* A descriptor of the file, its signature checked; -1: there is none that counts. */
int aot_open(const struct aot *aot, const char *name);
must_check bool aot_store(const struct aot *aot, const char *name, str content, struct error *e);

#endif
