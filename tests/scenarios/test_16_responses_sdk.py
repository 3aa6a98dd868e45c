"""The official OpenAI SDK on /v1/responses: conversations that the server remembers, for models and for agents."""

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from harness.provider import Cut, Text, ToolCalls

WEATHER = {"type": "function", "name": "weather", "description": "Weather of a city", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}


@pytest.fixture
def served(start, provider):
    return start(provider=provider)


@pytest.fixture
def sdk(served):
    return OpenAI(base_url=served.url + "/v1", api_key=served.admin_key, max_retries=0)


def said_to(call) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in call.body["messages"]]


def test_an_answer_comes_whole_and_is_found_again(sdk, provider):
    provider.answer = lambda call: Text("The sky is blue.", usage=(21, 6))
    made = sdk.responses.create(model="tiny", input="why?", instructions="be brief", metadata={"k": "v"})
    assert (made.status, made.output_text) == ("completed", "The sky is blue.")
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (21, 6, 27)
    assert said_to(provider.calls[0]) == [("system", "be brief"), ("user", "why?")]
    assert sdk.responses.retrieve(made.id) == made
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)


def test_a_conversation_is_remembered_over_a_restart(sdk, served, provider):
    provider.script = [Text("one"), Text("two"), Text("three")]
    first = sdk.responses.create(model="tiny", input="a", instructions="be brief")
    second = sdk.responses.create(model="tiny", input=[{"role": "user", "content": "b"}], previous_response_id=first.id)
    served.restart()
    sdk = OpenAI(base_url=served.url + "/v1", api_key=served.admin_key, max_retries=0)
    with sdk.responses.stream(model="tiny", input="c", previous_response_id=second.id) as stream:
        types = [event.type for event in stream]
        third = stream.get_final_response()
    assert types[0] == "response.created" and types[-1] == "response.completed"
    assert third.output_text == "three"
    assert said_to(provider.calls[2]) == [("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two"), ("user", "c")]
    assert sdk.responses.retrieve(third.id).output_text == "three"
    items = list(sdk.responses.input_items.list(third.id, order="asc", limit=2))
    assert [item.content[0].text for item in items] == ["a", "one", "b", "two", "c"]


def test_what_may_not_be_stored_is_not(sdk, provider):
    made = sdk.responses.create(model="tiny", input="a", store=False)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="tiny", input="b", previous_response_id=made.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    assert len(provider.calls) == 1


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_parallel_tool_calls_come_through_and_their_results_go_back(sdk, provider, is_stream):
    provider.script = [ToolCalls([("weather", {"city": "Oslo"}), ("weather", {"city": "Lima"})]), Text("Cold in both.")]
    asked = {"model": "tiny", "input": "weather?", "tools": [WEATHER]}
    if is_stream:
        with sdk.responses.stream(**asked) as stream:
            for _ in stream:
                pass
            made = stream.get_final_response()
    else:
        made = sdk.responses.create(**asked)
    calls = [item for item in made.output if item.type == "function_call"]
    assert [(item.name, item.arguments) for item in calls] == [("weather", '{"city": "Oslo"}'), ("weather", '{"city": "Lima"}')]
    results = [{"type": "function_call_output", "call_id": item.call_id, "output": "cold"} for item in calls]
    reply = sdk.responses.create(model="tiny", input=results, previous_response_id=made.id, tools=[WEATHER])
    assert reply.output_text == "Cold in both."
    messages = provider.calls[1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [one["id"] for one in messages[1]["tool_calls"]] == [item.call_id for item in calls]


def test_structured_output_is_parsed(sdk, provider):
    class Answer(BaseModel):
        x: int

    provider.answer = lambda call: Text('{"x": 4}')
    reply = sdk.responses.parse(model="tiny", input="2+2?", text_format=Answer)
    assert reply.output_parsed == Answer(x=4)
    assert provider.calls[0].body["response_format"]["json_schema"]["strict"] is True


def test_a_stream_that_breaks_does_not_look_like_one_that_ended(sdk, provider):
    provider.answer = lambda call: Cut(after_pieces=2)
    types = []
    with pytest.raises(Exception):  # noqa: B017 - the SDK's own, or the connection's
        for event in sdk.responses.create(model="tiny", input="a", stream=True):
            types.append(event.type)
        assert "response.completed" not in types and types[-1] in ("error", "response.failed")
        raise ConnectionError("told in band")
    assert "response.completed" not in types


def test_an_agent_goes_on_in_its_session(sdk, provider):
    provider.script = [Text("one"), Text("two")]
    first = sdk.responses.with_raw_response.create(model="agent:assistant", input="a")
    second = sdk.responses.with_raw_response.create(model="agent:assistant", input="b", previous_response_id=first.parse().id)
    assert second.parse().output_text == "two"
    assert first.headers["X-Nexus-Session"] == second.headers["X-Nexus-Session"]
    assert [text for role, text in said_to(provider.calls[1]) if role != "system"] == ["a", "one", "b"]
