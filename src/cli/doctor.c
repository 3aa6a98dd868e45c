/* nexus doctor: what is not right with this machine, this configuration, this data folder, and how to mend it */
#include "cli/agent_process.h"
#include "cli/api.h"
#include "cli/config/config.h"
#include "cli/doctor_circuits.h"
#include "cli/settings.h"
#include "cli/shipped.h"

#include "agent/tool/registry.h"
#include "base/arena.h"
#include "net/tls.h"
#include "orchestrator/workflow/workflow_store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };
enum {
    FREE_BYTES_WARN_MB = 1024,
    FREE_BYTES_FAIL_MB = 64,
    FILES_WARN = 65536,
    KEY_AGE_WARN_DAYS = 7,
    PROVIDER_TIMEOUT_MS = 5000,
    TOOL_TIMEOUT_MS = 30000,
    CLOCK_YEAR_2026 = 1767225600
};

struct doctor {
    struct cli *cli;
    struct arena *arena;
    struct config *config; /* NULL: it could not be read */
    struct error config_error;
    const struct arguments *arguments;
    str detail, remedy; /* of the check at work */
    struct circuits_view server;
    bool has_asked;
};

static enum verdict say(struct doctor *doctor, enum verdict verdict, str detail, str remedy)
{
    doctor->detail = detail;
    doctor->remedy = remedy;
    return verdict;
}

static enum verdict say_error(struct doctor *doctor, const struct error *e, const char *remedy)
{
    return say(doctor, VERDICT_FAIL, str_copy(doctor->arena, str_from_cstr(e->message)),
               str_from_cstr(remedy));
}

/* Once, for all checks that want to know. */
static const struct circuits_view *ask_server(struct doctor *doctor)
{
    if (!doctor->has_asked)
        doctor->server = doctor_look_at_circuits(doctor->cli, doctor->arguments, doctor->config);
    doctor->has_asked = true;
    return &doctor->server;
}

/* ---- checks ---- */

static enum verdict check_config(struct doctor *doctor)
{
    if (!doctor->config)
        return say_error(doctor, &doctor->config_error,
                         "mend the line that is named; nexus config check looks again");
    str file = doctor->config->file;
    return say(doctor, VERDICT_OK,
               str_is_empty(file) ? S("no file: defaults and environment") : file, STR_NONE);
}

static enum verdict check_data(struct doctor *doctor)
{
    const char *dir = str_to_cstr(doctor->arena, doctor->config->data_dir);
    struct stat status;
    struct statvfs space;
    if (stat(dir, &status) != 0) {
        if (errno != ENOENT)
            return say(doctor, VERDICT_FAIL,
                       str_printf(doctor->arena, "%s: %s", dir, strerrordesc_np(errno)),
                       S("choose another with --data"));
        return say(doctor, VERDICT_OK,
                   str_printf(doctor->arena, "%s: not there yet, the first start makes it", dir),
                   STR_NONE);
    }
    if (!S_ISDIR(status.st_mode) || access(dir, W_OK | X_OK) != 0)
        return say(doctor, VERDICT_FAIL, str_printf(doctor->arena, "%s cannot be written", dir),
                   S("chown it to the user that runs nexus"));
    int64_t free_mb =
        statvfs(dir, &space) == 0 ? (int64_t) (space.f_bavail * space.f_frsize >> 20) : 0;
    str detail = str_printf(doctor->arena, "%s, %lld MiB free", dir, (long long) free_mb);
    if (free_mb < FREE_BYTES_WARN_MB)
        return say(doctor, free_mb < FREE_BYTES_FAIL_MB ? VERDICT_FAIL : VERDICT_WARN, detail,
                   S("make room; a full disk stops new runs"));
    if (status.st_mode & 077)
        return say(doctor, VERDICT_WARN,
                   str_printf(doctor->arena, "%s can be entered by others", dir),
                   str_printf(doctor->arena, "chmod 700 %s", dir));
    return say(doctor, VERDICT_OK, detail, STR_NONE);
}

