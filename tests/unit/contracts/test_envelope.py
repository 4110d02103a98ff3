import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.envelope import (
    VALUE_SIZE_MAX_BYTES,
    Envelope,
    EventTooLargeError,
    MalformedEventError,
    UndecodableEventError,
    UnknownEventTypeError,
    UnknownMajorVersionError,
    UnknownStatusError,
    WithheldStateError,
    decode,
    encode,
    envelop,
    headers,
)
from contracts.events.auth import GrantChanged, MembershipStatus, ModuleGrant, SessionsChanged
from contracts.events.checkout import Item, TrialStarted
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId, new_id
from contracts.payload import INTEGER_MAX, Payload
from contracts.topics import PAYLOADS

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
COMPANY = CompanyId(UUID("019f4c2a-7b10-7001-8a3e-5d2c91f01eef"))
USER = UserId(UUID("019f4c2a-7b10-7002-8a3e-5d2c91f03dde"))


def grant(**changes: Any) -> GrantChanged:
    module = ModuleGrant(
        key="finance",
        permissions={"finance.expenses.read": None, "finance.expenses.approve": NOW + timedelta(days=1)},
        scopes={"business_unit": ("u1", "u2"), "event": "*"},
    )
    fields: dict[str, Any] = {
        "user_id": USER,
        "status": MembershipStatus.ACTIVE,
        "superadmin": False,
        "modules": (module,),
        "delegations": (),
    }
    return GrantChanged(**{**fields, **changes})


def envelope(data: GrantChanged | None = None, **changes: Any) -> Envelope[GrantChanged]:
    fields: dict[str, Any] = {
        "occurred_at": NOW,
        "company_id": COMPANY,
        "actor_user_id": None,
        "epoch": 1,
        "version": 7,
        "correlation_id": new_id(),
    }
    return envelop(data or grant(), **{**fields, **changes})


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(encode(envelope())), **fields}).encode()


def test_what_is_encoded_is_decoded() -> None:
    sent = envelope(actor_user_id=USER, causation_id=new_id())
    read = decode(encode(sent), (SessionsChanged, GrantChanged))
    assert read == sent
    assert type(read.data) is GrantChanged
    assert read.data.status is MembershipStatus.ACTIVE
    assert read.data.modules[0].scopes == {"business_unit": ("u1", "u2"), "event": "*"}
    assert encode(read) == encode(sent)


def test_type_and_aggregate_follow_from_the_data() -> None:
    sent = envelope()
    assert sent.type == "auth.grant-changed.v1"
    assert sent.aggregate_id == f"{COMPANY}/{USER}"
    assert sent.event_id.version == 7
    assert envelope(event_id=sent.event_id).event_id == sent.event_id


def test_an_envelope_and_its_data_are_frozen() -> None:
    sent = envelope()
    with pytest.raises(ValidationError):
        sent.version = 8  # type: ignore[misc]
    with pytest.raises(ValidationError):
        sent.data.superadmin = True  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 0},
        {"version": 0},
        {"version": INTEGER_MAX + 1},
        {"version": True},
        {"event_id": uuid4()},
        {"occurred_at": NOW.replace(tzinfo=None)},
        {"occurred_at": NOW.astimezone(timezone(timedelta(hours=2)))},
    ],
)
def test_an_envelope_that_could_not_be_ordered_or_placed_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        envelope(**changes)


def test_headers_are_the_type_and_the_trace() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert headers(envelope(), trace) == [("type", b"auth.grant-changed.v1"), ("traceparent", trace.encode())]
    assert headers(envelope(), None) == [("type", b"auth.grant-changed.v1")]


def test_a_value_above_the_limit_is_not_encoded() -> None:
    many = tuple(f"business-unit-{number:06}" for number in range(12_000))
    module = ModuleGrant(key="finance", permissions={}, scopes={"business_unit": many})
    with pytest.raises(EventTooLargeError):
        encode(envelope(grant(modules=(module,))))


