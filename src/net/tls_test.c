/* The client against a real TLS server (openssl s_server), with certificates made on the spot. */
#include "net/http_client.h"
#include "net/net_testkit.h"

#include "base/arena.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], authority_file[96], other_file[96];
static pid_t server_pid;
static uint16_t server_port;
static FILE *server_output;

/* s_server -WWW answers each GET with a file of its folder and closes. */
static bool start_tls_server(void)
{
    int out[2];
    if (pipe(out) != 0)
        return false;
    server_pid = fork();
    if (server_pid == 0) {
        dup2(out[1], 1);
        close(out[0]);
        if (chdir(folder) == 0)
            execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert",
                   "server.pem", "-key", "server.key", "-WWW", (char *) NULL);
        _exit(127);
    }
    close(out[1]);
    server_output = fdopen(out[0], "r");
    char line[256];
    while (server_output && fgets(line, sizeof(line), server_output)) {
        char *colon = strncmp(line, "ACCEPT", 6) == 0 ? strrchr(line, ':') : NULL;
        if (colon) {
            server_port = (uint16_t) strtoul(colon + 1, NULL, 10);
            return server_port != 0;
        }
    }
    return false;
}

static int set_up(void **state)
{
    (void) state;
    snprintf(folder, sizeof(folder), "/tmp/tls_test.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(authority_file, sizeof(authority_file), "%s/authority.pem", folder);
    snprintf(other_file, sizeof(other_file), "%s/other.pem", folder);
    if (!testkit_make_certificates(folder) ||
        !testkit_shell("head -c 100000 /dev/zero | tr '\\0' x > %s/page", folder))
        return -1;
    return start_tls_server() ? 0 : -1;
}

static int tear_down(void **state)
{
    (void) state;
    kill(server_pid, SIGTERM);
    waitpid(server_pid, NULL, 0);
    fclose(server_output);
    blocking_pool_stop();
    return testkit_shell("rm -r %s", folder) ? 0 : -1;
}

struct call {
    const char *host, *ca_file;
    bool is_fine;
    size_t body_len;
    struct error e;
};

static void run_calls(struct context *ctx, struct loop *loop, void *argument)
{
    struct call *call = argument;
    struct http_client *client = NULL;
    struct http_client_options options = {.ca_file = str_from_cstr(call->ca_file)};
    call->is_fine = http_client_create(loop, &options, &client, &call->e);
    if (!call->is_fine)
        return;
    struct http_client_request request = {
        .url = {.is_tls = true,
                .host = str_from_cstr(call->host),
                .port = server_port,
                .path_query = S("/page")},
        .connect_timeout_ms = 3000,
    };
    for (int i = 0; i < 3 && call->is_fine; i++) { /* the later ones resume the session */
        OWNED(http_exchange) exchange = NULL;
        str body = STR_NONE;
        call->is_fine = http_client_send(client, ctx, &request, &exchange, &call->e);
        if (!call->is_fine)
            break;
        assert_int_equal(http_exchange_status(exchange), 200);
        call->is_fine = http_exchange_read_all(exchange, ctx, 1 << 20, &body, &call->e);
        call->body_len = body.len;
    }
    http_client_destroy(client);
}

static struct call call_host(const char *host, const char *ca_file)
{
    struct call call = {.host = host, .ca_file = ca_file};
    net_testkit_run(run_calls, &call);
    return call;
}

static void test_reads_a_page_from_a_verified_server(void **state)
{
    (void) state;
    struct call call = call_host("localhost", authority_file);
    if (!call.is_fine)
        fail_msg("%s", call.e.message);
    assert_int_equal(call.body_len, 100000);
}

static void test_refuses_a_server_it_cannot_verify(void **state)
{
    (void) state;
    struct call call = call_host("localhost", other_file);
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_UNAVAILABLE);
    assert_non_null(strstr(call.e.message, "certificate"));
    call = call_host("localhost", ""); /* the system does not know our authority */
    assert_false(call.is_fine);
    call = call_host("127.0.0.1",
                     authority_file); /* the same server, but not what its certificate names */
    assert_false(call.is_fine);
    assert_non_null(strstr(call.e.message, "certificate"));
}

static void test_a_bad_authority_file_is_told_at_start(void **state)
{
    (void) state;
    struct call call = call_host("localhost", "/nowhere/ca.pem");
    assert_false(call.is_fine);
    assert_int_equal(call.e.reason, REASON_CONFIG);
}

static void answer_plainly(int fd, size_t index, void *argument)
{
    (void) index;
    (void) argument;
    raw_send(fd, S("HTTP/1.1 400 no TLS here\r\n\r\n"));
    char byte;
    (void) !read(fd, &byte, 1);
}

static void test_a_server_without_tls_is_an_error_not_a_hang(void **state)
{
    (void) state;
    struct raw_server plain;
    uint16_t tls_port = server_port;
    raw_server_start(&plain, answer_plainly, NULL);
    server_port = plain.port;
    struct call call = call_host("localhost", authority_file);
    server_port = tls_port;
    raw_server_stop(&plain);
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_page_from_a_verified_server),
        cmocka_unit_test(test_refuses_a_server_it_cannot_verify),
        cmocka_unit_test(test_a_bad_authority_file_is_told_at_start),
        cmocka_unit_test(test_a_server_without_tls_is_an_error_not_a_hang),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
