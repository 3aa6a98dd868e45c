#!/usr/bin/env python3
"""What Nexus costs, beside nginx in the same run: called by scripts/bench, usable alone.

    bench/run.py [--build build/release] [--only gateway,runs,programs] [--seconds 3] [--rounds 2] [--keep]

gateway   a plain forwarded chat call and a stream: CPU us, RSS, added latency; nginx as a plain proxy, Nexus with policy off and on
runs      durable runs: two model calls and one sandboxed tool call each, SQLite with full durability
programs  the micro benches: policy decision, sandbox call, store, runtime

The load comes from the Go harness in $NEXUS_GATEWAY_BENCH (default: ../shared/bench/gateway beside the repository, when it is
there); without it from wrk and bench/mock_upstream.c.  Loopback only; everything started here is stopped here, by its pid.
Exit 1 when something did not work; a missed target is said, and is no failure of the bench.
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.environ.get("NEXUS_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nexus")
STREAM_TOKENS = 50
STREAM_CONNECTIONS = 32
CONNECTIONS = 32
RATE = 1000
RUNS_AT_ONCE = 64
TARGETS = []     # (what, figure, limit, unit, "<=" or ">=")

NGINX_CONF = """
worker_processes 2;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log warn;
daemon off;
events {{ worker_connections 4096; use epoll; }}
http {{
  access_log off;
  client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy; fastcgi_temp_path {dir}/nginx-f;
  uwsgi_temp_path {dir}/nginx-u; scgi_temp_path {dir}/nginx-s;
  keepalive_timeout 300s; keepalive_requests 100000000;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096 reuseport;
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""

# Everything on that a production node has on; only the access log (one line a request) is off, as in nginx.
NEXUS_CONF = """
listen: 127.0.0.1:0
data_dir: {dir}/data
log_level: warn
providers:
  - {{name: mock, type: openai, base_url: "http://127.0.0.1:{upstream}/v1", api_keys: ["sk-bench"]}}
models:
  - name: mock-model
    targets: [{{provider: mock, model: mock-model, price: {{input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 2}}}}]
agents:
  - {{name: bench, model: mock-model, tools: [text_processing], instructions: "Use the tool, then answer."}}
policy: {{engine: {engine}, dir: "{root}/policies"}}
tools: {{dir: "{toolbox}"}}
limits: {{requests_per_minute: 1000000000, streams_per_key: 100000}}
"""


def say(text=""):
    print(text, flush=True)


def aim(what, figure, limit, unit, sense="<="):
    TARGETS.append((what, figure, limit, unit, sense))


# ---- processes ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def descendants(pid):
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as f:
                    found += [int(child) for child in f.read().split()]
        except OSError:
            pass
    return found


def cpu_seconds(pid):
    """User and system time of a process tree, in nanosecond steps (/proc/stat has 10 ms ones)."""
    total = 0
    for member in descendants(pid):
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def rss_mib(pid):
    total = 0
    for member in descendants(pid):
        try:
            with open(f"/proc/{member}/status") as f:
                total += int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
        except (OSError, AttributeError):
            pass
    return total / 1024


def machine_busy_seconds():
    with open("/proc/stat") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, options):
        self.options = options
        self.dir = tempfile.mkdtemp(prefix="nexus-bench-")
        self.processes = []
        self.failures = 0
        self.harness = self.build_harness()

    def program(self, name):
        path = os.path.join(self.options.build, name)
        return path if os.access(path, os.X_OK) else None

    def fail(self, text):
        say(f"FAILED: {text}")
        self.failures += 1

    def start(self, name, command):
        log = open(os.path.join(self.dir, f"{name}.log"), "wb")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.dir)
        self.processes.append(process)
        return process

    def stop(self, process):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = [p for p in self.processes if p is not process]

    def close(self):
        for process in list(reversed(self.processes)):
            self.stop(process)
        if self.options.keep:
            say(f"kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def wait_for(self, process, name, is_ready, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if is_ready():
                return True
            if process.poll() is not None:
                break
            time.sleep(0.05)
        with open(os.path.join(self.dir, f"{name}.log"), errors="replace") as f:
            self.fail(f"{name} did not come up: {f.read()[-600:]}")
        return False

    # ---- the Go harness, built into the cache folder ----

    def build_harness(self):
        folder = os.environ.get("NEXUS_GATEWAY_BENCH") or os.path.join(ROOT, "..", "shared", "bench", "gateway")
        if not os.path.isfile(os.path.join(folder, "go.mod")) or not shutil.which("go"):
            say("load: wrk and bench/mock_upstream.c (set NEXUS_GATEWAY_BENCH to the folder of the gateway bench, and have go, for "
                "an open loop and latency per percentile)")
            return None
        names = sorted(n for n in os.listdir(folder) if n.endswith(".go") or n == "go.mod")
        digest = hashlib.sha256()
        for name in names:
            with open(os.path.join(folder, name), "rb") as f:
                digest.update(name.encode() + b"\0" + f.read())
        program = os.path.join(CACHE, f"llmbench-{digest.hexdigest()[:16]}")
        if not os.path.exists(program):
            os.makedirs(CACHE, exist_ok=True)
            result = subprocess.run(["go", "build", "-buildvcs=false", "-o", program, "."], cwd=folder, capture_output=True, text=True)
            if result.returncode != 0:
                say(f"load: the Go harness does not build ({result.stderr.strip()[-300:]}); using wrk")
                return None
        say(f"load: the gateway bench in {os.path.relpath(folder, ROOT)}")
        return program

    # ---- what is measured ----

    def start_mock(self, *arguments):
        port = free_port()
        if self.harness and not arguments:
            process = self.start("mock", [self.harness, "mock", "--listen", f"127.0.0.1:{port}"])
        else:
            name = self.program("bench_mock_upstream")
            process = self.start("mock", [name, "--port", str(port), "--tokens", str(STREAM_TOKENS), *arguments])
        return (process, port) if self.wait_for(process, "mock", lambda: is_open(port)) else (None, 0)

    def start_nginx(self, upstream):
        nginx = shutil.which("nginx") or ("/usr/sbin/nginx" if os.access("/usr/sbin/nginx", os.X_OK) else None)
        if not nginx:
            self.fail("no nginx to compare with: scripts/setup --bench installs it")
            return None
        port = free_port()
        path = os.path.join(self.dir, "nginx.conf")
        with open(path, "w") as f:
            f.write(NGINX_CONF.format(dir=self.dir, upstream=upstream, port=port))
        process = self.start("nginx", [nginx, "-e", os.path.join(self.dir, "nginx.log"), "-c", path])
        if not self.wait_for(process, "nginx", lambda: is_open(port)):
            return None
        return {"name": "nginx", "process": process, "port": port, "key": "none"}

    def start_nexus(self, name, upstream, engine):
        folder = os.path.join(self.dir, name)
        os.makedirs(folder)
        path = os.path.join(folder, "nexus.yaml")
        with open(path, "w") as f:
            f.write(NEXUS_CONF.format(dir=folder, upstream=upstream, engine=engine, root=ROOT,
                                      toolbox=os.path.join(self.options.build, "toolbox")))
        port = free_port()
        command = [self.program("nexus"), "serve", "--config", path, "--listen", f"127.0.0.1:{port}"]
        process = self.start(name, command)
        if not self.wait_for(process, name, lambda: is_ready(port)):
            return None
        first_rss = self.let_compile(process)
        self.stop(process)
        process = self.start(name, command)
        if not self.wait_for(process, name, lambda: is_ready(port)):
            return None
        with open(os.path.join(folder, "data", "admin.key")) as f:
            return {"name": name, "process": process, "port": port, "key": f.read().strip(), "first_rss": first_rss}

    def let_compile(self, process):
        """A first start compiles the tools beside its work and remembers them; it is over when the process has come to rest."""
        quiet, end = 0, time.monotonic() + 40
        while quiet < 3 and time.monotonic() < end:
            began = cpu_seconds(process.pid)
            time.sleep(0.5)
            quiet = quiet + 1 if cpu_seconds(process.pid) - began < 0.02 else 0
        return rss_mib(process.pid)


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


# ---- load ----

def load_by_harness(bench, target, mode, seconds):
    command = [bench.harness, "load", "--url", f"http://127.0.0.1:{target['port']}/v1", "--key", target["key"],
               "--pid", str(target["process"].pid), "--duration", f"{seconds}s", "--warmup", "500ms", "--json", "-"]
    if mode == "rate":
        command += ["--rate", str(RATE), "--conns", "256"]
    elif mode == "stream":
        command += ["--stream", "--tokens", str(STREAM_TOKENS), "--delay-us", "2000", "--conns", str(STREAM_CONNECTIONS)]
    else:
        command += ["--conns", str(CONNECTIONS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if result.returncode != 0:
        raise RuntimeError(f"{target['name']}: {result.stderr.strip()[-300:]}")
    got = json.loads(result.stdout)
    service = got.get("service") or {}
    return {"cpu": got.get("cpu_us_per_req", 0), "token": got.get("cpu_us_per_token", 0), "rps": got["rps"],
            "errors": got["errors"], "sample": got.get("error_sample", ""), "rss": got.get("rss_peak_kb", 0) / 1024,
            "p50": service.get("p50_us", service.get("p50", service.get("P50", 0))),
            "p99": service.get("p99_us", service.get("p99", service.get("P99", 0)))}


def run_wrk(bench, target, path, body, connections, seconds, threads=1):
    script = os.path.join(bench.dir, "request.lua")
    with open(script, "w") as f:
        f.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
                f'wrk.headers["Authorization"] = "Bearer {target["key"]}"\n{body}\n'
                'function done(summary, latency, requests)\n'
                '  io.write(string.format("RESULT %d %d %d %.1f %.1f\\n", summary.requests, summary.duration,\n'
                '    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,\n'
                '    latency:percentile(50), latency:percentile(99)))\nend\n')
    pid = target["process"].pid
    began, busy = cpu_seconds(pid), machine_busy_seconds()
    result = subprocess.run(["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", script,
                             f"http://127.0.0.1:{target['port']}{path}"], capture_output=True, text=True, timeout=seconds + 60)
    used, busy = cpu_seconds(pid) - began, machine_busy_seconds() - busy
    found = re.search(r"RESULT (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)", result.stdout)
    if not found or int(found.group(1)) == 0:
        raise RuntimeError(f"{target['name']}: wrk: {(result.stdout + result.stderr).strip()[-300:]}")
    count, duration_us, errors = int(found.group(1)), int(found.group(2)), int(found.group(3))
    return {"cpu": used * 1e6 / count, "token": used * 1e6 / count / STREAM_TOKENS, "rps": count / (duration_us / 1e6),
            "errors": errors, "sample": "", "rss": rss_mib(pid), "p50": float(found.group(4)), "p99": float(found.group(5)),
            "busy": busy / (duration_us / 1e6)}


def load_by_wrk(bench, target, mode, seconds):
    stream = ', \\"stream\\": true' if mode == "stream" else ""
    body = f'wrk.body = "{{\\"model\\": \\"mock-model\\"{stream}, \\"messages\\": [{{\\"role\\": \\"user\\", \\"content\\": \\"{"x" * 256}\\"}}]}}"'
    connections = {"rate": 4, "stream": STREAM_CONNECTIONS, "closed": CONNECTIONS}[mode]
    return run_wrk(bench, target, "/v1/chat/completions", body, connections, seconds)


def measure(bench, targets, mode):
    """Interleaved rounds (A B C A B C), the median of each figure."""
    load = load_by_harness if bench.harness else load_by_wrk
    rounds = {target["name"]: [] for target in targets}
    for _ in range(bench.options.rounds):
        for target in targets:
            got = load(bench, target, mode, bench.options.seconds)
            if got["errors"]:
                bench.fail(f"{target['name']}: {got['errors']} errors under load: {got['sample']}")
            rounds[target["name"]].append(got)
    return {name: {key: statistics.median(r[key] for r in got) for key in ("cpu", "token", "rps", "rss", "p50", "p99")}
            for name, got in rounds.items()}


def gateway(bench):
    say("\n== gateway: a plain forwarded chat call, beside nginx as a plain proxy")
    mock, port = bench.start_mock()
    nginx = bench.start_nginx(port) if mock else None
    nexuses = [bench.start_nexus(f"nexus policy {word}", port, engine) for word, engine in (("off", "off"), ("on", "rego"))] if mock else []
    targets = [t for t in [nginx, *nexuses] if t]
    if len(targets) < 3:
        return
    if mock and not bench.harness:
        say("streams here come without pauses, so many tokens share a write: compare the ratio only")
    direct = {"name": "direct", "process": mock, "port": port, "key": "none"}
    idle = {t["name"]: rss_mib(t["process"].pid) for t in targets}
    closed = measure(bench, targets, "closed")
    rate = measure(bench, [direct, *targets], "rate")
    stream = measure(bench, targets, "stream")
    say(f"{'':20}{'CPU us/call':>12}{'x nginx':>9}{'calls/s':>9}{'at ' + str(RATE) + '/s' if bench.harness else '4 at once':>10}{'x nginx':>9}"
        f"{'added p50':>11}{'added p99':>11}{'CPU us/token':>14}{'x nginx':>9}{'RSS MiB':>9}{'idle':>7}")
    for target in targets:
        n, base = target["name"], "nginx"
        say(f"{n:20}{closed[n]['cpu']:12.1f}{closed[n]['cpu'] / closed[base]['cpu']:9.2f}{closed[n]['rps']:9.0f}"
            f"{rate[n]['cpu']:10.1f}{rate[n]['cpu'] / rate[base]['cpu']:9.2f}"
            f"{rate[n]['p50'] - rate['direct']['p50']:11.0f}{rate[n]['p99'] - rate['direct']['p99']:11.0f}"
            f"{stream[n]['token']:14.2f}{stream[n]['token'] / stream[base]['token']:9.2f}{stream[n]['rss']:9.0f}{idle[n]:7.0f}")
    say(f"closed loop {CONNECTIONS} connections; streams of {STREAM_TOKENS} tokens, {STREAM_CONNECTIONS} at once; latency in us over direct; auth, rate "
        "limits, reservation, usage ledger (SQLite FULL), metrics on in Nexus")
    say(f"RSS after the first start, which compiles the shipped tools: {nexuses[-1]['first_rss']:.0f} MiB; the table's are of a later start")
    for word in ("off", "on"):
        aim(f"forwarded call, policy {word}, CPU", closed[f"nexus policy {word}"]["cpu"] / closed["nginx"]["cpu"], 2.5, "x nginx")
    for target in targets:
        bench.stop(target["process"])
    bench.stop(mock)


def runs(bench):
    say("\n== durable runs: two model calls and one sandboxed tool call each, every step journaled (SQLite FULL)")
    mock, port = bench.start_mock("--tool", "text_processing", '{"operation":"upper","text":"the quick brown fox"}')
    target = bench.start_nexus("nexus runs", port, "rego") if mock else None
    if not target:
        return
    if not shutil.which("wrk"):
        bench.fail("no wrk to make the load: scripts/setup --bench installs it")
        return
    # Prompts of different lengths leave different budgets, so that policy answers are not all remembered.
    body = ('request = function()\n'
            '  local text = string.rep("word ", math.random(1, 400))\n'
            '  return wrk.format("POST", nil, nil, "{\\"model\\": \\"agent:bench\\", \\"messages\\": [{\\"role\\": \\"user\\", \\"content\\": \\"" .. text .. "\\"}]}")\n'
            'end')
    run_wrk(bench, target, "/v1/chat/completions", body, 8, 1)
    results = []
    for at_once in (1, 8, RUNS_AT_ONCE):
        mock_began = cpu_seconds(mock.pid)
        seconds = bench.options.seconds if at_once < RUNS_AT_ONCE else 2 * bench.options.seconds
        got = run_wrk(bench, target, "/v1/chat/completions", body, at_once, seconds)
        if got["errors"]:
            bench.fail(f"{got['errors']} runs failed")
        say(f"{at_once:3} at once: {got['rps']:7.0f} runs/s   run time p50 {got['p50'] / 1000:7.1f} ms  p99 {got['p99'] / 1000:7.1f} ms   "
            f"CPU {got['cpu']:6.0f} us/run   RSS {got['rss']:4.0f} MiB   machine busy {got['busy']:.1f} cores")
        results.append(got)
    say(f"per run: 2 model calls over HTTP streams, 1 WASM tool call, about 30 rows; {os.cpu_count()} cores shared with load and mock")
    aim("durable runs", max(r["rps"] for r in results), 500, "runs/s", ">=")
    bench.stop(target["process"])
    bench.stop(mock)


def programs(bench):
    for name, arguments in (("bench_policy_bench", [os.path.join(ROOT, "policies")]),
                            ("bench_plain_call_bench", [os.path.join(ROOT, "policies")]),
                            ("bench_filter_bench", []),
                            ("bench_sandbox_bench", [os.path.join(bench.options.build, "toolbox")]),
                            ("bench_store_bench", ["0.7", bench.dir]),
                            ("bench_runtime_bench", []),
                            ("bench_response_cache_bench", [])):
        program = bench.program(name)
        if not program:
            bench.fail(f"{name} is not built")
            continue
        say(f"\n== {name.removeprefix('bench_').removesuffix('_bench')}")
        result = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)
        sys.stdout.write(result.stdout)
        if result.returncode != 0:
            bench.fail(f"{name}: {result.stderr.strip()[-300:]}")
        for what, label, limit in (("native tool, one after the other", "native tool call, p50", 150),
                                   ("JavaScript, one after the other", "JavaScript call, p50", 2000)):
            found = re.search(re.escape(what) + r"\s+p50\s+([\d.]+) us", result.stdout)
            if found:
                aim(label, float(found.group(1)), limit, "us")


def report_targets():
    if not TARGETS:
        return
    say("\n== first targets")
    for what, figure, limit, unit, sense in TARGETS:
        is_met = figure <= limit if sense == "<=" else figure >= limit
        say(f"{'met   ' if is_met else 'MISSED'}  {what:34}{figure:10.2f} {unit:8} (target {sense} {limit})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    parser.add_argument("--only", default="gateway,runs,programs")
    parser.add_argument("--seconds", type=int, default=3, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the working folder with logs and data")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    if not os.access(os.path.join(options.build, "nexus"), os.X_OK):
        sys.exit(f"bench: no program in {options.build}: run `make build` first")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = os.getloadavg()
    say(f"machine: {os.cpu_count()} cores, load before {load[0]:.1f}{'  (BUSY: ratios hold roughly, latencies and rates do not)' if load[0] > 0.5 else ''}")
    bench = Bench(options)
    try:
        for name, part in (("gateway", gateway), ("runs", runs), ("programs", programs)):
            if name in options.only.split(","):
                try:
                    part(bench)
                except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
                    bench.fail(f"{name}: {error}")
    finally:
        bench.close()
    report_targets()
    sys.exit(1 if bench.failures else 0)


if __name__ == "__main__":
    main()
