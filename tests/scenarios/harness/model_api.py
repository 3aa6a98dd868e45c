"""A fake provider in every dialect: OpenAI Chat, Responses, embeddings and models, Anthropic Messages and count_tokens.

What it answers says mind.py.  Each request is held against the SDKs' own types (wire_types.py) and against the rules that the types
cannot tell (roles, results that belong to calls); a request that breaks one is answered with 400 and kept in `misfits`.

The path decides about failures, so that each test can have a target of its own:
    /fail/STATUS/ANYTHING/v1/...         always this error
    /flaky/STATUS/COUNT/ANYTHING/v1/...  this error so many times, then answers
"""

import base64
import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import mind, wire_types
from .mind import Question, Refused, Said, USAGE

CREATED = 1_750_000_000
WORDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}


def pieces_of(text: str, size: int = 7) -> list[str]:
    return [text[at:at + size] for at in range(0, len(text), size)]


def compact(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def must(is_right: bool, message: str) -> None:
    if not is_right:
        raise wire_types.Misfit(message)


def image_of_url(url: str) -> bytes:
    head, _, data = url.partition(";base64,")
    must(head.startswith("data:image/"), f"no image: {url[:60]}")
    return base64.b64decode(data, validate=True)


class Dialect:
    name = ""
    type_name = ""                                 # of wire_types
    signs = False
    answer_count = 0

    def request_type(self, body: dict) -> str:
        return f"{self.type_name}.{'stream' if body.get('stream') else 'request'}"

    def check(self, body: dict) -> None:
        wire_types.check(self.request_type(body), body)

    def next_id(self, prefix: str) -> str:
        Dialect.answer_count += 1
        return f"{prefix}{Dialect.answer_count:08x}"

    def error(self, status: int, message: str) -> dict:
        return {"error": {"message": message, "type": WORDS.get(status, "api_error"), "param": None, "code": None}}


# ---- OpenAI Chat Completions ----

class Chat(Dialect):
    name = type_name = "chat"
    FINISH = {"stop": "stop", "sequence": "stop", "length": "length", "tools": "tool_calls", "filter": "content_filter"}

    def check(self, body: dict) -> None:
        """Helpers of the SDKs send their own members along with an answer that goes back; that API has always let them."""
        def without(value):
            if isinstance(value, dict):
                return {name: without(inner) for name, inner in value.items() if name not in ("parsed", "parsed_arguments")}
            return [without(inner) for inner in value] if isinstance(value, list) else value
        super().check({**body, "messages": without(body.get("messages"))})

    def read(self, body: dict) -> Question:
        question = Question(self.name, body["model"], bool(body.get("stream")))
        for message in body["messages"]:
            getattr(self, f"read_{message['role']}")(question, message)
        question.tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", [])}
        shape = body.get("response_format") or {}
        if shape.get("type") == "json_schema":
            question.schema = shape["json_schema"]["schema"]
        stops = body.get("stop") or []
        question.stops = [stops] if isinstance(stops, str) else stops
        return question

    def read_system(self, question: Question, message: dict) -> None:
        question.system += self.text(message["content"])

    read_developer = read_system

    def read_user(self, question: Question, message: dict) -> None:
        must(question.calls.keys() == question.results.keys(), "calls without results")
        question.begin()
        question.text = self.text(message["content"])
        parts = message["content"] if isinstance(message["content"], list) else []
        question.images += [image_of_url(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]

    def read_assistant(self, question: Question, message: dict) -> None:
        must(question.calls.keys() == question.results.keys(), "calls without results")
        for call in message.get("tool_calls") or []:
            json.loads(call["function"]["arguments"])
            question.calls[call["id"]] = call["function"]["name"]

    def read_tool(self, question: Question, message: dict) -> None:
        must(message["tool_call_id"] in question.calls, f"the result of no call: {message}")
        question.results[message["tool_call_id"]] = self.text(message["content"])

    @staticmethod
    def text(content) -> str:
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    def usage(self) -> dict:
        return {"prompt_tokens": USAGE.input, "completion_tokens": USAGE.output, "total_tokens": USAGE.input + USAGE.output,
                "prompt_tokens_details": {"cached_tokens": USAGE.cached},
                "completion_tokens_details": {"reasoning_tokens": USAGE.reasoning}}

    def call(self, name: str, arguments: str) -> dict:
        return {"id": self.next_id("call_"), "type": "function", "function": {"name": name, "arguments": arguments}}

    def whole(self, question: Question, said: Said) -> dict:
        message = {"role": "assistant", "content": said.text or None, "refusal": None}
        if said.thought:
            message["reasoning_content"] = said.thought
        if said.calls:
            message["tool_calls"] = [self.call(name, compact(arguments)) for name, arguments in said.calls]
        choice = {"index": 0, "message": message, "finish_reason": self.FINISH[said.finish], "logprobs": None}
        return {"id": self.next_id("chatcmpl-"), "object": "chat.completion", "created": CREATED, "model": question.model,
                "choices": [choice], "usage": self.usage()}

    def events(self, question: Question, said: Said):
        head = {"id": self.next_id("chatcmpl-"), "object": "chat.completion.chunk", "created": CREATED, "model": question.model}

        def chunk(delta: dict, finish: str | None = None):
            return "", {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}

        yield chunk({"role": "assistant", "content": ""})
        for piece in pieces_of(said.thought):
            yield chunk({"reasoning_content": piece})
        for piece in pieces_of(said.text):
            yield chunk({"content": piece})
        for index, (name, arguments) in enumerate(said.calls):
            yield chunk({"tool_calls": [{"index": index, **self.call(name, "")}]})
            for piece in pieces_of(compact(arguments)):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield chunk({}, self.FINISH[said.finish])
        if (question.body.get("stream_options") or {}).get("include_usage"):
            yield "", {**head, "choices": [], "usage": self.usage()}
        yield "", "[DONE]"


# ---- OpenAI Responses ----

class Responses(Dialect):
    name = type_name = "responses"
    signs = True

    def __init__(self):
        self.stored: dict[str, list] = {}          # by id, the conversation up to and with that answer

    @staticmethod
    def items_of(body: dict) -> list[dict]:
        items = body.get("input") or []
        return [{"type": "message", "role": "user", "content": items}] if isinstance(items, str) else items

    def history_of(self, body: dict) -> list[dict]:
        previous = body.get("previous_response_id")
        must(not previous or previous in self.stored, f"no such answer: {previous}")
        return self.stored.get(previous, [])

    def read(self, body: dict) -> Question:
        question = Question(self.name, body["model"], bool(body.get("stream")), system=body.get("instructions") or "")
        for item in self.history_of(body) + self.items_of(body):
            self.read_item(question, item)
        question.tools = {tool["name"]: tool["parameters"] for tool in body.get("tools", [])}
        shape = (body.get("text") or {}).get("format") or {}
        question.schema = shape.get("schema")
        return question

    def read_item(self, question: Question, item: dict) -> None:
        kind = item.get("type", "message")
        if kind == "message" and item["role"] == "user":
            question.begin()
            content = item["content"]
            parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
            question.text = "".join(part.get("text", "") for part in parts)
            question.images += [image_of_url(part["image_url"]) for part in parts if part["type"] == "input_image"]
        elif kind == "message" and item["role"] in ("system", "developer"):
            question.system += Chat.text(item["content"])
        elif kind == "reasoning":
            text = "".join(part["text"] for part in item.get("content") or [])
            question.thoughts.append((text, item.get("encrypted_content") or ""))
        elif kind == "function_call":
            question.calls[item["call_id"]] = item["name"]
        elif kind == "function_call_output":
            must(item["call_id"] in question.calls, f"the result of no call: {item}")
            question.results[item["call_id"]] = Chat.text(item["output"])

    def output(self, said: Said) -> list[dict]:
        items = []
        if said.thought:
            items.append({"type": "reasoning", "id": self.next_id("rs_"), "summary": [], "encrypted_content": mind.SIGNATURE,
                          "content": [{"type": "reasoning_text", "text": said.thought}], "status": "completed"})
        if said.text:
            part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
            items.append({"type": "message", "id": self.next_id("msg_"), "role": "assistant", "status": "completed", "content": [part]})
        items += [{"type": "function_call", "id": self.next_id("fc_"), "call_id": self.next_id("call_"), "name": name,
                   "arguments": compact(arguments), "status": "completed"} for name, arguments in said.calls]
        return items

    def document(self, question: Question, said: Said) -> dict:
        body, reason = question.body, {"length": "max_output_tokens", "filter": "content_filter"}.get(said.finish)
        id, output = self.next_id("resp_"), self.output(said)
        if body.get("store", True):
            self.stored[id] = self.history_of(body) + self.items_of(body) + output
        return {
            "id": id, "object": "response", "created_at": CREATED, "model": question.model,
            "status": "incomplete" if reason else "completed", "incomplete_details": {"reason": reason} if reason else None,
            "error": None, "instructions": body.get("instructions"), "metadata": body.get("metadata") or {}, "temperature": 1.0,
            "top_p": 1.0, "parallel_tool_calls": True, "tool_choice": body.get("tool_choice", "auto"), "tools": body.get("tools", []),
            "text": body.get("text") or {"format": {"type": "text"}}, "truncation": "disabled", "output": output,
            "previous_response_id": body.get("previous_response_id"), "max_output_tokens": body.get("max_output_tokens"),
            "usage": {"input_tokens": USAGE.input, "input_tokens_details": {"cached_tokens": USAGE.cached, "cache_write_tokens": 0},
                      "output_tokens": USAGE.output, "output_tokens_details": {"reasoning_tokens": USAGE.reasoning},
                      "total_tokens": USAGE.input + USAGE.output},
        }

    def whole(self, question: Question, said: Said) -> dict:
        return self.document(question, said)

    def events(self, question: Question, said: Said):
        document, number = self.document(question, said), 0
        begun = {**document, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        told = [("response.created", {"response": begun}), ("response.in_progress", {"response": begun})]
        for index, item in enumerate(document["output"]):
            told += self.item_events(index, item)
        told.append((f"response.{document['status']}", {"response": document}))
        for kind, event in told:
            yield kind, {"type": kind, "sequence_number": number, **event}
            number += 1

    @staticmethod
    def item_events(index: int, item: dict) -> list[tuple[str, dict]]:
        place = {"output_index": index, "item_id": item["id"]}
        kind = item["type"]
        empty = {**item, "status": "in_progress"} | ({"arguments": ""} if kind == "function_call" else {"content": []})
        events = [("response.output_item.added", {"output_index": index, "item": empty})]
        if kind == "function_call":
            events += [("response.function_call_arguments.delta", {**place, "delta": piece}) for piece in pieces_of(item["arguments"])]
            events.append(("response.function_call_arguments.done", {**place, "name": item["name"], "arguments": item["arguments"]}))
        else:
            part = item["content"][0]
            word, more = ("output_text", {"logprobs": []}) if kind == "message" else ("reasoning_text", {})
            place["content_index"] = 0
            events.append(("response.content_part.added", {**place, "part": {**part, "text": ""}}))
            events += [(f"response.{word}.delta", {**place, **more, "delta": piece}) for piece in pieces_of(part["text"])]
            events.append((f"response.{word}.done", {**place, **more, "text": part["text"]}))
            events.append(("response.content_part.done", {**place, "part": part}))
        return [*events, ("response.output_item.done", {"output_index": index, "item": item})]


# ---- Anthropic Messages ----

class Messages(Dialect):
    name, type_name, signs = "messages", "anthropic", True
    FINISH = {"stop": "end_turn", "sequence": "stop_sequence", "length": "max_tokens", "tools": "tool_use", "filter": "refusal"}

    def read(self, body: dict) -> Question:
        question = Question(self.name, body["model"], bool(body.get("stream")), system=Chat.text(body.get("system") or ""))
        roles = [message["role"] for message in body["messages"]]
        must(roles[0] == "user" and all(a != b for a, b in zip(roles, roles[1:])), f"roles: {roles}")
        open_calls: set[str] = set()
        for message in body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            must(blocks != [], "a message without content")
            open_calls = self.read_message(question, message["role"], blocks, open_calls)
        must(not open_calls, f"calls without results: {open_calls}")
        question.tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools", []) if "input_schema" in tool}
        shape = (body.get("output_config") or {}).get("format") or {}
        question.schema = shape.get("schema")
        question.stops = body.get("stop_sequences", [])
        return question

    def read_message(self, question: Question, role: str, blocks: list[dict], open_calls: set[str]) -> set[str]:
        results = [block for block in blocks if block["type"] == "tool_result"]
        must({block["tool_use_id"] for block in results} == open_calls, f"results of {open_calls} expected: {blocks}")
        must(all(block["type"] == "tool_result" for block in blocks[:len(results)]), "results come first")
        if role == "user" and len(results) < len(blocks):
            question.begin()
        for block in blocks:
            kind = block["type"]
            if kind == "text" and role == "user":
                must(block["text"].strip() != "", "an empty text")
                question.text += block["text"]
            elif kind == "image":
                question.images.append(base64.b64decode(block["source"]["data"], validate=True))
            elif kind == "tool_use":
                must(re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]) is not None, f"an id that the API refuses: {block['id']}")
                question.calls[block["id"]] = block["name"]
            elif kind == "tool_result":
                question.results[block["tool_use_id"]] = Chat.text(block.get("content") or "")
            elif kind == "thinking":
                question.thoughts.append((block["thinking"], block["signature"]))
        return {block["id"] for block in blocks if block["type"] == "tool_use"}

    def usage(self, output: int) -> dict:
        return {"input_tokens": USAGE.input - USAGE.cached - USAGE.written, "cache_read_input_tokens": USAGE.cached,
                "cache_creation_input_tokens": USAGE.written, "output_tokens": output}

    def message(self, question: Question, content: list, finish: str | None, stop: str | None, usage: dict) -> dict:
        return {"id": self.next_id("msg_"), "type": "message", "role": "assistant", "model": question.model, "content": content,
                "stop_reason": finish, "stop_sequence": stop, "usage": usage, "container": None, "stop_details": None}

    def content(self, said: Said) -> list[dict]:
        blocks = [{"type": "thinking", "thinking": said.thought, "signature": mind.SIGNATURE}] if said.thought else []
        blocks += [{"type": "text", "text": said.text, "citations": None}] if said.text else []
        return blocks + [{"type": "tool_use", "id": self.next_id("toolu_"), "name": name, "input": arguments,
                          "caller": {"type": "direct"}} for name, arguments in said.calls]

    def whole(self, question: Question, said: Said) -> dict:
        usage = {**self.usage(USAGE.output), "output_tokens_details": {"thinking_tokens": USAGE.reasoning}}
        return self.message(question, self.content(said), self.FINISH[said.finish], said.stop_sequence, usage)

    def events(self, question: Question, said: Said):
        for event in self.all_events(question, said):
            yield event["type"], event

    def all_events(self, question: Question, said: Said):
        yield {"type": "message_start", "message": self.message(question, [], None, None, self.usage(1))}
        yield {"type": "ping"}
        for index, block in enumerate(self.content(said)):
            yield from self.block_events(index, block)
        delta = {"stop_reason": self.FINISH[said.finish], "stop_sequence": said.stop_sequence, "container": None, "stop_details": None}
        usage = {**self.usage(USAGE.output), "output_tokens_details": {"thinking_tokens": USAGE.reasoning}}
        yield {"type": "message_delta", "delta": delta, "usage": usage}
        yield {"type": "message_stop"}

    @staticmethod
    def block_events(index: int, block: dict):
        kind = block["type"]
        empty = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}, "tool_use": {"input": {}}}[kind]
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
        if kind == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces_of(compact(block["input"]))]]
        else:
            deltas = [{"type": f"{kind}_delta", kind: piece} for piece in pieces_of(block[kind])]
        if kind == "thinking":
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}

    def error(self, status: int, message: str) -> dict:
        return {"type": "error", "error": {"type": WORDS.get(status, "api_error"), "message": message}, "request_id": "req_fake"}


