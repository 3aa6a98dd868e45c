/*
 * Catalog: model names that callers may ask for, and where each goes.
 *
 * An immutable snapshot made from the configuration (or from discovery); a reload makes a new one.  A model has targets (provider,
 * provider's name of the model, priority, weight, prices) and the rules its calls go by.  Which target a call takes is the router's
 * business (llm/router.h); what it costs is llm/prices.h's.
 */
#ifndef NEXUS_LLM_CATALOG_H
#define NEXUS_LLM_CATALOG_H

#include "llm/prices.h"
#include "llm/provider.h"

struct target_health; /* of the router: lives across reloads */
struct guard_rules;   /* llm/guard.h */

struct model_target {
    struct provider *provider; /* borrowed */
    str model;
    int64_t weight;   /* 1.. */
    int64_t priority; /* 0 first; the next one only when none of the lower is left */
    str variant; /* A/B split: the targets of one variant share a name; empty: not part of a split */
    struct model_price price;
    int64_t context_tokens_max;   /* 0: unknown */
    struct target_health *health; /* set by router_adopt; NULL before */
};
struct model_deadlines {
    int64_t connect_ms, first_token_ms, between_tokens_ms,
        total_ms; /* 0: limits.h or the provider's */
    int64_t
        attempt_ms; /* of one attempt at a whole answer, which has no first token; 0: total_ms */
};
enum model_cache_mode { MODEL_CACHE_OFF, MODEL_CACHE_EXACT, MODEL_CACHE_SEMANTIC };
struct model_cache {
    enum model_cache_mode mode;
    int64_t ttl_ms;
    bool is_tenant_wide; /* else per user */
    double similarity;   /* semantic: cosine, 0..1, at least this */
    str embedder;        /* semantic: the model that embeds */
};
struct model_variant {
    str name;
    int64_t weight;
};
struct model {
    str name;
    str *aliases; /* further names for it; they are not listed */
    size_t alias_count;
    struct model_target *targets;
    size_t target_count;
    struct model_variant *variants; /* an A/B split, sticky by session, user or key; none: 0 */
    size_t variant_count;
    int64_t max_output_tokens; /* default and ceiling of one call; > 0 */
    int64_t created_unix;
    struct model_deadlines deadlines;
    int64_t retries_max; /* further attempts on a target that failed; -1: ROUTER_RETRIES_DEFAULT */
    int64_t
        hedge_after_ms; /* a second attempt when no token came by then; 0: never; -1: at the target's measured p95 */
    bool is_embedder;
    struct model_cache cache;
    const struct guard_rules *guard; /* content filter; NULL: none */
};
struct catalog;

struct catalog *catalog_create(void);
void catalog_destroy(struct catalog *catalog);
OWNED_DEFINE(catalog)
/* Copies.  INVALID for a duplicate name or no target. */
must_check bool catalog_add(struct catalog *catalog, const struct model *model, struct error *e);
/* Something that models of the catalog point to (guard rules) and that goes with it. */
void catalog_keep(struct catalog *catalog, void *give_thing, void (*destroy)(void *thing));
const struct model *catalog_find(const struct catalog *catalog, str name);
size_t catalog_count(const struct catalog *catalog);
const struct model *catalog_at(const struct catalog *catalog, size_t index);
const struct model *catalog_default(const struct catalog *catalog); /* the first; NULL when empty */
/* 404 unknown_model with the list of names (bounded). Returns false. */
bool catalog_error_unknown(const struct catalog *catalog, str name, struct error *e);
/* What can be found without configuration: OPENAI_API_KEY (and OPENAI_BASE_URL), then Ollama
 * (11434), vLLM (8000), llama.cpp (8080),
   LM Studio (1234) on loopback that answer GET /v1/models within 300 ms.  `exclude_port`: our own
   listening port.
   Found ones are described, not created.  On a coroutine. */
struct discovered_provider {
    str name, base_url, api_key_env; /* api_key_env empty: none needed */
    str *models;
    size_t model_count;
};
may_suspend bool discover_providers(struct context *ctx, struct http_client *client,
                                    uint16_t exclude_port, struct discovered_provider **out,
                                    size_t *count, struct error *e);

#endif
