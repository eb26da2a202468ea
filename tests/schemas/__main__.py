"""Write the schema of every document: `python -m tests.schemas`."""

from __future__ import annotations

from netlens.lenses import LENSES
from tests.schemas import BESIDE, generated, path

for document in (*LENSES, *BESIDE):
    path(document).write_text(generated(document), encoding="utf-8")
    print(f"wrote tests/schemas/{path(document).name}")
