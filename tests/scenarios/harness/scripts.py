"""Messages that tell the offline stand-in what to do, so that a test needs no provider."""

import json


def script(*steps: dict, words: str = "please") -> str:
    return f"{words}\n[[offline {json.dumps({'script': list(steps)})}]]"


def call(name: str, **arguments) -> dict:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def say(text: str, **more) -> dict:
    return {"text": text, **more}
