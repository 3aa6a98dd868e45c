"""The account of a load under kills: what callers were told (`load.py`), what the world saw, and what the server kept, compared.

`Account.check` is for a moment in which nothing is at work; it looks at what is new since the last time.  What does not fit goes to
`load.wrong`.  The store is read by SQL, beside the server; runs, budgets and audit by the API and the command line too.
"""

import json
import re
import sqlite3
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from .load import CAP, NAME, Load
from .tools import DANGEROUS

FINAL = ("completed", "failed", "cancelled")
LOST_SECONDS = 1.0                                   # a plain call that ended longer before a kill is booked (50 ms, and the writer's delay)
UPLOADED = re.compile(r"^u\d+x\d+\.txt$")
NUMBER = re.compile(r"n(\d+)$")


@dataclass
class Sample:
    kills: int
    runs: int
    bytes: int
    rss_kib: int
    descriptors: int


@dataclass
class Run:
    id: str
    row: sqlite3.Row
    events: list[tuple[int, str, dict]] = field(default_factory=list)

    def of(self, *kinds: str) -> list[dict]:
        return [data for _, kind, data in self.events if kind in kinds]


class Account:
    def __init__(self, load: Load):
        self.load, self.nexus = load, load.nexus
        self.checked: set[str] = set()
        self.seen: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.lost_oldest = 0.0
        self.names: dict[str, str] = {}              # name -> the run that it is in

    def blame(self, text: str) -> None:
        self.load.blame(text)

    def expect(self, is_so: bool, *what) -> None:
        if not is_so:
            self.blame(" ".join(map(str, what)))

    def rows(self, sql: str, *values) -> list[sqlite3.Row]:
        return self.database.execute(sql, values).fetchall()

    # ---- rest ----

    def settle(self, seconds: float = 90) -> None:
        """Until everything that was begun has ended."""
        deadline = time.monotonic() + seconds
        while True:
            live = self.live()
            if not live and not self.load.errands:
                return
            if time.monotonic() > deadline:
                for run in live:
                    self.blame(f"a run that does not end: {run} {self.tail_of(run[0])}")
                for errand in self.load.errands:
                    self.blame(f"nobody takes {errand.path} {errand.body}")
                raise SystemExit("the load does not come to rest")
            time.sleep(0.05)

    def live(self) -> list[tuple]:
        database = self.open()
        rows = database.execute("SELECT id, status, agent FROM agent_runs WHERE status NOT IN ('completed', 'failed', 'cancelled')").fetchall()
        rows += database.execute("SELECT session_id, mode, 'inbox' FROM session_inbox").fetchall()
        due = "SELECT name, 'is due', workflow FROM schedules WHERE NOT is_paused AND next_at < ?"
        rows += database.execute(due, (time.time() * 1e6,)).fetchall()
        database.close()
        return [tuple(row) for row in rows]

    def tail_of(self, run: str) -> list:
        database = self.open()
        rows = database.execute("SELECT seq, type, data FROM run_events WHERE run_id = ? ORDER BY seq DESC LIMIT 6", (run,)).fetchall()
        database.close()
        return [tuple(row) for row in reversed(rows)]

    def open(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"file:{self.nexus.data / 'nexus.db'}?mode=ro", uri=True, timeout=30)
        database.row_factory = sqlite3.Row
        return database

    # ---- all of it ----

    def check(self) -> None:
        """Nothing is at work, the server is up."""
        time.sleep(0.15)                             # usage that is written behind
        self.database = self.open()
        try:
            runs = self.new_runs()
            self.check_accepted(runs)
            self.check_journals(runs)
            self.check_effects(runs)
            self.check_children(runs)
            self.check_approvals(runs)
            self.check_trips(runs)
            self.check_naps(runs)
            self.check_talks()
            self.check_clones()
            self.check_writers()
            self.check_schedules()
            self.check_budgets()
            self.check_plain_calls()
            self.check_left_over()
            self.choose_sources(runs)
        finally:
            self.database.close()
        self.load.services.forget(self.names_of(runs))
        self.load.begun = [begun for begun in self.load.begun if begun.run_id not in self.checked]
        self.load.raise_limit()
        self.sample()

    def new_runs(self) -> dict[str, Run]:
        runs = {row["id"]: Run(row["id"], row) for row in self.rows("SELECT * FROM agent_runs") if row["id"] not in self.checked}
        ids = list(runs)
        for at in range(0, len(ids), 500):
            some = ids[at:at + 500]
            sql = f"SELECT run_id, seq, type, data FROM run_events WHERE run_id IN ({','.join('?' * len(some))}) ORDER BY run_id, seq"
            for row in self.rows(sql, *some):
                runs[row["run_id"]].events.append((row["seq"], row["type"], json.loads(row["data"])))
        self.checked |= set(runs)
        self.seen["runs"] += len(runs)
        for run in runs.values():
            self.seen[run.row["status"]] += 1
            self.seen["resumed"] += len(run.of("run.resumed")) > 0
        return runs

    def names_of(self, runs: dict[str, Run]) -> set[str]:
        return {name for name, run in self.names.items() if run in runs}

    # ---- what callers were told ----

    def check_accepted(self, runs: dict[str, Run]) -> None:
        for row in self.rows("SELECT run_id, content FROM messages WHERE role = 'user' AND run_id IS NOT NULL"):
            if row["run_id"] not in runs:
                continue
            found = NAME.search(row["content"]) or re.search(r'"name":"(\w+)"', row["content"])
            run = runs[row["run_id"]].row
            if found and run["forked_from"] is None and run["parent_run_id"] is None:
                before = self.names.setdefault(found[1], row["run_id"])
                self.expect(before == row["run_id"] or NUMBER.search(found[1]), f"{found[1]} was begun twice: {before} and {row['run_id']}")
        api = self.load.caller("admin")
        for begun in self.load.begun:
            reply = api("GET", f"/api/v1/runs/{begun.run_id}")
            self.expect(reply.status == 200, f"{begun}: accepted, and now {reply.status}")
            status = reply.body.get("status")
            if status not in begun.expected:
                self.blame(f"{begun}: {status} {reply.body.get('error')} {self.tail_of(begun.run_id)}")
            self.expect(begun.run_id in runs, f"{begun}: not in the store")
            if begun.is_signalled and status == "completed" and "cancelled" in begun.expected:
                self.seen["completed before a cancel was heard"] += 1
        self.seen["accepted"] += len(self.load.begun)
        api.close()

    def check_journals(self, runs: dict[str, Run]) -> None:
        for run in runs.values():
            kinds = [kind for _, kind, _ in run.events]
            first = (run.row["forked_at"] or 0) + 1
            self.expect([seq for seq, _, _ in run.events] == list(range(first, first + len(kinds))), f"run {run.id} has a gap")
            self.expect(run.events and run.events[-1][0] == run.row["last_seq"], f"run {run.id}: last_seq {run.row['last_seq']}")
            ends = [kind for kind in kinds if kind in ("run.completed", "run.failed", "run.cancelled")]
            self.expect(ends == ["run." + run.row["status"]] and kinds[-1] == ends[0], f"run {run.id} is {run.row['status']} and says {ends}")
            reserved = sorted(data["reservation_id"] for data in run.of("budget.reserved"))
            settled = sorted(data["reservation_id"] for data in run.of("budget.settled"))
            self.expect(reserved == settled, f"run {run.id}: reservations {reserved}, settled {settled}")
            intended = Counter(data["tool_call_id"] for data in run.of("tool.intended"))
            completed = Counter(data["tool_call_id"] for data in run.of("tool.completed"))
            self.expect(max(completed.values(), default=0) <= 1, f"run {run.id}: a call that completed twice: {completed}")
            self.expect(set(intended) <= set(completed), f"run {run.id}: calls without an outcome: {set(intended) - set(completed)}")

    # ---- the world ----

    def check_effects(self, runs: dict[str, Run]) -> None:
        """Of agents' calls: once, or shown as unknown.  Of workflows' steps: once, by their keys."""
        told = set()
        with self.load.services.lock:
            once = dict(self.load.services.once)
            done = {name: list(list_) for name, list_ in self.load.services.done.items()}
        ids = list(runs)
        for at in range(0, len(ids), 500):
            some = ids[at:at + 500]
            sql = f"SELECT * FROM tool_calls WHERE tool_name = 'http_request' AND run_id IN ({','.join('?' * len(some))})"
            for row in self.rows(sql, *some):
                url = json.loads(row["input"]).get("url", "")
                kind, name, *_ = url.removeprefix(self.load.services.url).strip("/").split("/")
                if kind != "once":
                    continue
                told.add(name)
                times, status = once.get(name, 0), row["status"]
                self.seen[f"effect {status}"] += 1
                self.expect(times <= 1, f"{name} happened {times} times: {status}")
                self.expect(status in ("succeeded", "unknown", "failed", "denied"), f"{name}: {status}")
                self.expect(status != "succeeded" or times == 1, f"{name} is said to have happened and did not")
                self.expect(status not in ("failed", "denied") or times == 0, f"{name} is {status} and happened: {row['error_message']}")
        self.expect(set(once) <= told, f"nobody tells of {set(once) - told}")
        for name, list_ in done.items():
            self.expect(max(Counter(list_).values()) == 1, f"{name} did something twice: {list_}")
            if name.startswith("f") and (run := self.names.get(name)) in runs:
                self.expect(runs[run].row["status"] == "completed" and sorted(list_) == [("POST", str(n)) for n in range(5)],
                            f"{name}: {runs[run].row['status']} {list_}")
                self.seen["fans"] += 1
            self.expect(name in self.names, f"nobody has begun {name}: {list_}")

    def check_trips(self, runs: dict[str, Run]) -> None:
        """Undone in reverse."""
        for name, list_ in self.load.services.done.items():
            run = runs.get(self.names.get(name))
            if not name.startswith(("good", "bad")) or run is None:
                continue
            status = run.row["status"]
            booked = [what for method, what in list_ if method == "POST"]
            undone = [what for method, what in list_ if method == "DELETE"]
            self.seen[f"trip {status}"] += 1
            if status == "completed":
                is_right = booked == ["flight", "hotel", "car"] and not undone
            elif status == "failed":
                is_right = booked == ["flight", "hotel"] and undone == ["hotel", "flight"]
            else:                                    # cancelled: what was under way may happen, also later, and nobody knows
                is_right = undone in (booked[::-1], booked[-2::-1]) and booked == ["flight", "hotel", "car"][:len(booked)]
            is_open = status == "cancelled" and len(booked) > len(undone)
            methods = [method for method, what in list_ if not (is_open and what == booked[-1])]
            self.expect(is_right and methods == sorted(methods, reverse=True), f"trip {name} {run.id} {status}: {list_}")

    def check_naps(self, runs: dict[str, Run]) -> None:
        for begun in self.load.begun:
            run = runs.get(begun.run_id)
            if run is None or run.row["agent"] != "workflow:nap" or not run.of("run.completed"):
                continue
            output = (run.of("run.completed")[-1].get("parts") or {}).get("output")
            if output is None:
                [row] = self.rows("SELECT parts FROM messages WHERE run_id = ? AND role = 'assistant'", run.id)[-1:] or [None]
                output = json.loads(row["parts"])["output"] if row and row["parts"] else {}
            self.seen["naps"] += 1
            self.expect(output.get("loud") == begun.name.upper(), f"nap {begun}: {output}")
            self.expect(not begun.is_signalled or output.get("got") == {"who": begun.name}, f"a signal was lost: {begun} {output}")

    def check_children(self, runs: dict[str, Run]) -> None:
        """Each call of an agent began one run, no more."""
        below = defaultdict(list)
        for run in runs.values():
            if run.row["parent_run_id"]:
                below[run.row["parent_run_id"]].append(run.id)
        for run in runs.values():
            started = [data["child_run_id"] for data in run.of("run.child_started")]
            ended = [data["child_run_id"] for data in run.of("run.child_completed")]
            self.expect(len(set(started)) == len(started), f"run {run.id} began a child twice: {started}")
            self.expect(set(started) == set(below[run.id]) or run.row["forked_from"] or run.row["status"] == "cancelled",
                        f"run {run.id}: children {below[run.id]}, journal {started}")
            self.expect(sorted(ended) == sorted(started) or run.row["status"] == "cancelled", f"run {run.id}: {started} began, {ended} ended")
            self.seen["children"] += len(started)

    def check_approvals(self, runs: dict[str, Run]) -> None:
        votes = defaultdict(list)
        for row in self.rows("SELECT approval_id, number, approver FROM approval_votes"):
            votes[row["approval_id"]].append((row["number"], row["approver"]))
        for row in self.rows("SELECT a.*, t.status AS call_status FROM approvals a LEFT JOIN tool_calls t ON t.id = a.tool_call_id"):
            if row["run_id"] not in runs:
                continue
            given = sorted(votes[row["id"]])
            self.expect(row["status"] in ("consumed", "approved", "expired", "denied"), f"approval {row['id']}: {row['status']}")
            self.expect([number for number, _ in given] == list(range(1, len(given) + 1)), f"approval {row['id']}: votes {given}")
            self.expect(len({approver for _, approver in given}) == len(given), f"approval {row['id']}: voted twice: {given}")
            self.expect(row["status"] != "consumed" or len(given) == (row["quorum"] or 1), f"approval {row['id']}: {given} of {row['quorum']}")
            self.seen["approvals"] += 1
        for run in runs.values():
            for data in run.of("tool.intended"):
                if data.get("name") == DANGEROUS:
                    decided = [d for d in run.of("approval.decided") if d.get("tool_call_id") in (None, data["tool_call_id"])]
                    self.expect(decided, f"run {run.id}: nobody has approved {data}")

    # ---- sessions ----

    def check_talks(self) -> None:
        """What was taken is there once, in the order in which it was said."""
        for talk in self.load.talks:
            heard = []
            for row in self.rows("SELECT content FROM messages WHERE session_id = ? AND role = 'user' ORDER BY created_at, id", talk.session):
                heard += [found[1]] if (found := NAME.search(row["content"])) else []
            said = [name.lstrip("?") for name in talk.said]
            surely = [name for name in talk.said if not name.startswith("?")]
            self.seen["messages"] += len(heard)
            self.expect(len(set(heard)) == len(heard), f"session {talk.session}: heard twice: {heard}")
            self.expect(set(surely) <= set(heard), f"session {talk.session} ({talk.policy}): lost {set(surely) - set(heard)}")
            if talk.policy != "interrupt":           # an interruption goes before what waits
                self.expect(heard == [name for name in said if name in heard], f"session {talk.session} ({talk.policy}): said {said}, heard {heard}")
        self.load.talks = [talk for talk in self.load.talks if len(talk.said) < 8]
        self.expect(not self.rows("SELECT * FROM session_inbox"), "messages that wait for their turn are left")
        busy = self.rows("SELECT id FROM sessions WHERE live_run_id IS NOT NULL OR inbox_count <> 0")
        self.expect(not busy, f"sessions that are left busy: {[row['id'] for row in busy]}")

    def check_clones(self) -> None:
        count = {row[0]: row[1] for row in self.rows("SELECT session_id, count(*) FROM messages GROUP BY session_id")}
        told = dict(self.load.clones)
        for row in self.rows("SELECT id, metadata FROM sessions WHERE metadata LIKE '%cloned_from%' AND status = 'active'"):
            source = json.loads(row["metadata"]).get("cloned_from")
            self.expect(count.get(row["id"]) == count.get(source), f"session {row['id']} is half a clone of {source}")
            told.pop(row["id"], None)
            self.seen["clones"] += 1
        self.expect(not told, f"clones that are not there: {told}")
        self.load.clones.clear()

    def check_writers(self) -> None:
        """One run at a time in a session: what they wrote stands in blocks, in the order in which it was stored."""
        written: dict[str, list[str]] = defaultdict(list)
        for row in self.rows("SELECT session_id, run_id FROM messages WHERE run_id IS NOT NULL AND role <> 'user' ORDER BY rowid"):
            runs = written[row["session_id"]]
            if not runs or runs[-1] != row["run_id"]:
                self.expect(row["run_id"] not in runs, f"session {row['session_id']}: run {row['run_id']} wrote while {runs[-1:]} was live")
                runs.append(row["run_id"])

    def check_schedules(self) -> None:
        """Each minute once, whatever died in it."""
        if self.load.scheduled_at is None:
            return
        first, last = int(self.load.scheduled_at // 60 + 1), int((time.time() - 10) // 60)
        for name in ("tick_a", "tick_b"):
            minutes = []
            for row in self.rows("SELECT r.id FROM agent_runs r JOIN sessions s ON s.id = r.session_id WHERE r.agent = ? AND "
                                 "s.requested_by = ?", f"workflow:{name}", f"schedule:{name}"):
                minutes.append(int(row["id"].replace("-", "")[:12], 16) // 60_000)
            self.expect(len(set(minutes)) == len(minutes), f"schedule {name} started a time twice: {sorted(minutes)}")
            self.expect(set(range(first, last + 1)) <= set(minutes), f"schedule {name} left out {set(range(first, last + 1)) - set(minutes)}")
            self.seen[f"times of {name}"] = len(minutes)

    # ---- books ----

    def check_budgets(self) -> None:
        for row in self.rows("SELECT b.subject, b.spent_tokens, b.leased_tokens, s.budget FROM budgets b JOIN sessions s ON s.id = b.subject "
                             "WHERE b.level = 'session'"):
            limit = json.loads(row["budget"]).get("tokens") or CAP * 1000
            self.expect(row["spent_tokens"] + row["leased_tokens"] <= int(limit), f"session {row['subject']} spent {row['spent_tokens']} of {limit}")
        self.verify("budget", "/api/v1/budgets/verify")
        self.verify("audit", "/api/v1/audit/verify")

    def verify(self, what: str, path: str) -> None:
        report = self.load.caller("admin")("POST", path).body
        self.expect(report.get("ok") is True, f"{what} verify: {report}")

    def check_plain_calls(self) -> None:
        """Nobody is charged less than the provider made, where there is a limit; else only the last moments before a kill are missing."""
        booked = {row["id"] for row in self.records()}
        for call, at in self.load.calls:
            self.seen["plain calls"] += 1
            if call in booked:
                continue
            after = min((kill - at for kill in self.load.kills if kill >= at), default=1e9)
            self.seen["plain calls lost"] += 1
            self.lost_oldest = max(self.lost_oldest, after)
            self.expect(after <= LOST_SECONDS, f"call {call} ended {after:.2f} s before a kill and is in no record")
        self.load.calls.clear()
        made = self.load.mind.made["poor"]
        [row] = self.rows("SELECT COALESCE(SUM(tokens), 0) FROM ledger WHERE user_id = 'poor' AND (basis <> 'forfeited' OR kind = 'user')")
        self.expect(row[0] >= made, f"the provider made {made} tokens for the poor user, {row[0]} are booked")
        self.seen["poor made"], self.seen["poor booked"] = made, row[0]

    def records(self):
        """Usage records of alice since the last time, newest first."""
        api, cursor, wanted = self.load.caller("admin"), "", {call for call, _ in self.load.calls}
        while wanted:
            page = api("GET", f"/api/v1/usage/calls?user_id=alice&limit=200{cursor}").body
            for item in page.get("items", []):
                wanted.discard(item["call_id"])
                yield {"id": item["call_id"]}
            if not page.get("next_cursor") or page["items"][-1]["started_at"] < self.since():
                return
            cursor = f"&cursor={page['next_cursor']}"

    def since(self) -> str:
        oldest = min(at for _, at in self.load.calls) - time.monotonic() + time.time() - 5
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(oldest))

    # ---- what lies about ----

    def check_left_over(self) -> None:
        """Half-written files; folders of nobody."""
        known = {"audit.key.seals", "keys.pepper", "nexus.lock", "nexus.db", "nexus.db-wal", "nexus.db-shm", "workspaces", "files", "sessions"}
        unknown = {path.name for path in self.nexus.data.iterdir() if path.suffix != ".key"} - known
        self.expect(not unknown, f"in the data folder: {unknown}")
        temporary = [path for path in (self.nexus.folder / "tmp").rglob("*")]
        self.expect(not temporary, f"temporary files: {temporary[:5]}")
        self.seen["half files"] = len(list(self.nexus.data.rglob(".nexus-*")))    # the next write in their folder takes them away
        for path in self.nexus.data.rglob("u*x*.txt"):
            name = path.name.removesuffix(".txt")
            size = path.stat().st_size
            self.expect(size in (len(name) * 2000, len(name) * 500), f"half a file: {path} {size}")
            self.seen["files"] += 1

    def choose_sources(self, runs: dict[str, Run]) -> None:
        """Runs to be forked and cloned in the next lives."""
        own = [run for run in runs.values() if run.row["status"] == "completed" and not run.row["parent_run_id"] and run.row["agent"] == "assistant"
               and run.row["user_id"] == "alice" and run.of("tool.completed") and not run.row["forked_from"]]
        talks = {talk.session for talk in self.load.talks}
        own = [run for run in own if run.row["session_id"] not in talks and self.rows(
            "SELECT count(*) FROM agent_runs WHERE session_id = ?", run.row["session_id"])[0][0] == 1][:20]
        self.load.sources = [(run.id, run.row["session_id"], max(seq for seq, kind, _ in run.events if kind == "tool.completed") + 1) for run in own]

    # ---- the process ----

    def sample(self) -> None:
        process = Path(f"/proc/{self.nexus.process.pid}")
        rss = int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())[1])
        size = sum(path.stat().st_size for path in self.nexus.data.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
        self.samples.append(Sample(len(self.load.kills), self.seen["runs"], size, rss, len(list((process / "fd").iterdir()))))

    def check_growth(self) -> None:
        """Bytes for each run are no more in the second half; memory after a start does not grow with what is stored."""
        if len(self.samples) < 8:
            return
        first, middle, last = self.samples[1], self.samples[len(self.samples) // 2], self.samples[-1]
        early = (middle.bytes - first.bytes) / max(middle.runs - first.runs, 1)
        late = (last.bytes - middle.bytes) / max(last.runs - middle.runs, 1)
        self.expect(late <= 1.3 * early, f"a run took {early:.0f} bytes in the first half and {late:.0f} in the second")
        third = len(self.samples) // 3
        before = max(sample.rss_kib for sample in self.samples[:third])
        after = min(sample.rss_kib for sample in self.samples[-third:])
        self.expect(after <= 1.5 * before, f"memory grew from {before} to {after} KiB")
        self.expect(last.descriptors <= first.descriptors + 40, f"descriptors grew from {first.descriptors} to {last.descriptors}")
        self.growth = f"{early:.0f} then {late:.0f} bytes a run, {first.rss_kib // 1024} then {last.rss_kib // 1024} MiB"
