"""Running operators where meta tensors and small real ones meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from netlens.probing.kernels import kernel_of
from netlens.probing.meta import META, stand_in
from netlens.probing.pointwise import Misfit, broadcast

# Real tensors above this many elements are made on meta after all: nobody reads their values one by one, and a 128k x 128k causal mask
# would take 16 GB.
LARGE = 1 << 24

_MISSING = object()
FACTORIES = frozenset(
    {"empty", "zeros", "ones", "full", "arange", "randint", "randperm", "scalar_tensor", "tril_indices", "triu_indices", "eye"}
    | {"new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like", "linspace", "rand", "randn"}
)
# Operators (x, dim, index, ...) that read or write `x` at positions along `dim`.
_PLACED_ALONG = frozenset({"index_select", "index_add", "index_copy", "index_fill", "gather", "scatter", "scatter_add", "scatter_reduce"})


_FROM_TEMPLATE = frozenset(
    getattr(torch.ops.aten, name).default for name in ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")
)


class MixedMeta(TorchDispatchMode):
    """Lets meta tensors and small real ones meet in one operator: the result is meta, the real values stay readable."""

    def __init__(self) -> None:
        super().__init__()
        self._stand_ins: dict[int, tuple[Callable[[], Tensor | None], Tensor]] = {}
        self._kernels: dict[Any, Any] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first dispatch imports torch._dynamo: a second of every run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, with real arguments replaced where a meta argument meets them."""
        device = kwargs.get("device")
        if device is not None:
            if _moves_only(func, args, kwargs):
                return args[0].detach()  # on the real device it would be there already: `x.to(weight.device)` makes no copy
            kwargs = self._placed(func, args, kwargs, device)
        elif func in _FROM_TEMPLATE and args[0].is_meta:  # `x.new_ones(2, 3, dtype=torch.bool)`: its values do not depend on x
            kwargs = self._placed(func, args, kwargs, META)
        meta, real = _kinds(args, kwargs)
        if not meta:
            return func(*args, **kwargs)
        return self._mixed(func, args, kwargs) if real else self._on_meta(func, args, kwargs)

    def _on_meta(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kernel = self._kernels.get(func, _MISSING)
        if kernel is _MISSING:
            kernel = self._kernels[func] = kernel_of(func._schema.name.partition("::")[2], func)
        if kernel is not None:
            try:
                result = kernel(*args, **kwargs)
            except Misfit:
                raise
            except (RuntimeError, TypeError):  # shapes that do not fit, or a signature of another torch: let torch say it
                result = None
            if result is not None:
                return result
        return func(*args, **kwargs)

    def _placed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: Any) -> dict[str, Any]:
        """Keep integers real although they are sent to "meta", and meta tensors meta although they are sent elsewhere."""
        base = func._schema.name.partition("::")[2]
        to_meta = torch.device(device).type == "meta"
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if base == "_to_copy" and first is not None:
            if first.is_meta and not to_meta:
                return {**kwargs, "device": META}
            dtype = kwargs.get("dtype") or first.dtype
            if to_meta and not first.is_meta and not (dtype.is_floating_point or dtype.is_complex):
                return {**kwargs, "device": first.device}
        elif base in FACTORIES and to_meta and _is_readable(base, args, kwargs, first):
            return {**kwargs, "device": torch.device("cpu")}
        return kwargs

    def _mixed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        base = func._schema.name.partition("::")[2]
        if base in ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"):
            args = (args[0], _positions(args[0].shape, args[1]), *args[2:])
        elif base.rstrip("_") in _PLACED_ALONG and args[0].dim():
            _check_places(args[2], 0, args[0].shape[args[1]])
        elif base in ("nll_loss_forward", "nll_loss2d_forward") and not args[1].is_meta:
            _check_places(args[1][args[1] != args[4]], 0, args[0].shape[-1 if args[0].dim() == 1 else 1])
        elif base == "_pack_padded_sequence" and not args[1].is_meta:
            return _pack_padded_sequence(*args)
        elif base == "repeat_interleave":
            kwargs = {**kwargs, "output_size": int(args[1].sum())}
        elif base == "masked_select" and not args[1].is_meta:
            mask = args[1].expand(broadcast(args[0].shape, args[1].shape))
            return args[0].new_empty(int(mask.sum()))
        elif base in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
            _check_ids(args[0], args[1])
        result = self._on_meta(func, self._as_meta(args), dict(zip(kwargs, self._as_meta(tuple(kwargs.values())), strict=True)))
        if base.endswith("_") and isinstance(args[0], Tensor):
            return args[0]  # in place on a real tensor: its values are unknown now, its identity is not
        return result

    def _as_meta(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            self.stand_in_for(value)
            if isinstance(value, Tensor)
            else [self.stand_in_for(item) if isinstance(item, Tensor) else item for item in value]
            if isinstance(value, (list, tuple))
            else value
            for value in values
        )

    def stand_in_for(self, tensor: Tensor) -> Tensor:
        """Return the meta stand-in of a real tensor, the same one each time."""
        if tensor.is_meta:
            return tensor
        original, meta = self._stand_ins.get(id(tensor), (None, None))
        if original is None or meta is None or original() is not tensor:
            meta = stand_in(tensor.detach())
            self._stand_ins[id(tensor)] = (ref(tensor), meta)
            self.made_stand_in(tensor, meta)
        return meta

    def made_stand_in(self, tensor: Tensor, meta: Tensor) -> None:
        """Tell subclasses that `meta` now stands for `tensor`."""


