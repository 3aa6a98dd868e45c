/*
 * A guest for the sandbox's tests: does what the member "do" of its input says, most of it badly.
 * Compiled by src/agent/sandbox/sandbox_testkit.c, as nexus-export and (with -DCOMMAND) as wasi-command.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(name) __attribute__((import_module("nexus"), import_name(name)))

IMPORT("host_call")
int64_t nexus_host_call(const char *name, size_t name_len, const char *request, size_t request_len);
IMPORT("file_size") int64_t nexus_file_size(const char *name, size_t name_len);
IMPORT("file_read")
int32_t nexus_file_read(const char *name, size_t name_len, uint64_t offset, void *to, size_t size);
IMPORT("file_write")
int32_t nexus_file_write(const char *name, size_t name_len, uint64_t offset, const void *from,
                         size_t size);
IMPORT("log") void nexus_log(const char *ptr, size_t len);

static char output[512];
static const char *input_text;
static size_t input_len;

static int is(const char *what)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"do\":\"%s\"", what);
    return memmem(input_text, input_len, wanted, strlen(wanted)) != NULL;
}

static uint64_t give(const char *text)
{
    return (uint64_t) (uintptr_t) text << 32 | strlen(text);
}

static uint64_t at(uint32_t address, uint32_t len)
{
    return (uint64_t) address << 32 | len;
}

static __attribute__((noinline)) int recurse(volatile int n)
{
    volatile char room[64];
    room[n % 64] = (char) n;
    return recurse(n + 1) + room[n % 64];
}

static __attribute__((noinline)) uint64_t recurse_plain(uint64_t n)
{
    return n == 0 ? 1 : recurse_plain(n + 1) * 3 ^ recurse_plain(n + 2);
}

static __attribute__((noinline)) void spin(void)
{
    for (volatile uint64_t i = 0;; i++)
        ;
}

static void *volatile taken;

static void *take(size_t bytes)
{
    return taken = malloc(bytes);
}

static uint64_t files(void)
{
    static char bytes[64];
    int64_t size = nexus_file_size("data.csv", 8), other = nexus_file_size("/etc/passwd", 11);
    int32_t got = nexus_file_read("data.csv", 8, 2, bytes, 4),
            past = nexus_file_read("data.csv", 8, 1000, bytes + 8, 4);
    int32_t written = nexus_file_write("data.csv", 8, 0, "x", 1);
    snprintf(
        output, sizeof output,
        "{\"size\":%lld,\"other\":%lld,\"got\":%d,\"text\":\"%.4s\",\"past\":%d,\"written\":%d}",
        (long long) size, (long long) other, got, bytes, past, written);
    return give(output);
}

static uint64_t wrap_answer(uint64_t packed)
{
    snprintf(output, sizeof output, "{\"answer\":%.*s}", (int) (packed & 0xffffffff),
             (char *) (uintptr_t) (packed >> 32));
    return give(output);
}

static uint64_t behave(void)
{
    if (is("echo"))
        return at((uint32_t) (uintptr_t) input_text, (uint32_t) input_len);
    if (is("loop"))
        spin();
    if (is("memory"))
        for (;;)
            memset(take(1 << 20), 1, 1 << 20);
    if (is("one_bomb"))
        return take(1 << 30) ? give("{}") : give("{\"null\":1}");
    if (is("recurse"))
        return recurse(0) ? give("{}") : 0;
    if (is("recurse_plain"))
        return recurse_plain(1) ? give("{}") : 0;
    if (is("trap"))
        __builtin_trap();
    if (is("divide"))
        return give(1 / *(volatile int *) output ? "{}" : "{}");
    if (is("wild_read"))
        return give(*(volatile char *) 0xfffffff0 ? "{}" : "[]");
    if (is("output_outside"))
        return at(0xfffffff0, 16);
    if (is("output_giant"))
        return at(1024, 0x40000000);
    if (is("output_text"))
        return give("this is not JSON");
    if (is("output_wrong"))
        return give("[1]");
    if (is("output_empty"))
        return give("  ");
    if (is("fail"))
        return give(" { \"error\": {\"code\":\"invalid_input\",\"message\":\"no such column\"}}");
    if (is("files"))
        return files();
    if (is("pointer_host"))
        return (uint64_t) nexus_host_call((const char *) 0xffffff00, 0x1000, "{}", 2);
    if (is("pointer_file"))
        return (uint64_t) nexus_file_read("data.csv", 8, 0, (void *) 0xffffff00, 0x1000);
    if (is("pointer_log"))
        nexus_log((const char *) 64, 0xffffffff);
    if (is("log")) {
        nexus_log("hello", 5);
        fprintf(stderr, "and stderr\n");
        return give("{}");
    }
    if (is("host"))
        return wrap_answer((uint64_t) nexus_host_call("test", 4, "{\"x\":1}", 7));
    if (is("host_slow"))
        return wrap_answer((uint64_t) nexus_host_call("slow", 4, "{}", 2));
    if (is("host_forbidden"))
        return wrap_answer((uint64_t) nexus_host_call("secret", 6, "{}", 2));
    if (is("host_flood"))
        for (;;)
            nexus_host_call("test", 4, "{}", 2);
    if (is("denied")) {
        nexus_host_call("deny", 4, "{}", 2);
        return give("{\"error\":{\"code\":\"denied\",\"message\":\"the host said no\"}}");
    }
    if (is("sleep")) {
        usleep(50000);
        return give("{}");
    }
    if (is("sleep_long")) {
        sleep(100);
        return give("{}");
    }
    return give("{}");
}

#ifdef COMMAND
int main(int argc, char **argv)
{
    static char text[1 << 16];
    input_text = text;
    input_len = fread(text, 1, sizeof text, stdin);
    if (is("exit"))
        return fprintf(stderr, "first line\nno such file\n"), 3;
    if (is("output_flood"))
        for (;;)
            fputs("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", stdout);
    if (is("arguments")) {
        FILE *file = fopen("/etc/passwd", "r");
        printf("{\"argc\":%d,\"argv\":\"%s\",\"home\":%d,\"file\":%d}", argc, argv[0],
               getenv("HOME") != NULL, file != NULL);
        return 0;
    }
    uint64_t packed = behave();
    fwrite((char *) (uintptr_t) (packed >> 32), 1, packed & 0xffffffff, stdout);
    return 0;
}
#else
EXPORT("nexus_alloc") void *nexus_alloc(size_t size)
{
#ifdef BAD_ALLOC
    return (void *) 0xfffffff0;
#endif
    return malloc(size ? size : 1);
}

EXPORT("nexus_run") uint64_t nexus_run(const char *ptr, size_t len)
{
    input_text = ptr;
    input_len = len;
    return behave();
}
#endif
