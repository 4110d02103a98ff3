import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter
from sqlalchemy import delete, exists, func, or_, select, text, tuple_, union
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import EventTooLargeError
from contracts.events.auth import Delegation, GrantChanged, MembershipStatus, ModuleGrant, Scopes
from contracts.identifiers import PLATFORM_COMPANY_ID, CompanyId, UserId
from contracts.topics import TOPICS
from infra.outbox.writer import Lane, Revision, State, next_version, publish_state, publish_states
from services.auth.memberships import rules
from services.auth.memberships.tables import DelegationRow, GrantedModule, GrantedPermission, Membership, TopUp
from services.auth.permissions.rules import CatalogRow, ModuleUnknownError, scope_types_of
from services.auth.permissions.tables import PermissionRow, read_catalog
from services.auth.projections.rules import check_eligible, is_running
from services.auth.projections.tables import CompanyEntitlement, CompanyModule, read_eligible
from services.auth.users.rules import UserUnknownError, email_key
from services.auth.users.tables import User

TOPIC: Final = next(topic for topic in TOPICS if topic.name == "auth.memberships.v1")

_log: Final = structlog.get_logger("kisum.auth")
_SCOPES: Final = TypeAdapter(Scopes)
_DELEGATION: Final = TypeAdapter(Delegation)


@dataclass(frozen=True)
class Member:
    """A person in a company, with what others need to know them by. `state` is what is published of them."""

    user_id: UserId
    email: str
    display_name: str
    state: GrantChanged
    version: int


@dataclass(frozen=True)
class ChangedMember:
    """A member after a change, and the revision by which a reader knows that it has arrived."""

    member: Member
    revision: Revision


@dataclass(frozen=True)
class EndedGrants:
    """What a member no longer has because its time is over: permission keys, and modules of delegations."""

    revision: Revision
    permissions: tuple[str, ...]
    delegations: tuple[str, ...]


@dataclass(frozen=True)
class PlatformAdmin:
    """`was_one_before` tells a repeated command from one that changed something."""

    user_id: UserId
    was_one_before: bool


# Who is a member.


async def members_of(
    work: AsyncSession, company_id: CompanyId, *, after: UserId | None, limit: int
) -> tuple[list[Member], UserId | None]:
    """Members by id, removed ones excepted, and where the next page begins; None where there is none."""
    rows = (
        select(Membership, User)
        .join(User, User.id == Membership.user_id)
        .where(Membership.company_id == company_id, Membership.status != MembershipStatus.REMOVED.value)
        .order_by(Membership.user_id)
        .limit(limit + 1)
    )
    if after is not None:
        rows = rows.where(Membership.user_id > after)
    found = [(membership, user) for membership, user in await work.execute(rows)]
    page = found[:limit]
    states = await _states(work, [membership for membership, _ in page])
    members = [_member(membership, user, state) for (membership, user), state in zip(page, states, strict=True)]
    return members, members[-1].user_id if len(found) > limit else None


async def member_of(work: AsyncSession, company_id: CompanyId, user_id: UserId) -> Member:
    """Raises MemberUnknownError, for a member of another company only too."""
    membership = await work.get(Membership, (company_id, user_id))
    if membership is None or membership.status == MembershipStatus.REMOVED.value:
        raise rules.MemberUnknownError
    return await _read(work, membership)


async def add_member(
    work: AsyncSession, company_id: CompanyId, person: UserId | str, *, actor: UserId, now: datetime
) -> ChangedMember:
    """Make a person who signed up, by id or mail address, an active member, with nothing granted yet.

    Who was removed continues the same row and version. Raises UserUnknownError or AlreadyAMemberError.
    """
    user_id = await _person(work, person)
    membership, is_new = await _made_or_locked(work, company_id, user_id, superadmin=False, now=now)
    if not is_new:
        if membership.status != MembershipStatus.REMOVED.value:
            raise rules.AlreadyAMemberError(f"The membership is {membership.status}.")
        membership.status = MembershipStatus.ACTIVE.value
        membership.version += 1
    revision = await _publish(work, membership, actor=actor, now=now)
    return ChangedMember(await _read(work, membership), revision)


