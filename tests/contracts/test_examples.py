"""Golden examples: every one parses for ever, and is written back as it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.envelope import Envelope, UnknownMajorVersionError, UnknownStatusError, decode, encode
from contracts.payload import OpenStatus, Payload
from contracts.schema_export import EXAMPLES_FOLDER, schemas
from contracts.topics import PAYLOADS, TOPICS

EXAMPLES = sorted(EXAMPLES_FOLDER.glob("*/*.json"))
#: Fields that would hold a person's data; names and addresses stay in Auth.
PERSONAL = {"name", "first_name", "last_name", "full_name", "email", "mail", "phone", "address", "ip", "birthday"}


def _read(path: Path) -> Envelope[Payload]:
    return decode(path.read_bytes(), PAYLOADS.values())


def test_every_event_type_has_an_example() -> None:
    assert {path.parent.name for path in EXAMPLES} == set(PAYLOADS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_is_read_and_written_back(path: Path) -> None:
    envelope = _read(path)
    assert envelope.type == path.parent.name
    assert json.loads(encode(envelope)) == json.loads(path.read_text(encoding="utf-8"))
    assert encode(decode(encode(envelope), PAYLOADS.values())) == encode(envelope)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fields_a_newer_writer_adds_are_ignored(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    newer = {**document, "added": {"later": [1.5]}, "data": {**document["data"], "added": None}}
    assert decode(json.dumps(newer).encode(), PAYLOADS.values()) == _read(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_another_major_version_is_told_apart(path: Path) -> None:
    newer = path.read_bytes().replace(b'.v1"', b'.v2"')
    with pytest.raises(UnknownMajorVersionError):
        decode(newer, PAYLOADS.values())


def _statuses(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, OpenStatus):
        return [where]
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _statuses(item, (*where, key))]
    if isinstance(value, list | tuple):
        return [found for index, item in enumerate(value) for found in _statuses(item, (*where, index))]
    return []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_status_added_later_is_told_apart(path: Path) -> None:
    envelope = _read(path)
    for where in _statuses(envelope.data.model_dump()):
        document = json.loads(path.read_text(encoding="utf-8"))
        *parents, last = where
        target = document["data"]
        for part in parents:
            target = target[part]
        target[last] = "added_later"
        with pytest.raises(UnknownStatusError):
            decode(json.dumps(document).encode(), PAYLOADS.values())


def test_statuses_are_found_in_examples() -> None:
    with_status = {path.parent.name for path in EXAMPLES if _statuses(_read(path).data.model_dump())}
    assert with_status == {
        "access.records-applied.v1",
        "auth.grant-changed.v1",
        "auth.permissions-changed.v1",
        "auth.signing-key-changed.v1",
        "entitlements.addon-changed.v1",
        "entitlements.entitlement-changed.v1",
        "entitlements.module-changed.v1",
        "entitlements.package-changed.v1",
        "entitlements.price-changed.v1",
        "promoter.artist-changed.v1",
        "promoter.event-changed.v1",
    }


def test_each_example_has_the_key_its_topic_says() -> None:
    keys = {}
    for path in EXAMPLES:
        envelope = _read(path)
        (topic,) = (topic for topic in TOPICS if envelope.type in topic.event_types)
        keys[topic.name] = topic.record_key(envelope).decode()
        expected = {
            "company_id": str(envelope.company_id),
            "kind/key": envelope.aggregate_id,
            "company_id/user_id": f"{envelope.company_id}/{getattr(envelope.data, 'user_id', None)}",
            "company_id/event_id": f"{envelope.company_id}/{getattr(envelope.data, 'event_id', None)}",
            "company_id/artist_id": f"{envelope.company_id}/{getattr(envelope.data, 'artist_id', None)}",
            "module": getattr(envelope.data, "module", None),
            "kid": getattr(envelope.data, "kid", None),
            "user_id": str(getattr(envelope.data, "user_id", None)),
            "owner": topic.owner,
            "instance": getattr(envelope.data, "instance", None),
        }
        assert keys[topic.name] == expected[topic.key]
    assert set(keys) == {topic.name for topic in TOPICS if not topic.dead_letters}


def _field_names(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        below = {name for value in schema.values() for name in _field_names(value)}
        return below | set(schema.get("properties", {}))
    if isinstance(schema, list):
        return {name for value in schema for name in _field_names(value)}
    return set()


def test_no_event_has_a_field_for_personal_data() -> None:
    names = _field_names(schemas())
    assert {"user_id", "company_id", "label"} <= names
    assert not names & PERSONAL
