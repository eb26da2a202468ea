"""Tensors for `--input`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import InputError
from netlens.loading.input_specs import InputSpec
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import listed, one_line

SEED = 0
WORDS = 2  # ids are drawn from 0 and 1 where no embedding tells how many there are


def make_tensors(
    specs: Sequence[InputSpec], model: nn.Module, device: torch.device | str
) -> tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]:
    """Make the arguments that `specs` describe; see `netlens.loading.inputs.make_inputs`."""
    signature = forward_signature(model)
    if signature is not None:
        _check(specs, signature)
    maker = _Maker(model, torch.device(device))
    names = positional_names(signature)
    positional = [spec for spec in specs if spec.name is None]
    args = tuple(maker.argument(spec, names[i] if i < len(names) else f"input {i + 1}") for i, spec in enumerate(positional))
    kwargs = {spec.name: maker.argument(spec, spec.name) for spec in specs if spec.name is not None}
    return args, kwargs, tuple(maker.notes)


def forward_signature(model: nn.Module) -> inspect.Signature | None:
    """Return the signature of `model.forward` without `self`, or None where Python cannot tell."""
    try:
        return inspect.signature(model.forward)
    except (ValueError, TypeError):
        return None


def positional_names(signature: inspect.Signature | None) -> list[str]:
    """Return the names of the arguments that can be given by position."""
    parameters = signature.parameters.values() if signature else ()
    return [p.name for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]


def required_names(signature: inspect.Signature | None) -> list[str]:
    """Return the names of the arguments without a default."""
    parameters = signature.parameters.values() if signature else ()
    fixed = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is Parameter.empty and p.kind not in fixed]


def _check(specs: Sequence[InputSpec], signature: inspect.Signature) -> None:
    kinds = {p.kind for p in signature.parameters.values()}
    positional = positional_names(signature)
    given = sum(spec.name is None for spec in specs)
    if given > len(positional) and Parameter.VAR_POSITIONAL not in kinds:
        raise InputError(f"forward takes ({listed(positional)}), but {given} inputs are given", hint="give one --input for each")
    taken = positional[:given]
    known = [p.name for p in signature.parameters.values() if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    for name in (spec.name for spec in specs if spec.name is not None):
        if name not in known and Parameter.VAR_KEYWORD not in kinds:
            raise InputError(f"forward has no argument {name!r}", hint=did_you_mean(name, known, f"it takes ({listed(known)})"))
        if name in taken:
            raise InputError(
                f"the argument {name!r} of forward is given twice", hint="inputs without a name fill the arguments from the left"
            )
        taken.append(name)
    missing = [name for name in required_names(signature) if name not in taken]
    if missing:
        raise InputError(f"forward also needs {listed(map(repr, missing))}", hint=f"add --input {missing[0]}=1,3,224,224")


class _Maker:
    """Makes one argument after the other, with values that do not depend on anything else in the program."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.generator = torch.Generator().manual_seed(SEED)
        self.notes: list[str] = []

    def argument(self, spec: InputSpec, name: str) -> Tensor | list[Tensor]:
        if spec.shapes is None:
            return self._tensor(spec, spec.shape, name)
        return [self._tensor(spec, shape, name) for shape in spec.shapes]

    def _tensor(self, spec: InputSpec, shape: tuple[int, ...], name: str) -> Tensor:
        dtype = self._dtype(spec, name)
        if dtype.is_floating_point or dtype.is_complex:
            return self._floating(spec, shape, dtype)
        values = self._integers(spec, shape, dtype, name)
        return values if self.device.type == "meta" else values.to(self.device)

    def _dtype(self, spec: InputSpec, name: str) -> torch.dtype:
        if spec.dtype is not None:
            dtype: torch.dtype = getattr(torch, spec.dtype)
            return dtype
        if name.endswith("_ids") or name == "attention_mask":  # transformers' names, which are never floating
            self._note(f"{one_line(name)}: taken as int64")
            return torch.int64
        floating = (p.dtype for p in self.model.parameters() if p.dtype.is_floating_point and p.dtype.itemsize > 1)
        return next(floating, torch.get_default_dtype())

    def _floating(self, spec: InputSpec, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        if spec.fill is not None:
            return torch.full(shape, spec.fill, dtype=dtype, device=self.device)
        drawn = dtype if dtype.is_complex or dtype == torch.float64 else torch.float32
        return torch.randn(shape, generator=self.generator, dtype=drawn).to(self.device, dtype)

    def _integers(self, spec: InputSpec, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> Tensor:
        if spec.fill is not None:
            return torch.full(shape, spec.fill, dtype=dtype, device="cpu")
        if dtype == torch.bool or name.endswith("mask"):
            self._note(f"{one_line(name)}: all {'true' if dtype == torch.bool else 'ones'}")
            return torch.ones(shape, dtype=dtype, device="cpu")
        words = min(_vocabulary(self.model, name), torch.iinfo(dtype).max)
        self._note(f"{one_line(name)}: random integers in [0, {words})")
        return torch.randint(words, shape, generator=self.generator, dtype=dtype, device="cpu")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _vocabulary(model: nn.Module, name: str) -> int:
    """Return a number of ids that every embedding which may get this input has."""
    config = getattr(model, "config", None)
    words = getattr(getattr(config, "text_config", None) or config, "vocab_size", None)
    if name.endswith("input_ids") and isinstance(words, int) and words > 0:  # transformers' name for words, which has other embeddings too
        return words
    sizes = [module.num_embeddings for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))]
    return min(sizes, default=WORDS)
