"""Webhooks in, signed by official code, and out, to a receiver that checks them with official code and breaks in every way."""

import base64
import datetime
import hashlib
import hmac
import json
import sqlite3
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
import yaml
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from harness.client import problem
from harness.provider import Server
from harness.scripts import call, say, script
from harness.tools import DANGEROUS, tools_with_a_dangerous_one
from harness.upstream import ADDRESS

NOTE = {"name": "note", "version": "1.0.0", "steps": [{"id": "s", "sleep": "0s"}], "output": "${input.body.text}"}
OUT = {"webhooks": {"allowed_hosts": [ADDRESS], "allowed_ips": [ADDRESS], "http": "allow", "timeout": "2s",
                    "retries": ["200ms", "200ms", "200ms"]}}


# ---- in: what a sender does ----

def put(client, definition: dict) -> None:
    reply = client.put("/api/v1/workflows", content=yaml.safe_dump(definition, sort_keys=False))
    assert reply.status_code in (200, 201), reply.text


def make(client, name: str, **more) -> dict:
    reply = client.post("/api/v1/webhooks", {"name": name, **({"workflow": "note"} | more)})
    assert reply.status_code == 201, reply.text
    webhook = reply.json()
    client.server.secrets.add(webhook["secret"])
    return webhook


def standard(webhook: dict, body, *, secret: str = "", at: float | None = None, delivery: str = "") -> tuple[bytes, dict]:
    """Body and header fields, signed by the official package."""
    text = body if isinstance(body, str) else json.dumps(body)
    moment = datetime.datetime.fromtimestamp(at if at is not None else time.time(), tz=datetime.timezone.utc)
    delivery = delivery or f"msg_{uuid.uuid4().hex}"
    signature = Webhook(secret or webhook["secret"]).sign(msg_id=delivery, timestamp=moment, data=text)
    return text.encode(), {"webhook-id": delivery, "webhook-timestamp": str(int(moment.timestamp())),
                           "webhook-signature": signature, "content-type": "application/json"}


def send(nexus, path: str, body: bytes, headers: dict) -> httpx.Response:
    return httpx.post(nexus.url + path, content=body, headers=headers, timeout=30)


def answer(client, run_id: str):
    outcome = client.outcome(run_id, "completed", "failed")
    assert outcome.status == "completed", outcome.events
    return outcome.of("run.completed")[-1]["data"]["parts"]["output"]


def test_a_signed_request_starts_a_workflow_as_who_made_the_webhook(start):
    nexus = start()
    ada = nexus.user("ada")
    put(ada, NOTE)
    webhook = make(ada, "notes")
    assert webhook["path"].startswith("/api/v1/hooks/") and webhook["user_id"] == "ada"
    reply = send(nexus, webhook["path"], *standard(webhook, {"text": "it works"}))
    assert reply.status_code == 202 and reply.json()["repeated"] is False, reply.text
    run = ada.run(reply.json()["run_id"])
    assert run["agent"] == "workflow:note"
    assert answer(ada, run["id"]) == "it works"
    assert "secret" not in ada.get("/api/v1/webhooks/notes").json(), "the secret is shown once"
    actions = [entry["action"] for entry in nexus.admin.get("/api/v1/audit?limit=200").json()["items"]]
    assert "webhook.create" in actions and "webhook.receive" in actions
    label = [event for event in ada.events(run["id"]) if event["type"] == "message.added"][0]["data"]["label"]
    assert label["untrusted"] is True and label["origins"] == ["web"]


