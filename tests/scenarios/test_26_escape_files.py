"""file_system touches the session's workspace and nothing else, whatever a model writes as a path and whatever lies there."""

import base64
import contextlib
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.client import problem
from harness.starter import Starter

ROOT = "/tmp/agent-workspace"
SECRET = b"the platform's own secret"


@pytest.fixture(scope="module")
def nexus(tmp_path_factory, compiled_tools):
    starter = Starter(tmp_path_factory.mktemp("files"), compiled_tools)
    yield starter({"sessions": {"workspace_quota": "2MB", "workspace_files": 60}})
    starter.finish()


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.txt").write_bytes(SECRET)
    (folder / "folder").mkdir()
    (folder / "folder/secret.txt").write_bytes(SECRET)
    return folder


class Files:
    """file_system of one session, and where its workspace lies."""

    def __init__(self, nexus, client=None):
        self.nexus = nexus
        self.client = client or nexus.admin
        self.session = self.client.open_session()

    def call(self, operation: str, path: str | None = None, **more):
        named = {} if path is None else {"path": path}
        return self.client.invoke("file_system", {"operation": operation, **named, **more}, session_id=self.session)

    def ok(self, operation: str, path: str | None = None, **more) -> dict:
        reply = self.call(operation, path, **more)
        assert reply.status_code == 200, reply.text
        return reply.json()["output"]

    def refused(self, *call, names=("permission",), **more) -> str:
        reply = self.call(*call, **more)
        assert reply.status_code in (400, 403, 422), reply.text
        assert problem(reply) in names, reply.text
        assert SECRET.decode() not in reply.text
        return reply.json()["detail"]

    @property
    def folder(self) -> Path:
        [found] = (self.nexus.data / "workspaces").glob(f"*/{self.session}")
        return found


@pytest.fixture
def files(nexus):
    return Files(nexus)


# ---- what it does ----

def test_files_are_written_read_and_found(files):
    stat = files.ok("write", f"{ROOT}/output/report.txt", content="one\ntwo äöü\n")["stat"]
    assert stat["bytes"] == len("one\ntwo äöü\n".encode()) and stat["type"] == "file" and stat["path"] == f"{ROOT}/output/report.txt"
    files.ok("append", "output/report.txt", content="three\n")
    assert files.ok("read", f"{ROOT}/output/report.txt")["content"] == "one\ntwo äöü\nthree\n"
    files.ok("write", "data.csv", content=base64.b64encode(b"a,b\n\xff").decode(), encoding="base64")
    assert base64.b64decode(files.ok("read", "data.csv")["content"]) == b"a,b\n\xff"
    entries = files.ok("list")["entries"]
    assert [(e["name"], e["type"]) for e in entries] == [("data.csv", "file"), ("output", "folder")]
    assert [e["name"] for e in files.ok("list", ROOT, pattern="*.csv")["entries"]] == ["data.csv"]
    assert [e["path"] for e in files.ok("search", ROOT, pattern="rep*.t?t")["entries"]] == [f"{ROOT}/output/report.txt"]
    [hit] = files.ok("search", content="two ä")["entries"]
    assert (hit["line"], hit["text"], hit["name"]) == (2, "two äöü", "report.txt")
    assert files.ok("stat", "output")["stat"]["type"] == "folder"
    assert problem(files.call("delete", "output")) in ("conflict", "tool_failed")
    files.ok("delete", "output/report.txt")
    files.ok("delete", "output")
    assert files.call("read", "output/report.txt").status_code in (404, 422)


