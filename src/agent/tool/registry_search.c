/*
 * Finding tools by words: BM25 over name, category and description, a tool's name counting most.
 *
 * Each tool carries its words as sorted hashes, made once when it is read; a question walks all tools that its tenant sees and looks
 * its few words up in each.  How rare a word is, is counted over those tools alone: an answer tells nothing of others' tools.
 * Source: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009), with field weights as in BM25F.
 */
#include "agent/tool/registry_internal.h"
#include "base/arena.h"
#include <math.h>
#include <stdlib.h>

static const float name_weight = 4, category_weight = 2, text_weight = 1;
static const double k1 = 1.2, b = 0.6;
enum { WORD_BYTES_MAX = 32, STEM_BYTES_MIN = 3, PREFIX_BYTES_MIN = 3, SEARCH_BYTES_MAX = 64 << 20 };

/* ---- words ---- */

static bool is_word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c & 0x80) != 0;
}

/* Endings that seldom change what is meant. */
static size_t stem(const char *word, size_t len)
{
    static const str endings[] = {S_INIT("ings"), S_INIT("ing"), S_INIT("ies"), S_INIT("ers"),
                                  S_INIT("es"),   S_INIT("ed"),  S_INIT("er"),  S_INIT("s"),
                                  S_INIT("e"),    S_INIT("y")};
    str text = str_of(word, len);
    if (str_ends_with(text, S("ss")))
        return len;
    for (size_t i = 0; i < ARRAY_COUNT(endings); i++)
        if (len >= endings[i].len + STEM_BYTES_MIN && str_ends_with(text, endings[i]))
            return len - endings[i].len;
    return len;
}

struct word {
    char text[WORD_BYTES_MAX];
    size_t len, stem_len;
};

