"""Planted defects: one-hunk patches, each naming how access would fail with it.

A run over a tree with one of them must find something, by the same general oracle and final check as every other run;
nothing in the simulation knows of any of them. One that no longer applies fails.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_ROOT: Final = Path(__file__).parents[3]
_FOLDER: Final = Path(__file__).parent
#: What a simulation imports.
_PACKAGES: Final = ("contracts", "infra", "access", "tests/harness", "tests/simulation")


class DefectDoesNotApplyError(Exception):
    """The code it changed has changed: the patch is to be made again."""


@dataclass(frozen=True)
class Defect:
    """A patch, and the failure mode written over it."""

    name: str
    failure_mode: str
    patch: str


def defects() -> list[Defect]:
    """All of them, by name. What stands above the diff says how access fails with it."""
    found = []
    for path in sorted(_FOLDER.glob("*.patch")):
        text = path.read_text()
        failure_mode, mark, _ = text.partition("--- a/")
        found.append(Defect(path.stem, " ".join(failure_mode.split()) if mark else "", text))
    return found


@contextmanager
def planted(defect: Defect) -> Iterator[Path]:
    """A copy of the tree with the defect in it. Raises DefectDoesNotApplyError."""
    with TemporaryDirectory(prefix="kisum-defect-") as name:
        folder = Path(name)
        for package in _PACKAGES:
            shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "tests" / "__init__.py").touch()
        applied = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            cwd=folder,
            input=defect.patch,
            capture_output=True,
            text=True,
            check=False,
            # Not a part of any repository above it.
            env={"PATH": _path(), "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        )
        if applied.returncode:
            raise DefectDoesNotApplyError(f"{defect.name}: {applied.stderr.strip()}")
        yield folder


def _path() -> str:
    git = shutil.which("git")
    if git is None:
        raise DefectDoesNotApplyError("git is not on the PATH, and defects are applied with it")
    return str(Path(git).parent)
