"""The entitlement is a function of the set of facts, and of nothing else."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.events.checkout import Item, PaymentFailed, TrialStarted
from contracts.events.entitlements import EntitlementStatus
from contracts.services import ADDON_MODULES, BASE_MODULES
from services.entitlements.catalog.rules import ItemUnknownError
from services.entitlements.companies.rules import (
    Entitlement,
    Ground,
    PurchaseFactData,
    derive,
    explain,
    next_end,
    published,
)
from tests.unit.entitlements.purchases import (
    CATALOG,
    MONTH,
    START,
    activated,
    at,
    canceled,
    ended,
    items,
    past_due,
    purchased,
    recorded,
    refunded,
    renewed,
    subscription,
    trial,
)


def of(*facts: PurchaseFactData) -> Entitlement:
    return derive(recorded(*facts), CATALOG)


def usable(entitlement: Entitlement, day: float) -> set[str]:
    """What a module service lets through on a day: base live, and the module's own end to come."""
    state = published(entitlement, suspended=False, now=at(day))
    entitled = {EntitlementStatus.TRIALING, EntitlementStatus.ACTIVE, EntitlementStatus.PAST_DUE}
    if state.base is None or state.base.status not in entitled:
        return set()
    if state.base.valid_until is not None and at(day) >= state.base.valid_until:
        return set()
    return {each.key for each in state.modules if each.valid_until is None or at(day) < each.valid_until}


# The truth table of 002 §3.4 (domain §4).


@pytest.mark.parametrize("base", BASE_MODULES)
@pytest.mark.parametrize("addon", ADDON_MODULES)
def test_a_base_and_an_addon_give_exactly_these_two_where_they_are_compatible(base: str, addon: str) -> None:
    held = of(purchased("one", f"basic_{base}", addon), activated("one", f"basic_{base}", addon))
    expected = {base, addon} if base in CATALOG.modules[addon].compatible_bases else {base}
    assert usable(held, 1) == expected


def test_an_addon_without_a_base_gives_nothing_and_is_kept() -> None:
    held = of(purchased("one", "ai"), activated("one", "ai"))
    assert (held.status, held.base, held.modules) == (EntitlementStatus.NONE, None, ())
    assert usable(held, 1) == set()
    assert [each.key for each in held.kept] == ["ai"]


def test_a_base_that_ends_turns_everything_off_and_one_that_returns_brings_the_addon_back() -> None:
    facts: list[PurchaseFactData] = [
        activated("base", "basic_promoter"),
        activated("extra", "ai"),
        ended("base", "basic_promoter", day=3),
    ]
    over = of(*facts)
    assert (over.status, usable(over, 4)) == (EntitlementStatus.ENDED, set())
    back = of(*facts, activated("again", "basic_promoter", day=5))
    assert (back.status, usable(back, 6)) == (EntitlementStatus.ACTIVE, {"promoter", "ai"})


def test_a_base_whose_time_is_over_turns_everything_off_without_any_event() -> None:
    held = of(trial("base", "basic_promoter"), activated("extra", "ai"))
    assert usable(held, 6.999) == {"promoter", "ai"}
    assert usable(held, 7) == set()


def test_there_is_one_base_even_if_facts_show_two() -> None:
    held = of(activated("one", "basic_promoter"), activated("two", "basic_venue", day=1))
    assert usable(held, 2) == {"venue"}


# Statuses, and the ends they set.


def test_a_trial_is_for_seven_days_and_covers_the_addons_bought_with_it() -> None:
    held = of(trial("one", "basic_promoter", "finance"))
    assert (held.status, {each.valid_until for each in held.modules}) == (EntitlementStatus.TRIALING, {at(7)})


def test_a_paid_period_ends_when_it_ends_and_a_renewal_prolongs_it() -> None:
    facts: list[PurchaseFactData] = [activated("one", "basic_promoter")]
    assert of(*facts).modules[0].valid_until == START + MONTH
    assert of(*facts, renewed("one", "basic_promoter", day=29, from_day=30)).modules[0].valid_until == at(60)


def test_a_purchase_alone_grants_its_period_should_its_activation_be_late() -> None:
    held = of(purchased("one", "basic_promoter", "finance"))
    assert (held.status, usable(held, 29), usable(held, 30)) == (
        EntitlementStatus.ACTIVE,
        {"promoter", "finance"},
        set(),
    )


def test_a_failed_payment_changes_nothing_and_past_due_lasts_for_its_grace() -> None:
    failed = PaymentFailed(
        subscription_id=subscription("one"),
        items=items("basic_promoter"),
        effective_at=at(30),
        attempt=1,
        next_attempt_at=at(32),
    )
    facts: list[PurchaseFactData] = [activated("one", "basic_promoter"), failed]
    assert of(*facts) == of(facts[0])
    due = of(*facts, past_due("one", "basic_promoter", day=30, grace_until=44))
    assert (due.status, usable(due, 43.9), usable(due, 44)) == (EntitlementStatus.PAST_DUE, {"promoter"}, set())
    paid = of(
        *facts,
        past_due("one", "basic_promoter", day=30, grace_until=44),
        activated("one", "basic_promoter", day=35),
    )
    assert (paid.status, usable(paid, 64)) == (EntitlementStatus.ACTIVE, {"promoter"})


