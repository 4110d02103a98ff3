"""docker-compose.yml as an operator meets it. Asked for by name, for it takes Docker and minutes."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.kisum import Kisum
from tests.e2e.test_demo import STEPS

pytestmark = pytest.mark.skipif(
    os.environ.get("KISUM_TEST_RUNTIME") != "containers", reason="KISUM_TEST_RUNTIME=containers asks for it"
)

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "python:3.11-slim", "kisum:local"
MEGABYTE = 1_000_000
#: What the image may have over its base.
SIZE_MAX_MEGABYTES = 300


@pytest.mark.timeout(600)
@pytest.mark.parametrize("arguments", [(), ("--cluster",)], ids=["one broker", "three brokers"])
def test_the_demo_tells_its_story_on_containers(kisum: Kisum, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    report = tmp_path / "demo.json"
    told = kisum.run("demo", "--containers", *arguments, "--json", str(report), timeout_seconds=540)
    assert told.returncode == 0, told.stdout + told.stderr
    outcome = json.loads(report.read_text())
    assert [step["name"] for step in outcome["steps"]] == STEPS
    assert outcome["ok"] is True
    left = docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=kisum-demo")
    assert left == ""


@pytest.mark.timeout(600)
def test_the_image_holds_no_compiler_and_little_else() -> None:
    docker("build", "--quiet", "--file", "infra/deploy/Dockerfile", "--tag", IMAGE, ".")
    size, base = (int(docker("image", "inspect", "--format", "{{.Size}}", name)) for name in (IMAGE, BASE))
    assert (size - base) / MEGABYTE < SIZE_MAX_MEGABYTES
    found = docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "command -v gcc cc pip pg_ctl java; id -u")
    assert found == "10001"
    # What it cannot do it does not offer.
    offered = docker("run", "--rm", IMAGE, "--help")
    assert "  serve " in offered
    assert "  up " not in offered


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
