"""Budgets to the end: nobody overshoots, whoever dies; who is out of budget still sums up; who runs in circles is stopped."""

import itertools
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from harness.books import Books
from harness.provider import Text, ToolCalls

AGENTS = 64
KILLS = 6
WORKER = {"name": "worker", "instructions": "Work.", "tools": ["text_processing"]}


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


def count_words(number: int):
    return ToolCalls([("text_processing", {"operation": "count", "text": f"page {number}"})], usage=(200, 30))


def user_budget(nexus, user: str) -> dict:
    reply = nexus.admin.get(f"/api/v1/budgets/user/{user}")
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_64_agents_under_one_cap_never_pass_it_while_the_power_goes(start, provider):
    chance = random.Random(7)

    def work(call):
        if len(call.tool_results) < 3 and call.body.get("tools"):
            return count_words(len(call.tool_results))
        return Text("done", usage=(150, 20), delay=chance.uniform(0, 0.05))

    provider.answer = work
    limit = 60_000
    nexus = start({"agents": [WORKER]}, provider=provider)
    assert nexus.admin.put("/api/v1/budgets/user/alice", json={"tokens": limit, "period": "month"}).status_code == 200
    alice = nexus.user("alice")
    keys = itertools.count()

    def begin(number: int) -> str:
        session = insist(lambda: alice.open_session(agent="worker"))
        path = f"/api/v1/sessions/{session}/messages"

        def send() -> str:
            known = alice.get(f"/api/v1/runs?session_id={session}")
            assert known.status_code == 200, known.text
            if known.json()["items"]:
                return known.json()["items"][0]["id"]
            reply = alice.post(path, {"content": f"job {number}"}, headers={"Idempotency-Key": f"{number}-{next(keys)}"})
            assert reply.status_code in (200, 202), reply.text
            return reply.json()["run_id"]

        return insist(send)

    with ThreadPoolExecutor(AGENTS) as pool:
        runs = pool.map(begin, range(AGENTS))
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 0.6))
            nexus.restart(is_crash=True)
            view = insist(lambda: user_budget(nexus, "alice"))
            assert view["spent"]["tokens"] + view["reserved"]["tokens"] <= limit, view
        runs = list(runs)
    outcomes = [insist(lambda run=run: alice.outcome(run, seconds=90), seconds=120) for run in runs]
    assert {outcome.status for outcome in outcomes} <= {"completed", "failed"}
    view = user_budget(nexus, "alice")
    assert view["reserved"]["tokens"] == 0 and view["spent"]["tokens"] <= limit
    print(f"note: {sum(o.status == 'completed' for o in outcomes)} of {AGENTS} agents completed, "
          f"{view['spent']['tokens']} of {limit} tokens, {KILLS} kills")
    assert nexus.command("budget", "verify").returncode == 0
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()


def test_an_agent_out_of_budget_sums_up_and_says_so(start, provider):
    """Pain 3: a limit winds the work down in place of killing it."""
    def work(call):
        if not call.body.get("tools"):
            return Text("I read two pages; the rest is left.", usage=(120, 12))
        return ToolCalls([("text_processing", {"operation": "count", "text": f"page {len(call.tool_results)}"})],
                         usage=(1500, 500))

    provider.answer = work
    nexus = start({"agents": [WORKER]}, provider=provider)
    session = nexus.admin.open_session(agent="worker", budget={"tokens": 8000})
    outcome = nexus.admin.ask("read the book", session=session)
    assert outcome.status == "completed", outcome.run
    assert outcome.answer == "I read two pages; the rest is left."
    assert outcome.of("budget.wind_down")
    assert outcome.run["degraded"].startswith("budget: ")
    budget = nexus.admin.budget(session)
    assert budget["spent"]["tokens"] <= 8000 and budget["reserved"]["tokens"] == 0
    assert "read the book" in json.dumps(provider.calls[-1].body)
    replayed = nexus.command("runs", "replay", outcome.id)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr

    body = {"model": "agent:worker", "messages": [{"role": "user", "content": "read the book"}]}
    session = nexus.admin.open_session(agent="worker", budget={"tokens": 8000})
    reply = nexus.admin.post("/v1/chat/completions", body, headers={"X-Nexus-Session": session})
    assert reply.status_code == 200, reply.text
    assert reply.headers["nexus-degraded"].startswith("budget: ")


