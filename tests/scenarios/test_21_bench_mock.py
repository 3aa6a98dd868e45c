"""The faults of the gateway bench's mock, which is another program by another hand: NEXUS_GATEWAY_BENCH names its folder.

Two of them: one breaks, one is well.  Each token carries its place in the answer, so a text of two attempts, or with a hole, is seen.
"""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from harness.dialects import ask
from harness.matrix import PRICE
from harness.server import free_port

BENCH = os.environ.get("NEXUS_GATEWAY_BENCH", "")
pytestmark = pytest.mark.skipif(not BENCH or not shutil.which("go", path=f"{os.environ.get('PATH')}:/usr/local/go/bin"),
                                reason="NEXUS_GATEWAY_BENCH does not name the bench, or there is no Go")
BROKEN_TOKENS, WELL_TOKENS = 10, 6
PAIRS = [("chat", "openai"), ("chat", "anthropic"), ("messages", "anthropic"), ("messages", "openai"), ("responses", "openai"),
         ("responses", "anthropic")]
FAULTS = {"429": 429, "500": 503, "hang": 504, "reset": 502, "midreset": 200, "midclose": 200}     # and what a client is told
DEADLINES = {"connect": "1s", "first_token": "1s", "between_tokens": "1s", "total": "4s"}


class Mock:
    def __init__(self, program: Path, tokens: int):
        self.port, self.tokens = free_port(), tokens
        self.process = subprocess.Popen([program, "mock", "--listen", f"127.0.0.1:{self.port}", "--tokens", str(tokens), "--delay-us", "20000",
                                         "--bytes", "64"], stderr=subprocess.DEVNULL)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.http.get("/__stats")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def behave(self, **more) -> None:
        self.http.post("/__config", json={"tokens": self.tokens, "delay_us": 20000, "bytes": 64, "coalesce": 1, **more}).raise_for_status()

    def stats(self) -> dict:
        return self.http.get("/__stats").json()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    built = tmp_path_factory.mktemp("bench") / "llmbench"
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH')}:/usr/local/go/bin", "GOFLAGS": "-mod=mod"}
    subprocess.run(["go", "build", "-o", built, "."], cwd=BENCH, env=environment, check=True, timeout=300)
    return built


@pytest.fixture
def mocks(program):
    pair = Mock(program, BROKEN_TOKENS), Mock(program, WELL_TOKENS)
    yield pair
    for mock in pair:
        mock.close()


@dataclass
class Cell:
    dialect: str
    kind: str
    stream: bool
    fault: str
    use: str                                       # pair: with a fallback, solo

    @property
    def name(self) -> str:
        return f"{self.use}-{self.dialect}-{self.kind}-{'stream' if self.stream else 'whole'}-{self.fault}"


def cells() -> list[Cell]:
    """The faults of streams are no faults of whole answers; one that hangs has only the total deadline."""
    return [Cell(dialect, kind, stream, fault, use) for fault in FAULTS for dialect, kind in PAIRS for stream in (False, True)
            for use in ("pair", "solo") if stream or fault in ("429", "500", "reset")]


def config(mocks, table: list[Cell]) -> dict:
    """A provider of its own for each cell: what the router learns of one says nothing of another."""
    def provider(name, kind, mock):
        return {"name": name, "type": kind, "api_keys": ["${env:FAULTY_KEY}"], "base_url": f"http://127.0.0.1:{mock.port}/v1"}

    providers = [provider(f"well-{kind}", kind, mocks[1]) for kind in ("openai", "anthropic")]
    providers += [provider(cell.name, cell.kind, mocks[0]) for cell in table]
    models = []
    for cell in table:
        names = [cell.name, f"well-{cell.kind}"][:2 if cell.use == "pair" else 1]
        targets = [{"provider": name, "model": "mock", "price": PRICE, "priority": i} for i, name in enumerate(names)]
        models.append({"name": cell.name, "targets": targets, "deadlines": dict(DEADLINES), "retries": 0, "max_output_tokens": 100})
    return {"providers": providers, "models": models, "limits": {"requests_per_minute": 100000}}


