"""The permission catalog: counts and forms of the documents, and that keys and bits are for ever."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import DomainError, Kind
from contracts.permissions import (
    PERMISSIONS,
    Permission,
    PermissionKeyMalformedError,
    PermissionKeyOfOtherModuleError,
    PermissionKeyTooShortError,
    Status,
    normalize_permission_key,
)
from contracts.services import MODULES

LOCK: Mapping[str, Mapping[str, int]] = json.loads(
    (Path(__file__).parent / "permissions.lock.json").read_text(encoding="utf-8")
)
ROWS = [row for rows in PERMISSIONS.values() for row in rows.values()]
LIVING = [row for row in ROWS if row.alias_of is None]
LEGACY = {
    ("promoter", "basic.artists.read"): "promoter.artists.read",
    ("promoter", "basic.events.create"): "promoter.events.create",
    ("promoter", "basic.events.update"): "promoter.events.update",
    ("promoter", "basic.tasks.manage"): "promoter.tasks.manage",
    ("promoter", "basic.market-study.read"): "promoter.market-study.read",
    ("promoter", "market.contracts.read"): "promoter.contracts.read",
    ("artist", "market.contracts.read"): "artist.contract.view",
    ("finance", "finance.expense.view"): "finance.expenses.read",
    ("finance", "finance.expense.create"): "finance.expenses.write",
}


def test_the_documents_count_105_rows() -> None:
    counts = {module: len([row for row in LIVING if row.module == module]) for module in PERMISSIONS}
    assert counts == {"promoter": 36, "venue": 24, "artist": 17, "finance": 19, "ai": 9}
    assert sum(counts.values()) == 105


def test_keys_and_bits_are_those_of_the_lock() -> None:
    """A new row is appended to the lock with the next bit. An entry of the lock is never edited or taken out."""
    assert {module: {key: row.bit for key, row in rows.items()} for module, rows in PERMISSIONS.items()} == LOCK


@pytest.mark.parametrize("module", LOCK)
def test_bits_are_unique_and_follow_one_another(module: str) -> None:
    assert sorted(LOCK[module].values()) == list(range(len(LOCK[module])))


@pytest.mark.parametrize("row", LIVING, ids=lambda row: row.key)
def test_a_living_key_is_in_its_one_form(row: Permission) -> None:
    assert normalize_permission_key(row.key, row.module) == row.key
    assert row.module in MODULES
    assert f"{row.module}.{row.resource}.{row.action}" == row.key


def test_legacy_keys_resolve_to_living_rows_of_their_module() -> None:
    aliases = {(row.module, row.key): row.alias_of for row in ROWS if row.alias_of is not None}
    assert aliases == LEGACY
    for (module, key), target in LEGACY.items():
        assert PERMISSIONS[module][key].status is Status.DEPRECATED
        resolved = PERMISSIONS[module][target]
        assert resolved.status is Status.ACTIVE
        assert resolved.alias_of is None


def test_every_row_without_an_alias_is_active() -> None:
    assert {row.status for row in LIVING} == {Status.ACTIVE}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.module}:{row.key}")
def test_a_row_is_listed_under_its_own_key_and_reads_well(row: Permission) -> None:
    assert PERMISSIONS[row.module][row.key] is row
    assert row.label[0].isupper()
    assert not row.label.endswith(".")
    assert len(row.label) <= 60
    assert row.label.isascii()


@pytest.mark.parametrize("module", PERMISSIONS)
def test_labels_tell_living_rows_apart(module: str) -> None:
    labels = [row.label for row in LIVING if row.module == module]
    assert len(labels) == len(set(labels))


def test_scope_types_are_those_of_the_domain() -> None:
    of_module = {
        "promoter": {"business_unit", "event"},
        "finance": {"business_unit", "event"},
        "ai": {"business_unit", "event"},
        "venue": {"venue", "space"},
        "artist": {"artist"},
    }
    for row in ROWS:
        limited = row.module == "finance" and row.action == "approve"
        assert set(row.scope_types) == of_module[row.module] | ({"approval_limit"} if limited else set())


def test_capabilities_are_the_four_commercial_addons() -> None:
    assert {row.key: row.capability for row in ROWS if row.capability is not None} == {
        "promoter.ticket-sales.read": "live_ticket_sales",
        "promoter.venue.directory.read": "venue_directory",
        "promoter.vendor.directory.read": "vendor_directory",
        "ai.sales-reports.read": "ai_sales_report",
    }


@pytest.mark.parametrize(
    "text",
    [
        "basic-package-user",
        "premium-package-editor",
        "finance-addon-person",
        "basic-package-editor",
        "premium-access-user",
        "addon-venue-reader",
        "finance.write",
        "",
        ".",
    ],
)
@pytest.mark.parametrize("module", ["finance", "promoter", "basic"])
def test_the_documents_bad_examples_are_refused(text: str, module: str) -> None:
    with pytest.raises(PermissionKeyTooShortError) as refused:
        normalize_permission_key(text, module)
    assert refused.value.facts == {"key": text, "module": module}
    assert refused.value.kind is Kind.INVALID


@pytest.mark.parametrize(
    "text",
    [
        "promoter.venue.*",
        "finance..read",
        "finance.expenses.",
        "finance.expenses.read.",
        ".finance.expenses.read",
        "finance.expenses read.now",
        "finance.expenses.read\n.x",
        "finance.-expenses.read",
        "finance.expenses_.read",
        "finance.9.read",
        "finance.expenses.\N{FULLWIDTH LATIN SMALL LETTER R}ead",
        "finance.expenses.\N{KELVIN SIGN}ey",
    ],
)
def test_malformed_parts_are_refused(text: str) -> None:
    with pytest.raises(PermissionKeyMalformedError):
        normalize_permission_key(text, "finance")


@pytest.mark.parametrize("text", ["basic.artists.read", "venue.details.read", "financex.expenses.read"])
def test_a_key_of_another_module_is_refused(text: str) -> None:
    with pytest.raises(PermissionKeyOfOtherModuleError):
        normalize_permission_key(text, "finance")


def test_a_key_is_brought_to_its_one_form() -> None:
    assert normalize_permission_key("  Finance.Expenses.READ\n", "finance") == "finance.expenses.read"
    assert normalize_permission_key("promoter.venue.directory.read", "promoter") == "promoter.venue.directory.read"


@given(st.text(), st.sampled_from(MODULES))
def test_any_text_is_normalised_once_or_refused(text: str, module: str) -> None:
    try:
        key = normalize_permission_key(text, module)
    except DomainError:
        return
    assert normalize_permission_key(key, module) == key
