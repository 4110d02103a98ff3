"""A purchase over HTTP: session, the provider's page, its signed webhook, and what the webhook route refuses."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

from services.checkout.app import service
from services.checkout.offline_provider.operations import Courier
from services.checkout.webhooks.rules import SIGNATURE_HEADER, signature_header
from tests.harness.runtime import Runtime
from tests.harness.services import running_jobs
from tests.harness.waiting import wait_until
from tests.integration.checkout.buying import fill_catalog, kinds, told
from tests.integration.entitlements.calling import CalledService, Person, called_service

SECRET = "a webhook secret of a test, long."


@pytest_asyncio.fixture(loop_scope="session")
async def listener() -> AsyncIterator[socket.socket]:
    """Where the service is reached, once it listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest_asyncio.fixture(loop_scope="session")
async def checkout(runtime: Runtime, tmp_path: Path, listener: socket.socket) -> AsyncIterator[CalledService]:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = {"webhook_secret": SECRET, "public_url": url}
    async with called_service(runtime, service, tmp_path, settings) as called:
        await fill_catalog(called.database)
        yield called
        await called.app.state.components[Courier].close()


@asynccontextmanager
async def listening(checkout: CalledService, listener: socket.socket) -> AsyncIterator[None]:
    """The application on its socket: the provider reaches it as it would from anywhere."""
    server = uvicorn.Server(uvicorn.Config(checkout.app, lifespan="off", log_config=None))
    task = asyncio.create_task(server.serve(sockets=[listener]))

    async def started() -> bool:
        return server.started

    await wait_until(started, bool, describe="the server listens")
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def open_session(checkout: CalledService, person: Person, **body: Any) -> httpx.Response:
    return await checkout.client.post("/api/checkout/sessions", json=body, headers=person.headers)


async def session(checkout: CalledService, person: Person, session_id: str) -> dict[str, Any]:
    answer = await checkout.client.get(f"/api/checkout/sessions/{session_id}", headers=person.headers)
    found: dict[str, Any] = answer.json()
    return found


async def webhook(checkout: CalledService, body: bytes, *, secret: str = SECRET, **moved: float) -> httpx.Response:
    header = signature_header(secret, body, checkout.clock() + timedelta(**moved))
    return await checkout.client.post(
        "/api/checkout/webhooks/offline", content=body, headers={SIGNATURE_HEADER: header}
    )


def event_of(opened: dict[str, Any], **changed: Any) -> bytes:
    event = {
        "id": "evt_1",
        "type": "payment.succeeded",
        "created_at": "2026-05-21T09:00:00Z",
        "data": {
            "reference": opened["payment_reference"],
            "amount_minor": opened["total_minor"],
            "currency": opened["currency"],
        },
    }
    return json.dumps({**event, **changed}).encode()


async def test_a_trial_from_the_first_request_to_the_fact(checkout: CalledService, listener: socket.socket) -> None:
    admin = await checkout.person(superadmin=True)
    answer = await open_session(checkout, admin, package="basic_promoter", addons=["finance"], trial=True)
    opened = answer.json()
    assert (answer.status_code, opened["status"], opened["total_minor"]) == (201, "open", 0)
    async with listening(checkout, listener), running_jobs(service, checkout.app), httpx.AsyncClient() as buyer:
        page = (await buyer.get(opened["pay_url"])).json()
        assert (page["reference"], page["status"]) == (opened["payment_reference"], "pending")
        assert (await buyer.post(f"{opened['pay_url']}/confirm")).json()["status"] == "succeeded"
        completed = await wait_until(
            lambda: session(checkout, admin, opened["id"]),
            lambda found: found["status"] != "open",
            describe="the webhook arrives",
        )
        assert completed["status"] == "completed"
        again = await buyer.post(f"{opened['pay_url']}/confirm")
        assert (again.status_code, again.json()["status"]) == (200, "succeeded")
        assert (await buyer.post(f"{opened['pay_url']}/decline")).json()["code"] == "payment_settled"
    assert kinds(await told(checkout.database, admin.company_id)) == ["TrialStarted"]
    held = (await checkout.client.get("/api/checkout/subscription", headers=admin.headers)).json()["subscriptions"]
    assert [(each["status"], each["ends_at"]) for each in held] == [("trialing", "2026-05-28T09:00:00Z")]


