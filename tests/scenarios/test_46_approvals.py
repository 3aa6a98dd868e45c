"""Approvals by several persons, by those who are named, and in another's place; and every way in which one person might pass for two."""

import json
import re
import threading
import time
from pathlib import Path

import pytest

from harness.client import problem
from harness.scripts import call, say, script
from harness.tools import DANGEROUS, tools_with_a_dangerous_one

SHIPPED = Path(__file__).resolve().parents[2] / "policies"
REGISTRARS = {"approvals": {"registrars": ["admin"]}}        # the first administrator hands out keys to everybody here


def dangerous(text: str = "everything") -> str:
    return script(call(DANGEROUS, operation="upper", text=text), say("It is done."))


@pytest.fixture
def nexus_with(start, tmp_path):
    """A server whose dangerous tool has this rule of approval."""
    def begin(rule: dict | None = None, **config):
        tools = {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}
        if rule is not None:
            tools[DANGEROUS] = {"approval": rule}
        return start({"tools": tools, **REGISTRARS, **config})
    return begin


def waiting_run(client, text: str = "everything") -> str:
    run_id = client.send(client.open_session(), dangerous(text))
    assert client.wait(run_id, "waiting")["status"] == "waiting"
    return run_id


def pending(client) -> dict:
    [approval] = client.get("/api/v1/approvals?status=pending").json()["items"]
    return approval


def decide(client, approval: dict, decision: str = "approve", **more):
    return client.post(f"/api/v1/approvals/{approval['id']}", {"decision": decision, "digest": approval["digest"], **more})


def delegate(client, to: str, seconds: float = 60, **more):
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    return client.post("/api/v1/approval-delegations", {"to": to, "expires_at": until, **more})


# ---- several persons ----

def test_two_persons_must_approve_and_the_journal_has_both(nexus_with):
    nexus = nexus_with({"quorum": 2})
    alice, bob, carl = nexus.user("alice"), nexus.user("bob", "operator"), nexus.user("carl", "operator")
    run_id = waiting_run(alice)
    approval = pending(bob)
    assert (approval["quorum"], approval["given"], approval["needed"]) == (2, 0, 2)
    first = decide(bob, approval, reason="looks right").json()
    assert (first["status"], first["given"], first["needed"]) == ("pending", 1, 1)
    assert [(vote["approver"], vote["decision"], vote["reason"]) for vote in first["votes"]] == [("bob", "approve", "looks right")]
    alice.wait_for_event(run_id, "approval.voted")
    assert alice.run(run_id)["status"] == "waiting"
    assert problem(decide(bob, approval)) == "already_decided"
    nexus.restart(is_crash=True)                                            # the first vote is not forgotten
    assert decide(carl, approval).json()["status"] in ("approved", "consumed")
    outcome = alice.outcome(run_id)
    assert outcome.status == "completed" and outcome.tool_outputs(DANGEROUS) == [{"text": "EVERYTHING"}]
    voted = [event["data"] for event in outcome.of("approval.voted")]
    assert [(vote["number"], vote["approver"], vote["votes"], vote["quorum"]) for vote in voted] == [(1, "bob", 1, 2), (2, "carl", 2, 2)]
    assert len(outcome.of("approval.decided")) == 1
    actions = [entry["action"] for entry in nexus.admin.get("/api/v1/audit").json()["items"]]
    assert actions.count("approval.approve") == 2


def test_one_deny_denies(nexus_with):
    nexus = nexus_with({"quorum": 3})
    alice = nexus.user("alice")
    run_id = waiting_run(alice)
    approval = pending(nexus.admin)
    assert decide(nexus.user("bob", "operator"), approval).status_code == 200
    assert decide(nexus.user("carl", "operator"), approval, "deny", reason="too much").json()["status"] == "denied"
    outcome = alice.outcome(run_id)
    [end] = outcome.of("tool.completed")
    assert end["data"]["status"] == "denied" and "carl" in end["data"]["message"] and "too much" in end["data"]["message"]


