#!/usr/bin/env python3
"""Holds what llm/anthropic_format writes against the JSON Schemas of the Messages API's official types.

    NEXUS_SAMPLES=/tmp/samples build/dev/test_llm_anthropic_format
    NEXUS_SAMPLES=/tmp/samples build/dev/test_llm_dialect_contract
    tests/anthropic_schema.py anthropic-types.json /tmp/samples

The document holds {"schemas": {"Message", "RawMessageStreamEvent", "ErrorResponse", "MessageCreateParamsNonStreaming", ...}}, as
pydantic makes them of the types of the Python package `anthropic`.  Without one ("-" in its place) the package itself is asked, which
then must be installed.  Needs the Python package jsonschema.
"""
import json
import pathlib
import sys

KINDS = {
    "request": "MessageCreateParamsNonStreaming",
    "stream": "MessageCreateParamsStreaming",
    "reply": "Message",
    "events": "RawMessageStreamEvent",
    "error": "ErrorResponse",
}
NOT_IN_TYPES = ("ping", "error")  # events that the SDK takes out before its types


def schemas_of_package():
    import anthropic.types as types
    import pydantic
    from anthropic.types import message_create_params

    kinds = {
        "MessageCreateParamsNonStreaming": message_create_params.MessageCreateParamsNonStreaming,
        "MessageCreateParamsStreaming": message_create_params.MessageCreateParamsStreaming,
        "Message": types.Message,
        "RawMessageStreamEvent": types.RawMessageStreamEvent,
        "ErrorResponse": types.ErrorResponse,
    }
    schemas = {}
    for name, kind in kinds.items():
        schemas[name] = pydantic.TypeAdapter(kind).json_schema(ref_template="#/schemas/" + name + "/$defs/{model}")
    return {"schemas": schemas}


def main():
    import jsonschema

    document = schemas_of_package() if sys.argv[1] == "-" else json.loads(pathlib.Path(sys.argv[1]).read_text())
    validators = {}
    for kind, name in KINDS.items():
        schema = {"$ref": "#/schemas/" + name, "schemas": document["schemas"]}
        validators[kind] = jsonschema.Draft202012Validator(schema)
    samples = sorted(pathlib.Path(sys.argv[2]).glob("anthropic_*.json"))
    failed = 0
    for sample in samples:
        kind = sample.stem.split("_")[1]
        content = json.loads(sample.read_text())
        values = [v for v in content if v["type"] not in NOT_IN_TYPES] if kind == "events" else [content]
        errors = [error for value in values for error in validators[kind].iter_errors(value)]
        for error in errors:
            best = jsonschema.exceptions.best_match([error])
            print(f"{sample.name}: {list(best.absolute_path)}: {best.message[:300]}")
        failed += bool(errors)
    print(f"{len(samples) - failed} of {len(samples)} samples fit the schema")
    return 1 if failed or not samples else 0


if __name__ == "__main__":
    sys.exit(main())
