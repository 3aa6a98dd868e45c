"""Notebooks: Python that lives on between calls, for one user of one session, while the operator allows it."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.client import problem
from harness.scripts import call, say, script
from harness.starter import Starter

BOUNDS = {"enabled": True, "memory": "64MB", "idle": "3s", "per_session": 2}
ON = {"tools": {"code_execution": {"notebooks": BOUNDS | {"idle": "10m"}}}}
PLACES = {"in the node's process": ON, "in a process of its own": ON | {"sandbox": {"process": "on"}}}


@pytest.fixture(scope="module", params=PLACES, ids=["here", "apart"])
def node(request, tmp_path_factory, compiled_tools):
    starter = Starter(tmp_path_factory.mktemp("notebooks"), compiled_tools)
    server = starter(PLACES[request.param])
    deadline = time.monotonic() + 300
    while server.admin.invoke("code_execution", {"language": "python", "code": "1"}).status_code == 504:
        assert time.monotonic() < deadline
    yield server
    starter.finish()


def cell(client, session: str | None, name: str, code: str, **more):
    body = {"language": "python", "code": code, "notebook": name, **more}
    return client.invoke("code_execution", body, session_id=session) if session else client.invoke("code_execution", body)


def run(client, session: str, name: str, code: str, **more) -> dict:
    reply = cell(client, session, name, code, **more)
    assert reply.status_code == 200, reply.text
    return reply.json()["output"]


def test_variables_imports_and_functions_live_on(node):
    session = node.admin.open_session()
    first = run(node.admin, session, "a", "import math\nx = [1]\ndef twice(n):\n    return 2 * n / len(x)\nresult = 'first'")
    assert first["notebook"] == {"state": "new", "calls": 1} and first["result"] == "first"
    second = run(node.admin, session, "a", "x.append(input)\nprint(math.floor(twice(3)))", input=5)
    assert second["notebook"] == {"state": "kept", "calls": 2} and second["stdout"] == "3\n"
    assert "result" not in second                       # that of the first call is not given again
    assert run(node.admin, session, "a", "result = x")["result"] == [1, 5]
    failed = run(node.admin, session, "a", "y = 1\nx.clear()\ntwice(1)")
    assert failed["exit_code"] == 1 and 'File "code-4.py", line 3' in failed["stderr"] and 'File "code.py", line 4, in twice' in failed["stderr"]
    assert "return 2 * n / len(x)" in failed["stderr"]
    assert run(node.admin, session, "a", "result = (x, y)")["result"] == [[], 1]       # an exception does not end it


def test_nobody_else_gets_in(node):
    session, other = node.admin.open_session(), node.admin.open_session()
    run(node.admin, session, "a", "secret = 42")
    for client, where, name in ((node.admin, session, "b"), (node.admin, other, "a")):
        output = run(client, where, name, "result = 'secret' in globals()")
        assert output["result"] is False and output["notebook"]["state"] == "new"
    plain = node.admin.invoke("code_execution", {"language": "python", "code": "result = 'secret' in globals()"}, session_id=session)
    assert plain.json()["output"]["result"] is False and "notebook" not in plain.json()["output"]
    assert run(node.admin, session, "a", "result = secret")["result"] == 42


def test_a_call_that_is_stopped_ends_it(node):
    session = node.admin.open_session()
    run(node.admin, session, "a", "x = 1")
    assert problem(cell(node.admin, session, "a", "while True: pass")) in ("time_limit", "fuel_limit")
    assert run(node.admin, session, "a", "result = 'x' in globals()") | {"stdout": ""} == {
        "result": False, "stdout": "", "stderr": "", "exit_code": 0, "notebook": {"state": "new", "calls": 1}}


def test_its_memory_has_a_cap_of_its_own(node):
    session = node.admin.open_session()
    grown = run(node.admin, session, "a", "try:\n    hoard = bytearray(80 << 20)\nexcept MemoryError:\n    result = 'refused'")
    assert grown["result"] == "refused"                 # 64 MB, although the tool alone may have 256 MB
    for _ in range(3):
        reply = cell(node.admin, session, "a", "kept = globals().get('kept', []) + [bytearray(15 << 20)]\nresult = len(kept)")
    assert problem(reply) == "memory_limit" or reply.json()["output"]["result"] == 3
    assert run(node.admin, session, "b", "result = 1")["result"] == 1


def test_calls_of_one_notebook_come_one_after_the_other(node):
    session = node.admin.open_session()
    run(node.admin, session, "a", "import time\nn = 0")
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: cell(node.admin, session, "a", "m = n\ntime.sleep(0.02)\nn = m + 1\nresult = n"), range(12)))
    assert sorted(reply.json()["output"]["result"] for reply in replies) == list(range(1, 13))


def test_the_one_used_longest_ago_makes_room(node):
    session = node.admin.open_session()
    for name in ("a", "b", "c"):
        run(node.admin, session, name, f"me = '{name}'")
    assert run(node.admin, session, "b", "result = me")["result"] == "b"
    assert run(node.admin, session, "a", "1")["notebook"]["state"] == "new"
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(cell, node.admin, session, name, "import time\ntime.sleep(1.5)") for name in ("a", "b")]
        time.sleep(0.5)
        assert problem(cell(node.admin, session, "c", "1")) == "limit"
        assert all(reply.result().status_code == 200 for reply in busy)


def test_a_notebook_in_a_run_of_an_agent(node):
    first = call("code_execution", language="python", code="total = 40", notebook="n")
    then = call("code_execution", language="python", code="result = total + 2", notebook="n")
    outcome = node.admin.ask(script(first, then, say("done")))
    assert outcome.status == "completed"
    assert any(output.get("result") == 42 for output in outcome.tool_outputs("code_execution")), outcome.events


def test_what_cannot_have_one_says_so(node):
    session = node.admin.open_session()
    without = cell(node.admin, None, "a", "1")
    assert without.status_code == 422 or without.status_code == 400
    assert "session" in without.json()["detail"]
    script_of_js = {"language": "javascript", "code": "1", "notebook": "a"}
    refused = node.admin.invoke("code_execution", script_of_js, session_id=session)
    assert "Python only" in refused.json()["detail"]
    assert problem(cell(node.admin, session, "a" * 65, "1")) == "schema"
    assert problem(cell(node.admin, session, "", "1")) == "schema"


def test_it_is_off_unless_the_operator_turns_it_on(nexus):
    refused = cell(nexus.admin, nexus.admin.open_session(), "a", "1")
    assert refused.status_code == 403 and problem(refused) == "permission" and "notebooks" in refused.json()["detail"]


def test_an_idle_one_ends_and_so_does_all_with_a_restart(start):
    server = start({"tools": {"code_execution": {"notebooks": BOUNDS}}})
    session = server.admin.open_session()
    run(server.admin, session, "a", "x = 1")
    time.sleep(1)
    assert run(server.admin, session, "a", "result = x")["notebook"]["calls"] == 2
    time.sleep(4.5)
    assert run(server.admin, session, "a", "1")["notebook"]["state"] == "new"
    server.restart()
    assert run(server.admin, session, "a", "1")["notebook"]["state"] == "new"


@pytest.mark.parametrize("bounds", [{"enabled": "yes"}, {"memory": "much"}, {"idle": "2d"}, {"per_session": 5}, {"size": 1}, True])
def test_a_wrong_bound_is_refused_at_the_start(start, bounds):
    server = start.prepare({"tools": {"code_execution": {"notebooks": bounds}}})
    assert server.spawn().wait(30) == 2
    assert "notebooks" in server.log_text() or "must be" in server.log_text() or "per_session" in server.log_text() or "enabled" in server.log_text()
