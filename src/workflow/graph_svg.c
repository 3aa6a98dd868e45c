/*
 * The picture of a definition as SVG: lists go down, arms stand side by side, what holds steps is a frame around them.  Each thing is
 * measured first (from its words; no fonts are at hand, so widths are estimates on the safe side), then drawn centred in its place.
 */
#include "base/arena.h"
#include "workflow/graph_internal.h"

enum {
    BOX_HEIGHT = 46,
    GAP = 30,     /* between a thing and the next one: room for an arrow */
    ARM_GAP = 26, /* between arms */
    PAD = 14,     /* inside frames */
    TITLE_HEIGHT = 40,
    LABEL_HEIGHT = 22,
    UNDO_GAP = 34,
    MARGIN = 20,
    BOX_WIDTH_MIN = 120,
};

struct size {
    int width, height;
};
struct svg {
    struct arena *arena;
    struct strbuf out;
};

/* ---- text ---- */

static int text_width(str text, int size_px)
{
    int tenths = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char) text.ptr[i];
        if ((c & 0xc0) != 0x80)
            tenths += c < 0x80 ? 6 : 10;
    }
    return tenths * size_px / 10;
}

static void add_escaped(struct svg *s, str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        switch (c) {
        case '<': strbuf_add(&s->out, S("&lt;")); break;
        case '>': strbuf_add(&s->out, S("&gt;")); break;
        case '&': strbuf_add(&s->out, S("&amp;")); break;
        case '"': strbuf_add(&s->out, S("&quot;")); break;
        default: strbuf_add_char(&s->out, (unsigned char) c < ' ' ? ' ' : c); break;
        }
    }
}

static void add_text(struct svg *s, int x, int y, const char *style, str text)
{
    strbuf_printf(&s->out, "<text x=\"%d\" y=\"%d\" class=\"%s\">", x, y, style);
    add_escaped(s, text);
    strbuf_add(&s->out, S("</text>\n"));
}

/* ---- shapes ---- */

static void add_arrow(struct svg *s, int x1, int y1, int x2, int y2)
{
    int middle = y2 - GAP / 2;
    if (x1 == x2)
        strbuf_printf(&s->out, "<path class=\"edge\" d=\"M%d %dV%d\"/>\n", x1, y1, y2 - 2);
    else
        strbuf_printf(&s->out, "<path class=\"edge\" d=\"M%d %dV%dH%dV%d\"/>\n", x1, y1, middle, x2,
                      y2 - 2);
}

static void add_line(struct svg *s, int x1, int y1, int x2, int y2)
{
    strbuf_printf(&s->out, "<path class=\"line\" d=\"M%d %dV%dH%dV%d\"/>\n", x1, y1, y2 - GAP / 2,
                  x2, y2);
}

static void add_box(struct svg *s, int x, int y, struct size size, const char *style, int radius)
{
    strbuf_printf(&s->out,
                  "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"%d\"/>\n",
                  style, x, y, size.width, size.height, radius);
}

/* ---- measuring ---- */

static struct size measure_step(struct svg *s, const struct step *step);

static struct size measure_list(struct svg *s, struct step_list list)
{
    struct size all = {BOX_WIDTH_MIN / 2, 0};
    for (size_t i = 0; i < list.count; i++) {
        struct size one = measure_step(s, list.items[i]);
        all.height += one.height + (i > 0 ? GAP : 0);
        if (one.width > all.width)
            all.width = one.width;
    }
    return all;
}

static size_t arm_count(const struct step *step)
{
    return step->kind == STEP_BRANCH ? step->branch.count : step->parallel.count;
}

static struct step_list arm_steps(const struct step *step, size_t index)
{
    return step->kind == STEP_BRANCH ? step->branch.arms[index].steps
                                     : step->parallel.arms[index].steps;
}

static str arm_label(struct svg *s, const struct step *step, size_t index)
{
    return step->kind == STEP_BRANCH ? graph_arm_label(s->arena, step->branch.arms + index)
                                     : step->parallel.arms[index].name;
}

static struct size measure_arm(struct svg *s, const struct step *step, size_t index)
{
    struct size size = measure_list(s, arm_steps(step, index));
    int label = text_width(arm_label(s, step, index), 11) + 12;
    if (label > size.width)
        size.width = label;
    return size;
}

/* The words of a step's own box. */
static struct size measure_words(struct svg *s, const struct step *step)
{
    str summary = graph_summary(s->arena, step);
    int width = text_width(step->id, 13) + 28, second = text_width(summary, 11) + 28;
    width = second > width ? second : width;
    if (step->when) {
        str when = graph_cut(s->arena, expression_text(step->when), GRAPH_TEXT_MAX);
        int third = text_width(when, 11) + 44;
        width = third > width ? third : width;
    }
    return (struct size){width > BOX_WIDTH_MIN ? width : BOX_WIDTH_MIN,
                         BOX_HEIGHT + (step->when ? 16 : 0)};
}

