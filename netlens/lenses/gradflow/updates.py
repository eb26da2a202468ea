"""What an optimizer's steps do to the parameters, and how the gradients of successive steps lie to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from netlens.probing.differentiable import at_least_float32
from netlens.probing.untouched import untouched

LossOf = Callable[[Any], Tensor]  # of a batch: a scalar, with its graph
Gradients = Sequence["Tensor | None"]

# --- Training without a trace


@contextmanager
def on_a_copy(model: nn.Module, optimizers: Iterable[Optimizer] = ()) -> Iterator[list[nn.Parameter]]:
    """Let the block train `model`, then put back everything that `untouched` does, the parameters' values, and what `optimizers` remember.

    Copied are the values of the trainable parameters, not the module: hooks, tied weights and wrappers of distributed training work
    as they do in training, and frozen weights take no memory. Within the block `.grad` is None to begin with.

    Yields:
        The trainable parameters.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held: Any = nn.Module()  # `untouched` looks into the attributes of a module
    held.values = trainable
    held.states = [part for optimizer in optimizers for part in (optimizer.state, optimizer.param_groups, vars(optimizer))]
    with untouched(model), untouched(held), torch.inference_mode(False), torch.enable_grad():
        _forget(trainable)
        yield trainable


def differentiate(loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
    """Put the gradients of `loss`, and nothing else, into `.grad`, dense; None where no path leads from the loss."""
    parameters = list(parameters)
    _forget(parameters)
    if loss.requires_grad:
        loss.backward()
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.layout != torch.strided:  # of nn.Embedding(sparse=True), which Adam refuses
            parameter.grad = parameter.grad.to_dense()


def _forget(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None  # not zeroed: the tensor may be the user's


def neutral_adam(parameters: Sequence[nn.Parameter], lr: float) -> Adam | None:
    """Return Adam with torch's defaults, so that results do not depend on the user's choice; None: there is nothing to train."""
    half = any(parameter.dtype == torch.float16 for parameter in parameters)
    return Adam(parameters, lr=lr, eps=1e-6 if half else 1e-8) if parameters else None  # in float16 1e-8 is 0, and 0 / 0 not a number


# --- Updates


@dataclass(frozen=True, slots=True)
class Move:
    """What one step of an optimizer did to the parameters that it has and that had a gradient; norms in float64, on their device."""

    places: tuple[int, ...]  # of these parameters among those watched
    update: Tensor  # (places,) norm of the difference that the step made
    weight: Tensor  # (places,) norm before


@contextmanager
def watched_steps(parameters: Sequence[nn.Parameter], optimizer: Optimizer | None = None) -> Iterator[list[Move]]:
    """Collect a `Move` of every step that `optimizer` takes while the block runs, whoever calls it; None: that any optimizer takes.

    The step is the real one, with state, schedule, weight decay and rounding. Takes the memory of one copy of the optimizer's parameters,
    during the step. A step that a GradScaler leaves out is none.
    """
    moves: list[Move] = []
    begun: dict[Optimizer, tuple[list[int], list[Tensor]]] = {}

    def begin(stepping: Optimizer, *_: Any) -> None:
        held = {id(parameter) for group in stepping.param_groups for parameter in group["params"]}
        places = [place for place, parameter in enumerate(parameters) if id(parameter) in held and parameter.requires_grad]
        begun[stepping] = places, [parameters[place].detach().clone() for place in places]

    def end(stepping: Optimizer, *_: Any) -> None:
        places, values = begun.pop(stepping)
        taken = [(place, value) for place, value in zip(places, values, strict=True) if parameters[place].grad is not None]
        moves.append(_move([place for place, _ in taken], [value for _, value in taken], parameters))

    hooks = (
        (register_optimizer_step_pre_hook(begin), register_optimizer_step_post_hook(end))
        if optimizer is None
        else (optimizer.register_step_pre_hook(begin), optimizer.register_step_post_hook(end))
    )
    try:
        yield moves
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _move(places: list[int], before: list[Tensor], parameters: Sequence[nn.Parameter]) -> Move:
    weight = norms(before)
    if before:
        torch._foreach_sub_(before, [parameters[place].detach() for place in places])
    return Move(tuple(places), norms(before), weight)


def ratios(moves: Iterable[Move], count: int) -> list[float | None]:
    """Return ||update|| / ||weights|| of each of `count` parameters in its last step.

    None: no optimizer has it, it had no gradient, or it was all 0 before.
    """
    found: list[float | None] = [None] * count
    for move in moves:
        for place, update, weight in zip(move.places, move.update.tolist(), move.weight.tolist(), strict=True):
            found[place] = update / weight if weight else None
    return found


# --- Successive gradients


class Cosines:
    """The cosine of each parameter's gradient with that of the step before: near 1 a steady way, below 0 a zigzag.

    Holds a copy of the last gradients.
    """

    def __init__(self) -> None:
        self._before: list[Tensor | None] = []
        self._found: list[Tensor] = []  # of a step each: (parameters,), NaN where there is none

    @torch.no_grad()
    def add(self, gradients: Gradients) -> None:
        """Take the gradients of one step, of the same parameters in the same order each time."""
        if self._before:
            pairs = zip(self._before, gradients, strict=True)
            self._found.append(together([_cosine(a, b) for a, b in pairs]))
        self._before = [None if gradient is None else gradient.detach().clone() for gradient in gradients]

    def means(self, count: int) -> list[float | None]:
        """Return the mean over steps, of each of `count` parameters; None: fewer than two successive gradients, or none that is not 0."""
        if not self._found:
            return [None] * count
        return [None if value != value else value for value in torch.stack(self._found).nanmean(0).tolist()]


def _cosine(before: Tensor | None, now: Tensor | None) -> Tensor:
    if before is None or now is None:
        return torch.tensor(torch.nan)
    a, b = real(before).flatten(), real(now).flatten()
    product: Tensor = together([torch.dot(a, b), a.norm(), b.norm()])
    return product[0] / (product[1] * product[2])


# --- Numbers of many tensors


def real(tensor: Tensor) -> Tensor:
    """Return a tensor as dense real numbers in float32 or float64; complex numbers are two each."""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    return at_least_float32(torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense)


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of each tensor, (tensors,), in float64 on the device of the first; nothing is fetched."""
    fused = tensors and all(tensor.dtype in (torch.float32, torch.float64) and tensor.layout == torch.strided for tensor in tensors)
    return together(list(torch._foreach_norm(list(tensors))) if fused else [torch.linalg.vector_norm(real(tensor)) for tensor in tensors])


def together(values: Sequence[Tensor]) -> Tensor:
    """Stack numbers that may lie on several devices, in float64 where the device has it."""
    device = next((value.device for value in values if value.device.type != "cpu"), torch.device("cpu"))
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.stack([value.to(device, dtype) for value in values]) if values else torch.zeros(0, dtype=dtype)
