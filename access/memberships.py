"""The short way of a membership from its record to the cache: no models are made of it.

A log is nearly all memberships, each in the one form `contracts.envelope.encode` writes, and what people hold repeats
between those who share a role. So the form is taken apart by expressions, and what a grant holds is validated and
compiled once for all records that have the same bytes there.

Only the long way (`decode`, then `compile_membership`) refuses, and what is compiled here it compiles to the same.
"""

import re
from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from access.cache import Upsert
from access.records import MODULE_IDS, UUID_PATTERN, Scope, compile_held, compile_scopes, packed_membership
from contracts.envelope import VALUE_SIZE_MAX_BYTES
from contracts.events.auth import GrantChanged, MembershipStatus, ModuleGrant
from contracts.payload import EPOCH_MAX, OPAQUE_ID_PATTERN, SLUG_PATTERN, VERSION_MAX

#: A company has some tens of roles, each with some modules. It is 16 MB at most, some 3 MB as a rule.
_HELD_REMEMBERED: Final = 4096
_HELD_MAX_BYTES: Final = 4096

#: Delegations go the long way: few people have any.
_EVENT: Final = re.compile(
    (
        '{"event_id":"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"'
        f',"type":"{re.escape(GrantChanged.event_type)}"'
        r',"occurred_at":"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?Z)"'
        f',"company_id":"(?P<company>{UUID_PATTERN})"'
        f',"actor_user_id":(?:null|"{UUID_PATTERN}")'
        f',"aggregate_id":"((?P=company)/(?P<user>{UUID_PATTERN}))"'
        ',"epoch":([1-9][0-9]{0,6}),"version":([1-9][0-9]{0,12})'
        f',"correlation_id":"{UUID_PATTERN}"'
        f',"causation_id":(?:null|"{UUID_PATTERN}")'
        ',"data":{"user_id":"(?P=user)","status":"([a-z]+)","superadmin":(true|false)'
        r',"modules":\[(?:(.*)}})?\],"delegations":\[\]}}'
    ).encode()
)
_SCOPE_ID: Final = f'"{OPAQUE_ID_PATTERN[1:-1]}"'
_SCOPE: Final = re.compile(rf'"({SLUG_PATTERN[1:-1]})":(?:"\*"|\[({_SCOPE_ID}(?:,{_SCOPE_ID})*|)\])(?:,(?=")|\Z)')
_STATUSES: Final = {status.value.encode(): status for status in MembershipStatus}


class _OtherFormError(ValueError):
    pass


def membership_of(record_key: bytes, value: bytes, modules: Collection[str]) -> Upsert | None:
    """The state of a membership with what it says of these modules. None is no verdict."""
    try:
        return _membership_of(record_key, value, modules)
    except ValueError:
        return None


def _membership_of(record_key: bytes, value: bytes, modules: Collection[str]) -> Upsert:
    found = _EVENT.fullmatch(value) if len(value) <= VALUE_SIZE_MAX_BYTES else None
    if found is None:
        raise _OtherFormError
    event_id, occurred_at, _, aggregate_id, _, epoch_text, version_text, status, superadmin, grants = found.groups()
    epoch, version = int(epoch_text), int(version_text)
    if aggregate_id != record_key or epoch > EPOCH_MAX or version > VERSION_MAX or status not in _STATUSES:
        raise _OtherFormError
    # The expression knows no calendar, and some Pythons know a 24th hour.
    datetime.fromisoformat(occurred_at.decode())
    return Upsert(
        b"m" + bytes.fromhex(aggregate_id.translate(None, b"-/").decode()),
        epoch,
        version,
        packed_membership(
            epoch,
            version,
            _STATUSES[status],
            superadmin=superadmin == b"true",
            grants={} if grants is None else _compiled(grants, modules),
            delegations=(),
        ),
        UUID(int=int(event_id.translate(None, b"-"), 16)),
    )


def _compiled(grants: bytes, modules: Collection[str]) -> dict[int, bytes]:
    """What the grants give of these modules, by the module's number. Raises ValueError."""
    compiled: dict[int, bytes] = {}
    # The pieces on either side of what is split at are whole once they are closed again, which is how they are read.
    for grant in grants.split(b"}},"):
        permissions, separator, scopes = grant.partition(b'},"scopes":{')
        if not separator or len(permissions) > _HELD_MAX_BYTES:
            raise _OtherFormError
        module, held = _held(permissions)
        bounds = _scopes(scopes.decode())
        if module in modules and module in MODULE_IDS:
            if MODULE_IDS[module] in compiled:
                raise _OtherFormError
            compiled[MODULE_IDS[module]] = held + compile_scopes(bounds)
    return compiled


@lru_cache(maxsize=_HELD_REMEMBERED)
def _held(opened: bytes) -> tuple[str, bytes]:
    """The module of a grant, and what it holds of it, from what stands before its scopes. Raises ValueError."""
    written = opened + b'},"scopes":{}}'
    grant = ModuleGrant.model_validate_json(written)
    # What is written the same again repeats no key.
    if grant.model_dump_json().encode() != written:
        raise _OtherFormError
    return grant.key, compile_held(grant.key, grant.permissions)


def _scopes(written: str) -> dict[str, Scope]:
    """The scopes between their braces. Raises ValueError."""
    scopes: dict[str, Scope] = {}
    position = 0
    while position < len(written):
        found = _SCOPE.match(written, position)
        if found is None or found[1] in scopes:
            raise _OtherFormError
        name, ids = found.groups()
        scopes[name] = "*" if ids is None else tuple(ids[1:-1].split('","')) if ids else ()
        position = found.end()
    return scopes
