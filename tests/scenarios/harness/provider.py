"""A model API in OpenAI's dialect that answers as a test tells it to, and remembers what it was asked."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Text:
    """An answer in words; streamed in `pieces` with `delay` seconds before each."""
    text: str
    pieces: list[str] | None = None
    delay: float = 0
    usage: tuple[int, int] | None = (10, 5)
    finish: str = "stop"
    extra: dict = field(default_factory=dict)      # members that no contract knows


@dataclass
class ToolCalls:
    """Asks for tools: [(name, arguments), ...]"""
    calls: list[tuple[str, dict]]
    delay: float = 0
    usage: tuple[int, int] | None = (12, 7)


@dataclass
class Fail:
    """An error answer."""
    status: int
    message: str = "told to fail"
    type: str = "server_error"
    code: str | None = None
    headers: dict = field(default_factory=dict)


@dataclass
class Hang:
    """Takes the request and says nothing; `after_pieces` first streams so many words."""
    after_pieces: int = 0
    seconds: float = 60


@dataclass
class Cut:
    """Streams some words and drops the connection."""
    after_pieces: int = 2


@dataclass
class Garbage:
    """Answers 200 with bytes that are no JSON."""
    body: bytes = b"<html>no model here</html>"


Answer = Text | ToolCalls | Fail | Hang | Cut | Garbage


@dataclass
class Call:
    """One request that arrived."""
    at: float
    path: str
    headers: dict
    body: dict
    closed_at: float | None = None                 # when the caller hung up before the answer had ended

    @property
    def last_user_text(self) -> str:
        for message in reversed(self.body.get("messages", [])):
            if message["role"] == "user":
                content = message["content"]
                return content if isinstance(content, str) else " ".join(p.get("text", "") for p in content)
        return ""

    @property
    def tool_results(self) -> list[dict]:
        """What tools said since the last message of the user."""
        results = []
        for message in self.body.get("messages", []):
            results = [] if message["role"] == "user" else results
            if message["role"] == "tool":
                results.append(message)
        return results


class FakeProvider:
    KEY = "sk-test-3f1c9b07d24e4f6d8a55"

    def __init__(self, answer: Callable[[Call], Answer] | None = None, models: tuple[str, ...] = ("tiny", "large")):
        self.calls: list[Call] = []
        self.models = models
        self.answer = answer or (lambda call: Text("hello from the model"))
        self.script: list[Answer] = []             # answers to come; then `answer` is asked
        self.input_tokens = self.output_tokens = 0
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), handler_of(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def config(self, models: tuple[str, ...] = ("tiny",), *, price: dict | None = None, max_output_tokens: int = 200,
               **provider) -> dict:
        """Configuration with this provider behind the given models."""
        target = {"provider": "fake", "model": "tiny"} | ({"price": price} if price else {})
        return {
            "providers": [{"name": "fake", "type": "openai", "base_url": self.url, "api_keys": ["${env:LOCAL_KEY}"], **provider}],
            "models": [{"name": name, "max_output_tokens": max_output_tokens, "targets": [dict(target)]} for name in models],
        }

    @property
    def environment(self) -> dict:
        return {"LOCAL_KEY": self.KEY}

    def next_answer(self, call: Call) -> Answer:
        with self.lock:
            self.calls.append(call)
            if self.script:
                return self.script.pop(0)
        return self.answer(call)

    def count_tokens(self, usage: tuple[int, int] | None) -> None:
        with self.lock:
            self.input_tokens += usage[0] if usage else 0
            self.output_tokens += usage[1] if usage else 0

    def wait_for_calls(self, count: int, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while len(self.calls) < count:
            assert time.monotonic() < deadline, f"{len(self.calls)} of {count} calls within {seconds} s"
            time.sleep(0.01)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """Callers that hang up are part of the tests."""


class HungUp(Exception):
    pass


def handler_of(provider: FakeProvider) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments):
            pass

        # ---- in ----

        def do_GET(self):
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in provider.models]
            self.send_json(200, {"object": "list", "data": models})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            call = Call(time.monotonic(), self.path, dict(self.headers), body)
            if provider.KEY and self.headers.get("Authorization") != f"Bearer {provider.KEY}":
                with provider.lock:
                    provider.calls.append(call)
                return self.fail(Fail(401, "Incorrect API key provided", "invalid_request_error", "invalid_api_key"))
            answer = provider.next_answer(call)
            try:
                self.give(call, answer)
            except (HungUp, OSError):
                call.closed_at = time.monotonic()
                self.close_connection = True

        def give(self, call: Call, answer: Answer) -> None:
            if isinstance(answer, Fail):
                self.fail(answer)
            elif isinstance(answer, Garbage):
                self.send_bytes(200, "application/json", answer.body)
            elif isinstance(answer, Hang) and not answer.after_pieces:
                self.sleep(answer.seconds)
                self.close_connection = True
            elif call.body.get("stream"):
                self.stream(call, answer)
            else:
                self.complete(call, answer)

        def fail(self, answer: Fail) -> None:
            error = {"message": answer.message, "type": answer.type, "code": answer.code, "param": None}
            self.send_json(answer.status, {"error": error}, answer.headers)

        # ---- whole answers ----

        def complete(self, call: Call, answer: Answer) -> None:
            if isinstance(answer, (Hang, Cut)):
                raise HungUp
            self.sleep(answer.delay)
            message = {"role": "assistant", "content": getattr(answer, "text", None)}
            if isinstance(answer, ToolCalls):
                message["tool_calls"] = [self.tool_call(i, *c) for i, c in enumerate(answer.calls)]
            finish = "tool_calls" if isinstance(answer, ToolCalls) else answer.finish
            reply = {**self.head(call, "chat.completion"), **getattr(answer, "extra", {}),
                     "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}]}
            if answer.usage:
                reply["usage"] = self.usage(answer.usage)
            provider.count_tokens(answer.usage)
            self.send_json(200, reply)

        def head(self, call: Call, kind: str) -> dict:
            return {"id": f"chatcmpl-{len(provider.calls)}", "object": kind, "created": 1, "model": call.body["model"],
                    "system_fingerprint": "fp_test"}

        @staticmethod
        def usage(usage: tuple[int, int]) -> dict:
            return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}

        @staticmethod
        def tool_call(index: int, name: str, arguments: dict) -> dict:
            return {"id": f"call_{index}_{name}", "type": "function",
                    "function": {"name": name, "arguments": json.dumps(arguments)}}

        # ---- streams ----

        def stream(self, call: Call, answer: Answer) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.chunk(call, {"role": "assistant", "content": ""})
            if isinstance(answer, ToolCalls):
                self.sleep(answer.delay)
                self.stream_calls(call, answer)
            elif isinstance(answer, (Hang, Cut)):
                for i in range(answer.after_pieces):
                    self.chunk(call, {"content": f"word{i} "})
                if isinstance(answer, Hang):
                    self.sleep(answer.seconds)
                raise HungUp
            else:
                for piece in answer.pieces or words_of(answer.text):
                    self.sleep(answer.delay)
                    self.chunk(call, {"content": piece}, **answer.extra)
            finish = "tool_calls" if isinstance(answer, ToolCalls) else answer.finish
            self.chunk(call, {}, finish=finish)
            wants_usage = (call.body.get("stream_options") or {}).get("include_usage")
            if answer.usage and wants_usage:
                self.event({**self.head(call, "chat.completion.chunk"), "choices": [], "usage": self.usage(answer.usage)})
            provider.count_tokens(answer.usage)
            self.write_chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def stream_calls(self, call: Call, answer: ToolCalls) -> None:
            for index, (name, arguments) in enumerate(answer.calls):
                whole = self.tool_call(index, name, arguments)
                text = whole["function"]["arguments"]
                whole["function"]["arguments"] = ""
                self.chunk(call, {"tool_calls": [{"index": index, **whole}]})
                for at in range(0, len(text), 8):
                    self.chunk(call, {"tool_calls": [{"index": index, "function": {"arguments": text[at:at + 8]}}]})

        def chunk(self, call: Call, delta: dict, finish: str | None = None, **extra) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            self.event({**self.head(call, "chat.completion.chunk"), **extra, "choices": [choice]})

        def event(self, value: dict) -> None:
            self.write_chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

        def write_chunk(self, piece: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()

        # ---- out ----

        def sleep(self, seconds: float) -> None:
            """Waits, unless the caller hangs up first."""
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                readable, _, _ = select.select([self.connection], [], [], min(left, 0.05))
                if readable and not self.connection.recv(1, socket.MSG_PEEK):
                    raise HungUp

        def send_json(self, status: int, value: dict, headers: dict | None = None) -> None:
            self.send_bytes(status, "application/json", json.dumps(value).encode(), headers)

        def send_bytes(self, status: int, kind: str, body: bytes, headers: dict | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def words_of(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]
