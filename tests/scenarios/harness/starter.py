"""Starts the servers of a test and sees them off."""

from pathlib import Path

from .provider import FakeProvider
from .server import Nexus

running: list[Nexus] = []


class Starter:
    """Starts servers and, when the test is over, stops them and looks for secrets in what they left."""

    def __init__(self, folder: Path, compiled_tools: Path | None = None):
        """`compiled_tools` is named to have them compiled first; every server finds them by itself."""
        self.folder = folder
        self.servers: list[Nexus] = []

    def prepare(self, config: dict | None = None, **options) -> Nexus:
        server = Nexus(self.folder / f"node{len(self.servers)}", config, **options)
        self.servers.append(server)
        running.append(server)
        return server

    def __call__(self, config: dict | None = None, *, provider: FakeProvider | None = None, environment: dict | None = None,
                 **options) -> Nexus:
        if provider:
            config = {**provider.config(), **(config or {})}
            environment = {**provider.environment, **(environment or {})}
        server = self.prepare(config, environment=environment, **options)
        if provider:
            server.secrets.add(provider.KEY)
        return server.start()

    def finish(self) -> None:
        for server in self.servers:
            running.remove(server)
            server.stop()
        for server in self.servers:
            assert not server.files_with_secrets(), "secrets can be read in what the server left behind"
