"""From the unpickler's tensors to the archive's: each checked against the storage that it lies in."""

from __future__ import annotations

from collections.abc import Iterable

from netlens.loading.checkpoints.archive import StoredTensor
from netlens.loading.checkpoints.dtypes import ITEMSIZES, extent
from netlens.loading.checkpoints.stubs import Tensor

BEYOND = "it reaches beyond its storage"
EXPANDED = 1 << 24  # elements from which a tensor with stride 0 is worth a word
WASTED = 1 << 20  # bytes


def stored(name: str, tensor: Tensor, device_folder: str = "", file: str = "") -> StoredTensor:
    """Describe one tensor; `device_folder` sets apart the storages of several folders."""
    storage = tensor.storage
    itemsize = ITEMSIZES.get(tensor.dtype, 0)
    why = tensor.why or ("" if itemsize else f"of the unknown type {tensor.dtype[:40]}")
    if storage is None:
        location = "meta" if tensor.why == "meta" else ""
        return StoredTensor(
            name, tensor.shape, tensor.dtype, tensor.stride, 0, "", 0, location, tensor.kind, tensor.trainable, readable=False, why=why
        )
    root = storage.root
    offset = tensor.offset + (storage.shift // itemsize if itemsize else 0)
    why = why or root.problem
    if not why and extent(tensor.shape, tensor.stride, offset) * itemsize > root.size:
        why = BEYOND
    return StoredTensor(
        name,
        tensor.shape,
        tensor.dtype,
        tensor.stride,
        offset,
        device_folder + root.key,
        root.size,
        root.location,
        tensor.kind,
        tensor.trainable,
        readable=not why,
        why=why,
        place=-1 if root.problem else root.place,
        file=root.file or file,
    )


def odd_tensors(tensors: Iterable[StoredTensor]) -> list[str]:
    """Return sentences about tensors that lie, or waste space."""
    odd: list[str] = []
    sizes: dict[str, int] = {}
    used: dict[str, int] = {}
    for tensor in tensors:
        wanted = tensor.numel * ITEMSIZES.get(tensor.dtype, 1)
        if tensor.numel > EXPANDED and wanted > 4 * tensor.storage_bytes and tensor.readable and len(odd) < 5:
            odd.append(f"{tensor.name} claims {tensor.numel:,} elements in a storage of {tensor.storage_bytes:,} bytes (stride 0)")
        if tensor.why == BEYOND and len(odd) < 5:
            odd.append(f"{tensor.name} reaches beyond its storage of {tensor.storage_bytes:,} bytes")
        if tensor.storage and not tensor.why:
            sizes[tensor.storage] = tensor.storage_bytes
            used[tensor.storage] = used.get(tensor.storage, 0) + wanted
    wasted = sum(size - used[key] for key, size in sizes.items() if size > 2 * used[key])
    if wasted > WASTED:
        odd.append(f"{wasted:,} bytes of its storages belong to no tensor: views of larger tensors were saved with all of them")
    return odd


def subclasses(tensors: Iterable[Tensor]) -> list[str]:
    """Return a sentence about tensors of classes of their own."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        if tensor.cls:
            counts[tensor.cls] = counts.get(tensor.cls, 0) + 1
    return [f"tensors of the class {cls} are read as plain tensors ({count:,})" for cls, count in list(counts.items())[:3]]
