from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from infra.inbox import add_inbox_table
from infra.outbox.tables import add_outbox_tables
from infra.postgres.naming import NAMING_CONVENTION


class Base(DeclarativeBase):
    """Auth's own tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


add_outbox_tables(Base.metadata)
add_inbox_table(Base.metadata)
