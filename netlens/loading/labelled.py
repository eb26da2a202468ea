"""Inputs with labels, batch by batch: of a folder of pictures, a data set, saved tensors, or drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.loading import feeding
from netlens.loading.asked import AskedModel
from netlens.loading.asked_run import AskedSamples
from netlens.loading.datasets import open_data
from netlens.loading.feeding import Batch
from netlens.loading.loss_functions import floating_outputs
from netlens.loading.loss_names import Labels, parse_loss
from netlens.loading.losses import own_loss
from netlens.loading.random_labels import detection_targets, draw_labels
from netlens.loading.replaying import Drawn, Numbered, Picked, Replayed
from netlens.loading.samples import LABELS, DataBatch
from netlens.loading.sampling import preprocessing_of, samples_of
from netlens.loading.streams import spaced
from netlens.loading.tensors import forward_signature, required_names
from netlens.loading.valued import Valued
from netlens.probing.leaves import leaves

RANDOM = "random"
LossName = str | Callable[..., Any] | None


@dataclass(frozen=True)
class Batches:
    """All that a model is trained on; one batch is held at a time."""

    name: str  # for the report: "--data train.py:loader"
    batch: Callable[[int], Batch]  # by its number: always the same; after the last they come again from the first
    labels: str | None  # where labels come from: "--data", "--input", "random", "the inputs", "the input ids"; None: there are none
    random_inputs: bool = False
    named: bool = False  # by `--data`, where labels are expected
    notes: Callable[[], tuple[str, ...]] = field(default=tuple, repr=False)  # complete when all have been read
    count: Callable[[], int | None] = field(default=lambda: None, repr=False)  # of different ones; None: not known yet, or no end

    @property
    def random_labels(self) -> bool:
        """Whether labels are drawn."""
        return self.labels == RANDOM


def labelled_batches(asked: AskedSamples, model: AskedModel, found: Valued, *, loss: LossName = None, seed: int = 0) -> Batches:
    """Open what is asked for. Nothing is known yet about labels that the samples do not have: see `answered`.

    Samples that can be had by their index come shuffled, as in training: the first ones of a folder are all of one class.

    Args:
        asked: what goes in.
        model: what the model was named by.
        found: that model.
        loss: `--loss`; without one, a model that takes labels gets them, for it may compute its loss itself.
        seed: of the order, of random numbers, and of what a data set draws.

    Raises:
        NetlensError: there is no such thing, or the model does not take it.
    """
    source = _of_data(asked, model, found, seed) if asked.data is not None else _of_samples(asked, model, found, seed)
    first = source.batch(0)
    label = source.labels if first.labels is not None else None
    if label is None and loss is None and not source.named and _detects(found.model):
        return _drawing(source, lambda batch, generator: detection_targets(_images(batch), generator), found.model, loss, seed)
    return replace(source, batch=lambda number: _given(source.batch(number), found.model, loss), labels=label)


def answered(batches: Batches, model: nn.Module, loss: LossName, output: Any, *, seed: int = 0) -> Batches:
    """Return the batches with labels: their own; or the inputs, where the model gives them back; or random ones.

    Args:
        batches: from `labelled_batches`.
        model: that is trained.
        loss: `--loss`.
        output: of the model for the first batch.
        seed: of what is drawn.

    Raises:
        InputError: a data set was named, its samples have no labels, and the loss needs some.
    """
    known = parse_loss(loss)[0] if isinstance(loss, str) else None
    no_need = (loss is None and own_loss(output) is not None) or (known is not None and known.labels is Labels.NOTHING)
    if batches.labels is not None or no_need or (batches.named and loss is not None and known is None):
        return batches
    first = batches.batch(0)
    outputs = [tensor for _, tensor in floating_outputs(output)]
    if loss is None and _argument(model) and _words(first, outputs[0]) is not None:
        return _labelled(batches, lambda batch: _words(batch, outputs[0]), "the input ids", model, loss)
    if (known is None or known.labels in (Labels.VALUES, Labels.SHARES)) and _copied(first, outputs):
        return _labelled(batches, _floating, "the inputs", model, loss)
    if batches.named:
        what = f"{batches.name} gives no labels, and {known.name if known else 'a loss'} needs them"
        raise InputError(what, hint="let it return (input, label); a folder of pictures needs one folder for each class")
    return _drawing(batches, lambda batch, generator: draw_labels(known, output, batch, generator), model, loss, seed)


# --- Sources


def _of_data(asked: AskedSamples, model: AskedModel, found: Valued, seed: int) -> Batches:
    assert asked.data is not None
    data, size = open_data(asked.data), asked.batch_size
    preprocessing = preprocessing_of(asked, model, found)

    def batch(read: DataBatch) -> Batch:
        args, kwargs = read.arguments_for(found.model)
        if isinstance(read.answers, (list, tuple)) and len(read.answers) == len(args) and isinstance(read.answers[0], Mapping):
            args = ([*args],)  # pictures of several sizes with their boxes
        return Batch(args, kwargs, labels=read.answers)

    numbered: Numbered
    if data.pick is None or data.length is None:
        numbered = Replayed(lambda: map(batch, data.batches(size, preprocessing, asked.limit)), seed)
    else:
        numbered = Picked(spaced(data.length, asked.limit), size, lambda indices: batch(data.picked(indices, preprocessing)), seed)
    name = f"--data {data.name}"

    def notes() -> tuple[str, ...]:
        again = (
            f"{name} has {numbered.count} batch{'' if numbered.count == 1 else 'es'} of different samples: they come again from the first"
        )
        return (*data.notes, again) if numbered.wrapped else data.notes

    return Batches(name, numbered, "--data", named=True, notes=notes, count=lambda: numbered.count)


def _of_samples(asked: AskedSamples, model: AskedModel, found: Valued, seed: int) -> Batches:
    if asked.images or asked.inputs:
        samples = samples_of(asked, model, found)
    else:
        samples = feeding.of_nothing(found.named, found.model, asked.batch_size, asked.batch_size)
    saved = any(isinstance(one, Path) for one in asked.inputs)
    numbered = Drawn(feeding.first(samples), seed) if samples.random else Replayed(samples.batches, seed)
    read = (lambda number: _with_saved_labels(numbered(number), found.model)) if saved else numbered
    return Batches(samples.name, read, "--input", samples.random, notes=samples.notes, count=lambda: numbered.count)


def _with_saved_labels(batch: Batch, model: nn.Module) -> Batch:
    """Take labels out of saved tensors: those with a name of labels, or the last of more than the model needs."""
    kwargs = dict(batch.kwargs)
    name = next((name for name in LABELS if name in kwargs), None)
    if name is not None:
        labels = kwargs.pop(name)
        args, kwargs = (batch.args, kwargs) if batch.args else DataBatch((), kwargs, None, 0).arguments_for(model)
        return replace(batch, args=args, kwargs=kwargs, labels=labels)
    needed = [name for name in required_names(forward_signature(model)) if name not in LABELS]
    if len(batch.args) > max(1, len(needed)):
        return replace(batch, args=batch.args[:-1], labels=batch.args[-1])
    return batch


# --- Labels


def _given(batch: Batch, model: nn.Module, loss: LossName) -> Batch:
    """Give labels to a model that takes them, where it shall compute the loss, or cannot be called without."""
    name = _argument(model)
    if name is None or batch.labels is None or not (loss is None or name in required_names(forward_signature(model))):
        return batch
    return replace(batch, kwargs={**batch.kwargs, name: batch.labels})


def _argument(model: nn.Module) -> str | None:
    signature = forward_signature(model)
    return next((name for name in LABELS if signature is not None and name in signature.parameters), None)


def _labelled(batches: Batches, labels: Callable[[Batch], Any], source: str, model: nn.Module, loss: LossName) -> Batches:
    def batch(number: int) -> Batch:
        read = batches.batch(number)
        return _given(replace(read, labels=labels(read)), model, loss)

    return replace(batches, batch=batch, labels=source)


def _drawing(batches: Batches, draw: Callable[[Batch, torch.Generator], Any], model: nn.Module, loss: LossName, seed: int) -> Batches:
    """Draw labels, others for each batch."""

    def batch(number: int) -> Batch:
        read = batches.batch(number)
        generator = torch.Generator().manual_seed(seed + number)
        return _given(replace(read, labels=draw(read, generator)), model, loss)

    return replace(batches, batch=batch, labels=RANDOM)


def _floating(batch: Batch) -> Tensor | None:
    return next((tensor for _, tensor in leaves((batch.args, batch.kwargs)) if tensor.is_floating_point()), None)


def _copied(batch: Batch, outputs: list[Tensor]) -> bool:
    """Tell whether an output has the shape of the input, as of an autoencoder."""
    inputs = _floating(batch)
    return inputs is not None and inputs.dim() > 1 and any(tensor.shape == inputs.shape for tensor in outputs)


def _words(batch: Batch, scores: Tensor) -> Tensor | None:
    """Return the ids of words where the model scores the next word for each: it shifts them itself, as models of transformers do."""
    ids = batch.kwargs.get("input_ids", batch.args[0] if batch.args else None)
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dim() != 2 or scores.dim() != 3:
        return None
    return ids if scores.shape[0] == ids.shape[0] and scores.shape[2] > int(ids.max()) else None


def _detects(model: nn.Module) -> bool:
    return type(model).__module__.startswith("torchvision.models.detection")


def _images(batch: Batch) -> list[Tensor]:
    first = batch.args[0] if batch.args else next(iter(batch.kwargs.values()))
    return list(first)
