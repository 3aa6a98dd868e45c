#!/usr/bin/env python3
"""An MCP server that lets in whoever its authorization server knows, and that authorization server: both as they are told, well or badly.

    oauth_server.py            prints "MCP_PORT AS_PORT"

POST /control at the authorization server changes `settings` (below); GET /control tells what was seen.  /authorize grants at once, to the
user of `login_as` in the query: what a person would do in a browser.  Standard library only.
"""
import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
import urllib.parse

settings = {
    "expires_in": 3600,
    "rotate": True,
    "iss": "right",              # right, wrong, none
    "announces_iss": True,
    "pkce": ["S256"],
    "resource": None,            # another one in the resource metadata
    "issuer": None,              # another one in the authorization server's metadata
    "token_endpoint": None,
    "metadata_url": None,        # another place of the resource metadata
    "redirects": [],             # paths at the authorization server that redirect elsewhere
    "documents": False,          # client ids that are URLs
    "open_list": False,          # initialize and tools/list need no token
    "slow_refresh": 0,
    "stateless": False,          # revision 2026-07-28
    "leaky_errors": False,       # refusals quote what was sent
    "methods": ["client_secret_basic", "client_secret_post", "none"],
}
CLIENTS = {"nexus-client": "the-client-secret-of-nexus"}
redirects_of = {}                # client -> redirect_uris, of those that registered
codes, access, refresh = {}, {}, {}
seen = {"calls": [], "grants": [], "revoked": [], "sessions": {}, "foreign": 0, "documents": 0}
lock = threading.RLock()
mcp_url = as_url = None


def challenge_of(verifier):
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class Base(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, value=None, **headers):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()


class Authorization(Base):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        with lock:
            if url.path == "/control":
                return self.reply(200, {**seen, "access": list(access), "refresh": list(refresh)})
            if url.path in settings["redirects"]:
                return self.reply(302, Location=f"{mcp_url}/foreign")
            if url.path == "/.well-known/oauth-authorization-server":
                return self.reply(200, {
                    "issuer": settings["issuer"] or as_url, "authorization_endpoint": f"{as_url}/authorize",
                    "token_endpoint": settings["token_endpoint"] or f"{as_url}/token",
                    "registration_endpoint": f"{as_url}/register", "revocation_endpoint": f"{as_url}/revoke",
                    "code_challenge_methods_supported": settings["pkce"],
                    "token_endpoint_auth_methods_supported": settings["methods"],
                    "client_id_metadata_document_supported": settings["documents"],
                    "authorization_response_iss_parameter_supported": settings["announces_iss"]})
            if url.path == "/authorize":
                return self.authorize(query)
        return self.reply(404, {})

    def authorize(self, query):
        assert query["response_type"] == "code" and query["code_challenge_method"] == "S256", query
        client = query["client_id"]
        known = client in CLIENTS or query["redirect_uri"] in redirects_of.get(client, []) or settings["documents"] and client.startswith("https://")
        if not known:
            return self.reply(400, {"error": "invalid_client"})
        back = {"state": query["state"]}
        if settings["iss"] != "none":
            back["iss"] = as_url if settings["iss"] == "right" else "https://attacker.example"
        if query.get("login_as"):
            code = secrets.token_urlsafe(24)
            codes[code] = {**query, "user": query["login_as"]}
            back["code"] = code
        else:
            back["error"] = "access_denied"
        return self.reply(302, Location=f"{query['redirect_uri']}?{urllib.parse.urlencode(back)}")

    def do_POST(self):
        path, text = self.path, self.body()
        if path == "/control":
            with lock:
                change = json.loads(text)
                settings.update(change.get("settings", {}))
                if change.get("expire"):
                    for token in list(access):
                        access[token]["until"] = 0
                if change.get("revoke_all"):
                    access.clear()
                    refresh.clear()
                if change.get("forget_sessions"):
                    seen["sessions"].clear()
            return self.reply(200, {})
        if path in settings["redirects"]:
            return self.reply(307, Location=f"{mcp_url}/foreign")
        if path == "/register":
            value = json.loads(text)
            client = f"registered-{secrets.token_hex(4)}"
            redirects_of[client] = value["redirect_uris"]
            return self.reply(201, {**value, "client_id": client})
        form = dict(urllib.parse.parse_qsl(text))
        client = self.client_of(form)
        if client is None:
            return self.reply(401, {"error": "invalid_client"})
        if path == "/revoke":
            with lock:
                seen["revoked"].append(form["token"])
                access.pop(form["token"], None)
                refresh.pop(form["token"], None)
            return self.reply(200, {})
        if path == "/token":
            if form["grant_type"] == "refresh_token":
                time.sleep(settings["slow_refresh"])
            with lock:
                return self.token(form, client)
        return self.reply(404, {})

    def client_of(self, form):
        basic = self.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            name, secret = base64.b64decode(basic[6:]).decode().split(":")
            name, secret = urllib.parse.unquote(name), urllib.parse.unquote(secret)
        else:
            name, secret = form.get("client_id"), form.get("client_secret")
        return name if CLIENTS.get(name) == secret else None

    def refuse(self, form):
        value = {"error": "invalid_grant"}
        if settings["leaky_errors"]:
            value["error_description"] = json.dumps(form)
        return self.reply(400, value)

    def token(self, form, client):
        if form.get("resource") != f"{mcp_url}/mcp":
            return self.reply(400, {"error": "invalid_target"})
        if form["grant_type"] == "authorization_code":
            code = codes.pop(form["code"], None)
            if (not code or code["client_id"] != client or code["redirect_uri"] != form["redirect_uri"]
                    or challenge_of(form["code_verifier"]) != code["code_challenge"] or code["resource"] != form["resource"]):
                return self.refuse(form)
            user, scope = code["user"], code.get("scope", "")
        else:
            old = refresh.get(form["refresh_token"])
            if not old or old["client"] != client:
                return self.refuse(form)
            user, scope = old["user"], old["scope"]
            if settings["rotate"]:
                refresh.pop(form["refresh_token"])
        token = f"at-{secrets.token_urlsafe(32)}"
        access[token] = {"user": user, "until": time.time() + settings["expires_in"]}
        value = {"access_token": token, "token_type": "Bearer", "expires_in": settings["expires_in"], "scope": scope}
        if form["grant_type"] == "authorization_code" or settings["rotate"]:
            value["refresh_token"] = f"rt-{secrets.token_urlsafe(32)}"
            refresh[value["refresh_token"]] = {"user": user, "client": client, "scope": scope}
        seen["grants"].append({"type": form["grant_type"], "user": user, "client": client})
        return self.reply(200, value)


