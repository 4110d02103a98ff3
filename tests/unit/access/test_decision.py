"""Every layer of the decision, in its order, from events to the answer."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from access.cache import BlockPartition, Head, UnblockPartition
from access.decision import Decision, Requirement, UnknownPermissionError, decide
from access.ingest import MEMBERSHIPS, partition_of
from contracts.events.auth import GrantChanged, MembershipStatus, ModuleGrant, PermissionStatus
from contracts.events.entitlements import BaseEntitlement, EntitlementChanged, EntitlementStatus, ModuleEntitlement
from contracts.identifiers import PLATFORM_COMPANY_ID, new_id
from contracts.permissions import PERMISSIONS
from contracts.problems import Reason
from tests.harness.access import catalog, entitled, grant
from tests.harness.local_access import LocalAccess, local_access

READ = Requirement.of("finance.expenses.read")
LIVE_SALES = Requirement.of("promoter.ticket-sales.read")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalAccess]:
    with local_access(tmp_path / "cache") as found:
        for module in PERMISSIONS:
            found.hold(catalog(module))
        yield found


def ask(local: LocalAccess, requirement: Requirement = READ, values: dict[str, Any] | None = None) -> Decision:
    return local.path.decide(local.company_id, local.user_id, requirement, reading=True, values=values)


def test_a_person_with_everything_is_allowed(local: LocalAccess) -> None:
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id))
    assert ask(local).reason is None


def test_without_any_record_nothing_but_the_membership_is_judged(local: LocalAccess) -> None:
    decision = ask(local)
    assert decision.reason is Reason.NOT_A_MEMBER
    assert decision.entitlement is None
    local.hold(entitled("finance"))
    assert repr(ask(local)) == repr(decision)


def test_the_first_failing_layer_is_the_reason(local: LocalAccess) -> None:
    """Starts with every layer failing and repairs them one by one, in the order of the layers."""
    values = {"business_unit": "a", "event": "e"}
    addon, requirement = "live_ticket_sales", LIVE_SALES
    assert requirement.capability == addon
    seen = [ask(local, requirement, values).reason]

    def held(status: MembershipStatus, modules: tuple[ModuleGrant, ...]) -> None:
        local.hold(GrantChanged(user_id=local.user_id, status=status, superadmin=True, modules=modules, delegations=()))
        seen.append(ask(local, requirement, values).reason)

    def bought(event: EntitlementChanged) -> None:
        local.hold(event)
        seen.append(ask(local, requirement, values).reason)

    held(MembershipStatus.SUSPENDED, ())
    held(MembershipStatus.ACTIVE, ())
    bought(entitled(status=EntitlementStatus.ENDED))
    bought(entitled("finance", base="venue"))
    bought(entitled())
    bought(entitled(capabilities=("other", "live_ticket_sales_more")))
    bought(entitled(capabilities=(addon,)))
    key = requirement.key
    out_of_scope = {"business_unit": ("b",), "event": "*"}
    for permissions, scopes in (
        ({}, out_of_scope),
        ({key: local.clock.now}, out_of_scope),
        ({key: None}, out_of_scope),
        ({key: None}, {"business_unit": ("a",), "event": "*"}),
    ):
        held(
            MembershipStatus.ACTIVE,
            (ModuleGrant.model_validate({"key": "promoter", "permissions": permissions, "scopes": scopes}),),
        )
    assert seen == [
        Reason.NOT_A_MEMBER,
        Reason.MEMBERSHIP_INACTIVE,
        Reason.BASE_INACTIVE,
        Reason.BASE_INACTIVE,
        Reason.MODULE_NOT_ENTITLED,
        Reason.CAPABILITY_MISSING,
        Reason.CAPABILITY_MISSING,
        Reason.MODULE_NOT_GRANTED,
        Reason.PERMISSION_MISSING,
        Reason.PERMISSION_MISSING,
        Reason.OUT_OF_SCOPE,
        None,
    ]


@pytest.mark.parametrize("status", [each for each in MembershipStatus if each is not MembershipStatus.ACTIVE])
def test_only_an_active_membership_gives_access(local: LocalAccess, status: MembershipStatus) -> None:
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id, status=status))
    expected = Reason.STATE_UNKNOWN if status is MembershipStatus.UNKNOWN else Reason.MEMBERSHIP_INACTIVE
    assert ask(local).reason is expected


def test_the_superadmin_flag_opens_no_module(local: LocalAccess) -> None:
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id, permissions=(), superadmin=True))
    assert ask(local).reason is Reason.PERMISSION_MISSING


ALL_KEYS = [key for rows in PERMISSIONS.values() for key in rows if key.split(".")[0] in PERMISSIONS]


@pytest.mark.parametrize(
    ("base", "modules", "opened"),
    [
        ("promoter", ("ai",), {"promoter", "ai"}),
        ("venue", ("ai",), {"venue", "ai"}),
        (None, ("ai", "finance"), set()),
        ("artist", (), {"artist"}),
    ],
)
def test_what_a_company_bought_opens_exactly_that(
    local: LocalAccess, base: str | None, modules: tuple[str, ...], opened: set[str]
) -> None:
    """Domain §4: promoter + ai gives exactly promoter.* and ai.*, and an add-on without a base nothing."""
    capabilities = [row.capability for rows in PERMISSIONS.values() for row in rows.values() if row.capability]
    local.hold(entitled(*modules, base=base, capabilities=capabilities))
    local.hold(_everything(local))
    allowed = {key for key in ALL_KEYS if ask(local, Requirement.of(key)).allowed}
    active = {key for key in ALL_KEYS if PERMISSIONS[key.split(".")[0]][key].status == "active"}
    assert allowed == {key for key in active if key.split(".")[0] in opened}


def _everything(local: LocalAccess) -> GrantChanged:
    return GrantChanged(
        user_id=local.user_id,
        status=MembershipStatus.ACTIVE,
        superadmin=False,
        modules=tuple(
            ModuleGrant(key=module, permissions=dict.fromkeys(rows), scopes={}) for module, rows in PERMISSIONS.items()
        ),
        delegations=(),
    )


def test_a_lapsed_base_turns_everything_off_and_its_return_everything_on(local: LocalAccess) -> None:
    local.hold(grant(local.user_id))
    answers = []
    for status in (EntitlementStatus.ACTIVE, EntitlementStatus.ENDED, EntitlementStatus.ACTIVE):
        local.hold(entitled("finance", status=status))
        answers.append(ask(local).reason)
    assert answers == [None, Reason.BASE_INACTIVE, None]


@pytest.mark.parametrize("status", list(EntitlementStatus))
@pytest.mark.parametrize("where", ["company", "base"])
def test_which_statuses_are_entitled(local: LocalAccess, status: EntitlementStatus, where: str) -> None:
    active = EntitlementStatus.ACTIVE
    local.hold(grant(local.user_id))
    base = BaseEntitlement(module="promoter", status=status if where == "base" else active, valid_until=None)
    finance = ModuleEntitlement(key="finance", valid_until=None)
    local.hold(
        EntitlementChanged(
            status=status if where == "company" else active, base=base, modules=(finance,), capabilities=()
        )
    )
    live = {EntitlementStatus.TRIALING, active, EntitlementStatus.PAST_DUE}
    expected = None if status in live else Reason.BASE_INACTIVE
    assert ask(local).reason is (Reason.STATE_UNKNOWN if status is EntitlementStatus.UNKNOWN else expected)


@pytest.mark.parametrize("what", ["base", "module", "permission"])
def test_an_end_is_judged_at_its_microsecond_without_an_event(local: LocalAccess, what: str) -> None:
    end = local.clock.now + timedelta(seconds=3)
    base = BaseEntitlement(
        module="promoter", status=EntitlementStatus.TRIALING, valid_until=end if what == "base" else None
    )
    finance = ModuleEntitlement(key="finance", valid_until=end if what == "module" else None)
    local.hold(EntitlementChanged(status=EntitlementStatus.TRIALING, base=base, modules=(finance,), capabilities=()))
    local.hold(grant(local.user_id, permissions={READ.key: end if what == "permission" else None}))
    local.clock.advance(seconds=3, microseconds=-1)
    assert ask(local).reason is None
    local.clock.advance(microseconds=1)
    assert (
        ask(local).reason
        is {
            "base": Reason.BASE_INACTIVE,
            "module": Reason.MODULE_NOT_ENTITLED,
            "permission": Reason.PERMISSION_MISSING,
        }[what]
    )


def test_a_slow_local_clock_does_not_prolong_a_grant(local: LocalAccess) -> None:
    """Expiry is judged at the later of the local clock and the source's."""
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id, permissions={READ.key: local.clock.now + timedelta(seconds=2)}))
    assert ask(local).reason is None
    local.freshen(ahead_seconds=3)
    assert ask(local).reason is Reason.PERMISSION_MISSING


