"""The official Python SDKs in the same words: a conversation that says things, gives results of tools and keeps its own history.

Each answer, each event of a stream and each error is held against the SDK's own types (wire_types.py).  Modes: whole, stream, and both
with the asynchronous client.
"""

import asyncio
import base64
import json
from dataclasses import dataclass, field

import anthropic
import openai

from . import wire_types

MODES = ("whole", "stream", "async", "async-stream")


@dataclass
class Tool:
    name: str
    properties: dict
    description: str = "A tool of the caller"

    @property
    def schema(self) -> dict:
        return {"type": "object", "properties": self.properties, "required": list(self.properties), "additionalProperties": False}


@dataclass
class Answer:
    text: str
    calls: list[tuple[str, str, dict]]             # id, name, arguments
    finish: str                                    # stop, sequence, length, tools, filter
    usage: tuple[int, int, int]                    # input with what was cached, cached, output
    thoughts: str
    raw: object
    parsed: object = None
    events: list[str] = field(default_factory=list)


def plain(value) -> dict:
    """What came over the wire, without what the SDK's helpers put in."""
    tree = value if isinstance(value, dict) else value.to_dict(mode="json", warnings=False)
    return {key: without_helpers(inner) for key, inner in tree.items() if key not in HELPERS}


HELPERS = ("parsed", "parsed_arguments", "parsed_output", "snapshot")


def without_helpers(value):
    if isinstance(value, dict):
        return {key: without_helpers(inner) for key, inner in value.items() if key not in HELPERS}
    return [without_helpers(inner) for inner in value] if isinstance(value, list) else value


class Conversation:
    """`settings`: system, tools, choice, schema (a pydantic class), limit, stops, thinks, more (members of the request)."""
    sdk = ""

    def __init__(self, url: str, key: str, model: str, mode: str = "whole", *, retries: int = 0, headers: dict | None = None, **settings):
        self.url, self.key, self.model, self.mode = url, key, model, mode
        self.retries, self.headers, self.settings = retries, headers or {}, settings
        self.history: list = []

    # What the dialects do for themselves: user, results, append, request, call, stream, answer.

    def say(self, text: str, images: tuple[bytes, ...] = ()) -> Answer:
        self.history.append(self.user(text, images))
        return self.ask()

    def give(self, results: dict[str, str]) -> Answer:
        self.history += self.results(results)
        return self.ask()

    def ask(self) -> Answer:
        request = {**self.request(), **self.settings.get("more", {})}
        is_stream = "stream" in self.mode
        if self.mode.startswith("async"):
            raw, events = asyncio.run(self.ask_async(request, is_stream))
        else:
            with self.client() as client:
                raw, events = self.stream(client, request) if is_stream else (self.call(client, request), [])
        answer = self.answer(raw)
        answer.events = events
        self.append(raw)
        return answer

    def options(self, http_client) -> dict:
        """Nothing here is encrypted, and to read the machine's certificates takes longer than the whole test."""
        return {"api_key": self.key, "max_retries": self.retries, "default_headers": self.headers, "http_client": http_client(verify=False)}

    async def ask_async(self, request: dict, is_stream: bool):
        async with self.async_client() as client:
            if not is_stream:
                return await self.call(client, request), []
            events = []
            async with self.open_stream(client, request) as stream:
                async for event in stream:
                    events.append(self.check_event(event))
                return await self.final_async(stream), events

    def stream(self, client, request: dict):
        events = []
        with self.open_stream(client, request) as stream:
            for event in stream:
                events.append(self.check_event(event))
            return self.final(stream), events


class OpenAI(Conversation):
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", **self.options(openai.DefaultHttpxClient))

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url + "/v1", **self.options(openai.DefaultAsyncHttpxClient))


