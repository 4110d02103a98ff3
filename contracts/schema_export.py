"""Writes the JSON Schema of each event type to `contracts/schemas/`: `python -m contracts.schema_export`.

A schema that older records or readers would stumble over is not written: such a change is a new major version beside
the old one (`…v2`), never an edit.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from contracts.envelope import Envelope
from contracts.schema_compatibility import breaks_between
from contracts.topics import PAYLOADS

SCHEMAS_FOLDER: Final = Path(__file__).parent / "schemas"
EXAMPLES_FOLDER: Final = Path(__file__).parent / "examples"


class IncompatibleSchemaError(Exception):
    """One line per break, with the file it is in."""


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each event type as its readers check it, by file name."""
    return {
        f"{event_type}.json": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            # pydantic's own parametrised name says Envelope[...] and differs between its versions.
            **Envelope[payload].model_json_schema(mode="validation"),  # type: ignore[valid-type]
            "title": event_type,
        }
        for event_type, payload in PAYLOADS.items()
    }


def read_schemas(folder: Path = SCHEMAS_FOLDER) -> dict[str, dict[str, Any]]:
    """The schemas that were written before."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def breaks_of(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> list[str]:
    """Every break between two exports, one line each. An event type may come, never go."""
    gone = [f"{name}: the event type is gone; its records are not" for name in sorted(set(old) - set(new))]
    changed = [
        f"{name}: {found}" for name in sorted(set(old) & set(new)) for found in breaks_between(old[name], new[name])
    ]
    return gone + changed


def write_schemas(folder: Path = SCHEMAS_FOLDER) -> None:
    """Write all of them. Raises IncompatibleSchemaError, and then has written none."""
    new = schemas()
    breaks = breaks_of(read_schemas(folder), new)
    if breaks:
        raise IncompatibleSchemaError("\n".join(breaks))
    folder.mkdir(exist_ok=True)
    for name, schema in new.items():
        (folder / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        write_schemas()
    except IncompatibleSchemaError as refused:
        sys.exit(str(refused))
