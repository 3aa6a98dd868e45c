/*
 * Prompt and reply: one model call in a form that no provider owns.  Pure data; adapters and
 * dialects translate.
 *
 * Everything is borrowed or lives on the caller's arena.  What this form has no member for travels
 * in `extra`, a JSON object in the words of Chat Completions whatever dialect it came from (top_p,
 * stop, reasoning_effort, service_tier); what only one other API knows is an object under that
 * API's name (extra.anthropic), which the others leave out.
 *
 * An opaque is a JSON string (a member's name, a detail) or a JSON object (a signature, a whole
 * block).  In a stream of deltas an object ends its part: the next piece begins another one.
 */
#ifndef NEXUS_LLM_PROMPT_H
#define NEXUS_LLM_PROMPT_H

#include "base/json.h"

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };
const char *role_name(enum role role);
bool role_parse(str text, enum role *out); /* "developer" is system */

enum part_kind { PART_TEXT, PART_IMAGE, PART_TOOL_CALL, PART_TOOL_RESULT, PART_REASONING };
struct part {
    enum part_kind kind;
    str text; /* TEXT, REASONING, TOOL_RESULT: content; IMAGE: URL or data: URL */
    str call_id; /* TOOL_CALL, TOOL_RESULT; IMAGE: of the call whose result it stands in, mostly empty */
    str name;      /* TOOL_CALL, TOOL_RESULT: tool */
    str arguments; /* TOOL_CALL: JSON text as the model wrote it (may be invalid) */
    bool is_error; /* TOOL_RESULT */
    str opaque; /* provider's own JSON that must come back unchanged (signatures, detail, the member it came in) */
};
struct prompt_message {
    enum role role;
    struct part *parts;
    size_t part_count;
    str name; /* of the participant, as the caller said; mostly empty */
};
struct tool_spec {
    str name; /* as the model sees it: [A-Za-z0-9_-]{1,64} */
    str description;
    str parameters; /* JSON Schema text */
    bool is_strict; /* the provider must hold the model to the schema */
    str opaque;     /* provider's own JSON object: members that this form has no place for */
};
struct prompt {
    str model; /* the provider's name of it */
    struct prompt_message *messages;
    size_t message_count;
    struct tool_spec *tools;
    size_t tool_count;
    str tool_choice;           /* "auto", "none", "required", a tool's name, or empty */
    int parallel_tool_calls;   /* -1: not said */
    int64_t max_output_tokens; /* > 0: always sent; the reservation relies on it */
    double temperature;        /* < 0: not said */
    str response_format;       /* JSON text or empty */
    const struct json *extra;  /* may be NULL */
    str user;                  /* opaque end-user id or empty */
};

struct usage {
    int64_t input_tokens;  /* cached ones included */
    int64_t output_tokens; /* reasoning included */
    int64_t cached_tokens; /* read from the provider's cache */
    int64_t cache_write_tokens;
    int64_t reasoning_tokens;
    bool
        is_reported; /* by the provider; else all are zero and the caller settles by its estimate */
};
enum finish {
    FINISH_NONE,
    FINISH_STOP,
    FINISH_LENGTH,
    FINISH_TOOL_CALLS,
    FINISH_CONTENT_FILTER,
    FINISH_OTHER
};
const char *finish_name(
    enum finish finish); /* "stop", "length", "tool_calls", "content_filter", "other" */

struct reply {
    str id, model; /* as the provider said */
    struct part *parts;
    size_t part_count;
    enum finish finish;
    struct usage usage;
};

enum delta_kind { DELTA_TEXT, DELTA_REASONING, DELTA_TOOL_CALL, DELTA_TOOL_ARGUMENTS, DELTA_END };
struct delta {
    enum delta_kind kind;
    str text;          /* TEXT, REASONING, TOOL_ARGUMENTS: the piece */
    int index;         /* TOOL_*: which call */
    str call_id, name; /* TOOL_CALL: begins call `index` */
    str opaque; /* TEXT, REASONING: belongs into the part that the pieces form; an object ends it */
    enum finish finish; /* END */
    struct usage usage; /* END */
    str id, model;      /* END */
};

/* Upper bound of the input's tokens: bytes of all text, schemas and names plus a constant per
 * message and call; images at their
   catalogue bound.  Never fewer than any known tokenizer counts.  Pure. */
int64_t prompt_input_tokens_bound(const struct prompt *prompt);
/* How many answers are asked for (`n` in extra): each may be max_output_tokens long. */
int64_t prompt_choice_count(const struct prompt *prompt);

/* [A-Za-z0-9_-], 1 to `max` bytes: what every provider takes as a tool's name. */
bool prompt_is_tool_name(str name, size_t max);
/* The name that the call with this id had: the nearest before messages[count], not before the user's last message; else empty. */
str prompt_call_name(const struct prompt_message *messages, size_t count, str call_id);

/* All text parts of a message, joined.  On the arena only when there are several. */
str prompt_message_text(struct arena *arena, const struct prompt_message *message);

#endif