static struct size measure_arms(struct svg *s, const struct step *step, int *tallest)
{
    struct size all = {0, 0};
    *tallest = 0;
    for (size_t i = 0; i < arm_count(step); i++) {
        struct size arm = measure_arm(s, step, i);
        all.width += arm.width + (i > 0 ? ARM_GAP : 0);
        *tallest = arm.height > *tallest ? arm.height : *tallest;
    }
    all.height = GAP + LABEL_HEIGHT + *tallest + GAP;
    return all;
}

static struct size undo_size(struct svg *s, const struct step *step)
{
    if (!step->compensate)
        return (struct size){0, 0};
    return (struct size){text_width(graph_summary(s->arena, step->compensate), 11) + 24, 36};
}

/* Without what undoes it. */
static struct size measure_body(struct svg *s, const struct step *step)
{
    struct size words = measure_words(s, step);
    int tallest;
    if (step->kind == STEP_BRANCH || step->kind == STEP_PARALLEL) {
        struct size arms = measure_arms(s, step, &tallest);
        return (struct size){arms.width > words.width ? arms.width : words.width,
                             words.height + arms.height};
    }
    if (graph_holds_steps(step)) {
        struct size inner =
            measure_list(s, step->kind == STEP_MAP ? step->map.steps : step->loop.steps);
        int width = inner.width > words.width ? inner.width : words.width;
        return (struct size){width + 2 * PAD, words.height + inner.height + 2 * PAD};
    }
    return words;
}

/* What undoes a step stands to its right; the same room is left on its left, so that arrows stay straight. */
static struct size measure_step(struct svg *s, const struct step *step)
{
    struct size size = measure_body(s, step), undo = undo_size(s, step);
    if (undo.width > 0)
        size.width += 2 * (undo.width + UNDO_GAP);
    return size;
}

/* ---- drawing ---- */

static void draw_step(struct svg *s, const struct step *step, int centre, int y);

static void draw_list(struct svg *s, struct step_list list, int centre, int y)
{
    for (size_t i = 0; i < list.count; i++) {
        if (i > 0) {
            add_arrow(s, centre, y, centre, y + GAP);
            y += GAP;
        }
        draw_step(s, list.items[i], centre, y);
        y += measure_step(s, list.items[i]).height;
    }
}

static void draw_words(struct svg *s, const struct step *step, int centre, int y)
{
    add_text(s, centre, y + 19, "id", step->id);
    add_text(s, centre, y + 36, "what", graph_summary(s->arena, step));
    if (step->when) {
        str when = graph_cut(s->arena, expression_text(step->when), GRAPH_TEXT_MAX);
        add_text(s, centre, y + 52, "when", str_printf(s->arena, "if " STR_FMT, STR_ARG(when)));
    }
}

static void draw_arms(struct svg *s, const struct step *step, int centre, int y)
{
    int tallest, from = y, x;
    struct size arms = measure_arms(s, step, &tallest);
    x = centre - arms.width / 2;
    y += GAP;
    for (size_t i = 0; i < arm_count(step); i++) {
        struct size arm = measure_arm(s, step, i);
        struct step_list list = arm_steps(step, i);
        int middle = x + arm.width / 2, height = measure_list(s, list).height;
        add_arrow(s, centre, from, middle, y);
        add_text(s, middle, y + 14, "label", arm_label(s, step, i));
        draw_list(s, list, middle, y + LABEL_HEIGHT);
        add_line(s, middle, y + LABEL_HEIGHT + height, centre, y + LABEL_HEIGHT + tallest + GAP);
        x += arm.width + ARM_GAP;
    }
}

static const char *box_style(const struct step *step)
{
    switch (step->kind) {
    case STEP_MODEL:
    case STEP_AGENT: return "mind";
    case STEP_APPROVAL:
    case STEP_SLEEP:
    case STEP_WAIT_SIGNAL: return "wait";
    case STEP_BRANCH:
    case STEP_PARALLEL: return "fork";
    case STEP_TOOL:
    case STEP_WORKFLOW:
    case STEP_MAP:
    case STEP_LOOP:
    case STEP_KIND_COUNT: break;
    }
    return "work";
}

static void draw_undo(struct svg *s, const struct step *step, int right, int y)
{
    struct size undo = undo_size(s, step);
    int x = right + UNDO_GAP, middle = y + BOX_HEIGHT / 2;
    strbuf_printf(&s->out, "<path class=\"undo\" d=\"M%d %dH%d\"/>\n", right, middle, x);
    add_box(s, x, y + 5, undo, "undo", 6);
    add_text(s, x + undo.width / 2, y + 19, "label", S("undo"));
    add_text(s, x + undo.width / 2, y + 34, "what", graph_summary(s->arena, step->compensate));
}

