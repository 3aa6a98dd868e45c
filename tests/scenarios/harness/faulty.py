"""A model API that breaks in every way a real one does, in three dialects, and counts what it really produced.

Each provider of a test is a path of its own: `/NAME/v1/...`.  How an attempt goes says `plan(call)`, else a mark in the prompt,
`[[NAME fault=cut at=3 tokens=8]]`, where NAME is the provider's path or how it begins.

    fault       what happens                                              at: tokens of content before it
    none        a whole, good answer
    status      an error answer: status=503 retry_after=7
    hang reset close not_http         before the answer's head
    html json empty                   200, but no event stream
    stall cut reset_at garbage error short     within the answer; short: a proper end of the body in the middle of the answer
    double_end no_end no_usage        the answer is whole, its end is odd
"""

import asyncio
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

INPUT_TOKENS = 10
END_OF_TIME = 3600


@dataclass
class Plan:
    fault: str = "none"
    at: int = 0
    tokens: int = 8
    delay: float = 0.0                             # seconds before each token
    first: float = 0.0                             # seconds before the head
    pause: float = 0.05                            # seconds between the last token and the fault: what was said has arrived
    status: int = 500
    retry_after: str = ""


@dataclass
class Call:
    """One request that arrived, and what became of it."""
    provider: str
    key: str
    dialect: str                                   # chat, messages, responses, embeddings
    body: dict
    prompt: str
    at: float = field(default_factory=time.monotonic)
    plan: Plan = field(default_factory=Plan)
    produced: int = 0                              # tokens of output that were made, told or not
    input_tokens: int = 0                          # 0: refused before any work
    is_usage_told: bool = False                    # all of it went out
    is_refused: bool = False
    closed_at: float | None = None                 # when the caller hung up on us
    ended_at: float | None = None

    @property
    def is_stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def model(self) -> str:
        return self.body.get("model", "")


@dataclass
class KeyLimit:
    """So many requests in so many seconds, then 429."""
    requests: int
    seconds: float
    begun: float = 0
    used: int = 0

    def take(self) -> bool:
        now = time.monotonic()
        if now - self.begun >= self.seconds:
            self.begun, self.used = now, 0
        self.used += 1
        return self.used <= self.requests


class HungUp(Exception):
    """The caller has left."""


class Broken(Exception):
    """The answer is over: the connection goes down."""


def token(provider: str, number: int) -> str:
    return f"{provider[0]}{number} "


def text_of(provider: str, tokens: int) -> str:
    return "".join(token(provider, number) for number in range(tokens))


def marked(prompt: str, provider: str) -> Plan:
    for name, rest in re.findall(r"\[\[(\w+)((?: \w+=[\w.]+)*)\]\]", prompt):
        if provider == name or (len(name) == 1 and provider.startswith(name)):
            plan = Plan()
            for pair in rest.split():
                key, value = pair.split("=")
                setattr(plan, key, type(getattr(plan, key))(value))
            return plan
    return Plan()


