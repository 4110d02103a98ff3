"""What one amount is in another currency: what sums that are converted at once are held against."""

from contracts.exchange import convert_through_base
from contracts.money import Money
from services.finance.rates.rules import Rates


def converted(amount: Money, target: str, rates: Rates) -> Money:
    """An amount of the day of these rates in another currency, or in its own. Raises NoRateError."""
    if amount.currency == target:
        return amount
    if amount.currency == rates.base:
        return rates.rate(target).convert(amount)
    if target == rates.base:
        return rates.rate(amount.currency).convert(amount)
    return convert_through_base(amount, rates.rate(amount.currency), rates.rate(target))
