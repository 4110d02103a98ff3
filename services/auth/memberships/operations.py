from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import PLATFORM_COMPANY_ID, UserId
from services.auth.memberships.tables import Membership
from services.auth.users.rules import UserUnknownError, email_key
from services.auth.users.tables import User


@dataclass(frozen=True)
class PlatformAdmin:
    """`was_one_before` tells a repeated command from one that changed something."""

    user_id: UserId
    was_one_before: bool


async def add_platform_admin(work: AsyncSession, *, email: str, now: datetime) -> PlatformAdmin:
    """Make a person who signed up an admin of the whole platform. Raises UserUnknownError."""
    user_id = await work.scalar(select(User.id).where(User.email_key == email_key(email)))
    if user_id is None:
        raise UserUnknownError("Nobody has signed up with this mail address.")
    membership = await work.get(Membership, (PLATFORM_COMPANY_ID, user_id), with_for_update=True)
    if membership is not None and membership.status == "active" and membership.superadmin:
        return PlatformAdmin(UserId(user_id), was_one_before=True)
    if membership is None:
        work.add(
            Membership(
                company_id=PLATFORM_COMPANY_ID,
                user_id=user_id,
                status="active",
                superadmin=True,
                version=1,
                created_at=now,
            )
        )
    else:
        membership.status, membership.superadmin, membership.version = "active", True, membership.version + 1
    return PlatformAdmin(UserId(user_id), was_one_before=False)
