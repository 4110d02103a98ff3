from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from services.auth.database import Base

#: An object whose values are "*" or a list of texts. CHECKs take no subquery, but JSON paths.
SCOPES_CHECK: Final = (
    "jsonb_typeof(scopes) = 'object'"
    ' and not jsonb_path_exists(scopes, \'strict $.* ? (@.type() != "array" && @.type() != "string")\')'
    ' and not jsonb_path_exists(scopes, \'strict $.* ? (@.type() == "string") ? (@ != "*")\')'
    ' and not jsonb_path_exists(scopes, \'strict $.* ? (@.type() == "array")[*] ? (@.type() != "string")\')'
)


class Membership(Base):
    """A person in a company. Never deleted: a removed member who comes back continues row and version (design §3)."""

    __tablename__ = "memberships"
    __table_args__ = (
        CheckConstraint("status in ('invited', 'active', 'suspended', 'removed')", name="status_is_known"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        CheckConstraint("not superadmin or status in ('active', 'suspended')", name="superadmin_has_accepted"),
        Index(None, "user_id"),
        Index("memberships_unpublished_index", "company_id", "user_id", postgresql_where=text("not published")),
    )

    company_id: Mapped[UUID] = mapped_column(ForeignKey("companies.id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    status: Mapped[str] = mapped_column(Text)
    superadmin: Mapped[bool]
    #: One more with every write of this row and of what hangs on it.
    version: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: False for rows older than publishing, until they are published once.
    published: Mapped[bool] = mapped_column(default=True)


class GrantedModule(Base):
    """A module a member was given. It stays when the company's entitlement ends: the decision masks it."""

    __tablename__ = "granted_modules"
    __table_args__ = (
        ForeignKeyConstraint(["company_id", "user_id"], ["memberships.company_id", "memberships.user_id"]),
        CheckConstraint(SCOPES_CHECK, name="scopes_are_ids_or_all"),
    )

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    module: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Per declared scope type "*" or a list of ids.
    scopes: Mapped[dict[str, Any]] = mapped_column(JSONB)
    #: None where it came with the company's entitlement.
    granted_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    granted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class GrantedPermission(Base):
    """A permission a member was given. `valid_until` is exclusive, none is without end."""

    __tablename__ = "granted_permissions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["company_id", "user_id", "module"],
            ["granted_modules.company_id", "granted_modules.user_id", "granted_modules.module"],
        ),
        ForeignKeyConstraint(["module", "key"], ["permissions.module", "permissions.key"]),
        CheckConstraint("valid_until > granted_at", name="ends_after_its_grant"),
        Index(None, "module", "key"),
        Index(None, "valid_until", postgresql_where=text("valid_until is not null")),
    )

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    module: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    valid_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: None where it came with the company's entitlement.
    granted_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    granted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class TopUp(Base):
    """A catalog row that reached a superadmin without anybody's doing. It outlives the grant, so that once is once."""

    __tablename__ = "top_ups"
    __table_args__ = (
        ForeignKeyConstraint(["company_id", "user_id"], ["memberships.company_id", "memberships.user_id"]),
        ForeignKeyConstraint(["module", "key"], ["permissions.module", "permissions.key"]),
    )

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    module: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    given_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class DelegationRow(Base):
    """What a member may pass on in a module. Permissions and scopes as in the event (contracts.events.auth)."""

    __tablename__ = "delegations"
    __table_args__ = (
        ForeignKeyConstraint(["company_id", "user_id"], ["memberships.company_id", "memberships.user_id"]),
        CheckConstraint(SCOPES_CHECK, name="scopes_are_ids_or_all"),
        CheckConstraint(
            "jsonb_typeof(permissions) = 'array' or permissions = '\"*\"'", name="permissions_are_keys_or_all"
        ),
        CheckConstraint("valid_until > granted_at", name="ends_after_its_grant"),
        CheckConstraint("granted_by <> user_id", name="is_not_of_oneself"),
        Index(None, "valid_until", postgresql_where=text("valid_until is not null")),
    )

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    module: Mapped[str] = mapped_column(Text, primary_key=True)
    permissions: Mapped[Any] = mapped_column(JSONB)
    scopes: Mapped[dict[str, Any]] = mapped_column(JSONB)
    may_delegate: Mapped[bool]
    valid_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    granted_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    granted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
