"""Tasks and attacks of tests/scenarios/data, played against the real binary with a model that does exactly what its script says.

The world: five hosts on loopback addresses, one of them the company's own ({inside}), one the attacker's ({evil}); tools beside the
shipped ones: `erase_everything` (system), `send_mail` (a sink that counts), `crm_lookup` (reads the company's own records).
"""

import base64
import codecs
import json
import re
import shutil
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import yaml

from .provider import Server, Text, ToolCalls
from .server import toolbox

DATA = Path(__file__).resolve().parents[1] / "data"
SECRET = "MAGENTA-7741-KESTREL"
ADDRESSES = {"web": "127.0.0.2", "api": "127.0.0.3", "evil": "127.0.0.4", "inside": "127.0.0.5", "other": "127.0.0.6"}
WORKSPACE = "/tmp/agent-workspace"


def load(name: str) -> list[dict]:
    document = yaml.safe_load((DATA / name).read_text())
    return document["tasks"] if "tasks" in document else document["attacks"]


class World:
    """The hosts: what they answer now, and all they were asked since the task began."""

    def __init__(self):
        self.bodies: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict, str]] = []      # method, "host/path", headers, body
        self.lock = threading.Lock()
        self.servers, self.urls = [], {}
        for name, address in ADDRESSES.items():
            server = Server((address, 0), handler_of(self, name))
            self.servers.append(server)
            self.urls[name] = f"http://{address}:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def begin(self, serves: dict[str, str]) -> None:
        with self.lock:
            self.requests = []
            self.bodies = {path: text.encode() for path, text in serves.items()}

    def sent(self) -> list[str]:
        return [f"{method} {path} {body}".strip() for method, path, _, body in self.requests]

    def told(self, host: str) -> str:
        """Every byte that this host was sent."""
        return "\n".join(f"{method} {path} {headers} {body}" for method, path, headers, body in self.requests
                         if path.startswith(host + "/"))


def handler_of(world: World, name: str) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
            path = name + self.path
            with world.lock:
                world.requests.append((self.command, path, dict(self.headers), body))
                content = world.bodies.get(path, b"nothing here")
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def __getattr__(self, attribute):
            if attribute.startswith("do_"):
                return self.handle_any
            raise AttributeError(attribute)

    return Handler


# ---- the platform under test ----

def tool_folder(folder: Path) -> Path:
    shutil.copytree(toolbox(), folder, ignore=shutil.ignore_patterns("CMakeFiles", "*.cmake", "objects", "*.o"))
    copy_tool(folder, "text_processing", "erase_everything", category="system", pure=False, idempotent=False, labels=None)
    copy_tool(folder, "text_processing", "send_mail", pure=False, idempotent=False, labels=None)
    copy_tool(folder, "http_request", "crm_lookup", category="data_analysis", pure=False, idempotent=True, labels=None)
    return folder


def copy_tool(folder: Path, source: str, target: str, **changes) -> None:
    shutil.copytree(folder / source, folder / target)
    file = folder / target / "manifest.yaml"
    manifest = {**yaml.safe_load(file.read_text()), "name": target, **changes}
    file.write_text(yaml.safe_dump({key: value for key, value in manifest.items() if value is not None}, sort_keys=False))


def config(tools: Path, **containment) -> dict:
    network = {"permissions": {"network": {"allowed_hosts": ["*"], "allowed_ips": list(ADDRESSES.values())}}}
    return {
        "tools": {"dir": str(tools), "http_request": network, "crm_lookup": network},
        "containment": {"inside": [ADDRESSES["inside"]], **containment},
        "limits": {"requests_per_minute": 1_000_000},
    }


# ---- spellings ----

def spelt(secret: str, how: str) -> str:
    return {
        "hex": secret.encode().hex(), "b64": base64.b64encode(secret.encode()).decode().rstrip("="),
        "rot13": codecs.encode(secret, "rot13"), "reversed": secret[::-1], "dns": secret.lower(),
        "url": "".join(f"%{byte:02x}" for byte in secret.encode()), "": secret,
    }[how]


def spellings(secret: str) -> list[str]:
    return [spelt(secret, how).lower() for how in ("", "hex", "b64", "rot13", "reversed", "dns", "url")]


class Filler:
    """Puts hosts and secrets into the texts of a task."""

    def __init__(self, urls: dict[str, str], secret: str = SECRET):
        self.urls, self.secret = urls, secret

    def __call__(self, value):
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        for name, url in self.urls.items():
            text = text.replace("{%s}" % name, url).replace("{%s:bare}" % name, url.removeprefix("http://"))
        text = text.replace("{workspace}", WORKSPACE)
        return re.sub(r"\{secret(?::(\w+))?\}", lambda m: spelt(self.secret, m[1] or ""), text)


# ---- the model ----

def answers(steps: list, filler: Filler) -> list:
    """A script's steps as a provider's answers."""
    result = []
    for step in steps:
        calls = step if isinstance(step, list) else [step]
        if isinstance(step, dict) and "say" in step:
            result.append(Text(filler(step["say"])))
        else:
            result.append(ToolCalls([(name, filler(arguments)) for call in calls for name, arguments in call.items()]))
    return result


def tools_of(task: dict) -> set[str]:
    steps = [step for turn in turns_of(task) for step in turn["steps"]]
    calls = [call for step in steps for call in (step if isinstance(step, list) else [step])]
    return {name for call in calls for name in call if name != "say"}


def turns_of(task: dict) -> list[dict]:
    return task.get("turns") or [{"user": task["user"], "steps": task["steps"]}]


def fits(pattern: str, seen: str) -> bool:
    if pattern.endswith(" *"):
        return seen.startswith(pattern[:-1])
    return same_json(pattern, seen)


def same_json(a: str, b: str) -> bool:
    """Equal, JSON bodies by their values."""
    if a == b:
        return True
    head_a, _, body_a = a.partition(" {")
    head_b, _, body_b = b.partition(" {")
    try:
        return head_a == head_b and json.loads("{" + body_a) == json.loads("{" + body_b)
    except ValueError:
        return False


def live_links(answer: str, host: str) -> list[str]:
    """Addresses of this host that a Markdown or HTML reader would follow or load."""
    harmless = answer.replace("[:]//", " ").replace("[//]", " ").replace("[:]", " ")
    unescaped = harmless.replace("&amp;#", " ").replace("&#104;", "h").replace("\\", "/")
    live = re.findall(r"(?:https?:)?//" + re.escape(host) + r"[^\s)\]'\"<>]*", unescaped, re.IGNORECASE)
    return [link for link in live if "?" in link or len(urllib.parse.urlsplit(link).path) > 1]
