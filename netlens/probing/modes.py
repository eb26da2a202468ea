"""The modes in which a model is run, and in which it is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from netlens.probing.untouched import seeded


@contextmanager
def running(model: nn.Module) -> Iterator[None]:
    """Let `model` run as in use: eval mode, no gradients, fixed random numbers; then it is as it was.

    BatchNorm that has seen no data normalises by each batch, as it would in training: its running statistics, 0 and 1, mean nothing.
    """
    with in_eval_mode(model), _with_statistics_of_the_batch(model), torch.no_grad(), seeded(0):
        yield


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each back into its own."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _with_statistics_of_the_batch(model: nn.Module) -> Iterator[None]:
    fresh = without_statistics(model)
    momenta = [norm.momentum for norm in fresh]
    hooks = [norm.register_forward_pre_hook(_normalise_by_the_batch) for norm in fresh]
    for norm in fresh:
        norm.momentum = 0.0  # statistics of the batch are used, and not kept
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(fresh, momenta, strict=True):
            norm.momentum = momentum
            norm.running_mean.zero_()  # 0 times what is not finite is not 0
            norm.running_var.fill_(1)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()


def _normalise_by_the_batch(norm: Any, given: tuple[Any, ...]) -> None:
    """Use the statistics of the batch, unless it has a single value of each channel, which torch refuses."""
    shape = given[0].shape if given and isinstance(given[0], Tensor) else ()
    norm.training = not shape or shape.numel() > shape[1 if len(shape) > 1 else 0]


def without_statistics(model: nn.Module) -> list[Any]:
    """Return the BatchNorm layers that have never seen a batch."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None and norm.running_var is not None and _untouched(norm)]


def _untouched(norm: Any) -> bool:
    seen = norm.num_batches_tracked is not None and int(norm.num_batches_tracked)
    return not seen and bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())
