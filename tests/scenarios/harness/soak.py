"""A long mixed load with faults, and the comparison of what was booked with what the provider really produced.

Each worker is a user of its own and asks one thing after the other, so its usage records, in order, are its calls: call by call the sum over
a call's attempts at the provider must be booked exactly where all of them told their usage, and never less where one could not.
"""

import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from .books import Books
from .dialects import PATHS, Reply, ask
from .faulty import FaultyProvider, KeyLimit, Plan, marked, text_of

KINDS = ("openai", "anthropic", "responses")
FALLBACK = {"openai": "anthropic", "anthropic": "responses", "responses": "openai"}
PRICE = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 2}
DEADLINES = {"connect": "2s", "first_token": "2s", "between_tokens": "2s", "total": "8s"}
TOKENS = 12
FAULTS = ["status status=500", "status status=503", "status status=529", "status status=429 retry_after=1", "status status=400",
          "hang", "reset", "close", "not_http", "html", "empty", "json", "stall", "cut", "reset_at", "garbage", "error", "short",
          "stall at=4", "cut at=4", "reset_at at=4", "garbage at=4", "error at=4", "short at=4", "error at=4 pause=0",
          "garbage at=4 pause=0", "no_usage", "double_end"]


@dataclass
class Asked:
    """What a worker asked for, and what it saw."""
    number: int
    dialect: str
    model: str
    stream: bool
    is_aborted: bool = False
    reply: str = ""                                # good, broken, status N
    wrong: str = ""                                # what no client may see


@dataclass
class Made:
    """What the provider made for one call, all attempts together."""
    input_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 0
    is_told: bool = True


@dataclass
class Sample:
    at: float
    rss_kib: int
    descriptors: int
    threads: int
    upstream: int                                  # connections the provider holds, kept ones with them


