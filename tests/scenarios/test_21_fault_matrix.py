"""Every way a provider can break, in every dialect, whole and streamed, with a fallback and without: what the client sees, what is booked.

Before the first content a failure is invisible where there is a fallback, and has its true status where there is none; behind it the client
sees that the answer is broken.  Never two texts in one, never a short answer that looks whole, never a token that is not booked.
"""

import pytest

from harness import matrix
from harness.faulty import FaultyProvider
from harness.starter import Starter

TABLE = matrix.cells()


@pytest.fixture(scope="module")
def played(tmp_path_factory, compiled_tools):
    faulty = FaultyProvider()
    starter = Starter(tmp_path_factory.mktemp("matrix"), compiled_tools)
    servers = []
    for part in matrix.parts(TABLE):               # a configuration has room for so many providers
        nexus = starter(matrix.config_of(faulty, part), environment=faulty.environment)
        nexus.secrets.add(faulty.KEY)
        matrix.run(nexus, part)
        servers.append((nexus, part))
    yield servers, faulty
    starter.finish()
    faulty.close()


@pytest.mark.parametrize("cell", TABLE, ids=lambda cell: cell.id)
def test_a_fault_is_invisible_or_told(played, cell):
    matrix.check_seen(cell)
    matrix.check_booked(cell, played[1])


def test_afterwards_nothing_is_open_and_the_books_add_up(played):
    servers, faulty = played
    faulty.wait_for(lambda: faulty.open == 0, 5, f"{faulty.open} calls stay open at the provider")
    for nexus, part in servers:
        nexus.stop()
        matrix.check_books(nexus.data, part)
