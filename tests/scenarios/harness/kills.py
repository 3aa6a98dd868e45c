"""A server that is killed, at a point of its code or at any instant, and what must hold afterwards.

`fault_points()` reads the points around every commit from the source, so a new one is covered by itself.  `Work` is work of every kind
that passes them; it may be cut off at any moment and taken up again, as clients do.
"""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from .books import Books
from .client import FINAL, Outcome
from .provider import Fail, Hang, Text, ToolCalls
from .server import ROOT, Nexus
from .tools import DANGEROUS
from .upstream import CountingUpstream

CAP = 60_000                                         # tokens of a session


def fault_points() -> list[str]:
    """The name of every commit that the source gives one."""
    names = set()
    for file in (ROOT / "src").rglob("*.c"):
        if file.name.endswith(("_test.c", "_testkit.c", "_contract.c")):
            continue
        text = file.read_text()
        names |= set(re.findall(r'\b(?:run|journal)_flush\([^;"]*"([a-z_]+)"', text))
        names |= set(re.findall(r'\bfault = "([a-z_]+)"', text))
    return sorted(names)


def mind(upstream: CountingUpstream):
    """What the model does is said by the first word of the message."""
    def answer(call):
        verb, _, subject = call.last_user_text.partition(" ")
        if verb == "fail":
            return Fail(400, "told to fail", type="invalid_request_error")
        if verb == "hang":
            return Hang(after_pieces=1, seconds=20)
        if call.tool_results or verb == "plain":
            return Text("it is done", pieces=["it ", "is ", "done"], delay=0.002)
        if verb == "effect":
            return ToolCalls([("http_request", {"method": "POST", "url": upstream.url + "/effects", "body": subject})])
        if verb == "wipe":
            return ToolCalls([(DANGEROUS, {"operation": "upper", "text": subject}),
                              ("http_request", {"method": "POST", "url": upstream.url + "/effects", "body": subject})])
        if verb == "ask":
            return ToolCalls([("colour_of", {"thing": subject})])
        return Text("what?")
    return answer


@dataclass
class Work:
    """Runs of every kind, in a session each.  `alice` asks, `bob` decides."""
    nexus: Nexus
    alice_key: str
    bob_key: str
    sessions: set[str] = field(default_factory=set)
    count: int = 0

    @property
    def alice(self):
        return self.nexus.client(self.alice_key, seconds=20)

    @property
    def bob(self):
        return self.nexus.client(self.bob_key, seconds=20)

    def name(self) -> str:
        self.count += 1
        return f"no-{self.count}-{threading.get_ident() % 1000}"

    def session(self, client) -> str:
        session = client.open_session(budget={"tokens": CAP})
        self.sessions.add(session)
        return session

    def effect(self) -> None:
        self.alice.ask(f"effect {self.name()}", session=self.session(self.alice), seconds=20)

    def failure(self) -> None:
        self.alice.ask(f"fail {self.name()}", session=self.session(self.alice), seconds=20)

    def cancelled(self) -> None:
        run = self.alice.send(self.session(self.alice), f"hang {self.name()}")
        self.alice.wait_for_event(run, "model.requested")
        self.alice.post(f"/api/v1/runs/{run}/cancel")
        self.alice.wait(run, seconds=20)

    def approved(self) -> None:
        run = self.alice.send(self.session(self.alice), f"wipe {self.name()}")
        self.alice.wait(run, "waiting", seconds=20)
        self.decide()
        self.alice.wait(run, seconds=20)

    def decide(self) -> None:
        for approval in self.bob.get("/api/v1/approvals?status=pending").json()["items"]:
            self.bob.post(f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})

    def client_tool(self) -> None:
        """A tool that the caller runs itself: two requests, one run."""
        tool = {"type": "function", "function": {"name": "colour_of", "parameters": {"type": "object"}}}
        ask = {"model": "agent:assistant", "messages": [{"role": "user", "content": f"ask {self.name()}"}], "tools": [tool]}
        first = self.alice.post("/v1/chat/completions", ask)
        if first.status_code != 200 or not first.json()["choices"][0]["message"].get("tool_calls"):
            return
        message = first.json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "red"}
        self.alice.post("/v1/chat/completions", {**ask, "messages": [*ask["messages"], message, result]})

    def plain(self) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"plain {self.name()}"}], "max_tokens": 20}
        for _ in range(2):
            self.alice.post("/v1/chat/completions", body, headers={"X-Nexus-Session": self.session(self.alice)})

    def everything(self) -> bool:
        """One of each.  False: the server died under it."""
        try:
            for kind in (self.plain, self.effect, self.approved, self.client_tool, self.failure, self.cancelled):
                kind()
        except (httpx.HTTPError, AssertionError, KeyError):
            return False
        return True

    # ---- afterwards ----

    def settle(self, seconds: float = 60) -> list[Outcome]:
        """Everything that was begun ends: approvals are decided, runs that wait for their client are cancelled."""
        admin, deadline = self.nexus.admin, time.monotonic() + seconds
        while True:
            runs = self.runs()
            live = [run for run in runs if run["status"] not in FINAL]
            if not live:
                return [Outcome(run, admin.events(run["id"])) for run in runs]
            assert time.monotonic() < deadline, f"runs that do not end: {live}"
            self.decide()
            for run in live:
                if run["status"] == "waiting" and not self.awaits_approval(run["id"]):
                    admin.post(f"/api/v1/runs/{run['id']}/cancel")
            time.sleep(0.05)

    def awaits_approval(self, run: str) -> bool:
        items = self.bob.get("/api/v1/approvals?status=pending").json()["items"]
        return any(item["run_id"] == run for item in items)

    def runs(self) -> list[dict]:
        admin, runs, cursor = self.nexus.admin, [], ""
        while True:
            page = admin.get(f"/api/v1/runs?limit=200{cursor}").json()
            runs += page["items"]
            if not page.get("next_cursor"):
                return runs
            cursor = f"&cursor={page['next_cursor']}"

    def check(self, outcomes: list[Outcome], upstream: CountingUpstream) -> int:
        """Each effect happened once, or its call is shown as unknown; nothing spent more than it may.  Gives how many are unknown."""
        happened, unknown, told = upstream.effects(), 0, set()
        for outcome in outcomes:
            for end in outcome.of("tool.completed"):
                if end["data"]["name"] != "http_request":
                    continue
                [intent] = [e for e in outcome.of("tool.intended") if e["data"]["tool_call_id"] == end["data"]["tool_call_id"]][-1:] or [None]
                effect = intent["data"]["input"]["body"] if intent else None
                status = end["data"]["status"]
                assert status in ("succeeded", "unknown", "failed", "denied"), end
                times = happened[effect] if effect else 0
                assert times <= 1, f"{effect} happened {times} times"
                assert status != "succeeded" or times == 1, f"{effect} is said to have happened and did not"
                assert status not in ("failed", "denied") or times == 0 or outcome.status == "cancelled", f"{effect}: {end}"
                unknown += status == "unknown"
                told.add(effect)
        assert all(times == 1 for times in happened.values()), happened
        assert set(happened) <= told, f"nobody tells of {set(happened) - told}"
        for session in self.sessions:
            spent = self.nexus.admin.budget(session)
            assert spent["spent"]["tokens"] <= CAP, spent
            assert spent["reserved"]["tokens"] == 0, spent
        assert self.nexus.admin.post("/api/v1/audit/verify").json()["ok"] is True
        return unknown


