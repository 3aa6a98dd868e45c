"""The official OpenAI SDK, changed in nothing but its base URL: for models and for agents."""

import openai
import pytest
from openai import OpenAI

from harness.client import problem
from harness.provider import Cut, Fail, Garbage, Hang, Text, ToolCalls

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def served(start, provider):
    return start(provider=provider)


@pytest.fixture
def sdk(served):
    return client_of(served)


def client_of(nexus, **options) -> OpenAI:
    return OpenAI(base_url=nexus.url + "/v1", api_key=nexus.admin_key, max_retries=0, **options)


# ---- plain models ----

def test_an_answer_comes_whole_with_its_usage(sdk, provider):
    provider.answer = lambda call: Text("The sky is blue.", usage=(21, 6))
    reply = sdk.chat.completions.create(model="tiny", messages=HELLO)
    assert reply.choices[0].message.content == "The sky is blue."
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (21, 6, 27)
    assert provider.calls[0].body["model"] == "tiny"


def test_a_streamed_answer_has_the_same_words_in_pieces(sdk, provider):
    provider.answer = lambda call: Text("one two three four", usage=(9, 4))
    chunks = list(sdk.chat.completions.create(model="tiny", messages=HELLO, stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == "one two three four" and len(pieces) > 1
    assert all(chunk.choices for chunk in chunks), "a usage chunk that nobody asked for"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_ends_with_the_usage_when_it_is_asked_for(sdk, provider):
    provider.answer = lambda call: Text("one two", usage=(9, 4))
    chunks = list(sdk.chat.completions.create(model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 13


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_parallel_tool_calls_come_through_and_their_results_go_back(sdk, provider, is_stream):
    provider.script = [ToolCalls([("weather", {"city": "Oslo"}), ("weather", {"city": "Lima"})])]
    calls = tool_calls_of(sdk, is_stream, messages=HELLO)
    assert [(name, arguments) for _, name, arguments in calls] == [("weather", '{"city": "Oslo"}'), ("weather", '{"city": "Lima"}')]
    assert provider.calls[0].body["tools"] == [WEATHER]
    asked = [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}} for id, name, arguments in calls]
    results = [{"role": "tool", "tool_call_id": id, "content": "cold"} for id, _, _ in calls]
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": asked}, *results]
    provider.script = [Text("Cold in both.")]
    reply = sdk.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER])
    assert reply.choices[0].message.content == "Cold in both."
    assert provider.calls[1].body["messages"] == messages


def tool_calls_of(sdk, is_stream: bool, **request) -> list[tuple[str, str, str]]:
    reply = sdk.chat.completions.create(model="tiny", tools=[WEATHER], stream=is_stream, **request)
    if not is_stream:
        assert reply.choices[0].finish_reason == "tool_calls"
        return [(call.id, call.function.name, call.function.arguments) for call in reply.choices[0].message.tool_calls]
    calls: dict[int, list] = {}
    for chunk in reply:
        for delta in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            entry = calls.setdefault(delta.index, [delta.id, delta.function.name, ""])
            entry[2] += delta.function.arguments or ""
    return [tuple(entry) for _, entry in sorted(calls.items())]


def test_members_that_nobody_knows_pass_in_both_directions(sdk, provider):
    provider.answer = lambda call: Text("ok", extra={"x_new_answer_member": {"depth": [1, 2.50, None]}})
    reply = sdk.chat.completions.create(model="tiny", messages=HELLO, temperature=0.25, seed=7,
                                        extra_body={"x_new_request_member": {"a": [True, 1e3]}})
    assert provider.calls[0].body["x_new_request_member"] == {"a": [True, 1e3]}
    assert provider.calls[0].body["temperature"] == 0.25 and provider.calls[0].body["seed"] == 7
    assert reply.model_extra["x_new_answer_member"] == {"depth": [1, 2.50, None]}


