"""The compact binary records of the cache: compiled from events when they arrive, read field by field at a decision.

Every record begins with a head: flags, epoch, version. Times are microseconds since 1970 in UTC; the end of what has no
end is `NEVER`. A module is known by its place in `contracts.services.MODULES`, a permission by its bit in
`contracts.permissions`; both are append-only, and `fingerprint` changes with either, upon which a cache is rebuilt.
"""

import base64
import binascii
import hashlib
import json
import re
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from operator import itemgetter
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel

from contracts.events.auth import (
    Delegation,
    GrantChanged,
    MembershipStatus,
    PermissionsChanged,
    PermissionStatus,
    SessionsChanged,
    SigningKeyChanged,
    SigningKeyStatus,
)
from contracts.events.entitlements import EntitlementChanged, EntitlementStatus
from contracts.identifiers import CompanyId, UserId
from contracts.permissions import PERMISSIONS
from contracts.services import MODULES

FORMAT_VERSION: Final = 3
NEVER: Final = 2**63 - 1
_ABSENT: Final = -(2**63)

MODULE_IDS: Final[Mapping[str, int]] = {module: number for number, module in enumerate(MODULES)}
_BITS: Final[Mapping[str, Mapping[str, int]]] = {
    module: {key: row.bit for key, row in rows.items()} for module, rows in PERMISSIONS.items()
}
#: What records are about, for people, by the first byte of their keys.
RECORD_KINDS: Final[Mapping[bytes, str]] = {
    b"e": "entitlement",
    b"k": "signing_key",
    b"m": "membership",
    b"p": "permissions",
    b"s": "sessions",
}
_NO_MODULE: Final = 255
#: A base this reader does not know.
_FOREIGN_MODULE: Final = 254

#: Codes on disk: append only.
_MEMBERSHIP_CODES: Final = {
    MembershipStatus.UNKNOWN: 0,
    MembershipStatus.ACTIVE: 1,
    MembershipStatus.INVITED: 2,
    MembershipStatus.SUSPENDED: 3,
    MembershipStatus.REMOVED: 4,
}
_ENTITLEMENT_CODES: Final = {
    EntitlementStatus.UNKNOWN: 0,
    EntitlementStatus.NONE: 1,
    EntitlementStatus.TRIALING: 2,
    EntitlementStatus.ACTIVE: 3,
    EntitlementStatus.PAST_DUE: 4,
    EntitlementStatus.SUSPENDED: 5,
    EntitlementStatus.ENDED: 6,
}
_PERMISSION_CODES: Final = {
    PermissionStatus.UNKNOWN: 0,
    PermissionStatus.ACTIVE: 1,
    PermissionStatus.DEPRECATED: 2,
    PermissionStatus.REMOVED: 3,
}
_KEY_CODES: Final = {
    SigningKeyStatus.UNKNOWN: 0,
    SigningKeyStatus.ACTIVE: 1,
    SigningKeyStatus.RETIRED: 2,
    SigningKeyStatus.REVOKED: 3,
}
_MEMBERSHIP_STATUSES: Final = {code: status for status, code in _MEMBERSHIP_CODES.items()}
_ENTITLEMENT_STATUSES: Final = {code: status for status, code in _ENTITLEMENT_CODES.items()}
_PERMISSION_STATUSES: Final = {code: status for status, code in _PERMISSION_CODES.items()}
_KEY_STATUSES: Final = {code: status for status, code in _KEY_CODES.items()}

_UNKNOWN: Final = 0
_MEMBER_ACTIVE: Final = _MEMBERSHIP_CODES[MembershipStatus.ACTIVE]
_BELIEVED: Final = frozenset({SigningKeyStatus.ACTIVE, SigningKeyStatus.RETIRED})
#: Statuses under which a company or its base is entitled, `past_due` until its `valid_until`.
_LIVE: Final = frozenset(
    _ENTITLEMENT_CODES[status]
    for status in (EntitlementStatus.TRIALING, EntitlementStatus.ACTIVE, EntitlementStatus.PAST_DUE)
)