def test_uploads_are_read_only_and_what_tools_write_can_be_downloaded(files):
    files.client.upload(files.session, "in.csv", b"x,y\n1,2\n")
    assert files.ok("read", f"{ROOT}/in.csv")["content"] == "x,y\n1,2\n"
    [entry] = files.ok("list")["entries"]
    assert entry["name"] == "in.csv" and entry["read_only"] is True
    assert files.ok("search", content="1,2")["entries"][0]["line"] == 2
    for operation in ("write", "append", "delete"):
        assert "read-only" in files.refused(operation, "in.csv", content="x")
    files.ok("write", "output/out.json", content="{}")
    listed = {f["name"]: f for f in files.client.get(f"/api/v1/sessions/{files.session}/files").json()["items"]}
    assert listed["in.csv"]["source"] == "upload" and listed["output/out.json"]["source"] == "workspace"
    got = files.client.get(f"/api/v1/sessions/{files.session}/files/output%2Fout.json")
    assert got.status_code == 200 and got.content == b"{}"
    assert files.client.delete(f"/api/v1/sessions/{files.session}/files/output%2Fout.json").status_code == 204
    assert files.client.get(f"/api/v1/sessions/{files.session}/files/output%2Fout.json").status_code == 404
    for name in ("..%2f..%2fadmin.key", "%2fetc%2fpasswd", "output%2f..%2f..%2fx", ".nexus-x"):
        assert files.client.get(f"/api/v1/sessions/{files.session}/files/{name}").status_code in (400, 404)


def test_a_user_needs_no_approval_in_the_own_workspace(nexus):
    files = Files(nexus, nexus.user("files@example.com"))
    files.ok("write", "a.txt", content="mine")
    other = nexus.user("other@example.com")
    reply = other.invoke("file_system", {"operation": "read", "path": "a.txt"}, session_id=files.session)
    assert reply.status_code in (403, 404), reply.text
    assert Files(nexus, other).ok("list")["entries"] == []


def test_without_a_session_the_workspace_is_the_callers(nexus):
    one, two = nexus.user("alone@example.com"), nexus.user("apart@example.com")
    assert one.invoke("file_system", {"operation": "write", "path": "n.txt", "content": "x"}).status_code == 200
    assert one.invoke("file_system", {"operation": "read", "path": "n.txt"}).json()["output"]["content"] == "x"
    assert two.invoke("file_system", {"operation": "read", "path": "n.txt"}).status_code in (404, 422)


# ---- paths ----

@pytest.mark.parametrize("path", ["../x.txt", "a/../../x.txt", "a/../x.txt", f"{ROOT}/../x.txt", f"{ROOT}/a/../../../etc/x.txt", "/etc/passwd",
                                  "/etc/x.txt", "/", "/tmp", "/tmp/x.txt", "/tmp/agent-workspaces/x.txt", "/tmp/agent-workspace-other/x.txt",
                                  "/proc/self/environ", "/proc/self/root/etc/x.txt", "/dev/x.txt", "//etc/x.txt", "/./etc/x.txt",
                                  "/TMP/agent-workspace/x.txt", ".nexus-x.txt", "./../x.txt", "..", f"{ROOT}/.."])
def test_a_path_outside_is_refused(files, path):
    for operation in ("write", "append", "read", "delete", "stat"):
        files.refused(operation, path, content="x")
    files.refused("list", path)
    files.refused("search", path)


@pytest.mark.parametrize("path", ["a\x00.txt", "a.sh\x00.txt", "a\nb.txt", "a\\..\\b.txt", "..\\x.txt", "a\u202etxt.sh", "a\u200b.txt", "a\u2066b.txt",
                                  "\ufeffa.txt", "a.txt.", "a.txt ", " a.txt", "...", "a" * 300 + ".txt", "/".join(["d"] * 40) + "/x.txt", "x" * 2000])
def test_a_deceptive_name_is_refused(files, path):
    files.refused("write", path, content="x", names=("schema", "tool_failed", "permission", "invalid_json"))
    assert not (files.nexus.data / "workspaces").exists() or files.ok("list")["entries"] == []


@pytest.mark.parametrize("path", ["．．/x.txt", "a／b.txt", "%2e%2e/x.txt", "..%2fx.txt", "…/x.txt", "‥/x.txt", "~/x.txt", "$HOME.txt", "-rf.txt", "*.txt",
                                  "a;b.txt", "`id`.txt", "CON.txt", "é.txt", "日本.txt"])
def test_an_odd_name_is_only_a_name(files, path):
    files.ok("write", path, content="odd")
    assert files.ok("read", path)["content"] == "odd"
    assert (files.folder / path).read_text() == "odd"


