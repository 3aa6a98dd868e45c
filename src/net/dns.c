#include "net/dns_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/map.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdlib.h>

struct entry {
    char host[256];
    struct dns_answer answer; /* count 0: the name does not resolve */
    int64_t expires_ns;
    bool is_resolving;
    size_t user_count; /* look-ups that hold the entry */
    struct condition resolved;
};

struct dns_cache {
    struct map *entries;
    char *servers; /* NULL: the system's way */
};

struct dns_cache *dns_cache_create(str servers)
{
    struct dns_cache *cache = calloc(1, sizeof(*cache));
    ensure(cache != NULL);
    cache->entries = map_create();
    if (!str_is_empty(servers)) {
        cache->servers = strndup(servers.ptr, servers.len);
        ensure(cache->servers != NULL);
    }
    return cache;
}

void dns_cache_destroy(struct dns_cache *cache)
{
    if (!cache)
        return;
    size_t position = 0;
    str key;
    void *value;
    while (map_next(cache->entries, &position, &key, &value)) {
        ensure(((struct entry *) value)->user_count == 0);
        free(value);
    }
    map_destroy(cache->entries);
    free(cache->servers);
    free(cache);
}

/* ---- literals ---- */

socklen_t dns_address_len(const union dns_address *address)
{
    return address->any.sa_family == AF_INET ? sizeof(address->v4) : sizeof(address->v6);
}

const char *dns_address_text(const struct sockaddr *address, char *out, size_t room)
{
    const void *bytes = address->sa_family == AF_INET
                            ? (const void *) &((const struct sockaddr_in *) address)->sin_addr
                            : &((const struct sockaddr_in6 *) address)->sin6_addr;
    return inet_ntop(address->sa_family, bytes, out, (socklen_t) room) ? out : "?";
}

bool dns_parse_literal(str host, uint16_t port, union dns_address *out)
{
    char text[INET6_ADDRSTRLEN + 1];
    if (host.len == 0 || host.len >= sizeof(text))
        return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = 0;
    *out = (union dns_address){0};
    if (inet_pton(AF_INET, text, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(port);
        return true;
    }
    if (inet_pton(AF_INET6, text, &out->v6.sin6_addr) == 1) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons(port);
        return true;
    }
    return false;
}

bool dns_host_is_odd_number(str host)
{
    union dns_address ignored;
    str whole = host;
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    size_t start = host.len;
    while (start > 0 && host.ptr[start - 1] != '.')
        start--;
    str last = str_from(host, start);
    if (last.len == 0 || !isdigit((unsigned char) last.ptr[0]))
        return false;
    bool is_hex = last.len >= 2 && last.ptr[0] == '0' && (last.ptr[1] == 'x' || last.ptr[1] == 'X');
    for (size_t i = is_hex ? 2 : 0; i < last.len; i++) {
        unsigned char c = (unsigned char) last.ptr[i];
        if (is_hex ? !isxdigit(c) : !isdigit(c))
            return false;
    }
    return !dns_parse_literal(whole, 0, &ignored);
}

/* ---- look-ups ---- */

struct lookup {
    const char *host, *servers;
    struct dns_answer answer;
    int64_t lifetime_ms;
};

/* Alternates between families, the first one's first. */
static void take_interleaved(const struct addrinfo *list, struct dns_answer *out)
{
    const struct addrinfo *next[2] = {list, list};
    int families[2] = {list->ai_family, list->ai_family == AF_INET ? AF_INET6 : AF_INET};
    for (int turn = 0; out->count < DNS_ADDRESSES_MAX && (next[0] || next[1]); turn ^= 1) {
        const struct addrinfo *at = next[turn];
        while (at && at->ai_family != families[turn])
            at = at->ai_next;
        next[turn] = at ? at->ai_next : NULL;
        if (!at || at->ai_addrlen > sizeof(union dns_address))
            continue;
        union dns_address *slot = &out->addresses[out->count++];
        *slot = (union dns_address){0};
        memcpy(slot, at->ai_addr, at->ai_addrlen);
    }
}

