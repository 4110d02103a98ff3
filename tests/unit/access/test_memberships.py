"""The short way of a membership into the cache: what it takes, the long way judges the same."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access import memberships
from access.cache import Change, Quarantine, Upsert
from access.ingest import MEMBERSHIPS, Ingest, partition_of
from access.memberships import membership_of
from contracts.envelope import VALUE_SIZE_MAX_BYTES, encode, envelop
from contracts.events.auth import Delegation, GrantChanged, ModuleGrant
from contracts.identifiers import CompanyId, UserId, new_id
from contracts.payload import EPOCH_MAX, VERSION_MAX
from contracts.services import MODULES
from tests.harness.access import ROOT_KEY, grant
from tests.unit.access.test_records import EPOCHS, INSTANTS, VERSIONS
from tests.unit.access.test_records import MEMBERSHIPS as EVENTS

COMPANY, USER, UNIT = CompanyId(new_id()), UserId(new_id()), str(new_id())
KEPT: Final = frozenset({"finance", "venue"})
INGEST: Final = Ingest(modules=KEPT, root_key=ROOT_KEY.public_key())


def record(
    data: GrantChanged,
    *,
    epoch: int = 1,
    version: int = 1,
    occurred_at: datetime = datetime(2026, 5, 21, 9, tzinfo=UTC),
) -> tuple[bytes, bytes]:
    envelope = envelop(
        data,
        occurred_at=occurred_at,
        company_id=COMPANY,
        actor_user_id=USER if version % 2 else None,
        epoch=epoch,
        version=version,
        correlation_id=new_id(),
        causation_id=new_id() if version % 3 else None,
    )
    return envelope.aggregate_id.encode(), encode(envelope)


def change_of(key: bytes, value: bytes) -> Change:
    return INGEST.change_of(*partition_of(MEMBERSHIPS, key), key, value)


def the_long_way(key: bytes, value: bytes) -> Change:
    """A record with a space before it says the same and is not of the one form."""
    assert membership_of(key, b" " + value, KEPT) is None
    return change_of(key, b" " + value)


MEMBER: Final = GrantChanged(
    user_id=USER,
    status=grant(USER).status,
    superadmin=False,
    modules=(
        ModuleGrant(key="venue", permissions={"venue.events.read": None}, scopes={"venue": "*"}),
        ModuleGrant(
            key="finance",
            permissions={"finance.expenses.read": None, "finance.expenses.write": datetime(2030, 1, 1, tzinfo=UTC)},
            scopes={"business_unit": (UNIT,), "event": (), "approval_limit": ("low", UNIT)},
        ),
    ),
    delegations=(),
)
KEY, VALUE = record(MEMBER)


@given(EVENTS, EPOCHS, VERSIONS, INSTANTS)
def test_both_ways_lead_to_the_same(event: GrantChanged, epoch: int, version: int, occurred_at: datetime) -> None:
    key, value = record(event, epoch=epoch, version=version, occurred_at=occurred_at)
    short = membership_of(key, value, KEPT)
    if event.delegations or version > VERSION_MAX:
        assert short is None
    else:
        assert short == the_long_way(key, value)


@given(st.data())
def test_whatever_becomes_of_the_bytes_both_ways_judge_the_same(data: st.DataObject) -> None:
    value = VALUE
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(value)))
        end = data.draw(st.integers(begin, min(len(value), begin + 60)))
        copied = data.draw(st.integers(0, len(value)))
        instead = data.draw(st.binary(max_size=2) | st.just(value[copied : copied + end - begin]))
        value = value[:begin] + instead + value[end:]
    assert membership_of(KEY, value, KEPT) in {None, the_long_way(KEY, value)}


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    def replace(value: bytes) -> bytes:
        assert old.encode() in value
        return value.replace(old.encode(), new.encode(), 1)

    return replace


def substituted(pattern: str, new: str) -> Callable[[bytes], bytes]:
    def substitute(value: bytes) -> bytes:
        changed, count = re.subn(pattern.encode(), new.encode(), value, count=1)
        assert count
        return changed

    return substitute


GRANT: Final = '{"key":"finance","permissions":{},"scopes":{}}'
REFUSED: Final = {
    "an event id of another kind": substituted('"event_id":"[^"]*"', f'"event_id":"{uuid4()}"'),
    "a day its month has not": replaced('"occurred_at":"2026-05-21', '"occurred_at":"2026-02-30'),
    "an hour no day has": replaced("T09:00:00Z", "T24:00:00Z"),
    "a minute no hour has": replaced("T09:00:00Z", "T09:60:00Z"),
    "another company": substituted('"company_id":"[^"]*"', f'"company_id":"{new_id()}"'),
    "another person": substituted('"user_id":"[^"]*"', f'"user_id":"{new_id()}"'),
    "another aggregate": substituted('"aggregate_id":"[^/]*', f'"aggregate_id":"{COMPANY}'.replace("-", "")),
    "an actor who is none": substituted('"actor_user_id":"[^"]*"', '"actor_user_id":"nobody"'),
    "no correlation": substituted('"correlation_id":"[^"]*"', '"correlation_id":null'),
    "no cause": substituted('"causation_id":"[^"]*"', '"causation_id":""'),
    "another type": replaced("grant-changed", "grant_changed"),
    "an epoch nobody counted up to": replaced('"epoch":1', f'"epoch":{EPOCH_MAX + 1}'),
    "a version nobody counted up to": replaced('"version":1', f'"version":{VERSION_MAX + 1}'),
    "epoch 0": replaced('"epoch":1', '"epoch":0'),
    "version 0": replaced('"version":1', '"version":0'),
    "a version with a zero before it": replaced('"version":1', '"version":01'),
    "a status of the future": replaced('"active"', '"hibernating"'),
    "superadmin by number": replaced('"superadmin":false', '"superadmin":0'),
    "a permission twice": replaced(
        '"finance.expenses.read":null', '"finance.expenses.read":null,"finance.expenses.read":null'
    ),
    "one permission in two forms": replaced(
        '"finance.expenses.read":null', '"finance.expenses.read":null,"finance.expenses.re\\\\u0061d":null'
    ),
    "a permission that is none": replaced('"finance.expenses.read"', '"finance"'),
    "an end that is none": replaced('"2030-01-01T00:00:00Z"', '"2030-01-01T00:00:00"'),
    "a permission of another module that is none": replaced('"venue.events.read"', '"venue"'),
    "a module that is none": replaced('{"key":"venue"', '{"key":"Venue"'),
    "a module twice": replaced('"modules":[', f'"modules":[{GRANT},'),
    "a grant without an end": replaced('"scopes":{"venue":"*"}},', '"scopes":{"venue":"*"},'),
    "a grant without scopes": replaced('},"scopes":{"venue":"*"}}', "}}"),
    "nothing for a grant": replaced('"modules":[', '"modules":[,'),
    "nothing behind the last grant": replaced(']}}],"delegations"', ']}},],"delegations"'),
    "a scope twice": replaced('"event":[]', '"event":[],"event":[]'),
    "a scope type that is none": replaced('"event":[]', '"Event":[]'),
    "a scope id that is none": replaced('"low"', '"lo w"'),
    "a scope id as a number": replaced('"low"', "7"),
    "nothing for a scope id": replaced('"low"', ""),
    "a scope that is neither": replaced('{"venue":"*"}', '{"venue":"**"}'),
    "nothing for a scope": replaced('"event":[]', ""),
    "nothing behind the last scope": replaced('"event":[],', '"event":[],,'),
    "a comma behind the last scope": replaced('{"venue":"*"}', '{"venue":"*",}'),
    "too many scope types": replaced('"event":[]', ",".join(f'"type_{number}":"*"' for number in range(256))),
    "more than one event": lambda value: value + value,
    "something behind it": lambda value: value + b"x",
    "a list of it": lambda value: b"[" + value + b"]",
    "larger than any event": replaced(
        '"event":[]', '"event":[' + ",".join(f'"{UNIT}"' for _ in range(VALUE_SIZE_MAX_BYTES // 38)) + "]"
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_long_way_refuses_the_short_way_does_not_take(kind: str) -> None:
    value = REFUSED[kind](VALUE)
    assert membership_of(KEY, value, KEPT) is None
    assert isinstance(the_long_way(KEY, value), Quarantine)
    assert isinstance(change_of(KEY, value), Quarantine)


def test_the_short_way_takes_what_nothing_was_done_to() -> None:
    change = membership_of(KEY, VALUE, KEPT)
    assert isinstance(change, Upsert)
    assert change_of(KEY, VALUE) == change == the_long_way(KEY, VALUE)


def test_a_state_under_anothers_key_is_not_taken() -> None:
    for key in (f"{COMPANY}/{new_id()}".encode(), f"{new_id()}/{USER}".encode(), KEY.upper(), b""):
        assert membership_of(key, VALUE, KEPT) is None


def test_who_may_grant_goes_the_long_way() -> None:
    delegation = Delegation(module="finance", permissions="*", scopes={}, may_delegate=False, valid_until=None)
    key, value = record(grant(USER, delegations=(delegation,)))
    assert membership_of(key, value, KEPT) is None
    assert isinstance(change_of(key, value), Upsert)


def test_a_module_that_is_not_kept_may_stand_there_twice() -> None:
    key, value = record(MEMBER.model_copy(update={"modules": (*MEMBER.modules, *grant(USER, module="ai").modules * 2)}))
    assert membership_of(key, value, KEPT) == the_long_way(key, value)
    assert isinstance(membership_of(key, value, KEPT), Upsert)


def test_what_people_hold_alike_is_read_once_and_what_is_remembered_is_bounded() -> None:
    memberships._held.cache_clear()
    for _ in range(3):
        assert membership_of(*record(MEMBER), KEPT) is not None
    assert memberships._held.cache_info()[:2] == (4, 2)
    many = {f"finance.expenses.a{number}": None for number in range(200)}
    key, value = record(grant(USER, permissions=many))
    assert membership_of(key, value, KEPT) is None
    assert isinstance(change_of(key, value), Upsert)
    assert memberships._held.cache_info().currsize == 2
    assert memberships._held.cache_info().maxsize == 4096


def test_what_a_cache_keeps_does_not_depend_on_what_another_has_remembered() -> None:
    for kept in (KEPT, frozenset(MODULES), frozenset[str](), frozenset({"venue"})):
        ingest = Ingest(modules=kept, root_key=ROOT_KEY.public_key())
        partition = partition_of(MEMBERSHIPS, KEY)
        assert membership_of(KEY, VALUE, kept) == ingest.change_of(*partition, KEY, b" " + VALUE)