DIALECTS = {"/chat/completions": Chat(), "/responses": Responses(), "/messages": Messages()}


# ---- the server ----

def vector_of(text: str, size: int) -> list[float]:
    numbers = [float(1 + (sum(text.encode()) * (at + 3)) % 17) for at in range(size)]
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


class ModelApi:
    KEY = "sk-fake-3a55b07d24e4f6d81f9c"

    def __init__(self):
        self.questions: list[Question] = []
        self.misfits: list[str] = []
        self.failures: dict[str, int] = {}
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), handler_of(self))
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def provider(self, name: str, type: str, prefix: str = "", **more) -> dict:
        """The configuration of a provider that is this server."""
        return {"name": name, "type": type, "base_url": f"{self.address}{prefix}/v1", "api_keys": ["${env:FAKE_KEY}"], **more}

    @property
    def environment(self) -> dict:
        return {"FAKE_KEY": self.KEY}

    @property
    def last(self) -> Question:
        return self.questions[-1]

    def fails(self, path: str) -> int:
        """The status that this path says now; 0: none."""
        always = re.match(r"/fail/(\d+)/", path)
        flaky = re.match(r"/flaky/(\d+)/(\d+)/", path)
        with self.lock:
            self.failures[path] = self.failures.get(path, 0) + 1
            is_now = flaky and self.failures[path] <= int(flaky[2])
        return int(always[1]) if always else int(flaky[1]) if is_now else 0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """Callers may hang up."""


