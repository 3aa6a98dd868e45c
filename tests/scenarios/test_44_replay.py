"""A recorded run: replayed to the same bytes, forked, compared, exported as a test, kept in linear space."""

import json
import pathlib

from harness.client import problem
from harness.provider import FakeProvider, Text, ToolCalls
from harness.scripts import call, say, script
from harness.tools import DANGEROUS, tools_with_a_dangerous_one


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
    assert report["same"] is True, json.dumps(report["differences"][:3], indent=1)
    assert report["compared"] > 8 and report["model_calls"] == 2 and report["tool_calls"] == 1
    document = client.get(f"/api/v1/runs/{run_id}/export").json()
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
    assert nexus.admin.post(f"/api/v1/runs/{run_id}/replay").json()["same"] is True


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
    report = client.post(f"/api/v1/runs/{fork['run_id']}/replay").json()
    assert report["same"] is True, json.dumps(report["differences"][:3], indent=1)


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
    for run_id in (child["id"], done.id):
        report = nexus.admin.post(f"/api/v1/runs/{run_id}/replay").json()
        assert report["same"] is True, json.dumps(report["differences"][:3], indent=1)
    assert len(provider.calls) == asked  # nobody was asked


def test_a_run_that_waited_for_an_approval_replays(start, tmp_path):
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}})
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    run_id = alice.send(alice.open_session(), script(call(DANGEROUS, operation="upper", text="abc"), say("It is done.")))
    alice.wait(run_id, "waiting")
    [approval] = bob.get("/api/v1/approvals?status=pending").json()["items"]
    bob.post(f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
    assert alice.wait(run_id, "completed")["status"] == "completed"
    report = alice.post(f"/api/v1/runs/{run_id}/replay").json()
    assert report["same"] is True, json.dumps(report["differences"][:3], indent=1)


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
