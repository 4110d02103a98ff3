import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import structlog.testing

from chassis.kept_files import UNCLAIMED_FOR, remove_unclaimed
from chassis.uploads import MEBIBYTE
from infra.clock import utc_now
from infra.files import FileAlteredError, Files
from infra.postgres.database import Database
from services.finance.attachments.rules import MEGABYTES_MAX
from tests.harness.modules import Person, RunningModule
from tests.integration.finance.test_expenses import ONE, OTHER, add, in_company, move

PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


class Attaching:
    """A person, an expense of theirs, and the folder their company's files are in."""

    def __init__(self, person: Person, expense: dict[str, Any]) -> None:
        self.person = person
        self.expense_id = expense["id"]

    @property
    def app(self) -> Any:
        transport = self.person.module.client._transport
        assert isinstance(transport, httpx.ASGITransport)
        return transport.app

    @property
    def files(self) -> set[str]:
        store: Files = self.app.state.components[Files]
        assert store._folder is not None
        folder: Path = store._folder / str(self.person.company_id)
        return {each.name for each in folder.rglob("*") if each.is_file()}

    async def send(
        self, content: Any = PDF, media_type: str = "application/pdf", name: str = "bill.pdf", **given: Any
    ) -> httpx.Response:
        headers = {"Content-Type": media_type, **given.pop("headers", {})}
        path = f"/expenses/{self.expense_id}/attachments"
        return await self.person.call(
            "POST", path, params={"file_name": name}, content=content, headers=headers, **given
        )

    async def attach(self, *given: Any, **more: Any) -> dict[str, Any]:
        answer = await self.send(*given, **more)
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def attached(self) -> list[dict[str, Any]]:
        answer = await self.person.call("GET", f"/expenses/{self.expense_id}/attachments")
        found: list[dict[str, Any]] = answer.json()["attachments"]
        return found

    async def tidy(self, *, later: bool) -> None:
        database: Database = self.app.state.database
        now = utc_now() + (UNCLAIMED_FOR * 1.01 if later else UNCLAIMED_FOR * 0.5)
        await remove_unclaimed(database, self.app.state.components[Files], now)


async def attaching(finance: RunningModule, **given: Any) -> Attaching:
    person = await finance.person()
    return Attaching(person, await add(person, **given))


async def test_a_file_comes_out_as_it_went_in_under_the_name_it_was_given(finance: RunningModule) -> None:
    of = await attaching(finance)
    name = 'Rechnung "Müller" - 100 %.pdf'
    made = await of.attach(name=name)
    assert (made["file_name"], made["media_type"], made["size_bytes"]) == (name, "application/pdf", len(PDF))
    assert made["sha256"] == hashlib.sha256(PDF).hexdigest()
    assert await of.attached() == [made]
    assert of.files == {made["id"]}
    answer = await of.person.call("GET", f"/attachments/{made['id']}")
    assert (answer.status_code, answer.content) == (200, PDF)
    assert {
        name: answer.headers[name] for name in ("Content-Type", "Content-Length", "X-Content-Type-Options", "ETag")
    } == {
        "Content-Type": "application/pdf",
        "Content-Length": str(len(PDF)),
        "X-Content-Type-Options": "nosniff",
        "ETag": '"1"',
    }
    assert answer.headers["Content-Disposition"] == (
        'attachment; filename="Rechnung _M_ller_ - 100 _.pdf"; '
        "filename*=UTF-8''Rechnung%20%22M%C3%BCller%22%20-%20100%20%25.pdf"
    )
    assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PDF, "application/pdf"),
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0" + bytes(32), "image/jpeg"),
        ("amount,däy\r\n1,2\r\n".encode(), "text/csv; charset=UTF-8"),
        (b"x", "text/plain"),
    ],
)
async def test_each_kind_of_proof_is_taken(finance: RunningModule, content: bytes, media_type: str) -> None:
    of = await attaching(finance)
    made = await of.attach(content, media_type)
    assert (await of.person.call("GET", f"/attachments/{made['id']}")).content == content


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PNG, "application/pdf"),
        (PDF, "image/png"),
        (b"MZ\x90\x00" + bytes(60), "application/pdf"),
        (b"<html><script>", "image/jpeg"),
        (b"%PD", "application/pdf"),
        (PDF, "text/plain"),
        (b"MZ\x90\x00" + bytes(60), "text/csv"),
        (b"plain at first " * 9000 + b"\x00", "text/plain"),
        (b"plain at first " * 9000 + b"\xff\xfe", "text/csv"),
        (b"cut off \xc3", "text/csv"),
        (b"", "text/plain"),
        (b"", "application/pdf"),
    ],
)
async def test_a_file_that_is_not_what_it_says_is_refused_and_leaves_nothing(
    finance: RunningModule, content: bytes, media_type: str
) -> None:
    of = await attaching(finance)
    answer = await of.send(content, media_type)
    assert (answer.status_code, answer.json()["code"]) == (422, "file_not_what_it_says")
    assert of.files == set()
    assert await of.attached() == []


