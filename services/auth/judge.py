"""Auth judges its guards by its own rows: what it has committed decides, with no feed in between."""

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, tuple_

from access.decision import (
    Decision,
    Requirement,
    decide_active_member,
    decide_company_admin,
    decide_platform_admin,
)
from access.records import compile_membership
from access.revisions import Subject, Version, VersionsOf
from contracts.events.auth import MembershipStatus
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId
from infra.outbox.tables import publisher
from infra.postgres.database import Database
from services.auth.memberships.rules import Standing, grant_changed
from services.auth.memberships.tables import Membership
from services.auth.permissions.tables import PublishedModule
from services.auth.projections.tables import CompanyEntitlement
from services.auth.sessions.tables import TokenGeneration

_ALLOWED: Final = Decision(None)
_EPOCH: Final = select(publisher.c.epoch).scalar_subquery().label("epoch")


class RowsJudge:
    """`middleware.chain.Judge` on Auth's database. Each method raises DatabaseUnavailableError while that is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def permission(
        self,
        company_id: CompanyId,  # noqa: ARG002
        user_id: UserId,  # noqa: ARG002
        requirement: Requirement,
        *,
        reading: bool,  # noqa: ARG002
    ) -> Decision:
        """Raises RuntimeError: Auth is no module and has no such route."""
        raise RuntimeError(f"a route of Auth asks for {requirement.key}")

    async def active_member(self, company_id: CompanyId, user_id: UserId, *, reading: bool) -> Decision:  # noqa: ARG002
        return decide_active_member(await self._membership(company_id, user_id))

    async def company_admin(self, company_id: CompanyId, user_id: UserId) -> Decision:
        return decide_company_admin(await self._membership(company_id, user_id))

    async def platform_admin(self, user_id: UserId) -> Decision:
        return decide_platform_admin(await self._membership(PLATFORM_COMPANY_ID, user_id))

    async def signed_in(self, *, reading: bool) -> Decision:  # noqa: ARG002 - the rows are never stale
        return _ALLOWED

    async def _membership(self, company_id: CompanyId, user_id: UserId) -> bytes | None:
        membership = select(Membership.status, Membership.superadmin, Membership.version, _EPOCH).where(
            Membership.company_id == company_id, Membership.user_id == user_id
        )
        async with self._database.unit_of_work() as work:
            found = (await work.execute(membership)).one_or_none()
        if found is None:
            return None
        standing = Standing(MembershipStatus(found.status), found.superadmin)
        # Guards ask for no module, so none is compiled.
        return compile_membership(grant_changed(user_id, standing), found.epoch, found.version, ())


def versions_in(database: Database) -> VersionsOf:
    """What Auth decides by: its own rows, and its copy of what Core has published."""

    async def versions_of(subjects: Collection[Subject]) -> Mapping[Subject, Version]:
        keys: dict[str, list[str]] = {}
        for topic, key in subjects:
            keys.setdefault(topic, []).append(key)
        found: dict[Subject, Version] = {}
        async with database.unit_of_work() as work:
            for topic, of_topic in keys.items():
                for *parts, epoch, version in await work.execute(_stored(topic, of_topic)):
                    found[topic, "/".join(map(str, parts))] = (epoch, version)
        return found

    return versions_of


def _stored(topic: str, keys: Collection[str]) -> Any:
    """The parts of each key of a topic that is stored, with its epoch and version."""
    match topic:
        case "auth.memberships.v1":
            members = [tuple(UUID(part) for part in key.split("/")) for key in keys]
            return select(Membership.company_id, Membership.user_id, _EPOCH, Membership.version).where(
                tuple_(Membership.company_id, Membership.user_id).in_(members)
            )
        case "auth.sessions.v1":
            people = [UUID(key) for key in keys]
            return select(TokenGeneration.user_id, _EPOCH, TokenGeneration.version).where(
                TokenGeneration.user_id.in_(people)
            )
        case "auth.permissions.v1":
            return select(PublishedModule.module, _EPOCH, PublishedModule.version).where(
                PublishedModule.module.in_(keys)
            )
        case _:
            companies = [UUID(key) for key in keys]
            return select(CompanyEntitlement.company_id, CompanyEntitlement.epoch, CompanyEntitlement.version).where(
                CompanyEntitlement.company_id.in_(companies)
            )
