"""Databases and roles: per service one database, an owner for migrations, an application role that owns nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg


@dataclass(frozen=True)
class ServiceDatabase:
    """One service's database, named like its application role; the owner role has the suffix `_owner`."""

    name: str
    password: str = field(repr=False)
    owner_password: str = field(repr=False)

    @property
    def owner(self) -> str:
        return f"{self.name}_owner"

    def url(self, administrator_url: str) -> str:
        """Where the application connects, on the server `administrator_url` names."""
        return _address(administrator_url, self.name, self.password, self.name)

    def owner_url(self, administrator_url: str) -> str:
        """Where migrations connect."""
        return _address(administrator_url, self.owner, self.owner_password, self.name)


def _address(administrator_url: str, role: str, password: str, database: str) -> str:
    server = urlsplit(administrator_url)
    credentials = f"{quote(role)}:{quote(password, safe='')}"
    return urlunsplit((server.scheme, f"{credentials}@{server.hostname}:{server.port}", f"/{database}", "", ""))


async def provision(administrator_url: str, databases: Mapping[str, ServiceDatabase]) -> None:
    """Create what is missing, set the passwords, keep all data. `administrator_url` is a superuser's."""
    connection = await asyncpg.connect(administrator_url)
    try:
        await connection.execute("revoke all on database postgres, template1 from public")
        for database in databases.values():
            await _provision_roles(connection, database)
            await _provision_database(connection, database)
    finally:
        await connection.close()
    for database in databases.values():
        await _provision_privileges(administrator_url, database)


async def _provision_roles(connection: asyncpg.Connection, database: ServiceDatabase) -> None:
    for role, password in ((database.owner, database.owner_password), (database.name, database.password)):
        exists = await connection.fetchval("select true from pg_roles where rolname = $1", role)
        await _run(
            connection,
            ("alter" if exists else "create")
            + " role %I login nosuperuser nocreatedb nocreaterole nobypassrls password %L",
            role,
            password,
        )


async def _provision_database(connection: asyncpg.Connection, database: ServiceDatabase) -> None:
    if not await connection.fetchval("select true from pg_database where datname = $1", database.name):
        await _run(connection, "create database %I owner %I", database.name, database.owner)
    # Everybody may connect to a new database until this is said.
    await _run(connection, "revoke all on database %I from public", database.name)
    await _run(connection, "grant connect on database %I to %I, %I", database.name, database.owner, database.name)


async def _provision_privileges(administrator_url: str, database: ServiceDatabase) -> None:
    server = urlsplit(administrator_url)
    connection = await asyncpg.connect(urlunsplit(server._replace(path=f"/{database.name}")))
    try:
        await _run(connection, "alter schema public owner to %I", database.owner)
        await _run(connection, "revoke create on schema public from public")
        await _run(connection, "grant usage on schema public to %I", database.name)
        defaults = "alter default privileges for role %I in schema public grant "
        for privileges in ("select, insert, update, delete on tables to %I", "usage on sequences to %I"):
            await _run(connection, defaults + privileges, database.owner, database.name)
    finally:
        await connection.close()


async def _run(connection: asyncpg.Connection, statement: str, *names: str) -> None:
    """Run a statement that takes no parameters; PostgreSQL itself quotes the names (%I) and literals (%L)."""
    places = ", ".join(f"${number}::text" for number in range(2, len(names) + 2))
    query = f"select format($1, {places})" if names else "select $1"
    await connection.execute(await connection.fetchval(query, statement, *names))
