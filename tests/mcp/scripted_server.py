#!/usr/bin/env python3
"""An MCP server that does what it is told, well or badly: over stdio, or over streamable HTTP with --port.

    scripted_server.py [--era session|stateless|both] [--state FILE] [--port N] [--tools N] [--die-at METHOD] [--listen] ...

FILE is read at each tools/list: {"tools": [...]} replaces the definitions, so that a test can change them under way.
Standard library only.
"""
import argparse
import http.server
import json
import os
import sys
import threading
import time

arguments = None
cancelled = []
received_meta = []
initialized = False
sessions = set()
resumable = {}
listeners = []
output_lock = threading.Lock()

OBJECT = {"type": "object"}
TOOLS = [
    {"name": "echo", "description": "Says it again.",
     "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}},
    {"name": "add", "description": "Adds.",
     "inputSchema": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]},
     "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}},
    {"name": "lie", "description": "Breaks its own schema.", "inputSchema": OBJECT,
     "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}},
    {"name": "fail", "description": "Fails.", "inputSchema": OBJECT},
    {"name": "refuse", "description": "Is refused by the protocol.", "inputSchema": OBJECT},
    {"name": "slow", "description": "Never answers.", "inputSchema": OBJECT},
    {"name": "ask", "description": "Wants more input.", "inputSchema": OBJECT},
    {"name": "picture", "description": "Blocks of all kinds.", "inputSchema": OBJECT},
    {"name": "big", "description": "Says too much.", "inputSchema": {"type": "object", "properties": {"bytes": {"type": "integer"}}}},
    {"name": "noise", "description": "Writes garbage before its answer.", "inputSchema": OBJECT},
    {"name": "die", "description": "Ends the server.", "inputSchema": OBJECT},
    {"name": "cancelled", "description": "Which calls were cancelled.", "inputSchema": OBJECT},
    {"name": "meta", "description": "The _meta of this call.", "inputSchema": OBJECT},
    {"name": "a.b", "description": "One of two.", "inputSchema": OBJECT},
    {"name": "a_b", "description": "The other.", "inputSchema": OBJECT},
    {"name": "bounce", "description": "Asks its client for roots.", "inputSchema": OBJECT},
    {"name": "forget_sessions", "description": "Ends all sessions over HTTP.", "inputSchema": OBJECT},
    {"name": "region", "description": "Has an argument in a header field.", "inputSchema": {"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"}}}},
    {"name": "interrupted", "description": "Its stream breaks before the answer (HTTP).", "inputSchema": OBJECT},
    {"name": "misplaced", "description": "Has a header annotation where none may be.", "inputSchema": {
        "type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}},
    {"name": "touch", "description": "Says that the list has changed.", "inputSchema": OBJECT},
]


def definitions():
    tools = list(TOOLS)
    if arguments.state and os.path.exists(arguments.state):
        with open(arguments.state) as file:
            state = json.load(file)
        by_name = {tool["name"]: tool for tool in tools}
        for tool in state.get("tools", []):
            by_name[tool["name"]] = tool
        for name in state.get("without", []):
            by_name.pop(name, None)
        tools = list(by_name.values())
    tools += [{"name": f"tool_{i:04}", "description": f"Number {i}.", "inputSchema": OBJECT} for i in range(arguments.tools)]
    return tools


def text(value, **more):
    return {"content": [{"type": "text", "text": value}], **more}


def call(params, send):
    name, given = params.get("name"), params.get("arguments", {})
    received_meta.append(params.get("_meta", {}))
    if name == "echo":
        return text(given["text"])
    if name == "add":
        value = {"sum": given["a"] + given["b"]}
        return text(json.dumps(value), structuredContent=value)
    if name == "lie":
        return text("", structuredContent={"sum": "seven"})
    if name == "fail":
        return text("the moon is in the wrong phase", isError=True)
    if name == "ask":
        return {"resultType": "input_required", "inputRequests": {
            "q": {"method": "elicitation/create", "params": {"message": "Your name?"}}}}
    if name == "picture":
        return {"content": [
            {"type": "text", "text": "look"},
            {"type": "image", "data": "QUJD", "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "note:1", "text": "a note"}},
            {"type": "resource_link", "uri": "note:2", "name": "second"}]}
    if name == "big":
        return text("x" * given.get("bytes", 1))
    if name == "noise":
        with output_lock:
            sys.stdout.write("Loading model...\n{\"half\": \n\n")
            sys.stdout.flush()
        return text("clean")
    if name == "die":
        os._exit(7)
    if name == "cancelled":
        return text(json.dumps(cancelled))
    if name == "meta":
        return text(json.dumps(received_meta[-1]))
    if name == "bounce":
        send({"jsonrpc": "2.0", "id": "roots-1", "method": "roots/list", "params": {}})
        return text("asked")
    if name == "touch":
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        return text("touched")
    if name in ("a.b", "a_b") or name.startswith("tool_") or any(t["name"] == name for t in definitions()):
        return text(name)
    return None


def answer(message, send):
    """The answer's body, or None when there is none."""
    global initialized
    method, params = message.get("method"), message.get("params", {})
    modern = arguments.era in ("stateless", "both") and "io.modelcontextprotocol/protocolVersion" in params.get("_meta", {})
    if arguments.die_at and method == arguments.die_at:
        os._exit(9)
    if method == "notifications/cancelled":
        cancelled.append(params.get("requestId"))
    if "id" not in message or method is None:
        return None
    done = {"resultType": "complete"} if modern else {}
    if method == "server/discover" and modern:
        return {"result": {**done, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}},
                           "ttlMs": 60000, "cacheScope": "public",
                           "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "scripted", "version": "1"}}}}
    if method == "initialize" and arguments.era in ("session", "both"):
        initialized = True
        return {"result": {"protocolVersion": arguments.revision, "capabilities": {"tools": {"listChanged": True}},
                           "serverInfo": {"name": "scripted", "version": "1"}}}
    if not modern and not initialized:
        return {"error": {"code": -32602, "message": "not initialized"}}
    if method == "ping":
        return {"result": {}}
    if method == "tools/list":
        tools = definitions()
        start = int(params.get("cursor", 0))
        page = {"tools": tools[start:start + arguments.page]}
        if start + arguments.page < len(tools):
            page["nextCursor"] = str(start + arguments.page)
        if modern:
            page.update(done, ttlMs=arguments.ttl, cacheScope="public")
        return {"result": page}
    if method == "tools/call":
        if params.get("name") == "slow":
            return "never"
        result = call(params, send)
        if result is None or params.get("name") == "refuse":
            return {"error": {"code": -32602, "message": f"Unknown tool: {params.get('name')}"}}
        return {"result": {**done, **result}}
    if method == "subscriptions/listen" and modern:
        send({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"notifications": {"toolsListChanged": True}}})
        return "never"
    return {"error": {"code": -32601, "message": f"Method not found: {method}"}}


def serve_stdio():
    def send(message):
        with output_lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    sys.stderr.write("scripted server on stdio\n")
    for line in sys.stdin:
        message = json.loads(line)
        body = answer(message, send)
        if isinstance(body, dict):
            send({"jsonrpc": "2.0", "id": message["id"], **body})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def event(self, message, number=None):
        data = (f"id: {number}\n" if number else "") + f"data: {json.dumps(message)}\n\n"
        self.wfile.write(data.encode())
        self.wfile.flush()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        if message.get("params", {}).get("name") == "interrupted":
            return self.interrupt(message)
        if arguments.token and self.headers.get("Authorization") != f"Bearer {arguments.token}":
            return self.reply(401, WWW_Authenticate="Bearer")
        method = message.get("method")
        modern = "io.modelcontextprotocol/protocolVersion" in message.get("params", {}).get("_meta", {})
        if not modern and method != "initialize" and self.headers.get("Mcp-Session-Id") not in sessions:
            return self.reply(404 if self.headers.get("Mcp-Session-Id") else 400, b'{"oops": true}')
        if modern and (self.headers.get("Mcp-Method") != method or self.headers.get("MCP-Protocol-Version") != "2026-07-28"):
            return self.reply(400, json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "error": {
                "code": -32020, "message": "header mismatch"}}).encode())
        more = {}
        if method == "initialize":
            session = f"s{len(sessions)}-{os.getpid()}"
            sessions.add(session)
            more["Mcp_Session_Id"] = session
        region = message.get("params", {}).get("arguments", {}).get("region")
        if modern and region and self.headers.get("Mcp-Param-Region") != region:
            return self.reply(400, json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "error": {
                "code": -32020, "message": "header mismatch"}}).encode())
        early = []

        def send(event):
            if listeners:
                listeners[-1].event(event)
            else:
                early.append(event)

        result = answer(message, send)
        if result is None:
            return self.reply(202)
        full = {"jsonrpc": "2.0", "id": message["id"], **result} if isinstance(result, dict) else None
        name = message.get("params", {}).get("name")
        if name == "forget_sessions":
            sessions.clear()
        if result == "never" or early or arguments.stream:
            self.begin_stream(**more)
            for number, event in enumerate(early):
                self.event(event, number + 1)
            if full:
                self.event(full)
            else:
                time.sleep(30)
            return None
        if full and "error" in full and modern:
            return self.reply(404 if full["error"]["code"] == -32601 else 400, json.dumps(full).encode())
        return self.reply(200, json.dumps(full).encode(), **more)

    def begin_stream(self, **headers):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def interrupt(self, message):
        """An event with an id and nothing in it, and the end; the answer comes to whoever resumes from there."""
        resumable["7"] = {"jsonrpc": "2.0", "id": message["id"], "result": text("resumed")}
        self.begin_stream()
        self.wfile.write(b"id: 7\ndata:\n\n")

    def do_GET(self):
        last = self.headers.get("Last-Event-ID")
        if self.headers.get("Mcp-Session-Id") not in sessions or not (last in resumable or arguments.listen):
            return self.reply(405)
        self.begin_stream()
        if last in resumable:
            return self.event(resumable.pop(last), 8)
        listeners.append(self)
        time.sleep(30)

    def do_DELETE(self):
        sessions.discard(self.headers.get("Mcp-Session-Id"))
        self.reply(204)


def main():
    global arguments
    parser = argparse.ArgumentParser()
    parser.add_argument("--era", default="session")
    parser.add_argument("--revision", default="2025-11-25")
    parser.add_argument("--state")
    parser.add_argument("--port", type=int)
    parser.add_argument("--tools", type=int, default=0)
    parser.add_argument("--page", type=int, default=1000)
    parser.add_argument("--ttl", type=int, default=60000)
    parser.add_argument("--token")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--die-at", dest="die_at")
    arguments = parser.parse_args()
    if arguments.port is None:
        serve_stdio()
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()
