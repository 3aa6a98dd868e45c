#!/usr/bin/env python3
"""A server made with the official Python SDK: `sdk_server.py` over stdio, `sdk_server.py PORT` over streamable HTTP on loopback."""
import asyncio
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

server = MCPServer("sdk", version="1.2.3")


class Weather(BaseModel):
    city: str
    degrees: float


@server.tool()
def count_words(text: str) -> int:
    """How many words a text has."""
    return len(text.split())


@server.tool()
def weather(city: str) -> Weather:
    """The weather in a city."""
    return Weather(city=city, degrees=21.5)


@server.tool()
def fail(reason: str) -> str:
    """Fails for the reason given."""
    raise ToolError(reason)


@server.tool()
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "done"


if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run("stdio")
