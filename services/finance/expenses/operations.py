from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Date, Numeric, Text, and_, column, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from access.scopes import ScopeFilter
from chassis.audit import snapshot
from chassis.imports import FAULTS_MAX, RowsRefusedError, Table, row_fault
from chassis.objects import set_values, value_of, values_of
from chassis.paging import Page, PageRequest, asked_for
from chassis.preconditions import Expected
from chassis.request import UnitsOfWork
from contracts.errors import DomainError
from contracts.identifiers import CompanyId, new_id
from contracts.money import Money
from contracts.problems import FieldFault
from infra.postgres.database import at_one_moment
from middleware.context import AccessContext
from services.finance.categories.rules import check_takes_expenses
from services.finance.categories.tables import held_state
from services.finance.expenses import rules
from services.finance.expenses.rules import ExpenseDetails, ExpenseState, Progress, Step, Totals
from services.finance.expenses.tables import EXPENSES, LISTING, Expense, scope_of
from services.finance.periods.rules import month_of
from services.finance.periods.tables import hold_open
from services.finance.postings.rules import edited
from services.finance.projections.events import check_event, known_event
from services.finance.rates.rules import check_target, steps
from services.finance.rates.tables import read_rates

_ROWS_AT_ONCE: Final = 200


@dataclass(frozen=True, kw_only=True)
class ExpenseFilter:
    """Which expenses are asked for; None asks for all. Days are from the first up to, and without, the second."""

    states: tuple[ExpenseState, ...] | None = None
    business_unit_id: UUID | None = None
    event_id: UUID | None = None
    category_id: UUID | None = None
    vendor_id: UUID | None = None
    agency_id: UUID | None = None
    created_by: UUID | None = None
    submitted_by: UUID | None = None
    decided_by: UUID | None = None
    incurred_from: date | None = None
    incurred_before: date | None = None
    scheduled_from: date | None = None
    scheduled_before: date | None = None
    paid_from: date | None = None
    paid_before: date | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        return asked_for(self, _CONDITIONS)


_CONDITIONS: Final[Mapping[str, Callable[[Any], ColumnElement[bool]]]] = {
    "states": Expense.state.in_,
    "business_unit_id": Expense.business_unit_id.__eq__,
    "event_id": Expense.event_id.__eq__,
    "category_id": Expense.category_id.__eq__,
    "vendor_id": Expense.vendor_id.__eq__,
    "agency_id": Expense.agency_id.__eq__,
    "created_by": Expense.created_by.__eq__,
    "submitted_by": Expense.submitted_by.__eq__,
    "decided_by": Expense.decided_by.__eq__,
    "incurred_from": Expense.incurred_on.__ge__,
    "incurred_before": Expense.incurred_on.__lt__,
    "scheduled_from": Expense.scheduled_for.__ge__,
    "scheduled_before": Expense.scheduled_for.__lt__,
    "paid_from": Expense.paid_on.__ge__,
    "paid_before": Expense.paid_on.__lt__,
}


class FirstRows:
    """Of the rows of a table, the number of the first of each category, of each event and of each month."""

    def __init__(self) -> None:
        self.by_category: dict[UUID, int] = {}
        self.by_event: dict[UUID, int] = {}
        self.by_month: dict[date, int] = {}

    def note(self, number: int, details: ExpenseDetails) -> None:
        if details.category_id is not None:
            self.by_category.setdefault(details.category_id, number)
        if details.event_id is not None:
            self.by_event.setdefault(details.event_id, number)
        self.by_month.setdefault(month_of(details.incurred_on), number)


async def add(work: AsyncSession, access: AccessContext, details: ExpenseDetails, *, now: datetime) -> Expense:
    """Put down an expense.

    Raises OutOfScopeError, PeriodClosedError and what `rules.check_expense` and `_hold_references` raise.
    """
    access.require_scope(scope_of(details))
    rules.check_expense(details, now.date())
    await _hold_references(work, access, details)
    await hold_open(work, access.company_id, details.incurred_on)
    return _draft(work, access, details, now=now)