def test_facts_keep_their_company_as_context() -> None:
    data = TrialStarted(
        subscription_id=new_id(),
        items=(Item(kind="package", key="basic_promoter"),),
        effective_at=NOW,
        trial_end=NOW + timedelta(days=7),
    )
    sent = envelop(
        data, occurred_at=NOW, company_id=COMPANY, actor_user_id=None, epoch=1, version=1, correlation_id=new_id()
    )
    assert sent.aggregate_id == str(data.subscription_id)


def test_an_event_without_data_tells_whose_state_is_withheld() -> None:
    with pytest.raises(WithheldStateError) as refused:
        decode(changed(data={}), (GrantChanged,))
    assert (refused.value.epoch, refused.value.version) == (1, 7)


@pytest.mark.parametrize("fields", [{"version": "7"}, {"epoch": 0}, {"data": {"status": "active"}}, {"data": []}])
def test_what_is_malformed_besides_tells_of_no_state(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedEventError):
        decode(changed(**{"data": {}, **fields}), (GrantChanged,))


def test_unknown_fields_are_ignored_and_leave_no_trace() -> None:
    assert b"added" not in encode(decode(changed(added=[{"a": 1}]), (GrantChanged,)))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", MalformedEventError),
        (b"\xff\xfe{\x00}\x00", MalformedEventError),
        (b"\xef\xbb\xbf{}", MalformedEventError),
        (b"null", MalformedEventError),
        (b"[]", MalformedEventError),
        (b"{}", MalformedEventError),
        (b'{"type":7}', MalformedEventError),
        (b'{"type":"grant"}', MalformedEventError),
        (b'{"type":"auth.grant-changed.v1\\n"}', MalformedEventError),
        (b"[" * 100_000, MalformedEventError),
        (b'{"a":' * 100_000, MalformedEventError),
        (b'{"a":1' + b"0" * 200_000 + b"}", MalformedEventError),
        (b'{"type":"auth.grant-changed.v2"}', UnknownMajorVersionError),
        (b'{"type":"auth.grant-changed.v10"}', UnknownMajorVersionError),
        (b'{"type":"auth.grant-moved.v1"}', UnknownEventTypeError),
        (b'{"type":"finance.grant-changed.v1"}', UnknownEventTypeError),
    ],
)
def test_what_is_no_event_is_refused_by_kind(value: bytes, error: type[UndecodableEventError]) -> None:
    with pytest.raises(UndecodableEventError) as refused:
        decode(value, (GrantChanged,))
    assert type(refused.value) is error


def test_a_value_above_the_limit_is_not_read() -> None:
    padded = encode(envelope()) + b" " * VALUE_SIZE_MAX_BYTES
    with pytest.raises(MalformedEventError, match="larger"):
        decode(padded, (GrantChanged,))


@pytest.mark.parametrize(
    "literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", str(INTEGER_MAX + 1), str(-INTEGER_MAX - 1)]
)
def test_numbers_that_readers_take_differently_are_refused_even_in_ignored_fields(literal: str) -> None:
    value = encode(envelope())[:-1] + f',"ignored":{{"deep":[{literal}]}}}}'.encode()
    with pytest.raises(MalformedEventError, match=r"number|NaN"):
        decode(value, (GrantChanged,))


@pytest.mark.parametrize("literal", [str(INTEGER_MAX), str(-INTEGER_MAX), "1.5e300", "0"])
def test_numbers_that_all_readers_take_are_ignored_there(literal: str) -> None:
    decode(encode(envelope())[:-1] + f',"ignored":{literal}}}'.encode(), (GrantChanged,))


def test_a_repeated_key_is_refused_at_any_depth() -> None:
    value = encode(envelope())
    for repeated in (b'"status":"removed","status":"active"', b'"st\\u0061tus":"removed","status":"active"'):
        with pytest.raises(MalformedEventError, match="repeated"):
            decode(value.replace(b'"status":"active"', repeated), (GrantChanged,))
    with pytest.raises(MalformedEventError, match="repeated"):
        decode(value[:-1] + b',"version":9}', (GrantChanged,))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "7"},
        {"version": 7.0},
        {"version": True},
        {"epoch": 0},
        {"event_id": "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"},
        {"occurred_at": "2026-11-21T09:30:00"},
        {"occurred_at": "2026-11-21T11:30:00+02:00"},
        {"occurred_at": 1795253400},
        {"company_id": None},
        {"aggregate_id": f"{COMPANY}/{COMPANY}"},
        {"company_id": str(PLATFORM_COMPANY_ID)},
        {"data": None},
    ],
    ids=str,
)
def test_what_does_not_fit_is_malformed(fields: dict[str, Any]) -> None:
    with pytest.raises(UndecodableEventError) as refused:
        decode(changed(**fields), (GrantChanged,))
    assert type(refused.value) is MalformedEventError


