#!/usr/bin/env python3
"""What durable runs cost: rates, space, recovery and memory; beside LangGraph and DBOS where they install.

    bench/durable.py [--build build/release] [--only rate,turns,profile,recovery,waiting,peers] [--seconds 8] [--peers DIR]
                     [--interrupted 10000] [--waiting 50000] [--keep DIR]

rate      runs of one tool: two model calls, one sandboxed tool call, every effect journaled before it happens (SQLite FULL)
turns     one session, 1,000 turns: bytes a turn at the beginning and at the end
profile   500 new runs of one second each and 500 reads a second, over HTTP; p99 of the reads
recovery  N runs in flight, SIGKILL, start: how long until all of them are at work again
waiting   N runs that wait for approval, then N more: what each of the second N costs in memory, the settled RSS with them less that
          before them; what the first N cost is told beside it, with all that a node makes once for such a load (pools, caches)
peers     the same run by LangGraph with its SQLite checkpointer and by DBOS on PostgreSQL; with --peers DIR, where a Python
          environment of them is made (bench/durable/requirements.txt); PostgreSQL from Debian's package

The model is the offline stand-in, so that what is measured is the platform.  The load is wrk, on loopback, on the same cores.
Figures of a shared machine are shown; gates (exit 1) are judged on counts, never on times, but for --gates.
"""
import argparse
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
QUESTION = "count the words of this sentence, please"
ONE_TOOL = [{"tool_calls": [{"name": "text_processing", "arguments": {"operation": "count", "text": QUESTION}}]}, {"text": "There are seven words."}]
IDLE_SECONDS = 75                  # accounts that nobody asks for leave memory after a minute
POLICY = """package nexus.agent.policy

import rego.v1

default allow := false

allow if input.action != "tool.call"

allow if {
    input.approval.status == "approved"
    input.approval.approver != input.user.id
}
"""
results: dict = {}
misses: list[str] = []


def say(text: str = "") -> None:
    print(text, flush=True)


def aim(what: str, figure: float, limit: float, unit: str, is_most: bool) -> None:
    ok = figure <= limit if is_most else figure >= limit
    say(f"  {'ok    ' if ok else 'MISSED'} {what}: {figure:.4g} {unit} ({'at most' if is_most else 'at least'} {limit:g})")
    results[what] = {"figure": figure, "limit": limit, "unit": unit, "ok": ok}
    if not ok:
        misses.append(what)


def scripted(*steps: dict) -> str:
    return f"{QUESTION} [[offline {json.dumps({'script': list(steps)})}]]"


class Node:
    """One server on a folder of its own."""

    def __init__(self, binary: Path, folder: Path, config: dict):
        self.binary, self.folder, self.process, self.key = binary, folder, None, ""
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {
            "listen": f"127.0.0.1:{self.port}", "data_dir": str(folder / "data"), "log_level": "warn",
            "providers": [{"name": "offline", "type": "offline"}],
            "models": [{"name": "offline", "targets": [{"provider": "offline", "model": "offline"}]}],
            "agents": [{"name": "bench", "model": "offline", "instructions": "x", "tools": ["text_processing"]}],
            "limits": {"requests_per_minute": 1000000000, "streams_per_key": 100000}, **config,
        }
        self.config = folder / "nexus.yaml"
        self.config.write_text(json.dumps(settings))      # JSON is YAML

    def start(self) -> float:
        began = time.monotonic()
        self.process = subprocess.Popen([self.binary, "serve", "--config", self.config], stdout=open(self.folder / "log", "a"), stderr=subprocess.STDOUT)
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"nexus ended: {(self.folder / 'log').read_text()[-500:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.005)
        took = time.monotonic() - began
        self.key = self.key or (self.folder / "data/admin.key").read_text().strip()
        return took

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)

    def ask(self, method: str, path: str, body=None, key: str | None = None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method, data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.loads(reply.read() or b"null")

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self) -> int:
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text()).group(1)) << 10

    def settled_rss(self) -> int:
        """The median of half a minute: what is done by the clock comes and goes."""
        samples = []
        for _ in range(30):
            samples.append(self.rss())
            time.sleep(1)
        return sorted(samples)[15]

    def idle(self) -> None:
        """Until it has nothing to do: tools are compiled in the background after the first start."""
        for _ in range(120):
            before = self.cpu()
            time.sleep(1)
            if self.cpu() - before < 0.03:
                return

    def metric(self, name: str) -> float:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            found = re.search(rf"^{name}(?:{{[^}}]*}})? ([\d.e+]+)$", reply.read().decode(), re.M)
        return float(found.group(1)) if found else 0.0

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.folder / 'data/nexus.db'}?mode=ro", uri=True)

    def bytes(self) -> int:
        return sum(os.path.getsize(file) for end in ("", "-wal") if os.path.exists(file := str(self.folder / "data/nexus.db") + end))


