"""What goes into a record comes out of it, whatever it is."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access import records
from access.cache import Quarantine, Upsert
from access.ingest import STATE_TOPICS, Ingest
from access.records import (
    MODULE_IDS,
    NEVER,
    AmbiguousEventError,
    Entitlement,
    Membership,
    PermissionTable,
    compile_entitlement,
    compile_membership,
    compile_permissions,
    compile_sessions,
    instant_of,
    is_quarantined,
    microseconds,
    quarantined,
    sessions_of,
    version_of,
)
from contracts.events.auth import (
    Delegation,
    GrantChanged,
    MembershipStatus,
    ModuleGrant,
    PermissionsChanged,
    PermissionState,
    PermissionStatus,
    RevokedSession,
    SessionsChanged,
)
from contracts.events.entitlements import BaseEntitlement, EntitlementChanged, EntitlementStatus, ModuleEntitlement
from contracts.identifiers import UserId, new_id
from contracts.payload import EPOCH_MAX, INTEGER_MAX, VERSION_MAX
from contracts.permissions import PERMISSIONS
from contracts.services import MODULES
from tests.harness.access import ROOT_KEY

INSTANTS = st.datetimes(timezones=st.just(UTC))
EPOCHS = st.integers(1, EPOCH_MAX)
VERSIONS = st.integers(1, INTEGER_MAX)
IDS = st.uuids().map(str) | st.from_regex(r"[A-Za-z0-9_.:-]{1,120}", fullmatch=True)
SCOPES: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(["business_unit", "event", "approval_limit", "tour", "stage", "a_scope_type_of_the_future"]),
    st.just("*") | st.lists(IDS, max_size=4).map(tuple) | st.lists(st.uuids().map(str), max_size=4).map(tuple),
)


@st.composite
def module_grants(draw: st.DrawFn) -> tuple[ModuleGrant, ...]:
    modules = draw(st.lists(st.sampled_from(MODULES), unique=True))
    return tuple(
        ModuleGrant(
            key=module,
            permissions=draw(
                st.dictionaries(st.sampled_from([*PERMISSIONS.get(module, ()), "a.b.c"]), st.none() | INSTANTS)
            ),
            scopes=draw(SCOPES),
        )
        for module in modules
    )


@st.composite
def delegations(draw: st.DrawFn) -> Delegation:
    module = draw(st.sampled_from(MODULES))
    everything: st.SearchStrategy[Any] = st.just("*")
    keys: st.SearchStrategy[Any] = st.lists(st.sampled_from([*PERMISSIONS.get(module, ()), "a.b.c"]), unique=True).map(
        tuple
    )
    return Delegation(
        module=module,
        permissions=draw(everything | keys),
        scopes=draw(SCOPES),
        may_delegate=draw(st.booleans()),
        valid_until=draw(st.none() | INSTANTS),
    )


MEMBERSHIPS = st.builds(
    GrantChanged,
    user_id=st.just(UserId(new_id())),
    status=st.sampled_from(MembershipStatus),
    superadmin=st.booleans(),
    modules=module_grants(),
    delegations=st.lists(delegations(), max_size=2).map(tuple),
)


def _kept_scopes(scopes: Any) -> dict[str, Any]:
    return {name: value if value == "*" else tuple(sorted(set(value))) for name, value in scopes.items() if value}


@given(MEMBERSHIPS, EPOCHS, VERSIONS, st.sets(st.sampled_from(MODULES)))
def test_a_membership_comes_back(event: GrantChanged, epoch: int, version: int, kept: set[str]) -> None:
    raw = compile_membership(event, epoch, version, kept)
    record = Membership(raw)
    assert version_of(raw) == record.version == (epoch, version)
    assert (record.status, record.superadmin) == (event.status, event.superadmin)
    expected = {grant.key: grant for grant in event.modules if grant.key in kept}
    found = dict(record.modules())
    assert found.keys() == expected.keys()
    for key, grant in found.items():
        rows = PERMISSIONS.get(key, {})
        held = {rows[name].bit: until for name, until in expected[key].permissions.items() if name in rows}
        assert {bit for bit in range(256) if grant.mask >> bit & 1} == {bit for bit in held if held[bit] is None}
        assert grant.timed() == {bit: microseconds(until) for bit, until in held.items() if until is not None}
        assert grant.scopes() == _kept_scopes(expected[key].scopes)
    for module, number in MODULE_IDS.items():
        assert (record.grant(number) is None) is (module not in expected)
    kept_delegations = [each for each in event.delegations if each.module in kept]
    assert len(record.delegations()) == len(kept_delegations)
    for delegation in record.delegations():
        assert any(
            delegation.module == each.module
            and delegation.scopes == _kept_scopes(each.scopes)
            and delegation.may_delegate == each.may_delegate
            and (delegation.mask is None) is (each.permissions == "*")
            and instant_of(delegation.valid_until) == each.valid_until
            for each in kept_delegations
        )


@given(
    st.sampled_from(EntitlementStatus),
    st.none()
    | st.builds(
        BaseEntitlement,
        module=st.sampled_from([*MODULES, "new_base"]),
        status=st.sampled_from(EntitlementStatus),
        valid_until=st.none() | INSTANTS,
    ),
    st.dictionaries(st.sampled_from([*MODULES, "new_module"]), st.none() | INSTANTS),
    st.sets(st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True)),
)
def test_an_entitlement_comes_back(
    status: EntitlementStatus,
    base: BaseEntitlement | None,
    modules: dict[str, datetime | None],
    capabilities: set[str],
) -> None:
    event = EntitlementChanged(
        status=status,
        base=base,
        modules=tuple(ModuleEntitlement(key=key, valid_until=until) for key, until in modules.items()),
        capabilities=tuple(capabilities),
    )
    record = Entitlement(compile_entitlement(event, 2, 3))
    assert record.version == (2, 3)
    assert record.status == status
    assert record.modules() == {
        key: NEVER if until is None else microseconds(until) for key, until in modules.items() if key in MODULES
    }
    assert record.capabilities() == tuple(sorted(capabilities))
    if base is None:
        assert record.base is None
    else:
        assert record.base is not None
        assert record.base[0] == (base.module if base.module in MODULES else None)
        assert instant_of(record.base[2]) == base.valid_until


@given(st.integers(0, INTEGER_MAX), st.dictionaries(st.uuids(), INSTANTS, max_size=4))
def test_sessions_come_back(min_gen: int, revoked: dict[Any, datetime]) -> None:
    event = SessionsChanged(
        user_id=UserId(new_id()),
        min_gen=min_gen,
        revoked=tuple(RevokedSession(sid=sid, until=until) for sid, until in revoked.items()),
    )
    record = sessions_of(compile_sessions(event, 1, 9))
    assert (record.epoch, record.version, record.min_gen) == (1, 9, min_gen)
    assert set(record.revoked) == set(revoked)
    assert all(not record.is_live(sid, min_gen) for sid in revoked)
    assert record.is_live(new_id(), min_gen)
    assert min_gen == 0 or not record.is_live(new_id(), min_gen - 1)


ROWS = list(PERMISSIONS["finance"])[:5]


@given(
    st.lists(st.tuples(st.sampled_from(PermissionStatus), st.none() | st.sampled_from([*ROWS, "a.b.c"])), min_size=5)
)
def test_aliases_resolve_as_the_rule_says(states: list[tuple[PermissionStatus, str | None]]) -> None:
    rows = dict(zip(ROWS, states, strict=False))
    event = PermissionsChanged(
        module="finance",
        permissions=tuple(
            PermissionState(key=key, status=status, alias_of=alias) for key, (status, alias) in rows.items()
        ),
    )
    table = PermissionTable(compile_permissions(event, 1, 1))
    assert table.is_unknown is any(status is PermissionStatus.UNKNOWN for status, _ in rows.values())

    def chain(key: str, passed: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The keys a key resolves to, or none where it leads nowhere; written down naively."""
        if key in passed or key not in rows or rows[key][0] is PermissionStatus.REMOVED:
            return ()
        status, alias = rows[key]
        if alias is None:
            return (*passed, key) if status is PermissionStatus.ACTIVE else ()
        return chain(alias, (*passed, key))

    for key in rows:
        givers = {giver for giver in rows if key in chain(giver)} if rows[key][0] is PermissionStatus.ACTIVE else set()
        expected = sum(1 << PERMISSIONS["finance"][giver].bit for giver in givers)
        assert table.required(PERMISSIONS["finance"][key].bit) == expected


