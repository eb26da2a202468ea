"""A model and its inputs, brought to where and how they run: device, dtype, memory format; and back again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netlens.errors import NetlensError, UsageError
from netlens.loading.device import threads
from netlens.loading.shortage import check_room, explained, free_cached, levers, out_of_memory
from netlens.loading.words import cause
from netlens.probing.building import built_on_meta
from netlens.probing.leaves import map_tensors

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of dimensions
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def torch_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """Return what `--dtype bf16` means; None stays None, which is "as it comes".

    Raises:
        UsageError: it is none of the four.
    """
    if name is None or isinstance(name, torch.dtype):
        return name
    text = str(getattr(name, "value", name))
    if text not in DTYPES:
        raise UsageError(f"{text!r} is not a dtype to compute in", hint=f"write {', '.join(DTYPES)}")
    return DTYPES[text]


@contextmanager
def placed(
    model: nn.Module,
    device: torch.device,
    *,
    dtype: str | torch.dtype | None = None,
    channels_last: bool = False,
    lent: bool = False,
) -> Iterator[nn.Module]:
    """Bring `model` to `device` for as long as the block runs, and compute with `device.threads()` threads.

    Parameters and buffers stay the objects that they are, tied ones tied. Only floating ones are cast: integers and complex ones keep
    their dtype. With channels last every weight of four or five dimensions is laid out so, as `model.to(memory_format=...)` does.

    Args:
        model: changed in place.
        device: from `choose_device`.
        dtype: "fp32", "fp16", "bf16", "fp64" or a dtype of torch; None: as it is.
        channels_last: lay weights out as (N, H, W, C).
        lent: it is the user's own, which gets back its very tensors, with `.grad`; meanwhile both are in memory.

    Raises:
        OutOfMemory: the weights do not fit. UsageError: the device does not take that dtype.
    """
    cast = torch_dtype(dtype)
    options = levers(device, dtype=str(getattr(dtype, "value", dtype)) if dtype else None)
    check_room(sum(_size(tensor, cast) for tensor in _tensors(model) if tensor.device != device), device, options)
    with ExitStack() as stack:
        stack.enter_context(_threads())
        if lent:
            stack.enter_context(_given_back(model))
        try:
            model._apply(lambda tensor: _placed(tensor, device, cast, channels_last))
        except (RuntimeError, TypeError, MemoryError) as error:
            raise _not_placed(error, device, dtype, options) from error
        yield model


def place_inputs(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    device: torch.device,
    *,
    dtype: str | torch.dtype | None = None,
    channels_last: bool = False,
) -> Arguments:
    """Return the arguments of a forward pass with their tensors on `device`, cast and laid out like the weights of `placed`."""
    cast = torch_dtype(dtype)

    def place(tensor: Tensor) -> Tensor:
        return _placed(tensor, device, cast, channels_last)

    return map_tensors(args, place), map_tensors(kwargs, place)


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """Return the dtype that inputs of `model` should have: that of its first floating parameter; None where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype.itemsize > 1), None)


@contextmanager
def autocasting(device: torch.device, dtype: str | torch.dtype | None) -> Iterator[None]:
    """Run the block under torch's autocast, and make sure that it is in effect: it switches itself off with a warning only.

    Raises:
        UsageError: `device` has no autocast to `dtype`.
    """
    wanted = torch_dtype(dtype)
    if wanted is None:
        yield
        return
    with ExitStack() as stack:
        works = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stack.enter_context(torch.autocast(device.type, wanted))
            one = torch.ones(1, 1, device=device)
            works = (one @ one).dtype == wanted
        except RuntimeError:  # older versions refuse a device, or a dtype, in these words
            pass
        if not works:
            what = f"--autocast {getattr(dtype, 'value', dtype)} has no effect on {device.type} with torch {torch.__version__}"
            raise UsageError(what, hint="leave it out, or take --autocast bf16")
        yield


def weight_bytes(model: nn.Module, dtype: str | torch.dtype | None = None) -> int:
    """Return the bytes of all parameters and buffers, tied ones once, as they are or cast; also of a model on the meta device."""
    cast = torch_dtype(dtype)
    return sum(_size(tensor, cast) for tensor in _tensors(model))


def check_weights(build: Callable[[], nn.Module], device: torch.device, dtype: str | torch.dtype | None, levers: Sequence[str]) -> str:
    """Build a model on the meta device first, and refuse one whose weights this machine, or `device`, has no room for.

    Returns:
        a note where it will be tight, else "".

    Raises:
        OutOfMemory: the weights do not fit.
    """
    try:
        with built_on_meta():
            model = build()
    except NetlensError:  # it reads its weights while it is built: nothing can be said
        return ""
    cpu = torch.device("cpu")
    notes = [check_room(weight_bytes(model), cpu, levers)]
    if device != cpu:
        notes.append(check_room(weight_bytes(model, dtype), device, levers))
    return notes[-1]


def _tensors(model: nn.Module) -> list[Tensor]:
    found = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return [tensor for tensor in found.values() if not is_lazy(tensor)]


def _size(tensor: Tensor, cast: torch.dtype | None) -> int:
    dtype = cast if cast is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.numel() * dtype.itemsize


def _placed(tensor: Tensor, device: torch.device, cast: torch.dtype | None, channels_last: bool) -> Tensor:
    tensor = tensor.to(device, cast if cast is not None and tensor.is_floating_point() else tensor.dtype)
    if channels_last and not is_lazy(tensor) and tensor.is_floating_point() and tensor.dim() in CHANNELS_LAST:
        return tensor.contiguous(memory_format=CHANNELS_LAST[tensor.dim()])
    return tensor


def _not_placed(error: Exception, device: torch.device, dtype: str | torch.dtype | None, levers: Sequence[str]) -> NetlensError:
    if out_of_memory(error):
        told = explained(error, device, levers)
        free_cached()
        return told
    how = f" as {getattr(dtype, 'value', dtype)}" if dtype else ""
    return UsageError(f"the model cannot be moved to {device}{how}: {cause(error)}", hint="try another --dtype, or --device cpu")


@contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _given_back(model: nn.Module) -> Iterator[None]:
    """Give every parameter its own storage and gradient again, and every module its own buffers: nothing is copied there and back."""
    parameters = [(parameter, parameter.data, parameter.grad) for parameter in model.parameters()]
    buffers = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    for parameter, _, _ in parameters:
        parameter.grad = None  # it would be moved as well, and may not be of another dtype
    try:
        yield
    finally:
        for parameter, data, grad in parameters:
            parameter.grad = None
            parameter.data = data
            parameter.grad = grad
        for module, name, buffer in buffers:
            if dict(module._buffers.items()).get(name) is not buffer:  # no plain dict in a scripted module
                module._buffers[name] = buffer
