/* nexus tool: what changes tools: install, remove, pin, canary, deprecate, hide, narrow; and keys and signatures. */
#include "cli/api.h"
#include "cli/tool/tool_author.h"
#include "cli/tool/tool_pack.h"

#include "base/arena.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- NAME@VERSION ---- */

static bool read_version(struct client *client, str *name, str *version, struct error *e)
{
    str operand = arguments_operand(client->arguments, 0);
    if (str_cut(operand, '@', name, version) && !str_is_empty(*version))
        return true;
    return error_set(e, REASON_USAGE, "say which version: " STR_FMT "@1.2.3", STR_ARG(operand));
}

static const char *scope_of(const struct client *client)
{
    return arguments_has(client->arguments, "platform") ? "platform" : "tenant";
}

static str state_path(struct client *client, struct context *ctx, str name)
{
    return str_printf(ctx->arena, STR_FMT "?scope=%s",
                      STR_ARG(client_path(ctx, "/api/v1/tools/{}/state", &name)), scope_of(client));
}

/* A change of the state; `member` is JSON: "current":"1.2.3". */
static bool change(struct client *client, struct context *ctx, str name, str member,
                   struct error *e)
{
    str body = str_printf(ctx->arena, "{" STR_FMT "}", STR_ARG(member));
    return api_show(client, ctx, HTTP_PATCH, state_path(client, ctx, name), body, e);
}

static str quoted(struct arena *arena, str text)
{
    struct strbuf out;
    struct json_writer w;
    strbuf_init(&out, arena, 64u << 10);
    json_writer_init(&w, &out);
    json_write_str(&w, text);
    return strbuf_str(&out);
}

/* ---- install, remove ---- */

bool tool_upload(struct client *client, struct context *ctx, str path, const struct json **answer,
                 struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    OWNED(http_exchange) exchange = NULL;
    str archive, text;
    if (!tool_pack(arena, path, &archive, e))
        return false;
    struct client_request request = {
        .method = HTTP_POST,
        .path = str_printf(ctx->arena, "/api/v1/tools?scope=%s", scope_of(client)),
        .content_type = S("application/octet-stream"),
        .body = archive};
    return client_send(client, ctx, &request, &exchange, e) &&
           http_exchange_read_all(exchange, ctx, 64u << 10, &text, e) &&
           json_parse(ctx->arena, text, (struct json_limits){0}, answer, e);
}

static bool install(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *answer;
    if (!tool_upload(client, ctx, arguments_operand(client->arguments, 0), &answer, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, answer);
    else
        output_members(ctx->arena, answer);
    return true;
}

static bool remove_tool(struct client *client, struct context *ctx, struct error *e)
{
    str name, version;
    if (!read_version(client, &name, &version, e))
        return false;
    str path = str_printf(ctx->arena, STR_FMT "?version=" STR_FMT "&scope=%s",
                          STR_ARG(client_path(ctx, "/api/v1/tools/{}", &name)),
                          STR_ARG(http_percent_encode(ctx->arena, version)), scope_of(client));
    return api_do(client, ctx, HTTP_DELETE, path, STR_NONE, "removed",
                  arguments_operand(client->arguments, 0), e);
}

/* ---- states ---- */

static bool show_state(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET,
                    state_path(client, ctx, arguments_operand(client->arguments, 0)), STR_NONE, e);
}

static bool use(struct client *client, struct context *ctx, struct error *e)
{
    str name, version;
    bool is_pin = str_cut(arguments_operand(client->arguments, 0), '@', &name, &version);
    str value = is_pin ? quoted(ctx->arena, version) : S("null");
    return change(client, ctx, name, str_printf(ctx->arena, "\"current\":" STR_FMT, STR_ARG(value)),
                  e);
}

static bool canary(struct client *client, struct context *ctx, struct error *e)
{
    str name, version;
    int64_t percent;
    if (!read_version(client, &name, &version, e))
        return false;
    if (!str_to_i64(arguments_operand(client->arguments, 1), &percent) || percent < 0 ||
        percent > 100)
        return error_set(e, REASON_USAGE, "PERCENT is a number from 0 to 100; 0 ends the canary");
    str member =
        percent == 0
            ? S("\"canary\":null")
            : str_printf(ctx->arena, "\"canary\":{\"version\":" STR_FMT ",\"percent\":%lld}",
                         STR_ARG(quoted(ctx->arena, version)), (long long) percent);
    return change(client, ctx, name, member, e);
}

static bool set_deprecation(struct client *client, struct context *ctx, str text, struct error *e)
{
    str name, version;
    return read_version(client, &name, &version, e) &&
           change(client, ctx, name,
                  str_printf(ctx->arena, "\"deprecated\":{" STR_FMT ":" STR_FMT "}",
                             STR_ARG(quoted(ctx->arena, version)), STR_ARG(text)),
                  e);
}

