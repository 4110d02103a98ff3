"""What each step of the chain lets through, and what the person it stops is told."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.cache import BlockPartition, Quarantine
from access.decision import Decision
from access.records import membership_key, signing_key_key
from access.unknown import StateUnknownError
from contracts.errors import DomainError, Kind
from contracts.events.auth import MembershipStatus, RevokedSession, SessionsChanged, SigningKeyStatus
from contracts.events.entitlements import EntitlementStatus
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, new_id
from contracts.problems import FixAction, FixBy, Reason
from middleware.chain import CacheJudge, _company_of, cached_chain, pass_guard
from middleware.context import AccessContext
from middleware.guards import (
    ActiveMember,
    CompanyAdmin,
    Guard,
    NoScope,
    Permission,
    PlatformAdmin,
    Public,
    ScopeSource,
    SignedIn,
    guard,
    guard_of,
)
from middleware.identity import Identity
from middleware.refusals import AccessRefusedError, OutOfScopeError
from middleware.token import SessionEndedError, SigningKey, TokenInvalidError, TokenIssuer, TokenMissingError
from tests.harness.access import catalog, entitled, grant, signing_key
from tests.harness.local_access import LocalAccess, local_access
from tests.harness.waiting import wait_until

KEY = Ed25519PrivateKey.generate()
SESSION = new_id()
READ = Permission("finance.expenses.read", scope=ScopeSource.FILTER)
READ_ONE = Permission("finance.expenses.read", scope=ScopeSource.OBJECT)
APPROVE = Permission("finance.expenses.approve", scope=ScopeSource.OBJECT)
MANAGE = Permission("finance.rates.manage", scope=NoScope("rates are the company's"))
NO_COMPANY: dict[str, Any] = {"kisum-company-id": None}
EVERY_GUARD: list[Guard] = [SignedIn(), ActiveMember(), CompanyAdmin(), PlatformAdmin(), READ, READ_ONE, MANAGE]
OF_A_COMPANY = [each for each in EVERY_GUARD if not isinstance(each, SignedIn | PlatformAdmin)]


@dataclass
class Record:
    identity: Identity | None = None
    company_id: CompanyId | None = None
    access: AccessContext | None = None


class Caller:
    """Sends requests of one person to one service."""

    def __init__(self, local: LocalAccess) -> None:
        self.local = local
        self.record = Record()
        self.scope: dict[str, Any] = {}
        self.chain = cached_chain(
            local.path,
            issuer="test",
            audience="kisum",
            clock=local.clock,
            fix_urls={FixAction.BUY_BASE: "https://shop.example/base"},
        )
        self.generation = 1
        self.kid = "k1"

    async def call(self, required: Guard, *, method: str = "GET", **headers: Any) -> Record:
        async def key() -> SigningKey:
            return SigningKey(self.kid, KEY)

        issuer = TokenIssuer(issuer="test", audience="kisum", lifetime=timedelta(minutes=5), signing_key=key)
        identity = Identity(user_id=self.local.user_id, session_id=SESSION, generation=self.generation)
        token = (await issuer.issue(identity, self.local.clock())).token
        sent = {"authorization": f"Bearer {token}", "kisum-company-id": str(self.local.company_id), **headers}
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": "/",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items() if value is not None],
        }
        self.record = Record()
        self.scope = scope
        await pass_guard(required, scope, self.chain, self.record)
        return self.record

    async def access(self, required: Guard, **request: Any) -> AccessContext:
        context = (await self.call(required, **request)).access
        assert context is not None
        return context

    async def refused(self, required: Guard, **request: Any) -> DomainError:
        with pytest.raises(DomainError) as caught:
            await self.call(required, **request)
        return caught.value


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalAccess]:
    with local_access(tmp_path / "cache") as found:
        found.hold(signing_key("k1", KEY))
        found.hold(catalog())
        found.hold(entitled("finance"))
        found.hold(grant(found.user_id))
        yield found


@pytest.fixture
def caller(local: LocalAccess) -> Caller:
    return Caller(local)


async def test_a_person_with_the_permission_passes(caller: Caller) -> None:
    context = await caller.access(READ)
    assert (context.user_id, context.company_id) == (caller.local.user_id, caller.local.company_id)
    assert caller.record.identity is not None
    assert caller.record.company_id == caller.local.company_id
    assert context.revision == (
        f"auth.memberships.v1:{caller.local.company_id}/{caller.local.user_id}:1:1,"
        f"entitlements.companies.v1:{caller.local.company_id}:1:1"
    )
    assert context.age_seconds == 0


async def test_public_routes_ask_nothing(caller: Caller) -> None:
    await caller.call(Public("health"), authorization="nonsense")
    assert caller.record.identity is None


@pytest.mark.parametrize("required", EVERY_GUARD, ids=repr)
async def test_every_other_guard_asks_for_a_token(caller: Caller, required: Guard) -> None:
    with pytest.raises(TokenMissingError):
        await caller.call(required, authorization=None)
    with pytest.raises(TokenInvalidError):
        await caller.call(required, authorization="Bearer a.b.c")


async def test_signed_in_asks_for_no_company(caller: Caller) -> None:
    await caller.call(SignedIn(), **NO_COMPANY)
    assert caller.record.identity is not None
    assert caller.record.identity.user_id == caller.local.user_id
    assert caller.record.access is None


@pytest.mark.parametrize("required", OF_A_COMPANY, ids=repr)
async def test_guards_of_a_company_ask_for_one(caller: Caller, required: Guard) -> None:
    missing = await caller.refused(required, **NO_COMPANY)
    assert (missing.kind, missing.code) == (Kind.INVALID, "company_header_missing")
    for given in ("", "7", str(new_id()).upper(), f"{{{new_id()}}}", new_id().hex, f"{new_id()},{new_id()}"):
        invalid = await caller.refused(required, **{"kisum-company-id": given})
        assert (invalid.kind, invalid.code) == (Kind.INVALID, "company_header_invalid"), given


async def test_a_company_header_that_is_longer_than_an_id_is_not_kept(caller: Caller) -> None:
    kept = _company_of.cache_info()
    assert (await caller.refused(READ, **{"kisum-company-id": "0" * 60_000})).code == "company_header_invalid"
    assert _company_of.cache_info() == kept


async def test_two_company_headers_are_refused(caller: Caller) -> None:
    await caller.call(READ)
    caller.scope["headers"].append((b"kisum-company-id", str(new_id()).encode()))
    with pytest.raises(DomainError) as caught:
        await pass_guard(READ, caller.scope, caller.chain, Record())
    assert caught.value.code == "company_header_invalid"


def _facts(error: DomainError) -> tuple[Any, ...]:
    return tuple(
        getattr(error, name) for name in ("code", "detail", "fix", "module", "permission", "revision", "age_seconds")
    )


async def test_who_is_no_member_cannot_tell_an_unknown_company(caller: Caller) -> None:
    known, unknown = CompanyId(new_id()), CompanyId(new_id())
    caller.local.hold(entitled("finance", status=EntitlementStatus.ENDED), company_id=known)
    bodies = {_facts(await caller.refused(READ, **{"kisum-company-id": str(company)})) for company in (known, unknown)}
    ((code, _, fix, *_, revision, _),) = bodies
    assert (code, fix.by, revision) == ("not_a_member", FixBy.COMPANY_ADMIN, None)


@pytest.mark.parametrize(
    ("reason", "action"),
    [
        (Reason.MEMBERSHIP_INACTIVE, FixAction.ASK_MODULE),
        (Reason.BASE_INACTIVE, FixAction.BUY_BASE),
        (Reason.MODULE_NOT_ENTITLED, FixAction.BUY_ADDON),
        (Reason.MODULE_NOT_GRANTED, FixAction.ASK_MODULE),
        (Reason.PERMISSION_MISSING, FixAction.ASK_PERMISSION),
    ],
)
async def test_a_refusal_names_the_layer_and_the_fix(caller: Caller, reason: Reason, action: FixAction) -> None:
    local = caller.local
    local.hold(
        {
            Reason.MEMBERSHIP_INACTIVE: grant(local.user_id, status=MembershipStatus.SUSPENDED),
            Reason.BASE_INACTIVE: entitled("finance", status=EntitlementStatus.ENDED),
            Reason.MODULE_NOT_ENTITLED: entitled("ai"),
            Reason.MODULE_NOT_GRANTED: grant(local.user_id, module="ai"),
            Reason.PERMISSION_MISSING: grant(local.user_id, permissions=()),
        }[reason]
    )
    error = await caller.refused(READ)
    assert isinstance(error, AccessRefusedError)
    assert (error.kind, error.code, error.reason) == (Kind.REFUSED, reason.value, reason)
    assert (error.module, error.permission) == ("finance", "finance.expenses.read")
    assert (error.fix.action, error.fix.by) == (action, FixBy.COMPANY_ADMIN)
    assert error.fix.url == ("https://shop.example/base" if action is FixAction.BUY_BASE else None)
    assert error.revision
    assert "administrator" in error.detail
    assert "{" not in error.detail
    # The log still knows who was refused, and where.
    assert caller.record.identity is not None
    assert caller.record.identity.user_id == local.user_id
    assert caller.record.company_id == local.company_id
    assert caller.record.access is None


async def test_guards_without_a_permission(caller: Caller) -> None:
    local = caller.local
    assert (await caller.access(ActiveMember())).superadmin is False
    for required, by in ((CompanyAdmin(), FixBy.COMPANY_ADMIN), (PlatformAdmin(), FixBy.PLATFORM_ADMIN)):
        error = await caller.refused(required)
        assert isinstance(error, AccessRefusedError)
        assert (error.reason, error.fix.by, error.permission) == (Reason.PERMISSION_MISSING, by, None)
    local.hold(grant(local.user_id, superadmin=True))
    assert (await caller.access(CompanyAdmin())).superadmin
    await caller.refused(PlatformAdmin())
    local.hold(grant(local.user_id), company_id=PLATFORM_COMPANY_ID)
    assert (await caller.access(PlatformAdmin(), **NO_COMPANY)).company_id == PLATFORM_COMPANY_ID


@pytest.mark.parametrize("required", EVERY_GUARD, ids=repr)
async def test_stale_state_is_503_for_every_guard(caller: Caller, required: Guard) -> None:
    caller.local.hold(grant(caller.local.user_id, superadmin=True, permissions=("finance.expenses.read", MANAGE.key)))
    caller.local.hold(grant(caller.local.user_id), company_id=PLATFORM_COMPANY_ID)
    await caller.call(required, method="POST")
    caller.local.clock.advance(seconds=46)
    error = await caller.refused(required, method="POST")
    assert isinstance(error, StateUnknownError)
    assert (error.kind, error.code) == (Kind.UNAVAILABLE, "state_unknown")
    assert error.retry_after_seconds
    assert error.fix.action is FixAction.RETRY
    assert error.age_seconds == 46
    administration = isinstance(required, CompanyAdmin | PlatformAdmin) or required is MANAGE
    if administration:
        assert isinstance(await caller.refused(required), StateUnknownError)
    else:
        await caller.call(required)
        await caller.call(required, method="HEAD")
    caller.local.clock.advance(seconds=255)
    assert isinstance(await caller.refused(required), StateUnknownError)


@pytest.mark.parametrize("required", EVERY_GUARD, ids=repr)
async def test_before_the_cache_is_complete_nothing_is_decided(caller: Caller, required: Guard) -> None:
    caller.local.freshen(complete=False)
    assert isinstance(await caller.refused(required), StateUnknownError)


async def test_a_quarantined_person_is_neither_allowed_nor_refused(caller: Caller) -> None:
    caller.local.apply(Quarantine(membership_key(caller.local.company_id, caller.local.user_id), "broken"))
    error = await caller.refused(READ)
    assert isinstance(error, StateUnknownError)
    assert error.permission == READ.key


async def test_keys_and_sessions_come_from_the_cache(caller: Caller) -> None:
    local = caller.local
    caller.kid = "k2"
    assert isinstance(await caller.refused(SignedIn()), TokenInvalidError)
    local.clock.advance(seconds=46)
    assert isinstance(await caller.refused(SignedIn()), StateUnknownError)
    local.freshen()
    local.apply(Quarantine(signing_key_key("k2"), "broken"))
    assert isinstance(await caller.refused(SignedIn()), StateUnknownError)
    caller.kid = "k1"
    await caller.call(SignedIn())
    local.hold(SessionsChanged(user_id=local.user_id, min_gen=2, revoked=()))
    assert isinstance(await caller.refused(SignedIn()), SessionEndedError)
    caller.generation = 2
    await caller.call(SignedIn())
    revoked = RevokedSession(sid=SESSION, until=local.clock() + timedelta(minutes=5))
    local.hold(SessionsChanged(user_id=local.user_id, min_gen=2, revoked=(revoked,)))
    assert isinstance(await caller.refused(SignedIn()), SessionEndedError)


async def test_verified_tokens_are_forgotten_when_a_key_changes(caller: Caller) -> None:
    local = caller.local
    await caller.call(SignedIn())
    assert caller.chain.verifier.remembered == 1
    local.hold(signing_key("k2", Ed25519PrivateKey.generate()))
    assert isinstance(await caller.refused(SignedIn(), authorization="Bearer a.b.c"), TokenInvalidError)
    assert caller.chain.verifier.remembered == 0


async def test_a_verified_token_that_comes_again_after_a_key_changed_is_verified_again(caller: Caller) -> None:
    await caller.call(SignedIn())
    caller.local.clock.advance(seconds=1)
    await caller.call(SignedIn())
    assert caller.chain.verifier.remembered == 2
    caller.local.hold(signing_key("k2", Ed25519PrivateKey.generate()))
    await caller.call(SignedIn())
    assert caller.chain.verifier.remembered == 1


async def test_a_key_that_another_process_revokes_voids_what_this_one_has_verified(
    caller: Caller, tmp_path: Path
) -> None:
    """Several processes share one cache, and one of them writes it."""
    await caller.call(SignedIn())
    program = (
        "import sys; from pathlib import Path; from access.cache import Cache, Quarantine; "
        "cache = Cache.open_in_use(Path(sys.argv[1])); "
        "cache.apply(cache.head().active, [Quarantine(b'kk1', 'broken')], {})"
    )
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path / "cache"))
    assert await writer.wait() == 0
    assert isinstance(await caller.refused(SignedIn(), authorization="Bearer a.b.c"), TokenInvalidError)
    assert caller.chain.verifier.remembered == 0
    assert isinstance(await caller.refused(SignedIn()), StateUnknownError)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda local: local.hold(signing_key("k1", KEY, status=SigningKeyStatus.REVOKED)), TokenInvalidError),
        (lambda local: local.apply(Quarantine(signing_key_key("k1"), "broken")), StateUnknownError),
        (lambda local: local.apply(BlockPartition(("auth.signing-keys.v1", 0), b"?")), StateUnknownError),
        (lambda local: local.hold(SessionsChanged(user_id=local.user_id, min_gen=2, revoked=())), SessionEndedError),
    ],
    ids=["key revoked", "key in quarantine", "keys in quarantine", "generation raised"],
)
async def test_a_token_verified_before_is_void_at_once(
    caller: Caller, change: Callable[[LocalAccess], None], refusal: type[DomainError]
) -> None:
    await caller.call(SignedIn())
    change(caller.local)
    assert isinstance(await caller.refused(SignedIn()), refusal)


async def test_a_revoked_key_is_refused_only_while_keys_are_fresh(caller: Caller) -> None:
    caller.local.hold(signing_key("k1", KEY, status=SigningKeyStatus.REVOKED))
    assert isinstance(await caller.refused(SignedIn()), TokenInvalidError)
    caller.local.clock.advance(seconds=46)
    assert isinstance(await caller.refused(SignedIn()), StateUnknownError)


async def test_a_retired_key_verifies_until_its_end(caller: Caller) -> None:
    local = caller.local
    ends = local.clock() + timedelta(seconds=30)
    local.hold(signing_key("k1", KEY, status=SigningKeyStatus.RETIRED, not_after=ends))
    await caller.call(SignedIn())
    local.clock.advance(seconds=29)
    await caller.call(SignedIn())
    local.clock.advance(seconds=1)
    local.freshen()
    assert isinstance(await caller.refused(SignedIn()), TokenInvalidError)


async def test_a_key_verifies_nothing_before_its_time(caller: Caller) -> None:
    begins = caller.local.clock() + timedelta(seconds=1)
    caller.local.hold(signing_key("k1", KEY, not_before=begins))
    assert isinstance(await caller.refused(SignedIn()), TokenInvalidError)
    caller.local.clock.advance(seconds=1)
    await caller.call(SignedIn())


# Read your own write.


def own_membership(local: LocalAccess, version: int) -> str:
    return f"auth.memberships.v1:{local.company_id}/{local.user_id}:1:{version}"


async def test_a_request_waits_for_the_state_it_names_and_is_judged_by_it(caller: Caller) -> None:
    local = caller.local
    asking = asyncio.create_task(caller.refused(READ, **{"kisum-at-least": own_membership(local, 2)}))

    async def waiting() -> int:
        return len(caller.chain.revisions._waiting)

    await wait_until(waiting, lambda count: count == 1, describe="it waits")
    local.hold(grant(local.user_id, permissions=()))
    assert (await asking).code == "permission_missing"


async def test_a_session_that_ends_while_a_request_waits_ends_the_request(caller: Caller) -> None:
    local = caller.local
    revision = f"auth.sessions.v1:{local.user_id}:1:1"
    asking = asyncio.create_task(caller.refused(SignedIn(), **{"kisum-at-least": revision}))

    async def waiting() -> int:
        return len(caller.chain.revisions._waiting)

    await wait_until(waiting, lambda count: count == 1, describe="it waits")
    local.hold(SessionsChanged(user_id=local.user_id, min_gen=2, revoked=()))
    assert isinstance(await asking, SessionEndedError)


@pytest.mark.parametrize("required", EVERY_GUARD, ids=repr)
async def test_every_guard_refuses_revisions_that_are_none_or_anothers(caller: Caller, required: Guard) -> None:
    caller.local.hold(grant(caller.local.user_id), company_id=PLATFORM_COMPANY_ID)
    for named, code in (
        ("7", "revision_malformed"),
        (f"auth.memberships.v1:{new_id()}/{caller.local.user_id}:1:1", "revision_foreign"),
        (f"entitlements.companies.v1:{new_id()}:1:1", "revision_foreign"),
        (f"auth.sessions.v1:{new_id()}:1:1", "revision_foreign"),
    ):
        refused = await caller.refused(required, **{"kisum-at-least": named})
        assert (refused.kind, refused.code) == (Kind.MALFORMED, code)


async def test_the_company_of_a_request_without_one_of_its_own_is_the_one_it_names(caller: Caller) -> None:
    named = {"kisum-at-least": own_membership(caller.local, 1)}
    await caller.call(SignedIn(), **named)
    assert (await caller.refused(SignedIn(), **named, **NO_COMPANY)).code == "revision_foreign"
    assert (await caller.refused(PlatformAdmin(), **named)).code == "revision_foreign"


async def test_nobody_waits_before_their_token_is_verified(caller: Caller) -> None:
    named = {"kisum-at-least": own_membership(caller.local, 99)}
    for authorization, code in ((None, "token_missing"), ("Bearer a.b.c", "token_invalid")):
        assert (await caller.refused(READ, authorization=authorization, **named)).code == code
    assert caller.chain.revisions._looking is None


async def test_two_headers_are_one_list(caller: Caller) -> None:
    await caller.call(READ)
    caller.scope["headers"] += [(b"kisum-at-least", own_membership(caller.local, 1).encode())] * 2
    await pass_guard(READ, caller.scope, caller.chain, Record())
    caller.scope["headers"] += [(b"kisum-at-least", own_membership(caller.local, 1).encode())] * 7
    with pytest.raises(DomainError) as refused:
        await pass_guard(READ, caller.scope, caller.chain, Record())
    assert refused.value.code == "revision_malformed"


# Objects.


async def test_an_object_is_judged_by_its_values(caller: Caller) -> None:
    caller.local.hold(grant(caller.local.user_id, scopes={"business_unit": ("a",), "event": "*"}))
    context = await caller.access(READ_ONE)
    judged = [context.is_scope_judged]
    context.require_scope({"business_unit": "a", "event": "e"})
    assert [*judged, context.is_scope_judged] == [False, True]
    with pytest.raises(OutOfScopeError) as caught:
        context.require_scope({"business_unit": "b", "event": "e"})
    error = caught.value
    assert (error.code, error.permission, error.fix.action) == ("out_of_scope", READ.key, FixAction.ASK_SCOPE)
    assert "business unit" in error.detail
    with pytest.raises(OutOfScopeError):
        context.require_scope({})


async def test_who_is_over_a_limit_is_told_the_limit_it_takes(caller: Caller) -> None:
    scopes = {"business_unit": "*", "event": "*", "approval_limit": ("USD:100",)}
    held = grant(caller.local.user_id, permissions=(APPROVE.key,), scopes=scopes)
    caller.local.hold(held)
    context = await caller.access(APPROVE)
    place = {"business_unit": "a", "event": "e"}
    context.require_scope({**place, "approval_limit": "USD:100"})
    with pytest.raises(OutOfScopeError) as caught:
        context.require_scope({**place, "approval_limit": "USD:101"})
    assert (caught.value.code, caught.value.limit, caught.value.permission) == ("out_of_scope", "USD:101", APPROVE.key)
    assert "USD:101" in caught.value.detail
    with pytest.raises(OutOfScopeError) as caught:
        context.require_scope(place)
    assert caught.value.limit is None


async def test_a_list_is_filtered(caller: Caller) -> None:
    caller.local.hold(grant(caller.local.user_id, scopes={"business_unit": ("a", "b")}))
    context = await caller.access(READ)
    judged = [context.is_scope_judged]
    assert context.scope_filter.ids("business_unit") == ("a", "b")
    # Absent means nothing.
    assert context.scope_filter.ids("event") == ()
    assert [*judged, context.is_scope_judged] == [False, True]


async def test_a_named_none_needs_no_judgement(caller: Caller) -> None:
    caller.local.hold(grant(caller.local.user_id, permissions=(MANAGE.key,)))
    assert (await caller.access(MANAGE)).is_scope_judged


async def test_an_unexpected_exception_never_allows(caller: Caller) -> None:
    class Broken(CacheJudge):
        async def permission(self, *_: Any, **__: Any) -> Decision:
            raise ZeroDivisionError

    caller.chain = replace(caller.chain, judge=Broken(caller.local.path))
    with pytest.raises(ZeroDivisionError):
        await caller.call(READ)
    assert caller.record.access is None


async def test_a_guard_without_a_permission_has_no_scope_to_judge_by(caller: Caller) -> None:
    context = await caller.access(ActiveMember())
    with pytest.raises(RuntimeError):
        context.require_scope({})


@pytest.mark.parametrize("required", [Public("health"), *EVERY_GUARD], ids=repr)
def test_a_declared_guard_is_found(required: Guard) -> None:
    @guard(required)
    def handler() -> None:
        """A route's handler."""

    assert guard_of(handler) is required
    assert guard_of(print) is None
