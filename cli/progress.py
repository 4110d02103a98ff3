"""Tells what is being done: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

_MEGABYTE: Final = 1_000_000


def line(text: str) -> None:
    """One line, at once: whoever reads the log of a background start must not wait for a buffer."""
    click.echo(text)
    sys.stdout.flush()


@contextmanager
def step(name: str, reached: str = "ready") -> Iterator[None]:
    """Tell when a step has reached its end and how long it took; a step that fails tells why itself."""
    begun = time.monotonic()
    yield
    line(f"  {name:30} {reached} after {time.monotonic() - begun:4.1f} s")


@contextmanager
def download(what: str, size_bytes: int) -> Iterator[Callable[[int, int], None]]:
    """Tell the size of a download first, then how far it is. Yields a function of bytes done and bytes in total."""
    line(f"Downloading {what}: {size_bytes / _MEGABYTE:.0f} MB, this once")
    if sys.stdout.isatty():
        with click.progressbar(length=size_bytes, label="  ") as bar:
            yield lambda done, _: bar.update(done - bar.pos)
    else:
        yield _tenths()
    line("  downloaded and checked")


def _tenths() -> Callable[[int, int], None]:
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = done * 10 // max(total, 1)
        if tenth > told:
            told = tenth
            line(f"  {min(tenth, 10) * 10:3} %")

    return tell