static bool deprecate(struct client *client, struct context *ctx, struct error *e)
{
    return set_deprecation(client, ctx, quoted(ctx->arena, arguments_operand(client->arguments, 1)),
                           e);
}

static bool restore(struct client *client, struct context *ctx, struct error *e)
{
    return set_deprecation(client, ctx, S("null"), e);
}

static bool visibility(struct client *client, struct context *ctx, struct error *e)
{
    const struct arguments *arguments = client->arguments;
    str first = arguments_operand(arguments, 1);
    bool is_all = str_equal(first, S("all")), is_none = str_equal(first, S("none"));
    struct strbuf member;
    strbuf_init(&member, ctx->arena, 64u << 10);
    if (is_none) {
        strbuf_add(&member, S("\"hidden\":true"));
    } else if (is_all) {
        strbuf_add(&member, S("\"hidden\":false"));
        if (arguments_has(arguments, "platform"))
            strbuf_add(&member, S(",\"visible_to\":null"));
    } else {
        strbuf_add(&member, S("\"hidden\":false,\"visible_to\":["));
        for (size_t i = 1; i < arguments->operand_count; i++)
            strbuf_printf(&member, "%s" STR_FMT, i > 1 ? "," : "",
                          STR_ARG(quoted(ctx->arena, arguments_operand(arguments, i))));
        strbuf_add_char(&member, ']');
    }
    return change(client, ctx, arguments_operand(arguments, 0), strbuf_str(&member), e);
}

static bool permissions(struct client *client, struct context *ctx, struct error *e)
{
    str text;
    return tool_pack_read_file(ctx->arena, arguments_operand(client->arguments, 1),
                               MANIFEST_BYTES_MAX, &text, e) &&
           api_show(client, ctx, HTTP_PUT, api_path(client, ctx, "/api/v1/tools/{}/permissions"),
                    text, e);
}

/* ---- keys and signatures: without a server ---- */

