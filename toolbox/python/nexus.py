"""What a program may ask of Nexus.

    import nexus
    nexus.call("text_processing", {"operation": "count", "text": "one two"})["counts"]

Each such call passes policy, budget and audit as if the model had made it.
"""
import json as _json

from componentize_py_types import Err as _Err
from wit_world.imports import host as _host


class ToolError(Exception):
    """A call that failed.  `code`: denied, not_found, invalid_input, limit, timeout, unavailable, ..."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def call(name, arguments=None):
    """Calls another tool and gives back its output."""
    request = _json.dumps({"name": name, "input": {} if arguments is None else arguments})
    try:
        answer = _host.call("tool_call", request)
    except _Err as error:
        why = _json.loads(error.value)
        raise ToolError(why["code"], why["message"]) from None
    return _json.loads(answer)
