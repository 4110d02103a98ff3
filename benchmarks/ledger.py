"""The books of a company with fifty business units after two years, written as COPY takes them.

Expenses are of an event of those weeks and of its unit, one in four in another currency than the unit's own. What is
older than two months is settled: paid, or rejected, or void. The same company has the same rows.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from random import Random
from typing import Final
from uuid import UUID, uuid5

import asyncpg

DAYS: Final = 730
CURRENCIES: Final = ("USD", "EUR", "GBP", "JPY", "BHD")
UNITS: Final = 50
EVENTS: Final = 400
VENDORS: Final = 200
AGENCIES: Final = 100
CATEGORIES: Final = 20
#: Cells that are null, as COPY's text format writes them.
_NULL: Final = "\\N"
_CHUNK_ROWS: Final = 2000
_UNSETTLED_DAYS: Final = 60
_EXPENSE_COLUMNS: Final = """
    id company_id business_unit_id event_id category_id vendor_id agency_id description incurred_on state submitted_by
    submitted_at decided_by decided_at rejection_reason scheduled_for paid_on void_reason created_by created_at
    amount_minor currency version
"""
_BILL_COLUMNS: Final = """
    id company_id business_unit_id event_id vendor_id description billed_on due_on state paid_minor approved_by
    approved_at void_reason created_by created_at amount_minor currency version
