import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.seeds import Seed
from contracts.events.auth import PermissionsChanged
from contracts.identifiers import PLATFORM_COMPANY_ID
from contracts.permissions import PERMISSIONS
from contracts.topics import TOPICS
from infra.outbox.writer import Revision, publish_state
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


async def republish(work: AsyncSession, key: str, *, now: datetime) -> Revision | None:
    """Publish again what was last published of a module; None for a module that never was."""
    published = await work.get(PublishedModule, key, with_for_update=True, populate_existing=True)
    if published is None:
        return None
    payload = PermissionsChanged.model_validate_json(json.dumps(published.state))
    return await _publish(work, payload, published.version, now)


async def _publish(work: AsyncSession, payload: PermissionsChanged, version: int, now: datetime) -> Revision:
    return await publish_state(work, TOPIC, payload, company_id=PLATFORM_COMPANY_ID, version=version, occurred_at=now)
