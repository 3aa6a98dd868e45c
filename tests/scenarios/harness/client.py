"""A client of the native API that says what the scenarios mean: open a session, ask, wait, look at the journal."""

import json
import socket
import time
import uuid
from dataclasses import dataclass, field

import httpx

FINAL = ("completed", "failed", "cancelled")
PROBLEMS = "https://nexus.invalid/problems/"


@dataclass
class Outcome:
    """What became of one question."""
    run: dict
    events: list[dict]

    @property
    def id(self) -> str:
        return self.run["id"]

    @property
    def status(self) -> str:
        return self.run["status"]

    @property
    def answer(self) -> str:
        """The text of the last message of the assistant."""
        texts = [e["data"].get("content", "") for e in self.of("model.completed")]
        return texts[-1] if texts else ""

    def of(self, kind: str) -> list[dict]:
        return [e for e in self.events if e["type"] == kind]

    def tool_outputs(self, name: str | None = None) -> list:
        return [e["data"].get("output") for e in self.of("tool.completed") if name in (None, e["data"]["name"])]


@dataclass
class Event:
    """One server-sent event."""
    id: str = ""
    type: str = ""
    data: str = ""

    def json(self) -> dict:
        return json.loads(self.data)


@dataclass
class EventParser:
    """Bytes of a stream to events; what has not ended is never given out."""
    pending: bytes = b""
    comments: list[str] = field(default_factory=list)

    def feed(self, piece: bytes) -> list[Event]:
        self.pending += piece
        *whole, self.pending = self.pending.split(b"\n\n")
        return [event for event in map(self.parse, whole) if event]

    def parse(self, block: bytes) -> Event | None:
        event, data = Event(), []
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not name:
                self.comments.append(value)
            elif name == "data":
                data.append(value)
            elif name == "id":
                event.id = value
            elif name == "event":
                event.type = value
        event.data = "\n".join(data)
        return event if event.id or event.type or data else None


class Client:
    def __init__(self, server, key: str, *, seconds: float = 60):
        self.server = server
        self.key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=200)
        self.http = httpx.Client(base_url=server.url, headers=headers, timeout=seconds, trust_env=False, limits=limits,
                                 verify=False)   # plain HTTP; reading the certificates costs a tenth of a second

    def get(self, path: str, **options) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, body: dict | None = None, **options) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return self.http.post(path, **options)

    def put(self, path: str, **options) -> httpx.Response:
        return self.http.put(path, **options)

    def delete(self, path: str, **options) -> httpx.Response:
        return self.http.delete(path, **options)

    # ---- sessions, messages, runs ----

    def open_session(self, **body) -> str:
        reply = self.post("/api/v1/sessions", body)
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]

    def upload(self, session: str, name: str, content: bytes) -> dict:
        reply = self.put(f"/api/v1/sessions/{session}/files/{name}", content=content)
        assert reply.status_code in (200, 201), reply.text
        return reply.json()

    def send(self, session: str, content: str, **more) -> str:
        """A message; the id of the run that it starts."""
        reply = self.post(f"/api/v1/sessions/{session}/messages", {"content": content, **more})
        assert reply.status_code == 202, reply.text
        return reply.json()["run_id"]

    def run(self, run_id: str) -> dict:
        reply = self.get(f"/api/v1/runs/{run_id}")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def wait(self, run_id: str, *until: str, seconds: float = 30) -> dict:
        """The run, when it has ended or is in one of the given states."""
        deadline = time.monotonic() + seconds
        while True:
            run = self.run(run_id)
            if run["status"] in FINAL or run["status"] in until:
                return run
            assert time.monotonic() < deadline, f"the run is still {run['status']} after {seconds} s: {self.events(run_id)[-5:]}"
            time.sleep(0.04)

    def wait_for_event(self, run_id: str, kind: str, seconds: float = 20) -> dict:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for event in self.events(run_id):
                if event["type"] == kind:
                    return event
            time.sleep(0.03)
        raise AssertionError(f"no {kind} within {seconds} s: {[e['type'] for e in self.events(run_id)]}")

    def events(self, run_id: str) -> list[dict]:
        """The whole journal, as a list."""
        events, after = [], 0
        while True:
            reply = self.get(f"/api/v1/runs/{run_id}/events?after={after}", headers={"Accept": "application/json"})
            assert reply.status_code == 200, reply.text
            page = reply.json()
            events += page["events"]
            if page["next"] is None or not page["events"]:
                return events
            after = page["next"]

    def outcome(self, run_id: str, *until: str, seconds: float = 30) -> Outcome:
        run = self.wait(run_id, *until, seconds=seconds)
        return Outcome(run, self.events(run_id))

    def ask(self, content: str, *, session: str | None = None, seconds: float = 30, **more) -> Outcome:
        session = session or self.open_session()
        return self.outcome(self.send(session, content, **more), seconds=seconds)

    def budget(self, session: str) -> dict:
        reply = self.get(f"/api/v1/sessions/{session}/budget")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def invoke(self, tool: str, tool_input: dict, **more) -> httpx.Response:
        return self.post(f"/api/v1/tools/{tool}/invoke", {"input": tool_input, **more})

    # ---- keys ----

    def create_key(self, user_id: str = "", role: str = "", scopes: list[str] | None = None, **more) -> dict:
        body = {"name": f"key of {user_id or 'mine'} {uuid.uuid4().hex[:6]}", "scopes": scopes or [], **more}
        body |= {name: value for name, value in (("user_id", user_id), ("role", role)) if value}
        reply = self.post("/api/v1/keys", body)
        assert reply.status_code == 201, reply.text
        issued = reply.json()
        self.server.secrets.add(issued["key"])
        return issued

    # ---- streams ----

    def stream(self, run_id: str, last_event_id: int | str | None = None, seconds: float = 30) -> "Stream":
        return Stream(self.server.port, f"/api/v1/runs/{run_id}/events", self.key, last_event_id, seconds)


