/*
 * A guest that tries to get out: does what the member "do" of its input says, with the numbers of "a" and the text of "t".
 * No C library; the only input forms are {"do":"x"}, {"do":"x","a":[1,2]} and {"do":"x","a":[...],"t":"..."}, in this order.
 * Compiled by tests/scenarios/test_34_escape_sandbox.py, as nexus-export and (with -DCOMMAND) as wasi-command.
 */
#include <stdint.h>

typedef int32_t i32;
typedef int64_t i64;

#define EXPORT(name) __attribute__((export_name(name), used))
#define FROM(module, name) __attribute__((import_module(module), import_name(name)))
#define PAGE 65536u

FROM("nexus", "host_call") i64 host_call(i32 name, i32 name_len, i32 request, i32 request_len);
FROM("nexus", "file_size") i64 file_size(i32 name, i32 name_len);
FROM("nexus", "file_read") i32 file_read(i32 name, i32 name_len, i64 offset, i32 to, i32 size);
FROM("nexus", "file_write") i32 file_write(i32 name, i32 name_len, i64 offset, i32 from, i32 size);
FROM("nexus", "log") void log_line(i32 text, i32 len);

/* Every function of WASI preview 1: name, types, how the numbers of "a" become arguments. */
#define I(n) (i32) numbers[n]
#define L(n) (i64) numbers[n]
#define WASI(X)                                                                                    \
    X(args_get, (i32, i32), (I(0), I(1)))                                                          \
    X(args_sizes_get, (i32, i32), (I(0), I(1)))                                                    \
    X(clock_res_get, (i32, i32), (I(0), I(1)))                                                     \
    X(clock_time_get, (i32, i64, i32), (I(0), L(1), I(2)))                                         \
    X(environ_get, (i32, i32), (I(0), I(1)))                                                       \
    X(environ_sizes_get, (i32, i32), (I(0), I(1)))                                                 \
    X(fd_advise, (i32, i64, i64, i32), (I(0), L(1), L(2), I(3)))                                   \
    X(fd_allocate, (i32, i64, i64), (I(0), L(1), L(2)))                                            \
    X(fd_close, (i32), (I(0)))                                                                     \
    X(fd_datasync, (i32), (I(0)))                                                                  \
    X(fd_fdstat_get, (i32, i32), (I(0), I(1)))                                                     \
    X(fd_fdstat_set_flags, (i32, i32), (I(0), I(1)))                                               \
    X(fd_fdstat_set_rights, (i32, i64, i64), (I(0), L(1), L(2)))                                   \
    X(fd_filestat_get, (i32, i32), (I(0), I(1)))                                                   \
    X(fd_filestat_set_size, (i32, i64), (I(0), L(1)))                                              \
    X(fd_filestat_set_times, (i32, i64, i64, i32), (I(0), L(1), L(2), I(3)))                       \
    X(fd_pread, (i32, i32, i32, i64, i32), (I(0), I(1), I(2), L(3), I(4)))                         \
    X(fd_prestat_dir_name, (i32, i32, i32), (I(0), I(1), I(2)))                                    \
    X(fd_prestat_get, (i32, i32), (I(0), I(1)))                                                    \
    X(fd_pwrite, (i32, i32, i32, i64, i32), (I(0), I(1), I(2), L(3), I(4)))                        \
    X(fd_read, (i32, i32, i32, i32), (I(0), I(1), I(2), I(3)))                                     \
    X(fd_readdir, (i32, i32, i32, i64, i32), (I(0), I(1), I(2), L(3), I(4)))                       \
    X(fd_renumber, (i32, i32), (I(0), I(1)))                                                       \
    X(fd_seek, (i32, i64, i32, i32), (I(0), L(1), I(2), I(3)))                                     \
    X(fd_sync, (i32), (I(0)))                                                                      \
    X(fd_tell, (i32, i32), (I(0), I(1)))                                                           \
    X(fd_write, (i32, i32, i32, i32), (I(0), I(1), I(2), I(3)))                                    \
    X(path_create_directory, (i32, i32, i32), (I(0), I(1), I(2)))                                  \
    X(path_filestat_get, (i32, i32, i32, i32, i32), (I(0), I(1), I(2), I(3), I(4)))                \
    X(path_filestat_set_times, (i32, i32, i32, i32, i64, i64, i32),                                \
      (I(0), I(1), I(2), I(3), L(4), L(5), I(6)))                                                  \
    X(path_link, (i32, i32, i32, i32, i32, i32, i32), (I(0), I(1), I(2), I(3), I(4), I(5), I(6)))  \
    X(path_open, (i32, i32, i32, i32, i32, i64, i64, i32, i32),                                    \
      (I(0), I(1), I(2), I(3), I(4), L(5), L(6), I(7), I(8)))                                      \
    X(path_readlink, (i32, i32, i32, i32, i32, i32), (I(0), I(1), I(2), I(3), I(4), I(5)))         \
    X(path_remove_directory, (i32, i32, i32), (I(0), I(1), I(2)))                                  \
    X(path_rename, (i32, i32, i32, i32, i32, i32), (I(0), I(1), I(2), I(3), I(4), I(5)))           \
    X(path_symlink, (i32, i32, i32, i32, i32), (I(0), I(1), I(2), I(3), I(4)))                     \
    X(path_unlink_file, (i32, i32, i32), (I(0), I(1), I(2)))                                       \
    X(poll_oneoff, (i32, i32, i32, i32), (I(0), I(1), I(2), I(3)))                                 \
    X(proc_raise, (i32), (I(0)))                                                                   \
    X(random_get, (i32, i32), (I(0), I(1)))                                                        \
    X(sched_yield, (void), ())                                                                     \
    X(sock_accept, (i32, i32, i32), (I(0), I(1), I(2)))                                            \
    X(sock_recv, (i32, i32, i32, i32, i32, i32), (I(0), I(1), I(2), I(3), I(4), I(5)))             \
    X(sock_send, (i32, i32, i32, i32, i32), (I(0), I(1), I(2), I(3), I(4)))                        \
    X(sock_shutdown, (i32, i32), (I(0), I(1)))