static enum verdict check_keys(struct doctor *doctor)
{
    static const char *const files[] = {"admin.key", "keys.pepper", "audit.key", "mcp.key"};
    str dir = doctor->config->data_dir;
    struct stat status;
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        const char *path = str_to_cstr(
            doctor->arena, str_printf(doctor->arena, STR_FMT "/%s", STR_ARG(dir), files[i]));
        if (stat(path, &status) == 0 && (status.st_mode & 077))
            return say(doctor, VERDICT_FAIL,
                       str_printf(doctor->arena, "%s can be read by others", path),
                       str_printf(doctor->arena, "chmod 600 %s, then make new keys", path));
    }
    const char *admin =
        str_to_cstr(doctor->arena, str_printf(doctor->arena, STR_FMT "/admin.key", STR_ARG(dir)));
    if (stat(admin, &status) != 0)
        return say(doctor, VERDICT_OK, S("no admin.key lies around"), STR_NONE);
    int64_t days = (time(NULL) - status.st_mtime) / (24 * 3600);
    if (days < KEY_AGE_WARN_DAYS)
        return say(doctor, VERDICT_OK,
                   str_printf(doctor->arena, "%s is new: rotate it within %d days", admin,
                              KEY_AGE_WARN_DAYS),
                   STR_NONE);
    return say(doctor, VERDICT_WARN,
               str_printf(doctor->arena, "%s is %lld days old", admin, (long long) days),
               str_printf(doctor->arena,
                          "rotate it: nexus key create NAME --role admin --scope platform, keep "
                          "that key elsewhere, then nexus key "
                          "revoke the first one and delete %s",
                          admin));
}

static enum verdict check_port(struct doctor *doctor)
{
    const struct config *config = doctor->config;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {0};
    const char *host = str_to_cstr(doctor->arena, config->listen_address);
    socklen_t len = sizeof address.v4;
    if (inet_pton(AF_INET, host, &address.v4.sin_addr) == 1) {
        address.v4.sin_family = AF_INET;
        address.v4.sin_port = htons(config->listen_port);
    } else if (inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1) {
        address.v6.sin6_family = AF_INET6;
        address.v6.sin6_port = htons(config->listen_port);
        len = sizeof address.v6;
    } else {
        return say(doctor, VERDICT_FAIL, str_printf(doctor->arena, "%s is no IP address", host),
                   S("listen on 127.0.0.1, 0.0.0.0 or ::"));
    }
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        return say(doctor, VERDICT_FAIL, str_from_cstr(strerrordesc_np(errno)), STR_NONE);
    (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int failure = bind(fd, &address.any, len) == 0 ? 0 : errno;
    close(fd);
    if (failure == EADDRINUSE && ask_server(doctor)->is_running && doctor->server.is_own)
        return say(doctor, VERDICT_OK,
                   str_printf(doctor->arena, STR_FMT ": a server runs there and answers",
                              STR_ARG(config->listen)),
                   STR_NONE);
    if (failure == EADDRINUSE)
        return say(doctor, VERDICT_WARN,
                   str_printf(doctor->arena, STR_FMT " is taken (by a running nexus?)",
                              STR_ARG(config->listen)),
                   S("stop what listens there, or choose another: --listen or NEXUS_LISTEN"));
    if (failure)
        return say(doctor, VERDICT_FAIL,
                   str_printf(doctor->arena, STR_FMT ": %s", STR_ARG(config->listen),
                              strerrordesc_np(failure)),
                   S("choose another: --listen or NEXUS_LISTEN"));
    return say(doctor, VERDICT_OK,
               str_printf(doctor->arena, STR_FMT " is free", STR_ARG(config->listen)), STR_NONE);
}

static enum verdict check_tls(struct doctor *doctor)
{
    struct tls_server_options tls;
    struct error e = {0};
    if (!config_tls(doctor->config, &tls))
        return say(doctor, VERDICT_OK, S("none: plain HTTP"), STR_NONE);
    if (!config_check_files(doctor->config, &e))
        return say(doctor, VERDICT_FAIL, str_copy(doctor->arena, str_from_cstr(e.message)),
                   S("mend the files, then nexus config check"));
    if (tls_key_file_is_exposed(tls.key_file))
        return say(
            doctor, VERDICT_FAIL,
            str_printf(doctor->arena, STR_FMT " can be read by others", STR_ARG(tls.key_file)),
            str_printf(doctor->arena, "chmod 600 " STR_FMT ", then make a new key",
                       STR_ARG(tls.key_file)));
    return say(doctor, VERDICT_OK, S("certificate and key fit"), STR_NONE);
}

static enum verdict check_files(struct doctor *doctor)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return say(doctor, VERDICT_WARN, S("the limit of open files cannot be read"), STR_NONE);
    str detail =
        str_printf(doctor->arena, "%llu open files at most", (unsigned long long) files.rlim_max);
    if (files.rlim_max < FILES_WARN)
        return say(doctor, VERDICT_WARN, detail,
                   S("raise it for many clients: LimitNOFILE=1048576 in the unit, or ulimit -Hn"));
    return say(doctor, VERDICT_OK, detail, STR_NONE);
}

