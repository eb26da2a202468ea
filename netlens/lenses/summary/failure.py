"""What went wrong in a forward pass, and what would run instead.

No remedy is a guess: an input, or another argument of a layer, is proposed only after the model ran with it on the meta device. The
search is bounded, and not begun where another shape cannot help.
"""

from __future__ import annotations

import io
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm

from netlens.lenses.summary.report import Failure
from netlens.probing.explain import ABOUT_SHAPE, Mismatch, is_plain, layer_input, mismatch, source_line
from netlens.probing.leaves import leaves, map_tensors
from netlens.probing.meta import META, input_stand_in, skeleton
from netlens.probing.trace import Observer, Stop, observe
from netlens.probing.untouched import seeded, untouched

if TYPE_CHECKING:
    from netlens.lenses.summary.attempts import Attempt

# Input sizes that published models were made for: MNIST, CIFAR, Tiny ImageNet, ..., ImageNet and its crops; lengths of texts and signals.
SIZES = (28, 32, 48, 64, 84, 96, 112, 128, 160, 192, 224, 227, 231, 240, 256, 260, 288, 299, 300, 320, 331, 380, 384, 448, 512)
LENGTHS = (16, 32, 64, 77, 100, 128, 187, 256, 512, 1000, 1024, 2048, 4000, 4096, 5000, 8000, 16000, 22050, 32000, 44100)
# For all trials of one failure. As a rule the operators end it, so that the remedy does not depend on how fast a machine is.
OPERATORS = 20_000
SECONDS = 3.0
LONGEST = 400  # characters of an exception's own words
_SHAPE_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError)


def failure_of(tried: Attempt) -> Failure:
    """Explain the error of an attempt."""
    error = tried.error
    assert error is not None
    stop = tried.forward.stop if tried.forward else None
    if stop is None:
        return Failure("", type(tried.model).__name__, _words(error), "", "", "", source_line(error.__traceback__), "")
    found = mismatch(stop) or Mismatch("", "")
    message = _words(error) if stop.error is error else f"{_words(error)} (after {_words(stop.error)})"
    return Failure(
        path=stop.record.path,
        type=type(stop.record.module).__name__,
        message=message if len(message) <= LONGEST else message[: LONGEST - 3] + "...",
        got=found.got,
        expects=found.expects,
        producer="" if _got_the_input(tried, stop) else stop.producer or "",
        source=source_line(stop.error.__traceback__) or source_line(error.__traceback__),
        remedy=_remedy(tried, stop, found),
    )


def _words(error: BaseException) -> str:
    """The exception's own words, on one line."""
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    plain = type(error) is RuntimeError or type(error).__module__.startswith("netlens.")
    return text if plain else f"{type(error).__name__}: {text}"


def _got_the_input(tried: Attempt, stop: Stop) -> bool:
    """Tell whether a layer got the model's own input, whatever ran before it."""
    x = layer_input(stop)
    return bool(stop.record.path) and x is not None and any(x is given for _, given in leaves(tried.arguments))


def _remedy(tried: Attempt, stop: Stop, found: Mismatch) -> str:
    if found.about == "call" or (found.about == "values" and _got_the_input(tried, stop)):
        return found.remedy
    said = f"{stop.error} {source_line(stop.error.__traceback__)}"
    if re.search(r"not compiled with CUDA|NVIDIA driver|CUDA GPU|on the same device", said):
        return "make tensors where the input is: device=x.device"
    if not found.expects and not (isinstance(stop.error, _SHAPE_ERRORS) and ABOUT_SHAPE.search(said)):
        return ""
    bench = _Bench(tried, stop)
    if found.about == "dtype":
        return _other_dtype(bench)
    runs = _input_that_runs(bench, found)
    if runs and not runs.startswith("--input"):
        return runs  # it says what is wrong with the input
    changes = found.remedy or _layers_that_fit(bench, found)
    if runs and changes:
        return f"{runs}; for this input, {changes}"
    guessed = f"the input was guessed from {tried.input_source}: say with --input what the model takes"
    return runs or changes or (guessed if "layer" in tried.input_source else "")


