"""The state dict of a pickled nn.Module, as its `state_dict()` would give it, without importing its class."""

from __future__ import annotations

from collections.abc import Iterator

from netlens.loading.checkpoints.stubs import Bag, Global, Mapping, Stub, Tensor

REGISTRIES = ("_parameters", "_buffers", "_modules")
MOST_TENSORS = 100_000
MOST_WORK = 400_000  # entries looked at: a module under two names is visited twice, as torch does
LONGEST_KEY, LONGEST_NAME = 200, 300  # characters; what is longer is no name, and names of any length would fill the memory

Named = tuple[str, Tensor]


def attributes(value: object) -> dict[object, object]:
    """Return an object's attributes: its state, or the first part of it where the class has slots."""
    state = value.state if isinstance(value, Stub | Mapping) else None
    if state is None and isinstance(value, Stub) and value.dotted == "torch.fx.graph_module.reduce_graph_module" and value.args:
        state = value.args[0]
    if state is None and isinstance(value, Stub) and value.dotted == "torch._dynamo.eval_frame.OptimizedModule" and value.args:
        return {"_parameters": {}, "_buffers": {}, "_modules": {"_orig_mod": value.args[0]}}
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        state = state[0]
    return state if isinstance(state, dict) else {}


def is_module(value: object) -> bool:
    """Whether an object is an nn.Module: it has the three registries."""
    return isinstance(value, Stub) and all(isinstance(attributes(value).get(name), dict) for name in REGISTRIES)


class TooMany(Exception):
    """Modules inside of modules, over and over: a list of all names would not end."""


class Flattener:
    """Walks one module."""

    def __init__(self) -> None:
        self.work = self.count = 0  # of all modules together
        self.oddities: dict[str, None] = {}

    def tensors(self, module: Stub) -> list[Named]:
        """Return the names and tensors of the state dict, in its order."""
        found: list[Named] = []
        stack: list[Iterator[tuple[str, object]]] = [iter([("", module)])]
        while stack:
            name, child = next(stack[-1], ("", None))
            if child is None:
                stack.pop()
                continue
            self.work += 1 + _weight(child)
            if len(stack) > 1000 or self.work > MOST_WORK or self.count > MOST_TENSORS:
                self.oddities["a module contains itself, or others too often: its list of tensors is incomplete"] = None
                return found
            if not is_module(child):
                self.oddities["a submodule is not stored as modules are: its tensors are left out"] = None
                continue
            own = list(self._own(child, name))
            found += own
            self.count += len(own)
            stack.append(_children(child, name))
        return found

    def _own(self, module: object, prefix: str) -> Iterator[Named]:
        inside = attributes(module)
        skipped = inside.get("_non_persistent_buffers_set")
        transient = {name for name in skipped if isinstance(name, str)} if isinstance(skipped, Bag | list | tuple) else set()
        for registry, kind in (("_parameters", "parameter"), ("_buffers", "buffer")):
            entries = inside[registry]
            assert isinstance(entries, dict)
            for name, tensor in entries.items():
                if isinstance(tensor, Tensor) and not (kind == "buffer" and name in transient):
                    yield prefix + text(name), _as(tensor, kind)
                elif tensor is not None and not isinstance(tensor, Tensor):
                    self.oddities["a parameter or a buffer is no tensor: it is left out"] = None


def _weight(module: object) -> int:
    """Return the number of entries that naming a module's tensors looks at."""
    inside = attributes(module)
    registries = [inside.get(name) for name in (*REGISTRIES, "_non_persistent_buffers_set")]
    return sum(len(registry) for registry in registries if isinstance(registry, dict | list | tuple))


def _children(module: object, prefix: str) -> Iterator[tuple[str, object]]:
    """Yield the submodules with their names; those that are None are absent, as in `state_dict()`."""
    entries = attributes(module)["_modules"]
    assert isinstance(entries, dict)
    for name, child in entries.items():
        if child is not None:
            yield f"{prefix}{text(name)}."[-LONGEST_NAME:], child


def _as(tensor: Tensor, kind: str) -> Tensor:
    """Return the tensor with the kind that its registry gives it; a tied one may be both."""
    trainable = tensor.trainable if kind == "parameter" or tensor.kind == "parameter" else None
    return Tensor(tensor.shape, tensor.stride, tensor.dtype, tensor.offset, tensor.storage, kind, trainable, why=tensor.why, cls=tensor.cls)


def text(name: object) -> str:
    """Return a key as a part of a name."""
    if isinstance(name, str):
        return name[:LONGEST_KEY]
    if isinstance(name, bytes):
        return name[:LONGEST_KEY].decode("latin-1")
    return str(name) if isinstance(name, int | float) or name is None else "?"


WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "OptimizedModule", "AveragedModel")


def model_class(module: object) -> str:
    """Return the class of a module, or of the one inside of a wrapper: the names keep the wrapper's prefix."""
    for _ in range(5):
        name, inside = class_of(module), attributes(module).get("_modules")
        inner = inside.get("module", inside.get("_orig_mod")) if isinstance(inside, dict) else None
        if name.rsplit(".", 1)[-1] not in WRAPPERS or not is_module(inner):
            break
        module = inner
    return class_of(module)


def class_of(value: object) -> str:
    """Return the name of an object's class."""
    if isinstance(value, Stub) and isinstance(value.made_by, Global):
        return value.made_by.dotted
    return value.cls if isinstance(value, Mapping) else type(value).__name__.lower()
