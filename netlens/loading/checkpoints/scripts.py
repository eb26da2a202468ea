"""TorchScript archives: their tensors, named as the module's `state_dict()` names them. The code in them is read for names only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from netlens.loading.checkpoints.machine import Damaged
from netlens.loading.checkpoints.modules import LONGEST_NAME, MOST_TENSORS, MOST_WORK, attributes, text
from netlens.loading.checkpoints.stubs import Stub, Tensor
from netlens.loading.checkpoints.zips import Zip

MOST_CODE = 8 << 20  # characters
CLASS = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[([^\]]*)\]\n  __buffers__ = \[([^\]]*)\]", re.MULTILINE)
QUOTED = re.compile(r'"([^"]*)"')
MANGLED = re.compile(r"^__torch__\.|___torch_mangle_\d+\.")


@dataclass(frozen=True, slots=True)
class Registry:
    """What a class of TorchScript registers, in its order."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


@dataclass(slots=True)
class Code:
    """The classes that an archive defines."""

    classes: dict[str, Registry]
    at_load: int  # files with a __setstate__: it runs when the archive is loaded
    complete: bool


def read_code(archive: Zip) -> Code:
    """Read the registries out of the source text."""
    classes: dict[str, Registry] = {}
    at_load, left = 0, MOST_CODE
    folder = f"{archive.root}code/"
    for name, member in archive.members.items():
        if not name.startswith(folder) or not name.endswith(".py"):
            continue
        left -= member.size
        if left < 0:
            break
        try:
            source = archive.read(name, MOST_CODE).decode("utf-8", "replace")
        except Damaged:
            continue
        at_load += "def __setstate__" in source
        module = name.removeprefix(folder).removesuffix(".py").replace("/", ".")
        for match in CLASS.finditer(source):
            classes[f"{module}.{match[1]}"] = Registry(tuple(QUOTED.findall(match[2])), tuple(QUOTED.findall(match[3])))
    return Code(classes, at_load, left >= 0)


def class_name(value: object) -> str:
    """Return the Python class that a scripted object was made from."""
    return MANGLED.sub("", value.dotted) if isinstance(value, Stub) else ""


class ScriptFlattener:
    """Walks the module of an archive."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.oddities: dict[str, None] = {}

    def tensors(self, module: object) -> list[tuple[str, Tensor]]:
        """Return names and tensors: parameters, then buffers, then those of the submodules."""
        found: list[tuple[str, Tensor]] = []
        stack: list[Iterator[tuple[str, object]]] = [iter([("", module)])]
        work = 0
        while stack:
            prefix, child = next(stack[-1], ("", None))
            if child is None:
                stack.pop()
                continue
            registry = self.code.classes.get(child.dotted) if isinstance(child, Stub) else None
            work += 1 + len(attributes(child)) + (len(registry.parameters) + len(registry.buffers) if registry else 0)
            if len(stack) > 1000 or work > MOST_WORK or len(found) > MOST_TENSORS:
                self.oddities["a module contains itself, or others too often: its list of tensors is incomplete"] = None
                break
            found.extend(self._own(child, prefix))
            stack.append(self._children(child, prefix))
        return found

    def _own(self, module: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
        inside, registry = attributes(module), self.code.classes.get(module.dotted if isinstance(module, Stub) else "")
        if registry is None:
            for name, tensor in inside.items():
                if isinstance(tensor, Tensor):
                    yield prefix + text(name), tensor
            return
        for names, kind in ((registry.parameters, "parameter"), (registry.buffers, "buffer")):
            for name in names:
                if isinstance(tensor := inside.get(name), Tensor):
                    tensor.kind = kind
                    tensor.trainable = tensor.trainable if kind == "parameter" else None
                    yield prefix + name, tensor

    def _children(self, module: object, prefix: str) -> Iterator[tuple[str, object]]:
        for name, child in attributes(module).items():
            if isinstance(child, Stub) and (child.dotted in self.code.classes or not self.code.classes):
                yield f"{prefix}{text(name)}."[-LONGEST_NAME:], child
