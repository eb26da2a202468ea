"""`python -m tests.benchmarks.inprocess MODEL TOOL...`: a summary of a model that exists, as in a notebook; prints one line of JSON.

Everything is imported and the model is built before the clock starts; each tool has its own copy of the model and its turn in each round.
Every other round has one thread only: where other processes take a core, threads that wait for each other take several times as long, and
the shortest time counts.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable

ROUNDS = 10
IMAGE = (1, 3, 224, 224)
TOOLS = ("netlens", "torchinfo", "fvcore")


def table_maker(tool: str, model_name: str) -> Callable[[], str]:
    """Return a function that summarises the model with `tool`, up to the text of the table."""
    torch, torchvision = importlib.import_module("torch"), importlib.import_module("torchvision")
    model = getattr(torchvision.models, model_name)().eval()
    library = importlib.import_module({"fvcore": "fvcore.nn"}.get(tool, tool))
    if tool == "fvcore":
        x = torch.randn(IMAGE)
        return lambda: str(library.flop_count_table(library.FlopCountAnalysis(model, x)))
    if tool == "torchinfo":
        return lambda: str(library.summary(model, input_size=IMAGE, verbose=0))
    return lambda: str(library.summary(model, input_size=IMAGE))


def compiler_loaded() -> bool:
    """Tell whether torch's compiler is in this process; torchvision brings it, and it makes the first operators of a run slower."""
    return "torch._dynamo" in sys.modules


def every_other_alone() -> Callable[[int], None]:
    """Return what prepares a round: the odd ones run with one thread."""
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    return lambda turn: torch.set_num_threads(1 if turn % 2 else threads)


def best_of(
    tools: dict[str, Callable[[], str]], rounds: int = ROUNDS, prepare: Callable[[int], None] = lambda turn: None
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the shortest time of each tool in seconds after one unmeasured run, and why the others failed."""
    best: dict[str, float] = {}
    failures: dict[str, str] = {}
    for turn in range(rounds + 1):
        prepare(turn)
        for name, tool in tools.items():
            if name in failures:
                continue
            started = time.perf_counter()
            try:
                tool()
            except Exception as error:  # a foreign tool may raise anything; the others go on
                failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                best.pop(name, None)
                continue
            if turn > 0:
                best[name] = min(best.get(name, float("inf")), time.perf_counter() - started)
    return best, failures


def main(model: str, *names: str) -> None:
    """Measure, and print what was found."""
    warnings.simplefilter("ignore")
    best, failures = best_of({name: table_maker(name, model) for name in names}, prepare=every_other_alone())
    print(json.dumps({"model": model, "seconds": best, "failures": failures, "compiler": compiler_loaded(), "best_of": ROUNDS}))


if __name__ == "__main__":
    main(*sys.argv[1:])
