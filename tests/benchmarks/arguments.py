"""The command line of the benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tests.benchmarks.contestants import CONTESTANTS, DEFAULT

MODELS = ("resnet18", "vit_h_14", "regnet_y_128gf")
INSIDE = ("resnet18", "densenet201", "vit_b_16")
FORMATS = ("table", "markdown", "json")


class Arguments(argparse.Namespace):
    """What was asked."""

    repeats: int
    models: tuple[str, ...]
    inside: tuple[str, ...]
    only: tuple[str, ...]
    format: str


def parse(arguments: Sequence[str] | None = None) -> Arguments:
    """Read the command line; what cannot be read ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Time and memory of netlens beside others, measured in turns. Never fails on a slow run.",
    )
    parser.add_argument("--repeats", type=_count, default=5, metavar="N", help="runs of every process (default 5)")
    parser.add_argument("--models", type=_names, default=MODELS, metavar="A,B", help=f"torchvision's names (default {','.join(MODELS)})")
    parser.add_argument(
        "--inside", type=_names, default=INSIDE, metavar="A,B", help=f"models summarised inside a process (default {','.join(INSIDE)})"
    )
    parser.add_argument("--only", type=_contestants, default=DEFAULT, metavar="A,B", help=f"any of {', '.join(CONTESTANTS)}")
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.epilog = "--models none and --inside none leave a part out."
    return parser.parse_args(arguments, namespace=Arguments())


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [name for name in names if not name.isidentifier()]  # names go into Python source
    if wrong or not names:
        raise argparse.ArgumentTypeError(f"{(wrong or [text])[0]!r} is not a model's name")
    return () if names == ("none",) else names


def _contestants(text: str) -> tuple[str, ...]:
    names = {part.strip() for part in text.split(",") if part.strip()}
    unknown = sorted(names - set(CONTESTANTS))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{(unknown or [text])[0]!r} is none of {', '.join(CONTESTANTS)}")
    return tuple(name for name in CONTESTANTS if name in names)
