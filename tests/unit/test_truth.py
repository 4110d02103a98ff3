"""The naive evaluator says what design §5 says, and the access path says the same."""

import base64
import hashlib
import json
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import pytest

from contracts.envelope import decode, encode, envelop
from contracts.events.auth import MembershipStatus, PermissionStatus, SigningKeyStatus
from contracts.events.entitlements import EntitlementStatus
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.permissions import PERMISSIONS
from contracts.problems import Reason
from tests.simulation.differential import compare
from tests.simulation.truth import (
    ROOT_KEY,
    Base,
    DelegationRow,
    EntitlementRow,
    GrantedModule,
    MembershipRow,
    PermissionRow,
    PermissionsRow,
    Row,
    Scopes,
    SessionsRow,
    SigningKeyRow,
    Truth,
    documents,
    draw_rows,
    draw_successor,
    way_of,
)

NOW: Final = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
COMPANY: Final = CompanyId(UUID("01900000-0000-7000-8000-00000000000c"))
PERSON: Final = UserId(UUID("01900000-0000-7000-8000-00000000000d"))
READ, APPROVE, LEGACY = "finance.expenses.read", "finance.expenses.approve", "finance.expense.view"
EVERYWHERE: Final[Scopes] = {"business_unit": "*", "event": "*", "approval_limit": "*"}

MEMBER: Final = MembershipRow(
    COMPANY, PERSON, MembershipStatus.ACTIVE, modules={"finance": GrantedModule({READ: None}, EVERYWHERE)}
)
BOUGHT: Final = EntitlementRow(
    COMPANY,
    EntitlementStatus.ACTIVE,
    Base("promoter", EntitlementStatus.ACTIVE, None),
    {"promoter": None, "finance": None},
)


def catalog(module: str = "finance", **changed: PermissionRow) -> PermissionsRow:
    """As the contracts declare it, with other rows for keys written with two underscores."""
    rows = {
        key: PermissionRow(PermissionStatus(row.status.value), row.alias_of) for key, row in PERMISSIONS[module].items()
    }
    return PermissionsRow(module, {key: changed.get(key.replace(".", "__"), row) for key, row in rows.items()})


def ask(*rows: Row, key: str = READ, values: Any = None, now: datetime = NOW) -> Reason | None:
    """What a person with these rows, and those of one who may do it for all others, is told."""
    return Truth([MEMBER, BOUGHT, catalog(), *rows]).answer(COMPANY, PERSON, key, values, now)


def with_grant(permissions: dict[str, datetime | None], scopes: Any = EVERYWHERE) -> MembershipRow:
    return replace(MEMBER, modules={"finance": GrantedModule(permissions, scopes)})


# The layers.


def test_the_layers_are_judged_in_their_order_and_the_first_that_fails_is_the_reason() -> None:
    key, values = "promoter.ticket-sales.read", {"business_unit": "a", "event": "b"}
    truth, seen = Truth(), []

    def then(row: Row) -> None:
        truth.take(row)
        seen.append(truth.answer(COMPANY, PERSON, key, values, NOW))

    then(catalog("promoter"))
    member = replace(MEMBER, status=MembershipStatus.SUSPENDED, superadmin=True, modules={})
    then(member)
    member = replace(member, status=MembershipStatus.ACTIVE)
    then(member)
    bought = replace(BOUGHT, status=EntitlementStatus.ENDED, modules={})
    then(bought)
    bought = replace(bought, status=EntitlementStatus.ACTIVE, base=None)
    then(bought)
    bought = replace(bought, base=Base("promoter", EntitlementStatus.SUSPENDED, None))
    then(bought)
    bought = replace(bought, base=BOUGHT.base)
    then(bought)
    bought = replace(bought, modules={"promoter": None})
    then(bought)
    bought = replace(bought, capabilities=("live_ticket_sales",))
    then(bought)
    elsewhere: Scopes = {"business_unit": ("other",), "event": "*"}
    inside: Scopes = {"business_unit": ("a",), "event": "*"}
    held: dict[str, datetime | None] = {key: None}
    for granted in (GrantedModule({}, elsewhere), GrantedModule(held, elsewhere), GrantedModule(held, inside)):
        member = replace(member, modules={"promoter": granted})
        then(member)
    assert seen == [
        Reason.NOT_A_MEMBER,
        Reason.MEMBERSHIP_INACTIVE,
        *[Reason.BASE_INACTIVE] * 4,
        Reason.MODULE_NOT_ENTITLED,
        Reason.CAPABILITY_MISSING,
        Reason.MODULE_NOT_GRANTED,
        Reason.PERMISSION_MISSING,
        Reason.OUT_OF_SCOPE,
        None,
    ]


