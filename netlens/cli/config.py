"""Defaults and named models from `pyproject.toml`; its keys are the names of the options.

    [tool.netlens]                     defaults of options: command line > file > built-in default
    max-memory = "24GiB"

    [tool.netlens.models.classifier]   one model of the repository, for `netlens check`
    model = "my.models:Net"
    model-arg = { num_classes = 10 }   or ["num_classes=10"]
    input = "1,3,224,224"              or a list, for several inputs
    expect-output = "1,10"

The nearest `pyproject.toml` upward that has a `[tool.netlens]` table counts; a folder with `.git` is the last one searched.
Consent to run code, or to rewrite files, is never taken from a file: such options have no key.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from netlens.errors import FileProblem, UsageError

NAME = "pyproject.toml"


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says, checked: repeatable options are tuples of texts, `model-arg` tables are "name=literal" texts."""

    path: Path | None = None  # None: there is no such table; paths in the file are relative to this one's folder
    defaults: dict[str, object] = field(default_factory=dict)
    models: dict[str, dict[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """One key: `read` returns the option's value and raises ValueError for what it does not take."""

    read: Callable[[object], object]
    takes: str
    places: frozenset[str] = frozenset({"defaults", "models"})


def load_config(start: Path) -> Config:
    """Read the configuration that holds in the folder `start`.

    Raises:
        UsageError: an unknown key, or a value of the wrong type.
        FileProblem: the file cannot be read, or is not TOML.
    """
    for path in _candidates(start):
        tool = _parse(path).get("tool")
        if isinstance(tool, dict) and "netlens" in tool:
            return _config(path, tool["netlens"])
    return Config()


def _candidates(start: Path) -> Iterator[Path]:
    folder = start.absolute()
    for place in (folder, *folder.parents):
        if (place / NAME).is_file():
            yield place / NAME
        if (place / ".git").exists():
            return


def _parse(path: Path) -> dict[str, object]:
    try:
        content = path.read_bytes()
        if b"netlens" not in content:  # a file that is not for us may be as broken as it likes
            return {}
        return _loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise FileProblem(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileProblem(f"{path}, line {line}: not UTF-8 text", hint="save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _not_toml(path, content, str(error)) from error


def _loads(text: str) -> dict[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return cast("dict[str, object]", tomllib.loads(text))


def _not_toml(path: Path, content: bytes, reason: str) -> FileProblem:
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", reason)
    line = int(found[1]) if found and found[1] else len(content.splitlines())
    words = reason[: found.start()] if found else reason
    return FileProblem(f"{path}, line {line}: {words[:1].lower()}{words[1:]}", hint="correct that line; the file must be valid TOML")


def _config(path: Path, table: object) -> Config:
    if not isinstance(table, dict):
        raise UsageError(
            f"[tool.netlens] of {path} must be a table, not {_kind(table)}", hint='for example:  [tool.netlens]  device = "cpu"'
        )
    models = table.get("models", {})
    if not isinstance(models, dict):
        raise UsageError(f"models in [tool.netlens] of {path} must be tables, not {_kind(models)}", hint="write [tool.netlens.models.NAME]")
    defaults = {name: value for name, value in table.items() if name != "models"}
    return Config(
        path=path,
        defaults=_values(defaults, "defaults", f"[tool.netlens] of {path}"),
        models={name: _model(name, model, path) for name, model in models.items()},
    )


def _model(name: str, table: object, path: Path) -> dict[str, object]:
    place = f"[tool.netlens.models.{name}] of {path}"
    if not isinstance(table, dict):
        raise UsageError(
            f"{place} must be a table, not {_kind(table)}", hint=f'write [tool.netlens.models.{name}] and below it model = "..."'
        )
    values = _values(table, "models", place)
    if "model" not in values:
        raise UsageError(
            f"{place} does not name a model", hint='add model = "my.models:Net", or any other name that `netlens summary` takes'
        )
    return values


def _values(table: Mapping[str, object], kind: str, place: str) -> dict[str, object]:
    return {name: _value(name, value, kind, place) for name, value in table.items()}


def _value(name: str, value: object, kind: str, place: str) -> object:
    key = KEYS.get(name)
    if key is None:
        raise UsageError(f"no key {name!r} in {place}", hint=_close_key(name, kind))
    if kind not in key.places:
        where = "[tool.netlens.models.NAME], next to its model" if kind == "defaults" else "[tool.netlens], for all models"
        raise UsageError(f"{name} does not belong in {place}", hint=f"it goes to {where}")
    try:
        return key.read(value)
    except ValueError:
        shown = repr(value) if isinstance(value, str) else _kind(value)
        raise UsageError(f"{name} in {place} cannot be {shown}", hint=f"{name} takes {key.takes}") from None


def _close_key(name: str, kind: str) -> str:
    from netlens.loading.suggest import did_you_mean

    known = [known for known, key in KEYS.items() if kind in key.places]
    return did_you_mean(name, known, otherwise=f"the keys are {', '.join(known)}")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(part) for part in (value if isinstance(value, list) else [value]))


def _words(value: object) -> str:
    return ",".join(_texts(value))


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _seed(value: object) -> int:
    seed = _whole(value)
    if seed >= 2**32:  # numpy takes no larger one
        raise ValueError
    return seed


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _amount(value: object) -> str | int:
    return _text(value) if isinstance(value, str) else _whole(value)


def _model_args(value: object) -> tuple[str, ...]:
    """A table gives Python literals, so that a text stays a text: {act = "10"} is act='10'."""
    if isinstance(value, dict):
        return tuple(f"{name}={_literal(argument)!r}" for name, argument in value.items())
    texts = _texts(value)
    if not all("=" in text for text in texts):
        raise ValueError
    return texts


def _literal(value: object) -> object:
    if isinstance(value, list):
        return [_literal(part) for part in value]
    if isinstance(value, dict):
        return {name: _literal(part) for name, part in value.items()}
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError
    return value


def _one_of(choices: str, places: frozenset[str]) -> Key:
    known = choices.split()

    def choice(value: object) -> object:
        if value not in known:
            raise ValueError
        return value

    return Key(choice, "one of " + ", ".join(f'"{text}"' for text in known), places)


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


_MODEL = frozenset({"models"})
_ALL = frozenset({"defaults"})
_BOTH = _MODEL | _ALL

KEYS: dict[str, Key] = {
    "model": Key(_text, 'the name of a model: "resnet18", "my.models:Net"', _MODEL),
    "model-arg": Key(_model_args, 'a table or a list of texts: { num_classes = 10 } or ["num_classes=10"]', _MODEL),
    "weights": Key(_text, 'a text: "DEFAULT"', _MODEL),
    "checkpoint": Key(_text, 'the path of a file: "weights.safetensors"', _MODEL),
    "input": Key(_texts, 'a text or a list of texts: "1,3,224,224"', _MODEL),
    "expect-output": Key(_texts, 'a text or a list of texts: "1,1000" or ["logits=1,1000", "boxes=*,4"]', _MODEL),
    "expect-params": Key(_amount, 'a whole number or a text: 11689512, "11.7M" or "11.7M±1%"', _MODEL),
    "max-params": Key(_amount, 'a whole number or a text: "12M"'),
    "max-macs": Key(_amount, 'a whole number or a text: "2G"'),
    "max-size": Key(_amount, 'a whole number of bytes or a text: "50MB"'),
    "max-memory": Key(_amount, 'a whole number of bytes or a text: "24GiB"'),
    "lock": Key(_text, 'the path of a file: "netlens.lock.json"'),
    "lock-level": _one_of("output params layers", _BOTH),
    "device": Key(_text, 'a text: "meta", "cpu" or "cuda:0"'),
    "seed": Key(_seed, "a whole number from 0 to 4294967295"),
    "depth": Key(_whole, "a whole number"),
    "columns": Key(_words, 'a text or a list of texts: "params,macs"'),
    "sort": Key(_text, 'a text: "params"'),
    "top": Key(_whole, "a whole number"),
    "only": Key(_words, 'a text or a list of texts: "Conv2d"'),
    "time": Key(_flag, "true or false"),
    "format": _one_of("table json markdown github", _ALL),
    "fail-on": _one_of("error warning never", _ALL),
    "out": Key(_text, 'the path of a folder: "netlens-out"', _ALL),
    "show": Key(_flag, "true or false", _ALL),
}
