"""Records nobody must act on, made from ones that are valid."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from access.ingest import COMPANIES, MEMBERSHIPS, PERMISSIONS, SESSIONS, SIGNING_KEYS
from contracts.identifiers import new_id
from contracts.payload import EPOCH_MAX, VERSION_MAX

_CUTS: Final = 40
_ANOTHER_TYPE: Final = {"unexpected": 1}
_NUMBERS: Final[tuple[Any, ...]] = (0, -1, -(2**63), 2**63, 2**64, 10**30, 1.5, 1e300, "1", True, None, [1])
#: What Python's json writes and reads, and JSON does not know.
_CONSTANTS: Final = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000)
_MARK: Final = "a name that stands nowhere else"
_KEYS: Final[Mapping[str, Callable[[bytes], tuple[bytes, ...]]]] = {
    MEMBERSHIPS: lambda key: (
        key.upper(),
        key + b"/",
        key + b"\0",
        key[:-1],
        key.split(b"/")[0],
        b"/".join([key, key]),
    ),
    COMPANIES: lambda key: (key.upper(), key + b"/", key[:-1], b"{" + key + b"}", key.replace(b"-", b"")),
    SESSIONS: lambda key: (key.upper(), key + b" ", key[:-1], b"urn:uuid:" + key, key.replace(b"-", b"")),
    PERMISSIONS: lambda key: (key.upper(), b"-" + key, key + b".", key * 20, b"1"),
    SIGNING_KEYS: lambda key: (key * 121, b"\xc3\xbc", b"\x80", key * 200_000, b"\xff" + key),
}


@dataclass(frozen=True)
class HostileRecord:
    """A record on a state topic. `names_its_subject` is whether its key does."""

    kind: str
    topic: str
    key: bytes | None
    value: bytes | None
    names_its_subject: bool = True


def hostile_records(topic: str, key: bytes, value: bytes) -> Iterator[HostileRecord]:
    """Every kind, from a valid record of one of the five topics."""
    for kind, changed in _values(json.loads(value), value):
        yield HostileRecord(f"{topic}: {kind}", topic, key, changed)
    for number, changed_key in enumerate((None, b"", b"\xff\xfe", b"\0" * 36, *_KEYS[topic](key))):
        yield HostileRecord(f"{topic}: key {number}", topic, changed_key, value, names_its_subject=False)
        yield HostileRecord(f"{topic}: key {number}, no JSON", topic, changed_key, b"{", names_its_subject=False)


def _values(document: dict[str, Any], value: bytes) -> Iterator[tuple[str, bytes | None]]:
    yield "a tombstone", None
    yield from _no_json(value)
    yield from _other_nodes(document)
    yield from _other_fields(document)


def _no_json(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Bytes, and JSON that readers differ about."""
    for number in range(_CUTS):
        cut = len(value) * number // _CUTS
        yield f"cut off at {cut}", value[:cut]
        yield f"no UTF-8 at {cut}", value[:cut] + b"\xff" + value[cut:]
    yield "twice", value + value
    yield "a list of it", b"[" + value + b"]"
    yield "huge", value[:-1] + b',"padding":"' + b"x" * 300_000 + b'"}'
    for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
        for depth in (900, 5_000, 40_000):
            yield f"{depth} deep", value[:-1] + b',"deep":' + opened * depth + b"1" + closed * depth + b"}"
    for constant in _CONSTANTS:
        yield f"{constant[:20]} where nobody looks", value[:-1] + b',"extra":' + constant.encode() + b"}"
        yield f"{constant[:20]} deep inside", value[:-1] + b',"extra":[{"a":' + constant.encode() + b"}]}"


def _other_nodes(document: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Every part of it as something else."""
    for path, node in _nodes(document, ()):
        where = "/".join(map(str, path))
        yield f"another type at {where}", _with(document, path, "x" if isinstance(node, dict | list) else _ANOTHER_TYPE)
        if isinstance(node, dict) and node:
            yield f"a key twice at {where}", _doubled(document, path, node)
        if path and path[-1] == "status":
            yield f"a status of the future at {where}", _with(document, path, "hibernating")
            yield f"a status in capitals at {where}", _with(document, path, str(node).upper())


def _other_fields(document: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The envelope without a field, or with one that cannot be."""
    for name in document:
        yield f"without {name}", json.dumps({key: each for key, each in document.items() if key != name}).encode()
    for name, values in _unlike(document).items():
        for value in values:
            yield f"{name} {str(value)[:30]!r}", json.dumps(document | {name: value}).encode()


def _unlike(document: Mapping[str, Any]) -> Mapping[str, tuple[Any, ...]]:
    fact = document["type"].rpartition(".")[0]
    ids = ("", "1", "0" * 36, "urn:uuid:0", "../" * 10)
    return {
        "epoch": (*_NUMBERS, EPOCH_MAX + 1, 2**63 - 1),
        "version": (*_NUMBERS, VERSION_MAX + 1, 2**63 - 1),
        "type": (
            *(f"{fact}{ending}" for ending in (".v2", ".v9999", ".v0", ".v01", "", ".v1 ", ".v1\n")),
            *("auth.heartbeat-sent.v1", "checkout.purchase-made.v1", "", "../../etc", "x" * 100_000),
        ),
        "aggregate_id": (*ids, str(new_id())),
        "event_id": ids,
        "company_id": ids,
        "correlation_id": ids[:4:2],
        "occurred_at": ("", "yesterday", "2026-01-01T00:00:00", "2026-01-01T00:00:00+02:00", "9" * 30),
    }


def _nodes(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from _nodes(child, (*path, name))


def _with(document: dict[str, Any], path: tuple[str | int, ...], other: Any) -> bytes:
    if not path:
        return json.dumps(other).encode()
    copy = json.loads(json.dumps(document))
    node = copy
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = other
    return json.dumps(copy).encode()


def _doubled(document: dict[str, Any], path: tuple[str | int, ...], node: Mapping[str, Any]) -> bytes:
    """With the first name of an object written twice."""
    name, first = next(iter(node.items()))
    doubled = _with(document, path, {**node, _MARK: first})
    return doubled.replace(json.dumps(_MARK).encode(), json.dumps(name).encode())
