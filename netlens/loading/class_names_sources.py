"""Where names of classes may be found: in a checkpoint, on a model and its configuration, with published weights, as folders."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlens.loading.checkpoints.archive import Archive
from netlens.loading.words import one_line

if TYPE_CHECKING:
    from torch import nn

    from netlens.loading.named import NamedModel

KEYS = ("classes", "class_names", "names", "labels", "label_names", "categories", "class_to_idx", "idx_to_class", "id2label", "idx2label")
MOST = 100_000  # classes
CUT = 200  # characters at which an archive cuts a text off: the last name of a longer list is not to be trusted
WRAPPERS = ("_orig_mod", "module")  # of torch.compile and DataParallel
UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls classes that nobody named

Found = tuple[Sequence[str], str]  # names, and who says so


def guesses(archive: Archive | None, named: NamedModel | None, model: nn.Module | None, data: Sequence[str] | None) -> Iterator[Found]:
    """Yield what may be the names of the classes, the most certain first."""
    if archive is not None:
        yield from _of_checkpoint(archive)
    for part in _unwrapped(model):
        yield from _of_attributes(part)
        yield from _of_config(part)
        yield from _of_timm(part)
    if named is not None:
        yield from _of_torchvision(named)
    if data:
        yield data, "the classes of the data"


def names_in(value: object) -> list[str] | None:
    """Return the names that a value lists: a sequence, {index: name}, {name: index}, or a text with commas or JSON; None: it lists none."""
    if isinstance(value, str):
        return _in_text(value)
    if isinstance(value, (list, tuple)):
        return list(value) if value and all(isinstance(name, str) for name in value) else None
    if not isinstance(value, Mapping) or not value:
        return None
    by_index = {_index(key): _name(name) for key, name in value.items()}
    if None in by_index or None in by_index.values():
        by_index = {_index(index): name if isinstance(name, str) else None for name, index in value.items()}
    if None in by_index or None in by_index.values() or len(by_index) != len(value):
        return None
    return [by_index.get(index) or "" for index in range(1 + max(index for index in by_index if index is not None))]


def sub_folders(folder: Path) -> list[str]:
    """Return the classes of a folder as torchvision's ImageFolder orders them, less hidden ones."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _in_text(text: str) -> list[str] | None:
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return names_in(json.loads(text))
        except (ValueError, RecursionError):
            return None
    return [name.strip() for name in text.split(",")] if "," in text else None


def _index(key: object) -> int | None:
    if isinstance(key, bool) or not (isinstance(key, int) or (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 7)):
        return None
    return int(key) if 0 <= int(key) < MOST else None


def _name(value: object) -> str | None:
    """Return a name, or the last part of what Keras writes for ImageNet: ["n02123045", "tabby"]."""
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    return value if isinstance(value, str) else None


# --- The checkpoint


def _of_checkpoint(archive: Archive) -> Iterator[Found]:
    source = f"metadata of {one_line(archive.path.name)}"
    for key, text in archive.scalars.items():
        if key.rpartition(".")[2].lower() in KEYS and len(text) < CUT and (names := names_in(text)):
            yield names, source
    for value in _entries(archive):
        if names := names_in(value):
            yield names, source


def _entries(archive: Archive) -> Iterator[object]:
    """Yield what stands under one of the keys in the outermost dictionary of a checkpoint, or in a dictionary or an object in that."""
    from netlens.loading.checkpoints.modules import attributes

    value = _pickled(archive.path) if archive.kind in ("torch zip", "pickled module") else None
    outer = value if isinstance(value, dict) else {"": value}
    for inner in (outer, *outer.values()):
        entries = {**(inner if isinstance(inner, dict) else {}), **attributes(inner)}
        yield from (child for key, child in entries.items() if isinstance(key, str) and key.lower() in KEYS)


def _pickled(path: Path) -> object:
    """Return the value of a checkpoint, of which nothing is executed; its lists are not in the Archive."""
    from netlens.loading.checkpoints.files import OnDisk, in_memory
    from netlens.loading.checkpoints.legacy import nested_storage
    from netlens.loading.checkpoints.pickles import Reader, read_pickle
    from netlens.loading.checkpoints.zips import open_zip

    with OnDisk(path) as file:
        archive = open_zip(file, 0, file.size)
        if archive.root + "data.pkl" not in archive.members:
            return None
        return read_pickle(*in_memory(*archive.span(archive.root + "data.pkl")), Reader(nested_storage)).value


# --- The model


def _unwrapped(model: nn.Module | None) -> Iterator[nn.Module]:
    while model is not None:
        yield model
        model = next((model._modules[name] for name in WRAPPERS if name in model._modules), None)


def _of_attributes(model: nn.Module) -> Iterator[Found]:
    """Yield what the model keeps as an attribute, or Lightning's hyperparameters; no property is called."""
    kept = vars(model).get("_hparams")
    for key in (*KEYS, *map(str.upper, KEYS)):
        own = inspect.getattr_static(model, key, None)
        for value, where in ((own, "attribute"), (kept.get(key) if isinstance(kept, Mapping) else None, "hyperparameter")):
            if names := names_in(value):
                yield names, f"{where} {key!r} of {type(model).__name__}"


def _of_config(model: nn.Module) -> Iterator[Found]:
    """Yield what transformers' config says, unless it says LABEL_0, LABEL_1, ..."""
    names = names_in(getattr(vars(model).get("config"), "id2label", None))
    if names and not all(map(UNNAMED.fullmatch, names)):
        yield names, "id2label of the config"


def _of_timm(model: nn.Module) -> Iterator[Found]:
    """Yield the names in timm's pretrained_cfg, or those of the part of ImageNet that has as many classes."""
    config: Any = vars(model).get("pretrained_cfg")
    values: dict[str, Any] = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    labels = values.get("label_names")
    if labels:
        described = values.get("label_descriptions") or {}
        yield [str(described.get(name, name)) for name in labels], "timm's pretrained_cfg"
    elif data := sys.modules.get("timm.data"):  # which made the model
        subset = data.infer_imagenet_subset({"num_classes": values.get("num_classes")})
        if subset:
            yield data.ImageNetInfo(subset).label_descriptions(), f"timm's {subset}"


def _of_torchvision(named: NamedModel) -> Iterator[Found]:
    for entry in named.presets:
        if names := names_in(entry.meta.get("categories")):
            yield names, str(entry)
