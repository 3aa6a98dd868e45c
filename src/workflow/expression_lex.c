#include "base/arena.h"
#include "workflow/expression_internal.h"

#include <stdarg.h>
#include <stdio.h>

bool expression_fail(struct error *e, enum error_reason reason, size_t at, const char *format, ...)
{
    char message[ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return error_set(e, reason, "column %zu: %s", at + 1, message);
}

static bool fail(const struct lexer *lexer, struct error *e, const char *what)
{
    return expression_fail(e, REASON_INVALID, lexer->at, "%s", what);
}

static char peek(const struct lexer *lexer, size_t ahead)
{
    size_t at = lexer->at + ahead;
    return at < lexer->text.len ? lexer->text.ptr[at] : '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    char letter = (char) (c | 0x20);
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static void skip_space(struct lexer *lexer)
{
    for (;;) {
        char c = peek(lexer, 0);
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f') {
            lexer->at++;
        } else if (c == '/' && peek(lexer, 1) == '/') {
            while (lexer->at < lexer->text.len && peek(lexer, 0) != '\n')
                lexer->at++;
        } else {
            return;
        }
    }
}

/* ---- numbers ---- */

static bool read_number(struct lexer *lexer, struct token *out, struct error *e)
{
    size_t begin = lexer->at;
    out->kind = TOKEN_INTEGER;
    if (peek(lexer, 0) == '0' && (peek(lexer, 1) | 0x20) == 'x') {
        lexer->at += 2;
        if (hex_digit(peek(lexer, 0)) < 0)
            return fail(lexer, e, "a hexadecimal number needs digits after 0x");
        while (hex_digit(peek(lexer, 0)) >= 0)
            lexer->at++;
    } else {
        while (is_digit(peek(lexer, 0)))
            lexer->at++;
        if (peek(lexer, 0) == '.' && is_digit(peek(lexer, 1))) {
            out->kind = TOKEN_DOUBLE;
            lexer->at++;
            while (is_digit(peek(lexer, 0)))
                lexer->at++;
        }
        size_t sign = peek(lexer, 1) == '+' || peek(lexer, 1) == '-';
        if ((peek(lexer, 0) | 0x20) == 'e' && is_digit(peek(lexer, 1 + sign))) {
            out->kind = TOKEN_DOUBLE;
            lexer->at += 1 + sign;
            while (is_digit(peek(lexer, 0)))
                lexer->at++;
        }
    }
    if ((peek(lexer, 0) | 0x20) == 'u')
        return fail(lexer, e, "there are no unsigned integers here; leave the u out");
    if (is_letter(peek(lexer, 0)))
        return fail(lexer, e, "a number ends where a letter stands; put a space or an operator");
    out->text = str_slice(lexer->text, begin, lexer->at);
    return true;
}

/* ---- strings ---- */

static size_t utf8_write(uint32_t point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char) point;
        return 1;
    }
    size_t count = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = count - 1; i > 0; i--, point >>= 6)
        out[i] = (char) (0x80 | (point & 0x3f));
    out[0] = (char) (heads[count] | point);
    return count;
}

/* `count` digits of a base from the current place; false when there are fewer. */
static bool read_digits(struct lexer *lexer, int base, size_t count, uint32_t *out)
{
    uint32_t value = 0;
    for (size_t i = 0; i < count; i++) {
        int digit = hex_digit(peek(lexer, i));
        if (digit < 0 || digit >= base)
            return false;
        value = value * (uint32_t) base + (uint32_t) digit;
    }
    lexer->at += count;
    *out = value;
    return true;
}

/* After a backslash. */
static bool read_escape(struct lexer *lexer, struct strbuf *to, struct error *e)
{
    static const char letters[] = "abfnrtv\\?\"'`", meanings[] = "\a\b\f\n\r\t\v\\?\"'`";
    char c = peek(lexer, 0), bytes[4];
    const char *plain = c ? strchr(letters, c) : NULL;
    uint32_t point = 0;
    bool ok;
    if (plain) {
        lexer->at++;
        strbuf_add_char(to, meanings[plain - letters]);
        return true;
    }
    if (c >= '0' && c <= '3') {
        ok = read_digits(lexer, 8, 3, &point);
    } else {
        size_t digits = c == 'x' || c == 'X' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        lexer->at += digits > 0;
        ok = digits > 0 && read_digits(lexer, 16, digits, &point);
    }
    if (!ok)
        return fail(lexer, e, "no such escape; write \\\\ for a backslash, \\n, \\x41, \\u00e9");
    if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return fail(lexer, e, "this escape names no character");
    strbuf_add(to, str_of(bytes, utf8_write(point, bytes)));
    return true;
}

