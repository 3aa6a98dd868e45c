"""Every call leaves a record: sums, single calls, scores; and what a crash takes of them overspends nothing."""

import httpx
import pytest

from harness.books import Books
from harness.client import problem

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}


def ask(client, **headers):
    return client.post("/v1/chat/completions", QUESTION, headers=headers)


def test_calls_are_listed_summed_and_scored(start, provider):
    nexus = start(provider=provider)
    alice, bob = nexus.user("alice"), nexus.user("bob")
    for client in (alice, alice, bob):
        assert ask(client).status_code == 200
    mine = alice.get("/api/v1/usage/calls").json()["items"]
    assert len(mine) == 2 and {call["user_id"] for call in mine} == {"alice"}
    assert all(call["status"] == "ok" and call["model"] == "tiny" and call["attempts"] == 1 for call in mine)
    assert problem(alice.get("/api/v1/usage/calls?user_id=bob")) == "denied"
    page = nexus.admin.get("/api/v1/usage/calls?limit=2").json()
    rest = nexus.admin.get(f"/api/v1/usage/calls?limit=2&cursor={page['next_cursor']}").json()
    assert len({call["call_id"] for call in page["items"] + rest["items"]}) == 3

    sums = nexus.admin.get("/api/v1/usage?by=user,model,provider").json()
    assert {item["user_id"]: item["requests"] for item in sums["items"]} == {"alice": 2, "bob": 1}
    assert sums["total"]["tokens"] == provider.input_tokens + provider.output_tokens
    exact = nexus.admin.get("/api/v1/usage?by=user&from=2020-01-01T00:00:01Z").json()
    assert exact["total"] == sums["total"] and exact["entries"] == sums["entries"]

    call = mine[0]["call_id"]
    for score in (0.2, 1):
        assert alice.post("/api/v1/feedback", {"call_id": call, "score": score}).status_code == 204
    assert problem(bob.post("/api/v1/feedback", {"call_id": call, "score": 1})) == "not_found"
    assert problem(alice.post("/api/v1/feedback", {"call_id": call, "score": 1.5})) == "schema"
    [variant] = nexus.admin.get("/api/v1/experiments/tiny").json()["variants"]
    assert variant["requests"] == 3 and variant["feedback"]["count"] == 1 and variant["feedback"]["mean"] == 1
    assert problem(alice.get("/api/v1/experiments/tiny")) == "denied"
    entries = nexus.admin.get("/api/v1/audit?action=model.calls").json()["items"]
    assert sum(entry["details"]["calls"] for entry in entries) == 3
    assert nexus.admin.post("/api/v1/audit/verify").json()["ok"] is True
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()


@pytest.mark.parametrize("point", ["usage.before:1", "usage.after:1", "lease.before:1", "lease.after:1"])
def test_a_kill_around_the_flush_overspends_nothing(needs_fault_points, start, provider, point):
    nexus = start(provider=provider, is_dev=True)
    session = nexus.admin.open_session(budget={"tokens": 3000})
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    try:
        ask(nexus.admin, **{"X-Nexus-Session": session})
    except httpx.HTTPError:
        pass                                       # it died before it could answer
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    used = provider.input_tokens + provider.output_tokens
    budget = nexus.admin.budget(session)
    assert budget["reserved"]["tokens"] == 0
    assert used <= budget["spent"]["tokens"] <= 3000
    calls = nexus.admin.get("/api/v1/usage/calls").json()["items"]
    assert len(calls) == (1 if point == "usage.after:1" else 0)
    if calls:
        assert nexus.admin.get("/api/v1/usage?by=variant").json()["total"]["tokens"] >= used
    assert nexus.admin.post("/api/v1/audit/verify").json()["ok"] is True
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    books.close()