static enum verdict check_clock(struct doctor *doctor)
{
    time_t now = time(NULL);
    if (now < CLOCK_YEAR_2026)
        return say(doctor, VERDICT_FAIL, S("the clock is before 2026"),
                   S("set it; certificates, keys and budgets depend on it"));
    return say(doctor, VERDICT_OK, S("plausible"), STR_NONE);
}

static enum verdict check_policy(struct doctor *doctor)
{
    struct error e = {0};
    struct policy *policy;
    str dir = doctor->config->policy_dir;
    if (str_equal(doctor->config->policy_engine, S("off")))
        return say(doctor, VERDICT_WARN,
                   S("the policy is off: every call of every model and tool is allowed"),
                   S("remove policy.engine from the configuration"));
    if ((str_is_empty(dir) && !shipped_find(doctor->arena, "policies", "policy.dir", &dir, &e)) ||
        !doctor->cli->parts->create_policy(dir, doctor->config->policy_time_limit_ms, &policy, &e))
        return say_error(doctor, &e, "mend the rule that is named, or point policy.dir elsewhere");
    policy_destroy(policy);
    return say(doctor, VERDICT_OK, dir, STR_NONE);
}

static bool open_registry(struct doctor *doctor, struct registry **out, struct error *e)
{
    const struct config *config = doctor->config;
    struct registry_options options = {.tool_dir = config->tool_dir,
                                       .tool_config =
                                           config->document.root ? &config->document : NULL};
    return (!str_is_empty(options.tool_dir) ||
            shipped_find(doctor->arena, "toolbox", "tools.dir", &options.tool_dir, e)) &&
           registry_create(&options, out, e);
}

static enum verdict check_tools(struct doctor *doctor)
{
    struct error e = {0};
    struct registry *registry;
    if (!open_registry(doctor, &registry, &e))
        return say_error(doctor, &e,
                         "build them with make, or point tools.dir at a folder of tools");
    const struct registry_snapshot *tools = registry_acquire(registry);
    size_t count = registry_count(tools), broken = registry_error_count(tools);
    str detail = broken ? str_copy(doctor->arena, registry_error_at(tools, 0))
                        : str_printf(doctor->arena, "%zu tools", count);
    registry_release(tools);
    registry_destroy(registry);
    if (broken)
        return say(doctor, VERDICT_WARN, detail, S("mend that manifest; the other tools work"));
    if (count == 0)
        return say(doctor, VERDICT_FAIL, S("no tools"),
                   S("build them with make, or point tools.dir at a folder of tools"));
    return say(doctor, VERDICT_OK, detail, STR_NONE);
}

/* Does it take an input that is a message and nothing else?  What else it must have, nobody would give. */
static bool takes_message(struct doctor *doctor, const struct definition *definition)
{
    const struct json *schema, *item;
    struct error none = {0};
    str name;
    if (str_is_empty(definition->input_schema) ||
        !json_parse(doctor->arena, definition->input_schema, (struct json_limits){0}, &schema,
                    &none))
        return true;
    struct json_iter it = json_iter(json_get(schema, S("required")));
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &name) && !str_equal(name, S("message")))
            return false;
    return true;
}

