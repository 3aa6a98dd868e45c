/*
 * What the files of responses_format share.
 */
#ifndef NEXUS_LLM_RESPONSES_FORMAT_INTERNAL_H
#define NEXUS_LLM_RESPONSES_FORMAT_INTERNAL_H

#include "llm/openai_format_internal.h"
#include "llm/responses_format.h"

/* ---- in: responses_format_read.c, responses_format_items.c ---- */
bool responses_read(struct arena *arena, const struct json *body, struct dialect_request *out,
                    struct error *e);
bool responses_to_prompt(struct arena *arena, const struct json *body, struct prompt *out,
                         struct error *e);
/* instructions and input -> messages */
must_check bool responses_read_messages(struct arena *arena, const struct json *body,
                                        struct prompt *out, struct error *e);
/* Clients send null for what they leave at its default. */
bool responses_is_given(const struct json *object, str key);
/* A reasoning item -> its part. */
struct part responses_read_reasoning(struct arena *arena, const struct json *item);

/* ---- answers: responses_format_answer.c ---- */
enum responses_status {
    RESPONSES_IN_PROGRESS,
    RESPONSES_COMPLETED,
    RESPONSES_INCOMPLETE,
    RESPONSES_FAILED
};
struct responses_head {
    const struct dialect_answer *answer;
    enum responses_status status;
    enum finish finish;
    const struct usage *usage;   /* NULL: not known yet */
    const struct error *failure; /* FAILED */
};
enum responses_item_kind {
    RESPONSES_ITEM_MESSAGE,   /* text */
    RESPONSES_ITEM_REFUSAL,   /* a message that refuses */
    RESPONSES_ITEM_REASONING, /* text and opaque */
    RESPONSES_ITEM_CALL,      /* text: arguments */
    RESPONSES_ITEM_RAW        /* opaque: the item itself */
};
struct responses_item {
    enum responses_item_kind kind;
    str id, text, opaque, call_id, name;
};
/* Everything of a Response but `output`, which comes last and is the caller's: an open object. */
void responses_write_head(struct json_writer *w, const struct responses_head *head);
void responses_write_item(struct json_writer *w, const struct responses_item *item, str status);
/* {"type": "output_text" ...}, a refusal or a reasoning_text */
void responses_write_content(struct json_writer *w, enum responses_item_kind kind, str text);
enum responses_item_kind responses_kind_of_text(str opaque);
str responses_item_id(struct arena *arena, enum responses_item_kind kind, str answer_id,
                      size_t index);
bool responses_item_of_opaque(str opaque, str *item_json);
enum responses_status responses_status_of(enum finish finish);
void responses_write_reply(struct json_writer *w, const struct dialect_answer *answer,
                           const struct reply *reply);
void responses_write_error(struct json_writer *w, const struct error *e, str request_id);
/* The words of response.error and of error events. */
str responses_error_code(const struct error *e);

/* ---- a streamed answer: responses_format_stream.c ---- */
enum { RESPONSES_WRITER_BYTES = 64 };
void responses_writer_open(void *writer, const struct dialect_answer *answer);
void responses_writer_delta(void *writer, const struct delta *delta, struct strbuf *out);
void responses_writer_error(void *writer, const struct error *e, struct strbuf *out);
void responses_writer_close(void *writer);
void responses_write_stream_error(const struct error *e, struct strbuf *out);

/* ---- out: responses_format_write.c, responses_format_reply.c ---- */
void responses_write_request(struct json_writer *w, const struct prompt *prompt, bool is_stream);
bool responses_read_reply(struct arena *arena, const struct json *body, struct reply *out,
                          struct error *e);
struct usage responses_read_usage(const struct json *usage);
/* Of a Response: its status, incomplete_details and output. */
enum finish responses_read_finish(const struct json *response);
/* response.failed, an error event, or a Response that failed. */
bool responses_read_failure(const struct json *document, struct arena *arena, struct error *e);

/* ---- pass-through and filter: responses_format_look.c ---- */
bool responses_edit_request(struct arena *arena, str body, const struct dialect_edits *edits,
                            str *out, struct error *e);
bool responses_glance(struct glance_state *state, struct arena *scratch, str event, str data,
                      enum glance_kind *kind, struct error *e);
size_t responses_texts(enum dialect_document what, const struct json *tree,
                       struct dialect_text *out, size_t max);

#endif
