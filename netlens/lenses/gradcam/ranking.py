"""Which method's maps to believe: what speaks against one, and the order of the others by measured worth. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.report import GradcamReport, MethodWorth, Sanity, Worth
from netlens.wording import counted

INVARIANT = 0.9
CLEAR = 0.01  # of a probability or a share; smaller differences are the noise of few pictures
FEWEST = 3  # maps of a method; from fewer none is recommended
ROUNDING = 1e-9  # of such differences
MANY = 8  # maps; fewer may miss every box by chance
RANKED_BY = {"road": "ROAD", "pointing": "pointing", "energy": "energy"}  # large is good
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
    maps = min(row.maps for row, _ in rows)
    if maps < FEWEST:
        return (
            f"{counted(maps, 'map')} of each method {'is' if maps == 1 else 'are'} too few to say which to believe: give {FEWEST} or more"
        )
    against = distrusted(report)
    sound = [(row, mean) for row, mean in rows if row.method not in against]
    if not sound:
        return f"none of them is to be believed: {_reasons(against)}"
    best = [METHODS[row.method].title for row, mean in sound if mean == sound[0][1]]
    worth = sound[0][0].worth
    if worth.road is not None and worth.road <= CLEAR:
        return f"no order of pixels is clearly better than chance: ROAD of {_joined(best)} is {worth.road:.3f} on {maps:,} maps"
    if len(rows) == 1:
        return f"{best[0]} orders the pixels better than chance, on {maps:,} maps" if worth.road is not None else ""
    ahead = {row.method: against[row.method] for row, mean in rows if mean < sound[0][1]}
    by = _joined([RANKED_BY[name] for name in measured(report.methods)])
    passed = f"; passed over: {_reasons(ahead)}" if ahead else ""
    return f"believe {_joined(best)}: the best mean rank of {len(rows)} methods by {by}, on {maps:,} maps{passed}"


def _ranks(values: Sequence[float | None]) -> list[float]:
    """Rank values from 1, the largest first; those within CLEAR of the best one left share their mean rank, as do those not measured."""
    heads = _heads(sorted((value for value in values if value is not None), reverse=True))
    keys = [float("-inf") if value is None else next(head for head in heads if head - value <= CLEAR + ROUNDING) for value in values]
    return [sum(other > key for other in keys) + (keys.count(key) + 1) / 2 for key in keys]


def _heads(falling: Sequence[float]) -> list[float]:
    """Return the best value, the best one clearly below it, and so on."""
    heads: list[float] = []
    for value in falling:
        if not heads or heads[-1] - value > CLEAR + ROUNDING:
            heads.append(value)
    return heads


def _reasons(against: Mapping[str, str]) -> str:
    return ", ".join(f"{METHODS[method].title} {'is ' if why == WORSE else ''}{why}" for method, why in against.items())


def _joined(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
