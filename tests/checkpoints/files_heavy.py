"""Values made to take for ever, or all memory, and files that claim to be what they are not."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from tests.checkpoints.files_modules import distributed
from tests.checkpoints.files_safetensors import header
from tests.checkpoints.made import FILES, Call, Made, Ref, file, floats, pickled, tensor, torch_zip


def _heavy(name: str, code: Callable[[], bytes], odd: str = "", **truth: Any) -> None:
    full = {"kind": "torch zip", "odd": odd, "heavy": True} | truth
    FILES.append(Made(f"heavy/{name}.pt", lambda path: torch_zip(path, code(), {}), **full))  # type: ignore[arg-type]


MANY = "larger, or does more"
_heavy("doubled", lambda: b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 60 + b".")
_heavy("nested", lambda: b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nested deeper")
_heavy("very_nested", lambda: b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".", "nested deeper")
_heavy("tuples", lambda: b"\x80\x02]" + b"\x85" * 1_000_000 + b".")
_heavy("itself", lambda: b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.")
_heavy("million_keys", lambda: b"\x80\x02}(" + b"".join(b"\x8c\x07%07dK\x01" % n for n in range(1_000_000)) + b"u.", MANY)
_heavy("million_lists", lambda: b"\x80\x02](" + b"]" * 3_000_000 + b"e.", MANY)
_heavy("million_marks", lambda: b"\x80\x02" + b"(" * 3_000_000 + b".", MANY)
_heavy("million_texts", lambda: b"\x80\x02](" + b"\x8c\x02ab" * 3_000_000 + b"e.", MANY)
_heavy("million_objects", lambda: b"\x80\x02](ca\nb\nq\x00)\x81" + b"h\x00)\x81" * 1_000_000 + b"e.", MANY)
_heavy("million_sets", lambda: b"\x80\x04](" + b"\x8f" * 2_000_000 + b"e.", MANY)
_heavy("far_memo", lambda: b"\x80\x02}" + b"r\xff\xff\xff\x7f" + b".")
_heavy("many_memos", lambda: b"\x80\x02}" + b"".join(b"r" + struct.pack("<I", 1000 + 7 * n) for n in range(900_000)) + b".", MANY)
_heavy("long_claim", lambda: b"\x80\x02\x8e" + struct.pack("<Q", 1 << 62) + b".", kind="", says="truncated", odd="")
_heavy("long_number", lambda: b"\x80\x02\x8b" + struct.pack("<i", 10_000_000) + b"\x7f" * 10_000_000 + b".")
_heavy("frozen_bag", lambda: b"\x80\x02cbuiltins\nset\nq\x01](" + b"K\x01" * 50_000 + b"e\x85q\x02" + b"h\x01h\x02R0" * 400_000 + b"N.")
_heavy(
    "pairs",
    lambda: b"\x80\x02ccollections\nOrderedDict\nq\x01](" + b"K\x01K\x02\x86" * 50_000 + b"e\x85q\x02" + b"h\x01h\x02R0" * 99_999 + b"N.",
    MANY,
)
_heavy(
    "colliding",
    lambda: b"\x80\x02}(" + b"".join(b"\x8a\x0a" + (n * ((1 << 61) - 1)).to_bytes(10, "little") + b"N" for n in range(60_000)) + b"u.",
)
_heavy(
    "states",
    lambda: (
        b"\x80\x02ca\nb\n)\x81q\x00}("
        + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(50_000))
        + b"uq\x01b"
        + b"h\x01b" * 900_000
        + b"."
    ),
)


@file("heavy/bomb.pt", says="does not have the size", heavy=True)
def _(path: Path) -> None:
    _deflated(path, bytes(60 << 20), lie=1000)


@file("heavy/bomb2.pt", says="larger than netlens", heavy=True)
def _(path: Path) -> None:
    _deflated(path, bytes(70 << 20))


@file("heavy/wide_texts.pt", kind="torch zip", odd=MANY, heavy=True)
def _(path: Path) -> None:
    """Nine hundred texts of 64 KiB, in each one character that makes Python take four bytes for every other."""
    text = "\U0001f600".encode() + b"x" * 65_000
    _deflated(path, b"\x80\x02](" + (b"X" + struct.pack("<I", len(text)) + text) * 900 + b"e.")


@file("heavy/claim.pt", says="larger than netlens reads", heavy=True)
def _(path: Path) -> None:
    _deflated(path, bytes(100), lie=600 << 20)


def _deflated(path: Path, data: bytes, lie: int = 0) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data)
    if lie:
        raw = bytearray(path.read_bytes())
        at = raw.index(b"PK\1\2")
        raw[at + 24 : at + 28] = struct.pack("<I", lie)
        path.write_bytes(raw)


def _doubled_modules(path: Path, parameter: bytes = b"") -> None:
    """Sixty modules, each with the one before it twice: 2^60 names."""
    head, names = b"\x80\x02cm\nM\nq\x01)\x81", (b"_parameters", b"_buffers", b"_modules")
    empty = b"}(" + b"".join(b"\x8c" + bytes([len(name)]) + name + b"}" + (parameter if name == names[0] else b"") for name in names)
    torch_zip(path, head + empty + b"ub" + b"".join(_twice(empty) for _ in range(60)) + b".", {"0": floats(1)})


def _twice(empty: bytes) -> bytes:
    """A module on the stack becomes a module with it twice."""
    return b"q\x02" + b"h\x01)\x81" + empty[:-1] + b"}(\x8c\x01ah\x02\x8c\x01bh\x02u" + b"ub"


@file("heavy/modules.pt", kind="pickled module", heavy=True)
def _(path: Path) -> None:
    _doubled_modules(path)


@file("heavy/module_tensors.pt", kind="pickled module", heavy=True)
def _(path: Path) -> None:
    parameter = pickled(Call(torch._utils._rebuild_parameter, tensor(Ref("0", 1), (1,), (1,)), True, {}))
    _doubled_modules(path, b"\x8c\x06weight" + parameter[2:-1].replace(b"q\x01", b"q\x71").replace(b"q\x02", b"q\x72") + b"s")


@file("heavy/long_names.pt", kind="torch zip", heavy=True)
def _(path: Path) -> None:
    """Sixty levels of keys of a thousand characters, and thousands of tensors at the bottom."""
    value: object = {f"t{number:05d}": tensor(Ref("0", 1), (1,), (1,)) for number in range(20_000)}
    for level in range(60):
        value = {f"{level:02d}" * 500: value}
    torch_zip(path, pickled(value), {"0": floats(1)})


@file("heavy/deep_dicts.pt", kind="torch zip", heavy=True)
def _(path: Path) -> None:
    """A hundred thousand dictionaries with one tensor each, sixty levels down."""
    one = pickled(tensor(Ref("0", 1), (1,), (1,)))[2:-1]
    inner = b"](" + b"}K\x01h\x71s" * 250_000 + b"e"
    torch_zip(path, b"\x80\x02" + one + b"q\x710" + b"]" * 60 + inner + b"a" * 60 + b".", {"0": floats(1)})


@file("heavy/members.pt", says="a zip file, not a checkpoint", heavy=True)
def _(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"a/{number}", b"")


BIG_TUPLE = b"(" + b"]" * 30_000 + b"tq\x050"  # memo 5
_heavy("shared_args", lambda: b"\x80\x02" + BIG_TUPLE + b"ca\nb\nq\x010](" + b"h\x01h\x05R" * 80_000 + b"e.", "more than netlens lists")
_heavy(
    "shared_state",
    lambda: b"\x80\x02}(" + _numbered(30_000) + b"uq\x050ca\nb\nq\x010](" + b"h\x01)\x81h\x05b" * 80_000 + b"e.",
    "more than netlens lists",
)
_heavy("globals", lambda: b"\x80\x02](" + b"".join(b"cm\nx%d\n" % n for n in range(300_000)) + b"e.", MANY)
_heavy(
    "nested_pickles",
    lambda: b"\x80\x02ctorch.storage\n_load_from_bytes\nq\x01C\x05\x80\x02]0.\x85q\x02" + b"h\x01h\x02R0" * 400_000 + b"N.",
    MANY,
)


def _numbered(count: int) -> bytes:
    return b"".join(b"J" + struct.pack("<i", number) + b"]" for number in range(count))


@file("heavy/shared_registry.pt", kind="pickled module", odd="too often", heavy=True)
def _(path: Path) -> None:
    """Ten thousand modules with the same registry of thirty thousand parameters that are none."""
    registry = b"}(" + _numbered(30_000) + b"uq\x050"
    module = b"ca\nb\nq\x010}(\x8c\x0b_parametersh\x05\x8c\x08_buffers}\x8c\x08_modules}uq\x060"
    root = b"h\x01)\x81}(\x8c\x0b_parameters}\x8c\x08_buffers}\x8c\x08_modules}("
    children = b"".join(b"\x8c\x06%06dh\x01)\x81h\x06b" % number for number in range(10_000))
    torch_zip(path, b"\x80\x02" + registry + module + root + children + b"uub.", {})


@file("heavy/header.safetensors", kind="safetensors", tensors=100_000, heavy=True)
def _(path: Path) -> None:
    header(
        path,
        {f"layers.{n}.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(100_000)},
        bytes(400_000),
    )


@file("heavy/header2.safetensors", says="more than netlens reads", heavy=True)
def _(path: Path) -> None:
    header(path, {f"{n:x}": "" for n in range(1_000_000)})


@file("heavy/pieces", kind="distributed", heavy=True)
def _(path: Path) -> None:
    """A folder whose every entry is the same pickle of two hundred thousand opcodes."""
    distributed(path)
    torch_zip(path / "__0_0.distcp", b"\x80\x02]" + b"20" * 49_000 + b".", {})
    metadata = pickle.loads((path / ".metadata").read_bytes())
    whole = (path / "__0_0.distcp").stat().st_size
    info = dataclasses.replace(next(iter(metadata.storage_data.values())), offset=0, length=whole)
    names = [f"entry{number}" for number in range(3000)]
    metadata.state_dict_metadata = {name: BytesStorageMetadata() for name in names}
    metadata.storage_data = {MetadataIndex(name): info for name in names}
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