static enum verdict check_agent_workflows(struct doctor *doctor)
{
    struct error e = {0};
    struct workflow_set *set;
    str name, range;
    size_t count = 0;
    enum verdict verdict = VERDICT_OK;
    if (!settings_read_workflows(doctor->config, &set, &e))
        return say_error(doctor, &e, "mend that file; nexus workflow validate tells all of it");
    for (size_t i = 0; i < doctor->config->agent_count && verdict == VERDICT_OK; i++) {
        const struct config_agent *agent = &doctor->config->agents[i];
        str_cut(agent->workflow, '@', &name, &range);
        if (str_is_empty(name))
            continue;
        const struct definition *definition = workflow_set_find(set, name, range);
        count++;
        if (!definition)
            verdict = say(doctor, VERDICT_WARN,
                          str_printf(doctor->arena,
                                     "agent " STR_FMT ": no folder has the workflow " STR_FMT,
                                     STR_ARG(agent->name), STR_ARG(agent->workflow)),
                          S("nexus workflow list shows what there is; put it, or mend the name"));
        else if (!takes_message(doctor, definition))
            verdict = say(doctor, VERDICT_WARN,
                          str_printf(doctor->arena,
                                     "agent " STR_FMT ": the workflow " STR_FMT
                                     " must be given more than a message",
                                     STR_ARG(agent->name), STR_ARG(agent->workflow)),
                          S("let its input require nothing but message"));
    }
    str detail = str_printf(doctor->arena, "%zu, of agents %zu", workflow_set_count(set), count);
    workflow_set_destroy(set);
    return verdict == VERDICT_OK ? say(doctor, VERDICT_OK, detail, STR_NONE) : verdict;
}

struct trial {
    struct executor *sandbox;
    const struct tool *tool;
    str output;
    struct arena *arena;
};

static bool run_tool(struct context *ctx, void *argument, struct error *e)
{
    struct trial *trial = argument;
    struct tool_request request = {.tool = trial->tool, .input = S("{}")};
    struct tool_result result = {0};
    if (!executor_execute(trial->sandbox, ctx, &request, &result, e))
        return false;
    trial->output = str_printf(trial->arena, "the tool time answered in %lld us",
                               (long long) result.latency_us);
    return true;
}

static bool try_sandbox(struct doctor *doctor, struct trial *trial, struct error *e)
{
    char folder[] = "/tmp/nexus-doctor.XXXXXX";
    if (!mkdtemp(folder))
        return error_set(e, REASON_UNAVAILABLE, "/tmp: %s", strerrordesc_np(errno));
    struct loop *loop = loop_create(clock_system(), random_system(), e);
    if (!loop)
        return false;
    bool is_ok = doctor->cli->parts->create_sandbox(str_from_cstr(folder), &trial->sandbox, e);
    if (is_ok && loop_start_thread(loop, "nexus-doctor", e)) {
        is_ok = sandbox_prepare(trial->sandbox, trial->tool, e) &&
                on_loop_call(loop, "doctor", TOOL_TIMEOUT_MS, run_tool, trial, e);
        loop_stop(loop);
        loop_join_thread(loop);
    }
    executor_destroy(trial->sandbox);
    loop_destroy(loop);
    folder_remove(folder);
    return is_ok;
}

static enum verdict check_sandbox(struct doctor *doctor)
{
    struct error e = {0};
    struct registry *registry;
    if (!open_registry(doctor, &registry, &e))
        return say_error(doctor, &e, "see the line of the tools");
    const struct registry_snapshot *tools = registry_acquire(registry);
    struct trial trial = {.tool = registry_find(tools, S("time"), STR_NONE),
                          .arena = doctor->arena};
    bool is_ok = trial.tool ? try_sandbox(doctor, &trial, &e)
                            : error_set(&e, REASON_NOT_FOUND, "there is no tool `time` to try");
    registry_release(tools);
    registry_destroy(registry);
    if (!is_ok)
        return say_error(
            doctor, &e,
            !trial.tool ? "see the line of the tools"
                        : "the sandbox needs memory that may be executed (check seccomp, SELinux, "
                          "noexec) and address space");
    return say(doctor, VERDICT_OK, trial.output, STR_NONE);
}

