"""What went wrong in a forward pass, and what would run instead.

No remedy is a guess: an input, or another argument of a layer, is proposed only after the model ran with it on the meta device. The
search is bounded, and not begun where another shape cannot help.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from netlens.lenses.summary.other_inputs import input_that_runs, other_dtype
from netlens.lenses.summary.other_layers import layers_that_fit
from netlens.lenses.summary.report import Failure
from netlens.lenses.summary.trials import Bench as _Bench
from netlens.lenses.summary.trials import got_the_input
from netlens.probing.explain import ABOUT_SHAPE, mismatch, source_line
from netlens.probing.patterns import Mismatch
from netlens.probing.trace import Stop

if TYPE_CHECKING:
    from netlens.lenses.summary.attempts import Attempt

_LONGEST = 400  # characters of an exception's own words
_SHAPE_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError)


def failure_of(tried: Attempt) -> Failure:
    """Explain the error of an attempt."""
    error = tried.error
    assert error is not None
    stop = tried.forward.stop if tried.forward else None
    if stop is None:
        return Failure("", type(tried.model).__name__, _words(error), "", "", "", source_line(error.__traceback__), "")
    found = mismatch(stop) or Mismatch("", "")
    message = _words(error) if stop.error is error else f"{_words(error)} (after {_words(stop.error)})"
    return Failure(
        path=stop.record.path,
        type=type(stop.record.module).__name__,
        message=message if len(message) <= _LONGEST else message[: _LONGEST - 3] + "...",
        got=found.got,
        expects=found.expects,
        producer="" if got_the_input(tried, stop) else stop.producer or "",
        source=source_line(stop.error.__traceback__) or source_line(error.__traceback__),
        remedy=_remedy(tried, stop, found),
    )


def _words(error: BaseException) -> str:
    """The exception's own words, on one line."""
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    plain = type(error) is RuntimeError or type(error).__module__.startswith("netlens.")
    return text if plain else f"{type(error).__name__}: {text}"


def _remedy(tried: Attempt, stop: Stop, found: Mismatch) -> str:
    if found.about == "call" or (found.about == "values" and got_the_input(tried, stop)):
        return found.remedy
    said = f"{stop.error} {source_line(stop.error.__traceback__)}"
    if re.search(r"not compiled with CUDA|NVIDIA driver|CUDA GPU|on the same device", said):
        return "make tensors where the input is: device=x.device"
    if not found.expects and not (isinstance(stop.error, _SHAPE_ERRORS) and ABOUT_SHAPE.search(said)):
        return ""
    bench = _Bench(tried, stop)
    if found.about == "dtype":
        return other_dtype(bench)
    runs = input_that_runs(bench, found)
    if runs and not runs.startswith("--input"):
        return runs  # it says what is wrong with the input
    changes = found.remedy or layers_that_fit(bench, found)
    if runs and changes:
        return f"{runs}; for this input, {changes}"
    guessed = f"the input was guessed from {tried.input_source}: say with --input what the model takes"
    return runs or changes or (guessed if "layer" in tried.input_source else "")
