#!/usr/bin/env python3
"""Kills a server under load 2,000 times and checks after each ten lives that nothing was lost, repeated or overspent.

    bench/kills.py [--kills 2000] [--seed 1]

The last line is the tally; exit 0 only when everything held.  Needs build/nexus and the toolbox.  About an hour: two seconds a kill.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/scenarios"))

from harness.kills import check_books, kill_under_load, make_work, mind  # noqa: E402
from harness.provider import FakeProvider  # noqa: E402
from harness.starter import Starter  # noqa: E402
from harness.tools import tools_with_a_dangerous_one  # noqa: E402
from harness.upstream import CountingUpstream  # noqa: E402


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    options = options.parse_args()
    provider, upstream = FakeProvider(), CountingUpstream(0.005)
    provider.answer = mind(upstream)
    with tempfile.TemporaryDirectory(prefix="nexus-kills-") as folder:
        tools = tools_with_a_dangerous_one(Path(folder) / "tools")
        starter = Starter(Path(folder))
        config = CountingUpstream.config()
        config["tools"]["dir"] = str(tools)
        nexus = starter(config, provider=provider)
        work = make_work(nexus)
        tally = kill_under_load(nexus, upstream, work, random.Random(options.seed), options.kills, told_every=100)
        nexus.stop()
        check_books(nexus)
        starter.finish()
    provider.close()
    upstream.close()
    print(tally)
    return 0


if __name__ == "__main__":
    sys.exit(main())