def test_an_alias_gives_what_it_resolves_to_and_dies_with_it(local: LocalAccess) -> None:
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id, permissions=("finance.expense.view",)))
    assert ask(local).reason is None
    assert ask(local, Requirement.of("finance.expenses.write")).reason is Reason.PERMISSION_MISSING
    local.hold(catalog("finance", finance__expense__view=PermissionStatus.REMOVED))
    assert ask(local).reason is Reason.PERMISSION_MISSING
    local.hold(catalog("finance"))
    assert ask(local).reason is None
    local.hold(catalog("finance", finance__expenses__read=PermissionStatus.REMOVED))
    assert ask(local).reason is Reason.PERMISSION_MISSING


@pytest.mark.parametrize("status", list(PermissionStatus))
def test_a_key_counts_while_it_is_active_in_the_catalog(local: LocalAccess, status: PermissionStatus) -> None:
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id))
    local.hold(catalog("finance", finance__expenses__read=status))
    expected = {PermissionStatus.ACTIVE: None, PermissionStatus.UNKNOWN: Reason.STATE_UNKNOWN}
    assert ask(local).reason is expected.get(status, Reason.PERMISSION_MISSING)


def test_a_module_without_a_catalog_gives_nothing(tmp_path: Path) -> None:
    with local_access(tmp_path / "cache") as local:
        local.hold(entitled("finance"))
        local.hold(grant(local.user_id))
        assert ask(local).reason is Reason.PERMISSION_MISSING