#define DECLARE(name, types, arguments) FROM("wasi_snapshot_preview1", #name) i32 name types;
WASI(DECLARE)
FROM("wasi_snapshot_preview1", "proc_exit") void proc_exit(i32 code);

static char input[1 << 20], output[4096], scratch[PAGE];
static uint32_t input_len, text_len;
static char *text;
static uint64_t numbers[16];
static volatile uint32_t sink;
static int alloc_mode; /* what nexus_alloc does when it is asked for room for an answer */

static int starts(const char *at, const char *with)
{
    while (*with)
        if (*at++ != *with++)
            return 0;
    return 1;
}

static int is(const char *what)
{
    uint32_t i = 0;
    while (what[i] && input[7 + i] == what[i])
        i++;
    return !what[i] && input[7 + i] == '"';
}

/* Without the spaces between its members. */
static void compact_input(void)
{
    uint32_t len = 0;
    int is_text = 0;
    for (uint32_t i = 0; i < input_len; i++) {
        if (input[i] == '"' && (i == 0 || input[i - 1] != '\\'))
            is_text = !is_text;
        if (is_text || input[i] != ' ')
            input[len++] = input[i];
    }
    input_len = len;
}

static void read_input(void)
{
    uint32_t n = 0;
    compact_input();
    for (uint32_t i = 0; i < input_len; i++) {
        if (starts(input + i, "\"a\":[")) {
            for (i += 5; i < input_len && input[i] != ']'; i++) {
                if (input[i] == ',')
                    n++;
                else if (n < 16)
                    numbers[n] = numbers[n] * 10 + (uint64_t) (input[i] - '0');
            }
        }
        if (starts(input + i, "\"t\":\"")) {
            text = input + i + 5;
            for (uint32_t j = i + 5; input[j] != '"' && j < input_len; j++) {
                if (input[j] == '\\')
                    j++;
                text[text_len++] = input[j];
            }
            return;
        }
    }
}

static uint64_t give(const char *from, uint32_t len)
{
    return (uint64_t) (uintptr_t) from << 32 | len;
}

static uint64_t give_number(uint64_t number)
{
    char digits[24];
    uint32_t len = 0, count = 0;
    const char *head = "{\"n\":";
    while (head[len]) {
        output[len] = head[len];
        len++;
    }
    do
        digits[count++] = (char) ('0' + number % 10);
    while (number /= 10);
    while (count > 0)
        output[len++] = digits[--count];
    output[len++] = '}';
    return give(output, len);
}

/* ---- what it tries ---- */

