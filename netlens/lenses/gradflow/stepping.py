"""The user's own training step: called as it is, and watched. It trains the user's model; nothing of that is undone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netlens.errors import ForwardFailed, InputError, NetlensError
from netlens.lenses.gradflow.backward import Unmeasured
from netlens.lenses.gradflow.measure import Measured
from netlens.lenses.gradflow.report import FirstNonFinite, LayerFlow, ParameterFlow, Rank, Step
from netlens.lenses.gradflow.stepnames import Names, owned
from netlens.lenses.gradflow.stepnumbers import Numbers
from netlens.lenses.gradflow.steprows import layer_rows, parameter_rows, step_row
from netlens.lenses.gradflow.stepwatch import Seen, Watch
from netlens.loading.arguments import required_arguments
from netlens.loading.losses import own_loss
from netlens.loading.named import user_line
from netlens.loading.shortage import out_of_memory
from netlens.loading.words import cause, listed
from netlens.wording import counted, number

if TYPE_CHECKING:
    from netlens.lenses.gradflow.distributed import Processes

RETURN = "let it return the loss, a tensor of one number, without .item()"


@dataclass(frozen=True)
class Stepped:
    """What some calls of a step function showed."""

    measured: Measured  # `update` and `cosine` are filled in; `first_nonfinite` is a layer, without the operation
    optimizer: str  # "the step function's own AdamW"; "" where none stepped
    ranks: tuple[Rank, ...]  # of the first backward pass
    models: tuple[nn.Module, ...]  # that it called


def check_step(found: Any, name: str) -> Callable[[], Any]:
    """Return a function that can be called as a training step.

    Args:
        found: what the user named.
        name: as it was typed.

    Raises:
        InputError: it is something else, or takes arguments.
    """
    if isinstance(found, nn.Module) or not callable(found):
        kind = "a model" if isinstance(found, nn.Module) else f"of type {type(found).__name__}"
        raise InputError(f"{name} is {kind}, not a function", hint="name a function that runs one training step and returns the loss")
    needed = required_arguments(found)
    if needed:
        what = f"{name} takes {listed(needed)}, and a training step is called without arguments"
        raise InputError(what, hint=f"name a function that calls it: def step(): return {getattr(found, '__name__', 'train')}(...)")
    return found


def measured_steps(
    step: Callable[[], Any],
    name: str,
    *,
    steps: int = 1,
    processes: Processes | None = None,
    done: Callable[[], object] = lambda: None,
) -> Stepped:
    """Call a training step some times, and measure the gradients of each call as its backward pass left them.

    A step that calls no backward gets one, and its gradients are taken away again. Of a parameter that an optimizer moves several times
    in one call, the first time counts.

    Args:
        step: the user's function, checked.
        name: for messages.
        steps: calls; none follows one that is not finite.
        processes: this one among others, each of which calls its own.
        done: called after each.

    Raises:
        NetlensError: it raises, or returns nothing of which a gradient can be taken.
    """
    ranks: list[Rank] = []

    def own(parameters: Sequence[Any], gradients: list[Tensor]) -> None:
        if processes is not None:
            ranks.extend(processes.ranks(torch.nan, gradients, parameters))

    watch = Watch(Names(step), processes or Numbers(), None if processes is None else own, cosines=steps > 1)
    history: list[tuple[Seen, float, tuple[LayerFlow, ...]]] = []
    quiet: list[bool] = []  # calls without a backward of their own
    for index in range(steps):
        with torch.inference_mode(False), torch.enable_grad(), watch.watching(last=True) as seen:
            quiet.append(_differentiated(_called(step, name), seen, name, watch))
        loss = _loss(seen)
        flows = layer_rows(seen, watch.tops)
        if processes is not None:
            every = processes.gathered((loss, max(1, seen.samples)))
            loss = sum(value * count for value, count in every) / sum(count for _, count in every)
            flows = processes.layers(flows, max(1, seen.samples))
            if index == 0:
                ranks[:] = [replace(rank, loss=value) for rank, (value, _) in zip(ranks, every, strict=True)]
        history.append((seen, loss, flows))
        done()
        if seen.scale == 1 and _broken(history[-1]):
            break
    return _stepped(watch, history, quiet, name, tuple(ranks))
