from datetime import datetime
from typing import Annotated
from uuid import UUID

from chassis.request import Company, Now, OwnAccessPath, component
from chassis.routing import ResponseModel, problem_statuses, router
from contracts.identifiers import UserId
from middleware.guards import CompanyAdmin, PlatformAdmin, guard
from services.access_resolver.fleet import rules
from services.access_resolver.fleet.operations import Fleet
from services.access_resolver.manifest import MANIFEST

fleet = router(prefix=MANIFEST.route_group, tag="fleet")


class InstanceBody(ResponseModel):
    """`ages_seconds` say, by owner, how old what it decides by was when it spoke; `counts` whether proofs wait for it.

    Without a service it spoke in a form that this version cannot read.
    """

    instance: str
    service: str | None
    status: str
    counts: bool
    last_seen: datetime
    generation: int
    is_complete: bool
    ages_seconds: dict[str, float]


class FleetBody(ResponseModel):
    """`as_of` is up to when the instances were heard; null where none was."""

    as_of: datetime | None
    instances: list[InstanceBody]


class AppliedBody(ResponseModel):
    """`applied_at` is by the instance's clock; null where it told of its position only."""

    instance: str
    service: str | None
    applied_at: datetime | None


class MissingBody(ResponseModel):
    """An instance of which it is not known that it has applied the state."""

    instance: str
    service: str | None
    last_seen: datetime


class ProofBody(ResponseModel):
    """`revision` is the newest state of the membership that is known here; wait for a newer one with Kisum-At-Least."""

    revision: str
    proved: bool
    verdict: str
    as_of: datetime
    applied: list[AppliedBody]
    missing: list[MissingBody]


OwnFleet = Annotated[Fleet, component(Fleet)]


@fleet.get("/fleet")
@guard(PlatformAdmin())
async def show_fleet(own: OwnFleet, now: Now) -> FleetBody:
    """Every instance that decides, as it told of itself last, within the hour."""
    instances, as_of = own.instances()
    return FleetBody(
        as_of=as_of,
        instances=[
            InstanceBody(
                instance=each.id,
                service=each.service,
                status=each.status.value,
                counts=each.counts(now),
                last_seen=each.last_seen,
                generation=each.generation,
                is_complete=each.is_complete,
                ages_seconds={
                    owner: round((each.last_seen - as_of).total_seconds(), 3)
                    for owner, as_of in each.fresh_as_of.items()
                },
            )
            for each in instances
        ],
    )


@fleet.get("/proofs/{company_id}/{user_id}", responses=problem_statuses(404))
@guard(CompanyAdmin())
async def show_proof(
    company_id: UUID, user_id: UUID, company: Company, own: OwnFleet, path: OwnAccessPath
) -> ProofBody:
    """Whether every instance has applied the newest state of a member, and which has not."""
    if company_id != company:
        raise rules.MembershipUnknownError
    found = own.prove(path, company, UserId(user_id))
    return ProofBody(
        revision=found.revision,
        proved=found.proof.is_proved,
        verdict=found.proof.verdict,
        as_of=found.as_of,
        applied=[
            AppliedBody(instance=each.instance.id, service=each.instance.service, applied_at=each.at)
            for each in found.proof.applied
        ],
        missing=[
            MissingBody(instance=each.id, service=each.service, last_seen=each.last_seen)
            for each in found.proof.missing
        ],
    )
