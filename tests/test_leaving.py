"""How a process that torchrun started ends: with its exit code, its output and what others do at exit, but without C++ taking it down."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

# `os.abort` at the very end stands for the threads of torch's process groups that end a process with SIGABRT.
PROGRAM = """
import atexit, sys
{first}
from netlens.cli.leaving import Leaving
leaving = Leaving()
atexit.register(lambda: print("done at exit"))
print("the report")
leaving.code = {code}
sys.exit({code})
"""
ABORTS = "import os; atexit.register(os.abort)"


def ended(program: str, processes: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "WORLD_SIZE": processes}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_one_of_several_processes_ends_with_its_code_whatever_comes_after_python(code: int) -> None:
    found = ended(PROGRAM.format(first=ABORTS, code=code), "2")
    assert found.returncode == code
    assert found.stdout == "the report\ndone at exit\n"


def test_a_process_alone_ends_as_python_does() -> None:
    assert ended(PROGRAM.format(first=ABORTS, code=0), "1").returncode == -6
    found = ended(PROGRAM.format(first="", code=1), "1")
    assert (found.returncode, found.stdout) == (1, "the report\ndone at exit\n")