def test_last_votes_at_once_count_one_after_the_other(nexus_with):
    nexus = nexus_with({"quorum": 3})
    alice = nexus.user("alice")
    voters = [nexus.user(f"voter{i}", "operator") for i in range(8)]
    run_id = waiting_run(alice)
    approval = pending(nexus.admin)
    replies = []
    threads = [threading.Thread(target=lambda voter=voter: replies.append(decide(voter, approval).status_code)) for voter in voters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200] * 3 + [409] * 5
    outcome = alice.outcome(run_id)
    assert outcome.status == "completed" and len(outcome.tool_outputs(DANGEROUS)) == 1
    assert len(outcome.of("approval.voted")) == 3 and len(outcome.of("tool.intended")) == 1


# ---- one person is one person ----

def test_keys_that_one_person_made_count_once(start, tmp_path):
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools")), DANGEROUS: {"approval": {"quorum": 2}}}})
    alice, bob, carl = nexus.user("alice"), nexus.user("bob", "operator"), nexus.user("carl", "operator")
    waiting_run(alice)
    approval = pending(nexus.admin)
    assert decide(bob, approval).status_code == 200
    reply = decide(carl, approval)                           # the administrator made both keys and is no registrar here
    assert reply.status_code == 403 and problem(reply) == "same_person"
    assert problem(decide(nexus.admin, approval)) == "same_person"
    assert pending(nexus.admin)["given"] == 1


def test_the_requester_cannot_make_or_renew_their_way_to_a_vote(nexus_with, tmp_path):
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "strict.rego").write_text("""
package nexus.agent.policy
import rego.v1
default allow := false
allow if input.action in {"run.start", "model.call"}
allow if {
    input.tool.category == "system"
    input.approval.status == "approved"
}
""")
    nexus = nexus_with(policy={"dir": str(policies)})
    made = nexus.admin.create_key("bob", "admin", ["approve"])
    bob = nexus.client(made["key"])
    alice = nexus.user("alice", "admin", ["approve"])
    waiting_run(alice)
    approval = pending(nexus.admin)
    assert problem(decide(alice, approval)) == "self_approval"
    puppet = nexus.client(alice.create_key("puppet", "admin", ["approve"])["key"])        # minted after the fact
    assert problem(decide(puppet, approval)) == "self_approval"
    second = nexus.client(puppet.create_key("second", "admin", ["approve"])["key"])       # and by what was minted
    assert problem(decide(second, approval)) == "self_approval"
    rotated = alice.post(f"/api/v1/keys/{made['id']}/rotate", {"overlap_seconds": 60})    # another's key, with a text that she knows
    assert rotated.status_code == 200, rotated.text
    stolen = nexus.client(rotated.json()["key"])
    assert stolen.get("/api/v1/approvals").status_code == 200
    assert problem(decide(stolen, approval)) == "self_approval"
    assert problem(decide(bob, approval)) == "self_approval"              # nobody can tell the two texts' holders apart
    assert decide(nexus.user("carl", "operator"), approval).status_code == 200


def test_an_own_key_with_a_new_text_stays_its_persons(nexus_with):
    nexus = nexus_with({"quorum": 2})
    made = nexus.admin.create_key("bob", "operator")
    bob = nexus.client(made["key"])
    waiting_run(nexus.user("alice"))
    approval = pending(nexus.admin)
    assert decide(bob, approval).status_code == 200
    again = nexus.client(bob.post(f"/api/v1/keys/{made['id']}/rotate", {}).json()["key"])
    assert problem(decide(again, approval)) == "already_decided"
    other = nexus.client(again.create_key("", "operator")["key"])
    assert problem(decide(other, approval)) == "already_decided"
    assert decide(nexus.user("carl", "operator"), approval).status_code == 200


def test_who_acts_for_another_decides_nothing_in_that_name(nexus_with):
    nexus = nexus_with()
    helper = nexus.user("helper", "operator", ["act_as", "approve"])
    run_id = helper.send(helper.open_session(user_id="alice"), dangerous())
    helper.wait(run_id, "waiting")
    assert problem(decide(helper, pending(helper))) == "self_approval"
    assert problem(decide(nexus.user("alice", "operator"), pending(helper))) == "self_approval"


# ---- who may ----