def test_a_cancellation_at_the_period_s_end_leaves_the_period_and_one_now_takes_all() -> None:
    facts: list[PurchaseFactData] = [activated("one", "basic_promoter")]
    later = of(*facts, canceled("one", "basic_promoter", day=3, ends=20))
    assert (later.status, usable(later, 19), usable(later, 20)) == (EntitlementStatus.ACTIVE, {"promoter"}, set())
    at_once = of(*facts, canceled("one", "basic_promoter", day=3, ends=3))
    assert (at_once.status, usable(at_once, 2)) == (EntitlementStatus.ENDED, set())


def test_a_cancellation_never_prolongs_what_was_bought() -> None:
    held = of(trial("one", "basic_promoter"), canceled("one", "basic_promoter", day=1, ends=90))
    assert held.modules[0].valid_until == at(7)


def test_what_was_given_back_is_gone_and_the_rest_stays() -> None:
    facts: list[PurchaseFactData] = [
        purchased("one", "basic_promoter", "finance"),
        activated("one", "basic_promoter", "finance"),
    ]
    assert usable(of(*facts, refunded("one", "finance", day=4)), 5) == {"promoter"}
    everything = of(*facts, refunded("one", "basic_promoter", "finance", day=4))
    assert (everything.status, usable(everything, 5)) == (EntitlementStatus.ENDED, set())


# Capabilities.


@pytest.mark.parametrize(
    ("bought", "capabilities"),
    [
        (("basic_promoter", "venue_directory"), ["venue_directory"]),
        (("basic_promoter", "live_ticket_sales", "vendor_directory"), ["live_ticket_sales", "vendor_directory"]),
        (("basic_promoter", "ai_sales_report"), []),
        (("basic_promoter", "ai", "ai_sales_report"), ["ai_sales_report"]),
        (("basic_venue", "venue_directory"), []),
        (("venue_directory",), []),
    ],
)
def test_a_capability_needs_a_module_it_attaches_to(bought: tuple[str, ...], capabilities: list[str]) -> None:
    held = of(activated("one", *bought))
    assert list(published(held, suspended=False, now=at(1)).capabilities) == capabilities


def test_a_capability_whose_time_is_over_is_not_published() -> None:
    held = of(activated("one", "basic_promoter", day=10), activated("two", "venue_directory"))
    assert published(held, suspended=False, now=at(29)).capabilities == ("venue_directory",)
    assert published(held, suspended=False, now=at(30)).capabilities == ()


def test_what_is_over_is_not_published() -> None:
    held = of(activated("one", "basic_promoter", day=10), activated("two", "ai"))
    before, after = (published(held, suspended=False, now=at(day)) for day in (29.999, 30))
    assert [each.key for each in before.modules] == ["promoter", "ai"]
    assert [each.key for each in after.modules] == ["promoter"]
    over = published(held, suspended=False, now=at(40))
    assert (over.status, over.base, over.modules, over.capabilities) == (EntitlementStatus.ENDED, None, (), ())
    assert published(held, suspended=True, now=at(40)).status is EntitlementStatus.SUSPENDED


def test_what_ends_next_is_the_first_end_to_come() -> None:
    held = of(
        activated("one", "basic_promoter", day=3), activated("two", "venue_directory", day=2), activated("three", "ai")
    )
    days: tuple[float, ...] = (0, 29.999, 30, 31.999, 32, 32.999, 33, 99)
    ends = [None if (end := next_end(held, at(day))) is None else (end - START).days for day in days]
    assert ends == [30, 30, 32, 32, 33, 33, None, None]
    assert next_end(of(), at(0)) is None
    assert next_end(of(activated("one", "ai")), at(0)) is None


# Order, repetition, lateness.

_HISTORIES: list[list[PurchaseFactData]] = [
    [
        trial("base", "basic_promoter", "finance"),
        purchased("base", "basic_promoter", day=5),
        activated("base", "basic_promoter", day=5),
        renewed("base", "basic_promoter", day=34, from_day=35),
        canceled("base", "basic_promoter", day=40, ends=65),
    ],
    [
        purchased("base", "basic_venue", "ai"),
        activated("base", "basic_venue", "ai"),
        refunded("base", "ai", day=2),
        purchased("extra", "ai", day=2),
        activated("extra", "ai", "ai_sales_report", day=2),
        past_due("base", "basic_venue", day=30, grace_until=44),
        ended("extra", "ai", "ai_sales_report", day=31),
    ],
    [
        activated("base", "basic_artist"),
        canceled("base", "basic_artist", day=1, ends=1),
        ended("base", "basic_artist", day=1),
        trial("next", "basic_vendor", day=1),
    ],
]