def places(text: str) -> list[int]:
    return [int(place) for place in re.findall(r"[0-9a-f]{16}\.(\d+)@\d+", text)]


def test_every_fault_of_the_bench_is_invisible_or_told(start, mocks, capsys):
    broken, well = mocks
    table, wrong = cells(), []
    nexus = start(config(mocks, table), environment={"FAULTY_KEY": "sk-bench-4f0e8a215b1d9c3a77e0"})
    admin = nexus.admin
    for cell in table:
        broken.behave(**{f"rate_{cell.fault}": 1, "hang_us": 60000000})
        session = admin.open_session(budget={"tokens": 10 ** 6})
        before = broken.stats()["tokens_sent"] + well.stats()["tokens_sent"]
        reply = ask(admin.http, cell.dialect, cell.name, "hello", stream=cell.stream, headers={"X-Nexus-Session": session})
        made = broken.stats()["tokens_sent"] + well.stats()["tokens_sent"] - before
        problem = judge(reply, cell)
        spent = admin.budget(session)["spent"]["tokens"]
        if spent < made + (10 if made else 0):
            problem = f"{spent} tokens booked, {made} made"
        wrong += [f"{cell.name}: {problem}"] if problem else []
    with capsys.disabled():
        print(f"\nnote: bench mock: {len(table)} cells, {len(wrong)} wrong; faults {broken.stats()['faults']}")
    assert wrong == []


def judge(reply, cell: Cell) -> str:
    found = places(reply.text)
    if found != list(range(len(found))):
        return f"text of two attempts, or with a hole: {reply.text[:300]}"
    if cell.fault.startswith("mid"):
        is_told = reply.error and not reply.is_complete and len(found) == BROKEN_TOKENS // 2 and (reply.is_cut or cell.dialect != "chat")
        return "" if is_told else f"{reply.status} complete {reply.is_complete} error {reply.error} text {reply.text[:200]}"
    if cell.use == "pair":
        is_good = reply.status == 200 and reply.is_complete and not reply.error and reply.begins == 1
        is_whole = len(found) == WELL_TOKENS if cell.stream else "id=" in reply.text
        return "" if is_good and is_whole and reply.usage == (10, WELL_TOKENS) else f"{reply.status} {reply.usage} {reply.body[-300:]!r}"
    if reply.status != FAULTS[cell.fault] or not reply.error or (cell.fault == "429" and "retry-after" not in reply.headers):
        return f"status {reply.status} {reply.body[:300]!r} {dict(reply.headers)}"
    return ""


def test_limits_per_key_are_met_by_the_whole_pool(start, mocks):
    broken, well = mocks
    keys = [f"sk-bench-{i}-5b1d9c3a77e04f0e" for i in range(3)]
    nexus = start({"providers": [{"name": "p", "type": "openai", "base_url": f"http://127.0.0.1:{broken.port}/v1",
                                  "api_keys": [f"${{env:POOL{i}}}" for i in range(3)]}],
                   "models": [{"name": "m", "targets": [{"provider": "p", "model": "mock"}]}]},
                  environment={f"POOL{i}": key for i, key in enumerate(keys)})
    nexus.secrets.update(keys)
    broken.behave(key_rps=1, key_burst=2)
    replies = [ask(nexus.admin.http, "chat", "m", "hello") for _ in range(6)]
    assert [reply.status for reply in replies] == [200] * 6, "three keys have two calls each"
    by_key = broken.stats()["by_key"]
    assert all(by_key.get(key, 0) >= 2 for key in keys), by_key
    reply = ask(nexus.admin.http, "chat", "m", "hello")
    assert reply.status == 200 or (reply.status == 429 and float(reply.headers["retry-after"]) >= 1), reply
    time.sleep(2.2)
    assert ask(nexus.admin.http, "chat", "m", "hello").status == 200
