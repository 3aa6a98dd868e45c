"""Nexus as an MCP server: official clients of both eras on one address, each rule of the stateless form, and the same rights as over the API."""

import asyncio
import base64
import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import mcp_types
import pytest
from mcp.shared.exceptions import MCPError

from harness import mcp_host
from harness.mcp_host import ERAS, META, SESSIONS, STATELESS, VERSION, Hand, events, with_host
from harness.mcp_proxy import KeyedProxy
from harness.scripts import call, say, script
from harness.server import ROOT
from harness.starter import Starter
from harness.tools import DANGEROUS, add_tool, tools_with_a_dangerous_one

AGENT = "agent_helper"
HELPER = {"name": "helper", "description": "Does what it is told", "tools": ["*"]}
MIRRORED = "count_in_region"
MIRRORED_INPUT = {"type": "object", "required": ["text"], "properties": {
    "text": {"type": "string"}, "region": {"type": "string", "x-mcp-header": "Region"},
    "limit": {"type": "integer", "x-mcp-header": "Limit"}, "urgent": {"type": "boolean", "x-mcp-header": "Urgent"}}}
JSON_SCHEMA_INPUT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": False,
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"},
                   "contactMethod": {"type": "string", "enum": ["phone", "email"]}, "phone": {"type": "string"}, "email": {"type": "string"}},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]}, "else": {"required": ["email"]}}


def tools_for(folder: Path) -> Path:
    tools_with_a_dangerous_one(folder)
    add_tool(folder, MIRRORED, input=MIRRORED_INPUT)
    add_tool(folder, "json_schema_2020_12_tool", input=JSON_SCHEMA_INPUT)
    return folder


@pytest.fixture(scope="module")
def nexus(tmp_path_factory, compiled_tools):
    folder = tmp_path_factory.mktemp("mcp")
    starter = Starter(folder, compiled_tools)
    yield starter({"tools": {"dir": str(tools_for(folder / "tools"))}, "agents": [HELPER]})
    starter.finish()


@pytest.fixture(scope="module")
def alice(nexus):
    return nexus.user("alice")


@pytest.fixture(scope="module")
def bob(nexus):
    return nexus.user("bob")


def text_of(result) -> str:
    return "".join(block.text for block in result.content)


# ---- the official Python client ----

@pytest.mark.parametrize("mode", [*ERAS, "auto"])
def test_tools_agents_runs_and_files_for_the_official_client(nexus, alice, mode):
    async def work(client):
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names[:2] == ["agent_assistant", AGENT] and names[2:] == sorted(names[2:])
        assert {"text_processing", "time", MIRRORED} <= set(names) and DANGEROUS in names
        again = [tool.name for tool in (await client.list_tools()).tools]
        assert again == names
        result = await client.call_tool("text_processing", {"operation": "upper", "text": "é"})
        assert not result.is_error and result.structured_content == {"text": "É"}
        assert json.loads(text_of(result)) == {"text": "É"}
        told = []

        async def progress(amount, total, message):
            told.append((amount, message))
        asked = script(call("text_processing", operation="upper", text="abc"), say("It is ABC."))
        result = await client.call_tool(AGENT, {"message": asked}, progress_callback=progress)
        answer = result.structured_content
        assert "It is ABC." in answer["answer"] == text_of(result) and answer["status"] == "completed"
        assert "[tool text_processing]" in "".join(message for _, message in told)
        assert [amount for amount, _ in told] == sorted({amount for amount, _ in told})
        run = await client.read_resource(f"nexus://runs/{answer['run_id']}")
        assert json.loads(run.contents[0].text)["answer"] == answer["answer"]
        alice.upload(answer["session_id"], "a b.txt", b"plain")
        alice.upload(answer["session_id"], "bytes.bin", b"\x00\xff")
        files = f"nexus://sessions/{answer['session_id']}/files/"
        assert (await client.read_resource(files + "a%20b.txt")).contents[0].text == "plain"
        blob = (await client.read_resource(files + "bytes.bin")).contents[0].blob
        assert base64.b64decode(blob) == b"\x00\xff"
        uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert uris[0] == f"nexus://runs/{answer['run_id']}"
        templates = [template.uri_template for template in (await client.list_resource_templates()).resource_templates]
        assert templates == ["nexus://runs/{id}", "nexus://sessions/{id}/files/{name}"]
        assert (await client.list_prompts()).prompts == []
        on = await client.call_tool(AGENT, {"message": script(say("again")), "session_id": answer["session_id"]})
        assert on.structured_content["session_id"] == answer["session_id"]
        assert len(alice.get(f"/api/v1/sessions/{answer['session_id']}/messages").json()["items"]) >= 4
    with_host(nexus, alice.key, mode, work)


