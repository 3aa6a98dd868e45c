/* Workspaces on a real file system, with what an attacker might have put there. */
#include "agent/sandbox/workspace.h"
#include "base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];
static str data_dir;
static const struct workspace_limits limits = {.bytes_max = 1000, .entries_max = 6};

static int make_folder(void **state)
{
    (void) state;
    snprintf(folder, sizeof folder, "/tmp/nexus-workspace-XXXXXX");
    assert_non_null(mkdtemp(folder));
    data_dir = str_from_cstr(folder);
    return 0;
}

static int remove_entry(const char *path, const struct stat *at, int kind, struct FTW *where)
{
    (void) at, (void) kind, (void) where;
    return remove(path);
}

static int remove_folder(void **state)
{
    (void) state;
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct workspace *open_locked(const char *name)
{
    struct workspace *workspace;
    struct error e;
    bool is_locked;
    assert_true(workspace_open(data_dir, str_from_cstr(name), true, &workspace, &e));
    assert_true(workspace_lock(workspace, &is_locked, &e) && is_locked);
    return workspace;
}

static char *real_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/workspaces/%s", folder, name);
    return path;
}

/* ---- paths ---- */

static void assert_path(const char *path, const char *expected)
{
    OWNED(arena) arena = arena_create(0);
    struct error e;
    str out;
    if (!workspace_path(arena, str_from_cstr(path), &out, &e))
        fail_msg("%s: %s", path, e.message);
    assert_true(str_equal(out, str_from_cstr(expected)));
}

static void assert_no_path(str path, enum error_reason reason)
{
    OWNED(arena) arena = arena_create(0);
    struct error e;
    str out;
    if (workspace_path(arena, path, &out, &e))
        fail_msg(STR_FMT " is taken", STR_ARG(path));
    assert_int_equal(e.reason, reason);
}

static void test_paths_are_read_below_the_root(void **state)
{
    (void) state;
    assert_path("", "");
    assert_path("/tmp/agent-workspace", "");
    assert_path("/tmp/agent-workspace/", "");
    assert_path("//tmp/agent-workspace/a//b/./c", "a/b/c");
    assert_path("a/b.txt", "a/b.txt");
    assert_path("\xe2\x80\xa6/x", "\xe2\x80\xa6/x");
    assert_no_path(S("a/../b"), REASON_PERMISSION);
    assert_no_path(S("/etc/passwd"), REASON_PERMISSION);
    assert_no_path(S("/tmp/agent-workspaces"), REASON_PERMISSION);
    assert_no_path(S(".nexus-1"), REASON_PERMISSION);
    assert_no_path(S("a\0b"), REASON_SCHEMA);
    assert_no_path(S("a\\b"), REASON_SCHEMA);
    assert_no_path(S("a\xe2\x80\xae"
                     "b"),
                   REASON_SCHEMA);
    assert_no_path(S("a\xff"), REASON_SCHEMA);
    assert_no_path(S("a. "), REASON_SCHEMA);
}

static void test_names_and_depth_have_bounds(void **state)
{
    (void) state;
    char name[WORKSPACE_NAME_BYTES_MAX + 2], deep[WORKSPACE_DEPTH_MAX * 2 + 4];
    memset(name, 'x', sizeof name);
    name[WORKSPACE_NAME_BYTES_MAX] = 0;
    assert_path(name, name);
    name[WORKSPACE_NAME_BYTES_MAX] = 'x';
    assert_no_path(str_of(name, WORKSPACE_NAME_BYTES_MAX + 1), REASON_SCHEMA);
    for (size_t i = 0; i < WORKSPACE_DEPTH_MAX + 1; i++)
        memcpy(deep + 2 * i, "d/", 2);
    assert_no_path(str_of(deep, WORKSPACE_DEPTH_MAX * 2 + 2), REASON_SCHEMA);
    deep[WORKSPACE_DEPTH_MAX * 2 - 1] = 0;
    assert_path(deep, deep);
}

/* ---- files ---- */

