/*
 * Labels in a run: what the model has seen, and what it may therefore do.
 *
 * run->items stands beside run->messages, place by place.  A message that nobody labels has the label that its role allows at best: a
 * person's words are theirs, an answer is what its context was, a tool's result is unknown.  Rows keep the labels
 * (messages.metadata, tool_calls.label), so later runs of the session start from them.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_tools_internal.h"

/* ---- labels of messages ---- */

struct label run_label_context(const struct run *run)
{
    struct label label = {0};
    for (size_t i = 0; i < run->message_count; i++)
        label = label_join(label, run->items[i].label);
    if (!str_is_empty(run->file_list)) /* names are anybody's words */
        label = label_join(label, (struct label){.origins = LABEL_FILE, .is_untrusted = true});
    return label;
}

static bool has_foreign_part(const struct prompt_message *message)
{
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind != PART_TEXT)
            return true;
    return false;
}

static struct label label_by_role(const struct run *run, const struct prompt_message *message)
{
    switch (message->role) {
    case ROLE_SYSTEM: return (struct label){.origins = LABEL_SYSTEM};
    case ROLE_USER: return (struct label){.origins = LABEL_USER};
    case ROLE_ASSISTANT: return run_label_context(run);
    case ROLE_TOOL: break;
    }
    return label_unknown(LABEL_TOOL);
}

void run_label_added(struct run *run)
{
    size_t last = run->message_count - 1;
    run->items[last] = (struct context_item){
        .id = str_from_cstr(role_name(run->messages[last].role)),
        .source = str_from_cstr(role_name(run->messages[last].role)),
    };
    run->message_count--; /* an answer is what stands before it */
    run->items[last].label = label_by_role(run, &run->messages[last]);
    run->message_count++;
}

void run_label_last(struct run *run, str id, str source, struct label label)
{
    struct context_item *item = &run->items[run->message_count - 1];
    item->id = str_copy(run->arena, id);
    item->source = str_copy(run->arena, str_cut_utf8(source, CONTAINMENT_SOURCE_BYTES_MAX));
    item->label = label;
}

str run_label_source(struct arena *arena, str tool, str arguments)
{
    const struct json *tree;
    if (!json_parse(arena, arguments, (struct json_limits){0}, &tree, NULL))
        return tool;
    str url = json_str_or(tree, S("url"), STR_NONE);
    str file = json_str_or(tree, S("file"), json_str_or(tree, S("path"), STR_NONE));
    if (!str_is_empty(url))
        return url;
    return str_is_empty(file)
               ? tool
               : str_printf(arena, STR_FMT ": " STR_FMT, STR_ARG(tool), STR_ARG(file));
}

str run_label_metadata(struct arena *arena, struct label label)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, S("label"));
    label_write_json(&w, label);
    json_object_end(&w);
    return strbuf_str(&text);
}

str run_label_text(struct arena *arena, struct label label)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1024);
    json_writer_init(&w, &text);
    label_write_json(&w, label);
    return strbuf_str(&text);
}

/* ---- the view: what a decision looks at ---- */

static void add_texts(struct run *run, struct context_item *item,
                      const struct prompt_message *message, bool only_text)
{
    str *texts = ARENA_ARRAY(run->turn, str, 2 * message->part_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (only_text && part->kind != PART_TEXT)
            continue;
        if (part->text.len > 0)
            texts[count++] = part->text;
        if (part->arguments.len > 0)
            texts[count++] = part->arguments;
    }
    item->texts = texts;
    item->text_count = count;
}

static struct context_item file_names(struct run *run)
{
    str *text = ARENA_NEW(run->turn, str);
    *text = run->file_list;
    return (struct context_item){
        .id = S("files"),
        .source = S("names of the session's files"),
        .label = {.origins = LABEL_FILE, .is_untrusted = true},
        .texts = text,
        .text_count = 1,
    };
}

static struct context_item instructions(struct run *run)
{
    str *text = ARENA_NEW(run->turn, str);
    *text = run->agent->instructions;
    return (struct context_item){
        .id = S("instructions"),
        .source = run->agent->name,
        .label = {.origins = LABEL_SYSTEM},
        .texts = text,
        .text_count = 1,
    };
}

/* Pictures and other parts that a person brought are not the person's words. */
static struct context_item foreign_parts(const struct context_item *of)
{
    return (struct context_item){
        .id = of->id,
        .source = S("a part of the message that is no text"),
        .label = label_unknown(LABEL_USER | LABEL_FILE),
    };
}

