"""Buying as the parts do it, and what Checkout then tells."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from contracts.envelope import Envelope, decode, envelop
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.payload import Payload
from contracts.topics import TOPICS
from infra.outbox.tables import facts
from infra.postgres.database import Database
from services.checkout.offline_provider.operations import OfflineProvider
from services.checkout.projections.operations import apply_catalog_row
from services.checkout.sessions.operations import open_session
from services.checkout.sessions.tables import Session
from services.checkout.webhooks.operations import PAYMENT_SUCCEEDED, PaymentReport, receive
from services.checkout.webhooks.rules import Outcome
from tests.unit.checkout.test_sessions import CATALOG

NOW = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
BUYER = UserId(new_id())
PROVIDER = OfflineProvider("http://kisum.test/api/checkout/provider")


async def fill_catalog(database: Database) -> None:
    for rows in (CATALOG.modules, CATALOG.packages, CATALOG.addons, CATALOG.prices):
        for row in rows.values():
            await apply(database, row, version=1)


async def apply(database: Database, row: Payload, *, version: int, epoch: int = 1) -> None:
    changed = envelop(
        row,
        occurred_at=NOW,
        company_id=PLATFORM_COMPANY_ID,
        actor_user_id=None,
        epoch=epoch,
        version=version,
        correlation_id=new_id(),
    )
    async with database.unit_of_work() as work:
        await apply_catalog_row(work, changed)


async def opened(
    database: Database, company_id: CompanyId, *keys: str, trial: bool = False, now: datetime = NOW
) -> Session:
    async with database.unit_of_work() as work:
        return await open_session(
            work,
            PROVIDER,
            company_id=company_id,
            opened_by=BUYER,
            keys=keys,
            trial=trial,
            currency="USD",
            lifetime=timedelta(hours=23),
            now=now,
        )


def paid(session: Session, *, at: datetime = NOW, **changed: Any) -> PaymentReport:
    values: dict[str, Any] = {
        "provider": "offline",
        "event_id": f"evt_{new_id().hex}",
        "type": PAYMENT_SUCCEEDED,
        "created_at": at,
        "reference": session.payment_reference,
        "amount_minor": session.total_minor,
        "currency": session.currency,
    }
    return PaymentReport(**{**values, **changed})


async def report(database: Database, payment: PaymentReport, *, now: datetime | None = None) -> Outcome:
    async with database.unit_of_work() as work:
        return await receive(work, payment, now=now or payment.created_at)


async def bought(
    database: Database, company_id: CompanyId, *keys: str, trial: bool = False, now: datetime = NOW
) -> Session:
    session = await opened(database, company_id, *keys, trial=trial, now=now)
    assert await report(database, paid(session, at=now)) is Outcome.PROCESSED
    return await reread(database, session)


async def reread(database: Database, session: Session) -> Session:
    async with database.unit_of_work() as work:
        return await work.get_one(Session, session.id)


async def told(database: Database, company_id: CompanyId) -> list[Envelope[Any]]:
    """The facts handed to the outbox for a company, in order."""
    async with database.unit_of_work() as work:
        rows = await work.execute(
            select(facts.c.topic, facts.c.value).where(facts.c.key == str(company_id)).order_by(facts.c.id)
        )
        return [decode(bytes(value), _payloads(topic)) for topic, value in rows]


def _payloads(name: str) -> tuple[type[Payload], ...]:
    return next(topic.payloads for topic in TOPICS if topic.name == name)


def kinds(envelopes: list[Envelope[Any]]) -> list[str]:
    return [type(each.data).__name__ for each in envelopes]
