"""A recorded run: replayed to the same bytes, forked, compared, exported as a test, kept in linear space."""

import json
import os
import pathlib
import threading

import yaml
from harness.client import problem
from harness.provider import Fail, FakeProvider, Text, ToolCalls
from harness.scripts import call, say, script
from harness.tools import DANGEROUS, tools_with_a_dangerous_one

JOURNALS = os.environ.get("NEXUS_JOURNALS")


def replays(client, run_id: str, name: str) -> dict:
    """The run replays on its server; NEXUS_JOURNALS=FOLDER keeps it under this name (scripts/record-journals)."""
    report = client.post(f"/api/v1/runs/{run_id}/replay").json()
    assert report["same"] is True, json.dumps(report["differences"][:3], indent=1)
    document = client.get(f"/api/v1/runs/{run_id}/export").json()
    if JOURNALS:
        (pathlib.Path(JOURNALS) / f"{name}.json").write_text(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
    return document


def finished(client, text: str, session: str | None = None) -> str:
    session = session or client.open_session()
    run_id = client.send(session, text)
    assert client.wait(run_id, "completed")["status"] == "completed"
    return run_id


def a_tool_script() -> str:
    return script(call("text_processing", operation="upper", text="abc"), say("It is done."))


def test_a_run_with_tools_replays_to_the_same_bytes_on_the_server_and_from_its_file(nexus, tmp_path):
    client = nexus.admin
    run_id = finished(client, a_tool_script())
    report = client.post(f"/api/v1/runs/{run_id}/replay").json()
    assert report["compared"] > 8 and report["model_calls"] == 2 and report["tool_calls"] == 1
    document = replays(client, run_id, "tool-call")
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    result = nexus.command("runs", "replay", str(path))
    assert result.returncode == 0 and result.stdout.startswith("same"), result.stdout + result.stderr


def test_what_was_changed_in_a_record_is_told_with_its_number_and_both_sides(nexus, tmp_path):
    client = nexus.admin
    run_id = finished(client, a_tool_script())
    document = client.get(f"/api/v1/runs/{run_id}/export").json()
    [decided] = [event for event in document["events"] if event["type"] == "policy.decided" and event["data"]["action"] == "tool.call"]
    decided["data"]["verdict"] = "deny"
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    result = nexus.command("runs", "replay", str(path), "--json")
    report = json.loads(result.stdout)
    assert result.returncode == 1 and report["same"] is False
    assert report["differences"][0]["seq"] > decided["seq"]
    assert report["differences"][0]["recorded"] and report["differences"][0]["replayed"]


def test_a_run_replays_after_the_server_was_killed_and_started_again(start):
    nexus = start()
    client = nexus.admin
    run_id = finished(client, a_tool_script())
    nexus.restart(is_crash=True)
    replays(nexus.admin, run_id, "across-a-kill")


def test_a_fork_goes_on_from_the_middle_and_repeats_no_effect(nexus):
    client = nexus.admin
    run_id = finished(client, a_tool_script())
    events = client.get(f"/api/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).json()["events"]
    at = next(event["seq"] for event in events if event["type"] == "tool.completed") + 1
    reply = client.post(f"/api/v1/runs/{run_id}/fork", {"at": at, "message": script(say("Another end."))})
    assert reply.status_code == 202, reply.text
    fork = reply.json()
    assert fork["session_id"] != client.run(run_id)["session_id"]
    outcome = client.outcome(fork["run_id"])
    assert outcome.status == "completed" and "Another end." in outcome.answer
    shared = client.get(f"/api/v1/runs/{fork['run_id']}/events", headers={"Accept": "application/json"}).json()["events"]
    assert [event["seq"] for event in shared] == list(range(1, len(shared) + 1))
    assert [(event["seq"], event["type"], event["at"]) for event in shared[:at]] == [(e["seq"], e["type"], e["at"]) for e in events[:at]]
    assert shared[at]["type"] == "run.forked" and shared[at]["data"]["from_run_id"] == run_id
    replays(client, fork["run_id"], "fork")


def test_a_fork_in_the_middle_of_a_call_names_the_nearest_place(nexus):
    client = nexus.admin
    run_id = finished(client, a_tool_script())
    events = client.get(f"/api/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).json()["events"]
    at = next(event["seq"] for event in events if event["type"] == "tool.intended")
    reply = client.post(f"/api/v1/runs/{run_id}/fork", {"at": at})
    assert reply.status_code == 409 and problem(reply) == "conflict"
    assert "nearest" in reply.json()["detail"]


def test_a_comparison_names_the_steps_that_differ(nexus):
    client = nexus.admin
    a, b = finished(client, script(say("One."))), finished(client, script(say("Two.")))
    assert client.get(f"/api/v1/runs/{a}/diff?with={a}").json()["same"] is True
    diff = client.get(f"/api/v1/runs/{a}/diff?with={b}").json()
    assert diff["same"] is False and "text" in diff["steps"][0]["differs"]
    result = nexus.command("runs", "diff", a, b)
    assert result.returncode == 1 and "text" in result.stdout


def test_a_run_becomes_a_test_that_runs_without_a_server(nexus, tmp_path):
    run_id = finished(nexus.admin, a_tool_script())
    path = tmp_path / "case.json"
    assert nexus.command("runs", "export", run_id, "--as-test", str(path)).returncode == 0
    result = nexus.command("runs", "test", str(path))
    assert result.returncode == 0 and "1 of 1 passed" in result.stdout, result.stdout
    case = json.loads(path.read_text())
    case["expect"]["answer"] = {"contains": ["something else"]}
    path.write_text(json.dumps(case))
    result = nexus.command("runs", "test", str(path))
    assert result.returncode == 1 and "something else" in result.stdout


AGENTS = [
    {"name": "lead", "instructions": "You are LEAD.", "tools": [], "agents": ["researcher"]},
    {"name": "researcher", "description": "It looks things up.", "instructions": "You are RESEARCHER.", "tools": []},
]


def test_a_run_that_asked_another_agent_replays_and_so_does_the_other_one(start, provider: FakeProvider):
    def answer(call):
        if "RESEARCHER" in call.body["messages"][0]["content"]:
            return Text("12 degrees")
        if call.tool_results:
            return Text("It was 12 degrees.")
        return ToolCalls([("agent_researcher", {"message": "How warm was it?"})])

    provider.answer = answer
    nexus = start({"agents": AGENTS}, provider=provider)
    done = nexus.admin.ask("how warm was it?", session=nexus.admin.open_session(agent="lead"))
    asked = len(provider.calls)
    [child] = nexus.admin.get(f"/api/v1/runs/{done.id}/children").json()["items"]
    replays(nexus.admin, child["id"], "child-run")
    replays(nexus.admin, done.id, "agent-as-tool")
    assert len(provider.calls) == asked  # nobody was asked


def test_a_run_that_waited_for_an_approval_replays(start, tmp_path):
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}})
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    run_id = alice.send(alice.open_session(), script(call(DANGEROUS, operation="upper", text="abc"), say("It is done.")))
    alice.wait(run_id, "waiting")
    [approval] = bob.get("/api/v1/approvals?status=pending").json()["items"]
    bob.post(f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
    assert alice.wait(run_id, "completed")["status"] == "completed"
    replays(alice, run_id, "approval")


# ---- instances of workflows ----

def begin(client, definition: dict, workflow_input=None) -> str:
    reply = client.put("/api/v1/workflows", content=yaml.safe_dump(definition, sort_keys=False))
    assert reply.status_code in (200, 201), reply.text
    reply = client.post(f"/api/v1/workflows/{definition['name']}/runs", {"input": workflow_input or {}})
    assert reply.status_code == 202, reply.text
    return reply.json()["run_id"]


def upper(text: str) -> dict:
    return {"tool": "text_processing", "input": {"operation": "upper", "text": text}}


CONTROL = {
    "name": "control", "version": "1.0.0",
    "output": {"list": "${steps.each.output}", "arm": "${steps.which.output}", "rounds": "${steps.again.output}"},
    "steps": [
        {"id": "never", "when": "input.n > 5", "sleep": "1h"},
        {"id": "each", "map": {"over": "input.items", "parallel": 3, "steps": [{"id": "shout", **upper("${item}")}]}},
        {"id": "which", "branch": [{"when": "input.n > 5", "steps": [{"id": "a", "sleep": "0s"}]},
                                   {"steps": [{"id": "b", "wait_signal": {"name": "go"}}]}]},
        {"id": "both", "parallel": {"left": [{"id": "x", **upper("left")}, {"id": "nap", "sleep": "200ms"}],
                                    "right": [{"id": "y", "model": {"prompt": script(say("Hello."))}}]}},
        {"id": "again", "loop": {"while": "loop.index < 3", "max": 10, "output": "${loop.index}",
                                 "steps": [{"id": "z", **upper("${string(loop.index)}")}]}},
        {"id": "sub", "workflow": {"name": "inner", "input": {"text": "deep"}}},
    ]}
INNER = {"name": "inner", "version": "3.1.0", "steps": [{"id": "shout", **upper("${input.text}")}]}


def test_an_instance_with_steps_of_every_kind_replays_to_the_same_bytes(nexus, tmp_path):
    client = nexus.admin
    begin(client, INNER, {"text": "before"})
    run_id = begin(client, CONTROL, {"n": 1, "items": ["a", "b", "c", "d", "e"]})
    client.wait(run_id, "waiting")
    replays(client, run_id, "workflow-waiting")
    assert client.post(f"/api/v1/runs/{run_id}/signals", {"name": "go", "data": {"who": "ada"}}).status_code == 202
    assert client.wait(run_id, "completed")["status"] == "completed"
    document = replays(client, run_id, "workflow-control")
    for child in client.get(f"/api/v1/runs/{run_id}/children").json()["items"]:
        replays(client, child["id"], f"workflow-child-{child['agent'].partition(':')[0]}")
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(document))
    result = nexus.command("runs", "replay", str(path))
    assert result.returncode == 0 and result.stdout.startswith("same"), result.stdout + result.stderr
    [ended] = [event for event in document["events"] if event["type"] == "tool.completed"][:1]
    ended["data"]["latency_ms"] += 1000000
    path.write_text(json.dumps(document))
    assert nexus.command("runs", "replay", str(path)).returncode == 1


