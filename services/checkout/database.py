from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from infra.inbox import add_inbox_table
from infra.outbox.tables import add_outbox_tables


class Base(DeclarativeBase):
    """Checkout's own tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_index",
            "uq": "%(table_name)s_%(column_0_N_name)s_unique",
            "ck": "%(table_name)s_%(constraint_name)s",
            "fk": "%(table_name)s_%(column_0_N_name)s_exists",
            "pk": "%(table_name)s_key",
        }
    )


add_outbox_tables(Base.metadata)
add_inbox_table(Base.metadata)
