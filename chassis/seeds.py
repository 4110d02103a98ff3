"""Rows a service starts with: each is inserted once in the life of a database and never looked at again.

A seed row is recorded by its name when it is applied, like a migration. Whoever then edits, renames or deletes the row
keeps what they did, however often the service starts (document 004, "Known risk", tells what happens otherwise).
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Table, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

_log = structlog.get_logger("kisum.seeds")


@dataclass(frozen=True)
class Seed:
    """The rows of one table. `rows` maps the seed's name, fixed for ever, to the columns it is inserted with."""

    table: Table
    rows: Mapping[str, Mapping[str, Any]]


def read_seed(table: Table, path: Path) -> Seed:
    """Read a `seed.toml`: one `[name]` section per row."""
    return Seed(table=table, rows=tomllib.loads(path.read_text()))


async def apply_seeds(connection: AsyncConnection, seeds: Iterable[Seed]) -> int:
    """Insert the rows this database has never been given; returns how many. The caller holds the migration lock.

    A row whose key somebody took first is recorded and not inserted: what people wrote wins.
    """
    await connection.execute(
        text(
            "create table if not exists migration.applied_seeds ("
            " table_name text not null, name text not null, applied_at timestamptz not null default now(),"
            " primary key (table_name, name))"
        )
    )
    count = 0
    for seed in seeds:
        for name, columns in seed.rows.items():
            recorded = await connection.execute(
                text(
                    "insert into migration.applied_seeds (table_name, name) values (:table_name, :name)"
                    " on conflict do nothing returning name"
                ),
                {"table_name": seed.table.name, "name": name},
            )
            if recorded.first() is None:
                continue
            inserted = await connection.execute(insert(seed.table).values(**columns).on_conflict_do_nothing())
            if inserted.rowcount == 0:
                _log.warning("seed row kept out: its key is taken", table=seed.table.name, seed=name)
            count += inserted.rowcount
    return count
