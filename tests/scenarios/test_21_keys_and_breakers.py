"""Pools of keys, circuit breakers, deadlines, hedging, clients that leave, drains and kills: what the router and the books make of them."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.books import Books
from harness.dialects import ask
from harness.faulty import INPUT_TOKENS, FaultyProvider, KeyLimit, Plan, text_of
from harness.matrix import PAIRS, PRICE

KEYS = [FaultyProvider.KEY + suffix for suffix in ("-one", "-two", "-three")]
DEADLINES = {"connect": "1s", "first_token": "1s", "between_tokens": "1s", "total": "10s"}
DIALECT_OF = {"openai": "chat", "anthropic": "messages", "responses": "responses"}


@pytest.fixture
def faulty():
    provider = FaultyProvider()
    yield provider
    provider.close()


def model(name: str, *targets: str, **more) -> dict:
    entries = [{"provider": target, "model": "mock", "price": PRICE, "priority": i} for i, target in enumerate(targets)]
    return {"name": name, "targets": entries, "max_output_tokens": 64, "deadlines": dict(DEADLINES), "retries": 0, **more}


def config(faulty: FaultyProvider, *models: dict, kinds: dict | None = None, keys: list[str] | None = None, **more) -> dict:
    names = sorted({target["provider"] for entry in models for target in entry["targets"]})
    providers = [faulty.provider(name, (kinds or {}).get(name, "openai"), keys) for name in names]
    return {"providers": providers, "models": list(models), **more}


def serve(start, faulty: FaultyProvider, *models: dict, **more):
    environment = {**faulty.environment, **{f"KEY{i}": key for i, key in enumerate(KEYS)}}
    nexus = start(config(faulty, *models, **more), environment=environment)
    nexus.secrets.update([faulty.KEY, *KEYS])
    return nexus


POOL = ["${env:KEY0}", "${env:KEY1}", "${env:KEY2}"]


def targets_of(nexus, name: str) -> list[dict]:
    reply = nexus.admin.get(f"/api/v1/models/{name}/targets")
    assert reply.status_code == 200, reply.text
    body = reply.json()
    return body if isinstance(body, list) else body.get("items") or body["targets"]


def record_of(nexus, name: str) -> dict:
    return nexus.admin.get(f"/api/v1/usage/calls?model={name}").json()["items"][0]


# ---- keys ----

@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_every_key_is_tried_once_and_dead_ones_are_left_alone(start, faulty, stream):
    nexus = serve(start, faulty, model("m", "a"), keys=POOL)
    faulty.dead_keys = set(KEYS[:2])
    for _ in range(6):
        reply = ask(nexus.admin.http, "chat", "m", "hello", stream=stream)
        assert reply.status == 200 and reply.text == text_of("a", 8)
    tried = [call.key for call in faulty.calls if call.is_refused]
    assert sorted(tried) == sorted(set(tried)), "a dead key was asked again"
    faulty.dead_keys = set(KEYS)
    reply = ask(nexus.admin.http, "chat", "m", "hello", stream=stream)
    assert reply.status == 502 and reply.error["code"] == "auth", reply.body
    [target] = targets_of(nexus, "m")
    assert all(key["state"] != "ok" for key in target["keys"]), target


def test_a_limited_key_rests_and_comes_back(start, faulty):
    nexus = serve(start, faulty, model("m", "a"), keys=POOL)
    faulty.key_limits = {key: KeyLimit(2, 1.5) for key in KEYS}
    seen = [ask(nexus.admin.http, "chat", "m", "hello").status for _ in range(6)]
    assert seen == [200] * 6, "each key has two calls"
    reply = ask(nexus.admin.http, "chat", "m", "hello")
    if reply.status == 429:                        # told when to come back; or it waited that long itself
        assert float(reply.headers["retry-after"]) >= 1
        time.sleep(2)
        reply = ask(nexus.admin.http, "chat", "m", "hello")
    assert reply.status == 200, reply.body
    refused = [call.key for call in faulty.calls if call.is_refused]
    assert sorted(refused) == sorted(set(refused)), "a key that said Retry-After was asked before"


# ---- circuit breaker ----

def test_a_target_that_fails_again_and_again_is_left_alone_and_probed(start, faulty):
    nexus = serve(start, faulty, model("m", "a", "b"))
    faulty.plan = lambda call: Plan(fault="status", status=500) if call.provider == "a" else Plan()
    for _ in range(9):
        assert ask(nexus.admin.http, "chat", "m", "hello").text == text_of("b", 8)
    assert len(faulty.of("a")) == 5, "five failures in a row open it"
    states = {target["provider"]: target["state"] for target in targets_of(nexus, "m")}
    assert states == {"a": "open", "b": "ok"}
    faulty.plan = lambda call: Plan()
    deadline = time.monotonic() + 15
    while len(faulty.of("a")) == 5:
        assert time.monotonic() < deadline, "it was never probed"
        assert ask(nexus.admin.http, "chat", "m", "hello").status == 200
        time.sleep(0.2)
    ask(nexus.admin.http, "chat", "m", "hello")
    states = {target["provider"]: target["state"] for target in targets_of(nexus, "m")}
    assert states["a"] in ("probing", "ramping", "ok"), states
    lines = [line["message"].split(":")[0] for line in nexus.log_entries() if line["message"].startswith("circuit ")]
    assert lines[:2] == ["circuit opened", "circuit half-open"], lines


def test_an_open_circuit_says_why_and_each_of_its_moves_is_a_line_in_the_log(start, faulty):
    import socket
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))                  # and does not listen
        entry = config(faulty, model("m", "a"))
        entry["providers"][0]["base_url"] = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        nexus = start(entry, environment=faulty.environment)
        replies = [ask(nexus.admin.http, "chat", "m", "hello") for _ in range(8)]

    def moves(text: str) -> list[dict]:
        return [line for line in nexus.log_entries() if line["message"].startswith(f"circuit {text}")]

    assert "refused" in replies[0].error["message"], replies[0].body
    for reply in replies[5:]:
        told = reply.error["message"]
        assert reply.status == 503 and "circuit is open since 20" in told and "refused" in told and "overloaded" not in told, told
    [opened] = moves("opened")
    assert opened["log.level"] == "warn" and opened["nexus.provider.name"] == "a" and "refused" in opened["error.message"], opened
    assert not moves("half-open") and not moves("closed")
    deadline = time.monotonic() + 15
    while not moves("half-open"):
        assert time.monotonic() < deadline, "it was never tried"
        ask(nexus.admin.http, "chat", "m", "hello")
        time.sleep(0.2)
    assert moves("half-open")[0]["nexus.provider.name"] == "a" and not moves("closed")
    assert len(moves("opened")) == 2, "a try that fails opens it again"


# ---- deadlines ----

@pytest.mark.parametrize("mark, words, seconds", [
    ("fault=hang", "first token", 1), ("fault=stall at=2", "next token", 1), ("tokens=400 delay=0.2", "did not answer within", 3),
], ids=["first token", "between tokens", "total"])
def test_each_deadline_is_kept_and_named(start, faulty, mark, words, seconds):
    nexus = serve(start, faulty, model("m", "a", deadlines={**DEADLINES, "total": "3s"}))
    reply = ask(nexus.admin.http, "chat", "m", f"hello [[a {mark}]]", stream=True)
    assert reply.error and words in reply.error["message"], reply.body[-300:]
    assert seconds - 0.2 <= reply.seconds <= seconds + 1.5, reply.seconds
    faulty.wait_for(lambda: faulty.open == 0, 2, "the call stays open at the provider")


def test_a_provider_that_does_not_take_connections_is_passed_over_in_time(start, faulty):
    """A backlog that is full takes no more connections: the deadline of connect tells, or the kernel does."""
    import socket
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        entry = config(faulty, model("m", "a", "b"))
        entry["providers"][0]["base_url"] = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        nexus = start(entry, environment=faulty.environment)
        reply = ask(nexus.admin.http, "chat", "m", "hello", stream=True)
        for filler in fillers:
            filler.close()
    assert reply.text == text_of("b", 8) and reply.seconds < 3, reply


# ---- hedging ----

@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_slow_attempt_gets_company_and_the_loser_is_cancelled_and_booked(start, faulty, stream):
    nexus = serve(start, faulty, model("m", "a", "b", hedge_after="200ms", deadlines={**DEADLINES, "first_token": "8s"}))
    for _ in range(25):                            # one call in twenty may be hedged: these earn it
        ask(nexus.admin.http, "chat", "m", "hello")
    reply = ask(nexus.admin.http, "chat", "m", "hello [[a first=6.0]]", stream=stream)
    assert reply.text == text_of("b", 8) and reply.seconds < 3, reply
    faulty.wait_for(lambda: faulty.of("a")[-1].closed_at, 2, "the loser goes on")
    record = record_of(nexus, "m")
    assert record["attempts"] == 2
    assert record["output_tokens"] >= 8 and record["input_tokens"] > INPUT_TOKENS, "the loser may have worked: it is booked"


# ---- clients that leave ----

@pytest.mark.parametrize("dialect, kind", PAIRS, ids=lambda name: name)
def test_a_client_that_leaves_closes_the_upstream_within_100_ms_and_is_booked(start, faulty, dialect, kind):
    nexus = serve(start, faulty, model("m", "a"), kinds={"a": kind})
    faulty.plan = lambda call: Plan(tokens=200, delay=0.05)
    client = nexus.client()
    reply = ask(client.http, dialect, "m", "hello", stream=True, stop_after=4)
    left = time.monotonic()                        # the answer was closed just before
    assert len(reply.pieces) >= 4
    [call] = faulty.calls
    faulty.wait_for(lambda: call.closed_at, 3, "the provider's call goes on")
    print(f"note: {dialect}-{kind}: the upstream was closed {1000 * (call.closed_at - left):.1f} ms after the client left")
    assert call.closed_at - left <= 0.1 + 0.05, "later than 100 ms (and a token's time to notice)"
    deadline = time.monotonic() + 5
    while not nexus.admin.get("/api/v1/usage/calls").json()["items"]:
        assert time.monotonic() < deadline
    record = record_of(nexus, "m")
    assert record["input_tokens"] >= INPUT_TOKENS
    assert call.produced - 2 <= record["output_tokens"] <= 60, (record, call.produced)


# ---- drain and kill ----

def streams(nexus, count: int, pool: ThreadPoolExecutor) -> list:
    dialects = ["chat", "messages", "responses"]
    return [pool.submit(ask, nexus.admin.http, dialects[i % 3], f"m-{kind}", "hello", stream=True)
            for i, kind in zip(range(count), ("openai", "anthropic", "responses") * count)]


def all_kinds() -> list[dict]:
    return [model("m-openai", "aopenai"), model("m-anthropic", "aanthropic"), model("m-responses", "aresponses")]


KIND_OF = {f"a{kind}": kind for kind in ("openai", "anthropic", "responses")}


def test_a_drain_lets_streams_finish_or_tells_them(start, faulty):
    nexus = serve(start, faulty, *all_kinds(), kinds=KIND_OF, limits={"drain_timeout": "2s"})
    faulty.plan = lambda call: Plan(tokens=20, delay=0.05) if len(faulty.calls) % 2 else Plan(tokens=400, delay=0.05)
    with ThreadPoolExecutor(12) as pool:
        running = streams(nexus, 12, pool)
        faulty.wait_for(lambda: len(faulty.calls) == 12 and all(call.produced > 2 for call in faulty.calls))
        nexus.process.send_signal(signal.SIGTERM)
        replies = [reply.result(30) for reply in running]
    assert nexus.process.wait(20) == 0
    short = [reply for reply in replies if reply.is_complete]
    assert len(short) == 6, [(r.is_complete, r.text[-8:], r.error) for r in replies]
    for reply in replies:
        if reply.is_complete:
            assert reply.text == text_of("a", 20) and reply.error is None
        else:
            assert reply.error and reply.is_cut | (reply.dialect != "chat"), (reply.dialect, reply.body[-200:])
            assert text_of("a", 400).startswith(reply.text)
    books = Books(nexus.data)
    books.check()
    tokens = sum(row["tokens"] for row in books.rows("SELECT tokens FROM ledger"))
    books.close()
    assert tokens >= sum(call.input_tokens + call.produced for call in faulty.calls) - 2 * 6, "what was streamed is not booked"


def test_a_kill_during_streams_leaves_the_books_in_order(start, faulty):
    nexus = serve(start, faulty, *all_kinds(), kinds=KIND_OF)
    sessions = {name: nexus.admin.open_session(budget={"tokens": 50000}) for name in ("m-openai", "m-anthropic", "m-responses")}
    faulty.plan = lambda call: Plan(tokens=200, delay=0.02)
    admin = nexus.admin

    def stream(name, dialect):
        return ask(admin.http, dialect, name, "hello", stream=True, headers={"X-Nexus-Session": sessions[name]})

    with ThreadPoolExecutor(9) as pool:
        running = [pool.submit(stream, name, dialect) for name in sessions for dialect in ("chat", "messages", "responses")]
        faulty.wait_for(lambda: len(faulty.calls) == 9 and all(call.produced > 10 for call in faulty.calls))
        nexus.restart(is_crash=True)
        replies = [reply.result(30) for reply in running]
    assert all(reply.is_cut and not reply.is_complete for reply in replies)
    faulty.wait_for(lambda: faulty.open == 0)
    for name, session in sessions.items():
        budget = nexus.admin.budget(session)
        made = sum(call.input_tokens + call.produced for call in faulty.of("a" + name[2:]))
        assert budget["reserved"]["tokens"] == 0
        assert made <= budget["spent"]["tokens"] <= 50000, "a crash made tokens free, or overspent"
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()


def test_many_streams_at_once_each_get_their_own(start, faulty):
    """Faults beside good answers on the same connections: nobody's text gets into another's."""
    nexus = serve(start, faulty, model("m", "a", "b"), model("n", "b"))
    wrong = []

    def play(number: int) -> None:
        fault = ("none", "cut at=3", "reset_at at=3", "garbage at=3", "reset", "status status=500")[number % 6]
        name = "m" if number % 2 else "n"
        reply = ask(nexus.admin.http, "chat", name, f"[[{'a' if name == 'm' else 'b'} fault={fault} delay=0.005]]", stream=True)
        if not (text_of("a", 8).startswith(reply.text) or text_of("b", 8).startswith(reply.text)):
            wrong.append((fault, reply.text))
        if reply.is_complete and reply.text not in (text_of("a", 8), text_of("b", 8)):
            wrong.append((fault, reply.text, "ended well"))

    threads = [threading.Thread(target=play, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
