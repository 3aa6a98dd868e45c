"""What the official SDKs can say beyond the ordinary, through both ways out: nothing of it may get lost or come out wrong."""

import base64
import hashlib
import json

import anthropic
import openai
import pytest

from harness import wire_types
from harness.gateway import ADAPTERS, gateway_config
from harness.model_api import ModelApi
from harness.sdks import plain
from harness.starter import Starter

HELLO = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


@pytest.fixture(scope="module")
def api():
    fake = ModelApi()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, compiled_tools, api):
    starter = Starter(tmp_path_factory.mktemp("details"), compiled_tools)
    server = starter(gateway_config(api), environment=api.environment)
    server.secrets.add(api.KEY)
    yield server
    starter.finish()


@pytest.fixture(scope="module")
def chat(gateway):
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.admin_key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def messages(gateway):
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.admin_key, max_retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def every_request_fits_the_providers_own_types(api):
    api.questions.clear()
    api.misfits.clear()
    yield
    assert api.misfits == []


@pytest.fixture(params=list(ADAPTERS))
def model(request) -> str:
    return request.param


def function(name: str, **more) -> dict:
    return {"type": "function", "function": {"name": name, **more}}


# ---- Chat Completions ----

def test_a_tool_without_parameters_is_called(chat, model):
    reply = chat.chat.completions.create(model=model, messages=[{"role": "user", "content": "use now {}"}],
                                         tools=[function("now", parameters={"type": "object", "properties": {}})])
    [call] = reply.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("now", {})


def test_a_tool_that_names_no_parameters_at_all_arrives(chat):
    reply = chat.chat.completions.create(model="anthropic", messages=[{"role": "user", "content": "use now {}"}], tools=[function("now")])
    assert reply.choices[0].message.tool_calls[0].function.name == "now"


