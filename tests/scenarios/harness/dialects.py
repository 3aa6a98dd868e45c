"""Clients of the three compatible dialects that look closer than an SDK: every event, how the stream ended, what was said of a failure."""

import json
import time
from dataclasses import dataclass, field

import httpx

from .client import EventParser

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}


@dataclass
class Reply:
    """What a client saw of one call."""
    dialect: str
    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    text: str = ""
    begins: int = 0                                # roles, message_start, response.created
    is_complete: bool = False                      # the dialect's own end was seen
    error: dict | None = None                      # in the body, or in band
    is_cut: bool = False                           # the connection broke
    usage: tuple[int, int] | None = None
    body: bytes = b""
    pieces: list[float] = field(default_factory=list)     # when each piece of content came
    seconds: float = 0
    after_end: int = 0                             # events behind the end
    garbage: int = 0                               # events that are no JSON


def body_of(dialect: str, model: str, prompt: str, *, stream: bool, max_tokens: int = 64, **more) -> dict:
    if dialect == "responses":
        return {"model": model, "input": prompt, "stream": stream, "max_output_tokens": max_tokens, **more}
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream, "max_tokens": max_tokens}
    if dialect == "chat" and stream:
        body["stream_options"] = {"include_usage": True}
    return {**body, **more}


def ask(http: httpx.Client, dialect: str, model: str, prompt: str, *, stream: bool = False, headers: dict | None = None,
        stop_after: int = 0, **more) -> Reply:
    """One call; `stop_after`: hangs up after so many pieces of content."""
    reply = Reply(dialect)
    begun = time.monotonic()
    body = body_of(dialect, model, prompt, stream=stream, **more)
    try:
        with http.stream("POST", PATHS[dialect], json=body, headers=headers or {}) as answer:
            reply.status, reply.headers = answer.status_code, answer.headers
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                read_events(reply, answer, stop_after)
            else:
                reply.body = answer.read()
    except httpx.TransportError:
        reply.is_cut = True
    reply.seconds = time.monotonic() - begun
    if reply.body and not stream or reply.status != 200:
        read_whole(reply)
    return reply


def read_events(reply: Reply, answer: httpx.Response, stop_after: int) -> None:
    parser = EventParser()
    take = {"chat": take_chat, "messages": take_messages, "responses": take_responses}[reply.dialect]
    for piece in answer.iter_raw():
        reply.body += piece
        for event in parser.feed(piece):
            reply.after_end += reply.is_complete
            try:
                take(reply, event)
            except (ValueError, KeyError):
                reply.garbage += 1
        if stop_after and len(reply.pieces) >= stop_after:
            return
    assert not parser.pending, f"an event in part at the end: {parser.pending!r}"


def add_text(reply: Reply, text: str) -> None:
    if text:
        reply.text += text
        reply.pieces.append(time.monotonic())


def take_chat(reply: Reply, event) -> None:
    if event.data == "[DONE]":
        reply.is_complete = True
        return
    value = event.json()
    if "error" in value:
        reply.error = value["error"]
        return
    if value.get("usage"):
        reply.usage = (value["usage"]["prompt_tokens"], value["usage"]["completion_tokens"])
    for choice in value["choices"]:
        reply.begins += choice["delta"].get("role") is not None
        add_text(reply, choice["delta"].get("content") or "")


def take_messages(reply: Reply, event) -> None:
    value = event.json()
    assert value["type"] == event.type
    if event.type == "message_start":
        reply.begins += 1
        reply.usage = (value["message"]["usage"]["input_tokens"], 0)
    elif event.type == "content_block_delta":
        add_text(reply, value["delta"].get("text", ""))
    elif event.type == "message_delta":
        used = value.get("usage", {})
        reply.usage = (used.get("input_tokens") or reply.usage[0], used.get("output_tokens"))
    elif event.type == "message_stop":
        reply.is_complete = True
    elif event.type == "error":
        reply.error = value["error"]


def take_responses(reply: Reply, event) -> None:
    value = event.json()
    assert value["type"] == event.type
    if event.type == "response.created":
        reply.begins += 1
    elif event.type == "response.output_text.delta":
        add_text(reply, value["delta"])
    elif event.type == "response.completed":
        reply.is_complete = True
        used = value["response"]["usage"]
        reply.usage = used and (used["input_tokens"], used["output_tokens"])
    elif event.type == "response.failed":
        reply.error = value["response"]["error"]
    elif event.type == "error":
        reply.error = value.get("error") or value


def read_whole(reply: Reply) -> None:
    try:
        value = json.loads(reply.body)
    except ValueError:
        return
    if reply.status != 200:
        reply.error = value.get("error")
        return
    reply.is_complete = True
    reply.begins = 1
    if reply.dialect == "chat":
        reply.text = value["choices"][0]["message"]["content"]
        used = value.get("usage")
        reply.usage = used and (used["prompt_tokens"], used["completion_tokens"])
        return
    used = value.get("usage")
    reply.usage = used and (used["input_tokens"], used["output_tokens"])
    if reply.dialect == "messages":
        reply.text = "".join(part["text"] for part in value["content"])
    else:
        reply.text = "".join(part["text"] for item in value["output"] if item["type"] == "message" for part in item["content"])