static void test_a_write_makes_folders_and_is_read_back(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(workspace) workspace = open_locked("t/read");
    struct error e;
    struct workspace_entry entry;
    str text;
    assert_true(workspace_write(workspace, &limits, S("a/b.txt"), S("one"), &e));
    assert_true(workspace_write(workspace, &limits, S("a/b.txt"), S("two"), &e));
    assert_true(workspace_read(workspace, arena, S("a/b.txt"), 3, &text, &e));
    assert_true(str_equal(text, S("two")));
    assert_false(workspace_read(workspace, arena, S("a/b.txt"), 2, &text, &e));
    assert_int_equal(e.reason, REASON_TOO_LARGE);
    assert_true(workspace_stat(workspace, S("a"), &entry, &e) && entry.is_folder);
    assert_false(workspace_write(workspace, &limits, S("a"), S("x"), &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
    assert_false(workspace_write(workspace, &limits, S("a/b.txt/c"), S("x"), &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
    assert_false(workspace_remove(workspace, S("a"), &e));
    assert_int_equal(e.reason, REASON_CONFLICT);
    assert_true(workspace_remove(workspace, S("a/b.txt"), &e));
    assert_true(workspace_remove(workspace, S("a"), &e));
    assert_false(workspace_remove(workspace, S("a"), &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
}

static void test_the_quota_holds_to_the_byte_and_the_entry(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(workspace) workspace = open_locked("t/quota");
    char *text = arena_alloc(arena, 1001);
    struct error e;
    assert_true(workspace_write(workspace, &limits, S("a"), str_of(text, 1000), &e));
    assert_false(workspace_write(workspace, &limits, S("a"), str_of(text, 1001), &e));
    assert_int_equal(e.reason, REASON_QUOTA);
    assert_false(workspace_write(workspace, &limits, S("b"), S("x"), &e));
    assert_true(workspace_write(workspace, &limits, S("a"), STR_NONE, &e));
    assert_true(workspace_write(workspace, &limits, S("1/2/3/4"), S("x"), &e)); /* 5 entries */
    assert_false(workspace_write(workspace, &limits, S("5/6"), S("x"), &e));
    assert_int_equal(e.reason, REASON_QUOTA);
    assert_true(workspace_write(workspace, &limits, S("5"), S("x"), &e));
    assert_false(workspace_write(workspace, &limits, S("6"), S("x"), &e));
    assert_true(workspace_write(workspace, &limits, S("5"), S("y"), &e));
}

static void test_the_lock_is_had_by_one(void **state)
{
    (void) state;
    struct error e;
    bool is_locked;
    struct workspace *one = open_locked("t/lock");
    OWNED(workspace) two = NULL;
    assert_true(workspace_open(data_dir, S("t/lock"), false, &two, &e));
    assert_true(workspace_lock(two, &is_locked, &e) && !is_locked);
    workspace_close(one);
    assert_true(workspace_lock(two, &is_locked, &e) && is_locked);
}

static bool count(void *owner, const struct workspace_entry *entry)
{
    (void) entry;
    ++*(int *) owner;
    return true;
}

static void assert_all_refused(struct workspace *workspace, const char *path)
{
    OWNED(arena) arena = arena_create(0);
    struct error e;
    struct workspace_entry entry;
    str name = str_from_cstr(path), text;
    int fd;
    int64_t bytes;
    assert_false(workspace_read(workspace, arena, name, 100, &text, &e));
    assert_int_equal(e.reason, REASON_PERMISSION);
    assert_false(workspace_stat(workspace, name, &entry, &e));
    assert_int_equal(e.reason, REASON_PERMISSION);
    assert_false(workspace_open_file(workspace, name, &fd, &bytes, &e));
    assert_int_equal(e.reason, REASON_PERMISSION);
    assert_false(workspace_write(workspace, &limits, name, S("x"), &e));
    assert_int_equal(e.reason, REASON_PERMISSION);
    assert_false(workspace_remove(workspace, name, &e));
    assert_int_equal(e.reason, REASON_PERMISSION);
}

static void test_links_and_special_files_are_refused(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(workspace) workspace = open_locked("t/links");
    struct error e;
    int entries = 0;
    bool is_cut;
    assert_true(workspace_write(workspace, &limits, S("plain"), S("x"), &e));
    assert_int_equal(symlink("/etc/passwd", real_path("t/links/file")), 0);
    assert_int_equal(symlink("/etc", real_path("t/links/folder")), 0);
    assert_int_equal(symlink("plain", real_path("t/links/inner")), 0);
    assert_int_equal(symlink("/proc/self/root", real_path("t/links/magic")), 0);
    assert_int_equal(mkfifo(real_path("t/links/pipe"), 0600), 0);
    static const char *const paths[] = {"file",  "folder", "folder/passwd",    "inner",
                                        "magic", "pipe",   "magic/etc/passwd", "folder/new"};
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++)
        assert_all_refused(workspace, paths[i]);
    assert_true(workspace_walk(workspace, arena, STR_NONE, true, count, &entries, &is_cut, &e));
    assert_int_equal(entries, 1);
    assert_false(workspace_walk(workspace, arena, S("folder"), true, count, &entries, &is_cut, &e));
    assert_int_equal(e.reason, REASON_PERMISSION);
}

static void test_a_hard_link_is_refused_under_each_of_its_names(void **state)
{
    (void) state;
    OWNED(workspace) workspace = open_locked("t/hard");
    struct error e;
    char first[256];
    assert_true(workspace_write(workspace, &limits, S("one"), S("x"), &e));
    snprintf(first, sizeof first, "%s", real_path("t/hard/one"));
    assert_int_equal(link(first, real_path("t/hard/two")), 0);
    assert_all_refused(workspace, "one");
    assert_all_refused(workspace, "two");
}

static void test_what_a_crash_left_is_hidden_and_later_removed(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    OWNED(workspace) workspace = open_locked("t/stale");
    struct error e;
    int entries = 0;
    bool is_cut;
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    int fd = open(real_path("t/stale/.nexus-1"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(futimens(fd, old), 0);
    close(fd);
    assert_true(workspace_walk(workspace, arena, STR_NONE, true, count, &entries, &is_cut, &e));
    assert_int_equal(entries, 0);
    assert_true(workspace_write(workspace, &limits, S("a"), S("x"), &e));
    assert_int_equal(access(real_path("t/stale/.nexus-1"), F_OK), -1);
}

static void test_a_workspace_is_erased_whole_and_nothing_else(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct error e;
    struct workspace *workspace = open_locked("t/gone");
    bool is_done;
    str found[8];
    size_t found_count;
    assert_true(workspace_write(workspace, &limits, S("a/b/c"), S("x"), &e));
    assert_int_equal(mkdir(real_path("kept"), 0700), 0);
    assert_int_equal(symlink("../../kept", real_path("t/gone/a/link")), 0);
    assert_true(workspace_erase(data_dir, S("t/gone"), 100, &is_done, &e) && !is_done);
    workspace_close(workspace); /* it was locked */
    assert_true(workspace_erase(data_dir, S("t/gone"), 2, &is_done, &e) && !is_done);
    assert_true(workspace_erase(data_dir, S("t/gone"), 100, &is_done, &e) && is_done);
    assert_int_equal(access(real_path("t/gone"), F_OK), -1);
    assert_int_equal(access(real_path("kept"), F_OK), 0);
    assert_true(workspace_erase(data_dir, S("t/gone"), 100, &is_done, &e) && is_done);
    assert_true(workspace_list(data_dir, arena, STR_NONE, 8, found, &found_count, &e));
    assert_true(found_count >= 2);
    str last = found[1];
    assert_true(workspace_list(data_dir, arena, found[0], 1, found, &found_count, &e));
    assert_true(found_count == 1 && str_equal(found[0], last));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_are_read_below_the_root),
        cmocka_unit_test(test_names_and_depth_have_bounds),
        cmocka_unit_test(test_a_write_makes_folders_and_is_read_back),
        cmocka_unit_test(test_the_quota_holds_to_the_byte_and_the_entry),
        cmocka_unit_test(test_the_lock_is_had_by_one),
        cmocka_unit_test(test_links_and_special_files_are_refused),
        cmocka_unit_test(test_a_hard_link_is_refused_under_each_of_its_names),
        cmocka_unit_test(test_what_a_crash_left_is_hidden_and_later_removed),
        cmocka_unit_test(test_a_workspace_is_erased_whole_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
