"""Nothing gets out of the sandbox: tools that misuse every import, pass every limit or are no modules at all, with and without the wall."""

import hashlib
import itertools
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import wasm
from harness.client import problem
from harness.provider import Text, ToolCalls
from harness.scripts import call, say, script
from harness.server import ROOT
from harness.starter import Starter
from harness.upstream import CountingUpstream
from test_27_registry import archive, install

SECRET = "sk-escape-0123456789abcdef"
LIMITS = {"fuel": 3_000_000_000, "memory": "16MB", "time": "2s", "output": "64KB"}
MAX32, MAX64 = 2**32 - 1, 2**64 - 1
numbers = itertools.count(1)


def manifest(tool: str, version: str = "1.0.0", **changes) -> bytes:
    """JSON is YAML."""
    limits = LIMITS | changes.pop("limits", {})
    return json.dumps({
        "name": tool, "version": version, "category": "text_processing", "author": "a stranger", "description": "Tries to get out.",
        "abi": "nexus-export", "module": "m.wasm", "pure": True, "idempotent": True, "timeout": limits["time"], "limits": limits,
        "host_calls": ["clock", "log", "file_size", "file_read", "file_write"], "permissions": {},
        "input": {"type": "object"}, "output": {"type": "object"}, **changes,
    }).encode()


class World:
    """A node, the tools that were put into it, and what is known to be secret there."""

    def __init__(self, nexus, guest: bytes, command: bytes):
        self.nexus, self.guest, self.command = nexus, guest, command
        self.client = nexus.client(nexus.admin_key, seconds=120)
        self.hidden = [SECRET, nexus.admin_key, str(nexus.folder), str(ROOT), ".cwasm", "data/tools"]

    def install(self, module: bytes, tool: str | None = None, **changes):
        tool = tool or f"escape_{next(numbers)}"
        return tool, install(self.client, archive({"manifest.yaml": manifest(tool, **changes), "m.wasm": module}))

    def installed(self, module: bytes, **changes) -> str:
        tool, reply = self.install(module, **changes)
        assert reply.status_code == 201, reply.text
        return tool

    def call(self, tool: str, do: str = "", *a: int, t: str | None = None):
        body = {"do": do, "a": list(a)} | ({} if t is None else {"t": t})
        return self.clean(self.client.invoke(tool, body))

    def clean(self, reply):
        for hidden in self.hidden:
            assert hidden not in reply.text, f"{hidden!r} got out: {reply.text[:400]}"
        assert self.nexus.is_running
        return reply

    def ok(self, reply):
        assert reply.status_code == 200, reply.text
        return self.clean(reply).json()["output"]

    def ended(self, reply, *reasons: str, says: str = "") -> str:
        assert problem(self.clean(reply)) in reasons, reply.text
        assert says in reply.json()["detail"], reply.text
        return reply.json()["detail"]

    def refused(self, reply):
        """An installation that came to nothing: one clear error, no trace."""
        assert 400 <= reply.status_code < 500, f"{reply.status_code} {reply.text[:400]}"
        problem(self.clean(reply))
        return reply.json()["detail"]


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    return int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1]) << 10