def test_only_those_whom_the_rule_names_approve(nexus_with):
    nexus = nexus_with({"approvers": {"users": ["bob"], "roles": ["admin"]}})
    alice, bob, carl = nexus.user("alice"), nexus.user("bob", "operator"), nexus.user("carl", "operator")
    waiting_run(alice)
    approval = pending(carl)
    assert approval["approvers"] == [{"roles": ["admin"], "users": ["bob"]}]
    reply = decide(carl, approval)
    assert reply.status_code == 403 and problem(reply) == "denied"
    assert decide(bob, approval).status_code == 200


def test_the_policy_demands_more_by_data_and_by_arguments(start, tmp_path):
    policies = tmp_path / "policies"
    policies.mkdir()
    for name in ("base.rego", "example.rego", "approvals.rego"):
        (policies / name).write_text((SHIPPED / name).read_text())
    (policies / "data.json").write_text(json.dumps({"approval_requirements": {"categories": {"system": {"quorum": 2, "expires": "1h"}}}}))
    (policies / "large.rego").write_text("""
package nexus.agent.policy
import rego.v1
approval_requirements contains {"quorum": 3, "approvers": {"roles": ["admin"]}} if input.arguments.text == "very much"
""")
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}, "policy": {"dir": str(policies)}, **REGISTRARS})
    alice = nexus.user("alice")
    waiting_run(alice)
    approval = pending(nexus.admin)
    assert approval["quorum"] == 2 and approval["approvers"] is None
    assert decide(nexus.user("bob", "operator"), approval, "deny").status_code == 200
    waiting_run(alice, "very much")
    approval = pending(nexus.admin)
    assert approval["quorum"] == 3 and approval["approvers"] == [{"roles": ["admin"]}]
    assert problem(decide(nexus.user("bob", "operator"), approval)) == "denied"


def test_a_demand_that_cannot_be_read_lets_nothing_happen(start, tmp_path):
    policies = tmp_path / "policies"
    policies.mkdir()
    for name in ("base.rego", "example.rego"):
        (policies / name).write_text((SHIPPED / name).read_text())
    (policies / "broken.rego").write_text("""
package nexus.agent.policy
import rego.v1
approval_requirements contains {"qorum": 2} if input.tool.category == "system"
""")
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}, "policy": {"dir": str(policies)}})
    alice = nexus.user("alice")
    outcome = alice.ask(dangerous())
    [end] = outcome.of("tool.completed")
    assert end["data"]["status"] != "succeeded" and "qorum" in end["data"]["message"]
    assert not outcome.of("tool.intended") and not outcome.of("approval.requested")


def test_what_is_demanded_later_makes_an_approval_stale(nexus_with):
    nexus = nexus_with({"quorum": 1})
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    run_id = waiting_run(alice)
    approval = pending(bob)
    config = json.loads(json.dumps(nexus.config))
    config["tools"][DANGEROUS] = {"approval": {"quorum": 2}}
    nexus.terminate()
    nexus.write_config(config)
    nexus.start()
    assert decide(bob, approval).status_code == 200
    outcome = alice.outcome(run_id)
    [end] = outcome.of("tool.completed")
    assert end["data"]["status"] == "denied" and "more is demanded" in end["data"]["message"]
    assert not outcome.of("tool.intended")


def test_a_wrong_rule_is_told_with_its_line(start, tmp_path):
    nexus = start({})
    path = tmp_path / "wrong.yaml"
    path.write_text("tools:\n  http_request:\n    approval: {quorum: 3, approvers: {users: [bob, carl]}}\n")
    result = nexus.command("config", "check", "--config", str(path))
    assert result.returncode != 0
    assert ":3" in result.stderr + result.stdout and "can never be reached" in result.stderr + result.stdout


# ---- in another's place ----

