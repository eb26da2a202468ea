"""timm's registry, with the architecture that the name stands for and no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from netlens.errors import ModelNotFound, UsageError
from netlens.loading.extras import import_extra, version
from netlens.loading.named import NamedModel
from netlens.loading.specs import ModelSpec
from netlens.loading.suggest import closest, did_you_mean

RESERVED = ("pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir")


def find_timm(spec: ModelSpec, model_args: Mapping[str, object]) -> NamedModel:
    """Find a name in timm's registry."""
    timm = import_extra("timm", "timm", spec.text)
    for reserved in RESERVED:
        if reserved in model_args:
            raise UsageError(f"{reserved} cannot be set with --model-arg: netlens fetches no weights", hint="leave it out")
    name = _known_name(timm, spec.name)

    def build() -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, **model_args)
        return model

    origin = f"timm {version('timm')}"
    return NamedModel(spec=spec.text, source="timm", origin=origin, name=name, build=build, args=dict(model_args))


def _known_name(timm: Any, name: str) -> str:
    """Return timm's spelling of the name; "resnet18.a1_in1k" is an architecture and the tag of its weights."""
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        close = closest(architecture, known)
        if close is None or close.lower() != architecture.lower():
            hint = did_you_mean(architecture, known, "the names: python -c 'import timm; print(timm.list_models())'")
            raise ModelNotFound(f"timm has no model {architecture!r}", hint=hint.replace("'", "'timm:", 1) if close else hint)
        architecture = close
    tagged = timm.list_pretrained(f"{architecture}.*") if tag else []
    if tag and f"{architecture}.{tag}" not in tagged:
        tags = [other.partition(".")[2] for other in tagged]
        otherwise = f"it has {', '.join(tags[:8])}" if tags else f"leave the tag out: timm:{architecture}"
        raise ModelNotFound(f"timm has no weights {tag!r} of {architecture}", hint=did_you_mean(tag, tags, otherwise))
    return f"{architecture}.{tag}" if tag else architecture
