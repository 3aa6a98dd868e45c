"""The fault matrix: which faults there are, what a client may see of each, what must be booked.

A cell is one call: {whole, stream} x {client's dialect, provider's kind} x fault x {no fallback, one of the same kind, one of another kind}.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .books import Books
from .dialects import Reply, ask
from .faulty import INPUT_TOKENS, FaultyProvider, text_of

GOOD_TOKENS = 8
CONTENT_AT = 3
PRICE = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 2}
INPUT_NANOUSD, OUTPUT_NANOUSD = 1000, 2000
STREAM_DEADLINES = {"connect": "2s", "first_token": "1500ms", "between_tokens": "1500ms", "total": "20s"}
WHOLE_DEADLINES = {"connect": "2s", "total": "4s"}
THREADS = 24
SILENT = ("reset", "close")                        # a kept connection may go down at any time: then the client asks once more on a new one
PART = 240                                         # of the 256 providers of one configuration

# Every dialect in with every kind of provider that is different behind it.
PAIRS = [("chat", "openai"), ("chat", "anthropic"), ("messages", "anthropic"), ("messages", "openai"),
         ("responses", "responses"), ("responses", "openai"), ("responses", "anthropic")]


@dataclass(frozen=True)
class Fault:
    name: str
    mark: str
    when: str                                      # head, first, content, either of these two, end
    statuses: tuple[int, ...]                      # what a client without a fallback may be told
    mode: str = "both"                             # whole, stream, both
    may_go_on: bool = True                         # to a fallback
    is_free: bool = False                          # refused before any work

    def fits(self, stream: bool) -> bool:
        return self.mode == "both" or (self.mode == "stream") == stream


def status(code: int, *told: int, may_go_on: bool = True, retry_after: str = "") -> Fault:
    mark = f"fault=status status={code}" + (f" retry_after={retry_after}" if retry_after else "")
    return Fault(f"status {code}", mark, "head", told, may_go_on=may_go_on, is_free=True)


FAULTS = [
    status(400, 400, may_go_on=False),
    status(401, 502), status(402, 402), status(403, 502), status(429, 429, retry_after="7"),
    status(500, 503), status(503, 503), status(529, 503),
    # A whole answer's head comes with its end: only the total deadline can tell that it hangs, and that is the whole call's.
    Fault("hang whole", "fault=hang", "head", (504,), "whole", may_go_on=False),
    Fault("hang", "fault=hang", "head", (504,), "stream"),
    Fault("reset", "fault=reset", "head", (502,)),
    Fault("close", "fault=close", "head", (502,)),
    Fault("not HTTP", "fault=not_http", "head", (502,)),
    Fault("html", "fault=html", "first", (502,)),
    Fault("empty", "fault=empty", "first", (502,)),
    Fault("json for a stream", "fault=json", "first", (502,), "stream"),
    Fault("stall whole", "fault=stall", "first", (504,), "whole", may_go_on=False),
    Fault("stall", "fault=stall", "first", (504,), "stream"),
    Fault("cut", "fault=cut", "first", (502,)),
    Fault("reset inside", "fault=reset_at", "first", (502,)),
    Fault("garbage", "fault=garbage", "first", (502,)),
    Fault("error inside", "fault=error", "first", (502, 503)),
    Fault("short", "fault=short", "first", (502,), "stream"),
    *(Fault(f"{name} at {CONTENT_AT}", f"fault={mark} at={CONTENT_AT}", "content", (), "stream")
      for name, mark in (("stall", "stall"), ("cut", "cut"), ("reset", "reset_at"), ("garbage", "garbage"),
                         ("error", "error"), ("short", "short"))),
    # What came with the content may be seen before anything went out: then a fallback answers, else the client sees a broken answer.
    *(Fault(f"{mark} at once", f"fault={mark} at={CONTENT_AT} pause=0", "either", (502, 503), "stream") for mark in ("garbage", "error")),
    Fault("none", "fault=none", "end", (200,)),
    Fault("slow", "fault=none delay=0.1", "end", (200,)),
    Fault("no usage", "fault=no_usage", "end", (200,)),
    Fault("end twice", "fault=double_end", "end", (200,), "stream"),
    Fault("end left out", "fault=no_end", "end", (200,), "stream"),
]


@dataclass
class Cell:
    number: int
    dialect: str
    kind: str
    stream: bool
    fault: Fault
    fallback: str                                  # none, same, other
    reply: Reply | None = None
    record: dict | None = None                     # of GET /api/v1/usage/calls
    budget: dict | None = None                     # of the session

    @property
    def id(self) -> str:
        mode = "stream" if self.stream else "whole"
        return f"{mode} {self.dialect}-{self.kind} {self.fault.name} {self.fallback}"

    @property
    def model(self) -> str:
        return f"cell{self.number}"

    @property
    def name(self) -> str:
        """The provider that breaks; its answer's words begin with a."""
        return f"a{self.number}"

    @property
    def fallback_kind(self) -> str:
        return self.kind if self.fallback == "same" else "openai" if self.kind == "anthropic" else "anthropic"

    @property
    def expects_fallback(self) -> bool:
        is_unseen = self.fault.when in ("head", "first") or (self.fault.when == "either" and self.reply.text.startswith("b"))
        return self.fallback != "none" and self.fault.may_go_on and is_unseen


