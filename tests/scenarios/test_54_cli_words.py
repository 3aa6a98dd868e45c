"""What the command line says: amounts in the units in which they are set, near misses, closed sets, files by the names their owner gave."""

import json
import re
import subprocess

import pytest
from harness.client import problem
from harness.provider import FakeProvider, Text
from harness.server import BINARY, ROOT, clean_environment

PRICE = {"input_usd_per_million_tokens": "1.50", "output_usd_per_million_tokens": "6.00"}
MODELS = [{"name": "small", "targets": [{"provider": "fake", "model": "tiny", "price": PRICE}]}]
NO_SUCH_ID = "two words/ä"


def refused(ended: subprocess.CompletedProcess, *told: str) -> str:
    """Exit 2 with an explanation on stderr, nothing on stdout."""
    assert ended.returncode == 2, (ended.returncode, ended.stdout, ended.stderr)
    assert ended.stdout == ""
    for words in told:
        assert words in ended.stderr, ended.stderr
    return ended.stderr


def row(text: str, name: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(name)]
    return line.split()


# ---- money and time ----

def test_a_budget_is_shown_as_it_was_set(nexus):
    made = nexus.command("budget", "set", "user", "ada", "--tokens", "1000000", "--cost-usd", "0.25", "--time-seconds", "90",
                         "--period", "day", "--alerts", "40,90")
    shown = nexus.command("budget", "show", "user", "ada")
    assert made.returncode == shown.returncode == 0 and made.stdout == shown.stdout, made.stderr + shown.stderr
    assert row(shown.stdout, "limit") == ["limit", "1000000", "90", "0.25", "unlimited"]
    assert "SECONDS" in shown.stdout and "USD" in shown.stdout and "NANO" not in shown.stdout
    assert "alerts at 40, 90 per cent" in shown.stdout and "per day" in shown.stdout
    exact = json.loads(nexus.command("budget", "show", "user", "ada", "--json").stdout)
    assert exact["limit"] == {"tokens": 1000000, "time_ms": 90000, "cost_nanousd": "250000000", "tool_calls": None}
    assert exact["alerts"] == [40, 90]


def test_what_was_spent_is_shown_in_dollars_everywhere(start, provider: FakeProvider, tmp_path):
    provider.answer = lambda call: Text("done", usage=(1000, 500))
    nexus = start({"models": MODELS}, provider=provider)
    assert nexus.admin.ask("a question", model="small").status == "completed"      # 1000 * 1.50 + 500 * 6.00 millionths
    assert "0.0045" in row(nexus.command("budget", "show").stdout, "spent")
    [user] = {"admin"} & set(nexus.command("budget", "show", "--all").stdout.split())
    for command in (("budget", "show", "--all"), ("budget", "ledger", "user", user), ("usage",)):
        shown = nexus.command(*command)
        assert "0.0045" in shown.stdout.split() and "4500000" not in shown.stdout, shown.stdout + shown.stderr
    assert "4500000" in nexus.command("usage", "--json").stdout
    prices = tmp_path / "prices.yaml"
    prices.write_text('{version: t, date: 2026-11-01, source: t, providers: [{provider: fake, models: '
                      '[{model: tiny, input: "3.00", output: "12.00"}]}]}')
    report = nexus.command("backtest", "--prices", str(prices))
    assert "0.0045 -> 0.009 USD (0.0045)" in report.stdout and "nano" not in report.stdout, report.stdout + report.stderr


def test_setting_a_budget_to_nothing_has_to_be_said(nexus):
    assert nexus.command("budget", "set", "user", "eve", "--tokens", "5").returncode == 0
    for nothing in ((), ("--alerts", "50"), ("--period", "day")):
        refused(nexus.command("budget", "set", "user", "eve", *nothing), "--tokens", "--time-seconds", "--cost-usd", "--tool-calls",
                "--period", "--alerts", "--unlimited")
    refused(nexus.command("budget", "set", "user", "eve", "--unlimited", "--tokens", "3"), "--unlimited")
    assert row(nexus.command("budget", "show", "user", "eve").stdout, "limit")[1] == "5"
    assert nexus.command("budget", "set", "user", "eve", "--unlimited").returncode == 0
    assert row(nexus.command("budget", "show", "user", "eve").stdout, "limit")[1] == "unlimited"


# ---- near misses ----

