#include "base/arena.h"
#include "workflow/graph_internal.h"

/* ---- words ---- */

str graph_cut(struct arena *arena, str text, size_t characters_max)
{
    struct strbuf out;
    size_t count = 0, at = 0;
    bool is_space = true;
    strbuf_init(&out, arena, characters_max * 4 + 8);
    for (; at < text.len; at++) {
        unsigned char c = (unsigned char) text.ptr[at];
        bool is_first = (c & 0xc0) != 0x80;
        if (is_first && count == characters_max)
            break;
        if (c <= ' ' || c == 0x7f) {
            if (!is_space)
                strbuf_add_char(&out, ' ');
            count += !is_space;
            is_space = true;
            continue;
        }
        is_space = false;
        count += is_first;
        strbuf_add_char(&out, (char) c);
    }
    if (at < text.len)
        strbuf_add(&out, S("…"));
    return strbuf_str(&out);
}

str graph_arm_label(struct arena *arena, const struct branch_arm *arm)
{
    return arm->when ? graph_cut(arena, expression_text(arm->when), GRAPH_TEXT_MAX) : S("else");
}

static str duration_text(struct arena *arena, int64_t ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}};
    for (size_t i = 0; i < ARRAY_COUNT(units) && ms > 0; i++) {
        if (ms % units[i].ms == 0)
            return str_printf(arena, "%lld%s", (long long) (ms / units[i].ms), units[i].unit);
    }
    return str_printf(arena, "%lldms", (long long) ms);
}

static str loop_text(struct arena *arena, const struct step *step)
{
    if (!step->loop.while_)
        return str_printf(arena, "loop, %lld times", (long long) step->loop.max);
    return str_printf(arena, "loop, at most %lld, while " STR_FMT, (long long) step->loop.max,
                      STR_ARG(expression_text(step->loop.while_)));
}

static str full_summary(struct arena *arena, const struct step *step)
{
    switch (step->kind) {
    case STEP_TOOL: return str_printf(arena, "tool " STR_FMT, STR_ARG(step->tool.name));
    case STEP_MODEL:
        return step->model.model.len > 0
                   ? str_printf(arena, "model " STR_FMT, STR_ARG(step->model.model))
                   : S("model");
    case STEP_AGENT: return str_printf(arena, "agent " STR_FMT, STR_ARG(step->agent.name));
    case STEP_APPROVAL: return str_printf(arena, "approval by %d", step->approval.quorum);
    case STEP_BRANCH: return S("branch");
    case STEP_MAP:
        return str_printf(arena, "map over " STR_FMT ", %d at once",
                          STR_ARG(graph_cut(arena, expression_text(step->map.over), 30)),
                          step->map.parallel);
    case STEP_PARALLEL: return str_printf(arena, "%zu at once", step->parallel.count);
    case STEP_LOOP: return loop_text(arena, step);
    case STEP_SLEEP:
        if (step->sleep.until)
            return str_printf(arena, "sleep " STR_FMT, STR_ARG(expression_text(step->sleep.until)));
        return str_printf(arena, "sleep " STR_FMT, STR_ARG(duration_text(arena, step->sleep.ms)));
    case STEP_WAIT_SIGNAL:
        return str_printf(arena, "wait for signal " STR_FMT, STR_ARG(step->signal.name));
    case STEP_WORKFLOW: return str_printf(arena, "workflow " STR_FMT, STR_ARG(step->workflow.name));
    case STEP_KIND_COUNT: break;
    }
    return STR_NONE;
}

str graph_summary(struct arena *arena, const struct step *step)
{
    return graph_cut(arena, full_summary(arena, step), GRAPH_TEXT_MAX);
}

bool graph_holds_steps(const struct step *step)
{
    return step->kind == STEP_BRANCH || step->kind == STEP_MAP || step->kind == STEP_PARALLEL ||
           step->kind == STEP_LOOP;
}

/* ---- Mermaid ---- */

struct mermaid {
    struct arena *arena;
    struct strbuf out;
    int next; /* number of the next node */
    int indent;
};

/* A label in quotes; whatever means something to Mermaid or HTML becomes its number. */
static void add_label(struct mermaid *m, str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || (unsigned char) c >= 0x80 ||
                        strchr(" .,:_-+=?!()'/", c);
        if (is_plain && c != '\0')
            strbuf_add_char(&m->out, c);
        else
            strbuf_printf(&m->out, "#%d;", (int) (unsigned char) c);
    }
}

static void begin_line(struct mermaid *m)
{
    for (int i = 0; i < m->indent; i++)
        strbuf_add(&m->out, S("    "));
}

static void add_node(struct mermaid *m, const char *name, int number, const char *open, str title,
                     str text, const char *close)
{
    begin_line(m);
    strbuf_printf(&m->out, "%s%d%s\"", name, number, open);
    add_label(m, title);
    if (text.len > 0) {
        strbuf_add(&m->out, title.len > 0 ? S("<br/>") : STR_NONE);
        add_label(m, text);
    }
    strbuf_printf(&m->out, "\"%s\n", close);
}

