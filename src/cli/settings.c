#include "cli/settings.h"

#include "cli/filter_bank.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "cli/shipped.h"
#include "net/http.h"
#include "orchestrator/workflow/workflow_store.h"

#include <stdlib.h>

struct provider_entry {
    str name, base_url;
    struct provider *provider;
    bool is_stand_in; /* costs nobody money */
};
struct provider_set {
    struct arena *arena;
    struct provider_entry *items;
    size_t count;
    digest identity; /* of the providers' configuration */
    bool is_stand_in;
};

#define OFFLINE_NAME S("offline")
enum { DISCOVERED_OUTPUT_TOKENS_MAX = 4096, DESCRIPTION_BYTES_MAX = 1024 };

/* ---- providers ---- */

/* What of a configuration makes its providers, as one digest; keys count, and do not show. */
static digest providers_identity(const struct config *config)
{
    struct digest_stream *stream = digest_stream_create();
    for (size_t i = 0; i < config->provider_count; i++) {
        const struct config_provider *p = &config->providers[i];
        const str texts[] = {p->name, p->type, p->base_url, p->responses};
        const int64_t numbers[] = {p->connect_timeout_ms,
                                   p->first_byte_timeout_ms,
                                   p->idle_timeout_ms,
                                   (int64_t) p->api_key_count,
                                   p->places,
                                   p->run_places,
                                   p->places_per_key};
        for (size_t j = 0; j < ARRAY_COUNT(texts); j++) {
            digest_stream_add(stream, texts[j]);
            digest_stream_add(stream, str_of("", 1));
        }
        digest_stream_add(stream, str_of((const char *) numbers, sizeof numbers));
        for (size_t j = 0; j < p->api_key_count; j++) {
            digest key = digest_sha256(secret_reveal(p->api_keys[j]));
            digest_stream_add(stream, str_of((const char *) key.bytes, sizeof key.bytes));
        }
    }
    digest_stream_add(stream,
                      str_of((const char *) &config->resilience, sizeof config->resilience));
    digest identity = digest_stream_finish(stream);
    digest_stream_destroy(stream);
    return identity;
}

static const struct provider_type *find_type(const struct settings_sources *sources, str name)
{
    for (size_t i = 0; i < sources->type_count; i++)
        if (str_equal(name, str_from_cstr(sources->types[i].name)))
            return &sources->types[i];
    return NULL;
}

static bool add_provider(struct provider_set *set, const struct settings_sources *sources,
                         str type_name, struct provider_options *options, struct error *e)
{
    const struct provider_type *type = find_type(sources, type_name);
    if (!type)
        return error_set(e, REASON_CONFIG,
                         "provider " STR_FMT ": type " STR_FMT " is not in this version",
                         STR_ARG(options->name), STR_ARG(type_name));
    struct provider_entry *entry = &set->items[set->count];
    options->client_of_loop = sources->client_of_loop;
    options->client_owner = sources->client_owner;
    if (!type->create(options, &entry->provider, e))
        return error_wrap(e, "provider " STR_FMT, STR_ARG(options->name));
    entry->name = str_copy(set->arena, options->name);
    entry->base_url = str_copy(set->arena, options->base_url);
    entry->is_stand_in = type->is_stand_in;
    entry->provider->places = options->places;
    set->is_stand_in = set->is_stand_in && type->is_stand_in;
    set->count++;
    return true;
}

#define ANTHROPIC_URL S("https://api.anthropic.com")

str config_base_url(const struct config_provider *from)
{
    bool is_usual = str_is_empty(from->base_url) && str_equal(from->type, S("anthropic"));
    return is_usual ? ANTHROPIC_URL : from->base_url;
}

static str host_of(str base_url)
{
    struct http_url url;
    return http_url_parse(base_url, &url, NULL) ? url.host : STR_NONE;
}

/* OpenAI's own server is the one that is known to have the Responses API. */
static bool has_responses(const struct config_provider *from)
{
    return str_equal(from->responses, S("true")) ||
           (str_equal(from->responses, S("auto")) &&
            str_equal_nocase(host_of(from->base_url), S("api.openai.com")));
}

static int32_t first_said(int64_t own, int64_t usual)
{
    return (int32_t) (own > 0 ? own : usual);
}

