#include "definitions.h"
#include "base/arena.h"
#include "base/json.h"

enum { STEPS_IN_ALL = 16, DEPTH = 3, BYTES_MAX = 64 << 10 };

struct drawing {
    struct world *world;
    struct json_writer *w;
    struct arena *arena;
    int index, steps, depth;
    int around; /* maps and loops around */
};

static void draw_steps(struct drawing *d, int64_t most);

static int64_t between(struct drawing *d, int64_t low, int64_t high)
{
    return world_between(d->world, low, high);
}

static bool chance(struct drawing *d, unsigned per_mille)
{
    return world_chance(d->world, per_mille);
}

static void put(struct drawing *d, const char *member, const char *text)
{
    json_put_str(d->w, str_from_cstr(member), str_from_cstr(text));
}

static void put_seconds(struct drawing *d, const char *member, int64_t low, int64_t high)
{
    json_put_str(d->w, str_from_cstr(member),
                 str_printf(d->arena, "%llds", (long long) between(d, low, high)));
}

static void begin(struct drawing *d, const char *member)
{
    json_key(d->w, str_from_cstr(member));
    json_object_begin(d->w);
}

static void end(struct drawing *d)
{
    json_object_end(d->w);
}

static void put_steps(struct drawing *d, const char *member, int64_t most)
{
    json_key(d->w, str_from_cstr(member));
    d->depth++;
    draw_steps(d, most);
    d->depth--;
}

/* ---- what steps may say beside their kind ---- */

static void draw_retry(struct drawing *d, unsigned per_mille)
{
    if (!chance(d, per_mille))
        return;
    begin(d, "retry");
    json_put_i64(d->w, S("attempts"), between(d, 2, 4));
    put_seconds(d, "backoff", 0, 2);
    if (chance(d, 300)) {
        json_key(d->w, S("except"));
        json_array_begin(d->w);
        json_write_str(d->w, S("tool_failed"));
        json_array_end(d->w);
    }
    end(d);
}

static void draw_common(struct drawing *d)
{
    static const char *const conditions[] = {"${input.n > 2}", "${input.n % 2 == 0}", "${true}"};
    if (chance(d, 100))
        put(d, "when", conditions[between(d, 0, ARRAY_COUNT(conditions) - 1)]);
    if (chance(d, 150))
        put(d, "on_error", "continue");
}

static void draw_undo(struct drawing *d)
{
    begin(d, "compensate");
    put(d, "tool", chance(d, 700) ? "undo" : "notify");
    begin(d, "input");
    put(d, "of", "${run.id}");
    end(d);
    if (chance(d, 300))
        put(d, "timeout", chance(d, 500) ? "250ms" : "5s");
    draw_retry(d, 700);
    end(d);
}

/* ---- kinds ---- */

static void draw_tool(struct drawing *d, bool is_undoable)
{
    static const char *const names[] = {"lookup", "pay", "notify", "http_request", "pay", "wipe"};
    const char *name = names[between(d, 0, is_undoable ? 4 : ARRAY_COUNT(names) - 1)];
    put(d, "tool", name);
    begin(d, "input");
    json_put_i64(d->w, S("amount"), between(d, 1, 9));
    put(d, "for", d->around > 0 ? "${run.id}" : "${input.n}");
    end(d);
    if (str_equal(str_from_cstr(name), S("http_request"))) {
        if (chance(d, 700))
            json_put_str(
                d->w, S("idempotency_key"),
                str_printf(d->arena, "${run.id}-%d%s", d->steps, d->around > 0 ? "-many" : ""));
        if (chance(d, 500))
            put(d, "expect", "${output.status < 300}");
    }
    if (chance(d, 150))
        put_seconds(d, "timeout", 1, 5);
    draw_retry(d, 400);
    if (is_undoable)
        draw_undo(d);
}

static void draw_model(struct drawing *d)
{
    begin(d, "model");
    put(d, "prompt", "Say ${input.n} words.");
    if (chance(d, 300))
        put(d, "system", "You answer briefly.");
    if (chance(d, 500))
        json_put_i64(d->w, S("max_output_tokens"), between(d, 20, 200));
    end(d);
    if (chance(d, 100))
        put_seconds(d, "timeout", 1, 20);
    draw_retry(d, 500);
}

static void draw_agent(struct drawing *d)
{
    static const char *const names[] = {"worker", "worker", "boss", "assistant"};
    begin(d, "agent");
    put(d, "name", names[between(d, 0, ARRAY_COUNT(names) - 1)]);
    put(d, "prompt", "Work on ${input.n}.");
    if (chance(d, 400)) {
        begin(d, "budget");
        json_put_i64(d->w, S("tokens"), between(d, 500, 8000));
        json_put_i64(d->w, S("tool_calls"), between(d, 1, 6));
        end(d);
    }
    end(d);
    if (chance(d, 150))
        put_seconds(d, "timeout", 2, 60);
    draw_retry(d, 300);
}

static void draw_approval(struct drawing *d)
{
    int64_t quorum = between(d, 1, 3);
    begin(d, "approval");
    put(d, "title", "Go on with ${input.n}?");
    json_put_i64(d->w, S("quorum"), quorum);
    if (chance(d, 200)) {
        json_key(d->w, S("approvers"));
        json_object_begin(d->w);
        json_key(d->w, S("roles"));
        json_array_begin(d->w);
        json_write_str(d->w, S("operator"));
        json_write_str(d->w, S("admin"));
        json_array_end(d->w);
        json_object_end(d->w);
    }
    put_seconds(d, "expires", 10, 240);
    put_seconds(d, "remind", 5, 60);
    end(d);
    draw_retry(d, 200);
}

