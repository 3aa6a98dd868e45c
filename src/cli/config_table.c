/* every setting there is; the lists of items are in config_table_items.c */
#include "cli/config_internal.h"

#include "base/limits.h"

#define AT(field) .offset = offsetof(struct config, field)
#define ROWS(rows_) .rows = (rows_), .count = ARRAY_COUNT(rows_)
#define DAY_MS (24ll * 3600 * 1000)

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

/* Read by cli/mcp_servers.c: its mappings have free names. */
static const struct setting_table mcp_table = {.item = "mcp", .has_open_members = true};

static const struct setting sandbox_rows[] = {
    {.name = "process",
     .kind = SETTING_CHOICE,
     AT(sandbox_process),
     .otherwise = "auto",
     .choices = "auto|on|off",
     .help = "tools in a process of their own behind a second wall; auto: as soon as there is more "
             "than one tenant at the start"},
};
static const struct setting_table sandbox_table = {ROWS(sandbox_rows), .item = "sandbox"};

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
    {.name = "workspace_quota",
     .kind = SETTING_BYTES,
     AT(session_workspace_bytes),
     .otherwise = "100MiB",
     .max = 1ll << 50,
     .help = "of what tools write in one session"},
    {.name = "workspace_files",
     .kind = SETTING_COUNT,
     AT(session_workspace_files),
     .otherwise = "1000",
     .min = 1,
     .max = WORKSPACE_WALK_MAX / 2,
     .help = "files and folders that tools may make in one session"},
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

/* ---- DNS ---- */

static const struct setting dns_rows[] = {
    {.name = "servers",
     .kind = SETTING_TEXTS,
     AT(dns_servers),
     .count_offset = offsetof(struct config, dns_server_count),
     .help =
         "resolvers that are asked, and no others, as in 192.0.2.1 or 127.0.0.1:5353; none: the "
         "system's way"},
};
static const struct setting_table dns_table = {ROWS(dns_rows), .item = "dns"};

/* ---- MCP server ---- */

static const struct setting mcp_server_rows[] = {
    {.name = "public_url",
     .kind = SETTING_TEXT,
     AT(mcp_server.public_url),
     .help =
         "as clients reach this server, as in https://nexus.example.com; none: by the Host they "
         "use"},
    {.name = "authorization_servers",
     .kind = SETTING_TEXTS,
     AT(mcp_server.authorization_servers),
     .count_offset = offsetof(struct config, mcp_server.authorization_server_count),
     .help = "named to MCP clients as where to get a token (RFC 9728); none: API keys"},
    {.name = "sessions_per_key",
     .kind = SETTING_COUNT,
     AT(mcp_server.sessions_per_key),
     .otherwise = "64",
     .min = 1,
     .max = MCP_SERVER_SESSIONS_MAX,
     .help = "of the revisions with sessions; the one that is idle longest makes room"},
    {.name = "session_idle",
     .kind = SETTING_DURATION,
     AT(mcp_server.session_idle_ms),
     .otherwise = "30m",
     .min = 1000,
     .max = 30 * DAY_MS,
     .help = "a session ends when nothing was asked in it for so long"},
};
static const struct setting_table mcp_server_table = {ROWS(mcp_server_rows), .item = "mcp_server"};

/* ---- memory ---- */

static const struct setting memory_rows[] = {
    {.name = "embedding_model",
     .kind = SETTING_TEXT,
     AT(memory.embedding_model),
     .help = "model with `embedder: true`; none: the built-in embedder, which finds shared words, "
             "not meaning"},
    {.name = "dimensions",
     .kind = SETTING_COUNT,
     AT(memory.dimensions),
     .otherwise = "1536",
     .min = 1,
     .max = VECTOR_DIMENSION_MAX,
     .help = "numbers of a vector, as the embedding model gives them; kept vectors have as many"},
    {.name = "filter",
     .kind = SETTING_TEXT,
     AT(memory.filter),
     .help = "of `filters`: what it blocks is not stored; none: the embedding model's"},
    {.name = "session_points",
     .kind = SETTING_COUNT,
     AT(memory.session_points),
     .otherwise = "10000",
     .min = 1,
     .max = VECTOR_SCAN_POINTS_MAX,
     .help = "memories of one session"},
    {.name = "user_points",
     .kind = SETTING_COUNT,
     AT(memory.user_points),
     .otherwise = "20000",
     .min = 1,
     .max = VECTOR_SCAN_POINTS_MAX,
     .help = "memories of one user, over all sessions"},
};
static const struct setting_table memory_table = {ROWS(memory_rows), .item = "memory"};

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

/* ---- containment ---- */

#define IN(field) .offset = offsetof(struct config_containment_rule, field)
static const struct setting containment_rule_rows[] = {
    {.name = "name",
     .kind = SETTING_TEXT,
     IN(name),
     .is_required = true,
     .help = "what decisions call it: containment:NAME"},
    {.name = "tool", .kind = SETTING_TEXT, IN(tool), .help = "of this tool only"},
    {.name = "category",
     .kind = SETTING_TEXT,
     IN(category),
     .help = "of tools of this category only"},
    {.name = "host",
     .kind = SETTING_TEXT,
     IN(host),
     .help = "of requests to this host only; \"*.example\": those below it"},
    {.name = "agent", .kind = SETTING_TEXT, IN(agent), .help = "of this agent only"},
    {.name = "when",
     .kind = SETTING_CHOICE,
     IN(when),
     .otherwise = "untrusted",
     .choices = "untrusted|private|always",
     .help = "what the context must hold; private: beside untrusted text"},
    {.name = "verdict",
     .kind = SETTING_CHOICE,
     IN(verdict),
     .is_required = true,
     .choices = "allow|needs_approval|deny",
     .help = "allow makes it a declassifier"},
};
#undef IN
static const struct setting_table containment_rule_table = {
    ROWS(containment_rule_rows), .item_bytes = sizeof(struct config_containment_rule),
    .item = "rule"};
