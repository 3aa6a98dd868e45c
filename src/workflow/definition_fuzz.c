/*
 * Any text as a definition: either problems that say where and what, or a definition whose pictures can be drawn and whose canonical
 * form reads back to the same digest.
 */
#include "workflow/definition.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(64u << 20);
    str text = str_of((const char *) data, size);
    struct definition *definition, *again;
    struct definition_problems problems = {0};
    struct error e = {0};
    if (!definition_parse(arena, S("file"), text, &definition, &problems, &e)) {
        ensure(problems.count > 0 && problems.count <= WORKFLOW_PROBLEMS_MAX && e.message[0]);
        for (size_t i = 0; i < problems.count; i++)
            ensure(problems.items[i].message.len > 0 && str_is_utf8(problems.items[i].message));
        return 0;
    }
    ensure(definition->step_count <= WORKFLOW_STEPS_MAX && definition->digest.len == 64);
    ensure(definition_mermaid(arena, definition).len > 0);
    ensure(definition_svg(arena, definition).len > 0);
    ensure(definition_parse(arena, S("file"), definition->canonical, &again, &problems, &e));
    ensure(str_equal(again->digest, definition->digest));
    definition_destroy(again);
    definition_destroy(definition);
    return 0;
}
