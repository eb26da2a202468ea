"""The model that a command line names, with the values that it shall have: read and checked before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlens.errors import UsageError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.ask import Ask, program_of
from netlens.loading.specs import ModelSpec, parse_model_args, parse_model_spec

NAMING = ("model", "model_arg", "weights", "checkpoint", "key", "strip_prefix")  # options that name a model with its values


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A model, and where its values come from; with neither weights nor a checkpoint they are those that it is built with."""

    spec: ModelSpec
    args: Mapping[str, object]
    weights: str | None  # published ones
    checkpoint: Ask | None
    program: Archive | None  # a program in a file, which is the model

    @classmethod
    def of(cls, asked: Mapping[str, Any], lens: str = "summary") -> AskedModel:
        """Read the options of a command line, by their names.

        Args:
            asked: what the user wrote.
            lens: what is asked for; hints repeat it.

        Raises:
            NetlensError: any of them cannot be.
        """
        if asked.get("weights") and asked.get("checkpoint"):
            raise UsageError("--weights and --checkpoint both give values", hint="leave one of them out")
        spec = parse_model_spec(asked["model"])
        program = program_of(spec, bool(asked.get("trust_checkpoint")), lens)
        return cls(
            spec=spec,
            args=parse_model_args(asked.get("model_arg") or ()),
            weights=asked.get("weights"),
            checkpoint=None if program else Ask.of(asked),
            program=program,
        )


def texts_of(asked: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Return what the user wrote to name the model, and options in `more`: the subject of a JSON document."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asked.items() if name in (*NAMING, *more)}