async def edit(
    work: AsyncSession,
    access: AccessContext,
    expense_id: UUID,
    changes: Mapping[str, Any],
    *,
    expected: Expected,
    now: datetime,
) -> Expense:
    """Change what is written down of an expense; `changes` are fields of ExpenseDetails, the amount as two texts of
    which either may be missing. What changes nothing leaves no trace.

    Raises ExpenseUnknownError, OutOfScopeError for where it is and where it would go, VersionMismatchError,
    ExpenseNotEditableError, CurrencyUnknownError, PeriodClosedError and what `rules.check_expense` and
    `_hold_references` raise.
    """
    expense = await EXPENSES.locked(work, access, expense_id, expected)
    before = details_of(expense)
    details = edited(before, changes)
    access.require_scope(scope_of(details))
    rules.check_editable(ExpenseState(expense.state))
    rules.check_expense(details, now.date())
    if details == before:
        return expense
    await _hold_references(work, access, details, known=before)
    await hold_open(work, access.company_id, before.incurred_on, details.incurred_on)
    said = snapshot(expense)
    set_values(expense, details)
    return EXPENSES.write(work, access, expense, "edit", now=now, before=said)


async def move(
    work: AsyncSession,
    access: AccessContext,
    expense_id: UUID,
    name: str,
    *,
    expected: Expected,
    now: datetime,
    reason: str | None = None,
    day: date | None = None,
) -> Expense:
    """Make one of `rules.MOVES`.

    Raises ExpenseUnknownError, OutOfScopeError, VersionMismatchError, PeriodClosedError and what `rules.moved` raises.
    """
    expense = await EXPENSES.locked(work, access, expense_id, expected)
    step = Step(name=name, actor=access.user_id, at=now, reason=reason, day=day)
    before = _progress_of(expense)
    progress = rules.moved(before, step, expense.created_by)
    await hold_open(work, access.company_id, *rules.posting_days(details_of(expense), before, step))
    said = snapshot(expense)
    set_values(expense, progress)
    return EXPENSES.write(work, access, expense, name, now=now, before=said)


async def page(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, asked: PageRequest, wanted: ExpenseFilter
) -> Page[Expense]:
    """The company's expenses in scope. Raises SortUnknownError or CursorInvalidError."""
    return await LISTING.page(work, asked, company_id=company_id, scope=scope, where=wanted.conditions())


def every(
    begin: UnitsOfWork, company_id: CompanyId, scope: ScopeFilter, wanted: ExpenseFilter
) -> AsyncIterator[Expense]:
    """All of the company's expenses in scope, the newest first, a page in memory at a time."""
    return LISTING.walk(begin, company_id=company_id, scope=scope, where=wanted.conditions())


async def check_table(
    access: AccessContext, table: Table[Any, ExpenseDetails], *, now: datetime
) -> tuple[int, FirstRows]:
    """How many rows a table has, and which are the first to refer to something; the database is not asked yet.

    Raises OutOfScopeError, which names the row, and RowsRefusedError for what `rules.check_expense` refuses.
    """
    first_rows = FirstRows()

    def judge(number: int, details: ExpenseDetails) -> None:
        try:
            access.require_scope(scope_of(details))
        except DomainError as error:
            error.detail = f"Row {number}: {error.detail}"
            raise
        rules.check_expense(details, now.date())
        first_rows.note(number, details)

    return await table.check(judge), first_rows


async def hold_table(work: AsyncSession, access: AccessContext, first_rows: FirstRows) -> None:
    """Have what the rows of a table refer to, and their months, stay as they are until the transaction ends.

    Each is asked for once. Raises RowsRefusedError, which names the first row of each that is refused.
    """
    faults: list[FieldFault] = []
    held: tuple[tuple[Mapping[Any, int], Callable[[Any], Awaitable[object]], str | None], ...] = (
        (first_rows.by_category, lambda category: _hold_category(work, access, category), None),
        (first_rows.by_event, lambda event: known_event(work, access.company_id, event), None),
        (first_rows.by_month, lambda month: hold_open(work, access.company_id, month), "incurred_on"),
    )
    for first_of, hold, pointed_at in held:
        for each, number in sorted(first_of.items()):
            try:
                await hold(each)
            except DomainError as error:
                faults.append(row_fault(number, error, column=pointed_at))
            if len(faults) == FAULTS_MAX:
                raise RowsRefusedError(faults)
    if faults:
        raise RowsRefusedError(faults)


async def add_table(
    work: AsyncSession, access: AccessContext, table: Table[Any, ExpenseDetails], *, now: datetime
) -> None:
    """Put down every row of a table that was checked and is held."""
    unwritten = 0
    async for details in table.rows():
        _draft(work, access, details, now=now)
        unwritten += 1
        if unwritten == _ROWS_AT_ONCE:
            await work.flush()
            unwritten = 0


