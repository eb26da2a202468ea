"""Getting the model to run: on meta, else on a real device, else not at all, and saying which and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from netlens.errors import NetlensError
from netlens.probing.building import built_on_meta
from netlens.probing.explain import is_certain, is_own_check
from netlens.probing.leaves import leaves
from netlens.probing.meta import META, NotCopied, lazy_copy, skeleton, uncompiled
from netlens.probing.trace import Observer, Shapes, chain, observe, shapes_of
from netlens.probing.untouched import seeded, untouched

if TYPE_CHECKING:
    from netlens.loading.subject import Inputs, Subject

SEED = 0


@dataclass
class Attempt:
    """One model run (or not) on one device with one input."""

    model: nn.Module
    on: str  # "meta", "cpu", "cuda:0", "nothing"
    why: str = ""
    inputs: Shapes = ()
    input_bytes: int = 0
    input_source: str = ""
    notes: tuple[str, ...] = ()
    outputs: Shapes = ()
    forward: Observer | None = None  # eval mode, without autograd
    saved: Observer | None = None  # with autograd, in `saved_mode`
    saved_mode: str | None = None
    error: Exception | None = None
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = field(default=((), {}))


def attempt(subject: Subject, device: str) -> Attempt:
    """Run `subject` where it can be run: meta first, unless `device` names another.

    Returns:
        the first attempt that ran; or the one that failed in the model's own code, with `error`; or one on "nothing".
    """
    if device not in ("auto", "meta"):
        return _on_device(subject, torch.device(device), why="")
    try:
        model = _meta_model(subject)
    except NotCopied as error:
        return _on_device(subject, torch.device("cpu"), why=str(error))
    tried = _first_that_runs(subject, model, META)
    if tried.error is None or device == "meta" or _is_final(tried):
        return tried
    why = _brief(tried)
    refused = _too_large(tried)
    if refused:
        return Attempt(tried.model, "nothing", f"{why}; {refused}", tried.inputs, tried.input_bytes, tried.input_source, tried.notes)
    return _on_device(subject, torch.device("cpu"), why)


def _meta_model(subject: Subject) -> nn.Module:
    if subject.is_instance:
        return skeleton(subject.build())
    try:
        with built_on_meta():
            return uncompiled(subject.build())
    except NetlensError:  # perhaps only because its constructor reads values of its weights: build it for real, then empty it
        return skeleton(subject.build())


def _on_device(subject: Subject, device: torch.device, why: str) -> Attempt:
    with seeded(SEED):
        model = subject.build()
    if not subject.is_instance:
        model = uncompiled(model).to(device)
    else:
        device = next((p.device for p in model.parameters()), device)
    is_lent = subject.is_instance
    if is_lent and any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        model, is_lent = lazy_copy(model), False
    with untouched(model) if is_lent else seeded(None):
        tried = _first_that_runs(subject, model, device)
    tried.why = why
    return tried


def _first_that_runs(subject: Subject, model: nn.Module, device: torch.device) -> Attempt:
    """Try the inputs in order; when none runs, return what the first one met."""
    first: Attempt | None = None
    for inputs in subject.inputs(model):
        tried = _run(model, inputs, device)
        if tried.error is None or not _is_final(tried):
            return tried
        first = first or tried
    assert first is not None, "a subject always has an input"
    return first


def _run(model: nn.Module, inputs: Inputs, device: torch.device) -> Attempt:
    """One pass in eval mode for shapes and counts, one in training mode for what autograd keeps."""
    args, kwargs, notes = inputs.make(model, device)
    tried = Attempt(model, str(device), input_source=inputs.source, notes=notes, arguments=(args, kwargs))
    given = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    tried.inputs = shapes_of(args[0] if len(args) == 1 and not kwargs else given)
    tried.input_bytes = sum(tensor.numel() * tensor.element_size() for _, tensor in leaves((args, kwargs)))
    as_trained = _training_flags(model)
    model.eval()
    tried.forward = Observer(model, (args, kwargs))
    tried.error, result = _pass(model, args, kwargs, tried.forward, autograd=False)
    if tried.error is not None and "grad_fn" in str(tried.error):  # it takes gradients in its own forward
        tried.forward = Observer(model, (args, kwargs))
        tried.error, result = _pass(model, args, kwargs, tried.forward, autograd=True)
    if tried.error is not None:
        return tried
    tried.outputs = shapes_of(result)
    del result
    for mode in ("train", "eval"):  # batch norm over one value, targets that only training needs: then eval mode has to tell
        for module, flag in as_trained.items():
            module.training = flag and mode == "train"
        observer = Observer(model, (args, kwargs))
        error, _ = _pass(model, args, kwargs, observer, autograd=True)
        if error is None:
            tried.saved, tried.saved_mode = observer, mode
            break
    return tried


def _training_flags(model: nn.Module) -> dict[nn.Module, bool]:
    """The flags that training would run with: the model's own, or all set where it came in eval mode."""
    return {module: module.training or not model.training for module in model.modules()}


