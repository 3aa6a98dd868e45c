/* check digits and ranges, from the issuers' published rules */
#include "filter/validate_internal.h"

#include <ctype.h>

enum { DIGITS_MAX = 40 };
struct digits {
    int d[DIGITS_MAX];
    size_t count;
};

static struct digits digits_of(str text)
{
    struct digits out = {.count = 0};
    for (size_t i = 0; i < text.len && out.count < DIGITS_MAX; i++)
        if (isdigit((unsigned char) text.ptr[i]))
            out.d[out.count++] = text.ptr[i] - '0';
    return out;
}

static bool are_all_equal(const struct digits *n)
{
    for (size_t i = 1; i < n->count; i++)
        if (n->d[i] != n->d[0])
            return false;
    return true;
}

static int number_at(const struct digits *n, size_t from, size_t count)
{
    int value = 0;
    for (size_t i = from; i < from + count && i < n->count; i++)
        value = value * 10 + n->d[i];
    return value;
}

static int weighted(const struct digits *n, const int *weights, size_t count)
{
    int sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += n->d[i] * weights[i];
    return sum;
}

static bool is_date(int month, int day)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1];
}

static bool passes_luhn(const int *d, size_t count)
{
    int sum = 0;
    for (size_t i = 0; i < count; i++) {
        int digit = d[count - 1 - i];
        if (i % 2 == 1 && (digit *= 2) > 9)
            digit -= 9;
        sum += digit;
    }
    return sum % 10 == 0;
}

/* Letters and digits without separators, in capitals. */
static size_t squeeze(str text, char *out, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len && count < max; i++)
        if (isalnum((unsigned char) text.ptr[i]))
            out[count++] = (char) toupper((unsigned char) text.ptr[i]);
    return count;
}

/* ---- addresses, cards, accounts, phones ---- */

bool check_email(str match)
{
    str local, domain;
    if (!str_cut(match, '@', &local, &domain) || local.len > 64 || domain.len > 253)
        return false;
    if (str_find(match, S("..")) != STR_NOT_FOUND || str_ends_with(local, S(".")))
        return false;
    /* "logo@2x.png": a file, not a host */
    static const str files[] = {S_INIT(".png"), S_INIT(".jpg"), S_INIT(".jpeg"),
                                S_INIT(".gif"), S_INIT(".svg"), S_INIT(".webp")};
    for (size_t i = 0; i < ARRAY_COUNT(files); i++)
        if (str_ends_with(domain, files[i]))
            return false;
    return true;
}

bool check_card(str match)
{
    struct digits n = digits_of(match);
    if (n.count < 13 || n.count > 19)
        return false;
    int two = number_at(&n, 0, 2), four = number_at(&n, 0, 4);
    size_t c = n.count;
    bool is_issued =
        (n.d[0] == 4 && (c == 13 || c == 16 || c == 19)) || /* Visa */
        (c == 16 &&
         ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720))) || /* Mastercard */
        (c == 15 && (two == 34 || two == 37)) ||                          /* Amex */
        (c >= 16 && (four == 6011 || two == 65 || (four >= 6440 && four <= 6499))) || /* Discover */
        (c >= 16 && two == 62) ||                                                     /* UnionPay */
        (c >= 16 && four >= 3528 && four <= 3589) ||                                  /* JCB */
        (c >= 14 && (two == 36 || two == 38 || two == 39 || (four >= 3000 && four <= 3059))) ||
        (two == 50 || (two >= 56 && two <= 58) || two == 67 || two == 63); /* Maestro */
    return is_issued && !are_all_equal(&n) && passes_luhn(n.d, n.count);
}

/* Country and length of its IBAN (SWIFT's registry). */
static size_t iban_length(const char *country)
{
    static const char table[] =
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29"
        "ES24FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20"
        "LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29"
        "PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20"
        "YE30";
    for (size_t i = 0; i + 4 <= sizeof table - 1; i += 4)
        if (table[i] == country[0] && table[i + 1] == country[1])
            return (size_t) ((table[i + 2] - '0') * 10 + table[i + 3] - '0');
    return 0;
}

bool check_iban(str match)
{
    char text[40];
    size_t wanted = 0, count = squeeze(str_slice(match, 0, 2), text, sizeof text);
    if (count == 2)
        wanted = iban_length(text);
    if (wanted == 0 || match.len < wanted || squeeze(match, text, sizeof text) != wanted)
        return false;
    count = wanted;
    int rest = 0;
    for (size_t i = 0; i < count; i++) {
        char c = text[(i + 4) % count];
        int value = c <= '9' ? c - '0' : c - 'A' + 10;
        rest = (rest * (value > 9 ? 100 : 10) + value) % 97;
    }
    return rest == 1;
}

bool check_phone(str match)
{
    struct digits n = digits_of(match);
    size_t prefix = n.count > 2 && n.d[0] == 0 && n.d[1] == 0 ? 2 : 0;
    return n.count - prefix >= 8 && n.count - prefix <= 15 && !are_all_equal(&n);
}

