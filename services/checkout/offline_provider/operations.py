import asyncio
import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import httpx
import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.identifiers import new_id
from infra.clock import Clock
from infra.postgres.database import Database
from services.checkout.offline_provider import rules
from services.checkout.offline_provider.tables import ProviderPayment, WebhookDelivery
from services.checkout.provider import Payment, PaymentProvider
from services.checkout.webhooks.rules import SIGNATURE_HEADER, signature_header

_log = structlog.get_logger("kisum.offline_provider")


class OfflineProvider(PaymentProvider):
    """The provider as Checkout sees it.

    :param pages: the address its payment pages are under.
    """

    name = "offline"

    def __init__(self, pages: str) -> None:
        self._pages = pages

    async def create_payment(
        self,
        work: AsyncSession,
        *,
        session_id: UUID,
        amount_minor: int,
        currency: str,
        expires_at: datetime,
        now: datetime,
    ) -> Payment:
        """A pending payment. It is made in the caller's transaction: a session that is rolled back leaves none."""
        reference = rules.new_reference()
        work.add(
            ProviderPayment(
                reference=reference,
                session_id=session_id,
                amount_minor=amount_minor,
                currency=currency,
                status=rules.PaymentStatus.PENDING,
                created_at=now,
                expires_at=expires_at,
            )
        )
        return Payment(reference=reference, pay_url=f"{self._pages}/{reference}")


async def payment(work: AsyncSession, reference: str) -> ProviderPayment:
    """Raises PaymentUnknownError."""
    found = await work.get(ProviderPayment, reference)
    if found is None:
        raise rules.PaymentUnknownError("Check the address.")
    return found


async def settle(work: AsyncSession, reference: str, outcome: rules.PaymentStatus, *, now: datetime) -> ProviderPayment:
    """What the buyer decided, once. Raises PaymentUnknownError, PaymentSettledError or PaymentExpiredError."""
    found = await work.get(ProviderPayment, reference, with_for_update=True)
    if found is None:
        raise rules.PaymentUnknownError("Check the address.")
    current = rules.PaymentStatus(found.status)
    if rules.settles(current, outcome, expires_at=found.expires_at, now=now):
        found.status, found.settled_at = outcome, now
        event_id = f"evt_{new_id().hex}"
        work.add(
            WebhookDelivery(
                event_id=event_id,
                payment_reference=reference,
                body=_body(event_id, found, now),
                created_at=now,
                next_attempt_at=now,
            )
        )
    return found


def _body(event_id: str, settled: ProviderPayment, now: datetime) -> bytes:
    event = {
        "id": event_id,
        "type": f"payment.{settled.status}",
        "created_at": now.astimezone(UTC).isoformat(),
        "data": {
            "reference": settled.reference,
            "amount_minor": settled.amount_minor,
            "currency": settled.currency,
        },
    }
    return json.dumps(event).encode()


@dataclass(frozen=True)
class Due:
    """A report to send now."""

    event_id: str
    body: bytes
    attempts: int


async def claim_due(work: AsyncSession, *, now: datetime) -> Due | None:
    """Take the report that waited longest; until its pause is over nobody else does."""
    row = await work.scalar(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.delivered_at.is_(None),
            WebhookDelivery.given_up_at.is_(None),
            WebhookDelivery.next_attempt_at <= now,
        )
        .order_by(WebhookDelivery.next_attempt_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if row is None:
        return None
    row.attempts += 1
    row.next_attempt_at = now + rules.pause_after(row.attempts)
    return Due(event_id=row.event_id, body=row.body, attempts=row.attempts)


async def record_attempt(work: AsyncSession, due: Due, *, accepted: bool, now: datetime) -> None:
    """Remember how a report was received; after three days without success it is given up."""
    row = await work.get_one(WebhookDelivery, due.event_id, with_for_update=True)
    if accepted:
        row.delivered_at = now
    elif now - row.created_at >= rules.GIVE_UP_AFTER:
        row.given_up_at = now
        _log.error("webhook given up", event_id=due.event_id, attempts=due.attempts)


class Courier:
    """Sends reports to Checkout's webhook route over HTTP, as a provider elsewhere would.

    :param address: the webhook route.
    """

    def __init__(
        self, database: Database, client: httpx.AsyncClient, *, address: str, secret: str, clock: Clock
    ) -> None:
        self._database = database
        self._client = client
        self._address = address
        self._secret = secret
        self._clock = clock
        self._woken = asyncio.Event()

    async def wake(self) -> None:
        """There is something to send: do not wait for the next look."""
        self._woken.set()

    async def rest(self, seconds: float) -> None:
        """Wait until woken, at most this long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def close(self) -> None:
        await self._client.aclose()

    async def deliver_next(self) -> bool:
        """Send one report that is due; False where none is. No transaction is open while it is under way."""
        async with self._database.unit_of_work() as work:
            due = await claim_due(work, now=self._clock())
        if due is None:
            return False
        accepted = await self._send(due)
        async with self._database.unit_of_work() as work:
            await record_attempt(work, due, accepted=accepted, now=self._clock())
        return True

    async def _send(self, due: Due) -> bool:
        headers = {
            SIGNATURE_HEADER: signature_header(self._secret, due.body, self._clock()),
            "Content-Type": "application/json",
        }
        try:
            answer = await self._client.post(self._address, content=due.body, headers=headers)
        except httpx.HTTPError as error:
            _log.warning(
                "webhook not delivered", event_id=due.event_id, attempt=due.attempts, reason=type(error).__name__
            )
            return False
        if not answer.is_success:
            _log.warning("webhook refused", event_id=due.event_id, attempt=due.attempts, status=answer.status_code)
        return answer.is_success
