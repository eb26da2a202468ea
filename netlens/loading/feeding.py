"""What a model is run on, batch by batch: pictures, saved or random tensors, or a data set. Never more than one batch is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.loading.datasets import open_data, parse_data
from netlens.loading.images import open_image
from netlens.loading.input_specs import InputSpec
from netlens.loading.inputs import default_inputs, make_inputs
from netlens.loading.named import NamedModel
from netlens.loading.preprocessing import Geometry, Preprocessing, load_batch
from netlens.loading.saved_tensors import read_tensors
from netlens.loading.words import listed, one_line
from netlens.probing.counting import samples_in
from netlens.probing.leaves import leaves, map_tensors

RANDOM_SAMPLES = 8  # where nobody says how many: enough to tell samples apart


@dataclass(frozen=True)
class Batch:
    """One call of the model, on the CPU."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    paths: tuple[Path, ...] = ()  # of the pictures
    geometries: tuple[Geometry, ...] = ()  # where each input lies on its picture
    name: str = ""  # of a single sample that is made of several pictures: a clip
    labels: Any = None  # what the model shall answer, where the samples have it

    @property
    def size(self) -> int:
        """The number of samples."""
        return samples_in((self.args, self.kwargs))


@dataclass(frozen=True)
class Samples:
    """All that the model is run on."""

    name: str  # for the report: "cat.png and 3 more"
    batches: Callable[[], Iterator[Batch]]  # from the start, each time
    count: int | None  # samples; None: not known before the end
    random: bool = False  # noise
    preprocessing: Preprocessing | None = None  # of pictures, where netlens prepares them
    notes: Callable[[], tuple[str, ...]] = tuple  # on the samples; complete when all have been read


def of_pictures(paths: Sequence[Path], preprocessing: Preprocessing, batch_size: int, *, mixed: bool = False) -> Samples:
    """Pictures, prepared when they are needed.

    Args:
        paths: of the files.
        preprocessing: how they become inputs.
        batch_size: at most so many in one call.
        mixed: where inputs differ in size, begin another batch; else they may not.
    """
    notes = dict.fromkeys([f"nobody said the {listed(preprocessing.assumed)} of the input: assumed"] if preprocessing.assumed else [])

    def batches() -> Iterator[Batch]:
        for part in _of_one_size(paths, preprocessing, batch_size) if mixed else _parts(paths, batch_size):
            batch = load_batch(part, preprocessing)
            notes.update(dict.fromkeys(batch.notes))
            yield Batch((batch.tensor,), {}, part, batch.geometries)

    name = listed((path.name for path in paths), most=3)
    return Samples(name, batches, len(paths), preprocessing=preprocessing, notes=lambda: tuple(notes))


def _parts(paths: Sequence[Path], most: int) -> Iterator[tuple[Path, ...]]:
    for start in range(0, len(paths), most):
        yield tuple(paths[start : start + most])


def _of_one_size(paths: Sequence[Path], preprocessing: Preprocessing, most: int) -> Iterator[tuple[Path, ...]]:
    """Yield neighbours whose inputs have one size; only where the framing crops nothing, sizes are looked up."""
    if preprocessing.framing.crop is not None:
        yield from _parts(paths, most)
        return
    for _, run in groupby(paths, key=lambda path: preprocessing.framing.resized(*open_image(path).image.size[::-1])):
        yield from _parts(tuple(run), most)


def of_inputs(texts: Sequence[InputSpec | Path], model: nn.Module, batch_size: int) -> Samples:
    """What `--input` says: shapes for random numbers, or files of saved tensors; each one argument of the model.

    Raises:
        InputError, FileProblem: they cannot be made or read, or do not fit together.
    """
    files = [text for text in texts if isinstance(text, Path)]
    specs = [text for text in texts if isinstance(text, InputSpec)]
    if files and specs:
        raise InputError("--input names both a file and a shape", hint="save the other tensor as well, or put all into one file as a dict")
    notes: tuple[str, ...] = ()
    if files:
        args, kwargs = _saved(files)
        name = f"--input {listed((one_line(path) for path in files), most=3)}"
    else:
        args, kwargs, notes = make_inputs(specs, model, torch.device("cpu"))
        name = f"--input {' '.join(map(str, specs))}"
    return _split(Samples(name, lambda: iter(()), None, random=not files, notes=lambda: notes), Batch(args, kwargs), batch_size)