@pytest.mark.parametrize("mode", ERAS)
def test_what_cannot_be_done_is_said_so_that_a_model_or_a_program_can_act_on_it(nexus, alice, mode):
    async def work(client):
        refused = await client.call_tool("text_processing", {"operation": "fly"})
        assert refused.is_error and text_of(refused).startswith("schema: ") and "/operation" in text_of(refused)
        refused = await client.call_tool(AGENT, {"text": "wrong member"})
        assert refused.is_error and "message" in text_of(refused)
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("nothing_like_it", {})
        assert unknown.value.error.code == -32602
        for uri in ("nexus://runs/01a2082d-6c71-7174-ba6e-4017efec6a3a", "nexus://runs/x", "file:///etc/passwd",
                    "nexus://sessions/01a2082d-6c71-7174-ba6e-4017efec6a3a/files/..%2F..%2Fetc%2Fpasswd"):
            with pytest.raises(MCPError) as missing:
                await client.read_resource(uri)
            assert missing.value.error.code == (-32002 if mode == SESSIONS else -32602)
        with pytest.raises(MCPError) as unknown:
            await client.get_prompt("system")
        assert unknown.value.error.code == -32602
    with_host(nexus, alice.key, mode, work)


@pytest.mark.parametrize("mode", ERAS)
def test_two_users_see_their_own(nexus, alice, bob, mode):
    async def begin(client):
        return (await client.call_tool(AGENT, {"message": script(say("secret of alice"))})).structured_content
    mine = with_host(nexus, alice.key, mode, begin)

    async def look(client):
        uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert not any(mine["run_id"] in uri for uri in uris)
        with pytest.raises(MCPError):
            await client.read_resource(f"nexus://runs/{mine['run_id']}")
        other = await client.call_tool(AGENT, {"message": "what was it?", "session_id": mine["session_id"]})
        assert other.is_error and text_of(other).startswith("not_found: ")
    with_host(nexus, bob.key, mode, look)


@pytest.mark.parametrize("mode", ERAS)
def test_a_viewer_sees_no_tools_and_calls_none(nexus, mode):
    viewer = nexus.user("eve", "viewer")

    async def work(client):
        assert (await client.list_tools()).tools == []
        for name, arguments in (("time", {"operation": "now"}), (AGENT, {"message": "hello"})):
            result = await client.call_tool(name, arguments)
            assert result.is_error and text_of(result).startswith("denied: ")
    with_host(nexus, viewer.key, mode, work)


def test_over_budget_is_said_and_nothing_is_called(nexus, alice):
    session = alice.open_session(budget={"tool_calls": 1})
    hand = Hand(nexus, alice.key)
    asked = {"name": "text_processing", "arguments": {"operation": "upper", "text": "a"}}
    first = hand.ask("tools/call", asked, meta={"nexus/session_id": session}).json()["result"]
    assert first["isError"] is False
    second = hand.ask("tools/call", asked, meta={"nexus/session_id": session}).json()["result"]
    assert second["isError"] is True and second["content"][0]["text"].startswith("over_budget: ")


# ---- approvals ----

DANGEROUS_WISH = script(call(DANGEROUS, operation="upper", text="everything"), say("It is done."))


def test_a_dangerous_tool_needs_a_run_that_can_wait(nexus, alice):
    reply = Hand(nexus, alice.key).ask("tools/call", {"name": DANGEROUS, "arguments": {"operation": "upper", "text": "x"}}).json()
    assert reply["result"]["isError"] is True and reply["result"]["content"][0]["text"].startswith("needs_approval: ")


def test_a_run_that_waits_says_so_and_its_resource_has_the_answer_later(nexus, alice):
    async def ask(client):
        return await client.call_tool(AGENT, {"message": DANGEROUS_WISH})
    waiting = with_host(nexus, alice.key, SESSIONS, ask)
    structured = waiting.structured_content
    assert structured["status"] == "waiting" and not waiting.is_error
    [approval] = structured["approvals"]
    assert approval["url"] == f"{nexus.url}/api/v1/approvals/{approval['id']}" and approval["url"] in text_of(waiting)
    approve(nexus, approval["id"])
    alice.wait(structured["run_id"])

    async def look(client):
        return (await client.read_resource(f"nexus://runs/{structured['run_id']}")).contents[0].text
    run = json.loads(with_host(nexus, alice.key, SESSIONS, look))
    assert run["status"] == "completed" and "It is done." in run["answer"]


