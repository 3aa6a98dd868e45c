/*
 * Other agents as tools of a model.
 *
 *      agent_NAME    {message, context?}  a child run; its answer is the call's output; several in one answer run beside each other
 *      handoff_NAME  {message, context?}  a child run that is told the conversation; its answer is this run's answer
 *
 * Such a call is governed as any other: policy (category "agent", tool "agent:NAME"), labels, approval, one tool call of the budget,
 * one append with the other run's beginning.  That it ran is never in doubt: the other run exists once, whatever crashes, and the call
 * ends when it has.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/approval_internal.h"
#include "orchestrator/run/run_child.h"
#include "orchestrator/run_tools_internal.h"

static str id_text(struct run *run, uuid id)
{
    return uuid_str(run->turn, id);
}

/* ---- as tools ---- */

static const str parameters = S_INIT(
    "{\"type\":\"object\",\"properties\":{\"message\":{\"type\":\"string\",\"description\":\"what "
    "the other agent should do, in full sentences: it sees nothing else of this conversation\"},"
    "\"context\":{\"type\":\"string\",\"description\":\"facts and results that it needs for "
    "it\"}},\"required\":[\"message\"],\"additionalProperties\":false}");
static const str handoff_parameters = S_INIT(
    "{\"type\":\"object\",\"properties\":{\"message\":{\"type\":\"string\",\"description\":\"what "
    "is to be done; the other agent reads the conversation too\"},\"context\":{\"type\":\"string\","
    "\"description\":\"results that it needs and that are not said in the conversation\"}},"
    "\"required\":[\"message\"],\"additionalProperties\":false}");

static str description_of(const struct agent_link *link, const struct agent_definition *agent)
{
    return str_is_empty(link->description) ? agent->description : link->description;
}

struct tool_spec run_agents_spec(struct run *run, const struct agent_link *link)
{
    const struct agent_definition *agent = agent_set_find(run->settings->agents, link->name);
    return (struct tool_spec){
        .name = agent_link_tool(run->arena, link),
        .description = agent ? description_of(link, agent) : STR_NONE,
        .parameters = link->is_handoff ? handoff_parameters : parameters,
    };
}

/* What an approval of it binds. */
static digest digest_of(struct arena *arena, const struct agent_definition *agent)
{
    str text =
        str_printf(arena, STR_FMT "\n" STR_FMT "\n" STR_FMT "\n" STR_FMT, STR_ARG(agent->name),
                   STR_ARG(agent->version), STR_ARG(agent->model), STR_ARG(agent->instructions));
    if (!str_is_empty(agent->workflow))
        text = str_printf(arena, STR_FMT "\nworkflow:" STR_FMT, STR_ARG(text),
                          STR_ARG(agent->workflow));
    for (size_t i = 0; i < agent->tool_count; i++)
        text = str_printf(arena, STR_FMT "\n" STR_FMT, STR_ARG(text), STR_ARG(agent->tools[i]));
    return digest_sha256(text);
}

const struct tool *run_agents_find(struct run *run, str name)
{
    const struct agent_link *link = agent_find_link(run->agent, name);
    const struct agent_definition *agent =
        link ? agent_set_find(run->settings->agents, link->name) : NULL;
    if (!agent)
        return NULL;
    struct tool *tool = ARENA_NEW(run->turn, struct tool);
    *tool = (struct tool){
        .name = str_printf(run->turn, "agent:" STR_FMT, STR_ARG(agent->name)),
        .version = agent->version,
        .category = S("agent"),
        .description = description_of(link, agent),
        .input_schema = link->is_handoff ? handoff_parameters : parameters,
        .is_idempotent = true,
        .module_digest = digest_of(run->turn, agent),
    };
    tool->identity = tool_identity(tool);
    return tool;
}

/* ---- shares ---- */

static bool shares(const struct planned *p)
{
    const struct agent_link *link = agent_find_link(p->run->agent, p->call->name);
    return link && !link->is_handoff && cost_equal(link->budget, COST_LIMITLESS);
}

/* One that is called alone may take what it needs.  Of several each gets the same, and so does this run, which has to make something of
   their answers. */
void run_agents_share(struct tool_step *step)
{
    int64_t count = 0;
    step->agent_share = COST_LIMITLESS;
    for (size_t i = 0; i < step->count; i++)
        count += shares(step->items[i]);
    if (count < 2)
        return;
    step->agent_share = run_remaining(step->items[0]->run);
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t *field = cost_field(&step->agent_share, i);
        if (*field != COST_UNLIMITED)
            *field /= count + 1;
    }
}

/* ---- calling ---- */

struct call_of_agent {
    struct planned *p;
    const struct agent_link *link;
    struct child_request request;
};