QUARANTINED: Final = 1
#: Beside it: nothing unreadable came, only the log has what was applied no longer.
_LOST: Final = 2

# Epochs end at EPOCH_MAX, which is below 2**32.
_HEAD: Final = struct.Struct("<BIQ")
_INSTANT: Final = struct.Struct("<q")
_COUNT: Final = struct.Struct("<I")
_TIMED: Final = struct.Struct("<Bq")
_PART: Final = struct.Struct("<BI")
_ENTITLEMENT: Final = struct.Struct("<BIQBBBq")
_SIGNING_KEY: Final = struct.Struct("<BIQBqq32s")
_SESSIONS: Final = struct.Struct("<BIQQI")
_SESSION: Final = struct.Struct("<16sq")
_PERMISSION: Final = struct.Struct("<BBB")
_NO_ALIAS: Final = 255
#: An alias of a key this reader does not know.
_FOREIGN_ALIAS: Final = 254

_HEAD_SIZE: Final = _HEAD.size
#: First bytes of the keys whose records have their status behind the head.
_WITH_STATUS: Final = (b"m", b"e", b"k")
_INSTANT_AT: Final = _INSTANT.unpack_from
_MODULES_AT: Final = _ENTITLEMENT.size
_CAPABILITIES_AT: Final = _MODULES_AT + len(MODULES) * _INSTANT.size
_PART_SIZE: Final = _PART.size
_GRANTS_AT: Final = _HEAD_SIZE + 2

_EPOCH_START: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND: Final = timedelta(microseconds=1)
#: The one way to write a UUID.
UUID_PATTERN: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID_TEXT: Final = re.compile(UUID_PATTERN)
_UUIDS_TEXT: Final = re.compile(rf"{UUID_PATTERN}(?:,{UUID_PATTERN})*")
_UUID_SIZE: Final = 16
_IS_UUID: Final = 255
_COUNT_MAX: Final = 255
#: From here on a count is written in four bytes behind this one.
_LONG_COUNT: Final = 255
#: Codes on disk: append only. Other types are written out.
_SCOPE_TYPES: Final = ("business_unit", "event", "approval_limit", "venue", "space", "artist", "tour")
_SCOPE_TYPE_CODES: Final = {scope_type: code for code, scope_type in enumerate(_SCOPE_TYPES)}
_OTHER_SCOPE_TYPE: Final = 127
#: In the code of a scope type: all of its ids are UUIDs, and nothing is said of each.
_ALL_UUIDS: Final = 128

#: A newer contract may read what an older one had to put into quarantine.
_EVENTS: Final = (GrantChanged, PermissionsChanged, SessionsChanged, SigningKeyChanged, EntitlementChanged)

Scope = Literal["*"] | tuple[str, ...]


class AmbiguousEventError(ValueError):
    """An event of the right shape that this reader must not act on: it says two things, or nobody vouches for it."""


def fingerprint() -> str:
    """What stored bytes depend on: the format, the modules, the permission bits, and what events can be read."""
    lines = [f"format {FORMAT_VERSION}", *(f"module {module}" for module in MODULES)]
    lines += [f"{module} {row.key} {row.bit}" for module, rows in PERMISSIONS.items() for row in rows.values()]
    return hashlib.sha256("\n".join([*lines, *_schemas(_EVENTS)]).encode()).hexdigest()


@cache
def _schemas(events: tuple[type[BaseModel], ...]) -> list[str]:
    return [json.dumps(event.model_json_schema(), sort_keys=True) for event in events]


def microseconds(instant: datetime) -> int:
    """An instant as the records hold it."""
    return (instant - _EPOCH_START) // _MICROSECOND


def instant_of(value: int) -> datetime | None:
    """The instant a record holds, or None for no end."""
    return None if value == NEVER else _EPOCH_START + value * _MICROSECOND


