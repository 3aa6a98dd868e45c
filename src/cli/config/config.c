#include "cli/config/config.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "cli/config/config_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct config_reader {
    struct config *config;
    struct arena *arena;
    const char *(*environment)(const char *);
};

static const char *process_environment(const char *name)
{
    return getenv(name);
}

/* ---- defaults ---- */

static void fill_defaults(const struct setting_table *table, struct arena *arena, void *base)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *row = &table->rows[i];
        struct error e;
        bool is_value_of_its_kind = true;
        if (row->kind == SETTING_SECTION)
            fill_defaults(row->table, arena, base);
        else if (row->otherwise)
            is_value_of_its_kind =
                setting_read_text(row, arena, str_from_cstr(row->otherwise), base, &e);
        ensure(is_value_of_its_kind);
    }
}

/* ---- the file ---- */

static bool read_table(struct config_reader *reader, const struct setting_table *table,
                       const struct json *object, void *base, struct error *e);

static void remember_origin(struct config_reader *reader, const struct setting *setting, str text,
                            str where)
{
    struct config *config = reader->config;
    for (size_t i = 0; i < config->origin_count; i++)
        if (config->origins[i].setting == setting) {
            config->origins[i].text = text;
            config->origins[i].where = where;
            return;
        }
    if (config->origin_count < CONFIG_ITEMS_MAX)
        config->origins[config->origin_count++] = (struct config_origin){setting, text, where};
}

