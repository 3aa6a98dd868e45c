/* every setting there is */
#include "cli/config_internal.h"

#include "base/limits.h"

#define AT(field) .offset = offsetof(struct config, field)
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
};
#undef IN
static const struct setting_table provider_table = {
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
static const struct setting_table model_table = {
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
static const struct setting_table filter_table = {
    ROWS(filter_rows), .item_bytes = sizeof(struct config_filter), .item = "filter"};

/* ---- agents ---- */

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
    {.name = "tools",
     .kind = SETTING_TEXTS,
     IN(tools),
     .count_offset = offsetof(struct config_agent, tool_count),
     .help = "names, or name@range; \"*\": all; none: none"},
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
};
#undef IN
static const struct setting_table agent_table = {
    ROWS(agent_rows), .item_bytes = sizeof(struct config_agent), .item = "agent"};

/* ---- sections ---- */

static const struct setting prices_rows[] = {
    {.name = "file",
     .kind = SETTING_TEXT,
     AT(prices_file),
     .help = "a price list of your own (or a folder of them) that goes before the shipped ones; "
             "docs/prices.md"},
};
static const struct setting_table prices_table = {ROWS(prices_rows), .item = "prices"};

static const struct setting tool_rows[] = {
    {.name = "dir",
     .kind = SETTING_TEXT,
     AT(tool_dir),
     .help = "folder of tools; empty: the shipped ones"},
};
static const struct setting_table tool_table = {ROWS(tool_rows), .item = "tool",
                                                .has_open_members = true};

static const struct setting policy_rows[] = {
    {.name = "engine",
     .kind = SETTING_CHOICE,
     AT(policy_engine),
     .otherwise = "rego",
     .choices = "rego|off",
     .help =
         "off: everything is allowed; for benchmarks and first trials, and said at every start"},
    {.name = "dir",
     .kind = SETTING_TEXT,
     AT(policy_dir),
     .help = "folder with *.rego and data.json; empty: the shipped ones"},
    {.name = "time_limit",
     .kind = SETTING_DURATION,
     AT(policy_time_limit_ms),
     .otherwise = "50ms",
     .min = 1,
     .max = 10000,
     .help = "of one decision; past it the answer is deny"},
};
static const struct setting_table policy_table = {ROWS(policy_rows), .item = "policy"};

static const struct setting session_budget_rows[] = {
    {.name = "tokens",
     .kind = SETTING_AMOUNT,
     AT(session_budget.tokens),
     .otherwise = "200000",
     .max = INT64_MAX,
     .help = "input and output of all model calls"},
    {.name = "time_seconds",
     .kind = SETTING_AMOUNT,
     AT(session_budget.time_seconds),
     .otherwise = "3600",
     .max = 100ll * 366 * 24 * 3600,
     .help = "running time of all runs"},
    {.name = "cost_usd",
     .kind = SETTING_MONEY,
     AT(session_budget.cost_nanousd),
     .otherwise = "unlimited",
     .help = "money"},
    {.name = "tool_calls",
     .kind = SETTING_AMOUNT,
     AT(session_budget.tool_calls),
     .otherwise = "unlimited",
     .max = INT64_MAX,
     .help = "calls of tools"},
};
static const struct setting_table session_budget_table = {ROWS(session_budget_rows),
                                                          .item = "budget"};
static const struct setting budget_rows[] = {
    {.name = "session",
     .kind = SETTING_SECTION,
     .table = &session_budget_table,
     .help = "default and ceiling of a session; a caller may only lower it"},
};
static const struct setting_table budget_table = {ROWS(budget_rows), .item = "budgets"};

static const struct setting session_rows[] = {
    {.name = "expiry",
     .kind = SETTING_DURATION,
     AT(session_expiry_ms),
     .otherwise = "30d",
     .max = 3660 * DAY_MS,
     .help = "a session that idle long is over; never: it stays"},
    {.name = "files_quota",
     .kind = SETTING_BYTES,
     AT(session_files_bytes),
     .otherwise = "1GiB",
     .max = 1ll << 50,
     .help = "of all files of one session"},
};
static const struct setting_table session_table = {ROWS(session_rows), .item = "sessions"};

static const struct setting approval_rows[] = {
    {.name = "expiry",
     .kind = SETTING_DURATION,
     AT(approval_expiry_ms),
     .otherwise = "7d",
     .min = 1000,
     .max = 3660 * DAY_MS,
     .help = "an approval nobody decided is then denied"},
};
static const struct setting_table approval_table = {ROWS(approval_rows), .item = "approvals"};

static const struct setting responses_rows[] = {
    {.name = "expiry",
     .kind = SETTING_DURATION,
     AT(responses_expiry_ms),
     .otherwise = "30d",
     .min = 1000,
     .max = 3660 * DAY_MS,
     .help = "a stored answer of /v1/responses that old is forgotten"},
};
static const struct setting_table responses_table = {ROWS(responses_rows), .item = "responses"};

static const struct setting limit_rows[] = {
    {.name = "requests_per_minute",
     .kind = SETTING_COUNT,
     AT(requests_per_minute),
     .otherwise = "6000",
     .min = 1,
     .max = 1000000000,
     .help = "of one user"},
    {.name = "tokens_per_minute",
     .kind = SETTING_COUNT,
     AT(tokens_per_minute),
     .otherwise = "0",
     .max = 1000000000000,
     .help = "of one user, over all models; 0: no such limit"},
    {.name = "tenant_requests_per_minute",
     .kind = SETTING_COUNT,
     AT(tenant_requests_per_minute),
     .otherwise = "0",
     .max = 1000000000,
     .help = "of all users of a tenant together; 0: no such limit"},
    {.name = "tenant_tokens_per_minute",
     .kind = SETTING_COUNT,
     AT(tenant_tokens_per_minute),
     .otherwise = "0",
     .max = 1000000000000,
     .help = "of all users of a tenant together; 0: no such limit"},
    {.name = "streams_per_key",
     .kind = SETTING_COUNT,
     AT(streams_per_key),
     .otherwise = "256",
     .min = 1,
     .max = 1000000,
     .help = "open event streams of one API key"},
    {.name = "call_timeout",
     .kind = SETTING_DURATION,
     AT(call_timeout_ms),
     .otherwise = "120s",
     .min = 1,
     .max = DAY_MS,
     .help = "of one model call, from its start to its last byte"},
    {.name = "drain_timeout",
     .kind = SETTING_DURATION,
     AT(drain_timeout_ms),
     .otherwise = "10s",
     .max = DAY_MS,
     .help = "what runs at SIGTERM may go on that long; the rest resumes at the next start"},
};
static const struct setting response_cache_rows[] = {
    {.name = "max_bytes",
     .kind = SETTING_BYTES,
     AT(response_cache_bytes),
     .otherwise = "64MiB",
     .min = RESPONSE_CACHE_BYTES_MIN,
     .max = 1ll << 40,
     .help = "of all kept answers with their overhead; which models keep any says models[].cache"},
};
static const struct setting_table response_cache_table = {ROWS(response_cache_rows),
                                                          .item = "cache"};

static const struct setting_table limit_table = {ROWS(limit_rows), .item = "limits"};

static const struct setting tracing_rows[] = {
    {.name = "endpoint",
     .kind = SETTING_TEXT,
     AT(tracing_endpoint),
     .help = "an OTLP/HTTP collector, as in http://127.0.0.1:4318; none: no traces"},
    {.name = "sample",
     .kind = SETTING_TEXT,
     AT(tracing_sample_text),
     .otherwise = "1%",
     .help = "share of the traces that begin here, as in 1% or 0.01; a caller's own decision "
             "counts first"},
    {.name = "authorization",
     .kind = SETTING_SECRETS,
     AT(tracing_authorization),
     .count_offset = offsetof(struct config, tracing_authorization_count),
     .help =
         "list of at most one: what the collector wants as Authorization; write it as ${env:NAME}"},
};
static const struct setting_table tracing_table = {ROWS(tracing_rows), .item = "tracing"};

static const struct setting store_rows[] = {
    {.name = "cache",
     .kind = SETTING_BYTES,
     AT(store_cache_bytes),
     .otherwise = "16MiB",
     .min = 1 << 20,
     .max = 4ll << 30,
     .help = "pages of the store that are kept in memory, for each of its three connections"},
};
static const struct setting_table store_table = {ROWS(store_rows), .item = "store"};

/* ---- TLS ---- */

static const struct setting tls_rows[] = {
    {.name = "cert_file",
     .kind = SETTING_TEXT,
     AT(tls_cert_file),
     .help = "PEM: the server's certificate, then what leads to its authority; makes listen https"},
    {.name = "key_file",
     .kind = SETTING_TEXT,
     AT(tls_key_file),
     .help = "PEM: the certificate's key, without a passphrase, readable by Nexus only"},
    {.name = "client_ca_file",
     .kind = SETTING_TEXT,
     AT(tls_client_ca_file),
     .help = "PEM: clients must show a certificate signed by one of these authorities"},
};
static const struct setting_table tls_table = {ROWS(tls_rows), .item = "tls"};

/* ---- the file ---- */

static const struct setting root_rows[] = {
    {.name = "listen",
     .kind = SETTING_TEXT,
     AT(listen),
     .otherwise = "127.0.0.1:8080",
     .help = "ADDRESS:PORT; port 0: any free one"},
    {.name = "tls",
     .kind = SETTING_SECTION,
     .table = &tls_table,
     .help = "certificate of the server; none: plain HTTP; SIGHUP reads the files again"},
    {.name = "data_dir",
     .kind = SETTING_TEXT,
     AT(data_dir),
     .otherwise = "./data",
     .help = "everything that is kept; one process at a time"},
    {.name = "cache_dir",
     .kind = SETTING_TEXT,
     AT(cache_dir),
     .help = "compiled tools; empty: data_dir/cache"},
    {.name = "node",
     .kind = SETTING_TEXT,
     AT(node),
     .otherwise = "node-1",
     .help = "this node's name in journal and audit log"},
    {.name = "log_level",
     .kind = SETTING_CHOICE,
     AT(log_level_name),
     .otherwise = "info",
     .choices = "debug|info|warn|error",
     .help = "what is logged"},
    {.name = "log_format",
     .kind = SETTING_CHOICE,
     AT(log_format),
     .otherwise = "auto",
     .choices = "auto|json|text",
     .help = "auto: text on a terminal, JSON lines elsewhere"},
    {.name = "threads",
     .kind = SETTING_COUNT,
     AT(threads),
     .otherwise = "0",
     .max = LOOP_COUNT_MAX - 1,
     .help = "event loops; 0: one per core"},
    {.name = "allowed_hosts",
     .kind = SETTING_TEXTS,
     AT(allowed_hosts),
     .count_offset = offsetof(struct config, allowed_host_count),
     .help = "names that clients may use for this server, beside its address and localhost"},
    {.name = "providers",
     .kind = SETTING_ITEMS,
     AT(providers),
     .count_offset = offsetof(struct config, provider_count),
     .table = &provider_table,
     .help = "model APIs; none: what is found (OPENAI_API_KEY, local servers), else the stand-in"},
    {.name = "models",
     .kind = SETTING_ITEMS,
     AT(models),
     .count_offset = offsetof(struct config, model_count),
     .table = &model_table,
     .help = "what callers and agents may ask for; the first is the default"},
    {.name = "prices",
     .kind = SETTING_SECTION,
     .table = &prices_table,
     .help = "what models cost where a target does not say it"},
    {.name = "filters",
     .kind = SETTING_ITEMS,
     AT(filters),
     .count_offset = offsetof(struct config, filter_count),
     .table = &filter_table,
     .help = "content filters that models name"},
    {.name = "agents",
     .kind = SETTING_ITEMS,
     AT(agents),
     .count_offset = offsetof(struct config, agent_count),
     .table = &agent_table,
     .help = "agents beside the built-in `assistant`"},
    {.name = "tools",
     .kind = SETTING_SECTION,
     .table = &tool_table,
     .help = "tools.NAME.permissions narrow what a tool's manifest asks for"},
    {.name = "policy", .kind = SETTING_SECTION, .table = &policy_table, .help = "who may do what"},
    {.name = "budgets",
     .kind = SETTING_SECTION,
     .table = &budget_table,
     .help = "what may be spent"},
    {.name = "sessions",
     .kind = SETTING_SECTION,
     .table = &session_table,
     .help = "life of sessions"},
    {.name = "approvals",
     .kind = SETTING_SECTION,
     .table = &approval_table,
     .help = "life of approvals"},
    {.name = "responses",
     .kind = SETTING_SECTION,
     .table = &responses_table,
     .help = "life of stored answers"},
    {.name = "limits",
     .kind = SETTING_SECTION,
     .table = &limit_table,
     .help = "limits and deadlines of requests"},
    {.name = "cache",
     .kind = SETTING_SECTION,
     .table = &response_cache_table,
     .help = "answers of models that are given again"},
    {.name = "store",
     .kind = SETTING_SECTION,
     .table = &store_table,
     .help = "the embedded store"},
    {.name = "tracing",
     .kind = SETTING_SECTION,
     .table = &tracing_table,
     .help = "where traces go"},
};
const struct setting_table config_table = {ROWS(root_rows), .item_bytes = sizeof(struct config),
                                           .item = "configuration"};
