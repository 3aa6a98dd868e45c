"""Bad input, of every kind one meets: each gets one clear answer, and the server goes on."""

import hashlib
import json
import shutil
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from harness import raw
from harness.client import PROBLEMS, problem
from harness.scripts import say, script
from harness.server import ROOT, toolbox


@pytest.fixture
def still_fine(nexus):
    """Whatever a test did, everyone else is served as before."""
    yield
    assert nexus.is_running
    assert nexus.admin.ask("hello").status == "completed"


# ---- documents ----

BAD_JSON = ['{"content": ', '{"content": "a",}', '{"content": "\x01"}', '{"content": "\\ud800"}', "", "nul", '{"a": 1} {"b": 2}']


@pytest.mark.parametrize("body", BAD_JSON)
def test_malformed_json_is_told_with_its_place(nexus, body):
    session = nexus.admin.open_session()
    reply = nexus.admin.post(f"/api/v1/sessions/{session}/messages", content=body.encode(),
                             headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 422), reply.text
    assert problem(reply) in ("invalid_json", "schema", "invalid")


WRONG = [
    ("/api/v1/sessions", {"budget": {"tokens": "many"}}, "tokens"),
    ("/api/v1/sessions", {"budget": {"tokens": -1}}, "tokens"),
    ("/api/v1/sessions", {"budget": {"tokens": 1.5}}, "tokens"),
    ("/api/v1/sessions", {"budget": 5}, "budget"),
    ("/api/v1/sessions", {"budget": {"cost_usd": "a lot"}}, "cost_usd"),
    ("/api/v1/sessions", {"agent": ["assistant"]}, "agent"),
    ("/api/v1/sessions", {"metadata": "text"}, "metadata"),
    ("/api/v1/sessions", ["a", "list"], "object"),
    ("/api/v1/keys", {"name": 7}, "name"),
    ("/api/v1/keys", {"name": "k", "role": "emperor"}, "role"),
    ("/api/v1/keys", {"name": "k", "expires_at": "tomorrow"}, "expires_at"),
    ("/api/v1/keys", {"name": "k", "scopes": ["everything"]}, "scopes"),
    ("/api/v1/tools/time/invoke", {}, "input"),
    ("/api/v1/tools/time/invoke", {"input": {"operation": "fly"}}, "operation"),
]


@pytest.mark.parametrize("path, body, named", WRONG, ids=lambda value: json.dumps(value)[:40])
def test_a_wrong_type_or_value_is_told_by_its_name(nexus, path, body, named):
    reply = nexus.admin.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 422), reply.text
    assert problem(reply) in ("schema", "invalid") and named in reply.json()["detail"]


@pytest.mark.parametrize("body", [{}, {"content": 5}, {"content": None}, {"content": ""}, {"content": "  "},
                                  {"content": [{"type": "text"}]}, {"content": "x", "stream": "yes"}, {"content": "x", "model": 3}])
def test_a_message_that_says_nothing_or_the_wrong_thing_starts_no_run(nexus, body):
    session = nexus.admin.open_session()
    reply = nexus.admin.post(f"/api/v1/sessions/{session}/messages", body)
    assert reply.status_code in (400, 422) and problem(reply) in ("schema", "invalid"), reply.text
    assert nexus.admin.get(f"/api/v1/runs?session_id={session}").json()["items"] == []


def test_a_deep_document_is_refused(nexus):
    reply = nexus.admin.post("/api/v1/sessions", content='{"metadata":' + '{"a":' * 5000 + "1" + "}" * 5001,
                             headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 413, 422) and problem(reply)