async def change_standing(
    work: AsyncSession,
    company_id: CompanyId,
    user_id: UserId,
    *,
    status: MembershipStatus | None = None,
    superadmin: bool | None = None,
    actor: UserId,
    now: datetime,
) -> ChangedMember:
    """Suspend, reinstate, remove, promote or demote a member.

    Raises MemberUnknownError, InvitationOpenError, SuperadminInactiveError or LastSuperadminError.
    """
    await _lock_company(work, company_id)
    membership = await _member_locked(work, company_id, user_id)
    before = _standing(membership)
    wanted = rules.standing_after(
        before,
        status=status,
        superadmin=superadmin,
        other_admins=await _other_admins(work, company_id, user_id),
    )
    membership.status, membership.superadmin = wanted.status.value, wanted.superadmin
    if wanted.status is MembershipStatus.REMOVED:
        await _take_everything(work, company_id, user_id)
    if wanted.administers and not before.administers:
        await _top_up(work, membership, await read_eligible(work, company_id), now)
    return await _changed(work, membership, actor=actor, now=now)


async def add_platform_admin(work: AsyncSession, *, email: str, now: datetime) -> PlatformAdmin:
    """Make a person who signed up an admin of the whole platform. Raises UserUnknownError."""
    user_id = await _person(work, email)
    membership, is_new = await _made_or_locked(work, PLATFORM_COMPANY_ID, user_id, superadmin=True, now=now)
    if not is_new:
        if _standing(membership).administers:
            return PlatformAdmin(user_id, was_one_before=True)
        membership.status, membership.superadmin = MembershipStatus.ACTIVE.value, True
        membership.version += 1
    await _publish(work, membership, actor=None, now=now)
    return PlatformAdmin(user_id, was_one_before=False)


# What a member was given.


async def set_modules(
    work: AsyncSession,
    company_id: CompanyId,
    user_id: UserId,
    modules: Iterable[str],
    *,
    actor: UserId,
    now: datetime,
) -> ChangedMember:
    """Replace the modules a member has. A new one comes without permissions and scopes; one taken away loses both.

    Raises OwnGrantError, MemberUnknownError, ModuleUnknownError, ModuleNotEligibleError or EligibilityUnknownError.
    """
    rules.check_grants_to_other(actor, user_id)
    membership = await _member_locked(work, company_id, user_id)
    wanted = set(modules)
    current = set(await work.scalars(select(GrantedModule.module).where(*_of(GrantedModule, membership))))
    for module in sorted(current - wanted):
        await _take_module(work, membership, module)
    added = sorted(wanted - current)
    eligible = await read_eligible(work, company_id) if added else {}
    for module in added:
        catalog = await _known_catalog(work, module)
        check_eligible(module, eligible, now)
        scopes = rules.nothing_of(scope_types_of(catalog.values()))
        await _give_module(work, membership, module, scopes, actor=actor, now=now)
    return await _changed(work, membership, actor=actor, now=now)


