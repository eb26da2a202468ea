"""Pickled modules, programs, safetensors and folders."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file  # noqa: TID253
from torch import nn

from tests.checkpoints.made import FILES, Made, file, floats, saved
from tests.checkpoints.nets import Bound, Net, Scripted, WithSetState

MODULE: dict[str, Any] = {"kind": "pickled module"}


def _old_norm(norm: Callable[..., nn.Module], name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.Sequential(norm(nn.Linear(3, 4), name), nn.ReLU())

    return make


MODULES: dict[str, Callable[[], nn.Module]] = {
    "net": Net,
    "parallel": lambda: nn.DataParallel(Net()),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(Net()),
    "weight_norm": _old_norm(torch.nn.utils.weight_norm, "weight"),
    "spectral_norm": _old_norm(torch.nn.utils.spectral_norm, "weight"),
    "recurrent": lambda: nn.Sequential(nn.LSTM(3, 4, 2, bidirectional=True)),
    "transformer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2),
    "bound": Bound,
    "graph": lambda: torch.fx.symbolic_trace(Scripted()),
    "compiled": lambda: torch.compile(Net()),
    "half": lambda: Net().half(),
    "channels_last": lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
}

for _name, _make in MODULES.items():
    saved(f"modules/{_name}.pt", _make, {"loads": False} | MODULE)
saved("modules/legacy.pt", Net, {"loads": False} | MODULE, _use_new_zipfile_serialization=False)
saved("modules/lazy.pt", lambda: nn.LazyLinear(3), {"loads": False} | MODULE)
saved("modules/yolo.pt", lambda: {"model": Net(), "ema": Net(), "epoch": 4, "optimizer": None}, {"loads": False} | MODULE)
saved("modules/beside.pt", lambda: {"net": Net(), "state_dict": Net().state_dict()}, {"loads": False})


@file("modules/plain.pkl", kind="pickled module")
def _(path: Path) -> None:
    path.write_bytes(pickle.dumps(Net()))


@file("programs/script.pt", kind="torchscript")
def _(path: Path) -> None:
    torch.jit.save(torch.jit.script(Scripted()), path)


@file("programs/trace.pt", kind="torchscript")
def _(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Scripted().eval(), torch.ones(1, 3, 8, 8)), path)


@file("programs/frozen.pt", kind="torchscript")
def _(path: Path) -> None:
    torch.jit.save(torch.jit.freeze(torch.jit.script(Scripted().eval())), path)


@file("programs/setstate.pt", kind="torchscript", hostile=True)
def _(path: Path) -> None:
    torch.jit.save(torch.jit.script(WithSetState()), path)


def exported(path: Path, **options: Any) -> None:
    """Write a .pt2 file."""
    torch.export.save(torch.export.export(Scripted().eval(), (torch.ones(2, 3, 8, 8),), **options), path)


@file("programs/model.pt2", kind="exported program")
def _(path: Path) -> None:
    exported(path)


@file("programs/dynamic.pt2", kind="exported program")
def _(path: Path) -> None:
    exported(path, dynamic_shapes=({0: torch.export.Dim("b"), 2: torch.export.Dim.AUTO},))


@file("programs/old.pt2", kind="exported program", tensors=3)
def _(path: Path) -> None:
    """What torch 2.4 wrote: four files, the tensors in two of torch.save."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in (("state_dict", {"a": torch.ones(2), "b": torch.ones(3)}), ("constants", {"c": torch.ones(1)})):
            buffer = io.BytesIO()
            torch.save(value, buffer)
            archive.writestr(f"serialized_{name}.pt", buffer.getvalue())
        archive.writestr("serialized_exported_program.json", json.dumps({"graph_module": {}}))
        archive.writestr("version", "5.3")


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
bad_safetensors("twice", "twice", {}, raw=b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')
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


def distributed(path: Path) -> None:
    """Write a folder of torch.distributed.checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": Scripted().state_dict(), "epoch": 3}, checkpoint_id=path, no_dist=True)


@file("dcp/folder", kind="distributed", tensors=8)
def _(path: Path) -> None:
    distributed(path)


@file("dcp/file_missing", kind="distributed", odd="is missing", tensors=8)
def _(path: Path) -> None:
    distributed(path)
    (path / "__0_0.distcp").unlink()


@file("dcp/no_metadata", says="without its .metadata")
def _(path: Path) -> None:
    distributed(path)
    (path / ".metadata").unlink()


@file("dcp/cut", says=".metadata")
def _(path: Path) -> None:
    distributed(path)
    (path / ".metadata").write_bytes((path / ".metadata").read_bytes()[:900])


@file("tar/old.pt", kind="torch tar", tensors=1)
def _(path: Path) -> None:
    """What torch 0.1 wrote: https://github.com/pytorch/pytorch/blob/v0.1.12/torch/serialization.py."""
    storages = pickle.dumps(1, 2) + pickle.dumps(("11", "cpu", torch.FloatStorage), 2) + struct.pack("<q", 6) + floats(6) + pickle.dumps([], 2)
    tensors = pickle.dumps(1, 2) + pickle.dumps(("22", "11", torch.FloatTensor), 2) + struct.pack("<ii4qq", 2, 0, 2, 3, 3, 1, 0)
    main = b"\x80\x02}X\x01\x00\x00\x00wX\x02\x00\x00\x0022Qs."
    with tarfile.open(path, "w") as archive:
        for name, data in (("storages", storages), ("tensors", tensors), ("pickle", main)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
