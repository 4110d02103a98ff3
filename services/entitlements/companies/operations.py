import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope
from contracts.events.entitlements import EntitlementChanged
from contracts.identifiers import CompanyId, UserId
from contracts.topics import PAYLOADS, TOPICS
from infra.outbox.writer import Lane, Revision, State, next_version, publish_state, publish_states
from services.entitlements.catalog.rules import Catalog
from services.entitlements.catalog.tables import read_catalog
from services.entitlements.companies import rules
from services.entitlements.companies.tables import Company, PurchaseFact

TOPIC: Final = next(topic for topic in TOPICS if topic.name == "entitlements.companies.v1")


@dataclass(frozen=True)
class CompanyEntitlement:
    """What a company is entitled to; version 0 is a company nothing was ever published for."""

    company_id: CompanyId
    version: int
    suspended_at: datetime | None
    state: EntitlementChanged
    kept: tuple[rules.Validity, ...]


async def record_fact(work: AsyncSession, fact: Envelope[Any], *, now: datetime) -> Revision | None:
    """Remember a fact of Checkout and publish the entitlement if it changed. Raises ItemUnknownError.

    A fact that is known already changes nothing.
    """
    company = await _locked(work, fact.company_id)
    recorded = await work.execute(
        insert(PurchaseFact)
        .values(
            event_id=fact.event_id,
            company_id=fact.company_id,
            type=fact.type,
            epoch=fact.epoch,
            version=fact.version,
            data=fact.data.model_dump(mode="json"),
            recorded_at=now,
        )
        .on_conflict_do_nothing(index_elements=[PurchaseFact.event_id])
        .returning(PurchaseFact.event_id)
    )
    if recorded.first() is None:
        return None
    return await _publish_if_changed(
        work, company, now=now, correlation_id=fact.correlation_id, causation_id=fact.event_id
    )


async def suspend(work: AsyncSession, company_id: CompanyId, *, actor: UserId, now: datetime) -> Revision:
    """Turn everything of a company off, whatever was bought, until it is restored. Raises CompanyUnknownError."""
    company = await _known(work, company_id)
    company.suspended_at = company.suspended_at or now
    return await _changed(work, company, actor=actor, now=now)


async def restore(work: AsyncSession, company_id: CompanyId, *, actor: UserId, now: datetime) -> Revision:
    """Give a suspended company back what its purchases say now. Raises CompanyUnknownError."""
    company = await _known(work, company_id)
    company.suspended_at = None
    return await _changed(work, company, actor=actor, now=now)


