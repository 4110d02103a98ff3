"""A company whose people are given rights and lose them: what they may hold, what is asked, and what is the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from cli.demo.story import MODULE

READ: Final = "finance.expenses.read"
ADD: Final = "finance.expenses.write"
_EVERY_UNIT: Final = "*"
_UNIT: Final = "business_unit"
_EVENT: Final = "event"


@dataclass(frozen=True)
class Standing:
    """What a person is and holds in the company, as far as the questions go."""

    status: str = "active"
    has_module: bool = False
    permissions: frozenset[str] = frozenset()
    #: The business units whose expenses they may see; `*` is all.
    units: frozenset[str] = frozenset()


REMOVED: Final = Standing("removed")
FULL: Final = Standing("active", has_module=True, permissions=frozenset({READ, ADD}), units=frozenset({_EVERY_UNIT}))


@dataclass(frozen=True)
class Question:
    """A request to Finance. `passed` is the status of one that was let through."""

    name: str
    method: str
    path: str
    permission: str
    passed: int
    #: The business unit of the expense that is asked for.
    unit: str | None = None

    def __str__(self) -> str:
        """Its name."""
        return self.name


def questions(expenses: Mapping[str, str]) -> tuple[Question, ...]:
    """All that is asked; `expenses` are an expense's id by its business unit.

    The first two are refused for what they ask once they are let through, so that they cost no rows.
    """
    return (
        Question("list", "GET", "/expenses?limit=0", READ, passed=422),
        Question("add", "POST", "/expenses", ADD, passed=422),
        *(
            Question(f"expense-{number}", "GET", f"/expenses/{expense}", READ, passed=200, unit=unit)
            for number, (unit, expense) in enumerate(expenses.items())
        ),
    )


def allows(standing: Standing, question: Question) -> bool:
    """Whether a person of this standing may."""
    return (
        standing.status == "active"
        and standing.has_module
        and question.permission in standing.permissions
        and (question.unit is None or bool(standing.units & {question.unit, _EVERY_UNIT}))
    )


@dataclass(frozen=True)
class Change:
    """A request to Auth that makes one standing of another. `person` in the path stands for the person's id."""

    after: Standing
    method: str
    path: str
    body: Mapping[str, Any] | None


def set_module(before: Standing) -> Change:
    """Give the module, with nothing in it yet."""
    after = replace(before, has_module=True, permissions=frozenset(), units=frozenset())
    return Change(after, "PUT", "/memberships/{person}/modules", {"modules": [MODULE]})


def set_permissions(before: Standing, permissions: frozenset[str]) -> Change:
    """Replace the permissions."""
    body = {"module": MODULE, "permissions": dict.fromkeys(sorted(permissions))}
    return Change(replace(before, permissions=permissions), "PUT", "/memberships/{person}/permissions", body)


def set_units(before: Standing, units: frozenset[str]) -> Change:
    """Replace the business units."""
    scope = _EVERY_UNIT if _EVERY_UNIT in units else sorted(units)
    body = {"module": MODULE, "scopes": {_UNIT: scope, _EVENT: "*"}}
    return Change(replace(before, units=units), "PUT", "/memberships/{person}/scopes", body)


def set_status(before: Standing, status: str) -> Change:
    """Suspend or reinstate."""
    return Change(replace(before, status=status), "PATCH", "/memberships/{person}", {"status": status})


def remove() -> Change:
    """Remove the person from the company, with all they hold."""
    return Change(REMOVED, "DELETE", "/memberships/{person}", None)


def add(person: str) -> Change:
    """Make the person a member, with nothing granted."""
    return Change(Standing(), "POST", "/memberships", {"user_id": person})


def draw_change(random: Random, before: Standing, person: str, units: tuple[str, ...]) -> Change:
    """What may be done to a person next: always something else than what is."""
    if before.status != "active" or not before.permissions or not before.units:
        return way_to_full(before, person)[0]
    chance = random.random()
    if chance < 0.08:
        return remove()
    if chance < 0.2:
        return set_status(before, "suspended")
    if chance < 0.4:
        choices = [frozenset({_EVERY_UNIT}), *(frozenset({unit}) for unit in units)]
        return set_units(before, random.choice([each for each in choices if each != before.units]))
    choices = [frozenset(), frozenset({READ}), frozenset({ADD}), frozenset({READ, ADD})]
    return set_permissions(before, random.choice([each for each in choices if each != before.permissions]))


def way_to_full(before: Standing, person: str) -> list[Change]:
    """The changes after which a person holds all there is."""
    changes = []
    while before != FULL:
        if before.status == "removed":
            change = add(person)
        elif before.status == "suspended":
            change = set_status(before, "active")
        elif not before.has_module:
            change = set_module(before)
        elif before.units != FULL.units:
            change = set_units(before, FULL.units)
        else:
            change = set_permissions(before, FULL.permissions)
        changes.append(change)
        before = change.after
    return changes


def standing_of(body: Mapping[str, Any]) -> Standing:
    """The standing Auth tells of a member."""
    grant = next((each for each in body["modules"] if each["key"] == MODULE), None)
    if grant is None:
        return Standing(body["status"])
    scope = grant["scopes"].get(_UNIT, [])
    units = frozenset({_EVERY_UNIT}) if scope == _EVERY_UNIT else frozenset(scope)
    return Standing(body["status"], has_module=True, permissions=frozenset(grant["permissions"]), units=units)