static void add_edge(struct mermaid *m, int from, int to, str label)
{
    begin_line(m);
    strbuf_printf(&m->out, "n%d -->", from);
    if (label.len > 0) {
        strbuf_add(&m->out, S("|\""));
        add_label(m, label);
        strbuf_add(&m->out, S("\"|"));
    }
    strbuf_printf(&m->out, " n%d\n", to);
}

/* Where to go in and come out. */
struct ends {
    int first, last;
};
static struct ends draw_step(struct mermaid *m, const struct step *step);

/* first = -1: an empty list. */
static struct ends draw_list(struct mermaid *m, struct step_list list)
{
    struct ends all = {-1, -1};
    for (size_t i = 0; i < list.count; i++) {
        struct ends one = draw_step(m, list.items[i]);
        if (i == 0)
            all.first = one.first;
        else
            add_edge(m, all.last, one.first, STR_NONE);
        all.last = one.last;
    }
    return all;
}

static void draw_arm(struct mermaid *m, int from, int to, str label, struct step_list list)
{
    struct ends arm = draw_list(m, list);
    if (arm.first < 0) {
        add_edge(m, from, to, label);
        return;
    }
    add_edge(m, from, arm.first, label);
    add_edge(m, arm.last, to, STR_NONE);
}

static struct ends draw_fork(struct mermaid *m, const struct step *step)
{
    bool is_branch = step->kind == STEP_BRANCH;
    int from = m->next++, to = m->next++;
    add_node(m, "n", from, is_branch ? "{" : "[/", step->id,
             is_branch ? STR_NONE : graph_summary(m->arena, step), is_branch ? "}" : "\\]");
    add_node(m, "n", to, "((", S(" "), STR_NONE, "))");
    for (size_t i = 0; is_branch && i < step->branch.count; i++)
        draw_arm(m, from, to, graph_arm_label(m->arena, step->branch.arms + i),
                 step->branch.arms[i].steps);
    for (size_t i = 0; !is_branch && i < step->parallel.count; i++)
        draw_arm(m, from, to, step->parallel.arms[i].name, step->parallel.arms[i].steps);
    return (struct ends){from, to};
}

static struct ends draw_frame(struct mermaid *m, const struct step *step)
{
    int number = m->next++;
    begin_line(m);
    strbuf_add(&m->out, S("subgraph "));
    m->indent++;
    int indent = m->indent;
    m->indent = 0;
    add_node(m, "n", number, "[", step->id, graph_summary(m->arena, step), "]");
    m->indent = indent;
    begin_line(m);
    strbuf_add(&m->out, S("direction TB\n"));
    draw_list(m, step->kind == STEP_MAP ? step->map.steps : step->loop.steps);
    m->indent--;
    begin_line(m);
    strbuf_add(&m->out, S("end\n"));
    return (struct ends){number, number};
}

static struct ends draw_leaf(struct mermaid *m, const struct step *step)
{
    int number = m->next++;
    bool waits =
        step->kind == STEP_APPROVAL || step->kind == STEP_SLEEP || step->kind == STEP_WAIT_SIGNAL;
    add_node(m, "n", number, waits ? "([" : "[", step->id, graph_summary(m->arena, step),
             waits ? "])" : "]");
    return (struct ends){number, number};
}

static struct ends draw_step(struct mermaid *m, const struct step *step)
{
    bool is_fork = step->kind == STEP_BRANCH || step->kind == STEP_PARALLEL;
    struct ends ends = is_fork                   ? draw_fork(m, step)
                       : graph_holds_steps(step) ? draw_frame(m, step)
                                                 : draw_leaf(m, step);
    if (step->when) {
        int gate = m->next++;
        add_node(m, "n", gate, "{", STR_NONE,
                 graph_cut(m->arena, expression_text(step->when), GRAPH_TEXT_MAX), "}");
        int past = m->next++;
        add_node(m, "n", past, "((", S(" "), STR_NONE, "))");
        add_edge(m, gate, ends.first, S("yes"));
        add_edge(m, gate, past, S("skip"));
        add_edge(m, ends.last, past, STR_NONE);
        ends = (struct ends){gate, past};
    }
    if (step->compensate) {
        int undo = m->next++;
        add_node(m, "n", undo, "[[", S("undo"), graph_summary(m->arena, step->compensate), "]]");
        begin_line(m);
        strbuf_printf(&m->out, "n%d -.- n%d\n", ends.last, undo);
    }
    return ends;
}

str definition_mermaid(struct arena *arena, const struct definition *definition)
{
    struct mermaid m = {.arena = arena, .indent = 1};
    strbuf_init(&m.out, arena, GRAPH_BYTES_MAX);
    strbuf_add(&m.out, S("flowchart TB\n"));
    int start = m.next++, end = m.next++;
    add_node(&m, "n", start, "([", definition->name, definition->version, "])");
    struct ends all = draw_list(&m, definition->steps);
    add_node(&m, "n", end, "([", S("done"), STR_NONE, "])");
    add_edge(&m, start, all.first < 0 ? end : all.first, STR_NONE);
    if (all.last >= 0)
        add_edge(&m, all.last, end, STR_NONE);
    return strbuf_str(&m.out);
}
