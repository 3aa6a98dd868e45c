"""Users log in at an MCP server: each call carries its user's own identity, and nobody else ever sees a token."""

import json
import subprocess
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from harness.client import problem
from harness.scripts import call, say, script
from harness.server import ROOT, run_command

CLIENT_SECRET = "the-client-secret-of-nexus"


class Upstream:
    """The MCP server and its authorization server."""

    def __init__(self):
        self.process = subprocess.Popen(["/usr/bin/python3", str(ROOT / "tests/mcp/oauth_server.py")], stdout=subprocess.PIPE, text=True)
        self.mcp_port, self.as_port = map(int, self.process.stdout.readline().split())
        self.issuer = f"http://127.0.0.1:{self.as_port}"
        self.url = f"http://127.0.0.1:{self.mcp_port}/mcp"

    def set(self, **settings) -> None:
        httpx.post(f"{self.issuer}/control", json={"settings": settings}).raise_for_status()

    def do(self, what: str) -> None:
        httpx.post(f"{self.issuer}/control", json={what: True}).raise_for_status()

    @property
    def seen(self) -> dict:
        return httpx.get(f"{self.issuer}/control").json()

    def tokens(self) -> list[str]:
        seen = self.seen
        return [*seen["access"], *seen["refresh"], *seen["revoked"]]

    def config(self, oauth: dict | None = None, **more) -> dict:
        oauth = {"client_id": "nexus-client", "client_secret": "${env:OAUTH_SECRET}", "per": "user"} if oauth is None else oauth
        return {"name": "notes", "url": self.url, "allowed_ips": ["127.0.0.1"], "category": "http", "approve": "first_use",
                "oauth": oauth, **more}


@pytest.fixture
def upstream():
    server = Upstream()
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def begin(start, upstream):
    """A node that uses the server; when the test ends no token may be found anywhere."""
    nodes = []

    def begin(oauth: dict | None = None, environment: dict | None = None, **more):
        config = {"mcp": {"servers": [upstream.config(oauth, **more.pop("server", {}))]}, **more}
        nexus = start(config, environment={"OAUTH_SECRET": CLIENT_SECRET, **(environment or {})})
        nexus.secrets.add(CLIENT_SECRET)
        nodes.append(nexus)
        return nexus

    yield begin
    for nexus in nodes:
        nexus.secrets.update(upstream.tokens())
        assert nexus.files_with_secrets() == []


LOGIN = "/api/v1/mcp/servers/notes/login"


def authorize(client, login_as: str = "") -> str:
    """What a browser does with the authorization URL: the address that it is sent back to."""
    reply = client.post(LOGIN)
    assert reply.status_code == 201, reply.text
    url = reply.json()["authorization_url"]
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert query["code_challenge_method"] == ["S256"] and len(query["state"][0]) == 43 and "code_verifier" not in query
    back = httpx.get(f"{url}&login_as={login_as}", follow_redirects=False)
    assert back.status_code == 302, back.text
    return back.headers["Location"]


def come_back(nexus, location: str, confirm: str = "&confirm=yes") -> httpx.Response:
    """No API key: only what the address says, and the click on the page's one button."""
    parts = urllib.parse.urlsplit(location)
    return httpx.get(f"{nexus.url}{parts.path}?{parts.query}{confirm}", follow_redirects=False)


def login(nexus, client, login_as: str) -> None:
    reply = come_back(nexus, authorize(client, login_as))
    assert reply.status_code == 200 and "Logged in" in reply.text, reply.text


def whoami(client, seconds: float = 15) -> str:
    """The tool is there once somebody has logged in and the definitions were read."""
    deadline = time.monotonic() + seconds
    while (reply := client.invoke("notes__whoami", {})).status_code == 404 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reply.status_code == 200, reply.text
    return reply.json()["output"]["text"]


def audit_actions(nexus) -> list[str]:
    return [entry["action"] for entry in nexus.admin.get("/api/v1/audit?limit=200").json()["items"]]


# ---- two users, one server ----

