/* A configuration file of any bytes: an error with a place, or a configuration that can be shown. */
#include "cli/config/config.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* No file of this machine may be named by the input: the environment is empty and ${file:} is cut out. */
static const char *no_environment(const char *name)
{
    (void) name;
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config;
    struct error e = {0};
    struct config_sources sources = {.environment = no_environment};
    str text = str_of((const char *) data, size);
    if (str_find(text, S("file:")) != STR_NOT_FOUND)
        return 0;
    if (!config_parse(S("nexus.yaml"), text, &sources, &config, &e)) {
        ensure(e.code != ERROR_OK && e.message[0] != '\0');
        return 0;
    }
    struct arena *arena = arena_create(64u << 20);
    struct strbuf shown;
    struct json_writer w;
    const struct json *parsed;
    strbuf_init(&shown, arena, 32u << 20);
    json_writer_init(&w, &shown);
    config_write_json(&w, config);
    ensure(strbuf_is_over(&shown) ||
           json_parse(arena, strbuf_str(&shown),
                      (struct json_limits){.bytes_max = 32u << 20, .allow_duplicates = true},
                      &parsed, &e));
    arena_destroy(arena);
    config_destroy(config);
    return 0;
}
