"""The official JavaScript SDK: the scripts of tests/node, each against both ways out and against agents."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.gateway import ADAPTERS, gateway_config
from harness.model_api import ModelApi
from harness.server import ROOT
from harness.starter import Starter

SCRIPTS = ROOT / "tests/node"
MODELS = [*ADAPTERS, *(f"agent:{adapter}" for adapter in ADAPTERS)]


@pytest.fixture(scope="module")
def node() -> Path:
    """Where scripts/setup put the SDK."""
    cache = os.environ.get("NEXUS_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nexus")
    folder = Path(cache) / "node"
    if not (folder / "node_modules/openai").is_dir():
        pytest.skip(f"no JavaScript SDK in {folder}: run scripts/setup")
    return folder


@pytest.fixture(scope="module")
def api():
    fake = ModelApi()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, compiled_tools, api):
    starter = Starter(tmp_path_factory.mktemp("node"), compiled_tools)
    server = starter(gateway_config(api, ("node",)), environment=api.environment)
    server.secrets.add(api.KEY)
    yield server
    starter.finish()


@pytest.fixture
def run(gateway, node, api):
    def script(name: str, model: str, **more: str) -> None:
        api.misfits.clear()
        environment = {"PATH": os.environ["PATH"], "NEXUS_NODE": str(node), "NEXUS_URL": gateway.url,
                       "NEXUS_KEY": gateway.admin_key, "NEXUS_MODEL": model, **more}
        done = subprocess.run(["node", "--test-reporter=spec", str(SCRIPTS / f"{name}.mjs")], env=environment, capture_output=True,
                              text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
        assert api.misfits == []
    return script


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("script", ["chat", "tools", "structured", "responses"])
def test_the_javascript_sdk(run, script, model):
    run(script, model)


def test_the_javascript_sdk_passes_responses_through(run):
    run("responses", "responses")


def test_the_javascript_sdk_reads_vectors(run):
    run("embeddings", "vectors")


@pytest.mark.parametrize("model", ADAPTERS)
def test_the_javascript_sdk_tells_errors(run, gateway, model):
    run("errors", model, NEXUS_POOR_SESSION=gateway.admin.open_session(budget={"tokens": 20}))