static uint64_t call_wasi(void)
{
    uint64_t which = numbers[0];
    uint64_t k = 0;
    for (int i = 0; i < 15; i++)
        numbers[i] = numbers[i + 1];
#define CALL(name, types, arguments)                                                               \
    if (k++ == which)                                                                              \
        return give_number((uint32_t) name arguments);
    WASI(CALL)
    return give_number(9999);
}

static __attribute__((noinline)) uint32_t down(volatile uint32_t n)
{
    volatile char room[256];
    room[n % 256] = 1;
    return down(n + 1) + (uint32_t) room[n % 256];
}

static uint32_t pong(volatile uint32_t n);
static __attribute__((noinline)) uint32_t ping(volatile uint32_t n)
{
    return pong(n + 1) * 3 + sink;
}

static __attribute__((noinline)) uint32_t pong(volatile uint32_t n)
{
    return ping(n + 1) * 5 + sink;
}

static __attribute__((noinline)) uint32_t wide(volatile uint32_t n)
{
    volatile char room[1 << 20];
    room[n % 1000] = 1;
    return wide(n + 1) + (uint32_t) room[n % 1000];
}

static __attribute__((noinline)) void spin(void)
{
    for (;;)
        sink++;
}

static uint64_t host(const char *name, uint32_t name_len, const char *request, uint32_t request_len)
{
    return (uint64_t) host_call((i32) (uintptr_t) name, (i32) name_len, (i32) (uintptr_t) request,
                                (i32) request_len);
}

/* The answer of a host call becomes the output. */
static uint64_t give_answer(uint64_t packed)
{
    return packed;
}

static uint64_t try_memory(void)
{
    uint32_t step = (uint32_t) numbers[0];
    for (;;) {
        i32 before = (i32) __builtin_wasm_memory_grow(0, step);
        if (before < 0)
            return give_number(__builtin_wasm_memory_size(0));
        *(volatile char *) ((uintptr_t) before * PAGE) = 1;
    }
}

static uint64_t try_host(void)
{
    uint32_t name_len = 0;
    while (name_len < text_len && text[name_len] != '|')
        name_len++;
    uint64_t answer = 0, count = numbers[0];
    alloc_mode = (int) numbers[1];
    for (uint64_t i = 0; i < count; i++)
        answer = host(text, name_len, text + name_len + 1, text_len - name_len - 1);
    return give_answer(answer);
}

static uint64_t try_flood(void)
{
    for (uint32_t i = 0; i < PAGE; i++)
        scratch[i] = (char) (numbers[1] ? numbers[1] : 'x');
    uint32_t *vector = (uint32_t *) output, *written = (uint32_t *) (output + 8);
    vector[0] = (uint32_t) (uintptr_t) scratch;
    vector[1] = PAGE;
    for (uint64_t i = 0; i < numbers[2]; i++) {
        if (numbers[0] == 3)
            log_line((i32) (uintptr_t) scratch, PAGE);
        else
            fd_write((i32) numbers[0], (i32) (uintptr_t) vector, 1, (i32) (uintptr_t) written);
    }
    return give_number(1);
}

/* The smallest step that a clock makes, over a tenth of a second. */
static uint64_t try_clock(void)
{
    uint64_t first = 0, last = 0, now = 0, least = UINT64_MAX;
    clock_time_get((i32) numbers[0], 0, (i32) (uintptr_t) &first);
    last = first;
    for (uint32_t i = 0; i < 200000 && now < first + 100000000; i++) {
        clock_time_get((i32) numbers[0], 0, (i32) (uintptr_t) &now);
        if (now != last && now - last < least)
            least = now - last;
        last = now;
    }
    return give_number(least);
}

static uint64_t try_poll(void)
{
    char *at = scratch;
    for (uint32_t i = 0; i < 48u * 32; i++)
        at[i] = 0;
    for (uint32_t i = 0; i < 32; i++) {
        at[i * 48 + 8] = (char) numbers[0];
        *(uint32_t *) (at + i * 48 + 16) = (uint32_t) numbers[1];
        *(uint64_t *) (at + i * 48 + 24) = numbers[2];
        at[i * 48 + 40] = (char) numbers[3];
    }
    i32 status = poll_oneoff((i32) (uintptr_t) at, (i32) (uintptr_t) at, (i32) numbers[4],
                             (i32) (uintptr_t) output);
    return give_number((uint32_t) status);
}

