"""Agents that work together: one calls another as a tool, asks many at once, hands over, is cancelled, and survives a crash."""

import time

import pytest

from harness.books import Books
from harness.provider import FakeProvider, Text, ToolCalls
from harness.server import OFFLINE

AGENTS = [
    {"name": "lead", "instructions": "You are LEAD.", "tools": [],
     "agents": ["researcher", {"name": "writer", "as": "handoff", "sticky": True, "description": "It writes the final text."}]},
    {"name": "researcher", "description": "It looks things up.", "instructions": "You are RESEARCHER.", "tools": ["http_request"]},
    {"name": "writer", "instructions": "You are WRITER.", "tools": []},
    {"name": "echo", "description": "It asks itself.", "instructions": "You are ECHO.", "tools": [], "agents": ["echo"]},
    {"name": "miser", "instructions": "You are LEAD.", "tools": [],
     "agents": [{"name": "researcher", "budget": {"tokens": 30}}]},
]


def who(call) -> str:
    return call.body["messages"][0]["content"].split("You are ")[1].split(".")[0]


def start_with(start, provider, answer):
    provider.answer = answer
    return start({"agents": AGENTS}, provider=provider)


def said(done) -> str:
    """The run's answer, whoever gave it."""
    assert done.status == "completed", done.run
    return done.of("run.completed")[0]["data"]["content"]


def children(nexus, run: str) -> list[dict]:
    reply = nexus.admin.get(f"/api/v1/runs/{run}/children")
    assert reply.status_code == 200, reply.text
    return reply.json()["items"]


def ask(nexus, agent: str, text: str, seconds: float = 30, **session):
    opened = nexus.admin.open_session(agent=agent, **session)
    return opened, nexus.admin.ask(text, session=opened, seconds=seconds)


def test_an_agent_calls_another_as_a_tool(start, provider: FakeProvider):
    def answer(call):
        if who(call) == "RESEARCHER":
            return Text("12 degrees")
        if call.tool_results:
            return Text("It was 12 degrees.")
        return ToolCalls([("agent_researcher", {"message": "How warm was it?", "context": "in Oslo, today"})])

    nexus = start_with(start, provider, answer)
    _, done = ask(nexus, "lead", "how warm was it in Oslo?")
    assert said(done) == "It was 12 degrees."
    asked = [call for call in provider.calls if who(call) == "RESEARCHER"]
    assert len(asked) == 1 and asked[0].last_user_text == "How warm was it?\n\nin Oslo, today"
    [child] = children(nexus, done.id)
    assert child["parent_run_id"] == done.id and child["depth"] == 1 and child["agent"] == "researcher"
    assert nexus.admin.run(done.id)["children"] == 1
    assert done.tool_outputs("agent_researcher") == [{"agent": "researcher", "answer": "12 degrees"}]
    started = done.of("run.child_started")[0]["data"]
    assert started["child_run_id"] == child["id"] and started["purpose"] == "tool"
    assert done.of("run.child_completed")[0]["data"]["status"] == "completed"
    listed = [item["id"] for item in nexus.admin.get("/api/v1/sessions").json()["items"]]
    assert started["session_id"] not in listed


def test_readers_of_a_run_are_told_of_the_agents_it_calls(start, provider: FakeProvider):
    def answer(call):
        if who(call) == "RESEARCHER":
            return Text("found", delay=0.2)
        return Text("done") if call.tool_results else ToolCalls([("agent_researcher", {"message": "look"})])

    nexus = start_with(start, provider, answer)
    session = nexus.admin.open_session(agent="lead")
    run = nexus.admin.send(session, "go")
    kinds = [event.type for event in nexus.admin.stream(run).read_all()]
    assert kinds.index("run.child_started") < kinds.index("tool.intended") < kinds.index("run.child_completed")
    assert kinds.index("run.child_completed") < kinds.index("tool.completed") < kinds.index("run.completed")


