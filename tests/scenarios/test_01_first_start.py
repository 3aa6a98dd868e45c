"""The first start: what a person sees, what lies in the data folder, and what is open to whom."""

import os
import pty
import re
import stat
import subprocess
import threading

import httpx

from harness.client import problem
from harness.server import BINARY, clean_environment, merged


def test_the_first_start_makes_one_admin_key_that_only_its_owner_can_read(start_cold):
    nexus = start_cold()
    file = nexus.data / "admin.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch(r"\S+\n", file.read_text())
    me = nexus.admin.get("/api/v1/me").json()
    assert me["role"] == "admin" and "platform" in me["scopes"]


def test_a_deleted_admin_key_file_is_not_made_again_and_the_key_still_works(start):
    nexus = start()
    key = nexus.admin_key
    (nexus.data / "admin.key").unlink()
    nexus.restart()
    assert not (nexus.data / "admin.key").exists()
    assert nexus.client(key).get("/api/v1/me").status_code == 200


def test_the_data_folder_keeps_its_secrets_to_its_owner(start):
    nexus = start()
    for file in nexus.data.rglob("*"):
        if file.suffix in (".key", ".pepper", ".db") or file.name.startswith("keys."):
            assert not stat.S_IMODE(file.stat().st_mode) & 0o077, f"{file.name} is open to others"


def test_health_and_readiness_are_open_and_metrics_need_the_scope_platform(nexus):
    stranger = nexus.client("")
    assert stranger.get("/healthz").json() == {"status": "ok"}
    assert stranger.get("/readyz").json() == {"status": "ready"}
    assert problem(stranger.get("/metrics")) == "unauthenticated"
    assert problem(nexus.user("mallory", role="admin").get("/metrics")) == "denied"
    metrics = nexus.admin.get("/metrics")
    assert metrics.status_code == 200 and metrics.headers["content-type"].startswith("text/plain")


def test_the_three_metrics_of_an_agent_are_there_after_a_run(nexus):
    session = nexus.admin.open_session()
    assert nexus.admin.ask("What time is it?", session=session).status == "completed"
    text = nexus.admin.get("/metrics").text
    request = re.search(rf'nexus_agent_requests_total\{{([^}}]*session_id="{session}"[^}}]*)\}} (\d+)', text)
    assert request and int(request.group(2)) >= 1
    assert 'agent_type="assistant"' in request.group(1) and 'status="completed"' in request.group(1)
    assert re.search(r'nexus_agent_request_duration_seconds_bucket\{agent_type="assistant",le="0\.005"\}', text)
    ratio = re.search(rf'nexus_budget_utilization_ratio\{{session_id="{session}",resource_type="tokens"\}} (\S+)', text)
    assert ratio and 0 < float(ratio.group(1)) < 1


def test_the_log_names_the_address_the_key_file_and_the_stand_in_but_not_the_key(start):
    nexus = start()
    ready = next(entry for entry in nexus.log_entries() if entry["message"] == "ready")
    assert ready["url.full"] == nexus.url and ready["nexus.admin_key_path"].endswith("admin.key")
    assert "stand-in" in nexus.log_text()
    assert nexus.admin_key not in nexus.log_text()


def test_on_a_terminal_a_banner_says_where_it_is_and_that_the_model_is_a_stand_in(start):
    nexus = start.prepare()
    nexus.write_config({"log_format": "auto"})
    screen, terminal = pty.openpty()
    nexus.process = subprocess.Popen([str(nexus.binary), "serve", "--config", str(nexus.config_file)], stdin=subprocess.DEVNULL,
                                     stdout=terminal, stderr=terminal, env=clean_environment(nexus.folder))
    os.close(terminal)
    nexus.wait_ready()
    shown = b""
    while b"nexus run" not in shown:
        shown += os.read(screen, 65536)
    threading.Thread(target=drain, args=(screen,), daemon=True).start()
    text = shown.decode()
    assert nexus.url in text and "admin.key" in text and "stand-in" in text
    assert (nexus.data / "admin.key").read_text().strip() not in text


def drain(screen: int) -> None:
    try:
        while os.read(screen, 65536):
            pass
    except OSError:                                # the terminal's other end is gone
        os.close(screen)


def test_port_zero_takes_a_free_port_and_says_which(start):
    nexus = start.prepare()
    nexus.write_config({"listen": "127.0.0.1:0"})
    nexus.spawn()
    line = nexus.wait_for_log("http://127.0.0.1:", seconds=60)
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)", line).group(1))
    assert port > 0
    nexus.url = f"http://127.0.0.1:{port}"
    nexus.wait_ready()


def test_without_any_configuration_there_is_a_model_and_it_says_when_it_is_a_stand_in(start):
    nexus = start.prepare()
    nexus.config_file.unlink()
    with open(nexus.log_file, "ab") as log:
        nexus.process = subprocess.Popen(
            [str(BINARY), "serve", "--listen", f"127.0.0.1:{nexus.port}", "--data", str(nexus.data)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=nexus.folder, env=clean_environment(nexus.folder))
    nexus.wait_ready()
    nexus.admin_key = (nexus.data / "admin.key").read_text().strip()
    nexus.secrets.add(nexus.admin_key)
    models = nexus.admin.get("/v1/models").json()["data"]
    assert "agent:assistant" in [model["id"] for model in models]
    tools = {tool["name"] for tool in nexus.admin.get("/api/v1/tools").json()["items"]}
    assert {"text_processing", "data_analysis", "time", "code_execution", "http_request"} <= tools


def test_a_data_folder_in_use_by_another_process_is_refused_and_the_owner_goes_on(start):
    owner = start()
    second = start.prepare()
    second.write_config(merged(owner.config, {"listen": f"127.0.0.1:{second.port}"}))
    process = second.spawn()
    assert process.wait(30) != 0
    message = second.log_text()
    assert str(owner.data) in message and re.search(r"in use|another process", message)
    assert owner.admin.get("/api/v1/me").status_code == 200


def test_a_port_in_use_is_a_clear_error(start):
    owner = start()
    second = start.prepare()
    second.write_config({"listen": f"127.0.0.1:{owner.port}"})
    assert second.spawn().wait(30) != 0
    assert str(owner.port) in second.log_text() and "in use" in second.log_text().lower()
    assert httpx.get(owner.url + "/healthz", trust_env=False).status_code == 200


def test_the_openapi_document_is_served_and_names_every_route_it_answers(nexus):
    reply = nexus.client("").get("/api/openapi.json")
    document = reply.json()
    assert document["openapi"].startswith("3.1")
    for path in ("/api/v1/sessions", "/api/v1/sessions/{id}/messages", "/api/v1/runs/{id}/events", "/v1/chat/completions"):
        assert path in document["paths"]
    for path, methods in document["paths"].items():
        is_public = path in ("/", "/healthz", "/readyz", "/api/openapi.json", "/api/v1/mcp/oauth/callback", "/api/v1/mcp/oauth/client") or path.startswith("/.well-known/")
        if "get" in methods and "{" not in path and not is_public:
            assert nexus.client("").get(path).status_code == 401, f"{path} answers without a key"
            assert path == "/mcp" or nexus.admin.get(path).status_code == 200, path    # a stream there needs a session
