"""Folders of pictures: their splits, and their classes with the indices that ImageFolder gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from netlens.data.layout_roots import checked_roots, find_splits, no_pictures
from netlens.data.layout_split import SplitReader
from netlens.data.listing import Listing, Paths
from netlens.data.tree import Oddities
from netlens.loading.words import one_line


def list_folders(roots: Sequence[tuple[str, str]]) -> Listing:
    """List the pictures of folders: of ImageFolder's layout, where each folder is a class, or flat.

    Classes have the indices that ImageFolder gives them, hidden and empty folders counted, and pictures come in its order. Those that it
    leaves out (.gif, and others) are listed as well, and those beside the class folders, with the label -1.

    Args:
        roots: name and path of each split; of a single one, folders named train, val and test are taken as its splits.

    Raises:
        NetlensError: a root cannot be read, lies in another, or holds no pictures.
    """
    named = checked_roots(roots)
    found, notes = find_splits(*named[0]) if len(named) == 1 else (named, [])
    odd = Oddities()
    readers = [SplitReader(name, root, odd) for name, root in found]
    paths = Paths(path for reader in readers for path in reader.paths())
    empty = [reader for reader in readers if not reader.labels]
    if empty and (found == named or len(empty) == len(readers)):
        root = empty[0].root if found == named else named[0][1]
        raise no_pictures(root, sum((reader.others for reader in empty), Counter()))
    full = [reader for reader in readers if reader.labels]
    splits = tuple(reader.split() for reader in full)
    unlabelled = [split for split in splits if not split.classes and any(other.classes for other in splits)]
    return Listing(
        splits=splits,
        paths=paths,
        split=np.repeat(np.arange(len(full), dtype=np.uint8), [len(reader.labels) for reader in full]),
        label=np.concatenate([np.frombuffer(reader.labels, dtype=np.int32) for reader in full]),
        oddities=dict(odd),
        notes=(
            *notes,
            *(f"{one_line(reader.root)} holds no pictures" for reader in empty),
            *(note for reader in full for note in reader.notes),
            *(f"{one_line(split.root)} has no folders of classes: its pictures have no labels" for split in unlabelled),
        ),
    )
