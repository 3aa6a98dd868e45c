"""Backtests: what the recorded traffic would have been denied, cost, been routed to or filtered, with nothing changed."""

import json

from harness.scripts import call, say, script

NO_TOOLS = """
package nexus.agent.policy

import rego.v1

default allow := false

allow if input.action in {"run.start", "model.call"}
"""


def traffic(client) -> list:
    runs = []
    for text in (script(call("text_processing", operation="upper", text="abc"), say("Done.")), script(say("My address is ada@example.com."))):
        run_id = client.send(client.open_session(), text)
        client.wait(run_id, "completed")
        runs.append(run_id)
    return runs


def test_a_stricter_policy_is_told_what_it_would_have_denied(nexus, tmp_path):
    client = nexus.admin
    runs = traffic(client)
    before = client.get(f"/api/v1/runs/{runs[0]}/events", headers={"Accept": "application/json"}).json()
    reply = client.post("/api/v1/backtests", {"policy": {"modules": [{"name": "strict.rego", "source": NO_TOOLS}]}})
    assert reply.status_code == 200, reply.text
    policy = reply.json()["policy"]
    assert policy["newly_denied"] >= 1 and policy["unanswered"] == 0 and policy["without_budget"] == 0
    assert any(line["action"] == "tool.call" and "allow -> deny" in line["change"] for line in policy["changes"])
    assert any(example["run_id"] == runs[0] for example in policy["examples"])
    assert client.get(f"/api/v1/runs/{runs[0]}/events", headers={"Accept": "application/json"}).json() == before
    (tmp_path / "strict.rego").write_text(NO_TOOLS)
    result = nexus.command("backtest", "--policy", str(tmp_path), "--since", "1h")
    assert result.returncode == 0 and "would now be denied" in result.stdout, result.stdout + result.stderr


def test_the_policy_in_force_changes_nothing(nexus):
    client = nexus.admin
    traffic(client)
    modules = [{"name": module["name"], "source": module["source"]} for module in client.get("/api/v1/policies/rules").json()["modules"]]
    policy = client.post("/api/v1/backtests", {"policy": {"modules": modules}}).json()["policy"]
    assert policy["decisions"] == policy["same"] > 0, json.dumps(policy["changes"])


def test_a_broken_policy_is_refused_with_its_place(nexus):
    reply = nexus.admin.post("/api/v1/backtests", {"policy": {"modules": [{"name": "broken.rego", "source": "package nexus.agent.policy\nallow if {"}]}})
    assert reply.status_code == 400 and "broken.rego" in reply.json()["detail"]


def test_a_filter_is_told_what_it_would_have_masked_and_never_what_it_said(nexus):
    client = nexus.admin
    traffic(client)
    report = client.post("/api/v1/backtests", {"filter": {"pii": "mask"}})
    assert report.status_code == 200, report.text
    found = report.json()["filter"]
    assert found["masked"] >= 1 and any(line["group"] == "pii" for line in found["rules"])
    assert "ada@example.com" not in report.text


def test_a_router_is_told_where_calls_would_have_gone(nexus):
    client = nexus.admin
    runs = traffic(client)
    model = client.run(runs[0])["model"]
    targets = [{"provider": "one", "model": "m", "weight": 3}, {"provider": "two", "model": "m", "weight": 1}]
    router = client.post("/api/v1/backtests", {"router": {"models": [{"name": model, "targets": targets}]}}).json()["router"]
    assert router["routed"] >= 3
    assert sum(line["calls"] for line in router["moves"]) == router["routed"]


def test_only_an_admin_may_and_nothing_to_try_is_an_error(nexus):
    assert nexus.user("alice").post("/api/v1/backtests", {"filter": {"pii": "mask"}}).status_code == 403
    assert nexus.admin.post("/api/v1/backtests", {}).status_code in (400, 422)
