"""Every shape kernel against the real CPU: same operator, same arguments, once with values and once on the meta device.

Compared for each result: shape, dtype, bytes of new storage, strides, and which argument it is or shares memory with. Where the CPU raises,
the meta run has to raise too, or a summary would show a table for a model that fails for real.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from netlens.probing.kernels import _KERNELS, kernel_of
from netlens.probing.mixed import MixedMeta
from netlens.probing.pointwise import Misfit, broadcast

aten = torch.ops.aten
HALF, BF16, DOUBLE, INT, INT32 = torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32
BOOL, BYTE, COMPLEX = torch.bool, torch.uint8, torch.complex64
DTYPES = (torch.float32, HALF, BF16, DOUBLE, INT, COMPLEX)
Run = tuple[Any, tuple[Any, ...], dict[str, Any]]


def f(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


def zero(*shape: int, dtype: torch.dtype = INT) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def last(x: Tensor) -> Tensor:
    """`x` in channels-last layout."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Thousands of tiny operators: handing each to other threads takes longer than the operator."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the comparison ------------------------------------------------------------------------------------------------------------------


def on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return type(value)(map(on_meta, value)) if isinstance(value, (list, tuple)) else value


def tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


def described(result: Any, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    given = list(tensors(args))
    found = []
    for out in [result] if isinstance(result, Tensor) else list(tensors(result)):
        shares = tuple(i for i, x in enumerate(given) if x.untyped_storage()._cdata == out.untyped_storage()._cdata)
        same = tuple(i for i, x in enumerate(given) if x is out)
        # A stride matters only where there is a second element along the dimension.
        strides = tuple(s if n > 1 else None for n, s in zip(out.shape, out.stride(), strict=True)) if out.numel() else None
        found.append((tuple(out.shape), out.dtype, None if shares else out.untyped_storage().nbytes(), strides, shares, same))
    return found


def outcome(run: Run, mode: Any = None) -> Any:
    """What a run returns, described, or the exception."""
    operator, args, kwargs = run
    try:
        with torch.no_grad(), mode or torch.enable_grad():
            return described(operator(*args, **kwargs), args)
    except Exception as error:
        return error


def as_meta(run: Run) -> Run:
    return run[0], tuple(map(on_meta, run[1])), {key: on_meta(value) for key, value in run[2].items()}


def answered(run: Run) -> bool:
    """Tell whether one of our kernels decides this run, by an answer or a refusal."""
    operator, args, kwargs = as_meta(run)
    kernel = kernel_of(operator._schema.name.partition("::")[2], operator)
    try:
        return kernel is not None and kernel(*args, **kwargs) is not None
    except Misfit:
        return True
    except (RuntimeError, TypeError):
        return False


def difference(run: Run) -> str | None:
    """Say how the meta run differs from the real one; None where it does not, or where it is meant to."""
    meta, real = outcome(as_meta(run), MixedMeta()), outcome(run)
    if isinstance(real, Exception) and isinstance(meta, Exception):
        return None
    if real == meta or intended(run, real, meta):
        return None
    return f"{run[0]}({', '.join(map(shown, run[1]))}, {run[2]}): real {real!r}, meta {meta!r}"


def shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype)[6:]}{tuple(value.shape)}/{value.stride()}"
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, (list, tuple)) else repr(value)


def intended(run: Run, real: Any, meta: Any) -> str | None:
    """The reason of a difference that is meant."""
    operator, args, _ = run
    name, x = operator._schema.name.partition("::")[2], next(tensors(args), None)
    if isinstance(real, NotImplementedError) and "not implemented for" in str(real):
        return "the CPU lacks a dtype that GPUs may have, and torch's own meta kernel takes it too"
    if name == "convolution" and isinstance(meta, Misfit) and "bias" in str(meta) and x.dtype not in (torch.float32, BF16, COMPLEX):
        return "GPUs, and the CPU in float32, want a bias of the input's dtype; the slow CPU convolution does not look"
    if name in ("native_layer_norm", "native_group_norm") and x.dtype in (HALF, BF16) and real[0] == meta[0]:
        return "kept statistics of half precision are float32 as on a GPU, where such models run; the CPU keeps them in half"
    if name in ("_softmax", "_log_softmax") and "half to float" in str(real):
        return "an argument for GPUs only"
    if name == "im2col" and not isinstance(real, Exception) and real[0][0] == meta[0][0] and real[0][3] == meta[0][3]:
        return "the CPU takes more bytes than the result has where the windows do not overlap"
    if name == "grid_sampler_2d" and isinstance(meta, Misfit) and any(0 in x.shape for x in args[:2]):
        return "without an element to sample the CPU does not look at the dtypes"
    return None


