from sqlalchemy import delete, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import Envelope
from contracts.events.entitlements import EntitlementChanged
from services.auth.projections import rules
from services.auth.projections.tables import CompanyEntitlement, CompanyModule


async def apply_entitlement(work: AsyncSession, envelope: Envelope[EntitlementChanged]) -> bool:
    """Take over what a company is entitled to, if it is newer than what is known; whether it was."""
    eligible = rules.eligible_modules(envelope.data)
    row = insert(CompanyEntitlement).values(
        company_id=envelope.company_id, epoch=envelope.epoch, version=envelope.version, known=eligible is not None
    )
    applied = await work.execute(
        row.on_conflict_do_update(
            index_elements=[CompanyEntitlement.company_id],
            set_={"epoch": row.excluded.epoch, "version": row.excluded.version, "known": row.excluded.known},
            where=tuple_(row.excluded.epoch, row.excluded.version)
            > tuple_(CompanyEntitlement.epoch, CompanyEntitlement.version),
        ).returning(CompanyEntitlement.company_id)
    )
    if applied.first() is None:
        return False
    if eligible is None:
        return True
    await work.execute(delete(CompanyModule).where(CompanyModule.company_id == envelope.company_id))
    for module, valid_until in eligible.items():
        await work.execute(
            insert(CompanyModule).values(company_id=envelope.company_id, module=module, valid_until=valid_until)
        )
    return True
