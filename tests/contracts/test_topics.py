"""The registry of topics is whole, and what is printed of it is true."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.envelope import VALUE_SIZE_MAX_BYTES
from contracts.events import auth, checkout
from contracts.services import MODULES, SERVICES
from contracts.topics import DAY_MS, HOUR_MS, TOPICS, Topic, event_map, faults_of, group_prefix, wire_name

README = Path(__file__).parents[2] / "README.md"
MEMBERSHIPS = next(topic for topic in TOPICS if topic.name == "auth.memberships.v1")


def test_the_registry_has_no_fault() -> None:
    assert faults_of(TOPICS) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "memberships"}, "the name is not owner.noun.vN"),
        ({"name": "finance.memberships.v1"}, "does not begin with the owner 'auth'"),
        ({"owner": "nobody"}, "'nobody' is no service"),
        ({"owner": ""}, "'' is no service"),
        ({"readers": frozenset({"finance", "basic"})}, "'basic' is no service"),
        ({"readers": frozenset()}, "nobody reads it"),
        ({"readers": frozenset({"auth"})}, "the owner reads its topic anyway"),
        ({"payloads": ()}, "it carries no event"),
        ({"payloads": (checkout.TrialStarted,)}, "checkout.trial-started.v1 is not the owner's event"),
        ({"partitions": 0}, "it has no partition"),
        ({"retention_ms": HOUR_MS}, "without a retention"),
        ({"keyed_by": "company_id"}, "the newest record of each aggregate"),
        ({"projected_by": frozenset({"auth"})}, "does not read it"),
        ({"other_writers": frozenset({"market"})}, "'market' is no service"),
    ],
)
def test_a_fault_is_found(change: dict[str, Any], fault: str) -> None:
    assert any(fault in line for line in faults_of([replace(MEMBERSHIPS, **change)]))


def test_a_topic_or_a_type_declared_twice_is_found() -> None:
    other = replace(MEMBERSHIPS, name="auth.people.v1")
    assert faults_of([MEMBERSHIPS, MEMBERSHIPS])[0] == "auth.memberships.v1: declared twice"
    assert faults_of([MEMBERSHIPS, other]) == ["auth.people.v1: auth.grant-changed.v1 is on another topic too"]


def test_the_topics_are_those_of_the_design() -> None:
    assert {topic.name for topic in TOPICS} == {
        "entitlements.companies.v1",
        "entitlements.catalog.v1",
        "entitlements.heartbeats.v1",
        "auth.memberships.v1",
        "auth.permissions.v1",
        "auth.signing-keys.v1",
        "auth.sessions.v1",
        "auth.heartbeats.v1",
        "access.acknowledgements.v1",
        "checkout.purchases.v1",
        "promoter.events.v1",
        "promoter.artists.v1",
        "checkout.subscriptions.v1",
        "auth.dead-letters.v1",
        "entitlements.dead-letters.v1",
        "checkout.dead-letters.v1",
        "finance.dead-letters.v1",
    }


@pytest.mark.parametrize(
    "topic", [topic for topic in TOPICS if topic.cleanup == "compact"], ids=lambda topic: topic.name
)
def test_state_is_kept_long_enough_to_end_right(topic: Topic) -> None:
    assert int(topic.config["min.compaction.lag.ms"]) >= HOUR_MS
    assert int(topic.config["segment.ms"]) == 600_000
    assert int(topic.config["delete.retention.ms"]) >= 7 * DAY_MS
    assert topic.config["retention.ms"] == "-1"


def test_facts_are_kept_for_ever_and_heartbeats_for_an_hour() -> None:
    kept = {topic.name: (topic.cleanup, topic.config["retention.ms"], topic.partitions) for topic in TOPICS}
    assert kept["checkout.purchases.v1"][:2] == kept["checkout.subscriptions.v1"][:2] == ("delete", "-1")
    assert kept["auth.heartbeats.v1"] == kept["entitlements.heartbeats.v1"] == ("delete", str(HOUR_MS), 1)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_the_largest_value_fits(topic: Topic) -> None:
    assert int(topic.config["max.message.bytes"]) > VALUE_SIZE_MAX_BYTES


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_only_acknowledgements_have_more_writers_than_the_owner(topic: Topic) -> None:
    assert (topic.writers != {topic.owner}) == (topic.name == "access.acknowledgements.v1")


def test_every_module_reads_what_it_decides_by() -> None:
    decided_by = ["entitlements.companies.v1", "entitlements.heartbeats.v1"]
    decided_by += [topic.name for topic in TOPICS if topic.owner == "auth" and not topic.dead_letters]
    for topic in TOPICS:
        if topic.name in decided_by:
            assert topic.readers >= {*MODULES, "checkout", "access_resolver", "ticketing"}


def test_service_names_are_one_each() -> None:
    assert len(SERVICES) == len(set(SERVICES)) == 13


def test_names_on_the_wire_begin_with_the_prefix() -> None:
    assert wire_name("t1.", "auth.memberships.v1") == "t1.auth.memberships.v1"
    assert group_prefix("t1.", "finance") == "t1.finance."


def test_the_map_names_every_topic_event_owner_and_reader() -> None:
    lines = event_map().splitlines()
    events = [topic for topic in TOPICS if not topic.dead_letters]
    for topic, line in zip(events, lines[2:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == topic.name
        assert cells[1].split(", ") == [name.partition(".")[2] for name in topic.event_types]
        assert topic.owner in cells[5]
        assert ("every module" in cells[6]) == (topic.readers >= set(MODULES))
    assert event_map([replace(MEMBERSHIPS, readers=frozenset({"finance", "checkout"}))]).endswith(
        "| checkout, finance |"
    )


def test_the_readme_holds_the_map() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.partition("<!-- event map -->")[2].partition("<!-- /event map -->")[0].strip() == event_map().strip()


def test_payloads_of_a_topic_are_its_owners() -> None:
    assert MEMBERSHIPS.payloads == (auth.GrantChanged,)
    assert MEMBERSHIPS.event_types == ("auth.grant-changed.v1",)