def differences(runs: Iterator[Run]) -> list[str]:
    warnings.simplefilter("ignore")  # deprecated masks of bytes, complex to real
    return [text for text in map(difference, runs) if text is not None]


# -- pointwise -----------------------------------------------------------------------------------------------------------------------

ONE = [f(2, 3), f(), f(0, 3), f(3, 2).t(), last(f(2, 3, 4, 4)), f(4, 6)[:, ::2], f(4, 1).expand(4, 3), f(2, 1, 3).transpose(0, 1)]
ONE += [f(2, 3, 4).permute(2, 0, 1), *(f(2, 3, dtype=dtype) for dtype in (HALF, BF16, DOUBLE, INT, BOOL, COMPLEX))]
TWO = [
    *[(f(2, 3), f(2, 3)), (f(2, 3), f(3)), (f(3), f(2, 3)), (f(2, 1), f(1, 3)), (f(2, 3), f()), (f(), f(2, 3)), (f(2, 3), f(4))],
    *[(f(2, 3), f(2)), (f(0, 3), f(1, 3)), (f(3, 2).t(), f(2, 3)), (f(2, 3), f(3, 2).t()), (f(3, 2).t(), f(3, 2).t()), (f(3, 2).t(), f(3))],
    *[(last(f(2, 3, 4, 4)), other) for other in (f(2, 3, 4, 4), last(f(2, 3, 4, 4)), f(1, 3, 1, 1), f(2, 3, 1, 1), f(), f(4))],
    *[(f(2, 3, 4, 4), last(f(2, 3, 4, 4))), (f(1, 3, 1, 1), last(f(2, 3, 4, 4))), (f(4, 6)[:, ::2], f(4, 6)[:, ::2])],
    *[(f(4, 6)[:, ::2], f(4, 3)), (f(4, 1).expand(4, 3), f(4, 3)), (f(4, 3), f(4, 1).expand(4, 3)), (f(2, 3, 4).permute(2, 0, 1), f(3))],
    *[(f(2, 3, 4).permute(2, 0, 1), f(4, 2, 3)), (f(5, 2, 3).transpose(0, 1), f(2, 5, 1)), (f(5, 2, 3).transpose(0, 1), f(2, 5, 3))],
    *[(f(2, 3, dtype=a), f(2, 3, dtype=b)) for a, b in itertools.permutations((torch.float32, HALF, BF16, DOUBLE, INT, BOOL), 2)],
    *[(f(2, 3, dtype=a), f(dtype=b)) for a, b in itertools.permutations((torch.float32, HALF, DOUBLE, INT), 2)],
    *[(f(dtype=a), f(2, 3, dtype=b)) for a, b in itertools.permutations((torch.float32, HALF, DOUBLE, INT), 2)],
    *[(f(2, 3, dtype=COMPLEX), f(2, 3)), (f(2, 3), f(2, 3, dtype=COMPLEX)), (f(2, 3, dtype=INT), f(2, 3, dtype=INT))],
    *[
        (f(2, 3, dtype=BOOL), f(2, 3, dtype=BOOL)),
        (f(2, 3, dtype=BOOL).t(), f(3, 2, dtype=BOOL)),
        (f(3, 2, dtype=INT).t(), f(3, dtype=INT)),
    ],
]
THREE = [(*two, third) for two in TWO for third in (f(2, 3), f(), f(3, 2).t(), f(2, 3, dtype=HALF))]
SCALARS = {"number": (0.5, 2), "float": (0.5,), "int": (1,), "bool": (False,), "str": ("none",)}


IN_PARTS = torch._C.DispatchKey.CompositeImplicitAutograd


def pointwise_operators() -> Iterator[Any]:
    """Operators that a kernel answers and that reach it whole."""
    for name in dir(aten):
        packet = getattr(aten, name)
        for overload in packet.overloads() if hasattr(packet, "overloads") and name not in _KERNELS else ():
            operator = getattr(packet, overload)
            takes_tensors = any(str(argument.type) == "Tensor" for argument in operator._schema.arguments)
            if takes_tensors and kernel_of(name, operator) is not None and not operator.has_kernel_for_dispatch_key(IN_PARTS):
                yield operator


