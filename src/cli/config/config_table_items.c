/* settings: providers, models, filters, agents (lists of items) */
#include "cli/config/config_internal.h"

#include "base/limits.h"

#define ROWS(rows_) .rows = (rows_), .count = ARRAY_COUNT(rows_)
#define DAY_MS (24ll * 3600 * 1000)

/* ---- providers ---- */

#define IN(field) .offset = offsetof(struct config_provider, field)
static const struct setting provider_rows[] = {
    {.name = "name",
     .kind = SETTING_TEXT,
     IN(name),
     .is_required = true,
     .help = "what models refer to"},
    {.name = "type",
     .kind = SETTING_CHOICE,
     IN(type),
     .choices = "openai|offline|anthropic",
     .is_required = true,
     .help = "openai: any OpenAI-compatible server; anthropic: the Messages API; offline: the "
             "scripted stand-in"},
    {.name = "base_url",
     .kind = SETTING_TEXT,
     IN(base_url),
     .help = "up to and with /v1: http://127.0.0.1:9100/v1"},
    {.name = "api_keys",
     .kind = SETTING_SECRETS,
     IN(api_keys),
     .count_offset = offsetof(struct config_provider, api_key_count),
     .help = "list; write them as ${env:NAME} or ${file:PATH}"},
    {.name = "responses",
     .kind = SETTING_CHOICE,
     IN(responses),
     .choices = "auto|true|false",
     .otherwise = "auto",
     .help = "openai: the server has /v1/responses as well, its hosted tools can be used then; "
             "auto: only api.openai.com"},
    {.name = "connect_timeout",
     .kind = SETTING_DURATION,
     IN(connect_timeout_ms),
     .otherwise = "5s",
     .min = 1,
     .max = DAY_MS,
     .help = "until the connection stands"},
    {.name = "first_byte_timeout",
     .kind = SETTING_DURATION,
     IN(first_byte_timeout_ms),
     .otherwise = "120s",
     .min = 1,
     .max = DAY_MS,
     .help = "until the answer begins"},
    {.name = "idle_timeout",
     .kind = SETTING_DURATION,
     IN(idle_timeout_ms),
     .otherwise = "60s",
     .min = 1,
     .max = DAY_MS,
     .help = "between two pieces of an answer"},
    {.name = "places",
     .kind = SETTING_COUNT,
     IN(places),
     .otherwise = "0",
     .max = PROVIDER_PLACES_MAX,
     .help = "calls of it at once, of everybody; more wait; 0: resilience.provider_places"},
    {.name = "run_places",
     .kind = SETTING_COUNT,
     IN(run_places),
     .otherwise = "0",
     .max = PROVIDER_PLACES_MAX,
     .help = "of runs alone; 0: resilience.provider_run_places"},
    {.name = "places_per_key",
     .kind = SETTING_COUNT,
     IN(places_per_key),
     .otherwise = "0",
     .max = PROVIDER_PLACES_MAX,
     .help = "its pool of keys has that many times its keys; 0: no bound"},
};
#undef IN
const struct setting_table config_provider_table = {
    ROWS(provider_rows), .item_bytes = sizeof(struct config_provider), .item = "provider"};

/* ---- models ---- */

#define IN(field) .offset = offsetof(struct config_target, price.field)
static const struct setting price_rows[] = {
    {.name = "input_usd_per_million_tokens",
     .kind = SETTING_MONEY,
     IN(input_nanousd),
     .otherwise = "unlimited",
     .help = "a model without a price is refused under a money budget"},
    {.name = "cached_usd_per_million_tokens",
     .kind = SETTING_MONEY,
     IN(cached_nanousd),
     .otherwise = "unlimited",
     .help = "input that the provider had cached; as input when left out"},
    {.name = "cache_write_usd_per_million_tokens",
     .kind = SETTING_MONEY,
     IN(cache_write_nanousd),
     .otherwise = "unlimited",
     .help = "input that the provider puts into its cache; as input when left out"},
    {.name = "output_usd_per_million_tokens",
     .kind = SETTING_MONEY,
     IN(output_nanousd),
     .otherwise = "unlimited",
     .help = "the answer"},
    {.name = "reasoning_usd_per_million_tokens",
     .kind = SETTING_MONEY,
     IN(reasoning_nanousd),
     .otherwise = "unlimited",
     .help = "the answer's thinking; as output when left out"},
};
#undef IN
static const struct setting_table price_table = {ROWS(price_rows), .item = "price"};

