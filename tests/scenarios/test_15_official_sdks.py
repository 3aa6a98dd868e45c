"""The official SDKs as they are, changed in nothing but the base URL: each dialect in, each adapter out, models and agents."""

import hashlib
import json
import struct
import zlib

import anthropic
import openai
import pytest
from pydantic import BaseModel

from harness import mind, wire_types
from harness.gateway import ADAPTERS, STATUSES, failing, flaky, gateway_config
from harness.model_api import ModelApi
from harness.sdks import MODES, SDKS, Conversation, Tool, plain
from harness.starter import Starter

WEATHER = Tool("weather", {"city": {"type": "string"}}, "Weather of a city")
CLOCK = Tool("clock", {"zone": {"type": "string"}, "form": {"type": "integer"}}, "Time of a zone")
CALLERS = tuple(f"{sdk}-{mode}" for sdk in SDKS for mode in ("whole", "stream"))


@pytest.fixture(scope="module")
def api():
    fake = ModelApi()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, compiled_tools, api):
    starter = Starter(tmp_path_factory.mktemp("sdks"), compiled_tools)
    server = starter(gateway_config(api, CALLERS), environment=api.environment)
    server.secrets.add(api.KEY)
    yield server
    starter.finish()


@pytest.fixture(autouse=True)
def every_request_fits_the_providers_own_types(api):
    api.questions.clear()
    api.misfits.clear()
    yield
    assert api.misfits == []


@pytest.fixture(params=[*ADAPTERS, "agent:openai", "agent:anthropic"])
def model(request) -> str:
    return request.param


@pytest.fixture(params=list(ADAPTERS))
def plain_model(request) -> str:
    return request.param


@pytest.fixture(params=list(SDKS))
def sdk(request) -> str:
    return request.param


@pytest.fixture(params=MODES)
def mode(request) -> str:
    return request.param


@pytest.fixture(params=["whole", "stream"])
def way(request) -> str:
    return request.param


@pytest.fixture
def talk(gateway):
    def open(sdk: str, model: str, mode: str = "whole", **settings) -> Conversation:
        return SDKS[sdk](gateway.url, settings.pop("key", gateway.admin_key), model, mode, **settings)
    return open


