"""Without a word of configuration: a key in the environment or a model server on this machine is found and used."""

import socket
import threading

import pytest

from harness.provider import FakeProvider, Server, Text, handler_of

NOTHING = {"providers": [], "models": []}
OLLAMA = ("127.0.0.1", 11434)


def asked(nexus, model: str) -> str:
    reply = nexus.admin.post("/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "hello"}]})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def test_an_openai_key_in_the_environment_is_enough(start, provider):
    provider.answer = lambda call: Text("found by the key")
    nexus = start(NOTHING, environment={"OPENAI_API_KEY": provider.KEY, "OPENAI_BASE_URL": provider.url})
    names = [model["id"] for model in nexus.admin.get("/v1/models").json()["data"]]
    assert "tiny" in names and "agent:assistant" in names and "offline" not in names
    assert asked(nexus, "tiny") == "found by the key"
    assert provider.KEY not in nexus.log_file.read_text()


def test_a_model_server_on_its_usual_port_is_found(start):
    with socket.socket() as probe:
        if probe.connect_ex(OLLAMA) == 0:
            pytest.skip("something listens on port 11434 of this machine already")
    local = FakeProvider(lambda call: Text("found on the port"), models=("local-model",))
    usual = Server(OLLAMA, handler_of(local))
    local.KEY = ""  # a local server asks for none
    local.server.shutdown()
    threading.Thread(target=usual.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        nexus = start(NOTHING)
        assert asked(nexus, "local-model") == "found on the port"
    finally:
        usual.shutdown()
        usual.server_close()
        local.server.server_close()


def test_with_nothing_to_find_the_stand_in_says_that_it_is_one(start):
    nexus = start(NOTHING)
    names = [model["id"] for model in nexus.admin.get("/v1/models").json()["data"]]
    assert names == ["offline", "agent:assistant"]
    assert "stand-in" in nexus.log_file.read_text()
    assert asked(nexus, "offline").startswith("Offline stand-in (no model)")
