"""The outbox's tables, which live in the database of each service that publishes.

A service takes them in with `add_outbox_tables(Base.metadata)` in its `database.py`, so that its metadata is what its
database holds, and with `create_outbox(op)` and `extend_outbox_for_restores(op)` in its Alembic versions.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import conv

from contracts.envelope import VALUE_SIZE_MAX_BYTES

#: What writers notify and the relay listens on.
CHANNEL: Final = "outbox"

METADATA: Final = MetaData()

#: What is pending on state topics: one row per key, the newest state. A row the log refused stays, set aside, until a
#: newer state replaces it.
states: Final = Table(
    "outbox_states",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    #: The place in the lane; a newer state takes the place of the one it replaces.
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("enqueued_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("refused_at", DateTime(timezone=True)),
    Column("refusal", Text),
    CheckConstraint(f"octet_length(value) <= {VALUE_SIZE_MAX_BYTES}", name=conv("outbox_states_value_size")),
    CheckConstraint("epoch >= 1 and version >= 1", name=conv("outbox_states_revision_is_positive")),
    CheckConstraint("(refused_at is null) = (refusal is null)", name=conv("outbox_states_refusal_has_a_reason")),
)
Index("outbox_states_pending_index", states.c.lane, states.c.position, postgresql_where=text("refused_at is null"))

#: What is pending on fact topics, in the order it is sent per key.
facts: Final = Table(
    "outbox_facts",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("enqueued_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("refused_at", DateTime(timezone=True)),
    Column("refusal", Text),
    CheckConstraint(f"octet_length(value) <= {VALUE_SIZE_MAX_BYTES}", name=conv("outbox_facts_value_size")),
    CheckConstraint("(refused_at is null) = (refusal is null)", name=conv("outbox_facts_refusal_has_a_reason")),
)
Index("outbox_facts_pending_index", facts.c.id, postgresql_where=text("refused_at is null"))

#: One row: the epoch of this database, and how many records were acknowledged in it.
publisher: Final = Table(
    "outbox_publisher",
    METADATA,
    Column("id", Integer, primary_key=True, server_default="1", autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("epoch_complete", Boolean, nullable=False),
    Column("publish_counter", BigInteger, nullable=False),
    #: The PostgreSQL that was last published from; none before the first leader.
    Column("system_id", Text),
    Column("timeline", BigInteger),
    #: Why nothing is published: the database is not the one that published before. A finished restore ends it.
    Column("refusal", Text),
    CheckConstraint("id = 1", name=conv("outbox_publisher_is_one")),
    CheckConstraint("epoch >= 1 and publish_counter >= 0", name=conv("outbox_publisher_counts_up")),
    CheckConstraint("(system_id is null) = (timeline is null)", name=conv("outbox_publisher_server_is_whole")),
)

#: A row is an operator's word that what this database holds is the truth from now on. The leader carries it out.
restores: Final = Table(
    "outbox_restores",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("requested_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("began_at", DateTime(timezone=True)),
    Column("epoch_before", BigInteger),
    Column("epoch", BigInteger),
    #: How many states were published again, and how many keys of the log were published as giving nothing.
    Column("republished", BigInteger, nullable=False, server_default="0"),
    Column("withdrawn", BigInteger, nullable=False, server_default="0"),
    Column("finished_at", DateTime(timezone=True)),
)

#: What is known of the log, per partition. Offsets are next offsets: the first that is not acknowledged, or checked.
partitions: Final = Table(
    "outbox_partitions",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("topic_id", Text, nullable=False),
    Column("acknowledged_offset", BigInteger, nullable=False),
    #: Up to here the owner has seen that each record is its own, or sent the key's state again.
    Column("checked_offset", BigInteger, nullable=False),
    #: When the log was found to be another or shorter; no heartbeat until the topic was published anew.
    Column("lost_at", DateTime(timezone=True)),
)

_CREATE: Final = (
    """
    create table outbox_states (
        topic text not null, key text not null, value bytea not null, headers jsonb not null,
        epoch bigint not null, version bigint not null, lane smallint not null,
        position bigint not null generated always as identity,
        occurred_at timestamptz not null, enqueued_at timestamptz not null default now(),
        refused_at timestamptz, refusal text,
        primary key (topic, key),
        constraint outbox_states_value_size check (octet_length(value) <= 262144),
        constraint outbox_states_revision_is_positive check (epoch >= 1 and version >= 1),
        constraint outbox_states_refusal_has_a_reason check ((refused_at is null) = (refusal is null))
    ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)
    """,
    "create index outbox_states_pending_index on outbox_states (lane, position) where refused_at is null",
    """
    create table outbox_facts (
        id bigint generated always as identity primary key,
        topic text not null, key text not null, value bytea not null, headers jsonb not null,
        occurred_at timestamptz not null, enqueued_at timestamptz not null default now(),
        refused_at timestamptz, refusal text,
        constraint outbox_facts_value_size check (octet_length(value) <= 262144),
        constraint outbox_facts_refusal_has_a_reason check ((refused_at is null) = (refusal is null))
    ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)
    """,
    "create index outbox_facts_pending_index on outbox_facts (id) where refused_at is null",
    """
    create table outbox_publisher (
        id integer primary key default 1, epoch bigint not null, epoch_complete boolean not null,
        publish_counter bigint not null,
        constraint outbox_publisher_is_one check (id = 1),
        constraint outbox_publisher_counts_up check (epoch >= 1 and publish_counter >= 0)
    )
    """,
    "insert into outbox_publisher (epoch, epoch_complete, publish_counter) values (1, true, 0)",
    """
    create table outbox_partitions (
        topic text not null, partition integer not null, topic_id text not null,
        acknowledged_offset bigint not null, checked_offset bigint not null, lost_at timestamptz,
        primary key (topic, partition)
    )
    """,
    f"""
    create function outbox_notify() returns trigger language plpgsql as
    $$ begin perform pg_notify('{CHANNEL}', ''); return null; end $$
    """,
    """
    create trigger outbox_states_notify after insert or update on outbox_states
    for each statement execute function outbox_notify()
    """,
    """
    create trigger outbox_facts_notify after insert on outbox_facts
    for each statement execute function outbox_notify()
    """,
)
_EXTEND_FOR_RESTORES: Final = (
    "alter table outbox_publisher add system_id text, add timeline bigint, add refusal text",
    """
    alter table outbox_publisher add constraint outbox_publisher_server_is_whole
    check ((system_id is null) = (timeline is null))
    """,
    """
    create table outbox_restores (
        id bigint generated always as identity primary key,
        requested_at timestamptz not null default now(), began_at timestamptz,
        epoch_before bigint, epoch bigint,
        republished bigint not null default 0, withdrawn bigint not null default 0,
        finished_at timestamptz
    )
    """,
)
_DROP: Final = (
    "drop table outbox_partitions",
    "drop table outbox_publisher",
    "drop table outbox_facts",
    "drop table outbox_states",
    "drop function outbox_notify()",
)


def add_outbox_tables(metadata: MetaData) -> None:
    """Make the outbox's tables part of a service's metadata."""
    for table in METADATA.sorted_tables:
        table.to_metadata(metadata)


def create_outbox(op: Any) -> None:
    """Create the outbox in an Alembic version; `op` is Alembic's.

    What this creates never changes, since versions that called it have run: a later form is a further function.
    """
    for statement in _CREATE:
        op.execute(statement)


def drop_outbox(op: Any) -> None:
    """Undo `create_outbox`."""
    for statement in _DROP:
        op.execute(statement)


def extend_outbox_for_restores(op: Any) -> None:
    """Have the outbox know the server it is on, and the restores it went through. After `create_outbox`."""
    for statement in _EXTEND_FOR_RESTORES:
        op.execute(statement)


def narrow_outbox_from_restores(op: Any) -> None:
    """Undo `extend_outbox_for_restores`."""
    op.execute("drop table outbox_restores")
    op.execute("alter table outbox_publisher drop system_id, drop timeline, drop refusal")
