from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from infra.postgres.naming import NAMING_CONVENTION


class Base(DeclarativeBase):
    """Finance's own tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
