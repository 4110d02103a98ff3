"""What a cache holds, in a form the sources can be compared with (design §7, `kisum cache verify`).

A document says what one subject's record says. Its digest is the SHA-256 of its JSON: UTF-8, names sorted, no spaces.
The digest of a generation is the SHA-256 of the lines "kind key digest", sorted, each with a line feed. Separate code
makes the same documents from database rows. Its rules:

- `entitlement`, key company: epoch, version, status, base {module, status, valid_until} or null,
  modules {key: valid_until}, capabilities (sorted)
- `membership`, key company/user: epoch, version, status, superadmin, modules {key: {permissions {key: valid_until},
  scopes}} and delegations, both of the kept modules only
- `permissions`, key module: epoch, version, rows {key: [status, alias_of]}, alias_of null for none and "?" for a key
  that is in no catalog
- `signing_key`, key kid: epoch, version, status, public_key in hex, not_before, not_after
- `sessions`, key user: epoch, version, min_gen, revoked {session: until}

Keys that are in no catalog are left out, and so are scope types without a value. Scopes are "*" or the sorted ids.
Times are microseconds since 1970, null for no end. Delegations are sorted by their JSON, their permissions "*" or
sorted.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from access.cache import Cache
from access.records import (
    NEVER,
    Entitlement,
    Membership,
    PermissionTable,
    Scope,
    is_quarantined,
    sessions_of,
    signing_key_of,
    subject_of,
    version_of,
)
from contracts.permissions import PERMISSIONS

Document = Mapping[str, Any]

#: What stands for a permission key that is in no catalog. It is not the same as none: nobody has what resolves to it.
FOREIGN: Final = "?"

_KEYS: Final[Mapping[str, Mapping[int, str]]] = {
    module: {row.bit: row.key for row in rows.values()} for module, rows in PERMISSIONS.items()
}


def documents(cache: Cache, generation: int | None = None) -> Iterator[tuple[str, str, Document]]:
    """Kind, key and document of every subject of a generation, the active one by default.

    A subject in quarantine has a document that no source has.
    """
    for key, record in cache.records(generation):
        yield (*subject_of(key), document_of(key, record))


def document_of(key: bytes, record: bytes) -> Document:
    """The document of one record."""
    kind, subject = subject_of(key)
    return {"quarantined": version_of(record)} if is_quarantined(record) else _DOCUMENTS[kind](subject, record)


def digest_of(document: Document) -> str:
    """The digest of one document, in hex."""
    return hashlib.sha256(_json(document).encode()).hexdigest()


def digests(cache: Cache, generation: int | None = None) -> dict[tuple[str, str], str]:
    """The digest of every subject, by kind and key."""
    return {(kind, key): digest_of(document) for kind, key, document in documents(cache, generation)}


def combined(found: Mapping[tuple[str, str], str]) -> str:
    """One digest of many, in hex."""
    lines = sorted(f"{kind} {key} {digest}\n" for (kind, key), digest in found.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _until(value: int) -> int | None:
    return None if value == NEVER else value


def _scopes(scopes: Mapping[str, Scope]) -> dict[str, Any]:
    return {name: value if value == "*" else sorted(value) for name, value in scopes.items()}


def _key_names(module: str, mask: int) -> list[str]:
    return sorted(key for bit, key in _KEYS.get(module, {}).items() if mask >> bit & 1)


def _entitlement(_: str, raw: bytes) -> Document:
    record = Entitlement(raw)
    epoch, version = record.version
    base = record.base
    return {
        "epoch": epoch,
        "version": version,
        "status": record.status.value,
        "base": None if base is None else {"module": base[0], "status": base[1].value, "valid_until": _until(base[2])},
        "modules": {module: _until(end) for module, end in record.modules().items()},
        "capabilities": list(record.capabilities()),
    }


def _membership(_: str, raw: bytes) -> Document:
    record = Membership(raw)
    epoch, version = record.version
    modules = {}
    for module, grant in record.modules():
        permissions: dict[str, int | None] = dict.fromkeys(_key_names(module, grant.mask))
        permissions |= {_KEYS[module][bit]: until for bit, until in grant.timed().items()}
        modules[module] = {"permissions": permissions, "scopes": _scopes(grant.scopes())}
    delegations = [
        {
            "module": each.module,
            "permissions": "*" if each.mask is None else _key_names(each.module, each.mask),
            "scopes": _scopes(each.scopes),
            "may_delegate": each.may_delegate,
            "valid_until": _until(each.valid_until),
        }
        for each in record.delegations()
    ]
    return {
        "epoch": epoch,
        "version": version,
        "status": record.status.value,
        "superadmin": record.superadmin,
        "modules": modules,
        "delegations": sorted(delegations, key=_json),
    }


def _permissions(module: str, raw: bytes) -> Document:
    table = PermissionTable(raw)
    epoch, version = table.version
    keys = _KEYS.get(module, {})
    rows = {
        keys[bit]: [status.value, None if alias is None else keys.get(alias, FOREIGN)]
        for bit, (status, alias) in table.states().items()
    }
    return {"epoch": epoch, "version": version, "rows": rows}


def _signing_key(_: str, raw: bytes) -> Document:
    record = signing_key_of(raw)
    return {
        "epoch": record.epoch,
        "version": record.version,
        "status": "unknown" if record.status is None else record.status.value,
        "public_key": record.public_key.hex(),
        "not_before": record.not_before,
        "not_after": record.not_after,
    }


def _sessions(_: str, raw: bytes) -> Document:
    record = sessions_of(raw)
    return {
        "epoch": record.epoch,
        "version": record.version,
        "min_gen": record.min_gen,
        "revoked": {str(sid): until for sid, until in record.revoked.items()},
    }


_DOCUMENTS: Final = {
    "entitlement": _entitlement,
    "membership": _membership,
    "permissions": _permissions,
    "signing_key": _signing_key,
    "sessions": _sessions,
}