def approve(nexus, approval_id: str) -> None:
    approval = nexus.admin.get(f"/api/v1/approvals/{approval_id}").json()
    reply = nexus.admin.post(f"/api/v1/approvals/{approval_id}", {"decision": "approve", "digest": approval["digest"]})
    assert reply.status_code == 200, reply.text


def test_a_stateless_host_that_opens_urls_is_asked_to_and_the_call_goes_on(nexus, alice):
    asked = []

    async def elicit(context, params):
        asked.append(params)
        assert params.mode == "url"
        threading.Timer(0.3, approve, (nexus, params.url.rsplit("/", 1)[1])).start()
        return mcp_types.ElicitResult(action="accept")

    async def work(client):
        return await client.call_tool(AGENT, {"message": DANGEROUS_WISH})
    result = with_host(nexus, alice.key, STATELESS, work, elicitation_callback=elicit)
    assert "It is done." in result.structured_content["answer"] and len(asked) == 1


def test_who_declines_is_not_asked_again(nexus, alice):
    async def elicit(context, params):
        return mcp_types.ElicitResult(action="decline")

    async def work(client):
        return await client.call_tool(AGENT, {"message": DANGEROUS_WISH})
    result = with_host(nexus, alice.key, STATELESS, work, elicitation_callback=elicit)
    assert result.structured_content["status"] == "waiting"


def test_a_requests_state_is_good_for_its_caller_and_its_call_only(nexus, alice, bob):
    urls = {mcp_host.CAPABILITIES: {"elicitation": {"url": {}}}}
    params = {"name": AGENT, "arguments": {"message": DANGEROUS_WISH}}
    result = Hand(nexus, alice.key).ask("tools/call", params, meta=urls).json()["result"]
    assert result["resultType"] == "input_required"
    state = result["requestState"]
    changed = state[:-1] + ("0" if state[-1] != "0" else "1")
    for key, arguments, given in ((bob.key, params["arguments"], state), (alice.key, {"message": "else"}, state),
                                  (alice.key, params["arguments"], changed), (alice.key, params["arguments"], "x" * 2000)):
        reply = Hand(nexus, key).ask("tools/call", {"name": AGENT, "arguments": arguments, "requestState": given}, meta=urls).json()
        assert reply["error"]["code"] == -32602, reply


# ---- changes ----

def test_changed_tools_are_told_in_both_eras(tmp_path, start):
    folder = tools_for(tmp_path / "tools")
    nexus = start({"tools": {"dir": str(folder)}, "agents": [HELPER]})
    hand, told = Hand(nexus, nexus.admin_key), {}
    hand.initialize()
    listen = {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen",
              "params": {"_meta": META, "notifications": {"toolsListChanged": True, "promptsListChanged": True}}}
    stateless = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "subscriptions/listen", "Mcp-Session-Id": None}

    def follow(name, count, *arguments):
        with hand.stream(*arguments) as reply:
            assert reply.status_code == 200
            opened.release()
            told[name] = [message for _, message in zip(range(count), (message for _, message in events(reply)))]
    opened = threading.Semaphore(0)
    threads = [threading.Thread(target=follow, args=("session", 1, "GET")),
               threading.Thread(target=follow, args=("listen", 2, "POST", listen, stateless))]
    for thread in threads:
        thread.start()
        opened.acquire(timeout=10)
    time.sleep(0.3)
    add_tool(folder, "brand_new")
    nexus.reload()
    for thread in threads:
        thread.join(20)
    assert [message["method"] for message in told["session"]] == ["notifications/tools/list_changed"]
    first, second = told["listen"]
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"]["notifications"] == {"toolsListChanged": True}          # of prompts there is nothing to tell
    assert second["method"] == "notifications/tools/list_changed"
    assert all(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub" for message in told["listen"])
    assert "brand_new" in [tool["name"] for tool in Hand(nexus, nexus.admin_key).ask("tools/list").json()["result"]["tools"]]


def test_after_a_restart_a_session_is_gone_and_its_client_begins_anew(start):
    nexus = start()
    hand = Hand(nexus, nexus.admin_key)
    hand.initialize()
    nexus.restart()
    assert hand.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}).status_code == 404
    hand.session = ""
    hand.initialize()
    assert hand.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}).json()["result"] == {}


