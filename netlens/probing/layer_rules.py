"""What the layers of torch take, read from their attributes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm
from torch.nn.utils.rnn import PackedSequence

from netlens.probing.call_rules import arguments_of, is_plain, layer_input
from netlens.probing.layer_shapes import sequence, sides_of, takes
from netlens.probing.patterns import Mismatch, held_against, shape_text
from netlens.probing.trace import Stop

# A layer, what it got first, the whole call -> what does not fit, or only what would, or None.
Rule = Callable[[Any, Tensor, Stop], "Mismatch | str | None"]


def not_taken(stop: Stop) -> Mismatch | None:
    """Tell what a layer of torch cannot take; None where the layer is none of torch's, or its arguments look right."""
    module, x = stop.record.module, layer_input(stop)
    if x is None or not is_plain(module):
        return None
    pattern = takes(module, x.dim())
    found = held_against(pattern, x) if pattern else None
    for kinds, rule in _RULES:
        if found is None and isinstance(module, kinds):
            verdict = rule(module, x, stop)
            found = Mismatch(shape_text(x.shape), verdict) if isinstance(verdict, str) else verdict
    return found or _dtype(module, x, stop)


# -- values, states and second arguments -----------------------------------------------------------------------------------------------


def _bilinear(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    other, features = arguments_of(stop).get("input2"), (module.in1_features, module.in2_features)
    if not isinstance(other, Tensor) or (x.shape[:-1] == other.shape[:-1] and (*x.shape[-1:], *other.shape[-1:]) == features):
        return None
    same = "" if x.shape[:-1] == other.shape[:-1] else ", with equal leading sizes"
    return Mismatch(_both(x, other), f"(*, {features[0]}) and (*, {features[1]}){same}", "channels")


def _both(x: Tensor, other: Tensor) -> str:
    return f"{shape_text(x.shape)} and {shape_text(other.shape)}"


def _batch_norm(module: Any, x: Tensor, _stop: Stop) -> str | None:
    measured = module.training or module.running_mean is None
    return f"more than one value for each of its {x.shape[1]} channels" if measured and x.numel() == x.shape[1] else None


def _instance_norm(module: Any, x: Tensor, _stop: Stop) -> str | None:
    sides = sides_of(module)
    one = prod(x.shape[-len(sides.split(", ")) :]) == 1
    return f"(N, {module.num_features}, {sides}) with more than one value in each channel" if one else None


def _embedding(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    if x.dtype not in (torch.int64, torch.int32):
        return Mismatch(f"{shape_text(x.shape)} {_name(x.dtype)}", "ids of dtype int64 or int32", "dtype")
    found = _out_of_range("ids", x, module.num_embeddings)
    if found and int(x.min()) >= 0:
        return replace(found, remedy=f"`{stop.record.path or 'it'}` would need num_embeddings={int(x.max()) + 1}")
    offsets = arguments_of(stop).get("offsets")
    if found is None and isinstance(module, nn.EmbeddingBag) and x.dim() != (2 if offsets is None else 1):
        got = f"{shape_text(x.shape)} {'without' if offsets is None else 'with'} offsets"
        return Mismatch(got, "(N, L), or (L,) with offsets", "call")
    return found


def _out_of_range(word: str, numbers: Tensor, count: int) -> Mismatch | None:
    if numbers.is_meta or not numbers.numel() or 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        return None
    return Mismatch(f"{word} from {int(numbers.min())} to {int(numbers.max())}", f"{word} from 0 to {count - 1}", "values")


def _recurrent(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    layers = module.num_layers * (2 if module.bidirectional else 1)
    batch = f"{x.shape[0 if module.batch_first else 1]}, " if x.dim() == 3 else ""
    batch = "N, " if isinstance(arguments_of(stop).get("input"), PackedSequence) else batch
    sizes = (module.proj_size or module.hidden_size, module.hidden_size)
    return _states(stop, *(f"({layers}, {batch}{size})" for size in sizes))


def _states(stop: Stop, hidden: str, cell: str) -> Mismatch | None:
    states = arguments_of(stop).get("hx")
    patterns = (f"a hidden state of {hidden}", f"a cell state of {cell}")
    pairs = zip(patterns, states if isinstance(states, tuple) else (states,), strict=False)
    found = (held_against(pattern, state, "call") for pattern, state in pairs if isinstance(state, Tensor))
    return next(filter(None, found), None)


_FEATURES = {"key": "kdim", "value": "vdim", "tgt": "d_model"}


def _sequences(module: Any, _x: Tensor, stop: Stop) -> Mismatch | None:
    given = [(name, value) for name, value in arguments_of(stop).items() if name in _FEATURES and isinstance(value, Tensor)]
    found = (held_against(f"{name} {sequence(module, getattr(module, _FEATURES[name]))}", value) for name, value in given)
    return next(filter(None, found), None)


def _attention_mask(module: Any, query: Tensor, stop: Stop) -> Mismatch | None:
    key, mask = (arguments_of(stop).get(name) for name in ("key", "attn_mask"))
    if not isinstance(mask, Tensor) or not isinstance(key, Tensor) or not query.dim() == key.dim() == 3:
        return None
    length = 1 if module.batch_first else 0
    each = f"{query.shape[1 - length] * module.num_heads}, " if mask.dim() == 3 else ""
    return held_against(f"attn_mask ({each}{query.shape[length]}, {key.shape[length]})", mask)


def _unflatten(module: Any, x: Tensor, _stop: Stop) -> str | None:
    if not isinstance(module.dim, int) or not -x.dim() <= module.dim < x.dim():
        return f"a dimension {module.dim!r} to unflatten"
    sizes = [size if isinstance(size, int) else size[1] for size in module.unflattened_size]
    product, got = prod(sizes), x.shape[module.dim]
    if -1 in sizes:
        return None if got % product == 0 else f"a multiple of {-product} in dimension {module.dim}"
    return None if got == product else f"{product} = {' x '.join(map(str, sizes))} in dimension {module.dim}"


def _dimensions(x: Tensor, *dims: int) -> str | None:
    needed = max(dim + 1 if dim >= 0 else -dim for dim in dims)
    return f"at least {needed} dimensions" if max(x.dim(), 1) < needed else None


def _along(module: Any, x: Tensor, _stop: Stop) -> str | None:
    missing = _dimensions(x, module.dim) if isinstance(module.dim, int) else None
    return missing and f"{missing}, as it runs along dim={module.dim}"


def _glu(module: Any, x: Tensor, _stop: Stop) -> str | None:
    return None if -x.dim() <= module.dim < x.dim() and x.shape[module.dim] % 2 == 0 else f"an even size in dimension {module.dim}"


def _pixel_unshuffle(module: Any, x: Tensor, _stop: Stop) -> str | None:
    factor = module.downscale_factor
    fits = x.dim() >= 3 and x.shape[-1] % factor == 0 == x.shape[-2] % factor
    return None if fits else f"(*, C, H, W) with H and W multiples of {factor}"


def _equal(_module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    target = arguments_of(stop).get("target")
    if not isinstance(target, Tensor) or target.shape == x.shape:
        return None
    return Mismatch(_both(x, target), "input and target of equal shape", "call")


def _classes(module: Any, x: Tensor, stop: Stop) -> Mismatch | None:
    """Losses over classes: scores (N, C, *) and class numbers (N, *), or, for cross entropy, probabilities (N, C, *)."""
    target = arguments_of(stop).get("target")
    if not isinstance(target, Tensor) or x.dim() == 0:
        return None
    wanted = (*x.shape[:1], *x.shape[2:]) if x.dim() > 1 else ()
    if tuple(target.shape) not in (wanted, tuple(x.shape)):
        return Mismatch(_both(x, target), f"{shape_text(x.shape)} and class numbers {shape_text(wanted)}", "call")
    if tuple(target.shape) != wanted or target.is_meta or target.is_floating_point():
        return None
    return _out_of_range("class numbers", target[target != module.ignore_index], x.shape[min(x.dim() - 1, 1)])


_EQUALS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.SoftMarginLoss)
_RULES: tuple[tuple[Any, Rule], ...] = (
    (nn.Bilinear, _bilinear),
    (instancenorm._InstanceNorm, _instance_norm),
    (batchnorm._BatchNorm, _batch_norm),
    (nn.GroupNorm, lambda m, x, _: "more than one value in each group" if x.numel() == m.num_groups else None),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, lambda m, x, stop: _states(stop, *[shape_text((*x.shape[:-1], m.hidden_size))] * 2)),
    ((nn.MultiheadAttention, nn.Transformer), _sequences),
    (nn.MultiheadAttention, _attention_mask),
    (nn.Unflatten, _unflatten),
    (nn.Flatten, lambda m, x, _: _dimensions(x, m.start_dim, m.end_dim)),
    ((nn.Softmax, nn.LogSoftmax, nn.Softmin), _along),
    (nn.GLU, _glu),
    (nn.PixelUnshuffle, _pixel_unshuffle),
    (_EQUALS, _equal),
    ((nn.CrossEntropyLoss, nn.NLLLoss), _classes),
)

# -- dtypes ----------------------------------------------------------------------------------------------------------------------------

_WITH_WEIGHTS = (nn.Linear, nn.Bilinear, conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_DTYPE_WORDS = re.compile(r"dtype|data type|not implemented for|[Ii]nput type|scalar type|floating.point|Half|Float|Long|Double")
_CAST = "--dtype fp32 casts weights and inputs alike; where forward makes tensors of its own, --autocast does it"  # where the lens has them


def _dtype(module: nn.Module, x: Tensor, stop: Stop) -> Mismatch | None:
    weight = next((p for p in module._parameters.values() if p is not None), None)
    if weight is None:
        fits, wanted = x.is_floating_point() or x.is_complex(), "a floating dtype"
    else:
        fits, wanted = weight.dtype == x.dtype or not isinstance(module, _WITH_WEIGHTS), f"dtype {_name(weight.dtype)}, as its weights"
    if fits or not _DTYPE_WORDS.search(str(stop.error)):
        return None
    return Mismatch(f"{shape_text(x.shape)} {_name(x.dtype)}", wanted, "dtype", _CAST if x.is_floating_point() else "")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
