"""Importing torch and torchvision in the command's own process, without what the command does not need.

`torchvision.ops.roi_align` takes one helper from `torch._dynamo.utils`, and with it the whole compiler: about 800 modules, a third of
the wait for `netlens summary resnet18`. While torchvision is imported, and only then, a stand-in offers that helper, which looks the real
one up when it is called. Afterwards `import torch._dynamo` and `torch.compile` find the real compiler, as ever. The library
(`import netlens`) never does this.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from netlens.errors import ModelNotBuilt

COMPILER = "torch._dynamo"
HELPER = "is_compile_supported"


def import_torch() -> None:
    """Import torch, and let the import of torchvision that may follow do without the compiler.

    Raises:
        ModelNotBuilt: torch is missing or broken.
    """
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _Torchvision())
    try:
        with _no_search_for_garbage():
            import torch  # noqa: F401
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelNotBuilt(f"torch cannot be imported: {reason}", hint="install it: pip install torch torchvision") from error


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Torch builds a million objects that all stay; Python would search them for garbage again and again, for a fifth of the import."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if "triton" not in sys.modules:  # its bindings would report what is not collected at exit as leaked
            gc.freeze()
        if enabled:
            gc.enable()


class _Torchvision(MetaPathFinder):
    """Finds torchvision as Python would, and puts the stand-in in place around its execution."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None and COMPILER not in sys.modules:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                _execute(module, execute)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _execute(module: ModuleType, execute: Any) -> None:
    stand_ins = _stand_ins()
    before = set(sys.modules)
    sys.modules.update(stand_ins)
    try:
        execute(module)
    except (ImportError, AttributeError):  # a torchvision that asks the compiler for more: give it the compiler
        _remove(stand_ins)
        for name in set(sys.modules) - before - {module.__name__}:
            if name.startswith("torchvision."):
                del sys.modules[name]
        execute(module)
    finally:
        _remove(stand_ins)


def _stand_ins() -> dict[str, ModuleType]:
    def is_compile_supported(device_type: str) -> Any:
        from torch._dynamo import utils

        return utils.is_compile_supported(device_type)

    helpers = ModuleType(f"{COMPILER}.utils")
    setattr(helpers, HELPER, is_compile_supported)
    compiler = ModuleType(COMPILER)
    compiler.utils = helpers  # type: ignore[attr-defined]
    return {COMPILER: compiler, f"{COMPILER}.utils": helpers}


def _remove(stand_ins: dict[str, ModuleType]) -> None:
    for name, module in stand_ins.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    torch = sys.modules.get("torch")
    if torch is not None and vars(torch).get("_dynamo") is stand_ins[COMPILER]:
        del torch._dynamo
