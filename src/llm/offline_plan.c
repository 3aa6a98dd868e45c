/*
 * From a question to an analysis of a table.
 *
 *   "Which weather type has the highest average wind?"
 *        group ^^^^^^^ ("which X has")   order ^^^^^^^  operation ^^^^^^^  measure ^^^^
 *
 * The group is looked for behind words such as per, by, each, which; the measure is the number
 * column that fits the rest
 * best; operation and order come from words such as average, total, highest.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/offline_internal.h"

static const char *const mean_words[] = {"average", "averages",  "avg", "mean",
                                         "typical", "typically", NULL};
static const char *const sum_words[] = {"total",    "totals",     "sum",     "altogether",
                                        "combined", "cumulative", "overall", NULL};
static const char *const median_words[] = {"median", NULL};
static const char *const stddev_words[] = {"deviation",   "stddev", "std",
                                           "variability", "spread", NULL};
static const char *const count_words[] = {"count",      "counts", "frequency", "frequent",
                                          "frequently", "common", "often",     "occurrences",
                                          "commonest",  NULL};
static const char *const distinct_words[] = {"different", "distinct", "unique", NULL};
static const char *const high_words[] = {"max",       "maximum",  "highest", "largest",  "greatest",
                                         "biggest",   "most",     "top",     "best",     "peak",
                                         "hottest",   "warmest",  "tallest", "longest",  "oldest",
                                         "strongest", "heaviest", "fastest", "windiest", "wettest",
                                         "richest",   "dearest",  "high",    "leading",  NULL};
static const char *const low_words[] = {"min",     "minimum",  "lowest",   "smallest", "least",
                                        "fewest",  "coldest",  "shortest", "youngest", "lightest",
                                        "slowest", "cheapest", "weakest",  "bottom",   "worst",
                                        "driest",  "calmest",  "poorest",  "low",      NULL};
/* Columns whose values are added up rather than compared when only "highest" is said. */
static const char *const additive_words[] = {
    "sales",    "sale",       "revenue",   "amount",     "quantity",   "qty",           "units",
    "unit",     "profit",     "cost",      "costs",      "spend",      "spending",      "expenses",
    "count",    "orders",     "total",     "income",     "volume",     "visits",        "clicks",
    "views",    "goals",      "points",    "passengers", "production", "precipitation", "rainfall",
    "snowfall", "generation", "emissions", "deaths",     "births",     "cases",         "downloads",
    "sold",     "turnover",   NULL};
static const char *const group_markers[] = {
    "per", "by", "each", "every", "across", "among", "within", "grouped", "versus", "vs", NULL};
static const char *const asking_words[] = {"which", "what", NULL};
static const char *const verbs[] = {"has",   "have", "had",  "is",  "was",  "are", "were",
                                    "shows", "with", "got",  "do",  "does", "did", "can",
                                    "there", "gets", "sees", "saw", NULL};

struct planner {
    const struct table *table;
    struct words *words;
    struct analysis *out;
};

/* ---- columns ---- */

struct match {
    const struct column *column;
    int score;
};

/* How well the words from..to name the column: all of a column's words count more than many words.
 * */
static int column_score(const struct column *column, const struct words *words, size_t from,
                        size_t to, bool take)
{
    int score = 0;
    for (size_t c = 0; c < column->words.count; c++) {
        int best = 0;
        size_t best_at = 0;
        for (size_t i = from; i < to; i++) {
            int match = words->items[i].is_used
                            ? 0
                            : offline_word_match(&column->words.items[c], &words->items[i]);
            if (match > best) {
                best = match;
                best_at = i;
            }
        }
        if (best > 0 && take)
            words->items[best_at].is_used = true;
        score += best;
    }
    return column->words.count ? score * 100 / (int) column->words.count + score : 0;
}

static struct match best_column(const struct planner *p, size_t from, size_t to,
                                bool (*is_wanted)(const struct column *))
{
    struct match best = {0};
    for (size_t i = 0; i < p->table->count; i++) {
        const struct column *column = &p->table->columns[i];
        if (column == p->out->group || !is_wanted(column))
            continue;
        int score = column_score(column, p->words, from, to, false);
        if (score > best.score)
            best = (struct match){column, score};
    }
    return best;
}

