"""The JSON Schemas of the reports, one file a document, as users may rely on them.

A new field keeps a schema's number ("netlens.summary/1"); a changed or removed field raises it. After either, write the files again with

    python -m tests.schemas
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from netlens.jsonable import schema_of

FOLDER = Path(__file__).parent
BESIDE = {"checkpoint": "netlens.lenses.summary.checkpoint_report"}  # documents that a lens has beside its own


def report_type(document: str) -> type:
    """Return the one dataclass of a lens, or of a document beside, whose name ends with "Report"."""
    module = import_module(BESIDE.get(document, f"netlens.lenses.{document}.report"))
    (found,) = (value for name, value in vars(module).items() if name.endswith("Report") and value.__module__ == module.__name__)
    return found


def path(document: str) -> Path:
    """Return where a schema is checked in."""
    return FOLDER / f"{document}.json"


def generated(document: str) -> str:
    """Return the text of the schema that follows from the report's types."""
    return json.dumps(schema_of(report_type(document)), indent=2) + "\n"