def test_a_quarantine_keeps_the_version_and_is_seen_on_every_kind() -> None:
    raw = compile_membership(
        GrantChanged(
            user_id=UserId(new_id()), status=MembershipStatus.ACTIVE, superadmin=False, modules=(), delegations=()
        ),
        3,
        4,
        MODULES,
    )
    assert not Membership(raw).is_unknown
    flagged = quarantined(raw)
    assert version_of(flagged) == (3, 4)
    assert is_quarantined(flagged)
    bare = quarantined(None)
    assert version_of(bare) == (0, 0)
    assert Membership(bare).is_unknown
    assert Membership(flagged).is_unknown
    assert Entitlement(bare).is_unknown
    assert PermissionTable(bare).is_unknown
    assert sessions_of(bare).is_unknown


@pytest.mark.parametrize("count", [1, 254, 255, 256, 5000])
@pytest.mark.parametrize("named", [str, lambda each: f"unit-{each.hex}"], ids=["uuids", "names"])
def test_any_number_of_ids_comes_back(count: int, named: Callable[[UUID], str]) -> None:
    ids = tuple(sorted(named(UUID(int=number)) for number in range(count)))
    grant = ModuleGrant(key="finance", permissions={}, scopes={"business_unit": ids, "event": "*"})
    event = GrantChanged(
        user_id=UserId(new_id()),
        status=MembershipStatus.ACTIVE,
        superadmin=False,
        modules=(grant,),
        delegations=(
            Delegation(
                module="finance",
                permissions=("finance.expenses.read",),
                scopes={"event": ids},
                may_delegate=True,
                valid_until=None,
            ),
        ),
    )
    record = Membership(compile_membership(event, EPOCH_MAX, VERSION_MAX, MODULES))
    ((_, found),) = record.modules()
    assert found.scopes() == {"business_unit": ids, "event": "*"}
    assert [each.scopes for each in record.delegations()] == [{"event": ids}]
    assert record.version == (EPOCH_MAX, VERSION_MAX)


