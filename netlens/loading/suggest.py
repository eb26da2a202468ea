"""Did you mean ...? What people mistype is mostly a separator or an ending, and seldom a letter, so difflib comes last."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from netlens.errors import UsageError

SIMILAR = 0.75  # difflib's ratio; below it, suggestions are further from the name than they help
SHORTEST = 2  # letters that a part of a name must have to mean something


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` most likely stands for, or None."""
    return next(iter(closest_names(name, known, most=1)), None)


def closest_names(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return what `name` may stand for, best first, by the first of three rules that finds something.

    1. Equal but for case and separators: `ResNet-18` is `resnet18`.
    2. One is the beginning of the other, or part of it: `vit_b` is `vit_b_16`, and `resnet50_v2` is `resnet50`.
    3. Nearly equal letters: `resnt18` is `resnet18`.
    """
    wanted = _plain(name)
    plain = {candidate: _plain(candidate) for candidate in known}
    found = [candidate for candidate, letters in plain.items() if letters == wanted]
    return (found or _overlapping(wanted, plain) or _similar(wanted, plain, most))[:most]


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the hint "did you mean 'resnet18'?", or `otherwise` where nothing is close."""
    close = closest(name, known)
    return otherwise if close is None else f"did you mean {close!r}?"


def check_choice(option: str, value: str | None, known: Sequence[str]) -> None:
    """Refuse the value of an option that is not one of `known`; None is none.

    Raises:
        UsageError: with the closest of them.
    """
    if value is not None and value not in known:
        hint = did_you_mean(value, known, f"for example {option} {known[0]}")
        raise UsageError(f"{option} {value!r} is not one of {', '.join(known)}", hint=hint)


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())


def _overlapping(wanted: str, plain: dict[str, str]) -> list[str]:
    if len(wanted) < SHORTEST:
        return []
    longer = [candidate for candidate, letters in plain.items() if wanted in letters]
    longer.sort(key=lambda candidate: (not plain[candidate].startswith(wanted), len(plain[candidate])))
    # A known name inside a longer one is a guess only where it is half of it: "fc" does not explain "fcos_resnet50".
    shorter = [candidate for candidate, letters in plain.items() if letters in wanted and 2 * len(letters) >= len(wanted)]
    shorter.sort(key=lambda candidate: (not wanted.startswith(plain[candidate]), -len(plain[candidate])))
    return longer or shorter


def _similar(wanted: str, plain: dict[str, str], most: int) -> list[str]:
    letters = get_close_matches(wanted, plain.values(), n=most, cutoff=SIMILAR)
    return [candidate for best in dict.fromkeys(letters) for candidate in plain if plain[candidate] == best]
