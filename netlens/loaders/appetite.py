"""How many samples a second a model eats: what its loader must deliver."""

from __future__ import annotations

from collections import Counter
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import ForwardFailed, InputError
from netlens.loading.samples import Reader
from netlens.loading.shortage import levers, out_of_memory, out_of_memory_told
from netlens.probing.failing import failed_forward
from netlens.probing.leaves import leaves, map_tensors
from netlens.probing.untouched import seeded, untouched

WARM_UP = 3  # steps before any is timed: lazy initialisation, caches, algorithm choice of cuDNN
LEAST, MOST = 3, 30  # timed steps
LONG, LONGEST = 1.0, 10.0  # seconds that steps fill, and after which no other one begins


def appetite(model: nn.Module, batch: Any, device: torch.device | str) -> float:
    """Return the samples per second of a training step: forward and backward in train mode, on data that is on the device already.

    It is what the loader has to keep up with, and more than training reaches: no optimizer, no copy to the device; the loss is the mean of
    the outputs, or those of the model where it returns losses. In the precision of the model: under autocast it would eat more.

    Args:
        model: as it will be trained; it is moved to `device`, and else left as it came.
        batch: of the loader, as it comes.
        device: where to run.

    Raises:
        InputError: the batch holds nothing for a model, or no output depends on the parameters.
        ForwardFailed: the model does not take it.
        OutOfMemory: it does not fit.
    """
    place = torch.device(device)
    taken = Reader("the loader", None, Counter()).batched(0, map_tensors(batch, _as_floats))
    with out_of_memory_told(place, levers(place, batch_size=taken.size)):
        model.to(place)
        args, kwargs = map_tensors(taken.arguments_for(model), lambda tensor: tensor.to(place))
        with untouched(model), seeded(0), torch.enable_grad():
            model.train()
            return taken.size / _seconds(model, args, kwargs, place)


def _as_floats(tensor: Tensor) -> Tensor:
    """Do what is left to the device where a loader gives bytes."""
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor


def _seconds(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], place: torch.device) -> float:
    found: list[float] = []
    begun = perf_counter()
    for _ in range(WARM_UP + MOST):
        _synchronise(place)
        start = perf_counter()
        _step(model, args, kwargs)
        _synchronise(place)
        found.append(perf_counter() - start)
        timed = len(found) - WARM_UP
        if perf_counter() - begun > LONGEST or (timed >= LEAST and sum(found[WARM_UP:]) > LONG):
            break
    return median(found[WARM_UP:] or found)


def _step(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    model.zero_grad(set_to_none=True)
    try:
        output = model(*args, **kwargs)
    except Exception as error:
        if out_of_memory(error):
            raise
        said = failed_forward(model, args, kwargs, error).message
        raise ForwardFailed(said, hint="name a model that takes what the loader gives, or give --target-rate") from error
    parts = [tensor for _, tensor in leaves(output) if tensor.requires_grad]
    if not parts:
        raise InputError("no output of the model depends on its parameters", hint="name a model that can be trained, or give --target-rate")
    total: Tensor = torch.stack([part.float().mean() for part in parts]).sum()
    total.backward()


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
