/* a question in words */
#include "base/arena.h"
#include "llm/offline_internal.h"

bool offline_is_one_of(str text, const char *const *list)
{
    for (size_t i = 0; list[i]; i++) {
        if (str_equal(text, str_from_cstr(list[i])))
            return true;
    }
    return false;
}

/* Words that name no column and no value: grammar, and talk about the data as such. */
bool offline_is_stop_word(str text)
{
    static const char *const list[] = {
        "a",         "about",    "according", "all",     "also",       "am",      "an",
        "analyse",   "analysis", "analyze",   "and",     "any",        "are",     "as",
        "ascending", "ask",      "at",        "be",      "been",       "between", "both",
        "but",       "by",       "calculate", "can",     "case",       "cases",   "categories",
        "category",  "column",   "columns",   "compare", "compute",    "contain", "contains",
        "could",     "csv",      "data",      "dataset", "descending", "did",     "different",
        "do",        "does",     "during",    "each",    "entries",    "entry",   "every",
        "exactly",   "figure",   "figures",   "file",    "find",       "first",   "following",
        "for",       "from",     "get",       "give",    "given",      "got",     "group",
        "grouped",   "groups",   "had",       "has",     "have",       "how",     "i",
        "if",        "in",       "into",      "is",      "it",         "its",     "json",
        "kind",      "kinds",    "know",      "last",    "list",       "look",    "many",
        "me",        "most",     "much",      "my",      "name",       "need",    "number",
        "occur",     "occurs",   "of",        "on",      "one",        "only",    "or",
        "order",     "our",      "out",       "over",    "overall",    "per",     "please",
        "question",  "rank",     "recorded",  "records", "record",     "report",  "result",
        "row",       "rows",     "same",      "say",     "set",        "show",    "shows",
        "sort",      "sorted",   "still",     "table",   "tell",       "than",    "that",
        "the",       "their",    "them",      "then",    "there",      "these",   "they",
        "this",      "those",    "to",        "type",    "types",      "up",      "us",
        "use",       "using",    "value",     "values",  "was",        "we",      "were",
        "what",      "when",     "where",     "which",   "who",        "whole",   "whose",
        "will",      "with",     "within",    "would",   "you",        "your",    NULL};
    return offline_is_one_of(text, list);
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char) c >= 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number, with its sign, point and exponent-free: 3, -2.5, 1,000 (the commas go). */
static size_t number_length(str text, size_t at)
{
    size_t end = at + (text.ptr[at] == '-');
    if (end >= text.len || !is_digit(text.ptr[end]))
        return 0;
    while (end < text.len &&
           (is_digit(text.ptr[end]) || ((text.ptr[end] == '.' || text.ptr[end] == ',') &&
                                        end + 1 < text.len && is_digit(text.ptr[end + 1]))))
        end++;
    return end - at;
}

static void ends(str *stem, const char *suffix, size_t keep_at_least, const char **found)
{
    str s = str_from_cstr(suffix);
    if (!*found && stem->len >= s.len + keep_at_least && str_ends_with(*stem, s)) {
        stem->len -= s.len;
        *found = suffix;
    }
}

/* Cuts plurals and the commonest endings, so that "rainy" meets "rain" and "species" meets itself.
 * */
static str stem_of(struct arena *arena, str word)
{
    str stem = word;
    const char *found = NULL;
    if (word.len > 4 && str_ends_with(word, S("ies")) && !str_equal(word, S("series")) &&
        !str_equal(word, S("species")))
        return str_printf(arena, STR_FMT "y", STR_ARG(str_slice(word, 0, word.len - 3)));
    ends(&stem, "ings", 3, &found);
    ends(&stem, "ing", 3, &found);
    ends(&stem, "sses", 2, &found);
    if (found && str_equal(str_from_cstr(found), S("sses")))
        stem.len += 2;
    ends(&stem, "xes", 2, &found);
    if (found && str_equal(str_from_cstr(found), S("xes")))
        stem.len += 1;
    ends(&stem, "ed", 4, &found);
    if (!found && stem.len > 3 && stem.ptr[stem.len - 1] == 's' && stem.ptr[stem.len - 2] != 's') {
        stem.len--;
        found = "s";
    }
    if (!found && stem.len > 3 && stem.ptr[stem.len - 1] == 'y') {
        stem.len--;
        found = "y";
    }
    if (found && stem.len > 3 && stem.ptr[stem.len - 1] == stem.ptr[stem.len - 2] &&
        stem.ptr[stem.len - 1] != 's' && stem.ptr[stem.len - 1] != 'l')
        stem.len--;
    if (stem.len > 3 && stem.ptr[stem.len - 1] == 'e') /* "price" and "pricing" */
        stem.len--;
    return stem;
}