/* A scalar of the file as text, references resolved. */
static bool scalar_text(struct config_reader *reader, const struct setting *setting,
                        const struct json *value, str *out, struct error *e)
{
    struct error why;
    str text;
    switch (json_type(value)) {
    case JSON_STRING:
        (void) json_to_str(value, &text);
        if (!config_has_reference(text)) {
            *out = text;
            return true;
        }
        if (config_resolve(reader->arena, text, reader->environment, out, &why))
            return true;
        return yaml_error(&reader->config->document, value, e, "%s: %s", setting->name,
                          why.message);
    case JSON_NULL:
    case JSON_BOOL:
    case JSON_INTEGER:
    case JSON_REAL: *out = json_print(reader->arena, value); return true;
    case JSON_ABSENT:
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    return yaml_error(&reader->config->document, value, e, "%s must be one value, not %s",
                      setting->name, json_type_name(json_type(value)));
}

static bool read_scalar(struct config_reader *reader, const struct setting *setting,
                        const struct json *value, void *base, struct error *e)
{
    struct error why;
    str text;
    if (!scalar_text(reader, setting, value, &text, e))
        return false;
    if (json_type(value) == JSON_NULL && setting->kind == SETTING_TEXT)
        text = STR_NONE;
    if (!setting_read_text(setting, reader->arena, text, base, &why))
        return yaml_error(&reader->config->document, value, e, "%s: %s", setting->name,
                          why.message);
    return true;
}

static bool read_texts(struct config_reader *reader, const struct setting *setting,
                       const struct json *value, void *base, struct error *e)
{
    size_t count = json_count(value), index = 0;
    bool is_secret = setting->kind == SETTING_SECRETS;
    if (json_type(value) != JSON_ARRAY || count > CONFIG_ITEMS_MAX)
        return yaml_error(&reader->config->document, value, e,
                          "%s must be a list of at most %d texts: [a, b]", setting->name,
                          CONFIG_ITEMS_MAX);
    str *texts = is_secret ? NULL : ARENA_ARRAY(reader->arena, str, count + 1);
    struct secret **secrets =
        is_secret ? ARENA_ARRAY(reader->arena, struct secret *, count + 1) : NULL;
    *(void **) setting_at(setting, base) = is_secret ? (void *) secrets : (void *) texts;
    const struct json *item;
    struct json_iter it = json_iter(value);
    for (; json_next(&it, NULL, &item); index++) {
        str text;
        bool has_members = setting->may_have_members && json_type(item) == JSON_OBJECT;
        const struct json *named = has_members ? json_get(item, S("name")) : item;
        if (has_members && !named)
            return yaml_error(&reader->config->document, item, e, "an item of %s needs a name",
                              setting->name);
        if (!scalar_text(reader, setting, named, &text, e))
            return false;
        if (str_is_empty(str_trim(text)))
            return yaml_error(&reader->config->document, item, e, "%s has an empty text",
                              setting->name);
        if (is_secret)
            secrets[index] = secret_create(str_trim(text));
        else
            texts[index] = str_copy(reader->arena, text);
        *setting_count_at(setting, base) =
            index + 1; /* so that a failure later wipes what is there */
    }
    return true;
}

static bool read_items(struct config_reader *reader, const struct setting *setting,
                       const struct json *value, void *base, struct error *e)
{
    const struct setting_table *table = setting->table;
    size_t count = json_count(value), index = 0;
    if (json_type(value) != JSON_ARRAY || count > CONFIG_ITEMS_MAX)
        return yaml_error(&reader->config->document, value, e,
                          "%s must be a list of at most %d items", setting->name, CONFIG_ITEMS_MAX);
    char *items = arena_alloc_array(reader->arena, count + 1, table->item_bytes);
    *(void **) setting_at(setting, base) = items;
    const struct json *item;
    struct json_iter it = json_iter(value);
    for (; json_next(&it, NULL, &item); index++) {
        void *at = items + index * table->item_bytes;
        fill_defaults(table, reader->arena, at);
        *setting_count_at(setting, base) = index + 1;
        if (!read_table(reader, table, item, at, e))
            return false;
    }
    return true;
}

static bool unknown_setting(const struct config_reader *reader, const struct setting_table *table,
                            str name, const struct json *value, struct error *e)
{
    str shown = str_cut_utf8(name, 60);
    const char *nearest = setting_nearest(table, name);
    if (nearest)
        return yaml_error(&reader->config->document, value, e,
                          "unknown setting \"" STR_FMT "\" in %s; did you mean %s?", STR_ARG(shown),
                          table->item, nearest);
    struct strbuf names;
    strbuf_init(&names, reader->arena, 300);
    for (size_t i = 0; i < table->count; i++)
        strbuf_printf(&names, "%s%s", i ? ", " : "", table->rows[i].name);
    return yaml_error(&reader->config->document, value, e,
                      "unknown setting \"" STR_FMT "\" in %s; there are: " STR_FMT, STR_ARG(shown),
                      table->item, STR_ARG(strbuf_str(&names)));
}

static bool read_setting(struct config_reader *reader, const struct setting *setting,
                         const struct json *value, void *base, struct error *e)
{
    switch (setting->kind) {
    case SETTING_SECTION:
        return json_type(value) == JSON_NULL || read_table(reader, setting->table, value, base, e);
    case SETTING_ITEMS:
        return json_type(value) == JSON_NULL || read_items(reader, setting, value, base, e);
    case SETTING_TEXTS:
    case SETTING_SECRETS:
        return json_type(value) == JSON_NULL || read_texts(reader, setting, value, base, e);
    case SETTING_TEXT:
    case SETTING_CHOICE:
    case SETTING_COUNT:
    case SETTING_AMOUNT:
    case SETTING_DURATION:
    case SETTING_BYTES:
    case SETTING_MONEY: return read_scalar(reader, setting, value, base, e);
    }
    unreachable_state();
}

static bool check_required(const struct config_reader *reader, const struct setting_table *table,
                           const struct json *object, struct error *e)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *row = &table->rows[i];
        str text;
        const struct json *value = json_get(object, str_from_cstr(row->name));
        bool is_empty = !value || json_type(value) == JSON_NULL ||
                        (json_to_str(value, &text) && str_is_empty(text));
        if (row->is_required && is_empty)
            return yaml_error(&reader->config->document, value ? value : object, e,
                              "this %s has no %s; add it: %s", table->item, row->name, row->help);
    }
    return true;
}

