"""Every output of every layer of a running model, named, as it is returned - before anything after it can change it in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor that a layer returned."""

    name: str  # path of the module; "conv#2" its second call; "block:relu" a function called in block's forward; "lstm.0" a part of a tuple
    type: str  # "Conv2d"; "relu" for a function
    module: nn.Module | None  # None: a function
    tensor: Tensor  # on its device, not copied: reduce or clone it at once
    after_norm: bool  # what it was called with is the output of a normalisation


@contextmanager
def watched(model: nn.Module, look: Callable[[Output], None]) -> Iterator[None]:
    """Call `look` with every output while the block runs; nothing is left on the model, also after an error.

    Leaf modules, functional activations (`F.relu`, `torch.tanh`, `x.sigmoid()`), and those containers that return another tensor than
    a module inside them just returned: the sum of a residual block is an output of its own.
    """
    raise NotImplementedError
    yield