static struct word make_number(struct arena *arena, str text)
{
    struct strbuf digits;
    struct word word = {.text = text, .stem = text};
    strbuf_init(&digits, arena, text.len);
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != ',')
            strbuf_add_char(&digits, text.ptr[i]);
    }
    word.is_number = str_to_double(strbuf_str(&digits), &word.number);
    return word;
}

/* camelCase breaks where a small letter meets a capital. */
static size_t letters_length(str text, size_t at)
{
    size_t end = at;
    while (end < text.len && (is_letter(text.ptr[end]) || (end > at && text.ptr[end] == '\''))) {
        if (end > at && text.ptr[end] >= 'A' && text.ptr[end] <= 'Z' && text.ptr[end - 1] >= 'a' &&
            text.ptr[end - 1] <= 'z')
            break;
        end++;
    }
    return end - at;
}

struct words offline_words(struct arena *arena, str text)
{
    struct words words = {.items = ARENA_ARRAY(arena, struct word, OFFLINE_WORDS_MAX)};
    size_t at = 0;
    while (at < text.len && words.count < OFFLINE_WORDS_MAX) {
        char c = text.ptr[at];
        size_t len = number_length(text, at);
        if (len > 0) {
            words.items[words.count++] = make_number(arena, str_slice(text, at, at + len));
        } else if (is_letter(c)) {
            len = letters_length(text, at);
            str word = str_lower(arena, str_slice(text, at, at + len));
            if (str_ends_with(word, S("'s")))
                word.len -= 2;
            words.items[words.count++] = (struct word){.text = word, .stem = stem_of(arena, word)};
        } else if (c == '<' || c == '>' || c == '=') {
            len = 1 + (at + 1 < text.len && text.ptr[at + 1] == '=');
            str sign = str_slice(text, at, at + len);
            words.items[words.count++] = (struct word){.text = sign, .stem = sign};
        }
        at += len > 0 ? len : 1;
    }
    return words;
}

static bool are_synonyms(str a, str b)
{
    static const char *const groups[][10] = {
        {"temp", "temperatur", "heat", NULL},
        {"qty", "quantity", "quantit", "unit", "piec", NULL},
        {"amount", "amt", "valu", "sum", NULL},
        {"revenu", "sal", "turnover", "incom", "earning", "earn", NULL},
        {"cost", "expens", "spend", "spent", NULL},
        {"precip", "precipitation", "rainfall", NULL},
        {"date", "day", "datetim", "timestamp", NULL},
        {"country", "countr", "nation", NULL},
        {"sex", "gender", NULL},
        {"max", "maximum", "highest", NULL},
        {"min", "minimum", "lowest", NULL},
        {"avg", "averag", "mean", NULL},
        {"salary", "salar", "wag", "pay", NULL},
        {"dept", "department", "division", NULL},
        {"weight", "mass", "heavy", NULL},
        {"len", "length", "long", NULL},
        {"score", "rating", "rat", "grad", "point", NULL},
        {"city", "cit", "town", NULL},
        {"cat", "categor", "category", "categ", NULL},
        {"product", "item", "articl", "good", NULL},
        {"customer", "client", "buyer", NULL},
        {"employe", "employee", "worker", "staff", NULL},
        {"dur", "duration", "tim", NULL},
        {"spec", "specy", "species", "speci", NULL},
        {"pric", "price", NULL},
        {"hp", "horsepower", NULL},
        {"mpg", "mileag", "mileage", NULL},
        {"pop", "population", "inhabitant", NULL},
        {"region", "area", "zon", NULL},
        {"manufacturer", "mak", "brand", "maker", NULL},
    };
    for (size_t i = 0; i < ARRAY_COUNT(groups); i++) {
        if (offline_is_one_of(a, groups[i]) && offline_is_one_of(b, groups[i]))
            return true;
    }
    return false;
}

int offline_word_match(const struct word *a, const struct word *b)
{
    if (str_equal(a->stem, b->stem) || str_equal(a->text, b->text))
        return 3;
    if (a->is_number || b->is_number)
        return 0;
    str shorter = a->stem.len < b->stem.len ? a->stem : b->stem;
    str longer = a->stem.len < b->stem.len ? b->stem : a->stem;
    if (shorter.len >= 4 && str_starts_with(longer, shorter))
        return 2;
    return are_synonyms(a->stem, b->stem) ? 2 : 0;
}