def _until(instant: datetime | None) -> int:
    return NEVER if instant is None else microseconds(instant)


# Keys: the subject of a record, and the quarantine that belongs to it.


def membership_key(company_id: UUID, user_id: UUID) -> bytes:
    return b"m" + company_id.bytes + user_id.bytes


def entitlement_key(company_id: UUID) -> bytes:
    return b"e" + company_id.bytes


def permissions_key(module: str) -> bytes:
    return b"p" + module.encode()


def signing_key_key(kid: str) -> bytes:
    return b"k" + kid.encode()


def sessions_key(user_id: UUID) -> bytes:
    return b"s" + user_id.bytes


# The head every record has.


def version_of(record: bytes) -> tuple[int, int]:
    """The record's (epoch, version); (0, 0) where only a quarantine is known of it."""
    _, epoch, version = _HEAD.unpack_from(record)
    return epoch, version


def takes_its_revision(key: bytes, record: bytes) -> bool:
    """Whether a state of the very revision of the record takes its place, and not only a newer one.

    That is so of one published as unknown, in place of the state of its revision that the log refused: should the log
    take that state later, it is this one, in whichever order both come. And of one the log has lost: the owner of a log
    that was lost publishes every state again under the version it has.
    """
    if record[0] & QUARANTINED:
        return bool(record[0] & _LOST)
    return key[:1] in _WITH_STATUS and record[_HEAD_SIZE] == _UNKNOWN


def is_quarantined(record: bytes) -> bool:
    """Whether a record of this subject could not be read, and none that is newer has come since."""
    return bool(record[0] & QUARANTINED)


def quarantined(record: bytes | None) -> bytes:
    """The record with its subject in quarantine; what was known keeps its version, so that only newer ones lift it."""
    if record is None:
        return _HEAD.pack(QUARANTINED, 0, 0)
    return bytes([(record[0] | QUARANTINED) & ~_LOST]) + record[1:]


def lost(record: bytes) -> bytes:
    """The record with its subject in quarantine because the log has it no longer; if it already was, as it was."""
    return record if record[0] & QUARANTINED else bytes([record[0] | QUARANTINED | _LOST]) + record[1:]


def _is_bare(record: bytes) -> bool:
    return len(record) <= _HEAD.size


def _packed_text(text: str) -> bytes:
    """A name or id: ids that are UUIDs in 16 bytes, others as they are."""
    raw = _uuid_bytes(text)
    if raw is not None:
        return bytes([_IS_UUID]) + raw
    raw = text.encode("ascii")
    return bytes([len(raw)]) + raw


def _text_at(record: bytes, position: int) -> tuple[str, int]:
    length = record[position]
    start = position + 1
    if length == _IS_UUID:
        return _uuid_text(record[start : start + _UUID_SIZE]), start + _UUID_SIZE
    return record[start : start + length].decode("ascii"), start + length


def _uuid_bytes(text: str) -> bytes | None:
    return bytes.fromhex(text.replace("-", "")) if _UUID_TEXT.fullmatch(text) else None


def _uuid_text(raw: bytes) -> str:
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _packed_count(count: int) -> bytes:
    return bytes([count]) if count < _LONG_COUNT else bytes([_LONG_COUNT]) + _COUNT.pack(count)


def _count_at(record: bytes, position: int) -> tuple[int, int]:
    count = record[position]
    if count < _LONG_COUNT:
        return count, position + 1
    return _COUNT.unpack_from(record, position + 1)[0], position + 1 + _COUNT.size


def _packed_mask(mask: int) -> bytes:
    raw = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    return bytes([len(raw)]) + raw


def _mask_at(record: bytes, position: int) -> tuple[int, int]:
    start = position + 1
    end = start + record[position]
    return int.from_bytes(record[start:end], "little"), end