def wrk(node: Node, folder: Path, lua: str, connections: int, seconds: float, path: str = "/v1/chat/completions", key: str | None = None) -> dict:
    script = folder / f"{time.monotonic_ns()}.lua"
    script.write_text(f'wrk.headers["Authorization"] = "Bearer {key or node.key}"\nwrk.headers["Content-Type"] = "application/json"\n{lua}\n'
                      "function done(summary, latency, requests)\n  local e = summary.errors\n"
                      '  io.write(string.format("RESULT %d %d %d %.1f %.1f\\n", summary.requests, summary.duration, '
                      "e.status + e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))\nend\n")
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "60s", "-s", script, f"http://127.0.0.1:{node.port}{path}"],
                          capture_output=True, text=True, timeout=seconds + 120)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)", done.stdout)
    if not found or not int(found.group(1)):
        raise RuntimeError(f"wrk: {(done.stdout + done.stderr)[-300:]}")
    count, duration = int(found.group(1)), int(found.group(2)) / 1e6
    return {"count": count, "rate": count / duration, "errors": int(found.group(3)), "p50_ms": float(found.group(4)) / 1e3, "p99_ms": float(found.group(5)) / 1e3}


def posts(body: dict) -> str:
    return f'wrk.method = "POST"\nwrk.body = [==[{json.dumps(body)}]==]'


def chat(*steps: dict, agent: str = "bench") -> dict:
    return {"model": f"agent:{agent}", "messages": [{"role": "user", "content": scripted(*steps)}]}


# ---- the parts ----

def rate(given, folder: Path) -> None:
    say("\n== runs of two model calls and one sandboxed tool call, SQLite with full durability")
    node = Node(given.binary, folder / "rate", {})
    node.start()
    try:
        node.idle()
        best = 0.0
        for connections in (1, 16, 128):
            size, used = node.bytes(), node.cpu()
            got = wrk(node, folder, posts(chat(*ONE_TOOL)), connections, given.seconds)
            used = (node.cpu() - used) / got["count"] * 1e6
            say(f"  {connections:4} at once: {got['rate']:7.0f} runs/s   p50 {got['p50_ms']:7.1f} ms  p99 {got['p99_ms']:7.1f} ms   CPU {used:6.0f} us a run")
            best = max(best, got["rate"])
            if got["errors"]:
                misses.append(f"{got['errors']} runs failed")
            results[f"rate at {connections}"] = {**got, "cpu_us": used}
        time.sleep(0.5)
        runs = node.database().execute("select count(*) from agent_runs").fetchone()[0]
        say(f"  {node.bytes() / runs:.0f} bytes a run (with indexes, ledger and audit)")
        results["bytes a run"] = node.bytes() / runs
        aim("durable runs", best, 1500, "runs/s", False)
    finally:
        node.stop()


def turns(given, folder: Path) -> None:
    say("\n== one session, 1,000 turns of one tool call each")
    node = Node(given.binary, folder / "turns", {})
    node.start()
    try:
        session = node.ask("POST", "/api/v1/sessions", {"agent": "bench", "budget": {"tokens": 10**9}})["id"]
        sizes, times = [], []
        for turn in range(1000):
            began = time.monotonic()
            run = node.ask("POST", f"/api/v1/sessions/{session}/messages", {"content": scripted(*ONE_TOOL)})["run_id"]
            while node.ask("GET", f"/api/v1/runs/{run}")["status"] not in ("completed", "failed"):
                time.sleep(0.002)
            times.append(time.monotonic() - began)
            if turn % 100 == 99:
                database = node.database()
                rows = [database.execute(f"select sum(length({column})) from {table}").fetchone()[0] for table, column in
                        (("run_events", "data"), ("messages", "content"), ("tool_calls", "output"))]
                sizes.append(sum(rows))
        first, last = sizes[0] / 100, (sizes[-1] - sizes[-2]) / 100
        say(f"  journal and content: {first:.0f} bytes a turn in the first hundred, {last:.0f} in the last; "
            f"a turn takes {sorted(times[:100])[50] * 1e3:.1f} ms at first, {sorted(times[-100:])[50] * 1e3:.1f} at last")
        results["turns"] = {"first": first, "last": last}
        aim("growth of a turn's space over 1,000 turns", last / first, 1.1, "x", True)
    finally:
        node.stop()