def test_an_unknown_company_is_answered_like_one_without_the_person() -> None:
    truth = Truth([MEMBER, BOUGHT, catalog()])
    for company, user in ((CompanyId(new_id()), PERSON), (COMPANY, UserId(new_id()))):
        assert truth.answer(company, user, READ, None, NOW) is Reason.NOT_A_MEMBER


@pytest.mark.parametrize("status", [each for each in MembershipStatus if each is not MembershipStatus.UNKNOWN])
def test_only_an_active_membership_gives_access(status: MembershipStatus) -> None:
    expected = None if status is MembershipStatus.ACTIVE else Reason.MEMBERSHIP_INACTIVE
    assert ask(replace(MEMBER, status=status)) is expected


@pytest.mark.parametrize("status", [each for each in EntitlementStatus if each is not EntitlementStatus.UNKNOWN])
def test_trialing_active_and_past_due_are_entitled(status: EntitlementStatus) -> None:
    expected = None if status in {"trialing", "active", "past_due"} else Reason.BASE_INACTIVE
    assert ask(replace(BOUGHT, status=status)) is expected
    assert ask(replace(BOUGHT, base=Base("promoter", status, None))) is expected


@pytest.mark.parametrize("status", ["trialing", "active", "past_due"])
@pytest.mark.parametrize("what", ["base", "module", "permission"])
def test_an_end_is_exclusive_to_the_microsecond(what: str, status: str) -> None:
    base = Base("promoter", EntitlementStatus(status), NOW if what == "base" else None)
    bought = replace(BOUGHT, base=base, modules={"finance": NOW if what == "module" else None})
    member = with_grant({READ: NOW if what == "permission" else None})
    assert ask(bought, member, now=NOW - MICROSECOND) is None
    assert (
        ask(bought, member, now=NOW)
        is {
            "base": Reason.BASE_INACTIVE,
            "module": Reason.MODULE_NOT_ENTITLED,
            "permission": Reason.PERMISSION_MISSING,
        }[what]
    )


def test_the_superadmin_flag_replaces_no_permission() -> None:
    assert ask(replace(with_grant({}), superadmin=True)) is Reason.PERMISSION_MISSING


# Aliases and statuses of permissions.


def test_a_key_that_resolves_to_the_one_asked_for_is_as_good_and_not_the_other_way_round() -> None:
    assert ask(with_grant({LEGACY: None})) is None
    assert ask(with_grant({LEGACY: NOW})) is Reason.PERMISSION_MISSING
    assert ask(with_grant({LEGACY: NOW, READ: None})) is None
    assert ask(with_grant({READ: None}), key=LEGACY) is Reason.PERMISSION_MISSING
    assert ask(with_grant({LEGACY: None}), key=LEGACY) is Reason.PERMISSION_MISSING


def test_a_removed_key_takes_with_it_every_key_that_resolves_to_it() -> None:
    removed = PermissionRow(PermissionStatus.REMOVED, None)
    assert ask(with_grant({LEGACY: None}), catalog(finance__expenses__read=removed)) is Reason.PERMISSION_MISSING
    assert ask(catalog(finance__expenses__read=removed)) is Reason.PERMISSION_MISSING
    gone = PermissionRow(PermissionStatus.REMOVED, READ)
    assert ask(with_grant({LEGACY: None}), catalog(finance__expense__view=gone)) is Reason.PERMISSION_MISSING
    assert ask(catalog(finance__expense__view=gone)) is None