@dataclass
class Soak:
    nexus: object
    faulty: FaultyProvider
    seed: int = 1
    rate: float = 40                               # calls in a second, all workers together
    workers: int = 12
    fault_share: float = 0.12
    abort_share: float = 0.08
    reload_seconds: float = 60
    say: object = print
    samples: list[Sample] = field(default_factory=list)
    asked: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    seen: Counter = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)
    harvested: Counter = field(default_factory=Counter)

    # ---- configuration ----

    @staticmethod
    def config(faulty: FaultyProvider) -> dict:
        keys = [f"${{env:FAULTY_KEY}}{suffix}" for suffix in ("", "-second", "-third")]
        providers = [faulty.provider(f"{letter}{kind}", kind, keys) for letter in "ab" for kind in KINDS]
        providers += [faulty.provider("cached"), faulty.provider("ragent"), faulty.provider("embedder")]

        def model(name, *targets, **more):
            entries = [{"provider": target, "model": "mock", "price": PRICE, "priority": i} for i, target in enumerate(targets)]
            return {"name": name, "targets": entries, "deadlines": dict(DEADLINES), "max_output_tokens": 64, **more}

        models = [model("agentic", "ragent")]
        for kind in KINDS:
            models.append(model(f"pair-{kind}", f"a{kind}", f"b{FALLBACK[kind]}"))
            models.append(model(f"solo-{kind}", f"b{kind}", retries=0))
            models.append(model(f"hedged-{kind}", f"b{kind}", f"b{FALLBACK[kind]}", hedge_after="300ms"))
            models.append(model(f"filtered-{kind}", f"b{kind}", filter="masked"))
        models.append(model("cached", "cached", cache={"mode": "exact", "ttl": "5s"}))
        models.append(model("vectors", "embedder", embedder="true"))
        return {
            "providers": providers, "models": models, "cache": {"max_bytes": "1MiB"},
            "filters": [{"name": "masked", "groups": {"pii": "mask", "secrets": "mask"}}],
            "agents": [{"name": "helper", "model": "agentic", "instructions": "Say it.", "tools": []}],
            "limits": {"requests_per_minute": 1000000},
            "store": {"cache": "1MiB"},                # full within a minute: what grows after that is no cache
        }

    # ---- the load ----

    def run(self, seconds: float) -> None:
        self.faulty.plan = self.plan
        self.made: dict[int, Made] = defaultdict(Made)
        self.totals: dict[str, Made] = defaultdict(Made)
        self.begun = time.monotonic()
        jobs = [threading.Thread(target=self.ask_models, args=(f"worker{i}", i)) for i in range(self.workers)]
        jobs += [threading.Thread(target=self.ask_others, args=(name, seed)) for name, seed in (("agents", 101), ("vectors", 102), ("cached", 103))]
        watch = [threading.Thread(target=self.sample), threading.Thread(target=self.disturb)]
        self.sample_once()
        for thread in jobs + watch:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in jobs + watch:
            thread.join(60)
            assert not thread.is_alive(), "a caller never got an answer"

    def plan(self, call) -> Plan:
        return marked(call.prompt, call.provider)

    def pace(self, chance: random.Random) -> bool:
        return not self.stop.wait(chance.uniform(0.5, 1.5) * self.workers / self.rate)

    def ask_models(self, user: str, index: int) -> None:
        chance = random.Random(f"{self.seed} {user}")
        client = self.nexus.user(user)
        sessions = [client.open_session(budget={"tokens": 10 ** 9, "cost_usd": 10 ** 5}), ""]
        number = index * 10 ** 7
        while self.pace(chance):
            number += 1
            dialect = chance.choice(list(PATHS))
            kind, use = chance.choice(KINDS), chance.choices(("pair", "solo", "hedged", "filtered"), (5, 2, 1, 2))[0]
            stream, is_aborted = chance.random() < 0.6, chance.random() < self.abort_share
            fault = chance.choice(FAULTS) if chance.random() < self.fault_share else "none"
            mark = f"fault={fault} tokens={TOKENS} delay={chance.choice((0.0, 0.0, 0.001, 0.01, 0.03))}"
            if use == "hedged" and chance.random() < 0.2:
                mark += " first=0.5"
            target = ("a" if use == "pair" else "b") + kind
            prompt = f"id={number}; write to bob@example.com [[{target} {mark}]] [[b tokens={TOKENS}]]"
            asked = Asked(number, dialect, f"{use}-{kind}", stream, stream and is_aborted)
            self.asked[user].append(asked)
            session = chance.choice(sessions)
            headers = {"X-Nexus-Session": session} if session else {}
            reply = ask(client.http, dialect, asked.model, prompt, stream=stream, headers=headers,
                        stop_after=2 if asked.is_aborted else 0)
            self.judge(asked, reply)

    def judge(self, asked: Asked, reply: Reply) -> None:
        wholes = {text_of("a", TOKENS), text_of("b", TOKENS)}
        asked.reply = f"status {reply.status}"
        if reply.status == 200:
            asked.reply = "good" if reply.is_complete else "aborted" if asked.is_aborted else "broken"
            is_prefix = any(whole.startswith(reply.text) for whole in wholes)
            if not is_prefix or reply.garbage or reply.begins > 1 or reply.after_end:
                self.say_wrong(asked, f"text {reply.text!r}, garbage {reply.garbage}, begins {reply.begins}", reply)
            elif reply.is_complete and (reply.text not in wholes or reply.error):
                self.say_wrong(asked, f"a short answer that ended well: {reply.text!r}", reply)
            elif not reply.is_complete and not asked.is_aborted and (not reply.error or (asked.stream and asked.dialect == "chat" and not reply.is_cut)):
                self.say_wrong(asked, "a broken answer without a word", reply)
        elif not reply.error or reply.status not in (400, 402, 429, 502, 503, 504):
            self.say_wrong(asked, f"status {reply.status} with {reply.body[:200]!r}", reply)
        self.seen[asked.reply] += 1

    def say_wrong(self, asked: Asked, what: str, reply: Reply) -> None:
        self.wrong.append(f"{asked}: {what}; end of body {reply.body[-300:]!r}")
        self.say(f"WRONG {self.wrong[-1]}")

    def ask_others(self, what: str, seed: int) -> None:
        """Agents, embeddings and the cache: only sums are compared, for which attempt served whom is not the caller's to know."""
        chance = random.Random(f"{self.seed} {what}")
        client = self.nexus.user(what)
        while self.pace(chance):
            if what == "vectors":
                inputs = [f"text {chance.randrange(50)}" for _ in range(chance.randint(1, 6))]
                reply = client.post("/v1/embeddings", {"model": "vectors", "input": inputs})
                is_good = reply.status_code == 200 and len(reply.json()["data"]) == len(inputs)
            else:
                model = "agent:helper" if what == "agents" else "cached"
                said = f"[[{'r' if what == 'agents' else 'c'} tokens={TOKENS}]] {chance.randrange(40)}"
                reply = ask(client.http, chance.choice(list(PATHS)), model, said, stream=chance.random() < 0.5)
                is_good = reply.is_complete and reply.text == text_of("r" if what == "agents" else "c", TOKENS)
            self.seen[what if is_good else f"{what} failed"] += 1
            if not is_good:
                self.wrong.append(f"{what}: {reply}")
                self.say(f"WRONG {what}: {str(reply)[:600]}")

    def disturb(self) -> None:
        """SIGHUP, dying and limited keys, collected counts."""
        chance = random.Random(self.seed)
        due = time.monotonic() + self.reload_seconds
        keys = [self.faulty.KEY + suffix for suffix in ("-second", "-third")]
        while not self.stop.wait(min(1, self.reload_seconds / 2)):
            self.harvest()
            if time.monotonic() >= due:
                due += self.reload_seconds
                self.faulty.dead_keys = {chance.choice(keys)} if chance.random() < 0.5 else set()
                self.faulty.key_limits = {keys[1]: KeyLimit(5, 1)} if chance.random() < 0.5 else {}
                self.nexus.reload()
                self.seen["reloads"] += 1

    def harvest(self, all_of_it: bool = False) -> None:
        """Counts of calls that have ended, and away with them."""
        calls = self.faulty.calls
        ended, self.faulty.calls = [c for c in calls if c.ended_at], [c for c in calls if not c.ended_at]
        self.faulty.calls += calls[len(ended) + len(self.faulty.calls):]
        for call in ended:
            _, _, rest = call.prompt.partition("id=")
            total = self.totals[call.provider] if call.provider in ("cached", "ragent", "embedder") else self.made[int(rest.split(";")[0])]
            total.input_tokens += call.input_tokens
            total.output_tokens += call.produced
            total.attempts += 1
            total.is_told = total.is_told and (call.is_refused or call.is_usage_told)
            self.harvested[call.plan.fault] += 1

    # ---- the process ----

    def sample(self) -> None:
        every = 5 if self.reload_seconds >= 30 else 1
        while not self.stop.wait(every):
            self.sample_once()
            if len(self.samples) % 12 == 0:
                last = self.samples[-1]
                self.say(f"{last.at:6.0f} s  {sum(map(len, self.asked.values())):7d} calls  rss {last.rss_kib} KiB  "
                         f"descriptors {last.descriptors} ({last.upstream} upstream)  threads {last.threads}")

    def sample_once(self) -> None:
        process = Path(f"/proc/{self.nexus.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        self.samples.append(Sample(time.monotonic() - self.begun, int(status["VmRSS"].split()[0]), len(list((process / "fd").iterdir())),
                                   int(status["Threads"]), self.faulty.connections))

    def rss_slope(self) -> float:
        """KiB a minute over the second half."""
        half = self.samples[len(self.samples) // 2:]
        return statistics.linear_regression([s.at / 60 for s in half], [s.rss_kib for s in half]).slope

    # ---- the account ----

    def settle(self) -> None:
        """Waits until nothing is open, and for what is booked behind."""
        self.faulty.wait_for(lambda: self.faulty.open == 0, 20, "calls stay open at the provider")
        self.harvest()
        time.sleep(1)
        self.sample_once()

    def records(self) -> dict[str, list[dict]]:
        """Usage records of each user, oldest first."""
        by_user, cursor, admin = defaultdict(list), "", self.nexus.admin
        while cursor is not None:
            page = admin.get(f"/api/v1/usage/calls?limit=200{cursor and '&cursor='}{cursor}").json()
            for item in page["items"]:
                by_user[item["user_id"]].append(item)
            cursor = page["next_cursor"]
        for items in by_user.values():
            items.sort(key=lambda item: item["started_at"])
        return by_user

    def compare(self) -> dict:
        """Call by call; what does not fit goes to `wrong`."""
        sums = Counter()
        records = self.records()
        for user, asked in self.asked.items():
            found = records[user]
            if len(found) != len(asked):
                self.wrong.append(f"{user}: {len(asked)} calls, {len(found)} records")
                continue
            for call, record in zip(asked, found):
                self.compare_one(call, record, sums)
        for user, provider in (("vectors", "embedder"), ("cached", "cached")):
            booked = sum(r["input_tokens"] + r["output_tokens"] for r in records[user] if r["cache"] == "none")
            made = self.totals[provider]
            if booked != made.input_tokens + made.output_tokens:
                self.wrong.append(f"{user}: booked {booked}, made {made}")
            sums[f"{user} tokens"] = booked
        sums["of records"] = sum(r["input_tokens"] + r["output_tokens"] for items in records.values() for r in items if r["cache"] == "none")
        return dict(sums)

    def compare_one(self, call: Asked, record: dict, sums: Counter) -> None:
        made, booked = self.made[call.number], (record["input_tokens"], record["output_tokens"])
        wanted = (made.input_tokens, made.output_tokens)
        is_same = record["model"] == call.model and record["stream"] == call.stream
        has_lost = call.model.startswith("hedged") and record["attempts"] > 1     # what the loser said comes too late to be read
        is_told = made.is_told and not has_lost and record["status"] != "cancelled"
        fits = booked == wanted if is_told else booked[0] >= wanted[0] and booked[1] >= wanted[1]
        if call.is_aborted:                        # what was on its way when the caller left nobody has seen: the input's bound covers it
            fits = fits or (record["basis"] != "reported" and sum(booked) >= sum(wanted))
        if not is_same or not fits:
            self.wrong.append(f"{call}: booked {booked} {record['basis']} {record['status']} attempts {record['attempts']}, made {made}")
            self.say(f"WRONG {self.wrong[-1]}")
        sort = "told" if is_told else "not told"
        sums[f"{sort} calls"] += 1
        sums[f"{sort} made"] += sum(wanted)
        sums[f"{sort} booked"] += sum(booked)

    def check_ledger(self, sums: dict) -> None:
        """Of the stopped server."""
        books = Books(self.nexus.data)
        books.check()
        rows = dict(tuple(row) for row in books.rows("SELECT model = 'agentic', sum(tokens) FROM ledger GROUP BY 1"))
        books.close()
        agents = self.totals["ragent"]
        if rows.get(1, 0) != agents.input_tokens + agents.output_tokens:
            self.wrong.append(f"agents: ledger {rows.get(1)}, made {agents}")
        if rows.get(0, 0) != sums["of records"]:
            self.wrong.append(f"ledger {rows.get(0)} tokens, records {sums['of records']}")
        sums["agents tokens"] = rows.get(1, 0)
        sums["ledger"] = rows.get(0, 0)
