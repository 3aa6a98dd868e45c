/*
 * The native library: Rego policies, JSON Schema and patterns, written in Rust, called from C.  (wasmtime's C API is in the same
 * archive; its manual is wasmtime.h.)
 *
 * - Text goes in borrowed for the call and need not be terminated; it must be UTF-8.  NULL with 0 bytes is empty text.
 * - Text comes out as a terminated string that the caller gives back with native_string_free().
 * - A result is set only when the status says so.  `error` is set with every status >= NATIVE_INVALID unless a function
 *   says otherwise; it may be NULL when the caller does not care.
 * - A panic inside becomes NATIVE_INTERNAL; it never crosses this border.
 * Thread: any; a compiled policy set, schema or pattern is immutable and may be used by many threads at once.
 * Stack: up to a few hundred KiB, so never on a coroutine's stack.  Suspends: never.  Blocks: computes only, no I/O.
 */
#ifndef NEXUS_NATIVE_H
#define NEXUS_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum native_status {
    NATIVE_OK = 0,
    NATIVE_UNDEFINED = 1, /* Rego: the rule has no value for this input; no result, no error */
    NATIVE_INVALID =
        2, /* what was given is wrong: syntax, JSON, a rule that conflicts with itself, a schema, a pattern */
    NATIVE_NOT_FOUND = 3, /* no module defines this rule */
    NATIVE_TIMEOUT = 4,   /* the evaluation took longer than its limit */
    NATIVE_INTERNAL = 5,  /* a panic in the library */
};

struct native_text {
    const char *data;
    size_t bytes;
};

void native_string_free(char *text); /* NULL is fine */

/* ---- Rego ------------------------------------------------------------------------------------------------------- */

/*
 * A policy set: modules compiled together with a data document.
 *
 * Each module may be written in new (v1, `allow if {`) or old syntax (v0, `allow {`); which one is found per module.
 * In old modules that use `in`, `every`, `if` or `contains` without importing them, the import is added; all lines keep
 * their numbers.  Errors read `name:line:column: message`, as far as the interpreter knows the place.
 * What a policy prints is dropped; it cannot reach files, network or environment.
 */
struct native_rego;

struct native_rego_module {
    struct native_text name; /* for errors: usually the file's name */
    struct native_text text;
};

/* Compiles all or nothing: an error leaves any earlier set as usable as before.  `data_json` may be empty. */
enum native_status native_rego_create(const struct native_rego_module *modules, size_t module_count,
                                      struct native_text data_json, struct native_rego **out,
                                      char **error);
void native_rego_destroy(struct native_rego *rego); /* NULL is fine */

/*
 * Evaluates `rule`, such as "data.nexus.agent.policy.allow", for an input document.  NATIVE_OK sets *out_json to the
 * rule's value.  `limit_ns` bounds the time; 0 is without limit.
 */
enum native_status native_rego_eval(const struct native_rego *rego, struct native_text rule,
                                    struct native_text input_json, uint64_t limit_ns,
                                    char **out_json, char **error);

/*
 * Which definitions of `rule` hold for the input, each evaluated alone: a JSON array of
 * {"module": name, "line": first line of the definition, "is_default": false}; the default's line when none holds.
 * `limit_ns` bounds each of them.  Costs an evaluation per definition.
 */
enum native_status native_rego_explain(const struct native_rego *rego, struct native_text rule,
                                       struct native_text input_json, uint64_t limit_ns,
                                       char **out_json, char **error);

/*
 * What the modules can read of the input:
 *   {"paths": [["user", "role"], ...],     all of it; a path covers everything below it, an empty one the whole input
 *    "values": [...],                      those of the paths that are read elsewhere than in the comparisons
 *    "comparisons": [{"path": ["n"], "operator": ">", "number": 1000}, ...],
 *    "has_with": false, "is_volatile": false}
 * A comparison has the path on its left, one of < <= == >= > != and a "number" (an integer of 64 bits), a "text" or an
 * "other" path; other comparisons are reads.  With: some expression is evaluated for another input than the caller's.
 * Volatile: some rule asks for time or randomness, so equal inputs may give different values.
 */
enum native_status native_rego_inputs(const struct native_rego *rego, char **out_json,
                                      char **error);

/* One module alone: its text with the imports it lacks, and the syntax it is written in. */
enum native_status native_rego_normalise(struct native_text name, struct native_text text,
                                         char **out_text, bool *out_is_v0, char **error);

/* ---- JSON Schema ------------------------------------------------------------------------------------------------ */

/*
 * A compiled schema: draft 2020-12 unless its "$schema" names an older one.  References resolve inside the schema only.
 * Patterns may step back a bounded number of times.
 */
