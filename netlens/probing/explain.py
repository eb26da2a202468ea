"""Why a layer raised: what it got, what it takes, and which line of the user's code called it.

The layer's own attributes say what it takes (`in_features`, `num_channels`, `normalized_shape`), so the explanation does not depend on
how a backend words its error. What is said of shapes was checked against them: such a mismatch holds on every device, and the model need
not be run for real to confirm it.
"""

from __future__ import annotations

import inspect
import linecache
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm, padding, pooling
from torch.nn.utils.rnn import PackedSequence

from netlens.probing.trace import Stop

# Words of exceptions about shapes, where a model checks its input itself.
ABOUT_SHAPE = re.compile(
    r"shape|size|dim|height|width|channel|resolution|divisible|multiple|patch|window|length|pixel|\dx\d", re.IGNORECASE
)
About = Literal["shape", "channels", "dtype", "values", "call"]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What a layer got and what it takes instead."""

    got: str  # "(1, 12544)"
    expects: str  # "(*, 9216)"; "" where only the operator and its shapes are known
    about: About = "shape"  # only for "shape" can another image size help
    remedy: str = ""  # where it follows from the layer alone


Rule = Callable[[Any, Tensor, Stop], "Mismatch | str | None"]


def shape_text(shape: Any) -> str:
    """A shape as Python writes a tuple."""
    return str(tuple(shape))


def mismatch(stop: Stop) -> Mismatch | None:
    """Tell what the layer that raised cannot take; None where its arguments look right."""
    operands = _operands(stop)
    told = operands if operands is not None and operands.expects else None
    return _call(stop) or _layer(stop) or told or _words(stop) or operands or _checked(stop)


def is_certain(stop: Stop) -> bool:
    """Tell whether what raised on the meta device raises on every device: shapes that do not fit, or a wrong call.

    Not a dtype, which autocast may change on a real device, nor values, which meta may not know; but ids are always what they are.
    """
    found = mismatch(stop)
    if found is None:
        return False
    ids = isinstance(stop.record.module, (nn.Embedding, nn.EmbeddingBag))
    return bool(found.expects) and (found.about in ("shape", "channels", "call") or ids)


def is_own_check(stop: Stop) -> bool:
    """Tell whether the model itself refused the shape of what it got: "Wrong image height! Expected 224 but got 256!"."""
    x, text = layer_input(stop), str(stop.error)
    if x is None or stop.operator or type(stop.error) not in (AssertionError, ValueError, RuntimeError) or _raised_here(stop.error):
        return False
    numbers = {int(number) for number in re.findall(r"\d{1,9}", text)}
    return bool(ABOUT_SHAPE.search(text)) and not numbers.isdisjoint(x.shape)


def _raised_here(error: BaseException) -> bool:
    """Tell whether a kernel of ours raised, whose words are not those of a real device."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("netlens.")


def _checked(stop: Stop) -> Mismatch | None:
    x = layer_input(stop)
    return Mismatch(shape_text(x.shape), "") if x is not None and is_own_check(stop) else None


def layer_input(stop: Stop) -> Tensor | None:
    """The first tensor that the layer got."""
    values = (*stop.args, *stop.kwargs.values())
    first = values[0] if values else None
    if isinstance(first, PackedSequence):
        return first.data
    return next((value for value in values if isinstance(value, Tensor)), None)


def is_plain(module: nn.Module) -> bool:
    """Tell whether torch's own forward runs, so that the module's attributes say what it takes."""
    return type(module).forward.__module__.startswith("torch.nn.modules.") and "forward" not in vars(module)


# -- how the layer was called ------------------------------------------------------------------------------------------------------


