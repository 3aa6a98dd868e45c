#include "cell.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXACT_POWER_MAX = 22,  /* 10^22 is the largest power of ten a double holds exactly */
    MANTISSA_DIGITS = 19,  /* what fits 64 bits */
    NUMBER_TEXT_MAX = 400, /* longer than any sensible number */
    SHOWN_COLUMNS_MAX = 30,
};

/* A decimal number taken apart: mantissa * 10^exponent. */
struct decimal {
    uint64_t mantissa;
    int digits, exponent;
    bool is_negative, is_whole, has_leading_zero, is_cut;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void take_digits(const char **at, const char *end, bool is_fraction, struct decimal *d)
{
    for (; *at < end && is_digit(**at); ++*at) {
        if (d->digits < MANTISSA_DIGITS) {
            d->mantissa = d->mantissa * 10 + (uint64_t) (**at - '0');
            d->digits += d->mantissa != 0; /* leading zeros take no room */
            d->exponent -= is_fraction;
        } else {
            d->is_cut = true;
            d->exponent += !is_fraction;
        }
    }
}

static bool take_exponent(const char **at, const char *end, struct decimal *d)
{
    bool is_negative = *at < end && **at == '-';
    if (*at < end && (**at == '-' || **at == '+'))
        ++*at;
    if (*at == end)
        return false;
    int value = 0;
    for (; *at < end && is_digit(**at); ++*at)
        value = value < 100000 ? value * 10 + (**at - '0') : value;
    d->exponent += is_negative ? -value : value;
    return true;
}

static bool decimal_parse(const char *at, const char *end, struct decimal *d)
{
    if (at < end && *at == '-') {
        d->is_negative = true;
        at++;
    }
    d->is_whole = true;
    const char *whole = at;
    take_digits(&at, end, false, d);
    ptrdiff_t digits = at - whole;
    d->has_leading_zero = digits > 1 && *whole == '0';
    if (at < end && *at == '.') {
        d->is_whole = false;
        const char *fraction = ++at;
        take_digits(&at, end, true, d);
        digits += at - fraction;
    }
    if (digits == 0)
        return false;
    if (at < end && (*at == 'e' || *at == 'E')) {
        d->is_whole = false;
        at++;
        if (!take_exponent(&at, end, d))
            return false;
    }
    return at == end;
}

/* Exact when mantissa and power of ten are both exact doubles; else the C library rounds correctly. */
static double decimal_real(const struct decimal *d, const char *ptr, size_t len)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (!d->is_cut && d->mantissa <= (uint64_t) 1 << 53 && abs(d->exponent) <= EXACT_POWER_MAX) {
        double value = (double) d->mantissa;
        value = d->exponent < 0 ? value / powers[-d->exponent] : value * powers[d->exponent];
        return d->is_negative ? -value : value;
    }
    char copy[NUMBER_TEXT_MAX + 1];
    memcpy(copy, ptr, len);
    copy[len] = '\0';
    return strtod(copy, NULL);
}

bool number_parse(const char *ptr, size_t len, enum number_mode mode, struct cell *out)
{
    while (len > 0 && (*ptr == ' ' || *ptr == '\t')) {
        ptr++;
        len--;
    }
    while (len > 0 && (ptr[len - 1] == ' ' || ptr[len - 1] == '\t'))
        len--;
    struct decimal d = {0};
    if (len == 0 || len > NUMBER_TEXT_MAX || !decimal_parse(ptr, ptr + len, &d))
        return false;
    if (d.has_leading_zero && mode == NUMBER_STRICT)
        return false;
    if (d.is_whole && !d.is_cut && d.mantissa <= INT64_MAX) {
        int64_t value = (int64_t) d.mantissa;
        *out = (struct cell){.type = CELL_INT, .integer = d.is_negative ? -value : value};
        return true;
    }
    if (d.is_whole && mode == NUMBER_STRICT)
        return false;
    double real = decimal_real(&d, ptr, len);
    if (!isfinite(real))
        return false;
    *out = (struct cell){.type = CELL_REAL, .real = real};
    return true;
}

bool text_is_missing(const char *ptr, size_t len)
{
    static const char *const words[] = {"NA",   "N/A",  "n/a",  "#N/A", "NaN", "nan",
                                        "null", "NULL", "None", "-",    NULL};
    return len <= 4 && tool_choice((struct text){ptr, len}, words) >= 0;
}

void cell_resolve(struct cell *cell, enum column_kind kind)
{
    const char *ptr = cell->ptr;
    uint32_t len = cell->len;
    if (len == 0) {
        cell->type = CELL_NULL;
        return;
    }
    cell->type = CELL_TEXT;
    if (kind == KIND_TEXT)
        return;
    enum number_mode mode = kind == KIND_NUMBER ? NUMBER_LENIENT : NUMBER_STRICT;
    if (!number_parse(ptr, len, mode, cell) && kind == KIND_NUMBER && text_is_missing(ptr, len))
        cell->type = CELL_NULL;
}

