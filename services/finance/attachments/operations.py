from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.audit import snapshot
from chassis.kept_files import KeptFile, claim, give_up
from chassis.objects import Objects
from chassis.paging import Listing, Page, PageRequest
from chassis.preconditions import WHATEVER, Expected
from contracts.identifiers import CompanyId
from infra.files import FileId
from middleware.context import AccessContext
from services.finance.attachments import rules
from services.finance.attachments.tables import Attachment
from services.finance.expenses.tables import EXPENSES

LISTING: Final = Listing(Attachment, sorts={"created": Attachment.id}, default="-created")
#: Each lies in the scopes of its expense, which is judged whenever one is asked for.
ATTACHMENTS: Final = Objects(Attachment, unknown=rules.AttachmentUnknownError)


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
    expense = await EXPENSES.one(work, access, expense_id)
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
        version=0,
    )
    work.add(attachment)
    return ATTACHMENTS.write(work, access, attachment, "add", now=now)


async def page(work: AsyncSession, access: AccessContext, expense_id: UUID, asked: PageRequest) -> Page[Attachment]:
    """What is attached to an expense. Raises ExpenseUnknownError, OutOfScopeError or CursorInvalidError."""
    expense = await EXPENSES.one(work, access, expense_id)
    where = (Attachment.expense_id == expense.id, Attachment.removed_at.is_(None))
    return await LISTING.page(work, asked, company_id=access.company_id, scope=None, where=where)


async def one(work: AsyncSession, access: AccessContext, attachment_id: UUID, *, removed: bool = False) -> Attachment:
    """One that is there or, where it is asked for, was `removed`.

    Raises AttachmentUnknownError, for another company's too, or OutOfScopeError.
    """
    attachment = await ATTACHMENTS.one(work, access, attachment_id)
    if not removed:
        rules.check_there(attachment.removed_at)
    await EXPENSES.one(work, access, attachment.expense_id)
    return attachment


async def remove(
    work: AsyncSession, access: AccessContext, attachment_id: UUID, *, expected: Expected, now: datetime
) -> None:
    """Take an attachment away; its bytes go an hour later.

    Raises AttachmentUnknownError, OutOfScopeError, VersionMismatchError or AttachmentNeededError.
    """
    # Who does not reach it is not told its version.
    await one(work, access, attachment_id)
    attachment = await ATTACHMENTS.locked(work, access, attachment_id, expected)
    rules.check_there(attachment.removed_at)
    # Under its lock: else a decision made at the same time would be left without what it was made by.
    expense = await EXPENSES.locked(work, access, attachment.expense_id, WHATEVER)
    rules.check_removable(expense.state)
    before = snapshot(attachment)
    attachment.removed_at = now
    give_up(work, file_of(attachment), now)
    ATTACHMENTS.write(work, access, attachment, "remove", now=now, before=before)


def file_of(attachment: Attachment) -> FileId:
    return FileId(CompanyId(attachment.company_id), attachment.id)