def test_the_same_delivery_starts_one_run_also_after_a_crash_and_at_the_same_time(start):
    nexus = start()
    put(nexus.admin, NOTE)
    webhook = make(nexus.admin, "notes")
    first = standard(webhook, {"text": "once"}, delivery="msg_once")
    runs = []
    threads = [threading.Thread(target=lambda: runs.append(send(nexus, webhook["path"], *first).json()["run_id"]))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 8 and len(set(runs)) == 1
    nexus.restart(is_crash=True)
    again = send(nexus, webhook["path"], *standard(webhook, {"text": "once"}, delivery="msg_once")).json()
    assert again["run_id"] == runs[0] and again["repeated"] is True, "a later attempt has a new time and the same id"
    assert len(nexus.admin.get("/api/v1/runs").json()["items"]) == 1


def test_whatever_is_wrong_gets_the_same_answer(start):
    nexus = start()
    put(nexus.admin, NOTE)
    webhook = make(nexus.admin, "notes")
    path, (body, headers) = webhook["path"], standard(webhook, {"text": "x"})
    tenant = path.split("/")[4]
    others = {
        "no such webhook": (f"/api/v1/hooks/{tenant}/nothing", body, headers),
        "no such tenant": (f"/api/v1/hooks/{uuid.uuid4()}/notes", body, headers),
        "no tenant's id": ("/api/v1/hooks/x/notes", body, headers),
        "tampered body": (path, body.replace(b"x", b"y"), headers),
        "another id": (path, body, {**headers, "webhook-id": "msg_other"}),
        "another time": (path, body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
        "no signature": (path, body, {}),
        "an old one": (path, *standard(webhook, {"text": "x"}, at=time.time() - 301)),
        "one from the future": (path, *standard(webhook, {"text": "x"}, at=time.time() + 310)),
        "another secret": (path, *standard(webhook, {"text": "x"}, secret="whsec_" + base64.b64encode(b"k" * 32).decode())),
    }
    answers = set()
    for what, request in others.items():
        reply = send(nexus, *request)
        assert reply.status_code == 401, what
        document = reply.json()
        answers.add(json.dumps({name: document[name] for name in ("type", "title", "status", "detail")}, sort_keys=True))
    assert len(answers) == 1
    assert nexus.admin.get("/api/v1/runs").json()["items"] == []
    deadline = time.monotonic() + 20
    while True:
        refused = [entry for entry in nexus.admin.get("/api/v1/audit?limit=200").json()["items"] if entry["action"] == "webhook.refuse"]
        if refused:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert sum(entry["details"]["count"] for entry in refused) == 7 and {entry["resource_id"] for entry in refused} == {"notes"}
    assert send(nexus, path, b"x" * (257 << 10), headers).status_code == 413
    assert send(nexus, path, *standard(webhook, "{broken")).status_code == 400


def test_both_secrets_are_good_for_a_while_after_a_change(start):
    nexus = start()
    put(nexus.admin, NOTE)
    old = make(nexus.admin, "notes")
    new = nexus.admin.post("/api/v1/webhooks/notes/rotate", {"overlap_seconds": 3}).json()
    nexus.secrets.add(new["secret"])
    assert new["secret"] != old["secret"] and new["previous_secret_until"]
    for webhook in (old, new):
        assert send(nexus, old["path"], *standard(webhook, {"text": "x"})).status_code == 202
    time.sleep(3.1)
    assert send(nexus, old["path"], *standard(old, {"text": "x"})).status_code == 401
    assert send(nexus, old["path"], *standard(new, {"text": "x"})).status_code == 202


def test_github_and_stripe_sign_their_own_way(start):
    nexus = start()
    put(nexus.admin, NOTE)
    github = make(nexus.admin, "push", scheme="github", secret="a-secret-of-twenty-bytes")
    stripe = make(nexus.admin, "paid", scheme="stripe", secret="whsec_thatStripeMadeForUs")
    body = json.dumps({"id": "evt_1", "text": "hi"}).encode()

    def mac(secret: str, data: bytes) -> str:
        return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()

    pushed = {"X-Hub-Signature-256": "sha256=" + mac(github["secret"], body), "X-GitHub-Event": "push",
              "X-GitHub-Delivery": str(uuid.uuid4()), "Content-Type": "application/json"}
    first = send(nexus, github["path"], body, pushed)
    assert first.status_code == 202, first.text
    assert answer(nexus.admin, first.json()["run_id"]) == "hi"
    replayed = send(nexus, github["path"], body, {**pushed, "X-GitHub-Delivery": str(uuid.uuid4())}).json()
    assert replayed["repeated"] and replayed["run_id"] == first.json()["run_id"], "the delivery's id is not signed: the body counts"

    def paid(at: int, content: bytes = body) -> httpx.Response:
        signature = f"t={at},v1={'0' * 64},v1={mac(stripe['secret'], str(at).encode() + b'.' + content)}"
        return send(nexus, stripe["path"], content, {"Stripe-Signature": signature, "Content-Type": "application/json"})

    now = int(time.time())
    one, two, old = paid(now), paid(now - 5), paid(now - 400)
    assert (one.status_code, two.status_code, old.status_code) == (202, 202, 401)
    assert two.json()["run_id"] == one.json()["run_id"] and two.json()["repeated"]
    assert paid(now, body.replace(b"evt_1", b"evt_2")).json()["repeated"] is False


def test_a_request_signals_the_run_that_its_body_names(start):
    nexus = start()
    put(nexus.admin, {"name": "waits", "version": "1.0.0", "steps": [{"id": "w", "wait_signal": {"name": "paid"}}],
                      "output": "${steps.w.output.body.amount}"})
    webhook = make(nexus.admin, "paid", workflow="", signal_name="paid", run_pointer="/order/run")
    run_id = nexus.admin.post("/api/v1/workflows/waits/runs", {}).json()["run_id"]
    nexus.admin.wait(run_id, "waiting")
    assert problem(send(nexus, webhook["path"], *standard(webhook, {"order": {}}))) == "schema"
    assert send(nexus, webhook["path"], *standard(webhook, {"order": {"run": str(uuid.uuid4())}})).status_code == 404
    request = standard(webhook, {"order": {"run": run_id}, "amount": "12 EUR"})
    first, again = (send(nexus, webhook["path"], *request).json() for _ in range(2))
    assert first["run_id"] == run_id and again["repeated"] and again["signal_id"] == first["signal_id"]
    assert answer(nexus.admin, run_id) == "12 EUR"
    [done] = [event for event in nexus.admin.events(run_id) if event["type"] == "run.step_completed"]
    assert done["data"]["label"]["untrusted"] is True, "what came by a webhook stays untrusted"


def administrator_of_another_tenant(nexus):
    """There is no API yet that makes tenants."""
    key, other = nexus.admin.create_key("mallory", "admin"), str(uuid.uuid4())
    nexus.terminate()
    with sqlite3.connect(nexus.data / "nexus.db") as database:
        database.execute("INSERT INTO tenants (tenant_id, id, name, created_at) VALUES (?, ?, 'other', 0)", (other, other))
        database.execute("UPDATE api_keys SET tenant_id = ? WHERE id = ?", (other, key["id"]))
    nexus.start()
    return nexus.client(key["key"])


def test_two_tenants_do_not_know_each_others_webhooks(start, receiver):
    nexus = start(OUT)
    other = administrator_of_another_tenant(nexus)
    put(nexus.admin, NOTE)
    mine = make(nexus.admin, "notes")
    made = endpoint(nexus.admin, receiver)
    put(other, NOTE)
    theirs = make(other, "notes")
    assert mine["path"] != theirs["path"] and other.get("/api/v1/webhooks").json()["items"][0]["path"] == theirs["path"]
    assert send(nexus, theirs["path"], *standard(mine, {"text": "x"})).status_code == 401
    delivered = send(nexus, theirs["path"], *standard(theirs, {"text": "x"}, delivery="msg_1")).json()
    own = send(nexus, mine["path"], *standard(mine, {"text": "x"}, delivery="msg_1")).json()
    assert not own["repeated"] and own["run_id"] != delivered["run_id"]
    assert other.get(f"/api/v1/runs/{own['run_id']}").status_code == 404
    other.ask(script(say("hi")))
    time.sleep(1)
    assert {event["data"]["run_id"] for event in receiver.events(made["secret"])} == {own["run_id"]}, "nothing of the other tenant's"
    assert other.get("/api/v1/webhook-deliveries").json()["items"] == [] and other.get("/api/v1/webhook-endpoints").json()["items"] == []
    [delivery] = deliveries(nexus.admin)
    for refused in (other.get(f"/api/v1/webhook-deliveries/{delivery['id']}"), other.get("/api/v1/webhook-endpoints/pager"),
                    other.post(f"/api/v1/webhook-deliveries/{delivery['id']}/retry"), other.delete("/api/v1/webhooks/nothing")):
        assert refused.status_code == 404


def test_who_may_do_what_and_a_webhook_ends_with_its_makers_key(start):
    nexus = start()
    put(nexus.admin, NOTE)
    viewer, ada, eve, olga = (nexus.user(*who) for who in (("vera", "viewer"), ("ada",), ("eve",), ("olga", "operator")))
    assert viewer.post("/api/v1/webhooks", {"name": "v", "workflow": "note"}).status_code == 403
    webhook, powerful = make(ada, "adas"), make(nexus.admin, "admins")
    assert eve.get("/api/v1/webhooks/adas").status_code == 404 and eve.delete("/api/v1/webhooks/adas").status_code == 404
    assert olga.get("/api/v1/webhooks/adas").status_code == 200
    assert olga.post("/api/v1/webhooks/admins/rotate", {}).status_code == 403, "its secret would make her an administrator"
    assert problem(eve.post("/api/v1/webhooks", {"name": "adas", "workflow": "note"})) == "conflict"
    for wrong in ({"name": "a b", "workflow": "note"}, {"name": "x"}, {"name": "x", "workflow": "note", "signal_name": "s"},
                  {"name": "x", "workflow": "note", "scheme": "md5"}, {"name": "x", "workflow": "note", "secret": "short"}):
        assert problem(ada.post("/api/v1/webhooks", wrong)) == "schema", wrong
    assert ada.post("/api/v1/webhooks", {"name": "x", "workflow": "nothing"}).status_code == 404
    assert send(nexus, webhook["path"], *standard(webhook, {"text": "x"})).status_code == 202
    for key in nexus.admin.get("/api/v1/keys").json()["items"]:
        if key.get("user_id") == "ada":
            assert nexus.admin.delete(f"/api/v1/keys/{key['id']}").status_code in (200, 204)
    assert send(nexus, webhook["path"], *standard(webhook, {"text": "x"})).status_code == 403
    assert send(nexus, powerful["path"], *standard(powerful, {"text": "x"})).status_code == 202
    assert eve.get("/api/v1/webhook-endpoints").status_code == 403, "endpoints hear of everybody's runs"


# ---- out: a receiver ----

class Receiver:
    """Keeps what it is sent; answers as it is told, and with 200 from then on."""

    def __init__(self):
        self.requests: list[tuple[dict, bytes]] = []
        self.statuses: list[int | tuple[int, dict]] = []
        self.hangs = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.server = Server((ADDRESS, 0), self.handler())
        self.url = f"http://{ADDRESS}:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handler(receiver):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with receiver.lock:
                    receiver.requests.append((dict(self.headers.items()), body))
                    hangs = receiver.hangs > 0
                    receiver.hangs -= hangs
                    status = receiver.statuses.pop(0) if receiver.statuses and not hangs else 200
                if hangs:
                    receiver.released.wait(30)
                    self.close_connection = True
                    return
                status, more = status if isinstance(status, tuple) else (status, {})
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
        return Handler

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def wait(self, count: int, seconds: float = 30) -> list[tuple[dict, bytes]]:
        deadline = time.monotonic() + seconds
        while len(self.requests) < count:
            assert time.monotonic() < deadline, f"{len(self.requests)} of {count} came"
            time.sleep(0.02)
        return self.requests

    def events(self, secret: str) -> list[dict]:
        """All that came, each verified by the official package."""
        return [Webhook(secret).verify(body, headers) for headers, body in self.requests]


@pytest.fixture
def receiver():
    service = Receiver()
    yield service
    service.close()


def endpoint(client, receiver: Receiver, name: str = "pager", **more) -> dict:
    reply = client.post("/api/v1/webhook-endpoints", {"name": name, "url": receiver.url, **more})
    assert reply.status_code == 201, reply.text
    client.server.secrets.add(reply.json()["secret"])
    return reply.json()


def deliveries(client, **where) -> list[dict]:
    return client.get("/api/v1/webhook-deliveries", params=where).json()["items"]


def wait_for(client, status: str, count: int = 1, seconds: float = 30) -> list[dict]:
    deadline = time.monotonic() + seconds
    while True:
        found = deliveries(client, status=status)
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, deliveries(client)
        time.sleep(0.05)


def test_an_endpoint_is_told_of_the_ends_of_runs_without_their_content(start, receiver):
    nexus = start(OUT)
    made = endpoint(nexus.admin, receiver)
    ada = nexus.user("ada")
    outcome = ada.ask(script(say("a very private answer")))
    receiver.wait(1)
    put(nexus.admin, NOTE)
    put(nexus.admin, {"name": "bad", "version": "1.0.0", "steps": [{"id": "s", "sleep": "0s"}], "output": "${input.nothing.at.all}"})
    run_id = nexus.admin.post("/api/v1/workflows/note/runs", {"input": {"body": {"text": "x"}}}).json()["run_id"]
    receiver.wait(2)
    failed = nexus.admin.post("/api/v1/workflows/bad/runs", {"input": {}}).json()["run_id"]
    receiver.wait(3)
    first, second, third = receiver.events(made["secret"])
    assert first["type"] == "run.completed" and first["data"]["run_id"] == outcome.id
    assert first["data"]["user_id"] == "ada" and first["data"]["cost"]["tokens"] > 0 and first["data"]["message_id"]
    assert b"private" not in receiver.requests[0][1]
    assert second["data"]["run_id"] == run_id and second["data"]["workflow"] == "note"
    assert third["type"] == "run.failed" and third["data"]["run_id"] == failed and third["data"]["error"]
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"k" * 32).decode()).verify(receiver.requests[0][1], receiver.requests[0][0])
    assert {delivery["status"] for delivery in wait_for(nexus.admin, "delivered", 3)} == {"delivered"}


