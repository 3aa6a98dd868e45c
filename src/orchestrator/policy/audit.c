#include "orchestrator/policy/audit.h"
#include "base/arena.h"
#include "runtime/clock.h"

/* writer, seq, prev_hash and hash are the back end's: it fills them at commit. */
void audit_add(struct batch *batch, struct clock *clock, struct random *random,
               const struct principal *principal, const struct audit_entry *entry)
{
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_AUDIT_LOGS);
    record_set_uuid(row, AUDIT_LOGS_ID, uuid_new(clock, random));
    record_set_text(row, AUDIT_LOGS_USER_ID, principal->user_id);
    record_set_text(row, AUDIT_LOGS_ACTION, entry->action);
    record_set_text(row, AUDIT_LOGS_RESOURCE_TYPE, entry->resource_type);
    if (!str_is_empty(entry->resource_id))
        record_set_text(row, AUDIT_LOGS_RESOURCE_ID, entry->resource_id);
    if (!str_is_empty(principal->ip_address))
        record_set_text(row, AUDIT_LOGS_IP_ADDRESS, principal->ip_address);
    if (!str_is_empty(principal->user_agent))
        record_set_text(row, AUDIT_LOGS_USER_AGENT, principal->user_agent);
    record_set_integer(row, AUDIT_LOGS_CREATED_AT, clock_unix_us(clock));
    bool is_acting =
        !str_is_empty(principal->caller_id) && !str_equal(principal->caller_id, principal->user_id);
    if (str_is_empty(entry->details) && !is_acting)
        return;
    if (!is_acting) {
        record_set_text(row, AUDIT_LOGS_DETAILS, entry->details);
        return;
    }
    /* Both identities are audited. */
    struct strbuf details;
    struct json_writer w;
    strbuf_init(&details, batch->arena, 64 << 10);
    json_writer_init(&w, &details);
    json_object_begin(&w);
    json_put_str(&w, S("acting_principal"), principal->caller_id);
    if (!str_is_empty(entry->details))
        json_put_raw(&w, S("details"), entry->details);
    json_object_end(&w);
    record_set_text(row, AUDIT_LOGS_DETAILS, strbuf_str(&details));
}
