"""The gradient of a score with respect to a model's input and to the bias of every layer, at every place where it is added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from netlens.errors import NetlensError
from netlens.probing.activations import Output, watched
from netlens.probing.differentiable import Call, at_least_float32, differentiable, first_tensor
from netlens.probing.replacing import exchanged
from netlens.probing.tokens import Layout, Layouts, as_maps

Score = Callable[[Any], Tensor]  # a model's output -> (N,)
Look = Callable[[Tensor, "Tensor | None"], None]
Kind = Literal["channels first", "channels last", "sequence first"]
Arguments = dict[int | str, Any]  # of a call, by position and by name


@dataclass(frozen=True, slots=True)
class InputGradient:
    """One pass: the input and its gradient."""

    input: Tensor  # (N, C, *size), detached
    gradient: Tensor  # the same shape, float32 or float64
    scores: Tensor  # (N,), detached


def bias_gradients(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], score: Score, look: Look) -> InputGradient:
    """Call `look` with (gradient of the score at a layer's output) * (its bias), layer by layer, in one backward pass.

    Layers are calls of convolutions, linear layers and normalisations, by whichever module they are made; one that is called twice has
    two terms. In eval mode BatchNorm is a scale and the implicit bias beta - gamma * mean / sqrt(variance + eps). Other normalisations
    divide by statistics of the sample: their term is beta alone. Not seen: the biases of queries, keys and values inside
    `nn.MultiheadAttention`, biases of recurrent layers, and parameters that a forward adds by itself (positions, class tokens).

    For a network of convolutions, BatchNorm in eval mode, linear layers, ReLU, shortcuts and pooling all terms together with
    input * gradient are the score (Srinivas and Fleuret 2019, proposition 1).

    Args:
        model: in eval mode.
        args: its arguments; the first floating tensor with three or more dimensions is the input.
        kwargs: its keyword arguments.
        score: (N,) from the model's output; each depends on its own sample.
        look: gets a term in the shape of the layer's output, and the same as maps, (N, C, *grid), without class tokens; None where it has
            no place in the input: behind pooling, in windows. In float32 or float64. To be reduced at once.

    Raises:
        NetlensError: no input that a gradient can be taken of, or a score that does not depend on it.
    """
    with differentiable(model, args, kwargs) as call:
        given = first_tensor(call, least_dims=3)
        if given is None:
            raise NetlensError(f"{type(model).__name__} gets no picture, and FullGrad is drawn on one", hint="try another --method")
        leaf = given.detach().requires_grad_()
        biases = _Biases(model, call, given.shape, look)
        with watched(model, biases.watch), biases:
            args, kwargs = exchanged(call, given, leaf.clone())  # a clone: the model may write into its input
            output = model(*args, **kwargs)
        scores = score(output)
        if not scores.requires_grad:
            raise NetlensError(
                f"the score of {type(model).__name__} has no gradient at the input",
                hint="its forward detaches what it computes: --method scorecam needs no gradient",
            )
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    return InputGradient(leaf.detach(), at_least_float32(gradient), scores.detach())


class _Biases(TorchFunctionMode):
    """Hangs a hook on what each layer with a bias puts out."""

    def __init__(self, model: nn.Module, call: Call, size: torch.Size, look: Look) -> None:
        super().__init__()
        self._layouts = Layouts(model)
        self._layouts.begin(call)
        self._samples, self._dims = size[0], len(size)
        self._folds: dict[int, Layout] = {}  # by the number of tokens
        self._look = look

    def watch(self, output: Output) -> None:
        """Learn how tokens are folded to the grid that they came from."""
        layout = self._layouts.of(output)
        if layout.kind == "tokens" and layout.folded == 1 and len(layout.grid) == self._dims - 2:
            self._folds[layout.shape[0]] = layout
        if output.type == "FrozenBatchNorm2d":  # of torchvision: written out, no function of torch
            norm: Any = output.module
            self._note(output.tensor, _shift(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps), "channels first")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function of torch, and note its result where it adds a bias."""
        result = func(*args, **(kwargs or {}))
        if func in _LAYERS:
            axis, bias_of = _LAYERS[func]
            with torch._C.DisableTorchFunction():
                first = result[0] if isinstance(result, tuple) else result
                self._note(first, bias_of({**dict(enumerate(args)), **(kwargs or {})}), axis)
        return result

    def _note(self, output: Tensor, bias: Tensor | None, kind: Kind) -> None:
        """Wait for the gradient at a layer's output; the hook stays with this value when it is overwritten in place."""
        if bias is None or not output.requires_grad:
            return
        if bias.dim() > 1:  # LayerNorm over channels and places
            kind = "channels first"
        elif kind == "channels first":
            bias = bias.reshape(-1, *(1,) * (output.dim() - 2))
        output.register_hook(partial(self._seen, bias.detach(), kind))

    def _seen(self, bias: Tensor, kind: Kind, gradient: Tensor) -> None:
        term = at_least_float32(gradient) * bias  # the product of small numbers is below the least of half precision
        maps = term if kind == "channels first" else term.movedim(-1, 1) if term.dim() != 3 else self._tokens(term, kind)
        placed = maps is not None and maps.dim() == self._dims and len(maps) == self._samples and maps[0, 0].numel() > 1
        self._look(term, maps if placed else None)

    def _tokens(self, term: Tensor, kind: Kind) -> Tensor | None:
        """Fold (N, L, C), or (L, N, C), to (N, C, *grid)."""
        axes = [axis for axis in (0, 1) if term.shape[axis] == self._samples and term.shape[1 - axis] in self._folds]
        if not axes:
            return None
        layout = self._folds[term.shape[1 - axes[0]]]
        axis = axes[0] if len(axes) == 1 else 1 if kind == "sequence first" else layout.batch_axis
        return as_maps(term, replace(layout, batch_axis=axis, channels=term.shape[-1]))[0]


def _argument(number: int, name: str, given: Arguments, default: Any = None) -> Any:
    return given.get(number, given.get(name, default))


def _bias_of_batch_norm(given: Arguments) -> Any:
    """F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps), and F.instance_norm alike."""
    mean, variance, weight, bias = (_argument(at, name, given) for at, name in enumerate(_OF_NORM, start=1))
    of_the_batch = given.get(5, given.get("training", given.get("use_input_stats", False)))
    if of_the_batch or mean is None or variance is None:
        return bias
    return _shift(mean, variance, weight, bias, _argument(7, "eps", given, 1e-5))


def _shift(mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    shift = -mean * torch.rsqrt(variance + eps)
    shift = shift if weight is None else shift * weight
    return shift if bias is None else shift + bias


_OF_NORM = ("running_mean", "running_var", "weight", "bias")
_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
_LAYERS: dict[Any, tuple[Kind, Callable[[Arguments], Any]]] = {
    **dict.fromkeys(_CONVOLUTIONS, ("channels first", partial(_argument, 2, "bias"))),
    **dict.fromkeys((F.batch_norm, F.instance_norm), ("channels first", _bias_of_batch_norm)),
    F.group_norm: ("channels first", partial(_argument, 3, "bias")),
    F.layer_norm: ("channels last", partial(_argument, 3, "bias")),
    F.linear: ("channels last", partial(_argument, 2, "bias")),
    F.multi_head_attention_forward: ("sequence first", partial(_argument, 12, "out_proj_bias")),
}