#define IN(field) .offset = offsetof(struct config_target, field)
static const struct setting target_rows[] = {
    {.name = "provider",
     .kind = SETTING_TEXT,
     IN(provider),
     .is_required = true,
     .help = "name of a provider"},
    {.name = "model",
     .kind = SETTING_TEXT,
     IN(model),
     .is_required = true,
     .help = "the provider's name of the model"},
    {.name = "weight",
     .kind = SETTING_COUNT,
     IN(weight),
     .otherwise = "1",
     .min = 1,
     .max = 1000000,
     .help = "share of the calls beside the other targets of its priority"},
    {.name = "priority",
     .kind = SETTING_COUNT,
     IN(priority),
     .otherwise = "0",
     .max = 1000000,
     .help = "the lowest number is asked first, the next when none of the lower is left"},
    {.name = "variant",
     .kind = SETTING_TEXT,
     IN(variant),
     .help = "name of the model's `split` that it belongs to"},
    {.name = "context_tokens",
     .kind = SETTING_COUNT,
     IN(context_tokens),
     .otherwise = "0",
     .max = 1000000000,
     .help = "size of its context; 0: unknown"},
    {.name = "price",
     .kind = SETTING_SECTION,
     .table = &price_table,
     .help = "what it costs; left out: as the price lists say"},
};
#undef IN
static const struct setting_table target_table = {
    ROWS(target_rows), .item_bytes = sizeof(struct config_target), .item = "target"};

#define IN(field) .offset = offsetof(struct config_variant, field)
static const struct setting variant_rows[] = {
    {.name = "name",
     .kind = SETTING_TEXT,
     IN(name),
     .is_required = true,
     .help = "what its targets say as `variant`; reports show it"},
    {.name = "weight",
     .kind = SETTING_COUNT,
     IN(weight),
     .otherwise = "1",
     .min = 1,
     .max = 1000000,
     .help = "share of the sessions, users or keys"},
};
#undef IN
static const struct setting_table variant_table = {
    ROWS(variant_rows), .item_bytes = sizeof(struct config_variant), .item = "variant"};

#define IN(field) .offset = offsetof(struct config_model, field)
static const struct setting deadline_rows[] = {
    {.name = "connect",
     .kind = SETTING_DURATION,
     IN(deadlines.connect_ms),
     .max = DAY_MS,
     .help = "until the connection stands; left out: the provider's connect_timeout"},
    {.name = "first_token",
     .kind = SETTING_DURATION,
     IN(deadlines.first_token_ms),
     .max = DAY_MS,
     .help = "until the answer begins; left out: the provider's first_byte_timeout"},
    {.name = "between_tokens",
     .kind = SETTING_DURATION,
     IN(deadlines.between_tokens_ms),
     .max = DAY_MS,
     .help = "between two pieces of an answer; left out: the provider's idle_timeout"},
    {.name = "attempt",
     .kind = SETTING_DURATION,
     IN(deadlines.attempt_ms),
     .max = DAY_MS,
     .help =
         "of one attempt at a whole answer, after which the next target is asked; left out: total"},
    {.name = "total",
     .kind = SETTING_DURATION,
     IN(deadlines.total_ms),
     .max = DAY_MS,
     .help = "of one call with all its attempts; left out: limits.call_timeout"},
};
static const struct setting_table deadline_table = {ROWS(deadline_rows), .item = "deadlines"};