async def set_permissions(
    work: AsyncSession,
    company_id: CompanyId,
    user_id: UserId,
    module: str,
    permissions: rules.Ends,
    *,
    actor: UserId,
    now: datetime,
) -> ChangedMember:
    """Replace the permissions a member has in a module, each with its end or None. What stays keeps who gave it.

    Raises OwnGrantError, MemberUnknownError, ModuleUnknownError, ModuleNotGrantedError, ModuleNotEligibleError,
    EligibilityUnknownError and the errors of `rules.permissions_after`.
    """
    rules.check_grants_to_other(actor, user_id)
    membership = await _member_locked(work, company_id, user_id)
    catalog = await _known_catalog(work, module)
    await _granted_module(work, membership, module)
    rows = await work.scalars(
        select(GrantedPermission).where(*_of(GrantedPermission, membership), GrantedPermission.module == module)
    )
    current = {row.key: row.valid_until for row in rows}
    after = rules.permissions_after(current, permissions, module=module, catalog=catalog, now=now)
    given = {key: end for key, end in after.items() if key not in current or current[key] != end}
    if given:
        check_eligible(module, await read_eligible(work, company_id), now)
    await work.execute(
        delete(GrantedPermission).where(
            *_of(GrantedPermission, membership),
            GrantedPermission.module == module,
            GrantedPermission.key.in_(current.keys() - after.keys()),
        )
    )
    await _give_permissions(work, membership, module, given, actor=actor, now=now)
    return await _changed(work, membership, actor=actor, now=now)


async def set_scopes(
    work: AsyncSession,
    company_id: CompanyId,
    user_id: UserId,
    module: str,
    scopes: Scopes,
    *,
    actor: UserId,
    now: datetime,
) -> ChangedMember:
    """Replace the scopes that bound a member's permissions in a module.

    Raises OwnGrantError, MemberUnknownError, ModuleUnknownError, ModuleNotGrantedError, ScopeTypeUndeclaredError,
    ScopeLimitMalformedError or MembershipTooLargeError.
    """
    rules.check_grants_to_other(actor, user_id)
    membership = await _member_locked(work, company_id, user_id)
    catalog = await _known_catalog(work, module)
    granted = await _granted_module(work, membership, module)
    granted.scopes = _SCOPES.dump_python(rules.scopes_after(scopes, scope_types_of(catalog.values())), mode="json")
    granted.granted_by, granted.granted_at = actor, now
    return await _changed(work, membership, actor=actor, now=now)


# What superadmins are given without anybody's doing.


