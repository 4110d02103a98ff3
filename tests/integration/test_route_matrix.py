"""Every route of every module, from its route table: with each layer missing and for another company's objects.

A new service, resource or route is in it without being named; a resource only says in `EXAMPLES` what a body that makes
one looks like.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from chassis.service import Service
from cli.registry import load, service_names
from contracts.events.auth import GrantChanged, MembershipStatus
from contracts.events.entitlements import EntitlementChanged, EntitlementStatus
from contracts.identifiers import CompanyId, new_id
from contracts.services import BASE_MODULES
from middleware.guards import NoScope, Permission, ScopeSource, guard_of
from tests.harness.access import catalog, entitled, grant
from tests.harness.modules import all_permissions
from tests.harness.runtime import Runtime
from tests.integration.entitlements.calling import CalledService, Person, called_service

SERVICES: Final[Mapping[str, Service[Any]]] = {
    name: service for name, service in load(service_names()).items() if service.manifest.kind != "system"
}
_NUMBERS: Final = itertools.count(1)
#: For each collection something is made in, a body that makes one; made anew where no two may be alike.
EXAMPLES: Final[Mapping[str, Mapping[str, Any] | Callable[[], Mapping[str, Any]]]] = {
    "/api/finance/expenses": {
        "description": "Stage",
        "amount": "1200.50",
        "currency": "USD",
        "incurred_on": "2026-05-21",
    },
    "/api/finance/bills": {
        "description": "Sound",
        "amount": "1000",
        "currency": "USD",
        "billed_on": "2026-05-01",
        "due_on": "2026-06-01",
    },
    "/api/finance/income": {
        "kind": "tickets",
        "description": "Presale",
        "amount": "5000",
        "currency": "USD",
        "received_on": "2026-05-20",
    },
    "/api/finance/categories": lambda: {"name": f"Category {next(_NUMBERS)}"},
    "/api/finance/periods": lambda: {"month": f"{2000 + next(_NUMBERS)}-05"},
    "/api/finance/rates": {"day": "2026-05-21", "base": "EUR", "source": "ECB", "rates": {"USD": "1.0823"}},
    "/api/promoter/events": {"title": "Northern Lights"},
    "/api/promoter/artists": {"stage_name": "The Night Ferries"},
}
#: Collections in which each thing has its place, and is put there.
PUT_INTO: Final = frozenset({"/api/finance/rates"})
#: What else a route has to be told.
BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    **{
        path: {"reason": "Twice"}
        for path in (
            "/api/finance/expenses/{expense_id}/reject",
            "/api/finance/expenses/{expense_id}/void",
            "/api/finance/bills/{bill_id}/void",
            "/api/finance/income/{income_id}/void",
        )
    },
    "/api/finance/expenses/{expense_id}/schedule": {"scheduled_for": "2026-06-01"},
    "/api/finance/expenses/{expense_id}/pay": {"paid_on": "2026-05-21"},
    "/api/finance/bills/{bill_id}/payments": {"amount": "1", "currency": "USD", "paid_on": "2026-05-20"},
}
QUERIES: Final[Mapping[str, Mapping[str, str]]] = {"/api/finance/expenses/totals": {"currency": "USD"}}
#: What somebody who may do everything can be told all the same of an object they have just made.
OF_ITS_STATE: Final = frozenset({"illegal_move", "four_eyes"})


@dataclass(frozen=True)
class Sent:
    """A body that is a file."""

    media_type: str
    content: bytes
    query: Mapping[str, str]

    @property
    def request(self) -> Mapping[str, Any]:
        return {"content": self.content, "params": self.query}


#: For each route that takes a file, one it takes.
FILES: Final[Mapping[str, Sent]] = {
    "/api/finance/expenses/{expense_id}/attachments": Sent("application/pdf", b"%PDF-1.7", {"file_name": "bill.pdf"}),
    "/api/finance/expenses/import": Sent(
        "text/csv", b"description,amount,currency,incurred_on\r\nStage,1.00,USD,2026-05-21\r\n", {}
    ),
}
#: Where nothing is made under the path it is shown at: the path it is made under.
MADE_UNDER: Final[Mapping[str, str]] = {
    "/api/finance/attachments": "/api/finance/expenses/{expense_id}/attachments",
    "/api/finance/bills/ageing": "/api/finance/bills",
    **dict.fromkeys(
        (
            "/api/finance/expenses/export",
            "/api/finance/expenses/import",
            "/api/finance/expenses/totals",
            *(
                f"/api/finance/dashboards/{party}{form}"
                for party in ("vendors", "agencies")
                for form in ("", "/picture", "/document")
            ),
        ),
        "/api/finance/expenses",
    ),
}
CAPABILITIES: Final = ("live_ticket_sales", "venue_directory", "vendor_directory", "ai_sales_report")
EVERYTHING: Final = {"business_unit": "*", "event": "*", "approval_limit": "*"}
NOTHING: Final[Mapping[str, Any]] = dict.fromkeys(EVERYTHING, ())


@dataclass(frozen=True)
class Case:
    """One method of one route."""

    module: str
    method: str
    path: str
    permission: Permission

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def made_under(self) -> str:
        """Where the objects of its path are made; with a parameter, where they are made in another object."""
        shown_under = self.path.partition("/{")[0]
        return MADE_UNDER.get(shown_under, shown_under)

    @property
    def collection(self) -> str:
        """Where these others are made or, without a parameter, they themselves."""
        return self.made_under.partition("/{")[0]

    @property
    def is_about_an_object(self) -> bool:
        return "/{" in self.path


def cases() -> list[Case]:
    """Every route that asks for a permission."""
    found = []
    for name, service in SERVICES.items():
        for route in itertools.chain.from_iterable(router.routes for router in service.routers):
            assert isinstance(route, APIRoute)
            required = guard_of(route.endpoint)
            assert isinstance(required, Permission), f"{route.path}: a module's routes ask for permissions"
            found += [Case(name, method, route.path, required) for method in sorted(route.methods or ())]
    return found


CASES: Final = cases()
each_route = pytest.mark.parametrize("case", CASES, ids=str)
#: Lists and exports, and sums, pictures and documents, in which no object shows by its id.
QUESTIONS: Final = [case for case in CASES if case.method == "GET" and not case.is_about_an_object]


@dataclass
class Modules:
    """Every module, called in this process, with an access cache that the test fills."""

    called: Mapping[str, CalledService]

    async def member(self, case: Case, company_id: CompanyId | None = None) -> Person:
        """Who may do everything the module knows, in a company that has it."""
        called = self.called[case.module]
        person = await called.person(company_id)
        self.give(case, person, granted(case.module, person), having(case.module))
        return person

    def give(self, case: Case, person: Person, state: GrantChanged, entitlement: EntitlementChanged) -> None:
        access = self.called[case.module].access
        access.hold(catalog(case.module))
        access.hold(entitlement, company_id=person.company_id)
        access.hold(state, company_id=person.company_id)

    async def object_of(self, case: Case, person: Person) -> str:
        """The id of an object the person has made where the route's objects are made."""
        made = await self._made(case, person, case.collection, {"json": example(case.collection)})
        if case.made_under == case.collection:
            return made
        sent = FILES[case.made_under]
        return await self._made(case, person, _of(case.made_under, made), sent.request, media_type=sent.media_type)

    async def _made(
        self, case: Case, person: Person, path: str, body: Mapping[str, Any], *, media_type: str = "application/json"
    ) -> str:
        headers = {**person.headers, "Idempotency-Key": str(new_id()), "Content-Type": media_type}
        method = "PUT" if path in PUT_INTO else "POST"
        headers |= {"If-Match": "*"} if path in PUT_INTO else {}
        answer = await self.called[case.module].client.request(method, path, headers=headers, **body)
        assert answer.status_code == (200 if path in PUT_INTO else 201), answer.text
        return str(answer.json()["id"])

    async def ask(
        self, case: Case, person: Person, object_id: str, company_id: CompanyId | None = None
    ) -> httpx.Response:
        """The route's request in its best form, so that nothing but what is tested can be refused."""
        headers = {
            **person.headers,
            "Kisum-Company-Id": str(company_id or person.company_id),
            "If-Match": "*",
            "Idempotency-Key": str(new_id()),
        }
        body: dict[str, Any] = {}
        if case.method == "POST" and case.path in FILES:
            sent = FILES[case.path]
            headers["Content-Type"] = sent.media_type
            body |= sent.request
        elif case.method not in {"GET", "DELETE"}:
            makes = case.path in EXAMPLES and case.method in {"POST", "PUT"}
            body["json"] = example(case.path) if makes else BODIES.get(case.path, {})
        if case.path in QUERIES:
            body["params"] = QUERIES[case.path]
        path = _of(case.path, object_id)
        return await self.called[case.module].client.request(case.method, path, headers=headers, **body)