# -- trials ----------------------------------------------------------------------------------------------------------------------------


class _Enough(BaseException):
    """The search has run for long enough. No Exception, so that no `except Exception` in a model keeps it."""


class _Limit:
    """What is left for all trials together."""

    def __init__(self) -> None:
        self.operators = OPERATORS
        self.deadline = time.monotonic() + SECONDS

    def reached(self) -> bool:
        return self.operators <= 0 or time.monotonic() > self.deadline


class _Limited(Observer):
    """An observer that ends the run at a limit."""

    def __init__(self, model: nn.Module, inputs: Any, limit: _Limit) -> None:
        super().__init__(model, inputs)
        self.limit = limit

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.limit.operators -= 1
        if self.limit.reached():
            raise _Enough
        return super().run(func, args, kwargs)


class _Bench:
    """Runs a model that failed with other inputs and other layers, on the meta device, while there is time."""

    def __init__(self, tried: Attempt, stop: Stop) -> None:
        self.stop = stop
        self.last: Stop | None = None  # where the last trial ended; None: it ran, or there was no time
        self.model: nn.Module | None = None
        with suppress(Exception):  # whatever `copy.deepcopy` meets in the user's model: then there is nothing to try on
            self.model = tried.model if tried.on == "meta" else skeleton(tried.model)
        self.limit = _Limit()
        self.records = tried.forward.records if tried.forward else {}
        self.got_the_input = _got_the_input(tried, stop)
        self.arguments = map_tensors(tried.arguments, input_stand_in)
        self.x = self._varied([tensor for _, tensor in leaves(tried.arguments)])

    def _varied(self, originals: list[Tensor]) -> Tensor | None:
        """The input to vary: the one that the layer got, or the only one of floats; None where the command line could not say it."""
        given = (*self.arguments[0], *self.arguments[1].values())
        if not all(isinstance(value, Tensor) for value in given):
            return None
        x = layer_input(self.stop)
        same = [place for place, tensor in enumerate(originals) if tensor is x]
        floating = [place for place, tensor in enumerate(originals) if tensor.is_floating_point()]
        places = same or (floating if len(floating) == 1 else [])
        return given[places[0]] if places else None

    def runs(self, arguments: Any) -> bool:
        """Run the model with other arguments."""
        self.last = None
        if self.model is None or self.limit.reached():
            return False
        observer = _Limited(self.model, arguments, self.limit)
        try:
            with seeded(0), _silent(), observe(observer, autograd=False):
                self.model.eval()(*arguments[0], **arguments[1])
        except (Exception, _Enough):
            self.last = observer.stop
            return False
        return True

    def option(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> str:
        """The options of the command line for another input, if the model runs with it; else ""."""
        assert self.x is not None
        explicit, dtype = dtype, dtype or self.x.dtype
        floating = dtype.is_floating_point or dtype.is_complex
        other = torch.empty(tuple(shape), dtype=dtype, device=META) if floating else torch.zeros(tuple(shape), dtype=dtype)
        arguments = map_tensors(self.arguments, lambda tensor: other if tensor is self.x else tensor)
        return self._options(arguments, other if explicit else None) if self.runs(arguments) else ""

    def _options(self, arguments: Any, explicit: Tensor | None) -> str:
        assert self.model is not None
        usual = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.get_default_dtype())
        named = (*(("", value) for value in arguments[0]), *((f"{name}=", value) for name, value in arguments[1].items()))
        dtypes = [
            "" if value.dtype == usual and value is not explicit else f":{str(value.dtype).removeprefix('torch.')}" for _, value in named
        ]
        texts = [f"--input {name}{','.join(map(str, value.shape))}{dtype}" for (name, value), dtype in zip(named, dtypes, strict=True)]
        return " ".join(texts)


