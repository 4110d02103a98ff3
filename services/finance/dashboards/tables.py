from datetime import date
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Numeric, Text, text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Date

from services.finance.database import Base


class SpentSum(Base):
    """Part of what went to a vendor or agency in a month: the sum of its rows is that of the expenses agreed to.

    Triggers write it with every change of an expense, in the same statement, whoever makes the change. They add rows
    and change none, so nobody who writes expenses waits for another who does; `fold` makes one row of many again.
    Fenced by company.
    """

    __tablename__ = "spent_sums"
    __table_args__ = (
        CheckConstraint("party in ('vendor', 'agency')", name="party_is_known"),
        Index(None, "company_id", "party", "month", "party_id", "currency", postgresql_include=["amount_minor"]),
        Index("spent_sums_not_folded_index", "company_id", postgresql_where=text("not is_folded")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    company_id: Mapped[UUID]
    party: Mapped[str] = mapped_column(Text)
    #: None for what names none.
    party_id: Mapped[UUID | None]
    #: Its first day.
    month: Mapped[date] = mapped_column(Date)
    currency: Mapped[str] = mapped_column(Text)
    #: Less than nothing where an expense was taken back or changed.
    amount_minor: Mapped[Decimal] = mapped_column(Numeric)
    is_folded: Mapped[bool]