def test_a_status_added_later_is_not_taken_for_another() -> None:
    value = encode(envelope()).replace(b'"status":"active"', b'"status":"paused"')
    with pytest.raises(UnknownStatusError, match="/data/status"):
        decode(value, (GrantChanged,))


def test_an_unknown_status_beside_another_fault_is_malformed() -> None:
    value = encode(envelope()).replace(b'"status":"active","superadmin":false', b'"status":"paused","superadmin":0')
    with pytest.raises(MalformedEventError):
        decode(value, (GrantChanged,))


def test_an_error_holds_no_value_of_the_record() -> None:
    with pytest.raises(MalformedEventError) as refused:
        decode(changed(company_id="canary", actor_user_id="canary"), (GrantChanged,))
    assert "canary" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_payload_class_must_name_a_type_of_the_right_form() -> None:
    with pytest.raises(TypeError, match=r"owner\.past-tense-fact"):
        type("Wrong", (Payload,), {"event_type": "GrantChanged", "__module__": __name__, "__annotations__": {}})


@given(st.binary())
def test_any_bytes_are_refused_with_a_declared_error(value: bytes) -> None:
    with pytest.raises(UndecodableEventError):
        decode(value, PAYLOADS.values())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(PAYLOADS)), st.dictionaries(st.sampled_from(sorted(Envelope.model_fields)), _JSON), _JSON)
def test_any_json_of_a_known_type_is_refused_with_a_declared_error(
    event_type: str, fields: dict[str, Any], data: Any
) -> None:
    value = json.dumps({**fields, "type": event_type, "data": data}).encode()
    with pytest.raises(UndecodableEventError):
        decode(value, PAYLOADS.values())


@given(st.data())
def test_one_changed_field_is_read_or_refused_with_a_declared_error(data: st.DataObject) -> None:
    document = json.loads(encode(envelope()))
    target = data.draw(st.sampled_from([document, document["data"], document["data"]["modules"][0]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(_JSON)
    try:
        read = decode(json.dumps(document).encode(), (GrantChanged,))
    except UndecodableEventError:
        return
    assert decode(encode(read), (GrantChanged,)) == read


@pytest.mark.parametrize(
    "written",
    [
        lambda value: value.replace(b'"version":7', b'"version": 7'),
        lambda value: value.replace(b'"version":7', b'"version":7,"version":7'),
        lambda value: value.replace(b'"version":7', b'"version":7.0'),
        lambda value: value.replace(b'"version":7', b'"version":7,"later":1e400'),
        lambda value: value.replace(b'"superadmin":false', b'"superadmin":true,"superadmin":false'),
        lambda value: value.replace(b'"scopes":{', b'"scopes":{"event":["1"],'),
        lambda value: json.dumps(json.loads(value), sort_keys=True).encode(),
    ],
)
def test_what_is_not_written_as_always_is_looked_at_as_strictly(written: Callable[[bytes], bytes]) -> None:
    """With one payload, events as `encode` writes them are believed without a look; any other is judged as with two."""
    value = written(encode(envelope()))
    assert value != encode(envelope())
    assert read(value, (GrantChanged,)) == read(value, (SessionsChanged, GrantChanged))


def read(value: bytes, payloads: tuple[type[Payload], ...]) -> Any:
    try:
        return decode(value, payloads)
    except UndecodableEventError as error:
        return str(error)


def test_ids_are_time_ordered_and_distinct() -> None:
    ids = [new_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert {made.version for made in ids} == {7}
    assert ids == sorted(ids)
    assert PLATFORM_COMPANY_ID.version == 7
    assert min(ids) > PLATFORM_COMPANY_ID
