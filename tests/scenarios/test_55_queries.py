"""What stands behind the "?": unknown parameters are refused and told, lists are narrowed by what they say, ids in paths are any text."""

import json
import urllib.parse

import pytest
from harness.client import problem
from harness.provider import FakeProvider, Text

GREET = """
name: greet
version: 1.0.0
description: greets
steps:
  - wait_signal: {name: name, timeout: 1h}
    id: named
"""


def refused(reply, *told: str) -> None:
    assert problem(reply) == "invalid" and reply.status_code == 400, reply.text
    for words in told:
        assert words in reply.json()["detail"], reply.text


def ids(reply) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [item["id"] for item in reply.json()["items"]]


# ---- the API ----

def test_an_unknown_parameter_is_refused_with_what_there_is(nexus):
    refused(nexus.admin.get("/api/v1/runs?state=running"), '"state"', 'did you mean "status"?', "limit, cursor, session_id, status, agent, workflow")
    refused(nexus.admin.get("/api/v1/me?verbose=1"), '"verbose"', "takes none")
    refused(nexus.admin.get("/api/v1/approvals?status=open"), "pending, approved, denied, expired or consumed")
    refused(nexus.admin.post("/api/v1/sessions?agent=x", json={}), '"agent"')
    assert nexus.admin.get("/v1/models?anything=1").status_code == 200                 # its clients send what they like
    assert nexus.admin.get("/api/v1/runs?state=running", headers={"Authorization": "Bearer nxk_wrong"}).status_code == 401


def test_every_documented_parameter_is_taken_and_no_other(nexus):
    paths = nexus.admin.get("/api/openapi.json").json()["paths"]
    checked = 0
    for path, operations in paths.items():
        operation = operations.get("get")
        if not operation or not path.startswith("/api/v1/") or "{" in path or path.endswith("/callback"):
            continue
        refused(nexus.admin.get(f"{path}?zzzzzzzz=1"), '"zzzzzzzz"')
        for parameter in operation["parameters"]:
            if parameter["in"] == "query":
                reply = nexus.admin.get(f"{path}?{parameter['name']}=")
                assert "there is no parameter" not in reply.text, (path, parameter)
                checked += 1
    assert checked > 30


def test_runs_are_found_by_status_agent_workflow_and_session(start, provider: FakeProvider):
    provider.answer = lambda call: Text("done")
    nexus = start({"agents": [{"name": "clerk"}, {"name": "other"}]}, provider=provider)
    admin = nexus.admin
    clerk = admin.post("/api/v1/sessions", json={"agent": "clerk"}).json()["id"]
    other = admin.post("/api/v1/sessions", json={"agent": "other"}).json()["id"]
    of_clerk = [admin.ask("one", session=clerk).id for _ in range(3)]
    of_other = admin.ask("two", session=other).id
    put = admin.http.request("PUT", "/api/v1/workflows", content=GREET, headers={"Content-Type": "application/yaml"})
    assert put.status_code in (200, 201), put.text
    waiting = admin.post("/api/v1/workflows/greet/runs", json={}).json()["run_id"]
    newest_first = list(reversed(of_clerk))
    assert ids(admin.get("/api/v1/runs?agent=clerk")) == newest_first
    assert ids(admin.get("/api/v1/runs?agent=clerk&status=completed")) == newest_first
    assert ids(admin.get("/api/v1/runs?agent=clerk&status=failed")) == []
    assert ids(admin.get(f"/api/v1/runs?session_id={other}")) == [of_other]
    assert ids(admin.get(f"/api/v1/runs?session_id={clerk}&status=completed")) == newest_first
    assert ids(admin.get(f"/api/v1/runs?session_id={clerk}&status=running")) == []
    for workflow in ("greet", "greet@1.0.0"):
        assert ids(admin.get(f"/api/v1/runs?workflow={workflow}")) == [waiting]
    assert ids(admin.get("/api/v1/runs?workflow=gree")) == []
    found, cursor = [], ""
    while True:                                                                       # page by page
        page = admin.get(f"/api/v1/runs?agent=clerk&limit=2{cursor}").json()
        found += [item["id"] for item in page["items"]]
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={urllib.parse.quote(page['next_cursor'])}"
    assert found == newest_first
    shown = nexus.command("runs", "list", "--agent", "clerk", "--status", "completed", "--json")
    assert [item["id"] for item in json.loads(shown.stdout)["items"]] == newest_first, shown.stderr
    shown = nexus.command("runs", "list", "--workflow", "greet", "--json")
    assert [item["id"] for item in json.loads(shown.stdout)["items"]] == [waiting], shown.stderr
    wrong = nexus.command("runs", "list", "--status", "done")
    assert wrong.returncode == 2 and "pending, running, waiting, completed, failed or cancelled" in wrong.stderr
    wrong = nexus.command("workflow", "show", "greet")
    assert wrong.returncode == 2 and "greet" in wrong.stderr and "is a definition" in wrong.stderr, wrong.stderr
    assert "nexus workflow list greet" in wrong.stderr and "nexus runs list --workflow greet" in wrong.stderr


