/*
 * Winding down: an agent whose budget is spent still gets one last call, without tools, to say what was done and what is left.
 *
 *      after the first call:  a little is held back from all that come (ledger_hold_back)
 *      a call that does not fit  --> budget.wind_down --> the last call, out of what was held back --> run.completed, degraded
 *      not even that fits, or nothing was done yet  --> run.failed, as without this
 *
 * The last call sees no conversation but a digest of it that fits what is left: the question, and of the newest steps what fits.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_internal.h"

enum {
    DIGEST_BYTES_MIN = 128, /* less says nothing */
    OUTPUT_PART = 3,        /* a third of the last call's tokens is for its answer */
    PIECE_BYTES_MAX = 400,  /* of one text or result in the digest */
};

static const str last_words = S_INIT(
    "The budget of this work is spent: this is the last answer. Say in a few sentences what was "
    "done, what was found, and what is left to do. Do not call tools.");

static bool may_wind_down(const struct run *run, const struct error *refusal)
{
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle && !oracle->does(oracle->owner, EVENT_BUDGET_WIND_DOWN))
        return false;
    return refusal->reason == REASON_BUDGET && run->state.step > 0 && !run->aside &&
           !run->state.is_winding_down && !run->is_cancel_asked && !run->is_draining;
}

bool run_wind_down(struct run *run, struct error *e)
{
    if (!may_wind_down(run, e))
        return false;
    struct json_writer *w = journal_event(&run->journal, EVENT_BUDGET_WIND_DOWN);
    json_put_str(w, S("why"), str_from_cstr(e->message));
    *e = (struct error){0};
    run->has_route = false;
    return run_flush(run, "wind_down", e);
}

/* ---- what is held back ---- */

static int64_t part_of(int64_t limit, int64_t at_most)
{
    if (limit == COST_UNLIMITED)
        return 0;
    int64_t part = limit / RUN_WIND_DOWN_PART;
    return part < at_most ? part : at_most;
}

static void set_rate(struct run *run, const struct agent_limits *limits)
{
    cost per_minute = COST_LIMITLESS;
    if (limits->tokens_per_minute > 0)
        per_minute.tokens = limits->tokens_per_minute;
    if (limits->cost_per_minute_nanousd > 0)
        per_minute.cost_nanousd = limits->cost_per_minute_nanousd;
    ledger_set_rate(run->o->ledger, &run->path, per_minute);
}

/* So much: the smallest part that the ceilings and the price of its model allow. */
static cost reserve_of(const struct run *run, int64_t tokens, cost limit)
{
    int64_t output = tokens / OUTPUT_PART;
    int64_t price =
        run->model->target_count > 0
            ? price_bound_nanousd(&run->model->targets[0].price, tokens - output, output)
            : 0;
    return (cost){.tokens = part_of(limit.tokens, tokens),
                  .time_ms = part_of(limit.time_ms, RUN_WIND_DOWN_MS),
                  .cost_nanousd = part_of(limit.cost_nanousd, price)};
}

/* A run that has done nothing yet has nothing to sum up: its first call may take what there is. */
void run_hold_back(struct run *run)
{
    const struct agent_limits *limits = &run->agent->limits;
    if (run->o->oracle || run->aside)
        return;
    if (run->state.step == 0 || !run->is_reserve_kept)
        set_rate(run, limits);
    if (run->state.step == 0 || run->is_reserve_kept || run->state.is_winding_down)
        return;
    run->is_reserve_kept = true;
    int64_t tokens =
        limits->wind_down_tokens == 0 ? RUN_WIND_DOWN_TOKENS : limits->wind_down_tokens;
    cost limit = ledger_smallest_limit(run->o->ledger, &run->path);
    if (tokens < 0 || cost_equal(limit, COST_LIMITLESS))
        return;
    cost amount = reserve_of(run, tokens, limit);
    if (!cost_is_zero(amount))
        ledger_hold_back(run->o->ledger, &run->path, amount);
}

cost run_remaining_now(struct run *run)
{
    return run->is_last_call ? ledger_remaining_last(run->o->ledger, &run->path)
                             : run_remaining(run);
}

/* ---- the last call ---- */

static void add_piece(struct strbuf *out, const char *head, str name, str text)
{
    str piece = str_cut_utf8(text, PIECE_BYTES_MAX);
    if (str_is_empty(piece))
        return;
    strbuf_printf(out, "%s" STR_FMT "%s" STR_FMT "%s\n", head, STR_ARG(name),
                  str_is_empty(name) ? "" : ": ", STR_ARG(piece),
                  piece.len < text.len ? " ..." : "");
}

static void add_message(struct strbuf *out, const struct prompt_message *message)
{
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (part->kind == PART_TEXT)
            add_piece(out, message->role == ROLE_USER ? "Asked: " : "Said: ", STR_NONE, part->text);
        else if (part->kind == PART_TOOL_CALL)
            add_piece(out, "Called ", part->name, part->arguments);
        else if (part->kind == PART_TOOL_RESULT)
            add_piece(out, part->is_error ? "Failed: " : "Got: ", part->name, part->text);
    }
}

