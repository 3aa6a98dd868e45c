/* Entries: what stands in LEDGER of a settlement. */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger_internal.h"

static str run_path_text(struct arena *arena, const struct ledger_extra *extra)
{
    struct strbuf text;
    strbuf_init(&text, arena, (UUID_TEXT_BYTES + 1) * RUN_CHILD_DEPTH_MAX);
    for (int i = extra->above_count; i > 0; i--) {
        char id[UUID_TEXT_BYTES + 1];
        uuid_format(extra->above_ids[i - 1], id);
        if (text.len > 0)
            strbuf_add(&text, S("/"));
        strbuf_add(&text, str_of(id, UUID_TEXT_BYTES));
    }
    return strbuf_str(&text);
}

static const int entry_columns[] = {LEDGER_TOKENS, LEDGER_TIME_MS, LEDGER_NANOUSD,
                                    LEDGER_TOOL_CALLS};

void ledger_add_entry(struct ledger *ledger, struct batch *batch, const struct ledger_path *path,
                      const struct settlement *settlement)
{
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_LEDGER);
    record_set_uuid(row, LEDGER_ID, uuid_new(ledger->clock, ledger->random));
    record_set_integer(row, LEDGER_AT, settlement->at_us);
    record_set_text(row, LEDGER_USER_ID, path->user_id);
    if (!uuid_is_none(path->key_id))
        record_set_uuid(row, LEDGER_KEY_ID, path->key_id);
    if (!uuid_is_none(path->session_id))
        record_set_uuid(row, LEDGER_SESSION_ID, path->session_id);
    if (!uuid_is_none(path->run_id))
        record_set_uuid(row, LEDGER_RUN_ID, path->run_id);
    if (path->extra && path->extra->above_count > 0)
        record_set_text(row, LEDGER_RUN_PATH, run_path_text(batch->arena, path->extra));
    record_set_text(row, LEDGER_KIND, str_from_cstr(settlement->kind));
    bool is_beyond = !cost_fits(settlement->used, settlement->reserved);
    record_set_text(row, LEDGER_BASIS,
                    is_beyond ? S("overdraft") : str_from_cstr(settlement->basis));
    if (!str_is_empty(settlement->model))
        record_set_text(row, LEDGER_MODEL, settlement->model);
    record_set_integer(row, LEDGER_TOKENS, settlement->used.tokens);
    record_set_integer(row, LEDGER_TIME_MS, settlement->used.time_ms);
    record_set_integer(row, LEDGER_NANOUSD, settlement->used.cost_nanousd);
    record_set_integer(row, LEDGER_TOOL_CALLS, settlement->used.tool_calls);
    if (!str_is_empty(settlement->details))
        record_set_text(row, LEDGER_DETAILS, settlement->details);
}

/* A pure step's call is settled in the commit of the one before it: what differs in nothing but the amount is one entry. */
static bool is_entry_of(const struct record *row, const struct ledger_path *path,
                        const struct settlement *settlement)
{
    return row->table == TABLE_LEDGER && record_has(row, LEDGER_RUN_ID) &&
           uuid_equal(record_uuid(row, LEDGER_RUN_ID), path->run_id) &&
           !record_has(row, LEDGER_MODEL) && !record_has(row, LEDGER_DETAILS) &&
           str_equal(record_text(row, LEDGER_KIND), str_from_cstr(settlement->kind)) &&
           str_equal(record_text(row, LEDGER_BASIS), str_from_cstr(settlement->basis));
}

static struct record *find_entry(const struct batch *batch, const struct ledger_path *path,
                                 const struct settlement *settlement)
{
    if (uuid_is_none(path->run_id) || !str_is_empty(settlement->model) ||
        !str_is_empty(settlement->details) || !cost_fits(settlement->used, settlement->reserved))
        return NULL;
    for (size_t i = 0; i < batch->count && i < LEDGER_MERGE_ROWS_MAX; i++)
        if (batch->writes[i].op == WRITE_INSERT &&
            is_entry_of(&batch->writes[i].record, path, settlement))
            return &batch->writes[i].record;
    return NULL;
}

void ledger_settle_entry(struct ledger *ledger, struct batch *batch, const struct ledger_path *path,
                         const struct settlement *settlement, bool may_merge)
{
    struct record *row = may_merge ? find_entry(batch, path, settlement) : NULL;
    if (!row) {
        ledger_add_entry(ledger, batch, path, settlement);
        return;
    }
    cost sum = cost_add(account_get_cost(row, entry_columns), settlement->used);
    account_set_cost(row, entry_columns, sum);
}