def compile_scopes(scopes: Mapping[str, Scope]) -> bytes:
    """The scopes that bound a grant. Raises AmbiguousEventError."""
    # No value at all means the same as an absent type, and is written the same.
    present = sorted(scope for scope in scopes.items() if scope[1])
    if len(present) > _COUNT_MAX:
        raise AmbiguousEventError("more scope types than there are")
    return b"".join((bytes([len(present)]), *(_packed_scope(name, value) for name, value in present)))


def _packed_scope(name: str, value: Scope) -> bytes:
    code = _SCOPE_TYPE_CODES.get(name, _OTHER_SCOPE_TYPE)
    written_out = _packed_text(name) if code == _OTHER_SCOPE_TYPE else b""
    if value == "*":
        # No type is written without a value, so that none stands for all.
        return bytes([code]) + written_out + _packed_count(0)
    ids = sorted(set(value))
    text = ",".join(ids)
    if _UUIDS_TEXT.fullmatch(text):
        packed, marks = bytes.fromhex(text.replace("-", "").replace(",", "")), _ALL_UUIDS
    else:
        packed, marks = b"".join(_packed_text(each) for each in ids), 0
    return bytes([code | marks]) + written_out + _packed_count(len(ids)) + packed


def _scopes_at(record: bytes, position: int) -> tuple[dict[str, Scope], int]:
    scopes: dict[str, Scope] = {}
    types = record[position]
    position += 1
    for _ in range(types):
        marked = record[position]
        position += 1
        code = marked & ~_ALL_UUIDS
        if code == _OTHER_SCOPE_TYPE:
            name, position = _text_at(record, position)
        else:
            name = _SCOPE_TYPES[code]
        count, position = _count_at(record, position)
        if marked & _ALL_UUIDS:
            end = position + count * _UUID_SIZE
            scopes[name] = tuple(
                _uuid_text(record[start : start + _UUID_SIZE]) for start in range(position, end, _UUID_SIZE)
            )
            position = end
        else:
            ids = []
            for _ in range(count):
                text, position = _text_at(record, position)
                ids.append(text)
            scopes[name] = tuple(ids) if count else "*"
    return scopes, position


# Memberships.


@dataclass(frozen=True, slots=True)
class DelegationRecord:
    """What the member may grant to others in one module. `mask` is None for every permission of it."""

    module: str
    mask: int | None
    scopes: Mapping[str, Scope]
    may_delegate: bool
    valid_until: int


def grant_at(membership: bytes, module_id: int) -> int:
    """Where the grant of a module stands in a membership's record; 0 where there is none."""
    position = _GRANTS_AT + 1
    for _ in range(membership[_GRANTS_AT]):
        if membership[position] == module_id:
            return position + _PART_SIZE
        position += _PART_SIZE + _PART.unpack_from(membership, position)[1]
    return 0


def holds(membership: bytes, position: int, required: int, now: int) -> bool:
    """Whether the grant at a position has one of the required bits now; time-bound ones end at their microsecond."""
    start = position + 1
    end = start + membership[position]
    if int.from_bytes(membership[start:end], "little") & required:
        return True
    position = end + 1
    for _ in range(membership[end]):
        bit, valid_until = _TIMED.unpack_from(membership, position)
        if required >> bit & 1 and now < valid_until:
            return True
        position += _TIMED.size
    return False


class Grant:
    """A module granted to a membership. Reads from the membership's bytes when it is asked."""

    __slots__ = ("_position", "_record", "mask")

    def __init__(self, record: bytes, position: int) -> None:
        self._record = record
        start = position + 1
        self._position = end = start + record[position]
        #: The permissions held without an end.
        self.mask = int.from_bytes(record[start:end], "little")

    def timed(self) -> dict[int, int]:
        """The time-bound permissions: the end of each, by bit."""
        start = self._position + 1
        return dict(
            _TIMED.unpack_from(self._record, start + number * _TIMED.size)
            for number in range(self._record[self._position])
        )

    def scopes(self) -> dict[str, Scope]:
        """The scopes that bound it. An absent type is nothing."""
        start = self._position + 1 + self._record[self._position] * _TIMED.size
        return _scopes_at(self._record, start)[0]


