#include "llm/prices.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "base/yaml.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A line of the catalogue: some names of one provider, for a time. */
struct price_entry {
    const struct price_provider *provider;
    str *names; /* the model, then its aliases; one that ends in * covers what begins so */
    size_t name_count;
    int64_t from_us, until_us; /* until is not part of it */
    struct model_price price;
};
struct price_provider {
    str name;
    str *hosts;
    size_t host_count;
};
struct prices {
    struct arena *arena;
    str date, version;
    struct price_entry *entries;
    size_t count, capacity;
};

/* One file while it is read. */
struct reader {
    struct prices *prices;
    struct yaml_document document;
    const struct price_provider *provider;
};

/* ---- values ---- */

static bool wrong(const struct reader *r, const struct json *at, struct error *e, const char *what)
{
    return yaml_error(&r->document, at, e, "%s", what);
}

static bool only_members(const struct reader *r, const struct json *object, const char *known,
                         struct error *e)
{
    if (json_type(object) != JSON_OBJECT)
        return yaml_error(&r->document, object, e, "a map with %s is expected here", known);
    struct json_iter it = json_iter(object);
    const struct json *item;
    str key;
    while (json_next(&it, &key, &item)) {
        str rest = str_from_cstr(known), name;
        bool is_known = false;
        while (!is_known && str_next(&rest, ' ', &name))
            is_known = str_equal(name, key);
        if (!is_known)
            return yaml_error(&r->document, item, e,
                              "unknown member \"" STR_FMT "\"; known are: %s", STR_ARG(key), known);
    }
    return true;
}

static bool read_text(const struct reader *r, const struct json *object, const char *name, str *out,
                      struct error *e)
{
    const struct json *value = json_get(object, str_from_cstr(name));
    if (!json_to_str(value, out) || str_is_empty(*out))
        return yaml_error(&r->document, value ? value : object, e, "\"%s\" needs a text", name);
    *out = str_copy(r->prices->arena, *out);
    return true;
}

static bool read_texts(const struct reader *r, const struct json *object, const char *name,
                       str **out, size_t *count, struct error *e)
{
    const struct json *list = json_get(object, str_from_cstr(name)), *item;
    *out = ARENA_ARRAY(r->prices->arena, str, json_count(list) + 1);
    *count = 0;
    if (!list)
        return true;
    if (json_type(list) != JSON_ARRAY)
        return yaml_error(&r->document, list, e, "\"%s\" needs a list of texts", name);
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item)) {
        str text;
        if (!json_to_str(item, &text) || str_is_empty(text))
            return yaml_error(&r->document, item, e, "\"%s\" needs texts", name);
        (*out)[(*count)++] = str_copy(r->prices->arena, text);
    }
    return true;
}

/* "2.50" US dollars per million tokens are 2,500,000 pico-USD per token: six decimals are exact, more are refused. */
static bool read_rate(const struct reader *r, const struct json *object, const char *name,
                      int64_t otherwise, int64_t *out, struct error *e)
{
    enum { NANOUSD_PER_PICOUSD_PER_TOKEN = 1000 };
    const struct json *value = json_get(object, str_from_cstr(name));
    str text;
    int64_t nanousd;
    *out = otherwise;
    if (!value && otherwise != INT64_MIN)
        return true;
    if (!json_to_str(value, &text) || !money_parse_usd(text, &nanousd) || nanousd < 0 ||
        nanousd % NANOUSD_PER_PICOUSD_PER_TOKEN != 0)
        return yaml_error(&r->document, value ? value : object, e,
                          "\"%s\" needs US dollars per million tokens in quotes, with at most six "
                          "decimals: \"2.50\"",
                          name);
    *out = nanousd / NANOUSD_PER_PICOUSD_PER_TOKEN;
    return true;
}

