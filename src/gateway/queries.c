#include "gateway/queries.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/nearest.h"
#include "base/strbuf.h"
#include "gateway/gateway_internal.h"

enum { NAME_BYTES_SHOWN = 60 };

static const struct {
    route_handler *handler;
    struct route_query query;
} table[] = {
#define QUERY(handler_, name_, kind_, values_, summary_)                                           \
    {handler_, {S_INIT(name_), QUERY_##kind_, S_INIT(values_), S_INIT(summary_)}},
#include "gateway/queries.def"
#undef QUERY
};

bool queries_at(const struct api_route *route, size_t n, struct route_query *out)
{
    static const struct route_query paging[] = {{S_INIT("limit"), QUERY_NUMBER, {0}, {0}},
                                                {S_INIT("cursor"), QUERY_TEXT, {0}, {0}}};
    size_t paging_count = route->flags & ROUTE_PAGED ? ARRAY_COUNT(paging) : 0, seen = paging_count;
    if (n < paging_count) {
        *out = paging[n];
        return true;
    }
    for (size_t i = 0; i < ARRAY_COUNT(table); i++)
        if (table[i].handler == route->handler && seen++ == n) {
            *out = table[i].query;
            return true;
        }
    return false;
}

/* The name as it was sent when its escapes are malformed. */
static str decoded(struct arena *arena, str text)
{
    str out;
    return http_percent_decode(arena, text, &out) && str_is_utf8(out) ? out : text;
}

static bool refuse(struct arena *arena, const struct api_route *route, str name, struct error *e)
{
    struct route_query known;
    struct nearest nearest = nearest_to(name);
    struct strbuf all;
    str shown = text_made_visible(arena, str_cut_utf8(name, NAME_BYTES_SHOWN));
    strbuf_init(&all, arena, ERROR_MESSAGE_BYTES);
    for (size_t i = 0; queries_at(route, i, &known); i++) {
        nearest_try(&nearest, known.name);
        strbuf_printf(&all, "%s" STR_FMT, i ? ", " : "", STR_ARG(known.name));
    }
    str names = strbuf_str(&all);
    if (str_is_empty(names))
        return error_set(e, REASON_INVALID,
                         "there is no parameter \"" STR_FMT "\"; this takes none", STR_ARG(shown));
    if (str_is_empty(nearest.name))
        return error_set(e, REASON_INVALID,
                         "there is no parameter \"" STR_FMT "\"; there are " STR_FMT,
                         STR_ARG(shown), STR_ARG(names));
    return error_set(e, REASON_INVALID,
                     "there is no parameter \"" STR_FMT "\"; did you mean \"" STR_FMT
                     "\"? There are " STR_FMT,
                     STR_ARG(shown), STR_ARG(nearest.name), STR_ARG(names));
}

/* "a|b|c" as "a, b or c". */
static str words_of(struct arena *arena, str choices)
{
    struct strbuf text;
    str choice;
    strbuf_init(&text, arena, 1024);
    while (str_next(&choices, '|', &choice)) {
        const char *between = text.len == 0 ? "" : choices.ptr ? ", " : " or ";
        strbuf_printf(&text, "%s" STR_FMT, between, STR_ARG(choice));
    }
    return strbuf_str(&text);
}

static bool check_choice(struct arena *arena, const struct route_query *query, str value,
                         struct error *e)
{
    str rest = query->values, choice;
    bool is_known = str_is_empty(value);
    while (!is_known && str_next(&rest, '|', &choice))
        is_known = str_equal(value, choice);
    return is_known || error_set(e, REASON_INVALID, "?" STR_FMT "= must be " STR_FMT,
                                 STR_ARG(query->name), STR_ARG(words_of(arena, query->values)));
}

static bool check(struct arena *arena, const struct api_route *route, str name, str value,
                  struct error *e)
{
    struct route_query query;
    for (size_t i = 0; queries_at(route, i, &query); i++) {
        if (query.kind == QUERY_ANY)
            return true;
        if (str_equal(query.name, name))
            return query.kind != QUERY_CHOICE || check_choice(arena, &query, value, e);
    }
    return refuse(arena, route, name, e);
}

bool queries_check(struct arena *arena, const struct api_route *route, str query, struct error *e)
{
    str pair, name, value;
    if (route->dialect != ROUTE_NATIVE || !str_starts_with(route->path, S("/api/v1/")))
        return true;
    while (str_next(&query, '&', &pair)) {
        str_cut(pair, '=', &name, &value);
        if (!str_is_empty(pair) &&
            !check(arena, route, decoded(arena, name), decoded(arena, value), e))
            return false;
    }
    return true;
}