bool cell_to_number(const struct cell *cell, struct cell *out)
{
    if (cell->type == CELL_TEXT)
        return number_parse(cell->ptr, cell->len, NUMBER_LENIENT, out);
    if (!cell_is_number(cell))
        return false;
    *out = *cell;
    return true;
}

static int text_compare(struct text a, struct text b)
{
    size_t shorter = a.len < b.len ? a.len : b.len;
    int order = shorter == 0 ? 0 : memcmp(a.ptr, b.ptr, shorter);
    if (order == 0)
        order = (a.len > b.len) - (a.len < b.len);
    return (order > 0) - (order < 0);
}

static int cell_rank(const struct cell *cell)
{
    switch (cell->type) {
    case CELL_BOOL: return 0;
    case CELL_INT:
    case CELL_REAL: return 1;
    case CELL_TEXT:
    case CELL_RAW: return 2;
    case CELL_NULL:
    default: return 3;
    }
}

int cell_compare(const struct cell *a, const struct cell *b)
{
    int rank = cell_rank(a);
    if (rank != cell_rank(b))
        return rank < cell_rank(b) ? -1 : 1;
    if (rank == 0)
        return a->boolean - b->boolean;
    if (rank == 2)
        return text_compare(cell_text(a), cell_text(b));
    if (rank == 3)
        return 0;
    if (a->type == CELL_INT && b->type == CELL_INT)
        return (a->integer > b->integer) - (a->integer < b->integer);
    double x = cell_real(a), y = cell_real(b);
    return (x > y) - (x < y);
}

bool cell_equal(const struct cell *a, const struct cell *b)
{
    if (a->type == CELL_TEXT && b->type == CELL_TEXT)
        return text_equal(cell_text(a), cell_text(b));
    return cell_compare(a, b) == 0;
}

static uint64_t mix(uint64_t hash)
{
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93u;
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93u;
    return hash ^ hash >> 32;
}

static uint64_t hash_bytes(const char *ptr, size_t len, uint64_t hash)
{
    uint64_t word;
    for (; len >= 8; ptr += 8, len -= 8) {
        memcpy(&word, ptr, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    word = len;
    for (size_t i = 0; i < len; i++)
        word = word << 8 | (unsigned char) ptr[i];
    return mix((hash ^ word) * 0x9e3779b97f4a7c15u);
}

uint64_t cell_hash(const struct cell *cell, uint64_t seed)
{
    uint64_t bits = 0;
    switch (cell->type) {
    case CELL_TEXT:
    case CELL_RAW: return hash_bytes(cell->ptr, cell->len, seed ^ 0x243f6a8885a308d3u);
    case CELL_INT: bits = (uint64_t) cell->integer; break;
    case CELL_REAL:
        if (cell->real >= -9e15 && cell->real <= 9e15 &&
            cell->real == (double) (int64_t) cell->real)
            bits = (uint64_t) (int64_t) cell->real;
        else
            memcpy(&bits, &cell->real, sizeof bits);
        break;
    case CELL_BOOL: bits = cell->boolean ? 0x517cc1b727220a95u : 0x2545f4914f6cdd1du; break;
    case CELL_NULL: bits = 0x6a09e667f3bcc909u; break;
    }
    return mix(seed + bits * 0x9e3779b97f4a7c15u + 1);
}

bool cell_keep(struct pool *pool, const struct cell *from, struct cell *to)
{
    *to = *from;
    if (from->type != CELL_TEXT && from->type != CELL_RAW)
        return true;
    to->ptr = pool_copy(pool, from->ptr, from->len);
    return to->ptr != NULL;
}

static bool equal_but_case(struct text a, struct text b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        char x = a.ptr[i], y = b.ptr[i];
        x = x >= 'A' && x <= 'Z' ? (char) (x + 32) : x;
        y = y >= 'A' && y <= 'Z' ? (char) (y + 32) : y;
        if (x != y)
            return false;
    }
    return true;
}

bool schema_find(const struct schema *schema, struct text name, size_t *index, struct tool_error *e)
{
    char known[400];
    size_t used = 0;
    for (size_t i = 0; i < schema->count; i++) {
        struct text column = schema->columns[i].name;
        if (text_equal(column, name)) {
            *index = i;
            return true;
        }
        if (equal_but_case(column, name))
            return tool_fail(e, "invalid_input",
                             "no column \"" TEXT_FMT "\"; did you mean \"" TEXT_FMT "\"?",
                             TEXT_ARG(name), TEXT_ARG(column));
        if (i < SHOWN_COLUMNS_MAX && used < sizeof known - 1) {
            int n = snprintf(known + used, sizeof known - used, "%s" TEXT_FMT, i == 0 ? "" : ", ",
                             TEXT_ARG(column));
            used += n < 0 ? 0 : (size_t) n;
        }
    }
    return tool_fail(e, "invalid_input",
                     "no column \"" TEXT_FMT "\" at this step; the columns are: %s%s",
                     TEXT_ARG(name), schema->count == 0 ? "(none)" : known,
                     schema->count > SHOWN_COLUMNS_MAX ? ", ..." : "");
}