static bool read_rates(const struct reader *r, const struct json *object, struct price_rates *out,
                       struct error *e)
{
    return read_rate(r, object, "input", INT64_MIN, &out->input, e) &&
           read_rate(r, object, "cached", PRICE_LIKE_INPUT, &out->cached, e) &&
           read_rate(r, object, "cache_write", PRICE_LIKE_INPUT, &out->cache_write, e) &&
           read_rate(r, object, "output", INT64_MIN, &out->output, e) &&
           read_rate(r, object, "reasoning", PRICE_LIKE_INPUT, &out->reasoning, e);
}

enum { DAY_S = 24 * 3600 };

static bool read_day(const struct reader *r, const struct json *object, const char *name,
                     int64_t *out_us, struct error *e)
{
    const struct json *value = json_get(object, str_from_cstr(name));
    char text[32];
    str day;
    if (!value)
        return true;
    if (json_to_str(value, &day) && day.len == 10) {
        snprintf(text, sizeof text, STR_FMT "T00:00:00Z", STR_ARG(day));
        if (time_parse(str_from_cstr(text), out_us))
            return true;
    }
    return yaml_error(&r->document, value, e, "\"%s\" needs a day: 2026-11-05", name);
}

/* ---- entries ---- */

static bool read_long(const struct reader *r, const struct json *model, struct model_price *out,
                      struct error *e)
{
    const struct json *section = json_get(model, S("long_prompt"));
    if (!section)
        return true;
    if (!only_members(r, section, "above_tokens input cached cache_write output reasoning", e))
        return false;
    if (!json_to_i64(json_get(section, S("above_tokens")), &out->long_above_tokens) ||
        out->long_above_tokens <= 0)
        return wrong(r, section, e, "\"above_tokens\" needs a count of tokens");
    return read_rates(r, section, &out->long_rates, e);
}

static bool overlaps(const struct price_entry *a, const struct price_entry *b)
{
    if (a->provider != b->provider || a->from_us >= b->until_us || b->from_us >= a->until_us)
        return false;
    for (size_t i = 0; i < a->name_count; i++) {
        for (size_t j = 0; j < b->name_count; j++) {
            if (str_equal(a->names[i], b->names[j]))
                return true;
        }
    }
    return false;
}

static bool add_entry(const struct reader *r, const struct json *at,
                      const struct price_entry *entry, struct error *e)
{
    struct prices *prices = r->prices;
    if (entry->from_us >= entry->until_us)
        return wrong(r, at, e, "\"valid_to\" is before \"valid_from\"");
    for (size_t i = 0; i < prices->count; i++) {
        if (overlaps(&prices->entries[i], entry))
            return yaml_error(&r->document, at, e,
                              "a name of \"" STR_FMT "\" has two prices at the same time; give "
                              "them \"valid_from\" and \"valid_to\"",
                              STR_ARG(entry->names[0]));
    }
    if (prices->count >= PRICE_ENTRIES_MAX)
        return yaml_error(&r->document, at, e, "more than %d prices", PRICE_ENTRIES_MAX);
    if (prices->count == prices->capacity) {
        size_t capacity = prices->capacity ? prices->capacity * 2 : 64;
        prices->entries =
            arena_grow(prices->arena, prices->entries, prices->capacity * sizeof *prices->entries,
                       capacity * sizeof *prices->entries);
        prices->capacity = capacity;
    }
    prices->entries[prices->count++] = *entry;
    return true;
}

static bool read_model(const struct reader *r, const struct json *model, struct error *e)
{
    struct price_entry entry = {
        .provider = r->provider, .until_us = INT64_MAX, .price = {.is_known = true}};
    struct price_rates rates;
    str name, *aliases;
    size_t alias_count;
    if (!only_members(r, model,
                      "model aliases valid_from valid_to input cached cache_write output reasoning "
                      "long_prompt",
                      e) ||
        !read_text(r, model, "model", &name, e) ||
        !read_texts(r, model, "aliases", &aliases, &alias_count, e) ||
        !read_rates(r, model, &rates, e) || !read_long(r, model, &entry.price, e) ||
        !read_day(r, model, "valid_from", &entry.from_us, e) ||
        !read_day(r, model, "valid_to", &entry.until_us, e))
        return false;
    if (json_get(model, S("valid_to"))) /* the day itself is part of it */
        entry.until_us += DAY_S * 1000000ll;
    entry.names = ARENA_ARRAY(r->prices->arena, str, alias_count + 1);
    entry.names[entry.name_count++] = name;
    for (size_t i = 0; i < alias_count; i++)
        entry.names[entry.name_count++] = aliases[i];
    entry.price.input_picousd_per_token = rates.input;
    entry.price.cached_picousd_per_token = rates.cached;
    entry.price.cache_write_picousd_per_token = rates.cache_write;
    entry.price.output_picousd_per_token = rates.output;
    entry.price.reasoning_picousd_per_token = rates.reasoning;
    return add_entry(r, model, &entry, e);
}