def test_the_way_of_a_key_ends_at_an_active_one_or_gives_nothing() -> None:
    active, deprecated, removed = (
        PermissionStatus.ACTIVE,
        PermissionStatus.DEPRECATED,
        PermissionStatus.REMOVED,
    )

    def way(*rows: tuple[str, PermissionStatus, str | None], of: str = "a") -> list[str]:
        return way_of(of, {key: PermissionRow(status, alias) for key, status, alias in rows})

    assert way(("a", active, None)) == ["a"]
    assert way(("a", active, "b"), ("b", deprecated, "c"), ("c", active, None)) == ["a", "c"]
    assert way(("a", active, "b"), ("b", active, "c"), ("c", active, None), of="b") == ["b", "c"]
    assert way(("a", deprecated, None)) == []
    assert way(("a", active, "b"), ("b", deprecated, None)) == []
    assert way(("a", active, "b"), ("b", removed, "c"), ("c", active, None)) == []
    assert way(("a", active, "b")) == []
    assert way(("a", active, "b"), ("b", active, "a")) == []
    assert way(of="a") == []


def test_a_module_whose_permissions_were_never_published_gives_nothing() -> None:
    assert Truth([MEMBER, BOUGHT]).answer(COMPANY, PERSON, READ, None, NOW) is Reason.PERMISSION_MISSING


def test_the_capability_is_that_of_the_permission_row() -> None:
    key = "promoter.venue.directory.read"
    member = replace(MEMBER, modules={"promoter": GrantedModule({key: None}, EVERYWHERE)})
    for capabilities, expected in (((), Reason.CAPABILITY_MISSING), (("vendor_directory",), Reason.CAPABILITY_MISSING)):
        assert ask(member, catalog("promoter"), replace(BOUGHT, capabilities=capabilities), key=key) is expected
    assert ask(member, catalog("promoter"), replace(BOUGHT, capabilities=("venue_directory",)), key=key) is None


# Scopes.


@pytest.mark.parametrize(
    ("scopes", "values", "inside"),
    [
        ({"business_unit": "*", "event": "*"}, {}, True),
        ({"business_unit": ("a", "b"), "event": "*"}, {"business_unit": "b"}, True),
        ({"business_unit": ("a",), "event": ("e",)}, {"business_unit": "a", "event": "e"}, True),
        ({"business_unit": ("a",), "event": ("e",)}, {"business_unit": "a", "event": "f"}, False),
        ({"business_unit": ("a",), "event": ("e",)}, {"business_unit": "b", "event": "e"}, False),
        ({"business_unit": (), "event": "*"}, {"business_unit": "a", "event": "e"}, False),
        ({"event": "*"}, {"business_unit": "a", "event": "e"}, False),
        ({"business_unit": ("a",), "event": "*"}, {"event": "e"}, False),
        ({"business_unit": ("a",), "event": "*"}, {"business_unit": None, "event": "e"}, False),
        ({"business_unit": ("a",), "event": "*"}, {"business_unit": "A"}, False),
        ({"business_unit": (str(PERSON),), "event": "*"}, {"business_unit": PERSON}, True),
        ({"business_unit": "*", "event": "*", "warehouse": ()}, {"warehouse": "w"}, True),
        ({}, None, True),
    ],
)
def test_types_combine_with_and_and_what_is_not_there_is_nothing(scopes: Any, values: Any, inside: bool) -> None:  # noqa: FBT001
    assert ask(with_grant({READ: None}, scopes), values=values) is (None if inside else Reason.OUT_OF_SCOPE)


@pytest.mark.parametrize(
    ("limits", "amount", "inside"),
    [
        (("EUR:500",), "EUR:500", True),
        (("EUR:500",), "EUR:501", False),
        (("EUR:500",), "USD:1", False),
        (("EUR:500", "USD:10"), "USD:10", True),
        (("EUR:5", "EUR:500"), "EUR:400", True),
        ("*", "EUR:999999", True),
        ((), "EUR:0", False),
        (("EUR:-1", "EUR", "EURO:9", "EUR:1e9"), "EUR:0", False),
        (("EUR:500",), "eur:1", False),
        (("EUR:500",), "EUR:\u0661", False),
        (("EUR:500",), " EUR:1", False),
        (("EUR:500",), None, False),
    ],
)
def test_an_approval_limit_is_per_currency(limits: Any, amount: str | None, inside: bool) -> None:  # noqa: FBT001
    member = with_grant({APPROVE: None}, {"business_unit": "*", "event": "*", "approval_limit": limits})
    answered = ask(member, key=APPROVE, values={"approval_limit": amount})
    assert answered is (None if inside else Reason.OUT_OF_SCOPE)


