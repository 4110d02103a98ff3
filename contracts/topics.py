"""The one registry of topics (design §3): creation, ACLs, the event map and the tests derive from it.

Names here are without a prefix. On the wire a name is `wire_name(prefix, name)`, so that test runs share a broker.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from contracts.envelope import VALUE_SIZE_MAX_BYTES, Envelope
from contracts.events import access, auth, checkout, entitlements, promoter
from contracts.payload import Payload
from contracts.services import MODULES, SERVICES

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
#: The limit is on a batch: one record of the largest value, with its key, headers and the batch's own fields.
#: A producer's batches must not exceed it either.
BATCH_SIZE_MAX_BYTES: Final = VALUE_SIZE_MAX_BYTES + 64 * 1024

_NAME: Final = re.compile(r"([a-z][a-z_]*)\.[a-z][a-z-]*\.v[1-9][0-9]*")


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic: who may write and read it, how its records are keyed and kept. Partitions are fixed at creation."""

    name: str
    owner: str
    readers: frozenset[str]
    #: What the key is, in words, for the event map.
    key: str
    #: Which field of the envelope the key is. Facts of one company keep their order by its id.
    keyed_by: Literal["aggregate_id", "company_id"] = "aggregate_id"
    partitions: int
    cleanup: Literal["compact", "delete"]
    #: How long a record is kept in a topic with cleanup "delete"; none is for ever.
    retention_ms: int | None = None
    payloads: tuple[type[Payload], ...]
    #: Who writes besides the owner; only acknowledgements, which every instance sends.
    other_writers: frozenset[str] = frozenset()
    #: Readers of a state topic that keep a projection of it in their database; the others run the access feed.
    projected_by: frozenset[str] = frozenset()
    #: Records of other topics, as they were, that the owner could not apply. Only operators read them.
    dead_letters: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def writers(self) -> frozenset[str]:
        """Who may produce."""
        return self.other_writers | {self.owner}

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types its records have."""
        return tuple(payload.event_type for payload in self.payloads)

    @property
    def config(self) -> dict[str, str]:
        """Its settings on the broker, each asserted at every start."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": "-1" if self.retention_ms is None else str(self.retention_ms),
            "max.message.bytes": str(BATCH_SIZE_MAX_BYTES),
            "unclean.leader.election.enable": "false",
            **self.extra,
        }

    def record_key(self, envelope: Envelope[Any]) -> bytes:
        """The key the envelope's record has on this topic."""
        return str(getattr(envelope, self.keyed_by)).encode()


def wire_name(prefix: str, name: str) -> str:
    """The name of a topic or group on the broker."""
    return f"{prefix}{name}"


def group_prefix(prefix: str, service: str) -> str:
    """What the names of a service's consumer groups begin with."""
    return wire_name(prefix, f"{service}.")


#: Compaction keeps the highest offset of a key, not its highest version: for an hour every record stays, in which an
#: owner that sees an older one last sends again (design §4). Tombstones outlive any reader that is behind.
_STATE: Final = {
    "min.compaction.lag.ms": str(HOUR_MS),
    "segment.ms": str(10 * 60_000),
    "delete.retention.ms": str(7 * DAY_MS),
}
#: A segment is deleted only after it was closed.
_SHORT: Final = {"segment.ms": str(10 * 60_000)}

#: Auth judges by its own rows; all others run the access feed.
_FEEDS: Final = frozenset(SERVICES) - {"auth"}


def _everyone_but(owner: str) -> frozenset[str]:
    return frozenset(SERVICES) - {owner}