def _pass(model: nn.Module, args: Any, kwargs: Any, observer: Observer, *, autograd: bool) -> tuple[Exception | None, Any]:
    with seeded(SEED), _no_validation(), observe(observer, autograd=autograd):
        try:
            return None, model(*args, **kwargs)
        except Exception as error:
            if _is_ours(error):
                raise
            return error, None


def _is_ours(error: BaseException) -> bool:
    """Tell a bug of netlens from what the model did wrong: both are raised below the model's forward."""
    if not isinstance(error, (AttributeError, NameError, TypeError, LookupError, AssertionError)) or isinstance(error, IndexError):
        return False
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("netlens.probing")


@contextmanager
def _no_validation() -> Iterator[None]:
    """Distributions do not check their arguments while the block runs: the check reads values, and changes no shape."""
    distribution = torch.distributions.Distribution
    before = distribution._validate_args
    distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        distribution.set_default_validate_args(before)


def _is_final(tried: Attempt) -> bool:
    """Tell whether the model's own code is at fault, so that no other device would help, or whether no other device can be asked."""
    if tried.error is None or tried.on != "meta":
        return True
    stop = tried.forward.stop if tried.forward else None
    if stop is not None and is_certain(stop):
        return True
    return not _meta_cannot(tried.error) and ((stop is not None and is_own_check(stop)) or _too_large(tried) != "")


def _meta_cannot(error: BaseException | None) -> bool:
    """Recognise the errors of a model that asks a meta tensor for its values."""
    return any(
        isinstance(cause, NotImplementedError)
        or "DataDependent" in type(cause).__name__
        or "meta" in str(cause)
        or "unallocated" in str(cause)
        for cause in chain(error)
    )


# Operators that turn values into shapes or Python numbers, as users know them.
_READS = {
    "_local_scalar_dense": ".item(), bool() or int()",
    "index": "a boolean mask as index",
    "index_put_": "a boolean mask as index",
    "_unique2": "unique",
    "unique_dim": "unique",
    **{name: name for name in ("nonzero", "masked_select", "bincount", "allclose", "equal", "unique_consecutive", "repeat_interleave")},
}


def _brief(tried: Attempt) -> str:
    """Say why the meta device was not enough: "rpn reads values (nonzero), which the meta device does not have"."""
    error, stop = tried.error, tried.forward.stop if tried.forward else None
    text = " ".join(str(error).split())
    words = f"{type(error).__name__}: {text[:97] + '...' if len(text) > 100 else text}" if text else type(error).__name__
    if stop is None or not _meta_cannot(error):
        return f"run for real to make sure, because the meta device met {words}"
    layer = stop.record.path or "the model"
    namespace, _, name = stop.operator.partition(".")
    read = _READS.get(name) or next((word for word in ("numpy", "tolist", "bool") if word in str(stop.error)), "")
    if read:
        return f"{layer} reads values ({read}), which the meta device does not have"
    if name:
        return f"{layer} calls {name.strip('_') if namespace == 'aten' else stop.operator}, which the meta device cannot run"
    return f"the meta device cannot run it: {words}"


def _too_large(tried: Attempt) -> str:
    """Say why the real model does not fit into memory; "" where it does."""
    from netlens.loading.memory import available_memory

    needed = tried.input_bytes + sum(
        t.numel() * t.element_size() for t in (*tried.model.parameters(), *tried.model.buffers()) if not is_lazy(t)
    )
    free = available_memory()
    if free is None or needed < free:
        return ""
    return f"its weights and input take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free, so it was not run for real"