# Guards, sessions, keys.


def test_the_guards() -> None:
    others = UserId(new_id())
    truth = Truth([replace(MEMBER, superadmin=True), replace(MEMBER, user_id=others)])
    assert truth.answer_active_member(COMPANY, PERSON) is None
    assert truth.answer_active_member(PLATFORM_COMPANY_ID, PERSON) is Reason.NOT_A_MEMBER
    assert truth.answer_company_admin(COMPANY, PERSON) is None
    assert truth.answer_company_admin(COMPANY, others) is Reason.PERMISSION_MISSING
    assert truth.answer_platform_admin(PERSON) is Reason.PERMISSION_MISSING
    truth.take(replace(MEMBER, company_id=PLATFORM_COMPANY_ID))
    assert truth.answer_platform_admin(PERSON) is None
    for company in (COMPANY, PLATFORM_COMPANY_ID):
        truth.take(replace(MEMBER, company_id=company, superadmin=True, status=MembershipStatus.SUSPENDED))
    assert truth.answer_active_member(COMPANY, PERSON) is Reason.MEMBERSHIP_INACTIVE
    assert truth.answer_company_admin(COMPANY, PERSON) is Reason.MEMBERSHIP_INACTIVE
    assert truth.answer_platform_admin(PERSON) is Reason.PERMISSION_MISSING


def test_a_token_is_void_below_the_generation_or_when_its_session_is_listed() -> None:
    listed, other = new_id(), new_id()
    truth = Truth([SessionsRow(PERSON, 3, {listed: NOW - timedelta(days=1)})])
    assert [truth.session_is_live(PERSON, other, generation) for generation in (2, 3, 4)] == [False, True, True]
    assert not truth.session_is_live(PERSON, listed, 9)
    assert truth.session_is_live(UserId(new_id()), listed, 0)


def test_a_key_verifies_in_its_time_unless_it_was_revoked() -> None:
    key = SigningKeyRow("k", bytes(32), SigningKeyStatus.ACTIVE, NOW, NOW + timedelta(days=1))

    def verifies(row: SigningKeyRow, now: datetime) -> bool:
        return Truth([row]).key_verifies("k", now)

    assert not verifies(key, NOW - MICROSECOND)
    assert verifies(key, NOW)
    assert verifies(key, key.not_after - MICROSECOND)
    assert not verifies(key, key.not_after)
    assert verifies(replace(key, status=SigningKeyStatus.RETIRED), NOW)
    assert not verifies(replace(key, status=SigningKeyStatus.REVOKED), NOW)
    assert not Truth([key]).key_verifies("another", NOW)


# Rows, events and documents.


def test_every_row_makes_an_event_of_its_topic_and_key() -> None:
    random = Random(1)  # noqa: S311 - rows, no secrets
    rows = draw_rows(random, NOW)
    rows += [draw_successor(random, row, NOW) for row in rows]
    assert {type(row).__name__ for row in rows} == {kind.__name__ for kind in Row.__args__}
    for row in rows:
        envelope = envelop(
            row.payload(),
            occurred_at=NOW,
            company_id=row.company_id,
            actor_user_id=None,
            epoch=1,
            version=row.version,
            correlation_id=new_id(),
        )
        assert decode(encode(envelope), row.topic.payloads) == envelope
        assert row.topic.record_key(envelope).decode() == row.key


def test_a_signing_key_is_vouched_for_by_the_root() -> None:
    row = SigningKeyRow("k", bytes(32), SigningKeyStatus.ACTIVE, NOW, NOW + timedelta(days=1))
    for each in (row, replace(row, status=SigningKeyStatus.REVOKED)):
        event = each.payload()
        ROOT_KEY.public_key().verify(base64.urlsafe_b64decode(event.signature + "=="), event.signed_bytes())


