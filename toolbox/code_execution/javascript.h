/*
 * JavaScript: runs one script to its end and collects what it leaves behind.
 *
 * The script is global, sloppy code with top-level await; there are no modules and no way out.  It sees
 *     input                        the value given in the call (undefined when none)
 *     files                        an object {name: text}; what is added or changed comes back
 *     console.log info debug       go to stdout; warn error go to stderr
 *     setTimeout setInterval clearTimeout clearInterval
 *                                  timers fire in order of their due time, without really waiting
 *     nexus.call(name, arguments)  calls another tool and gives its output; throws an Error with `code` when it fails
 * and gives back the value of a variable `result`, whether let, const, var or a property of globalThis.
 *
 * script_prepare() makes the engine; the shipped module is a snapshot taken behind it, so that a call begins there.
 * Nothing of a call is kept: each has its own copy of the snapshot's memory.
 *
 * Running: evaluate --> jobs until none is left --> next timer --> jobs ... --> done.
 */
#ifndef CODE_EXECUTION_JAVASCRIPT_H
#define CODE_EXECUTION_JAVASCRIPT_H

#include "nexus_tool.h"

enum {
    STDOUT_BYTES_MAX = 128 * 1024,
    STDERR_BYTES_MAX = 32 * 1024,
    FLOOD_BYTES =
        64 * 1024 * 1024, /* printed in vain: beyond this the call fails instead of being cut */
    RESULT_BYTES_MAX = 256 * 1024,
    FILES_BYTES_MAX = 256 * 1024,
    TIMERS_MAX = 1000,
    REJECTIONS_MAX = 16,
};

/* Output that stops growing at its maximum and says so. */
struct capture {
    char *bytes;
    size_t len, capacity, max;
    uint64_t dropped;
};

struct script {
    struct text code;
    yyjson_val *input; /* NULL: none */
    yyjson_val *files; /* NULL: none; else an object of strings */
};

struct script_outcome {
    struct capture out, err;
    yyjson_mut_val *result; /* NULL: no variable `result`, or undefined */
    yyjson_mut_val *files;  /* NULL: none was added or changed */
    int exit_code;          /* 0, or 1 after an uncaught exception */
};

/* Once, and before anything else; script_run() does it when nobody has. */
void script_prepare(void);

/* Values of the outcome belong to `doc`. */
void script_run(const struct script *script, yyjson_mut_doc *doc, struct script_outcome *outcome);

void capture_add(struct capture *capture, const char *ptr, size_t len);

#endif
