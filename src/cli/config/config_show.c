/* the settings in force, and the reference of all settings, from the table */
#include "cli/config/config_internal.h"

#include "base/arena.h"
#include "base/timefmt.h"

/* ---- values in force ---- */

static const struct config_origin *find_origin(const struct config *config,
                                               const struct setting *setting)
{
    for (size_t i = 0; i < config->origin_count; i++)
        if (config->origins[i].setting == setting)
            return &config->origins[i];
    return NULL;
}

static void write_table(struct json_writer *w, const struct setting_table *table, const void *base,
                        const struct config *origins);

static void write_list(struct json_writer *w, const struct setting *row, const void *base)
{
    void *at = (void *) (uintptr_t) base;
    size_t count = *setting_count_at(row, at);
    json_array_begin(w);
    for (size_t i = 0; i < count; i++) {
        if (row->kind == SETTING_ITEMS)
            write_table(w, row->table, *(char **) setting_at(row, at) + i * row->table->item_bytes,
                        NULL);
        else if (row->kind == SETTING_SECRETS)
            json_write_str(w, S("(secret)"));
        else
            json_write_str(w, (*(str **) setting_at(row, at))[i]);
    }
    json_array_end(w);
}

static void write_value(struct json_writer *w, const struct setting *row, const void *base)
{
    const int64_t *number = setting_at(row, (void *) (uintptr_t) base);
    switch (row->kind) {
    case SETTING_TEXT:
    case SETTING_CHOICE:
        json_write_str(w, *(const str *) setting_at(row, (void *) (uintptr_t) base));
        break;
    case SETTING_COUNT:
    case SETTING_BYTES:
    case SETTING_DURATION: json_write_i64(w, *number); break;
    case SETTING_AMOUNT:
        if (*number == COST_UNLIMITED)
            json_write_null(w);
        else
            json_write_i64(w, *number);
        break;
    case SETTING_MONEY:
        if (*number == COST_UNLIMITED) {
            json_write_null(w);
        } else {
            OWNED(arena) arena = arena_create(0);
            json_write_str(w, money_format_usd(arena, *number));
        }
        break;
    case SETTING_TEXTS:
    case SETTING_SECRETS:
    case SETTING_ITEMS: write_list(w, row, base); break;
    case SETTING_SECTION: write_table(w, row->table, base, NULL); break;
    }
}

/* At the root (`origins`) each value comes with where it was set; a reference stays a reference. */
static void write_table(struct json_writer *w, const struct setting_table *table, const void *base,
                        const struct config *origins)
{
    json_object_begin(w);
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *row = &table->rows[i];
        json_key(w, str_from_cstr(row->name));
        if (!origins || row->kind == SETTING_SECTION) {
            if (row->kind == SETTING_SECTION)
                write_table(w, row->table, base, origins);
            else
                write_value(w, row, base);
            continue;
        }
        const struct config_origin *origin = find_origin(origins, row);
        json_object_begin(w);
        json_key(w, S("value"));
        if (origin && !str_is_empty(origin->text))
            json_write_str(w, origin->text);
        else
            write_value(w, row, base);
        json_put_str(w, S("from"), origin ? origin->where : S("default"));
        json_object_end(w);
    }
    json_object_end(w);
}

void config_write_json(struct json_writer *w, const struct config *config)
{
    write_table(w, &config_table, config, config);
}

/* ---- the reference ---- */

static void write_reference(struct strbuf *out, const struct setting_table *table, str prefix,
                            bool is_item)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *row = &table->rows[i];
        str path = str_printf(out->arena, STR_FMT "%s%s", STR_ARG(prefix), prefix.len ? "." : "",
                              row->name);
        bool is_group = row->kind == SETTING_SECTION || row->kind == SETTING_ITEMS;
        strbuf_printf(out, "`" STR_FMT "%s`", STR_ARG(path),
                      row->kind == SETTING_ITEMS ? "[]" : "");
        if (row->is_required)
            strbuf_add(out, S(" (required)"));
        else if (row->otherwise &&
                 !(is_item && row->kind == SETTING_MONEY)) /* a price not said is none */
            strbuf_printf(out, " = `%s`", row->otherwise);
        strbuf_printf(out, ": %s", row->help);
        if (row->choices)
            strbuf_printf(out, " (%s)", row->choices);
        if (!is_item && !is_group)
            strbuf_printf(out, "  [" STR_FMT "]",
                          STR_ARG(setting_environment_name(out->arena, path)));
        strbuf_add_char(out, '\n');
        if (is_group)
            write_reference(out, row->table,
                            row->kind == SETTING_ITEMS
                                ? str_printf(out->arena, STR_FMT "[]", STR_ARG(path))
                                : path,
                            is_item || row->kind == SETTING_ITEMS);
    }
}

void config_write_reference(struct strbuf *out)
{
    write_reference(out, &config_table, STR_NONE, false);
}
