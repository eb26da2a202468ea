"""How a checkpoint that does not fit is told: three tables, the likely causes, and two lines. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netlens.errors import CheckpointDoesNotFit, Detail
from netlens.loading.checkpoints.fit import Difference, Fit
from netlens.loading.checkpoints.prefixes import DEEPEST
from netlens.loading.words import listed, one_line

MOST_ROWS = 10


@dataclass(frozen=True, slots=True)
class Cause:
    """One likely reason, and what to do about it."""

    text: str  # "num_classes=37 makes all 62 tensors fit"
    remedy: str = ""  # "try --model-arg num_classes=37"


def does_not_fit(found: Fit, file: str, causes: Sequence[Cause]) -> CheckpointDoesNotFit:
    """Return the error, with what a reader needs to mend it."""
    remedy = next((cause.remedy for cause in causes if cause.remedy), "")
    hint = remedy or ("--no-strict takes what fits" if found.pairs else "name the model that it was saved from")
    return CheckpointDoesNotFit(
        f"{one_line(file)} does not fit: {one_line(found.coverage())}",
        hint=one_line(hint),
        tables=tables(found),
        causes=tuple(f"{cause.text}: {cause.remedy}" if cause.remedy else cause.text for cause in causes),
    )


def left_as_built(found: Fit) -> tuple[str, ...]:
    """Say what a load that need not be complete leaves out: of the model, and of the file."""
    named = {"left as built": [*(item.name for item in found.differences), *found.missing], "not taken": [t.name for t in found.unexpected]}
    return tuple(f"{words}: {listed(_counted(grouped(names)))}" for words, names in named.items() if names)


def tables(found: Fit) -> tuple[Detail, ...]:
    """Lay out what differs, what is missing and what is too much; tables without rows are left out."""
    unexpected = grouped(tensor.name for tensor in found.unexpected)
    every = (
        _detail(
            f"{len(found.differences):,} in both, but not the same",
            ("tensor", "checkpoint", "model", "what differs"),
            [_difference(difference) for difference in found.differences],
        ),
        _detail(f"{len(found.missing):,} missing in the checkpoint", ("tensors", "number"), _counts(grouped(found.missing))),
        _detail(f"{len(found.unexpected):,} unexpected in the checkpoint", ("tensors", "number"), _counts(unexpected)),
    )
    return tuple(detail for detail in every if detail.rows)


def grouped(names: Iterable[str], most: int = MOST_ROWS) -> list[tuple[str, int]]:
    """Gather names under common prefixes, as few levels up as `most` rows allow: [("layer1.*", 12), ("fc.bias", 1)]."""
    every = list(names)
    groups = {name: [name] for name in every}
    for depth in range(DEEPEST, -1, -1):
        if len(groups) <= most and depth < DEEPEST:
            break
        groups = {}
        for name in every:
            groups.setdefault(".".join(name.split(".")[:-1][: max(depth, 1)]), []).append(name)
    return [(found[0], 1) if len(found) == 1 else (f"{parent}.*" if parent else "*", len(found)) for parent, found in groups.items()]


def _counted(groups: Iterable[tuple[str, int]]) -> list[str]:
    return [label if count == 1 else f"{label} ({count:,})" for label, count in groups]


def _detail(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Detail:
    return Detail(title, columns, tuple(rows[:MOST_ROWS]), more=max(len(rows) - MOST_ROWS, 0))


def _difference(difference: Difference) -> tuple[str, ...]:
    tensor = difference.tensor
    shown = [_shape(shape) for shape in (tensor.shape, difference.shape or ())]
    if tensor.dtype != difference.dtype:
        shown = [f"{shown[0]} {tensor.dtype}", f"{shown[1]} {difference.dtype}"]
    return difference.name, *shown, difference.why


def _shape(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape)) or "one number"


def _counts(groups: Iterable[tuple[str, int]]) -> list[tuple[str, ...]]:
    return [(label, f"{count:,}") for label, count in groups]
