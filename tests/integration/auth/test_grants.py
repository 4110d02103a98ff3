"""Grants as rows and as what is published of them, in one transaction."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from contracts.events.auth import MembershipStatus
from contracts.events.entitlements import EntitlementStatus
from contracts.identifiers import CompanyId, UserId
from contracts.permissions import PERMISSIONS
from infra.outbox.tables import states
from infra.outbox.writer import Lane
from infra.postgres.database import Database
from services.auth.consumers import take_entitlement
from services.auth.jobs import publish_what_is_due, top_up_superadmins
from services.auth.memberships import operations, rules
from services.auth.memberships.tables import GrantedModule, GrantedPermission, Membership, TopUp
from services.auth.permissions.tables import PermissionRow
from services.auth.projections.rules import EligibilityUnknownError, ModuleNotEligibleError
from tests.integration.auth.published import MEMBERSHIPS, NOW, entitled, new_company, new_person, pending

READ, WRITE = "finance.expenses.read", "finance.expenses.write"
ACTIVE_FINANCE = {key for key, row in PERMISSIONS["finance"].items() if row.status == "active"}


class Company:
    """A company with finance, its founder and a colleague who has nothing yet."""

    def __init__(self, database: Database, company_id: CompanyId, founder: UserId, colleague: UserId) -> None:
        self.database, self.id, self.founder, self.colleague = database, company_id, founder, colleague

    async def run(self, operation: Any, *arguments: Any, **named: Any) -> Any:
        """One operation in one transaction, as the founder."""
        async with self.database.unit_of_work() as work:
            return await operation(work, self.id, *arguments, actor=self.founder, now=NOW, **named)

    async def give(self, permissions: rules.Ends, module: str = "finance") -> Any:
        await self.run(operations.set_modules, self.colleague, [module])
        return await self.run(operations.set_permissions, self.colleague, module, permissions)

    async def published(self, user_id: UserId) -> Any:
        async with self.database.unit_of_work() as work:
            return (await pending(work, MEMBERSHIPS))[f"{self.id}/{user_id}"]


async def company_with(database: Database, *modules: str) -> Company:
    async with database.unit_of_work() as work:
        company_id, founder = await new_company(work)
        colleague = await new_person(work)
        await operations.add_member(work, company_id, colleague, actor=founder, now=NOW)
        await take_entitlement(work, entitled(company_id, modules))
    return Company(database, company_id, founder, colleague)


@pytest.fixture
async def company(database: Database) -> Company:
    return await company_with(database, "promoter", "finance")


async def test_what_is_stored_and_what_is_published_are_one(company: Company) -> None:
    end = NOW + timedelta(seconds=3)
    await company.give({READ: None, WRITE: end})
    changed = await company.run(operations.set_scopes, company.colleague, "finance", {"event": "*"})
    envelope = await company.published(company.colleague)
    assert str(changed.revision) == f"{MEMBERSHIPS}:{company.id}/{company.colleague}:1:{envelope.version}"
    assert envelope.version == 4
    assert envelope.actor_user_id == company.founder
    assert envelope.data == changed.member.state
    (grant,) = envelope.data.modules
    assert (grant.key, grant.permissions) == ("finance", {READ: None, WRITE: end})
    assert grant.scopes == {"approval_limit": (), "business_unit": (), "event": "*"}
    assert (envelope.data.status, envelope.data.superadmin) == ("active", False)


async def test_a_refused_write_leaves_neither_rows_nor_event(company: Company) -> None:
    await company.give({READ: None})
    before = await company.published(company.colleague)
    with pytest.raises(rules.GrantEndedError):
        await company.run(operations.set_permissions, company.colleague, "finance", {WRITE: NOW})
    assert await company.published(company.colleague) == before


async def test_a_set_replaces_the_whole_of_its_module_and_keeps_who_gave_what_stays(company: Company) -> None:
    await company.give({READ: None, WRITE: None})
    async with company.database.unit_of_work() as work:
        await operations.set_permissions(
            work,
            company.id,
            company.colleague,
            "finance",
            {READ: None, "finance.bills.read": None},
            actor=company.founder,
            now=NOW + timedelta(hours=1),
        )
        rows = await work.execute(
            select(GrantedPermission.key, GrantedPermission.granted_at).where(
                GrantedPermission.user_id == company.colleague
            )
        )
        assert {key: granted_at - NOW for key, granted_at in rows} == {
            READ: timedelta(0),
            "finance.bills.read": timedelta(hours=1),
        }


async def test_a_new_end_is_seen_at_once(company: Company) -> None:
    await company.give({READ: None})
    changed = await company.run(
        operations.set_permissions, company.colleague, "finance", {READ: NOW + timedelta(hours=1)}
    )
    assert changed.member.state.modules[0].permissions == {READ: NOW + timedelta(hours=1)}


async def test_a_module_taken_away_takes_its_permissions(company: Company) -> None:
    await company.give({READ: None})
    assert (await company.run(operations.set_modules, company.colleague, [])).member.state.modules == ()
    again = await company.run(operations.set_modules, company.colleague, ["finance"])
    assert again.member.state.modules[0].permissions == {}


async def test_only_eligible_modules_are_given_and_what_was_given_stays_when_eligibility_ends(
    company: Company,
) -> None:
    with pytest.raises(ModuleNotEligibleError):
        await company.run(operations.set_modules, company.colleague, ["venue"])
    await company.give({READ: None})
    async with company.database.unit_of_work() as work:
        await take_entitlement(work, entitled(company.id, ("promoter",), version=2))
    kept = await company.run(operations.set_modules, company.colleague, ["finance", "promoter"])
    assert {module.key: set(module.permissions) for module in kept.member.state.modules} == {
        "finance": {READ},
        "promoter": set(),
    }
    with pytest.raises(ModuleNotEligibleError):
        await company.run(operations.set_permissions, company.colleague, "finance", {READ: None, WRITE: None})
    less = await company.run(operations.set_permissions, company.colleague, "finance", {})
    assert less.member.state.modules[0].permissions == {}


async def test_a_permission_needs_its_module(company: Company) -> None:
    with pytest.raises(rules.ModuleNotGrantedError):
        await company.run(operations.set_permissions, company.colleague, "finance", {READ: None})
    with pytest.raises(rules.ModuleNotGrantedError):
        await company.run(operations.set_scopes, company.colleague, "finance", {})


async def test_nothing_is_given_while_core_does_not_know(company: Company) -> None:
    async with company.database.unit_of_work() as work:
        await take_entitlement(work, entitled(company.id, ("promoter",), version=2, status=EntitlementStatus.UNKNOWN))
    with pytest.raises(EligibilityUnknownError):
        await company.run(operations.set_modules, company.colleague, ["finance"])


async def test_an_older_entitlement_changes_nothing(company: Company) -> None:
    async with company.database.unit_of_work() as work:
        await take_entitlement(work, entitled(company.id, ("promoter",), version=3))
        await take_entitlement(work, entitled(company.id, ("promoter", "finance"), version=2))
    with pytest.raises(ModuleNotEligibleError):
        await company.run(operations.set_modules, company.colleague, ["finance"])
    async with company.database.unit_of_work() as work:
        await take_entitlement(work, entitled(company.id, ("promoter", "finance"), epoch=2))
    await company.run(operations.set_modules, company.colleague, ["finance"])


@pytest.mark.parametrize(
    "change",
    [
        (operations.set_modules, ["finance"]),
        (operations.set_permissions, "finance", {READ: None}),
        (operations.set_scopes, "finance", {}),
    ],
)
async def test_nobody_grants_to_themself(company: Company, change: tuple[Any, ...]) -> None:
    operation, *arguments = change
    with pytest.raises(rules.OwnGrantError):
        await company.run(operation, company.founder, *arguments)


async def test_who_comes_back_continues_the_version_and_begins_with_nothing(company: Company) -> None:
    await company.give({READ: None})
    await company.run(operations.change_standing, company.colleague, superadmin=True)
    removed = await company.run(operations.change_standing, company.colleague, status=MembershipStatus.REMOVED)
    state = (await company.published(company.colleague)).data
    assert (state.status, state.superadmin, state.modules) == ("removed", False, ())
    with pytest.raises(rules.MemberUnknownError):
        await company.run(operations.set_modules, company.colleague, ["finance"])
    again = await company.run(operations.add_member, company.colleague)
    assert again.revision.version == removed.revision.version + 1
    assert (again.member.state.modules, again.member.state.superadmin) == ((), False)
    with pytest.raises(rules.AlreadyAMemberError):
        await company.run(operations.add_member, company.colleague)


async def test_two_superadmins_who_remove_each_other_at_once_leave_one(company: Company) -> None:
    await company.run(operations.change_standing, company.colleague, superadmin=True)

    async def remove(actor: UserId, target: UserId) -> None:
        async with company.database.unit_of_work() as work:
            await operations.change_standing(
                work, company.id, target, status=MembershipStatus.REMOVED, actor=actor, now=NOW
            )

    outcomes = await asyncio.gather(
        remove(company.founder, company.colleague),
        remove(company.colleague, company.founder),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LastSuperadminError", "NoneType"]


async def test_writes_of_one_membership_at_once_each_have_a_version(company: Company) -> None:
    await company.give({})
    keys = sorted(ACTIVE_FINANCE)[:8]
    changes = await asyncio.gather(
        *(company.run(operations.set_permissions, company.colleague, "finance", {key: None}) for key in keys)
    )
    versions = sorted(change.revision.version for change in changes)
    assert versions == list(range(versions[0], versions[0] + len(keys)))
    last = max(changes, key=lambda change: change.revision.version)
    assert (await company.published(company.colleague)).data == last.member.state


async def test_a_member_who_holds_too_much_for_one_event_is_refused(company: Company) -> None:
    await company.give({READ: None})
    ids = tuple(f"{number:0100d}" for number in range(3000))
    with pytest.raises(rules.MembershipTooLargeError):
        await company.run(operations.set_scopes, company.colleague, "finance", {"event": ids})


@pytest.mark.parametrize(
    "statement",
    [
        """update granted_modules set scopes = '{"event": "all"}'""",
        """update granted_modules set scopes = '{"event": [1]}'""",
        """update granted_modules set scopes = '{"event": {}}'""",
        """update granted_modules set scopes = '["event"]'""",
        "update granted_permissions set valid_until = granted_at",
        "update granted_permissions set key = 'finance.nothing.read'",
        "update memberships set status = 'retired'",
        "update memberships set status = 'removed' where superadmin",
        "update permissions set alias_of = 'finance.bills.read' where key = 'finance.expenses.read'",
        "update permissions set bit = 0 where module = 'finance'",
    ],
)
async def test_a_wrong_row_is_impossible(company: Company, statement: str) -> None:
    await company.give({READ: None})
    with pytest.raises(IntegrityError):
        async with company.database.unit_of_work() as work:
            await work.execute(text(statement))


# Superadmins.


async def test_a_module_the_company_gets_reaches_its_superadmins_with_every_active_row_and_all_scopes(
    company: Company,
) -> None:
    state = (await company.published(company.founder)).data
    assert {module.key for module in state.modules} == {"promoter", "finance"}
    finance = next(module for module in state.modules if module.key == "finance")
    assert set(finance.permissions) == ACTIVE_FINANCE
    assert set(finance.permissions.values()) == {None}
    assert set(finance.scopes.values()) == {"*"}
    assert (await company.published(company.colleague)).data.modules == ()


async def test_a_row_taken_away_by_hand_stays_away_while_a_new_one_arrives_once(company: Company) -> None:
    await company.run(operations.change_standing, company.colleague, superadmin=True)
    await company.run(operations.set_permissions, company.colleague, "finance", {READ: None})
    await company.run(operations.set_scopes, company.colleague, "finance", {"event": ("one",)})
    async with company.database.unit_of_work() as work:
        work.add(
            PermissionRow(
                module="finance",
                key="finance.audits.read",
                label="See audits",
                bit=900,
                scope_types=["event"],
                status="active",
                administration=False,
            )
        )
    for version in (2, 3):
        async with company.database.unit_of_work() as work:
            await take_entitlement(work, entitled(company.id, ("promoter", "finance"), version=version))
        envelope = await company.published(company.colleague)
        finance = next(module for module in envelope.data.modules if module.key == "finance")
        assert set(finance.permissions) == {READ, "finance.audits.read"}
        assert finance.scopes["event"] == ("one",)
    async with company.database.unit_of_work() as work:
        assert await operations.top_up_company(work, company.id, now=NOW, lane=Lane.BULK) == 0


async def test_a_module_taken_away_by_hand_stays_away_with_what_is_new_in_it(company: Company) -> None:
    await company.run(operations.change_standing, company.colleague, superadmin=True)
    await company.run(operations.set_modules, company.colleague, ["promoter"])
    async with company.database.unit_of_work() as work:
        await work.execute(text("delete from top_ups where key = :key"), {"key": READ})
        await take_entitlement(work, entitled(company.id, ("promoter", "finance"), version=2))
    await top_up_superadmins(company.database, lambda: NOW)
    modules = (await company.published(company.colleague)).data.modules
    assert [module.key for module in modules] == ["promoter"]


@pytest.mark.parametrize("change", ["promote", "reinstate"])
async def test_who_becomes_an_active_superadmin_is_given_what_the_others_have(company: Company, change: str) -> None:
    await company.give({READ: NOW + timedelta(hours=1)})
    if change == "reinstate":
        await company.run(operations.change_standing, company.colleague, superadmin=True)
        await company.run(operations.change_standing, company.colleague, status=MembershipStatus.SUSPENDED)
        async with company.database.unit_of_work() as work:
            await work.execute(text("delete from top_ups where user_id = :who"), {"who": company.colleague})
        await company.run(operations.change_standing, company.colleague, status=MembershipStatus.ACTIVE)
    else:
        await company.run(operations.change_standing, company.colleague, superadmin=True)
    finance = next(
        module for module in (await company.published(company.colleague)).data.modules if module.key == "finance"
    )
    assert set(finance.permissions) == ACTIVE_FINANCE
    assert finance.permissions[READ] is None
    assert set(finance.scopes.values()) == {"*"}


async def test_suspended_superadmins_and_companies_without_a_live_module_are_left_alone(database: Database) -> None:
    company = await company_with(database)
    assert (await company.published(company.founder)).data.modules == ()
    async with database.unit_of_work() as work:
        ended = {"promoter": NOW - timedelta(days=1)}
        await take_entitlement(work, entitled(company.id, ended, version=2))
        assert await operations.companies_to_top_up(work, now=NOW, limit=10) == []
        assert await operations.top_up_company(work, company.id, now=NOW, lane=Lane.BULK) == 0


async def test_an_entitlement_of_a_company_auth_does_not_know_waits_without_error(database: Database) -> None:
    async with database.unit_of_work() as work:
        _, founder = await new_company(work)
        await take_entitlement(work, entitled(CompanyId(founder), ("promoter",)))


async def test_a_start_gives_new_rows_to_every_superadmin_and_publishes_what_never_was(company: Company) -> None:
    async with company.database.unit_of_work() as work:
        await work.execute(text("delete from top_ups"))
        await work.execute(text("delete from granted_permissions"))
        await work.execute(text("delete from granted_modules"))
        await work.execute(text("update memberships set published = false"))
        await work.execute(text("delete from outbox_states"))
    for _ in range(2):
        await publish_what_is_due(company.database, lambda: NOW)
        assert len((await company.published(company.founder)).data.modules) == 2
        assert (await company.published(company.colleague)).version == 1
        async with company.database.unit_of_work() as work:
            assert await work.scalar(select(func.count()).select_from(Membership).where(~Membership.published)) == 0
            assert await work.scalar(select(func.count()).select_from(TopUp)) == 36 + 19


async def test_a_state_is_published_again_under_its_version(company: Company) -> None:
    await company.give({READ: None})
    before = await company.published(company.colleague)
    async with company.database.unit_of_work() as work:
        await work.execute(states.delete())
        revision = await operations.republish(work, f"{company.id}/{company.colleague}", now=NOW)
        assert revision is not None
        assert revision.version == before.version
        assert await operations.republish(work, f"{company.id}/{company.id}", now=NOW) is None
        assert await operations.republish(work, "no membership", now=NOW) is None
    after = await company.published(company.colleague)
    assert (after.version, after.data) == (before.version, before.data)


async def test_what_a_member_may_pass_on_is_published(company: Company) -> None:
    async with company.database.unit_of_work() as work:
        await work.execute(
            text(
                "insert into delegations (company_id, user_id, module, permissions, scopes, may_delegate, valid_until,"
                " granted_by, granted_at) values (:company, :user, 'finance', '[\"finance.expenses.read\"]',"
                ' \'{"event": "*"}\', false, null, :founder, now())'
            ),
            {"company": company.id, "user": company.colleague, "founder": company.founder},
        )
    await company.give({})
    (delegation,) = (await company.published(company.colleague)).data.delegations
    assert (delegation.module, delegation.permissions, delegation.scopes) == ("finance", (READ,), {"event": "*"})


async def test_rows_left_by_one_company_say_nothing_of_another(company: Company) -> None:
    other = await company_with(company.database, "promoter", "finance")
    await company.give({READ: None})
    async with company.database.unit_of_work() as work:
        granted = await work.scalars(select(GrantedModule.company_id).where(GrantedModule.user_id == company.colleague))
        assert set(granted) == {company.id}
    with pytest.raises(rules.MemberUnknownError):
        await other.run(operations.set_modules, company.colleague, [])
