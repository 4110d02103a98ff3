from datetime import date, datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Query, Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.idempotency import Repeatable
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, Work
from chassis.routing import (
    AmountText,
    ChangesModel,
    CurrencyText,
    DateText,
    IdText,
    RequestModel,
    ResponseModel,
    problem_statuses,
    router,
)
from contracts.money import Money
from middleware.guards import Permission, ScopeSource, guard
from services.finance.bills import operations
from services.finance.bills.rules import MOVES, Age, BillDetails, BillState, Payment, is_overdue, open_amount
from services.finance.bills.tables import Bill, BillPayment
from services.finance.manifest import MANIFEST

bills = router(prefix=MANIFEST.route_group, tag="bills")

Words = Annotated[str, Field(min_length=1, max_length=500)]
_CHANGE_PROBLEMS: Final = problem_statuses(404, 409, 412, 428)


class NewBill(RequestModel):
    """`reference` is the number its sender gave it."""

    description: Words
    amount: AmountText
    currency: CurrencyText
    billed_on: DateText
    due_on: DateText
    reference: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    business_unit_id: IdText | None = None
    event_id: IdText | None = None
    vendor_id: IdText | None = None


class BillChanges(ChangesModel, NewBill):
    """Only what is to be different; null takes a value away."""


class BillReason(RequestModel):
    reason: Words


class NewPayment(RequestModel):
    amount: AmountText
    currency: CurrencyText
    paid_on: DateText


class BillBody(ResponseModel):
    """`moves` is what can be done with it in its state; `pay` and `pay-part` are done by adding a payment."""

    id: UUID
    state: BillState
    moves: tuple[str, ...]
    is_overdue: bool
    description: str
    reference: str | None
    amount: str
    paid: str
    open: str
    currency: str
    billed_on: date
    due_on: date
    business_unit_id: UUID | None
    event_id: UUID | None
    vendor_id: UUID | None
    changed_by: UUID | None
    approved_by: UUID | None
    approved_at: datetime | None
    void_reason: str | None
    version: int
    created_by: UUID
    created_at: datetime


class BillPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    bills: list[BillBody]
    next: str | None = None


class PaymentBody(ResponseModel):
    id: UUID
    bill_id: UUID
    amount: str
    currency: str
    paid_on: date
    created_by: UUID
    created_at: datetime


class PaymentPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    payments: list[PaymentBody]
    next: str | None = None


class AgedBody(ResponseModel):
    age: Age
    bills: int
    open: str


class CurrencyAgeing(ResponseModel):
    """`open` is the sum over the ages."""

    currency: str
    ages: list[AgedBody]
    bills: int
    open: str


class AgeingBody(ResponseModel):
    """`as_of` is the day, in UTC, by which bills are overdue."""

    as_of: date
    currencies: list[CurrencyAgeing]


async def _wanted(
    now: Now,
    *,
    state: Annotated[list[BillState] | None, Query()] = None,
    is_overdue: bool | None = None,
    business_unit_id: UUID | None = None,
    event_id: UUID | None = None,
    vendor_id: UUID | None = None,
    billed_from: Annotated[DateText | None, Query()] = None,
    billed_before: Annotated[DateText | None, Query()] = None,
    due_from: Annotated[DateText | None, Query()] = None,
    due_before: Annotated[DateText | None, Query()] = None,
) -> operations.BillFilter:
    return operations.BillFilter(
        today=now.date(),
        states=None if state is None else tuple(state),
        is_overdue=is_overdue,
        business_unit_id=business_unit_id,
        event_id=event_id,
        vendor_id=vendor_id,
        billed_from=billed_from,
        billed_before=billed_before,
        due_from=due_from,
        due_before=due_before,
    )


#: Which bills a request is about, of those the caller reaches.
Wanted = Annotated[operations.BillFilter, Depends(_wanted)]