@pytest.fixture(scope="module", params=["in the node", "behind the wall"])
def world(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("escape")
    guest, command = wasm.compiled(folder), wasm.compiled(folder, "-DCOMMAND")
    if guest is None:
        pytest.skip("no compiler for wasm32")
    starter = Starter(folder)
    nexus = starter({
        "sandbox": {"process": "off" if request.param == "in the node" else "on"},
        "providers": [{"name": "p", "type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_keys": ["${env:ESCAPE_KEY}"]},
                      {"name": "offline", "type": "offline"}],
    }, environment={"ESCAPE_KEY": SECRET})
    nexus.secrets.add(SECRET)
    world = World(nexus, guest, command)
    world.is_walled = request.param == "behind the wall"
    world.tool = world.installed(guest)
    world.stream = world.installed(command, abi="wasi-command")
    world.ok(world.call(world.tool, "nothing"))
    world.ok(world.call(world.stream, "nothing"))
    yield world
    # Whatever was tried: the same processes, with what they had.
    assert world.ok(world.call(world.tool, "nothing")) == {"n": 0}
    if world.is_walled:
        log = nexus.log_text()
        assert "broke a rule" not in log and "ended" not in "".join(x for x in log.splitlines() if "sandbox process" in x), nexus.log_tail()
    starter.finish()


# ---- WASI preview 1 ----

FUNCTIONS = """args_get args_sizes_get clock_res_get clock_time_get environ_get environ_sizes_get fd_advise fd_allocate fd_close fd_datasync
fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights fd_filestat_get fd_filestat_set_size fd_filestat_set_times fd_pread
fd_prestat_dir_name fd_prestat_get fd_pwrite fd_read fd_readdir fd_renumber fd_seek fd_sync fd_tell fd_write path_create_directory
path_filestat_get path_filestat_set_times path_link path_open path_readlink path_remove_directory path_rename path_symlink
path_unlink_file poll_oneoff proc_raise random_get sched_yield sock_accept sock_recv sock_send sock_shutdown""".split()
TAKEN_AMISS = [[0] * 9, [MAX64] * 9, [2**31] * 9, [1, MAX32, MAX32, MAX32, MAX32, MAX64, MAX64, MAX32, MAX32], [0, 65535, 2, 0], [1, 0, 1025, 0],
               [1, 0, 1024, MAX32 - 3], [2, MAX32 - 7, 1, 0], [0, MAX32, 0, 0], [3, 0, 1, 8], [MAX32, 8, MAX32, 8, 8, 8, 8, 8, 8],
               [0, 0, 32, MAX32 - 3], [0, MAX32 - 47, 1, 0]]


@pytest.mark.parametrize("number, function", list(enumerate(FUNCTIONS)), ids=FUNCTIONS)
def test_no_function_of_wasi_can_be_misused(world, number, function):
    for tool in (world.tool, world.stream):
        for arguments in TAKEN_AMISS:
            reply = world.call(tool, "wasi", number, *arguments)
            if reply.status_code != 200:
                detail = world.ended(reply, "trap", "time_limit", "output_limit", "invalid_json", "tool_failed")
                assert "panick" not in detail
            elif function.startswith(("path_", "sock_")):
                assert reply.json()["output"]["n"] in (52, 76), reply.text


@pytest.mark.parametrize("count", [0, 33, 2**16, 2**31, MAX32])
def test_waiting_for_too_many_things_is_an_error_of_the_call(world, count):
    assert world.ok(world.call(world.tool, "poll", 0, 1, 0, 0, count)) == {"n": 28}


@pytest.mark.parametrize("deadline", [10**12, 2**62, 2**63, MAX64])
@pytest.mark.parametrize("clock, is_absolute", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 1), (77, 1)])
def test_a_sleep_without_end_ends_at_the_time_limit(world, clock, is_absolute, deadline):
    begun = time.monotonic()
    tool = world.__dict__.setdefault("short", None) or world.installed(world.guest, limits={"time": "100ms"})
    world.short = tool
    reply = world.call(tool, "poll", 0, clock, deadline, is_absolute, 32)
    if reply.status_code == 200:
        assert is_absolute and deadline == 10**12      # 1000 s after 1970 are over, and may be over since the machine started
    else:
        world.ended(reply, "time_limit")
    assert time.monotonic() - begun < 10


def test_clocks_do_not_tell_finer_than_they_say(world):
    for clock in (0, 1):
        assert world.ok(world.call(world.tool, "clock", clock))["n"] >= 1000


# ---- memory, fuel, time, stack ----

@pytest.mark.parametrize("pages", [1, 7, 100, 256, 32768, 65535, 65536, MAX32])
def test_memory_grows_to_its_limit_and_no_further(world, pages):
    world.ended(world.call(world.tool, "memory", pages), "memory_limit", "trap")


@pytest.mark.parametrize("tool", ["tool", "stream"])
@pytest.mark.parametrize("do", ["down", "mutual", "wide"])
def test_a_recursion_without_end_is_one_clear_error(world, tool, do):
    world.ended(world.call(getattr(world, tool), do), "stack_limit", "trap")


def test_fuel_and_time_end_a_loop_each_for_its_own_reason(world):
    world.ended(world.call(world.installed(world.guest, limits={"fuel": 1_000_000}), "spin"), "fuel_limit")
    begun = time.monotonic()
    world.ended(world.call(world.installed(world.guest, limits={"fuel": 2**50, "time": "300ms"}), "spin"), "time_limit")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("do, arguments, reasons", [
    ("divide", (0,), ("trap",)), ("nowhere", (0,), ("trap",)), ("nowhere", (10**6,), ("trap",)), ("trap", (), ("trap",)),
    ("load", (MAX32,), ("trap",)), ("load", (2**31,), ("trap",)), ("exit", (0,), ("tool_failed",)), ("exit", (MAX32,), ("tool_failed",)),
    ("give", (MAX32, 1), ("trap",)), ("give", (0, 65537), ("output_limit",)), ("give", (0, MAX32), ("output_limit",)),
    ("give", (MAX32, 0), ("trap", "tool_failed")), ("give", (2**31, 60000), ("trap",)),
])
def test_a_fault_is_one_clear_error(world, do, arguments, reasons):
    world.ended(world.call(world.tool, do, *arguments), *reasons)