def test_two_users_are_two_identities_at_the_server(begin, upstream):
    nexus = begin()
    alice, bob, carol = (nexus.user(name) for name in ("alice", "bob", "carol"))
    assert alice.get(LOGIN).json()["state"] == "none"
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"

    reply = bob.invoke("notes__whoami", {})
    assert reply.status_code == 403 and problem(reply) == "login_needed", reply.text
    assert "user bob has not logged in to MCP server notes: nexus mcp login notes" in reply.text
    login(nexus, bob, "bob@upstream")
    assert whoami(bob) == "bob@upstream" and whoami(alice) == "alice@upstream"

    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(lambda i: whoami((alice, bob)[i % 2]), range(100)))
    assert names == ["alice@upstream", "bob@upstream"] * 50
    assert set(upstream.seen["sessions"].values()) == {"alice@upstream", "bob@upstream"}    # each its own, kept

    state = alice.get(LOGIN).json()
    assert state["state"] == "logged_in" and state["user_id"] == "alice" and state["scope"] == "notes.read" and state["is_renewable"]
    assert carol.get(LOGIN).json()["state"] == "none"
    assert audit_actions(nexus).count("mcp.login") == 2


def test_an_agent_acts_as_the_user_of_its_session(begin, upstream):
    nexus = begin()
    alice, bob = nexus.user("alice"), nexus.user("bob")
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"
    outcome = alice.ask(script(call("notes__whoami"), say("There.")), session=alice.open_session())
    assert outcome.status == "completed" and outcome.tool_outputs("notes__whoami") == [{"text": "alice@upstream"}], outcome.events
    # Another user's run fails with what to do about it, and only for that call.
    outcome = bob.ask(script(call("notes__whoami"), say("Log in, please.")), session=bob.open_session())
    assert "nexus mcp login notes" in json.dumps(outcome.events), outcome.events
    assert upstream.seen["calls"] == ["alice@upstream"] * 2
    # No token in anything that the API tells.
    told = "".join(alice.get(path).text for path in ("/api/v1/runs", "/api/v1/sessions", LOGIN, "/api/v1/tools"))
    told += json.dumps(outcome.events) + nexus.admin.get("/api/v1/audit?limit=200").text + nexus.admin.get("/api/v1/mcp/servers/notes").text
    told += nexus.command("config", "show").stdout
    assert not [token for token in [*upstream.tokens(), CLIENT_SECRET] if token in told]


def test_logins_outlive_a_restart_and_are_sealed(begin, upstream):
    nexus = begin()
    alice = nexus.user("alice")
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"
    nexus.stop()
    assert (nexus.data / "mcp.key").stat().st_mode & 0o777 == 0o600
    nexus.start()
    assert whoami(alice) == "alice@upstream"        # the definitions are read with alice's token once she calls
    # A copy of the store with another key opens nothing: users log in anew.
    nexus.stop()
    (nexus.data / "mcp.key").write_text("0" * 64 + "\n")
    nexus.start()
    reply = alice.invoke("notes__whoami", {})
    assert reply.status_code == 403 and problem(reply) == "login_needed", reply.text
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"


# ---- the life of a token ----

def test_tokens_are_renewed_before_their_end_and_refresh_tokens_rotate(begin, upstream):
    nexus = begin()
    alice = nexus.user("alice")
    upstream.set(expires_in=2)
    login(nexus, alice, "alice@upstream")
    for _ in range(6):
        assert whoami(alice) == "alice@upstream"
        time.sleep(0.9)
    grants = [grant["type"] for grant in upstream.seen["grants"]]
    assert grants[0] == "authorization_code" and grants.count("refresh_token") >= 2, grants
    assert len(upstream.seen["refresh"]) == 1       # each was used once
    nexus.stop()
    nexus.start()
    assert whoami(alice) == "alice@upstream"        # the last one is in the store


def test_a_refused_token_is_renewed_once_by_one(begin, upstream):
    nexus = begin()
    alice = nexus.user("alice")
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"
    upstream.set(slow_refresh=0.5)
    before = len(upstream.seen["grants"])
    upstream.do("expire")
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: whoami(alice), range(16))) == {"alice@upstream"}
    assert len(upstream.seen["grants"]) == before + 1, upstream.seen["grants"]


