"""What several test files share: `netlens(...)` runs the command line in a child process, as a user's shell would."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# Tests run side by side, one on each core: torch's threads would only wait for each other, in some tests for ten seconds. Before torch is
# imported, and for children too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Variables that change what a command line tool prints. A test that wants one sets it.
DROPPED = {
    "CI",
    "PYTHONUNBUFFERED",
    "PYTHONWARNINGS",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "TERM",
}
DROPPED_PREFIXES = ("GITHUB_", "NETLENS_", "PYTEST_", "COV_")

# The same three lines as a console script, from an empty folder: unlike `python -m netlens` they do not put the current folder on
# sys.path, so a test sees what a user of `netlens` sees. NETLENS_TEST_LENSES: a folder of other lenses to register instead.
LAUNCHER = """
import atexit, json, os, sys
atexit.register(lambda: open(os.environ["NETLENS_TEST_MODULES"], "w").write(json.dumps(sorted(sys.modules))))
if folder := os.environ.get("NETLENS_TEST_LENSES"):
    import netlens.lenses
    netlens.lenses.__path__.append(folder)
    netlens.lenses.LENSES = tuple(sorted(name for name in os.listdir(folder) if not name.startswith("_")))
from netlens.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Result:
    """What one command line left behind."""

    returncode: int
    stdout: str
    stderr: str
    modules: frozenset[str]  # imported when it ended


@dataclass(frozen=True)
class Shell:
    """Runs `netlens` with an environment of its own."""

    folder: Path

    def __call__(self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 120) -> Result:
        command, environment = self.prepare(*arguments, env=env)
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=environment, capture_output=True, encoding="utf-8", timeout=timeout, check=False
        )
        modules = Path(environment["NETLENS_TEST_MODULES"])
        found = json.loads(modules.read_text()) if modules.exists() else []
        return Result(done.returncode, done.stdout, done.stderr, frozenset(found))

    def prepare(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
        """Return the command and the environment, for a test that needs its own pipes."""
        launcher, modules = self.folder / "bin" / "start.py", self.folder / "modules.json"
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(LAUNCHER)
        modules.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if name not in DROPPED and not name.startswith(DROPPED_PREFIXES)}
        own = {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8", "NETLENS_TEST_MODULES": str(modules)}
        return [sys.executable, str(launcher), *arguments], {**kept, **own, **(env or {})}


@pytest.fixture(scope="session")
def netlens(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Run the command line in a child process: `netlens("summary", "resnet18").stdout`."""
    return Shell(tmp_path_factory.mktemp("shell"))


@pytest.fixture
def childless() -> None:
    """End the workers of loaders that earlier tests have left in this process: they live on until an iterator is collected."""
    for child in multiprocessing.active_children():
        child.terminate()
        child.join(10)
