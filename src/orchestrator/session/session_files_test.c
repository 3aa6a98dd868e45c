#include "orchestrator/orchestrator_internal.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_testkit.h"

/* The quota of a kit's session is 1000 bytes. */

static bool put(struct testkit *kit, struct context *ctx, const struct principal *principal,
                uuid session_id, str name, str text, struct record *row, struct error *e)
{
    struct file_upload *upload = NULL;
    *e = (struct error){0};
    if (!file_upload_begin(kit->o, ctx, principal, session_id, name, S("text/csv"), -1, &upload, e))
        return false;
    for (str rest = text; rest.len > 0;) { /* in pieces, as it comes from the network */
        str piece = str_slice(rest, 0, 300);
        if (!file_upload_write(upload, ctx, piece, e)) {
            file_upload_abort(upload);
            return false;
        }
        rest = str_from(rest, piece.len);
    }
    return file_upload_finish(upload, ctx, row, e);
}

static str get(struct testkit *kit, struct context *ctx, const struct principal *principal,
               uuid session_id, str name)
{
    struct file_download *download;
    struct record row;
    struct strbuf text;
    struct error e = {0};
    str piece;
    strbuf_init(&text, ctx->arena, 1 << 20);
    if (!file_download_begin(kit->o, ctx, principal, session_id, name, &download, &row, &e))
        fail_msg("%s", e.message);
    do {
        assert_true(file_download_read(download, ctx, &piece, &e));
        strbuf_add(&text, piece);
    } while (piece.len > 0);
    file_download_end(download);
    assert_int_equal(text.len, record_integer(&row, SESSION_FILES_BYTES));
    return strbuf_str(&text);
}

static int file_count;
static int count_file(const char *path, const struct stat *status, int type)
{
    (void) path;
    (void) status;
    file_count += type == FTW_F;
    return 0;
}

static int files_on_disk(const struct testkit *kit)
{
    file_count = 0;
    (void) ftw(kit->data_dir, count_file, 8);
    return file_count;
}

static str repeated(struct context *ctx, char c, size_t count)
{
    char *text = arena_alloc(ctx->arena, count + 1);
    memset(text, c, count);
    return str_of(text, count);
}

static size_t listed(struct testkit *kit, struct context *ctx, const struct principal *principal,
                     uuid session_id)
{
    struct records rows;
    struct error e;
    assert_true(file_list(kit->o, ctx, principal, session_id, &rows, &e));
    return rows.count;
}

/* ---- ---- */