def test_a_forgotten_session_is_opened_anew(begin, upstream):
    nexus = begin()
    alice = nexus.user("alice")
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"
    upstream.do("forget_sessions")
    assert whoami(alice) == "alice@upstream"


def test_a_revoked_login_is_a_clear_error_and_can_be_had_again(begin, upstream):
    nexus = begin()
    alice, bob = nexus.user("alice"), nexus.user("bob")
    login(nexus, alice, "alice@upstream")
    login(nexus, bob, "bob@upstream")
    assert whoami(alice) == "alice@upstream"
    nexus.secrets.update(upstream.tokens())
    upstream.set(leaky_errors=True)
    upstream.do("revoke_all")
    reply = alice.invoke("notes__whoami", {})
    assert reply.status_code == 403 and problem(reply) == "login_needed" and "nexus mcp login notes" in reply.text, reply.text
    assert alice.get(LOGIN).json()["state"] == "none"
    assert "mcp.login.lost" in audit_actions(nexus)
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"


def test_logout_forgets_here_and_revokes_there(begin, upstream):
    nexus = begin()
    alice, bob = nexus.user("alice"), nexus.user("bob")
    login(nexus, alice, "alice@upstream")
    login(nexus, bob, "bob@upstream")
    assert whoami(alice) == "alice@upstream" and whoami(bob) == "bob@upstream"
    assert alice.delete(LOGIN).status_code == 204 and alice.delete(LOGIN).status_code == 204
    assert len(upstream.seen["revoked"]) == 2 and len(upstream.seen["access"]) == 1     # hers, not his
    reply = alice.invoke("notes__whoami", {})
    assert reply.status_code == 403 and problem(reply) == "login_needed"
    assert whoami(bob) == "bob@upstream"
    assert "mcp.logout" in audit_actions(nexus)


def test_a_server_that_moved_never_sees_the_tokens_of_the_old_one(begin, upstream):
    nexus = begin()
    alice = nexus.user("alice")
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"
    other = Upstream()
    try:
        nexus.write_config({"mcp": {"servers": [other.config()]}})
        nexus.reload()
        deadline = time.monotonic() + 15
        while alice.get(LOGIN).json()["state"] != "none":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        reply = alice.invoke("notes__whoami", {})
        assert reply.status_code == 403 and problem(reply) == "login_needed", reply.text
        login(nexus, alice, "alice@other")
        assert whoami(alice) == "alice@other" and other.seen["calls"] == ["alice@other"]
        nexus.secrets.update(other.tokens())
    finally:
        other.process.kill()
        other.process.wait()


def test_servers_without_sessions_know_their_users_too(begin, upstream):
    upstream.set(stateless=True)
    nexus = begin()
    alice, bob = nexus.user("alice"), nexus.user("bob")
    login(nexus, alice, "alice@upstream")
    login(nexus, bob, "bob@upstream")
    assert whoami(alice) == "alice@upstream" and whoami(bob) == "bob@upstream"
    assert nexus.admin.get("/api/v1/mcp/servers/notes").json()["revision"] == "2026-07-28"
    upstream.do("expire")
    assert whoami(alice) == "alice@upstream" and whoami(bob) == "bob@upstream"
    assert upstream.seen["sessions"] == {}


# ---- attacks ----

def test_whoever_opens_the_address_is_told_for_whom_before_anything_happens(begin, upstream):
    nexus = begin()
    mallory = nexus.user("mallory")
    location = authorize(mallory, "alice@upstream")     # sent to alice, who has a session at the server
    for _ in range(2):
        page = come_back(nexus, location, confirm="")
        assert page.status_code == 200 and "the user mallory of Nexus can act as you" in page.text and "Logged in" not in page.text
        assert page.headers["Referrer-Policy"] == "no-referrer" and page.headers["Cache-Control"] == "no-store"
    assert upstream.seen["grants"] == [] and mallory.get(LOGIN).json()["is_waiting"]
    state = urllib.parse.parse_qs(urllib.parse.urlsplit(location).query)["state"][0]
    page = come_back(nexus, f"/api/v1/mcp/oauth/callback?state={state}&code=%22%3E%3Cscript%3E", confirm="")
    assert "<script>" not in page.text and "&lt;script&gt;" in page.text
    failed(come_back(nexus, "/api/v1/mcp/oauth/callback?state=unknown", confirm=""), "not known")


