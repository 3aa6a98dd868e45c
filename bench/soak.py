#!/usr/bin/env python3
"""A long mixed load with faults: RSS stays flat, no descriptor is lost, the ledger equals the provider's own count to the last token.

    bench/soak.py [--binary build/release/nexus] [--minutes 30] [--rate 40] [--seed 1] [--keep DIR]

Whole and streamed calls in three dialects through three kinds of providers, with a fallback and without, hedged, filtered, cached;
embeddings, agents; one call in eight meets a fault, some clients leave; SIGHUP each minute, keys that die and come back.
The provider and the clients are this process, on loopback.  It needs the Python packages of the scenarios (scripts/setup).
Exit 1 when anything did not hold.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RSS_KIB_PER_MINUTE = 128                           # over the second half: what noise may look like


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", help="the program under test (default: $NEXUS_BINARY, build/nexus)")
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--rate", type=float, default=40, help="calls a second")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", help="folder for configuration, logs and data (default: a temporary one)")
    given = options.parse_args()
    if given.binary:
        os.environ["NEXUS_BINARY"] = given.binary
    sys.path.insert(0, str(ROOT / "tests/scenarios"))
    with tempfile.TemporaryDirectory(prefix="nexus-soak-") as temporary:
        return soak(given, Path(given.keep or temporary))


def say(text: str) -> None:
    print(text, flush=True)


def soak(given, folder: Path) -> int:
    from harness.faulty import FaultyProvider
    from harness.server import Nexus
    from harness.soak import Soak

    faulty = FaultyProvider()
    nexus = Nexus(folder, Soak.config(faulty), environment=faulty.environment).start()
    load = Soak(nexus, faulty, seed=given.seed, rate=given.rate, say=say)
    say(f"seed {given.seed}, {given.minutes:g} minutes, {given.rate:g} calls a second, {time.strftime('%H:%M:%S')}")
    try:
        load.run(given.minutes * 60)
        load.settle()
        sums = load.compare()
    finally:
        nexus.stop()
    load.check_ledger(sums)
    faulty.close()
    report(load, sums)
    return 1 if load.wrong else 0


def report(load, sums: dict) -> None:
    first, last = load.samples[0], load.samples[-1]
    warm = load.samples[len(load.samples) // 2]
    slope = load.rss_slope()
    lost = (last.descriptors - last.upstream) - (first.descriptors - first.upstream)
    if slope > RSS_KIB_PER_MINUTE:
        load.wrong.append(f"RSS grows by {slope:.0f} KiB a minute")
    if lost > load.workers + 8:                    # the clients' own kept connections
        load.wrong.append(f"{lost} descriptors more than at the start")
    say(f"seen by clients  {dict(sorted(load.seen.items()))}")
    say(f"at the provider  {dict(sorted(load.harvested.items()))}")
    say(f"rss              start {first.rss_kib}, half {warm.rss_kib}, end {last.rss_kib} KiB, "
        f"most {max(s.rss_kib for s in load.samples)}; second half {slope:+.1f} KiB a minute")
    say(f"descriptors      start {first.descriptors} ({first.upstream} upstream), most {max(s.descriptors for s in load.samples)}, "
        f"end {last.descriptors} ({last.upstream} upstream)")
    say(f"threads          {first.threads} .. {max(s.threads for s in load.samples)}, end {last.threads}")
    say(f"tokens           {sums}")
    for wrong in load.wrong[:50]:
        say(f"WRONG            {wrong}")
    say(f"{len(load.wrong)} wrong")


if __name__ == "__main__":
    sys.exit(main())
