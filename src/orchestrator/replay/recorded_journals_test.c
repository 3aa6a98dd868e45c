/*
 * Journals that earlier builds wrote: every file of tests/data/journals folds and replays to the same bytes.  A new file is picked up by
 * itself (scripts/record-journals adds them); none is ever changed.
 */
#include "orchestrator/replay/run_replay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <dirent.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/replay/run_case.h"
#include "orchestrator/replay/run_diff.h"

enum { JOURNAL_BYTES_MAX = 8 << 20 };

#define FOLDER NEXUS_SOURCE_DIR "/tests/data/journals"

static str read_whole(struct arena *arena, const char *name)
{
    char path[512];
    (void) snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    char *text = malloc(JOURNAL_BYTES_MAX);
    assert_non_null(text);
    size_t got = fread(text, 1, JOURNAL_BYTES_MAX, file);
    (void) fclose(file);
    assert_true(got > 0 && got < JOURNAL_BYTES_MAX);
    str kept = str_copy(arena, str_of(text, got));
    free(text);
    return kept;
}

static int is_journal(const struct dirent *entry)
{
    return str_ends_with(str_from_cstr(entry->d_name), S(".json"));
}

static void check_journal(struct arena *arena, const char *name, size_t *calls)
{
    struct replay_report *report = ARENA_NEW(arena, struct replay_report);
    struct error e = {0};
    str text = read_whole(arena, name), diff, made;
    bool is_same;
    if (!run_replay(arena, text, report, &e))
        fail_msg("%s: %s", name, e.message);
    if (!report->is_same)
        fail_msg("%s: event %lld " STR_FMT "\n  recorded " STR_FMT "\n  replayed " STR_FMT, name,
                 (long long) report->differences[0].seq, STR_ARG(report->differences[0].what),
                 STR_ARG(report->differences[0].recorded),
                 STR_ARG(report->differences[0].replayed));
    assert_true(run_diff_json(arena, text, text, &diff, &is_same, &e));
    assert_true(is_same);
    assert_true(run_case_write(arena, text, S("kept"), &made, &e));
    *calls += report->model_calls + report->tool_calls;
}

static void test_every_journal_of_the_folder_folds_and_replays(void **state)
{
    struct dirent **names = NULL;
    size_t calls = 0;
    (void) state;
    int count = scandir(FOLDER, &names, is_journal, alphasort);
    assert_true(count >= 16);
    for (int i = 0; i < count; i++) {
        OWNED(arena) arena = arena_create(0);
        check_journal(arena, names[i]->d_name, &calls);
        free(names[i]);
    }
    free(names);
    print_message("note: %d journals with %zu calls\n", count, calls);
    assert_true(calls > 20);
}

static str with(struct arena *arena, str text, str from, str to)
{
    size_t at = str_find(text, from);
    assert_true(at != STR_NOT_FOUND);
    str parts[] = {str_slice(text, 0, at), to, str_from(text, at + from.len)};
    return str_join(arena, parts, 3);
}

static void assert_refused(struct arena *arena, str text, enum error_reason reason,
                           const char *says)
{
    struct replay_report *report = ARENA_NEW(arena, struct replay_report);
    struct error e = {0};
    assert_false(run_replay(arena, text, report, &e));
    assert_int_equal(e.reason, reason);
    if (str_find(str_from_cstr(e.message), str_from_cstr(says)) == STR_NOT_FOUND)
        fail_msg("\"%s\" does not say \"%s\"", e.message, says);
}

static void test_a_journal_of_a_later_version_is_refused_by_name(void **state)
{
    OWNED(arena) arena = arena_create(0);
    (void) state;
    str text = read_whole(arena, "v1-01.json");
    assert_refused(arena,
                   with(arena, text, S("\"version\":1,\"tenant"), S("\"version\":9,\"tenant")),
                   REASON_INVALID, "newer version");
    assert_refused(arena, with(arena, text, S("\"v\":1"), S("\"v\":99")), REASON_CORRUPT,
                   "version 99");
    assert_refused(arena, with(arena, text, S("\"model.requested\""), S("\"model.dreamt\"")),
                   REASON_CORRUPT, "unknown type \"model.dreamt\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_journal_of_the_folder_folds_and_replays),
        cmocka_unit_test(test_a_journal_of_a_later_version_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
