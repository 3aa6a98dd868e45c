#include "net/egress.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "net/dns.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>

struct range {
    sa_family_t family;
    uint8_t bits;
    uint8_t bytes[16];
};

struct egress_rules {
    struct arena *arena;
    str *hosts; /* lower case; literals without brackets */
    size_t host_count;
    struct range *blocked, *allowed;
    size_t blocked_count, allowed_count;
};

/* IANA's special-purpose registries (RFC 6890 and successors), multicast, reserved space, and the
   metadata services that live outside those. */
static const char *const refused_ranges[] = {
    "0.0.0.0/8",      "10.0.0.0/8",        "100.64.0.0/10",   "127.0.0.0/8",      "169.254.0.0/16",
    "172.16.0.0/12",  "192.0.0.0/24",      "192.0.2.0/24",    "192.31.196.0/24",  "192.52.193.0/24",
    "192.88.99.0/24", "192.168.0.0/16",    "192.175.48.0/24", "198.18.0.0/15",    "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4",       "240.0.0.0/4",     "168.63.129.16/32", "::/8",
    "64:ff9b::/96",   "64:ff9b:1::/48",    "100::/64",        "2001::/23",        "2001:db8::/32",
    "2002::/16",      "2620:4f:8000::/48", "3fff::/20",       "5f00::/16",        "fc00::/7",
    "fe80::/10",      "fec0::/10",         "ff00::/8",
};
/* All unicast that is routed today; what lies outside is not the public Internet. */
static const char global_unicast_v6[] = "2000::/3";

/* ---- ranges ---- */

static bool range_of_literal(str text, struct range *out)
{
    union dns_address address;
    if (!dns_parse_literal(text, 0, &address))
        return false;
    bool is_v4 = address.any.sa_family == AF_INET;
    *out = (struct range){.family = address.any.sa_family, .bits = is_v4 ? 32 : 128};
    memcpy(out->bytes, is_v4 ? (const void *) &address.v4.sin_addr : &address.v6.sin6_addr,
           is_v4 ? 4 : 16);
    return true;
}

/* "192.168.*", "10.*", "10.*.*.*": octets, then only stars. */
static bool range_of_stars(str text, struct range *out)
{
    str part;
    size_t count = 0;
    bool has_star = false;
    *out = (struct range){.family = AF_INET};
    while (str_next(&text, '.', &part)) {
        uint64_t octet;
        if (++count > 4)
            return false;
        if (str_equal(part, S("*"))) {
            has_star = true;
            continue;
        }
        bool is_octet = !has_star && part.len <= 3 && (part.len == 1 || part.ptr[0] != '0') &&
                        str_to_u64(part, &octet) && octet <= 255;
        if (!is_octet)
            return false;
        out->bytes[count - 1] = (uint8_t) octet;
        out->bits = (uint8_t) (count * 8);
    }
    return has_star && count > 1;
}

static bool range_parse(str text, struct range *out)
{
    str address, bits_text;
    uint64_t bits;
    if (!str_cut(text, '/', &address, &bits_text))
        return range_of_literal(text, out) || range_of_stars(text, out);
    if (!range_of_literal(address, out) || !str_to_u64(bits_text, &bits) || bits > out->bits)
        return false;
    out->bits = (uint8_t) bits;
    return true;
}

static bool range_holds(const struct range *range, const struct range *address)
{
    if (range->family != address->family)
        return false;
    size_t whole = range->bits / 8, rest = range->bits % 8;
    if (memcmp(range->bytes, address->bytes, whole) != 0)
        return false;
    uint8_t mask = (uint8_t) (0xff00 >> rest);
    return rest == 0 || ((range->bytes[whole] ^ address->bytes[whole]) & mask) == 0;
}

static bool any_holds(const struct range *ranges, size_t count, const struct range *address)
{
    for (size_t i = 0; i < count; i++) {
        if (range_holds(&ranges[i], address))
            return true;
    }
    return false;
}

/* The IPv4 address inside a mapped, compatible, NAT64 or 6to4 one. */
static bool embedded_v4(const struct range *address, struct range *out)
{
    static const uint8_t zeros[12], mapped[12] = {[10] = 0xff, [11] = 0xff},
                                    nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    const uint8_t *bytes = address->bytes;
    size_t at = 12;
    if (address->family != AF_INET6)
        return false;
    if (bytes[0] == 0x20 && bytes[1] == 0x02)
        at = 2;
    else if (memcmp(bytes, zeros, 12) != 0 && memcmp(bytes, mapped, 12) != 0 &&
             memcmp(bytes, nat64, 12) != 0)
        return false;
    *out = (struct range){.family = AF_INET, .bits = 32};
    memcpy(out->bytes, bytes + at, 4);
    return true;
}

