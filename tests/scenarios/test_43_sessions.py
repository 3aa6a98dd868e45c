"""Sessions: messages that come while a run is live, conversations that outgrow the window, pause, clone, export and import.

NEXUS_SESSION_TURNS (200; 1000 for the long version) is the length of the long conversation.
"""

import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from harness.books import Books
from harness.client import problem
from harness.provider import Hang, Text, ToolCalls
from test_05_crashes import insist

TURNS = int(os.environ.get("NEXUS_SESSION_TURNS", 200))
LOOK = ("text_processing", {"operation": "count", "text": "one two three"})


def slow(seconds: float):
    """A model that takes its time for the first question, and says what it was asked."""
    def answer(call):
        if "You condense" in str(call.body["messages"][0]["content"]):
            return Text("a summary")
        return Text("you said: " + call.last_user_text[:40], delay=seconds if call.last_user_text == "first" else 0)
    return answer


def said(call) -> list[str]:
    """What the model was given, without the instructions."""
    return [str(m.get("content") or "") for m in call.body["messages"] if m["role"] != "system"]


def send(client, session: str, content: str, **more) -> dict:
    reply = client.post(f"/api/v1/sessions/{session}/messages", {"content": content, **more})
    assert reply.status_code == 202, reply.text
    return reply.json()


def send_patiently(client, session: str, content: str) -> dict:
    """A node on a busy machine may refuse work for a moment (503, Retry-After): it is asked again."""
    for _ in range(40):
        reply = client.post(f"/api/v1/sessions/{session}/messages", {"content": content})
        if reply.status_code != 503:
            break
        time.sleep(0.25)
    assert reply.status_code == 202, reply.text
    return reply.json()


def check_books(nexus) -> None:
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    assert books.rows("SELECT * FROM session_inbox") == []
    assert books.rows("SELECT * FROM sessions WHERE live_run_id IS NOT NULL OR inbox_count <> 0") == []
    books.close()


# ---- a message while a run is live ----

def test_a_message_is_rejected_unless_the_session_says_otherwise(start, provider):
    provider.answer = slow(1.5)
    nexus = start(provider=provider)
    session = nexus.admin.open_session()
    run = nexus.admin.send(session, "first")
    provider.wait_for_calls(1)
    reply = nexus.admin.post(f"/api/v1/sessions/{session}/messages", {"content": "second"})
    assert reply.status_code == 409 and problem(reply) == "session_busy" and run in reply.json()["detail"]
    reply = nexus.admin.post(f"/api/v1/sessions/{session}/messages", {"content": "second", "on_busy": "shout"})
    assert reply.status_code in (400, 422)
    assert nexus.admin.wait(run)["status"] == "completed"


def test_messages_that_wait_are_answered_in_order_and_can_be_followed_from_the_start(start, provider):
    provider.answer = slow(1.0)
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session(double_text="enqueue")
    first = admin.send(session, "first")
    provider.wait_for_calls(1)
    waiting = [send(admin, session, text) for text in ("second", "third")]
    assert [w["status"] for w in waiting] == ["pending", "pending"]
    assert admin.run(waiting[1]["run_id"])["status"] == "pending"
    assert admin.get(f"/api/v1/sessions/{session}").json()["waiting"] == 2
    stream = admin.stream(waiting[1]["run_id"])
    events = stream.read_all(20)
    assert [e.type for e in events][0] == "run.started" and events[-1].type == "run.completed"
    runs = [admin.wait(run) for run in (first, waiting[0]["run_id"], waiting[1]["run_id"])]
    assert [r["status"] for r in runs] == ["completed"] * 3
    assert [r["started_at"] for r in runs[1:]] == sorted(r["started_at"] for r in runs[1:])
    assert said(provider.calls[-1]) == ["first", "you said: first", "second", "you said: second", "third"]
    check_books(nexus)


def test_the_policy_of_a_session_can_be_changed(start, provider):
    provider.answer = slow(1.0)
    nexus = start({"sessions": {"double_text": "enqueue"}}, provider=provider)
    admin = nexus.admin
    session = admin.open_session()
    admin.send(session, "first")
    provider.wait_for_calls(1)
    assert send(admin, session, "second")["status"] == "pending"
    reply = admin.http.patch(f"/api/v1/sessions/{session}", json={"double_text": "reject"})
    assert reply.status_code == 200 and reply.json()["double_text"] == "reject"
    reply = admin.post(f"/api/v1/sessions/{session}/messages", {"content": "third"})
    assert problem(reply) == "session_busy"
    third = send(admin, session, "third", on_busy="enqueue")
    assert admin.wait(third["run_id"])["status"] == "completed"
    check_books(nexus)


