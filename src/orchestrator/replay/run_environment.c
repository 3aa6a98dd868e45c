#include "orchestrator/replay/run_environment.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <stdlib.h>

/* ---- writing ---- */

static void write_names(struct json_writer *w, const char *member, const str *names, size_t count)
{
    json_key(w, str_from_cstr(member));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++)
        json_write_str(w, names[i]);
    json_array_end(w);
}

static void write_links(struct json_writer *w, const struct agent_set *agents,
                        const struct agent_definition *agent)
{
    json_key(w, S("agents"));
    json_array_begin(w);
    for (size_t i = 0; i < agent->agent_count; i++) {
        const struct agent_link *link = &agent->agents[i];
        json_object_begin(w);
        json_put_str(w, S("name"), link->name);
        const struct agent_definition *other = agent_set_find(agents, link->name);
        json_put_str(w, S("description"), link->description);
        json_put_str(w, S("version"), other ? other->version : STR_NONE);
        json_put_str(w, S("about"), other ? other->description : STR_NONE);
        json_put_str(w, S("model"), other ? other->model : STR_NONE);
        json_put_str(w, S("instructions"), other ? other->instructions : STR_NONE);
        write_names(w, "tools", other ? other->tools : NULL, other ? other->tool_count : 0);
        json_put_bool(w, S("handoff"), link->is_handoff);
        json_put_bool(w, S("sticky"), link->is_sticky);
        json_key(w, S("budget"));
        cost_write_json(w, link->budget);
        json_object_end(w);
    }
    json_array_end(w);
}

static void write_agent(struct json_writer *w, const struct agent_set *agents,
                        const struct agent_definition *agent)
{
    json_key(w, S("agent"));
    json_object_begin(w);
    json_put_str(w, S("name"), agent->name);
    json_put_str(w, S("version"), agent->version);
    json_put_str(w, S("model"), agent->model);
    json_put_str(w, S("instructions"), agent->instructions);
    json_put_i64(w, S("steps_max"), agent->steps_max);
    json_put_i64(w, S("run_timeout_ms"), agent->run_timeout_ms);
    json_put_i64(w, S("max_output_tokens"), agent->max_output_tokens);
    json_key(w, S("limits"));
    json_array_begin(w);
    json_write_i64(w, agent->limits.tokens_per_minute);
    json_write_i64(w, agent->limits.cost_per_minute_nanousd);
    json_write_i64(w, agent->limits.same_action_warn);
    json_write_i64(w, agent->limits.same_action_max);
    json_write_i64(w, agent->limits.wind_down_tokens);
    json_array_end(w);
    write_links(w, agents, agent);
    write_names(w, "tools", agent->tools, agent->tool_count);
    json_key(w, S("pinned"));
    json_array_begin(w);
    for (size_t i = 0; agent->tool_details && i < agent->tool_count; i++)
        if (agent->tool_details[i].is_pinned)
            json_write_str(w, agent->tools[i]);
    json_array_end(w);
    json_object_end(w);
}

static void write_rates(struct json_writer *w, const struct price_rates *rates)
{
    json_object_begin(w);
    json_put_i64(w, S("input"), rates->input);
    json_put_i64(w, S("cached"), rates->cached);
    json_put_i64(w, S("cache_write"), rates->cache_write);
    json_put_i64(w, S("output"), rates->output);
    json_put_i64(w, S("reasoning"), rates->reasoning);
    json_object_end(w);
}

static void write_price(struct json_writer *w, const struct model_price *price)
{
    struct price_rates rates = {
        .input = price->input_picousd_per_token,
        .cached = price->cached_picousd_per_token,
        .cache_write = price->cache_write_picousd_per_token,
        .output = price->output_picousd_per_token,
        .reasoning = price->reasoning_picousd_per_token,
    };
    if (!price->is_known)
        return;
    json_key(w, S("price"));
    write_rates(w, &rates);
    if (price->long_above_tokens == 0)
        return;
    json_put_i64(w, S("long_above_tokens"), price->long_above_tokens);
    json_key(w, S("long_price"));
    write_rates(w, &price->long_rates);
}

