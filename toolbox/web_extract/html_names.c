#include "html_names.h"

#include <string.h>
#include <strings.h>

const char *const html_raw_names[] = {"script",  "style",    "title",  "textarea", "xmp",
                                      "noembed", "noframes", "iframe", NULL};
const char *const html_skipped_names[] = {"template", "svg",   "math",   "object",   "canvas",
                                          "audio",    "video", "select", "datalist", NULL};
const char *const html_void_names[] = {"area",  "base",   "br",    "col",  "embed",
                                       "hr",    "img",    "input", "link", "meta",
                                       "param", "source", "track", "wbr",  NULL};
const char *const html_optional_end_names[] = {"p",  "li", "td",     "th", "tr",
                                               "dt", "dd", "option", NULL};
const char *const html_paragraph_names[] = {
    "p",  "blockquote", "table", "dl", "figure", "pre", "article",  "section", "h1", "h2",
    "h3", "h4",         "h5",    "h6", "ul",     "ol",  "fieldset", "details", NULL};
const char *const html_block_names[] = {
    "div",     "header", "footer", "main",   "nav",        "aside",  "address",
    "form",    "dt",     "dd",     "li",     "figcaption", "tr",     "caption",
    "summary", "body",   "head",   "html",   "option",     "thead",  "tbody",
    "tfoot",   "legend", "label",  "hgroup", "search",     "dialog", NULL};

bool html_name_is(const char *const *names, const char *name, size_t len)
{
    for (; *names; names++)
        if (strlen(*names) == len && strncasecmp(*names, name, len) == 0)
            return true;
    return false;
}

