/*
 * Cases: what a tool's author expects of it, from tests.yaml.
 *
 *      tests:
 *        - name: counts words
 *          input: {text: "to be"}
 *          output: {words: 2}                 exactly this; or contains: {...}: at least these members
 *          error: {reason: fuel_limit, message: "part of it"}      in place of output; each member may be left out
 *          log: "part of it"                  what the tool wrote for the operator
 *          files: {data.csv: "a,b\n"}         of the session
 *          host:                              what the host answers, in order
 *            - {call: http_request, request: {url: ...}, answer: {...}}
 *            - {call: http_request, error: {code: unavailable, message: "..."}}
 *
 * Without output, contains and error a test only asks that the call succeeds.  Reading is pure and bounded.  Thread: any.
 */
#ifndef NEXUS_CLI_TOOL_CASES_H
#define NEXUS_CLI_TOOL_CASES_H

#include "base/yaml.h"

struct tool_case_call {
    str name;
    const struct json *request; /* members that must be so; NULL: anything */
    const struct json *answer;  /* NULL: it fails */
    enum error_reason reason;   /* then */
    str message;
};
struct tool_case_file {
    str name, text;
};
struct tool_case {
    str name, input;
    const struct json *output, *contains; /* NULL: not asked */
    bool is_failure;                      /* it must fail */
    str reason, message, log;             /* empty: not asked */
    struct tool_case_call *calls;
    size_t call_count;
    struct tool_case_file *files;
    size_t file_count;
};
struct tool_cases {
    struct tool_case *items;
    size_t count;
};

/* REASON_CONFIG: "file:line: what; remedy".  `file` is only a name for messages. */
must_check bool tool_cases_read(struct arena *arena, str file, str text, struct tool_cases *out,
                                struct error *e);

/* Where `found` is not `wanted`, as lines "/path: expected 3, got 4", at most TOOL_TEST_DIFFERENCES_MAX.  Numbers count by value.
   `is_part`: objects may have more members. */
size_t json_differences(struct arena *arena, const struct json *wanted, const struct json *found,
                        bool is_part, str *lines);

#endif
