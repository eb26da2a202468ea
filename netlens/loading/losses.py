"""The loss of a model: by its name, of the user's own code, the model's own, or inferred from the output and the labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlens.errors import InputError, NetlensError
from netlens.loading.calls import Call
from netlens.loading.from_python import import_attribute
from netlens.loading.kwargs_reader import call_signature
from netlens.loading.loss_functions import OLD, check_options, loss_values, outputs_for
from netlens.loading.loss_guess import guessed
from netlens.loading.loss_labels import described
from netlens.loading.loss_names import KnownLoss, Labels, known_loss, parse_loss
from netlens.loading.named import user_line
from netlens.loading.shortage import out_of_memory
from netlens.loading.words import cause, listed, one_line
from netlens.probing.leaves import leaves

OWN = "the model's own"
CALLED = "it is called with (output, labels), as the model and the data set return them"


@dataclass(frozen=True)
class Loss:
    """What the gradient is taken of: `loss(output, labels)` is a scalar in the graph of `output`."""

    name: str  # "cross_entropy", "mine.py:focal", "the model's own"
    source: str  # "--loss", "inferred: output (8, 10) and integer labels below 10"
    function: Callable[[Any, Any], Tensor] = field(repr=False)
    known: KnownLoss | None = None  # of torch
    leaf: str | None = None  # the part of the output that it looks at, "" for a bare tensor; None: the whole
    per_sample: Callable[[Any, Any], Tensor] | None = field(default=None, repr=False)  # (N,): means over what else a sample has
    remarks: dict[str, None] = field(default_factory=dict, repr=False)

    @property
    def own(self) -> bool:
        """Whether the model computes its loss itself."""
        return self.name == OWN

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be done to outputs and labels, so far."""
        return tuple(self.remarks)

    def __call__(self, output: Any, labels: Any) -> Tensor:
        """Return the mean loss of one batch.

        Args:
            output: what the model returned, as it is.
            labels: of the batch.

        Raises:
            InputError: output and labels do not fit, or the result is no floating number.
        """
        return self.function(output, labels)


def choose_loss(name: str | Callable[..., Any] | None, output: Any, labels: Any) -> Loss:
    """Return the loss of that name, or the one that output and labels speak for; it has been tried on them.

    Args:
        name: what `--loss` says, or a function of (output, labels); None: the model's own where its output holds one, else inferred.
        output: what the model returned for one batch, in the mode in which it will run.
        labels: of that batch; None where there are none.

    Raises:
        NetlensError: there is no such loss, nothing tells which one, or output and labels do not fit it.
    """
    loss = _chosen(name, output, labels)
    with torch.no_grad():
        loss(output, labels)  # what does not fit is told now, and not in the middle of a step
    return loss


def _chosen(name: str | Callable[..., Any] | None, output: Any, labels: Any) -> Loss:
    if isinstance(name, str):
        known, call = parse_loss(name)
        return _of_code(call) if known is None else _of_torch(known, call.options, "--loss", output, labels)
    if name is not None:
        instance = _of_instance(name)
        return _of_user(_name_of(name), name, "given") if instance is None else _of_torch(*instance, "given", output, labels)
    if (own := own_loss(output)) is not None:
        return Loss(OWN, f"the model returns it: {own[0]}", _own_of)
    known, source = guessed(output, labels)
    return _of_torch(known, {}, source, output, labels)


# --- Losses of torch


def _of_torch(known: KnownLoss, options: Mapping[str, Any], source: str, output: Any, labels: Any) -> Loss:
    check_options(known, options)
    looked_at = [name for name, _ in outputs_for(known, output, labels)]
    remarks: dict[str, None] = {}
    shape = dict(leaves(output))[looked_at[0]].shape
    others = [name for name, tensor in leaves(output) if known.outputs == 1 and name not in looked_at and tensor.shape == shape]
    if others:
        remarks[f"{known.name} looks at the output {looked_at[0]!r}, and not at {listed(map(repr, others))}"] = None

    def values(output: Any, labels: Any, options: Mapping[str, Any]) -> Tensor:
        found = dict(leaves(output))
        if not all(name in found for name in looked_at):  # as heads that are there in one mode only
            found = dict(outputs_for(known, output, labels))
        tensors = [found[name] for name in looked_at if name in found] or list(found.values())
        return loss_values(known, tensors, labels, options, remarks.setdefault)

    def mean(output: Any, labels: Any) -> Tensor:
        return _scalar(known.name, values(output, labels, options), remarks)

    def per_sample(output: Any, labels: Any) -> Tensor:
        each = values(output, labels, {**options, "reduction": "none"})
        return each.flatten(1).mean(1) if each.dim() > 1 else each

    single = known.labels is not Labels.SEQUENCES
    return Loss(known.name, source, mean, known, looked_at[0], per_sample if single else None, remarks)


