"""A slow provider, an urgent caller, a slow disk, a flood: each costs what it must and nobody else's."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.client import problem
from harness.mcp_host import Hand
from harness.provider import Fail, FakeProvider, Hang, Text, ToolCalls

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def resilience(nexus) -> dict:
    reply = nexus.admin.get("/api/v1/system/resilience")
    assert reply.status_code == 200, reply.text
    return reply.json()


def places(nexus, name: str, kind: str = "provider") -> dict:
    [item] = [item for item in resilience(nexus)["provider_places"] if item["name"] == name and item["kind"] == kind]
    return item


def until(what, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")


@pytest.fixture
def other():
    fake = FakeProvider()
    yield fake
    fake.close()


def two(provider, other, *, slow: dict | None = None, targets: list | None = None, **more) -> dict:
    """`slow` and `quick` are providers; model `tiny` is slow's, `fine` quick's, `both` has both in this order."""
    return {
        "providers": [{"name": "slow", "type": "openai", "base_url": provider.url, "api_keys": ["${env:LOCAL_KEY}"], **(slow or {})},
                      {"name": "quick", "type": "openai", "base_url": other.url, "api_keys": ["${env:LOCAL_KEY}"]}],
        "models": [{"name": "tiny", "targets": [{"provider": "slow", "model": "tiny"}]},
                   {"name": "fine", "targets": [{"provider": "quick", "model": "tiny"}]},
                   {"name": "both", "targets": [{"provider": "slow", "model": "tiny"}, {"provider": "quick", "model": "tiny", "priority": 1}]}],
        **more,
    }


# ---- places of providers ----

def test_a_provider_without_a_place_is_left_for_another_and_waited_for_when_there_is_none(start, provider, other):
    gate = threading.Event()
    provider.answer = lambda call: (gate.wait(30), Text("from the slow one"))[1]
    other.answer = lambda call: Text("from the quick one")
    nexus = start(two(provider, other, slow={"places": 2}), environment=provider.environment)
    alice = nexus.user("alice")
    with ThreadPoolExecutor(8) as pool:
        inside = [pool.submit(alice.post, "/v1/chat/completions", {"model": "tiny", **HELLO}) for _ in range(2)]
        until(lambda: places(nexus, "slow")["in_use"] == 2)
        began = time.monotonic()
        reply = alice.post("/v1/chat/completions", {"model": "both", **HELLO})
        assert reply.json()["choices"][0]["message"]["content"] == "from the quick one", reply.text
        assert time.monotonic() - began < 5                    # it was not waited for
        waiting = pool.submit(alice.post, "/v1/chat/completions", {"model": "tiny", **HELLO})
        until(lambda: places(nexus, "slow")["queued"] == 1)
        seen = places(nexus, "slow")
        assert seen["places"] == 2 and seen["in_use"] == 2 and places(nexus, "quick")["places"] is None
        metrics = nexus.admin.get("/metrics").text
        assert 'nexus_bulkhead_in_use{kind="provider",name="slow"} 2' in metrics
        assert 'nexus_bulkhead_queued{kind="provider",name="slow"} 1' in metrics
        told = nexus.command("doctor", "--json", "--config", str(nexus.config_file), seconds=120)
        [check] = [check for check in json.loads(told.stdout)["checks"] if check["check"] == "resilience"]
        assert check["verdict"] == "warn" and "provider slow" in check["detail"], check
        gate.set()
        assert all(call.result().status_code == 200 for call in [*inside, waiting])
    assert places(nexus, "slow")["in_use"] == 0


def test_who_finds_no_place_in_time_is_told_when_to_come_back(start, provider, other):
    provider.answer = lambda call: Text("late", delay=3)
    nexus = start(two(provider, other, slow={"places": 1}, resilience={"provider_wait": "300ms", "provider_queue": 1}), environment=provider.environment)
    alice = nexus.user("alice")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(alice.post, "/v1/chat/completions", {"model": "tiny", **HELLO}) for _ in range(3)]
        replies = sorted((call.result() for call in calls), key=lambda reply: reply.status_code)
    assert [reply.status_code for reply in replies] == [200, 503, 503]
    for reply in replies[1:]:
        assert int(reply.headers["Retry-After"]) >= 1 and "provider slow" in reply.json()["error"]["message"], reply.text
    assert places(nexus, "slow")["refused"] == 2
    assert [target for target in resilience(nexus)["providers"] if target["provider"] == "slow"][0]["circuit"] == "ok"     # it did nothing wrong


def test_streams_hold_their_place_until_they_end(start, provider, other):
    provider.answer = lambda call: Hang(after_pieces=2, seconds=20) if call.last_user_text == "hold" else Text("quick")
    nexus = start(two(provider, other, slow={"places": 1}, resilience={"provider_wait": "200ms"}), environment=provider.environment)
    alice = nexus.user("alice")
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "hold"}]}
    with alice.http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()                            # kept: without it the client leaves
        next(lines)
        assert places(nexus, "slow")["in_use"] == 1
        assert alice.post("/v1/chat/completions", {"model": "tiny", **HELLO}).status_code == 503
    until(lambda: places(nexus, "slow")["in_use"] == 0)        # the client left
    assert alice.post("/v1/chat/completions", {"model": "tiny", **HELLO}).status_code == 200


def test_runs_that_wait_for_a_slow_provider_hold_up_no_run_of_another(start, provider, other):
    gate = threading.Event()
    provider.answer = lambda call: (gate.wait(60), Text("slow"))[1]
    other.answer = lambda call: Text("quick")
    agents = [{"name": "patient", "model": "tiny"}, {"name": "brisk", "model": "fine"}]
    nexus = start(two(provider, other, agents=agents, resilience={"active_runs": 8, "provider_run_places": 3, "provider_wait": "60s"}),
                  environment=provider.environment)
    alice = nexus.user("alice")
    stuck = [alice.send(alice.open_session(agent="patient"), f"question {i}") for i in range(20)]
    until(lambda: places(nexus, "slow", "provider_runs")["queued"] >= 4)
    outcome = alice.ask("and now?", session=alice.open_session(agent="brisk"), seconds=30)
    assert outcome.status == "completed" and outcome.answer == "quick"
    seen = places(nexus, "slow", "provider_runs")
    assert seen["in_use"] == 3 and seen["places"] == 3
    gate.set()
    for run in stuck:
        assert alice.wait(run, seconds=60)["status"] == "completed"
    until(lambda: places(nexus, "slow", "provider_runs")["in_use"] == 0)
    assert resilience(nexus)["runs"]["active"] == 0


def test_more_places_after_a_reload_let_in_who_waits(start, provider, other):
    gate = threading.Event()
    provider.answer = lambda call: (gate.wait(30), Text("done"))[1]
    nexus = start(two(provider, other, slow={"places": 1}), environment=provider.environment)
    alice = nexus.user("alice")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(alice.post, "/v1/chat/completions", {"model": "tiny", **HELLO}) for _ in range(3)]
        until(lambda: places(nexus, "slow")["queued"] == 2)
        config = json.loads(json.dumps(nexus.config))
        config["providers"][0]["places"] = 3
        nexus.write_config(config)
        nexus.reload()
        until(lambda: places(nexus, "slow")["in_use"] == 3)
        gate.set()
        assert [call.result().status_code for call in calls] == [200] * 3


def test_circuits_of_providers_and_tools_have_one_shape(start, provider, other):
    provider.answer = lambda call: Fail(500)
    nexus = start(two(provider, other), environment=provider.environment)
    alice = nexus.user("alice")
    alice.invoke("text_processing", {"operation": "upper", "text": "x"})
    for _ in range(6):
        assert alice.post("/v1/chat/completions", {"model": "tiny", **HELLO}).status_code >= 400
    view = resilience(nexus)
    shared = {"kind", "name", "circuit", "retry_after_ms", "passed", "failed", "in_use"}
    assert all(shared <= item.keys() for item in view["tools"] + view["providers"])
    [target] = [item for item in view["providers"] if item["name"] == "slow/tiny"]
    assert target["kind"] == "model_target" and target["circuit"] == "open" and target["retry_after_ms"] > 0
    assert 'nexus_circuit_state{kind="model_target",name="slow/tiny"} 3' in nexus.admin.get("/metrics").text


# ---- a call that a shutdown interrupts ----

def test_a_shutdown_settles_a_model_call_at_what_came_of_it_and_the_run_goes_on(start, provider):
    provider.answer = lambda call: Hang(after_pieces=3, seconds=30) if len(provider.calls) == 1 else Text("done now")
    nexus = start({}, provider=provider)
    alice = nexus.user("alice")
    run = alice.send(alice.open_session(), "hello there")
    alice.wait_for_event(run, "model.delta")
    nexus.restart()
    outcome = alice.outcome(run, seconds=60)
    assert outcome.status == "completed" and outcome.answer.endswith("done now")
    [failed] = outcome.of("model.failed")
    assert failed["data"]["error"] == "interrupted" and failed["data"]["will_retry"]
    first, second = outcome.of("budget.settled")
    reserved = outcome.of("budget.reserved")[0]["data"]["amount"]
    assert (first["data"]["basis"], second["data"]["basis"]) == ("estimated", "reported")
    assert first["data"]["amount"]["tokens"] < reserved["tokens"] and first["data"]["amount"]["time_ms"] < reserved["time_ms"]
    replayed = nexus.command("runs", "replay", run, key=alice.key)
    assert replayed.returncode == 0, replayed.stdout


# ---- priority ----

def priority_of(client, run_id: str) -> str:
    return client.run(run_id)["priority"]


def test_the_least_urgent_of_key_agent_session_and_request_holds(start, provider):
    agents = [{"name": "plain", "model": "tiny"}, {"name": "nightly", "model": "tiny", "priority": "batch"},
              {"name": "desk", "model": "tiny", "priority": "interactive"}]
    nexus = start({"agents": agents}, provider=provider)
    alice = nexus.user("alice")
    limited = nexus.client(nexus.admin.create_key("worker", "user", priority="normal")["key"])

    def begun(client, agent: str, session: str | None = None, request: str | None = None) -> str:
        body = {"agent": agent, **({"priority": session} if session else {})}
        headers = {"X-Nexus-Priority": request} if request else {}
        reply = client.post(f"/api/v1/sessions/{client.open_session(**body)}/messages", {"content": "hello"}, headers=headers)
        assert reply.status_code == 202, reply.text
        client.wait(reply.json()["run_id"])
        return priority_of(client, reply.json()["run_id"])

    assert begun(alice, "plain") == "normal"
    assert begun(alice, "plain", request="interactive") == "interactive"
    assert begun(alice, "plain", session="batch", request="interactive") == "batch"
    assert begun(alice, "nightly", session="interactive", request="interactive") == "batch"
    assert begun(alice, "desk") == "interactive"
    assert begun(alice, "desk", request="batch") == "batch"
    assert begun(limited, "desk") == "normal"
    assert begun(limited, "plain", request="interactive") == "normal"
    assert alice.post("/api/v1/sessions", {"priority": "urgent"}).status_code == 422


def test_what_a_run_starts_is_no_more_urgent_and_what_the_clock_starts_is_batch(start, provider, tmp_path):
    def answer(call):
        tools = {tool["function"]["name"] for tool in call.body.get("tools", [])}
        if "agent_helper" in tools and not call.tool_results:
            return ToolCalls([("agent_helper", {"message": "help"})])
        return Text("done")
    provider.answer = answer
    agents = [{"name": "lead", "model": "tiny", "agents": ["helper"], "tools": []}, {"name": "helper", "model": "tiny", "tools": [], "priority": "interactive"}]
    nexus = start({"agents": agents}, provider=provider)
    alice = nexus.user("alice")
    outcome = alice.ask("go", session=alice.open_session(agent="lead", priority="batch"), seconds=60)
    assert outcome.status == "completed", outcome.run
    [child] = alice.get(f"/api/v1/runs/{outcome.id}/children").json()["items"]
    assert priority_of(alice, child["id"]) == "batch"
    definition = "name: tick\nversion: 1.0.0\nsteps:\n  - {id: say, model: {model: tiny, prompt: hello}}\n"
    stored = alice.put("/api/v1/workflows", content=definition.encode(), headers={"Content-Type": "application/octet-stream"})
    if stored.status_code != 201:
        pytest.fail(stored.text)
    begun = alice.post("/api/v1/workflows/tick/runs", {}, headers={"X-Nexus-Priority": "interactive"}).json()["run_id"]
    alice.wait(begun, seconds=30)
    assert priority_of(alice, begun) == "interactive"
    schedule = alice.http.put("/api/v1/schedules/often", json={"workflow": "tick", "cron": "* * * * *"})
    assert schedule.status_code in (200, 201), schedule.text


# ---- shedding ----

def pressed(start, provider, **more):
    """A node whose memory is far above its limit: everything is refused."""
    nexus = start({"resilience": {"shed_memory": "1MB"}, **more}, provider=provider)
    until(lambda: resilience(nexus)["overload"]["pressure"] >= 4)
    return nexus


def test_every_dialect_says_in_its_own_words_that_it_is_too_much(start, provider):
    nexus = pressed(start, provider, agents=[{"name": "helper", "model": "tiny"}])
    alice = nexus.user("alice")
    session = alice.open_session()

    def refused(reply):
        assert reply.status_code == 503 and int(reply.headers["Retry-After"]) >= 1, (reply.status_code, reply.text)
        return reply.json()

    for model in ("tiny", "agent:helper"):
        for stream in (False, True):
            chat = refused(alice.post("/v1/chat/completions", {"model": model, "stream": stream, **HELLO}))
            assert "overloaded" in chat["error"]["message"] and chat["error"]["type"]
            answer = refused(alice.post("/v1/responses", {"model": model, "stream": stream, "input": "hello"}))
            assert "overloaded" in answer["error"]["message"]
            message = refused(alice.post("/v1/messages", {"model": model, "stream": stream, "max_tokens": 10, **HELLO}, headers={"anthropic-version": "2023-06-01"}))
            assert message["type"] == "error" and message["error"]["type"] == "overloaded_error"
    refused(alice.post("/v1/messages/count_tokens", {"model": "tiny", **HELLO}, headers={"anthropic-version": "2023-06-01"}))
    assert problem(alice.post(f"/api/v1/sessions/{session}/messages", {"content": "hello"})) == "overloaded_here"
    assert problem(alice.invoke("text_processing", {"operation": "upper", "text": "x"})) == "overloaded_here"
    hand = Hand(nexus, alice.key)
    for name, arguments in (("text_processing", {"operation": "upper", "text": "x"}), ("agent_helper", {"message": "hello"})):
        told = hand.ask("tools/call", {"name": name, "arguments": arguments})
        assert told.status_code == 503 and int(told.headers["Retry-After"]) >= 1, told.text
        assert told.json()["error"]["data"]["problem"] == "overloaded_here"
    assert hand.ask("tools/list").status_code == 200                # looking goes on
    for path in ("/healthz", "/readyz", "/metrics", "/api/v1/system/resilience", "/api/v1/approvals", "/api/v1/keys", "/api/v1/audit", "/v1/models"):
        assert nexus.admin.get(path).status_code == 200, path
    assert nexus.admin.create_key("later", "user")["key"]


def test_a_slow_disk_costs_batch_work_first_and_interactive_calls_are_answered(needs_fault_points, start, provider):
    nexus = start({"resilience": {"shed_commit": "200ms"}}, provider=provider, is_dev=True)
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = "store.slow:*"               # each commit takes 300 ms more
    nexus.start()
    alice = nexus.user("alice")
    stop = threading.Event()

    def write():
        while not stop.is_set():
            alice.open_session()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        view = until(lambda: (view := resilience(nexus)["overload"])["pressure"] >= 1.2 and view)
        assert view["commit_ms"] >= 200 and view["commit_limit_ms"] == 200
        refused = answered = 0
        for _ in range(10):
            batch = alice.post("/v1/chat/completions", {"model": "tiny", **HELLO}, headers={"X-Nexus-Priority": "batch"})
            urgent = alice.post("/v1/chat/completions", {"model": "tiny", **HELLO}, headers={"X-Nexus-Priority": "interactive"})
            refused += batch.status_code == 503 and int(batch.headers["Retry-After"]) >= 1
            answered += urgent.status_code == 200
        assert refused >= 8 and answered == 10, (refused, answered, resilience(nexus)["overload"])
        run = alice.post(f"/api/v1/sessions/{alice.open_session()}/messages", {"content": "hello"}, headers={"X-Nexus-Priority": "interactive"})
        assert run.status_code == 202 and alice.wait(run.json()["run_id"], seconds=30)["status"] == "completed"
        assert "nexus_store_commit_seconds 0." in nexus.admin.get("/metrics").text
    finally:
        stop.set()
        writer.join()


# ---- a flood ----

def test_a_flood_of_fifty_times_leaves_another_its_turns_by_the_order_of_their_ends(start, provider):
    """By the order in which the provider was asked, not by time."""
    asked = []
    provider.answer = lambda call: (asked.append(call.last_user_text), Text("done", delay=0.01))[1]

    def served(flood: int) -> int:
        """Calls that the provider sees until the quiet one's four are through."""
        asked.clear()
        nexus = start({"resilience": {"active_runs": 2}}, provider=provider)
        loud, quiet = nexus.user("loud"), nexus.user("quiet")
        sessions = [loud.open_session(agent="assistant") for _ in range(flood)]
        own = [quiet.open_session(agent="assistant") for _ in range(4)]
        runs = [loud.send(session, "loud") for session in sessions[:4]]
        with ThreadPoolExecutor(8) as pool:
            more = list(pool.map(lambda session: loud.send(session, "loud"), sessions[4:]))
            before = len(asked)
            mine = [quiet.send(session, "quiet") for session in own]
        for run in mine:
            assert quiet.wait(run, seconds=60)["status"] == "completed"
        last = max(i for i, text in enumerate(asked) if text == "quiet")
        for run in runs + more:
            loud.wait(run, seconds=120)
        nexus.stop()
        return last + 1 - before

    alone, flooded = served(4), served(200)
    assert flooded <= 3 * max(alone, 8), (alone, flooded)


