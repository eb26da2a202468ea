"""What people take for checkpoints, files that end too early, and values made to take for ever."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.checkpoints.made import FILES, Made, content, file

content("other/empty.pt", b"", says="is empty")
content("other/zeros.pt", bytes(4096), says="only zeros")
content("other/page.pt", b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>", says="an HTML page")
content("other/page2.pt", b"\n  <html>\n<body>404</body></html>", says="an HTML page")
content("other/error.pt", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", says="an XML document")
content("other/config.json", b'{"hidden_size": 3}', says="a JSON text")
content("other/list.json", b'[{"hidden_size": 3}]', says="a JSON text")
content("other/config.yaml", b"model:\n  width: 3\n", says="a YAML")
content("other/readme.pt", b"see the wiki for the weights\n", says="a text")
content("other/words.pt", b"cat\nfoo\nbar\n", says="a text")
content("other/train.py", b"import torch\nprint(1)\n", says="a program text")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 98354354\n"
content("other/pointer.safetensors", LFS, says="a Git-LFS pointer for a file of 98,354,354 bytes")
content("other/net.onnx", b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\xaa\x01", says="an ONNX model")
content("other/renamed_onnx.pt", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xaa\x01" + bytes(600), says="an ONNX model")
content("other/keras.h5", b"\x89HDF\r\n\x1a\n" + bytes(500), says="an HDF5 file")
content("other/llama.gguf", b"GGUF\x03\0\0\0" + bytes(500), says="a GGUF file")
content("other/lite.tflite", b"\x1c\0\0\0TFL3" + bytes(500), says="a TensorFlow Lite model")
content("other/edge.pte", b"\x1c\0\0\0ET12" + bytes(500), says="an ExecuTorch program")
content("other/cat.png", b"\x89PNG\r\n\x1a\n" + bytes(500), says="a PNG picture")
content("other/cat.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(500), says="a JPEG picture")
content("other/paper.pdf", b"%PDF-1.7\n" + bytes(500), says="a PDF document")
content("other/weights.7z", b"7z\xbc\xaf\x27\x1c" + bytes(500), says="a 7z archive")
content("other/weights.rar", b"Rar!\x1a\x07\x01\0" + bytes(500), says="a RAR archive")
content("other/weights.pt.gz", gzip.compress(b"x" * 1000), says="a gzip file around")
content("other/weights.tar.gz", gzip.compress(b"x" * 1000), says="a gzip file around a tar archive")
content("other/weights.pt.bz2", bz2.compress(b"x" * 1000), says="a bzip2 file")
content("other/weights.pt.xz", lzma.compress(b"x" * 1000), says="an xz file")
content("other/weights.pt.zst", b"\x28\xb5\x2f\xfd" + bytes(500), says="a Zstandard file")
content("other/lib.so", b"\x7fELF\x02\x01\x01" + bytes(500), says="native code")
content("other/data.db", b"SQLite format 3\x00" + bytes(500), says="an SQLite database")
content("other/noise.pt", random.Random(0).randbytes(5000), says="no format that netlens knows")
content("other/coreml.pt", b"bplist00" + bytes(500), says="a property list")


def _members(name: str, members: list[str], says: str) -> None:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.writestr(member, b"data")

    FILES.append(Made(f"other/{name}", make, says=says))


_members("around.zip", ["run/best.pth", "run/log.txt"], "a zip file around a checkpoint: run/best.pth")
_members("model.keras", ["metadata.json", "config.json", "model.weights.h5"], "a Keras model")
_members("table.xlsx", ["[Content_Types].xml", "xl/workbook.xml"], "a document")
_members("photos.zip", ["a.jpg", "b.jpg"], "a zip file, not a checkpoint")
_members("served.mar", ["MAR-INF/MANIFEST.json", "model.pt"], "TorchServe")
_members("compiled.pt2", ["m/archive_format", "m/data/aotinductor/model/x.so", "m/models/model.json"], "compiled by AOTInductor")
_members("nothing.zip", [], "a zip file, not a checkpoint")


@file("other/around.tar", says="a tar file around a checkpoint: best.pth")
def _(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("best.pth")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"data"))


@file("other/array.npy", says="a numpy array")
def _(path: Path) -> None:
    np.save(path, np.ones(3))


@file("other/arrays.npz", says="a file of numpy arrays")
def _(path: Path) -> None:
    np.savez(path, a=np.ones(3))


@file("other/folder", says="is a folder")
def _(path: Path) -> None:
    path.mkdir()
    (path / "last.ckpt").write_bytes(b"x")


@file("other/saved_model", says="a TensorFlow SavedModel")
def _(path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"x")


@file("other/unpacked", says="was unpacked")
def _(path: Path) -> None:
    torch.save({"w": torch.ones(1)}, path.with_suffix(".tmp"))
    with zipfile.ZipFile(path.with_suffix(".tmp")) as archive:
        archive.extractall(path.parent)
    path.with_suffix(".tmp").unlink()


@file("other/dangling.pt", says="is a link to")
def _(path: Path) -> None:
    path.symlink_to("gone.pt")


@file("other/absent.pt", says="no file")
def _(path: Path) -> None:
    """Nothing is there."""


@file("other/pipe.pt", says="a pipe")
def _(path: Path) -> None:
    os.mkfifo(path)


@file("other/device.pt", says="a device")
def _(path: Path) -> None:
    path.symlink_to("/dev/zero")


@file("other/socket.pt", says="a socket")
def _(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have 108 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


@file("other/loop.pt", says="cannot be reached")
def _(path: Path) -> None:
    path.symlink_to(path.name)


def _cut(name: str, keep: float, says: str = "truncated", **options: Any) -> None:
    def make(path: Path) -> None:
        torch.save({"a": torch.ones(400), "b": torch.ones(500)}, path, **options)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])

    FILES.append(Made(f"cut/{name}.pt", make, says=says))


for _percent in (5, 30, 60, 90, 99):
    _cut(f"zip{_percent}", _percent / 100)
for _percent in (30, 60, 90, 99):
    _cut(f"legacy{_percent}", _percent / 100, _use_new_zipfile_serialization=False)
