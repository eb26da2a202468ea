"""Which layers are meant: by name, index or type, in one way for all lenses. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from netlens.errors import LayerNotFound

_INDEX = re.compile(r"-?\d+")
_RANGE = re.compile(r"(-?\d+)?:(-?\d+)?")


def select(patterns: Sequence[str], names: Sequence[str], types: Sequence[str]) -> list[int]:
    """Return the indices of the layers that any of the patterns means, in the order of the model.

    A pattern is read in the first of these ways that finds something: an index ("3"; "-1" is the last) or a range of them ("3:7", 7 not
    included); a name; the end of names ("conv1" is also "layer1.0.conv1") or their beginning ("layer4"), up to a dot; a glob of names
    ("layer1.*"); a type, or a glob of types ("Conv*"), upper and lower case told apart.

    Args:
        patterns: what the user asks for.
        names: of all layers, in the order of the model.
        types: of the same layers: "Conv2d".

    Raises:
        LayerNotFound: a pattern means no layer.
    """
    found: set[int] = set()
    for pattern in patterns:
        found.update(_meant(pattern, names, types))
    return sorted(found)


def _meant(pattern: str, names: Sequence[str], types: Sequence[str]) -> list[int]:
    if _INDEX.fullmatch(pattern) or (_RANGE.fullmatch(pattern) and pattern != ":"):
        return _numbered(pattern, names)
    for way in _ways(pattern, names, types):
        if way:
            return way
    raise LayerNotFound(pattern, names, types)


def _numbered(pattern: str, names: Sequence[str]) -> list[int]:
    every = range(len(names))
    try:
        found = [every[int(pattern)]] if ":" not in pattern else every[slice(*(int(end) if end else None for end in pattern.split(":")))]
    except IndexError:
        found = []
    if not found:
        raise LayerNotFound(pattern, names)
    return list(found)


def _ways(pattern: str, names: Sequence[str], types: Sequence[str]) -> Iterator[list[int]]:
    yield [index for index, name in enumerate(names) if name == pattern]
    yield [index for index, name in enumerate(names) if name.endswith(f".{pattern}")]
    yield [index for index, name in enumerate(names) if name.startswith(f"{pattern}.")]
    yield [index for index, name in enumerate(names) if fnmatchcase(name, pattern)]
    yield [index for index, kind in enumerate(types) if fnmatchcase(kind, pattern)]
