#!/usr/bin/env python3
"""Holds what llm/openai_format and llm/responses_format write against OpenAI's own OpenAPI document.

    NEXUS_SAMPLES=/tmp/samples build/dev/test_llm_openai_format
    tests/openai_schema.py openapi.json /tmp/samples

The document is OpenAI's openapi.json (openai/openai-openapi); needs the Python package jsonschema.
"""
import json
import pathlib
import sys

import jsonschema

KINDS = {
    "request": "CreateChatCompletionRequest",
    "reply": "CreateChatCompletionResponse",
    "chunk": "CreateChatCompletionStreamResponse",
    "error": "ErrorResponse",
    "create": "CreateResponse",
    "response": "Response",
    "event": "ResponseStreamEvent",
    "items": "ResponseItemList",
}


def as_json_schema(value):
    """Defaults play no part in validation; `nullable` of OpenAPI 3.0 lives on in places and means "or null".

    Where a discriminator tells the alternatives apart they may overlap as schemas: input messages fit two of them.
    """
    if isinstance(value, dict):
        plain = {k: as_json_schema(v) for k, v in value.items() if k not in ("default", "nullable")}
        if "discriminator" in plain and "oneOf" in plain:
            plain["anyOf"] = plain.pop("oneOf")
        return {"anyOf": [plain, {"type": "null"}]} if value.get("nullable") is True else plain
    if isinstance(value, list):
        return [as_json_schema(v) for v in value]
    return value


def main():
    document = as_json_schema(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    samples = [s for s in sorted(pathlib.Path(sys.argv[2]).glob("*.json")) if s.stem.split("_")[0] in KINDS]
    failed = 0
    for sample in samples:
        schema = {"$ref": "#/components/schemas/" + KINDS[sample.stem.split("_")[0]], "components": document["components"]}
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(sample.read_text())))
        for error in errors:
            print(f"{sample.name}: {list(error.absolute_path)}: {error.message[:300]}")
        failed += bool(errors)
    print(f"{len(samples) - failed} of {len(samples)} samples fit the schema")
    return 1 if failed or not samples else 0


if __name__ == "__main__":
    sys.exit(main())