static void draw_branch(struct drawing *d)
{
    json_key(d->w, S("branch"));
    json_array_begin(d->w);
    json_object_begin(d->w);
    put(d, "when", chance(d, 500) ? "${input.n > 4}" : "${size(input.items) > 1}");
    put_steps(d, "steps", 2);
    json_object_end(d->w);
    json_object_begin(d->w);
    put_steps(d, "steps", 2);
    json_object_end(d->w);
    json_array_end(d->w);
}

static void draw_map(struct drawing *d)
{
    begin(d, "map");
    put(d, "over", chance(d, 700) ? "${input.items}" : "${range(3)}");
    json_put_i64(d->w, S("parallel"), between(d, 1, 3));
    if (chance(d, 400))
        json_put_i64(d->w, S("tolerate"), between(d, 1, 2));
    d->around++;
    put_steps(d, "steps", 2);
    d->around--;
    end(d);
}

static void draw_parallel(struct drawing *d)
{
    begin(d, "parallel");
    put_steps(d, "left", 2);
    put_steps(d, "right", 2);
    end(d);
}

static void draw_loop(struct drawing *d)
{
    begin(d, "loop");
    put(d, "while", chance(d, 500) ? "${loop.index < 2}" : "${loop.index < input.n % 4}");
    json_put_i64(d->w, S("max"), between(d, 1, 4));
    d->around++;
    put_steps(d, "steps", 2);
    d->around--;
    end(d);
}

static void draw_sleep(struct drawing *d)
{
    static const char *const times[] = {"0s", "500ms", "3s", "20s", "2m", "${input.n}"};
    put(d, "sleep", times[between(d, 0, ARRAY_COUNT(times) - 1)]);
}

static void draw_signal(struct drawing *d)
{
    begin(d, "wait_signal");
    put(d, "name", chance(d, 700) ? "go" : "news");
    if (chance(d, 500))
        put_seconds(d, "timeout", 2, 400);
    end(d);
    if (chance(d, 200))
        put(d, "expect", "${has(output.ok)}");
    draw_retry(d, 300);
}

static void draw_workflow(struct drawing *d)
{
    begin(d, "workflow");
    json_put_str(d->w, S("name"),
                 str_printf(d->arena, "w%lld", (long long) between(d, 0, d->index - 1)));
    begin(d, "input");
    put(d, "n", "${input.n}");
    put(d, "items", "${input.items}");
    end(d);
    end(d);
    draw_retry(d, 200);
}

/* ---- one step ---- */

static void draw_holder(struct drawing *d)
{
    switch (between(d, 0, 3)) {
    case 0: draw_branch(d); break;
    case 1: draw_map(d); break;
    case 2: draw_parallel(d); break;
    default: draw_loop(d); break;
    }
    if (chance(d, 80))
        put_seconds(d, "timeout", 5, 120);
}

static void draw_leaf(struct drawing *d, bool is_undoable)
{
    int64_t kind = between(d, 0, 99);
    if (is_undoable || kind < 40)
        draw_tool(d, is_undoable);
    else if (kind < 52)
        draw_model(d);
    else if (kind < 60)
        draw_agent(d);
    else if (kind < 70)
        draw_approval(d);
    else if (kind < 83)
        draw_sleep(d);
    else if (kind < 94 || d->index == 0)
        draw_signal(d);
    else
        draw_workflow(d);
}

static void draw_step(struct drawing *d)
{
    bool is_holder = d->depth < DEPTH && chance(d, d->depth == 1 ? 350 : 150);
    bool is_undoable = !is_holder && chance(d, 350);
    json_object_begin(d->w);
    json_put_str(d->w, S("id"), str_printf(d->arena, "%s%d", is_undoable ? "u_" : "s", ++d->steps));
    draw_common(d);
    if (is_holder)
        draw_holder(d);
    else
        draw_leaf(d, is_undoable);
    json_object_end(d->w);
}

static void draw_steps(struct drawing *d, int64_t most)
{
    int64_t count = between(d, 1, most);
    json_array_begin(d->w);
    for (int64_t i = 0; i < count && (i == 0 || d->steps < STEPS_IN_ALL); i++)
        draw_step(d);
    json_array_end(d->w);
}

/* A failure at the end, so that there is something to undo. */
static void draw_doom(struct drawing *d)
{
    if (!chance(d, 350))
        return;
    json_object_begin(d->w);
    put(d, "id", "doom");
    put(d, "tool", "lookup");
    put(d, "expect", "${false}");
    json_object_end(d->w);
}

str definition_draw(struct world *world, struct arena *arena, int index)
{
    struct strbuf text;
    struct json_writer w;
    struct drawing d = {.world = world, .w = &w, .arena = arena, .index = index};
    strbuf_init(&text, arena, BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("name"), str_printf(arena, "w%d", index));
    put(&d, "version", "1.0.0");
    if (chance(&d, 200))
        put_seconds(&d, "timeout", 20, 600);
    if (chance(&d, 300)) {
        begin(&d, "budget");
        json_put_i64(&w, S("tokens"), between(&d, 1000, 20000));
        json_put_i64(&w, S("tool_calls"), between(&d, 2, 20));
        end(&d);
    }
    json_key(&w, S("steps"));
    json_array_begin(&w);
    int64_t count = between(&d, 2, 5);
    d.depth = 1;
    for (int64_t i = 0; i < count; i++)
        draw_step(&d);
    draw_doom(&d);
    json_array_end(&w);
    json_object_end(&w);
    return strbuf_str(&text);
}