struct native_schema;

enum native_status native_schema_create(struct native_text schema_json, struct native_schema **out,
                                        char **error);
void native_schema_destroy(struct native_schema *schema); /* NULL is fine */

/*
 * NATIVE_OK: the instance is valid.  NATIVE_INVALID: either *out_errors_json is a JSON array of at most `error_max`
 * {"instance_path": JSON pointer, "keyword": ..., "message": ...}, or, when the instance is not JSON at all,
 * *out_errors_json stays untouched and *error is set.  Messages never quote the instance: it may hold secrets.
 */
enum native_status native_schema_validate(const struct native_schema *schema,
                                          struct native_text instance_json, size_t error_max,
                                          char **out_errors_json, char **error);

/* ---- Patterns ---------------------------------------------------------------------------------------------------- */

/*
 * A compiled regular expression in RE2's syntax; docs/workflows.md says what of it there is.  A search goes through the text
 * once: it takes time in proportion to (bytes of the text) x (parts of the pattern) at worst, whatever both are.
 */
struct native_pattern;
struct native_pattern_limits {
    uint32_t depth; /* groups, sets, repetitions, lists and choices inside each other */
    size_t parts;   /* characters, sets and places once repetitions are written out */
    size_t bytes;   /* of each automaton; a search takes some times as much */
};
struct native_pattern_size {
    size_t parts;
    size_t bytes; /* of all of it; building took time in proportion */
};

/* NATIVE_INVALID: the error reads "at its character N: what is wrong", counted from 1. */
enum native_status native_pattern_create(struct native_text source,
                                         const struct native_pattern_limits *limits,
                                         struct native_pattern **out,
                                         struct native_pattern_size *size, char **error);
void native_pattern_destroy(struct native_pattern *pattern); /* NULL is fine */

/* Is there a match anywhere in the text? */
enum native_status native_pattern_matches(const struct native_pattern *pattern,
                                          struct native_text text, bool *out, char **error);

/* ---- Sandbox ---------------------------------------------------------------------------------------------------- */

/*
 * Limits of a wasmtime store for one instance with one memory and one table.  Growing past a limit ends the call with an
 * error that begins with "forcing trap when growing memory" (or "table"), at instantiation too.
 * wasmtime_store_limiter() must have been called on the store before.
 */
struct wasmtime_context;
void native_store_limits(struct wasmtime_context *context, size_t memory_bytes,
                         size_t table_elements);

/*
 * The same for a component, whose memories nobody outside can ask: a growth that is refused is an answer to the guest, and
 * the limiter remembers the most that all memories of the store held together.  In place of wasmtime_store_limiter().
 * One per store; destroyed after the store, at a time when no call runs.
 */
struct wasmtime_store;
struct native_limits {
    size_t memory_bytes;   /* of each memory */
    size_t table_elements; /* of each table */
    size_t instances, tables, memories;
};
struct native_limiter;
struct native_limiter *native_limiter_create(struct wasmtime_store *store,
                                             const struct native_limits *limits);
size_t native_limiter_peak(const struct native_limiter *limiter);
void native_limiter_destroy(struct native_limiter *limiter);

/* Resets an instance's memory page by page, only those that were written, where the kernel can tell which (Linux 6.7,
   ioctl PAGEMAP_SCAN on /proc/self/pagemap); elsewhere nothing changes. */
struct wasmtime_pooling_allocation_config_t;
void native_pool_scan_pages(struct wasmtime_pooling_allocation_config_t *pool);

/* How many frames a backtrace keeps, the innermost first (of traps and of native_backtrace; 20 unless told). */
struct wasm_config_t;
void native_config_backtrace_frames(struct wasm_config_t *config, size_t frame_max);

/* One frame of a running guest. */
struct native_frame {
    uint32_t function_index; /* in its module */
    char name[60];           /* from the module's name section, printable ASCII, cut; empty: none */
};

/* Where the guest is whose epoch callback runs on this thread: fills `frames`, the innermost first; how many. */
size_t native_backtrace(struct wasmtime_context *context, struct native_frame *frames,
                        size_t frame_max);

/*
 * Runs a module's start-up now and gives the module that begins where it ended: _initialize when there is one, then the
 * export `init` (no parameters, no results).  Both exports are gone from the result; memory and globals are as they
 * were left.  While it runs, clocks say 0 and randomness is zeros; any other import ends it (NATIVE_INVALID), as do
 * table changes.  The same module gives the same bytes.
 */
enum native_status native_snapshot(struct native_text wasm, struct native_text init, uint8_t **out,
                                   size_t *out_bytes, char **error);
void native_snapshot_free(uint8_t *bytes, size_t count); /* NULL is fine */

#endif