def is_active(membership: bytes) -> bool:
    """Whether a membership's record is known, and active."""
    return membership[0] == 0 and membership[_HEAD_SIZE] == _MEMBER_ACTIVE


class Membership:
    """All that is known of a person in a company, in the modules this cache keeps."""

    __slots__ = ("raw",)
    _STATUS: Final = _HEAD.size
    _SUPERADMIN: Final = _HEAD.size + 1
    _GRANTS: Final = _HEAD.size + 2

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @property
    def is_unknown(self) -> bool:
        """Whether nothing can be said: quarantined, or published as unknown."""
        return self.raw[0] != 0 or self.raw[_HEAD_SIZE] == _UNKNOWN

    @property
    def status(self) -> MembershipStatus:
        """Raises nothing: a bare quarantine reads as unknown."""
        return MembershipStatus.UNKNOWN if _is_bare(self.raw) else _MEMBERSHIP_STATUSES[self.raw[self._STATUS]]

    @property
    def superadmin(self) -> bool:
        return bool(self.raw[self._SUPERADMIN])

    @property
    def version(self) -> tuple[int, int]:
        return version_of(self.raw)

    def grant(self, module_id: int) -> Grant | None:
        """The grant of a module, or None where there is none."""
        position = grant_at(self.raw, module_id)
        return Grant(self.raw, position) if position else None

    def modules(self) -> Iterator[tuple[str, Grant]]:
        """Every grant with its module."""
        raw, position = self.raw, self._GRANTS
        for _ in range(raw[position]):
            found, size = _PART.unpack_from(raw, position + 1)
            yield MODULES[found], Grant(raw, position + 1 + _PART.size)
            position += _PART.size + size

    def delegations(self) -> tuple[DelegationRecord, ...]:
        """What the member may grant to others."""
        raw, position = self.raw, self._GRANTS
        for _ in range(raw[position]):
            position += _PART.size + _PART.unpack_from(raw, position + 1)[1]
        found = []
        count, position = _count_at(raw, position + 1)
        for _ in range(count):
            module, everything, may_delegate = raw[position : position + 3]
            (valid_until,) = _INSTANT.unpack_from(raw, position + 3)
            mask, position = _mask_at(raw, position + 3 + _INSTANT.size)
            scopes, position = _scopes_at(raw, position)
            found.append(
                DelegationRecord(MODULES[module], None if everything else mask, scopes, bool(may_delegate), valid_until)
            )
        return tuple(found)


def compile_membership(event: GrantChanged, epoch: int, version: int, modules: Collection[str]) -> bytes:
    """The record of a membership with what it says of these modules. Keys this reader does not know give nothing."""
    grants = [grant for grant in event.modules if grant.key in modules and grant.key in MODULE_IDS]
    compiled = {
        MODULE_IDS[grant.key]: compile_held(grant.key, grant.permissions) + compile_scopes(grant.scopes)
        for grant in grants
    }
    if len(compiled) != len(grants):
        raise AmbiguousEventError("a module is granted twice")
    delegations = [each for each in event.delegations if each.module in modules and each.module in MODULE_IDS]
    return packed_membership(
        epoch,
        version,
        event.status,
        superadmin=event.superadmin,
        grants=compiled,
        delegations=sorted(_compile_delegation(each) for each in delegations),
    )


def packed_membership(
    epoch: int,
    version: int,
    status: MembershipStatus,
    *,
    superadmin: bool,
    grants: Mapping[int, bytes],
    delegations: Sequence[bytes],
) -> bytes:
    """The record of a membership from its compiled parts.

    :param grants: by the module's number, what `compile_held` and `compile_scopes` made of each.
    """
    parts = [_HEAD.pack(0, epoch, version), bytes([_MEMBERSHIP_CODES[status], superadmin, len(grants)])]
    for module_id, compiled in sorted(grants.items()):
        parts += (_PART.pack(module_id, len(compiled)), compiled)
    return b"".join((*parts, _packed_count(len(delegations)), *delegations))