FAILURES = [
    (Fail(429, "slow down", "rate_limit_exceeded", headers={"Retry-After": "7"}), openai.RateLimitError, 429, "rate_limited"),
    (Fail(429, "no credit", "insufficient_quota", "insufficient_quota"), openai.APIStatusError, 402, "quota"),
    (Fail(400, "temperature is too hot", "invalid_request_error"), openai.BadRequestError, 400, "invalid"),
    (Fail(503, "overloaded", "overloaded_error"), openai.InternalServerError, 503, "overloaded"),
    (Fail(401, "bad key sk-live-0123456789abcdef", "invalid_request_error", "invalid_api_key"), openai.APIStatusError, 502, "auth"),
    (Garbage(), openai.InternalServerError, 502, "provider_protocol"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=[failure[3] for failure in FAILURES])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_a_failure_of_the_provider_keeps_its_class(sdk, provider, failure, is_stream):
    answer, error_class, status, name = failure
    provider.answer = lambda call: answer
    with pytest.raises(error_class) as caught:
        reply = sdk.chat.completions.create(model="tiny", messages=HELLO, stream=is_stream)
        list(reply if is_stream else [])
    assert caught.value.status_code == status
    assert name in f"{caught.value.code} {caught.value.type}", caught.value.body
    assert "sk-live" not in str(caught.value.body)
    if "Retry-After" in getattr(answer, "headers", {}):
        assert caught.value.response.headers["retry-after"] == "7"


def test_a_provider_that_is_not_there_is_a_network_failure(start, provider):
    provider.close()
    nexus = start(provider=provider)
    with pytest.raises(openai.InternalServerError) as caught:
        client_of(nexus).chat.completions.create(model="tiny", messages=HELLO)
    assert caught.value.status_code == 502 and "network" in f"{caught.value.code} {caught.value.type}"


def test_a_provider_that_says_nothing_is_a_timeout(start, provider):
    provider.answer = lambda call: Hang()
    nexus = start(provider.config(first_byte_timeout="500ms"), environment=provider.environment)
    with pytest.raises(openai.InternalServerError) as caught:
        client_of(nexus).chat.completions.create(model="tiny", messages=HELLO)
    assert caught.value.status_code == 504 and "timeout" in f"{caught.value.code} {caught.value.type}"


def test_a_stream_that_breaks_does_not_look_like_one_that_ended(sdk, provider):
    provider.answer = lambda call: Cut(after_pieces=3)
    words, ended = [], None
    with pytest.raises(Exception) as caught:
        for chunk in sdk.chat.completions.create(model="tiny", messages=HELLO, stream=True):
            words.append(chunk.choices[0].delta.content or "")
            ended = chunk.choices[0].finish_reason
    assert ended is None and isinstance(caught.value, (openai.APIError, Exception))
    assert "".join(words).startswith("word0")


def test_a_session_is_charged_when_the_header_names_it(sdk, served, provider):
    provider.answer = lambda call: Text("ok", usage=(30, 12))
    session = served.admin.open_session(budget={"tokens": 5000})
    sdk.chat.completions.create(model="tiny", messages=HELLO, extra_headers={"X-Nexus-Session": session})
    budget = served.admin.budget(session)
    assert budget["spent"]["tokens"] == 42 and budget["limit"]["tokens"] == 5000


def test_over_budget_is_402_and_says_not_to_try_again(sdk, served, provider):
    session = served.admin.open_session(budget={"tokens": 50})
    with pytest.raises(openai.APIStatusError) as caught:
        sdk.chat.completions.create(model="tiny", messages=HELLO, extra_headers={"X-Nexus-Session": session})
    assert caught.value.status_code == 402
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert provider.calls == []


def test_an_unknown_model_is_404_with_the_names_there_are(sdk):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="gigantic", messages=HELLO)
    assert "gigantic" in caught.value.message and "tiny" in caught.value.message


def test_a_wrong_key_is_an_authentication_error(served):
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=served.url + "/v1", api_key="nxk_wrong", max_retries=0).models.list()


def test_a_malformed_request_is_a_bad_request_in_openais_own_form(sdk, provider):
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="tiny", messages="hello")
    assert caught.value.body["message"]
    assert provider.calls == []


# ---- agents ----

def test_models_and_agents_are_listed(sdk):
    names = [model.id for model in sdk.models.list()]
    assert "tiny" in names and "agent:assistant" in names
    assert sdk.models.retrieve("tiny").id == "tiny"


def test_an_agent_answers_like_a_model_and_uses_its_own_tools(sdk, served, provider):
    provider.script = [ToolCalls([("text_processing", {"operation": "count", "text": "a b c"})]), Text("Three words.")]
    raw = sdk.chat.completions.with_raw_response.create(model="agent:assistant", messages=HELLO)
    reply = raw.parse()
    assert reply.choices[0].message.content == "Three words." and not reply.choices[0].message.tool_calls
    assert reply.usage.total_tokens == 12 + 7 + 10 + 5
    run = served.admin.run(raw.headers["nexus-run-id"])
    assert run["status"] == "completed" and run["cost"]["tool_calls"] == 1


def test_an_agent_streams_its_answer(sdk, provider):
    provider.script = [ToolCalls([("time", {})]), Text("It is late in the day.")]
    chunks = list(sdk.chat.completions.create(model="agent:assistant", messages=HELLO, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "It is late in the day."
    assert chunks[-1].choices[0].finish_reason == "stop" if chunks[-1].choices else chunks[-2].choices[0].finish_reason == "stop"


def test_an_agent_remembers_the_session_that_the_header_names(sdk, served, provider):
    session = served.admin.open_session()
    header = {"X-Nexus-Session": session}
    sdk.chat.completions.create(model="agent:assistant", messages=[{"role": "user", "content": "I am Ada."}], extra_headers=header)
    sdk.chat.completions.create(model="agent:assistant", messages=[{"role": "user", "content": "Who am I?"}], extra_headers=header)
    said = [message["content"] for message in provider.calls[-1].body["messages"] if message["role"] == "user"]
    assert said == ["I am Ada.", "Who am I?"]
    assert len(served.admin.get(f"/api/v1/runs?session_id={session}").json()["items"]) == 2


def test_an_agent_that_nobody_made_is_404(sdk):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="agent:nobody", messages=HELLO)
    assert "assistant" in caught.value.message


def test_a_failure_of_the_model_behind_an_agent_keeps_its_class(sdk, provider):
    provider.answer = lambda call: Fail(400, "this model cannot do that", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="agent:assistant", messages=HELLO)
    assert "invalid" in f"{caught.value.code} {caught.value.type}"


def test_the_native_api_tells_an_unknown_model_as_a_problem(served):
    session = served.admin.open_session()
    reply = served.admin.post(f"/api/v1/sessions/{session}/messages", {"content": "hi", "model": "gigantic"})
    assert problem(reply) == "unknown_model" and reply.status_code == 404 and "tiny" in reply.json()["detail"]
