"""What is wrong with maps, and what they cannot tell: one finding a cause, however many maps have it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlens.findings import Finding, Severity
from netlens.lenses.gradcam.causes import CAUSES, asked_for, cause, half, predicted, remedy, severity
from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.ranking import INVARIANT, MANY, misses, unfaithful, unmoved
from netlens.lenses.gradcam.report import GradcamReport, Heatmap
from netlens.wording import bounded, counted, listed, number, short

UNSURE = 0.1  # probability of the top prediction; ours
NAMED = 3  # maps that a finding gives as examples


def diagnose(report: GradcamReport) -> tuple[Finding, ...]:
    """Return what is wrong, each cause once."""
    return (*_broken(report), *_untrained(report), *_of_maps(report), *_of_targets(report), *_of_methods(report))


def marks(report: GradcamReport) -> dict[int, tuple[str, Severity]]:
    """Return what ails maps, in a few words, and how bad it is: index into `report.maps` -> both."""
    found = [(index, each, cause(report, each)) for index, each in enumerate(report.maps)]
    ill = {index: (CAUSES[code].word, severity(report, each, code)) for index, each, code in found if code}
    return ill | {index: ("output not finite", Severity.ERROR) for index, each, _ in found if report.shots[each.sample].nonfinite}


def _broken(report: GradcamReport) -> Iterator[Finding]:
    broken = [shot for shot in report.shots if shot.nonfinite]
    if broken:
        names = ", ".join(short(shot.name) for shot in broken[:NAMED]) + _more(broken)
        many = f" for {len(broken):,} of {counted(len(report.shots), 'sample')}, {names}" if len(report.shots) > 1 else ""
        yield Finding(
            "output-nonfinite",
            Severity.ERROR,
            "",
            f"the model's output is not finite, so that there is nothing to explain{many}",
            measured=f"{sum(shot.nonfinite for shot in broken):,} NaN or Inf",
            threshold="0",
            remedy=f"{half(report)}`netlens featuremaps` names the first layer whose output is not finite",
        )


def _untrained(report: GradcamReport) -> Iterator[Finding]:
    if report.initialised is True and report.maps:
        yield Finding(
            "untrained",
            Severity.WARNING,
            "",
            "these maps mean nothing: the model has learned nothing yet",
            measured=report.source,
            remedy="give it weights: --checkpoint FILE, or --weights DEFAULT for a model of torchvision",
        )


# -- of maps -------------------------------------------------------------------------------------------------------------------------


def _of_maps(report: GradcamReport) -> Iterator[Finding]:
    groups: dict[str, list[Heatmap]] = {code: [] for code in CAUSES}
    for found in report.maps:
        code = cause(report, found)
        if code and not report.shots[found.sample].nonfinite:
            groups[code].append(found)
    for code, maps in groups.items():
        if maps:
            rule = CAUSES[code]
            layers = dict.fromkeys("+".join(found.layers) for found in maps)
            yield Finding(
                code,
                max(severity(report, found, code) for found in maps),
                short(next(iter(layers))) if len(layers) == 1 else "",
                _counted(rule.message, report, maps),
                measured=rule.measure(maps),
                threshold=rule.threshold,
                remedy=remedy(report, maps, code),
            )


def _counted(message: str, report: GradcamReport, maps: Sequence[Heatmap]) -> str:
    """Say of how many maps it is true, and of which."""
    total = len(report.maps)
    if total == 1:
        return message
    which = f"all {total:,} maps" if len(maps) == total else f"{len(maps):,} of {total:,} maps"
    return f"{message}: {which}, {_examples(report, maps)}"


def _examples(report: GradcamReport, maps: Sequence[Heatmap]) -> str:
    """Name the first maps: "cat.png (tabby, Grad-CAM), dog.png (pug, Grad-CAM) and 3 more"."""
    several = len({found.method for found in report.maps}) > 1
    named = []
    for found in maps[:NAMED]:
        of = [label(found.target.name, found.target.index), *([METHODS[found.method].title] if several else [])]
        named.append(f"{short(report.shots[found.sample].name)} ({', '.join(of)})")
    return ", ".join(named) + _more(maps)


def label(name: str | None, index: int) -> str:
    """Name a class: by its number where it has no name."""
    return short(name) if name else f"class {index}"


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""


# -- of what is explained ------------------------------------------------------------------------------------------------------------


def _of_targets(report: GradcamReport) -> Iterator[Finding]:
    """A class that the model does not predict, or hardly; nothing is said of noise, or of a model that has learned nothing."""
    if report.run.random_inputs or report.initialised is True:
        return
    questions = list(
        {(found.sample, found.target.index): found for found in report.maps if not report.shots[found.sample].nonfinite}.values()
    )
    other = [found for found in questions if asked_for(found) and not predicted(found.target, report.shots[found.sample])]
    if other:
        message = "a class is explained that the model does not predict: its map shows what little speaks for it"
        yield _of_questions("not-predicted", report, other, message, "", "leave --target out to explain the top prediction")
    tops = [found for found in questions if (shot := report.shots[found.sample]).top and shot.top[0].index == found.target.index]
    unsure = [found for found in tops if found.target.probability is not None and found.target.probability < UNSURE]
    if unsure:
        message = "the model is unsure what this is, so its map explains a guess"
        remedy = "check the preprocessing (--size, --mean, --std), and whether the picture shows any of the classes"
        yield _of_questions("low-confidence", report, unsure, message, f"{UNSURE:g}", remedy)


def _of_questions(code: str, report: GradcamReport, found: Sequence[Heatmap], message: str, threshold: str, remedy: str) -> Finding:
    named = [f"{short(report.shots[each.sample].name)} ({label(each.target.name, each.target.index)})" for each in found[:NAMED]]
    probabilities = [each.target.probability or 0.0 for each in found]
    bounds = " to ".join(dict.fromkeys(number(value) for value in (min(probabilities), max(probabilities))))
    return Finding(code, Severity.INFO, "", f"{message}: {', '.join(named)}{_more(found)}", f"probability {bounds}", threshold, remedy)


# -- of methods ----------------------------------------------------------------------------------------------------------------------


def _of_methods(report: GradcamReport) -> Iterator[Finding]:
    yield from _moved(report)
    if report.initialised is not True:
        yield from _worth(report)
    yield from _blind(report)
    yield from _equal(report)


def _moved(report: GradcamReport) -> Iterator[Finding]:
    stuck = [row for row in report.sanity if unmoved(row)]
    if stuck:
        told = [f"{METHODS[row.method].title} {bounded(row.similarity[-1] or 0)}" for row in stuck]
        yield Finding(
            "weights-ignored",
            Severity.WARNING,
            _titles([row.method for row in stuck]),
            "its maps hardly change when all weights are drawn anew: they show the picture, and not what was learned",
            measured=f"rank correlation {listed(told)}",
            threshold=f"{INVARIANT:g} (either sign)",
            remedy="do not explain this model by it",
        )


def _worth(report: GradcamReport) -> Iterator[Finding]:
    worse = [row for row in report.methods if unfaithful(row.worth)]
    if worse:
        names = {"deletion": "deletion", "insertion": "insertion", "road": "ROAD"}
        told = [
            " ".join(
                [
                    METHODS[row.method].title,
                    *(f"{said} {number(value)}" for name, said in names.items() if (value := getattr(row.worth, name)) is not None),
                ]
            )
            for row in worse
        ]
        yield Finding(
            "unfaithful-maps",
            Severity.WARNING,
            _titles([row.method for row in worse]),
            "worse than chance: the pixels that its maps call important matter less to the class than the others",
            measured=listed(told),
            threshold="deletion below insertion, ROAD above 0",
            remedy="believe another method or layer; on few pictures, try more of them",
        )
    missing = [row for row in report.methods if misses(row)]
    if missing:
        yield Finding(
            "misses-boxes",
            Severity.WARNING,
            _titles([row.method for row in missing]),
            "no map points at its object: the greatest value lies outside of the boxes every time",
            measured=f"0 of {max(row.maps for row in missing):,}",
            threshold=f"1 hit, from {MANY} maps on",
            remedy="either the model looks elsewhere (at the background), or the boxes are of other pictures: look at some overlays",
        )


def _blind(report: GradcamReport) -> Iterator[Finding]:
    blind = list(dict.fromkeys(found.method for found in report.maps if asked_for(found) and not METHODS[found.method].of_class))
    if blind:
        remedy = "take gradcam, hirescam or layercam to ask for a class"
        yield Finding(
            "class-blind", Severity.INFO, _titles(blind), "it knows no class: its map is the same whatever --target says", remedy=remedy
        )


def _equal(report: GradcamReport) -> Iterator[Finding]:
    """Methods all of whose maps are those of another one; blank maps, which are all alike, do not count."""
    firsts: dict[str, set[str | None]] = {}
    for found in report.maps:
        if (found.greatest or 0) > 0:
            firsts.setdefault(found.method, set()).add(found.equals)
    groups: dict[str, list[str]] = {}
    for method, seen in firsts.items():
        first = next(iter(seen))
        if len(seen) == 1 and first is not None:
            groups.setdefault(first, [first]).append(method)
    if groups:
        told = "; ".join(" = ".join(METHODS[method].title for method in group) for group in groups.values())
        message = f"methods that give the same maps, as they must before a linear head on mean-pooled channels: {told}"
        yield Finding(
            "equal-maps", Severity.INFO, "", message, remedy="they are one opinion, not several; an earlier --layer sets them apart"
        )


def _titles(methods: Sequence[str]) -> str:
    return ", ".join(METHODS[method].title for method in methods)