const struct html_entity_name html_entities[] = {
    {"amp", '&'},       {"AMP", '&'},      {"lt", '<'},        {"LT", '<'},
    {"gt", '>'},        {"GT", '>'},       {"quot", '"'},      {"QUOT", '"'},
    {"apos", '\''},     {"nbsp", 0xa0},    {"iexcl", 0xa1},    {"cent", 0xa2},
    {"pound", 0xa3},    {"curren", 0xa4},  {"yen", 0xa5},      {"brvbar", 0xa6},
    {"sect", 0xa7},     {"uml", 0xa8},     {"copy", 0xa9},     {"ordf", 0xaa},
    {"laquo", 0xab},    {"not", 0xac},     {"shy", 0xad},      {"reg", 0xae},
    {"macr", 0xaf},     {"deg", 0xb0},     {"plusmn", 0xb1},   {"sup2", 0xb2},
    {"sup3", 0xb3},     {"acute", 0xb4},   {"micro", 0xb5},    {"para", 0xb6},
    {"middot", 0xb7},   {"cedil", 0xb8},   {"sup1", 0xb9},     {"ordm", 0xba},
    {"raquo", 0xbb},    {"frac14", 0xbc},  {"frac12", 0xbd},   {"frac34", 0xbe},
    {"iquest", 0xbf},   {"Agrave", 0xc0},  {"Aacute", 0xc1},   {"Acirc", 0xc2},
    {"Atilde", 0xc3},   {"Auml", 0xc4},    {"Aring", 0xc5},    {"AElig", 0xc6},
    {"Ccedil", 0xc7},   {"Egrave", 0xc8},  {"Eacute", 0xc9},   {"Ecirc", 0xca},
    {"Euml", 0xcb},     {"Igrave", 0xcc},  {"Iacute", 0xcd},   {"Icirc", 0xce},
    {"Iuml", 0xcf},     {"ETH", 0xd0},     {"Ntilde", 0xd1},   {"Ograve", 0xd2},
    {"Oacute", 0xd3},   {"Ocirc", 0xd4},   {"Otilde", 0xd5},   {"Ouml", 0xd6},
    {"times", 0xd7},    {"Oslash", 0xd8},  {"Ugrave", 0xd9},   {"Uacute", 0xda},
    {"Ucirc", 0xdb},    {"Uuml", 0xdc},    {"Yacute", 0xdd},   {"THORN", 0xde},
    {"szlig", 0xdf},    {"agrave", 0xe0},  {"aacute", 0xe1},   {"acirc", 0xe2},
    {"atilde", 0xe3},   {"auml", 0xe4},    {"aring", 0xe5},    {"aelig", 0xe6},
    {"ccedil", 0xe7},   {"egrave", 0xe8},  {"eacute", 0xe9},   {"ecirc", 0xea},
    {"euml", 0xeb},     {"igrave", 0xec},  {"iacute", 0xed},   {"icirc", 0xee},
    {"iuml", 0xef},     {"eth", 0xf0},     {"ntilde", 0xf1},   {"ograve", 0xf2},
    {"oacute", 0xf3},   {"ocirc", 0xf4},   {"otilde", 0xf5},   {"ouml", 0xf6},
    {"divide", 0xf7},   {"oslash", 0xf8},  {"ugrave", 0xf9},   {"uacute", 0xfa},
    {"ucirc", 0xfb},    {"uuml", 0xfc},    {"yacute", 0xfd},   {"thorn", 0xfe},
    {"yuml", 0xff},     {"OElig", 0x152},  {"oelig", 0x153},   {"Scaron", 0x160},
    {"scaron", 0x161},  {"Yuml", 0x178},   {"fnof", 0x192},    {"circ", 0x2c6},
    {"tilde", 0x2dc},   {"Alpha", 0x391},  {"Beta", 0x392},    {"Gamma", 0x393},
    {"Delta", 0x394},   {"Omega", 0x3a9},  {"alpha", 0x3b1},   {"beta", 0x3b2},
    {"gamma", 0x3b3},   {"delta", 0x3b4},  {"epsilon", 0x3b5}, {"lambda", 0x3bb},
    {"mu", 0x3bc},      {"pi", 0x3c0},     {"sigma", 0x3c3},   {"omega", 0x3c9},
    {"ensp", 0x2002},   {"emsp", 0x2003},  {"thinsp", 0x2009}, {"zwnj", 0x200c},
    {"zwj", 0x200d},    {"lrm", 0x200e},   {"rlm", 0x200f},    {"ndash", 0x2013},
    {"mdash", 0x2014},  {"lsquo", 0x2018}, {"rsquo", 0x2019},  {"sbquo", 0x201a},
    {"ldquo", 0x201c},  {"rdquo", 0x201d}, {"bdquo", 0x201e},  {"dagger", 0x2020},
    {"Dagger", 0x2021}, {"bull", 0x2022},  {"hellip", 0x2026}, {"permil", 0x2030},
    {"prime", 0x2032},  {"Prime", 0x2033}, {"lsaquo", 0x2039}, {"rsaquo", 0x203a},
    {"euro", 0x20ac},   {"trade", 0x2122}, {"larr", 0x2190},   {"uarr", 0x2191},
    {"rarr", 0x2192},   {"darr", 0x2193},  {"harr", 0x2194},   {"forall", 0x2200},
    {"part", 0x2202},   {"exist", 0x2203}, {"empty", 0x2205},  {"nabla", 0x2207},
    {"isin", 0x2208},   {"sum", 0x2211},   {"minus", 0x2212},  {"radic", 0x221a},
    {"infin", 0x221e},  {"cap", 0x2229},   {"cup", 0x222a},    {"int", 0x222b},
    {"asymp", 0x2248},  {"ne", 0x2260},    {"equiv", 0x2261},  {"le", 0x2264},
    {"ge", 0x2265},     {"sub", 0x2282},   {"sup", 0x2283},    {"hearts", 0x2665},
    {"lbrack", '['},    {"rbrack", ']'},   {"lpar", '('},      {"rpar", ')'},
    {"comma", ','},     {"period", '.'},   {"colon", ':'},     {"semi", ';'},
    {"excl", '!'},      {"quest", '?'},    {"num", '#'},       {"dollar", '$'},
    {"percnt", '%'},    {"ast", '*'},      {"plus", '+'},      {"equals", '='},
    {"sol", '/'},       {"bsol", '\\'},    {"lowbar", '_'},    {"NewLine", '\n'},
    {"Tab", '\t'},      {"check", 0x2713},
};
const size_t html_entity_count = sizeof html_entities / sizeof html_entities[0];