async def publish_ended(work: AsyncSession, *, now: datetime, limit: int) -> list[Revision | None]:
    """Publish the entitlement of companies of which something has ended; one for each that was looked at, at most
    `limit`. None where its state is the same without it. Each end is published once, whoever asks and how often.
    """
    companies = await work.scalars(
        select(Company)
        .where(Company.next_end <= now)
        .order_by(Company.next_end, Company.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return [await _publish_if_changed(work, company, now=now) for company in list(companies)]


def is_key(key: str) -> bool:
    """Whether the text is the key of a company, there or not."""
    try:
        rules.parse_key(key)
    except ValueError:
        return False
    return True


async def keys(work: AsyncSession, *, after: str | None, limit: int) -> list[str]:
    """The keys of companies something was published for, in order, from behind `after` on."""
    rows = select(Company.id).where(Company.version > 0).order_by(Company.id).limit(limit)
    if after is not None:
        rows = rows.where(Company.id > rules.parse_key(after))
    return [str(company_id) for company_id in await work.scalars(rows)]


async def republish(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish a company's state again; None for one nothing was published for."""
    if not is_key(key):
        return None
    company = await work.get(Company, rules.parse_key(key), with_for_update=True, populate_existing=True)
    if company is None or company.state is None:
        return None
    company.version = next_version(company.version, above)
    return await _publish(work, company, now=now, lane=lane)


async def republish_all(work: AsyncSession, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
    """Publish the states of companies again, with as many queries for all of them as for one."""
    companies = await work.scalars(
        select(Company)
        .where(Company.id.in_([rules.parse_key(key) for key in keys]))
        .order_by(Company.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    published = [
        State(_state(company), CompanyId(company.id), company.version)
        for company in companies
        if company.state is not None
    ]
    await publish_states(work, TOPIC, published, occurred_at=now, lane=lane)


async def withdraw(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish that a company nothing was published for is entitled to nothing; its row goes on from there."""
    company = await _locked(work, rules.parse_key(key))
    if company.state is None:
        company.state = rules.nothing().model_dump(mode="json")
    company.version = max(company.version, next_version(0, above))
    return await _publish(work, company, now=now, lane=lane)


async def entitlement_of(work: AsyncSession, company_id: CompanyId, *, now: datetime) -> CompanyEntitlement:
    """What a company is entitled to; nothing, for one that never bought."""
    company = await work.get(Company, company_id)
    entitlement = await _derived(work, company_id, await read_catalog(work))
    suspended_at = company.suspended_at if company else None
    return CompanyEntitlement(
        company_id=company_id,
        version=company.version if company else 0,
        suspended_at=suspended_at,
        state=rules.published(entitlement, suspended=suspended_at is not None, now=now),
        kept=entitlement.kept,
    )


async def explain(work: AsyncSession, company_id: CompanyId, module: str, *, now: datetime) -> rules.Explanation:
    """Why a module is on or off for a company. Raises ModuleUnknownError."""
    known = await read_catalog(work)
    company = await work.get(Company, company_id)
    entitlement = await _derived(work, company_id, known)
    suspended = company is not None and company.suspended_at is not None
    return rules.explain(entitlement, known, module, suspended=suspended, now=now)


async def _changed(work: AsyncSession, company: Company, *, actor: UserId, now: datetime) -> Revision:
    """What a caller may wait for; a repeated request is answered with the state it found."""
    changed = await _publish_if_changed(work, company, now=now, actor=actor)
    return changed or await _publish(work, company, now=now, actor=actor)


async def _publish_if_changed(
    work: AsyncSession,
    company: Company,
    *,
    now: datetime,
    actor: UserId | None = None,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
) -> Revision | None:
    entitlement = await _derived(work, CompanyId(company.id), await read_catalog(work))
    state = rules.published(entitlement, suspended=company.suspended_at is not None, now=now)
    stored = state.model_dump(mode="json")
    company.next_end = rules.next_end(entitlement, now)
    if stored == company.state:
        return None
    company.state, company.version = stored, company.version + 1
    return await _publish(work, company, now=now, actor=actor, correlation_id=correlation_id, causation_id=causation_id)


async def _publish(
    work: AsyncSession,
    company: Company,
    *,
    now: datetime,
    actor: UserId | None = None,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
    lane: Lane = Lane.INTERACTIVE,
) -> Revision:
    return await publish_state(
        work,
        TOPIC,
        _state(company),
        company_id=CompanyId(company.id),
        version=company.version,
        occurred_at=now,
        actor_user_id=actor,
        correlation_id=correlation_id,
        causation_id=causation_id,
        lane=lane,
    )


def _state(company: Company) -> EntitlementChanged:
    return EntitlementChanged.model_validate_json(json.dumps(company.state))


async def _derived(work: AsyncSession, company_id: CompanyId, known: Catalog) -> rules.Entitlement:
    rows = await work.scalars(select(PurchaseFact).where(PurchaseFact.company_id == company_id))
    return rules.derive((_recorded(row) for row in rows), known)


def _recorded(row: PurchaseFact) -> rules.RecordedFact:
    # Through JSON text: that is the form these strict types accept times and ids in.
    data: Any = PAYLOADS[row.type].model_validate_json(json.dumps(row.data))
    return rules.RecordedFact(event_id=row.event_id, epoch=row.epoch, version=row.version, data=data)


async def _locked(work: AsyncSession, company_id: CompanyId) -> Company:
    """The company's row, made when it is first heard of; Core waits for no membership (design §3)."""
    await work.execute(insert(Company).values(id=company_id).on_conflict_do_nothing(index_elements=[Company.id]))
    return await work.get_one(Company, company_id, with_for_update=True, populate_existing=True)


async def _known(work: AsyncSession, company_id: CompanyId) -> Company:
    company = await work.get(Company, company_id, with_for_update=True, populate_existing=True)
    if company is None:
        raise rules.CompanyUnknownError(f"No company has the id {company_id}.")
    return company
