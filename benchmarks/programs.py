"""Programs that run beside the benchmark: each is a process of its own, stopped at the latest with the benchmark."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[1]
_STOP_SECONDS: Final = 10.0


@asynccontextmanager
async def program(
    *arguments: str,
    gives: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    ends_with_signal: bool = True,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m ARGUMENTS` of this checkout. Its output goes to `log`, or can be read line by line.

    Its standard input is one line, what it is given, and ends with the block; then it is terminated too, unless it ends
    by itself.
    """
    output = None if log is None else os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *arguments),
            cwd=_ROOT,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if output is None else output,
            stderr=None if output is None else output,
            limit=1 << 20,
        )
    finally:
        if output is not None:
            os.close(output)
    try:
        if process.stdin is not None:
            process.stdin.write(json.dumps(gives).encode() + b"\n")
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if ends_with_signal:
            with suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class ProgramEndedError(Exception):
    """A program ended before it had said what was asked of it."""


async def told(process: asyncio.subprocess.Process) -> Any:
    """The next line a program tells, which is JSON. Raises ProgramEndedError."""
    if process.stdout is None:
        raise ValueError("its output goes to a file")
    line = await process.stdout.readline()
    if not line:
        raise ProgramEndedError(f"exit status {await process.wait()}")
    return json.loads(line)


def given() -> Any:
    """What this process was given."""
    return json.loads(sys.stdin.readline())


def tell(facts: Any) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def until_input_ends() -> None:
    """Return when whoever started this process lets go of it."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