def pointwise_runs(operator: Any) -> Iterator[Run]:
    kinds = [
        str(argument.type).removeprefix("Optional[").removesuffix("]") for argument in operator._schema.arguments if not argument.kwarg_only
    ]
    wanted = kinds.count("Tensor")
    for given in {1: [(x,) for x in ONE], 2: TWO, 3: THREE}[wanted]:
        for choice in (0, -1) if "number" in kinds else (0,):
            operands = iter([torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x) if 0 not in x.stride() else x for x in given])
            yield operator, tuple(next(operands) if kind == "Tensor" else SCALARS[kind][choice] for kind in kinds), {}


OPERATORS = {str(operator): operator for operator in pointwise_operators()}


@pytest.mark.parametrize("family", ["_pointwise", "_comparison", "_bitwise", "_bitwise_in_place", "_in_place", "checked"])
def test_pointwise_operators_are_as_on_the_cpu(family):
    found = [op for op in OPERATORS.values() if kernel_of(op._schema.name.partition("::")[2], op).__name__ == family]
    runs = [run for operator in found for run in pointwise_runs(operator) if answered(run)]

    assert len(found) >= 3 and len(runs) >= 100
    assert differences(iter(runs)) == []


def test_the_pointwise_operators_of_networks_have_a_kernel():
    named = {name.split(".")[1] for name in OPERATORS}

    assert named >= {"add", "mul", "sub", "div", "relu", "relu_", "gelu", "silu", "silu_", "sigmoid", "tanh", "exp", "clamp", "leaky_relu"}
    assert named >= {
        "hardswish",
        "hardswish_",
        "hardtanh_",
        "hardsigmoid",
        "elu",
        "add_",
        "mul_",
        "rsqrt",
        "eq",
        "lt",
        "bitwise_and",
        "pow",
    }


@pytest.mark.parametrize(("shapes", "expected"), [(((2, 1), (3,)), (2, 3)), (((), (4,)), (4,)), (((0, 1), (1, 5)), (0, 5)), ((), ())])
def test_broadcast(shapes, expected):
    assert broadcast(*shapes) == expected


def test_broadcast_of_shapes_that_do_not_fit():
    with pytest.raises(RuntimeError, match=r"\(2, 3\), \(4,\) do not broadcast"):
        broadcast((2, 3), (4,))


# -- convolution ---------------------------------------------------------------------------------------------------------------------


