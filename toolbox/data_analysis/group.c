/*
 * Group: one row for each distinct combination of the key columns, in order of first appearance, with its
 * aggregates.  Without keys there is exactly one row, even over no rows at all.
 */
#include <stdio.h>
#include <string.h>

#include "accumulate.h"

enum { FIRST_SLOTS = 64 };

struct entry {
    uint64_t hash;
    struct cell *keys;
    struct accumulator *accumulators;
};

struct group {
    struct stage base;
    size_t *keys;
    size_t key_count;
    struct aggregate *aggregates;
    size_t aggregate_count;
    struct accumulate_limits limits;
    struct entry *entries; /* in order of appearance */
    size_t entry_count, entry_capacity;
    uint32_t *slots; /* entry index + 1, by hash */
    uint32_t slot_count;
};

static void rehash(struct group *group)
{
    group->slot_count = group->slot_count == 0 ? FIRST_SLOTS : group->slot_count * 2;
    group->slots = tool_realloc(group->slots, group->slot_count * sizeof *group->slots);
    memset(group->slots, 0, group->slot_count * sizeof *group->slots);
    for (uint32_t n = 0; n < group->entry_count; n++) {
        uint32_t i = (uint32_t) group->entries[n].hash & (group->slot_count - 1);
        while (group->slots[i] != 0)
            i = (i + 1) & (group->slot_count - 1);
        group->slots[i] = n + 1;
    }
}

static struct entry *add_entry(struct group *group, const struct row *row, uint64_t hash,
                               struct tool_error *e)
{
    struct pool *pool = &group->base.query->pool;
    if (group->entry_count >= GROUPS_MAX ||
        (group->entry_count + 1) * group->aggregate_count > ACCUMULATORS_MAX) {
        tool_fail(e, "limit",
                  "group_by makes more than %d groups (or %d aggregates in all); group by fewer or "
                  "coarser "
                  "columns, or filter first",
                  GROUPS_MAX, ACCUMULATORS_MAX);
        return NULL;
    }
    if (group->entry_count == group->entry_capacity) {
        group->entry_capacity = group->entry_capacity == 0 ? 16 : group->entry_capacity * 2;
        group->entries =
            tool_realloc(group->entries, group->entry_capacity * sizeof *group->entries);
    }
    struct entry *entry = &group->entries[group->entry_count];
    entry->hash = hash;
    entry->keys = pool_alloc(pool, group->key_count * sizeof *entry->keys);
    size_t bytes = group->aggregate_count * sizeof *entry->accumulators;
    entry->accumulators = pool_alloc(pool, bytes);
    bool ok = entry->keys != NULL && entry->accumulators != NULL;
    for (size_t i = 0; ok && i < group->key_count; i++)
        ok = cell_keep(pool, row_cell(row, group->keys[i]), &entry->keys[i]);
    if (!ok) {
        fail_pool(e);
        return NULL;
    }
    memset(entry->accumulators, 0, bytes);
    group->entry_count++;
    return entry;
}

static bool has_keys(const struct group *group, const struct entry *entry, const struct row *row)
{
    for (size_t i = 0; i < group->key_count; i++)
        if (!cell_equal(&entry->keys[i], row_cell(row, group->keys[i])))
            return false;
    return true;
}

static struct entry *find_entry(struct group *group, const struct row *row, struct tool_error *e)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < group->key_count; i++)
        hash = cell_hash(row_cell(row, group->keys[i]), hash);
    if (group->entry_count * 2 >= group->slot_count)
        rehash(group);
    uint32_t i = (uint32_t) hash & (group->slot_count - 1);
    for (; group->slots[i] != 0; i = (i + 1) & (group->slot_count - 1)) {
        struct entry *entry = &group->entries[group->slots[i] - 1];
        if (entry->hash == hash && has_keys(group, entry, row))
            return entry;
    }
    struct entry *entry = add_entry(group, row, hash, e);
    if (entry != NULL)
        group->slots[i] = (uint32_t) group->entry_count;
    return entry;
}

static enum flow group_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    struct group *group = (struct group *) stage;
    struct entry *entry = find_entry(group, row, e);
    if (entry == NULL)
        return FLOW_FAIL;
    for (size_t i = 0; i < group->aggregate_count; i++)
        if (!accumulator_add(&entry->accumulators[i], &group->aggregates[i], row, &group->limits,
                             &stage->query->pool, e))
            return FLOW_FAIL;
    return FLOW_MORE;
}

/* Tells what was left out of the figures; nothing but text is an error, for the figure would be empty. */
static bool report(struct group *group, struct tool_error *e)
{
    for (size_t i = 0; i < group->aggregate_count; i++) {
        const struct aggregate *a = &group->aggregates[i];
        if (a->text_count > 0 && a->number_count == 0)
            return tool_fail(e, "invalid_input",
                             "%s needs numbers, but the column of \"" TEXT_FMT
                             "\" holds only text, such as \"%s\" at line %llu",
                             aggregate_names[a->operation], TEXT_ARG(a->name), a->text_sample,
                             (unsigned long long) a->text_line);
        if (a->text_count > 0)
            query_note(group->base.query,
                       TEXT_FMT
                       ": %llu values are not numbers and were left out, first \"%s\" at line %llu",
                       TEXT_ARG(a->name), (unsigned long long) a->text_count, a->text_sample,
                       (unsigned long long) a->text_line);
        if (a->has_overflow)
            query_note(group->base.query,
                       TEXT_FMT ": the sum passed 64 bits and is a rounded real number",
                       TEXT_ARG(a->name));
    }
    return true;
}