LOOPS = {
    "in _start": wasm.command(start=wasm.LOOP),
    "in the start function": wasm.command(functions=[(1, wasm.LOOP)], at_start=2),
    "in the start function, by calls": wasm.command(functions=[(1, b"\x10\x02")], at_start=2),
    "by a tail call": wasm.command(functions=[(1, b"\x12\x02")], at_start=2),
    "that grows": wasm.command(start=b"\x03\x40" + wasm.const(1) + b"\x40\0\x1a\x0c\0\x0b"),
    "that fills": wasm.command(start=b"\x03\x40" + wasm.const(0) * 2 + wasm.const(65536) + b"\xfc\x0b\0\x0c\0\x0b"),
    "that grows a table": wasm.command(tables=[b"\x70\0\0"], start=b"\x03\x40\xd0\x70" + wasm.const(100) + b"\xfc\x0f\0\x1a\x0c\0\x0b"),
    "that grows a table at once": wasm.command(tables=[b"\x70\0\0"], start=b"\xd0\x70" + wasm.const(-1) + b"\xfc\x0f\0\x1a"),
    "that traps at the start": wasm.command(functions=[(1, b"\0")], at_start=2),
    "that writes at the start": wasm.command(start=b"", functions=[(1, wasm.SAY * 3)], at_start=2),
    "that writes and exits": wasm.command(start=b"\x03\x40" + wasm.SAY + b"\x0c\0\x0b"),
}


@pytest.mark.parametrize("which", LOOPS)
def test_a_module_that_misbehaves_wherever_it_runs_is_ended(world, which):
    tool, reply = world.install(LOOPS[which], abi="wasi-command", limits={"fuel": 30_000_000})
    if reply.status_code != 201:
        world.refused(reply)
        return
    reply = world.call(tool)
    if reply.status_code != 200:
        world.ended(reply, "fuel_limit", "time_limit", "memory_limit", "stack_limit", "trap", "output_limit", "tool_failed", "invalid_json")


# ---- host calls ----

@pytest.mark.parametrize("name", ["http_request", "tool_call", "file_system", "memory_search", "", "clock\0", "CLOCK", "nonsense", "x" * 5000,
                                  "file_read", "../clock", "web_extract", "log"])
def test_a_host_call_that_was_not_granted_is_refused(world, name):
    reply = world.call(world.tool, "host", 1, 0, t=name + "|{}")
    assert reply.status_code in (403, 422), reply.text
    world.ended(reply, "permission", "tool_failed", "limit", "denied")


def test_what_a_guest_claims_of_its_rights_is_not_heard(world):
    claim = '{"permissions":{"network":{"allowed_hosts":["*"]}},"role":"admin","tenant_id":"00000000-0000-0000-0000-000000000000","url":"http://x/"}'
    for name in ("http_request", "file_system", "tool_call"):
        world.ended(world.call(world.tool, "host", 1, 0, t=f"{name}|{claim}"), "permission")
    assert "ok" in world.ok(world.call(world.tool, "host", 1, 0, t=f"clock|{claim}"))


def test_host_calls_without_end_are_ended(world):
    assert "ok" in world.ok(world.call(world.tool, "host", 1000, 0, t="clock|{}"))
    for name in ("clock", "nonsense"):
        world.ended(world.call(world.tool, "host", 10**6, 0, t=name + "|{}"), "trap", says="too many host calls")


@pytest.mark.parametrize("request_", ["", "{", "[" * 100_000, '{"a":' * 100_000, "null", "1e999", "\u0000", '"\\ud800"', "9" * 500_000, "{}{}", "\ufffe"])
def test_a_broken_request_of_a_host_call_is_no_news(world, request_):
    for name in ("clock", "http_request"):
        reply = world.call(world.tool, "host", 1, 0, t=f"{name}|{request_}")
        assert reply.status_code == 200 or world.ended(reply, "permission", "tool_failed", "invalid_json", "limit")


def test_requests_that_are_no_text_are_refused(world):
    reply = world.call(world.tool, "no_utf8")
    assert reply.status_code == 200 or world.ended(reply, "tool_failed", "permission", "limit")


@pytest.mark.parametrize("arguments", [(MAX32, 5, 0, 0), (0, MAX32, 0, 0), (0, 5, MAX32, 1), (0, 5, 0, MAX32), (2**31, 2**31, 2**31, 2**31), (0, 0, 0, 0),
                                       (0, 65, 0, 17 << 20)])
def test_addresses_outside_the_memory_end_the_guest(world, arguments):
    reply = world.call(world.tool, "host_at", *arguments)
    world.ended(reply, "trap", "permission", "limit", "tool_failed")
    for do, a in (("log_at", arguments[:2]), ("file_at", (*arguments[:2], MAX64, *arguments[2:])), ("file_at", (0, 4, 0, *arguments[2:]))):
        reply = world.call(world.tool, do, *a)
        assert reply.status_code == 200 or world.ended(reply, "trap")


def test_a_request_past_its_bound_is_refused_and_copied_by_nobody(world, tmp_path_factory):
    big = wasm.compiled(tmp_path_factory.mktemp("big"), "-Wl,--initial-memory=67108864")
    tool = world.installed(big, limits={"memory": "128MB"})
    for size in ((16 << 20) + 1, 60 << 20):
        world.ended(world.call(tool, "host_at", 0, 5, 0, size), "limit", "tool_failed", "permission")