static void write_model(struct json_writer *w, const struct model *model)
{
    json_key(w, S("model"));
    json_object_begin(w);
    json_put_str(w, S("name"), model->name);
    json_put_i64(w, S("max_output_tokens"), model->max_output_tokens);
    json_put_i64(w, S("total_ms"), model->deadlines.total_ms);
    json_key(w, S("targets"));
    json_array_begin(w);
    for (size_t i = 0; i < model->target_count; i++) {
        const struct model_target *target = &model->targets[i];
        json_object_begin(w);
        json_put_str(w, S("provider"), target->provider->name);
        json_put_str(w, S("model"), target->model);
        json_put_str(w, S("variant"), target->variant);
        json_put_bool(w, S("stand_in"), target->provider->ops->is_stand_in);
        if (target->context_tokens_max > 0) /* what is summarised depends on it */
            json_put_i64(w, S("context_tokens"), target->context_tokens_max);
        write_price(w, &target->price);
        json_object_end(w);
    }
    json_array_end(w);
    json_object_end(w);
}

static void put_digest(struct json_writer *w, const char *member, digest value)
{
    static const char hex[] = "0123456789abcdef";
    char text[2 * sizeof value.bytes];
    for (size_t i = 0; i < sizeof value.bytes; i++) {
        text[2 * i] = hex[value.bytes[i] >> 4];
        text[2 * i + 1] = hex[value.bytes[i] & 15];
    }
    json_put_str(w, str_from_cstr(member), str_of(text, sizeof text));
}

static void write_tool(struct json_writer *w, const struct tool *tool)
{
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    json_put_str(w, S("version"), tool->version);
    json_put_str(w, S("category"), tool->category);
    json_put_str(w, S("description"), tool->description);
    json_put_raw(w, S("input_schema"), tool->input_schema);
    json_put_raw(w, S("output_schema"), tool->output_schema);
    json_key(w, S("permissions"));
    permissions_write_json(w, &tool->permissions);
    json_key(w, S("limits"));
    json_array_begin(w);
    json_write_u64(w, tool->limits.fuel);
    json_write_i64(w, tool->limits.time_ms);
    json_write_u64(w, tool->limits.memory_bytes);
    json_write_u64(w, tool->limits.output_bytes);
    json_write_u64(w, tool->limits.table_elements);
    json_array_end(w);
    write_names(w, "host_calls", tool->host_calls, tool->host_call_count);
    json_put_i64(w, S("abi"), tool->abi);
    json_put_i64(w, S("source"), tool->source);
    json_put_str(w, S("source_name"), tool->source_name);
    put_digest(w, "digest", tool->module_digest);
    put_digest(w, "identity", tool->identity);
    json_put_bool(w, S("pure"), tool->is_pure);
    json_put_bool(w, S("idempotent"), tool->is_idempotent);
    json_put_bool(w, S("output_public"), tool->is_output_public);
    json_put_bool(w, S("output_trusted"), tool->is_output_trusted);
    json_put_bool(w, S("sink"), tool->is_sink);
    if (tool->notebooks.is_enabled)
        json_put_bool(w, S("notebooks"), true);
    json_object_end(w);
}

static void write_rule(struct json_writer *w, const struct containment_rule *rule)
{
    json_object_begin(w);
    json_put_str(w, S("name"), rule->name);
    json_put_str(w, S("tool"), rule->tool);
    json_put_str(w, S("category"), rule->category);
    json_put_str(w, S("host"), rule->host);
    json_put_str(w, S("agent"), rule->agent);
    json_put_i64(w, S("when"), rule->when);
    json_put_i64(w, S("verdict"), rule->verdict);
    json_object_end(w);
}

static void write_settings(struct json_writer *w, const struct settings *settings)
{
    const struct containment *rules = &settings->containment;
    json_key(w, S("settings"));
    json_object_begin(w);
    json_put_i64(w, S("call_timeout_ms"), settings->call_timeout_ms);
    json_put_i64(w, S("approval_expiry_ms"), settings->approval_expiry_ms);
    json_key(w, S("containment"));
    json_object_begin(w);
    json_put_i64(w, S("mode"), rules->mode);
    json_put_i64(w, S("payloads"), rules->payloads);
    json_put_i64(w, S("links_max"), rules->links_max);
    json_put_i64(w, S("approvals_max"), rules->approvals_max);
    json_put_bool(w, S("keeps_links"), rules->keeps_links);
    write_names(w, "inside", rules->inside, rules->inside_count);
    json_key(w, S("rules"));
    json_array_begin(w);
    for (size_t i = 0; i < rules->rule_count; i++)
        write_rule(w, &rules->rules[i]);
    json_array_end(w);
    json_object_end(w);
    json_object_end(w);
}

