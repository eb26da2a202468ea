"""What a model is run on, and how, as a command line asks it: read and checked before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlens.errors import FileProblem, UsageError
from netlens.loading.device import parse_compute_device
from netlens.loading.images import find_images
from netlens.loading.input_specs import InputSpec, parse_input_spec
from netlens.loading.preprocessing_options import parse_mean, parse_size, parse_std
from netlens.loading.words import user_path

SAVED = (".pt", ".pth", ".npy", ".npz", ".safetensors")  # files of tensors
BATCH = 8
SAMPLING = ("image", "input", "data", "size", "mean", "std")  # options that say what goes in


@dataclass(frozen=True, slots=True)
class AskedSamples:
    """Pictures, tensors or a data set; with none of them the model runs on random numbers."""

    images: tuple[Path, ...]
    inputs: tuple[InputSpec | Path, ...]
    data: str | None
    size: tuple[int, int] | None  # height, width
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    limit: int | None  # at most so many samples of `data`
    batch_size: int

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> AskedSamples:
        """Read the options of a command line, by their names.

        Raises:
            NetlensError: any of them cannot be, a file is missing, or two of them say what goes in.
        """
        _one_source(asked)
        return cls(
            images=tuple(find_images(asked["image"])) if asked.get("image") else (),
            inputs=tuple(_input(text) for text in asked.get("input") or ()),
            data=asked.get("data"),
            size=parse_size(asked["size"]) if asked.get("size") else None,
            mean=parse_mean(asked["mean"]) if asked.get("mean") else None,
            std=parse_std(asked["std"]) if asked.get("std") else None,
            limit=asked.get("samples"),
            batch_size=asked.get("batch_size") or BATCH,
        )


@dataclass(frozen=True, slots=True)
class AskedRun:
    """On which device a model computes, in what numbers, and what it does where memory is short."""

    device: str
    dtype: str | None
    autocast: str | None
    channels_last: bool
    auto_batch: bool
    seed: int

    @classmethod
    def of(cls, asked: Mapping[str, Any], lens: str) -> AskedRun:
        """Read the options of a command line, by their names; `lens` is that of the subcommand.

        Raises:
            UsageError: there is no such device, or nothing can be computed on it.
        """
        autocast = _choice(asked.get("autocast"))
        return cls(
            device=parse_compute_device(asked.get("device") or "auto", lens),
            dtype=_choice(asked.get("dtype")),
            autocast=None if autocast == "off" else autocast,
            channels_last=bool(asked.get("channels_last")),
            auto_batch=bool(asked.get("auto_batch")),
            seed=int(asked.get("seed") or 0),
        )


def _choice(value: Any) -> str | None:
    """Return what was chosen, as a text: the command line has members of an enumeration, the configuration texts."""
    return None if value is None else str(getattr(value, "value", value))


def _input(text: str) -> InputSpec | Path:
    path = user_path(text)
    if path.suffix.lower() in SAVED and not path.exists():
        raise FileProblem(f"no file {text!r}", hint="paths start at the current folder")
    return path if path.suffix.lower() in SAVED or path.is_file() else parse_input_spec(text)


def _one_source(asked: Mapping[str, Any]) -> None:
    given = [f"--{name}" for name in ("image", "input", "data") if asked.get(name)]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} both say what goes in", hint=f"leave one of them out, for example {given[-1]}")
    no_pictures = not given or given == ["--input"]
    for name in ("size", "mean", "std"):
        if no_pictures and asked.get(name):
            hint = "add --image FILE or --data FOLDER" if "image" in asked else "add --data FOLDER"
            raise UsageError(f"--{name} is about pictures, and none are given", hint=hint)
    if asked.get("samples") and not asked.get("data"):
        raise UsageError("--samples limits --data, and none is given", hint="add --data FOLDER, or leave it out")