def test_an_endpoint_gets_the_answer_when_it_asks_for_it_and_only_the_events_it_names(start, receiver):
    nexus = start(OUT)
    made = endpoint(nexus.admin, receiver, events=["run.completed", "run.cancelled"], include=["answer"])
    outcome = nexus.admin.ask(script(say("the answer")))
    receiver.wait(1)
    put(nexus.admin, {"name": "waits", "version": "1.0.0", "steps": [{"id": "w", "wait_signal": {"name": "never"}}]})
    run_id = nexus.admin.post("/api/v1/workflows/waits/runs", {}).json()["run_id"]
    nexus.admin.wait(run_id, "waiting")
    nexus.admin.post(f"/api/v1/runs/{run_id}/cancel")
    receiver.wait(2)
    completed, cancelled = receiver.events(made["secret"])
    assert "the answer" in outcome.answer and completed["data"]["answer"] == outcome.answer and cancelled["type"] == "run.cancelled"
    assert "the answer" not in json.dumps(deliveries(nexus.admin)), "it is read when it is sent, and kept once"


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(start, receiver):
    nexus = start(OUT)
    made = endpoint(nexus.admin, receiver)
    receiver.statuses = [500, 503, 302]
    nexus.admin.ask(script(say("hi")))
    receiver.wait(4)
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    assert len(receiver.events(made["secret"])) == 4 and len({body for _, body in receiver.requests}) == 1
    [delivery] = wait_for(nexus.admin, "delivered")
    assert delivery["attempts"] == 4 and delivery["id"] == receiver.requests[0][0]["webhook-id"] and delivery["last_error"] is None


