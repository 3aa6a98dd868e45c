"""SIGKILL in the middle of what is long (a migration, retention, an export) and a disk without room: a clear error, nothing lost, and on it
goes.  NEXUS_KILL_POINTS=all plays every boundary and every older schema."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from harness.books import Books
from harness.client import problem
from harness.kills import boundaries
from harness.scripts import call, say, script
from harness.server import ROOT, clean_environment
from harness.upstream import CountingUpstream

POINTS = os.environ.get("NEXUS_KILL_POINTS", "3")
SEED = os.environ.get("NEXUS_KILL_SEED", "1")
MIGRATIONS = sorted((ROOT / "src/store/sqlite/migrations").glob("*.sql"))
DAY_US = 86_400_000_000


def some(found: list, what: str) -> list:
    chance = random.Random(f"{SEED} {what}")
    return found if POINTS == "all" else sorted(chance.sample(found, min(int(POINTS), len(found))), key=found.index)


def work(nexus, text: str = "done") -> str:
    outcome = nexus.admin.ask(script(call("text_processing", operation="upper", text="x"), say(text)))
    assert outcome.status == "completed", outcome.run
    return outcome.id


def check_books(nexus) -> None:
    nexus.stop()
    books = Books(nexus.data)
    books.check()
    assert books.rows("PRAGMA integrity_check")[0][0] == "ok" and not books.rows("PRAGMA foreign_key_check")
    books.close()


def die(nexus, fault: str) -> None:
    """Started under this fault it is killed, now or when it works."""
    nexus.environment["NEXUS_FAULT"] = f"{fault}:kill"
    nexus.spawn()
    assert nexus.process.wait(20) == -signal.SIGKILL, nexus.log_tail()
    nexus.environment["NEXUS_FAULT"] = ""


def trace(nexus) -> list:
    """Starts it with a trace; what it passes until it is ready."""
    nexus.environment["NEXUS_FAULT"] = "trace"
    nexus.start()
    nexus.environment["NEXUS_FAULT"] = ""
    return boundaries(nexus.log_text())


# ---- migrations ----

def test_a_kill_during_the_first_start_leaves_what_the_next_one_goes_on_with(needs_fault_points, start):
    first = start.prepare(is_dev=True)
    found = [boundary for boundary in trace(first) if boundary.point.startswith(("migration", "store"))]
    first.stop()
    assert sum(boundary.point == "migration.before" for boundary in found) == len(MIGRATIONS)
    for boundary in some(found, "first start"):
        nexus = start.prepare(is_dev=True)
        die(nexus, str(boundary))
        nexus.start()
        work(nexus)
        assert nexus.admin.post("/api/v1/audit/verify").json()["ok"]
        check_books(nexus)


def older(new: Path, old: Path, version: int) -> None:
    """The same rows in the schema of an older program, as far as it had tables and columns for them."""
    database = sqlite3.connect(old)
    database.execute("CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, "
                     "applied_at INTEGER NOT NULL)")
    for file in MIGRATIONS[:version]:
        database.executescript(file.read_text())
        number, _, name = file.stem.partition("_")
        database.execute("INSERT INTO schema_migrations VALUES (?, ?, ?, 1)", (int(number), name, hashlib.sha256(file.read_bytes()).hexdigest()))
    database.commit()
    database.execute("ATTACH ? AS new", (str(new),))
    columns = {}
    for schema in ("main", "new"):
        for (table,) in database.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
            columns[schema, table] = [row[1] for row in database.execute(f"PRAGMA {schema}.table_info({table})")]
    for (schema, table), there in columns.items():
        if schema == "main" and table != "schema_migrations" and ("new", table) in columns:
            names = ", ".join(name for name in there if name in columns["new", table])
            database.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")
    database.commit()
    database.close()


def test_a_kill_during_the_migration_of_an_older_store_loses_no_row(needs_fault_points, start):
    source = start.prepare(is_dev=True)
    source.start()
    runs = [work(source, f"run {number}") for number in range(5)]
    source.stop()
    versions = list(range(4, len(MIGRATIONS)))                # before that the tables of today's rows were others
    for version in some(versions, "schema")[:2] if POINTS != "all" else versions:
        folders = start.prepare(is_dev=True)
        shutil.copytree(source.data, folders.data, ignore=shutil.ignore_patterns("nexus.db*"))
        older(source.data / "nexus.db", folders.data / "nexus.db", version)
        folders.admin_key = source.admin_key
        sides = [f"migration.{side}:{number}" for number in range(1, len(MIGRATIONS) - version + 1) for side in ("before", "after")]
        for fault in some(sides, f"schema {version}"):
            nexus = start.prepare(is_dev=True)
            shutil.copytree(folders.data, nexus.data)
            nexus.admin_key = source.admin_key
            die(nexus, fault)
            nexus.start()
            for run in runs:
                events = nexus.admin.events(run)
                assert events[-1]["type"] == "run.completed" and nexus.admin.run(run)["last_seq"] == len(events)
            work(nexus)
            check_books(nexus)


# ---- retention ----

def test_a_kill_during_retention_leaves_no_half_run(needs_fault_points, start):
    source = start({"retention": {"runs": "24h"}}, is_dev=True)
    old, young = [work(source, f"old {number}") for number in range(8)], work(source, "young")
    source.stop()
    database = sqlite3.connect(source.data / "nexus.db")
    past = 10 * DAY_US
    database.execute(f"UPDATE agent_runs SET started_at = started_at - {past}, completed_at = completed_at - {past} WHERE id <> ?", (young,))
    database.commit()
    database.close()

    def copy():
        nexus = start.prepare({"retention": {"runs": "24h"}}, is_dev=True)
        shutil.copytree(source.data, nexus.data)
        nexus.admin_key = source.admin_key
        return nexus

    def rows(nexus, query: str) -> list:
        database = sqlite3.connect(f"file:{nexus.data / 'nexus.db'}?mode=ro", uri=True)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()

    def wait_until_gone(nexus) -> None:
        """For everybody, and then all that was theirs."""
        deadline = time.monotonic() + 30
        while any(nexus.admin.get(f"/api/v1/runs/{run}").status_code == 200 for run in old) or len(rows(nexus, "SELECT 1 FROM agent_runs")) > 1:
            assert time.monotonic() < deadline, "retention does not get on"
            time.sleep(0.1)

    first = copy()
    trace(first)
    wait_until_gone(first)
    found = [boundary for boundary in boundaries(first.log_text()) if boundary.point.startswith("retention")]
    first.stop()
    assert len(found) >= 4, found
    for boundary in some(found, "retention"):
        nexus = copy()
        die(nexus, str(boundary))
        for run, last, removed_at, events in rows(nexus, "SELECT id, last_seq, removed_at, (SELECT count(*) FROM run_events e WHERE "
                                                         "e.tenant_id = r.tenant_id AND e.run_id = r.id) FROM agent_runs r"):
            assert run in (*old, young) and (removed_at or events == last), f"a run that is there for everybody has {events} of {last} events"
        nexus.start()
        wait_until_gone(nexus)
        assert nexus.admin.run(young)["status"] == "completed" and nexus.admin.events(young)[-1]["type"] == "run.completed"
        assert nexus.admin.post("/api/v1/budgets/verify").json()["ok"] and nexus.admin.post("/api/v1/audit/verify").json()["ok"]
        nexus.stop()
        books = Books(nexus.data)
        for table in ("run_events", "tool_calls", "approvals"):
            assert not books.rows(f"SELECT 1 FROM {table} WHERE run_id <> ?", young), f"rows of {table} are left of runs that are gone"
        books.close()


# ---- exports ----

def long_session(nexus) -> str:
    """8 MB of conversation."""
    messages = [{"role": role, "content": f"{number} " + "some words that were said. " * 1000}
                for number in range(150) for role in ("user", "assistant")]
    document = {"format": "nexus.session/1", "session": {}, "messages": messages, "runs": [], "files": []}
    reply = nexus.admin.post("/api/v1/sessions/import", document)
    assert reply.status_code == 201, reply.text
    return reply.json()["id"]


def test_an_export_that_is_cut_by_a_kill_does_not_pass_for_a_whole_one(start, tmp_path):
    nexus = start()
    session = long_session(nexus)
    with pytest.raises(httpx.HTTPError), nexus.admin.http.stream("GET", f"/api/v1/sessions/{session}/export") as reply:
        for number, _ in enumerate(reply.iter_raw(65536)):
            if number == 2:
                nexus.kill()
    nexus.start()
    file = tmp_path / "session.json"
    environment = clean_environment(tmp_path, {"NEXUS_SERVER": nexus.url, "NEXUS_API_KEY": nexus.admin_key})
    command = [nexus.binary, "session", "export", session, "--output", str(file)]
    exporting = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("session.json*")) and exporting.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    exporting.send_signal(signal.SIGSTOP)
    nexus.kill()
    exporting.send_signal(signal.SIGCONT)
    _, told = exporting.communicate(timeout=30)
    if exporting.returncode != 0:                            # else it had all of it before the kill
        assert told.strip(), "it says nothing"
        assert not file.exists() or not is_json(file), "half a file passes for a whole one"
    else:
        assert is_json(file)
    nexus.start()
    done = nexus.command("session", "export", session, "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(file.read_text())["messages"]) == 300
    check_books(nexus)


def is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except ValueError:
        return False
    return True


# ---- no room ----

class Limit:
    """No file of the process may grow beyond what the largest has now, and a little."""

    def __init__(self, nexus):
        self.nexus = nexus

    def fill(self) -> None:
        largest = max(path.stat().st_size for path in self.nexus.data.glob("nexus.db*"))
        self.set(largest + 8192)

    def free(self) -> None:
        if self.nexus.is_running:                            # a new process has no limit
            self.set(resource.RLIM_INFINITY)

    def set(self, size: int) -> None:
        resource.prlimit(self.nexus.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Disk:
    """A small file system of its own; a file takes the rest of it."""

    def __init__(self, nexus):
        self.folder = nexus.data
        self.filler = nexus.data / "filler"

    @staticmethod
    def mount(folder: Path) -> bool:
        folder.mkdir(parents=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "nexus-test", str(folder)], capture_output=True, check=False)
        return done.returncode == 0

    def fill(self) -> None:
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass

    def free(self) -> None:
        self.filler.unlink(missing_ok=True)


@pytest.fixture
def tmpfs(tmp_path):
    """Where the next server's data folder will be."""
    folder = tmp_path / "node0/data"
    if not Disk.mount(folder):
        pytest.skip("mounting a small file system needs more rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def play_without_room(nexus, upstream, kind, *, then_kill: bool) -> None:
    """Runs are at work when the room ends; they go on when there is some again."""
    room = kind(nexus)
    admin = nexus.admin

    def effect(name: str) -> str:
        steps = [call("http_request", method="POST", url=f"{upstream.url}/effects", body=name), {"sleep_ms": 300, "text": "done"}]
        return script({"sleep_ms": 300, **steps[0]}, steps[1])

    before = [(f"e{number}", admin.send(admin.open_session(), effect(f"e{number}"))) for number in range(6)]
    time.sleep(0.15)
    room.fill()
    deadline, refused = time.monotonic() + 20, None
    while time.monotonic() < deadline and refused is None:
        reply = admin.post("/api/v1/sessions", {"metadata": {"x": "y" * 4000}})
        refused = reply if reply.status_code != 201 else None
    assert refused is not None and refused.status_code in (503, 507), refused
    assert problem(refused) in ("disk_full", "store", "unavailable") and "disk" in refused.text, refused.text
    time.sleep(1)
    assert nexus.is_running, nexus.log_tail()
    assert admin.get("/healthz").status_code == 200
    if then_kill:
        nexus.kill()
        room.free()
        nexus.start()
        admin = nexus.admin
    else:
        room.free()
    for name, run in before:
        outcome = admin.outcome(run, seconds=60)
        assert outcome.status == "completed", outcome.run
        [end] = outcome.of("tool.completed")
        times = upstream.effects()[name]
        assert times <= 1 and (end["data"]["status"] != "succeeded" or times == 1), (name, times, end)
        assert end["data"]["status"] in ("succeeded", "unknown"), end
    work(nexus)
    assert admin.post("/api/v1/budgets/verify").json()["ok"] and admin.post("/api/v1/audit/verify").json()["ok"]
    check_books(nexus)


@pytest.mark.parametrize("then_kill", [False, True], ids=["and room again", "and a kill"])
def test_a_file_that_may_not_grow_stops_nothing_for_good(start, upstream, then_kill):
    play_without_room(start(CountingUpstream.config()), upstream, Limit, then_kill=then_kill)


@pytest.mark.parametrize("then_kill", [False, True], ids=["and room again", "and a kill"])
def test_a_full_disk_stops_nothing_for_good(tmpfs, start, upstream, then_kill):
    play_without_room(start(CountingUpstream.config()), upstream, Disk, then_kill=then_kill)
