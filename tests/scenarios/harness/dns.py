"""A DNS server under the test's control: it answers what it is told, and counts what it was asked."""

import socket
import struct
import threading

A, CNAME, AAAA = 1, 5, 28


class DnsServer:
    """`records`: name -> what to answer: a list of (kind, value, ttl), or a function of (kind, how often asked before) that gives one."""

    def __init__(self, records: dict | None = None):
        self.records = records or {}
        self.asked: list[tuple[str, int]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def close(self) -> None:
        self.socket.close()

    def config(self, **more) -> dict:
        """Configuration: this resolver, and every host allowed."""
        network = {"allowed_hosts": ["*"], **more}
        tools = {name: {"permissions": {"network": network}} for name in ("http_request", "web_extract")}
        return {"dns": {"servers": [self.address]}, "tools": tools}

    def count(self, name: str) -> int:
        return sum(1 for asked, _ in self.asked if asked == name)

    def serve(self) -> None:
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            try:
                name, kind, question = parse_question(query)
            except (IndexError, struct.error):     # no question at all: nobody is answered
                continue
            before = sum(1 for asked in self.asked if asked == (name, kind))
            self.asked.append((name, kind))
            answers = self.records.get(name)
            if callable(answers):
                answers = answers(kind, before)
            self.socket.sendto(reply(query[:2], question, name, kind, answers), peer)


def parse_question(query: bytes) -> tuple[str, int, bytes]:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    return ".".join(labels).lower(), struct.unpack(">H", query[at + 1:at + 3])[0], query[12:at + 5]


def encode(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"


def reply(query_id: bytes, question: bytes, name: str, kind: int, answers: list | None) -> bytes:
    """A CNAME chain is followed by the name that it leads to."""
    records, owner = b"", name
    kept = [a for a in answers or [] if a[0] in (kind, CNAME)]
    for answer_kind, value, ttl in kept:
        if answer_kind == CNAME:
            data = encode(value)
        else:
            data = socket.inet_pton(socket.AF_INET if answer_kind == A else socket.AF_INET6, value)
        records += encode(owner) + struct.pack(">HHIH", answer_kind, 1, ttl, len(data)) + data
        owner = value if answer_kind == CNAME else owner
    code = 3 if answers is None else 0
    return query_id + struct.pack(">HHHHH", 0x8180 | code, 1, len(kept), 0, 0) + question + records
