from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import Field

from chassis.request import Caller, Now, Work
from chassis.routing import REVISION_HEADER, RequestModel, ResponseModel, router
from middleware.guards import SignedIn, guard
from services.auth.companies import operations
from services.auth.manifest import MANIFEST

companies = router(prefix=MANIFEST.route_group, tag="companies")


class NewCompany(RequestModel):
    name: Annotated[str, Field(min_length=1, max_length=200)]


class CompanyBody(ResponseModel):
    id: UUID
    name: str
    created_at: datetime


@companies.post("/companies", status_code=201)
@guard(SignedIn())
async def found_company(body: NewCompany, caller: Caller, work: Work, now: Now, response: Response) -> CompanyBody:
    """Create a company; the caller becomes its superadmin."""
    founded = await operations.found(work, name=body.name, founder=caller.user_id, now=now)
    response.headers[REVISION_HEADER] = str(founded.revision)
    return CompanyBody.model_validate(founded.company)


class OwnMembership(ResponseModel):
    company_id: UUID
    company_name: str
    status: str
    superadmin: bool


@companies.get("/me/companies")
@guard(SignedIn())
async def my_companies(caller: Caller, work: Work) -> list[OwnMembership]:
    """The companies the caller belongs to."""
    return [
        OwnMembership(
            company_id=company.id,
            company_name=company.name,
            status=membership.status,
            superadmin=membership.superadmin,
        )
        for company, membership in await operations.companies_of(work, caller.user_id)
    ]