bool check_nanp(str match)
{
    struct digits n = digits_of(match);
    size_t from = n.count == 11 && n.d[0] == 1;
    return n.count - from == 10 && n.d[from] >= 2 && n.d[from + 3] >= 2 &&
           !(n.d[from + 1] == 1 && n.d[from + 2] == 1);
}

/* ---- national identity numbers ---- */

bool check_us_ssn(str match)
{
    struct digits n = digits_of(match);
    int area = number_at(&n, 0, 3), group = number_at(&n, 3, 2), serial = number_at(&n, 5, 4);
    return n.count == 9 && area != 0 && area != 666 && area < 900 && group != 0 && serial != 0 &&
           !are_all_equal(&n) && number_at(&n, 0, 9) != 123456789;
}

bool check_de_tax_id(str match)
{
    struct digits n = digits_of(match);
    int seen[10] = {0}, product = 10, doubled = 0, tripled = 0, missing = 0;
    if (n.count != 11 || n.d[0] == 0)
        return false;
    for (size_t i = 0; i < 10; i++) {
        seen[n.d[i]]++;
        int sum = (n.d[i] + product) % 10;
        product = (sum == 0 ? 10 : sum) * 2 % 11;
    }
    for (size_t i = 0; i < 10; i++) {
        doubled += seen[i] == 2;
        tripled += seen[i] == 3;
        missing += seen[i] == 0;
    }
    /* Of the first ten digits one is there two or three times, the others at most once. */
    bool is_mixed = (doubled == 1 && tripled == 0 && missing == 1) ||
                    (doubled == 0 && tripled == 1 && missing == 2);
    return is_mixed && (11 - product) % 10 == n.d[10];
}

bool check_fr_nir(str match)
{
    char text[16];
    if (squeeze(match, text, sizeof text) != 15)
        return false;
    int64_t number = 0;
    for (size_t i = 0; i < 13; i++) {
        int digit = text[i] - '0';
        if (i == 6 && (text[i] == 'A' || text[i] == 'B')) /* Corsica: 2A counts as 19, 2B as 18 */
            number -= text[i] == 'A' ? 1 : 2, digit = 0;
        if (digit < 0 || digit > 9)
            return false;
        number = number * 10 + digit;
    }
    int month = (text[3] - '0') * 10 + text[4] - '0';
    bool is_month = (month >= 1 && month <= 12) || (month >= 20 && month <= 42) || month >= 50;
    return is_month && 97 - number % 97 == (text[13] - '0') * 10 + text[14] - '0';
}

bool check_es_dni(str match)
{
    static const char letters[] = "TRWAGMYFPDXBNJZSQVHLCKE";
    char text[10];
    if (squeeze(match, text, sizeof text) != 9)
        return false;
    int number = text[0] == 'X' ? 0 : text[0] == 'Y' ? 1 : text[0] == 'Z' ? 2 : text[0] - '0';
    for (size_t i = 1; i < 8; i++)
        number = number * 10 + text[i] - '0';
    return letters[number % 23] == text[8];
}

bool check_it_fiscal(str match)
{
    /* Values at odd places, of 0-9 and of A-Z (A and 0 are the same). */
    static const int odd[] = {1,  0,  5, 7, 9, 13, 15, 17, 19, 21, 2,  4,  18,
                              20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23};
    char text[17];
    if (squeeze(match, text, sizeof text) != 16)
        return false;
    int sum = 0;
    for (size_t i = 0; i < 15; i++) {
        int value = isdigit((unsigned char) text[i]) ? text[i] - '0' : text[i] - 'A';
        sum += i % 2 == 0 ? odd[value] : value;
    }
    return text[15] == 'A' + sum % 26;
}

bool check_uk_nino(str match)
{
    char text[10];
    if (squeeze(match, text, sizeof text) != 9)
        return false;
    static const char *const unused[] = {"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"};
    for (size_t i = 0; i < ARRAY_COUNT(unused); i++)
        if (memcmp(text, unused[i], 2) == 0)
            return false;
    return !strchr("DFIQUV", text[0]) && !strchr("DFIOQUV", text[1]) && strchr("ABCD", text[8]);
}

bool check_br_cpf(str match)
{
    struct digits n = digits_of(match);
    if (n.count != 11 || are_all_equal(&n))
        return false;
    for (size_t at = 9; at < 11; at++) {
        int sum = 0;
        for (size_t i = 0; i < at; i++)
            sum += n.d[i] * (int) (at + 1 - i);
        if (sum * 10 % 11 % 10 != n.d[at])
            return false;
    }
    return true;
}

bool check_pl_pesel(str match)
{
    static const int weights[] = {1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1};
    struct digits n = digits_of(match);
    return n.count == 11 && is_date(number_at(&n, 2, 2) % 20, number_at(&n, 4, 2)) &&
           weighted(&n, weights, 11) % 10 == 0;
}

bool check_nl_bsn(str match)
{
    static const int weights[] = {9, 8, 7, 6, 5, 4, 3, 2, -1};
    struct digits n = digits_of(match);
    return n.count == 9 && !are_all_equal(&n) && weighted(&n, weights, 9) % 11 == 0;
}

