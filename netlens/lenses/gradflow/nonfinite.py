"""The first operation that turns finite numbers into others: looked for once a step is known to hold some, not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from netlens.lenses.gradflow.backward import Batch, LossOf, checkpoints_with_graph, differentiate
from netlens.lenses.gradflow.report import FirstNonFinite
from netlens.probing.dispatching import as_without, storage_key, tensors
from netlens.probing.leaves import leaves
from netlens.probing.paths import Paths, Place, every_call
from netlens.probing.trace import plain_kernels

# -inf that they make is a mask, and no fault; it is to blame only where nothing after it is.
_MASKS = frozenset(("masked_fill", "where", "full", "full_like", "new_full", "fill", "scalar_tensor", "lift_fresh", "triu", "tril"))
_UNWRITTEN = ("empty", "new_empty")  # operations that leave what was in memory


def first_nonfinite(
    model: nn.Module, batches: Sequence[Batch], loss: LossOf, *, around: Callable[[], Any], scale: float
) -> FirstNonFinite | None:
    """Run a step again, and find where what is not finite in its loss or its gradients begins; None: this time all is finite.

    Args:
        model: in its mode; gradients are added to `.grad`.
        batches: of the step.
        loss: of output and labels.
        around: a context for forward and loss: autocast.
        scale: of the loss.
    """
    for args, kwargs, labels in batches:
        search = _Forward(model)
        with plain_kernels(), checkpoints_with_graph(), around(), search, every_call(search.call):
            value = loss(model(*args, **kwargs), labels)
        if not value.isfinite().all():
            return search.origin(value)
        if value.requires_grad:
            way_back = _Backward(search.graph, value)
            differentiate(value, scale / len(batches))
            if way_back.found is not None:
                return way_back.found
    return None


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where numbers in one storage ceased to be finite."""

    found: FirstNonFinite
    masks: bool  # on purpose


class _Forward(TorchDispatchMode):
    """Follows what is not finite from the operation that made it, through all that was computed from it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._paths = Paths(model, Place)
        self._place: Place | None = None
        self._origins: dict[int, _Origin] = {}  # by storage
        self._made: set[int] = set()  # storages; those of before are weights and inputs
        self._weights = {storage_key(tensor): name for name, tensor in (*model.named_buffers(), *model.named_parameters())}
        self.graph = _Graph()

    def call(self, original: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one module's call, and note which nodes of the graph it makes."""
        caller = self._place
        self.graph.claim((*args, *kwargs.values()), _shown(caller))
        self._place = self._paths.of(module, caller)
        try:
            result = original(module, *args, **kwargs)
            self.graph.claim(result, _shown(self._place))
        finally:
            self._place = caller
        return result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and look at what it made."""
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        known = [found for tensor in tensors((*args, *kwargs.values())) if not _is_finite(tensor) and (found := self._origin(tensor))]
        result = as_without(func, args, kwargs)
        for made in tensors((result,)):
            self._made.add(storage_key(made))
            if not _is_finite(made) and not name.startswith(_UNWRITTEN):
                self._origins[storage_key(made)] = self._inherited(made, known) or self._begun(made, name.strip("_"))
        return result

    def _origin(self, given: Tensor) -> _Origin | None:
        """Return where what is not finite in an argument began; None: nobody wrote it."""
        key = storage_key(given)
        if key not in self._made and key not in self._origins:
            name = self._weights.get(key)
            source = "input" if name is None else f"weight {name}"
            found = FirstNonFinite(self._where, *_shown(self._place), "", *_counted(given), source)
            self._origins[key] = _Origin(found, masks=not isinstance(given, nn.Parameter) and _is_mask(given))
        return self._origins.get(key)

    @property
    def _where(self) -> str:
        return "loss" if self._place is None else "forward"

    def _inherited(self, made: Tensor, known: list[_Origin]) -> _Origin | None:
        """Return the origin of what was given; what makes NaN of a mask begins something new."""
        fault = next((origin for origin in known if not origin.masks), None)
        return fault or (known[0] if known and _is_mask(made) else None)

    def _begun(self, made: Tensor, name: str) -> _Origin:
        return _Origin(FirstNonFinite(self._where, *_shown(self._place), name, *_counted(made)), masks=name in _MASKS and _is_mask(made))

    def origin(self, loss: Tensor) -> FirstNonFinite:
        """Return where what is not finite in the loss began."""
        found = self._origins.get(storage_key(loss))
        return found.found if found is not None else FirstNonFinite("loss", "", "", "", *_counted(loss))


class _Graph:
    """Which module made each node of the graph."""

    def __init__(self) -> None:
        self.places: dict[Any, tuple[str, str]] = {}

    def claim(self, value: Any, place: tuple[str, str]) -> None:
        """Give all nodes that lead to `value`, and belong to nobody, to a module."""
        waiting = [tensor.grad_fn for _, tensor in leaves(value)]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self.places:
                self.places[node] = place
                waiting += [following for following, _ in node.next_functions]


class _Backward:
    """Looks at what every node of a graph is given and gives on; `found` is the first that is given finite numbers and gives on others."""

    def __init__(self, graph: _Graph, loss: Tensor) -> None:
        self.found: FirstNonFinite | None = None
        graph.claim(loss, ("", ""))
        for node, place in graph.places.items():
            node.register_hook(partial(self._look, place, node.name()))

    def _look(self, place: tuple[str, str], operation: str, onwards: Any, given: Any) -> None:
        if self.found is not None:
            return
        sums = [tensor for tensor in tensors(given) if not _is_finite(tensor)]  # of gradients that were finite one by one
        broken = sums or [tensor for tensor in tensors(onwards) if not _is_finite(tensor)]
        if broken:
            self.found = FirstNonFinite("backward", *place, "sum of gradients" if sums else operation, *_counted(broken[0]))


def _shown(place: Place | None) -> tuple[str, str]:
    """Return the name and type of a module as in reports; of the loss function neither."""
    if place is None:
        return "", ""
    kind = type(place.module).__name__
    return place.path or kind, kind


def _is_mask(tensor: Tensor) -> bool:
    """Tell whether all that is not finite is -inf."""
    return not tensor.is_complex() and not bool((tensor.isnan() | tensor.isposinf()).any())


def _counted(tensor: Tensor) -> tuple[int, int]:
    return int(tensor.isnan().sum()), int(tensor.isinf().sum())


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.layout != torch.strided:
        return True
    return bool(tensor.isfinite().all())
