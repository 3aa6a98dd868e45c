#include "base/nearest.h"

#include "base/limits.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

/* Optimal string alignment: row i holds what it takes to make the first i letters of `a` the first j of `b`. */
static size_t changes_between(str a, str b)
{
    unsigned char rows[3][NEAREST_BYTES_MAX + 1];
    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = (unsigned char) j;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned char *row = rows[i % 3];
        const unsigned char *above = rows[(i - 1) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = (unsigned char) i;
        for (size_t j = 1; j <= b.len; j++) {
            bool is_same = lower(a.ptr[i - 1]) == lower(b.ptr[j - 1]);
            size_t least = smaller(above[j - 1] + !is_same, smaller(above[j], row[j - 1]) + 1u);
            if (i > 1 && j > 1 && lower(a.ptr[i - 1]) == lower(b.ptr[j - 2]) &&
                lower(a.ptr[i - 2]) == lower(b.ptr[j - 1]))
                least = smaller(least, two_above[j - 2] + 1u);
            row[j] = (unsigned char) least;
        }
    }
    return rows[a.len % 3][b.len];
}

struct nearest nearest_to(str word)
{
    return (struct nearest){.word = word, .distance = word.len / 3 + 2};
}

void nearest_try(struct nearest *nearest, str name)
{
    str word = nearest->word;
    if (str_is_empty(word) || word.len > NEAREST_BYTES_MAX || name.len > NEAREST_BYTES_MAX)
        return;
    size_t distance = word.len >= 2 && word.len < name.len && str_starts_with(name, word)
                          ? 1
                          : changes_between(word, name);
    if (distance < nearest->distance && distance < name.len) {
        nearest->distance = distance;
        nearest->name = name;
    }
}
