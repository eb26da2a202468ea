"""torchvision's registry: every model as it is, or exactly as its weights were published, without a download."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from torch import nn

from netlens.errors import ModelNotBuilt, ModelNotFound, UsageError
from netlens.loading.arguments import RESERVED, accepted_arguments, check_model_args
from netlens.loading.extras import version
from netlens.loading.named import NamedModel
from netlens.loading.specs import ModelSpec
from netlens.loading.suggest import closest, did_you_mean
from netlens.loading.words import cause, listed


def find_torchvision(spec: ModelSpec, model_args: Mapping[str, object], weights: str | None) -> NamedModel:
    """Find a builder in torchvision's registry."""
    builder = _builder(spec)
    name = spec.name.lower()  # as torchvision itself does
    for reserved in RESERVED:
        if reserved in model_args:
            raise UsageError(f"{reserved} cannot be set with --model-arg", hint="--weights DEFAULT builds the model as it was published")
    check_model_args(builder, model_args, name, reserved=RESERVED)
    entries = _entries(builder, quantized=bool(model_args.get("quantize")))
    asked = None if weights is None else _entry(entries, weights, name)
    fixed: dict[str, Any] = {"weights": asked}
    if "weights_backbone" in accepted_arguments(builder).parameters:
        fixed["weights_backbone"] = None

    def build() -> nn.Module:
        # Also without weights: whatever a builder thinks of, nothing is fetched.
        with warnings.catch_warnings(), published_architecture():
            warnings.simplefilter("ignore")  # torchvision's remarks on how it initialises GoogLeNet
            model: nn.Module = builder(**fixed, **model_args)
        return model

    return NamedModel(
        spec=spec.text,
        source="torchvision",
        origin=f"torchvision {version('torchvision')}",
        name=name,
        build=build,
        args=dict(model_args),
        target=builder,
        presets=tuple(_asked_first(entries, asked)),
        weights=None if asked is None else str(asked),
    )


@contextmanager
def published_architecture() -> Iterator[None]:
    """Let torchvision's builders shape a model for its weights, and leave the weights themselves where they are.

    A builder does more for `weights=...` than to load them: it sets `num_classes`, freezes batch norms, adds heads and drops them again.
    """
    from torchvision.models._api import WeightsEnum

    fetch, load = WeightsEnum.get_state_dict, nn.Module.load_state_dict
    try:
        WeightsEnum.get_state_dict = lambda *_args, **_kwargs: {}
        nn.Module.load_state_dict = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
        yield
    finally:
        WeightsEnum.get_state_dict = fetch
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def _builder(spec: ModelSpec) -> Callable[..., nn.Module]:
    models = _registry()
    try:
        builder: Callable[..., nn.Module] = models.get_model_builder(spec.name)
    except ValueError:
        raise _unknown(spec, models.list_models()) from None
    return builder


def _registry() -> Any:
    try:
        import torchvision.models
    except ModuleNotFoundError as error:
        raise ModelNotBuilt(f"torchvision cannot be imported: {cause(error)}", hint="pip install torchvision") from error
    except (ImportError, RuntimeError, OSError) as error:  # "operator torchvision::nms does not exist"
        raise ModelNotBuilt(
            f"torchvision {version('torchvision')} does not fit torch {version('torch')}: {cause(error)}",
            hint="install builds that belong together, in one command: pip install --upgrade torch torchvision",
        ) from error
    return torchvision.models


def _unknown(spec: ModelSpec, known: list[str]) -> ModelNotFound:
    name = spec.name
    if Path(name).exists():
        return ModelNotFound(f"torchvision has no model {name!r}", hint=f"for the file or folder of that name: ./{name}")
    close = closest(name, known)
    if close is None or _letters(close) != _letters(name):
        close = _elsewhere(name) or close
    if close is not None:
        return ModelNotFound(f"torchvision has no model {name!r}", hint=f"did you mean {close!r}?")
    module, _, attribute = name.rpartition(".")
    if module and attribute.isidentifier():
        what = f"there is no module {name.partition('.')[0]!r} either"
        return ModelNotFound(f"torchvision has no model {name!r}, and {what}", hint="run netlens where your modules can be imported")
    hint = "other places: timm:NAME, hf:TYPE, package.module:Net, nets.py:Net"
    return ModelNotFound(f"torchvision has no model {name!r}", hint=hint)


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _elsewhere(name: str) -> str | None:
    """Return "timm:NAME" or "hf:TYPE" where just this name is known. Slow, because it imports them: for a wrong name only."""
    try:
        if importlib.util.find_spec("timm") and importlib.import_module("timm").is_model(name):
            return f"timm:{name}"
        if importlib.util.find_spec("transformers") and name in importlib.import_module("transformers").CONFIG_MAPPING:
            return f"hf:{name}"
    except (ImportError, RuntimeError, OSError, AttributeError):  # it is there, and broken: not what the user asked about
        return None
    return None


def _entries(builder: Callable[..., nn.Module], quantized: bool) -> list[Any]:
    """Return the published weights that fit the builder: of its quantised form only where that is built."""
    annotation = inspect.signature(builder, eval_str=True).parameters["weights"].annotation
    enums = [enum for enum in (annotation, *get_args(annotation)) if isinstance(enum, type) and hasattr(enum, "verify")]
    # ResNet18_QuantizedWeights | ResNet18_Weights: the quantised come first.
    chosen = enums[0] if quantized else enums[-1]
    return list(chosen)  # type: ignore[call-overload, no-any-return]


def _default(entries: list[Any]) -> Any:
    return type(entries[0]).DEFAULT


def _entry(entries: list[Any], wanted: str, name: str) -> Any:
    short = wanted.removeprefix(f"{type(entries[0]).__name__}.")
    names = [entry.name for entry in entries]
    if short.upper() == "DEFAULT":
        return _default(entries)
    if short in names:
        return entries[names.index(short)]
    choices = listed(["DEFAULT", *names])
    raise UsageError(f"{name} has no weights {wanted!r}; it has {choices}", hint=did_you_mean(short, names, f"choose one of {choices}"))


def _asked_first(entries: list[Any], asked: Any | None) -> list[Any]:
    first = _default(entries) if asked is None else asked
    return [first, *(entry for entry in entries if entry is not first)]
