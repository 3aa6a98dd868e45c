"""An operator sees what tools cost: figures for each version, the busiest first, and where the long calls spend their time."""

import re

import pytest

from harness.client import problem

LONG = "let n = 0, end = Date.now() + 400; while (Date.now() < end) n += [3, 1, 2].sort()[0]; const result = n > 0"
FIGURES = {"calls", "errors", "errors_by_reason", "cold_starts", "warm_starts", "cpu_us", "cpu_us_mean", "fuel", "memory_peak_bytes",
           "latency_us", "last_error", "since", "has_profile", "tool", "version"}


@pytest.fixture(scope="module", autouse=True)
def compiled(nexus):
    """The interpreter is large; on a busy machine its first use may wait for the compiler."""
    with_patience = nexus.client(nexus.admin.key, seconds=300)
    assert run_script(with_patience, "const result = 1").status_code == 200


def count_words(client, text="to be or not to be"):
    return client.invoke("text_processing", {"operation": "count", "text": text})


def run_script(client, code: str):
    return client.invoke("code_execution", {"language": "javascript", "code": code})


def usage(client, tool: str) -> dict | None:
    return client.get(f"/api/v1/tools/{tool}").json()["usage"]


def test_calls_and_errors_are_counted_for_the_version(nexus):
    for _ in range(5):
        assert count_words(nexus.admin).status_code == 200
    refused = nexus.admin.invoke("text_processing", {"operation": "nonsense"})
    assert problem(refused) == "schema"

    figures = usage(nexus.admin, "text_processing")
    assert set(figures) == FIGURES
    assert figures["calls"] == 6 and figures["errors"] == 1
    assert figures["errors_by_reason"] == {"schema": 1}
    assert figures["last_error"]["reason"] == "schema" and "/operation" in figures["last_error"]["message"]
    assert figures["cold_starts"] + figures["warm_starts"] == 6
    assert 0 < figures["cpu_us"] and 0 < figures["fuel"] and 65536 <= figures["memory_peak_bytes"]
    latency = figures["latency_us"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"] * 17 / 16 + 1


def test_a_tool_that_nobody_called_has_no_figures(nexus):
    assert usage(nexus.admin, "http_request") is None


def test_the_top_list_has_the_busiest_first(nexus):
    count_words(nexus.admin)
    run_script(nexus.admin, LONG)
    for by, figure in (("cpu", "cpu_us"), ("calls", "calls"), ("errors", "errors")):
        items = nexus.admin.get(f"/api/v1/tools/top?by={by}").json()["items"]
        values = [item[figure] for item in items]
        assert values == sorted(values, reverse=True) and len(items) >= 2
    slowest = nexus.admin.get("/api/v1/tools/top?by=latency&limit=1").json()["items"]
    assert [item["tool"] for item in slowest] == ["code_execution"]
    assert problem(nexus.admin.get("/api/v1/tools/top?by=beauty")) == "invalid"


def test_figures_are_for_operators(nexus):
    user = nexus.user("ada", "user")
    assert user.get("/api/v1/tools/top").status_code == 403
    assert user.get("/api/v1/tools/code_execution/profile").status_code == 403
    assert "usage" not in user.get("/api/v1/tools/text_processing").json()
    assert nexus.user("olga", "operator").get("/api/v1/tools/top").status_code == 200


def test_a_profile_names_the_functions_of_long_calls(nexus):
    assert run_script(nexus.admin, LONG).json()["output"]["result"] is True
    reply = nexus.admin.get("/api/v1/tools/code_execution/profile")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/plain")
    assert re.search(r"\d+ ms of CPU time in \d+ stacks", reply.text)
    assert re.search(r"^ *\d+\.\d%  +\d+\.\d%  JS_CallInternal$", reply.text, re.MULTILINE), reply.text
    assert "js_array_sort" in reply.text
    assert re.search(r"^100\.0% +0\.0%  nexus_run$", reply.text, re.MULTILINE), reply.text


def test_short_calls_leave_no_profile(nexus):
    count_words(nexus.admin)
    assert problem(nexus.admin.get("/api/v1/tools/text_processing/profile")) == "not_found"
    assert problem(nexus.admin.get("/api/v1/tools/no_such_tool/profile")) == "not_found"


def test_metrics_tell_tool_and_version(nexus):
    count_words(nexus.admin)
    text = nexus.admin.get("/metrics").text
    for name in ("calls_total", "duration_seconds_count", "cpu_microseconds_total", "fuel_total", "memory_peak_bytes", "cold_starts_total"):
        assert re.search(rf'^nexus_tool_version_{name}{{tool="text_processing",version="[0-9.]+"}} [0-9]', text, re.MULTILINE), name


@pytest.mark.parametrize("by", ["cpu", "latency", "errors", "calls"])
def test_the_command_line_shows_the_same(nexus, by):
    run_script(nexus.admin, LONG)
    shown = nexus.command("tool", "top", "--by", by)
    assert shown.returncode == 0 and "code_execution" in shown.stdout, shown.stderr
    profile = nexus.command("tool", "profile", "code_execution")
    assert profile.returncode == 0 and "JS_CallInternal" in profile.stdout, profile.stderr
    none = nexus.command("tool", "profile", "http_request")
    assert none.returncode == 1 and "no profile" in none.stderr