static bool read_provider(struct reader *r, const struct json *value, struct error *e)
{
    struct price_provider *provider = ARENA_NEW(r->prices->arena, struct price_provider);
    const struct json *models = json_get(value, S("models")), *model;
    if (!only_members(r, value, "provider hosts models", e) ||
        !read_text(r, value, "provider", &provider->name, e) ||
        !read_texts(r, value, "hosts", &provider->hosts, &provider->host_count, e))
        return false;
    if (json_type(models) != JSON_ARRAY)
        return wrong(r, models ? models : value, e, "\"models\" needs a list");
    r->provider = provider;
    struct json_iter it = json_iter(models);
    while (json_next(&it, NULL, &model)) {
        if (!read_model(r, model, e))
            return false;
    }
    return true;
}

static bool read_file(struct prices *prices, str name, str text, struct error *e)
{
    OWNED(arena) scratch = arena_create(0);
    struct reader r = {.prices = prices};
    const struct json *item;
    str date, version, source;
    int64_t day;
    if (!yaml_parse(scratch, name, text, &r.document, e))
        return false;
    const struct json *root = r.document.root, *providers = json_get(root, S("providers"));
    if (!only_members(&r, root, "version date source providers", e) ||
        !read_text(&r, root, "version", &version, e) || !read_text(&r, root, "date", &date, e) ||
        !read_day(&r, root, "date", &day, e) || !read_text(&r, root, "source", &source, e))
        return false;
    if (json_type(providers) != JSON_ARRAY)
        return wrong(&r, providers ? providers : root, e, "\"providers\" needs a list");
    struct json_iter it = json_iter(providers);
    while (json_next(&it, NULL, &item)) {
        if (!read_provider(&r, item, e))
            return false;
    }
    if (str_compare(date, prices->date) > 0) {
        prices->date = date;
        prices->version = version;
    }
    return true;
}

/* ---- files ---- */

static struct prices *prices_create(void)
{
    struct arena *arena = arena_create(0);
    struct prices *prices = ARENA_NEW(arena, struct prices);
    prices->arena = arena;
    return prices;
}

void prices_destroy(struct prices *prices)
{
    if (prices)
        arena_destroy(prices->arena);
}

bool prices_parse(str name, str text, struct prices **out, struct error *e)
{
    OWNED(prices) prices = prices_create();
    if (!read_file(prices, name, text, e))
        return false;
    *out = GIVE(prices);
    return true;
}

static bool load_file(struct prices *prices, const char *path, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    FILE *file = fopen(path, "re");
    if (!file)
        return error_set(e, REASON_CONFIG, "price list %s: %s", path, strerrordesc_np(errno));
    char *text = arena_alloc_raw(arena, YAML_BYTES_MAX + 1);
    size_t len = fread(text, 1, YAML_BYTES_MAX + 1, file);
    bool is_broken = ferror(file) != 0;
    (void) fclose(file);
    if (is_broken || len > YAML_BYTES_MAX)
        return error_set(e, REASON_CONFIG, "price list %s: %s", path,
                         is_broken ? "cannot be read" : "is too large");
    return read_file(prices, str_from_cstr(path), str_of(text, len), e);
}

