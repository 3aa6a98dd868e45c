"""What goes out on behalf of a model: only to where the operator allows, whatever way it is written; and it stops when told to."""

import socket
import time

import pytest

from harness.client import problem
from harness.provider import Cut, Fail, Hang, Text, ToolCalls
from harness.scripts import call, say, script
from harness.starter import Starter
from harness.upstream import ADDRESS, CountingUpstream


def get(client, url: str, **more):
    return client.invoke("http_request", {"url": url, **more})


def test_without_a_list_of_hosts_nothing_goes_out(nexus, upstream):
    reply = get(nexus.admin, upstream.url + "/")
    assert reply.status_code == 403 and problem(reply) in ("egress_blocked", "permission"), reply.text
    assert upstream.requests == []


def test_the_operators_exception_lets_one_host_through_and_no_other(start, upstream):
    nexus = start(CountingUpstream.config())
    upstream.bodies["/page"] = b"hello from inside"
    output = get(nexus.admin, upstream.url + "/page").json()["output"]
    assert output["status"] == 200 and output["body"] == "hello from inside" and output["truncated"] is False
    for other in ("http://127.0.0.3/", "http://example.com/", "http://127.0.0.2.example.com/", "https://[::1]/"):
        reply = get(nexus.admin, other)
        assert reply.status_code == 403 and problem(reply) == "egress_blocked", reply.text
    assert len(upstream.requests) == 1


# Every name and notation of the machine itself, of private networks and of metadata services.
FORBIDDEN = ["localhost", "127.0.0.1", "127.1", "0177.0.0.1", "0x7f000001", "0x7f.1", "2130706433", "127.0.0.2", "0.0.0.0", "0",
             "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
             "10.0.0.1", "10.1", "172.16.0.1", "192.168.1.1", "[::ffff:10.0.0.1]", "[fc00::1]", "[fe80::1]",
             "169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.64.0.1", "224.0.0.1", "255.255.255.255",
             "192.0.0.192", "168.63.129.16", "127.0.0.1.", "LOCALHOST"]


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory, compiled_tools):
    """A careless operator: every host is allowed.  The addresses are checked all the same."""
    starter = Starter(tmp_path_factory.mktemp("open"), compiled_tools)
    yield starter({"tools": {"http_request": {"permissions": {"network": {"allowed_hosts": ["*"]}}}}})
    starter.finish()


@pytest.mark.parametrize("host", FORBIDDEN)
def test_no_notation_of_an_inner_address_gets_through(open_to_all, upstream, host):
    reply = get(open_to_all.admin, f"http://{host}:{upstream.port}/secret")
    assert reply.status_code in (400, 403, 422), reply.text
    assert problem(reply) in ("egress_blocked", "invalid", "tool_failed", "schema"), reply.text
    assert upstream.requests == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/", "gopher://127.0.0.1:70/", "//127.0.0.1/", "http:///x",
                                 "http://user:pass@127.0.0.2/", "http://127.0.0.2\\@example.com/", "http://127.0.0.2 .example.com/",
                                 "http://127.0.0.2\r\nX: y/", "http://127.0.0.2:99999/", "javascript:1", ""])
def test_an_address_that_is_no_plain_http_url_is_refused(start, url):
    nexus = start(CountingUpstream.config())
    reply = get(nexus.admin, url)
    assert reply.status_code in (400, 403, 422) and problem(reply), reply.text


def test_a_redirect_to_a_forbidden_host_is_not_followed(start, upstream):
    nexus = start(CountingUpstream.config())
    inner = CountingUpstream()
    try:
        upstream.redirects["/away"] = f"http://127.0.0.1:{inner.port}/secret"
        upstream.redirects["/metadata"] = "http://169.254.169.254/latest/meta-data/"
        upstream.redirects["/loop"] = "/loop"
        upstream.redirects["/home"] = "/page"
        for path in ("/away", "/metadata"):
            reply = get(nexus.admin, upstream.url + path)
            assert reply.status_code == 403 and problem(reply) == "egress_blocked", reply.text
        assert inner.requests == []
        assert get(nexus.admin, upstream.url + "/home").json()["output"]["body"] == "done"
        reply = get(nexus.admin, upstream.url + "/loop")
        assert reply.status_code == 422 and problem(reply) and "redirect" in reply.json()["detail"]
    finally:
        inner.close()


@pytest.mark.parametrize("name", ["Host", "Cookie", "Authorization", "authorization", "Proxy-Authorization", "X-Forwarded-For",
                                  "Content-Length", "Transfer-Encoding", "Connection"])
def test_a_model_cannot_set_headers_that_route_or_authenticate(start, upstream, name):
    nexus = start(CountingUpstream.config())
    reply = get(nexus.admin, upstream.url + "/", headers={name: "x"})
    assert reply.status_code in (400, 403, 422) and problem(reply), reply.text
    assert upstream.requests == []