@pytest.mark.parametrize("mode, reasons", [(1, ("trap",)), (2, ("trap",)), (3, ("time_limit", "fuel_limit")), (4, ("trap",)), (5, ("tool_failed",)),
                                           (6, ("stack_limit", "trap")), (7, ("trap",)), (8, ("memory_limit",))])
def test_what_a_guest_does_while_it_is_given_an_answer_costs_only_itself(world, mode, reasons):
    """3 loops in nexus_alloc, 4 makes another host call in there, and so on for ever."""
    tool = world.installed(world.guest, limits={"time": "500ms"})
    with ThreadPoolExecutor(8) as pool:
        bad = [pool.submit(world.call, tool, "host", 1, mode, t="clock|{}") for _ in range(16)]
        good = [pool.submit(world.call, world.tool, "host", 3, 0, t="clock|{}") for _ in range(16)]
        for future in good:
            assert "ok" in world.ok(future.result())
        for future in bad:
            world.ended(future.result(), *reasons)


@pytest.mark.parametrize("name", ["/etc/passwd", "../admin.key", "", ".", "admin.key", "/proc/self/environ", "x" * 3000, "a\0b"])
def test_files_are_names_of_the_session_and_nothing_else(world, name):
    assert world.ok(world.call(world.tool, "files", 0, t=name)) == {"n": 7}
    ungranted = world.__dict__.setdefault("bare", None) or world.installed(world.guest, host_calls=["clock"])
    world.bare = ungranted
    session = world.client.open_session()
    world.client.upload(session, "mine.txt", b"mine")
    for tool, wanted in ((ungranted, 7), (world.tool, 1)):
        reply = world.client.invoke(tool, {"do": "files", "a": [0], "t": "mine.txt"}, session_id=session)
        assert world.ok(reply)["n"] in (wanted, 7)


# ---- tools that call tools ----

def test_tools_that_call_each_other_end_after_one_step_and_a_bounded_number(world):
    tool = world.installed(world.guest, host_calls=["tool_call", "clock"], limits={"time": "20s"})
    inner = json.dumps({"name": tool, "input": {"do": "host", "a": [1, 0], "t": "tool_call|{}"}})
    direct = world.call(tool, "host", 1, 0, t="tool_call|" + inner)
    assert direct.status_code == 200 or world.ended(direct, "permission", "tool_failed", "denied", "policy_denied", "invalid")
    for count, request_ in ((1, inner), (300, json.dumps({"name": world.tool, "input": {"do": "nothing"}})), (50, "{}"), (3, '{"name":"nobody","input":{}}')):
        outcome = world.client.ask(script(call(tool, do="host", a=[count, 0], t="tool_call|" + request_), say("Done.")), seconds=90)
        assert outcome.status == "completed", outcome.run
        assert len(outcome.of("tool.intended")) <= 130
        for hidden in world.hidden[:4]:
            assert hidden not in json.dumps(outcome.events)


# ---- outputs ----

def test_floods_end_at_the_output_limit_and_logs_are_cut(world):
    world.ended(world.call(world.stream, "flood", 1, 0, 1_000_000), "output_limit")
    for channel in (2, 3):
        assert world.call(world.tool, "flood", channel, 0, 2000).status_code == 200
    assert world.call(world.tool, "flood", 3, 255, 10).status_code == 200       # no UTF-8
    assert world.call(world.tool, "flood", 1, 27, 10).status_code == 200        # control characters
    world.ended(world.call(world.tool, "repeat", 70_000, 0, t="xx"), "output_limit")


@pytest.mark.parametrize("output", ["", " ", "{", "nul", "{}{}", "[1,]", "{'a':1}", "NaN", "1e400", '{"a":1,}', "\ufeff{}", '{"a":"\x01"}', "[]", "1", '"x"',
                                    "null", '{"a":"\\ud800"}', '{"error":1}', '{"error":{"code":1}}', '{"error":{"code":"x","message":"y"}}'])
def test_an_output_that_is_no_object_is_an_error_of_the_tool(world, output):
    reply = world.call(world.tool, "echo", t=output)
    if reply.status_code == 200:
        assert isinstance(reply.json()["output"], dict), reply.text
    else:
        world.ended(reply, "tool_failed", "invalid_json")


def test_outputs_that_are_no_text_or_too_deep_are_refused(world):
    world.ended(world.call(world.tool, "bytes", *[255] * 15), "tool_failed", "invalid_json")
    for text in ("[]", '{"a":}', "[[[]"):
        world.ended(world.call(world.tool, "repeat", 10_000, 1, t=text), "tool_failed", "invalid_json", "output_limit")


def test_an_output_against_its_schema_is_refused_and_named(world):
    tool = world.installed(world.guest, output={"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "maximum": 5}},
                                                "additionalProperties": False})
    for output in ('{"n":6}', '{"n":"1"}', "{}", '{"n":1,"m":2}'):
        world.ended(world.call(tool, "echo", t=output), "tool_failed")
    assert world.ok(world.call(tool, "echo", t='{"n":5}')) == {"n": 5}