/* The turns that were said: what tools were asked and gave is for whoever asked them. */
static void add_conversation(struct call_of_agent *c)
{
    struct run *run = c->p->run;
    struct prompt_message *messages =
        ARENA_ARRAY(run->turn, struct prompt_message, run->message_count);
    struct label *labels = ARENA_ARRAY(run->turn, struct label, run->message_count);
    size_t count = 0;
    for (size_t i = run->has_instructions ? 1 : 0; i < run->message_count; i++) {
        const struct prompt_message *message = &run->messages[i];
        str text = prompt_message_text(run->turn, message);
        if (str_is_empty(text) || (message->role != ROLE_USER && message->role != ROLE_ASSISTANT))
            continue;
        struct part *part = ARENA_NEW(run->turn, struct part);
        *part = (struct part){.kind = PART_TEXT, .text = text};
        messages[count] =
            (struct prompt_message){.role = message->role, .parts = part, .part_count = 1};
        labels[count++] = run->items[i].label;
    }
    c->request.history = messages;
    c->request.history_labels = labels;
    c->request.history_count = count;
}

static bool read_arguments(struct call_of_agent *c, struct error *e)
{
    struct run *run = c->p->run;
    const struct json *json;
    str message = STR_NONE;
    if (!json_parse(run->turn, c->p->arguments, (struct json_limits){0}, &json, e) ||
        !json_need_str(json, S("message"), &message, e))
        return error_wrap(e, "another agent takes {\"message\": text, \"context\"?: text}");
    str context = json_str_or(json, S("context"), STR_NONE);
    c->request.content = str_is_empty(context) ? message
                                               : str_printf(run->turn, STR_FMT "\n\n" STR_FMT,
                                                            STR_ARG(message), STR_ARG(context));
    if (c->request.content.len > MESSAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "message and context are over %u bytes",
                         MESSAGE_BYTES_MAX);
    return true;
}

static bool prepare(struct call_of_agent *c, struct error *e)
{
    struct planned *p = c->p;
    struct run *run = p->run;
    if (p->parent)
        return error_set(e, REASON_PERMISSION, "a tool may not call an agent");
    if (c->link->is_handoff && run->state.call_count > 1)
        return error_set(e, REASON_INVALID,
                         "hand over in an answer of its own, when the results of the other calls "
                         "are there");
    c->request.purpose = c->link->is_handoff ? CHILD_HANDOFF : CHILD_TOOL;
    c->request.place = id_text(run, p->call->id);
    c->request.agent = c->link->name;
    /* A model wrote it: whatever words it picked, all that it has seen may have picked them. */
    c->request.label = label_join(label_join(p->arguments_label, run_label_context(run)),
                                  (struct label){.origins = LABEL_AGENT});
    c->request.budget = c->link->budget;
    if (shares(p))
        c->request.budget = p->step->agent_share;
    if (c->link->is_handoff)
        add_conversation(c);
    return read_arguments(c, e);
}

static void journal_intent(struct planned *p, const struct agent_link *link, bool has_row)
{
    struct run *run = p->run;
    p->call->effect_key = id_text(run, p->child_run_id);
    struct json_writer *w = journal_event(&run->journal, EVENT_TOOL_INTENDED);
    json_put_str(w, S("tool_call_id"), id_text(run, p->call->id));
    json_put_str(w, S("name"), p->call->name);
    json_put_str(w, S("version"), p->tool->version);
    json_put_str(w, S("digest"), digest_hex(run->turn, p->tool->module_digest));
    json_put_str(w, S("effect_key"), p->call->effect_key);
    json_put_i64(w, S("epoch"), run->journal.epoch);
    json_put_i64(w, S("attempt"), 1);
    json_put_str(w, S("child_run_id"), p->call->effect_key);
    if (link->is_handoff)
        json_put_bool(w, S("handoff"), true);
    journal_close_event(&run->journal);
    if (!has_row) {
        run_tools_write_row(p, WRITE_INSERT, S("running"));
        return;
    }
    struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_TOOL_CALLS);
    record_set_uuid(row, TOOL_CALLS_ID, p->call->id);
    record_set_text(row, TOOL_CALLS_STATUS, S("running"));
    record_set_text(row, TOOL_CALLS_EFFECT_KEY, p->call->effect_key);
}

/* The call itself costs one tool call; what the other run takes it reserves itself. */
static bool begin(struct call_of_agent *c, struct error *e)
{
    struct planned *p = c->p;
    struct run *run = p->run;
    cost one = {.tool_calls = 1};
    if (!prepare(c, e) || !run_reserve(run, "tool", p->call->id, one, &p->reservation_id, e))
        return false;
    bool ok = run_child_add(run, &c->request, &p->child_run_id, e);
    run_settle(
        run, p->reservation_id,
        &(struct settlement){
            .reserved = one, .used = ok ? one : (cost){0}, .kind = "tool", .basis = "reported"});
    return ok;
}

