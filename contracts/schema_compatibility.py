"""Whether a newer JSON Schema of an event still reads what the older one allowed (design §3).

Refused: a field that is gone or has another name, a field that takes less than before, a field that must now be there.
A keyword this module does not know may go, but neither come nor change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Schema = Mapping[str, Any]

#: Words for people: they may change.
_ANNOTATIONS: Final = frozenset({"title", "description", "default", "examples", "$defs", "deprecated"})
#: A floor may sink or go, a ceiling may rise or go.
_FLOORS: Final = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_CEILINGS: Final = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
#: Lists of values of which none may go.
_VALUES: Final = frozenset({"enum", "x-known-values"})
_STRUCTURE: Final = frozenset(
    {"type", "properties", "required", "items", "additionalProperties", "patternProperties", "propertyNames", "const"}
)


@dataclass(frozen=True)
class Break:
    """One thing an older record or reader would stumble over. `path` is a JSON pointer into the event."""

    kind: Literal["removed", "narrowed", "required"]
    path: str
    detail: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.path or '/'} {self.kind}: {self.detail}"


def breaks_between(old: Schema, new: Schema) -> list[Break]:
    """Every break between two versions of one event's schema; empty where the newer may replace the older."""
    return list(_Comparison(old, new).breaks(old, new, ""))


class _Comparison:
    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._old_root = old_root
        self._new_root = new_root

    def breaks(self, old: Schema, new: Schema, path: str) -> Iterable[Break]:
        """Breaks at this place and below it."""
        old, new = _resolved(old, self._old_root), _resolved(new, self._new_root)
        if "anyOf" in old or "anyOf" in new:
            yield from self._breaks_of_union(old, new, path)
            return
        if not _types(old) <= _types(new):
            yield Break("narrowed", path, f"took {_listed(_types(old))}, takes {_listed(_types(new))}")
            return
        yield from _breaks_of_values(old, new, path)
        yield from _breaks_of_limits(old, new, path)
        yield from self._breaks_of_fields(old, new, path)
        yield from self._breaks_of_members(old, new, path)

    def _breaks_of_union(self, old: Schema, new: Schema, path: str) -> Iterable[Break]:
        """Each alternative must be taken by a newer one; the closest says what is wrong."""
        alternatives = new.get("anyOf", [new])
        for alternative in old.get("anyOf", [old]):
            attempts = [list(self.breaks(alternative, other, path)) for other in alternatives]
            if all(attempts):
                yield from min(attempts, key=lambda attempt: (attempt[0].path == path, len(attempt)))

    def _breaks_of_fields(self, old: Schema, new: Schema, path: str) -> Iterable[Break]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name in before:
            if name in after:
                yield from self.breaks(before[name], after[name], f"{path}/{name}")
            else:
                yield Break("removed", f"{path}/{name}", "the field is gone or has another name")
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield Break("required", f"{path}/{name}", "older records may lack the field")

    def _breaks_of_members(self, old: Schema, new: Schema, path: str) -> Iterable[Break]:
        """Members of lists and of maps."""
        for keyword, member in (("items", "*"), ("additionalProperties", "*"), ("propertyNames", "~names")):
            before, after = old.get(keyword, True), new.get(keyword, True)
            if before is False or after is True:
                continue
            # What took anything before takes less as soon as anything is asked of it.
            if before is True or after is False:
                yield Break("narrowed", f"{path}/{member}", f"{keyword} was {before}, is {after}")
            else:
                yield from self.breaks(before, after, f"{path}/{member}")
        before, after = old.get("patternProperties", {}), new.get("patternProperties", {})
        for pattern in sorted(set(before) | set(after)):
            if pattern not in before or pattern not in after:
                yield Break("narrowed", f"{path}/*", f"names are matched by {pattern} in one version only")
            else:
                yield from self.breaks(before[pattern], after[pattern], f"{path}/*")


def _breaks_of_values(old: Schema, new: Schema, path: str) -> Iterable[Break]:
    before = {**old, **({"enum": [old["const"]]} if "const" in old else {})}
    after = {**new, **({"enum": [new["const"]]} if "const" in new else {})}
    for keyword in sorted(_VALUES):
        if keyword in after and keyword not in before:
            yield Break("narrowed", path, f"took any value, takes {after[keyword]}")
        elif keyword in after and (gone := [value for value in before[keyword] if value not in after[keyword]]):
            yield Break("narrowed", path, f"no longer takes {gone}")


def _breaks_of_limits(old: Schema, new: Schema, path: str) -> Iterable[Break]:
    for keyword in sorted((set(old) | set(new)) - _ANNOTATIONS - _VALUES - _STRUCTURE):
        before, after = old.get(keyword), new.get(keyword)
        if before == after or after is None:
            continue
        if before is not None and keyword in _FLOORS and after < before:
            continue
        if before is not None and keyword in _CEILINGS and after > before:
            continue
        yield Break("narrowed", path, f"{keyword} was {before}, is {after}")


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        target: Schema = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = {**target, **beside}
    return schema


def _types(schema: Schema) -> frozenset[str]:
    """The JSON types it takes; all where it does not say."""
    said = schema.get("type", ["null", "boolean", "integer", "number", "string", "array", "object"])
    types = {said} if isinstance(said, str) else set(said)
    return frozenset(types | {"integer"} if "number" in types else types)


def _listed(types: frozenset[str]) -> str:
    return " or ".join(sorted(types))
