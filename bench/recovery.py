#!/usr/bin/env python3
"""What a start costs: runs that were interrupted go on, runs that wait are left alone.

    bench/recovery.py [--interrupted 10000] [--waiting 50000] [--binary build/nexus]

One run is killed in its model call and one waits for an approval; both are copied in the stopped database as often as told, ids replaced.
Then the program starts: the time until it is ready, until all interrupted runs have gone on and have ended, and its memory.
"""

import argparse
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/scenarios"))

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
POLICY = """
package nexus.agent.policy
import rego.v1
default allow := false
allow if input.action in {"run.start", "model.call"}
allow if { input.tool.category == "system"; input.approval.status == "approved"; input.approval.approver != input.user.id }
"""
OF_RUN = {"agent_runs": "id", "run_events": "run_id", "messages": "run_id", "tool_calls": "run_id", "approvals": "run_id", "ledger": "run_id"}


class Template:
    """The rows of one run and its session, as they are to be copied."""

    def __init__(self, database: sqlite3.Connection, run: str):
        [(session,)] = database.execute("SELECT session_id FROM agent_runs WHERE id = ?", (run,)).fetchall()
        self.rows = []
        self.take(database, "sessions", "id", session)
        self.take(database, "budgets", "subject", session)
        for table, column in OF_RUN.items():
            self.take(database, table, column, run)
        kept = {row[0] for row in database.execute("SELECT id FROM tenants")} | {row[0] for row in database.execute("SELECT id FROM api_keys")}
        names = {name for _, row in self.rows for value in row if isinstance(value, str) for name in UUID.findall(value)}
        self.ids = sorted(names - kept)

    def take(self, database, table, column, value):
        for row in database.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,)):
            self.rows.append((table, tuple(row)))

    def copy(self, database: sqlite3.Connection, times: int) -> None:
        text = json.dumps([list(row) for _, row in self.rows])
        pieces = re.split("(" + "|".join(self.ids) + ")", text)
        tables = [table for table, _ in self.rows]
        for _ in range(times):
            new = {old: old[:13] + str(uuid.uuid4())[13:] for old in self.ids}
            rows = json.loads("".join(new.get(piece, piece) for piece in pieces))
            for table, row in zip(tables, rows):
                database.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
        database.commit()


def memory_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count(nexus, status: str) -> int:
    database = sqlite3.connect(f"file:{nexus.data / 'nexus.db'}?mode=ro", uri=True)
    [(number,)] = database.execute("SELECT count(*) FROM agent_runs WHERE status = ?", (status,)).fetchall()
    database.close()
    return number


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--interrupted", type=int, default=10000)
    options.add_argument("--waiting", type=int, default=50000)
    options.add_argument("--binary", default=os.environ.get("NEXUS_BINARY", str(ROOT / "build/nexus")))
    asked = options.parse_args()
    os.environ["NEXUS_BINARY"] = asked.binary
    from harness.provider import FakeProvider, Hang
    from harness.scripts import call, say, script
    from harness.server import Nexus
    from harness.tools import DANGEROUS, tools_with_a_dangerous_one

    folder = Path(tempfile.mkdtemp(prefix="nexus-recovery-"))
    provider = FakeProvider(lambda call: Hang())
    offline = {"name": "offline", "type": "offline"}
    hanging = provider.config()
    (folder / "policy").mkdir()
    (folder / "policy/own.rego").write_text(POLICY)
    base = {
        "tools": {"dir": str(tools_with_a_dangerous_one(folder / "tools"))}, "policy": {"dir": str(folder / "policy")},
        "budgets": {"session": {"tokens": 100000}}, "approvals": {"expiry": "24h"},
    }
    models = [{"name": "offline", "targets": [{"provider": "offline", "model": "offline"}]}]
    nexus = Nexus(folder / "node", {**base, "providers": [*hanging["providers"], offline], "models": [*models, *hanging["models"]]},
                  environment=provider.environment)
    try:
        nexus.start()
        admin = nexus.admin
        waiting = admin.send(admin.open_session(), script(call(DANGEROUS, operation="upper", text="x"), say("done")))
        admin.wait(waiting, "waiting")
        interrupted = admin.send(admin.open_session(), "hello", model="tiny")
        admin.wait_for_event(interrupted, "model.requested")
        nexus.kill()
        database = sqlite3.connect(nexus.data / "nexus.db")
        database.execute("PRAGMA synchronous = OFF")
        templates = [(Template(database, interrupted), asked.interrupted - 1), (Template(database, waiting), asked.waiting - 1)]
        for template, times in templates:
            template.copy(database, max(times, 0))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        # From now on the model that hung answers at once.
        models.append({"name": "tiny", "targets": [{"provider": "offline", "model": "offline"}]})
        nexus.write_config({**base, "providers": [offline], "models": models})
        begun = time.monotonic()
        nexus.start()
        ready = time.monotonic() - begun
        while count(nexus, "running") > 0 and time.monotonic() - begun < 300:
            time.sleep(0.05)
        ended = time.monotonic() - begun
        time.sleep(1)
        print(f"{asked.interrupted} interrupted, {asked.waiting} waiting: ready after {ready:.2f} s, the interrupted ones had ended after "
              f"{ended:.2f} s, {cpu_seconds(nexus.process.pid):.2f} s of CPU, {memory_bytes(nexus.process.pid) / 1e6:.0f} MB")
        print(f"completed {count(nexus, 'completed')}, running {count(nexus, 'running')}, waiting {count(nexus, 'waiting')}, failed {count(nexus, 'failed')}")
    finally:
        nexus.kill()
        provider.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
