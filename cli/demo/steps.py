"""The story step by step: over HTTP, with the few looks at processes and databases its measurements need."""

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import httpx

from cli.demo.poller import Answer
from cli.demo.rows import documents_of_auth, documents_of_core
from cli.demo.story import MODULE, Story
from cli.demo.system import committed_at
from cli.demo.waiting import StepFailedError, wait_until
from contracts.permissions import PERMISSIONS
from contracts.problems import FixAction, Reason

_BASE_PACKAGE: Final = "basic_promoter"
_ADDON_PACKAGE: Final = "finance"
PERMISSION: Final = "finance.expenses.read"
#: What the cheap question is answered once it has been allowed.
PASSED: Final = httpx.codes.UNPROCESSABLE_ENTITY
_TRIES: Final = 100
_SHORT_GRANT: Final = timedelta(seconds=3)
#: How long before its end the asking begins.
_EXPIRY_LEAD: Final = timedelta(milliseconds=300)
#: One request and its answer on a busy machine.
_EXPIRY_TOLERANCE: Final = timedelta(milliseconds=500)
_REACTION_TIMEOUT_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Told:
    """What a step has to say. `ms` is what it measured, None where that is the whole step. `quoted` is an answer."""

    detail: str
    ms: float | None = None
    quoted: tuple[str, ...] = ()


async def sign_up(story: Story) -> Told:
    """Somebody signs up and founds a company."""
    story.founder = await story.sign_up("Ada")
    company = await story.done("POST", "auth", "/companies", {"name": "Northern Lights Live"}, person=story.founder)
    story.company_id = UUID(company["id"])
    return Told("Ada signed up, signed in and founded a company.")


async def purchase_to_access(story: Story) -> Told:
    """A trial and an add-on, until Finance lets the founder in."""
    await story.buy({"package": _BASE_PACKAGE, "trial": True})
    await story.buy({"addons": [_ADDON_PACKAGE]})
    paid_at = time.perf_counter()
    await story.expenses_until(story.founder, httpx.codes.OK)
    opened_ms = (time.perf_counter() - paid_at) * 1000
    return Told(
        f"A trial of {_BASE_PACKAGE}, then the add-on {_ADDON_PACKAGE}, each confirmed by a signed webhook; "
        f"{opened_ms:.0f} ms after the second Finance answers Ada 200."
    )


async def refused_with_reason(story: Story) -> Told:
    """A colleague without a grant is told what is missing and who can help."""
    story.colleague = await story.sign_up("Ben")
    await story.done("POST", "auth", "/memberships", {"user_id": str(story.colleague.id)}, person=story.founder)
    refused = (await story.expenses_until(story.colleague, httpx.codes.FORBIDDEN, Reason.MODULE_NOT_GRANTED)).json()
    if refused["fix"]["action"] != FixAction.ASK_MODULE:
        raise StepFailedError(f"the fix is {refused['fix']}")
    return Told("Ben joined the company and asked Finance; the answer as he reads it:", quoted=_as_read(refused))


async def grant_to_allow(story: Story) -> Told:
    """From the commit of a grant to the first request that passes."""
    member = f"/memberships/{story.colleague.id}"
    scope_types = PERMISSIONS[MODULE][PERMISSION].scope_types
    await story.done("PUT", "auth", f"{member}/modules", {"modules": [MODULE]}, person=story.founder)
    scopes = {"module": MODULE, "scopes": dict.fromkeys(scope_types, "*")}
    await story.done("PUT", "auth", f"{member}/scopes", scopes, person=story.founder)
    await story.expenses_until(story.colleague, httpx.codes.FORBIDDEN, Reason.PERMISSION_MISSING)
    async with story.polling(story.colleague) as poller:
        await story.grant({PERMISSION: None})
        allowed = await poller.first(PASSED, before=httpx.codes.FORBIDDEN, timeout_seconds=_REACTION_TIMEOUT_SECONDS)
    ms = _since(await story.granted_at(), allowed)
    await story.expenses_until(story.colleague, httpx.codes.OK)
    return Told(f"{PERMISSION}: commit in Auth → let through by Finance, asked every {poller.interval_ms:.1f} ms.", ms)


async def revoke_to_deny(story: Story) -> Told:
    """From the commit of a revocation to the first request that is refused."""
    ms, interval_ms = await revoke(story)
    return Told(f"The same taken away: commit in Auth → first 403 of Finance, asked every {interval_ms:.1f} ms.", ms)


async def expires_without_event(story: Story) -> Told:
    """A grant with an end is refused at its end, though nobody is there to say so."""
    end = datetime.now(UTC) + _SHORT_GRANT
    await story.grant({PERMISSION: end})
    await story.expenses_until(story.colleague, httpx.codes.OK)
    await story.system.kill("auth")
    await wait_until(_clock, lambda now: now >= end - _EXPIRY_LEAD, describe="the grant's last moment")
    async with story.polling(story.colleague) as poller:
        refused = await poller.first(httpx.codes.FORBIDDEN, before=PASSED, timeout_seconds=_REACTION_TIMEOUT_SECONDS)
    late = _instant(refused.ended) - end
    if not timedelta() <= late <= _EXPIRY_TOLERANCE:
        raise StepFailedError(f"the first refusal came {late.total_seconds():.3f} s after the end of the grant")
    await story.system.resume()
    await story.ready("auth")
    return Told(
        f"A grant of {_SHORT_GRANT.total_seconds():g} s, Auth killed meanwhile: its end → first 403, with no event.",
        _milliseconds(late),
    )


