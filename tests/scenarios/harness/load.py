"""Mixed work on a server that dies at any moment: what its callers do, and what the world around it has seen.

    load = Load(nexus, services, provider, seed=1)       begins with load.start(), ends with load.finish()

Workers begin work of every kind; whoever finds nobody at home waits until the server is up again.  The errand thread gives what runs wait
for (votes, signals, cancels), again until it is taken.  What was answered stands in `begun`, `talks`, `calls`; `account.py` compares.
"""

import http.client
import json
import random
import re
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from .provider import Fail, Server, Text, ToolCalls
from .scripts import call, say, script
from .tools import DANGEROUS
from .upstream import ADDRESS

CAP = 10_000_000                                     # tokens of a session: what a kill interrupts is booked as reserved
POOR_STEP = 400_000                                  # what the poor user gets at each check
TALK_LENGTH = 8
NAP_SECONDS = 5                                      # how long a nap waits for its signal
NAME = re.compile(r"name=(\w+)")


class Died(Exception):
    """Nobody answered."""


@dataclass
class Reply:
    status: int
    headers: dict
    body: dict

    @property
    def problem(self) -> str:
        return str(self.body.get("type", "")).rsplit("/", 1)[-1]


class Caller:
    """One person's connection, of one thread."""

    def __init__(self, port: int, key: str):
        self.port, self.key = port, key
        self.connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, path: str, body=None, idempotency_key: str = "", **headers) -> Reply:
        headers = {"Authorization": f"Bearer {self.key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        content = None
        if isinstance(body, (dict, list)):
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        elif body is not None:
            content = body.encode() if isinstance(body, str) else body
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        try:
            if not self.connection:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
            self.connection.request(method, path, content, headers)
            reply = self.connection.getresponse()
            text = reply.read()
            if reply.will_close:
                self.close()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, read_json(text))
        except (OSError, http.client.HTTPException) as failure:
            self.close()
            raise Died(str(failure)) from None

    def is_ready(self) -> bool:
        try:
            return self("GET", "/readyz").status == 200
        except Died:
            return False

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None


def read_json(text: bytes) -> dict:
    try:
        value = json.loads(text)
        return value if isinstance(value, dict) else {"list": value}
    except ValueError:
        return {}


class Services:
    """The world outside.  `/once/NAME` counts every request; `/keyed/...` and `/book/ORDER/WHAT` do a thing once per Idempotency-Key;
    `/flaky/NAME` fails twice, `/slow/NAME` takes its time."""

    def __init__(self):
        self.lock = threading.Lock()
        self.once: Counter[str] = Counter()                                # name -> requests
        self.flaky: Counter[str] = Counter()                               # name -> requests
        self.keys: dict[str, str] = {}                                     # Idempotency-Key -> what it did
        self.done: dict[str, list[tuple[str, str]]] = defaultdict(list)    # order or name -> (method, what), as it happened
        self.server = Server((ADDRESS, 0), handler_of(self))
        self.url = f"http://{ADDRESS}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, key: str) -> int:
        kind, name, *what = path.strip("/").split("/")
        if kind == "slow":
            time.sleep(0.3)
            return 200
        with self.lock:
            if kind == "once":
                self.once[name] += 1
                return 200
            if kind == "flaky":
                self.flaky[name] += 1
                return 503 if self.flaky[name] <= 2 else 200
            if kind == "book" and what[0] == "car" and name.startswith("bad") and method == "POST":
                return 409
            if key not in self.keys:
                self.keys[key] = f"{method} {path}"
                self.done[name].append((method, what[0]))
            return 200

    def clear(self) -> None:
        with self.lock:
            for seen in (self.once, self.flaky, self.keys, self.done):
                seen.clear()

    def forget(self, names) -> None:
        """What has been compared."""
        with self.lock:
            for name in names:
                self.once.pop(name, None)
                self.done.pop(name, None)


def handler_of(services: Services) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments):
            pass

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = services.answer(self.command, self.path, self.headers.get("Idempotency-Key", ""))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_DELETE = answer

    return Handler


