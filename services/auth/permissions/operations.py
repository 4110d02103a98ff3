import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.seeds import Seed
from contracts.events.auth import PermissionsChanged
from contracts.identifiers import PLATFORM_COMPANY_ID
from contracts.permissions import PERMISSIONS
from contracts.topics import TOPICS
from infra.outbox.source import one_by_one
from infra.outbox.writer import Lane, Revision, next_version, publish_state
from services.auth.database import Base
from services.auth.permissions import rules
from services.auth.permissions.tables import PermissionRow, PublishedModule, read_catalog

TOPIC: Final = next(topic for topic in TOPICS if topic.name == "auth.permissions.v1")

#: Held while states are compared and published, so that two instances that start together publish once.
_PUBLICATION_LOCK: Final = 7_305_800_004


def catalog_seed() -> Seed:
    """The rows of contracts.permissions: inserted once each, what is edited later stays."""
    rows: Mapping[str, Mapping[str, Any]] = {
        f"{module}/{key}": {
            "module": module,
            "key": key,
            "label": row.label,
            "bit": row.bit,
            "scope_types": list(row.scope_types),
            "capability": row.capability,
            "alias_of": row.alias_of,
            "status": row.status.value,
            "administration": row.administration,
        }
        for module, permissions in PERMISSIONS.items()
        for key, row in permissions.items()
    }
    return Seed(table=Base.metadata.tables["permissions"], rows=rows)


async def permissions_of(work: AsyncSession, module: str | None) -> list[PermissionRow]:
    """The catalog, or the part of one module, by module and bit. Raises ModuleUnknownError."""
    rows = select(PermissionRow).order_by(PermissionRow.module, PermissionRow.bit)
    found = list(await work.scalars(rows if module is None else rows.where(PermissionRow.module == module)))
    if module is not None and not found:
        raise rules.ModuleUnknownError(module)
    return found


async def publish_changed(work: AsyncSession, *, now: datetime) -> list[Revision]:
    """Publish every module whose rows are not those last published; a second call publishes nothing."""
    await work.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _PUBLICATION_LOCK})
    revisions = []
    for module in list(await work.scalars(select(PermissionRow.module).distinct().order_by(PermissionRow.module))):
        payload = rules.permissions_changed(module, (await read_catalog(work, module)).values())
        state = payload.model_dump(mode="json")
        published = await work.get(PublishedModule, module, with_for_update=True, populate_existing=True)
        if published is None:
            published = PublishedModule(module=module, version=1, state=state)
            work.add(published)
        elif published.state != state:
            published.version, published.state = published.version + 1, state
        else:
            continue
        revisions.append(await _publish(work, payload, published.version, now))
    return revisions


def is_key(key: str) -> bool:
    """Whether the text can be a module's key."""
    return rules.is_key(key)


async def keys(work: AsyncSession, *, after: str | None, limit: int) -> list[str]:
    """The modules that were published, in order, from behind `after` on."""
    rows = select(PublishedModule.module).order_by(PublishedModule.module).limit(limit)
    return list(await work.scalars(rows if after is None else rows.where(PublishedModule.module > after)))


async def republish(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish again what was last published of a module; None for a module that never was."""
    if not rules.is_key(key):
        return None
    published = await work.get(PublishedModule, key, with_for_update=True, populate_existing=True)
    if published is None:
        return None
    published.version = next_version(published.version, above)
    payload = PermissionsChanged.model_validate_json(json.dumps(published.state))
    return await _publish(work, payload, published.version, now, lane)


republish_all = one_by_one(republish)


async def withdraw(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish of a module that never was published that none of its rows gives anything."""
    payload, version = rules.nothing_granted(key), next_version(0, above)
    await work.execute(
        insert(PublishedModule)
        .values(module=key, version=version, state=payload.model_dump(mode="json"))
        .on_conflict_do_nothing()
    )
    # Where somebody published it meanwhile, that is what it is.
    published = await work.get_one(PublishedModule, key, with_for_update=True, populate_existing=True)
    published.version = max(published.version, version)
    payload = PermissionsChanged.model_validate_json(json.dumps(published.state))
    return await _publish(work, payload, published.version, now, lane)


async def _publish(
    work: AsyncSession, payload: PermissionsChanged, version: int, now: datetime, lane: Lane = Lane.INTERACTIVE
) -> Revision:
    return await publish_state(
        work, TOPIC, payload, company_id=PLATFORM_COMPANY_ID, version=version, occurred_at=now, lane=lane
    )