async def totals(
    work: AsyncSession, company_id: CompanyId, scope: ScopeFilter, wanted: ExpenseFilter, currency: str
) -> Totals:
    """What the company's expenses in scope are by state, each in this currency by the rates of its own day.

    Raises TargetUnknownError, NoRateError, or AmountInvalidError for a sum that is no amount any more.
    """
    check_target(currency)
    # What one of these statements finds is converted by the rates another reads and added up by a third.
    await at_one_moment(work)
    asked = replace(wanted, states=wanted.states or rules.SUMMED_STATES)
    within = (*LISTING.within(company_id, scope), *asked.conditions())
    sums = Totals(currency)
    same = select(Expense.state, func.count(), func.sum(Expense.amount_minor)).where(
        *within, Expense.currency == currency
    )
    for state, count, minor in await work.execute(same.group_by(Expense.state)):
        sums.add(ExpenseState(state), count, Money(int(minor), currency))
    others = (*within, Expense.currency != currency)
    days = select(Expense.incurred_on, Expense.currency).where(*others).distinct()
    pairs = sorted((day, of) for day, of in await work.execute(days))
    rates = await read_rates(work, company_id, {day for day, _ in pairs})
    found = [(day, of, *steps(of, day, currency, rates.get(day))) for day, of in pairs]
    table = _conversions(found)
    whole = _half_up(_half_up(Expense.amount_minor, table.c.first, table.c.first_by), table.c.second, table.c.second_by)
    lines = (
        select(Expense.state, func.count(), func.sum(whole))
        .join(table, and_(table.c.day == Expense.incurred_on, table.c.currency == Expense.currency))
        .where(*others)
        .group_by(Expense.state)
    )
    for state, count, minor in await work.execute(lines):
        sums.add(ExpenseState(state), count, Money(int(minor), currency))
    return sums


def _conversions(found: Sequence[tuple[date, str, Fraction, Fraction]]) -> Any:
    """A table of what amounts of a day and currency are converted by, sent with the statement."""
    numbers = [
        (first.numerator, first.denominator, second.numerator, second.denominator) for *_, first, second in found
    ]
    columns = (
        literal([day for day, *_ in found], ARRAY(Date)),
        literal([currency for _, currency, *_ in found], ARRAY(Text)),
        *(literal([Decimal(each[place]) for each in numbers], ARRAY(Numeric)) for place in range(4)),
    )
    names = (column("day", Date), column("currency", Text))
    factors = (column(name, Numeric) for name in ("first", "first_by", "second", "second_by"))
    return func.unnest(*columns).table_valued(*names, *factors).render_derived(name="conversions")


def _half_up(minor: Any, factor: Any, divisor: Any) -> Any:
    """`contracts.money.half_up` of a product above nothing, in whole numbers as there."""
    return func.div(2 * minor * factor + divisor, 2 * divisor)


def details_of(expense: Expense) -> ExpenseDetails:
    return value_of(ExpenseDetails, expense)


def _draft(work: AsyncSession, access: AccessContext, details: ExpenseDetails, *, now: datetime) -> Expense:
    expense = Expense(
        id=new_id(),
        company_id=access.company_id,
        state=ExpenseState.DRAFT.value,
        created_by=access.user_id,
        created_at=now,
        version=0,
        **values_of(details),
    )
    work.add(expense)
    return EXPENSES.write(work, access, expense, "add", now=now)


def _progress_of(expense: Expense) -> Progress:
    return value_of(Progress, expense, state=ExpenseState(expense.state))


async def _hold_category(work: AsyncSession, access: AccessContext, category_id: UUID) -> None:
    check_takes_expenses(await held_state(work, access.company_id, category_id))


async def _hold_references(
    work: AsyncSession, access: AccessContext, details: ExpenseDetails, *, known: ExpenseDetails | None = None
) -> None:
    """Have what an expense refers to stay what it is until the expense is written. What it referred to before may have
    retired, or been removed, since. Raises CategoryRefusedError, EventUnknownError or EventStateUnknownError.
    """
    category_id = details.category_id
    if category_id is not None and (known is None or category_id != known.category_id):
        await _hold_category(work, access, category_id)
    await check_event(work, access.company_id, details.event_id, known=known.event_id if known else None)
