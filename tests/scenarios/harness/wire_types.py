"""Requests and answers held against the official SDKs' own types, strictly: a member that the type does not know is wrong too."""

import functools

import jsonschema
import pydantic

# What servers of these dialects say beyond the types, and every client of theirs is used to.
EXTENSIONS = {
    "ChatCompletionMessage": ("reasoning_content", "thinking_blocks"),
    "ChoiceDelta": ("reasoning_content", "thinking_blocks"),
    "ChatCompletionAssistantMessageParam": ("reasoning_content", "thinking_blocks"),
    "Response": ("store",),
    # Of the API's version 2023-06-01, which the newest types have left behind.
    "MessageCreateParamsNonStreaming": ("temperature", "top_p", "top_k"),
    "MessageCreateParamsStreaming": ("temperature", "top_p", "top_k"),
    "ResponseFunctionCallArgumentsDoneEvent": ("name",),
}


class Misfit(AssertionError):
    """It does not fit; says where and why."""


def type_of(name: str):
    """The SDKs are large: only what is asked for is loaded."""
    if name.startswith("anthropic."):
        import anthropic.types as types
        from anthropic.types import message_count_tokens_params, message_create_params

        return {
            "anthropic.request": message_create_params.MessageCreateParamsNonStreaming,
            "anthropic.stream": message_create_params.MessageCreateParamsStreaming,
            "anthropic.count": message_count_tokens_params.MessageCountTokensParams,
            "anthropic.reply": types.Message,
            "anthropic.event": types.RawMessageStreamEvent,
            "anthropic.error": types.ErrorResponse,
            "anthropic.tokens": types.MessageTokensCount,
            "anthropic.model": types.ModelInfo,
        }[name]
    import openai.types as types
    from openai.types import chat, embedding_create_params, responses
    from openai.types.chat import completion_create_params
    from openai.types.responses import response_create_params, response_item

    return {
        "chat.request": completion_create_params.CompletionCreateParamsNonStreaming,
        "chat.stream": completion_create_params.CompletionCreateParamsStreaming,
        "chat.reply": chat.ChatCompletion,
        "chat.chunk": chat.ChatCompletionChunk,
        "responses.request": response_create_params.ResponseCreateParamsNonStreaming,
        "responses.stream": response_create_params.ResponseCreateParamsStreaming,
        "responses.reply": responses.Response,
        "responses.event": responses.ResponseStreamEvent,
        "responses.item": response_item.ResponseItem,
        "embeddings.request": embedding_create_params.EmbeddingCreateParams,
        "embeddings.reply": types.CreateEmbeddingResponse,
        "openai.model": types.Model,
    }[name]


def close(schema, name: str = "") -> None:
    """No object may have members beside those it names."""
    if isinstance(schema, list):
        for value in schema:
            close(value)
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    if isinstance(properties, dict) and schema.get("type") == "object":
        for extension in EXTENSIONS.get(name, ()):
            properties[extension] = {}
        schema["additionalProperties"] = False
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            for inner_name, inner in value.items():
                close(inner, inner_name)
        elif key not in ("default", "enum", "const"):
            close(value)


@functools.cache
def validator_of(name: str) -> jsonschema.Draft202012Validator:
    schema = pydantic.TypeAdapter(type_of(name)).json_schema()
    close(schema, schema.get("title", ""))
    return jsonschema.Draft202012Validator(schema)


def check(name: str, value) -> None:
    """Misfit when `value` (plain JSON) does not fit the type of this name."""
    error = jsonschema.exceptions.best_match(validator_of(name).iter_errors(value))
    if error:
        raise Misfit(f"{name}: {list(error.absolute_path)}: {error.message[:600]}")
