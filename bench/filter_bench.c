/*
 * What the content filter costs and how long it holds text back.
 *
 *     bench_filter_bench [FILE]      FILE: prose to filter; default: a passage of its own
 *
 * "tokens": a stream fed 16 bytes at a time, as a model writes; "whole": one call.  "scan alone" is the matcher's own cost per
 * token, the floor.  "held back": of words fed one by one (with the space before them, as tokens are), how many later tokens had
 * to come until all their bytes were out.
 */
#include "filter/filter_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TOKEN_BYTES = 16, NS_PER_S = 1000000000, DELAYS_MAX = 8 };
#define TEXT_BYTES ((size_t) 8 << 20)

static const char passage[] = "The committee met in the autumn of 1997 to decide what should "
                              "become of the old observatory. Its dome had not been "
                              "opened for eleven years; the brass gears, once the pride of the "
                              "town, were stiff with dust and winter damp. \"We could "
                              "sell it,\" said the treasurer, who liked short meetings, \"or we "
                              "could spend 40,000 a year and still not see a star.\" "
                              "Nobody laughed. At the far end of the table an engineer named Petra "
                              "had brought drawings: 12 sheets, folded twice, with "
                              "notes in pencil (see section 3.2). She explained that a motor of "
                              "1.5 kW would turn the dome in under 4 minutes, that the "
                              "roof needed 230 new slates, and that the university - for once - "
                              "was willing to lend a camera. Previous attempts had "
                              "failed for want of instructions; these, she said, a child could "
                              "follow. Please read them, all of them, before you vote.\n"
                              "for (size_t i = 0; i < count; i++) total += prices[i] * 100 / 3; // "
                              "see https://example.com/docs?id=42\n";

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

static str read_text(struct arena *arena, const char *path)
{
    struct strbuf text;
    char line[4096];
    size_t len;
    strbuf_init(&text, arena, TEXT_BYTES);
    FILE *file = path ? fopen(path, "rb") : NULL;
    while (file && (len = fread(line, 1, sizeof line, file)) > 0)
        strbuf_add(&text, str_of(line, len));
    if (file)
        fclose(file);
    str once = text.len > 0 ? str_copy(arena, strbuf_str(&text)) : str_from_cstr(passage);
    while (text.len + once.len <= TEXT_BYTES)
        strbuf_add(&text, once);
    return strbuf_str(&text);
}

static void count_finding(void *owner, const struct filter_finding *finding)
{
    (void) finding;
    ++*(size_t *) owner;
}

static void measure(const char *name, const struct filter_set *set, str text, size_t step)
{
    OWNED(arena) arena = arena_create(SIZE_MAX);
    OWNED(filter_stream) stream = filter_stream_create(set);
    struct strbuf out;
    size_t findings = 0;
    strbuf_init(&out, arena, filter_room(FILTER_SLICE_BYTES + step));
    struct filter_sink sink = {&out, count_finding, &findings};
    int64_t begin = now_ns();
    for (str rest = text; rest.len > 0; rest = str_from(rest, step)) {
        strbuf_truncate(&out, 0);
        ensure(filter_stream_feed(stream, str_slice(rest, 0, step), &sink));
    }
    ensure(filter_stream_end(stream, &sink));
    double seconds = (double) (now_ns() - begin) / NS_PER_S;
    printf("  %-28s %8.1f MB/s %10.1f ns per 16 bytes %8zu findings\n", name,
           (double) text.len / 1e6 / seconds, seconds * 1e9 * TOKEN_BYTES / (double) text.len,
           findings);
}

static int nothing(unsigned int id, unsigned long long from, unsigned long long to,
                   unsigned int flags, void *owner)
{
    (void) id, (void) from, (void) to, (void) flags, (void) owner;
    return 0;
}

static void measure_scan(const struct filter_set *set, str text)
{
    hs_stream_t *matcher;
    struct filter_thread *thread = filter_thread_for(set);
    ensure(hs_open_stream(set->database, 0, &matcher) == HS_SUCCESS);
    int64_t begin = now_ns();
    for (str rest = text; rest.len > 0; rest = str_from(rest, TOKEN_BYTES)) {
        str piece = str_slice(rest, 0, TOKEN_BYTES);
        hs_scan_stream(matcher, piece.ptr, (unsigned) piece.len, 0, thread->scratch, nothing, NULL);
    }
    double seconds = (double) (now_ns() - begin) / NS_PER_S;
    printf("  %-28s %8.1f MB/s %10.1f ns per 16 bytes\n", "scan alone, tokens",
           (double) text.len / 1e6 / seconds, seconds * 1e9 * TOKEN_BYTES / (double) text.len);
    hs_close_stream(matcher, NULL, NULL, NULL);
}