def example(collection: str) -> Mapping[str, Any]:
    found = EXAMPLES[collection]
    return found() if callable(found) else found


def _of(path: str, object_id: str) -> str:
    """The path of one object."""
    if "/{" not in path:
        return path
    before, _, behind = path.partition("/{")
    found = f"{before}/{object_id}{behind.partition('}')[2]}"
    assert "{" not in found
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def modules(runtime: Runtime, tmp_path_factory: Any) -> AsyncIterator[Modules]:
    async with called_modules(runtime, tmp_path_factory.mktemp("modules")) as called:
        yield called


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def unfenced(runtime: Runtime, tmp_path_factory: Any) -> AsyncIterator[Modules]:
    """Modules that PostgreSQL shows every company's rows: what they tell apart, they tell apart themselves."""
    async with called_modules(runtime, tmp_path_factory.mktemp("unfenced"), is_fenced=False) as called:
        yield called


@asynccontextmanager
async def called_modules(runtime: Runtime, folder: Path, *, is_fenced: bool = True) -> AsyncIterator[Modules]:
    async with AsyncExitStack() as stack:
        called = {
            name: await stack.enter_async_context(called_service(runtime, each, folder / name, is_fenced=is_fenced))
            for name, each in SERVICES.items()
        }
        yield Modules(called)