def test_a_delegate_approves_in_anothers_place_until_it_ends(nexus_with):
    nexus = nexus_with({"approvers": {"users": ["boss"]}, "quorum": 1})
    alice, boss, helper = nexus.user("alice"), nexus.user("boss", "operator"), nexus.user("helper")
    run_id = waiting_run(alice)
    approval = pending(boss)
    assert helper.get("/api/v1/approvals?status=pending").json()["items"] == []
    assert delegate(boss, "helper", 3, reason="on leave").status_code == 201
    assert pending(helper)["id"] == approval["id"]
    decided = decide(helper, approval)
    assert decided.status_code == 200 and decided.json()["votes"][0]["delegated_by"] == "boss"
    outcome = alice.outcome(run_id)
    [voted] = outcome.of("approval.voted")
    assert voted["data"]["approver"] == "helper" and voted["data"]["delegated_by"] == "boss"
    [entry] = [entry for entry in nexus.admin.get("/api/v1/audit").json()["items"] if entry["action"] == "approval.approve"]
    assert entry["user_id"] == "helper" and entry["details"]["delegated_by"] == "boss"
    waiting_run(alice)
    approval = pending(boss)
    time.sleep(3)
    assert decide(helper, approval).status_code == 404
    assert decide(boss, approval).status_code == 200


def test_a_delegation_helps_no_party_does_not_pass_on_and_is_no_second_person(nexus_with):
    nexus = nexus_with({"quorum": 2})
    alice, boss = nexus.user("alice", scopes=["approve"]), nexus.user("boss", "operator")
    helper, friend = nexus.user("helper"), nexus.user("friend")
    waiting_run(alice)
    approval = pending(boss)
    assert delegate(boss, "alice").status_code == 201
    assert problem(decide(alice, approval)) == "self_approval"                       # the requester, in the boss's place
    assert delegate(alice, "friend").status_code == 201
    assert problem(decide(friend, approval)) == "denied"                             # anybody, in the requester's place
    assert delegate(boss, "helper").status_code == 201
    assert problem(delegate(helper, "friend")) == "denied"
    assert decide(helper, approval).status_code == 200
    assert problem(decide(boss, approval)) == "same_person"
    assert decide(nexus.user("carl", "operator"), approval).status_code == 200


def test_delegations_are_seen_and_ended_by_their_ends_on_the_command_line_too(nexus_with):
    nexus = nexus_with()
    boss, helper, other = nexus.user("boss", "operator"), nexus.user("helper"), nexus.user("other", "operator")
    given = nexus.command("approval", "delegate", "helper", "--until", "8h", "--reason", "a \u202e trick", key=boss.key)
    assert given.returncode == 0, given.stderr
    [seen] = helper.get("/api/v1/approval-delegations").json()["items"]
    assert (seen["from"], seen["to"]) == ("boss", "helper") and "\u202e" not in seen["reason"]
    assert other.get("/api/v1/approval-delegations").json()["items"] == []
    assert other.delete("/api/v1/approval-delegations/boss/helper").status_code == 404
    listed = nexus.command("approval", "delegations", key=helper.key)
    assert "boss" in listed.stdout and "\u202e" not in listed.stdout
    assert nexus.command("approval", "revoke", "boss", "helper", key=helper.key).returncode == 0
    assert boss.get("/api/v1/approval-delegations").json()["items"] == []
    assert problem(delegate(boss, "boss")) == "schema"
    assert problem(delegate(boss, "helper", -5)) == "schema"
    assert problem(delegate(boss, "helper", 91 * 86400)) == "schema"


# ---- single use, whoever comes at once and whenever it crashes ----