static enum verdict check_second_wall(struct doctor *doctor)
{
    struct error e = {0};
    str walls = STR_NONE;
    char folder[] = "/tmp/nexus-doctor-XXXXXX";
    if (!mkdtemp(folder))
        return say(doctor, VERDICT_WARN, S("no folder for a trial in /tmp"), S("make room there"));
    bool is_ok = agent_process_probe(str_from_cstr(folder), doctor->arena, &walls, &e);
    const char *key = str_to_cstr(doctor->arena, str_printf(doctor->arena, "%s/cache.key", folder));
    (void) unlink(key);
    (void) rmdir(folder);
    if (!is_ok)
        return say_error(doctor, &e,
                         "sandbox.process: on needs a kernel with seccomp filters, allowed to this "
                         "user (in a container: its own seccomp profile)");
    return say(doctor, VERDICT_OK, walls, STR_NONE);
}

/* ---- providers ---- */

struct probe {
    struct doctor *doctor;
    struct loop *loop;
    struct http_client *http;
    size_t reached, total;
    bool is_discovery;
    str failure, names;
};

static void probe_one(struct probe *probe, struct context *ctx,
                      const struct config_provider *provider)
{
    struct error e = {0};
    struct arena *arena = probe->doctor->arena;
    struct http_url url;
    OWNED(http_exchange) exchange = NULL;
    struct context brief;
    probe->total++;
    context_init_child(&brief, ctx, context_deadline_in(ctx, PROVIDER_TIMEOUT_MS));
    struct http_headers headers = {0};
    str key = provider->api_key_count > 0 ? secret_reveal(provider->api_keys[0]) : STR_NONE;
    str base = config_base_url(provider);
    if (str_equal(provider->type, S("anthropic"))) {
        http_headers_add(&headers, arena, S("anthropic-version"), S("2023-06-01"));
        if (!str_is_empty(key))
            http_headers_add(&headers, arena, S("x-api-key"), key);
        if (!str_ends_with(base, S("/v1")))
            base = str_printf(arena, STR_FMT "/v1", STR_ARG(base));
    } else if (!str_is_empty(key)) {
        http_headers_add(&headers, arena, S("Authorization"),
                         str_printf(arena, "Bearer " STR_FMT, STR_ARG(key)));
    }
    bool is_ok = http_url_parse(str_printf(arena, STR_FMT "/models", STR_ARG(base)), &url, &e);
    struct http_client_request request = {.method = HTTP_GET, .url = url, .headers = &headers};
    is_ok = is_ok && http_client_send(probe->http, &brief, &request, &exchange, &e);
    int status = is_ok ? http_exchange_status(exchange) : 0;
    context_deinit(&brief);
    if (is_ok && status < 400)
        probe->reached++;
    else
        probe->failure =
            status ? str_printf(arena, STR_FMT " answered %d %s", STR_ARG(provider->name), status,
                                http_status_text(status))
                   : str_printf(arena, STR_FMT ": %s", STR_ARG(provider->name), e.message);
}

static bool probe_all(struct context *ctx, void *argument, struct error *e)
{
    struct probe *probe = argument;
    const struct config *config = probe->doctor->config;
    if (!http_client_create(probe->loop, NULL, &probe->http, e))
        return false;
    for (size_t i = 0; i < config->provider_count; i++)
        if (!str_equal(config->providers[i].type, S("offline")))
            probe_one(probe, ctx, &config->providers[i]);
    bool is_ok = true;
    if (config->provider_count == 0) {
        struct discovered_provider *found;
        struct strbuf names;
        probe->is_discovery = true;
        is_ok =
            discover_providers(ctx, probe->http, config->listen_port, &found, &probe->reached, e);
        strbuf_init(&names, probe->doctor->arena, 512);
        for (size_t i = 0; is_ok && i < probe->reached; i++)
            strbuf_printf(&names, "%s" STR_FMT, i ? ", " : "", STR_ARG(found[i].name));
        probe->names = strbuf_str(&names);
    }
    http_client_destroy(probe->http);
    return is_ok;
}