def test_documents_have_the_form_that_is_written_down() -> None:
    end = datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC)
    member = replace(
        MEMBER,
        modules={
            "finance": GrantedModule(
                {READ: None, LEGACY: end, "finance.forecasts.read": None},
                {"business_unit": ("b", "a", "b"), "event": (), "approval_limit": "*"},
            ),
            "ai": GrantedModule({}, {}),
            "lighting": GrantedModule({}, {}),
        },
        delegations=(
            DelegationRow("finance", (READ, LEGACY, "finance.forecasts.read"), {}, False, end),
            DelegationRow("finance", "*", {"event": ("e",)}, True, None),
            DelegationRow("ai", "*", {}, True, None),
        ),
        version=7,
    )
    ((kind, key, document),) = documents([member], epoch=2, modules=["finance"])
    microseconds = 1_767_225_600_000_005
    assert (kind, key) == ("membership", f"{COMPANY}/{PERSON}")
    assert document == {
        "epoch": 2,
        "version": 7,
        "status": "active",
        "superadmin": False,
        "modules": {
            "finance": {
                "permissions": {READ: None, LEGACY: microseconds},
                "scopes": {"business_unit": ["a", "b"], "approval_limit": "*"},
            }
        },
        "delegations": [
            {
                "module": "finance",
                "permissions": "*",
                "scopes": {"event": ["e"]},
                "may_delegate": True,
                "valid_until": None,
            },
            {
                "module": "finance",
                "permissions": [LEGACY, READ],
                "scopes": {},
                "may_delegate": False,
                "valid_until": microseconds,
            },
        ][::-1],
    }
    sid = new_id()
    found = {
        kind: document
        for kind, _, document in documents(
            [
                replace(BOUGHT, modules={"finance": end, "lighting": None}, capabilities=("b", "a", "a")),
                PermissionsRow(
                    "finance",
                    {
                        READ: PermissionRow(PermissionStatus.ACTIVE, "finance.forecasts.read"),
                        APPROVE: PermissionRow(PermissionStatus.REMOVED, READ),
                        LEGACY: PermissionRow(PermissionStatus.DEPRECATED, None),
                        "finance.forecasts.read": PermissionRow(PermissionStatus.ACTIVE, None),
                    },
                ),
                SigningKeyRow("k", b"\xff" * 32, SigningKeyStatus.RETIRED, end, end),
                SessionsRow(PERSON, 4, {sid: end}),
            ]
        )
    }
    common = {"epoch": 1, "version": 1}
    assert found == {
        "entitlement": {
            **common,
            "status": "active",
            "base": {"module": "promoter", "status": "active", "valid_until": None},
            "modules": {"finance": microseconds},
            "capabilities": ["a", "b"],
        },
        "permissions": {
            **common,
            "rows": {READ: ["active", "?"], APPROVE: ["removed", READ], LEGACY: ["deprecated", None]},
        },
        "signing_key": {
            **common,
            "status": "retired",
            "public_key": "ff" * 32,
            "not_before": microseconds,
            "not_after": microseconds,
        },
        "sessions": {**common, "min_gen": 4, "revoked": {str(sid): microseconds}},
    }


# Against the access path.


def test_what_is_drawn_is_drawn_from_the_seed_alone() -> None:
    def drawn(seed: int) -> str:
        random = Random(seed)  # noqa: S311 - rows, no secrets
        rows = draw_rows(random, NOW)
        rows += [draw_successor(random, row, NOW) for row in rows]
        said = [row.payload().model_dump_json() for row in rows]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_the_access_path_and_the_truth_give_the_same_answers(tmp_path: Path) -> None:
    seed = secrets.randbelow(2**32)
    outcome = compare(seed, 20_000, tmp_path / "cache")
    assert not outcome.first, f"seed {seed}\n" + "\n\n".join(str(each) for each in outcome.first)
    assert outcome.pairs == 20_000
    reasons = {reason.value for reason in Reason if reason is not Reason.STATE_UNKNOWN}
    assert {f"decide: {answer}" for answer in (*reasons, "yes")} <= set(outcome.answers)
