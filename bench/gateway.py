#!/usr/bin/env python3
"""Nexus with everything on, beside nginx, haproxy and the gateways installed in --peers: called by bench/gateway.sh.

The load, the mock and the peers' set-up are the Go harness in $NEXUS_GATEWAY_BENCH (default: ../shared/bench/gateway beside the
repository).  In turns (A B C A B C): an open loop at each rate, a closed loop, streams at pace, many streams at once.  Loopback only; what
is started here is stopped here, also on Ctrl-C.

A gate compares a figure with a number or with a multiple of another target's, all of this run:
    nexus.cpu<=1.5*nginx.cpu    nexus.max>=0.7*nginx.max    nexus.over_p50@2000<=100    nexus.errors<=0
Figures of a rate (NAME@RATE; without it the highest that all the targets named have held): cpu (us a request), over_p50, over_p99 (us
over the mock itself), p50, p99, rss (MiB).  Of the closed loop: closed_cpu, closed_p50, closed_p99, max (calls a second).  Of streams at
pace: ttft_p50, fwd_p50, fwd_p99, cpu_token.  Of many streams at once: stream_kib (RSS a stream at most streams), broken (streams that
came not whole, all tests), cpu_token_few, cpu_token_many (fewest and most streams).  Of all: errors.  memo_us: a remembered policy answer.
A gate given with --gate takes the place of the default one that compares the same figures.
"""
import argparse
import contextlib
import http.server
import json
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import run

PEER_PORTS = {"nginx": 9201, "haproxy": 9202, "litellm": 9203, "portkey": 9204, "bifrost-core": 9205, "bifrost-http": 9206}
PEER_FOLDERS = ("bin", "litellm", "portkey")
SLOW_PEERS = {"litellm": 100, "portkey": 200}     # calls a second they are asked for at most: they hold no more
RATES = "500,1000,2000,5000"
STREAM_RATES = "20,100"
STREAM_COUNTS = "100,1000,9000"
CLOSED_CONNECTIONS = (16, 64)
UNLIMITED_A_MINUTE = 1000000000
QUIET_FOREIGN_CORES = 0.3
QUIET_LAG_P99_US = 1000

# What holds on a noisy machine: ratios of one run, bytes, whole streams.
GATES = ["nexus.errors<=0", "nexus.cpu<=1.5*nginx.cpu", "nexus.closed_cpu<=1.5*nginx.closed_cpu", "nexus.cpu<=0.25*bifrost-core.cpu",
         "nexus.closed_cpu<=0.25*bifrost-core.closed_cpu", "nexus.max>=0.7*nginx.max", "nexus.broken<=0", "nexus.stream_kib<=8",
         "nexus.cpu_token_many<=1.1*nexus.cpu_token_few", "nexus.memo_us<=1"]
# Latencies: judged only where nothing else ran beside the rows they are taken from.
QUIET_GATES = ["nexus.over_p50@2000<=100", "nexus.over_p99@2000<=500", "nexus.fwd_p50<=100"]
GATE = re.compile(r"^([\w-]+)\.(\w+)(?:@(\d+))?(<=|>=)(?:([\d.]+)\*)?(?:([\d.]+)|([A-Za-z][\w-]*)\.(\w+)(?:@(\d+))?)$")

NEXUS_CONF = """
listen: 127.0.0.1:0
data_dir: {dir}/data
log_level: warn
providers:
  - {{name: mock, type: openai, base_url: "http://127.0.0.1:{upstream}/v1", api_keys: ["sk-bench"]}}
models:
  - name: mock-model
    targets: [{{provider: mock, model: mock-model, price: {{input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 2}}}}]
policy: {{dir: "{root}/policies"}}
tools: {{dir: "{toolbox}"}}
limits: {{requests_per_minute: 1000000000, tokens_per_minute: 1000000000000, streams_per_key: 100000}}
tracing: {{endpoint: "http://127.0.0.1:{sink}", sample: "1%"}}
"""
# A virtual key with every kind of limit, so that each is checked and booked for each call; none is reached.
VIRTUAL_KEY = {"name": "bench", "user_id": "bench", "role": "user", "requests_per_minute": UNLIMITED_A_MINUTE,
               "tokens_per_minute": 2147483647, "streams": 100000, "models": ["mock-model"],
               "budget": {"tokens": 1000000000000, "cost_usd": "1000000"}}