static struct context_item result_of_guest(struct run *run, const struct planned *p)
{
    str *text = ARENA_NEW(run->turn, str);
    *text = p->result.output;
    return (struct context_item){
        .id = uuid_str(run->turn, p->call->id),
        .source = run_label_source(run->turn, p->call->name, p->arguments),
        .label = p->label,
        .is_made = true,
        .texts = text,
        .text_count = 1,
    };
}

static bool reads_files(const struct planned *p)
{
    return tool_may_call(p->tool, S("file_read")) && p->file_count > 0;
}

/* What a guest can have read before it calls another tool, although no message shows it: the model's context does not hold it. */
static struct context_item read_by_guest(struct run *run, const struct planned *p)
{
    struct label label = p->heard.is_told ? p->heard.label : (struct label){0};
    if (reads_files(p) || tool_may_call(p->tool, S("file_system")))
        label = label_join(label, label_unknown(LABEL_FILE));
    if (tool_may_call(p->tool, S("http_request")) || tool_may_call(p->tool, S("web_extract")))
        label = label_join(label, (struct label){.origins = LABEL_WEB, .is_untrusted = true});
    return (struct context_item){
        .id = uuid_str(run->turn, p->call->id),
        .source = run_label_source(run->turn, p->call->name, p->arguments),
        .label = label,
        .is_made = true,
    };
}

/* Of a guest's call: also what its tool was given by the calls before, by those that failed as well: an error quotes what it met. */
static size_t add_guests(const struct planned *of, struct context_item *items)
{
    size_t count = 0;
    if (of && of->parent)
        items[count++] = read_by_guest(of->run, of->parent);
    for (size_t i = 0; of && of->parent && i < of->step->count; i++) {
        const struct planned *p = of->step->items[i];
        if (p != of && p->parent == of->parent && p->is_done && p->has_begun)
            items[count++] = result_of_guest(of->run, p);
    }
    return count;
}

/* Only pages and persons say something that a model did not put there itself. */
static bool is_made(const struct prompt_message *message, const struct context_item *item)
{
    bool is_page =
        (item->label.origins & LABEL_WEB) && str_find(item->source, S("://")) != STR_NOT_FOUND;
    bool is_agents = message->role == ROLE_USER && (item->label.origins & LABEL_AGENT);
    return message->role == ROLE_ASSISTANT || (message->role == ROLE_TOOL && !is_page) || is_agents;
}

struct context_view run_label_view(struct run *run, const struct planned *of)
{
    if (of && of->view)
        return *of->view;
    size_t guests = of && of->parent ? of->step->count : 0;
    struct context_item *items =
        ARENA_ARRAY(run->turn, struct context_item, 2 * run->message_count + guests + 3);
    size_t count = 0;
    items[count++] = instructions(run);
    if (!str_is_empty(run->file_list))
        items[count++] = file_names(run);
    for (size_t i = 0; i < run->message_count; i++) {
        const struct prompt_message *message = &run->messages[i];
        bool is_user = message->role == ROLE_USER;
        if (i == 0 && run->has_instructions)
            continue; /* the agent's own message stands above, in its parts */
        struct context_item *item = &items[count++];
        *item = run->items[i];
        add_texts(run, item, message, is_user);
        item->is_made = is_made(message, item);
        if (is_user && has_foreign_part(message))
            items[count++] = foreign_parts(item);
    }
    count += add_guests(of, items + count);
    return (struct context_view){items, count};
}

/* ---- a tool call ---- */

static void write_item(struct json_writer *w, const struct context_item *item)
{
    json_object_begin(w);
    json_put_str(w, S("id"), item->id);
    json_put_str(w, S("source"), item->source);
    json_key(w, S("label"));
    label_write_json(w, item->label);
    json_object_end(w);
}

/* As other decisions, and why: which items of the context brought which label. */
static void journal_decision(struct planned *p, const struct containment_decision *decision)
{
    struct run *run = p->run;
    struct json_writer *w = journal_event(&run->journal, EVENT_POLICY_DECIDED);
    json_put_str(w, S("action"), S("tool.call"));
    json_put_str(w, S("resource"), p->tool->name);
    json_put_str(w, S("verdict"), str_from_cstr(containment_verdict_name(decision->verdict)));
    json_put_str(w, S("reason"), decision->reason);
    json_put_str(w, S("rule"),
                 str_printf(run->turn, "containment:" STR_FMT, STR_ARG(decision->rule)));
    json_put_str(w, S("version"), S("containment"));
    json_put_str(w, S("tool_call_id"), uuid_str(run->turn, p->call->id));
    json_key(w, S("label"));
    label_write_json(w, decision->context);
    json_key(w, S("because"));
    json_array_begin(w);
    for (size_t i = 0; i < decision->because_count; i++)
        write_item(w, decision->because[i]);
    json_array_end(w);
    journal_close_event(&run->journal);
}

