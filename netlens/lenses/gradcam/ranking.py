"""Which method's maps to believe: what speaks against one, and the order of the others by measured worth. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.report import GradcamReport, MethodWorth, Sanity, Worth

INVARIANT = 0.9
CLEAR = 0.01  # of a probability; smaller differences of deletion and insertion, or of ROAD, are the noise of few pictures
MANY = 8  # maps; fewer may miss every box by chance
RANKED_BY = {"road": "ROAD", "pointing": "pointing", "energy": "energy"}  # large is good
DIGITS = 3  # in which two methods have to differ
BLIND, UNMOVED, WORSE, MISSING = "knows no class", "does not depend on the weights", "worse than chance", "misses every box"


def distrusted(report: GradcamReport) -> dict[str, str]:
    """Return what speaks against methods: name -> a few words, the gravest ones."""
    found = {row.method: MISSING for row in report.methods if misses(row)}
    found |= {row.method: WORSE for row in report.methods if unfaithful(row.worth)}
    found |= {row.method: UNMOVED for row in report.sanity if unmoved(row)}
    named = (*(row.method for row in report.methods), *(row.method for row in report.sanity))
    return {method: BLIND for method in named if not METHODS[method].of_class} | found


def unmoved(row: Sanity) -> bool:
    """Tell whether maps of random weights are still like those of the real ones."""
    last = row.similarity[-1] if row.similarity else None
    return last is not None and abs(last) >= INVARIANT


def unfaithful(worth: Worth) -> bool:
    """Tell whether the pixels that a method calls important matter less than the others: an order drawn by chance would be better."""
    if worth.road is not None and worth.road < -CLEAR:
        return True
    return worth.deletion is not None and worth.insertion is not None and worth.deletion - worth.insertion > CLEAR


def misses(row: MethodWorth) -> bool:
    """Tell whether no map of many points at the object."""
    return row.worth.pointing == 0 and row.maps >= MANY


def ranked(rows: Sequence[MethodWorth]) -> list[tuple[MethodWorth, float]]:
    """Sort methods by their mean rank over what was measured of `RANKED_BY`; equal ones share a rank, and the faster one comes first."""
    ranks = [_ranks([getattr(row.worth, name) for row in rows]) for name in measured(rows)]
    means = [sum(column) / len(column) for column in zip(*ranks, strict=True)] or [1.0] * len(rows)
    return sorted(zip(rows, means, strict=True), key=lambda pair: (pair[1], pair[0].seconds))


def measured(rows: Sequence[MethodWorth]) -> list[str]:
    """Return what methods can be ranked by: keys of `RANKED_BY`."""
    return [name for name in RANKED_BY if any(getattr(row.worth, name) is not None for row in rows)]


def believed(report: GradcamReport) -> str:
    """Say in a sentence which method to believe; "" where nothing was measured."""
    rows = ranked(report.methods)
    if report.initialised is True or not measured(report.methods):
        return ""
    against = distrusted(report)
    sound = [(row, mean) for row, mean in rows if row.method not in against]
    if not sound:
        return f"none of them is to be believed: {_reasons(against)}"
    best = [METHODS[row.method].title for row, mean in sound if mean == sound[0][1]]
    worth = sound[0][0].worth
    if worth.road is not None and worth.road <= CLEAR:
        return f"no order of pixels is clearly better than chance: ROAD of {_joined(best)} is {worth.road:.3f}"
    if len(rows) == 1:
        return f"{best[0]} orders the pixels better than chance" if worth.road is not None else ""
    ahead = {row.method: against[row.method] for row, mean in rows if mean < sound[0][1]}
    by = _joined([RANKED_BY[name] for name in measured(report.methods)])
    passed = f"; passed over: {_reasons(ahead)}" if ahead else ""
    return f"believe {_joined(best)}: first of {len(rows)} methods by {by}{passed}"


def _ranks(values: Sequence[float | None]) -> list[float]:
    """Rank values from 1, the largest first; equal ones share their mean rank, and what could not be measured comes last."""
    keys = [float("-inf") if value is None else round(value, DIGITS) for value in values]
    return [sum(other > key for other in keys) + (keys.count(key) + 1) / 2 for key in keys]


def _reasons(against: Mapping[str, str]) -> str:
    return ", ".join(f"{METHODS[method].title} {'is ' if why == WORSE else ''}{why}" for method, why in against.items())


def _joined(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
