"""What stands around the tables of data: lines of plain text, the same in the terminal and in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from netlens.data.facts_types import SplitFacts
from netlens.drawing.facts import Fact
from netlens.drawing.numbers import byte_size, exact, seconds
from netlens.lenses.check_data.report import CheckDataReport
from netlens.loaders.facts import LoaderFacts, Pace
from netlens.wording import counted, listed, number, short

HEADER = 24  # characters of the name of a split above a column
UNKNOWN = {
    True: "what no look at files tells: wrong labels, cropped copies, and which of two labels of one picture is right; look at the samples",
    False: "what no look at samples tells: wrong labels, copies that are cropped or augmented, and whether a transform keeps what matters; "
    "look at the samples",
}


def title_line(report: CheckDataReport, title: str) -> str:
    """Say what was looked at, and how much of it there is."""
    what = "sample" if report.kind == "loader" else "file"
    parts = [short(title), counted(sum(split.files for split in report.splits), what) if report.splits else ""]
    parts += [f"{len(report.splits)} splits"] if len(report.splits) > 1 else []
    names = {each.name for split in report.splits for each in split.classes}
    parts += ["1 class" if len(names) == 1 else f"{len(names):,} classes"] if names else []
    return " · ".join(part for part in parts if part)


def warning(report: CheckDataReport) -> list[str]:
    """Say loudly that not all was seen."""
    return [] if report.interrupted is None else [f"INTERRUPTED after {counted(report.interrupted, 'file')}: the rest was not looked at"]


def normalize(report: CheckDataReport) -> list[str]:
    """Return the line to paste, of the first split that has colours, and what it is; [] where none has."""
    split = next((split for split in report.splits if split.colours is not None), None)
    if split is None or split.colours is None:
        return []
    colours = split.colours
    of = f" of {short(split.name, HEADER)}" if split.name else ""
    told = f"the pixels of {counted(colours.pictures, 'picture')}{of}, each pixel the same weight"
    told += f"; the mean of the std of each picture, as ImageNet's is, would be {_numbers(colours.std_of_pictures)}"
    if len(set(colours.mean)) == 1:
        told += f"; of one channel: {_pasted(colours.mean[:1], colours.std[:1])}"
    told += f"; large ones were reduced before: {colours.reduced:,}" if colours.reduced else ""
    return [_pasted(colours.mean, colours.std), told]


def _pasted(mean: Sequence[float], std: Sequence[float]) -> str:
    return f"Normalize(mean={_numbers(mean)}, std={_numbers(std)})"


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4f}' for value in values)}]"


def facts(report: CheckDataReport) -> list[Fact]:
    """State what holds for all of it."""
    found = [fact for loader in report.loaders for fact in _of_loader(loader, alone=len(report.loaders) == 1)]
    found += [Fact("note", note) for note in report.notes]
    found += [Fact("pictures", _pictures(report.pictures))] if report.pictures else []
    return [*found, Fact("unknown", UNKNOWN[report.kind != "loader"])]


def _of_loader(loader: LoaderFacts, *, alone: bool) -> list[Fact]:
    of = "" if alone else f"{short(loader.name)}: "
    samples = "of unknown length" if loader.samples is None else counted(loader.samples, "sample")
    told = [
        short(loader.kind),
        samples,
        f"{exact(loader.read)} read in {'1 batch' if loader.batches == 1 else f'{loader.batches:,} batches'}",
    ]
    told += [f"batches of {exact(loader.batch_size)}"] if loader.batch_size else []
    found = [Fact("loader", of + " · ".join(told))]
    found += [Fact("pace", of + pace(loader.pace))] if loader.pace is not None else []
    if loader.memory_per_epoch is not None:
        found.append(Fact("memory", f"{of}{_signed(loader.memory_per_epoch)} an epoch"))
    return found


def pace(found: Pace) -> str:
    """Say how fast a loader is, how fast it ought to be, and the workers that this takes."""
    told = f"{_rate(found.samples_per_second)} samples/s with {counted(found.workers, 'worker')}"
    told += f", {seconds(found.seconds_per_sample)} a sample, first batch after {seconds(found.first_batch)}"
    if found.wanted is not None:
        told += f"; wanted {_rate(found.wanted)}/s" + (f" ({short(found.wanted_by)})" if found.wanted_by else "")
    if found.workers_needed is not None:
        told += f", which takes {counted(found.workers_needed, 'worker') if found.workers_needed else 'no worker beside the main process'}"
    return f"{told}; this machine, now"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else number(value)


def _signed(count: int) -> str:
    return f"{'-' if count < 0 else '+'}{byte_size(abs(count))}"


def _pictures(files: tuple[str, ...]) -> str:
    """Name the pictures; of many, how many there are and the first."""
    return listed(files) if len(files) <= 2 else f"{len(files)}, the first {files[0]}"


def formats(counts: Sequence[tuple[str, int]]) -> str:
    """Write how often each of a few names occurs: "JPEG 980, PNG 20"."""
    return listed([f"{short(name) or 'without suffix'} {count:,}" for name, count in Counter(dict(counts)).most_common()])


def class_range(split: SplitFacts) -> str:
    """Write how many pictures the smallest and the largest class have."""
    counts = [each.count for each in split.classes]
    return "" if not counts else f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
