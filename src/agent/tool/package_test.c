#include "agent/tool/package.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"

static struct arena *arena;

#define MANIFEST_TEXT                                                                              \
                                                                                                   \
    "name: echo\nversion: 1.2.0\ncategory: test\nabi: nexus-export\nmodule: echo.wasm\npure: "     \
    "true\n"                                                                                       \
    "idempotent: true\nlimits: {fuel: 1000, memory: 1MB, time: 1s, output: 1KB}\npermissions: "    \
    "{}\n"                                                                                         \
    "description: \"Says ${env:HOME} again.\"\ninput: {type: object}\noutput: {type: object}\n"

static struct package sample(void)
{
    return (struct package){
        .files = {{S("manifest.yaml"), S(MANIFEST_TEXT)}, {S("echo.wasm"), S("\0asm\1\0\0\0")}},
        .count = 2};
}

static void assert_refused(str archive, const char *words)
{
    struct package package;
    struct error e;
    assert_false(package_read(archive, &package, &e));
    print_message("  %s\n", e.message);
    assert_non_null(strstr(e.message, words));
}

static void test_what_is_written_is_read(void **state)
{
    (void) state;
    struct package package = sample(), read;
    struct error e;
    str archive = package_write(arena, &package);
    assert_int_equal(archive.len % 512, 0);
    assert_true(package_read(archive, &read, &e));
    assert_int_equal(read.count, 2);
    assert_true(str_equal(package_find(&read, S("manifest.yaml"))->bytes, S(MANIFEST_TEXT)));
    struct package_file first = package.files[0];
    package.files[0] = package.files[1];
    package.files[1] = first;
    assert_true(str_equal(archive, package_write(arena, &package))); /* whatever the order */
}

/* What tar itself makes is read, and what we make tar reads. */
static void test_tar_and_we_understand_each_other(void **state)
{
    (void) state;
    struct package package = sample(), read;
    struct error e;
    char line[4096];
    FILE *file = fopen("package_test.tar", "wb");
    str archive = package_write(arena, &package);
    assert_non_null(file);
    assert_int_equal(fwrite(archive.ptr, 1, archive.len, file), archive.len);
    fclose(file);
    const char *command = "mkdir -p package_test.d && "
                          "tar -xf package_test.tar -C package_test.d && "
                          "tar --format=ustar -cf - -C package_test.d . ; "
                          "rm -rf package_test.d package_test.tar";
    FILE *pipe = popen(command, "r"); /* banned-ok: a fixed command of a test */
    assert_non_null(pipe);
    struct strbuf bytes;
    strbuf_init(&bytes, arena, 1u << 20);
    size_t got;
    while ((got = fread(line, 1, sizeof line, pipe)) > 0)
        strbuf_add(&bytes, str_of(line, got));
    if (pclose(pipe) != 0 || bytes.len == 0)
        skip();
    if (!package_read(strbuf_str(&bytes), &read, &e))
        fail_msg("%s", e.message);
    assert_int_equal(read.count, 2);
    assert_true(str_equal(package_find(&read, S("manifest.yaml"))->bytes, S(MANIFEST_TEXT)));
}

static void test_what_is_no_package_is_refused_with_its_reason(void **state)
{
    (void) state;
    struct package package = sample();
    str good = package_write(arena, &package);
    char *bad = arena_alloc(arena, good.len);
    assert_refused(S(""), "no end");
    assert_refused(S("hello"), "no end");
    assert_refused(str_slice(good, 0, 512), "cut off");
    assert_refused(str_slice(good, 0, good.len - 1024), "no end");
    memcpy(bad, good.ptr, good.len);
    bad[0] ^= 1; /* the header's sum does not fit any more */
    assert_refused(str_of(bad, good.len), "no ustar archive");
    static const char *const names[] = {"../x", "a/b", ".hidden", "-x", "a b"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        package.files[1].name = str_from_cstr(names[i]);
        assert_refused(package_write(arena, &package), "names are bare");
    }
    char *zeros = arena_alloc(arena, 1024);
    assert_refused(str_of(zeros, 1024), "empty");
    char *tail = arena_alloc(arena, good.len + 512);
    memcpy(tail, good.ptr, good.len);
    tail[good.len + 5] = 'x';
    assert_refused(str_of(tail, good.len + 512), "behind");
}

static void test_links_and_extended_headers_are_refused(void **state)
{
    (void) state;
    static const char kinds[] = {'1', '2', '3', '5', 'x', 'g', 'L'};
    struct package package = sample();
    str good = package_write(arena, &package);
    for (size_t i = 0; i < sizeof kinds; i++) {
        char *bad = arena_alloc(arena, good.len);
        unsigned sum = 0;
        memcpy(bad, good.ptr, good.len);
        bad[156] = kinds[i];
        memset(bad + 148, ' ', 8);
        for (size_t j = 0; j < 512; j++)
            sum += (unsigned char) bad[j];
        snprintf(bad + 148, 8, "%06o", sum);
        assert_refused(str_of(bad, good.len), "no plain file");
    }
}

