"""For which modules a grant may be stored: those the company is entitled to (domain §1.2)."""

from collections.abc import Mapping
from datetime import datetime

from contracts.errors import DomainError, Kind
from contracts.events.entitlements import EntitlementChanged, EntitlementStatus

_LIVE = frozenset({EntitlementStatus.TRIALING, EntitlementStatus.ACTIVE, EntitlementStatus.PAST_DUE})


class ModuleNotEligibleError(DomainError):
    kind = Kind.CONFLICT
    code = "module_not_eligible"
    title = "The company does not have this module"

    def __init__(self, module: str) -> None:
        super().__init__(
            f"{module!r} is not part of what the company has bought, or it has ended. Buy it first.", module=module
        )


class EligibilityUnknownError(DomainError):
    """Core could not say what the company is entitled to; nothing is granted on a guess."""

    kind = Kind.UNAVAILABLE
    code = "eligibility_unknown"
    title = "It is not known which modules the company has"


def eligible_modules(entitlement: EntitlementChanged) -> dict[str, datetime | None] | None:
    """The modules with their ends, exclusive, none ending after the base; None where the state is unknown.

    Without a live base it is none, whatever else was bought (document 002 §3.4).
    """
    base = entitlement.base
    statuses = {entitlement.status} | ({base.status} if base else set())
    if EntitlementStatus.UNKNOWN in statuses:
        return None
    if base is None or not statuses <= _LIVE:
        return {}
    modules = {module.key: _earlier(module.valid_until, base.valid_until) for module in entitlement.modules}
    return {**modules, base.module: base.valid_until}


def check_eligible(module: str, eligible: Mapping[str, datetime | None] | None, now: datetime) -> None:
    """Raises ModuleNotEligibleError, or EligibilityUnknownError where `eligible` is None."""
    if eligible is None:
        raise EligibilityUnknownError("Try again in a moment.")
    if module not in eligible or not is_running(eligible[module], now):
        raise ModuleNotEligibleError(module)


def is_running(valid_until: datetime | None, now: datetime) -> bool:
    """Whether an end, exclusive, has not come yet."""
    return valid_until is None or now < valid_until


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    ends = [end for end in (one, other) if end is not None]
    return min(ends, default=None)