/* Where what this run was asked stands; when a summary has taken its place, where the last person's words do. */
static size_t question_of(const struct run *run)
{
    size_t last = run->message_count;
    for (size_t i = 0; i < run->message_count; i++) {
        bool is_row = run->rows && run->messages[i].role == ROLE_USER;
        if (is_row && uuid_equal(run->rows[i], run->state.question_id))
            return i;
        if (run->messages[i].role == ROLE_USER)
            last = i;
    }
    return last;
}

/* The question, and then as many of the newest messages as fit, in their order. */
static str retell(struct run *run, size_t bytes_max)
{
    struct arena *arena = run->turn;
    struct strbuf out;
    str *texts = ARENA_ARRAY(arena, str, run->message_count);
    size_t question = question_of(run), first = run->message_count, bytes = 0;
    for (size_t i = question; i < run->message_count; i++) {
        struct strbuf text;
        strbuf_init(&text, arena, MESSAGE_BYTES_MAX);
        add_message(&text, &run->messages[i]);
        texts[i] = strbuf_str(&text);
    }
    str asked =
        question < run->message_count ? str_cut_utf8(texts[question], bytes_max / 3) : STR_NONE;
    for (bytes = asked.len; first > question + 1 && bytes + texts[first - 1].len <= bytes_max;)
        bytes += texts[--first].len;
    strbuf_init(&out, arena, bytes_max + 1);
    strbuf_add(&out, asked);
    for (size_t i = first; i < run->message_count; i++)
        strbuf_add(&out, texts[i]);
    return strbuf_str(&out);
}

static struct prompt_message text_message(struct arena *arena, enum role role, str text)
{
    struct part *part = ARENA_NEW(arena, struct part);
    *part = (struct part){.kind = PART_TEXT, .text = text};
    return (struct prompt_message){.role = role, .parts = part, .part_count = 1};
}

/* So many tokens may the last call take, in and out, that every limit allows. */
static int64_t tokens_of_last(const struct run *run, cost remaining)
{
    int64_t tokens =
        remaining.tokens < RUN_LAST_TOKENS_MAX ? remaining.tokens : RUN_LAST_TOKENS_MAX;
    if (run->model->target_count == 0 || remaining.cost_nanousd == COST_UNLIMITED)
        return tokens;
    const struct model_price *price = &run->model->targets[0].price;
    while (tokens > 0 && price_bound_nanousd(price, tokens - tokens / OUTPUT_PART,
                                             tokens / OUTPUT_PART) > remaining.cost_nanousd)
        tokens -= tokens / 8 + 1;
    return tokens;
}

void run_last_prompt(struct run *run, struct prompt *prompt, int64_t *output_tokens_max)
{
    run->is_last_call = run->state.is_winding_down && !run->aside;
    if (!run->is_last_call)
        return;
    int64_t tokens = tokens_of_last(run, run->o->oracle ? run_room(run) : run_remaining_now(run)),
            input = tokens - tokens / OUTPUT_PART;
    run->room = tokens;
    struct prompt_message *messages = ARENA_ARRAY(run->turn, struct prompt_message, 2);
    messages[0] = text_message(run->turn, ROLE_SYSTEM, last_words);
    messages[1] = text_message(run->turn, ROLE_USER, STR_NONE);
    prompt->messages = messages;
    prompt->message_count = 2;
    prompt->tools = NULL;
    prompt->tool_count = 0;
    prompt->response_format = STR_NONE;
    int64_t room = input - prompt_input_tokens_bound(prompt);
    if (room < DIGEST_BYTES_MIN)
        room = DIGEST_BYTES_MIN; /* what does not fit is refused by the ledger */
    messages[1].parts[0].text = retell(run, (size_t) room);
    *output_tokens_max = tokens - prompt_input_tokens_bound(prompt);
}

/* ---- at the end ---- */

str run_degraded_why(struct run *run)
{
    const struct run_state *state = &run->state;
    if (!str_is_empty(state->loop_stopped))
        return str_printf(run->turn, "loop: " STR_FMT, STR_ARG(state->loop_stopped));
    if (state->is_winding_down)
        return str_printf(run->turn, "budget: " STR_FMT, STR_ARG(state->wind_down_why));
    if (!str_is_empty(state->degraded))
        return state->degraded;
    if (run->is_degraded && str_equal(state->finish, S("length")))
        return S("budget: the answer was cut at the tokens that were left");
    return STR_NONE;
}

void run_put_ended_by(const struct run *run, struct json_writer *w)
{
    if (!str_is_empty(run->state.loop_stopped))
        json_put_str(w, S("ended_by"), S("loop"));
    else if (run->state.is_winding_down)
        json_put_str(w, S("ended_by"), S("budget"));
}