class Sink(http.server.BaseHTTPRequestHandler):
    """An OTLP collector that takes what it is sent."""
    protocol_version = "HTTP/1.1"
    request_count = 0

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Sink.request_count += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass


def start_sink():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def harness_folder():
    return os.environ.get("NEXUS_GATEWAY_BENCH") or os.path.join(run.ROOT, "..", "shared", "bench", "gateway")


class GatewayBench(run.Bench):
    def __init__(self, options):
        super().__init__(options)
        self.mock_port = 0
        self.peers = []
        self.targets = []
        self.rows = {}         # (target, rate) -> row of an open loop
        self.closed = {}       # target -> figures
        self.paced = {}        # (target, rate) -> row of streams at pace
        self.streams = {}      # target -> rows, fewest streams first
        self.errors = {}       # target -> count over everything
        self.memo_us = None
        self.folder = os.path.join(self.dir, "peers")
        self.run_folder = os.path.join(self.folder, "run")
        os.makedirs(self.run_folder)

    def close(self):
        if self.peers:
            self.peers_command("stop", self.peers)
        super().close()

    # ---- the targets ----

    def start_gateway_mock(self):
        self.mock_port = run.free_port()
        process = self.start("mock", [self.harness, "mock", "--listen", f"127.0.0.1:{self.mock_port}", "--ips", "4"])
        return self.wait_for(process, "mock", lambda: run.is_open(self.mock_port))

    def peers_command(self, verb, names):
        environment = dict(os.environ, MOCK_PORT=str(self.mock_port))
        result = subprocess.run([os.path.join(harness_folder(), "peers.sh"), verb, self.folder, *names], env=environment,
                                capture_output=True, text=True, timeout=240)
        return result.stdout + result.stderr

    def start_peers(self, wanted):
        """Installed ones are used through links, so that nothing is left in DIR and two benches do not share pid files."""
        if self.options.peers:
            for name in PEER_FOLDERS:
                source = os.path.join(os.path.abspath(self.options.peers), name)
                if os.path.isdir(source):
                    os.symlink(source, os.path.join(self.folder, name))
        for name in wanted:
            if run.is_open(PEER_PORTS[name]):
                run.say(f"{name}: left out, port {PEER_PORTS[name]} is taken")
                continue
            self.peers.append(name)
            said = self.peers_command("start", [name]).strip()
            if f"{name} up" not in said:
                run.say(f"{name}: left out ({' '.join(said.split())[-300:] or 'no answer'})")
                self.peers_command("stop", [name])
                self.peers.remove(name)

    def start_everything_on(self, sink):
        folder = os.path.join(self.dir, "nexus")
        os.makedirs(folder)
        config = os.path.join(folder, "nexus.yaml")
        with open(config, "w") as f:
            f.write(NEXUS_CONF.format(dir=folder, upstream=self.mock_port, root=run.ROOT, sink=sink,
                                      toolbox=os.path.join(self.options.build, "toolbox")))
        self.nexus_port = run.free_port()
        self.nexus_command = [self.program("nexus"), "serve", "--config", config, "--listen", f"127.0.0.1:{self.nexus_port}"]
        if not self.start_nexus_process():
            return False
        self.let_compile(self.nexus)
        with open(os.path.join(folder, "data", "admin.key")) as f:
            admin = f.read().strip()
        request = urllib.request.Request(f"http://127.0.0.1:{self.nexus_port}/api/v1/keys", json.dumps(VIRTUAL_KEY).encode(),
                                         {"Authorization": f"Bearer {admin}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            self.nexus_key = json.load(answer)["key"]
        return self.restart_nexus()

    def start_nexus_process(self):
        self.nexus = self.start("nexus", self.nexus_command)
        with open(os.path.join(self.run_folder, "nexus.pid"), "w") as f:
            f.write(f"{self.nexus.pid}\n")
        return self.wait_for(self.nexus, "nexus", lambda: run.is_ready(self.nexus_port))

    def restart_nexus(self):
        self.stop(self.nexus)
        return self.start_nexus_process()

    def write_targets(self):
        mock = f"http://127.0.0.1:{self.mock_port}"
        targets = [{"name": "direct", "url": f"{mock}/v1", "key": "sk-bench", "model": "mock-model"}]
        for name in self.peers:
            target = {"name": name, "url": f"http://127.0.0.1:{PEER_PORTS[name]}/v1", "key": "sk-bench",
                      "model": "openai/mock-model" if name.startswith("bifrost") else "mock-model", "pid": f"RUN/{name}.pid"}
            if name == "portkey":
                target["headers"] = ["x-portkey-provider: openai", f"x-portkey-custom-host: {mock}/v1"]
            if name in SLOW_PEERS:
                target["max_rate"] = SLOW_PEERS[name]
            targets.append(target)
        targets.append({"name": "nexus", "url": f"http://127.0.0.1:{self.nexus_port}/v1", "key": self.nexus_key, "model": "mock-model",
                        "pid": "RUN/nexus.pid"})
        self.targets = targets
        self.targets_file = os.path.join(self.dir, "targets.json")
        with open(self.targets_file, "w") as f:
            json.dump({"mock": mock, "targets": targets}, f)

    def names(self):
        return [target["name"] for target in self.targets]

    # ---- measuring ----

    def harness_run(self, what, *arguments):
        """The harness prints its table as it goes; its figures come as JSON."""
        path = os.path.join(self.dir, f"{what}.json")
        command = [self.harness, *arguments, "--targets", self.targets_file, "--run", self.run_folder, "--json", path]
        if subprocess.run(command, timeout=3600).returncode != 0 or not os.path.exists(path):
            raise RuntimeError(f"{what} did not come to its end")
        with open(path) as f:
            return json.load(f)

    def add_errors(self, name, count):
        self.errors[name] = self.errors.get(name, 0) + count

    def measure_rates(self):
        rates = self.options.rates
        if any(name in SLOW_PEERS for name in self.names()):
            rates = f"{min(SLOW_PEERS.values())},{rates}"
        run.say(f"\n== open loop, calls a second: {rates} (us; over = more than straight to the mock)")
        got = self.harness_run("rates", "compare", "--rates", rates, "--rounds", str(self.options.rounds), "--duration",
                               f"{self.options.seconds}s", "--max-conns", "")
        for cell in got["cells"]:
            self.rows[cell["target"], cell["rate"]] = cell
            self.add_errors(cell["target"], cell["errors"])

    def measure_closed(self):
        run.say(f"\n== closed loop, {' and '.join(map(str, CLOSED_CONNECTIONS))} connections, {self.options.rounds} rounds, medians; the faster")
        rounds = {}
        for _ in range(self.options.rounds):
            for connections in CLOSED_CONNECTIONS:
                for target in self.targets:
                    rounds.setdefault((target["name"], connections), []).append(self.load_closed(target, connections))
        run.say(f"{'target':14}{'calls/s':>9}{'conns':>7}{'p50':>9}{'p99':>9}{'CPU/req':>9}{'x nginx':>9}{'RSS MiB':>9}{'errors':>8}")
        for name in self.names():
            best = max(CLOSED_CONNECTIONS, key=lambda c: statistics.median(r["rps"] for r in rounds[name, c]))
            middle = {key: statistics.median(r[key] for r in rounds[name, best]) for key in ("rps", "cpu", "p50", "p99", "rss")}
            self.closed[name] = middle
            floor = self.closed.get("nginx", {}).get("cpu", 0)
            errors = sum(r["errors"] for c in CLOSED_CONNECTIONS for r in rounds[name, c])
            self.add_errors(name, errors)
            run.say(f"{name:14}{middle['rps']:9.0f}{best:7}{middle['p50']:9.0f}{middle['p99']:9.0f}{middle['cpu']:9.1f}"
                    f"{middle['cpu'] / floor if floor else 0:9.2f}{middle['rss']:9.1f}{errors:8}")

    def load_closed(self, target, connections):
        command = [self.harness, "load", "--url", target["url"], "--key", target["key"], "--model", target["model"], "--conns",
                   str(connections), "--duration", f"{self.options.seconds}s", "--warmup", "500ms", "--json", "-"]
        if "pid" in target:
            command += ["--pid", target["pid"].replace("RUN", self.run_folder)]
        for header in target.get("headers", []):
            command += ["--header", header]
        result = subprocess.run(command, capture_output=True, text=True, timeout=self.options.seconds + 60)
        if result.returncode != 0:
            raise RuntimeError(f"{target['name']}: {result.stderr.strip()[-300:]}")
        got = json.loads(result.stdout)
        response = got.get("response") or got.get("latency") or {}
        return {"rps": got["rps"], "cpu": got.get("cpu_us_per_req", 0), "errors": got["errors"], "rss": got.get("rss_peak_kb", 0) / 1024,
                "p50": response.get("p50_us", 0), "p99": response.get("p99_us", 0)}

    def fast_names(self):
        return ",".join(name for name in self.names() if name not in SLOW_PEERS)

    def measure_paced(self):
        run.say(f"\n== streams at pace: 50 tokens 5 ms apart, {STREAM_RATES} new streams a second (us)")
        got = self.harness_run("paced", "compare", "--stream", "--tokens", "50", "--delay-us", "5000", "--rates", STREAM_RATES, "--rounds",
                               str(self.options.rounds), "--duration", f"{self.options.seconds}s", "--max-conns", "", "--only", self.fast_names())
        for cell in got["cells"]:
            self.paced[cell["target"], cell["rate"]] = cell
            self.add_errors(cell["target"], cell["errors"])

    def measure_streams(self):
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = (files - 500) // 2
        counts = sorted({min(int(n), most) for n in self.options.streams.split(",")})
        if counts[-1] == most:
            run.say(f"\nthis machine lets a process have {files} files: {most} streams at most")
        run.say(f"\n== streams open at once: {', '.join(map(str, counts))}, a token each 2 s; freshly started Nexus (us, MiB, KiB a stream)")
        if not self.restart_nexus():
            return
        self.let_compile(self.nexus)
        got = self.harness_run("streams", "streams", "--n", ",".join(map(str, counts)), "--only", self.fast_names())
        for row in got:
            self.streams.setdefault(row["target"], []).append(row)
            self.add_errors(row["target"], row["errors"])

    def measure_memo(self):
        program = self.program("bench_policy_bench")
        if not program:
            run.say("\nmemo: bench_policy_bench is not built")
            return
        run.say("\n== a policy answer that is remembered")
        result = subprocess.run([program, os.path.join(run.ROOT, "policies")], capture_output=True, text=True, timeout=120)
        sys.stdout.write(result.stdout)
        found = [float(x) for x in re.findall(r"remembered\s+([\d.]+) us", result.stdout)]
        self.memo_us = max(found) if result.returncode == 0 and found else None

    # ---- gates ----

    def held_rate(self, rows, names):
        rates = {rate for _, rate in rows}
        held = [rate for rate in rates if all((name, rate) in rows and rows[name, rate]["rate_reached"] for name in names)]
        return max(held, default=None)

    def figure(self, name, figure, rate, names):
        """The value and the row it came from (None where there is no such row); a LookupError when there is no such figure."""
        in_rate = {"cpu": "cpu_us_per_req", "over_p50": "overhead_p50_us", "over_p99": "overhead_p99_us", "p50": "p50_us", "p99": "p99_us",
                   "rss": "rss_peak_mib"}
        in_pace = {"ttft_p50": "ttft_p50_us", "fwd_p50": "token_fwd_p50_us", "fwd_p99": "token_fwd_p99_us", "cpu_token": "cpu_us_per_token"}
        in_closed = {"closed_cpu": "cpu", "closed_p50": "p50", "closed_p99": "p99", "max": "rps"}
        for table, rows in ((in_rate, self.rows), (in_pace, self.paced)):
            if figure in table:
                row = rows[name, float(rate) if rate else self.held_rate(rows, names)]
                return row[table[figure]], row
        if figure in in_closed:
            return self.closed[name][in_closed[figure]], None
        if figure == "errors":
            return self.errors[name], None
        if figure == "memo_us" and self.memo_us is not None:
            return self.memo_us, None
        if figure in ("stream_kib", "broken", "cpu_token_few", "cpu_token_many"):
            rows = self.streams[name]
            return {"stream_kib": rows[-1]["rss_kib_per_stream"], "broken": sum(row["streams"] - row["intact"] for row in rows),
                    "cpu_token_few": rows[0]["cpu_us_per_token"], "cpu_token_many": rows[-1]["cpu_us_per_token"]}[figure], None
        raise LookupError(figure)

    def judge(self, gate, is_quiet_only):
        """True, False, or None when it cannot be judged, and a line about it."""
        name, figure, rate, sense, factor, number, other, other_figure, other_rate = GATE.match(gate).groups()
        absent = [n for n in (name, other) if n and n not in self.names()]
        if absent:
            return None, f"{', '.join(absent)} did not run"
        try:
            value, row = self.figure(name, figure, rate, [n for n in (name, other) if n])
            limit = float(number) if number else self.figure(other, other_figure, other_rate, [name, other])[0]
        except LookupError:
            return None, "no such figure in this run"
        limit *= float(factor or 1)
        if is_quiet_only and row and (row["foreign_cores"] > QUIET_FOREIGN_CORES or row["generator_lag_p99_us"] > QUIET_LAG_P99_US):
            return None, f"{value:.2f} on a busy machine (other work {row['foreign_cores']:.1f} cores, lag p99 {row['generator_lag_p99_us']:.0f} us)"
        share = f" ({value / limit * float(factor or 1):.2f} x)" if other and limit else ""
        at = f" at {row['rate']:.0f}/s" if row else ""
        return (value <= limit if sense == "<=" else value >= limit), f"{value:.2f} against {limit:.2f}{share}{at}"

    def judge_all(self, gates):
        run.say("\n== gates")
        failed = 0
        for gate, is_quiet_only in gates:
            verdict, text = self.judge(gate, is_quiet_only)
            failed += verdict is False or (verdict is None and gate in self.options.gate)
            run.say(f"{'not judged' if verdict is None else 'held' if verdict else 'FAILED':11}{gate:48}{text}")
        return failed


def gate_key(gate):
    name, figure, rate, _, _, _, other, other_figure, other_rate = GATE.match(gate).groups()
    return name, figure, rate, other, other_figure, other_rate


def all_gates(given):
    mine = {gate_key(gate) for gate in given}
    return ([(g, False) for g in GATES if gate_key(g) not in mine] + [(g, True) for g in QUIET_GATES if gate_key(g) not in mine] +
            [(g, False) for g in given])


def first_line(command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return (result.stdout + result.stderr).strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return None


def tell_machine(bench):
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*:\s*(.*)", f.read())
    run.say(f"machine: {os.cpu_count()} cores, {cpu.group(1) if cpu else platform.machine()}, Linux {platform.release()}, load before "
            f"{os.getloadavg()[0]:.1f}")
    for command in ([bench.program("nexus"), "--version"], ["nginx", "-v"], ["haproxy", "-v"], ["go", "version"]):
        line = first_line(command)
        if line:
            run.say(f"  {line}")


def wanted_peers(options):
    only = options.only.split(",") if options.only else None
    wanted = [name for name in PEER_PORTS if only is None or name in only]
    unknown = [name for name in only or [] if name not in (*PEER_PORTS, "nexus")]
    if unknown:
        sys.exit(f"bench: no peer {', '.join(unknown)}; there are {', '.join(PEER_PORTS)}")
    if options.peers:
        run.say(f"peers in {options.peers}:")
        subprocess.run([os.path.join(harness_folder(), "install-peers.sh"), options.peers], timeout=3600, check=False)
        return wanted
    return [name for name in wanted if name in ("nginx", "haproxy")]


def parse():
    parser = argparse.ArgumentParser(prog="bench/gateway.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="DIR", help="install other gateways there (package registries) and measure them too")
    parser.add_argument("--only", metavar="A,B", help=f"only these peers of {', '.join(PEER_PORTS)}")
    parser.add_argument("--gate", metavar="EXPR", action="append", default=[], help="add a gate, or replace the default one (repeat)")
    parser.add_argument("--build", metavar="FOLDER", default=os.path.join(run.ROOT, "build", "release"), help="programs that are built already")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of one measurement")
    parser.add_argument("--rates", default=RATES, help=f"open loop, default {RATES}; empty: none")
    parser.add_argument("--streams", default=STREAM_COUNTS, help=f"open at once, default {STREAM_COUNTS}; empty: none")
    parser.add_argument("--json", metavar="FILE", help="all figures")
    parser.add_argument("--keep", action="store_true", help="keep the working folder with logs and data")
    options = parser.parse_args()
    for gate in options.gate:
        if not GATE.match(gate):
            parser.error(f"bad gate {gate!r}")
    options.build = os.path.abspath(options.build)
    if not os.access(os.path.join(options.build, "nexus"), os.X_OK):
        sys.exit(f"bench: no program in {options.build}")
    return options


def measure(bench):
    wanted = wanted_peers(bench.options)
    tell_machine(bench)
    sink = start_sink()
    if not bench.start_gateway_mock():
        return
    bench.start_peers(wanted)
    if not bench.start_everything_on(sink):
        return
    bench.write_targets()
    run.say(f"targets: {', '.join(bench.names())}; Nexus with a virtual key (budget, call, token and stream limits), policy, reservation, ledger "
            "in SQLite with full durability, audit, metrics, tracing of 1 %")
    for part, is_wanted in ((bench.measure_rates, bench.options.rates), (bench.measure_closed, True), (bench.measure_paced, True),
                            (bench.measure_streams, bench.options.streams), (bench.measure_memo, True)):
        if is_wanted:
            part()
    if Sink.request_count == 0:
        bench.fail("no trace arrived at the collector: tracing was not on")


def write_json(bench):
    if bench.options.json:
        with open(bench.options.json, "w") as f:
            json.dump({"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "open_loop": list(bench.rows.values()),
                       "closed_loop": bench.closed, "paced_streams": list(bench.paced.values()), "streams": bench.streams,
                       "memo_us": bench.memo_us, "errors": bench.errors}, f, indent=1)


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    bench = GatewayBench(options)
    failed = 1
    try:
        if not bench.harness:
            sys.exit("bench: this one needs go and the gateway bench: say where it is in NEXUS_GATEWAY_BENCH")
        measure(bench)
        write_json(bench)
        failed = bench.failures + bench.judge_all(all_gates(options.gate))
    except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
        bench.fail(str(error))
    except KeyboardInterrupt:
        run.say("interrupted: stopping what was started")
        failed = 130
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            bench.close()
    sys.exit(failed if failed == 130 else bool(failed))


if __name__ == "__main__":
    main()
