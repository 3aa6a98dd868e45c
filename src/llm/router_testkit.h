/*
 * Route scene: a router over providers that nobody calls, with a clock and randomness of its own.
 *
 * A test says what it needs in `targets`, `variants`, `model` and lets route_scene_adopt make a catalog of it (again, for a reload).
 */
#ifndef NEXUS_LLM_ROUTER_TESTKIT_H
#define NEXUS_LLM_ROUTER_TESTKIT_H

#include "llm/router_internal.h"
#include "runtime/simulated.h"

enum { ROUTE_SCENE_PROVIDERS = 4, ROUTE_SCENE_SECOND_NS = 1000000000 };

/* Models over four providers; a test says what it needs and calls begin. */
struct route_scene {
    struct clock *clock;
    struct random *random;
    struct metrics *metrics;
    struct router *router;
    struct catalog *catalog;
    struct provider providers[ROUTE_SCENE_PROVIDERS];
    struct model_target targets[ROUTE_SCENE_PROVIDERS];
    struct model_variant variants[2];
    struct model model;
    const struct model *known;
};

struct route_scene *route_scene_create(size_t target_count);
void route_scene_adopt(struct route_scene *s);
void route_scene_destroy(struct route_scene *s);
void route_scene_pass_ms(struct route_scene *s, int64_t ms);
void route_scene_begin_for(struct route_scene *s, struct route *route, str sticky);
void route_scene_begin(struct route_scene *s, struct route *route);
struct error route_scene_failure(enum error_reason reason);
size_t route_scene_call_ok(struct route_scene *s, str sticky);
int route_scene_call_failing(struct route_scene *s, enum error_reason reason, struct error *last);
void route_scene_assert_at_rest(struct route_scene *s);

#endif
