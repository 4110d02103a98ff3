"""Auth judges its guards by its own rows: what it has committed decides, with no feed in between."""

from typing import Final

from sqlalchemy import select

from access.decision import (
    Decision,
    Requirement,
    decide_active_member,
    decide_company_admin,
    decide_platform_admin,
)
from access.records import Membership as MembershipRecord
from access.records import compile_membership
from contracts.events.auth import MembershipStatus
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId
from infra.outbox.tables import publisher
from infra.postgres.database import Database
from services.auth.memberships.rules import Standing, grant_changed
from services.auth.memberships.tables import Membership

_ALLOWED: Final = Decision(None)


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

    async def _membership(self, company_id: CompanyId, user_id: UserId) -> MembershipRecord | None:
        epoch = select(publisher.c.epoch).scalar_subquery().label("epoch")
        membership = select(Membership.status, Membership.superadmin, Membership.version, epoch).where(
            Membership.company_id == company_id, Membership.user_id == user_id
        )
        async with self._database.unit_of_work() as work:
            found = (await work.execute(membership)).one_or_none()
        if found is None:
            return None
        standing = Standing(MembershipStatus(found.status), found.superadmin)
        # Guards ask for no module, so none is compiled.
        return MembershipRecord(compile_membership(grant_changed(user_id, standing), found.epoch, found.version, ()))
