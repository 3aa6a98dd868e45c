"""Twenty seconds of the long mixed load (bench/soak.py): nothing is lost, nothing leaks, every token is booked."""

import pytest

from harness.faulty import FaultyProvider
from harness.soak import Soak


@pytest.fixture
def faulty():
    provider = FaultyProvider()
    yield provider
    provider.close()


def test_a_mixed_load_with_faults_is_booked_to_the_last_token(start, faulty):
    nexus = start(Soak.config(faulty), environment=faulty.environment)
    nexus.secrets.add(faulty.KEY)
    load = Soak(nexus, faulty, rate=60, reload_seconds=5, say=lambda text: None)
    load.run(20)
    load.settle()
    sums = load.compare()
    nexus.stop()
    load.check_ledger(sums)
    first, last = load.samples[0], load.samples[-1]
    lost = (last.descriptors - last.upstream) - (first.descriptors - first.upstream)
    print(f"note: {sum(load.seen.values())} calls, {sums['told made']} tokens told, {sums['told booked']} booked; descriptors {lost:+d}")
    assert load.wrong == [] and load.seen["reloads"] >= 2 and load.seen["good"] > 100
    assert sums["told made"] == sums["told booked"] and sums["not told made"] <= sums["not told booked"]
    assert lost <= load.workers + 8, "descriptors leak"
