"""Records nobody must act on, in a real log between good ones, with the feed running."""

import itertools
from uuid import UUID

from access.ingest import MEMBERSHIPS
from contracts.envelope import VALUE_SIZE_MAX_BYTES, encode, envelop
from contracts.identifiers import UserId, new_id
from contracts.problems import Reason
from tests.harness.access import Sources, grant
from tests.harness.clock import FakeClock
from tests.integration.access.asking import is_ready, publish_allowed, reason, until_reason
from tests.integration.access.conftest import StartInstance
from tests.unit.access.hostile import hostile_records

_EVERY = 4


async def test_bad_keys_are_unknown_good_ones_go_on_and_the_client_stays(
    sources: Sources, start_instance: StartInstance
) -> None:
    await publish_allowed(sources)
    await sources.beat()
    instance = await start_instance()
    await instance.until(is_ready, "ready")
    bad: list[UUID] = []
    good: list[UUID] = []
    for number in itertools.count():
        user, other = UserId(new_id()), UserId(new_id())
        envelope = envelop(
            grant(user),
            occurred_at=FakeClock()(),
            company_id=sources.company_id,
            actor_user_id=None,
            epoch=1,
            version=2,
            correlation_id=new_id(),
        )
        key = f"{sources.company_id}/{user}".encode()
        kinds = [
            each
            for each in hostile_records(MEMBERSHIPS, key, encode(envelope))
            # The broker takes nothing that is larger than an event may be.
            if each.names_its_subject and len(each.value or b"") <= VALUE_SIZE_MAX_BYTES
        ]
        if number * _EVERY >= len(kinds):
            break
        await sources.publish(grant(user))
        await sources.send_raw(MEMBERSHIPS, key, kinds[number * _EVERY].value)
        await sources.publish(grant(other))
        bad.append(user)
        good.append(other)
    await sources.beat()
    await until_reason(instance, sources, None, good[-1])
    await until_reason(instance, sources, Reason.STATE_UNKNOWN, bad[-1])
    assert len(bad) > 50
    assert {reason(instance, sources, user) for user in bad} == {Reason.STATE_UNKNOWN}
    assert {reason(instance, sources, user) for user in good} == {None}
    assert len(instance.path.status().flags) == len(bad)
    # All of it by the one client that was started.
    assert len(instance.kafka.readers) == 1
    await sources.publish(grant(UserId(bad[0])))
    await until_reason(instance, sources, None, bad[0])
