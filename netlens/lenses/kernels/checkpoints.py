"""The checkpoints that a request names: read before torch is imported, refused where they hold no weights, and told apart by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netlens.errors import UsageError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.ask import Ask
from netlens.loading.checkpoints.groups import checked_group
from netlens.loading.checkpoints.read import read_archive
from netlens.loading.specs import ModelSpec

OF_A_MODEL = ("model_arg", "weights", "checkpoint", "strip_prefix", "no_strict", "trust_checkpoint")
OF_A_CHECKPOINT = ("key", "strip_prefix", "no_strict", "trust_checkpoint")


def in_place_of_model(spec: ModelSpec, asked: Mapping[str, Any]) -> Archive | None:
    """Read the checkpoint that stands in the model's place; None where a model is named.

    Raises:
        NetlensError: it cannot be read, holds no weights, or an option is given that needs a model.
    """
    if spec.source != "checkpoint" or spec.path is None:
        return None
    for name in OF_A_MODEL:
        if asked.get(name):
            option = f"--{name.replace('_', '-')}"
            hint = f"name the model that it belongs to: netlens kernels MODEL --checkpoint {spec.text}"
            raise UsageError(f"{option} needs a model, and {spec.text!r} is a checkpoint", hint=hint)
    archive = read_archive(spec.path)
    checked_group(archive, asked.get("key"))
    return _of_weights(archive, asked.get("key"))


def compared(asked: Mapping[str, Any]) -> Ask | None:
    """Read what `--against` names.

    Raises:
        NetlensError: it cannot be read, or holds no weights.
    """
    if asked.get("against") is None:
        return None
    ask = Ask.of({**{name: asked[name] for name in OF_A_CHECKPOINT if name in asked}, "checkpoint": asked["against"]})
    if ask is not None:
        _of_weights(ask.archive, ask.key)
    return ask


def of_model(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked of the model; where it has no checkpoint, how to read one is said about the other."""
    about_other = asked.get("against") is not None and asked.get("checkpoint") is None
    return {name: value for name, value in asked.items() if not (about_other and name in OF_A_CHECKPOINT)}


def _of_weights(archive: Archive, key: str | None) -> Archive:
    """Refuse what an optimizer keeps beside each weight: it has the shapes of weights, and is none."""
    if key and any(group.key == key and group.role == "optimizer" for group in archive.groups):
        hint = f"leave --key out; `netlens summary {archive.path.name}` shows what is in it"
        raise UsageError(f"{key!r} of {archive.path.name} is the state of an optimizer, and no weights", hint=hint)
    return archive


def told_apart(one: Path, other: Path) -> tuple[str, str]:
    """Name two files; both with their folders where many of one name are kept in folders: "run1/best.pt"."""
    if one.name != other.name or one.resolve() == other.resolve():
        return one.name, other.name
    return f"{one.resolve().parent.name}/{one.name}", f"{other.resolve().parent.name}/{other.name}"
