from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from infra.postgres.naming import NAMING_CONVENTION


class Base(DeclarativeBase):
    """The resolver's own tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