def test_a_revoked_key_ends_its_streams(nexus):
    made = nexus.admin.create_key(user_id="carol", role="user")
    hand = Hand(nexus, made["key"])
    hand.initialize()
    began = time.monotonic()
    with hand.stream("GET") as reply, pytest.raises(httpx.HTTPError):
        assert nexus.admin.delete(f"/api/v1/keys/{made['id']}").status_code == 204
        list(events(reply))
    assert time.monotonic() - began < 8
    assert hand.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}).status_code == 401


# ---- breaking off and coming back ----

def slow(seconds: float, text: str = "at last") -> str:
    return script({"sleep_ms": int(seconds * 1000)}, say(text))


def call_body(message: str, id=7) -> dict:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": AGENT, "arguments": {"message": message}, "_meta": {"progressToken": "t"}}}


def newest_run(client) -> dict:
    return client.get("/api/v1/runs").json()["items"][0]


def test_a_stream_that_broke_goes_on_after_its_last_event(nexus, alice):
    hand = Hand(nexus, alice.key)
    hand.initialize()
    with hand.stream("POST", call_body(slow(1.5))) as reply:
        id, primed = next(events(reply))
        assert primed is None and id
    with hand.stream("GET", headers={"Last-Event-ID": id}) as reply:
        messages = [message for _, message in events(reply) if message]
    assert messages[-1]["id"] == 7 and "at last" in messages[-1]["result"]["structuredContent"]["answer"]
    for message in messages[:-1]:
        assert message["method"] == "notifications/progress" and message["params"]["progressToken"] == "t"
    with hand.stream("GET", headers={"Last-Event-ID": "made-up"}) as reply:
        assert reply.status_code == 400


def test_a_cancelled_call_cancels_its_run(nexus, alice):
    hand = Hand(nexus, alice.key)
    hand.initialize()
    with hand.stream("POST", call_body(slow(30), id=70)) as reply:
        stream = events(reply)
        next(stream)
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 70}}
        assert hand.post(cancelled).status_code == 202
        assert [message for _, message in stream if message and "result" in message] == []
    assert alice.wait(newest_run(alice)["id"], seconds=10)["status"] == "cancelled"


def test_a_stateless_client_that_goes_away_cancels_its_run(nexus, alice):
    hand = Hand(nexus, alice.key)
    body = call_body(slow(30))
    body["params"]["_meta"] |= META
    head = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "tools/call", "Mcp-Name": AGENT}
    before = newest_run(alice)["id"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{nexus.url}/mcp", json=body, headers=hand.headers(head), timeout=1, trust_env=False)
    run = newest_run(alice)
    assert run["id"] != before and alice.wait(run["id"], seconds=10)["status"] == "cancelled"


def test_ending_a_session_cancels_what_it_has_in_work(nexus, alice):
    hand = Hand(nexus, alice.key)
    hand.initialize()
    with hand.stream("POST", call_body(slow(30))) as reply:
        stream = events(reply)
        next(stream)
        assert hand.http.delete("/mcp", headers=hand.headers()).status_code == 204
        list(stream)
    assert alice.wait(newest_run(alice)["id"], seconds=10)["status"] == "cancelled"
    assert hand.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}).status_code == 404


# ---- each rule of the stateless form ----

LIST = {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {"_meta": META}}
CALL = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"_meta": META, "name": "time", "arguments": {"operation": "now"}}}
HEAD = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "tools/list"}
CALL_HEAD = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "tools/call", "Mcp-Name": "time"}


def without(body: dict, key: str) -> dict:
    meta = {name: value for name, value in META.items() if name != key}
    return {**body, "params": {**body["params"], "_meta": meta}}


