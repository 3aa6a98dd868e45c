#include "net/packet.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "base/list.h"
#include "runtime/clock.h"
#include "runtime/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum {
    MAGIC = 0x3150584e, /* "NXP1" */
    BUFFER_BYTES = 64 << 10,
    DESCRIPTORS_WAITING_MAX = 8,
    READS_PER_TURN_MAX = 16,
    NS_PER_MS = 1000000,
};

struct header {
    uint32_t magic, body_bytes;
    uint16_t type, descriptor_count;
    uint32_t zero;
    uint64_t id;
};
static_assert(sizeof(struct header) == PACKET_HEADER_BYTES, "no padding");

bool packet_header_read(const uint8_t bytes[PACKET_HEADER_BYTES], struct packet *out,
                        bool *has_descriptor)
{
    struct header header;
    memcpy(&header, bytes, sizeof header);
    if (header.magic != MAGIC || header.zero != 0 || header.descriptor_count > 1)
        return false;
    *out = (struct packet){
        .type = header.type, .id = header.id, .body = {NULL, header.body_bytes}, .descriptor = -1};
    *has_descriptor = header.descriptor_count == 1;
    return true;
}

/* ---- reading ---- */

struct packet_reader {
    int fd;
    size_t body_bytes_max;
    char *buffer;
    size_t capacity, start, end;
    int descriptors[DESCRIPTORS_WAITING_MAX]; /* received, oldest first */
    size_t descriptor_count;
};

struct packet_reader *packet_reader_create(int fd, size_t body_bytes_max)
{
    struct packet_reader *reader = calloc(1, sizeof *reader);
    ensure(reader != NULL);
    reader->fd = fd;
    reader->body_bytes_max = body_bytes_max;
    reader->capacity = BUFFER_BYTES;
    reader->buffer = malloc(reader->capacity);
    ensure(reader->buffer != NULL);
    return reader;
}

void packet_reader_destroy(struct packet_reader *reader)
{
    if (!reader)
        return;
    for (size_t i = 0; i < reader->descriptor_count; i++)
        close(reader->descriptors[i]);
    free(reader->buffer);
    free(reader);
}

/* False: more than any packet announces, or cut by the kernel. */
static bool take_descriptors(struct packet_reader *reader, struct msghdr *message)
{
    bool is_ok = (message->msg_flags & MSG_CTRUNC) == 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (reader->descriptor_count < DESCRIPTORS_WAITING_MAX) {
                reader->descriptors[reader->descriptor_count++] = fd;
            } else {
                close(fd);
                is_ok = false;
            }
        }
    }
    return is_ok;
}

static bool broken(struct error *e, const char *why)
{
    return error_set(e, REASON_INVALID, "the other process broke the protocol: %s", why);
}

/* The whole packet at `start`, if it is there.  PACKET_NOT_YET makes room for the rest of it. */
static enum packet_status take_packet(struct packet_reader *reader, struct packet *out,
                                      struct error *e)
{
    size_t have = reader->end - reader->start;
    bool has_descriptor;
    struct packet packet;
    if (have < PACKET_HEADER_BYTES)
        return PACKET_NOT_YET;
    if (!packet_header_read((const uint8_t *) reader->buffer + reader->start, &packet,
                            &has_descriptor)) {
        broken(e, "no packet begins here");
        return PACKET_BROKEN;
    }
    if (packet.body.len > reader->body_bytes_max) {
        broken(e, "a packet is longer than agreed");
        return PACKET_BROKEN;
    }
    if (have < PACKET_HEADER_BYTES + packet.body.len)
        return PACKET_NOT_YET;
    packet.body.ptr = reader->buffer + reader->start + PACKET_HEADER_BYTES;
    reader->start += PACKET_HEADER_BYTES + packet.body.len;
    if (has_descriptor) {
        if (reader->descriptor_count == 0) {
            broken(e, "a descriptor is announced and missing");
            return PACKET_BROKEN;
        }
        packet.descriptor = reader->descriptors[0];
        reader->descriptor_count--;
        memmove(reader->descriptors, reader->descriptors + 1,
                reader->descriptor_count * sizeof(int));
    }
    *out = packet;
    return PACKET_READY;
}

/* Room for a read; all of a long packet at once. */
static void make_room(struct packet_reader *reader)
{
    size_t have = reader->end - reader->start, wanted = BUFFER_BYTES;
    struct packet packet;
    bool has_descriptor;
    if (have >= PACKET_HEADER_BYTES &&
        packet_header_read((const uint8_t *) reader->buffer + reader->start, &packet,
                           &has_descriptor) &&
        packet.body.len + PACKET_HEADER_BYTES > wanted)
        wanted = packet.body.len + PACKET_HEADER_BYTES;
    if (reader->start > 0)
        memmove(reader->buffer, reader->buffer + reader->start, have);
    reader->start = 0;
    reader->end = have;
    bool is_roomy = reader->capacity > BUFFER_BYTES && wanted == BUFFER_BYTES;
    if (reader->capacity >= wanted && !is_roomy)
        return;
    reader->buffer = realloc(reader->buffer, wanted); /* a long one's room is given back */
    ensure(reader->buffer != NULL);
    reader->capacity = wanted;
}

