"""A run's stream is its journal: whoever reconnects with Last-Event-ID misses nothing and sees nothing twice."""

import time

import pytest

from harness.client import Event
from harness.provider import Hang, Text, ToolCalls


def read_in_bits(nexus, run_id: str, cut_after: float, at_cut=lambda count: None) -> list[Event]:
    """Reads a stream whose connection is cut again and again, as a phone in a tunnel would."""
    events: list[Event] = []
    deadline = time.monotonic() + 60
    count = 0
    while not events or not events[-1].type in ("run.completed", "run.failed", "run.cancelled"):
        assert time.monotonic() < deadline, f"the stream did not end: {[event.type for event in events][-5:]}"
        try:
            stream = nexus.admin.stream(run_id, events[-1].id if events else None)
        except OSError:                            # the server is restarting
            time.sleep(0.02)
            continue
        if stream.status == 200:
            events += stream.read(cut_after)
        stream.close()
        count += 1
        at_cut(count)
    return events


def check_each_once_in_order(events: list[Event], journal: list[dict]) -> None:
    assert [int(event.id) for event in events] == list(range(1, len(journal) + 1))
    assert [event.type for event in events] == [event["type"] for event in journal]
    assert [event.json() for event in events] == [event["data"] for event in journal]


def long_answer(call):
    if not call.tool_results:
        return ToolCalls([("text_processing", {"operation": "upper", "text": "x"}), ("time", {})], delay=0.2)
    return Text("", pieces=[f"piece{i} " for i in range(80)], delay=0.03)


@pytest.mark.parametrize("restart", ["none", "sigterm", "sigkill"])
def test_a_reader_cut_every_200_ms_sees_every_event_once_in_order(start, provider, restart):
    provider.answer = long_answer
    nexus = start({"limits": {"drain_timeout": "0s"}}, provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(), "tell me a long story")

    def in_the_middle(count: int) -> None:
        if count == 5 and restart != "none":
            nexus.restart(is_crash=restart == "sigkill")

    events = read_in_bits(nexus, run_id, 0.2, in_the_middle)
    run = nexus.admin.wait(run_id)
    assert run["status"] == "completed", run
    check_each_once_in_order(events, nexus.admin.events(run_id))
    if restart != "none":
        attempts = [event["data"]["attempt"] for event in nexus.admin.events(run_id) if event["type"] == "model.requested"]
        assert attempts == sorted(set(attempts)) and len(attempts) >= 3, f"the restart interrupted no model call: {attempts}"
        assert "run.resumed" in [event.type for event in events]


def test_many_readers_of_one_run_see_the_same_from_wherever_they_begin(start, provider):
    provider.answer = lambda call: Text("", pieces=[f"w{i} " for i in range(30)], delay=0.02)
    nexus = start(provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(), "go")
    readers = [nexus.admin.stream(run_id, after) for after in (None, 0, 3, 5)]
    seen = [[int(event.id) for event in reader.read_all()] for reader in readers]
    last = nexus.admin.events(run_id)[-1]["seq"]
    assert seen == [list(range(1, last + 1)), list(range(1, last + 1)), list(range(4, last + 1)), list(range(6, last + 1))]


def test_a_message_can_be_sent_and_its_events_read_in_one_request(nexus):
    session = nexus.admin.open_session()
    with nexus.admin.http.stream("POST", f"/api/v1/sessions/{session}/messages", json={"content": "hi", "stream": True}) as reply:
        assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
        run_id = reply.headers["nexus-run-id"]
        text = reply.read().decode()
    assert text.count("\nid: ") + text.startswith("id: ") == len(nexus.admin.events(run_id))
    assert "event: run.completed" in text


def test_the_words_arrive_while_the_model_still_speaks(start, provider):
    provider.answer = lambda call: Text("", pieces=[f"w{i} " for i in range(20)], delay=0.1)
    nexus = start(provider=provider)
    stream = nexus.admin.stream(nexus.admin.send(nexus.admin.open_session(), "go"))
    early = stream.read(1.0)
    assert "model.delta" in [event.type for event in early] and not stream.is_ended
    assert stream.read_all()[-1].type == "run.completed"


def test_a_reader_that_does_not_read_delays_nobody(start, provider):
    words = [f"{'x' * 900} " for _ in range(300)]
    provider.answer = lambda call: Text("", pieces=words)
    nexus = start({"models": provider.config(max_output_tokens=4096)["models"]}, provider=provider)
    run_id = nexus.admin.send(nexus.admin.open_session(budget={"tokens": 100000}), "go")
    lazy = nexus.admin.stream(run_id)              # asks, and never reads
    assert nexus.admin.wait(run_id)["status"] == "completed"
    assert nexus.admin.stream(run_id).read_all()[-1].type == "run.completed"
    assert lazy.read_all()[-1].type == "run.completed"


def test_a_revoked_key_loses_its_stream_within_five_seconds(start, provider):
    provider.answer = lambda call: Hang()
    nexus = start(provider=provider)
    issued = nexus.admin.create_key(user_id="eve", role="user")
    eve = nexus.client(issued["key"])
    run_id = eve.send(eve.open_session(), "go")
    stream = eve.stream(run_id)
    stream.read(0.5)
    assert not stream.is_ended
    assert nexus.admin.delete(f"/api/v1/keys/{issued['id']}").status_code == 204
    stream.read(5.5)
    assert stream.is_ended
    assert nexus.admin.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
    assert nexus.admin.wait(run_id)["status"] == "cancelled"
