from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.audit import record, snapshot
from chassis.kept_files import KeptFile, claim, give_up
from chassis.paging import Listing, Page, PageRequest
from chassis.preconditions import Expected
from contracts.identifiers import CompanyId
from infra.files import FileId
from middleware.context import AccessContext
from services.finance.attachments import rules
from services.finance.attachments.tables import Attachment
from services.finance.expenses.rules import ExpenseUnknownError
from services.finance.expenses.tables import Expense

#: They lie in the scopes of their expense, which is judged before they are listed.
LISTING: Final = Listing(Attachment, sorts={"created": Attachment.id}, default="-created")


async def expense_of(work: AsyncSession, access: AccessContext, expense_id: UUID, *, locked: bool = False) -> Expense:
    """The expense something is attached to, which must be in scope.

    Raises ExpenseUnknownError, for another company's too, or OutOfScopeError.
    """
    expense = await work.get(Expense, expense_id, with_for_update=locked or None, populate_existing=True)
    if expense is None or expense.company_id != access.company_id:
        raise ExpenseUnknownError
    access.require_scope({"business_unit": expense.business_unit_id, "event": expense.event_id})
    return expense


async def add(
    work: AsyncSession,
    access: AccessContext,
    expense_id: UUID,
    kept: KeptFile,
    *,
    file_name: str,
    media_type: str,
    now: datetime,
) -> Attachment:
    """Attach a file whose bytes are kept. Raises ExpenseUnknownError, OutOfScopeError or UploadExpiredError."""
    expense = await expense_of(work, access, expense_id)
    await claim(work, FileId(access.company_id, kept.id))
    attachment = Attachment(
        id=kept.id,
        company_id=access.company_id,
        expense_id=expense.id,
        file_name=file_name,
        media_type=media_type,
        size_bytes=kept.written.size_bytes,
        sha256=kept.written.sha256,
        created_by=access.user_id,
        created_at=now,
        version=1,
    )
    work.add(attachment)
    record(work, attachment, "add", actor=access.user_id, now=now)
    return attachment


async def page(work: AsyncSession, access: AccessContext, expense_id: UUID, asked: PageRequest) -> Page[Attachment]:
    """What is attached to an expense. Raises ExpenseUnknownError, OutOfScopeError or CursorInvalidError."""
    expense = await expense_of(work, access, expense_id)
    where = (Attachment.expense_id == expense.id, Attachment.removed_at.is_(None))
    return await LISTING.page(work, asked, company_id=access.company_id, scope=None, where=where)


async def one(work: AsyncSession, access: AccessContext, attachment_id: UUID, *, removed: bool = False) -> Attachment:
    """One that is there or, where it is asked for, was `removed`.

    Raises AttachmentUnknownError, for another company's too, or OutOfScopeError.
    """
    attachment = await _found(work, access, attachment_id, removed=removed)
    await expense_of(work, access, attachment.expense_id)
    return attachment


async def remove(
    work: AsyncSession, access: AccessContext, attachment_id: UUID, *, expected: Expected, now: datetime
) -> None:
    """Take an attachment away; its bytes go an hour later.

    Raises AttachmentUnknownError, OutOfScopeError, VersionMismatchError or AttachmentNeededError.
    """
    attachment = await _found(work, access, attachment_id, locked=True)
    # Under its lock: else a decision made at the same time would be left without what it was made by.
    expense = await expense_of(work, access, attachment.expense_id, locked=True)
    expected.check(attachment.version)
    rules.check_removable(expense.state)
    before = snapshot(attachment)
    attachment.removed_at = now
    attachment.version += 1
    give_up(work, file_of(attachment), now)
    record(work, attachment, "remove", actor=access.user_id, now=now, before=before)


def file_of(attachment: Attachment) -> FileId:
    return FileId(CompanyId(attachment.company_id), attachment.id)


async def _found(
    work: AsyncSession, access: AccessContext, attachment_id: UUID, *, locked: bool = False, removed: bool = False
) -> Attachment:
    attachment = await work.get(Attachment, attachment_id, with_for_update=locked or None)
    if attachment is None or attachment.company_id != access.company_id:
        raise rules.AttachmentUnknownError
    if attachment.removed_at is not None and not removed:
        raise rules.AttachmentUnknownError
    return attachment