/* Runs leave a quarter of a node to other providers. */
static struct provider_places places_of(const struct config *config,
                                        const struct config_provider *from)
{
    int64_t runs = config->resilience.provider_run_places, active = config->resilience.active_runs;
    if (runs == 0 && active >= 4)
        runs = active - active / 4;
    return (struct provider_places){
        .calls = first_said(from ? from->places : 0, config->resilience.provider_places),
        .run_calls = first_said(from ? from->run_places : 0, runs),
        .calls_per_key = from ? (int32_t) from->places_per_key : 0,
        .queue_max = (int32_t) config->resilience.provider_queue,
        .wait_ms = config->resilience.provider_wait_ms,
    };
}

static bool add_configured(struct provider_set *set, const struct settings_sources *sources,
                           const struct config_provider *from, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct provider_options options = {
        .name = from->name,
        .base_url = config_base_url(from),
        .api_keys = ARENA_ARRAY(arena, str, from->api_key_count + 1),
        .api_key_count = from->api_key_count,
        .connect_timeout_ms = from->connect_timeout_ms,
        .first_byte_timeout_ms = from->first_byte_timeout_ms,
        .idle_timeout_ms = from->idle_timeout_ms,
        .speaks_responses = has_responses(from),
        .places = places_of(sources->config, from),
    };
    for (size_t i = 0; i < from->api_key_count; i++)
        options.api_keys[i] = secret_reveal(from->api_keys[i]);
    return add_provider(set, sources, from->type, &options, e);
}

static bool add_discovered(struct provider_set *set, const struct settings_sources *sources,
                           const struct discovered_provider *from, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    str key = str_is_empty(from->api_key_env)
                  ? STR_NONE
                  : str_trim(str_from_cstr(getenv(str_to_cstr(arena, from->api_key_env))));
    struct provider_options options = {.name = from->name,
                                       .base_url = from->base_url,
                                       .api_keys = &key,
                                       .api_key_count = !str_is_empty(key),
                                       .places = places_of(sources->config, NULL)};
    return add_provider(set, sources, S("openai"), &options, e);
}

bool provider_set_create(const struct settings_sources *sources, struct provider_set **out,
                         struct error *e)
{
    const struct config *config = sources->config;
    OWNED(provider_set) set = calloc(1, sizeof *set);
    ensure(set != NULL);
    set->arena = arena_create(0);
    set->identity = providers_identity(config);
    set->is_stand_in = true;
    set->items = ARENA_ARRAY(set->arena, struct provider_entry,
                             config->provider_count + sources->discovered_count + 1);
    for (size_t i = 0; i < config->provider_count; i++)
        if (!add_configured(set, sources, &config->providers[i], e))
            return false;
    for (size_t i = 0; config->provider_count == 0 && i < sources->discovered_count; i++)
        if (!add_discovered(set, sources, &sources->discovered[i], e))
            return false;
    struct provider_options offline = {.name = OFFLINE_NAME, .places = places_of(config, NULL)};
    if (set->count == 0 && !add_provider(set, sources, OFFLINE_NAME, &offline, e))
        return false;
    *out = GIVE(set);
    return true;
}

void provider_set_destroy(struct provider_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->count; i++)
        provider_destroy(set->items[i].provider);
    arena_destroy(set->arena);
    free(set);
}

bool provider_set_is_stand_in(const struct provider_set *set)
{
    return set->is_stand_in;
}

bool provider_set_fits(const struct provider_set *set, const struct config *config)
{
    return digest_equal(set->identity, providers_identity(config));
}

str provider_set_describe(const struct provider_set *set, struct arena *arena)
{
    struct strbuf b;
    strbuf_init(&b, arena, DESCRIPTION_BYTES_MAX);
    for (size_t i = 0; i < set->count; i++) {
        const struct provider_entry *entry = &set->items[i];
        strbuf_add(&b, i ? S(", ") : S(""));
        strbuf_add(&b, entry->name);
        if (!str_is_empty(entry->base_url))
            strbuf_printf(&b, " (" STR_FMT ")", STR_ARG(entry->base_url));
    }
    return strbuf_str(&b);
}