@pytest.mark.parametrize("words, told", [
    ("runs lst", "nexus runs: no such command `lst`; did you mean `list`?"),
    ("runs xyzzy", "no such command `xyzzy`; there are: list, show, cancel"),
    ("webhook endpoint crate", "nexus webhook endpoint: no such command `crate`; did you mean `create`?"),
    ("session file put x y", "no such command `file`; did you mean `files`?"),
    ("usage cals", "nexus usage: no such command `cals`; did you mean `calls`?"),
    ("sessoin list", "nexus: no such command `sessoin`; did you mean `session`?"),
    ("xyzzy", "nexus: no such command `xyzzy`\n"),
    ("help runs lst", "did you mean `list`?"),
    ("runs list --jsn", "did you mean --json?"),
    ("--hlep", "did you mean `--help`?"),
    ("runs --json list", "options stand behind a whole command"),
    ("usage --by day,modle", "--by: day, user, key, model, provider, variant or kind, not \"modle\""),
])
def test_a_command_that_is_not_there_is_told_its_nearest_name(tmp_path, words, told):
    ended = subprocess.run([str(BINARY), *words.split()], capture_output=True, text=True, env=clean_environment(tmp_path), timeout=30)
    said = refused(ended, told)
    assert said.startswith("nexus") and len(said.splitlines()) <= 2, said


@pytest.mark.parametrize("words", ["runs --help", "help runs", "help", "--help", "help runs list", "usage --help"])
def test_help_that_is_asked_for_is_no_failure(tmp_path, words):
    ended = subprocess.run([str(BINARY), *words.split()], capture_output=True, text=True, env=clean_environment(tmp_path), timeout=30)
    assert ended.returncode == 0 and ended.stderr == "" and len(ended.stdout.splitlines()) > 5, ended


# ---- closed sets ----

@pytest.mark.parametrize("words, choices", [
    ("webhook deliveries --status nonsense", "pending, delivered, dead or dropped"),
    ("webhook create x --scheme nonsense", "standard, github or stripe"),
    ("webhook endpoint create x http://x --events run.completed,nonsense", "run.completed, run.failed, run.cancelled"),
    ("approval list --status nonsense", "pending, approved, denied, expired, consumed or all"),
    ("budget set user ada --tokens 1 --period nonsense", "day or month"),
    ("session create --double-text nonsense", "reject, enqueue, interrupt or steer"),
    ("schedule put x y --cron @daily --missed nonsense", "skip, one or all"),
    ("schedule put x y --cron @daily --overlap nonsense", "skip, allow or cancel"),
    ("memory store x --type nonsense", "message, tool_result or summary"),
    ("key create x --role nonsense", "admin, operator, user or viewer"),
    ("key create x --scope nonsense", "platform, act_as or approve"),
    ("key create x --priority nonsense", "batch, normal or interactive"),
    ("tool top --by nonsense", "cpu, latency, errors or calls"),
    ("usage --by nonsense", "day, user, key, model, provider, variant or kind"),
    ("usage calls --status nonsense", "ok, error, or the name of a problem"),
    ("serve --log-level nonsense", "debug, info, warn or error"),
])
def test_a_value_out_of_a_closed_set_is_refused_with_the_set(nexus, words, choices):
    refused(nexus.command(*words.split()), choices)


def test_the_api_refuses_them_too(nexus):
    for path, choices in [("webhook-deliveries?status=nonsense", "pending, delivered, dead or dropped"),
                          ("usage/calls?status=nonsense", "ok, error"),
                          ("usage?by=nonsense", "day, user"),
                          ("approvals?status=nonsense", "pending, approved, denied, expired or consumed"),
                          ("tools/top?by=nonsense", "cpu, latency")]:
        reply = nexus.admin.get(f"/api/v1/{path}")
        assert reply.status_code in (400, 422) and problem(reply), reply.text
        assert choices in reply.json()["detail"], reply.text
    for path in ("webhook-deliveries?status=dead", "webhook-deliveries", "usage/calls?status=rate_limited", "approvals?status=consumed"):
        assert nexus.admin.get(f"/api/v1/{path}").status_code == 200


# ---- doctor ----

def verdicts(ended: subprocess.CompletedProcess) -> dict:
    return {check["check"]: check for check in json.loads(ended.stdout)["checks"]}


