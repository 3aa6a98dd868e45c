/*
 * One text on its way through a filter: plain, or JSON whose strings are filtered.
 */
#ifndef NEXUS_LLM_GUARD_INTERNAL_H
#define NEXUS_LLM_GUARD_INTERNAL_H

#include "base/limits.h"
#include "llm/guard.h"

/* Counts, tells on, and keeps what blocks. */
struct guard_watch {
    const struct guard_rules *rules;
    enum guard_direction direction;
    struct guard_sink sink; /* found may be NULL */
    struct filter_finding blocked;
};
void guard_watch_init(struct guard_watch *watch, const struct guard_rules *rules,
                      enum guard_direction direction, const struct guard_sink *sink);
/* CONTENT_BLOCKED by the finding that it keeps.  Returns false. */
bool guard_watch_error(const struct guard_watch *watch, struct error *e);

enum channel_state {
    CHANNEL_OUTSIDE, /* of JSON: between strings */
    CHANNEL_BARE,    /* a number, true, false, null: kept until it ends */
    CHANNEL_STRING,
    CHANNEL_ESCAPE,  /* after a backslash */
    CHANNEL_UNICODE, /* within \uXXXX */
    CHANNEL_LONG,    /* a number that is too long to keep: becomes a string */
    CHANNEL_RAW,     /* no JSON: plain from here on */
};
struct guard_channel {
    struct filter_stream *stream;
    enum channel_state state;
    bool is_json;
    uint8_t bare_count, digit_count;
    uint16_t unit, high_surrogate; /* of \u escapes; 0: none */
    char bare[GUARD_NUMBER_BYTES_MAX];
};
void guard_channel_init(struct guard_channel *channel, const struct filter_set *set, bool is_json);
void guard_channel_deinit(struct guard_channel *channel);
/* Appends to out, whose maximum must be no limit.  False: blocked. */
must_check bool guard_channel_feed(struct guard_channel *channel, struct guard_watch *watch,
                                   str piece, struct strbuf *out);
/* The rest; afterwards it is as new. */
must_check bool guard_channel_end(struct guard_channel *channel, struct guard_watch *watch,
                                  struct strbuf *out);
bool guard_channel_holds(const struct guard_channel *channel);

/* Printing a tree with some strings replaced. */
struct guard_replacement {
    const struct json *value;
    str text;
};
/* Sorts them.  TOO_LARGE for a tree that is nested too deep. */
must_check bool guard_print(struct json_writer *w, const struct json *tree,
                            struct guard_replacement *replacements, size_t count, bool is_reply,
                            struct error *e);

#endif