static void look_up(void *argument)
{
    struct lookup *lookup = argument;
    lookup->lifetime_ms = DNS_CACHE_MS;
    if (lookup->servers) {
        dns_ask(lookup->servers, lookup->host, &lookup->answer, &lookup->lifetime_ms);
        return;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    if (getaddrinfo(lookup->host, NULL, &hints, &list) == 0 && list)
        take_interleaved(list, &lookup->answer);
    if (list)
        freeaddrinfo(list);
}

/* Room for one more: drops what is unused, expired first. */
static void make_room(struct dns_cache *cache, int64_t now_ns)
{
    for (int pass = 0; pass < 2 && map_count(cache->entries) >= DNS_CACHE_ENTRIES_MAX; pass++) {
        struct entry *victim = NULL;
        size_t position = 0;
        str key;
        void *value;
        while (!victim && map_next(cache->entries, &position, &key, &value)) {
            struct entry *entry = value;
            if (entry->user_count == 0 && (pass == 1 || entry->expires_ns <= now_ns))
                victim = entry;
        }
        if (victim) {
            map_remove(cache->entries, str_from_cstr(victim->host));
            free(victim);
        }
    }
}

static struct entry *entry_of(struct dns_cache *cache, str host, int64_t now_ns)
{
    struct entry *entry = map_find(cache->entries, host);
    if (entry)
        return entry;
    make_room(cache, now_ns);
    entry = calloc(1, sizeof(*entry));
    ensure(entry != NULL);
    memcpy(entry->host, host.ptr, host.len);
    condition_init(&entry->resolved);
    map_put(cache->entries, host, entry);
    return entry;
}

/* Fills the entry.  Our own cancellation does not spoil the answer for the others who wait. */
static bool resolve_entry(struct dns_cache *cache, struct entry *entry, struct context *ctx,
                          struct error *e)
{
    struct lookup lookup = {.host = entry->host, .servers = cache->servers};
    entry->is_resolving = true;
    bool has_run = blocking_call(ctx, look_up, &lookup, e);
    entry->is_resolving = false;
    if (has_run || lookup.answer.count > 0) {
        entry->answer = lookup.answer;
        int64_t lifetime_ms = lookup.answer.count ? lookup.lifetime_ms : DNS_CACHE_FAILURE_MS;
        entry->expires_ns = context_now_ns(ctx) + lifetime_ms * 1000000;
    }
    condition_broadcast(&entry->resolved);
    return has_run;
}

static bool answer_from(const struct entry *entry, uint16_t port, struct dns_answer *out,
                        struct error *e)
{
    if (entry->answer.count == 0)
        return error_set(e, REASON_UNAVAILABLE, "the host name %s does not resolve", entry->host);
    *out = entry->answer;
    for (size_t i = 0; i < out->count; i++) {
        if (out->addresses[i].any.sa_family == AF_INET)
            out->addresses[i].v4.sin_port = htons(port);
        else
            out->addresses[i].v6.sin6_port = htons(port);
    }
    return true;
}

bool dns_resolve(struct dns_cache *cache, struct context *ctx, str host, uint16_t port,
                 struct dns_answer *out, struct error *e)
{
    if (dns_parse_literal(host, port, &out->addresses[0])) {
        out->count = 1;
        return true;
    }
    if (host.len == 0 || host.len > 253 || memchr(host.ptr, 0, host.len) ||
        dns_host_is_odd_number(host))
        return error_set(e, REASON_INVALID, "\"" STR_FMT "\" is neither a host name nor an address",
                         STR_ARG(host));
    struct entry *entry = entry_of(cache, host, context_now_ns(ctx));
    entry->user_count++;
    bool is_fine = true;
    while (is_fine && (entry->is_resolving || entry->expires_ns <= context_now_ns(ctx))) {
        if (entry->is_resolving)
            is_fine = condition_wait(&entry->resolved, ctx, e);
        else
            is_fine = resolve_entry(cache, entry, ctx, e);
    }
    entry->user_count--;
    return is_fine && answer_from(entry, port, out, e);
}
