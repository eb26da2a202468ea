"""The collection of files, written once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints.make_files import make_all


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the path of every file by its name."""
    return make_all(tmp_path_factory.mktemp("files"))