enum packet_status packet_read(struct packet_reader *reader, struct packet *out, struct error *e)
{
    enum packet_status status = take_packet(reader, out, e);
    if (status != PACKET_NOT_YET)
        return status;
    make_room(reader);
    union {
        char bytes[CMSG_SPACE(DESCRIPTORS_WAITING_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec piece = {reader->buffer + reader->end, reader->capacity - reader->end};
    struct msghdr message = {.msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do
        got = recvmsg(reader->fd, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? PACKET_NOT_YET : PACKET_END;
    if (!take_descriptors(reader, &message)) {
        broken(e, "descriptors that no packet announces");
        return PACKET_BROKEN;
    }
    if (got == 0)
        return PACKET_END;
    reader->end += (size_t) got;
    return take_packet(reader, out, e);
}

/* False with TIMEOUT past the deadline. */
static bool wait_for(int fd, short events, int64_t deadline_ns, struct error *e)
{
    for (;;) {
        int64_t left_ns = deadline_ns - clock_monotonic_ns(clock_system());
        int64_t left_ms = left_ns > 0 ? (left_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
        struct pollfd entry = {.fd = fd, .events = events};
        int count = poll(&entry, 1, left_ms > INT32_MAX ? -1 : (int) left_ms);
        if (count > 0)
            return true;
        if (count == 0 && left_ns <= 0)
            return error_set(e, REASON_TIMEOUT, "the other process does not answer");
        if (count < 0 && errno != EINTR)
            return error_set(e, REASON_UNAVAILABLE, "poll: %s", strerrordesc_np(errno));
    }
}

bool packet_read_until(struct packet_reader *reader, int64_t deadline_ns, struct packet *out,
                       struct error *e)
{
    for (;;) {
        enum packet_status status = take_packet(reader, out, e);
        if (status == PACKET_NOT_YET) {
            if (!wait_for(reader->fd, POLLIN, deadline_ns, e))
                return false;
            status = packet_read(reader, out, e);
        }
        if (status == PACKET_READY)
            return true;
        if (status == PACKET_BROKEN)
            return false;
        if (status == PACKET_END)
            return error_set(e, REASON_UNAVAILABLE, "the other process has gone");
    }
}

/* ---- writing ---- */

/* What the socket took of the packet from `offset` on; -1 with errno.  The descriptor goes with the
   first byte. */
static ssize_t send_from(int fd, const struct header *header, const struct packet *packet,
                         size_t offset)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct iovec pieces[2];
    int count = 0;
    if (offset < sizeof *header)
        pieces[count++] =
            (struct iovec){(char *) (uintptr_t) header + offset, sizeof *header - offset};
    size_t from = offset > sizeof *header ? offset - sizeof *header : 0;
    if (packet->body.len > from)
        pieces[count++] =
            (struct iovec){(char *) (uintptr_t) packet->body.ptr + from, packet->body.len - from};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t) count};
    if (packet->descriptor >= 0 && offset == 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &packet->descriptor, sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

static struct header header_of(const struct packet *packet)
{
    ensure(packet->body.len <= UINT32_MAX);
    return (struct header){.magic = MAGIC,
                           .body_bytes = (uint32_t) packet->body.len,
                           .type = packet->type,
                           .descriptor_count = packet->descriptor >= 0,
                           .id = packet->id};
}

bool packet_write(int fd, const struct packet *packet, int64_t deadline_ns, struct error *e)
{
    struct header header = header_of(packet);
    size_t offset = 0, total = sizeof header + packet->body.len;
    while (offset < total) {
        ssize_t sent = send_from(fd, &header, packet, offset);
        if (sent >= 0)
            offset += (size_t) sent;
        else if (errno != EAGAIN && errno != EWOULDBLOCK)
            return error_set(e, REASON_UNAVAILABLE, "the other process has gone");
        else if (!wait_for(fd, POLLOUT, deadline_ns, e))
            return false;
    }
    return true;
}

/* ---- on a loop ---- */

/* A packet, or its rest, that the socket did not take yet. */
struct pending {
    struct list link;
    struct header header;
    struct packet packet; /* body behind this struct; descriptor a duplicate of ours */
    size_t offset;
};

struct packet_channel {
    uv_poll_t poll;
    struct loop *loop;
    int fd;
    struct packet_channel_options options;
    struct packet_reader *reader;
    struct list pending;
    size_t pending_bytes;
    bool is_closed, has_ended;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct packet_channel *channel)
{
    int events = UV_READABLE | (list_is_empty(&channel->pending) ? 0 : UV_WRITABLE);
    ensure(uv_poll_start(&channel->poll, events, on_poll) == 0);
}

static void pending_free(struct packet_channel *channel, struct pending *pending)
{
    list_remove(&pending->link);
    channel->pending_bytes -= pending->packet.body.len;
    if (pending->packet.descriptor >= 0)
        close(pending->packet.descriptor);
    free(pending);
}

static void end(struct packet_channel *channel, const struct error *why)
{
    if (channel->has_ended || channel->is_closed)
        return;
    channel->has_ended = true;
    uv_poll_stop(&channel->poll);
    channel->options.on_end(channel->options.owner, why);
}

/* False: the other end has gone. */
static bool write_pending(struct packet_channel *channel)
{
    LIST_EACH(node, &channel->pending)
    {
        struct pending *pending = LIST_ITEM(node, struct pending, link);
        size_t total = sizeof pending->header + pending->packet.body.len;
        while (pending->offset < total) {
            ssize_t sent =
                send_from(channel->fd, &pending->header, &pending->packet, pending->offset);
            if (sent < 0)
                return errno == EAGAIN || errno == EWOULDBLOCK;
            pending->offset += (size_t) sent;
        }
        pending_free(channel, pending);
    }
    watch(channel);
    return true;
}

static void channel_free(struct packet_channel *channel)
{
    LIST_EACH(node, &channel->pending)
    pending_free(channel, LIST_ITEM(node, struct pending, link));
    packet_reader_destroy(channel->reader);
    close(channel->fd);
    free(channel);
}

static void on_closed(uv_handle_t *handle)
{
    channel_free(handle->data);
}

static void read_some(struct packet_channel *channel)
{
    struct error why;
    for (int i = 0; i < READS_PER_TURN_MAX && !channel->is_closed && !channel->has_ended; i++) {
        struct packet packet;
        enum packet_status status = packet_read(channel->reader, &packet, &why);
        if (status == PACKET_READY) {
            channel->options.on_packet(channel->options.owner, &packet);
            i -=
                channel->reader->start < channel->reader->end; /* no read was needed for the next */
            continue;
        }
        if (status == PACKET_NOT_YET)
            break;
        if (status == PACKET_END)
            error_set(&why, REASON_UNAVAILABLE, "the other process has gone");
        end(channel, &why);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct packet_channel *channel = poll->data;
    struct error why;
    error_set(&why, REASON_UNAVAILABLE, "the other process has gone");
    if (status < 0 || ((events & UV_WRITABLE) && !write_pending(channel))) {
        end(channel, &why);
        return;
    }
    if (events & UV_READABLE)
        read_some(channel);
}

bool packet_channel_open(int give_fd, const struct packet_channel_options *options,
                         struct packet_channel **out, struct error *e)
{
    struct packet_channel *channel = calloc(1, sizeof *channel);
    ensure(channel != NULL);
    channel->loop = loop_current();
    ensure(channel->loop != NULL);
    channel->fd = give_fd;
    channel->options = *options;
    channel->reader = packet_reader_create(give_fd, options->body_bytes_max);
    list_init(&channel->pending);
    int flags = fcntl(give_fd, F_GETFL);
    int failure = flags < 0 || fcntl(give_fd, F_SETFL, flags | O_NONBLOCK) < 0
                      ? -errno
                      : uv_poll_init(loop_uv(channel->loop), &channel->poll, give_fd);
    if (failure != 0) {
        channel_free(channel);
        return error_set(e, REASON_UNAVAILABLE, "watch a socket: %s", uv_strerror(failure));
    }
    channel->poll.data = channel;
    watch(channel);
    *out = channel;
    return true;
}

static void enqueue(struct packet_channel *channel, const struct header *header,
                    const struct packet *packet, size_t offset)
{
    struct pending *pending = malloc(sizeof *pending + packet->body.len);
    ensure(pending != NULL);
    *pending = (struct pending){.header = *header, .packet = *packet, .offset = offset};
    if (packet->body.len > 0)
        memcpy(pending + 1, packet->body.ptr, packet->body.len);
    pending->packet.body.ptr = (const char *) (pending + 1);
    if (packet->descriptor >= 0)
        pending->packet.descriptor =
            offset > 0 ? -1 : fcntl(packet->descriptor, F_DUPFD_CLOEXEC, 3);
    channel->pending_bytes += packet->body.len;
    list_push_back(&channel->pending, &pending->link);
}

bool packet_channel_send(struct packet_channel *channel, const struct packet *packet,
                         struct error *e)
{
    ensure(!channel->is_closed);
    struct header header = header_of(packet);
    size_t offset = 0, total = sizeof header + packet->body.len;
    if (channel->has_ended)
        return error_set(e, REASON_UNAVAILABLE, "the other process has gone");
    if (list_is_empty(&channel->pending)) {
        ssize_t sent = send_from(channel->fd, &header, packet, 0);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            return error_set(e, REASON_UNAVAILABLE, "the other process has gone");
        offset = sent > 0 ? (size_t) sent : 0;
        if (offset == total)
            return true;
    } else if (channel->pending_bytes + packet->body.len > channel->options.pending_bytes_max) {
        return error_set(e, REASON_OVERLOADED_HERE, "%zu bytes wait for the other process already",
                         channel->pending_bytes);
    }
    enqueue(channel, &header, packet, offset);
    watch(channel);
    return true;
}

void packet_channel_close(struct packet_channel *channel)
{
    if (!channel || channel->is_closed)
        return;
    channel->is_closed = true;
    uv_poll_stop(&channel->poll);
    uv_close((uv_handle_t *) &channel->poll, on_closed);
}
