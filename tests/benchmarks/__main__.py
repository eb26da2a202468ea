"""`make bench`: netlens beside the bare imports, torchinfo and fvcore, in one run.

Machines are noisy, so nothing here fails on a slow run: what was promised stands beside what was measured, and a missed promise is said
loudly. This process imports no torch: see `children.run_child`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from netlens.cli import console
from tests.benchmarks import inprocess
from tests.benchmarks.arguments import Arguments, parse
from tests.benchmarks.bars import bars
from tests.benchmarks.children import run_child
from tests.benchmarks.contestants import CONTESTANTS, NETLENS, STATIC, missing, netlens_script
from tests.benchmarks.page import markdown, parts
from tests.benchmarks.results import Inside, Results, load, machine
from tests.benchmarks.rounds import Job, Series, measured, steps

REPOSITORY = Path(__file__).parents[2]
STATIC_REPEATS = 10  # they are short, and differ by hundredths of a second


def main() -> int:
    """Measure what the command line asks, and print it."""
    asked = parse()
    if not hasattr(os, "wait4"):
        console.note("error: this system does not tell the memory and CPU time of a child process (os.wait4)")
        return 2
    results = _measure(asked)
    if asked.format == "json":
        console.write(json.dumps(results.document(), indent=2) + "\n")
    elif asked.format == "markdown":
        console.write(markdown(results))
    else:
        console.show(parts(results, console.width()))
    return 0


def _measure(asked: Arguments) -> Results:
    before, absent = load(), missing(asked.only)
    present = tuple(name for name in asked.only if name not in absent)
    jobs = [_job(name, model) for model in asked.models for name in present]
    processes = _in_turns(jobs, asked.repeats, "whole processes")
    static = _in_turns(_static_jobs(), STATIC_REPEATS, "commands that need no model") if NETLENS in present else []
    inside = _inside(asked.inside, [tool for tool in inprocess.TOOLS if tool in present])
    return Results(machine(before), asked.repeats, processes, static, inside, bars(processes, static), absent)


def _job(name: str, model: str) -> Job:
    contestant = CONTESTANTS[name]
    return Job(name, contestant.label, model, tuple(contestant.command(model)))


def _static_jobs() -> list[Job]:
    python = Job("python", "python -c pass", "", (sys.executable, "-c", "pass"))
    return [python, *(Job(label, label, "", (str(netlens_script()), *arguments)) for label, arguments in STATIC.items())]


def _in_turns(jobs: list[Job], repeats: int, doing: str) -> list[Series]:
    # From an empty folder: no configuration file of the user has a say.
    with tempfile.TemporaryDirectory() as folder, console.progress(doing, steps(jobs, repeats)) as step:
        return measured(jobs, repeats, Path(folder), step)


def _inside(models: tuple[str, ...], tools: list[str]) -> list[Inside]:
    with console.progress("inside a process", len(models)) as step:
        found = []
        for model in models if tools else ():
            outcome = run_child([sys.executable, "-m", inprocess.__name__, model, *tools], REPOSITORY)
            failed = Inside(model, {}, {"all tools": outcome.failure}, compiler=False, best_of=inprocess.ROUNDS)
            found.append(failed if outcome.failure else Inside(**json.loads(outcome.stdout.splitlines()[-1])))
            step()
        return found


if __name__ == "__main__":
    sys.exit(main())