"""


@dataclass(frozen=True)
class Ledger:
    """Of whom, and up to, and without, which day. The first rows are the oldest."""

    company_id: UUID
    today: date

    def own(self, kind: str, number: int) -> UUID:
        """The id of one of its units, events, vendors and so on."""
        return uuid5(self.company_id, f"{kind} {number}")

    async def fill(self, connection: asyncpg.Connection, *, expenses: int, bills: int) -> None:
        """Write all of it: categories, the rates of every day, expenses, bills. As who may pass by row security."""
        await self._fill_categories(connection)
        await self._fill_rates(connection)
        await connection.copy_to_table(
            "expenses", source=_chunks(self._expenses(expenses)), columns=_EXPENSE_COLUMNS.split(), format="text"
        )
        await connection.copy_to_table(
            "bills", source=_chunks(self._bills(bills)), columns=_BILL_COLUMNS.split(), format="text"
        )

    def _first(self) -> datetime:
        return datetime.combine(self.today - timedelta(days=DAYS), datetime.min.time(), UTC)

    async def _fill_categories(self, connection: asyncpg.Connection) -> None:
        author, now = self.own("author", 0), self._first()
        rows = [
            (self.own("category", number), self.company_id, f"Category {number}", "active", 1, author, now)
            for number in range(CATEGORIES)
        ]
        columns = ("id", "company_id", "name", "state", "version", "created_by", "created_at")
        await connection.copy_records_to_table("categories", records=rows, columns=columns)

    async def _fill_rates(self, connection: asyncpg.Connection) -> None:
        random = Random(self.company_id.int + 7)  # noqa: S311  a sample, not a secret
        usual = {"USD": 1.08, "GBP": 0.86, "JPY": 161.2, "BHD": 0.407}
        lines = []
        for number in range(-40, DAYS + 1):
            day = self._first() + timedelta(days=number)
            rates = ", ".join(
                f'"{quote}": "{value * random.uniform(0.95, 1.05):.4g}"' for quote, value in usual.items()
            )
            lines.append(
                f"{self.own('rates', number + 40).hex}\t{self.company_id.hex}\t{day.date()}\tEUR\ta bank\t{{{rates}}}"
                f"\t1\t{self.own('author', 0).hex}\t{day.isoformat()}\n"
            )
        columns = ("id", "company_id", "day", "base", "source", "rates", "version", "created_by", "created_at")
        await connection.copy_to_table("day_rates", source=_chunks(iter(lines)), columns=columns, format="text")

    def _expenses(self, count: int) -> Iterator[str]:
        random = Random(self.company_id.int + 11)  # noqa: S311  the same
        company, first = self.company_id.hex, self._first()
        units, events, vendors, agencies, categories, people = (
            [self.own(kind, number).hex for number in range(many)]
            for kind, many in (
                ("unit", UNITS),
                ("event", EVENTS),
                ("vendor", VENDORS),
                ("agency", AGENCIES),
                ("category", CATEGORIES),
                ("person", 40),
            )
        )
        for number in range(count):
            at = first + timedelta(days=DAYS) * number / count
            incurred = at.date() - timedelta(days=random.randrange(20))
            unit, event = _place(random, number / count)
            state = _expense_state(random, (self.today - incurred).days)
            scheduled = incurred + timedelta(days=random.randrange(10, 60))
            created_by, decided_by = random.choice(people[:30]), random.choice(people[30:])
            is_decided = state not in {"draft", "submitted"}
            cells = (
                _time_ordered(at, random),
                company,
                units[unit],
                _NULL if event is None else events[event],
                random.choice(categories),
                _NULL if random.randrange(20) == 0 else random.choice(vendors),
                random.choice((random.choice(agencies), _NULL)),
                f"Expense {number} of the production, as agreed",
                str(incurred),
                state,
                *((_NULL, _NULL) if state == "draft" else (created_by, at.isoformat())),
                *((decided_by, at.isoformat()) if is_decided else (_NULL, _NULL)),
                "not as agreed" if state == "rejected" else _NULL,
                str(scheduled) if state in {"scheduled", "paid"} else _NULL,
                str(scheduled) if state == "paid" else _NULL,
                "put down twice" if state == "void" else _NULL,
                created_by,
                at.isoformat(),
                str(random.randrange(100, 900_000)),
                _currency(random, unit),
                "1",
            )
            yield "\t".join(cells) + "\n"

    def _bills(self, count: int) -> Iterator[str]:
        random = Random(self.company_id.int + 13)  # noqa: S311  the same
        first = self._first()
        for number in range(count):
            at = first + timedelta(days=DAYS) * number / count
            billed = at.date()
            due = billed + timedelta(days=random.randrange(10, 60))
            unit, event = _place(random, number / count)
            amount = random.randrange(100, 900_000)
            is_paid = due < self.today and random.randrange(20) > 0
            cells = (
                _time_ordered(at, random),
                self.company_id.hex,
                self.own("unit", unit).hex,
                _NULL if event is None else self.own("event", event).hex,
                self.own("vendor", random.randrange(VENDORS)).hex,
                f"Bill {number}",
                str(billed),
                str(due),
                "paid" if is_paid else "approved",
                str(amount if is_paid else 0),
                self.own("person", 2).hex,
                at.isoformat(),
                _NULL,
                self.own("person", 1).hex,
                at.isoformat(),
                str(amount),
                _currency(random, unit),
                "1",
            )
            yield "\t".join(cells) + "\n"


def _place(random: Random, elapsed: float) -> tuple[int, int | None]:
    """A unit, and an event of it that is near, or none."""
    if random.randrange(7) == 0:
        return random.randrange(UNITS), None
    event = min(max(int(elapsed * EVENTS) + random.randrange(-10, 25), 0), EVENTS - 1)
    return event * 7 % UNITS, event


def _currency(random: Random, unit: int) -> str:
    return random.choices((CURRENCIES[unit % len(CURRENCIES)], random.choice(CURRENCIES)), (2, 1))[0]


def _expense_state(random: Random, age_days: int) -> str:
    if age_days > _UNSETTLED_DAYS:
        return random.choices(("paid", "void", "rejected", "scheduled"), (93, 4, 2, 1))[0]
    return random.choices(("draft", "submitted", "approved", "scheduled", "paid", "void"), (10, 15, 20, 30, 22, 3))[0]


def _time_ordered(at: datetime, random: Random) -> str:
    """A UUID of version 7 made at this time."""
    milliseconds = int(at.timestamp() * 1000)
    return f"{milliseconds:012x}7{random.getrandbits(12):03x}8{random.getrandbits(60):015x}"


async def _chunks(lines: Iterator[str]) -> AsyncIterator[bytes]:
    while chunk := list(islice(lines, _CHUNK_ROWS)):
        yield "".join(chunk).encode()