@bills.post("/bills", status_code=201, responses=problem_statuses(409))
@guard(Permission("finance.bills.write", ScopeSource.BODY))
async def add_bill(
    body: NewBill, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> BillBody:
    """Put down a bill."""
    written = body.model_dump(exclude={"amount", "currency"})
    details = BillDetails(amount=Money.parse(body.amount, body.currency), **written)

    async def add() -> BillBody:
        return _body(await operations.add(work, access, details, now=now), now.date())

    added = await once.answer(BillBody, add, scope=operations.scope_of(details))
    set_entity_tag(response, added.version)
    return added


@bills.get("/bills")
@guard(Permission("finance.bills.read", ScopeSource.FILTER))
async def list_bills(access: Access, work: Work, asked: Paged, wanted: Wanted) -> BillPage:
    """The company's bills within the caller's scopes, sorted by created, billed_on or due_on; the newest first."""
    page = await operations.page(work, access.company_id, access.scope_filter, asked, wanted)
    return BillPage(bills=[_body(each, wanted.today) for each in page.rows], next=page.next)


@bills.get("/bills/ageing")
@guard(Permission("finance.bills.read", ScopeSource.FILTER))
async def read_bill_ageing(access: Access, work: Work, wanted: Wanted) -> AgeingBody:
    """What is open of the bills within the caller's scopes, per currency, by how long it is overdue."""
    found = await operations.ageing(work, access.company_id, access.scope_filter, wanted)
    return AgeingBody(
        as_of=wanted.today,
        currencies=[
            CurrencyAgeing(
                currency=currency,
                ages=[AgedBody(age=age, bills=aged.bills, open=str(aged.open)) for age, aged in ageing.by_age.items()],
                bills=ageing.total.bills,
                open=str(ageing.total.open),
            )
            for currency, ageing in found.items()
        ],
    )


@bills.get("/bills/{bill_id}", responses=problem_statuses(404))
@guard(Permission("finance.bills.read", ScopeSource.OBJECT))
async def read_bill(bill_id: UUID, access: Access, work: Work, now: Now, response: Response) -> BillBody:
    """One bill."""
    return _shown(await operations.BILLS.one(work, access, bill_id), now, response)


@bills.get("/bills/{bill_id}/history", responses=problem_statuses(404))
@guard(Permission("finance.bills.read", ScopeSource.OBJECT))
async def read_bill_history(bill_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to one bill, the newest first."""
    bill = await operations.BILLS.one(work, access, bill_id)
    return await history(work, asked, access.company_id, bill.id)


@bills.patch("/bills/{bill_id}", responses=_CHANGE_PROBLEMS)
@guard(Permission("finance.bills.write", ScopeSource.OBJECT))
async def edit_bill(
    bill_id: UUID, body: BillChanges, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> BillBody:
    """Change what is written down of an open bill."""
    edited = await operations.edit(work, access, bill_id, body.said(), expected=expected, now=now)
    return _shown(edited, now, response)


@bills.post("/bills/{bill_id}/approve", responses=_CHANGE_PROBLEMS)
@guard(Permission("finance.bills.approve", ScopeSource.OBJECT))
async def approve_bill(
    bill_id: UUID, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> BillBody:
    """Agree to pay what somebody else put down, within one's limit."""
    return _shown(await operations.approve(work, access, bill_id, expected=expected, now=now), now, response)


@bills.post("/bills/{bill_id}/void", responses=_CHANGE_PROBLEMS)
@guard(Permission("finance.bills.write", ScopeSource.OBJECT))
async def void_bill(
    bill_id: UUID, body: BillReason, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> BillBody:
    """Take back a bill of which nothing was paid; it stays to be seen."""
    voided = await operations.void(work, access, bill_id, body.reason, expected=expected, now=now)
    return _shown(voided, now, response)


# Who pays carries out what others decided, so it takes no right to decide.
@bills.post("/bills/{bill_id}/payments", status_code=201, responses=problem_statuses(404, 409))
@guard(Permission("finance.bills.write", ScopeSource.OBJECT))
async def add_payment(
    bill_id: UUID, body: NewPayment, access: Access, work: Work, now: Now, once: Repeatable
) -> PaymentBody:
    """Put down that an approved bill was paid, in part or in full."""
    bill = await operations.BILLS.one(work, access, bill_id)
    payment = Payment(amount=Money.parse(body.amount, body.currency), paid_on=body.paid_on)

    async def pay() -> PaymentBody:
        return _payment_body(await operations.pay(work, access, bill.id, payment, now=now))

    return await once.answer(PaymentBody, pay, scope=operations.scope_of(operations.details_of(bill)))


@bills.get("/bills/{bill_id}/payments", responses=problem_statuses(404))
@guard(Permission("finance.bills.read", ScopeSource.OBJECT))
async def list_payments(bill_id: UUID, access: Access, work: Work, asked: Paged) -> PaymentPage:
    """What was paid for one bill, sorted by created; the oldest first."""
    bill = await operations.BILLS.one(work, access, bill_id)
    page = await operations.payments(work, bill, asked)
    return PaymentPage(payments=[_payment_body(each) for each in page.rows], next=page.next)


def _shown(bill: Bill, now: datetime, response: Response) -> BillBody:
    set_entity_tag(response, bill.version)
    return _body(bill, now.date())


def _body(bill: Bill, today: date) -> BillBody:
    state = BillState(bill.state)
    return BillBody.of(
        bill,
        moves=MOVES.allowed(state),
        is_overdue=is_overdue(state, bill.due_on, today),
        amount=str(bill.amount),
        paid=str(bill.paid),
        open=str(open_amount(bill.amount, operations.progress_of(bill))),
    )


def _payment_body(payment: BillPayment) -> PaymentBody:
    return PaymentBody.of(payment, amount=str(payment.amount))
