"""A web service for `http_request`: counts what was done to it, by Idempotency-Key."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

from .provider import Server

# Loopback, but not 127.0.0.1, which the shipped tool blocks by name: the operator can make an exception for it.
ADDRESS = "127.0.0.2"


@dataclass
class Request:
    method: str
    path: str
    headers: dict
    body: bytes


class CountingUpstream:
    def __init__(self, delay: float = 0):
        self.requests: list[Request] = []
        self.redirects: dict[str, str] = {}        # path -> Location
        self.bodies: dict[str, bytes] = {}         # path -> body
        self.delay = delay
        self.lock = threading.Lock()
        self.server = Server((ADDRESS, 0), handler_of(self))
        self.port = self.server.server_address[1]
        self.url = f"http://{ADDRESS}:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def config(**network) -> dict:
        """Configuration that lets http_request come here, and nowhere else."""
        allowed = {"allowed_hosts": [ADDRESS], "allowed_ips": [ADDRESS], **network}
        return {"tools": {"http_request": {"permissions": {"network": allowed}}}}

    def effects(self) -> Counter:
        """How often each effect happened, by its body."""
        with self.lock:
            return Counter(request.body.decode() for request in self.requests if request.method == "POST")

    def keys_of(self, body: str) -> set[str]:
        with self.lock:
            return {request.headers.get("Idempotency-Key", "") for request in self.requests if request.body.decode() == body}


def handler_of(upstream: CountingUpstream) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            with upstream.lock:
                upstream.requests.append(Request(self.command, self.path, dict(self.headers), body))
            time.sleep(upstream.delay)
            location = upstream.redirects.get(self.path)
            content = upstream.bodies.get(self.path, b"done")
            self.send_response(302 if location else 200)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    return Handler