class Mind:
    """The model behind the fake provider: who asked, by the message's first word; counts what it made for whom."""

    def __init__(self):
        self.lock = threading.Lock()
        self.made: Counter[str] = Counter()          # tokens of plain calls, by the second word

    def __call__(self, asked):
        verb, _, rest = asked.last_user_text.partition(" ")
        if verb == "plain":
            with self.lock:
                self.made[rest.split(" ")[0]] += 15
            return Text("it is done", pieces=["it ", "is ", "done"], usage=(10, 5))
        if verb == "fail":
            return Fail(400, "told to fail", type="invalid_request_error")
        if verb == "wind" and asked.body.get("tools"):
            return ToolCalls([("text_processing", {"operation": "count", "text": f"page {len(asked.tool_results)}"})], usage=(900, 300))
        return Text("so far", usage=(100, 10))


# ---- workflows ----

def booking(what: str) -> dict:
    url = "${input.base}/book/${input.order}/" + what
    return {"id": what, "tool": "http_request", "input": {"method": "POST", "url": url, "body": {"order": "${input.order}"}},
            "expect": "output.status < 300", "idempotency_key": "${input.order}-" + what,
            "compensate": {"tool": "http_request", "input": {"method": "DELETE", "url": url}, "expect": "output.status < 300",
                           "idempotency_key": "${input.order}-" + what + "-undo", "retry": {"attempts": 5, "backoff": "100ms"}}}


def workflows() -> list[dict]:
    return [
        {"name": "trip", "version": "1.0.0", "steps": [booking("flight"), booking("hotel"), booking("car")]},
        {"name": "nap", "version": "1.0.0", "output": {"got": "${steps.go.output}", "loud": "${steps.loud.output.text}"}, "steps": [
            {"id": "rest", "sleep": "${0.2}"},
            {"id": "go", "wait_signal": {"name": "go", "timeout": f"{NAP_SECONDS}s"}, "on_error": "continue"},
            {"id": "loud", "tool": "text_processing", "input": {"operation": "upper", "text": "${input.name}"}}]},
        {"name": "leaf", "version": "1.0.0", "output": "${steps.m.output.text}", "steps": [
            {"id": "m", "model": {"prompt": "hello ${input.name}", "model": "offline"}}]},
        {"name": "fan", "version": "1.0.0", "output": {"each": "${steps.each.output}", "sub": "${steps.both.output.sub}"}, "steps": [
            {"id": "each", "map": {"over": "range(5)", "as": "n", "parallel": 3, "output": "${n}", "steps": [
                {"id": "put", "tool": "http_request", "expect": "output.status < 300", "idempotency_key": "${input.name}-${n}",
                 "input": {"method": "POST", "url": "${input.base}/keyed/${input.name}/${n}"}}]}},
            {"id": "both", "parallel": {
                "sub": [{"id": "leaf", "workflow": {"name": "leaf", "version": "^1", "input": {"name": "${input.name}"}}}],
                "agent": [{"id": "ask", "agent": {"name": "researcher", "prompt": "hello"}}],
                "turns": [{"id": "again", "loop": {"while": "loop.index < 3", "max": 5, "steps": [{"id": "s", "sleep": "0s"}]}}]}}]},
        {"name": "tick_a", "version": "1.0.0", "steps": [{"id": "s", "sleep": "0s"}]},
        {"name": "tick_b", "version": "1.0.0", "steps": [{"id": "s", "tool": "text_processing", "input": {"operation": "upper", "text": "x"}}]},
    ]


def config(provider, tools_dir) -> dict:
    fake = provider.config()
    network = {"allowed_hosts": [ADDRESS], "allowed_ips": [ADDRESS]}
    return {
        "providers": [*fake["providers"], {"name": "offline", "type": "offline"}],
        "models": [{"name": "offline", "targets": [{"provider": "offline", "model": "offline"}]}, *fake["models"]],
        "tools": {"dir": str(tools_dir), "http_request": {"permissions": {"network": network}}, DANGEROUS: {"approval": {"quorum": 2}}},
        "agents": [
            {"name": "lead", "model": "offline", "instructions": "You ask others.", "tools": [],
             "agents": ["researcher", {"name": "writer", "as": "handoff"}]},
            {"name": "researcher", "model": "offline", "instructions": "You look.", "tools": ["http_request"]},
            {"name": "writer", "model": "offline", "instructions": "You write.", "tools": []},
            {"name": "winder", "model": "tiny", "instructions": "You count.", "tools": ["text_processing"]}],
        "approvals": {"registrars": ["admin"]},
        "limits": {"requests_per_minute": 1_000_000},
        "budgets": {"session": {"tokens": CAP, "time_seconds": 10_000_000}},
        "store": {"cache": "1MiB"},                # full at once: what grows after that is no cache
    }


