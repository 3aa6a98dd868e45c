#include "cli/doctor_circuits.h"
#include "base/arena.h"
#include "cli/client.h"
#include "net/tls.h"

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

/* Where a server of this configuration listens, as seen from here. */
static str own_server(struct arena *arena, const struct config *config)
{
    str host = config->listen_address;
    struct tls_server_options tls;
    if (str_equal(host, S("0.0.0.0")))
        host = S("127.0.0.1");
    if (str_equal(host, S("::")))
        host = S("::1");
    bool is_ipv6 = str_find_char(host, ':') != STR_NOT_FOUND;
    return str_printf(arena, "%s://%s" STR_FMT "%s:%d", config_tls(config, &tls) ? "https" : "http",
                      is_ipv6 ? "[" : "", STR_ARG(host), is_ipv6 ? "]" : "",
                      (int) config->listen_port);
}

/*
 * The key that is given, else the first administrator's in the data folder, unless it was put away: then nothing is known.  Another server
 * than this folder's is never shown that key.
 */
static bool find_key(struct arena *arena, const struct arguments *arguments,
                     const struct config *config, bool is_own, str *out, struct error *e)
{
    *out = client_key_given(arguments);
    if (!str_is_empty(*out))
        return true;
    if (!is_own)
        return error_set(e, REASON_UNAUTHENTICATED,
                         "there is no key for it: give one by --key or NEXUS_API_KEY");
    return client_read_key_file(
        arena, str_printf(arena, STR_FMT "/admin.key", STR_ARG(config->data_dir)), out, e);
}

struct circuits_view doctor_look_at_circuits(struct cli *cli, const struct arguments *arguments,
                                             const struct config *config)
{
    struct circuits_view view = {.server = client_server_named(arguments)};
    struct look *look = ARENA_NEW(cli->arena, struct look);
    struct error e = {0};
    str key = STR_NONE;
    str own = own_server(cli->arena, config);
    view.is_named = !str_is_empty(view.server);
    if (!view.is_named)
        view.server = own;
    view.is_own = str_equal(view.server, own);
    look->view = &view;
    strbuf_init(&look->names, cli->arena, 4096);
    strbuf_init(&look->full, cli->arena, 4096);
    if (find_key(cli->arena, arguments, config, view.is_own, &key, &e) &&
        client_open(&look->client, cli, arguments, view.server, key, &e)) {
        (void) !on_loop_call(look->client.loop, "doctor", LOOK_TIMEOUT_MS, ask, look, &e);
        client_close(&look->client);
    }
    if (!view.is_running)
        view.failure = str_copy(cli->arena, str_from_cstr(e.message));
    view.open = strbuf_str(&look->names);
    view.full = strbuf_str(&look->full);
    return view;
}