bool check_se_personal(str match)
{
    struct digits n = digits_of(match);
    if (n.count != 10 && n.count != 12)
        return false;
    const int *d = n.d + (n.count - 10);
    int day = d[4] * 10 + d[5];
    return is_date(d[2] * 10 + d[3], day > 60 ? day - 60 : day) && passes_luhn(d, 10);
}

bool check_fi_hetu(str match)
{
    static const char letters[] = "0123456789ABCDEFHJKLMNPRSTUVWXY";
    if (match.len != 11)
        return false;
    struct digits n = digits_of(str_slice(match, 0, 6)),
                  serial = digits_of(str_slice(match, 7, 10));
    int number = number_at(&n, 0, 6) * 1000 + number_at(&serial, 0, 3);
    return n.count == 6 && serial.count == 3 && is_date(number_at(&n, 2, 2), number_at(&n, 0, 2)) &&
           letters[number % 31] == match.ptr[10];
}

bool check_no_birth(str match)
{
    static const int first[] = {3, 7, 6, 1, 8, 9, 4, 5, 2, 1};
    static const int second[] = {5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1};
    struct digits n = digits_of(match);
    if (n.count != 11)
        return false;
    int day = number_at(&n, 0, 2), month = number_at(&n, 2, 2);
    return is_date(month > 40 ? month - 40 : month, day > 40 ? day - 40 : day) &&
           weighted(&n, first, 10) % 11 == 0 && weighted(&n, second, 11) % 11 == 0;
}

bool check_be_national(str match)
{
    struct digits n = digits_of(match);
    int64_t number = number_at(&n, 0, 9);
    int check = number_at(&n, 9, 2);
    return n.count == 11 && is_date(number_at(&n, 2, 2) % 20, number_at(&n, 4, 2)) &&
           (97 - number % 97 == check || 97 - (INT64_C(2000000000) + number) % 97 == check);
}

bool check_ch_ahv(str match)
{
    static const int weights[] = {1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1};
    struct digits n = digits_of(match);
    return n.count == 13 && number_at(&n, 0, 3) == 756 && weighted(&n, weights, 13) % 10 == 0;
}

/* Verhoeff: the dihedral group of the pentagon, with a permutation by place. */
bool check_in_aadhaar(str match)
{
    static const unsigned char permute[8][10] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 5, 7, 6, 2, 8, 3, 0, 9, 4},
        {5, 8, 0, 3, 7, 9, 6, 1, 4, 2}, {8, 9, 1, 6, 0, 4, 3, 5, 2, 7},
        {9, 4, 5, 3, 1, 2, 6, 8, 7, 0}, {4, 2, 8, 6, 5, 7, 3, 9, 0, 1},
        {2, 7, 9, 3, 8, 0, 6, 4, 1, 5}, {7, 0, 4, 6, 9, 1, 3, 2, 5, 8}};
    struct digits n = digits_of(match);
    int c = 0;
    if (n.count != 12 || n.d[0] < 2)
        return false;
    for (size_t i = 0; i < 12; i++) {
        int p = permute[i % 8][n.d[11 - i]];
        bool is_turned = c >= 5; /* 0-4 turn, 5-9 mirror */
        int a = c % 5, b = p % 5;
        c = is_turned ? (p >= 5 ? (a - b + 5) % 5 : (a - b + 5) % 5 + 5)
                      : (p >= 5 ? (a + b) % 5 + 5 : (a + b) % 5);
    }
    return c == 0;
}

bool check_ca_sin(str match)
{
    struct digits n = digits_of(match);
    return n.count == 9 && n.d[0] != 0 && n.d[0] != 8 && !are_all_equal(&n) && passes_luhn(n.d, 9);
}

bool check_cn_resident(str match)
{
    static const int weights[] = {7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2};
    static const char letters[] = "10X98765432";
    struct digits n = digits_of(match);
    int year = number_at(&n, 6, 4);
    return match.len == 18 && n.count >= 17 && year >= 1900 && year <= 2100 &&
           is_date(number_at(&n, 10, 2), number_at(&n, 12, 2)) &&
           letters[weighted(&n, weights, 17) % 11] == toupper((unsigned char) match.ptr[17]);
}

bool check_kr_rrn(str match)
{
    static const int weights[] = {2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5};
    struct digits n = digits_of(match);
    return n.count == 13 && is_date(number_at(&n, 2, 2), number_at(&n, 4, 2)) &&
           (11 - weighted(&n, weights, 12) % 11) % 10 == n.d[12];
}

/* ---- tokens ---- */

bool check_mixed(str match)
{
    bool has_letter = false, has_digit = false;
    for (size_t i = 0; i < match.len; i++) {
        has_letter = has_letter || isalpha((unsigned char) match.ptr[i]);
        has_digit = has_digit || isdigit((unsigned char) match.ptr[i]);
    }
    return has_letter && has_digit;
}
