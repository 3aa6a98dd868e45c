/*
 * The variable `session`: what was said in the session before the instance's own message.
 *
 *      rows of the session, the newest first, before the question  -->  [{role, content}], the oldest first
 *
 * People's words and answers; calls of tools and their results stand in answers' rows and are left out, and so are summaries and what was
 * withdrawn.  The newest that fit, and no turn is begun in its middle: what is first is what a person said.
 * Rows of a session are not changed, and its runs follow each other, so each load and each replay sees the same; retention leaves a session
 * alone while a run is live in it.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/workflow_internal.h"

enum { SESSION_ROWS_MAX = 2 * WORKFLOW_SESSION_MESSAGES_MAX }; /* some are left out */

struct turns {
    struct run *run;
    struct record *rows; /* the newest first */
    size_t count;        /* those that are told */
    struct label label;
};

static bool is_told(struct run *run, const struct record *row)
{
    str role = record_text(row, MESSAGES_ROLE);
    return (str_equal(role, S("user")) || str_equal(role, S("assistant"))) &&
           !str_is_empty(record_text(row, MESSAGES_CONTENT)) && !run_prompt_leaves_out(run, row);
}

static void keep_told(struct turns *t, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count && t->count < WORKFLOW_SESSION_MESSAGES_MAX; i++) {
        if (!is_told(t->run, &t->rows[i]))
            continue;
        bytes += record_text(&t->rows[i], MESSAGES_CONTENT).len;
        if (bytes > WORKFLOW_SESSION_BYTES_MAX)
            break;
        t->rows[t->count++] = t->rows[i];
    }
    while (t->count > 0 &&
           !str_equal(record_text(&t->rows[t->count - 1], MESSAGES_ROLE), S("user")))
        t->count--;
}

/* As its row says; of an answer that says nothing nobody knows what it has seen. */
static struct label label_of(struct run *run, const struct record *row)
{
    const struct json *metadata = NULL;
    bool is_user = str_equal(record_text(row, MESSAGES_ROLE), S("user"));
    if (record_has(row, MESSAGES_METADATA) &&
        json_parse(run->turn, record_text(row, MESSAGES_METADATA), (struct json_limits){0},
                   &metadata, NULL) &&
        json_get(metadata, S("label")))
        return label_read_json(json_get(metadata, S("label")));
    return is_user ? (struct label){.origins = LABEL_USER} : label_unknown(LABEL_AGENT);
}

static str turns_text(struct turns *t)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, t->run->turn, WORKFLOW_OUTPUT_BYTES_MAX * 2);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("id"), uuid_str(t->run->turn, t->run->session_id));
    json_key(&w, S("messages"));
    json_array_begin(&w);
    for (size_t i = t->count; i > 0; i--) {
        const struct record *row = &t->rows[i - 1];
        json_object_begin(&w);
        json_put_str(&w, S("role"), record_text(row, MESSAGES_ROLE));
        json_put_str(&w, S("content"), record_text(row, MESSAGES_CONTENT));
        json_object_end(&w);
        t->label = label_join(t->label, label_of(t->run, row));
    }
    json_array_end(&w);
    json_object_end(&w);
    return strbuf_str(&text);
}

bool workflow_session_load(struct workflow_instance *w, struct error *e)
{
    struct run *run = w->run;
    struct turns t = {.run = run, .rows = ARENA_ARRAY(run->turn, struct record, SESSION_ROWS_MAX)};
    struct session_span span = {.before = run->state.question_id, .max = SESSION_ROWS_MAX};
    size_t count;
    if (!run_session_rows(run, &span, t.rows, &count, e))
        return error_wrap(e, "earlier turns of the session");
    keep_told(&t, count);
    if (!workflow_keep(w, turns_text(&t), &w->session, e))
        return error_wrap(e, "earlier turns of the session");
    w->session_label = t.label;
    return true;
}
