#include "gateway/keys/keys.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "gateway/keys_internal.h"
#include "runtime/loop.h"
#include "store/memory.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    struct loop *loop;
    struct context ctx;
    struct arena *arena;
    struct store *store;
    struct keys *keys;
    char dir[64], key_path[96], pepper_path[96];
    void (*body)(struct world *world);
};

static struct keys *open_keys(struct world *world, bool may_create)
{
    struct error e = {0};
    struct keys *keys = NULL;
    struct keys_options options = {world->store, clock_system(), random_system(),
                                   str_from_cstr(world->pepper_path), may_create};
    if (!keys_create(&options, &keys, &e))
        assert_int_equal(e.reason, REASON_CONFIG);
    return keys;
}

static void run(void *argument)
{
    struct world *world = argument;
    world->arena = arena_create(64u << 20);
    context_init(&world->ctx, loop_scheduler(world->loop), world->arena, DEADLINE_NONE);
    world->body(world);
    context_deinit(&world->ctx);
    arena_destroy(world->arena);
    loop_stop(world->loop);
}

static void in_world(void (*body)(struct world *world))
{
    struct error e = {0};
    struct world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    snprintf(world->dir, sizeof world->dir, "/tmp/nexus-keys-XXXXXX");
    ensure(mkdtemp(world->dir) != NULL);
    snprintf(world->key_path, sizeof world->key_path, "%s/admin.key", world->dir);
    snprintf(world->pepper_path, sizeof world->pepper_path, "%s/keys.pepper", world->dir);
    world->body = body;
    world->loop = loop_create(clock_system(), random_system(), &e);
    world->store = memory_store_create(clock_system(), random_system(),
                                       (struct memory_store_hooks){0}, S("test"));
    world->keys = open_keys(world, true);
    ensure(coroutine_start(loop_scheduler(world->loop), "test", run, world, &e));
    loop_run(world->loop);
    blocking_pool_stop();
    keys_destroy(world->keys);
    store_destroy(world->store);
    loop_destroy(world->loop);
    unlink(world->key_path);
    unlink(world->pepper_path);
    assert_int_equal(rmdir(world->dir), 0); /* nothing else is left behind */
    free(world);
}

static bool bootstrap(struct world *world)
{
    bool created;
    struct error e = {0};
    if (!keys_bootstrap(world->keys, &world->ctx, str_from_cstr(world->key_path), &created, &e))
        fail_msg("%s", e.message);
    return created;
}

static str read_key(struct world *world, const char *path)
{
    char text[KEY_BYTES_MAX];
    size_t len;
    struct error e = {0};
    if (!keys_read_secret_file(path, text, sizeof text, &len, &e))
        fail_msg("%s", e.message);
    assert_int_equal(text[len - 1], '\n');
    return str_copy(world->arena, str_of(text, len - 1));
}

static bool who(struct world *world, struct keys *keys, str key, struct principal *out)
{
    struct error e = {0};
    bool ok = keys_authenticate(keys, &world->ctx, key, out, &e);
    assert_true(ok || e.reason == REASON_UNAUTHENTICATED);
    return ok;
}

/* ---- the first start ---- */