static const struct setting cache_rows[] = {
    {.name = "mode",
     .kind = SETTING_CHOICE,
     IN(cache.mode),
     .otherwise = "off",
     .choices = "off|exact|semantic",
     .help = "exact: the same request; semantic: also one that means the same, never with tools"},
    {.name = "ttl",
     .kind = SETTING_DURATION,
     IN(cache.ttl_ms),
     .otherwise = "1h",
     .min = 1000,
     .max = 366 * DAY_MS,
     .help = "how long an answer is kept"},
    {.name = "scope",
     .kind = SETTING_CHOICE,
     IN(cache.scope),
     .otherwise = "user",
     .choices = "user|tenant",
     .help = "who may be given an answer that another one asked for"},
    {.name = "similarity",
     .kind = SETTING_TEXT,
     IN(cache.similarity_text),
     .otherwise = "0.95",
     .help = "semantic: cosine of both questions, at least this"},
    {.name = "embedder",
     .kind = SETTING_TEXT,
     IN(cache.embedder),
     .help = "semantic: the model that embeds the questions"},
};
static const struct setting_table cache_table = {ROWS(cache_rows), .item = "cache"};

static const struct setting model_rows[] = {
    {.name = "name",
     .kind = SETTING_TEXT,
     IN(name),
     .is_required = true,
     .help = "what callers and agents ask for"},
    {.name = "aliases",
     .kind = SETTING_TEXTS,
     IN(aliases),
     .count_offset = offsetof(struct config_model, alias_count),
     .help = "list of further names for it"},
    {.name = "targets",
     .kind = SETTING_ITEMS,
     IN(targets),
     .count_offset = offsetof(struct config_model, target_count),
     .table = &target_table,
     .is_required = true,
     .help = "where its calls go; the next one is tried when one fails"},
    {.name = "split",
     .kind = SETTING_ITEMS,
     IN(variants),
     .count_offset = offsetof(struct config_model, variant_count),
     .table = &variant_table,
     .help = "an A/B split: each session, user or key keeps to one variant"},
    {.name = "deadlines",
     .kind = SETTING_SECTION,
     .table = &deadline_table,
     .help = "how long its calls wait"},
    {.name = "retries",
     .kind = SETTING_COUNT,
     IN(retries),
     .otherwise = "2",
     .max = ROUTER_RETRIES_MAX,
     .help = "further attempts on a target that failed, after a pause"},
    {.name = "hedge_after",
     .kind = SETTING_TEXT,
     IN(hedge_after),
     .otherwise = "never",
     .help = "a second target is asked too when no token came by then: never, auto (where 19 of 20 "
             "answers have begun), or a duration; at most one call in twenty"},
    {.name = "cache",
     .kind = SETTING_SECTION,
     .table = &cache_table,
     .help = "answers that are given again"},
    {.name = "filter",
     .kind = SETTING_TEXT,
     IN(filter),
     .help = "name of a content filter; empty: none"},
    {.name = "embedder",
     .kind = SETTING_CHOICE,
     IN(embedder),
     .otherwise = "false",
     .choices = "false|true",
     .help = "it makes embeddings and does not chat"},
    {.name = "max_output_tokens",
     .kind = SETTING_COUNT,
     IN(max_output_tokens),
     .otherwise = "4096",
     .min = 1,
     .max = 10000000,
     .help = "default and ceiling of one call's answer"},
};
#undef IN
const struct setting_table config_model_table = {
    ROWS(model_rows), .item_bytes = sizeof(struct config_model), .item = "model"};

/* ---- content filters ---- */

#define ACTIONS "off|flag|mask|block"
#define IN(field) .offset = offsetof(struct config_filter_rule, field)
static const struct setting filter_rule_rows[] = {
    {.name = "name",
     .kind = SETTING_TEXT,
     IN(name),
     .is_required = true,
     .help = "of letters, digits, - and _; a mask shows it: [TICKET_ID]"},
    {.name = "pattern",
     .kind = SETTING_TEXT,
     IN(pattern),
     .is_required = true,
     .help = "regular expression; docs/filters.md"},
    {.name = "action",
     .kind = SETTING_CHOICE,
     IN(action),
     .otherwise = "mask",
     .choices = ACTIONS,
     .help = "what becomes of a match"},
    {.name = "group",
     .kind = SETTING_TEXT,
     IN(group),
     .otherwise = "custom",
     .help = "what findings are counted under"},
};
#undef IN
static const struct setting_table filter_rule_table = {
    ROWS(filter_rule_rows), .item_bytes = sizeof(struct config_filter_rule), .item = "rule"};