async def test_a_report_that_cannot_be_delivered_is_sent_again_until_it_is(
    checkout: CalledService, listener: socket.socket
) -> None:
    admin = await checkout.person(superadmin=True)
    opened = (await open_session(checkout, admin, package="basic_promoter")).json()
    courier: Courier = checkout.app.state.components[Courier]
    path = f"/api/checkout/provider/{opened['payment_reference']}"
    await checkout.client.post(f"{path}/confirm")
    assert [await courier.deliver_next(), await courier.deliver_next()] == [True, False]
    assert (await session(checkout, admin, opened["id"]))["status"] == "open"
    checkout.clock.advance(seconds=1)
    async with listening(checkout, listener):
        assert [await courier.deliver_next(), await courier.deliver_next()] == [True, False]
    assert (await session(checkout, admin, opened["id"]))["status"] == "completed"
    checkout.clock.advance(days=1)
    assert await courier.deliver_next() is False


async def test_an_expired_payment_cannot_be_made_any_more(checkout: CalledService) -> None:
    admin = await checkout.person(superadmin=True)
    opened = (await open_session(checkout, admin, package="basic_promoter")).json()
    checkout.clock.advance(hours=23)
    answer = await checkout.client.post(f"/api/checkout/provider/{opened['payment_reference']}/confirm")
    assert (answer.status_code, answer.json()["code"]) == (409, "payment_expired")
    unknown = await checkout.client.post(f"/api/checkout/provider/pay_{'x' * 32}/confirm")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "payment_unknown")


@pytest.mark.parametrize(
    ("secret", "moved", "code"),
    [
        ("another secret of the same length", 0, "webhook_signature_invalid"),
        (SECRET, -301, "webhook_timestamp_refused"),
        (SECRET, 301, "webhook_timestamp_refused"),
    ],
)
async def test_a_webhook_that_proves_nothing_is_refused_before_it_is_read(
    checkout: CalledService, secret: str, moved: float, code: str
) -> None:
    admin = await checkout.person(superadmin=True)
    opened = (await open_session(checkout, admin, package="basic_promoter")).json()
    for body in (event_of(opened), b"not json"):
        answer = await webhook(checkout, body, secret=secret, seconds=moved)
        assert (answer.status_code, answer.json()["code"]) == (401, code)
    unsigned = await checkout.client.post("/api/checkout/webhooks/offline", content=event_of(opened))
    assert (unsigned.status_code, unsigned.json()["code"]) == (401, "webhook_signature_invalid")
    assert (await session(checkout, admin, opened["id"]))["status"] == "open"


