"""Agent frameworks that people use, each running an agent with tools through the gateway: the OpenAI Agents SDK and LangChain."""

import asyncio
import os

import pytest

from harness.gateway import ADAPTERS, gateway_config
from harness.model_api import ModelApi
from harness.starter import Starter

os.environ |= {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false",
               "ANONYMIZED_TELEMETRY": "false"}

TWO_CITIES = 'use weather {"city": "Oslo"}\nuse weather {"city": "Lima"}'
BOTH = "weather: Oslo is cold | weather: Lima is warm"


@pytest.fixture(scope="module")
def api():
    fake = ModelApi()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, compiled_tools, api):
    starter = Starter(tmp_path_factory.mktemp("frameworks"), compiled_tools)
    server = starter(gateway_config(api), environment=api.environment)
    server.secrets.add(api.KEY)
    yield server
    starter.finish()


@pytest.fixture(autouse=True)
def every_request_fits_the_providers_own_types(api):
    api.questions.clear()
    api.misfits.clear()
    yield
    assert api.misfits == []


@pytest.fixture(params=list(ADAPTERS))
def model(request) -> str:
    return request.param


def weather_of(city: str) -> str:
    """Weather of a city."""
    return f"{city} is {'cold' if city == 'Oslo' else 'warm'}"


# ---- OpenAI Agents SDK ----

def agents_model(gateway, model: str, kind: str):
    from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=gateway.url + "/v1", api_key=gateway.admin_key, max_retries=0)
    return {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[kind](model=model, openai_client=client)


def agents_agent(gateway, model: str, kind: str, **more):
    from agents import Agent, function_tool

    weather = function_tool(weather_of, name_override="weather")
    return Agent(name="traveller", instructions="You know the weather.", tools=[weather], model=agents_model(gateway, model, kind), **more)


@pytest.fixture(params=["chat", "responses"])
def kind(request) -> str:
    return request.param


def test_the_agents_sdk_runs_an_agent_with_tools(gateway, model, kind, api):
    from agents import Runner

    result = asyncio.run(Runner.run(agents_agent(gateway, model, kind), TWO_CITIES))
    assert result.final_output == BOTH
    assert [question.system for question in api.questions] == ["You know the weather."] * 2
    assert sum(response.usage.total_tokens for response in result.raw_responses) == 240


def test_the_agents_sdk_streams_an_agent_with_tools(gateway, model, kind):
    from agents import Runner

    async def run():
        result = Runner.run_streamed(agents_agent(gateway, model, kind), TWO_CITIES)
        deltas = [event.data.delta async for event in result.stream_events()
                  if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"]
        return result.final_output, "".join(deltas)

    assert asyncio.run(run()) == (BOTH, BOTH)


def test_the_agents_sdk_hands_over_and_gives_structured_output(gateway, model, kind):
    from agents import Agent, Runner
    from pydantic import BaseModel

    class Verdict(BaseModel):
        city: str
        degrees: int

    expert = Agent(name="expert", instructions="You decide.", output_type=Verdict, model=agents_model(gateway, model, kind))
    desk = Agent(name="desk", instructions="You hand over.", handoffs=[expert], model=agents_model(gateway, model, kind))
    result = asyncio.run(Runner.run(desk, "use transfer_to_expert {}"))
    assert result.last_agent.name == "expert" and result.final_output == Verdict(city="text é", degrees=7)


def test_the_agents_sdk_goes_on_by_the_id_of_the_last_answer(gateway, model):
    from agents import Runner

    agent = agents_agent(gateway, model, "responses")

    async def run():
        first = await Runner.run(agent, TWO_CITIES)
        return await Runner.run(agent, 'use weather {"city": "Oslo"}', previous_response_id=first.last_response_id)

    assert asyncio.run(run()).final_output == "weather: Oslo is cold"


# ---- LangChain ----

def langchain_model(gateway, model: str, kind: str):
    if kind == "messages":
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(model=model, base_url=gateway.url, api_key=gateway.admin_key, max_retries=0, max_tokens=500)
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=model, base_url=gateway.url + "/v1", api_key=gateway.admin_key, max_retries=0,
                      use_responses_api=kind == "responses")


@pytest.fixture(params=["chat", "responses", "messages"])
def wire(request) -> str:
    return request.param


def langchain_agent(gateway, model: str, wire: str, **more):
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    return create_agent(langchain_model(gateway, model, wire), tools=[tool("weather")(weather_of)],
                        system_prompt="You know the weather.", **more)


def text_of(message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def test_langchain_runs_an_agent_with_tools(gateway, model, wire, api):
    result = langchain_agent(gateway, model, wire).invoke({"messages": [{"role": "user", "content": TWO_CITIES}]})
    assert text_of(result["messages"][-1]) == BOTH
    assert [question.system for question in api.questions] == ["You know the weather."] * 2
    assert result["messages"][-1].usage_metadata["total_tokens"] == 120


def test_langchain_streams_an_agent_with_tools(gateway, model, wire):
    agent = langchain_agent(gateway, model, wire)
    pieces = [text_of(piece) for piece, _ in agent.stream({"messages": [{"role": "user", "content": TWO_CITIES}]}, stream_mode="messages")
              if piece.type == "AIMessageChunk"]
    assert "".join(pieces) == BOTH and len(pieces) > 3


def test_langchain_gives_structured_output(gateway, model, wire):
    from pydantic import BaseModel

    class Verdict(BaseModel):
        """What it is like."""
        city: str
        degrees: int

    chat = langchain_model(gateway, model, wire).with_structured_output(Verdict, method="json_schema")
    assert chat.invoke("how warm is it?") == Verdict(city="text é", degrees=7)


def test_langchain_asks_an_agent_of_the_server(gateway, model, wire):
    reply = langchain_model(gateway, f"agent:{model}", wire).invoke("say: here I am")
    assert text_of(reply) == "here I am"