def profile(given, folder: Path) -> None:
    say("\n== 500 new one-second runs and 500 reads a second")
    node = Node(given.binary, folder / "profile", {})
    node.start()
    try:
        node.idle()
        read = node.ask("POST", "/api/v1/sessions", {"agent": "bench"})["id"]
        run = node.ask("POST", f"/api/v1/sessions/{read}/messages", {"content": scripted(*ONE_TOOL)})["run_id"]
        with ThreadPoolExecutor(1) as pool:
            writes = pool.submit(wrk, node, folder, posts(chat({"sleep_ms": 1000, "text": "done"})), 640, given.seconds + 4)
            time.sleep(2)
            reads = wrk(node, folder, "function delay() return 18 end", 10, given.seconds, f"/api/v1/runs/{run}")
            written = writes.result()
        say(f"  runs: {written['rate']:.0f}/s, p50 {written['p50_ms']:.0f} ms, p99 {written['p99_ms']:.0f} ms, {written['errors']} errors;"
            f"   reads: {reads['rate']:.0f}/s, p50 {reads['p50_ms']:.1f} ms, p99 {reads['p99_ms']:.1f} ms")
        results["profile"] = {"writes": written, "reads": reads}
        aim("new one-second runs", written["rate"], 500, "runs/s", False)
        aim("p99 of reads beside them", reads["p99_ms"], 20, "ms", True)
    finally:
        node.stop()


def begin_runs(node: Node, count: int, steps: tuple, key: str | None = None) -> None:
    """`count` runs by messages to sessions of their own; nobody waits for them."""
    body = json.dumps({"content": scripted(*steps)})

    def one(_: int) -> None:
        session = node.ask("POST", "/api/v1/sessions", {"agent": "bench"}, key)["id"]
        request = urllib.request.Request(f"http://127.0.0.1:{node.port}/api/v1/sessions/{session}/messages", data=body.encode(),
                                         headers={"Authorization": f"Bearer {key or node.key}", "Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=120).read()

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(count)))


def recovery(given, folder: Path) -> None:
    say(f"\n== {given.interrupted} runs in flight, SIGKILL, start")
    node = Node(given.binary, folder / "recovery", {"resilience": {"active_runs": 20000}})     # all of them at once
    node.start()
    begin_runs(node, given.interrupted, ({"sleep_ms": 60000, "text": "late"},))
    node.stop(signal.SIGKILL)
    live = node.database().execute("select count(*) from agent_runs where status = 'running'").fetchone()[0]
    try:
        took = node.start()
        began = time.monotonic()
        while node.metric("nexus_runs_active") < live and time.monotonic() - began < 60:
            time.sleep(0.05)
        took += time.monotonic() - began
        say(f"  {live} runs were live; all at work again {took:.2f} s after the start, RSS {node.rss() / 1e6:.0f} MB")
        aim("resume of interrupted runs", took * 10000 / max(live, 1), 5, "s for 10,000", True)
    finally:
        node.stop(signal.SIGKILL)


def waiting(given, folder: Path) -> None:
    """Twice as many, because one burst alone measures mostly itself: what a node makes once for a load stays about as it was in the second."""
    say(f"\n== {given.waiting} runs that wait for approval, and as many again")
    (folder / "policies").mkdir()
    (folder / "policies/only.rego").write_text(POLICY)
    node = Node(given.binary, folder / "waiting", {"policy": {"dir": str(folder / "policies")}})
    node.start()
    try:
        node.idle()
        begin_runs(node, 2000, ONE_TOOL)
        wrk(node, folder, posts(chat(*ONE_TOOL)), 64, 5)
        before, known = rested_rss(node), count_waiting(node)
        each = []
        for burst in ("first", "second"):
            while count_waiting(node) < known + given.waiting:
                wrk(node, folder, posts(chat(*ONE_TOOL)), 64, 5)
            more, after = count_waiting(node) - known, rested_rss(node)
            each.append((after - before) / more)
            say(f"  {burst} {more} more runs wait; RSS {before / 1e6:.1f} -> {after / 1e6:.1f} MB, {each[-1]:.1f} bytes each")
            before, known = after, known + more
        results["memory of the first waiting runs"] = each[0]
        aim("memory of a waiting run", each[1], 100, "bytes", True)
    finally:
        node.stop()


def rested_rss(node: Node) -> int:
    time.sleep(IDLE_SECONDS)
    node.idle()
    return node.settled_rss()


def count_waiting(node: Node) -> int:
    return node.database().execute("select count(*) from agent_runs where status = 'waiting'").fetchone()[0]


# ---- peers ----

def peer_python(folder: Path) -> Path | None:
    python = folder / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        done = subprocess.run([python, "-m", "pip", "install", "-q", "-r", ROOT / "bench/durable/requirements.txt"], capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"  peers do not install: {done.stderr.strip()[-200:]}")
            return None
    return python


