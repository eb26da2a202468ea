"""Damaged and mutated files: whatever the bytes are, the reader answers in time, says what is wrong in one sentence, and runs nothing."""

from __future__ import annotations

import itertools
import pickletools
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netlens.errors import NetlensError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.dtypes import ITEMSIZES
from netlens.loading.checkpoints.read import read_archive
from tests.checkpoints.made import FILES, MARKER, torch_zip

BASES = (
    "zip/state_dict.pt",
    "zip/wrapper.pth",
    "zip/shared.pt",
    "zip/numpy_scalar.pth",
    "zip/protocol4.pt",
    "zip/quantized.pt",
    "zip/zip64.pt",
    "zip/deflated.pt",
    "legacy/wrapper.pt",
    "legacy/shared.pt",
    "modules/net.pt",
    "modules/legacy.pt",
    "programs/script.pt",
    "programs/model.pt2",
    "safetensors/single.safetensors",
    "tar/old.pt",
    "plain/arrays.pkl",
    "plain/protocol0.pkl",
    "plain/tensors.pkl",
    "hostile/beside_weights.pt",
    "hostile/text.pkl",
    "hostile/legacy.pt",
)
FOLDERS = ("dcp/folder", "sharded/safe")
SLOWEST = 2.0  # seconds of work

Mutation = Callable[[random.Random, bytes], bytes]


def flip(chance: random.Random, raw: bytes) -> bytes:
    """Change some bytes, most of them where the structure is: at both ends."""
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(raw)) if chance.random() < 0.5 else chance.choice((1, -1)) * chance.randrange(min(len(raw), 600))
        changed[at] = chance.choice((0, 1, 255, changed[at] ^ (1 << chance.randrange(8)), chance.randrange(256)))
    return bytes(changed)


def cut(chance: random.Random, raw: bytes) -> bytes:
    """End early, begin late, or miss a piece."""
    first, second = sorted(chance.randrange(len(raw) + 1) for _ in range(2))
    return chance.choice((raw[:first], raw[first:], raw[:first] + raw[second:], raw[:second] + raw[first:]))


def number(chance: random.Random, raw: bytes) -> bytes:
    """Put a number of consequence somewhere."""
    at, form = chance.randrange(len(raw)), chance.choice(("<I", "<Q", "<H", "<i"))
    limit = 8 * struct.calcsize(form) - (form == "<i")
    value = chance.choice((0, 1, (1 << limit) - 1, 1 << (limit - 1), chance.randrange(1 << limit)))
    return raw[:at] + struct.pack(form, value) + raw[at + struct.calcsize(form) :]


MUTATIONS: tuple[Mutation, ...] = (flip, flip, cut, number)
SNIPPETS = (
    b"0",
    b"1",
    b"2",
    b"(",
    b")",
    b"N",
    b"]",
    b"}",
    b"R",
    b"b",
    b"o",
    b"\x81",
    b"\x92",
    b"a",
    b"e",
    b"s",
    b"u",
    b"t",
    b"Q",
    b"\x85",
    b"\x93",
)


def opcodes(chance: random.Random, code: bytes, payload: bytes) -> bytes:
    """Delete, double, swap and insert whole opcodes of a pickle."""
    places = [place for _, _, place in pickletools.genops(code)] + [len(code)]
    parts = [code[start:end] for start, end in itertools.pairwise(places)]
    for _ in range(chance.choice((1, 2, 4, 10))):
        at, other = chance.randrange(len(parts)), chance.randrange(len(parts))
        match chance.randrange(5):
            case 0:
                parts[at] = b""
            case 1:
                parts[at] *= chance.choice((2, 3, 50))
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts[at] += chance.choice(SNIPPETS)
            case _:
                parts[at] += payload
    return b"".join(parts)


def check(path: Path) -> None:
    """Read one file; only a NetlensError may come out, and what is called readable must lie inside of the file."""
    start = time.process_time()
    try:
        archive = read_archive(path)
    except NetlensError as error:
        assert error.message and error.hint and "\n" not in error.message
    else:
        _inside(archive)
    assert time.process_time() - start < SLOWEST
    assert not (path.parent / MARKER).exists()