async def top_up_company(
    work: AsyncSession,
    company_id: CompanyId,
    *,
    now: datetime,
    lane: Lane,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
    limit: int | None = None,
) -> int:
    """Give a company's active superadmins the active rows of its entitled modules with full scopes, each row once.

    How many memberships changed, `limit` at most. A row that was taken away by hand stays away. A membership that would
    be too large with what is new stays as it is, which is logged; the others go on.
    """
    if not await _lock_company(work, company_id):
        return 0
    eligible = await read_eligible(work, company_id)
    superadmins = await work.scalars(
        select(Membership)
        .where(Membership.company_id == company_id, *_ADMINISTERS)
        .order_by(Membership.user_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    count = 0
    for membership in list(superadmins):
        if count == limit:
            break
        user_id = membership.user_id
        try:
            async with work.begin_nested():
                if not await _top_up(work, membership, eligible, now):
                    continue
                membership.version += 1
                await _publish(
                    work,
                    membership,
                    actor=None,
                    now=now,
                    correlation_id=correlation_id,
                    causation_id=causation_id,
                    lane=lane,
                )
        except rules.MembershipTooLargeError:
            _log.exception("a superadmin is not given what is new", company_id=str(company_id), user_id=str(user_id))
            continue
        count += 1
    return count


async def companies_to_top_up(
    work: AsyncSession, *, now: datetime, limit: int, after: CompanyId | None = None
) -> list[CompanyId]:
    """Companies in which a superadmin lacks a row never given before: those a new catalog row is news to.

    In the order of their ids, from behind `after` on.
    """
    given = exists().where(
        TopUp.company_id == Membership.company_id,
        TopUp.user_id == Membership.user_id,
        TopUp.module == PermissionRow.module,
        TopUp.key == PermissionRow.key,
    )
    behind = () if after is None else (Membership.company_id > after,)
    found = await work.scalars(
        select(Membership.company_id)
        .join(CompanyEntitlement, CompanyEntitlement.company_id == Membership.company_id)
        .join(CompanyModule, CompanyModule.company_id == Membership.company_id)
        .join(PermissionRow, PermissionRow.module == CompanyModule.module)
        .where(
            *_ADMINISTERS,
            CompanyEntitlement.known,
            or_(CompanyModule.valid_until.is_(None), CompanyModule.valid_until > now),
            PermissionRow.status == "active",
            ~given,
            *behind,
        )
        .distinct()
        .order_by(Membership.company_id)
        .limit(limit)
    )
    return [CompanyId(company_id) for company_id in found]


# What was given for a time.


async def end_grants(work: AsyncSession, *, now: datetime, limit: int) -> list[EndedGrants]:
    """Take permissions and delegations whose end has come from up to `limit` memberships, and publish these.

    Each end is published once, whoever asks and how often; none where there is nothing to do, or another is at it.
    """
    due = union(
        *(
            select(table.company_id, table.user_id).where(table.valid_until <= now)
            for table in (GrantedPermission, DelegationRow)
        )
    )
    memberships = await work.scalars(
        select(Membership)
        .where(tuple_(Membership.company_id, Membership.user_id).in_(due))
        .order_by(Membership.company_id, Membership.user_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    ended = [await _end_grants_of(work, membership, now) for membership in list(memberships)]
    return [each for each in ended if each is not None]


async def _end_grants_of(work: AsyncSession, membership: Membership, now: datetime) -> EndedGrants | None:
    permissions = await _take_ended(work, membership, GrantedPermission, GrantedPermission.key, now)
    delegations = await _take_ended(work, membership, DelegationRow, DelegationRow.module, now)
    if not permissions and not delegations:
        # Another was done with it between the look and the lock.
        return None
    membership.version += 1
    return EndedGrants(await _publish(work, membership, actor=None, now=now), permissions, delegations)


async def _take_ended(
    work: AsyncSession, membership: Membership, table: Any, name: Any, now: datetime
) -> tuple[str, ...]:
    taken = delete(table).where(*_of(table, membership), table.valid_until <= now).returning(name)
    return tuple(sorted(await work.scalars(taken)))


# Publishing.


async def publish_unpublished(work: AsyncSession, *, now: datetime, limit: int) -> int:
    """Publish memberships that are older than publishing, up to `limit`; how many they were."""
    rows = await work.scalars(
        select(Membership)
        .where(~Membership.published)
        .order_by(Membership.company_id, Membership.user_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    memberships = list(rows)
    await _publish_all(work, memberships, now=now, lane=Lane.BULK)
    return len(memberships)


def is_key(key: str) -> bool:
    """Whether the text is the key of a membership, there or not."""
    try:
        rules.parse_key(key)
    except ValueError:
        return False
    return True


async def keys(work: AsyncSession, *, after: str | None, limit: int) -> list[str]:
    """The keys of memberships, in order, from behind `after` on."""
    order = (Membership.company_id, Membership.user_id)
    rows = select(*order).order_by(*order).limit(limit)
    if after is not None:
        rows = rows.where(tuple_(*order) > rules.parse_key(after))
    return [f"{company_id}/{user_id}" for company_id, user_id in await work.execute(rows)]


async def republish(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish the current state of a membership again; None for a key of no membership."""
    if not is_key(key):
        return None
    membership = await work.get(Membership, rules.parse_key(key), with_for_update=True, populate_existing=True)
    if membership is None:
        return None
    membership.version = next_version(membership.version, above)
    return await _publish(work, membership, actor=None, now=now, lane=lane)


async def republish_all(work: AsyncSession, keys: Sequence[str], *, now: datetime, lane: Lane) -> None:
    """Publish the current states of memberships again, with as many queries for all of them as for one."""
    order = (Membership.company_id, Membership.user_id)
    memberships = await work.scalars(
        select(Membership)
        .where(tuple_(*order).in_([rules.parse_key(key) for key in keys]))
        .order_by(*order)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    await _publish_all(work, list(memberships), now=now, lane=lane)


async def withdraw(
    work: AsyncSession, key: str, *, now: datetime, above: int | None = None, lane: Lane = Lane.INTERACTIVE
) -> Revision | None:
    """Publish a membership as removed that there is no row of; a row is made if company and person are known."""
    company_id, user_id = rules.parse_key(key)
    version = next_version(0, above)
    is_company = await work.scalar(text("select true from companies where id = :id"), {"id": company_id})
    if is_company and await work.get(User, user_id) is not None:
        await work.execute(
            insert(Membership)
            .values(
                company_id=company_id,
                user_id=user_id,
                status=MembershipStatus.REMOVED.value,
                superadmin=False,
                version=version,
                created_at=now,
                published=True,
            )
            .on_conflict_do_nothing()
        )
        # Where somebody made it meanwhile, that is what it is, above all the same.
        membership = await work.get_one(Membership, (company_id, user_id), with_for_update=True, populate_existing=True)
        membership.version = max(membership.version, version)
        return await _publish(work, membership, actor=None, now=now, lane=lane)
    return await publish_state(
        work, TOPIC, rules.removed(user_id), company_id=company_id, version=version, occurred_at=now, lane=lane
    )


async def _changed(work: AsyncSession, membership: Membership, *, actor: UserId, now: datetime) -> ChangedMember:
    membership.version += 1
    revision = await _publish(work, membership, actor=actor, now=now)
    return ChangedMember(await _read(work, membership), revision)


async def _publish(
    work: AsyncSession,
    membership: Membership,
    *,
    actor: UserId | None,
    now: datetime,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
    lane: Lane = Lane.INTERACTIVE,
) -> Revision:
    """Raises MembershipTooLargeError."""
    membership.published = True
    await work.flush()
    (state,) = await _states(work, [membership])
    try:
        return await publish_state(
            work,
            TOPIC,
            state,
            company_id=CompanyId(membership.company_id),
            version=membership.version,
            occurred_at=now,
            actor_user_id=actor,
            correlation_id=correlation_id,
            causation_id=causation_id,
            lane=lane,
        )
    except EventTooLargeError as error:
        raise rules.MembershipTooLargeError from error


async def _publish_all(work: AsyncSession, memberships: Sequence[Membership], *, now: datetime, lane: Lane) -> None:
    """Raises MembershipTooLargeError."""
    for membership in memberships:
        membership.published = True
    await work.flush()
    published = [
        State(state, CompanyId(membership.company_id), membership.version)
        for membership, state in zip(memberships, await _states(work, memberships), strict=True)
    ]
    try:
        await publish_states(work, TOPIC, published, occurred_at=now, lane=lane)
    except EventTooLargeError as error:
        raise rules.MembershipTooLargeError from error


# Rows.

_ADMINISTERS: Final = (Membership.status == MembershipStatus.ACTIVE.value, Membership.superadmin)


def _of(table: Any, membership: Membership) -> tuple[Any, Any]:
    """The rows of a membership in one of the tables that hang on it."""
    return table.company_id == membership.company_id, table.user_id == membership.user_id


def _standing(membership: Membership) -> rules.Standing:
    return rules.Standing(MembershipStatus(membership.status), membership.superadmin)


async def _lock_company(work: AsyncSession, company_id: CompanyId) -> bool:
    """One change of administrators or entitlement at a time; whether there is such a company."""
    locked = text("select id from companies where id = :company_id for no key update")
    return await work.scalar(locked, {"company_id": company_id}) is not None


async def _person(work: AsyncSession, person: UserId | str) -> UserId:
    if isinstance(person, str):
        user_id = await work.scalar(select(User.id).where(User.email_key == email_key(person)))
    else:
        user_id = await work.scalar(select(User.id).where(User.id == person))
    if user_id is None:
        raise UserUnknownError(f"Nobody has signed up with this {'mail address' if isinstance(person, str) else 'id'}.")
    return UserId(user_id)


async def _made_or_locked(
    work: AsyncSession, company_id: CompanyId, user_id: UserId, *, superadmin: bool, now: datetime
) -> tuple[Membership, bool]:
    """A new active membership, or the one there is; locked, and whether it is new."""
    created = await work.execute(
        insert(Membership)
        .values(
            company_id=company_id,
            user_id=user_id,
            status=MembershipStatus.ACTIVE.value,
            superadmin=superadmin,
            version=1,
            created_at=now,
            published=True,
        )
        .on_conflict_do_nothing()
        .returning(Membership.user_id)
    )
    is_new = created.first() is not None
    membership = await work.get_one(Membership, (company_id, user_id), with_for_update=True, populate_existing=True)
    return membership, is_new


async def _member_locked(work: AsyncSession, company_id: CompanyId, user_id: UserId) -> Membership:
    membership = await work.get(Membership, (company_id, user_id), with_for_update=True, populate_existing=True)
    if membership is None or membership.status == MembershipStatus.REMOVED.value:
        raise rules.MemberUnknownError
    return membership


async def _other_admins(work: AsyncSession, company_id: CompanyId, user_id: UserId) -> int:
    others = select(func.count()).where(
        Membership.company_id == company_id, Membership.user_id != user_id, *_ADMINISTERS
    )
    return await work.scalar(others) or 0


async def _known_catalog(work: AsyncSession, module: str) -> Mapping[str, CatalogRow]:
    catalog = await read_catalog(work, module)
    if not catalog:
        raise ModuleUnknownError(module)
    return catalog


async def _granted_module(work: AsyncSession, membership: Membership, module: str) -> GrantedModule:
    granted = await work.get(GrantedModule, (membership.company_id, membership.user_id, module))
    if granted is None:
        raise rules.ModuleNotGrantedError(module)
    return granted


async def _give_module(
    work: AsyncSession, membership: Membership, module: str, scopes: Scopes, *, actor: UserId | None, now: datetime
) -> None:
    """With these scopes, also where the member has the module."""
    row = insert(GrantedModule).values(
        company_id=membership.company_id,
        user_id=membership.user_id,
        module=module,
        scopes=_SCOPES.dump_python(scopes, mode="json"),
        granted_by=actor,
        granted_at=now,
    )
    await work.execute(
        row.on_conflict_do_update(
            index_elements=[GrantedModule.company_id, GrantedModule.user_id, GrantedModule.module],
            set_={name: row.excluded[name] for name in ("scopes", "granted_by", "granted_at")},
        )
    )


async def _give_permissions(
    work: AsyncSession, membership: Membership, module: str, given: rules.Ends, *, actor: UserId | None, now: datetime
) -> None:
    """With these ends, also where the member has the permission."""
    if not given:
        return
    owner = {"company_id": membership.company_id, "user_id": membership.user_id, "module": module}
    row = insert(GrantedPermission).values(
        [
            {**owner, "key": key, "valid_until": end, "granted_by": actor, "granted_at": now}
            for key, end in given.items()
        ]
    )
    await work.execute(
        row.on_conflict_do_update(
            index_elements=[
                GrantedPermission.company_id,
                GrantedPermission.user_id,
                GrantedPermission.module,
                GrantedPermission.key,
            ],
            set_={name: row.excluded[name] for name in ("valid_until", "granted_by", "granted_at")},
        )
    )


async def _take_module(work: AsyncSession, membership: Membership, module: str) -> None:
    for table in (GrantedPermission, GrantedModule):
        await work.execute(delete(table).where(*_of(table, membership), table.module == module))


async def _take_everything(work: AsyncSession, company_id: CompanyId, user_id: UserId) -> None:
    """Who comes back begins with nothing."""
    for table in (DelegationRow, TopUp, GrantedPermission, GrantedModule):
        await work.execute(delete(table).where(table.company_id == company_id, table.user_id == user_id))


async def _top_up(work: AsyncSession, membership: Membership, eligible: rules.Ends | None, now: datetime) -> bool:
    """Whether anything was given. An unknown entitlement gives nothing until it is known."""
    rows = await work.execute(select(TopUp.module, TopUp.key).where(*_of(TopUp, membership)))
    seen = {(module, key) for module, key in rows}
    changed = False
    for module, valid_until in sorted((eligible or {}).items()):
        catalog = await read_catalog(work, module)
        keys = rules.top_up(module, catalog, seen) if is_running(valid_until, now) else ()
        if not keys:
            continue
        owner = {"company_id": membership.company_id, "user_id": membership.user_id, "module": module}
        await work.execute(insert(TopUp).values([{**owner, "key": key, "given_at": now} for key in keys]))
        granted = await work.get(
            GrantedModule, (membership.company_id, membership.user_id, module), populate_existing=True
        )
        scopes = rules.scopes_topped_up(
            None if granted is None else _SCOPES.validate_json(json.dumps(granted.scopes)),
            scope_types_of(catalog.values()),
            is_first=all(seen_module != module for seen_module, _ in seen),
        )
        if scopes is None:
            continue
        await _give_module(work, membership, module, scopes, actor=None, now=now)
        await _give_permissions(work, membership, module, dict.fromkeys(keys), actor=None, now=now)
        changed = True
    return changed


async def _read(work: AsyncSession, membership: Membership) -> Member:
    user = await work.get_one(User, membership.user_id)
    (state,) = await _states(work, [membership])
    return _member(membership, user, state)


def _member(membership: Membership, user: User, state: GrantChanged) -> Member:
    return Member(UserId(user.id), user.email, user.display_name, state, membership.version)


async def _states(work: AsyncSession, memberships: Sequence[Membership]) -> list[GrantChanged]:
    """All that is and was granted to each of these members."""
    subjects = [(membership.company_id, membership.user_id) for membership in memberships]

    def rows_of(table: Any) -> Any:
        # As plain rows: a page of members has thousands, and some were just replaced past the session.
        return select(*table.__table__.columns).where(tuple_(table.company_id, table.user_id).in_(subjects))

    permissions: dict[tuple[UUID, UUID, str], dict[str, datetime | None]] = defaultdict(dict)
    for permission in await work.execute(rows_of(GrantedPermission).order_by(GrantedPermission.key)):
        of_module = permissions[permission.company_id, permission.user_id, permission.module]
        of_module[permission.key] = permission.valid_until
    modules: dict[tuple[UUID, UUID], list[ModuleGrant]] = defaultdict(list)
    for granted in await work.execute(rows_of(GrantedModule)):
        modules[granted.company_id, granted.user_id].append(
            ModuleGrant(
                key=granted.module,
                permissions=permissions[granted.company_id, granted.user_id, granted.module],
                # Through JSON text: that is the form these strict types accept lists in.
                scopes=_SCOPES.validate_json(json.dumps(granted.scopes)),
            )
        )
    delegations: dict[tuple[UUID, UUID], list[Delegation]] = defaultdict(list)
    for row in await work.execute(rows_of(DelegationRow).order_by(DelegationRow.module)):
        delegations[row.company_id, row.user_id].append(_delegation(row))
    return [
        rules.grant_changed(UserId(membership.user_id), _standing(membership), modules[subject], delegations[subject])
        for membership, subject in zip(memberships, subjects, strict=True)
    ]


def _delegation(row: Any) -> Delegation:
    return _DELEGATION.validate_json(
        json.dumps(
            {
                "module": row.module,
                "permissions": row.permissions,
                "scopes": row.scopes,
                "may_delegate": row.may_delegate,
                "valid_until": row.valid_until.isoformat() if row.valid_until else None,
            }
        )
    )
