"""Which revisions a caller may wait for, how many at once, and for how long."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from access.revisions import (
    RevisionForeignError,
    RevisionMalformedError,
    RevisionWait,
    Subject,
    Version,
    check_own,
    read_revisions,
)
from access.unknown import StateUnknownError
from contracts.errors import DomainError, Kind
from contracts.identifiers import CompanyId, UserId, new_id
from tests.harness.waiting import wait_until

COMPANY, OTHER_COMPANY = CompanyId(new_id()), CompanyId(new_id())
ME, SOMEBODY = UserId(new_id()), UserId(new_id())
OWN = ("auth.memberships.v1", f"{COMPANY}/{ME}")
ENTITLEMENT = ("entitlements.companies.v1", str(COMPANY))
LARGEST = 2**63 - 1


def text(subject: Subject, epoch: int = 1, version: int = 1) -> str:
    return f"{subject[0]}:{subject[1]}:{epoch}:{version}"


# Reading.


def test_the_newest_revision_of_each_subject_counts() -> None:
    named = ", ".join((text(OWN, 1, 7), text(ENTITLEMENT, 2, LARGEST), text(OWN, 2, 3), text(OWN, 1, 9)))
    assert read_revisions(named) == {OWN: (2, 3), ENTITLEMENT: (2, LARGEST)}


def test_eight_can_be_named_and_no_more() -> None:
    assert len(read_revisions(",".join(text((OWN[0], f"{COMPANY}/{new_id()}")) for _ in range(8)))) == 8
    with pytest.raises(RevisionMalformedError, match="At most 8"):
        read_revisions(",".join([text(OWN)] * 9))


@pytest.mark.parametrize(
    ("malformed", "rule"),
    [
        ("", "topic:key:epoch:version"),
        (",", "topic:key:epoch:version"),
        (text(OWN) + ",", "topic:key:epoch:version"),
        ("7", "topic:key:epoch:version"),
        (f"{OWN[0]}:{OWN[1]}:1", "topic:key:epoch:version"),
        (text(OWN) + ":1", "topic:key:epoch:version"),
        (text(OWN, 0), "topic:key:epoch:version"),
        (text(OWN, 1, 0), "topic:key:epoch:version"),
        (text(OWN, -1), "topic:key:epoch:version"),
        (f"{OWN[0]}:{OWN[1]}:01:1", "topic:key:epoch:version"),
        (f"{OWN[0]}:{OWN[1]}:1:1.5", "topic:key:epoch:version"),
        (f"{OWN[0]}:{OWN[1]}:1:1e3", "topic:key:epoch:version"),
        (f"{OWN[0]}:{OWN[1]}:1:٣", "topic:key:epoch:version"),
        (f"{OWN[0]}:{OWN[1]}:1:" + "9" * 5000, "topic:key:epoch:version"),
        (text(OWN, 1, LARGEST + 1), "at most"),
        (text(OWN, LARGEST + 1), "at most"),
        (text(("entitlements.catalog.v1", "module/finance")), "topic of a revision"),
        (text(("auth.signing-keys.v1", "key-1")), "topic of a revision"),
        (text(("nobody.knows.v1", "key")), "topic of a revision"),
        (text((OWN[0], str(COMPANY))), "key of a revision"),
        (text((OWN[0], f"{COMPANY}/{ME}/{ME}")), "key of a revision"),
        (text((OWN[0], f"{str(COMPANY).upper()}/{ME}")), "key of a revision"),
        (text((ENTITLEMENT[0], COMPANY.hex)), "key of a revision"),
        (text(("auth.permissions.v1", "No-Module")), "key of a revision"),
        (text(("auth.sessions.v1", "../..")), "topic:key:epoch:version"),
    ],
)
def test_what_is_no_revision_is_refused_and_the_rule_is_named(malformed: str, rule: str) -> None:
    with pytest.raises(RevisionMalformedError, match=rule) as refused:
        read_revisions(malformed)
    assert (refused.value.kind, refused.value.code) == (Kind.MALFORMED, "revision_malformed")


def test_only_what_is_the_callers_can_be_waited_for() -> None:
    own: list[Subject] = [
        OWN,
        ENTITLEMENT,
        ("auth.memberships.v1", f"{COMPANY}/{SOMEBODY}"),
        ("auth.sessions.v1", str(ME)),
        ("auth.permissions.v1", "venue"),
    ]
    check_own(own, company_id=COMPANY, user_id=ME)
    foreign: list[Subject] = [
        ("entitlements.companies.v1", str(OTHER_COMPANY)),
        ("auth.memberships.v1", f"{OTHER_COMPANY}/{ME}"),
        ("auth.sessions.v1", str(SOMEBODY)),
    ]
    for each in foreign:
        with pytest.raises(RevisionForeignError) as refused:
            check_own([*own, each], company_id=COMPANY, user_id=ME)
        assert (refused.value.kind, refused.value.code) == (Kind.MALFORMED, "revision_foreign")


def test_without_a_company_no_companys_state_is_waited_for() -> None:
    check_own([("auth.sessions.v1", str(ME)), ("auth.permissions.v1", "venue")], company_id=None, user_id=ME)
    for each in (OWN, ENTITLEMENT):
        with pytest.raises(RevisionForeignError):
            check_own([each], company_id=None, user_id=ME)


# Waiting.


class Held:
    """Versions that a test moves, and how often they were looked at."""

    def __init__(self, **waiting: Any) -> None:
        self.versions: dict[Subject, Version] = {OWN: (1, 1)}
        self.looks = 0
        self.failure: DomainError | None = None
        self.wait = RevisionWait(self.versions_of, pause_seconds=0.001, **waiting)

    async def versions_of(self, subjects: Collection[Subject]) -> Mapping[Subject, Version]:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return {subject: self.versions[subject] for subject in subjects if subject in self.versions}

    async def until(self, subject: Subject, version: Version) -> None:
        await self.wait.until({subject: version}, company_id=COMPANY, user_id=ME)

    async def waiting(self, count: int, wanted: Callable[[int], Version]) -> "list[asyncio.Task[None]]":
        tasks = [asyncio.create_task(self.until(ENTITLEMENT, wanted(number))) for number in range(count)]

        async def waits() -> int:
            return len(self.wait._waiting)

        await wait_until(waits, lambda waits: waits == count, describe="all wait")
        return tasks


async def test_what_is_there_is_not_waited_for() -> None:
    held = Held(wait_seconds=0, waiting_max=0)
    held.versions[ENTITLEMENT] = (2, 1)
    for version in ((1, 1), (1, 99), (2, 1)):
        await held.until(ENTITLEMENT, version)


@pytest.mark.parametrize("arrives", [(2, 5), (2, 6), (3, 1)])
async def test_a_request_goes_on_when_its_state_arrives(arrives: Version) -> None:
    held = Held()
    held.versions[ENTITLEMENT] = (2, 4)
    (waiting,) = await held.waiting(1, lambda _: (2, 5))
    held.versions[ENTITLEMENT] = arrives
    await waiting


async def test_every_state_has_to_arrive() -> None:
    held = Held(wait_seconds=0.05)
    held.versions[ENTITLEMENT] = (1, 1)
    with pytest.raises(StateUnknownError):
        await held.wait.until({ENTITLEMENT: (1, 1), OWN: (1, 2)}, company_id=COMPANY, user_id=ME)


async def test_what_does_not_arrive_is_503_after_the_wait() -> None:
    held = Held(wait_seconds=0.05)
    with pytest.raises(StateUnknownError, match="has not arrived") as refused:
        await held.until(ENTITLEMENT, (LARGEST, LARGEST))
    assert (refused.value.kind, refused.value.retry_after_seconds) == (Kind.UNAVAILABLE, 2)
    assert not held.wait._waiting


async def test_so_many_wait_and_one_more_is_503_at_once() -> None:
    held = Held()
    tasks = await held.waiting(64, lambda number: (1, number + 1))
    with pytest.raises(StateUnknownError, match="64 requests"):
        await held.until(ENTITLEMENT, (1, 1))
    held.versions[ENTITLEMENT] = (1, 64)
    await asyncio.gather(*tasks)
    await held.until(ENTITLEMENT, (1, 64))


async def test_one_looks_for_all() -> None:
    held = Held()
    tasks = await held.waiting(64, lambda number: (1, number + 1))
    before = held.looks

    async def looks() -> int:
        return held.looks - before

    # Had each waiter a look of its own, ten would be done before one of them did its second.
    loop = asyncio.get_running_loop()
    started = loop.time()
    await wait_until(looks, lambda looks: looks >= 10, describe="ten looks")
    assert held.looks - before <= (loop.time() - started) / 0.001 + 1
    held.versions[ENTITLEMENT] = (1, 64)
    await asyncio.gather(*tasks)


async def test_nobody_looks_when_nobody_waits() -> None:
    held = Held()
    (gone,) = await held.waiting(1, lambda _: (1, 1))
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    looking = held.wait._looking
    assert looking is not None
    await looking
    (waiting,) = await held.waiting(1, lambda _: (1, 1))
    held.versions[ENTITLEMENT] = (1, 1)
    await waiting


async def test_a_source_that_fails_is_every_waiters_failure_and_the_next_waits_again() -> None:
    held = Held()
    tasks = await held.waiting(2, lambda _: (1, 1))
    held.failure = RevisionForeignError()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [RevisionForeignError] * 2
    held.failure = None
    (waiting,) = await held.waiting(1, lambda _: (1, 1))
    held.versions[ENTITLEMENT] = (1, 1)
    await waiting


@pytest.mark.parametrize("is_known", [True, False])
async def test_who_is_no_member_learns_nothing_of_a_company_by_waiting(is_known: bool) -> None:  # noqa: FBT001
    held = Held(wait_seconds=0.05)
    held.versions = {ENTITLEMENT: (1, 5)} if is_known else {}
    for version in ((1, 1), (1, 5), (1, 6)):
        await held.until(ENTITLEMENT, version)
        # Who waits to become a member waits whatever the company has.
        with pytest.raises(StateUnknownError):
            await held.wait.until({ENTITLEMENT: version, OWN: (1, 1)}, company_id=COMPANY, user_id=ME)