def granted(module: str, person: Person, /, **changed: Any) -> GrantChanged:
    return grant(
        person.user_id, **{"module": module, "permissions": all_permissions(module), "scopes": EVERYTHING, **changed}
    )


def having(module: str, **changed: Any) -> EntitlementChanged:
    """A company that has the module and every commercial add-on."""
    given = {"capabilities": CAPABILITIES, **changed}
    return entitled(base=module, **given) if module in BASE_MODULES else entitled(module, **given)


def test_the_table_of_routes_is_whole() -> None:
    assert {case.module for case in CASES} == set(SERVICES)
    assert {case.collection for case in CASES} == set(EXAMPLES), "each collection has an example, and each example one"


@each_route
async def test_who_may_do_everything_is_let_through(modules: Modules, case: Case) -> None:
    """Else the refusals below would prove nothing."""
    member = await modules.member(case)
    answer = await modules.ask(case, member, await modules.object_of(case, member))
    assert answer.status_code in {200, 201, 204} or answer.json()["code"] in OF_ITS_STATE, answer.text


@each_route
async def test_another_companys_object_is_one_that_does_not_exist(unfenced: Modules, case: Case) -> None:
    member, stranger = await unfenced.member(case), await unfenced.member(case)
    theirs = await unfenced.object_of(case, member)
    if case.is_about_an_object:
        foreign, unknown = await unfenced.ask(case, stranger, theirs), await unfenced.ask(case, stranger, str(uuid4()))
        assert foreign.status_code == unknown.status_code == 404
        assert {**foreign.json(), "request_id": None} == {**unknown.json(), "request_id": None}
    else:
        assert theirs not in (await unfenced.ask(case, stranger, theirs)).text
    for company_id in (member.company_id, CompanyId(new_id())):
        refused = await unfenced.ask(case, stranger, theirs, company_id)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_a_member")


@pytest.mark.parametrize("case", QUESTIONS, ids=str)
async def test_what_is_not_ones_own_changes_no_answer(unfenced: Modules, case: Case) -> None:
    """An object is made and taken through all its moves. Its own company's answer changes on the way: it counts. That
    of another company does not, nor that of who is bound to nothing.
    """
    member, stranger = await unfenced.member(case), await unfenced.member(case)
    # Who made something does not decide about it.
    colleague = await unfenced.member(case, member.company_id)
    others = [stranger]
    if case.permission.scope is ScopeSource.FILTER:
        others.append(bound := await unfenced.member(case, member.company_id))
        unfenced.give(case, bound, granted(case.module, bound, scopes=NOTHING), having(case.module))

    async def told(*people: Person) -> list[bytes]:
        answers = [await unfenced.ask(case, person, "") for person in people]
        assert {answer.status_code for answer in answers} == {200}, answers[0].text
        return [answer.content for answer in answers]

    before, others_before = await told(member), await told(*others)
    assert (await told(member), await told(*others)) == (before, others_before)
    theirs = await unfenced.object_of(case, member)
    is_told = await told(member) != before
    assert await told(*others) == others_before
    for move in (each for each in CASES if each.method == "POST" and each.path.startswith(f"{case.collection}/{{")):
        for person in (member, colleague):
            await unfenced.ask(move, person, theirs)
        is_told = is_told or await told(member) != before
        assert await told(*others) == others_before, move
    assert is_told


