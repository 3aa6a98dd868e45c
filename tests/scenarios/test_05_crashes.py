"""The power goes, again and again: every run ends, every effect happened once or is shown as unknown, and the books add up.

NEXUS_CRASH_RUNS and NEXUS_CRASH_KILLS make it longer.
"""

import itertools
import math
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from harness.books import Books, cost_of, plus
from harness.provider import FakeProvider, Hang, Text, ToolCalls
from harness.upstream import CountingUpstream

RUNS = int(os.environ.get("NEXUS_CRASH_RUNS", 60))
KILLS = int(os.environ.get("NEXUS_CRASH_KILLS", 12))
AT_ONCE = 16


def effect_then_answer(upstream: CountingUpstream):
    """A model that has one POST made for each question, and then says that it is done."""
    chance = random.Random(1)

    def answer(call):
        if call.tool_results:
            return Text("it is done", pieces=["it ", "is ", "done"], delay=chance.uniform(0.005, 0.03))
        effect = {"method": "POST", "url": upstream.url + "/effects", "body": call.last_user_text}
        return ToolCalls([("http_request", effect)], delay=chance.uniform(0.01, 0.08))
    return answer


def insist(action, seconds: float = 60):
    """Does it again until the server is there to answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except (httpx.HTTPError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def start_run(nexus, effect: str) -> str:
    """One run in a session of its own, however often the server dies meanwhile."""
    session = insist(lambda: nexus.admin.open_session())
    path = f"/api/v1/sessions/{session}/messages"
    attempts = itertools.count()

    def send() -> str:
        known = nexus.admin.get(f"/api/v1/runs?session_id={session}")
        assert known.status_code == 200, known.text
        if known.json()["items"]:                  # it was taken, only the answer was lost
            return known.json()["items"][0]["id"]
        reply = nexus.admin.post(path, {"content": effect}, headers={"Idempotency-Key": f"{effect}-{next(attempts)}"})
        assert reply.status_code == 202, reply.text
        return reply.json()["run_id"]
    return insist(send)


def test_runs_survive_kills_at_random_instants(start, provider: FakeProvider, upstream: CountingUpstream, capsys):
    provider.answer = effect_then_answer(upstream)
    upstream.delay = 0.01
    nexus = start({**CountingUpstream.config()}, provider=provider)
    chance = random.Random(RUNS * 1000 + KILLS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pending = {}
        for kill in range(KILLS):
            for index in range(kill * RUNS // KILLS, (kill + 1) * RUNS // KILLS):
                pending[f"effect-{index}"] = pool.submit(start_run, nexus, f"effect-{index}")
            time.sleep(chance.uniform(0.02, 0.6))
            nexus.kill()
            nexus.start()
        runs = {effect: future.result() for effect, future in pending.items()}
        outcomes = {effect: insist(lambda run=run: nexus.admin.outcome(run, seconds=60)) for effect, run in runs.items()}

    check_every_run_ended(outcomes)
    interrupted = check_attempts(outcomes)
    unknown = check_effects(outcomes, upstream)
    assert nexus.admin.post("/api/v1/audit/verify").json()["ok"] is True
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()
    with capsys.disabled():
        completed = sum(outcome.status == "completed" for outcome in outcomes.values())
        print(f"\n  note: {RUNS} runs, {KILLS} kills: {completed} completed, {interrupted} model calls interrupted and "
              f"repeated, {unknown} effects shown as unknown, none happened twice")


def check_every_run_ended(outcomes: dict) -> None:
    unfinished = {effect: outcome.run for effect, outcome in outcomes.items() if outcome.status != "completed"}
    assert len(outcomes) == RUNS
    assert len(outcomes) - len(unfinished) >= math.ceil(0.99 * RUNS), unfinished


def check_attempts(outcomes: dict) -> int:
    """A model call that a crash interrupted is there as an attempt of its own, with the error `interrupted`."""
    interrupted = 0
    for outcome in outcomes.values():
        attempts = [event["data"]["attempt"] for event in outcome.of("model.requested")]
        assert attempts == list(range(1, len(attempts) + 1)), attempts
        ended = [event["data"]["attempt"] for event in outcome.of("model.completed") + outcome.of("model.failed")]
        assert sorted(ended) == attempts, f"attempts {attempts}, ended {ended}"
        lost = [event for event in outcome.of("model.failed") if event["data"]["error"] == "interrupted"]
        interrupted += len(lost)
        assert not lost or outcome.of("run.resumed")
    return interrupted


def check_effects(outcomes: dict, upstream: CountingUpstream) -> int:
    happened, unknown = upstream.effects(), 0
    for effect, outcome in outcomes.items():
        times = happened[effect]
        ends = [event["data"]["status"] for event in outcome.of("tool.completed")]
        assert times <= 1, f"{effect} happened {times} times"
        assert len(ends) == 1, f"{effect}: {ends}"
        if ends == ["succeeded"]:
            assert times == 1, f"{effect} is said to have happened and did not"
            assert upstream.keys_of(effect) == {outcome.of("tool.intended")[-1]["data"]["effect_key"]}
        else:
            assert ends == ["unknown"], f"{effect}: {ends} {outcome.of('tool.completed')}"
            unknown += 1
    assert set(happened) <= set(outcomes)
    return unknown


def test_a_plain_call_that_a_crash_cuts_off_is_charged_and_leaves_nothing_reserved(start, provider):
    provider.answer = lambda call: Hang()
    nexus = start(provider=provider)
    session = nexus.admin.open_session(budget={"tokens": 20000})
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask_and_lose, nexus, session)
        provider.wait_for_calls(4)
        reserved = nexus.admin.budget(session)["reserved"]["tokens"]
        assert reserved > 0
        nexus.kill()
        nexus.start()
    budget = nexus.admin.budget(session)
    assert budget["reserved"]["tokens"] == 0
    assert reserved <= budget["spent"]["tokens"] <= 20000, "what was in flight may have been used: it counts"
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    assert {row["basis"] for row in books.rows("SELECT basis FROM ledger")} == {"forfeited"}
    books.close()


def ask_and_lose(nexus, session: str) -> None:
    try:
        nexus.admin.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
                         headers={"X-Nexus-Session": session})
    except httpx.HTTPError:
        pass


@pytest.mark.parametrize("point", ["run_start.after:1", "model_intent.before:1", "model_intent.after:1", "tool_intent.before:1",
                                   "tool_intent.after:1", "model_intent.before:2", "model_intent.after:2", "run_completed.before:1",
                                   "run_completed.after:1"])
def test_a_kill_exactly_around_a_commit_loses_and_repeats_nothing(needs_fault_points, start, provider, upstream, point):
    provider.answer = effect_then_answer(upstream)
    nexus = start({**CountingUpstream.config()}, provider=provider, is_dev=True)
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    session = nexus.admin.open_session()
    try:
        nexus.admin.post(f"/api/v1/sessions/{session}/messages", {"content": "the effect"})
    except httpx.HTTPError:
        pass                                       # it died before it could answer
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    [run] = nexus.admin.get(f"/api/v1/runs?session_id={session}").json()["items"]
    outcome = nexus.admin.outcome(run["id"])
    assert outcome.status == "completed", outcome.run
    [end] = outcome.of("tool.completed")
    times = upstream.effects()["the effect"]
    if point == "tool_intent.after:1":             # the intent is there, whether it happened is not known: never a second time
        assert end["data"]["status"] == "unknown" and times <= 1
    elif point == "model_intent.before:2":         # it happened, and its result was to be written with the next intent
        assert end["data"]["status"] == "unknown" and times == 1
    else:
        assert end["data"]["status"] == "succeeded" and times == 1
    spent = (0, 0, 0, 0)
    for event in outcome.of("budget.settled"):
        spent = plus(spent, cost_of(event["data"]["amount"]))
    assert spent == cost_of(outcome.run["cost"])
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()
