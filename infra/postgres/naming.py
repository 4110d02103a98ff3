"""How constraints are called, so that an error names table and rule, and a migration can find what it changes."""

from typing import Final

NAMING_CONVENTION: Final = {
    "ix": "%(table_name)s_%(column_0_N_name)s_index",
    "uq": "%(table_name)s_%(column_0_N_name)s_unique",
    "ck": "%(table_name)s_%(constraint_name)s",
    "fk": "%(table_name)s_%(column_0_N_name)s_exists",
    "pk": "%(table_name)s_key",
}
