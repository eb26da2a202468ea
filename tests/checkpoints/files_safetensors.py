"""safetensors: honest, sharded and broken."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file  # noqa: TID253

from tests.checkpoints.made import FILES, Made, file

WEIGHTS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2, dtype=torch.bfloat16), "empty": torch.empty(0, 3), "s": torch.tensor(1)}

SAFE: dict[str, Any] = {"kind": "safetensors"}


@file("safetensors/single.safetensors", kind="safetensors", tensors=4)
def _(path: Path) -> None:
    save_file(WEIGHTS, path, {"format": "pt"})


@file("safetensors/fp8.safetensors", kind="safetensors", tensors=1)
def _(path: Path) -> None:
    save_file({"a": torch.ones(3).to(torch.float8_e4m3fn)}, path)


@file("safetensors/named.pth", kind="safetensors", tensors=4, odd=".pth")
def _(path: Path) -> None:
    save_file(WEIGHTS, path)


def header(path: Path, entries: object, data: bytes = b"", raw: bytes | None = None) -> None:
    """Write a safetensors file by hand."""
    text = raw if raw is not None else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def bad_safetensors(name: str, says: str, entries: object, data: bytes = b"", raw: bytes | None = None) -> None:
    """Register a file that must be refused."""
    FILES.append(Made(f"safetensors/{name}.safetensors", lambda path: header(path, entries, data, raw), says=says))


def _f32(shape: list[Any], first: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, stop]}


bad_safetensors("gap", "does not begin where", {"a": _f32([1], 0, 4), "b": _f32([1], 8, 12)}, bytes(12))
bad_safetensors("overlap", "does not begin where", {"a": _f32([2], 0, 8), "b": _f32([1], 4, 8)}, bytes(8))
bad_safetensors("rest", "belong to no tensor", {"a": _f32([1], 0, 4)}, bytes(9))
bad_safetensors("short", "truncated", {"a": _f32([4], 0, 16)}, bytes(9))
bad_safetensors("size", "needs", {"a": _f32([3], 0, 4)}, bytes(4))
bad_safetensors("negative", "no valid size", {"a": _f32([-1], 0, 4)}, bytes(4))
bad_safetensors("huge", "needs", {"a": _f32([1 << 40, 1 << 40], 0, 4)}, bytes(4))
bad_safetensors("no_json", "not valid", {}, raw=b"{]")
bad_safetensors(
    "twice", "twice", {}, raw=b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
)
bad_safetensors("nested", "not valid", {}, raw=b'{"a":' * 30_000)
bad_safetensors("brackets", "more than netlens reads", {}, raw=b'{"a":[' + b"[]," * 2_000_000 + b"[]]}")


@file("safetensors/unknown_type.safetensors", kind="safetensors", tensors=1)
def _(path: Path) -> None:
    header(path, {"a": _f32([2], 0, 4, "XYZ16")}, bytes(4))


@file("safetensors/long_header.safetensors", says="truncated")
def _(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 5000) + b"{" + b" " * 100)


def shards(folder: Path, suffix: str = "safetensors", first: str | None = None) -> None:
    """Write a folder of two files and an index."""
    folder.mkdir()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = [f"{stem}-0000{n}-of-00002.{suffix}" for n in (1, 2)]
    for name, value in zip(names, ({"a": torch.ones(2)}, {"b": torch.ones(3)}), strict=True):
        if suffix == "safetensors":
            save_file(value, folder / name)
        else:
            torch.save(value, folder / name)
    index = {"metadata": {"total_size": 20}, "weight_map": {"a": first or names[0], "b": names[1]}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


@file("sharded/safe", kind="sharded", tensors=2)
def _(path: Path) -> None:
    shards(path)


@file("sharded/bin", kind="sharded", tensors=2)
def _(path: Path) -> None:
    shards(path, "bin")


@file("sharded/missing", says="model-00002-of-00002.safetensors")
def _(path: Path) -> None:
    shards(path)
    (path / "model-00002-of-00002.safetensors").unlink()


@file("sharded/path_trick", says="no plain file name")
def _(path: Path) -> None:
    shards(path, first="../../../etc/passwd")


@file("sharded/single", kind="safetensors", tensors=4)
def _(path: Path) -> None:
    path.mkdir()
    save_file(WEIGHTS, path / "model.safetensors")
