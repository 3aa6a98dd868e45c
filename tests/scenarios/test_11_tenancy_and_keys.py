"""Users see their own and nothing else; keys are shown once, and secrets nowhere."""

import sqlite3
import time

import pytest

from harness.client import problem
from harness.provider import Fail


def test_one_users_sessions_runs_and_files_do_not_exist_for_another(nexus):
    alice, eve = nexus.user("alice"), nexus.user("eve")
    session = alice.open_session(metadata={"secret": "plans"})
    alice.upload(session, "plans.csv", b"a,b\n1,2\n")
    run = alice.ask("hello", session=session).id
    for path in (f"/api/v1/sessions/{session}", f"/api/v1/sessions/{session}/budget", f"/api/v1/sessions/{session}/messages",
                 f"/api/v1/sessions/{session}/files", f"/api/v1/sessions/{session}/files/plans.csv", f"/api/v1/runs/{run}",
                 f"/api/v1/runs/{run}/events"):
        assert alice.get(path, headers={"Accept": "application/json"}).status_code == 200, path
        reply = eve.get(path)
        assert reply.status_code == 404 and problem(reply) == "not_found", path
    for reply in (eve.post(f"/api/v1/sessions/{session}/messages", {"content": "hi"}), eve.post(f"/api/v1/runs/{run}/cancel"),
                  eve.delete(f"/api/v1/sessions/{session}"), eve.delete(f"/api/v1/sessions/{session}/files/plans.csv"),
                  eve.put(f"/api/v1/sessions/{session}/files/x", content=b"x"),
                  eve.invoke("data_analysis", {"file": "plans.csv", "steps": [{"describe": True}]}, session_id=session)):
        assert reply.status_code == 404 and problem(reply) == "not_found", reply.text
    assert eve.get("/api/v1/sessions").json()["items"] == []
    assert eve.get("/api/v1/runs").json()["items"] == []
    assert eve.get(f"/api/v1/runs?session_id={session}").json()["items"] == []
    chat = eve.post("/v1/chat/completions", {"model": "offline", "messages": [{"role": "user", "content": "x"}]},
                    headers={"X-Nexus-Session": session})
    assert chat.status_code == 404


def test_an_operator_sees_everyones_sessions_and_a_viewer_changes_nothing(nexus):
    alice, olga = nexus.user("alice"), nexus.user("olga", "operator")
    session = alice.open_session()
    assert olga.get(f"/api/v1/sessions/{session}").json()["user_id"] == "alice"
    viewer = nexus.user("alice", "viewer")
    assert viewer.get(f"/api/v1/sessions/{session}").status_code == 200
    for reply in (viewer.post("/api/v1/sessions", {}), viewer.post(f"/api/v1/sessions/{session}/messages", {"content": "x"}),
                  viewer.delete(f"/api/v1/sessions/{session}"), viewer.post("/api/v1/keys", {"name": "k"}),
                  viewer.invoke("time", {}),
                  viewer.put(f"/api/v1/sessions/{session}/files/x", content=b"x")):
        assert reply.status_code == 403 and problem(reply) == "denied"


def test_acting_for_another_needs_the_scope_and_both_are_on_record(nexus):
    plain, helper = nexus.user("plain"), nexus.user("helper", scopes=["act_as"])
    assert problem(plain.post("/api/v1/sessions", {"user_id": "alice"})) == "denied"
    session = helper.post("/api/v1/sessions", {"user_id": "alice"}).json()
    assert session["user_id"] == "alice" and session["requested_by"] == "helper"
    entries = nexus.admin.get("/api/v1/audit?action=session.create").json()["items"]
    assert any(entry["resource_id"] == session["id"] for entry in entries)


def test_a_key_is_shown_once_listed_without_itself_and_ends_when_it_is_revoked(nexus):
    issued = nexus.admin.create_key(user_id="kim", role="user")
    kim = nexus.client(issued["key"])
    assert kim.get("/api/v1/me").json()["user_id"] == "kim"
    listed = kim.get("/api/v1/keys")
    assert [item["id"] for item in listed.json()["items"]] == [issued["id"]]
    assert issued["key"] not in listed.text and listed.json()["items"][0]["prefix"] == issued["key"][:10]
    assert kim.delete(f"/api/v1/keys/{issued['id']}").status_code == 204
    assert problem(kim.get("/api/v1/me")) == "unauthenticated"
    assert nexus.admin.delete(f"/api/v1/keys/{issued['id']}").status_code == 204


