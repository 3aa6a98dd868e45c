"""Tools in a process of their own: they work as ever, it knows no secret, and its end costs nothing but the calls in flight."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.client import problem
from harness.starter import Starter

APART = {"sandbox": {"process": "on"}}
KILLS = int(os.environ.get("NEXUS_WALL_KILLS", "50"))
CLEAR = ("unavailable", "outcome_unknown", "overloaded_here", "timeout")   # what a caller may meet; it may try again
SECRET = "sk-second-wall-0123456789abcdef"


@pytest.fixture(scope="module")
def walled(tmp_path_factory):
    """Compiled code lies elsewhere than without the wall."""
    starter = Starter(tmp_path_factory.mktemp("walled"))
    config = APART | {
        "providers": [{"name": "p", "type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_keys": ["${env:WALL_KEY}"]},
                      {"name": "offline", "type": "offline"}],
        "limits": {"requests_per_minute": 1_000_000},        # a quick machine asks more often than a key may
    }
    server = starter(config, environment={"WALL_KEY": SECRET})
    server.secrets.add(SECRET)
    yield server
    starter.finish()


def children(server) -> list[int]:
    """The sandbox process: the node has no other."""
    pid = server.process.pid
    listed = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in listed for child in (task / "children").read_text().split()]


def sandbox_of(server, seconds: float = 20) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = children(server)
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("there is no sandbox process")


def words(server, text: str):
    return server.admin.invoke("text_processing", {"operation": "upper", "text": text})


def test_the_tools_work_as_ever(walled):
    assert "QUICK" in words(walled, "quick").text
    code = {"language": "javascript", "code": "const result = [1, 2, 3].map(x => x * x);"}
    assert walled.admin.invoke("code_execution", code).json()["output"]["result"] == [1, 4, 9]
    assert walled.admin.invoke("time", {}).status_code == 200          # asks the node's clock
    for tool in walled.admin.get("/api/v1/tools").json()["items"]:
        reply = walled.admin.invoke(tool["name"], {})
        assert reply.status_code < 500, f"{tool['name']}: {reply.text}"


def python(server, code: str, **more) -> dict:
    reply = server.admin.invoke("code_execution", {"language": "python", "code": code, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()["output"]


def test_python_works_as_ever(walled):
    deadline = time.monotonic() + 300           # compiled here for the first time, JavaScript does not wait for it
    while walled.admin.invoke("code_execution", {"language": "python", "code": "1"}).status_code == 504:
        assert time.monotonic() < deadline
    assert python(walled, "import json, re, time\ntime.sleep(0.05)\nresult = json.dumps(sorted(re.findall('[a-z]', 'b1a2')))",
                  )["result"] == '["a", "b"]'
    assert python(walled, "import secrets\nresult = secrets.token_hex(8)") != python(walled, "import secrets\nresult = secrets.token_hex(8)")
    assert python(walled, "open('out.txt', 'w').write(open('in.txt').read().upper())", files={"in.txt": "abc"})["files"] == {"out.txt": "ABC"}
    full = walled.admin.invoke("code_execution", {"language": "python", "code": "h = []\nwhile True: h.append(bytearray(1 << 20))"})
    assert problem(full) == "memory_limit"
    endless = walled.admin.invoke("code_execution", {"language": "python", "code": "while True: pass"})
    assert problem(endless) in ("time_limit", "fuel_limit")


def test_a_program_calls_other_tools_which_the_node_runs(walled):
    call = "nexus.call('text_processing', {'operation': 'upper', 'text': 'ab'})"
    assert python(walled, f"import nexus\nresult = {call}")["result"] == {"text": "AB"}
    script = {"language": "javascript", "code": f"const result = {call}"}
    assert walled.admin.invoke("code_execution", script).json()["output"]["result"] == {"text": "AB"}
    refused = python(walled, "import nexus\ntry:\n    nexus.call('no_such_tool')\nexcept nexus.ToolError as e:\n    result = e.code")
    assert refused["result"] == "not_found"


def test_a_profile_names_the_functions_of_long_calls(walled):
    python(walled, "t = 0\nfor i in range(1_000_000): t += i * i\nresult = t")
    reply = walled.admin.get("/api/v1/tools/code_execution/profile")
    assert reply.status_code == 200 and "_PyEval_EvalFrameDefault" in reply.text, reply.text


def test_a_session_file_reaches_a_tool_and_only_by_its_name(walled):
    session = walled.admin.open_session()
    walled.admin.upload(session, "plans.csv", b"a,b\n1,2\n3,4\n")
    wanted = {"file": "plans.csv", "steps": [{"describe": True}]}
    reply = walled.admin.invoke("data_analysis", wanted, session_id=session)
    assert reply.status_code == 200, reply.text
    assert '"rows":2' in reply.text.replace(" ", "") or "2" in reply.text
    other = walled.admin.invoke("data_analysis", wanted | {"file": "/etc/passwd"}, session_id=session)
    assert other.status_code in (403, 404, 422), other.text


def test_the_log_says_which_walls_stand(walled):
    line = walled.wait_for_log("tools run in a process of their own")
    assert "seccomp" in line and "no-new-privileges" in line and "no file opens" in line


def test_the_process_has_no_environment_no_file_and_no_secret(walled):
    assert words(walled, "warm").status_code == 200
    pid = sandbox_of(walled)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    try:
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    except PermissionError:
        pass        # closed to its own user too
    try:
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except PermissionError:
        targets = []
    for target in targets:
        known = target.startswith(("socket:", "pipe:", "anon_inode:", "/memfd:")) or target == "/dev/null"
        known = known or target == f"/proc/{pid}/pagemap"      # which of its own pages were written
        assert known or target.endswith((".wasm", ".cwasm")), target
        assert "nexus.db" not in target and "admin.key" not in target
    for secret in (SECRET, walled.admin_key):
        assert not memory_holds(pid, secret.encode()), "a secret can be read in the sandbox process"


def memory_holds(pid: int, secret: bytes) -> bool:
    """Looks through the writable memory; without the right to, there is nothing to see."""
    try:
        memory = open(f"/proc/{pid}/mem", "rb", buffering=0)
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except PermissionError:
        return False
    with memory:
        for line in maps:
            span, rights = line.split()[:2]
            begin, end = (int(x, 16) for x in span.split("-"))
            if "rw" not in rights or end - begin > 256 << 20:
                continue
            try:
                memory.seek(begin)
                if secret in memory.read(end - begin):
                    return True
            except OSError:
                continue
    return False


def test_killing_it_costs_the_calls_in_flight_and_nothing_else(walled):
    """Under load it is killed again and again: every answer is right or one clear error, and then all is as before."""
    words(walled, "warm")
    is_over = threading.Event()
    replies, wrong = {"fine": 0, "unavailable": 0}, []

    def load(number: int) -> None:
        client = walled.admin
        for turn in range(1_000_000):
            if is_over.is_set():
                return
            reply = client.invoke("text_processing", {"operation": "upper", "text": f"load {number} {turn}"})
            if reply.status_code == 200 and f"LOAD {number} {turn}" in reply.text:
                replies["fine"] += 1
            elif reply.status_code in (503, 504) and problem(reply) in CLEAR:
                replies["unavailable"] += 1
            else:
                wrong.append((reply.status_code, reply.text[:300]))
                return

    before = len(os.listdir(f"/proc/{walled.process.pid}/fd"))
    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(load, i) for i in range(4)]
        for _ in range(KILLS):
            os.kill(sandbox_of(walled), signal.SIGKILL)
            time.sleep(0.25)
        is_over.set()
        for worker in workers:
            worker.result(timeout=60)
    print(f"note: {KILLS} kills: {replies['fine']} answers, {replies['unavailable']} clear errors")
    assert not wrong, wrong[:3]
    assert replies["fine"] > KILLS
    assert "AFTER" in words(walled, "after").text
    assert walled.is_running
    after = len(os.listdir(f"/proc/{walled.process.pid}/fd"))
    assert after <= before + 8, f"descriptors: {before} before, {after} after"


def test_a_hung_process_is_noticed_and_replaced(walled):
    pid = sandbox_of(walled)
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and pid in children(walled):
        time.sleep(0.1)
    assert pid not in children(walled)
    sandbox_of(walled)
    assert words(walled, "again").status_code == 200


def test_it_ends_with_the_node(start_cold):
    server = start_cold(APART)
    pid = sandbox_of(server)
    server.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}/stat").exists():
        if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists(), "it outlived its node"


def test_the_roles_that_can_be_split_are_split_and_others_are_refused(start_cold):
    server = start_cold()
    assert not children(server)          # one tenant, nothing asked for
    server.terminate()
    server.start("--roles", "gateway,orchestrator,llm")
    assert sandbox_of(server)
    assert "SPLIT" in words(server, "split").text
    for roles, said in [("wizard", "gateway, orchestrator, agent, llm"), ("gateway,agent", "still one process"),
                        ("agent", "sandbox.process")]:
        refused = server.command("serve", "--roles", roles)
        assert refused.returncode == 2, refused
        assert said in refused.stderr


def test_doctor_says_which_walls_stand(start_cold):
    server = start_cold()
    reply = server.command("doctor", "--config", str(server.config_file))
    line = next(line for line in reply.stdout.splitlines() if "second wall" in line)
    assert line.startswith("ok") and "seccomp" in line