UNDONE = {
    "name": "undone", "version": "1.0.0",
    "steps": [
        {"id": "first", **upper("one"), "compensate": upper("take back ${steps.first.output.text}")},
        {"id": "second", **upper("two"), "compensate": upper("take back two")},
        {"id": "fails", "tool": "text_processing", "input": {"operation": "no such", "text": "x"},
         "retry": {"attempts": 3, "backoff": "100ms", "jitter": 0.5}},
    ]}


def test_an_instance_that_was_tried_again_and_undone_replays_and_is_compared_step_by_step(nexus):
    client = nexus.admin
    run_id = begin(client, UNDONE)
    assert client.wait(run_id, "failed")["status"] == "failed"
    document = replays(client, run_id, "workflow-undone")
    assert "run.compensating" in [event["type"] for event in document["events"]]
    again = begin(client, {**UNDONE, "version": "2.0.0", "steps": UNDONE["steps"][:2]})
    client.wait(again, "completed")
    diff = client.get(f"/api/v1/runs/{run_id}/diff?with={again}").json()
    assert diff["same"] is False
    [step] = [step for step in diff["steps"] if step["path"] == "fails"]
    assert step["differs"] == ["only in a"] and step["a"]["attempts"] >= 1
    assert all(step["same"] for step in diff["steps"] if step["path"] in ("first", "second"))
    result = nexus.command("runs", "diff", run_id, again)
    assert result.returncode == 1 and "fails" in result.stdout
    reply = client.post(f"/api/v1/runs/{run_id}/fork", {"at": 5})
    assert reply.status_code >= 400 and "start it again" in reply.json()["detail"]