# ---- modules that are none ----

SMALL = wasm.command()


def expect_refusal_or_service(world, module: bytes, **changes):
    """Whatever these bytes are: refused when installed, or a tool that works or ends."""
    tool, reply = world.install(module, abi=changes.pop("abi", "wasi-command"), limits={"fuel": 10_000_000, "time": "500ms"}, **changes)
    if reply.status_code != 201:
        return world.refused(reply)
    reply = world.call(tool)
    if reply.status_code != 200:
        assert 400 <= reply.status_code < 500, reply.text
        problem(reply)
    assert world.client.delete(f"/api/v1/tools/{tool}?version=1.0.0").status_code in (200, 204)
    return ""


def test_a_module_cut_at_any_byte_is_refused(world):
    assert world.ok(world.call(world.installed(SMALL, abi="wasi-command"))) == {"n": 1}
    for length in range(len(SMALL)):
        expect_refusal_or_service(world, SMALL[:length])


def test_a_module_with_any_bit_wrong_is_refused_or_contained(world):
    random_ = random.Random(34)
    for _ in range(int(os.environ.get("NEXUS_ESCAPE_FLIPS", "150"))):
        wrong = bytearray(SMALL)
        for _ in range(random_.choice((1, 1, 1, 2, 5))):
            wrong[random_.randrange(8, len(wrong))] ^= 1 << random_.randrange(8)
        expect_refusal_or_service(world, bytes(wrong))


NOP, NOTHING = b"\x01", b"\0"
WRONG = {
    "empty": b"", "no magic": b"\0asn\1\0\0\0" + SMALL[8:], "version 2": b"\0asm\2\0\0\0" + SMALL[8:], "a component's head": wasm.COMPONENT_HEAD + SMALL[8:],
    "text": b"(module)", "elf": b"\x7fELF" + b"\0" * 100, "an empty module": wasm.HEAD, "an empty component": wasm.COMPONENT_HEAD,
    "two memories": wasm.command(more_memories=[b"\0\1"]),
    "a shared memory": wasm.command(memory=b"\3\1\2"),
    "a 64-bit memory": wasm.command(memory=b"\4\1"),
    "a page size of one": wasm.command(memory=b"\x08\1\0"),
    "a garbage-collected type": wasm.command(types=[b"\x5f\1\x7f\1"]),
    "a recursive type": wasm.command(types=[b"\x4e\1\x50\0\x5f\1\x7f\1"]),
    "a tag": wasm.command(tags=wasm.vec([b"\0\1"])),
    "an atomic": wasm.command(start=wasm.const(0) + wasm.const(1) + b"\xfe\x1e\2\0\x1a"),
    "a memory of 65537 pages": wasm.command(memory=b"\0" + wasm.leb(65537)),
    "a memory of 4 GiB": wasm.command(memory=b"\0" + wasm.leb(65536)),
    "a memory over the limit": wasm.command(memory=b"\0" + wasm.leb(300)),
    "a table of 4 G": wasm.command(tables=[b"\x70\0" + wasm.leb(MAX32)]),
    "a table over the limit": wasm.command(tables=[b"\x70\0" + wasm.leb(100_001)]),
    "two tables": wasm.command(tables=[b"\x70\0\1", b"\x70\0\1"]),
    "a hundred tables": wasm.command(tables=[b"\x70\0\1"] * 100),
    "data outside": wasm.command(data=[b"\0" + wasm.const(-1) + b"\x0b" + wasm.name(b"x" * 100)]),
    "data of 20 MB": wasm.command(memory=b"\0" + wasm.leb(100), data=[b"\0" + wasm.const(0) + b"\x0b" + wasm.name(b"x" * 20_000_000)]),
    "a hundred thousand data segments": wasm.command(data=[b"\0" + wasm.const(0) + b"\x0b\0"] * 100_001),
    "elements outside": wasm.command(tables=[b"\x70\0\1"], elements=[b"\0" + wasm.const(5) + b"\x0b\1\1"]),
    "twenty thousand elements": wasm.command(tables=[b"\x70\0\1"], elements=[b"\0" + wasm.const(0) + b"\x0b" + wasm.vec([b"\1"] * 20_000)]),
    "a million types": wasm.command(types=[wasm.func_type()] * 1_000_001),
    "a thousand parameters": wasm.command(types=[wasm.func_type([wasm.I32] * 1001)]),
    "a million functions": wasm.command(functions=[(1, b"")] * 1_000_001),
    "fifty thousand locals": wasm.command(locals_=b"\1" + wasm.leb(50_001) + b"\x7f"),
    "four billion locals": wasm.command(locals_=b"\2" + (wasm.leb(MAX32) + b"\x7f") * 2),
    "a frame over the stack": wasm.command(locals_=b"\1" + wasm.leb(49_000) + b"\x7b", start=b"\x10\1"),
    "a million globals": wasm.command(globals_=[b"\x7f\0" + wasm.const(0) + b"\x0b"] * 1_000_001),
    "two hundred thousand exports": wasm.command(exports=[wasm.name(f"e{i}") + b"\0\1" for i in range(200_000)]),
    "an export twice": wasm.command(exports=[wasm.name("memory") + b"\0\1"]),
    "a name of 200,000 letters": wasm.command(exports=[wasm.name("x" * 200_000) + b"\0\1"]),
    "a name that is no text": wasm.command(exports=[wasm.name(b"\xff\xfe") + b"\0\1"]),
    "blocks 100,000 deep": wasm.command(start=b"\x02\x40" * 100_000 + b"\x0b" * 100_000),
    "ifs 2,000 deep": wasm.command(start=(wasm.const(0) + b"\x04\x40") * 2000 + b"\x0b" * 2000),      # the compiler takes square time
    "loops 1,000 deep": wasm.command(start=b"\x03\x40" * 1000 + b"\x0b" * 1000),
    "blocks that never end": wasm.command(start=b"\x02\x40" * 1000),
    "a branch to a million places": wasm.command(start=wasm.const(0) + b"\x0e" + wasm.vec([NOTHING] * 1_000_000) + NOTHING),
    "operands 100,000 deep": wasm.command(start=wasm.const(1) * 100_000 + b"\x1a" * 100_000),
    "a function of 8 MB": wasm.command(start=NOP * 8_000_000),
    "an index past all functions": wasm.command(start=b"\x10" + wasm.leb(MAX32)),
    "a start function with parameters": wasm.command(at_start=0),
    "_start with parameters": wasm.command().replace(wasm.func_type(), wasm.func_type([wasm.I32])),
    "a length past the end": SMALL[:8] + b"\1" + wasm.leb(MAX32),
    "a leb without end": SMALL[:8] + b"\1" + b"\x80" * 20,
    "an unknown section": SMALL + b"\x63\1\0",
    "sections twice": SMALL + SMALL[8:],
    "a custom section of 10 MB": SMALL + wasm.section(0, wasm.name("name") + b"\xff" * 10_000_000),
    "names that are no text": SMALL + wasm.section(0, wasm.name("name") + b"\1\5\1\1\3\xff\xfe\xfd"),
}


