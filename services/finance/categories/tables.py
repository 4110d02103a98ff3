from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text, UniqueConstraint, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from contracts.identifiers import CompanyId
from services.finance.categories.rules import CategoryState
from services.finance.database import Base


class Category(Base):
    """Fenced by company. Never deleted: expenses are of it."""

    __tablename__ = "categories"
    __table_args__ = (
        CheckConstraint("state in ('active', 'retired')", name="state_is_known"),
        CheckConstraint("length(name) between 1 and 100", name="name_length"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        # What an expense refers to, its company with it.
        UniqueConstraint("company_id", "id"),
        Index(
            "categories_one_of_a_name_index",
            "company_id",
            "name",
            unique=True,
            postgresql_where=text("state = 'active'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    company_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    #: One more with every write; the ETag.
    version: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


async def held_state(work: AsyncSession, company_id: CompanyId, category_id: UUID) -> CategoryState | None:
    """The state of a company's category, in which it stays until the transaction ends; None for one there is not."""
    own = select(Category.state).where(Category.company_id == company_id, Category.id == category_id)
    state = await work.scalar(own.with_for_update(read=True))
    return None if state is None else CategoryState(state)
