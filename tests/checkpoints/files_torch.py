"""Files that torch.save writes, and files almost like them."""

from __future__ import annotations

import argparse
import collections
import functools
import pathlib
import pickle
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.checkpoints.made import Ref, file, floats, pickled, saved, tensor, torch_zip
from tests.checkpoints.nets import Net, Options, SubTensor

NOT_LOADED: dict[str, Any] = {"loads": False}


def _net() -> OrderedDict[str, Any]:
    return OrderedDict(Net().state_dict())


def _adam(steps: int = 1) -> dict[str, Any]:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(steps):
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return optimizer.state_dict()


def _prefixed(prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in _net().items()}


def _lightning() -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": _prefixed("model."),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "best_model_path": "x.ckpt"}},
        "optimizer_states": [_adam()],
        "lr_schedulers": [{"last_epoch": 3}],
        "hyper_parameters": {"lr": 0.1, "layers": 2},
    }


saved("zip/state_dict.pt", _net, {"tensors": len(Net().state_dict())})
saved("zip/tensor.pt", lambda: torch.arange(6.0).reshape(2, 3), {"tensors": 1})
saved("zip/list.pt", lambda: [torch.ones(2), torch.zeros(3)], {"tensors": 2})
saved("zip/wrapper.pth", lambda: {"model": _net(), "optimizer": _adam(), "epoch": 12, "best_acc": 0.71, "arch": "net", "done": False})
saved("zip/lightning.ckpt", _lightning)
saved("zip/namespace.pth", lambda: {"args": argparse.Namespace(lr=0.1, name="run"), "model": _net()}, NOT_LOADED)
saved("zip/simple_namespace.pth", lambda: {"args": types.SimpleNamespace(lr=0.1), "model": _net()}, NOT_LOADED)
saved("zip/own_options.pth", lambda: {"opt": Options(lr=0.1), "model": _net()}, NOT_LOADED)
saved("zip/numpy_scalar.pth", lambda: {"best": np.float64(0.5), "step": np.int32(7), "model": _net()}, NOT_LOADED)
saved("zip/numpy_array.pth", lambda: {"mean": np.ones((3, 2), np.float32), "model": _net()}, NOT_LOADED)
saved("zip/ema.pth", lambda: {"model": _net(), "ema": {"decay": 0.999, "shadow": _net()}})
saved("zip/model_ema.pth", lambda: {"state_dict": _net(), "state_dict_ema": _net()})
saved("zip/ddp.pth", lambda: _prefixed("module."))
saved("zip/compiled.pth", lambda: _prefixed("_orig_mod."))
saved("zip/fp8.pt", lambda: {str(d)[6:]: torch.zeros(4, 2).to(d) for d in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e5m2fnuz)})
saved("zip/half.pt", lambda: {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(3, dtype=torch.float16)})
saved("zip/complex.pt", lambda: {str(d)[6:]: torch.ones(3, dtype=d) for d in (torch.complex32, torch.complex64, torch.complex128)})
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.uint16, torch.uint32, torch.uint64)
saved("zip/integers.pt", lambda: {str(d)[6:]: torch.ones(3, dtype=d) for d in INTEGERS})
saved("zip/sparse_coo.pt", lambda: {"w": torch.eye(3).to_sparse()})
saved("zip/sparse_csr.pt", lambda: {"w": torch.eye(3).to_sparse_csr()})
saved("zip/jagged.pt", lambda: {"w": torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)])}, NOT_LOADED)
saved("zip/quantized.pt", lambda: {"w": torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 3, torch.qint8)})
_PER_CHANNEL = (torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.quint8)
saved("zip/per_channel.pt", lambda: {"w": torch.quantize_per_channel(torch.ones(2, 3), *_PER_CHANNEL)})


def _shared() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0)
    return {"base": base, "again": base, "view": base[4:10], "rows": base.reshape(4, 6)[1:3], "column": base.reshape(4, 6)[:, 2]}