def failed(reply: httpx.Response, words: str) -> None:
    assert reply.status_code == 400 and "Not logged in" in reply.text and words in reply.text, reply.text


def test_a_callback_is_good_once_and_for_its_own_state_only(begin, upstream):
    nexus = begin()
    alice, bob = nexus.user("alice"), nexus.user("bob")
    location = authorize(alice, "alice@upstream")
    failed(come_back(nexus, location.replace("state=", "state=x")), "not known")
    failed(come_back(nexus, "/api/v1/mcp/oauth/callback?code=x"), "not known")
    failed(come_back(nexus, "/api/v1/mcp/oauth/callback?state=<script>&code=x"), "not known")
    assert come_back(nexus, location).status_code == 200
    failed(come_back(nexus, location), "not known")
    # A code that another login got: PKCE keeps them apart.
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(authorize(alice, "alice@upstream")).query)["code"][0]
    parts = urllib.parse.parse_qs(urllib.parse.urlsplit(authorize(bob, "mallory@upstream")).query)
    swapped = urllib.parse.urlencode({"state": parts["state"][0], "iss": parts["iss"][0], "code": code})
    failed(come_back(nexus, f"/api/v1/mcp/oauth/callback?{swapped}"), "invalid_grant")
    assert bob.get(LOGIN).json()["state"] == "none"
    nexus.secrets.update([code, parts["state"][0], parts["code"][0]])
    # Refused by the person.
    failed(come_back(nexus, authorize(bob)), "did not grant")


def test_an_answer_of_another_issuer_is_refused(begin, upstream):
    nexus = begin()
    alice = nexus.user("alice")
    upstream.set(iss="wrong")
    failed(come_back(nexus, authorize(alice, "alice@upstream")), "another issuer")
    upstream.set(iss="none")
    failed(come_back(nexus, authorize(alice, "alice@upstream")), "which issuer")
    upstream.set(announces_iss=False)
    assert come_back(nexus, authorize(alice, "alice@upstream")).status_code == 200
    assert [grant["type"] for grant in upstream.seen["grants"]] == ["authorization_code"]


@pytest.mark.parametrize("settings, words", [
    ({"resource": "https://other.example/mcp"}, "another resource"),
    ({"issuer": "https://other.example"}, "another issuer"),
    ({"pkce": ["plain"]}, "S256"),
    ({"pkce": []}, "S256"),
    ({"metadata_url": "http://169.254.169.254/latest/meta-data"}, "https"),
    ({"metadata_url": "https://169.254.169.254/latest/meta-data"}, "169.254.169.254"),
    ({"metadata_url": "https://10.0.0.1/x"}, "10.0.0.1"),
    ({"metadata_url": "http://127.0.0.2:80/x"}, "127.0.0.2"),
    ({"metadata_url": "file:///etc/passwd"}, "no URL"),
    ({"token_endpoint": "http://intranet.example/token"}, "https"),
    ({"redirects": ["/.well-known/oauth-authorization-server"]}, "302"),
])
def test_documents_that_lead_astray_are_refused(begin, upstream, settings, words):
    nexus = begin()
    upstream.set(**settings)
    reply = nexus.user("alice").post(LOGIN)
    assert reply.status_code in (403, 503) and words in reply.text, reply.text
    assert upstream.seen["foreign"] == 0


def test_a_token_endpoint_in_the_intranet_or_one_that_redirects_gets_nothing(begin, upstream):
    nexus = begin()
    alice = nexus.user("alice")
    upstream.set(token_endpoint="https://192.168.0.1/token")
    reply = come_back(nexus, authorize(alice, "alice@upstream"))
    assert reply.status_code == 400 and "192.168.0.1" in reply.text, reply.text
    upstream.set(token_endpoint=None, redirects=["/token"])
    reply = come_back(nexus, authorize(alice, "alice@upstream"))
    assert reply.status_code == 503 and "307" in reply.text, reply.text
    assert upstream.seen["foreign"] == 0 and alice.get(LOGIN).json()["state"] == "none"


