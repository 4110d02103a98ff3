from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from fastapi import Query, Response
from pydantic import BeforeValidator, EmailStr, Field, model_validator
from pydantic_core import PydanticCustomError

from chassis.request import Caller, Company, Now, Work
from chassis.routing import REVISION_HEADER, ChangesModel, RequestModel, ResponseModel, problem_statuses, router
from contracts.events.auth import Delegation, MembershipStatus, ModuleGrant, Scopes
from contracts.identifiers import UserId
from contracts.payload import OpaqueId, Slug
from middleware.guards import CompanyAdmin, guard
from services.auth.manifest import MANIFEST
from services.auth.memberships import operations
from services.auth.memberships.operations import ChangedMember, Member

memberships = router(prefix=MANIFEST.route_group, tag="memberships")

_PERMISSIONS_MAX: Final = 200
_SCOPE_IDS_MAX: Final = 1000
_PAGE_SIZE_MAX: Final = 500


def _moment(value: Any) -> datetime | None:
    """RFC 3339 text with an offset, in UTC."""
    if value is None:
        return None
    malformed = PydanticCustomError("moment", "Write date, time and offset, as in 2026-05-21T09:00:00Z")
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise malformed
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        # The last for the first and last hours of the calendar: UTC has no such time.
        raise malformed from None


class NewMember(RequestModel):
    """Either the id or the mail address of a person who signed up."""

    user_id: Annotated[UUID | None, Field(strict=False)] = None
    email: EmailStr | None = None

    @model_validator(mode="after")
    def _names_one_person(self) -> Self:
        if (self.user_id is None) == (self.email is None):
            raise PydanticCustomError("one_of", "Name the person by user_id or by email")
        return self

    @property
    def person(self) -> UserId | str:
        if self.user_id is not None:
            return UserId(self.user_id)
        return str(self.email)


class Change(ChangesModel):
    """What is left out stays. `suspended` and `active` suspend and reinstate; `superadmin` makes an administrator."""

    status: Literal["active", "suspended"]
    superadmin: bool


class Modules(RequestModel):
    modules: Annotated[list[Slug], Field(max_length=100)]


class Permissions(RequestModel):
    """All permissions of a module, each with its end, exclusive; null is without end."""

    module: Slug
    permissions: Annotated[
        dict[Annotated[str, Field(max_length=120)], Annotated[datetime | None, BeforeValidator(_moment)]],
        Field(max_length=_PERMISSIONS_MAX),
    ]


class ModuleScopes(RequestModel):
    """All scopes of a module: per scope type "*" or ids. A type that is left out means nothing."""

    module: Slug
    scopes: dict[Slug, Literal["*"] | Annotated[list[OpaqueId], Field(max_length=_SCOPE_IDS_MAX)]]

    def decoded(self) -> Scopes:
        return {scope_type: ids if ids == "*" else tuple(ids) for scope_type, ids in self.scopes.items()}


class MemberBody(ResponseModel):
    user_id: UUID
    email: str
    display_name: str
    status: str
    superadmin: bool
    modules: tuple[ModuleGrant, ...]
    delegations: tuple[Delegation, ...]
    version: int


class MemberPage(ResponseModel):
    """`next` is the `after` of the next page; null on the last."""

    members: list[MemberBody]
    next: UUID | None


_STATUSES: Final = problem_statuses(404, 409)


@memberships.get("/memberships")
@guard(CompanyAdmin())
async def list_members(
    company_id: Company,
    work: Work,
    after: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_SIZE_MAX)] = 100,
) -> MemberPage:
    """The members of the company with all they were given."""
    members, following = await operations.members_of(
        work, company_id, after=None if after is None else UserId(after), limit=limit
    )
    return MemberPage(members=[_body(member) for member in members], next=following)


@memberships.get("/memberships/{user_id}", responses=problem_statuses(404))
@guard(CompanyAdmin())
async def read_member(user_id: UUID, company_id: Company, work: Work) -> MemberBody:
    """One member with all they were given."""
    return _body(await operations.member_of(work, company_id, UserId(user_id)))


@memberships.post("/memberships", status_code=201, responses=_STATUSES)
@guard(CompanyAdmin())
async def add_member(
    body: NewMember, caller: Caller, company_id: Company, work: Work, now: Now, response: Response
) -> MemberBody:
    """Make a person who signed up an active member, with nothing granted yet."""
    return _changed(response, await operations.add_member(work, company_id, body.person, actor=caller.user_id, now=now))


@memberships.patch("/memberships/{user_id}", responses=_STATUSES)
@guard(CompanyAdmin())
async def change_member(
    user_id: UUID, body: Change, caller: Caller, company_id: Company, work: Work, now: Now, response: Response
) -> MemberBody:
    """Suspend or reinstate a member, make one an administrator or no longer one."""
    said = body.said()
    changed = await operations.change_standing(
        work,
        company_id,
        UserId(user_id),
        status=MembershipStatus(said["status"]) if "status" in said else None,
        superadmin=said.get("superadmin"),
        actor=caller.user_id,
        now=now,
    )
    return _changed(response, changed)


@memberships.delete("/memberships/{user_id}", status_code=204, responses=_STATUSES)
@guard(CompanyAdmin())
async def remove_member(
    user_id: UUID, caller: Caller, company_id: Company, work: Work, now: Now, response: Response
) -> None:
    """Remove a member with all they were given; who comes back begins with nothing."""
    changed = await operations.change_standing(
        work,
        company_id,
        UserId(user_id),
        status=MembershipStatus.REMOVED,
        actor=caller.user_id,
        now=now,
    )
    response.headers[REVISION_HEADER] = str(changed.revision)


@memberships.put("/memberships/{user_id}/modules", responses=_STATUSES)
@guard(CompanyAdmin())
async def set_modules(
    user_id: UUID, body: Modules, caller: Caller, company_id: Company, work: Work, now: Now, response: Response
) -> MemberBody:
    """Replace the modules a member has; a new one comes without permissions and scopes."""
    changed = await operations.set_modules(
        work, company_id, UserId(user_id), body.modules, actor=caller.user_id, now=now
    )
    return _changed(response, changed)


@memberships.put("/memberships/{user_id}/permissions", responses=_STATUSES)
@guard(CompanyAdmin())
async def set_permissions(
    user_id: UUID, body: Permissions, caller: Caller, company_id: Company, work: Work, now: Now, response: Response
) -> MemberBody:
    """Replace the permissions a member has in a module."""
    changed = await operations.set_permissions(
        work, company_id, UserId(user_id), body.module, body.permissions, actor=caller.user_id, now=now
    )
    return _changed(response, changed)


@memberships.put("/memberships/{user_id}/scopes", responses=_STATUSES)
@guard(CompanyAdmin())
async def set_scopes(
    user_id: UUID, body: ModuleScopes, caller: Caller, company_id: Company, work: Work, now: Now, response: Response
) -> MemberBody:
    """Replace the scopes that bound a member's permissions in a module."""
    changed = await operations.set_scopes(
        work, company_id, UserId(user_id), body.module, body.decoded(), actor=caller.user_id, now=now
    )
    return _changed(response, changed)


def _changed(response: Response, changed: ChangedMember) -> MemberBody:
    response.headers[REVISION_HEADER] = str(changed.revision)
    return _body(changed.member)


def _body(member: Member) -> MemberBody:
    return MemberBody(
        user_id=member.user_id,
        email=member.email,
        display_name=member.display_name,
        status=member.state.status.value,
        superadmin=member.state.superadmin,
        modules=member.state.modules,
        delegations=member.state.delegations,
        version=member.version,
    )