# ---- the load ----

@dataclass
class Begun:
    """Work that the server said it has begun."""
    kind: str
    name: str
    run_id: str
    at: float
    expected: tuple[str, ...] = ("completed",)
    is_signalled: bool = False


@dataclass
class Talk:
    """What was said in one session, in order."""
    session: str
    policy: str
    said: list[str] = field(default_factory=list)


@dataclass
class Errand:
    """Something that must be said to a run until it has heard it."""
    path: str
    body: dict | None
    key: str
    begun: Begun


class Load:
    def __init__(self, nexus, services: Services, mind: Mind, *, seed: int = 1, workers: int = 6, rate: float = 40):
        self.nexus, self.services, self.mind = nexus, services, mind
        self.seed, self.rate, self.worker_count = seed, rate, workers
        self.lock = threading.Lock()
        self.up, self.go, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.go.set()
        self.working = 0
        self.begun: list[Begun] = []
        self.unsure: set[str] = set()                # names that nobody can say of whether they were begun
        self.talks: list[Talk] = []
        self.calls: list[tuple[str, float]] = []     # plain calls that were answered: id, when
        self.errands: list[Errand] = []
        self.sources: list[tuple[str, str, int]] = []   # (run, session, event to fork at) of what has ended
        self.clones: list[tuple[str, str]] = []      # (session, what it was cloned from), as answered
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.poor_limit = 0
        self.kills: list[float] = []
        self.threads: list[threading.Thread] = []

    def prepare(self) -> None:
        """Keys, workflows, schedules, limits: before anything is killed."""
        admin = self.nexus.admin
        self.keys = {user: admin.create_key(user_id=user, role=role, scopes=[])["key"]
                     for user, role in (("alice", "user"), ("poor", "user"), ("bob", "operator"), ("carl", "operator"))}
        self.keys["admin"] = self.nexus.admin_key
        for definition in workflows():
            reply = admin.put("/api/v1/workflows", content=json.dumps(definition))
            assert reply.status_code == 201, reply.text
        self.scheduled_at = time.time()
        for name in ("tick_a", "tick_b"):
            reply = admin.put(f"/api/v1/schedules/{name}", json={"workflow": name, "cron": "* * * * *", "missed": "all", "overlap": "allow"})
            assert reply.status_code in (200, 201), reply.text
        self.raise_limit()

    def raise_limit(self) -> None:
        self.poor_limit += POOR_STEP
        reply = self.caller("admin")("PUT", "/api/v1/budgets/user/poor", {"tokens": self.poor_limit, "period": "month"})
        assert reply.status == 200, reply

    def caller(self, user: str) -> Caller:
        return Caller(self.nexus.port, self.keys[user])

    def start(self) -> None:
        jobs = [threading.Thread(target=Worker(self, number).run, daemon=True) for number in range(self.worker_count)]
        self.threads = [*jobs, threading.Thread(target=self.do_errands, daemon=True)]
        for thread in self.threads:
            thread.start()

    def finish(self) -> None:
        self.stopped.set()
        self.go.set()
        self.up.set()
        for thread in self.threads:
            thread.join(30)

    def blame(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)
        print(f"WRONG {text}", flush=True)

    # ---- pauses ----

    def pause(self, seconds: float = 60) -> None:
        """Nobody begins anything; the server is up."""
        self.go.clear()
        deadline = time.monotonic() + seconds
        while self.working:
            assert time.monotonic() < deadline, "workers that do not come to rest"
            time.sleep(0.01)

    def resume(self) -> None:
        self.go.set()

    # ---- what runs wait for ----

    def do_errands(self) -> None:
        bob, carl, alice, admin = (self.caller(user) for user in ("bob", "carl", "alice", "admin"))
        while not self.stopped.is_set():
            if not self.up.wait(0.2):
                continue
            try:
                for approval in bob("GET", "/api/v1/approvals?status=pending&limit=100").body.get("items", []):
                    for voter in (bob, carl):
                        voter("POST", f"/api/v1/approvals/{approval['id']}", {"decision": "approve", "digest": approval["digest"]})
                for errand in list(self.errands):
                    self.do_errand(alice, errand)
                self.look_at_limit(admin)
            except Died:
                self.up.wait(0.05)
            time.sleep(0.03)

    def do_errand(self, alice: Caller, errand: Errand) -> None:
        reply = alice("POST", errand.path, errand.body, errand.key)
        if reply.status == 202:
            errand.begun.is_signalled = time.monotonic() - errand.begun.at < NAP_SECONDS - 1
        elif reply.status == 409 and "Idempotency-Key" in reply.body.get("detail", ""):      # it died in the middle: said again, as another
            errand.key += "+"
            return
        elif reply.status == 503:
            return
        elif reply.status not in (404, 409):
            self.blame(f"{errand.path}: {reply.status} {reply.body}")
        self.errands.remove(errand)

    def look_at_limit(self, admin: Caller) -> None:
        view = admin("GET", "/api/v1/budgets/user/poor").body
        if "spent" in view and view["spent"]["tokens"] + view["reserved"]["tokens"] > self.poor_limit:
            self.blame(f"the poor user has more than {self.poor_limit}: {view}")