def test_nexus_run_ends_with_4_when_the_budget_ended_it(start, provider):
    provider.answer = lambda call: (ToolCalls([("text_processing", {"operation": "count", "text": str(len(call.tool_results))})],
                                              usage=(1500, 500))
                                    if call.body.get("tools") else Text("so far, so good", usage=(100, 10)))
    nexus = start({"agents": [WORKER], "budgets": {"session": {"tokens": 8000}}}, provider=provider)
    done = nexus.command("run", "--agent", "worker", "go on")
    assert done.returncode == 4, (done.stdout, done.stderr)
    assert "so far, so good" in done.stdout


def test_an_agent_that_runs_in_circles_is_told_and_then_stopped(start, provider):
    """Pain 2: a loop ends within one step, truthfully, with what there is."""
    provider.answer = lambda call: ToolCalls([("text_processing", {"operation": "count", "text": "again"})],
                                             usage=(50, 5))
    nexus = start({"agents": [WORKER]}, provider=provider)
    outcome = nexus.admin.ask("never stop", session=nexus.admin.open_session(agent="worker"))
    assert outcome.status == "completed", outcome.run
    looping = [(event["data"]["action"], event["data"]["count"]) for event in outcome.of("run.looping")]
    assert looping == [("warned", 5), ("stopped", 8)]
    assert len(provider.calls) == 8
    assert outcome.run["degraded"] == "loop: tool text_processing was repeated 8 times in a row"
    assert "Stopped" in outcome.of("run.completed")[0]["data"]["content"]
    replayed = nexus.command("runs", "replay", outcome.id)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_a_limit_of_repetitions_is_the_agents_own(start, provider):
    provider.answer = lambda call: (Text("enough") if len(call.tool_results) > 10 else
                                    ToolCalls([("text_processing", {"operation": "count", "text": "again"})]))
    patient = {**WORKER, "limits": {"same_action_warn": 0, "same_action_max": 0}}
    nexus = start({"agents": [patient]}, provider=provider)
    outcome = nexus.admin.ask("poll", session=nexus.admin.open_session(agent="worker"))
    assert outcome.answer == "enough" and not outcome.of("run.looping")


def test_a_rate_refuses_who_spends_too_fast(start, provider):
    provider.answer = lambda call: (Text("in short: a lot", usage=(100, 10)) if not call.body.get("tools") else
                                    ToolCalls([("text_processing", {"operation": "count", "text": str(len(call.tool_results))})],
                                              usage=(2000, 1000)))
    hasty = {**WORKER, "limits": {"tokens_per_minute": 9000}}
    nexus = start({"agents": [hasty]}, provider=provider)
    outcome = nexus.admin.ask("hurry", session=nexus.admin.open_session(agent="worker"))
    assert outcome.status == "completed"
    assert "faster than its limit of 9000 tokens a minute" in outcome.of("budget.wind_down")[0]["data"]["why"]
    assert outcome.answer == "in short: a lot"


def test_a_budget_of_a_day_says_when_it_begins_anew(start, provider):
    provider.answer = lambda call: Text("hi", usage=(30, 10))
    nexus = start(provider=provider)
    alice = nexus.user("alice")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
    assert alice.post("/v1/chat/completions", body).status_code == 200
    reply = nexus.admin.put("/api/v1/budgets/user/alice", json={"tokens": 100_000, "cost_usd": "2.5", "period": "day", "alerts": [10, 90]})
    assert reply.status_code == 200, reply.text
    view = reply.json()
    assert view["period"] == "day" and view["resets_at"].endswith("T00:00:00.000000Z")
    assert view["spent"]["tokens"] == 0 and view["limit"]["cost_nanousd"] == "2500000000" and view["alerts"] == [10, 90]
    body["model"] = "tiny"
    nexus.admin.put("/api/v1/budgets/user/alice", json={"tokens": 100_000, "period": "day"})
    assert alice.post("/v1/chat/completions", body).status_code == 200
    insist(lambda: check(user_budget(nexus, "alice")["spent"]["tokens"] == 40))
    nexus.restart()
    assert user_budget(nexus, "alice")["spent"]["tokens"] == 40
    assert nexus.admin.put("/api/v1/budgets/user/alice", json={"tokens": 1, "period": "week"}).status_code == 422
    report = nexus.admin.post("/api/v1/budgets/verify").json()
    assert report["ok"] and report["periods"] == 1, report


