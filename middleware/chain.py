"""The five steps a request passes (design §5): token, company, access context, module, permission.

Pure async on the ASGI scope, before the body is read. Steps three to five are one decision; it names the step that
failed. An exception nobody expected leaves through here as what it is and never as a yes.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from starlette.types import Scope

from access.decision import Decision, Requirement
from access.path import AccessPath, TokenStates
from access.revisions import RevisionWait, check_own, read_revisions, versions_in
from contracts.errors import DomainError, Kind
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId
from contracts.problems import ProblemCode
from infra.clock import Clock
from middleware.context import AccessContext
from middleware.guards import ActiveMember, CompanyAdmin, Guard, Permission, PlatformAdmin, Public, SignedIn
from middleware.identity import Identity
from middleware.refusals import FixUrls, refusal, revision_of
from middleware.token import TokenVerifier

COMPANY_HEADER: Final = "Kisum-Company-Id"
#: The revisions a caller has seen: they are judged by no older states (design §5, Read your own write).
AT_LEAST_HEADER: Final = "Kisum-At-Least"
_AUTHORIZATION: Final = b"authorization"
_COMPANY: Final = COMPANY_HEADER.lower().encode()
_AT_LEAST: Final = AT_LEAST_HEADER.lower().encode()
_ID_LENGTH: Final = 36
#: What changes nothing, and is judged by the longer bound.
_READING_METHODS: Final = frozenset({"GET", "HEAD"})


class CompanyHeaderMissingError(DomainError):
    kind = Kind.INVALID
    code = ProblemCode.COMPANY_HEADER_MISSING.value
    title = "The request does not say for which company it is"


class CompanyHeaderInvalidError(DomainError):
    kind = Kind.INVALID
    code = ProblemCode.COMPANY_HEADER_INVALID.value
    title = "The request does not name one company"


class Judge(Protocol):
    """Who decides: the service's access path, or Auth by its own rows. Each method answers, none raises a refusal."""

    async def permission(
        self, company_id: CompanyId, user_id: UserId, requirement: Requirement, *, reading: bool
    ) -> Decision: ...

    async def active_member(self, company_id: CompanyId, user_id: UserId, *, reading: bool) -> Decision: ...

    async def company_admin(self, company_id: CompanyId, user_id: UserId) -> Decision: ...

    async def platform_admin(self, user_id: UserId) -> Decision: ...

    async def signed_in(self, *, reading: bool) -> Decision: ...


class CacheJudge:
    """Judges from the service's own cache."""

    def __init__(self, path: AccessPath) -> None:
        self._path = path

    async def permission(
        self, company_id: CompanyId, user_id: UserId, requirement: Requirement, *, reading: bool
    ) -> Decision:
        return self._path.decide(company_id, user_id, requirement, reading=reading)

    async def active_member(self, company_id: CompanyId, user_id: UserId, *, reading: bool) -> Decision:
        return self._path.decide_active_member(company_id, user_id, reading=reading)

    async def company_admin(self, company_id: CompanyId, user_id: UserId) -> Decision:
        return self._path.decide_company_admin(company_id, user_id)

    async def platform_admin(self, user_id: UserId) -> Decision:
        return self._path.decide_platform_admin(user_id)

    async def signed_in(self, *, reading: bool) -> Decision:
        return self._path.decide_signed_in(reading=reading)


@dataclass(frozen=True)
class Chain:
    """What the steps need of a service."""

    verifier: TokenVerifier
    judge: Judge
    revisions: RevisionWait
    #: Where what is missing can be had, shown in refusals.
    fix_urls: FixUrls = field(default_factory=dict)


class RequestFacts(Protocol):
    """What the chain learns of a request, step by step, so that a refused one is logged with it too."""

    identity: Identity | None
    company_id: CompanyId | None
    access: AccessContext | None


def cached_chain(
    path: AccessPath, *, issuer: str, audience: str, clock: Clock, fix_urls: FixUrls | None = None
) -> Chain:
    """The chain of a service that runs the access feed: keys, sessions and decisions are those of its cache."""

    async def key_of(kid: str) -> Ed25519PublicKey | None:
        return path.signing_key(kid)

    async def session_is_live(identity: Identity) -> bool:
        return path.session_is_live(identity.user_id, identity.session_id, identity.generation)

    def token_states_of(kid: str, identity: Identity) -> TokenStates:
        return path.token_states(kid, identity.user_id, identity.session_id, identity.generation)

    verifier = TokenVerifier(
        issuer=issuer,
        audience=audience,
        key_of=key_of,
        session_is_live=session_is_live,
        clock=clock,
        keys_generation=lambda: path.keys_generation,
        token_states_of=token_states_of,
    )
    return Chain(
        verifier=verifier,
        judge=CacheJudge(path),
        revisions=RevisionWait(versions_in(path.cache)),
        fix_urls=fix_urls or {},
    )