def test_one_tool_is_demanded_and_only_one_at_a_time(chat, model, api):
    chat.chat.completions.create(model=model, messages=[{"role": "user", "content": 'use weather {"city": "Oslo"}'}],
                                 tools=[function("weather", parameters=CITY), function("now", parameters={"type": "object"})],
                                 tool_choice={"type": "function", "function": {"name": "weather"}}, parallel_tool_calls=False)
    choice = api.last.body["tool_choice"]
    if model == "anthropic":
        assert choice == {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    else:
        assert choice["function"] == {"name": "weather"} and api.last.body["parallel_tool_calls"] is False


def test_tools_may_be_there_and_forbidden(chat, model, api):
    chat.chat.completions.create(model=model, messages=HELLO, tools=[function("weather", parameters=CITY)], tool_choice="none")
    assert api.last.body["tool_choice"] in ("none", {"type": "none"})


def test_ids_of_calls_that_another_provider_made_are_accepted(chat, model):
    calls = [{"id": id, "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}} for id in ("a|b:1", "ü" * 70)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": text} for call, text in zip(calls, ("cold", "warm"))]
    reply = chat.chat.completions.create(model=model, messages=[*HELLO, {"role": "assistant", "tool_calls": calls}, *results],
                                         tools=[function("weather", parameters=CITY)])
    assert reply.choices[0].message.content == "weather: cold | weather: warm"


def test_developers_and_late_system_messages_are_heard(chat, model):
    said = [{"role": "developer", "content": "One."}, *HELLO, {"role": "assistant", "content": "yes"},
            {"role": "system", "content": [{"type": "text", "text": "Two."}]}, {"role": "user", "content": "recite"}]
    text = chat.chat.completions.create(model=model, messages=said).choices[0].message.content
    assert "One." in text and "Two." in text


def test_sampling_and_the_user_arrive(chat, model, api):
    chat.chat.completions.create(model=model, messages=HELLO, temperature=0.5, top_p=0.25, stop="END", user="u-1", reasoning_effort="low",
                                 max_tokens=77, seed=3)
    body = api.last.body
    assert (body["temperature"], body["top_p"], api.last.stops, body["max_tokens"]) == (0.5, 0.25, ["END"], 77)
    if model == "anthropic":
        assert body["metadata"] == {"user_id": "u-1"} and body["output_config"] == {"effort": "low"} and "seed" not in body
    else:
        assert (body["user"], body["reasoning_effort"], body["seed"]) == ("u-1", "low", 3)


def test_what_a_messages_model_cannot_do_is_refused_by_name(chat, api):
    for member in ({"n": 2}, {"logprobs": True}, {"logit_bias": {"1": 5}}):
        with pytest.raises(openai.BadRequestError) as caught:
            chat.chat.completions.create(model="anthropic", messages=HELLO, **member)
        assert next(iter(member)) in caught.value.message
    assert api.questions == []


def test_any_json_object_can_be_asked_for(chat, model, api):
    chat.chat.completions.create(model=model, messages=[{"role": "user", "content": "recite JSON"}], response_format={"type": "json_object"})
    assert "JSON" in api.last.system if model == "anthropic" else api.last.body["response_format"] == {"type": "json_object"}


def test_a_document_arrives_by_its_bytes(chat, model, api):
    data = "data:application/pdf;base64," + base64.b64encode(PDF).decode()
    chat.chat.completions.create(model=model, messages=[{"role": "user", "content": [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": data}}, {"type": "text", "text": "hello"}]}])
    assert base64.b64encode(PDF).decode() in json.dumps(api.last.body)


def test_raw_answers_have_the_headers(chat, model):
    raw = chat.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    assert raw.headers["x-request-id"] == raw.request_id and raw.headers["content-type"].startswith("application/json")
    with chat.chat.completions.with_streaming_response.create(model=model, messages=HELLO, stream=True) as streamed:
        assert streamed.headers["content-type"].startswith("text/event-stream") and streamed.request_id
        assert list(streamed.iter_lines())[-2:] == ["data: [DONE]", ""]


# ---- Messages ----

def ask(client, model: str, content, **more):
    return client.messages.create(model=model, max_tokens=900, messages=[{"role": "user", "content": content}], **more)


def test_the_beta_path_answers_like_the_other(messages, model, api):
    reply = messages.beta.messages.create(model=model, max_tokens=900, messages=HELLO, betas=["context-1m-2025-08-07"])
    assert reply.content[0].text == "You said: hello"
    if model == "anthropic":
        assert "context-1m-2025-08-07" in api.last.headers["anthropic-beta"]


def test_the_sdks_own_loop_runs_tools(messages, model):
    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Weather of a city.

        Args:
            city: Where.
        """
        return f"{city} is cold"

    runner = messages.beta.messages.tool_runner(model=model, max_tokens=900, tools=[weather], thread=False, messages=[
        {"role": "user", "content": 'use weather {"city": "Oslo"}\nuse weather {"city": "Lima"}'}])
    assert runner.until_done().content[0].text == "weather: Oslo is cold | weather: Lima is cold"


@pytest.mark.parametrize("model", ["openai", "agent:openai", "agent:anthropic"])
def test_a_conversation_that_only_the_provider_keeps_is_never_cut(messages, model, api):
    with pytest.raises(anthropic.BadRequestError) as caught:
        messages.beta.messages.create(model=model, max_tokens=900, messages=HELLO, thread={"type": "continue", "previous_message_id": "msg_1"})
    assert "thread" in str(caught.value.body) and api.questions == []


def test_a_failed_tool_is_told(messages, model, api):
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True, "content": [{"type": "text", "text": "no network"}]}
    reply = messages.messages.create(model=model, max_tokens=900, tools=[{"name": "weather", "input_schema": CITY}], messages=[
        *HELLO, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}])
    assert reply.content[0].text == "weather: no network"
    if model == "anthropic":
        assert api.last.body["messages"][2]["content"] == [result]


def test_an_image_in_a_result_arrives(messages, model, api):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}}
    call = {"type": "tool_use", "id": "toolu_1", "name": "camera", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "here"}, image]}
    messages.messages.create(model=model, max_tokens=900, tools=[{"name": "camera", "input_schema": {"type": "object"}}], messages=[
        *HELLO, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}])
    assert base64.b64encode(PNG).decode() in json.dumps(api.last.body)


def test_members_of_the_api_pass_untouched(messages, api):
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    ask(messages, "anthropic", "hello", system=system, metadata={"user_id": "u-1"}, extra_body={"top_k": 7})
    body = api.last.body
    assert body["system"] == system and body["metadata"] == {"user_id": "u-1"} and body["top_k"] == 7


def test_cache_marks_mean_nothing_to_a_chat_model(messages, api):
    block = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    reply = ask(messages, "openai", [block], system=[block], thinking={"type": "adaptive"}, extra_body={"top_k": 7})
    assert reply.content[0].text == "You said: hello" and "cache_control" not in json.dumps(api.last.body)


def test_documents_and_pictures_by_the_messages_api(messages, model, api):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}}
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(PDF).decode()}}
    reply = ask(messages, model, [image, document, {"type": "text", "text": "look"}])
    assert reply.content[0].text == hashlib.sha256(PNG).hexdigest()
    assert base64.b64encode(PDF).decode() in json.dumps(api.last.body)


def test_what_the_messages_sdk_counts_may_hold_tools(messages, model):
    counted = messages.messages.count_tokens(model=model, messages=HELLO, tools=[{"name": "weather", "input_schema": CITY}],
                                             thinking={"type": "enabled", "budget_tokens": 1024}, tool_choice={"type": "any"})
    assert counted.input_tokens > 0


def test_the_text_stream_of_the_helper(messages, model):
    with messages.messages.stream(model=model, max_tokens=900, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "You said: hello"
        wire_types.check("anthropic.reply", plain(stream.get_final_message()))


# ---- Responses ----

def test_text_settings_and_metadata_are_told_again(chat, model):
    reply = chat.responses.create(model=model, input="hello", temperature=0.5, metadata={"k": "v"}, max_output_tokens=99,
                                  text={"format": {"type": "text"}}, truncation="disabled", user="u-1")
    assert (reply.temperature, reply.metadata, reply.max_output_tokens) == (0.5, {"k": "v"}, 99)


def test_a_response_takes_files_and_pictures(chat, model, api):
    picture = {"type": "input_image", "detail": "low", "image_url": "data:image/png;base64," + base64.b64encode(PNG).decode()}
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64," + base64.b64encode(PDF).decode()}
    reply = chat.responses.create(model=model, input=[{"role": "user", "content": [picture, file, {"type": "input_text", "text": "look"}]}])
    assert reply.output_text == hashlib.sha256(PNG).hexdigest()
    assert base64.b64encode(PDF).decode() in json.dumps(api.last.body)


def test_a_hosted_tool_is_refused_by_name(chat, model, api):
    with pytest.raises(openai.BadRequestError) as caught:
        chat.responses.create(model=model, input="hello", tools=[{"type": "web_search"}])
    assert "web_search" in caught.value.message and api.questions == []


# ---- policy ----

def test_a_policy_that_denies_a_model_is_told(start, api, tmp_path):
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "own.rego").write_text("""package nexus.agent.policy
import rego.v1
default allow := false
allow if input.action == "run.start"
allow if {
    input.action == "model.call"
    input.resource != "anthropic"
}
""")
    gateway = start({**gateway_config(api), "policy": {"dir": str(folder)}}, environment=api.environment)
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.admin_key, max_retries=2)
    other = anthropic.Anthropic(base_url=gateway.url, api_key=gateway.admin_key, max_retries=2)
    assert client.chat.completions.create(model="openai", messages=HELLO).choices[0].message.content == "You said: hello"
    for name in ("anthropic", "agent:anthropic"):
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model=name, messages=HELLO)
        with pytest.raises(openai.PermissionDeniedError):
            client.responses.create(model=name, input="hello")
        with pytest.raises(anthropic.PermissionDeniedError):
            ask(other, name, "hello")
    assert {question.model for question in api.questions} == {"real-openai"}