static const struct provider_entry *find_entry(const struct provider_set *set, str name)
{
    for (size_t i = 0; i < set->count; i++)
        if (str_equal(set->items[i].name, name))
            return &set->items[i];
    return NULL;
}

static struct provider *find_provider(const struct provider_set *set, str name)
{
    const struct provider_entry *entry = find_entry(set, name);
    return entry ? entry->provider : NULL;
}

/* ---- prices ---- */

/* The operator's own list goes before the shipped one; a list is read while a snapshot is made and not kept. */
struct price_lists {
    struct prices *own, *shipped;
    int64_t now_us;
};

static bool open_prices(const struct config *config, struct price_lists *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    str folder;
    struct error missing = {0};
    *out = (struct price_lists){.now_us = clock_unix_us(clock_system())};
    if (!str_is_empty(config->prices_file) && !prices_load(config->prices_file, &out->own, e))
        return error_wrap(e, "prices.file");
    if (!shipped_find(arena, "prices", "prices.file", &folder, &missing)) {
        LOG_WARN("nexus", S("no price lists: models without a `price` have none"),
                 LOG_STR("nexus.reason", str_from_cstr(missing.message)));
        return true;
    }
    if (prices_load(folder, &out->shipped, e))
        return true;
    prices_destroy(out->own);
    return false;
}

static void close_prices(struct price_lists *lists)
{
    prices_destroy(lists->own);
    prices_destroy(lists->shipped);
}

/* By the host that answers; an own list may also name the provider as the configuration does. */
static struct model_price listed_price(const struct price_lists *lists, str provider, str base_url,
                                       str model)
{
    struct model_price price = {0};
    str host = host_of(base_url);
    if (lists->own)
        price = prices_find(lists->own, provider, model, lists->now_us);
    if (lists->own && !price.is_known && !str_is_empty(host))
        price = prices_find(lists->own, host, model, lists->now_us);
    if (lists->shipped && !price.is_known && !str_is_empty(host))
        price = prices_find(lists->shipped, host, model, lists->now_us);
    return price;
}

/* ---- models ---- */

/* Nano-USD per million tokens is a thousandth of that in pico-USD per token; rounded up, so never too little. */
static int64_t picousd_per_token(int64_t nanousd_per_million)
{
    return nanousd_per_million / 1000 + (nanousd_per_million % 1000 != 0);
}

static int64_t rate_or_like(int64_t nanousd_per_million)
{
    return nanousd_per_million == COST_UNLIMITED ? PRICE_LIKE_INPUT
                                                 : picousd_per_token(nanousd_per_million);
}

static struct model_price own_price(const struct config_price *from)
{
    if (from->input_nanousd == COST_UNLIMITED || from->output_nanousd == COST_UNLIMITED)
        return (struct model_price){0};
    return (struct model_price){
        .is_known = true,
        .input_picousd_per_token = picousd_per_token(from->input_nanousd),
        .cached_picousd_per_token = rate_or_like(from->cached_nanousd),
        .cache_write_picousd_per_token = rate_or_like(from->cache_write_nanousd),
        .output_picousd_per_token = picousd_per_token(from->output_nanousd),
        .reasoning_picousd_per_token = rate_or_like(from->reasoning_nanousd),
    };
}

static struct model_target target_of(const struct price_lists *lists,
                                     const struct provider_set *set,
                                     const struct config_target *from)
{
    const struct provider_entry *provider = find_entry(set, from->provider);
    ensure(provider != NULL); /* config_check has looked */
    struct model_price price = own_price(&from->price);
    if (!price.is_known)
        price = listed_price(lists, provider->name, provider->base_url, from->model);
    if (!price.is_known && provider->is_stand_in)
        price = (struct model_price){.is_known = true};
    return (struct model_target){.provider = provider->provider,
                                 .model = from->model,
                                 .weight = from->weight,
                                 .priority = from->priority,
                                 .variant = from->variant,
                                 .price = price,
                                 .context_tokens_max = from->context_tokens};
}