async def pass_guard(guard: Guard, scope: Scope, chain: Chain, record: RequestFacts) -> None:
    """Let a request pass or raise the refusal, a DomainError of kind UNAUTHENTICATED, MALFORMED, INVALID, REFUSED or
    UNAVAILABLE. Fills `record` as far as it came, with the AccessContext for guards that ask for a company.
    """
    if isinstance(guard, Public):
        return
    identity = await validate_jwt(scope, chain)
    record.identity = identity
    reading = scope["method"] in _READING_METHODS
    if isinstance(guard, SignedIn):
        await await_revisions(scope, None, identity, chain)
        _refuse(await chain.judge.signed_in(reading=reading), None, PLATFORM_COMPANY_ID, identity, chain)
        return
    company_id = PLATFORM_COMPANY_ID if isinstance(guard, PlatformAdmin) else require_company_context(scope)
    record.company_id = company_id
    await await_revisions(scope, company_id, identity, chain)
    record.access = await resolve_access_context(guard, company_id, identity, chain, reading=reading)


def _given(scope: Scope, name: bytes) -> list[str]:
    """The values of a header. ASGI has names in lowercase."""
    return [value.decode("latin-1") for given, value in scope["headers"] if given == name]


async def validate_jwt(scope: Scope, chain: Chain) -> Identity:
    """Step one: who is asking."""
    given = _given(scope, _AUTHORIZATION)
    return await chain.verifier.identify(given[0] if given else None)


def require_company_context(scope: Scope) -> CompanyId:
    """Step two: for which company. Raises CompanyHeaderMissingError or CompanyHeaderInvalidError."""
    given = _given(scope, _COMPANY)
    if not given:
        raise CompanyHeaderMissingError(f"Send the header {COMPANY_HEADER} with the id of the company you act in.")
    company_id = _company_of(given[0]) if len(given) == 1 and len(given[0]) == _ID_LENGTH else None
    if company_id is None:
        raise CompanyHeaderInvalidError(f"The header {COMPANY_HEADER} holds one company id, a lowercase UUID.")
    return company_id


@lru_cache(maxsize=4096)
def _company_of(text: str) -> CompanyId | None:
    """The id that is written so, or None where it is none or is not written in its one form."""
    try:
        company_id = UUID(text)
    except ValueError:
        return None
    return CompanyId(company_id) if str(company_id) == text else None


async def await_revisions(scope: Scope, company_id: CompanyId | None, identity: Identity, chain: Chain) -> None:
    """Before anything is decided: wait for the states the caller names.

    Without a company of the guard's the one that is named with the request counts, if any. Raises
    RevisionMalformedError, RevisionForeignError, StateUnknownError, and SessionEndedError where the session has ended
    by what was waited for.
    """
    named = _given(scope, _AT_LEAST)
    if not named:
        return
    if company_id is None and _given(scope, _COMPANY):
        company_id = require_company_context(scope)
    wanted = read_revisions(",".join(named))
    check_own(wanted, company_id=company_id, user_id=identity.user_id)
    await chain.revisions.until(wanted, company_id=company_id, user_id=identity.user_id)
    await chain.verifier.check_session(identity)


async def resolve_access_context(
    guard: ActiveMember | CompanyAdmin | PlatformAdmin | Permission,
    company_id: CompanyId,
    identity: Identity,
    chain: Chain,
    *,
    reading: bool,
) -> AccessContext:
    """Steps three to five: membership, module and permission, in the order of the decision's layers."""
    user_id = identity.user_id
    requirement = guard.requirement if isinstance(guard, Permission) else None
    match guard:
        case Permission():
            decision = await chain.judge.permission(company_id, user_id, guard.requirement, reading=reading)
        case ActiveMember():
            decision = await chain.judge.active_member(company_id, user_id, reading=reading)
        case CompanyAdmin():
            decision = await chain.judge.company_admin(company_id, user_id)
        case _:
            decision = await chain.judge.platform_admin(user_id)
    _refuse(decision, requirement, company_id, identity, chain, platform=isinstance(guard, PlatformAdmin))
    return AccessContext(
        decision,
        identity=identity,
        company_id=company_id,
        requirement=requirement,
        source=guard.scope if isinstance(guard, Permission) else None,
        fix_urls=chain.fix_urls,
    )


def _refuse(
    decision: Decision,
    requirement: Requirement | None,
    company_id: CompanyId,
    identity: Identity,
    chain: Chain,
    *,
    platform: bool = False,
) -> None:
    # Only a decision that says so lets through, whatever else a judge may come up with.
    if decision.allowed is True:
        return
    raise refusal(
        decision,
        requirement=requirement,
        revision=revision_of(decision, str(company_id), identity.user_text),
        fix_urls=chain.fix_urls,
        platform=platform,
    )