def test_an_approval_is_given_once_and_a_second_call_with_the_same_arguments_needs_its_own(nexus_with):
    nexus = nexus_with()
    alice, bob, carl = nexus.user("alice"), nexus.user("bob", "operator"), nexus.user("carl", "operator")
    twice = script(call(DANGEROUS, operation="upper", text="same"), call(DANGEROUS, operation="upper", text="same"), say("done"))
    run_id = alice.send(alice.open_session(), twice)
    alice.wait(run_id, "waiting")
    first = pending(bob)
    replies = []
    threads = [threading.Thread(target=lambda who=who: replies.append(decide(who, first))) for who in (bob, carl) * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 11
    assert {problem(reply) for reply in replies if reply.status_code != 200} == {"already_decided"}
    deadline = time.monotonic() + 20
    while not bob.get("/api/v1/approvals?status=pending").json()["items"] and time.monotonic() < deadline:
        time.sleep(0.05)
    second = pending(bob)
    assert second["id"] != first["id"]                                      # what was used is not used again
    assert bob.get(f"/api/v1/approvals/{first['id']}").json()["status"] == "consumed"
    assert problem(decide(bob, {**second, "digest": first["digest"]})) in ("stale_digest", "denied") or second["digest"] == first["digest"]
    assert decide(carl, second).status_code == 200
    outcome = alice.outcome(run_id)
    assert outcome.status == "completed" and len(outcome.of("tool.intended")) == 2
    assert len({event["data"]["approval_id"] for event in outcome.of("approval.decided")}) == 2


@pytest.mark.parametrize("point", ["approval_decide.before", "approval_decide.after", "tool_intent.before", "tool_intent.after"])
def test_a_crash_around_the_vote_or_the_use_consumes_an_approval_once(needs_fault_points, start, tmp_path, point):
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}, **REGISTRARS}, is_dev=True)
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    run_id = waiting_run(alice)
    approval = pending(bob)
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:1:kill"
    nexus.start()
    try:
        decide(bob, approval)
    except Exception:
        pass                                                                # it died before it could answer
    if nexus.process.wait(20) != -9:
        pytest.fail("the fault point was not passed")
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    again = decide(bob, approval)                                           # the voter tries again: a vote that counted is not counted twice
    assert again.status_code == (200 if point == "approval_decide.before" else 409), again.text
    outcome = alice.outcome(run_id, seconds=60)
    assert outcome.status == "completed" and len(outcome.of("tool.intended")) == 1
    assert len(outcome.of("approval.decided")) == 1
    assert bob.get(f"/api/v1/approvals/{approval['id']}").json()["status"] == "consumed"


# ---- by the clock, and as it is shown ----

def test_persons_are_reminded_and_then_it_expires(nexus_with):
    nexus = nexus_with({"remind": "1s", "expires": "12s"})
    alice = nexus.user("alice")
    run_id = waiting_run(alice)
    deadline = time.monotonic() + 11
    while time.monotonic() < deadline and pending(nexus.admin)["reminders"] == 0:
        time.sleep(0.2)
    assert pending(nexus.admin)["reminders"] >= 1
    actions = [entry["action"] for entry in nexus.admin.get("/api/v1/audit").json()["items"]]
    assert "approval.remind" in actions
    assert "nexus_approval_reminders_total" in nexus.admin.get("/metrics").text
    outcome = alice.outcome(run_id, seconds=60)
    assert outcome.of("approval.decided")[0]["data"]["decision"] == "expired"


def test_the_command_line_shows_votes_and_what_is_still_needed_and_hides_nothing(nexus_with):
    nexus = nexus_with({"quorum": 2})
    bob, carl = nexus.user("bob", "operator"), nexus.user("carl", "operator")
    trick = "delete \u202e elif.txt \u0007 \u200b\u061c\u200e now"
    waiting_run(nexus.user("alice"), trick)
    approval = pending(bob)
    voted = nexus.command("approval", "approve", approval["id"], "--digest", approval["digest"], "--reason", "seen \u202e it", key=bob.key)
    assert voted.returncode == 0 and "needs 1 more of 2" in voted.stdout, voted.stdout + voted.stderr
    shown = nexus.command("approval", "show", approval["id"], key=carl.key).stdout
    assert "in the place of" not in shown and "by bob" in shown and "needed" in shown and "u{202e}" in shown
    for hidden in "\u202e\u0007\u200b\u061c\u200e":
        assert hidden not in shown
    listed = nexus.command("approval", "list", key=carl.key).stdout
    assert approval["id"] in listed
    done = nexus.command("approval", "approve", approval["id"], "--digest", approval["digest"], key=carl.key)
    assert done.returncode == 0 and "approved" in done.stdout


def test_who_follows_an_instance_is_told_how_to_see_what_it_waits_for(start, tmp_path):
    nexus = start()
    definition = tmp_path / "gate.yaml"
    definition.write_text("name: gate\nversion: 1.0.0\nsteps:\n  - {id: ask, approval: {title: ship it, expires: 1s}}\n")
    followed = nexus.command("workflow", "run", str(definition), "--wait")
    told = re.search(r"approval.requested +ask +nexus approval show (\S+)", followed.stderr)
    assert told, followed.stderr
    assert followed.returncode == 1 and "ship it" in nexus.command("approval", "show", told[1]).stdout
