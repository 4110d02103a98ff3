"""For which modules a grant may be stored: the truth table of document 002 §3.4."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.events.entitlements import BaseEntitlement, EntitlementChanged, EntitlementStatus, ModuleEntitlement
from services.auth.projections import rules

NOW = datetime(2026, 5, 21, 9, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
ACTIVE = EntitlementStatus.ACTIVE


def entitlement(
    base: str | None,
    *modules: str,
    status: EntitlementStatus = ACTIVE,
    base_until: datetime | None = None,
    module_until: datetime | None = None,
) -> EntitlementChanged:
    return EntitlementChanged(
        status=status,
        base=None if base is None else BaseEntitlement(module=base, status=status, valid_until=base_until),
        modules=tuple(ModuleEntitlement(key=module, valid_until=module_until) for module in modules),
        capabilities=(),
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (entitlement("promoter", "promoter", "ai"), {"promoter", "ai"}),
        (entitlement("venue", "venue", "ai"), {"venue", "ai"}),
        (entitlement("venue"), {"venue"}),
        (entitlement(None, "ai"), set()),
        *(
            (entitlement("venue", "ai", status=status), set())
            for status in (EntitlementStatus.NONE, EntitlementStatus.SUSPENDED, EntitlementStatus.ENDED)
        ),
        *(
            (entitlement("venue", "ai", status=status), {"venue", "ai"})
            for status in (EntitlementStatus.TRIALING, EntitlementStatus.PAST_DUE)
        ),
    ],
)
def test_the_modules_a_company_may_grant(state: EntitlementChanged, expected: set[str]) -> None:
    eligible = rules.eligible_modules(state)
    assert eligible is not None
    assert set(eligible) == expected


def test_no_module_outlives_the_base() -> None:
    state = entitlement("venue", "ai", base_until=NOW, module_until=LATER)
    assert rules.eligible_modules(state) == {"venue": NOW, "ai": NOW}
    state = entitlement("venue", "ai", base_until=LATER, module_until=NOW)
    assert rules.eligible_modules(state) == {"venue": LATER, "ai": NOW}


def test_what_core_does_not_know_is_granted_by_nobody_and_asked_for_again() -> None:
    eligible = rules.eligible_modules(entitlement("venue", status=EntitlementStatus.UNKNOWN))
    assert eligible is None
    with pytest.raises(rules.EligibilityUnknownError):
        rules.check_eligible("venue", eligible, NOW)


def test_a_module_is_eligible_until_its_end_exclusive() -> None:
    rules.check_eligible("ai", {"ai": None}, NOW)
    rules.check_eligible("ai", {"ai": NOW + timedelta(microseconds=1)}, NOW)
    for eligible in ({"ai": NOW}, {}, {"venue": None}):
        with pytest.raises(rules.ModuleNotEligibleError):
            rules.check_eligible("ai", eligible, NOW)
