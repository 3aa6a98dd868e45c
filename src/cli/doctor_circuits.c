#include "cli/doctor_circuits.h"
#include "base/arena.h"
#include "cli/client.h"

enum { LOOK_TIMEOUT_MS = 5000 };

struct look {
    struct client client;
    struct circuits_view *view;
    struct strbuf names, full;
};

static void add_open(struct look *look, const struct json *items, str state_member, str kind_member,
                     str name_member)
{
    const struct json *item;
    struct json_iter it = json_iter(items);
    while (json_next(&it, NULL, &item)) {
        str state = json_str_or(item, state_member, STR_NONE);
        if (!str_equal(state, S("open")) && !str_equal(state, S("probing")))
            continue;
        strbuf_printf(&look->names, "%s" STR_FMT " " STR_FMT, look->view->open_count++ ? ", " : "",
                      STR_ARG(json_str_or(item, kind_member, S("provider"))),
                      STR_ARG(json_str_or(item, name_member, STR_NONE)));
    }
}

/* What others wait for. */
static void add_full(struct look *look, const struct json *items)
{
    const struct json *item;
    struct json_iter it = json_iter(items);
    while (json_next(&it, NULL, &item)) {
        int64_t places = json_i64_or(item, S("places"), 0),
                queued = json_i64_or(item, S("queued"), 0);
        if (places == 0 || queued == 0 || json_i64_or(item, S("in_use"), 0) < places)
            continue;
        strbuf_printf(&look->full, "%s" STR_FMT " " STR_FMT " (%lld wait for %lld places)",
                      look->view->full_count++ ? ", " : "",
                      STR_ARG(json_str_or(item, S("kind"), STR_NONE)),
                      STR_ARG(json_str_or(item, S("name"), STR_NONE)), (long long) queued,
                      (long long) places);
    }
}

static bool ask(struct context *ctx, void *argument, struct error *e)
{
    struct look *look = argument;
    const struct json *answer;
    if (!client_call(&look->client, ctx, HTTP_GET, S("/api/v1/system/resilience"), STR_NONE,
                     &answer, e))
        return false;
    look->view->is_running = true;
    add_open(look, json_get(answer, S("tools")), S("circuit"), S("kind"), S("name"));
    add_open(look, json_get(answer, S("providers")), S("state"), S("provider"),
             S("provider_model"));
    add_full(look, json_get(answer, S("provider_places")));
    add_full(look, json_get(answer, S("tools")));
    look->view->queued_runs = json_i64_or(json_get(answer, S("runs")), S("queued"), 0);
    (void) json_to_double(json_path(answer, S("/overload/pressure")), &look->view->pressure);
    return true;
}

/* The first administrator's key lies in the data folder, unless it was put away: then nothing is known. */
struct circuits_view doctor_look_at_circuits(struct cli *cli, const struct arguments *arguments,
                                             const struct config *config)
{
    struct circuits_view view = {0};
    struct look *look = ARENA_NEW(cli->arena, struct look);
    struct error e = {0};
    str key, path = str_printf(cli->arena, STR_FMT "/admin.key", STR_ARG(config->data_dir));
    str server = str_printf(cli->arena, "http://127.0.0.1:%d", (int) config->listen_port);
    look->view = &view;
    strbuf_init(&look->names, cli->arena, 4096);
    strbuf_init(&look->full, cli->arena, 4096);
    if (!client_read_key_file(cli->arena, path, &key, &e) ||
        !client_open(&look->client, cli, arguments, server, key, &e))
        return view;
    (void) !on_loop_call(look->client.loop, "doctor", LOOK_TIMEOUT_MS, ask, look, &e);
    client_close(&look->client);
    view.open = strbuf_str(&look->names);
    view.full = strbuf_str(&look->full);
    return view;
}