static struct model_cache cache_of(const struct config_model *from)
{
    enum model_cache_mode mode = str_equal(from->cache.mode, S("exact"))      ? MODEL_CACHE_EXACT
                                 : str_equal(from->cache.mode, S("semantic")) ? MODEL_CACHE_SEMANTIC
                                                                              : MODEL_CACHE_OFF;
    return (struct model_cache){.mode = mode,
                                .ttl_ms = from->cache.ttl_ms,
                                .is_tenant_wide = str_equal(from->cache.scope, S("tenant")),
                                .similarity = from->cache.similarity,
                                .embedder = from->cache.embedder};
}

static bool add_configured_model(struct catalog *catalog, const struct price_lists *lists,
                                 const struct provider_set *set, const struct filter_bank *filters,
                                 const struct config_model *from, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct model model = {
        .name = from->name,
        .aliases = from->aliases,
        .alias_count = from->alias_count,
        .targets = ARENA_ARRAY(arena, struct model_target, from->target_count + 1),
        .target_count = from->target_count,
        .variants = ARENA_ARRAY(arena, struct model_variant, from->variant_count + 1),
        .variant_count = from->variant_count,
        .max_output_tokens = from->max_output_tokens,
        .created_unix = lists->now_us / 1000000,
        .deadlines = {.connect_ms = from->deadlines.connect_ms,
                      .first_token_ms = from->deadlines.first_token_ms,
                      .between_tokens_ms = from->deadlines.between_tokens_ms,
                      .attempt_ms = from->deadlines.attempt_ms,
                      .total_ms = from->deadlines.total_ms},
        .retries_max = from->retries,
        .hedge_after_ms = from->hedge_after_ms,
        .is_embedder = str_equal(from->embedder, S("true")),
        .cache = cache_of(from),
        .guard = filter_bank_find(filters, from->filter),
    };
    for (size_t i = 0; i < from->target_count; i++)
        model.targets[i] = target_of(lists, set, &from->targets[i]);
    for (size_t i = 0; i < from->variant_count; i++)
        model.variants[i] =
            (struct model_variant){from->variants[i].name, from->variants[i].weight};
    return catalog_add(catalog, &model, e);
}

/* A found model keeps its name; the second of a name gets its provider's in front. */
static bool add_discovered_models(struct catalog *catalog, const struct price_lists *lists,
                                  const struct provider_set *set,
                                  const struct discovered_provider *from, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    bool is_local = str_is_empty(from->api_key_env); /* costs nobody money per token */
    /* A key that was given is used even when the list of models could not be had just now. */
    str usual = S("gpt-4o-mini");
    const str *names = from->model_count == 0 && !is_local ? &usual : from->models;
    size_t count = from->model_count == 0 && !is_local ? 1 : from->model_count;
    for (size_t i = 0; i < count; i++) {
        str name = names[i];
        if (catalog_find(catalog, name))
            name = str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(from->name), STR_ARG(name));
        if (catalog_find(catalog, name))
            continue;
        const struct provider_entry *provider = find_entry(set, from->name);
        struct model_target target = {
            .provider = provider->provider,
            .model = names[i],
            .weight = 1,
            .price = is_local ? (struct model_price){.is_known = true}
                              : listed_price(lists, provider->name, provider->base_url, names[i])};
        struct model model = {.name = name,
                              .targets = &target,
                              .target_count = 1,
                              .max_output_tokens = DISCOVERED_OUTPUT_TOKENS_MAX,
                              .created_unix = lists->now_us / 1000000,
                              .retries_max = -1};
        if (!catalog_add(catalog, &model, e))
            return false;
    }
    return true;
}

static bool fill_catalog(struct catalog *catalog, const struct settings_sources *sources,
                         const struct price_lists *lists, const struct provider_set *set,
                         const struct filter_bank *filters, struct error *e)
{
    const struct config *config = sources->config;
    for (size_t i = 0; i < config->model_count; i++)
        if (!add_configured_model(catalog, lists, set, filters, &config->models[i], e))
            return false;
    for (size_t i = 0; config->provider_count == 0 && i < sources->discovered_count; i++)
        if (!add_discovered_models(catalog, lists, set, &sources->discovered[i], e))
            return false;
    if (catalog_count(catalog) > 0)
        return true;
    struct model_target target = {.provider = find_provider(set, OFFLINE_NAME),
                                  .model = OFFLINE_NAME,
                                  .weight = 1,
                                  .price = {.is_known = true}};
    struct model model = {.name = OFFLINE_NAME,
                          .targets = &target,
                          .target_count = 1,
                          .max_output_tokens = DISCOVERED_OUTPUT_TOKENS_MAX,
                          .created_unix = lists->now_us / 1000000,
                          .retries_max = -1};
    if (!target.provider)
        return error_set(e, REASON_CONFIG,
                         "none of the providers found has a model that can chat; configure models");
    return catalog_add(catalog, &model, e);
}

