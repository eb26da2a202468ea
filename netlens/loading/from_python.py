"""The user's own code: a class, a factory function or an instance, in a module or in a file. Naming it runs it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from netlens.errors import InputError, ModelNotBuilt, ModelNotFound, NetlensError, UsageError
from netlens.loading.arguments import check_model_args
from netlens.loading.named import NamedModel, user_line
from netlens.loading.specs import ModelSpec, no_such_module, syntax_error
from netlens.loading.suggest import did_you_mean
from netlens.loading.words import cause, listed, one_line


def find_python(spec: ModelSpec, model_args: Mapping[str, object]) -> NamedModel:
    """Import what `spec` names, and find in it what makes a model."""
    module = import_named(spec)
    found = _attribute(module, spec)
    instance = isinstance(found, nn.Module)
    if instance and model_args:
        what = f"{one_line(spec.text)} is a model already, so it takes no arguments"
        raise UsageError(what, hint="leave --model-arg out, or name its class or a function")
    if not instance:
        _refuse_other(found, module, spec)
        check_model_args(found, model_args, spec.attribute)

    def build() -> nn.Module:
        model: nn.Module = found if instance else found(**model_args)
        return model

    return NamedModel(
        spec=spec.text,
        source="python",
        origin=_origin(spec),
        name=spec.attribute.rpartition(".")[2],
        build=build,
        is_instance=instance,
        args=dict(model_args),
        target=None if instance else found,
    )


def _origin(spec: ModelSpec) -> str:
    return spec.module if spec.path is None else one_line(spec.path)


def import_attribute(spec: ModelSpec) -> Any:
    """Import what `spec` names, whatever it is.

    Raises:
        NetlensError: there is no such module, or nothing of that name in it.
    """
    found: Any = import_named(spec)
    for part in spec.attribute.split("."):
        known = [name for name in dir(found) if not name.startswith("_")]
        if not hasattr(found, part):
            where = one_line(spec.path or spec.module)
            raise InputError(f"{where} has no {spec.attribute!r}", hint=did_you_mean(part, known, f"it has {listed(known)}"))
        found = getattr(found, part)
    return found


def import_named(spec: ModelSpec) -> ModuleType:
    """Import the module; every way in which it can fail has its own error."""
    # A console script, unlike `python -m`, does not find modules in the current folder.
    _make_importable(Path.cwd())
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the report
            return _import_file(spec.path) if spec.path else importlib.import_module(spec.module)
    except ModuleNotFoundError as error:
        raise _module_missing(error, spec) from error
    except SyntaxError as error:
        raise syntax_error(_shown(error.filename or _origin(spec)), error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(error, spec) from error


def _make_importable(folder: Path) -> None:
    known = [Path(entry or ".").resolve() for entry in sys.path]
    if folder.resolve() not in known:
        sys.path.insert(0, str(folder.resolve()))


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module of a private name, so that it neither hides a module nor is hidden by one."""
    place = path.resolve()
    _make_importable(place.parent)
    name = f"_netlens_{place.stem}_{hashlib.sha256(bytes(place)).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, place)
    assert module_spec is not None and module_spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up while it runs
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_missing(error: ModuleNotFoundError, spec: ModelSpec) -> NetlensError:
    name = error.name or ""
    if name and f"{spec.module}.".startswith(f"{name}."):
        parent = sys.modules.get(name.rpartition(".")[0])
        return no_such_module(name, _submodules(parent), spec.text)
    what = f"{_origin(spec)} needs the module {name!r}, which is not installed" if name else f"{_origin(spec)}: {cause(error)}"
    line = user_line(error)
    return ModelNotBuilt(f"{what}{f' ({line})' if line else ''}", hint="install it, or run netlens where it can be imported")


def _import_failed(error: BaseException, spec: ModelSpec) -> ModelNotBuilt:
    line = user_line(error)
    where = f" ({line})" if line else ""
    if isinstance(error, SystemExit):
        hint = "put what is for running it as a program under `if __name__ == '__main__':`"
        return ModelNotBuilt(f"{_origin(spec)} ends the program when it is imported: {cause(error)}{where}", hint=hint)
    hint = "mend it, then try again"
    if "attempted relative import" in str(error):
        hint = "it is part of a package: name it like package.module:Net, from the folder that holds the package"
    return ModelNotBuilt(f"{_origin(spec)} cannot be imported: {cause(error)}{where}", hint=hint)


def _attribute(module: ModuleType, spec: ModelSpec) -> Any:
    found: Any = module
    for name in spec.attribute.split("."):
        found = _member(found, name, _origin(spec) if found is module else getattr(found, "__name__", type(found).__name__))
    return found


def _member(owner: object, name: str, where: str) -> object:
    try:
        return getattr(owner, name)
    except AttributeError:
        if name in _submodules(owner):
            raise ModelNotFound(f"{where}.{name} is a module, not a model", hint=f"name a model in it: {where}.{name}:NAME") from None
        known = models_of(owner)
        otherwise = f"it has {listed(known)}" if known else "it has no class, function or instance that could be a model"
        raise ModelNotFound(f"{where} has no {name!r}", hint=did_you_mean(name, known, otherwise)) from None
    except Exception as error:  # a module may compute its attributes
        raise ModelNotBuilt(f"reading {name!r} of {where} raised {cause(error)}", hint="mend it, then try again") from error


def _submodules(package: object) -> list[str]:
    return [module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))]


def models_of(owner: object) -> list[str]:
    """Return the names of what could be a model: modules and their instances first, then functions of the user's own."""
    public = {name: value for name, value in vars(owner).items() if not name.startswith("_")} if hasattr(owner, "__dict__") else {}
    home = getattr(owner, "__name__", None)
    modules = [name for name, value in public.items() if _is_module_class(value) or isinstance(value, nn.Module)]
    own = [name for name, value in public.items() if callable(value) and getattr(value, "__module__", None) == home]
    others = [name for name, value in public.items() if callable(value)]
    return list(dict.fromkeys([*modules, *own, *others]))


def _is_module_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _refuse_other(found: object, module: ModuleType, spec: ModelSpec) -> None:
    if _is_module_class(found) or (callable(found) and not isinstance(found, type)):
        return
    text = one_line(spec.text)
    owner: object = found if isinstance(found, ModuleType) else module
    models = [name for name in models_of(owner) if _is_module_class(getattr(owner, name)) or not isinstance(getattr(owner, name), type)]
    hint = f"models there: {listed(models)}" if models else "name a class of torch.nn.Module, a function that returns one, or an instance"
    if isinstance(found, type):
        raise ModelNotFound(f"{text} is a class, but not a torch.nn.Module", hint=hint)
    kind = "a module" if isinstance(found, ModuleType) else f"of type {type(found).__name__}"
    raise ModelNotFound(f"{text} is {kind}, not a model", hint=hint)


def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
