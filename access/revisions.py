"""Waiting for a revision (design §5, Read your own write): a caller names states, and is judged by no older ones.

A revision is topic:key:epoch:version, several are separated by commas. They are compared with what this instance has,
for a short while if need be; then the answer is 503.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from access.cache import Cache
from access.ingest import COMPANIES, MEMBERSHIPS, PERMISSIONS, SESSIONS, subject_key
from access.records import version_of
from access.unknown import StateUnknownError
from contracts.errors import DomainError, Kind
from contracts.identifiers import CompanyId, UserId
from contracts.payload import INTEGER_MAX
from contracts.problems import ProblemCode

REVISIONS_MAX: Final = 8
#: Those that answers to writes name. Signing keys are written by no request.
_TOPICS: Final = frozenset({COMPANIES, MEMBERSHIPS, PERMISSIONS, SESSIONS})
_REVISION: Final = re.compile(r"([a-z0-9.-]{1,200}):([A-Za-z0-9_/-]{1,200}):([1-9][0-9]{0,18}):([1-9][0-9]{0,18})")
_WAIT_SECONDS: Final = 2.0
_WAITING_MAX: Final = 64
_PAUSE_SECONDS: Final = 0.005

#: A topic by the registry's name, and a record's key.
Subject: TypeAlias = tuple[str, str]
#: An epoch and a version in it; the pair orders the states of a subject.
Version: TypeAlias = tuple[int, int]
#: The newest version held of each subject; one that is not known is absent.
VersionsOf: TypeAlias = Callable[[Collection[Subject]], Awaitable[Mapping[Subject, Version]]]


class RevisionMalformedError(DomainError):
    kind = Kind.MALFORMED
    code = ProblemCode.REVISION_MALFORMED.value
    title = "The request names a revision that is none"


class RevisionForeignError(DomainError):
    """Whether another company has a state, and which, is nothing to wait for."""

    kind = Kind.MALFORMED
    code = ProblemCode.REVISION_FOREIGN.value
    title = "The request names a revision of somebody else"


def read_revisions(text: str) -> dict[Subject, Version]:
    """The newest revision of each subject that is named. Raises RevisionMalformedError, which names the rule."""
    named = text.split(",")
    if len(named) > REVISIONS_MAX:
        raise RevisionMalformedError(f"At most {REVISIONS_MAX} revisions can be named.")
    found: dict[Subject, Version] = {}
    for each in named:
        matched = _REVISION.fullmatch(each.strip(" \t"))
        if matched is None:
            raise RevisionMalformedError(
                "A revision is topic:key:epoch:version, as an answer's Kisum-Revision has it; commas separate several."
            )
        topic, key, version = matched[1], matched[2], (int(matched[3]), int(matched[4]))
        if topic not in _TOPICS:
            raise RevisionMalformedError(f"The topic of a revision is one of {', '.join(sorted(_TOPICS))}.")
        if subject_key(topic, key.encode()) is None:
            raise RevisionMalformedError(f"The key of a revision is one that {topic} has.")
        if max(version) > INTEGER_MAX:
            raise RevisionMalformedError(f"Epoch and version are at most {INTEGER_MAX}.")
        found[topic, key] = max(version, found.get((topic, key), version))
    return found


def check_own(subjects: Collection[Subject], *, company_id: CompanyId | None, user_id: UserId) -> None:
    """Raises RevisionForeignError for a key of another company than the request's, or of another person's sessions.

    Permission rows are everybody's.
    """
    for topic, key in subjects:
        if topic == SESSIONS:
            if key != str(user_id):
                raise RevisionForeignError("A revision of sessions is one of the caller's own.")
        elif topic != PERMISSIONS and key.partition("/")[0] != str(company_id):
            raise RevisionForeignError("A revision's company is the one the request is for.")


def versions_in(cache: Cache) -> VersionsOf:
    """What a cache decides by. A state that could not be read does not count: the one before it does."""

    async def versions_of(subjects: Collection[Subject]) -> Mapping[Subject, Version]:
        keys = {subject: subject_key(subject[0], subject[1].encode()) or b"" for subject in subjects}
        _, records = cache.read(list(keys.values()))
        return {
            subject: version_of(record) for subject, record in zip(keys, records, strict=True) if record is not None
        }

    return versions_of


@dataclass(eq=False)
class _Waiting:
    wanted: Mapping[Subject, Version]
    reached: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RevisionWait:
    """Lets requests wait until this instance is far enough, so many at a time. One task looks for all of them.

    :param versions_of: what is held now; in a service of several processes another one may write it.
    """

    def __init__(
        self,
        versions_of: VersionsOf,
        *,
        pause_seconds: float = _PAUSE_SECONDS,
        wait_seconds: float = _WAIT_SECONDS,
        waiting_max: int = _WAITING_MAX,
    ) -> None:
        self._versions_of = versions_of
        self._pause_seconds = pause_seconds
        self._wait_seconds = wait_seconds
        self._waiting_max = waiting_max
        self._waiting: set[_Waiting] = set()
        self._looking: asyncio.Task[None] | None = None

    async def until(self, wanted: Mapping[Subject, Version], *, company_id: CompanyId | None, user_id: UserId) -> None:
        """Return when every state is at least as new as wanted. Raises StateUnknownError where that takes too long.

        Who is no member of the company and does not wait to become one does not wait: whatever state the company has,
        the answer must be that of a company which does not exist.
        """
        own = (MEMBERSHIPS, f"{company_id}/{user_id}")
        asked = {*wanted, own} if company_id is not None else set(wanted)
        found = await self._versions_of(asked)
        if _is_reached(wanted, found) or (company_id is not None and own not in wanted and own not in found):
            return
        if len(self._waiting) >= self._waiting_max:
            raise StateUnknownError(f"{self._waiting_max} requests wait for a newer state already")
        await self._wait(_Waiting(wanted))

    async def _wait(self, waiting: _Waiting) -> None:
        self._waiting.add(waiting)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiting.reached
        except TimeoutError:
            raise StateUnknownError(
                f"a state as new as the one the request names has not arrived within {self._wait_seconds:g} s"
            ) from None
        finally:
            self._waiting.discard(waiting)

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause_seconds)
            waiting = list(self._waiting)
            try:
                found = await self._versions_of({subject for each in waiting for subject in each.wanted})
            except DomainError as error:
                for each in waiting:
                    if not each.reached.done():
                        each.reached.set_exception(error)
                continue
            for each in waiting:
                if not each.reached.done() and _is_reached(each.wanted, found):
                    each.reached.set_result(None)


def _is_reached(wanted: Mapping[Subject, Version], found: Mapping[Subject, Version]) -> bool:
    return all(found.get(subject, (0, 0)) >= version for subject, version in wanted.items())