void run_agents_plan(struct planned *p, bool has_row)
{
    struct run *run = p->run;
    struct call_of_agent *c = ARENA_NEW(run->turn, struct call_of_agent);
    *c = (struct call_of_agent){.p = p, .link = agent_find_link(run->agent, p->call->name)};
    if (!begin(c, &p->failure)) {
        p->child_run_id = UUID_NONE;
        run_tools_refuse(p, has_row);
        return;
    }
    if (has_row)
        run_approval_consume(run, p->call->approval_id);
    journal_intent(p, c->link, has_row);
    p->is_done = p->is_settled = true; /* not of this turn any more */
}

void run_agents_release(struct tool_step *step)
{
    for (size_t i = 0; i < step->count; i++)
        if (!uuid_is_none(step->items[i]->child_run_id))
            run_child_spawn(step->items[i]->run, step->items[i]->child_run_id);
}

/* ---- the answer ---- */

static str output_of(struct run *run, str agent, const struct child_outcome *outcome)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, run->turn, 8 * (size_t) MESSAGE_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("agent"), agent);
    json_put_str(&w, S("answer"), outcome->text);
    json_object_end(&w);
    return strbuf_str(&text);
}

void run_journal_text(struct run *run, str text)
{
    enum { PIECE_BYTES_MAX = SSE_EVENT_BYTES_MAX / 8 };
    while (text.len > 0) {
        str piece = str_cut_utf8(text, PIECE_BYTES_MAX);
        struct json_writer *w = journal_event(&run->journal, EVENT_MODEL_DELTA);
        json_put_i64(w, S("attempt"), run->state.attempt);
        json_put_str(w, S("text"), piece);
        text = str_from(text, piece.len);
    }
    journal_close_event(&run->journal);
}

/* The other agent's answer becomes this run's: a message of this session, told to its readers. */
static void adopt_answer(struct planned *p, const struct child_outcome *outcome)
{
    struct run *run = p->run;
    p->message_id = run_new_id(run, RUN_ID_MESSAGE, 0, STR_NONE);
    run_journal_text(run, outcome->text);
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_MESSAGES);
    run_message_row(row, run, p->message_id, ROLE_ASSISTANT, outcome->text,
                    (int64_t) (outcome->text.len + 3) / 4, STR_NONE);
    record_set_text(row, MESSAGES_METADATA, run_label_metadata(run->turn, p->label));
}

static void go_on_with(struct run *run, str agent)
{
    struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, run->session_id);
    record_set_text(row, SESSIONS_AGENT, agent);
}

static void end_call(struct planned *p, const struct child_outcome *outcome)
{
    struct run *run = p->run;
    const struct agent_link *link = agent_find_link(run->agent, p->call->name);
    str agent = link ? link->name : p->call->name;
    p->result.latency_ms = outcome->took_ms;
    p->result.latency_us = outcome->took_ms * 1000;
    p->label = outcome->label;
    p->is_running = true; /* its label is the other's */
    if (outcome->status != RUN_COMPLETED) {
        p->failure = outcome->failure;
        error_wrap(&p->failure, "agent \"" STR_FMT "\"", STR_ARG(agent));
        run_tools_end(p, "failed");
        return;
    }
    p->result.output = output_of(run, agent, outcome);
    if (!run_guard_output(run, &run->shield, &p->result.output, &p->failure))
        p->result.output = STR_NONE;
    if (p->failure.code == ERROR_OK)
        run_label_reveal(p);
    bool is_ok = p->failure.code == ERROR_OK;
    if (is_ok && p->call->is_handoff) {
        adopt_answer(p, outcome);
        if (link && link->is_sticky)
            go_on_with(run, agent);
    }
    run_tools_end(p, is_ok ? "succeeded" : "failed");
}

bool run_agents_look(struct run *run, struct call *call, bool *has_come, struct error *e)
{
    struct child_outcome *outcome = ARENA_NEW(run->turn, struct child_outcome);
    if (!run_child_look(run, call->child_run_id, outcome, e))
        return false;
    *has_come = outcome->is_final;
    if (!outcome->is_final) {
        if (run->has_lost_sight)
            run_child_spawn(run, call->child_run_id);
        return true;
    }
    struct planned *p = ARENA_NEW(run->turn, struct planned);
    *p = (struct planned){.run = run, .call = call, .tool = run_agents_find(run, call->name)};
    run_child_journal_end(run, call->child_run_id, outcome);
    end_call(p, outcome);
    return true;
}