@pytest.mark.parametrize("media_type", ["application/zip", "text/html", "", "x", "text/csv; charset=latin-1"])
async def test_a_kind_that_is_no_proof_is_refused(finance: RunningModule, media_type: str) -> None:
    of = await attaching(finance)
    answer = await of.send(PDF, media_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "..\\b", "a\nb", "bill\u202efdp.exe", "x" * 201])
async def test_a_name_that_is_more_than_a_name_is_refused(finance: RunningModule, name: str) -> None:
    of = await attaching(finance)
    answer = await of.send(name=name)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "?file_name"
    assert of.files == set()


class Body:
    """A body that is made as it is asked for, and knows how much of it was."""

    def __init__(self, megabytes: int) -> None:
        self.megabytes = megabytes
        self.taken = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        yield PDF
        for _ in range(self.megabytes * 16):
            self.taken += 64 * 1024
            yield bytes(64 * 1024)


async def test_200_megabytes_are_refused_by_their_announcement_before_a_byte_is_read(finance: RunningModule) -> None:
    of, body = await attaching(finance), Body(200)
    answer = await of.send(body.pieces(), headers={"Content-Length": str(200 * MEBIBYTE)})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert body.taken == 0
    assert of.files == set()


async def test_200_megabytes_nobody_announced_are_refused_at_the_limit_and_nothing_is_left_of_them(
    finance: RunningModule,
) -> None:
    of, body = await attaching(finance), Body(200)
    tracemalloc.start()
    try:
        answer = await of.send(body.pieces())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert body.taken <= (MEGABYTES_MAX + 1) * MEBIBYTE
    assert peak_bytes < 10 * MEBIBYTE, "more than two parts of what a store takes"
    assert of.files == set()
    assert await of.attached() == []


async def test_what_may_be_is_as_long_as_the_limit(finance: RunningModule) -> None:
    of = await attaching(finance)
    made = await of.attach(PDF + bytes(MEGABYTES_MAX * MEBIBYTE - len(PDF)))
    assert made["size_bytes"] == MEGABYTES_MAX * MEBIBYTE
    assert (await of.send(PDF + bytes(MEGABYTES_MAX * MEBIBYTE - len(PDF) + 1))).status_code == 413


async def test_whoever_may_not_is_told_before_a_byte_is_read(finance: RunningModule) -> None:
    of = await attaching(finance, business_unit_id=ONE)
    reader = await finance.person(of.person.company_id, permissions=("finance.expenses.read",))
    scoped = await finance.person(of.person.company_id, scopes={"business_unit": (OTHER,), "event": "*"})
    stranger = await finance.person()
    path = f"/expenses/{of.expense_id}/attachments?file_name=bill.pdf"
    for person, status, code in (
        (reader, 403, "permission_missing"),
        (scoped, 403, "out_of_scope"),
        (stranger, 404, "expense_unknown"),
    ):
        body = Body(1)
        headers = {"Content-Type": "application/pdf"}
        answer = await person.call("POST", path, content=body.pieces(), headers=headers)
        assert (answer.status_code, answer.json()["code"], body.taken) == (status, code, 0)
    assert of.files == set()


