"""Two caches have one digest exactly when they hold the same."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from access import digest
from access.cache import Quarantine
from access.records import membership_key
from contracts.events.auth import PermissionsChanged
from contracts.identifiers import CompanyId, UserId
from tests.harness.access import catalog, entitled, grant
from tests.harness.local_access import LocalAccess, local_access


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[LocalAccess, LocalAccess]]:
    with local_access(tmp_path / "one") as one, local_access(tmp_path / "two") as two:
        two.company_id, two.user_id = CompanyId(one.company_id), UserId(one.user_id)
        yield one, two


def test_equal_states_have_equal_digests_in_any_order(both: tuple[LocalAccess, LocalAccess]) -> None:
    one, two = both
    events = [catalog(), entitled("finance", capabilities=("b", "a")), grant(one.user_id)]
    for event in events:
        one.hold(event)
    two.hold(events[2])
    two.hold(events[0])
    two.hold(entitled("finance", capabilities=("a", "b")))
    assert digest.digests(one.path.cache) == digest.digests(two.path.cache)
    assert len(digest.digests(one.path.cache)) == 3
    two.hold(grant(one.user_id, permissions=("finance.expenses.write",)), version=1)
    assert digest.digests(one.path.cache) == digest.digests(two.path.cache)
    two.hold(grant(one.user_id, permissions=("finance.expenses.write",)), version=2)
    differing = {
        key for key, value in digest.digests(one.path.cache).items() if digest.digests(two.path.cache)[key] != value
    }
    assert differing == {("membership", f"{one.company_id}/{one.user_id}")}
    assert digest.combined(digest.digests(one.path.cache)) != digest.combined(digest.digests(two.path.cache))


def test_a_quarantine_is_a_difference(both: tuple[LocalAccess, LocalAccess]) -> None:
    one, two = both
    for each in both:
        each.hold(grant(one.user_id))
    two.apply(Quarantine(membership_key(one.company_id, one.user_id), "broken"))
    assert digest.digests(one.path.cache) != digest.digests(two.path.cache)


def test_no_alias_and_one_that_is_in_no_catalog_differ(both: tuple[LocalAccess, LocalAccess]) -> None:
    one, two = both
    rows = catalog().permissions
    foreign = rows[0].model_copy(update={"alias_of": "finance.expenses.of_a_later_version"})
    one.hold(PermissionsChanged(module="finance", permissions=rows))
    two.hold(PermissionsChanged(module="finance", permissions=(foreign, *rows[1:])))
    assert rows[0].alias_of is None
    assert digest.digests(one.path.cache) != digest.digests(two.path.cache)
    ((_, _, document),) = digest.documents(two.path.cache)
    assert document["rows"][foreign.key] == [foreign.status.value, "?"]


def test_one_flipped_bit_is_a_difference(both: tuple[LocalAccess, LocalAccess]) -> None:
    one, _ = both
    one.hold(grant(one.user_id))
    before = digest.digests(one.path.cache)
    ((key, record),) = list(one.path.cache.records())
    mask_at = record.index(bytes([1, 1]), 19)
    flipped = record[: mask_at + 1] + bytes([record[mask_at + 1] ^ 2]) + record[mask_at + 2 :]
    with one.path.cache._environment.begin(write=True, db=one.path.cache._generations[0]) as transaction:
        transaction.put(key, flipped)
    assert digest.digests(one.path.cache) != before


def test_the_form_is_the_one_written_down(both: tuple[LocalAccess, LocalAccess]) -> None:
    one, _ = both
    one.hold(grant(one.user_id, scopes={"business_unit": ("b", "a"), "event": ()}))
    document = {
        "epoch": 1,
        "version": 1,
        "status": "active",
        "superadmin": False,
        "modules": {
            "finance": {"permissions": {"finance.expenses.read": None}, "scopes": {"business_unit": ["a", "b"]}}
        },
        "delegations": [],
    }
    written = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    key = f"{one.company_id}/{one.user_id}"
    expected = hashlib.sha256(written).hexdigest()
    assert digest.digests(one.path.cache) == {("membership", key): expected}
    line = f"membership {key} {expected}\n".encode()
    assert digest.combined(digest.digests(one.path.cache)) == hashlib.sha256(line).hexdigest()