/* ---- agents and the rest ---- */

/* In the file zero is none; an agent that says nothing gets the defaults. */
static struct agent_limits limits_of(const struct agent_limits *from)
{
    struct agent_limits limits = *from;
    if (limits.cost_per_minute_nanousd == COST_UNLIMITED)
        limits.cost_per_minute_nanousd = 0;
    if (limits.same_action_warn == 0)
        limits.same_action_warn = -1;
    if (limits.same_action_max == 0)
        limits.same_action_max = -1;
    if (limits.wind_down_tokens == 0)
        limits.wind_down_tokens = -1;
    return limits;
}

/* Checked by config_check_degrade. */
static void read_steps(const struct config_agent *from,
                       struct degrade_step steps[DEGRADE_STEPS_MAX])
{
    static const char *const whens[] = {"provider_unavailable", "budget_low", "overloaded"};
    for (size_t i = 0; i < from->degrade_count; i++) {
        const struct config_degrade *step = &from->degrade[i];
        steps[i] =
            (struct degrade_step){.use = str_equal(step->use.cached, S("true")) ? DEGRADE_CACHED
                                         : str_is_empty(step->use.model)        ? DEGRADE_TOOLLESS
                                                                                : DEGRADE_MODEL,
                                  .model = step->use.model};
        for (size_t k = 0; k < ARRAY_COUNT(whens); k++)
            if (str_equal(step->when, str_from_cstr(whens[k])))
                steps[i].when = (enum degrade_when) k;
    }
}

static bool fill_agents(struct agent_set *agents, const struct config *config, struct error *e)
{
    struct degrade_step steps[DEGRADE_STEPS_MAX];
    for (size_t i = 0; i < config->agent_count; i++) {
        const struct config_agent *from = &config->agents[i];
        struct agent_definition definition = {
            .name = from->name,
            .version = from->version,
            .description = from->description,
            .model = from->model,
            .instructions = from->instructions,
            .workflow = from->workflow,
            .tools = from->tools,
            .tool_count = from->tool_count,
            .tool_details = from->tool_details,
            .agents = from->links,
            .agent_count = from->link_count,
            .priority = priority_said(from->priority),
            .steps_max = (int) from->steps_max,
            .run_timeout_ms = from->timeout_ms,
            .max_output_tokens = from->max_output_tokens,
            .limits = limits_of(&from->limits),
            .degrade = steps,
            .degrade_count = from->degrade_count,
        };
        read_steps(from, steps);
        if (!agent_set_add(agents, &definition, e))
            return false;
    }
    return agent_set_check(agents, e);
}

/* ---- containment ---- */

static struct containment_rule rule_of(const struct config_containment_rule *from)
{
    static const char *const when[] = {"untrusted", "private", "always"};
    static const char *const verdicts[] = {"allow", "needs_approval", "deny"};
    struct containment_rule rule = {.name = from->name,
                                    .tool = from->tool,
                                    .category = from->category,
                                    .host = from->host,
                                    .agent = from->agent,
                                    .verdict = CONTAINMENT_DENY};
    for (size_t i = 0; i < ARRAY_COUNT(when); i++)
        if (str_equal(from->when, str_from_cstr(when[i])))
            rule.when = (enum containment_when) i;
    for (size_t i = 0; i < ARRAY_COUNT(verdicts); i++)
        if (str_equal(from->verdict, str_from_cstr(verdicts[i])))
            rule.verdict = (enum containment_verdict) i;
    return rule;
}