static str environment_text(struct run *run)
{
    struct strbuf text;
    struct json_writer w;
    size_t index = 0;
    str name;
    strbuf_init(&text, run->turn, RUN_ENVIRONMENT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_agent(&w, run->settings->agents, run->agent);
    write_model(&w, run->model);
    write_settings(&w, run->settings);
    json_key(&w, S("tools"));
    json_array_begin(&w);
    while (registry_next_name(run->tools, run->tenant_id, &index, &name)) {
        const struct tool *tool = run_find_tool(run, name);
        if (tool)
            write_tool(&w, tool);
    }
    json_array_end(&w);
    json_key(&w, S("offered"));
    json_array_begin(&w);
    for (size_t i = 0; i < run->offered_count; i++)
        json_write_str(&w, run->offered[i].name);
    json_array_end(&w);
    json_object_end(&w);
    return strbuf_is_over(&text) ? STR_NONE : strbuf_str(&text);
}

/* ---- the cache of a lane: most runs have the environment of the one before ---- */

struct cached {
    uint64_t settings_version, offered_hash;
    const struct registry_snapshot *tools; /* held */
    uuid tenant_id;
    str agent, model; /* in `names` */
    char names[256];
    char digest[2 * sizeof(digest)];
    bool is_stored;
    uint64_t used; /* for the choice of whom to forget */
};
struct run_environments {
    struct cached items[RUN_ENVIRONMENT_CACHE];
    uint64_t clock;
};

void run_environments_destroy(struct run_environments *cache)
{
    for (size_t i = 0; cache && i < RUN_ENVIRONMENT_CACHE; i++)
        if (cache->items[i].tools)
            registry_release(cache->items[i].tools);
    free(cache);
}

static struct run_environments *cache_of(struct run *run)
{
    struct lane_state *lane = &run->o->lanes[run->lane];
    if (!lane->environments) {
        lane->environments = calloc(1, sizeof *lane->environments);
        ensure(lane->environments != NULL);
    }
    return lane->environments;
}

static uint64_t hash_offer(const struct run *run)
{
    uint64_t hash = run->offered_count;
    for (size_t i = 0; i < run->offered_count; i++)
        hash = str_hash(run->offered[i].name, hash);
    return hash;
}

static struct cached *find(struct run *run, uint64_t offered_hash)
{
    struct run_environments *cache = cache_of(run);
    struct cached *oldest = &cache->items[0];
    for (size_t i = 0; i < RUN_ENVIRONMENT_CACHE; i++) {
        struct cached *item = &cache->items[i];
        if (item->tools == run->tools && item->settings_version == run->settings->version &&
            item->offered_hash == offered_hash && uuid_equal(item->tenant_id, run->tenant_id) &&
            str_equal(item->agent, run->agent->name) && str_equal(item->model, run->model->name)) {
            item->used = ++cache->clock;
            return item;
        }
        if (item->used < oldest->used)
            oldest = item;
    }
    if (oldest->tools)
        registry_release(oldest->tools);
    size_t agent_bytes = run->agent->name.len, model_bytes = run->model->name.len;
    *oldest = (struct cached){.used = ++cache->clock};
    if (agent_bytes + model_bytes > sizeof oldest->names)
        return oldest; /* never found again, and made anew each time */
    oldest->tools = registry_acquire(run->o->parts.registry);
    if (oldest->tools !=
        run->tools) { /* the registry has moved on: nobody will ask for these again */
        registry_release(oldest->tools);
        oldest->tools = NULL;
        return oldest;
    }
    memcpy(oldest->names, run->agent->name.ptr, agent_bytes);
    memcpy(oldest->names + agent_bytes, run->model->name.ptr, model_bytes);
    oldest->agent = str_of(oldest->names, agent_bytes);
    oldest->model = str_of(oldest->names + agent_bytes, model_bytes);
    oldest->settings_version = run->settings->version;
    oldest->offered_hash = offered_hash;
    oldest->tenant_id = run->tenant_id;
    return oldest;
}

str run_environment_note(struct run *run)
{
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle) /* it was given, not made: a later program may write it another way */
        return oracle->environment(oracle->owner);
    struct cached *item = find(run, hash_offer(run));
    str text = STR_NONE;
    if (item->digest[0] == 0 || !item->is_stored) {
        text = environment_text(run);
        if (str_is_empty(text))
            return STR_NONE;
        str hex = digest_hex(run->turn, digest_sha256(text));
        memcpy(item->digest, hex.ptr, sizeof item->digest);
    }
    str hex = str_of(item->digest, sizeof item->digest);
    if (str_equal(hex, run->environment))
        return STR_NONE;
    hex = str_copy(run->turn, hex); /* the run's own only once it is durable */
    if (!item->is_stored) {
        struct record *row = journal_row(&run->journal, WRITE_INSERT_NEW, TABLE_RUN_ENVIRONMENTS);
        record_set_text(row, RUN_ENVIRONMENTS_DIGEST, hex);
        record_set_text(row, RUN_ENVIRONMENTS_CONTENT, text);
        record_set_integer(row, RUN_ENVIRONMENTS_CREATED_AT, clock_unix_us(run->o->parts.clock));
    }
    return hex;
}

