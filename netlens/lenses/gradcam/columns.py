"""The tables of `netlens gradcam` as cells: maps, predictions, methods, sanity and layers. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from netlens.drawing import numbers
from netlens.drawing.tables import Cell, Column
from netlens.findings import Severity
from netlens.lenses.gradcam.causes import asked_for
from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.ranking import UNMOVED, distrusted, ranked, unmoved
from netlens.lenses.gradcam.report import Class, GradcamReport, Heatmap, Layer, Sanity, Shot
from netlens.lenses.gradcam.rules import label, marks
from netlens.wording import bounded, number, share, short

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: ""}
MOST_CLASSES = 5  # predictions of one picture
TAIL = 10  # characters at the end of a file's name: "00293.JPEG"


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose columns may give way: how each is set, its cells, and what a reader is told of it."""

    columns: Mapping[str, Column]
    fields: Mapping[str, Sequence[Cell]]
    gives_way: tuple[str, ...]
    stays: tuple[str, ...]
    legend: Mapping[str, str]  # key of a column -> what it says


def of_maps(report: GradcamReport, rows: Collection[int]) -> Table:
    """Set one row for each map of these indices."""
    ill, shots = marks(report), report.shots
    several = {name: len({getattr(found, name) for found in report.maps}) > 1 for name in ("method", "layers")}

    def broken(found: Heatmap) -> bool:
        return shots[found.sample].nonfinite > 0

    def predicted(found: Heatmap) -> Cell:
        """Name the top prediction where another class is explained."""
        top = shots[found.sample].top[:1]
        return Cell("") if broken(found) or not top or top[0].index == found.target.index else of_class(top[0])

    def note(index: int, found: Heatmap) -> Cell:
        word, how = ill.get(index, ("", Severity.INFO))
        same = f"= {METHODS[found.equals].title}" if found.equals else ""
        return Cell(", ".join(filter(None, (word, same))), STYLES[how])

    maps = [(index, report.maps[index]) for index in sorted(rows)]
    write: dict[str, Callable[[Heatmap], str]] = {
        "class": lambda found: "" if broken(found) and not asked_for(found) else label(found.target.name, found.target.index),
        "probability": lambda found: probability(found.target.probability),
        "score": lambda found: number(found.target.score),
        "asked": lambda found: short(found.asked) if asked_for(found) and not _names(found) else "",
        "where": lambda found: found.where,
        "method": lambda found: METHODS[found.method].title if several["method"] else "",
        "layer": lambda found: short("+".join(found.layers)) if several["layers"] else "",
        "peak": lambda found: "" if found.peak is None else f"{found.peak[0]},{found.peak[1]}",
        "positive": lambda found: share(found.positive),
        "greatest": lambda found: "" if found.greatest is None else number(found.greatest),
        "gradient": lambda found: "" if found.gradient is None else number(found.gradient),
    }
    fields = {"index": [Cell(str(index), "dim") for index, _ in maps], "image": [of_image(shots[found.sample].name) for _, found in maps]}
    fields |= {name: [Cell("" if name in _NUMBERS and broken(found) else of(found)) for _, found in maps] for name, of in write.items()}
    fields |= {"predicted": [predicted(found) for _, found in maps], "note": [note(index, found) for index, found in maps]}
    return Table(_MAPS, {name: fields[name] for name in _MAPS}, _MAPS_GIVE_WAY, ("image", "class", "note", "method"), _MAPS_LEGEND)


_MAPS = {
    "index": Column("#", right=True),
    "image": Column("image", shortest=14),
    "class": Column("class", shortest=12),
    "probability": Column("p", right=True),
    "score": Column("score", right=True),
    "asked": Column("asked for", shortest=12),
    "where": Column("explained", shortest=14),
    "predicted": Column("predicted", shortest=14),
    "method": Column("method"),
    "layer": Column("layer", code=True, shortest=14),
    "peak": Column("peak x,y", right=True),
    "positive": Column("positive", right=True),
    "greatest": Column("max", right=True),
    "gradient": Column("|grad|", right=True),
    "note": Column("note"),
}
_NUMBERS = ("probability", "score", "peak", "positive", "greatest", "gradient")  # that say nothing where the output is not finite
_MAPS_GIVE_WAY = ("score", "index", "gradient", "greatest", "asked", "positive", "layer", "peak", "predicted", "probability", "where")
_MAPS_LEGEND = {
    "peak": "in pixels of the photo",
    "positive": "share of places that speak for the class",
    "greatest": "raw, in the units of the method",
    "gradient": "largest |gradient| at the layer",
}


def of_predictions(report: GradcamReport) -> Table:
    """Set the most probable classes of each sample, the names cut before the probabilities."""
    count = min(MOST_CLASSES, max((len(shot.top) for shot in report.shots), default=0))
    columns = {"image": Column("image", shortest=14)} | {f"top{rank}": Column(RANKS[rank], shortest=15) for rank in range(count)}
    fields: dict[str, list[Cell]] = {"image": [of_image(shot.name) for shot in report.shots]}
    for rank in range(count):
        fields[f"top{rank}"] = [_predicted(shot, rank) for shot in report.shots]
    return Table(columns, fields, tuple(f"top{rank}" for rank in reversed(range(1, count))), ("image", "top0"), {})


