"""The calls that torch, numpy and Python write into pickles, as descriptions of what they would have made."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from netlens.loading.checkpoints import dtypes
from netlens.loading.checkpoints.machine import hashable
from netlens.loading.checkpoints.stubs import Array, Bag, Blob, Global, Mapping, Storage, Stub, Tensor

MOST_AXES = 64  # torch's own limit
MOST = 1 << 62

Args = tuple[Any, ...]
Rebuild = Callable[[Args], object]


class NotAsExpected(Exception):
    """The arguments are not those that torch writes, so the call stays a stub."""


def dimensions(value: object) -> tuple[int, ...]:
    """Return a size or strides."""
    if not isinstance(value, tuple | list) or len(value) > MOST_AXES or not all(type(size) is int and 0 <= size < MOST for size in value):
        raise NotAsExpected
    return tuple(value)


def _dtype(value: object) -> str:
    if isinstance(value, Global) and value.module == "torch":
        return value.name
    raise NotAsExpected


def _strided(storage: object, offset: object, size: object, stride: object, *rest: object) -> Tensor:
    shape, strides = dimensions(size), dimensions(stride)
    if not isinstance(storage, Storage) or type(offset) is not int or not 0 <= offset < MOST or len(shape) != len(strides):
        raise NotAsExpected
    trainable = rest[0] if rest and isinstance(rest[0], bool) else None
    return Tensor(shape, strides, storage.dtype, offset, storage, trainable=trainable)


def _tensor_v3(args: Args) -> Tensor:
    tensor = _strided(*args[:5])
    tensor.dtype = _dtype(args[6])
    return tensor


def _parameter(args: Args) -> Tensor:
    data = args[0]
    if not isinstance(data, Tensor):
        raise NotAsExpected
    trainable = args[1] if len(args) > 1 and isinstance(args[1], bool) else True
    return Tensor(data.shape, data.stride, data.dtype, data.offset, data.storage, "parameter", trainable, data.why, data.cls)


def _quantized(args: Args) -> Tensor:
    tensor = _strided(*args[:4])
    tensor.why = "quantized"
    return tensor


def _meta(args: Args) -> Tensor:
    shape = dimensions(args[1])
    return Tensor(shape, dimensions(args[2]), _dtype(args[0]), why="meta")


def _sparse(args: Args) -> Tensor:
    data = args[1]
    sizes = [dimensions(part) for part in data if isinstance(part, tuple | list)]
    inner = [part for part in data if isinstance(part, Tensor)]
    return Tensor(sizes[0], (), inner[-1].dtype, storage=inner[-1].storage, why="sparse")


def _nested(args: Args) -> Tensor:
    if not isinstance(buffer := args[0], Tensor):
        raise NotAsExpected
    return Tensor(buffer.shape, buffer.stride, buffer.dtype, storage=buffer.storage, why="nested")


def _wrapper(args: Args) -> Tensor:
    cls = args[0].dotted if isinstance(args[0], Global) else "an unknown class"
    return Tensor(dimensions(args[2]), dimensions(args[3]), _dtype(args[1]), why=cls)


def _from_numpy(args: Args) -> Tensor:
    data = args[0]
    if not isinstance(data, Array | Tensor):
        raise NotAsExpected
    return Tensor(data.shape, dtypes.strides_of(data.shape), _dtype(args[1]), why="saved from a device of its own")


def _uninitialised(args: Args) -> Tensor:
    names = [arg.name for arg in args if isinstance(arg, Global) and arg.module == "torch"]
    return Tensor((), (), names[0] if names else "float32", why="not initialised")


def _size(args: Args) -> object:
    return dimensions(args[0]) if args else ()


def _ordered(args: Args, cls: str = "OrderedDict") -> Mapping:
    mapping = Mapping(cls)
    pairs = args[0] if args and isinstance(args[0], list | tuple) else []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise NotAsExpected
        mapping[hashable(pair[0])] = pair[1]
    if args and isinstance(args[0], dict):
        mapping.update(args[0])
    return mapping


def _encoded(args: Args) -> object:
    if isinstance(args[0], Blob):
        return Blob(args[0].size, args[0].place, args[0].source)
    if not isinstance(args[0], str) or args[1:] not in (("latin1",), ("latin-1",), ("utf-8",), ("ascii",)):
        raise NotAsExpected
    return args[0].encode(args[1], "surrogatepass" if args[1] == "utf-8" else "strict")


def _bag(args: Args) -> object:
    if args and not isinstance(args[0], list | tuple):
        raise NotAsExpected
    return args[0] if args else Bag()


def _path(args: Args) -> str:
    if not args or not all(isinstance(part, str) for part in args) or sum(map(len, args)) > 1000:
        raise NotAsExpected
    return "/".join(args).replace("//", "/")


FORMS = dict(
    zip(("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"), "dfeqihbQIHB?", strict=True)
)  # numpy's letters to struct's


def _numpy_scalar(args: Args) -> object:
    """numpy.core.multiarray.scalar(dtype, bytes)."""
    if not isinstance(dtype := args[0], Stub) or not dtype.args or not isinstance(data := args[1], bytes):
        raise NotAsExpected
    form = FORMS.get(dtype.args[0]) if isinstance(dtype.args[0], str) else None
    order = ">" if isinstance(dtype.state, tuple) and dtype.state[1:2] == (">",) else "<"
    if form is None or struct.calcsize(order + form) != len(data):
        raise NotAsExpected
    return struct.unpack(order + form, data)[0]


_TENSOR = "torch._utils._rebuild_"

REBUILDS: dict[str, Rebuild] = {
    _TENSOR + "tensor": lambda args: _strided(*args[:4]),
    _TENSOR + "tensor_v2": lambda args: _strided(*args[:5]),
    _TENSOR + "tensor_v3": _tensor_v3,
    _TENSOR + "parameter": _parameter,
    _TENSOR + "parameter_with_state": _parameter,
    _TENSOR + "qtensor": _quantized,
    _TENSOR + "sparse_tensor": _sparse,
    _TENSOR + "sparse_csr_tensor": _sparse,
    _TENSOR + "nested_tensor": _nested,
    _TENSOR + "meta_tensor_no_storage": _meta,
    _TENSOR + "wrapper_subclass": _wrapper,
    _TENSOR + "xla_tensor": _from_numpy,
    _TENSOR + "device_tensor_from_numpy": _from_numpy,
    _TENSOR + "device_tensor_from_cpu_tensor": _from_numpy,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.UninitializedParameter": _uninitialised,
    "torch.nn.parameter.UninitializedBuffer": _uninitialised,
    "torch.Size": _size,
    "torch.jit._pickle.build_intlist": lambda args: args[0],
    "torch.jit._pickle.build_boollist": lambda args: args[0],
    "torch.jit._pickle.build_doublelist": lambda args: args[0],
    "torch.jit._pickle.build_tensorlist": lambda args: args[0],
    "torch.jit._pickle.restore_type_tag": lambda args: args[0],
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda args: _ordered((), "defaultdict"),
    "collections.Counter": lambda args: _ordered(args, "Counter"),
    "builtins.set": _bag,
    "builtins.frozenset": _bag,
    "_codecs.encode": _encoded,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": lambda args: Array(),
    "numpy._core.multiarray._reconstruct": lambda args: Array(),
    "pathlib.PosixPath": _path,
    "pathlib.PurePosixPath": _path,
    "pathlib.WindowsPath": _path,
    "pathlib.PureWindowsPath": _path,
    "pathlib.Path": _path,
}


def rebuilt(function: Global, args: object) -> object:
    """Describe what a call would have made; None where that is not known."""
    rebuild = REBUILDS.get(function.dotted)
    if rebuild is None or not isinstance(args, tuple):
        return None
    try:
        return rebuild(args)
    except (NotAsExpected, IndexError, TypeError, ValueError, struct.error):
        return None


def set_array(array: Array, state: object) -> None:
    """Take a numpy array's state: (version, shape, dtype, is Fortran, bytes)."""
    if not isinstance(state, tuple) or len(state) != 5:
        return
    try:
        array.shape = dimensions(state[1])
    except NotAsExpected:
        return
    array.fortran = state[3] is True
    if isinstance(dtype := state[2], Stub) and dtype.args and isinstance(name := dtype.args[0], str):
        array.dtype = dtypes.NUMPY.get(name, name[:20])