def test_sessions_are_found_by_status(nexus):
    made = [nexus.admin.post("/api/v1/sessions", json={}).json()["id"] for _ in range(4)]
    assert nexus.admin.post(f"/api/v1/sessions/{made[1]}/pause").status_code == 200
    assert nexus.admin.delete(f"/api/v1/sessions/{made[2]}").status_code == 204
    for status, wanted in (("active", [made[3], made[0]]), ("paused", [made[1]]), ("closed", [made[2]]), ("expired", [])):
        assert ids(nexus.admin.get(f"/api/v1/sessions?status={status}")) == wanted, status
        shown = nexus.command("session", "list", "--status", status, "--json")
        assert [item["id"] for item in json.loads(shown.stdout)["items"]] == wanted, shown.stderr
    first = nexus.admin.get("/api/v1/sessions?status=active&limit=1").json()
    rest = nexus.admin.get("/api/v1/sessions", params={"status": "active", "limit": 1, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == [made[3], made[0]]
    refused(nexus.admin.get("/api/v1/sessions?status=open"), "active, paused, closed or expired")


# ---- the command line ----

@pytest.mark.parametrize("words", [
    ("workflow", "show", "x y/ä"), ("run", "hello", "--session", "x y/ä"), ("runs", "show", "x y/ä"), ("runs", "events", "x y/ä"),
    ("session", "show", "x y/ä"), ("memory", "forget", "x y/ä"), ("workflow", "show", "x y/ä", "--follow"),
])
def test_an_id_is_any_text_and_comes_back_as_it_was_given(nexus, words):
    ended = nexus.command(*words)
    assert ended.returncode not in (0, 70) and "x y/ä" in ended.stderr and "%20" not in ended.stderr, (ended.returncode, ended.stderr)


def test_lists_of_the_command_line_go_on_working(nexus):
    session = nexus.admin.post("/api/v1/sessions", json={}).json()["id"]
    for words in (("tool", "list"), ("mcp", "list"), ("workflow", "list"), ("workflow", "list", "greet"), ("session", "files", "list", session),
                  ("session", "messages", session), ("schedule", "list"), ("webhook", "list"), ("webhook", "endpoint", "list"), ("approval", "list"),
                  ("webhook", "deliveries"), ("key", "list"), ("audit", "list"), ("usage",), ("usage", "calls"), ("runs", "list", "--all"),
                  ("tool", "search", "http"), ("tool", "top"), ("approval", "delegations"), ("budget", "ledger", "tenant", "self")):
        ended = nexus.command(*words)
        assert "there is no parameter" not in ended.stderr, (words, ended.stderr)
        assert ended.returncode == 0 or "no such command" in ended.stderr, (words, ended.stderr)


def test_a_wrong_level_of_the_ledger_is_told_all_levels(nexus):
    ended = nexus.command("budget", "ledger", "team", "x")
    assert ended.returncode == 2 and "run, session, key, user or tenant" in ended.stderr, ended.stderr
    told = nexus.admin.get("/api/v1/budgets/team/x/ledger")
    assert told.status_code == 404 and "run, session, key, user and tenant" in told.json()["detail"], told.text
