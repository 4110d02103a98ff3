"""Runs the versions of one service on the connection `chassis.migrations` gives, inside its transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # Kept where the application role has no rights.
    version_table_schema="migration",
)
context.run_migrations()
