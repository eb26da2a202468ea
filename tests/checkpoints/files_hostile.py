"""Files that run something, or lie, when a loader trusts them. Every one would leave a marker in its folder."""

from __future__ import annotations

import functools
import io
import json
import operator
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.checkpoints.files_modules import distributed, exported
from tests.checkpoints.made import FILES, MARKER, Call, Made, Ref, file, floats, pickled, tensor, torch_zip

ZIP: dict[str, Any] = {"kind": "torch zip"}


def _touch(path: Path) -> str:
    return f"touch '{path.parent / MARKER}'"


def _python(path: Path) -> str:
    return f"open({str(path.parent / MARKER)!r}, 'w').close()"


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _unicode(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


WITH_WEIGHTS = {"w": torch.ones(2, 3)}

VALUES: dict[str, Callable[[Path], object]] = {
    "os_system": lambda path: Call(os.system, _touch(path)),
    "exec": lambda path: Call(exec, _python(path)),
    "eval": lambda path: Call(eval, f"__import__('os').system({_touch(path)!r})"),
    "io_open": lambda path: Call(io.open, str(path.parent / MARKER), "w"),
    "getattr": lambda path: Call(getattr, Call(__import__, "os"), "system"),
    "import": lambda path: Call(__import__, "antigravity"),
    "torch_load": lambda path: Call(torch.load, str(path.parent / "other.pt")),
    "map": lambda path: Call(list, Call(map, os.system, [_touch(path)])),
    "getattr_class": lambda path: Call(getattr, os._wrap_close, "read"),
    "getattr_passed": lambda path: Call(functools.partial, getattr, nn.Module, "__subclasses__"),
    "methodcaller": lambda path: Call(operator.methodcaller, "system", _touch(path)),
    "load_from_bytes": lambda path: Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, _touch(path)))),
    "nested_bytes": lambda path: Call(pickle.loads, pickle.dumps(Call(os.system, _touch(path)))),
    "beside_weights": lambda path: {"model": WITH_WEIGHTS, "x": Call(os.system, _touch(path))},
    "key": lambda path: [Call(dict, [(Call(os.system, _touch(path)), 1)])],
    "parameter_state": lambda path: Call(
        torch._utils._rebuild_parameter_with_state, torch.ones(1), True, {}, {"x": Call(os.system, _touch(path))}
    ),
    "from_type": lambda path: Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (_touch(path),), {}),
}

for _name, _value in VALUES.items():
    _kind = {"kind": "torch zip", "hostile": True}
    FILES.append(Made(f"hostile/{_name}.pt", lambda path, value=_value: torch.save(value(path), path), **_kind))  # type: ignore[misc, arg-type]

# Opcode by opcode: what no pickler writes.
OPCODES: dict[str, Callable[[Path], bytes]] = {
    "inst": lambda path: b"(S" + _line(repr(_touch(path))) + b"ios\nsystem\n.",
    "obj": lambda path: b"\x80\x02(cos\nsystem\n" + _unicode(_touch(path)) + b"o.",
    "newobj": lambda path: b"\x80\x02cos\nsystem\n" + _unicode(_touch(path)) + b"\x85\x81.",
    "newobj_ex": lambda path: b"\x80\x04cos\nsystem\n" + _unicode(_touch(path)) + b"\x85}\x92.",
    "stack_global": lambda path: (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(_touch(path))]) + _touch(path).encode() + b"\x85R."
    ),
    "dotted": lambda path: b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93" + _unicode(_touch(path)) + b"\x85R.",
    "build_class": lambda path: (
        b"\x80\x02cbuiltins\nprint\n}" + _unicode("__call__") + b"cos\nsystem\nsb" + _unicode(_touch(path)) + b"\x85R."
    ),
    "build_slots": lambda path: b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81N}" + _unicode("__setstate__") + b"cos\nsystem\ns\x86b.",
    "extension": lambda path: b"\x80\x02\x82\x01" + _unicode(_touch(path)) + b"\x85R.",
    "persistent": lambda path: (
        b"\x80\x02(" + _unicode("storage") + b"cos\nsystem\n" + _unicode(_touch(path)) + _unicode("cpu") + b"K\x05tQ."
    ),
    "persistent_text": lambda path: b"Pos.system\n.",
    "python2": lambda path: b"ccommands\ngetoutput\n(S" + _line(repr(_touch(path))) + b"tR.",
}
SAFE_OPCODES = ("persistent_text", "extension")  # refer to what is not there

for _name, _code in OPCODES.items():
    _truth = {"kind": "torch zip", "hostile": _name not in SAFE_OPCODES}
    FILES.append(Made(f"hostile/{_name}.pt", lambda path, code=_code: torch_zip(path, code(path), {}), **_truth))  # type: ignore[misc, arg-type]


@file("hostile/text.pkl", kind="plain pickle", hostile=True)
def _(path: Path) -> None:
    path.write_bytes(b"cos\nsystem\n(S" + _line(repr(_touch(path))) + b"tR.")


@file("hostile/plain.pkl", kind="plain pickle", hostile=True)
def _(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Call(os.system, _touch(path))}))


@file("hostile/first_of_five.pt", says="does not go on", hostile=True)
def _(path: Path) -> None:
    torch.save({}, path, _use_new_zipfile_serialization=False)
    rest = path.read_bytes()
    path.write_bytes(rest[:14] + b"0" + pickle.dumps(Call(os.system, _touch(path)), 2)[2:] + rest[15:])


@file("hostile/legacy.pt", kind="torch legacy", hostile=True)
def _(path: Path) -> None:
    torch.save({"w": torch.ones(2), "x": Call(os.system, _touch(path))}, path, _use_new_zipfile_serialization=False)