class Worker:
    """One caller after another, of every kind."""

    def __init__(self, load: Load, number: int):
        self.load, self.number, self.count = load, number, 0
        self.chance = random.Random(f"{load.seed} {number}")
        self.alice, self.poor = load.caller("alice"), load.caller("poor")
        self.talk: Talk | None = None
        self.kinds = [(self.effect, 6), (self.approved, 3), (self.say_something, 10), (self.trip, 4), (self.cancelled_trip, 1),
                      (self.children, 3), (self.handoff, 1), (self.fan, 2), (self.nap, 3), (self.plain, 8), (self.poor_plain, 6),
                      (self.poor_run, 2), (self.failure, 1), (self.cancelled, 2), (self.wind_down, 2), (self.fork, 2), (self.clone, 2),
                      (self.file, 2)]

    def run(self) -> None:
        load = self.load
        kinds, weights = zip(*self.kinds)
        while not load.stopped.is_set():
            if not load.go.wait(0.2) or not load.up.wait(0.2):
                continue
            with load.lock:
                if not load.go.is_set():
                    continue
                load.working += 1
            kind = self.chance.choices(kinds, weights)[0]
            try:
                self.count += 1
                load.seen[kind.__name__] += 1
                kind()
            except Died:
                load.seen["died under it"] += 1
            except Exception as failure:            # noqa: BLE001  a worker that is gone would make the load weaker, silently
                load.blame(f"{kind.__name__}: {failure!r}")
            finally:
                with load.lock:
                    load.working -= 1
            time.sleep(self.chance.uniform(0.5, 1.5) * load.worker_count / load.rate)

    # ---- asking ----

    def name(self, prefix: str = "w") -> str:
        return f"{prefix}{self.number}x{self.count}"

    def insist(self, caller: Caller, method: str, path: str, body, key: str) -> Reply | None:
        """Sends it again under the same key until somebody answers.  None: whether it was begun is not known, and never will be."""
        for _ in range(10):
            try:
                reply = caller(method, path, body, key)
            except Died:
                time.sleep(0.02)
                self.wait_up()
                continue
            if reply.status == 409 and "Idempotency-Key" in reply.body.get("detail", ""):
                self.load.unsure.add(key)
                return None
            if reply.status >= 500 and reply.status != 503:
                self.load.blame(f"{method} {path}: {reply.status} {reply.body}")
            return reply
        return None

    def wait_up(self) -> None:
        while not self.load.up.wait(0.2) and not self.load.stopped.is_set():
            pass

    def session(self, caller: Caller | None = None, **body) -> str:
        reply = (caller or self.alice)("POST", "/api/v1/sessions", {"budget": {"tokens": CAP}, **body})
        if reply.status != 201:
            raise Died(f"no session: {reply.status} {reply.body}")
        return reply.body["id"]

    def begin(self, path: str, body: dict, name: str, *expected: str, caller: Caller | None = None) -> Begun | None:
        reply = self.insist(caller or self.alice, "POST", path, body, name)
        if reply is None:
            return None
        if reply.status != 202:
            if reply.status != 503 and not (caller and reply.status in (402, 429)):
                self.load.blame(f"{path} {name}: {reply.status} {reply.body}")
            return None
        begun = Begun("", name, reply.body["run_id"], time.monotonic(), expected or ("completed",))
        with self.load.lock:
            self.load.begun.append(begun)
        return begun

    def ask(self, name: str, *steps: dict, agent: str = "", expected: tuple = (), caller: Caller | None = None, **more) -> Begun | None:
        session = self.session(caller, **({"agent": agent} if agent else {}))
        body = {"content": script(*steps, words=f"name={name}"), "model": "offline", **more}
        return self.begin(f"/api/v1/sessions/{session}/messages", body, name, *expected, caller=caller)

    def instance(self, workflow: str, name: str, *expected: str) -> Begun | None:
        body = {"input": {"name": name, "order": name, "base": self.load.services.url}}
        return self.begin(f"/api/v1/workflows/{workflow}/runs", body, name, *expected)

    def post(self, name: str) -> dict:
        return call("http_request", method="POST", url=f"{self.load.services.url}/once/{name}", body=name)

    def owe(self, begun: Begun | None, what: str, body: dict | None = None) -> None:
        if begun:
            self.load.errands.append(Errand(f"/api/v1/runs/{begun.run_id}/{what}", body, f"{begun.name}-{what}", begun))

    # ---- kinds ----

    def effect(self) -> None:
        name = self.name()
        self.ask(name, self.post(name), {"sleep_ms": self.chance.randrange(60), "text": "done"})

    def approved(self) -> None:
        name = self.name("a")
        erase = call(DANGEROUS, operation="upper", text=name)
        self.ask(name, {"tool_calls": erase["tool_calls"] + self.post(name)["tool_calls"]}, say("done"))

    def say_something(self) -> None:
        """Further words in a session whose run is live, more often than not."""
        if not self.talk or len(self.talk.said) >= TALK_LENGTH:
            policy = self.chance.choice(("enqueue", "steer", "interrupt"))
            self.talk = Talk(self.session(double_text=policy, budget={"tokens": 10_000_000}), policy)
            with self.load.lock:
                self.load.talks.append(self.talk)
        for _ in range(self.chance.randint(1, 3)):
            name = f"{self.name('t')}n{len(self.talk.said)}"
            count = call("text_processing", operation="count", text=name)
            steps = [{"sleep_ms": self.chance.randrange(80), **count}] * (self.chance.random() < 0.5)
            body = {"content": script(*steps, {"sleep_ms": self.chance.randrange(120), "text": "yes"}, words=f"name={name}"), "model": "offline"}
            reply = self.insist(self.alice, "POST", f"/api/v1/sessions/{self.talk.session}/messages", body, name)
            if reply is None or reply.status != 202:
                if reply is not None and reply.status not in (409, 503):
                    self.load.blame(f"talk {self.talk.session}: {reply.status} {reply.body}")
                self.talk.said.append(f"?{name}")
            else:
                self.talk.said.append(name)

    def trip(self) -> None:
        is_bad = self.chance.random() < 0.6
        self.instance("trip", self.name("bad" if is_bad else "good"), "failed" if is_bad else "completed")

    def cancelled_trip(self) -> None:
        begun = self.instance("trip", self.name("good"), "cancelled", "completed")
        self.owe(begun, "cancel")

    def children(self) -> None:
        name = self.name("c")
        parts = [call("agent_researcher", message=script(*([self.post(name)] if part == 0 else []), say("a part")))["tool_calls"][0]
                 for part in range(3)]
        self.ask(name, {"tool_calls": parts}, say("all parts"), agent="lead")

    def handoff(self) -> None:
        self.ask(self.name("h"), call("handoff_writer", message=script(say("once upon a time"))), agent="lead")

    def fan(self) -> None:
        self.instance("fan", self.name("f"))

    def nap(self) -> None:
        name = self.name("n")
        self.owe(self.instance("nap", name), "signals", {"name": "go", "data": {"who": name}})

    def plain(self) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"plain alice {self.name()}"}], "max_tokens": 20}
        reply = self.alice("POST", "/v1/chat/completions", body)
        if reply.status == 200:
            with self.load.lock:
                self.load.calls.append((reply.headers["nexus-call-id"], time.monotonic()))
        elif reply.status != 503:
            self.load.blame(f"plain call: {reply.status} {reply.body}")

    def poor_plain(self) -> None:
        """Under a limit of the user and one of the session."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"plain poor {self.name()}"}], "max_tokens": 20}
        session = self.session(self.poor, budget={"tokens": 2000})
        for _ in range(3):
            reply = self.poor("POST", "/v1/chat/completions", body, X_Nexus_Session=session)
            if reply.status not in (200, 402, 429, 503):
                self.load.blame(f"plain call of the poor user: {reply.status} {reply.body}")

    def poor_run(self) -> None:
        self.ask(self.name("p"), call("text_processing", operation="upper", text="x"), say("x"), expected=("completed", "failed"), caller=self.poor)

    def failure(self) -> None:
        name = self.name("e")
        self.begin(f"/api/v1/sessions/{self.session()}/messages", {"content": f"fail name={name}", "model": "tiny"}, name, "failed")

    def cancelled(self) -> None:
        begun = self.ask(self.name("x"), {"sleep_ms": 2500, "text": "late"}, expected=("cancelled", "completed"))
        self.owe(begun, "cancel")

    def wind_down(self) -> None:
        name, session = self.name("d"), self.session(agent="winder", budget={"tokens": 6000})
        self.begin(f"/api/v1/sessions/{session}/messages", {"content": f"wind name={name}", "model": "tiny"}, name, "completed", "failed")

    def fork(self) -> None:
        if self.load.sources:
            run, _, at = self.chance.choice(self.load.sources)
            reply = self.alice("POST", f"/api/v1/runs/{run}/fork", {"at": at, "message": script(say("another end"), words=f"name={self.name('k')}")})
            if reply.status == 202:
                with self.load.lock:
                    self.load.begun.append(Begun("", self.name("k"), reply.body["run_id"], time.monotonic()))
            elif reply.status != 503:
                self.load.blame(f"fork of {run} at {at}: {reply.status} {reply.body}")

    def clone(self) -> None:
        if not self.load.sources:
            return
        _, session, _ = self.chance.choice(self.load.sources)
        if self.chance.random() < 0.3:
            document = self.alice("GET", f"/api/v1/sessions/{session}/export").body
            if document.get("format"):
                self.insist(self.alice, "POST", "/api/v1/sessions/import", document, self.name("i"))
            return
        reply = self.insist(self.alice, "POST", f"/api/v1/sessions/{session}/clone", {}, self.name("o"))
        if reply and reply.status == 201:
            with self.load.lock:
                self.load.clones.append((reply.body["id"], session))
        elif reply and reply.status != 503:
            self.load.blame(f"clone of {session}: {reply.status} {reply.body}")

    def file(self) -> None:
        """A file that a person uploads, and one that a tool writes."""
        session, name = self.session(), self.name("u")
        reply = self.alice("PUT", f"/api/v1/sessions/{session}/files/{name}.txt", name * 2000)
        if reply.status not in (200, 201, 503):
            self.load.blame(f"upload: {reply.status} {reply.body}")
        write = call("file_system", operation="write", path=f"/tmp/agent-workspace/output/{name}.txt", content=name * 500)
        body = {"content": script(write, say("written"), words=f"name={name}"), "model": "offline"}
        self.begin(f"/api/v1/sessions/{session}/messages", body, name)