def compile_held(module: str, permissions: Mapping[str, datetime | None]) -> bytes:
    """What a grant of a module holds: the permissions without an end, then those with one."""
    bits = _BITS.get(module, {})
    mask = 0
    timed = []
    for key, until in permissions.items():
        bit = bits.get(key)
        if bit is None:
            continue
        if until is None:
            mask |= 1 << bit
        else:
            timed.append(_TIMED.pack(bit, microseconds(until)))
    return b"".join((_packed_mask(mask), bytes([len(timed)]), *sorted(timed, key=itemgetter(0))))


def _compile_delegation(delegation: Delegation) -> bytes:
    bits = _BITS.get(delegation.module, {})
    everything = delegation.permissions == "*"
    mask = 0 if everything else sum({1 << bits[key] for key in delegation.permissions if key in bits})
    return b"".join(
        [
            bytes([MODULE_IDS[delegation.module], everything, delegation.may_delegate]),
            _INSTANT.pack(_until(delegation.valid_until)),
            _packed_mask(mask),
            compile_scopes(delegation.scopes),
        ]
    )


# Entitlements.


def opens(entitlement: bytes, module_id: int, now: int) -> bool:
    """Whether an entitlement's record is known, the base live and the module entitled, as nearly always."""
    return (
        entitlement[0] == 0
        and entitlement[_HEAD_SIZE] in _LIVE
        and entitlement[_HEAD_SIZE + 2] in _LIVE
        and now < _INSTANT_AT(entitlement, _HEAD_SIZE + 3)[0]
        and now < _INSTANT_AT(entitlement, _MODULES_AT + module_id * 8)[0]
    )


class Entitlement:
    """What a company is entitled to."""

    __slots__ = ("raw",)
    _STATUS: Final = _HEAD.size
    _BASE: Final = _HEAD.size + 1
    _BASE_STATUS: Final = _HEAD.size + 2
    _BASE_UNTIL: Final = _HEAD.size + 3

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @property
    def is_unknown(self) -> bool:
        """Whether nothing can be said: quarantined, or published as unknown."""
        raw = self.raw
        return (
            raw[0] != 0
            or raw[self._STATUS] == _UNKNOWN
            or (raw[self._BASE] != _NO_MODULE and raw[self._BASE_STATUS] == _UNKNOWN)
        )

    def base_is_live(self, now: int) -> bool:
        """Whether company and base are entitled now. A company without a base has a status that is not live."""
        raw = self.raw
        until: int = _INSTANT.unpack_from(raw, self._BASE_UNTIL)[0]
        return raw[self._STATUS] in _LIVE and raw[self._BASE_STATUS] in _LIVE and now < until

    @property
    def version(self) -> tuple[int, int]:
        return version_of(self.raw)

    @property
    def status(self) -> EntitlementStatus:
        return _ENTITLEMENT_STATUSES[self.raw[self._STATUS]]

    @property
    def base(self) -> tuple[str | None, EntitlementStatus, int] | None:
        """The base module, its status and its end; the module is None where this reader does not know it."""
        *_, base, status, until = _ENTITLEMENT.unpack_from(self.raw)
        if base == _NO_MODULE:
            return None
        return None if base == _FOREIGN_MODULE else MODULES[base], _ENTITLEMENT_STATUSES[status], until

    def modules(self) -> dict[str, int]:
        """The end of each module."""
        ends = struct.unpack_from(f"<{len(MODULES)}q", self.raw, _MODULES_AT)
        return {module: end for module, end in zip(MODULES, ends, strict=True) if end != _ABSENT}

    def capabilities(self) -> tuple[str, ...]:
        return tuple(self.raw[_CAPABILITIES_AT:].decode("ascii").split("\0")[1:-1])


