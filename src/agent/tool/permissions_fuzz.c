/* Any YAML as permissions: what is read is written in a form that reads back, and intersecting only
   ever narrows. */
#include "agent/tool/permissions.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static str write(struct arena *arena, const struct permissions *permissions)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 4u << 20);
    json_writer_init(&w, &text);
    permissions_write_json(&w, permissions);
    return strbuf_str(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    struct yaml_document document;
    struct permissions permissions;
    struct error e;
    if (!yaml_parse(arena, S("p.yaml"), str_of((const char *) data, size), &document, &e) ||
        !permissions_read(arena, &document, document.root, &permissions, &e))
        return 0;
    str text = write(arena, &permissions);
    const struct json *tree;
    ensure(json_parse(arena, text, (struct json_limits){0}, &tree, &e));
    struct permissions both = permissions_intersect(arena, &permissions, &permissions);
    ensure(both.languages.count <= permissions.languages.count);
    ensure(both.network.allowed_hosts.count <= permissions.network.allowed_hosts.count);
    (void) permissions_allow_read(&both, str_of((const char *) data, size < 64 ? size : 64));
    return 0;
}
