#!/usr/bin/env python3
"""Holds what llm/responses_format writes against the types of OpenAI's own Python SDK.

    NEXUS_SAMPLES=/tmp/samples build/dev/test_llm_responses_format
    tests/responses_types.py /tmp/samples

Needs the Python package openai.
"""
import json
import pathlib
import sys

import openai.types.responses as types
import pydantic
from openai.types.responses.response_item import ResponseItem

KINDS = {
    "response": pydantic.TypeAdapter(types.Response),
    "event": pydantic.TypeAdapter(types.ResponseStreamEvent),
    "items": pydantic.TypeAdapter(list[ResponseItem]),
}


def main():
    count = failed = 0
    for sample in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
        adapter = KINDS.get(sample.stem.split("_")[0])
        if not adapter:
            continue
        document = json.loads(sample.read_text())
        count += 1
        try:
            adapter.validate_python(document["data"] if sample.stem.startswith("items") else document)
        except pydantic.ValidationError as error:
            failed += 1
            print(f"{sample.name}: {error}")
    print(f"{count - failed} of {count} samples fit the SDK's types")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