def test_a_dead_delivery_is_told_and_sent_again_by_hand(start, receiver):
    nexus = start(OUT)
    endpoint(nexus.admin, receiver)
    receiver.statuses = [500] * 8
    nexus.admin.ask(script(say("hi")))
    [dead] = wait_for(nexus.admin, "dead")
    assert dead["attempts"] == 4 and "500" in dead["last_error"] and dead["next_at"] is None
    retried = nexus.command("webhook", "retry", dead["id"])
    assert retried.returncode == 0, retried.stderr
    receiver.wait(8)
    [dead] = wait_for(nexus.admin, "dead")
    assert json.loads(nexus.command("webhook", "redeliver", "pager", "--json").stdout)["count"] == 1
    [delivered] = wait_for(nexus.admin, "delivered")
    assert delivered["id"] == dead["id"] and len(receiver.wait(9)) == 9
    actions = [entry["action"] for entry in nexus.admin.get("/api/v1/audit?limit=200").json()["items"]]
    assert actions.count("webhook_delivery.dead") == 2 and "webhook_delivery.retry" in actions


def test_a_receiver_that_hangs_holds_up_nobody_else(start, receiver):
    slow = Receiver()
    slow.hangs = 1000
    try:
        nexus = start(OUT)
        endpoint(nexus.admin, slow, "slow")
        endpoint(nexus.admin, receiver, "quick")
        began = time.monotonic()
        for _ in range(5):
            nexus.admin.ask(script(say("hi")))
        receiver.wait(5)
        assert time.monotonic() - began < 20
        pending = deliveries(nexus.admin, endpoint="slow")
        assert len(pending) == 5 and all(delivery["status"] in ("pending", "dead") for delivery in pending)
        [first] = [delivery for delivery in wait_for(nexus.admin, "dead", 5, seconds=60) if delivery["id"] == pending[-1]["id"]]
        assert "time" in first["last_error"].lower(), first
    finally:
        slow.close()


