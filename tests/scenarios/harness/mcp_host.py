"""An MCP host: the official Python client in each era, and single requests by hand for what it would never send."""

import asyncio
import json
from dataclasses import dataclass, field

import httpx
import httpx2
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

SESSIONS, STATELESS = "legacy", "2026-07-28"       # modes of the official client
ERAS = (SESSIONS, STATELESS)
VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META = {VERSION: STATELESS, CAPABILITIES: {}}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def host(server, key: str, mode: str, **options) -> McpClient:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False)
    return McpClient(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode, **options)


def with_host(server, key: str, mode: str, work, **options):
    """What `work(client)` gives."""
    async def run():
        async with host(server, key, mode, **options) as client:
            return await work(client)
    return asyncio.run(run())


@dataclass
class Hand:
    """Requests to /mcp by hand."""
    server: object
    key: str
    session: str = ""
    http: httpx.Client = field(init=False)

    def __post_init__(self):
        self.http = httpx.Client(base_url=self.server.url, timeout=30, trust_env=False, verify=False)

    def headers(self, more: dict | None = None) -> dict:
        base = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream"}
        if self.session:
            base["Mcp-Session-Id"] = self.session
        both = {**base, **(more or {})}
        return {name: value for name, value in both.items() if value is not None}

    def post(self, body, headers: dict | None = None) -> httpx.Response:
        content = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return self.http.post("/mcp", content=content, headers=self.headers(headers))

    def initialize(self, version: str = "2025-11-25") -> dict:
        reply = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "hand", "version": "1"}}})
        assert reply.status_code == 200, reply.text
        self.session = reply.headers["mcp-session-id"]
        assert self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202
        return reply.json()["result"]

    def ask(self, method: str, params: dict | None = None, headers: dict | None = None, *, id=1, meta: dict | None = None):
        """In the stateless era, with the header fields that belong to it."""
        params = {**(params or {}), "_meta": {**META, **(meta or {})}}
        own = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method}
        if method in NAMED:
            own["Mcp-Name"] = params.get(NAMED[method])
        return self.post({"jsonrpc": "2.0", "id": id, "method": method, "params": params}, {**own, **(headers or {})})

    def stream(self, method: str, body=None, headers: dict | None = None):
        content = None if body is None else json.dumps(body)
        return self.http.stream(method, "/mcp", content=content, headers=self.headers(headers))


def events(reply: httpx.Response):
    """(id, message) of each event as it comes; comments are left out."""
    id, data = "", []
    for line in reply.iter_lines():
        if line.startswith("id:"):
            id = line[3:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and (data or id):
            text = "\n".join(data)
            yield id, json.loads(text) if text else None
            id, data = "", []
