"""Seeded rows are published once, whoever starts how often (document 004 tells the trap)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from chassis.migrations import migrate
from contracts.identifiers import PLATFORM_COMPANY_ID
from infra.outbox.writer import Revision
from infra.postgres.database import Database
from infra.postgres.provision import ServiceDatabase
from services.entitlements.app import service
from services.entitlements.catalog.operations import publish_catalog, republish
from services.entitlements.catalog.tables import CompatibleBase, PackageModule, Price, read_catalog
from tests.harness.runtime import Runtime
from tests.harness.services import service_database
from tests.integration.entitlements.published import pending
from tests.unit.entitlements.purchases import CATALOG

NOW = datetime(2026, 5, 21, 9, 0, tzinfo=UTC)
TOPIC = "entitlements.catalog.v1"
ROWS = 8 + 8 + 4 + 12


@pytest_asyncio.fixture(loop_scope="session")
async def created(runtime: Runtime) -> ServiceDatabase:
    return await service_database(runtime, service)


@pytest_asyncio.fixture(loop_scope="session")
async def fresh(runtime: Runtime, created: ServiceDatabase) -> AsyncIterator[Database]:
    opened = Database(created.url(runtime.administrator_url), application_name="test")
    yield opened
    await opened.close()


async def publish(database: Database) -> int:
    async with database.unit_of_work() as work:
        return await publish_catalog(work, now=NOW)


async def test_the_database_holds_the_catalog_of_the_documents(fresh: Database) -> None:
    async with fresh.unit_of_work() as work:
        known = await read_catalog(work)
    assert (known.modules, known.packages, known.addons) == (CATALOG.modules, CATALOG.packages, CATALOG.addons)


async def test_every_seeded_row_is_published_by_the_first_start_only(fresh: Database) -> None:
    assert sorted(await asyncio.gather(*(publish(fresh) for _ in range(4)))) == [0, 0, 0, ROWS]
    published = await pending(fresh, TOPIC)
    assert len(published) == ROWS
    assert {(each.version, each.company_id) for each in published.values()} == {(1, PLATFORM_COMPANY_ID)}
    assert published["price/basic_promoter_month_usd"].data.amount_minor == 19900
    assert published["module/touring"].data.compatible_bases == ("artist", "promoter")
    assert published["package/finance"].data.addon_modules == ("finance",)
    assert published["addon/ai_sales_report"].data.modules == ("ai",)


async def test_an_edited_row_is_published_again_and_a_second_boot_leaves_it_edited(
    runtime: Runtime, created: ServiceDatabase, fresh: Database
) -> None:
    await publish(fresh)
    async with fresh.unit_of_work() as work:
        await work.execute(
            update(Price)
            .where(Price.key == "finance_month_usd")
            .values(amount_minor=7900, placeholder=False, version=Price.version + 1)
        )
    await migrate(service, created.owner_url(runtime.administrator_url))
    assert [await publish(fresh), await publish(fresh)] == [1, 0]
    price = (await pending(fresh, TOPIC))["price/finance_month_usd"]
    assert (price.version, price.data.amount_minor, price.data.placeholder) == (2, 7900, False)
    async with fresh.unit_of_work() as work:
        again = await republish(work, "price/finance_month_usd", now=NOW)
        assert again == Revision(TOPIC, "price/finance_month_usd", 1, 2)
        assert [await republish(work, key, now=NOW) for key in ("price/none", "price", "city/x")] == [None, None, None]


@pytest.mark.parametrize(
    "row",
    [
        PackageModule(package_key="basic_promoter", module_key="venue", module_type="base"),
        PackageModule(package_key="basic_promoter", module_key="venue", module_type="addon"),
        CompatibleBase(addon_key="promoter", base_key="venue"),
        Price(key="second", package_key="ai", amount_minor=1, currency="USD", interval="month", placeholder=True),
        Price(key="none", amount_minor=1, currency="USD", interval="year", placeholder=True),
    ],
    ids=["two bases", "base as addon", "base on base", "two active prices", "price of nothing"],
)
async def test_a_wrong_row_is_impossible(fresh: Database, row: object) -> None:
    with pytest.raises(IntegrityError):
        async with fresh.unit_of_work() as work:
            work.add(row)
