"""safetensors: a length, a JSON header, and the tensors one behind the other (https://github.com/huggingface/safetensors)."""

from __future__ import annotations

import json

from netlens.loading.checkpoints.archive import StoredTensor
from netlens.loading.checkpoints.dtypes import SAFETENSORS, strides_of
from netlens.loading.checkpoints.files import OnDisk
from netlens.loading.checkpoints.machine import Damaged, Truncated

LONGEST_HEADER = 100_000_000  # the format's own limit
READ_HEADER = 24 << 20  # bytes of a header that netlens reads: some 150,000 tensors
MOST = 1 << 62
MOST_BRACKETS, MOST_COLONS, MOST_COMMAS = 450_000, 450_000, 1_000_000  # what JSON becomes may take twenty times its bytes


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins like one: a plausible length, then a brace."""
    return len(head) >= 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def read_safetensors(code: OnDisk, file: str = "") -> tuple[tuple[StoredTensor, ...], dict[str, str], list[str]]:
    """Return the tensors in the file's order, the metadata and what is odd.

    Raises:
        Damaged, Truncated: the header and the file do not agree.
    """
    length = int.from_bytes(code[0:8], "little")
    if 8 + length > code.size:
        raise Truncated(f"its header alone has {length:,} bytes")
    if length > READ_HEADER:
        raise Damaged(f"its header of {length:,} bytes is larger than netlens reads")
    header = parsed(code[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    found = sorted((_entry(name, entry, 8 + length, file) for name, entry in header.items()), key=lambda tensor: tensor.place)
    _check_tiling(found, 8 + length, code.size)
    texts = {key[:200]: value[:200] for key, value in metadata.items() if isinstance(value, str)} if isinstance(metadata, dict) else {}
    return tuple(found), dict(list(texts.items())[:200]), []


def parsed(content: bytes) -> dict[str, object]:
    """Parse a JSON object in which no name stands twice."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            raise Damaged("its JSON names something twice")
        return entries

    if content.count(b"[") + content.count(b"{") > MOST_BRACKETS or content.count(b":") > MOST_COLONS or content.count(b",") > MOST_COMMAS:
        raise Damaged("it lists more than netlens reads")
    try:
        value = json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Damaged("its JSON is not valid") from error
    if not isinstance(value, dict):
        raise Damaged("its JSON is no object")
    return value


def _entry(name: str, entry: object, start: int, file: str) -> StoredTensor:
    shown = name[:100]
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise Damaged(f"its header does not describe {shown}")
    shape, offsets, code = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not _numbers(shape) or len(shape) > 64 or not _numbers(offsets) or len(offsets) != 2:
        raise Damaged(f"its header gives {shown} no valid size")
    dtype, bits = SAFETENSORS.get(code, ("", 0)) if isinstance(code, str) else ("", 0)
    count = bits
    for size in shape:
        count *= size
    first, stop = offsets
    if bits and (stop - first) * 8 != count:
        needed = f"{-(-count // 8):,}" if count < MOST else "more than any file has"
        raise Damaged(f"its header gives {shown} {stop - first:,} bytes, and a shape that needs {needed}")
    if dtype == "float4_e2m1fn_x2" and shape:  # torch counts pairs
        shape = [*shape[:-1], shape[-1] // 2]
    why = "" if bits >= 8 or dtype == "float4_e2m1fn_x2" else f"of the type {str(code)[:20]}, which torch does not have"
    return StoredTensor(
        name,
        tuple(shape),
        dtype or str(code)[:20],
        strides_of(tuple(shape)),
        0,
        f"{file}:{first}" if stop > first else f"{file}:{first}:{name}",
        stop - first,
        readable=not why,
        why=why,
        place=start + first,
        file=file,
    )


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < MOST for number in value)


def _check_tiling(tensors: list[StoredTensor], start: int, size: int) -> None:
    """The tensors must fill the file: no gap, no overlap, no rest."""
    position = start
    for tensor in sorted(tensors, key=lambda one: (one.place, one.storage_bytes)):
        if tensor.place != position:
            raise Damaged(f"{tensor.name[:100]} does not begin where the tensor before it ends")
        position += tensor.storage_bytes
    if position > size:
        raise Truncated(f"its tensors need {position:,} bytes")
    if position < size:
        raise Damaged(f"{size - position:,} bytes at its end belong to no tensor")