def png(red: int) -> bytes:
    """A picture of one point."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes([0, red, 0, 0]))) + chunk(b"IEND", b"")


# ---- answers ----

def test_text_comes_with_its_usage(talk, sdk, mode, model):
    answer = talk(sdk, model, mode).say("say: Grüße, \"welt\" – 你好 \U0001f680")
    assert answer.text == "Grüße, \"welt\" – 你好 \U0001f680" and answer.finish == "stop" and answer.calls == []
    assert answer.usage == (mind.USAGE.input, mind.USAGE.cached, mind.USAGE.output)
    assert answer.raw.model in (model, f"real-{model}")        # bytes that pass through say what the provider calls it


def test_the_system_text_arrives(talk, sdk, way, plain_model):
    assert talk(sdk, plain_model, way, system="Be brief.\nBe \"kind\".").say("recite").text == "Be brief.\nBe \"kind\"."


def test_a_conversation_keeps_its_history(talk, sdk, way, model, api):
    talking = talk(sdk, model, way)
    talking.say("say: one")
    talking.say("say: two")
    assert talking.say("say: three").text == "three"
    texts = [text_of(message) for message in api.last.body["messages"] if message["role"] != "system"]
    assert texts == ["say: one", "one", "say: two", "two", "say: three"]


def text_of(message: dict) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_images_arrive_byte_for_byte(talk, sdk, way, model):
    images = (png(10), png(200))
    answer = talk(sdk, model, way).say("look", images)
    assert answer.text == " ".join(hashlib.sha256(image).hexdigest() for image in images)


@pytest.mark.parametrize("finish", ["length", "filter"])
def test_why_an_answer_ended_is_told(gateway, talk, sdk, way, plain_model, finish):
    if (sdk, way) == ("chat", "stream"):           # whose helper raises instead of telling
        return check_last_chunk(gateway, plain_model, finish)
    answer = talk(sdk, plain_model, way).say(f"stop: {finish} half of it")
    assert (answer.finish, answer.text) == (finish, "half of it")


def check_last_chunk(gateway, model: str, finish: str) -> None:
    question = [{"role": "user", "content": f"stop: {finish} half of it"}]
    with client_of(gateway, "chat") as client:
        choices = [chunk.choices[0] for chunk in client.chat.completions.create(model=model, messages=question, stream=True)]
    assert "".join(choice.delta.content or "" for choice in choices) == "half of it"
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [{"filter": "content_filter"}.get(finish, finish)]


@pytest.mark.parametrize("sdk", ["chat", "messages"])
def test_stop_sequences_arrive(talk, sdk, way, plain_model, api):
    answer = talk(sdk, plain_model, way, stops=["END", "STOP"]).say("stop: sequence half of it")
    assert answer.text == "half of it" and answer.finish in ("stop", "sequence")
    assert api.last.stops == ["END", "STOP"]
    if (sdk, plain_model) == ("messages", "anthropic"):
        assert (answer.finish, answer.raw.stop_sequence) == ("sequence", "END")


def test_the_output_limit_is_the_smaller_one(talk, sdk, plain_model, api):
    for asked, sent in ((123, 123), (9000, 4000)):
        talk(sdk, plain_model, limit=asked).say("hello")
        body = api.last.body
        assert (body.get("max_tokens") or body.get("max_completion_tokens")) == sent


# ---- tools ----

def test_a_tool_is_called_and_its_result_comes_back(talk, sdk, mode, model):
    talking = talk(sdk, model, mode, tools=[WEATHER, CLOCK])
    answer = talking.say('use weather {"city": "Oslo \\"ø\\""}')
    [(id, name, arguments)] = answer.calls
    assert (name, arguments, answer.finish) == ("weather", {"city": "Oslo \"ø\""}, "tools")
    answer = talking.give({id: "cold, -3 °C"})
    assert (answer.text, answer.finish) == ("weather: cold, -3 °C", "stop")


def test_parallel_tools_are_called_and_their_results_come_back(talk, sdk, way, model):
    talking = talk(sdk, model, way, tools=[WEATHER, CLOCK])
    answer = talking.say('use weather {"city": "Oslo"}\nuse clock {"zone": "UTC", "form": 24}\nuse weather {"city": "Lima"}')
    assert [(name, arguments) for _, name, arguments in answer.calls] == [
        ("weather", {"city": "Oslo"}), ("clock", {"zone": "UTC", "form": 24}), ("weather", {"city": "Lima"})]
    assert len({id for id, _, _ in answer.calls}) == 3 and answer.finish == "tools"
    results = dict(zip([id for id, _, _ in answer.calls], ["cold", "noon", "warm"]))
    assert talking.give(results).text == "weather: cold | clock: noon | weather: warm"


def test_tools_are_used_turn_after_turn(talk, sdk, way, plain_model):
    talking = talk(sdk, plain_model, way, tools=[WEATHER])
    for city in ("Oslo", "Lima"):
        [(id, _, arguments)] = talking.say(f'use weather {{"city": "{city}"}}').calls
        assert arguments == {"city": city}
        assert talking.give({id: city.upper()}).text == f"weather: {city.upper()}"


def test_tools_arrive_whole(talk, sdk, plain_model, api):
    talk(sdk, plain_model, tools=[WEATHER, CLOCK], choice="required").say('use weather {"city": "Oslo"}')
    assert api.last.tools == {"weather": WEATHER.schema, "clock": CLOCK.schema}
    body = api.last.body
    assert body["tool_choice"] == ("required" if plain_model == "openai" else {"type": "any"})
    spec = body["tools"][0].get("function", body["tools"][0])
    assert spec["strict"] is True and spec["description"] == WEATHER.description


# ---- structured output ----

class Place(BaseModel):
    name: str
    is_far: bool


class Trip(BaseModel):
    title: str
    days: int
    stops: list[Place]


def test_structured_output_is_parsed(talk, sdk, mode, plain_model):
    answer = talk(sdk, plain_model, mode, schema=Trip).say("plan a trip")
    place = Place(name="text é", is_far=True)
    assert answer.parsed == Trip(title="text é", days=7, stops=[place, place])
    assert json.loads(answer.text) == answer.parsed.model_dump()


def test_an_agent_gives_structured_output(talk, sdk, way, plain_model):
    answer = talk(sdk, f"agent:{plain_model}", way, schema=Trip).say("plan a trip")
    assert answer.parsed.days == 7


# ---- thoughts ----

def test_thoughts_come_along(talk, sdk, mode, plain_model):
    answer = talk(sdk, plain_model, mode, thinks=True).say("think say: done")
    assert (answer.thoughts, answer.text) == (mind.THOUGHT, "done")


def test_thoughts_go_back_byte_for_byte_beside_the_results(talk, sdk, mode, plain_model, api):
    talking = talk(sdk, plain_model, mode, thinks=True, tools=[WEATHER])
    answer = talking.say('think use weather {"city": "Oslo"}')
    [(id, _, _)] = answer.calls
    assert answer.thoughts == mind.THOUGHT
    assert talking.give({id: "cold"}).text == "weather: cold"
    if plain_model == "anthropic":
        assert api.last.thoughts == [(mind.THOUGHT, mind.SIGNATURE)]


def test_an_agents_thoughts_go_back_to_its_model(talk, sdk, way, plain_model):
    """Beside the results of its own tools, and of the caller's."""
    answer = talk(sdk, f"agent:{plain_model}", way).say('think use text_processing {"operation": "count", "text": "a b c"}')
    assert answer.finish == "stop" and answer.text.startswith("text_processing: ") and "3" in answer.text
    talking = talk(sdk, f"agent:{plain_model}", way, tools=[WEATHER])
    [(id, _, _)] = talking.say('think use weather {"city": "Oslo"}').calls
    assert talking.give({id: "cold"}).text == "weather: cold"


