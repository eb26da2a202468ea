"""The reader's tables against the libraries that they describe: new types, or new functions in pickles, fail here."""

from __future__ import annotations

import pytest
import torch

from netlens.loading.checkpoints.dtypes import EXPORTED, ITEMSIZES, SAFETENSORS, STORAGES, extent, strides_of
from netlens.loading.checkpoints.rebuild import REBUILDS


def test_every_type_of_torch_has_its_size():
    """Against torch.dtype.itemsize."""
    types = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype) and str(value) == f"torch.{name}"}
    assert len(types) > 25
    assert {name: ITEMSIZES.get(name) for name in types} == {name: value.itemsize for name, value in types.items()}


def test_every_rebuild_function_is_known():
    """torch._utils._rebuild_*: what torch.save writes for tensors of all kinds."""
    functions = {f"torch._utils.{name}" for name in dir(torch._utils) if name.startswith("_rebuild_")}
    assert len(functions) > 8
    assert functions <= REBUILDS.keys()


def test_storage_classes():
    """Against torch's own table."""
    truth = {name: str(dtype)[6:] for name, dtype in torch.storage._storage_type_to_dtype_map().items()}
    assert {name: STORAGES.get(name) for name in truth} == truth


def test_types_of_exported_programs():
    """Against torch's own table, by number."""
    serialize = pytest.importorskip("torch._export.serde.serialize")
    truth = {int(number): str(dtype)[6:] for dtype, number in serialize._TORCH_TO_SERIALIZE_DTYPE.items()}
    assert truth == EXPORTED


def test_types_of_safetensors():
    """Against the library's table; its 4- and 6-bit types are names of ours where torch has none."""
    library = pytest.importorskip("safetensors.torch")
    truth = {name: str(dtype)[6:] for name, dtype in library._TYPES.items()}
    assert {name: SAFETENSORS[name][0] for name in truth} == truth
    assert all(ITEMSIZES[name] * 8 == bits for name, bits in SAFETENSORS.values() if name in truth.values() and bits >= 8)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (2, 0, 4), (0,), (1, 1)])
def test_strides_and_extent_of_contiguous_tensors(shape: tuple[int, ...]):
    """Against torch.empty: the last element of a contiguous tensor is its numel-th."""
    tensor = torch.empty(shape)
    assert strides_of(shape) == tensor.stride()
    assert extent(shape, tensor.stride(), 0) == tensor.numel()
    assert extent(shape, tensor.stride(), 5) == (tensor.numel() + 5 if tensor.numel() else 0)


def test_extent_of_views():
    """By hand: a (2, 3) view of strides (10, 2) from 7 ends at 7 + 10 + 4."""
    assert extent((2, 3), (10, 2), 7) == 22
    assert extent((1 << 40,), (0,), 0) == 1