static bool is_refused_by_nature(const struct range *address)
{
    struct range range;
    for (size_t i = 0; i < ARRAY_COUNT(refused_ranges); i++) {
        ensure(range_parse(str_from_cstr(refused_ranges[i]), &range));
        if (range_holds(&range, address))
            return true;
    }
    ensure(range_parse(str_from_cstr(global_unicast_v6), &range));
    return address->family == AF_INET6 && !range_holds(&range, address);
}

bool egress_check_address(const struct egress_rules *rules, const struct sockaddr *address,
                          struct error *e)
{
    struct range target = {.family = address->sa_family}, inner;
    char text[INET6_ADDRSTRLEN];
    if (address->sa_family == AF_INET) {
        memcpy(target.bytes, &((const struct sockaddr_in *) address)->sin_addr, 4);
        target.bits = 32;
    } else if (address->sa_family == AF_INET6) {
        memcpy(target.bytes, &((const struct sockaddr_in6 *) address)->sin6_addr, 16);
        target.bits = 128;
    } else {
        return error_set(e, REASON_EGRESS_BLOCKED, "neither an IPv4 nor an IPv6 address");
    }
    const char *readable = dns_address_text(address, text, sizeof(text));
    bool is_blocked =
        any_holds(rules->blocked, rules->blocked_count, &target) ||
        (embedded_v4(&target, &inner) && any_holds(rules->blocked, rules->blocked_count, &inner));
    if (is_blocked)
        return error_set(e, REASON_EGRESS_BLOCKED, "the address %s is blocked", readable);
    if (any_holds(rules->allowed, rules->allowed_count, &target))
        return true;
    if (is_refused_by_nature(&target))
        return error_set(e, REASON_EGRESS_BLOCKED, "the address %s is not on the public Internet",
                         readable);
    return true;
}

/* ---- hosts ---- */

static str without_end_dot(str host)
{
    return host.len > 1 && host.ptr[host.len - 1] == '.' ? str_slice(host, 0, host.len - 1) : host;
}

static bool host_pattern_is_wellformed(str pattern)
{
    str name = pattern, address = pattern;
    union dns_address ignored;
    if (str_equal(pattern, S("*")))
        return true;
    if (str_strip_prefix(pattern, S("["), &address) && str_ends_with(address, S("]")))
        address.len--;
    if (dns_parse_literal(address, 0, &ignored))
        return true;
    (void) str_strip_prefix(pattern, S("*."), &name);
    if (name.len == 0 || name.len > 253 || name.ptr[0] == '.' || dns_host_is_odd_number(name))
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char) name.ptr[i];
        if (!isalnum(c) && c != '.' && c != '-' && c != '_')
            return false;
    }
    return true;
}

static bool host_matches(str pattern, str host, bool is_literal)
{
    struct range one, other;
    str suffix;
    if (str_equal(pattern, S("*")))
        return true;
    if (is_literal)
        return range_of_literal(pattern, &one) && range_of_literal(host, &other) &&
               one.bits == other.bits && range_holds(&one, &other);
    if (!str_strip_prefix(pattern, S("*"), &suffix)) /* leaves ".safe-domain.com" */
        return str_equal_nocase(pattern, host);
    return host.len > suffix.len && str_equal_nocase(str_from(host, host.len - suffix.len), suffix);
}

bool egress_check_host(const struct egress_rules *rules, str host, struct error *e)
{
    union dns_address ignored;
    host = without_end_dot(host);
    bool is_literal = dns_parse_literal(host, 0, &ignored);
    for (size_t i = 0; i < rules->host_count; i++) {
        if (host_matches(rules->hosts[i], host, is_literal))
            return true;
    }
    return error_set(e, REASON_EGRESS_BLOCKED,
                     "the host \"" STR_FMT "\" is not in the list of allowed hosts", STR_ARG(host));
}

/* ---- rules ---- */