class Stream:
    """An event stream on a connection of its own, which can be cut at any moment."""

    def __init__(self, port: int, path: str, key: str, last_event_id=None, seconds: float = 30):
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {key}", "Accept: text/event-stream"]
        if last_event_id is not None:
            lines.append(f"Last-Event-ID: {last_event_id}")
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.parser = EventParser()
        self.raw = b""
        self.is_ended = False
        self.status = 0
        deadline = time.monotonic() + seconds
        while b"\r\n\r\n" not in self.raw and not self.is_ended and time.monotonic() < deadline:
            self.receive(deadline - time.monotonic())
        head, _, self.raw = self.raw.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 "):
            self.status = int(head.split()[1])
            assert self.status != 200 or b"chunked" in head.lower(), head

    def receive(self, seconds: float) -> None:
        self.socket.settimeout(max(seconds, 0.001))
        try:
            piece = self.socket.recv(65536)
        except TimeoutError:
            return
        except OSError:
            piece = b""
        self.is_ended = self.is_ended or not piece
        self.raw += piece

    def take_chunks(self) -> bytes:
        """The chunks that have arrived whole."""
        data = b""
        while b"\r\n" in self.raw:
            size, _, rest = self.raw.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            data, self.raw = data + rest[:length], rest[length + 2:]
            if length == 0:
                self.is_ended = True
        return data

    def read(self, seconds: float) -> list[Event]:
        """Events that arrive within this time; is_ended is set when the server closed."""
        events = self.parser.feed(self.take_chunks())
        deadline = time.monotonic() + seconds
        while not self.is_ended and (left := deadline - time.monotonic()) > 0:
            self.receive(left)
            events += self.parser.feed(self.take_chunks())
        return events

    def read_all(self, seconds: float = 30) -> list[Event]:
        events = self.read(seconds)
        assert self.is_ended, f"the stream is still open after {seconds} s"
        return events

    def close(self) -> None:
        self.socket.close()


def problem(reply: httpx.Response) -> str:
    """Checks that an error is told as it should be; gives the error's name."""
    assert reply.status_code >= 400, f"no error: {reply.status_code} {reply.text[:500]}"
    assert reply.headers["content-type"].startswith("application/problem+json"), f"{reply.headers} {reply.text[:500]}"
    body = reply.json()
    assert body["type"].startswith(PROBLEMS), body
    assert body["status"] == reply.status_code, body
    assert body["title"], body
    assert len(body["detail"]) > 10, f"says nothing: {body}"
    assert body["instance"], body
    return body["type"].removeprefix(PROBLEMS)
