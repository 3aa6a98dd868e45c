#include "base/arena.h"
#include "orchestrator/replay/backtest_internal.h"

/* A group or an action that is misspelt would be a filter that finds nothing. */
static bool check_members(const struct json *filter, str where, bool has_rules, struct error *e)
{
    struct json_iter it = json_iter(filter);
    const struct json *value;
    str name;
    if (json_type(filter) != JSON_OBJECT)
        return error_set(e, REASON_CONFIG, STR_FMT ": must be an object", STR_ARG(where));
    while (json_next(&it, &name, &value)) {
        bool is_known =
            has_rules && (str_equal(name, S("groups")) || str_equal(name, S("rules")) ||
                          str_equal(name, S("name")) || str_equal(name, S("direction")));
        for (int i = 0; i < FILTER_GROUP_COUNT && !is_known; i++)
            is_known = str_equal(name, str_from_cstr(filter_group_name((enum filter_group) i)));
        if (!is_known)
            return error_set(e, REASON_CONFIG,
                             STR_FMT ": unknown member \"" STR_FMT
                                     "\"; known are: secrets pii injection%s",
                             STR_ARG(where), STR_ARG(str_cut_utf8(name, 40)),
                             has_rules ? " groups rules name direction" : "");
    }
    return true;
}

static bool read_groups(const struct json *filter, struct filter_options *options, struct error *e)
{
    const struct json *groups = json_get(filter, S("groups"));
    if (!check_members(filter, S("filter"), true, e) ||
        (groups && !check_members(groups, S("filter.groups"), false, e)))
        return false;
    for (int i = 0; i < FILTER_GROUP_COUNT; i++) {
        str group = str_from_cstr(filter_group_name((enum filter_group) i));
        str action = json_str_or(groups ? groups : filter, group, S("off"));
        if (!filter_action_parse(action, &options->groups[i]))
            return error_set(e, REASON_CONFIG, "filter: \"" STR_FMT "\" is no action",
                             STR_ARG(action));
    }
    return true;
}

bool backtest_filter_read(struct backtest *b, const struct json *filter, struct error *e)
{
    const struct json *list = json_get(filter, S("rules")), *item;
    struct json_iter it = json_iter(list);
    struct filter_rule *rules = ARENA_ARRAY(b->arena, struct filter_rule, json_count(list) + 1);
    struct filter_options options = {.rules = rules};
    if (!read_groups(filter, &options, e))
        return false;
    while (json_next(&it, NULL, &item)) {
        struct filter_rule *rule = &rules[options.rule_count++];
        str action = json_str_or(item, S("action"), S("flag"));
        *rule = (struct filter_rule){
            .name = json_str_or(item, S("name"), STR_NONE),
            .pattern = json_str_or(item, S("pattern"), STR_NONE),
            .group = json_str_or(item, S("group"), STR_NONE),
        };
        if (!filter_action_parse(action, &rule->action))
            return error_set(e, REASON_CONFIG, "filter: \"" STR_FMT "\" is no action",
                             STR_ARG(action));
        if (!filter_rule_check(rule, e))
            return false;
    }
    return filter_set_create(&options, &b->filter, e);
}

struct finding {
    struct backtest *b;
    str role;
    bool is_masked, is_flagged;
};

static void found(void *owner, const struct filter_finding *finding)
{
    struct finding *f = owner;
    struct tally *line =
        backtest_tally(f->b, &f->b->filter_result.rules, finding->group, finding->rule,
                       str_from_cstr(filter_action_name(finding->action)), f->role);
    f->is_masked = f->is_masked || finding->action == FILTER_MASK;
    f->is_flagged = f->is_flagged || finding->action == FILTER_FLAG;
    if (line)
        line->count++;
}

static void add_example(struct backtest *b, const struct record *message, const char *what)
{
    struct strbuf text;
    struct json_writer w;
    size_t *count = &b->filter_result.example_count;
    if (*count == BACKTEST_EXAMPLES_MAX)
        return;
    strbuf_init(&text, b->arena, 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w); /* where it is, never what it says */
    json_put_str(&w, S("message_id"), uuid_str(b->arena, record_uuid(message, MESSAGES_ID)));
    json_put_str(&w, S("session_id"),
                 uuid_str(b->arena, record_uuid(message, MESSAGES_SESSION_ID)));
    json_put_str(&w, S("role"), record_text(message, MESSAGES_ROLE));
    json_put_str(&w, S("would_be"), str_from_cstr(what));
    json_object_end(&w);
    b->filter_result.examples[(*count)++].text = strbuf_str(&text);
}

void backtest_message(struct backtest *b, const struct record *message)
{
    str content = record_text(message, MESSAGES_CONTENT);
    struct finding f = {.b = b, .role = record_text(message, MESSAGES_ROLE)};
    struct strbuf out;
    arena_mark mark = arena_save(b->ctx->arena);
    strbuf_init(&out, b->ctx->arena, filter_room(content.len));
    struct filter_sink sink = {.out = &out, .found = found, .owner = &f};
    b->filter_result.texts++;
    bool is_passed = filter_text(b->filter, content, &sink);
    arena_rewind(b->ctx->arena, mark);
    b->filter_result.blocked += !is_passed;
    b->filter_result.masked += is_passed && f.is_masked;
    b->filter_result.flagged += is_passed && !f.is_masked && f.is_flagged;
    if (!is_passed || f.is_masked || f.is_flagged)
        add_example(b, message, !is_passed ? "blocked" : f.is_masked ? "masked" : "flagged");
}

void backtest_filter_write(const struct backtest *b, struct json_writer *w)
{
    json_key(w, S("filter"));
    json_object_begin(w);
    json_put_i64(w, S("texts"), b->filter_result.texts);
    json_put_i64(w, S("blocked"), b->filter_result.blocked);
    json_put_i64(w, S("masked"), b->filter_result.masked);
    json_put_i64(w, S("flagged"), b->filter_result.flagged);
    json_key(w, S("rules"));
    json_array_begin(w);
    for (size_t i = 0; i < b->filter_result.rules.count; i++) {
        const struct tally *line = &b->filter_result.rules.items[i];
        json_object_begin(w);
        json_put_str(w, S("group"), line->key[0]);
        json_put_str(w, S("rule"), line->key[1]);
        json_put_str(w, S("action"), line->key[2]);
        json_put_str(w, S("role"), line->key[3]);
        json_put_i64(w, S("findings"), line->count);
        json_object_end(w);
    }
    json_array_end(w);
    json_key(w, S("examples"));
    json_array_begin(w);
    for (size_t i = 0; i < b->filter_result.example_count; i++)
        json_write_raw(w, b->filter_result.examples[i].text);
    json_array_end(w);
    json_object_end(w);
}
