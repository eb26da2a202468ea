"""What a data set gives - tuples, dicts, pictures, arrays - turned into what a model takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from netlens.errors import InputError, NetlensError
from netlens.loading.arrays import as_image, is_array, is_image, is_part, is_picture_shape, of_array, of_numbers
from netlens.loading.preprocessing import Preprocessing, preprocess
from netlens.loading.sample_labels import as_tensors, class_indices, collated_labels
from netlens.loading.tensors import forward_signature
from netlens.loading.words import cause, listed
from netlens.probing.leaves import leaves, map_tensors

if TYPE_CHECKING:
    from PIL import Image

LABELS = ("labels", "label", "targets", "target", "y")  # names under which dicts hold what a model shall answer


@dataclass(frozen=True, slots=True)
class DataBatch:
    """Some samples, as a model is called with them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Tensor | None  # (N,), class indices, where there are such
    size: int
    answers: Any = None  # what came beside the inputs, whatever it is: a tensor with N first, a list of N, a tuple of tensors

    def cut(self, size: int) -> DataBatch:
        """Return the first `size` samples."""
        if size >= self.size:
            return self

        def first(tensor: Tensor) -> Tensor:
            return tensor[:size] if tensor.shape[:1] == (self.size,) else tensor

        args = tuple(value[:size] if isinstance(value, list) else map_tensors(value, first) for value in self.args)
        answers = self.answers[:size] if isinstance(self.answers, list) else map_tensors(self.answers, first)
        return DataBatch(args, map_tensors(self.kwargs, first), None if self.labels is None else first(self.labels), size, answers)

    def arguments_for(self, model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what `model.forward` is called with: of a dict what it has names for, or else its first part without a name."""
        signature = forward_signature(model)
        known = {name: value for name, value in self.kwargs.items() if signature is None or name in signature.parameters}
        return (self.args, known) if known or not self.kwargs else ((next(iter(self.kwargs.values())),), {})


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns samples and batches of one data set into arguments."""

    name: str
    preprocessing: Preprocessing | None  # for pictures without a transform
    remarks: Counter[str]  # what was done that one would not expect, and to how many

    def collated(self, samples: Sequence[tuple[int, Any]]) -> DataBatch:
        """Put samples, with their indices, into one batch.

        Raises:
            InputError: a sample holds nothing for a model, or they are of different sizes.
        """
        found = [self._inputs(item, f"sample {index}", batched=False) for index, item in samples]
        try:
            inputs = default_collate([inputs for inputs, _ in found])
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            if all(isinstance(inputs, Tensor) and isinstance(label, Mapping) for inputs, label in found):  # as detectors take them
                labels = [as_tensors(label) for _, label in found]
                return DataBatch(([inputs for inputs, _ in found],), {}, None, len(samples), labels)
            sizes = sorted({str(tuple(tensor.shape)) for inputs, _ in found for _, tensor in leaves(inputs)})
            what = f"samples {samples[0][0]} to {samples[-1][0]} of {self.name} do not fit into one batch: {listed(sizes) or cause(error)}"
            raise InputError(what, hint="make them equal in the data set's transform, or take --batch-size 1") from error
        several = isinstance(found[0][0], tuple)  # of which torch makes a list
        labels = [label for _, label in found]
        batch = _called_with(tuple(inputs) if several else inputs, class_indices(labels), len(samples))
        return replace(batch, answers=collated_labels(labels))

    def batched(self, index: int, item: Any) -> DataBatch:
        """Take a batch as it comes.

        Raises:
            InputError: it holds nothing for a model.
        """
        inputs, label = self._inputs(item, f"batch {index}", batched=True)
        first = next((tensor for _, tensor in leaves(inputs) if tensor.dim()), None)
        size = len(inputs) if isinstance(inputs, list) or first is None else first.shape[0]
        known = isinstance(label, Tensor) and label.shape == (size,) and not label.is_floating_point()
        return replace(_called_with(inputs, label.long() if known else None, size), answers=as_tensors(label))

    def _inputs(self, item: Any, where: str, *, batched: bool) -> tuple[Any, Any]:
        """Return the part that goes into the model, as tensors, and the label, as it is."""
        part, label = split(item)
        if isinstance(item, (tuple, list)) and len(item) > 2:
            self.remarks[f"of its {len(item)} parts the first goes into the model, and the second is the label"] += 1
        try:
            inputs = self._tensors(part, batched)
        except NetlensError as error:
            raise InputError(f"{where} of {self.name}: {error.message}", hint=error.hint) from error
        if not leaves(inputs):
            held = f"{type(part).__name__} of {listed(part)}" if isinstance(part, Mapping) else type(part).__name__
            hint = "give tensors, arrays or pictures: set the data set's transform or format"
            raise InputError(f"{where} of {self.name} holds neither tensors nor pictures, but {held}", hint=hint)
        return inputs, label

    def _tensors(self, value: Any, batched: bool) -> Any:
        """Return `value` with tensors for arrays, numbers and pictures; None for what cannot become one."""
        if is_image(value):
            return self._prepared(value)
        if is_array(value):
            value = of_array(value)
        if isinstance(value, Tensor):
            if value.dtype != torch.uint8 or not is_picture_shape(value.shape[batched:]):
                return value
            return torch.stack([self._prepared(as_image(one)) for one in value]) if batched else self._prepared(as_image(value))
        if isinstance(value, Mapping):
            named = {str(name): self._tensors(part, batched) for name, part in value.items()}
            return {name: part for name, part in named.items() if part is not None}
        if isinstance(value, (list, tuple)):
            if not any(map(is_part, value)):
                return of_numbers(value)
            parts = [self._tensors(part, batched) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        return torch.tensor(value) if isinstance(value, Real) else None

    def _prepared(self, image: Image.Image) -> Tensor:
        if self.preprocessing is None:
            raise InputError(
                "it is a picture without a transform, and nothing tells how to prepare it", hint="say it with --size, --mean and --std"
            )
        self.remarks[f"its pictures come without a transform and are prepared by {self.preprocessing.source}"] += 1
        return preprocess(image, self.preprocessing).tensor


def split(item: Any) -> tuple[Any, Any]:
    """Return inputs and label of a sample, or of a batch: (x, y), (x, y, ...), {"image": x, "label": y}, or x alone."""
    if isinstance(item, Mapping):
        name = next((name for name in LABELS if name in item), None)
        return {key: value for key, value in item.items() if key not in LABELS}, None if name is None else item[name]
    if isinstance(item, (tuple, list)) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def is_sample(item: Any) -> bool:
    """Tell one sample from a batch, where both could be meant: by its label, or because it is a picture."""
    part, label = split(item)
    if isinstance(part, Mapping):
        part = next(iter(part.values()), None)
    is_picture = is_image(part) or (is_array(part) and part.dtype.name == "uint8" and is_picture_shape(part.shape))
    return is_picture or isinstance(label, (Integral, str)) or getattr(label, "ndim", None) == 0


def is_batch(item: Any) -> bool:
    """Tell a batch from a sample by one label for each part of its first tensor."""
    part, label = split(item)
    first = next((tensor for _, tensor in leaves(part)), None)
    return isinstance(label, Tensor) and first is not None and label.dim() == 1 and label.shape == first.shape[:1]


def classes_of(found: Any) -> tuple[str, ...] | None:
    """Return the names of the classes, which torchvision keeps in `classes` and Hugging Face in `features["label"].names`."""
    while found is not None:
        features = getattr(found, "features", None)
        label = features.get("label", features.get("labels")) if isinstance(features, Mapping) else None
        names = getattr(found, "classes", None) or getattr(label, "names", None)
        if isinstance(names, (list, tuple)):
            return tuple(map(str, names))
        found = getattr(found, "dataset", None)  # of a Subset, or of a loader
    return None


def _called_with(inputs: Any, labels: Tensor | None, size: int) -> DataBatch:
    if isinstance(inputs, Mapping):
        return DataBatch((), dict(inputs), labels, size)
    return DataBatch(inputs if isinstance(inputs, tuple) else (inputs,), {}, labels, size)
