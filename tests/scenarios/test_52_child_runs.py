"""Child runs as whoever follows the parent sees them: approvals below it, what all of it cost; sub-workflows in files beside a file."""

import json
import subprocess

import pytest
import yaml
from harness.provider import FakeProvider, Text
from harness.server import OFFLINE, ROOT, clean_environment, run_command, toolbox

GATE = """
name: gate
version: 1.0.0
output: "paid"
steps:
  - {id: ok, approval: {title: "Pay?", show: {what: "the moon"}}}
"""
OUTER = """
name: outer
version: 1.0.0
steps:
  - {id: sub, workflow: {name: gate}}
"""
TALK = """
name: talk
version: 1.0.0
steps:
  - {id: once, model: {prompt: one}}
  - {id: again, model: {prompt: two}}
"""
AGENTS = [{"name": "assistant"}, {"name": "gatekeeper", "workflow": "outer"}, {"name": "talker", "workflow": "talk"}]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "workflows"
    made.mkdir()
    for text in (GATE, OUTER, TALK):
        (made / f"{yaml.safe_load(text)['name']}.yaml").write_text(text)
    return made


@pytest.fixture
def nexus(start, provider: FakeProvider, folder):
    provider.answer = lambda call: Text("something")
    return start({"agents": AGENTS, "workflows": {"dir": str(folder)}}, provider=provider)


def followed(nexus, *arguments: str):
    """A command that has to end by itself."""
    try:
        return nexus.command(*arguments, seconds=20)
    except subprocess.TimeoutExpired as hung:
        pytest.fail(f"nexus {' '.join(arguments)} told nothing for 20 s: {hung.stdout} {hung.stderr}")


def only_approval(nexus) -> dict:
    [approval] = nexus.admin.get("/api/v1/approvals?status=pending").json()["items"]
    return approval


def decide(person, approval: dict) -> None:
    decision = {"decision": "approve", "digest": approval["digest"]}
    reply = person.post(f"/api/v1/approvals/{approval['id']}", decision)
    assert reply.status_code == 200, reply.text


# ---- approvals below ----

def test_a_run_tells_which_approval_a_run_below_it_waits_for(nexus):
    ada, bob, eve = nexus.user("ada", "operator"), nexus.user("bob", "operator"), nexus.user("eve", "user")
    run = ada.post("/api/v1/workflows/outer/runs", {}).json()["run_id"]
    child = ada.wait_for_event(run, "run.child_started")["data"]["child_run_id"]
    ada.wait(child, "waiting")
    approval = only_approval(nexus)
    shown = ada.run(run)
    assert shown["status"] == "running"
    assert shown["waiting_on"] == [{"approval_id": approval["id"], "run_id": child}]
    assert ada.run(child)["waiting_on"] == shown["waiting_on"]
    assert eve.get(f"/api/v1/runs/{run}").status_code == 404
    decide(bob, approval)
    assert ada.wait(run, "completed")["waiting_on"] == []


@pytest.mark.parametrize("command", [("workflow", "run", "outer", "--wait", "--json"), ("run", "--agent", "gatekeeper", "go on"),
                                     ("run", "--agent", "gatekeeper", "--json", "go on")])
def test_a_command_that_follows_ends_at_an_approval_below(nexus, command):
    done = followed(nexus, *command)
    approval = only_approval(nexus)
    assert done.returncode == 5, (done.stdout, done.stderr)
    if "--json" in command:
        last = json.loads(done.stdout.splitlines()[-1])
        assert last == {"type": "waiting_on", "data": {"approval_id": approval["id"], "run_id": approval["run_id"]}}
    else:
        assert f"nexus approval approve {approval['id']}" in done.stderr, done.stderr


def test_one_that_waits_tells_it_and_goes_on(nexus):
    ada = nexus.user("ada", "operator")
    follower = subprocess.Popen([str(nexus.binary), "workflow", "run", "outer", "--wait"], stdin=subprocess.DEVNULL, cwd=nexus.folder,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=clean_environment(nexus.folder, {"NEXUS_SERVER": nexus.url, "NEXUS_API_KEY": ada.key}))
    line = ""
    while "nexus approval show" not in line:
        line = follower.stderr.readline()
        assert line, "it ended before it told of the approval"
    approval = only_approval(nexus)
    assert approval["id"] in line and approval["run_id"] in line
    decide(nexus.user("bob", "operator"), approval)
    assert follower.wait(20) == 0 and "paid" in follower.stdout.read()


def test_events_of_such_a_run_end_there_too(nexus):
    run = nexus.admin.post("/api/v1/workflows/outer/runs", {}).json()["run_id"]
    done = followed(nexus, "runs", "events", run)
    assert done.returncode == 5 and f"nexus approval approve {only_approval(nexus)['id']}" in done.stderr, done.stderr


