"""Folders written by torch.distributed.checkpoint: their `.metadata` is a pickle that torch runs, and that is only read here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from netlens.errors import FileProblem
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.describe import describe
from netlens.loading.checkpoints.dtypes import ITEMSIZES, strides_of
from netlens.loading.checkpoints.files import OnDisk, in_memory
from netlens.loading.checkpoints.machine import Damaged, Patience, hashable
from netlens.loading.checkpoints.modules import attributes
from netlens.loading.checkpoints.pickles import Pickled, read_pickle
from netlens.loading.checkpoints.rebuild import NotAsExpected, dimensions
from netlens.loading.checkpoints.stubs import Global, Storage, Stub, Tensor
from netlens.loading.checkpoints.zips import open_zip, place_storages
from netlens.loading.words import one_line

EXPECTED = "torch.distributed.checkpoint."
LARGEST = 256 << 20  # bytes of .metadata
MOST_OPENED = 3_000  # pieces that are looked into
HINT = "save it again, or look for a complete copy: `.metadata` is written last"


@dataclass(frozen=True, slots=True)
class Item:
    """Where one piece of an entry is stored."""

    file: str
    offset: int
    length: int


def read_distributed(path: Path) -> Archive:
    """Read a folder with a `.metadata`.

    Raises:
        FileProblem: it is damaged.
    """
    pickled = _metadata(path)
    inside = attributes(pickled.value)
    entries = inside.get("state_dict_metadata")
    if not isinstance(entries, dict):
        raise FileProblem(f"the .metadata of {str(path)!r} is not what torch.distributed.checkpoint writes", hint=HINT)
    folder = Folder(path, _items(inside.get("storage_data")))
    nested = inside.get("planner_data")
    pickled.value = folder.tree(entries, nested if isinstance(nested, dict) else {})
    pickled.globals = {
        name: one
        for name, one in (pickled.globals | folder.globals).items()
        if not name.startswith(EXPECTED) and name != "pathlib.PosixPath"
    }
    found = describe(pickled)
    return Archive(
        path,
        "distributed",
        sum(part.stat().st_size for part in folder.present),
        found.groups,
        found.scalars,
        found.contents,
        found.foreign,
        shards=folder.present,
        runs_code=found.runs_code,
        oddities=(*found.oddities, *folder.oddities),
        complete=found.complete,
    )


def _metadata(path: Path) -> Pickled:
    name = repr(str(path))
    try:
        with OnDisk(path / ".metadata") as file:
            if file.size > LARGEST:
                raise FileProblem(f"the .metadata of {name} has {file.size:,} bytes, more than netlens reads", hint=HINT)
            return read_pickle(*in_memory(file, 0, file.size))
    except Damaged as error:
        raise FileProblem(f"the .metadata of {name} is damaged: {str(error) or 'it ends too early'}", hint=HINT) from error
    except OSError as error:
        raise FileProblem(f"the .metadata of {name} cannot be read: {error.strerror}", hint="check its permissions") from error


def _is_bare(name: str) -> bool:
    return bool(name) and name == Path(name).name and name not in (".", "..") and "\\" not in name and "\0" not in name


def _items(places: object) -> dict[str, list[Item]]:
    """Return the stored pieces by the entry's name."""
    found: dict[str, list[Item]] = {}
    for index, info in places.items() if isinstance(places, dict) else ():
        where, what = attributes(getattr(index, "value", index)), attributes(info)
        name, file, offset, length = where.get("fqn"), what.get("relative_path"), what.get("offset"), what.get("length")
        if isinstance(name, str) and isinstance(file, str) and type(offset) is int and type(length) is int and min(offset, length) >= 0:
            found.setdefault(name, []).append(Item(file, offset, length))
    return found


class Folder:
    """The `.distcp` files: every piece in them is a file of torch.save by itself."""

    def __init__(self, path: Path, items: dict[str, list[Item]]) -> None:
        self.items = items
        self.globals: dict[str, Global] = {}
        self.oddities: list[str] = []
        self.opened, self.patience = 0, Patience(0.7)
        names = sorted({item.file for pieces in items.values() for item in pieces})
        self.files = {name: path / name for name in names if _is_bare(name) and (path / name).is_file()}
        missing = [name for name in names if name not in self.files]
        self.oddities += [f"the file {one_line(name, 80)} is missing" for name in missing[:5]]

    @property
    def present(self) -> tuple[Path, ...]:
        """The files that are there."""
        return tuple(self.files.values())

    def tree(self, entries: dict[object, object], paths: dict[object, object]) -> dict[object, object]:
        """Return the dictionary that was saved, as far as it can be told."""
        root: dict[object, object] = {}
        for name, entry in entries.items():
            if not isinstance(name, str) or not isinstance(entry, Stub):
                continue
            path = paths.get(name)
            keys = path if isinstance(path, tuple) and 0 < len(path) < 30 and all(isinstance(key, str | int) for key in path) else (name,)
            level = root
            for key in keys[:-1]:
                below = level.setdefault(hashable(key), {})
                level = below if isinstance(below, dict) else {}
            level[hashable(keys[-1])] = self._entry(name, entry)
        return root

    def _entry(self, name: str, entry: Stub) -> object:
        pieces = self.items.get(name, [])
        content = self._content(name, pieces[0]) if len(pieces) == 1 else None
        if not entry.dotted.endswith(".TensorStorageMetadata"):
            return content
        tensor = _described(entry)
        whole = isinstance(content, Tensor) and (content.shape, content.stride, content.dtype) == (
            tensor.shape,
            tensor.stride,
            tensor.dtype,
        )
        if whole:
            return content
        tensor.storage = Storage(name, tensor.dtype, _count(tensor.shape), "", ITEMSIZES.get(tensor.dtype, 0))
        tensor.storage.problem = "" if pieces and all(piece.file in self.files for piece in pieces) else "no file holds it"
        return tensor

    def _content(self, name: str, item: Item) -> object:
        """Read one piece; None where that is not possible."""
        if item.file not in self.files:
            return None
        self.opened += 1
        if self.opened > MOST_OPENED:
            if self.opened == MOST_OPENED + 1:
                self.oddities.append(f"only the first {MOST_OPENED:,} entries were looked into")
            return None
        try:
            self.patience.check()
            with OnDisk(self.files[item.file]) as file:
                archive = open_zip(file, item.offset, min(file.size, item.offset + item.length))
                pickled = read_pickle(*in_memory(*archive.span(archive.root + "data.pkl")), steps=100_000)
                place_storages(archive, archive.root + "data/", pickled.storages)
        except (Damaged, KeyError, OSError):
            return None
        for storage in pickled.storages.values():
            storage.file, storage.key = item.file, f"{name}/{storage.key}"
        self.globals |= pickled.globals
        return pickled.value


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _described(entry: Stub) -> Tensor:
    """Describe a tensor by its metadata alone."""
    inside = attributes(entry)
    properties = inside.get("properties")
    state = properties.state if isinstance(properties, Stub) else None
    dtype = state[0] if isinstance(state, tuple) and state else attributes(properties).get("dtype")
    try:
        shape = dimensions(inside.get("size"))
    except NotAsExpected:
        return Tensor((), (), "float32", why="its size makes no sense")
    return Tensor(shape, strides_of(shape), dtype.name if isinstance(dtype, Global) and dtype.module == "torch" else "unknown")