#define IN(field) .offset = offsetof(struct config_filter, field)
static const struct setting filter_group_rows[] = {
    {.name = "secrets",
     .kind = SETTING_CHOICE,
     IN(secrets),
     .otherwise = "off",
     .choices = ACTIONS,
     .help = "keys and tokens of clouds and services, private keys, JWTs"},
    {.name = "pii",
     .kind = SETTING_CHOICE,
     IN(pii),
     .otherwise = "off",
     .choices = ACTIONS,
     .help = "e-mail, phone, payment cards, IBANs, national identity numbers"},
    {.name = "injection",
     .kind = SETTING_CHOICE,
     IN(injection),
     .otherwise = "off",
     .choices = ACTIONS,
     .help = "phrases and marks of injected instructions"},
};
static const struct setting_table filter_group_table = {ROWS(filter_group_rows), .item = "groups"};
static const struct setting filter_rows[] = {
    {.name = "name",
     .kind = SETTING_TEXT,
     IN(name),
     .is_required = true,
     .help = "what models refer to"},
    {.name = "direction",
     .kind = SETTING_CHOICE,
     IN(direction),
     .otherwise = "both",
     .choices = "request|response|both",
     .help = "what goes to the model, what comes from it, or both"},
    {.name = "groups",
     .kind = SETTING_SECTION,
     .table = &filter_group_table,
     .help = "built-in rules and what becomes of their matches"},
    {.name = "rules",
     .kind = SETTING_ITEMS,
     IN(rules),
     .count_offset = offsetof(struct config_filter, rule_count),
     .table = &filter_rule_table,
     .help = "rules of your own; they go before the built-in ones"},
};
#undef IN
const struct setting_table config_filter_table = {
    ROWS(filter_rows), .item_bytes = sizeof(struct config_filter), .item = "filter"};

/* ---- agents ---- */

#define IN(field) .offset = offsetof(struct config_agent, limits.field)
static const struct setting agent_limits_rows[] = {
    {.name = "tokens_per_minute",
     .kind = SETTING_COUNT,
     IN(tokens_per_minute),
     .otherwise = "0",
     .max = 1000000000000,
     .help = "that its session may spend within any minute; 0: as fast as it can"},
    {.name = "cost_usd_per_minute",
     .kind = SETTING_MONEY,
     IN(cost_per_minute_nanousd),
     .otherwise = "0",
     .help = "money that its session may spend within any minute; 0: as fast as it can"},
    {.name = "same_action_warn",
     .kind = SETTING_COUNT,
     IN(same_action_warn),
     .otherwise = "5",
     .max = RUN_STEPS_MAX,
     .help = "equal tool calls or answers in a row until the model is told; 0: never"},
    {.name = "same_action_max",
     .kind = SETTING_COUNT,
     IN(same_action_max),
     .otherwise = "8",
     .max = RUN_STEPS_MAX,
     .help = "equal tool calls or answers in a row until the run is ended; 0: never"},
    {.name = "wind_down_tokens",
     .kind = SETTING_COUNT,
     IN(wind_down_tokens),
     .otherwise = "1000",
     .max = 100000,
     .help = "held back for a last call that sums up when the budget is spent (at most a "
             "twentieth of the smallest budget); 0: none"},
};
#undef IN
static const struct setting_table agent_limits_table = {ROWS(agent_limits_rows), .item = "limits"};