def test_410_pauses_an_endpoint_and_retry_after_is_obeyed(start, receiver):
    nexus = start(OUT)
    endpoint(nexus.admin, receiver)
    receiver.statuses = [(429, {"Retry-After": "3"})]
    nexus.admin.ask(script(say("hi")))
    receiver.wait(1)
    began = time.monotonic()
    receiver.wait(2)
    assert time.monotonic() - began > 2.5
    receiver.statuses = [410]
    nexus.admin.ask(script(say("hi")))
    wait_for(nexus.admin, "dead")
    shown = nexus.admin.get("/api/v1/webhook-endpoints/pager").json()
    assert shown["paused"] is True and shown["paused_why"] == "gone"
    nexus.admin.ask(script(say("hi")))
    time.sleep(1)
    assert len(receiver.requests) == 3 and len(deliveries(nexus.admin, status="pending")) == 1
    assert nexus.admin.post("/api/v1/webhook-endpoints/pager/resume").json()["paused"] is False
    receiver.wait(4)


@pytest.mark.parametrize("point, least", [("run_completed.before:1", 1), ("run_completed.after:1", 1), ("webhook_sent.before:1", 2),
                                          ("webhook_sent.after:1", 1)])
def test_a_kill_between_a_runs_end_and_its_delivery_loses_none(needs_fault_points, start, receiver, point, least):
    nexus = start(OUT, is_dev=True)
    made = endpoint(nexus.admin, receiver)
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    try:
        nexus.admin.send(nexus.admin.open_session(), script(say("hi")))
    except httpx.HTTPError:
        pass
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    [delivered] = wait_for(nexus.admin, "delivered")
    assert len(receiver.requests) == least and {event["type"] for event in receiver.events(made["secret"])} == {"run.completed"}
    assert {headers["webhook-id"] for headers, _ in receiver.requests} == {delivered["id"]}