static bool take_ranges(struct arena *arena, const str *patterns, size_t count, struct range **out,
                        size_t *out_count, struct error *e)
{
    *out = ARENA_ARRAY(arena, struct range, count * 2 + 1);
    for (size_t i = 0; i < count; i++) {
        if (str_equal(patterns[i], S("*"))) {
            (*out)[(*out_count)++] = (struct range){.family = AF_INET};
            (*out)[(*out_count)++] = (struct range){.family = AF_INET6};
        } else if (!range_parse(patterns[i], &(*out)[(*out_count)++])) {
            return error_set(e, REASON_CONFIG,
                             "\"" STR_FMT
                             "\" is no address pattern: write 10.1.2.3, 10.*, 10.0.0.0/8 "
                             "or fd00::/8",
                             STR_ARG(patterns[i]));
        }
    }
    return true;
}

static bool take_hosts(struct egress_rules *rules, const str *patterns, size_t count,
                       struct error *e)
{
    rules->hosts = ARENA_ARRAY(rules->arena, str, count + 1);
    for (size_t i = 0; i < count; i++) {
        str pattern = patterns[i];
        if (!host_pattern_is_wellformed(pattern))
            return error_set(e, REASON_CONFIG,
                             "\"" STR_FMT "\" is no host pattern: write api.example.com or "
                             "*.example.com",
                             STR_ARG(pattern));
        if (str_starts_with(pattern, S("[")))
            pattern = str_slice(pattern, 1, pattern.len - 1);
        rules->hosts[rules->host_count++] = str_lower(rules->arena, without_end_dot(pattern));
    }
    return true;
}

bool egress_rules_create(const struct egress_options *options, struct egress_rules **out,
                         struct error *e)
{
    size_t most = EGRESS_PATTERNS_MAX;
    if (options->allowed_host_count > most || options->blocked_ip_count > most ||
        options->allowed_ip_count > most)
        return error_set(e, REASON_LIMIT, "more than %zu patterns in a list of hosts or addresses",
                         most);
    OWNED(egress_rules) rules = calloc(1, sizeof(*rules));
    ensure(rules != NULL);
    rules->arena = arena_create(0);
    if (!take_hosts(rules, options->allowed_hosts, options->allowed_host_count, e) ||
        !take_ranges(rules->arena, options->blocked_ips, options->blocked_ip_count, &rules->blocked,
                     &rules->blocked_count, e) ||
        !take_ranges(rules->arena, options->allowed_ips, options->allowed_ip_count, &rules->allowed,
                     &rules->allowed_count, e))
        return false;
    *out = GIVE(rules);
    return true;
}

void egress_rules_destroy(struct egress_rules *rules)
{
    if (!rules)
        return;
    arena_destroy(rules->arena);
    free(rules);
}

/* ---- calls ---- */

static bool is_one_of(str name, const str *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (str_equal_nocase(name, names[i]))
            return true;
    }
    return false;
}

bool egress_header_is_reserved(str name)
{
    static const str reserved[] = {
        S_INIT("host"),
        S_INIT("cookie"),
        S_INIT("cookie2"),
        S_INIT("authorization"),
        S_INIT("content-length"),
        S_INIT("transfer-encoding"),
        S_INIT("connection"),
        S_INIT("keep-alive"),
        S_INIT("upgrade"),
        S_INIT("te"),
        S_INIT("trailer"),
        S_INIT("expect"),
        S_INIT("via"),
        S_INIT("forwarded"),
        S_INIT("origin"),
        S_INIT("referer"),
    };
    static const str prefixes[] = {S_INIT("proxy-"), S_INIT("sec-"), S_INIT("x-forwarded-"),
                                   S_INIT("x-real-")};
    if (is_one_of(name, reserved, ARRAY_COUNT(reserved)))
        return true;
    for (size_t i = 0; i < ARRAY_COUNT(prefixes); i++) {
        if (name.len >= prefixes[i].len &&
            str_equal_nocase(str_slice(name, 0, prefixes[i].len), prefixes[i]))
            return true;
    }
    return false;
}

static bool check_address(void *owner, const struct sockaddr *address, struct error *e)
{
    return egress_check_address(owner, address, e);
}

/* RFC 3986 section 5.2 as far as Location needs it; dots in a relative path are for the server to
   resolve. */
