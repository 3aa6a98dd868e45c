/*
 * Dialect: one wire format of model calls, both directions, as pure text transformations (no I/O).
 *
 *      client --> read, to_prompt --------------------> provider of another dialect
 *      client <-- write_reply, writer_* (deltas) <----- its reply
 *      client <=> edit_request, glance ===============> provider of the same dialect: the bytes themselves
 *
 * The gateway answers in every dialect through this table alone, for plain models and for agents; an adapter uses the same files for
 * the way out, so the two cannot drift apart.  What a prompt has no member for stays in prompt.extra and goes on when the dialects
 * are equal.  Implementations: openai_chat_dialect (openai_format_*.c), openai_responses_dialect (responses_format_*.c),
 * anthropic_messages_dialect (anthropic_format_*.c).  All pass dialect_contract.
 *
 * Texts point into the body or live on the given arena.  States are plain memory of the size the table names, zeroed by the caller.
 * Thread: any.  Suspends: never.
 */
#ifndef NEXUS_LLM_DIALECT_H
#define NEXUS_LLM_DIALECT_H

#include "llm/prompt.h"
#include "llm/provider.h"

/* What governance needs to know of a request; read without building a prompt. */
struct dialect_request {
    str model;
    bool is_stream;
    bool
        wants_usage; /* a streamed answer is to carry its usage (always true where the dialect always does) */
    int64_t max_output_tokens; /* 0: not said */
    int64_t choices;           /* answers asked for, at least 1 */
    int64_t
        input_tokens_bound; /* never below what any known tokenizer counts: bytes of all text plus constants */
    bool has_tools, has_images, wants_json; /* wants_json: structured output */
    str user;                               /* opaque end-user id or empty */
    str previous_id;                        /* Responses: previous_response_id, or empty */
    bool may_store;                         /* Responses: `store`, true when not said */
};

struct dialect_answer {
    str id; /* with the dialect's prefix ("chatcmpl-...", "resp_...", "msg_..."): dialect_answer_id makes it */
    str model;       /* as the caller asked for it */
    int64_t created; /* Unix seconds */
    bool wants_usage;
    int64_t input_tokens_bound; /* for dialects that tell input tokens first; 0: not known */
    const struct json *request; /* echoed by Responses; may be NULL */
};

/* What the pass-through of a request changes; every other byte stays. */
struct dialect_edits {
    str model;                 /* replaces "model" */
    int64_t max_output_tokens; /* > 0: the output limit is at most this; added when there is none */
    bool include_usage;        /* chat: stream_options.include_usage becomes true */
    bool is_new_limit_name;    /* chat: a limit that is added is max_completion_tokens */
};

/* What one event of a stream of this dialect is, told by a quick look. */
enum glance_kind {
    GLANCE_LIFECYCLE, /* nothing a user sees: held back until the first content, so that a failover stays invisible */
    GLANCE_CONTENT, /* text, reasoning, a tool call */
    GLANCE_FINISH,  /* the finish reason is told; usage may still come */
    GLANCE_USAGE,   /* carries nothing but usage: left out when the caller did not ask (chat) */
    GLANCE_END,     /* the last event */
    GLANCE_ERROR    /* an error object: *e is set to its class */
};
/* What was seen of a stream so far; begins zeroed. */
struct glance_state {
    struct usage usage; /* is_reported once the provider said it */
    enum finish finish;
    bool has_content, has_finish, has_ended;
    /* For an estimate when no usage comes (glance_count): events of content, the bytes of their text, the shortest of those. */
    int64_t event_count, content_bytes, content_bytes_least;
};
/* Tokens of output to book when no usage came: never below what any known tokenizer needs for the bytes seen. */
int64_t glance_output_estimate(const struct glance_state *state);

/* Notes one event of content with so many bytes of text. */
void glance_add(struct glance_state *state, size_t text_bytes);
/* The same for an event as it came: its text stands behind one of these members (names with quotes; the first that holds
   text counts). */
void glance_count(struct glance_state *state, str data, const str *quoted_members,
                  size_t member_count);

/* Which nodes of a document hold words of people or models: what the content filter looks at. */
enum dialect_document { DOCUMENT_REQUEST, DOCUMENT_REPLY, DOCUMENT_EVENT };
struct dialect_text {
    const struct json *value; /* a string */
    uint32_t channel; /* events: pieces of one channel form one text (choice, part, tool call) */
    bool is_json;     /* tool arguments: JSON inside the string */
    bool is_whole; /* events: the text is complete in this event, no piece of it comes in another */
};