def handler_of(api: ModelApi) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments):
            pass

        def do_GET(self):
            models = [{"id": "tiny", "object": "model", "created": CREATED, "owned_by": "fake"}]
            self.send_json(200, {"object": "list", "data": models})

        def do_DELETE(self):
            id = self.path.rpartition("/")[2]
            is_known = DIALECTS["/responses"].stored.pop(id, None) is not None
            self.send_json(200 if is_known else 404, {"id": id, "object": "response", "deleted": is_known})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            route = self.path.split("?")[0].partition("/v1")[2]
            dialect = DIALECTS.get(route.removesuffix("/count_tokens")) or DIALECTS["/chat/completions"]
            try:
                self.check_key(dialect)
                status = api.fails(self.path)
                if status:
                    raise Refused(status, f"told to fail with {status}", {"Retry-After": "1"} if status == 429 else {})
                self.answer(route, dialect, body)
            except wire_types.Misfit as misfit:
                with api.lock:
                    api.misfits.append(f"{self.path}: {misfit}\n{compact(body)[:3000]}")
                self.send_json(400, dialect.error(400, str(misfit)))
            except Refused as refused:
                self.send_json(refused.status, dialect.error(refused.status, refused.message), refused.headers)

        def check_key(self, dialect: Dialect) -> None:
            key = self.headers.get("x-api-key") if dialect.name == "messages" else self.headers.get("Authorization", "")[7:]
            if key != api.KEY:
                raise Refused(401, "Incorrect API key provided")
            must(dialect.name != "messages" or self.headers.get("anthropic-version"), "no anthropic-version")

        def answer(self, route: str, dialect: Dialect, body: dict) -> None:
            if route == "/embeddings":
                wire_types.check("embeddings.request", body)
                return self.send_json(200, self.embeddings(body))
            if route == "/messages/count_tokens":
                wire_types.check("anthropic.count", body)
                return self.send_json(200, {"input_tokens": len(compact(body["messages"]))})
            dialect.check(body)
            question = dialect.read(body)
            question.body, question.headers, question.path = body, dict(self.headers), self.path
            with api.lock:
                api.questions.append(question)
            said = mind.answer(question, dialect.signs)
            if not question.is_stream:
                return self.send_json(200, dialect.whole(question, said))
            return self.stream(dialect.events(question, said))

        def embeddings(self, body: dict) -> dict:
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            vectors = [vector_of(text, body.get("dimensions", 8)) for text in texts]
            data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
            count = sum(len(text) for text in texts)
            return {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": count, "total_tokens": count}}

        def stream(self, events) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for name, event in events:
                data = event if isinstance(event, str) else json.dumps(event)
                head = f"event: {name}\n" if name else ""
                piece = f"{head}data: {data}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def send_json(self, status: int, value: dict, headers: dict | None = None) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

    return Handler