static uint64_t try_files(void)
{
    i64 size = file_size((i32) (uintptr_t) text, (i32) text_len);
    i32 got = file_read((i32) (uintptr_t) text, (i32) text_len, L(0), (i32) (uintptr_t) scratch,
                        (i32) PAGE);
    i32 put = file_write((i32) (uintptr_t) text, (i32) text_len, 0, (i32) (uintptr_t) scratch, 1);
    return give_number((uint64_t) (size < 0) << 2 | (uint64_t) (got < 0) << 1 | (put < 0));
}

static uint64_t run(void)
{
    if (is("wasi"))
        return call_wasi();
    if (is("memory"))
        return try_memory();
    if (is("host"))
        return try_host();
    if (is("host_at"))
        return (uint64_t) host_call(I(0), I(1), I(2), I(3));
    if (is("log_at")) {
        log_line(I(0), I(1));
        return give_number(0);
    }
    if (is("file_at"))
        return give_number((uint32_t) file_read(I(0), I(1), L(2), I(3), I(4)));
    if (is("no_utf8")) {
        for (int i = 0; i < 16; i++)
            scratch[i] = (char) (0xf8 + i % 8);
        host(scratch, 16, scratch, 16);
        return host("clock", 5, scratch, 16);
    }
    if (is("files"))
        return try_files();
    if (is("flood"))
        return try_flood();
    if (is("clock"))
        return try_clock();
    if (is("poll"))
        return try_poll();
    if (is("give"))
        return numbers[0] << 32 | numbers[1];
    if (is("echo"))
        return give(text, text_len);
    if (is("bytes")) {
        for (uint32_t i = 0; i < 16; i++)
            output[i] = (char) numbers[i];
        return give(output, 16);
    }
    if (is("repeat")) { /* a[0] times the text, then as often the text's last letter */
        uint32_t len = 0;
        __builtin_wasm_memory_grow(0, (uint32_t) (2 * numbers[0] * text_len / PAGE + 1));
        char *at = (char *) (uintptr_t) ((__builtin_wasm_memory_size(0) -
                                          (2 * numbers[0] * text_len / PAGE + 1)) *
                                         PAGE);
        for (uint64_t i = 0; i < numbers[0]; i++)
            for (uint32_t j = 0; j + 1 < text_len; j++)
                at[len++] = text[j];
        for (uint64_t i = 0; i < numbers[0] && numbers[1]; i++)
            at[len++] = text[text_len - 1];
        return give(at, len);
    }
    if (is("spin"))
        spin();
    if (is("down"))
        return down(0);
    if (is("mutual"))
        return ping(0);
    if (is("wide"))
        return wide(0);
    if (is("divide"))
        return give_number(input_len / (numbers[0] + sink));
    if (is("nowhere"))
        return ((uint64_t(*)(void))(uintptr_t) numbers[0])();
    if (is("load"))
        return give_number(*(volatile uint8_t *) (uintptr_t) numbers[0]);
    if (is("exit"))
        proc_exit(I(0));
    if (is("trap"))
        __builtin_trap();
    return give_number(0);
}

EXPORT("nexus_alloc") char *nexus_alloc(uint32_t bytes)
{
    static char room[2 << 20];
    if (input_len == 0) {
        input_len = bytes;
        return input;
    }
    switch (alloc_mode) {
    case 1: return (char *) 0xfffffff0u;
    case 2: return 0;
    case 3: spin(); break;
    case 4: /* re-entrancy: a host call while the answer of another is handed over */
        host("clock", 5, "{}", 2);
        break;
    case 5: proc_exit(0); break;
    case 6: down(0); break;
    case 7: __builtin_trap(); break;
    case 8:
        while ((i32) __builtin_wasm_memory_grow(0, 100) >= 0)
            ;
        break;
    }
    return bytes <= sizeof room ? room : 0;
}

#ifdef COMMAND
EXPORT("_start") void start(void)
{
    uint32_t vector[2] = {(uint32_t) (uintptr_t) input, sizeof input}, count = 0;
    fd_read(0, (i32) (uintptr_t) vector, 1, (i32) (uintptr_t) &count);
    input_len = count;
    read_input();
    uint64_t packed = run();
    vector[0] = (uint32_t) (packed >> 32);
    vector[1] = (uint32_t) packed;
    fd_write(1, (i32) (uintptr_t) vector, 1, (i32) (uintptr_t) &count);
}
#else
EXPORT("nexus_run") uint64_t nexus_run(char *from, uint32_t len)
{
    (void) from;
    input_len = len;
    read_input();
    return run();
}
#endif
