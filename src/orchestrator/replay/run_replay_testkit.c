#include "orchestrator/replay/run_replay_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/replay/run_export.h"

struct exporting {
    uuid run_id;
    str text;
};

static void export_now(struct context *ctx, void *argument)
{
    struct exporting *x = argument;
    struct error e = {0};
    struct principal admin = testkit_principal(scene.kit, "root", ROLE_LEVEL_ADMIN);
    if (!run_export(scene.kit->o, ctx, &admin, x->run_id, &x->text, &e))
        fail_msg("%s", e.message);
    x->text = str_copy(scene.kit->arena, x->text);
}

str replay_export_of(struct testkit *kit, uuid run_id)
{
    struct exporting x = {.run_id = run_id};
    testkit_do(kit, export_now, &x);
    return x.text;
}

str replay_export(struct testkit *kit)
{
    return replay_export_of(kit, scene.run_id);
}

struct replay_report *replay_text(struct testkit *kit, str text)
{
    struct replay_report *report = ARENA_NEW(kit->arena, struct replay_report);
    struct error e = {0};
    if (!run_replay(kit->arena, text, report, &e))
        fail_msg("%s", e.message);
    return report;
}

/* NEXUS_JOURNALS=FOLDER keeps what was recorded, for whoever looks into it. */
static void keep_recording(struct testkit *kit, str text)
{
    const char *folder = getenv("NEXUS_JOURNALS");
    static int number;
    if (!folder)
        return;
    str path = str_printf(kit->arena, "%s/%03d.json", folder, ++number);
    FILE *file = fopen(str_to_cstr(kit->arena, path), "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text.ptr, 1, text.len, file), text.len);
    assert_int_equal(fclose(file), 0);
}

str assert_replays_run(struct testkit *kit, uuid run_id)
{
    str text = replay_export_of(kit, run_id);
    keep_recording(kit, text);
    struct replay_report *report = replay_text(kit, text);
    for (size_t i = 0; i < report->difference_count && i < 5; i++)
        print_message("event %lld " STR_FMT "\n  recorded " STR_FMT "\n  replayed " STR_FMT "\n",
                      (long long) report->differences[i].seq, STR_ARG(report->differences[i].what),
                      STR_ARG(report->differences[i].recorded),
                      STR_ARG(report->differences[i].replayed));
    assert_int_equal(report->difference_count, 0);
    assert_true(report->is_same);
    return text;
}

str assert_replays(struct testkit *kit)
{
    return assert_replays_run(kit, scene.run_id);
}