static struct containment containment_of(const struct config *config, struct arena *arena)
{
    struct containment containment = containment_defaults();
    struct containment_rule *rules =
        ARENA_ARRAY(arena, struct containment_rule, config->containment.rule_count + 1);
    for (size_t i = 0; i < config->containment.rule_count; i++)
        rules[i] = rule_of(&config->containment.rules[i]);
    containment.mode = str_equal(config->containment.mode, S("observe")) ? CONTAINMENT_OBSERVE
                       : str_equal(config->containment.mode, S("off"))   ? CONTAINMENT_OFF
                                                                         : CONTAINMENT_ENFORCE;
    containment.rules = rules;
    containment.rule_count = config->containment.rule_count;
    containment.inside = config->containment.inside;
    containment.inside_count = config->containment.inside_count;
    containment.links_max = config->containment.links_max;
    containment.approvals_max = config->containment.approvals_max;
    containment.keeps_links = str_equal(config->containment.answer_links, S("keep"));
    containment.payloads = str_equal(config->containment.payloads, S("flag"))    ? PAYLOADS_FLAG
                           : str_equal(config->containment.payloads, S("block")) ? PAYLOADS_BLOCK
                                                                                 : PAYLOADS_MASK;
    if (containment.mode != CONTAINMENT_ENFORCE)
        LOG_WARN("nexus", S("containment is not enforced: untrusted text may cause any call"),
                 LOG_STR("nexus.containment", config->containment.mode));
    return containment_copy(arena, &containment);
}

/* A tenant may put it; until then the agent answers nobody. */
static void tell_missing_workflows(const struct config *config,
                                   const struct workflow_set *workflows)
{
    str name, range;
    for (size_t i = 0; i < config->agent_count; i++) {
        str_cut(config->agents[i].workflow, '@', &name, &range);
        if (!str_is_empty(name) && !workflow_set_find(workflows, name, range))
            LOG_WARN("nexus", S("an agent's workflow is in no folder; its tenants have to put it"),
                     LOG_STR("nexus.agent", config->agents[i].name),
                     LOG_STR("nexus.workflow", config->agents[i].workflow));
    }
}

/* What ships must not keep a node from starting; what the operator wrote is told at once. */
bool settings_read_workflows(const struct config *config, struct workflow_set **out,
                             struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    OWNED(workflow_set) workflows = workflow_set_create();
    struct error broken = {0};
    str shipped = STR_NONE;
    if (!shipped_find(arena, "workflows", "workflows.dir", &shipped, &broken) ||
        !workflow_set_add_folder(workflows, shipped, "shipped", &broken))
        LOG_WARN("nexus", S("the shipped workflows are not there, or not all of them"),
                 LOG_STR("error.message", str_from_cstr(broken.message)));
    if (!str_is_empty(config->workflow_dir) &&
        !workflow_set_add_folder(workflows, config->workflow_dir, "configured", e))
        return error_wrap(e, "workflows.dir");
    *out = GIVE(workflows);
    return true;
}

bool settings_create(const struct settings_sources *sources, const struct provider_set *set,
                     struct settings **out, struct error *e)
{
    struct workflow_set *workflows;
    const struct config *config = sources->config;
    OWNED(catalog) catalog = catalog_create();
    OWNED(agent_set) agents = agent_set_create();
    struct price_lists lists;
    struct filter_bank *filters;
    if (!filter_bank_take(sources->filters, config, sources->metrics, &filters, e))
        return false;
    catalog_keep(catalog, filters, filter_bank_drop);
    if (!open_prices(config, &lists, e))
        return false;
    bool is_filled = fill_catalog(catalog, sources, &lists, set, filters, e);
    close_prices(&lists);
    if (!is_filled || !fill_agents(agents, config, e) ||
        !settings_read_workflows(config, &workflows, e))
        return false;
    tell_missing_workflows(config, workflows);
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    settings->catalog = GIVE(catalog);
    settings->agents = GIVE(agents);
    settings->workflows = workflows;
    settings->session_budget = config_session_budget(config);
    settings->alert_count = config_budget_alerts(config, settings->alerts);
    settings->session_expiry_ms = config->session_expiry_ms;
    if (!double_text_parse(config->session_double_text, &settings->double_text))
        settings->double_text = DOUBLE_TEXT_REJECT;
    settings->approval_expiry_ms = config->approval_expiry_ms;
    settings->retention = (struct retention_rules){
        .runs_ms = config->retention_runs_ms,
        .deltas_ms = config->retention_deltas_ms > 0 ? config->retention_deltas_ms : -1,
    };
    settings->approval_remind_ms = config->approval_remind_ms;
    settings->call_timeout_ms = config->call_timeout_ms;
    settings->session_files_bytes_max = config->session_files_bytes;
    settings->arena = arena_create(0);
    settings->containment = containment_of(config, settings->arena);
    str *registrars = ARENA_ARRAY(settings->arena, str, config->registrar_count + 1);
    for (size_t i = 0; i < config->registrar_count; i++)
        registrars[i] = str_copy(settings->arena, config->registrars[i]);
    settings->registrars = registrars;
    settings->registrar_count = config->registrar_count;
    settings->memory_guard = filter_bank_find(filters, config->memory.filter);
    *out = settings;
    return true;
}