static void test_a_file_comes_back_as_it_was_sent(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct record row;
    struct error e;
    str text = repeated(ctx, 'x', 777);
    assert_true(put(kit, ctx, &ada, id, S("w\xc3\xa4rme 2.csv"), text, &row, &e));
    assert_true(str_equal(get(kit, ctx, &ada, id, S("w\xc3\xa4rme 2.csv")), text));
    assert_true(str_equal(record_text(&row, SESSION_FILES_DIGEST),
                          digest_hex(ctx->arena, digest_sha256(text))));
    assert_true(str_equal(record_text(&row, SESSION_FILES_CONTENT_TYPE), S("text/csv")));
    assert_true(str_find(record_text(&row, SESSION_FILES_PATH), S("rme")) ==
                STR_NOT_FOUND); /* names never become paths */
    assert_true(put(kit, ctx, &ada, id, S("empty"), S(""), &row, &e));
    assert_int_equal(get(kit, ctx, &ada, id, S("empty")).len, 0);
    assert_int_equal(listed(kit, ctx, &ada, id), 2);
    struct stat status;
    struct session_files files = {kit->o, kit->tenant_id, id};
    struct tool_files door = session_files_of(&files);
    str path;
    int64_t bytes;
    assert_true(door.resolve(door.owner, ctx, S("w\xc3\xa4rme 2.csv"), &path, &bytes, &e));
    assert_int_equal(bytes, 777);
    assert_int_equal(stat(str_to_cstr(ctx->arena, path), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void test_a_file_that_is_replaced_leaves_nothing_behind(struct testkit *kit,
                                                               struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct record row;
    struct error e;
    for (int i = 0; i < 5; i++) /* each gives the bytes of the one before back to the quota */
        assert_true(
            put(kit, ctx, &ada, id, S("a"), repeated(ctx, (char) ('a' + i), 900), &row, &e));
    assert_int_equal(get(kit, ctx, &ada, id, S("a")).ptr[0], 'e');
    assert_int_equal(listed(kit, ctx, &ada, id), 1);
    assert_int_equal(files_on_disk(kit), 1);
}

static void test_a_reader_of_a_file_that_is_replaced_reads_the_old_one_whole(struct testkit *kit,
                                                                             struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct file_download *download;
    struct record row;
    struct error e;
    str piece;
    assert_true(put(kit, ctx, &ada, id, S("a"), S("old"), &row, &e));
    assert_true(file_download_begin(kit->o, ctx, &ada, id, S("a"), &download, &row, &e));
    assert_true(put(kit, ctx, &ada, id, S("a"), S("new one"), &row, &e));
    assert_true(file_download_read(download, ctx, &piece, &e));
    assert_true(str_equal(piece, S("old")));
    file_download_end(download);
    assert_true(str_equal(get(kit, ctx, &ada, id, S("a")), S("new one")));
}

static void test_the_quota_holds_at_its_bound_and_one_past_it(struct testkit *kit,
                                                              struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct file_upload *upload;
    struct record row;
    struct error e;
    assert_true(put(kit, ctx, &ada, id, S("a"), repeated(ctx, 'x', 400), &row, &e));
    assert_false(put(kit, ctx, &ada, id, S("b"), repeated(ctx, 'x', 601), &row, &e));
    assert_int_equal(e.reason, REASON_QUOTA);
    assert_true(put(kit, ctx, &ada, id, S("b"), repeated(ctx, 'x', 600), &row, &e));
    assert_false(put(kit, ctx, &ada, id, S("c"), S("x"), &row, &e));
    assert_non_null(strstr(e.message, "leaves 0 bytes"));
    e = (struct error){0};
    assert_false(file_upload_begin(kit->o, ctx, &ada, id, S("c"), STR_NONE, 1, &upload,
                                   &e)); /* told ahead */
    assert_int_equal(e.reason, REASON_QUOTA);
    assert_int_equal(files_on_disk(kit), 2);
}

static void test_two_uploads_at_once_do_not_pass_the_quota_together(struct testkit *kit,
                                                                    struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct file_upload *first, *second;
    struct record row;
    struct error e = {0};
    assert_true(file_upload_begin(kit->o, ctx, &ada, id, S("a"), STR_NONE, 700, &first, &e));
    assert_true(file_upload_begin(kit->o, ctx, &ada, id, S("b"), STR_NONE, 700, &second, &e));
    assert_true(file_upload_write(first, ctx, repeated(ctx, 'x', 700), &e));
    assert_true(file_upload_write(second, ctx, repeated(ctx, 'x', 700), &e));
    assert_true(file_upload_finish(first, ctx, &row, &e));
    assert_false(file_upload_finish(second, ctx, &row, &e));
    assert_int_equal(e.reason, REASON_QUOTA);
    assert_int_equal(listed(kit, ctx, &ada, id), 1);
    assert_int_equal(files_on_disk(kit), 1);
}

static void test_an_aborted_upload_leaves_neither_row_nor_file(struct testkit *kit,
                                                               struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct file_upload *upload;
    struct error e;
    assert_true(file_upload_begin(kit->o, ctx, &ada, id, S("a"), STR_NONE, -1, &upload, &e));
    assert_true(file_upload_write(upload, ctx, S("half"), &e));
    assert_int_equal(listed(kit, ctx, &ada, id), 0);
    file_upload_abort(upload);
    file_upload_abort(NULL);
    assert_int_equal(listed(kit, ctx, &ada, id), 0);
    assert_int_equal(files_on_disk(kit), 0);
}

#ifdef NEXUS_FAULTS
static void test_a_full_disk_is_told_as_one_and_leaves_the_old_file(struct testkit *kit,
                                                                    struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct record row;
    struct error e;
    assert_true(put(kit, ctx, &ada, id, S("a"), S("old"), &row, &e));
    fault_arm(S("file.write:1"));
    assert_false(put(kit, ctx, &ada, id, S("a"), S("new"), &row, &e));
    fault_arm(S(""));
    assert_int_equal(e.reason, REASON_DISK_FULL);
    assert_true(str_equal(get(kit, ctx, &ada, id, S("a")), S("old")));
    assert_int_equal(files_on_disk(kit), 1);
}
#endif

static void test_names_that_are_no_names_are_refused(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    const str names[] = {
        S(""),     S("."),    S(".."),   S("a/b"),  S("/etc/passwd"),       S("..\\x"),
        S("a\0b"), S("a\nb"), S("\x7f"), S("\xff"), repeated(ctx, 'x', 256)};
    struct record row;
    struct error e;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        assert_false(put(kit, ctx, &ada, id, names[i], S("x"), &row, &e));
        assert_int_equal(e.reason, REASON_SCHEMA);
    }
    assert_true(put(kit, ctx, &ada, id, repeated(ctx, 'x', 255), S("x"), &row, &e));
    assert_true(put(kit, ctx, &ada, id, S("...and %2e%2e"), S("x"), &row, &e));
    assert_int_equal(files_on_disk(kit), 2);
}

static void assert_out_of_reach(struct testkit *kit, struct context *ctx,
                                const struct principal *who, uuid id)
{
    struct file_upload *upload;
    struct file_download *download;
    struct record row;
    struct records rows;
    struct error e[4] = {0};
    assert_false(file_upload_begin(kit->o, ctx, who, id, S("a"), STR_NONE, -1, &upload, &e[0]));
    assert_false(file_download_begin(kit->o, ctx, who, id, S("a"), &download, &row, &e[1]));
    assert_false(file_remove(kit->o, ctx, who, id, S("a"), &e[2]));
    assert_false(file_list(kit->o, ctx, who, id, &rows, &e[3]));
    for (size_t i = 0; i < ARRAY_COUNT(e); i++)
        assert_int_equal(e[i].reason, REASON_NOT_FOUND);
}

static void test_others_and_other_tenants_reach_no_file(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER),
                     eve = testkit_principal(kit, "eve", ROLE_LEVEL_USER);
    struct principal foreign = testkit_principal(kit, "ada", ROLE_LEVEL_ADMIN),
                     viewer = testkit_principal(kit, "ada", ROLE_LEVEL_VIEWER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct record row;
    struct error e;
    foreign.tenant_id = kit->other_tenant_id;
    assert_true(put(kit, ctx, &ada, id, S("a"), S("secret"), &row, &e));
    assert_out_of_reach(kit, ctx, &eve, id);
    assert_out_of_reach(kit, ctx, &foreign, id);
    assert_false(
        put(kit, ctx, &viewer, id, S("b"), S("x"), &row, &e)); /* a viewer reads and no more */
    assert_int_equal(e.reason, REASON_DENIED);
    assert_false(file_remove(kit->o, ctx, &viewer, id, S("a"), &e));
    assert_true(str_equal(get(kit, ctx, &viewer, id, S("a")), S("secret")));
}

static void test_a_removed_file_is_gone(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    struct file_download *download;
    struct record row;
    struct error e = {0};
    assert_true(put(kit, ctx, &ada, id, S("a"), S("x"), &row, &e));
    assert_true(file_remove(kit->o, ctx, &ada, id, S("a"), &e));
    assert_int_equal(files_on_disk(kit), 0);
    assert_false(file_download_begin(kit->o, ctx, &ada, id, S("a"), &download, &row, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    e = (struct error){0};
    assert_false(file_remove(kit->o, ctx, &ada, id, S("a"), &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_LOOP_BODY(test_a_file_comes_back_as_it_was_sent),
        TESTKIT_LOOP_BODY(test_a_file_that_is_replaced_leaves_nothing_behind),
        TESTKIT_LOOP_BODY(test_a_reader_of_a_file_that_is_replaced_reads_the_old_one_whole),
        TESTKIT_LOOP_BODY(test_the_quota_holds_at_its_bound_and_one_past_it),
        TESTKIT_LOOP_BODY(test_two_uploads_at_once_do_not_pass_the_quota_together),
        TESTKIT_LOOP_BODY(test_an_aborted_upload_leaves_neither_row_nor_file),
#ifdef NEXUS_FAULTS
        TESTKIT_LOOP_BODY(test_a_full_disk_is_told_as_one_and_leaves_the_old_file),
#endif
        TESTKIT_LOOP_BODY(test_names_that_are_no_names_are_refused),
        TESTKIT_LOOP_BODY(test_others_and_other_tenants_reach_no_file),
        TESTKIT_LOOP_BODY(test_a_removed_file_is_gone),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