def wait_for_events(receiver: Receiver, made: dict, *kinds: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not set(kinds) <= {event["type"] for event in receiver.events(made["secret"])}:
        assert time.monotonic() < deadline, [event["type"] for event in receiver.events(made["secret"])]
        time.sleep(0.05)


def test_approvals_and_budgets_are_told(start, receiver, tmp_path):
    tools = {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools")), DANGEROUS: {"approval": {"remind": "1s"}}}
    nexus = start({**OUT, "tools": tools, "budgets": {"alerts": ["1"]}})
    made = endpoint(nexus.admin, receiver, events=["approval.requested", "approval.reminded", "budget.alerted"])
    ada = nexus.user("ada")
    run_id = ada.send(ada.open_session(), script(call(DANGEROUS, operation="upper", text="secret words"), say("x" * 9000)))
    assert ada.wait(run_id, "waiting")["status"] == "waiting"
    wait_for_events(receiver, made, "approval.requested", "approval.reminded")
    approval = nexus.admin.get("/api/v1/approvals?status=pending").json()["items"][0]
    reply = nexus.admin.post(f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
    assert reply.status_code == 200, reply.text
    ada.wait(run_id, "completed")
    wait_for_events(receiver, made, "budget.alerted")
    events = {event["type"]: event["data"] for event in receiver.events(made["secret"])}
    assert events["approval.requested"]["approval_id"] == approval["id"] and events["approval.requested"]["tool"] == DANGEROUS
    assert events["approval.reminded"]["run_id"] == run_id and events["approval.reminded"]["reminder"] >= 1
    assert events["budget.alerted"]["threshold_percent"] == 1 and events["budget.alerted"]["level"] in ("session", "user", "run")
    assert b"secret words" not in b"".join(body for _, body in receiver.requests)


def test_where_endpoints_may_be_is_the_operators_word(start, receiver):
    nexus = start()
    reply = nexus.admin.post("/api/v1/webhook-endpoints", {"name": "x", "url": "https://hooks.example.com/"})
    assert problem(reply) == "egress_blocked" and "webhooks.allowed_hosts" in reply.json()["detail"]
    nexus.stop()
    nexus.write_config({"webhooks": {"allowed_hosts": [ADDRESS], "http": "allow", "retries": ["100ms"]}})
    nexus.start()
    assert problem(nexus.admin.post("/api/v1/webhook-endpoints", {"name": "x", "url": "http://127.0.0.1/"})) == "egress_blocked"
    endpoint(nexus.admin, receiver)                      # the host is allowed; its private address is looked at when it is dialled
    tested = nexus.command("webhook", "endpoint", "test", "pager", "--json")
    assert tested.returncode == 0, tested.stderr
    [dead] = wait_for(nexus.admin, "dead")
    assert dead["id"] == json.loads(tested.stdout)["delivery_id"] and dead["event"] == "webhook.test"
    assert not receiver.requests and "not on the public Internet" in dead["last_error"], dead
    nexus.stop()
    nexus.write_config({"webhooks": {"allowed_hosts": [ADDRESS]}})
    nexus.start()
    assert problem(nexus.admin.post("/api/v1/webhook-endpoints", {"name": "y", "url": receiver.url})) == "schema"


def test_an_endpoints_secret_is_changed_without_a_gap(start, receiver):
    nexus = start(OUT)
    old = endpoint(nexus.admin, receiver)
    new = nexus.admin.post("/api/v1/webhook-endpoints/pager/rotate", {"overlap_seconds": 60}).json()
    nexus.secrets.add(new["secret"])
    nexus.admin.ask(script(say("hi")))
    receiver.wait(1)
    assert receiver.events(old["secret"]) == receiver.events(new["secret"])
    assert receiver.requests[0][0]["webhook-signature"].count("v1,") == 2


def test_the_command_line_does_it_all(start, receiver, tmp_path):
    nexus = start(OUT)
    put(nexus.admin, NOTE)
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-twenty-bytes\n")
    made = nexus.command("webhook", "create", "notes", "--workflow", "note", "--scheme", "github", "--secret-file", str(secret), "--json")
    assert made.returncode == 0 and json.loads(made.stdout)["secret"] == "a-secret-of-twenty-bytes", made.stderr
    assert "notes" in nexus.command("webhook", "list").stdout and "note" in nexus.command("webhook", "show", "notes").stdout
    tried = nexus.command("webhook", "test", "notes", "--body", '{"text": "tried"}', "--json")
    assert tried.returncode == 0, tried.stderr
    assert answer(nexus.admin, json.loads(tried.stdout)["run_id"]) == "tried"
    assert nexus.command("webhook", "rotate", "notes", "--overlap", "1h").returncode == 0
    created = nexus.command("webhook", "endpoint", "create", "pager", receiver.url, "--events", "run.failed, run.completed", "--json")
    assert created.returncode == 0 and json.loads(created.stdout)["events"] == ["run.failed", "run.completed"], created.stderr
    assert nexus.command("webhook", "endpoint", "test", "pager").returncode == 0
    receiver.wait(1)
    wait_for(nexus.admin, "delivered")
    assert "webhook.test" in nexus.command("webhook", "deliveries", "--endpoint", "pager").stdout
    for command in (["endpoint", "pause", "pager"], ["endpoint", "resume", "pager"], ["endpoint", "list"], ["endpoint", "show", "pager"],
                    ["endpoint", "rotate", "pager"], ["endpoint", "delete", "pager"], ["delete", "notes"]):
        done = nexus.command("webhook", *command)
        assert done.returncode == 0, (command, done.stderr)
    assert nexus.command("webhook", "show", "notes").returncode == 1