def _call(stop: Stop) -> Mismatch | None:
    """Arguments that do not fit forward's signature, no forward at all, or something else where a layer takes a tensor."""
    module, first = stop.record.module, stop.args[0] if stop.args else None
    if "_forward_unimplemented" in getattr(module.forward, "__name__", ""):
        return _no_forward(module)
    if isinstance(stop.error, TypeError):
        signature = _unbound(module, stop)
        if signature is not None:
            root = "give one --input for each argument" if not stop.record.path else ""
            return Mismatch(f"forward({_given(signature, stop)})", f"forward{_short(signature)}", "call", root)
    takes_others = (nn.RNNBase, nn.Sequential, nn.Identity, nn.modules.loss._Loss)
    if stop.args and not isinstance(first, Tensor) and is_plain(module) and not isinstance(module, takes_others):
        return _no_tensor(first, stop)
    return None


def _no_forward(module: nn.Module) -> Mismatch:
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        kind = type(module).__name__
        return Mismatch(
            "a call", f"to be looped over: a {kind} has no forward", "call", f"call its layers one by one: nn.{kind} only holds them"
        )
    return Mismatch("a call", "a method forward", "call", f"define forward(self, ...) in {type(module).__name__}")


def _unbound(module: nn.Module, stop: Stop) -> inspect.Signature | None:
    """The signature of forward where the arguments do not fit it."""
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*stop.args, **stop.kwargs)
    except TypeError:
        return signature
    return None


def _short(signature: inspect.Signature) -> str:
    """(x, mask=None): names and defaults without types."""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _given(signature: inspect.Signature, stop: Stop) -> str:
    """The arguments of the call by the names that forward knows: "x, 2 more, scale="."""
    names = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = len(stop.args) - len(names)
    return ", ".join([*names[: len(stop.args)], *([f"{more} more"] if more > 0 else []), *(f"{name}=..." for name in stop.kwargs)])


def _no_tensor(value: Any, stop: Stop) -> Mismatch:
    origin = f"`{stop.producer}` returned" if stop.producer else "it got"
    if isinstance(value, (tuple, list)):
        items = ", ".join(shape_text(item.shape) if isinstance(item, Tensor) else f"a {type(item).__name__}" for item in value[:4])
        got = f"a {type(value).__name__} of {items}{', ...' if len(value) > 4 else ''}"
        return Mismatch(got, "a tensor", "call", f"{origin} a {type(value).__name__}: pass on the item that is meant, perhaps [0]")
    if value is None:
        return Mismatch("None", "a tensor", "call", f"{origin} None: a forward without `return` does")
    return Mismatch(f"a {type(value).__name__}", "a tensor", "call")


# -- what the layer takes ----------------------------------------------------------------------------------------------------------


def _layer(stop: Stop) -> Mismatch | None:
    module, x = stop.record.module, layer_input(stop)
    if x is None or not is_plain(module):
        return None
    for kinds, rule in _RULES:
        if isinstance(module, kinds):
            found = rule(module, x, stop)
            if found is not None:
                return found if isinstance(found, Mismatch) else Mismatch(shape_text(x.shape), found)
    return _dtype(module, x, stop)