_EVENTS: Final[tuple[Topic, ...]] = (
    Topic(
        name="entitlements.companies.v1",
        owner="entitlements",
        readers=_everyone_but("entitlements"),
        projected_by=frozenset({"auth"}),
        key="company_id",
        partitions=2,
        cleanup="compact",
        payloads=(entitlements.EntitlementChanged,),
        extra=_STATE,
    ),
    Topic(
        name="entitlements.catalog.v1",
        owner="entitlements",
        readers=frozenset({"auth", "checkout", "access_resolver"}),
        projected_by=frozenset({"checkout"}),
        key="kind/key",
        partitions=1,
        cleanup="compact",
        payloads=(
            entitlements.ModuleChanged,
            entitlements.PackageChanged,
            entitlements.AddonChanged,
            entitlements.PriceChanged,
        ),
        extra=_STATE,
    ),
    Topic(
        name="entitlements.heartbeats.v1",
        owner="entitlements",
        readers=_everyone_but("entitlements"),
        key="owner",
        partitions=1,
        cleanup="delete",
        retention_ms=HOUR_MS,
        payloads=(entitlements.EntitlementsHeartbeatSent,),
        extra=_SHORT,
    ),
    Topic(
        name="auth.memberships.v1",
        owner="auth",
        readers=_FEEDS,
        key="company_id/user_id",
        # Every instance reads them all and pays for each while idle; more would make no rebuild faster.
        partitions=6,
        cleanup="compact",
        payloads=(auth.GrantChanged,),
        extra=_STATE,
    ),
    Topic(
        name="auth.permissions.v1",
        owner="auth",
        readers=_FEEDS,
        key="module",
        partitions=1,
        cleanup="compact",
        payloads=(auth.PermissionsChanged,),
        extra=_STATE,
    ),
    Topic(
        name="auth.signing-keys.v1",
        owner="auth",
        readers=_FEEDS,
        key="kid",
        partitions=1,
        cleanup="compact",
        payloads=(auth.SigningKeyChanged,),
        extra=_STATE,
    ),
    Topic(
        name="auth.sessions.v1",
        owner="auth",
        readers=_FEEDS,
        key="user_id",
        partitions=2,
        cleanup="compact",
        payloads=(auth.SessionsChanged,),
        extra=_STATE,
    ),
    Topic(
        name="auth.heartbeats.v1",
        owner="auth",
        readers=_FEEDS,
        key="owner",
        partitions=1,
        cleanup="delete",
        retention_ms=HOUR_MS,
        payloads=(auth.AuthHeartbeatSent,),
        extra=_SHORT,
    ),
    Topic(
        name="access.acknowledgements.v1",
        owner="access_resolver",
        other_writers=_FEEDS - {"access_resolver"},
        readers=frozenset(),
        key="instance",
        partitions=1,
        # An instance counts for 300 s after its last one; the resolver stores what its proofs need.
        cleanup="delete",
        retention_ms=HOUR_MS,
        payloads=(access.RecordsApplied,),
        extra=_SHORT,
    ),
    Topic(
        name="checkout.purchases.v1",
        owner="checkout",
        readers=frozenset({"entitlements"}),
        key="company_id",
        keyed_by="company_id",
        partitions=3,
        cleanup="delete",
        payloads=(checkout.PurchaseCompleted, checkout.PurchaseRefunded),
        extra={"retention.bytes": "-1"},
    ),
    Topic(
        name="checkout.subscriptions.v1",
        owner="checkout",
        readers=frozenset({"entitlements"}),
        key="company_id",
        keyed_by="company_id",
        partitions=3,
        cleanup="delete",
        payloads=(
            checkout.TrialStarted,
            checkout.SubscriptionActivated,
            checkout.SubscriptionRenewed,
            checkout.PaymentFailed,
            checkout.SubscriptionBecamePastDue,
            checkout.SubscriptionCanceled,
            checkout.SubscriptionEnded,
        ),
        extra={"retention.bytes": "-1"},
    ),
    Topic(
        name="promoter.events.v1",
        owner="promoter",
        readers=frozenset({"ticketing", "venue", "artist", "vendor", "finance", "touring", "ai"}),
        projected_by=frozenset({"finance"}),
        key="company_id/event_id",
        partitions=3,
        cleanup="compact",
        payloads=(promoter.EventChanged,),
        extra=_STATE,
    ),
    Topic(
        name="promoter.artists.v1",
        owner="promoter",
        readers=frozenset({"ticketing", "finance", "touring", "ai"}),
        projected_by=frozenset({"finance"}),
        key="company_id/artist_id",
        partitions=1,
        cleanup="compact",
        payloads=(promoter.ArtistChanged,),
        extra=_STATE,
    ),
)