@contextmanager
def _silent() -> Iterator[None]:
    """What a model prints in its forward is not printed again in every trial."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# -- other inputs ----------------------------------------------------------------------------------------------------------------------


def _other_dtype(bench: _Bench) -> str:
    module, x = bench.stop.record.module, layer_input(bench.stop)
    ids = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    weight = next(iter(module.parameters(recurse=False)), None)
    wanted = torch.int64 if ids else weight.dtype if weight is not None else torch.get_default_dtype()
    if not bench.got_the_input and bench.stop.record.path:
        return f"convert what it gets: .to({wanted})"
    option = bench.option(x.shape, wanted) if bench.x is not None and x is not None else ""
    return f"{'ids are integers: ' if ids else ''}{option} runs" if option else ""


def _input_that_runs(bench: _Bench, found: Mismatch) -> str:
    """Search the input nearest to the given one with which the whole model runs."""
    if bench.x is None:
        return ""
    given = tuple(bench.x.shape)
    tried: set[tuple[int, ...]] = set()
    first = _first_layer(bench)
    layouts = [*_layouts(first, given), ((1, *given), "")]
    for shape, why in layouts if bench.x.is_floating_point() else []:
        if shape != given and shape not in tried and len(tried) < 6:
            tried.add(shape)
            option = bench.option(shape)
            if option:
                return f"{why}{option} runs"
    if found.about in ("shape", "values") and len(given) == 2 and not bench.x.is_floating_point():
        return _size_that_runs(bench, given[:1], given[1:])
    dims = len(first.kernel_size) if isinstance(first, conv._ConvNd) else 2
    if found.about == "shape" and len(given) == dims + 2:
        channels = first.in_channels if isinstance(first, conv._ConvNd) else given[1]
        return _size_that_runs(bench, (given[0], channels), given[2:])
    return ""


def _first_layer(bench: _Bench) -> nn.Module | None:
    """The layer that takes the model's input: the one that raised, if it got it, else the first with weights that was called."""
    if bench.got_the_input:
        return bench.stop.record.module
    called = (record.module for record in bench.records.values())
    return next((module for module in called if any(isinstance(module, kind) for kind, _, _ in _OF_INPUT)), None)