def test_an_interruption_ends_the_live_run_and_history_keeps_what_was_said(start, provider):
    provider.answer = lambda call: Hang() if call.last_user_text == "first" else Text("yes")
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session(double_text="interrupt")
    first = admin.send(session, "first")
    provider.wait_for_calls(1)
    second = send(admin, session, "stop, rather this")
    assert admin.wait(first)["status"] == "cancelled"
    assert admin.wait(second["run_id"])["status"] == "completed"
    assert said(provider.calls[-1]) == ["first", "stop, rather this"]
    check_books(nexus)


def test_a_message_steers_the_live_run_before_its_next_model_call(start, provider):
    go = threading.Event()

    def answer(call):
        if call.tool_results or "in words" in call.last_user_text:
            return Text("three")
        go.wait(10)
        return ToolCalls([LOOK])
    provider.answer = answer
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session(double_text="steer")
    first = admin.send(session, "count")
    provider.wait_for_calls(1)
    told = send(admin, session, "in words")
    assert told["status"] == "steering" and told["run_id"] == first
    go.set()
    assert admin.wait(first)["status"] == "completed"
    events = admin.events(first)
    steering = [e for e in events if e["type"] == "message.added"]
    assert [e["data"]["content"] for e in steering] == ["count", "in words"]
    assert said(provider.calls[-1])[-1] == "in words"
    assert admin.get(f"/api/v1/runs/{told['otherwise_run_id']}").status_code == 404
    check_books(nexus)


def test_a_message_that_waits_can_be_withdrawn(start, provider):
    provider.answer = slow(1.0)
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session(double_text="enqueue")
    first = admin.send(session, "first")
    provider.wait_for_calls(1)
    second, third = send(admin, session, "second"), send(admin, session, "third")
    assert admin.post(f"/api/v1/runs/{second['run_id']}/cancel").status_code == 202
    assert admin.wait(third["run_id"])["status"] == "completed"
    assert admin.wait(second["run_id"])["status"] == "cancelled"
    assert said(provider.calls[-1]) == ["first", "you said: first", "third"]
    assert admin.wait(first)["status"] == "completed"
    check_books(nexus)


@pytest.mark.parametrize("policy", ["enqueue", "interrupt", "steer"])
def test_messages_that_wait_survive_kills_and_are_answered_once(start, provider, policy, capsys):
    chance = random.Random(policy)

    def answer(call):
        if call.tool_results:
            return Text("done", delay=chance.uniform(0.01, 0.05))
        if chance.random() < 0.5:
            return ToolCalls([LOOK], delay=chance.uniform(0.01, 0.1))
        return Text("done", delay=chance.uniform(0.01, 0.1))
    provider.answer = answer
    nexus = start({"budgets": {"session": {"tokens": 10_000_000}}}, provider=provider)     # what is interrupted is booked as reserved
    sessions = [nexus.admin.open_session(double_text=policy) for _ in range(6)]
    sent = {session: [] for session in sessions}

    def talk(session: str) -> None:
        for number in range(8):
            text = f"message {number} of {session}"
            told = insist(lambda: send_once(nexus, session, text))
            sent[session].append((text, told))
            time.sleep(0.02)

    kills = 0
    with ThreadPoolExecutor(6) as pool:
        talks = [pool.submit(talk, session) for session in sessions]
        while not all(t.done() for t in talks) or kills < 4:
            time.sleep(chance.uniform(0.05, 0.4))
            nexus.kill()
            nexus.start()
            kills += 1
        for t in talks:
            t.result()
    for session in sessions:
        wait_until_idle(nexus.admin, session)
        texts = [m["content"] for m in messages(nexus.admin, session) if m["role"] == "user"]
        assert sorted(texts) == sorted(text for text, _ in sent[session]), "each message is there once"
        if policy != "interrupt":
            assert texts == [text for text, _ in sent[session]]
        runs = nexus.admin.get(f"/api/v1/runs?session_id={session}&limit=200").json()["items"]
        bad = [(run["status"], run.get("error"), run["id"]) for run in runs if run["status"] not in ("completed", "cancelled")]
        assert not bad, bad
    check_books(nexus)
    with capsys.disabled():
        print(f"\n  note: {policy}: 48 messages into live sessions, {kills} kills: each answered or heard once")


