"""SIGKILL at the boundaries of the journal, feature by feature, and again and again under load: every run ends, every effect happened once
or is shown as unknown, nobody spent more than they may, the books add up.

The boundaries are found by playing each feature once with a trace.  Here some of them are played, chosen by NEXUS_KILL_SEED;
NEXUS_KILL_POINTS=all plays all (half an hour).  NEXUS_KILLS makes the load longer; bench/kills.py does 2,000.
"""

import os
import random
import re
import subprocess
import sys
import time

import httpx
import pytest

from harness.kills import FEATURES, OF_SEVERAL_NODES, Play, Stage, fault_points
from harness.provider import Hang, Text
from harness.server import BINARY, ROOT, toolbox
from harness.upstream import CountingUpstream
from test_40_workflows import UNDONE, begin, booking, put, saga  # noqa: F401  booking is a fixture

KILLS = int(os.environ.get("NEXUS_KILLS", 25))
SEED = int(os.environ.get("NEXUS_KILL_SEED", 1))
POINTS = os.environ.get("NEXUS_KILL_POINTS", "1")
IS_LONG = POINTS == "all"
PLAYED = [name for name, feature in FEATURES.items() if IS_LONG or not feature.is_slow]
# Commits that need a death at the right moment of another death, or time; and those whose own tests kill around them.
RARE = {"inbox_rescue", "model_interrupted", "run_parked", "budget", "children_begun", "run_drained"} | (set() if IS_LONG else {"approval_remind"})
ELSEWHERE = {"retention", "session_resume", "webhook_claim", "webhook_sent"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory, compiled_tools):
    made = Stage(tmp_path_factory.mktemp("stage"))
    yield made
    made.close()


def chosen(stage: Stage, feature: str) -> list:
    found = stage.boundaries_of(feature)
    chance = random.Random(f"{SEED} {feature}")
    return found if IS_LONG else sorted(chance.sample(found, min(int(POINTS), len(found))), key=found.index)


@pytest.mark.parametrize("feature", PLAYED)
def test_a_kill_at_a_boundary_of_the_journal_loses_nothing_and_repeats_nothing(needs_fault_points, stage, feature, capsys):
    chance, wrong, killed = random.Random(f"{SEED} then {feature}"), [], 0
    played = chosen(stage, feature)
    for boundary in played:
        # Every third time what goes on is killed in its turn, before or after one of its first commits.
        then = f"store.{chance.choice(('before', 'after'))}_commit:{chance.randint(1, 6)}:kill" if chance.random() < 0.33 else ""
        play = Play(stage, feature)
        try:
            killed += play.run(f"{boundary}:kill", then)
            play.remove()
        except (AssertionError, RuntimeError, SystemExit) as failure:
            wrong.append(f"NEXUS_FAULT={boundary}:kill then {then!r} in {play.nexus.folder}: {failure}")
    with capsys.disabled():
        print(f"\n  note: {feature}: {len(stage.boundaries_of(feature))} boundaries, {len(played)} played, {killed} kills, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)


def test_every_commit_that_has_a_name_is_passed_by_a_feature(needs_fault_points, stage):
    """Who adds a commit adds a feature that passes it."""
    passed = {boundary.point.rsplit(".", 1)[0] for feature in PLAYED for boundary in stage.boundaries_of(feature)}
    named = {name for name in fault_points() if not name.startswith(OF_SEVERAL_NODES)} - RARE - ELSEWHERE
    assert named <= passed, f"no feature passes {sorted(named - passed)}"


@pytest.mark.parametrize("point", ["run_cancel.after", "model_failed.after", "run_cancelled.before"])
def test_a_cancel_that_was_promised_is_kept_across_a_kill(needs_fault_points, start, provider, point):
    provider.answer = lambda call: Hang(after_pieces=1, seconds=1.5) if len(provider.calls) == 1 else Text("it went on")
    nexus = start(provider=provider, is_dev=True)
    session = nexus.admin.open_session()
    nexus.stop()
    nexus.environment["NEXUS_FAULT"] = f"{point}:1:kill"
    nexus.start()
    run = nexus.admin.send(session, "hello")
    nexus.admin.wait_for_event(run, "model.requested")
    try:
        nexus.admin.post(f"/api/v1/runs/{run}/cancel")
    except httpx.HTTPError:
        assert point == "run_cancel.after"
    assert nexus.process.wait(20) == -9, "the fault point was not passed"
    del nexus.environment["NEXUS_FAULT"]
    nexus.start()
    assert nexus.admin.wait(run)["status"] == "cancelled"
    assert len(provider.calls) == 1


def test_a_cancelled_trip_is_undone_across_a_kill_and_a_second_cancel(start, booking):
    nexus = start(CountingUpstream.config())
    definition = saga()
    definition["steps"][2] = {"id": "wait", "wait_signal": {"name": "never"}}
    put(nexus.admin, definition)
    run = begin(nexus.admin, "trip", {"base": booking.url, "order": "o1"})
    nexus.admin.wait(run, "waiting")
    booking.delay = 1.0
    assert nexus.admin.post(f"/api/v1/runs/{run}/cancel").status_code == 202
    for undone in (("DELETE", "/hotel"), ("DELETE", "/flight")):           # a kill while each is under way
        deadline = time.monotonic() + 20
        while undone not in booking.order:
            assert time.monotonic() < deadline, booking.order
            time.sleep(0.01)
        nexus.kill()
        nexus.start()
        assert nexus.admin.post(f"/api/v1/runs/{run}/cancel").status_code in (202, 409)
    assert nexus.admin.wait(run, seconds=60)["status"] == "cancelled", nexus.admin.run(run)
    assert booking.order == UNDONE


def test_kills_at_any_instant_under_load(compiled_tools, capsys):
    environment = {**os.environ, "NEXUS_BINARY": str(BINARY), "NEXUS_TOOLBOX": str(toolbox())}
    command = [sys.executable, ROOT / "bench/kills.py", "--kills", str(KILLS), "--seed", str(SEED), "--every", "25"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 + 3 * KILLS, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with capsys.disabled():
        print("\n  note: " + done.stdout.splitlines()[-5])


# ---- what the documentation shows ----

def test_the_saga_of_the_documentation_goes_as_it_stands_there():
    text = (ROOT / "docs/workflows.md").read_text()
    shown = re.search(r"\$ (scripts/saga-demo)\n(.*?)\n```", text, re.DOTALL)
    environment = {**os.environ, "NEXUS_BINARY": str(BINARY), "NEXUS_TOOLBOX": str(toolbox())}
    done = subprocess.run([ROOT / shown[1]], capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.sub(r":\d+\"", ':PORT"', re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "RUN", done.stdout)).splitlines()
    before, after = shown[2].split("\n...\n")
    assert said[:before.count("\n") + 1] == before.split("\n") and said[-2:] == after.split("\n"), done.stdout
