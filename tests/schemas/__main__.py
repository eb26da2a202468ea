"""Write the schema of every lens: `python -m tests.schemas`."""

from __future__ import annotations

from netlens.lenses import LENSES
from tests.schemas import generated, path

for lens in LENSES:
    path(lens).write_text(generated(lens), encoding="utf-8")
    print(f"wrote tests/schemas/{path(lens).name}")