def _dead_letters(topics: Iterable[Topic]) -> Iterable[Topic]:
    """One topic for each service that does work on facts or keeps projections; the access feed quarantines instead."""
    are_facts = [topic for topic in topics if topic.cleanup == "delete" and topic.retention_ms is None]
    workers = {reader for topic in are_facts for reader in topic.readers} | {
        reader for topic in topics for reader in topic.projected_by
    }
    for service in sorted(workers):
        yield Topic(
            name=f"{service}.dead-letters.v1",
            owner=service,
            readers=frozenset(),
            key="that of the original",
            partitions=1,
            cleanup="delete",
            payloads=(),
            dead_letters=True,
            # Larger than any original by the headers that say why it is here.
            extra={"retention.bytes": "-1", "max.message.bytes": str(BATCH_SIZE_MAX_BYTES + 64 * 1024)},
        )


TOPICS: Final[tuple[Topic, ...]] = (*_EVENTS, *_dead_letters(_EVENTS))

#: Every payload a topic carries, by its type.
PAYLOADS: Final[Mapping[str, type[Payload]]] = {
    payload.event_type: payload for topic in TOPICS for payload in topic.payloads
}


def dead_letters_of(service: str) -> Topic:
    """Where a service that does work puts the records it cannot apply. Raises LookupError for any other."""
    for topic in TOPICS:
        if topic.dead_letters and topic.owner == service:
            return topic
    raise LookupError(f"{service} does no work on events and has no dead letters")


def faults_of(topics: Iterable[Topic]) -> list[str]:
    """What is wrong with a registry, one line each."""
    found: list[str] = []
    names: set[str] = set()
    types: set[str] = set()
    for topic in topics:
        if topic.name in names:
            found.append(f"{topic.name}: declared twice")
        names.add(topic.name)
        found += [f"{topic.name}: {fault}" for fault in _faults_of(topic)]
        found += [f"{topic.name}: {name} is on another topic too" for name in topic.event_types if name in types]
        types.update(topic.event_types)
    return found


def _faults_of(topic: Topic) -> Iterable[str]:
    matched = _NAME.fullmatch(topic.name)
    if matched is None:
        yield "the name is not owner.noun.vN"
        return
    # What every service writes is in nobody's namespace.
    namespace = matched[1] if topic.other_writers else topic.owner
    for name in sorted({topic.owner, *topic.readers, *topic.other_writers} - set(SERVICES)):
        yield f"{name!r} is no service"
    yield from (
        fault
        for holds, fault in (
            (matched[1] == namespace, f"the name does not begin with the owner {topic.owner!r}"),
            (topic.owner not in topic.readers, "the owner reads its topic anyway"),
            (topic.projected_by <= topic.readers, "who keeps a projection of it does not read it"),
            (topic.readers or topic.other_writers or topic.dead_letters, "nobody reads it"),
            (bool(topic.payloads) != topic.dead_letters, "it carries no event"),
            (topic.partitions >= 1, "it has no partition"),
            (
                topic.cleanup == "delete" or (topic.retention_ms is None and topic.keyed_by == "aggregate_id"),
                "a state topic keeps the newest record of each aggregate, without a retention",
            ),
        )
        if not holds
    )
    for name in topic.event_types:
        if name.partition(".")[0] != namespace:
            yield f"{name} is not the owner's event"


def event_map(topics: Iterable[Topic] = TOPICS) -> str:
    """Who tells whom what, as a Markdown table. `kisum topics map` prints it and the README holds it.

    Dead letters are left out: they tell nobody anything.
    """
    lines = [
        "| Topic | Events | Key | Partitions | Kept | Written by | Read by |",
        "|---|---|---|---|---|---|---|",
    ]
    for topic in topics:
        if topic.dead_letters:
            continue
        cells = (
            topic.name,
            ", ".join(name.partition(".")[2] for name in topic.event_types),
            topic.key,
            str(topic.partitions),
            _kept(topic),
            _named(topic.writers),
            _named(topic.readers | ({topic.owner} if topic.other_writers else set())),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _kept(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "newest of each key"
    return "for ever" if topic.retention_ms is None else f"{topic.retention_ms // HOUR_MS} h"


def _named(services: frozenset[str]) -> str:
    """Service names in the order of the list; the modules as one where all are there."""
    if services >= set(MODULES):
        return ", ".join([name for name in SERVICES if name in services and name not in MODULES] + ["every module"])
    return ", ".join(name for name in SERVICES if name in services)
