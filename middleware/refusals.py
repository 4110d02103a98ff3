"""A refused decision as an error that tells the person locked out what is missing and who can change it."""

from collections.abc import Mapping
from typing import ClassVar, Final

from access.decision import Decision, Requirement
from access.freshness import SECOND
from access.unknown import StateUnknownError
from contracts.errors import DomainError, Kind
from contracts.problems import Fix, FixAction, FixBy, Reason
from contracts.services import BASE_MODULES

#: Where a fix is done, by what it is; absent where one has to ask a person.
FixUrls = Mapping[FixAction, str]


class AccessRefusedError(DomainError):
    """One layer of the decision said no; each layer has its own class. Problem bodies show these attributes."""

    kind: ClassVar[Kind] = Kind.REFUSED
    code: ClassVar[str] = "access_refused"
    title: ClassVar[str] = "Access is refused"
    reason: ClassVar[Reason]

    def __init__(
        self,
        detail: str,
        *,
        fix: Fix,
        module: str | None = None,
        permission: str | None = None,
        limit: str | None = None,
        revision: str | None = None,
        age_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.fix = fix
        self.module = module
        self.permission = permission
        self.limit = limit
        self.revision = revision
        self.age_seconds = age_seconds


class NotAMemberError(AccessRefusedError):
    reason = Reason.NOT_A_MEMBER
    code = reason.value
    title = "You are not a member of this company"


class MembershipInactiveError(AccessRefusedError):
    reason = Reason.MEMBERSHIP_INACTIVE
    code = reason.value
    title = "Your membership of this company is not active"


class BaseInactiveError(AccessRefusedError):
    reason = Reason.BASE_INACTIVE
    code = reason.value
    title = "The company has no live base package"


class ModuleNotEntitledError(AccessRefusedError):
    reason = Reason.MODULE_NOT_ENTITLED
    code = reason.value
    title = "The company does not have this module"


class CapabilityMissingError(AccessRefusedError):
    reason = Reason.CAPABILITY_MISSING
    code = reason.value
    title = "The company does not have this add-on"


class ModuleNotGrantedError(AccessRefusedError):
    reason = Reason.MODULE_NOT_GRANTED
    code = reason.value
    title = "You have not been given this module"


class PermissionMissingError(AccessRefusedError):
    reason = Reason.PERMISSION_MISSING
    code = reason.value
    title = "You have not been given this permission"


class OutOfScopeError(AccessRefusedError):
    reason = Reason.OUT_OF_SCOPE
    code = reason.value
    title = "This is outside of what you have been given access to"


_CLASSES: Final[Mapping[Reason, type[AccessRefusedError]]] = {
    each.reason: each
    for each in (
        NotAMemberError,
        MembershipInactiveError,
        BaseInactiveError,
        ModuleNotEntitledError,
        CapabilityMissingError,
        ModuleNotGrantedError,
        PermissionMissingError,
        OutOfScopeError,
    )
}

_ADMIN: Final = "An administrator of the company"
#: What is missing and who can change it, by layer. A company administrator can change each of them.
_WORDS: Final[Mapping[Reason, tuple[str, FixAction]]] = {
    Reason.NOT_A_MEMBER: (
        "Check that you chose the right company. If it is, one of its administrators can invite you.",
        FixAction.ASK_MODULE,
    ),
    Reason.MEMBERSHIP_INACTIVE: (
        f"The invitation is still open, or you were suspended or removed. {_ADMIN} can make you active.",
        FixAction.ASK_MODULE,
    ),
    Reason.BASE_INACTIVE: (
        f"Its base package has ended, is suspended or was never bought. {_ADMIN} can renew it; your rights stay.",
        FixAction.BUY_BASE,
    ),
    Reason.MODULE_NOT_ENTITLED: (
        f"{{module}} is not part of what the company has bought, or it has ended. {_ADMIN} can buy it.",
        FixAction.BUY_ADDON,
    ),
    Reason.CAPABILITY_MISSING: (
        f"This needs the add-on {{subject}}, which the company has not bought. {_ADMIN} can buy it.",
        FixAction.BUY_ADDON,
    ),
    Reason.MODULE_NOT_GRANTED: (
        f"The company has {{module}}, but you have not been given it. {_ADMIN} can give it to you.",
        FixAction.ASK_MODULE,
    ),
    Reason.PERMISSION_MISSING: (
        f"You may use {{module}}, but you do not have {{permission}}, or no longer. {_ADMIN} can give it to you.",
        FixAction.ASK_PERMISSION,
    ),
    Reason.OUT_OF_SCOPE: (
        f"You have the permission {{permission}}, but not for this {{subject}}. {_ADMIN} can widen it.",
        FixAction.ASK_SCOPE,
    ),
}
_OVER_LIMIT: Final = (
    f"You have the permission {{permission}}, but no limit for this amount. {_ADMIN} can give you {{limit}} or more."
)
_NOT_COMPANY_ADMIN: Final = (
    f"Only an administrator of the company may do this, and you are none of them. {_ADMIN} can do it for you, or make "
    "you one."
)
_NOT_PLATFORM_ADMIN: Final = (
    "Only the administrators of the Kisum platform may do this, and you are none of them. One of them can do it."
)


def refusal(
    decision: Decision,
    *,
    requirement: Requirement | None,
    revision: str | None,
    fix_urls: FixUrls,
    platform: bool = False,
    limit: str | None = None,
) -> DomainError:
    """The error of a decision that is not allowed; `requirement` is None for a guard that is no permission row, `limit`
    the one an object over the caller's limits needs.
    """
    age_seconds = None if decision.age_us is None else round(decision.age_us / SECOND, 3)
    module = None if requirement is None else requirement.module
    permission = None if requirement is None else requirement.key
    if decision.reason is Reason.STATE_UNKNOWN:
        unknown = StateUnknownError(decision.detail or "the access state is not known", age_seconds=age_seconds)
        unknown.module, unknown.permission, unknown.revision = module, permission, revision
        return unknown
    if decision.reason is None:
        raise ValueError("an allowed decision is no refusal")
    by = FixBy.PLATFORM_ADMIN if platform else FixBy.COMPANY_ADMIN
    detail, action = _words(decision, decision.reason, requirement, platform=platform)
    if limit is not None:
        detail = _OVER_LIMIT.format(permission=permission, limit=limit)
    return _CLASSES[decision.reason](
        detail,
        fix=Fix(action=action, by=by, url=fix_urls.get(action)),
        module=module,
        permission=permission,
        limit=limit,
        # Of a company the caller is no member of nothing is told, not even that it has a state.
        revision=None if decision.reason is Reason.NOT_A_MEMBER else revision,
        age_seconds=age_seconds,
    )


def _words(
    decision: Decision, reason: Reason, requirement: Requirement | None, *, platform: bool
) -> tuple[str, FixAction]:
    if platform:
        return _NOT_PLATFORM_ADMIN, FixAction.ASK_PERMISSION
    words, action = _WORDS[reason]
    if requirement is None:
        return (words, action) if reason is not Reason.PERMISSION_MISSING else (_NOT_COMPANY_ADMIN, action)
    if reason is Reason.MODULE_NOT_ENTITLED and requirement.module in BASE_MODULES:
        action = FixAction.BUY_BASE
    return (
        words.format(
            module=_label(requirement.module),
            permission=requirement.key,
            subject=_label(decision.detail or "").lower(),
        ),
        action,
    )


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize() if name != "ai" else "AI"


def revision_of(decision: Decision, company_id: str, user_id: str) -> str | None:
    """The states judged by, topic:key:epoch:version, separated by commas; None where there was none.

    The ids are those of the request, as they are written.
    """
    parts = []
    membership, entitlement = decision.membership, decision.entitlement
    if membership is not None:
        epoch, version = membership.version
        parts.append(f"auth.memberships.v1:{company_id}/{user_id}:{epoch}:{version}")
    if entitlement is not None:
        epoch, version = entitlement.version
        parts.append(f"entitlements.companies.v1:{company_id}:{epoch}:{version}")
    return ",".join(parts) or None