def convolutions() -> Iterator[Run]:
    settings = [
        ((1,), (0,), (1,), (0,)),
        ((2,), (1,), (1,), (1,)),
        ((1,), (2,), (2,), (0,)),
        ((3,), (0,), (1,), (2,)),
        ((2,), (0,), (3,), (2,)),
    ]
    settings += [((1,), (0,), (1,), (1,)), ((0,), (0,), (1,), (0,)), ((1,), (-1,), (1,), (0,)), ((1, 1, 1, 1), (0,), (1,), (0,))]
    for dims, groups, transposed, (stride, padding, dilation, extra) in itertools.product((1, 2, 3), (1, 2), (False, True), settings):
        weight = f(4, 6 // groups, *(3,) * dims) if transposed else f(6, 4 // groups, *(3,) * dims)
        for x, bias in itertools.product((f(2, 4, *(7,) * dims), f(2, 4, *(2,) * dims)), (None, f(6), f(5))):
            yield aten.convolution.default, (x, weight, bias, stride, padding, dilation, transposed, extra, groups), {}


def planar(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Run:
    options = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "transposed": False, "extra": [0, 0], "groups": 1, **options}
    return aten.convolution.default, (x, weight, bias, *options.values()), {}


def layouts_of_convolutions() -> Iterator[Run]:
    images = [f(2, 4, 5, 5), last(f(2, 4, 5, 5)), f(2, 4, 5, 5).transpose(2, 3), f(4, 2, 5, 5).transpose(0, 1), f(2, 4, 5, 10)[..., ::2]]
    images += [f(1, 4, 1, 1), last(f(1, 4, 3, 3)), f(2, 4, 1, 5), last(f(2, 8, 5, 5))[:, :4], last(f(2, 1, 5, 5)), f(2, 1, 5, 5)]
    images += [f(2, 4, 5, 5, dtype=DOUBLE), last(f(2, 4, 5, 5, dtype=DOUBLE)), last(f(2, 4, 5, 5, dtype=BF16))]
    for x in images:
        channels = x.shape[1]
        for shape in ((6, channels, 3, 3), (6, channels, 1, 1), (1, channels, 3, 3)):
            for weight, stride, padding in itertools.product(
                (f(*shape, dtype=x.dtype), last(f(*shape, dtype=x.dtype))), ([1], [2]), ([0], [1])
            ):
                yield planar(x, weight, stride=stride, padding=padding)
        yield planar(x, f(channels, 3, 3, 3, dtype=x.dtype), transposed=True)
        yield planar(x, last(f(channels, 1, 3, 3, dtype=x.dtype)), groups=channels, padding=[1, 1])
    for x, weight in itertools.product((f(2, 4, 5, 5, 5), last(f(2, 4, 5, 5, 5))), (f(6, 4, 3, 3, 3), last(f(6, 4, 3, 3, 3)))):
        yield aten.convolution.default, (x, weight, None, [1], [0], [1], False, [0], 1), {}
    for x in (f(2, 4, 9), f(2, 9, 4).transpose(1, 2), f(2, 4, 18)[..., ::2]):
        yield aten.convolution.default, (x, f(6, 4, 3), None, [1], [0], [1], False, [0], 1), {}


def odd_convolutions() -> Iterator[Run]:
    weight = f(6, 4, 3, 3)
    yield from (planar(x, weight) for x in (f(4, 5, 5), f(4, 5), f(2, 4, 5), f(2, 4, 5, 5, 5), f(0, 4, 5, 5), f(2, 4, 0, 5), f(2, 3, 5, 5)))
    x = f(2, 4, 5, 5)
    yield from (planar(x, weight, stride=[1, 1, 1]), planar(x, weight, groups=0), planar(x, f(5, 2, 3, 3), groups=2), planar(x, f(6, 4)))
    yield from (planar(x, weight, bias) for bias in (f(1, 6), f(1), f()))
    yield from (planar(x, f(4, 2, 3, 3), bias, transposed=True, groups=groups) for bias in (None, f(4), f(2)) for groups in (1, 2, 3))
    for a, b, c in itertools.product(DTYPES, repeat=3):
        yield planar(f(2, 4, 5, 5, dtype=a), f(6, 4, 3, 3, dtype=b), f(6, dtype=c))
        yield planar(f(2, 4, 5, 5, dtype=a), f(6, 4, 3, 3, dtype=b))


# -- norms ---------------------------------------------------------------------------------------------------------------------------


def batch_norms() -> Iterator[Run]:
    images = [f(2, 4, 5, 5), last(f(2, 4, 5, 5)), f(2, 4), f(4, 2).t(), f(2, 4, 5), f(0, 4, 5, 5), f(2, 4, 0), f(1, 4, 1, 1), f(4)]
    images += [f(2, 5, 4).transpose(1, 2), f(2, 4, 5, 10)[..., ::2], f(2, 4, 5, 5, 5), f()]
    for x, training in itertools.product(images, (False, True)):
        for weights in (
            (f(4), f(4), f(4), f(4)),
            (None, None, f(4), f(4)),
            (f(5), f(5), f(5), f(5)),
            (f(4), None, f(4), f(4)),
            (f(4), f(4), f(5), f(4)),
        ):
            yield aten.batch_norm.default, (x, *weights, training, 0.1, 1e-5, False), {}
        if training and x.dim() > 1:
            yield aten.batch_norm.default, (x, f(4), f(4), None, None, training, 0.1, 1e-5, False), {}
    for kinds, training in itertools.product(itertools.product(DTYPES[:5], repeat=3), (False, True)):
        x, weight, mean = f(2, 4, 5, 5, dtype=kinds[0]), f(4, dtype=kinds[1]), f(4, dtype=kinds[2])
        yield aten.batch_norm.default, (x, weight, weight, mean, mean, training, 0.1, 1e-5, False), {}
        yield aten.batch_norm.default, (x, None, None, mean, mean, training, 0.1, 1e-5, False), {}


def layer_norms() -> Iterator[Run]:
    for x in (f(2, 3, 4), f(4), f(), f(2, 4).t(), f(2, 4, 3).transpose(1, 2), f(0, 4), f(2, 0), last(f(2, 3, 4, 4)), f(2, 8)[:, ::2]):
        for shape in ([4], [3, 4], [2, 3, 4], [5], [], [4, 4]):
            for weight, bias in (
                (None, None),
                (f(*shape), f(*shape)),
                (f(*shape), None),
                (f(5), f(*shape)),
                (f(*shape), f(7)),
                (f(1, *shape), None),
            ):
                yield aten.native_layer_norm.default, (x, shape, weight, bias, 1e-5), {}
    for a, b, c in itertools.product(DTYPES, repeat=3):
        yield aten.native_layer_norm.default, (f(2, 4, dtype=a), [4], f(4, dtype=b), f(4, dtype=c), 1e-5), {}


def group_norms() -> Iterator[Run]:
    images = [(f(2, 4, 5, 5), 25), (last(f(2, 4, 5, 5)), 25), (f(2, 4), 1), (f(2, 4, 3), 3), (f(0, 4, 3), 3), (f(2, 4, 0), 0)]
    images += [(f(2, 5, 4).transpose(1, 2), 5), (f(2, 4, 5, 10)[..., ::2], 25), (f(2, 4, 2, 2, 2), 8)]
    for (x, pixels), groups in itertools.product(images, (1, 2, 4, 3, 0)):
        for weight, bias in ((None, None), (f(4), f(4)), (f(4), None), (None, f(4)), (f(5), f(5)), (f(4), f(5)), (f(4, 1), f(4, 1))):
            yield aten.native_group_norm.default, (x, weight, bias, x.shape[0], 4, pixels, groups, 1e-5), {}
    for a, b, c in itertools.product(DTYPES, repeat=3):
        yield aten.native_group_norm.default, (f(2, 4, 3, dtype=a), f(4, dtype=b), f(4, dtype=c), 2, 4, 3, 2, 1e-5), {}


# -- matrix products -----------------------------------------------------------------------------------------------------------------


def products() -> Iterator[Run]:
    flat = [
        f(2, 3),
        f(3, 4),
        f(4, 3).t(),
        f(3, 2).t(),
        f(0, 3),
        f(3, 0),
        f(0, 4),
        f(3),
        f(2, 3, 4),
        f(2, 6)[:, ::2],
        f(3).expand(2, 3),
        f(5, 4),
        f(),
    ]
    yield from ((aten.mm.default, pair, {}) for pair in itertools.product(flat, repeat=2))
    deep = [
        f(5, 2, 3),
        f(5, 3, 4),
        f(5, 4, 3).mT,
        f(1, 3, 4),
        f(2, 3),
        f(0, 2, 3),
        f(0, 3, 4),
        f(5, 2, 0),
        f(5, 0, 4),
        f(2, 5, 3).transpose(0, 1),
    ]
    yield from ((aten.bmm.default, pair, {}) for pair in itertools.product([*deep, f(3, 4).expand(5, 3, 4), f(6, 3, 4)], repeat=2))
    for a, b, c in itertools.product((*DTYPES, BOOL), repeat=3):
        yield aten.mm.default, (f(2, 3, dtype=a), f(3, 4, dtype=b)), {}
        yield aten.bmm.default, (f(5, 2, 3, dtype=a), f(5, 3, 4, dtype=b)), {}
        yield aten.addmm.default, (f(4, dtype=c), f(2, 3, dtype=a), f(3, 4, dtype=b)), {}
        yield aten.baddbmm.default, (f(2, 4, dtype=c), f(5, 2, 3, dtype=a), f(5, 3, 4, dtype=b)), {}
    for added in (f(4), f(2, 4), f(2, 1), f(1), f(), f(3), f(1, 2, 4), f(4, 2).t(), f(0), f(2, 3), f(5, 2, 4), f(5, 1, 4), f(1, 1, 2, 4)):
        for keywords in ({}, {"beta": 0}, {"beta": 0.5, "alpha": 2}):
            for pair in ((f(2, 3), f(3, 4)), (f(2, 3), f(2, 4)), (f(0, 3), f(3, 4)), (f(2, 0), f(0, 4)), (f(3, 2).t(), f(4, 3).t())):
                yield aten.addmm.default, (added, *pair), keywords
            for pair in (
                (f(5, 2, 3), f(5, 3, 4)),
                (f(5, 2, 3), f(4, 3, 4)),
                (f(0, 2, 3), f(0, 3, 4)),
                (f(5, 2, 0), f(5, 0, 4)),
                (f(2, 3), f(3, 4)),
            ):
                yield aten.baddbmm.default, (added, *pair), keywords


# -- pooling and resizing ------------------------------------------------------------------------------------------------------------


def pools() -> Iterator[Run]:
    images = [f(2, 3, 8, 8), f(3, 8, 8), last(f(2, 3, 8, 8)), f(2, 3, 7, 5), f(0, 3, 8, 8), f(2, 0, 8, 8), f(2, 3, 0, 8), f(8, 8)]
    images += [f(2, 3, 8, 8).transpose(2, 3), f(2, 3, 4, 8, 8), f(2, 3, 8, 8, dtype=BF16), f(2, 3, 8, 8, dtype=DOUBLE)]
    kernels, strides, paddings = (
        ([2, 2], [3], [2, 3], [9, 9], [2, 2, 2], [0, 0]),
        ([], [2, 2], [1], [3, 2], [0, 0]),
        ([0, 0], [1], [2, 2], [-1, -1]),
    )
    for x in images:
        for kernel, stride, padding, dilation, ceil in itertools.product(kernels, strides, paddings, ([1, 1], [2], [0, 0]), (False, True)):
            yield aten.max_pool2d_with_indices.default, (x, kernel, stride, padding, dilation, ceil), {}
        yield from ((aten._adaptive_avg_pool2d.default, (x, size), {}) for size in ([1, 1], [3, 2], [7, 7], [0, 1], [1], [1, 1, 1]))


def other_windows() -> Iterator[Run]:
    flat = [f(2, 3, 8, 8), f(3, 8, 8), last(f(2, 3, 8, 8)), f(0, 3, 8, 8), f(2, 3, 0, 8), f(8, 8), f(2, 3, 8, 8, dtype=INT)]
    deep = [f(2, 3, 8, 8, 8), f(3, 8, 8, 8), last(f(2, 3, 8, 8, 8)), f(2, 3, 2, 8, 8), f(8, 8), f(0, 3, 8, 8, 8)]
    options = list(itertools.product(([], [2], [3], [0]), ([0], [1], [-1]), (False, True)))
    for kernel, (stride, padding, ceil) in itertools.product(([2], [3], [9], [0], [2, 2, 2, 2]), options):
        for divisor in (None, 0):
            yield from ((aten.avg_pool2d.default, (x, kernel, stride, padding, ceil, True, divisor), {}) for x in flat)
            yield from ((aten.avg_pool3d.default, (x, kernel, stride, padding, ceil, True, divisor), {}) for x in deep)
        for dilation in ([1], [2], [0]):
            yield from ((aten.max_pool3d_with_indices.default, (x, kernel, stride, padding, dilation, ceil), {}) for x in deep)
    for kernel, stride, padding, dilation in itertools.product(
        ([2, 2], [3, 1], [9, 9], [0, 0]), ([1, 1], [2, 3]), ([0, 0], [1, 1], [-1, -1]), ([1, 1], [2, 2], [0, 0])
    ):
        yield from ((aten.im2col.default, (x, kernel, dilation, padding, stride), {}) for x in flat)


def grids() -> Iterator[Run]:
    images = [f(2, 3, 8, 8), last(f(2, 3, 8, 8)), f(0, 3, 8, 8), f(2, 0, 8, 8), f(2, 3, 0, 8), f(3, 8, 8), f(2, 3, 8, 8, dtype=DOUBLE)]
    for x, grid in itertools.product(
        images, (f(2, 4, 5, 2), f(2, 4, 5, 3), f(1, 4, 5, 2), f(2, 0, 5, 2), f(2, 4, 2, 5).mT, f(2, 4, 5, 2, dtype=DOUBLE))
    ):
        yield aten.grid_sampler_2d.default, (x, grid, 0, 0, False), {}


def resizings() -> Iterator[Run]:
    cases: list[tuple[Callable[..., Any], tuple[Any, ...], list[Tensor]]] = [
        (aten.upsample_nearest1d.default, (), [f(2, 3, 8), f(3, 8), f(0, 3, 8), f(2, 3, 0), f(2, 8, 3).transpose(1, 2)]),
        (aten.upsample_linear1d.default, (False,), [f(2, 3, 8), f(3, 8), f(0, 3, 8), f(2, 3, 0)]),
        (aten.upsample_nearest2d.default, (), [f(2, 3, 8, 8), last(f(2, 3, 8, 8)), f(0, 3, 8, 8), f(2, 0, 8, 8), f(3, 8, 8)]),
        (aten.upsample_bilinear2d.default, (True,), [f(2, 3, 8, 8), last(f(2, 3, 8, 8)), f(2, 3, 0, 8), f(2, 3, 8, 8, dtype=BF16)]),
        (aten.upsample_bicubic2d.default, (False,), [f(2, 3, 8, 8), last(f(2, 3, 8, 8)), f(3, 8, 8)]),
        (aten.upsample_nearest3d.default, (), [f(2, 3, 4, 4, 4), last(f(2, 3, 4, 4, 4)), f(3, 4, 4, 4)]),
        (aten.upsample_trilinear3d.default, (False,), [f(2, 3, 4, 4, 4), last(f(2, 3, 4, 4, 4)), f(0, 3, 4, 4, 4)]),
    ]
    for operator, rest, images in cases:
        for x, size in itertools.product(images, ([16], [16, 16], [3, 2], [0, 1], [0], [4, 3, 2], [-1, 1])):
            yield operator, (x, size, *rest), {}


# -- reductions ----------------------------------------------------------------------------------------------------------------------


def reductions() -> Iterator[Run]:
    shapes = [f(2, 3, 4), f(2, 3), f(4), f(), f(0, 3), f(2, 0), f(3, 2).t(), last(f(2, 3, 4, 4)), f(2, 6)[:, ::2], f(2, 1).expand(2, 3)]
    for x in (*shapes, *(f(2, 3, dtype=dtype) for dtype in (*DTYPES, BOOL))):
        yield from ((operator, (x,), {}) for operator in (aten.mean.default, aten.sum.default))
        dims = (None, [], [0], [-1], [1], [0, 1], [-1, -2], [0, 0], [0, -x.dim()], [5], [-5])
        for operator, dim, keepdim in itertools.product((aten.mean.dim, aten.sum.dim_IntList), dims, (False, True)):
            yield from ((operator, (x, dim, keepdim), keywords) for keywords in ({}, {"dtype": torch.float32}))
        for order, dim, keepdim in itertools.product((2, 1, 0.5), (None, [0], [-1], [0, 1], [0, 0], [5]), (False, True)):
            yield aten.linalg_vector_norm.default, (x, order, dim, keepdim), {}
        for operator, dim, half in itertools.product(
            (aten._softmax.default, aten._log_softmax.default), (-4, -2, -1, 0, 1, 3), (False, True)
        ):
            yield operator, (x, dim, half), {}


# -- moving elements -----------------------------------------------------------------------------------------------------------------


def joins() -> Iterator[Run]:
    image, permuted = f(2, 3, 4, 4), f(2, 3, 4).permute(2, 0, 1)
    lists = [
        [f(2, 3), f(2, 3)],
        [f(2, 3), f(1, 3)],
        [f(2, 3), f(2, 4)],
        [f(2, 3)],
        [f(2, 3), f(2, 3, dtype=HALF)],
        [f(2, 3, dtype=INT), f(2, 3)],
    ]
    lists += [
        [f(0), f(2, 3)],
        [f(2, 3), f(0)],
        [f(0, 3), f(2, 3)],
        [f(), f()],
        [f(2), f()],
        [f(3, 2).t(), f(3, 2).t()],
        [f(3, 2).t(), f(2, 3)],
    ]
    lists += [
        [last(image), last(image)],
        [last(image), image],
        [image, last(image)],
        [permuted, permuted],
        [],
        [f(0), f(0)],
        [f(2, 3, 4), f(2, 3)],
    ]
    lists += [
        [last(f(2, 1, 4, 4)), last(image)],
        [f(2, 3, 1, 1), last(f(2, 3, 1, 1))],
        [last(f(2, 6, 4, 4))[:, :3]] * 2,
        [f(0), last(image)],
    ]
    for given, dim, operator in itertools.product(lists, range(-5, 5), (aten.cat.default, aten.stack.default)):
        yield operator, (given, dim), {}


def look_ups() -> Iterator[Run]:
    for weight in (f(10, 4), f(10), f(10, 4, 2), f(4, 10).t(), f(0, 4), f(10, 0), f(10, 4, dtype=HALF)):
        ids = (
            zero(2, 3),
            zero(),
            zero(0),
            zero(2, 3, dtype=INT32),
            f(2, 3),
            zero(2, 3, dtype=BOOL),
            zero(3, 2).t(),
            zero(2, 3, dtype=torch.int16),
        )
        yield from ((aten.embedding.default, (weight, index), {}) for index in ids)
    lists = [[zero(3)], [zero()], [None, zero(3)], [zero(3), zero(3)], [zero(3), zero(2)], [zero(3, 1), zero(2)], [zero(3), None, zero(3)]]
    lists += [[None, zero(2, 2)], [zero(0)], [zero(3, dtype=INT32)], [f(3)], [zero(3)] * 4, [None, None, zero(2)], [None, zero(2), zero(2)]]
    lists += [
        [zero(3, 2).t()],
        [zero(2, 3, 4).permute(2, 0, 1)],
        [None, zero(3, 2).t()],
        [zero(2, 1), zero(1, 3)],
        [zero(3, 1).expand(3, 2)],
    ]
    for x in (f(4, 5, 6), f(4), last(f(2, 3, 4, 4)), f(6, 5, 4).permute(2, 1, 0), f(0, 4), f(5, 4).t(), f()):
        yield from ((aten.index.Tensor, (x, indices), {}) for indices in lists)
        for shifts, dims in (([1], [0]), ([1], []), ([1, 1], [0, 1]), ([1], [-1]), ([1], [5]), ([1, 1], [0]), ([], []), ([1, 1], [])):
            yield aten.roll.default, (x, shifts, dims), {}


def masks() -> Iterator[Run]:
    conditions = [f(2, 3, dtype=BOOL), f(3, dtype=BOOL), f(2, 1, dtype=BOOL), f(dtype=BOOL), f(4, dtype=BOOL), f(3, 2, dtype=BOOL).t()]
    conditions += [f(2, 3, dtype=BYTE), f(2, 3), f(2, 3, dtype=INT)]
    values = [
        f(2, 3),
        f(3),
        f(),
        f(3, 2).t(),
        f(2, 3, dtype=HALF),
        f(2, 3, dtype=INT),
        f(0, 3),
        f(2, 1),
        f(dtype=DOUBLE),
        last(f(2, 3, 4, 4)),
    ]
    yield from ((aten.where.self, three, {}) for three in itertools.product(conditions, values, values))
    for condition, x in itertools.product(conditions, values):
        yield from ((aten.masked_fill.Scalar, (x, condition, value), {}) for value in (0.5, float("-inf"), True))
        yield from ((aten.masked_fill.Tensor, (x, condition, value), {}) for value in (f(), f(1), f(dtype=DOUBLE), f(2)))
        yield aten.masked_fill_.Scalar, (x.clone(), condition, 1), {}
    yield aten.masked_fill_.Scalar, (f(2, 1).expand(2, 3), f(2, 3, dtype=BOOL), 1.0), {}


def templates() -> Iterator[Run]:
    images = [
        f(2, 3),
        f(3, 2).t(),
        last(f(2, 3, 4, 4)),
        f(2, 1).expand(2, 3),
        f(2, 6)[:, ::2],
        f(0, 3),
        f(),
        f(4, 3)[::2],
        f(2, 3, 4).permute(2, 0, 1),
    ]
    for x in (*images, f(2, 6, 4).permute(2, 0, 1)[:, :, ::2], f(2, 3, dtype=INT), f(2, 3, dtype=HALF)):
        for keywords in ({}, {"dtype": HALF}, {"memory_format": torch.contiguous_format}, {"memory_format": torch.channels_last}):
            yield from ((getattr(aten, name).default, (x,), keywords) for name in ("empty_like", "zeros_like", "ones_like"))
        yield aten.full_like.default, (x, 2), {}


FAMILIES: list[Callable[[], Iterator[Run]]] = [
    convolutions,
    layouts_of_convolutions,
    odd_convolutions,
    batch_norms,
    layer_norms,
    group_norms,
]
FAMILIES += [products, pools, other_windows, grids, resizings, reductions, joins, look_ups, masks, templates]


@pytest.mark.parametrize("runs", FAMILIES, ids=lambda runs: runs.__name__)
def test_kernels_are_as_on_the_cpu(runs):
    assert differences(runs()) == []


def test_every_kernel_is_compared():
    compared = {run[0]._schema.name.partition("::")[2] for runs in FAMILIES for run in runs() if answered(run)}
    compared.add("native_batch_norm")  # through `batch_norm`: called alone with wrong sizes, the CPU's reads past the end

    assert set(_KERNELS) <= compared


# -- what the mode adds --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: torch.mm(x, x.t().half()),
        lambda x: torch.nn.functional.linear(x, x.double()),
        lambda x: x.softmax(dim=5),
        lambda x: x.sum((0, 0)),
        lambda x: x - (x > 0),
        lambda x: (x > 0) & x,
        lambda x: x.expand(2, 8, 4)[:, :1].add_(1),
        lambda x: torch.nn.functional.embedding(x.long() * 0.5, x),
    ],
)
def test_what_no_device_runs_is_refused(wrong):
    """torch's own meta kernels take these."""
    with pytest.raises((RuntimeError, IndexError)):
        wrong(f(8, 4))
    with MixedMeta(), pytest.raises((RuntimeError, IndexError)):
        wrong(torch.empty(8, 4, device="meta"))
