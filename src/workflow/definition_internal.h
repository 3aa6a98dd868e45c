/*
 * Inside of definitions: definition.c reads the document and its head, definition_step.c the steps, definition_read.c has the readers of
 * single members, definition_schema.c that of schemas.  A reader never stops at a problem: it notes it, takes a harmless value instead and
 * goes on, so that all are found.
 */
#ifndef NEXUS_WORKFLOW_DEFINITION_INTERNAL_H
#define NEXUS_WORKFLOW_DEFINITION_INTERNAL_H

#include "base/limits.h"
#include "base/yaml.h"
#include "workflow/definition.h"

/* What an expression may read at some place; the frames of the lists around it follow by `outer`. */
struct place {
    const struct place *outer;
    const str *ids; /* steps of this list that stand before */
    size_t id_count;
    str item;         /* map: the name of its item; empty: no map */
    bool is_loop;     /* loop.* */
    bool has_error;   /* error.*: in a compensation */
    bool has_output;  /* output: in what a step expects */
    const str *later; /* steps of the list that stand after, to say so */
    size_t later_count;
};

struct definition_reader {
    struct arena *arena; /* the definition's */
    struct arena *problems_arena;
    struct definition_problems *problems;
    struct yaml_document document;
    struct strbuf path;
    const struct place *place;
    size_t step_count, depth;
};

/* One object of the document, its path entered. */
struct member_names {
    const char *const *names;
    size_t count;
};
#define MEMBERS(...)                                                                               \
    ((struct member_names){(const char *const[]){__VA_ARGS__},                                     \
                           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)})

/* Notes a problem at the current path, on the line of `value`. */
void definition_problem(struct definition_reader *r, const struct json *value, const char *format,
                        ...) format_like(3, 4);
size_t path_enter(struct definition_reader *r, str name); /* gives what path_leave takes */
size_t path_enter_index(struct definition_reader *r, size_t index);
void path_leave(struct definition_reader *r, size_t mark);
/* Is it an object, and has it only these members? */
bool read_object(struct definition_reader *r, const struct json *value, struct member_names names);
/* The member, when it is there and not null. */
const struct json *member_of(const struct json *object, const char *name);

/* Each reads member `name` of `object`; one that is absent leaves *out alone. */
void read_text(struct definition_reader *r, const struct json *object, const char *name, str *out);
void need_text(struct definition_reader *r, const struct json *object, const char *name, str *out);
/* A name as of workflows, tools, agents, signals. */
void need_name(struct definition_reader *r, const struct json *object, const char *name, str *out);
void read_count(struct definition_reader *r, const struct json *object, const char *name,
                int64_t min, int64_t max, int64_t *out);
void read_number(struct definition_reader *r, const struct json *object, const char *name,
                 double min, double max, double *out);
void read_duration(struct definition_reader *r, const struct json *object, const char *name,
                   int64_t min_ms, int64_t *out_ms);
void read_budget(struct definition_reader *r, const struct json *object, const char *name,
                 cost *out);
void read_json_text(struct definition_reader *r, const struct json *object, const char *name,
                    str *out); /* an object, kept as JSON text */
/* The same, and a JSON Schema: it is compiled, on the thread's own stack; patterns in it may take seconds. */
void read_schema(struct definition_reader *r, const struct json *object, const char *name,
                 str *out);
/* "is missing; add ..." at the place where the member should be. */
void member_missing(struct definition_reader *r, const struct json *object, const char *name);
void read_template(struct definition_reader *r, const struct json *object, const char *name,
                   const struct template **out);
/* With or without ${}. */
void read_expression(struct definition_reader *r, const struct json *object, const char *name,
                     const struct expression **out);
void parse_expression_at(struct definition_reader *r, const struct json *value, str text,
                         const struct expression **out);
bool is_identifier(str text);
bool is_name(str text);
bool duration_at(struct definition_reader *r, const struct json *value, str text, int64_t min_ms,
                 int64_t *out_ms);
void read_retry(struct definition_reader *r, const struct json *step, struct retry *out);

/* What is read with the whole list in sight: `output`, and a loop's `while` (which sees the round before).  NULL: it has none. */
struct inner {
    const struct template **output;
    const struct expression **while_;
};
/* Reads a list of steps inside `place` (whose ids are filled as it goes). */
struct step_list read_steps(struct definition_reader *r, const struct json *object,
                            const char *name, struct place place, struct inner inner);

#endif
