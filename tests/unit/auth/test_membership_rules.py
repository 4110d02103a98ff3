from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import DomainError
from contracts.events.auth import MembershipStatus, PermissionStatus, Scopes
from contracts.permissions import (
    PERMISSIONS,
    PermissionKeyMalformedError,
    PermissionKeyOfOtherModuleError,
    PermissionKeyTooShortError,
)
from services.auth.memberships import rules
from services.auth.memberships.rules import Standing
from services.auth.permissions.rules import (
    CatalogRow,
    PermissionDeprecatedError,
    PermissionRemovedError,
    PermissionUnknownError,
)

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
READ, WRITE, LEGACY = "finance.expenses.read", "finance.expenses.write", "finance.expense.view"
ACTIVE, SUSPENDED = MembershipStatus.ACTIVE, MembershipStatus.SUSPENDED
INVITED, REMOVED = MembershipStatus.INVITED, MembershipStatus.REMOVED

FINANCE = {
    key: CatalogRow(key, PermissionStatus(row.status.value), row.alias_of, row.scope_types)
    for key, row in PERMISSIONS["finance"].items()
} | {"finance.old.read": CatalogRow("finance.old.read", PermissionStatus.REMOVED, None, ("event",))}


def after(current: rules.Ends, wanted: rules.Ends) -> dict[str, datetime | None]:
    return rules.permissions_after(current, wanted, module="finance", catalog=FINANCE, now=NOW)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("finance.nothing.read", PermissionUnknownError),
        (LEGACY, PermissionDeprecatedError),
        ("finance.old.read", PermissionRemovedError),
        ("venue.details.read", PermissionKeyOfOtherModuleError),
        ("basic.artists.read", PermissionKeyOfOtherModuleError),
        ("finance.write", PermissionKeyTooShortError),
        ("finance-addon-person", PermissionKeyTooShortError),
        ("finance.ex penses.read", PermissionKeyMalformedError),
    ],
)
def test_what_cannot_be_granted_anew(key: str, error: type[DomainError]) -> None:
    with pytest.raises(error):
        after({}, {key: None})


def test_a_key_is_stored_in_its_one_form_and_named_once() -> None:
    assert after({}, {" Finance.Expenses.READ ": None}) == {READ: None}
    with pytest.raises(rules.PermissionRepeatedError):
        after({}, {READ: None, "Finance.expenses.read": LATER})


def test_a_deprecated_row_names_what_to_grant_instead() -> None:
    with pytest.raises(PermissionDeprecatedError, match=READ):
        after({}, {LEGACY: None})


def test_a_grant_with_an_end_ends_in_the_future() -> None:
    assert after({}, {READ: LATER}) == {READ: LATER}
    for end in (NOW, NOW - timedelta(seconds=1)):
        with pytest.raises(rules.GrantEndedError):
            after({}, {READ: end})


def test_what_stays_as_it_was_is_not_judged_again() -> None:
    kept = {LEGACY: None, "finance.old.read": None, WRITE: NOW - timedelta(days=1)}
    assert after(kept, kept) == kept


@pytest.mark.parametrize("wanted", [{LEGACY: None}, {LEGACY: None, READ: LATER}])
def test_a_key_taken_away_or_ended_takes_the_legacy_key_along_that_gives_the_same(wanted: rules.Ends) -> None:
    assert LEGACY not in after({READ: None, LEGACY: None}, wanted)


def test_a_legacy_key_of_a_legacy_key_goes_too() -> None:
    catalog = {**FINANCE, "finance.a.b": CatalogRow("finance.a.b", PermissionStatus.DEPRECATED, LEGACY, ("event",))}
    current = {READ: None, "finance.a.b": None}
    assert rules.permissions_after(current, {"finance.a.b": None}, module="finance", catalog=catalog, now=NOW) == {}


ENDS = st.none() | st.integers(min_value=1, max_value=10**6).map(lambda seconds: NOW + timedelta(seconds=seconds))
GRANTABLE = st.sampled_from(sorted(key for key, row in FINANCE.items() if row.status is PermissionStatus.ACTIVE))
SETS = st.dictionaries(GRANTABLE, ENDS, max_size=8)


@given(st.lists(SETS, max_size=6), SETS)
def test_the_last_set_of_active_keys_is_what_a_member_has_whatever_came_before(
    earlier: list[dict[str, datetime | None]], last: dict[str, datetime | None]
) -> None:
    current: dict[str, datetime | None] = {LEGACY: None}
    for wanted in [*earlier, last]:
        current = after(current, wanted)
    assert current == last


def test_nobody_grants_to_themself() -> None:
    person = uuid4()
    with pytest.raises(rules.OwnGrantError):
        rules.check_grants_to_other(person, person)
    rules.check_grants_to_other(person, uuid4())