def test_a_document_of_another_type_is_415(nexus):
    reply = nexus.admin.post("/api/v1/sessions", content="a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 415 and problem(reply) == "media_type"


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(nexus):
    head = (f"POST /api/v1/sessions HTTP/1.1\r\nHost: 127.0.0.1:{nexus.port}\r\nAuthorization: Bearer {nexus.admin_key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 99000000\r\n\r\n")
    reply = raw.request(nexus.port, head.encode())
    assert reply.status == 413 and json.loads(reply.body)["type"] == PROBLEMS + "too_large"
    assert reply.seconds < 2


def test_a_chunked_body_that_grows_too_large_is_refused(nexus):
    def pieces():
        yield b'{"metadata": {"a": "'
        for _ in range(80):
            yield b"x" * (64 << 10)
        yield b'"}}'
    try:
        reply = nexus.admin.post("/api/v1/sessions", content=pieces(), headers={"Content-Type": "application/json"})
    except httpx.TransportError:                   # it hung up while we were still sending
        return
    assert reply.status_code == 413 and problem(reply) == "too_large"


# ---- what is not there ----

NOWHERE = "01900000-0000-7000-8000-000000000000"


@pytest.mark.parametrize("method, path", [
    ("GET", f"/api/v1/sessions/{NOWHERE}"), ("GET", "/api/v1/sessions/not-an-id"), ("GET", f"/api/v1/sessions/{NOWHERE}/budget"),
    ("POST", f"/api/v1/sessions/{NOWHERE}/messages"), ("GET", f"/api/v1/runs/{NOWHERE}"), ("GET", f"/api/v1/runs/{NOWHERE}/events"),
    ("POST", f"/api/v1/runs/{NOWHERE}/cancel"), ("GET", f"/api/v1/approvals/{NOWHERE}"), ("DELETE", f"/api/v1/keys/{NOWHERE}"),
    ("POST", "/api/v1/tools/hammer/invoke"), ("GET", "/api/v1/agents/nobody"), ("GET", "/nowhere"),
    ("GET", f"/api/v1/sessions/{NOWHERE}/files/a.csv"),
])
def test_what_does_not_exist_is_404_and_is_named(nexus, method, path):
    body = ({"input": {}} if "tools" in path else {"content": "x"}) if method == "POST" else None
    reply = nexus.admin.http.request(method, path, json=body)
    assert reply.status_code == 404 and problem(reply) == "not_found", reply.text


def test_a_method_that_a_path_does_not_have_is_405_with_those_it_has(nexus):
    reply = nexus.admin.delete("/api/v1/sessions")
    assert reply.status_code == 405 and problem(reply) == "method_not_allowed"
    assert {"GET", "POST"} <= {name.strip() for name in reply.headers["allow"].split(",")}


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "..", "%2e%2e", "a%00b", "a%2fb", ".", "x" * 300])
def test_a_file_name_that_would_leave_its_folder_is_refused(nexus, name):
    session = nexus.admin.open_session()
    path = f"/api/v1/sessions/{session}/files/{name}".encode()
    head = b"PUT " + path + (f" HTTP/1.1\r\nHost: 127.0.0.1:{nexus.port}\r\nAuthorization: Bearer {nexus.admin_key}\r\n"
                             "Content-Length: 1\r\n\r\nx").encode()
    reply = raw.request(nexus.port, head)
    assert 400 <= reply.status < 500 and json.loads(reply.body)["type"].startswith(PROBLEMS)


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "limit=100000", "cursor=garbage"])
def test_a_bad_page_is_refused(nexus, query):
    reply = nexus.admin.get(f"/api/v1/sessions?{query}")
    assert reply.status_code in (400, 422) and problem(reply)


@pytest.mark.parametrize("position", ["x", "-1", "1e3", "99999999999999999999"])
def test_a_bad_last_event_id_is_refused(nexus, position):
    run = nexus.admin.ask("hello").id
    reply = nexus.admin.get(f"/api/v1/runs/{run}/events", headers={"Last-Event-ID": position})
    assert reply.status_code == 400 and problem(reply) == "invalid"


def test_an_idempotency_key_gives_the_first_answer_again_and_refuses_another_request(nexus):
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = nexus.admin.post("/api/v1/sessions", {"metadata": {"n": 1}}, headers=key)
    assert nexus.admin.post("/api/v1/sessions", {"metadata": {"n": 1}}, headers=key).json() == first.json()
    other = nexus.admin.post("/api/v1/sessions", {"metadata": {"n": 2}}, headers=key)
    assert other.status_code == 409 and problem(other) == "idempotency_mismatch"


# ---- HTTP itself ----

def head_of(nexus, *lines: str, start: str = "GET /healthz HTTP/1.1", host: str | None = None) -> bytes:
    host = f"Host: {host or f'127.0.0.1:{nexus.port}'}"
    return "\r\n".join([start, host, *lines, "", ""]).encode("latin-1")


def check_refusal(reply: raw.RawReply, status: int, name: str) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"].startswith("application/problem+json")
    body = json.loads(reply.body)
    assert body["type"] == PROBLEMS + name and body["status"] == status and body["title"]