@file("hostile/module.pt", kind="pickled module", hostile=True)
def _(path: Path) -> None:
    net = nn.Linear(2, 2)
    net.trick = Call(os.system, _touch(path))  # type: ignore[assignment]
    torch.save(net, path)


@file("hostile/dcp", kind="distributed", hostile=True)
def _(path: Path) -> None:
    distributed(path)
    metadata = pickle.loads((path / ".metadata").read_bytes())
    metadata.storage_meta = Call(os.system, _touch(path))
    (path / ".metadata").write_bytes(pickle.dumps(metadata))


def _replaced(path: Path, ending: str, data: bytes) -> None:
    """Replace one member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in members:
            archive.writestr(name, data if name.endswith(ending) else old)


@file("hostile/sample_inputs.pt2", kind="exported program", hostile=True)
def _(path: Path) -> None:
    exported(path)
    buffer = io.BytesIO()
    torch.save(Call(os.system, _touch(path)), buffer)
    _replaced(path, "sample_inputs/model.pt", buffer.getvalue())


@file("hostile/formula.pt2", kind="exported program", hostile=True)
def _(path: Path) -> None:
    exported(path, dynamic_shapes=({0: torch.export.Dim("b")},))
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        text = archive.read(name).decode()
    evil = json.dumps(f"__import__('os').system({_touch(path)!r})")
    start = text.index('"expr_str": "') + len('"expr_str": ')
    _replaced(path, "models/model.json", (text[:start] + evil + text[text.index('"', start + 1) + 1 :]).encode())


def _lie(name: str, make: Callable[[Path], None], **truth: Any) -> None:
    FILES.append(Made(f"lies/{name}", make, **truth))


def _one(path: Path, made: Call, data: dict[str, bytes], **options: Any) -> None:
    torch_zip(path, pickled({"w": made}), data, **options)


A, B = Ref("0", 16), Ref("1", 16)
FULL = {"0": floats(16), "1": floats(16)}
_lie("beyond.pt", lambda path: _one(path, tensor(A, (24,), (1,)), FULL), odd="beyond", **ZIP)
_lie("long.pt", lambda path: _one(path, tensor(Ref("0", 24), (24,), (1,)), FULL), odd="64 bytes in the file, not 96", **ZIP)
_lie("missing.pt", lambda path: _one(path, tensor(A, (16,), (1,)), {}), odd="missing", **ZIP)
_lie("expanded.pt", lambda path: _one(path, tensor(Ref("0", 1), (1 << 40,), (0,)), {"0": floats(1)}), odd="claims 1,099,511,627,776", **ZIP)
_lie("offset.pt", lambda path: _one(path, tensor(A, (2,), (1,), 1 << 60), FULL), odd="beyond", **ZIP)
_lie("negative.pt", lambda path: _one(path, tensor(A, (-1,), (1,)), FULL), odd="left out", **ZIP)
_lie("axes.pt", lambda path: _one(path, tensor(A, (1,) * 100, (1,) * 100), FULL), odd="left out", **ZIP)
_lie("type.pt", lambda path: _one(path, tensor(Ref("0", 16, torch.nn.Linear), (16,), (1,)), FULL), tensors=1, **ZIP)
_lie(
    "two_sizes.pt",
    lambda path: torch_zip(path, pickled([tensor(A, (1,), (1,)), tensor(Ref("0", 8), (1,), (1,))]), FULL),
    odd="two sizes",
    **ZIP,
)


@file("lies/duplicate.pt", kind="torch zip", odd="twice")
def _(path: Path) -> None:
    _one(path, tensor(A, (16,), (1,)), {"0": floats(16)}, extra={"archive/DATA/0": bytes(64)})


@file("lies/second_pickle.pt", says="two records data.pkl")
def _(path: Path) -> None:
    _one(path, tensor(A, (16,), (1,)), FULL, extra={"archive/DATA.PKL": pickled({"v": 1})})


@file("lies/other_pickle.pt", kind="torch zip", odd="second pickle")
def _(path: Path) -> None:
    _one(path, tensor(A, (16,), (1,)), FULL, extra={"zzz/data.pkl": pickled({"v": 1})})


@file("lies/overlap.pt", kind="torch zip", odd="overlap")
def _(path: Path) -> None:
    """Two names in the directory, one record: the second begins inside of the first."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data/1", floats(16))
    body = inner.getvalue()[: 30 + len("archive/data/1") + 64]
    torch_zip(path, pickled([tensor(Ref("0", len(body) // 4), (1,), (1,)), tensor(B, (1,), (1,))]), {"0": body, "1": floats(16)})
    raw = path.read_bytes()
    inside = raw.index(body)
    entry = raw.rindex(b"archive/data/1")
    path.write_bytes(raw[: entry - 4] + struct.pack("<I", inside) + raw[entry:])


@file("lies/prefix.pt", says="no format")
def _(path: Path) -> None:
    _one(path, tensor(A, (16,), (1,)), FULL)
    path.write_bytes(b"\xfe\xfd" * 20 + path.read_bytes())


@file("lies/renamed.pt", kind="torch zip", odd="disagree about the name")
def _(path: Path) -> None:
    _one(path, tensor(A, (16,), (1,)), {"0": floats(16)})
    path.write_bytes(path.read_bytes().replace(b"archive/data/0", b"archive/data/9", 1))


@file("lies/encrypted.pt", says="encrypted")
def _(path: Path) -> None:
    _one(path, tensor(A, (16,), (1,)), FULL)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