@pytest.mark.parametrize("which", WRONG)
def test_a_module_that_asks_too_much_is_refused_or_contained(world, which):
    begun = time.monotonic()
    expect_refusal_or_service(world, WRONG[which])
    assert time.monotonic() - begun < 60
    assert world.ok(world.call(world.tool, "nothing")) == {"n": 0}


FEATURES = ("two memories", "a shared memory", "a 64-bit memory", "a page size of one", "a garbage-collected type", "a recursive type", "a tag", "an atomic",
            "empty", "no magic", "version 2", "an empty module", "a memory of 65537 pages", "an export twice", "blocks that never end", "sections twice")


@pytest.mark.parametrize("which", FEATURES)
def test_what_is_off_cannot_be_installed(world, which):
    assert expect_refusal_or_service(world, WRONG[which])


def test_a_module_of_another_kind_than_its_manifest_says_is_refused(world):
    component = wasm.component_import("nexus:tool/host", "call", [], b"\x10\0")
    for module, abi in ((SMALL, "component"), (SMALL, "nexus-export"), (world.guest, "wasi-command"), (world.guest, "component"),
                        (component, "wasi-command"), (component, "nexus-export")):
        tool, reply = world.install(module, abi=abi)
        if reply.status_code == 201:        # behind the wall, when its code is there from another tool: then at its first call
            assert world.is_walled
            reply = world.call(tool)
        world.refused(reply)


@pytest.mark.parametrize("signature", [((), (wasm.I32,)), ((wasm.I64,), (wasm.I32,)), ((wasm.I32, wasm.I32), (wasm.I64,)), ((wasm.I32,), ()),
                                       ((wasm.I32,) * 9, (wasm.I32,) * 9)])
def test_entry_points_of_other_types_are_refused_or_an_error(world, signature):
    code = b"".join(b"\x41\0" if r == wasm.I32 else b"\x42\0" for r in signature[1])
    module = wasm.command(types=[wasm.func_type(*signature)], functions=[(2, code)],
                          exports=[wasm.name("nexus_alloc") + b"\0\2", wasm.name("nexus_run") + b"\0\2", wasm.name("_initialize") + b"\0\2"])
    expect_refusal_or_service(world, module, abi="nexus-export")


# ---- components ----

