"""From a model and what was seen of it to the rows of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netlens.lenses.summary.report import Call, Layer, TensorLeaf, Weight
from netlens.probing.trace import Record, Shapes


def leaves_of(shapes: Shapes) -> tuple[TensorLeaf, ...]:
    """Turn (name, shape, dtype) into the report's leaves."""
    return tuple(TensorLeaf(name, shape, str(dtype).removeprefix("torch.")) for name, shape, dtype in shapes)


def rows(model: nn.Module, records: Mapping[str, Record], saved: Mapping[str, Record]) -> tuple[tuple[Layer, ...], tuple[Weight, ...]]:
    """List every module under every name, parents first, and every parameter and buffer.

    Args:
        model: the model that ran, so that lazy parameters have their shapes.
        records: what each path did in the pass that is reported.
        saved: the same of the pass with autograd.
    """
    counted: dict[int, str] = {}
    layers: list[Layer] = []
    weights: list[Weight] = []
    for path, module, alias_of, registered in _walk(model, {**saved, **records}):
        own = [] if alias_of is not None or not registered else _weights_of(path, module, counted)
        weights += own
        layers.append(_layer(path, module, alias_of, registered, own, records.get(path), saved.get(path)))
    return tuple(layers), tuple(weights)


def _walk(model: nn.Module, records: Mapping[str, Record]) -> Iterator[tuple[str, nn.Module, str | None, bool]]:
    """Yield (path, module, path of its first appearance or None, registered); without recursion, so that depth is no limit."""
    ran: dict[str, list[Record]] = {}  # parent's path -> records below it
    for record in records.values():
        if record.path:
            ran.setdefault(record.path.rpartition(".")[0], []).append(record)
    first: dict[int, str] = {}
    stack: list[tuple[str, nn.Module, bool]] = [("", model, True)]
    while stack:
        path, module, registered = stack.pop()
        alias_of = first.get(id(module))
        first.setdefault(id(module), path)
        yield path, module, alias_of, registered
        children = {}
        if alias_of is None:
            children = {name: (child, registered) for name, child in module._modules.items() if child is not None}
        for record in ran.get(path, ()):
            children.setdefault(record.path.rpartition(".")[2], (record.module, record.registered))
        stack += [(f"{path}.{name}" if path else name, child, known) for name, (child, known) in reversed(children.items())]


def _weights_of(path: str, module: nn.Module, counted: dict[int, str]) -> list[Weight]:
    """The module's own parameters and buffers; a tensor that was met before is tied to its first name."""
    found = []
    for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
        for name, tensor in tensors.items():
            if tensor is None or is_lazy(tensor):
                continue
            full = f"{path}.{name}" if path else name
            tied_to = counted.get(id(tensor))
            counted.setdefault(id(tensor), full)
            found.append(_weight(full, kind, tensor, tied_to))
    return found


def _weight(name: str, kind: str, tensor: Tensor, tied_to: str | None) -> Weight:
    trainable = kind == "parameter" and tensor.requires_grad
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Weight(name, tuple(tensor.shape), dtype, kind, trainable, tensor.numel() * tensor.element_size(), tied_to)


def _layer(
    path: str, module: nn.Module, alias_of: str | None, registered: bool, own: list[Weight], ran: Record | None, saved: Record | None
) -> Layer:
    counted = [weight for weight in own if weight.tied_to is None]
    sizes = {weight.name: _numel(weight) for weight in counted}
    return Layer(
        path=path,
        type=type(module).__name__,
        detail=_detail(module),
        depth=path.count(".") + 1 if path else 0,
        registered=registered,
        alias_of=alias_of,
        calls=_calls(ran),
        parameters=sum(sizes[w.name] for w in counted if w.kind == "parameter"),
        trainable=sum(sizes[w.name] for w in counted if w.trainable),
        buffers=sum(sizes[w.name] for w in counted if w.kind == "buffer"),
        weight_bytes=sum(weight.bytes for weight in counted),
        tied=tuple(weight.name.rpartition(".")[2] for weight in own if weight.tied_to is not None),
        macs=ran.macs if ran else 0,
        activation_bytes=ran.activation_bytes if ran else 0,
        saved_bytes=saved.saved_bytes if saved else 0,
    )


def _numel(weight: Weight) -> int:
    count = 1
    for size in weight.shape:
        count *= size
    return count


def _calls(record: Record | None) -> tuple[Call, ...]:
    if record is None:
        return ()
    return tuple(Call(leaves_of(inputs), leaves_of(outputs), times) for (inputs, outputs), times in record.calls.items())


def _detail(module: nn.Module) -> str:
    """What the module says of itself, in one line; user code, so it may raise."""
    try:
        return " ".join(str(module.extra_repr()).split())
    except Exception:
        return ""
