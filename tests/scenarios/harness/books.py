"""The books of a stopped server: its database, read by somebody who does not trust it."""

import json
import sqlite3
from collections import defaultdict
from pathlib import Path

FIELDS = ("tokens", "time_ms", "cost_nanousd", "tool_calls")
Cost = tuple[int, int, int, int]
NOTHING: Cost = (0, 0, 0, 0)


def plus(a: Cost, b: Cost) -> Cost:
    return tuple(x + y for x, y in zip(a, b))


def cost_of(value: dict) -> Cost:
    return tuple(int(value.get(name) or 0) for name in FIELDS)


class Books:
    def __init__(self, data: Path):
        self.database = sqlite3.connect(f"file:{data / 'nexus.db'}?mode=ro", uri=True)
        self.database.row_factory = sqlite3.Row

    def close(self) -> None:
        self.database.close()

    def rows(self, sql: str, *values) -> list[sqlite3.Row]:
        return self.database.execute(sql, values).fetchall()

    def events(self) -> dict[str, list[tuple[int, str, dict]]]:
        """(seq, type, data) of each run."""
        runs = defaultdict(list)
        for row in self.rows("SELECT run_id, seq, type, data FROM run_events ORDER BY run_id, seq"):
            runs[row["run_id"]].append((row["seq"], row["type"], json.loads(row["data"])))
        return dict(runs)

    def ledger_by(self, column: str, level: str = "run") -> dict[str, Cost]:
        """Sums of the ledger.  What a crash lost of a lease (forfeited) is an entry of one account, which `kind` names."""
        sums: dict[str, Cost] = defaultdict(lambda: NOTHING)
        sql = f"SELECT {column} AS subject, {', '.join(FIELDS)} FROM ledger WHERE basis <> 'forfeited' OR kind = ?"
        for row in self.rows(sql, level):
            sums[row["subject"]] = plus(sums[row["subject"]], tuple(row[name] for name in FIELDS))
        return dict(sums)

    def by_run(self) -> dict[str, Cost]:
        """What each run took, with all that the runs below it took."""
        sums: dict[str, Cost] = defaultdict(lambda: NOTHING)
        sql = f"SELECT run_id, run_path, {', '.join(FIELDS)} FROM ledger WHERE run_id IS NOT NULL"
        for row in self.rows(sql):
            for run in [row["run_id"], *(row["run_path"] or "").split("/")]:
                sums[run] = plus(sums[run], tuple(row[name] for name in FIELDS))
        return dict(sums)

    def check_periods(self) -> None:
        """The newest period of each account that has them is the sum of its entries since it began."""
        columns = {"key": "key_id", "user": "user_id", "tenant": "tenant_id"}
        for row in self.rows("SELECT p.* FROM budget_periods p JOIN budgets b USING (tenant_id, level, subject) "
                             "WHERE b.period IS NOT NULL AND p.started_at >= b.period_start"):
            if len(row["period"]) > 10:            # it began in the middle of a day or month, and ends with it
                continue
            sql = (f"SELECT {', '.join(f'COALESCE(SUM({name}), 0)' for name in FIELDS)} FROM ledger WHERE {columns[row['level']]} = ? "
                   "AND strftime(?, at / 1000000, 'unixepoch') = ? AND (basis <> 'forfeited' OR kind = ?)")
            form = "%Y-%m-%d" if len(row["period"]) == 10 else "%Y-%m"
            entries = tuple(self.rows(sql, row["subject"], form, row["period"], row["level"])[0])
            spent = tuple(row["spent_" + name] for name in FIELDS)
            assert spent == entries, f"{row['level']} {row['subject']} in {row['period']}: account {spent}, ledger {entries}"

    def check(self) -> None:
        """Everything that must add up in a store where nothing runs any more."""
        settled: dict[str, Cost] = {}
        first = {row["id"]: (row["forked_at"] or 0) + 1 for row in self.rows("SELECT id, forked_at FROM agent_runs")}
        for run, events in self.events().items():
            assert [seq for seq, _, _ in events] == list(range(first[run], first[run] + len(events))), f"run {run} has a gap"
            reserved = [data["reservation_id"] for _, kind, data in events if kind == "budget.reserved"]
            ended = [data["reservation_id"] for _, kind, data in events if kind == "budget.settled"]
            if events[-1][1] in ("run.completed", "run.failed", "run.cancelled"):
                assert sorted(reserved) == sorted(ended), f"run {run} left a reservation open, or settled one twice"
            total = NOTHING
            for _, kind, data in events:
                if kind == "budget.settled":
                    total = plus(total, cost_of(data["amount"]))
            settled[run] = total
        ledger = self.ledger_by("run_id")
        for run, total in settled.items():
            assert ledger.get(run, NOTHING) == total, f"run {run}: ledger {ledger.get(run)}, journal {total}"
        self.check_accounts()

    def check_accounts(self) -> None:
        by_level = {level: self.ledger_by(f"{level}_id", level) for level in ("session", "key", "user", "tenant")}
        by_level["run"] = self.by_run()
        for row in self.rows("SELECT * FROM budgets"):
            spent = tuple(row["spent_" + name] for name in FIELDS)
            leased = tuple(row["leased_" + name] for name in FIELDS)
            ledger = by_level[row["level"]].get(row["subject"], NOTHING)
            assert spent == ledger, f"{row['level']} {row['subject']}: account {spent}, ledger {ledger}"
            assert leased == NOTHING, f"{row['level']} {row['subject']}: a lease was left over: {leased}"
        self.check_periods()