void run_environment_stored(struct run *run)
{
    if (run->o->oracle)
        return;
    struct cached *item = find(run, hash_offer(run));
    str hex = str_of(item->digest, sizeof item->digest);
    if (item->digest[0] == 0 || str_equal(hex, run->environment))
        return;
    item->is_stored = true;
    run->environment = str_copy(run->keep, hex);
}

/* ---- reading ---- */

static size_t read_names(struct arena *arena, const struct json *list, str **out)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    size_t count = 0;
    *out = ARENA_ARRAY(arena, str, json_count(list) + 1);
    while (json_next(&it, NULL, &item))
        count += json_to_str(item, &(*out)[count]);
    return count;
}

static void read_rates(const struct json *json, struct price_rates *out)
{
    *out = (struct price_rates){
        .input = json_i64_or(json, S("input"), 0),
        .cached = json_i64_or(json, S("cached"), 0),
        .cache_write = json_i64_or(json, S("cache_write"), 0),
        .output = json_i64_or(json, S("output"), 0),
        .reasoning = json_i64_or(json, S("reasoning"), 0),
    };
}

static struct model_price read_price(const struct json *target)
{
    struct price_rates rates;
    struct model_price price = {.is_known = json_get(target, S("price")) != NULL};
    read_rates(json_get(target, S("price")), &rates);
    price.input_picousd_per_token = rates.input;
    price.cached_picousd_per_token = rates.cached;
    price.cache_write_picousd_per_token = rates.cache_write;
    price.output_picousd_per_token = rates.output;
    price.reasoning_picousd_per_token = rates.reasoning;
    price.long_above_tokens = json_i64_or(target, S("long_above_tokens"), 0);
    read_rates(json_get(target, S("long_price")), &price.long_rates);
    return price;
}

static void read_model(struct arena *arena, const struct json *json, struct run_environment *out)
{
    const struct json *targets = json_get(json, S("targets")), *item;
    struct json_iter it = json_iter(targets);
    struct model *model = &out->model;
    *model = (struct model){
        .name = json_str_or(json, S("name"), STR_NONE),
        .max_output_tokens = json_i64_or(json, S("max_output_tokens"), 1),
        .deadlines = {.total_ms = json_i64_or(json, S("total_ms"), 0)},
    };
    model->targets = ARENA_ARRAY(arena, struct model_target, json_count(targets) + 1);
    out->targets = ARENA_ARRAY(arena, struct environment_target, json_count(targets) + 1);
    while (json_next(&it, NULL, &item)) {
        size_t i = model->target_count++;
        out->targets[i] = (struct environment_target){
            .provider = json_str_or(item, S("provider"), STR_NONE),
            .model = json_str_or(item, S("model"), STR_NONE),
            .is_stand_in = json_bool_or(item, S("stand_in"), false),
        };
        model->targets[i] = (struct model_target){
            .model = out->targets[i].model,
            .variant = json_str_or(item, S("variant"), STR_NONE),
            .weight = 1,
            .price = read_price(item),
            .context_tokens_max = json_i64_or(item, S("context_tokens"), 0),
        };
    }
}

static int64_t number_at(const struct json *list, size_t index)
{
    int64_t value = 0;
    (void) json_to_i64(json_at(list, index), &value);
    return value;
}

