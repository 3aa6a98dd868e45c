#!/usr/bin/env python3
"""Kills a server under mixed load 2,000 times, at any instant, and compares what callers were told, what the world saw and what is stored.

    bench/kills.py [--kills 2000] [--beside 2] [--seed 1] [--binary build/nexus] [--every 50] [--keep DIR]

Agent runs with effects, approvals by two, sessions into which people talk while they work, sagas, child runs, maps, schedules, naps and signals,
forks, clones, files, plain calls with and without limits; each life lasts some tenths of a second, some end while the server still starts.
After every 50 kills the load rests and `tests/scenarios/harness/account.py` says what must hold.  One line each time, the last is the tally;
exit 0 only when everything held.  Needs the Python packages of the scenarios (scripts/setup), build/nexus and the toolbox.
"""

import argparse
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IN_START, SHORT = 0.15, 0.85                         # parts of the lives: killed while it starts; of some tenths of a second


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=2000)
    options.add_argument("--beside", type=int, default=1, help="servers at once, each with a load of its own; they share the kills")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--binary", help="the program under test (default: $NEXUS_BINARY, build/nexus)")
    options.add_argument("--every", type=int, default=50, help="kills between two accounts")
    options.add_argument("--rate", type=float, default=60, help="pieces of work a second, while it lives")
    options.add_argument("--workers", type=int, default=6)
    options.add_argument("--keep", help="folder for configuration, logs and data (default: a temporary one)")
    options = options.parse_args()
    if options.binary:
        os.environ["NEXUS_BINARY"] = options.binary
    if options.beside > 1:
        return beside(options)
    sys.path.insert(0, str(ROOT / "tests/scenarios"))
    with tempfile.TemporaryDirectory(prefix="nexus-kills-") as temporary:
        return Kills(options, Path(options.keep or temporary)).run()