def standing(status: MembershipStatus, *, superadmin: bool = False) -> Standing:
    return Standing(status, superadmin)


@pytest.mark.parametrize(
    ("current", "change", "expected"),
    [
        (standing(ACTIVE), {"status": SUSPENDED}, standing(SUSPENDED)),
        (standing(SUSPENDED), {"status": ACTIVE}, standing(ACTIVE)),
        (standing(ACTIVE), {"status": ACTIVE}, standing(ACTIVE)),
        (standing(ACTIVE), {}, standing(ACTIVE)),
        (standing(ACTIVE), {"superadmin": True}, standing(ACTIVE, superadmin=True)),
        (standing(SUSPENDED), {"status": ACTIVE, "superadmin": True}, standing(ACTIVE, superadmin=True)),
        (standing(ACTIVE, superadmin=True), {"status": SUSPENDED}, standing(SUSPENDED, superadmin=True)),
        (standing(ACTIVE, superadmin=True), {"superadmin": False}, standing(ACTIVE)),
        (standing(ACTIVE, superadmin=True), {"status": REMOVED}, standing(REMOVED)),
        (standing(SUSPENDED, superadmin=True), {"status": REMOVED}, standing(REMOVED)),
        (standing(INVITED), {"status": REMOVED}, standing(REMOVED)),
    ],
)
def test_what_a_member_becomes(current: Standing, change: dict[str, object], expected: Standing) -> None:
    assert rules.standing_after(current, **change, other_admins=1) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("current", "change", "error"),
    [
        (standing(INVITED), {"status": ACTIVE}, rules.InvitationOpenError),
        (standing(INVITED), {"status": SUSPENDED}, rules.InvitationOpenError),
        (standing(INVITED), {"superadmin": True}, rules.SuperadminInactiveError),
        (standing(SUSPENDED), {"superadmin": True}, rules.SuperadminInactiveError),
        (standing(ACTIVE), {"status": SUSPENDED, "superadmin": True}, rules.SuperadminInactiveError),
    ],
)
def test_what_a_member_cannot_become(current: Standing, change: dict[str, object], error: type[DomainError]) -> None:
    with pytest.raises(error):
        rules.standing_after(current, **change, other_admins=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"status": SUSPENDED}, {"status": REMOVED}, {"superadmin": False}])
def test_the_last_superadmin_stays(change: dict[str, object]) -> None:
    last = standing(ACTIVE, superadmin=True)
    with pytest.raises(rules.LastSuperadminError):
        rules.standing_after(last, **change, other_admins=0)  # type: ignore[arg-type]
    rules.standing_after(standing(SUSPENDED, superadmin=True), **change, other_admins=0)  # type: ignore[arg-type]


def test_scopes_name_every_declared_type_and_no_other() -> None:
    declared = ("approval_limit", "business_unit", "event")
    assert rules.scopes_after({"event": ("b", "a", "b"), "business_unit": "*"}, declared) == {
        "approval_limit": (),
        "business_unit": "*",
        "event": ("a", "b"),
    }
    with pytest.raises(rules.ScopeTypeUndeclaredError):
        rules.scopes_after({"venue": "*"}, declared)


@pytest.mark.parametrize("limit", ["5000", "eur:5", "EUR:", "EUR:-1", "EUR:5.5", "EUR:" + "9" * 19])
def test_an_approval_limit_is_a_currency_and_an_amount(limit: str) -> None:
    assert rules.scopes_after({"approval_limit": ("EUR:500000",)}, ("approval_limit",))
    with pytest.raises(rules.ScopeLimitMalformedError):
        rules.scopes_after({"approval_limit": (limit,)}, ("approval_limit",))


def test_a_top_up_gives_each_active_row_once() -> None:
    first = rules.top_up("finance", FINANCE, ())
    assert len(first) == 19
    assert LEGACY not in first
    assert "finance.old.read" not in first
    assert rules.top_up("finance", FINANCE, [("finance", key) for key in first]) == ()
    assert rules.top_up("finance", FINANCE, [("finance", key) for key in first if key != READ]) == (READ,)
    assert rules.top_up("finance", FINANCE, [("venue", key) for key in first]) == first


def test_a_top_up_gives_everything_at_first_and_respects_what_was_narrowed_since() -> None:
    declared = ("business_unit", "event")
    everything = {"business_unit": "*", "event": "*"}
    assert rules.scopes_topped_up(None, declared, is_first=True) == everything
    assert rules.scopes_topped_up({"business_unit": (), "event": ()}, declared, is_first=True) == everything
    narrowed: Scopes = {"business_unit": ("one",)}
    assert rules.scopes_topped_up(narrowed, declared, is_first=False) == {"business_unit": ("one",), "event": "*"}
    assert rules.scopes_topped_up(None, declared, is_first=False) is None
