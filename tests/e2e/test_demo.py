"""The demo, by its command: the whole story on an installation of its own, beside one that must not be touched."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kisum import Kisum

STEPS = [
    "sign_up",
    "purchase_to_access",
    "refused_with_reason",
    "grant_to_allow",
    "revoke_to_deny",
    "expires_without_event",
    "addon_lapse_to_deny",
    "decides_without_auth",
    "stale_503",
    "recovers",
    "rebuild_equal",
]


@pytest.fixture
def demo_installation(tmp_path: Path) -> Iterator[Kisum]:
    """Where the demo of an installation in `kisum` keeps its own."""
    installation = Kisum(tmp_path / "kisum-demo")
    yield installation
    installation.run("down")
    if installation.home.exists():
        installation.run("reset", "--yes")


@pytest.mark.timeout(300)
def test_the_demo_tells_every_step_and_stops_what_it_started(
    kisum: Kisum, demo_installation: Kisum, tmp_path: Path
) -> None:
    kisum.up()
    parts = kisum.parts()
    report = tmp_path / "demo.json"

    told = kisum.run("demo", "--json", str(report), timeout_seconds=240)

    assert told.returncode == 0, told.stdout + told.stderr
    outcome = json.loads(report.read_text())
    assert outcome["ok"] is True
    assert [step["name"] for step in outcome["steps"]] == STEPS
    for step in outcome["steps"]:
        assert set(step) == {"name", "ok", "ms", "detail"}
        assert step["ok"] is True
        assert step["ms"] > 0
        assert step["name"] in told.stdout
    details = {step["name"]: step["detail"] for step in outcome["steps"]}
    for name, words in {
        "refused_with_reason": ("403 module_not_granted", "fix: ask_module, by company_admin"),
        "addon_lapse_to_deny": ("403 module_not_entitled", "fix: buy_addon, by company_admin"),
        "stale_503": ("503 state_unknown", "fix: retry, by caller"),
    }.items():
        assert all(word in details[name] for word in words), details[name]

    assert demo_installation.run("status").returncode == 1
    assert kisum.parts() == parts


def test_a_demo_beside_a_running_one_refuses_with_one_line(kisum: Kisum, demo_installation: Kisum) -> None:
    demo_installation.up()
    parts = demo_installation.parts()

    refused = kisum.run("demo")

    assert refused.returncode == 1
    assert "Traceback" not in refused.stdout + refused.stderr
    (line,) = refused.stderr.strip().splitlines()
    assert f"{demo_installation.home} is in use by process" in line
    assert demo_installation.parts() == parts
