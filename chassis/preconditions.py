"""A change names the version it was made for: ETag on every answer that shows an object, If-Match on every change.

The tag is the row's version. The operation compares under the row's lock, so of two writers that have seen the same
version one is told that it is too late.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Response

from chassis.routing import NEEDED_HEADER
from contracts.errors import DomainError, Kind
from contracts.problems import ProblemCode

_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS: Final = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_OF_A_VERSION: Final = re.compile(r'"([1-9][0-9]{0,18})"')
_HEADER_LENGTH_MAX: Final = 1024
#: What the document tells of the header.
IF_MATCH_TOLD: Final[dict[str, Any]] = {"pattern": rf"^(\*|{_TAGS.pattern})$", "maxLength": _HEADER_LENGTH_MAX}


class PreconditionRequiredError(DomainError):
    kind = Kind.PRECONDITION_REQUIRED
    code = ProblemCode.PRECONDITION_REQUIRED.value
    title = "Say which version you are changing"


class EntityTagMalformedError(DomainError):
    kind = Kind.MALFORMED
    code = ProblemCode.ENTITY_TAG_MALFORMED.value
    title = "This is not an entity tag"


class VersionMismatchError(DomainError):
    """Somebody else has changed the object since it was read."""

    kind = Kind.PRECONDITION_FAILED
    code = ProblemCode.VERSION_MISMATCH.value
    title = "The object has changed since you read it"


@dataclass(frozen=True)
class Expected:
    """The versions a change was made for; None is whatever there is, which is written `*`."""

    versions: frozenset[int] | None

    def check(self, version: int) -> None:
        """Raises VersionMismatchError. The caller holds the lock of the row that has this version."""
        if self.versions is not None and version not in self.versions:
            raise VersionMismatchError(
                f"It is at version {version} now. Read it again, and repeat the change if it still is right.",
                version=version,
            )


#: For a change that is right whatever the version is.
WHATEVER: Final = Expected(None)


def expected_of(if_match: str | None) -> Expected:
    """What an If-Match header asks for (RFC 9110, 13.1.1).

    A weak tag promises no more than a like meaning, so it matches no version. Raises PreconditionRequiredError or
    EntityTagMalformedError.
    """
    if if_match is None:
        raise PreconditionRequiredError("Send If-Match with the ETag of the answer you read the object from.")
    tags = if_match.strip()
    if tags == "*":
        return WHATEVER
    if len(tags) > _HEADER_LENGTH_MAX or not _TAGS.fullmatch(tags):
        raise EntityTagMalformedError('If-Match is * or an ETag as it was given, quotes included: "7"')
    versions = (_OF_A_VERSION.fullmatch(tag) for tag in re.findall(_TAG, tags))
    return Expected(frozenset(int(found[1]) for found in versions if found))


def set_entity_tag(response: Response, version: int) -> None:
    """Say which version an answer shows."""
    response.headers["ETag"] = f'"{version}"'


async def _if_match(
    if_match: Annotated[str | None, Header(json_schema_extra={**IF_MATCH_TOLD, NEEDED_HEADER: True})] = None,
) -> Expected:
    return expected_of(if_match)


#: The version a change is made for.
IfMatch = Annotated[Expected, Depends(_if_match)]