def check(fact: bool) -> None:
    assert fact


def test_somebody_is_told_at_each_threshold_once(start, provider):
    provider.answer = lambda call: Text("hi", usage=(300, 100))
    nexus = start({"agents": [{"name": "bare", "instructions": "Answer.", "tools": []}]}, provider=provider)
    alice = nexus.user("alice")
    nexus.admin.put("/api/v1/budgets/user/alice", json={"tokens": 4000, "alerts": [25, 50]})
    told = []
    for _ in range(6):
        outcome = alice.ask("hello", session=alice.open_session(agent="bare"))
        told += [(event["data"]["level"], event["data"]["threshold"]) for event in outcome.of("budget.alerted")]
    assert told == [("user", 250), ("user", 500)]
    assert user_budget(nexus, "alice")["alerted"] == 50
    entries = [entry for entry in nexus.admin.get("/api/v1/audit?limit=100").json()["items"] if entry["action"] == "budget.alert"]
    assert len(entries) == 2
    assert 'nexus_budget_alerts_total{level="user",resource_type="tokens"} 2' in nexus.admin.get("/metrics").text


def test_the_books_are_shown_and_verified_on_the_command_line(start, provider):
    provider.answer = lambda call: Text("hi", usage=(30, 10))
    nexus = start({"agents": [{"name": "bare", "instructions": "Answer.", "tools": []}]}, provider=provider)
    session = nexus.admin.open_session(agent="bare")
    nexus.admin.ask("hello", session=session)
    shown = nexus.command("budget", "ledger", "session", session)
    assert shown.returncode == 0 and "model:tiny" in shown.stdout and f"session:{session[:8]}" in shown.stdout
    entries = nexus.admin.get("/api/v1/budgets/tenant/self/ledger").json()["items"]
    assert [(entry["credit"], entry["amount"]["tokens"]) for entry in entries] == [("model:tiny", 40)]
    verified = nexus.command("budget", "verify")
    assert verified.returncode == 0 and verified.stdout.startswith("ok: 1 entries"), verified.stdout
    done = nexus.command("budget", "set", "user", "ada", "--tokens", "500", "--period", "month", "--alerts", "50,100")
    assert done.returncode == 0 and "per month" in done.stdout, done.stderr
    nexus.terminate()
    import sqlite3
    database = sqlite3.connect(nexus.data / "nexus.db")
    database.execute("UPDATE budgets SET spent_tokens = spent_tokens - 1 WHERE level = 'session'")
    database.commit()
    database.close()
    nexus.start()
    broken = nexus.command("budget", "verify")
    assert broken.returncode == 1 and f"session|{session}" in broken.stdout, broken.stdout


def test_the_command_line_shows_the_tenants_the_callers_and_all_budgets(start):
    nexus = start()
    nexus.admin.put("/api/v1/budgets/tenant/self", json={"tokens": 123456})
    ada = nexus.user("ada")
    assert "123456" in nexus.command("budget", "show").stdout
    assert "unlimited" in nexus.command("budget", "show", "user").stdout
    shown = nexus.command("budget", "show", "--all")
    assert shown.returncode == 0 and "123456" in shown.stdout and "ada" in shown.stdout, shown.stdout + shown.stderr
    assert nexus.command("budget", "show", "session").returncode == 2
    assert nexus.command("budget", "show", key=ada.key).returncode == 3, "it is the operators' to see"


def test_a_limit_whose_name_is_misspelt_is_refused_and_takes_no_other_limit_away(start):
    nexus = start()
    path = "/api/v1/budgets/user/ada"
    assert nexus.admin.put(path, json={"tokens": 1000, "period": "day"}).status_code == 200
    for body in ({"token": 5}, {"tokens": 5, "perod": "day"}, nexus.admin.get(path).json()):
        reply = nexus.admin.put(path, json=body)
        assert reply.status_code == 422 and "unknown member" in reply.json()["detail"], reply.text
    assert nexus.admin.get(path).json()["limit"]["tokens"] == 1000
    reply = nexus.admin.post("/api/v1/sessions", {"budget": {"token": 5}})
    assert reply.status_code == 422 and "token" in reply.json()["detail"], reply.text
