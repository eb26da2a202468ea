"""Running a model that failed again, with other inputs and other layers, on the meta device and within a limit."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from netlens.probing.call_rules import layer_input
from netlens.probing.leaves import leaves, map_tensors
from netlens.probing.meta import META, input_stand_in, skeleton
from netlens.probing.trace import Observer, Stop, observe
from netlens.probing.untouched import seeded

if TYPE_CHECKING:
    from netlens.lenses.summary.attempts import Attempt

# For all trials of one failure. As a rule the operators end it, so that the remedy does not depend on how fast a machine is.
_OPERATORS = 20_000
_SECONDS = 3.0


def got_the_input(tried: Attempt, stop: Stop) -> bool:
    """Tell whether a layer got the model's own input, whatever ran before it."""
    x = layer_input(stop)
    return bool(stop.record.path) and x is not None and any(x is given for _, given in leaves(tried.arguments))


class Bench:
    """A model that failed, and what is left of the limit for trying what would run."""

    def __init__(self, tried: Attempt, stop: Stop) -> None:
        self.stop = stop
        self.last: Stop | None = None  # where the last trial ended; None: it ran, or the limit was reached
        self.model = tried.model  # made for the summary where it is on meta; else the user's, and not to be touched
        self._operators, self._deadline = _OPERATORS, time.monotonic() + _SECONDS
        try:
            self.model = self.model if tried.on == "meta" else skeleton(self.model)
        except Exception:  # whatever `copy.deepcopy` meets in the user's model: then there is nothing to try on
            self._operators = 0
        self.records = tried.forward.records if tried.forward else {}
        self.got_the_input = got_the_input(tried, stop)
        self.arguments = map_tensors(tried.arguments, input_stand_in)
        self.x = self._varied([tensor for _, tensor in leaves(tried.arguments)])

    def _varied(self, originals: list[Tensor]) -> Tensor | None:
        """The input to vary: the one that the layer got, or the only one (of floats); None where the command line could not say it."""
        given = (*self.arguments[0], *self.arguments[1].values())
        if not all(isinstance(value, Tensor) for value in given):
            return None
        x = layer_input(self.stop)
        same = [place for place, tensor in enumerate(originals) if tensor is x]
        floating = [place for place, tensor in enumerate(originals) if tensor.is_floating_point()] or [*range(len(originals))]
        return given[(same or floating)[0]] if same or len(floating) == 1 else None

    def spent(self, operators: int = 0) -> bool:
        """Count operators, and tell whether the limit is reached."""
        self._operators -= operators
        return self._operators <= 0 or time.monotonic() > self._deadline

    def runs(self, arguments: Any) -> bool:
        """Run the model with other arguments."""
        self.last = None
        if self.spent():
            return False
        observer = _Limited(self, arguments)
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
        made_of = dtype or self.x.dtype
        device = META if made_of.is_floating_point or made_of.is_complex else None
        other = torch.zeros(tuple(shape), dtype=made_of, device=device)
        arguments = map_tensors(self.arguments, lambda tensor: other if tensor is self.x else tensor)
        return self._options(arguments, other if dtype else None) if self.runs(arguments) else ""

    def _options(self, arguments: Any, explicit: Tensor | None) -> str:
        usual = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.get_default_dtype())
        texts = []
        for name, value in (*(("", value) for value in arguments[0]), *((f"{name}=", value) for name, value in arguments[1].items())):
            dtype = "" if value.dtype == usual and value is not explicit else f":{str(value.dtype).removeprefix('torch.')}"
            texts.append(f"--input {name}{','.join(map(str, value.shape))}{dtype}")
        return " ".join(texts)


class _Enough(BaseException):
    """The limit is reached. No Exception, so that no `except Exception` in a model keeps it."""


class _Limited(Observer):
    """An observer that ends the run at the limit."""

    def __init__(self, bench: Bench, inputs: Any) -> None:
        super().__init__(bench.model, inputs)
        self.bench = bench

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.bench.spent(1):
            raise _Enough
        return super().run(func, args, kwargs)


@contextmanager
def _silent() -> Iterator[None]:
    """What a model prints in its forward is not printed again in every trial."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