/* ---- what was found, and what is told ---- */

struct discovered_provider *discovered_copy(struct arena *arena,
                                            const struct discovered_provider *found, size_t count)
{
    struct discovered_provider *copies = ARENA_ARRAY(arena, struct discovered_provider, count + 1);
    for (size_t i = 0; i < count; i++) {
        copies[i] = (struct discovered_provider){
            .name = str_copy(arena, found[i].name),
            .base_url = str_copy(arena, found[i].base_url),
            .api_key_env = str_copy(arena, found[i].api_key_env),
            .models = ARENA_ARRAY(arena, str, found[i].model_count + 1),
            .model_count = found[i].model_count};
        for (size_t j = 0; j < found[i].model_count; j++)
            copies[i].models[j] = str_copy(arena, found[i].models[j]);
    }
    return copies;
}

/* The base URL that calls of a configured provider go to; false: it has no prices (the stand-in). */
static bool find_base_url(const struct config *config, str provider, str *out)
{
    for (size_t i = 0; i < config->provider_count; i++) {
        const struct config_provider *from = &config->providers[i];
        if (!str_equal(from->name, provider))
            continue;
        *out = config_base_url(from);
        return !str_equal(from->type, OFFLINE_NAME);
    }
    return false;
}

bool config_unpriced(const struct config *config, struct arena *arena, str *out, struct error *e)
{
    struct strbuf b;
    struct price_lists lists;
    if (!open_prices(config, &lists, e))
        return false;
    strbuf_init(&b, arena, DESCRIPTION_BYTES_MAX);
    for (size_t i = 0; i < config->model_count; i++) {
        const struct config_model *model = &config->models[i];
        for (size_t j = 0; j < model->target_count; j++) {
            const struct config_target *target = &model->targets[j];
            str base_url;
            if (own_price(&target->price).is_known ||
                !find_base_url(config, target->provider, &base_url) ||
                listed_price(&lists, target->provider, base_url, target->model).is_known)
                continue;
            strbuf_add(&b, b.len ? S(", ") : S(""));
            strbuf_printf(&b, STR_FMT " (" STR_FMT "/" STR_FMT ")", STR_ARG(model->name),
                          STR_ARG(target->provider), STR_ARG(target->model));
        }
    }
    close_prices(&lists);
    *out = strbuf_str(&b);
    return true;
}

void settings_describe(const struct settings *settings, const struct provider_set *set,
                       struct arena *arena, struct platform_info *info)
{
    enum { SHOWN_MAX = 6 };
    struct strbuf names;
    size_t count = catalog_count(settings->catalog);
    strbuf_init(&names, arena, DESCRIPTION_BYTES_MAX);
    for (size_t i = 0; i < count && i < SHOWN_MAX; i++) {
        strbuf_add(&names, i ? S(", ") : S(""));
        strbuf_add(&names, catalog_at(settings->catalog, i)->name);
    }
    if (count > SHOWN_MAX)
        strbuf_printf(&names, " and %zu more", count - SHOWN_MAX);
    info->models = strbuf_str(&names);
    info->default_model = str_copy(arena, catalog_default(settings->catalog)->name);
    info->providers = provider_set_describe(set, arena);
    info->is_stand_in = provider_set_is_stand_in(set);
    info->agent_count = agent_set_count(settings->agents);
}
