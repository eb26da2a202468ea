"""From what the user named to a thunk that builds the model.

`find_model` imports what is needed and refuses what cannot work; the model itself is made only by `NamedModel.build`, so that
the caller decides where: first with parameters that hold no data, and for real only where that is not enough.
"""

from __future__ import annotations

from collections.abc import Mapping

from netlens.errors import UsageError
from netlens.loading.named import NamedModel, build_error, guarded
from netlens.loading.specs import ModelSpec

__all__ = ["NamedModel", "build_error", "find_model"]


def find_model(spec: ModelSpec, model_args: Mapping[str, object], weights: str | None = None) -> NamedModel:
    """Find what `spec` names, and check the arguments that it shall be built with.

    Raises:
        ModelNotFound, ModelNotBuilt, UsageError, MissingExtra: each says what to change.
    """
    if spec.source == "checkpoint":
        raise UsageError(f"{spec.text!r} is a checkpoint, not a model", hint=f"name the model that it is for: --checkpoint {spec.text}")
    if weights is not None and spec.source != "torchvision":
        raise UsageError(f"--weights is for the models of torchvision, and {spec.text!r} is none", hint=_instead_of_weights(spec))
    if spec.source == "torchvision":
        from netlens.loading.from_torchvision import find_torchvision

        return guarded(find_torchvision(spec, model_args, weights))
    if spec.source == "timm":
        from netlens.loading.from_timm import find_timm

        return guarded(find_timm(spec, model_args))
    if spec.source == "transformers":
        from netlens.loading.from_transformers import find_transformers

        return guarded(find_transformers(spec, model_args))
    from netlens.loading.from_python import find_python

    return guarded(find_python(spec, model_args))


def _instead_of_weights(spec: ModelSpec) -> str:
    if spec.source == "timm":
        return "timm keeps the architecture of its weights in the name: timm:NAME.TAG"
    if spec.source == "transformers":
        return "name the published model itself: hf:ORG/NAME"
    return "leave --weights out: the model is built as its code says"