static bool make_key(struct arena *arena, str path, struct error *e)
{
    uint8_t private_key[SIGNATURE_KEY_BYTES], public_key[SIGNATURE_KEY_BYTES];
    if (faccessat(AT_FDCWD, str_to_cstr(arena, path), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return error_set(e, REASON_USAGE,
                         STR_FMT " is there already; a key is not overwritten: remove it yourself",
                         STR_ARG(path));
    digest_random_bytes(private_key, sizeof private_key);
    signature_public_key(private_key, public_key);
    str text =
        str_printf(arena, STR_FMT "\n", STR_ARG(str_hex(arena, private_key, sizeof private_key)));
    bool is_ok = tool_pack_write_file(path, text, 0600, e);
    explicit_bzero(private_key, sizeof private_key);
    if (is_ok)
        printf("public key " STR_FMT "\n"
               "trust it:  tools: {trusted_keys: [{name: NAME, public_key: \"" STR_FMT "\"}]}\n",
               STR_ARG(str_hex(arena, public_key, sizeof public_key)),
               STR_ARG(str_hex(arena, public_key, sizeof public_key)));
    return is_ok;
}

static int keygen(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    return make_key(cli->arena, arguments_operand(arguments, 0), &e)
               ? EXIT_DONE
               : command_fail(cli, "tool keygen", &e);
}

static bool sign_package(struct arena *arena, struct package *package, const struct tool *tool,
                         const uint8_t key[SIGNATURE_KEY_BYTES], str *signature)
{
    const struct package_file *manifest = package_find(package, PACKAGE_MANIFEST);
    *signature = package_sign(arena, package_seal(tool, digest_sha256(manifest->bytes)), key);
    for (size_t i = 0; i < package->count; i++)
        if (str_equal(package->files[i].name, PACKAGE_SIGNATURE)) {
            package->files[i].bytes = *signature;
            return true;
        }
    if (package->count == PACKAGE_FILES_MAX)
        return false;
    package->files[package->count++] = (struct package_file){PACKAGE_SIGNATURE, *signature};
    return true;
}

static bool sign_with(struct arena *arena, str path, const uint8_t key[SIGNATURE_KEY_BYTES],
                      struct error *e)
{
    struct package package;
    struct tool tool;
    str archive, signature;
    bool is_folder = tool_pack_is_folder(arena, path);
    if (is_folder) {
        if (!tool_pack_folder(arena, path, &package, &tool, e))
            return false;
    } else if (!tool_pack(arena, path, &archive, e) || !package_read(archive, &package, e) ||
               !package_tool(arena, &package, &tool, e)) {
        return false;
    }
    if (!sign_package(arena, &package, &tool, key, &signature))
        return error_set(e, REASON_LIMIT, "the package has no room for a signature");
    if (is_folder)
        return tool_pack_write_file(str_printf(arena, STR_FMT "/manifest.sig", STR_ARG(path)),
                                    signature, 0644, e);
    return tool_pack_write_file(path, package_write(arena, &package), 0644, e);
}

bool tool_sign(struct arena *arena, str path, str key_file, struct error *e)
{
    uint8_t key[SIGNATURE_KEY_BYTES];
    str text;
    if (!tool_pack_read_file(arena, key_file, 256, &text, e))
        return false;
    bool is_ok = (package_key_read(text, key) ||
                  error_set(e, REASON_USAGE, STR_FMT " is no private key of `nexus tool keygen`",
                            STR_ARG(key_file))) &&
                 sign_with(arena, path, key, e);
    explicit_bzero(key, sizeof key);
    return is_ok;
}

static int sign(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    str file = arguments_get(arguments, "key");
    bool is_ok = !str_is_empty(file) ||
                 error_set(&e, REASON_USAGE, "name the private key: --key FILE (tool keygen)");
    if (!is_ok || !tool_sign(cli->arena, arguments_operand(arguments, 0), file, &e))
        return command_fail(cli, "tool sign", &e);
    printf("signed " STR_FMT "\n", STR_ARG(arguments_operand(arguments, 0)));
    return EXIT_DONE;
}

static int pack(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    str archive, path = arguments_operand(arguments, 1);
    if (!tool_pack(cli->arena, arguments_operand(arguments, 0), &archive, &e) ||
        !tool_pack_write_file(path, archive, 0644, &e))
        return command_fail(cli, "tool pack", &e);
    printf("packed " STR_FMT " (%zu bytes)\n", STR_ARG(path), archive.len);
    return EXIT_DONE;
}

/* ---- the table ---- */

static const struct option scope_options[] = {
    {"platform", 'p', NULL, false, "for all tenants, not only your own; needs the scope platform"}};
static const struct option sign_options[] = {
    {"key", 'k', "FILE", false, "the private key (tool keygen)"}};

#define CHANGES .options = scope_options, .option_count = ARRAY_COUNT(scope_options)
static const struct command commands[] = {
    {.name = "tool install",
     .operands = "PATH",
     .summary = "Install a tool from its folder or a .nexus-tool file",
     .example = "tool install ./wordcount.nexus-tool",
     CHANGES,
     .work = install},
    {.name = "tool remove",
     .operands = "TOOL@VERSION",
     .summary = "Remove an installed tool; calls in flight go on",
     .example = "tool remove wordcount@1.0.0",
     CHANGES,
     .work = remove_tool},
    {.name = "tool state",
     .operands = "TOOL",
     .summary = "What was decided about a tool: pin, canary, deprecation, visibility",
     .example = "tool state wordcount",
     CHANGES,
     .work = show_state},
    {.name = "tool use",
     .operands = "TOOL[@VERSION]",
     .summary = "Pin the version that callers get (roll back); without one: the newest again",
     .example = "tool use wordcount@1.0.0",
     CHANGES,
     .work = use},
    {.name = "tool canary",
     .operands = "TOOL@VERSION PERCENT",
     .summary = "Give a share of the sessions another version; 0 ends it",
     .example = "tool canary wordcount@1.1.0 10",
     CHANGES,
     .work = canary},
    {.name = "tool deprecate",
     .operands = "TOOL@VERSION TEXT",
     .summary = "Mark a version as no longer to be used, and say why",
     .example = "tool deprecate wordcount@1.0.0 'counts hyphens wrongly; use 1.1'",
     CHANGES,
     .work = deprecate},
    {.name = "tool restore",
     .operands = "TOOL@VERSION",
     .summary = "Take a deprecation back",
     .example = "tool restore wordcount@1.0.0",
     CHANGES,
     .work = restore},
    {.name = "tool visibility",
     .operands = "TOOL WHO...",
     .summary = "Who sees a tool: all, none, or (of the platform's) ids of tenants",
     .example = "tool visibility wordcount none",
     CHANGES,
     .work = visibility},
    {.name = "tool permissions",
     .operands = "TOOL FILE",
     .summary = "Narrow what a tool may do for your tenant; FILE is YAML or JSON",
     .example = "tool permissions http_request narrow.yaml",
     .work = permissions},
    {.name = "tool pack",
     .operands = "DIR FILE",
     .summary = "Make a package of a tool's folder",
     .example = "tool pack ./wordcount wordcount.nexus-tool",
     .run = pack},
    {.name = "tool keygen",
     .operands = "FILE",
     .summary = "Make a key to sign tools with; prints its public half",
     .example = "tool keygen author.key",
     .run = keygen},
    {.name = "tool sign",
     .operands = "PATH",
     .summary = "Sign a tool's folder or a .nexus-tool file",
     .example = "tool sign ./wordcount --key author.key",
     .options = sign_options,
     .option_count = ARRAY_COUNT(sign_options),
     .run = sign},
};
const struct command_group tool_registry_commands = {commands, ARRAY_COUNT(commands)};