def test_headers_cannot_be_smuggled_in_a_value(start, upstream):
    nexus = start(CountingUpstream.config())
    reply = get(nexus.admin, upstream.url + "/", headers={"X-Note": "a\r\nAuthorization: Bearer x"})
    assert reply.status_code in (400, 403, 422) and problem(reply)
    assert upstream.requests == []


def test_a_blocked_address_wins_over_an_exception(start, upstream):
    nexus = start(CountingUpstream.config(blocked_ips=["127.0.0.*"]))
    assert problem(get(nexus.admin, upstream.url + "/")) == "egress_blocked"
    assert upstream.requests == []


def test_an_answer_larger_than_allowed_is_cut_and_says_so(start, upstream):
    nexus = start(CountingUpstream.config(max_response_size="10KB"))
    upstream.bodies["/large"] = b"x" * 100_000
    output = get(nexus.admin, upstream.url + "/large").json()["output"]
    assert output["truncated"] is True and 10_000 <= len(output["body"]) <= 10_240


def test_a_post_carries_an_idempotency_key_and_json_bodies_are_json(start, upstream):
    nexus = start(CountingUpstream.config())
    output = get(nexus.admin, upstream.url + "/orders", method="POST", body={"item": "tea"}).json()["output"]
    assert output["status"] == 200
    [request] = upstream.requests
    assert request.body.replace(b" ", b"") == b'{"item":"tea"}' and request.headers["Idempotency-Key"]


def test_a_slow_host_ends_at_the_time_limit(start):
    nexus = start(CountingUpstream.config(timeout="500ms"))
    with socket.create_server((ADDRESS, 0)) as silent:
        begun = time.monotonic()
        reply = get(nexus.admin, f"http://{ADDRESS}:{silent.getsockname()[1]}/")
        assert reply.status_code in (422, 504) and problem(reply) in ("time_limit", "timeout", "tool_failed"), reply.text
        assert time.monotonic() - begun < 5


def test_a_refused_request_reaches_the_model_as_an_error_it_can_act_on(open_to_all):
    outcome = open_to_all.admin.ask(script(call("http_request", url="http://169.254.169.254/"), say("I was not allowed.")))
    assert outcome.status == "completed"
    [end] = outcome.of("tool.completed")
    assert end["data"]["status"] == "failed" and "169.254.169.254" in end["data"]["message"]


# ---- cancel ----

@pytest.mark.parametrize("answer", [Hang(), Hang(after_pieces=3)], ids=["before the first word", "in the middle"])
def test_cancelling_a_run_closes_the_connection_to_the_provider(start, provider, answer):
    provider.answer = lambda call: answer
    nexus = start(provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(), "go")
    provider.wait_for_calls(1)
    time.sleep(0.3)
    cancelled_at = time.monotonic()
    assert nexus.admin.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
    assert nexus.admin.wait(run_id)["status"] == "cancelled"
    deadline = time.monotonic() + 2
    while provider.calls[0].closed_at is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert provider.calls[0].closed_at and provider.calls[0].closed_at - cancelled_at < 1
    budget = nexus.admin.budget(nexus.admin.run(run_id)["session_id"])
    assert budget["reserved"]["tokens"] == 0 and budget["spent"]["tokens"] > 0
    again = nexus.admin.post(f"/api/v1/runs/{run_id}/cancel")
    assert again.status_code in (202, 409), again.text


def test_a_client_that_hangs_up_closes_the_connection_to_the_provider(start, provider):
    provider.answer = lambda call: Hang(after_pieces=2)
    nexus = start(provider=provider)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with nexus.admin.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_bytes())
    hung_up_at = time.monotonic()
    deadline = hung_up_at + 5
    while provider.calls[0].closed_at is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert provider.calls[0].closed_at, "the provider goes on working for nobody"


def test_a_cancelled_effect_in_flight_is_shown_as_unknown(start, provider, upstream):
    upstream.delay = 3
    provider.answer = lambda call: Text("done") if call.tool_results else ToolCalls(
        [("http_request", {"method": "POST", "url": upstream.url + "/pay", "body": "pay"})])
    nexus = start(CountingUpstream.config(), provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(), "pay")
    nexus.admin.wait_for_event(run_id, "tool.intended")
    while not upstream.requests:
        time.sleep(0.01)
    assert nexus.admin.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
    outcome = nexus.admin.outcome(run_id)
    assert outcome.status == "cancelled"
    assert outcome.of("tool.completed")[0]["data"]["status"] == "unknown"
    assert upstream.effects()["pay"] == 1


def test_a_provider_that_fails_once_is_asked_again_as_the_next_attempt(start, provider):
    provider.script = [Fail(503, "overloaded"), Cut(after_pieces=2), Text("third time lucky")]
    nexus = start(provider=provider)
    outcome = nexus.admin.ask("go")
    assert outcome.status == "completed" and outcome.answer == "third time lucky"
    assert [event["data"]["attempt"] for event in outcome.of("model.requested")] == [1, 2, 3]
    assert [event["data"]["error"] for event in outcome.of("model.failed")] == ["overloaded", "network"] or \
           [event["data"]["error"] for event in outcome.of("model.failed")] == ["overloaded", "provider_protocol"]