def _layouts(layer: Any, given: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the shapes that a layer takes and that somebody who gave `given` may have meant, and what would have been wrong."""
    if isinstance(layer, conv._ConvNd):
        yield from _image_layouts(layer.in_channels, len(layer.kernel_size), given)
    elif isinstance(layer, _LAYER_NORMS):
        yield (*given[: -len(layer.normalized_shape)], *layer.normalized_shape), ""
    elif isinstance(layer, (*_NORMS, nn.GroupNorm, nn.PReLU)) and len(given) > 1:
        weight = getattr(layer, "weight", None)
        yield (given[0], given[1] if weight is None else len(weight), *given[2:]), ""
    else:
        names = ("in_features", "input_size", "embed_dim")
        size = next((getattr(layer, name) for name in names if isinstance(getattr(layer, name, None), int)), None)
        if size is not None and given:
            flattened = prod(given[1:]) == size
            yield from (((given[0], size), ""),) if flattened else (((*given[:-1], size), ""), ((given[0], size), ""), ((1, size), ""))


def _image_layouts(channels: int, dims: int, given: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    last = given[-1:] == (channels,) and channels not in given[1:-1]
    if len(given) == dims + 2:
        if last:
            yield (given[0], channels, *given[1:-1]), "the input looks channels last: "
        yield (given[0], channels, *given[2:]), ""
    elif len(given) == dims + 1:
        if given[0] == channels:
            yield (1, *given), "the batch dimension is missing: "
        if last:
            yield (1, channels, *given[:-1]), "the input looks channels last and without a batch dimension: "
        yield (given[0], channels, *given[1:]), "the channel dimension is missing: "
        yield (1, channels, *given[1:]), ""
    elif len(given) == dims:
        yield (1, channels, *given), "the batch and channel dimensions are missing: "


def _size_that_runs(bench: _Bench, fixed: tuple[int, ...], spatial: tuple[int, ...]) -> str:
    """Search the nearest size, of equal sides. Frames of a video stay as they are."""
    frames, side = spatial[:-2], max(spatial[-2:])
    sides = 1 if len(spatial) == 1 else 2

    def run(size: int) -> str:
        return bench.option((*fixed, *frames, *(size,) * sides))

    usual = LENGTHS if sides == 1 else SIZES
    near = sorted(usual, key=lambda size: (size % 32 != 0, abs(size - side)))  # most strides divide 32
    if isinstance(bench.stop.record.module, nn.Linear) and is_plain(bench.stop.record.module):
        fits = _bisected(bench, run, side, 65536 if sides == 1 else 1024)
        if not fits:
            return ""
        near = [*(size for size in near if abs(size - fits) <= fits / 8), fits]
    option = next((option for size in near if size != side and (option := run(size))), "")
    return f"{option} runs" if option else ""


def _bisected(bench: _Bench, run: Any, side: int, most: int) -> int:
    """The side with which a layer after a flatten gets the features that it takes; they grow with the side. 0 where there is none."""
    low, high = 1, most
    layer: Any = bench.stop.record.module
    given = _features(bench.stop)
    while low <= high:
        size = (low + high) // 2
        if run(size):
            return size
        if bench.last is None:
            return 0  # no time left
        features = _features(bench.last) if bench.last.record.module is layer or bench.last.record.path == bench.stop.record.path else 0
        if features == layer.in_features or (features == given and abs(size - side) > 64):
            return 0  # something else is wrong, or the side makes no difference
        low, high = (low, size - 1) if features > layer.in_features else (size + 1, high)
    return 0


def _features(stop: Stop) -> int:
    x = layer_input(stop)
    return x.shape[-1] if x is not None and x.dim() else 0


# -- other arguments of layers ---------------------------------------------------------------------------------------------------------

_NORMS: tuple[Any, ...] = (batchnorm._BatchNorm, instancenorm._InstanceNorm)
_LAYER_NORMS: tuple[Any, ...] = (nn.LayerNorm, getattr(nn, "RMSNorm", nn.LayerNorm))
_Table = tuple[tuple[Any, str, dict[str, int]], ...]  # kinds, argument, {parameter or buffer of that size: in which dimension}
_OF_INPUT: _Table = (
    (nn.Linear, "in_features", {"weight": 1}),
    (conv._ConvTransposeNd, "in_channels", {"weight": 0}),
    (conv._ConvNd, "in_channels", {"weight": 1}),
    (_NORMS, "num_features", {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}),
    (nn.GroupNorm, "num_channels", {"weight": 0, "bias": 0}),
    (_LAYER_NORMS, "normalized_shape", {"weight": 0, "bias": 0}),
    (nn.RNNBase, "input_size", {"weight_ih_l0": 1, "weight_ih_l0_reverse": 1}),
    (nn.RNNCellBase, "input_size", {"weight_ih": 1}),
    (nn.PReLU, "num_parameters", {"weight": 0}),
)
_OF_OUTPUT: _Table = (
    (nn.Linear, "out_features", {"weight": 0, "bias": 0}),
    (conv._ConvTransposeNd, "out_channels", {"weight": 1, "bias": 0}),
    (conv._ConvNd, "out_channels", {"weight": 0, "bias": 0}),
    (nn.Embedding, "embedding_dim", {"weight": 1}),
)


@dataclass(frozen=True, slots=True)
class _Change:
    """One argument of a layer with which it would fit."""

    path: str
    module: nn.Module
    argument: str
    size: int
    places: dict[str, int]

    def __str__(self) -> str:
        return f"`{self.path or 'the model'}` would need {self.argument}={self.size}"

    def apply(self) -> None:
        """Give the layer weights of that size, on meta; `untouched` undoes it."""
        for name, dim in self.places.items():
            for tensors in _tables(self.module):
                old = tensors.get(name)
                if old is not None:
                    shape = [self.size if place == dim else size for place, size in enumerate(old.shape)]
                    new = torch.empty(shape, dtype=old.dtype, device=META)
                    tensors[name] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        setattr(self.module, self.argument, (self.size,) if self.argument == "normalized_shape" else self.size)


def _tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers


def _layers_that_fit(bench: _Bench, found: Mismatch) -> str:
    """Say with which argument the layer that raised would run, or the one before it; and what raises then, if nothing helps alone."""
    x, stop = layer_input(bench.stop), bench.stop
    if not found.expects or x is None or bench.model is None:
        return ""
    modules = dict(bench.model.named_modules())
    changes = list(_changes(bench, modules, x))
    fit = [change for change in changes if _runs_with(bench, change)]
    if fit:
        return ", or ".join(str(change) for change in fit) + (_factors(bench, x) if fit[0].argument == "in_features" else "")
    if changes and changes[0].path == stop.record.path:
        _runs_with(bench, changes[0])
        if bench.last is not None and bench.last.record.path != stop.record.path:
            return f"{changes[0]}; then `{bench.last.record.path or 'the model'}` raises"
    return ""


def _changes(bench: _Bench, modules: dict[str, nn.Module], x: Tensor) -> Iterator[_Change]:
    path, producer = bench.stop.record.path, bench.stop.producer
    layer = modules.get(path)
    taken = _argument(_OF_INPUT, layer) if layer is not None else None
    size = _size_of(layer, x) if layer is not None else None
    if layer is None or taken is None or size is None:
        return
    if not (isinstance(layer, nn.GroupNorm) and size % layer.num_groups):
        yield _Change(path, layer, taken[0], size, taken[1])
    before = modules.get(producer or "") if producer and not bench.got_the_input else None
    made = _argument(_OF_OUTPUT, before) if before is not None else None
    if before is not None and made is not None and x.shape in {shape for _, shape, _ in _outputs(bench, producer or "")}:
        wanted = getattr(layer, taken[0])
        yield _Change(producer or "", before, made[0], wanted[0] if isinstance(wanted, tuple) else wanted, made[1])


def _argument(table: _Table, module: Any) -> tuple[str, dict[str, int]] | None:
    """The argument of a layer in `table`, and where it shows; None where it is not one number of its own."""
    several = isinstance(getattr(module, "normalized_shape", None), tuple) and len(module.normalized_shape) != 1
    if not is_plain(module) or several or (isinstance(module, conv._ConvNd) and module.groups != 1):
        return None
    return next(((name, places) for kinds, name, places in table if isinstance(module, kinds)), None)


def _outputs(bench: _Bench, path: str) -> list[Any]:
    record = bench.records.get(path)
    return [leaf for _, outputs in record.calls for leaf in outputs] if record is not None else []


def _size_of(module: nn.Module, x: Tensor) -> int | None:
    """How many features or channels `x` brings to a layer."""
    if isinstance(module, conv._ConvNd):
        dims = len(module.kernel_size)
        return x.shape[-dims - 1] if x.dim() in (dims + 1, dims + 2) else None
    if isinstance(module, (*_NORMS, nn.GroupNorm, nn.PReLU)):
        return x.shape[1] if x.dim() >= 2 else None
    return x.shape[-1] if x.dim() else None


def _runs_with(bench: _Bench, change: _Change) -> bool:
    assert bench.model is not None
    with untouched(bench.model):
        change.apply()
        return bench.runs(bench.arguments)


def _factors(bench: _Bench, x: Tensor) -> str:
    """Show how a flatten made the features: " (256 x 7 x 7)"."""
    for _, shape, _ in _outputs(bench, bench.stop.producer or ""):
        for start in range(1, len(shape) - 1):
            if (*shape[:start], torch.Size(shape[start:]).numel()) == tuple(x.shape):
                return f" ({' x '.join(map(str, shape[start:]))})"
    return ""