static void draw_step(struct svg *s, const struct step *step, int centre, int y)
{
    struct size words = measure_words(s, step), body = measure_body(s, step);
    int right = centre + words.width / 2;
    if (step->kind == STEP_BRANCH || step->kind == STEP_PARALLEL) {
        add_box(s, centre - words.width / 2, y, words, "fork", words.height / 2);
        draw_words(s, step, centre, y);
        draw_arms(s, step, centre, y + words.height);
    } else if (graph_holds_steps(step)) {
        add_box(s, centre - body.width / 2, y, body, "frame", 10);
        draw_words(s, step, centre, y);
        draw_list(s, step->kind == STEP_MAP ? step->map.steps : step->loop.steps, centre,
                  y + words.height + PAD);
        right = centre + body.width / 2;
    } else {
        const char *style = box_style(step);
        add_box(s, centre - words.width / 2, y, words, style,
                *style == 'w' && style[1] == 'a' ? 23 : 6);
        draw_words(s, step, centre, y);
    }
    if (step->compensate)
        draw_undo(s, step, right, y);
}

static const char style_sheet[] =
    "<style>\n"
    "svg{--ink:#1b1f24;--soft:#57606a;--paper:#ffffff;--line:#8c959f;--work:#eef4ff;--mind:#f3ecff;"
    "--wait:#fff6e0;--fork:#e9f7ee;--frame:#f6f8fa;--undo:#fff0ee}\n"
    "@media (prefers-color-scheme:dark){svg{--ink:#e6edf3;--soft:#9aa4ae;--paper:#0d1117;"
    "--line:#6e7681;--work:#16243d;--mind:#2a1f3d;--wait:#3a2e12;--fork:#12301d;--frame:#151b23;"
    "--undo:#3a1d1a}}\n"
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    "text-anchor:middle;fill:var(--ink)}\n"
    ".id{font-size:13px;font-weight:600}.what{font-size:11px;fill:var(--soft)}"
    ".when{font-size:11px;font-style:italic;fill:var(--soft)}.label{font-size:11px;fill:var(--soft)"
    "}\n"
    "rect{stroke:var(--line);stroke-width:1.2}.paper{fill:var(--paper);stroke:none}"
    ".work{fill:var(--work)}.mind{fill:var(--mind)}.wait{fill:var(--wait)}.fork{fill:var(--fork)}"
    ".frame{fill:var(--frame)}rect.undo{fill:var(--undo);stroke-dasharray:4 3}"
    ".end{fill:var(--ink);stroke:none}\n"
    "path{fill:none;stroke:var(--line);stroke-width:1.4}path.undo{stroke-dasharray:4 3}"
    ".edge{marker-end:url(#arrow)}#arrow path{fill:var(--line);stroke:none}\n"
    "</style>\n"
    "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" "
    "markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n";

static void add_end(struct svg *s, int centre, int y)
{
    strbuf_printf(&s->out, "<circle class=\"end\" cx=\"%d\" cy=\"%d\" r=\"7\"/>\n", centre, y + 7);
}

str definition_svg(struct arena *arena, const struct definition *definition)
{
    struct svg s = {.arena = arena};
    strbuf_init(&s.out, arena, GRAPH_BYTES_MAX);
    str title = str_printf(arena, STR_FMT " " STR_FMT, STR_ARG(definition->name),
                           STR_ARG(definition->version));
    struct size list = measure_list(&s, definition->steps);
    int title_width = text_width(title, 13);
    int inner = list.width > title_width ? list.width : title_width;
    struct size all = {inner + 2 * MARGIN,
                       TITLE_HEIGHT + 14 + GAP + list.height + GAP + 14 + 2 * MARGIN};
    int centre = all.width / 2, y = MARGIN + TITLE_HEIGHT;
    strbuf_printf(&s.out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                  "viewBox=\"0 0 %d %d\" role=\"img\">\n<title>",
                  all.width, all.height, all.width, all.height);
    add_escaped(&s, title);
    strbuf_add(&s.out, S("</title>\n"));
    strbuf_add(&s.out, str_from_cstr(style_sheet));
    add_box(&s, 0, 0, all, "paper", 0);
    add_text(&s, centre, MARGIN + 16, "id", title);
    add_end(&s, centre, y);
    y += 14;
    add_arrow(&s, centre, y, centre, y + GAP);
    y += GAP;
    draw_list(&s, definition->steps, centre, y);
    y += list.height;
    add_arrow(&s, centre, y, centre, y + GAP);
    add_end(&s, centre, y + GAP);
    strbuf_add(&s.out, S("</svg>\n"));
    return strbuf_str(&s.out);
}
