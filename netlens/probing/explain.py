"""Why a layer raised: what it got, what it takes, and which line of the user's code called it.

The layer's own attributes say what it takes (`in_features`, `num_channels`, `normalized_shape`), so the explanation does not depend on
how a backend words its error.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm, padding, pooling

from netlens.probing.trace import Stop

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What a layer got and what it takes instead."""

    got: str  # "(1, 12544)"
    expects: str  # "(*, 9216)"


def shape_text(shape: Any) -> str:
    """A shape as Python writes a tuple."""
    return str(tuple(shape))


def mismatch(stop: Stop) -> Mismatch | None:
    """Tell what the layer that raised cannot take; None where its arguments look right."""
    module, x = stop.record.module, _first_tensor(stop)
    if x is not None:
        for kinds, rule in _RULES:
            if isinstance(module, kinds):
                found = rule(module, x, stop)
                if found is not None:
                    return found if isinstance(found, Mismatch) else Mismatch(shape_text(x.shape), found)
        wrong_type = _dtype(module, x)
        if wrong_type is not None:
            return wrong_type
    return _operands(stop)


def _first_tensor(stop: Stop) -> Tensor | None:
    values = (*stop.args, *stop.kwargs.values())
    first = values[0] if values else None
    if isinstance(first, nn.utils.rnn.PackedSequence):
        return first.data
    return first if isinstance(first, Tensor) else next((value for value in values if isinstance(value, Tensor)), None)


def _dtype(module: nn.Module, x: Tensor) -> Mismatch | None:
    weight = next((p for p in module._parameters.values() if p is not None), None)
    if weight is None or isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or weight.dtype == x.dtype:
        return None
    return Mismatch(f"{shape_text(x.shape)} {_name(x.dtype)}", f"dtype {_name(weight.dtype)}, as its weights")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _operands(stop: Stop) -> Mismatch | None:
    """What the operator got, where the module's own code called it with shapes that do not fit."""
    if not stop.operator or not stop.operands:
        return None
    operator = stop.operator.partition(".")[2].rstrip("_")
    got = f"{operator} of " + " and ".join(map(shape_text, stop.operands[:4]))
    matrices = [shape for shape in stop.operands if len(shape) >= 2][-2:]
    if operator in ("mm", "addmm", "bmm", "baddbmm") and len(matrices) == 2:
        return Mismatch(got, f"(*, {matrices[1][-2]}) on the left of {shape_text(matrices[1])}")
    return Mismatch(got, _OPERATORS.get(operator, ""))


_OPERATORS = {
    "cat": "equal sizes in every dimension but the one that is joined",
    "stack": "equal shapes",
    **dict.fromkeys(
        ("add", "sub", "mul", "div", "where", "maximum", "minimum", "pow"), "shapes that are equal, or 1, in every dimension from the right"
    ),
    "view": "a target shape with as many elements",
    "_unsafe_view": "a target shape with as many elements",
    "dot": "two vectors of one length",
    "mv": "a matrix (m, k) and a vector (k,)",
}


# -- one rule for each kind of layer: what it takes, as text, where `x` is not that ------------------------------------------------