def _moves_only(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """A `.to(device)` between the real and the meta device that this mode does not carry out, without a change of dtype."""
    if func is not torch.ops.aten._to_copy.default or kwargs.get("dtype") not in (None, args[0].dtype):
        return False
    x, to_meta = args[0], torch.device(kwargs["device"]).type == "meta"
    return bool(not to_meta if x.is_meta else to_meta and not (x.is_floating_point() or x.is_complex()))


def _kinds(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, bool]:
    """Tell whether there are meta tensors and whether there are real ones among the arguments."""
    meta = real = False
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            meta, real = meta or value.is_meta, real or not value.is_meta
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, Tensor):
                    meta, real = meta or item.is_meta, real or not item.is_meta
    return meta, real


def makes_floats(base: str, args: tuple[Any, ...], kwargs: dict[str, Any], like: Tensor | None) -> bool:
    """Tell whether a factory makes floating or complex tensors: from its dtype, its template, or its arguments."""
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return bool(dtype.is_floating_point or dtype.is_complex)
    if like is not None:
        return like.is_floating_point() or like.is_complex()
    if base in ("randint", "randperm", "tril_indices", "triu_indices"):
        return False
    if base in ("arange", "scalar_tensor"):
        return any(isinstance(value, float) for value in args)
    if base == "full":
        return isinstance(args[1], float)
    return True


def _is_readable(base: str, args: tuple[Any, ...], kwargs: dict[str, Any], like: Tensor | None) -> bool:
    """Tell whether a forward pass may ask for the values of what it makes: integers, and masks of ones (`mask.all()`), where not huge."""
    return (base == "ones" or not makes_floats(base, args, kwargs, like)) and elements(args, like) < LARGE


def elements(args: tuple[Any, ...], like: Tensor | None) -> int:
    """How many elements a factory makes: from its size, its template, or its end."""
    size = next((value for value in args if isinstance(value, (list, tuple))), None)
    if size is not None:
        count = 1
        for value in size:
            count *= int(value)
        return count
    if like is not None:
        return like.numel()
    return max((int(abs(value)) for value in args if isinstance(value, (int, float))), default=1)


def _positions(shape: Sequence[int], indices: Any) -> list[Any]:
    """Turn boolean masks into the positions they select: a mask's size is known, what it selects is not, on meta."""
    found: list[Any] = []
    for index in indices:
        if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) and not index.is_meta:
            masked = shape[len(found) : len(found) + index.dim()]
            if tuple(index.shape) != tuple(masked):
                raise IndexError(f"the shape of the mask {list(index.shape)} does not match the indexed dimensions {list(masked)}")
            found.extend(index.nonzero().unbind(1))
        else:
            if isinstance(index, Tensor) and len(found) < len(shape):
                _check_places(index, -shape[len(found)], shape[len(found)])
            found.append(index)
    return found


def _pack_padded_sequence(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """What `pack_padded_sequence` returns: data (sum of lengths, *) on meta, and the real batch size of every step."""
    if int(lengths.min()) <= 0:
        raise RuntimeError("Length of all samples has to be greater than 0")
    if len(lengths) != x.shape[0 if batch_first else 1]:
        raise RuntimeError(f"{len(lengths)} lengths are given for the padded input {tuple(x.shape)}")
    if bool((lengths[1:] > lengths[:-1]).any()):
        raise RuntimeError("lengths must be sorted in decreasing order; pass enforce_sorted=False where they are not")
    longest = int(lengths.max())
    if longest > x.shape[1 if batch_first else 0]:
        raise RuntimeError(f"a length of {longest} is longer than the padded input {tuple(x.shape)}")
    batch_sizes = (lengths.unsqueeze(0) > torch.arange(longest).unsqueeze(1)).sum(1)
    return x.new_empty((int(lengths.sum()), *x.shape[2:])), batch_sizes


def _check_places(index: Tensor, least: int, size: int) -> None:
    """Raise as real indexing does: on meta a position past the end would pass silently."""
    if index.is_meta or not index.numel() or index.dtype not in (torch.int64, torch.int32):
        return
    lowest, highest = int(index.min()), int(index.max())
    if lowest < least or highest >= size:
        raise IndexError(f"index {highest if highest >= size else lowest} is out of bounds for dimension with size {size}")


def _check_ids(weight: Tensor, ids: Tensor) -> None:
    """Raise as a real embedding does: on meta a wrong id would pass silently."""
    if not ids.is_meta and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < weight.shape[0]:
        raise IndexError(f"index out of range: ids from {int(ids.min())} to {int(ids.max())}, but the embedding has {weight.shape[0]} rows")