static enum verdict check_providers(struct doctor *doctor)
{
    struct error e = {0};
    struct probe probe = {.doctor = doctor,
                          .loop = loop_create(clock_system(), random_system(), &e)};
    bool is_ok = probe.loop && loop_start_thread(probe.loop, "nexus-doctor", &e);
    if (is_ok) {
        is_ok = on_loop_call(probe.loop, "doctor", 0, probe_all, &probe, &e);
        loop_stop(probe.loop);
        loop_join_thread(probe.loop);
    }
    if (probe.loop)
        loop_destroy(probe.loop);
    if (!is_ok)
        return say_error(doctor, &e, "see the error");
    if (probe.is_discovery && probe.reached > 0)
        return say(doctor, VERDICT_OK,
                   str_printf(doctor->arena, "found: " STR_FMT, STR_ARG(probe.names)), STR_NONE);
    if (probe.is_discovery || probe.total == 0)
        return say(
            doctor, VERDICT_WARN, S("no real model: \"offline\", a scripted stand-in, will answer"),
            S("set OPENAI_API_KEY, start Ollama or another local server, or configure providers"));
    if (probe.reached < probe.total)
        return say(doctor, probe.reached ? VERDICT_WARN : VERDICT_FAIL, probe.failure,
                   S("check base_url, api_keys and the network"));
    return say(doctor, VERDICT_OK, str_printf(doctor->arena, "%zu reached", probe.reached),
               STR_NONE);
}

static enum verdict check_resilience(struct doctor *doctor)
{
    struct circuits_view view = *ask_server(doctor);
    if (!view.is_running && view.is_named)
        return say(doctor, VERDICT_WARN, view.failure,
                   S("--server or NEXUS_SERVER names it: is it the right one, does it run, and is "
                     "the key one of an operator?"));
    if (!view.is_running)
        return say(doctor, VERDICT_OK,
                   str_printf(doctor->arena,
                              "not asked of a server: " STR_FMT
                              " (--server or NEXUS_SERVER names another)",
                              STR_ARG(view.failure)),
                   STR_NONE);
    str queue = str_printf(doctor->arena, "%lld runs wait, pressure %.2f at " STR_FMT,
                           (long long) view.queued_runs, view.pressure, STR_ARG(view.server));
    if (view.open_count > 0)
        return say(doctor, VERDICT_WARN,
                   str_printf(doctor->arena, "open circuits: " STR_FMT "; " STR_FMT,
                              STR_ARG(view.open), STR_ARG(queue)),
                   S("what they lead to has failed again and again; see GET "
                     "/api/v1/system/resilience and the log"));
    if (view.full_count > 0)
        return say(doctor, VERDICT_WARN,
                   str_printf(doctor->arena, "no free place: " STR_FMT "; " STR_FMT,
                              STR_ARG(view.full), STR_ARG(queue)),
                   S("it is slow, or has too few places for what is asked: docs/resilience.md"));
    if (view.pressure >= 1)
        return say(doctor, VERDICT_WARN, queue,
                   S("the node refuses work: give it more room or fewer callers; "
                     "docs/resilience.md"));
    return say(doctor, VERDICT_OK,
               str_printf(doctor->arena, "no circuit is open; " STR_FMT, STR_ARG(queue)), STR_NONE);
}

static enum verdict check_prices(struct doctor *doctor)
{
    struct error e = {0};
    str unpriced;
    if (!config_unpriced(doctor->config, doctor->arena, &unpriced, &e))
        return say_error(doctor, &e, "mend the line that is named, or remove prices.file");
    if (!str_is_empty(unpriced))
        return say(doctor, VERDICT_WARN,
                   str_printf(doctor->arena, "none is known of " STR_FMT, STR_ARG(unpriced)),
                   S("give the target a `price`, or name a list by prices.file; without one it is "
                     "refused under a budget with money"));
    return say(doctor, VERDICT_OK, S("every configured model has one"), STR_NONE);
}

/* ---- the list ---- */

