/* @NAME@: a Nexus tool.  sdk/nexus.h is the manual. */
#include "nexus.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool tool_run(const struct json *input, struct out *output, struct tool_error *e)
{
    struct text text;
    if (!json_text(json_get(input, "text"), &text))
        return tool_fail(e, "invalid_input", "text must be a string");

    int64_t words = 0;
    for (size_t i = 0; i < text.len; i++)
        words += !is_blank(text.ptr[i]) && (i == 0 || is_blank(text.ptr[i - 1]));
    if (words == 0)
        return tool_fail(e, "invalid_input", "text holds no word: give at least one word");

    out_object(output);
    out_name(output, "words");
    out_integer(output, words);
    out_end(output);
    return true;
}