@pytest.mark.parametrize("name", ["evil.sh", "evil", "evil.txt.sh", "evil.TXT.exe", ".txt", "evil.so", "a.py", "evil.txt/x", "txt"])
def test_only_allowed_extensions_are_written(files, name):
    files.refused("write", name, content="#!/bin/sh", names=("permission",))
    files.refused("read", name, names=("permission",))


def test_an_operator_narrows_paths_sizes_and_extensions(start):
    narrow = {"paths": {"read": [f"{ROOT}/*"], "write": [f"{ROOT}/output/*"], "execute": []}, "max_file_size": "1KB",
              "allowed_extensions": [".txt", ".json", ".csv"]}
    files = Files(start({"tools": {"file_system": {"permissions": narrow}}}))
    files.ok("write", f"{ROOT}/output/a.txt", content="x" * 1000)
    files.refused("write", f"{ROOT}/a.txt", content="x")
    files.refused("write", f"{ROOT}/output/a.md", content="x")
    files.refused("write", f"{ROOT}/output/b.txt", content="x" * 1001, names=("too_large", "limit", "tool_failed"))
    files.refused("append", f"{ROOT}/output/a.txt", content="x", names=("too_large", "limit", "tool_failed"))
    files.refused("delete", f"{ROOT}/a.txt")
    assert files.ok("read", "output/a.txt")["content"] == "x" * 1000


# ---- what lies in the workspace ----

@pytest.fixture
def planted(files, outside):
    """Links and special files, as if somebody had got them in there."""
    files.ok("write", "seed.txt", content="seed")
    folder = files.folder
    (folder / "file.txt").symlink_to(outside / "secret.txt")
    (folder / "folder").symlink_to(outside / "folder")
    (folder / "up").symlink_to("../..")
    (folder / "self").symlink_to("self")
    (folder / "root").symlink_to("/")
    (folder / "proc").symlink_to("/proc/self/root")
    (folder / "fd").symlink_to("/proc/self/fd")
    (folder / "inner.txt").symlink_to("seed.txt")
    os.link(outside / "secret.txt", folder / "hard.txt")
    os.mkfifo(folder / "pipe.txt")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)
    listener.bind("socket.txt")
    os.chdir(here)
    try:
        os.mknod(folder / "device.txt", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pass
    yield files
    listener.close()


@pytest.mark.parametrize("path", ["file.txt", "folder/secret.txt", "up/seed.txt", "self", "root/etc/hosts.txt", "proc/etc/x.txt", "fd/0.txt",
                                  "inner.txt", "hard.txt", "pipe.txt", "socket.txt", "device.txt"])
def test_links_and_special_files_are_refused(planted, outside, path):
    if not os.path.lexists(planted.folder / path.split("/")[0]):
        pytest.skip("this machine makes no device nodes")
    begun = time.monotonic()
    for operation in ("read", "write", "append", "stat", "delete"):
        names = ("permission", "tool_failed") if operation in ("stat", "delete") else ("permission",)
        planted.refused(operation, path, content="overwritten", names=names)
    assert time.monotonic() - begun < 5, "it waited on a pipe or device"
    assert (outside / "secret.txt").read_bytes() == SECRET and (outside / "folder/secret.txt").read_bytes() == SECRET


def test_lists_and_searches_pass_links_over(planted, outside):
    assert [e["name"] for e in planted.ok("list")["entries"]] == ["seed.txt"]
    assert [e["name"] for e in planted.ok("search")["entries"]] == ["seed.txt"]
    assert planted.ok("search", content="secret")["entries"] == []
    for path in ("folder", "up", "root", "proc"):
        planted.refused("list", path)
        planted.refused("search", path)
    names = {f["name"] for f in planted.client.get(f"/api/v1/sessions/{planted.session}/files").json()["items"]}
    assert names == {"seed.txt"}
    for name in ("file.txt", "folder%2Fsecret.txt", "hard.txt", "pipe.txt"):
        reply = planted.client.get(f"/api/v1/sessions/{planted.session}/files/{name}")
        assert reply.status_code in (403, 404) and SECRET not in reply.content


def test_a_race_between_folder_and_link_is_never_won(files, outside):
    """A thread swaps a folder and a link to the outside while the tool reads, writes and looks."""
    files.ok("write", "race/secret.txt", content="inside")
    folder, stop = files.folder, threading.Event()
    (folder / "link").symlink_to(outside / "folder")

    def swap():
        while not stop.is_set():
            for a, b in (("race", "kept"), ("link", "race"), ("race", "link"), ("kept", "race")):
                with contextlib.suppress(OSError):      # the tool made a folder of that name meanwhile
                    os.rename(folder / a, folder / b)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        outcomes = set()
        for i in range(150):
            reply = files.call("read", "race/secret.txt")
            outcomes.add(reply.status_code)
            assert SECRET.decode() not in reply.text
            files.call("write", "race/secret.txt", content=f"inside {i}")
            files.call("append", "race/new.txt", content="x")
            files.call("delete", "race/new.txt")
            assert SECRET.decode() not in files.call("search", content="secret").text
    finally:
        stop.set()
        thread.join()
    assert (outside / "folder/secret.txt").read_bytes() == SECRET
    assert sorted(p.name for p in (outside / "folder").iterdir()) == ["secret.txt"]
    assert files.nexus.is_running and outcomes & {200, 403, 404, 422}


# ---- quotas ----

def test_parallel_writers_do_not_pass_the_quota_together(nexus):
    files = Files(nexus)
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda i: files.call("write", f"p{i}.txt", content="x" * 300_000), range(16)))
    written = sum(reply.status_code == 200 for reply in replies)
    assert written == 6, [reply.status_code for reply in replies]      # 6 * 300,000 <= 2,000,000 < 7 * 300,000
    assert all("quota" in reply.json()["detail"] for reply in replies if reply.status_code != 200)
    assert sum(p.stat().st_size for p in files.folder.iterdir()) == 1_800_000
    assert not [p for p in files.folder.iterdir() if p.name.startswith(".nexus-")]
    files.ok("delete", next(p.name for p in files.folder.iterdir()))
    files.ok("write", "again.txt", content="x" * 300_000)