def test_huge_headers_are_431_and_a_long_address_is_414(nexus, still_fine):
    check_refusal(raw.request(nexus.port, head_of(nexus, "X-Huge: " + "x" * 40000)), 431, "headers_too_large")
    check_refusal(raw.request(nexus.port, head_of(nexus, *[f"X-{i}: y" for i in range(300)])), 431, "headers_too_large")
    check_refusal(raw.request(nexus.port, head_of(nexus, start=f"GET /{'a' * 9000} HTTP/1.1")), 414, "uri_too_long")


def test_a_request_without_a_host_or_with_two_is_400(nexus):
    check_refusal(raw.request(nexus.port, b"GET /healthz HTTP/1.1\r\n\r\n"), 400, "http_syntax")
    check_refusal(raw.request(nexus.port, head_of(nexus, "Host: other")), 400, "http_syntax")


@pytest.mark.parametrize("line", ["Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6",
                                  "Content-Length: +5", "Content-Length : 5", "Transfer-Encoding: chunked, identity",
                                  "X-Bad: a\rb", " folded: header"])
def test_a_request_that_could_be_read_in_two_ways_is_refused(nexus, line):
    reply = raw.request(nexus.port, head_of(nexus, line, start="POST /api/v1/sessions HTTP/1.1") + b"0\r\n\r\n")
    assert reply.status in (400, 501), reply


def test_a_foreign_host_and_a_foreign_origin_are_refused_with_a_remedy(nexus):
    reply = raw.request(nexus.port, head_of(nexus, host="evil.example"))
    assert 400 <= reply.status < 500 and b"allowed_hosts" in reply.body
    reply = nexus.admin.get("/api/v1/me", headers={"Origin": "https://evil.example"})
    assert reply.status_code == 403 and problem(reply) == "denied" and "evil.example" in reply.json()["detail"]
    assert nexus.admin.get("/api/v1/me", headers={"Origin": nexus.url}).status_code == 200


def test_slow_senders_are_sent_away_and_delay_nobody(nexus, still_fine):
    with ThreadPoolExecutor(12) as pool:
        heads = [pool.submit(drip, nexus.port, head_of(nexus)) for _ in range(8)]
        body = head_of(nexus, f"Authorization: Bearer {nexus.admin_key}", "Content-Type: application/json", "Content-Length: 500",
                       start="POST /api/v1/sessions HTTP/1.1")
        bodies = [pool.submit(send_and_wait, nexus.port, body + b'{"meta') for _ in range(4)]
        times = []
        for _ in range(50):
            begun = time.monotonic()
            assert nexus.client("").get("/healthz").status_code == 200
            times.append(time.monotonic() - begun)
        assert max(times) < 1
        for future in heads:
            reply = future.result()
            assert reply.status in (0, 408) and reply.seconds < 16
        for future in bodies:
            assert future.result().status in (0, 408) and future.result().seconds < 22


def drip(port: int, data: bytes) -> raw.RawReply:
    """A byte now and then: a slow-loris."""
    begun = time.monotonic()
    with raw.connect(port) as connection:
        for byte in data[:-4]:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            connection.settimeout(0.5)
            try:
                if not connection.recv(1, socket.MSG_PEEK):
                    break
                break
            except TimeoutError:
                continue
            except OSError:
                break
        reply = raw.receive(connection, 5)
    reply.seconds = time.monotonic() - begun
    return reply


def send_and_wait(port: int, data: bytes) -> raw.RawReply:
    with raw.connect(port) as connection:
        connection.sendall(data)
        return raw.receive(connection, 25)


def test_a_peer_that_closes_its_sending_side_still_gets_its_answer(nexus):
    with raw.connect(nexus.port) as connection:
        connection.sendall(head_of(nexus))
        connection.shutdown(socket.SHUT_WR)
        assert raw.receive(connection, 10).status == 200


def test_a_peer_that_closes_in_the_middle_of_a_request_is_let_go_at_once(nexus, still_fine):
    for piece in (b"", b"GET /heal", head_of(nexus, "Content-Length: 100", start="POST /api/v1/sessions HTTP/1.1") + b"{"):
        with raw.connect(nexus.port) as connection:
            connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            reply = raw.receive(connection, 10)
            assert reply.is_closed or reply.status >= 400, reply
            assert reply.seconds < 5


def test_garbage_on_the_socket_is_one_400(nexus, still_fine):
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 100, b"SSH-2.0-x\r\n", b"GET\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        reply = raw.request(nexus.port, garbage + b"\r\n\r\n", 5)
        assert reply.status in (0, 400, 405, 505), (garbage, reply)


# ---- who ----