# ---- what it cost ----

def test_the_cost_of_a_run_is_told_with_that_of_the_runs_below(nexus):
    done = followed(nexus, "run", "--agent", "talker", "go on")
    assert done.returncode == 0
    [run] = [r for r in nexus.admin.get("/api/v1/runs").json()["items"] if r["agent"] == "talker"]
    shown = nexus.admin.run(run["id"])
    below = nexus.admin.get(f"/api/v1/runs/{run['id']}/children").json()["items"]
    assert len(below) == 2 and shown["children"] == 2 and shown["cost"]["tokens"] == 0
    assert shown["cost_total"]["tokens"] == sum(child["cost"]["tokens"] for child in below) > 0
    assert nexus.admin.budget(run["session_id"])["spent"]["tokens"] == shown["cost_total"]["tokens"]
    [cost] = [line for line in done.stderr.splitlines() if line.startswith("cost")]
    assert f"{shown['cost_total']['tokens']} tokens" in cost, done.stderr


def test_a_fork_tells_what_it_goes_on_from(nexus):
    client = nexus.admin
    first = client.ask("hello")
    assert client.run(first.id)["forked_from"] is None and client.run(first.id)["forked_at"] is None
    fork = client.post(f"/api/v1/runs/{first.id}/fork", {"at": 3, "message": "something else"})
    assert fork.status_code < 300, fork.text
    shown = client.run(fork.json()["run_id"])
    assert shown["forked_from"] == first.id and shown["forked_at"] == 3


# ---- definitions ----

def test_an_input_schema_that_is_none_is_refused_before_it_is_stored(nexus, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nversion: 1.0.0\ninput:\n  type: object\n  properties:\n    n: {type: objekt}\n"
                   "steps: [{id: s, sleep: 0s}]\n")
    checked = run_command(tmp_path, "workflow", "validate", str(bad))
    assert checked.returncode == 2 and f"{bad}:6: input.properties.n.type: " in checked.stderr, checked.stderr
    put = nexus.command("workflow", "put", str(bad))
    assert put.returncode == 2 and "input.properties.n.type" in put.stderr, put.stderr


def test_a_folder_of_definitions_is_checked_as_a_whole(folder):
    checked = run_command(folder.parent, "workflow", "validate", "workflows")
    assert checked.returncode == 0 and [line.split(":")[0] for line in checked.stdout.splitlines()] == [
        "workflows/gate.yaml", "workflows/outer.yaml", "workflows/talk.yaml"]
    (folder / "long.yaml").write_text("name: long\nversion: 1.0.0\nsteps:\n" + "".join(f"  - {{id: s{i}, sleep: 0s}}\n" for i in range(1001)))
    (folder / "none.yaml").write_text("name: none\nversion: 1.0.0\n")
    checked = run_command(folder.parent, "workflow", "validate", "workflows")
    assert checked.returncode == 2 and checked.stderr.splitlines() == [
        "workflows/long.yaml:3: steps: more than 1000 steps in all; use workflow steps",
        "workflows/none.yaml:1: steps: is missing; add \"steps\""]


# ---- without a server ----

CONFIG = {**OFFLINE, "tools": {"dir": str(toolbox())}, "policy": {"dir": str(ROOT / "policies")}}


def alone(folder, *arguments: str):
    (folder / "nexus.yaml").write_text(yaml.safe_dump(CONFIG))
    return run_command(folder, "workflow", "run", *arguments, "--config", "nexus.yaml")


def test_sub_workflows_lie_beside_the_file(folder):
    (folder / "deep.yaml").write_text("name: deep\nversion: 1.0.0\noutput: found\nsteps: [{id: s, sleep: 0s}]\n")
    (folder / "middle.yaml").write_text("name: middle\nversion: 1.0.0\nsteps: [{id: m, workflow: {name: deep}}]\n")
    (folder / "top.yaml").write_text("name: top\nversion: 1.0.0\nsteps:\n  - id: each\n    map: {over: '${range(2)}', output: '${steps.s.output}',"
                                     " steps: [{id: s, workflow: {name: middle}}]}\n")
    done = alone(folder.parent, "workflows/top.yaml")
    assert done.returncode == 0 and json.loads(done.stdout) == ["found", "found"], (done.stdout, done.stderr)
    (folder / "deep.yaml").write_text("name: other\nversion: 1.0.0\nsteps: [{id: s, sleep: 0s}]\n")
    named = alone(folder.parent, "workflows/top.yaml")
    assert named.returncode == 2 and "deep.yaml" in named.stderr and "other" in named.stderr, named.stderr
    asked = alone(folder, "outer.yaml")
    assert asked.returncode == 5 and "It waits for an approval" in asked.stderr, asked.stderr