def make_work(nexus: Nexus) -> Work:
    """The keys are made before anything is killed."""
    return Work(nexus, nexus.admin.create_key(user_id="alice", role="user", scopes=[])["key"],
                nexus.admin.create_key(user_id="bob", role="operator", scopes=[])["key"])


def check_books(nexus: Nexus) -> None:
    """Of a stopped server."""
    books = Books(nexus.data)
    books.check()
    books.close()


@dataclass
class Tally:
    kills: int = 0
    runs: int = 0
    completed: int = 0
    unknown: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        return (f"{self.kills} kills, {self.runs} runs: {self.completed} completed, {self.unknown} effects unknown, none twice, "
                f"{self.seconds:.0f} s")


def kill_under_load(nexus: Nexus, upstream: CountingUpstream, work: Work, chance, kills: int, *, at_once: int = 8,
                    told_every: int = 0) -> Tally:
    """Kills it `kills` times at any instant while runs of every kind go on.  After each restart what was begun must end."""
    tally, begun = Tally(), time.monotonic()
    kinds = [work.effect, work.effect, work.effect, work.approved, work.plain, work.failure, work.cancelled]

    def one(kind) -> None:
        try:
            kind()
        except (httpx.HTTPError, AssertionError, KeyError):
            pass                                     # it died under it

    for kill in range(kills):
        with ThreadPoolExecutor(at_once) as pool:
            for _ in range(at_once):
                pool.submit(one, chance.choice(kinds))
            time.sleep(chance.uniform(0.005, 0.35))
            nexus.kill()
        nexus.start()
        tally.kills += 1
        if kill % 10 == 9 or kill == kills - 1:       # what is left of ten lives
            outcomes = work.settle()
            tally.unknown = work.check(outcomes, upstream)
            tally.runs = len(outcomes)
            tally.completed = sum(outcome.status == "completed" for outcome in outcomes)
        if told_every and tally.kills % told_every == 0:
            tally.seconds = time.monotonic() - begun
            print(tally, flush=True)
    tally.seconds = time.monotonic() - begun
    return tally