/* A word with the space before it. */
static str next_token(str text, size_t at)
{
    size_t end = at + 1;
    while (end < text.len && text.ptr[end] != ' ' && end - at < TOKEN_BYTES)
        end++;
    return str_slice(text, at, end);
}

static void measure_delay(const struct filter_set *set, str text)
{
    OWNED(arena) arena = arena_create(SIZE_MAX);
    OWNED(filter_stream) stream = filter_stream_create(set);
    struct strbuf out;
    size_t delays[DELAYS_MAX + 1] = {0}, tokens = 0, waiting = 0, held_max = 0, held_sum = 0;
    size_t ends[FILTER_HOLD_BYTES_MAX + 1]; /* of tokens that wait, oldest first */
    size_t born[FILTER_HOLD_BYTES_MAX + 1];
    strbuf_init(&out, arena, filter_room(TOKEN_BYTES));
    struct filter_sink sink = {&out, NULL, NULL};
    for (size_t at = 0; at < text.len; tokens++) {
        str token = next_token(text, at);
        at += token.len;
        strbuf_truncate(&out, 0);
        ensure(filter_stream_feed(stream, token, &sink));
        size_t held = filter_stream_held(stream), gone = 0;
        held_max = held > held_max ? held : held_max;
        held_sum += held;
        ends[waiting] = at;
        born[waiting++] = tokens;
        while (gone < waiting && ends[gone] <= at - held) {
            size_t delay = tokens - born[gone++];
            delays[delay < DELAYS_MAX ? delay : DELAYS_MAX]++;
        }
        waiting -= gone;
        memmove(ends, ends + gone, waiting * sizeof *ends);
        memmove(born, born + gone, waiting * sizeof *born);
    }
    printf("  held back, of %zu tokens:", tokens);
    for (size_t i = 0; i <= DELAYS_MAX; i++)
        printf("  %s%zu: %.2f%%", i == DELAYS_MAX ? ">=" : "", i,
               100.0 * (double) delays[i] / (double) tokens);
    printf("\n  held bytes after a token: mean %.1f, largest %zu\n",
           (double) held_sum / (double) tokens, held_max);
}

static void run(const char *name, struct filter_options options, str text, str numbers)
{
    struct error e;
    OWNED(filter_set) set = NULL;
    int64_t begin = now_ns();
    if (!filter_set_create(&options, &set, &e)) {
        fprintf(stderr, "%s\n", e.message);
        exit(1);
    }
    printf(
        "%s: %zu rules, compiled in %.0f ms, %.2f MiB (matcher %.2f), %zu automata of beginnings, "
        "stream %zu bytes (matcher %zu)\n",
        name, filter_set_rule_count(set), (double) (now_ns() - begin) / 1e6,
        (double) filter_set_bytes(set) / (1 << 20), (double) set->database_bytes / (1 << 20),
        set->hold_count, filter_set_stream_bytes(set), set->stream_bytes);
    measure_scan(set, str_slice(text, 0, TEXT_BYTES / 8));
    measure("prose, tokens", set, str_slice(text, 0, TEXT_BYTES / 4), TOKEN_BYTES);
    measure("prose, whole", set, text, text.len);
    measure("numbers, tokens", set, str_slice(numbers, 0, TEXT_BYTES / 16), TOKEN_BYTES);
    measure("numbers, whole", set, str_slice(numbers, 0, TEXT_BYTES / 4), numbers.len);
    measure_delay(set, str_slice(text, 0, TEXT_BYTES / 16));
}

int main(int argc, char **argv)
{
    OWNED(arena) arena = arena_create(SIZE_MAX);
    str text = read_text(arena, argc > 1 ? argv[1] : NULL);
    struct strbuf numbers;
    strbuf_init(&numbers, arena, TEXT_BYTES);
    for (uint64_t i = 1; numbers.len + 64 < TEXT_BYTES; i = i * 6364136223846793005u + 1)
        strbuf_printf(&numbers, "%llu,%llu-%llu,", (unsigned long long) (i >> 12),
                      (unsigned long long) (i >> 40), (unsigned long long) (i >> 54));
    struct filter_options all = {.groups = {FILTER_MASK, FILTER_MASK, FILTER_MASK}};
    struct filter_options secrets = {.groups = {FILTER_MASK, FILTER_OFF, FILTER_OFF}};
    struct filter_options some = {.groups = {FILTER_MASK, FILTER_OFF, FILTER_MASK}};
    run("all groups", all, text, strbuf_str(&numbers));
    run("secrets and injection", some, text, strbuf_str(&numbers));
    run("secrets", secrets, text, strbuf_str(&numbers));
    return 0;
}
