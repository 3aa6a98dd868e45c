/*
 * Inside of the offline stand-in: a question in words, a table by its columns, and what to do next.
 *
 * Everything is decided from the prompt alone, so the same prompt gives the same turn and a resumed
 * run goes on where it was:
 * "was this call made, and what did it give?" is looked up among the prompt's own tool calls
 * (offline_find_result).
 */
#ifndef NEXUS_LLM_OFFLINE_INTERNAL_H
#define NEXUS_LLM_OFFLINE_INTERNAL_H

#include "llm/prompt.h"
#include "llm/provider.h"

enum {
    OFFLINE_WORDS_MAX = 400, /* of a question; the rest is not looked at */
    OFFLINE_COLUMNS_MAX = 200,
    OFFLINE_VALUES_MAX = 200, /* distinct values of a category that are looked up */
    OFFLINE_LOOKUPS_MAX = 3,  /* columns whose values are looked up for one question */
    OFFLINE_CALLS_MAX = 64,   /* tool calls of one turn */
    OFFLINE_ROWS_SHOWN = 12,
};

#define OFFLINE_PREFIX "Offline stand-in (no model): "

/* ---- one turn of the stand-in ---- */
struct offline_turn {
    struct arena *arena;
    const struct prompt *prompt;
    struct strbuf text;                   /* without the prefix */
    struct part calls[OFFLINE_CALLS_MAX]; /* TOOL_CALL parts */
    size_t call_count;
    int64_t sleep_ms;
    bool has_error;
    struct error error;
    bool is_plain; /* the text is said as it is, for measured lengths */
};
void offline_decide(struct offline_turn *turn);
/* Plays the script of the last user message.  False when it has none. */
bool offline_play_script(struct offline_turn *turn);

void offline_say(struct offline_turn *turn, const char *format, ...) format_like(2, 3);
void offline_call(struct offline_turn *turn, str tool, str arguments);
bool offline_has_tool(const struct offline_turn *turn, str tool);
const struct tool_spec *offline_tool(const struct offline_turn *turn, str tool);
/* The result of a call of this tool with equal arguments, made at or after message `since`; NULL
 * when there is none. */
const struct part *offline_find_result(const struct offline_turn *turn, str tool, str arguments,
                                       size_t since);
size_t offline_last_user(const struct prompt *prompt); /* index; message_count when there is none */

/* ---- words ---- */
struct word {
    str text; /* lower case */
    str stem;
    double number;
    bool is_number;
    bool is_used; /* its meaning is known: column, operation, value */
};
struct words {
    struct word *items;
    size_t count;
};
struct words offline_words(struct arena *arena, str text);
/* 0: no; 3: the same stem; 2: one begins with the other, or they are synonyms. */
int offline_word_match(const struct word *a, const struct word *b);
bool offline_is_one_of(str text, const char *const *list); /* NULL-terminated */
bool offline_is_stop_word(str text);

/* ---- tables ---- */
struct column {
    str name;
    bool is_number, is_date, is_category;
    int64_t count, distinct; /* distinct -1: too many to count */
    str min, max;
    struct words words;
};
struct table {
    str file;
    struct column *columns;
    size_t count;
};
/* The analysis of a session's file.  False when the question is none for a table. */
bool offline_analyse(struct offline_turn *turn, str question, size_t since);

/* Reads {columns, rows} of data_analysis, whether bare or under "output". */
struct analysis_result {
    const struct json *columns, *rows;
    int64_t row_count;
};
bool offline_read_result(struct arena *arena, const struct part *part, struct analysis_result *out);
bool offline_read_table(struct arena *arena, str file, const struct part *describe,
                        struct table *out);

/* ---- an analysis ---- */
enum analysis_operation {
    OPERATION_COUNT,
    OPERATION_SUM,
    OPERATION_MEAN,
    OPERATION_MEDIAN,
    OPERATION_STDDEV,
    OPERATION_MIN,
    OPERATION_MAX,
    OPERATION_COUNT_DISTINCT
};
struct analysis_filter {
    const struct column *column;
    const char *operation; /* of data_analysis: "eq", "gt", ... */
    str values[8];         /* JSON texts */
    size_t value_count;
    bool is_year; /* on the year of a date column */
};
struct analysis {
    const struct table *table;
    enum analysis_operation operation;
    const struct column *measure; /* NULL: rows */
    const struct column *group;   /* NULL: none */
    const char *period;           /* derive operation on group: "year", "month", ...; NULL: none */
    int direction;                /* 1 highest first, -1 lowest first, 0 not asked */
    int64_t limit;                /* 0: none */
    bool is_overview;             /* the question named nothing */
    bool is_rows;                 /* rows with the highest or lowest measure, not groups */
    struct analysis_filter filters[6];
    size_t filter_count;
};
/* Understands the question as far as column names go; marks the words it used. */
void offline_plan(const struct table *table, struct words *words, struct analysis *out);
/* Adds "eq" filters for words that are values of a category. */
void offline_plan_value(struct analysis *analysis, const struct column *column,
                        const struct analysis_result *values, struct words *words,
                        struct arena *arena);
str offline_arguments(struct arena *arena, const struct analysis *analysis);
void offline_tell_result(struct offline_turn *turn, const struct analysis *analysis,
                         const struct part *part);

/* ---- vectors (offline_embed.c) ---- */
/* Hashed words and letter triples, of length 1: near in spelling, not in meaning.  1536 numbers unless asked otherwise. */
may_suspend bool offline_embed(struct provider *provider, struct context *ctx,
                               const struct provider_call *how, const struct embed_request *request,
                               struct embed_reply *reply, struct error *e);

#endif
