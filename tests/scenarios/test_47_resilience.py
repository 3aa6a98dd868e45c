"""What is slow, broken or too much holds up nothing else; and what was done instead is said."""

import json
import threading
import time

import pytest

from harness.client import problem
from harness.provider import Fail, Text, ToolCalls


def resilience(nexus) -> dict:
    reply = nexus.admin.get("/api/v1/system/resilience")
    assert reply.status_code == 200, reply.text
    return reply.json()


# ---- the queue of runs ----

def slow(seconds: float = 0.3):
    return lambda call: Text("done", delay=seconds)


def test_runs_that_find_no_place_wait_their_turn_and_all_complete(start, provider):
    provider.answer = slow()
    nexus = start({"resilience": {"active_runs": 2}}, provider=provider)
    alice = nexus.user("alice")
    runs = [alice.send(alice.open_session(), f"question {i}") for i in range(8)]
    seen = resilience(nexus)["runs"]
    assert seen["places"] == 2 and seen["active"] <= 2 and seen["queued"] >= 1
    assert {alice.run(run)["status"] for run in runs} <= {"pending", "running", "completed"}
    for run in runs:
        assert alice.wait(run, seconds=60)["status"] == "completed"
    assert resilience(nexus)["runs"]["queued"] == 0


def test_a_user_with_many_runs_delays_anothers_by_little(start, provider):
    provider.answer = slow(0.2)
    nexus = start({"resilience": {"active_runs": 1}}, provider=provider)
    alice, bob = nexus.user("alice"), nexus.user("bob")
    many = [alice.send(alice.open_session(), f"question {i}") for i in range(25)]
    one = bob.send(bob.open_session(), "just one")
    assert bob.wait(one, seconds=60)["status"] == "completed"
    done = sum(alice.run(run)["status"] == "completed" for run in many)
    assert done <= 12, done                             # of twenty-five that came before
    for run in many:
        assert alice.wait(run, seconds=60)["status"] == "completed"


def test_runs_that_wait_survive_a_crash(start, provider):
    provider.answer = slow(0.3)
    nexus = start({"resilience": {"active_runs": 1}}, provider=provider)
    alice = nexus.user("alice")
    runs = [alice.send(alice.open_session(), f"question {i}") for i in range(6)]
    nexus.restart(is_crash=True)
    for run in runs:
        assert alice.wait(run, seconds=60)["status"] == "completed"


def test_new_runs_are_refused_when_too_many_wait_and_a_cancelled_one_needs_no_turn(start, provider):
    provider.answer = slow(2)
    nexus = start({"resilience": {"active_runs": 1, "waiting_runs": 4}}, provider=provider)
    alice = nexus.user("alice")
    runs, refused = [], None
    for i in range(8):
        reply = alice.post(f"/api/v1/sessions/{alice.open_session()}/messages", {"content": f"question {i}"})
        if reply.status_code == 503:
            refused = reply
            break
        runs.append(reply.json()["run_id"])
    assert refused is not None and problem(refused) == "overloaded_here" and int(refused.headers["Retry-After"]) > 0
    last = runs[-1]
    assert alice.post(f"/api/v1/runs/{last}/cancel").status_code == 202
    assert alice.wait(last, seconds=5)["status"] == "cancelled"
    for run in runs[:-1]:
        assert alice.wait(run, seconds=60)["status"] == "completed"


# ---- shedding ----

def test_work_is_refused_by_priority_when_the_node_is_pressed_and_nothing_else_is(start, provider):
    provider.answer = slow(0.05)
    nexus = start({"resilience": {"shed_memory": "1MB"}}, provider=provider)      # it is far above that
    alice = nexus.user("alice")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and resilience(nexus)["overload"]["pressure"] < 4:
        time.sleep(0.1)
    view = resilience(nexus)["overload"]
    assert view["pressure"] > 1 and view["memory_bytes"] > view["memory_limit_bytes"]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    for priority in ("batch", "normal"):
        reply = alice.post("/v1/chat/completions", body, headers={"X-Nexus-Priority": priority})
        assert reply.status_code == 503 and int(reply.headers["Retry-After"]) > 0, reply.text
    assert alice.get("/api/v1/sessions").status_code == 200
    assert nexus.admin.get("/readyz").status_code == 200
    assert resilience(nexus)["overload"]["refused"]["batch"] >= 1
    assert "nexus_overload_refused_total" in nexus.admin.get("/metrics").text