def test_an_agent_uses_its_own_tools_and_the_callers_in_one_turn(talk, sdk, way, plain_model):
    talking = talk(sdk, f"agent:{plain_model}", way, tools=[WEATHER])
    answer = talking.say('use text_processing {"operation": "count", "text": "a b c"}\nuse weather {"city": "Oslo"}')
    [(id, name, _)] = answer.calls
    assert name == "weather" and answer.finish == "tools"
    answer = talking.give({id: "cold"})
    assert answer.text.startswith("text_processing: ") and answer.text.endswith("weather: cold")


# ---- Responses: conversations by id ----

@pytest.mark.parametrize("model", [*ADAPTERS, "responses", "agent:openai", "agent:anthropic"])
def test_a_conversation_goes_on_by_the_id_of_its_last_answer(talk, way, model, api):
    talking = talk("responses", model, way, chained=True, tools=[WEATHER])
    assert talking.say("say: one").text == "one"
    [(id, _, _)] = talking.say('use weather {"city": "Oslo"}').calls
    assert talking.give({id: "cold"}).text == "weather: cold"
    last = talking.say("say: three")
    assert last.text == "three"
    with talking.client() as client:
        assert client.responses.retrieve(last.raw.id).output_text == "three"
        items = list(client.responses.input_items.list(last.raw.id, order="asc", limit=2))
        client.responses.delete(last.raw.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(last.raw.id)
    for item in items:
        wire_types.check("responses.item", plain(item))
    kinds = [item.type for item in items]
    assert kinds == ["message", "message", "message", "function_call", "function_call_output", "message", "message"]
    assert api.last.text == "say: three"


@pytest.mark.parametrize("model", [*ADAPTERS, "responses", "agent:openai"])
def test_the_events_of_a_response_come_in_their_order(talk, model):
    events = talk("responses", model, "stream", tools=[WEATHER]).say("say: one two three").events
    begin = ["created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"]
    end = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert list(dict.fromkeys(events)) == [f"response.{name}" for name in begin + end]
    events = talk("responses", model, "stream", tools=[WEATHER]).say('use weather {"city": "Oslo"}').events
    names = ["created", "in_progress", "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
             "output_item.done", "completed"]
    assert list(dict.fromkeys(events)) == [f"response.{name}" for name in names]


# ---- Responses to a server that has them: the bytes themselves ----

def test_responses_pass_through(talk, mode, api):
    talking = talk("responses", "responses", mode, thinks=True, tools=[WEATHER])
    answer = talking.say('think use weather {"city": "Oslo"}', (png(3),))
    [(id, name, arguments)] = answer.calls
    assert (name, arguments, answer.thoughts) == ("weather", {"city": "Oslo"}, mind.THOUGHT)
    assert talking.give({id: "cold"}).text == "weather: cold"
    assert api.last.dialect == "responses" and api.last.thoughts == [(mind.THOUGHT, mind.SIGNATURE)]


@pytest.mark.parametrize("sdk", ["chat", "messages"])
def test_a_server_that_has_responses_answers_the_others_too(talk, sdk, way):
    talking = talk(sdk, "responses", way, tools=[WEATHER])
    [(id, _, _)] = talking.say('use weather {"city": "Oslo"}').calls
    assert talking.give({id: "cold"}).text == "weather: cold"


# ---- counting, vectors, lists ----

def client_of(gateway, sdk: str, **options):
    if sdk == "messages":
        return anthropic.Anthropic(base_url=gateway.url, api_key=gateway.admin_key, http_client=anthropic.DefaultHttpxClient(verify=False),
                                   **{"max_retries": 0, **options})
    return openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.admin_key, http_client=openai.DefaultHttpxClient(verify=False),
                         **{"max_retries": 0, **options})