def without(case: Case, layer: str, person: Person) -> tuple[GrantChanged, EntitlementChanged]:
    """What Auth and Core say of somebody who lacks one thing only."""
    module = case.module
    others = sorted(set(all_permissions(module)) - {case.permission.key})
    lacking: Mapping[str, tuple[dict[str, Any], EntitlementChanged]] = {
        "membership_inactive": ({"status": MembershipStatus.SUSPENDED}, having(module)),
        "base_inactive": ({}, having(module, status=EntitlementStatus.ENDED)),
        # A company with a live base that is not this module, and no add-on.
        "module_not_entitled": ({}, entitled(base="venue" if module != "venue" else "promoter")),
        "module_not_granted": (
            {"module": "vendor" if module != "vendor" else "venue", "permissions": ()},
            having(module),
        ),
        "permission_missing": ({"permissions": others}, having(module)),
        "out_of_scope": ({"scopes": NOTHING}, having(module)),
    }
    grants, entitlement = lacking[layer]
    return granted(module, person, **grants), entitlement


LAYERS: Final = (
    "membership_inactive",
    "base_inactive",
    "module_not_entitled",
    "module_not_granted",
    "permission_missing",
    "out_of_scope",
)


@pytest.mark.parametrize("layer", LAYERS)
@each_route
async def test_each_missing_layer_is_refused_by_its_name(modules: Modules, case: Case, layer: str) -> None:
    member = await modules.member(case)
    theirs = await modules.object_of(case, member)
    modules.give(case, member, *without(case, layer, member))
    answer = await modules.ask(case, member, theirs)
    if layer == "out_of_scope" and isinstance(case.permission.scope, NoScope):
        assert answer.status_code < 300, f"{case} names that it lies in no scope"
    elif layer == "out_of_scope" and case.permission.scope is ScopeSource.FILTER:
        assert answer.status_code == 200
        assert theirs not in answer.text
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, layer)


LIMITED: Final = [case for case in CASES if "approval_limit" in case.permission.requirement.scope_types]


@pytest.mark.parametrize("case", LIMITED, ids=str)
async def test_a_limit_that_is_too_low_is_refused_and_named(modules: Modules, case: Case) -> None:
    member = await modules.member(case)
    theirs = await modules.object_of(case, member)
    low = {**EVERYTHING, "approval_limit": ("USD:1",)}
    modules.give(case, member, granted(case.module, member, scopes=low), having(case.module))
    answer = await modules.ask(case, member, theirs)
    assert (answer.status_code, answer.json()["code"]) == (403, "out_of_scope")
    currency, _, minor = answer.json()["limit"].partition(":")
    assert (currency, int(minor) > 1) == ("USD", True)


WITH_CAPABILITY: Final = [case for case in CASES if case.permission.requirement.capability is not None]


@pytest.mark.skipif(not WITH_CAPABILITY, reason="no route needs a commercial add-on yet")
@pytest.mark.parametrize("case", WITH_CAPABILITY, ids=str)
async def test_a_missing_capability_is_refused_by_its_name(modules: Modules, case: Case) -> None:
    member = await modules.member(case)
    theirs = await modules.object_of(case, member)
    modules.give(case, member, granted(case.module, member), having(case.module, capabilities=()))
    answer = await modules.ask(case, member, theirs)
    assert (answer.status_code, answer.json()["code"]) == (403, "capability_missing")


@each_route
async def test_without_a_valid_token_nobody_is_let_in(modules: Modules, case: Case) -> None:
    member = await modules.member(case)
    for token in ("", "Bearer x", f"Bearer {member.token[:-3]}AAA"):
        headers = {"Authorization": token, "Kisum-Company-Id": str(member.company_id)}
        path = case.path.replace("{", "").replace("}", "")
        answer = await modules.called[case.module].client.request(case.method, path, headers=headers)
        assert answer.status_code == 401


@each_route
async def test_past_the_bound_nobody_is_let_in_and_nobody_told_no(modules: Modules, case: Case) -> None:
    member = await modules.member(case)
    theirs = await modules.object_of(case, member)
    called = modules.called[case.module]
    called.clock.advance(seconds=301)
    try:
        member = await called.signed_in(member.user_id, member.company_id)
        answer = await modules.ask(case, member, theirs)
    finally:
        called.clock.now -= timedelta(seconds=301)
    assert (answer.status_code, answer.json()["code"]) == (503, "state_unknown")
