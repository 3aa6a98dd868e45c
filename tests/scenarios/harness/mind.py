"""What a fake model answers, whatever dialect it was asked in: decided by the last words of the user alone.

    say: WORDS                      the words themselves
    use NAME {JSON} (one a line)    calls these tools; with their results it answers "NAME: RESULT | ..."
    think (before one of the others)  thinks first; its thoughts must be back, byte for byte, beside the results
    look                            names the images by their SHA-256
    recite                          the system text
    stop: FINISH WORDS              ends as told: length, filter, stop (by the first stop sequence)
    anything else                   "You said: ..."
Where a JSON Schema was sent, the answer is JSON that fits it.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field

THOUGHT = "First I look,\nthen I \"answer\" – ünïcode."
SIGNATURE = base64.b64encode(hashlib.sha512(THOUGHT.encode()).digest() * 3).decode()


@dataclass
class Usage:
    """What every answer says it used: the cached tokens are among those of the input."""
    input: int = 100
    cached: int = 40
    written: int = 10
    output: int = 20
    reasoning: int = 8


USAGE = Usage()


@dataclass
class Question:
    """A request, told without its dialect."""
    dialect: str
    model: str
    is_stream: bool
    system: str = ""
    text: str = ""                                 # of the user's last message
    images: list[bytes] = field(default_factory=list)
    tools: dict[str, dict] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)          # id to name, of what was called since
    results: dict[str, str] = field(default_factory=dict)        # id to text, of what came back since
    thoughts: list[tuple[str, str]] = field(default_factory=list)    # text and signature since
    schema: dict | None = None
    stops: list[str] = field(default_factory=list)
    body: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)
    path: str = ""

    def begin(self) -> None:
        """A message of the user: what came before is history."""
        self.text = ""
        for part in (self.images, self.calls, self.results, self.thoughts):
            part.clear()


@dataclass
class Said:
    text: str = ""
    calls: list[tuple[str, dict]] = field(default_factory=list)
    thought: str = ""
    finish: str = "stop"                           # stop, sequence, length, tools, filter
    stop_sequence: str | None = None


class Refused(Exception):
    def __init__(self, status: int, message: str, headers: dict | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


def fitting(schema: dict, root: dict | None = None):
    """A value that fits the schema, always the same."""
    root = root or schema
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return fitting(target, root)
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return fitting(schema[word][0], root)
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: fitting(inner, root) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [fitting(schema.get("items", {"type": "string"}), root)] * 2
    return {"string": "text é", "integer": 7, "number": 1.5, "boolean": True, "null": None}[kind]


def answer(question: Question, signs: bool) -> Said:
    """`signs`: the dialect has signed thoughts, which must come back."""
    text = question.text.strip()
    thinks = text.startswith("think")
    text = text.removeprefix("think").strip() if thinks else text
    thought = THOUGHT if thinks else ""
    if question.results and not question.schema:
        if thinks and signs and (THOUGHT, SIGNATURE) not in question.thoughts:
            raise Refused(400, f"the thoughts are not back as they were: {question.thoughts}")
        return Said(" | ".join(f"{question.calls[id]}: {result}" for id, result in question.results.items()))
    if question.schema:
        return Said(json.dumps(fitting(question.schema), ensure_ascii=False), thought=thought)
    uses = re.findall(r"^use (\S+) (.*)$", text, re.MULTILINE)
    if uses:
        unknown = [name for name, _ in uses if name not in question.tools]
        if unknown:
            raise Refused(400, f"no such tool: {unknown}, there are {sorted(question.tools)}")
        return Said(calls=[(name, json.loads(arguments)) for name, arguments in uses], thought=thought, finish="tools")
    if text.startswith("look"):
        return Said(" ".join(hashlib.sha256(image).hexdigest() for image in question.images) or "nothing", thought=thought)
    if text.startswith("recite"):
        return Said(question.system or "nothing", thought=thought)
    if text.startswith("say: "):
        return Said(text.removeprefix("say: "), thought=thought)
    stop = re.match(r"stop: (\w+) (.*)", text)
    if stop and stop[1] == "sequence":
        return Said(stop[2], finish="sequence", stop_sequence=question.stops[0])
    if stop:
        return Said(stop[2], finish=stop[1])
    return Said(f"You said: {text}", thought=thought)
