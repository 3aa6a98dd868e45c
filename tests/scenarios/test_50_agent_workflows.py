"""Agents that are workflows: asked over every API, called by other agents; workflows in a process of their own, without a server."""

import json
import os
import pty
import select
import subprocess
import time

import httpx
import pytest
import yaml
from harness.provider import FakeProvider, Text, ToolCalls
from harness.server import BINARY, OFFLINE, ROOT, clean_environment, run_command, toolbox
from openai import OpenAI

PLAN = """
name: plan
version: 1.0.0
input: {type: object, required: [message], properties: {message: {type: string, minLength: 3}}}
output: {answer: "${steps.say.output.text}", upper: "${steps.shout.output.text}"}
steps:
  - {id: shout, tool: text_processing, input: {operation: upper, text: "${input.message}"}}
  - {id: say, model: {prompt: "PLAN ${steps.shout.output.text}"}}
"""
GATE = """
name: gate
version: 1.0.0
output: "paid for ${input.message}"
steps:
  - {id: ok, approval: {title: "Pay for ${input.message}?", show: {what: "${input.message}"}}}
"""
NAP = """
name: nap
version: 1.0.0
output: "slept"
steps:
  - {id: s, sleep: "${duration(input.message)}"}
"""
AGENTS = [
    {"name": "planner", "workflow": "plan@^1", "description": "It plans."},
    {"name": "gate", "workflow": "gate"},
    {"name": "nap", "workflow": "nap"},
    {"name": "narrow", "workflow": "plan", "tools": ["time"]},
    {"name": "lost", "workflow": "nowhere"},
    {"name": "lead", "instructions": "You are LEAD.", "tools": [],
     "agents": ["planner", {"name": "planner2", "as": "handoff"}]},
    {"name": "planner2", "workflow": "plan"},
]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "workflows"
    made.mkdir()
    for text in (PLAN, GATE, NAP):
        (made / f"{yaml.safe_load(text)['name']}.yaml").write_text(text)
    return made


@pytest.fixture
def nexus(start, provider: FakeProvider, folder):
    def answer(call):
        if call.last_user_text.startswith("PLAN"):
            return Text(f"first {call.last_user_text[5:].lower()}")
        if call.tool_results:
            return Text("so be it")
        name = "handoff_planner2" if "hand" in call.last_user_text else "agent_planner"
        return ToolCalls([(name, {"message": "the rocket"})])
    provider.answer = answer
    return start({"agents": AGENTS, "workflows": {"dir": str(folder)}}, provider=provider)


def said(done) -> str:
    assert done.status == "completed", done.run
    return done.of("run.completed")[-1]["data"]["content"]


def test_a_message_to_such_an_agent_is_an_instance(nexus):
    session = nexus.admin.open_session(agent="planner")
    done = nexus.admin.ask("the moon", session=session)
    assert said(done) == "first the moon"
    assert done.run["agent"] == "planner"
    started = done.of("run.started")[0]["data"]
    assert started["workflow"]["name"] == "plan" and started["workflow"]["takes_message"] is True
    parts = done.of("run.completed")[0]["data"]["parts"]
    assert parts["output"] == {"answer": "first the moon", "upper": "THE MOON"}
    steps = nexus.admin.get(f"/api/v1/runs/{done.id}/steps").json()["steps"]
    assert [s["step"] for s in steps] == ["shout", "say"]
    assert said(nexus.admin.ask("the sun", session=session)) == "first the sun", "each message is an instance of its own"