BIG = b"\x42" + wasm.sleb(1 << 40)
MISTYPED = {
    "host.call of two numbers": ("nexus:tool/host", "call", [wasm.U64, wasm.U64], BIG * 2 + b"\x10\0", {"core": (wasm.I64,) * 2}),
    "host.call of nothing": ("nexus:tool/host", "call", [], b"\x10\0", {}),
    "host.call of a number": ("nexus:tool/host", "call", [wasm.U64], BIG + b"\x10\0", {"core": (wasm.I64,)}),
    "host.call of numbers, with a result": ("nexus:tool/host", "call", [wasm.U64, wasm.U64], BIG * 2 + b"\x10\0\x1a",
                                            {"core": (wasm.I64,) * 2, "result": wasm.U32, "core_result": (wasm.I32,)}),
    "write to a number": ("wasi:io/streams@0.2.0", "write", [wasm.U64, wasm.U64], BIG * 2 + b"\x10\0", {"core": (wasm.I64,) * 2}),
    "poll of a number": ("wasi:io/poll@0.2.0", "poll", [wasm.U64], BIG + b"\x10\0", {"core": (wasm.I64,)}),
    "poll of nothing": ("wasi:io/poll@0.2.0", "poll", [], b"\x10\0", {}),
    "random bytes of nothing": ("wasi:random/random@0.2.0", "get-random-bytes", [], b"\x10\0", {}),
    "random bytes to nobody": ("wasi:random/random@0.2.0", "get-random-bytes", [wasm.U64], b"\x42\x80\x80\x04\x10\0", {"core": (wasm.I64,)}),
    "exit of nothing": ("wasi:cli/exit@0.2.0", "exit", [], b"\x10\0", {}),
    "exit of a number": ("wasi:cli/exit@0.2.0", "exit", [wasm.U64], BIG + b"\x10\0", {"core": (wasm.I64,)}),
    "a timer of a number, to nobody": ("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", [wasm.U32], wasm.const(1) + b"\x10\0",
                                       {"core": (wasm.I32,)}),
    "now as text": ("wasi:clocks/monotonic-clock@0.2.0", "now", [], b"\x10\0\x1a", {"result": wasm.U32, "core_result": (wasm.I32,)}),
    "a name of a number": ("wasi:sockets/ip-name-lookup@0.2.0", "resolve-addresses", [wasm.U64, wasm.U64], BIG * 2 + b"\x10\0", {"core": (wasm.I64,) * 2}),
    "sockets of nothing": ("wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket", [], b"\x10\0", {}),
}


@pytest.mark.parametrize("which", MISTYPED)
def test_a_component_that_declares_the_hosts_functions_with_other_types_is_ended(world, which):
    """The types of an import are the component's own words."""
    interface, function, parameters, code, more = MISTYPED[which]
    tool = world.installed(wasm.component_import(interface, function, parameters, code, **more), abi="component")
    for _ in range(3):
        world.ended(world.call(tool), "trap")


@pytest.mark.parametrize("interface, function", [
    ("nexus:tool/host", "launch"), ("wasi:filesystem/types@0.2.0", "open-at"), ("wasi:sockets/tcp@0.2.0", "connect"), ("evil:host/api", "call"),
    ("wasi:cli/environment@0.3.0", "get-environment"), ("wasi:http/outgoing-handler@0.2.0", "handle"), ("nexus:tool/host@9.9.9", "call"),
])
def test_what_a_component_imports_beyond_the_host_traps_when_it_is_called(world, interface, function):
    tool, reply = world.install(wasm.component_import(interface, function, [], b"\x10\0"), abi="component")
    if reply.status_code != 201:
        world.refused(reply)
        return
    world.ended(world.call(tool), "trap", "tool_failed")
    quiet = world.installed(wasm.component_import(interface, function, [], b""), abi="component")
    assert world.ok(world.call(quiet)) == {"n": 1}


