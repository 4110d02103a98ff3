from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Response
from fastapi.responses import StreamingResponse

from chassis.audit import HistoryPage, history
from chassis.downloads import download, file_answer
from chassis.kept_files import OwnFiles, keep
from chassis.paging import Paged
from chassis.preconditions import IfMatch, set_entity_tag
from chassis.request import Access, Now, UnitsOfWork, Work
from chassis.routing import ResponseModel, problem_statuses, router, takes_bytes
from chassis.uploads import MEBIBYTE, FileName, Upload, upload_body, uploaded
from infra.files import Written
from middleware.guards import Permission, ScopeSource, guard
from services.finance.attachments import operations, rules
from services.finance.expenses.tables import EXPENSES, scope_of
from services.finance.manifest import MANIFEST

attachments = router(prefix=MANIFEST.route_group, tag="attachments")


AttachedFile = Annotated[Upload, uploaded(*rules.MEDIA_TYPES)]


class AttachmentBody(ResponseModel):
    id: UUID
    expense_id: UUID
    file_name: str
    media_type: str
    size_bytes: int
    sha256: str
    version: int
    created_by: UUID
    created_at: datetime


class AttachmentPage(ResponseModel):
    """`next` is the `cursor` of the next page, absent on the last."""

    attachments: list[AttachmentBody]
    next: str | None = None


@attachments.post(
    "/expenses/{expense_id}/attachments",
    status_code=201,
    responses=problem_statuses(404, 415),
    openapi_extra=upload_body(*rules.MEDIA_TYPES),
)
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
@takes_bytes(rules.MEGABYTES_MAX * MEBIBYTE)
async def add_attachment(
    expense_id: UUID,
    file_name: FileName,
    access: Access,
    begin: UnitsOfWork,
    now: Now,
    upload: AttachedFile,
    files: OwnFiles,
    response: Response,
) -> AttachmentBody:
    """Attach a file to an expense: the request's body, under the name in the query."""
    async with begin() as work:
        expense = await EXPENSES.one(work, access, expense_id)
    kept = await keep(begin, files, upload)
    async with begin() as work:

        async def add() -> AttachmentBody:
            attachment = await operations.add(
                work, access, expense_id, kept, file_name=file_name, media_type=upload.media_type, now=now
            )
            return AttachmentBody.model_validate(attachment)

        added = await upload.once(work, kept.written.sha256).answer(AttachmentBody, add, scope=scope_of(expense))
    set_entity_tag(response, added.version)
    return added


@attachments.get("/expenses/{expense_id}/attachments", responses=problem_statuses(404))
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def list_attachments(expense_id: UUID, access: Access, work: Work, asked: Paged) -> AttachmentPage:
    """What is attached to an expense, the newest first."""
    page = await operations.page(work, access, expense_id, asked)
    return AttachmentPage(attachments=[AttachmentBody.model_validate(each) for each in page.rows], next=page.next)


@attachments.get(
    "/attachments/{attachment_id}",
    response_class=StreamingResponse,
    responses={**problem_statuses(404), 200: file_answer(*rules.MEDIA_TYPES)},
)
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def read_attachment(attachment_id: UUID, access: Access, work: Work, files: OwnFiles) -> StreamingResponse:
    """The file itself, to be saved."""
    attachment = await operations.one(work, access, attachment_id)
    written = Written(attachment.size_bytes, attachment.sha256)
    answer = await download(
        await files.read(operations.file_of(attachment), written),
        file_name=attachment.file_name,
        media_type=attachment.media_type,
        size_bytes=attachment.size_bytes,
    )
    set_entity_tag(answer, attachment.version)
    return answer


@attachments.get("/attachments/{attachment_id}/history", responses=problem_statuses(404))
@guard(Permission("finance.expenses.read", ScopeSource.OBJECT))
async def read_attachment_history(attachment_id: UUID, access: Access, work: Work, asked: Paged) -> HistoryPage:
    """What happened to an attachment, the newest first; also to one that was removed."""
    attachment = await operations.one(work, access, attachment_id, removed=True)
    return await history(work, asked, access.company_id, attachment.id)


@attachments.delete("/attachments/{attachment_id}", status_code=204, responses=problem_statuses(404, 409, 412, 428))
@guard(Permission("finance.expenses.write", ScopeSource.OBJECT))
async def remove_attachment(attachment_id: UUID, access: Access, work: Work, now: Now, expected: IfMatch) -> None:
    """Take an attachment away. What a decision was made by stays."""
    await operations.remove(work, access, attachment_id, expected=expected, now=now)