static bool read_table(struct config_reader *reader, const struct setting_table *table,
                       const struct json *object, void *base, struct error *e)
{
    struct config *config = reader->config;
    if (json_type(object) != JSON_OBJECT)
        return yaml_error(&config->document, object, e,
                          "%s must be a mapping (name: value), not %s", table->item,
                          json_type_name(json_type(object)));
    str name;
    const struct json *value;
    struct json_iter it = json_iter(object);
    while (json_next(&it, &name, &value)) {
        const struct setting *row = NULL;
        for (size_t i = 0; i < table->count && !row; i++)
            if (str_equal(name, str_from_cstr(table->rows[i].name)))
                row = &table->rows[i];
        if (!row && table->has_open_members)
            continue;
        if (!row)
            return unknown_setting(reader, table, name, value, e);
        if (!read_setting(reader, row, value, base, e))
            return false;
        if (base == config && row->kind != SETTING_SECTION) {
            str raw;
            remember_origin(reader, row,
                            json_to_str(value, &raw) && config_has_reference(raw) ? raw : STR_NONE,
                            str_printf(reader->arena, STR_FMT ":%d", STR_ARG(config->file),
                                       yaml_line(&config->document, value)));
        }
    }
    return check_required(reader, table, object, e);
}

/* ---- environment and command line ---- */

/* Every plain setting below the root that the environment names. */
static bool read_environment(struct config_reader *reader, const struct setting_table *table,
                             str prefix, struct error *e)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *row = &table->rows[i];
        str path = str_is_empty(prefix)
                       ? str_from_cstr(row->name)
                       : str_printf(reader->arena, STR_FMT ".%s", STR_ARG(prefix), row->name);
        if (row->kind == SETTING_SECTION) {
            if (!read_environment(reader, row->table, path, e))
                return false;
            continue;
        }
        if (row->kind == SETTING_ITEMS)
            continue;
        str name = setting_environment_name(reader->arena, path);
        const char *value = reader->environment(str_to_cstr(reader->arena, name));
        if (!value || !*value)
            continue;
        if (!setting_read_text(row, reader->arena, str_from_cstr(value), reader->config, e))
            return error_wrap(e, STR_FMT, STR_ARG(name));
        remember_origin(reader, row, STR_NONE, name);
    }
    return true;
}

static const struct setting *find_setting(const struct setting_table *table, str path)
{
    str head, tail;
    bool is_nested = str_cut(path, '.', &head, &tail);
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *row = &table->rows[i];
        if (!str_equal(str_from_cstr(row->name), head))
            continue;
        if (!is_nested)
            return row;
        return row->kind == SETTING_SECTION ? find_setting(row->table, tail) : NULL;
    }
    return NULL;
}

static bool read_overrides(struct config_reader *reader, const struct config_sources *sources,
                           struct error *e)
{
    for (size_t i = 0; i < sources->override_count; i++) {
        const struct config_override *override = &sources->overrides[i];
        const struct setting *row = find_setting(&config_table, str_from_cstr(override->name));
        ensure(row != NULL);
        if (!setting_read_text(row, reader->arena, override->value, reader->config, e))
            return error_wrap(e, "%s", override->label);
        remember_origin(reader, row, STR_NONE, str_from_cstr(override->label));
    }
    return true;
}

/* ---- life ---- */

bool config_parse(str file, str text, const struct config_sources *sources, struct config **out,
                  struct error *e)
{
    struct arena *arena = arena_create(64u << 20);
    OWNED(config) config = ARENA_NEW(arena, struct config);
    config->arena = arena;
    config->origins = ARENA_ARRAY(arena, struct config_origin, CONFIG_ITEMS_MAX);
    config->file = str_copy(arena, file);
    struct config_reader reader = {
        config, arena, sources->environment ? sources->environment : process_environment};
    fill_defaults(&config_table, arena, config);
    if (!str_is_empty(file)) {
        if (!yaml_parse(arena, config->file, str_copy(arena, text), &config->document, e))
            return false;
        bool is_empty = json_type(config->document.root) == JSON_NULL;
        if (!is_empty && !read_table(&reader, &config_table, config->document.root, config, e))
            return false;
    }
    if (!read_environment(&reader, &config_table, STR_NONE, e) ||
        !read_overrides(&reader, sources, e) || !config_check(config, e))
        return false;
    *out = GIVE(config);
    return true;
}