class Mcp(Base):
    def do_GET(self):
        if self.path == "/.well-known/oauth-protected-resource/mcp":
            return self.reply(200, {"resource": settings["resource"] or f"{mcp_url}/mcp", "authorization_servers": [as_url],
                                    "scopes_supported": ["notes.read", "notes.write"]})
        if self.path == "/foreign":
            seen["foreign"] += 1
        return self.reply(405)

    def do_DELETE(self):
        seen["sessions"].pop(self.headers.get("Mcp-Session-Id"), None)
        return self.reply(204)

    def do_POST(self):
        message = json.loads(self.body() or "{}")
        if self.path == "/foreign":
            seen["foreign"] += 1
            return self.reply(404)
        method = message.get("method")
        with lock:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            known = access.get(token)
            is_open = settings["open_list"] and method in ("initialize", "tools/list", "ping", "server/discover", "notifications/initialized")
            if not is_open and (not known or known["until"] < time.time()):
                where = settings["metadata_url"] or f"{mcp_url}/.well-known/oauth-protected-resource/mcp"
                return self.reply(401, WWW_Authenticate=f'Bearer error="invalid_token", resource_metadata="{where}", scope="notes.read"')
            user = known["user"] if known else "nobody"
            return self.answer(message, method, user)

    def answer(self, message, method, user):
        if method == "initialize":
            session = secrets.token_hex(8)
            seen["sessions"][session] = user
            return self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": {
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "oauth", "version": "1"}}},
                Mcp_Session_Id=session)
        if method == "server/discover" and settings["stateless"]:
            return self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": {
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 60000}})
        if method == "server/discover":
            return self.reply(404, {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "unknown"}})
        session = self.headers.get("Mcp-Session-Id")
        if not settings["stateless"] and seen["sessions"].get(session) != user:       # a session is one user's
            return self.reply(404 if session else 400, {})
        if "id" not in message:
            return self.reply(202)
        result = {}
        if method == "tools/list":
            result = {"resultType": "complete", "tools": [{"name": "whoami", "description": "Who calls.", "inputSchema": {"type": "object"}}]}
        if method == "tools/call":
            seen["calls"].append(user)
            result = {"resultType": "complete", "content": [{"type": "text", "text": user}]}
        return self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})


def main():
    global mcp_url, as_url
    mcp = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mcp)
    authorization = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Authorization)
    mcp_url, as_url = (f"http://127.0.0.1:{s.server_address[1]}" for s in (mcp, authorization))
    print(mcp.server_address[1], authorization.server_address[1], flush=True)
    threading.Thread(target=mcp.serve_forever, daemon=True).start()
    authorization.serve_forever()


main()