def _inside(archive: Archive) -> None:
    for tensor in (tensor for group in archive.groups for tensor in group.tensors):
        if tensor.place < 0:
            continue
        file = next((part for part in archive.shards if part.name == tensor.file), archive.path)
        assert tensor.place + tensor.storage_bytes <= file.stat().st_size, tensor
        if tensor.readable and 0 not in tensor.shape:
            last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
            assert (last + 1) * ITEMSIZES[tensor.dtype] <= tensor.storage_bytes, tensor
            assert tensor.offset >= 0 and min(tensor.stride, default=0) >= 0


def fuzz(files: dict[str, Path], folder: Path, rounds: int, seed: int) -> None:
    """Mutate every base `rounds` times."""
    chance = random.Random(seed)
    for name in BASES:
        raw, path = files[name].read_bytes(), folder / Path(name).name
        for turn in range(rounds):
            mutated = chance.choice(MUTATIONS)(chance, raw)
            path.write_bytes(mutated)
            try:
                check(path)
            except Exception as error:
                raise AssertionError(f"{name}, seed {seed}, turn {turn}: {error!r}; kept in {path}") from error


def fuzz_pickles(files: dict[str, Path], folder: Path, rounds: int, seed: int) -> None:
    """Mutate the pickles inside of zip files, opcode by opcode."""
    chance, path = random.Random(seed), folder / "opcodes.pt"
    payload = b"cos\nsystem\n(S'touch " + str(folder / MARKER).encode() + b"'\ntR"
    for code, storages in _pickles(files):
        for _ in range(rounds):
            torch_zip(path, opcodes(chance, code, payload), storages)
            check(path)


def _pickles(files: dict[str, Path]) -> Iterator[tuple[bytes, dict[str, bytes]]]:
    for name in BASES:
        if name.startswith(("zip/", "modules/net", "hostile/")) and zipfile.is_zipfile(files[name]):
            with zipfile.ZipFile(files[name]) as archive:
                names = archive.namelist()
                code = archive.read(next(one for one in names if one.endswith("/data.pkl")))
                yield code, {one.rsplit("/", 1)[-1]: archive.read(one) for one in names if "/data/" in one}


def fuzz_folders(files: dict[str, Path], folder: Path, rounds: int, seed: int) -> None:
    """Mutate one file of a folder at a time."""
    chance = random.Random(seed)
    for name in FOLDERS:
        copy = folder / Path(name).name
        shutil.copytree(files[name], copy)
        parts = sorted(part for part in copy.iterdir() if part.is_file())
        for _ in range(rounds):
            part = chance.choice(parts)
            raw = part.read_bytes()
            part.write_bytes(chance.choice(MUTATIONS)(chance, raw))
            check(copy)
            part.write_bytes(raw)


def test_random_damage(files: dict[str, Path], tmp_path: Path):
    """A few hundred of each kind, with a fixed seed."""
    fuzz(files, tmp_path, rounds=40, seed=1)
    fuzz_pickles(files, tmp_path, rounds=60, seed=2)
    fuzz_folders(files, tmp_path, rounds=60, seed=3)


def test_every_truncation_of_small_files(files: dict[str, Path], tmp_path: Path):
    """Cut at every 7th byte, and at all of the first and the last hundred."""
    for name in ("zip/tensor.pt", "legacy/bf16.pt", "safetensors/fp8.safetensors", "plain/protocol0.pkl"):
        raw, path = files[name].read_bytes(), tmp_path / Path(name).name
        for size in sorted({*range(0, len(raw), 7), *range(min(100, len(raw))), *range(max(0, len(raw) - 100), len(raw))}):
            path.write_bytes(raw[:size])
            check(path)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_damaged_files(files: dict[str, Path], tmp_path: Path, seed: int):
    """Some fifteen thousand for each seed."""
    fuzz(files, tmp_path, rounds=400, seed=100 + seed)
    fuzz_pickles(files, tmp_path, rounds=400, seed=200 + seed)
    fuzz_folders(files, tmp_path, rounds=400, seed=300 + seed)


@pytest.mark.sweep
def test_random_bytes_behind_every_magic(files: dict[str, Path], tmp_path: Path):
    """The first bytes of a kind, then noise."""
    chance, path = random.Random(5), tmp_path / "noise.pt"
    heads = {files[made.name].read_bytes()[: chance.choice((4, 16, 64))] for made in FILES if files[made.name].is_file() and not made.heavy}
    for head in sorted(heads):
        for _ in range(30):
            path.write_bytes(head + chance.randbytes(chance.choice((1, 100, 3000))))
            check(path)
