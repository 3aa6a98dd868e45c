#include "base/arena.h"
#include "base/limits.h"
#include "store/store_contract.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
/* after the above: cmocka wants them first */
#include <cmocka.h>

static struct store_fixture *current;
static uuid tenant;

#define OK(call) assert_true(call)
#define REFUSED(call, wanted)                                                                      \
    do {                                                                                           \
        assert_false(call);                                                                        \
        assert_string_equal(error_problem(e.reason), error_problem(REASON_##wanted));              \
    } while (0)

/* A direction in the plane of the first two axes, of any length. */
static float *direction(struct context *ctx, double degrees, double length)
{
    float *vector = ARENA_ARRAY(ctx->arena, float, CONTRACT_DIMENSION);
    vector[0] = (float) (length * cos(degrees * M_PI / 180));
    vector[1] = (float) (length * sin(degrees * M_PI / 180));
    return vector;
}

static struct vector_point point_of(uuid session, const float *vector, str metadata)
{
    return (struct vector_point){
        .id = test_id(),
        .session_id = session,
        .user_id = S("ada"),
        .timestamp_us = 77,
        .content_type = S("message"),
        .metadata = metadata,
        .vector = vector,
    };
}

static size_t search(struct context *ctx, uuid owner, uuid session, str user, double degrees,
                     size_t limit, struct vector_point **found)
{
    struct error e;
    size_t count;
    OK(vector_search(current->vectors, ctx, owner, session, user, direction(ctx, degrees, 3),
                     CONTRACT_DIMENSION, limit, found, &count, &e));
    return count;
}

static void the_nearest_come_first(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    uuid session = test_id(), other = test_id();
    struct vector_point points[12], *found;
    for (int i = 0; i < 12; i++)
        points[i] = point_of(i < 10 ? session : other, direction(ctx, 10 * i, 1 + i),
                             str_printf(ctx->arena, "{\"n\":%d}", i));
    OK(vector_upsert(current->vectors, ctx, tenant, points, 12, CONTRACT_DIMENSION, &e));
    assert_int_equal(search(ctx, tenant, session, S("ada"), 31, 3, &found), 3);
    assert_true(uuid_equal(found[0].id, points[3].id));
    assert_true(uuid_equal(found[1].id, points[4].id));
    assert_true(uuid_equal(found[2].id, points[2].id));
    assert_true(fabs(found[0].score - cos(M_PI / 180)) < 1e-5);
    assert_true(str_equal(found[0].metadata, S("{\"n\":3}")));
    assert_true(str_equal(found[0].user_id, S("ada")) &&
                str_equal(found[0].content_type, S("message")));
    assert_int_equal(found[0].timestamp_us, 77);
    assert_null(found[0].vector);
    assert_int_equal(search(ctx, tenant, session, S("ada"), 0, 50, &found), 10);
    assert_int_equal(search(ctx, tenant, UUID_NONE, S("ada"), 110, 50, &found), 12);
    assert_true(uuid_equal(found[0].id, points[11].id));
    assert_int_equal(search(ctx, tenant, session, S("bob"), 0, 50, &found), 0);
    assert_int_equal(search(ctx, test_id(), session, S("ada"), 0, 50, &found), 0);
    points[0].vector = direction(ctx, 31, 1); /* replaced in place, and seen at once */
    OK(vector_upsert(current->vectors, ctx, tenant, points, 1, CONTRACT_DIMENSION, &e));
    assert_int_equal(search(ctx, tenant, session, S("ada"), 31, 1, &found), 1);
    assert_true(uuid_equal(found[0].id, points[0].id));
    struct vector_point stolen = points[0];
    stolen.session_id = other;
    REFUSED(vector_upsert(current->vectors, ctx, tenant, &stolen, 1, CONTRACT_DIMENSION, &e),
            CONFLICT);
    OK(vector_forget(current->vectors, ctx, tenant, session, &points[0].id, 1, &e));
    assert_int_equal(search(ctx, tenant, session, S("ada"), 0, 50, &found), 9);
    OK(vector_forget(current->vectors, ctx, tenant, other, &points[1].id, 1,
                     &e)); /* not of that session */
    assert_int_equal(search(ctx, tenant, session, S("ada"), 0, 50, &found), 9);
    OK(vector_forget(current->vectors, ctx, tenant, session, NULL, 0, &e));
    assert_int_equal(search(ctx, tenant, session, S("ada"), 0, 50, &found), 0);
    assert_int_equal(search(ctx, tenant, UUID_NONE, S("ada"), 0, 50, &found), 2);
}

static void equal_scores_are_ordered_by_id(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    uuid session = test_id();
    struct vector_point points[4], *found;
    for (int i = 0; i < 4; i++)
        points[i] = point_of(session, direction(ctx, 20, 1), S("{}"));
    OK(vector_upsert(current->vectors, ctx, tenant, points, 4, CONTRACT_DIMENSION, &e));
    assert_int_equal(search(ctx, tenant, session, S("ada"), 20, 4, &found), 4);
    for (int i = 1; i < 4; i++)
        assert_true(uuid_compare(found[i - 1].id, found[i].id) < 0);
}

static void odd_vectors_are_refused(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    uuid session = test_id();
    struct vector_point good = point_of(session, direction(ctx, 0, 1), S("{}")), bad = good, *found;
    size_t count;
    bad.vector = ARENA_ARRAY(ctx->arena, float, CONTRACT_DIMENSION);
    struct vector_point pair[] = {good, bad};
    REFUSED(vector_upsert(current->vectors, ctx, tenant, pair, 2, CONTRACT_DIMENSION, &e), INVALID);
    float *infinite = direction(ctx, 0, 1);
    infinite[3] = INFINITY;
    pair[1].vector = infinite;
    REFUSED(vector_upsert(current->vectors, ctx, tenant, pair, 2, CONTRACT_DIMENSION, &e), INVALID);
    assert_int_equal(search(ctx, tenant, session, S("ada"), 0, 50, &found), 0);
    REFUSED(vector_upsert(current->vectors, ctx, tenant, &good, 1, CONTRACT_DIMENSION + 1, &e),
            INVALID);
    REFUSED(vector_search(current->vectors, ctx, tenant, session, S("ada"), good.vector,
                          CONTRACT_DIMENSION - 1, 1, &found, &count, &e),
            INVALID);
    REFUSED(vector_search(current->vectors, ctx, tenant, session, S("ada"), good.vector,
                          CONTRACT_DIMENSION, 0, &found, &count, &e),
            INVALID);
    good.content_type = S("other");
    REFUSED(vector_upsert(current->vectors, ctx, tenant, &good, 1, CONTRACT_DIMENSION, &e),
            INVALID);
}

static void a_point_is_found_by_its_id_in_its_tenant(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    uuid session = test_id();
    struct vector_point point = point_of(session, direction(ctx, 20, 1), S("{\"n\":1}")), found;
    OK(vector_upsert(current->vectors, ctx, tenant, &point, 1, CONTRACT_DIMENSION, &e));
    OK(vector_find(current->vectors, ctx, tenant, point.id, &found, &e));
    assert_true(uuid_equal(found.id, point.id) && uuid_equal(found.session_id, session));
    assert_true(str_equal(found.user_id, S("ada")) && str_equal(found.metadata, S("{\"n\":1}")));
    assert_null(found.vector);
    REFUSED(vector_find(current->vectors, ctx, test_id(), point.id, &found, &e), NOT_FOUND);
    REFUSED(vector_find(current->vectors, ctx, tenant, test_id(), &found, &e), NOT_FOUND);
}

static void a_session_and_a_user_have_only_so_many_points(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    uuid session = test_id(), other = test_id();
    struct vector_point points[3], more, *found;
    current->vectors->session_points_max = 2;
    current->vectors->user_points_max = 3;
    for (int i = 0; i < 3; i++) {
        points[i] = point_of(session, direction(ctx, 10 * i, 1), S("{}"));
        points[i].user_id = S("cleo");
    }
    REFUSED(vector_upsert(current->vectors, ctx, tenant, points, 3, CONTRACT_DIMENSION, &e), QUOTA);
    assert_int_equal(search(ctx, tenant, session, S("cleo"), 0, 50, &found), 0); /* none */
    OK(vector_upsert(current->vectors, ctx, tenant, points, 2, CONTRACT_DIMENSION, &e));
    OK(vector_upsert(current->vectors, ctx, tenant, points, 2, CONTRACT_DIMENSION, &e)); /* again */
    REFUSED(vector_upsert(current->vectors, ctx, tenant, &points[2], 1, CONTRACT_DIMENSION, &e),
            QUOTA);
    more = point_of(other, direction(ctx, 40, 1), S("{}"));
    more.user_id = S("cleo");
    OK(vector_upsert(current->vectors, ctx, tenant, &more, 1, CONTRACT_DIMENSION, &e));
    more.id = test_id();
    REFUSED(vector_upsert(current->vectors, ctx, tenant, &more, 1, CONTRACT_DIMENSION, &e), QUOTA);
    more.user_id = S("bob");
    OK(vector_upsert(current->vectors, ctx, tenant, &more, 1, CONTRACT_DIMENSION, &e));
    OK(vector_forget(current->vectors, ctx, tenant, session, &points[0].id, 1, &e));
    OK(vector_upsert(current->vectors, ctx, tenant, &points[2], 1, CONTRACT_DIMENSION, &e));
    current->vectors->session_points_max = current->vectors->user_points_max = 0;
}

static int open_fixture(void **state)
{
    (void) state;
    current->open(current);
    tenant = test_id();
    return 0;
}

static int close_fixture(void **state)
{
    (void) state;
    current->close(current);
    return 0;
}

#define IN_COROUTINE(body)                                                                         \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void) state;                                                                              \
        store_testkit_run(body, NULL);                                                             \
    }
IN_COROUTINE(the_nearest_come_first)
IN_COROUTINE(equal_scores_are_ordered_by_id)
IN_COROUTINE(odd_vectors_are_refused)
IN_COROUTINE(a_point_is_found_by_its_id_in_its_tenant)
IN_COROUTINE(a_session_and_a_user_have_only_so_many_points)

int vector_contract_run(struct store_fixture *fixture)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_nearest_come_first),
        cmocka_unit_test(test_equal_scores_are_ordered_by_id),
        cmocka_unit_test(test_odd_vectors_are_refused),
        cmocka_unit_test(test_a_point_is_found_by_its_id_in_its_tenant),
        cmocka_unit_test(test_a_session_and_a_user_have_only_so_many_points),
    };
    current = fixture;
    return cmocka_run_group_tests_name(fixture->name, tests, open_fixture, close_fixture);
}