# ---- degradation is said in every dialect ----

STEPS = {
    "model": ([{"when": "provider_unavailable", "use": {"model": "fine"}}], "answered by model fine"),
    "cached": ([{"when": "provider_unavailable", "use": {"cached": True}}], "an earlier answer"),
    "tools": ([{"when": "budget_low", "use": {"tools": "none"}}], "answered without tools"),
    "overloaded": ([{"when": "overloaded", "use": {"model": "fine"}}], "overloaded: answered by model fine"),
}


def said_by(nexus, alice, step: str) -> dict:
    """How each dialect says it, whole and streamed."""
    anthropic = {"anthropic-version": "2023-06-01"}
    urgent = {"X-Nexus-Priority": "interactive"}
    question = {"messages": [{"role": "user", "content": "what is it?"}]}
    told = {}
    for stream in (False, True):
        for name, path, body, headers in (("chat", "/v1/chat/completions", question, {}),
                                          ("responses", "/v1/responses", {"input": "what is it?"}, {}),
                                          ("messages", "/v1/messages", {"max_tokens": 100, **question}, anthropic)):
            session = {"X-Nexus-Session": alice.open_session(agent="helper", budget={"tokens": 6000})} if step == "tools" else {}
            reply = alice.post(path, {"model": "agent:helper", "stream": stream, **body}, headers={**headers, **urgent, **session})
            assert reply.status_code == 200, (name, stream, reply.text)
            told[name, stream] = reply.headers.get("Nexus-Degraded", "") + "".join(
                line for line in reply.text.splitlines() if line.startswith(": Nexus-Degraded"))
            run = alice.run(reply.headers["Nexus-Run-Id"])
            told[name, stream, "run"] = run["degraded"]
    if step != "tools":
        reply = Hand(nexus, alice.key).ask("tools/call", {"name": "agent_helper", "arguments": {"message": "what is it?"}}, urgent)
        told["mcp"] = reply.json()["result"]["structuredContent"]["degraded"]
    return told


@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_said_in_the_answers_of_every_dialect(start, provider, other, step):
    steps, words = STEPS[step]
    other.answer = lambda call: Text("from the fallback")

    def answer(call):
        if call.body.get("tools"):
            return ToolCalls([("text_processing", {"operation": "upper", "text": "x"})], usage=(900, 100))
        return Text("forty-two")
    provider.answer = answer
    agent = {"name": "helper", "model": "tiny", "tools": ["text_processing"] if step == "tools" else [], "degrade": steps}
    more = {"resilience": {"shed_memory": "24MB"}} if step == "overloaded" else {}
    nexus = start(two(provider, other, agents=[agent], **more), environment=provider.environment)
    alice = nexus.user("alice")
    if step == "overloaded":
        view = until(lambda: (view := resilience(nexus)["overload"])["pressure"] >= 1 and view)
        if view["pressure"] >= 3.9:
            pytest.skip("this build is larger than the limit four times")
    if step == "cached":
        assert alice.ask("what is it?", session=alice.open_session(agent="helper")).answer == "forty-two"
    if step in ("model", "cached"):
        provider.answer = lambda call: Fail(401)
    told = said_by(nexus, alice, step)
    assert all(words in text for text in told.values()), told
