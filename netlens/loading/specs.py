"""What the user typed for the model, understood before torch is imported.

    resnet18                          torchvision's registry; `tv:resnet18` says so
    timm:NAME                         timm's registry
    hf:FOLDER, hf:TYPE, hf:ORG/NAME   a transformers config
    my.nets:Net, my.nets.Net          a class, a factory function or an instance in a module
    nets.py:Net                       the same in a file
    a folder, or model.pt             a checkpoint

The first that fits wins, in this order: `source:`, a path, `module:attribute`, `module.attribute`, a name. A file called
`resnet18` therefore never hides the model; `./resnet18` names the file.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from netlens.errors import FileProblem, ModelNotBuilt, ModelNotFound, UsageError
from netlens.loading.suggest import closest, did_you_mean
from netlens.loading.words import listed, one_line, user_path

SOURCES = {"tv": "torchvision", "torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
CHECKPOINTS = (".pt", ".pth", ".pt2", ".ckpt", ".bin", ".safetensors", ".pkl", ".pth.tar", ".index.json", ".distcp", ".torchscript")
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.index.json", "*.distcp")  # in a folder beside a config.json
EXAMPLES = "name it like resnet18, timm:NAME, hf:TYPE, package.module:Net or nets.py:Net"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Where to look for the model: a name in a registry, or an attribute of a module or of a file."""

    text: str  # the unambiguous form: "my.nets:Net" where the user typed "my.nets.Net"
    source: str  # "torchvision", "timm", "transformers", "python" or "checkpoint"
    name: str = ""  # in the registry; for transformers a folder, a type or an ID on the hub
    module: str = ""  # "my.nets"
    path: Path | None = None  # of the file that stands in for the module, or of the checkpoint
    attribute: str = ""  # "Net", or "presets.small"


def parse_model_spec(text: str) -> ModelSpec:
    """Say what `text` names.

    Raises:
        UsageError: it does not name a model. FileProblem: no such file. ModelNotFound: no such module. ModelNotBuilt: a syntax error.
    """
    text = text.strip()
    if not text:
        raise UsageError("no model is named", hint=EXAMPLES)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in SOURCES:
        return _registry_spec(text, prefix, rest.strip())
    if _is_path(text):
        return _path_spec(text)
    if colon:
        return _module_spec(text, prefix, rest)
    if "." in text and _importable(text.partition(".")[0]):
        module, _, attribute = text.rpartition(".")
        return _module_spec(f"{module}:{attribute}", module, attribute)
    if "." in text and Path(text).is_file():  # no published name has a dot: a file of any suffix, which the reader will name
        return _path_spec(text)
    return ModelSpec(text, "torchvision", name=text)


def parse_model_args(texts: Iterable[str]) -> dict[str, object]:
    """Read `--model-arg num_classes=10`: Python literals, and text where it is none.

    Raises:
        UsageError: no `=`, a name that no argument can have, a name given twice, or `true` for `True`.
    """
    args: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise UsageError(f"--model-arg {one_line(text)!r} is not NAME=VALUE", hint="write it like --model-arg num_classes=10")
        if key in args:
            raise UsageError(f"--model-arg {key} is given twice", hint="give each argument once")
        args[key] = _literal(key, value.strip())
    return args


def no_such_module(name: str, known: Iterable[str], text: str) -> ModelNotFound:
    """Return the error for a module, or a part of its name, that cannot be found."""
    parent, _, part = name.rpartition(".")
    close = closest(part, known)
    hint = "modules are looked for in the current folder and among the installed packages"
    if close is not None:
        whole = f"{parent}.{close}" if parent else close
        hint = f"did you mean {whole + text.removeprefix(name)!r}?"
    return ModelNotFound(f"no module named {name!r}, so {text!r} leads nowhere", hint=hint)