def send_once(nexus, session: str, text: str) -> dict | None:
    """However often the server dies: the message is there once.  What waits is looked at first: it moves to the messages."""
    waiting = nexus.admin.get(f"/api/v1/sessions/{session}/waiting")
    assert waiting.status_code == 200, waiting.text
    if any(m["content"] == text for m in waiting.json()["items"]):
        return None
    if any(m["content"] == text for m in messages(nexus.admin, session)):
        return None
    reply = nexus.admin.post(f"/api/v1/sessions/{session}/messages", {"content": text})
    assert reply.status_code == 202, reply.text
    return reply.json()


def messages(client, session: str, view: str = "all") -> list[dict]:
    items, cursor = [], ""
    while True:
        reply = client.get(f"/api/v1/sessions/{session}/messages?limit=200&view={view}{cursor}")
        assert reply.status_code == 200, reply.text
        page = reply.json()
        items += page["items"]
        if not page.get("next_cursor"):
            return items
        cursor = "&cursor=" + page["next_cursor"]


def wait_until_idle(client, session: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        row = client.get(f"/api/v1/sessions/{session}").json()
        if row["live_run_id"] is None and row["waiting"] == 0:
            return
        assert time.monotonic() < deadline, row
        time.sleep(0.05)


# ---- the window ----

def windowed(provider, tokens: int) -> dict:
    config = provider.config()
    for model in config["models"]:
        for target in model["targets"]:
            target["context_tokens"] = tokens
    return {**config, "budgets": {"session": {"tokens": 1_000_000_000, "time_seconds": 1_000_000}}}


def size_of(nexus) -> int:
    return sum(f.stat().st_size for f in nexus.data.glob("nexus.db*"))


def test_a_long_conversation_costs_the_same_for_each_turn(start, provider, capsys):
    provider.answer = lambda call: Text("a summary of it") if "You condense" in str(call.body["messages"][0]["content"]) \
        else Text("an answer of some length, as they are. " * 5)
    nexus = start(windowed(provider, 24_000), provider=provider)
    session = nexus.admin.open_session()
    sizes, seconds = [], []
    for turn in range(TURNS):
        started = time.monotonic()
        outcome = nexus.admin.wait(nexus.admin.send(session, f"turn {turn}: " + "what about this? " * 10))
        seconds.append(time.monotonic() - started)
        assert outcome["status"] == "completed", outcome
        if turn % (TURNS // 10) == 0:
            sizes.append(size_of(nexus))
    sent = [len(json.dumps(call.body)) for call in provider.calls]
    everything = messages(nexus.admin, session)
    summaries = [m for m in everything if m["role"] == "system"]
    assert len(everything) - len(summaries) == 2 * TURNS, "the originals stay"
    assert max(sent) < 40_000, "no prompt is larger than the window"
    assert said(provider.calls[-1])[0].startswith("turn 0:"), "the task stays"
    context = messages(nexus.admin, session, "context")
    assert context[0]["content"].startswith("turn 0:") and context[1]["role"] == "system" and len(context) < 60
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    events = books.rows("SELECT count(*) AS rows, sum(length(data)) AS bytes FROM run_events")[0]
    halves = [sum(row["bytes"] for row in books.rows(
        "SELECT sum(length(data)) AS bytes FROM run_events WHERE run_id IN (SELECT id FROM agent_runs ORDER BY id LIMIT ? OFFSET ?)",
        TURNS // 2, offset)) for offset in (0, TURNS // 2)]
    file = books.rows("SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size")[0]["bytes"]
    books.close()
    assert halves[1] < 1.2 * halves[0], "later turns write no more than earlier ones"
    early, late = sum(seconds[:TURNS // 5]), sum(seconds[-TURNS // 5:])
    with capsys.disabled():
        print(f"\n  note: {TURNS} turns: {file / TURNS:.0f} bytes of database and {events['bytes'] / TURNS:.0f} bytes of journal in "
              f"{events['rows'] / TURNS:.1f} events a turn (first half {halves[0] / TURNS * 2:.0f}, second {halves[1] / TURNS * 2:.0f}); "
              f"{len(summaries)} summaries; largest prompt {max(sent)} bytes; a turn took {early / (TURNS // 5) * 1000:.0f} ms at the "
              f"beginning and {late / (TURNS // 5) * 1000:.0f} ms at the end")


def test_a_run_of_a_hundred_tool_calls_and_200k_tokens_takes_linear_space(start, provider, capsys):
    text = "word " * 1600                           # 8 kB, some 2,000 tokens, a hundred times

    def answer(call):
        if "You condense" in str(call.body["messages"][0]["content"]):
            return Text("what was found")
        number = sum(1 for c in provider.calls if "You condense" not in str(c.body["messages"][0]["content"]))
        if number > 50:
            return Text("all looked at")
        return ToolCalls([("text_processing", {"operation": "count", "text": f"{number} {half} {text}"}) for half in "ab"])
    provider.answer = answer
    nexus = start(windowed(provider, 100_000) | {"agents": [{"name": "reader", "max_steps": 60, "tools": ["*"]}]}, provider=provider)
    session = nexus.admin.open_session(agent="reader")
    outcome = nexus.admin.outcome(nexus.admin.send(session, "look at all of it"), seconds=120)
    assert outcome.status == "completed", outcome.run
    assert len(outcome.of("tool.completed")) == 100
    sent = [len(json.dumps(call.body)) for call in provider.calls]
    assert max(sent) < 150_000
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    bytes_of = {table: books.rows(f"SELECT sum(length({column})) AS bytes FROM {table}")[0]["bytes"]
                for table, column in (("run_events", "data"), ("tool_calls", "input"), ("messages", "parts"))}
    books.close()
    given = 100 * len(text)
    assert bytes_of["run_events"] < 100 * 3000, "the journal does not repeat what stands elsewhere"
    assert bytes_of["tool_calls"] < 1.2 * given and bytes_of["messages"] < 1.5 * given
    with capsys.disabled():
        print(f"\n  note: 100 calls, {given} bytes of arguments: journal {bytes_of['run_events']}, calls {bytes_of['tool_calls']}, "
              f"messages {bytes_of['messages']} bytes; {len(outcome.of('message.summarised'))} summaries, prompts of {sum(sent)} bytes in all")


# ---- pause, clone, export, import ----

def test_a_paused_session_takes_nothing_and_its_run_goes_on_after_a_kill(start, provider):
    go = threading.Event()

    def answer(call):
        if call.tool_results:
            return Text("three")
        go.wait(10)
        return ToolCalls([LOOK])
    provider.answer = answer
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session()
    run = admin.send(session, "count")
    provider.wait_for_calls(1)
    assert admin.post(f"/api/v1/sessions/{session}/pause").json()["status"] == "paused"
    go.set()
    assert admin.wait(run, "waiting")["status"] == "waiting"
    reply = admin.post(f"/api/v1/sessions/{session}/messages", {"content": "hello"})
    assert problem(reply) == "session_paused" and "/resume" in reply.json()["detail"]
    nexus.kill()
    nexus.start()
    admin = nexus.admin
    time.sleep(0.3)
    assert admin.run(run)["status"] == "waiting"
    assert admin.post(f"/api/v1/sessions/{session}/resume").json()["status"] == "active"
    assert admin.wait(run)["status"] == "completed"
    assert problem(admin.post(f"/api/v1/sessions/{session}/resume")) == "conflict"
    check_books(nexus)


def test_a_clone_goes_its_own_way(start, provider):
    provider.answer = slow(0)
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session(budget={"tokens": 50_000})
    admin.ask("first", session=session)
    at = messages(admin, session)[-1]["id"]
    admin.ask("second", session=session)
    reply = admin.post(f"/api/v1/sessions/{session}/clone", {"at_message": at})
    assert reply.status_code == 201, reply.text
    clone = reply.json()
    assert clone["metadata"] == {"cloned_from": session} and clone["budget"]["tokens"] == 50_000
    assert admin.budget(clone["id"])["spent"]["tokens"] == 0
    admin.ask("third", session=clone["id"])
    assert said(provider.calls[-1]) == ["first", "you said: first", "third"]
    assert [m["content"] for m in messages(admin, session) if m["role"] == "user"] == ["first", "second"]
    stranger = nexus.user("mallory")
    assert problem(stranger.post(f"/api/v1/sessions/{session}/clone", {})) == "not_found"
    assert problem(stranger.get(f"/api/v1/sessions/{session}/export")) == "not_found"


def test_a_session_is_exported_and_imported(start, provider):
    provider.answer = lambda call: Text("three") if call.tool_results else ToolCalls([LOOK]) \
        if call.last_user_text == "count" else Text("as I said")
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session()
    admin.upload(session, "notes.txt", b"some notes")
    admin.ask("count", session=session)
    document = admin.get(f"/api/v1/sessions/{session}/export").json()
    assert document["format"] == "nexus.session/1"
    assert [f["name"] for f in document["files"]] == ["notes.txt"] and len(document["files"][0]["sha256"]) == 64
    run = document["runs"][0]
    assert len(run["tool_calls"]) == 1 and run["events"][-1]["type"] == "run.completed"
    other = nexus.user("bob")
    reply = other.post("/api/v1/sessions/import", document)
    assert reply.status_code == 201, reply.text
    imported = reply.json()
    assert imported["user_id"] == "bob" and imported["id"] != session
    rows = messages(other, imported["id"])
    assert [m["role"] for m in rows] == ["user", "assistant", "tool", "assistant"]
    assert all(m["metadata"]["label"]["untrusted"] for m in rows)
    assert [m["content"] for m in rows if m["role"] == "user"] == ["count"]
    other.ask("and?", session=imported["id"])
    given = provider.calls[-1].body["messages"]
    calls = {c["id"] for m in given for c in m.get("tool_calls") or []}
    assert calls == {m["tool_call_id"] for m in given if m["role"] == "tool"}, "calls and results stay together"
    reply = other.post("/api/v1/sessions/import", {"format": "something else"})
    assert reply.status_code in (400, 422)


def test_the_command_line_does_the_same(start, provider, tmp_path):
    provider.answer = slow(0)
    nexus = start(provider=provider)
    session = nexus.command("session", "create", "--double-text", "enqueue").stdout.strip()
    nexus.admin.ask("first", session=session)
    clone = nexus.command("session", "clone", session).stdout.strip()
    assert [m["content"] for m in messages(nexus.admin, clone)] == ["first", "you said: first"]
    file = tmp_path / "session.json"
    assert nexus.command("session", "export", session, "--output", str(file)).returncode == 0
    imported = nexus.command("session", "import", str(file)).stdout.strip()
    assert [m["content"] for m in messages(nexus.admin, imported)] == ["first", "you said: first"]
    assert "paused" in nexus.command("session", "pause", session).stdout
    assert "active" in nexus.command("session", "resume", session).stdout
    assert "first" in nexus.command("session", "messages", session, "--context").stdout
    assert nexus.command("session", "close", session).returncode == 0
    assert "closed" in nexus.command("session", "show", session).stdout


# ---- the power goes exactly around a commit ----

@pytest.mark.parametrize("point", ["inbox_add.before:1", "inbox_add.after:1", "inbox_add.after:2", "run_completed.before:1",
                                   "run_completed.after:1", "inbox_begin.before:1", "inbox_begin.after:1", "run_completed.after:2",
                                   "inbox_begin.before:2", "inbox_begin.after:2", "run_completed.after:3"])
def test_a_kill_around_a_commit_of_the_inbox_loses_and_doubles_nothing(needs_fault_points, start, provider, point):
    provider.answer = slow(0.8)
    nexus = start(provider=provider, is_dev=True)
    session = nexus.admin.open_session(double_text="enqueue")
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    texts, taken = ["first", "second", "third"], []
    for text in texts:
        try:
            taken.append(send_patiently(nexus.admin, session, text)["run_id"])
        except httpx.HTTPError:                    # it died before it could answer
            break
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    for text in texts:
        insist(lambda text=text: send_once(nexus, session, text))
    wait_until_idle(nexus.admin, session)
    assert [nexus.admin.run(run)["status"] for run in taken] == ["completed"] * len(taken)
    rows = messages(nexus.admin, session)
    assert [m["content"] for m in rows if m["role"] == "user"] == texts
    assert len([m for m in rows if m["role"] == "assistant"]) == 3
    assert len(nexus.admin.get(f"/api/v1/runs?session_id={session}").json()["items"]) == 3
    check_books(nexus)


@pytest.mark.parametrize("point", ["message_summarised.before:1", "message_summarised.after:1"])
def test_a_kill_around_a_summary_leaves_one(needs_fault_points, start, provider, point):
    provider.answer = lambda call: Text("a summary of it") if "You condense" in str(call.body["messages"][0]["content"]) \
        else Text("an answer of some length, as they are. " * 5)
    nexus = start(windowed(provider, 16_000), provider=provider, is_dev=True)
    session = nexus.admin.open_session()
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    run, turn = "", 0
    while nexus.is_running and turn < 60:
        try:
            run = nexus.admin.send(session, f"turn {turn}: " + "what about this? " * 20)
            nexus.admin.wait(run)
        except httpx.HTTPError:
            break
        turn += 1
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    wait_until_idle(nexus.admin, session)
    outcome = nexus.admin.outcome(run)
    assert outcome.status == "completed", outcome.run
    rows = messages(nexus.admin, session)
    assert len([m for m in rows if m["role"] == "system"]) == 1
    assert len(outcome.of("message.summarised")) == 1
    check_books(nexus)