def _linear(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return f"(*, {module.in_features})" if x.dim() == 0 or x.shape[-1] != module.in_features else None


def _bilinear(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    wanted, got = (module.in1_features, module.in2_features), [value for value in stop.args if isinstance(value, Tensor)][:2]
    if len(got) == 2 and tuple(value.shape[-1] for value in got) != wanted:
        return Mismatch(" and ".join(shape_text(value.shape) for value in got), f"(*, {wanted[0]}) and (*, {wanted[1]})")
    return None


def _spatial(module: nn.Module) -> int:
    """1, 2 or 3: the spatial dimensions in the class name (Conv2d, AvgPool1d); 0 where there are none."""
    name = next((cls.__name__ for cls in type(module).__mro__ if cls.__name__[-2:] in ("1d", "2d", "3d")), "")
    return int(name[-2]) if name else 0


def _places(dims: int, least: list[int] | None = None) -> str:
    names = {1: ["L"], 2: ["H", "W"], 3: ["D", "H", "W"]}[dims]
    return ", ".join(f"{name} >= {least[i]}" if least and least[i] > 1 else name for i, name in enumerate(names))


def _convolution(module: Any, x: Tensor, _stop: Stop) -> str | None:
    dims = len(module.kernel_size)
    if x.dim() not in (dims + 1, dims + 2) or x.shape[-dims - 1] != module.in_channels:
        return f"(N, {module.in_channels}, {_places(dims)})"
    if module.transposed or isinstance(module.padding, str):
        return None
    least = [module.dilation[i] * (module.kernel_size[i] - 1) + 1 - 2 * module.padding[i] for i in range(dims)]
    if any(x.shape[i - dims] < least[i] for i in range(dims)):
        return f"(N, {module.in_channels}, {_places(dims, least)})"
    return None


def _batch_norm(module: Any, x: Tensor, _stop: Stop) -> str | None:
    dims = _spatial(module)
    rank = {1: (2, 3), 2: (4,), 3: (5,)}.get(dims, tuple(range(2, 7)))
    instance = isinstance(module, instancenorm._InstanceNorm)
    rank = (dims + 1, dims + 2) if instance and dims else rank
    channel = x.dim() - dims - 1 if instance and dims else 1
    if x.dim() not in rank or (module.num_features is not None and x.shape[channel] != module.num_features):
        places = {1: "", 2: ", H, W", 3: ", D, H, W"}.get(dims, ", *")
        return f"(N, {module.num_features}{places})"
    if module.training and not instance and x.numel() == x.shape[1]:
        return f"more than one value for each of its {x.shape[1]} channels in training mode"
    return None


def _layer_norm(module: Any, x: Tensor, _stop: Stop) -> str | None:
    shape = tuple(module.normalized_shape)
    return None if tuple(x.shape[-len(shape) :]) == shape else f"(*, {', '.join(map(str, shape))})"


def _group_norm(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return None if x.dim() >= 2 and x.shape[1] == module.num_channels else f"(N, {module.num_channels}, *)"


def _embedding(module: Any, x: Tensor, _stop: Stop) -> Mismatch | None:
    if x.dtype not in (torch.int64, torch.int32):
        return Mismatch(f"{shape_text(x.shape)} {_name(x.dtype)}", "ids of dtype int64 or int32")
    if not x.is_meta and x.numel() and (int(x.max()) >= module.num_embeddings or int(x.min()) < 0):
        return Mismatch(f"ids from {int(x.min())} to {int(x.max())}", f"ids from 0 to {module.num_embeddings - 1}")
    return None


def _recurrent(module: Any, x: Tensor, stop: Stop) -> Mismatch | str | None:
    if x.dim() not in (2, 3) or x.shape[-1] != module.input_size:
        layout = "(N, L, {})" if module.batch_first else "(L, N, {})"
        return layout.format(module.input_size)
    state = stop.args[1] if len(stop.args) > 1 else stop.kwargs.get("hx")
    state = state[0] if isinstance(state, tuple) else state
    if isinstance(state, Tensor):
        layers = module.num_layers * (2 if module.bidirectional else 1)
        size = getattr(module, "proj_size", 0) or module.hidden_size
        if state.shape[0] != layers or state.shape[-1] != size:
            return Mismatch(f"a hidden state of {shape_text(state.shape)}", f"a hidden state of ({layers}, N, {size})")
    return None


def _cell(module: Any, x: Tensor, stop: Stop) -> Mismatch | str | None:
    if x.dim() not in (1, 2) or x.shape[-1] != module.input_size:
        return f"(N, {module.input_size})"
    state = stop.args[1] if len(stop.args) > 1 else stop.kwargs.get("hx")
    state = state[0] if isinstance(state, tuple) else state
    if isinstance(state, Tensor) and state.shape[-1] != module.hidden_size:
        return Mismatch(f"a hidden state of {shape_text(state.shape)}", f"a hidden state of (N, {module.hidden_size})")
    return None


def _attention(module: Any, _x: Tensor, stop: Stop) -> Mismatch | None:
    given = {**dict(zip(("query", "key", "value"), stop.args, strict=False)), **stop.kwargs}
    for name, size in (("query", module.embed_dim), ("key", module.kdim), ("value", module.vdim)):
        value = given.get(name)
        if isinstance(value, Tensor) and (value.dim() not in (2, 3) or value.shape[-1] != size):
            layout = "N, L" if module.batch_first else "L, N"
            return Mismatch(f"{name} {shape_text(value.shape)}", f"{name} ({layout}, {size})")
    return None


def _pool(module: Any, x: Tensor, _stop: Stop) -> str | None:
    dims = _spatial(module)
    if x.dim() not in (dims + 1, dims + 2):
        return f"(N, C, {_places(dims)})"
    size = getattr(module, "kernel_size", None)
    if size is None or module.ceil_mode:
        return None
    kernel, pad, dilation = (
        _tuple(getattr(module, name, default), dims) for name, default in (("kernel_size", 1), ("padding", 0), ("dilation", 1))
    )
    least = [dilation[i] * (kernel[i] - 1) + 1 - 2 * pad[i] for i in range(dims)]
    return f"(N, C, {_places(dims, least)})" if any(x.shape[i - dims] < least[i] for i in range(dims)) else None


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _prelu(module: Any, x: Tensor, _stop: Stop) -> str | None:
    n = module.num_parameters
    return None if n == 1 or (x.dim() >= 2 and x.shape[1] == n) else f"(N, {n}, *)"


def _unflatten(module: Any, x: Tensor, _stop: Stop) -> str | None:
    if not isinstance(module.dim, int) or not -x.dim() <= module.dim < x.dim():
        return f"a dimension {module.dim!r} to unflatten"
    sizes = [size if isinstance(size, int) else size[1] for size in module.unflattened_size]
    product = 1
    for size in sizes:
        product *= size
    if -1 in sizes:
        return None if x.shape[module.dim] % product == 0 else f"a multiple of {-product} in dimension {module.dim}"
    return None if x.shape[module.dim] == product else f"{product} = {' x '.join(map(str, sizes))} in dimension {module.dim}"


def _flatten(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return None if -x.dim() <= module.start_dim < x.dim() else f"at least {module.start_dim + 1} dimensions"


def _pixel_shuffle(module: Any, x: Tensor, _stop: Stop) -> str | None:
    factor = module.upscale_factor**2
    return None if x.dim() >= 3 and x.shape[-3] % factor == 0 else f"(*, a multiple of {factor}, H, W)"


def _pixel_unshuffle(module: Any, x: Tensor, _stop: Stop) -> str | None:
    factor = module.downscale_factor
    fits = x.dim() >= 3 and x.shape[-1] % factor == 0 and x.shape[-2] % factor == 0
    return None if fits else f"(*, C, H, W) with H and W multiples of {factor}"


def _glu(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return None if -x.dim() <= module.dim < x.dim() and x.shape[module.dim] % 2 == 0 else f"an even size in dimension {module.dim}"


def _reflection(module: Any, x: Tensor, _stop: Stop) -> str | None:
    dims = _spatial(module)
    if x.dim() not in (dims + 1, dims + 2):
        return f"(N, C, {_places(dims)})"
    pads = _tuple(module.padding, 2 * dims)
    least = [max(pads[2 * (dims - 1 - i)], pads[2 * (dims - 1 - i) + 1]) + 1 for i in range(dims)]
    return f"(N, C, {_places(dims, least)})" if any(x.shape[i - dims] < least[i] for i in range(dims)) else None


def _upsample(module: Any, x: Tensor, _stop: Stop) -> str | None:
    wanted = {"linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,)}.get(module.mode, (3, 4, 5))
    return None if x.dim() in wanted else f"(N, C, {_places(wanted[0] - 2)}) for mode {module.mode!r}"


_REFLECTIONS = (padding._ReflectionPadNd, padding._ReplicationPadNd)
_RULES: tuple[tuple[Any, Callable[[Any, Tensor, Stop], Mismatch | str | None]], ...] = (
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (conv._ConvNd, _convolution),
    ((batchnorm._BatchNorm, instancenorm._InstanceNorm), _batch_norm),
    (nn.LayerNorm, _layer_norm),
    (getattr(nn, "RMSNorm", nn.LayerNorm), _layer_norm),
    (nn.GroupNorm, _group_norm),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
    (nn.MultiheadAttention, _attention),
    ((pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd), _pool),
    (nn.PReLU, _prelu),
    (nn.Unflatten, _unflatten),
    (nn.Flatten, _flatten),
    (nn.PixelShuffle, _pixel_shuffle),
    (nn.PixelUnshuffle, _pixel_unshuffle),
    (nn.GLU, _glu),
    (padding._ReflectionPadNd, _reflection),
    (nn.Upsample, _upsample),
)


def source_line(traceback: TracebackType | None) -> str:
    """Return "nets.py:42: x = self.fc(x)": the innermost line that is neither torch's nor ours."""
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    found = ""
    while traceback is not None:
        code, line = traceback.tb_frame.f_code, traceback.tb_lineno
        if not code.co_filename.startswith((*inside, "<")):
            text = linecache.getline(code.co_filename, line).strip()
            found = f"{Path(code.co_filename).name}:{line}: {text}" if text else f"{Path(code.co_filename).name}:{line}"
        traceback = traceback.tb_next
    return found
