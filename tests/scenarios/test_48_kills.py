"""SIGKILL at every boundary of the journal, and again and again under load: every run ends, every effect happened once or is shown as
unknown, nobody spent more than they may, the books add up.

NEXUS_KILLS makes the load longer; bench/kills.py does 2,000.
"""

import os
import random
import time

import pytest

from harness.kills import check_books, fault_points, kill_under_load, make_work, mind
from harness.tools import tools_with_a_dangerous_one
from harness.upstream import CountingUpstream

KILLS = int(os.environ.get("NEXUS_KILLS", 50))
# Commits that only nodes of one shared store make; tests/sim plays those.
POINTS = [point for point in fault_points() if not point.startswith(("share", "node_"))]
# Work of every kind passes these for sure; a point that it does not pass is told as skipped.
SURE = {"run_start", "model_intent", "tool_intent", "run_completed", "run_failed", "run_cancelled", "run_waiting", "approval_decide",
        "usage"}


@pytest.fixture(scope="module")
def tool_folder(tmp_path_factory):
    return tools_with_a_dangerous_one(tmp_path_factory.mktemp("dangerous") / "tools")


def killable(tool_folder) -> dict:
    return {**CountingUpstream.config(), "tools": {**CountingUpstream.config()["tools"], "dir": str(tool_folder)}}


def test_the_points_are_read_from_the_source():
    assert SURE <= set(POINTS), SURE - set(POINTS)


def wait_a_while(nexus, seconds: float = 1.5) -> None:
    deadline = time.monotonic() + seconds
    while nexus.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_boundary_of_the_journal_loses_nothing_and_repeats_nothing(needs_fault_points, start, provider, upstream,
                                                                              tool_folder, point, side):
    provider.answer = mind(upstream)
    nexus = start(killable(tool_folder), provider=provider, is_dev=True)
    work = make_work(nexus)
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}.{side}:1:kill"
    nexus.spawn()
    try:
        nexus.wait_ready()
        if work.everything():
            wait_a_while(nexus)                    # for what is written by the clock
        else:
            nexus.process.wait(20)
    except RuntimeError:
        pass                                       # it died while it started
    is_killed = nexus.process.poll() == -9
    nexus.stop()
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    outcomes = work.settle()
    work.check(outcomes, upstream)
    nexus.stop()
    check_books(nexus)
    assert is_killed or point not in SURE, "the fault point was not passed"
    if not is_killed:
        pytest.skip(f"nothing passed {point}.{side}")


def test_kills_at_any_instant_under_load(start, provider, upstream, tool_folder, capsys):
    provider.answer = mind(upstream)
    upstream.delay = 0.005
    nexus = start(killable(tool_folder), provider=provider)
    work = make_work(nexus)
    tally = kill_under_load(nexus, upstream, work, random.Random(KILLS), KILLS)
    nexus.stop()
    check_books(nexus)
    assert tally.completed > 0
    with capsys.disabled():
        print(f"\n  note: {tally}")
