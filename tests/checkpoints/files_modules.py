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
from torch import nn

from tests.checkpoints.made import file, floats, saved
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
    storages = (
        pickle.dumps(1, 2) + pickle.dumps(("11", "cpu", torch.FloatStorage), 2) + struct.pack("<q", 6) + floats(6) + pickle.dumps([], 2)
    )
    tensors = pickle.dumps(1, 2) + pickle.dumps(("22", "11", torch.FloatTensor), 2) + struct.pack("<ii4qq", 2, 0, 2, 3, 3, 1, 0)
    main = b"\x80\x02}X\x01\x00\x00\x00wX\x02\x00\x00\x0022Qs."
    with tarfile.open(path, "w") as archive:
        for name, data in (("storages", storages), ("tensors", tensors), ("pickle", main)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