static void read_links(struct arena *arena, const struct json *list, struct run_environment *out)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    struct agent_link *links = ARENA_ARRAY(arena, struct agent_link, json_count(list) + 1);
    out->others = ARENA_ARRAY(arena, struct agent_definition, json_count(list) + 1);
    while (json_next(&it, NULL, &item)) {
        size_t i = out->agent.agent_count++;
        links[i] = (struct agent_link){
            .name = json_str_or(item, S("name"), STR_NONE),
            .description = json_str_or(item, S("description"), STR_NONE),
            .is_handoff = json_bool_or(item, S("handoff"), false),
            .is_sticky = json_bool_or(item, S("sticky"), false),
            .budget = COST_LIMITLESS,
        };
        (void) cost_read_json(json_get(item, S("budget")), &links[i].budget);
        out->others[i] = (struct agent_definition){
            .name = links[i].name,
            .version = json_str_or(item, S("version"), STR_NONE),
            .description = json_str_or(item, S("about"), STR_NONE),
            .model = json_str_or(item, S("model"), STR_NONE),
            .instructions = json_str_or(item, S("instructions"), STR_NONE),
            .steps_max = 1,
            .run_timeout_ms = out->agent.run_timeout_ms};
        out->others[i].tool_count =
            read_names(arena, json_get(item, S("tools")), &out->others[i].tools);
    }
    out->agent.agents = links;
}

static void read_agent(struct arena *arena, const struct json *json, struct agent_definition *out)
{
    str *pinned;
    size_t pinned_count = read_names(arena, json_get(json, S("pinned")), &pinned);
    *out = (struct agent_definition){
        .name = json_str_or(json, S("name"), STR_NONE),
        .version = json_str_or(json, S("version"), STR_NONE),
        .model = json_str_or(json, S("model"), STR_NONE),
        .instructions = json_str_or(json, S("instructions"), STR_NONE),
        .steps_max = (int) json_i64_or(json, S("steps_max"), 1),
        .run_timeout_ms = json_i64_or(json, S("run_timeout_ms"), 0),
        .max_output_tokens = json_i64_or(json, S("max_output_tokens"), 0),
    };
    const struct json *limits = json_get(json, S("limits"));
    out->limits = (struct agent_limits){.tokens_per_minute = number_at(limits, 0),
                                        .cost_per_minute_nanousd = number_at(limits, 1),
                                        .same_action_warn = number_at(limits, 2),
                                        .same_action_max = number_at(limits, 3),
                                        .wind_down_tokens = number_at(limits, 4)};
    out->tool_count = read_names(arena, json_get(json, S("tools")), &out->tools);
    struct agent_tool *details = ARENA_ARRAY(arena, struct agent_tool, out->tool_count + 1);
    for (size_t i = 0; i < out->tool_count; i++)
        for (size_t k = 0; k < pinned_count; k++)
            details[i].is_pinned = details[i].is_pinned || str_equal(out->tools[i], pinned[k]);
    out->tool_details = details;
}

static digest read_digest(const struct json *json, const char *member)
{
    digest out = {0};
    str hex = json_str_or(json, str_from_cstr(member), STR_NONE);
    for (size_t i = 0; i + 1 < hex.len && i / 2 < sizeof out.bytes; i += 2) {
        int high = hex.ptr[i] <= '9' ? hex.ptr[i] - '0' : hex.ptr[i] - 'a' + 10;
        int low = hex.ptr[i + 1] <= '9' ? hex.ptr[i + 1] - '0' : hex.ptr[i + 1] - 'a' + 10;
        out.bytes[i / 2] = (uint8_t) (high << 4 | low);
    }
    return out;
}

static bool read_permissions(struct arena *arena, const struct json *json, struct permissions *out,
                             struct error *e)
{
    struct yaml_document document;
    return yaml_parse(arena, S("permissions"), json_print(arena, json), &document, e) &&
           permissions_read(arena, &document, document.root, out, e);
}

