/* Semantic versions and ranges (declared in registry.h).  Source: Semantic Versioning 2.0.0. */
#include "agent/tool/registry.h"

struct version {
    uint64_t numbers[3];
    int number_count; /* fewer than three only in ranges: "1.2" */
    str prerelease;
};

static bool is_identifier(str piece)
{
    for (size_t i = 0; i < piece.len; i++) {
        char c = piece.ptr[i];
        bool is_known =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
        if (!is_known)
            return false;
    }
    return piece.len > 0;
}

static bool are_identifiers(str list)
{
    str piece;
    while (str_next(&list, '.', &piece))
        if (!is_identifier(piece))
            return false;
    return true;
}

static bool parse(str text, bool may_be_partial, struct version *out)
{
    str rest, build, piece;
    *out = (struct version){0};
    bool has_build = str_cut(text, '+', &text, &build);
    bool has_prerelease = str_cut(text, '-', &text, &out->prerelease);
    if ((has_build && !are_identifiers(build)) || (has_build && str_is_empty(build)))
        return false;
    if (has_prerelease && (str_is_empty(out->prerelease) || !are_identifiers(out->prerelease)))
        return false;
    rest = text;
    while (str_next(&rest, '.', &piece)) {
        bool has_leading_zero = piece.len > 1 && piece.ptr[0] == '0';
        if (out->number_count == 3 || has_leading_zero ||
            !str_to_u64(piece, &out->numbers[out->number_count]))
            return false;
        out->number_count++;
    }
    return out->number_count == 3 || (may_be_partial && out->number_count > 0 && !has_prerelease);
}

static int compare_identifiers(str a, str b)
{
    uint64_t x, y;
    bool is_number_a = str_to_u64(a, &x), is_number_b = str_to_u64(b, &y);
    if (is_number_a && is_number_b)
        return (x > y) - (x < y);
    if (is_number_a != is_number_b)
        return is_number_a ? -1 : 1; /* numbers come before words */
    return str_compare(a, b);
}

/* A version without one comes after all its prereleases. */
static int compare_prereleases(str a, str b)
{
    if (str_is_empty(a) || str_is_empty(b))
        return (int) str_is_empty(a) - (int) str_is_empty(b);
    for (;;) {
        str piece_a, piece_b;
        bool has_a = str_next(&a, '.', &piece_a), has_b = str_next(&b, '.', &piece_b);
        if (!has_a || !has_b)
            return (int) has_a - (int) has_b;
        int order = compare_identifiers(piece_a, piece_b);
        if (order != 0)
            return order;
    }
}

static int compare(const struct version *a, const struct version *b)
{
    for (int i = 0; i < 3; i++)
        if (a->numbers[i] != b->numbers[i])
            return a->numbers[i] < b->numbers[i] ? -1 : 1;
    return compare_prereleases(a->prerelease, b->prerelease);
}

bool semver_is_valid(str text)
{
    struct version version;
    return parse(text, false, &version);
}

int semver_compare(str a, str b)
{
    struct version x, y;
    bool is_a = parse(a, false, &x), is_b = parse(b, false, &y);
    if (!is_a || !is_b)
        return (int) is_a - (int) is_b; /* what is no version comes first */
    return compare(&x, &y);
}

/* The first version behind those that `base` stands for when only its first `fixed` numbers count.
   */
static struct version behind(const struct version *base, int fixed)
{
    struct version end = {.number_count = 3};
    for (int i = 0; i < fixed; i++)
        end.numbers[i] = base->numbers[i];
    end.numbers[fixed - 1]++;
    return end;
}

static bool lies_between(const struct version *version, const struct version *from,
                         const struct version *end)
{
    return compare(version, from) >= 0 && compare(version, end) < 0;
}

/* ^: the first number that is not 0 stays. */
static int caret_fixed(const struct version *base)
{
    for (int i = 0; i < base->number_count; i++)
        if (base->numbers[i] != 0)
            return i + 1;
    return base->number_count;
}

static bool satisfies_one(const struct version *version, str comparator)
{
    static const str operators[] = {S_INIT(">="), S_INIT("<="), S_INIT(">"), S_INIT("<"),
                                    S_INIT("="),  S_INIT("^"),  S_INIT("~")};
    struct version base, end;
    size_t kind = 0;
    while (kind < ARRAY_COUNT(operators) &&
           !str_strip_prefix(comparator, operators[kind], &comparator))
        kind++;
    if (!parse(comparator, true, &base))
        return false;
    /* A prerelease only when asked for by name: of the very version that the range names with one.
       */
    bool names_it = !str_is_empty(base.prerelease) &&
                    memcmp(version->numbers, base.numbers, sizeof base.numbers) == 0;
    if (!str_is_empty(version->prerelease) && !names_it)
        return false;
    end = behind(&base, base.number_count);
    int order = compare(version, &base);
    switch (kind) {
    case 0: return order >= 0;
    case 1: return order <= 0 || (base.number_count < 3 && compare(version, &end) < 0);
    case 2: return base.number_count < 3 ? compare(version, &end) >= 0 : order > 0;
    case 3: return order < 0;
    case 5: end = behind(&base, caret_fixed(&base)); return lies_between(version, &base, &end);
    case 6:
        end = behind(&base, base.number_count < 2 ? 1 : 2);
        return lies_between(version, &base, &end);
    default: /* "=1.2.3", "1.2.3", "1.2" */
        return base.number_count < 3 ? lies_between(version, &base, &end) : order == 0;
    }
}

bool semver_satisfies(str version_text, str range)
{
    struct version version;
    str comparator;
    if (!parse(version_text, false, &version))
        return false;
    range = str_trim(range);
    if (str_is_empty(range))
        return str_is_empty(version.prerelease);
    while (str_next(&range, ' ', &comparator))
        if (!str_is_empty(comparator) && !satisfies_one(&version, comparator))
            return false;
    return true;
}