static enum flow group_finish(struct stage *stage, struct tool_error *e)
{
    struct group *group = (struct group *) stage;
    struct row empty = {0};
    if (group->key_count == 0 && group->entry_count == 0 && find_entry(group, &empty, e) == NULL)
        return FLOW_FAIL;
    if (!report(group, e))
        return FLOW_FAIL;
    struct cell *cells = tool_alloc(stage->schema.count * sizeof *cells);
    for (size_t n = 0; n < group->entry_count; n++) {
        struct entry *entry = &group->entries[n];
        memcpy(cells, entry->keys, group->key_count * sizeof *cells);
        for (size_t i = 0; i < group->aggregate_count; i++)
            accumulator_result(&entry->accumulators[i], &group->aggregates[i],
                               &cells[group->key_count + i]);
        struct row row = {.schema = &stage->schema, .cells = cells, .line = n + 1};
        enum flow flow = stage_emit(stage, &row, e);
        if (flow != FLOW_MORE)
            return flow;
    }
    return FLOW_MORE;
}

static bool default_name(struct aggregate *a, struct text column, struct pool *pool)
{
    const char *operation = aggregate_names[a->operation];
    size_t len = strlen(operation);
    if (!a->has_column) {
        a->name = (struct text){operation, len};
        return true;
    }
    char *name = pool_alloc(pool, len + 1 + column.len);
    if (name == NULL)
        return false;
    memcpy(name, operation, len);
    name[len] = '_';
    memcpy(name + len + 1, column.ptr, column.len);
    a->name = (struct text){name, len + 1 + column.len};
    return true;
}

static bool read_aggregate(struct group *group, const struct schema *in, yyjson_val *from,
                           struct aggregate *out, struct tool_error *e)
{
    struct text operation, column = {"", 0};
    if (!yyjson_is_obj(from))
        return tool_fail(e, "invalid_input",
                         "aggregate: each item is an object {op, column?, as?}");
    if (!tool_text(from, "op", &operation, e) || !tool_text_or(from, "column", column, &column, e))
        return false;
    int found = text_equal(operation, TEXT("avg")) ? AGGREGATE_MEAN
                                                   : tool_choice(operation, aggregate_names);
    if (found < 0) {
        char known[200];
        tool_list(aggregate_names, known, sizeof known);
        return tool_fail(e, "invalid_input",
                         "aggregate: unknown op \"" TEXT_FMT "\"; use one of %s",
                         TEXT_ARG(operation), known);
    }
    out->operation = (enum aggregate_operation) found;
    out->has_column = column.len > 0 && !text_equal(column, TEXT("*"));
    if (!out->has_column && out->operation != AGGREGATE_COUNT)
        return tool_fail(e, "invalid_input", "aggregate: %s needs a \"column\"",
                         aggregate_names[found]);
    if (out->has_column && !schema_find(in, column, &out->column, e))
        return false;
    if (!default_name(out, column, &group->base.query->pool)) {
        fail_pool(e);
        return false;
    }
    return tool_text_or(from, "as", out->name, &out->name, e);
}

static bool read_aggregates(struct group *group, const struct schema *in, yyjson_val *from,
                            struct tool_error *e)
{
    bool is_list = yyjson_is_arr(from);
    group->aggregate_count = is_list ? yyjson_arr_size(from) : 1;
    if (group->aggregate_count == 0 || group->aggregate_count > AGGREGATES_MAX)
        return tool_fail(e, "invalid_input", "aggregate must list 1 to %d items {op, column?, as?}",
                         AGGREGATES_MAX);
    size_t bytes = group->aggregate_count * sizeof *group->aggregates;
    group->aggregates = tool_alloc(bytes);
    memset(group->aggregates, 0, bytes);
    for (size_t i = 0; i < group->aggregate_count; i++)
        if (!read_aggregate(group, in, is_list ? yyjson_arr_get(from, i) : from,
                            &group->aggregates[i], e))
            return false;
    return true;
}

struct stage *group_create(struct query *query, const struct schema *in, yyjson_val *group_by,
                           yyjson_val *aggregate, struct tool_error *e)
{
    struct group *group = stage_alloc(query, sizeof *group);
    group->base.push = group_push;
    group->base.finish = group_finish;
    if (group_by != NULL &&
        !stage_columns(in, group_by, "group_by", &group->keys, &group->key_count, e))
        return NULL;
    if (!read_aggregates(group, in, aggregate, e))
        return NULL;
    struct schema *schema = &group->base.schema;
    *schema = schema_create(group->key_count + group->aggregate_count);
    for (size_t i = 0; i < group->key_count; i++)
        schema->columns[i].name = in->columns[group->keys[i]].name;
    for (size_t i = 0; i < group->aggregate_count; i++)
        schema->columns[group->key_count + i].name = group->aggregates[i].name;
    return &group->base;
}