static bool read_tool(struct arena *arena, const struct json *json, struct tool *out,
                      struct error *e)
{
    const struct json *limits = json_get(json, S("limits"));
    *out = (struct tool){
        .name = json_str_or(json, S("name"), STR_NONE),
        .version = json_str_or(json, S("version"), STR_NONE),
        .category = json_str_or(json, S("category"), STR_NONE),
        .description = json_str_or(json, S("description"), STR_NONE),
        .input_schema = json_print(arena, json_get(json, S("input_schema"))),
        .output_schema = json_print(arena, json_get(json, S("output_schema"))),
        .abi = (enum tool_abi) json_i64_or(json, S("abi"), TOOL_ABI_NEXUS_EXPORT),
        .source = (enum tool_source) json_i64_or(json, S("source"), TOOL_SHIPPED),
        .source_name = json_str_or(json, S("source_name"), STR_NONE),
        .limits = {.fuel = (uint64_t) number_at(limits, 0),
                   .time_ms = number_at(limits, 1),
                   .memory_bytes = (size_t) number_at(limits, 2),
                   .output_bytes = (size_t) number_at(limits, 3),
                   .table_elements = (uint32_t) number_at(limits, 4)},
        .is_pure = json_bool_or(json, S("pure"), false),
        .is_idempotent = json_bool_or(json, S("idempotent"), false),
        .is_output_public = json_bool_or(json, S("output_public"), false),
        .is_output_trusted = json_bool_or(json, S("output_trusted"), false),
        .is_sink = json_bool_or(json, S("sink"), true),
        .module_digest = read_digest(json, "digest"),
        .identity = read_digest(json, "identity"),
        .notebooks = {.is_enabled = json_bool_or(json, S("notebooks"), false)},
    };
    out->host_call_count = read_names(arena, json_get(json, S("host_calls")), &out->host_calls);
    return !str_is_empty(out->name) &&
           read_permissions(arena, json_get(json, S("permissions")), &out->permissions, e);
}

static void read_containment(struct arena *arena, const struct json *json, struct containment *out)
{
    const struct json *rules = json_get(json, S("rules")), *item;
    struct json_iter it = json_iter(rules);
    struct containment_rule *made =
        ARENA_ARRAY(arena, struct containment_rule, json_count(rules) + 1);
    str *inside;
    *out = (struct containment){
        .mode = (enum containment_mode) json_i64_or(json, S("mode"), CONTAINMENT_ENFORCE),
        .payloads = (enum containment_payloads) json_i64_or(json, S("payloads"), PAYLOADS_MASK),
        .links_max = json_i64_or(json, S("links_max"), 0),
        .approvals_max = json_i64_or(json, S("approvals_max"), 0),
        .keeps_links = json_bool_or(json, S("keeps_links"), false),
        .rules = made,
    };
    out->inside_count = read_names(arena, json_get(json, S("inside")), &inside);
    out->inside = inside;
    while (json_next(&it, NULL, &item))
        made[out->rule_count++] = (struct containment_rule){
            .name = json_str_or(item, S("name"), STR_NONE),
            .tool = json_str_or(item, S("tool"), STR_NONE),
            .category = json_str_or(item, S("category"), STR_NONE),
            .host = json_str_or(item, S("host"), STR_NONE),
            .agent = json_str_or(item, S("agent"), STR_NONE),
            .when = (enum containment_when) json_i64_or(item, S("when"), CONTAINMENT_ALWAYS),
            .verdict = (enum containment_verdict) json_i64_or(item, S("verdict"), CONTAINMENT_DENY),
        };
}

bool run_environment_read(struct arena *arena, const struct json *json, struct run_environment *out,
                          struct error *e)
{
    const struct json *tools = json_get(json, S("tools")), *item,
                      *settings = json_get(json, S("settings"));
    struct json_iter it = json_iter(tools);
    *out = (struct run_environment){
        .call_timeout_ms = json_i64_or(settings, S("call_timeout_ms"), 0),
        .approval_expiry_ms = json_i64_or(settings, S("approval_expiry_ms"), 0),
    };
    read_agent(arena, json_get(json, S("agent")), &out->agent);
    read_links(arena, json_get(json_get(json, S("agent")), S("agents")), out);
    read_model(arena, json_get(json, S("model")), out);
    read_containment(arena, json_get(settings, S("containment")), &out->containment);
    out->offered_count = read_names(arena, json_get(json, S("offered")), &out->offered);
    out->tools = ARENA_ARRAY(arena, struct tool, json_count(tools) + 1);
    while (json_next(&it, NULL, &item))
        if (!read_tool(arena, item, &out->tools[out->tool_count++], e))
            return error_wrap(e, "a tool of the run's environment");
    return (!str_is_empty(out->agent.name) && !str_is_empty(out->model.name)) ||
           error_set(e, REASON_INVALID, "the run's environment names no agent or no model");
}