class ChatConversation(OpenAI):
    sdk = "chat"
    FINISH = {"stop": "stop", "length": "length", "tool_calls": "tools", "content_filter": "filter"}

    def user(self, text, images) -> dict:
        urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return {"role": "user", "content": [{"type": "text", "text": text}, *parts] if parts else text}

    def results(self, results) -> list:
        return [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results.items()]

    def append(self, raw) -> None:
        message = {name: value for name, value in plain(raw.choices[0].message).items() if value is not None}
        for call in message.get("tool_calls", []):
            call.pop("index", None)                # of its pieces in the stream
        self.history.append(message)

    def request(self) -> dict:
        settings = self.settings
        system = [{"role": "system", "content": settings["system"]}] if "system" in settings else []
        request = {"model": self.model, "messages": [*system, *self.history]}
        if "tools" in settings:
            request["tools"] = [{"type": "function", "function": {
                "name": tool.name, "description": tool.description, "parameters": tool.schema, "strict": True,
            }} for tool in settings["tools"]]
        if "choice" in settings:
            request["tool_choice"] = settings["choice"]
        if "limit" in settings:
            request["max_completion_tokens"] = settings["limit"]
        if "stops" in settings:
            request["stop"] = settings["stops"]
        if settings.get("thinks"):
            request["reasoning_effort"] = "high"
        if "schema" in settings:
            request["response_format"] = settings["schema"]
        return request

    def call(self, client, request):
        if "schema" in self.settings:
            return client.chat.completions.parse(**request)
        return client.chat.completions.create(**request)

    def open_stream(self, client, request):
        return client.chat.completions.stream(**request, stream_options={"include_usage": True})

    def check_event(self, event) -> str:
        if event.type == "chunk":
            wire_types.check("chat.chunk", plain(event.chunk))
        return event.type

    def final(self, stream):
        return stream.get_final_completion()

    async def final_async(self, stream):
        return await stream.get_final_completion()

    def answer(self, raw) -> Answer:
        if "stream" not in self.mode:
            wire_types.check("chat.reply", plain(raw))
        choice, usage = raw.choices[0], raw.usage
        calls = [(call.id, call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or []]
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        return Answer(choice.message.content or "", calls, self.FINISH[choice.finish_reason],
                      (usage.prompt_tokens, cached, usage.completion_tokens),
                      getattr(choice.message, "reasoning_content", None) or "", raw, getattr(choice.message, "parsed", None))


class ResponsesConversation(OpenAI):
    sdk = "responses"

    def user(self, text, images) -> dict:
        urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
        parts = [{"type": "input_image", "detail": "auto", "image_url": url} for url in urls]
        return {"role": "user", "content": [{"type": "input_text", "text": text}, *parts]}

    def results(self, results) -> list:
        return [{"type": "function_call_output", "call_id": id, "output": text} for id, text in results.items()]

    def append(self, raw) -> None:
        if self.settings.get("chained"):
            self.history, self.previous = [], raw.id
        else:
            self.history += [plain(item) for item in raw.output]

    previous = None

    def request(self) -> dict:
        settings = self.settings
        request = {"model": self.model, "input": list(self.history)}
        if self.previous:
            request["previous_response_id"] = self.previous
        if "system" in settings:
            request["instructions"] = settings["system"]
        if "tools" in settings:
            request["tools"] = [{"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.schema,
                                 "strict": True} for tool in settings["tools"]]
        if "choice" in settings:
            request["tool_choice"] = settings["choice"]
        if "limit" in settings:
            request["max_output_tokens"] = settings["limit"]
        if settings.get("thinks"):
            request |= {"reasoning": {"effort": "high"}, "include": ["reasoning.encrypted_content"]}
        if "schema" in settings:
            request["text_format"] = settings["schema"]
        return request

    def call(self, client, request):
        if "schema" in self.settings:
            return client.responses.parse(**request)
        return client.responses.create(**request)

    def open_stream(self, client, request):
        self.number = 0
        return client.responses.stream(**request)

    def check_event(self, event) -> str:
        tree = plain(event)
        wire_types.check("responses.event", tree)
        assert tree["sequence_number"] == self.number, tree
        self.number += 1
        self.last = getattr(event, "response", None)
        return event.type

    def final(self, stream):
        """The helper gives no answer that is incomplete."""
        return self.last if self.last.status == "incomplete" else stream.get_final_response()

    async def final_async(self, stream):
        return self.last if self.last.status == "incomplete" else await stream.get_final_response()

    def answer(self, raw) -> Answer:
        wire_types.check("responses.reply", plain(raw))
        calls = [(item.call_id, item.name, json.loads(item.arguments)) for item in raw.output if item.type == "function_call"]
        thoughts = "".join(part.text for item in raw.output if item.type == "reasoning" for part in item.content or [])
        reasons = {"max_output_tokens": "length", "content_filter": "filter"}
        finish = reasons[raw.incomplete_details.reason] if raw.status == "incomplete" else "tools" if calls else "stop"
        usage = raw.usage
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        return Answer(raw.output_text, calls, finish, (usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens),
                      thoughts, raw, getattr(raw, "output_parsed", None))


class MessagesConversation(Conversation):
    sdk = "messages"
    FINISH = {"end_turn": "stop", "stop_sequence": "sequence", "max_tokens": "length", "tool_use": "tools", "refusal": "filter"}
    RAW = ("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop")

    def client(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url, **self.options(anthropic.DefaultHttpxClient))

    def async_client(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.url, **self.options(anthropic.DefaultAsyncHttpxClient))

    def user(self, text, images) -> dict:
        blocks = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(image).decode()}}
                  for image in images]
        return {"role": "user", "content": [*blocks, {"type": "text", "text": text}] if blocks else text}

    def results(self, results) -> list:
        return [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": text} for id, text in results.items()]}]

    def append(self, raw) -> None:
        self.history.append({"role": "assistant", "content": [plain(block) for block in raw.content]})

    def request(self) -> dict:
        settings = self.settings
        request = {"model": self.model, "messages": list(self.history), "max_tokens": settings.get("limit", 2000)}
        if "system" in settings:
            request["system"] = settings["system"]
        if "tools" in settings:
            request["tools"] = [{"name": tool.name, "description": tool.description, "input_schema": tool.schema, "strict": True}
                                for tool in settings["tools"]]
        if "choice" in settings:
            request["tool_choice"] = {"type": {"required": "any"}.get(settings["choice"], settings["choice"])}
        if "stops" in settings:
            request["stop_sequences"] = settings["stops"]
        if settings.get("thinks"):
            request["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        if "schema" in settings:
            request["output_format"] = settings["schema"]
        return request

    def call(self, client, request):
        if "schema" in self.settings:
            return client.messages.parse(**request)
        return client.messages.create(**request)

    def open_stream(self, client, request):
        return client.messages.stream(**request)

    def check_event(self, event) -> str:
        if event.type in self.RAW:
            tree = plain(event)
            if event.type in ("message_stop", "content_block_stop"):
                tree.pop("message", None), tree.pop("content_block", None)   # the helper's
            wire_types.check("anthropic.event", tree)
        return event.type

    def final(self, stream):
        return stream.get_final_message()

    async def final_async(self, stream):
        return await stream.get_final_message()

    def answer(self, raw) -> Answer:
        wire_types.check("anthropic.reply", plain(raw))
        calls = [(block.id, block.name, block.input) for block in raw.content if block.type == "tool_use"]
        text = "".join(block.text for block in raw.content if block.type == "text")
        thoughts = "".join(block.thinking for block in raw.content if block.type == "thinking")
        read, written = raw.usage.cache_read_input_tokens or 0, raw.usage.cache_creation_input_tokens or 0
        return Answer(text, calls, self.FINISH[raw.stop_reason], (raw.usage.input_tokens + read + written, read, raw.usage.output_tokens),
                      thoughts, raw, getattr(raw, "parsed_output", None))


SDKS = {"chat": ChatConversation, "responses": ResponsesConversation, "messages": MessagesConversation}
