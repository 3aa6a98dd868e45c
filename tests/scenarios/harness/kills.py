"""A server that is killed at a boundary of its journal, and goes on.

A `Feature` is what callers do with one part of the product.  It is played once with `NEXUS_FAULT=trace`, which tells the boundaries: every
commit that has a name (before and after), and every commit at all.  Then it is played again and killed at one of them, started, and gone on
with, as callers do; `account.py` says what must hold.  `Stage` has a data folder that is ready (keys, workflows) and copies it for each play.
"""

import json
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from .account import Account
from .books import Books
from .load import Died, Load, Mind, Services, Worker, config
from .provider import FakeProvider, Text, ToolCalls
from .scripts import call, say, script
from .server import ROOT, Nexus
from .tools import tools_with_a_dangerous_one

PLAY_SECONDS = 60
# Named commits of several nodes over one store, which tests/sim plays.
OF_SEVERAL_NODES = ("share", "node_")


def fault_points() -> set[str]:
    """The name of every commit that the source gives one."""
    names = set()
    for file in (ROOT / "src").rglob("*.c"):
        if file.name.endswith(("_test.c", "_testkit.c", "_contract.c")):
            continue
        text = file.read_text()
        names |= set(re.findall(r'\b(?:run_flush|journal_flush|begin_batch)\([^;"]*"([a-z_]+)"', text))
        names |= set(re.findall(r'\brun_flush\([^;{}]*\? "([a-z_]+)" : "', text))
        names |= set(re.findall(r'\brun_flush\([^;{}]*" : "([a-z_]+)"', text))
        names |= set(re.findall(r'\bfault = "([a-z_]+)"', text))
    return names


@dataclass(frozen=True)
class Boundary:
    point: str                                       # name.before, name.after, store.before_commit, store.after_commit
    number: int

    def __str__(self) -> str:
        return f"{self.point}:{self.number}"


def boundaries(log: str) -> list[Boundary]:
    """Of a log with a trace, in order.  A commit of something that has a name is there by its name; the others are counted among all."""
    passed: dict[str, int] = {}
    found, before, is_named = [], "", False
    for point in re.findall(r"^fault point (\S+)$", log, re.MULTILINE):
        passed[point] = passed.get(point, 0) + 1
        if point == "store.before_commit":
            is_named = before.endswith(".before")
        is_commit = point in ("store.before_commit", "store.after_commit")
        if point.endswith((".before", ".after")) or (is_commit and not is_named):
            found.append(Boundary(point, passed[point]))
        if is_commit or point.endswith((".before", ".after")):
            before = point
    return found


# ---- workflows and words that only these plays use ----

def more_workflows() -> list[dict]:
    return [
        {"name": "all_kinds", "version": "1.0.0", "output": "${steps.gate.output.approved}", "steps": [
            {"id": "never", "when": "input.name == ''", "sleep": "1h"},
            {"id": "put", "tool": "http_request", "input": {"method": "POST", "url": "${input.base}/keyed/${input.name}/a"},
             "idempotency_key": "${input.name}-a"},
            {"id": "which", "branch": [{"when": "steps.put.output.status == 200", "steps": [{"id": "x", "sleep": "0s"}]}, {"steps": []}]},
            {"id": "again", "loop": {"while": "loop.index < 2", "max": 4, "steps": [{"id": "z", "sleep": "50ms"}]}},
            {"id": "flaky", "tool": "http_request", "input": {"method": "GET", "url": "${input.base}/flaky/${input.name}/b"},
             "idempotency_key": "${input.name}-b", "expect": "output.status < 300", "retry": {"attempts": 4, "backoff": "50ms"}},
            {"id": "gate", "approval": {"title": "Go on with ${input.name}?", "quorum": 2}},
            {"id": "said", "model": {"prompt": "hello", "model": "offline"}}]},
        {"name": "slow_gate", "version": "1.0.0", "steps": [
            {"id": "gate", "approval": {"title": "Dora decides", "approvers": {"users": ["dora"]}, "remind": "1s"}}]},
        {"name": "absent", "version": "1.0.0", "input": {"type": "object", "required": ["no"]}, "steps": [{"id": "s", "sleep": "0s"}]},
    ]


class PlayMind(Mind):
    def __call__(self, asked):
        verb, _, _ = asked.last_user_text.partition(" ")
        if verb == "ask" and not asked.tool_results:
            return ToolCalls([("colour_of", {"thing": "a rose"})])
        if asked.body.get("tools") and any(str(said.get("content")).startswith("loop ") for said in asked.body["messages"]):
            return ToolCalls([("text_processing", {"operation": "count", "text": "again"})], usage=(50, 5))
        if "You condense" in str(asked.body["messages"][0]["content"]):
            return Text("a summary")
        return super().__call__(asked)