async def test_an_attachment_lies_in_the_scopes_of_its_expense(finance: RunningModule) -> None:
    of = await attaching(finance, business_unit_id=ONE)
    made = await of.attach()
    scoped = await finance.person(of.person.company_id, scopes={"business_unit": (OTHER,), "event": "*"})
    paths = [("GET", f"/expenses/{of.expense_id}/attachments")]
    paths += [(method, f"/attachments/{made['id']}") for method in ("GET", "DELETE")]
    paths += [("GET", f"/attachments/{made['id']}/history")]
    for method, path in paths:
        refused = await scoped.call(method, path, headers={"If-Match": "*"})
        assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope"), path
    assert await of.attached() == [made]


async def test_another_companys_attachment_is_no_attachment(finance: RunningModule) -> None:
    of, stranger = await attaching(finance), await finance.person()
    made = await of.attach()
    for method, path in (("GET", ""), ("GET", "/history"), ("DELETE", "")):
        foreign, unknown = [
            await stranger.call(method, f"/attachments/{each}{path}", headers={"If-Match": "*"})
            for each in (made["id"], uuid4())
        ]
        assert foreign.status_code == unknown.status_code == 404
        assert {**foreign.json(), "request_id": None} == {**unknown.json(), "request_id": None}
    assert of.files == {made["id"]}


