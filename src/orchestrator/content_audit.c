#include "orchestrator/content_audit.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"

static void not_stored(const struct batch_notice *notice, const struct error *why)
{
    (void) notice;
    LOG_WARN("orchestrator.content", S("findings of the content filter are not in the audit log"),
             LOG_STR("error.message", str_from_cstr(why->message)));
}

static void put_id(struct json_writer *w, str name, uuid id)
{
    if (!uuid_is_none(id))
        json_put_str(w, name, uuid_str(w->out->arena, id));
}

static str details_of(struct arena *arena, const struct content_audit *about,
                      const struct guard_tally *tally, enum guard_direction direction)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, CONTENT_AUDIT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("direction"), direction == GUARD_REQUEST ? S("request") : S("answer"));
    put_id(&w, S("call_id"), about->call_id);
    put_id(&w, S("run_id"), about->run_id);
    put_id(&w, S("session_id"), about->session_id);
    put_id(&w, S("key_id"), about->key_id);
    guard_tally_write(tally, direction, &w);
    json_object_end(&w);
    return strbuf_str(&text);
}

void content_audit_post(struct orchestrator *o, const struct content_audit *about,
                        struct guard_tally *tally)
{
    const struct orchestrator_parts *parts = orchestrator_parts(o);
    struct error e = {0};
    if (tally->item_count == 0)
        return;
    OWNED(arena) arena = arena_create(0);
    struct batch batch;
    batch_init(&batch, arena, about->principal->tenant_id);
    batch.fault = "";
    batch.notice = (struct batch_notice){.failed = not_stored};
    for (enum guard_direction way = 0; way < GUARD_DIRECTION_COUNT; way++) {
        enum filter_action action = guard_tally_action(tally, way);
        if (action != FILTER_BLOCK && action != FILTER_MASK)
            continue;
        audit_add(&batch, parts->clock, parts->random, about->principal,
                  &(struct audit_entry){
                      .action = action == FILTER_BLOCK ? S("content.blocked") : S("content.masked"),
                      .resource_type = S("model"),
                      .resource_id = about->model,
                      .details = details_of(arena, about, tally, way),
                  });
    }
    if (batch.count > 0 && !store_submit(parts->store, &batch, &e))
        not_stored(&batch.notice, &e);
    guard_tally_deinit(tally);
}
