from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, column, func, select, text
from sqlalchemy.dialects.postgresql import ExcludeConstraint, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.types import DateTime

from contracts.events.checkout import Item
from contracts.identifiers import CompanyId
from services.checkout.database import Base
from services.checkout.subscriptions.rules import Held, SubscriptionStatus


class Customer(Base):
    """A company that opened a checkout. Its lock orders everything that is bought or canceled for it."""

    __tablename__ = "customers"

    company_id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class SubscriptionItem(Base):
    """What a subscription holds now."""

    __tablename__ = "subscription_items"
    __table_args__ = (CheckConstraint("kind in ('package', 'addon')", name="kind_is_known"),)

    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)

    @property
    def item(self) -> Item:
        return Item(kind="package" if self.kind == "package" else "addon", key=self.key)


class Subscription(Base):
    """Items a company holds for a period. Never deleted: a canceled one is a row with that status."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("status in ('trialing', 'active', 'canceled')", name="status_is_known"),
        CheckConstraint("status <> 'trialing' or anchor_at is null", name="trial_has_no_anchor"),
        CheckConstraint("status <> 'active' or anchor_at is not null", name="paid_has_an_anchor"),
        CheckConstraint("ends_at >= started_at", name="ends_after_its_start"),
        CheckConstraint("period_end > period_start", name="period_is_not_empty"),
        CheckConstraint("ends_at <= period_end", name="ends_with_its_period"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        Index(None, "company_id"),
        # One base at a time, by time: a subscription that is over leaves room before anybody closes its row.
        ExcludeConstraint(
            (column("company_id"), "="),
            (func.tstzrange(column("started_at"), column("ends_at")), "&&"),
            where=text("base_module is not null and status <> 'canceled'"),
            name="subscriptions_one_base_at_a_time",
        ),
        Index("subscriptions_running_index", "ends_at", postgresql_where="status <> 'canceled'"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID] = mapped_column(ForeignKey("customers.company_id"))
    status: Mapped[str] = mapped_column(Text)
    base_module: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    anchor_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    period_start: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    period_end: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: Exclusive; before `period_end` only where it was canceled at once.
    ends_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    cancels_at_period_end: Mapped[bool] = mapped_column(default=False)
    #: The instant of its newest fact, and how many facts there are.
    effective_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    version: Mapped[int] = mapped_column(BigInteger)
    items: Mapped[list[SubscriptionItem]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", order_by=[SubscriptionItem.kind, SubscriptionItem.key]
    )

    def held(self) -> Held:
        """This row as its rules see it."""
        return Held(
            id=self.id,
            status=SubscriptionStatus(self.status),
            items=frozenset(row.item for row in self.items),
            base_module=self.base_module,
            anchor_at=self.anchor_at,
            period_end=self.period_end,
            ends_at=self.ends_at,
        )


class Trial(Base):
    """A company had its trial of a package; there is no second one."""

    __tablename__ = "trials"

    company_id: Mapped[UUID] = mapped_column(ForeignKey("customers.company_id"), primary_key=True)
    package_key: Mapped[str] = mapped_column(Text, primary_key=True)
    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.id"))
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


async def lock_customer(work: AsyncSession, company_id: CompanyId, now: datetime) -> None:
    """Wait for whatever else is bought or canceled for this company."""
    await work.execute(
        insert(Customer)
        .values(company_id=company_id, created_at=now)
        .on_conflict_do_nothing(index_elements=[Customer.company_id])
    )
    await work.execute(select(Customer.company_id).where(Customer.company_id == company_id).with_for_update())


async def running(work: AsyncSession, company_id: CompanyId, *, locked: bool = False) -> list[Subscription]:
    """A company's subscriptions that are not canceled, the base's first. Some may be over by time."""
    query = (
        select(Subscription)
        .where(Subscription.company_id == company_id, Subscription.status != SubscriptionStatus.CANCELED)
        .order_by(Subscription.base_module.is_(None), Subscription.id)
    )
    return list(await work.scalars(query.with_for_update() if locked else query))


async def trials_of(work: AsyncSession, company_id: CompanyId) -> set[str]:
    """The packages a company had a trial of."""
    return set(await work.scalars(select(Trial.package_key).where(Trial.company_id == company_id)))