async def test_a_file_sent_twice_is_attached_once_and_the_second_is_tidied_up(finance: RunningModule) -> None:
    of = await attaching(finance)
    first, second = [await of.send(key="k") for _ in range(2)]
    assert (first.status_code, first.json()) == (second.status_code, second.json()) == (201, first.json())
    other = await of.send(PDF + b"more", key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    without = await of.send(key=None)
    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_missing")
    assert await of.attached() == [first.json()]
    assert len(of.files) == 3
    await of.tidy(later=False)
    assert len(of.files) == 3, "an upload may still claim them"
    await of.tidy(later=True)
    assert of.files == {first.json()["id"]}


async def test_of_one_file_sent_at_once_one_is_attached(finance: RunningModule) -> None:
    of = await attaching(finance)
    answers = await asyncio.gather(*(of.send(key="k") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert await of.attached() == [answers[0].json()]
    assert [answer.json() for answer in answers] == [answers[0].json()] * 4


async def test_a_body_that_breaks_off_leaves_nothing(finance: RunningModule) -> None:
    of = await attaching(finance)
    request = await of.person.request(
        "POST", f"/expenses/{of.expense_id}/attachments?file_name=bill.pdf", headers={"Content-Type": "application/pdf"}
    )
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": request.url.path,
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
    messages = iter([{"type": "http.request", "body": PDF, "more_body": True}] * 3 + [{"type": "http.disconnect"}])
    answered: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        answered.append(message)

    await of.app(scope, receive, send)
    assert answered[0]["status"] == 400
    assert of.files == set()
    assert await of.attached() == []


async def test_whose_bytes_were_tidied_up_meanwhile_is_told_to_send_them_again(finance: RunningModule) -> None:
    of = await attaching(finance)

    async def slow() -> AsyncIterator[bytes]:
        yield PDF
        await of.tidy(later=True)
        yield bytes(10)

    answer = await of.send(slow())
    # Its pieces were taken away under it, or its note was.
    assert answer.status_code == 503
    assert answer.json()["code"] in {"files_unavailable", "upload_expired"}
    assert await of.attached() == []
    await of.tidy(later=True)
    assert of.files == set()


async def test_a_removed_attachment_is_gone_from_view_at_once_and_from_the_store_within_the_hour(
    finance: RunningModule,
) -> None:
    of = await attaching(finance)
    made, kept = await of.attach(), await of.attach(name="other.pdf")
    path = f"/attachments/{made['id']}"
    unread = await of.person.call("DELETE", path)
    assert (unread.status_code, unread.json()["code"]) == (428, "precondition_required")
    stale = await of.person.call("DELETE", path, headers={"If-Match": '"9"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "version_mismatch")
    removed = await of.person.call("DELETE", path, headers={"If-Match": '"1"'})
    assert (removed.status_code, removed.content) == (204, b"")
    for method in ("GET", "DELETE"):
        answer = await of.person.call(method, path, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (404, "attachment_unknown")
    assert await of.attached() == [kept]
    entries = (await of.person.call("GET", f"{path}/history")).json()["entries"]
    assert [(each["action"], each["actor_user_id"]) for each in entries] == [
        ("remove", str(of.person.user_id)),
        ("add", str(of.person.user_id)),
    ]
    await of.tidy(later=True)
    assert of.files == {kept["id"]}


async def test_a_file_that_cannot_be_removed_keeps_no_other_and_is_tried_again(finance: RunningModule) -> None:
    of = await attaching(finance)
    stuck, others = await of.attach(), [await of.attach(name=f"{number}.pdf") for number in range(2)]
    for each in (stuck, *others):
        removed = await of.person.call("DELETE", f"/attachments/{each['id']}", headers={"If-Match": "*"})
        assert removed.status_code == 204
    store: Files = of.app.state.components[Files]
    assert store._folder is not None
    path = store._folder / str(of.person.company_id) / stuck["id"]
    path.unlink()
    # What is no file is not removed as one.
    path.mkdir()
    (path / "within").touch()
    with structlog.testing.capture_logs() as lines:
        await of.tidy(later=True)
    assert [(line["log_level"], line["file"]) for line in lines] == [
        ("warning", f"{of.person.company_id}/{stuck['id']}")
    ]
    assert of.files == {"within"}
    (path / "within").unlink()
    path.rmdir()
    path.touch()
    await of.tidy(later=True)
    assert of.files == set()


async def test_of_two_removals_at_once_exactly_one_is_made(finance: RunningModule) -> None:
    of = await attaching(finance)
    for tag, other in (('"1"', {412, 404}), ("*", {404})):
        made = await of.attach()
        removals = (of.person.call("DELETE", f"/attachments/{made['id']}", headers={"If-Match": tag}) for _ in range(2))
        statuses = sorted(answer.status_code for answer in await asyncio.gather(*removals))
        assert statuses[0] == 204
        assert statuses[1] in other
        entries = (await of.person.call("GET", f"/attachments/{made['id']}/history")).json()["entries"]
        assert [each["action"] for each in entries] == ["remove", "add"]


async def test_what_a_decision_was_made_by_stays(finance: RunningModule) -> None:
    of = await attaching(finance)
    made = await of.attach()
    approver = await finance.person(
        of.person.company_id, scopes={"business_unit": "*", "event": "*", "approval_limit": "*"}
    )
    for person, name in ((of.person, "submit"), (approver, "approve")):
        path = f"/expenses/{of.expense_id}/{name}"
        answer = await person.call("POST", path, headers={"If-Match": "*"})
        assert answer.status_code == 200, answer.text
    refused = await of.person.call("DELETE", f"/attachments/{made['id']}", headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (409, "attachment_needed")
    assert await of.attached() == [made]


async def test_bytes_that_are_lost_or_altered_are_never_given_as_the_file(finance: RunningModule) -> None:
    of = await attaching(finance)
    short, long = await of.attach(), await of.attach(PDF + bytes(MEBIBYTE))
    store: Files = of.app.state.components[Files]
    assert store._folder is not None
    folder = store._folder / str(of.person.company_id)
    for path in (folder / short["id"], folder / long["id"]):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    altered = await of.person.call("GET", f"/attachments/{short['id']}")
    assert (altered.status_code, altered.json()["code"]) == (500, "internal_error")
    with pytest.raises(FileAlteredError):
        await of.person.call("GET", f"/attachments/{long['id']}")
    (folder / long["id"]).unlink()
    lost = await of.person.call("GET", f"/attachments/{long['id']}")
    assert (lost.status_code, lost.json()["code"]) == (503, "file_missing")


async def test_what_lies_before_somebody_to_decide_by_is_not_taken_away(finance: RunningModule) -> None:
    of = await attaching(finance)
    made = await of.attach()
    assert (await move(of.person, {"id": of.expense_id}, "submit")).status_code == 200
    answer = await of.person.call("DELETE", f"/attachments/{made['id']}", headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (409, "attachment_needed")


async def test_postgresql_refuses_an_attachment_of_another_companys_expense(finance: RunningModule) -> None:
    of, other = await attaching(finance), await attaching(finance)
    await of.attach()
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await in_company(finance, of.person, "update attachments set expense_id = $1", UUID(other.expense_id))
