"""The `kisum` command as a user runs it, and the parts of a running system as the operating system shows them."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
#: Nothing may be fetched any more: every address beyond this machine is a closed port.
OFFLINE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:1")


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class Kisum:
    """One installation in a folder of its own."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, timeout_seconds: float = 120, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(arguments),
            env=self._environment(changed),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command in a session of its own, its output to be read line by line."""
        return subprocess.Popen(
            self._command(arguments),
            env=self._environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def up(self, *arguments: str) -> str:
        """Start in the background; returns what it printed."""
        started = self.run("up", "--detach", *arguments)
        assert started.returncode == 0, started.stdout + started.stderr
        return started.stdout

    async def is_healthy(self) -> bool:
        """Whether `kisum status` says that every service is ready."""
        return self.run("status").returncode == 0

    def supervisor(self) -> psutil.Process:
        return psutil.Process(json.loads((self.home / "run.json").read_text())["pid"])

    def parts(self, supervisor: psutil.Process | None = None) -> dict[str, psutil.Process]:
        """The processes there are now, by what they are."""
        top = supervisor or self.supervisor()
        found = {"supervisor": top}
        for child in top.children():
            try:
                line = " ".join(child.cmdline())
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue  # It has just died: no part any more.
            if "kafka.Kafka" in line:
                found["kafka"] = child
            elif "bin/postgres" in line:
                found["postgres"] = child
            elif " cli serve " in line:
                found["services"] = child
        return found

    @property
    def address(self) -> str:
        (part,) = json.loads((self.home / "run.json").read_text())["parts"]
        return f"http://127.0.0.1:{part['port']}"

    def call(
        self, method: str, path: str, body: Any = None, token: str | None = None, company_id: str | None = None
    ) -> Answer:
        """One request to the running system; status 0 where nobody answers."""
        request = urllib.request.Request(self.address + path, method=method)  # noqa: S310  our own address
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if company_id:
            request.add_header("Kisum-Company-Id", company_id)
        try:
            with urllib.request.urlopen(  # noqa: S310  our own address
                request, data=None if body is None else json.dumps(body).encode(), timeout=10
            ) as answer:
                return Answer(answer.status, _json(answer.read()), _lowered(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _json(error.read()), _lowered(error.headers))
        except OSError as error:
            return Answer(0, str(error), {})

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "cli", *arguments]

    def _environment(self, changed: Mapping[str, str]) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "KISUM_HOME": str(self.home),
            **OFFLINE,
            **self.environment,
            **changed,
        }


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _json(content: bytes) -> Any:
    return json.loads(content) if content else None
