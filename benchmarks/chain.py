"""What the chain costs: token, company, access context, module, permission, before the handler of a route.

The service below has each of two handlers twice: behind a permission and behind nothing. It is built by the chassis as
every service is, follows the log of a million memberships and runs in a process of its own; as a program it is given
its port. Every request is of one of a thousand people and has the same headers, whatever the route asks for.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import psutil
from fastapi import Header, Request

from benchmarks.bed import Bed
from benchmarks.figures import Figure, medians
from benchmarks.load import send
from benchmarks.programs import free_port, given, program
from benchmarks.record_log import KID, MEMBERSHIPS_COUNT, RecordLog
from benchmarks.reference import PERMISSION, person
from chassis.application import build_app
from chassis.routing import ResponseModel, router
from chassis.service import Service
from chassis.settings import read_settings
from cli.demo.waiting import wait_until
from cli.running import problem_of
from cli.server import run
from contracts.identifiers import CompanyId, UserId, new_id
from infra.postgres.database import Database
from infra.telemetry.logging import configure_logging
from middleware.chain import COMPANY_HEADER
from middleware.guards import NoScope, Permission, Public, guard
from middleware.identity import Identity
from middleware.token import SigningKey, TokenIssuer
from services.finance.app import service as finance
from services.finance.expenses.tables import Expense
from services.finance.settings import FinanceSettings
from tests.harness.access import ROOT_KEY
from tests.harness.services import service_database

_ROUNDS: Final = 9
_REQUESTS: Final = 6000
_CONNECTIONS: Final = 16
_PEOPLE: Final = 1000
_READY_SECONDS: Final = 120.0
_ISSUER: Final = "benchmark"
_WHY: Final = "what the chain is measured beside"


class _Answer(ResponseModel):
    description: str | None = None


async def _read(request: Request, company_id: UUID, row: UUID) -> _Answer:
    """One row of the company, through row-level security, in a transaction of its own."""
    database: Database = request.app.state.database
    async with database.unit_of_work(company_id=CompanyId(company_id)) as work:
        found = await work.get_one(Expense, row)
    return _Answer(description=found.description)


_routes: Final = router(prefix=finance.manifest.route_group, tag="benchmark")
_Company = Annotated[UUID, Header(alias="Kisum-Company-Id")]


@_routes.get("/guarded/empty")
@guard(Permission(PERMISSION, NoScope(_WHY)))
async def guarded_empty() -> _Answer:
    """Nothing behind the chain."""
    return _Answer()


@_routes.get("/public/empty")
@guard(Public(_WHY))
async def public_empty() -> _Answer:
    """Nothing behind nothing."""
    return _Answer()


@_routes.get("/guarded/row")
@guard(Permission(PERMISSION, NoScope(_WHY)))
async def guarded_row(request: Request, company_id: _Company, row: UUID) -> _Answer:
    """A row behind the chain."""
    return await _read(request, company_id, row)


@_routes.get("/public/row")
@guard(Public(_WHY))
async def public_row(request: Request, company_id: _Company, row: UUID) -> _Answer:
    """A row behind nothing."""
    return await _read(request, company_id, row)


service: Final[Service[FinanceSettings]] = replace(finance, routers=(_routes,))


async def measure(bed: Bed) -> list[Figure]:
    """The four routes in turn, each with so many requests at once as there are connections."""
    log, instance = await bed.log(), await bed.filled_instance()
    database = await service_database(await bed.runtime(), finance)
    url = database.url((await bed.runtime()).administrator_url)
    environment = {
        "KISUM_FINANCE_DATABASE_URL": url,
        "KISUM_FINANCE_KAFKA_BOOTSTRAP_SERVERS": log.kafka.bootstrap_servers,
        "KISUM_FINANCE_KAFKA_USERNAME": log.kafka.username,
        "KISUM_FINANCE_KAFKA_PASSWORD": log.kafka.password,
        "KISUM_FINANCE_TOPIC_PREFIX": log.kafka.topic_prefix,
        "KISUM_FINANCE_TOKEN_ISSUER": _ISSUER,
        "KISUM_FINANCE_TOKEN_AUDIENCE": _ISSUER,
        "KISUM_FINANCE_ROOT_PUBLIC_KEY": _base64url(ROOT_KEY.public_key().public_bytes_raw()),
        "KISUM_FINANCE_ACCESS_FOLDER": str(instance.folder),
        "KISUM_FINANCE_FILES_URL": (bed.folder / "files").as_uri(),
    }
    port = free_port()
    requests = await _requests(log, url)
    async with program(
        "benchmarks.chain", gives={"port": port}, environment=environment, log=bed.folder / "chain.log"
    ) as process:
        await wait_until(
            lambda: problem_of(f"http://127.0.0.1:{port}", finance.manifest.route_group),
            lambda problem: problem is None,
            describe="the service is ready",
            timeout_seconds=_READY_SECONDS,
        )
        server = psutil.Process(process.pid)
        contenders = {route: partial(_time, route, port, sent, server) for route, sent in requests.items()}
        for contender in contenders.values():
            await contender()
        found = await medians(contenders, _ROUNDS)
    return [
        Figure("chain_cpu_us", found["guarded/empty_cpu"] - found["public/empty_cpu"], "us"),
        Figure("chain_with_row_cpu_us", found["guarded/row_cpu"] - found["public/row_cpu"], "us"),
        Figure("chain_throughput_ratio", found["guarded/row_rate"] / found["public/row_rate"], "x"),
        Figure("chain_throughput_ratio_empty", found["guarded/empty_rate"] / found["public/empty_rate"], "x"),
        *(
            Figure(f"{route.replace('/', '_')}_requests_per_second", found[f"{route}_rate"], "1/s")
            for route in requests
        ),
        *(Figure(f"{route.replace('/', '_')}_cpu_us", found[f"{route}_cpu"], "us") for route in requests),
    ]


async def _time(route: str, port: int, requests: Sequence[bytes], server: psutil.Process) -> Mapping[str, float]:
    """Requests a second, and the processor time of one in the server, in microseconds."""
    used, begun = sum(server.cpu_times()[:2]), time.perf_counter()
    await send(port, requests, connections=_CONNECTIONS)
    taken = time.perf_counter() - begun
    return {
        f"{route}_rate": len(requests) / taken,
        f"{route}_cpu": (sum(server.cpu_times()[:2]) - used) / len(requests) * 1e6,
    }


async def _requests(log: RecordLog, url: str) -> dict[str, list[bytes]]:
    """By route, as many as are sent in a round."""

    async def signing_key() -> SigningKey:
        return SigningKey(KID, log.signing_key)

    issuer = TokenIssuer(issuer=_ISSUER, audience=_ISSUER, lifetime=timedelta(minutes=10), signing_key=signing_key)
    database = Database(url, application_name="benchmark")
    heads = []
    try:
        for number in range(0, MEMBERSHIPS_COUNT, MEMBERSHIPS_COUNT // _PEOPLE):
            company_id, user_id = person(number + number // _PEOPLE, MEMBERSHIPS_COUNT)
            token = await issuer.issue(Identity(user_id, new_id(), 1), datetime.now(UTC))
            heads.append((await _expense(database, company_id, user_id), _head(company_id, token.token)))
    finally:
        await database.close()
    return {
        route: [
            f"GET {finance.manifest.route_group}/{route}?row={row} HTTP/1.1\r\n{head}\r\n\r\n".encode()
            for row, head in heads * (_REQUESTS // _PEOPLE)
        ]
        for route in ("public/empty", "guarded/empty", "public/row", "guarded/row")
    }


def _head(company_id: CompanyId, token: str) -> str:
    return f"Host: kisum.test\r\nAuthorization: Bearer {token}\r\n{COMPANY_HEADER}: {company_id}"


async def _expense(database: Database, company_id: CompanyId, user_id: UserId) -> UUID:
    row = Expense(
        id=new_id(),
        company_id=company_id,
        description="a benchmark's expense",
        amount_minor=1250,
        currency="EUR",
        incurred_on=date(2026, 5, 21),
        created_by=user_id,
        created_at=datetime.now(UTC),
    )
    async with database.unit_of_work(company_id=company_id) as work:
        work.add(row)
    return row.id


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _serve(port: int) -> None:
    """As `kisum serve` does, but of the service above."""
    configure_logging()
    run(build_app(service, read_settings(service.settings)), "127.0.0.1", port)


if __name__ == "__main__":
    _serve(given()["port"])