def test_a_priority_is_one_of_three_and_no_more_than_the_key_may(start, provider):
    nexus = start({}, provider=provider)
    alice = nexus.user("alice")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    assert alice.post("/v1/chat/completions", body, headers={"X-Nexus-Priority": "urgent"}).status_code == 400
    assert alice.post("/v1/chat/completions", body, headers={"X-Nexus-Priority": "interactive"}).status_code == 200
    limited = nexus.admin.create_key("worker", "user", priority="batch")
    assert limited["priority"] == "batch"
    worker = nexus.client(limited["key"])
    assert worker.post("/v1/chat/completions", body, headers={"X-Nexus-Priority": "interactive"}).status_code == 200


# ---- places of tools ----

def test_calls_of_one_tool_have_places_and_the_rest_wait(start):
    nexus = start({"resilience": {"tool_places": 2}})
    alice = nexus.user("alice")
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(alice.invoke("text_processing", {"operation": "upper", "text": "x"})))
               for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status_code for reply in replies] == [200] * 12
    [tool] = [tool for tool in resilience(nexus)["tools"] if tool["name"] == "text_processing"]
    assert tool["kind"] == "tool" and tool["places"] == 2 and tool["in_use"] == 0 and tool["circuit"] == "ok" and tool["passed"] >= 12
    metrics = nexus.admin.get("/metrics").text
    assert 'nexus_bulkhead_in_use{kind="tool",name="text_processing"}' in metrics
    assert nexus.user("bob").get("/api/v1/system/resilience").status_code == 403


# ---- degradation ----

def models_of(provider, broken) -> dict:
    """`fine` answers, `dear` goes to a provider that is told to fail."""
    return {
        "providers": [provider.config()["providers"][0],
                      {"name": "broken", "type": "openai", "base_url": broken.url, "api_keys": ["${env:LOCAL_KEY}"]}],
        "models": [{"name": "dear", "targets": [{"provider": "broken", "model": "large"}]},
                   {"name": "fine", "targets": [{"provider": "fake", "model": "tiny"}]}],
    }


@pytest.fixture
def broken():
    from harness.provider import FakeProvider
    fake = FakeProvider()
    yield fake
    fake.close()


def agent(**degrade) -> dict:
    return {"name": "helper", "model": "dear", "instructions": "Help.", **degrade}


def test_another_model_answers_and_it_is_said_everywhere(start, provider, broken):
    provider.answer = lambda call: Text("from the fallback")
    broken.answer = lambda call: Fail(503)
    steps = [{"when": "provider_unavailable", "use": {"model": "fine"}}]
    nexus = start({**models_of(provider, broken), "agents": [agent(degrade=steps)]}, environment=provider.environment)
    alice = nexus.user("alice")
    outcome = alice.ask("hello", session=alice.open_session(agent="helper"), seconds=60)
    assert outcome.status == "completed" and "from the fallback" in outcome.answer
    [event] = outcome.of("run.degraded")
    assert event["data"]["why"] == "provider_unavailable" and event["data"]["model"] == "fine" and event["data"]["instead_of"] == "dear"
    assert "fine" in alice.run(outcome.id)["degraded"]
    assert [event["data"]["model"] for event in outcome.of("model.requested")][-1] == "fine"
    asked = [event["data"]["resource"] for event in outcome.of("policy.decided") if event["data"]["action"] == "model.call"]
    assert asked[-1] == "fine"                                     # the policy was asked for what is really used
    reply = alice.post("/v1/chat/completions", {"model": "agent:helper", "messages": [{"role": "user", "content": "hello"}]})
    assert reply.status_code == 200 and "fine" in reply.headers["Nexus-Degraded"]
    assert 'nexus_runs_degraded_total{when="provider_unavailable",use="model"}' in nexus.admin.get("/metrics").text


