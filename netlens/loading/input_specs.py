"""What `--input` says, read without torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from netlens.errors import InputError
from netlens.loading.suggest import did_you_mean

EXAMPLES = "write it like 1,3,224,224 or 1,128:int64 or input_ids=1,128:int64 or [3,800,800;3,600,600]"
MOST_ELEMENTS = 2**40  # 4 TiB in float32: a slip of the finger
DTYPES = {
    **dict.fromkeys(("float32", "float", "fp32", "f32"), "float32"),
    **dict.fromkeys(("float64", "double", "fp64", "f64"), "float64"),
    **dict.fromkeys(("float16", "half", "fp16", "f16"), "float16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    **dict.fromkeys(("complex64", "cfloat"), "complex64"),
    **dict.fromkeys(("complex128", "cdouble"), "complex128"),
    **dict.fromkeys(("int64", "long", "i64"), "int64"),
    **dict.fromkeys(("int32", "int", "i32"), "int32"),
    **dict.fromkeys(("int16", "short", "i16"), "int16"),
    **dict.fromkeys(("int8", "i8"), "int8"),
    **dict.fromkeys(("uint8", "byte", "u8"), "uint8"),
    "bool": "bool",
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One argument of forward: a tensor, or a list of tensors."""

    name: str | None  # None: positional
    shape: tuple[int, ...]  # of the tensor; () for a list
    dtype: str | None = None  # "int64"; None: the model's floating type
    fill: float | int | None = None  # every element; None: random
    shapes: tuple[tuple[int, ...], ...] | None = None  # of the tensors in the list

    def __str__(self) -> str:
        sizes = [",".join(map(str, shape)) for shape in (self.shapes or (self.shape,))]
        text = f"[{';'.join(sizes)}]" if self.shapes is not None else sizes[0]
        name = f"{self.name}=" if self.name else ""
        dtype = f":{self.dtype}" if self.dtype else ""
        return f"{name}{text}{dtype}{'' if self.fill is None else f'={self.fill}'}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Inputs that a model may take."""

    specs: tuple[InputSpec, ...]
    source: str  # "ResNet18_Weights.IMAGENET1K_V1", "first layer conv1"


def parse_input_spec(text: str) -> InputSpec:
    """Read `[NAME=]SHAPE[:DTYPE[=VALUE]]`: "1,3,224,224", "ids=1,128:int64", "lengths=4:int64=16", "[3,800,800;3,600,600]".

    Raises:
        InputError: it is none of these, or a size is below 1, or the tensor is absurdly large.
    """
    shape, _, kind = text.partition(":")
    name, equals, shape = shape.rpartition("=")
    name = name.strip()
    if equals and not name.isidentifier():
        raise InputError(f"--input {text!r}: {name!r} is not the name of an argument", hint=EXAMPLES)
    dtype, fill = _kind(kind, text) if ":" in text else (None, None)
    shape = shape.strip()
    if shape.startswith("["):
        if not shape.endswith("]"):
            raise InputError(f"--input {text!r}: the list is not closed with ]", hint=EXAMPLES)
        shapes = tuple(_shape(part, text) for part in shape[1:-1].split(";"))
        return InputSpec(name or None, (), dtype, fill, shapes)
    return InputSpec(name or None, _shape(shape, text), dtype, fill)


def _shape(text: str, whole: str) -> tuple[int, ...]:
    bare = text.strip()
    if bare.startswith("(") and bare.endswith(")"):
        bare = bare[1:-1]
    sizes = [size.strip() for size in re.split(r"[,x×X]", bare)]
    for size in sizes:
        if not re.fullmatch(r"-?[0-9]+", size):
            what = f"{size!r} is not a whole number" if size else "a size is missing"
            raise InputError(f"--input {whole!r}: {what}", hint=EXAMPLES)
        if int(size) < 1:
            raise InputError(f"--input {whole!r}: every size must be at least 1, not {size}", hint=EXAMPLES)
    shape = tuple(int(size) for size in sizes)
    if math.prod(shape) > MOST_ELEMENTS:
        raise InputError(f"--input {whole!r} has {math.prod(shape):.2g} elements, more than any machine holds", hint=EXAMPLES)
    return shape


def _kind(text: str, whole: str) -> tuple[str, float | int | None]:
    wanted, equals, value = text.partition("=")
    wanted = wanted.strip().lower().removeprefix("torch.")
    if wanted not in DTYPES:
        hint = did_you_mean(wanted, DTYPES, f"types are {', '.join(dict.fromkeys(DTYPES.values()))}")
        raise InputError(f"--input {whole!r}: no type of tensor is called {wanted!r}", hint=hint)
    dtype = DTYPES[wanted]
    return dtype, _fill(value.strip(), dtype, whole) if equals else None


def _fill(value: str, dtype: str, whole: str) -> float | int:
    if dtype == "bool":
        value = {"true": "1", "false": "0"}.get(value.lower(), value)
    try:
        number = float(value) if dtype.startswith(("float", "bfloat", "complex")) else int(value)
    except ValueError:
        raise InputError(f"--input {whole!r}: {value!r} is not a value of type {dtype}", hint="write it like lengths=4:int64=16") from None
    low, high = _range(dtype)
    if not low <= number <= high and math.isfinite(number):
        raise InputError(f"--input {whole!r}: {value} does not fit into {dtype}", hint=f"values go from {low:g} to {high:g}")
    return number


def _range(dtype: str) -> tuple[float, float]:
    if dtype == "bool":
        return 0, 1
    unsigned, bits = re.fullmatch(r"(u?)int(\d+)", dtype), re.sub(r"\D", "", dtype)
    if unsigned is None:
        return -math.inf, math.inf
    span = 2 ** int(bits)
    return (0, span - 1) if unsigned[1] else (-span // 2, span // 2 - 1)