static int is_list(const struct dirent *entry)
{
    str name = str_from_cstr(entry->d_name);
    return str_ends_with(name, S(".yaml")) && entry->d_name[0] != '.';
}

static bool load_folder(struct prices *prices, str path, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct dirent **names = NULL;
    int count = scandir(str_to_cstr(arena, path), &names, is_list, alphasort);
    bool ok = count > 0 ||
              error_set(e, REASON_CONFIG, "no price lists (*.yaml) in " STR_FMT, STR_ARG(path));
    for (int i = 0; i < count; i++) {
        str file = str_printf(arena, STR_FMT "/%s", STR_ARG(path), names[i]->d_name);
        ok = ok && load_file(prices, str_to_cstr(arena, file), e);
        free(names[i]);
    }
    free(names);
    return ok;
}

bool prices_load(str path, struct prices **out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    OWNED(prices) prices = prices_create();
    struct stat status;
    const char *name = str_to_cstr(arena, path);
    bool is_folder = stat(name, &status) == 0 && S_ISDIR(status.st_mode);
    if (!(is_folder ? load_folder(prices, path, e) : load_file(prices, name, e)))
        return false;
    *out = GIVE(prices);
    return true;
}

str prices_date(const struct prices *prices)
{
    return prices->date;
}

str prices_version(const struct prices *prices)
{
    return prices->version;
}

size_t prices_count(const struct prices *prices)
{
    return prices->count;
}

/* ---- finding ---- */

static bool is_of(const struct price_provider *provider, str name)
{
    if (str_equal_nocase(provider->name, name))
        return true;
    for (size_t i = 0; i < provider->host_count; i++) {
        str host = provider->hosts[i], below;
        if (str_equal_nocase(host, name))
            return true;
        if (str_strip_prefix(host, S("*"), &below) && name.len > below.len &&
            str_equal_nocase(str_from(name, name.len - below.len), below))
            return true;
    }
    return false;
}

static bool are_digits(str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
    }
    return text.len > 0;
}

/* "-2024-08-06" or "-20241022" at the end. */
static str without_date(str model)
{
    if (model.len > 11) {
        str tail = str_from(model, model.len - 11);
        if (tail.ptr[0] == '-' && tail.ptr[5] == '-' && tail.ptr[8] == '-' &&
            are_digits(str_slice(tail, 1, 5)) && are_digits(str_slice(tail, 6, 8)) &&
            are_digits(str_slice(tail, 9, 11)))
            return str_slice(model, 0, model.len - 11);
    }
    if (model.len > 9 && model.ptr[model.len - 9] == '-' &&
        are_digits(str_from(model, model.len - 8)))
        return str_slice(model, 0, model.len - 9);
    return model;
}

/* How well a name of the file fits: exactly, or how much of it; 0: not. */
static size_t fit_of(str name, str model)
{
    if (str_equal(name, model))
        return SIZE_MAX;
    if (str_ends_with(name, S("*")) && str_starts_with(model, str_slice(name, 0, name.len - 1)))
        return name.len;
    return 0;
}

static const struct price_entry *find(const struct prices *prices, str provider, str model,
                                      int64_t at_unix_us)
{
    const struct price_entry *best = NULL;
    size_t best_fit = 0;
    for (size_t i = 0; i < prices->count; i++) {
        const struct price_entry *entry = &prices->entries[i];
        if (at_unix_us < entry->from_us || at_unix_us >= entry->until_us ||
            !is_of(entry->provider, provider))
            continue;
        for (size_t j = 0; j < entry->name_count; j++) {
            size_t fit = fit_of(entry->names[j], model);
            if (fit > best_fit) {
                best_fit = fit;
                best = entry;
            }
        }
    }
    return best;
}

struct model_price prices_find(const struct prices *prices, str provider, str model,
                               int64_t at_unix_us)
{
    const struct price_entry *entry = find(prices, provider, model, at_unix_us);
    str base = without_date(model);
    if (!entry && base.len < model.len)
        entry = find(prices, provider, base, at_unix_us);
    return entry ? entry->price : (struct model_price){0};
}
