"""The samples that a command line asks for, and what the network sees of them as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.loading import feeding
from netlens.loading.asked import AskedModel
from netlens.loading.asked_run import AskedSamples
from netlens.loading.feeding import Batch, Samples
from netlens.loading.preprocessing import MODES, Preprocessing
from netlens.loading.preprocessing_sources import choose_preprocessing
from netlens.loading.valued import Valued
from netlens.probing.leaves import leaves
from netlens.wording import counted

if TYPE_CHECKING:
    import numpy as np


def samples_of(asked: AskedSamples, model: AskedModel, found: Valued, *, mixed: bool = False) -> Samples:
    """Open what is asked for; pictures are prepared as the model's values were trained.

    Args:
        asked: what goes in.
        model: what the model was named by: its checkpoint may say how pictures are prepared.
        found: that model.
        mixed: inputs of pictures may differ in size, from batch to batch.

    Raises:
        NetlensError: there is no such thing, or the model does not take it.
    """
    if asked.images:
        return feeding.of_pictures(asked.images, _preprocessing(asked, model, found), asked.batch_size, mixed=mixed)
    if asked.data is not None:
        return feeding.of_data(asked.data, found.model, preprocessing_of(asked, model, found), asked.batch_size, asked.limit)
    if asked.inputs:
        return feeding.of_inputs(asked.inputs, found.model, asked.batch_size)
    return feeding.of_nothing(found.named, found.model, asked.batch_size)


def films(model: nn.Module) -> bool:
    """Tell whether a model takes films, (N, C, T, H, W): its first convolution has three dimensions."""
    return isinstance(next((module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd)), None), nn.Conv3d)


def clip_of(asked: AskedSamples, model: AskedModel, found: Valued) -> Samples:
    """Take all pictures, in their order, as the frames of one clip, (1, C, T, H, W).

    Raises:
        NetlensError: as for `samples_of`.
    """
    whole = feeding.of_pictures(asked.images, _preprocessing(asked, model, found), len(asked.images))
    name = f"{asked.images[0].name} to {asked.images[-1].name}" if len(asked.images) > 1 else asked.images[0].name

    def batches() -> Iterator[Batch]:
        for batch in whole.batches():
            yield replace(batch, args=(batch.args[0].transpose(0, 1)[None],), name=name)

    def notes() -> tuple[str, ...]:
        return (*whole.notes(), f"the model takes films: {counted(len(asked.images), 'picture')} as the frames of one clip")

    return replace(whole, name=name, batches=batches, count=1, notes=notes)


def preprocessing_of(asked: AskedSamples, model: AskedModel, found: Valued) -> Preprocessing | None:
    """Return how pictures of a data set are prepared; None where the model takes none."""
    try:
        return _preprocessing(asked, model, found)
    except InputError:
        return None


def _preprocessing(asked: AskedSamples, model: AskedModel, found: Valued) -> Preprocessing:
    archive = model.checkpoint.archive if model.checkpoint else None
    return choose_preprocessing(found.named, found.model, archive=archive, size=asked.size, mean=asked.mean, std=asked.std)


def seen(batch: Batch, preprocessing: Preprocessing | None, most: int) -> tuple[np.ndarray, ...]:
    """Return what the network sees of the first samples, each (H, W, 3) uint8; of films (T, H, W, 3); () where it sees no pictures.

    Args:
        batch: on the CPU; its first tensor is looked at, (N, C, H, W) or (N, C, T, H, W).
        preprocessing: is undone; without one, black is the least value and white the greatest.
        most: at most so many samples.
    """
    values = next((tensor for _, tensor in leaves((batch.args, batch.kwargs))), None)
    if values is None or values.dim() not in (4, 5) or values.shape[1] not in MODES or not values.is_floating_point():
        return ()
    if values.dim() == 5:
        return tuple(_pixels(film.transpose(0, 1).float(), preprocessing).numpy() for film in values[:most])
    return tuple(_pixels(values[:most].float(), preprocessing).numpy())


def _pixels(values: Tensor, preprocessing: Preprocessing | None) -> Tensor:
    """Turn inputs, (N, C, H, W), into pixels, (N, H, W, 3) uint8."""
    if preprocessing is not None:
        mean, std = (torch.tensor(each)[:, None, None] for each in (preprocessing.mean, preprocessing.std))
        values = values * std + mean
    else:
        finite = values[values.isfinite()]
        least, greatest = finite.aminmax() if len(finite) else (values.new_zeros(()), values.new_ones(()))
        values = (values - least) / (greatest - least).clamp_min(torch.finfo(values.dtype).tiny)
    colours = values[:, :3] if values.shape[1] > 1 else values.expand(-1, 3, -1, -1)
    return colours.nan_to_num(0, 1, 0).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