def has_capability(entitlement: bytes, marked: bytes) -> bool:
    """Whether the company of a record has a capability, given as `capability_mark` makes it."""
    return entitlement.find(marked, _CAPABILITIES_AT) >= 0


def capability_mark(capability: str) -> bytes:
    """A capability as `has_capability` looks for it."""
    return b"\0" + capability.encode("ascii") + b"\0"


def compile_entitlement(event: EntitlementChanged, epoch: int, version: int) -> bytes:
    """The record of a company. Modules this reader does not know are left out."""
    ends = {module.key: _until(module.valid_until) for module in event.modules}
    if len(ends) != len(event.modules):
        raise AmbiguousEventError("a module is entitled twice")
    base = event.base
    return b"".join(
        [
            _ENTITLEMENT.pack(
                0,
                epoch,
                version,
                _ENTITLEMENT_CODES[event.status],
                _NO_MODULE if base is None else MODULE_IDS.get(base.module, _FOREIGN_MODULE),
                0 if base is None else _ENTITLEMENT_CODES[base.status],
                0 if base is None else _until(base.valid_until),
            ),
            *(_INSTANT.pack(ends.get(module, _ABSENT)) for module in MODULES),
            b"\0",
            *(capability.encode("ascii") + b"\0" for capability in sorted(set(event.capabilities))),
        ]
    )


# Permission rows.


