"""A disk that fills up while the server works: it is told once, in the log, by /readyz and a metric; callers read what is wrong; and when
there is room again the server finds out by itself."""

import resource
import subprocess
import time
from pathlib import Path

import pytest

from harness.client import problem
from harness.scripts import say, script

REFUSED = (503, 507)


class Limit:
    """No file of the process may grow beyond what the largest has now, and a little."""

    def __init__(self, nexus):
        self.nexus = nexus

    def fill(self) -> None:
        self.set(max(path.stat().st_size for path in self.nexus.data.glob("nexus.db*")) + 8192)

    def free(self) -> None:
        self.set(resource.RLIM_INFINITY)

    def set(self, size: int) -> None:
        resource.prlimit(self.nexus.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Disk:
    """A small file system of its own; a file takes the rest of it."""

    def __init__(self, nexus):
        self.filler = nexus.data / "filler"

    def fill(self) -> None:
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass

    def free(self) -> None:
        self.filler.unlink()


@pytest.fixture
def tmpfs(tmp_path):
    """Where the next server's data folder will be."""
    folder: Path = tmp_path / "node0/data"
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "nexus-test", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("mounting a small file system needs more rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def until(what, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")


def readiness(nexus):
    reply = nexus.admin.get("/readyz")
    return reply if reply.status_code == 503 else reply.status_code


def writable(nexus) -> str:
    [line] = [line for line in nexus.admin.get("/metrics").text.splitlines() if line.startswith("nexus_store_writable ")]
    return line.split()[1]


def lines(nexus, text: str, level: str) -> list[dict]:
    return [entry for entry in nexus.log_entries() if text in entry["message"] and entry["log.level"] == level]


def fill_up(nexus, room) -> None:
    room.fill()
    until(lambda: nexus.admin.post("/api/v1/sessions", {"metadata": {"x": "y" * 4000}}).status_code in REFUSED)


def play(nexus, room) -> None:
    admin, session = nexus.admin, nexus.admin.open_session()
    assert readiness(nexus) == 200 and writable(nexus) == "1"
    fill_up(nexus, room)

    refused = readiness(nexus)
    assert refused.status_code == 503 and refused.headers["Content-Type"] == "application/problem+json"
    assert "the store cannot commit since 20" in refused.json()["detail"] and "The disk is full" in refused.json()["detail"]
    assert admin.get("/healthz").status_code == 200
    until(lambda: writable(nexus) == "0", 5)

    seen = set()
    for number in range(60):
        big = {"metadata": {"x": "y" * 9000}}
        replies = [admin.post("/api/v1/sessions", big),
                   admin.post(f"/api/v1/sessions/{session}/messages", {"content": script(say("z" * 9000))}),
                   admin.put(f"/api/v1/sessions/{session}/files/{number}", content=b"x" * 300_000)]
        for reply in replies:
            assert reply.status_code < 500 or reply.status_code in REFUSED, reply.text
            if reply.status_code in REFUSED:
                seen.add(problem(reply))
        time.sleep(0.05)
    assert "disk_full" in seen and seen <= {"disk_full", "store", "unavailable"}, seen
    for path, more in (("/v1/chat/completions", {}), ("/v1/messages", {"max_tokens": 50}), ("/v1/responses", {})):
        words = {"input": "hello"} if "responses" in path else {"messages": [{"role": "user", "content": "hello"}]}
        reply = admin.post(path, {"model": "agent:assistant", **words, **more})
        assert reply.status_code in REFUSED and "disk is full" in reply.json()["error"]["message"], reply.text
    assert admin.get(f"/api/v1/sessions/{session}").status_code == 200          # what is stored is read as ever
    [told] = lines(nexus, "the store cannot commit", "error")
    assert told["file.path"] == str(nexus.data / "nexus.db") and "free space" in told["nexus.remedy"], told
    assert "the disk is full" in told["error.message"]

    assert readiness(nexus).status_code == 503
    room.free()
    until(lambda: readiness(nexus) == 200)                                      # nobody wrote anything meanwhile
    until(lambda: writable(nexus) == "1", 5)
    assert len(lines(nexus, "the store cannot commit", "error")) == 1
    assert len(lines(nexus, "the store commits again", "info")) == 1
    outcome = admin.ask(script(say("done")))
    assert outcome.status == "completed", outcome.run
    assert admin.post("/api/v1/budgets/verify").json()["ok"] and admin.post("/api/v1/audit/verify").json()["ok"]


def test_a_full_disk_is_told_once_by_everything_that_can_tell_and_its_end_too(tmpfs, start):
    nexus = start()
    play(nexus, Disk(nexus))


def test_a_file_that_may_not_grow_is_told_like_a_full_disk(start):
    nexus = start()
    play(nexus, Limit(nexus))