def test_an_earlier_answer_serves_and_only_its_own_user(start, provider, broken):
    broken.answer = lambda call: Text("forty-two")
    steps = [{"when": "provider_unavailable", "use": {"cached": True}}]
    nexus = start({**models_of(provider, broken), "agents": [agent(degrade=steps, tools=[])]}, environment=provider.environment)
    alice, bob = nexus.user("alice"), nexus.user("bob")
    assert "forty-two" in alice.ask("what is it?", session=alice.open_session(agent="helper")).answer
    broken.answer = lambda call: Fail(401)
    outcome = alice.ask("what is it?", session=alice.open_session(agent="helper"), seconds=60)
    assert outcome.status == "completed" and outcome.of("message.added")[-1]["data"]["content"] == "forty-two"
    [event] = outcome.of("run.degraded")
    assert event["data"]["use"] == "cached" and "earlier answer" in alice.run(outcome.id)["degraded"]
    reply = alice.post("/v1/chat/completions", {"model": "agent:helper", "messages": [{"role": "user", "content": "what is it?"}]})
    assert reply.json()["choices"][0]["message"]["content"] == "forty-two" and "earlier" in reply.headers["Nexus-Degraded"]
    assert alice.ask("what else?", session=alice.open_session(agent="helper"), seconds=60).status == "failed"
    assert bob.ask("what is it?", session=bob.open_session(agent="helper"), seconds=60).status == "failed"


def test_with_little_budget_left_the_answer_comes_without_tools(start, provider):
    def answer(call):
        if call.body.get("tools"):
            return ToolCalls([("text_processing", {"operation": "upper", "text": "x"})], usage=(900, 100))
        return Text("without tools")
    provider.answer = answer
    steps = [{"when": "budget_low", "use": {"tools": "none"}}]
    nexus = start({"agents": [{"name": "helper", "model": "tiny", "tools": ["text_processing"], "degrade": steps}]}, provider=provider)
    alice = nexus.user("alice")
    session = alice.open_session(agent="helper", budget={"tokens": 6000})
    outcome = alice.ask("work", session=session, seconds=60)
    assert outcome.status == "completed" and "without tools" in outcome.answer
    assert outcome.of("run.degraded")[0]["data"]["use"] == "tools"
    assert "tools" in alice.run(outcome.id)["degraded"]


def test_without_a_step_nothing_is_replaced(start, provider, broken):
    broken.answer = lambda call: Fail(401)
    nexus = start({**models_of(provider, broken), "agents": [agent()]}, environment=provider.environment)
    alice = nexus.user("alice")
    outcome = alice.ask("hello", session=alice.open_session(agent="helper"), seconds=60)
    assert outcome.status == "failed" and not outcome.of("run.degraded")


def test_wrong_steps_are_refused_at_the_start(start, tmp_path, provider):
    nexus = start({}, provider=provider)
    for use in ("{model: nowhere}", "{}", "{model: tiny, cached: true}"):
        path = tmp_path / "wrong.yaml"
        path.write_text(nexus.config_file.read_text() + f"\nagents: [{{name: a, model: tiny, degrade: [{{when: overloaded, use: {use}}}]}}]\n")
        result = nexus.command("config", "check", "--config", str(path))
        assert result.returncode != 0, use


def test_doctor_names_open_circuits(start, provider, broken):
    broken.answer = lambda call: Fail(500)
    nexus = start(models_of(provider, broken), environment=provider.environment)
    alice = nexus.user("alice")
    body = {"model": "dear", "messages": [{"role": "user", "content": "hello"}]}
    for _ in range(8):
        assert alice.post("/v1/chat/completions", body).status_code >= 400
    assert [target for target in resilience(nexus)["providers"] if target["state"] == "open"]
    told = nexus.command("doctor", "--json", "--config", str(nexus.config_file), seconds=120)
    [check] = [check for check in json.loads(told.stdout)["checks"] if check["check"] == "resilience"]
    assert check["verdict"] == "warn" and "broken" in check["detail"]