def of_nothing(named: NamedModel, model: nn.Module, batch_size: int, count: int = RANDOM_SAMPLES) -> Samples:
    """Random numbers of the shape that the model itself tells, `count` samples where that shape has one.

    Raises:
        InputError: nothing tells.
    """
    candidate = default_inputs(named, model)[0]
    specs = [_several(spec, count) for spec in candidate.specs]
    args, kwargs, notes = make_inputs(specs, model, torch.device("cpu"))
    name = f"random numbers of shape {' '.join(map(str, specs))} ({candidate.source})"
    return _split(Samples(name, lambda: iter(()), None, random=True, notes=lambda: notes), Batch(args, kwargs), batch_size)


def of_data(text: str, model: nn.Module, preprocessing: Preprocessing | None, batch_size: int, limit: int | None) -> Samples:
    """A folder of pictures, a Dataset or a DataLoader, one batch after the other.

    Args:
        text: what `--data` says.
        model: what will be called.
        preprocessing: for pictures that come without a transform; None where the model takes none.
        batch_size: samples in one call.
        limit: at most so many samples.

    Raises:
        NetlensError: there is no such thing, or it gives no inputs.
    """
    data = open_data(text)

    def batches() -> Iterator[Batch]:
        for batch in data.batches(batch_size, preprocessing, limit):
            args, kwargs = batch.arguments_for(model)
            yield Batch(args, kwargs, labels=batch.answers)

    count = data.length if limit is None or data.length is None else min(limit, data.length)
    prepared = preprocessing if isinstance(parse_data(text), Path) else None
    return Samples(f"--data {data.name}", batches, count, preprocessing=prepared, notes=lambda: data.notes)


def _saved(files: Sequence[Path]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: list[Tensor] = []
    kwargs: dict[str, Any] = {}
    for file in files:
        found = read_tensors(file)
        if isinstance(found, dict):
            kwargs |= found
        else:
            args += [found] if isinstance(found, Tensor) else list(found)
    return tuple(args), kwargs


def _several(spec: InputSpec, count: int) -> InputSpec:
    """Ask for several samples where a default has one."""
    return replace(spec, shape=(count, *spec.shape[1:])) if len(spec.shape) > 1 and spec.shape[0] == 1 else spec


def _split(samples: Samples, whole: Batch, batch_size: int) -> Samples:
    """Cut tensors of equal first dimension into batches; anything else is one batch.

    Raises:
        InputError: there is no sample.
    """
    sizes = {tensor.shape[:1] for _, tensor in leaves((whole.args, whole.kwargs))}
    count = whole.size
    if count == 0:
        raise InputError(f"{samples.name} holds no samples", hint="save at least one: its first dimension is 0")

    def batches() -> Iterator[Batch]:
        in_lists = any(isinstance(value, list) for value in (*whole.args, *whole.kwargs.values()))
        if in_lists or len(sizes) != 1 or count <= batch_size:
            yield whole
            return
        for start in range(0, count, batch_size):
            part = slice(start, start + batch_size)
            args, kwargs = map_tensors((whole.args, whole.kwargs), lambda tensor, part=part: tensor[part])
            yield Batch(args, kwargs)

    return replace(samples, batches=batches, count=count)


def first(samples: Samples) -> Batch:
    """Return the first batch.

    Raises:
        InputError: there is none.
    """
    found = list(islice(samples.batches(), 1))
    if not found:
        raise InputError(f"{samples.name} holds no samples", hint="name a folder or a dataset with at least one")
    return found[0]