class Player(Worker):
    """The kinds of the mixed load, one by one, and some that need more time or words."""

    def again(self, kind: Callable[[], None], times: int = 1) -> None:
        """Until it was done `times` times with nobody dying under it."""
        for _ in range(times):
            while not self.load.stopped.is_set():
                self.count += 1
                try:
                    kind()
                    break
                except Died:
                    time.sleep(0.02)
                    self.wait_up()

    def wait_for(self, run: str, seconds: float = 20) -> dict:
        deadline = time.monotonic() + seconds
        while True:
            reply = self.alice("GET", f"/api/v1/runs/{run}")
            if reply.status == 200 and reply.body["status"] in ("completed", "failed", "cancelled"):
                return reply.body
            assert time.monotonic() < deadline, reply.body
            time.sleep(0.03)

    def talk_with(self, policy: str) -> None:
        self.chance.seed(policy)
        self.talk = None
        choice, self.chance.choice = self.chance.choice, lambda options: policy if policy in options else choice(options)
        self.again(self.say_something, 3)
        self.chance.choice = choice

    def two_calls(self) -> None:
        """Beside each other: one has ended when the other has not."""
        name = self.name()
        slow = call("http_request", method="GET", url=f"{self.load.services.url}/slow/{name}")
        self.ask(name, {"tool_calls": self.post(name)["tool_calls"] + slow["tool_calls"]}, say("done"))

    def bad_trip(self) -> None:
        self.instance("trip", self.name("bad"), "failed")

    def good_trip(self) -> None:
        self.instance("trip", self.name("good"))

    def all_kinds(self) -> None:
        self.instance("all_kinds", self.name("z"))

    def reminded(self) -> None:
        begun = self.instance("slow_gate", self.name("r"))      # None: the answer was lost, but not what had begun
        time.sleep(6.5)                              # reminders have a turn every five seconds
        dora = self.load.caller("dora")

        def vote() -> None:
            for approval in dora("GET", "/api/v1/approvals?status=pending").body.get("items", []):
                dora("POST", f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
            if begun:
                self.wait_for(begun.run_id, 10)
        self.again(vote)

    def delegated(self) -> None:
        bob, until = self.load.caller("bob"), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
        given = bob("POST", "/api/v1/approval-delegations", {"to": "dora", "expires_at": until})
        assert given.status in (201, 409), given
        assert bob("DELETE", "/api/v1/approval-delegations/bob/dora").status in (204, 404)

    def client_tool(self) -> None:
        """A tool that the caller runs itself: two requests, one run."""
        tool = {"type": "function", "function": {"name": "colour_of", "parameters": {"type": "object"}}}
        ask = {"model": "agent:painter", "messages": [{"role": "user", "content": f"ask name={self.name('y')}"}], "tools": [tool]}
        first = self.alice("POST", "/v1/chat/completions", ask)
        assert first.status == 200 or first.status >= 500, first
        if first.status != 200:
            return
        message = first.body["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "red"}
        second = self.alice("POST", "/v1/chat/completions", {**ask, "messages": [*ask["messages"], message, result]})
        assert second.status == 200 or second.status >= 500, second

    def looping(self) -> None:
        self.followed("looper", f"loop name={self.name('l')}")

    def degraded(self) -> None:
        self.followed("helper", script(say("a small answer"), words=f"name={self.name('g')}"), None)

    def followed(self, agent: str, content: str, model: str | None = "tiny") -> None:
        name = re.search(r"name=(\w+)", content)[1]
        body = {"content": content, **({"model": model} if model else {})}
        begun = self.begin(f"/api/v1/sessions/{self.session(agent=agent)}/messages", body, name, "completed", "failed")
        if begun:
            self.wait_for(begun.run_id)

    def long_talk(self) -> None:
        """More than the model's window holds."""
        session = self.session(agent="narrow")
        for turn in range(6):
            name = f"{self.name('s')}n{turn}"
            content = script(say("yes, " * 60), words=f"name={name} " + "what about this? " * 60)
            begun = self.begin(f"/api/v1/sessions/{session}/messages", {"content": content, "model": "narrow"}, name)
            if begun:
                self.again(lambda: self.wait_for(begun.run_id))
            else:
                self.again(lambda: self.wait_until_idle(session))

    def wait_until_idle(self, session: str) -> None:
        while self.alice("GET", f"/api/v1/sessions/{session}").body["live_run_id"]:
            time.sleep(0.03)

    def withdrawn(self) -> None:
        """A message that waits is taken back before its turn."""
        session = self.session(double_text="enqueue")
        path, bodies = f"/api/v1/sessions/{session}/messages", []
        for number, sleep in enumerate((700, 0, 0)):
            name = f"{self.name('q')}n{number}"
            bodies.append((name, {"content": script({"sleep_ms": sleep, "text": "yes"}, words=f"name={name}"), "model": "offline"}))
        begun = [self.begin(path, body, name, "completed", "cancelled") for name, body in bodies]
        if begun[1]:
            self.alice("POST", f"/api/v1/runs/{begun[1].run_id}/cancel")

    def copied(self) -> None:
        """A run that has ended is forked, its session cloned, exported and imported."""
        name, session = self.name(), self.session()
        content = script(call("text_processing", operation="upper", text="x"), say("done"), words=f"name={name}")
        begun = self.begin(f"/api/v1/sessions/{session}/messages", {"content": content, "model": "offline"}, name)
        if not begun:
            return
        self.wait_for(begun.run_id)
        events = self.alice("GET", f"/api/v1/runs/{begun.run_id}/events?after=0", Accept="application/json").body["events"]
        at = next(event["seq"] for event in events if event["type"] == "tool.completed") + 1
        self.load.sources = [(begun.run_id, session, at)]
        self.again(self.fork)
        for chance in (0.9, 0.1):
            chosen, self.chance.random = self.chance.random, lambda: chance
            self.again(self.clone)
            self.chance.random = chosen

    def put_workflow(self) -> None:
        name = f"put_{self.name()}"
        text = f"name: {name}\nversion: 1.0.0\nsteps:\n  - {{id: s, sleep: 0s}}\n"

        def put() -> None:
            reply = self.alice("PUT", "/api/v1/workflows", text)
            assert reply.status in (200, 201), reply
        self.again(put)
        self.again(put)
        self.again(lambda: self.instance(name, self.name("v")) and None)

    def settings(self) -> None:
        """What administrators change."""
        admin = self.load.caller("admin")
        assert admin("PUT", "/api/v1/budgets/user/poor", {"tokens": self.load.poor_limit, "period": "month"}).status == 200
        made = admin("POST", "/api/v1/keys", {"name": self.name("key"), "scopes": []})
        assert made.status == 201, made
        assert admin("DELETE", f"/api/v1/keys/{made.body['id']}").status == 204


# ---- features ----

@dataclass
class Feature:
    play: Callable[[Player], None]
    before: Callable[[sqlite3.Connection, Load], None] | None = None     # what is changed in the stopped store first
    rests: float = 0                                                     # seconds that the clock has at the end
    is_slow: bool = False                                                # only for the long version


def each(*kinds: str, times: int = 1) -> Callable[[Player], None]:
    def play(player: Player) -> None:
        for kind in kinds:
            player.again(getattr(player, kind), times)
    return play


def schedules_are_due(database: sqlite3.Connection, load: Load) -> None:
    minute = int(time.time() // 60)
    load.scheduled_at = (minute - 3) * 60
    database.execute("UPDATE schedules SET is_paused = 0, next_at = ?", ((minute - 2) * 60_000_000,))
    at = time.gmtime((minute - 2) * 60)              # once a day, and that was two minutes ago
    database.execute("UPDATE schedules SET cron = ? WHERE name = 'old'", (f"{at.tm_min} {at.tm_hour} * * *",))


def a_month_goes_by(database: sqlite3.Connection, load: Load) -> None:
    """What the poor user has spent so far was of a month that is over."""
    past = 40 * 86_400_000_000
    database.execute("UPDATE budgets SET period_start = period_start - ? WHERE period IS NOT NULL", (past,))
    database.execute("UPDATE ledger SET at = at - ? WHERE user_id = 'poor'", (past,))
    for period, started in database.execute("SELECT period, started_at FROM budget_periods").fetchall():
        began = datetime.fromtimestamp((started - past) / 1e6, timezone.utc)
        name = began.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if "T" in period else "%Y-%m")
        database.execute("UPDATE budget_periods SET started_at = ?, period = ? WHERE period = ?", (started - past, name, period))


FEATURES: dict[str, Feature] = {
    "plain calls": Feature(each("plain", "poor_plain", times=3), rests=0.3),
    "a run with an effect": Feature(each("effect", "failure")),
    "two calls beside each other": Feature(each("two_calls")),
    "an approval by two": Feature(each("approved")),
    "an approval of a workflow's step, with reminders": Feature(each("reminded"), is_slow=True),
    "a delegation": Feature(each("delegated")),
    "a cancelled run": Feature(each("cancelled")),
    "a tool that the caller runs": Feature(each("client_tool")),
    "messages that wait": Feature(lambda player: player.talk_with("enqueue")),
    "messages that steer": Feature(lambda player: player.talk_with("steer")),
    "messages that interrupt": Feature(lambda player: player.talk_with("interrupt")),
    "a message that is withdrawn": Feature(each("withdrawn")),
    "child runs": Feature(each("children")),
    "a handoff": Feature(each("handoff")),
    "a workflow of every kind of step": Feature(each("all_kinds")),
    "a map and arms beside each other": Feature(each("fan")),
    "a saga that is undone": Feature(each("bad_trip")),
    "a saga that goes well": Feature(each("good_trip")),
    "a saga that is cancelled": Feature(each("cancelled_trip")),
    "a sleep and a signal": Feature(each("nap")),
    "schedules": Feature(lambda player: None, schedules_are_due),
    "fork, clone, export and import": Feature(each("copied")),
    "a new period of a budget": Feature(each("poor_run", "poor_plain", times=2), a_month_goes_by, rests=0.3),
    "out of budget": Feature(each("wind_down")),
    "a run in circles": Feature(each("looping")),
    "a degraded answer": Feature(each("degraded")),
    "a talk beyond the window": Feature(each("long_talk")),
    "a definition that is put": Feature(each("put_workflow")),
    "files": Feature(each("file")),
    "keys and limits": Feature(each("settings")),
}


class PlayLoad(Load):
    def prepare(self) -> None:
        super().prepare()
        admin = self.nexus.admin
        self.keys["dora"] = admin.create_key(user_id="dora", role="operator", scopes=[])["key"]
        for definition in more_workflows():
            reply = admin.put("/api/v1/workflows", content=json.dumps(definition))
            assert reply.status_code == 201, reply.text
        reply = admin.put("/api/v1/schedules/old", json={"workflow": "tick_a", "cron": "* * * * *", "missed": "skip"})
        assert reply.status_code in (200, 201), reply.text
        for name in ("tick_a", "tick_b", "old"):
            assert admin.post(f"/api/v1/schedules/{name}/pause").status_code == 200
        self.scheduled_at = None
        poor = self.caller("poor")                   # something is spent in the period that `a_month_goes_by` moves
        body = {"model": "tiny", "messages": [{"role": "user", "content": "plain poor before"}], "max_tokens": 20}
        assert poor("POST", "/v1/chat/completions", body).status == 200


def play_config(provider: FakeProvider, tools: Path) -> dict:
    made = config(provider, tools)
    broken = {"name": "broken", "type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_keys": ["${env:LOCAL_KEY}"]}
    made["providers"].append(broken)
    made["models"] += [
        {"name": "dear", "retries": 0, "targets": [{"provider": "broken", "model": "dear"}]},
        {"name": "narrow", "max_output_tokens": 200, "targets": [{"provider": "offline", "model": "offline", "context_tokens": 6000}]}]
    made["agents"] += [
        {"name": "painter", "model": "tiny", "instructions": "You ask.", "tools": []},
        {"name": "looper", "model": "tiny", "instructions": "You loop.", "tools": ["text_processing"]},
        {"name": "narrow", "model": "narrow", "instructions": "Short.", "tools": []},
        {"name": "helper", "model": "dear", "instructions": "You help.", "tools": [],
         "degrade": [{"when": "provider_unavailable", "use": {"model": "offline"}}]}]
    return made


# ---- the stage ----

class Stage:
    """A data folder that is ready to be played with, and the world around the server."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        self.services, self.mind = Services(), PlayMind()
        self.provider = FakeProvider(self.mind)
        self.tools = tools_with_a_dangerous_one(folder / "tools")
        self.ready = self.server("ready")
        self.ready.start()
        load = PlayLoad(self.ready, self.services, self.mind)
        load.prepare()
        self.keys, self.poor_limit = load.keys, load.poor_limit
        self.ready.stop()
        self.known: dict[str, list[Boundary]] = {}

    def close(self) -> None:
        self.provider.close()
        self.services.close()

    def server(self, name: str) -> Nexus:
        nexus = Nexus(self.folder / name, play_config(self.provider, self.tools), is_dev=True, environment=dict(self.provider.environment))
        (nexus.folder / "tmp").mkdir(exist_ok=True)
        nexus.environment["TMPDIR"] = str(nexus.folder / "tmp")
        return nexus

    def boundaries_of(self, name: str) -> list[Boundary]:
        """What the feature passes when nothing goes wrong."""
        if name not in self.known:
            play = Play(self, name)
            play.run("trace")
            self.known[name] = boundaries(play.told)
            play.remove()
        return self.known[name]


class Play:
    """A feature, once: to its end, or to a boundary where it is killed and from there on."""

    def __init__(self, stage: Stage, name: str):
        stage.count += 1
        self.stage, self.feature = stage, FEATURES[name]
        self.nexus = stage.server(f"play{stage.count}")
        shutil.copytree(stage.ready.data, self.nexus.data)
        self.nexus.admin_key = stage.ready.admin_key
        stage.services.clear()
        stage.mind.made.clear()
        self.load = PlayLoad(self.nexus, stage.services, stage.mind, seed=stage.count)
        self.load.keys, self.load.poor_limit, self.load.scheduled_at = stage.keys, stage.poor_limit, None
        self.account = Account(self.load)
        if self.feature.before:
            database = sqlite3.connect(self.nexus.data / "nexus.db")
            self.feature.before(database, self.load)
            database.commit()
            database.close()
        self.told = ""
        self.failure: BaseException | None = None
        self.kills = 0

    def run(self, fault: str, then: str = "") -> int:
        """Plays it under `fault`, and `then`, the next start's.  Gives how often it was killed."""
        player = Player(self.load, 0)
        thread = threading.Thread(target=self.act, args=(player,), daemon=True)
        errands = threading.Thread(target=self.load.do_errands, daemon=True)
        faults = [fault, then]
        try:
            self.start(faults)
            thread.start()
            errands.start()
            self.watch(thread, faults)
            self.account.settle(30)
            self.told = self.nexus.log_text()        # what comes after this is passed by the account
            self.start_clean(faults)
            self.account.check()
        finally:
            self.load.stopped.set()
            self.load.up.set()
            errands.join(20)
            self.nexus.kill()
        if self.failure:
            raise self.failure
        assert not self.load.wrong, "\n".join(self.load.wrong)
        self.check_stopped()
        return self.kills

    def act(self, player: Player) -> None:
        try:
            self.wait_up()
            self.feature.play(player)
            time.sleep(self.feature.rests)
        except BaseException as failure:             # noqa: BLE001  told by run()
            self.failure = failure

    def wait_up(self) -> None:
        while not self.load.up.wait(0.1):
            assert not self.load.stopped.is_set()

    def start(self, faults: list[str]) -> None:
        """Starts it under the next fault; what dies while it starts is started again."""
        for _ in range(6):
            fault = faults.pop(0) if faults else ""
            self.nexus.environment["NEXUS_FAULT"] = fault
            self.nexus.spawn()
            try:
                self.nexus.wait_ready()
                self.load.up.set()
                return
            except RuntimeError:
                if self.nexus.process.poll() != -9:
                    raise
                self.kills += 1
        raise AssertionError("it dies whenever it is started")

    def watch(self, thread: threading.Thread, faults: list[str]) -> None:
        """Until the play is over; who dies is started again."""
        deadline = time.monotonic() + PLAY_SECONDS
        while thread.is_alive() or self.account.live() or self.load.errands:
            if self.nexus.process.poll() is not None:
                assert self.nexus.process.returncode == -9, self.nexus.log_tail()
                self.load.up.clear()
                self.load.kills.append(time.monotonic())
                self.kills += 1
                self.start(faults)
            elif not thread.is_alive():
                self.give_up_client_tools()
            assert time.monotonic() < deadline, f"the play does not end: {self.account.live()} {[e.path for e in self.load.errands]}"
            time.sleep(0.02)

    def give_up_client_tools(self) -> None:
        """Their caller will not come back: who began them was cut off."""
        waiting = [run for run, status, agent in self.account.live() if status == "waiting" and agent == "painter"]
        try:
            for run in waiting:
                self.load.caller("admin")("POST", f"/api/v1/runs/{run}/cancel")
        except Died:
            pass

    def start_clean(self, faults: list[str]) -> None:
        """A fault that is still armed would fire under the account."""
        if self.nexus.environment.get("NEXUS_FAULT") in ("", "trace") and self.nexus.process.poll() is None:
            return
        if self.nexus.process.poll() is None:
            self.nexus.kill()
            self.load.kills.append(time.monotonic())
        faults.clear()
        self.start(faults)
        self.account.settle(30)

    def check_stopped(self) -> None:
        self.nexus.environment["NEXUS_FAULT"] = ""
        self.nexus.start()
        self.nexus.stop()
        books = Books(self.nexus.data)
        books.check()
        assert books.rows("PRAGMA integrity_check")[0][0] == "ok" and not books.rows("PRAGMA foreign_key_check")
        books.close()

    def remove(self) -> None:
        shutil.rmtree(self.nexus.folder, ignore_errors=True)