saved("zip/shared.pt", _shared)
saved("zip/transposed.pt", lambda: {"t": torch.ones(2, 3).t(), "cl": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)})
saved("zip/scalar.pt", lambda: {"a": torch.tensor(3.0), "b": torch.ones(2)})
saved("zip/empty_tensors.pt", lambda: {"a": torch.empty(0), "b": torch.empty(0, 3), "c": torch.empty(2, 0, 4), "d": torch.ones(1)})
saved("zip/empty_dict.pt", dict)
saved("zip/none.pt", lambda: None)
saved("zip/meta.pt", lambda: {"w": torch.empty(3, 4, device="meta"), "t": torch.empty(3, 4, device="meta").t()})
saved("zip/subclass.pt", lambda: {"w": torch.ones(2, 3).as_subclass(SubTensor)}, NOT_LOADED | {"odd": "SubTensor"})
saved(
    "zip/parameters.pt", lambda: {"p": nn.Parameter(torch.ones(2)), "f": nn.Parameter(torch.ones(2), False), "b": nn.Buffer(torch.ones(1))}
)
saved("zip/requires_grad.pt", lambda: {"w": torch.ones(2, requires_grad=True)})
saved("zip/conjugate.pt", lambda: {"w": torch.ones(2, dtype=torch.complex64).conj()})
saved("zip/protocol3.pt", _net, NOT_LOADED, pickle_protocol=3)
saved("zip/protocol4.pt", _net, NOT_LOADED, pickle_protocol=4)
saved("zip/protocol5.pt", _net, NOT_LOADED, pickle_protocol=5)
saved("zip/adam.pt", lambda: _adam(2))
saved("zip/sgd.pt", lambda: torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1).state_dict(), {"tensors": 0})
saved("zip/gan.pt", lambda: {"G": _net(), "D": _net(), "iteration": 5})
saved("zip/rng.pt", lambda: {"model": _net(), "rng_state": torch.get_rng_state()})
saved("zip/escapes.pt", lambda: {"\x1b[2Jw": torch.ones(1), "[bold]x[/]": torch.ones(1), "a\nb": torch.ones(1), "\u202eb": torch.ones(1)})
saved("zip/integer_keys.pt", lambda: {0: torch.ones(1), 1: {2: torch.ones(2)}})
saved("zip/deep_names.pt", lambda: {"params": {"Dense_0": {"kernel": torch.ones(2), "bias": torch.ones(1)}, "b": torch.ones(3)}})
saved("zip/many_groups.pt", lambda: {f"fold{n}": {"w": torch.ones(n + 1)} for n in range(20)}, {"tensors": 20})
saved(
    "zip/counters.pt",
    lambda: {"c": collections.Counter("abca"), "d": collections.defaultdict(int), "s": {1, 2}, "w": torch.ones(1)},
    NOT_LOADED,
)
saved("zip/path.pt", lambda: {"path": pathlib.PurePosixPath("a/b"), "device": torch.device("cpu"), "size": torch.Size([1])}, NOT_LOADED)
saved("zip/partial.pt", lambda: {"norm": functools.partial(nn.LayerNorm, eps=1e-6), "w": torch.ones(1)}, NOT_LOADED)
saved("zip/long_text.pt", lambda: {"notes": "x" * 100_000, "blob": b"y" * 200_000, "w": torch.ones(2)})
saved("zip/fat_view.pt", lambda: {"w": torch.zeros(1_000_000)[:10]}, {"odd": "belong to no tensor"})
saved("zip/expanded.pt", lambda: {"w": torch.zeros(1).expand(3, 4)})
saved("zip/suffix.safetensors", _net, {"loads": False, "odd": ".safetensors"})
saved("zip/suffix.onnx.pt", lambda: {"w": torch.ones(1)})
saved("zip/model-00001-of-00002.bin", lambda: {"w": torch.ones(1)}, {"odd": "part 1 of 2"})

OLD: dict[str, Any] = {"kind": "torch legacy", "loads": True}
saved("legacy/state_dict.pt", _net, OLD, _use_new_zipfile_serialization=False)
saved("legacy/wrapper.pt", lambda: {"model": _net(), "optimizer": _adam(), "epoch": 2}, OLD, _use_new_zipfile_serialization=False)
saved("legacy/shared.pt", _shared, OLD, _use_new_zipfile_serialization=False)
saved("legacy/bf16.pt", lambda: {"a": torch.ones(3, dtype=torch.bfloat16)}, OLD, _use_new_zipfile_serialization=False)
saved("legacy/fp8.pt", lambda: {"a": torch.ones(3).to(torch.float8_e4m3fn)}, OLD | NOT_LOADED, _use_new_zipfile_serialization=False)
saved("legacy/empty.pt", dict, OLD, _use_new_zipfile_serialization=False)
saved("legacy/sparse.pt", lambda: {"w": torch.eye(3).to_sparse()}, OLD, _use_new_zipfile_serialization=False)
saved("legacy/protocol4.pt", _net, OLD | NOT_LOADED, _use_new_zipfile_serialization=False, pickle_protocol=4)


@file("zip/cuda.pt", kind="torch zip", tensors=1)
def _(path: Path) -> None:
    torch_zip(path, pickled({"w": tensor(Ref("0", 3, location="cuda:1"), (3,), (1,))}), {"0": floats(3)})


@file("zip/deflated.pt", kind="torch zip", odd="compressed", tensors=1)
def _(path: Path) -> None:
    torch_zip(path, pickled({"w": tensor(Ref("0", 300), (300,), (1,))}), {"0": floats(300)}, method=zipfile.ZIP_DEFLATED)


@file("zip/big_endian.pt", kind="torch zip", odd="big-endian", tensors=1)
def _(path: Path) -> None:
    torch_zip(path, pickled({"w": tensor(Ref("0", 3), (3,), (1,))}), {"0": floats(3)}, extra={"archive/byteorder": b"big"})


@file("zip/zip64.pt", kind="torch zip", tensors=1)
def _(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("data.pkl", pickled({"w": tensor(Ref("0", 3), (3,), (1,))})), ("data/0", floats(3)), ("version", b"3\n")):
            with archive.open(zipfile.ZipInfo(f"archive/{name}"), "w", force_zip64=True) as member:
                member.write(data)


@file("plain/numbers.pkl", kind="plain pickle", tensors=0)
def _(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1, "b": [1, 2, 3]}))


@file("plain/arrays.pkl", kind="plain pickle", tensors=0)
def _(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": np.ones((2, 3)), "__author__": "x"}))


@file("plain/protocol0.pkl", kind="plain pickle", tensors=0)
def _(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1, "b": "text", "c": 2.5, "d": True, "e": 1 << 70}, 0))


@file("plain/tensors.pkl", kind="plain pickle", tensors=2)
def _(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.int64)}))
