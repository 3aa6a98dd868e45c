"""Approvals: another person says yes to exactly these arguments, once; until then the run waits, whatever happens."""

import time

import pytest

from harness.client import problem
from harness.scripts import call, say, script
from harness.tools import DANGEROUS, tools_with_a_dangerous_one

STRICT_POLICY = """
package nexus.agent.policy

import rego.v1

default allow := false

allow if input.action in {"run.start", "model.call"}

allow if {
    input.tool.category == "system"
    input.approval.status == "approved"
    input.approval.approver != input.user.id
}
"""


def dangerous(text: str = "everything") -> str:
    return script(call(DANGEROUS, operation="upper", text=text), say("It is done."))


@pytest.fixture
def nexus(start, tmp_path):
    return start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}})


def waiting_run(client) -> str:
    run_id = client.send(client.open_session(), dangerous())
    assert client.wait(run_id, "waiting")["status"] == "waiting"
    return run_id


def pending(client) -> dict:
    [approval] = client.get("/api/v1/approvals?status=pending").json()["items"]
    return approval


def decide(client, approval: dict, decision: str = "approve", **more):
    return client.post(f"/api/v1/approvals/{approval['id']}", {"decision": decision, "digest": approval["digest"], **more})


def test_a_run_waits_across_a_restart_until_another_person_approves_and_then_completes(nexus):
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    run_id = waiting_run(alice)
    approval = pending(bob)
    assert approval["subject"]["tool"] == DANGEROUS
    assert approval["subject"]["arguments"] == {"operation": "upper", "text": "everything"}
    assert approval["user_id"] == "alice" and approval["status"] == "pending"
    nexus.restart(is_crash=True)
    nexus.restart()
    assert alice.run(run_id)["status"] == "waiting"
    assert pending(bob)["digest"] == approval["digest"]
    reply = decide(bob, approval, reason="I have a copy")
    assert reply.status_code == 200 and reply.json()["approver"] == "bob"
    outcome = alice.outcome(run_id)
    assert outcome.status == "completed" and "It is done." in outcome.answer
    assert outcome.tool_outputs(DANGEROUS) == [{"text": "EVERYTHING"}]
    [decided] = outcome.of("approval.decided")
    assert decided["data"]["decision"] == "approved" and decided["data"]["approver"] == "bob"
    kinds = [event["type"] for event in outcome.events]
    story = [kinds.index(kind) for kind in ("approval.requested", "run.waiting", "approval.decided", "tool.intended")]
    assert story == sorted(story)
    assert bob.get(f"/api/v1/approvals/{approval['id']}").json()["status"] == "consumed"
    assert nexus.admin.post("/api/v1/audit/verify").json()["ok"] is True
    actions = [entry["action"] for entry in nexus.admin.get("/api/v1/audit").json()["items"]]
    assert "approval.approve" in actions


def test_the_requester_cannot_approve_not_even_with_the_scope_or_with_another_key(nexus):
    alice = nexus.user("alice", scopes=["approve"])
    waiting_run(alice)
    approval = pending(alice)
    reply = decide(alice, approval)
    assert reply.status_code == 403 and problem(reply) == "self_approval"
    another_key = nexus.client(alice.create_key(scopes=["approve"])["key"])
    assert problem(decide(another_key, approval)) == "self_approval"
    assert problem(decide(nexus.user("alice", "operator"), approval)) == "self_approval"
    assert pending(alice)["status"] == "pending"


def test_a_key_that_the_requester_made_for_somebody_else_cannot_approve(start, tmp_path):
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "strict.rego").write_text(STRICT_POLICY)
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}, "policy": {"dir": str(policies)}})
    run_id = waiting_run(nexus.admin)              # with this policy even an administrator needs an approval
    approval = pending(nexus.admin)
    assert problem(decide(nexus.admin, approval)) == "self_approval"
    puppet = nexus.user("carol", "operator", ["approve"])
    assert problem(decide(puppet, approval)) == "self_approval"
    assert nexus.admin.run(run_id)["status"] == "waiting"


def test_who_acts_for_another_cannot_approve_what_they_asked_for(nexus):
    helper = nexus.user("helper", "operator", ["act_as", "approve"])
    session = helper.open_session(user_id="alice")
    run_id = helper.send(session, dangerous())
    assert helper.wait(run_id, "waiting")["status"] == "waiting"
    assert problem(decide(helper, pending(helper))) == "self_approval"
    assert problem(decide(nexus.user("alice", scopes=["approve"]), pending(helper))) == "self_approval"
    assert decide(nexus.user("bob", "operator"), pending(helper)).status_code == 200
    assert helper.wait(run_id)["status"] == "completed"