/* The next word of a text, in small letters; false at the end. */
static bool next_word(str *rest, struct word *out)
{
    size_t at = 0;
    while (at < rest->len && !is_word_byte(rest->ptr[at]))
        at++;
    out->len = 0;
    for (; at < rest->len && is_word_byte(rest->ptr[at]); at++) {
        char c = rest->ptr[at];
        if (out->len < WORD_BYTES_MAX)
            out->text[out->len++] = (char) (c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    *rest = str_from(*rest, at);
    out->stem_len = stem(out->text, out->len);
    return out->len > 0;
}

/* Words that say nothing of a tool. */
static bool is_noise(const struct word *word)
{
    static const str noise[] = {S_INIT("a"),    S_INIT("an"),   S_INIT("and"),  S_INIT("are"),
                                S_INIT("as"),   S_INIT("at"),   S_INIT("be"),   S_INIT("by"),
                                S_INIT("can"),  S_INIT("do"),   S_INIT("for"),  S_INIT("from"),
                                S_INIT("how"),  S_INIT("i"),    S_INIT("in"),   S_INIT("is"),
                                S_INIT("it"),   S_INIT("its"),  S_INIT("me"),   S_INIT("my"),
                                S_INIT("of"),   S_INIT("on"),   S_INIT("or"),   S_INIT("please"),
                                S_INIT("that"), S_INIT("the"),  S_INIT("this"), S_INIT("to"),
                                S_INIT("tool"), S_INIT("what"), S_INIT("with"), S_INIT("you")};
    for (size_t i = 0; i < ARRAY_COUNT(noise); i++)
        if (str_equal(noise[i], str_of(word->text, word->len)))
            return true;
    return false;
}

static uint64_t word_hash(const struct word *word)
{
    return str_hash(str_of(word->text, word->stem_len), 0);
}

/* ---- one tool's words ---- */

static void add_words(struct search_document *document, str text, float weight)
{
    struct word word;
    while (document->term_count < REGISTRY_TERMS_MAX && next_word(&text, &word)) {
        if (is_noise(&word))
            continue;
        document->terms[document->term_count++] = (struct search_term){word_hash(&word), weight};
        document->length += weight;
    }
}

static int by_hash(const void *x, const void *y)
{
    uint64_t left = ((const struct search_term *) x)->hash,
             right = ((const struct search_term *) y)->hash;
    return left < right ? -1 : left > right;
}

struct search_document search_document_of(struct arena *arena, const struct tool *tool)
{
    OWNED(arena) scratch = arena_create(0);
    struct search_document all = {.terms =
                                      ARENA_ARRAY(scratch, struct search_term, REGISTRY_TERMS_MAX)};
    add_words(&all, tool->name, name_weight);
    add_words(&all, tool->category, category_weight);
    add_words(&all, tool->description, text_weight);
    qsort(all.terms, all.term_count, sizeof *all.terms, by_hash);
    struct search_document document = {
        .terms = ARENA_ARRAY(arena, struct search_term, all.term_count + 1), .length = all.length};
    for (size_t i = 0; i < all.term_count; i++) {
        struct search_term *last =
            document.term_count > 0 ? &document.terms[document.term_count - 1] : NULL;
        if (last && last->hash == all.terms[i].hash)
            last->weight += all.terms[i].weight;
        else
            document.terms[document.term_count++] = all.terms[i];
    }
    return document;
}

/* ---- a question ---- */

struct question {
    struct word words[REGISTRY_QUERY_TERMS_MAX];
    uint64_t hashes[REGISTRY_QUERY_TERMS_MAX];
    size_t counts[REGISTRY_QUERY_TERMS_MAX]; /* of tools that have it */
    double rareness[REGISTRY_QUERY_TERMS_MAX];
    size_t word_count;
    str whole; /* the question as a name: "http_request" */
};

struct candidate {
    const struct tool *tool;
    const struct search_document *document;
    float weights[REGISTRY_QUERY_TERMS_MAX];
};

static void read_question(struct arena *arena, str query, struct question *out)
{
    struct word word;
    str rest = str_slice(query, 0, REGISTRY_QUERY_BYTES_MAX);
    out->whole = str_lower(arena, str_trim(rest));
    while (out->word_count < REGISTRY_QUERY_TERMS_MAX && next_word(&rest, &word)) {
        uint64_t hash = word_hash(&word);
        bool is_known = is_noise(&word);
        for (size_t i = 0; i < out->word_count && !is_known; i++)
            is_known = out->hashes[i] == hash;
        if (is_known)
            continue;
        out->words[out->word_count] = word;
        out->hashes[out->word_count++] = hash;
    }
}

static float weight_of(const struct search_document *document, uint64_t hash)
{
    size_t from = 0, to = document->term_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (document->terms[middle].hash == hash)
            return document->terms[middle].weight;
        if (document->terms[middle].hash < hash)
            from = middle + 1;
        else
            to = middle;
    }
    return 0;
}

/* A word of the name that begins as the question's does. */
static bool begins_name(str name, const struct word *word)
{
    str beginning = str_of(word->text, word->len);
    for (size_t i = 0; word->len >= PREFIX_BYTES_MIN && i + word->len <= name.len; i++)
        if ((i == 0 || !is_word_byte(name.ptr[i - 1])) &&
            str_equal_nocase(str_of(name.ptr + i, word->len), beginning))
            return true;
    return false;
}

/* Looks the words up; false when the tool has none of them. */
static bool weigh(struct question *question, struct candidate *candidate)
{
    bool has_any = str_equal(candidate->tool->name, question->whole);
    for (size_t i = 0; i < question->word_count; i++) {
        float weight = weight_of(candidate->document, question->hashes[i]);
        if (weight == 0 && begins_name(candidate->tool->name, &question->words[i]))
            weight = name_weight / 2;
        candidate->weights[i] = weight;
        question->counts[i] += weight > 0;
        has_any = has_any || weight > 0;
    }
    return has_any;
}

static void find_rareness(struct question *question, size_t total)
{
    for (size_t i = 0; i < question->word_count; i++) {
        double n = (double) question->counts[i];
        question->rareness[i] = log(1 + ((double) total - n + 0.5) / (n + 0.5));
    }
}

static double score_of(const struct question *question, const struct candidate *candidate,
                       double average)
{
    double score = 0, length = candidate->document->length / average;
    for (size_t i = 0; i < question->word_count; i++) {
        double weight = candidate->weights[i];
        if (weight > 0)
            score +=
                question->rareness[i] * weight * (k1 + 1) / (weight + k1 * (1 - b + b * length));
    }
    str name = candidate->tool->name;
    if (str_equal(name, question->whole))
        score += 1000;
    else if (question->whole.len >= PREFIX_BYTES_MIN && str_starts_with(name, question->whole))
        score += 10;
    return score;
}

static size_t keep_best(struct registry_hit *hits, size_t count, size_t max,
                        struct registry_hit hit)
{
    size_t place = count < max ? count++ : max;
    if (place == max && hits[max - 1].score >= hit.score)
        return count;
    if (place == max)
        place--;
    for (; place > 0 && hits[place - 1].score < hit.score; place--)
        hits[place] = hits[place - 1];
    hits[place] = hit;
    return count;
}

/* What a tenant would get of one name, when it sees one and it is wanted. */
static const struct entry *wanted_of(const struct registry_snapshot *snapshot, size_t first,
                                     size_t end, const struct registry_search *search)
{
    struct registry_question question = {.tenant_id = search->tenant_id,
                                         .name = snapshot->entries[first].tool.name,
                                         .canary_key = search->canary_key};
    const struct tool *tool = resolve_in(snapshot, first, end, &question);
    if (!tool || (search->accepts && !search->accepts(search->owner, tool)))
        return NULL;
    return (const struct entry *) tool; /* a snapshot's tool is the first member of its entry */
}

size_t registry_find_words(const struct registry_snapshot *snapshot,
                           const struct registry_search *search, struct registry_hit *out,
                           size_t max)
{
    static_assert(offsetof(struct entry, tool) == 0, "a tool is where its entry is");
    OWNED(arena) arena = arena_create(SEARCH_BYTES_MAX);
    struct question *question = ARENA_NEW(arena, struct question);
    struct candidate *candidates = ARENA_ARRAY(arena, struct candidate, snapshot->count + 1);
    size_t count = 0, total = 0, found = 0;
    double length = 0;
    read_question(arena, search->query, question);
    for (size_t first = 0, end; first < snapshot->count && max > 0; first = end) {
        str name = snapshot->entries[first].tool.name;
        for (end = first + 1;
             end < snapshot->count && str_equal(snapshot->entries[end].tool.name, name);)
            end++;
        const struct entry *entry = wanted_of(snapshot, first, end, search);
        if (!entry)
            continue;
        total++;
        length += entry->from->document.length;
        candidates[count] =
            (struct candidate){.tool = &entry->tool, .document = &entry->from->document};
        count += weigh(question, &candidates[count]);
    }
    find_rareness(question, total);
    double average = total > 0 && length > 0 ? length / (double) total : 1;
    for (size_t i = 0; i < count; i++)
        found = keep_best(
            out, found, max,
            (struct registry_hit){candidates[i].tool, score_of(question, &candidates[i], average)});
    return found;
}