# ---- ways to be a client ----

def test_clients_register_only_where_the_operator_says_so(begin, upstream):
    nexus = begin({"per": "user"})
    reply = nexus.user("alice").post(LOGIN)
    assert reply.status_code == 400 and "oauth.client_id" in reply.text and "oauth.register" in reply.text, reply.text
    nexus.write_config({"mcp": {"servers": [upstream.config({"per": "user", "register": True})]}})
    nexus.stop()
    nexus.start()
    alice = nexus.user("alice")
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"
    assert upstream.seen["grants"][0]["client"].startswith("registered-")


def test_a_client_document_is_preferred(begin, upstream):
    nexus = begin({"per": "user", "register": True}, mcp_server={"public_url": "https://nexus.example"})
    upstream.set(documents=True)
    alice = nexus.user("alice")
    login(nexus, alice, "alice@upstream")
    assert upstream.seen["grants"][0]["client"] == "https://nexus.example/api/v1/mcp/oauth/client"
    document = httpx.get(f"{nexus.url}/api/v1/mcp/oauth/client").json()
    assert document["client_id"] == "https://nexus.example/api/v1/mcp/oauth/client"
    assert document["redirect_uris"] == ["https://nexus.example/api/v1/mcp/oauth/callback"]


# ---- the rest ----

def test_definitions_may_be_read_without_a_login(begin, upstream):
    upstream.set(open_list=True)
    nexus = begin()
    deadline = time.monotonic() + 15
    while nexus.admin.get("/api/v1/mcp/servers/notes").json()["state"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    alice = nexus.user("alice")
    assert problem(alice.invoke("notes__whoami", {})) == "login_needed"
    login(nexus, alice, "alice@upstream")
    assert whoami(alice) == "alice@upstream"


def test_the_command_line_logs_in_and_out(begin, upstream):
    nexus = begin()
    key = nexus.admin.create_key("alice", "user")["key"]
    out = nexus.command("mcp", "login", "notes", "--no-wait", key=key)
    assert out.returncode == 0 and "Open this address" in out.stdout, out
    url = next(line for line in out.stdout.splitlines() if line.startswith("http"))
    back = httpx.get(f"{url}&login_as=alice", follow_redirects=False)
    assert come_back(nexus, back.headers["Location"]).status_code == 200
    assert whoami(nexus.client(key)) == "alice"
    out = nexus.command("mcp", "logout", "notes", key=key)
    assert out.returncode == 0 and "logged out" in out.stdout, out
    assert nexus.client(key).get(LOGIN).json()["state"] == "none"


def test_a_login_needs_a_user_and_a_server_that_has_logins(begin, upstream):
    nexus = begin()
    assert httpx.post(f"{nexus.url}{LOGIN}").status_code == 401
    assert nexus.user("eve", role="viewer").post(LOGIN).status_code == 403
    assert nexus.admin.post("/api/v1/mcp/servers/nothing/login").status_code == 404


def test_configuration_errors_name_file_line_and_remedy(tmp_path):
    for text, words in (("{name: a, command: [x], oauth: {per: user}}", "oauth goes with a url"),
                        ("{name: a, url: 'https://x/', oauth: {per: tenant}}", "per is user"),
                        ("{name: a, url: 'https://x/', oauth: {client_secret: y}}", "client_id"),
                        ("{name: a, url: 'https://x/', oauth: {redirect_url: 'http://x/'}}", "https"),
                        ("{name: a, url: 'https://x/', oauth: yes}", "mapping"),
                        ("{name: a, url: 'https://x/', oauth: {token: y}}", "unknown setting")):
        file = tmp_path / "bad.yaml"
        file.write_text(f"mcp: {{servers: [{text}]}}")
        out = run_command(tmp_path, "config", "check", "--config", str(file))
        assert out.returncode != 0 and words in out.stderr + out.stdout and "bad.yaml:1" in out.stderr + out.stdout, out