def test_doctor_asks_the_server_that_is_named(nexus):
    found = verdicts(nexus.command("doctor", "--json", "--data", str(nexus.folder / "elsewhere")))["resilience"]
    assert found["verdict"] == "ok" and nexus.url in found["detail"], found
    found = verdicts(nexus.command("doctor", "--json", "--server", "http://127.0.0.1:1"))["resilience"]
    assert found["verdict"] == "warn" and "127.0.0.1:1" in found["detail"] and "--server" in found["remedy"], found
    for named in ("", nexus.url):
        found = verdicts(nexus.command("doctor", "--json", "--config", str(nexus.config_file), environment={"NEXUS_SERVER": named}))
        assert nexus.url in found["resilience"]["detail"] and found["port"]["verdict"] == "ok", found


def test_doctor_shows_the_admin_key_of_its_folder_to_no_other_server(nexus, provider: FakeProvider):
    no_key = {"NEXUS_API_KEY": ""}
    command = ("doctor", "--json", "--config", str(nexus.config_file), "--data", str(nexus.data))
    found = verdicts(nexus.command(*command, "--server", provider.url.removesuffix("/v1"), environment=no_key))["resilience"]
    assert found["verdict"] == "warn" and "no key" in found["detail"], found
    assert verdicts(nexus.command(*command, environment=no_key))["resilience"]["verdict"] == "ok"


def test_a_new_admin_key_is_no_warning(nexus):
    found = verdicts(nexus.command("doctor", "--json", "--config", str(nexus.config_file)))["keys"]
    assert found["verdict"] == "ok" and "7 days" in found["detail"], found


# ---- names of files and ids ----

def test_what_is_wrong_with_a_backtest_is_told_by_the_names_of_its_files(nexus, tmp_path):
    (tmp_path / "rules").mkdir()
    one, many = tmp_path / "b.rego", tmp_path / "rules"
    one.write_text("package nexus.agent.policy\nimport rego.v1\nallow if { x := \n")
    (many / "c.rego").write_text(one.read_text())
    (tmp_path / "e.rego").write_text("package other\n")
    (tmp_path / "p.yaml").write_text("version: [1\n")
    (tmp_path / "r.yaml").write_text("models: [{name: x}]\n")
    (tmp_path / "f.yaml").write_text("groups: {nope: x}\n")
    for option, path, told in [("--policy", one, f"{one}:3:"), ("--policy", many, f"{many}/c.rego:3:"),
                               ("--policy", tmp_path / "e.rego", f"{tmp_path}/e.rego: "), ("--prices", tmp_path / "p.yaml", "p.yaml:2:"),
                               ("--router", tmp_path / "r.yaml", "r.yaml: "), ("--filter", tmp_path / "f.yaml", "f.yaml: ")]:
        assert "nexus-backtest" not in refused(nexus.command("backtest", option, str(path)), f"nexus backtest: {tmp_path}", told)
    refused(nexus.command("backtest"), "--policy, --prices, --router or --filter")
    reply = nexus.admin.post("/api/v1/backtests", {"policy": {"modules": [{"name": "b.rego", "source": one.read_text()}]}})
    assert reply.status_code == 400 and reply.json()["detail"].startswith("b.rego:3:"), reply.text


def test_a_record_that_is_broken_is_told_by_its_name_and_place(nexus, tmp_path):
    broken, other = tmp_path / "broken.json", tmp_path / "other.json"
    broken.write_text('{"format": "nexus.run",\n "run": ')
    other.write_text('{"a": 1}')
    run = nexus.admin.ask("hello").id
    for command in (("runs", "replay", broken), ("runs", "diff", broken, run), ("runs", "diff", run, broken),
                    ("session", "import", broken)):
        ended = nexus.command(*map(str, command))
        assert f"{broken}: " in ended.stderr and re.search(r"line 2, column \d+", ended.stderr), ended.stderr
    refused(nexus.command("runs", "replay", str(other)), f"{other}: ", "runs export")


@pytest.mark.parametrize("command", ["runs show", "runs cancel", "session show", "approval show", "key show", "webhook retry"])
def test_an_id_is_said_as_it_was_given(nexus, command):
    ended = nexus.command(*command.split(), NO_SUCH_ID)
    assert ended.returncode == 1 and f'"{NO_SUCH_ID}"' in ended.stderr and "%" not in ended.stderr, ended.stderr


# ---- tables ----

def test_all_budgets_are_shown_however_many_keys_there_are(nexus):
    people = [f"crowd-{number:02}" for number in range(53)]
    for person in people:
        nexus.admin.create_key(user_id=person)
    shown = nexus.command("budget", "show", "--all")
    assert shown.returncode == 0 and not set(people) - set(shown.stdout.split()), shown.stdout[-300:] + shown.stderr


