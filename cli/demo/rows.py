# ruff: noqa: S608 - the texts put together here are all of this file
"""What a module's cache must hold, said by the rows of Auth and Core: the documents of `access.digest`, made in SQL.

It shares no code with the way of the events: neither with what publishes them nor with what compiles them into records.
"""

import json
from collections.abc import Collection
from typing import Any, Final

import asyncpg

from access.digest import Document

_MICROSECONDS: Final = "(extract(epoch from {}) * 1000000)::bigint"
_SCOPES: Final = """
    (select coalesce(jsonb_object_agg(scope.key, case jsonb_typeof(scope.value)
                when 'array' then (select jsonb_agg(id order by id collate "C")
                                   from jsonb_array_elements_text(scope.value) as id)
                else scope.value end), '{}')
     from jsonb_each(%s.scopes) as scope where scope.value <> '[]')
"""

_MEMBERSHIPS: Final = f"""
    select member.company_id || '/' || member.user_id, jsonb_build_object(
        'epoch', (select epoch from outbox_publisher), 'version', member.version,
        'status', member.status, 'superadmin', member.superadmin,
        'modules', (
            select coalesce(jsonb_object_agg(granted.module, jsonb_build_object(
                'permissions', (
                    select coalesce(jsonb_object_agg(held.key, {_MICROSECONDS.format("held.valid_until")}), '{{}}')
                    from granted_permissions as held
                    where (held.company_id, held.user_id, held.module)
                        = (granted.company_id, granted.user_id, granted.module)),
                'scopes', {_SCOPES % "granted"})), '{{}}')
            from granted_modules as granted
            where (granted.company_id, granted.user_id) = (member.company_id, member.user_id)
                and granted.module = any($1)),
        'delegations', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'module', passed.module,
                'permissions', case jsonb_typeof(passed.permissions)
                    when 'array' then (select coalesce(jsonb_agg(key order by key collate "C"), '[]')
                                       from jsonb_array_elements_text(passed.permissions) as key)
                    else passed.permissions end,
                'scopes', {_SCOPES % "passed"},
                'may_delegate', passed.may_delegate,
                'valid_until', {_MICROSECONDS.format("passed.valid_until")})), '[]')
            from delegations as passed
            where (passed.company_id, passed.user_id) = (member.company_id, member.user_id)
                and passed.module = any($1)))
    from memberships as member
"""

_PERMISSIONS: Final = """
    select published.module, jsonb_build_object(
        'epoch', (select epoch from outbox_publisher), 'version', published.version,
        'rows', (select jsonb_object_agg(row.key, jsonb_build_array(row.status, row.alias_of))
                 from permissions as row where row.module = published.module))
    from published_modules as published
"""

_SIGNING_KEYS: Final = f"""
    select kid, jsonb_build_object(
        'epoch', (select epoch from outbox_publisher), 'version', version, 'status', 'active',
        'public_key', encode(public_key, 'hex'),
        'not_before', {_MICROSECONDS.format("not_before")}, 'not_after', {_MICROSECONDS.format("not_after")})
    from signing_keys
"""

#: A session is told of until its last token has expired, as of the last time anything was told of the person: that was
#: when a session was ended last. The lifetime is the longest a token may have (design §5, Identity).
_SESSIONS: Final = f"""
    select told.user_id::text, jsonb_build_object(
        'epoch', (select epoch from outbox_publisher), 'version', told.version, 'min_gen', told.generation,
        'revoked', (
            select coalesce(jsonb_object_agg(ended.id, {_MICROSECONDS.format("ended.ended_at + interval '10 min'")}),
                            '{{}}')
            from sessions as ended
            where ended.user_id = told.user_id and ended.ended_at >= told.since
                and ended.ended_at + interval '10 min' > (
                    select max(last.ended_at) from sessions as last where last.user_id = told.user_id)))
    from token_generations as told
"""

_ENTITLEMENTS: Final = f"""
    select id::text, jsonb_build_object(
        'epoch', (select epoch from outbox_publisher), 'version', version, 'status', state -> 'status',
        'base', case jsonb_typeof(state -> 'base') when 'object' then jsonb_build_object(
            'module', state -> 'base' -> 'module', 'status', state -> 'base' -> 'status',
            'valid_until', {_MICROSECONDS.format("(state -> 'base' ->> 'valid_until')::timestamptz")}) end,
        'modules', (
            select coalesce(jsonb_object_agg(
                module ->> 'key', {_MICROSECONDS.format("(module ->> 'valid_until')::timestamptz")}), '{{}}')
            from jsonb_array_elements(state -> 'modules') as module),
        'capabilities', (
            select coalesce(jsonb_agg(name order by name collate "C"), '[]')
            from jsonb_array_elements_text(state -> 'capabilities') as name))
    from companies where version > 0
"""


async def documents_of_auth(auth: asyncpg.Connection, modules: Collection[str]) -> dict[tuple[str, str], Document]:
    """Memberships with what they hold of these modules, permission rows, signing keys and ended sessions."""
    found = await _documents(auth, "membership", _MEMBERSHIPS, list(modules))
    for document in found.values():
        document["delegations"].sort(key=lambda each: json.dumps(each, sort_keys=True, separators=(",", ":")))
    found |= await _documents(auth, "permissions", _PERMISSIONS)
    found |= await _documents(auth, "signing_key", _SIGNING_KEYS)
    return found | await _documents(auth, "sessions", _SESSIONS)


async def documents_of_core(core: asyncpg.Connection) -> dict[tuple[str, str], Document]:
    """What each company is entitled to."""
    return dict(await _documents(core, "entitlement", _ENTITLEMENTS))


async def _documents(
    connection: asyncpg.Connection, kind: str, query: str, *arguments: Any
) -> dict[tuple[str, str], Any]:
    return {(kind, key): json.loads(document) for key, document in await connection.fetch(query, *arguments)}