def beside(options) -> int:
    """Several of these at once; the last line is of them all."""
    begun, parts, totals = time.monotonic(), [], [0, 0]
    for number in range(options.beside):
        kills = options.kills // options.beside + (number < options.kills % options.beside)
        command = [sys.executable, __file__, "--kills", kills, "--seed", options.seed + number, "--every", options.every, "--rate", options.rate,
                   "--workers", options.workers, *(["--keep", f"{options.keep}/{number}"] if options.keep else [])]
        parts.append(subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))

    def follow(number: int, part: subprocess.Popen) -> None:
        for line in part.stdout:
            print(f"[{number}] {line}", end="", flush=True)
            if tally := re.fullmatch(r"(\d+) kills, seed \d+, (\d+) violations\n", line):
                totals[0] += int(tally[1])
                totals[1] += int(tally[2])

    threads = [threading.Thread(target=follow, args=pair) for pair in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    has_failed = any(part.wait() != 0 for part in parts)
    print(f"{totals[0]} kills, {options.beside} servers at once, seed {options.seed}, {totals[1]} violations, {time.monotonic() - begun:.0f} s")
    return 1 if has_failed or totals[0] != options.kills else 0


class Kills:
    def __init__(self, options, folder: Path):
        from harness.account import Account
        from harness.load import Load, Mind, Services, config
        from harness.provider import FakeProvider
        from harness.server import Nexus
        from harness.tools import tools_with_a_dangerous_one

        self.options, self.chance = options, random.Random(options.seed)
        self.services, mind = Services(), Mind()
        self.provider = FakeProvider(mind)
        tools = folder / "tools"
        settings = config(self.provider, tools if tools.exists() else tools_with_a_dangerous_one(tools))
        temporary = folder / "node/tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self.nexus = Nexus(folder / "node", settings, environment={**self.provider.environment, "TMPDIR": str(temporary)})
        self.load = Load(self.nexus, self.services, mind, seed=options.seed, workers=options.workers, rate=options.rate)
        self.account = Account(self.load)
        self.starting = 0
        self.resting = 0.0                           # seconds

    def run(self) -> int:
        self.begun = time.monotonic()
        try:
            self.nexus.start()
            self.load.prepare()
            self.load.start()
            for number in range(1, self.options.kills + 1):
                self.live_and_die()
                if number % self.options.every == 0 or number == self.options.kills:
                    self.rest(number)
            self.finish()
        finally:
            self.load.finish()
            self.nexus.kill()
            self.provider.close()
            self.services.close()
        self.tell(self.options.kills)
        self.tell_all()
        return 1 if self.load.wrong else 0

    # ---- lives ----

    def live_and_die(self) -> None:
        """From the moment it runs: some tenths of a second, sometimes more, sometimes not even until it is ready."""
        kind = self.chance.random()
        if kind < IN_START:
            self.nexus.kill()
            self.load.kills.append(time.monotonic())
            self.nexus.spawn()
            time.sleep(self.chance.uniform(0, 0.15))
            self.starting += 1
        else:
            self.live()
            time.sleep(self.chance.uniform(0.02, 0.35) if kind < SHORT else self.chance.uniform(0.35, 1.2))
        self.die()

    def live(self) -> None:
        if not self.nexus.is_running:
            self.nexus.spawn()
        ready, deadline = self.load.caller("admin"), time.monotonic() + 60
        while not ready.is_ready():
            if not self.nexus.is_running or time.monotonic() > deadline:
                raise SystemExit(f"it does not start:\n{self.nexus.log_tail()}")
            time.sleep(0.005)
        ready.close()
        self.load.up.set()

    def die(self) -> None:
        self.load.up.clear()
        if not self.nexus.is_running:
            self.load.blame(f"it ended by itself with {self.nexus.process.returncode}:\n{self.nexus.log_tail()}")
        self.nexus.kill()
        self.load.kills.append(time.monotonic())

    # ---- accounts ----

    def rest(self, number: int) -> None:
        begun = time.monotonic()
        self.live()
        self.load.pause()
        self.account.settle()
        self.account.check()
        self.check_second_writer()
        self.load.resume()
        self.resting += time.monotonic() - begun
        self.tell(number)

    def check_second_writer(self) -> None:
        """Another process on the same data folder is sent away."""
        from harness.server import run_command
        import yaml
        file = self.nexus.folder / "second.yaml"
        file.write_text(yaml.safe_dump({**self.nexus.config, "listen": "127.0.0.1:0"}))
        second = run_command(self.nexus.folder, "serve", "--config", str(file), seconds=20, environment=self.nexus.environment)
        if second.returncode == 0 or "another" not in second.stdout + second.stderr:
            self.load.blame(f"a second writer was let in: {second.returncode} {second.stderr[-500:]}")

    def finish(self) -> None:
        """The command line, a stop as it should be, and the books of the stopped server."""
        from harness.books import Books
        for command in (("budget", "verify"), ("audit", "verify")):
            done = self.nexus.command(*command)
            if done.returncode != 0:
                self.load.blame(f"nexus {' '.join(command)}: {done.stdout}{done.stderr}")
        self.account.check_growth()
        code = self.nexus.terminate()
        if code != 0:
            self.load.blame(f"it ended with {code} after SIGTERM")
        books = Books(self.nexus.data)
        try:
            books.check()
        except AssertionError as failure:
            self.load.blame(f"books: {failure}")
        books.close()
        database = sqlite3.connect(self.nexus.data / "nexus.db")
        for check in ("integrity_check", "foreign_key_check"):
            found = database.execute(f"PRAGMA {check}").fetchall()
            if found not in ([], [("ok",)]):
                self.load.blame(f"{check}: {found[:5]}")
        database.close()

    # ---- telling ----

    def tell(self, number: int) -> None:
        seen, took = self.account.seen, time.monotonic() - self.begun
        sample = self.account.samples[-1]
        print(f"{number} kills ({self.starting} while it started), {took:.0f} s ({took / number:.2f} a kill), {seen['runs']} runs: "
              f"{seen['completed']} completed, {seen['failed']} failed, {seen['cancelled']} cancelled, {seen['resumed']} resumed; "
              f"effects {seen['effect succeeded']} once, {seen['effect unknown']} unknown; "
              f"{sample.bytes / 1e6:.0f} MB, {sample.rss_kib // 1024} MiB; {len(self.load.wrong)} wrong; at rest {self.resting:.0f} s", flush=True)

    def tell_all(self) -> None:
        print(f"seen: {dict(sorted(self.account.seen.items()))}")
        print(f"begun: {dict(sorted(self.load.seen.items()))}")
        print(f"growth: {getattr(self.account, 'growth', 'too few accounts to tell')}; the oldest plain call that was lost ended "
              f"{self.account.lost_oldest * 1000:.0f} ms before its kill")
        for text in self.load.wrong[:20]:
            print(f"WRONG {text}")
        print(f"{self.options.kills} kills, seed {self.options.seed}, {len(self.load.wrong)} violations")


if __name__ == "__main__":
    sys.exit(main())