def test_every_dialect_gets_its_answer(nexus):
    with OpenAI(base_url=nexus.url + "/v1", api_key=nexus.admin_key, max_retries=0) as sdk:
        question = [{"role": "user", "content": "the moon"}]
        whole = sdk.chat.completions.create(model="agent:planner", messages=question)
        assert whole.choices[0].message.content == "first the moon"
        chunks = list(sdk.chat.completions.create(model="agent:planner", messages=question, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "first the moon"
        assert sdk.responses.create(model="agent:planner", input="the moon").output_text == "first the moon"
    reply = nexus.admin.post("/v1/messages", {"model": "agent:planner", "max_tokens": 100, "messages": question})
    assert reply.json()["content"][0]["text"] == "first the moon", reply.text


def test_another_agent_calls_it_and_hands_over_to_it(nexus):
    done = nexus.admin.ask("what now?", session=nexus.admin.open_session(agent="lead"))
    assert said(done) == "so be it"
    assert done.tool_outputs("agent_planner") == [{"agent": "planner", "answer": "first the rocket"}]
    [child] = nexus.admin.get(f"/api/v1/runs/{done.id}/children").json()["items"]
    assert child["agent"] == "planner" and child["depth"] == 1
    handed = nexus.admin.ask("hand it over", session=nexus.admin.open_session(agent="lead"))
    assert said(handed) == "first the rocket"


def test_what_it_does_not_take_is_refused(nexus):
    opened = nexus.admin.open_session(agent="planner")
    short = nexus.admin.post(f"/api/v1/sessions/{opened}/messages", {"content": "x"})
    assert short.status_code == 422 and "input" in short.json()["detail"], short.text
    lost = nexus.admin.post("/api/v1/sessions", {"agent": "lost"})
    assert lost.status_code == 404 and "nowhere" in lost.json()["detail"], lost.text
    body = {"model": "agent:planner", "messages": [{"role": "user", "content": "the moon"}]}
    tools = [{"type": "function", "function": {"name": "mine", "parameters": {"type": "object", "properties": {}}}}]
    assert nexus.admin.post("/v1/chat/completions", {**body, "tools": tools}).status_code == 400
    narrow = nexus.admin.ask("the moon", session=nexus.admin.open_session(agent="narrow"))
    assert narrow.status == "failed" and "text_processing" in narrow.run["error"]["message"], narrow.run


def test_its_approval_is_another_persons(nexus):
    ada, bob = nexus.user("ada"), nexus.user("bob", "operator")
    body = {"model": "agent:gate", "messages": [{"role": "user", "content": "the moon"}]}
    reply = ada.post("/v1/chat/completions", body)
    assert reply.status_code == 200 and reply.headers["Nexus-Status"] == "waiting", reply.text
    run = reply.headers["Nexus-Run-Id"]
    [approval] = bob.get("/api/v1/approvals?status=pending").json()["items"]
    assert approval["subject"]["title"] == "Pay for the moon?"
    decision = {"decision": "approve", "digest": approval["digest"]}
    assert ada.post(f"/api/v1/approvals/{approval['id']}", decision).status_code == 403
    assert bob.post(f"/api/v1/approvals/{approval['id']}", decision).status_code == 200
    assert said(ada.outcome(run, "completed")) == "paid for the moon"


def test_a_short_sleep_is_waited_for_and_a_long_one_is_told(nexus):
    body = {"model": "agent:nap", "messages": [{"role": "user", "content": "4s"}]}
    reply = nexus.admin.post("/v1/chat/completions", body)
    assert reply.json()["choices"][0]["message"]["content"] == "slept", reply.text
    body["messages"][0]["content"] = "3h"
    reply = nexus.admin.post("/v1/chat/completions", body)
    assert reply.headers["Nexus-Status"] == "waiting"
    assert "waits until 20" in reply.json()["choices"][0]["message"]["content"], reply.text


def test_doctor_and_the_list_of_agents_tell_of_its_workflow(nexus):
    agent = nexus.admin.get("/api/v1/agents/planner").json()
    assert agent["workflow"] == "plan@^1"
    done = nexus.command("doctor", "--config", str(nexus.config_file))
    assert "agent lost: no folder has the workflow nowhere" in done.stdout, done.stdout
    nexus.wait_for_log("an agent's workflow is in no folder")


@pytest.mark.parametrize("point", ["run_start.after:1", "workflow_step.after:1", "workflow_end.before:1", "workflow_end.after:1"])
def test_a_crash_loses_nothing_of_it(needs_fault_points, start, provider, folder, point):
    provider.answer = lambda call: Text("first it")
    nexus = start({"agents": AGENTS, "workflows": {"dir": str(folder)}}, provider=provider, is_dev=True)
    session = nexus.admin.open_session(agent="planner")
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    try:
        nexus.admin.post(f"/api/v1/sessions/{session}/messages", {"content": "the moon"})
    except httpx.HTTPError:
        pass
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    [run] = [item for item in nexus.admin.get("/api/v1/runs").json()["items"] if item["agent"] == "planner"]
    assert said(nexus.admin.outcome(run["id"], "completed")) == "first it"


# ---- without a server ----

CONFIG = {**OFFLINE, "tools": {"dir": str(toolbox())}, "policy": {"dir": str(ROOT / "policies")}}


def alone(folder, *arguments: str) -> subprocess.CompletedProcess:
    (folder / "nexus.yaml").write_text(yaml.safe_dump(CONFIG))
    return run_command(folder, "workflow", "run", *arguments, "--config", "nexus.yaml")


def test_a_file_runs_without_a_server(folder):
    (folder / "add.yaml").write_text("name: add\nversion: 1.0.0\noutput: {sum: '${input.a + input.b}'}\n"
                                     "steps: [{id: s, tool: text_processing, input: {operation: upper, text: ok}}]\n")
    done = alone(folder, "add.yaml", "--input", '{"a": 1, "b": 2}')
    assert done.returncode == 0 and json.loads(done.stdout) == {"sum": 3}, (done.stdout, done.stderr)
    assert "run.step_completed" in done.stderr
    events = [json.loads(line) for line in alone(folder, "add.yaml", "--input", '{"a": 1, "b": 2}', "--json").stdout.splitlines()]
    assert events[0]["type"] == "run.started" and events[-1]["type"] == "run.completed"
    failed = alone(folder, "add.yaml", "--input", '{"a": 1}')
    assert failed.returncode == 1 and "failed" in failed.stderr, failed.stderr
    (folder / "bad.yaml").write_text("name: bad\nversion: 1.0.0\nsteps: [{id: s, tool: 7}]\n")
    assert alone(folder, "bad.yaml").returncode not in (0, 5)


def test_without_a_terminal_an_approval_ends_it(folder):
    done = alone(folder, "gate.yaml", "--input", '{"message": "the moon"}')
    assert done.returncode == 5 and "--data DIR" in done.stderr, (done.stdout, done.stderr)
    kept = alone(folder, "gate.yaml", "--input", '{"message": "the moon"}', "--data", str(folder / "data"))
    assert kept.returncode == 5 and "nexus serve --data" in kept.stderr, kept.stderr


@pytest.mark.parametrize("word, code", [("y", 0), ("n", 3)])
def test_at_a_terminal_it_asks(folder, word, code):
    (folder / "nexus.yaml").write_text(yaml.safe_dump(CONFIG))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(str(BINARY), [str(BINARY), "workflow", "run", "gate.yaml", "--config", "nexus.yaml",
                                "--input", '{"message": "the moon"}'], clean_environment(folder))
    seen, asked, deadline = "", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1)
        try:
            piece = os.read(terminal, 65536).decode(errors="replace") if ready else ""
        except OSError:  # the other side has ended
            break
        seen += piece
        if "Approve? [y/N]" in seen and not asked:
            asked = True
            os.write(terminal, f"{word}\n".encode())
    _, status = os.waitpid(pid, 0)
    assert asked and "Pay for the moon?" in seen, seen
    assert os.waitstatus_to_exitcode(status) == code, seen
    assert ("paid for the moon" in seen) == (word == "y")
