#include "base/arena.h"
#include "base/timefmt.h"
#include "orchestrator/replay/backtest_internal.h"

enum { DAY_BYTES = 10 };

/* ---- prices ---- */

static void price_call(struct backtest *b, const struct backtest_call *call, str provider,
                       str target)
{
    struct model_price price = prices_find(b->prices, provider, target, call->at_us);
    if (!price.is_known) {
        struct tally *line =
            backtest_tally(b, &b->price_result.unknown, provider, target, STR_NONE, STR_NONE);
        b->price_result.unpriced++;
        if (line)
            line->count++;
        return;
    }
    int64_t now = price_nanousd(&price, &call->usage);
    str day = str_slice(time_str(b->ctx->arena, call->at_us), 0, DAY_BYTES);
    struct tally *lines[] = {
        backtest_tally(b, &b->price_result.days, day, STR_NONE, STR_NONE, STR_NONE),
        backtest_tally(b, &b->price_result.models, call->model, provider, target, STR_NONE),
    };
    b->price_result.priced++;
    b->price_result.old_nanousd += call->nanousd;
    b->price_result.new_nanousd += now;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        if (lines[i]) {
            lines[i]->count++;
            lines[i]->old_nanousd += call->nanousd;
            lines[i]->new_nanousd += now;
        }
}

/* ---- routes ---- */

bool backtest_routes_read(struct backtest *b, const struct json *router, struct error *e)
{
    const struct json *models = json_get(router, S("models")), *item, *target;
    struct json_iter it = json_iter(models);
    b->routes = ARENA_ARRAY(b->arena, struct route_model, json_count(models) + 1);
    while (json_next(&it, NULL, &item)) {
        struct route_model *model = &b->routes[b->route_count++];
        struct json_iter targets = json_iter(json_get(item, S("targets")));
        model->name = str_copy(b->arena, json_str_or(item, S("name"), STR_NONE));
        model->targets = ARENA_ARRAY(b->arena, struct route_target, targets.count + 1);
        while (json_next(&targets, NULL, &target)) {
            struct route_target *made = &model->targets[model->target_count++];
            *made = (struct route_target){
                .provider = str_copy(b->arena, json_str_or(target, S("provider"), STR_NONE)),
                .model = str_copy(b->arena, json_str_or(target, S("model"), STR_NONE)),
                .weight = json_i64_or(target, S("weight"), 1),
                .priority = json_i64_or(target, S("priority"), 0),
            };
            if (str_is_empty(made->provider) || str_is_empty(made->model) || made->weight < 1)
                return error_set(e, REASON_CONFIG,
                                 "router: a target of model \"" STR_FMT
                                 "\" needs provider, model and a weight from 1",
                                 STR_ARG(model->name));
        }
        if (str_is_empty(model->name) || model->target_count == 0)
            return error_set(e, REASON_CONFIG, "router: each model needs a name and targets");
    }
    return b->route_count > 0 ||
           error_set(e, REASON_CONFIG, "router: it needs \"models\", as in the configuration");
}

static const struct route_model *find_route(const struct backtest *b, str model)
{
    for (size_t i = 0; i < b->route_count; i++)
        if (str_equal(b->routes[i].name, model))
            return &b->routes[i];
    return NULL;
}