def test_an_instance_replays_across_a_kill_and_with_the_votes_of_two_persons(start):
    nexus = start({"approvals": {"registrars": ["admin"]}})
    gate = {"name": "gate", "version": "1.0.0", "output": "${steps.shout.output.text}", "steps": [
        {"id": "ok", "approval": {"title": "Really?", "quorum": 2}}, {"id": "shout", **upper("approved")}]}
    alice, bob, carol = nexus.user("alice"), nexus.user("bob", "operator"), nexus.user("carol", "operator")
    run_id = begin(alice, gate)
    nexus.admin.wait(run_id, "waiting")
    for person in (bob, carol):
        [approval] = person.get("/api/v1/approvals?status=pending").json()["items"]
        reply = person.post(f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
        assert reply.status_code == 200, reply.text
        if person is bob:
            nexus.restart(is_crash=True)
    assert nexus.admin.wait(run_id, "completed")["status"] == "completed"
    replays(nexus.admin, run_id, "workflow-quorum-across-a-kill")


# ---- what happens to a run beside its own steps ----

LOOK = ("text_processing", {"operation": "count", "text": "one two three"})


def test_a_run_that_was_steered_and_one_that_was_interrupted_replay(start, provider: FakeProvider):
    go = threading.Event()

    def answer(call):
        if call.tool_results or "else" in call.last_user_text or "words" in call.last_user_text:
            return Text("three")
        go.wait(10)
        return ToolCalls([LOOK])

    provider.answer = answer
    nexus = start(provider=provider)
    admin = nexus.admin
    session = admin.open_session(double_text="steer")
    run_id = admin.send(session, "count")
    provider.wait_for_calls(1)
    assert admin.post(f"/api/v1/sessions/{session}/messages", {"content": "in words"}).status_code == 202
    go.set()
    assert admin.wait(run_id)["status"] == "completed"
    document = replays(admin, run_id, "steered")
    assert any(event["data"].get("steers") for event in document["events"])

    go.clear()
    asked = len(provider.calls)
    session = admin.open_session(double_text="interrupt")
    run_id = admin.send(session, "count")
    provider.wait_for_calls(asked + 1)
    told = admin.post(f"/api/v1/sessions/{session}/messages", {"content": "something else"}).json()
    assert admin.wait(run_id, "cancelled")["status"] == "cancelled"
    go.set()
    assert admin.wait(told["run_id"])["status"] == "completed"
    replays(admin, run_id, "interrupted")
    replays(admin, told["run_id"], "interrupting")


def test_a_handed_over_run_replays(start, provider: FakeProvider):
    agents = [{"name": "lead", "instructions": "You are LEAD.", "tools": [], "agents": [{"name": "expert", "as": "handoff"}]},
              {"name": "expert", "description": "It knows.", "instructions": "You are EXPERT.", "tools": []}]
    provider.answer = lambda call: (Text("As an expert: 12 degrees.") if "EXPERT" in call.body["messages"][0]["content"]
                                    else ToolCalls([("handoff_expert", {"message": "Take over."})]))
    nexus = start({"agents": agents}, provider=provider)
    done = nexus.admin.ask("how warm was it?", session=nexus.admin.open_session(agent="lead"))
    assert done.status == "completed"
    document = replays(nexus.admin, done.id, "handoff")
    assert any(event["data"].get("handoff") for event in document["events"])


def test_a_run_that_another_model_answered_and_one_that_summed_up_replay(start, provider: FakeProvider):
    broken = FakeProvider()
    broken.answer = lambda call: Fail(503)
    agents = [{"name": "helper", "model": "dear", "instructions": "Help.", "degrade": [{"when": "provider_unavailable", "use": {"model": "fine"}}]},
              {"name": "worker", "model": "fine", "instructions": "Work.", "tools": ["text_processing"]}]
    models = {"providers": [provider.config()["providers"][0],
                            {"name": "broken", "type": "openai", "base_url": broken.url, "api_keys": ["${env:LOCAL_KEY}"]}],
              "models": [{"name": "dear", "targets": [{"provider": "broken", "model": "large"}]},
                         {"name": "fine", "targets": [{"provider": "fake", "model": "tiny"}]}]}

    def answer(call):
        if not call.body.get("tools"):
            return Text("Two pages.", usage=(120, 12))
        return ToolCalls([("text_processing", {"operation": "count", "text": f"page {len(call.tool_results)}"})], usage=(1500, 500))

    provider.answer = answer
    try:
        nexus = start({**models, "agents": agents}, environment=provider.environment)
        done = nexus.admin.ask("hello", session=nexus.admin.open_session(agent="helper"), seconds=60)
        assert done.status == "completed" and done.of("run.degraded")
        replays(nexus.admin, done.id, "degraded")
        done = nexus.admin.ask("read", session=nexus.admin.open_session(agent="worker", budget={"tokens": 8000}))
        assert done.status == "completed" and done.of("budget.wind_down")
        replays(nexus.admin, done.id, "wound-down")
    finally:
        broken.close()


def test_a_run_whose_program_called_tools_replays(nexus):
    program = "print(tool('text_processing', {'operation': 'upper', 'text': 'abc'}))"
    run_id = finished(nexus.admin, script(call("code_execution", language="python", code=program), say("Done.")))
    document = replays(nexus.admin, run_id, "code-execution")
    assert [row["tool_name"] for row in document["tool_calls"]][:1] == ["code_execution"]


# ---- live ----

def test_a_case_is_played_live_and_what_is_not_compared_is_said(start, provider: FakeProvider, tmp_path):
    words = {"answer": "It has three words."}

    def answer(call):
        return Text(words["answer"]) if call.tool_results else ToolCalls([LOOK])

    provider.answer = answer
    nexus = start(provider=provider)
    done = nexus.admin.ask("count the words")
    path = tmp_path / "case.json"
    assert nexus.command("runs", "export", done.id, "--as-test", str(path)).returncode == 0
    asked = len(provider.calls)
    words["answer"] = "Three."                                      # the same in other words
    result = nexus.command("runs", "test", str(path), "--live")
    assert result.returncode == 0 and "1 of 1 passed" in result.stdout, result.stdout + result.stderr
    assert "not compared" in result.stdout and "words of the answer" in result.stdout and "arguments" in result.stdout
    assert len(provider.calls) == asked + 2                        # really asked
    case = json.loads(path.read_text())
    case["expect"]["answer"] = {"contains": ["three words"]}
    path.write_text(json.dumps(case))
    result = nexus.command("runs", "test", str(path), "--live")
    assert result.returncode == 1 and "three words" in result.stdout
    provider.answer = lambda call: Text("three words, I guess")    # without the tool
    result = nexus.command("runs", "test", str(path), "--live")
    assert result.returncode == 1 and "tool call 1 is missing: text_processing" in result.stdout
    case["expect"]["answer"] = {"schema": {"type": "object", "required": ["n"]}}
    case["expect"]["tool_calls"] = []
    path.write_text(json.dumps(case))
    provider.answer = lambda call: Text('{"n": 3}')
    assert nexus.command("runs", "test", str(path), "--live").returncode == 0
    provider.answer = lambda call: Text('{"m": 3}')
    result = nexus.command("runs", "test", str(path), "--live")
    assert result.returncode == 1 and "schema" in result.stdout
    assert nexus.command("runs", "test", str(path), "--model", "x").returncode == 2
    result = nexus.command("runs", "test", str(path), "--live", "--model", "nobody-has-it")
    assert result.returncode == 1 and "nobody-has-it" in result.stdout


# ---- what is kept ----

def test_what_is_under_a_hold_outlives_the_retention(start):
    nexus = start({"retention": {"runs": "1s", "deltas": "1s"}})
    client = nexus.admin
    held, free = client.open_session(metadata={"hold": True}), client.open_session()
    kept, gone = finished(client, script(say("Kept.")), held), finished(client, script(say("Gone.")), free)
    for _ in range(120):
        if client.get(f"/api/v1/runs/{gone}").status_code == 404:
            break
        threading.Event().wait(0.5)
    assert client.get(f"/api/v1/runs/{gone}").status_code == 404
    assert client.get(f"/api/v1/runs/{kept}").status_code == 200
    replays(client, kept, "held")


def test_others_may_neither_export_nor_replay_a_run(nexus):
    alice, mallory = nexus.user("alice"), nexus.user("mallory")
    run_id = finished(alice, script(say("Mine.")))
    for path in ("export", "replay"):
        assert mallory.get(f"/api/v1/runs/{run_id}/{path}").status_code == 404
    assert mallory.post(f"/api/v1/runs/{run_id}/fork", {"at": 3}).status_code == 404


def test_the_journal_of_a_long_session_grows_by_the_same_bytes_each_turn(nexus):
    client = nexus.admin
    session = client.open_session()
    sizes = []
    for turn in range(40):
        run_id = finished(client, script(say(f"Turn {turn:04d}.")), session)
        events = client.get(f"/api/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).text
        sizes.append(len(events))
    first, last = sum(sizes[2:7]) / 5, sum(sizes[-5:]) / 5
    print(f"note: bytes of events per turn: {first:.0f} at the start, {last:.0f} after {len(sizes)} turns")
    assert last < first * 1.1


def test_journals_of_earlier_builds_still_fold_and_replay(nexus):
    journals = sorted((pathlib.Path(__file__).parent.parent / "data" / "journals").glob("*.json"))
    assert len(journals) >= 10
    for path in journals:
        result = nexus.command("runs", "replay", str(path))
        assert result.returncode == 0, f"{path.name}: {result.stdout}"


def test_a_run_of_an_agent_that_is_a_workflow_replays(start):
    nexus = start({"agents": [{"name": "reviser", "workflow": "revise"}]})
    steps = [{"id": "m", "model": {"prompt": "${input.message}"}}, {"id": "t", "tool": "time", "input": {"operation": "now"}}]
    definition = {"name": "revise", "version": "1.0.0", "steps": steps, "output": "${steps.m.output.text}"}
    assert nexus.admin.put("/api/v1/workflows", json=definition).status_code in (200, 201)
    assert nexus.command("run", "--agent", "reviser", "--quiet", "two sentences about rain").returncode == 0
    for run in nexus.admin.get("/api/v1/runs").json()["items"]:
        report = nexus.admin.post(f"/api/v1/runs/{run['id']}/replay", {}).json()
        assert report.get("same"), (run["agent"], report)