def _predicted(shot: Shot, rank: int) -> Cell:
    if shot.nonfinite:
        return Cell("" if rank else "output not finite")
    return of_class(shot.top[rank]) if rank < len(shot.top) else Cell("")


RANKS = ("predicted", "2nd", "3rd", "4th", "5th")


def of_methods(report: GradcamReport) -> Table:
    """Set the measured worth of each method, the best one first."""
    against, rows = distrusted(report), [row for row, _ in ranked(report.methods)]
    fields = {"method": [Cell(METHODS[row.method].title) for row in rows], "maps": [Cell(f"{row.maps:,}") for row in rows]}
    for name in _WORTH:
        values = [getattr(row.worth, name) for row in rows]
        fields[name] = [Cell("" if value is None else bounded(value)) for value in values]
    fields["seconds"] = [Cell(numbers.seconds(row.seconds)) for row in rows]
    fields["note"] = [Cell(against.get(row.method, ""), "yellow" if row.method in against else "") for row in rows]
    columns = {name: Column(_HEADERS.get(name, name), right=name not in ("method", "note")) for name in fields}
    return Table(
        columns, fields, ("maps", "increase", "seconds", "average_drop", "insertion", "deletion"), ("method", "note"), _WORTH_LEGEND
    )


_WORTH = ("road", "pointing", "energy", "deletion", "insertion", "average_drop", "increase")
_HEADERS = {"road": "ROAD", "average_drop": "drop", "seconds": "time/map"}
_WORTH_LEGEND = {
    "road": "least minus most relevant pixels removed, large is good",
    "pointing": "maxima in a box",
    "energy": "of the map's sum, in boxes",
    "deletion": "small is good",
    "insertion": "large is good",
    "average_drop": "of the probability, small is good",
    "increase": "share of maps",
}


def of_sanity(steps: Sequence[str], rows: Sequence[Sanity]) -> Table:
    """Set how like the maps of randomised weights are to the real ones, a column for each step from the head down."""
    last = len(steps) - 1
    columns = {"method": Column("method")} | {f"step{place}": Column(_step(place, steps), right=True) for place in range(len(steps))}
    columns["note"] = Column("note")
    fields = {"method": [Cell(METHODS[row.method].title) for row in rows]}
    for place in range(len(steps)):
        values = [row.similarity[place] for row in rows]
        fields[f"step{place}"] = [Cell("blank" if value is None else bounded(value)) for value in values]
    fields["note"] = [Cell(UNMOVED, "yellow") if unmoved(row) else Cell("") for row in rows]
    return Table(columns, fields, tuple(f"step{place}" for place in range(1, last)), ("method", "note", f"step{last}"), {})


def _step(place: int, steps: Sequence[str]) -> str:
    """Name the first step by its layer, which need not be what is called the head."""
    if place == len(steps) - 1:
        return "all"
    last = steps[0].rpartition(".")[2]
    return f"+{place}" if place else short(steps[0] if last.isdecimal() else last)


def of_layers(layers: Sequence[Layer]) -> Table:
    """Set the places that a map can be made of, or why not."""
    write: dict[str, Callable[[Layer], str]] = {
        "index": lambda layer: str(layer.index),
        "name": lambda layer: short(layer.name),
        "type": lambda layer: short(layer.type),
        "shape": lambda layer: numbers.shape(layer.shape),
        "layout": lambda layer: layer.layout,
        "grid": lambda layer: " × ".join(map(str, layer.grid)),
        "channels": lambda layer: f"{layer.channels:,}",
        "chosen": lambda layer: "chosen" if layer.chosen else "",
        "reason": lambda layer: layer.reason,
    }
    fields = {name: [Cell(of(layer), "bold" if layer.chosen else "") for layer in layers] for name, of in write.items()}
    return Table(_LAYERS, fields, ("layout", "type", "channels", "shape", "grid"), ("index", "name", "chosen", "reason"), {})


_LAYERS = {
    "index": Column("#", right=True),
    "name": Column("layer", code=True, shortest=24),
    "type": Column("type", shortest=11),
    "shape": Column("shape", code=True),
    "layout": Column("layout"),
    "grid": Column("grid"),
    "channels": Column("channels", right=True),
    "chosen": Column(""),
    "reason": Column("why", shortest=20),
}


def of_image(name: str) -> Cell:
    """Write the name of a picture; its end stays where it is cut, for names of one folder often begin alike."""
    name = short(name)
    return Cell(name[:-TAIL], tail=name[-TAIL:]) if len(name) > 2 * TAIL else Cell(name)


def of_class(found: Class) -> Cell:
    """Write "tabby 0.612"; the number stays where the name is cut."""
    return Cell(label(found.name, found.index), tail=f" {probability(found.probability) or number(found.score)}")


def probability(value: float | None) -> str:
    """Write three decimals; what is not 0 or 1 is not written so."""
    if value is None:
        return ""
    return "<0.001" if 0 < value < 0.0005 else bounded(value)


def _names(found: Heatmap) -> bool:
    """Tell whether what was asked says no more than the class itself."""
    return found.asked == str(found.target.index) or found.asked.casefold() in (found.target.name or "").casefold()
