from datetime import datetime
from uuid import UUID

from fastapi import Response

from chassis.request import Caller, Company, Now, Work
from chassis.routing import REVISION_HEADER, ResponseModel, problem_statuses, router
from contracts.identifiers import CompanyId
from middleware.guards import ActiveMember, CompanyAdmin, PlatformAdmin, guard
from services.entitlements.companies import operations, rules
from services.entitlements.manifest import MANIFEST

companies = router(prefix=MANIFEST.route_group, tag="companies")


class BaseBody(ResponseModel):
    module: str
    status: str
    valid_until: datetime | None


class ValidityBody(ResponseModel):
    """`valid_until` is exclusive."""

    key: str
    valid_until: datetime | None


class EntitlementBody(ResponseModel):
    """`kept` is every add-on module that was bought, also those that wait for a base to be usable."""

    company_id: UUID
    version: int
    status: str
    base: BaseBody | None
    modules: tuple[ValidityBody, ...]
    capabilities: tuple[str, ...]
    kept: tuple[ValidityBody, ...]
    suspended_at: datetime | None


class ExplanationBody(ResponseModel):
    """`ground` is the first thing that turns the module off, or `entitled`."""

    module: str
    entitled: bool
    ground: str
    detail: str
    valid_until: datetime | None


@companies.get("/companies/{company_id}", responses=problem_statuses(404))
@guard(ActiveMember())
async def show_entitlement(company_id: UUID, company: Company, work: Work, now: Now) -> EntitlementBody:
    """What the caller's company is entitled to."""
    rules.check_own(company_id, company)
    return _body(await operations.entitlement_of(work, company, now=now))


@companies.get("/companies/{company_id}/explain", responses=problem_statuses(404))
@guard(CompanyAdmin())
async def explain_module(company_id: UUID, module: str, company: Company, work: Work, now: Now) -> ExplanationBody:
    """Why a module is on or off for the caller's company."""
    rules.check_own(company_id, company)
    return ExplanationBody.model_validate(await operations.explain(work, company, module, now=now))


@companies.post("/companies/{company_id}/suspend", responses=problem_statuses(404))
@guard(PlatformAdmin())
async def suspend_company(
    company_id: UUID, caller: Caller, work: Work, now: Now, response: Response
) -> EntitlementBody:
    """Turn everything of a company off until it is restored."""
    revision = await operations.suspend(work, CompanyId(company_id), actor=caller.user_id, now=now)
    response.headers[REVISION_HEADER] = str(revision)
    return _body(await operations.entitlement_of(work, CompanyId(company_id), now=now))


@companies.post("/companies/{company_id}/restore", responses=problem_statuses(404))
@guard(PlatformAdmin())
async def restore_company(
    company_id: UUID, caller: Caller, work: Work, now: Now, response: Response
) -> EntitlementBody:
    """End a suspension."""
    revision = await operations.restore(work, CompanyId(company_id), actor=caller.user_id, now=now)
    response.headers[REVISION_HEADER] = str(revision)
    return _body(await operations.entitlement_of(work, CompanyId(company_id), now=now))


def _body(held: operations.CompanyEntitlement) -> EntitlementBody:
    state = held.state
    return EntitlementBody(
        company_id=held.company_id,
        version=held.version,
        status=state.status,
        base=BaseBody.model_validate(state.base) if state.base else None,
        modules=tuple(ValidityBody.model_validate(module) for module in state.modules),
        capabilities=state.capabilities,
        kept=tuple(ValidityBody.model_validate(module) for module in held.kept),
        suspended_at=held.suspended_at,
    )