async def test_a_replayed_webhook_is_accepted_and_does_nothing(checkout: CalledService) -> None:
    admin = await checkout.person(superadmin=True)
    body = event_of((await open_session(checkout, admin, package="basic_promoter")).json())
    answers = [await webhook(checkout, body), await webhook(checkout, body), await webhook(checkout, body, seconds=60)]
    assert [(each.status_code, each.json()["outcome"]) for each in answers] == [
        (200, "processed"),
        (200, "duplicate"),
        (200, "duplicate"),
    ]
    assert len(await told(checkout.database, admin.company_id)) == 2


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"created_at": "yesterday"}, 422, "webhook_malformed"),
        ({"created_at": "2026-05-21T09:00:00"}, 422, "webhook_malformed"),
        ({"id": ""}, 422, "webhook_malformed"),
        ({"type": "payment.succeeded\0"}, 422, "webhook_malformed"),
        ({"created_at": "2026-05-21T09:05:01Z"}, 422, "webhook_malformed"),
        ({"created_at": "9999-12-31T23:59:59Z"}, 422, "webhook_malformed"),
        ({"data": {"reference": "pay_x", "amount_minor": 1.5, "currency": "USD"}}, 422, "webhook_malformed"),
        ({"data": {"reference": "pay_x", "amount_minor": 1, "currency": "USD"}}, 404, "payment_unknown"),
    ],
)
async def test_a_signed_webhook_that_makes_no_sense_is_told_so(
    checkout: CalledService, changed: dict[str, Any], status: int, code: str
) -> None:
    admin = await checkout.person(superadmin=True)
    opened = (await open_session(checkout, admin, package="basic_promoter")).json()
    answer = await webhook(checkout, event_of(opened, **changed))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_payment_of_another_amount_is_refused(checkout: CalledService) -> None:
    admin = await checkout.person(superadmin=True)
    opened = (await open_session(checkout, admin, package="basic_promoter")).json()
    answer = await webhook(checkout, event_of({**opened, "total_minor": 1}))
    assert (answer.status_code, answer.json()["code"]) == (409, "payment_differs")
    assert (await webhook(checkout, event_of(opened))).json() == {"outcome": "processed"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "nothing_chosen"),
        ({"package": "basic_agency"}, 422, "item_not_sold"),
        ({"addons": ["finance"]}, 409, "base_missing"),
        ({"package": "basic_promoter", "price": 1}, 422, "invalid_request"),
        ({"package": "basic_promoter", "trial": "yes"}, 422, "invalid_request"),
        ({"package": "Basic Promoter"}, 422, "invalid_request"),
    ],
)
async def test_what_cannot_be_bought_is_told_with_its_reason(
    checkout: CalledService, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await open_session(checkout, await checkout.person(), **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_sessions_and_subscriptions_are_the_company_s_own(checkout: CalledService) -> None:
    owner, stranger = await checkout.person(superadmin=True), await checkout.person(superadmin=True)
    opened = (await open_session(checkout, owner, package="basic_promoter")).json()
    await webhook(checkout, event_of(opened))
    foreign = await checkout.client.get(f"/api/checkout/sessions/{opened['id']}", headers=stranger.headers)
    assert (foreign.status_code, foreign.json()["code"]) == (404, "session_unknown")
    held = (await session(checkout, owner, opened["id"]))["subscription_id"]
    cancel = {"when": "now", "subscription_id": held}
    for person, status in ((stranger, 404), (owner, 200), (owner, 404)):
        answer = await checkout.client.post("/api/checkout/subscription/cancel", json=cancel, headers=person.headers)
        assert answer.status_code == status, answer.text
    assert (await checkout.client.get("/api/checkout/subscription", headers=owner.headers)).json() == {
        "subscriptions": []
    }


async def test_a_member_buys_and_only_an_admin_sees_and_cancels(checkout: CalledService) -> None:
    member = await checkout.person()
    assert (await open_session(checkout, member, package="basic_promoter")).status_code == 201
    refused = await checkout.client.get("/api/checkout/subscription", headers=member.headers)
    assert refused.status_code == 403
    cancel = await checkout.client.post(
        "/api/checkout/subscription/cancel", json={"when": "now"}, headers=member.headers
    )
    assert cancel.status_code == 403


async def test_the_job_closes_what_lapsed(checkout: CalledService) -> None:
    admin = await checkout.person(superadmin=True)
    opened = (await open_session(checkout, admin, package="basic_promoter", trial=True)).json()
    await webhook(checkout, event_of(opened))
    checkout.clock.advance(days=7)
    async with running_jobs(service, checkout.app):
        facts = await wait_until(
            lambda: told(checkout.database, admin.company_id), lambda found: len(found) == 2, describe="the end is told"
        )
    assert kinds(facts) == ["TrialStarted", "SubscriptionEnded"]
