"""Rules about the files themselves; each would otherwise decay quietly."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("contracts", "infra", "access", "middleware", "chassis", "services", "cli")
#: Who may commit: the unit of work.
COMMITS = {"infra/postgres/database.py"}


def files(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and "__pycache__" not in path.parts:
                yield path


def lines_with(pattern: str, paths: Iterator[Path], allowed: frozenset[str] | set[str] = frozenset()) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        if str(path.relative_to(ROOT)) not in allowed
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_only_the_unit_of_work_commits() -> None:
    assert lines_with(r"\.commit\(", files(*PRODUCT), COMMITS) == []


def test_nothing_is_called_by_a_name_that_says_nothing() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    assert [path for path in files(*PRODUCT, "tests") if path.stem in drawers or path.parent.name in drawers] == []


def test_nothing_is_left_for_later() -> None:
    words = r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b"
    assert lines_with(words, files(*PRODUCT, suffixes=(".py", ".md", ".toml"))) == []


def test_tests_do_not_wait_on_time() -> None:
    # The one pause is that between two looks at a state; sleep(0) only lets others run.
    looks = {"tests/harness/waiting.py", "tests/architecture/test_repository.py"}
    # In a simulation time is the loop's own and passes at once.
    real = (path for path in files("tests") if "simulation" not in path.relative_to(ROOT).parts)
    assert lines_with(r"(?<!pg_)\bsleep\((?!0[,)])", real, looks) == []


def test_topics_are_named_in_the_registry_only() -> None:
    registry = {"contracts/topics.py"}
    name = r"[\"'](auth|entitlements|checkout|access|promoter|finance)\.[a-z-]+\.v\d+[\"']"
    assert lines_with(name, files("infra", "chassis", "cli"), registry) == []


@pytest.mark.parametrize(
    "name", ["requirements.lock", "pyproject.toml", "Makefile", "kisum", ".ci/run", "cli/install.py"]
)
def test_no_file_names_a_registry_or_a_path_of_one_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"https?://[^\s\"']+", text) == []
    assert re.findall(r"(?<![\w.])/(home|root|work|Users)/", text) == []


def test_the_lock_pins_every_package_with_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE)
    assert len(pinned) > 50
    assert not re.search(r"^(-|--)(index|extra|find)", lock, re.MULTILINE)
    for block in re.split(r"\n(?=[a-z0-9])", lock.split("\n", 1)[1]):
        assert "--hash=sha256:" in block, block[:60]


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", pages, re.MULTILINE))
    assert {"up", "test"} <= named <= targets
    assert (ROOT / ".ci" / "run").read_text().count("make ") == 2


def test_every_page_the_documents_link_to_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_git_keeps_no_state_and_no_secret() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"(^|/)(\.env|\.kisum|secrets)(/|$)", tracked, re.MULTILINE)
