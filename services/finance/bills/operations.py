from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, not_, select
from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeFilter, ScopeValue
from chassis.audit import record, snapshot
from chassis.objects import Objects, set_values, value_of, values_of
from chassis.paging import Listing, Page, PageRequest, asked_for
from chassis.preconditions import WHATEVER, Expected
from contracts.identifiers import CompanyId, new_id
from contracts.money import Money
from middleware.context import AccessContext
from services.finance.approvals.rules import limit_needed
from services.finance.bills import rules
from services.finance.bills.rules import Ageing, BillDetails, BillState, OpenBills, Payment, Progress
from services.finance.bills.tables import Bill, BillPayment
from services.finance.periods.tables import hold_open
from services.finance.postings.rules import edited
from services.finance.projections.events import check_event

LISTING: Final = Listing(
    Bill,
    sorts={"created": Bill.id, "billed_on": Bill.billed_on, "due_on": Bill.due_on},
    default="-created",
    scopes={"business_unit": Bill.business_unit_id, "event": Bill.event_id},
)
BILLS: Final = Objects(Bill, unknown=rules.BillUnknownError, scope_of=lambda bill: scope_of(details_of(bill)))
#: Of one bill, which was judged.
_PAYMENTS: Final = Listing(BillPayment, sorts={"created": BillPayment.id}, default="created")
_IS_UNPAID: Final = Bill.state.in_(sorted(rules.UNPAID_STATES))


@dataclass(frozen=True, kw_only=True)
class BillFilter:
    """Which bills are asked for; None asks for all. Days are from the first up to, and without, the second."""

    #: By which a bill is overdue, or is not.
    today: date
    states: tuple[BillState, ...] | None = None
    is_overdue: bool | None = None
    business_unit_id: UUID | None = None
    event_id: UUID | None = None
    vendor_id: UUID | None = None
    billed_from: date | None = None
    billed_before: date | None = None
    due_from: date | None = None
    due_before: date | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        found = asked_for(self, _CONDITIONS)
        if self.is_overdue is not None:
            overdue = and_(_IS_UNPAID, Bill.due_on < self.today)
            found.append(overdue if self.is_overdue else not_(overdue))
        return found


_CONDITIONS: Final[Mapping[str, Callable[[Any], ColumnElement[bool]]]] = {
    "states": Bill.state.in_,
    "business_unit_id": Bill.business_unit_id.__eq__,
    "event_id": Bill.event_id.__eq__,
    "vendor_id": Bill.vendor_id.__eq__,
    "billed_from": Bill.billed_on.__ge__,
    "billed_before": Bill.billed_on.__lt__,
    "due_from": Bill.due_on.__ge__,
    "due_before": Bill.due_on.__lt__,
}


def scope_of(details: BillDetails) -> Mapping[str, ScopeValue]:
    """By what a bill is judged; of these a permission is bounded by the types its catalog row names."""
    return {
        "business_unit": details.business_unit_id,
        "event": details.event_id,
        "approval_limit": limit_needed(details.amount),
    }


async def add(work: AsyncSession, access: AccessContext, details: BillDetails, *, now: datetime) -> Bill:
    """Put down a bill.

    Raises OutOfScopeError, PeriodClosedError and what `rules.check_bill` and `check_event` raise.
    """
    access.require_scope(scope_of(details))
    rules.check_bill(details, now.date())
    await check_event(work, access.company_id, details.event_id)
    await hold_open(work, access.company_id, details.billed_on)
    bill = Bill(
        id=new_id(),
        company_id=access.company_id,
        created_by=access.user_id,
        created_at=now,
        version=0,
        **values_of(details),
        **values_of(Progress()),
    )
    work.add(bill)
    return BILLS.write(work, access, bill, "add", now=now)


async def edit(
    work: AsyncSession,
    access: AccessContext,
    bill_id: UUID,
    changes: Mapping[str, Any],
    *,
    expected: Expected,
    now: datetime,
) -> Bill:
    """Change what is written down of an open bill; `changes` are fields of BillDetails, the amount as two texts of
    which either may be missing. What changes nothing leaves no trace.

    Raises BillUnknownError, OutOfScopeError for where it is and where it would go, VersionMismatchError,
    BillNotEditableError, CurrencyUnknownError, PeriodClosedError and what `rules.check_bill` and
    `check_event` raise.
    """
    bill = await BILLS.locked(work, access, bill_id, expected)
    before = details_of(bill)
    details = edited(before, changes)
    access.require_scope(scope_of(details))
    rules.check_editable(BillState(bill.state))
    rules.check_bill(details, now.date())
    if details == before:
        return bill
    await check_event(work, access.company_id, details.event_id, known=before.event_id)
    await hold_open(work, access.company_id, before.billed_on, details.billed_on)
    said = snapshot(bill)
    set_values(bill, details)
    bill.changed_by = access.user_id
    return BILLS.write(work, access, bill, "edit", now=now, before=said)