def test_parallel_makers_do_not_pass_the_count_together(nexus):
    files = Files(nexus)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: files.call("write", f"d{i}/x.txt", content=""), range(45)))
    made = sum(1 for _ in files.folder.rglob("*"))
    assert made == 60
    assert "files and folders" in files.refused("write", "one-more.txt", content="", names=("quota", "tool_failed"))


def test_parallel_appends_are_all_there(nexus):
    files = Files(nexus)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda i: files.call("append", "log.txt", content=f"line {i}\n"), range(60)))
    assert all(reply.status_code == 200 for reply in replies)
    assert sorted(files.ok("read", "log.txt")["content"].split("\n")[:-1]) == sorted(f"line {i}" for i in range(60))


def test_a_reader_sees_a_whole_file(nexus):
    files = Files(nexus)
    texts = {c * 100_000 for c in "ab"}
    files.ok("write", "w.txt", content="a" * 100_000)
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(files.call, "write", "w.txt", content="ab"[i % 2] * 100_000) for i in range(40)]
        reads = [pool.submit(files.call, "read", "w.txt") for _ in range(60)]
        assert {read.result().json()["output"]["content"] for read in reads} <= texts
        assert all(write.result().status_code == 200 for write in writes)


# ---- ends ----

def test_the_workspace_of_a_closed_session_is_removed(start):
    files = Files(start())
    files.ok("write", "deep/er/a.txt", content="x")
    (files.folder / "out").symlink_to("/")
    folder = files.folder
    kept = Files(files.nexus)
    kept.ok("write", "kept.txt", content="x")
    assert files.client.delete(f"/api/v1/sessions/{files.session}").status_code == 204
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not folder.exists() and kept.folder.exists() and Path("/etc").exists()


def test_nothing_of_the_platform_is_reachable_by_name(nexus):
    files = Files(nexus)
    key = (nexus.data / "admin.key").read_text().strip()
    for path in ("../../../admin.key", f"{ROOT}/../../../admin.key", str(nexus.data / "admin.key"), "../../files", "/proc/self/cwd/data/admin.key"):
        for operation in ("read", "list", "search", "stat"):
            reply = files.call(operation, path)
            assert reply.status_code in (403, 422) and key not in reply.text
    assert nexus.is_running
