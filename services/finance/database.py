from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from chassis.audit import add_audit_table
from chassis.idempotency import add_idempotency_table
from chassis.kept_files import add_unclaimed_files_table
from infra.postgres.companies import add_companies_table
from infra.postgres.naming import NAMING_CONVENTION


class Base(DeclarativeBase):
    """Finance's own tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


add_companies_table(Base.metadata)
add_idempotency_table(Base.metadata)
add_audit_table(Base.metadata)
add_unclaimed_files_table(Base.metadata)
