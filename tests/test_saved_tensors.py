"""Saved inputs: what was saved comes back, and nothing of a file is run."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlens.errors import FileProblem
from netlens.loading.saved_tensors import read_tensors

A, B = torch.arange(6.0).view(2, 3), torch.tensor([3, 1, 2])
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.bool, torch.complex64)


def same(left: Any, right: Any) -> bool:
    if isinstance(right, Tensor):
        return isinstance(left, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in right)
    return type(left) is tuple and len(left) == len(right) and all(map(same, left, right))


SAVED = {
    "tensor": (A, A),
    "scalar": (torch.tensor(2.5), torch.tensor(2.5)),
    "empty": (torch.zeros(0, 3), torch.zeros(0, 3)),
    "transposed view": (A.T, A.T),
    "part of a storage": (torch.arange(100.0)[7:9], torch.tensor([7.0, 8.0])),
    "expanded": (torch.ones(1, 3).expand(4, 3), torch.ones(4, 3)),
    "parameter": (nn.Parameter(A), A),
    "dict": ({"image": A, "length": B}, {"image": A, "length": B}),
    "ordered": (OrderedDict(b=A, a=B), {"b": A, "a": B}),
    "beside other things": ({"image": A, "label": 3, "name": "cat"}, {"image": A}),
    "tuple": ((A, B), (A, B)),
    "list": ([B, A], (B, A)),
    "nested": ({"inputs": {"x": A}, "masks": (B,)}, {"inputs.x": A, "masks.0": B}),
    "twice the same": ((A, A), (A, A)),
    **{str(dtype): (B.to(dtype), B.to(dtype)) for dtype in DTYPES},
}


@pytest.mark.parametrize(("value", "expected"), SAVED.values(), ids=SAVED)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_what_torch_saved_comes_back(tmp_path, value, expected, old):
    torch.save(value, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
    assert same(read_tensors(tmp_path / "x.pt"), expected)


def test_what_was_read_is_no_longer_tied_to_the_file(tmp_path):
    torch.save(A, tmp_path / "x.pt")
    found = read_tensors(tmp_path / "x.pt")
    torch.save(A + 7, tmp_path / "x.pt")
    assert same(found, A)
    found += 1  # no ValueError: it is writable


def test_safetensors_come_back_as_a_dict(tmp_path):
    from safetensors.torch import save_file

    save_file({"image": A, "length": B}, tmp_path / "x.safetensors")
    found = read_tensors(tmp_path / "x.safetensors")
    assert isinstance(found, dict) and same(dict(sorted(found.items())), {"image": A, "length": B})


ARRAYS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "backwards": np.arange(6)[::-1],
    "big endian": np.arange(6, dtype=">f4"),
    "scalar": np.float64(3.5),
    "empty": np.zeros((0, 2)),
    "flags": np.array([True, False]),
    "uint16": np.arange(3, dtype=np.uint16),
    "complex": np.array([1 + 2j]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_what_numpy_saved_comes_back(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    found = read_tensors(tmp_path / "x.npy")
    assert isinstance(found, Tensor) and found.numpy().dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.numpy(), array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", image=array, other=np.ones(2))
        several = read_tensors(tmp_path / "x.npz")
        assert isinstance(several, dict) and list(several) == ["image", "other"]
        np.testing.assert_array_equal(several["image"].numpy(), array)


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch pwned",)


def hostile_archive(folder: Path, name: str) -> Path:
    torch.save({"x": A, "y": Hostile()}, folder / name)
    return folder / name


def test_nothing_of_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_kwargs: pytest.fail("a program was started"))
    assert same(read_tensors(hostile_archive(tmp_path, "x.pt")), {"x": A})
    np.save(tmp_path / "x.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([Hostile()], dtype=object))
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Hostile()))
    for name, what in (("x.npy", "holds Python objects"), ("x.npz", "holds Python objects"), ("pickle.npy", "is not a file of numpy")):
        with pytest.raises(FileProblem, match=what):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def npy(array: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        np.save(file, array)
        return file.getvalue()


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def wrong(folder: Path) -> dict[str, str]:
    """Write files that hold no tensors; return what is said about each."""
    whole = npy(np.arange(1000.0))
    (folder / "cut.npy").write_bytes(whole[:-8])
    (folder / "head.npy").write_bytes(whole[:20])
    (folder / "text.npy").write_text("hello")
    (folder / "empty.npy").touch()
    (folder / "huge.npy").write_bytes(header("(1000000000000, 100)") + bytes(8))
    (folder / "words.npy").write_bytes(npy(np.array(["cat"])))
    (folder / "record.npy").write_bytes(npy(np.zeros(2, dtype=[("a", "f4")])))
    np.savez_compressed(folder / "cut.npz", x=np.arange(1000.0))
    (folder / "cut.npz").write_bytes((folder / "cut.npz").read_bytes()[:-30])
    with zipfile.ZipFile(folder / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save({"epoch": 3}, folder / "none.pt")
    torch.save(np.zeros(3), folder / "array.pt")
    torch.save(nn.Linear(2, 2), folder / "model.pt")
    torch.save(A.to_sparse(), folder / "sparse.pt")
    torch.jit.save(torch.jit.script(nn.Identity()), folder / "program.pt")
    torch.save(torch.ones(1).expand(1 << 50), folder / "expanded.pt")
    return {
        "cut.npy": "is damaged or truncated",
        "head.npy": "is damaged or truncated",
        "text.npy": "is not a file of numpy",
        "empty.npy": "is not a file of numpy",
        "huge.npy": "does not fit into memory, or is damaged",
        "words.npy": "of the type <U3, which torch does not have",
        "record.npy": "which torch does not have",
        "cut.npz": "is damaged or truncated",
        "other.npz": "is no array",
        "none.pt": "holds no tensor",
        "array.pt": "holds no tensor",
        "model.pt": "is a whole nn.Module",
        "sparse.pt": "sparse",
        "program.pt": "is a TorchScript archive",
        "expanded.pt": "does not fit into memory",
        "missing.npy": "No such file",
        "missing.pt": "no file",
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_every_mistake_is_told_in_one_sentence_with_a_way_out(tmp_path):
    for name, what in wrong(tmp_path).items():
        with pytest.raises(FileProblem, match=what) as caught:
            read_tensors(tmp_path / name)
        assert caught.value.hint and "\n" not in caught.value.message + caught.value.hint, name
