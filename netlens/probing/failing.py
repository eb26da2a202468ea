"""Saying in two lines where and why a model's own forward raised."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn

from netlens.errors import ForwardFailed
from netlens.probing.explain import mismatch, source_line
from netlens.probing.trace import Observer, observe
from netlens.probing.untouched import seeded

_LONGEST = 400  # characters of an exception's own words


def failed_forward(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception, around: Callable[[], Any] = ExitStack
) -> ForwardFailed:
    """Run once more in eval mode, look at each layer until it raises again, and say what it got and what it takes.

    Args:
        model: as it ran, on its device.
        args: of the call that raised.
        kwargs: of the call that raised.
        error: what it raised.
        around: a context for the pass: autocast.
    """
    observer = Observer(model, (args, kwargs))
    training = [module for module in model.modules() if module.training]
    try:
        with seeded(0), around(), observe(observer, autograd=False):
            model.eval()
            model(*args, **kwargs)
    except Exception as again:
        error = again
    finally:
        for module in training:
            module.training = True
    stop = observer.stop
    words = _words(error)
    line = source_line((stop.error if stop else error).__traceback__)
    at = f"see {line}" if line else "--traceback shows where"
    if stop is None:
        return ForwardFailed(f"the forward of {type(model).__name__} raised: {words}", hint=at)
    kind = type(stop.record.module).__name__
    place = f"layer `{stop.record.path}` {kind}" if stop.record.path else f"the forward of {kind}"
    found = mismatch(stop)
    if found is None or not found.expects:
        return ForwardFailed(f"{place} raised: {words}", hint=at)
    after = f" after `{stop.producer}`" if stop.producer else ""
    hint = found.remedy or "give it another --input or --size: `netlens summary` with the same model and input says which would run"
    return ForwardFailed(f"{place} expects {found.expects}, got {found.got}{after}", hint=hint)


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    plain = text if type(error) is RuntimeError and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."
