"""Pages that are followed to the letter work to the letter."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "howto" / "add-a-module.md"
_FILE: Final = re.compile(r"^`(services/[^`]+)`:\n\n```[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASK: Final = """
import services
services.__path__.append({folder!r})
from cli.registry import load
service = load(["venue"])["venue"]
assert (service.name, service.manifest.kind) == ("venue", "base")
assert service.settings.model_config["env_prefix"] == "KISUM_VENUE_"
for migration in service.migrations.glob("0*.py"):
    compile(migration.read_text(), migration, "exec")
import services.venue.database
"""


def test_the_module_that_the_page_makes_is_one(tmp_path: Path) -> None:
    files = dict(_FILE.findall(PAGE.read_text()))
    assert {Path(name).name for name in files} >= {"__init__.py", "manifest.py", "settings.py", "database.py", "app.py"}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    asked = subprocess.run(
        [sys.executable, "-c", _ASK.format(folder=str(tmp_path / "services"))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    for name, text in files.items():
        # Where a file lies is not to be seen from its text alone.
        for command, ignored in (("check",), ("--ignore", "INP001,I001")), (("format", "--check"), ()):
            judged = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--quiet", *ignored, "--stdin-filename", name, "-"],
                cwd=ROOT,
                input=text,
                capture_output=True,
                text=True,
                check=False,
            )
            assert not name.endswith(".py") or judged.returncode == 0, judged.stdout
