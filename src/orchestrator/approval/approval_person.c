/* Who is behind a word, and what they may do. */
#include "base/arena.h"
#include "orchestrator/approval_internal.h"

/* ---- sets of persons ---- */

bool persons_hold(const struct persons *persons, str name)
{
    for (size_t i = 0; i < persons->count; i++)
        if (str_equal(persons->items[i], name))
            return true;
    return false;
}

bool persons_add(struct persons *persons, str name, struct error *e)
{
    if (str_is_empty(name) || persons_hold(persons, name))
        return true;
    if (persons->count == APPROVAL_PERSONS_MAX)
        return error_set(e, REASON_LIMIT, "more than %u persons are behind this approval",
                         APPROVAL_PERSONS_MAX);
    persons->items[persons->count++] = name;
    return true;
}

str persons_json(struct arena *arena, const struct persons *persons)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, APPROVAL_PERSONS_MAX * (6 * APPROVAL_PERSON_BYTES_MAX + 4));
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (size_t i = 0; i < persons->count; i++)
        json_write_str(&w, persons->items[i]);
    json_array_end(&w);
    return strbuf_str(&text);
}

bool persons_read(struct arena *arena, str text, struct persons *persons, struct error *e)
{
    const struct json *list, *item;
    str name;
    if (str_is_empty(text))
        return true;
    if (!json_parse(arena, text, (struct json_limits){0}, &list, e) ||
        json_type(list) != JSON_ARRAY)
        return error_set(e, REASON_CORRUPT, "a list of persons cannot be read");
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item)) {
        if (!json_to_str(item, &name))
            return error_set(e, REASON_CORRUPT, "a list of persons holds something else");
        if (!persons_add(persons, name, e))
            return false;
    }
    return true;
}

/* ---- parties ---- */

bool approval_is_party(const struct record *approval, str person)
{
    return str_equal(person, record_text(approval, APPROVALS_USER_ID)) ||
           str_equal(person, record_text(approval, APPROVALS_REQUESTED_BY));
}

bool approval_check_parties(const struct record *approval, const struct persons *persons,
                            struct error *e)
{
    for (size_t i = 0; i < persons->count; i++)
        if (approval_is_party(approval, persons->items[i]))
            return error_set(e, REASON_SELF_APPROVAL,
                             "a key that the requester made, or had a hand in, may not approve");
    return true;
}

/* ---- keys ---- */

/* The platform itself made the very first key: that is nobody's favour. */
bool approval_key_makers(struct arena *arena, const struct record *row, struct persons *makers,
                         struct error *e)
{
    str maker = record_text(row, API_KEYS_CREATED_BY);
    return (str_equal(maker, S("system")) || persons_add(makers, maker, e)) &&
           persons_read(arena, record_text(row, API_KEYS_MINTERS), makers, e);
}

bool approval_makers_of(struct orchestrator *o, struct context *ctx,
                        const struct principal *principal, struct persons *makers, struct error *e)
{
    if (uuid_is_none(principal->key_id))
        return true;
    struct record key = record_of(TABLE_API_KEYS), *row = ARENA_NEW(ctx->arena, struct record);
    record_set_uuid(&key, API_KEYS_ID, principal->key_id);
    if (!store_get(o->parts.store, ctx, principal->tenant_id, &key, row, e))
        return error_wrap(e, "the key that approves");
    if (record_has(row, API_KEYS_REVOKED_AT))
        return error_set(e, REASON_UNAUTHENTICATED, "the key has been revoked");
    return persons_add(makers, record_text(row, API_KEYS_USER_ID), e) &&
           approval_key_makers(ctx->arena, row, makers, e);
}

bool approval_check_credential(const struct principal *principal, struct error *e)
{
    if (principal->is_run)
        return error_set(e, REASON_DENIED, "runs and tools approve nothing: a person must");
    if (!str_is_empty(principal->caller_id) && !str_equal(principal->caller_id, principal->user_id))
        return error_set(e, REASON_DENIED,
                         "approvals are decided in one's own name, not while acting for another");
    return true;
}

bool approval_may_decide(const struct principal *principal)
{
    return principal->level >= ROLE_LEVEL_OPERATOR || (principal->scopes & SCOPE_APPROVE);
}

/* ---- persons who are not here themselves ---- */

static bool holds_approve(struct arena *arena, str scopes)
{
    const struct json *list, *item;
    struct error unread = {0};
    str name;
    if (!json_parse(arena, scopes, (struct json_limits){0}, &list, &unread))
        return false;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &name) && str_equal(name, S("approve")))
            return true;
    return false;
}

/* A key of the person, good now, that no party had a hand in, with the right to decide this. */
static bool key_may(struct orchestrator *o, struct arena *arena, const struct record *row,
                    const struct record *approval)
{
    enum role_level level;
    struct error unread = {0};
    str role = record_text(row, API_KEYS_ROLE), person = record_text(row, API_KEYS_USER_ID);
    int64_t expires_us = record_integer(row, API_KEYS_EXPIRES_AT);
    if (record_has(row, API_KEYS_REVOKED_AT) || !role_level_parse(role, &level) ||
        (expires_us != 0 && expires_us <= clock_unix_us(o->parts.clock)))
        return false;
    if (level < ROLE_LEVEL_OPERATOR && !holds_approve(arena, record_text(row, API_KEYS_SCOPES)))
        return false;
    if (!approval)
        return true;
    struct persons *makers = ARENA_NEW(arena, struct persons);
    return approval_key_makers(arena, row, makers, &unread) &&
           approval_check_parties(approval, makers, &unread) &&
           approval_rule_names(arena, record_text(approval, APPROVALS_APPROVERS), person, role);
}

bool approval_person_may(struct orchestrator *o, struct context *ctx, uuid tenant_id, str person,
                         const struct record *approval, bool *may, struct error *e)
{
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    size_t seen = 0;
    *query = query_of(TABLE_API_KEYS);
    query_where_text(query, API_KEYS_USER_ID, person);
    query_where_null(query, API_KEYS_REVOKED_AT, true);
    *may = false;
    do {
        struct records rows;
        if (!store_list(o->parts.store, ctx, tenant_id, query, &rows, e))
            return false;
        for (size_t i = 0; i < rows.count && !*may; i++)
            *may = key_may(o, ctx->arena, &rows.items[i], approval);
        seen += rows.count;
        query->cursor = rows.next_cursor;
    } while (!*may && !str_is_empty(query->cursor) && seen < APPROVAL_KEYS_MAX);
    return true;
}

/* ---- delegations to the one who is here ---- */

bool approval_delegations_to(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, struct records *out,
                             struct error *e)
{
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *out = (struct records){0};
    struct error nobody = {0};
    if (!approval_check_credential(principal, &nobody))
        return true;
    *query = query_of(TABLE_APPROVAL_DELEGATIONS);
    query_where_text(query, APPROVAL_DELEGATIONS_TO_USER, principal->user_id);
    query_where_integer(query, APPROVAL_DELEGATIONS_EXPIRES_AT, FILTER_GREATER,
                        clock_unix_us(o->parts.clock));
    query->limit = APPROVAL_DELEGATIONS_MAX;
    return store_list(o->parts.store, ctx, principal->tenant_id, query, out, e);
}