def test_every_way_of_not_being_allowed_is_told_apart(nexus):
    admin = nexus.admin
    assert problem(nexus.client("").get("/api/v1/me")) == "unauthenticated"
    wrong = nexus.client("nxk_" + "A" * 43).get("/api/v1/me")
    assert wrong.status_code == 401 and "bearer" in wrong.headers["www-authenticate"].lower()
    viewer = nexus.user("victor", "viewer")
    assert viewer.get("/api/v1/sessions").status_code == 200
    refused = viewer.post("/api/v1/sessions", {})
    assert refused.status_code == 403 and problem(refused) == "denied" and "viewer" in refused.json()["detail"]
    issued = admin.create_key(user_id="rita", role="user")
    rita = nexus.client(issued["key"])
    assert rita.get("/api/v1/me").json()["user_id"] == "rita"
    assert admin.delete(f"/api/v1/keys/{issued['id']}").status_code == 204
    assert problem(rita.get("/api/v1/me")) == "unauthenticated"
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    brief = nexus.client(admin.create_key(user_id="brief", role="user", expires_at=soon)["key"])
    assert brief.get("/api/v1/me").status_code == 200
    time.sleep(2.2)
    assert problem(brief.get("/api/v1/me")) == "unauthenticated"
    assert problem(nexus.user("uma").get("/api/v1/audit")) == "denied"
    assert problem(nexus.user("uma").post("/api/v1/sessions", {"user_id": "admin"})) == "denied"


def test_too_many_requests_in_a_minute_are_429_with_the_time_to_wait(start):
    nexus = start({"limits": {"requests_per_minute": 20}})
    replies = [nexus.admin.get("/api/v1/me") for _ in range(25)]
    assert [reply.status_code for reply in replies].count(200) == 20
    last = replies[-1]
    assert last.status_code == 429 and problem(last) == "rate_limit"
    assert 0 < int(last.headers["retry-after"]) <= 60 and last.headers["ratelimit-remaining"] == "0"


# ---- configuration, policies, compiled modules, disks ----

BAD_YAML = [
    ("listen: 127.0.0.1:8080\n  data_dir: x\n", 2, "mapping"),
    ("listen: 127.0.0.1:8080\nlisten_port: 3\n", 2, "listen"),
    ("listen: nowhere\n", 1, "listen"),
    ("providers:\n  - {name: a, type: openay, base_url: 'http://x/v1'}\n", 2, "openai"),
    ("models:\n  - name: m\n    targets: [{provider: ghost, model: x}]\n", 3, "ghost"),
    ("providers:\n  - {name: a, type: openai, base_url: 'http://x/v1', api_keys: ['${env:NOT_SET_HERE}']}\n", 2, "NOT_SET_HERE"),
    ("limits:\n  call_timeout: soon\n", 2, "call_timeout"),
    ("budgets:\n  session: {tokens: -5}\n", 2, "tokens"),
    ("data_dir: a\ndata_dir: b\n", 2, "data_dir"),
]


@pytest.mark.parametrize("text, line, word", BAD_YAML, ids=[case[2] + str(case[1]) for case in BAD_YAML])
def test_a_bad_configuration_is_told_by_file_line_and_remedy(nexus, tmp_path, text, line, word):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    ended = nexus.command("config", "check", "--config", str(file))
    told = ended.stdout + ended.stderr
    assert ended.returncode == 2, told
    assert f"broken.yaml:{line}" in told and word in told
    assert nexus.command("serve", "--config", str(file), seconds=20).returncode == 2


def test_a_broken_policy_is_refused_with_its_place_and_the_old_one_stays(start, tmp_path):
    policies = tmp_path / "policies"
    shutil.copytree(ROOT / "policies", policies)
    nexus = start({"policy": {"dir": str(policies)}})
    version = nexus.admin.get("/api/v1/policies/rules").json()["version"]
    good = (policies / "base.rego").read_text()
    (policies / "base.rego").write_text(good + "\nallow if {\n    input.user.role ===\n}\n")
    reply = nexus.admin.post("/api/v1/policies/reload")
    assert problem(reply) == "config" and f"base.rego:{good.count(chr(10)) + 3}" in reply.json()["detail"]
    nexus.reload()
    assert "base.rego" in nexus.wait_for_log("the old one stays")
    assert nexus.admin.get("/api/v1/policies/rules").json()["version"] == version
    assert nexus.admin.ask("hello").status == "completed"
    (policies / "base.rego").write_text("package nexus.agent.policy\n\nimport rego.v1\n\nallow if input.action == \"nothing\"\n")
    assert nexus.admin.post("/api/v1/policies/reload").status_code == 200
    assert nexus.admin.get("/api/v1/policies/rules").json()["version"] != version
    uma = nexus.user("uma")
    reply = uma.post(f"/api/v1/sessions/{uma.open_session()}/messages", {"content": "hello"})
    assert reply.status_code == 403 and problem(reply) == "policy_denied"


