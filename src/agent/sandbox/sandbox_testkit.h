/*
 * Help for tests of the sandbox: guests compiled with clang, tools around them, one executor per
 * test program.
 */
#ifndef NEXUS_AGENT_SANDBOX_TESTKIT_H
#define NEXUS_AGENT_SANDBOX_TESTKIT_H

#include "agent/executor.h"
#include "runtime/loop.h"

/* A folder of this test program, removed by agent_testkit_remove(). */
const char *agent_testkit_dir(void);
void agent_testkit_remove(void);
str agent_testkit_write_file(const char *name, str content); /* gives its path */
str agent_testkit_read_file(str path); /* on the heap, for the life of the program */

/* A C file with clang for wasm32-wasi and these flags; false when there is no such compiler (then
   skip). */
bool agent_testkit_compile(const char *source, const char *flags, str *module_path);

/* A tool that takes and gives any object, with generous limits. */
struct tool agent_testkit_tool(const char *name, enum tool_abi abi, str module_path);

/* Ends the program with a message when it was built with ThreadSanitizer: the Rust library is not
   instrumented, so its own synchronisation shows up as races. */
void agent_testkit_skip_under_tsan(void);

/* cmocka takes the fault signals for itself before each test, but the sandbox turns faults of
   guests into traps.  Remember them after sandbox_create; agent_testkit_execute puts them back. */
void agent_testkit_keep_fault_handlers(void);

/* ---- a call from a coroutine on a loop of its own, to its end ---- */
struct agent_testkit_call {
    struct executor *executor;
    const struct tool *tool;
    str input;
    const struct tool_files *files;
    str *file_names;
    size_t file_name_count;
    const struct tool_notebook *notebook; /* NULL: none */
    int64_t deadline_ms;                  /* 0: 60 s */
    int64_t cancel_ms;                    /* 0: never; else ctx is cancelled then */
    bool is_ok;
    struct tool_result result; /* texts on the heap */
    struct error error;
    int64_t took_ms;
};
void agent_testkit_execute(struct agent_testkit_call *call);

#endif