_WITH_WEIGHTS = (nn.Linear, nn.Bilinear, conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_DTYPE_WORDS = re.compile(r"dtype|data type|not implemented for|[Ii]nput type|scalar type|floating.point|Half|Float|Long|Double")


def _dtype(module: nn.Module, x: Tensor, stop: Stop) -> Mismatch | None:
    weight = next((p for p in module._parameters.values() if p is not None), None)
    got = f"{shape_text(x.shape)} {_name(x.dtype)}"
    if not _DTYPE_WORDS.search(str(stop.error)):
        return None
    if weight is None:
        return None if x.is_floating_point() or x.is_complex() else Mismatch(got, "a floating dtype", "dtype")
    if not isinstance(module, _WITH_WEIGHTS) or weight.dtype == x.dtype:
        return None
    return Mismatch(got, f"dtype {_name(weight.dtype)}, as its weights", "dtype")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _linear(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return f"(*, {module.in_features})" if x.dim() == 0 or x.shape[-1] != module.in_features else None


def _bilinear(module: Any, _x: Tensor, stop: Stop) -> Mismatch | None:
    wanted, got = (module.in1_features, module.in2_features), [value for value in stop.args if isinstance(value, Tensor)][:2]
    if len(got) == 2 and (tuple(value.shape[-1] for value in got) != wanted or got[0].shape[:-1] != got[1].shape[:-1]):
        same = "" if got[0].shape[:-1] == got[1].shape[:-1] else ", with equal leading sizes"
        return Mismatch(_both(got), f"(*, {wanted[0]}) and (*, {wanted[1]}){same}", "channels")
    return None


def _both(tensors: list[Tensor]) -> str:
    return " and ".join(shape_text(tensor.shape) for tensor in tensors)


def _spatial(module: nn.Module) -> int:
    """1, 2 or 3: the spatial dimensions in the class name (Conv2d, AvgPool1d); 0 where there are none."""
    name = next((cls.__name__ for cls in type(module).__mro__ if cls.__name__[-2:] in ("1d", "2d", "3d")), "")
    return int(name[-2]) if name else 0


def _places(dims: int, least: list[int] | None = None) -> str:
    names = {1: ["L"], 2: ["H", "W"], 3: ["D", "H", "W"]}[dims]
    return ", ".join(f"{name} >= {least[i]}" if least and least[i] > 1 else name for i, name in enumerate(names))


def _convolution(module: Any, x: Tensor, _stop: Stop) -> Mismatch | str | None:
    dims = len(module.kernel_size)
    if x.dim() not in (dims + 1, dims + 2) or x.shape[-dims - 1] != module.in_channels:
        return Mismatch(shape_text(x.shape), f"(N, {module.in_channels}, {_places(dims)})", "channels")
    if module.transposed or isinstance(module.padding, str):
        return None
    least = _least(module.kernel_size, module.dilation, module.padding)
    return f"(N, {module.in_channels}, {_places(dims, least)})" if _below(x, least) else None


def _least(kernel: Any, dilation: Any, pad: Any) -> list[int]:
    """The smallest input in each dimension that a sliding window fits into."""
    return [dilation[i] * (kernel[i] - 1) + 1 - 2 * pad[i] for i in range(len(kernel))]


def _below(x: Tensor, least: list[int]) -> bool:
    return any(x.shape[i - len(least)] < least[i] for i in range(len(least)))


def _batch_norm(module: Any, x: Tensor, _stop: Stop) -> Mismatch | str | None:
    dims = _spatial(module)
    if x.dim() not in ({1: (2, 3), 2: (4,), 3: (5,)}.get(dims) or range(2, 7)) or x.shape[1] != module.num_features:
        places = {1: "" if x.dim() == 2 else ", L", 2: ", H, W", 3: ", D, H, W"}.get(dims, ", *")
        return Mismatch(shape_text(x.shape), f"(N, {module.num_features}{places})", "channels")
    if (module.training or module.running_mean is None) and x.numel() == x.shape[1]:
        return f"more than one value for each of its {x.shape[1]} channels"
    return None


def _instance_norm(module: Any, x: Tensor, _stop: Stop) -> Mismatch | str | None:
    dims = _spatial(module)
    if dims and (x.dim() not in (dims + 1, dims + 2) or (module.affine and x.shape[-dims - 1] != module.num_features)):
        return Mismatch(shape_text(x.shape), f"(N, {module.num_features}, {_places(dims)})", "channels")
    if dims and prod(x.shape[-dims:]) == 1:
        return f"(N, {module.num_features}, {_places(dims)}) with more than one value in each channel"
    return None


def _layer_norm(module: Any, x: Tensor, _stop: Stop) -> str | None:
    shape = tuple(module.normalized_shape)
    return None if tuple(x.shape[-len(shape) :]) == shape else f"(*, {', '.join(map(str, shape))})"


def _group_norm(module: Any, x: Tensor, _stop: Stop) -> Mismatch | str | None:
    if x.dim() < 2 or x.shape[1] != module.num_channels:
        return Mismatch(shape_text(x.shape), f"(N, {module.num_channels}, *)", "channels")
    return "more than one value in each group" if x.numel() == module.num_groups else None


def _local_response(_module: Any, x: Tensor, _stop: Stop) -> str | None:
    return None if x.dim() >= 3 else "(N, C, *)"


def _embedding(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    if x.dtype not in (torch.int64, torch.int32):
        return Mismatch(f"{shape_text(x.shape)} {_name(x.dtype)}", "ids of dtype int64 or int32", "dtype")
    if not x.is_meta and x.numel() and not 0 <= int(x.min()) <= int(x.max()) < module.num_embeddings:
        remedy = f"`{stop.record.path or 'it'}` would need num_embeddings={int(x.max()) + 1}" if int(x.min()) >= 0 else ""
        return Mismatch(f"ids from {int(x.min())} to {int(x.max())}", f"ids from 0 to {module.num_embeddings - 1}", "values", remedy)
    if isinstance(module, nn.EmbeddingBag):
        offsets = stop.args[1] if len(stop.args) > 1 else stop.kwargs.get("offsets")
        if x.dim() not in (1, 2) or (x.dim() == 1) is (offsets is None):
            return Mismatch(
                f"{shape_text(x.shape)} {'without' if offsets is None else 'with'} offsets", "(N, L), or (L,) with offsets", "call"
            )
    return None


def _recurrent(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    if x.dim() not in (2, 3) or x.shape[-1] != module.input_size:
        layout = "(N, L, {})" if module.batch_first else "(L, N, {})"
        return Mismatch(shape_text(x.shape), layout.format(module.input_size), "channels")
    packed = stop.args and isinstance(stop.args[0], PackedSequence)
    batch = None if packed else (x.shape[0 if module.batch_first else 1],) if x.dim() == 3 else ()
    layers = module.num_layers * (2 if module.bidirectional else 1)
    for name, state in zip(("hidden", "cell"), _states(stop), strict=False):
        size = (module.proj_size if name == "hidden" else 0) or module.hidden_size
        wanted = (layers, *(batch or ()), size)
        if state.shape[0] != layers or state.shape[-1] != size or (batch is not None and tuple(state.shape) != wanted):
            shape = shape_text(wanted) if batch is not None else f"({layers}, N, {size})"
            return Mismatch(f"a {name} state of {shape_text(state.shape)}", f"a {name} state of {shape}", "call")
    return None


def _states(stop: Stop) -> list[Tensor]:
    state = stop.args[1] if len(stop.args) > 1 else stop.kwargs.get("hx")
    return [item for item in (state if isinstance(state, tuple) else (state,)) if isinstance(item, Tensor)]


def _cell(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    if x.dim() not in (1, 2) or x.shape[-1] != module.input_size:
        return Mismatch(shape_text(x.shape), f"(N, {module.input_size})", "channels")
    for name, state in zip(("hidden", "cell"), _states(stop), strict=False):
        wanted = (*x.shape[:-1], module.hidden_size)
        if tuple(state.shape) != wanted:
            return Mismatch(f"a {name} state of {shape_text(state.shape)}", f"a {name} state of {shape_text(wanted)}", "call")
    return None


def _attention(module: Any, _x: Tensor, stop: Stop) -> Mismatch | None:
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
    given = {**dict(zip(names, stop.args, strict=False)), **stop.kwargs}
    layout = "N, L" if module.batch_first else "L, N"
    for name, size in (("query", module.embed_dim), ("key", module.kdim), ("value", module.vdim)):
        value = given.get(name)
        if isinstance(value, Tensor) and (value.dim() not in (2, 3) or value.shape[-1] != size):
            return Mismatch(f"{name} {shape_text(value.shape)}", f"{name} ({layout}, {size})", "channels")
    query, key, mask = given.get("query"), given.get("key"), given.get("attn_mask")
    if isinstance(mask, Tensor) and isinstance(query, Tensor) and isinstance(key, Tensor) and query.dim() == key.dim() == 3:
        length = 1 if module.batch_first else 0
        wanted = (query.shape[length], key.shape[length])
        each = (query.shape[1 - length] * module.num_heads, *wanted)
        if tuple(mask.shape) not in (wanted, each):
            return Mismatch(f"attn_mask {shape_text(mask.shape)}", f"attn_mask {shape_text(wanted)} or {shape_text(each)}", "call")
    return None


def _transformer(module: Any, _x: Tensor, stop: Stop) -> Mismatch | None:
    given = {**dict(zip(("src", "tgt"), stop.args, strict=False)), **stop.kwargs}
    layout = "N, L" if module.batch_first else "L, N"
    for name in ("src", "tgt"):
        value = given.get(name)
        if isinstance(value, Tensor) and (value.dim() not in (2, 3) or value.shape[-1] != module.d_model):
            return Mismatch(f"{name} {shape_text(value.shape)}", f"{name} ({layout}, {module.d_model})", "channels")
    return None


def _pool(module: Any, x: Tensor, _stop: Stop) -> str | None:
    dims = _spatial(module)
    if x.dim() not in (dims + 1, dims + 2):
        return f"(N, C, {_places(dims)})"
    if getattr(module, "kernel_size", None) is None:
        return None
    sizes = [_tuple(getattr(module, name, default), dims) for name, default in (("kernel_size", 1), ("dilation", 1), ("padding", 0))]
    least = _least(*sizes)
    if module.ceil_mode:  # the last window may reach beyond the input, by less than a stride
        least = [size - stride + 1 for size, stride in zip(least, _tuple(module.stride or module.kernel_size, dims), strict=True)]
    return f"(N, C, {_places(dims, least)})" if _below(x, least) else None


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _prelu(module: Any, x: Tensor, _stop: Stop) -> Mismatch | None:
    n = module.num_parameters
    fits = n == 1 or (x.dim() >= 2 and x.shape[1] == n)
    return None if fits else Mismatch(shape_text(x.shape), f"(N, {n}, *)", "channels")


def _unflatten(module: Any, x: Tensor, _stop: Stop) -> str | None:
    if not isinstance(module.dim, int) or not -x.dim() <= module.dim < x.dim():
        return f"a dimension {module.dim!r} to unflatten"
    sizes = [size if isinstance(size, int) else size[1] for size in module.unflattened_size]
    product = prod(sizes)
    if -1 in sizes:
        return None if x.shape[module.dim] % product == 0 else f"a multiple of {-product} in dimension {module.dim}"
    return None if x.shape[module.dim] == product else f"{product} = {' x '.join(map(str, sizes))} in dimension {module.dim}"


def _flatten(module: Any, x: Tensor, _stop: Stop) -> str | None:
    most = max(module.start_dim + 1, module.end_dim + 1, -module.start_dim, -module.end_dim)
    return f"at least {most} dimensions" if max(x.dim(), 1) < most else None


def _pixel_shuffle(module: Any, x: Tensor, _stop: Stop) -> str | None:
    factor = module.upscale_factor**2
    return None if x.dim() >= 3 and x.shape[-3] % factor == 0 else f"(*, a multiple of {factor}, H, W)"


def _pixel_unshuffle(module: Any, x: Tensor, _stop: Stop) -> str | None:
    factor = module.downscale_factor
    fits = x.dim() >= 3 and x.shape[-1] % factor == 0 and x.shape[-2] % factor == 0
    return None if fits else f"(*, C, H, W) with H and W multiples of {factor}"


def _channel_shuffle(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return None if x.dim() >= 3 and x.shape[1] % module.groups == 0 else f"(N, a multiple of {module.groups}, *)"


def _glu(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return None if -x.dim() <= module.dim < x.dim() and x.shape[module.dim] % 2 == 0 else f"an even size in dimension {module.dim}"


def _along(module: Any, x: Tensor, _stop: Stop) -> str | None:
    """Softmax and its kin: a dimension that the input must have."""
    if not isinstance(module.dim, int) or -max(x.dim(), 1) <= module.dim < max(x.dim(), 1):
        return None
    return f"at least {module.dim + 1 if module.dim >= 0 else -module.dim} dimensions, as it runs along dim={module.dim}"


def _fold(module: Any, x: Tensor, _stop: Stop) -> str | None:
    size, kernel, dilation, pad, stride = (
        _tuple(getattr(module, name), 2) for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
    )
    blocks = prod((size[i] + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    fits = x.dim() in (2, 3) and x.shape[-1] == blocks and x.shape[-2] % prod(kernel) == 0
    return None if fits else f"(N, a multiple of {prod(kernel)}, {blocks})"


def _unfold(module: Any, x: Tensor, _stop: Stop) -> str | None:
    least = _least(*(_tuple(getattr(module, name), 2) for name in ("kernel_size", "dilation", "padding")))
    return None if x.dim() in (3, 4) and not _below(x, least) else f"(N, C, {_places(2, least)})"


def _reflection(module: Any, x: Tensor, _stop: Stop) -> str | None:
    dims = _spatial(module)
    pads = _tuple(module.padding, 2 * dims)
    extra = 0 if isinstance(module, padding._ReplicationPadNd) else 1  # a mirror leaves the border out, a circle may use all
    extra = 0 if _is_circular(module) else extra
    least = [max(1, *(pads[2 * (dims - 1 - i) + side] + extra for side in (0, 1))) for i in range(dims)]
    least = [1] * dims if isinstance(module, padding._ReplicationPadNd) else least
    return f"(N, C, {_places(dims, least)})" if x.dim() not in (dims + 1, dims + 2) or _below(x, least) else None


def _is_circular(module: nn.Module) -> bool:
    return type(module).__name__.startswith("Circular")


def _upsample(module: Any, x: Tensor, _stop: Stop) -> str | None:
    wanted = {"linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,)}.get(module.mode, (3, 4, 5))
    places = _places(wanted[0] - 2) if len(wanted) == 1 else "*"
    return None if x.dim() in wanted else f"(N, C, {places}) for mode {module.mode!r}"


def _pair_of_equals(_module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    target = _second(stop)
    if target is None or target.shape == x.shape:
        return None
    return Mismatch(_both([x, target]), "input and target of equal shape", "call")


def _classes(_module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    """Losses over classes: scores (N, C, *) and class numbers (N, *), or, for cross entropy, probabilities (N, C, *)."""
    target = _second(stop)
    if target is None or x.dim() == 0:
        return None
    wanted = (*x.shape[:1], *x.shape[2:]) if x.dim() > 1 else ()
    if tuple(target.shape) not in (wanted, tuple(x.shape)):
        return Mismatch(_both([x, target]), f"{shape_text(x.shape)} and class numbers {shape_text(wanted)}", "call")
    classes, ignored = x.shape[1 if x.dim() > 1 else 0], getattr(_module, "ignore_index", -100)
    if tuple(target.shape) == wanted and not target.is_meta and not target.is_floating_point():
        numbers = target[target != ignored]
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < classes:
            return Mismatch(
                f"class numbers from {int(numbers.min())} to {int(numbers.max())}", f"class numbers from 0 to {classes - 1}", "values"
            )
    return None


def _second(stop: Stop) -> Tensor | None:
    values = [value for value in (*stop.args, *stop.kwargs.values()) if isinstance(value, Tensor)]
    return values[1] if len(values) > 1 else None


_POOLS = (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd, pooling._LPPoolNd)
_PADS = tuple(
    getattr(nn, f"{kind}Pad{dims}d")
    for kind in ("Reflection", "Replication", "Circular")
    for dims in (1, 2, 3)
    if hasattr(nn, f"{kind}Pad{dims}d")
)
_EQUALS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.SoftMarginLoss)
_RULES: tuple[tuple[Any, Rule], ...] = (
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (conv._ConvNd, _convolution),
    (instancenorm._InstanceNorm, _instance_norm),
    (batchnorm._BatchNorm, _batch_norm),
    ((nn.LayerNorm, getattr(nn, "RMSNorm", nn.LayerNorm)), _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.LocalResponseNorm, _local_response),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
    (nn.MultiheadAttention, _attention),
    (nn.Transformer, _transformer),
    (_POOLS, _pool),
    (nn.PReLU, _prelu),
    (nn.Unflatten, _unflatten),
    (nn.Flatten, _flatten),
    (nn.PixelShuffle, _pixel_shuffle),
    (nn.PixelUnshuffle, _pixel_unshuffle),
    (nn.ChannelShuffle, _channel_shuffle),
    (nn.GLU, _glu),
    ((nn.Softmax, nn.LogSoftmax, nn.Softmin), _along),
    (nn.Fold, _fold),
    (nn.Unfold, _unfold),
    (_PADS, _reflection),
    (nn.Upsample, _upsample),
    (_EQUALS, _pair_of_equals),
    ((nn.CrossEntropyLoss, nn.NLLLoss), _classes),
)


# -- what an operator in the model's own code was given -----------------------------------------------------------------------------


def _words(stop: Stop) -> Mismatch | None:
    """Errors that torch and Python word the same on every device, and that hold the numbers in question."""
    text = str(stop.error)
    for pattern, explain in _WORDINGS:
        match = re.search(pattern, text)
        if match:
            return explain(*match.groups(), *([stop] if explain is _view else []))
    return None


def _view(target: str, elements: str, stop: Stop) -> Mismatch:
    shape = f"{shape_text(stop.operands[0])} = " if stop.operands and prod(stop.operands[0]) == int(elements) else ""
    sizes = [int(size) for size in target.split(",")] if target.strip() else []
    needed = prod(size for size in sizes if size != -1)
    some = "a multiple of " if -1 in sizes else ""
    return Mismatch(f"{shape}{elements} elements", f"{some}{needed} elements for the shape {shape_text(sizes)}")


def _expand(target: str, sizes: str, place: str, existing: str) -> Mismatch:
    return Mismatch(f"size {existing} in dimension {place}", f"size {target} or 1 in dimension {place}, to become ({sizes})")


def _unpack(expected: str, *got: str) -> Mismatch:
    return Mismatch(f"{got[0]} values" if got and got[0] else "more values", f"{expected} values to unpack")


_WORDINGS: tuple[tuple[str, Callable[..., Mismatch]], ...] = (
    (r"shape '\[([-\d, ]*)\]' is invalid for input of size (\d+)", _view),
    (
        r"^view size is not compatible with input tensor's size and stride",
        lambda: Mismatch("", "", "call", "use .reshape(...) in place of .view(...)"),
    ),
    (
        r"einsum\(\): subscript (\w) has size (\d+) for operand (\d+) which does not broadcast with previously seen size (\d+)",
        lambda letter, got, operand, seen: Mismatch(f"{letter} = {got} in operand {operand}", f"{letter} = {seen}, as before"),
    ),
    (
        r"index (-?\d+) is out of bounds for dimension (\d+) with size (\d+)",
        lambda index, dim, size: Mismatch(f"index {index} in dimension {dim}", f"an index from 0 to {int(size) - 1}", "values"),
    ),
    (
        r"^Dimension out of range \(expected to be in range of \[(-?\d+), (-?\d+)\], but got (-?\d+)\)",
        lambda low, high, got: Mismatch(f"dimension {got}", f"a dimension from {low} to {high}"),
    ),
    (
        r"split_sizes to sum exactly to (\d+) \(input tensor's size at dimension (-?\d+)\), but got split_sizes=\[(.*)\]",
        lambda size, dim, sizes: Mismatch(f"split sizes {sizes}", f"split sizes with the sum {size}, the size of dimension {dim}"),
    ),
    (
        r"input\.dim\(\) = (\d+) is not equal to len\(dims\) = (\d+)",
        lambda got, wanted: Mismatch(f"a tensor with {got} dimensions", f"{wanted} dimensions to permute"),
    ),
    (
        r"expanded size of the tensor \((\d+)\) must match the existing size \((\d+)\) at .*dimension (\d+)\.\s+Target sizes: \[(.*?)\]",
        lambda target, existing, place, sizes: _expand(target, sizes, place, existing),
    ),
    (
        r"weight of size \[[\d, ]*\], expected input\[([\d, ]+)\] to have (\d+) channels, but got \d+ channels",
        lambda got, channels: Mismatch(f"({got})", f"(N, {channels}, *)", "channels"),
    ),
    (
        r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)",
        lambda a, b, place: Mismatch(f"sizes {a} and {b} in dimension {place}", f"equal sizes, or 1, in dimension {place}"),
    ),
    (r"not enough values to unpack \(expected (\d+), got (\d+)\)", _unpack),
    (r"too many values to unpack \(expected (\d+)(?:, got (\d+))?\)", _unpack),
)


def _operands(stop: Stop) -> Mismatch | None:
    """What the operator got, where the model's own code called it with shapes that do not fit."""
    operator = stop.operator.partition(".")[2].strip("_")
    if not operator or not stop.operands:
        return None
    if operator in _PRODUCTS:
        matrices = [shape for shape in stop.operands if len(shape) >= 2][-2:]
        return Mismatch(f"matmul of {_joined(matrices)}", _product(matrices))
    fits = _OPERATORS.get(operator)
    return Mismatch(f"{operator} of {_joined(stop.operands[:4])}", fits(stop.operands, str(stop.error)) if fits else "")


def _joined(shapes: Any) -> str:
    return " and ".join(map(shape_text, shapes))


_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")


def _product(matrices: list[tuple[int, ...]]) -> str:
    if len(matrices) < 2 or matrices[0][-1] == matrices[1][-2]:
        return "equal batch sizes" if len(matrices) == 2 and matrices[0][:-2] != matrices[1][:-2] else ""
    return f"(*, {matrices[1][-2]}) on the left of {shape_text(matrices[1])}"


def _concatenated(shapes: Any, words: str) -> str:
    """The shape that every tensor must have, where torch's words tell the joined dimension: "(1, *, 16, 16) for each"."""
    if len({len(shape) for shape in shapes}) > 1:
        return "tensors with equally many dimensions"
    differ = [place for place, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]
    joined = re.search(r"except in dimension (\d+)", words)
    if joined is None or set(differ) <= {int(joined[1])}:
        return ""
    wanted = ["*" if place == int(joined[1]) else str(size) for place, size in enumerate(shapes[0])]
    return f"({', '.join(wanted)}) for each"


def _stacked(shapes: Any, _words: str) -> str:
    return "equal shapes" if len(set(shapes)) > 1 else ""


def _broadcast(shapes: Any, _words: str) -> str:
    """Name the first dimension, from the right, in which sizes are neither equal nor 1."""
    for place in range(1, max(map(len, shapes)) + 1):
        sizes = list(dict.fromkeys(shape[-place] for shape in shapes if len(shape) >= place and shape[-place] != 1))
        if len(sizes) > 1:
            dimension = len(shapes[0]) - place if len(set(map(len, shapes))) == 1 else -place
            return f"equal sizes, or 1, in dimension {dimension}"
    return ""


_OPERATORS: dict[str, Callable[[Any, str], str]] = {
    "cat": _concatenated,
    "stack": _stacked,
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div", "where", "maximum", "minimum", "pow", "masked_fill", "lerp"), _broadcast),
    **dict.fromkeys(("addcmul", "addcdiv", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "bitwise_and"), _broadcast),
}


# -- where ----------------------------------------------------------------------------------------------------------------------------


def source_line(traceback: TracebackType | None) -> str:
    """Return "nets.py:42: x = self.fc(x)": the innermost line that is neither torch's nor ours."""
    inside = tuple(str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
    found = ""
    while traceback is not None:
        code, line = traceback.tb_frame.f_code, traceback.tb_lineno
        if not code.co_filename.startswith((*inside, "<")):
            text = linecache.getline(code.co_filename, line).strip()
            found = f"{Path(code.co_filename).name}:{line}: {text}" if text else f"{Path(code.co_filename).name}:{line}"
        traceback = traceback.tb_next
    return found