@pytest.mark.parametrize(("body", "head", "status", "code"), [
    (LIST, {**HEAD, "MCP-Protocol-Version": None}, 400, -32020),
    (LIST, {**HEAD, "MCP-Protocol-Version": "2025-11-25"}, 400, -32020),
    (LIST, {**HEAD, "Mcp-Method": None}, 400, -32020),
    (LIST, {**HEAD, "Mcp-Method": "tools/call"}, 400, -32020),
    (LIST, {**HEAD, "Mcp-Method": "Tools/List"}, 400, -32020),
    (CALL, {**CALL_HEAD, "Mcp-Name": None}, 400, -32020),
    (CALL, {**CALL_HEAD, "Mcp-Name": "TIME"}, 400, -32020),
    (CALL, {**CALL_HEAD, "Mcp-Name": "=?base64?dGltZQ==?="}, 200, None),
    (CALL, {**CALL_HEAD, "Mcp-Name": "=?base64?dGltZQ?="}, 400, -32020),
    (CALL, {**CALL_HEAD, "Mcp-Name": "=?base64?%%%?="}, 400, -32020),
    (without(LIST, VERSION), HEAD, 400, -32602),
    (without(LIST, mcp_host.CAPABILITIES), HEAD, 400, -32602),
    ({**LIST, "params": {"_meta": {**META, VERSION: "1900-01-01"}}}, {**HEAD, "MCP-Protocol-Version": "1900-01-01"}, 400, -32022),
    ({**LIST, "method": "initialize"}, {**HEAD, "Mcp-Method": "initialize"}, 404, -32601),
    ({**LIST, "method": "ping"}, {**HEAD, "Mcp-Method": "ping"}, 404, -32601),
    ({**LIST, "method": "logging/setLevel"}, {**HEAD, "Mcp-Method": "logging/setLevel"}, 404, -32601),
    ({**LIST, "method": "resources/subscribe"}, {**HEAD, "Mcp-Method": "resources/subscribe"}, 404, -32601),
    ({"jsonrpc": "2.0", "id": 5, "result": {}}, HEAD, 400, -32600),
    ([LIST], HEAD, 400, -32600),
    ("{", HEAD, 400, -32700),
    ({**LIST, "jsonrpc": "1.0"}, HEAD, 400, -32600),
    ({**LIST, "id": None}, HEAD, 400, -32600),
    ({**LIST, "id": 1.5}, HEAD, 400, -32600),
    ({**LIST, "params": []}, HEAD, 400, -32602),
    ({**LIST, "params": {"_meta": META, "cursor": "beyond"}}, HEAD, 200, -32602),
])
def test_the_stateless_form_rule_by_rule(nexus, alice, body, head, status, code):
    reply = Hand(nexus, alice.key).post(body, head)
    assert reply.status_code == status, reply.text
    told = reply.json()
    assert told.get("error", {}).get("code") == code, told
    if isinstance(body, dict) and isinstance(body["id"], int):
        assert told["id"] == body["id"]
    if code == -32022:
        assert STATELESS in told["error"]["data"]["supported"] and told["error"]["data"]["requested"] == "1900-01-01"
    if code is None:
        assert told["result"]["resultType"] == "complete"
    assert "mcp-session-id" not in reply.headers


@pytest.mark.parametrize(("more", "head", "is_good"), [
    ({"region": "eu"}, {"Mcp-Param-Region": "eu"}, True),
    ({"region": "Łódź"}, {"Mcp-Param-Region": "=?base64?xYHDs2TFug==?="}, True),
    ({"region": "eu"}, {}, False),
    ({"region": "eu"}, {"Mcp-Param-Region": "us"}, False),
    ({}, {"Mcp-Param-Region": "eu"}, False),
    ({"region": None}, {}, True),
    ({"limit": 42}, {"Mcp-Param-Limit": "42.0"}, True),
    ({"limit": 42}, {"Mcp-Param-Limit": "41"}, False),
    ({"urgent": True}, {"mcp-param-urgent": "true"}, True),
    ({"urgent": True}, {"mcp-param-urgent": "True"}, False),
])
def test_mirrored_arguments(nexus, alice, more, head, is_good):
    reply = Hand(nexus, alice.key).ask("tools/call", {"name": MIRRORED, "arguments": {"text": "a b", **more}}, head)
    assert reply.status_code == (200 if is_good else 400), reply.text
    assert reply.json().get("error", {}).get("code") == (None if is_good else -32020)


def test_lists_say_how_long_they_are_fresh_and_for_whom(nexus, alice):
    hand = Hand(nexus, alice.key)
    for method in ("tools/list", "resources/list", "resources/templates/list", "prompts/list", "server/discover"):
        result = hand.ask(method).json()["result"]
        assert result["ttlMs"] >= 0 and result["cacheScope"] == "private", method
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "nexus"


# ---- the session era by hand ----

@pytest.mark.parametrize(("asked", "given"), [("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25"),
                                              ("2024-11-05", "2025-11-25"), (STATELESS, "2025-11-25"), ("x", "2025-11-25")])