static bool any_column(const struct column *column)
{
    return column->count > 0;
}

static bool number_column(const struct column *column)
{
    return column->is_number;
}

static bool group_column(const struct column *column)
{
    return column->is_category || column->is_date;
}

/* Numbers that name things: adding them up means nothing. */
static bool is_identifier(const struct column *column)
{
    static const char *const names[] = {"id",       "index",     "zip", "zipcode", "postcode",
                                        "year",     "month",     "day", "hour",    "code",
                                        "key",      "number",    "no",  "lat",     "lon",
                                        "latitude", "longitude", "row", "rank",    NULL};
    for (size_t i = 0; i < column->words.count; i++) {
        if (offline_is_one_of(column->words.items[i].text, names))
            return true;
    }
    return false;
}

static const struct column *find_date(const struct table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        if (table->columns[i].is_date)
            return &table->columns[i];
    }
    return NULL;
}

/* ---- words of operations ---- */

static size_t find_word(const struct words *words, const char *const *list, bool unused_only)
{
    for (size_t i = 0; i < words->count; i++) {
        if (offline_is_one_of(words->items[i].text, list) &&
            !(unused_only && words->items[i].is_used))
            return i;
    }
    return SIZE_MAX;
}

static bool take_word(struct words *words, const char *const *list)
{
    size_t at = find_word(words, list, true);
    if (at == SIZE_MAX)
        return false;
    words->items[at].is_used = true;
    return true;
}

static bool is_word(const struct words *words, size_t i, const char *text)
{
    return i < words->count && str_equal(words->items[i].text, str_from_cstr(text));
}

static bool has_pair(const struct words *words, const char *first, const char *second)
{
    for (size_t i = 0; i + 1 < words->count; i++) {
        if (is_word(words, i, first) && is_word(words, i + 1, second))
            return true;
    }
    return false;
}

/* ---- the group ---- */

static const char *period_of(const struct word *word)
{
    static const struct {
        const char *stem, *operation;
    } periods[] = {{"year", "year"},       {"annual", "year"},     {"month", "month"},
                   {"quarter", "quarter"}, {"weekday", "weekday"}, {"hour", "hour"},
                   {"yearl", "year"},      {"monthl", "month"}};
    for (size_t i = 0; i < ARRAY_COUNT(periods); i++) {
        if (str_equal(word->stem, str_from_cstr(periods[i].stem)) ||
            str_equal(word->text, str_from_cstr(periods[i].stem)))
            return periods[i].operation;
    }
    return NULL;
}

/* A year, month, ... of a date column, unless the table has a column of that name. */
static bool group_by_period(struct planner *p, size_t at)
{
    const struct column *date = find_date(p->table);
    const char *period = period_of(&p->words->items[at]);
    if (!date || !period)
        return false;
    for (size_t i = 0; i < p->table->count; i++) {
        if (column_score(&p->table->columns[i], p->words, at, at + 1, false) > 0 &&
            !p->table->columns[i].is_date)
            return false;
    }
    p->out->group = date;
    p->out->period = period;
    p->words->items[at].is_used = true;
    return true;
}

static size_t window_end(const struct words *words, size_t from, size_t most)
{
    size_t end = from;
    while (end < words->count && end < from + most &&
           !offline_is_one_of(words->items[end].text, verbs) && !words->items[end].is_number)
        end++;
    return end;
}

static bool group_in_window(struct planner *p, size_t from, size_t most,
                            bool (*is_wanted)(const struct column *))
{
    size_t end = window_end(p->words, from, most);
    for (size_t i = from; i < end; i++) {
        if (group_by_period(p, i))
            return true;
    }
    struct match match = best_column(p, from, end, is_wanted);
    if (!match.column)
        return false;
    column_score(match.column, p->words, from, end, true);
    p->out->group = match.column;
    return true;
}