def _of_instance(found: Callable[..., Any]) -> tuple[KnownLoss, dict[str, Any]] | None:
    """Return what `nn.CrossEntropyLoss(...)` or `F.cross_entropy` is, with its options."""
    known = known_loss(_name_of(found))
    if known is None or not _name_module(found).startswith("torch.nn."):
        return None
    options = inspect.signature(getattr(F, known.function)).parameters
    return known, {
        name: getattr(found, name) for name in options if name not in OLD and isinstance(found, nn.Module) and hasattr(found, name)
    }


def _name_of(found: Any) -> str:
    return str(getattr(found, "__name__", type(found).__name__))


def _name_module(found: Any) -> str:
    return str(type(found).__module__ if isinstance(found, nn.Module) else getattr(found, "__module__", ""))


# --- The user's own


def _of_code(call: Call) -> Loss:
    assert call.spec is not None
    found, name = import_attribute(call.spec), one_line(call.name)
    if not callable(found):
        raise InputError(f"{name} is of the type {type(found).__name__}, and no function", hint=CALLED)
    if not isinstance(found, type):
        return _of_user(name, found, "--loss", call.options)
    try:
        return _of_user(name, found(**call.options), "--loss")
    except Exception as error:  # of the user's code
        what = f"{name} cannot be made: {cause(error)}"
        raise InputError(what, hint=f"give its arguments like --loss {name}:NAME=VALUE, or name a function that makes it") from error


def _of_user(name: str, found: Callable[..., Any], source: str, options: Mapping[str, Any] | None = None) -> Loss:
    given, remarks = options or {}, dict[str, None]()
    alone = _takes_one(found, given)

    def function(output: Any, labels: Any) -> Tensor:
        device = next((tensor.device for _, tensor in leaves(output)), None)
        if isinstance(found, nn.Module) and device is not None:
            found.to(device)
        try:
            result = found(output, **given) if alone else found(output, labels, **given)
        except Exception as error:  # of the user's code
            if isinstance(error, NetlensError) or out_of_memory(error):
                raise
            raise _raised(name, error, output, labels) from error
        return _scalar(name, result, remarks)

    return Loss(name, source, function, remarks=remarks)


def _takes_one(found: Callable[..., Any], given: Mapping[str, Any]) -> bool:
    """Tell whether a loss is a function of the output alone."""
    signature = call_signature(found.forward if isinstance(found, nn.Module) else found)
    kinds = [p.kind for name, p in signature.parameters.items() if name not in given] if signature else []
    return [kind for kind in kinds if kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)] in (
        [Parameter.POSITIONAL_ONLY],
        [Parameter.POSITIONAL_OR_KEYWORD],
    )


def _raised(name: str, error: Exception, output: Any, labels: Any) -> InputError:
    line = user_line(error)
    given = [listed(f"{key} {described(value)}".strip() for key, value in leaves(each)) or type(each).__name__ for each in (output, labels)]
    what = f"{name} raised {cause(error)}{f' ({line})' if line else ''}: output {given[0]}, labels {given[1]}"
    return InputError(what, hint=CALLED)


def _scalar(name: str, found: Any, remarks: dict[str, None]) -> Tensor:
    """Return what a loss returned as one number: the mean of several, the first of a tuple, the sum of a dict of scalars."""
    if not isinstance(found, Tensor) and (own := own_loss(found)) is not None:
        found = own[1]
    if not isinstance(found, Tensor):
        hint = "let it return the tensor itself, without .item()" if isinstance(found, (int, float)) else "let it return one tensor"
        raise InputError(f"{name} returned an object of type {type(found).__name__}, which has no gradient", hint=hint)
    if not found.is_floating_point() or not found.numel():
        raise InputError(f"{name} returned {described(found)}, which is no loss", hint="let it return one floating number")
    if found.numel() > 1:
        remarks[f"{name} returns a loss for each part, {tuple(found.shape)}: their mean is taken"] = None
        return found.mean()
    return found.reshape(())


# --- The model's own


def own_loss(output: Any) -> tuple[str, Tensor] | None:
    """Return the loss that a model put into its output, and where: under the name "loss", as a dict of losses, in a tuple, alone."""
    if isinstance(output, (tuple, list)) and not hasattr(output, "_fields"):
        place = 1 if len(output) == 2 and not _is_loss(output[0]) else 0  # (loss, ...) or (scores, loss)
        return (f"part {place} of its output", output[place]) if output and _is_loss(output[place]) else None
    parts = leaves(output)
    named = [tensor for name, tensor in parts if name == "loss" and tensor.is_floating_point() and tensor.numel()]
    if named:
        return "its part 'loss'", named[0].mean()  # DataParallel makes a vector of it
    if not parts or not isinstance(output, (Tensor, Mapping)) or not all(_is_loss(tensor) for _, tensor in parts):
        return None
    names = [name for name, _ in parts]
    if names == [""]:
        return "its output is one number", parts[0][1]
    return f"the sum of {listed(names)}", torch.stack([tensor for _, tensor in parts]).sum()


def _is_loss(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point()


def _own_of(output: Any, _labels: Any) -> Tensor:
    found = own_loss(output)
    if found is None:
        raise InputError("the model returned its loss for one batch and does not for another", hint="name a loss: --loss cross_entropy")
    return found[1]
