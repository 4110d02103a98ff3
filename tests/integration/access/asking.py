"""What tests of the access path on a real Kafka ask of it."""

from datetime import datetime
from uuid import UUID

from access.decision import Decision, Requirement
from access.freshness import Bounds, Clocks
from access.path import AccessPath
from contracts.problems import Reason
from tests.harness.access import Sources, catalog, entitled, grant
from tests.integration.access.conftest import Instance, StartInstance

READ = Requirement.of("finance.expenses.read")


async def publish_allowed(sources: Sources) -> None:
    """Everything the sources' person needs to read expenses."""
    await sources.publish(catalog())
    await sources.publish(entitled("finance"))
    await sources.publish(grant(sources.user_id))


async def deciding(
    sources: Sources,
    start_instance: StartInstance,
    clocks: Clocks | None = None,
    bounds: Bounds | None = None,
    *,
    as_of: datetime | None = None,
) -> Instance:
    """An instance that has heard all the sources' person needs, and lets them read."""
    await publish_allowed(sources)
    await sources.beat(as_of=as_of)
    instance = await start_instance(clocks, bounds)
    await until_reason(instance, sources, None)
    return instance


def asked(instance: Instance, sources: Sources, user_id: UUID | None = None, *, reading: bool = True) -> Decision:
    return instance.path.decide(sources.company_id, user_id or sources.user_id, READ, reading=reading)


def reason(instance: Instance, sources: Sources, user_id: UUID | None = None) -> Reason | None:
    return asked(instance, sources, user_id).reason


async def until_reason(
    instance: Instance, sources: Sources, expected: Reason | None, user_id: UUID | None = None
) -> None:
    await instance.until(lambda _: reason(instance, sources, user_id) is expected, f"the answer is {expected}")


def heard(path: AccessPath) -> list[int]:
    """The versions of the newest heartbeat of each owner that was heard."""
    return [owner.heartbeat for owner in path.cache.head().owners]


async def hear(instance: Instance, sources: Sources, *, as_of: datetime | None = None, times: int = 1) -> None:
    """Have the instance hear so many heartbeats, one after the other."""
    await instance.until(lambda path: all(heard(path)), "the newest heartbeat there is was heard")
    for _ in range(times):
        before = heard(instance.path)
        await sources.beat(as_of=as_of)
        await instance.until(
            lambda path, before=before: all(map(int.__gt__, heard(path), before)),  # type: ignore[misc]
            "the next heartbeat was heard",
        )


def is_ready(path: AccessPath) -> bool:
    return path.ready.is_ready
