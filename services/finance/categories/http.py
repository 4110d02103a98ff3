from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Response
from pydantic import Field

from chassis.audit import HistoryPage, history
from chassis.idempotency import Repeatable
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, Work
from chassis.routing import ChangesModel, RequestModel, ResponseModel, problem_statuses, router
from middleware.guards import NoScope, Permission, ScopeSource, guard
from services.finance.categories import operations
from services.finance.categories.rules import MOVES, SCOPE, CategoryState
from services.finance.categories.tables import Category
from services.finance.manifest import MANIFEST

categories = router(prefix=MANIFEST.route_group, tag="categories")

_READ: Final = Permission(
    "finance.expenses.read", NoScope("who puts down an expense anywhere chooses from the same list")
)
_CHANGE_PROBLEMS: Final = problem_statuses(404, 409, 412, 428)


Name = Annotated[str, Field(min_length=1, max_length=100)]


class NewCategory(RequestModel):
    name: Name


class CategoryChanges(ChangesModel, NewCategory):
    """Only what is to be different."""


class CategoryBody(ResponseModel):
    """`moves` is what can be done with it in its state."""

    id: UUID
    name: str
    state: CategoryState
    moves: tuple[str, ...]
    version: int
    created_by: UUID
    created_at: datetime


class CategoryPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    categories: list[CategoryBody]
    next: str | None = None


@categories.post("/categories", status_code=201, responses=problem_statuses(409))
@guard(Permission("finance.expenses.write", ScopeSource.BODY))
async def add_category(
    body: NewCategory, access: Access, work: Work, now: Now, once: Repeatable, response: Response
) -> CategoryBody:
    """Add a category to the company's list."""

    async def add() -> CategoryBody:
        return _body(await operations.add(work, access, body.name, now=now))

    added = await once.answer(CategoryBody, add, scope=SCOPE)
    set_entity_tag(response, added.version)
    return added


@categories.get("/categories")
@guard(_READ)
async def list_categories(access: Access, work: Work, asked: Paged, state: CategoryState | None = None) -> CategoryPage:
    """The company's categories, sorted by name or created."""
    page = await operations.page(work, access.company_id, asked, state=state)
    return CategoryPage(categories=[_body(each) for each in page.rows], next=page.next)


@categories.get("/categories/{category_id}", responses=problem_statuses(404))
@guard(_READ)
async def read_category(category_id: UUID, access: Access, work: Work, response: Response) -> CategoryBody:
    """One category."""
    return _shown(await operations.CATEGORIES.one(work, access, category_id), response)


@categories.get("/categories/{category_id}/history", responses=problem_statuses(404))
@guard(_READ)
async def read_category_history(category_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to one category, the newest first."""
    category = await operations.CATEGORIES.one(work, access, category_id)
    return await history(work, asked, access.company_id, category.id)


@categories.patch("/categories/{category_id}", responses=_CHANGE_PROBLEMS)
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def edit_category(
    category_id: UUID,
    body: CategoryChanges,
    access: Access,
    work: Work,
    now: Now,
    expected: IfMatch,
    response: Response,
) -> CategoryBody:
    """Give a category another name."""
    return _shown(await operations.edit(work, access, category_id, body.said(), expected=expected, now=now), response)


@categories.post("/categories/{category_id}/retire", responses=_CHANGE_PROBLEMS)
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def retire_category(
    category_id: UUID, access: Access, work: Work, now: Now, expected: IfMatch, response: Response
) -> CategoryBody:
    """Let a category take no new expense."""
    return _shown(await operations.retire(work, access, category_id, expected=expected, now=now), response)


def _shown(category: Category, response: Response) -> CategoryBody:
    set_entity_tag(response, category.version)
    return _body(category)


def _body(category: Category) -> CategoryBody:
    return CategoryBody.of(category, moves=MOVES.allowed(CategoryState(category.state)))