@given(data=st.data(), history=st.sampled_from(_HISTORIES))
def test_any_order_with_any_repetition_gives_the_same_entitlement(
    data: st.DataObject, history: list[PurchaseFactData]
) -> None:
    facts = recorded(*history)
    repeated = [*facts, *data.draw(st.lists(st.sampled_from(facts)))]
    assert derive(data.draw(st.permutations(repeated)), CATALOG) == derive(facts, CATALOG)


_KEYS = st.lists(st.sampled_from([*CATALOG.packages, *CATALOG.addons]), min_size=1, max_size=3, unique=True)
_DAYS = st.integers(min_value=0, max_value=5)


@st.composite
def _facts(draw: st.DrawFn) -> PurchaseFactData:
    name, keys, day = draw(st.sampled_from(["one", "two"])), draw(_KEYS), draw(_DAYS)
    made: list[Callable[[], PurchaseFactData]] = [
        lambda: trial(name, *keys, day=day),
        lambda: purchased(name, *keys, day=day),
        lambda: refunded(name, *keys, day=day),
        lambda: past_due(name, *keys, day=day, grace_until=day + 14),
        lambda: canceled(name, *keys, day=day, ends=day + draw(_DAYS)),
        lambda: ended(name, *keys, day=day),
        lambda: activated(name, *keys, day=day),
    ]
    return draw(st.sampled_from(made))()


@given(history=st.lists(_facts(), max_size=8), data=st.data())
def test_whatever_the_facts_and_their_order_the_result_is_one_and_its_invariants_hold(
    history: list[PurchaseFactData], data: st.DataObject
) -> None:
    facts = recorded(*history)
    held = derive(facts, CATALOG)
    assert derive(data.draw(st.permutations(facts)), CATALOG) == held
    bases = [each.key for each in held.modules if CATALOG.modules[each.key].type == "base"]
    assert bases == ([held.base.module] if held.base else [])
    if held.base is None:
        assert (held.modules, held.capabilities) == ((), ())
    else:
        assert all(CATALOG.fits(each.key, held.base.module) for each in held.modules[1:])


def test_facts_of_one_instant_apply_in_the_order_checkout_counted_them() -> None:
    resumed = recorded(canceled("one", "basic_promoter", day=1, ends=1), activated("one", "basic_promoter", day=1))
    assert derive(reversed(resumed), CATALOG).status is EntitlementStatus.ACTIVE


def test_a_fact_about_something_unknown_grants_nothing() -> None:
    unknown = TrialStarted(
        subscription_id=UUID(int=1),
        items=(*items("basic_promoter"), Item(kind="package", key="basic_agency")),
        effective_at=START,
        trial_end=START + timedelta(days=7),
    )
    with pytest.raises(ItemUnknownError, match="package/basic_agency"):
        of(unknown)


# Suspension and explanation.


def test_a_suspended_company_has_nothing_and_what_it_bought_is_untouched() -> None:
    held = of(activated("one", "basic_promoter", "ai", "ai_sales_report"))
    state = published(held, suspended=True, now=at(1))
    assert state.base is not None
    assert (state.status, state.base.status, state.modules, state.capabilities) == ("suspended", "suspended", (), ())
    assert published(held, suspended=False, now=at(1)).modules != ()


@pytest.mark.parametrize(
    ("facts", "module", "day", "ground"),
    [
        ([], "finance", 0, Ground.NO_BASE),
        ([activated("one", "finance")], "finance", 1, Ground.NO_BASE),
        ([trial("one", "basic_promoter", "finance")], "finance", 6, Ground.ENTITLED),
        ([trial("one", "basic_promoter", "finance")], "promoter", 6, Ground.ENTITLED),
        ([trial("one", "basic_promoter", "finance")], "finance", 7, Ground.BASE_EXPIRED),
        ([trial("one", "basic_promoter")], "finance", 1, Ground.NOT_BOUGHT),
        ([trial("one", "basic_promoter")], "venue", 1, Ground.OTHER_BASE),
        ([activated("one", "basic_venue", "touring")], "touring", 1, Ground.NOT_COMPATIBLE),
        ([activated("one", "basic_promoter", day=9), activated("two", "ai")], "ai", 31, Ground.EXPIRED),
    ],
)
def test_a_module_that_is_off_says_why(facts: list[PurchaseFactData], module: str, day: float, ground: Ground) -> None:
    answer = explain(of(*facts), CATALOG, module, suspended=False, now=at(day))
    assert (answer.ground, answer.entitled) == (ground, ground is Ground.ENTITLED)
    assert answer.entitled == (module in usable(of(*facts), day))
    suspended = explain(of(*facts), CATALOG, module, suspended=True, now=at(day))
    assert (suspended.ground, suspended.entitled) == (Ground.COMPANY_SUSPENDED, False)
