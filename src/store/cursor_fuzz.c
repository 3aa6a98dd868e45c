/*
 * Cursors come back from outside: whatever is sent, the parser answers, and what it accepts is
 * printed back the same.
 */
#include "store/cursor.h"
#include "base/arena.h"
#include "base/ensure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int orders[][2] = {
        {TABLE_SESSIONS, -1},
        {TABLE_SESSIONS, SESSIONS_CREATED_AT},
        {TABLE_BUDGETS, -1},
        {TABLE_RUN_EVENTS, RUN_EVENTS_TYPE},
    };
    OWNED(arena) arena = arena_create(0);
    for (size_t i = 0; i < 2 * ARRAY_COUNT(orders); i++) {
        struct query query = query_of((enum table) orders[i / 2][0]);
        query.order_column = orders[i / 2][1];
        query.cursor = str_of((const char *) data, size);
        struct cursor cursor;
        struct error e;
        if (!cursor_parse(&cursor, &query, i % 2, arena, &e))
            continue;
        struct record last = record_of(query.table);
        uuid tenant_id = UUID_NONE;
        for (int c = 0; c < cursor.count; c++) {
            if (cursor.columns[c].column < 0)
                tenant_id = cursor.values[c].id;
            else
                last.values[cursor.columns[c].column] = cursor.values[c];
        }
        str again;
        ensure(cursor_print(&query, i % 2, tenant_id, &last, arena, &again, &e));
        query.cursor = again;
        struct cursor same;
        ensure(cursor_parse(&same, &query, i % 2, arena, &e));
        for (int c = 0; c < cursor.count; c++)
            ensure(value_compare(cursor.columns[c].type, &cursor.values[c], &same.values[c]) == 0);
    }
    return 0;
}