#define IN(field) .offset = offsetof(struct config_degrade, use.field)
static const struct setting degrade_use_rows[] = {
    {.name = "model", .kind = SETTING_TEXT, IN(model), .help = "another model answers"},
    {.name = "cached",
     .kind = SETTING_CHOICE,
     IN(cached),
     .otherwise = "false",
     .choices = "false|true",
     .help = "an earlier answer to the same question, of the last day"},
    {.name = "tools",
     .kind = SETTING_CHOICE,
     IN(tools),
     .otherwise = "keep",
     .choices = "keep|none",
     .help = "none: the model answers without tools"},
};
#undef IN
static const struct setting_table degrade_use_table = {ROWS(degrade_use_rows), .item = "use"};

#define IN(field) .offset = offsetof(struct config_degrade, field)
static const struct setting degrade_rows[] = {
    {.name = "when",
     .kind = SETTING_CHOICE,
     IN(when),
     .is_required = true,
     .choices = "provider_unavailable|budget_low|overloaded",
     .help = "what cannot be had: a provider, a tenth of the budget, a calm node"},
    {.name = "use",
     .kind = SETTING_SECTION,
     .table = &degrade_use_table,
     .help = "one of model, cached, tools"},
};
#undef IN
static const struct setting_table degrade_table = {
    ROWS(degrade_rows), .item_bytes = sizeof(struct config_degrade), .item = "step"};

#define IN(field) .offset = offsetof(struct config_agent, field)
static const struct setting agent_rows[] = {
    {.name = "name",
     .kind = SETTING_TEXT,
     IN(name),
     .is_required = true,
     .help = "also a model name: agent:NAME"},
    {.name = "version",
     .kind = SETTING_TEXT,
     IN(version),
     .otherwise = "1.0.0",
     .help = "yours to count up"},
    {.name = "description", .kind = SETTING_TEXT, IN(description), .help = "for people"},
    {.name = "model", .kind = SETTING_TEXT, IN(model), .help = "empty: the first model"},
    {.name = "instructions", .kind = SETTING_TEXT, IN(instructions), .help = "the system message"},
    {.name = "workflow",
     .kind = SETTING_TEXT,
     IN(workflow),
     .help = "name or name@range: its runs are instances of it, with the message as "
             "input.message: docs/agents.md"},
    {.name = "tools",
     .kind = SETTING_TEXTS,
     IN(tools),
     .count_offset = offsetof(struct config_agent, tool_count),
     .may_have_members = true,
     .help = "names, or name@range, or {name, permissions, pinned}; \"*\": all; none: none"},
    {.name = "agents",
     .kind = SETTING_TEXTS,
     IN(link_names),
     .count_offset = offsetof(struct config_agent, link_count),
     .may_have_members = true,
     .help = "other agents that it may call: names, or {name, as: tool|handoff, budget, "
             "description, sticky}: docs/agents.md"},
    {.name = "max_steps",
     .kind = SETTING_COUNT,
     IN(steps_max),
     .otherwise = "16",
     .min = 1,
     .max = RUN_STEPS_MAX,
     .help = "model calls of one run"},
    {.name = "timeout",
     .kind = SETTING_DURATION,
     IN(timeout_ms),
     .otherwise = "10m",
     .min = 1000,
     .max = 30 * DAY_MS,
     .help = "of one run; waiting for an approval does not count"},
    {.name = "max_output_tokens",
     .kind = SETTING_COUNT,
     IN(max_output_tokens),
     .otherwise = "0",
     .max = 10000000,
     .help = "of one model call; 0: the model's"},
    {.name = "limits",
     .kind = SETTING_SECTION,
     .table = &agent_limits_table,
     .help = "what holds it when it runs wild: docs/budgets.md"},
    {.name = "priority",
     .kind = SETTING_CHOICE,
     IN(priority),
     .choices = "|batch|normal|interactive",
     .help = "its runs are no more urgent than this; empty: as their callers say"},
    {.name = "degrade",
     .kind = SETTING_ITEMS,
     IN(degrade),
     .count_offset = offsetof(struct config_agent, degrade_count),
     .table = &degrade_table,
     .help = "what its runs may do when they cannot have what they want: docs/resilience.md"},
};
#undef IN
const struct setting_table config_agent_table = {
    ROWS(agent_rows), .item_bytes = sizeof(struct config_agent), .item = "agent"};
