"""What `netlens summary` learns about a model: plain values, which are also the JSON schema.

All numbers of a layer are its *own*: they exclude what its submodules did, so that a column adds up to its total. `subtree_sums`
gives the sums of containers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TensorLeaf:
    """One tensor inside a (nested) input or output."""

    name: str  # where in the structure: "" for a bare tensor, else "logits", "0", "boxes.1"
    shape: tuple[int, ...]
    dtype: str  # "float32"


@dataclass(frozen=True, slots=True)
class Call:
    """Calls of one layer with the same input and output shapes."""

    inputs: tuple[TensorLeaf, ...]
    outputs: tuple[TensorLeaf, ...]
    times: int


@dataclass(frozen=True, slots=True)
class Weight:
    """One entry of `named_parameters` or `named_buffers`, tied entries included."""

    name: str  # full name: "layer1.0.conv1.weight"
    shape: tuple[int, ...]
    dtype: str
    kind: str  # "parameter" or "buffer"
    trainable: bool
    bytes: int
    tied_to: str | None  # full name under which the same tensor is counted; None where it is counted here


@dataclass(frozen=True, slots=True)
class Layer:
    """One module under one name. Numbers are its own, without its submodules."""

    path: str  # "layer1.0.conv1"; "" is the model itself
    type: str  # class name
    detail: str  # what the module says of itself: "3, 64, kernel_size=(7, 7), stride=(2, 2)"
    depth: int  # 0 is the model itself
    registered: bool  # False: it ran, but is hidden in a list or a local variable, so `parameters()` misses it
    alias_of: str | None  # the path under which the same module object stands first
    calls: tuple[Call, ...]  # one entry for each distinct pair of shapes, in order of appearance; () = never ran
    parameters: int  # elements, each tensor counted once in the whole model
    trainable: int  # those of them with requires_grad
    buffers: int  # elements
    weight_bytes: int  # parameters and buffers
    tied: tuple[str, ...]  # local names of parameters that are counted elsewhere: ("weight",)
    macs: int  # multiply-adds of the operators that ran in this module's own forward, over all calls
    activation_bytes: int  # new storages that those operators made, over all calls
    saved_bytes: int  # what autograd would keep of them for backward, each storage counted once
    seconds: float | None = None  # median time of its own operators, only with --time

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def times(self) -> int:
        """How often it ran."""
        return sum(call.times for call in self.calls)


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole model. MACs are multiply-adds; FLOPs = 2 x MACs."""

    parameters: int
    trainable: int
    buffers: int
    macs: int | None  # None: nothing ran. A lower bound where `uncounted` has an entry that could multiply
    flops: int | None
    seconds: float | None = None  # median of the whole forward pass, timed without looking inside


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. Activations are those of one forward pass with the given input, without weights and input."""

    parameters: dict[str, int]  # dtype -> bytes
    buffers: dict[str, int]  # dtype -> bytes
    inputs: int
    activations: int | None  # every storage that a forward pass makes; in-place results and views make none
    peak_activations: int | None  # the most that is alive at once, without autograd
    saved_for_backward: int | None  # what autograd keeps, without parameters, buffers and inputs
    saved_mode: str | None  # "train" or "eval": the mode in which `saved_for_backward` was measured
    gradients: int  # of the trainable parameters
    training_sgd: int | None  # parameters + buffers + inputs + gradients + saved
    training_adam: int | None  # the same + two moments of every trainable parameter


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator that ran and that no formula counts."""

    name: str  # "aten.fft_fft2"
    times: int
    output_bytes: int
    multiplies: bool  # it is known to multiply (matrix product, convolution, FFT, solver), so MACs are a lower bound
    layers: tuple[str, ...]  # paths, at most the first five


@dataclass(frozen=True, slots=True)
class Run:
    """How the shapes and counts were obtained."""

    on: str  # "meta", "cpu", "cuda:0", "mps:0" or "nothing" (parameters only)
    mode: str  # "eval" or "train"
    why: str  # the reason where it was not the first choice; "" otherwise


@dataclass(frozen=True, slots=True)
class Failure:
    """Where and why the forward pass raised."""

    path: str  # the innermost layer that was running; "" is the model itself
    type: str
    message: str  # the exception's own words, one line
    got: str  # "(1, 12544)"; "" where it cannot be told
    expects: str  # "(*, 9216)"; "" where it cannot be told
    producer: str  # the last layer that returned before: "flatten"; "" for the model's input
    source: str  # "nets.py:42: x = self.fc(x)", the line in the user's own code
    remedy: str


@dataclass(frozen=True, slots=True)
class SummaryReport:
    """All that `netlens summary` learns."""

    model: str  # class name
    inputs: tuple[TensorLeaf, ...]
    input_source: str  # where the input came from: "--input", "ResNet18_Weights.IMAGENET1K_V1", "first layer conv1"
    outputs: tuple[TensorLeaf, ...]  # () where nothing ran
    run: Run
    layers: tuple[Layer, ...]  # in order of definition, parents before children; the model itself first
    weights: tuple[Weight, ...]
    totals: Totals
    memory: Memory
    uncounted: tuple[Operator, ...] = ()
    failure: Failure | None = None
    notes: tuple[str, ...] = field(default=())  # what a reader should know: "input ids are zeros"

    def __str__(self) -> str:
        from netlens.lenses.summary.show import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from netlens.lenses.summary.show import as_html

        return as_html(self)


def subtree_sums(layers: Sequence[Layer], number: Callable[[Layer], int]) -> dict[str, int]:
    """Sum `number` over each layer and all layers below it.

    Returns:
        path -> sum; the sum of "" is the sum over all layers. One pass from the last layer to the first, so that depth costs nothing.
    """
    sums: dict[str, int] = {}
    for layer in reversed(layers):
        total = sums[layer.path] = sums.get(layer.path, 0) + number(layer)
        if layer.path:
            parent = layer.path.rpartition(".")[0]
            sums[parent] = sums.get(parent, 0) + total
    return sums