static str resolve(struct arena *arena, const struct http_url *base, str location)
{
    size_t fragment = str_find_char(location, '#');
    if (fragment != STR_NOT_FOUND)
        location = str_slice(location, 0, fragment);
    str scheme = base->is_tls ? S("https:") : S("http:");
    size_t colon = str_find_char(location, ':'), stop = 0;
    while (stop < location.len && !strchr("/?", location.ptr[stop]))
        stop++;
    if (colon != STR_NOT_FOUND && colon < stop)
        return location;
    if (str_starts_with(location, S("//")))
        return str_printf(arena, STR_FMT STR_FMT, STR_ARG(scheme), STR_ARG(location));
    bool is_v6 = str_find_char(base->host, ':') != STR_NOT_FOUND;
    str origin = str_printf(arena, STR_FMT "//%s" STR_FMT "%s:%u", STR_ARG(scheme),
                            is_v6 ? "[" : "", STR_ARG(base->host), is_v6 ? "]" : "", base->port);
    if (str_starts_with(location, S("/")))
        return str_printf(arena, STR_FMT STR_FMT, STR_ARG(origin), STR_ARG(location));
    str path, query;
    str_cut(base->path_query, '?', &path, &query);
    size_t directory = path.len;
    while (!str_starts_with(location, S("?")) && directory > 0 && path.ptr[directory - 1] != '/')
        directory--;
    return str_printf(arena, STR_FMT STR_FMT STR_FMT, STR_ARG(origin),
                      STR_ARG(str_slice(path, 0, directory)), STR_ARG(location));
}

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* What goes on to the next hop: nothing that could be a credential. */
static void keep_harmless(struct arena *arena, const struct http_headers *from, bool has_body,
                          struct http_headers *out)
{
    static const str harmless[] = {S_INIT("accept"), S_INIT("accept-language"),
                                   S_INIT("user-agent")};
    struct http_headers kept = {0};
    for (size_t i = 0; from && i < from->count; i++) {
        str name = from->items[i].name;
        bool is_kept = is_one_of(name, harmless, ARRAY_COUNT(harmless)) ||
                       (has_body && str_equal_nocase(name, S("content-type")));
        if (is_kept)
            http_headers_add(&kept, arena, name, from->items[i].value);
    }
    *out = kept;
}

/* Makes `hop` the request for the redirect's target. */
static bool follow(struct arena *arena, int status, str location, struct http_client_request *hop,
                   struct http_headers *headers, str *url, struct error *e)
{
    bool was_tls = hop->url.is_tls;
    *url = resolve(arena, &hop->url, str_copy(arena, location));
    if (!http_url_parse(*url, &hop->url, e))
        return error_wrap(e, "redirect");
    if (was_tls && !hop->url.is_tls)
        return error_set(e, REASON_EGRESS_BLOCKED, "a redirect from https to http");
    bool becomes_get =
        (status == 303 && hop->method != HTTP_HEAD) || (status <= 302 && hop->method == HTTP_POST);
    if (becomes_get) {
        hop->method = HTTP_GET;
        hop->body = STR_NONE;
    }
    keep_harmless(arena, hop->headers, hop->body.len > 0, headers);
    hop->headers = headers;
    return true;
}

bool egress_send(const struct egress_rules *rules, struct http_client *client, struct context *ctx,
                 const struct egress_request *request, struct http_exchange **out, str *final_url,
                 struct error *e)
{
    struct http_client_request hop = {
        .method = request->method,
        .headers = request->headers,
        .body = request->body,
        .connect_timeout_ms = request->connect_timeout_ms,
        .first_byte_timeout_ms = request->first_byte_timeout_ms,
        .idle_timeout_ms = request->idle_timeout_ms,
        .check_address = check_address,
        .check_owner = (void *) (uintptr_t) rules,
    };
    struct http_headers headers = {0};
    str url = str_copy(ctx->arena, request->url);
    if (!http_url_parse(url, &hop.url, e))
        return false;
    for (int redirect_count = 0;; redirect_count++) {
        OWNED(http_exchange) exchange = NULL;
        if (!egress_check_host(rules, hop.url.host, e) ||
            !http_client_send(client, ctx, &hop, &exchange, e))
            return false;
        int status = http_exchange_status(exchange);
        str location = http_headers_get(http_exchange_headers(exchange), S("location"));
        if (request->no_redirects || !is_redirect(status) || location.len == 0) {
            if (final_url)
                *final_url = url;
            *out = GIVE(exchange);
            return true;
        }
        if (redirect_count == EGRESS_REDIRECTS_MAX)
            return error_set(e, REASON_LIMIT, "more than %d redirects", EGRESS_REDIRECTS_MAX);
        if (!follow(ctx->arena, status, location, &hop, &headers, &url, e))
            return false;
    }
}
