from sqlalchemy import BigInteger, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis.audit import add_audit_table
from chassis.idempotency import add_idempotency_table
from chassis.kept_files import add_unclaimed_files_table
from contracts.money import Money
from infra.postgres.companies import add_companies_table
from infra.postgres.naming import NAMING_CONVENTION


class Base(DeclarativeBase):
    """Finance's own tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class OfAmount:
    """A row that is of an amount of money, and shows its two columns as one value."""

    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)

    @property
    def amount(self) -> Money:
        return Money(self.amount_minor, self.currency)

    @amount.setter
    def amount(self, amount: Money) -> None:
        self.amount_minor, self.currency = amount.amount_minor, amount.currency


add_companies_table(Base.metadata)
add_idempotency_table(Base.metadata)
add_audit_table(Base.metadata)
add_unclaimed_files_table(Base.metadata)