def test_nobody_makes_a_key_with_more_rights_than_their_own(nexus):
    uma = nexus.user("uma")
    for body in ({"name": "k", "role": "operator"}, {"name": "k", "scopes": ["platform"]}, {"name": "k", "user_id": "alice"}):
        reply = uma.post("/api/v1/keys", body)
        assert reply.status_code == 403 and problem(reply) == "denied", reply.text
    assert nexus.client(uma.create_key()["key"]).get("/api/v1/me").json()["role"] == "user"


def test_one_user_cannot_see_or_revoke_anothers_key(nexus):
    issued = nexus.admin.create_key(user_id="alice", role="user")
    eve = nexus.user("eve")
    assert issued["id"] not in eve.get("/api/v1/keys").text
    assert problem(eve.delete(f"/api/v1/keys/{issued['id']}")) == "not_found"
    assert nexus.client(issued["key"]).get("/api/v1/me").status_code == 200


def test_a_key_is_good_across_a_restart_and_a_revoked_one_is_not(start):
    nexus = start()
    kept, gone = nexus.admin.create_key(user_id="a", role="user"), nexus.admin.create_key(user_id="b", role="user")
    nexus.admin.delete(f"/api/v1/keys/{gone['id']}")
    nexus.restart(is_crash=True)
    assert nexus.client(kept["key"]).get("/api/v1/me").status_code == 200
    assert nexus.client(gone["key"]).get("/api/v1/me").status_code == 401


def test_the_providers_key_and_our_keys_can_be_read_nowhere(start, provider):
    nexus = start(provider=provider)
    alice = nexus.user("alice")
    alice.ask("hello")
    provider.answer = lambda call: Fail(401, f"Incorrect API key provided: {provider.KEY}", code="invalid_api_key")
    outcome = alice.ask("hello")
    assert outcome.status == "failed" and outcome.run["error"]["type"].endswith("auth")
    for text in (str(outcome.events), str(outcome.run), nexus.admin.get("/metrics").text, nexus.admin.get("/api/v1/models").text,
                 nexus.admin.get("/api/v1/audit").text, nexus.admin.get("/api/v1/keys").text):
        assert provider.KEY not in text and nexus.admin_key not in text and alice.key not in text
    nexus.client("nxk_wrong_key_that_is_not_ours").get("/api/v1/me")
    assert "nxk_wrong_key_that_is_not_ours" not in nexus.log_text()
    nexus.stop()
    assert nexus.files_with_secrets() == []


def test_the_audit_log_tells_who_did_what_and_can_be_verified(nexus):
    alice = nexus.user("alice")
    session = alice.open_session()
    alice.ask("hello", session=session)
    entries = nexus.admin.get("/api/v1/audit?user_id=alice").json()["items"]
    assert {"session.create", "run.start", "run.complete"} <= {entry["action"] for entry in entries}
    assert all(entry["user_id"] == "alice" and entry["created_at"] for entry in entries)
    report = nexus.admin.post("/api/v1/audit/verify").json()
    assert report["ok"] is True and report["entries"] >= len(entries)


@pytest.mark.parametrize("change", ["UPDATE audit_logs SET user_id = 'nobody' WHERE seq = 3",
                                    "DELETE FROM audit_logs WHERE seq = 3"])
def test_a_changed_or_cut_audit_log_is_found(start, change):
    nexus = start()
    nexus.user("alice").open_session()
    nexus.stop()
    database = sqlite3.connect(nexus.data / "nexus.db")
    for name, in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_logs'").fetchall():
        database.execute(f"DROP TRIGGER {name}")   # somebody with the file can do that
    assert database.execute(change).rowcount == 1
    database.commit()
    database.close()
    nexus.start()
    report = nexus.admin.post("/api/v1/audit/verify").json()
    assert report["ok"] is False and report["first_bad"]


def test_usage_adds_up_to_what_the_provider_counted(start, provider):
    nexus = start(provider=provider)
    alice = nexus.user("alice")
    alice.ask("one")
    alice.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "two"}]})
    deadline = time.monotonic() + 5                # usage of plain calls is written after their answer
    while nexus.admin.get("/api/v1/usage?by=user,kind").json()["total"]["tokens"] != 30:
        assert time.monotonic() < deadline, nexus.admin.get("/api/v1/usage?by=user,kind").json()
        time.sleep(0.05)
    assert provider.input_tokens + provider.output_tokens == 30
    assert alice.get("/api/v1/usage").json()["total"]["tokens"] == 30
    assert problem(alice.get("/api/v1/usage?user_id=bob")) == "denied"