class FaultyProvider:
    KEY = "sk-fault-5b1d9c3a77e04f0e8a21"

    def __init__(self, plan: Callable[[Call], Plan] | None = None):
        self.plan = plan or (lambda call: marked(call.prompt, call.provider))
        self.calls: list[Call] = []
        self.dead_keys: set[str] = set()
        self.key_limits: dict[str, KeyLimit] = {}
        self.open = 0
        self.connections = 0
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task] = set()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024, limit=1 << 20), self.loop).result()
        self.port = self.server.sockets[0].getsockname()[1]

    def url(self, provider: str) -> str:
        return f"http://127.0.0.1:{self.port}/{provider}/v1"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.shut(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        self.loop.close()

    async def shut(self) -> None:
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # ---- configuration ----

    def provider(self, name: str, kind: str = "openai", keys: list[str] | None = None, **more) -> dict:
        """kind: openai, anthropic, or responses (openai with the Responses API)"""
        url = self.url(name)
        entry = {"name": name, "type": "anthropic" if kind == "anthropic" else "openai", "base_url": url,
                 "api_keys": keys or ["${env:FAULTY_KEY}"], **more}
        return entry | ({"responses": "true"} if kind == "responses" else {})

    @property
    def environment(self) -> dict:
        return {"FAULTY_KEY": self.KEY}

    # ---- what was seen ----

    def of(self, provider: str) -> list[Call]:
        return [call for call in list(self.calls) if call.provider == provider]

    def wait_for(self, what: Callable[[], bool], seconds: float = 10, said: str = "it did not happen") -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"{said} within {seconds} s"
            time.sleep(0.005)

    # ---- connections ----

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.tasks.add(task)
        self.connections += 1
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.serve_all(reader, writer)
        except (HungUp, Broken, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            self.connections -= 1
            writer.close()

    async def serve_all(self, reader, writer) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                piece = await reader.read(65536)
                if not piece:
                    return
                pending += piece
            head, _, pending = pending.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            length = int(headers.get("content-length", 0))
            if len(pending) < length:
                pending += await reader.readexactly(length - len(pending))
            body, pending = pending[:length], pending[length:]
            watch = asyncio.ensure_future(reader.read(65536))
            self.open += 1
            try:
                await self.handle(Answer(self, writer, watch), lines[0].split(" "), headers, body)
            finally:
                self.open -= 1
                if watch.done() and not watch.cancelled() and not watch.exception():
                    pending += watch.result()
                else:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)

    async def handle(self, answer: "Answer", request: list[str], headers: dict, body: bytes) -> None:
        _, provider, _, rest = request[1].split("/", 3)
        if request[0] == "GET":
            await answer.send_json(200, {"object": "list", "data": []})
            return
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        parsed = json.loads(body)
        dialect = {"chat/completions": "chat"}.get(rest, rest)
        call = Call(provider, key, dialect, parsed, prompt_of(dialect, parsed))
        self.calls.append(call)
        answer.begin(call)
        try:
            if key in self.dead_keys:
                await answer.fail(401, "invalid api key")
            elif key in self.key_limits and not self.key_limits[key].take():
                await answer.fail(429, "this key has had enough", "1")
            else:
                call.plan = replace(self.plan(call))
                await answer.give()
        except (HungUp, ConnectionError):
            call.closed_at = time.monotonic()
            raise Broken from None
        finally:
            call.ended_at = time.monotonic()


def prompt_of(dialect: str, body: dict) -> str:
    if dialect == "embeddings":
        return str(body.get("input"))
    texts = body.get("input") if dialect == "responses" else body.get("messages")
    return json.dumps(texts)


class Answer:
    """The answer to one call."""

    def __init__(self, provider: FaultyProvider, writer: asyncio.StreamWriter, watch: asyncio.Future):
        self.provider, self.writer, self.watch = provider, writer, watch

    def begin(self, call: Call) -> None:
        self.call = call
        self.words = {"chat": ChatWords, "messages": MessagesWords, "responses": ResponsesWords}.get(call.dialect, ChatWords)(call)

    # ---- out ----

    async def write(self, data: bytes) -> None:
        if self.watch.done():                      # nobody sends a second request before the first is answered
            raise HungUp
        self.writer.write(data)
        await self.writer.drain()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        done, _ = await asyncio.wait([self.watch], timeout=seconds)
        if done:
            raise HungUp

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Broken

    async def send(self, status: int, kind: str, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} Told So\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        await self.write(head.encode() + body)

    async def send_json(self, status: int, value: dict, headers: str = "") -> None:
        await self.send(status, "application/json", json.dumps(value).encode(), headers)

    async def fail(self, status: int, message: str, retry_after: str = "") -> None:
        self.call.is_refused = True
        headers = f"Retry-After: {retry_after}\r\n" if retry_after else ""
        await self.send_json(status, self.words.error(status, message), headers)

    # ---- faults ----

    async def give(self) -> None:
        call, plan = self.call, self.call.plan
        await self.sleep(plan.first)
        if plan.fault == "status":
            await self.fail(plan.status, "told to fail", plan.retry_after)
        elif plan.fault == "hang":
            await self.sleep(END_OF_TIME)
        elif plan.fault == "reset":
            self.reset()
        elif plan.fault == "close":
            raise Broken
        elif plan.fault == "not_http":
            await self.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            raise Broken
        elif plan.fault == "html":
            await self.send(200, "text/html", b"<html><body>Please log in</body></html>")
        elif plan.fault == "empty":
            await self.send(200, "application/json", b"")
        elif call.dialect == "embeddings":
            await self.embed()
        elif call.is_stream and plan.fault != "json":
            await self.stream()
        else:
            await self.whole()

    async def embed(self) -> None:
        inputs = self.call.body["input"]
        inputs = inputs if isinstance(inputs, list) else [inputs]
        used = 3 * len(inputs)
        data = [{"object": "embedding", "index": i, "embedding": [0.5, 0.25, 0.125, 1.0]} for i in range(len(inputs))]
        self.call.input_tokens = used
        await self.send_json(200, {"object": "list", "data": data, "model": self.call.model,
                                   "usage": {"prompt_tokens": used, "total_tokens": used}})
        self.call.is_usage_told = True

    async def whole(self) -> None:
        call, plan = self.call, self.call.plan
        if plan.fault == "error":
            await self.send_json(200, self.words.error(500, "told to fail"))
            return
        call.input_tokens = INPUT_TOKENS
        for _ in range(plan.tokens):
            await self.sleep(plan.delay)
            call.produced += 1
        body = json.dumps(self.words.whole()).encode()
        if plan.fault == "garbage":
            body = body[:len(body) // 2] + b"\x00<oops>"
        if plan.fault not in ("cut", "reset_at", "stall"):
            await self.send(200, "application/json", body)
            call.is_usage_told = plan.fault in ("none", "double_end", "no_end")
            return
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.write(head.encode() + body[:len(body) // 2])
        await self.break_off(plan.fault)

    async def break_off(self, fault: str) -> None:
        if fault == "reset_at":
            await asyncio.sleep(0.01)              # what was said before is not to be lost with it
            self.reset()
        if fault == "stall":
            await self.sleep(END_OF_TIME)
        raise Broken

    async def stream(self) -> None:
        call, plan = self.call, self.call.plan
        call.input_tokens = 0 if plan.fault == "error" and plan.at == 0 else INPUT_TOKENS    # who fails before any work asks nothing
        await self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self.events(self.words.prelude())
        is_broken = plan.fault in ("stall", "cut", "reset_at", "garbage", "error", "short")
        for number in range(plan.at if is_broken else plan.tokens):
            await self.sleep(plan.delay)
            await self.events([self.words.token(number)])
            call.produced += 1
        if is_broken:
            await self.sleep(plan.pause if plan.at else 0)
            await self.break_stream(plan.fault)
            return
        await self.events(self.words.finish())
        if self.words.tells_usage:
            await self.events(self.words.usage())
            call.is_usage_told = plan.fault != "no_usage"
        if plan.fault != "no_end":
            await self.events(self.words.end())
        if plan.fault == "double_end":
            await self.events(self.words.end())
        await self.write(b"0\r\n\r\n")

    async def break_stream(self, fault: str) -> None:
        if fault == "garbage":
            await self.events([b"data: {\"id\": \"x\", oops\x01\n\n"])
        elif fault == "error":
            await self.events([self.words.error_event()])
        elif fault != "short":
            await self.break_off(fault)
        await self.write(b"0\r\n\r\n")

    async def events(self, events: list[bytes]) -> None:
        whole = b"".join(events)
        if whole:
            await self.write(b"%x\r\n%s\r\n" % (len(whole), whole))


def event(value: dict, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


class ChatWords:
    def __init__(self, call: Call):
        self.call = call
        self.provider = call.provider
        self.id = f"chatcmpl-{call.provider}"

    def chunk(self, delta: dict, finish: str | None = None) -> bytes:
        return event({"id": self.id, "object": "chat.completion.chunk", "created": 1, "model": self.call.model,
                      "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    @property
    def tells_usage(self) -> bool:
        return self.call.plan.fault != "no_usage" and bool((self.call.body.get("stream_options") or {}).get("include_usage"))

    def counts(self) -> dict:
        used = self.call.produced
        return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": used, "total_tokens": INPUT_TOKENS + used}

    def prelude(self) -> list[bytes]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def token(self, number: int) -> bytes:
        return self.chunk({"content": token(self.provider, number)})

    def finish(self) -> list[bytes]:
        return [self.chunk({}, "stop")]

    def usage(self) -> list[bytes]:
        return [event({"id": self.id, "object": "chat.completion.chunk", "created": 1, "model": self.call.model,
                       "choices": [], "usage": self.counts()})]

    def end(self) -> list[bytes]:
        return [b"data: [DONE]\n\n"]

    def whole(self) -> dict:
        message = {"role": "assistant", "content": text_of(self.provider, self.call.produced), "refusal": None}
        reply = {"id": self.id, "object": "chat.completion", "created": 1, "model": self.call.model,
                 "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]}
        return reply | ({} if self.call.plan.fault == "no_usage" else {"usage": self.counts()})

    @staticmethod
    def error(status: int, message: str) -> dict:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                 429: "rate_limit_exceeded"}
        return {"error": {"message": message, "type": kinds.get(status, "server_error"), "param": None, "code": None}}

    def error_event(self) -> bytes:
        return event(self.error(500, "told to fail"))


class MessagesWords:
    tells_usage = True

    def __init__(self, call: Call):
        self.call = call
        self.provider = call.provider
        self.id = f"msg_{call.provider}"

    def message(self, content: list, stop: str | None, output: int) -> dict:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.call.model, "content": content,
                "stop_reason": stop, "stop_sequence": None,
                "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": output}}

    def named(self, value: dict) -> bytes:
        return event(value, value["type"])

    def prelude(self) -> list[bytes]:
        return [self.named({"type": "message_start", "message": self.message([], None, 1)}),
                self.named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                self.named({"type": "ping"})]

    def token(self, number: int) -> bytes:
        return self.named({"type": "content_block_delta", "index": 0,
                           "delta": {"type": "text_delta", "text": token(self.provider, number)}})

    def finish(self) -> list[bytes]:
        return [self.named({"type": "content_block_stop", "index": 0})]

    def usage(self) -> list[bytes]:
        used = {} if self.call.plan.fault == "no_usage" else {"usage": {"output_tokens": self.call.produced}}
        return [self.named({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, **used})]

    def end(self) -> list[bytes]:
        return [self.named({"type": "message_stop"})]

    def whole(self) -> dict:
        text = text_of(self.provider, self.call.produced)
        return self.message([{"type": "text", "text": text}], "end_turn", self.call.produced)

    @staticmethod
    def error(status: int, message: str) -> dict:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                 429: "rate_limit_error", 529: "overloaded_error"}
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}

    def error_event(self) -> bytes:
        return self.named(self.error(529, "told to fail"))


class ResponsesWords:
    tells_usage = True

    def __init__(self, call: Call):
        self.call = call
        self.provider = call.provider
        self.id = f"resp_{call.provider}"
        self.sequence = 0

    def response(self, status: str, text: str | None = None) -> dict:
        output = [] if text is None else [self.item("completed", text)]
        used = self.call.produced
        usage = None if text is None else {
            "input_tokens": INPUT_TOKENS, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": used,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": INPUT_TOKENS + used}
        return {"id": self.id, "object": "response", "created_at": 1, "status": status, "model": self.call.model,
                "output": output, "usage": usage, "error": None, "incomplete_details": None, "instructions": None,
                "metadata": {}, "parallel_tool_calls": True, "temperature": 1, "top_p": 1, "tool_choice": "auto",
                "tools": []}

    def item(self, status: str, text: str | None = None) -> dict:
        content = [] if text is None else [self.part(text)]
        return {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": content}

    @staticmethod
    def part(text: str) -> dict:
        return {"type": "output_text", "text": text, "annotations": []}

    def named(self, kind: str, **more) -> bytes:
        self.sequence += 1
        return event({"type": kind, "sequence_number": self.sequence - 1, **more}, kind)

    def prelude(self) -> list[bytes]:
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return [self.named("response.created", response=self.response("in_progress")),
                self.named("response.in_progress", response=self.response("in_progress")),
                self.named("response.output_item.added", output_index=0, item=self.item("in_progress")),
                self.named("response.content_part.added", **at, part=self.part(""))]

    def token(self, number: int) -> bytes:
        return self.named("response.output_text.delta", item_id="msg_1", output_index=0, content_index=0,
                          delta=token(self.provider, number), logprobs=[])

    def finish(self) -> list[bytes]:
        text = text_of(self.provider, self.call.produced)
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return [self.named("response.output_text.done", **at, text=text, logprobs=[]),
                self.named("response.content_part.done", **at, part=self.part(text)),
                self.named("response.output_item.done", output_index=0, item=self.item("completed", text))]

    def usage(self) -> list[bytes]:
        return []                                  # in the last event

    def end(self) -> list[bytes]:
        response = self.whole()
        return [self.named("response.completed", response=response)]

    def whole(self) -> dict:
        response = self.response("completed", text_of(self.provider, self.call.produced))
        return response | ({"usage": None} if self.call.plan.fault == "no_usage" else {})

    @staticmethod
    def error(status: int, message: str) -> dict:
        return ChatWords.error(status, message)

    def error_event(self) -> bytes:
        return self.named("error", code="server_error", message="told to fail", param=None)