static const struct {
    const char *name;
    bool needs_config;
    enum verdict (*check)(struct doctor *doctor);
} checks[] = {
    {"configuration", false, check_config},
    {"data folder", true, check_data},
    {"keys", true, check_keys},
    {"port", true, check_port},
    {"TLS", true, check_tls},
    {"policies", true, check_policy},
    {"tools", true, check_tools},
    {"workflows", true, check_agent_workflows},
    {"sandbox", true, check_sandbox},
    {"second wall", true, check_second_wall},
    {"models", true, check_providers},
    {"prices", true, check_prices},
    {"resilience", true, check_resilience},
    {"open files", false, check_files},
    {"clock", false, check_clock},
};
static const char *const verdict_names[] = {"ok", "warn", "fail"};

static void print_check(struct doctor *doctor, const char *name, enum verdict verdict)
{
    static const enum style styles[] = {STYLE_GREEN, STYLE_YELLOW, STYLE_RED};
    bool has_colours = doctor->cli->is_terminal_out && doctor->cli->has_colours;
    printf("%s%-5s%s %-14s ", style_on(has_colours, styles[verdict]), verdict_names[verdict],
           style_off(has_colours), name);
    output_text(stdout, doctor->detail, false);
    if (!str_is_empty(doctor->remedy)) {
        printf("\n%21s-> ", "");
        output_text(stdout, doctor->remedy, false);
    }
    fputc('\n', stdout);
}

static int doctor(struct cli *cli, const struct arguments *arguments)
{
    struct doctor self = {.cli = cli, .arena = cli->arena, .arguments = arguments};
    struct config_sources sources = command_config_sources(cli, arguments);
    bool is_json = arguments_has(arguments, "json");
    enum verdict worst = VERDICT_OK;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, cli->arena, 64u << 10);
    json_writer_init(&w, &text);
    log_set_level(LOG_LEVEL_ERROR);
    if (!config_load(&sources, &self.config, &self.config_error))
        self.config = NULL;
    json_array_begin(&w);
    for (size_t i = 0; i < ARRAY_COUNT(checks); i++) {
        if (checks[i].needs_config && !self.config)
            continue;
        enum verdict verdict = checks[i].check(&self);
        worst = verdict > worst ? verdict : worst;
        if (!is_json) {
            print_check(&self, checks[i].name, verdict);
            continue;
        }
        json_object_begin(&w);
        json_put_str(&w, S("check"), str_from_cstr(checks[i].name));
        json_put_str(&w, S("verdict"), str_from_cstr(verdict_names[verdict]));
        json_put_str(&w, S("detail"), self.detail);
        if (!str_is_empty(self.remedy))
            json_put_str(&w, S("remedy"), self.remedy);
        json_object_end(&w);
    }
    json_array_end(&w);
    if (is_json)
        printf("{\"ok\":%s,\"checks\":" STR_FMT "}\n", worst < VERDICT_FAIL ? "true" : "false",
               STR_ARG(strbuf_str(&text)));
    config_destroy(self.config);
    blocking_pool_stop();
    return worst < VERDICT_FAIL ? EXIT_DONE : EXIT_FAILED;
}

static const struct option options[] = {
    {"config", 'c', "FILE", false,
     "configuration; else $NEXUS_CONFIG, ./nexus.yaml, /etc/nexus/nexus.yaml, or none"},
    {"data", 'd', "DIR", false, "as with serve"},
    {"listen", 'l', "ADDRESS:PORT", false, "as with serve"},
    {"server", 's', "URL", false,
     "a running server to be asked; else $NEXUS_SERVER, else where this configuration listens"},
    {"key", 'k', "KEY", false, "for it; else $NEXUS_API_KEY, else admin.key of the data folder"},
    {"json", 'j', NULL, false, "JSON instead of text"},
};
static const struct command commands[] = {
    {.name = "doctor",
     .operands = "",
     .summary = "Check machine, configuration, data folder, policies, tools, sandbox and models",
     .details =
         "Each line is ok, warn or fail, with what to do about it; exit 1 when something fails.\n"
         "All but the line resilience is about this machine and the configuration that is found "
         "here.",
     .example = "doctor --data ./data",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .run = doctor},
};
const struct command_group doctor_commands = {commands, ARRAY_COUNT(commands)};
