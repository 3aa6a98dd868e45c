"""Bytes on a socket, for requests that no client library would send."""

import socket
import time
from dataclasses import dataclass


@dataclass
class RawReply:
    status: int                                    # 0: the connection was closed without an answer
    headers: dict
    body: bytes
    is_closed: bool
    seconds: float


def connect(port: int, seconds: float = 30) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)


def parse(data: bytes) -> tuple[int, dict, bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return 0, {}, data
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body


def receive(connection: socket.socket, seconds: float = 30) -> RawReply:
    """One answer, or the end of the connection, whichever comes first."""
    begun = time.monotonic()
    data, is_closed = b"", False
    while (left := begun + seconds - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            break
        except OSError:
            piece = b""
        if not piece:
            is_closed = True
            break
        data += piece
        status, headers, body = parse(data)
        if status and len(body) >= int(headers.get("content-length", 0)):
            break
    status, headers, body = parse(data)
    return RawReply(status, headers, body, is_closed, time.monotonic() - begun)


def request(port: int, data: bytes, seconds: float = 30) -> RawReply:
    with connect(port, seconds) as connection:
        try:
            connection.sendall(data)
        except OSError:
            pass                                   # refused before it was all sent: the answer says why
        return receive(connection, seconds)