def test_a_module_granted_twice_is_refused() -> None:
    twice = ModuleGrant(key="finance", permissions={}, scopes={})
    event = GrantChanged(
        user_id=UserId(new_id()),
        status=MembershipStatus.ACTIVE,
        superadmin=False,
        modules=(twice, twice),
        delegations=(),
    )
    with pytest.raises(AmbiguousEventError):
        compile_membership(event, 1, 1, MODULES)


@given(
    st.sampled_from(list(STATE_TOPICS)),
    st.binary(max_size=80) | st.uuids().map(lambda value: str(value).encode()) | st.just(b"finance"),
    st.none()
    | st.binary(max_size=200)
    | st.recursive(st.none() | st.integers(), st.lists).map(lambda v: repr(v).encode()),
)
def test_whatever_bytes_come_the_answer_is_a_change_and_no_state(topic: str, key: bytes, value: bytes | None) -> None:
    change = Ingest(modules=MODULES, root_key=ROOT_KEY.public_key()).change_of(topic, 0, key, value)
    assert not isinstance(change, Upsert)
    assert isinstance(change, Quarantine) or hasattr(change, "record_key")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("FORMAT_VERSION", records.FORMAT_VERSION + 1),
        ("MODULES", MODULES[:-1]),
        ("PERMISSIONS", {module: rows for module, rows in PERMISSIONS.items() if module != "finance"}),
        ("_EVENTS", records._EVENTS[1:]),
    ],
    ids=["format", "modules", "permission bits", "events"],
)
def test_what_stored_bytes_depend_on_is_in_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, name: str, other: Any
) -> None:
    before = records.fingerprint()
    assert before == records.fingerprint()
    monkeypatch.setattr(records, name, other)
    assert records.fingerprint() != before
