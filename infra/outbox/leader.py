"""One leadership: what is known from being admitted to losing the lock, and the rounds in which rows become records."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

import structlog

from contracts.errors import DomainError, Kind
from infra.outbox.admission import Admission
from infra.outbox.bulk import CHUNK_ROWS_MAX
from infra.outbox.heartbeat import INTERVAL_SECONDS, heartbeat_row
from infra.outbox.log import BatchRows, Log, LogUnavailableError, Sent
from infra.outbox.parts import Parts, Status
from infra.outbox.renewal import Renewal
from infra.outbox.source import publish_again
from infra.outbox.store import Progress, Refusal, Row, Settlement, Store, StoreLostError
from infra.outbox.survey import Partition
from infra.outbox.tail import Tail
from infra.outbox.unknown import unknown_state_of
from infra.outbox.watch import SeenTopics, TopicWatch
from infra.outbox.writer import Lane
from infra.tasks import end_tasks

#: Rows that are sent at once.
_BATCH_ROWS_MAX: Final = 1000
#: Batches that a round reads ahead. A revocation that commits a moment after it has begun may wait for its end.
_AHEAD_BATCHES_MAX: Final = 7
#: The log may be so many batches ahead of what is settled: one acknowledged, one being sent, rows that writers hold.
_UNSETTLED_BATCHES_MAX: Final = 3
_WATCH_INTERVAL_SECONDS: Final = 0.5
_WATCH_AGE_MAX_SECONDS: Final = 5.0
#: A broker that took so long to answer was away, and may have come back with another log: all clients are made anew.
_ABSENCE_SECONDS: Final = 3.0
_BACKOFF_MIN_SECONDS: Final = 0.05
_BACKOFF_MAX_SECONDS: Final = 1.0
_RENEWAL_RETRY_SECONDS: Final = 1.0
#: A null record under no key at all changes nothing, and tells readers that a log was lost before it (access.feed).
_NO_KEY: Final = b""

Result = TypeVar("Result")

_log: Final = structlog.get_logger("kisum.outbox")


class RestoreAskedError(Exception):
    """What is published now is published anew: a restore was asked for."""


class Leader:
    """Publishes until the store is lost, or a restore is asked for."""

    def __init__(self, parts: Parts, status: Status, store: Store, admission: Admission) -> None:
        self._parts = parts
        self._status = status
        self._store = store
        self._publisher = admission.publisher
        self._told = admission.told
        self._surveyed = surveyed = admission.surveyed
        self._states = {topic.name for topic in parts.states}
        self._wake = asyncio.Event()
        self._batch_rows = BatchRows()
        self._progress: dict[Partition, Progress] = {}
        #: The offsets that are in the database, as (acknowledged, checked).
        self._stored: dict[Partition, tuple[int, int]] = {}
        #: Where the broker said that each partition ends.
        self._ends: dict[Partition, int] = {}
        #: Partitions that gave out an offset twice, until the broker was asked about them.
        self._suspected: set[Partition] = set()
        #: Where a shorter log must have come to before anything is sent to it.
        self._fill_to: dict[Partition, int] = {}
        self._losses = 0
        self._tail: Tail | None = None
        self._has_tail = asyncio.Event()
        self._is_renewal_due = asyncio.Event()
        #: States that were acknowledged and not yet deleted, since a writer held their row.
        self._acknowledged: dict[tuple[str, str], Row] = {}
        self._refusals: list[Refusal] = []
        self._sending = False
        self._rounds = 0
        #: The last round that saw all that was pending, in both lanes, and had all of it acknowledged.
        self._whole_round = 0
        self._has_whole_round = asyncio.Event()
        self._beat_at = 0.0
        #: When the last heartbeat was acknowledged, and when the last look at the logs began.
        self._told_at = 0.0
        self._seen_at = 0.0
        self._backoff_seconds = _BACKOFF_MIN_SECONDS
        if surveyed is not None and surveyed.beyond is not None:
            _log.critical(
                "no heartbeat until the topic was made again: nothing is above its epoch", found=surveyed.beyond
            )
        if surveyed is not None:
            status.restoring = True
            self._is_renewal_due.set()

    async def heal(self) -> None:
        """Have published again what the tail finds."""
        await self._has_tail.wait()
        if self._tail is not None:
            await self._tail.heal()

    async def renew(self) -> NoReturn:
        """Publish whole topics anew: those whose log was lost, and all of a restored database."""
        while True:
            await self._has_tail.wait()
            await self._is_renewal_due.wait()
            self._is_renewal_due.clear()
            try:
                await self._renew()
            except LogUnavailableError as gone:
                _log.warning("the log is not available", reason=str(gone))
            except StoreLostError:
                raise
            except Exception:  # noqa: BLE001 - logged, and tried again
                # Readers answer 503 for as long; a state that was left out would be believed for ever.
                _log.exception("topics could not be published anew, which is tried again")
            else:
                continue
            self._is_renewal_due.set()
            await asyncio.sleep(_RENEWAL_RETRY_SECONDS)

    async def publish(self) -> NoReturn:
        """Publish until the store is lost; Kafka may come and go."""
        await self._store.listen(self._wake.set)
        heartbeats = () if self._parts.heartbeats is None else (self._parts.heartbeats,)
        while True:
            log = Log(self._parts.kafka, (*self._parts.topics, *heartbeats), self._batch_rows)
            try:
                await self._publish(log)
            except LogUnavailableError as gone:
                _log.warning("the log is not available", reason=str(gone))
            finally:
                self._sending = False
                await log.close()
            self._status.backlog = await self._store.backlog()
            await asyncio.sleep(self._backoff_seconds)
            self._backoff_seconds = min(self._backoff_seconds * 2, _BACKOFF_MAX_SECONDS)

    async def _publish(self, log: Log) -> None:
        """With one producer, until it is of no more use: then LogUnavailableError."""
        await log.open()
        watch = TopicWatch(self._parts.kafka, self._parts.topics)
        await self._compare(watch)
        if self._tail is None:
            self._tail = self._new_tail()
            self._has_tail.set()
        await self._fill(log)
        await self._set_aside(log)
        await together(
            self._watch(watch),
            self._tail.read(self._parts.kafka, is_sending=lambda: self._sending),
            self._relay_rows(log),
        )

    def _new_tail(self) -> Tail:
        if self._surveyed is not None:
            # The renewal answers for all that was there when the epoch began.
            for partition, end in self._surveyed.ends.items():
                known = self._progress.get(partition)
                if known is not None and not known.lost:
                    known.checked_offset = end
        return Tail(
            self._parts.states,
            self._parts.sources,
            self._parts.database,
            self._progress.values(),
            ends=self._ends,
            epoch=self._publisher.epoch,
            clock=self._parts.clock,
            wake=self._wake.set,
        )

    # Rounds.

    async def _relay_rows(self, log: Log) -> NoReturn:
        while True:
            self._wake.clear()
            more = await self._round(log)
            await self._beat(log)
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._beat_at + INTERVAL_SECONDS - _monotonic_seconds())):
                        await self._wake.wait()

    async def _round(self, log: Log) -> bool:
        """Read, send, settle; whether there is more."""
        self._rounds += 1
        held = len(self._acknowledged)
        await self._send_nulls(log)
        as_of, rows = await self._store.read_states(Lane.INTERACTIVE, _BATCH_ROWS_MAX + held)
        sees_urgent = sees_all = len(rows) < _BATCH_ROWS_MAX + held
        behind = 0 if sees_urgent else rows[-1].position
        if self._parts.facts:
            facts = await self._store.read_facts(_BATCH_ROWS_MAX)
            sees_all = sees_all and len(facts) < _BATCH_ROWS_MAX
            rows += facts
        of_before, to_send = self._sorted_out(rows)
        if not sees_urgent:
            await self._send_on(log, to_send, behind)
        elif self._parts.states:
            # No more than a chunk: what is urgent and comes now waits for it.
            bulk_max = CHUNK_ROWS_MAX + held
            acknowledged, bulk = await self._send(log, to_send, partial(self._read_on, [], Lane.BULK, bulk_max))
            sees_all = sees_all and len(bulk) < bulk_max
            bulk_of_before, to_send = self._sorted_out(bulk)
            of_before += bulk_of_before
            await self._send_last(log, to_send, acknowledged)
        else:
            await self._send_last(log, to_send, [])
        if of_before:
            await self._renew_rows(of_before)
            return True
        if sees_urgent:
            self._status.as_of = as_of
        if sees_all:
            self._whole_round = self._rounds
            self._has_whole_round.set()
        return not sees_all

    async def _send_on(self, log: Log, rows: Sequence[Row], behind: int) -> None:
        """Send urgent rows and batches of those behind them, each of which is read while the one before is sent.

        That says nothing of what is pending: what commits late, or replaces a row, may lie before. So this ends after
        some batches, or when a heartbeat is due, and the next round begins at the start again. What is read ahead where
        one fails is not sent.
        """
        acknowledged: list[Row] = []
        for _ in range(_AHEAD_BATCHES_MAX):
            acknowledged, following = await self._send(
                log, rows, partial(self._read_on, acknowledged, Lane.INTERACTIVE, _BATCH_ROWS_MAX, behind)
            )
            _, rows = self._sorted_out(following)
            if len(following) < _BATCH_ROWS_MAX or _monotonic_seconds() >= self._beat_at + INTERVAL_SECONDS:
                break
            behind = following[-1].position
        await self._send_last(log, rows, acknowledged)

    async def _read_on(self, acknowledged: list[Row], lane: Lane, limit: int, behind: int = 0) -> list[Row]:
        """Settle what was sent before, and read what follows what is being sent."""
        await self._settle_if_any(acknowledged)
        _, rows = await self._store.read_states(lane, limit, behind=behind)
        return rows

    async def _send_last(self, log: Log, rows: Sequence[Row], acknowledged: list[Row]) -> None:
        """Send while what was sent before is settled, and settle."""
        acknowledged, _ = await self._send(log, rows, partial(self._settle_if_any, acknowledged))
        if acknowledged or self._acknowledged:
            await self._settle(Settlement(acknowledged))

    def _sorted_out(self, rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
        """States of an older epoch, and what is to be sent: all else that is not acknowledged already."""
        of_before: list[Row] = []
        to_send: list[Row] = []
        for row in rows:
            if row.fact_id is None and row.epoch < self._publisher.epoch:
                of_before.append(row)
            elif not self._is_acknowledged(row):
                to_send.append(row)
        return of_before, to_send

    async def _renew_rows(self, rows: Sequence[Row]) -> None:
        """Have rows published again that were written under an older epoch: by transactions that began before this one.

        Sent as they are, they would be older than anything a reader ever knew of their keys.
        """
        for row in rows:
            try:
                async with self._parts.database.unit_of_work() as work:
                    await publish_again(
                        work, self._parts.sources[row.topic], row.key, now=self._parts.clock(), lane=Lane.INTERACTIVE
                    )
            except DomainError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                raise LogUnavailableError(f"{row.key} cannot be published again: {error!r}") from error

    async def _all_is_acknowledged(self) -> None:
        """Return when all that was committed before has been acknowledged."""
        # A round that is under way may have read before.
        begun = self._rounds
        while self._whole_round <= begun:
            self._has_whole_round.clear()
            self._wake.set()
            await self._has_whole_round.wait()

    async def _send(
        self, log: Log, rows: Sequence[Row], beside: Callable[[], Awaitable[Result]]
    ) -> tuple[list[Row], Result]:
        """Send, and ask the store something meanwhile; what was acknowledged, which is to be settled, and the answer.

        Raises LogUnavailableError if anything was not acknowledged; what was is settled then.
        """
        if not rows:
            return [], await beside()
        await self._store.prove_if_old()
        self._sending = True
        sending = asyncio.create_task(log.send(rows))
        try:
            answer = await beside()
            outcomes = await sending
        finally:
            await end_tasks(sending)
        self._note(outcomes)
        acknowledged = [row for sent in outcomes for row in sent.acknowledged]
        if any(sent.error is not None for sent in outcomes):
            await self._settle(Settlement(acknowledged))
        self._refusals += [sent.refusal for sent in outcomes if sent.refusal is not None]
        self._raise_errors(outcomes)
        return acknowledged, answer

    async def _send_nulls(self, log: Log) -> None:
        """Answer records whose key is none, or none of their partition."""
        unreadable = {} if self._tail is None else self._tail.nulls()
        for (topic, partition), suspects in unreadable.items():
            found = [(suspect, suspect.last_offset) for suspect in suspects]
            await self._store.prove_if_old()
            self._sending = True
            sent = await log.send_nulls(topic, partition, [suspect.raw_key for suspect in suspects])
            self._note([sent])
            self._raise_errors([sent])
            for suspect, offset in found:
                _log.error("a record under no key of its partition; answered with a null record", **suspect.found)
                if self._tail is not None:
                    self._tail.answered(suspect, up_to_offset=offset)

    def _note(self, outcomes: Sequence[Sent]) -> None:
        """Remember where in the log it is. Raises LogUnavailableError where an offset was given out again."""
        self._sending = False
        for sent in outcomes:
            known = self._progress.get((sent.topic, sent.partition))
            if known is None or not sent.ranges:
                continue
            is_again = sent.ranges[0][0] < self._reached(known)
            if self._tail is not None:
                self._tail.note_sent(sent)
            if is_again:
                self._suspected.add((sent.topic, sent.partition))
            else:
                known.acknowledged_offset = sent.ranges[-1][1] + 1
        if self._tail is not None:
            self._tail.judge()
        if self._suspected:
            raise LogUnavailableError(f"an offset was given out again: {sorted(self._suspected)}")

    def _raise_errors(self, outcomes: Sequence[Sent]) -> None:
        errors = [sent.error for sent in outcomes if sent.error is not None]
        if not errors or any(sent.came_further for sent in outcomes):
            self._backoff_seconds = _BACKOFF_MIN_SECONDS
        if errors:
            raise LogUnavailableError(repr(errors[0]))

    async def _settle_if_any(self, acknowledged: list[Row]) -> None:
        if acknowledged:
            await self._settle(Settlement(acknowledged))

    async def _settle(self, settlement: Settlement) -> None:
        newly = len(settlement.acknowledged)
        states = {(row.topic, row.key): row for row in settlement.acknowledged if row.fact_id is None}
        settlement.acknowledged += [row for key, row in self._acknowledged.items() if key not in states]
        self._acknowledged |= states
        settlement.moved = [
            known
            for partition, known in self._progress.items()
            if not known.lost and self._stored.get(partition) != (known.acknowledged_offset, known.checked_offset)
        ]
        moved = {
            (known.topic, known.partition): (known.acknowledged_offset, known.checked_offset)
            for known in settlement.moved
        }
        left = await self._store.settle(settlement, newly_acknowledged=newly)
        self._acknowledged = {key: row for key, row in self._acknowledged.items() if key in left}
        self._stored |= moved

    def _is_acknowledged(self, row: Row) -> bool:
        known = self._acknowledged.get((row.topic, row.key)) if row.fact_id is None else None
        return known is not None and (known.epoch, known.version) == (row.epoch, row.version)

    async def _set_aside(self, log: Log) -> None:
        """Publish the keys of refused states as unknown, then mark the rows."""
        while self._refusals:
            refusal = self._refusals[0]
            row = refusal.row
            _log.error("the log refuses a row; it is set aside", topic=row.topic, key=row.key, reason=refusal.reason)
            if row.fact_id is None:
                self._sending = True
                outcomes = await log.send([unknown_state_of(row)])
                self._note(outcomes)
                self._raise_errors(outcomes)
            await self._settle(Settlement(refused=[refusal]))
            self._refusals.pop(0)
            self._batch_rows.forget()

    # Heartbeats.

    async def _beat(self, log: Log) -> None:
        """Once a second: count what is pending, store what was checked, and send the heartbeat if all of it holds."""
        now = _monotonic_seconds()
        if now < self._beat_at + INTERVAL_SECONDS:
            return
        self._beat_at = now
        self._status.backlog = await self._store.backlog()
        await self._settle(Settlement())
        self._publisher = await self._store.publisher()
        if self._publisher.restore is not None and not self._status.restoring:
            raise RestoreAskedError
        topic, as_of = self._parts.heartbeats, self._status.as_of
        # A look lies between any two heartbeats: readers rely on it that the second knows of a log that was lost before
        # the first.
        seen_lately = self._seen_at > self._told_at and now - self._seen_at < _WATCH_AGE_MAX_SECONDS
        self._doubt()
        if topic is None or as_of is None or self._status.lost_topics or self._status.doubt or not seen_lately:
            return
        row = heartbeat_row(
            topic,
            as_of=as_of,
            publisher=self._publisher,
            progress=[known for known in self._progress.values() if known.topic in self._states],
            now=self._parts.clock(),
        )
        await self._store.prove_if_old()
        (sent,) = await log.send([row])
        self._raise_errors([sent])
        self._told_at = _monotonic_seconds()

    def _doubt(self) -> None:
        doubt = None if self._tail is None else self._tail.doubt
        if self._surveyed is not None and self._surveyed.beyond is not None:
            doubt = self._surveyed.beyond
        self._status.doubt = doubt

    # Logs that are lost.

    async def _watch(self, watch: TopicWatch) -> NoReturn:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_SECONDS)
            await self._compare(watch)
            away_seconds = _monotonic_seconds() - self._seen_at
            if away_seconds > _ABSENCE_SECONDS:
                raise LogUnavailableError(f"the broker was away for {away_seconds:.1f} s")

    async def _compare(self, watch: TopicWatch) -> None:
        """Find logs that are not the ones that were written, or are shorter. Raises LogUnavailableError on any."""
        if not self._progress:
            await self._load()
        before = {partition: self._reached(known) for partition, known in self._progress.items()}
        began_at = _monotonic_seconds()
        seen = await watch.look()
        lost, self._suspected = self._suspected, set()
        if self._tail is not None:
            lost |= self._tail.take_lost()
        for partition, end in seen.ends.items():
            topic_id = seen.topic_ids[partition[0]]
            known = self._progress.get(partition)
            if known is None:
                # Nothing was ever acknowledged here; what the log holds all the same is checked from its beginning.
                known = self._progress[partition] = Progress(*partition, topic_id, end, 0)
            if known.topic_id != topic_id or end < max(before.get(partition, 0), self._known_end(partition, topic_id)):
                lost.add(partition)
        if lost:
            await self._lose(lost, seen)
        self._ends |= seen.ends
        self._seen_at = began_at

    async def _load(self) -> None:
        """Take over what is stored."""
        topics = {topic.name for topic in self._parts.topics}
        for stored in await self._store.progress():
            if stored.topic not in topics:
                continue
            partition = stored.topic, stored.partition
            self._progress[partition] = stored
            stored.lost = stored.lost and stored.topic in self._states
            if stored.lost:
                self._fill_to[partition] = stored.acknowledged_offset + _unsettled_rows_max()
                self._is_renewal_due.set()
        self._tell_lost()

    async def _lose(self, partitions: set[Partition], seen: SeenTopics) -> NoReturn:
        """Go on with the logs there are now. Raises LogUnavailableError: clients of the old ones are of no more use."""
        topics = {topic for topic, _ in partitions}
        states, facts = topics & self._states, topics - self._states
        if states:
            _log.critical("a log was lost; no heartbeat until its topic is published anew", topics=sorted(states))
            await self._store.lose(states)
        for partition in partitions:
            self._go_on_with(self._progress[partition], seen)
        for known in self._progress.values():
            known.lost = known.lost or known.topic in states
        # What was acknowledged is gone; a row that still waits for its deletion is sent again.
        self._acknowledged = {key: row for key, row in self._acknowledged.items() if row.topic not in states}
        if facts:
            _log.critical(
                "a log of facts was lost: what its readers had not read is gone, what follows goes into the new one",
                topics=sorted(facts),
            )
            self._status.lost_facts |= facts
            await self._store.recover([known for known in self._progress.values() if known.topic in facts])
        self._losses += 1
        self._is_renewal_due.set()
        self._tell_lost()
        raise LogUnavailableError(f"the log was lost: {', '.join(sorted(topics))}")

    def _go_on_with(self, known: Progress, seen: SeenTopics) -> None:
        """A partition whose log is not what it was: another one, which readers see by its id, or a shorter one.

        Who has read beyond the end of a shorter log never reads what is written there now. So it is filled up first, to
        where any reader can have come, with records that mean nothing but that. Another topic begins with one of them.
        """
        partition = known.topic, known.partition
        topic_id, end = seen.topic_ids[known.topic], seen.ends[partition]
        is_another = known.topic_id != topic_id
        if known.topic not in self._states:
            self._fill_to.pop(partition, None)
        elif is_another:
            self._fill_to[partition] = end + 1
        else:
            reached = max(self._reached(known), self._known_end(partition, topic_id))
            self._fill_to[partition] = max(self._fill_to.get(partition, 0), reached + _unsettled_rows_max())
        known.checked_offset = 0 if is_another else min(known.checked_offset, end)
        known.topic_id, known.acknowledged_offset = topic_id, end
        self._ends[partition] = end
        if self._tail is not None and known.topic in self._states:
            self._tail.start_over(partition, offset=known.checked_offset, end=end)

    def _known_end(self, partition: Partition, topic_id: str) -> int:
        """Where the broker said that a partition ends; before it was asked, where the last heartbeat did.

        A database that was restored knows only of an earlier end.
        """
        return self._ends.get(partition, self._told.end_of(partition, topic_id))

    def _reached(self, known: Progress) -> int:
        """Up to where the log is known to have been, be it by what was acknowledged or by what was read of it."""
        read = 0 if self._tail is None else self._tail.reached((known.topic, known.partition))
        return max(known.acknowledged_offset, known.checked_offset, read)

    async def _fill(self, log: Log) -> None:
        """Bring shorter logs to where they were. Raises LogUnavailableError."""
        for partition, target in list(self._fill_to.items()):
            missing = target - self._progress[partition].acknowledged_offset
            if missing > 0:
                self._sending = True
                sent = await log.send_nulls(*partition, [_NO_KEY] * missing)
                self._note([sent])
                self._raise_errors([sent])
            del self._fill_to[partition]

    def _tell_lost(self) -> None:
        self._status.lost_topics = frozenset(known.topic for known in self._progress.values() if known.lost)

    # Whole topics anew.

    async def _renew(self) -> None:
        """Publish every topic that needs it, and when all of it is acknowledged, take the logs for what they are."""
        losses, surveyed = self._losses, self._surveyed if self._status.restoring else None
        renewal = Renewal(
            self._parts, self._all_is_acknowledged, _tell_nobody if surveyed is None else self._tell_restore
        )
        for topic in self._parts.states:
            if surveyed is not None or topic.name in self._status.lost_topics:
                known = await renewal.publish(topic)
                if surveyed is not None:
                    await renewal.withdraw(topic, known, until=surveyed.ends, unreadable=self._suspect)
        await self._all_is_acknowledged()
        recovered = [known for known in self._progress.values() if known.lost]
        if losses == self._losses:
            await self._store.recover(recovered)
        if losses != self._losses:
            # Lost again meanwhile; that it is to be done again was noted with it.
            return
        for progress in recovered:
            progress.lost = False
        self._tell_lost()
        if recovered:
            _log.warning("topics are published anew", topics=sorted({known.topic for known in recovered}))
        if surveyed is not None:
            await self._tell_restore(renewal.republished, renewal.withdrawn)
            await self._store.complete_epoch()
            self._status.restoring = False
            _log.warning(
                "the restored database is published: its epoch is complete",
                epoch=self._publisher.epoch,
                republished=renewal.republished,
                withdrawn=renewal.withdrawn,
            )

    def _suspect(self, partition: Partition, record: Any) -> None:
        if self._tail is not None:
            self._tail.suspect(partition, record)

    async def _tell_restore(self, republished: int, withdrawn: int) -> None:
        await self._store.note_restore(republished=republished, withdrawn=withdrawn)


async def _tell_nobody(_republished: int, _withdrawn: int) -> None:
    """A topic published anew is told when it is done."""


def _unsettled_rows_max() -> int:
    return _UNSETTLED_BATCHES_MAX * _BATCH_ROWS_MAX


def _monotonic_seconds() -> float:
    return asyncio.get_running_loop().time()


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all until one fails, end the others, raise what it failed with.

    A TaskGroup would lose a cancellation that comes together with a failure, and raise groups.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end_tasks(*tasks)
    for task in done:
        task.result()
