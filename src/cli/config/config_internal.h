/*
 * The table of settings and how its rows are read.
 *
 * A table describes one mapping of the YAML file.  Rows are values, or again tables: a section (members of the same struct), or a list of
 * items (structs of their own).
 */
#ifndef NEXUS_CLI_CONFIG_INTERNAL_H
#define NEXUS_CLI_CONFIG_INTERNAL_H

#include "cli/config/config.h"

enum setting_kind {
    SETTING_TEXT,
    SETTING_CHOICE,   /* text, one of `choices` ("a|b|c") */
    SETTING_COUNT,    /* int64_t within min..max */
    SETTING_AMOUNT,   /* the same; null or "unlimited" is COST_UNLIMITED */
    SETTING_DURATION, /* int64_t, milliseconds; "never" where min is 0 */
    SETTING_BYTES,    /* int64_t */
    SETTING_MONEY,    /* int64_t, nano-USD; null or "unlimited" is COST_UNLIMITED */
    SETTING_TEXTS,    /* str[], count at count_offset */
    SETTING_SECRETS,  /* struct secret *[], count at count_offset */
    SETTING_SECTION,  /* `table`, same struct */
    SETTING_ITEMS,    /* array of structs of `table` */
};

struct setting_table;
struct setting {
    const char *name;
    enum setting_kind kind;
    size_t offset, count_offset;
    const char *otherwise; /* default as text; NULL: empty or zero */
    int64_t min, max;
    const char *choices;
    const struct setting_table *table;
    bool is_required;
    bool
        may_have_members; /* TEXTS: an item may be a mapping whose `name` is the text; the rest is read elsewhere */
    const char *help;
};
struct setting_table {
    const struct setting *rows;
    size_t count;
    size_t item_bytes;     /* lists */
    const char *item;      /* what one is called in messages: "provider" */
    bool has_open_members; /* other names are allowed and read elsewhere: `tools` */
};
extern const struct setting_table config_table; /* of the file */
/* config_table_items.c: of one item of a list */
extern const struct setting_table config_provider_table, config_model_table, config_filter_table,
    config_agent_table;

enum { CONFIG_ITEMS_MAX = 256, CONFIG_REFERENCE_BYTES_MAX = 64 << 10 };

struct config_origin {
    const struct setting *setting;
    str text;  /* as written, references not resolved */
    str where; /* "nexus.yaml:3", "NEXUS_LISTEN", "--listen" */
};

/* config_value.c: one value from its text.  Fails with what is wrong, without a place. */
must_check bool setting_read_text(const struct setting *setting, struct arena *arena, str text,
                                  void *base, struct error *e);
void *setting_at(const struct setting *setting, void *base);
size_t *setting_count_at(const struct setting *setting, void *base);
/* "${env:NAME}" and "${file:PATH}" in a text. */
must_check bool config_resolve(struct arena *arena, str text,
                               const char *(*environment)(const char *), str *out, struct error *e);
bool config_has_reference(str text);
/* The nearest of the table's names, or NULL when none is near. */
const char *setting_nearest(const struct setting_table *table, str name);
/* "sessions.expiry" -> "NEXUS_SESSIONS_EXPIRY" */
str setting_environment_name(struct arena *arena, str path);

/* config_agents.c: an agent's other agents beside their names. */
must_check bool config_read_agent_links(struct config *config, struct config_agent *agent,
                                        const struct json *value, struct error *e);
must_check bool config_check_degrade(struct config *config, const struct config_agent *agent,
                                     const struct json *value, struct error *e);
/* Of an agent that is a workflow: nothing stands there that nobody would look at. */
must_check bool config_check_agent_workflow(struct config *config, const struct config_agent *agent,
                                            const struct json *value, struct error *e);

/* config_check.c: what rows alone cannot tell. */
must_check bool config_check(struct config *config, struct error *e);

#endif
