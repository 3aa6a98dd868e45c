"""The command line, as a person and as a script use it: what it prints, and what its exit code means."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from harness.provider import Hang
from harness.scripts import call, say, script
from harness.server import clean_environment, run_command
from harness.tables import is_among, means_by, numbers_in
from harness.tools import DANGEROUS, tools_with_a_dangerous_one


def named(nexus) -> dict:
    """Where the server is, for a command that a test starts by itself."""
    return {"NEXUS_SERVER": nexus.url, "NEXUS_API_KEY": nexus.admin_key}


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# ---- run ----

def test_run_answers_about_a_file_and_exits_0(nexus, data_sets):
    file = data_sets / "seattle-weather.csv"
    ended = nexus.command("run", "--file", str(file), "What is the average wind for each weather?")
    assert ended.returncode == 0, ended.stderr
    figures = numbers_in(ended.stdout)
    for weather, mean in means_by(file.read_bytes(), "weather", "wind").items():
        assert weather in ended.stdout and is_among(mean, figures), ended.stdout
    for told in ("policy", "budget", "data_analysis", "tokens"):
        assert told in (ended.stdout + ended.stderr).lower(), f"{told} is not shown: {ended.stdout}{ended.stderr}"


def test_run_with_json_prints_one_event_a_line_and_nothing_else(nexus):
    ended = nexus.command("run", "--json", "hello")
    events = json_lines(ended.stdout)
    assert ended.returncode == 0
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "run.started" and events[-1]["type"] == "run.completed"


def test_run_reads_the_prompt_from_the_standard_input(nexus):
    ended = subprocess.run([str(nexus.binary), "run", "--quiet", "-"], input="hello there", capture_output=True, text=True,
                           env=clean_environment(nexus.folder, named(nexus)), timeout=30)
    assert ended.returncode == 0 and "stand-in" in ended.stdout


def test_a_run_that_fails_exits_1_and_says_why(nexus):
    ended = nexus.command("run", script({"error": "invalid"}))
    assert ended.returncode == 1 and "provider_invalid" in ended.stdout + ended.stderr, ended.stderr


@pytest.mark.parametrize("arguments", [(), ("--nonsense", "x"), ("--file", "/no/such/file", "x"), ("--model", "gigantic", "x"),
                                       ("",)],
                         ids=["no prompt", "unknown option", "no such file", "unknown model", "empty prompt"])
def test_wrong_usage_exits_2_with_a_remedy(nexus, arguments):
    ended = nexus.command("run", *arguments)
    assert ended.returncode == 2, (ended.returncode, ended.stdout, ended.stderr)
    assert ended.stderr.startswith("nexus run") and len(ended.stderr) > 30


def test_without_rights_it_exits_3(nexus):
    assert nexus.command("run", "hello", key="nxk_wrong").returncode == 3
    assert nexus.command("run", "hello", key=nexus.user("victor", "viewer").key).returncode == 3


def test_over_budget_exits_4(start):
    nexus = start({"budgets": {"session": {"tokens": 100}}})
    ended = nexus.command("run", "hello")
    assert ended.returncode == 4 and "budget" in ended.stderr + ended.stdout


def test_a_server_that_is_not_there_is_told_with_its_address(nexus):
    ended = nexus.command("run", "hello", environment={"NEXUS_SERVER": "http://127.0.0.1:1"})
    assert ended.returncode == 1 and "127.0.0.1:1" in ended.stderr


def test_without_a_server_it_runs_by_itself(tmp_path, nexus, data_sets):
    file = data_sets / "seattle-weather.csv"
    question = "What is the average wind by weather?"
    ended = run_command(tmp_path, "run", "--config", str(nexus.config_file), "--file", str(file), question, seconds=90)
    assert ended.returncode == 0, ended.stderr
    figures = numbers_in(ended.stdout)
    assert all(is_among(mean, figures) for mean in means_by(file.read_bytes(), "weather", "wind").values()), ended.stdout


def test_ctrl_c_cancels_the_run(start, provider):
    provider.answer = lambda call: Hang()
    nexus = start(provider=provider)
    process = subprocess.Popen([str(nexus.binary), "run", "hello"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=clean_environment(nexus.folder, named(nexus)))
    provider.wait_for_calls(1)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 1
    process.communicate()
    [run] = nexus.admin.get("/api/v1/runs").json()["items"]
    assert nexus.admin.wait(run["id"])["status"] == "cancelled"


def test_what_a_model_says_cannot_steer_the_terminal(nexus):
    ended = nexus.command("run", script(say("red \u001b[31m and \u0007 and \u009b2J clear")))
    assert ended.returncode == 0
    assert not re.search("[\u001b\u0007\u009b]", ended.stdout)


# ---- sessions, files, runs ----

def test_a_session_from_its_opening_to_its_end(nexus, tmp_path):
    session = nexus.command("session", "create", "--tokens", "50000").stdout.strip()
    assert nexus.admin.budget(session)["limit"]["tokens"] == 50000
    assert session in nexus.command("session", "list").stdout
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert nexus.command("session", "files", "put", session, str(tmp_path / "a.csv")).returncode == 0
    assert "a.csv" in nexus.command("session", "files", "list", session).stdout
    assert nexus.command("session", "files", "get", session, "a.csv").stdout == "x,y\n1,2\n"
    assert nexus.command("run", "--session", session, "hello").returncode == 0
    assert "hello" in nexus.command("session", "messages", session).stdout
    shown = json.loads(nexus.command("session", "show", session, "--json").stdout)
    assert shown["id"] == session and shown["status"] == "active"
    assert nexus.command("session", "close", session).returncode == 0
    assert nexus.command("run", "--session", session, "hello").returncode == 1


def test_runs_are_listed_shown_and_their_events_followed(nexus):
    run = nexus.admin.ask("hello").id
    assert run in nexus.command("runs", "list").stdout
    assert json.loads(nexus.command("runs", "show", run, "--json").stdout)["status"] == "completed"
    ended = nexus.command("runs", "events", run, "--json")
    assert ended.returncode == 0 and json_lines(ended.stdout)[-1]["type"] == "run.completed"


# ---- tools, keys, audit, approvals ----

def test_tools_are_listed_shown_and_invoked(nexus):
    assert "data_analysis" in nexus.command("tool", "list").stdout
    assert json.loads(nexus.command("tool", "show", "time", "--json").stdout)["category"] == "time"
    ended = nexus.command("tool", "invoke", "text_processing", '{"operation": "upper", "text": "abc"}')
    assert ended.returncode == 0 and "ABC" in ended.stdout
    assert nexus.command("tool", "invoke", "text_processing", "{not json").returncode == 2
    assert nexus.command("tool", "invoke", "hammer", "{}").returncode == 1


def test_a_key_is_made_listed_and_revoked(nexus):
    options = ("--user", "ada", "--role", "user", "--expires", "90d", "--json")
    made = json.loads(nexus.command("key", "create", "laptop", *options).stdout)
    nexus.secrets.add(made["key"])
    assert nexus.client(made["key"]).get("/api/v1/me").json()["user_id"] == "ada"
    listed = nexus.command("key", "list").stdout
    assert "laptop" in listed and made["key"] not in listed
    assert nexus.command("key", "revoke", made["id"]).returncode == 0
    assert nexus.client(made["key"]).get("/api/v1/me").status_code == 401


def test_the_audit_log_is_listed_and_verified_with_and_without_a_server(start):
    nexus = start()
    nexus.admin.open_session()
    assert "session.create" in nexus.command("audit", "list").stdout
    assert nexus.command("audit", "verify").returncode == 0
    nexus.stop()
    ended = run_command(nexus.folder, "audit", "verify", "--data", str(nexus.data))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_an_approval_is_listed_shown_and_given(start, tmp_path):
    nexus = start({"tools": {"dir": str(tools_with_a_dangerous_one(tmp_path / "tools"))}})
    alice, bob = nexus.user("alice"), nexus.user("bob", "operator")
    waits = nexus.command("run", script(call(DANGEROUS, operation="upper", text="x"), say("done")), key=alice.key)
    assert waits.returncode == 5 and "nexus approval approve" in waits.stderr
    approval = re.search(r"nexus approval approve (\S+)", waits.stderr).group(1)
    assert approval in nexus.command("approval", "list", key=bob.key).stdout
    shown = nexus.command("approval", "show", approval, key=bob.key).stdout
    assert DANGEROUS in shown and "alice" in shown
    assert nexus.command("approval", "approve", approval, key=alice.key).returncode == 3
    assert nexus.command("approval", "approve", approval, "--digest", "0" * 64, key=bob.key).returncode == 1
    assert nexus.command("approval", "approve", approval, "--reason", "checked", key=bob.key).returncode == 0
    [run] = alice.get("/api/v1/runs").json()["items"]
    assert alice.wait(run["id"])["status"] == "completed"


# ---- configuration, doctor, help ----

def test_config_check_says_that_all_is_well_and_doctor_looks_at_the_machine(nexus):
    checked = nexus.command("config", "check", "--config", str(nexus.config_file))
    assert checked.returncode == 0, checked.stderr
    looked = nexus.command("doctor", "--config", str(nexus.config_file))
    assert looked.returncode in (0, 1), looked.stderr
    assert "rotate" in looked.stdout + looked.stderr, "it urges to rotate the first key"
    assert nexus.admin_key not in looked.stdout + looked.stderr + checked.stdout


def test_a_secret_in_the_configuration_is_never_shown(tmp_path):
    file = tmp_path / "nexus.yaml"
    file.write_text("providers:\n"
                    "  - {name: p, type: openai, base_url: 'http://127.0.0.1:1/v1', api_keys: [sk-plain-text-secret-1]}\n"
                    "models:\n  - {name: m, targets: [{provider: p, model: x}]}\n")
    for command in (("config", "check"), ("config", "show"), ("doctor",)):
        ended = run_command(tmp_path, *command, "--config", str(file))
        assert "sk-plain-text-secret-1" not in ended.stdout + ended.stderr, command


def commands_of(text: str) -> list[str]:
    """The commands that a help text names: indented words at the beginning of a line."""
    return re.findall(r"^  ([a-z]+(?: [a-z]+)*)(?: [A-Z\[][^ ]*)*  ", text, re.MULTILINE)


def test_every_command_has_a_help_with_an_example(tmp_path):
    top = run_command(tmp_path, "--help")
    assert top.returncode == 0
    names = commands_of(top.stdout)
    assert {"serve", "run", "doctor"} <= {name.split()[0] for name in names}, top.stdout
    for name in names:
        ended = run_command(tmp_path, *name.split(), "--help")
        assert ended.returncode == 0, (name, ended.stderr)
        assert "nexus " + name in ended.stdout, name
    for name in ("serve", "run", "session create", "tool invoke", "key create", "audit verify", "config check", "doctor"):
        assert re.search("example", run_command(tmp_path, *name.split(), "--help").stdout, re.IGNORECASE), name


def test_an_unknown_command_says_how_to_find_those_there_are(tmp_path):
    ended = run_command(tmp_path, "serv")
    assert ended.returncode == 2 and "serv" in ended.stderr and "nexus --help" in ended.stderr


def test_colours_are_for_terminals_only(nexus):
    assert "\x1b[" not in nexus.command("session", "list").stdout + nexus.command("run", "hello").stderr


def test_a_closed_pipe_is_no_crash(nexus):
    process = subprocess.Popen([str(nexus.binary), "session", "list", "--all", "--json"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env=clean_environment(nexus.folder, named(nexus)))
    os.close(process.stdout.fileno())
    process.stdout = None
    assert process.wait(20) not in (-signal.SIGSEGV, -signal.SIGABRT)