static void test_a_package_is_what_its_manifest_names(void **state)
{
    (void) state;
    struct package package = sample();
    struct tool tool;
    struct error e;
    assert_true(package_tool(arena, &package, &tool, &e));
    assert_true(str_equal(tool.name, S("echo")));
    assert_true(digest_equal(tool.module_digest, digest_sha256(package.files[1].bytes)));
    assert_true(str_equal(tool.description, S("Says ${env:HOME} again."))); /* never expanded */
    package.files[2] = (struct package_file){S("more.wasm"), S("x")};
    package.count = 3;
    assert_false(package_tool(arena, &package, &tool, &e));
    assert_non_null(strstr(e.message, "more.wasm"));
    package.count = 1;
    assert_false(package_tool(arena, &package, &tool, &e));
    assert_non_null(strstr(e.message, "echo.wasm"));
}

static digest seal_of(const struct package *package)
{
    struct tool tool;
    struct error e;
    assert_true(package_tool(arena, package, &tool, &e));
    return package_seal(&tool, digest_sha256(package_find(package, PACKAGE_MANIFEST)->bytes));
}

static void test_a_signature_covers_manifest_and_modules(void **state)
{
    (void) state;
    uint8_t key[SIGNATURE_KEY_BYTES] = {7}, public_key[SIGNATURE_KEY_BYTES];
    struct package_signature read;
    struct package package = sample();
    struct error e;
    digest seal = seal_of(&package);
    str text = package_sign(arena, seal, key);
    signature_public_key(key, public_key);
    assert_true(package_verify(text, seal, &read, &e));
    assert_memory_equal(read.public_key, public_key, sizeof public_key);
    package.files[1].bytes = S("\0asm\1\0\0\1");
    assert_false(package_verify(text, seal_of(&package), &read, &e));
    assert_int_equal(e.code, ERROR_DENIED);
    package = sample();
    package.files[0].bytes = str_printf(arena, "%s# more\n", MANIFEST_TEXT);
    assert_false(package_verify(text, seal_of(&package), &read, &e));
    print_message("  %s\n", e.message);
}

static void test_a_forged_signature_is_refused(void **state)
{
    (void) state;
    uint8_t key[SIGNATURE_KEY_BYTES] = {7}, other[SIGNATURE_KEY_BYTES] = {8},
            public_key[SIGNATURE_KEY_BYTES];
    struct package package = sample();
    struct package_signature read;
    struct error e;
    digest seal = seal_of(&package);
    str text = package_sign(arena, seal, key);
    signature_public_key(key, public_key);
    str ours = str_hex(arena, public_key, sizeof public_key);
    signature_public_key(other, public_key);
    str theirs = str_hex(arena, public_key, sizeof public_key);
    char *forged = str_to_cstr(arena, text);
    memcpy(forged + str_find(text, ours), theirs.ptr, theirs.len); /* another's name under it */
    assert_false(package_verify(str_from_cstr(forged), seal, &read, &e));
    assert_int_equal(e.code, ERROR_DENIED);
    static const char *const broken[] = {"", "{}", "[1]", "{\"algorithm\":\"none\"}"};
    for (size_t i = 0; i < ARRAY_COUNT(broken); i++)
        assert_false(package_verify(str_from_cstr(broken[i]), seal, &read, &e));
}

static void test_files_past_the_bound_are_refused(void **state)
{
    (void) state;
    struct strbuf all;
    struct package one = {.count = 1}, read;
    struct error e;
    for (size_t count = PACKAGE_FILES_MAX; count <= PACKAGE_FILES_MAX + 1; count++) {
        strbuf_init(&all, arena, 1u << 20);
        for (size_t i = 0; i < count; i++) {
            one.files[0] = (struct package_file){str_printf(arena, "f%zu", i), S("x")};
            str archive = package_write(arena, &one);
            strbuf_add(&all, str_slice(archive, 0, archive.len - 1024));
        }
        strbuf_add(&all, str_of(arena_alloc(arena, 1024), 1024));
        assert_int_equal(package_read(strbuf_str(&all), &read, &e), count == PACKAGE_FILES_MAX);
    }
    assert_int_equal(e.reason, REASON_LIMIT);
}

static int setup(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_tar_and_we_understand_each_other),
        cmocka_unit_test(test_what_is_no_package_is_refused_with_its_reason),
        cmocka_unit_test(test_links_and_extended_headers_are_refused),
        cmocka_unit_test(test_a_package_is_what_its_manifest_names),
        cmocka_unit_test(test_a_signature_covers_manifest_and_modules),
        cmocka_unit_test(test_a_forged_signature_is_refused),
        cmocka_unit_test(test_files_past_the_bound_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
