"""Write the whole collection: `python -m tests.checkpoints.make_files FOLDER`. Over 180 files of all kinds, over 30 of them hostile."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from tests.checkpoints import files_heavy, files_hostile, files_modules, files_other, files_safetensors, files_torch
from tests.checkpoints.made import FILES, Made

__all__ = ["FILES", "Made", "files_heavy", "files_hostile", "files_modules", "files_other", "files_safetensors", "files_torch", "make_all"]


def make_all(folder: Path) -> dict[str, Path]:
    """Write every file; return the paths by name."""
    paths: dict[str, Path] = {}
    for made in FILES:
        path = paths[made.name] = folder / made.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.make(path)
    return paths


if __name__ == "__main__":
    print(f"{len(make_all(Path(sys.argv[1])))} files")
