import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio

from infra.embedded.errors import CannotStart
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.state import OUTSIDE, StateFolder
from infra.embedded.supervisor import Supervisor
from tests.harness.waiting import wait_until


def modes_above(path: Path) -> dict[Path, tuple[int, int]]:
    return {folder: (folder.stat().st_mode, folder.stat().st_uid) for folder in path.parents}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postgres(state: StateFolder, supervisor: Supervisor) -> EmbeddedPostgres:
    before = modes_above(state.path)
    postgres = EmbeddedPostgres(state)
    await postgres.prepare()
    await supervisor.start(postgres.child())
    assert modes_above(state.path) == before
    return postgres


async def answer(postgres: EmbeddedPostgres) -> object:
    try:
        connection = await asyncpg.connect(postgres.dsn())
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return error
    try:
        return await connection.fetchval("SELECT content FROM kept")
    finally:
        await connection.close()


async def test_it_is_postgresql_18_with_a_private_place(postgres: EmbeddedPostgres, state: StateFolder) -> None:
    connection = await asyncpg.connect(postgres.dsn())
    try:
        assert await connection.fetchval("SHOW server_version_num") >= "180000"
        assert await connection.fetchval("SHOW data_checksums") == "on"
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert (
            await connection.fetchval("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'")
            == 0
        )
        data = Path(await connection.fetchval("SHOW data_directory"))
    finally:
        await connection.close()
    assert data.stat().st_mode & 0o777 == 0o700
    assert data.parent.stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert data.parent == state.outside("postgres")
        assert data.parent.parent == OUTSIDE
        assert data.stat().st_uid == psutil.Process(_pid(state)).uids().effective != 0


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres, password: str) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host=postgres.host, port=postgres.port, user=postgres.superuser, password=password, database="postgres"
        )


async def test_the_password_is_in_no_process_list(postgres: EmbeddedPostgres, state: StateFolder) -> None:
    process = psutil.Process(_pid(state))
    assert postgres.password not in " ".join(process.cmdline()) + str(process.environ())


async def test_killed_it_comes_back_with_its_data(
    postgres: EmbeddedPostgres, state: StateFolder, supervisor: Supervisor
) -> None:
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute("CREATE TABLE kept AS SELECT 'content' AS content")
    # A statement that goes on computing while its server dies.
    busy = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1000000000)"))
    killed = _pid(state)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await busy
    await wait_until(lambda: answer(postgres), lambda got: got == "content", describe="data after kill -9")
    assert supervisor.pids()["postgres"] != killed


async def test_prepare_stops_an_orphan_and_leaves_a_taken_port(
    postgres: EmbeddedPostgres, state: StateFolder, supervisor: Supervisor
) -> None:
    await supervisor.stop_all()
    port = postgres.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((postgres.host, port))
        other.listen()
        again = EmbeddedPostgres(StateFolder.open(state.path))
        await again.prepare()
        assert again.port != port
        earlier = Supervisor()
        await earlier.start(again.child())
        orphan = psutil.Process(earlier.pids()["postgres"])
        await EmbeddedPostgres(StateFolder.open(state.path)).prepare()
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        await earlier.stop_all()


@pytest.mark.usefixtures("postgres")
async def test_a_lost_password_is_named(state: StateFolder) -> None:
    secret = state.path / "secrets" / "postgres-superuser"
    right = secret.read_text()
    secret.write_text("other")
    supervisor = Supervisor()
    again = EmbeddedPostgres(StateFolder.open(state.path))
    await again.prepare()
    try:
        with pytest.raises(CannotStart, match="postgres-superuser") as refusal:
            await supervisor.start(again.child())
        assert "\n" not in str(refusal.value)
        assert supervisor.pids() == {}
    finally:
        secret.write_text(right)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps files outside")
async def test_removal_takes_what_lies_outside(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "home")
    await EmbeddedPostgres(state).prepare()
    outside = state.outside("postgres")
    assert outside
    assert (outside / "data-18").exists()
    state.remove()
    assert not outside.exists()


def _pid(state: StateFolder) -> int:
    return int(json.loads(state.pid_path("postgres").read_text())["pid"])
