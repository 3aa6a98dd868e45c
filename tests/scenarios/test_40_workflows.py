"""Workflows: steps that survive everything, are undone in reverse, and wait for people without holding memory."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
import yaml
from harness.provider import FakeProvider, Server, Text
from harness.upstream import ADDRESS, CountingUpstream


class BookingService:
    """Books and takes back: once per Idempotency-Key, whatever is sent again; counts both."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str]] = []      # (method, path), as they came
        self.effects: dict[str, tuple[str, str]] = {}  # by Idempotency-Key
        self.order: list[tuple[str, str]] = []         # effects in the order in which they happened
        self.failing: dict[str, int] = {}              # path -> status
        self.times: dict[str, int] = {}                # path -> so many requests fail first
        self.delay = 0.0
        self.server = Server((ADDRESS, 0), self.handler())
        self.url = f"http://{ADDRESS}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, key: str) -> int:
        with self.lock:
            self.requests.append((method, path))
            if self.times.get(path, 0) > 0:
                self.times[path] -= 1
                return 503
            if path in self.failing:
                return self.failing[path]
            if key not in self.effects:
                self.effects[key] = (method, path)
                self.order.append((method, path))
            return 200

    def handler(booking) -> type:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                key = self.headers.get("Idempotency-Key", f"{self.command} {self.path}")
                status = booking.answer(self.command, self.path, key)
                time.sleep(booking.delay)
                body = json.dumps({"id": self.path.strip("/")}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer
        return Handler


@pytest.fixture
def booking():
    service = BookingService()
    yield service
    service.close()


def put(client, definition: dict | str) -> dict:
    text = definition if isinstance(definition, str) else yaml.safe_dump(definition, sort_keys=False)
    reply = client.put("/api/v1/workflows", content=text)
    assert reply.status_code in (200, 201), reply.text
    return reply.json()


def begin(client, name: str, workflow_input=None, **more) -> str:
    reply = client.post(f"/api/v1/workflows/{name}/runs", {"input": workflow_input or {}, **more})
    assert reply.status_code == 202, reply.text
    return reply.json()["run_id"]


def steps(client, run_id: str) -> dict:
    """Every step of an instance by its path."""
    reply = client.get(f"/api/v1/runs/{run_id}/steps")
    assert reply.status_code == 200, reply.text
    found = {}

    def visit(items):
        for step in items:
            found[step["step"]] = step
            if "undone_by" in step:
                visit([step["undone_by"]])
            for lane in step.get("lanes", []):
                visit(lane["steps"])
    visit(reply.json()["steps"])
    return found


def output(client, run_id: str):
    """What an instance that has completed gave."""
    outcome = client.outcome(run_id, "completed")
    return outcome.of("run.completed")[-1]["data"]["parts"]["output"]


def until(is_so, seconds: float = 20):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


TEXT = {"tool": "text_processing"}


def test_steps_of_every_control_kind_give_what_they_say(nexus):
    put(nexus.admin, {
        "name": "control", "version": "1.0.0",
        "output": {"list": "${steps.each.output}", "arm": "${steps.which.output}", "both": "${steps.both.output.right.text}",
                   "skipped": "${steps.never.status}", "rounds": "${steps.again.output}"},
        "steps": [
            {"id": "never", "when": "input.n > 5", "sleep": "1h"},
            {"id": "each", "map": {"over": "input.items", "parallel": 2, "output": "${item * 2}",
                                   "steps": [{"id": "nap", "sleep": "0s"}]}},
            {"id": "which", "branch": [{"when": "input.n > 5", "steps": [{"id": "a", "sleep": "0s"}]},
                                       {"steps": [{"id": "b", "wait_signal": {"name": "go"}}]}]},
            {"id": "both", "parallel": {"left": [{"id": "x", "sleep": "0s"}],
                                        "right": [{"id": "y", "model": {"prompt": "hello there"}}]}},
            {"id": "again", "loop": {"while": "loop.index < 3", "max": 10, "output": "${loop.index}",
                                     "steps": [{"id": "z", "sleep": "0s"}]}},
        ]})
    run_id = begin(nexus.admin, "control", {"n": 1, "items": [1, 2, 3]})
    nexus.admin.wait(run_id, "waiting")
    assert steps(nexus.admin, run_id)["which[1].b"]["status"] == "waiting"
    reply = nexus.admin.post(f"/api/v1/runs/{run_id}/signals", {"name": "go", "data": {"who": "ada"}})
    assert reply.status_code == 202, reply.text
    result = output(nexus.admin, run_id)
    assert result["list"] == [2, 4, 6] and result["arm"] == {"who": "ada"} and result["skipped"] == "skipped"
    assert result["rounds"] == 2 and isinstance(result["both"], str) and result["both"]
    assert "again[2].z" in steps(nexus.admin, run_id)


def saga(**more) -> dict:
    def book(what: str) -> dict:
        return {"id": what, "tool": "http_request",
                "input": {"method": "POST", "url": "${input.base}/" + what, "body": {"order": "${input.order}"}},
                "expect": "output.status < 300", "idempotency_key": "${input.order}-" + what, **more,
                "compensate": {"tool": "http_request", "expect": "output.status < 300",
                               "input": {"method": "DELETE", "url": "${input.base}/" + what},
                               "idempotency_key": "${input.order}-" + what + "-undo",
                               "retry": {"attempts": 5, "backoff": "100ms"}}}
    return {"name": "trip", "version": "1.0.0", "steps": [book("flight"), book("hotel"), book("car")]}


UNDONE = [("POST", "/flight"), ("POST", "/hotel"), ("DELETE", "/hotel"), ("DELETE", "/flight")]


def test_a_trip_whose_car_fails_is_undone_in_reverse(start, booking):
    nexus = start(CountingUpstream.config())
    put(nexus.admin, saga())
    booking.failing["/car"] = 409
    run_id = begin(nexus.admin, "trip", {"base": booking.url, "order": "o1"})
    run = nexus.admin.wait(run_id, "failed")
    assert run["error"]["type"] == "tool_failed" and "car" in run["error"]["message"], run
    assert booking.order == UNDONE
    tree = steps(nexus.admin, run_id)
    assert tree["car"]["status"] == "failed" and tree["flight~"]["status"] == "completed"


@pytest.mark.parametrize("point", ["workflow_step.before:2", "workflow_step.after:2", "workflow_step.before:4",
                                   "workflow_step.after:4", "workflow_step.before:5", "workflow_step.after:5",
                                   "workflow_step.before:6", "workflow_step.after:6", "workflow_end.before:1",
                                   "workflow_end.after:1", "workflow_start.after:1"])
def test_a_trip_is_undone_once_across_a_kill(needs_fault_points, start, booking, point):
    nexus = start(CountingUpstream.config(), is_dev=True)
    put(nexus.admin, saga())
    nexus.stop()
    booking.failing["/car"] = 409
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    try:
        nexus.admin.post("/api/v1/workflows/trip/runs", {"input": {"base": booking.url, "order": "o1"}})
    except httpx.HTTPError:
        pass
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    [run] = nexus.admin.get("/api/v1/runs").json()["items"]
    run = nexus.admin.wait(run["id"], "failed")
    assert run["error"]["type"] == "tool_failed", run
    assert booking.order == UNDONE, "each happened once, and was taken back once, in reverse"


def test_a_cancelled_trip_is_undone_too(start, booking):
    nexus = start(CountingUpstream.config())
    definition = saga()
    definition["steps"][2] = {"id": "wait", "wait_signal": {"name": "never"}}
    put(nexus.admin, definition)
    run_id = begin(nexus.admin, "trip", {"base": booking.url, "order": "o1"})
    nexus.admin.wait(run_id, "waiting")
    assert nexus.admin.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
    nexus.admin.wait(run_id, "cancelled")
    assert booking.order == UNDONE


def test_a_step_is_tried_again_and_its_key_stays_the_same(start, booking):
    nexus = start(CountingUpstream.config())
    definition = saga(retry={"attempts": 4, "backoff": "50ms", "jitter": 0})
    put(nexus.admin, definition)
    booking.times["/hotel"] = 2
    run_id = begin(nexus.admin, "trip", {"base": booking.url, "order": "o7"})
    nexus.admin.wait(run_id, "completed")
    assert steps(nexus.admin, run_id)["hotel"]["attempt"] == 3
    assert booking.order == [("POST", "/flight"), ("POST", "/hotel"), ("POST", "/car")]


def test_a_step_ends_at_its_timeout(start, booking):
    nexus = start(CountingUpstream.config())
    put(nexus.admin, {"name": "slow", "version": "1.0.0", "steps": [
        {"id": "get", "tool": "http_request", "input": {"url": booking.url + "/slow"}, "timeout": "500ms", "on_error": "continue"},
        {"id": "pause", "wait_signal": {"name": "never", "timeout": "300ms"}, "on_error": "continue"}],
        "output": ["${steps.get.error.type}", "${steps.pause.error.type}"]})
    booking.delay = 3
    assert output(nexus.admin, begin(nexus.admin, "slow")) == ["outcome_unknown", "timeout"]


def test_a_paused_session_holds_its_instance_at_the_next_step_even_over_a_kill(start, booking):
    nexus = start(CountingUpstream.config())
    definition = saga()
    definition["steps"].insert(1, {"id": "nap", "sleep": "300ms"})
    put(nexus.admin, definition)
    booking.delay = 1
    run_id = begin(nexus.admin, "trip", {"base": booking.url, "order": "o1"})
    session = nexus.admin.run(run_id)["session_id"]
    until(lambda: booking.order)
    assert nexus.admin.post(f"/api/v1/sessions/{session}/pause").json()["status"] == "paused"
    nexus.admin.wait(run_id, "waiting")
    assert steps(nexus.admin, run_id)["flight"]["status"] == "completed", "what is at work ends"
    booking.delay = 0
    nexus.restart(is_crash=True)
    time.sleep(1)
    assert nexus.admin.run(run_id)["status"] == "waiting" and booking.order == UNDONE[:1]
    reply = nexus.admin.post(f"/api/v1/runs/{run_id}/replay")
    assert reply.json()["same"] is True, reply.text
    assert nexus.admin.post(f"/api/v1/sessions/{session}/resume").json()["status"] == "active"
    nexus.admin.wait(run_id, "completed")
    assert booking.order == [("POST", "/flight"), ("POST", "/hotel"), ("POST", "/car")]
    reply = nexus.admin.post(f"/api/v1/runs/{run_id}/replay")
    assert reply.json()["same"] is True, reply.text


def test_a_paused_instance_that_is_cancelled_is_undone(start, booking):
    nexus = start(CountingUpstream.config())
    put(nexus.admin, saga())
    booking.delay = 0.5
    run_id = begin(nexus.admin, "trip", {"base": booking.url, "order": "o1"})
    until(lambda: booking.order)
    session = nexus.admin.run(run_id)["session_id"]
    assert nexus.admin.post(f"/api/v1/sessions/{session}/pause").json()["status"] == "paused"
    nexus.admin.wait(run_id, "waiting")
    assert nexus.admin.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
    nexus.admin.wait(run_id, "cancelled")
    assert booking.order == [("POST", "/flight"), ("DELETE", "/flight")]


def test_a_person_lets_it_go_on(start):
    nexus = start()
    put(nexus.admin, {"name": "gate", "version": "1.0.0", "output": "${steps.ok.output.approved}", "steps": [
        {"id": "ok", "approval": {"title": "Pay ${input.amount}", "show": {"amount": "${input.amount}"}}}]})
    ada, bob = nexus.user("ada"), nexus.user("bob", "operator")
    run_id = begin(ada, "gate", {"amount": 70})
    ada.wait(run_id, "waiting")
    [approval] = bob.get("/api/v1/approvals?status=pending").json()["items"]
    assert approval["subject"]["show"] == {"amount": 70} and approval["subject"]["title"] == "Pay 70"
    refused = ada.post(f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
    assert refused.status_code == 403, refused.text
    reply = bob.post(f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
    assert reply.status_code == 200, reply.text
    assert output(ada, run_id) is True


def test_an_instance_keeps_its_version_and_a_version_never_changes(start):
    nexus = start()
    old = {"name": "v", "version": "1.0.0", "output": "old", "steps": [{"id": "s", "wait_signal": {"name": "go"}}]}
    put(nexus.admin, old)
    assert nexus.admin.put("/api/v1/workflows", content=yaml.safe_dump(old)).status_code == 200
    run_id = begin(nexus.admin, "v")
    nexus.admin.wait(run_id, "waiting")
    changed = nexus.admin.put("/api/v1/workflows", content=yaml.safe_dump({**old, "output": "other"}))
    assert changed.status_code == 409, changed.text
    put(nexus.admin, {**old, "version": "1.1.0", "output": "new", "steps": [{"id": "s", "sleep": "0s"}]})
    assert output(nexus.admin, begin(nexus.admin, "v")) == "new"
    nexus.restart(is_crash=True)
    nexus.admin.post(f"/api/v1/runs/{run_id}/signals", {"name": "go"})
    assert output(nexus.admin, run_id) == "old"
    assert output(nexus.admin, begin(nexus.admin, "v", version="^1.1")) == "new"


def test_a_workflow_in_a_workflow_and_a_model_are_runs_of_their_own(start, provider: FakeProvider):
    provider.answer = lambda call: Text("ADA")
    nexus = start(provider=provider)
    put(nexus.admin, {"name": "inner", "version": "1.0.0", "output": {"loud": "${steps.m.output.text}"}, "steps": [
        {"id": "m", "model": {"prompt": "shout ${input.name}"}}]})
    put(nexus.admin, {"name": "outer", "version": "1.0.0", "output": "${steps.sub.output.loud}", "steps": [
        {"id": "sub", "workflow": {"name": "inner", "version": "^1", "input": {"name": "${input.name}"}}}]})
    run_id = begin(nexus.admin, "outer", {"name": "ada"})
    assert output(nexus.admin, run_id) == "ADA"
    assert steps(nexus.admin, run_id)["sub"]["child_run_id"]


def test_a_sleep_ends_although_the_node_died_meanwhile(start):
    nexus = start()
    put(nexus.admin, {"name": "nap", "version": "1.0.0", "output": "awake", "steps": [{"id": "s", "sleep": "4s"}]})
    run_id = begin(nexus.admin, "nap")
    nexus.admin.wait(run_id, "waiting")
    nexus.restart(is_crash=True)
    assert output(nexus.admin, run_id) == "awake"


def test_what_is_wrong_is_told_before_anything_runs(nexus):
    reply = nexus.admin.put("/api/v1/workflows", content="name: bad\nversion: 1.0.0\nsteps:\n  - {id: a, sleeep: 1s}\n")
    assert reply.status_code in (400, 422) and "4" in reply.json()["detail"], reply.text
    put(nexus.admin, {"name": "strict", "version": "1.0.0", "input": {"type": "object", "required": ["n"]},
                      "steps": [{"id": "a", "sleep": "0s"}]})
    reply = nexus.admin.post("/api/v1/workflows/strict/runs", {"input": {}})
    assert reply.status_code == 422, reply.text
    assert nexus.admin.post("/api/v1/workflows/nothing/runs", {}).status_code == 404


def test_nobody_puts_words_into_another_persons_workflow(start):
    nexus = start()
    definition = {"name": "mine", "version": "1.0.0", "steps": [{"id": "a", "sleep": "0s"}]}
    put(nexus.user("ada"), definition)
    newer = yaml.safe_dump({**definition, "version": "1.1.0"})
    refused = nexus.user("eve").put("/api/v1/workflows", content=newer)
    assert refused.status_code == 403, refused.text
    assert nexus.user("bob", "operator").put("/api/v1/workflows", content=newer).status_code == 201


def test_the_command_line_runs_shows_and_signals(start, tmp_path):
    nexus = start()
    file = tmp_path / "hello.yaml"
    file.write_text("name: hello\nversion: 1.0.0\noutput: 'hello ${input.name}'\nsteps:\n  - {id: s, sleep: 0s}\n")
    done = nexus.command("workflow", "run", str(file), "--input", '{"name": "ada"}', "--wait")
    assert done.returncode == 0 and "hello ada" in done.stdout, (done.stdout, done.stderr)
    assert "hello" in nexus.command("workflow", "list").stdout
    file.write_text("name: hello\nversion: 1.1.0\nsteps:\n  - {id: s, wait_signal: {name: go}}\n")
    run_id = nexus.command("workflow", "run", str(file)).stdout.strip()
    nexus.admin.wait(run_id, "waiting")
    shown = nexus.command("workflow", "show", run_id)
    assert "s  wait_signal waiting" in shown.stdout, shown.stdout
    assert nexus.command("workflow", "signal", run_id, "go", "--input", '{"n": 1}').returncode == 0
    nexus.admin.wait(run_id, "completed")