async def approve(
    work: AsyncSession, access: AccessContext, bill_id: UUID, *, expected: Expected, now: datetime
) -> Bill:
    """Agree to pay what somebody else put down.

    Raises BillUnknownError, OutOfScopeError, VersionMismatchError, PeriodClosedError and what `rules.approved` raises.
    """
    bill = await BILLS.locked(work, access, bill_id, expected)
    progress = rules.approved(
        progress_of(bill), access.user_id, now, created_by=bill.created_by, changed_by=bill.changed_by
    )
    return await _move(work, access, bill, "approve", progress, now=now)


async def void(
    work: AsyncSession, access: AccessContext, bill_id: UUID, reason: str, *, expected: Expected, now: datetime
) -> Bill:
    """Take back a bill of which nothing was paid.

    Raises BillUnknownError, OutOfScopeError, VersionMismatchError, IllegalMoveError or PeriodClosedError.
    """
    bill = await BILLS.locked(work, access, bill_id, expected)
    return await _move(work, access, bill, "void", rules.voided(progress_of(bill), reason), now=now)


async def pay(
    work: AsyncSession, access: AccessContext, bill_id: UUID, payment: Payment, *, now: datetime
) -> BillPayment:
    """Put down that a bill was paid, in part or in full. The payment is posted on its own day, so a bill of a month
    that is closed by now can still be paid.

    Raises BillUnknownError, OutOfScopeError, PeriodClosedError and what `rules.paid` raises.
    """
    bill = await BILLS.locked(work, access, bill_id, WHATEVER)
    name, progress = rules.paid(details_of(bill), progress_of(bill), payment, now.date())
    await hold_open(work, access.company_id, payment.paid_on)
    row = BillPayment(
        id=new_id(),
        company_id=access.company_id,
        bill_id=bill.id,
        amount=payment.amount,
        paid_on=payment.paid_on,
        version=1,
        created_by=access.user_id,
        created_at=now,
    )
    work.add(row)
    record(work, row, "add", actor=access.user_id, now=now)
    said = snapshot(bill)
    set_values(bill, progress)
    BILLS.write(work, access, bill, name, now=now, before=said)
    return row


async def page(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, asked: PageRequest, wanted: BillFilter
) -> Page[Bill]:
    """The company's bills in scope. Raises SortUnknownError or CursorInvalidError."""
    return await LISTING.page(work, asked, company_id=company_id, scope=scope, where=wanted.conditions())


async def payments(work: AsyncSession, bill: Bill, asked: PageRequest) -> Page[BillPayment]:
    """What was paid for a bill the caller reaches. Raises SortUnknownError or CursorInvalidError."""
    own = BillPayment.bill_id == bill.id
    return await _PAYMENTS.page(work, asked, company_id=CompanyId(bill.company_id), scope=None, where=(own,))


async def ageing(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, wanted: BillFilter
) -> dict[str, Ageing]:
    """What is open of the company's bills in scope, by currency and age."""
    open_minor = func.sum(Bill.amount_minor - Bill.paid_minor)
    lines = (
        select(Bill.currency, Bill.due_on, func.count(), open_minor)
        .where(*LISTING.within(company_id, scope), *wanted.conditions(), _IS_UNPAID)
        .group_by(Bill.currency, Bill.due_on)
    )
    found = (await work.execute(lines)).all()
    return rules.ageing(
        (OpenBills(due_on, bills, Money(int(minor), currency)) for currency, due_on, bills, minor in found),
        wanted.today,
    )


def details_of(bill: Bill) -> BillDetails:
    return value_of(BillDetails, bill)


def progress_of(bill: Bill) -> Progress:
    return value_of(Progress, bill, state=BillState(bill.state))


async def _move(
    work: AsyncSession, access: AccessContext, bill: Bill, name: str, progress: Progress, *, now: datetime
) -> Bill:
    await hold_open(work, access.company_id, bill.billed_on)
    said = snapshot(bill)
    set_values(bill, progress)
    return BILLS.write(work, access, bill, name, now=now, before=said)