def cells(faults=tuple(FAULTS), fallbacks=("none", "same", "other")) -> list[Cell]:
    found = []
    for stream in (False, True):
        for dialect, kind in PAIRS:
            for fault in faults:
                if not fault.fits(stream) or (fault.name == "end left out" and kind == "responses"):
                    continue                       # the last event of Responses is the answer: without it there is none
                found += [Cell(len(found) + i, dialect, kind, stream, fault, fallback) for i, fallback in enumerate(fallbacks)]
    return found


def parts(table: list[Cell]) -> list[list[Cell]]:
    return [table[at:at + PART] for at in range(0, len(table), PART)]


def config_of(faulty: FaultyProvider, table: list[Cell]) -> dict:
    """Every cell has a model and a provider of its own: what the router learns of one says nothing of another."""
    providers = [faulty.provider(f"b{kind}", kind) for kind in ("openai", "anthropic", "responses")]
    models = []
    for cell in table:
        providers.append(faulty.provider(cell.name, cell.kind))
        targets = [{"provider": cell.name, "model": "mock", "price": PRICE, "priority": 0}]
        if cell.fallback != "none":
            targets.append({"provider": f"b{cell.fallback_kind}", "model": "mock", "price": PRICE, "priority": 1})
        deadlines = STREAM_DEADLINES if cell.stream else WHOLE_DEADLINES
        models.append({"name": cell.model, "targets": targets, "retries": 0, "max_output_tokens": 100,
                       "deadlines": dict(deadlines)})
    return {"providers": providers, "models": models, "limits": {"requests_per_minute": 1000000}}


def run(nexus, table: list[Cell]) -> None:
    """All calls, many at a time; then what was booked for each."""
    admin = nexus.admin
    with ThreadPoolExecutor(THREADS) as pool:
        sessions = list(pool.map(lambda cell: admin.open_session(budget={"tokens": 100000, "cost_usd": 1}), table))

        def play(cell, session):
            cell.reply = ask(admin.http, cell.dialect, cell.model, f"hello [[a {cell.fault.mark}]] [[b tokens={GOOD_TOKENS}]]",
                             stream=cell.stream, headers={"X-Nexus-Session": session})

        list(pool.map(play, table, sessions))
        by_model, cursor = {}, ""
        while cursor is not None:
            page = admin.get(f"/api/v1/usage/calls?limit=100{cursor and '&cursor='}{cursor}").json()
            by_model |= {item["model"]: item for item in page["items"]}
            cursor = page["next_cursor"]
        budgets = list(pool.map(admin.budget, sessions))
    for cell, budget in zip(table, budgets):
        cell.record, cell.budget = by_model.get(cell.model), budget


# ---- what must hold ----