def test_a_key_is_shown_in_lines_and_changed_only_by_saying_how(nexus):
    key = nexus.admin.create_key(user_id="ada")["id"]
    assert row(nexus.command("key", "show", key).stdout, "user_id") == ["user_id", "ada"]
    assert json.loads(nexus.command("key", "show", key, "--json").stdout)["user_id"] == "ada"
    refused(nexus.command("key", "update", key), "--rpm", "--budget-usd")
    assert row(nexus.command("key", "update", key, "--rpm", "7").stdout, "requests_per_minute")[1] == "7"


def test_what_a_run_cost_is_shown_in_words(nexus):
    run = nexus.admin.ask("hello").id
    shown = nexus.command("runs", "show", run).stdout
    assert re.search(r"^cost +\d+ tokens, [\d.]+ s, \$[\d.]+, \d+ tool calls$", shown, re.M) and "nanousd" not in shown, shown


# ---- the documentation ----

def commands_and_options() -> dict[str, set[str]]:
    """Every command of the manual page with the options of its own help."""
    def said(*words: str) -> str:
        return subprocess.run([str(BINARY), *words], capture_output=True, text=True, timeout=30).stdout

    names = re.findall(r"^\.SS ([a-z-]+(?: [a-z-]+)*)", said("manual").replace("\\-", "-"), re.M)
    return {name: set(re.findall(r"^ +(?:-\w, )? *--([a-z-]+)", said(*name.split(), "--help"), re.M)) for name in names}


def test_what_the_documentation_says_can_be_typed():
    known = commands_and_options()
    assert len(known) > 100 and "unlimited" in known["budget set"]
    groups = {name.split()[0] for name in known}
    wrong, seen = [], 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, line in enumerate(page.read_text().splitlines(), 1):
            for typed in re.findall(r"(?<![\w/.-])nexus ([a-z][^`|)#;]*)", line):
                name = max((name for name in known if typed == name or typed.startswith(name + " ")), key=len, default="")
                is_group = any(known_name.startswith(typed + " ") for known_name in known)
                if not name and not is_group and typed.split()[0] in groups and f"`nexus {typed}" in line:
                    wrong.append(f"{page.name}:{number}: no command: {typed}")
                strange = set(re.findall(r"(?<=\s)--([a-z][a-z-]*)", typed)) - known.get(name, set()) if name else set()
                wrong += [f"{page.name}:{number}: nexus {name} has no --{option}" for option in sorted(strange)]
                seen += bool(name)
    assert seen > 100 and not wrong, "\n".join(wrong)


def test_the_page_about_the_command_line_names_every_command():
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/cli.md").read_text(), re.M)
    told = set()
    for quoted in re.findall(r"`([^`]+)`", " ".join(table)):
        first, *others = [re.sub(r" *\[.*?\]| [A-Z].*", "", part).strip() for part in quoted.split(",")]
        group = first.rpartition(" ")[0]
        told |= {first} | {f"{group} {other}".strip() for other in others if not other.startswith("files ")}
        told |= {f"{group} files {verb}" for other in others if other.startswith("files ") for verb in other.split()[1].split("/")}
    assert told == set(commands_and_options())


# ---- completion ----

@pytest.mark.parametrize("typed, offered", [
    ("", {"runs", "webhook", "completion"}),
    ("webhook ", {"list", "endpoint", "deliveries"}),
    ("webhook endpoint ", {"list", "create", "resume"}),
    ("webhook endpoint cr", {"create"}),
    ("usage ", {"calls", "experiment", "--by"}),
    ("usage calls --st", {"--status"}),
    ("mcp ", {"login", "diff"}),
    ("session files ", {"put", "get", "list"}),
    ("approval list --status ", {"pending", "consumed", "all"}),
    ("schedule put x y --missed ", {"skip", "one", "all"}),
])
def test_the_shell_completes_what_may_follow(tmp_path, typed, offered):
    script = tmp_path / "completion"
    script.write_text(subprocess.run([str(BINARY), "completion", "bash"], capture_output=True, text=True, timeout=30, check=True).stdout)
    words = ["nexus", *typed.split(" ")]
    run = f'. {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nexus; printf "%s\\n" "${{COMPREPLY[@]}}"'
    ended = subprocess.run(["bash", "-c", run, "-", *words], capture_output=True, text=True, timeout=30)
    told = ended.stdout.split()
    assert ended.stderr == "" and offered <= set(told) and len(told) == len(set(told)), (told, ended.stderr)
