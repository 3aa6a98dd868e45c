"""Steps of pure tools are stored together: a crash takes some along, and nobody can tell that they were done again."""

import random
import time

import httpx
import pytest
from harness.books import Books
from harness.upstream import CountingUpstream
from test_40_workflows import begin, output, put, steps

ROUNDS, INSTANCES = 60, 8


def chain(rounds: int = ROUNDS) -> dict:
    """Rounds of two pure steps each; the second is given what the first gave."""
    return {"name": "chain", "version": "1.0.0", "output": "${steps.each.output}",
            "steps": [{"id": "each", "loop": {"max": rounds, "output": "${[loop.index, steps.b.output.text]}", "steps": [
                {"id": "a", "tool": "text_processing", "input": {"operation": "upper", "text": "round ${loop.index}"}},
                {"id": "b", "tool": "text_processing", "input": {"operation": "lower", "text": "${steps.a.output.text}"}}]}}]}


def check(nexus, run_ids: list[str], rounds: int = ROUNDS) -> None:
    for run_id in run_ids:
        assert output(nexus.admin, run_id) == [rounds - 1, f"round {rounds - 1}"]
        tree = steps(nexus.admin, run_id)
        assert all(tree[f"each[{i}].{name}"]["status"] == "completed" for i in range(rounds) for name in "ab")
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    for run_id in run_ids:
        [(rows, ended)] = books.rows("SELECT count(*), sum(status = 'succeeded') FROM tool_calls WHERE run_id = ?", run_id)
        assert rows == ended == 2 * rounds, "each call has one row, and it is over"
        [(calls,)] = books.rows("SELECT sum(tool_calls) FROM ledger WHERE run_id = ?", run_id)
        assert calls == 2 * rounds, "each is charged once"
    books.close()


def test_many_pure_steps_cost_few_entries_and_lose_no_event(nexus):
    put(nexus.admin, chain())
    run_id = begin(nexus.admin, "chain")
    nexus.admin.wait(run_id, "completed")
    types = [event["type"] for event in nexus.admin.events(run_id)]
    for name in ("policy.decided", "budget.reserved", "tool.intended", "tool.completed", "budget.settled"):
        assert types.count(name) - (name == "policy.decided") == 2 * ROUNDS, name
    check(nexus, [run_id])
    books = Books(nexus.data)
    [(entries,)] = books.rows("SELECT count(*) FROM ledger WHERE run_id = ?", run_id)
    assert entries < ROUNDS, "settlements of one append are one entry"
    books.close()


@pytest.mark.parametrize("point", ["workflow_step.before:1", "workflow_step.after:1", "workflow_step.before:2", "workflow_step.after:2",
                                   "workflow_step.before:3", "workflow_end.before:1", "workflow_end.after:1"])
def test_a_kill_around_an_append_of_many_steps_loses_and_doubles_none(needs_fault_points, start, point):
    nexus = start(is_dev=True)
    put(nexus.admin, chain(200))
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:kill"
    nexus.start()
    try:
        nexus.admin.post("/api/v1/workflows/chain/runs", {"input": {}})
    except httpx.HTTPError:
        pass
    assert nexus.process.wait(60) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    [run] = nexus.admin.get("/api/v1/runs").json()["items"]
    nexus.admin.wait(run["id"], "completed", seconds=60)
    check(nexus, [run["id"]], 200)


def test_kills_at_any_instant_lose_and_double_none(start):
    nexus = start()
    put(nexus.admin, chain(400))
    run_ids = [begin(nexus.admin, "chain") for _ in range(INSTANCES)]
    chance = random.Random(49)
    for _ in range(6):
        time.sleep(chance.uniform(0.02, 0.4))
        nexus.kill()
        nexus.start()
    for run_id in run_ids:
        nexus.admin.wait(run_id, "completed", seconds=120)
    check(nexus, run_ids, 400)


def test_what_an_effect_was_made_of_is_stored_before_it_happens(needs_fault_points, start, upstream):
    """The pure step before it, its outcome and the effect's intent: one append, and killed behind it the effect is there once at most."""
    nexus = start(CountingUpstream.config(), is_dev=True)
    put(nexus.admin, {"name": "mixed", "version": "1.0.0", "steps": [
        {"id": "name", "tool": "text_processing", "input": {"operation": "upper", "text": "the effect"}},
        {"id": "do", "tool": "http_request", "input": {"method": "POST", "url": upstream.url,
                                                       "body": {"name": "${steps.name.output.text}"}}}]})
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = "workflow_step.after:1:kill"
    nexus.start()
    try:
        nexus.admin.post("/api/v1/workflows/mixed/runs", {"input": {}})
    except httpx.HTTPError:
        pass
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    [run] = nexus.admin.get("/api/v1/runs").json()["items"]
    run = nexus.admin.wait(run["id"], "failed")
    assert run["error"]["type"] == "outcome_unknown", run
    tree = steps(nexus.admin, run["id"])
    assert tree["name"]["status"] == "completed" and tree["do"]["status"] == "failed"
