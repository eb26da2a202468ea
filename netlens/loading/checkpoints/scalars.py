"""What a checkpoint's wrapper says beside its tensors: epoch, step, versions, options; as short texts."""

from __future__ import annotations

import math

from netlens.loading.checkpoints.modules import attributes, class_of, is_module, text
from netlens.loading.checkpoints.stubs import Array, Blob, Global, Mapping, Storage, Stub, Tensor
from netlens.loading.checkpoints.unwrap import entries

LONGEST = 200  # characters
MOST = 200  # entries
FLAT = 100  # entries of a dictionary that is still shown entry by entry


class Wrapper:
    """Collects the entries of the outermost container that hold no tensors."""

    def __init__(self) -> None:
        self.scalars: dict[str, str] = {}
        self.contents: list[tuple[str, str]] = []

    def read(self, value: object, grouped: set[int]) -> None:
        """Read a checkpoint's value; `grouped` are the containers that groups of tensors lie in, by identity."""
        if isinstance(value, Tensor | list | tuple) or is_module(value):
            return
        for key, child in entries(value):
            if len(self.scalars) + len(self.contents) >= MOST:
                return
            name = text(key)
            if (shown := scalar(child)) is not None:
                self.scalars[name] = shown
            elif not isinstance(child, Tensor) and id(child) not in grouped:
                self.contents.append((name, kind(child)))
                self._flatten(name, child)

    def _flatten(self, name: str, child: object) -> None:
        """Show the entries of an argparse.Namespace, an OmegaConf or a dictionary of options one by one."""
        inside = _options(child)
        if len(inside) > FLAT:
            return
        for key, value in inside.items():
            shown = scalar(_unboxed(value))
            if shown is not None and len(self.scalars) < MOST:
                self.scalars[f"{name}.{text(key)}"] = shown


def _options(value: object) -> dict[object, object]:
    if isinstance(value, dict):
        return value
    if isinstance(value, Stub) and value.pairs:
        return value.pairs
    inside = attributes(value)
    content = inside.get("_content")
    return content if isinstance(content, dict) else inside


def _unboxed(value: object) -> object:
    """Return what an OmegaConf node holds."""
    return attributes(value).get("_val", value) if isinstance(value, Stub) else value


def scalar(value: object) -> str | None:
    """Return a number, a flag or a short text as text; None for anything else."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str) and len(value) <= LONGEST:
        return value
    if isinstance(value, Global) and value.module == "torch":
        return value.dotted
    if isinstance(value, Stub) and value.dotted == "torch.device":
        return ":".join(str(part)[:20] for part in value.args[:2] if isinstance(part, str | int))
    return None


def kind(value: object) -> str:
    """Say in words what a value is."""
    match value:
        case Mapping():
            return f"{value.cls} of {len(value):,}"
        case dict():
            return f"dict of {len(value):,}"
        case list() | tuple():
            return f"{'list' if isinstance(value, list) else 'tuple'} of {len(value):,}"
        case str():
            return f"text of {len(value):,} characters"
        case bytes():
            return f"{len(value):,} bytes"
        case Blob():
            return f"{'text' if value.text else 'data'} of {value.size:,} bytes"
        case Array():
            return f"numpy array {'×'.join(map(str, value.shape[:8])) or 'of one element'} {value.dtype}".rstrip()
        case Storage():
            return f"storage of {value.size:,} bytes"
        case Global():
            return f"the name {value.dotted[:LONGEST]}"
        case Stub():
            return (class_of(value) if isinstance(value.made_by, Global) else "an object")[:LONGEST]
        case _:
            return type(value).__name__
