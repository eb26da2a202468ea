"""The JSON Schemas of the reports, one file a lens, as users may rely on them.

A new field keeps a schema's number ("netlens.summary/1"); a changed or removed field raises it. After either, write the files again with

    python -m tests.schemas
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from netlens.jsonable import schema_of

FOLDER = Path(__file__).parent


def report_type(lens: str) -> type:
    """Return the one dataclass of a lens whose name ends with "Report"."""
    module = import_module(f"netlens.lenses.{lens}.report")
    (found,) = (value for name, value in vars(module).items() if name.endswith("Report") and value.__module__ == module.__name__)
    return found


def path(lens: str) -> Path:
    """Return where the schema of a lens is checked in."""
    return FOLDER / f"{lens}.json"


def generated(lens: str) -> str:
    """Return the text of the schema that follows from the report's types."""
    return json.dumps(schema_of(report_type(lens)), indent=2) + "\n"
