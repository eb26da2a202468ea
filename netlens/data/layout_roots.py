"""The folders that a user names: whether they are there, and which splits are in one of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from netlens.data.tree import Folder, joined, read_folder
from netlens.data.tree_kinds import IMAGE_FOLDER, is_hidden, suffix_of
from netlens.errors import FileProblem, NetlensError, UsageError
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import one_line, user_path
from netlens.wording import counted, listed

# "train", "Validation", COCO's "val2017", "test_images"
SPLIT = re.compile(r"(?:(train|training|trn)|(val|valid|validation|dev)|(test|testing|tst))(?:[-_ ]?(?:\d{4}|set|data|images|imgs))?")
SPLITS = ("train", "val", "test")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
PACKED = (".tar", ".parquet", ".arrow", ".tfrecord", ".mdb", ".h5", ".hdf5", ".npy", ".npz", ".pt", ".pkl", ".bin", ".mat")
TABLES = (".csv", ".tsv")
PERMISSIONS = "check the path and its permissions"
LOADER = "name the Dataset or DataLoader that reads them: netlens check-data package.module:loader"

Roots = list[tuple[str, str]]


def split_of(text: str) -> str | None:
    """Return "train", "val" or "test" where a text is a name of one of them."""
    found = SPLIT.fullmatch(text.strip().lower())
    return None if found is None else next(name for name, part in zip(SPLITS, found.groups(), strict=True) if part)


def checked_roots(roots: Sequence[tuple[str, str]]) -> Roots:
    """Return the roots without a slash at the end, and with `~` as the user's home.

    Raises:
        NetlensError: one is no folder, or lies in another, so that its pictures would be in two splits.
    """
    checked = [(name, existing_folder(root)) for name, root in roots]
    real = [(root, Path(root).resolve()) for _, root in checked]
    for place, (root, path) in enumerate(real):
        for other, outer in real[:place] + real[place + 1 :]:
            if outer == path:
                what = f"{one_line(root)} and {one_line(other)} are the same folder: its pictures would be in both splits"
                raise UsageError(what, hint="name another folder for each split")
            if outer in path.parents:
                what = f"{one_line(root)} lies in {one_line(other)}: its pictures would be in both splits"
                raise UsageError(what, hint=f"name a folder for each split, for example {joined(one_line(other), 'train')}")
    return checked


def find_splits(name: str, root: str) -> tuple[Roots, list[str]]:
    """Return the splits in a folder, in its `images` or in its only folder, and what to say about it; or the folder itself.

    Raises:
        FileProblem: it cannot be read.
    """
    top = _read(root)
    visible = [folder for folder in top.folders if not is_hidden(folder)]
    inner = [folder for folder in visible if folder.lower() == "images" or len(visible) == 1]
    for folder in (top, *(_read(top.path + one) for one in inner)):
        if splits := _splits_in(folder):
            return splits, _said(folder, splits)
    return [(name, root)], []


def no_pictures(root: str, others: Mapping[str, int]) -> NetlensError:
    """Return the error for a folder without pictures; `others` are its files, counted by suffix."""
    if not others:
        return FileProblem(f"{one_line(root)} holds no files", hint="name the folder that the pictures are in")
    counts = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    files = listed([f"{count:,} {one_line(suffix) or 'without suffix'}" for suffix, count in counts])
    most = counts[0][0]
    hint = f"pictures end in {', '.join(sorted(IMAGE_FOLDER))}"
    if most in PACKED:
        hint = f"if its {most} files hold the pictures, {LOADER}"
    elif most in ARCHIVES:
        hint = "unpack its archives first"
    elif most in TABLES:
        hint = "for a table of labels: netlens check-data labels.csv --images FOLDER"
    return FileProblem(f"{one_line(root)} holds no pictures, but other files: {files}", hint=hint)


def existing_folder(root: str) -> str:
    """Return a folder without a slash at the end, and with `~` as the user's home.

    Raises:
        FileProblem: there is none, or it cannot be looked at.
    """
    path, near = user_path(root), []
    try:
        if root and path.is_dir():
            typed = str(path) if root.startswith("~") else root
            return typed.rstrip("/") or "/"
        if path.is_file():
            raise _file(root)
        near = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir())
    except PermissionError as error:
        raise FileProblem(f"{one_line(error.filename)} cannot be read: {error.strerror}", hint=PERMISSIONS) from error
    except (OSError, ValueError):  # nor is there the folder above it; a name that no file can have
        pass
    raise FileProblem(f"there is no folder {one_line(root)!r}", hint=did_you_mean(path.name, near, "check the path"))


def _file(root: str) -> FileProblem:
    suffix, shown = suffix_of(root), one_line(root)
    hint = f"name the folder that it is in: {one_line(Path(root).parent)}"
    if suffix in ARCHIVES:
        hint = "unpack it, and name the folder"
    elif suffix in TABLES:
        hint = f"netlens check-data {shown} --images FOLDER"
    elif suffix in PACKED:
        hint = f"to check pictures in {suffix} files, {LOADER}"
    return FileProblem(f"{shown} is a file, and no folder of pictures", hint=hint)


def _read(path: str) -> Folder:
    try:
        return read_folder(path)
    except OSError as error:
        raise FileProblem(f"{one_line(path)} cannot be read: {error.strerror}", hint=PERMISSIONS) from error


def _splits_in(folder: Folder) -> Roots:
    """Return the splits among a folder's folders: two at least, or one that is all there is, or that holds folders and no pictures.

    A class may be called "train".
    """
    names = defaultdict(list)
    for name in folder.folders:
        if kind := split_of(name):
            names[kind].append(name)
    alone = len([name for name in folder.folders if not is_hidden(name)]) == 1 and not _pictures(folder)
    if len(names) < 2 and not (names and alone) and not any(_holds_classes(folder.path + name) for name in names["train"]):
        return []
    return [(kind if len(names[kind]) == 1 else name, folder.path + name) for kind in SPLITS for name in names[kind]]


def _holds_classes(path: str) -> bool:
    """Tell whether a folder looks like a training set, and not like a class that is called so."""
    folder = _read(path)
    return len(folder.folders) > 1 and not _pictures(folder)


def _said(folder: Folder, splits: Roots) -> list[str]:
    taken = {root for _, root in splits}
    rest = [folder.path + name for name in folder.folders if folder.path + name not in taken and not is_hidden(name)]
    count = _pictures(folder)
    left = [*map(one_line, rest), *([f"{counted(count, 'picture')} in {one_line(folder.path.rstrip('/'))} itself"] if count else [])]
    found = f"splits were found in {one_line(folder.path.rstrip('/'))}: {', '.join(one_line(name) for name, _ in splits)}"
    return [found, *([f"not looked at: {listed(left)}"] if left else [])]


def _pictures(folder: Folder) -> int:
    return sum(suffix_of(name) in IMAGE_FOLDER for name in folder.files)