def test_a_session_has_a_revision_that_both_know(nexus, alice, asked, given):
    hand = Hand(nexus, alice.key)
    assert hand.initialize(asked)["protocolVersion"] == given
    ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
    assert hand.post(ping, {"MCP-Protocol-Version": given}).json() == {"jsonrpc": "2.0", "id": "p", "result": {}}
    assert hand.post(ping, {"MCP-Protocol-Version": "1999-01-01"}).status_code == 400
    assert hand.post([ping]).status_code == 400
    assert hand.post({"jsonrpc": "2.0", "id": 9, "result": {}}).status_code == 202
    assert hand.post({"jsonrpc": "2.0", "id": 1, "method": "server/discover"}).json()["error"]["code"] == -32601


def test_a_session_is_its_owners(nexus, alice, bob):
    hand = Hand(nexus, alice.key)
    hand.initialize()
    thief = Hand(nexus, bob.key, hand.session)
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert thief.post(ping).status_code == 404
    assert thief.http.delete("/mcp", headers=thief.headers()).status_code == 404
    with thief.stream("GET") as reply:
        assert reply.status_code == 404
    assert hand.post(ping).status_code == 200
    assert hand.post(ping, {"Mcp-Session-Id": hand.session[:-1] + "\u0041"}).status_code in (200, 404)
    assert hand.post(ping, {"Mcp-Session-Id": None}).status_code == 400


def test_a_key_has_so_many_sessions_and_the_oldest_makes_room(nexus):
    carol = nexus.user("carla")
    hands = [Hand(nexus, carol.key) for _ in range(66)]
    for hand in hands:
        hand.initialize()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert [hand.post(ping).status_code for hand in hands[:3]] == [404, 404, 200]
    assert hands[-1].post(ping).status_code == 200


# ---- who may come ----

def test_without_a_key_a_client_is_told_where_to_read_how(nexus):
    reply = httpx.post(f"{nexus.url}/mcp", json=LIST, trust_env=False)
    assert reply.status_code == 401 and reply.json()["error"]["code"] == -32600
    where = reply.headers["www-authenticate"].split('resource_metadata="')[1].split('"')[0]
    for url in (where, f"{nexus.url}/.well-known/oauth-protected-resource"):
        metadata = httpx.get(url, trust_env=False).json()
        assert metadata["resource"] == f"{nexus.url}/mcp" and metadata["bearer_methods_supported"] == ["header"]


@pytest.mark.parametrize(("head", "status"), [
    ({"Origin": "https://evil.example.com"}, 403), ({"Host": "evil.example.com"}, 403), ({"Accept": "text/html"}, 406),
    ({"Content-Type": "text/plain"}, 415), ({"Authorization": "Bearer nxk_wrong"}, 401)])
def test_strangers_are_turned_away(nexus, alice, head, status):
    reply = Hand(nexus, alice.key).post(LIST, {**HEAD, **head})
    assert reply.status_code == status, reply.text
    assert "error" in reply.json()


def test_garbage_costs_an_error_and_no_more(nexus, alice):
    hand = Hand(nexus, alice.key)
    hand.initialize()
    nested = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"[" * 500 + b"]" * 500 + b"}}"
    for body in (b"", b"null", b"[]", b"\x00\xff", b"{}", b'"text"', nested, b'{"jsonrpc":"2.0","id":1,"method":""}',
                 b'{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}', b'{"jsonrpc":"2.0","method":7}', b"{" * 100000):
        assert hand.post(body).status_code == 400, body[:40]
    assert hand.post(b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (5 << 20) + b'"}').status_code == 413
    assert hand.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}).status_code == 200
    for id in ("x", "run.", "lists.99999999999999999999", "run." + "0" * 2000):
        with hand.stream("GET", headers={"Last-Event-ID": id}) as reply:
            assert reply.status_code == 400
    for method in ("PUT", "PATCH"):
        assert hand.http.request(method, "/mcp", headers=hand.headers()).status_code == 405


