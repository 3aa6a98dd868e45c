#include "net/dns_internal.h"

#include "base/arena.h"
#include "base/strbuf.h"

#include <ares.h>
#include <poll.h>
#include <time.h>

/* ---- the list ---- */

/* "192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353". */
static bool server_is_wellformed(str server)
{
    union dns_address ignored;
    str address = server, port = S("53");
    uint64_t number;
    if (str_strip_prefix(server, S("["), &address)) {
        str tail;
        if (!str_cut(address, ']', &address, &tail) ||
            (!str_is_empty(tail) && !str_strip_prefix(tail, S(":"), &port)))
            return false;
    } else if (!dns_parse_literal(server, 0, &ignored)) {
        str_cut(server, ':', &address, &port);
    }
    return dns_parse_literal(address, 0, &ignored) && str_to_u64(port, &number) && number > 0 &&
           number < 65536;
}

bool dns_servers_check(const str *servers, size_t count, struct arena *arena, str *list,
                       struct error *e)
{
    struct strbuf text;
    if (count > DNS_SERVERS_MAX)
        return error_set(e, REASON_CONFIG, "dns.servers: at most %u", DNS_SERVERS_MAX);
    strbuf_init(&text, arena, 1024);
    for (size_t i = 0; i < count; i++) {
        if (!server_is_wellformed(servers[i]))
            return error_set(e, REASON_CONFIG,
                             "dns.servers: \"" STR_FMT
                             "\" is no address: write 192.0.2.1 or 192.0.2.1:5353",
                             STR_ARG(str_cut_utf8(servers[i], 60)));
        strbuf_add(&text, i > 0 ? S(",") : STR_NONE);
        strbuf_add(&text, servers[i]);
    }
    *list = strbuf_str(&text);
    return true;
}

/* ---- asking ---- */

struct question {
    struct dns_answer *answer;
    int64_t lifetime_ms;
    bool is_over;
};

/* Alternates between families, the first one's first. */
static void take(struct question *question, const struct ares_addrinfo *info)
{
    const struct ares_addrinfo_node *next[2] = {info->nodes, info->nodes};
    int families[2] = {AF_INET, AF_INET6};
    struct dns_answer *out = question->answer;
    for (int turn = 0; out->count < DNS_ADDRESSES_MAX && (next[0] || next[1]); turn ^= 1) {
        const struct ares_addrinfo_node *at = next[turn];
        while (at && at->ai_family != families[turn])
            at = at->ai_next;
        next[turn] = at ? at->ai_next : NULL;
        if (!at || at->ai_addrlen > sizeof(union dns_address))
            continue;
        union dns_address *slot = &out->addresses[out->count++];
        *slot = (union dns_address){0};
        memcpy(slot, at->ai_addr, at->ai_addrlen);
        if ((int64_t) at->ai_ttl * 1000 < question->lifetime_ms)
            question->lifetime_ms = (int64_t) at->ai_ttl * 1000;
    }
}

static void answered(void *argument, int status, int timeouts, struct ares_addrinfo *info)
{
    struct question *question = argument;
    (void) timeouts;
    if (status == ARES_SUCCESS && info)
        take(question, info);
    if (info)
        ares_freeaddrinfo(info);
    question->is_over = true;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until the callback has come, at the latest by ares_cancel. */
static void wait_for(ares_channel channel, const struct question *question)
{
    int64_t end_ms = now_ms() + DNS_LOOKUP_MS;
    while (!question->is_over) {
        ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
        struct pollfd polls[ARES_GETSOCK_MAXNUM];
        int mask = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
        nfds_t count = 0;
        for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
            short events = (short) ((ARES_GETSOCK_READABLE(mask, i) ? POLLIN : 0) |
                                    (ARES_GETSOCK_WRITABLE(mask, i) ? POLLOUT : 0));
            if (events)
                polls[count++] = (struct pollfd){.fd = sockets[i], .events = events};
        }
        struct timeval most = {.tv_sec = 1}, room;
        struct timeval *wait = ares_timeout(channel, &most, &room);
        if (now_ms() >= end_ms) {
            ares_cancel(channel);
            return;
        }
        (void) poll(polls, count, (int) (wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1));
        for (nfds_t i = 0; i < count; i++)
            ares_process_fd(channel,
                            polls[i].revents & (POLLIN | POLLERR | POLLHUP) ? polls[i].fd
                                                                            : ARES_SOCKET_BAD,
                            polls[i].revents & POLLOUT ? polls[i].fd : ARES_SOCKET_BAD);
        ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* timeouts */
    }
}

void dns_ask(const char *servers, const char *host, struct dns_answer *out, int64_t *lifetime_ms)
{
    static char only_dns[] = "b";
    struct ares_options options = {.flags =
                                       ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
                                   .timeout = DNS_TRY_MS,
                                   .tries = DNS_TRIES,
                                   .ednspsz = DNS_PACKET_BYTES_MAX,
                                   .lookups = only_dns};
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct question question = {.answer = out, .lifetime_ms = DNS_TTL_MS_MAX};
    ares_channel channel;
    if (ares_init_options(&channel, &options,
                          ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
                              ARES_OPT_EDNSPSZ) != ARES_SUCCESS)
        return;
    if (ares_set_servers_ports_csv(channel, servers) == ARES_SUCCESS) {
        ares_getaddrinfo(channel, host, NULL, &hints, answered, &question);
        wait_for(channel, &question);
    }
    ares_destroy(channel);
    *lifetime_ms = question.lifetime_ms < DNS_TTL_MS_MIN ? DNS_TTL_MS_MIN : question.lifetime_ms;
}
