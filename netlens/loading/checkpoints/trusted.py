"""Checkpoints that are programs: opened only with consent, because opening them runs what they hold.

`torch.export.load` evaluates texts of the file as expressions and unpickles its example inputs; `torch.jit.load` runs the `__setstate__`
of the archive's own code, which may write files.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netlens.errors import FileProblem, UsageError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.ask import PROGRAMS, refused_program
from netlens.loading.input_specs import Candidate, InputSpec
from netlens.loading.named import NamedModel
from netlens.loading.words import cause, one_line

EXAMPLE = "the program's example inputs"


def open_program(archive: Archive, trust: bool) -> nn.Module:
    """Return the program as a module with its layers: hooks fire on those of torch.export, but on none inside TorchScript.

    Raises:
        UsageError: without `trust`, or the file holds no program. FileProblem: torch cannot open it.
    """
    return _opened(archive, trust)[0]


def program_as_model(archive: Archive, trust: bool, text: str) -> NamedModel:
    """Return the program as what the user may name: `netlens summary model.pt2 --trust-checkpoint`.

    Args:
        archive: of kind "exported program" or "torchscript".
        trust: the user's consent.
        text: as the user typed it.

    Raises:
        UsageError, FileProblem: see `open_program`.
    """
    module, args, kwargs = _opened(archive, trust)
    origin = "torch.export" if archive.kind == "exported program" else "TorchScript"
    specs = _specs(args, kwargs)
    inputs = (Candidate(specs, EXAMPLE),) if specs else ()
    return NamedModel(text, "program", origin, archive.path.stem, lambda: module, is_instance=True, inputs=inputs)


def _opened(archive: Archive, trust: bool) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    name = one_line(archive.path.name)
    if archive.kind not in PROGRAMS:
        raise UsageError(f"{name} holds weights, not a program", hint=f"name the model that they are for, with --checkpoint {name}")
    if not trust:
        raise refused_program(archive)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.load calls itself deprecated; the file is as it is
            return _exported(archive) if archive.kind == "exported program" else _scripted(archive)
    except Exception as error:
        raise FileProblem(
            f"torch {torch.__version__} cannot open {name}: {cause(error)}", hint="open it with the torch that wrote it, or a newer one"
        ) from error


def _exported(archive: Archive) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    program = torch.export.load(str(archive.path))
    args, kwargs = program.example_inputs or ((), {})
    # `program.module()` has the layers' names, but hooks on them never fire.
    return torch.export.unflatten(program), args, kwargs


def _scripted(archive: Archive) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    return torch.jit.load(str(archive.path), map_location="cpu"), (), {}


def _specs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[InputSpec, ...]:
    """Describe the example inputs; () where one of them is no tensor."""
    given = [(None, value) for value in args] + list(kwargs.items())
    if not given or not all(isinstance(value, Tensor) for _, value in given):
        return ()
    return tuple(InputSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in given)
