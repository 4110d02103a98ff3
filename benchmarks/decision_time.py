"""How long one decision takes, beside a bare loop of as many LMDB gets."""

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.cache import Upsert
from access.decision import Requirement
from access.freshness import OWNERS, Clocks, OwnerFreshness
from access.path import AccessPath
from access.records import (
    compile_entitlement,
    compile_membership,
    compile_permissions,
    entitlement_key,
    membership_key,
    permissions_key,
)
from benchmarks.figures import Figure
from contracts.events.auth import GrantChanged, MembershipStatus, ModuleGrant, PermissionsChanged, PermissionState
from contracts.events.auth import PermissionStatus as Status
from contracts.events.entitlements import BaseEntitlement, EntitlementChanged, EntitlementStatus, ModuleEntitlement
from contracts.identifiers import UserId, new_id
from contracts.permissions import PERMISSIONS
from infra.kafka.clients import KafkaClients
from infra.kafka.connection import KafkaConnection

_MEMBERSHIPS: Final = 100_000
_COMPANIES: Final = 100
_CALLS: Final = 100_000
_BATCH: Final = 5000


def _fill(path: AccessPath, memberships: int) -> list[tuple[UUID, UUID]]:
    """The reference membership (design §9): 27 permissions in two modules, two scope ids."""
    permissions = dict.fromkeys(list(PERMISSIONS["promoter"])[:18]), dict.fromkeys(list(PERMISSIONS["finance"])[:9])
    companies = [new_id() for _ in range(_COMPANIES)]
    base = BaseEntitlement(
        module="promoter", status=EntitlementStatus.ACTIVE, valid_until=datetime(2099, 1, 1, tzinfo=UTC)
    )
    entitlement = EntitlementChanged(
        status=EntitlementStatus.ACTIVE,
        base=base,
        modules=tuple(ModuleEntitlement(key=key, valid_until=base.valid_until) for key in ("promoter", "finance")),
        capabilities=(),
    )
    rows = tuple(
        PermissionState(key=row.key, status=Status(row.status.value), alias_of=row.alias_of)
        for row in PERMISSIONS["finance"].values()
    )
    changes = [Upsert(entitlement_key(company), 1, 1, compile_entitlement(entitlement, 1, 1)) for company in companies]
    catalog = compile_permissions(PermissionsChanged(module="finance", permissions=rows), 1, 1)
    changes.append(Upsert(permissions_key("finance"), 1, 1, catalog))
    path.cache.apply(0, changes, {})
    people: list[tuple[UUID, UUID]] = []
    changes = []
    for number in range(memberships):
        company, user = companies[number % _COMPANIES], new_id()
        grants = tuple(
            ModuleGrant(key=key, permissions=held, scopes={"business_unit": (str(new_id()),), "event": "*"})
            for key, held in zip(("promoter", "finance"), permissions, strict=True)
        )
        event = GrantChanged(
            user_id=UserId(user), status=MembershipStatus.ACTIVE, superadmin=False, modules=grants, delegations=()
        )
        changes.append(Upsert(membership_key(company, user), 1, 1, compile_membership(event, 1, 1, ("finance",))))
        people.append((company, user))
        if len(changes) == _BATCH:
            path.cache.apply(0, changes, {})
            changes = []
    path.cache.apply(0, changes, {})
    return people


def _times(call: Callable[[UUID, UUID], object], people: list[tuple[UUID, UUID]]) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    chosen = random.Random(5).choices(people, k=_CALLS)  # noqa: S311  a sample, not a secret
    taken = []
    for company, user in chosen:
        started = time.perf_counter_ns()
        call(company, user)
        taken.append(time.perf_counter_ns() - started)
    return statistics.median(taken) / 1000, statistics.quantiles(taken, n=100)[98] / 1000


def measure() -> list[Figure]:
    """With a cache of 100,000 memberships, the time of reading the clock taken off."""
    clocks = Clocks.of()
    with tempfile.TemporaryDirectory() as folder:
        path = AccessPath.open(
            Path(folder) / "cache",
            service="finance",
            modules=("finance",),
            kafka=KafkaClients(KafkaConnection(bootstrap_servers="127.0.0.1:1", username="nobody", password="")),
            root_key=Ed25519PrivateKey.generate().public_key(),
            clocks=clocks,
        )
        people = _fill(path, _MEMBERSHIPS)
        owner = OwnerFreshness(
            as_of=clocks.wall_us(), lag=0, received_wall=clocks.wall_us(), received_boot=clocks.boot_us()
        )
        path.cache.apply(0, (), {}, lambda head: replace(head, complete=True, owners=tuple(owner for _ in OWNERS)))
        requirement = Requirement.of("finance.expenses.read")
        if not all(path.decide(*person, requirement, reading=True).allowed for person in people[:1000]):
            raise RuntimeError("the measured decision is not the one meant")
        clock_p50, clock_p99 = _times(lambda _company, _user: None, people)
        bare_p50, bare_p99 = _times(_four_gets(path), people)
        p50, p99 = _times(lambda company, user: path.decide(company, user, requirement, reading=True), people)
        path.close()
    return [
        Figure("decision_p50_us", p50 - clock_p50, "us", goal=5),
        Figure("decision_p99_us", p99 - clock_p99, "us", goal=30),
        Figure("bare_lmdb_p50_us", bare_p50 - clock_p50, "us"),
        Figure("bare_lmdb_p99_us", bare_p99 - clock_p99, "us"),
        Figure("decision_vs_bare_lmdb", (p50 - clock_p50) / (bare_p50 - clock_p50), "x", goal=1.5),
    ]


def _four_gets(path: AccessPath) -> Callable[[UUID, UUID], None]:
    """The gets of a decision, without what is measured."""
    environment = path.cache._environment  # noqa: SLF001  the store itself, past the code that is measured
    database, meta = path.cache._generations[0], path.cache._meta  # noqa: SLF001  the same
    row = permissions_key("finance")

    def bare(company: UUID, user: UUID) -> None:
        with environment.begin() as transaction:
            transaction.get(b"head", db=meta)
            transaction.get(b"m" + company.bytes + user.bytes, db=database)
            transaction.get(b"e" + company.bytes, db=database)
            transaction.get(row, db=database)

    return bare
