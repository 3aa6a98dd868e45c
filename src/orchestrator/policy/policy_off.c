/* No policy at all: for benchmarks and first trials.  Whoever starts with it is told so, loudly (policy.h). */
#include "base/ensure.h"
#include "orchestrator/policy/policy.h"

#include <stdlib.h>

static void decide(struct policy *policy, struct context *ctx, const struct policy_input *input,
                   struct policy_decision *out)
{
    (void) policy;
    (void) ctx;
    (void) input;
    *out = (struct policy_decision){.verdict = POLICY_ALLOW,
                                    .reason = S("the policy is off"),
                                    .rule = S("policy off"),
                                    .version = S("off")};
}

static bool reload(struct policy *policy, struct error *e)
{
    (void) policy;
    (void) e;
    return true;
}

static void destroy(struct policy *policy)
{
    free(policy);
}

static const struct policy_ops off_ops = {.name = "off",
                                          .decide = decide,
                                          .approval_demands = policy_demands_nothing,
                                          .reload = reload,
                                          .destroy = destroy};

struct policy *policy_off_create(void)
{
    struct policy *policy = malloc(sizeof *policy);
    ensure(policy != NULL);
    *policy = (struct policy){.ops = &off_ops};
    return policy;
}