def test_a_user_without_the_right_and_a_viewer_cannot_decide(nexus):
    waiting_run(nexus.user("alice"))
    approval = pending(nexus.admin)
    for client in (nexus.user("mallory"), nexus.user("victor", "viewer")):
        reply = decide(client, approval)
        assert reply.status_code in (403, 404) and problem(reply) in ("denied", "not_found")
    assert pending(nexus.admin)["status"] == "pending"


def test_a_wrong_digest_is_refused_as_stale(nexus):
    bob = nexus.user("bob", "operator")
    run_id = waiting_run(nexus.user("alice"))
    approval = pending(bob)
    reply = decide(bob, {**approval, "digest": "0" * 64})
    assert reply.status_code == 409 and problem(reply) == "stale_digest"
    assert bob.run(run_id)["status"] == "waiting"


def test_a_second_decision_is_refused_whichever_way_it_goes(nexus):
    bob = nexus.user("bob", "operator")
    run_id = waiting_run(nexus.user("alice"))
    approval = pending(bob)
    assert decide(bob, approval).status_code == 200
    for decision in ("approve", "deny"):
        reply = decide(nexus.user("eve", "operator"), approval, decision)
        assert reply.status_code == 409 and problem(reply) == "already_decided"
    assert bob.wait(run_id)["status"] == "completed"


def test_a_denied_call_never_runs_and_the_model_is_told_why(nexus):
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    run_id = waiting_run(alice)
    assert decide(bob, pending(bob), "deny", reason="not on a Friday").status_code == 200
    outcome = alice.outcome(run_id)
    assert outcome.status == "completed"
    [end] = outcome.of("tool.completed")
    assert end["data"]["status"] == "denied" and "not on a Friday" in end["data"]["message"] and "bob" in end["data"]["message"]
    assert not outcome.of("tool.intended")


def test_nobody_decides_and_the_approval_expires(start, tmp_path):
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}, "approvals": {"expiry": "1s"}})
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    run_id = waiting_run(alice)
    approval = pending(bob)
    time.sleep(1.2)
    assert problem(decide(bob, approval)) == "already_decided"
    outcome = alice.outcome(run_id, seconds=45)
    assert outcome.of("tool.completed")[0]["data"]["status"] == "denied"
    assert outcome.of("approval.decided")[0]["data"]["decision"] == "expired"


def test_waiting_costs_no_time_and_a_waiting_run_can_be_cancelled(nexus):
    alice = nexus.user("alice")
    session = alice.open_session()
    run_id = alice.send(session, dangerous())
    alice.wait(run_id, "waiting")
    spent = alice.budget(session)["spent"]["time_ms"]
    time.sleep(1.5)
    assert alice.budget(session)["spent"]["time_ms"] == spent
    reply = alice.post(f"/api/v1/sessions/{session}/messages", {"content": "hurry up"})
    assert reply.status_code == 409 and problem(reply) == "session_busy"
    assert alice.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
    assert alice.wait(run_id)["status"] == "cancelled"
    assert alice.ask("hello again", session=session).status == "completed"


def test_what_is_shown_hides_nothing(nexus):
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    trick = "delete \u202e elif.txt \u0007 \u200b now"
    run_id = alice.send(alice.open_session(), dangerous(trick))
    alice.wait(run_id, "waiting")
    approval = pending(bob)
    assert approval["subject"]["arguments"]["text"] == trick
    for hidden in "\u202e\u0007\u200b":
        assert hidden not in approval["shown"], approval["shown"]
    assert "202e" in approval["shown"].lower()


def test_a_direct_call_of_such_a_tool_says_that_only_a_run_can_wait(nexus):
    reply = nexus.user("alice").invoke(DANGEROUS, {"operation": "upper", "text": "x"})
    assert reply.status_code == 403 and problem(reply) == "needs_approval"


def test_the_command_line_says_by_its_exit_code_that_a_run_waits(nexus):
    alice = nexus.user("alice")
    ended = nexus.command("run", "--json", dangerous(), key=alice.key)
    assert ended.returncode == 5, ended.stdout + ended.stderr
    assert pending(nexus.admin)["user_id"] == "alice"