def check_seen(cell: Cell) -> None:
    reply, fault = cell.reply, cell.fault
    if cell.expects_fallback:
        check_good(reply, text_of("b", GOOD_TOKENS))
        assert reply.usage == (INPUT_TOKENS, GOOD_TOKENS), reply.usage
    elif fault.when == "end":
        check_good(reply, text_of("a", GOOD_TOKENS))
        if fault.name != "no usage":
            assert reply.usage == (INPUT_TOKENS, GOOD_TOKENS), reply.usage
    elif fault.when == "content" or (fault.when == "either" and reply.status == 200):
        check_broken(reply, text_of("a", CONTENT_AT))
    else:
        assert reply.status in fault.statuses, (reply.status, reply.body)
        assert not reply.is_complete and reply.text == "" and not reply.is_cut
        assert reply.error and reply.error["message"], reply.body
        if fault.name == "status 429":
            assert 6 <= float(reply.headers["retry-after"]) <= 8, reply.headers


def check_good(reply: Reply, text: str) -> None:
    assert reply.status == 200, (reply.status, reply.body)
    assert reply.text == text
    assert reply.is_complete and not reply.is_cut and reply.error is None, reply.body[-600:]
    assert reply.begins == 1 and reply.after_end == 0, (reply.begins, reply.after_end)


def check_broken(reply: Reply, whole: str) -> None:
    """Content was sent: the client must see that the rest is missing."""
    assert reply.status == 200
    assert reply.garbage == 0, reply.body[-600:]
    assert reply.text == whole, reply.text
    assert not reply.is_complete, "a broken stream ended as if it were whole"
    assert reply.error and reply.error.get("message"), reply.body[-600:]
    assert reply.begins == 1
    if reply.dialect == "chat":                    # the other two have an event that says it
        assert reply.is_cut, "the connection of a broken stream ended well"


def check_booked(cell: Cell, faulty: FaultyProvider) -> None:
    record, spent = cell.record, cell.budget["spent"]
    calls = faulty.of(cell.name)
    assert record, "no usage record"
    assert spent["tokens"] == record["input_tokens"] + record["output_tokens"]
    cost = record["input_tokens"] * INPUT_NANOUSD + record["output_tokens"] * OUTPUT_NANOUSD
    assert int(spent["cost_nanousd"]) == int(record["cost_nanousd"])
    assert all(not value or int(value) == 0 for value in cell.budget["reserved"].values()), cell.budget["reserved"]
    made = (sum(call.input_tokens for call in calls), sum(call.produced for call in calls))
    used = (INPUT_TOKENS, GOOD_TOKENS) if cell.expects_fallback else (0, 0)
    wanted = (made[0] + used[0], made[1] + used[1])
    booked = (record["input_tokens"], record["output_tokens"])
    least = wanted[0] * INPUT_NANOUSD + wanted[1] * OUTPUT_NANOUSD
    assert int(record["cost_nanousd"]) >= least, (booked, wanted, record["basis"])
    assert record["attempts"] == 1 + cell.expects_fallback
    assert len(calls) == 1 or (cell.fault.name in SILENT and len(calls) == 2), len(calls)
    assert record["provider"] == (f"b{cell.fallback_kind}" if cell.expects_fallback else cell.name)
    is_told = all(call.is_refused or call.is_usage_told for call in calls)
    if is_told:
        assert booked == wanted and int(record["cost_nanousd"]) == cost, (booked, wanted)
    else:
        assert booked[0] >= wanted[0] and booked[1] >= wanted[1], (booked, wanted)
    is_good = cell.expects_fallback or cell.fault.when == "end"
    assert (record["status"] == "ok") == is_good, record


def check_books(data, table: list[Cell]) -> None:
    """The ledger of a stopped server: what the records say, no more and no less."""
    books = Books(data)
    books.check()
    tokens = sum(row["tokens"] for row in books.rows("SELECT tokens FROM ledger"))
    books.close()
    assert tokens == sum(cell.record["input_tokens"] + cell.record["output_tokens"] for cell in table)