async def addon_lapse_to_deny(story: Story) -> Told:
    """The add-on is canceled, and bought again."""
    held = await story.done("GET", "checkout", "/subscription", person=story.founder)
    addon = next(each for each in held["subscriptions"] if each["base_module"] is None)
    async with story.polling(story.founder) as poller:
        order = {"when": "now", "subscription_id": addon["id"]}
        await story.done("POST", "checkout", "/subscription/cancel", order, person=story.founder)
        refused = await poller.first(httpx.codes.FORBIDDEN, before=PASSED, timeout_seconds=_REACTION_TIMEOUT_SECONDS)
    canceled_at = await committed_at(story.system, "checkout", "subscriptions", id=UUID(addon["id"]))
    read = (await story.expenses_until(story.founder, httpx.codes.FORBIDDEN, Reason.MODULE_NOT_ENTITLED)).json()
    await story.buy({"addons": [_ADDON_PACKAGE]})
    await story.expenses_until(story.founder, httpx.codes.OK)
    return Told(
        "Ada cancels the add-on: commit in Checkout → first 403 of Finance, by way of Core. Bought again, her grants "
        "are there as before.",
        _since(canceled_at, refused),
        _as_read(read),
    )


async def decides_without_auth(story: Story) -> Told:
    """Auth and Core are dead; Finance says yes and no as before."""
    await story.system.kill("auth", "entitlements")
    story.killed_at = time.monotonic()
    taken: list[float] = []
    for _ in range(_TRIES):
        begun = time.perf_counter()
        allowed, refused = await story.expenses(story.founder), await story.expenses(story.colleague)
        taken.append((time.perf_counter() - begun) * 1000 / 2)
        if (allowed.status_code, refused.status_code) != (httpx.codes.OK, httpx.codes.FORBIDDEN):
            raise StepFailedError(f"{allowed.status_code} {allowed.text}; {refused.status_code} {refused.text}")
    return Told(
        f"Auth and Core killed: {_TRIES} times Ada 200 and Ben 403, {statistics.median(taken):.1f} ms for a request."
    )


async def stale_503(story: Story) -> Told:
    """Past the hard bound nobody is let in, and nobody is told no."""
    unknown = await story.expenses_until(story.founder, httpx.codes.SERVICE_UNAVAILABLE, Reason.STATE_UNKNOWN)
    seconds = time.monotonic() - story.killed_at
    await story.expenses_until(story.colleague, httpx.codes.SERVICE_UNAVAILABLE, Reason.STATE_UNKNOWN)
    if "retry-after" not in unknown.headers:
        raise StepFailedError("the 503 does not say when to try again")
    return Told(
        f"The last news of Auth and Core is older than {story.bound_seconds:g} s: from the kill → first 503, for both.",
        seconds * 1000,
        _as_read(unknown.json()),
    )


async def recovers(story: Story) -> Told:
    """What died is started again, and all is as before."""
    await story.system.resume()
    await story.expenses_until(story.founder, httpx.codes.OK)
    await story.expenses_until(story.colleague, httpx.codes.FORBIDDEN, Reason.PERMISSION_MISSING)
    return Told("Auth and Core are started again: Ada 200, Ben 403.")


async def rebuild_equal(story: Story) -> Told:
    """Finance loses its cache and fills it from the log; it is what the rows say."""
    await story.ready("auth", "entitlements")
    await story.system.lose_cache(MODULE)
    begun = time.perf_counter()
    await story.system.resume()
    await story.ready(MODULE)
    ready_ms = (time.perf_counter() - begun) * 1000
    async with story.system.database("auth") as auth, story.system.database("entitlements") as core:
        rows = await documents_of_auth(auth, {MODULE}) | await documents_of_core(core)
    if story.company_id is None:
        raise AssertionError("the story has begun with a company")
    proof = await story.system.prove(rows, module=MODULE, member=(story.company_id, story.founder.id))
    if proof.differing:
        raise StepFailedError(f"rows and cache differ in {len(proof.differing)} subjects: {proof.differing[:3]}")
    if len(proof.differing_when_flipped) != 1:
        raise StepFailedError(f"one flipped bit shows as {proof.differing_when_flipped}")
    return Told(
        f"Cache deleted, filled from the log: {proof.subjects} subjects, digest {proof.digest[:16]} as of the rows of "
        "Auth and Core; one bit flipped in a copy, and it is another.",
        ready_ms,
    )


async def revoke(story: Story) -> tuple[float, float]:
    """Take it away again; milliseconds from the commit to the first 403, and between two requests."""
    async with story.polling(story.colleague) as poller:
        await story.grant({})
        refused = await poller.first(httpx.codes.FORBIDDEN, before=PASSED, timeout_seconds=_REACTION_TIMEOUT_SECONDS)
    return _since(await story.granted_at(), refused), poller.interval_ms


async def _clock() -> datetime:
    return datetime.now(UTC)


def _instant(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _milliseconds(duration: timedelta) -> float:
    return duration / timedelta(milliseconds=1)


def _since(committed_at: datetime, answer: Answer) -> float:
    return _milliseconds(_instant(answer.ended) - committed_at)


def _as_read(problem: dict[str, Any]) -> tuple[str, ...]:
    """A refusal as the person who gets it reads it."""
    fix = problem.get("fix")
    lines = (f"{problem['status']} {problem['code']}: {problem['title']}", problem["detail"])
    return (*lines, f"fix: {fix['action']}, by {fix['by']}") if fix else lines


STEPS: Final[tuple[Callable[[Story], Awaitable[Told]], ...]] = (
    sign_up,
    purchase_to_access,
    refused_with_reason,
    grant_to_allow,
    revoke_to_deny,
    expires_without_event,
    addon_lapse_to_deny,
    decides_without_auth,
    stale_503,
    recovers,
    rebuild_equal,
)