def test_tokens_are_counted_by_the_provider_or_bounded(gateway, model):
    messages = [{"role": "user", "content": "How many tokens are these few words?"}]
    raw = client_of(gateway, "messages").messages.with_raw_response.count_tokens(model=model, messages=messages, system="Be brief.")
    counted = raw.parse()
    wire_types.check("anthropic.tokens", plain(counted))
    if model == "anthropic":
        assert counted.input_tokens == len(json.dumps(messages)) and "nexus-estimate" not in raw.headers
    else:
        assert counted.input_tokens >= 36 and raw.headers["nexus-estimate"] == "true"


def test_vectors_come_in_both_encodings(gateway):
    with client_of(gateway, "chat") as client:
        packed = client.embeddings.create(model="vectors", input=["one", "two", "one"], dimensions=12)
        written = client.embeddings.create(model="vectors", input=["one", "two", "one"], dimensions=12, encoding_format="float")
    wire_types.check("embeddings.reply", plain(written))
    assert [item.index for item in packed.data] == [0, 1, 2] and packed.data[0].embedding == packed.data[2].embedding
    assert packed.data[0].embedding == pytest.approx(written.data[0].embedding, abs=1e-6) and len(packed.data[0].embedding) == 12


def test_an_agent_has_no_vectors(gateway):
    with client_of(gateway, "chat") as client, pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="agent:openai", input="one")


def test_models_and_agents_are_listed_in_both_forms(gateway):
    names = {"openai", "anthropic", "agent:openai", "agent:anthropic"}
    with client_of(gateway, "chat") as client:
        listed = list(client.models.list())
        one = client.models.retrieve("agent:openai")
    for each in [*listed, one]:
        wire_types.check("openai.model", plain(each))
    assert names <= {each.id for each in listed} and one.id == "agent:openai"
    with client_of(gateway, "messages") as client:
        listed = list(client.models.list())
        one = client.models.retrieve("agent:anthropic")
    for each in [*listed, one]:
        wire_types.check("anthropic.model", plain(each))
    assert names <= {each.id for each in listed} and one.id == "agent:anthropic"


