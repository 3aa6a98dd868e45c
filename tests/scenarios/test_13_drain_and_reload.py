"""SIGTERM finishes or hands over what runs; SIGHUP takes over a new configuration; nobody notices more than they must."""

import json
import signal
import threading
import time

import httpx

from harness.client import problem
from harness.provider import FakeProvider, Hang, Text


def words(count: int, delay: float) -> Text:
    return Text("", pieces=[f"w{i} " for i in range(count)], delay=delay)


def test_sigterm_lets_a_run_and_a_stream_finish_and_exits_0(start, provider):
    provider.answer = lambda call: words(15, 0.1)
    nexus = start(provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(), "go")
    chat = StreamingChat(nexus)
    provider.wait_for_calls(2)
    time.sleep(0.3)
    assert nexus.terminate() == 0
    assert chat.text() == "".join(f"w{i} " for i in range(15))
    nexus.start()
    outcome = nexus.admin.outcome(run_id)
    assert outcome.status == "completed"
    assert len(outcome.of("model.requested")) == 1, "the run was cut although it had time to finish"


class StreamingChat:
    """A streamed chat call of a client that reads what it gets."""

    def __init__(self, nexus):
        self.nexus, self.data = nexus, b""
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        with self.nexus.admin.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            for piece in reply.iter_bytes():
                self.data += piece

    def text(self) -> str:
        self.thread.join(30)
        lines = [line[6:] for line in self.data.decode().split("\n") if line.startswith("data: ") and "[DONE]" not in line]
        choices = [choice for line in lines for choice in json.loads(line)["choices"]]
        assert "[DONE]" in self.data.decode(), "the stream was cut"
        return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_what_does_not_finish_in_time_is_handed_over_and_completes_after_the_restart(start, provider):
    provider.answer = lambda call: Hang() if len(provider.calls) == 1 else Text("after the restart")
    nexus = start({"limits": {"drain_timeout": "1s"}}, provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(), "go")
    provider.wait_for_calls(1)
    stream = nexus.admin.stream(run_id)
    stream.read(0.3)
    begun = time.monotonic()
    assert nexus.terminate() == 0
    assert time.monotonic() - begun < 10
    stream.read_all()
    nexus.start()
    outcome = nexus.admin.outcome(run_id)
    assert outcome.status == "completed" and outcome.answer == "after the restart"
    [lost] = outcome.of("model.failed")
    assert lost["data"]["error"] == "interrupted"


def test_while_it_drains_it_is_not_ready_and_takes_no_new_work(start, provider):
    provider.answer = lambda call: words(30, 0.1)
    nexus = start(provider=provider)
    client = nexus.admin
    session, other = client.open_session(), client.open_session()
    client.send(session, "go")
    provider.wait_for_calls(1)
    nexus.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    try:
        ready = client.get("/readyz")
        assert ready.status_code == 503 and problem(ready) == "draining"
        refused = client.post(f"/api/v1/sessions/{other}/messages", {"content": "more"})
        assert refused.status_code == 503 and refused.headers["retry-after"]
    except httpx.TransportError:                   # it has closed the door already, which says the same
        pass
    assert nexus.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(start, provider):
    provider.answer = lambda call: Hang()
    nexus = start(provider=provider)
    nexus.admin.send(nexus.admin.open_session(), "go")
    provider.wait_for_calls(1)
    nexus.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    nexus.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    nexus.process.wait(10)
    assert time.monotonic() - begun < 2


def test_sighup_takes_over_models_and_limits_while_runs_go_on(start, provider):
    second = FakeProvider(lambda call: Text("I am the second"))
    provider.answer = lambda call: words(15, 0.1)
    nexus = start(provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(), "go")
    provider.wait_for_calls(1)
    nexus.write_config(second.config(models=("second",)) | {"budgets": {"session": {"tokens": 777}}})
    nexus.reload()
    nexus.wait_for_log("were read again")
    names = [model["id"] for model in nexus.admin.get("/v1/models").json()["data"]]
    assert "second" in names and "tiny" not in names
    assert nexus.admin.budget(nexus.admin.open_session())["limit"]["tokens"] == 777
    body = {"model": "second", "messages": [{"role": "user", "content": "hi"}]}
    assert "I am the second" in nexus.admin.post("/v1/chat/completions", body).text
    assert nexus.admin.wait(run_id)["status"] == "completed"
    second.close()


def test_a_broken_configuration_at_sighup_changes_nothing(start):
    nexus = start()
    nexus.config_file.write_text("listen: [this is no address\n")
    nexus.reload()
    assert "nexus.yaml:" in nexus.wait_for_log("the old one stays")
    assert nexus.admin.ask("hello").status == "completed"


def test_a_new_tool_permission_is_in_force_after_sighup(start, upstream):
    nexus = start()
    assert nexus.admin.invoke("http_request", {"url": upstream.url}).status_code == 403
    nexus.write_config(upstream.config())
    nexus.reload()
    nexus.wait_for_log("were read again")
    assert nexus.admin.invoke("http_request", {"url": upstream.url}).status_code == 200


def test_session_files_stay_where_they_are_over_many_reloads(start):
    nexus = start()
    session = nexus.admin.open_session()
    nexus.admin.upload(session, "before.txt", b"kept")
    for round in range(4):
        talk = f"/ZZZZ{round}" * 2000  # what the freed configuration's memory would be filled with
        nexus.write_config({"agents": [{"name": f"agent{round}", "instructions": talk}]})
        nexus.reload()
        deadline = time.monotonic() + 20
        while not any(agent["name"] == f"agent{round}" for agent in nexus.admin.get("/api/v1/agents").json()["items"]):
            assert time.monotonic() < deadline, "the reload was not taken over"
            time.sleep(0.05)
        nexus.admin.upload(session, f"during{round}.txt", b"new")
    assert nexus.admin.get(f"/api/v1/sessions/{session}/files/before.txt").content == b"kept"
    assert nexus.admin.get(f"/api/v1/sessions/{session}/files/during3.txt").content == b"new"
    stored = [path for path in (nexus.data / "files").rglob("*") if path.is_file()]
    assert len(stored) == 5, "a file was stored elsewhere"
