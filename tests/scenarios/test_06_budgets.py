"""Budgets under a stampede: spent and reserved together never pass the limit, and what is refused goes nowhere."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from harness.books import Books
from harness.client import Client
from harness.provider import Text
from harness.scripts import call, say, script

MANY = 64
BARE_AGENT = {"agents": [{"name": "bare", "instructions": "Answer.", "tools": []}]}


class Watcher:
    """Looks at a budget all the time and remembers the most that was ever spent and reserved."""

    def __init__(self, look):
        self.look = look
        self.most = self.looks = 0
        self.is_over = False
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join()

    def watch(self):
        while not self.is_over:
            view = self.look()
            limit = view["limit"]["tokens"]
            held = view["spent"]["tokens"] + view["reserved"]["tokens"]
            assert held <= limit, f"{held} of {limit}"
            assert view["remaining"]["tokens"] == limit - held
            self.most, self.looks = max(self.most, held), self.looks + 1
            time.sleep(0.002)


def user_budget(admin: Client, user: str) -> dict:
    reply = admin.get(f"/api/v1/budgets/user/{user}")
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_64_runs_in_64_sessions_on_one_user_budget_never_pass_it(start, provider):
    provider.answer = lambda call: Text("short", delay=0.4, usage=(60, 4))
    nexus = start({**BARE_AGENT}, provider=provider)
    alice = nexus.user("alice")
    limit = 6000
    assert nexus.admin.put("/api/v1/budgets/user/alice", json={"tokens": limit}).status_code == 200
    sessions = [alice.open_session(agent="bare") for _ in range(MANY)]
    with Watcher(lambda: user_budget(nexus.admin, "alice")) as watcher, ThreadPoolExecutor(MANY) as pool:
        runs = list(pool.map(lambda numbered: alice.send(numbered[1], f"question {numbered[0]}"), enumerate(sessions)))
        outcomes = list(pool.map(lambda run: alice.outcome(run, seconds=60), runs))
    completed = [outcome for outcome in outcomes if outcome.status == "completed"]
    refused = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert len(completed) + len(refused) == MANY and completed and refused
    for outcome in refused:
        assert outcome.run["error"]["type"].endswith("over_budget"), outcome.run
        assert "budget" in outcome.run["error"]["message"] or "left" in outcome.run["error"]["message"]
        assert not outcome.of("model.requested")
    asked = sorted(call.last_user_text for call in provider.calls)
    assert asked == sorted(f"question {outcomes.index(outcome)}" for outcome in completed)
    view = user_budget(nexus.admin, "alice")
    assert view["reserved"]["tokens"] == 0
    assert view["spent"]["tokens"] == provider.input_tokens + provider.output_tokens == 64 * len(completed)
    assert watcher.looks > 5 and watcher.most <= limit
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()


def test_64_plain_calls_on_one_session_budget_never_pass_it(start, provider):
    provider.answer = lambda call: Text("short", delay=0.4, usage=(30, 4))
    nexus = start(provider=provider)
    alice = nexus.user("alice")
    session = alice.open_session(budget={"tokens": 6000})

    def ask(number: int):
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"question {number}"}], "stream": number % 2 == 0}
        return alice.post("/v1/chat/completions", body, headers={"X-Nexus-Session": session})

    with Watcher(lambda: alice.budget(session)) as watcher, ThreadPoolExecutor(MANY) as pool:
        replies = list(pool.map(ask, range(MANY)))
    answered = [number for number, reply in enumerate(replies) if reply.status_code == 200]
    refused = [reply for reply in replies if reply.status_code == 402]
    assert len(answered) + len(refused) == MANY and answered and refused, [reply.status_code for reply in replies]
    for reply in refused:
        assert reply.headers["x-should-retry"] == "false"
        assert reply.json()["error"]["message"], reply.text
    assert sorted(call.last_user_text for call in provider.calls) == sorted(f"question {number}" for number in answered)
    budget = alice.budget(session)
    assert budget["reserved"]["tokens"] == 0
    assert budget["spent"]["tokens"] == 34 * len(answered) == provider.input_tokens + provider.output_tokens
    assert watcher.looks > 5
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()


def test_an_answer_that_the_budget_cuts_short_says_so(start, provider):
    nexus = start(provider=provider)
    session = nexus.admin.open_session(budget={"tokens": 600})
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200}
    first = nexus.admin.post("/v1/chat/completions", body, headers={"X-Nexus-Session": session})
    assert first.status_code == 200 and "nexus-degraded" not in first.headers
    session = nexus.admin.open_session(budget={"tokens": 450})
    cut = nexus.admin.post("/v1/chat/completions", body, headers={"X-Nexus-Session": session})
    assert cut.status_code == 200 and "budget" in cut.headers["nexus-degraded"]
    assert provider.calls[1].body.get("max_tokens", provider.calls[1].body.get("max_completion_tokens")) < 200


def test_money_is_counted_to_the_last_nano_dollar(start, provider):
    price = {"input_usd_per_million_tokens": "0.15", "output_usd_per_million_tokens": "0.60"}
    nexus = start(provider.config(price=price), environment=provider.environment)
    session = nexus.admin.open_session(budget={"cost_usd": "0.001"})
    provider.answer = lambda call: Text("ok", usage=(123, 7))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(3):
        assert nexus.admin.post("/v1/chat/completions", body, headers={"X-Nexus-Session": session}).status_code == 200
    assert nexus.admin.budget(session)["spent"]["cost_nanousd"] == str(3 * (123 * 150 + 7 * 600))
    assert nexus.admin.budget(session)["limit"]["cost_nanousd"] == "1000000"


def test_a_model_without_a_price_is_refused_under_a_money_cap(start, provider):
    nexus = start(provider=provider)
    session = nexus.admin.open_session(budget={"cost_usd": "1"})
    reply = nexus.admin.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
                             headers={"X-Nexus-Session": session})
    assert reply.status_code == 402 and "price" in reply.text and provider.calls == []


def test_a_session_budget_can_only_be_lower_than_the_configured_one(start):
    nexus = start({"budgets": {"session": {"tokens": 1000}}})
    assert nexus.admin.budget(nexus.admin.open_session(budget={"tokens": 10**9}))["limit"]["tokens"] == 1000
    assert nexus.admin.budget(nexus.admin.open_session(budget={"tokens": 10}))["limit"]["tokens"] == 10


def test_a_tool_call_budget_stops_the_next_call_and_the_run_goes_on(nexus):
    count = call("text_processing", operation="count", text="x")
    session = nexus.admin.open_session(budget={"tool_calls": 1})
    outcome = nexus.admin.ask(script(count, count, say("enough")), session=session)
    assert outcome.status == "completed"
    assert [event["data"]["status"] for event in outcome.of("tool.completed")] == ["succeeded", "failed"]
    assert nexus.admin.budget(session)["spent"]["tool_calls"] == 1
