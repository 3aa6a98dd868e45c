"""One `nexus serve` process with a port, a data folder and a configuration of its own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import yaml

from .client import Client

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("NEXUS_BINARY", ROOT / "build/nexus")).absolute()
DEV_BINARY = Path(os.environ.get("NEXUS_DEV_BINARY", ROOT / "build/dev/nexus")).absolute()
READY_SECONDS = 60
# Compiled tools of all servers of all tests: Python alone takes ten seconds and more.  The program throws old ones away.
COMPILED = Path(os.environ.get("NEXUS_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nexus") / "scenarios"

OFFLINE = {
    "providers": [{"name": "offline", "type": "offline"}],
    "models": [{"name": "offline", "targets": [{"provider": "offline", "model": "offline"}]}],
}


def toolbox() -> Path:
    """The folder of the built tools: NEXUS_TOOLBOX, or beside the program."""
    named = os.environ.get("NEXUS_TOOLBOX")
    beside = [BINARY.resolve().parent / "toolbox", BINARY.parent / "toolbox", BINARY.parent / "release/toolbox"]
    for folder in [Path(named)] if named else beside:
        if (folder / "text_processing/manifest.yaml").is_file():
            return folder
    raise RuntimeError(f"no built tools near {BINARY}; build the target toolbox, or set NEXUS_TOOLBOX")


def free_port(address: str = "127.0.0.1") -> int:
    """A port the kernel has just handed out; a server that is restarted keeps its port."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def merged(base: dict, over: dict) -> dict:
    result = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


def clean_environment(home: Path, extra: dict | None = None) -> dict:
    """Nothing of the machine's own settings or provider keys leaks into a test."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(COMPILED), **(extra or {})}


class Nexus:
    def __init__(self, folder: Path, config: dict | None = None, *, is_dev: bool = False, environment: dict | None = None):
        self.folder = folder
        self.binary = DEV_BINARY if is_dev else BINARY
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = folder / "data"
        self.config_file = folder / "nexus.yaml"
        self.log_file = folder / "nexus.log"
        self.environment = dict(environment or {})
        self.process: subprocess.Popen | None = None
        self.secrets: set[str] = set()
        self.admin_key = ""
        folder.mkdir(parents=True, exist_ok=True)
        self.write_config(config or {})

    # ---- life ----

    def write_config(self, config: dict) -> None:
        base = {
            "listen": f"127.0.0.1:{self.port}",
            "data_dir": str(self.data),
            "log_format": "json",
            "tools": {"dir": str(toolbox())},
            "policy": {"dir": str(ROOT / "policies")},
            **OFFLINE,
        }
        self.config = merged(base, config)
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def spawn(self, *arguments: str) -> subprocess.Popen:
        """Starts it and does not wait."""
        log = open(self.log_file, "ab")
        self.process = subprocess.Popen(
            [str(self.binary), "serve", "--config", str(self.config_file), *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
            env=clean_environment(self.folder, self.environment),
        )
        log.close()
        return self.process

    def keep_compiled_tools_apart(self, cache: Path | None) -> None:
        """Its own copy of what is compiled, in its data folder: for tests that spoil it, or none."""
        self.config["cache_dir"] = str(self.data / "cache")
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        if cache:
            shutil.copytree(cache, self.data / "cache/wasm")
            for folder in (self.data, self.data / "cache", self.data / "cache/wasm"):
                folder.chmod(0o700)

    def start(self, *arguments: str) -> "Nexus":
        self.spawn(*arguments)
        self.wait_ready()
        key_file = self.data / "admin.key"
        if not self.admin_key and key_file.exists():
            self.admin_key = key_file.read_text().strip()
            self.secrets.add(self.admin_key)
        return self

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"nexus ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                if httpx.get(self.url + "/readyz", timeout=5, trust_env=False, verify=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"nexus was not ready within {READY_SECONDS} s:\n{self.log_tail()}")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def terminate(self, seconds: float = 40) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL: as if the power went."""
        self.process.kill()
        self.process.wait(30)

    def restart(self, *, is_crash: bool = False) -> None:
        if is_crash:
            self.kill()
        else:
            code = self.terminate()
            assert code == 0, f"nexus ended with {code} after SIGTERM:\n{self.log_tail()}"
        self.start()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """The end of a test: SIGTERM, and SIGKILL when that does not help."""
        if not self.is_running:
            return
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"nexus did not end within 40 s of SIGTERM:\n{self.log_tail()}") from None

    # ---- talking to it ----

    def client(self, key: str | None = None, **options) -> Client:
        return Client(self, self.admin_key if key is None else key, **options)

    @property
    def admin(self) -> Client:
        return self.client()

    def user(self, user_id: str, role: str = "user", scopes: list[str] | None = None) -> Client:
        """A client with a fresh key of this person, made by the administrator."""
        return self.client(self.admin.create_key(user_id=user_id, role=role, scopes=scopes or [])["key"])

    def command(self, *arguments: str, key: str | None = None, seconds: float = 60, environment: dict | None = None,
                **options) -> subprocess.CompletedProcess:
        """`nexus ARGUMENTS` against this server."""
        extra = {**self.environment, "NEXUS_SERVER": self.url, "NEXUS_API_KEY": self.admin_key if key is None else key}
        return run_command(self.folder, *arguments, binary=self.binary, seconds=seconds,
                           environment={**extra, **(environment or {})}, **options)

    # ---- looking at what it left ----

    def log_text(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        """The end of the log, without the requests that went well."""
        told = [line for line in self.log_text().splitlines() if not re.search(r'"gateway.access".*status_code":2', line)]
        return "\n".join(told[-lines:])

    def log_entries(self) -> list[dict]:
        entries = []
        for line in self.log_text().splitlines():
            if line.startswith("{"):
                entries.append(json.loads(line))
        return entries

    def wait_for_log(self, text: str, seconds: float = 10) -> str:
        """The first log line that holds the text."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.log_text().splitlines():
                if text in line:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no log line with {text!r} within {seconds} s:\n{self.log_tail()}")

    def files_with_secrets(self) -> list[str]:
        """Every place in the data folder and the logs where a secret can be read, admin.key aside."""
        found = []
        for file in sorted(self.folder.rglob("*")):
            if not file.is_file() or file.name == "admin.key":
                continue
            content = file.read_bytes()
            found += [f"{file.relative_to(self.folder)}: {secret[:8]}..." for secret in self.secrets if secret.encode() in content]
        return found


def run_command(folder: Path, *arguments: str, binary: Path | None = None, environment: dict | None = None,
                seconds: float = 60, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(binary or BINARY), *arguments], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL,
        env=clean_environment(folder, environment), cwd=options.pop("cwd", folder), check=False, **options,
    )