/* "top 5 products by price", "the 3 largest cities" */
static bool find_top(struct planner *p)
{
    for (size_t i = 0; i + 1 < p->words->count; i++) {
        const struct word *word = &p->words->items[i], *next = &p->words->items[i + 1];
        bool is_order =
            offline_is_one_of(word->text, high_words) || offline_is_one_of(word->text, low_words);
        bool is_next_order =
            offline_is_one_of(next->text, high_words) || offline_is_one_of(next->text, low_words);
        const struct word *number = is_order && next->is_number        ? next
                                    : is_next_order && word->is_number ? word
                                                                       : NULL;
        if (!number || number->number < 1 || number->number > 1000)
            continue;
        p->out->limit = (int64_t) number->number;
        p->words->items[i].is_used = p->words->items[i + 1].is_used = true;
        p->out->direction =
            offline_is_one_of(is_order ? word->text : next->text, high_words) ? 1 : -1;
        group_in_window(p, i + 2, 3, group_column);
        return true;
    }
    return false;
}

/* Is this "per" a part of a column's name ("miles per gallon")? */
static bool is_in_name(const struct planner *p, size_t at)
{
    for (size_t i = 0; i < p->table->count; i++) {
        const struct words *name = &p->table->columns[i].words;
        for (size_t c = 1; c < name->count; c++) {
            if (str_equal(name->items[c].text, p->words->items[at].text) && at > 0 &&
                offline_word_match(&name->items[c - 1], &p->words->items[at - 1]) > 0)
                return true;
        }
    }
    return false;
}

static void find_group(struct planner *p)
{
    static const char *const time[] = {"when", NULL};
    struct words *words = p->words;
    /* In "top 5 products by price" the price is what is compared. */
    bool (*is_wanted)(const struct column *) = find_top(p) ? group_column : any_column;
    for (size_t i = 0; i < words->count && !p->out->group; i++) {
        if (offline_is_one_of(words->items[i].text, group_markers) && !is_in_name(p, i))
            group_in_window(p, i + 1, 4, is_wanted);
    }
    for (size_t i = 0; i < words->count && !p->out->group; i++) {
        if (offline_is_one_of(words->items[i].text, asking_words))
            group_in_window(p, i + 1, 4, is_wanted);
    }
    if (!p->out->group && find_word(words, time, false) != SIZE_MAX)
        p->out->group = find_date(p->table);
    for (size_t i = 0; i < words->count && !p->out->group; i++) { /* "monthly averages" */
        if (str_ends_with(words->items[i].text, S("ly")))
            group_by_period(p, i);
    }
}

/* "What is the most common weather?", "weather frequency": the category that is named is what is
 * counted. */
static void group_for_count(struct planner *p)
{
    static const char *const rare[] = {"least", "rarest", "fewest", "lowest", NULL};
    struct match match = best_column(p, 0, p->words->count, group_column);
    if (p->out->group || match.score < 200)
        return;
    column_score(match.column, p->words, 0, p->words->count, true);
    p->out->group = match.column;
    p->out->direction = find_word(p->words, rare, false) != SIZE_MAX ? -1 : 1;
}

/* "Which kind of disaster had the most deaths?" in a table with one category only. */
static void group_by_only_category(struct planner *p)
{
    const struct column *only = NULL;
    for (size_t i = 0; i < p->table->count; i++) {
        const struct column *column = &p->table->columns[i];
        if (!column->is_category)
            continue;
        if (only)
            return;
        only = column;
    }
    static const char *const which[] = {"which", NULL};
    bool repeats = only && only->distinct > 1 && only->distinct <= only->count / 2;
    if (repeats && !p->out->group && find_word(p->words, which, false) != SIZE_MAX)
        p->out->group = only;
}

/* "Which car has the highest price?" where no column is named car: the row itself is the answer. */
static bool asks_for_row(const struct planner *p, bool is_explicit, bool is_count)
{
    static const char *const which[] = {"which",  "who",     "whose", "row",     "rows",
                                        "record", "records", "entry", "entries", NULL};
    if (p->out->group || !p->out->measure || p->out->direction == 0 || is_explicit || is_count)
        return false;
    return p->out->limit > 0 || find_word(p->words, which, false) != SIZE_MAX;
}

/* ---- numbers as filters ---- */

