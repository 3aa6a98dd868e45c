#include "agent/profile.h"
#include "agent/sandbox/sandbox_wasm_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "nexus_native.h"
#include <stdio.h>
#include <stdlib.h>

enum { NS_PER_MS = 1000000 };

/* Made at a guest's first sample, so a call that is short costs nothing. */
struct sampler {
    struct profile *profile;
    int64_t last_ns;
    uint32_t count, interval_ticks, ticks;
    struct native_frame frames[SANDBOX_BACKTRACE_FRAMES_MAX];
    str names[SANDBOX_BACKTRACE_FRAMES_MAX + 1];
    char numbers[SANDBOX_BACKTRACE_FRAMES_MAX]
                [24]; /* "function 12", where the module has no names */
};

static struct sampler *sampler_of(struct guest *guest)
{
    if (guest->sampler)
        return guest->sampler;
    guest->sampler = calloc(1, sizeof *guest->sampler);
    ensure(guest->sampler != NULL);
    guest->sampler->interval_ticks = 1;
    guest->sampler->profile =
        profile_create(SANDBOX_PROFILE_FUNCTIONS_MAX, SANDBOX_PROFILE_NODES_MAX);
    return guest->sampler;
}

static str frame_name(struct sampler *sampler, size_t index)
{
    const struct native_frame *frame = &sampler->frames[index];
    if (frame->name[0] != '\0')
        return str_from_cstr(frame->name);
    int len = snprintf(sampler->numbers[index], sizeof sampler->numbers[index], "function %u",
                       frame->function_index);
    return str_of(sampler->numbers[index], (size_t) len);
}

/* A trace that was cut lacks its outermost callers: "..." stands for them. */
static size_t list_names(struct sampler *sampler, size_t frame_count)
{
    size_t count = 0;
    if (frame_count == SANDBOX_BACKTRACE_FRAMES_MAX)
        sampler->names[count++] = S("...");
    while (frame_count > 0)
        sampler->names[count++] = frame_name(sampler, --frame_count);
    return count;
}

void guest_sample(struct guest *guest, wasmtime_context_t *context, int64_t now_ns)
{
    struct sampler *sampler = sampler_of(guest);
    /* Early ticks (a guest asked to give way) are no measure of time. */
    if (now_ns - sampler->last_ns < (int64_t) SANDBOX_TICK_MS * NS_PER_MS * 3 / 4)
        return;
    sampler->last_ns = now_ns;
    if (++sampler->ticks < sampler->interval_ticks)
        return;
    sampler->ticks = 0;
    size_t frames = native_backtrace(context, sampler->frames, SANDBOX_BACKTRACE_FRAMES_MAX);
    profile_add(sampler->profile, sampler->names, list_names(sampler, frames),
                (uint64_t) sampler->interval_ticks * SANDBOX_TICK_MS);
    if (++sampler->count % SANDBOX_PROFILE_SAMPLES == 0)
        sampler->interval_ticks *= 2;
}

str guest_profile(const struct guest *guest, struct arena *arena)
{
    struct strbuf text;
    if (!guest->sampler)
        return STR_NONE;
    strbuf_init(&text, arena, SANDBOX_PROFILE_BYTES_MAX);
    profile_write_folded(guest->sampler->profile, &text);
    return strbuf_str(&text);
}

void guest_profile_dispose(struct guest *guest)
{
    if (!guest->sampler)
        return;
    profile_destroy(guest->sampler->profile);
    free(guest->sampler);
    guest->sampler = NULL;
}