static bool read_file(struct arena *arena, str path, str *out, struct error *e)
{
    int fd = open(str_to_cstr(arena, path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    if (fd < 0)
        return error_set(e, REASON_CONFIG, STR_FMT ": %s; name the file with --config FILE",
                         STR_ARG(path), strerrordesc_np(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_size > (off_t) YAML_BYTES_MAX) {
        close(fd);
        return error_set(e, REASON_CONFIG, STR_FMT ": no plain file, or over %u bytes",
                         STR_ARG(path), YAML_BYTES_MAX);
    }
    char *bytes = arena_alloc_raw(arena, YAML_BYTES_MAX);
    size_t len = 0;
    ssize_t got;
    while (len < YAML_BYTES_MAX && (got = read(fd, bytes + len, YAML_BYTES_MAX - len)) > 0)
        len += (size_t) got;
    close(fd);
    *out = str_of(bytes, len);
    return true;
}

str config_find_file(struct arena *arena, const char *(*environment)(const char *) )
{
    static const char *const places[] = {"nexus.yaml", "/etc/nexus/nexus.yaml"};
    const char *named = (environment ? environment : process_environment)("NEXUS_CONFIG");
    if (named && *named)
        return str_copy(arena, str_from_cstr(named));
    for (size_t i = 0; i < ARRAY_COUNT(places); i++)
        if (access(places[i], F_OK) == 0)
            return str_from_cstr(places[i]);
    return STR_NONE;
}

bool config_load(const struct config_sources *sources, struct config **out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    str file = sources->file, text = STR_NONE;
    if (sources->has_no_file)
        file = STR_NONE;
    else if (str_is_empty(file))
        file = config_find_file(arena, sources->environment);
    if (!str_is_empty(file) && !read_file(arena, file, &text, e))
        return false;
    return config_parse(file, text, sources, out, e);
}

void config_destroy(struct config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->provider_count; i++)
        for (size_t j = 0; j < config->providers[i].api_key_count; j++)
            secret_destroy(config->providers[i].api_keys[j]);
    for (size_t i = 0; i < config->tracing_authorization_count; i++)
        secret_destroy(config->tracing_authorization[i]);
    arena_destroy(config->arena);
}

static bool read_percent(str text, int *thousandths)
{
    int64_t percent;
    if (!str_to_i64(text, &percent) || percent < 1 || percent > 100)
        return false;
    *thousandths = (int) percent * 10;
    return true;
}

int config_budget_alerts(const struct config *config, int out[BUDGET_ALERTS_MAX])
{
    int count = 0, threshold, newest = 0;
    for (size_t i = 0; i < config->budget_alert_count && count < BUDGET_ALERTS_MAX; i++)
        if (read_percent(config->budget_alerts[i], &threshold) && threshold > newest)
            out[count++] = newest = threshold;
    return count;
}

int config_webhook_retries(const struct config *config, int64_t out[WEBHOOK_RETRIES_MAX])
{
    int count = 0;
    int64_t wait_ms;
    for (size_t i = 0; i < config->webhooks.retry_count && count < WEBHOOK_RETRIES_MAX; i++)
        if (duration_parse(config->webhooks.retries[i], &wait_ms) && wait_ms > 0 &&
            wait_ms <= WEBHOOK_WEEK_MS)
            out[count++] = wait_ms;
    return count;
}

cost config_session_budget(const struct config *config)
{
    int64_t seconds = config->session_budget.time_seconds;
    return (cost){.tokens = config->session_budget.tokens,
                  .time_ms = seconds == COST_UNLIMITED ? COST_UNLIMITED : seconds * 1000,
                  .cost_nanousd = config->session_budget.cost_nanousd,
                  .tool_calls = config->session_budget.tool_calls};
}