/* Who would have got it: each target of the lowest priority its share; for a price, the one that is owed most so far. */
static const struct route_target *route_call(struct backtest *b, const struct backtest_call *call,
                                             const struct route_model *model)
{
    int64_t lowest = INT64_MAX, sum = 0;
    const struct route_target *chosen = NULL;
    double most = -1;
    for (size_t i = 0; i < model->target_count; i++)
        if (model->targets[i].priority < lowest)
            lowest = model->targets[i].priority;
    for (size_t i = 0; i < model->target_count; i++)
        sum += model->targets[i].priority == lowest ? model->targets[i].weight : 0;
    for (size_t i = 0; i < model->target_count; i++) {
        const struct route_target *target = &model->targets[i];
        struct tally *line = backtest_tally(b, &b->route_result.targets, call->model,
                                            target->provider, target->model, STR_NONE);
        if (!line || target->priority != lowest)
            continue;
        line->expected += (double) target->weight / (double) sum;
        if (line->expected - (double) line->count > most) {
            most = line->expected - (double) line->count;
            chosen = target;
        }
    }
    if (!chosen)
        return NULL;
    struct tally *line = backtest_tally(b, &b->route_result.targets, call->model, chosen->provider,
                                        chosen->model, STR_NONE);
    if (line)
        line->count++;
    str from = str_printf(b->ctx->arena, STR_FMT "/" STR_FMT, STR_ARG(call->provider),
                          STR_ARG(call->target));
    str to = str_printf(b->ctx->arena, STR_FMT "/" STR_FMT, STR_ARG(chosen->provider),
                        STR_ARG(chosen->model));
    struct tally *move = backtest_tally(b, &b->route_result.moves, call->model, from, to, STR_NONE);
    if (move)
        move->count++;
    b->route_result.routed++;
    return chosen;
}

void backtest_call(struct backtest *b, const struct backtest_call *call)
{
    const struct route_model *route = b->route_count > 0 ? find_route(b, call->model) : NULL;
    const struct route_target *target = route ? route_call(b, call, route) : NULL;
    b->calls++;
    if (b->prices)
        price_call(b, call, target ? target->provider : call->provider,
                   target ? target->model : call->target);
}

/* ---- the report ---- */

static void write_money(struct json_writer *w, const struct tally *line)
{
    json_put_i64(w, S("calls"), line->count);
    json_put_i64_str(w, S("was_nanousd"), line->old_nanousd);
    json_put_i64_str(w, S("would_be_nanousd"), line->new_nanousd);
    json_put_i64_str(w, S("difference_nanousd"), line->new_nanousd - line->old_nanousd);
}

static void write_lines(struct json_writer *w, const char *member, const struct tallies *list,
                        const char *const names[3], bool has_money)
{
    json_key(w, str_from_cstr(member));
    json_array_begin(w);
    for (size_t i = 0; i < list->count; i++) {
        json_object_begin(w);
        for (size_t k = 0; k < 3; k++)
            if (names[k])
                json_put_str(w, str_from_cstr(names[k]), list->items[i].key[k]);
        if (has_money)
            write_money(w, &list->items[i]);
        else
            json_put_i64(w, S("calls"), list->items[i].count);
        json_object_end(w);
    }
    json_array_end(w);
}

void backtest_calls_write(const struct backtest *b, struct json_writer *w)
{
    static const char *const day[3] = {"day"}, *const model[3] = {"model", "provider", "target"},
                             *const unknown[3] = {"provider", "target"},
                             *const move[3] = {"model", "from", "to"};
    if (b->prices) {
        json_key(w, S("prices"));
        json_object_begin(w);
        json_put_i64(w, S("priced"), b->price_result.priced);
        json_put_i64(w, S("unpriced"), b->price_result.unpriced);
        json_put_i64_str(w, S("was_nanousd"), b->price_result.old_nanousd);
        json_put_i64_str(w, S("would_be_nanousd"), b->price_result.new_nanousd);
        json_put_i64_str(w, S("difference_nanousd"),
                         b->price_result.new_nanousd - b->price_result.old_nanousd);
        write_lines(w, "days", &b->price_result.days, day, true);
        write_lines(w, "models", &b->price_result.models, model, true);
        write_lines(w, "unknown", &b->price_result.unknown, unknown, false);
        json_object_end(w);
    }
    if (b->route_count == 0)
        return;
    json_key(w, S("router"));
    json_object_begin(w);
    json_put_i64(w, S("routed"), b->route_result.routed);
    write_lines(w, "targets", &b->route_result.targets, model, false);
    write_lines(w, "moves", &b->route_result.moves, move, false);
    json_object_end(w);
}
