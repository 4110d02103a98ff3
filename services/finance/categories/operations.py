from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.audit import Snapshot, snapshot
from chassis.objects import Objects
from chassis.paging import Listing, Page, PageRequest
from chassis.preconditions import Expected
from contracts.identifiers import CompanyId, new_id
from middleware.context import AccessContext
from services.finance.categories import rules
from services.finance.categories.rules import CategoryState
from services.finance.categories.tables import Category

LISTING: Final = Listing(Category, sorts={"created": Category.id, "name": Category.name}, default="name")
CATEGORIES: Final = Objects(Category, unknown=rules.CategoryUnknownError)


async def add(work: AsyncSession, access: AccessContext, name: str, *, now: datetime) -> Category:
    """Add a category to the company's list. Raises OutOfScopeError or CategoryNameTakenError."""
    access.require_scope(rules.SCOPE)
    category = Category(
        id=new_id(),
        company_id=access.company_id,
        state=CategoryState.ACTIVE.value,
        version=0,
        created_by=access.user_id,
        created_at=now,
    )
    return await _name(work, access, category, name, "add", now=now)


async def edit(
    work: AsyncSession,
    access: AccessContext,
    category_id: UUID,
    changes: Mapping[str, str],
    *,
    expected: Expected,
    now: datetime,
) -> Category:
    """Give a category another `name`; expenses go on being of it. What changes nothing leaves no trace.

    Raises CategoryUnknownError, OutOfScopeError, VersionMismatchError or CategoryNameTakenError.
    """
    access.require_scope(rules.SCOPE)
    category = await CATEGORIES.locked(work, access, category_id, expected)
    name = changes.get("name", category.name)
    if category.name == name:
        return category
    return await _name(work, access, category, name, "edit", now=now, before=snapshot(category))


async def retire(
    work: AsyncSession, access: AccessContext, category_id: UUID, *, expected: Expected, now: datetime
) -> Category:
    """Let a category take no new expense.

    Raises CategoryUnknownError, OutOfScopeError, VersionMismatchError or IllegalMoveError.
    """
    access.require_scope(rules.SCOPE)
    category = await CATEGORIES.locked(work, access, category_id, expected)
    before = snapshot(category)
    category.state = rules.MOVES.move(CategoryState(category.state), "retire").value
    return CATEGORIES.write(work, access, category, "retire", now=now, before=before)


async def page(
    work: AsyncSession, company_id: CompanyId, asked: PageRequest, *, state: CategoryState | None
) -> Page[Category]:
    """The company's categories. Raises SortUnknownError or CursorInvalidError."""
    wanted = () if state is None else (Category.state == state,)
    return await LISTING.page(work, asked, company_id=company_id, scope=None, where=wanted)


async def _name(
    work: AsyncSession,
    access: AccessContext,
    category: Category,
    name: str,
    action: str,
    *,
    now: datetime,
    before: Snapshot | None = None,
) -> Category:
    category.name = name
    work.add(category)
    CATEGORIES.write(work, access, category, action, now=now, before=before)
    try:
        await work.flush()
    except IntegrityError:
        # Of two who take a name at once, PostgreSQL lets the second wait for the first and then refuses it.
        raise rules.CategoryNameTakenError(f"There is a category {name!r} already.") from None
    return category