def test_a_component_cut_at_any_byte_is_refused(world):
    small = wasm.component_import("nexus:tool/host", "call", [], b"")
    assert world.ok(world.call(world.installed(small, abi="component"))) == {"n": 1}
    for length in range(0, len(small), 3):
        expect_refusal_or_service(world, small[:length], abi="component")
    random_ = random.Random(35)
    for _ in range(int(os.environ.get("NEXUS_ESCAPE_FLIPS", "150")) // 2):
        wrong = bytearray(small)
        wrong[random_.randrange(8, len(wrong))] ^= 1 << random_.randrange(8)
        expect_refusal_or_service(world, bytes(wrong), abi="component")


# ---- compiled code ----

def forgeries(code: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Name of a trick: the cache's files, changed."""
    flip = lambda content, at: content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]  # noqa: E731
    names = list(code)
    turned = dict(zip(names, [code[n] for n in names[1:] + names[:1]]))
    return {
        "swapped": turned,
        "cut in half": {n: c[:len(c) // 2] for n, c in code.items()},
        "empty": {n: b"" for n in names},
        "a byte of the head": {n: flip(c, 0) for n, c in code.items()},
        "a byte of the code": {n: flip(c, len(c) // 2) for n, c in code.items()},
        "the last byte": {n: flip(c, len(c) - 1) for n, c in code.items()},
        "without its last 32 bytes": {n: c[:-32] for n, c in code.items()},
        "without its first 32 bytes": {n: c[32:] for n, c in code.items()},
        "longer": {n: c + b"\0" * 64 for n, c in code.items()},
        "the signature is zeros": {n: bytes(32) + c[32:] for n, c in code.items()},
        "all zeros": {n: bytes(len(c)) for n, c in code.items()},
    }


def test_compiled_code_that_was_touched_is_compiled_anew(world, compiled_tools):
    """Whoever can write to the cache cannot make another program run."""
    other = Starter(world.nexus.folder.parent / "forged")
    node = other.prepare({"sandbox": {"process": "on" if world.is_walled else "off"}})
    node.keep_compiled_tools_apart(compiled_tools)
    node.start()
    mine = World(node, world.guest, world.command)
    one, two = mine.installed(world.guest), mine.installed(wasm.command(), abi="wasi-command")
    assert mine.ok(mine.call(one, "nothing")) == {"n": 0} and mine.ok(mine.call(two)) == {"n": 1}
    digests = [hashlib.sha256(module).hexdigest() for module in (world.guest, wasm.command())]
    folder = node.data / "cache" / ("wasm-apart" if world.is_walled else "wasm")
    code = {str(file): file.read_bytes() for digest in digests for file in folder.glob(digest + "-*.cwasm")}
    assert len(code) == 2
    for trick, files in forgeries(code).items():
        node.terminate()
        for file, content in files.items():
            Path(file).unlink(missing_ok=True)
            Path(file).write_bytes(content)
            Path(file).chmod(0o600)
        node.start()
        assert mine.ok(mine.call(one, "nothing")) == {"n": 0}, trick
        assert mine.ok(mine.call(two)) == {"n": 1}, trick
    node.terminate()
    for i, file in enumerate(code):                                     # links to what is not ours
        Path(file).unlink()
        Path(file).symlink_to("/etc/passwd" if i % 2 else "/dev/zero")
    node.start()
    assert mine.ok(mine.call(one, "nothing")) == {"n": 0} and mine.ok(mine.call(two)) == {"n": 1}
    other.finish()


# ---- the others ----

def test_a_crowd_of_hostile_guests_costs_the_others_nothing_and_is_gone_afterwards(world):
    pids = [world.nexus.process.pid, *children(world.nexus.process.pid)]
    for _ in range(30):
        world.ok(world.call(world.tool, "nothing"))
    before = [(descriptors(pid) if pid == pids[0] else 0, resident(pid)) for pid in pids]
    hostile = world.installed(world.guest, limits={"time": "300ms"})
    tries = [("spin",), ("memory", 1), ("down",), ("host", 10**6, 0), ("flood", 2, 0, 100000), ("poll", 0, 1, MAX64, 0, 1), ("trap",), ("give", MAX32, 5),
             ("host", 1, 4), ("host", 1, 3)]
    with ThreadPoolExecutor(12) as pool:
        bad = [pool.submit(world.call, hostile, *tries[i % len(tries)], t="clock|{}") for i in range(120)]
        good = [pool.submit(world.call, world.tool, "nothing") for _ in range(60)]
        assert all(world.ok(future.result()) == {"n": 0} for future in good)
        for future in bad:
            reply = future.result()
            assert reply.status_code in (200, 422), reply.text
    time.sleep(0.5)
    assert [world.nexus.process.pid, *children(world.nexus.process.pid)] == pids, "a process was replaced"
    for pid, (files, bytes_) in zip(pids, before):
        if files:
            assert descriptors(pid) <= files + 16
        assert resident(pid) - bytes_ < 192 << 20


# ---- what a guest has read goes with its calls ----

def test_what_a_guest_read_from_a_file_does_not_leave_by_a_tool_that_it_calls(tmp_path, provider):
    """The model's context holds nothing private: only the guest has seen the file."""
    guest = wasm.compiled(tmp_path)
    if guest is None:
        pytest.skip("no compiler for wasm32")
    starter, web = Starter(tmp_path / "node"), CountingUpstream()
    nexus = starter(web.config(), provider=provider)
    world = World(nexus, guest, guest)
    try:
        for host_calls, sent in ((["tool_call", "clock"], 1), (["tool_call", "file_read", "file_size"], 0)):
            tool = world.installed(guest, host_calls=host_calls, labels={"output": "public", "trusted": True, "sink": False})
            session = nexus.admin.open_session()
            nexus.admin.upload(session, "salaries.csv", b"name,salary\nada,9000\n")
            request = json.dumps({"name": "http_request", "input": {"url": f"{web.url}/?q=9000"}})
            before = len(web.requests)
            provider.script = [ToolCalls([(tool, {"do": "host", "a": [1, 0], "t": "tool_call|" + request})]), Text("Done.")]
            outcome = nexus.admin.ask(f"Compare my salary with {web.url}/ please.", session=session)
            assert outcome.status == "completed", outcome.run
            assert len(web.requests) - before == sent, json.dumps(outcome.events[3:])
    finally:
        web.close()
        starter.finish()