struct dialect {
    enum dialect_id id;
    const char
        *name; /* "openai_chat", "openai_responses", "anthropic_messages": in metrics and usage */
    str path;  /* below a provider's base URL: "/chat/completions" */
    const char *answer_prefix;

    /* ---- in ---- */
    /* REASON_SCHEMA names the member and says what is right. */
    bool (*read)(struct arena *arena, const struct json *body, struct dialect_request *out,
                 struct error *e);
    bool (*to_prompt)(struct arena *arena, const struct json *body, struct prompt *out,
                      struct error *e);
    void (*write_reply)(struct json_writer *w, const struct dialect_answer *answer,
                        const struct reply *reply);
    /* The dialect's error body; request_id may be empty. */
    void (*write_error)(struct json_writer *w, const struct error *e, str request_id);

    /* ---- a streamed answer from deltas: whole SSE events are appended to `out` ---- */
    size_t writer_bytes;
    void (*writer_open)(void *writer,
                        const struct dialect_answer *answer); /* answer outlives the writer */
    /* The first call also writes what begins a stream; DELTA_END also what ends it ([DONE], message_stop, response.completed). */
    void (*writer_delta)(void *writer, const struct delta *delta, struct strbuf *out);
    void (*writer_error)(void *writer, const struct error *e,
                         struct strbuf *out); /* in band; the stream ends after it */
    /* NULL: nothing to do.  Frees what a writer holds beside its state (Responses repeats the whole answer at its end); once, before the
       state's memory goes, whether the stream ended or not. */
    void (*writer_close)(void *writer);
    void (*write_ping)(struct strbuf *out); /* keep-alive: a comment, or the dialect's own ping */

    /* ---- pass-through ---- */
    bool (*edit_request)(struct arena *arena, str body, const struct dialect_edits *edits, str *out,
                         struct error *e);
    /* A quick look without parsing where that is possible; `event` is the SSE event's name or empty.  False: *e is the class of the
       error the event carries, or PROVIDER_PROTOCOL. */
    bool (*glance)(struct glance_state *state, struct arena *scratch, str event, str data,
                   enum glance_kind *kind, struct error *e);
    /* What is put behind a finish reason when an upstream ends its stream without the last event; empty: that is a cut. */
    str stream_end;
    /* In band, onto a stream that began as pass-through. */
    void (*write_stream_error)(const struct error *e, struct strbuf *out);

    /* ---- out: what adapters use ---- */
    void (*write_request)(struct json_writer *w, const struct prompt *prompt, bool is_stream);
    bool (*read_reply)(struct arena *arena, const struct json *body, struct reply *out,
                       struct error *e);
    bool (*error_from_status)(int status, str body, int64_t retry_after_ms, struct arena *arena,
                              struct error *e);

    /* ---- filter: gives how many there are, which may be more than max ---- */
    size_t (*texts)(enum dialect_document what, const struct json *tree, struct dialect_text *out,
                    size_t max);
};

extern const struct dialect openai_chat_dialect, openai_responses_dialect,
    anthropic_messages_dialect;
const struct dialect *dialect_of(enum dialect_id id);

/* Help for the implementations: the tokens that a request's tree can cost at most but for what a dialect adds per message and tool.
   Bytes of all text, a constant per value, images at their bound. */
int64_t dialect_tree_tokens_bound(const struct json *tree, bool *has_images);
/* The same with what templates add for messages and tools. */
int64_t dialect_input_tokens_bound(const struct json *request, size_t message_count,
                                   size_t tool_count, bool *has_images);
/* "data: <json>\n\n", with "event: <name>\n" before it when the name is not empty; json_end after the value is written. */
void dialect_data_begin(struct strbuf *out, str event, struct json_writer *w);
void dialect_data_end(struct strbuf *out);
/* Does a chunk hold the member (its name with quotes: "\"usage\"") with something else than null?  Says true when it is not sure.
   A name inside a string is written with escapes and does not fit. */
bool dialect_may_hold(str data, str quoted_member);

/* Does it begin and end as a JSON object?  Garbage and what was cut off mostly do not: then it is worth a parse. */
static inline bool dialect_looks_whole(str data)
{
    return data.len >= 2 && data.ptr[0] == '{' && data.ptr[data.len - 1] == '}';
}

/* prefix + hex of a UUID, on the arena. */
str dialect_answer_id(const struct dialect *dialect, struct arena *arena, uuid id);

#endif
