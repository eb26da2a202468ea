"""A model that has been found but not built, and what to say when building it fails."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from netlens.errors import ModelNotBuilt
from netlens.loading.arguments import RESERVED, accepted_arguments, described, missing_arguments, required_arguments, unknown_argument
from netlens.loading.input_specs import Candidate
from netlens.loading.words import cause, one_line


@dataclass(frozen=True)
class NamedModel:
    """A model that has been found but not built."""

    spec: str  # as the user may type it again
    source: str  # "torchvision", "timm", "transformers", "python" or "program"
    origin: str  # for the report's header: "torchvision 0.29.2", "nets.py"
    name: str  # "resnet18", "Net"
    build: Callable[[], nn.Module]  # constructs anew at each call, except for an instance; raises ModelNotBuilt
    is_instance: bool = False  # `build` returns the user's own object
    args: Mapping[str, object] = field(default_factory=dict)  # from --model-arg
    target: Callable[..., object] | None = None  # what `build` calls with the args, where that says something to the user
    presets: tuple[Any, ...] = ()  # torchvision's weights entries of this architecture, the asked or default one first
    weights: str | None = None  # the entry that was asked for: "ResNet50_Weights.IMAGENET1K_V2"
    config: object | None = None  # transformers' config
    inputs: tuple[Candidate, ...] = ()  # that came with the model itself
    loaded: tuple[str, ...] = ()  # which published values `build` loads, and how they fit; () where it loads none


_SUPER = "begin __init__ with super().__init__(): nn.Module must be set up before anything is assigned"


def build_error(error: BaseException, named: NamedModel) -> ModelNotBuilt:
    """Turn what a constructor raised into two lines: the cause and where it is, and how the constructor is called."""
    missing = _missing(error, named)
    if missing:
        return missing_arguments(named.name, missing)
    hint = _SUPER if "before Module.__init__() call" in str(error) else _unexpected(error)
    call = described(named.target, RESERVED if named.source == "torchvision" else ()) if named.target else ""
    if not hint and call:
        hint = f"it is called like {call}; set its arguments with --model-arg NAME=VALUE"
    what = f"{one_line(named.spec)} cannot be built: {cause(error)}{_where(error, named)}"
    return ModelNotBuilt(what, hint=hint or "change its arguments with --model-arg NAME=VALUE")


def user_line(error: BaseException) -> str:
    """Return "nets.py:12", the deepest line of the traceback that is neither Python's, an installed package's nor netlens's own."""
    folders = [str(Path(__file__).parent.parent), *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))]
    others = ("<", *(f"{folder}{os.sep}" for folder in folders))
    users = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    if not users:
        return ""
    path = Path(users[-1].filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{one_line(shown)}:{users[-1].lineno}"


def guarded(named: NamedModel) -> NamedModel:
    """Wrap `build`: only a module comes out, errors are two lines, and what the user's code prints stays off the report's stdout."""

    def build() -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):
                model: object = named.build()
        except (Exception, SystemExit) as error:
            raise build_error(error, named) from error
        if isinstance(model, nn.Module) and "_modules" not in vars(model):
            raise ModelNotBuilt(f"{type(model).__name__} does not call super().__init__()", hint=_SUPER)
        if isinstance(model, nn.Module):
            return model
        raise ModelNotBuilt(f"{one_line(named.spec)} returned {_kind(model)}, not a model", hint=_way_out(model))

    return replace(named, build=build)


def _missing(error: BaseException, named: NamedModel) -> list[str]:
    """Return the arguments that the call itself lacked; not those that some call deeper inside lacked."""
    text = str(error)
    if named.target is None or not (isinstance(error, TypeError) and "missing" in text and "required" in text):
        return []
    return [name for name in required_arguments(named.target) if name not in named.args]


def _unexpected(error: BaseException) -> str:
    """Return what the class takes that refused an argument: it is somewhere in the frame that called it."""
    refused = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    frames = [frame for frame, _line in traceback.walk_tb(error.__traceback__)]
    if not (isinstance(error, TypeError) and refused and frames):
        return ""
    for value in (*frames[-1].f_locals.values(), *frames[-1].f_globals.values()):
        if isinstance(value, type) and value.__name__ == refused[1]:
            return unknown_argument(refused[1], refused[2], accepted_arguments(value).parameters).hint
    return ""


def _where(error: BaseException, named: NamedModel) -> str:
    line = user_line(error) if named.source == "python" else ""
    return f" ({line})" if line else ""


def _kind(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(item).__name__ for item in value[:4])}"
    return f"an object of type {type(value).__name__}"


def _way_out(value: object) -> str:
    if value is None:
        return "does it end without `return model`?"
    return "name a class, or a function that returns one torch.nn.Module"
