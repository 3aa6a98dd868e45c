/*
 * Packets: whole messages over a Unix stream socket between two processes of one machine, each with
 * a type, an id, a body and at most one file descriptor.
 *
 *      24 bytes: "NXP1" | body bytes u32 | type u16 | descriptors u16 (0, 1) | 0 u32 | id u64 | body
 *
 * Little endian: both ends are the same program.  The other end may be hostile: a header that is not
 * exactly this, a longer body than agreed or a descriptor that no header announced ends the stream
 * with an error, and descriptors that nobody took are closed.
 *
 * Two forms: packet_reader and packet_write (blocking, any thread) and packet_channel (on a loop;
 * one write per packet, what the socket does not take waits, bounded).
 */
#ifndef NEXUS_NET_PACKET_H
#define NEXUS_NET_PACKET_H

#include "base/error.h"

struct loop;

struct packet {
    uint16_t type;
    uint64_t id;
    str body;       /* received: lives until the next read */
    int descriptor; /* -1: none.  Sent: stays the sender's.  Received: the receiver's to close */
};

enum { PACKET_HEADER_BYTES = 24 };
/* Fills type, id and body.len; false when these bytes are no header. */
must_check bool packet_header_read(const uint8_t bytes[PACKET_HEADER_BYTES], struct packet *out,
                                   bool *has_descriptor);

/* ---- reading ---- */

enum packet_status { PACKET_READY, PACKET_NOT_YET, PACKET_END, PACKET_BROKEN };

struct packet_reader;
struct packet_reader *packet_reader_create(int fd, size_t body_bytes_max); /* fd stays yours */
void packet_reader_destroy(struct packet_reader *reader);
OWNED_DEFINE(packet_reader)
/* One recvmsg at most.  Never waits when fd does not.  PACKET_BROKEN says why in e. */
enum packet_status packet_read(struct packet_reader *reader, struct packet *out, struct error *e);
/* Waits until there is one; TIMEOUT past the deadline (monotonic ns), UNAVAILABLE at the end. */
must_check bool packet_read_until(struct packet_reader *reader, int64_t deadline_ns,
                                  struct packet *out, struct error *e);

/* ---- writing, blocking ---- */
must_check bool packet_write(int fd, const struct packet *packet, int64_t deadline_ns,
                             struct error *e);

/* ---- on a loop ---- */

struct packet_channel;
struct packet_channel_options {
    size_t body_bytes_max;    /* of one received */
    size_t pending_bytes_max; /* written by us and not yet taken by the socket */
    void *owner;
    /* Takes packet->descriptor.  May close the channel. */
    void (*on_packet)(void *owner, struct packet *packet);
    /* Once, never from within packet_channel_send: the other end has gone or broke the rules.  Close
       it then. */
    void (*on_end)(void *owner, const struct error *why);
};
/* On the current loop. */
must_check bool packet_channel_open(int give_fd, const struct packet_channel_options *options,
                                    struct packet_channel **out, struct error *e);
/* UNAVAILABLE when the other end has gone, OVERLOADED_HERE past pending_bytes_max: then nothing was
   sent. */
must_check bool packet_channel_send(struct packet_channel *channel, const struct packet *packet,
                                    struct error *e);
void packet_channel_close(struct packet_channel *channel); /* NULL is fine; no call-backs after */

#endif