static void first(struct world *world)
{
    struct principal admin = {0};
    struct stat status;
    assert_true(bootstrap(world));
    assert_int_equal(stat(world->key_path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    str key = read_key(world, world->key_path);
    assert_int_equal(key.len, 4 + 43);
    assert_true(who(world, world->keys, key, &admin));
    assert_true(str_equal(admin.role, S("admin")) && str_equal(admin.user_id, S("admin")));
    assert_int_equal(admin.scopes, SCOPE_PLATFORM | SCOPE_ACT_AS | SCOPE_APPROVE);
    assert_false(bootstrap(world));
    unlink(world->key_path);
    assert_false(bootstrap(world)); /* never again because the file vanished */
    assert_int_not_equal(stat(world->key_path, &status), 0);
}
static void test_the_first_start_makes_one_key_and_no_later_one_does(void **state)
{
    (void) state;
    in_world(first);
}

static void interrupted(struct world *world)
{
    char draft[128];
    struct error e = {0};
    struct principal admin;
    snprintf(draft, sizeof draft, "%s.new", world->key_path);
    assert_true(keys_write_secret_file(draft, S("nxk_never-committed\n"), &e));
    assert_true(bootstrap(world)); /* died before the commit: a new key */
    assert_int_equal(rename(world->key_path, draft), 0);
    assert_true(bootstrap(world)); /* died after it: the same key gets its name */
    assert_true(who(world, world->keys, read_key(world, world->key_path), &admin));
    assert_true(keys_write_secret_file(draft, S("nxk_stray\n"), &e));
    assert_false(bootstrap(world));
    assert_int_not_equal(access(draft, F_OK), 0);
}
static void test_an_interrupted_first_start_loses_no_key(void **state)
{
    (void) state;
    in_world(interrupted);
}

static void pepper(struct world *world)
{
    struct principal admin;
    assert_true(bootstrap(world));
    str key = read_key(world, world->key_path);
    struct keys *again = open_keys(world, false);
    assert_true(who(world, again, key, &admin));
    keys_destroy(again);
    assert_int_equal(chmod(world->pepper_path, 0644), 0);
    assert_null(open_keys(world, false));
    unlink(world->pepper_path);
    assert_null(open_keys(world, false)); /* without it no key could be checked */
    struct keys *other = open_keys(world, true);
    assert_false(who(world, other, key, &admin)); /* a copied database opens nothing */
    keys_destroy(other);
}
static void test_keys_open_nothing_without_the_pepper(void **state)
{
    (void) state;
    in_world(pepper);
}

/* ---- issuing, revoking ---- */

static str issue(struct world *world, const struct principal *creator, struct key_request request,
                 uuid *id)
{
    struct error e = {0};
    struct record *row = ARENA_NEW(world->arena, struct record);
    str key;
    if (!keys_issue(world->keys, &world->ctx, creator, &request, &key, row, &e))
        fail_msg("%s", e.message);
    assert_true(str_starts_with(key, record_text(row, API_KEYS_PREFIX)));
    assert_true(record_text(row, API_KEYS_PREFIX).len < key.len / 2);
    *id = record_uuid(row, API_KEYS_ID);
    return key;
}

static void life(struct world *world)
{
    struct principal admin = {0}, user = {0};
    struct error e = {0};
    uuid id;
    assert_true(bootstrap(world));
    assert_true(who(world, world->keys, read_key(world, world->key_path), &admin));
    str key =
        issue(world, &admin,
              (struct key_request){.name = S("a"), .user_id = S("alice"), .role = S("user")}, &id);
    assert_true(who(world, world->keys, key, &user));
    assert_true(str_equal(user.user_id, S("alice")));
    assert_int_equal(user.level, ROLE_LEVEL_USER);
    assert_int_equal(user.scopes, 0);
    assert_false(who(world, world->keys, S(""), &user));
    assert_false(who(world, world->keys, str_slice(key, 0, key.len - 1), &user));
    assert_false(keys_revoke(world->keys, &world->ctx, &user, admin.key_id, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_true(keys_revoke(world->keys, &world->ctx, &user, id, &e));
    assert_false(who(world, world->keys, key, &user)); /* at once, although it was in the cache */
    assert_true(keys_revoke(world->keys, &world->ctx, &admin, id, &e));
}
static void test_a_key_works_from_its_making_until_it_is_revoked(void **state)
{
    (void) state;
    in_world(life);
}

static void elsewhere(struct world *world)
{
    struct principal admin = {0}, user = {0};
    struct error e = {0};
    uuid id;
    assert_true(bootstrap(world));
    assert_true(who(world, world->keys, read_key(world, world->key_path), &admin));
    str key =
        issue(world, &admin,
              (struct key_request){.name = S("a"), .user_id = S("alice"), .role = S("user")}, &id);
    struct keys *node = open_keys(world, false);
    assert_true(who(world, node, key, &user));
    assert_true(keys_revoke(world->keys, &world->ctx, &admin, id, &e));
    assert_true(context_sleep_ms(&world->ctx, KEY_CACHE_MS + 50, &e));
    assert_false(who(world, node, key, &user));
    keys_destroy(node);
}
static void test_another_node_forgets_a_revoked_key_within_the_cache_time(void **state)
{
    (void) state;
    in_world(elsewhere);
}

static void expiring(struct world *world)
{
    struct principal admin = {0}, user = {0};
    struct error e = {0};
    uuid id;
    assert_true(bootstrap(world));
    assert_true(who(world, world->keys, read_key(world, world->key_path), &admin));
    int64_t soon_us = clock_unix_us(clock_system()) + 300000;
    str key =
        issue(world, &admin,
              (struct key_request){.name = S("a"), .role = S("user"), .expires_us = soon_us}, &id);
    assert_true(who(world, world->keys, key, &user));
    assert_true(context_sleep_ms(&world->ctx, 350, &e));
    assert_false(who(world, world->keys, key, &user)); /* the cache knows the time */
}
static void test_a_key_ends_at_its_time(void **state)
{
    (void) state;
    in_world(expiring);
}

/* ---- virtual keys ---- */

static void limited(struct world *world)
{
    struct principal admin = {0}, user = {0};
    struct error e = {0};
    struct record *row = ARENA_NEW(world->arena, struct record);
    uuid id;
    str ignored;
    assert_true(bootstrap(world));
    assert_true(who(world, world->keys, read_key(world, world->key_path), &admin));
    struct key_request request = {
        .name = S("app"),
        .role = S("user"),
        .limits = {.requests_per_minute = 60, .streams = 2, .models = S("fast\nagent:*")}};
    str key = issue(world, &admin, request, &id);
    for (int turn = 0; turn < 2; turn++) { /* from the store, from the cache */
        assert_true(who(world, world->keys, key, &user));
        assert_int_equal(user.limits.requests_per_minute, 60);
        assert_int_equal(user.limits.tokens_per_minute, 0);
        assert_true(principal_check_model(&user, S("fast"), &e));
        assert_true(principal_check_model(&user, S("agent:assistant"), &e));
        assert_false(principal_check_model(&user, S("faster"), &e));
        assert_int_equal(e.reason, REASON_DENIED);
    }
    assert_true(principal_check_model(&admin, S("faster"), &e));
    request.limits = (struct key_limits){0};
    assert_false(keys_issue(world->keys, &world->ctx, &user, &request, &ignored, row, &e));
    assert_int_equal(e.reason, REASON_DENIED); /* no way round a limit */
    assert_false(keys_rotate(world->keys, &world->ctx, &user, id, 0, &ignored, row, &e));
    assert_int_equal(e.reason, REASON_DENIED);
}
static void test_limits_of_a_key_go_with_it_and_it_makes_no_keys(void **state)
{
    (void) state;
    in_world(limited);
}

static const struct json *json_of(struct world *world, const char *text)
{
    struct error e = {0};
    const struct json *json;
    if (!json_parse(world->arena, str_from_cstr(text), (struct json_limits){0}, &json, &e))
        fail_msg("%s", e.message);
    return json;
}

static void updated(struct world *world)
{
    static const char *const refused[] = {
        "{\"requests_per_minute\":0}", "{\"streams\":\"many\"}", "{\"models\":[\"\"]}",
        "{\"models\":\"fast\"}",       "{\"name\":\"\"}",        "{\"expires_at\":\"soon\"}"};
    struct principal admin = {0}, user = {0};
    struct error e = {0};
    struct record *row = ARENA_NEW(world->arena, struct record);
    uuid id;
    assert_true(bootstrap(world));
    assert_true(who(world, world->keys, read_key(world, world->key_path), &admin));
    str key = issue(world, &admin,
                    (struct key_request){.name = S("app"),
                                         .role = S("user"),
                                         .limits = {.streams = 2, .models = S("fast")}},
                    &id);
    assert_true(who(world, world->keys, key, &user));
    assert_true(keys_update(world->keys, &world->ctx, &admin, id,
                            json_of(world, "{\"tokens_per_minute\":500,\"models\":null}"), false,
                            row, &e));
    assert_true(who(world, world->keys, key, &user)); /* at once */
    assert_int_equal(user.limits.tokens_per_minute, 500);
    assert_int_equal(user.limits.streams, 2); /* was not named */
    assert_true(str_is_empty(user.limits.models));
    for (size_t i = 0; i < ARRAY_COUNT(refused); i++) {
        assert_false(keys_update(world->keys, &world->ctx, &admin, id, json_of(world, refused[i]),
                                 false, row, &e));
        assert_int_equal(e.reason, REASON_SCHEMA);
    }
    assert_true(keys_revoke(world->keys, &world->ctx, &admin, id, &e));
    assert_false(
        keys_update(world->keys, &world->ctx, &admin, id, json_of(world, "{}"), false, row, &e));
    assert_int_equal(e.reason, REASON_CONFLICT);
}
static void test_what_an_update_does_not_name_stays(void **state)
{
    (void) state;
    in_world(updated);
}

static void rotated(struct world *world)
{
    struct principal admin = {0}, user = {0};
    struct error e = {0};
    struct record *row = ARENA_NEW(world->arena, struct record);
    uuid id;
    str second, third;
    assert_true(bootstrap(world));
    assert_true(who(world, world->keys, read_key(world, world->key_path), &admin));
    str first =
        issue(world, &admin, (struct key_request){.name = S("app"), .role = S("user")}, &id);
    assert_true(who(world, world->keys, first, &user)); /* now it is in the cache */
    assert_true(keys_rotate(world->keys, &world->ctx, &admin, id, 1, &second, row, &e));
    assert_true(who(world, world->keys, second, &user) && uuid_equal(user.key_id, id));
    assert_true(who(world, world->keys, first, &user) && uuid_equal(user.key_id, id));
    assert_true(context_sleep_ms(&world->ctx, 1050, &e));
    assert_false(who(world, world->keys, first, &user)); /* the cache knows the time */
    assert_true(keys_rotate(world->keys, &world->ctx, &admin, id, 0, &third, row, &e));
    assert_false(who(world, world->keys, second, &user));
    assert_true(who(world, world->keys, third, &user));
    assert_true(keys_revoke(world->keys, &world->ctx, &admin, id, &e));
    assert_false(who(world, world->keys, third, &user));
}
static void test_a_rotated_key_is_good_in_its_old_form_for_the_overlap(void **state)
{
    (void) state;
    in_world(rotated);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_start_makes_one_key_and_no_later_one_does),
        cmocka_unit_test(test_an_interrupted_first_start_loses_no_key),
        cmocka_unit_test(test_keys_open_nothing_without_the_pepper),
        cmocka_unit_test(test_a_key_works_from_its_making_until_it_is_revoked),
        cmocka_unit_test(test_another_node_forgets_a_revoked_key_within_the_cache_time),
        cmocka_unit_test(test_a_key_ends_at_its_time),
        cmocka_unit_test(test_limits_of_a_key_go_with_it_and_it_makes_no_keys),
        cmocka_unit_test(test_what_an_update_does_not_name_stays),
        cmocka_unit_test(test_a_rotated_key_is_good_in_its_old_form_for_the_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
