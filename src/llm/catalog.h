/*
 * Catalog: model names that callers may ask for, and where each goes.
 *
 * An immutable snapshot made from the configuration (or from discovery); a reload makes a new one.
 * A model has targets (provider, provider's model name, weight, prices).  catalog_pick chooses by
 * weight among the targets not yet
 * tried; the caller moves on to the next on a retryable error before the first token.
 */
#ifndef NEXUS_LLM_CATALOG_H
#define NEXUS_LLM_CATALOG_H

#include "llm/provider.h"

struct model_price {
    bool is_known; /* false: refused under a money cap */
    int64_t input_picousd_per_token;
    int64_t cached_picousd_per_token;
    int64_t output_picousd_per_token;
};
struct model_target {
    struct provider *provider; /* borrowed */
    str model;
    int64_t weight; /* 1.. */
    struct model_price price;
    int64_t context_tokens_max; /* 0: unknown */
};
struct model {
    str name;
    struct model_target *targets;
    size_t target_count;
    int64_t max_output_tokens; /* default and ceiling of one call; > 0 */
    int64_t created_unix;
};
struct catalog;

struct catalog *catalog_create(void);
void catalog_destroy(struct catalog *catalog);
OWNED_DEFINE(catalog)
/* Copies.  INVALID for a duplicate name or no target. */
must_check bool catalog_add(struct catalog *catalog, const struct model *model, struct error *e);
const struct model *catalog_find(const struct catalog *catalog, str name);
size_t catalog_count(const struct catalog *catalog);
const struct model *catalog_at(const struct catalog *catalog, size_t index);
const struct model *catalog_default(const struct catalog *catalog); /* the first; NULL when empty */
/* 404 unknown_model with the list of names (bounded). Returns false. */
bool catalog_error_unknown(const struct catalog *catalog, str name, struct error *e);
/* `tried` has a bit per target.  NULL when all are tried. */
const struct model_target *catalog_pick(const struct model *model, uint64_t tried,
                                        struct random *random, size_t *index);

/* Exact cost of a call, rounded up once.  0 when the price is unknown. */
int64_t price_nanousd(const struct model_price *price, const struct usage *usage);
/* Upper bound for a reservation. */
int64_t price_bound_nanousd(const struct model_price *price, int64_t input_tokens,
                            int64_t output_tokens);

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
