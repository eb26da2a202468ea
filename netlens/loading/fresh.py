"""Whether a model that has just been built holds random values, or values that its code loads."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from netlens.errors import NetlensError
from netlens.loading.named import NamedModel
from netlens.probing.untouched import seeded

SEEDS = (1, 2)


def is_random(named: NamedModel) -> bool | None:
    """Tell whether building the model draws its weights at random; None where that cannot be told, or where only some are.

    The registries' models are random unless published values are loaded. User code is run twice, with different random numbers: weights
    (parameters of at least two axes) that are the same both times were loaded, or are constants. What torch draws on the CPU differs even
    where the code sets the seed itself; numbers from a generator of numpy that the code seeds look like loaded ones.

    Args:
        named: as `find_model` or `with_published_weights` returns it.

    Raises:
        ModelNotBuilt: its constructor raises.
    """
    if named.loaded:
        return False
    if named.is_instance:
        return None
    return _differs(named) if named.source == "python" else True


def _differs(named: NamedModel) -> bool | None:
    model = _built(named, SEEDS[0])
    if any(is_lazy(parameter) for parameter in model.parameters()):
        return True  # they are drawn when the model first runs
    first, before = ref(model), dict(_digests(model))
    del model  # two copies of a large model may be one too many
    try:
        again = _built(named, SEEDS[1])
    except NetlensError:  # it can be called once only
        return None
    if first() is again or not before:
        return None
    after = dict(_digests(again))
    same = [after.get(name) == digest for name, digest in before.items()]
    return None if any(same) and not all(same) else not all(same)


def _built(named: NamedModel, seed: int) -> nn.Module:
    """Build with other random numbers for every seed, and leave nothing behind: neither generators' states nor printed words."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), seeded(seed), _OwnNumbers(seed):
        return named.build()


def _digests(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield a digest of every weight that has values: a parameter of floating numbers with at least two axes, and not a constant."""
    for name, parameter in model.named_parameters():
        floating = parameter.is_floating_point() or parameter.is_complex()
        if floating and parameter.dim() >= 2 and parameter.numel() and parameter.layout == torch.strided and not parameter.is_meta:
            plain = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8)
            yield name, hashlib.blake2b(plain.numpy().data, digest_size=16).hexdigest()


def _varies(parameter: nn.Parameter) -> bool:
    """Tell a weight from one that is filled with a single number, as heads that start from zero are."""
    flat = parameter.detach().reshape(-1)
    return bool(flat.numel()) and bool((flat != flat[0]).any())


class _OwnNumbers(TorchDispatchMode):
    """Seeds torch's generator anew before each operator that draws from it, whatever the code seeds or hands over."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.next = seed

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first dispatch imports torch._dynamo: a second of every run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags:
            torch.default_generator.manual_seed(self.next)
            self.next += 1
            if "generator" in kwargs:
                kwargs["generator"] = None
        return func(*args, **kwargs)
