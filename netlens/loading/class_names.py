"""What a model's classes are called, and which class a user means."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from netlens.errors import FileProblem, UsageError
from netlens.loading.class_names_sources import guesses, names_in, sub_folders
from netlens.loading.suggest import closest_names
from netlens.loading.words import cause, listed, one_line, user_path

if TYPE_CHECKING:
    from torch import nn

    from netlens.loading.checkpoints.archive import Archive
    from netlens.loading.named import NamedModel

LARGEST = 16 << 20  # bytes of a file of names; ImageNet-21k has 1 MB
LONGEST = 120  # characters of a name
LISTED = 8  # classes in a message
FORMS = "a name on each line, a JSON list, a JSON object {index: name} or {name: index}, or a folder with a subfolder for each class"
EXACT = "="  # before a name that could be read as a number or as something else
SYNSET = re.compile(r"n\d{8}[\s,]+")  # WordNet's number of a class of ImageNet, before its name
NUMBERED = re.compile(r"\s*(\d+)\s*[:,\t ]\s*(.+)")


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The names of all classes, by index; harmless in a terminal."""

    names: tuple[str, ...]  # "" where there is none
    source: str  # "ResNet18_Weights.IMAGENET1K_V1", "labels.txt"

    def __len__(self) -> int:
        return len(self.names)

    def shown(self, index: int) -> str | None:
        """Return the name of a class without its synonyms, unless another class would be called the same; None: it has none."""
        return _without_synonyms(self.names)[index] or None if 0 <= index < len(self.names) else None


def class_names(
    classes: int | None,
    *,
    given: ClassNames | None = None,
    archive: Archive | None = None,
    named: NamedModel | None = None,
    model: nn.Module | None = None,
    data: Sequence[str] | None = None,
) -> ClassNames | None:
    """Return what the classes are called, from the first source that has as many names as the model has classes; None: not known.

    The sources: the user's file, the checkpoint, the model's own attributes and its configuration, the weights published with the
    architecture, the folders of the data.

    Args:
        classes: that the model tells apart; None where its output does not say.
        given: of `--names`, from `read_names`.
        archive: the checkpoint whose weights are loaded.
        named: where the model comes from.
        model: on any device; it is not run.
        data: the classes of the data set that is looked at.

    Raises:
        UsageError: the user's names are not as many as the classes.
    """
    if given is not None:
        if classes not in (None, len(given)):
            what = f"{given.source} has {len(given):,} names, and the model has {classes:,} classes"
            raise UsageError(what, hint="give one name for each class, in the order of the model's outputs")
        return given
    for names, source in guesses(archive, named, model, data):
        if len(names) > 1 and classes in (None, len(names)):
            return ClassNames(tuple(one_line(name, LONGEST) for name in names), one_line(source))
    return None


def index_of(asked: str, names: ClassNames | None, classes: int | None) -> int:
    """Return the class that a user means by its index, its name, one of its synonyms, or a part of these that no other class has.

    A number is always an index; "=3" is the class that is called 3.

    Raises:
        UsageError: there is no such class, or there are several; the hint lists those that are near.
    """
    text = asked.strip()
    if re.fullmatch(r"[-+]?\d+", text):
        return _checked(int(text), classes if names is None else max(classes or 0, len(names)))
    if names is None:
        number = f"a number from 0 to {classes - 1}" if classes else "a number"
        raise UsageError(
            f"--target {one_line(asked)!r}: the names of the classes are not known", hint=f"write {number}, or add --names FILE"
        )
    found = _matches(text, names.names)
    if len(found) == 1:
        return found[0]
    if found:
        several = listed((f"{names.names[index]} ({index})" for index in found), LISTED)
        hint = f"write more of its name, or its number: --target {found[0]}"
        raise UsageError(f"--target {one_line(asked)!r} may be any of {len(found)} classes: {several}", hint=hint)
    near = closest_names(text.removeprefix(EXACT), [name for name in names.names if name])
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {len(names):,}: {listed(names.names, 4)}"
    raise UsageError(f"no class is called {one_line(asked)!r} ({names.source})", hint=hint)


def read_names(path: str | Path) -> ClassNames:
    """Read the names that a user gives: `FORMS`. torch is not imported.

    Raises:
        FileProblem: it cannot be read, or holds no names.
    """
    path = user_path(path)
    shown = one_line(path)
    try:
        names = sub_folders(path) if path.is_dir() else _of_file(path)
    except OSError as error:
        what = f"--names {shown} cannot be read: {error.strerror or error}"
        raise FileProblem(what, hint="check the path and its permissions") from error
    if not any(names):
        raise FileProblem(f"--names {shown} holds no names", hint=f"give {FORMS}")
    return ClassNames(tuple(one_line(name, LONGEST) for name in names), one_line(path.name) or shown)


@lru_cache(maxsize=8)
def _without_synonyms(names: tuple[str, ...]) -> tuple[str, ...]:
    firsts = [name.partition(",")[0] for name in names]
    counts = Counter(firsts)
    return tuple(first if counts[first] == 1 else name for first, name in zip(firsts, names, strict=True))


def _of_file(path: Path) -> Sequence[str]:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise FileProblem(f"--names {one_line(path)} is larger than a list of names can be", hint=f"give {FORMS}")
    try:
        text = content.decode("utf-8-sig")
        return _of_json(json.loads(text), path) if path.suffix.lower() == ".json" else _of_lines(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise FileProblem(f"--names {one_line(path)} cannot be read: {cause(error)}", hint=f"give {FORMS}") from error


def _of_json(value: object, path: Path) -> Sequence[str]:
    names = names_in(value)
    if names is None:
        raise FileProblem(f"--names {one_line(path)} is no list of names", hint=f"give {FORMS}")
    return names


def _of_lines(text: str) -> list[str]:
    """Return a name for each line, without the numbers that count the lines from 0, and without those of WordNet."""
    lines = text.rstrip().splitlines()
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if all(found and int(found[1]) == index for index, found in enumerate(numbered)):
        lines = [found[2] for found in numbered if found]
    return [SYNSET.sub("", line.strip(), count=1) if SYNSET.match(line.strip()) else line.strip() for line in lines]


def _checked(index: int, classes: int | None) -> int:
    if index < 0 or (classes is not None and index >= classes):
        what = f"the model has {classes:,} classes" if classes else "indices begin at 0"
        hint = f"indices go from 0 to {classes - 1}" if classes else "write it without a sign"
        raise UsageError(f"there is no class {index}: {what}", hint=hint)
    return index


def _matches(asked: str, names: Sequence[str]) -> list[int]:
    """Return the classes that are meant by the strictest rule that finds some: same text, same words, these words, these letters."""
    if asked.startswith(EXACT):
        return [index for index, name in enumerate(names) if name == asked.removeprefix(EXACT)]
    wanted = _words(asked)
    if not wanted:
        return []
    words = [_words(name) for name in names]
    rules: tuple[Callable[[int], bool], ...] = (
        lambda index: names[index] == asked,
        lambda index: wanted in (words[index], *map(_words, names[index].split(","))),
        lambda index: f" {wanted} " in f" {words[index]} ",
        lambda index: wanted.replace(" ", "") in words[index].replace(" ", ""),
    )
    found = ([index for index in range(len(names)) if rule(index)] for rule in rules)
    return next(filter(None, found), [])


def _words(name: str) -> str:
    """Return the words in small letters, with one space between them."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
