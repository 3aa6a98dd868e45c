/* Any bytes as a folded profile (it comes from the process that runs guests): bounded, and what is kept reads back the same. */
#include "agent/profile.h"

#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static str folded(const struct profile *profile, struct arena *arena)
{
    struct strbuf text;
    strbuf_init(&text, arena, 1u << 20);
    profile_write_folded(profile, &text);
    return strbuf_str(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(arena) arena = arena_create(0);
    OWNED(profile) profile = profile_create(32, 64);
    OWNED(profile) copy = profile_create(32, 64);
    struct strbuf text;
    (void) profile_add_folded(profile, str_of((const char *) data, size));
    ensure(profile_add_folded(copy, folded(profile, arena)));
    ensure(profile_total_ms(profile) >= profile_total_ms(copy));
    strbuf_init(&text, arena, 1u << 20);
    profile_write_text(profile, &text);
    return 0;
}
