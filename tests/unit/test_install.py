"""`./kisum` and cli/install.py as a stranger meets them: a copy of the checkout, one process, one line."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "cli").mkdir(parents=True)
    for name in ("kisum", "requirements.lock", "cli/install.py"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what a shell needs and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "readlink", "dirname", "sha256sum"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def python_with(folder: Path, startup: str) -> Path:
    """The real interpreter, seeing another system than this one."""
    (folder / "sitecustomize.py").write_text(startup)
    return script(folder / "python3", f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')


def run(checkout: Path, tools: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "kisum", *arguments],
        env={"PATH": str(tools), "HOME": str(tools), **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0
    assert result.stderr.startswith("kisum: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_no_python(checkout: Path, tools: Path) -> None:
    assert "none was found" in refusal(run(checkout, tools))


def test_python_too_old(checkout: Path, tools: Path) -> None:
    script(tools / "python3", "#!/bin/sh\necho 3.9\nexit 1\n")
    assert "python3 is 3.9" in refusal(run(checkout, tools))


def test_a_name_that_starts_nothing_is_passed_over(checkout: Path, tools: Path) -> None:
    script(tools / "python3.12", "#!/bin/sh\necho 'not installed' >&2\nexit 127\n")
    python_with(tools, "import platform\nplatform.libc_ver = lambda *a, **k: ('', '')\n")
    assert "musl" in refusal(run(checkout, tools))


def test_a_chosen_python_that_does_not_start(checkout: Path, tools: Path) -> None:
    assert "PYTHON=absent" in refusal(run(checkout, tools, PYTHON="absent"))


@pytest.mark.parametrize(
    ("startup", "reason"),
    [
        ("import sys\nsys.modules['ensurepip'] = None", "python3-venv"),
        ("import sys\nsys.modules['venv'] = None", "python3-venv"),
        ("import platform\nplatform.libc_ver = lambda *a, **k: ('', '')", "musl"),
        ("import platform\nplatform.machine = lambda: 'aarch64'", "x86-64"),
        ("import sys\nsys.platform = 'darwin'", "Linux"),
        (
            "import shutil, collections\nshutil.disk_usage = lambda p: collections.namedtuple('U', 'free')(5)",
            "free disk",
        ),
        ("import os\nos.access = lambda *a, **k: False", "not writable"),
    ],
)
def test_a_system_it_does_not_run_on(checkout: Path, tools: Path, startup: str, reason: str) -> None:
    python_with(tools, startup)
    result = run(checkout, tools)
    assert reason in refusal(result)
    assert not (checkout / ".venv").exists()


def test_no_network(checkout: Path, tools: Path) -> None:
    python_with(tools, "")
    with socket.socket() as closed:  # bound but not listening: refused at once
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        result = run(checkout, tools, PIP_INDEX_URL=index, PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull)
    assert "no network" in refusal(result)
    assert "MB to download" in result.stdout
    assert not (checkout / ".venv" / ".lock-sha256").exists()


def test_a_package_with_another_sum(checkout: Path, tools: Path) -> None:
    python_with(tools, "")
    wheels = checkout / "wheels"
    wheels.mkdir()
    (wheels / "kisum_probe-1-py3-none-any.whl").write_bytes(b"not what was pinned")
    (checkout / "requirements.lock").write_text(f"# download size: 1 MB\nkisum-probe==1 --hash=sha256:{'0' * 64}\n")
    result = run(checkout, tools, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels), PIP_CONFIG_FILE=os.devnull)
    assert "not the pinned one" in refusal(result)


def test_built_once_from_any_folder_through_a_link_and_again_when_the_lock_changes(
    checkout: Path, tools: Path, tmp_path: Path
) -> None:
    python_with(tools, "")
    lock = checkout / "requirements.lock"
    lock.write_text("# download size: 1 MB\n")
    (checkout / "cli" / "__main__.py").write_text("import sys; print('arguments', sys.argv[1:])\n")
    (tmp_path / "cli.py").write_text("raise SystemExit('the current folder came first')")
    link = tmp_path / "link"
    link.symlink_to("checkout/kisum")

    def call() -> str:
        return subprocess.run(
            [link, "a b", "c"], env={"PATH": str(tools)}, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    assert "Installing" in (first := call())
    assert first.endswith("arguments ['a b', 'c']\n")
    assert call() == "arguments ['a b', 'c']\n"
    lock.write_text("# download size: 2 MB\n")
    assert "up to 2 MB" in call()
    (checkout / ".venv" / ".lock-sha256").unlink()  # as a build that was interrupted leaves it
    assert "Installing" in call()


def test_two_at_the_same_moment_build_once(checkout: Path, tools: Path) -> None:
    python_with(tools, "")
    (checkout / "requirements.lock").write_text("# download size: 1 MB\n")
    both = [
        subprocess.Popen(
            [checkout / "kisum", "--install-only"], env={"PATH": str(tools)}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(output.count("Installing") for output in outputs) == [0, 1]