# ---- errors ----

def module_of(sdk: str):
    return anthropic if sdk == "messages" else openai


def refusal(talking: Conversation, text: str = "hello") -> openai.APIStatusError | anthropic.APIStatusError:
    """The error that the SDK raises; its body is of the SDK's own form."""
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        talking.say(text)
    error = caught.value
    if talking.sdk == "messages":
        wire_types.check("anthropic.error", error.body)
        assert error.request_id and error.body["request_id"] == error.request_id
    else:
        assert set(error.body) == {"message", "type", "param", "code"} and error.body["message"]
        assert error.request_id
    return error


def test_an_unknown_model_is_told_with_the_names_there_are(talk, sdk, way):
    error = refusal(talk(sdk, "gigantic", way))
    assert isinstance(error, module_of(sdk).NotFoundError) and "anthropic" in str(error.body)
    error = refusal(talk(sdk, "agent:nobody", way))
    assert isinstance(error, module_of(sdk).NotFoundError) and "agent:openai" in str(error.body)


def test_a_wrong_key_is_an_authentication_error(talk, sdk, way):
    assert isinstance(refusal(talk(sdk, "openai", way, key="nxk_wrong")), module_of(sdk).AuthenticationError)


BAD = {"chat": {"messages": "hello"}, "responses": {"input": 7}, "messages": {"messages": "hello"}}


def test_a_bad_body_is_a_bad_request(talk, sdk, model, api):
    assert isinstance(refusal(talk(sdk, model, more=BAD[sdk])), module_of(sdk).BadRequestError)
    assert api.questions == []


def test_over_budget_is_402_and_not_tried_again(gateway, talk, sdk, way, model, api):
    agent = {"agent": model.removeprefix("agent:")} if model.startswith("agent:") else {}
    session = gateway.admin.open_session(budget={"tokens": 20}, **agent)
    error = refusal(talk(sdk, model, way, retries=2, headers={"X-Nexus-Session": session}))
    assert error.status_code == 402 and error.response.headers["x-should-retry"] == "false"
    assert api.questions == []


def test_a_key_for_other_models_is_denied(gateway, talk, sdk, way):
    key = gateway.admin.create_key(models=["anthropic"])["key"]
    error = refusal(talk(sdk, "openai", way, key=key))
    assert isinstance(error, (module_of(sdk).PermissionDeniedError, module_of(sdk).NotFoundError))
    assert talk(sdk, "anthropic", way, key=key).say("say: yes").text == "yes"


def test_who_may_only_look_is_denied(gateway, talk, sdk, model):
    viewer = gateway.user("vera", role="viewer").key
    assert isinstance(refusal(talk(sdk, model, key=viewer)), module_of(sdk).PermissionDeniedError)


# What the provider said, and what the caller gets: a fault of our keys is no fault of the caller's.
TOLD = {400: 400, 401: 502, 403: 502, 404: 400, 429: 429, 500: 503, 529: 503}


@pytest.mark.parametrize("status", STATUSES)
def test_a_failure_of_the_provider_keeps_its_class(talk, sdk, way, plain_model, status):
    error = refusal(talk(sdk, failing(plain_model, status, f"{sdk}-{way}"), way))
    assert error.status_code == TOLD[status], error.body
    if status == 429:
        assert int(error.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("status", [429, 500])
def test_the_sdk_tries_again(talk, sdk, plain_model, status):
    answer = talk(sdk, flaky(plain_model, status, f"{sdk}-whole"), retries=2).say("say: at last")
    assert answer.text == "at last"


# ---- what else is said ----

def test_an_answer_names_its_request(gateway, model):
    hello = [{"role": "user", "content": "hello"}]
    with client_of(gateway, "chat") as client:
        reply = client.chat.completions.create(model=model, messages=hello)
        assert reply._request_id
        assert client.responses.create(model=model, input="hello")._request_id
    with client_of(gateway, "messages") as client:
        assert client.messages.create(model=model, messages=hello, max_tokens=50)._request_id
