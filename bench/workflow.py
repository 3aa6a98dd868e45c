#!/usr/bin/env python3
"""Steps per second of workflow instances on a real node: SQLite, full durability, everything journaled.

    bench/workflow.py --binary build/release/nexus --kind control --instances 1000 --rounds 100
    bench/workflow.py --binary build/release/nexus --kind tool --instances 200 --rounds 20

`control`: a loop of sleeps of no time, one step a round.  `tool`: a loop of calls of a pure tool (text_processing), with policy, budget and
journal as every call has them.  Counted are steps that the journal says are completed, from the first start to the last end.
"""

import argparse
import json
import os
import pathlib
import resource
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.request

STEPS = {
    "control": "  - {id: s, loop: {max: ROUNDS, steps: [{id: x, sleep: 0s}]}}\n",
    "tool": "  - {id: s, loop: {max: ROUNDS, steps: [{id: x, tool: text_processing, input: {operation: upper, text: 'a b c'}}]}}\n",
    "map": "  - {id: s, map: {over: 'input.items', parallel: 32, steps: [{id: x, tool: text_processing, "
           "input: {operation: upper, text: 'a b c'}}]}}\n",
}


class Api:
    def __init__(self, url, key):
        self.url, self.key = url, key
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method, path, body=None, raw=None):
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data=data, method=method, headers={
            "Authorization": f"Bearer {self.key}", "Content-Type": "application/json"})
        with self.opener.open(request, timeout=60) as reply:
            return json.loads(reply.read() or b"null")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/release/nexus")
    parser.add_argument("--toolbox")
    parser.add_argument("--policies")
    parser.add_argument("--kind", choices=STEPS, default="control")
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--port", type=int, default=18790)
    parser.add_argument("--folder", help="for the data; else a temporary one")
    options = parser.parse_args()
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="workflow-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    config = {}
    if options.toolbox:
        config["tools"] = {"dir": options.toolbox}
    if options.policies:
        config["policy"] = {"dir": options.policies}
    (folder / "config.yaml").write_text(json.dumps(config))
    log = open(folder / "log", "wb")
    node = subprocess.Popen([options.binary, "serve", "--config", folder / "config.yaml", "--data", folder / "data",
                             "--listen", f"127.0.0.1:{options.port}"], stdout=log, stderr=log)
    try:
        key_file = folder / "data/admin.key"
        for _ in range(400):
            time.sleep(0.1)
            if key_file.exists() and b'"ready"' in (folder / "log").read_bytes():
                break
        api = Api(f"http://127.0.0.1:{options.port}", key_file.read_text().strip())
        steps = STEPS[options.kind].replace("ROUNDS", str(options.rounds))
        api.call("PUT", "/api/v1/workflows", raw=f"name: bench\nversion: 1.0.0\noutput: done\nsteps:\n{steps}".encode())
        work = {"input": {"items": list(range(options.rounds))}}
        if options.kind != "control":
            api.call("POST", "/api/v1/tools/text_processing/invoke", {"input": {"operation": "upper", "text": "a b c"}})
        begun, cpu = time.monotonic(), cpu_seconds(node.pid)

        def start(count):
            for _ in range(count):
                api.call("POST", "/api/v1/workflows/bench/runs", work)
        threads = [threading.Thread(target=start, args=(options.instances // 4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        started = time.monotonic()
        database = next(path for path in (folder / "data").glob("*.db"))
        while True:
            time.sleep(0.2)
            look = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
            live = look.execute("SELECT count(*) FROM agent_runs WHERE completed_at IS NULL").fetchone()[0]
            look.close()
            if live == 0:
                break
        ended = time.monotonic()
        look = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        done = look.execute("SELECT count(*) FROM run_events WHERE type = 'run.step_completed'").fetchone()[0]
        rows = look.execute("SELECT count(*) FROM run_events").fetchone()[0]
        failed = look.execute("SELECT count(*) FROM agent_runs WHERE status <> 'completed'").fetchone()[0]
        first, last = look.execute("SELECT min(started_at), max(completed_at) FROM agent_runs").fetchone()
        seconds = (last - first) / 1e6
        used = cpu_seconds(node.pid) - cpu
        print(f"{options.kind}: {options.instances // 4 * 4} instances, {done} steps, {rows} events, {failed} not completed: "
              f"{seconds:.2f} s from the first start to the last end, {done / seconds:.0f} steps/s; "
              f"starts took {started - begun:.2f} s; {used * 1e6 / max(done, 1):.1f} us CPU a step")
    finally:
        node.terminate()
        node.wait(30)
        print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
