"""Why a layer raised: what it got, what it takes, and which line of the user's code called it.

The layer's own attributes say what it takes (`in_features`, `num_channels`, `normalized_shape`), so the explanation does not depend on
how a backend words its error. What is said of shapes was checked against them: such a mismatch holds on every device, and the model need
not be run for real to confirm it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from traceback import StackSummary, walk_tb
from types import TracebackType

import torch
from torch import nn

from netlens.probing.call_rules import layer_input, wrong_call
from netlens.probing.layer_rules import not_taken
from netlens.probing.operator_rules import operands_of, worded
from netlens.probing.patterns import Mismatch, shape_text
from netlens.probing.trace import Stop

# Words of exceptions about shapes, where a model checks its input itself.
ABOUT_SHAPE = re.compile(
    r"shape|size|dim|height|width|channel|resolution|divisible|multiple|patch|window|length|pixel|\dx\d", re.IGNORECASE
)


def mismatch(stop: Stop) -> Mismatch | None:
    """Tell what the layer that raised cannot take; None where its arguments look right."""
    operands = operands_of(stop)
    told = operands if operands is not None and operands.expects else None
    refused = layer_input(stop) if is_own_check(stop) else None
    checked = Mismatch(shape_text(refused.shape), "") if refused is not None else None
    return wrong_call(stop) or not_taken(stop) or told or worded(stop) or operands or checked


def is_certain(stop: Stop) -> bool:
    """Tell whether what raised on the meta device raises on every device: shapes that do not fit, or a wrong call.

    Not a dtype, which autocast may change on a real device, nor values, which meta may not know; but ids are always what they are.
    """
    found = mismatch(stop)
    ids = isinstance(stop.record.module, (nn.Embedding, nn.EmbeddingBag))
    return found is not None and found.expects != "" and (found.about in ("shape", "channels", "call") or ids)


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


def source_line(traceback: TracebackType | None) -> str:
    """Return "nets.py:42: x = self.fc(x)": the innermost line that is neither torch's nor ours."""
    inside = tuple(str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
    frames = StackSummary.extract(walk_tb(traceback), lookup_lines=False)
    last = next((frame for frame in reversed(frames) if not frame.filename.startswith((*inside, "<"))), None)
    if last is None:
        return ""
    return f"{Path(last.filename).name}:{last.lineno}" + (f": {last.line}" if last.line else "")