static bool at_quotes(const struct lexer *lexer, char quote, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (peek(lexer, i) != quote || lexer->at + i >= lexer->text.len)
            return false;
    }
    return true;
}

static bool read_string(struct lexer *lexer, bool is_raw, struct token *out, struct error *e)
{
    char quote = peek(lexer, 0);
    size_t quotes = at_quotes(lexer, quote, 3) ? 3 : 1, begin = lexer->at;
    struct strbuf text;
    lexer->at += quotes;
    strbuf_init(&text, lexer->arena, EXPRESSION_BYTES_MAX);
    while (!at_quotes(lexer, quote, quotes)) {
        char c = peek(lexer, 0);
        if (lexer->at >= lexer->text.len || (c == '\n' && quotes == 1)) {
            lexer->at = begin;
            return fail(lexer, e, "this string has no end; close the quote");
        }
        lexer->at++;
        if (c == '\\' && !is_raw) {
            if (!read_escape(lexer, &text, e))
                return false;
        } else {
            strbuf_add_char(&text, c);
        }
    }
    lexer->at += quotes;
    out->kind = TOKEN_STRING;
    out->text = strbuf_str(&text);
    return true;
}

/* ---- all ---- */

static bool read_name(struct lexer *lexer, struct token *out)
{
    size_t begin = lexer->at;
    while (is_letter(peek(lexer, 0)) || is_digit(peek(lexer, 0)))
        lexer->at++;
    out->kind = TOKEN_NAME;
    out->text = str_slice(lexer->text, begin, lexer->at);
    return true;
}

static bool read_symbol(struct lexer *lexer, struct token *out, struct error *e)
{
    static const str symbols[] = {
        S_INIT("&&"), S_INIT("||"), S_INIT("=="), S_INIT("!="), S_INIT("<="), S_INIT(">="),
        S_INIT("<"),  S_INIT(">"),  S_INIT("+"),  S_INIT("-"),  S_INIT("*"),  S_INIT("/"),
        S_INIT("%"),  S_INIT("!"),  S_INIT("?"),  S_INIT(":"),  S_INIT("("),  S_INIT(")"),
        S_INIT("["),  S_INIT("]"),  S_INIT("{"),  S_INIT("}"),  S_INIT("."),  S_INIT(","),
    };
    str rest = str_from(lexer->text, lexer->at);
    for (size_t i = 0; i < ARRAY_COUNT(symbols); i++) {
        if (!str_starts_with(rest, symbols[i]))
            continue;
        out->kind = TOKEN_SYMBOL;
        out->text = symbols[i];
        lexer->at += symbols[i].len;
        return true;
    }
    switch (rest.ptr[0]) {
    case '=': return fail(lexer, e, "= is no operator; write == to compare");
    case '&': return fail(lexer, e, "& is no operator; write && for and");
    case '|': return fail(lexer, e, "| is no operator; write || for or");
    case '$': return fail(lexer, e, "no ${...} inside an expression; name the value itself");
    default: return fail(lexer, e, "this character has no meaning in an expression");
    }
}

bool lexer_next(struct lexer *lexer, struct token *out, struct error *e)
{
    skip_space(lexer);
    *out = (struct token){.kind = TOKEN_END, .at = (uint32_t) lexer->at};
    char c = peek(lexer, 0), next = peek(lexer, 1);
    if (lexer->at >= lexer->text.len)
        return true;
    if (is_digit(c) || (c == '.' && is_digit(next)))
        return read_number(lexer, out, e);
    if (c == '"' || c == '\'')
        return read_string(lexer, false, out, e);
    if ((c | 0x20) == 'r' && (next == '"' || next == '\'')) {
        lexer->at++;
        return read_string(lexer, true, out, e);
    }
    if ((c | 0x20) == 'b' && (next == '"' || next == '\''))
        return fail(lexer, e, "there are no strings of bytes here; leave the b out");
    if (is_letter(c))
        return read_name(lexer, out);
    return read_symbol(lexer, out, e);
}