static const char *comparison_at(const struct words *words, size_t i, size_t *length)
{
    static const struct {
        const char *words[3], *operation;
    } phrases[] = {
        {{"greater", "than", NULL}, "gt"},
        {{"more", "than", NULL}, "gt"},
        {{"higher", "than", NULL}, "gt"},
        {{"larger", "than", NULL}, "gt"},
        {{"less", "than", NULL}, "lt"},
        {{"lower", "than", NULL}, "lt"},
        {{"fewer", "than", NULL}, "lt"},
        {{"smaller", "than", NULL}, "lt"},
        {{"at", "least", NULL}, "ge"},
        {{"at", "most", NULL}, "le"},
        {{"over", NULL}, "gt"},
        {{"above", NULL}, "gt"},
        {{"exceeding", NULL}, "gt"},
        {{"exceeds", NULL}, "gt"},
        {{"under", NULL}, "lt"},
        {{"below", NULL}, "lt"},
        {{">", NULL}, "gt"},
        {{">=", NULL}, "ge"},
        {{"<", NULL}, "lt"},
        {{"<=", NULL}, "le"},
        {{"=", NULL}, "eq"},
        {{"equals", NULL}, "eq"},
    };
    for (size_t k = 0; k < ARRAY_COUNT(phrases); k++) {
        size_t n = 0;
        while (phrases[k].words[n] && is_word(words, i + n, phrases[k].words[n]))
            n++;
        if (phrases[k].words[n] == NULL) {
            *length = n;
            return phrases[k].operation;
        }
    }
    return NULL;
}

static void add_filter(struct analysis *out, const struct column *column, const char *operation,
                       str value, bool is_year)
{
    if (out->filter_count == ARRAY_COUNT(out->filters))
        return;
    struct analysis_filter *filter = &out->filters[out->filter_count++];
    *filter =
        (struct analysis_filter){.column = column, .operation = operation, .is_year = is_year};
    filter->values[filter->value_count++] = value;
}

/* "wind above 5": the number column nearest before the comparison, within four words. */
static void find_comparisons(struct planner *p)
{
    for (size_t i = 0; i < p->words->count; i++) {
        size_t length = 0;
        const char *operation = comparison_at(p->words, i, &length);
        if (!operation || i + length >= p->words->count || !p->words->items[i + length].is_number)
            continue;
        size_t from = i > 4 ? i - 4 : 0;
        struct match match = best_column(p, from, i, number_column);
        if (!match.column)
            continue;
        add_filter(p->out, match.column, operation, p->words->items[i + length].text, false);
        for (size_t k = i; k <= i + length; k++)
            p->words->items[k].is_used = true;
    }
}

/* "in 2013": of the date column, or of a column named year. */
static void find_years(struct planner *p)
{
    const struct column *year = NULL, *date = find_date(p->table);
    for (size_t i = 0; i < p->table->count; i++) {
        const struct column *column = &p->table->columns[i];
        if (column->is_number && column->words.count == 1 && is_word(&column->words, 0, "year"))
            year = column;
    }
    for (size_t i = 0; i < p->words->count; i++) {
        struct word *word = &p->words->items[i];
        if (!word->is_number || word->is_used || word->text.len != 4 || word->number < 1000 ||
            word->number > 2999)
            continue;
        if (!year && !date)
            continue;
        add_filter(p->out, year ? year : date, "eq", word->text, year == NULL);
        word->is_used = true;
    }
}

/* ---- measure and operation ---- */

static void find_measure(struct planner *p)
{
    struct match match = best_column(p, 0, p->words->count, number_column);
    if (match.column) {
        column_score(match.column, p->words, 0, p->words->count, true);
        p->out->measure = match.column;
    }
}

static const struct column *first_measure(const struct planner *p)
{
    const struct column *any = NULL;
    for (size_t i = 0; i < p->table->count; i++) {
        const struct column *column = &p->table->columns[i];
        if (!column->is_number || column == p->out->group)
            continue;
        if (!is_identifier(column))
            return column;
        any = any ? any : column;
    }
    return any;
}

static bool is_additive(const struct column *column)
{
    for (size_t i = 0; column && i < column->words.count; i++) {
        if (offline_is_one_of(column->words.items[i].text, additive_words))
            return true;
    }
    return false;
}

static bool find_explicit_operation(struct planner *p, enum analysis_operation *out)
{
    static const struct {
        const char *const *words;
        enum analysis_operation operation;
    } all[] = {
        {mean_words, OPERATION_MEAN},     {median_words, OPERATION_MEDIAN},
        {stddev_words, OPERATION_STDDEV}, {sum_words, OPERATION_SUM},
        {count_words, OPERATION_COUNT},
    };
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        if (take_word(p->words, all[i].words)) {
            *out = all[i].operation;
            return true;
        }
    }
    return false;
}