static const struct setting containment_rows[] = {
    {.name = "mode",
     .kind = SETTING_CHOICE,
     AT(containment.mode),
     .otherwise = "enforce",
     .choices = "enforce|observe|off",
     .help = "observe: decisions are journaled and nothing is held back"},
    {.name = "inside",
     .kind = SETTING_TEXTS,
     AT(containment.inside),
     .count_offset = offsetof(struct config, containment.inside_count),
     .help = "hosts of your own: what they say is private, and private text may go there"},
    {.name = "rules",
     .kind = SETTING_ITEMS,
     AT(containment.rules),
     .count_offset = offsetof(struct config, containment.rule_count),
     .table = &containment_rule_table,
     .help = "go before the shipped ones, in order; the first that fits decides"},
    {.name = "links",
     .kind = SETTING_COUNT,
     AT(containment.links_max),
     .otherwise = "64",
     .min = 1,
     .max = 10000,
     .help = "pages that one conversation may open by links nobody named"},
    {.name = "approvals",
     .kind = SETTING_COUNT,
     AT(containment.approvals_max),
     .otherwise = "8",
     .min = 1,
     .max = 1000,
     .help = "persons asked in one run; what comes after is denied"},
    {.name = "answer_links",
     .kind = SETTING_CHOICE,
     AT(containment.answer_links),
     .otherwise = "defuse",
     .choices = "defuse|keep",
     .help = "addresses in answers that nobody named are made harmless"},
    {.name = "payloads",
     .kind = SETTING_CHOICE,
     AT(containment.payloads),
     .otherwise = "mask",
     .choices = "mask|flag|block",
     .help = "hidden characters, escapes and scripts in what tools say"},
};
static const struct setting_table containment_table = {ROWS(containment_rows)};

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
    {.name = "roles",
     .kind = SETTING_TEXT,
     AT(roles),
     .otherwise = "all",
     .help = "all; gateway,orchestrator,llm: tools run in a process of their own"},
    {.name = "cache_dir",
     .kind = SETTING_TEXT,
     AT(cache_dir),
     .help =
         "compiled tools; empty: the user's cache folder (XDG_CACHE_HOME/nexus, ~/.cache/nexus)"},
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
     .table = &config_provider_table,
     .help = "model APIs; none: what is found (OPENAI_API_KEY, local servers), else the stand-in"},
    {.name = "models",
     .kind = SETTING_ITEMS,
     AT(models),
     .count_offset = offsetof(struct config, model_count),
     .table = &config_model_table,
     .help = "what callers and agents may ask for; the first is the default"},
    {.name = "prices",
     .kind = SETTING_SECTION,
     .table = &prices_table,
     .help = "what models cost where a target does not say it"},
    {.name = "filters",
     .kind = SETTING_ITEMS,
     AT(filters),
     .count_offset = offsetof(struct config, filter_count),
     .table = &config_filter_table,
     .help = "content filters that models name"},
    {.name = "agents",
     .kind = SETTING_ITEMS,
     AT(agents),
     .count_offset = offsetof(struct config, agent_count),
     .table = &config_agent_table,
     .help = "agents beside the built-in `assistant`"},
    {.name = "tools",
     .kind = SETTING_SECTION,
     .table = &tool_table,
     .help = "tools.NAME.{permissions, version, canary}; trusted_keys, require_signature: "
             "docs/tool-registry.md"},
    {.name = "mcp",
     .kind = SETTING_SECTION,
     .table = &mcp_table,
     .help = "mcp.servers: MCP servers whose tools are used (docs/mcp.md)"},
    {.name = "sandbox",
     .kind = SETTING_SECTION,
     .table = &sandbox_table,
     .help = "where tools run"},
    {.name = "policy", .kind = SETTING_SECTION, .table = &policy_table, .help = "who may do what"},
    {.name = "memory",
     .kind = SETTING_SECTION,
     .table = &memory_table,
     .help = "what is kept of conversations and found by meaning: docs/memory.md"},
    {.name = "containment",
     .kind = SETTING_SECTION,
     .table = &containment_table,
     .help = "what untrusted text may not cause: docs/containment.md"},
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
    {.name = "dns",
     .kind = SETTING_SECTION,
     .table = &dns_table,
     .help = "how names become addresses"},
    {.name = "mcp_server",
     .kind = SETTING_SECTION,
     .table = &mcp_server_table,
     .help = "this server's own tools and agents at /mcp: docs/mcp.md"},
    {.name = "store", .kind = SETTING_SECTION, .table = &store_table, .help = "the embedded store"},
    {.name = "tracing",
     .kind = SETTING_SECTION,
     .table = &tracing_table,
     .help = "where traces go"},
};
const struct setting_table config_table = {ROWS(root_rows), .item_bytes = sizeof(struct config),
                                           .item = "configuration"};
