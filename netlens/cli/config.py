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

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from netlens.cli.config_keys import KEYS
from netlens.errors import FileProblem, UsageError

NAME = "pyproject.toml"


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says, checked: repeatable options are tuples of texts, `model-arg` tables are "name=literal" texts."""

    path: Path | None = None  # None: there is no such table; paths in the file are relative to this one's folder
    defaults: dict[str, object] = field(default_factory=dict)
    models: dict[str, dict[str, object]] = field(default_factory=dict)


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


def with_defaults(asked: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Complete what a command line asks by those defaults that hold in the current folder and that a lens knows.

    Args:
        asked: options by the names of their parameters: "fail_on".
        names: of options that may come from the file.

    Raises:
        UsageError, FileProblem: as for `load_config`.
    """
    defaults = {name.replace("-", "_"): value for name, value in load_config(Path.cwd()).defaults.items()}
    if defaults.get("device") == "meta":  # meant for summary: nothing can be computed there
        del defaults["device"]
    return {**{name: defaults[name] for name in names if name in defaults}, **asked}


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


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")
