"""Others who answer in this process whether somebody may do something, asked the same questions.

pycasbin has the sets of its own RBAC benchmarks: of n people ten share a role, of n/10 roles ten share an object, so
that 1,000 people are 1,100 rules. Everybody may read the object of their role and nobody that of another, which is what
its benchmarks ask for.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import casbin
import cedarpy

from benchmarks.reference import MISSING_PERMISSION, MODULE, PEOPLE_PER_COMPANY, PERMISSION, membership, person

_MODEL: Final = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""
_PEOPLE_PER_ROLE: Final = 10
_ROLES_PER_OBJECT: Final = 10
#: What narrows FastEnforcer's search: the object and the action of a request.
_CACHE_KEY_ORDER: Final = (1, 2)
#: A permission's policy asks what the layers of a decision ask.
_POLICY: Final = """
permit (principal, action == Action::"%s", resource)
when {
    principal.status == "active" && resource.base == "active" && resource.modules.contains("%s") &&
    principal.modules.contains("%s") && principal.permissions.contains("%s")
};
"""


@dataclass(frozen=True)
class Contender:
    """Who answers questions about so many people.

    :param question: what to ask of a person, by number, for something that they may do, or may not.
    :param ask: answers it; what is measured.
    """

    people: int
    question: Callable[[int, bool], tuple[Any, ...]]
    ask: Callable[..., object]


def pycasbin(people: int, *, fast: bool) -> Contender:
    """An enforcer of so many people and a tenth as many permissions."""
    roles = people // _PEOPLE_PER_ROLE
    rules = [f"p, role{role}, data{role // _ROLES_PER_OBJECT}, read" for role in range(roles)]
    rules += [f"g, user{each}, role{each // _PEOPLE_PER_ROLE}" for each in range(people)]
    with tempfile.TemporaryDirectory() as folder:
        model, policy = Path(folder) / "model.conf", Path(folder) / "policy.csv"
        model.write_text(_MODEL, "ascii")
        policy.write_text("\n".join(rules), "ascii")
        if fast:
            enforcer = casbin.FastEnforcer(str(model), str(policy), cache_key_order=_CACHE_KEY_ORDER)
        else:
            enforcer = casbin.Enforcer(str(model), str(policy))

    def question(number: int, is_held: bool) -> tuple[str, str, str]:  # noqa: FBT001  as every contender is asked
        other = 0 if is_held else people // 2
        own = (number + other) % people // (_PEOPLE_PER_ROLE * _ROLES_PER_OBJECT)
        return f"user{number}", f"data{own}", "read"

    return Contender(people, question, enforcer.enforce)


def cedar(people: int, *, parsed_policies: bool) -> Contender:
    """With entities that were parsed before; its policies are parsed before too, or with each question."""
    documents = []
    for number in range(people):
        company_id, user_id = person(number, people)
        state = membership(user_id, business_unit="unit", show="show")
        documents.append(
            {
                "uid": {"type": "User", "id": str(user_id)},
                "attrs": {
                    "status": state.status.value,
                    "modules": [each.key for each in state.modules],
                    "permissions": [key for each in state.modules for key in each.permissions],
                },
                "parents": [],
            }
        )
        if number < people // PEOPLE_PER_COMPANY:
            documents.append(
                {
                    "uid": {"type": "Company", "id": str(company_id)},
                    "attrs": {"base": "active", "modules": ["venue", MODULE]},
                    "parents": [],
                }
            )
    text = "".join(_POLICY % (key, MODULE, MODULE, key) for key in (PERMISSION, MISSING_PERMISSION))
    policies = cedarpy.PolicySet.from_str(text) if parsed_policies else text
    entities = cedarpy.Entities.from_json_str(json.dumps(documents))

    def question(number: int, is_held: bool) -> tuple[dict[str, Any]]:  # noqa: FBT001  the same
        company_id, user_id = person(number, people)
        return (
            {
                "principal": {"type": "User", "id": str(user_id)},
                "action": {"type": "Action", "id": PERMISSION if is_held else MISSING_PERMISSION},
                "resource": {"type": "Company", "id": str(company_id)},
            },
        )

    def ask(request: dict[str, Any]) -> bool:
        return bool(cedarpy.is_authorized(request, policies, entities).allowed)

    return Contender(people, question, ask)
