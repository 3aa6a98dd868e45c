"""Code that behaves badly costs its caller one clear error, within its limit, and others nothing."""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.client import problem
from harness.scripts import call, say, script
from harness.starter import Starter

LIMITS = {"tools": {"code_execution": {"permissions": {"max_cpu_time": "2s", "max_memory": "64MB", "languages": ["javascript"]}}}}
LOOP = "while (true) {}"
MEMORY_BOMB = "const hoard = []; while (true) hoard.push(new Array(100000).fill(hoard.length));"
GIGABYTE = "const line = 'x'.repeat(1 << 20); for (let i = 0; i < 1024; i++) console.log(line);"
RECURSION = "function deeper(n) { return deeper(n + 1) + 1; } deeper(0);"


@pytest.fixture(scope="module")
def limited(tmp_path_factory, compiled_tools):
    starter = Starter(tmp_path_factory.mktemp("limited"), compiled_tools)
    yield starter(LIMITS)
    starter.finish()


def execute(client, code: str, **more):
    return client.invoke("code_execution", {"language": "javascript", "code": code, **more})


def one_clear_error(reply) -> str:
    """A limit of the sandbox is a problem; an exception inside the language is told in its own words, on one line."""
    if reply.status_code != 200:
        name = problem(reply)
        assert reply.status_code == 422
        return f"{name}: {reply.json()['detail']}"
    output = reply.json()["output"]
    assert output["exit_code"] == 1, output
    return output["stderr"].splitlines()[0]


def test_javascript_runs_and_gives_back_a_variable_its_output_and_files(limited):
    code = "console.log('hello'); files['out.txt'] = input.name; const result = {sum: 1 + 2, list: [1, null]};"
    output = execute(limited.admin, code, input={"name": "Ada"}).json()["output"]
    assert output == {"result": {"sum": 3, "list": [1, None]}, "stdout": "hello\n", "stderr": "", "exit_code": 0,
                      "files": {"out.txt": "Ada"}}


def test_nothing_survives_a_call(limited):
    assert execute(limited.admin, "globalThis.kept = 1; const result = 1").status_code == 200
    assert execute(limited.admin, "const result = typeof globalThis.kept").json()["output"]["result"] == "undefined"


def test_an_endless_loop_ends_at_its_time_limit(limited):
    begun = time.monotonic()
    error = one_clear_error(execute(limited.admin, LOOP))
    assert "time_limit" in error or "fuel_limit" in error
    assert 1 < time.monotonic() - begun < 60  # it ran until its limit, and not for ever


def test_a_memory_bomb_ends_at_its_memory_limit(limited):
    before = resident_bytes(limited)
    error = one_clear_error(execute(limited.admin, MEMORY_BOMB))
    assert "memory" in error.lower()
    assert resident_bytes(limited) - before < 96 << 20, "the memory was not given back"


def test_a_gigabyte_of_output_is_not_carried_out_of_the_sandbox(limited):
    reply = execute(limited.admin, GIGABYTE)
    assert problem(reply) == "output_limit" and reply.status_code == 422
    assert "MiB" in reply.json()["detail"]


def test_a_deep_recursion_is_one_error_and_no_crash(limited):
    error = one_clear_error(execute(limited.admin, RECURSION))
    assert "stack" in error.lower()


def test_a_language_that_is_not_permitted_is_refused_and_named(limited):
    reply = limited.admin.invoke("code_execution", {"language": "python", "code": "print(1)"})
    assert reply.status_code == 403 and problem(reply) == "permission" and "python" in reply.json()["detail"]


def test_an_input_that_does_not_fit_the_schema_names_the_member(limited):
    reply = limited.admin.invoke("code_execution", {"language": "javascript", "source": "1"})
    assert problem(reply) == "schema" and reply.status_code == 422 and "code" in reply.json()["detail"]


def test_bad_code_does_not_slow_down_the_others(limited, capsys):
    alone = latencies(limited)
    with ThreadPoolExecutor(8) as pool:
        bad = [pool.submit(execute, limited.user(f"user{i}"), code)
               for i, code in enumerate([LOOP, LOOP, MEMORY_BOMB, RECURSION, LOOP, GIGABYTE])]
        time.sleep(0.2)
        crowded = latencies(limited)
        assert all(future.result().status_code in (200, 422) for future in bad)
    with capsys.disabled():
        print(f"\n  note: a small tool call takes {show(alone)} alone, {show(crowded)} beside six that misbehave")
    assert statistics.median(crowded) < 0.25 and max(crowded) < 2


def latencies(nexus, count: int = 60) -> list[float]:
    client, times = nexus.admin, []
    for _ in range(count):
        begun = time.monotonic()
        reply = client.invoke("text_processing", {"operation": "count", "text": "one two"})
        times.append(time.monotonic() - begun)
        assert reply.status_code == 200, reply.text
        assert client.get("/healthz").status_code == 200
    return times


def show(times: list[float]) -> str:
    return f"{statistics.median(times) * 1000:.1f} ms (worst {max(times) * 1000:.0f} ms)"


def resident_bytes(nexus) -> int:
    with open(f"/proc/{nexus.process.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def test_a_run_tells_the_model_of_the_limit_and_goes_on(limited):
    outcome = limited.admin.ask(script(call("code_execution", language="javascript", code=LOOP), say("I gave up.")))
    assert outcome.status == "completed" and "I gave up." in outcome.answer
    [end] = outcome.of("tool.completed")
    assert end["data"]["status"] == "failed" and end["data"]["error"] in ("time_limit", "fuel_limit")


def test_cancelling_a_run_stops_the_code_that_it_runs(start):
    nexus = start()
    run_id = nexus.admin.send(nexus.admin.open_session(), script(call("code_execution", language="javascript", code=LOOP)))
    nexus.admin.wait_for_event(run_id, "tool.intended")
    time.sleep(0.3)
    begun = time.monotonic()
    assert nexus.admin.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
    assert nexus.admin.wait(run_id)["status"] == "cancelled"
    assert time.monotonic() - begun < 1
    used = cpu_seconds(nexus)
    time.sleep(1)
    assert cpu_seconds(nexus) - used < 0.5, "the loop still burns a core"


def cpu_seconds(nexus) -> float:
    fields = open(f"/proc/{nexus.process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