def test_two_hundred_calls_side_by_side(nexus):
    hand = Hand(nexus, nexus.user("dora").key)

    def one(number: int) -> bool:
        asked = {"name": "text_processing", "arguments": {"operation": "upper", "text": f"n{number}"}}
        reply = hand.ask("tools/call", asked, id=number).json()
        return reply["id"] == number and reply["result"]["structuredContent"] == {"text": f"N{number}"}
    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(one, range(200)))

    async def work(client):
        asked = [client.call_tool("text_processing", {"operation": "upper", "text": f"s{number}"}) for number in range(60)]
        return [result.structured_content["text"] for result in await asyncio.gather(*asked)]
    assert with_host(nexus, nexus.user("dora").key, SESSIONS, work) == [f"S{number}" for number in range(60)]


def test_calls_are_audited_as_those_of_the_api(nexus, alice):
    Hand(nexus, alice.key).ask("tools/call", {"name": "time", "arguments": {"operation": "now"}})
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        entries = nexus.admin.get("/api/v1/audit", params={"action": "tool.invoke", "user_id": "alice"}).json()["items"]
        if any(entry["resource_id"] == "time" for entry in entries):
            return
        time.sleep(0.1)
    raise AssertionError("no audit entry of the call")


# ---- JavaScript clients and the conformance suite ----

@pytest.fixture(scope="module")
def node() -> Path:
    """Where scripts/setup put the SDKs."""
    cache = os.environ.get("NEXUS_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nexus")
    folder = Path(cache) / "node"
    if not (folder / "node_modules/@modelcontextprotocol/sdk").is_dir():
        pytest.skip(f"no MCP SDK in {folder}: run scripts/setup")
    return folder


@pytest.mark.parametrize("name", ["mcp_sessions", "mcp_stateless"])
def test_the_javascript_clients(nexus, alice, node, name):
    environment = {"PATH": os.environ["PATH"], "NEXUS_NODE": str(node), "NEXUS_URL": nexus.url, "NEXUS_KEY": alice.key}
    done = subprocess.run(["node", "--test-reporter=spec", str(ROOT / f"tests/node/{name}.mjs")], env=environment, capture_output=True,
                          text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]


# What the suite asks of tools, prompts and resources of its own example server; docs/mcp.md says so of each.
FIXTURES = {
    "completion-complete", "elicitation-sep1034-defaults", "elicitation-sep1330-enums", "logging-set-level", "prompts-get-embedded-resource",
    "prompts-get-simple", "prompts-get-with-args", "prompts-get-with-image", "resources-read-binary", "resources-read-text",
    "resources-subscribe", "resources-templates-read", "resources-unsubscribe", "server-stateless", "tools-call-audio",
    "tools-call-elicitation", "tools-call-embedded-resource", "tools-call-error", "tools-call-image", "tools-call-mixed-content",
    "tools-call-sampling", "tools-call-simple-text", "tools-call-with-logging", "tools-call-with-progress",
    "input-required-result-basic-elicitation", "input-required-result-basic-list-roots", "input-required-result-basic-sampling",
    "input-required-result-capability-check", "input-required-result-multi-round", "input-required-result-multiple-input-requests",
    "input-required-result-non-tool-request", "input-required-result-request-state", "input-required-result-result-type",
    "input-required-result-tampered-state",
}
# Single checks within them that need such a tool.
FIXTURE_CHECKS = {
    "sep-2575-server-rejects-undeclared-capability", "sep-2575-missing-capability-http-400",
    "sep-2575-http-server-no-independent-requests-on-stream", "sep-2575-server-no-log-without-loglevel",
}


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", STATELESS])
def test_the_conformance_suite(nexus, node, tmp_path, version):
    suite = node / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    runtime = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(runtime[1:].split(".")[0]) < 22:
        pytest.skip(f"the conformance suite needs Node 22, this is {runtime.strip()}")
    proxy = KeyedProxy(nexus.url, nexus.admin_key)
    try:
        subprocess.run(["node", str(suite), "server", "--url", f"{proxy.url}/mcp", "--spec-version", version, "--suite", "all",
                        "-o", str(tmp_path)], capture_output=True, timeout=300, stdin=subprocess.DEVNULL, check=False,
                       env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    finally:
        proxy.close()
    seen, failed = set(), {}
    for file in tmp_path.glob("server-*/checks.json"):
        name = file.parent.name.removeprefix("server-").rsplit("-2026", 1)[0].rsplit("-20", 1)[0]
        seen.add(name)
        wrong = [check["id"] for check in json.loads(file.read_text())
                 if check["status"] == "FAILURE" and check["id"] not in FIXTURE_CHECKS]
        if wrong and name not in FIXTURES:
            failed[name] = wrong
    assert len(seen) > 20 and failed == {}, failed
