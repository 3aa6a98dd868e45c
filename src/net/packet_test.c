/* Packets between two ends of a socket pair. */
#include "net/packet.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/clock.h"
#include "runtime/context.h"
#include "runtime/loop.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BODY_MAX = 1 << 20 };

static int ends[2];
static struct packet_reader *reader;

static int setup(void **state)
{
    (void) state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    reader = packet_reader_create(ends[1], BODY_MAX);
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    packet_reader_destroy(reader);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static int64_t soon_ns(void)
{
    return clock_monotonic_ns(clock_system()) + 1000000000;
}

static void send_text(uint64_t id, const char *text, int fd)
{
    struct error e;
    struct packet packet = {.type = 7, .id = id, .body = str_from_cstr(text), .descriptor = fd};
    assert_true(packet_write(ends[0], &packet, soon_ns(), &e));
}

static void test_packets_come_whole_and_in_order(void **state)
{
    (void) state;
    struct packet packet;
    struct error e;
    send_text(1, "first", -1);
    send_text(2, "", -1);
    send_text(UINT64_MAX, "third", -1);
    assert_true(packet_read_until(reader, soon_ns(), &packet, &e));
    assert_true(str_equal(packet.body, S("first")) && packet.id == 1 && packet.type == 7);
    assert_true(packet_read_until(reader, soon_ns(), &packet, &e));
    assert_true(packet.body.len == 0 && packet.id == 2 && packet.descriptor == -1);
    assert_true(packet_read_until(reader, soon_ns(), &packet, &e));
    assert_true(str_equal(packet.body, S("third")) && packet.id == UINT64_MAX);
    assert_int_equal(packet_read(reader, &packet, &e), PACKET_NOT_YET);
}

static void test_a_descriptor_comes_with_its_own_packet(void **state)
{
    (void) state;
    struct packet packet;
    struct error e;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    send_text(1, "without", -1);
    send_text(2, "with", fds[1]);
    send_text(3, "without", -1);
    for (uint64_t id = 1; id <= 3; id++) {
        assert_true(packet_read_until(reader, soon_ns(), &packet, &e));
        assert_int_equal(packet.descriptor >= 0, id == 2);
        if (packet.descriptor >= 0) {
            assert_int_equal(write(packet.descriptor, "x", 1), 1);
            close(packet.descriptor);
        }
    }
    char got;
    assert_int_equal(read(fds[0], &got, 1), 1);
    close(fds[0]);
    close(fds[1]);
}

static void test_bytes_may_come_one_by_one(void **state)
{
    (void) state;
    struct packet packet;
    struct error e;
    int pair[2];
    char wire[64];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct packet sent = {.type = 3, .id = 9, .body = S("letters"), .descriptor = -1};
    assert_true(packet_write(pair[0], &sent, soon_ns(), &e));
    ssize_t len = read(pair[1], wire, sizeof wire);
    assert_int_equal(len, PACKET_HEADER_BYTES + 7);
    for (ssize_t i = 0; i < len; i++) {
        assert_int_equal(packet_read(reader, &packet, &e), PACKET_NOT_YET);
        assert_int_equal(write(ends[0], wire + i, 1), 1);
    }
    assert_int_equal(packet_read(reader, &packet, &e), PACKET_READY);
    assert_true(str_equal(packet.body, S("letters")));
    close(pair[0]);
    close(pair[1]);
}

static void test_a_body_past_the_maximum_ends_the_stream(void **state)
{
    (void) state;
    struct packet packet;
    struct error e;
    uint32_t header[6] = {0x3150584e, BODY_MAX + 1, 1, 0, 1, 0};
    assert_int_equal(write(ends[0], header, sizeof header), sizeof header);
    assert_int_equal(packet_read(reader, &packet, &e), PACKET_BROKEN);
    packet_reader_destroy(reader);
    reader = packet_reader_create(ends[1], BODY_MAX);
    header[0]++;
    assert_int_equal(write(ends[0], header, sizeof header), sizeof header);
    assert_int_equal(packet_read(reader, &packet, &e), PACKET_BROKEN);
}

/* ---- on a loop ---- */

struct exchange {
    size_t pending_max;
    struct loop *loop;
    struct packet_channel *left, *right;
    size_t sent_count, received_count, received_bytes;
    bool has_ended;
};

enum { EXCHANGES = 200, EXCHANGE_BYTES = 50000 };

static void on_packet(void *owner, struct packet *packet)
{
    struct exchange *x = owner;
    x->received_count++;
    x->received_bytes += packet->body.len;
    assert_int_equal(packet->id, x->received_count);
    if (x->received_count == EXCHANGES)
        packet_channel_close(GIVE(x->left));
}

static void on_end(void *owner, const struct error *why)
{
    struct exchange *x = owner;
    (void) why;
    x->has_ended = true;
    packet_channel_close(GIVE(x->right));
    loop_stop(x->loop);
}

static void exchange(void *argument)
{
    static char body[EXCHANGE_BYTES];
    struct exchange *x = argument;
    struct error e;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    struct packet_channel_options options = {.body_bytes_max = BODY_MAX,
                                             .pending_bytes_max = x->pending_max,
                                             .owner = x,
                                             .on_packet = on_packet,
                                             .on_end = on_end};
    assert_true(packet_channel_open(pair[0], &options, &x->left, &e));
    assert_true(packet_channel_open(pair[1], &options, &x->right, &e));
    bool is_ok = true;
    for (uint64_t i = 1; i <= EXCHANGES && is_ok; i++) {
        is_ok = packet_channel_send(
            x->left, &(struct packet){.id = i, .body = str_of(body, sizeof body), .descriptor = -1},
            &e);
        x->sent_count += is_ok;
    }
    if (is_ok)
        return;
    assert_int_equal(e.reason, REASON_OVERLOADED_HERE);
    packet_channel_close(GIVE(x->left));
    packet_channel_close(GIVE(x->right));
    loop_stop(x->loop);
}

static void test_what_the_socket_does_not_take_waits_its_turn(void **state)
{
    (void) state;
    struct error e;
    struct exchange x = {.pending_max = (size_t) EXCHANGES * EXCHANGE_BYTES};
    x.loop = loop_create(clock_system(), random_system(), &e);
    assert_non_null(x.loop);
    loop_post(x.loop, exchange, &x);
    loop_run(x.loop);
    loop_destroy(x.loop);
    assert_int_equal(x.received_count, EXCHANGES);
    assert_int_equal(x.received_bytes, (size_t) EXCHANGES * EXCHANGE_BYTES);
    assert_true(x.has_ended);
}

static void test_what_waits_is_bounded(void **state)
{
    (void) state;
    struct error e;
    struct exchange x = {.pending_max = 10 * EXCHANGE_BYTES};
    x.loop = loop_create(clock_system(), random_system(), &e);
    assert_non_null(x.loop);
    loop_post(x.loop, exchange, &x);
    loop_run(x.loop);
    loop_destroy(x.loop);
    assert_in_range(x.sent_count, 10, 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_packets_come_whole_and_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_descriptor_comes_with_its_own_packet, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bytes_may_come_one_by_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_body_past_the_maximum_ends_the_stream, setup,
                                        teardown),
        cmocka_unit_test(test_what_the_socket_does_not_take_waits_its_turn),
        cmocka_unit_test(test_what_waits_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