class PermissionTable:
    """The state of a module's permission rows, and what each of its keys requires of a grant."""

    __slots__ = ("_required", "is_unknown", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        rows = {} if _is_bare(raw) else {bit: (status, alias) for bit, status, alias in self._rows()}
        #: Whether nothing can be said of the module: quarantined, or a row published as unknown.
        self.is_unknown = is_quarantined(raw) or any(status == _UNKNOWN for status, _ in rows.values())
        self._required: dict[int, int] = {}
        for bit in rows:
            for reached in _chain(rows, bit):
                if rows[reached][0] == _PERMISSION_CODES[PermissionStatus.ACTIVE]:
                    self._required[reached] = self._required.get(reached, 0) | 1 << bit

    def required(self, bit: int) -> int:
        """The bits of which a grant must hold one: the key's own and those of keys that resolve to it.

        0 where the key is not active, or resolves to one that is not; nobody has it then.
        """
        return self._required.get(bit, 0)

    def states(self) -> dict[int, tuple[PermissionStatus, int | None]]:
        """Status and alias of each row, by bit. An alias this reader does not know is -1."""
        return {
            bit: (_PERMISSION_STATUSES[status], {_NO_ALIAS: None, _FOREIGN_ALIAS: -1}.get(alias, alias))
            for bit, status, alias in self._rows()
        }

    @property
    def version(self) -> tuple[int, int]:
        return version_of(self.raw)

    def _rows(self) -> Iterator[tuple[int, int, int]]:
        return (_PERMISSION.unpack_from(self.raw, at) for at in range(_HEAD.size, len(self.raw), _PERMISSION.size))


def _chain(rows: Mapping[int, tuple[int, int]], bit: int) -> tuple[int, ...]:
    """The rows a row resolves to, itself first; none where the last is not active, or one is removed or not known."""
    reached: list[int] = []
    while bit not in reached and bit in rows:
        status, alias = rows[bit]
        if status == _PERMISSION_CODES[PermissionStatus.REMOVED]:
            return ()
        reached.append(bit)
        if alias == _NO_ALIAS:
            return tuple(reached) if status == _PERMISSION_CODES[PermissionStatus.ACTIVE] else ()
        bit = alias
    return ()


def compile_permissions(event: PermissionsChanged, epoch: int, version: int) -> bytes:
    """The record of a module's permission rows. Rows this reader does not know are left out."""
    known = PERMISSIONS.get(event.module, {})
    if len({row.key for row in event.permissions}) != len(event.permissions):
        raise AmbiguousEventError("a permission stands there twice")
    rows = []
    for row in event.permissions:
        if row.key not in known:
            continue
        alias = _NO_ALIAS
        if row.alias_of is not None:
            alias = known[row.alias_of].bit if row.alias_of in known else _FOREIGN_ALIAS
        rows.append(_PERMISSION.pack(known[row.key].bit, _PERMISSION_CODES[row.status], alias))
    return _HEAD.pack(0, epoch, version) + b"".join(sorted(rows))


# Signing keys and sessions.


@dataclass(frozen=True, slots=True)
class SigningKeyRecord:
    """A public key for access tokens, whose signature by the root key was verified when it arrived."""

    epoch: int
    version: int
    #: None in quarantine, or published as unknown.
    status: SigningKeyStatus | None
    not_before: int
    not_after: int
    public_key: bytes

    def verifies(self, now: int) -> bool:
        """Whether tokens signed with it are to be believed now."""
        return self.status in _BELIEVED and self.not_before <= now < self.not_after


def compile_signing_key(event: SigningKeyChanged, epoch: int, version: int) -> bytes:
    """The record of a signing key. Its signature must have been verified."""
    return _SIGNING_KEY.pack(
        0,
        epoch,
        version,
        _KEY_CODES[event.status],
        microseconds(event.not_before),
        microseconds(event.not_after),
        raw_base64url(event.public_key),
    )


def raw_base64url(text: str) -> bytes:
    """The bytes of base64url without padding. Raises AmbiguousEventError where they have another form too."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise AmbiguousEventError("not base64url") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise AmbiguousEventError("base64url with bits that do not count")
    return raw


def signing_key_of(raw: bytes) -> SigningKeyRecord:
    if _is_bare(raw):
        return SigningKeyRecord(*version_of(raw), None, 0, 0, b"")
    flags, epoch, version, code, not_before, not_after, public_key = _SIGNING_KEY.unpack(raw)
    status = None if flags or code == _UNKNOWN else _KEY_STATUSES[code]
    return SigningKeyRecord(epoch, version, status, not_before, not_after, public_key)


@dataclass(frozen=True, slots=True)
class SessionsRecord:
    """Which of a person's tokens are void."""

    epoch: int
    version: int
    is_unknown: bool
    min_gen: int
    #: The end of each revoked session's last token, by session id.
    revoked: Mapping[UUID, int]

    def is_live(self, session_id: UUID, generation: int) -> bool:
        return generation >= self.min_gen and session_id not in self.revoked


def compile_sessions(event: SessionsChanged, epoch: int, version: int) -> bytes:
    """The record of a person's sessions."""
    revoked = sorted((each.sid.bytes, microseconds(each.until)) for each in event.revoked)
    return _SESSIONS.pack(0, epoch, version, event.min_gen, len(revoked)) + b"".join(
        _SESSION.pack(*each) for each in revoked
    )


def sessions_of(raw: bytes) -> SessionsRecord:
    if _is_bare(raw):
        return SessionsRecord(*version_of(raw), is_unknown=True, min_gen=0, revoked={})
    flags, epoch, version, min_gen, count = _SESSIONS.unpack_from(raw)
    entries = (_SESSION.unpack_from(raw, _SESSIONS.size + number * _SESSION.size) for number in range(count))
    return SessionsRecord(epoch, version, bool(flags), min_gen, {UUID(bytes=sid): until for sid, until in entries})


def subject_of(key: bytes) -> tuple[str, str]:
    """What a key is about, for people: the kind of the record, and its subject as topics have it."""
    prefix = key[:1]
    match prefix:
        case b"e" | b"s":
            subject = str(UUID(bytes=key[1:]))
        case b"m":
            subject = "{}/{}".format(*subject_of_membership(key))
        case _:
            subject = key[1:].decode()
    return RECORD_KINDS[prefix], subject


def subject_of_membership(key: bytes) -> tuple[CompanyId, UserId]:
    """The company and person of a membership's key."""
    return CompanyId(UUID(bytes=key[1:17])), UserId(UUID(bytes=key[17:33]))
