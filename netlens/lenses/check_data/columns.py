"""The tables of `netlens check-data` as cells: splits, classes and what loaders deliver. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from netlens.data.facts_types import SplitFacts, Spread
from netlens.drawing.numbers import byte_size, exact, percent, shape
from netlens.drawing.tables import Cell, Column
from netlens.lenses.check_data.lines import HEADER, class_range, formats
from netlens.lenses.check_data.report import CheckDataReport
from netlens.wording import number, short

BAR = 20  # cells of the largest class
SHORTEST = 16  # cells of a name that is cut


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose columns may give way."""

    columns: Mapping[str, Column]
    fields: Mapping[str, Sequence[Cell]]
    gives_way: tuple[str, ...]
    stays: tuple[str, ...]


def spread(found: Spread | None) -> str:
    """Write a size: "320 to 640, median 500"; one number where all are the same."""
    if found is None:
        return ""
    low, middle, high = (_size(value) for value in (found.smallest, found.median, found.largest))
    return low if low == high else f"{low} to {high}, median {middle}"


def _size(value: float) -> str:
    return exact(int(value)) if value == int(value) else number(value)


FACTS: Mapping[str, Callable[[SplitFacts], str]] = {
    "files": lambda split: exact(split.files),
    "decoded": lambda split: exact(split.decoded),
    "size": lambda split: byte_size(split.bytes) if split.bytes else "",
    "classes": lambda split: exact(len(split.classes)) if split.classes else "",
    "a class": class_range,
    "formats": lambda split: formats(split.formats),
    "modes": lambda split: formats(split.modes),
    "width": lambda split: spread(split.width),
    "height": lambda split: spread(split.height),
    "aspect": lambda split: spread(split.aspect),
    "left out": lambda split: formats(split.skipped),
}
OF_LOADERS = {"files": "samples"}  # what is called otherwise there
ABSENT_OF_LOADERS = ("decoded",)


def split_facts(report: CheckDataReport) -> list[tuple[str, list[str]]]:
    """Return what is known of each split: label -> a text for each; what no split has is left out."""
    loader = report.kind == "loader"
    rows = [(label, [write(split) for split in report.splits]) for label, write in FACTS.items()]
    return [
        (OF_LOADERS.get(label, label) if loader else label, texts)
        for label, texts in rows
        if any(texts) and not (loader and label in ABSENT_OF_LOADERS)
    ]


def of_classes(report: CheckDataReport, most: int | None) -> tuple[Table, int]:
    """Set a row for each class, in the order of the first split that has it; of too many, the largest and the smallest.

    Returns:
        The table, and how many classes are left out.
    """
    splits = [split for split in report.splits if split.classes]
    known = [{each.name: each for each in split.classes} for split in splits]
    every = list(dict.fromkeys(name for classes in known for name in classes))
    names = _chosen(every, known[0], most)
    fields: dict[str, list[Cell]] = {"name": [Cell(short(name)) for name in names]}
    columns = {"name": Column("class", code=True, shortest=SHORTEST)}
    agree = all(len({classes[name].index for classes in known if name in classes}) == 1 for name in every)
    for place, (split, classes) in enumerate(zip(splits, known, strict=True)):
        title = short(split.name, HEADER) if len(splits) > 1 else ""
        if place == 0 or not agree:
            columns[f"index {place}"] = Column("index" if agree else f"{title} index", right=True)
            fields[f"index {place}"] = [Cell(str(classes[name].index) if name in classes else "–", "dim") for name in names]
        columns[f"count {place}"] = Column(title or "count", right=True)
        fields[f"count {place}"] = [Cell(exact(classes[name].count) if name in classes else "–") for name in names]
    total, largest = sum(each.count for each in splits[0].classes), max((each.count for each in splits[0].classes), default=0)
    counts = [known[0][name].count if name in known[0] else 0 for name in names]
    columns |= {"share": Column("share", right=True), "bar": Column(f"of {short(splits[0].name, HEADER)}" if len(splits) > 1 else "")}
    fields["share"] = [Cell(percent(count, total)) for count in counts]
    fields["bar"] = [Cell("█" * (round(BAR * count / largest) or int(count > 0)) if largest else "") for count in counts]
    stays = tuple(name for name in columns if name not in ("share", "bar"))
    return Table(columns, fields, ("bar", "share"), stays), len(every) - len(names)


def _chosen(names: list[str], first: Mapping[str, object], most: int | None) -> list[str]:
    """Keep the largest and the smallest classes of the first split, in their order."""
    if most is None or len(names) <= most:
        return names
    by_size = sorted(names, key=lambda name: -getattr(first.get(name), "count", 0))
    kept = {*by_size[: most // 2], *by_size[len(names) - (most - most // 2) :]}
    return [name for name in names if name in kept]


def of_fields(report: CheckDataReport) -> Table:
    """Set a row for each tensor that loaders deliver."""
    rows = [(loader, field) for loader in report.loaders for field in loader.fields]
    texts: dict[str, list[str]] = {
        "loader": [short(loader.name) if len(report.loaders) > 1 else "" for loader, _ in rows],
        "name": [short(field.name) for _, field in rows],
        "shape": [shape(field.shape) for _, field in rows],
        "dtype": [short(field.dtype) for _, field in rows],
        "low": ["" if field.low is None else _value(field.low) for _, field in rows],
        "high": ["" if field.high is None else _value(field.high) for _, field in rows],
        "mean": [" ".join(number(value) for value in field.mean) for _, field in rows],
        "std": [" ".join(number(value) for value in field.std) for _, field in rows],
    }
    fields = {name: [Cell(text) for text in column] for name, column in texts.items() if any(column)}
    return Table({name: _FIELDS[name] for name in fields}, fields, ("dtype", "mean", "std"), ("name", "shape", "low", "high"))


def _value(value: float) -> str:
    return exact(int(value)) if abs(value) < 1e15 and value == int(value) else number(value)


_FIELDS = {
    "loader": Column("loader", shortest=8),
    "name": Column("field", code=True, shortest=12),
    "shape": Column("shape", code=True),
    "dtype": Column("dtype"),
    "low": Column("lowest", right=True),
    "high": Column("highest", right=True),
    "mean": Column("mean"),
    "std": Column("std"),
}