def test_eight_at_once_share_what_is_left(start, provider: FakeProvider):
    def answer(call):
        if who(call) == "RESEARCHER":
            return Text("a part", delay=0.5)
        if call.tool_results:
            return Text(f"{len(call.tool_results)} parts")
        return ToolCalls([("agent_researcher", {"message": f"part {i}"}) for i in range(8)])

    nexus = start_with(start, provider, answer)
    begun = time.monotonic()
    session, done = ask(nexus, "lead", "all of it", budget={"tokens": 60000})
    took = time.monotonic() - begun
    assert said(done) == "8 parts"
    assert took < 6, "they did not run beside each other"
    runs = children(nexus, done.id)
    assert len(runs) == 8
    assert all(0 < run["budget"]["tokens"] <= 60000 // 9 for run in runs)
    assert all(run["cost"]["tokens"] <= run["budget"]["tokens"] for run in runs)
    spent = nexus.admin.budget(session)["spent"]["tokens"]
    assert spent == nexus.admin.run(done.id)["cost"]["tokens"] + sum(run["cost"]["tokens"] for run in runs)


def test_an_agent_over_its_budget_is_told_to_its_caller(start, provider: FakeProvider):
    def answer(call):
        if call.tool_results:
            return Text("without it then" if "over_budget" in call.tool_results[0]["content"] else "?")
        return ToolCalls([("agent_researcher", {"message": "look"})])

    nexus = start_with(start, provider, answer)
    _, done = ask(nexus, "miser", "look it up")
    assert said(done) == "without it then"
    assert children(nexus, done.id)[0]["error"]["type"] == "over_budget"


def test_a_handoff_gives_the_run_and_the_session_away(start, provider: FakeProvider):
    def answer(call):
        if who(call) == "WRITER":
            return Text(f"Once upon a time ({sum(m['role'] == 'user' for m in call.body['messages'])})")
        return ToolCalls([("handoff_writer", {"message": "write the story"})])

    nexus = start_with(start, provider, answer)
    session, done = ask(nexus, "lead", "tell me a story")
    assert said(done) == "Once upon a time (2)"
    writer = [call for call in provider.calls if who(call) == "WRITER"][0]
    assert [m["content"] for m in writer.body["messages"] if m["role"] == "user"] == ["tell me a story", "write the story"]
    again = nexus.admin.ask("and then?", session=session)
    assert again.run["agent"] == "writer" and said(again).startswith("Once upon a time")
    assert nexus.admin.get(f"/api/v1/sessions/{session}").json()["agent"] == "writer"


def test_agents_that_call_each_other_end_at_the_depth_limit(start, provider: FakeProvider):
    def answer(call):
        if not call.tool_results:
            return ToolCalls([("agent_echo", {"message": "again"})])
        return Text("too deep" if "deep at most" in call.tool_results[0]["content"] else "back")

    nexus = start_with(start, provider, answer)
    _, done = ask(nexus, "echo", "go")
    assert said(done) == "back"
    run, depth = done.id, 0
    while below := children(nexus, run):
        run, depth = below[0]["id"], depth + 1
    assert depth == 4 and said(nexus.admin.outcome(run)) == "too deep"


def test_a_cancel_reaches_every_agent_within_a_second(start, provider: FakeProvider):
    def answer(call):
        if who(call) == "RESEARCHER":
            return Text("never", delay=30)
        return ToolCalls([("agent_researcher", {"message": f"part {i}"}) for i in range(8)])

    nexus = start_with(start, provider, answer)
    session = nexus.admin.open_session(agent="lead")
    run = nexus.admin.send(session, "go")
    deadline = time.monotonic() + 20
    while sum(who(call) == "RESEARCHER" for call in provider.calls) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    begun = time.monotonic()
    assert nexus.admin.post(f"/api/v1/runs/{run}/cancel").status_code == 202
    nexus.admin.wait(run, "cancelled", seconds=10)
    took = time.monotonic() - begun
    assert took < 3, f"it took {took:.2f} s"
    assert [child["status"] for child in children(nexus, run)] == ["cancelled"] * 8


@pytest.mark.parametrize("after", [0.1, 0.5, 1.2])
def test_a_kill_in_the_middle_begins_no_agent_twice(start, provider: FakeProvider, after):
    def answer(call):
        if who(call) == "RESEARCHER":
            return Text(f"{call.last_user_text} done", delay=0.4 + 0.1 * int(call.last_user_text[-1]))
        if call.tool_results:
            return Text(" ".join(sorted(result["content"].split('"answer":"')[1][:11] for result in call.tool_results)))
        return ToolCalls([("agent_researcher", {"message": f"part {i}"}) for i in range(8)])

    nexus = start_with(start, provider, answer)
    session = nexus.admin.open_session(agent="lead")
    run = nexus.admin.send(session, "go")
    nexus.admin.wait_for_event(run, "tool.intended")
    time.sleep(after)
    nexus.kill()
    nexus.start()
    done = nexus.admin.outcome(run, seconds=60)
    assert said(done) == " ".join(f"part {i} done" for i in range(8))
    runs = children(nexus, run)
    assert len(runs) == 8 and all(child["status"] == "completed" for child in runs)
    assert len(done.of("run.child_started")) == len(done.of("run.child_completed")) == 8
    nexus.terminate()
    Books(nexus.data).check()


def test_what_an_agent_has_seen_labels_its_answer(start, provider: FakeProvider, upstream):
    def answer(call):
        if who(call) == "RESEARCHER":
            return Text("read it") if call.tool_results else ToolCalls([("http_request", {"method": "GET", "url": upstream.url + "/page"})])
        return Text("done") if call.tool_results else ToolCalls([("agent_researcher", {"message": "read the page"})])

    provider.answer = answer
    nexus = start({"agents": AGENTS, **upstream.config()}, provider=provider)
    _, done = ask(nexus, "lead", "read it")
    label = done.of("tool.completed")[0]["data"]["label"]
    assert said(done) == "done" and label["untrusted"] and {"agent", "web"} <= set(label["origins"])
    assert done.of("model.completed")[-1]["data"]["label"]["untrusted"]


def test_the_policy_may_forbid_an_agent(start, provider: FakeProvider, tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    folder.joinpath("own.rego").write_text(
        "package nexus.agent.policy\nimport rego.v1\ndefault allow := false\n"
        'allow if input.action in {"run.start", "model.call"}\n'
        'allow if { input.action == "tool.call"; input.tool.category == "agent"; input.tool.name != "agent:researcher" }\n')
    provider.answer = lambda call: Text(" ".join(sorted(t["function"]["name"] for t in call.body.get("tools", []))))
    nexus = start({"agents": AGENTS, "policy": {"dir": str(folder)}}, provider=provider)
    _, done = ask(nexus, "lead", "what may you call?")
    assert said(done) == "handoff_writer"


@pytest.mark.parametrize("agents, told", [
    ([{"name": "a", "agents": ["nobody"]}], "there is no agent"),
    ([{"name": "a", "agents": [{"name": "a", "as": "friend"}]}], "as is tool or handoff"),
    ([{"name": "a", "agents": [{"name": "a", "sticky": True}]}], "only a handoff can be sticky"),
    ([{"name": "a", "agents": [{"name": "a", "budget": {"tokens": 0}}]}], "budget.tokens"),
    ([{"name": "a", "agents": [{"name": "a", "bugdet": 1}]}], "unknown setting"),
])
def test_a_wrong_configuration_says_what_is_wrong(start, agents, told):
    nexus = start()
    nexus.write_config({"agents": agents, **OFFLINE})
    ended = nexus.command("config", "check", "--config", str(nexus.config_file))
    assert ended.returncode != 0 and told in ended.stdout + ended.stderr
