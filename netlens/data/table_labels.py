"""Labels as a table writes them, and the class indices that they stand for."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from netlens.wording import share

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
EXACT = 2**53  # below it, a float holds every integer
WHOLE = re.compile(r"[+-]?\d+\.0*")  # 1.0, as pandas writes integers beside empty cells
MISSING = frozenset(("", "nan", "na", "n/a", "<na>", "null"))  # that pandas reads as nothing; "None" may well be a class
STRAY = 0.1  # share of labels, at most, that are of another type by mistake; more are meant
SPARSE = 10_000  # an index from here on, of ten times fewer classes, is an identifier


@dataclass
class Numbering:
    """Class indices of different texts, by place, and what is wrong with them."""

    names: tuple[str, ...]  # of classes, in the order of their indices
    index: np.ndarray  # (texts,) int32; -1: none
    faults: dict[str, dict[int, str]] = field(default_factory=dict)  # by code: the texts that are wrong, each with why
    whole: dict[str, str] = field(default_factory=dict)  # by code: what is wrong with all labels together
    groups: list[list[int]] = field(default_factory=list)  # texts that are spellings of one name, the most frequent first
    notes: list[str] = field(default_factory=list)


def is_missing(text: str) -> bool:
    """Tell whether a cell holds no label."""
    return text.strip().lower() in MISSING


def number_labels(texts: Sequence[str], counts: np.ndarray, classes: Sequence[str] | int | None) -> Numbering:
    """Turn labels into class indices: integers stand for themselves, names are numbered in their order, or in that of `classes`.

    Args:
        texts: different labels.
        counts: how many rows have each.
        classes: names in the order of their indices, or how many there are; None: unknown.
    """
    lost = {place: repr(text) if text else "an empty cell" for place, text in enumerate(texts) if is_missing(text)}
    given = [place for place in range(len(texts)) if place not in lost]
    found = _numbered([texts[place] for place in given], counts[given], classes)
    index = np.full(len(texts), -1, dtype=np.int32)
    index[given] = found.index
    faults = {code: {given[place]: why for place, why in wrong.items()} for code, wrong in found.faults.items()}
    if lost and found.names:
        faults["label-missing"] = lost
    groups = [[given[place] for place in group] for group in found.groups]
    return Numbering(found.names, index, faults, found.whole, groups, found.notes)


def _numbered(texts: list[str], counts: np.ndarray, classes: Sequence[str] | int | None) -> Numbering:
    if isinstance(classes, Sequence) and not set(classes).isdisjoint(texts):
        return _of_known(texts, classes)
    values = [_value(text) for text in texts]
    numeric = np.array([value is not None for value in values], dtype=bool)
    rows = int(counts.sum())
    numbers = int(counts[numeric].sum())
    if numbers and numbers >= rows / 2 and (numbers == rows or _words(texts, values)):
        broken = np.array([value is not None and value != int(value) for value in values], dtype=bool)
        if counts[broken].sum() > STRAY * rows:
            return _of_measurements(texts, broken)
        return _of_numbers(texts, values, counts, classes)
    return _of_names(texts, values, counts, classes)


def _value(text: str) -> float | None:
    """Return the number that a text is; None for a name."""
    value = float(text) if NUMBER.fullmatch(text.strip()) else np.inf
    return value if abs(value) < EXACT else None


def _words(texts: Sequence[str], values: Sequence[float | None]) -> bool:
    """Tell whether the names beside numbers are words: 0-9 and A-F are classes of one kind."""
    return any(value is None and len(text) > 1 for text, value in zip(texts, values, strict=True))


def _of_known(texts: Sequence[str], known: Sequence[str]) -> Numbering:
    places = {name: place for place, name in reversed(list(enumerate(known)))}
    outside = {place: f"{text!r} is none of the names of --classes" for place, text in enumerate(texts) if text not in places}
    index = np.array([places.get(text, -1) for text in texts], dtype=np.int32)
    return Numbering(tuple(known), index, {"label-range": outside} if outside else {})


def _of_measurements(texts: Sequence[str], broken: np.ndarray) -> Numbering:
    example = texts[int(broken.argmax())]
    note = f"labels such as {example} are no classes: they are not checked"
    return Numbering((), np.full(len(texts), -1, dtype=np.int32), notes=[note])


def _of_numbers(texts: Sequence[str], values: Sequence[float | None], counts: np.ndarray, classes: Sequence[str] | int | None) -> Numbering:
    asked = classes if isinstance(classes, int) else len(classes) if classes is not None else None
    wrong = {
        place: f"{text!r} among numbers" for place, text in enumerate(texts) if (value := values[place]) is None or value != int(value)
    }
    whole = {place: int(value) for place, value in enumerate(values) if value is not None and place not in wrong}
    most = max(whole.values(), default=-1)
    if asked is None and most >= SPARSE and most > 10 * len(whole):
        return _of_identifiers(texts, whole, wrong)
    size = most + 1 if asked is None else asked
    limits = "indices begin at 0" if asked is None else f"{asked} classes have the indices 0 to {asked - 1}"
    outside = {place: f"{value}, and {limits}" for place, value in whole.items() if not 0 <= value < size}
    index = np.array([-1 if place in wrong or place in outside else whole[place] for place in range(len(texts))], dtype=np.int32)
    names = tuple(map(str, classes)) if isinstance(classes, Sequence) else tuple(map(str, range(size)))
    found = Numbering(names, index, {code: each for code, each in (("label-type", wrong), ("label-range", outside)) if each})
    floats = sum(int(counts[place]) for place in whole if WHOLE.fullmatch(texts[place].strip()))
    if floats:
        part = share(floats, int(counts.sum()))
        found.whole["label-type"] = f"{part} are written as {next(t for t in texts if WHOLE.fullmatch(t.strip()))}, and no integers"
    if asked is None and whole and min(whole.values()) == 1:
        found.notes.append("labels begin at 1: a loss such as CrossEntropyLoss counts classes from 0")
    return found


def _of_identifiers(texts: Sequence[str], whole: dict[int, int], wrong: dict[int, str]) -> Numbering:
    order = sorted(set(whole.values()))
    places = {value: place for place, value in enumerate(order)}
    index = np.array([places[whole[place]] if place in whole else -1 for place in range(len(texts))], dtype=np.int32)
    note = f"labels go up to {order[-1]:,}, of {len(order)} classes: they are taken for names"
    return Numbering(tuple(map(str, order)), index, {"label-type": wrong} if wrong else {}, notes=[note])


def _of_names(texts: Sequence[str], values: Sequence[float | None], counts: np.ndarray, classes: Sequence[str] | int | None) -> Numbering:
    if isinstance(classes, Sequence):
        return _of_known(texts, classes)
    names = sorted(texts)
    places = {name: place for place, name in enumerate(names)}
    found = Numbering(tuple(names), np.array([places[text] for text in texts], dtype=np.int32), groups=_spellings(texts, counts))
    numeric = [place for place, value in enumerate(values) if value is not None]
    if numeric and counts[numeric].sum() <= STRAY * counts.sum() and _words(texts, values):
        found.faults["label-type"] = {place: f"{texts[place]!r} among names" for place in numeric}
    if classes is not None and len(names) > classes:
        rarest = sorted(range(len(texts)), key=lambda place: (int(counts[place]), texts[place]))[: len(names) - classes]
        found.faults["label-range"] = {
            place: f"{texts[place]!r}, of the rarest among {len(names):,} names, and --classes says {classes}" for place in sorted(rarest)
        }
    return found


def _spellings(texts: Sequence[str], counts: np.ndarray) -> list[list[int]]:
    """Return the groups of texts that differ only in case, blanks, separators or how Unicode writes an accent; "a" and "A" are letters."""
    groups = defaultdict(list)
    for place, text in enumerate(texts):
        plain = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", text).casefold()).strip()
        groups[plain].append(place)
    return [sorted(group, key=lambda place: -int(counts[place])) for plain, group in groups.items() if len(group) > 1 < len(plain)]