/* A superlative that the name of the measure does not hold already ("lowest maximum temperature").
 * */
static int find_direction(struct planner *p, bool is_explicit)
{
    size_t high = find_word(p->words, high_words, true), low = find_word(p->words, low_words, true);
    if (high == SIZE_MAX && low == SIZE_MAX && !is_explicit) {
        high = find_word(p->words, high_words, false);
        low = find_word(p->words, low_words, false);
    }
    if (high == SIZE_MAX && low == SIZE_MAX)
        return 0;
    p->words->items[high < low ? high : low].is_used = true;
    return high < low ? 1 : -1;
}

static bool is_counting(const struct words *words)
{
    return has_pair(words, "how", "many") || has_pair(words, "number", "of") ||
           has_pair(words, "how", "often");
}

static void choose_count(struct planner *p)
{
    struct match category = best_column(p, 0, p->words->count, group_column);
    p->out->operation = OPERATION_COUNT;
    if (p->out->measure && is_additive(p->out->measure)) {
        p->out->operation = OPERATION_SUM;
        return;
    }
    p->out->measure = NULL;
    if (category.column && category.score >= 200 &&
        (take_word(p->words, distinct_words) || (!p->out->group && p->out->filter_count == 0))) {
        column_score(category.column, p->words, 0, p->words->count, true);
        p->out->operation = OPERATION_COUNT_DISTINCT;
        p->out->measure = category.column;
    }
}

static void choose_implicit(struct planner *p)
{
    struct analysis *out = p->out;
    if (out->direction == 0) {
        out->operation = out->measure ? OPERATION_MEAN : OPERATION_COUNT;
    } else if (!out->measure && out->group) {
        out->operation = OPERATION_COUNT;
    } else if (out->group && is_additive(out->measure)) {
        out->operation = OPERATION_SUM;
    } else {
        out->operation = out->direction > 0 ? OPERATION_MAX : OPERATION_MIN;
    }
}

/* Nothing in the question names a column: tell what is in the file by its best category. */
static void plan_overview(struct planner *p)
{
    struct analysis *out = p->out;
    for (size_t i = 0; i < p->table->count; i++) {
        const struct column *column = &p->table->columns[i];
        bool is_fit = column->is_category && column->distinct >= 2 && column->distinct <= 50;
        if (is_fit && (!out->group || column->distinct < out->group->distinct))
            out->group = column;
    }
    out->measure = first_measure(p);
    out->operation = out->measure ? OPERATION_MEAN : OPERATION_COUNT;
    out->is_overview = true;
}

void offline_plan(const struct table *table, struct words *words, struct analysis *out)
{
    struct planner planner = {.table = table, .words = words, .out = out};
    *out = (struct analysis){.table = table};
    bool is_count = is_counting(words);
    find_years(&planner);
    find_group(&planner);
    find_comparisons(&planner);
    find_measure(&planner);
    enum analysis_operation operation = OPERATION_COUNT;
    bool is_explicit = find_explicit_operation(&planner, &operation);
    if (out->direction == 0)
        out->direction = find_direction(&planner, is_explicit);
    bool has_nothing =
        !is_explicit && !is_count && out->direction == 0 && !out->group && !out->measure;
    if (has_nothing && out->filter_count == 0) {
        plan_overview(&planner);
        return;
    }
    if (is_explicit && operation != OPERATION_COUNT && !out->measure)
        out->measure = first_measure(&planner);
    if (out->direction != 0 && out->measure && out->limit == 0)
        group_by_only_category(&planner);
    out->is_rows = asks_for_row(&planner, is_explicit, is_count);
    if (is_explicit && !(is_count && operation == OPERATION_SUM)) {
        out->operation = operation;
        if (operation == OPERATION_COUNT) {
            out->measure = NULL;
            group_for_count(&planner);
        }
    } else if (is_count) {
        choose_count(&planner);
    } else {
        if (!out->measure && !out->group)
            out->measure = first_measure(&planner);
        choose_implicit(&planner);
    }
    if (!out->measure && out->operation != OPERATION_COUNT)
        out->operation = OPERATION_COUNT;
}
