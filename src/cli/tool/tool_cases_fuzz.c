/* Any bytes as a tests.yaml, and as a tool.build. */
#include "cli/tool/tool_cases.h"
#include "cli/tool/tool_author.h"

#include "base/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(64u << 20);
    str text = str_of((const char *) data, size);
    struct tool_cases cases;
    struct tool_recipe recipe;
    struct error e = {0};
    if (tool_cases_read(arena, S("tests.yaml"), text, &cases, &e))
        for (size_t i = 0; i < cases.count; i++) {
            str lines[TOOL_TEST_DIFFERENCES_MAX];
            const struct tool_case *test = &cases.items[i];
            if (test->output)
                (void) json_differences(arena, test->output,
                                        test->call_count ? test->calls[0].request : NULL, false,
                                        lines);
        }
    if (!tool_recipe_parse(arena, S("tool.build"), text, S("/nonexistent"), S("x.wasm"), &recipe,
                           &e))
        return 0;
    return recipe.command_count > TOOL_BUILD_COMMANDS_MAX;
}