def _literal(key: str, value: str) -> object:
    if value.lower() in ("true", "false") and value not in ("True", "False"):  # the text "false" would count as true
        word = value.capitalize()
        raise UsageError(f"--model-arg {key}={value} would be text, and any text counts as true", hint=f"write {key}={word}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "3px" is an "invalid decimal literal", and text is what is meant
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _registry_spec(text: str, prefix: str, name: str) -> ModelSpec:
    if not name:
        raise UsageError(f"{text!r} names no model", hint=f"a name follows the colon: {prefix}:NAME")
    return ModelSpec(text, SOURCES[prefix], name=name)


def _module_spec(text: str, module: str, attribute: str) -> ModelSpec:
    if not _is_dotted(module):
        raise UsageError(f"{module!r} is not the name of a Python module", hint=EXAMPLES)
    if not _is_dotted(attribute):
        raise UsageError(
            f"{text!r} does not name a model in {module}", hint=f"a class, function or instance follows the colon: {module}:Net"
        )
    first = module.partition(".")[0]
    if not _importable(first):
        raise no_such_module(first, [*_local_modules(), *SOURCES], text)
    return ModelSpec(text, "python", module=module, attribute=attribute)


def _path_spec(text: str) -> ModelSpec:
    file, _, attribute = text.rpartition(":") if ".py:" in text else (text, "", "")
    path = user_path(file.rstrip(":"))  # pytest writes nets.py::Net
    if not os.path.lexists(path):
        raise _no_such_file(path)
    if path.suffix != ".py" or path.is_dir():
        return _checkpoint_spec(text, path)
    tree = _read_python(path)
    if not _is_dotted(attribute):
        models = models_in(tree)
        choices = " or ".join(f"{path}:{one_line(model)}" for model in models[:3])
        what = f"it defines {listed(models)}" if models else "it defines no class and no function"
        hint = f"name one, like {choices}" if models else f"name an attribute of it: {path}:NAME"
        raise UsageError(f"{text!r} does not say which model of the file is meant: {what}", hint=hint)
    return ModelSpec(text, "python", path=path, attribute=attribute)


def _checkpoint_spec(text: str, path: Path) -> ModelSpec:
    """Take a file or a folder for a checkpoint; what it really is, its first bytes tell whoever reads it."""
    if (path / "__init__.py").is_file():
        raise UsageError(f"{str(path)!r} is a Python package, not a model", hint=f"name a model in it, like {path.name}.module:Net")
    if (path / "config.json").is_file() and not any(found for pattern in WEIGHTS for found in path.glob(pattern)):
        raise UsageError(f"{str(path)!r} is a folder with a config.json", hint=f"for the model that the config describes: hf:{path}")
    return ModelSpec(text, "checkpoint", path=path)


def models_in(tree: ast.Module) -> list[str]:
    """Return the names of a file's models, without running it: modules by their bases, else its classes, else its functions."""
    bases = {node.name: [ast.unparse(base) for base in node.bases] for node in tree.body if isinstance(node, ast.ClassDef)}
    modules: list[str] = []
    for name, parents in bases.items():
        if any(parent.endswith("Module") or parent in modules for parent in parents):
            modules.append(name)
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return modules or list(bases) or functions


def _read_python(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import that follows shows the user's own SyntaxWarnings
            return ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise FileProblem(f"{str(path)!r} cannot be read: {error.strerror}", hint="check the path and its permissions") from error
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        raise syntax_error(path, error) from error


def syntax_error(path: Path | str, error: SyntaxError | ValueError) -> ModelNotBuilt:
    """Return the error for user code that is not Python."""
    line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return ModelNotBuilt(f"{one_line(path)}{line} is not valid Python: {one_line(words)}", hint="mend the file, then try again")


def _no_such_file(path: Path) -> FileProblem:
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return FileProblem(f"no folder {str(path.parent)!r}", hint="paths start at the current folder")
    return FileProblem(f"no file {str(path)!r}", hint=did_you_mean(path.name, siblings, "paths start at the current folder"))


def _is_path(text: str) -> bool:
    separators = ("/", "\\") if os.sep == "\\" else ("/",)
    return ".py:" in text or text.endswith((".py", *CHECKPOINTS)) or any(separator in text for separator in separators)


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _importable(first: str) -> bool:
    """Whether a module of that name exists; `first` has no dot, so that nothing is imported to find out."""
    if first in sys.modules or PathFinder.find_spec(first, [str(Path.cwd())]) is not None:
        return True
    try:
        return importlib.util.find_spec(first) is not None
    except ValueError:  # an empty name, or a module without a spec
        return False


def _local_modules() -> list[str]:
    here = Path.cwd()
    return [entry.stem for entry in here.iterdir() if entry.suffix == ".py" or (entry.is_dir() and entry.stem.isidentifier())]
