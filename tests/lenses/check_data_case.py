"""Reports about data made by hand: each number is one that a test can find again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from netlens.data.facts_types import ClassCount, Colours, SplitFacts, Spread
from netlens.data.issues import Issue, Item
from netlens.lenses.check_data.report import CheckDataReport
from netlens.loaders.facts import FieldFacts, LoaderFacts, Pace

ESCAPE = "evil\x1b[2J\u202e[red]cat[/red]|`x`\n::error::gone"  # steers terminals, rich, Markdown tables and GitHub


def issue(code: str, *groups: tuple[str, ...] | str, total: int = 1000, detail: str = "", **facts: Any) -> Issue:
    """Return a fault at some places: paths, or groups of paths."""
    items = tuple(Item((group,) if isinstance(group, str) else group, detail) for group in groups)
    return Issue(code, items, total, **facts)


def many(code: str, count: int, total: int = 1000, **facts: Any) -> Issue:
    """Return a fault at so many files."""
    return issue(code, *(f"./data/cat/{place:04}.jpg" for place in range(count)), total=total, **facts)


def classes(*counts: int, names: Iterable[str] = ()) -> tuple[ClassCount, ...]:
    """Return classes of these sizes, with indices in their order."""
    named = list(names) or [f"class{place}" for place in range(len(counts))]
    return tuple(ClassCount(name, place, count) for place, (name, count) in enumerate(zip(named, counts, strict=True)))


def split(name: str = "", **facts: Any) -> SplitFacts:
    """Return a healthy set of 1,000 pictures."""
    usual: dict[str, Any] = {
        "root": f"./{name or 'data'}",
        "files": 1000,
        "decoded": 1000,
        "bytes": 20 * 2**20,
        "classes": classes(600, 400, names=("cat", "dog")),
        "formats": (("JPEG", 980), ("PNG", 20)),
        "modes": (("RGB", 1000),),
        "width": Spread(320, 330, 500, 640, 1024),
        "height": Spread(240, 250, 375, 480, 768),
        "aspect": Spread(0.75, 1, 1.3333333, 1.5, 1.78),
        "colours": Colours(1000, (0.48512, 0.4561, 0.40649), (0.22914, 0.2244, 0.22499), (0.2, 0.21, 0.22), 0),
    }
    return SplitFacts(name=name, **{**usual, **facts})


def field(name: str, shape: tuple[int, ...], dtype: str = "float32", **facts: Any) -> FieldFacts:
    """Return a tensor of a batch."""
    return FieldFacts(**{"name": name, "shape": shape, "dtype": dtype, "low": 0.0, "high": 9.0, "mean": (), "std": (), **facts})


def loader(name: str = "", **facts: Any) -> LoaderFacts:
    """Return a healthy DataLoader."""
    pictures = field("0", (64, 3, 224, 224), low=-2.11790, high=2.64, mean=(0.01, -0.02, 0.03), std=(1.01, 0.99, 1.0))
    usual: dict[str, Any] = {
        "kind": "DataLoader",
        "samples": 50000,
        "read": 10000,
        "batches": 157,
        "batch_size": 64,
        "fields": (pictures, field("1", (64,), "int64")),
        "pace": Pace(412.3, 0.0091, 4, 50, 1.25, 2470.0, "--target-rate", 23),
        "memory_per_epoch": 3 * 2**20,
    }
    return LoaderFacts(name=name, **{**usual, **facts})


def report(*issues: Issue, splits: Iterable[SplitFacts] | None = None, **facts: Any) -> CheckDataReport:
    """Return a report about files."""
    return CheckDataReport(**{"kind": "files", "splits": (split(),) if splits is None else tuple(splits), "issues": issues, **facts})


def loaders(*issues: Issue, **facts: Any) -> CheckDataReport:
    """Return a report about one loader."""
    empty: dict[str, Any] = dict.fromkeys(("width", "height", "aspect", "colours"))
    samples = split(files=50000, decoded=0, bytes=0, formats=(), modes=(), classes=classes(500, 480), **empty)
    return report(*issues, splits=(samples,), **{"kind": "loader", "loaders": (loader("train_loader"),), **facts})
