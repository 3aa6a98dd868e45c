#include "llm/router_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

struct route_scene *route_scene_create(size_t target_count)
{
    static const char *const names[ROUTE_SCENE_PROVIDERS] = {"a", "b", "c", "d"};
    struct route_scene *s = calloc(1, sizeof *s);
    s->clock = clock_manual_create(1700000000000000, ROUTE_SCENE_SECOND_NS);
    s->random = random_seeded_create(7);
    s->metrics = metrics_create();
    s->router = router_create(s->clock, s->random, s->metrics);
    for (size_t i = 0; i < ROUTE_SCENE_PROVIDERS; i++) {
        s->providers[i].name = str_from_cstr(names[i]);
        s->targets[i] =
            (struct model_target){.provider = &s->providers[i], .model = S("m"), .weight = 1};
    }
    s->model = (struct model){.name = S("model"),
                              .targets = s->targets,
                              .target_count = target_count,
                              .max_output_tokens = 100,
                              .retries_max = -1};
    return s;
}

void route_scene_adopt(struct route_scene *s)
{
    struct error e = {0};
    s->catalog = catalog_create();
    if (!catalog_add(s->catalog, &s->model, &e))
        fail_msg("%s", e.message);
    router_adopt(s->router, s->catalog);
    s->known = catalog_find(s->catalog, S("model"));
}

void route_scene_destroy(struct route_scene *s)
{
    router_destroy(s->router);
    catalog_destroy(s->catalog);
    metrics_destroy(s->metrics);
    clock_manual_destroy(s->clock);
    random_seeded_destroy(s->random);
    free(s);
}

void route_scene_pass_ms(struct route_scene *s, int64_t ms)
{
    clock_manual_advance_ns(s->clock, ms * 1000000);
}

void route_scene_begin_for(struct route_scene *s, struct route *route, str sticky)
{
    route_begin(route, s->router, &(struct route_request){.model = s->known, .sticky = sticky});
}

void route_scene_begin(struct route_scene *s, struct route *route)
{
    route_scene_begin_for(s, route, STR_NONE);
}

struct error route_scene_failure(enum error_reason reason)
{
    struct error e = {0};
    error_set(&e, reason, "the test says so");
    return e;
}

/* One call that goes well; gives the target's index. */
size_t route_scene_call_ok(struct route_scene *s, str sticky)
{
    struct route route;
    struct attempt attempt;
    struct error e = {0};
    int64_t wait_ms;
    route_scene_begin_for(s, &route, sticky);
    if (!route_next(&route, NULL, &attempt, &wait_ms, &e))
        fail_msg("route_next: %s", e.message);
    attempt_end(&attempt, NULL);
    return attempt.target_index;
}

/* One call whose every attempt fails with `reason`; gives how many there were. */
int route_scene_call_failing(struct route_scene *s, enum error_reason reason, struct error *last)
{
    struct route route;
    struct attempt attempt;
    struct error failure = route_scene_failure(reason);
    int64_t wait_ms;
    int attempts = 0;
    route_scene_begin(s, &route);
    while (route_next(&route, attempts ? &failure : NULL, &attempt, &wait_ms, last)) {
        route_scene_pass_ms(s, wait_ms);
        attempts++;
        attempt_end(&attempt, &failure);
    }
    return attempts;
}

void route_scene_assert_at_rest(struct route_scene *s)
{
    for (size_t i = 0; i < s->known->target_count; i++)
        assert_int_equal(atomic_load(&s->known->targets[i].health->in_flight), 0);
}
