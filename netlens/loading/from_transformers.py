"""transformers: a model that a config describes, without its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from netlens.errors import ModelNotBuilt, ModelNotFound, UsageError
from netlens.loading.extras import import_extra, version
from netlens.loading.named import NamedModel
from netlens.loading.specs import ModelSpec
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import cause, listed, user_path


def find_transformers(spec: ModelSpec, model_args: Mapping[str, object]) -> NamedModel:
    """Find a config: in a folder, by its type, or by its ID on the hub."""
    transformers = import_extra("transformers", "hf", spec.text)
    config = _config(spec, model_args)
    head = _head(config)
    untaught = _without_published_backbone(config)

    def build() -> nn.Module:
        fresh = copy.deepcopy(config)  # building completes a config in place
        model: nn.Module = transformers.AutoModel.from_config(fresh) if head is None else head._from_config(fresh)
        return model

    return NamedModel(
        spec=spec.text,
        source="transformers",
        origin=f"transformers {version('transformers')}{', without the published weights of its backbone' if untaught else ''}",
        name=spec.name if head is None else head.__name__,
        build=build,
        args=dict(model_args),
        config=config,
    )


def _config(spec: ModelSpec, model_args: Mapping[str, object]) -> Any:
    """Return the config with the user's values; it takes any name in silence, so that a typo has to be found before."""
    config = _loaded(spec, {})
    if not model_args:
        return config
    values = {**config.to_dict(), **config.attribute_map, "num_labels": 2}  # num_labels is stored as a table of names
    known = [name for name in values if not name.startswith("_")]
    for name in model_args:
        if name not in known:
            hint = did_you_mean(name, known, f"it has {listed(known, most=40)}")
            raise UsageError(f"the config {type(config).__name__} has no value {name!r}", hint=hint)
    return _loaded(spec, model_args)


def _loaded(spec: ModelSpec, model_args: Mapping[str, object]) -> Any:
    from transformers import AutoConfig

    types = _types()
    if spec.name not in types:
        return _stored(spec, types, model_args)
    try:
        return AutoConfig.for_model(spec.name, **model_args)
    except Exception as error:  # each config checks its values in its own way
        raise ModelNotBuilt(f"{spec.text!r} cannot be configured: {cause(error)}", hint="change --model-arg NAME=VALUE") from error


def _stored(spec: ModelSpec, types: list[str], model_args: Mapping[str, object]) -> Any:
    """Read a config from a folder, or from the hub."""
    from transformers import AutoConfig

    name, folder = spec.name, user_path(spec.name)
    if not (folder / "config.json").is_file():
        if folder.is_dir():
            raise ModelNotFound(f"{name!r} has no config.json", hint="hf:FOLDER is a folder that `save_pretrained` wrote")
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            hint = did_you_mean(name, types, "name a type (hf:bert), a folder with a config.json, or ORG/NAME on the hub")
            raise ModelNotFound(f"transformers has no model type {name!r}, and there is no such folder", hint=hint)
    try:
        # Never with trust_remote_code: a config must not bring its own code.
        return AutoConfig.from_pretrained(str(folder) if folder.is_dir() else name, trust_remote_code=False, **model_args)
    except Exception as error:  # the hub's client has its own errors, and its requests' client has others
        hint = "check config.json" if folder.is_dir() else "check the name and the network, or give a folder with its config.json"
        raise ModelNotFound(f"no config for {spec.text!r}: {cause(error)}", hint=hint) from error


def _without_published_backbone(config: Any) -> bool:
    """Keep a config, and those in it, from loading a backbone's published weights when it is built; tell whether it would have.

    DETR's and Table Transformer's are like that in transformers 4, where building them reaches for the network.
    """
    inner = [value for value in vars(config).values() if hasattr(value, "to_dict")]
    loads = bool(getattr(config, "use_pretrained_backbone", False))
    if loads:
        config.use_pretrained_backbone = False
    return any([loads, *map(_without_published_backbone, inner)])


def _types() -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return list(CONFIG_MAPPING)


def _head(config: Any) -> Any:
    """Return the class that the config names, when transformers has it; else AutoModel chooses the bare model."""
    import transformers

    for name in getattr(config, "architectures", None) or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    return None