def test_a_policy_that_is_broken_at_the_start_is_a_clear_refusal_to_start(start, tmp_path):
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "mine.rego").write_text("package nexus.agent.policy\n\nallow {\n")
    nexus = start.prepare({"policy": {"dir": str(policies)}})
    assert nexus.spawn().wait(30) == 2
    assert "mine.rego:" in nexus.log_text()


def compiled_of(nexus, tool: str) -> Path:
    """The code of a tool of this build, in a folder of the node's own."""
    module, = (toolbox() / tool).glob("*.wasm")
    file, = (nexus.data / "cache/wasm").glob(hashlib.sha256(module.read_bytes()).hexdigest() + "-*.cwasm")
    return file


def test_corrupt_cut_and_forged_compiled_modules_are_compiled_anew_and_logged(start, compiled_tools):
    nexus = start.prepare()
    nexus.keep_compiled_tools_apart(compiled_tools)      # other builds' as well: only these are loaded
    modules = [compiled_of(nexus, tool) for tool in ("time", "text_processing", "data_analysis", "file_system", "web_extract")]
    smallest, second, third = modules[:3]
    smallest.write_bytes(smallest.read_bytes()[:-1] + b"\x00")
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    second.write_bytes(damaged)
    third.write_bytes(smallest.read_bytes()[:100])
    modules[3].write_bytes(modules[4].read_bytes())     # a good one, under another tool's name
    nexus.start()
    for tool, tool_input in (("text_processing", {"operation": "count", "text": "a"}), ("time", {}),
                             ("data_analysis", {"data": [{"a": 1}], "steps": [{"describe": True}]}),
                             ("file_system", {"operation": "list", "path": "/"})):
        assert nexus.admin.invoke(tool, tool_input).status_code in (200, 403), tool
    refused = [entry for entry in nexus.log_entries() if "compiled anew" in entry["message"]]
    assert len(refused) >= 3, nexus.log_tail()


def test_a_full_disk_is_told_and_the_server_recovers(needs_fault_points, start):
    nexus = start(is_dev=True)
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = ",".join(["file.write:1", *[f"store.commit:{n}" for n in (4, 5, 9, 14, 20, 21, 22, 30)]])
    nexus.start()
    refusals: list[str] = []
    session = insist(nexus, refusals, lambda: nexus.admin.post("/api/v1/sessions", {})).json()["id"]
    upload = insist(nexus, refusals, lambda: nexus.admin.put(f"/api/v1/sessions/{session}/files/a.txt", content=b"x" * 1000))
    assert upload.json()["bytes"] == 1000
    for _ in range(8):                             # what was taken is finished, although the disk is full now and then
        session = insist(nexus, refusals, lambda: nexus.admin.post("/api/v1/sessions", {})).json()["id"]
        message = {"content": script(say("still here"))}
        reply = insist(nexus, refusals, lambda: nexus.admin.post(f"/api/v1/sessions/{session}/messages", message))
        assert nexus.admin.wait(reply.json()["run_id"])["status"] == "completed"
    assert "disk_full" in refusals, "the disk was never full"
    assert nexus.admin.post("/api/v1/audit/verify").json()["ok"] is True


def insist(nexus, refusals: list[str], action) -> httpx.Response:
    """Asks again after each refusal for want of space; counts them."""
    for _ in range(8):
        reply = action()
        if reply.status_code < 400:
            return reply
        assert reply.status_code in (503, 507), reply.text
        refusals.append(problem(reply))
    raise AssertionError("the store did not recover")


def test_many_bad_clients_at_once_do_not_hurt(nexus, still_fine):
    def torment(number: int) -> None:
        for data in (b"\xff" * 500, b"GET / HTTP/1.1\r\n" * 50, head_of(nexus, "X: " + "y" * 30000), b""):
            try:
                raw.request(nexus.port, data, 0.2)
            except OSError:
                pass
    threads = [threading.Thread(target=torment, args=(number,)) for number in range(50)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