class Postgres:
    """A server of its own, on loopback, gone afterwards."""

    def __init__(self, folder: Path):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if Path("/usr/lib/postgresql").is_dir() else []
        if not found:
            raise RuntimeError("no PostgreSQL here (Debian's package postgresql)")
        self.bin, self.folder = found[-1].parent, folder
        folder.mkdir()
        self.user = []
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            for parent in folder.parents:
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o111)
            self.user = ["runuser", "-u", "postgres", "--"]
        name = "postgres" if self.user else pwd.getpwuid(os.getuid()).pw_name
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.run("initdb", "-A", "trust", "-D", folder / "data")
        self.run("pg_ctl", "-D", folder / "data", "-o", f"-p {self.port} -k {folder} -c listen_addresses=127.0.0.1", "-l", folder / "log", "-w", "start")
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "bench")
        self.url = f"postgresql://{name}@127.0.0.1:{self.port}/bench"

    def run(self, program: str, *arguments) -> None:
        subprocess.run([*self.user, self.bin / program, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def cpu(self) -> float:
        pid = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat.parent.name) == pid or int(fields[1]) == pid:
                total += sum(int(f) for f in fields[11:15])
        return total / TICKS

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.folder / "data", "-m", "fast", "-w", "stop")


def peers(given, folder: Path) -> None:
    say("\n== the same run elsewhere")
    if not given.peers:
        say("  not asked for: --peers DIR")
        return
    python = peer_python(given.peers)
    if not python:
        return
    (folder / "peers").mkdir()
    done = subprocess.run([python, ROOT / "bench/durable/langgraph_peer.py", folder / "peers", str(given.seconds), "4", "300"],
                          capture_output=True, text=True, timeout=600, check=False)
    tell("LangGraph, SQLite", done)
    try:
        postgres = Postgres(folder / "postgres")
    except (RuntimeError, subprocess.CalledProcessError) as why:
        say(f"  DBOS: {why}")
        return
    try:
        used = postgres.cpu()
        done = subprocess.run([python, ROOT / "bench/durable/dbos_peer.py", postgres.url, str(given.seconds), "8"],
                              capture_output=True, text=True, timeout=600, check=False)
        used = postgres.cpu() - used
        got = tell("DBOS, PostgreSQL", done)
        if got:
            results["DBOS, PostgreSQL"]["server_cpu_us"] = used / (got["runs_per_s"] * given.seconds) * 1e6
            say(f"      and {results['DBOS, PostgreSQL']['server_cpu_us']:.0f} us a run in PostgreSQL")
    finally:
        postgres.stop()
    say("  Temporal: its test server is a download from elsewhere than a package registry: not measured")


def tell(name: str, done) -> dict | None:
    try:
        got = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        say(f"  {name}: {(done.stdout + done.stderr).strip()[-300:]}")
        return None
    results[name] = got
    mine = results.get("rate at 128", {})
    say(f"  {name:18} {got['runs_per_s']:7.0f} runs/s   CPU {got['cpu_us_per_run']:6.0f} us a run" +
        (f"   bytes a turn {got['bytes_per_turn_first']:.0f} -> {got['bytes_per_turn_last']:.0f} in 300 turns" if "bytes_per_turn_first" in got else "") +
        (f"   (Nexus, over HTTP: {mine['rate'] / got['runs_per_s']:.1f}x the rate, {mine['cpu_us'] / got['cpu_us_per_run']:.2f}x the CPU)" if mine else ""))
    return got


PARTS = {"rate": rate, "turns": turns, "profile": profile, "recovery": recovery, "waiting": waiting, "peers": peers}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", type=Path, default=ROOT / "build/release")
    options.add_argument("--only", default=",".join(PARTS))
    options.add_argument("--seconds", type=float, default=8)
    options.add_argument("--peers", type=Path)
    options.add_argument("--interrupted", type=int, default=10000)
    options.add_argument("--waiting", type=int, default=50000)
    options.add_argument("--keep", type=Path, help="folder for data and logs; default: one that is removed")
    options.add_argument("--gates", action="store_true", help="exit 1 when a target was missed: on a quiet machine")
    given = options.parse_args()
    given.binary = given.build / "nexus"
    for name in given.only.split(","):
        if name not in PARTS:
            options.error(f"no part is called {name}; there are {', '.join(PARTS)}")
    say(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="nexus-durable-") as temporary:
        folder = given.keep or Path(temporary)
        for name in given.only.split(","):
            PARTS[name](given, folder)
    say("\n" + json.dumps(results))
    return 1 if given.gates and misses else 0


if __name__ == "__main__":
    sys.exit(main())
