"""What Checkout asks of a payment provider. What the provider answers comes as signed webhooks only."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True)
class Payment:
    """`reference` is the provider's id of the payment; at `pay_url` the buyer pays."""

    reference: str
    pay_url: str


class PaymentProvider(Protocol):
    """A payment provider."""

    #: The last part of its webhook route.
    name: str

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
        """Prepare a payment; an amount of 0 asks the buyer for consent only, as a trial does."""
        ...