static bool is_worth_telling(const struct containment_decision *decision)
{
    return decision->verdict != CONTAINMENT_ALLOW ||
           (decision->context.is_untrusted && !str_equal(decision->rule, S("no_sink")) &&
            !str_equal(decision->rule, S("off")));
}

void run_contain(struct planned *p, struct policy_decision *policy)
{
    struct run *run = p->run;
    struct containment_decision decision;
    struct containment_input input = {
        .tool = p->tool,
        .agent = run->agent->name,
        .arguments = p->arguments,
        .view = run_label_view(run, p),
        .approver = p->call->state == CALL_APPROVED ? p->call->approver : STR_NONE,
        .may_ask = p->parent == NULL,
        .asked_before = run->state.approvals_asked,
    };
    containment_decide(&run->settings->containment, run->turn, &input, &decision);
    p->arguments_label = decision.arguments;
    metrics_add(
        run->o->parts.metrics, METRIC_POLICY_DECISIONS, 1,
        (str[]){S("containment"), str_from_cstr(containment_verdict_name(decision.verdict))}, 2);
    if (is_worth_telling(&decision))
        journal_decision(p, &decision);
    if (decision.verdict == CONTAINMENT_ALLOW)
        return;
    policy->verdict = decision.verdict == CONTAINMENT_DENY ? POLICY_DENY : POLICY_NEEDS_APPROVAL;
    policy->reason = decision.reason;
    policy->rule = decision.rule;
}

void run_label_reveal(struct planned *p)
{
    enum containment_payloads action = p->run->settings->containment.payloads;
    str revealed = payload_reveal(p->run->turn, p->result.output, &p->payloads);
    if (!payload_is_found(&p->payloads) || action == PAYLOADS_FLAG)
        return;
    p->result.output = revealed;
    if (action != PAYLOADS_BLOCK)
        return;
    p->result.output = STR_NONE;
    error_set(&p->failure, REASON_CONTENT_BLOCKED,
              "the output of tool \"" STR_FMT "\" holds hidden characters, escapes or scripts "
              "(containment.payloads: block)",
              STR_ARG(p->call->name));
}

/* A tool that hears of nothing but the memory, and adds nothing of its own: each memory brought its label. */
static bool hears_memory_only(const struct planned *p)
{
    static const str quiet[] = {S_INIT("memory_search"), S_INIT("memory_store"), S_INIT("log")};
    for (size_t i = 0; i < p->tool->host_call_count; i++) {
        bool is_quiet = false;
        for (size_t k = 0; k < ARRAY_COUNT(quiet); k++)
            is_quiet = is_quiet || str_equal(p->tool->host_calls[i], quiet[k]);
        if (!is_quiet)
            return false;
    }
    return p->tool->abi != TOOL_ABI_MCP && p->tool->is_output_trusted && p->heard.is_told;
}

static struct label label_of_output(const struct planned *p)
{
    struct label heard = p->heard.is_told ? p->heard.label : (struct label){0};
    return hears_memory_only(p)
               ? label_join(heard, (struct label){.origins = LABEL_TOOL | LABEL_MEMORY,
                                                  .is_private = true})
               : label_join(heard, label_of_tool(p->tool));
}

/* What it was given, what the tool adds, the files it could read, and what its guest was told by others.  Of a call that never ran
   there is only our own word, about arguments that the context made. */
struct label run_label_of_result(const struct planned *p)
{
    const struct containment *rules = &p->run->settings->containment;
    if (p->call->state == CALL_CLIENT)
        return label_unknown(LABEL_TOOL);
    if (p->call->state == CALL_CHILD && p->is_running) /* what the other agent has seen */
        return p->label;
    if (!p->tool || !p->has_begun || !p->step)
        return label_join(run_label_context(p->run), (struct label){.origins = LABEL_TOOL});
    struct label label = label_join(p->arguments_label, label_of_output(p));
    str source = run_label_source(p->run->turn, p->tool->name, p->arguments);
    if (containment_is_inside(rules, source))
        label.is_private = true;
    if (reads_files(p))
        label = label_join(label, label_unknown(LABEL_FILE));
    for (size_t i = 0; i < p->step->count; i++)
        if (p->step->items[i]->parent == p)
            label = label_join(label, p->step->items[i]->label);
    return label;
}
