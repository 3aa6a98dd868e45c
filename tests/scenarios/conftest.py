"""Scenarios: the real binary, used as its users use it, with a fake world around it.  See README.md."""

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.provider import FakeProvider  # noqa: E402
from harness.server import COMPILED, DEV_BINARY, Nexus  # noqa: E402
from harness.starter import Starter, running  # noqa: E402
from harness.upstream import CountingUpstream  # noqa: E402


@pytest.fixture(scope="session")
def compiled_tools(tmp_path_factory) -> Path:
    """The shipped tools, compiled by a server of its own; all later ones share the folder."""
    nexus = Nexus(tmp_path_factory.mktemp("compiled")).start()
    for tool in nexus.admin.get("/api/v1/tools").json()["items"]:
        nexus.admin.invoke(tool["name"], {})       # refused or not: the tool is compiled for it
    deadline = time.monotonic() + 600               # Python takes ten seconds and more, on a busy machine a minute
    while nexus.admin.invoke("code_execution", {"language": "python", "code": "1"}).status_code == 504:
        assert time.monotonic() < deadline
    nexus.stop()
    return COMPILED / "nexus/wasm"


@pytest.fixture
def start(tmp_path, compiled_tools):
    starter = Starter(tmp_path, compiled_tools)
    yield starter
    starter.finish()


@pytest.fixture
def start_cold(tmp_path):
    """As `start`, from a data folder that is not there yet."""
    starter = Starter(tmp_path / "cold")
    yield starter
    starter.finish()


@pytest.fixture(scope="module")
def nexus(tmp_path_factory, compiled_tools):
    """One server with the offline model, shared by the tests of a file."""
    starter = Starter(tmp_path_factory.mktemp("shared"), compiled_tools)
    yield starter()
    starter.finish()


@pytest.fixture
def provider():
    fake = FakeProvider()
    yield fake
    fake.close()


@pytest.fixture
def upstream():
    counting = CountingUpstream()
    yield counting
    counting.close()


@pytest.fixture
def needs_fault_points():
    if not DEV_BINARY.exists():
        pytest.skip(f"fault points need the dev build: {DEV_BINARY} is not there (set NEXUS_DEV_BINARY)")


@pytest.fixture(scope="session")
def data_sets() -> Path:
    """Real files that no one here wrote: scripts/setup fetches them."""
    cache = os.environ.get("NEXUS_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nexus")
    folder = Path(os.environ.get("NEXUS_DATA_SETS") or Path(cache) / "data")
    if not (folder / "seattle-weather.csv").is_file():
        pytest.skip(f"no data sets in {folder}: run scripts/setup")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for server in running:
            report.sections.append((f"log of {server.folder.name} at {server.url}", server.log_tail()))
    return report