def test_guard_a_asks_for_an_active_membership_only(local: LocalAccess) -> None:
    def answer() -> Reason | None:
        return local.path.decide_active_member(local.company_id, local.user_id, reading=True).reason

    assert answer() is Reason.NOT_A_MEMBER
    local.hold(grant(local.user_id, permissions=()))
    assert answer() is None
    local.hold(grant(local.user_id, status=MembershipStatus.INVITED))
    assert answer() is Reason.MEMBERSHIP_INACTIVE


def test_guard_t_asks_for_the_superadmin_flag(local: LocalAccess) -> None:
    def answer() -> Reason | None:
        return local.path.decide_company_admin(local.company_id, local.user_id).reason

    assert answer() is Reason.NOT_A_MEMBER
    local.hold(grant(local.user_id))
    assert answer() is Reason.PERMISSION_MISSING
    local.hold(grant(local.user_id, superadmin=True))
    assert answer() is None
    local.hold(grant(local.user_id, superadmin=True, status=MembershipStatus.SUSPENDED))
    assert answer() is Reason.MEMBERSHIP_INACTIVE


def test_guard_p_asks_for_a_membership_of_the_platform(local: LocalAccess) -> None:
    def answer() -> Reason | None:
        return local.path.decide_platform_admin(local.user_id).reason

    local.hold(grant(local.user_id, superadmin=True))
    assert answer() is Reason.PERMISSION_MISSING
    local.hold(grant(local.user_id), company_id=PLATFORM_COMPANY_ID)
    assert answer() is None
    local.hold(grant(local.user_id, status=MembershipStatus.REMOVED), company_id=PLATFORM_COMPANY_ID)
    assert answer() is Reason.PERMISSION_MISSING


def test_a_membership_of_one_company_says_nothing_of_another(local: LocalAccess) -> None:
    other = new_id()
    local.hold(entitled("finance"))
    local.hold(entitled("finance"), company_id=other)
    local.hold(grant(local.user_id), company_id=other)
    assert ask(local).reason is Reason.NOT_A_MEMBER


def test_a_key_in_no_catalog_is_refused_when_the_route_is_declared() -> None:
    for key in ("finance.expenses.destroy", "nothing", "basic.events.create", ""):
        with pytest.raises(UnknownPermissionError):
            Requirement.of(key)


def test_no_record_at_all_is_no_member() -> None:
    assert decide(None, None, None, READ, 0).reason is Reason.NOT_A_MEMBER


def test_a_restored_owner_makes_records_of_the_older_epoch_unknown(local: LocalAccess) -> None:
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id))
    assert ask(local).reason is None

    def restored(head: Head) -> Head:
        return replace(head, owners=(head.owners[0], replace(head.owners[1], epoch=2, epoch_floor=2)))

    local.path.cache.apply(0, (), {}, restored)
    assert ask(local).reason is Reason.STATE_UNKNOWN
    local.hold(catalog(), epoch=2)
    assert ask(local).reason is Reason.STATE_UNKNOWN
    local.hold(grant(local.user_id), epoch=2)
    assert ask(local).reason is None


def test_an_unreadable_key_makes_its_partition_unknown(local: LocalAccess) -> None:
    local.hold(entitled("finance"))
    local.hold(grant(local.user_id))
    mine = partition_of(MEMBERSHIPS, f"{local.company_id}/{local.user_id}".encode())
    others = (mine[0], (mine[1] + 1) % 6)
    local.apply(BlockPartition(others, b"broken"))
    assert ask(local).reason is None
    local.apply(BlockPartition(mine, b"broken"))
    assert ask(local).reason is Reason.STATE_UNKNOWN
    local.apply(UnblockPartition(mine, b"broken"))
    assert ask(local).reason is None
